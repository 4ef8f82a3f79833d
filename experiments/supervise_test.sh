#!/usr/bin/env bash
# usage: supervise_test.sh NIBBLE
# A job whose process is killed leaves a report that says so, of which `nibble gather` makes a
# row with the reason: the actions of experiments/defs.bzl rest on it.
set -u
nibble=$PWD/$1
cat > "$TEST_TMPDIR/c.textproto" <<CONFIG
name: "supervised"
model { source: "configs/models/novelist" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant {
  name: "endless"
  step { [nibble.sft] { data { text: "$PWD/configs/models/novelist/sample.txt" window: 128 } training { steps: 1000000 batch: 8 } } }
}
metric { size {} }
CONFIG
jobs=$TEST_TMPDIR/jobs
fail() { echo "$1" >&2; cat "$TEST_TMPDIR"/*.log "$jobs"/*.json >&2; exit 1; }
job() { "$nibble" job "$jobs/$1.textproto" --supervise --store "$TEST_TMPDIR/$1" "${@:2}" > "$TEST_TMPDIR/$1.log" 2>&1; }

"$nibble" plan "$TEST_TMPDIR/c.textproto" --threads 1 --out "$jobs" || fail "no plan"
job bf16.build || fail "bf16.build: status $?"
grep -q '"error"' "$jobs/bf16.build.json" && fail "bf16 was not built"
# SIGKILL after a second of CPU time, at each of the attempts.
(ulimit -t 1; job endless.build) || fail "endless.build: status $?"
[ "$(grep -c 'killed by signal 9 .*; starting it again' "$TEST_TMPDIR/endless.build.log")" -eq 2 ] || fail "not started again twice"
job bf16.0 --store "$TEST_TMPDIR/bf16.build" || fail "bf16.0: status $?"
job endless.0 --store "$TEST_TMPDIR/endless.build" || fail "endless.0: status $?"
"$nibble" gather "$jobs" --out "$TEST_TMPDIR/run" || fail "not gathered"
grep '"variant":"bf16"' "$TEST_TMPDIR/run/results.jsonl" | grep -q size_mib || fail "bf16 was not measured"
grep '"variant":"endless"' "$TEST_TMPDIR/run/results.jsonl" | grep -q 'process was killed by signal 9 .*so it ended 3 times' || fail "no reason in the results"
grep -q 'process was killed by signal 9' "$TEST_TMPDIR/run/report.md" || fail "no reason in the report"

# Any other end would come again.
echo "model: 5" > "$jobs/broken.textproto"
job broken || fail "broken: status $?"
grep -q "process ended with status 2: nibble: .*broken.textproto:1:" "$jobs/broken.json" || fail "no reason in the report of a job that cannot be read"

#!/usr/bin/env bash
# usage: slurm_test.sh NIBBLE
# A sweep on Slurm gives the figures of a local one, and what goes wrong there is told. Scripts
# stand in for a cluster here: sbatch runs the tasks of an array one after the other.
# tools/slurm_node.sh starts a real one.
set -u
nibble=$PWD/$1
cat > "$TEST_TMPDIR/c.textproto" <<'CONFIG'
name: "cluster"
model { source: "configs/models/novelist" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant { name: "w4" step { [nibble.rtn] { bits: 4 group_size: 32 } } }
variant { name: "bad" step { [nibble.rtn] { layers: "*.nothing" } } }
metric { perplexity { text: "quickstart/passages" window: 128 limit: 4 } }
metric { divergence { text: "quickstart/passages" window: 128 limit: 2 } }
metric { size {} }
metric { memory { prefill: 16 } }
CONFIG
run() { "$nibble" run "$TEST_TMPDIR/c.textproto" --out "$TEST_TMPDIR/$1" --work "$TEST_TMPDIR/work" "${@:2}" > "$TEST_TMPDIR/$1.log" 2>&1; }
fail() { echo "$1" >&2; cat "$TEST_TMPDIR"/*.log >&2; exit 1; }
says() { grep -qF -- "$2" "$TEST_TMPDIR/$1.log" || fail "$1: no '$2'"; }

run alone --backend slurm
[ $? -eq 2 ] || fail "without sbatch: expected status 2"
says alone "part of a Slurm cluster"

# LOSE: a task of the first array that Slurm ends before it begins. OTHER: nodes have this CPU.
mkdir "$TEST_TMPDIR/bin"
cat > "$TEST_TMPDIR/bin/sbatch" <<'SBATCH'
#!/bin/sh
for word; do case $word in --array=0-*) last=${word#--array=0-} ;; --time=5) timed=yes ;; esac; script=$word; done
[ "$timed" = yes ] || exit 3
echo "$*" >> "$TEST_TMPDIR/calls"
number=$((100 + $(wc -l < "$TEST_TMPDIR/calls")))
for i in $(seq 0 "$last"); do
  [ "$number $i" = "101 ${LOSE:-}" ] || SLURM_ARRAY_TASK_ID=$i sh "$script"
done
[ -z "${OTHER:-}" ] || sed -i "s/\"cpu\":\"[^\"]*\"/\"cpu\":\"$OTHER\"/" "$(dirname "$script")"/measure-*.json 2>/dev/null
echo "$number"
SBATCH
cat > "$TEST_TMPDIR/bin/squeue" <<'SQUEUE'
#!/bin/sh
cat "$TEST_TMPDIR/queue" 2>/dev/null || true
SQUEUE
cat > "$TEST_TMPDIR/bin/scancel" <<'SCANCEL'
#!/bin/sh
echo "$*" >> "$TEST_TMPDIR/cancelled"
rm -f "$TEST_TMPDIR/queue"
SCANCEL
cat > "$TEST_TMPDIR/bin/sacct" <<'SACCT'
#!/bin/sh
for word; do [ "$word" = --jobs=101_1 ] && echo TIMEOUT; done
true
SACCT
chmod +x "$TEST_TMPDIR"/bin/*
export PATH=$TEST_TMPDIR/bin:$PATH
cluster() { rm -f "$TEST_TMPDIR/calls"; run "$1" --backend slurm --slurm "--time=5" "${@:2}"; }

cluster cluster
[ $? -eq 1 ] || fail "on the cluster: expected status 1, for the variant that fails"
# Three builds, then the measurements of the two models that were built, then their memory.
[ "$(grep -o 'array=0-[0-9]*' "$TEST_TMPDIR/calls" | xargs)" = "array=0-2 array=0-5 array=0-1" ] || fail "arrays: $(cat "$TEST_TMPDIR/calls")"
[ "$(grep -c -- '--mem=[1-9]' "$TEST_TMPDIR/calls")" -eq 3 ] || fail "memory: $(cat "$TEST_TMPDIR/calls")"
[ "$(grep -n -- --exclusive "$TEST_TMPDIR/calls" | cut -d: -f1)" = 3 ] || fail "exclusive: $(cat "$TEST_TMPDIR/calls")"
run local
figures() {
  python3 -c 'import json, sys
records = json.load(open(sys.argv[1]))["records"]
print([(r["variant"], r["metric"], r["value"]) for r in records if not r["metric"].startswith("peak_rss")])' "$1/results.json"
}
[ "$(figures "$TEST_TMPDIR/cluster")" = "$(figures "$TEST_TMPDIR/local")" ] || fail "figures differ"
figures "$TEST_TMPDIR/local" | grep -q perplexity || fail "no figures"

# What Slurm ends is a row with its reason, and does not run here.
LOSE=1 cluster lost
[ $? -eq 1 ] || fail "with a task that is lost: expected status 1"
says lost "w4: FAILED: Slurm's task 101_1 ended without a report: TIMEOUT"
grep -q "w4: built" "$TEST_TMPDIR/lost.log" && fail "what was lost was built here"
says lost "bf16: perplexity"
LOSE=0 cluster unknown
says unknown "bf16: FAILED: Slurm's task 101_0 ended without a report ("

OTHER="Another CPU" cluster other
says other "bf16: FAILED: it ran on Another CPU (kernels"
says other "bf16: perplexity"

# An array whose runner was killed works no more when the next run starts.
mkdir -p "$TEST_TMPDIR/left/jobs"
echo 77 > "$TEST_TMPDIR/left/jobs/array-1.id"
echo 77_3 > "$TEST_TMPDIR/queue"
run left --only w4
says left "ending Slurm's array 77"
[ "$(cat "$TEST_TMPDIR/cancelled")" = 77 ] || fail "not cancelled: $(cat "$TEST_TMPDIR/cancelled")"
[ ! -e "$TEST_TMPDIR/left/jobs" ] || fail "the array's number is still there"

#!/usr/bin/env bash
# usage: slurm_test.sh NIBBLE
# A sweep on Slurm gives the figures of a local one. sbatch stands in for a cluster here: it
# runs the tasks of an array one after the other. tools/slurm_node.sh starts a real one.
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
CONFIG
run() { "$nibble" run "$TEST_TMPDIR/c.textproto" --out "$TEST_TMPDIR/$1" --work "$TEST_TMPDIR/work" "${@:2}" > "$TEST_TMPDIR/$1.log" 2>&1; }
fail() { echo "$1" >&2; cat "$TEST_TMPDIR"/*.log >&2; exit 1; }

run alone --backend slurm
[ $? -eq 2 ] || fail "without sbatch: expected status 2"
grep -q "part of a Slurm cluster" "$TEST_TMPDIR/alone.log" || fail "without sbatch: no message"

mkdir "$TEST_TMPDIR/bin"
cat > "$TEST_TMPDIR/bin/sbatch" <<'SBATCH'
#!/bin/sh
for word; do case $word in --array=0-*) last=${word#--array=0-} ;; --time=5) timed=yes ;; esac; script=$word; done
[ "$timed" = yes ] || exit 3
echo "$last" >> "$TEST_TMPDIR/arrays"
for i in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID=$i sh "$script"; done
SBATCH
chmod +x "$TEST_TMPDIR/bin/sbatch"
PATH=$TEST_TMPDIR/bin:$PATH run cluster --backend slurm --slurm "--time=5"
[ $? -eq 1 ] || fail "on the cluster: expected status 1, for the variant that fails"
# Three builds, then the measurements of the two models that were built.
[ "$(cat "$TEST_TMPDIR/arrays" | xargs)" = "2 5" ] || fail "arrays: $(cat "$TEST_TMPDIR/arrays" | xargs)"
run local
figures() { python3 -c 'import json, sys; print([(r["variant"], r["metric"], r["value"]) for r in json.load(open(sys.argv[1]))["records"]])' "$1/results.json"; }
[ "$(figures "$TEST_TMPDIR/cluster")" = "$(figures "$TEST_TMPDIR/local")" ] || fail "figures differ"
figures "$TEST_TMPDIR/local" | grep -q perplexity || fail "no figures"

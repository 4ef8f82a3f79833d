#!/usr/bin/env bash
# usage: experiment_test.sh EXPECTED_STATUS NIBBLE CONFIG [ARGUMENT ...]
# Runs an experiment and passes when it exits with the expected status.
set -u
expected=$1 nibble=$2 config=$3
shift 3
# The fetched model, where a test finds it: its home is not the user's.
if [ -f "${NIBBLE_SMOLLM2_GGUF:-}" ]; then
  export XDG_CACHE_HOME=$TEST_TMPDIR/cache
  mkdir -p "$XDG_CACHE_HOME/nibble/models"
  ln -s "$NIBBLE_SMOLLM2_GGUF" "$XDG_CACHE_HOME/nibble/models/smollm2-135m.gguf"
fi
"$nibble" run "$config" --out "$TEST_TMPDIR/out" --work "$TEST_TMPDIR/work" "$@"
status=$?
# A case for each gate and each job that failed, in place of one for the script, where they decided.
gates=$TEST_TMPDIR/out/gates.xml
if [ -n "${XML_OUTPUT_FILE:-}" ] && [ "$expected" -eq 0 ] && [ -f "$gates" ] && { [ "$status" -eq 0 ] || grep -q '<failure' "$gates"; }; then
  cp "$gates" "$XML_OUTPUT_FILE"
fi
# 1 is the status of a job that failed too, which is a case as well.
if [ "$expected" -eq 1 ] && ! grep '<failure' "$gates" | grep -qv '\.jobs" name='; then
  echo "nibble run $config: no gate failed" >&2
  exit 1
fi
if [ "$status" -ne "$expected" ]; then
  echo "nibble run $config: exit status $status, expected $expected" >&2
  exit 1
fi

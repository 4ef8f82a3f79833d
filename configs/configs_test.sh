#!/usr/bin/env bash
# usage: configs_test.sh NIBBLE
# Every experiment here passes the checks that come before a run, but for those of a model
# that is not among this test's files. Their data are read from $NIBBLE_SHARED, which
# configs expect beside the checkout. Searches: experiments/search/configs_test.cc.
set -u
nibble=$PWD/$1
if [ ! -d "${NIBBLE_SHARED:-}/data" ]; then
  echo "skipped: the experiments read the shared reference data; set NIBBLE_SHARED to its folder"
  exit 0
fi
export NIBBLE_DATA=$NIBBLE_SHARED/data
mkdir "$TEST_TMPDIR/checkout"
ln -s "$NIBBLE_SHARED" "$TEST_TMPDIR/shared"
cp -rL configs datasets "$TEST_TMPDIR/checkout/"
cd "$TEST_TMPDIR/checkout" || exit 1
checked=0 failed=0
for config in configs/*.textproto; do
  grep -q 'proto-message: nibble.Experiment' "$config" || continue
  checked=$((checked + 1))
  "$nibble" run "$config" --dry-run > plan.txt && grep -q ' measurements$' plan.txt && continue
  failed=$((failed + 1))
  echo "FAILED: $config" >&2
done
echo "$checked experiments checked, $failed failed"
[ "$checked" -ge 10 ] && [ "$failed" -eq 0 ]

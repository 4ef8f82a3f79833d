#!/usr/bin/env bash
# usage: jobs_test.sh NIBBLE LIST CONFIG ...
# The committed list of the experiments' jobs is the one that `nibble plan --starlark` makes.
set -u
nibble=$PWD/$1 list=$2
shift 2
"$nibble" plan "$@" --starlark "$TEST_TMPDIR/jobs.bzl" || exit 1
diff -u "$list" "$TEST_TMPDIR/jobs.bzl" && exit 0
echo "$list is not the list of its experiments' jobs any more; write it again: ./nibble plan $* --starlark $list" >&2
exit 1

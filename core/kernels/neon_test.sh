#!/usr/bin/env bash
# Cross-compiles the NEON table with table_check and runs it in an emulator,
# from the repository's root. Skips where the compiler or the emulator is missing.
set -eu
compiler=aarch64-linux-gnu-g++
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)

missing=()
command -v "$compiler" >/dev/null || missing+=("$compiler (Debian package g++-aarch64-linux-gnu)")
[ -n "$emulator" ] || missing+=("qemu-aarch64-static (Debian package qemu-user-static)")
if [ ${#missing[@]} -gt 0 ]; then
  printf 'missing: %s\n' "${missing[@]}"
  echo "SKIPPED: the neon_dotprod table was neither compiled nor run; third_party/test_packages.txt lists what to install"
  exit 0
fi

work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/neon_test.XXXXXX")
trap 'rm -rf "$work"' EXIT
# The flags of .bazelrc; those of the instruction set go to neon.cc alone.
compile() { "$compiler" -std=c++20 -O2 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -ffp-contract=off -I. "$@"; }
compile -march=armv8.2-a+dotprod -c core/kernels/neon.cc -o "$work/neon.o"
compile -DNIBBLE_CHECKED_FUNCTIONS=kNeonFunctions -DNIBBLE_CHECKED_PROBES=kNeonProbes -static -o "$work/table_check" \
  core/kernels/table_check.cc core/kernels/integer_product.cc core/kernels/portable.cc "$work/neon.o"
echo "neon_dotprod against portable, in $emulator:"
"$emulator" "$work/table_check"

#!/usr/bin/env bash
# usage: run_experiment.sh NIBBLE CONFIG NAME [ARGUMENT ...]
# Runs an experiment of the workspace from its own files, so that paths relative to the
# config and its folder mean what they say, into out/NAME where the user stands.
set -euo pipefail
nibble=$PWD/$1 config=${BUILD_WORKSPACE_DIRECTORY:-$PWD}/$2 name=$3
shift 3
NIBBLE_COMMIT=$(git -C "${BUILD_WORKSPACE_DIRECTORY:-$PWD}" describe --always --dirty 2>/dev/null || true)
export NIBBLE_COMMIT
cd "${BUILD_WORKING_DIRECTORY:-$PWD}"
unset BUILD_WORKING_DIRECTORY
exec "$nibble" run "$config" --out "out/$name" "$@"

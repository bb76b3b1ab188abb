#!/usr/bin/env bash
# The loom models of the shipped protocol code: all of them, or those whose names contain one of the words.
# bash ci/loom.sh [WORDS..]
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
export CARGO_PROFILE_RELEASE_LTO=off
built=$(cargo test --release --locked -p slipring-core --test loom --no-run 2>&1 | tee /dev/stderr)
program=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$built")
models=$("$program" --list "$@" | sed -n 's/: test$//p')
[ -n "$models" ] || { echo "no model has such a name: $*" >&2; exit 1; }
# In processes of their own, one for each processor: threads of one process hold each other up where loom maps the
# stacks of its threads, and that is all the time.
xargs -P "$(nproc)" -n 5 "$program" --test-threads=1 --exact <<<"$models"
echo "all $(wc -l <<<"$models") models hold"

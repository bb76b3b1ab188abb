#!/usr/bin/env bash
# The loom models of the shipped protocol code.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" \
    cargo test --release --locked -p slipring-core --test loom -- "$@"

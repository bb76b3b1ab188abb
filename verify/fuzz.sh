#!/usr/bin/env bash
# Fuzzes headers and control words under AddressSanitizer: verify/fuzz.sh [TARGET [SECONDS]].
# Needs `cargo install cargo-fuzz`. What it finds goes into crates/slipring/tests/hostile_words.rs.
set -euo pipefail
cd "$(dirname "$0")/fuzz"
# The sanitizer is a nightly option of rustc; this compiler has it too, and is asked for it openly.
export RUSTC_BOOTSTRAP=1
for target in ${1:-header records topic}; do
    cargo fuzz run --fuzz-dir . "$target" -- -max_total_time="${2:-60}" -max_len=4096 -timeout=10
done

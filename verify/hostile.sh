#!/usr/bin/env bash
# The stepper's lies before an AddressSanitizer build, with the channels' memory in memfds and between
# inaccessible pages: no access beyond it, or beyond anything else. verify/hostile.sh [LIES [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
# As in sanitize.sh.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer --cfg rustix_use_libc --cfg slipring_plain"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/address"
lies="${1:-100000}" seed="${2:-1}"
for walls in "" --walls; do
    cargo run --quiet --release --locked --target x86_64-unknown-linux-gnu -p slipring-stepper -- \
        --hostile "$lies" --seed "$seed" $walls
done

#!/usr/bin/env bash
# All that CI runs. Needs Rust and gcc; clippy and rustfmt where they are installed (CI insists).
set -euo pipefail
cd "$(dirname "$0")/.."
# Every step builds once: what a next build would go on from only fills the disk.
export CARGO_INCREMENTAL=0

step() { printf '\n== %s\n' "$*"; "$@"; }

if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
    step cargo fmt --all --check
    step cargo clippy --workspace --all-targets --locked -- -D warnings
    step cargo clippy -p slipring --all-targets --features tokio --locked -- -D warnings
elif [ "${CI:-}" = true ]; then
    echo "CI needs rustfmt and clippy: rustup component add rustfmt clippy" >&2
    exit 1
else
    echo "rustfmt and clippy are not installed: style is not checked"
fi

step bash ci/no_std.sh
step bash ci/loom.sh
step bash verify/spin.sh
step cargo run --quiet --profile evidence --locked -p slipring-stepper
step cargo run --quiet --profile evidence --locked -p slipring-stepper -- --errno
step cargo run --quiet --profile evidence --locked -p slipring-stepper -- --every-word
step cargo run --quiet --profile evidence --locked -p slipring-stepper -- --hostile 20000
step cargo run --quiet --profile evidence --locked -p slipring-stepper -- --hostile 5000 --walls
step cargo run --quiet --profile evidence --locked -p slipring-storm
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps --locked --quiet
RUSTDOCFLAGS="-D warnings" step cargo doc -p slipring --features tokio --no-deps --locked --quiet
step cargo test --workspace --locked
# As users without `std` have the core. (The workspace turns that feature on.)
step cargo test -p slipring-core --locked --test guards
# What stands behind features: streams and tokio. (The rest was run above.)
step cargo test -p slipring --features tokio --locked --test futures --test on_tokio --test overlooked
step cargo test -p slipring --features tokio --locked --doc
step cargo run -p slipring --features tokio --locked --quiet --example tokio
# Examples that need nobody else, and end by themselves.
step cargo run --locked --quiet -p slipring --example event_loop
step cargo run --locked --quiet -p slipring --example feed
step cargo run --locked --quiet -p slipring --example device

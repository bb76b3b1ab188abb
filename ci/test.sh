#!/usr/bin/env bash
# All that CI runs. Needs Rust and gcc; clippy and rustfmt where they are installed (CI insists).
set -euo pipefail
cd "$(dirname "$0")/.."
# Every step builds once: what a next build would go on from only fills the disk.
export CARGO_INCREMENTAL=0

step() { printf '\n== %s\n' "$*"; "$@"; }

# Runs these commands, each of which uses one processor, two at a time. Shows what each said once it has ended.
two_at_once() {
    local said command number failed=0
    said=$(mktemp -d)
    for number in $(seq $#); do
        command=${!number}
        while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
        { $command >"$said/$number" 2>&1 && touch "$said/$number.well"; } &
    done
    wait
    for number in $(seq $#); do
        printf '\n== %s\n' "${!number}"
        cat "$said/$number"
        [ -e "$said/$number.well" ] || failed=1
    done
    rm -r "$said"
    return $failed
}

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
step cargo build --quiet --profile evidence --locked -p slipring-stepper
stepper=${CARGO_TARGET_DIR:-target}/evidence/stepper
two_at_once "$stepper" "$stepper --errno" "$stepper --hostile 20000" "$stepper --stopped mpmc" \
    "$stepper --hostile 5000 --walls" "$stepper --every-word"
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

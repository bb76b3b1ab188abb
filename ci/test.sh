#!/usr/bin/env bash
# All that CI runs. Needs Rust and gcc; clippy, rustfmt and python3 where they are installed (CI insists).
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
        # Without the shell's patterns: they are cargo's here.
        { set -f && $command >"$said/$number" 2>&1 && touch "$said/$number.well"; } &
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

# All of it with the features that the command has, as one build: each step finds what the one before it has made.
# (Without them slipring is built for the stepper and the storm.)
all="--workspace --features slipring/tokio --locked"
built=${CARGO_TARGET_DIR:-target}

if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
    step cargo fmt --all --check
    step cargo clippy $all --all-targets -- -D warnings
elif [ "${CI:-}" = true ]; then
    echo "CI needs rustfmt and clippy: rustup component add rustfmt clippy" >&2
    exit 1
else
    echo "rustfmt and clippy are not installed: style is not checked"
fi

# What the evidence that CI does not run names in the code is there still.
if command -v python3 >/dev/null 2>&1; then
    step python3 verify/stepper/bugs.py --texts
    step python3 verify/orderings.py --names
elif [ "${CI:-}" = true ]; then
    echo "CI needs python3" >&2
    exit 1
else
    echo "python3 is not installed: the names in verify/*.py are not checked"
fi

step bash ci/no_std.sh
step bash ci/loom.sh
step bash verify/spin.sh
step cargo build --quiet --profile evidence --locked -p slipring-stepper -p slipring-storm
RUSTDOCFLAGS="-D warnings" step cargo doc $all --no-deps --quiet
step cargo test $all --no-run
stepper=$built/evidence/stepper
# Tests in parts, by the first letters of their files.
two_at_once "$stepper" "$built/evidence/storm" "$stepper --errno" "$stepper --hostile 20000" \
    "$stepper --stopped mpmc" "$stepper --hostile 5000 --walls" "$stepper --every-word" \
    "cargo test $all --lib --bins" "cargo test $all --test [a-d]*" "cargo test $all --test [e-h]*" \
    "cargo test $all --test [i-p]*" "cargo test $all --test [q-s]*" "cargo test $all --test [t-z]*" \
    "cargo test $all --doc"
# As users without `std` have the core. (The workspace turns that feature on.)
step cargo test -p slipring-core --locked --test guards
# Examples that need nobody else, and end by themselves. The tests' build has made them.
for example in tokio event_loop feed device; do
    step "$built/debug/examples/$example"
done

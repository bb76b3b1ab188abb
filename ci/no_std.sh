#!/usr/bin/env bash
# slipring-core needs neither std nor alloc nor libc: link it into a static program that has none of
# them, see that nothing is missing in it, and run it. (x86-64 Linux: its start and exit are two
# lines of assembly; what it shows of slipring-core holds anywhere.)
set -euo pipefail
cd "$(dirname "$0")/no_std"
target="${CARGO_TARGET_DIR:-../../target}/no_std"
# Not the caller's flags: --cfg loom or a sanitizer would bring std in again.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "not x86-64 Linux: only compiled, not linked"
    CARGO_TARGET_DIR="$target" cargo rustc --release --locked --quiet -- --emit=metadata
    exit
fi
CARGO_TARGET_DIR="$target" cargo build --release --locked --quiet
program="$target/release/slipring-no-std"
if missing="$(nm --undefined-only "$program")" && [ -n "$missing" ]; then
    printf 'slipring-core asks for more than core:\n%s\n' "$missing" >&2
    exit 1
fi
if "$program"; then
    echo "no_std: linked without std, alloc and libc; every kind passes messages through a static"
else
    echo "no_std: step $? failed, see ci/no_std/src" >&2
    exit 1
fi

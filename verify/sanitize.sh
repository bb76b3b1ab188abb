#!/usr/bin/env bash
# verify/sanitize.sh address|thread [cargo test arguments]: see asan.sh and tsan.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer="$1"
shift
# A nightly option of rustc, which the stable one has too, and is asked for openly. The standard
# library is not rebuilt for it: its own accesses are not seen, ours are.
export RUSTC_BOOTSTRAP=1
# `rustix_use_libc`: its own system calls would hide mmap and munmap from the sanitizer, which then
# takes memory that was unmapped and mapped again for memory that two threads share.
export RUSTFLAGS="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer --cfg rustix_use_libc --cfg slipring_plain"
# With line tables alone, functions have other names than `tsan.supp` says.
export CARGO_PROFILE_DEV_DEBUG=full
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/$sanitizer"
export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/verify/tsan.supp ${TSAN_OPTIONS:-}"
[ $# -gt 0 ] || set -- --lib --tests
# Without doc tests, which rustdoc builds by other rules, and without the test that runs the
# compiler and nothing of ours.
skipped=(--skip do_not_compile)
# ThreadSanitizer does not follow a process that forks while it has threads, and starts more.
[ "$sanitizer" = address ] || skipped+=(--skip fork)
cargo test --locked --target x86_64-unknown-linux-gnu -p slipring-core -p slipring "$@" \
    -- "${skipped[@]}" --test-threads=1

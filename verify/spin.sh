#!/usr/bin/env bash
# Checks the SPIN models, and that each of their parts is needed: some seconds. Needs spin and gcc.
set -euo pipefail
cd "$(dirname "$0")/spin"

if ! command -v spin >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    (apt-get update && apt-get install -y --no-install-recommends spin) >/dev/null
fi
if ! command -v spin >/dev/null; then
    if [ "${CI:-}" = true ]; then
        echo "CI needs spin (Debian's package of that name)" >&2
        exit 1
    fi
    echo "spin is not installed: its models are not checked"
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# check VARIANT WITHOUT: the number of errors that spin finds.
check() {
    (
        cd "$scratch"
        spin "-DVARIANT=$1" "-DWITHOUT=$2" -a "$OLDPWD/wake.pml" >/dev/null
        gcc -O2 -DSAFETY -w -o pan pan.c
        ./pan -m1000000 >pan.out
        grep -q "max search depth too small" pan.out && { cat pan.out >&2; exit 1; }
        sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
    )
}

failed=0
for variant in ASYMMETRIC FENCED MIXED; do
    errors=$(check "$variant" 0)
    echo "wake $variant: $errors errors"
    [ "$errors" = 0 ] || failed=1
done
# What each variant stands on, taken away: see wake.pml.
for case in ASYMMETRIC:2 ASYMMETRIC:3 ASYMMETRIC:4 ASYMMETRIC:5 ASYMMETRIC:7 ASYMMETRIC:8 \
    FENCED:1 FENCED:3 FENCED:4 FENCED:5 FENCED:7 FENCED:8 \
    MIXED:3 MIXED:4 MIXED:5 MIXED:6 MIXED:7 MIXED:8; do
    errors=$(check "${case%:*}" "${case#*:}")
    if [ "$errors" = 0 ]; then
        echo "wake ${case%:*} without part ${case#*:}: no error, but there must be one" >&2
        failed=1
    fi
done
[ "$failed" = 0 ] && echo "wake: every part is needed"
exit "$failed"

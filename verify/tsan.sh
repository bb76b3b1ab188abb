#!/usr/bin/env bash
# ThreadSanitizer over the tests of slipring-core and slipring: no data race between threads of one
# process on one mapping. (It neither sees a race between two mappings of one memfd, nor understands
# fences; processes and orderings have tests and models of their own.)
# verify/tsan.sh [cargo test arguments]
exec "$(dirname "$0")/sanitize.sh" thread "$@"

#!/usr/bin/env bash
# AddressSanitizer over the tests of slipring-core and slipring: no access beyond the memory of a
# channel, none after it is gone, no leak. verify/asan.sh [cargo test arguments]
exec "$(dirname "$0")/sanitize.sh" address "$@"

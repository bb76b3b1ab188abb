#!/usr/bin/env bash
# Checks the SPIN models, and that each of their parts is needed. Needs spin and gcc.
#
#   verify/spin.sh                       all of them
#   verify/spin.sh MODEL VARIANT PART    the number of errors in one, without that part (0: with all)
set -euo pipefail
# A model that does not build is no model with an error in it.
shopt -s inherit_errexit
cd "$(dirname "$0")/spin"

if ! command -v spin >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    (apt-get update && apt-get install -y --no-install-recommends spin) >/dev/null
fi
if ! command -v spin >/dev/null; then
    if [ "${CI:-}" = true ]; then
        echo "CI needs spin (Debian's package of that name)" >&2
        exit 1
    fi
    echo "spin is not installed: its models are not checked" >&2
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# errors MODEL FLAGS DEFINES..: the number of errors that spin finds in a model that is compiled with these flags.
errors() {
    local model=$1 flags=$2 place
    shift 2
    place=$(mktemp -d -p "$scratch")
    (
        cd "$place"
        spin "$@" -a "$OLDPWD/$model.pml" >/dev/null
        # Of the flags each is a word.
        gcc $flags -DSAFETY -DMEMLIM=4000 -w -o pan pan.c
        ./pan -m2000000 >pan.out
        grep -Eq "max search depth too small|memory limit" pan.out && { cat pan.out >&2; exit 1; }
        sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
    )
    rm -r "$place"
}
# The models of waiting are small, and most of the time is the compiler's.
waiting() { errors "$1" -O0 "-DVARIANT=$2" "-DWITHOUT=$3"; }
# queue FAULT DEFINES..: in the work queue's model, with that deliberate fault (0: with none).
queue() { errors mpmc "-O2 -DCOLLAPSE" "-DBROKEN=$1" "${@:2}"; }
# topic FAULT DEFINES..: the same of a topic's. A fault shows soon.
topic() { errors topic "$([ "$1" = 0 ] && echo -O2 || echo -O0) -DCOLLAPSE" "-DBUG=$1" "${@:2}"; }
# grow PART DEFINES..: a ring that is resized while both sides run, without that part (0: with all).
grow() { errors grow "-O2 -DCOLLAPSE" "-DWITHOUT=$1" "${@:2}"; }

if [ $# = 3 ]; then
    waiting "$@"
    exit
fi

# expect none|some NAME COMMAND..: has COMMAND count errors, beside others: one for each processor.
asked=0
expect() {
    local wanted=$1 name=$2 found
    shift 2
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
    asked=$((asked + 1))
    {
        found=$("$@")
        case $wanted in
        none) echo "$name: $found errors" && [ "$found" = 0 ] ;;
        some) [ "$found" -gt 0 ] || { echo "$name: no error, but there must be one" && false; } ;;
        esac
        touch "$scratch/$asked.well"
    } >"$scratch/$asked.said" 2>&1 &
}

# Producers, consumers, slots and messages; an end is killed at any step, and its successor or a helper recovers.
two_one=(-DNP=2 -DNC=1 -DCAP=2 -DPER=2 -DPER2=1 -DHELPER=0)
one_one=(-DNP=1 -DNC=1 -DCAP=1 -DPER=3)
# Producers that come round carry what is held or returned.
one_two=(-DNP=1 -DNC=2 -DCAP=1 -DPER=4 -DHELPER=0 -DSKIP=1 -DREQUEUE=1)
# Two publishers, subscribers, a ring of R entries and messages; an end is killed at any step, and has a successor.
one_entry=(-DR=1 -DMSGS=3 -DSUBS=1)
sound() { expect none "$1 ${*:2}" "$1" 0 "${@:2}"; }
# The longest first.
sound topic -DR=1 -DMSGS=2 -DSUBS=2
sound topic "${one_entry[@]}"
sound queue "${two_one[@]}"
sound queue "${one_one[@]}"
sound queue "${one_two[@]}"
sound queue -DNP=2 -DNC=1 -DCAP=1 -DPER=2 -DPER2=1 -DHELPER=0 -DSKIP=1
sound queue -DNP=1 -DNC=1 -DCAP=4 -DPER=6 -DHELPER=0
sound queue -DNP=1 -DNC=2 -DCAP=2 -DPER=2 -DHELPER=0
sound queue -DNP=1 -DNC=1 -DCAP=2 -DPER=3 -DHELPER=0 -DREQUEUE=1 -DDISCARD=1
sound queue -DNP=1 -DNC=1 -DCAP=2 -DPER=3 -DHELPER=0 -DAMO=1
# Rings with a record, messages and resizes; either side is killed at any step, and has a successor.
two_records=(-DK=2 -DN=3 -DKILLS=1 -DRESIZES=3)
three_records=(-DK=3 -DN=3 -DKILLS=1 -DRESIZES=3)
sound grow "${two_records[@]}"
sound grow -DK=3 -DN=3 -DKILLS=2 -DRESIZES=2

faults=0
found() {
    expect some "$1 with fault $2" "$@"
    faults=$((faults + 1))
}
for fault in 1 3 7 8 10; do found queue "$fault" "${two_one[@]}"; done
for fault in 4 5 6 9; do found queue "$fault" "${one_one[@]}"; done
found queue 11 -DNP=1 -DNC=1 -DCAP=2 -DPER=3 -DHELPER=0 -DSKIP=1 -DREQUEUE=1
queue_faults=$faults
for fault in {1..13}; do found topic "$fault" "${one_entry[@]}"; done

for case in wake:ASYMMETRIC wake:FENCED wake:MIXED wake:SET pipe:ASYMMETRIC pipe:FENCED \
    pipe:OVERLOOKED pipe:LATE; do
    expect none "${case/:/ }" waiting "${case%:*}" "${case#*:}" 0
done
# What each variant stands on, taken away: see the models.
parts=0
for case in wake:ASYMMETRIC:{2,3,4,5,7,8,9} wake:FENCED:{1,3,4,5,7,8} wake:MIXED:{3,4,5,6,7,8} \
    wake:SET:4 pipe:ASYMMETRIC:{1,2,3,4,5,6,7,8,9,10,11,12,13} \
    pipe:OVERLOOKED:{14,15,16,17,18} pipe:LATE:{3,4,10,11,19,20,21,22,23}; do
    IFS=: read -r model variant part <<<"$case"
    expect some "$model $variant without part $part" waiting "$model" "$variant" "$part"
    parts=$((parts + 1))
done
for part in {1..7} {9..13}; do
    expect some "grow without part $part" grow "$part" "${three_records[@]}"
    parts=$((parts + 1))
done
expect some "grow without part 8" grow 8 "${two_records[@]}"
parts=$((parts + 1))

wait
failed=0
for number in $(seq "$asked"); do
    cat "$scratch/$number.said"
    [ -e "$scratch/$number.well" ] || failed=1
done
[ "$failed" = 0 ] && echo "each of $parts parts is needed, each of $queue_faults faults of the queue and each of $((faults - queue_faults)) of the topic is found"
exit "$failed"

#!/usr/bin/env bash
# Checks the SPIN models, and that each of their parts is needed: some seconds. Needs spin and gcc.
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

# check MODEL VARIANT WITHOUT: the number of errors that spin finds.
check() {
    (
        cd "$scratch"
        spin "-DVARIANT=$2" "-DWITHOUT=$3" -a "$OLDPWD/$1.pml" >/dev/null
        gcc -DSAFETY -w -o pan pan.c
        ./pan -m1000000 >pan.out
        grep -q "max search depth too small" pan.out && { cat pan.out >&2; exit 1; }
        sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
    )
}

if [ $# = 3 ]; then
    check "$@"
    exit
fi

failed=0
for case in wake:ASYMMETRIC wake:FENCED wake:MIXED wake:SET pipe:ASYMMETRIC pipe:FENCED \
    pipe:OVERLOOKED pipe:LATE; do
    errors=$(check "${case%:*}" "${case#*:}" 0)
    echo "${case/:/ }: $errors errors"
    [ "$errors" = 0 ] || failed=1
done
# What each variant stands on, taken away: see the models.
parts=0
for case in wake:ASYMMETRIC:{2,3,4,5,7,8,9} wake:FENCED:{1,3,4,5,7,8} wake:MIXED:{3,4,5,6,7,8} \
    wake:SET:4 pipe:ASYMMETRIC:{1,2,3,4,5,6,7,8,9,10,11,12,13} \
    pipe:OVERLOOKED:{14,15,16,17,18} pipe:LATE:{3,4,10,11,19,20,21,22,23}; do
    IFS=: read -r model variant part <<<"$case"
    errors=$(check "$model" "$variant" "$part")
    if [ "$errors" = 0 ]; then
        echo "$model $variant without part $part: no error, but there must be one" >&2
        failed=1
    fi
    parts=$((parts + 1))
done

# queue FAULT DEFINES..: the number of errors in the work queue's model, with that deliberate fault (0: with none).
queue() {
    (
        cd "$scratch"
        spin "-DBROKEN=$1" "${@:2}" -a "$OLDPWD/mpmc.pml" >/dev/null
        gcc -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -w -o pan pan.c
        ./pan -m2000000 >pan.out
        grep -Eq "max search depth too small|memory limit" pan.out && { cat pan.out >&2; exit 1; }
        sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
    )
}

# Producers, consumers, slots and messages; an end is killed at any step, and its successor or a helper recovers.
two_one=(-DNP=2 -DNC=1 -DCAP=2 -DPER=2 -DPER2=1 -DHELPER=0)
one_one=(-DNP=1 -DNC=1 -DCAP=1 -DPER=3)
sound() {
    errors=$(queue 0 "$@")
    echo "mpmc ${*#-D}: $errors errors"
    [ "$errors" = 0 ] || failed=1
}
sound "${two_one[@]}"
sound "${one_one[@]}"
sound -DNP=1 -DNC=1 -DCAP=4 -DPER=6 -DHELPER=0
sound -DNP=1 -DNC=2 -DCAP=2 -DPER=2 -DHELPER=0
sound -DNP=1 -DNC=1 -DCAP=2 -DPER=3 -DHELPER=0 -DREQUEUE=1 -DDISCARD=1
sound -DNP=1 -DNC=1 -DCAP=2 -DPER=3 -DHELPER=0 -DAMO=1
# Producers that come round carry what is held or returned.
one_two=(-DNP=1 -DNC=2 -DCAP=1 -DPER=4 -DHELPER=0 -DSKIP=1 -DREQUEUE=1)
sound "${one_two[@]}"
sound -DNP=2 -DNC=1 -DCAP=1 -DPER=2 -DPER2=1 -DHELPER=0 -DSKIP=1
faults=0
found() {
    if [ "$(queue "$@")" = 0 ]; then
        echo "mpmc with fault $1: no error, but there must be one" >&2
        failed=1
    fi
    faults=$((faults + 1))
}
for fault in 1 3 7 8 10; do found "$fault" "${two_one[@]}"; done
for fault in 4 5 6 9; do found "$fault" "${one_one[@]}"; done
found 11 -DNP=1 -DNC=1 -DCAP=2 -DPER=3 -DHELPER=0 -DSKIP=1 -DREQUEUE=1

# topic FAULT HOW DEFINES..: the number of errors in the model of a topic, with that deliberate fault (0: with none).
topic() {
    (
        cd "$scratch"
        spin "-DBUG=$1" "${@:3}" -a "$OLDPWD/topic.pml" >/dev/null
        gcc "$2" -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -w -o pan pan.c
        ./pan -m2000000 >pan.out
        grep -Eq "max search depth too small|memory limit" pan.out && { cat pan.out >&2; exit 1; }
        sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
    )
}
# Two publishers, subscribers, a ring of R entries and messages; an end is killed at any step, and has a successor.
one_entry=(-DR=1 -DMSGS=3 -DSUBS=1)
errors=$(topic 0 -O2 "${one_entry[@]}")
echo "topic ${one_entry[*]#-D}: $errors errors"
[ "$errors" = 0 ] || failed=1
topic_faults=0
for fault in {1..13}; do
    if [ "$(topic "$fault" -O0 "${one_entry[@]}")" = 0 ]; then
        echo "topic with fault $fault: no error, but there must be one" >&2
        failed=1
    fi
    topic_faults=$((topic_faults + 1))
done
[ "$failed" = 0 ] && echo "each of $parts parts is needed, each of $faults faults of the queue and each of $topic_faults of the topic is found"
exit "$failed"

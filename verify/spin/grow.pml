/*
 * Growing and shrinking a ring of one producer and one consumer while both run.
 *
 * Positions go on; ring number r holds those from from[r] on, up to from[r + 1], and lies in the area of its
 * class (one area a capacity: here 1, 2 and 4 slots). The producer alone opens rings; the consumer alone gives
 * their memory back, and then says so in `passed`. Either may be killed before any step on shared memory; its
 * successor knows only what lies there. Giving back is not one step.
 *
 * Checked: each position is read once in order as it was written (again only after a kill); nobody touches
 * memory that is not backed; in the end nothing is backed but the newest ring's area; nobody gets stuck.
 *
 * The code is `slipring-core/src/rings.rs`. K is the number of live rings that have a record; there it is 7.
 *
 * WITHOUT=n takes a part away; then there must be an error. Part 8 shows with fewer records than classes (K=2).
 * verify/spin.sh runs all of them.
 *   1 the consumer looks at `rings` after the tail       2 gives memory back before it says so
 *   3 the producer asks `passed`, not the head            4 writes the record before `rings`
 *   5 the consumer stops at the ring's end                6 its successor finds its ring by position
 *   7 the producer's successor gives back strays          8 no record that is in use is written over
 *   9 the consumer's successor goes on giving back       10 strays are only what no ring uses
 *  11 `rings` is stored before the new ring is written   12 memory is backed before `rings`
 *  13 a class that is in use is refused
 */
#ifndef WITHOUT
#define WITHOUT 0
#endif
#ifndef N
#define N 5
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef RESIZES
#define RESIZES 4
#endif
#define CLASSES 3
#ifndef K
#define K 3
#endif
#define CAP(k) (1 << (k))
#define SLOT(k, p) (CAP(k) - 1 + ((p) & (CAP(k) - 1)))

byte slot[7];
bool backed[CLASSES];
byte tail, head, rings, passed;
byte from[K], class[K];
byte kills, resizes;
bool done;

#define KILL if :: kills < KILLS -> kills++; goto take :: true fi

inline punch(c, n) {
    backed[c] = false;
    n = 0;
    do
    :: n < CAP(c) -> KILL; slot[CAP(c) - 1 + n] = 0; n++
    :: else -> break
    od;
    n = 0
}

proctype Producer() {
    byte at, limit, k, r, g, i, c, n;
    bool used;
take: skip;
    d_step { at = tail; r = rings; k = class[r % K]; g = 0; i = 0; c = 0; n = 0; used = false; limit = 0 }
    limit = head + CAP(k);
#if WITHOUT != 7
    g = passed;
    do
    :: c < CLASSES ->
        used = false;
        d_step {
            i = g;
            do
            :: i <= r -> used = used || (class[i % K] == c); i++
            :: else -> break
            od;
            i = 0
#if WITHOUT == 10
            ; used = (c == k)
#endif
        }
        if
        :: !used && backed[c] -> punch(c, n)
        :: else
        fi;
        c++
    :: else -> break
    od;
    c = 0; g = 0; used = false;
#endif
    do
    :: at < N ->
        if
        :: at >= limit -> limit = head + CAP(k)
        :: else
        fi;
        if
        :: at < limit ->
            KILL;
            atomic { assert(backed[k]); slot[SLOT(k, at)] = at + 1 };
            KILL;
            d_step { tail = at + 1; at++ }
        :: else
        fi
    :: resizes < RESIZES ->
        if :: c = 0 :: c = 1 :: c = 2 fi;
#ifdef NP
        resizes++;              /* else it may ask in vain for ever */
#endif
        g = passed;
        d_step {
            used = false;
            i = g;
#if WITHOUT == 3
            do
            :: i < r && from[(i + 1) % K] <= head -> i++
            :: else -> break
            od;
            g = i;
#endif
            do
            :: i <= r ->
#if WITHOUT == 13
                used = used || (class[i % K] == c && i == r);
#else
                used = used || (class[i % K] == c);
#endif
                i++
            :: else -> break
            od;
#if WITHOUT != 8
            used = used || (r + 1 - g >= K);
#endif
            i = 0; g = 0
        }
        if
        :: !used ->
#ifndef NP
            resizes++;
#endif
#if WITHOUT != 12
            KILL; backed[c] = true;
#endif
#if WITHOUT == 4
            KILL; rings = r + 1;
#endif
            KILL; from[(r + 1) % K] = at;
            KILL; class[(r + 1) % K] = c;
#if WITHOUT == 12
            KILL; rings = r + 1; KILL; backed[c] = true;
#endif
#if WITHOUT == 11
            if
            :: at < N && at < head + CAP(c) ->
                slot[SLOT(c, at)] = at + 1; tail = at + 1; at++
            :: else
            fi;
            rings = r + 1;
#endif
#if WITHOUT != 4 && WITHOUT != 11 && WITHOUT != 12
            KILL; rings = r + 1;
#endif
            r++; k = c;
            limit = head + CAP(k)
        :: else
        fi;
        c = 0; used = false
    :: at == N -> break
    od;
    done = true
}

proctype Consumer() {
    byte at, limit, k, r, i, g, t, n;
take: skip;
    d_step { at = head; limit = at; g = passed; t = 0; n = 0; k = 0 }
    r = rings;
    d_step {
        i = r;
#if WITHOUT != 6
        do
        :: i > g && from[i % K] > at -> i--
        :: else -> break
        od
#endif
    }
#if WITHOUT == 9
    g = i; passed = i;
#endif
    k = class[i % K];
    do
    :: at < limit ->
        KILL;
        d_step { assert(backed[k]); assert(slot[SLOT(k, at)] == at + 1) };
        KILL;
progress0:
        d_step { head = at + 1; at++ }
    :: g < i ->
        /* It reads on in its ring meanwhile, and gives back those before it at some time. */
#if WITHOUT == 2
        KILL; passed = g + 1;
        KILL; n = 0; punch(class[g % K], n);
#else
        KILL; n = 0; punch(class[g % K], n);
        KILL; passed = g + 1;
#endif
        g++
    :: at == limit && !(done && at == N && i == rings) ->
#if WITHOUT == 1
        KILL; r = rings;
        KILL; t = tail;
#else
        KILL; t = tail;
        KILL; r = rings;
#endif
        if
        :: r > i && from[(i + 1) % K] == at -> i++; k = class[i % K]
        :: else ->
            d_step {
                limit = t;
#if WITHOUT != 5
                if
                :: r > i && from[(i + 1) % K] < t -> limit = from[(i + 1) % K]
                :: else
                fi;
#endif
                assert(limit - at <= CAP(k) && limit >= at);
                t = 0
            }
        fi
    :: done && at == N && i == rings && at == limit && g == i -> break
    od;
    assert(passed == rings);
    n = 0;
    do
    :: n < CLASSES -> assert(backed[n] == (n == class[rings % K])); n++
    :: else -> break
    od
}

init { atomic { backed[0] = true; run Producer(); run Consumer() } }

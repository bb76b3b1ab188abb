/* The wake-up protocol of slipring-core/src/wait.rs: one publisher, one sleeper, and a kill of either
 * at any step.
 *
 *   spin -search -DVARIANT=ASYMMETRIC wake.pml      (or FENCED, MIXED, SET)
 *
 * SET is ASYMMETRIC with a sleeper that, as a set does, goes to sleep without another look at its bit, and
 * looks at it only when it wakes.
 *
 * The publisher's processor has a store buffer: a store of the position waits there, for as long as it
 * likes, while later loads go ahead (what x86 does; what weaker machines do besides, acquire and release
 * forbid where it matters: see 4 and 7). A fence drains it; so does a barrier that somebody else asks
 * for; so does every read-modify-write; and so does a kill, since what was executed will be seen.
 *
 * Sleeping has no end but the wake, except that after each kill the sleeper's time may run out once:
 * the bounded sleep, which is there for publishers that were killed between their store and their
 * wake. So a lost wake is a deadlock, which spin reports as an invalid end state.
 *
 * To see that each part is needed: -DWITHOUT=1 (no fence or barrier on the publisher's side), 2 (no
 * barrier or fence on the sleeper's), 3 (no second look), 4 (the doorbell read after the bit is set; who
 * then looks at its bit is saved by that, so but in SET 8 is taken away as well), 5 (no bounded sleep), 6
 * (MIXED: an acknowledgement taken for another epoch's), 7 (the doorbell bumped before the bits are
 * cleared), 8 (a sleeper whose bit was cleared does not set it anew), 9 (no fence for the compiler, which
 * then loads the bit before it stores the position). verify/spin.sh runs all of them and wants each to
 * fail.
 */
#define ASYMMETRIC 1
#define FENCED 2
#define MIXED 3
#define SET 4
#ifndef VARIANT
#define VARIANT ASYMMETRIC
#endif
#ifndef WITHOUT
#define WITHOUT 0
#endif

#define MESSAGES 3
#define KILLS 1

byte tail, head;            /* in memory: committed, released */
byte pending;               /* in the publisher's store buffer; 0 is none */
bool waiting, told;         /* the sleeper's bit, and FENCED, in the waiters word */
byte doorbell, epoch, ack;
bool asleep;
byte timeouts;              /* how often the bounded sleep may end by itself */
byte publisher_kills, sleeper_kills;
bool kill_publisher, kill_sleeper;
bool published;

inline drain() { if :: pending > 0 -> tail = pending; pending = 0 :: else fi }

/* The processor drains its buffer whenever it likes. */
active proctype buffer() {
end: do :: atomic { pending > 0 -> drain() } od
}

/* Kills, at any moment, whoever is still at work. */
active proctype killer() {
end: do
     :: atomic { publisher_kills < KILLS && !kill_publisher && !published ->
            publisher_kills++; drain(); timeouts++; kill_publisher = true }
     :: atomic { sleeper_kills < KILLS && !kill_sleeper && head < MESSAGES ->
            sleeper_kills++; kill_sleeper = true }
     :: atomic { published && head == MESSAGES -> break }
     od
}

inline wake() {
    d_step { drain() };                                /* fence(SeqCst) */
    e = epoch;
    atomic {
        set = waiting;
#if VARIANT == MIXED
        if :: told && WITHOUT != 6 -> ack = e :: else fi;
#endif
    }
    if
    :: set ->
#if WITHOUT != 7
        atomic { drain(); waiting = false };
        atomic { drain(); doorbell++ };
#else
        atomic { drain(); doorbell++ };
        atomic { drain(); waiting = false };
#endif
        asleep = false                                 /* FUTEX_WAKE */
    :: else
    fi
}

active proctype publisher() {
    byte next, e;
    bool set;
again:
    {
        next = tail;                                   /* a new holder resumes there */
        do
        :: next < MESSAGES ->
            next++;
#if WITHOUT == 9
            set = waiting || told;
            atomic { drain(); pending = next };
#else
            atomic { drain(); pending = next };        /* store the position */
#if VARIANT == FENCED && WITHOUT != 1
            d_step { drain() };
#endif
            set = waiting || told;                     /* the one load */
#endif
            if
            :: set -> wake()
            :: else
            fi
        :: else -> break
        od;
        atomic { drain(); published = true }
    } unless { kill_publisher };
    if
    :: atomic { kill_publisher && !published ->
        kill_publisher = false; ack = 0 } -> goto again /* a successor sits down */
    :: published
    fi
}

active proctype sleeper() {
    byte seen, mine;
    bool slept;
again:
    {
        atomic { waiting = false; told = false; mine = 0 }; /* repair, by whoever takes the seat */
        do
        :: head == MESSAGES -> break
        :: head < MESSAGES && tail > head -> head++
        :: head < MESSAGES && tail == head ->
#if WITHOUT != 4
            seen = doorbell;
#endif
#if VARIANT == MIXED
            if
            :: mine == 0 -> atomic { epoch++; mine = epoch }
            :: else
            fi;
            atomic { waiting = true; told = true };
#else
            waiting = true;
#endif
#if WITHOUT == 4
            seen = doorbell;
#endif
#if (VARIANT == ASYMMETRIC || VARIANT == SET) && WITHOUT != 2
            d_step { drain() };                        /* membarrier */
#endif
            if
#if WITHOUT != 3
            :: tail > head -> waiting = false
            :: tail == head ->
#else
            :: true ->
#endif
                slept = (VARIANT != SET);
                do
                :: doorbell != seen -> break
#if WITHOUT != 8 && (WITHOUT != 4 || VARIANT == SET)
                :: slept && !waiting -> break
                :: doorbell == seen && (waiting || !slept) ->
#else
                :: doorbell == seen ->
#endif
                    atomic {                           /* FUTEX_WAIT compares under its lock */
                        if
#if VARIANT == MIXED
                        :: ack != mine && WITHOUT != 6 -> skip /* for a millisecond at most */
#endif
                        :: (VARIANT != MIXED || ack == mine || WITHOUT == 6) && doorbell == seen ->
                            asleep = true
                        :: (VARIANT != MIXED || ack == mine || WITHOUT == 6) && doorbell != seen
                        fi
                    };
                    slept = true;
                    if
                    :: !asleep
#if WITHOUT != 5
                    :: atomic { asleep && timeouts > 0 -> timeouts--; asleep = false }
#endif
                    fi;
                    if
                    :: tail > head -> break            /* what a killed publisher did not ring for */
                    :: else
                    fi
                od;
                waiting = false
            fi
        od
    } unless { kill_sleeper };
    if
    :: atomic { kill_sleeper -> kill_sleeper = false; asleep = false } -> goto again
    :: !kill_sleeper
    fi
}

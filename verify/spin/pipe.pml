/* The two faces of a sleeper: slipring-core/src/wait.rs with slipring/src/wait/fd.rs. One sleeper,
 * which sleeps now on its doorbell, now on its pipe, as it likes; and publishers, each killed at any
 * step, or leaving before it is done, with a successor or, at last, with none.
 *
 *   spin -search -DVARIANT=ASYMMETRIC pipe.pml      (or FENCED, OVERLOOKED, LATE; a million states, with
 *                                                    -DKILLS=2 six)
 *
 * OVERLOOKED is ASYMMETRIC with a barrier that reaches nobody, and with a second look, later than the store
 * that was under way: slipring/src/wait/recheck.rs.
 *
 * LATE is ASYMMETRIC with a publisher that opens the pipe when it first rings there, if it has a descriptor left,
 * and does not ring unasked as it arrives; and with the vigil of slipring/src/wait/recheck.rs, kept while the
 * pipe was not open when the sleeper had a look.
 *
 * The store buffer, the kills and the bounded sleep on the doorbell are those of wake.pml. A poll has no
 * bound: it ends by a byte, or when the pipe hangs up, because its last writer went. So a wake that is
 * lost, and an end that is never told, is a deadlock, which spin reports as an invalid end state. And the
 * pipe must not keep an event loop awake: between two polls that a byte ended, one was written; between
 * two that a hang-up ended, a writer went (the assertions).
 *
 * To see that each part is needed: -DWITHOUT=1 (arming does not empty the pipe), 2 (it does so after it
 * has looked at the bit), 3 (no second look), 4 (the waker loads the face before it clears the bit), 5 (who
 * arrives rings only if asked), 6 (the pipe of who was killed does not hang up), 7 (nobody plugs a pipe
 * that has no other writer), 8 (nobody looks, behind the bit, whether somebody has come and the plug must
 * go), 9 (nobody waits for the lock of who has hung up), 10 (the face stored after the bit is set), 11 (no
 * barrier on the sleeper's side), 12 (who is told of an end, and goes on, does not ring for whoever came
 * before the bit was set), 13 (it does so only if that one is there still), 14 (no second look), 15 (what
 * it compares with is read after the first), 16 (none for who polls for a successor), 17 (it does not wait for who
 * is arming), 18 (what it compares with is not renewed where the bit stands); of the vigil, 19 (none is kept), 20 (it
 * does not look for a bit that was taken), 21 (nor for an end), 22 (none is kept while nobody sits opposite), 23
 * (the pipe counts as open as soon as somebody sits there). verify/spin.sh runs all of
 * them and wants each to fail.
 */
#define ASYMMETRIC 1
#define FENCED 2
#define OVERLOOKED 3
#define LATE 4
#ifndef VARIANT
#define VARIANT ASYMMETRIC
#endif
#ifndef WITHOUT
#define WITHOUT 0
#endif

#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef KILLS
#define KILLS 1             /* or leavings before all is published */
#endif

#define DOORBELL 0
#define PIPE 1

byte tail, head, pending;   /* as in wake.pml */
bool waiting, face;
bool rung;                  /* whether the doorbell is another than the sleeper has seen */
bool asleep, timeout_due;
bool filled;                /* a byte is in the pipe */
bool written, hung;         /* since a poll last ended by a byte, by a hang-up */

/* The publishers' seat: its word, its lock, its description of the sleeper's pipe. */
byte generation;
bool held, lock, writer;
bool arrived;               /* it has rung */
bool over;                  /* nobody will come any more */
byte kills;
bool kill;
byte fails;                 /* how often it had no descriptor left */

/* The sleeper's: its own writing end, and the generations that it knows to be dead, and was told of. */
bool plugged;
byte dead, told;
bool gone;                  /* the sleeper, which has had enough */

inline drain() { if :: pending > 0 -> tail = pending; pending = 0 :: else fi }

active proctype buffer() {
end: do :: atomic { pending > 0 -> drain() } od
}

active proctype killer() {
end: do
     :: atomic { kills < KILLS && !kill && lock ->
            kills++; drain(); timeout_due = true; kill = true }
     :: over || gone -> break
     od
}

/* The second look: whether it is due, and where the tail was; whether the sleeper is just arming, which it
 * waits for; and whether a doorbell's sleep is bounded by it. Its byte is no excuse for a poll that ends. */
bool owed, bounded, arming;
byte since;

inline ring() { atomic { filled = true; written = true } }

inline wake() {
    d_step { drain() };                                /* fence(SeqCst) */
    if
    :: waiting ->
#if WITHOUT == 4
        by = face;
#endif
        atomic { drain(); waiting = false };
        atomic { drain(); rung = true };
#if WITHOUT != 4
        by = face;
#endif
        if
        :: atomic { by == DOORBELL -> asleep = false } /* FUTEX_WAKE */
#if VARIANT == LATE
        :: by == PIPE ->
            if
            :: writer -> skip
            :: !writer -> writer = true                /* opened, */
            :: atomic { !writer && fails < 1 -> fails++ }; goto unopened_
            fi;
            ring();
unopened_:  by = DOORBELL                              /* or not, without a descriptor */
#else
        :: atomic { by == PIPE -> by = DOORBELL; ring() }
#endif
        fi
    :: else
    fi
}

inline look_again() {
#if VARIANT == OVERLOOKED && WITHOUT != 14
    atomic { since = tail; owed = true }
#else
    skip
#endif
}

/* The vigil: kept, once or twice with the bit gone; deaths up to which generation are no news. And the generation
 * of which the sleeper knows that it had not opened the pipe. */
bool vigil, taken;
byte known, unopened;

#if VARIANT == LATE
#define POLLS (waiting && face == PIPE)
#define ENDED (generation > known && !(held && lock))

active proctype watcher() {
end: do
     :: atomic { vigil && !arming && filled -> vigil = false }
#if WITHOUT != 20
     :: atomic { vigil && !arming && !filled && !POLLS && !taken -> taken = true }
     :: atomic { vigil && !arming && !filled && !POLLS && taken ->
            vigil = false; filled = true; written = true }
     :: atomic { vigil && !arming && POLLS && taken -> taken = false }
#endif
#if WITHOUT != 21
     :: atomic { vigil && !arming && !filled && ENDED -> vigil = false; filled = true; written = true }
#endif
     od
}
#endif

#if VARIANT == OVERLOOKED
active proctype helper() {
end: do
     :: atomic { owed && !arming && pending == 0 ->
            owed = false;
            if
            :: waiting && face == PIPE && tail != since ->
                filled = true;
                if :: tail > head -> written = true :: else fi
            :: else
            fi }
     :: atomic { bounded && asleep && pending == 0 -> bounded = false; timeout_due = true }
     od
}
#endif

active proctype publisher() {
    byte next;
    bool by, early;
again:
    {
        lock = true;
#if VARIANT != LATE
        writer = true;
#endif
        atomic { generation++; held = true; arrived = false };
        wake();
#if WITHOUT != 5
        asleep = false;
#if VARIANT != LATE
        ring();
#endif
#endif
        atomic { arrived = true; next = tail };
        do
        :: atomic { next < MESSAGES -> next++; drain(); pending = next }; /* store the position */
#if VARIANT == FENCED
            d_step { drain() };
#endif
            if
            :: waiting -> wake()                       /* the one load */
            :: else
            fi
        :: atomic { kills < KILLS -> kills++; early = true }; break
        :: next == MESSAGES && (head == MESSAGES || gone) -> break
        od;
        atomic { drain(); held = false };
        wake();
        lock = false;
        atomic { hung = hung || writer; writer = false }
    } unless { kill };
    if
    :: kill ->                                         /* the kernel tidies up, in either order */
        by = DOORBELL;
        if
        :: lock = false
        :: skip
        fi;
#if WITHOUT != 6
        atomic { hung = hung || writer; writer = false };
#endif
        atomic { lock = false; kill = false; early = true; timeout_due = true }
    :: else
    fi;
    if
    :: early -> atomic { early = false; next = 0 }; goto again /* a successor sits down, */
    :: over = true                                     /* or nobody ever does */
    fi
}

/* Asks the kernel about a peer that has not left: the word, the lock, the word again. */
inline notice_death() {
    if
    :: atomic { held && generation != dead -> suspect = generation };
        if
        :: !lock -> atomic { if :: held && generation == suspect -> dead = suspect :: else fi; suspect = 0 }
        :: atomic { else -> suspect = 0 }
        fi
    :: else
    fi
}

/* Sees to it that the plug is in as long as nobody sits opposite, for all that is known. */
inline plug() {
#if WITHOUT != 7
    plugged = !(held && generation != dead)
#else
    plugged = false
#endif
}

/* Looks for a message (1), or an end that was not told yet (2). */
inline attempt() {
    if
    :: atomic { tail > head -> head++; found = 1 }
    :: atomic { else -> found = 0 };
        if
        :: atomic { (!held || generation == dead) && told != generation -> ended = generation };
            atomic {
                if
                :: tail > head -> head++; found = 1
                :: else -> found = 2; told = ended
                fi;
                ended = 0
            }
        :: else
        fi
    fi
}

/* `plug_late`: whether the publisher has the pipe open, says the kernel. If not, the vigil is kept. */
inline plug_late() {
    suspect = (held && generation != dead -> generation : 0);
    if
    :: suspect == 0 -> known = generation              /* (no atomic: a successor may have come) */
    :: else -> known = suspect - 1
    fi;
#if WITHOUT == 23
    plugged = (suspect == 0);
    opened = !plugged;
#else
    if
    :: suspect != 0 && unopened != suspect -> plugged = false;
        atomic { if :: writer -> opened = true :: else -> unopened = suspect fi }
    :: else
    fi;
    plugged = !opened;
#endif
    atomic {
        taken = false;
#if WITHOUT == 22
        vigil = !opened && suspect != 0;
#elif WITHOUT != 19
        vigil = !opened;
#endif
        opened = false;
        suspect = 0
    }
}

/* `ask`: empties the pipe, and asks for a byte. For a second look, if that is wanted. */
inline ask(second) {
    if
    :: waiting -> notice_death()
    :: else
    fi;
#if VARIANT != LATE
    plug();
#endif
#if WITHOUT != 17
    arming = (VARIANT == OVERLOOKED || VARIANT == LATE);
#endif
#if VARIANT == LATE
    atomic { if :: filled -> filled = false; unopened = 0 :: else fi };
#elif WITHOUT != 1 && WITHOUT != 2
    filled = false;
#endif
    if
    :: !waiting ->
#if WITHOUT != 10
        face = PIPE;
        waiting = true;
#else
        waiting = true;
        face = PIPE;
#endif
#if (VARIANT == ASYMMETRIC || VARIANT == LATE) && WITHOUT != 11
        d_step { drain() };                            /* membarrier */
#endif
#if WITHOUT != 15
        if :: second -> look_again() :: else fi;
#endif
#if WITHOUT != 8 && VARIANT != LATE
        plug()
#else
        skip
#endif
    :: else
#if VARIANT == OVERLOOKED && WITHOUT != 18
        -> since = tail
#endif
    fi;
    arming = false;
#if WITHOUT == 2
    filled = false;
#endif
#if VARIANT == LATE
    plug_late()
#elif WITHOUT != 8 && WITHOUT != 9
    do
    :: atomic { held && generation != dead -> plugged = false };
        if
        :: !writer -> notice_death()
        :: else -> break
        fi
    :: else -> break
    od;
    plug()
#else
    skip
#endif
}

/* Whether nothing is left to be told. (Who was killed before it had rung, when nobody had sat there, has
 * never come.) */
#define ALL_TOLD (over && (told == generation || !arrived))

/* Until a byte is there, or the pipe hangs up. */
inline poll() {
    if
    :: atomic { filled -> assert(written); written = false }
    :: atomic { !writer && !plugged -> assert(hung); hung = false }
    :: ALL_TOLD && !filled && (writer || plugged) -> assert(head == tail); goto done
    fi
}

active proctype sleeper() {
    byte suspect, ended, found;
    bool opened;
    plugged = true;
    do
    :: attempt();
look:   if
        :: found == 1
        :: found == 2 ->
            if
            :: goto done                               /* the caller has had enough; */
            :: skip                                    /* or waits, by another call, for a successor; */
            :: skip ->                                 /* or polls until there is one */
#if WITHOUT != 16
                ask(true);
#else
                ask(false);
#endif
#if WITHOUT == 12
#elif WITHOUT == 13
                if :: held && generation != dead -> ring() :: else fi;
#else
                if :: generation != told -> ring() :: else fi;
#endif
                poll()
            fi
        :: found == 0 ->
            if
            :: atomic { rung = false; vigil = false; face = DOORBELL };
                waiting = true;
#if (VARIANT == ASYMMETRIC || VARIANT == LATE) && WITHOUT != 11
                d_step { drain() };
#endif
                bounded = (VARIANT == OVERLOOKED);
#if WITHOUT != 3
                attempt();
                if
                :: found > 0 -> waiting = false; goto look
                :: else
                fi;
#endif
                if
                :: waiting ->
                    atomic { if :: !rung -> asleep = true :: else fi };
                    if
                    :: !asleep
                    :: atomic { asleep && timeout_due -> timeout_due = false; asleep = false }
                    :: asleep && ALL_TOLD && !timeout_due -> assert(head == tail); goto done
                    fi
                :: else
                fi;
                notice_death();
                waiting = false
            :: skip -> ask(true);
#if WITHOUT != 3
                attempt();
                if
                :: found > 0 -> atomic { vigil = false; waiting = false }; goto look
                :: else
                fi;
#endif
#if WITHOUT == 15
                look_again();
#endif
                poll()
            fi
        fi
    od;
done:
    gone = true
}

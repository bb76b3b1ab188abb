//! Wakes a side of a channel that waits, and explains why no wake is lost.
//!
//! Each side of a channel has a *wait cell*, by which the other side wakes it. Consumers wake the
//! producers' side when they release space; producers wake the consumers' side when they commit. A
//! *publisher* is an end that commits or releases, a *waiter* one that sleeps or polls, and a
//! *notifier* one that wakes. A publish that no waiter waits for costs a store (which the publisher
//! makes anyway), a load and a branch.
//!
//! # Words of a wait cell
//! | word | written by | read by |
//! |---|---|---|
//! | `waiters` | a waiter sets its bit; a notifier or a dead waiter's successor clears it | publishers, per publish |
//! | `doorbell` | a notifier bumps it | waiters, before they set their bit; the kernel |
//! | `epoch` | a waiter without a barrier bumps it | publishers that see `FENCED` |
//! | `fence_ack`, on the publisher's role page | the publisher | waiters without a barrier |
//! | `wake_mode`, on the waiter's role page | the waiter, before setting its bit | a notifier, after clearing it |
//!
//! Nearly all accesses are relaxed. The argument rests on two sequentially consistent fences: the
//! publisher's in `wake`, and the waiter's in `arm` (or the barrier in its place). It also rests on
//! three pairs of release and acquire: on `epoch`, on `doorbell`, and on the bit, for the sake of
//! `wake_mode`. Without either fence, or without the pair on the epoch or on the bit, a loom model
//! fails. Without the pair on `doorbell` the SPIN model fails (`verify/README.md`).
//!
//! # Why no wake is lost
//! A publisher *stores* its position, then *loads* `waiters`. A waiter *sets* its bit, then *looks*
//! at the position once more, and sleeps only if it finds nothing. This is Dekker's pattern: two
//! stores and two loads, crosswise. It fails only if both loads miss the other side's store. For
//! that, a processor or a compiler must move a load before its thread's earlier store.
//!
//! *Fenced*: both sides have a sequentially consistent fence between store and load. One of the two
//! fences is first in their single order. The load behind the other fence sees the store before the
//! first one. That is all.
//!
//! *Asymmetric*: the publisher has only a compiler fence. The waiter calls `membarrier` between its
//! set and its look. That makes every processor that runs a publisher pass through a full fence.
//! For each publish there are two cases:
//! - The fence falls after the publisher's store. The waiter's look comes after the fence and sees
//!   the news.
//! - The fence falls before the store, so before the publisher's load. That load then sees the bit,
//!   which was set before the barrier.
//!
//! A publisher that is not running when the barrier is made passes a full fence when it is switched
//! in. The publisher's process must have registered for the barrier before its first publish. A
//! handle whose process could not register is made *fenced*, and fences each publish itself.
//!
//! *But Linux overlooks processors*, since 5.4. Its barrier for all registered processes reads a
//! note that each processor keeps. A processor writes the note when it switches from one address
//! space to *another*. Registering writes the note on processors that run a thread of the process
//! at that moment, and a thread that exits erases it. Suppose that a processor had nothing else to
//! run meanwhile. The thread that it switches in next then runs without a note for as long as no
//! other process runs there. So the barrier passes that processor over (`verify/membarrier.c` shows
//! it). The barrier for the caller's own process checks which thread runs, and overlooks no
//! processor.
//!
//! [`Os::barrier`] therefore returns its reach. If it did not reach everybody, a publish under
//! way may still have its store in its processor's buffer, and may have loaded the bit already.
//! That store is seen within microseconds, and every later publish sees the bit. So one more look,
//! [`SEEN_WITHIN`] after `arm`, finds the news. A sleep on the doorbell is bounded in any case. A
//! waiter that polls must have some thread make that look ([`Waiter::unsure`]).
//!
//! *Mixed*: a waiter that may not call `membarrier` meets publishers that do not fence. The waiter
//! bumps `epoch`, then sets [`FENCED`] beside its bit. A publisher that sees `FENCED` fences, loads
//! `epoch`, and loads `waiters` again. If `FENCED` is still there, it acknowledges that epoch. By
//! acquiring the epoch it has left behind any `FENCED` that an earlier waiter had set and the next
//! had cleared. From then on each of its loads sees `FENCED`: it has read the set, or a later
//! value, and no handle clears `FENCED` while that waiter has its seat. So every publish fences,
//! and the argument is that of *fenced*. Until the publisher has acknowledged, the waiter sleeps
//! for at most [`SEEN_WITHIN`].
//!
//! # Once a notifier sees the bit
//! The waiter reads `doorbell` before it sets its bit, and the notifier bumps it after it saw the
//! bit. So the bump is later than the value that the waiter read. The kernel compares again under
//! its own lock. Either it finds a difference and does not put the waiter to sleep, or the waiter
//! sleeps before the notifier's call.
//!
//! This needs both sides to keep their order, which the pair on `doorbell` ensures. A notifier
//! clears bits, then bumps (release); a waiter loads the doorbell (acquire), then sets its bit.
//! Otherwise a late notifier could clear the bit of a sleep that began after its bump. That sleep
//! would then wait for another bump.
//!
//! A notifier first clears the bits that it saw. So there is one system call for each park, however
//! many publishes follow. A notifier that is killed between its publish and its call leaves a
//! waiter that no notifier wakes. So every sleep is bounded, and the waiter looks again after it. A
//! waiter that finds its bit cleared sets it anew, whatever the doorbell holds.
//!
//! # Wake modes
//! A notifier wakes a waiter in one of two ways, which `wake_mode` names. The waiter sleeps in the
//! kernel on the doorbell (for whatever purpose, or in a call that takes one message), or an event
//! loop polls the waiter's pipe for a byte. The waiter stores
//! its mode before it sets its bit, and the notifier loads it after it cleared that bit. So a
//! notifier that took the bit of a sleep reads the mode of that sleep as well. A mode older than
//! the bit would leave the new sleep without its bit and without its wake.
//!
//! The doorbell is edge-triggered and the pipe level-triggered. A byte stays until it is read, so
//! an event loop that polls later finds it. A poll is not bounded. The pipe's hang-up replaces the
//! bound: it tells of a notifier that was killed before its call. If that death was over before the
//! poll began, the notifier's successor writes a byte unasked. A byte may come late, for a bit that
//! was taken long ago. So each arming empties the pipe, and only then checks that its bit still
//! stands.
//!
//! # Many seats
//! A side may have up to 63 waiters. A notifier takes all bits that it saw, or fewer (see below). It makes one call for
//! all waiters that sleep on the doorbell, and one call for each pipe. A waiter that armed in
//! between, and shares the doorbell, may wake for nothing. In *mixed* mode `FENCED` then stays for
//! good, since a waiter that leaves cannot tell if another one needs it. A waiter has been heard
//! once all publishers that hold a seat have acknowledged.
//!
//! # One wake for one message
//! The consumers of a work queue compete for messages, and one message need not wake them all. A notifier that has
//! committed `n` messages takes the bits of `n` waiters that sleep in calls ([`WakeMode::Call`]), and wakes only those: each
//! sleeps with its own bit of the futex. If there are not that many, it takes all bits. A waiter that waits in another
//! way (a set, a future, a program's own event loop) may do other things once it is woken. So it is never chosen alone.
//!
//! A chosen waiter is on its way to a message. No message is forgotten when it takes none:
//! - Another consumer was faster. Then the message is taken.
//! - Its call ends without a message. Once it has taken back its request it looks a last time. If it finds nothing and
//!   its bit was taken meanwhile, it wakes another waiter in its place.
//! - It is killed. The others' sleeps are bounded, and they look.
//!
//! A commit may make more messages deliverable than its own: those that were committed earlier, and had to wait for it.
//! So a consumer that has claimed a message, and sees that somebody waits and that the next position holds a message as
//! well, wakes one more. (It learned of its message after the others had set their bits: either by its own wake, which
//! follows theirs on the same word, or it was awake, and they look after their bit.)
//!
//! # Source
//! The asymmetric barrier: Dice, Huang and Yang, *Asymmetric Dekker synchronization* (2001), and
//! Desnoyers' `membarrier(2)`. The doorbell, which is not a data position: eventcounts (Reed and
//! Kanodia, 1979).

mod waiter;

use crate::layout::{Counters, MOST_SEATS, Side, WaitCell};
use crate::sync::{AtomicU32, Ordering, compiler_fence, fence};

pub use waiter::Waiter;

/// In `waiters`: some waiter has no barrier, so publishers must fence.
pub const FENCED: u64 = 1 << 63;

/// In `fence_ack`: the publisher fences at each publish, whatever the waiters need.
pub const ALWAYS: u64 = u64::MAX;

/// The nanoseconds after which every thread sees a store, and every later load an earlier set bit.
///
/// A waiter sleeps for at most this long while a publisher may have overlooked its bit. In practice
/// a store is seen within microseconds.
pub const SEEN_WITHIN: u64 = 1_000_000;

/// The reach of a barrier: the threads, of those that publish without a fence, that have passed
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No thread passed one: the system has no such barrier.
    Nobody,
    /// All threads that the kernel had noted, and the caller.
    Known,
    /// All threads, and the caller.
    Everybody,
}

/// The part of an operating system (or of a model of one) that sleeping and waking need.
pub trait Os: Sync {
    /// Sleeps while `doorbell` holds `seen`, for at most `at_most` nanoseconds, on behalf of `seats`: a bit for each. May
    /// return at any time.
    fn sleep(&self, doorbell: &AtomicU32, seen: u32, seats: u64, at_most: u64);

    /// Wakes all waiters that sleep on `doorbell` on behalf of one of `seats`. May wake others as well.
    fn wake(&self, doorbell: &AtomicU32, seats: u64);

    /// Makes the descriptor of the other side's seat `seat` readable.
    fn signal(&self, seat: usize);

    /// Returns nanoseconds since some moment. Only decisions about speed use it.
    fn now(&self) -> u64;

    /// Returns nanoseconds of a clock that all processes share, some milliseconds late: for people.
    fn coarse_now(&self) -> u64 {
        self.now()
    }

    /// Makes the threads that publish without a fence pass one, and this thread. Returns how far it
    /// reached.
    fn barrier(&self) -> Reach;
}

/// The way in which a waiter wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeMode {
    /// The waiter sleeps in the kernel, on the doorbell.
    Doorbell,
    /// The waiter polls a descriptor.
    Pipe,
    /// The waiter sleeps in the kernel, on the doorbell, in a call that takes one message. If it takes none, it wakes
    /// another waiter in its place.
    Call,
}

/// The answer of [`Waiter::arm`].
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The value to pass to `sleep` and `rung`.
    pub seen: u32,
    /// `true` if the barrier may have overlooked a publisher: see [`Waiter::unsure`].
    pub overlooked: bool,
}

/// Wakes the other side on behalf of one handle.
#[derive(Clone, Copy)]
pub struct Notifier<'m> {
    wait_cell: &'m WaitCell,
    /// The seats whose holders sleep on this wait cell.
    sleepers: Side<'m>,
    /// Nonzero if this handle's process is not registered for barriers; each publish then fences.
    always: u64,
    /// `true` if `fence_ack` of this handle speaks of this wait cell.
    acknowledges: bool,
    /// The bit of the handle itself, if it wakes its own side.
    except: u64,
    /// `true` if the waiters compete for messages, so that one message need not wake all.
    sparing: bool,
    mine: &'m Counters,
    os: &'m dyn Os,
}

impl<'m> Notifier<'m> {
    /// Makes a notifier that wakes `sleepers` by `wait_cell`; `mine` are the words of its own
    /// handle.
    ///
    /// `fenced` says that the handle fences at each publish, since its process could not register
    /// for barriers.
    pub fn new(
        wait_cell: &'m WaitCell,
        sleepers: Side<'m>,
        mine: &'m Counters,
        fenced: bool,
        os: &'m dyn Os,
    ) -> Self {
        Notifier {
            wait_cell,
            sleepers,
            always: u64::from(fenced),
            acknowledges: true,
            except: 0,
            sparing: false,
            mine,
            os,
        }
    }

    /// Makes the notifier leave out `except`, the handle's own bit, and acknowledge nothing: `fence_ack` speaks of the
    /// other side's wait cell, and of the handle's own thread.
    ///
    /// So a waiter without a barrier does not learn if its fellows fence. Its sleeps are bounded.
    #[must_use]
    pub fn of_fellows(mut self, except: u64) -> Self {
        (self.acknowledges, self.except) = (false, except);
        self
    }

    /// Makes the notifier wake no more waiters than there are messages for, if they sleep in calls.
    #[must_use]
    pub fn sparing(mut self) -> Self {
        self.sparing = true;
        self
    }

    /// Makes a copy that fences at each call, acknowledges nothing, and leaves out nobody: for another thread than the
    /// handle's, which may itself wait.
    #[must_use]
    pub(crate) fn fencing(mut self) -> Self {
        (self.acknowledges, self.always, self.except) = (false, 1, 0);
        self
    }

    /// Wakes the waiters, if there are any. The caller calls this after each publish.
    #[inline]
    pub(crate) fn ring(&self) {
        self.ring_for(u64::MAX);
    }

    /// Wakes waiters for `messages` messages, if there are any. The caller calls this after each publish.
    #[inline]
    pub(crate) fn ring_for(&self, messages: u64) {
        // The compiler keeps the store of the position before this load. For the processor, see the
        // head of this file.
        compiler_fence();
        // Relaxed: `wake_for` loads it again, behind a fence.
        if self.wait_cell.waiters.load(Ordering::Relaxed) | self.always != 0 {
            self.wake_for(messages);
        }
    }

    /// Returns `true` if somebody waits. Only a hint.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        // Relaxed: a hint.
        self.wait_cell.waiters.load(Ordering::Relaxed) & !self.except & !FENCED != 0
    }

    /// Wakes every waiter that waits for an earlier publish.
    ///
    /// A handle that arrives or leaves calls it as well. That is rare, so it fences in any case.
    pub fn wake(&self) {
        self.wake_for(u64::MAX);
    }

    /// Wakes one waiter for each of `messages` messages that were published earlier, or all waiters.
    #[cold]
    #[inline(never)]
    pub fn wake_for(&self, messages: u64) {
        // SeqCst: pairs with the waiter's fence, or replaces the barrier's; see the head of this
        // file.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the bump in `arm`. From here on `waiters` holds nothing older than
        // that bump.
        let epoch = self.wait_cell.epoch.load(Ordering::Acquire);
        let mut left = messages;
        for turn in 0..=MOST_SEATS {
            // Relaxed: behind the fence.
            let waiters = self.wait_cell.waiters.load(Ordering::Relaxed) & !self.except;
            if waiters & FENCED != 0
                && self.acknowledges
                && self.always == 0
                && self.mine.fence_ack.load(Ordering::Relaxed) != epoch
            {
                // Relaxed: it promises only what our later loads of `waiters` will see.
                self.mine.fence_ack.store(epoch, Ordering::Relaxed);
            }
            let asking = waiters & !FENCED;
            if asking == 0 || left == 0 {
                return;
            }
            // Waiters that change their minds all the time are strangers' work.
            let chosen = match turn < MOST_SEATS {
                true => self.choose(asking, left),
                false => asking,
            };
            let told = self.tell(chosen);
            if chosen == asking {
                return;
            }
            // Another notifier may have told one of them for another message, or it asks in another way by now.
            left -= u64::from(told.count_ones());
        }
    }

    /// Returns which of the waiters `asking` to wake for `messages` messages: as many as sleep in calls, or all.
    ///
    /// A waiter that waits in another way may be busy elsewhere when it is woken, and take nothing for long. So it is
    /// never the only one.
    fn choose(&self, asking: u64, messages: u64) -> u64 {
        if !self.sparing || messages >= u64::from(asking.count_ones()) {
            return asking;
        }
        let (mut chosen, mut rest) = (0_u64, asking);
        while rest != 0 && u64::from(chosen.count_ones()) < messages {
            let seat = rest.trailing_zeros();
            rest &= rest - 1;
            if self.mode(seat as usize) == WakeMode::Call as u64 {
                chosen |= 1 << seat;
            }
        }
        match u64::from(chosen.count_ones()) == messages {
            true => chosen,
            false => asking,
        }
    }

    /// Returns the wake mode of a seat.
    fn mode(&self, seat: usize) -> u64 {
        let words = self.sleepers.seats().get(seat);
        // Relaxed: a hint, or behind an acquire. (A bit that belongs to no seat was set by a stranger.)
        words.map_or(WakeMode::Pipe as u64, |words| {
            words.counters.wake_mode.load(Ordering::Relaxed)
        })
    }

    /// Takes the bits of `chosen` and wakes those waiters. Returns the bits, among those that were still set, of waiters
    /// that sleep in calls.
    fn tell(&self, chosen: u64) -> u64 {
        // Acquire: pairs with the set in `arm`. A sleep whose bit we clear is woken by that sleep's
        // wake mode. The bump's release keeps this before the bump.
        let before = self.wait_cell.waiters.fetch_and(!chosen, Ordering::Acquire);
        // Release: pairs with the acquire in `arm`. A waiter that sees the bump sets its bit after
        // this clear.
        for (doorbell, seats) in self.wait_cell.doorbells() {
            if chosen & seats != 0 {
                doorbell.fetch_add(1, Ordering::Release);
            }
        }
        // There is one writer: a load and a store, no read-modify-write.
        let wakes = self.mine.wakes.load(Ordering::Relaxed).wrapping_add(1);
        self.mine.wakes.store(wakes, Ordering::Relaxed);
        // One call wakes all waiters on a doorbell; each waiter that polls gets a byte.
        let (mut asleep, mut in_calls, mut rest) = (0, 0, chosen);
        while rest != 0 {
            let (seat, bit) = (rest.trailing_zeros() as usize, rest & rest.wrapping_neg());
            rest &= rest - 1;
            if seat >= self.sleepers.seats().len() {
                continue;
            }
            let mode = self.mode(seat);
            if mode == WakeMode::Call as u64 {
                in_calls |= bit;
            }
            if mode == WakeMode::Call as u64 || mode == WakeMode::Doorbell as u64 {
                asleep |= bit;
            } else {
                self.os.signal(seat);
            }
        }
        for (doorbell, seats) in self.wait_cell.doorbells() {
            if asleep & seats != 0 {
                self.os.wake(doorbell, asleep & seats);
            }
        }
        before & in_calls
    }

    /// Returns the operating system.
    #[inline]
    pub(crate) fn os(&self) -> &'m dyn Os {
        self.os
    }

    /// Wakes every waiter that sleeps on a doorbell, with or without its bit.
    pub fn wake_all_asleep(&self) {
        let all = self.sleepers.seats().len();
        for (doorbell, seats) in self.wait_cell.doorbells() {
            if seats & 1 != 0 || all > 32 {
                self.os.wake(doorbell, seats);
            }
        }
    }

    /// Wakes every waiter, by either wake mode, with or without its bit. A handle that arrives
    /// calls this.
    ///
    /// The last holder of our seat may have been killed between taking a bit and its call. A sleep
    /// on the doorbell is bounded, but a poll is not. The hang-up that tells the poll of the death
    /// ends with our arrival.
    #[cold]
    pub fn arrive(&self) {
        self.wake();
        // There is no news, so no bump. A waiter that sleeps looks anew; one about to sleep finds
        // its bit cleared.
        self.wake_all_asleep();
        (0..self.sleepers.seats().len()).for_each(|seat| self.os.signal(seat));
    }
}

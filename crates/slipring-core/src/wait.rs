//! The wake-up protocol: who may sleep, who wakes, and why no wake is lost.
//!
//! Each side of a channel has a *bell*, which the other side rings: producers' when space was
//! released, consumers' when something was committed. A publisher that nobody waits for pays a store
//! (which it makes anyway), a load and a branch.
//!
//! # Words of a bell
//! | word | written by | read by |
//! |---|---|---|
//! | `waiters` | a sleeper sets its bit; a waker clears those that it wakes; whoever takes a dead sleeper's seat clears its bit | publishers, at each publish |
//! | `doorbell` | a waker bumps it | sleepers, before they set their bit; the kernel |
//! | `epoch` | a sleeper without a barrier bumps it | publishers that see `FENCED` |
//! | `fence_ack`, on the publisher's role page | the publisher | sleepers without a barrier |
//! | `face`, on the sleeper's role page | the sleeper, before it sets its bit | a waker, after it cleared that bit |
//!
//! Nearly all accesses are relaxed; what counts are two sequentially consistent fences, the publisher's
//! in `wake` and the sleeper's in `arm` (or the barrier in its place), and three pairs of release and
//! acquire, on `epoch`, on `doorbell`, and on the bit for the sake of `face`. Without either fence, or
//! without the pairs on the epoch and on the bit, a loom model fails, without the pair on `doorbell` the
//! SPIN model (`verify/README.md`).
//!
//! # Why no wake is lost
//! A publisher *stores* its position, then *loads* `waiters`. A sleeper *sets* its bit, then *looks* at
//! the position once more, and sleeps only if there is nothing. (Dekker's pattern: two stores, two
//! loads, crosswise.) It goes wrong only if both loads miss the other's store, and that takes a
//! processor, or a compiler, that moves a load before its thread's earlier store.
//!
//! *Fenced*: both have a sequentially consistent fence in between. Of the two fences one is first in
//! their single order; the load behind the other sees the store before it. That is all.
//!
//! *Asymmetric*: the publisher has only a compiler fence. The sleeper, between its set and its look,
//! makes every processor that runs a publisher pass through a full fence (`membarrier`). For each
//! publish, that fence falls after the store, and then the sleeper's look comes after it and sees the
//! news; or before the store, so before the load, which then sees the bit, set before the barrier. A
//! publisher that is not running when the barrier is made passes a full fence when it is switched in.
//! The publisher's process must have registered for it before its first publish; a handle whose
//! process could not is made *fenced*, and fences each publish itself.
//!
//! *But Linux overlooks processors*, since 5.4. Its barrier for all who registered goes by a note that each
//! processor keeps, and writes when it switches from one address space to *another*. Registering writes it
//! where a thread of the process runs just then, and a thread that exits erases it. Who is switched in next,
//! on a processor that had nothing else to run meanwhile, runs without one for as long as no other process
//! does: thus the barrier passes it over (`verify/membarrier.c` shows it). The barrier for the caller's own
//! process goes by who runs, and overlooks nobody. So [`Os::barrier`] says how far it reached. Was it not
//! everybody, a publish under way may still have its store in its processor's buffer, and the bit loaded
//! already. That store is seen within microseconds, and whatever is published after it sees the bit: so it is
//! found by one more look [`SEEN_WITHIN`] after `arm`. A sleep on the doorbell is bounded in any case; who polls
//! has somebody look for it ([`Sleeper::unsure`]).
//!
//! *Mixed*: a sleeper that may not call `membarrier`, before publishers that do not fence. It bumps
//! `epoch`, then sets [`FENCED`] beside its bit. A publisher that sees `FENCED` fences, loads `epoch`,
//! loads `waiters` again, and, with `FENCED` still there, acknowledges that epoch. (Having acquired it,
//! it has left behind whatever `FENCED` an earlier sleeper had set and the next had cleared.) From then on every
//! load of its sees `FENCED` (it has read the set, or a later value; nobody clears it while that sleeper
//! has its seat), so every publish fences, and the argument is that of *fenced*. Until it has
//! acknowledged, the sleeper sleeps for at most [`SEEN_WITHIN`].
//!
//! # And once the bit is seen
//! The sleeper read `doorbell` before it set its bit, and the waker bumps it after it saw the bit: so the
//! bump is later than what the sleeper read, and the kernel, which compares again under its own lock,
//! either finds a difference and does not put it to sleep, or has it asleep before the waker's call.
//! That takes both sides to keep their order, which the pair on `doorbell` sees to: a waker clears bits,
//! then bumps (release); a sleeper loads the doorbell (acquire), then sets its bit. Else a late waker
//! could clear the bit of a sleep that began after its bump, and that sleep would wait for another.
//! A waker clears the bits that it saw first: one system call a park, however many publishes follow. A
//! waker that is killed between its publish and its call leaves a sleeper that nobody wakes; so whoever
//! sleeps does so for a bounded time, and looks again; and a sleeper that finds its bit gone sets it anew,
//! whatever the doorbell says.
//!
//! # Two faces
//! A sleeper is woken as its `face` says: in the kernel's sleep on the doorbell, or by a byte in its
//! pipe, whose other end an event loop polls. It stores its face before it sets its bit, and the waker
//! loads it after it cleared that bit: so a waker that took the bit of a sleep takes its face as well.
//! A face that is older than the bit would leave the new sleep without its bit and without its wake.
//! The pipe is level where the doorbell is edge: a byte stays until it is read, so an event loop that
//! polls later finds it. It has no bounded sleep; what that is for (a waker killed before its call) the
//! pipe's hang-up tells, or, if it was over before the poll began, the waker's successor, who rings
//! unasked. A byte may come late, for a bit that was taken long ago: so each arming empties the pipe,
//! and only then looks whether its bit still stands.
//!
//! # Many seats
//! A side may have up to 63 sleepers. A waker takes all bits that it saw, and makes one call for all who sleep on
//! the doorbell, and one for each pipe. (Who armed in between, and shares the doorbell, may wake for nothing.)
//! *Mixed*, `FENCED` then stays for good, since no sleeper that leaves can tell whether another one needs it;
//! and a sleeper has been heard once all publishers that hold a seat have acknowledged.
//!
//! # Source
//! The asymmetric barrier: Dice, Huang and Yang, *Asymmetric Dekker synchronization* (2001), and
//! Desnoyers' `membarrier(2)`; the doorbell that is no data position: eventcounts (Reed and Kanodia,
//! 1979).

use crate::layout::{Bell, Counters, MOST_SEATS, Side};
use crate::seat::State;
use crate::sync::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

/// In `waiters`: some sleeper has no barrier, so publishers must fence.
pub const FENCED: u64 = 1 << 63;

/// In `fence_ack`: a publisher that fences at each publish, whoever sleeps.
pub const ALWAYS: u64 = u64::MAX;

/// In so many nanoseconds a store is seen by all, and a bit that was set before by whoever loads it: how long
/// at most a sleeper sleeps before a publisher that may have overlooked its bit. (It takes microseconds.)
pub const SEEN_WITHIN: u64 = 1_000_000;

/// How far a barrier reached: which of the threads that publish without a fence have passed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// None: it cannot be had.
    Nobody,
    /// All that the kernel had noted down, and the caller.
    Known,
    /// All, and the caller.
    Everybody,
}

/// What sleeping and waking take of an operating system (or of a model of one).
pub trait Os: Sync {
    /// Sleeps while `doorbell` is `seen`, for at most `at_most` nanoseconds. May return at any time.
    fn sleep(&self, doorbell: &AtomicU32, seen: u32, at_most: u64);

    /// Wakes all who sleep on `doorbell`.
    fn wake(&self, doorbell: &AtomicU32);

    /// Makes the descriptor of the other side's seat `seat` readable.
    fn signal(&self, seat: usize);

    /// Nanoseconds since some moment; for what is only a question of speed.
    fn now(&self) -> u64;

    /// Has the threads that publish without a fence pass one, and this thread; and says how far it reached.
    fn barrier(&self) -> Reach;
}

/// How a sleeper wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// It sleeps in the kernel, on the doorbell.
    Doorbell,
    /// It polls a descriptor.
    Pipe,
}

/// What [`Sleeper::arm`] says.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What `sleep` and `rung` are to be called with.
    pub seen: u32,
    /// Whether the barrier may have overlooked a publisher: see [`Sleeper::unsure`].
    pub overlooked: bool,
}

/// What one handle needs to wake the other side.
pub struct Ringer<'m> {
    bell: &'m Bell,
    /// The seats whose holders sleep there.
    sleepers: Side<'m>,
    /// Nonzero if this handle's process is not registered for barriers: then each publish fences.
    always: u64,
    mine: &'m Counters,
    os: &'m dyn Os,
}

impl<'m> Ringer<'m> {
    /// Rings `bell` for `sleepers`; `mine` are the words of the handle that rings. `fenced`
    /// says that the handle fences at each publish, since its process could not register for barriers.
    pub fn new(
        bell: &'m Bell,
        sleepers: Side<'m>,
        mine: &'m Counters,
        fenced: bool,
        os: &'m dyn Os,
    ) -> Self {
        Ringer {
            bell,
            sleepers,
            always: u64::from(fenced),
            mine,
            os,
        }
    }

    /// To be called after each publish.
    #[inline]
    pub(crate) fn ring(&self) {
        // The store of the position stays before this load, for the compiler; for the processor see
        // above.
        compiler_fence();
        // Relaxed: `wake` loads it again, behind a fence.
        if self.bell.waiters.load(Ordering::Relaxed) | self.always != 0 {
            self.wake();
        }
    }

    /// Wakes whoever waits for what was published before. Also what a handle does that arrives or
    /// leaves: rare, so it fences in any case.
    #[cold]
    #[inline(never)]
    pub fn wake(&self) {
        // SeqCst: pairs with the sleeper's fence, or stands for the barrier's; see above.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the bump in `arm`. What `waiters` holds from here on is not older than
        // that bump.
        let epoch = self.bell.epoch.load(Ordering::Acquire);
        // Relaxed: behind the fence.
        let waiters = self.bell.waiters.load(Ordering::Relaxed);
        if waiters & FENCED != 0
            && self.always == 0
            && self.mine.fence_ack.load(Ordering::Relaxed) != epoch
        {
            // Relaxed: it promises what our later loads of `waiters` will see, no more.
            self.mine.fence_ack.store(epoch, Ordering::Relaxed);
        }
        if waiters & !FENCED == 0 {
            return;
        }
        // Acquire: pairs with the set in `arm`: what we clear a sleep of is woken by that sleep's face.
        // Before the bump, by the bump's release.
        self.bell
            .waiters
            .fetch_and(!waiters | FENCED, Ordering::Acquire);
        // Release: pairs with the acquire in `arm`: who sees the bump sets its bit after this clear.
        self.bell.doorbell.fetch_add(1, Ordering::Release);
        // One writer: a load and a store, no read-modify-write.
        let wakes = self.mine.wakes.load(Ordering::Relaxed).wrapping_add(1);
        self.mine.wakes.store(wakes, Ordering::Relaxed);
        // One call for all who sleep on the doorbell, and a byte for each who polls. (A bit of no seat is
        // a stranger's.)
        let mut asleep = false;
        let seats = self.sleepers.seats().iter().enumerate();
        for (seat, words) in seats.filter(|(seat, _)| waiters & 1 << seat != 0) {
            // Relaxed: behind the acquire.
            if words.counters.face.load(Ordering::Relaxed) == Face::Doorbell as u64 {
                asleep = true;
            } else {
                self.os.signal(seat);
            }
        }
        if asleep {
            self.os.wake(&self.bell.doorbell);
        }
    }

    /// The operating system.
    #[inline]
    pub(crate) fn os(&self) -> &'m dyn Os {
        self.os
    }

    /// What a handle does that arrives: wakes whoever sleeps there by either face, with or without its bit. The
    /// last holder of our seat may have been killed between taking that bit and ringing; the sleep on a
    /// doorbell is bounded, but a poll is not, and the hang-up that tells it of the death ends with our
    /// arrival.
    #[cold]
    pub fn arrive(&self) {
        self.wake();
        // No news, so no bump: who is asleep looks anew, and who is about to sleep finds its bit gone.
        self.os.wake(&self.bell.doorbell);
        (0..self.sleepers.seats().len()).for_each(|seat| self.os.signal(seat));
    }
}

/// What one handle needs to sleep until the other side rings.
pub struct Sleeper<'m> {
    bell: &'m Bell,
    /// The handle's bit in `waiters`.
    bit: u64,
    /// Its own words.
    mine: &'m Counters,
    /// The seats whose holders ring.
    publishers: Side<'m>,
    /// Whether nobody else sleeps on this bell.
    alone: bool,
    /// The epoch that publishers must acknowledge, once this sleeper knows that it has no barrier; 0
    /// before. An atomic, since a set may arm on behalf of the handle.
    epoch: AtomicU64,
    os: &'m dyn Os,
}

impl<'m> Sleeper<'m> {
    /// Sleeps on `bell`, as seat `seat` of its side with the words `mine`, until one of `publishers`
    /// rings; `alone` if the side has no other seat.
    ///
    /// # Panics
    /// If `seat` is not below [`MOST_SEATS`].
    pub fn new(
        bell: &'m Bell,
        seat: usize,
        mine: &'m Counters,
        publishers: Side<'m>,
        alone: bool,
        os: &'m dyn Os,
    ) -> Self {
        assert!(seat < MOST_SEATS, "a side has at most {MOST_SEATS} seats");
        Sleeper {
            bell,
            bit: 1 << seat,
            mine,
            publishers,
            alone,
            epoch: AtomicU64::new(0),
            os,
        }
    }

    /// Asks to be woken by `face`. Look once more afterwards, before [`sleep`](Self::sleep): what was
    /// published before may have gone unnoticed.
    pub fn arm(&self, face: Face) -> Asked {
        // Acquire: pairs with the bump in `Ringer::wake`, and comes before the set.
        let seen = self.bell.doorbell.load(Ordering::Acquire);
        // Relaxed: before the set, by its release.
        self.mine.face.store(face as u64, Ordering::Relaxed);
        // Relaxed, all of `epoch`: a handle and the set that it is in do not arm at once; if they do,
        // one more epoch is begun.
        if self.epoch.load(Ordering::Relaxed) == 0 {
            // Release: pairs with the acquire in `Ringer::wake`. Before the barrier.
            self.bell.waiters.fetch_or(self.bit, Ordering::Release);
            let reach = self.os.barrier();
            if reach != Reach::Nobody {
                let overlooked = reach == Reach::Known;
                return Asked { seen, overlooked };
            }
            // Release: pairs with the acquire in `Ringer::wake`; our seat was repaired before it.
            let before = self.bell.epoch.fetch_add(1, Ordering::Release);
            self.epoch.store(before.wrapping_add(1), Ordering::Relaxed);
        }
        // Release: as above. Before the fence.
        self.bell
            .waiters
            .fetch_or(self.bit | FENCED, Ordering::Release);
        // SeqCst: pairs with the fence in `Ringer::wake`.
        fence(Ordering::SeqCst);
        Asked {
            seen,
            overlooked: false,
        }
    }

    /// Sleeps until somebody rings, for at most `at_most` nanoseconds. May return at any time.
    pub fn sleep(&self, seen: u32, at_most: u64) {
        let at_most = if self.heard() {
            at_most
        } else {
            at_most.min(SEEN_WITHIN)
        };
        self.os.sleep(&self.bell.doorbell, seen, at_most);
    }

    /// Whether a publish under way may have overlooked what `arm` asked for. Then who cannot bound its sleep must
    /// look once more, [`SEEN_WITHIN`] after that `arm`.
    pub fn unsure(&self, asked: Asked) -> bool {
        asked.overlooked || !self.heard()
    }

    /// Whether all publishers have acknowledged that they fence, if they must (*mixed*).
    pub fn heard(&self) -> bool {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch == 0 {
            return true;
        }
        // Who sits down acknowledges by its arrival, who left publishes nothing. (A later epoch than ours
        // is another sleeper's, for whom `FENCED` stands as well; `ALWAYS` is later than any.)
        self.publishers.seats().iter().all(|publisher| {
            let held = publisher
                .line
                .life()
                .is_ok_and(|life| life.state == State::Held);
            // Relaxed: nothing is read on its strength.
            !held || publisher.counters.fence_ack.load(Ordering::Relaxed) >= epoch
        })
    }

    /// Whether what `arm` asked for still stands: nobody was woken since.
    pub fn armed(&self) -> bool {
        // Relaxed: our own bit, which others only clear.
        self.bell.waiters.load(Ordering::Relaxed) & self.bit != 0
    }

    /// Whether the bell was rung since `arm` returned `seen`, or somebody cleared the bit and did not
    /// live to ring: then nobody will. Either way it is time to look, and to arm again.
    pub fn rung(&self, seen: u32) -> bool {
        // Relaxed, both: a hint; the fence of the next `arm` comes before its look.
        self.bell.doorbell.load(Ordering::Relaxed) != seen || !self.armed()
    }

    /// Whether what `arm` asked for was a byte in the pipe, and still stands.
    pub fn polls(&self) -> bool {
        self.on_pipe() && self.armed()
    }

    /// Returns `true` if the last `arm` asked for a byte in the pipe, whether or not that came.
    pub fn on_pipe(&self) -> bool {
        // Relaxed: the sleeper's own.
        self.mine.face.load(Ordering::Relaxed) == Face::Pipe as u64
    }

    /// Takes back what `arm` asked for.
    pub fn disarm(&self) {
        if self.armed() {
            // Relaxed: it asks for nothing.
            self.bell.waiters.fetch_and(!self.bit, Ordering::Relaxed);
        }
    }

    /// Clears what a holder of this seat, which leaves or died, asked for. `FENCED` only where nobody else
    /// may have set it.
    pub fn repair(&self) {
        let fenced = if self.alone { FENCED } else { 0 };
        // Relaxed: before the bump of `epoch`, which is a release, by whoever sits here next.
        self.bell
            .waiters
            .fetch_and(!(self.bit | fenced), Ordering::Relaxed);
    }
}

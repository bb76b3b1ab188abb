//! Looks and claims on behalf of either end of a queue, from the place where that end stands.

use core::marker::PhantomData;

use super::slip::Slip;
use super::word::{Place, Queue, State, committed, free};
use super::{HINT_EVERY, Ring};
use crate::cached_limit::CachedLimit;
use crate::crowd::Crowd;
use crate::error::{Corrupt, Error};
use crate::layout::Role;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

/// The number of words in a line.
const WORDS: u64 = 8;
/// The size of a line of a processor's caches, in bytes.
const LINE: u64 = 64;
/// Rings of fewer slots have too few lines for asking ahead: the other side is at work there.
const SMALL: u64 = 128;
/// A look counts the positions of at most this many lines of words. More would often be others' by the time that they
/// are wanted.
const LINES: u64 = 4;
/// The distance, in lines, at which an end asks for what it will write.
const AHEAD: u64 = 2;
/// An end asks for at most this many lines of payloads at once: a processor has about as many requests under way.
const AT_ONCE: usize = 16;

/// A look gives up after this many turns, besides one for each slot. Only words that a stranger wrote take it so far.
const TURNS: u64 = 64;

/// A side of a queue: what its ends claim.
pub(super) trait Side {
    /// The side.
    const ROLE: Role;
    /// The longest pause of an end that lets the other side get ahead, in processor pauses: of a producer more, since
    /// nobody waits for it while the queue is nearly full.
    const LONGEST_PAUSE: u32;
    /// Returns the word that this side claims, in this lap.
    fn claimable(lap: u64) -> u64;
    /// Counts the positions from `at` on that may be claimed at once, up to `most`.
    fn count(queue: &Queue<'_>, at: Place, most: u64) -> u64;
    /// Makes it possible to claim a run of `wanted` positions behind `at`, where the word is `found`. Returns `false` if it
    /// is not.
    fn make_way(queue: &Queue<'_>, at: Place, found: u64, wanted: u64) -> bool;
    /// Returns the distance of the position that shows that the other side is far enough ahead.
    fn far(capacity: u64) -> u64;
}

/// The side of the producers.
pub(super) struct Writing;

impl Side for Writing {
    const ROLE: Role = Role::Producer;
    const LONGEST_PAUSE: u32 = 1024;

    #[inline]
    fn claimable(lap: u64) -> u64 {
        free(lap)
    }

    #[inline]
    fn count(queue: &Queue<'_>, at: Place, most: u64) -> u64 {
        queue.room(at, most)
    }

    fn make_way(queue: &Queue<'_>, at: Place, found: u64, wanted: u64) -> bool {
        queue.make_way(at, found, wanted)
    }

    fn far(capacity: u64) -> u64 {
        (capacity / 2).min(31 + capacity / 8)
    }
}

/// The side of the consumers.
pub(super) struct Reading;

impl Side for Reading {
    const ROLE: Role = Role::Consumer;
    const LONGEST_PAUSE: u32 = 128;

    #[inline]
    fn claimable(lap: u64) -> u64 {
        committed(lap)
    }

    #[inline]
    fn count(queue: &Queue<'_>, at: Place, most: u64) -> u64 {
        queue.count(at, most, committed)
    }

    fn make_way(_: &Queue<'_>, _: Place, _: u64, _: u64) -> bool {
        false
    }

    fn far(capacity: u64) -> u64 {
        (capacity / 2).min(31)
    }
}

/// The part of an end that looks and claims.
pub(super) struct Claimant<'m, S> {
    pub(super) queue: Queue<'m>,
    /// The first position that this side may not have claimed.
    pub(super) at: Place,
    /// The number of positions that this end has claimed, in whose unit the cached limit counts.
    steps: u64,
    /// The value of `steps` that may be reached before the next look.
    limit: &'m CachedLimit,
    pub(super) seat: u64,
    /// The number of messages committed or released; the published copy is `position`.
    done: u64,
    position: &'m AtomicU64,
    /// The number of guards that have left this end's hands and are not finished with.
    pub(super) handed_out: &'m AtomicU64,
    hint_at: u64,
    slip: Slip,
    /// `true` if the last look found all that it counted, so that more is likely to lie behind.
    plenty: bool,
    pub(super) peers: Crowd<'m>,
    /// Wakes the other side.
    pub(super) notifier: Notifier<'m>,
    /// Wakes the end's own side.
    pub(super) fellows: Notifier<'m>,
    side: PhantomData<S>,
}

impl<'m, S: Side> Claimant<'m, S> {
    /// Returns the claimant of an end, and the slots' payloads.
    pub(super) fn new<C>(ring: Ring<'m, C>, limit: &'m CachedLimit) -> (Self, C) {
        limit.set(0);
        // Relaxed: the last holder's guards are gone.
        ring.handed_out.store(0, Ordering::Relaxed);
        let claimant = Claimant {
            queue: ring.queue,
            at: ring.queue.start(S::ROLE),
            steps: 0,
            limit,
            seat: ring.seat,
            // Relaxed: the seat is ours, so its position is.
            done: ring.position.load(Ordering::Relaxed),
            position: ring.position,
            handed_out: ring.handed_out,
            hint_at: HINT_EVERY,
            slip: Slip::default(),
            plenty: false,
            peers: ring.peers,
            notifier: ring.notifier,
            fellows: ring.fellows,
            side: PhantomData,
        };
        (claimant, ring.cells)
    }

    /// Returns the number of positions that whoever wins the next claim may take.
    #[inline]
    pub(super) fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.steps)
    }

    /// Forgets what the last look found.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.limit.set(self.steps);
    }

    /// Returns `true` if this is the end that took the seat, and not a forked copy of it.
    #[inline]
    pub(super) fn alive(&self) -> bool {
        self.limit.alive()
    }

    /// Returns the cached limit, which tells a guard of its own whether it is in a forked child.
    pub(super) fn limit(&self) -> &'m CachedLimit {
        self.limit
    }

    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.queue.shape.capacity()
    }

    /// Returns the number of messages in the queue, with those that are held.
    pub(super) fn len(&self) -> Result<usize, Error> {
        match self.alive() {
            true => Ok(self.queue.len() as usize),
            false => Err(Error::Forked),
        }
    }

    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.done
    }

    /// Walks to the first position that may be claimed, and counts those from there on, at least up to `wanted`.
    pub(super) fn find(&mut self, wanted: u64) -> Result<u64, Corrupt> {
        self.forget();
        let mut paused = false;
        // Each turn after the first carries a slot, or others have claimed something meanwhile.
        let mut turns = self.queue.shape.slots + TURNS;
        let (count, most) = loop {
            let most = wanted.max(self.window()).min(self.capacity());
            // The position where this end stands is the likely one. Most looks end here.
            let count = S::count(&self.queue, self.at, most);
            if count > 0 {
                if paused || !self.slip.found(count < most) {
                    break (count, most);
                }
                paused = true;
                if let more @ 1.. = self.wait_for_more(count, most) {
                    break (more, most);
                }
                // Another end has claimed the position meanwhile: walk on.
            }
            let found = self.queue.walk(&mut self.at, S::ROLE)?;
            let possible = match found == S::claimable(self.at.lap) {
                true => S::count(&self.queue, self.at, 1) > 0,
                false => S::make_way(&self.queue, self.at, found, wanted),
            };
            // Relaxed: compared with what the walk has acquired. If another end has claimed the position, walk on.
            let still = self.queue.word(self.at.index).load(Ordering::Relaxed) == found;
            turns -= 1;
            if !possible && still || turns == 0 {
                self.slip.missed();
                break (0, most);
            }
        };
        self.plenty = count >= most;
        self.limit.set(self.steps + count);
        Ok(count)
    }

    /// Returns the number of positions that a look counts: to the end of some lines of words, but no more than half of
    /// the ring.
    #[inline]
    fn window(&self) -> u64 {
        let capacity = self.capacity();
        let lines = (capacity / (4 * WORDS)).clamp(1, LINES);
        let to_the_end = lines * WORDS - self.at.index % WORDS;
        to_the_end.min(capacity / 2).max(1)
    }

    /// Lets the other side get ahead, and counts again.
    #[cold]
    fn wait_for_more(&mut self, count: u64, most: u64) -> u64 {
        let (queue, at, capacity) = (self.queue, self.at, self.capacity());
        self.slip.pause();
        let far = at.after(S::far(capacity), queue.shape);
        // Relaxed: a hint.
        let enough = queue.word(far.index).load(Ordering::Relaxed) == S::claimable(far.lap);
        let now = S::count(&queue, at, most);
        self.slip.paused(enough, now > count, S::LONGEST_PAUSE);
        now
    }

    /// Claims `count` positions at `at` by one CAS. Returns `false` if another end of this side was faster.
    ///
    /// # Safety
    /// The last look found that many positions, and more were not claimed since.
    #[inline(always)]
    pub(super) unsafe fn claim(&mut self, state: State, count: u64) -> bool {
        let Place { index, lap } = self.at;
        let shape = self.queue.shape;
        let word = shape.owned(state, self.seat, count, lap);
        // Release: pairs with the acquire of a walk that passes this run; see *Orderings*. (`find` acquired the words.)
        let claimed = self.queue.word(index).compare_exchange(
            S::claimable(lap),
            word,
            Ordering::Release,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            self.forget();
            return false;
        }
        self.at = self.at.after(count, shape);
        self.steps += count;
        true
    }

    /// Asks for lines some way behind the slot `index`, which was claimed just now: of its words, to be claimed, and of
    /// its payloads, by `ask`. Payloads have `size` bytes.
    // Plain version: none of this. Then a claim waits for its line and, on a processor whose locked instructions wait for
    // earlier stores, for the last payload's line as well, one after the other. A stream of 8-byte messages falls from 80
    // to 35 million a second.
    #[inline(always)]
    pub(super) fn ask_ahead(&self, index: u64, size: u64, ask: impl Fn(u64)) {
        // Only where positions are known, or likely, to be there. Otherwise the other side would lose its lines.
        let sure = |positions: u64| self.plenty || self.known() >= positions;
        if self.capacity() < SMALL {
            return;
        }
        if index.is_multiple_of(WORDS) && sure(AHEAD * WORDS) {
            self.queue.prefetch(index + AHEAD * WORDS);
        }
        if size >= LINE {
            if sure(AHEAD) {
                ask(index + AHEAD);
            }
        } else if size > 0 && (index * size) % LINE < size && sure(AHEAD * LINE / size) {
            ask(index + AHEAD * LINE / size);
        }
    }

    /// Asks for the lines of the `count` positions behind the run that was claimed just now, as `ask_ahead` does.
    #[inline]
    pub(super) fn ask_behind(&self, count: u64, size: u64, ask: impl Fn(u64)) {
        if self.capacity() < SMALL || !(self.plenty || self.known() >= count) {
            return;
        }
        let (at, shape) = (self.at, self.queue.shape);
        for behind in (0..count).step_by(WORDS as usize) {
            self.queue.prefetch(at.after(behind, shape).index);
        }
        let step = (LINE / size.max(1)).max(1);
        for behind in (0..count).step_by(step as usize).take(AT_ONCE) {
            ask(at.after(behind, shape).index);
        }
    }

    /// Counts `count` messages as committed or released, and wakes the other side.
    #[inline(always)]
    pub(super) fn finished(&mut self, count: u64) {
        self.count(count);
        // One, if nothing was committed: what was given up may have held up what comes behind it.
        self.notifier.ring_for(count.max(1));
        if self.steps >= self.hint_at {
            self.raise_hint();
        }
    }

    /// Counts `count` messages as committed or released.
    #[inline(always)]
    pub(super) fn count(&mut self, count: u64) {
        // It wraps: the word that it began at may be garbage.
        self.done = self.done.wrapping_add(count);
        // Relaxed: a figure.
        self.position.store(self.done, Ordering::Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn raise_hint(&mut self) {
        self.queue.raise_hint(S::ROLE, self.at);
        self.hint_at = self.steps + HINT_EVERY;
    }
}

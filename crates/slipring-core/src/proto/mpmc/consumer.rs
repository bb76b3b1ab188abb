//! The reading end: takes messages, copies them out or reads them in place, and releases their slots.

use core::fmt;

use super::recovery::{finish_in_parts, released};
use super::word::{Place, Queue, State, committed, returned};
use super::{FAR, HINT_EVERY, Ring};
use crate::cached_limit::CachedLimit;
use crate::crowd::Crowd;
use crate::end::{Endpoint, Poll, Pop, sealed::Sealed};
use crate::error::Error;
use crate::guard::{self, Hold, PanicMark, Runs};
use crate::layout::Role;
use crate::mem::Cells;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

/// The reading end.
pub struct Consumer<'m, T> {
    queue: Queue<'m>,
    cells: Cells<'m, T>,
    /// The first position that no consumer may have taken.
    at: Place,
    /// The number of positions that this end has taken, in whose unit the cached limit counts.
    steps: u64,
    /// The value of `steps` that may be reached before the next look.
    limit: &'m CachedLimit,
    seat: u64,
    /// A slot whose message is to be delivered again, as the last look found it.
    again: Option<Place>,
    /// The value of `returns` whose messages this end has looked for.
    seen: Option<u64>,
    /// `true` if what was taken last had been taken before.
    redelivered: bool,
    /// The run that is held, and its length.
    run: Place,
    held: u64,
    /// The published copy is `position`.
    done: u64,
    position: &'m AtomicU64,
    hint_at: u64,
    panic: PanicMark,
    peers: Crowd<'m>,
    notifier: Notifier<'m>,
    fellows: Notifier<'m>,
}

impl<T> fmt::Debug for Consumer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.done)
            .field("capacity", &self.queue.shape.capacity())
            .finish_non_exhaustive()
    }
}

impl<'m, T: Copy> Consumer<'m, T> {
    /// Takes a reading end.
    ///
    /// # Safety
    /// - All ends of this queue have the same words, and as many slots.
    /// - Only they write its words and its payloads.
    /// - No other consumer has this seat until this one is gone, and no slot's word names the seat.
    /// - A `T` has no padding and no pointers, and every bit pattern is a valid `T`.
    pub unsafe fn new(ring: Ring<'m, T>, limit: &'m mut CachedLimit) -> Self {
        let at = ring.queue.start(Role::Consumer);
        limit.set(0);
        // Relaxed: the seat is ours, so its position is.
        let done = ring.position.load(Ordering::Relaxed);
        Consumer {
            queue: ring.queue,
            cells: ring.cells,
            at,
            steps: 0,
            limit,
            seat: ring.seat,
            again: None,
            // What was returned before this end came is news to it.
            seen: None,
            redelivered: false,
            run: at,
            held: 0,
            done,
            position: ring.position,
            hint_at: HINT_EVERY,
            panic: PanicMark::default(),
            peers: ring.peers,
            notifier: ring.notifier,
            fellows: ring.fellows,
        }
    }

    /// Returns `true` if the message that was taken last had been taken before: by a consumer that gave it back, or
    /// died with it.
    #[inline]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// Returns the number of messages that whoever wins the next claim finds.
    #[inline]
    fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.steps)
    }

    /// Looks for a message, and returns `true` if there is one: one that was given back, or else the next.
    fn find(&mut self, wanted: u64) -> Result<bool, Error> {
        self.limit.set(self.steps);
        self.again = None;
        // Acquire: pairs with the release in `finish` and `recover`; the words come before.
        let returns = self.queue.claims.returns.load(Ordering::Acquire);
        if self.seen != Some(returns) {
            self.again = self.find_returned()?;
            if self.again.is_some() {
                return Ok(true);
            }
            self.seen = Some(returns);
        }
        let most = wanted.max(FAR).min(self.queue.shape.capacity());
        let count = loop {
            let found = self.queue.walk(&mut self.at, Role::Consumer)?;
            if found != committed(self.at.lap) {
                break 0;
            }
            match self.queue.count(self.at, most, committed) {
                // Another consumer has taken the message since: walk on.
                0 => {}
                count => break count,
            }
        };
        self.limit.set(self.steps + count);
        Ok(count > 0)
    }

    #[cold]
    #[inline(never)]
    fn find_returned(&self) -> Result<Option<Place>, Error> {
        for (index, word) in self.queue.words().iter().enumerate() {
            // Acquire: pairs with the release of whoever gave the message back, after the producer's.
            let word = self.queue.shape.read(word.load(Ordering::Acquire))?;
            if word.state == State::Returned {
                let (index, lap) = (index as u64, word.lap);
                return Ok(Some(Place { index, lap }));
            }
        }
        Ok(None)
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self) -> Poll {
        if !self.limit.alive() {
            return Poll::Unclear;
        }
        match self.find(1) {
            Ok(true) => Poll::Ready,
            Ok(false) if self.peers.quiet() => Poll::NotReady,
            _ => Poll::Unclear,
        }
    }

    /// Claims up to `max` messages in one run, and returns the run's place and length; `None` if another consumer was
    /// faster.
    ///
    /// # Safety
    /// The last look found a message, and none was claimed since.
    #[inline(always)]
    unsafe fn claim(&mut self, state: State, max: u64) -> Option<(Place, u64)> {
        let (shape, known) = (self.queue.shape, self.known());
        if known == 0 {
            return self.claim_returned(state);
        }
        let (place, count) = (self.at, known.min(max));
        let word = shape.owned(state, self.seat, count, place.lap);
        // Release: pairs with the acquire of a walk that passes this run; see *Orderings*. (`find` acquired the words.)
        let claimed = self.queue.word(place.index).compare_exchange(
            committed(place.lap),
            word,
            Ordering::Release,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            self.limit.set(self.steps);
            return None;
        }
        self.at = place.after(count, shape);
        self.steps += count;
        self.redelivered = false;
        Some((place, count))
    }

    /// Claims the message that was given back.
    #[cold]
    #[inline(never)]
    fn claim_returned(&mut self, state: State) -> Option<(Place, u64)> {
        let place = self.again.take()?;
        let word = self.queue.shape.owned(state, self.seat, 1, place.lap);
        // Acquire: the word may be a later visit's than the one that the look acquired.
        let claimed = self.queue.word(place.index).compare_exchange(
            returned(place.lap),
            word,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        self.redelivered = claimed.is_ok();
        claimed.is_ok().then_some((place, 1))
    }

    /// Counts `count` messages as released, and wakes the producers.
    #[inline(always)]
    fn released(&mut self, count: u64) {
        // It wraps: the word that it began at may be garbage.
        self.done = self.done.wrapping_add(count);
        // Relaxed: a figure.
        self.position.store(self.done, Ordering::Relaxed);
        self.notifier.ring();
        if !self.peers.quiet() {
            self.announce_end();
        }
        if self.steps >= self.hint_at {
            self.raise_hint();
        }
    }

    #[cold]
    #[inline(never)]
    fn raise_hint(&mut self) {
        self.queue.raise_hint(Role::Consumer, self.at);
        self.hint_at = self.steps + HINT_EVERY;
    }

    /// Wakes the other consumers if no producer is left: this may have been the last message that they wait for.
    ///
    /// Either this end sees that the last producer has left, and rings; or that producer's own wake comes after the
    /// release, and whoever it wakes sees the slot free. (By the argument of `wait.rs`: a waiter's barrier comes
    /// between its bit and its look.)
    #[cold]
    #[inline(never)]
    fn announce_end(&mut self) {
        // If the words are impossible, the next look reports that.
        if self.peers.present() != Ok(true) {
            self.fellows.ring();
        }
    }

    /// Releases the first `count` held messages, and gives the rest back.
    ///
    /// # Safety
    /// No reference to the held messages is used any more.
    unsafe fn finish(&mut self, count: u64) {
        let (run, held) = (self.run, self.held);
        if held == 0 || !self.limit.alive() {
            return;
        }
        self.held = 0;
        let queue = &self.queue;
        finish_in_parts(
            queue,
            (run, held),
            (State::Held, self.seat),
            count,
            (
                |place| released(queue, place),
                |place: Place| returned(place.lap),
            ),
        );
        if count < held {
            // Release: pairs with the acquire in `find`; the words come before.
            queue.claims.returns.fetch_add(1, Ordering::Release);
            // This end looks for them at once. The others do when they have taken what their last look found.
            self.limit.set(self.steps);
        }
        self.released(count);
        if count < held {
            self.fellows.ring();
        }
    }

    /// Returns `true` if a message is in the hands of another end, or has come meanwhile.
    fn others_hold(&self) -> Result<bool, Error> {
        for word in self.queue.words() {
            // Acquire: as in `walk`.
            let word = self.queue.shape.read(word.load(Ordering::Acquire))?;
            let ours = matches!(word.state, State::Taken | State::Held) && word.owner == self.seat;
            if word.state != State::Free && !ours {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<T> Sealed for Consumer<'_, T> {}

impl<T: Copy> Endpoint for Consumer<'_, T> {
    const NOT_READY: Error = Error::Empty;

    #[inline]
    fn poll(&mut self, _: usize) -> Poll {
        if self.known() > 0 {
            Poll::Ready
        } else {
            self.look()
        }
    }

    /// Looks in any case: another consumer may have taken what an earlier look found.
    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        self.limit.set(self.steps);
        self.ensure(amount)
    }

    fn slow_path(&mut self, _: usize) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if self.find(1)? {
            return Ok(());
        }
        let Some(news) = self.peers.end()? else {
            return Err(Error::Empty);
        };
        // A producer may have committed more just before it left.
        if self.find(1)? {
            return Ok(());
        }
        // What another consumer holds may come back. What has come meanwhile is found at the next look.
        if self.others_hold()? || !self.peers.stands(news)? {
            return Err(Error::Empty);
        }
        Err(Error::Disconnected(self.peers.tell(news)))
    }

    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }

    fn with_crowd<R>(&mut self, ask: impl FnOnce(&mut Crowd<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.peers))
    }

    fn capacity(&self) -> usize {
        self.queue.shape.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.done
    }

    fn len(&self) -> Result<usize, Error> {
        match self.limit.alive() {
            true => Ok(self.queue.len() as usize),
            false => Err(Error::Forked),
        }
    }
}

impl<T: Copy> Pop for Consumer<'_, T> {
    type Value = T;

    const RIVALS: bool = true;

    #[inline(always)]
    unsafe fn take(&mut self) -> Result<T, Error> {
        // SAFETY: the caller's promise.
        let (place, _) = unsafe { self.claim(State::Taken, 1) }.ok_or(Error::Empty)?;
        // SAFETY: a place's index is below the number of slots. The slot is ours since the claim, and committed.
        let value = unsafe { self.cells.read(place.index) };
        // Release: pairs with the acquire of a producer's look; our read comes before.
        self.queue
            .word(place.index)
            .store(released(&self.queue, place), Ordering::Release);
        self.released(1);
        Ok(value)
    }

    fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        if out.is_empty() {
            return Ok(0);
        }
        let count = self.hold(out.len())?;
        // SAFETY: `hold` claimed that many.
        let (front, back) = unsafe { self.cells.slices(self.run.index, count) };
        let (first, rest) = out[..count].split_at_mut(front.len());
        first.copy_from_slice(front);
        rest.copy_from_slice(back);
        // SAFETY: held just now, and copied.
        unsafe { self.release_held(count) };
        Ok(count)
    }
}

impl<T: Copy> Hold for Consumer<'_, T> {
    fn hold(&mut self, max: usize) -> Result<usize, Error> {
        self.panic.begin();
        // A guard that was forgotten keeps its messages until this end leaves.
        self.held = 0;
        let max = (max as u64).min(self.queue.shape.capacity());
        if max == 0 {
            return Ok(0);
        }
        loop {
            self.ensure(1)?;
            if self.known() > 0 && self.known() < max {
                // As many as there are. Returned messages come one at a time.
                self.find(max)?;
            }
            // SAFETY: a look found a message just now; if it is gone, the claim fails.
            if let Some((run, count)) = unsafe { self.claim(State::Held, max) } {
                (self.run, self.held) = (run, count);
                return Ok(count as usize);
            }
        }
    }

    #[inline]
    unsafe fn held<'a>(&self, index: usize) -> &'a T {
        let place = self.run.after(index as u64, self.queue.shape);
        // SAFETY: a place's index is below the number of slots; the slot is held, and not written until released.
        unsafe { self.cells.get(place.index) }
    }

    #[inline]
    unsafe fn held_slices<'a>(&self, count: usize) -> Option<Runs<'a, T>> {
        // SAFETY: as in `held`, for the first `count` of the run.
        Some(unsafe { self.cells.slices(self.run.index, count) })
    }

    #[inline]
    unsafe fn release_held(&mut self, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.finish(count as u64) };
    }

    unsafe fn keep_held(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.finish(0) };
    }

    #[inline]
    fn drop_releases(&self) -> bool {
        self.limit.alive() && self.panic.drop_releases()
    }
}

impl<T: Copy> guard::Messages<'_, Consumer<'_, T>> {
    /// Returns the messages in order: up to the last slot, and from the first.
    #[inline]
    pub fn as_slices(&self) -> (&[T], &[T]) {
        // SAFETY: so many are held; the borrow of the guard ends before it releases.
        unsafe { self.consumer.held_slices(self.count) }.unwrap_or_default()
    }

    /// Returns `true` if these messages had been taken before: by a consumer that gave them back, or died with them.
    pub fn redelivered(&self) -> bool {
        self.consumer.redelivered()
    }
}

//! The writing end: reserves positions, fills them, and hands them to the consumers.

use core::fmt;

use super::recovery::{finish_in_parts, finish_run, published, released};
use super::word::{Place, Queue, State, free};
use super::{FAR, HINT_EVERY, Ring};
use crate::cached_limit::CachedLimit;
use crate::crowd::Crowd;
use crate::end::{Endpoint, Poll, Push, sealed::Sealed};
use crate::error::Error;
use crate::guard::{self, Reserve};
use crate::layout::Role;
use crate::mem::Cells;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

/// The writing end.
pub struct Producer<'m, T> {
    queue: Queue<'m>,
    cells: Cells<'m, T>,
    /// The first position that may still be free.
    at: Place,
    /// The number of positions that this end has claimed, in whose unit the cached limit counts.
    steps: u64,
    /// The value of `steps` that may be reached before the next look.
    limit: &'m CachedLimit,
    seat: u64,
    /// The run that is reserved, and its length.
    run: Place,
    reserved: u64,
    /// The published copy is `position`.
    done: u64,
    position: &'m AtomicU64,
    hint_at: u64,
    peers: Crowd<'m>,
    notifier: Notifier<'m>,
    fellows: Notifier<'m>,
    fails_alone: bool,
    /// The number of positions that were free at the last look.
    seen_free: u64,
}

impl<T> fmt::Debug for Producer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.done)
            .field("capacity", &self.queue.shape.capacity())
            .finish_non_exhaustive()
    }
}

impl<'m, T: Copy> Producer<'m, T> {
    /// Takes a writing end.
    ///
    /// # Safety
    /// - All ends of this queue have the same words, and as many slots.
    /// - Only they write its words and its payloads.
    /// - No other producer has this seat until this one is gone, and no slot's word names the seat.
    /// - A `T` has no padding and no pointers, and every bit pattern is a valid `T`.
    pub unsafe fn new(ring: Ring<'m, T>, limit: &'m mut CachedLimit) -> Self {
        let at = ring.queue.start(Role::Producer);
        limit.set(0);
        // Relaxed: the seat is ours, so its position is.
        let done = ring.position.load(Ordering::Relaxed);
        Producer {
            queue: ring.queue,
            cells: ring.cells,
            at,
            steps: 0,
            limit,
            seat: ring.seat,
            run: at,
            reserved: 0,
            done,
            position: ring.position,
            hint_at: HINT_EVERY,
            peers: ring.peers,
            notifier: ring.notifier,
            fellows: ring.fellows,
            fails_alone: false,
            seen_free: 0,
        }
    }

    /// Returns the number of positions that are known to be free for whoever wins the next claim.
    #[inline]
    fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.steps)
    }

    /// Walks to the first free position, and counts the free ones from there on, at least up to `wanted`.
    ///
    /// One free position behind them stays: it is not counted.
    fn find(&mut self, wanted: u64) -> Result<u64, Error> {
        let shape = self.queue.shape;
        self.limit.set(self.steps);
        let most = wanted.max(FAR).min(shape.capacity()) + 1;
        let count = loop {
            let found = self.queue.walk(&mut self.at, Role::Producer)?;
            if found != free(self.at.lap) {
                break 0;
            }
            match self.queue.count(self.at, most, free) {
                // Another producer has claimed the position since: walk on.
                0 => {}
                count => break count - 1,
            }
        };
        self.seen_free = count;
        if !self.fails_alone {
            self.limit.set(self.steps + count);
        }
        Ok(count)
    }

    /// Looks for `wanted` free positions. This is the rare case.
    #[cold]
    #[inline(never)]
    fn look(&mut self, wanted: u64) -> Poll {
        if !self.limit.alive() || wanted > self.queue.shape.capacity() {
            return Poll::Unclear;
        }
        if self.fails_alone && !self.peers.quiet() {
            return Poll::Unclear;
        }
        match self.find(wanted) {
            Ok(count) if count >= wanted => Poll::Ready,
            Ok(_) if self.peers.quiet() => Poll::NotReady,
            _ => Poll::Unclear,
        }
    }

    /// Claims `count` positions at `at` by one CAS. Returns `false` if another producer was faster.
    ///
    /// # Safety
    /// The last look found that many positions free, and more were not claimed since.
    #[inline(always)]
    unsafe fn take(&mut self, count: u64) -> bool {
        let Place { index, lap } = self.at;
        let shape = self.queue.shape;
        let word = shape.owned(State::Reserved, self.seat, count, lap);
        // Release: pairs with the acquire of a walk that passes this run; see *Orderings*. (`find` acquired the words.)
        let claimed = self.queue.word(index).compare_exchange(
            free(lap),
            word,
            Ordering::Release,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            self.limit.set(self.steps);
            return false;
        }
        self.at = self.at.after(count, shape);
        self.steps += count;
        true
    }

    /// Counts `count` messages as committed, and wakes the consumers.
    #[inline(always)]
    fn committed(&mut self, count: u64) {
        // It wraps: the word that it began at may be garbage.
        self.done = self.done.wrapping_add(count);
        // Relaxed: a figure.
        self.position.store(self.done, Ordering::Relaxed);
        self.notifier.ring();
        if self.steps >= self.hint_at {
            self.raise_hint();
        }
    }

    #[cold]
    #[inline(never)]
    fn raise_hint(&mut self) {
        self.queue.raise_hint(Role::Producer, self.at);
        self.hint_at = self.steps + HINT_EVERY;
    }

    /// Reserves up to `wanted` positions: at least one, or an error. Returns 0 if `wanted` is 0.
    #[inline]
    fn reserve_some(&mut self, wanted: usize) -> Result<u64, Error> {
        let wanted = (wanted as u64).min(self.queue.shape.capacity());
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            if self.known() < wanted {
                // The error tells why there is none.
                self.ensure(1)?;
                self.find(wanted)?;
            }
            let found = match self.fails_alone {
                true => self.seen_free,
                false => self.known(),
            };
            let (run, count) = (self.at, found.min(wanted));
            // SAFETY: a look found at least `count` free.
            if count > 0 && unsafe { self.take(count) } {
                (self.run, self.reserved) = (run, count);
                return Ok(count);
            }
        }
    }
}

impl<T> Sealed for Producer<'_, T> {}

impl<T: Copy> Endpoint for Producer<'_, T> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        if self.known() >= amount as u64 {
            Poll::Ready
        } else {
            self.look(amount as u64)
        }
    }

    /// Looks in any case: what an earlier look found may be claimed by now.
    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        self.limit.set(self.steps);
        self.ensure(amount)
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        let (wanted, max) = (amount as u64, self.queue.shape.capacity());
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if wanted > max {
            return Err(Error::TooLarge { asked: wanted, max });
        }
        if !self.fails_alone && self.find(wanted)? >= wanted {
            return Ok(());
        }
        match self.peers.end()? {
            // A consumer may have released more just before it left.
            Some(_) if !self.fails_alone && self.find(wanted)? >= wanted => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peers.tell(news))),
            None if self.fails_alone && self.find(wanted)? >= wanted => Ok(()),
            None => Err(Error::Full),
        }
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

impl<T: Copy> Push for Producer<'_, T> {
    type Value = T;

    #[inline(always)]
    unsafe fn put(&mut self, value: &T) -> bool {
        let Place { index, lap } = self.at;
        // SAFETY: the caller's poll found a free position here.
        if !unsafe { self.take(1) } {
            return false;
        }
        // SAFETY: a place's index is below the number of slots, and the slot is ours since the claim.
        unsafe { self.cells.write(index, value) };
        // Release: pairs with the acquire of a consumer's look; the payload comes before.
        self.queue
            .word(index)
            .store(published(Place { index, lap }), Ordering::Release);
        self.committed(1);
        true
    }

    #[inline]
    unsafe fn write(&mut self, index: usize, value: T) {
        let place = self.run.after(index as u64, self.queue.shape);
        // SAFETY: a place's index is below the number of slots; the slot lies in the reserved run.
        unsafe { self.cells.write(place.index, &value) };
    }

    fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        let count = self.reserve_some(values.len())? as usize;
        if count > 0 {
            // SAFETY: the run is ours since the claim, and its place's index is below the number of slots.
            let (front, back) = unsafe { self.cells.slices_mut(self.run.index, count) };
            let (first, rest) = values[..count].split_at(front.len());
            front.copy_from_slice(first);
            back.copy_from_slice(rest);
            // SAFETY: claimed just now.
            unsafe { self.commit_claimed(count) };
        }
        Ok(count)
    }

    fn try_push_iter(&mut self, values: &mut impl Iterator<Item = T>) -> Result<usize, Error> {
        if values.size_hint().1 == Some(0) {
            return self.ensure(1).map(|()| 0);
        }
        let mut done = 0;
        loop {
            // What is reserved must be filled: others wait behind it. So reserve what is sure to come.
            let sure = values.size_hint().0.max(1);
            let reserved = match self.reserve_some(sure) {
                Ok(count) => count as usize,
                Err(error) if done == 0 => return Err(error),
                Err(_) => return Ok(done),
            };
            // Dropped if the iterator panics: then none of this run is published.
            // SAFETY: claimed just now.
            let mut run = unsafe { guard::Reservation::of_claimed(self, reserved) };
            let mut count = 0;
            while count < reserved
                && let Some(value) = values.next()
            {
                run.write(count, value);
                count += 1;
            }
            // An iterator may run any code: it may have forked.
            if !run.producer.limit.alive() {
                return Err(Error::Forked);
            }
            run.commit(count);
            done += count;
            if count < reserved || values.size_hint().1 == Some(0) {
                return Ok(done);
            }
        }
    }
}

impl<T: Copy> Reserve for Producer<'_, T> {
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        loop {
            self.ensure(amount)?;
            let run = self.at;
            // SAFETY: `ensure` found that many free.
            if amount == 0 || unsafe { self.take(amount as u64) } {
                (self.run, self.reserved) = (run, amount as u64);
                return Ok(());
            }
        }
    }

    fn fail_alone(&mut self, on: bool) {
        self.fails_alone = on;
        if self.limit.alive() {
            self.limit.set(self.steps);
        }
    }

    unsafe fn commit_claimed(&mut self, amount: usize) {
        let (run, reserved, amount) = (self.run, self.reserved, amount as u64);
        if reserved == 0 || !self.limit.alive() {
            return;
        }
        self.reserved = 0;
        let queue = &self.queue;
        let discarded = |place| released(queue, place);
        match amount {
            0 => finish_run(queue, run, reserved, discarded),
            // The message, or the whole batch, is published by one store.
            _ => finish_in_parts(
                queue,
                (run, reserved),
                (State::Reserved, self.seat),
                amount,
                (published, discarded),
            ),
        }
        self.committed(amount);
        if amount < reserved {
            // A producer may wait for what was given up.
            self.fellows.ring();
        }
    }

    unsafe fn discard_claimed(&mut self) {
        // SAFETY: nothing of the claim is committed.
        unsafe { self.commit_claimed(0) };
    }
}

impl<T: Copy> guard::Reservation<'_, Producer<'_, T>> {
    /// Returns the reserved slots, in order: up to the last slot, and from the first.
    ///
    /// They still hold an earlier message's bytes.
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        let Producer { cells, run, .. } = &*self.producer;
        // SAFETY: the run is reserved, its place's index is below the number of slots, and `&mut self` borrows it once.
        unsafe { cells.slices_mut(run.index, self.amount) }
    }
}

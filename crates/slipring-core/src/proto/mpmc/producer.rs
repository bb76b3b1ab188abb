//! The writing end: reserves positions, fills them, and hands them to the consumers.

use core::fmt;

use super::Ring;
use super::claimant::{Claimant, Writing};
use super::owned::OwnedReservation;
use super::recovery::Run;
use super::word::{Place, State, committed};
use crate::cached_limit::CachedLimit;
use crate::crowd::Crowd;
use crate::end::{Endpoint, Poll, Push, sealed::Sealed};
use crate::error::Error;
use crate::guard::{self, Reserve};
use crate::mem::{Cells, Contents};
use crate::seat::Peer;
use crate::sync::Ordering;

/// The writing end.
pub struct Producer<'m, C> {
    pub(super) claimant: Claimant<'m, Writing>,
    pub(super) cells: C,
    /// The run that is reserved, and its length.
    pub(super) run: Place,
    reserved: u64,
    fails_alone: bool,
    /// The number of positions that were free at the last look.
    seen_free: u64,
}

impl<C> fmt::Debug for Producer<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.claimant.position())
            .field("capacity", &self.claimant.capacity())
            .finish_non_exhaustive()
    }
}

impl<'m, C: Contents> Producer<'m, C> {
    /// Takes a writing end.
    ///
    /// # Safety
    /// - All ends of this queue have the same words, and as many slots.
    /// - Only they write its words and its payloads.
    /// - No other producer has this seat until this one is gone, and no slot's word names the seat.
    /// - What a slot holds has no padding and no pointers, and every bit pattern is valid.
    pub unsafe fn new(ring: Ring<'m, C>, limit: &'m mut CachedLimit) -> Self {
        let (claimant, cells) = Claimant::new(ring, limit);
        Producer {
            run: claimant.at,
            claimant,
            cells,
            reserved: 0,
            fails_alone: false,
            seen_free: 0,
        }
    }

    /// Walks to the first free position, and counts the free ones from there on, at least up to `wanted`.
    ///
    /// One free position behind them stays: it is not counted.
    fn find(&mut self, wanted: u64) -> Result<u64, Error> {
        let count = self.claimant.find(wanted)?;
        self.seen_free = count;
        if self.fails_alone {
            self.claimant.forget();
        }
        Ok(count)
    }

    /// Looks for a run of `wanted` positions, and returns `true` if it can be claimed: at once, or by `find_run`.
    fn has_run(&mut self, wanted: u64) -> Result<bool, Error> {
        let count = self.find(wanted)?;
        Ok(count >= wanted || count > 0 && self.claimant.queue.fits(self.claimant.at, wanted))
    }

    /// Walks to a run of `wanted` free positions. Free ones that lie before a slot which somebody holds are given up, if
    /// that many in a row lie behind it. Returns `false` if there is no such run.
    fn find_run(&mut self, wanted: u64) -> Result<bool, Error> {
        // Once around, at most: each turn passes a held slot.
        for _ in 0..self.claimant.queue.shape.slots {
            let count = self.find(wanted)?;
            if count == 0 || count >= wanted || !self.skip(count, wanted) {
                return Ok(count >= wanted);
            }
        }
        Ok(false)
    }

    /// Gives up `count` free positions that lie before a slot which somebody holds, if `wanted` in a row lie behind it.
    /// Returns `false` if they do not.
    #[cold]
    fn skip(&mut self, count: u64, wanted: u64) -> bool {
        if !self.claimant.queue.fits(self.claimant.at, wanted) {
            return false;
        }
        self.run = self.claimant.at;
        // SAFETY: the look found `count` free.
        if unsafe { self.take(count) } {
            self.reserved = count;
            self.commit_slots(0);
        }
        true
    }

    /// Looks for `wanted` free positions. This is the rare case.
    #[cold]
    #[inline(never)]
    fn look(&mut self, wanted: u64) -> Poll {
        if !self.claimant.alive() || wanted > self.claimant.capacity() {
            return Poll::Unclear;
        }
        if self.fails_alone && !self.claimant.peers.quiet() {
            return Poll::Unclear;
        }
        match self.has_run(wanted) {
            Ok(true) => Poll::Ready,
            Ok(_) if self.claimant.peers.quiet() => Poll::NotReady,
            _ => Poll::Unclear,
        }
    }

    /// Claims `count` positions by one CAS. Returns `false` if another producer was faster.
    ///
    /// # Safety
    /// The last look found that many positions free, and more were not claimed since.
    #[inline(always)]
    pub(super) unsafe fn take(&mut self, count: u64) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.claimant.claim(State::Reserved, count) }
    }

    /// Reserves up to `wanted` positions: at least one, or an error. Returns 0 if `wanted` is 0.
    #[inline]
    pub(super) fn reserve_some(&mut self, wanted: usize) -> Result<u64, Error> {
        let wanted = (wanted as u64).min(self.claimant.capacity());
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            if self.claimant.known() < wanted {
                // The error tells why there is none.
                self.ensure(1)?;
                self.find(wanted)?;
            }
            let (run, count) = (self.claimant.at, self.found().min(wanted));
            // SAFETY: a look found at least `count` free.
            if count > 0 && unsafe { self.take(count) } {
                (self.run, self.reserved) = (run, count);
                return Ok(count);
            }
        }
    }

    /// Claims the slots for `amount`.
    pub(super) fn claim_slots(&mut self, amount: usize) -> Result<(), Error> {
        let slots = self.cells.slots_for(amount as u64)?;
        loop {
            self.ensure(amount)?;
            if self.found() < slots && !self.find_run(slots)? {
                return Err(Error::Full);
            }
            let run = self.claimant.at;
            // SAFETY: a look found that many free.
            if slots == 0 || unsafe { self.take(slots) } {
                (self.run, self.reserved) = (run, slots);
                return Ok(());
            }
        }
    }

    /// Returns the number of positions that the last look found free.
    #[inline]
    fn found(&self) -> u64 {
        match self.fails_alone {
            true => self.seen_free,
            false => self.claimant.known(),
        }
    }

    /// Publishes the first `count` claimed slots, and gives up the rest. Does nothing if nothing is claimed, nor in a forked
    /// child.
    pub(super) fn commit_slots(&mut self, count: u64) {
        let run = self.claimed();
        if run.count == 0 || !self.claimant.alive() {
            return;
        }
        self.reserved = 0;
        let queue = &self.claimant.queue;
        // The message, or the whole batch, is published by one store.
        run.finish(queue, count, committed, |lap| queue.shape.next_free(lap));
        self.claimant.finished(count);
        if count < run.count {
            // A producer may wait for what was given up.
            self.claimant.fellows.ring();
        }
    }

    /// See [`Reserve::fail_alone`].
    pub(super) fn fail_when_alone(&mut self, on: bool) {
        self.fails_alone = on;
        if self.claimant.alive() {
            self.claimant.forget();
        }
    }

    /// Returns the run that was claimed last.
    fn claimed(&self) -> Run {
        Run {
            first: self.run,
            count: self.reserved,
            state: State::Reserved,
            owner: self.claimant.seat,
        }
    }

    /// Takes the claimed space out of this end's hands: whoever has the result commits it, on any thread and in any order.
    ///
    /// # Safety
    /// A claim succeeded, and nothing was committed since. The result is gone before the memory is, and before the seat
    /// is left.
    pub unsafe fn detach_claimed(&mut self) -> OwnedReservation<'m, C> {
        let run = self.claimed();
        self.reserved = 0;
        self.claimant.count(run.count);
        OwnedReservation::new(run, &self.claimant, self.cells)
    }
}

impl<C> Sealed for Producer<'_, C> {}

impl<C: Contents> Endpoint for Producer<'_, C> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        match self.cells.slots_for(amount as u64) {
            Ok(slots) if self.claimant.known() >= slots => Poll::Ready,
            Ok(slots) => self.look(slots),
            Err(_) => Poll::Unclear,
        }
    }

    /// Looks in any case: what an earlier look found may be claimed by now.
    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        self.claimant.forget();
        self.ensure(amount)
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        if !self.claimant.alive() {
            return Err(Error::Forked);
        }
        let wanted = self.cells.slots_for(amount as u64)?;
        let max = self.claimant.capacity();
        if wanted > max {
            return Err(Error::TooLarge { asked: wanted, max });
        }
        if !self.fails_alone && self.has_run(wanted)? {
            return Ok(());
        }
        match self.claimant.peers.end()? {
            // A consumer may have released more just before it left.
            Some(_) if !self.fails_alone && self.has_run(wanted)? => Ok(()),
            Some(news) => Err(Error::Disconnected(self.claimant.peers.tell(news))),
            None if self.fails_alone && self.has_run(wanted)? => Ok(()),
            None => Err(Error::Full),
        }
    }

    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }

    fn with_crowd<R>(&mut self, ask: impl FnOnce(&mut Crowd<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.claimant.peers))
    }

    fn capacity(&self) -> usize {
        self.claimant.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.claimant.position()
    }

    fn len(&self) -> Result<usize, Error> {
        self.claimant.len()
    }
}

impl<'m, T: Copy> Push for Producer<'m, Cells<'m, T>> {
    type Value = T;

    #[inline(always)]
    unsafe fn put(&mut self, value: &T) -> bool {
        let place = self.claimant.at;
        // SAFETY: the caller's poll found a free position here.
        if !unsafe { self.take(1) } {
            return false;
        }
        let ask = |index| self.cells.prefetch_to_write(index);
        self.claimant
            .ask_ahead(place.index, size_of::<T>() as u64, ask);
        // SAFETY: a place's index is below the number of slots, and the slot is ours since the claim.
        unsafe { self.cells.write(place.index, value) };
        // Release: pairs with the acquire of a consumer's look; the payload comes before.
        self.claimant
            .queue
            .word(place.index)
            .store(committed(place.lap), Ordering::Release);
        self.claimant.finished(1);
        true
    }

    #[inline]
    unsafe fn write(&mut self, index: usize, value: T) {
        let place = self.run.after(index as u64, self.claimant.queue.shape);
        // SAFETY: a place's index is below the number of slots; the slot lies in the reserved run.
        unsafe { self.cells.write(place.index, &value) };
    }

    fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        let count = self.reserve_some(values.len())? as usize;
        if count > 0 {
            let ask = |index| self.cells.prefetch_to_write(index);
            self.claimant
                .ask_behind(count as u64, size_of::<T>() as u64, ask);
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
                // An iterator may run any code: it may have forked, and the slots are the parent's.
                if !run.producer.claimant.alive() {
                    return Err(Error::Forked);
                }
                run.write(count, value);
                count += 1;
            }
            // The last step may have forked as well.
            if !run.producer.claimant.alive() {
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

impl<'m, T: Copy> Reserve for Producer<'m, Cells<'m, T>> {
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        self.claim_slots(amount)
    }

    fn fail_alone(&mut self, on: bool) {
        self.fail_when_alone(on);
    }

    unsafe fn commit_claimed(&mut self, amount: usize) {
        self.commit_slots(amount as u64);
    }

    unsafe fn discard_claimed(&mut self) {
        self.commit_slots(0);
    }
}

impl<'m, T: Copy> guard::Reservation<'_, Producer<'m, Cells<'m, T>>> {
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

//! Queues of byte strings: slots of a size that is known when the program runs, and a length for each message.
//!
//! The length lies in the slot's note, in the control part. So nothing that anybody writes into the data part changes
//! more than the bytes of messages.

use core::iter::Peekable;
use core::mem::ManuallyDrop;

use super::consumer::Consumer;
use super::owned::note_length;
use super::producer::Producer;
use super::word::{State, committed};
use crate::end::Endpoint;
use crate::error::{Corrupt, Error};
use crate::guard::Reserve;
use crate::mem::{ByteCells, Contents};
use crate::record::{HoldRecord, HoldRecords, PushRecord, PushRecords, Record, Records};
use crate::sync::Ordering;

impl<'m> Reserve for Producer<'m, ByteCells<'m>> {
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        self.claim_slots(amount)
    }

    fn fail_alone(&mut self, on: bool) {
        self.fail_when_alone(on);
    }

    fn room_for(&self, amount: usize) -> Result<u64, Error> {
        self.cells.slots_for(amount as u64)
    }

    unsafe fn commit_claimed(&mut self, amount: usize) {
        if self.claimant.alive() {
            note_length(&self.claimant.queue, self.run.index, amount);
        }
        self.commit_slots(1);
    }

    unsafe fn discard_claimed(&mut self) {
        self.commit_slots(0);
    }
}

impl<'m> PushRecord for Producer<'m, ByteCells<'m>> {
    fn max_record(&self) -> usize {
        self.cells.size() as usize
    }

    #[inline]
    unsafe fn put_record(&mut self, payload: &[u8]) -> bool {
        let place = self.claimant.at;
        // SAFETY: the caller's poll found a free position here.
        if !unsafe { self.take(1) } {
            return false;
        }
        let ask = |index| self.cells.prefetch_to_write(index);
        self.claimant.ask_ahead(place.index, self.cells.size(), ask);
        // SAFETY: a place's index is below the number of slots, and the slot is ours since the claim. The poll compared the
        // length with the size of a slot.
        let bytes = unsafe { self.cells.bytes_mut(place.index, payload.len()) };
        bytes.copy_from_slice(payload);
        let queue = &self.claimant.queue;
        note_length(queue, place.index, payload.len());
        // Release: pairs with the acquire of a consumer's look; the payload and its length come before.
        queue
            .word(place.index)
            .store(committed(place.lap), Ordering::Release);
        self.claimant.finished(1);
        true
    }

    #[inline]
    unsafe fn claimed<'a>(&self, len: usize) -> &'a [u8] {
        // SAFETY: a place's index is below the number of slots; the slot is ours since the claim, for at least `len` bytes.
        unsafe { self.cells.content(self.run.index, len) }
    }

    #[inline]
    unsafe fn claimed_mut<'a>(&mut self, len: usize) -> &'a mut [u8] {
        // SAFETY: as in `claimed`; the caller has no other reference to it.
        unsafe { self.cells.bytes_mut(self.run.index, len) }
    }
}

/// Reserved slots that are being filled. Dropped by a panic of the caller's iterator, it gives them up.
struct Unfilled<'p, 'm>(&'p mut Producer<'m, ByteCells<'m>>);

impl Drop for Unfilled<'_, '_> {
    fn drop(&mut self) {
        // Nothing, if they are committed.
        self.0.commit_slots(0);
    }
}

impl<'m> PushRecords for Producer<'m, ByteCells<'m>> {
    fn try_push_iter<'a, I>(&mut self, payloads: &mut Peekable<I>) -> Result<usize, Error>
    where
        I: Iterator<Item = &'a [u8]>,
    {
        let mut done = 0;
        while let Some(len) = payloads.peek().map(|first| first.len()) {
            // What is reserved must be filled: others wait behind it. So reserve what is sure to come.
            let sure = payloads.size_hint().0.max(1);
            let reserved = match self.ensure(len).and_then(|()| self.reserve_some(sure)) {
                Ok(count) => count,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            let run = Unfilled(self);
            let count = run.0.fill(payloads, reserved);
            // An iterator may run any code: it may have forked.
            if !run.0.claimant.alive() {
                return Err(Error::Forked);
            }
            run.0.commit_slots(count);
            done += count as usize;
            if count < reserved {
                break;
            }
        }
        Ok(done)
    }
}

impl<'m> Producer<'m, ByteCells<'m>> {
    /// Writes records into the reserved slots, in order, up to one that is longer than a slot. Returns their number.
    fn fill<'a, I>(&mut self, payloads: &mut Peekable<I>, reserved: u64) -> u64
    where
        I: Iterator<Item = &'a [u8]>,
    {
        let size = self.cells.size();
        self.claimant
            .ask_behind(reserved, size, |index| self.cells.prefetch_to_write(index));
        for count in 0..reserved {
            let fits = |payload: &&[u8]| payload.len() as u64 <= size;
            let Some(payload) = payloads.next_if(fits) else {
                return count;
            };
            if !self.claimant.alive() {
                // The iterator has forked: the slots are the parent's.
                return count;
            }
            let place = self.run.after(count, self.claimant.queue.shape);
            // SAFETY: a place's index is below the number of slots; the slot lies in the reserved run, and the payload is
            // no longer than it.
            let bytes = unsafe { self.cells.bytes_mut(place.index, payload.len()) };
            bytes.copy_from_slice(payload);
            note_length(&self.claimant.queue, place.index, payload.len());
        }
        reserved
    }
}

impl<'m> HoldRecord for Consumer<'m, ByteCells<'m>> {
    fn max_record(&self) -> usize {
        self.cells.size() as usize
    }

    fn hold_record(&mut self) -> Result<usize, Error> {
        self.hold_as(State::Held, 1)?;
        self.note_time();
        self.held_length()
    }

    #[inline]
    unsafe fn held_record<'a>(&self, len: usize) -> &'a [u8] {
        // SAFETY: a place's index is below the number of slots; the slot is held, and not written until released. The
        // length was compared with the size of a slot.
        unsafe { self.cells.content(self.run.first.index, len) }
    }

    #[inline]
    unsafe fn release_record(&mut self, _: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.finish(1) };
    }

    unsafe fn keep_record(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.finish(0) };
    }

    #[inline]
    fn begin_guard(&mut self) {
        self.panic.begin();
    }

    #[inline]
    fn drop_releases(&self) -> bool {
        self.claimant.alive() && self.panic.drop_releases()
    }
}

/// A place is the record's number within the held run.
impl<'m> HoldRecords for Consumer<'m, ByteCells<'m>> {
    fn hold_records(&mut self, max: usize) -> Result<(u64, u64), Error> {
        if max == 0 {
            self.ensure(1)?;
        }
        let count = self.hold_as(State::Held, max)?;
        self.note_time();
        Ok((0, count as u64))
    }

    #[inline]
    fn pass_record(&self, place: &mut u64) -> Result<Option<usize>, Error> {
        if *place >= self.run.count {
            return Ok(None);
        }
        let index = self.index_of(*place);
        *place += 1;
        self.length_at(index).map(Some)
    }

    #[inline]
    unsafe fn record_at<'a>(&self, place: u64, len: usize) -> &'a [u8] {
        // SAFETY: a place's index is below the number of slots; the slot is held, and not written until released. The
        // length was compared with the size of a slot.
        unsafe { self.cells.content(self.index_of(place), len) }
    }

    #[inline]
    unsafe fn finish_records(&mut self, count: u64, _: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.finish(count) };
    }
}

impl<'m> Consumer<'m, ByteCells<'m>> {
    /// Returns the length of the held message. One that no slot holds was written by a stranger: then the message is
    /// released, and the length is `Corrupt`.
    fn held_length(&mut self) -> Result<usize, Error> {
        let length = self.length_at(self.run.first.index);
        if length.is_err() {
            // SAFETY: the message is held, and nobody has a reference to it.
            unsafe { self.finish(1) };
        }
        length
    }

    /// Returns the checked length of the held message in slot `index`.
    #[inline]
    fn length_at(&self, index: u64) -> Result<usize, Error> {
        let note = self.claimant.queue.note(index);
        // Relaxed: the claim has acquired it.
        let found = u64::from(note.length.load(Ordering::Relaxed));
        let expected = self.cells.size();
        if found > expected {
            let word = "length";
            return Err(Error::Corrupt(Corrupt {
                word,
                found,
                expected,
            }));
        }
        Ok(found as usize)
    }

    /// Returns the index of the slot of the held run's record number `place`.
    #[inline]
    fn index_of(&self, place: u64) -> u64 {
        let shape = self.claimant.queue.shape;
        self.run.first.after(place, shape).index
    }

    /// Reads a dead letter in place: see [`hold_letter`](Self::hold_letter).
    pub fn try_read_letter(&mut self) -> Result<Record<'_, Self>, Error> {
        self.hold_letter()?;
        let len = self.held_length()?;
        // SAFETY: held just now.
        Ok(unsafe { Record::of_held(self, len) })
    }
}

impl<'m> Record<'_, Consumer<'m, ByteCells<'m>>> {
    /// Returns the number of times that this message had been delivered before: to consumers that gave it back, or died
    /// with it.
    pub fn deliveries(&self) -> u32 {
        self.consumer.deliveries()
    }

    /// Puts the record aside as a dead letter, however often it was delivered.
    pub fn put_aside(self) {
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: the message is held, and this consumes the guard, which every reference borrows.
        unsafe { guard.consumer.put_held_aside() };
    }
}

impl<'m> Records<'_, Consumer<'m, ByteCells<'m>>> {
    /// Returns the number of times that these records had been delivered before: to consumers that gave them back, or died
    /// with them. A batch has either records for the first time, or a single one that comes again.
    pub fn deliveries(&self) -> u32 {
        self.consumer.deliveries()
    }
}

//! Queues of byte strings: slots of a size that is known when the program runs, and a length for each message.
//!
//! The length lies in the slot's note, in the control part. So nothing that anybody writes into the data part changes
//! more than the bytes of messages.

use core::mem::ManuallyDrop;

use super::consumer::Consumer;
use super::owned::note_length;
use super::producer::Producer;
use super::word::{State, committed};
use crate::error::{Corrupt, Error};
use crate::guard::Reserve;
use crate::mem::{ByteCells, Contents};
use crate::record::{HoldRecord, PushRecord, Record};
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

impl<'m> Consumer<'m, ByteCells<'m>> {
    /// Returns the length of the held message. One that no slot holds was written by a stranger: then the message is
    /// released, and the length is `Corrupt`.
    fn held_length(&mut self) -> Result<usize, Error> {
        let note = self.claimant.queue.note(self.run.first.index);
        // Relaxed: the claim has acquired it.
        let (found, expected) = (
            u64::from(note.length.load(Ordering::Relaxed)),
            self.cells.size(),
        );
        if found > expected {
            // SAFETY: the message is held, and nobody has a reference to it.
            unsafe { self.finish(1) };
            let word = "length";
            return Err(Error::Corrupt(Corrupt {
                word,
                found,
                expected,
            }));
        }
        Ok(found as usize)
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

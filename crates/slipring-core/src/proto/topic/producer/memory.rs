//! The memory of a producer's slots, where it comes and goes.

use super::Producer;
use crate::backing::Backing;
use crate::error::Error;
use crate::layout::{Geometry, Side};
use crate::mem::Form;
use crate::proto::topic::PoolSlot;
use crate::proto::topic::pool::Slots;
use crate::proto::topic::word::Topic;
use crate::sync::AtomicU64;

impl<T: Form + ?Sized> Producer<'_, T> {
    /// Has the slots that came free give back what `trim` asked for; `before` were free already.
    pub(super) fn shed(&mut self, before: usize) {
        let Some(backing) = self.backing else {
            return;
        };
        for place in 0..self.pool.free().saturating_sub(before) {
            let slot = self.pool.next(place);
            if self.pool.note(slot).heavy {
                self.shrink(backing, slot, self.keep);
            }
        }
    }

    /// Makes sure that the next `count` slots have memory for payloads of `need` bytes.
    pub(super) fn back_next(&mut self, count: usize, need: u64) -> Result<(), Error> {
        (0..count).try_for_each(|ahead| self.back(self.pool.next(ahead), need))
    }

    /// Gives back what this producer can do without, since it found no memory: of its slots that hold no message, and of the
    /// pools without a producer. A page with a slot's header stays, so that a small message finds memory.
    #[cold]
    #[inline(never)]
    pub(super) fn reclaim(&mut self) {
        let Some(backing) = self.backing else {
            return;
        };
        let (gating_set, consumers) = (self.gating_set, self.consumers);
        self.pool
            .look_again(usize::MAX, &self.topic, gating_set, consumers);
        let (_, kept) = self.samples.extent(0, 0);
        for place in 0..self.pool.free() {
            self.shrink(backing, self.pool.next(place), kept);
        }
        backing.give_back_vacant();
    }

    /// Makes sure that a slot of the pool has memory for a payload of `need` bytes, and gives back what is beyond.
    fn back(&mut self, slot: usize, need: u64) -> Result<(), Error> {
        let Some(backing) = self.backing else {
            return Ok(());
        };
        let (at, len) = self.samples.extent(self.pool.number(slot), need);
        if self.keep < u64::MAX {
            self.shrink(backing, slot, len.max(self.keep));
        }
        let note = self.pool.note(slot);
        if note.backed < len {
            if let Err(error) = backing.back(at, len) {
                // A part of it may be backed.
                let before = note.backed;
                backing.give_back(at + before, len - before);
                return Err(error);
            }
            note.backed = len;
        }
        Ok(())
    }

    /// Gives back what a slot has beyond its first `kept` bytes. The producer may write the slot.
    fn shrink(&mut self, backing: &dyn Backing, slot: usize, kept: u64) {
        let (at, _) = self.samples.extent(self.pool.number(slot), 0);
        let stride = self.samples.stride();
        let note = self.pool.note(slot);
        // To the slot's end if a predecessor may have backed more.
        let reach = if note.in_doubt { stride } else { note.backed };
        if reach > kept {
            backing.give_back(at + kept, reach - kept);
        }
        note.backed = note.backed.min(kept);
        (note.in_doubt, note.heavy) = (false, false);
    }

    /// Gives memory back: of each slot that no message needs, no more than `keep` bytes stay. Slots with larger messages follow
    /// at the first step after those were overwritten and let go. So do slots that get a larger message later, when they
    /// are used again. The pools of seats without a producer keep only the messages that are needed.
    ///
    /// Does nothing in a forked child, nor where all memory was there from the start.
    pub fn trim(&mut self, keep: u64) {
        let Some(backing) = self.backing.filter(|_| self.limit.alive()) else {
            return;
        };
        self.keep = self.samples.extent(0, keep.min(self.samples.size())).1;
        let (gating_set, consumers) = (self.gating_set, self.consumers);
        self.pool
            .look_again(usize::MAX, &self.topic, gating_set, consumers);
        for place in 0..self.pool.free() {
            self.shrink(backing, self.pool.next(place), self.keep);
        }
        // Those that are free have shed it already.
        self.pool.mark_heavy(self.keep);
        self.note_free(0);
        backing.give_back_vacant();
    }
}

/// Gives back the memory of a pool without a producer, or whose producer leaves: of the slots that no entry names and no
/// consumer has pinned.
///
/// It writes no word, so it may be cut short anywhere, and done again. `notes` has a note for each slot of the pool.
///
/// # Safety
/// The caller is the producer in seat `seat`, which publishes nothing more, or holds that seat's locks.
pub unsafe fn vacate(
    topic: &Topic<'_>,
    geometry: &Geometry,
    seat: u64,
    notes: &mut [PoolSlot],
    gating_set: &AtomicU64,
    consumers: Side<'_>,
    backing: &dyn Backing,
) {
    let (first, stride) = (seat * notes.len() as u64, geometry.stride());
    // Only an order in which to look. If the words are impossible, any will do.
    let newest = topic.newest().unwrap_or(0);
    let slots = Slots::new(notes, first, topic, newest, stride, gating_set, consumers);
    give_back_fresh(&slots, stride, backing);
}

/// Gives back the memory of a pool's fresh slots.
pub(super) fn give_back_fresh(slots: &Slots<'_>, stride: u64, backing: &dyn Backing) {
    for (first, count) in slots.fresh_runs() {
        backing.give_back(first * stride, count * stride);
    }
}

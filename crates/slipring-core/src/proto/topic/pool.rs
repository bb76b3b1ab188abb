//! A producer's slots: which of them it may write.

use super::word::Topic;
use crate::layout::{BATCH, Side};
use crate::sync::{AtomicU64, Ordering, fence};

/// A producer's note of one slot, and of one place in each of its lists. For the producer alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolSlot {
    /// The number of the message that the slot holds in the ring, plus 1; 0 if the ring does not name it.
    sequence: u64,
    /// The bytes of the slot that are known to be backed by memory.
    pub(super) backed: u64,
    /// `true` if more than that may be backed, by a predecessor.
    pub(super) in_doubt: bool,
    /// `true` if the slot is to give back memory once it is free.
    pub(super) heavy: bool,
    /// `true` if the slot was named or pinned when the pool was taken over, so that a list has it.
    listed: bool,
    /// The lists, a place of each.
    free: u16,
    named: u16,
    waiting: u16,
    /// The last look at the pins that found one on the slot.
    pinned: u32,
}

/// The slots of one producer, in four states.
///
/// - *Named*: the ring names the slot. In the order of the messages.
/// - *Waiting*: its message was displaced, but there was a pin on it at the last look.
/// - *Free*: it may be written.
/// - *Fresh*: this producer has not used it. It held nothing when the pool was taken over: no entry named it, and no consumer
///   had pinned it. So it may be written.
pub(super) struct Slots<'m> {
    slots: &'m mut [PoolSlot],
    /// The number of the pool's first slot among all slots of the topic.
    first: u64,
    free: usize,
    named_from: usize,
    named: usize,
    waiting: usize,
    /// All slots before this one have been used. Of the others, those that are not listed are fresh.
    fresh: usize,
    /// The number of named slots that are to give back memory once they are free.
    heavy: usize,
    /// The number of slots to find free at a look.
    batch: usize,
    /// The number of this look at the pins. (It wraps: a slot may then be taken for a pinned one.)
    scan: u32,
}

impl<'m> Slots<'m> {
    /// Takes over a pool, whose first slot has the number `first` among all: finds the slots that the ring names, and those
    /// that are pinned. `newest` messages are published.
    pub(super) fn new(
        slots: &'m mut [PoolSlot],
        first: u64,
        topic: &Topic<'_>,
        newest: u64,
        stride: u64,
        gating_set: &AtomicU64,
        consumers: Side<'_>,
    ) -> Slots<'m> {
        // One look at the pins costs about as much as writing a kilobyte.
        let batch = match stride {
            0..=1280 => BATCH,
            1281..=73_728 => 16,
            _ => 4,
        };
        slots.fill(PoolSlot::default());
        let mut pool = Slots {
            slots,
            first,
            free: 0,
            named_from: 0,
            named: 0,
            waiting: 0,
            fresh: 0,
            heavy: 0,
            batch: batch as usize,
            scan: 0,
        };
        for (index, entry) in topic.entries(newest) {
            let slot = entry.slot(u64::MAX).ok();
            let mine = slot.and_then(|slot| slot.checked_sub(first));
            if let (Some(mine), Some(sequence)) = (mine, topic.sequence(index, entry)) {
                pool.found(mine as usize, sequence.saturating_add(1));
            }
        }
        // After the entries: what they did not name was displaced before this scan.
        pool.mark(gating_set, consumers);
        for slot in 0..pool.slots.len() {
            let note = &mut pool.slots[slot];
            let pinned = note.pinned == pool.scan;
            note.in_doubt = note.listed || pinned;
            if pinned && !note.listed {
                note.listed = true;
                pool.add_waiting(slot as u16);
            }
        }
        pool
    }

    /// Returns the runs of fresh slots: each as the number of its first slot among all, and its length. Nobody reads them, and
    /// only the holder of this pool's seat can publish them.
    pub(super) fn fresh_runs(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut from = self.fresh;
        core::iter::from_fn(move || {
            let fresh = |slot: &usize| !self.slots[*slot].listed;
            let start = (from..self.slots.len()).find(fresh)?;
            let end = (start..self.slots.len()).find(|slot| !fresh(slot));
            from = end.unwrap_or(self.slots.len());
            Some((self.number(start), (from - start) as u64))
        })
    }

    /// Lists a slot that the ring names, if it is of this pool, in the order of the messages.
    fn found(&mut self, slot: usize, sequence: u64) {
        let Some(note) = self.slots.get_mut(slot) else {
            return;
        };
        let repeated = note.sequence != 0;
        note.listed = true;
        note.sequence = note.sequence.max(sequence);
        // A repeated name is a stranger's work: the later message wins.
        if repeated {
            return;
        }
        // They come in this order, unless a stranger wrote them.
        let mut place = self.named;
        while place > 0 {
            let before = self.slots[place - 1].named;
            if self.slots[before as usize].sequence <= sequence {
                break;
            }
            self.slots[place].named = before;
            place -= 1;
        }
        self.slots[place].named = slot as u16;
        self.named += 1;
    }

    /// Returns the number of slots.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of free slots.
    #[inline]
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Returns the free slot that would be used `ahead` slots later, by its number in the pool.
    ///
    /// `ahead` is below the number of free slots.
    #[inline]
    pub(super) fn next(&self, ahead: usize) -> usize {
        self.slots[self.free - 1 - ahead].free as usize
    }

    /// Returns `true` if the slot with this number among all is of another pool.
    #[inline]
    pub(super) fn is_foreign(&self, slot: u64) -> bool {
        slot.wrapping_sub(self.first) >= self.slots.len() as u64
    }

    /// Returns the number of this slot of the pool among all slots.
    #[inline]
    pub(super) fn number(&self, slot: usize) -> u64 {
        self.first + slot as u64
    }

    /// Marks the slots that have more than `keep` bytes, or may have, and hold messages: they are to give back the rest once
    /// they are free.
    pub(super) fn mark_heavy(&mut self, keep: u64) {
        self.heavy = 0;
        for note in &mut *self.slots {
            note.heavy = note.in_doubt || note.backed > keep;
            self.heavy += usize::from(note.heavy && note.sequence != 0);
        }
    }

    /// Returns `true` if a slot that is to give back memory has a message that the ring names.
    #[inline]
    pub(super) fn has_heavy(&self) -> bool {
        self.heavy > 0
    }

    #[inline]
    pub(super) fn note(&mut self, slot: usize) -> &mut PoolSlot {
        &mut self.slots[slot]
    }

    /// Returns the place of the named slots' list that this is, at most once around. A division would take a third of the
    /// time of a whole push.
    #[inline]
    fn around(&self, place: usize) -> usize {
        match place < self.slots.len() {
            true => place,
            false => place - self.slots.len(),
        }
    }

    /// Takes the next free slot out of the list: it now holds message `sequence`.
    #[inline]
    pub(super) fn publish(&mut self, sequence: u64) {
        self.free -= 1;
        let slot = self.slots[self.free].free;
        self.slots[slot as usize].sequence = sequence + 1;
        let place = self.around(self.named_from + self.named);
        self.slots[place].named = slot;
        self.named += 1;
    }

    /// Looks for free slots: at least `wanted`, if there are.
    #[cold]
    #[inline(never)]
    pub(super) fn refill(
        &mut self,
        wanted: usize,
        topic: &Topic<'_>,
        gating_set: &AtomicU64,
        consumers: Side<'_>,
    ) {
        let wanted = wanted.max(self.batch).min(self.slots.len());
        // All of them, while some are to give back memory.
        let most = if self.has_heavy() { usize::MAX } else { wanted };
        self.look_again(most, topic, gating_set, consumers);
        while self.free < wanted && self.fresh < self.slots.len() {
            let slot = self.fresh;
            self.fresh += 1;
            if !self.slots[slot].listed {
                self.add_free(slot as u16);
            }
        }
    }

    /// Finds out which slots have been displaced, and frees up to `wanted` of those without a pin.
    pub(super) fn look_again(
        &mut self,
        wanted: usize,
        topic: &Topic<'_>,
        gating_set: &AtomicU64,
        consumers: Side<'_>,
    ) {
        self.displace(topic);
        self.mark(gating_set, consumers);
        self.free_waiting(wanted);
    }

    /// Takes the slots out of the named ones whose messages were displaced.
    ///
    /// By the entries themselves: a wrong head cannot make a slot free that a reader may still find.
    fn displace(&mut self, topic: &Topic<'_>) {
        while self.named > 0 {
            let slot = self.slots[self.named_from].named;
            let sequence = self.slots[slot as usize].sequence;
            // `sequence` is the message's number, plus 1.
            if topic.names(sequence.saturating_sub(1), self.first + u64::from(slot)) {
                return;
            }
            let note = &mut self.slots[slot as usize];
            note.sequence = 0;
            self.heavy -= usize::from(note.heavy);
            self.named_from = self.around(self.named_from + 1);
            self.named -= 1;
            self.add_waiting(slot);
        }
    }

    fn add_waiting(&mut self, slot: u16) {
        self.slots[self.waiting].waiting = slot;
        self.waiting += 1;
    }

    fn add_free(&mut self, slot: u16) {
        self.slots[self.free].free = slot;
        self.free += 1;
    }

    /// Moves up to `wanted` slots without a pin from the waiting to the free ones.
    fn free_waiting(&mut self, wanted: usize) {
        let mut kept = 0;
        for place in 0..self.waiting {
            let slot = self.slots[place].waiting;
            if self.free < wanted && self.slots[slot as usize].pinned != self.scan {
                self.add_free(slot);
            } else {
                self.slots[kept].waiting = slot;
                kept += 1;
            }
        }
        self.waiting = kept;
    }

    /// Marks the slots of this pool that are pinned: a scan. Slots without a mark may be written if their messages were
    /// displaced before.
    fn mark(&mut self, gating_set: &AtomicU64, consumers: Side<'_>) {
        // SeqCst: pairs with the fence behind a consumer's pin; see *why a pinned message stays*.
        fence(Ordering::SeqCst);
        self.scan = self.scan.wrapping_add(1);
        // Acquire: pairs with the release of a consumer that leaves, whose reads come before our writes.
        let members = gating_set.load(Ordering::Acquire);
        let seats = consumers.seats().iter().enumerate();
        for (_, seat) in seats.filter(|(seat, _)| members & 1 << seat != 0) {
            let words = seat.pins.map_or(&[][..], |pins| &pins.words[..]);
            for word in words {
                // Acquire: pairs with the release of an unpin, whose reads come before our writes.
                let mut pins = word.load(Ordering::Acquire);
                while pins != 0 {
                    let pinned = (pins & 0xffff).checked_sub(1 + self.first);
                    pins >>= 16;
                    let mine = pinned.map(|slot| slot as usize);
                    if let Some(note) = mine.and_then(|slot| self.slots.get_mut(slot)) {
                        note.pinned = self.scan;
                    }
                }
            }
        }
    }
}

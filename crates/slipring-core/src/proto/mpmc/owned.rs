//! Guards that have left their end's hands: several of one end at once, finished with on any thread and in any order.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use super::claimant::{Claimant, Side};
use super::recovery::Run;
use super::word::{Queue, committed, returned};
use crate::cached_limit::CachedLimit;
use crate::guard::PanicMark;
use crate::mem::{ByteCells, Cells, Contents};
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

/// The parts of an end that a guard of its own needs.
struct Hands<'m> {
    queue: Queue<'m>,
    limit: &'m CachedLimit,
    /// The number of guards such as this one.
    handed_out: &'m AtomicU64,
    /// Wakes the other side. It fences at each call: the end may be at work on another thread, and what it acknowledges
    /// to waiters holds for that thread alone.
    notifier: Notifier<'m>,
    /// Wakes the end's own side.
    fellows: Notifier<'m>,
}

impl<'m> Hands<'m> {
    fn of<S: Side>(claimant: &Claimant<'m, S>) -> Hands<'m> {
        // Relaxed: the end itself reads it.
        claimant.handed_out.fetch_add(1, Ordering::Relaxed);
        Hands {
            queue: claimant.queue,
            handed_out: claimant.handed_out,
            limit: claimant.limit(),
            notifier: claimant.notifier.fencing(),
            fellows: claimant.fellows.fencing(),
        }
    }

    /// Tells the end that this guard is finished with, and wakes whoever may wait for that.
    fn done(&self, messages: u64) {
        // Release: pairs with the acquire of an end that looks for the end of the stream; the words come before.
        self.handed_out.fetch_sub(1, Ordering::Release);
        self.notifier.ring_for(messages.max(1));
        self.fellows.ring();
    }
}

/// Slots that a producer has reserved, out of its hands.
///
/// Dropping them discards them, as does a kill.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct OwnedReservation<'m, C> {
    run: Run,
    hands: Hands<'m>,
    cells: C,
}

impl<C> fmt::Debug for OwnedReservation<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedReservation")
            .field("len", &self.run.count)
            .finish_non_exhaustive()
    }
}

impl<'m, C> OwnedReservation<'m, C> {
    pub(super) fn new<S: Side>(
        run: Run,
        claimant: &Claimant<'m, S>,
        cells: C,
    ) -> OwnedReservation<'m, C> {
        let hands = Hands::of(claimant);
        OwnedReservation { run, hands, cells }
    }

    /// Returns how many slots are reserved.
    pub fn len(&self) -> usize {
        self.run.count as usize
    }

    /// Returns `true` if no slot is reserved.
    pub fn is_empty(&self) -> bool {
        self.run.count == 0
    }

    /// Gives up the whole reservation, as dropping it does.
    pub fn discard(self) {}

    fn finish(&mut self, amount: u64) {
        if !self.hands.limit.alive() {
            return;
        }
        let queue = &self.hands.queue;
        let discarded = |lap| queue.shape.next_free(lap);
        self.run.finish(queue, amount, committed, discarded);
        self.hands.done(amount);
    }
}

impl<'m, T: Copy> OwnedReservation<'m, Cells<'m, T>> {
    /// Returns the reserved slots, in order: up to the last slot, and from the first.
    ///
    /// They still hold an earlier message's bytes.
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        // SAFETY: the run is reserved, its place's index is below the number of slots, and `&mut self` borrows it once.
        unsafe { self.cells.slices_mut(self.run.first.index, self.len()) }
    }

    /// Stores `value` in the reserved slot `index`. A forked child must not call this: the slot belongs to the parent.
    ///
    /// # Panics
    /// If `index` is not below `len`, as for a slice.
    pub fn write(&mut self, index: usize, value: T) {
        let len = self.len();
        assert!(index < len, "slot {index} of a reservation of {len}");
        let place = self.run.first.after(index as u64, self.hands.queue.shape);
        // SAFETY: a place's index is below the number of slots; the slot lies in the reserved run.
        unsafe { self.cells.write(place.index, &value) };
    }

    /// Publishes the first `amount` slots at once, and gives up the rest. Does nothing in a forked child.
    ///
    /// # Panics
    /// If `amount` is more than was reserved, as for a slice.
    pub fn commit(self, amount: usize) {
        let len = self.len();
        // The panic drops the guard, which discards it.
        assert!(
            amount <= len,
            "commit of {amount} of a reservation of {len}"
        );
        ManuallyDrop::new(self).finish(amount as u64);
    }
}

impl<'m> OwnedReservation<'m, ByteCells<'m>> {
    /// Returns the first `len` bytes of the reserved slot, for writing; at most the slot's size. They still hold an earlier
    /// message's bytes.
    pub fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.cells.size() as usize);
        // SAFETY: the slot is reserved, its place's index is below the number of slots, and `&mut self` borrows it once.
        unsafe { self.cells.bytes_mut(self.run.first.index, len) }
    }

    /// Returns the first `len` bytes of the reserved slot, as [`bytes_mut`](Self::bytes_mut) does.
    pub fn bytes(&self, len: usize) -> &[u8] {
        let len = len.min(self.cells.size() as usize);
        // SAFETY: as above, and `&self` keeps writers away.
        unsafe { self.cells.content(self.run.first.index, len) }
    }

    /// Publishes the first `len` bytes of the slot, at most its size. Does nothing in a forked child.
    pub fn commit_bytes(self, len: usize) {
        let mut guard = ManuallyDrop::new(self);
        if guard.run.count > 0 && guard.hands.limit.alive() {
            let len = len.min(guard.cells.size() as usize);
            note_length(&guard.hands.queue, guard.run.first.index, len);
        }
        guard.finish(1);
    }
}

impl<C> Drop for OwnedReservation<'_, C> {
    fn drop(&mut self) {
        self.finish(0);
    }
}

/// A message that a consumer reads in place, out of its hands.
///
/// Dropping it releases it, [`keep`](Self::keep) gives it back. With the feature `std`, so does a drop by a panic that
/// began after the read. A kill does as for any message.
pub struct OwnedMessage<'m, C> {
    run: Run,
    hands: Hands<'m>,
    cells: C,
    /// The length of a byte string.
    len: usize,
    deliveries: u32,
    panic: PanicMark,
}

impl<C: Contents<Content: fmt::Debug>> fmt::Debug for OwnedMessage<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedMessage")
            .field("message", &&**self)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

impl<'m, C> OwnedMessage<'m, C> {
    pub(super) fn new<S: Side>(
        run: Run,
        claimant: &Claimant<'m, S>,
        cells: C,
        len: usize,
        deliveries: u32,
    ) -> OwnedMessage<'m, C> {
        let mut panic = PanicMark::default();
        panic.begin();
        OwnedMessage {
            run,
            hands: Hands::of(claimant),
            cells,
            len,
            deliveries,
            panic,
        }
    }

    /// Returns the number of times that this message had been delivered before.
    pub fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// Releases the message, as dropping it does, but also while panicking.
    pub fn release(self) {
        ManuallyDrop::new(self).finish(true);
    }

    /// Gives the message back: any consumer may take it again.
    pub fn keep(self) {
        ManuallyDrop::new(self).finish(false);
    }

    fn finish(&mut self, release: bool) {
        if !self.hands.limit.alive() {
            return;
        }
        let queue = &self.hands.queue;
        if release {
            forget_deliveries(queue, self.run.first.index, self.deliveries);
        }
        let released = |lap| queue.shape.next_free(lap);
        self.run
            .finish(queue, u64::from(release), released, returned);
        if !release {
            announce_returns(queue);
        }
        self.hands.done(1);
    }
}

impl<C: Contents> Deref for OwnedMessage<'_, C> {
    type Target = C::Content;

    fn deref(&self) -> &C::Content {
        // SAFETY: a place's index is below the number of slots; the slot is held, and not written until released. The
        // length was checked when it was held.
        unsafe { self.cells.content(self.run.first.index, self.len) }
    }
}

impl<C> Drop for OwnedMessage<'_, C> {
    fn drop(&mut self) {
        let release = self.panic.drop_releases();
        self.finish(release);
    }
}

/// Clears the note of a message that had been delivered `deliveries` times before, and is about to be released.
#[inline]
pub(super) fn forget_deliveries(queue: &Queue<'_>, index: u64, deliveries: u32) {
    if deliveries > 0 {
        // Relaxed: the word comes after.
        queue.note(index).again.store(0, Ordering::Relaxed);
    }
}

/// Tells the consumers that messages were given back.
pub(super) fn announce_returns(queue: &Queue<'_>) {
    // Release: pairs with the acquire of a look; the words come before.
    queue.claims.returns.fetch_add(1, Ordering::Release);
}

/// Notes the length of a byte string whose slot is about to be committed.
#[inline]
pub(super) fn note_length(queue: &Queue<'_>, index: u64, len: usize) {
    // Relaxed: the word comes after. (A slot's size fits 32 bits.)
    queue
        .note(index)
        .length
        .store(len as u32, Ordering::Relaxed);
}

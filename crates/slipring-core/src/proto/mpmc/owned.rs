//! Guards that have left their end's hands: several of one end at once, finished with on any thread and in any order.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use super::claimant::{Claimant, Side};
use super::recovery::Run;
use super::word::{Queue, committed, returned};
use crate::cached_limit::CachedLimit;
use crate::guard::PanicMark;
use crate::mem::Cells;
use crate::sync::Ordering;
use crate::wait::Notifier;

/// What a guard of its own needs of its end.
struct Hands<'m> {
    queue: Queue<'m>,
    limit: &'m CachedLimit,
    /// Wakes the other side. It fences at each call: the end may be at work on another thread, and what it acknowledges
    /// to waiters holds for that thread alone.
    notifier: Notifier<'m>,
    /// Wakes the end's own side.
    fellows: Notifier<'m>,
}

impl<'m> Hands<'m> {
    fn of<S: Side>(claimant: &Claimant<'m, S>) -> Hands<'m> {
        Hands {
            queue: claimant.queue,
            limit: claimant.limit(),
            notifier: claimant.notifier.fencing(),
            fellows: claimant.fellows.fencing(),
        }
    }

    fn wake(&self, messages: u64) {
        self.notifier.ring_for(messages.max(1));
        self.fellows.ring();
    }
}

/// Slots that a producer has reserved, out of its hands.
///
/// Dropping them discards them, as does a kill.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct OwnedReservation<'m, T> {
    run: Run,
    hands: Hands<'m>,
    cells: Cells<'m, T>,
}

impl<T> fmt::Debug for OwnedReservation<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedReservation")
            .field("len", &self.run.count)
            .finish_non_exhaustive()
    }
}

impl<'m, T> OwnedReservation<'m, T> {
    pub(super) fn new<S: Side>(
        run: Run,
        claimant: &Claimant<'m, S>,
        cells: Cells<'m, T>,
    ) -> OwnedReservation<'m, T> {
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
    pub fn write(&mut self, index: usize, value: T)
    where
        T: Copy,
    {
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
        let (len, mut guard) = (self.len(), ManuallyDrop::new(self));
        if amount > len {
            guard.finish(0);
            panic!("commit of {amount} of a reservation of {len}");
        }
        guard.finish(amount as u64);
    }

    /// Gives up the whole reservation, as dropping it does.
    pub fn discard(self) {}

    fn finish(&mut self, amount: u64) {
        if self.run.count == 0 || !self.hands.limit.alive() {
            return;
        }
        let queue = &self.hands.queue;
        let discarded = |lap| queue.shape.next_free(lap);
        self.run.finish(queue, amount, committed, discarded);
        self.hands.wake(amount);
    }
}

impl<T> Drop for OwnedReservation<'_, T> {
    fn drop(&mut self) {
        self.finish(0);
    }
}

/// A message that a consumer reads in place, out of its hands.
///
/// Dropping it releases it, [`keep`](Self::keep) gives it back. With the feature `std`, so does a drop by a panic that
/// began after the read. A kill does as for any message.
pub struct OwnedMessage<'m, T> {
    run: Run,
    hands: Hands<'m>,
    cells: Cells<'m, T>,
    deliveries: u32,
    panic: PanicMark,
}

impl<T: fmt::Debug> fmt::Debug for OwnedMessage<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedMessage")
            .field("message", &**self)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

impl<'m, T> OwnedMessage<'m, T> {
    pub(super) fn new<S: Side>(
        run: Run,
        claimant: &Claimant<'m, S>,
        cells: Cells<'m, T>,
        deliveries: u32,
    ) -> OwnedMessage<'m, T> {
        let mut panic = PanicMark::default();
        panic.begin();
        OwnedMessage {
            run,
            hands: Hands::of(claimant),
            cells,
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
        self.hands.wake(1);
    }
}

impl<T> Deref for OwnedMessage<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a place's index is below the number of slots; the slot is held, and not written until released.
        unsafe { self.cells.get(self.run.first.index) }
    }
}

impl<T> Drop for OwnedMessage<'_, T> {
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

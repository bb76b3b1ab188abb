//! A message of a topic that has left its consumer's hands: several at once, let go in any order, on any thread.

use core::fmt;
use core::ops::Deref;

use super::Origin;
use crate::cached_limit::CachedLimit;
use crate::layout::Pins;
use crate::mem::{Form, Samples};
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

/// A slot with a message that a pin keeps.
#[derive(Clone, Copy)]
pub(super) struct Pinned {
    pub(super) slot: u64,
    pub(super) sequence: u64,
    pub(super) len: usize,
}

/// A message that a pin keeps, out of its consumer's hands. It stays as it is until this is dropped.
pub struct OwnedSample<'m, T: ?Sized> {
    pub(super) samples: Samples<'m, T>,
    pub(super) pinned: Pinned,
    /// The pin: its word, and its place there.
    pub(super) pin: (usize, u32),
    pub(super) pins: &'m Pins,
    pub(super) limit: &'m CachedLimit,
    pub(super) handed_out: &'m AtomicU64,
    /// It fences at each call: the consumer may be at work on another thread.
    pub(super) notifier: Notifier<'m>,
}

impl<T: Form + ?Sized> OwnedSample<'_, T> {
    /// Returns the message's number and origin.
    pub fn origin(&self) -> Origin {
        origin_of(&self.samples, self.pinned)
    }
}

impl<T: ?Sized> fmt::Debug for OwnedSample<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedSample")
            .field("sequence", &self.pinned.sequence)
            .field("len", &self.pinned.len)
            .finish_non_exhaustive()
    }
}

impl<T: Form + ?Sized> Deref for OwnedSample<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: pinned: its number and its length were checked, and no producer writes it until the pin is gone.
        unsafe { self.samples.content(self.pinned.slot, self.pinned.len) }
    }
}

impl<T: ?Sized> Drop for OwnedSample<'_, T> {
    fn drop(&mut self) {
        // A forked child has a copy; the pin is its parent's.
        if !self.limit.alive() {
            return;
        }
        let (word, shift) = self.pin;
        // Release: pairs with the acquire of a producer's scan; what was read comes before.
        self.pins.words[word].fetch_and(!(0xffff << shift), Ordering::Release);
        // Relaxed: for tools.
        self.handed_out.fetch_sub(1, Ordering::Relaxed);
        self.notifier.ring();
    }
}

/// Returns the number and the origin of a pinned message.
pub(super) fn origin_of<T: ?Sized>(samples: &Samples<'_, T>, pinned: Pinned) -> Origin {
    // SAFETY: a pinned slot's number was checked.
    let header = unsafe { samples.header(pinned.slot) };
    // Relaxed: the look has acquired the entry.
    Origin {
        sequence: pinned.sequence,
        publisher: header.publisher.load(Ordering::Relaxed),
        time: header.time.load(Ordering::Relaxed),
    }
}

//! A message that a consumer of a topic reads in place: the guard of one that is read out of order, and what the guards of all
//! tell.

use core::fmt;
use core::ops::Deref;

use super::Origin;
use super::consumer::Consumer;
use crate::error::Error;
use crate::guard::Message;
use crate::mem::Form;
use crate::record::Record;

/// A message of a topic that its consumer reads in place, whatever it has read in order.
///
/// It stays as it is until this is dropped.
pub struct Sample<'c, 'm, T: Form + ?Sized> {
    consumer: &'c mut Consumer<'m, T>,
}

impl<'c, 'm, T: Form + ?Sized> Sample<'c, 'm, T> {
    /// Reads the message `back` before the newest: see [`Consumer::hold_latest`].
    #[inline]
    pub fn latest(consumer: &'c mut Consumer<'m, T>, back: u64) -> Result<Self, Error> {
        consumer.hold_latest(back)?;
        Ok(Sample { consumer })
    }

    /// Returns the message's number and origin.
    pub fn origin(&self) -> Origin {
        self.consumer.origin()
    }
}

impl<T: Form + ?Sized> fmt::Debug for Sample<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample")
            .field("origin", &self.origin())
            .finish_non_exhaustive()
    }
}

impl<T: Form + ?Sized> Deref for Sample<'_, '_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        let (slot, len) = self.consumer.held_slot();
        // SAFETY: this guard has pinned that slot, and nothing else is held until it is dropped.
        unsafe { self.consumer.samples.content(slot, len) }
    }
}

impl<T: Form + ?Sized> Drop for Sample<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        self.consumer.finish(false);
    }
}

impl<T: Copy> Message<'_, Consumer<'_, T>> {
    /// Returns the message's number and origin.
    pub fn origin(&self) -> Origin {
        self.0.consumer.origin()
    }
}

impl Record<'_, Consumer<'_, [u8]>> {
    /// Returns the record's number and origin.
    pub fn origin(&self) -> Origin {
        self.consumer.origin()
    }
}

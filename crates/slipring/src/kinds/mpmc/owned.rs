//! Messages and reservations that leave their handle's hands: several at once, finished with in any order, on any thread.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::guard::{Hold, Reserve};
use slipring_core::mem::Cells;
use slipring_core::proto::mpmc as proto;

use super::{Consumer, Producer};
use crate::error::Error;
use crate::payload::Payload;
use crate::seat::Seat;
use crate::wait::Until;

/// A message of an `mpmc` channel that a consumer reads in place, out of the consumer's hands.
///
/// A consumer may have handed out several. Each may go to another thread or task, and they are finished with in any
/// order. Dropping the message releases it; [`keep`](Self::keep) gives it back, and so does a drop by a panic that began
/// after the read. A kill does as for any message.
///
/// The consumer's seat stays held until the consumer and all of its messages are dropped. While one is out, the consumer is
/// told no end: it may come back.
///
/// ```
/// let (mut tx, mut rx) = slipring::mpmc::channel::<u64>(8)?;
/// tx.push_slice(&[1, 2])?;
/// let (first, second) = (rx.read_owned()?, rx.read_owned()?);
/// std::thread::spawn(move || drop(second)).join().unwrap(); // before the first
/// first.keep();                                             // to be taken again
/// assert_eq!(rx.pop()?, 1);
/// # Ok::<(), slipring::SetupError>(())
/// ```
pub struct OwnedMessage<T: Payload> {
    // Dropped in this order: the core's guard points into memory that the seat keeps alive.
    core: proto::OwnedMessage<'static, Cells<'static, T>>,
    _seat: Arc<Seat>,
}

impl<T: Payload + fmt::Debug> fmt::Debug for OwnedMessage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl<T: Payload> OwnedMessage<T> {
    /// Returns the number of times that this message had been delivered before: to consumers that gave it back, or died
    /// with it.
    pub fn deliveries(&self) -> u32 {
        self.core.deliveries()
    }

    /// Releases the message, as dropping it does, but also while panicking.
    pub fn release(self) {
        self.core.release();
    }

    /// Gives the message back: any consumer may take it again.
    pub fn keep(self) {
        self.core.keep();
    }
}

impl<T: Payload> Deref for OwnedMessage<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.core
    }
}

/// Slots of an `mpmc` channel that a producer has reserved, out of the producer's hands.
///
/// A producer may have handed out several, which are committed in any order, on any thread. Consumers take messages in
/// the order of reservation: what is reserved and not committed holds up all that was reserved after it.
///
/// The producer's seat stays held until the producer and all of its reservations are dropped.
///
/// ```
/// let (mut tx, mut rx) = slipring::mpmc::channel::<u64>(8)?;
/// let (mut first, mut second) = (tx.reserve_owned(1)?, tx.reserve_owned(1)?);
/// second.write(0, 2);
/// second.commit(1);
/// assert!(rx.try_pop().is_err()); // the first comes before it
/// first.write(0, 1);
/// first.commit(1);
/// assert_eq!((rx.pop()?, rx.pop()?), (1, 2));
/// # Ok::<(), slipring::SetupError>(())
/// ```
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct OwnedReservation<T: Payload> {
    // Dropped in this order: as in `OwnedMessage`.
    core: proto::OwnedReservation<'static, Cells<'static, T>>,
    _seat: Arc<Seat>,
}

impl<T: Payload> fmt::Debug for OwnedReservation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl<T: Payload> OwnedReservation<T> {
    /// Returns how many slots are reserved.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Returns `true` if no slot is reserved.
    pub fn is_empty(&self) -> bool {
        self.core.is_empty()
    }

    /// Stores `value` in the reserved slot `index`. A forked child must not call this: the slot belongs to the parent.
    ///
    /// # Panics
    /// If `index` is not below `len`, as for a slice.
    pub fn write(&mut self, index: usize, value: T) {
        self.core.write(index, value);
    }

    /// Returns the reserved slots, in order: up to the last slot, and from the first.
    ///
    /// They still hold an earlier message's bytes.
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        self.core.as_mut_slices()
    }

    /// Publishes the first `amount` slots at once, and gives up the rest. Does nothing in a forked child.
    ///
    /// # Panics
    /// If `amount` is more than was reserved, as for a slice.
    pub fn commit(self, amount: usize) {
        self.core.commit(amount);
    }

    /// Gives up the whole reservation, as dropping it does.
    pub fn discard(self) {}
}

impl<T: Payload> Producer<T> {
    /// Reserves `amount` slots like [`try_reserve`](Self::try_reserve), as a guard that leaves the producer's hands.
    pub fn try_reserve_owned(&mut self, amount: usize) -> Result<OwnedReservation<T>, Error> {
        self.end.core.claim(amount)?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out() })
    }

    /// Like [`try_reserve_owned`](Self::try_reserve_owned), waiting for room.
    pub fn reserve_owned(&mut self, amount: usize) -> Result<OwnedReservation<T>, Error> {
        self.claim_until(amount, Until::Forever)?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out() })
    }

    /// Like [`reserve_owned`](Self::reserve_owned), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn reserve_owned_timeout(
        &mut self,
        amount: usize,
        timeout: Duration,
    ) -> Result<OwnedReservation<T>, Error> {
        self.claim_until(amount, Until::For(timeout))?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out() })
    }

    /// Like [`reserve_owned`](Self::reserve_owned), as a future: see [`push_async`](Self::push_async).
    pub async fn reserve_owned_async(
        &mut self,
        amount: usize,
    ) -> Result<OwnedReservation<T>, Error> {
        self.claim_async(amount).await?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out() })
    }

    /// # Safety
    /// A claim succeeded, and nothing was committed since.
    unsafe fn hand_out(&mut self) -> OwnedReservation<T> {
        OwnedReservation {
            // SAFETY: the caller's promise. The share of the seat is dropped after the guard, and keeps the memory.
            core: unsafe { self.end.core.detach_claimed() },
            _seat: self.end.seat.share(),
        }
    }
}

impl<T: Payload> Consumer<T> {
    /// Reads the oldest message in place like [`try_read`](Self::try_read), as a guard that leaves the consumer's hands.
    pub fn try_read_owned(&mut self) -> Result<OwnedMessage<T>, Error> {
        self.end.core.hold(1)?;
        // SAFETY: the line above.
        Ok(unsafe { self.hand_out() })
    }

    /// Like [`try_read_owned`](Self::try_read_owned), waiting for a message.
    pub fn read_owned(&mut self) -> Result<OwnedMessage<T>, Error> {
        self.hold_until(1, Until::Forever)?;
        // SAFETY: the line above.
        Ok(unsafe { self.hand_out() })
    }

    /// Like [`read_owned`](Self::read_owned), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn read_owned_timeout(&mut self, timeout: Duration) -> Result<OwnedMessage<T>, Error> {
        self.hold_until(1, Until::For(timeout))?;
        // SAFETY: the line above.
        Ok(unsafe { self.hand_out() })
    }

    /// Like [`read_owned`](Self::read_owned), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_owned_async(&mut self) -> Result<OwnedMessage<T>, Error> {
        self.hold_async(1).await?;
        // SAFETY: the line above.
        Ok(unsafe { self.hand_out() })
    }

    /// # Safety
    /// `hold(1)` succeeded, and nothing was released since.
    unsafe fn hand_out(&mut self) -> OwnedMessage<T> {
        OwnedMessage {
            // SAFETY: the caller's promise. The share of the seat is dropped after the guard, and keeps the memory.
            core: unsafe { self.end.core.detach_held(0) },
            _seat: self.end.seat.share(),
        }
    }
}

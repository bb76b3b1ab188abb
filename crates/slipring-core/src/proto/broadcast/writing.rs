//! Implements the producer of a `broadcast` channel. See the head of `broadcast.rs`.

use core::fmt;

use super::mode::Store as _;
use super::{Mode, Ring, Waiting, block};
use crate::cached_limit::CachedLimit;
use crate::end::{Endpoint, Poll, Push, sealed::Sealed};
use crate::error::{End, Error};
use crate::gate::{Gate, Words};
use crate::guard::{self, Reserve};
use crate::payload::Payload;
use crate::seat::Peer;

/// The writing end.
pub struct Producer<'m, T: Payload, M: Mode = Waiting> {
    gate: Gate<'m>,
    slots: M::Slots<'m, T>,
}

impl<T: Payload, M: Mode> fmt::Debug for Producer<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.gate.at())
            .finish_non_exhaustive()
    }
}

/// Returns the write limit to publish if the producer waits for nobody: enough for `wanted`
/// messages, but at least a block.
fn unheld(wanted: u64) -> impl FnOnce(&Gate<'_>) -> u64 {
    move |gate| gate.at() + wanted.max(block(gate.capacity()))
}

impl<'m, T: Payload, M: Mode> Producer<'m, T, M> {
    /// Takes the writing end, going on behind the last committed message.
    ///
    /// # Safety
    /// - `ring` is the one that the other ends have, too.
    /// - Only the ends write its words and its payloads.
    /// - No other producer of it exists until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m, T, M>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let words = Words {
            tail: ring.tail,
            write_limit: ring.write_limit,
            gating_set: ring.gating_set,
            consumers: ring.consumers,
            notifier: ring.notifier,
            capacity: ring.slots.capacity(),
            unit: 1,
            overwrites: M::OVERWRITES,
        };
        Ok(Producer {
            gate: Gate::new(words, cached_limit)?,
            slots: ring.slots,
        })
    }

    /// Writes the slot `ahead` of the tail.
    ///
    /// # Safety
    /// More than `ahead` slots were found free, and nothing was appended since. This process is not
    /// a fork of the one that found them.
    #[inline(always)]
    unsafe fn store_ahead(&mut self, ahead: u64, value: &T) {
        // SAFETY: the slot lies before the write limit, and only we write. If we do not overwrite,
        // every consumer of the gating set has released the slot.
        unsafe { self.slots.write(self.gate.at() + ahead, value) };
    }

    /// Returns the number of slots, up to `wanted`, that can be had: at least one, or an error.
    ///
    /// Returns `None` if `wanted` is 0.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        if wanted == 0 {
            return Ok(None);
        }
        let wanted = wanted.min(self.capacity());
        match self.ensure(wanted) {
            Err(error) if self.gate.known() == 0 => Err(error),
            _ => Ok(Some(wanted.min(self.gate.known() as usize))),
        }
    }
}

impl<T: Payload, M: Mode> Sealed for Producer<'_, T, M> {}

impl<T: Payload, M: Mode> Endpoint for Producer<'_, T, M> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        let wanted = amount as u64;
        self.gate.poll(wanted, 1, unheld(wanted))
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        let wanted = amount as u64;
        self.gate.slow_path(wanted, 1, unheld(wanted))
    }

    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        if !M::OVERWRITES {
            return self.ensure(amount).inspect(|()| self.gate.end_step());
        }
        if self.gate.ours() && amount <= self.capacity() && !self.gate.left_alone() {
            return Ok(());
        }
        self.slow_path(amount)
    }

    /// Returns `None`: consumers come and go, so there is no single end to report.
    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }

    fn capacity(&self) -> usize {
        self.slots.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.gate.at()
    }

    /// Returns the distance of the slowest consumer that the producer waits for; 0 if it waits for
    /// none.
    fn len(&self) -> Result<usize, Error> {
        Ok(self.gate.len()? as usize)
    }
}

impl<T: Payload, M: Mode> Push for Producer<'_, T, M> {
    type Value = T;

    #[inline(always)]
    unsafe fn put(&mut self, value: &T) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.store_ahead(0, value) };
        self.gate.commit(1);
        true
    }

    #[inline]
    unsafe fn write(&mut self, index: usize, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.store_ahead(index as u64, &value) };
    }

    #[inline]
    fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        let Some(count) = self.best_effort(values.len())? else {
            return Ok(0);
        };
        // SAFETY: `best_effort` saw that many slots before the write limit, and only we write. If we
        // do not overwrite, every consumer of the gating set has released them.
        unsafe { self.slots.write_all(self.gate.at(), &values[..count]) };
        self.gate.commit(count as u64);
        self.gate.end_step();
        Ok(count)
    }

    #[inline]
    fn try_push_iter(&mut self, values: &mut impl Iterator<Item = T>) -> Result<usize, Error> {
        let room = if M::OVERWRITES {
            if !self.gate.ours() {
                return Err(Error::Forked);
            }
            if self.gate.left_alone() {
                return Err(Error::Disconnected(End::Finished));
            }
            // We give up no more old messages than we write.
            self.capacity()
        } else {
            self.best_effort(usize::MAX)?.unwrap_or(0)
        };
        let mut count = 0;
        for value in values.take(room) {
            // An iterator may run any code: it may have forked.
            if !self.gate.ours() {
                return Err(Error::Forked);
            }
            if count >= self.gate.known() {
                let capacity = self.slots.capacity();
                let wanted = (count + block(capacity)).min(capacity);
                self.gate.raise(wanted, unheld(wanted));
            }
            // SAFETY: `count` is below the number of slots known to be free.
            unsafe { self.store_ahead(count, &value) };
            count += 1;
        }
        if !self.gate.ours() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.gate.commit(count);
        }
        self.gate.end_step();
        Ok(count as usize)
    }
}

impl<T: Payload, M: Mode> Reserve for Producer<'_, T, M> {
    /// Makes calls fail once the last consumer has left.
    ///
    /// The producer learns of a consumer's death when the seat is repaired, or taken anew.
    fn fail_alone(&mut self, on: bool) {
        self.gate.fail_alone(on);
    }

    #[inline]
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        self.ensure(amount)?;
        // Whatever becomes of the reservation: the next step asks again.
        self.gate.end_step();
        Ok(())
    }

    #[inline]
    unsafe fn commit_claimed(&mut self, amount: usize) {
        if amount > 0 && self.gate.ours() {
            self.gate.commit(amount as u64);
        }
    }
}

/// A reservation of an overwriting channel has no such slices: a consumer may be reading the slots.
impl<T: Payload> guard::Reservation<'_, Producer<'_, T, Waiting>> {
    /// Returns the reserved slots in place, in order: up to the ring's end, and from its start.
    ///
    /// They still hold an earlier message's bytes.
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        let producer = &self.producer;
        // SAFETY: they lie before the write limit, only we write, and every consumer of the gating
        // set has released them. `&mut self` borrows them once.
        unsafe { producer.slots.slices_mut(producer.gate.at(), self.amount) }
    }
}

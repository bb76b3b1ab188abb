//! Passes values from one producer to one consumer through a ring of fixed-size slots. When the
//! ring is full, the producer waits.
//!
//! # Guarantees
//! - A commit is visible at once. The consumer reads what was committed in order, once, whole.
//! - `Full` and `len` are exact: on an empty ring a reservation of the whole capacity succeeds.
//! - A producer that is killed anywhere leaves only what it committed. The successor of a killed
//!   consumer reads again at most the message, or the guard, that was in hand.
//! - No call here waits or allocates. A call enters the kernel only to wake a waiter (through
//!   `Os`).
//!
//! # Refuses
//! - Overwriting.
//! - A second producer or consumer; the seats prevent it.
//! - Trust in a peer: every position read from the other side is checked, and an impossible one is
//!   `Corrupt`.
//!
//! # Words
//! `tail` and `head`, in messages, and the slots between them. `cursor.rs` moves both positions. It
//! explains which end may touch which slot when, with which ordering, and why that is right.
//!
//! # Source
//! Lamport's ring, with private copies of the peer's position.

use core::fmt;

use crate::cached_limit::CachedLimit;
use crate::cursor::{self, Reader, Words, Writer};
use crate::end::{Endpoint, Poll, Pop, Push, sealed::Sealed};
use crate::error::{Error, ResizeError};
use crate::guard::{self, Hold, Reserve, Runs};
use crate::mem::Slots;
use crate::outside::Outside;
use crate::rings::{Resize, Rings, Sizing};
use crate::seat::Peer;
use crate::sync::AtomicU64;
use crate::wait::Notifier;

/// Slots that a producer has reserved.
pub type Reservation<'p, 'm, T> = guard::Reservation<'p, Producer<'m, T>>;

/// Messages that a consumer reads in place.
pub type Messages<'c, 'm, T> = guard::Messages<'c, Consumer<'m, T>>;

/// Reads an `spsc` channel from outside.
pub(super) const OUTSIDE: Outside = cursor::OUTSIDE;

/// The shared words of a channel and its slots, as both ends see them.
pub struct Ring<'m, T> {
    /// The position before which everything is committed.
    pub tail: &'m AtomicU64,
    /// The position before which everything is released.
    pub head: &'m AtomicU64,
    /// The payloads.
    pub slots: Slots<'m, T>,
    /// `true` if this end may store into the payload memory. An end that was handed a sealed
    /// channel may not.
    pub writable: bool,
    /// Wakes the other end.
    pub notifier: Notifier<'m>,
    /// The rings of a channel that can grow, and `slots` is the first one's memory.
    pub rings: Option<&'m Rings<'m>>,
}

impl<'m, T> Ring<'m, T> {
    fn split(self) -> (Words<'m>, Slots<'m, T>, Notifier<'m>) {
        let capacity = self.slots.capacity();
        (
            Words {
                tail: self.tail,
                head: self.head,
                capacity,
                most: capacity,
                write_limit: None,
                writable: self.writable,
                unit: 1,
                ahead: 0,
                rings: self.rings,
            },
            self.slots,
            self.notifier,
        )
    }
}

/// The writing end.
pub struct Producer<'m, T> {
    writer: Writer<'m>,
    slots: Slots<'m, T>,
}

impl<T> fmt::Debug for Producer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.writer.at())
            .field("capacity", &self.slots.capacity())
            .finish_non_exhaustive()
    }
}

impl<'m, T: Copy> Producer<'m, T> {
    /// Takes the writing end, going on at the committed tail.
    ///
    /// # Safety
    /// - `ring` is the one that the other end has, too.
    /// - Only the two ends write its words and its payloads.
    /// - No other producer of it exists until this one is gone.
    /// - A `T` has no padding and no pointers, and every bit pattern is a valid `T`.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let (words, mut slots, notifier) = ring.split();
        let writer = Writer::new(words, notifier, peer, cached_limit, &mut slots)?;
        Ok(Producer { writer, slots })
    }

    /// Returns the number of slots, up to `wanted`, that can be had: at least one, or an error.
    ///
    /// Returns `None` if `wanted` is 0.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        if wanted == 0 {
            return Ok(None);
        }
        if self.writer.grows() {
            return self.best_effort_growing(wanted as u64).map(Some);
        }
        let wanted = wanted.min(self.capacity());
        let ensured = self.ensure(wanted);
        let count = self.writer.part_of(wanted as u64, ensured)?;
        Ok(Some(count as usize))
    }

    /// The same of a producer that makes the ring larger by itself: only if there is no room at all.
    #[cold]
    #[inline(never)]
    fn best_effort_growing(&mut self, wanted: u64) -> Result<usize, Error> {
        let some = wanted.min(self.slots.capacity());
        let ensured = match self.writer.poll(some, 1) {
            Poll::Ready => Ok(()),
            Poll::NotReady => Err(Error::Full),
            Poll::Unclear => self.writer.slow_path(some, None::<&mut Slots<'m, T>>),
        };
        match self.writer.part_of(some, ensured) {
            Err(Error::Full) => {
                self.ensure(1)?;
                Ok(wanted.min(self.writer.known().max(1)) as usize)
            }
            found => Ok(found? as usize),
        }
    }
}

impl<T> Sealed for Producer<'_, T> {}

impl<T: Copy> Endpoint for Producer<'_, T> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        self.writer.poll(amount as u64, 1)
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        self.writer.slow_path(amount as u64, Some(&mut self.slots))
    }

    fn settle(&mut self, _: u32) -> bool {
        self.writer.settle(&mut self.slots);
        false
    }

    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.writer.peer))
    }

    fn capacity(&self) -> usize {
        self.slots.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.writer.at()
    }

    fn len(&self) -> Result<usize, Error> {
        Ok(self.writer.len()? as usize)
    }
}

impl<T: Copy> Resize for Producer<'_, T> {
    fn resize(&mut self, capacity: u64) -> Result<(), ResizeError> {
        self.writer.resize(capacity, &mut self.slots)
    }

    fn set_sizing(&mut self, sizing: Sizing) {
        self.writer.set_sizing(sizing);
    }

    fn max_capacity(&self) -> u64 {
        self.writer.max_capacity()
    }
}

impl<T: Copy> Push for Producer<'_, T> {
    type Value = T;

    #[inline(always)]
    unsafe fn put(&mut self, value: &T) -> bool {
        // SAFETY: head <= tail < head + capacity: the slot is released, and only we write.
        unsafe { self.slots.write(self.writer.at(), *value) };
        self.writer.commit(1);
        true
    }

    #[inline]
    unsafe fn write(&mut self, index: usize, value: T) {
        // SAFETY: the slot lies in [tail, tail + what was claimed), all free, and only we write.
        unsafe { self.slots.write(self.writer.at() + index as u64, value) };
    }

    #[inline]
    fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        let Some(count) = self.best_effort(values.len())? else {
            return Ok(0);
        };
        // SAFETY: `best_effort` saw that many free slots, and only we write.
        let (front, back) = unsafe { self.slots.slices_mut(self.writer.at(), count) };
        let (first, rest) = values[..count].split_at(front.len());
        front.copy_from_slice(first);
        back.copy_from_slice(rest);
        self.writer.commit(count as u64);
        Ok(count)
    }

    #[inline]
    fn try_push_iter(&mut self, values: &mut impl Iterator<Item = T>) -> Result<usize, Error> {
        let Some(room) = self.best_effort(usize::MAX)? else {
            return Ok(0);
        };
        let mut count = 0;
        for value in values.take(room) {
            // SAFETY: `best_effort` saw `room` free slots, `count` is below it, and only we write.
            unsafe { self.slots.write(self.writer.at() + count, value) };
            count += 1;
        }
        // An iterator may run any code: it may have forked.
        if !self.writer.ours() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.writer.commit(count);
        }
        Ok(count as usize)
    }
}

impl<T: Copy> Reserve for Producer<'_, T> {
    fn fail_alone(&mut self, on: bool) {
        self.writer.fail_alone(on);
    }

    #[inline]
    unsafe fn commit_claimed(&mut self, amount: usize) {
        if amount > 0 && self.writer.ours() {
            self.writer.commit(amount as u64);
        }
    }
}

impl<T: Copy> guard::Reservation<'_, Producer<'_, T>> {
    /// Returns the reserved slots, in order: up to the ring's end, and from its start.
    ///
    /// They still hold an earlier message's bytes.
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        let Producer { writer, slots } = &*self.producer;
        // SAFETY: [tail, tail + amount) is free, only we write, and `&mut self` borrows them once.
        unsafe { slots.slices_mut(writer.at(), self.amount) }
    }
}

/// The reading end.
pub struct Consumer<'m, T> {
    reader: Reader<'m>,
    slots: Slots<'m, T>,
}

impl<T> fmt::Debug for Consumer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.reader.at())
            .field("capacity", &self.slots.capacity())
            .finish_non_exhaustive()
    }
}

impl<'m, T: Copy> Consumer<'m, T> {
    /// Takes the reading end, going on at the released head.
    ///
    /// # Safety
    /// - `ring` is the one that the other end has, too.
    /// - Only the two ends write its words and its payloads.
    /// - No other consumer of it exists until this one is gone.
    /// - A `T` has no padding and no pointers, and every bit pattern is a valid `T`.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let (words, mut slots, notifier) = ring.split();
        let reader = Reader::new(words, notifier, peer, cached_limit, &mut slots)?;
        Ok(Consumer { reader, slots })
    }

    /// Releases `count` messages that were found, and handed out.
    #[inline(always)]
    fn release(&mut self, count: usize) {
        if self.reader.transfers_lines() {
            // SAFETY: they lie before the acquired tail, and are not written until we release; no
            // reference to them is left.
            unsafe { self.slots.transfer_lines(self.reader.at(), count) };
        }
        self.reader.release(count as u64);
    }

    /// Returns the number of messages, up to `wanted`, that are there: at least one, or an error.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<usize, Error> {
        // Look only when no message is known. The known messages are a batch too, and a later look
        // finds more at the same price.
        if wanted > 0 {
            self.ensure(1)?;
        }
        Ok((wanted as u64).min(self.reader.known()) as usize)
    }
}

impl<T> Sealed for Consumer<'_, T> {}

impl<T: Copy> Endpoint for Consumer<'_, T> {
    const NOT_READY: Error = Error::Empty;

    #[inline]
    fn poll(&mut self, _: usize) -> Poll {
        let found = self.reader.poll(1);
        if found == Poll::NotReady {
            self.slots.prefetch_awaited(self.reader.at());
        }
        found
    }

    fn slow_path(&mut self, _: usize) -> Result<(), Error> {
        self.reader.slow_path(&mut self.slots)
    }

    fn settle(&mut self, steps: u32) -> bool {
        self.reader.settle(steps, &mut self.slots)
    }

    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.reader.peer))
    }

    fn capacity(&self) -> usize {
        self.reader.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.reader.at()
    }

    fn len(&self) -> Result<usize, Error> {
        Ok(self.reader.len()? as usize)
    }
}

impl<T: Copy> Pop for Consumer<'_, T> {
    type Value = T;

    #[inline(always)]
    unsafe fn take(&mut self) -> Result<T, Error> {
        self.slots
            .prefetch_behind(self.reader.at(), self.reader.known());
        // SAFETY: head < tail, acquired: the slot is committed, and not written until we release.
        let value = unsafe { self.slots.read(self.reader.at()) };
        self.release(1);
        Ok(value)
    }

    #[inline]
    fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        let count = self.best_effort(out.len())?;
        if count > 0 {
            // SAFETY: `best_effort` saw that many committed slots; they are ours until released.
            let (front, back) = unsafe { self.slots.slices(self.reader.at(), count) };
            let (first, rest) = out[..count].split_at_mut(front.len());
            first.copy_from_slice(front);
            rest.copy_from_slice(back);
            self.release(count);
        }
        Ok(count)
    }
}

impl<T: Copy> Hold for Consumer<'_, T> {
    #[inline]
    fn hold(&mut self, max: usize) -> Result<usize, Error> {
        let held = self.best_effort(max)?;
        self.slots
            .prefetch_behind(self.reader.at(), self.reader.known());
        Ok(held)
    }

    #[inline]
    unsafe fn held<'a>(&self, index: usize) -> &'a T {
        // SAFETY: the slot lies in [head, head + what is held), committed, and not written until we
        // release.
        unsafe { self.slots.get(self.reader.at() + index as u64) }
    }

    #[inline]
    unsafe fn held_slices<'a>(&self, count: usize) -> Option<Runs<'a, T>> {
        // SAFETY: [head, head + count) is committed, and not written until we release.
        Some(unsafe { self.slots.slices(self.reader.at(), count) })
    }

    #[inline]
    unsafe fn release_held(&mut self, count: usize) {
        if count > 0 && self.reader.ours() {
            self.release(count);
        }
    }

    #[inline]
    fn begin_guard(&mut self) {
        self.reader.begin_guard();
    }

    #[inline]
    fn drop_releases(&self) -> bool {
        self.reader.drop_releases()
    }
}

impl<T: Copy> guard::Messages<'_, Consumer<'_, T>> {
    /// Returns the messages in order: up to the ring's end, and from its start.
    #[inline]
    pub fn as_slices(&self) -> (&[T], &[T]) {
        // SAFETY: so many are held; the borrow of the guard ends before it releases.
        unsafe { self.consumer.held_slices(self.count) }.unwrap_or_default()
    }
}

//! One producer, one consumer, a ring of fixed-size slots; when it is full, the producer waits.
//!
//! # Guarantees
//! - A commit is visible at once. What was committed is read in order, once, whole.
//! - `Full` and `len` are exact: on an empty ring a reservation of the whole capacity succeeds.
//! - Killed anywhere, a producer leaves nothing but what it committed, and a consumer's successor
//!   gets again at most the message, or the guard, that was in hand.
//! - No call here waits or allocates, and none enters the kernel but to wake a sleeper (through `Os`).
//!
//! # Refuses
//! Overwriting; a second producer or consumer (the seats see to that); believing a peer: every
//! position read from the other side is checked, and an impossible one is `Corrupt`.
//!
//! # Words
//! `tail` and `head`, in messages, and the slots between them. Who may touch which when, with which
//! ordering, and why that is right: see `cursor.rs`, which moves both positions.
//!
//! # Source
//! Lamport's ring, with private copies of the peer's position.

use core::fmt;
use core::mem::ManuallyDrop;

pub use crate::cursor::Look;
use crate::cursor::{Reader, Words, Writer};
use crate::error::{Error, PushError};
use crate::lease::Lease;
use crate::mem::Slots;
use crate::seat::Peer;
use crate::sync::AtomicU64;
use crate::wait::Ringer;

/// How many slots ahead a consumer that pops one at a time asks for a line: only committed ones, so
/// that it never takes one from the producer's hands.
const AHEAD: u64 = 32;

/// The shared words of a channel and its slots, as both ends see them.
pub struct Ring<'m, T> {
    /// All before it is committed.
    pub tail: &'m AtomicU64,
    /// All before it is released.
    pub head: &'m AtomicU64,
    /// The payloads.
    pub slots: Slots<'m, T>,
    /// Whether this end may store where payloads lie (who was handed a sealed channel may not).
    pub writable: bool,
    /// How this end wakes the other.
    pub bell: Ringer<'m>,
}

impl<'m, T> Ring<'m, T> {
    fn split(self) -> (Words<'m>, Slots<'m, T>, Ringer<'m>) {
        let capacity = self.slots.capacity();
        (
            Words {
                tail: self.tail,
                head: self.head,
                capacity,
                gate: None,
                waits: true,
                writable: self.writable,
                unit: 1,
                ahead: 0,
            },
            self.slots,
            self.bell,
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
    /// `ring` is the one that the other end has, too; nothing but the two ends writes its words or its
    /// payloads; no other producer of it exists until this one is gone; a `T` has no padding and no
    /// pointers, and every bit pattern is one.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        peer: Peer<'m>,
        lease: &'m mut Lease,
    ) -> Result<Self, Error> {
        let (words, slots, bell) = ring.split();
        Ok(Producer {
            writer: Writer::new(words, bell, peer, lease)?,
            slots,
        })
    }

    /// Appends `value`, or gives it back: `Full`, `Disconnected` (full, and no consumer), `Corrupt`.
    #[inline]
    pub fn try_push(&mut self, value: T) -> Result<(), PushError<T>> {
        if let Err(error) = self.ensure(1) {
            return Err(PushError { value, error });
        }
        // SAFETY: `ensure` has just said so.
        unsafe { self.push_ensured(value) };
        Ok(())
    }

    /// Appends `value` where [`ensure`](Self::ensure) found room.
    ///
    /// # Safety
    /// `ensure(1)`, or of more, succeeded, or `poll` said `Enough`; nothing was appended since, and
    /// this process has not forked into another.
    #[inline(always)]
    pub unsafe fn push_ensured(&mut self, value: T) {
        // SAFETY: head <= tail < head + capacity: the slot is released, and only we write.
        unsafe { self.slots.write(self.writer.at(), value) };
        self.writer.commit(1);
    }

    /// As [`ensure`](Self::ensure), in one word: for loops that try again and again.
    #[inline]
    pub fn poll(&mut self, count: usize) -> Look {
        self.writer.poll(count as u64, 1)
    }

    /// What [`poll`](Self::poll) could not say in one word, without another pause.
    pub fn trouble(&mut self, count: usize) -> Result<(), Error> {
        self.writer.trouble(count as u64)
    }

    /// Makes sure that `count` slots are free, without taking them.
    #[inline]
    pub fn ensure(&mut self, count: usize) -> Result<(), Error> {
        self.writer.ensure(count as u64, 1)
    }

    /// Reserves `count` slots, all or nothing, to be written in place.
    #[inline]
    pub fn try_reserve(&mut self, count: usize) -> Result<Reservation<'_, 'm, T>, Error> {
        self.ensure(count)?;
        Ok(Reservation {
            producer: self,
            count,
        })
    }

    /// Appends as many of `values` as fit, published as one, and says how many those were.
    ///
    /// Fails only if none fit (and `values` is not empty).
    #[inline]
    pub fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
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

    /// Appends as many of the iterator's values as fit, published as one, and says how many.
    ///
    /// Takes no value from the iterator that it cannot place.
    #[inline]
    pub fn try_push_iter<I: Iterator<Item = T>>(&mut self, values: &mut I) -> Result<usize, Error> {
        let Some(room) = self.best_effort(usize::MAX)? else {
            return Ok(0);
        };
        let mut count = 0;
        for value in values.take(room) {
            // SAFETY: `best_effort` saw `room` free slots, `count` is below it, and only we write.
            unsafe { self.slots.write(self.writer.at() + count, value) };
            count += 1;
        }
        // An iterator is anybody's code: it may have forked.
        if !self.writer.ours() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.writer.commit(count);
        }
        Ok(count as usize)
    }

    /// How many slots, up to `wanted`, can be had: at least one, or an error; none if none wanted.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        if wanted == 0 {
            return Ok(None);
        }
        let wanted = wanted.min(self.capacity()) as u64;
        match self.writer.ensure(wanted, 1) {
            Err(error) if self.writer.known() == 0 => Err(error),
            _ => Ok(Some(wanted.min(self.writer.known()) as usize)),
        }
    }

    /// Committed messages that are not released yet, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.writer.len()? as usize)
    }

    /// Whether every committed message is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// How many messages the ring holds.
    pub fn capacity(&self) -> usize {
        self.slots.capacity() as usize
    }

    /// The number of messages ever committed here, by all producers.
    pub fn position(&self) -> u64 {
        self.writer.at()
    }

    /// What is known of the consumer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.writer.peer
    }
}

/// Slots reserved by a producer. Dropped without a commit it changes nothing; nor does a kill while it is
/// held: the successor writes the same slots.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct Reservation<'p, 'm, T> {
    producer: &'p mut Producer<'m, T>,
    count: usize,
}

impl<T> fmt::Debug for Reservation<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.count)
            .field("position", &self.producer.writer.at())
            .finish_non_exhaustive()
    }
}

impl<T: Copy> Reservation<'_, '_, T> {
    /// How many slots are reserved.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no slot is reserved.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Stores `value` in the reserved slot `index`. Not in a forked child: the slot is the parent's.
    ///
    /// # Panics
    /// If `index` is not below `len`, as for a slice.
    #[inline]
    pub fn write(&mut self, index: usize, value: T) {
        assert!(
            index < self.count,
            "slot {index} of a reservation of {}",
            self.count
        );
        // SAFETY: the slot lies in [tail, tail + count), all free, and only we write.
        unsafe {
            self.producer
                .slots
                .write(self.producer.writer.at() + index as u64, value)
        }
    }

    /// The reserved slots, in order: up to the ring's end, and from its start. They hold what some
    /// earlier message left there.
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        // SAFETY: [tail, tail + count) is free, only we write, and `&mut self` borrows them once.
        unsafe {
            self.producer
                .slots
                .slices_mut(self.producer.writer.at(), self.count)
        }
    }

    /// Publishes the first `count` slots at once and gives up the rest.
    ///
    /// # Panics
    /// If `count` is more than `len`, as for a slice.
    #[inline]
    pub fn commit(self, count: usize) {
        assert!(
            count <= self.count,
            "commit of {count} slots of a reservation of {}",
            self.count
        );
        if count > 0 && self.producer.writer.ours() {
            self.producer.writer.commit(count as u64);
        }
    }

    /// Gives all slots up: the same as dropping the reservation.
    #[inline]
    pub fn discard(self) {}
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
    /// `ring` is the one that the other end has, too; nothing but the two ends writes its words or its
    /// payloads; no other consumer of it exists until this one is gone; a `T` has no padding and no
    /// pointers, and every bit pattern is one.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        peer: Peer<'m>,
        lease: &'m mut Lease,
    ) -> Result<Self, Error> {
        let (words, slots, bell) = ring.split();
        Ok(Consumer {
            reader: Reader::new(words, bell, peer, lease)?,
            slots,
        })
    }

    /// Takes the oldest message: `Empty`, `Disconnected` (empty, and no producer), `Corrupt`.
    #[inline]
    pub fn try_pop(&mut self) -> Result<T, Error> {
        self.ensure()?;
        // SAFETY: `ensure` has just said so.
        Ok(unsafe { self.pop_ensured() })
    }

    /// Takes the message that [`ensure`](Self::ensure) found.
    ///
    /// # Safety
    /// `ensure` succeeded, or `poll` said `Enough`; nothing was taken since, and this process has not
    /// forked into another.
    #[inline(always)]
    pub unsafe fn pop_ensured(&mut self) -> T {
        // Plain version: without this. A slot of a line or so is a cache miss each, and what depends on
        // it keeps the processor from starting many; asked for ahead, they overlap (64 bytes between
        // distant cores: 9 to 12 M/s; where lines are handed back 23 to 55, and 82 to 120 between neighbours).
        // Smaller slots share their lines anyway.
        if size_of::<T>() >= 32 && self.reader.known() > AHEAD {
            self.slots.prefetch(self.reader.at() + AHEAD);
        }
        // SAFETY: head < tail, acquired: the slot is committed, and not written until we release.
        let value = unsafe { self.slots.read(self.reader.at()) };
        self.release(1);
        value
    }

    /// As [`ensure`](Self::ensure), in one word: for loops that try again and again.
    #[inline]
    pub fn poll(&mut self) -> Look {
        self.reader.poll(1)
    }

    /// What [`poll`](Self::poll) could not say in one word, without another pause.
    pub fn trouble(&mut self) -> Result<(), Error> {
        self.reader.trouble()
    }

    /// Makes sure that there is a message, without taking it.
    #[inline]
    pub fn ensure(&mut self) -> Result<(), Error> {
        self.reader.ensure(1)
    }

    /// Up to `max` messages in place: at least one, or an error.
    #[inline]
    pub fn try_read(&mut self, max: usize) -> Result<Messages<'_, 'm, T>, Error> {
        let count = self.best_effort(max)?;
        self.reader.begin_guard();
        Ok(Messages {
            consumer: self,
            count,
        })
    }

    /// Copies up to `out.len()` messages into `out`, and says how many: at least one, or an error
    /// (none if `out` is empty).
    #[inline]
    pub fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
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

    /// Releases `count` messages that were found, and handed out.
    #[inline(always)]
    fn release(&mut self, count: usize) {
        if self.reader.hands_back() {
            // SAFETY: before the tail, acquired, and not written until we release; nobody refers to them any more.
            unsafe { self.slots.hand_back(self.reader.at(), count) };
        }
        self.reader.release(count as u64);
    }

    /// How many messages, up to `wanted`, are there: at least one, or an error.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<usize, Error> {
        // A look only when there is nothing: what is known already is a batch too, and the next
        // look, later, finds more at the same price.
        if wanted > 0 {
            self.ensure()?;
        }
        Ok((wanted as u64).min(self.reader.known()) as usize)
    }

    /// Committed messages that are not released yet, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.reader.len()? as usize)
    }

    /// Whether every committed message is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// How many messages the ring holds.
    pub fn capacity(&self) -> usize {
        self.slots.capacity() as usize
    }

    /// The number of messages ever released here, by all consumers.
    pub fn position(&self) -> u64 {
        self.reader.at()
    }

    /// What is known of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.reader.peer
    }
}

/// Messages read in place. Dropping it releases them all; [`release`](Self::release) the first few;
/// [`keep`](Self::keep) none. A kill while it is held releases none, nor does a drop by a panic that
/// began while it was held (with the feature `std`): the next read sees them again, or the successor's.
///
/// `Result`'s `?` drops it as the end of a loop does, and nothing can tell the two apart: a loop that may
/// leave early says itself how many messages it has dealt with, and the rest stays to be read again.
///
/// ```
/// use slipring_core::spsc::Messages;
///
/// fn handle_all(batch: Messages<'_, '_, u64>) -> Result<(), std::num::TryFromIntError> {
///     let handled = batch.iter().try_fold(0, |done, value| {
///         u32::try_from(*value).map(|_| done + 1).map_err(|error| (done, error))
///     });
///     match handled {
///         Ok(_) => Ok(()), // dropped: all are released
///         Err((done, error)) => {
///             batch.release(done); // the one that failed is read again, and those behind it
///             Err(error)
///         }
///     }
/// }
/// # let _ = handle_all;
/// ```
pub struct Messages<'c, 'm, T: Copy> {
    consumer: &'c mut Consumer<'m, T>,
    count: usize,
}

impl<T: Copy> fmt::Debug for Messages<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("len", &self.count)
            .field("position", &self.consumer.reader.at())
            .finish_non_exhaustive()
    }
}

impl<T: Copy> Messages<'_, '_, T> {
    /// How many messages there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none (only after `try_read(0)`).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The messages in order: up to the ring's end, and from its start.
    #[inline]
    pub fn as_slices(&self) -> (&[T], &[T]) {
        // SAFETY: [head, head + count) is committed, and not written until we release.
        unsafe {
            self.consumer
                .slots
                .slices(self.consumer.reader.at(), self.count)
        }
    }

    /// The messages in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (front, back) = self.as_slices();
        front.iter().chain(back)
    }

    /// Releases the first `count` messages and leaves the rest to be read again; also while panicking.
    ///
    /// # Panics
    /// If `count` is more than `len`, as for a slice; then nothing is released.
    #[inline]
    pub fn release(self, count: usize) {
        // First: a guard that this panic dropped would release all, where `std` does not tell of the panic.
        let mut guard = ManuallyDrop::new(self);
        assert!(
            count <= guard.count,
            "release of {count} messages of {}",
            guard.count
        );
        if count > 0 && guard.consumer.reader.ours() {
            guard.consumer.release(count);
        }
    }

    /// Releases nothing: the next read sees all of the messages again.
    #[inline]
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<T: Copy> Drop for Messages<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 && self.consumer.reader.drop_releases() {
            self.consumer.release(self.count);
        }
    }
}

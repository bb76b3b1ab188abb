//! One producer, one consumer, a ring of fixed-size slots; when it is full, the producer waits.
//!
//! # Guarantees
//! - A commit is visible at once. What was committed is read in order, once, whole.
//! - `Full` and `len` are exact: on an empty ring a reservation of the whole capacity succeeds.
//! - Killed anywhere, a producer leaves nothing but what it committed, and a consumer's successor
//!   gets again at most the message, or the guard, that was in hand.
//! - No call here waits, allocates, or enters the kernel.
//!
//! # Refuses
//! Overwriting; a second producer or consumer (the seats see to that); believing a peer: every
//! position read from the other side is checked, and an impossible one is `Corrupt`.
//!
//! # Words
//! Positions count messages from zero and are masked only where they meet a slot.
//!
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `tail` | producer, each commit | consumer | release *(commit)* → acquire in the consumer's look |
//! | `head` | consumer, each release | producer, when it may be full | release *(release)* → acquire in the producer's look |
//! | slots | producer, in `[tail, head + capacity)` | consumer, in `[head, tail)` | by the two pairs above |
//!
//! # Why it is right
//! *Commit*: the slot is written before `tail` is released, and a consumer reads it only after it
//! acquired a `tail` beyond it; so it reads what was written, and never a slot's older content.
//! *Release*: the consumer reads the slot before `head` is released, and the producer writes there
//! again only after it acquired that `head`. Each side owns its own position (a private copy, never
//! read back from memory) and keeps the other's in its [`Lease`]: how far it may go unasked.
//!
//! # Source
//! Lamport, *Proving the correctness of multiprocess programs* (1977); private copies of the other
//! side's position as in Lee et al., *MCRingBuffer* (2010), though every commit is published.

use crate::error::{Error, PushError};
use crate::lease::Lease;
use crate::mem::{self, Slots};
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Slip;

/// The shared words of a channel and its slots, as both ends see them.
pub struct Ring<'m, T> {
    /// All before it is committed.
    pub tail: &'m AtomicU64,
    /// All before it is released.
    pub head: &'m AtomicU64,
    /// The payloads.
    pub slots: Slots<'m, T>,
}

impl<T> Ring<'_, T> {
    /// The position at which a producer, or a consumer, goes on, if the two words are possible.
    fn resume(&self) -> Result<(u64, u64), Error> {
        // Acquire twice: a new handle must see all that its predecessor and its peer did.
        let head = self.head.load(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Acquire);
        mem::resumable(head, tail, self.slots.capacity())?;
        Ok((tail, head))
    }
}

/// The writing end.
pub struct Producer<'m, T> {
    ring: Ring<'m, T>,
    /// Ours alone; `ring.tail` is its published copy.
    tail: u64,
    /// The tail may go up to here unasked.
    limit: &'m Lease,
    slip: Slip,
    peer: Peer<'m>,
}

impl<'m, T: Copy> Producer<'m, T> {
    /// Takes the writing end, going on at the committed tail.
    ///
    /// # Safety
    /// No other producer of this ring exists until this one is gone, and every bit pattern is a `T`.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        peer: Peer<'m>,
        limit: &'m mut Lease,
    ) -> Result<Self, Error> {
        let (tail, head) = ring.resume()?;
        limit.set(head + ring.slots.capacity());
        Ok(Producer {
            ring,
            tail,
            limit,
            slip: Slip::default(),
            peer,
        })
    }

    /// Appends `value`, or gives it back: `Full`, `Disconnected` (full, and no consumer), `Corrupt`.
    #[inline]
    pub fn try_push(&mut self, value: T) -> Result<(), PushError<T>> {
        if self.tail >= self.limit.get() {
            if let Err(error) = self.look(1) {
                return Err(PushError { value, error });
            }
        }
        // SAFETY: head <= tail < head + capacity: the slot is released, and only we write.
        unsafe { self.ring.slots.write(self.tail, value) };
        self.publish(1);
        Ok(())
    }

    /// Makes sure that `count` slots are free, without taking them.
    #[inline]
    pub fn ensure(&mut self, count: usize) -> Result<(), Error> {
        if self.ready() >= count as u64 {
            Ok(())
        } else {
            self.look(count as u64)
        }
    }

    /// How many slots are known to be free, without a look at the consumer's position.
    #[inline]
    fn ready(&self) -> u64 {
        self.limit.get().saturating_sub(self.tail)
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
        let (front, back) = unsafe { self.ring.slots.slices_mut(self.tail, count) };
        let (first, rest) = values[..count].split_at(front.len());
        front.copy_from_slice(first);
        back.copy_from_slice(rest);
        self.publish(count as u64);
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
            unsafe { self.ring.slots.write(self.tail + count, value) };
            count += 1;
        }
        if count > 0 {
            self.publish(count);
        }
        Ok(count as usize)
    }

    /// How many slots, up to `wanted`, can be had: at least one, or an error; none if none wanted.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        if wanted == 0 {
            return Ok(None);
        }
        let wanted = wanted.min(self.capacity());
        if self.ready() < wanted as u64 {
            match self.look(wanted as u64) {
                Err(error) if self.ready() == 0 => return Err(error),
                _ => {}
            }
        }
        Ok(Some(wanted.min(self.ready() as usize)))
    }

    /// *Commit*: everything up to the new tail belongs to the consumer.
    #[inline]
    fn publish(&mut self, count: u64) {
        self.tail += count;
        // Release: pairs with the acquire in `Consumer::look`; the slots come before it.
        self.ring.tail.store(self.tail, Ordering::Release);
    }

    /// The rare question: how far is the consumer really? An error if fewer than `count` are free.
    #[cold]
    #[inline(never)]
    fn look(&mut self, count: u64) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let capacity = self.ring.slots.capacity();
        if count > capacity {
            return Err(Error::TooLarge {
                asked: count,
                max: capacity,
            });
        }
        self.slip.pause();
        let before = self.ready();
        let free = self.free()?;
        self.slip.found(free - before.min(free), 1, capacity / 4);
        if free >= count {
            return Ok(());
        }
        match self.peer.end(self.tail)? {
            // It may have released more just before it left.
            Some(_) if self.free()? >= count => Ok(()),
            Some(end) => Err(Error::Disconnected(end)),
            None => Err(Error::Full),
        }
    }

    /// Reads the consumer's position, moves the lease, and says how many slots are free.
    fn free(&mut self) -> Result<u64, Error> {
        let capacity = self.ring.slots.capacity();
        // Acquire: pairs with the release in `Consumer::release`; its reads come before our writes.
        let head = self.ring.head.load(Ordering::Acquire);
        let used = mem::distance(head, self.tail, capacity, "head")?;
        self.limit.set(head + capacity);
        Ok(capacity - used)
    }

    /// Committed messages that are not released yet, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        let head = self.ring.head.load(Ordering::Acquire);
        Ok(mem::distance(head, self.tail, self.ring.slots.capacity(), "head")? as usize)
    }

    /// How many messages the ring holds.
    pub fn capacity(&self) -> usize {
        self.ring.slots.capacity() as usize
    }

    /// The number of messages ever committed here, by all producers.
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// What is known of the consumer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.peer
    }
}

/// Slots reserved by a producer. Dropped without a commit it changes nothing.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct Reservation<'p, 'm, T> {
    producer: &'p mut Producer<'m, T>,
    count: usize,
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

    /// Stores `value` in the reserved slot `index`.
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
                .ring
                .slots
                .write(self.producer.tail + index as u64, value)
        }
    }

    /// The reserved slots, in order: up to the ring's end, and from its start. They hold what some
    /// earlier message left there.
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        // SAFETY: [tail, tail + count) is free, only we write, and `&mut self` borrows them once.
        unsafe {
            self.producer
                .ring
                .slots
                .slices_mut(self.producer.tail, self.count)
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
        if count > 0 {
            self.producer.publish(count as u64);
        }
    }

    /// Gives all slots up: the same as dropping the reservation.
    #[inline]
    pub fn discard(self) {}
}

/// The reading end.
pub struct Consumer<'m, T> {
    ring: Ring<'m, T>,
    /// Ours alone; `ring.head` is its published copy, exact after every release.
    head: u64,
    /// The head may go up to here unasked.
    limit: &'m Lease,
    slip: Slip,
    peer: Peer<'m>,
}

impl<'m, T: Copy> Consumer<'m, T> {
    /// Takes the reading end, going on at the released head.
    ///
    /// # Safety
    /// No other consumer of this ring exists until this one is gone, and every bit pattern is a `T`.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        peer: Peer<'m>,
        limit: &'m mut Lease,
    ) -> Result<Self, Error> {
        let (tail, head) = ring.resume()?;
        limit.set(tail);
        Ok(Consumer {
            ring,
            head,
            limit,
            slip: Slip::default(),
            peer,
        })
    }

    /// Takes the oldest message: `Empty`, `Disconnected` (empty, and no producer), `Corrupt`.
    #[inline]
    pub fn try_pop(&mut self) -> Result<T, Error> {
        if self.head >= self.limit.get() {
            self.look()?;
        }
        // SAFETY: head < tail, acquired: the slot is committed, and not written until we release.
        let value = unsafe { self.ring.slots.read(self.head) };
        self.release(1);
        Ok(value)
    }

    /// Makes sure that there is a message, without taking it.
    #[inline]
    pub fn ensure(&mut self) -> Result<(), Error> {
        if self.ready() > 0 {
            Ok(())
        } else {
            self.look()
        }
    }

    /// How many messages are known to be there, without a look at the producer's position.
    #[inline]
    fn ready(&self) -> u64 {
        self.limit.get().saturating_sub(self.head)
    }

    /// Up to `max` messages in place: at least one, or an error.
    #[inline]
    pub fn try_read(&mut self, max: usize) -> Result<Messages<'_, 'm, T>, Error> {
        let count = self.best_effort(max)?;
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
            let (front, back) = unsafe { self.ring.slots.slices(self.head, count) };
            let (first, rest) = out[..count].split_at_mut(front.len());
            first.copy_from_slice(front);
            rest.copy_from_slice(back);
            self.release(count as u64);
        }
        Ok(count)
    }

    /// How many messages, up to `wanted`, are there: at least one, or an error.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<usize, Error> {
        // A look only when there is nothing: what is known already is a batch too, and the next
        // look, later, finds more at the same price.
        if wanted > 0 {
            self.ensure()?;
        }
        Ok((wanted as u64).min(self.ready()) as usize)
    }

    /// *Release*: everything before the new head may be written again.
    #[inline]
    fn release(&mut self, count: u64) {
        self.head += count;
        // Release: pairs with the acquire in `Producer::free`; our reads come before it.
        self.ring.head.store(self.head, Ordering::Release);
    }

    /// The rare question: how far is the producer really?
    #[cold]
    #[inline(never)]
    fn look(&mut self) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        self.slip.pause();
        let found = self.committed()?;
        self.slip.found(found, 1, self.ring.slots.capacity() / 4);
        if found > 0 {
            return Ok(());
        }
        match self.peer.end(self.head)? {
            // It may have committed more just before it left.
            Some(_) if self.committed()? > 0 => Ok(()),
            Some(end) => Err(Error::Disconnected(end)),
            None => Err(Error::Empty),
        }
    }

    /// Reads the producer's position, moves the lease, and says how many messages are there.
    fn committed(&mut self) -> Result<u64, Error> {
        // Acquire: pairs with the release in `Producer::publish`; its writes come before our reads.
        let tail = self.ring.tail.load(Ordering::Acquire);
        let count = mem::distance(self.head, tail, self.ring.slots.capacity(), "tail")?;
        self.limit.set(tail);
        Ok(count)
    }

    /// Committed messages that are not released yet, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        let tail = self.ring.tail.load(Ordering::Acquire);
        Ok(mem::distance(self.head, tail, self.ring.slots.capacity(), "tail")? as usize)
    }

    /// How many messages the ring holds.
    pub fn capacity(&self) -> usize {
        self.ring.slots.capacity() as usize
    }

    /// The number of messages ever released here, by all consumers.
    pub fn position(&self) -> u64 {
        self.head
    }

    /// What is known of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.peer
    }
}

/// Messages read in place. Dropping it releases them all.
pub struct Messages<'c, 'm, T: Copy> {
    consumer: &'c mut Consumer<'m, T>,
    count: usize,
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
                .ring
                .slots
                .slices(self.consumer.head, self.count)
        }
    }

    /// The messages in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (front, back) = self.as_slices();
        front.iter().chain(back)
    }

    /// Releases the first `count` messages and leaves the rest to be read again.
    ///
    /// # Panics
    /// If `count` is more than `len`, as for a slice.
    #[inline]
    pub fn release(mut self, count: usize) {
        assert!(
            count <= self.count,
            "release of {count} messages of {}",
            self.count
        );
        self.count = count;
    }
}

impl<T: Copy> Drop for Messages<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 {
            self.consumer.release(self.count as u64);
        }
    }
}

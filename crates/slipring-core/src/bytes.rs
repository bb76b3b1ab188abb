//! One producer, one consumer, records of varying size in one ring of bytes, written and read in
//! place; when it is full, the producer waits.
//!
//! # Guarantees
//! As for `spsc`: a commit is visible at once, nothing is lost, torn or read twice but the record
//! in hand of a killed consumer, `Full` is exact, no call waits or allocates. And:
//! - A record is one contiguous run of bytes, 8-byte aligned, whatever the ring's end.
//! - It may be reserved at its largest size and committed at its real one.
//!
//! # Refuses
//! A record above the largest size that the creator chose: an error at once, nothing changed.
//!
//! # Memory
//! ```text
//! data  0                                     ring            ring + largest
//!       | records, one after another ...      | slack         |
//!                                   [len|payload ~~~~~~~~]      a record may run into the slack;
//!       ~~~~~~~~~[len|payload]                                  the next starts at (its end - ring)
//!
//! record  0  length word: payload length << 8 | 1; zero is never a record
//!         8  payload, then up to 7 bytes to the next multiple of 8
//! ```
//! Positions count bytes from zero, always a multiple of 8. A record takes `8 + len` bytes, rounded
//! up to 8, of *position*, even where part of it lies in the slack: the bytes at the ring's start
//! that it would have covered stay unused for that lap. So there are no padding records, no mirror
//! mapping, and one subtraction tells the free space.
//!
//! # Words
//! `tail` and `head`, in bytes, and the records between them. Who may touch which bytes when, with
//! which ordering, and why that is right: see `cursor.rs`, which moves both positions.
//!
//! # Why the slack does not break it
//! A record of `n` bytes is written only when `n` bytes of position are free, so neither the bytes
//! up to the ring's end, nor those at its start that the record skips, hold anything unread; and the
//! slack belongs to the one record of each lap that crosses the ring's end, which is released before
//! a record one lap later can be reserved there.
//!
//! A length word is in the consumer's hands from the acquire on; it is still read once, and checked
//! against what was committed, since a stranger may have scribbled: `Corrupt`, and nothing worse.
//!
//! # Source
//! Ring as in `spsc`; the slack instead of a wrap marker is ours.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use crate::cursor::{Reader, Words, Writer};
use crate::error::{Corrupt, Error};
use crate::lease::Lease;
use crate::mem::Area;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Ringer;

/// Bytes of a record's length word.
pub const PREFIX: u64 = 8;
/// The low byte of a length word that belongs to a message.
const MESSAGE: u64 = 1;

/// How many bytes of the ring a payload of `len` bytes takes.
#[inline]
pub const fn record_size(len: u64) -> u64 {
    // Saturating: a length that no channel takes stays one.
    len.saturating_add(PREFIX + 7) & !7
}

/// The shared words of a channel and its bytes, as both ends see them.
pub struct Ring<'m> {
    /// All before it is committed.
    pub tail: &'m AtomicU64,
    /// All before it is released.
    pub head: &'m AtomicU64,
    /// The records.
    pub area: Area<'m>,
    /// Records committed (its producer) or released (its consumer): for people.
    pub messages: &'m AtomicU64,
    /// Whether this end may store where payloads lie (who was handed a sealed channel may not).
    pub writable: bool,
    /// How this end wakes the other.
    pub bell: Ringer<'m>,
}

impl<'m> Ring<'m> {
    fn split(self) -> (Words<'m>, Area<'m>, Count<'m>, Ringer<'m>) {
        let words = Words {
            tail: self.tail,
            head: self.head,
            capacity: self.area.ring(),
            gate: None,
            waits: true,
            writable: self.writable,
            unit: 8,
            ahead: 0,
        };
        (
            words,
            self.area,
            Count {
                word: self.messages,
                count: self.messages.load(Ordering::Relaxed),
            },
            self.bell,
        )
    }
}

/// Messages so far, for people: one writer, so a private count and a plain store.
struct Count<'m> {
    word: &'m AtomicU64,
    count: u64,
}

impl Count<'_> {
    #[inline]
    fn add(&mut self, messages: u64) {
        self.count = self.count.wrapping_add(messages);
        self.word.store(self.count, Ordering::Relaxed);
    }
}

/// The writing end.
pub struct Producer<'m> {
    writer: Writer<'m>,
    area: Area<'m>,
    messages: Count<'m>,
}

impl fmt::Debug for Producer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.writer.at())
            .field("capacity", &self.area.ring())
            .finish_non_exhaustive()
    }
}

impl<'m> Producer<'m> {
    /// Takes the writing end, going on at the committed tail.
    ///
    /// # Safety
    /// `ring` is the one that the other end has, too; nothing but the two ends writes its words or its
    /// payloads; no other producer of it exists until this one is gone.
    pub unsafe fn new(ring: Ring<'m>, peer: Peer<'m>, lease: &'m mut Lease) -> Result<Self, Error> {
        let (words, area, messages, bell) = ring.split();
        Ok(Producer {
            writer: Writer::new(words, bell, peer, lease)?,
            area,
            messages,
        })
    }

    /// Appends a record with `payload`: `Full`, `Disconnected`, `TooLarge`, `Corrupt`.
    #[inline]
    pub fn try_push(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.ensure(payload.len())?;
        // SAFETY: `ensure` saw room for the record behind the tail, and only we write there.
        unsafe { self.write(self.writer.at(), payload) };
        self.publish(record_size(payload.len() as u64), 1);
        Ok(())
    }

    /// Appends as many of `payloads` as fit, published as one, and says how many those were.
    ///
    /// Takes no item from the iterator that it cannot place, so it wants one that can be peeked.
    /// An oversize record ends the batch; alone at its start it is an error.
    pub fn try_push_iter<'a, I>(
        &mut self,
        payloads: &mut core::iter::Peekable<I>,
    ) -> Result<usize, Error>
    where
        I: Iterator<Item = &'a [u8]>,
    {
        let (mut size, mut count) = (0, 0);
        while let Some(payload) = payloads.peek() {
            match self.ensure_behind(size, payload.len()) {
                Ok(()) => {}
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
            // SAFETY: `ensure_behind` saw room at tail + size, and only we write there.
            unsafe { self.write(self.writer.at() + size, payload) };
            size += record_size(payload.len() as u64);
            count += 1;
            payloads.next();
        }
        // An iterator is anybody's code: it may have forked.
        if !self.writer.ours() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.publish(size, count);
        }
        Ok(count as usize)
    }

    /// Makes sure that a record of `len` payload bytes fits, without taking the space.
    #[inline]
    pub fn ensure(&mut self, len: usize) -> Result<(), Error> {
        self.ensure_behind(0, len)
    }

    /// As `ensure`, for a record that starts `skip` bytes behind the tail.
    #[inline]
    fn ensure_behind(&mut self, skip: u64, len: usize) -> Result<(), Error> {
        if len as u64 > self.area.largest_payload() {
            return Err(Error::TooLarge {
                asked: len as u64,
                max: self.area.largest_payload(),
            });
        }
        let size = record_size(len as u64);
        self.writer.ensure(skip + size, size)
    }

    /// Reserves a record of at most `len` payload bytes, to be written in place.
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_, 'm>, Error> {
        self.ensure(len)?;
        Ok(Reservation {
            producer: self,
            len,
        })
    }

    /// # Safety
    /// A record of that size fits at `position`, in space that is free and ours.
    #[inline]
    unsafe fn write(&self, position: u64, payload: &[u8]) {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.area.payload_mut(position, payload.len()) };
        bytes.copy_from_slice(payload);
        // SAFETY: the caller's promise.
        unsafe {
            self.area
                .store(position, (payload.len() as u64) << 8 | MESSAGE)
        };
    }

    #[inline]
    fn publish(&mut self, size: u64, messages: u64) {
        self.writer.commit(size);
        self.messages.add(messages);
    }

    /// Bytes of the ring that are committed and not released yet, length words included, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.writer.len()? as usize)
    }

    /// Whether every committed record is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// The bytes that the ring holds, length words included.
    pub fn capacity(&self) -> usize {
        self.area.ring() as usize
    }

    /// The largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.area.largest_payload() as usize
    }

    /// The bytes ever committed here, by all producers.
    pub fn position(&self) -> u64 {
        self.writer.at()
    }

    /// What is known of the consumer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.writer.peer
    }
}

/// A record reserved by a producer. Dropped without a commit it changes nothing; nor does a kill while it is
/// held: the successor writes in the same place.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct Reservation<'p, 'm> {
    producer: &'p mut Producer<'m>,
    len: usize,
}

impl fmt::Debug for Reservation<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.len)
            .field("position", &self.producer.writer.at())
            .finish_non_exhaustive()
    }
}

impl Reservation<'_, '_> {
    /// Publishes the record with the first `len` bytes, and gives up the rest of the space.
    ///
    /// # Panics
    /// If `len` is more than was reserved, as for a slice.
    #[inline]
    pub fn commit(self, len: usize) {
        assert!(
            len <= self.len,
            "commit of {len} bytes of a reservation of {}",
            self.len
        );
        if !self.producer.writer.ours() {
            return;
        }
        // SAFETY: the record lies in space that `ensure` saw free, and only we write there.
        unsafe {
            self.producer
                .area
                .store(self.producer.writer.at(), (len as u64) << 8 | MESSAGE)
        };
        self.producer.publish(record_size(len as u64), 1);
    }

    /// Gives the space up: the same as dropping the reservation.
    #[inline]
    pub fn discard(self) {}
}

impl Deref for Reservation<'_, '_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the record lies in space that `ensure` saw free, and only we write there.
        unsafe {
            self.producer
                .area
                .payload(self.producer.writer.at(), self.len)
        }
    }
}

impl DerefMut for Reservation<'_, '_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` borrows it once.
        unsafe {
            self.producer
                .area
                .payload_mut(self.producer.writer.at(), self.len)
        }
    }
}

/// The reading end.
pub struct Consumer<'m> {
    reader: Reader<'m>,
    area: Area<'m>,
    messages: Count<'m>,
    /// The size of the record that was released last.
    last: u64,
}

impl fmt::Debug for Consumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.reader.at())
            .field("capacity", &self.area.ring())
            .finish_non_exhaustive()
    }
}

impl<'m> Consumer<'m> {
    /// Takes the reading end, going on at the released head.
    ///
    /// # Safety
    /// `ring` is the one that the other end has, too; nothing but the two ends writes its words or its
    /// payloads; no other consumer of it exists until this one is gone.
    pub unsafe fn new(ring: Ring<'m>, peer: Peer<'m>, lease: &'m mut Lease) -> Result<Self, Error> {
        let (words, area, messages, bell) = ring.split();
        Ok(Consumer {
            reader: Reader::new(words, bell, peer, lease)?,
            area,
            messages,
            last: 0,
        })
    }

    /// The oldest record, in place: `Empty`, `Disconnected` (empty, and no producer), `Corrupt`.
    // Always: with `begin_guard` it is just beyond what the compiler takes for small.
    #[inline(always)]
    pub fn try_read(&mut self) -> Result<Record<'_, 'm>, Error> {
        self.ensure()?;
        let len = self.length(self.reader.at())?;
        self.reader.begin_guard();
        Ok(Record {
            consumer: self,
            len,
        })
    }

    /// Up to `max` records, in place: at least one, or an error.
    #[inline(always)]
    pub fn try_read_batch(&mut self, max: usize) -> Result<Records<'_, 'm>, Error> {
        self.ensure()?;
        let end = self.reader.at();
        self.reader.begin_guard();
        Ok(Records {
            consumer: self,
            last: end,
            end,
            count: 0,
            max,
        })
    }

    /// Copies the oldest record into `out`, and says its length. A record longer than `out` is
    /// `TooLarge` and stays.
    #[inline]
    pub fn try_pop(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.ensure()?;
        let len = self.length(self.reader.at())?;
        // It ends by name, and is never dropped: so without `begin_guard`.
        let record = Record {
            consumer: self,
            len,
        };
        match out.get_mut(..len) {
            Some(out) => {
                out.copy_from_slice(&record);
                record.release();
            }
            None => {
                record.keep();
                return Err(Error::TooLarge {
                    asked: len as u64,
                    max: out.len() as u64,
                });
            }
        }
        Ok(len)
    }

    /// Makes sure that there is a record, without taking it.
    #[inline]
    pub fn ensure(&mut self) -> Result<(), Error> {
        self.reader.ensure(self.last)
    }

    /// The checked payload length of the committed record at `position`.
    #[inline]
    fn length(&self, position: u64) -> Result<usize, Error> {
        // SAFETY: below what was acquired, and released only by us.
        let word = unsafe { self.area.load(position) };
        let len = word >> 8;
        let room = self
            .reader
            .end()
            .saturating_sub(position)
            .min(self.area.largest());
        // `room` is at least 8 behind `ensure`, so `room - PREFIX` is the longest that fits. The
        // second half holds the sum below 2^57: it cannot overflow.
        if word & 0xff == MESSAGE && record_size(len) <= room {
            return Ok(len as usize);
        }
        let expected = room.saturating_sub(PREFIX) << 8 | MESSAGE;
        Err(Corrupt {
            word: "record length",
            found: word,
            expected,
        }
        .into())
    }

    #[inline]
    fn release(&mut self, size: u64, messages: u64) {
        if self.reader.hands_back() {
            // SAFETY: before the tail, acquired, and not written until we release; nobody refers to them any more.
            unsafe { self.area.hand_back(self.reader.at(), size) };
        }
        self.reader.release(size);
        self.messages.add(messages);
        self.last = size;
    }

    /// Bytes of the ring that are committed and not released yet, length words included, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.reader.len()? as usize)
    }

    /// Whether every committed record is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// The bytes that the ring holds, length words included.
    pub fn capacity(&self) -> usize {
        self.area.ring() as usize
    }

    /// The largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.area.largest_payload() as usize
    }

    /// The bytes ever released here, by all consumers.
    pub fn position(&self) -> u64 {
        self.reader.at()
    }

    /// What is known of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.reader.peer
    }
}

/// A record read in place. Dropping it releases it; [`keep`](Self::keep) does not. Nor does a kill while it
/// is held, nor a drop by a panic that began while it was held (with the feature `std`): the next read sees it
/// again, or the successor's.
///
/// An early return by `?` is a drop like any other: where the record is to be read again after an error,
/// `if let Err(error) = handle(&record) { record.keep(); return Err(error) }`.
pub struct Record<'c, 'm> {
    consumer: &'c mut Consumer<'m>,
    len: usize,
}

impl fmt::Debug for Record<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("len", &self.len)
            .field("position", &self.consumer.reader.at())
            .finish_non_exhaustive()
    }
}

impl Record<'_, '_> {
    /// Releases the record: the same as dropping it, but also while panicking.
    #[inline]
    pub fn release(self) {
        let mut guard = ManuallyDrop::new(self);
        if guard.consumer.reader.ours() {
            let size = record_size(guard.len as u64);
            guard.consumer.release(size, 1);
        }
    }

    /// Leaves the record where it is, to be read again.
    #[inline]
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl Deref for Record<'_, '_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `length` found the record within what is committed; not written until released.
        unsafe {
            self.consumer
                .area
                .payload(self.consumer.reader.at(), self.len)
        }
    }
}

impl Drop for Record<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if self.consumer.reader.drop_releases() {
            self.consumer.release(record_size(self.len as u64), 1);
        }
    }
}

/// A run of records read in place, one after another, released together when this is dropped:
/// those that were returned, and no others. [`keep_last`](Self::keep_last) releases all of them but the last
/// one, [`keep`](Self::keep) none. A kill while it is held releases none, nor does a drop by a panic that
/// began while it was held (with the feature `std`): the next read sees them again, or the successor's.
///
/// An early return by `?` is a drop like any other, and releases the record that failed, too. A loop that may
/// fail keeps that one:
///
/// ```
/// fn handle_all(
///     mut batch: slipring_core::bytes::Records<'_, '_>,
///     handle: fn(&[u8]) -> Result<(), std::io::Error>,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     while let Some(record) = batch.next()? {
///         if let Err(error) = handle(record) {
///             batch.keep_last(); // it is read again, and those behind it
///             return Err(error.into());
///         }
///     }
///     Ok(())
/// }
/// # let _ = handle_all;
/// ```
pub struct Records<'c, 'm> {
    consumer: &'c mut Consumer<'m>,
    /// Where the record begins that was returned last.
    last: u64,
    end: u64,
    count: u64,
    max: usize,
}

impl fmt::Debug for Records<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("returned", &self.count)
            .field("max", &self.max)
            .field("position", &self.consumer.reader.at())
            .finish_non_exhaustive()
    }
}

impl Records<'_, '_> {
    /// The next record, or nothing: no more are committed, or `max` have been returned.
    /// (No `Iterator`: what it returns must not outlive `self`.)
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.count >= self.max as u64 || self.end >= self.consumer.reader.end() {
            return Ok(None);
        }
        let (start, len) = (self.end, self.consumer.length(self.end)?);
        self.last = start;
        self.end += record_size(len as u64);
        self.count += 1;
        // SAFETY: `length` found the record within what is committed; not written until released.
        Ok(Some(unsafe { self.consumer.area.payload(start, len) }))
    }

    /// Releases the records that were returned: the same as dropping the batch, but also while panicking.
    #[inline]
    pub fn release(self) {
        let mut guard = ManuallyDrop::new(self);
        let end = guard.end;
        let count = guard.count;
        guard.release_to(end, count);
    }

    /// Releases the records that were returned, but not the last one: the next read sees that again.
    #[inline]
    pub fn keep_last(self) {
        let mut guard = ManuallyDrop::new(self);
        let end = guard.last;
        let count = guard.count.saturating_sub(1);
        guard.release_to(end, count);
    }

    /// Releases nothing: the next read sees all of the records again.
    #[inline]
    pub fn keep(self) {
        core::mem::forget(self);
    }

    /// Releases the first `count` records, which end at `end`.
    #[inline]
    fn release_to(&mut self, end: u64, count: u64) {
        if count > 0 && self.consumer.reader.ours() {
            self.consumer
                .release(end - self.consumer.reader.at(), count);
        }
    }
}

impl Drop for Records<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 && self.consumer.reader.drop_releases() {
            self.release_to(self.end, self.count);
        }
    }
}

//! Passes records of varying size from one producer to one consumer, in one ring of bytes. Both
//! sides work in place. When the ring is full, the producer waits.
//!
//! # Guarantees
//! As for `spsc`: a commit is visible at once, `Full` is exact, and no call waits or allocates. No
//! record is lost or torn, and none is read twice but the one in hand of a killed consumer. And:
//! - A record is one contiguous run of bytes, 8-byte aligned, even at the ring's end.
//! - A producer may reserve a record at its largest size and commit it at its real one.
//!
//! # Refuses
//! A record above the largest size that the creator chose. The producer gets an error at once, and
//! changes nothing.
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
//! Positions count bytes from zero, always a multiple of 8. A record takes `8 + len` bytes of
//! *position*, rounded up to 8, even where part of it lies in the slack. The bytes at the ring's
//! start that it would have covered stay unused for that lap. So there are no padding records and
//! no mirror mapping, and one subtraction gives the free space.
//!
//! # Words
//! `tail` and `head`, in bytes, and the records between them. `cursor.rs` moves both positions. It
//! explains which end may touch which bytes when, with which ordering, and why that is right.
//!
//! # Why the slack does not break it
//! The producer writes a record of `n` bytes only when `n` bytes of position are free. So the bytes
//! up to the ring's end hold no unread record, nor do those at its start that the record skips. The
//! slack belongs to the one record of each lap that crosses the ring's end. That record is released
//! before one a lap later can be reserved there.
//!
//! A length word is in the consumer's hands from the acquire on. The consumer still reads it only
//! once, and checks it against what was committed, since a stranger may have overwritten it. A
//! wrong one leads to `Corrupt`, and to nothing worse.
//!
//! # Source
//! Ring as in `spsc`; the slack instead of a wrap marker is ours.

use core::fmt;
use core::mem::ManuallyDrop;

use crate::cached_limit::CachedLimit;
use crate::cursor::{self, Reader, Words, Writer};
use crate::end::{Endpoint, Poll, sealed::Sealed};
use crate::error::{Corrupt, Error};
use crate::guard::{self, Reserve};
use crate::mem::ByteRing;
use crate::outside::Outside;
use crate::record::{self, HoldRecord, PushRecord};
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

/// A record that a producer has reserved.
pub type Reservation<'p, 'm> = guard::Reservation<'p, Producer<'m>>;

/// A record that a consumer reads in place.
pub type Record<'c, 'm> = record::Record<'c, Consumer<'m>>;

/// Reads a `bytes` channel from outside.
pub(super) const OUTSIDE: Outside = Outside {
    // The seat's count of messages, since positions count bytes.
    messages: |view, seat| {
        let words = view.seat(seat);
        words.map_or(0, |words| words.counters.messages.load(Ordering::Relaxed))
    },
    ..cursor::OUTSIDE
};

/// The size of a record's length word, in bytes.
pub const PREFIX: u64 = 8;
/// The low byte of a length word that belongs to a message.
const MESSAGE: u64 = 1;

/// Returns the number of bytes of the ring that a payload of `len` bytes takes.
#[inline]
pub const fn record_size(len: u64) -> u64 {
    // Saturating: a length that no channel takes remains one.
    len.saturating_add(PREFIX + 7) & !7
}

/// The shared words of a channel and its bytes, as both ends see them.
pub struct Ring<'m> {
    /// The position before which everything is committed.
    pub tail: &'m AtomicU64,
    /// The position before which everything is released.
    pub head: &'m AtomicU64,
    /// The records.
    pub records: ByteRing<'m>,
    /// The number of records that were committed (its producer) or released (its consumer). For
    /// people.
    pub messages: &'m AtomicU64,
    /// `true` if this end may store into the payload memory. An end that was handed a sealed
    /// channel may not.
    pub writable: bool,
    /// Wakes the other end.
    pub notifier: Notifier<'m>,
}

impl<'m> Ring<'m> {
    fn split(self) -> (Words<'m>, ByteRing<'m>, Count<'m>, Notifier<'m>) {
        let words = Words {
            tail: self.tail,
            head: self.head,
            capacity: self.records.ring(),
            write_limit: None,
            waits: true,
            writable: self.writable,
            unit: 8,
            ahead: 0,
        };
        (
            words,
            self.records,
            Count {
                word: self.messages,
                count: self.messages.load(Ordering::Relaxed),
            },
            self.notifier,
        )
    }
}

/// Counts messages, for people. It has one writer, so a private count and a plain store do.
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
    records: ByteRing<'m>,
    messages: Count<'m>,
}

impl fmt::Debug for Producer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.writer.at())
            .field("capacity", &self.records.ring())
            .finish_non_exhaustive()
    }
}

impl<'m> Producer<'m> {
    /// Takes the writing end, going on at the committed tail.
    ///
    /// # Safety
    /// - `ring` is the one that the other end has, too.
    /// - Only the two ends write its words and its payloads.
    /// - No other producer of it exists until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let (words, records, messages, notifier) = ring.split();
        Ok(Producer {
            writer: Writer::new(words, notifier, peer, cached_limit)?,
            records,
            messages,
        })
    }

    /// Appends as many of `payloads` as fit, published as one, and returns their number.
    ///
    /// Takes no item from the iterator that it cannot place, so it needs one that can be peeked. An
    /// oversize record ends the batch; at the batch's start it is an error.
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
        // An iterator may run any code: it may have forked.
        if !self.writer.ours() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.publish(size, count);
        }
        Ok(count as usize)
    }

    /// Makes sure, like `ensure`, that there is room for a record that starts `skip` bytes behind
    /// the tail.
    #[inline]
    fn ensure_behind(&mut self, skip: u64, len: usize) -> Result<(), Error> {
        let size = record_size(len as u64);
        if len as u64 > self.records.largest_payload() {
            return self.slow_path(len);
        }
        match self.writer.poll(skip + size, size) {
            Poll::Ready => Ok(()),
            Poll::NotReady => Err(Self::NOT_READY),
            Poll::Unclear => self.writer.slow_path(skip + size),
        }
    }

    /// Writes a record's payload and length word.
    ///
    /// # Safety
    /// A record of that size fits at `position`, in space that is free and ours.
    #[inline]
    unsafe fn write(&self, position: u64, payload: &[u8]) {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.records.payload_mut(position, payload.len()) };
        bytes.copy_from_slice(payload);
        // SAFETY: the caller's promise.
        unsafe {
            self.records
                .store(position, (payload.len() as u64) << 8 | MESSAGE)
        };
    }

    #[inline]
    fn publish(&mut self, size: u64, messages: u64) {
        self.writer.commit(size);
        self.messages.add(messages);
    }
}

impl Sealed for Producer<'_> {}

impl Endpoint for Producer<'_> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        if amount as u64 > self.records.largest_payload() {
            return Poll::Unclear;
        }
        let size = record_size(amount as u64);
        self.writer.poll(size, size)
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        let size = self.room_for(amount)?;
        self.writer.slow_path(size)
    }

    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.writer.peer))
    }

    fn capacity(&self) -> usize {
        self.records.ring() as usize
    }

    fn position(&self) -> u64 {
        self.writer.at()
    }

    fn len(&self) -> Result<usize, Error> {
        Ok(self.writer.len()? as usize)
    }
}

impl Reserve for Producer<'_> {
    fn fail_alone(&mut self, on: bool) {
        self.writer.fail_alone(on);
    }

    fn room_for(&self, amount: usize) -> Result<u64, Error> {
        let (asked, max) = (amount as u64, self.records.largest_payload());
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        Ok(record_size(asked))
    }

    #[inline]
    unsafe fn commit_claimed(&mut self, amount: usize) {
        if !self.writer.ours() {
            return;
        }
        // SAFETY: the record lies in space that was claimed, and only we write there.
        unsafe {
            self.records
                .store(self.writer.at(), (amount as u64) << 8 | MESSAGE)
        };
        self.publish(record_size(amount as u64), 1);
    }
}

impl PushRecord for Producer<'_> {
    fn max_record(&self) -> usize {
        self.records.largest_payload() as usize
    }

    #[inline]
    unsafe fn put_record(&mut self, payload: &[u8]) -> bool {
        // SAFETY: the poll saw room for the record behind the tail, and only we write there.
        unsafe { self.write(self.writer.at(), payload) };
        self.publish(record_size(payload.len() as u64), 1);
        true
    }

    #[inline]
    unsafe fn claimed<'a>(&self, len: usize) -> &'a [u8] {
        // SAFETY: the record lies in space that the claim saw free, and only we write there.
        unsafe { self.records.payload(self.writer.at(), len) }
    }

    #[inline]
    unsafe fn claimed_mut<'a>(&mut self, len: usize) -> &'a mut [u8] {
        // SAFETY: as in `claimed`; the caller has no other reference to it.
        unsafe { self.records.payload_mut(self.writer.at(), len) }
    }
}

/// The reading end.
pub struct Consumer<'m> {
    reader: Reader<'m>,
    records: ByteRing<'m>,
    messages: Count<'m>,
    /// The size of the record that was released last.
    last: u64,
}

impl fmt::Debug for Consumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.reader.at())
            .field("capacity", &self.records.ring())
            .finish_non_exhaustive()
    }
}

impl<'m> Consumer<'m> {
    /// Takes the reading end, going on at the released head.
    ///
    /// # Safety
    /// - `ring` is the one that the other end has, too.
    /// - Only the two ends write its words and its payloads.
    /// - No other consumer of it exists until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let (words, records, messages, notifier) = ring.split();
        Ok(Consumer {
            reader: Reader::new(words, notifier, peer, cached_limit)?,
            records,
            messages,
            last: 0,
        })
    }

    /// Returns the oldest record in place and does not release it. Fails as
    /// [`try_read`](HoldRecord::try_read).
    #[inline]
    pub fn try_peek(&mut self) -> Result<&[u8], Error> {
        self.ensure(1)?;
        let len = self.length(self.reader.at())?;
        // SAFETY: `length` found the record within what is committed. It is not written until
        // released, which needs `&mut self`.
        Ok(unsafe { self.records.payload(self.reader.at(), len) })
    }

    /// Reads up to `max` records in place: at least one, or an error.
    #[inline]
    pub fn try_read_batch(&mut self, max: usize) -> Result<Records<'_, 'm>, Error> {
        self.ensure(1)?;
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

    /// Returns the checked payload length of the committed record at `position`.
    #[inline]
    fn length(&self, position: u64) -> Result<usize, Error> {
        // SAFETY: the record lies below the acquired tail, and only we release it.
        let word = unsafe { self.records.load(position) };
        let len = word >> 8;
        let room = self
            .reader
            .end()
            .saturating_sub(position)
            .min(self.records.largest());
        // After `ensure`, `room` is at least 8, so `room - PREFIX` is the longest that fits. The
        // shift by 8 holds the sum below 2^57, so it cannot overflow.
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
        if self.reader.transfers_lines() {
            // SAFETY: the records lie before the acquired tail, and are not written until we
            // release; no reference to them is left.
            unsafe { self.records.transfer_lines(self.reader.at(), size) };
        }
        self.reader.release(size);
        self.messages.add(messages);
        self.last = size;
    }
}

impl Sealed for Consumer<'_> {}

impl Endpoint for Consumer<'_> {
    const NOT_READY: Error = Error::Empty;

    #[inline]
    fn poll(&mut self, _: usize) -> Poll {
        self.reader.poll(self.last)
    }

    fn slow_path(&mut self, _: usize) -> Result<(), Error> {
        self.reader.slow_path()
    }

    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.reader.peer))
    }

    fn capacity(&self) -> usize {
        self.records.ring() as usize
    }

    fn position(&self) -> u64 {
        self.reader.at()
    }

    fn len(&self) -> Result<usize, Error> {
        Ok(self.reader.len()? as usize)
    }
}

impl HoldRecord for Consumer<'_> {
    fn max_record(&self) -> usize {
        self.records.largest_payload() as usize
    }

    #[inline]
    fn hold_record(&mut self) -> Result<usize, Error> {
        self.ensure(1)?;
        self.length(self.reader.at())
    }

    #[inline]
    unsafe fn held_record<'a>(&self, len: usize) -> &'a [u8] {
        // SAFETY: `length` found the record within what is committed; it is not written until
        // released.
        unsafe { self.records.payload(self.reader.at(), len) }
    }

    #[inline]
    unsafe fn release_record(&mut self, len: usize) {
        if self.reader.ours() {
            self.release(record_size(len as u64), 1);
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

/// A run of records read in place, one after another.
///
/// Dropping it releases the records that were returned, and no others.
/// [`keep_last`](Self::keep_last) releases all of them but the last one, [`keep`](Self::keep) none.
/// A kill while it is held releases none. With the feature `std`, nor does a drop while the thread
/// is panicking. The next read, or the successor's, sees the records again.
///
/// An early return by `?` is a drop like any other, and releases the record that failed, too. A
/// loop that may fail keeps that one:
///
/// ```
/// # mod slipring {
/// #     pub mod bytes {
/// #         pub type Records<'c> = slipring_core::proto::bytes::Records<'c, 'static>;
/// #     }
/// # }
/// use slipring::bytes::Records;
///
/// fn handle_all(
///     mut batch: Records<'_>,
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
    /// The position of the record that was returned last.
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
    /// Returns the next record, or `None` if no more are committed or `max` have been returned.
    ///
    /// This is no `Iterator`, since a record must not outlive the borrow of `self`.
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
        // SAFETY: `length` found the record within what is committed; it is not written until
        // released.
        Ok(Some(unsafe { self.consumer.records.payload(start, len) }))
    }

    /// Releases the records that were returned, as dropping the batch does, but also while
    /// panicking.
    #[inline]
    pub fn release(self) {
        let mut guard = ManuallyDrop::new(self);
        let end = guard.end;
        let count = guard.count;
        guard.release_to(end, count);
    }

    /// Releases the records that were returned, except the last one, which the next read sees
    /// again.
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

//! Packs records of varying size one behind another into a ring of bytes, and reads them there. The
//! kinds of such records use it: one consumer or many, whatever moves the positions.
//!
//! # Guarantees
//! - A record is one contiguous run of bytes, 8-byte aligned, even at the ring's end.
//! - A producer may reserve a record at its largest size and commit it at its real one.
//! - A length that a stranger wrote leads to `Corrupt`, and to nothing worse.
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
//! # Why the slack does not break it
//! The producer writes a record of `n` bytes only when `n` bytes of position are free. So the bytes
//! up to the ring's end hold no unread record, nor do those at its start that the record skips. The
//! slack belongs to the one record of each lap that crosses the ring's end. That record is released
//! before one a lap later can be reserved there.
//!
//! A length word is in a consumer's hands from the acquire on. The consumer still reads it only once, and checks it against what was committed, since a stranger may have overwritten it. A
//! wrong one leads to `Corrupt`, and to nothing worse.
//!
//! # Source
//! The slack instead of a wrap marker is ours.

use core::fmt;
use core::iter::Peekable;

use crate::cursor::{Reader, Writer};
use crate::end::{Endpoint, Poll, sealed::Sealed};
use crate::error::{Corrupt, Error, ResizeError};
use crate::guard::Reserve;
use crate::mem::ByteRing;
use crate::outside::View;
use crate::record::{HoldRecord, HoldRecords, PushRecord, PushRecords};
use crate::rings::{Resize, Sizing};
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};

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

/// Returns the number of records that the holders of this seat committed or released, for a view
/// from outside. Positions count bytes.
pub(crate) fn messages(view: &View<'_>, seat: usize) -> u64 {
    let words = view.seat(seat);
    words.map_or(0, |words| words.counters.messages.load(Ordering::Relaxed))
}

/// The writing side of the positions: it knows how much is free, and moves the tail. All amounts are
/// in bytes of position.
///
/// Two implement it: `cursor::Writer`, for one reader, and the gate of many readers.
pub trait Room<'m>: Sealed {
    /// Returns the writer's own position.
    fn at(&self) -> u64;

    /// Returns `true` if this is the handle that took the seat, and not a forked copy.
    fn ours(&self) -> bool;

    /// Checks if `wanted` is free, where one record takes `message`.
    fn poll(&mut self, wanted: u64, message: u64) -> Poll;

    /// Decides a poll that was [`Poll::Unclear`].
    ///
    /// With `records`, none is written that is not committed, so the ring may be resized.
    fn slow_path(
        &mut self,
        wanted: u64,
        message: u64,
        records: Option<&mut ByteRing<'m>>,
    ) -> Result<(), Error>;

    /// As [`Endpoint::settle`].
    fn settle(&mut self, _records: &mut ByteRing<'m>) {}

    /// Gives everything up to the new tail to the readers.
    fn commit(&mut self, amount: u64);

    /// Ends a step that found room, so that a producer that is to fail alone asks again.
    fn end_step(&mut self) {}

    /// As [`Reserve::fail_alone`].
    fn fail_alone(&mut self, on: bool);

    /// Returns the amount that is committed and not released.
    fn used(&self) -> Result<u64, Error>;

    /// As [`Endpoint::with_peer`].
    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R>;
}

impl Sealed for Writer<'_> {}

impl<'m> Room<'m> for Writer<'m> {
    #[inline]
    fn at(&self) -> u64 {
        self.at()
    }

    #[inline]
    fn ours(&self) -> bool {
        self.ours()
    }

    #[inline]
    fn poll(&mut self, wanted: u64, message: u64) -> Poll {
        self.poll(wanted, message)
    }

    fn slow_path(
        &mut self,
        wanted: u64,
        _: u64,
        records: Option<&mut ByteRing<'m>>,
    ) -> Result<(), Error> {
        self.slow_path(wanted, records)
    }

    fn settle(&mut self, records: &mut ByteRing<'m>) {
        self.settle(records);
    }

    #[inline]
    fn commit(&mut self, amount: u64) {
        self.commit(amount);
    }

    fn fail_alone(&mut self, on: bool) {
        self.fail_alone(on);
    }

    fn used(&self) -> Result<u64, Error> {
        self.len()
    }

    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.peer))
    }
}

/// Returns the checked payload length of the record at `position`, which ends at `end` or before.
///
/// # Safety
/// A record that was committed starts there, unless `position` is `end`, and no role writes it now.
#[inline]
unsafe fn length(records: &ByteRing<'_>, position: u64, end: u64) -> Result<usize, Corrupt> {
    // SAFETY: the caller's promise.
    let word = unsafe { records.load(position) };
    let room = end.saturating_sub(position).min(records.largest());
    checked_length(word, room)
}

/// Returns the payload length that a length word holds, for a record that takes at most `room` bytes of position.
#[inline]
pub(crate) fn checked_length(word: u64, room: u64) -> Result<usize, Corrupt> {
    let len = word >> 8;
    // A record that was committed has a `room` of at least 8, so `room - PREFIX` is the longest that
    // fits. The shift by 8 holds the sum below 2^57, so it cannot overflow.
    if word & 0xff == MESSAGE && record_size(len) <= room {
        return Ok(len as usize);
    }
    Err(Corrupt {
        word: "record length",
        found: word,
        expected: room.saturating_sub(PREFIX) << 8 | MESSAGE,
    })
}

/// Returns the position of the first record that begins at `to` or behind it, or `end`. Goes from
/// the record at `from` to each next one.
///
/// # Safety
/// Records lie from `from` up to `end`, where `to` is not beyond, and no role writes them now.
pub(crate) unsafe fn boundary(
    records: &ByteRing<'_>,
    from: u64,
    to: u64,
    end: u64,
) -> Result<u64, Corrupt> {
    let mut at = from;
    while at < to {
        // SAFETY: the caller's promise; a checked length leads to the next record.
        at += record_size(unsafe { length(records, at, end) }? as u64);
    }
    Ok(at)
}

/// Counts messages, for people. It has one writer, so a private count and a plain store do.
struct Count<'m> {
    word: &'m AtomicU64,
    count: u64,
}

impl<'m> Count<'m> {
    /// Goes on where the last holder of the seat stopped.
    fn of(word: &'m AtomicU64) -> Count<'m> {
        Count {
            word,
            count: word.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn add(&mut self, messages: u64) {
        self.count = self.count.wrapping_add(messages);
        self.word.store(self.count, Ordering::Relaxed);
    }
}

/// The writing end.
pub struct Producer<'m, R> {
    room: R,
    records: ByteRing<'m>,
    messages: Count<'m>,
}

impl<'m, R: Room<'m>> fmt::Debug for Producer<'m, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.room.at())
            .field("capacity", &self.records.ring())
            .finish_non_exhaustive()
    }
}

impl<'m, R: Room<'m>> Producer<'m, R> {
    /// Makes the writing end of a ring in which `room` moves the tail, and counts records in
    /// `messages`.
    ///
    /// # Safety
    /// A part of `records` that `room` finds free is free, and no other role has access to it until it is committed.
    pub(crate) unsafe fn over(room: R, records: ByteRing<'m>, messages: &'m AtomicU64) -> Self {
        Producer {
            room,
            records,
            messages: Count::of(messages),
        }
    }

    /// Makes sure, like `ensure`, that there is room for a record that starts `skip` bytes behind
    /// the tail.
    #[inline]
    fn ensure_behind(&mut self, skip: u64, len: usize) -> Result<(), Error> {
        let size = record_size(len as u64);
        if len as u64 > self.records.largest_payload() {
            return self.slow_path(len);
        }
        match self.room.poll(skip + size, size) {
            Poll::Ready => Ok(()),
            Poll::NotReady => Err(Self::NOT_READY),
            Poll::Unclear => {
                let records = (skip == 0).then_some(&mut self.records);
                self.room.slow_path(skip + size, size, records)
            }
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
        self.room.commit(size);
        self.messages.add(messages);
    }
}

impl<R> Sealed for Producer<'_, R> {}

impl<'m, R: Room<'m>> Endpoint for Producer<'m, R> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        if amount as u64 > self.records.largest_payload() {
            return Poll::Unclear;
        }
        let size = record_size(amount as u64);
        self.room.poll(size, size)
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        let size = self.room_for(amount)?;
        self.room.slow_path(size, size, Some(&mut self.records))
    }

    fn settle(&mut self, _: u32) -> bool {
        self.room.settle(&mut self.records);
        false
    }

    #[inline]
    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        self.ensure(amount)?;
        self.room.end_step();
        Ok(())
    }

    fn with_peer<A>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> A) -> Option<A> {
        self.room.with_peer(ask)
    }

    fn capacity(&self) -> usize {
        self.records.ring() as usize
    }

    fn position(&self) -> u64 {
        self.room.at()
    }

    fn len(&self) -> Result<usize, Error> {
        Ok(self.room.used()? as usize)
    }
}

impl<'m> Resize for Producer<'m, Writer<'m>> {
    fn resize(&mut self, capacity: u64) -> Result<(), ResizeError> {
        self.room.resize(capacity, &mut self.records)
    }

    fn set_sizing(&mut self, sizing: Sizing) {
        self.room.set_sizing(sizing);
    }

    fn max_capacity(&self) -> u64 {
        self.room.max_capacity()
    }
}

impl<'m, R: Room<'m>> Reserve for Producer<'m, R> {
    /// Claims a record of up to `amount` bytes. Whatever becomes of it, the next step asks again if
    /// this producer is to fail alone.
    #[inline]
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        self.ready(amount)
    }

    fn fail_alone(&mut self, on: bool) {
        self.room.fail_alone(on);
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
        if !self.room.ours() {
            return;
        }
        // SAFETY: the record lies in space that was claimed, and only we write there.
        unsafe {
            self.records
                .store(self.room.at(), (amount as u64) << 8 | MESSAGE)
        };
        self.publish(record_size(amount as u64), 1);
    }
}

impl<'m, R: Room<'m>> PushRecord for Producer<'m, R> {
    fn max_record(&self) -> usize {
        self.records.largest_payload() as usize
    }

    #[inline]
    unsafe fn put_record(&mut self, payload: &[u8]) -> bool {
        // SAFETY: the poll saw room for the record behind the tail, and only we write there.
        unsafe { self.write(self.room.at(), payload) };
        self.publish(record_size(payload.len() as u64), 1);
        true
    }

    #[inline]
    unsafe fn claimed<'a>(&self, len: usize) -> &'a [u8] {
        // SAFETY: the record lies in space that the claim saw free, and only we write there.
        unsafe { self.records.payload(self.room.at(), len) }
    }

    #[inline]
    unsafe fn claimed_mut<'a>(&mut self, len: usize) -> &'a mut [u8] {
        // SAFETY: as in `claimed`; the caller has no other reference to it.
        unsafe { self.records.payload_mut(self.room.at(), len) }
    }
}

impl<'m, R: Room<'m>> PushRecords for Producer<'m, R> {
    fn try_push_iter<'a, I>(&mut self, payloads: &mut Peekable<I>) -> Result<usize, Error>
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
            unsafe { self.write(self.room.at() + size, payload) };
            size += record_size(payload.len() as u64);
            count += 1;
            payloads.next();
        }
        // An iterator may run any code: it may have forked.
        if !self.room.ours() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.publish(size, count);
        }
        self.room.end_step();
        Ok(count as usize)
    }
}

/// The reading end.
pub struct Consumer<'m, P = ()> {
    pub(crate) reader: Reader<'m>,
    records: ByteRing<'m>,
    messages: Count<'m>,
    /// The size of the record that was released last.
    last: u64,
    /// The kind's own knowledge of its place.
    pub(crate) place: P,
}

impl<P> fmt::Debug for Consumer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.reader.at())
            .field("capacity", &self.records.ring())
            .finish_non_exhaustive()
    }
}

impl<'m, P> Consumer<'m, P> {
    /// Makes the reading end of a ring in which `reader` moves the head, and counts records in
    /// `messages`.
    ///
    /// # Safety
    /// A part of `records` that `reader` finds committed is not written by any role until the reader releases it.
    pub(crate) unsafe fn over(
        reader: Reader<'m>,
        records: ByteRing<'m>,
        messages: &'m AtomicU64,
        place: P,
    ) -> Self {
        Consumer {
            reader,
            records,
            messages: Count::of(messages),
            last: 0,
            place,
        }
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

    /// Returns the checked payload length of the committed record at `position`.
    #[inline]
    fn length(&self, position: u64) -> Result<usize, Error> {
        // SAFETY: the record lies below the acquired tail, and only we release it.
        Ok(unsafe { length(&self.records, position, self.reader.end()) }?)
    }

    /// Goes on at the first record that begins at `to` or behind it. `to` is not beyond the tail,
    /// and not before the place where this end stands.
    pub(crate) fn go_forward(&mut self, to: u64) -> Result<(), Error> {
        let from = self.reader.at();
        if from < to {
            self.ensure(1)?;
            // SAFETY: the records lie below the acquired tail, and only we release them.
            let at = unsafe { boundary(&self.records, from, to, self.reader.end()) }?;
            self.reader.go_to(at, 0);
        }
        Ok(())
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

impl<P> Sealed for Consumer<'_, P> {}

impl<P> Endpoint for Consumer<'_, P> {
    const NOT_READY: Error = Error::Empty;

    #[inline]
    fn poll(&mut self, _: usize) -> Poll {
        let found = self.reader.poll(self.last);
        if found == Poll::NotReady {
            self.records.prefetch_awaited(self.reader.at());
        }
        found
    }

    fn slow_path(&mut self, _: usize) -> Result<(), Error> {
        self.reader.slow_path(&mut self.records)
    }

    fn settle(&mut self, steps: u32) -> bool {
        self.reader.settle(steps, &mut self.records)
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

impl<P> HoldRecord for Consumer<'_, P> {
    fn max_record(&self) -> usize {
        self.records.largest_payload() as usize
    }

    #[inline]
    fn hold_record(&mut self) -> Result<usize, Error> {
        self.ensure(1)?;
        let at = self.reader.at();
        let len = self.length(at)?;
        self.records.prefetch_behind(at, len, self.reader.known());
        Ok(len)
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

impl<P> HoldRecords for Consumer<'_, P> {
    #[inline]
    fn hold_records(&mut self, max: usize) -> Result<(u64, u64), Error> {
        self.ensure(1)?;
        Ok((self.reader.at(), max as u64))
    }

    #[inline]
    fn pass_record(&self, place: &mut u64) -> Result<Option<usize>, Error> {
        if *place >= self.reader.end() {
            return Ok(None);
        }
        let len = self.length(*place)?;
        *place += record_size(len as u64);
        Ok(Some(len))
    }

    #[inline]
    unsafe fn record_at<'a>(&self, place: u64, len: usize) -> &'a [u8] {
        // SAFETY: the caller's promise; `length` found the record within what is committed, and it is not written until
        // released.
        unsafe { self.records.payload(place, len) }
    }

    #[inline]
    unsafe fn finish_records(&mut self, count: u64, end: u64) {
        if count > 0 && self.reader.ours() {
            self.release(end - self.reader.at(), count);
        }
    }
}

//! Defines the traits that the ends of kinds with records implement, and writes the verbs of records
//! once over them.
//!
//! A record is a byte string with a length of its own. A kind has either these traits or
//! [`Push`](crate::end::Push), [`Pop`](crate::end::Pop) and [`Hold`](crate::guard::Hold), which are
//! for values of one type.
//!
//! | trait | what it adds | the like for slots |
//! |---|---|---|
//! | [`PushRecord`] | appends a record; gives the bytes of a reserved one | `Push` |
//! | [`HoldRecord`] | reads a record in place, releases it; the copying verbs use this too | `Pop`, `Hold` |
//! | [`PushRecords`] | appends several records, published as one | `Push::try_push_iter` |
//! | [`HoldRecords`] | reads several records in place | `Hold` |
//!
//! A poll may be out of date here as well, and every verb then tries again: see
//! [`end`](crate::end).

use core::fmt;
use core::iter::Peekable;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use crate::end::Endpoint;
use crate::error::Error;
use crate::guard::{Reservation, Reserve};

/// A producer of records.
///
/// An `amount` is the length of one record's payload, in bytes.
pub trait PushRecord: Reserve {
    /// Returns the largest payload of one record, in bytes.
    fn max_record(&self) -> usize;

    /// Appends a record with `payload`; returns `false`, and appends nothing, if another producer
    /// took the room.
    ///
    /// # Safety
    /// `poll(payload.len())`, or a poll of more, returned `Ready`, or `ensure` succeeded. Nothing
    /// was appended since, and this process is not a fork of the one that asked.
    unsafe fn put_record(&mut self, payload: &[u8]) -> bool;

    /// Returns the first `len` bytes of the claimed record.
    ///
    /// # Safety
    /// A claim of at least `len` succeeded, and nothing was committed since. The caller does not
    /// use the reference after the commit, nor beside one from [`claimed_mut`](Self::claimed_mut).
    unsafe fn claimed<'a>(&self, len: usize) -> &'a [u8];

    /// Returns the same bytes as [`claimed`](Self::claimed), for writing.
    ///
    /// # Safety
    /// As for `claimed`, and the caller uses no other reference to these bytes beside it.
    unsafe fn claimed_mut<'a>(&mut self, len: usize) -> &'a mut [u8];

    /// Appends a record with `payload`.
    ///
    /// Fails with `Full`, `Disconnected` (full, and no consumer), `TooLarge`, `Forked` or
    /// `Corrupt`.
    #[inline]
    fn try_push(&mut self, payload: &[u8]) -> Result<(), Error> {
        loop {
            self.ensure(payload.len())?;
            // SAFETY: `ensure` succeeded just now.
            if unsafe { self.put_record(payload) } {
                return Ok(());
            }
        }
    }
}

/// A producer that appends several records at once.
pub trait PushRecords: PushRecord {
    /// Appends as many of `payloads` as fit, and returns their number: at least one, or an error; 0 only if there are none.
    /// They are published as one; in a work queue, as few times as the iterator's `size_hint` allows.
    ///
    /// Takes no item from the iterator that it cannot place, so it needs one that can be peeked. An
    /// oversize record ends the batch; at the batch's start it is an error.
    fn try_push_iter<'a, I>(&mut self, payloads: &mut Peekable<I>) -> Result<usize, Error>
    where
        I: Iterator<Item = &'a [u8]>;
}

impl<P: PushRecord> Deref for Reservation<'_, P> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the guard holds a claim of `amount`, and its borrow ends before it commits.
        unsafe { self.producer.claimed(self.amount) }
    }
}

impl<P: PushRecord> DerefMut for Reservation<'_, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` borrows it once.
        unsafe { self.producer.claimed_mut(self.amount) }
    }
}

/// A consumer of records. They do not change before it releases them.
pub trait HoldRecord: Endpoint {
    /// Returns the largest payload of one record, in bytes.
    fn max_record(&self) -> usize;

    /// Holds the oldest record in place and returns the length of its payload.
    ///
    /// The length is checked: a peer may have written any. Fails with `Empty`, also if another
    /// consumer took the record, with `Disconnected` (empty, and no producer), `Forked` or
    /// `Corrupt`.
    fn hold_record(&mut self) -> Result<usize, Error>;

    /// Returns the payload of the held record.
    ///
    /// # Safety
    /// [`hold_record`](Self::hold_record) returned `len`, and nothing was released since. The caller
    /// does not use the reference after the release.
    unsafe fn held_record<'a>(&self, len: usize) -> &'a [u8];

    /// Releases the held record. Does nothing in a forked child.
    ///
    /// # Safety
    /// `hold_record` returned `len`, nothing was released since, and no reference to that record is used any more.
    unsafe fn release_record(&mut self, len: usize);

    /// Leaves the held record to be read again. Does nothing in a forked child, nor where holding changes no shared word.
    ///
    /// # Safety
    /// As for [`release_record`](Self::release_record).
    #[inline]
    unsafe fn keep_record(&mut self) {}

    /// Prepares [`drop_releases`](Self::drop_releases), when a guard is made.
    fn begin_guard(&mut self);

    /// Returns `true` if a guard that goes out of scope releases its record.
    ///
    /// It does not if its thread began to panic since the guard was made.
    fn drop_releases(&self) -> bool;

    /// Reads the oldest record in place. Fails as [`hold_record`](Self::hold_record).
    #[inline]
    fn try_read(&mut self) -> Result<Record<'_, Self>, Error>
    where
        Self: Sized,
    {
        let len = self.hold_record()?;
        // SAFETY: the line above.
        Ok(unsafe { Record::of_held(self, len) })
    }

    /// Copies the oldest record into `out`, and returns its length.
    ///
    /// A record longer than `out` fails with `TooLarge` and stays.
    #[inline]
    fn try_pop(&mut self, out: &mut [u8]) -> Result<usize, Error>
    where
        Self: Sized,
    {
        // Without a guard: nothing here can panic, so no drop has to decide.
        let len = self.hold_record()?;
        match out.get_mut(..len) {
            Some(out) => {
                // SAFETY: held just now; this reference ends before the release.
                out.copy_from_slice(unsafe { self.held_record(len) });
                // SAFETY: as above.
                unsafe { self.release_record(len) };
            }
            None => {
                // SAFETY: held just now.
                unsafe { self.keep_record() };
                return Err(Error::TooLarge {
                    asked: len as u64,
                    max: out.len() as u64,
                });
            }
        }
        Ok(len)
    }
}

/// A record read in place.
///
/// Dropping it releases it; [`keep`](Self::keep) does not. Nor does a kill while it is held. With
/// the feature `std`, nor does a drop by a panic that began after the read. The next read, or the
/// successor's, sees the record again.
///
/// An early return by `?` is a drop like any other. To read the record again after an error, write
/// `if let Err(error) = handle(&record) { record.keep(); return Err(error) }`.
pub struct Record<'c, C: HoldRecord> {
    pub(crate) consumer: &'c mut C,
    len: usize,
}

impl<C: HoldRecord> fmt::Debug for Record<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("len", &self.len)
            .field("position", &self.consumer.position())
            .finish_non_exhaustive()
    }
}

impl<'c, C: HoldRecord> Record<'c, C> {
    /// Makes the guard of the record that `hold_record` has just found.
    ///
    /// # Safety
    /// `hold_record` returned `len` just now.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn of_held(consumer: &'c mut C, len: usize) -> Self {
        consumer.begin_guard();
        Record { consumer, len }
    }

    /// Releases the record, as dropping it does, but also while panicking.
    #[inline]
    pub fn release(self) {
        let mut guard = ManuallyDrop::new(self);
        let len = guard.len;
        // SAFETY: the record is held, and this consumes the guard, which every reference borrows.
        unsafe { guard.consumer.release_record(len) };
    }

    /// Leaves the record where it is, to be read again.
    #[inline]
    pub fn keep(self) {
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: as in `release`.
        unsafe { guard.consumer.keep_record() };
    }
}

impl<C: HoldRecord> Deref for Record<'_, C> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the guard holds the record, and its borrow ends before it releases.
        unsafe { self.consumer.held_record(self.len) }
    }
}

impl<C: HoldRecord> Drop for Record<'_, C> {
    #[inline]
    fn drop(&mut self) {
        if self.consumer.drop_releases() {
            // SAFETY: the record is held; no reference outlives the guard.
            unsafe { self.consumer.release_record(self.len) };
        } else {
            // SAFETY: as above.
            unsafe { self.consumer.keep_record() };
        }
    }
}

/// A consumer that reads several records in place at once.
///
/// A *place* tells where a record lies: its position, or its number within the batch.
pub trait HoldRecords: HoldRecord {
    /// Holds up to `max` records and returns the place of the first, and the number of records that may be passed.
    ///
    /// At least one is there, or this fails as [`hold_record`](HoldRecord::hold_record).
    fn hold_records(&mut self, max: usize) -> Result<(u64, u64), Error>;

    /// Returns the length of the held record at `place`, which is checked, and moves `place` behind it; `None` if no more
    /// are held.
    ///
    /// A length that a stranger wrote is `Corrupt`. Then `place` moves only if there is a way on behind that record.
    fn pass_record(&self, place: &mut u64) -> Result<Option<usize>, Error>;

    /// Returns the payload of the held record at `place`.
    ///
    /// # Safety
    /// [`pass_record`](Self::pass_record) returned `len` for this place, and nothing was released since. The caller does
    /// not use the reference after the release.
    unsafe fn record_at<'a>(&self, place: u64, len: usize) -> &'a [u8];

    /// Releases the first `count` held records, which end at the place `end`, and gives the others back. Does nothing in a
    /// forked child.
    ///
    /// # Safety
    /// `pass_record` has passed that many, nothing was released since, and no reference to a held record is used any more.
    unsafe fn finish_records(&mut self, count: u64, end: u64);

    /// Reads up to `max` records in place: at least one, or an error.
    #[inline]
    fn try_read_batch(&mut self, max: usize) -> Result<Records<'_, Self>, Error>
    where
        Self: Sized,
    {
        let held = self.hold_records(max)?;
        // SAFETY: the line above.
        Ok(unsafe { Records::of_held(self, held) })
    }
}

/// Several consecutive records, read in place one after another.
///
/// Dropping it releases the records that were returned, and no others.
/// [`keep_last`](Self::keep_last) releases all of them but the last one, [`keep`](Self::keep) none.
/// A kill while it is held releases none. With the feature `std`, nor does a drop while the thread
/// is panicking. The next read, or the successor's, sees the records again.
///
/// In a work queue the batch holds all of its records from the start. What is not released is given back: any consumer
/// takes it, and its count of deliveries rises, though it was not returned.
///
/// An early return by `?` is a drop like any other, and releases the record that failed, too. A
/// loop that may fail keeps that one:
///
/// ```
/// # mod slipring {
/// #     pub mod bytes {
/// #         use slipring_core::{proto, record};
/// #         pub type Records<'c> = record::Records<'c, proto::bytes::Consumer<'static>>;
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
pub struct Records<'c, C: HoldRecords> {
    pub(crate) consumer: &'c mut C,
    /// The place of the record that was returned last.
    last: u64,
    /// The place behind it.
    next: u64,
    /// The number of records that were passed.
    count: u64,
    max: u64,
}

impl<C: HoldRecords> fmt::Debug for Records<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("returned", &self.count)
            .field("max", &self.max)
            .field("position", &self.consumer.position())
            .finish_non_exhaustive()
    }
}

impl<'c, C: HoldRecords> Records<'c, C> {
    /// Makes the guard of the records that `hold_records` has just found.
    ///
    /// # Safety
    /// `hold_records` returned `held` just now.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn of_held(consumer: &'c mut C, held: (u64, u64)) -> Self {
        let (first, max) = held;
        consumer.begin_guard();
        Records {
            consumer,
            last: first,
            next: first,
            count: 0,
            max,
        }
    }

    /// Returns the next record, or `None` if no more are committed or `max` have been returned.
    ///
    /// This is no `Iterator`, since a record must not outlive the borrow of `self`.
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.count >= self.max {
            return Ok(None);
        }
        let place = self.next;
        let found = self.consumer.pass_record(&mut self.next);
        if self.next != place {
            self.last = place;
            self.count += 1;
        }
        // SAFETY: the line above found the record; nothing is released before the guard is gone, which the result borrows.
        Ok(found?.map(|len| unsafe { self.consumer.record_at(place, len) }))
    }

    /// Releases the records that were returned, as dropping the batch does, but also while
    /// panicking.
    #[inline]
    pub fn release(self) {
        let mut guard = ManuallyDrop::new(self);
        let (count, end) = (guard.count, guard.next);
        // SAFETY: so many were passed; this consumes the guard, which every reference borrows.
        unsafe { guard.consumer.finish_records(count, end) };
    }

    /// Releases the records that were returned, except the last one, which the next read sees
    /// again.
    #[inline]
    pub fn keep_last(self) {
        let mut guard = ManuallyDrop::new(self);
        let (count, end) = (guard.count.saturating_sub(1), guard.last);
        // SAFETY: as in `release`.
        unsafe { guard.consumer.finish_records(count, end) };
    }

    /// Releases nothing: the next read sees all of the records again.
    #[inline]
    pub fn keep(self) {
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: as in `release`.
        unsafe { guard.consumer.finish_records(0, 0) };
    }
}

impl<C: HoldRecords> Drop for Records<'_, C> {
    #[inline]
    fn drop(&mut self) {
        let (count, end) = match self.consumer.drop_releases() {
            true => (self.count, self.next),
            false => (0, 0),
        };
        // SAFETY: so many were passed; no reference outlives the guard.
        unsafe { self.consumer.finish_records(count, end) };
    }
}

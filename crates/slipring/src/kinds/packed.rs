//! The shape, verbs and streams of all kinds whose records lie one behind another in a ring of bytes.

mod io;

use std::iter::Peekable;
use std::time::Duration;

use slipring_core::layout::{self, Geometry};
use slipring_core::mem::ByteRing;
use slipring_core::packed::{PREFIX, Records};

pub use io::{RecordReader, RecordWriter};

use crate::builder::Builder;
use crate::consumer::Consumer;
use crate::error::{BatchError, Error};
use crate::kind::{OfRecords, PackedKind};
use crate::producer::Producer;
use crate::seat::Seat;
use crate::wait::Until;

/// Returns the shape of a channel of `ring` bytes, whose records take up to half of it.
pub(super) fn geometry(kind: layout::Kind, ring: usize, consumers: u64) -> Geometry {
    Geometry {
        kind,
        capacity: ring as u64,
        slot_size: (ring as u64 / 2).next_multiple_of(8).max(16),
        slot_align: 8,
        producers: 1,
        consumers,
        when_full: layout::WhenFull::Wait,
        skew: 0,
        pins: 0,
        pool: 0,
    }
}

/// Returns the bytes of a validated region's ring. Use them while `seat` lives.
pub(super) fn ring(seat: &Seat) -> ByteRing<'static> {
    let geometry = seat.region.geometry();
    // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is
    // mapped for the ring and its slack, page-aligned or checked.
    unsafe { ByteRing::new(seat.region.data(), geometry.capacity, geometry.slot_size) }
}

/// Terms of records that lie one behind another: see [`PackedKind`].
impl<R> Builder<OfRecords<R>>
where
    OfRecords<R>: PackedKind,
{
    /// Sets the largest payload of one record, in bytes: at most the ring less 8. That many bytes,
    /// rounded up, are added behind the ring. A larger value is [`MaxRecord`](crate::SetupError::MaxRecord) when the
    /// channel is made.
    #[must_use]
    pub fn max_record(mut self, bytes: usize) -> Self {
        let size = (bytes as u64)
            .checked_add(PREFIX)
            .and_then(|size| size.checked_next_multiple_of(8));
        // An overflow stays far too large, and is refused when the channel is made.
        self.geometry.slot_size = size.unwrap_or(1 << 63).max(16);
        self
    }
}

/// Verbs of records that lie one behind another: see [`PackedKind`].
impl<R> Producer<OfRecords<R>>
where
    OfRecords<R>: PackedKind,
{
    /// Appends as many records as fit, publishes them together, and returns their number. Returns
    /// at least one, or an error; returns 0 only if the iterator is empty.
    ///
    /// Takes no record from the iterator unless there is room for it, so the iterator must be
    /// peekable.
    pub fn try_push_iter<'a, I>(&mut self, payloads: &mut Peekable<I>) -> Result<usize, Error>
    where
        I: Iterator<Item = &'a [u8]>,
    {
        self.end.core.try_push_iter(payloads)
    }

    /// Appends all records, waiting whenever the channel is full, and returns their number.
    /// Publishes each time the available room is used up. On failure, the [`BatchError`] holds the
    /// number of records already appended; the record after those is the one that failed.
    ///
    /// The failed record has been taken from the iterator, because only a record tells how much
    /// room it needs. A caller that must not lose it calls [`try_push_iter`](Self::try_push_iter)
    /// with a peekable iterator.
    pub fn push_iter<'a, I>(&mut self, payloads: I) -> Result<usize, BatchError>
    where
        I: IntoIterator<Item = &'a [u8]>,
    {
        let mut payloads = payloads.into_iter().peekable();
        let mut done = 0;
        while let Some(next) = payloads.peek() {
            let room = self.end.ready(next.len(), &mut Until::Forever);
            match room.and_then(|()| self.try_push_iter(&mut payloads)) {
                Ok(count) => done += count,
                Err(error) => return Err(BatchError { done, error }),
            }
        }
        Ok(done)
    }
}

/// Verbs of records that lie one behind another: see [`PackedKind`].
impl<R> Consumer<OfRecords<R>>
where
    OfRecords<R>: PackedKind,
{
    /// Reads up to `max` consecutive records in place. Dropping the guard, even by an early `?`,
    /// releases those that it returned, and no others: see [`bytes::Records`](crate::bytes::Records).
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::bytes::channel(4096)?;
    /// tx.push_iter([&b"one"[..], b"two", b"three"])?;
    /// let mut batch = rx.read_batch(16)?;
    /// while let Some(record) = batch.next()? {
    ///     println!("{} bytes", record.len());
    /// }
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[inline]
    pub fn try_read_batch(
        &mut self,
        max: usize,
    ) -> Result<Records<'_, 'static, <OfRecords<R> as PackedKind>::Place>, Error> {
        self.end.core.try_read_batch(max)
    }

    /// Like [`try_read_batch`](Self::try_read_batch), waiting until there is a record.
    #[inline]
    pub fn read_batch(
        &mut self,
        max: usize,
    ) -> Result<Records<'_, 'static, <OfRecords<R> as PackedKind>::Place>, Error> {
        self.end.ready(1, &mut Until::Forever)?;
        self.end.core.try_read_batch(max)
    }

    /// Like [`read_batch`](Self::read_batch), for at most `timeout`
    /// ([`TimedOut`](Error::TimedOut)).
    pub fn read_batch_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> Result<Records<'_, 'static, <OfRecords<R> as PackedKind>::Place>, Error> {
        self.end.ready(1, &mut Until::For(timeout))?;
        self.end.core.try_read_batch(max)
    }

    /// Like [`read_batch`](Self::read_batch), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_batch_async(
        &mut self,
        max: usize,
    ) -> Result<Records<'_, 'static, <OfRecords<R> as PackedKind>::Place>, Error> {
        self.message().await?;
        self.end.core.try_read_batch(max)
    }

    /// Returns the oldest record without releasing it. Returns [`Empty`](Error::Empty) or
    /// [`Disconnected`](Error::Disconnected) as [`try_read`](Self::try_read) does.
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::bytes::channel(64)?;
    /// tx.push(b"seven")?;
    /// assert_eq!(rx.try_peek()?, b"seven");
    /// assert_eq!(&*rx.read()?, b"seven");
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[inline]
    pub fn try_peek(&mut self) -> Result<&[u8], Error> {
        self.end.core.try_peek()
    }
}

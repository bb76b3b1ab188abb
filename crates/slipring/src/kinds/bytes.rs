//! One producer, one consumer, records of varying size; when the ring is full, the producer waits.
//!
//! A record is one contiguous run of bytes, written and read in place. The producer reserves it at
//! its largest size and commits it at its real one. The promises are those of
//! [`spsc`](crate::spsc).
//!
//! The protocol, and why it is right: [`slipring_core::proto::bytes`].
//!
//! ```
//! use slipring::bytes;
//!
//! let (mut tx, mut rx) = bytes::channel(64 * 1024)?;
//! tx.push(b"hello")?;
//!
//! let mut record = tx.reserve(1500)?;          // in place; dropping discards
//! record[..5].copy_from_slice(b"world");
//! record.commit(5);                            // five bytes of it, visible at once
//!
//! assert_eq!(&rx.read()?[..], b"hello");       // in place; dropping released it
//! assert_eq!(&rx.read()?[..], b"world");
//! # Ok::<(), slipring::SetupError>(())
//! ```
//!
//! Each verb that waits is also a future for any runtime (`push_async`, `read_async`, ..). With the
//! feature `stream` a consumer is a stream. With `tokio`, tokio's event loop wakes both.
//!
//! Either process may come first. A ring takes a few of the largest records, or more:
//!
//! ```no_run
//! # use slipring::bytes;
//! let mut tx = bytes::Builder::new(1 << 20).producer("app/log")?;   // in one
//! let mut rx = bytes::Builder::new(1 << 20).consumer("app/log")?;   // in another
//! # Ok::<(), slipring::SetupError>(())
//! ```

mod io;

use std::iter::Peekable;
use std::time::Duration;

use slipring_core::Schema;
use slipring_core::layout::{self, Geometry, RolePage};
use slipring_core::mem::ByteRing;
use slipring_core::proto::bytes as proto;

pub use io::{Reader, Writer};
pub use slipring_core::proto::bytes::{PREFIX, record_size};

use crate::builder;
use crate::error::{BatchError, Error};
use crate::kind::{Kind, OfRecords, RecordKind, SeatToken, sealed::Sealed};
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::wait::Until;
use crate::{consumer, producer, records};

/// The kind: one producer, one consumer, records of varying size.
pub type Bytes = OfRecords<OneToOne>;

/// Tells [`Bytes`] from other kinds of records: one producer, one consumer.
#[derive(Debug)]
pub struct OneToOne(());

/// Makes or opens a `bytes` channel.
pub type Builder = builder::Builder<Bytes>;

/// The memory of a `bytes` channel, from which the two roles can be taken.
pub type Channel = crate::channel::Channel<Bytes>;

/// The writing end of a `bytes` channel.
pub type Producer = producer::Producer<Bytes>;

/// The reading end of a `bytes` channel.
pub type Consumer = consumer::Consumer<Bytes>;

/// A record that a producer has reserved. It dereferences to its bytes.
pub type Reservation<'p> = producer::Reservation<'p, Bytes>;

/// A record that a consumer reads in place.
pub type Record<'c> = records::Record<'c, Bytes>;

/// A run of records that a consumer reads in place, one after another.
pub type Records<'c> = proto::Records<'c, 'static>;

/// Makes a channel of `ring` bytes between threads of this process, for records up to half of that, less
/// 8 bytes.
///
/// `ring` must be a power of two, from 64; any other value is [`SetupError::Capacity`].
pub fn channel(ring: usize) -> Result<(Producer, Consumer), SetupError> {
    Builder::new(ring).channel_pair()
}

impl Builder {
    /// Describes a channel of `ring` bytes: a power of two, from 64. Checked when the channel is
    /// made.
    ///
    /// Each record takes its length, rounded up to 8, and 8 bytes more. The largest record is half
    /// the ring less 8, unless [`max_record`](Self::max_record) sets another.
    pub fn new(ring: usize) -> Builder {
        builder::Builder::with(Geometry {
            kind: layout::Kind::Bytes,
            capacity: ring as u64,
            slot_size: (ring as u64 / 2).next_multiple_of(8).max(16),
            slot_align: 8,
            producers: 1,
            consumers: 1,
            when_full: layout::WhenFull::Wait,
            skew: 0,
            pins: 0,
            pool: 0,
        })
    }

    /// Sets the largest payload of one record, in bytes: at most the ring less 8. That many bytes,
    /// rounded up, are added behind the ring. A larger value is [`SetupError::MaxRecord`] when the
    /// channel is made.
    #[must_use]
    pub fn max_record(mut self, bytes: usize) -> Builder {
        let size = (bytes as u64)
            .checked_add(PREFIX)
            .and_then(|size| size.checked_next_multiple_of(8));
        // An overflow stays far too large, and is refused when the channel is made.
        self.geometry.slot_size = size.unwrap_or(1 << 63).max(16);
        self
    }
}

impl Sealed for Bytes {}

impl RecordKind for Bytes {}

impl Kind for Bytes {
    type Producer = proto::Producer<'static>;
    type Consumer = proto::Consumer<'static>;

    fn schema() -> Option<Schema> {
        None
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        let seat = token.seat;
        let ring = ring(seat, seat.page(), seat.peer_page());
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { seat.cached_limit() };
        // SAFETY: the seat makes us the only producer. The cached limit is taken once. The cached
        // limit and the ring are used only while the seat lives beside them.
        Ok(unsafe { proto::Producer::new(ring, seat.peer()?, cached_limit) }?)
    }

    fn consumer(token: &SeatToken<'_>) -> Result<Self::Consumer, SetupError> {
        let seat = token.seat;
        let ring = ring(seat, seat.peer_page(), seat.page());
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { seat.cached_limit() };
        // SAFETY: as in `producer`, for the consumer.
        Ok(unsafe { proto::Consumer::new(ring, seat.peer()?, cached_limit) }?)
    }
}

/// Returns the ring of a validated region, as either end uses it.
fn ring(
    seat: &Seat,
    producer: &'static RolePage,
    consumer: &'static RolePage,
) -> proto::Ring<'static> {
    let geometry = seat.region.geometry();
    // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is
    // mapped for the ring and its slack, page-aligned or checked.
    let records =
        unsafe { ByteRing::new(seat.region.data(), geometry.capacity, geometry.slot_size) };
    let messages = &seat.page().counters.messages;
    proto::Ring {
        tail: &producer.position.0,
        head: &consumer.position.0,
        records,
        messages,
        writable: seat.region.writable,
        notifier: seat.notifier(),
    }
}

impl Producer {
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

    /// Returns `true` if an earlier producer finished and no consumer has acknowledged that end
    /// yet. Records that this producer pushes before then follow the earlier stream without a seam.
    pub fn follows_unread_end(&self) -> bool {
        let seat = &self.end.seat;
        seat.line().unread_end(seat.peer_line())
    }
}

impl Consumer {
    /// Reads up to `max` consecutive records in place. Dropping the guard, even by an early `?`,
    /// releases those that it returned, and no others: see [`Records`].
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
    pub fn try_read_batch(&mut self, max: usize) -> Result<Records<'_>, Error> {
        self.end.core.try_read_batch(max)
    }

    /// Like [`try_read_batch`](Self::try_read_batch), waiting until there is a record.
    #[inline]
    pub fn read_batch(&mut self, max: usize) -> Result<Records<'_>, Error> {
        self.end.ready(1, &mut Until::Forever)?;
        self.end.core.try_read_batch(max)
    }

    /// Like [`read_batch`](Self::read_batch), for at most `timeout`
    /// ([`TimedOut`](Error::TimedOut)).
    pub fn read_batch_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> Result<Records<'_>, Error> {
        self.end.ready(1, &mut Until::For(timeout))?;
        self.end.core.try_read_batch(max)
    }

    /// Like [`read_batch`](Self::read_batch), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_batch_async(&mut self, max: usize) -> Result<Records<'_>, Error> {
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

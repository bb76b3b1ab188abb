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
use slipring_core::record::{HoldRecord, PushRecord};

pub use io::{Reader, Writer};
pub use slipring_core::proto::bytes::{PREFIX, record_size};

use crate::builder;
use crate::error::{BatchError, Error};
use crate::kind::{Kind, SeatToken, sealed::Sealed};
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::wait::{Until, until_the_end};
use crate::{consumer, producer};

/// The kind: one producer, one consumer, records of varying size.
#[derive(Debug)]
pub struct Bytes(());

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
pub type Record<'c> = proto::Record<'c, 'static>;

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
    /// Appends a record, or returns [`Full`](Error::Full) if there is no room now.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) if there is no room and the consumer is gone,
    /// and [`TooLarge`](Error::TooLarge) above the largest record. Never waits. Enters the kernel
    /// only to wake a sleeping consumer.
    #[inline]
    #[doc(alias = "send")]
    pub fn try_push(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.end.core.try_push(payload)
    }

    /// Like [`try_push`](Self::try_push), waiting while the channel is full. If no consumer has
    /// joined yet, the call waits as well.
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.push_until(payload, Until::Forever)
    }

    /// Like [`push`](Self::push), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    #[inline]
    pub fn push_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<(), Error> {
        self.push_until(payload, Until::For(timeout))
    }

    #[inline(always)]
    fn push_until(&mut self, payload: &[u8], mut until: Until) -> Result<(), Error> {
        self.end.ready(payload.len(), &mut until)?;
        self.end.core.try_push(payload)
    }

    /// Like [`push`](Self::push), as a future for any runtime.
    ///
    /// Only the task sleeps. The first future that has to wait starts the [helper
    /// thread](crate#the-helper-thread).
    ///
    /// A dropped future has pushed nothing. A future that finds room is ready at its first poll.
    /// After 128 such polls in a row, one poll wakes its task and returns pending, so that other
    /// tasks run.
    ///
    /// The future fails with [`NoPipes`](Error::NoPipes) if it would have to wait on borrowed
    /// memory. It fails with [`InSet`](Error::InSet) while a [`WaitSet`](crate::WaitSet) waits for
    /// the handle, and with [`Forked`](Error::Forked) in a forked child.
    ///
    /// A poll does not block its thread, with two exceptions. If no helper thread can be started, a
    /// poll takes a little over 1 ms and fails with [`Os`](Error::Os), unless tokio drives it. If a
    /// peer has just died, a poll takes up to 10 ms while the kernel frees the dead process's
    /// resources.
    ///
    /// ```
    /// use slipring::bytes;
    ///
    /// async fn greet(tx: &mut bytes::Producer) -> Result<(), slipring::Error> {
    ///     tx.push_async(b"hello").await?;
    ///     let mut record = tx.reserve_async(1500).await?;     // in place; dropping discards
    ///     record[..5].copy_from_slice(b"world");
    ///     record.commit(5);
    ///     Ok(())
    /// }
    /// # let _ = greet;
    /// ```
    pub async fn push_async(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.room(payload.len()).await?;
        self.end.core.try_push(payload)
    }

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

    /// Returns the largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.end.core.max_record()
    }

    /// Returns `true` if an earlier producer finished and no consumer has acknowledged that end
    /// yet. Records that this producer pushes before then follow the earlier stream without a seam.
    pub fn follows_unread_end(&self) -> bool {
        let seat = &self.end.seat;
        seat.line().unread_end(seat.peer_line())
    }
}

impl Consumer {
    /// Reads the oldest record in place. Dropping the record releases it.
    ///
    /// Returns [`Empty`](Error::Empty) if there is no record, or
    /// [`Disconnected`](Error::Disconnected) if there is none and the producer left.
    ///
    /// Never waits. Enters the kernel only to wake a sleeping producer when the record is released,
    /// so it cannot detect that a producer *died*. The waiting calls,
    /// [`is_disconnected`](Self::is_disconnected) and a [`WaitSet`](crate::WaitSet) can. After one
    /// of them has detected a death, `try_read` reports it.
    #[inline]
    #[doc(alias = "recv")]
    pub fn try_read(&mut self) -> Result<Record<'_>, Error> {
        self.end.core.try_read()
    }

    /// Like [`try_read`](Self::try_read), waiting until there is a record. If no producer has
    /// joined yet, the call waits as well.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) once all records are read and the producer is
    /// gone.
    #[inline]
    pub fn read(&mut self) -> Result<Record<'_>, Error> {
        self.end.ready(1, &mut Until::Forever)?;
        self.end.core.try_read()
    }

    /// Like [`read`](Self::read), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    #[inline]
    pub fn read_timeout(&mut self, timeout: Duration) -> Result<Record<'_>, Error> {
        self.end.ready(1, &mut Until::For(timeout))?;
        self.end.core.try_read()
    }

    /// Like [`read`](Self::read), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_async(&mut self) -> Result<Record<'_>, Error> {
        self.message().await?;
        self.end.core.try_read()
    }

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

    /// Copies the oldest record into `out` and returns its length. Returns
    /// [`TooLarge`](Error::TooLarge) if the record is longer than `out`; the record stays in the
    /// channel.
    #[inline]
    pub fn try_pop(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.end.core.try_pop(out)
    }

    /// Like [`try_pop`](Self::try_pop), waiting until there is a record.
    #[inline]
    pub fn pop(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.end.ready(1, &mut Until::Forever)?;
        self.end.core.try_pop(out)
    }

    /// Like [`pop`](Self::pop), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn pop_timeout(&mut self, out: &mut [u8], timeout: Duration) -> Result<usize, Error> {
        self.end.ready(1, &mut Until::For(timeout))?;
        self.end.core.try_pop(out)
    }

    /// Like [`pop`](Self::pop), as a future for any runtime: see `push_async` of [`Producer`]. A
    /// dropped future has taken nothing.
    pub async fn pop_async(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.message().await?;
        self.end.core.try_pop(out)
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

    /// Returns an iterator over copies of the records, which waits for each as [`read`](Self::read)
    /// does. It ends when the producer has finished and all records are read. [`read`](Self::read)
    /// itself copies nothing.
    ///
    /// Any other error, such as [`Corrupt`](Error::Corrupt) or the
    /// [`Disconnected`](Error::Disconnected) of a producer that aborted or died, is the last item.
    /// Dropping the iterator loses nothing.
    pub fn iter(&mut self) -> impl std::iter::FusedIterator<Item = Result<Vec<u8>, Error>> {
        until_the_end(move || Ok(copied(self.read()?)))
    }

    /// Returns copies of the records as a stream, which waits for each as
    /// [`pop_async`](Self::pop_async) does. It ends when the producer has finished and all records
    /// are read.
    ///
    /// Any other error, such as [`Corrupt`](Error::Corrupt) or the
    /// [`Disconnected`](Error::Disconnected) of a producer that aborted or died, is the last item.
    ///
    /// Dropping the stream loses nothing: a new stream continues where it stopped. After a
    /// [`Disconnected`](Error::Disconnected), the new stream continues only with the next producer.
    /// See [`wait_for_producer_async`](Self::wait_for_producer_async).
    ///
    /// ```
    /// use futures_core::Stream;
    /// use std::{future::poll_fn, pin::Pin};
    ///
    /// # fn main() -> Result<(), slipring::SetupError> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let (mut tx, mut rx) = slipring::bytes::channel(64)?;
    /// tx.push(b"1")?;
    /// drop(tx); // the end of the stream
    /// let mut stream = rx.stream();
    /// while let Some(message) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
    ///     assert_eq!(message?, b"1");
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    #[cfg(feature = "stream")]
    pub fn stream(
        &mut self,
    ) -> impl futures_core::FusedStream<Item = Result<Vec<u8>, Error>> + Unpin {
        until_the_end(move |cx: &mut std::task::Context<'_>| {
            std::task::ready!(self.end.poll_ready(1, cx))?;
            std::task::Poll::Ready(Ok(copied(self.end.core.try_read()?)))
        })
    }

    /// Returns the largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.end.core.max_record()
    }
}

fn copied(record: Record<'_>) -> Vec<u8> {
    let copy = record.to_vec();
    // Release by name: in a destructor that runs during a panic, a drop would release nothing.
    record.release();
    copy
}

//! One producer, one consumer, records of varying size; when it is full, the producer waits.
//!
//! A record is one contiguous run of bytes, written and read in place, reserved at its largest size
//! and committed at its real one. The promises are those of [`spsc`](crate::spsc). The protocol, and
//! why it is right: [`slipring_core::bytes`].
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
//! # Ok::<(), slipring::Error>(())
//! ```
//!
//! Each verb that waits is a future, too (`push_async`, `read_async`, ..), under any runtime; with the
//! feature `stream` a consumer is a stream, and with `tokio` tokio's event loop wakes both.

#[deny(unsafe_code)]
mod future;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring_core::layout::{self, Geometry, RolePage};
use slipring_core::mem::Area;
use slipring_core::{Error as Core, Lease, Schema, bytes as core};

pub use slipring_core::bytes::{PREFIX, Record, Records, Reservation, record_size};

use crate::channel::{self, Difference, Kind, SeatToken, sealed::Sealed};
use crate::error::Error;
use crate::seat::Seat;
use crate::waiting::set::{AnyConsumer, AnyProducer, sealed::Watched};
use crate::waiting::{self, Ask, Readiness, Until, Wait};

/// The kind: one producer, one consumer, records of varying size.
#[derive(Debug)]
pub struct Bytes(());

/// How a `bytes` channel is to be made.
pub type Builder = channel::Builder<Bytes>;

/// The memory of a `bytes` channel, of which the two roles can be taken.
pub type Channel = channel::Channel<Bytes>;

/// A channel of `ring` bytes between threads of this process, for records up to half of that.
///
/// `ring` is a power of two, from 64; anything else is [`Error::Capacity`].
pub fn channel(ring: usize) -> Result<(Producer, Consumer), Error> {
    Builder::new(ring).channel_pair()
}

impl Builder {
    /// A channel of `ring` bytes: a power of two, from 64. Each record takes its length, rounded up
    /// to 8, and 8 bytes more. The largest record is half the ring unless
    /// [`max_record`](Self::max_record) says otherwise. Checked when the channel is made.
    pub fn new(ring: usize) -> Builder {
        channel::Builder::with(Geometry {
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

    /// The largest payload of one record, in bytes: at most the ring less 8. So many bytes, rounded
    /// up, are added behind the ring. More is [`Error::MaxRecord`] when the channel is made.
    #[must_use]
    pub fn max_record(mut self, bytes: usize) -> Builder {
        let size = (bytes as u64)
            .checked_add(PREFIX)
            .and_then(|size| size.checked_next_multiple_of(8));
        // Beyond all bounds stays beyond all bounds: refused when the channel is made.
        self.geometry.slot_size = size.unwrap_or(1 << 63).max(16);
        self
    }
}

impl Sealed for Bytes {}

impl Kind for Bytes {
    type Producer = Producer;
    type Consumer = Consumer;

    fn schema() -> Option<Schema> {
        None
    }

    fn producer(SeatToken(mut seat, _): SeatToken) -> Result<Producer, Error> {
        let (ring, peer) = (ring(&seat, seat.page(), seat.peer_page()), seat.peer()?);
        // SAFETY: `seat` makes us the only producer; the lease is taken once, and both it and the
        // ring are used no longer than `seat` lives beside them.
        let core = unsafe { core::Producer::new(ring, peer, lease(&seat)) }?;
        seat.settle();
        Ok(Producer { core, seat })
    }

    fn consumer(SeatToken(mut seat, _): SeatToken) -> Result<Consumer, Error> {
        let (ring, peer) = (ring(&seat, seat.peer_page(), seat.page()), seat.peer()?);
        // SAFETY: as in `producer`, for the consumer.
        let core = unsafe { core::Consumer::new(ring, peer, lease(&seat)) }?;
        seat.settle();
        Ok(Consumer { core, seat })
    }
}

fn lease(seat: &Seat) -> &'static mut Lease {
    // SAFETY: called once for each seat, by `producer` or `consumer` above.
    unsafe { seat.lease() }
}

/// The ring of a validated region, seen from either end.
fn ring(
    seat: &Seat,
    producer: &'static RolePage,
    consumer: &'static RolePage,
) -> core::Ring<'static> {
    let geometry = seat.region.geometry();
    // SAFETY: the header was checked against the real sizes: the data part is mapped for the ring
    // and its slack, page-aligned or checked, while `seat` lives.
    let area = unsafe { Area::new(seat.region.data(), geometry.capacity, geometry.slot_size) };
    let messages = &seat.page().counters.messages;
    core::Ring {
        tail: &producer.position.0,
        head: &consumer.position.0,
        area,
        messages,
        writable: seat.region.writable,
        bell: seat.ringer(),
    }
}

/// The writing end. Dropping it ends the stream (*finished*, or *aborted* while panicking).
pub struct Producer {
    core: core::Producer<'static>,
    // After `core`, which points into what `seat` keeps alive.
    seat: Seat,
}

/// The seat, and where the handle stands; no payload.
impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("core", &self.core)
            .field("seat", &self.seat.number)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// Appends a record; `Full` if there is no room now, `Disconnected` if there is none and the
    /// consumer is gone, `TooLarge` above the largest record. Never waits; enters the
    /// kernel only to wake a consumer that sleeps.
    #[inline]
    #[doc(alias = "send")]
    pub fn try_push(&mut self, payload: &[u8]) -> Result<(), Error> {
        Ok(self.core.try_push(payload)?)
    }

    /// As [`try_push`](Self::try_push), waiting while the channel is full. Before the first consumer
    /// has come it waits as well.
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.ensure(payload.len(), Until::Forever)?;
        Ok(self.core.try_push(payload)?)
    }

    /// As [`push`](Self::push), for at most `timeout` (`TimedOut`).
    #[inline]
    pub fn push_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<(), Error> {
        match self.core.try_push(payload) {
            Err(Core::Full) => self.ensure(payload.len(), Until::after(timeout))?,
            done => return Ok(done?),
        }
        Ok(self.core.try_push(payload)?)
    }

    #[inline]
    fn ensure(&mut self, len: usize, until: Until) -> Result<(), Error> {
        match self.core.ensure(len) {
            Err(Core::Full) => waiting::wait(&mut self.core, &mut self.seat, until, |core| {
                core.ensure(len)
            }),
            done => Ok(done?),
        }
    }

    /// Appends as many records as there is room for, published as one, and says how many: at least
    /// one, or an error (none if there are none). No record is taken that finds no place, so the
    /// iterator must be one that can be peeked.
    pub fn try_push_iter<'a, I>(
        &mut self,
        payloads: &mut std::iter::Peekable<I>,
    ) -> Result<usize, Error>
    where
        I: Iterator<Item = &'a [u8]>,
    {
        Ok(self.core.try_push_iter(payloads)?)
    }

    /// Appends all records, waiting as often as it must; publishes whenever the room it found is
    /// used up. On an error, `Err((written, why))`: the record after those is the one that failed.
    /// That one has been taken from the iterator, since only a record tells how much room it needs. Who must not
    /// lose it calls [`try_push_iter`](Self::try_push_iter) with an iterator that can be peeked.
    pub fn push_iter<'a, I>(&mut self, payloads: I) -> Result<usize, (usize, Error)>
    where
        I: IntoIterator<Item = &'a [u8]>,
    {
        let mut payloads = payloads.into_iter().peekable();
        let mut written = 0;
        while let Some(next) = payloads.peek() {
            let room = self.ensure(next.len(), Until::Forever);
            let count = room.and_then(|()| self.try_push_iter(&mut payloads));
            written += count.map_err(|error| (written, error))?;
        }
        Ok(written)
    }

    /// Reserves a record of at most `len` bytes, to be written in place. It holds what some earlier
    /// record left there. Dropping the reservation discards it.
    #[inline]
    #[doc(alias = "claim")]
    #[doc(alias = "loan")]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_, 'static>, Error> {
        Ok(self.core.try_reserve(len)?)
    }

    /// As [`try_reserve`](Self::try_reserve), waiting until there is room.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_, 'static>, Error> {
        self.ensure(len, Until::Forever)?;
        Ok(self.core.try_reserve(len)?)
    }

    /// As [`reserve`](Self::reserve), for at most `timeout`.
    pub fn reserve_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_, 'static>, Error> {
        self.ensure(len, Until::after(timeout))?;
        Ok(self.core.try_reserve(len)?)
    }

    /// Bytes of the ring that are committed and not yet released, length words included, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.core.len()?)
    }

    /// Whether every committed record is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// The bytes that the ring holds, length words included.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// The largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.core.max_record()
    }

    /// How many bytes were ever committed, by all producers of this channel.
    pub fn position(&self) -> u64 {
        self.core.position()
    }

    /// Whether no consumer is there: none has come yet, or the last one left or died. Asks the
    /// kernel: one system call.
    pub fn is_disconnected(&mut self) -> Result<bool, Error> {
        Ok(!waiting::present(&mut self.core, &self.seat)?)
    }

    /// Takes note of the end that a `Disconnected` told of, and waits until a consumer is there, for at most `timeout`
    /// (`TimedOut`). A [`WaitSet`](crate::WaitSet) that the handle is in no longer reports an end that it took note of.
    pub fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        waiting::notice_death(&mut self.core, &self.seat)?;
        waiting::wait_for_peer(&mut self.core, &mut self.seat, Until::after(timeout))
    }

    /// Whether the stream of an earlier producer that finished waits for a consumer to take note of
    /// its end. What is pushed now follows it without a seam if it is pushed before.
    pub fn follows_unread_end(&self) -> bool {
        self.seat.line().unread_end(self.seat.peer_line())
    }

    /// The descriptor by which an event loop (epoll, mio, libuv) waits for room, in place of a blocking
    /// call. It is this handle's alone, the same one each time, and *readable* when there is news; watch
    /// it level-triggered, [`arm`](Self::arm) before each poll, and leave reading it to `arm` (example:
    /// [`Readiness`]). Made at the first call: `NoPipes` for borrowed memory,
    /// `TooManyFiles` at the [limit](crate#descriptors) of descriptors.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        waiting::descriptor(&self.seat)
    }

    /// Says whether there is room for a record of `len` bytes; if there is none, the descriptor becomes readable
    /// when the consumer makes some, arrives, leaves, or dies (then it is also hung up). To be called
    /// before each poll: it takes away what made the descriptor readable last time.
    ///
    /// `Disconnected` as for `try_reserve`; the descriptor then becomes readable when the next consumer
    /// comes. `InSet` while a [`WaitSet`](crate::WaitSet) waits for the handle, `Forked` in a forked child.
    /// Does not wait for the other side; but where no [helper thread](crate#the-helper-thread) can be started
    /// it takes a little over 1 ms, and up to 10 ms while the kernel frees what a consumer held that has just
    /// died.
    pub fn arm(&mut self, len: usize) -> Result<Readiness, Error> {
        waiting::arm(&mut self.core, &self.seat, |core| core.ensure(len))
    }

    /// How this handle's waiting calls pass their time from now on.
    pub fn set_wait(&mut self, wait: Wait) {
        self.seat.waiting.wait = wait;
    }

    /// Gives a sign of life, which `stat` shows. Nobody acts on it; waiting calls give one by
    /// themselves.
    pub fn heartbeat(&self) {
        self.seat.beat();
    }

    /// Asks whether the channel's name still leads to this channel: `NotFound` if it was removed, `Replaced` if
    /// the name leads to another one by now. The waiting calls ask once a second by themselves. Two or three
    /// system calls; a channel without a name is always still there. `Forked` in a forked child.
    pub fn check_name(&self) -> Result<(), Error> {
        self.seat.check_name()
    }

    /// Returns the sizes in which the channel differs from what this handle's builder asked for: what exists
    /// wins. Empty for a channel as asked for.
    pub fn differences(&self) -> Vec<Difference> {
        self.seat.differences()
    }

    /// Leaves before the work is done: the consumer learns `Disconnected(Aborted)`, after it has
    /// read what was committed.
    pub fn abort(mut self) {
        self.seat.abort();
    }
}

/// The reading end. Dropping it leaves; what was not released stays for the next consumer.
pub struct Consumer {
    core: core::Consumer<'static>,
    // After `core`, which points into what `seat` keeps alive.
    seat: Seat,
}

/// The seat, and where the handle stands; no payload.
impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("core", &self.core)
            .field("seat", &self.seat.number)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// The oldest record in place: `Empty` if there is none, `Disconnected` if there is none and the
    /// producer left. Dropping it releases it. Never waits; enters the kernel only
    /// to wake a producer that sleeps (when it is released); so it cannot find out
    /// that a producer *died*: the waiting calls can, [`is_disconnected`](Self::is_disconnected), and a
    /// [`WaitSet`](crate::WaitSet). What they found, it tells.
    #[inline]
    #[doc(alias = "recv")]
    pub fn try_read(&mut self) -> Result<Record<'_, 'static>, Error> {
        Ok(self.core.try_read()?)
    }

    /// As [`try_read`](Self::try_read), waiting until there is a record. `Disconnected` once all is
    /// read and the producer is gone. Before the first producer has come it waits.
    #[inline]
    pub fn read(&mut self) -> Result<Record<'_, 'static>, Error> {
        self.ensure(Until::Forever)?;
        Ok(self.core.try_read()?)
    }

    /// As [`read`](Self::read), for at most `timeout` (`TimedOut`).
    pub fn read_timeout(&mut self, timeout: Duration) -> Result<Record<'_, 'static>, Error> {
        self.ensure(Until::after(timeout))?;
        Ok(self.core.try_read()?)
    }

    #[inline]
    fn ensure(&mut self, until: Until) -> Result<(), Error> {
        match self.core.ensure() {
            Err(Core::Empty) => waiting::wait(
                &mut self.core,
                &mut self.seat,
                until,
                core::Consumer::ensure,
            ),
            done => Ok(done?),
        }
    }

    /// A run of up to `max` records, read in place one after another and released together, also by an early
    /// `?`: see [`Records`].
    #[inline]
    pub fn try_read_batch(&mut self, max: usize) -> Result<Records<'_, 'static>, Error> {
        Ok(self.core.try_read_batch(max)?)
    }

    /// As [`try_read_batch`](Self::try_read_batch), waiting until there is a record.
    pub fn read_batch(&mut self, max: usize) -> Result<Records<'_, 'static>, Error> {
        self.ensure(Until::Forever)?;
        Ok(self.core.try_read_batch(max)?)
    }

    /// Copies the oldest record into `out` and says its length. A record longer than `out` is
    /// `TooLarge`, and stays.
    #[inline]
    pub fn try_pop(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        Ok(self.core.try_pop(out)?)
    }

    /// As [`try_pop`](Self::try_pop), waiting until there is a record.
    #[inline]
    pub fn pop(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.ensure(Until::Forever)?;
        Ok(self.core.try_pop(out)?)
    }

    /// As [`pop`](Self::pop), for at most `timeout`.
    pub fn pop_timeout(&mut self, out: &mut [u8], timeout: Duration) -> Result<usize, Error> {
        self.ensure(Until::after(timeout))?;
        Ok(self.core.try_pop(out)?)
    }

    /// Bytes of the ring that are committed and not yet released, length words included, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.core.len()?)
    }

    /// Whether every committed record is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// The bytes that the ring holds, length words included.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// The largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.core.max_record()
    }

    /// How many bytes were ever released, by all consumers of this channel.
    pub fn position(&self) -> u64 {
        self.core.position()
    }

    /// Whether no producer is there: none has come yet, or the last one left or died. There may be
    /// records all the same. Asks the kernel: one system call.
    pub fn is_disconnected(&mut self) -> Result<bool, Error> {
        Ok(!waiting::present(&mut self.core, &self.seat)?)
    }

    /// Takes note of the end that a `Disconnected` told of, and waits until a producer is there, for
    /// at most `timeout` (`TimedOut`). One that came, published and left before this call is not there: `try_` what
    /// it may have left first. A [`WaitSet`](crate::WaitSet) that the handle is in no longer reports an end that it
    /// took note of.
    pub fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        waiting::notice_death(&mut self.core, &self.seat)?;
        waiting::wait_for_peer(&mut self.core, &mut self.seat, Until::after(timeout))
    }

    /// The descriptor by which an event loop (epoll, mio, libuv) waits for a record, in place of a
    /// blocking call. It is this handle's alone, the same one each time, and *readable* when there is
    /// news; watch it level-triggered, [`arm`](Self::arm) before each poll, and leave reading it to
    /// `arm` (example: [`Readiness`]). Made at the first call: `NoPipes` for borrowed memory,
    /// `TooManyFiles` at the [limit](crate#descriptors) of descriptors.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        waiting::descriptor(&self.seat)
    }

    /// Says whether there is a record; if there is none, the descriptor becomes readable when the
    /// producer commits one, arrives, leaves, or dies (then it is also hung up). To be called before each
    /// poll: it takes away what made the descriptor readable last time.
    ///
    /// `Disconnected` as for `try_read`, of a producer that died as well; the descriptor then becomes
    /// readable when the next one comes. `InSet` while a [`WaitSet`](crate::WaitSet) waits for the handle,
    /// `Forked` in a forked child. Does not wait for the other side; but where no
    /// [helper thread](crate#the-helper-thread) can be started it takes a little over 1 ms, and up to 10 ms
    /// while the kernel frees what a producer held that has just died.
    pub fn arm(&mut self) -> Result<Readiness, Error> {
        waiting::arm(&mut self.core, &self.seat, core::Consumer::ensure)
    }

    /// How this handle's waiting calls pass their time from now on.
    pub fn set_wait(&mut self, wait: Wait) {
        self.seat.waiting.wait = wait;
    }

    /// Gives a sign of life, which `stat` shows. Nobody acts on it; waiting calls give one by
    /// themselves.
    pub fn heartbeat(&self) {
        self.seat.beat();
    }

    /// Asks whether the channel's name still leads to this channel: `NotFound` if it was removed, `Replaced` if
    /// the name leads to another one by now. The waiting calls ask once a second by themselves. Two or three
    /// system calls; a channel without a name is always still there. `Forked` in a forked child.
    pub fn check_name(&self) -> Result<(), Error> {
        self.seat.check_name()
    }

    /// Returns the sizes in which the channel differs from what this handle's builder asked for: what exists
    /// wins. Empty for a channel as asked for.
    pub fn differences(&self) -> Vec<Difference> {
        self.seat.differences()
    }

    /// Leaves before the work is done: the producer learns `Disconnected(Aborted)` when the channel
    /// is full.
    pub fn abort(mut self) {
        self.seat.abort();
    }
}

impl Watched for Producer {
    fn ask(&self, amount: usize) -> Result<Ask, Error> {
        let (asked, max) = (amount as u64, self.max_record() as u64);
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        self.seat.ask(Some(record_size(asked)))
    }
}

impl Watched for Consumer {
    fn ask(&self, _: usize) -> Result<Ask, Error> {
        self.seat.ask(None)
    }
}

impl AnyProducer for Producer {}
impl AnyConsumer for Consumer {}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.seat.ours() {
            self.core.peer().acknowledge();
        }
    }
}

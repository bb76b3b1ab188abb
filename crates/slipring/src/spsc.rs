//! One producer, one consumer, fixed-size payloads; when it is full, the producer waits.
//!
//! What was committed is read in order, once, whole. Both ends can copy (`push`, `pop`), work in
//! place (`reserve`, `read`) and batch. Killed at any instruction, a producer leaves exactly what it
//! committed; a killed consumer's successor gets again at most the message or guard in hand. The
//! protocol, and why it is right: [`slipring_core::spsc`] (a Lamport ring with private copies).
//!
//! ```
//! use slipring::{Payload, spsc};
//!
//! #[derive(Payload, Clone, Copy)]
//! #[repr(C)]
//! struct Tick { seq: u64, bid: f64, ask: f64 }
//!
//! let (mut tx, mut rx) = spsc::channel::<Tick>(1024)?;
//! tx.push(Tick { seq: 1, bid: 99.5, ask: 100.5 })?;
//!
//! let mut slots = tx.reserve(64)?;                    // in place; dropping discards
//! slots.write(0, Tick { seq: 2, bid: 99.0, ask: 100.0 });
//! slots.commit(1);                                    // one of the 64, visible at once
//!
//! let seen: Vec<u64> = rx.read(256)?.iter().map(|tick| tick.seq).collect();
//! assert_eq!(seen, [1, 2]);                           // in place; dropping released
//! # Ok::<(), slipring::Error>(())
//! ```
//!
//! Each verb that waits is a future, too (`push_async`, `pop_async`, ..), under any runtime; with the feature
//! `stream` a consumer is a stream, and with `tokio` tokio's event loop wakes both.
//!
//! Between processes, either of which may come first:
//!
//! ```no_run
//! # use slipring::spsc;
//! let mut tx = spsc::Builder::<u64>::new(1024).producer("market/ticks")?;   // in one
//! let mut rx = spsc::Builder::<u64>::new(1024).consumer("market/ticks")?;   // in another
//! # Ok::<(), slipring::Error>(())
//! ```

#[deny(unsafe_code)]
mod future;

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring_core::layout::{self, Geometry};
use slipring_core::mem::Slots;
use slipring_core::spsc::Look;
use slipring_core::{Error as Core, Lease, Schema, spsc as core};

pub use slipring_core::spsc::{Messages, Reservation};

use crate::channel::{self, Difference, Kind, SeatToken, sealed::Sealed};
use crate::error::{Error, PushError};
use crate::payload::Payload;
use crate::seat::Seat;
use crate::waiting::set::{AnyConsumer, AnyProducer, sealed::Watched};
use crate::waiting::{self, Ask, Readiness, Until, Wait};

/// The kind: one producer, one consumer, fixed-size payloads.
pub struct Spsc<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Spsc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spsc")
    }
}

/// How an `spsc` channel of `T` is to be made.
pub type Builder<T> = channel::Builder<Spsc<T>>;

/// The memory of an `spsc` channel of `T`, of which the two roles can be taken.
pub type Channel<T> = channel::Channel<Spsc<T>>;

/// A channel of `capacity` slots between threads of this process.
///
/// `capacity` is a power of two, from 1; anything else is [`Error::Capacity`].
pub fn channel<T: Payload>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), Error> {
    Builder::new(capacity).channel_pair()
}

impl<T: Payload> Builder<T> {
    /// A channel of `capacity` slots: a power of two, from 1. Checked when the channel is made.
    pub fn new(capacity: usize) -> Builder<T> {
        const {
            assert!(
                align_of::<T>() <= layout::PAGE,
                "a payload's alignment is at most 4096 bytes"
            );
        }
        channel::Builder::with(Geometry {
            kind: layout::Kind::Spsc,
            capacity: capacity as u64,
            slot_size: size_of::<T>() as u64,
            slot_align: align_of::<T>() as u64,
            producers: 1,
            consumers: 1,
            when_full: layout::WhenFull::Wait,
            skew: 0,
        })
    }
}

impl<T: Payload> Sealed for Spsc<T> {}

impl<T: Payload> Kind for Spsc<T> {
    type Producer = Producer<T>;
    type Consumer = Consumer<T>;

    fn schema() -> Option<Schema> {
        Some(T::SCHEMA)
    }

    fn producer(SeatToken(mut seat, _): SeatToken) -> Result<Producer<T>, Error> {
        let (ring, peer) = (ring(&seat, seat.page(), seat.peer_page()), seat.peer()?);
        // SAFETY: `seat` makes us the only producer, `T: Payload` accepts any bits; the lease is
        // taken once, and both it and the ring are used no longer than `seat` lives beside them.
        let core = unsafe { core::Producer::new(ring, peer, lease(&seat)) }?;
        seat.settle();
        Ok(Producer { core, seat })
    }

    fn consumer(SeatToken(mut seat, _): SeatToken) -> Result<Consumer<T>, Error> {
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
fn ring<T: Payload>(
    seat: &Seat,
    producer: &'static layout::RolePage,
    consumer: &'static layout::RolePage,
) -> core::Ring<'static, T> {
    let capacity = seat.region.geometry().capacity;
    // SAFETY: the header was checked against the real sizes: the data part is mapped for `capacity`
    // slots of `T` (kind and schema were compared), page-aligned or checked, while `seat` lives.
    let slots = unsafe { Slots::new(seat.region.data().cast::<T>(), capacity) };
    core::Ring {
        tail: &producer.position.0,
        head: &consumer.position.0,
        slots,
        writable: seat.region.writable,
        bell: seat.ringer(),
    }
}

/// The writing end. Dropping it ends the stream (*finished*, or *aborted* while panicking).
pub struct Producer<T: Payload> {
    core: core::Producer<'static, T>,
    // After `core`, which points into what `seat` keeps alive.
    seat: Seat,
}

/// The seat, and where the handle stands; no payload.
impl<T: Payload> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("core", &self.core)
            .field("seat", &self.seat.number)
            .finish_non_exhaustive()
    }
}

impl<T: Payload> Producer<T> {
    /// Appends `value`; gives it back if there is no room now (`Full`), or if there is none and
    /// the consumer is gone (`Disconnected`). Never waits; enters the kernel only to
    /// wake a consumer that sleeps.
    #[inline]
    #[doc(alias = "send")]
    pub fn try_push(&mut self, value: T) -> Result<(), PushError<T>> {
        match self.core.poll(1) {
            Look::Enough => {}
            Look::Nothing => {
                let error = Error::Full;
                return Err(PushError { value, error });
            }
            Look::Trouble => {
                if let Some(error) = self.trouble(1) {
                    return Err(PushError { value, error });
                }
            }
        }
        // SAFETY: `poll` or `trouble` has just said so.
        unsafe { self.core.push_ensured(value) };
        Ok(())
    }

    /// The rare third answer. It does not see a value: that need not be in memory before it is in its
    /// slot.
    #[cold]
    #[inline(never)]
    fn trouble(&mut self, count: usize) -> Option<Error> {
        self.core.trouble(count).err().map(Error::from)
    }

    /// Appends `value`, waiting while the channel is full; gives it back if the consumer is gone
    /// and the channel full. Before the first consumer has come it waits as well.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        self.push_until(value, Until::Forever)
    }

    /// As [`push`](Self::push), for at most `timeout`: then `TimedOut`, with the value.
    #[inline]
    pub fn push_timeout(&mut self, value: T, timeout: Duration) -> Result<(), PushError<T>> {
        match self.core.try_push(value) {
            Ok(()) => Ok(()),
            Err(failed) if failed.error == Core::Full => {
                self.push_until(failed.value, Until::after(timeout))
            }
            Err(failed) => Err(failed.into()),
        }
    }

    #[inline]
    fn push_until(&mut self, value: T, until: Until) -> Result<(), PushError<T>> {
        if let Err(error) = self.ensure(1, until) {
            return Err(PushError { value, error });
        }
        // SAFETY: `ensure` has just said so.
        unsafe { self.core.push_ensured(value) };
        Ok(())
    }

    #[inline]
    fn ensure(&mut self, count: usize, until: Until) -> Result<(), Error> {
        match self.core.ensure(count) {
            Err(Core::Full) => waiting::wait(&mut self.core, &mut self.seat, until, |core| {
                core.ensure(count)
            }),
            done => Ok(done?),
        }
    }

    /// Reserves `count` slots to be written in place: all of them or none (`Full`, `Disconnected`;
    /// `TooLarge` beyond the capacity). Dropping the reservation discards it.
    #[inline]
    #[doc(alias = "claim")]
    #[doc(alias = "loan")]
    pub fn try_reserve(&mut self, count: usize) -> Result<Reservation<'_, 'static, T>, Error> {
        Ok(self.core.try_reserve(count)?)
    }

    /// As [`try_reserve`](Self::try_reserve), waiting until there are so many.
    #[inline]
    pub fn reserve(&mut self, count: usize) -> Result<Reservation<'_, 'static, T>, Error> {
        self.ensure(count, Until::Forever)?;
        Ok(self.core.try_reserve(count)?)
    }

    /// As [`reserve`](Self::reserve), for at most `timeout`.
    pub fn reserve_timeout(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_, 'static, T>, Error> {
        self.ensure(count, Until::after(timeout))?;
        Ok(self.core.try_reserve(count)?)
    }

    /// Appends as many of `values` as there is room for, published as one, and says how many: at
    /// least one, or an error (none if `values` is empty).
    #[inline]
    pub fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        Ok(self.core.try_push_slice(values)?)
    }

    /// Appends all of `values`, waiting as often as it must. On an error, `Err((written, why))`
    /// says how many were appended before.
    pub fn push_slice(&mut self, values: &[T]) -> Result<(), (usize, Error)> {
        let mut written = 0;
        while written < values.len() {
            let rest = &values[written..];
            let appended = self
                .ensure(1, Until::Forever)
                .and_then(|()| self.try_push_slice(rest));
            written += appended.map_err(|error| (written, error))?;
        }
        Ok(())
    }

    /// Appends as many of the iterator's values as there is room for, published as one, and says how
    /// many. No value is taken that finds no place; pass `&mut iterator` to go on with the rest.
    /// `Full` if there is no room at all, whether or not there are values.
    #[inline]
    pub fn try_push_iter<I: IntoIterator<Item = T>>(&mut self, values: I) -> Result<usize, Error> {
        Ok(self.core.try_push_iter(&mut values.into_iter())?)
    }

    /// Appends all of the iterator's values, waiting as often as it must; publishes whenever the
    /// room it found is used up. On an error, `Err((written, why))`.
    /// No value is taken before there is room for it: pass `&mut iterator`, and after an error it goes on with
    /// the first value that was not appended. So an iterator whose `size_hint` does not tell that it has ended
    /// (a `filter`, say) may wait for room that it does not need; one that tells so does not.
    pub fn push_iter<I: IntoIterator<Item = T>>(
        &mut self,
        values: I,
    ) -> Result<usize, (usize, Error)> {
        let mut values = values.into_iter();
        let (mut written, mut ended) = (0, false);
        // Room comes first: a value that was taken could not be given back.
        while !ended && values.size_hint().1 != Some(0) {
            self.ensure(1, Until::Forever)
                .map_err(|error| (written, error))?;
            // Not `fuse`: it leaves an iterator that promises to stay at its end as it is, and such a one's size
            // hint need not tell of the end.
            let mut seen = std::iter::from_fn(|| {
                let value = values.next();
                ended = value.is_none();
                value
            });
            let count = self.core.try_push_iter(&mut seen);
            written += count.map_err(|error| (written, error.into()))?;
        }
        Ok(written)
    }

    /// Messages committed and not yet released, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.core.len()?)
    }

    /// Whether every committed message is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// How many messages the channel holds.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// How many messages were ever committed, by all producers of this channel.
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

    /// The descriptor by which an event loop (epoll, mio, libuv) waits for room, in place of a blocking
    /// call. It is this handle's alone, the same one each time, and *readable* when there is news; watch
    /// it level-triggered, [`arm`](Self::arm) before each poll, and leave reading it to `arm` (example:
    /// [`Readiness`]). Made at the first call: `NoPipes` for borrowed memory,
    /// `TooManyFiles` at the [limit](crate#descriptors) of descriptors.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        waiting::descriptor(&self.seat)
    }

    /// Says whether there is room for `count` slots; if there is none, the descriptor becomes readable
    /// when the consumer makes some, arrives, leaves, or dies (then it is also hung up). To be called
    /// before each poll: it takes away what made the descriptor readable last time.
    ///
    /// `Disconnected` as for `try_reserve`; the descriptor then becomes readable when the next consumer
    /// comes. `InSet` while a [`WaitSet`](crate::WaitSet) waits for the handle, `Forked` in a forked child.
    /// Does not wait for the other side; but where no [helper thread](crate#the-helper-thread) can be started
    /// it takes a little over 1 ms, and up to 10 ms while the kernel frees what a consumer held that has just
    /// died.
    pub fn arm(&mut self, count: usize) -> Result<Readiness, Error> {
        waiting::arm(&mut self.core, &self.seat, |core| core.ensure(count))
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
pub struct Consumer<T: Payload> {
    core: core::Consumer<'static, T>,
    // After `core`, which points into what `seat` keeps alive.
    seat: Seat,
}

/// The seat, and where the handle stands; no payload.
impl<T: Payload> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("core", &self.core)
            .field("seat", &self.seat.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl<T: Payload> Producer<T> {
    pub(crate) fn parts(&mut self) -> (&mut core::Producer<'static, T>, &Seat) {
        (&mut self.core, &self.seat)
    }
}

#[cfg(test)]
impl<T: Payload> Consumer<T> {
    pub(crate) fn parts(&mut self) -> (&mut core::Consumer<'static, T>, &Seat) {
        (&mut self.core, &self.seat)
    }
}

impl<T: Payload> Consumer<T> {
    /// Takes the oldest message: `Empty` if there is none, `Disconnected` if there is none and the
    /// producer left. Never waits; enters the kernel only to wake a
    /// producer that sleeps; so it cannot find out that a producer
    /// *died*: the waiting calls can, [`is_disconnected`](Self::is_disconnected), and a
    /// [`WaitSet`](crate::WaitSet). What they found, it tells.
    #[inline]
    #[doc(alias = "recv")]
    pub fn try_pop(&mut self) -> Result<T, Error> {
        match self.core.poll() {
            Look::Enough => {}
            Look::Nothing => return Err(Error::Empty),
            Look::Trouble => {
                if let Some(error) = self.trouble() {
                    return Err(error);
                }
            }
        }
        // SAFETY: `poll` or `trouble` has just said so.
        Ok(unsafe { self.core.pop_ensured() })
    }

    /// The rare third answer.
    #[cold]
    #[inline(never)]
    fn trouble(&mut self) -> Option<Error> {
        self.core.trouble().err().map(Error::from)
    }

    /// Takes the oldest message, waiting while there is none. `Disconnected` once all is read and
    /// the producer is gone. Before the first producer has come it waits.
    #[inline]
    pub fn pop(&mut self) -> Result<T, Error> {
        self.ensure(Until::Forever)?;
        // SAFETY: `ensure` has just said so.
        Ok(unsafe { self.core.pop_ensured() })
    }

    /// As [`pop`](Self::pop), for at most `timeout` (`TimedOut`).
    #[inline]
    pub fn pop_timeout(&mut self, timeout: Duration) -> Result<T, Error> {
        match self.core.try_pop() {
            Err(Core::Empty) => self.ensure(Until::after(timeout))?,
            done => return Ok(done?),
        }
        Ok(self.core.try_pop()?)
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

    /// Up to `max` messages in place: at least one, or an error. Dropping the guard
    /// releases them, also by an early `?`: see [`Messages`].
    #[inline]
    pub fn try_read(&mut self, max: usize) -> Result<Messages<'_, 'static, T>, Error> {
        Ok(self.core.try_read(max)?)
    }

    /// As [`try_read`](Self::try_read), waiting until there is a message.
    #[inline]
    pub fn read(&mut self, max: usize) -> Result<Messages<'_, 'static, T>, Error> {
        if max > 0 {
            self.ensure(Until::Forever)?;
        }
        Ok(self.core.try_read(max)?)
    }

    /// As [`read`](Self::read), for at most `timeout`.
    pub fn read_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> Result<Messages<'_, 'static, T>, Error> {
        if max > 0 {
            self.ensure(Until::after(timeout))?;
        }
        Ok(self.core.try_read(max)?)
    }

    /// Copies up to `out.len()` messages into `out`, released as one, and says how many: at least
    /// one, or an error (none if `out` is empty).
    #[inline]
    pub fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        Ok(self.core.try_pop_slice(out)?)
    }

    /// As [`try_pop_slice`](Self::try_pop_slice), waiting until there is a message.
    pub fn pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        if !out.is_empty() {
            self.ensure(Until::Forever)?;
        }
        Ok(self.core.try_pop_slice(out)?)
    }

    /// Messages committed and not yet released, exactly.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.core.len()?)
    }

    /// Whether every committed message is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// How many messages the channel holds.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// How many messages were ever released, by all consumers of this channel.
    pub fn position(&self) -> u64 {
        self.core.position()
    }

    /// Whether no producer is there: none has come yet, or the last one left or died. There may be
    /// messages all the same. Asks the kernel: one system call.
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

    /// The descriptor by which an event loop (epoll, mio, libuv) waits for a message, in place of a
    /// blocking call. It is this handle's alone, the same one each time, and *readable* when there is
    /// news; watch it level-triggered, [`arm`](Self::arm) before each poll, and leave reading it to
    /// `arm` (example: [`Readiness`]). Made at the first call: `NoPipes` for borrowed memory,
    /// `TooManyFiles` at the [limit](crate#descriptors) of descriptors.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        waiting::descriptor(&self.seat)
    }

    /// Says whether there is a message; if there is none, the descriptor becomes readable when the
    /// producer commits one, arrives, leaves, or dies (then it is also hung up). To be called before each
    /// poll: it takes away what made the descriptor readable last time.
    ///
    /// `Disconnected` as for `try_pop`, of a producer that died as well; the descriptor then becomes readable
    /// when the next one comes. `InSet` while a [`WaitSet`](crate::WaitSet) waits for the handle, `Forked` in
    /// a forked child. Does not wait for the other side; but where no
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

impl<T: Payload> Watched for Producer<T> {
    fn ask(&self, amount: usize) -> Result<Ask, Error> {
        let (asked, max) = (amount as u64, self.capacity() as u64);
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        self.seat.ask(Some(asked))
    }
}

impl<T: Payload> Watched for Consumer<T> {
    fn ask(&self, _: usize) -> Result<Ask, Error> {
        self.seat.ask(None)
    }
}

impl<T: Payload> AnyProducer for Producer<T> {}
impl<T: Payload> AnyConsumer for Consumer<T> {}

impl<T: Payload> Drop for Consumer<T> {
    fn drop(&mut self) {
        if self.seat.ours() {
            self.core.peer().acknowledge();
        }
    }
}

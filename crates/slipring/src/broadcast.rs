//! One producer, and every consumer sees all; fixed-size payloads. When the ring is full, the producer waits
//! for the slowest consumer, or overwrites what that has not read ([`WhenFull`]).
//!
//! Consumers come and go, up to a number set when the channel is made. What a publish costs does not grow
//! with theirs. *Wait*: nothing is lost; a consumer that dies holds nobody up for longer than it takes to
//! notice (milliseconds), one that is stopped holds the producer up until it goes on; without
//! consumers nobody is waited for. *Overwrite*: the producer never waits, and a consumer that was overtaken
//! learns from `Lagged` how many messages it lost, exactly, and goes on. Killed at any instruction, a
//! producer leaves exactly what it committed, and its successor goes on behind that. The protocol, and why it
//! is right: [`slipring_core::broadcast`].
//!
//! ```
//! use slipring::{Error, broadcast::{self, WhenFull}};
//!
//! let channel = broadcast::Builder::<u64>::new(8).consumers(2).heap()?;
//! let mut tx = channel.producer()?;
//! let (mut one, mut other) = (channel.consumer()?, channel.consumer()?);
//! tx.push(7)?;
//! assert_eq!((one.pop()?, other.pop()?), (7, 7));
//!
//! let (mut tx, mut rx) = broadcast::Builder::<u64>::new(8)
//!     .when_full(WhenFull::Overwrite)
//!     .channel_pair()?;
//! (0..10).for_each(|n| tx.push(n).unwrap());                 // two more than it holds
//! assert!(matches!(rx.pop(), Err(Error::Lagged(5))));        // given up by fours, and an eighth of the ring
//! assert_eq!(rx.pop()?, 5);
//! # Ok::<(), Error>(())
//! ```
//!
//! A consumer that comes late begins at the *newest*: it sees what is committed after it joined. Who wants what
//! is there already says so: `.join(Seek::Oldest)`.
//!
//! (There is no `channel(capacity)` as for the other kinds: who wants a second consumer needs the [`Channel`].)
//!
//! Between processes, any of which may come first:
//!
//! ```no_run
//! # use slipring::broadcast;
//! let feed = broadcast::Builder::<u64>::new(1 << 16).consumers(16);
//! let mut tx = feed.producer("market/ticks")?;                            // in one
//! let mut rx = feed.consumer("market/ticks")?;                            // in each of the others
//! # Ok::<(), slipring::Error>(())
//! ```

#[deny(unsafe_code)]
mod future;

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slipring_core::broadcast::{self as core, Look, Store};
use slipring_core::layout::{self, Geometry};
use slipring_core::mem::{Racing, Slots};
use slipring_core::seat::Peer;
use slipring_core::{Error as Core, Lease, Schema};

pub use slipring_core::broadcast::{Messages, Reservation, Seek};
pub use slipring_core::layout::WhenFull;

use crate::channel::{self, Difference, Kind, SeatToken, sealed::Sealed};
use crate::error::{Error, PushError};
use crate::payload::Payload;
use crate::seat::Seat;
use crate::waiting::set::{AnyConsumer, AnyProducer, sealed::Watched};
use crate::waiting::{self, Ask, Readiness, Until, Wait};

/// The kind: one producer, each consumer sees all, fixed-size payloads.
pub struct Broadcast<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broadcast")
    }
}

/// How a `broadcast` channel of `T` is to be made.
pub type Builder<T> = channel::Builder<Broadcast<T>>;

/// The memory of a `broadcast` channel of `T`, of which the roles can be taken.
pub type Channel<T> = channel::Channel<Broadcast<T>>;

/// How many consumers a channel has seats for if nobody says.
const CONSUMERS: u64 = 16;

impl<T: Payload> Builder<T> {
    /// A channel of `capacity` slots: a power of two, from 1. Checked when the channel is made. It has seats for
    /// 16 consumers, and waits for the slowest.
    pub fn new(capacity: usize) -> Builder<T> {
        const {
            assert!(
                align_of::<T>() <= layout::PAGE,
                "a payload's alignment is at most 4096 bytes"
            );
        }
        channel::Builder::with(Geometry {
            kind: layout::Kind::Broadcast,
            when_full: WhenFull::Wait,
            capacity: capacity as u64,
            slot_size: size_of::<T>() as u64,
            slot_align: align_of::<T>() as u64,
            producers: 1,
            consumers: CONSUMERS,
            skew: 0,
        })
    }

    /// Seats for so many consumers: from 1 to 63, 4 KiB each. Checked when the channel is made.
    #[must_use]
    pub fn consumers(mut self, consumers: usize) -> Builder<T> {
        self.geometry.consumers = consumers as u64;
        self
    }

    /// What the producer does when the ring is full. Where it overwrites, it gives up the oldest messages a
    /// stretch at a time, a little before it comes to them: an eighth of the ring (from 16 to 256 messages, half
    /// of a small ring), so of a ring of 4096 slots the last 3840 messages are there, while they come at most 256 at a time.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Builder<T> {
        self.geometry.when_full = when_full;
        self
    }

    /// Where consumers begin: at the newest, if nobody says, so that a consumer sees what is committed after it
    /// joined (as in tokio, Aeron and disruptor). [`Seek::Oldest`] begins at the oldest message that is there: for
    /// consumers that are to see everything, and may come late. To take the role is
    /// `Ahead` at one that is not there yet. At one that is gone: where the channel waits, it begins at the
    /// oldest; where it overwrites, `Lagged` says how many are lost.
    #[must_use]
    pub fn join(mut self, seek: Seek) -> Builder<T> {
        self.seek = seek;
        self
    }
}

impl<T: Payload> Sealed for Broadcast<T> {}

impl<T: Payload> Kind for Broadcast<T> {
    type Producer = Producer<T>;
    type Consumer = Consumer<T>;

    fn schema() -> Option<Schema> {
        Some(T::SCHEMA)
    }

    fn producer(SeatToken(mut seat, _): SeatToken) -> Result<Producer<T>, Error> {
        let ring = ring(&seat)?;
        // SAFETY: `seat` makes us the only producer, `T: Payload` accepts any bits; the lease is
        // taken once, and both it and the ring are used no longer than `seat` lives beside them.
        let core = unsafe { core::Producer::new(ring, lease(&seat)) }?;
        seat.settle();
        Ok(Producer { core, seat })
    }

    fn consumer(SeatToken(mut seat, seek): SeatToken) -> Result<Consumer<T>, Error> {
        let ring = ring(&seat)?;
        let (peer, place) = (peer(&seat, seek)?, place(&seat, ring.gate));
        // SAFETY: as in `producer`, for the consumer in this seat.
        let core = unsafe { core::Consumer::new(ring, place, peer, lease(&seat), seek) }?;
        seat.settle();
        Ok(Consumer { core, seat })
    }
}

fn lease(seat: &Seat) -> &'static mut Lease {
    // SAFETY: called once for each seat, by `producer` or `consumer` above.
    unsafe { seat.lease() }
}

/// The ring of a validated region, as each end sees it.
fn ring<T: Payload>(seat: &Seat) -> Result<core::Ring<'static, T>, Error> {
    let (region, geometry) = (&seat.region, seat.region.geometry());
    let base = region.data();
    let store = match geometry.when_full {
        // SAFETY: the header was checked against the real sizes: the data part is mapped for `capacity`
        // slots of `T` (kind and schema were compared), page-aligned or checked, while `seat` lives.
        WhenFull::Wait => Store::Plain(unsafe { Slots::new(base.cast::<T>(), geometry.capacity) }),
        WhenFull::Overwrite => {
            let words = geometry.data_len() as usize / 8;
            // SAFETY: as above, for `capacity` strides of whole words; it is accessed through atomics of one
            // size only, and by what `Racing` does in their place in assembly.
            let words =
                unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>().as_ptr(), words) };
            // SAFETY: a payload has no padding.
            let slots = unsafe { Racing::new(words, geometry.capacity) };
            // Never: a checked geometry of this `T`.
            Store::Racing(slots.ok_or(Core::TooLarge {
                asked: size_of::<T>() as u64,
                max: geometry.slot_size,
            })?)
        }
    };
    let producer = region.control().role(geometry, 0);
    Ok(core::Ring {
        tail: &producer.position.0,
        gate: &producer.gate.0,
        members: region.control().members(),
        consumers: region.side(crate::Role::Consumer),
        store,
        writable: region.writable,
        bell: seat.ringer(),
    })
}

/// Where a consumer stands.
fn place(seat: &Seat, gate: &'static AtomicU64) -> core::Seat<'static> {
    let geometry = seat.region.geometry();
    core::Seat {
        position: &seat.page().position.0,
        gate,
        members: seat.region.control().members(),
        bit: match geometry.when_full {
            WhenFull::Wait => seat.bit(),
            WhenFull::Overwrite => 0,
        },
        capacity: geometry.capacity,
    }
}

/// Returns what a consumer starts out knowing of the producer: the ends before the last one, if it begins behind all
/// that was sent. The last end is news to it, or it would wait for a message of a producer that has left. (What the
/// last holder of this seat knew is another's.)
fn peer(seat: &Seat, seek: Seek) -> Result<Peer<'static>, Error> {
    let life = seat.peer_line().life()?;
    let known = match seek {
        Seek::Newest => life.generation.saturating_sub(1),
        Seek::Oldest | Seek::To(_) => 0,
    };
    // Relaxed: for tools, and for the handle itself.
    seat.line().acknowledged.store(known, Ordering::Relaxed);
    seat.peer()
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
    /// Appends `value`; gives it back if there is no room now (`Full`; never where messages are
    /// overwritten). Never waits; enters the kernel only to wake consumers that sleep.
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
                let error = self.trouble();
                return Err(PushError { value, error });
            }
        }
        // SAFETY: `poll` has just said so.
        unsafe { self.core.push_ensured(value) };
        Ok(())
    }

    /// The rare third answer. It does not see a value, as in `spsc.rs`.
    #[cold]
    #[inline(never)]
    fn trouble(&self) -> Error {
        self.core.trouble(1).into()
    }

    /// Appends `value`, waiting while the slowest consumer is a whole ring behind. One that died is
    /// noticed and no longer waited for; one that is stopped is waited for.
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

    /// Reserves `count` slots: all of them or none (`Full`; `TooLarge` beyond the capacity). In place where
    /// the channel waits; where it overwrites, what lies in the slots (and in a stretch of them at least, see
    /// [`Builder::when_full`]) is given up at once, unless it was before, and the slots are written by [`Reservation::write`]. Dropping the reservation discards it.
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

    /// Appends as many of `values` as there is room for, and says how many: at least one, or an error
    /// (none if `values` is empty). Published as one. By reference: of large messages one at a time is moved
    /// less often this way than by [`try_push`](Self::try_push).
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

    /// Appends as many of the iterator's values as there is room for, and says how many, as
    /// [`try_push_slice`](Self::try_push_slice). No value is taken that finds no place; pass
    /// `&mut iterator` to go on with the rest. `Full` if there is no room at all.
    #[inline]
    pub fn try_push_iter<I: IntoIterator<Item = T>>(&mut self, values: I) -> Result<usize, Error> {
        Ok(self.core.try_push_iter(&mut values.into_iter())?)
    }

    /// Appends all of the iterator's values, waiting as often as it must. On an error,
    /// `Err((written, why))`.
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

    /// How many messages the channel holds.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// How many messages were ever committed, by all producers of this channel: the number of the next.
    pub fn position(&self) -> u64 {
        self.core.position()
    }

    /// Whether no consumer is there. Asks the kernel: a system call for each seat that was ever taken.
    pub fn is_disconnected(&mut self) -> Result<bool, Error> {
        Ok(!waiting::present(&mut self.core, &self.seat)?)
    }

    /// Waits until a consumer is there, for at most `timeout` (`TimedOut`).
    pub fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        waiting::wait_for_peer(&mut self.core, &mut self.seat, Until::after(timeout))
    }

    /// The descriptor by which an event loop (epoll, mio, libuv) waits for room, in place of a blocking
    /// call. It is this handle's alone, the same one each time, and *readable* when there is news; watch
    /// it level-triggered, [`arm`](Self::arm) before each poll, and leave reading it to `arm` (example:
    /// [`Readiness`]). Made at the first call: `NoPipes` for borrowed memory,
    /// `TooManyFiles` at the [limit](crate#descriptors) of descriptors.
    ///
    /// It tells of what consumers do; and since no consumer's death is seen by it, it is also readable every
    /// few milliseconds (`check_every`) while it is armed: then `arm` finds out, and has a dead one not waited
    /// for any more.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        waiting::descriptor(&self.seat)
    }

    /// Says whether there is room for `count` slots; if there is none, the descriptor becomes readable
    /// when a consumer makes some, arrives, or leaves. To be called before each poll: it takes away what
    /// made the descriptor readable last time.
    ///
    /// `InSet` while a [`WaitSet`](crate::WaitSet) waits for the handle, `Forked` in a forked child. Does not
    /// wait for the other side; but where no [helper thread](crate#the-helper-thread) can be started it takes
    /// a little over 1 ms.
    pub fn arm(&mut self, count: usize) -> Result<Readiness, Error> {
        waiting::arm(&mut self.core, &self.seat, |core| core.room(count))
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

    /// Leaves before the work is done: consumers learn `Disconnected(Aborted)`, after they have
    /// read what was committed.
    pub fn abort(mut self) {
        self.seat.abort();
    }
}

/// A reading end. Dropping it leaves: nobody waits for it any more.
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

impl<T: Payload> Consumer<T> {
    /// Takes the oldest message that this consumer has not had: `Empty` if there is none, `Lagged(n)` if
    /// the producer overwrote it and others (then this goes on at the oldest plus an eighth of the ring),
    /// `Disconnected` if there is none and the producer left. Never waits; enters the kernel only to wake
    /// a producer that sleeps; so it cannot find out that a producer *died*: the waiting calls can,
    /// [`is_disconnected`](Self::is_disconnected), and a [`WaitSet`](crate::WaitSet). What they found, it tells.
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
        unsafe { self.take() }
    }

    /// Takes what was found.
    ///
    /// # Safety
    /// As for the core's `take`.
    #[inline(always)]
    unsafe fn take(&mut self) -> Result<T, Error> {
        let mut value = MaybeUninit::uninit();
        // SAFETY: the caller's promise.
        if unsafe { self.core.take(&mut value) } {
            // SAFETY: taken.
            Ok(unsafe { value.assume_init() })
        } else {
            Err(self.overrun())
        }
    }

    /// Overtaken while it was copied.
    #[cold]
    #[inline(never)]
    fn overrun(&mut self) -> Error {
        let error = self.core.overrun().into();
        self.told(error)
    }

    /// The rare third answer.
    #[cold]
    #[inline(never)]
    fn trouble(&mut self) -> Option<Error> {
        self.core
            .trouble()
            .err()
            .map(|error| self.told(error.into()))
    }

    /// Counts what was lost, for people.
    fn told(&self, error: Error) -> Error {
        if let Error::Lagged(lost) = error {
            let lagged = &self.seat.page().counters.lagged;
            // One writer: a load and a store, no read-modify-write.
            let sum = lagged.load(Ordering::Relaxed).wrapping_add(lost);
            lagged.store(sum, Ordering::Relaxed);
        }
        error
    }

    /// Takes the oldest message, waiting while there is none: `Lagged`; `Disconnected` once all is read
    /// and the producer is gone. Before the first producer has come it waits.
    #[inline]
    pub fn pop(&mut self) -> Result<T, Error> {
        self.pop_until(Until::Forever)
    }

    /// As [`pop`](Self::pop), for at most `timeout` (`TimedOut`).
    #[inline]
    pub fn pop_timeout(&mut self, timeout: Duration) -> Result<T, Error> {
        match self.try_pop() {
            Err(Error::Empty) => self.pop_until(Until::after(timeout)),
            done => done,
        }
    }

    #[inline]
    fn pop_until(&mut self, until: Until) -> Result<T, Error> {
        self.ensure(until)?;
        // SAFETY: `ensure` has just said so.
        unsafe { self.take() }
    }

    #[inline]
    fn ensure(&mut self, until: Until) -> Result<(), Error> {
        let waited = match self.core.ensure() {
            Ok(()) => return Ok(()),
            Err(Core::Empty) => waiting::wait(
                &mut self.core,
                &mut self.seat,
                until,
                core::Consumer::ensure,
            ),
            Err(error) => Err(error.into()),
        };
        waited.map_err(|error| self.told(error))
    }

    /// Up to `max` messages in place: at least one, or an error; `Overwritten` where the producer does not
    /// wait for readers. Dropping the guard releases them, also by an early `?`: see [`Messages`].
    #[inline]
    pub fn try_read(&mut self, max: usize) -> Result<Messages<'_, 'static, T>, Error> {
        Ok(self.core.try_read(max)?)
    }

    /// As [`try_read`](Self::try_read), waiting until there is a message.
    #[inline]
    pub fn read(&mut self, max: usize) -> Result<Messages<'_, 'static, T>, Error> {
        self.read_until(max, Until::Forever)
    }

    /// As [`read`](Self::read), for at most `timeout`.
    pub fn read_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> Result<Messages<'_, 'static, T>, Error> {
        self.read_until(max, Until::after(timeout))
    }

    #[inline]
    fn read_until(&mut self, max: usize, until: Until) -> Result<Messages<'_, 'static, T>, Error> {
        if self.seat.region.geometry().when_full == WhenFull::Overwrite {
            return Err(Error::Overwritten);
        }
        if max > 0 {
            self.ensure(until)?;
        }
        Ok(self.core.try_read(max)?)
    }

    /// Copies up to `out.len()` messages into `out`, and says how many: at least one, or an error (none if
    /// `out` is empty); where messages are overwritten, an eighth of the ring at most. `Lagged` comes before
    /// what is copied after it: one call tells either. What lies in `out` behind the messages, or beside
    /// `Lagged`, may have changed.
    #[inline]
    pub fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        let taken = self.core.try_pop_slice(out);
        taken.map_err(|error| self.told(error.into()))
    }

    /// As [`try_pop_slice`](Self::try_pop_slice), waiting until there is a message.
    pub fn pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        if !out.is_empty() {
            self.ensure(Until::Forever)?;
        }
        self.try_pop_slice(out)
    }

    /// From now on only every `of`th message is this consumer's: those whose number leaves `index` when
    /// divided by `of`. So `of` consumers share the messages without a word between them. What is not its
    /// own is neither waited for, nor counted by `len` or as lost. (It may so step over the end of a producer
    /// that has a successor, which is then not told.) `Stride` unless `index` is below `of`, and that at most
    /// 2^32.
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::broadcast::Builder::<u64>::new(8).channel_pair()?;
    /// rx.stride(1, 3)?;
    /// (0..6).try_for_each(|number| tx.push(number))?;
    /// assert_eq!((rx.pop()?, rx.pop()?), (1, 4));
    /// # Ok::<(), slipring::Error>(())
    /// ```
    pub fn stride(&mut self, index: u64, of: u64) -> Result<(), Error> {
        Ok(self.core.stride(index, of)?)
    }

    /// Goes on at the oldest, the newest, or a message by its number, and says which that is: of this
    /// consumer's, the first from there on. What is gone cannot be gone back to: where the channel waits, it
    /// goes on at the oldest that is safe; where it overwrites, the next call says `Lagged`. `Ahead` for a
    /// message that is not there yet.
    ///
    /// ```
    /// use slipring::broadcast::{self, Seek};
    ///
    /// let (mut tx, mut rx) = broadcast::Builder::<u64>::new(8).channel_pair()?;
    /// (0..6).try_for_each(|number| tx.push(number))?;
    /// assert_eq!((rx.seek(Seek::To(4))?, rx.pop()?), (4, 4));
    /// assert_eq!((rx.seek(Seek::Newest)?, rx.len()?), (6, 0));
    /// # Ok::<(), slipring::Error>(())
    /// ```
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        Ok(self.core.seek(to)?)
    }

    /// How many messages this consumer is behind. Where messages are overwritten, some of them may be gone.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.core.len()?)
    }

    /// Whether this consumer has had every committed message.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// How many messages the channel holds.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// The number of this consumer's next message, counted from the channel's first.
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
    /// The death of a named channel's producer that has never rung this consumer is told by the helper thread, up to 16
    /// times `check_every` later, and without a hang-up; `Os` where no helper thread can be started.
    ///
    /// `Disconnected` as for `try_pop`, of a producer that died as well; the descriptor then becomes readable
    /// when the next one comes. (Not `Lagged`: that is news, so `Ready`, and the next call tells.) `InSet`
    /// while a [`WaitSet`](crate::WaitSet) waits for the handle, `Forked` in a forked child. Does not wait
    /// for the other side; but where no [helper thread](crate#the-helper-thread) can be started it takes a
    /// little over 1 ms, and up to 10 ms while the kernel frees what a producer held that has just died.
    pub fn arm(&mut self) -> Result<Readiness, Error> {
        let armed = waiting::arm(&mut self.core, &self.seat, core::Consumer::ensure);
        armed.map_err(|error| self.told(error))
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

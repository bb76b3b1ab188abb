//! One producer, and every consumer sees all messages; fixed-size payloads. When the ring is full,
//! the producer waits for the slowest consumer, or overwrites messages that it has not read.
//!
//! Consumers come and go, up to a number set when the channel is made. The cost of a publish does
//! not grow with the number of consumers.
//!
//! The type says which. `Producer<T>` and `Consumer<T>` are ends of a channel that waits;
//! `Producer<T, Overwriting>` and `Consumer<T, Overwriting>` are ends of one that overwrites.
//!
//! * [`Waiting`]: no message is lost. A consumer that dies holds the producer up only until its death is
//!   detected, which takes milliseconds. A consumer that is stopped holds the producer up until it
//!   continues. Without consumers the producer never waits.
//! * [`Overwriting`]: the producer never waits. A consumer that was overtaken gets `Lagged` with the
//!   exact number of messages it lost, and continues. It copies messages, and has no verb that reads
//!   in place ([`InPlaceKind`]).
//!
//! A producer that is killed at any instruction leaves exactly what it committed, and its successor
//! continues behind that.
//!
//! The protocol, and why it is right: [`slipring_core::proto::broadcast`].
//!
//! ```
//! use slipring::{Error, SetupError, broadcast};
//!
//! let channel = broadcast::Builder::<u64>::new(8).consumers(2).heap()?;
//! let mut tx = channel.producer()?;
//! let (mut one, mut other) = (channel.consumer()?, channel.consumer()?);
//! tx.push(7)?;
//! assert_eq!((one.pop()?, other.pop()?), (7, 7));
//!
//! let (mut tx, mut rx) = broadcast::Builder::<u64>::new(8).overwriting().channel_pair()?;
//! (0..10).for_each(|n| tx.push(n).unwrap());                 // two more than it holds
//! assert_eq!(rx.pop(), Err(Error::Lagged(5)));        // the ring less a block (4 here), less an eighth of the ring to stay ahead
//! assert_eq!(rx.pop()?, 5);
//! # Ok::<(), SetupError>(())
//! ```
//!
//! A consumer that comes late begins at the *newest* message: it sees what is committed after it
//! joined. To begin at the oldest message still there, use `.join(Seek::Oldest)`.
//!
//! There is no `channel(capacity)` as for the other kinds: a second consumer needs the [`Channel`].
//! Messages of varying size: [`records`].
//!
//! The processes may come in any order:
//!
//! ```no_run
//! # use slipring::broadcast;
//! let feed = broadcast::Builder::<u64>::new(1 << 16).consumers(16);
//! let mut tx = feed.producer("market/ticks")?;                            // in one
//! let mut rx = feed.consumer("market/ticks")?;                            // in each of the others
//! # Ok::<(), slipring::SetupError>(())
//! ```

pub mod records;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use slipring_core::Schema;
use slipring_core::layout::{self, Geometry, Role};
use slipring_core::proto::broadcast as proto;
use slipring_core::seat::Peer;

pub use slipring_core::proto::broadcast::{Mode, Overwriting, Seek, Waiting};

use crate::builder;
use crate::error::Error;
use crate::kind::{InPlaceKind, Kind, PeekKind, SeatToken, SlotKind, sealed::Sealed};
use crate::payload::Payload;
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::{consumer, producer};

/// The kind: one producer, each consumer sees all messages, fixed-size payloads.
///
/// The mode `M` says what the producer does when the ring is full.
pub struct Broadcast<T, M = Waiting>(PhantomData<fn() -> (T, M)>);

impl<T, M> fmt::Debug for Broadcast<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broadcast")
    }
}

/// Makes or opens a `broadcast` channel of `T`.
pub type Builder<T, M = Waiting> = builder::Builder<Broadcast<T, M>>;

/// The memory of a `broadcast` channel of `T`, from which the roles can be taken.
pub type Channel<T, M = Waiting> = crate::channel::Channel<Broadcast<T, M>>;

/// The writing end of a `broadcast` channel of `T`.
pub type Producer<T, M = Waiting> = producer::Producer<Broadcast<T, M>>;

/// A reading end of a `broadcast` channel of `T`.
pub type Consumer<T, M = Waiting> = consumer::Consumer<Broadcast<T, M>>;

/// Slots of a `broadcast` channel that a producer has reserved.
///
/// If the channel overwrites, a consumer may be reading these slots. So `write` copies into them, and
/// the compiler refuses slices of them:
///
/// ```compile_fail,E0599
/// let (mut tx, _rx) = slipring::broadcast::Builder::<u64>::new(8).overwriting().channel_pair().unwrap();
/// let _ = tx.reserve(2).unwrap().as_mut_slices();
/// ```
pub type Reservation<'p, T, M = Waiting> = producer::Reservation<'p, Broadcast<T, M>>;

/// Messages of a `broadcast` channel that waits, which a consumer reads in place.
pub type Messages<'c, T> = consumer::Messages<'c, Broadcast<T>>;

/// One message of a `broadcast` channel that waits, which a consumer reads in place.
pub type Message<'c, T> = consumer::Message<'c, Broadcast<T>>;

/// The default number of consumer seats.
const CONSUMERS: u64 = 16;

impl<T: Payload> Builder<T> {
    /// Describes a channel of `capacity` slots: a power of two, from 1. Checked when the channel is
    /// made. By default it has seats for 16 consumers, and its producer waits for the slowest.
    pub fn new(capacity: usize) -> Builder<T> {
        const {
            assert!(
                align_of::<T>() <= layout::PAGE,
                "a payload's alignment is at most 4096 bytes"
            );
        }
        builder::Builder::with(Geometry {
            kind: layout::Kind::Broadcast,
            when_full: Waiting::WHEN_FULL,
            capacity: capacity as u64,
            slot_size: size_of::<T>() as u64,
            slot_align: align_of::<T>() as u64,
            producers: 1,
            consumers: CONSUMERS,
            skew: 0,
            pins: 0,
            pool: 0,
            growth: None,
        })
    }

    /// Lets the producer overwrite the oldest messages when the ring is full, instead of waiting.
    ///
    /// It gives up the oldest messages one block at a time, shortly before it reuses their slots. A
    /// block is an eighth of the ring, but from 16 to 256 messages, and half of a small ring. So a
    /// ring of 4096 slots keeps the last 3840 messages, if they come at most 256 at a time. A
    /// consumer that was overtaken goes on an eighth of the ring behind the oldest, so as not to be
    /// overtaken again at once: it gets the last 3328.
    ///
    /// ```
    /// use slipring::broadcast::{self, Overwriting};
    ///
    /// let feed: broadcast::Builder<u64, Overwriting> = broadcast::Builder::new(8).overwriting();
    /// let (mut tx, mut rx) = feed.channel_pair()?;
    /// (0..1000).try_for_each(|number| tx.try_push(number))?; // never full
    /// assert!(matches!(rx.try_pop(), Err(slipring::Error::Lagged(_))));
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[must_use]
    pub fn overwriting(self) -> Builder<T, Overwriting> {
        let mut builder = self.of_kind();
        builder.geometry.when_full = Overwriting::WHEN_FULL;
        builder
    }
}

impl<T: Payload, M: Mode> Builder<T, M> {
    /// Sets the number of consumer seats: from 1 to 63, 4 KiB each. Checked when the channel is
    /// made.
    #[must_use]
    pub fn consumers(mut self, consumers: usize) -> Self {
        self.geometry.consumers = consumers as u64;
        self
    }

    /// Sets where consumers begin. The default is the newest message, as in tokio, Aeron and
    /// disruptor: a consumer sees what is committed after it joined. [`Seek::Oldest`] begins at the
    /// oldest message that is there, for consumers that must see everything and may come late.
    ///
    /// Taking the role returns `Ahead` if the message does not exist yet. If the message is gone, a
    /// consumer of a channel that waits begins at the oldest. In a channel that overwrites,
    /// `Lagged` tells how many messages are lost.
    #[must_use]
    pub fn join(mut self, seek: Seek) -> Self {
        self.seek = seek;
        self
    }
}

impl<T: Payload, M: Mode> Sealed for Broadcast<T, M> {}

impl<T: Payload, M: Mode> SlotKind for Broadcast<T, M> {
    type Value = T;
}

impl<T: Payload> InPlaceKind for Broadcast<T, Waiting> {}

impl<T: Payload> PeekKind for Broadcast<T, Waiting> {}

impl<T: Payload, M: Mode> Kind for Broadcast<T, M> {
    type Producer = proto::Producer<'static, T, M>;
    type Consumer = proto::Consumer<'static, T, M>;

    fn schema() -> Option<Schema> {
        Some(T::SCHEMA)
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        let seat = token.seat;
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { seat.cached_limit() };
        // SAFETY: the seat makes us the only producer, and `T: Payload` accepts any bits. The
        // cached limit is taken once. The cached limit and the ring are used only while the seat
        // lives beside them.
        Ok(unsafe { proto::Producer::new(ring(seat), cached_limit) }?)
    }

    fn consumer(token: &SeatToken<'_>) -> Result<Self::Consumer, SetupError> {
        let (seat, seek) = (token.seat, token.seek);
        let ring = ring(seat);
        let (peer, place) = (peer(seat, seek)?, place(seat, ring.write_limit));
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { seat.cached_limit() };
        // SAFETY: as in `producer`, for the consumer in this seat.
        Ok(unsafe { proto::Consumer::new(ring, place, peer, cached_limit, seek) }?)
    }
}

/// Returns the ring of a validated region, as each end uses it.
fn ring<T: Payload, M: Mode>(seat: &Seat) -> proto::Ring<'static, T, M> {
    let (region, geometry) = (&seat.region, seat.region.geometry());
    // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is
    // mapped for `capacity` slots of `T`, page-aligned or checked. The kind, the schema and the
    // mode were compared.
    let slots = unsafe { M::slots(region.data(), geometry.capacity) };
    let producer = region.control().role(geometry, 0);
    proto::Ring {
        tail: &producer.position,
        write_limit: &producer.write_limit.0,
        gating_set: region.control().gating_set(),
        consumers: region.side(Role::Consumer),
        slots,
        lagged: &seat.page().counters.lagged,
        writable: region.writable,
        notifier: seat.notifier(),
    }
}

/// Returns the words that hold a consumer's place.
fn place(seat: &Seat, write_limit: &'static AtomicU64) -> proto::Seat<'static> {
    proto::Seat {
        position: &seat.page().position,
        write_limit,
        gating_set: seat.region.control().gating_set(),
        bit: seat.bit(),
        capacity: seat.region.geometry().capacity,
    }
}

/// Returns the consumer's initial knowledge of the producer.
///
/// A consumer that begins behind everything sent so far already knows all ends before the last one.
/// The last end must be news to it; otherwise it would wait for a message of a producer that has
/// left. The previous holder's knowledge of this seat does not count.
fn peer(seat: &Seat, seek: Seek) -> Result<Peer<'static>, SetupError> {
    let life = seat.peer_line().life()?;
    let known = match seek {
        Seek::Newest => life.generation.saturating_sub(1),
        Seek::Oldest | Seek::To(_) => 0,
    };
    // Relaxed: for tools, and for the handle itself.
    seat.line().acknowledged.store(known, Ordering::Relaxed);
    seat.peer()
}

impl<T: Payload, M: Mode> Consumer<T, M> {
    /// Makes every `of`th message this consumer's from now on: those whose number leaves `index`
    /// when divided by `of`.
    ///
    /// In this way `of` consumers share the messages without sharing any word. The consumer does
    /// not wait for other messages, and neither `len` nor `Lagged` counts them. It may step over
    /// the end of a producer that has a successor, and does not report that end then.
    ///
    /// Returns `Stride` unless `index` is below `of`, and `of` is at most 2^32.
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::broadcast::Builder::<u64>::new(8).channel_pair()?;
    /// rx.stride(1, 3)?;
    /// (0..6).try_for_each(|number| tx.push(number))?;
    /// assert_eq!((rx.pop()?, rx.pop()?), (1, 4));
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn stride(&mut self, index: u64, of: u64) -> Result<(), Error> {
        self.end.core.stride(index, of)
    }

    /// Continues at the oldest message, the newest, or a message by its number. Returns the number
    /// of this consumer's first message from there on.
    ///
    /// If that message is gone, a consumer of a channel that waits continues at the oldest safe
    /// message. In a channel that overwrites, the next call returns `Lagged`. Returns `Ahead` if
    /// the message does not exist yet.
    ///
    /// ```
    /// use slipring::broadcast::{self, Seek};
    ///
    /// let (mut tx, mut rx) = broadcast::Builder::<u64>::new(8).channel_pair()?;
    /// (0..6).try_for_each(|number| tx.push(number))?;
    /// assert_eq!((rx.seek(Seek::To(4))?, rx.pop()?), (4, 4));
    /// assert_eq!((rx.seek(Seek::Newest)?, rx.len()?), (6, 0));
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        self.end.core.seek(to)
    }
}

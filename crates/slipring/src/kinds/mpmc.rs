//! A work queue: many producers, many consumers, and any one consumer takes each message; fixed-size payloads. When the
//! queue is full, producers wait.
//!
//! Up to 63 producers and 63 consumers, in threads or processes, come and go as they like. Each message is taken by one
//! consumer. First deliveries come in the order in which the producers reserved.
//!
//! An end that is killed at any instruction, or stopped, delays no other end except by what it had in its hands. What a
//! dead producer had reserved is skipped. What a dead consumer had taken is delivered again, and
//! [`deliveries`](Consumer::deliveries) tells how often it was before: *at least once*. A consumer that asks for
//! [`at_most_once`](Builder::at_most_once) has it dropped instead.
//!
//! Slots that were reserved and then given up hold no message, and are free again once the queue has gone round to them. Until then
//! the queue may be [`Full`](crate::Error::Full) with fewer messages than its capacity. So reserve what you will commit.
//!
//! The protocol, and why it is right: [`slipring_core::proto::mpmc`].
//!
//! ```
//! use slipring::{Error, SetupError, mpmc};
//!
//! let (mut tx, mut rx) = mpmc::channel::<u64>(64)?;
//! let (mut tx2, mut rx2) = (tx.another()?, rx.another()?);
//! tx.push(1)?;
//! tx2.push(2)?;
//! assert_eq!((rx.pop()?, rx2.pop()?), (1, 2));
//!
//! let job = {
//!     tx.push(3)?;
//!     let job = rx.read()?;                              // in place; dropping releases
//!     let value = *job;
//!     job.keep();                                        // gives it back: another consumer may take it
//!     value
//! };
//! assert_eq!((rx2.pop()?, rx2.deliveries()), (job, 1));
//! drop((tx, tx2));                                       // the end of the stream, once both have left
//! assert!(matches!(rx.pop(), Err(Error::Disconnected(_))));
//! # Ok::<(), SetupError>(())
//! ```
//!
//! Processes may come in any order:
//!
//! ```no_run
//! # use slipring::mpmc;
//! let jobs = mpmc::Builder::<u64>::new(1 << 12);
//! let mut tx = jobs.producer("render/jobs")?;                             // in one, or in several
//! let mut rx = jobs.consumer("render/jobs")?;                             // in each of the workers
//! # Ok::<(), slipring::SetupError>(())
//! ```

mod owned;
pub mod records;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use slipring_core::layout::{self, Geometry, MOST_SEATS};
use slipring_core::mem::Cells;
use slipring_core::proto::mpmc::{self as proto, Queue};
use slipring_core::{FormatError, Schema};

pub use owned::{OwnedMessage, OwnedReservation};
pub use slipring_core::proto::mpmc::{DeadLetters, Delivery};

use crate::builder;
use crate::error::Error;
use crate::kind::{CrowdKind, InPlaceKind, Kind, QueueKind, SeatToken, SlotKind, sealed::Sealed};
use crate::payload::Payload;
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::{consumer, producer};

/// The kind: many producers, many consumers, any one of them takes a message, fixed-size payloads.
pub struct Mpmc<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Mpmc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mpmc")
    }
}

/// Makes or opens an `mpmc` channel of `T`.
pub type Builder<T> = builder::Builder<Mpmc<T>>;

/// The memory of an `mpmc` channel of `T`, from which roles can be taken.
pub type Channel<T> = crate::channel::Channel<Mpmc<T>>;

/// A writing end of an `mpmc` channel of `T`.
pub type Producer<T> = producer::Producer<Mpmc<T>>;

/// A reading end of an `mpmc` channel of `T`.
pub type Consumer<T> = consumer::Consumer<Mpmc<T>>;

/// Slots of an `mpmc` channel that a producer has reserved.
pub type Reservation<'p, T> = producer::Reservation<'p, Mpmc<T>>;

/// Messages of an `mpmc` channel that a consumer reads in place.
pub type Messages<'c, T> = consumer::Messages<'c, Mpmc<T>>;

/// One message of an `mpmc` channel that a consumer reads in place.
pub type Message<'c, T> = consumer::Message<'c, Mpmc<T>>;

/// Makes a channel of `capacity` slots between threads of this process, with its first two ends.
///
/// `capacity` is a power of two, from 1; anything else is [`SetupError::Capacity`].
pub fn channel<T: Payload>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), SetupError> {
    Builder::new(capacity).channel_pair()
}

/// Returns the shape of a queue of `capacity` slots of that size and alignment.
fn geometry(capacity: usize, slot_size: u64, slot_align: u64) -> Geometry {
    Geometry {
        kind: layout::Kind::Mpmc,
        when_full: layout::WhenFull::Wait,
        capacity: capacity as u64,
        slot_size,
        slot_align,
        producers: ENDS,
        consumers: ENDS,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    }
}

/// The default number of seats of each side.
const ENDS: u64 = 16;

impl<T: Payload> Builder<T> {
    /// Describes a channel of `capacity` slots: a power of two, from 1. Checked when the channel is made. By default it
    /// has seats for 16 producers and 16 consumers.
    pub fn new(capacity: usize) -> Builder<T> {
        const {
            assert!(
                align_of::<T>() <= layout::PAGE,
                "a payload's alignment is at most 4096 bytes"
            );
        }
        let (size, align) = (size_of::<T>() as u64, align_of::<T>() as u64);
        builder::Builder::with(geometry(capacity, size, align))
    }
}

/// The terms of a work queue: see [`QueueKind`].
impl<K: QueueKind> builder::Builder<K> {
    /// Lets the consumers that this builder makes drop, when they die, what they had taken and not released. By default
    /// another consumer gets it.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.handling.delivery = Delivery::AtMostOnce;
        self
    }

    /// Lets the consumers that this builder makes put aside what has been delivered `after` times, to consumers that gave
    /// it back or died with it: from 1. So a message that kills whoever takes it does not kill them all.
    ///
    /// A consumer may also put aside what it has read, by `put_aside` of the guard; then `keep` holds as well.
    ///
    /// A message that is put aside is a *dead letter*. It stays in its slot, and `slipring stat` counts it, until somebody reads it
    /// by [`try_dead_letter`](Consumer::try_dead_letter). At most `keep` letters stay, and no more than half as many
    /// as the queue has slots. When one more comes, the oldest is dropped.
    ///
    /// ```
    /// use slipring::mpmc::Builder;
    ///
    /// let (mut tx, mut rx) = Builder::<u64>::new(8).dead_letters(2, 4).channel_pair()?;
    /// tx.push(7)?;
    /// rx.read()?.keep(); // twice delivered, twice given back
    /// rx.read()?.keep();
    /// assert!(rx.try_pop().is_err());
    /// assert_eq!(*rx.try_dead_letter()?, 7);
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[must_use]
    pub fn dead_letters(mut self, after: u32, keep: usize) -> Self {
        let (after, keep) = (after.max(1), keep as u64);
        self.handling.dead_letters = Some(DeadLetters { after, keep });
        self
    }
}

const _: () = assert!(ENDS <= MOST_SEATS as u64);

impl<T: Payload> Sealed for Mpmc<T> {}

impl<T: Payload> SlotKind for Mpmc<T> {
    type Value = T;
}

impl<T: Payload> InPlaceKind for Mpmc<T> {}

impl<T: Payload> Kind for Mpmc<T> {
    type Producer = proto::Producer<'static, Cells<'static, T>>;
    type Consumer = proto::Consumer<'static, Cells<'static, T>>;

    fn schema() -> Option<Schema> {
        Some(T::SCHEMA)
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        let ring = ring(token.seat, cells(token.seat))?;
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { token.seat.cached_limit() };
        // SAFETY: the seat makes us its only producer, and whoever took the seat gave back what the last holder had
        // claimed. `T: Payload` accepts any bits. The cached limit and the ring are used only while the seat lives
        // beside them.
        Ok(unsafe { proto::Producer::new(ring, cached_limit) })
    }

    fn consumer(token: &SeatToken<'_>) -> Result<Self::Consumer, SetupError> {
        let ring = ring(token.seat, cells(token.seat))?;
        note_handling(token);
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { token.seat.cached_limit() };
        // SAFETY: as in `producer`, for the consumer in this seat.
        let mut consumer = unsafe { proto::Consumer::new(ring, cached_limit) };
        consumer.set_dead_letters(token.handling.dead_letters);
        Ok(consumer)
    }
}

/// Returns the slots of a validated region for values of `T`.
fn cells<T: Payload>(seat: &Seat) -> Cells<'static, T> {
    let (region, geometry) = (&seat.region, seat.region.geometry());
    // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is mapped for that many
    // slots of `T`, page-aligned or checked. The kind and the schema were compared.
    unsafe { Cells::new(region.data().cast::<T>(), geometry.slots()) }
}

/// Returns the ring of a validated region, as the end in this seat uses it.
fn ring<C>(seat: &Seat, cells: C) -> Result<proto::Ring<'static, C>, SetupError> {
    let (region, geometry) = (&seat.region, seat.region.geometry());
    let claims = region.control().claims(geometry);
    let queue = claims.and_then(|claims| Queue::new(geometry, claims));
    // Never fails: the geometry was checked for this kind.
    let queue = queue.ok_or(FormatError::Truncated {
        part: "control",
        found: 0,
        expected: geometry.control_len() as u64,
    })?;
    Ok(proto::Ring {
        queue,
        cells,
        seat: (seat.number - geometry.seats_of(seat.role).start) as u64,
        position: &seat.page().position,
        handed_out: &seat.page().counters.handed_out,
        peers: seat.crowd()?,
        notifier: seat.notifier(),
        fellows: seat.fellow_notifier(),
    })
}

/// Records how a consumer handles messages, for whoever recovers its seat.
fn note_handling(token: &SeatToken<'_>) {
    let counters = &token.seat.page().counters;
    let delivery = u64::from(token.handling.delivery == Delivery::AtMostOnce);
    // Relaxed: read under the seat's locks, once we are dead.
    counters.at_most_once.store(delivery, Ordering::Relaxed);
}

impl<T: Payload> CrowdKind for Mpmc<T> {}

impl<T: Payload> QueueKind for Mpmc<T> {
    fn deliveries(consumer: &Self::Consumer) -> u32 {
        consumer.deliveries()
    }

    fn dead_letters(consumer: &Self::Consumer) -> u64 {
        consumer.dead_letters()
    }
}

/// Verbs of work queues: see [`QueueKind`].
impl<K: QueueKind> consumer::Consumer<K> {
    /// Returns the number of times that the message that this consumer took last had been delivered before: to consumers
    /// that gave it back, or died with it.
    pub fn deliveries(&self) -> u32 {
        K::deliveries(&self.end.core)
    }

    /// Returns the number of dead letters in the queue: see [`Builder::dead_letters`](crate::Builder::dead_letters).
    /// Other ends may change it at any time.
    pub fn dead_letters(&self) -> usize {
        K::dead_letters(&self.end.core) as usize
    }
}

impl<T: Payload> Consumer<T> {
    /// Reads a dead letter in place, or returns [`Empty`](Error::Empty): see [`Builder::dead_letters`].
    ///
    /// Dropping the letter releases it. [`keep`](Message::keep) gives it back: it is delivered again, as if for the first
    /// time. `put_aside` leaves it a dead letter, and the next call goes on behind it.
    pub fn try_dead_letter(&mut self) -> Result<Message<'_, T>, Error> {
        self.end.core.try_read_letter()
    }
}

//! One producer, one consumer, fixed-size payloads; when the ring is full, the producer waits.
//!
//! The consumer reads every committed message once, whole, and in order. Both ends can copy by
//! `push` and `pop`, work in place by `reserve` and `read`, and batch. A producer that is killed at
//! any instruction leaves exactly what it committed. The successor of a killed consumer gets again
//! at most the message or guard that was in use.
//!
//! The protocol, and why it is right: [`slipring_core::proto::spsc`] (a Lamport ring with private
//! copies).
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
//! let seen: Vec<u64> = rx.read_batch(256)?.iter().map(|tick| tick.seq).collect();
//! assert_eq!(seen, [1, 2]);                           // in place; dropping released
//! # Ok::<(), slipring::SetupError>(())
//! ```
//!
//! Each verb that waits is also a future for any runtime (`push_async`, `pop_async`, ..). With the
//! feature `stream` a consumer is a stream. With `tokio`, tokio's event loop wakes both.
//!
//! Either process may come first:
//!
//! ```no_run
//! # use slipring::spsc;
//! let mut tx = spsc::Builder::<u64>::new(1024).producer("market/ticks")?;   // in one
//! let mut rx = spsc::Builder::<u64>::new(1024).consumer("market/ticks")?;   // in another
//! # Ok::<(), slipring::SetupError>(())
//! ```

use std::fmt;
use std::marker::PhantomData;

use slipring_core::Schema;
use slipring_core::layout::{self, Geometry, RolePage};
use slipring_core::mem::Slots;
use slipring_core::proto::spsc as proto;
use slipring_core::rings::Resize;

use crate::builder;
use crate::kind::{GrowKind, InPlaceKind, Kind, PeekKind, SeatToken, SlotKind, sealed::Sealed};
use crate::payload::Payload;
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::{consumer, producer};

/// The kind: one producer, one consumer, fixed-size payloads.
pub struct Spsc<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Spsc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spsc")
    }
}

/// Makes or opens an `spsc` channel of `T`.
pub type Builder<T> = builder::Builder<Spsc<T>>;

/// The memory of an `spsc` channel of `T`, from which the two roles can be taken.
pub type Channel<T> = crate::channel::Channel<Spsc<T>>;

/// The writing end of an `spsc` channel of `T`.
pub type Producer<T> = producer::Producer<Spsc<T>>;

/// The reading end of an `spsc` channel of `T`.
pub type Consumer<T> = consumer::Consumer<Spsc<T>>;

/// Slots of an `spsc` channel that a producer has reserved.
pub type Reservation<'p, T> = producer::Reservation<'p, Spsc<T>>;

/// Messages of an `spsc` channel that a consumer reads in place.
pub type Messages<'c, T> = consumer::Messages<'c, Spsc<T>>;

/// One message of an `spsc` channel that a consumer reads in place.
pub type Message<'c, T> = consumer::Message<'c, Spsc<T>>;

/// Makes a channel of `capacity` slots between threads of this process.
///
/// `capacity` is a power of two, from 1; anything else is [`SetupError::Capacity`].
pub fn channel<T: Payload>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), SetupError> {
    Builder::new(capacity).channel_pair()
}

impl<T: Payload> Builder<T> {
    /// Describes a channel of `capacity` slots: a power of two, from 1. Checked when the channel is
    /// made.
    pub fn new(capacity: usize) -> Builder<T> {
        const {
            assert!(
                align_of::<T>() <= layout::PAGE,
                "a payload's alignment is at most 4096 bytes"
            );
        }
        builder::Builder::with(Geometry {
            kind: layout::Kind::Spsc,
            capacity: capacity as u64,
            slot_size: size_of::<T>() as u64,
            slot_align: align_of::<T>() as u64,
            producers: 1,
            consumers: 1,
            when_full: layout::WhenFull::Wait,
            skew: 0,
            pins: 0,
            pool: 0,
            growth: None,
        })
    }
}

impl<T: Payload> Sealed for Spsc<T> {}

impl<T: Payload> SlotKind for Spsc<T> {
    type Value = T;
}

impl<T: Payload> InPlaceKind for Spsc<T> {}

impl<T: Payload> PeekKind for Spsc<T> {}

impl<T: Payload> GrowKind for Spsc<T> {}

impl<T: Payload> Kind for Spsc<T> {
    type Producer = proto::Producer<'static, T>;
    type Consumer = proto::Consumer<'static, T>;

    fn schema() -> Option<Schema> {
        Some(T::SCHEMA)
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        let seat = token.seat;
        let ring = ring(seat, seat.page(), seat.peer_page());
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { seat.cached_limit() };
        // SAFETY: the seat makes us the only producer, and `T: Payload` accepts any bits. The
        // cached limit is taken once. The cached limit and the ring are used only while the seat
        // lives beside them.
        let mut producer = unsafe { proto::Producer::new(ring, seat.peer()?, cached_limit) }?;
        producer.set_sizing(token.sizing);
        Ok(producer)
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
fn ring<T: Payload>(
    seat: &Seat,
    producer: &'static RolePage,
    consumer: &'static RolePage,
) -> proto::Ring<'static, T> {
    let capacity = seat.region.geometry().capacity;
    // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is
    // mapped for `capacity` slots of `T`, page-aligned or checked. The kind and the schema were
    // compared.
    let slots = unsafe { Slots::new(seat.region.data().cast::<T>(), capacity) };
    proto::Ring {
        tail: &producer.position,
        head: &consumer.position,
        slots,
        writable: seat.region.writable,
        notifier: seat.notifier(),
        rings: seat.rings(),
    }
}

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

use slipring_core::Schema;
use slipring_core::layout::{self, RolePage};
use slipring_core::proto::bytes as proto;
use slipring_core::rings::Resize;

pub use slipring_core::proto::bytes::{PREFIX, record_size};

use crate::builder;
use crate::kind::{
    BatchKind, GrowKind, Kind, OfRecords, PackedKind, RecordKind, SeatToken, sealed::Sealed,
};
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::{consumer, producer, records};

use super::packed;

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
pub type Records<'c> = crate::records::Records<'c, Bytes>;

/// Writes bytes into a channel as records: see [`Producer::writer`](Producer::writer).
pub type Writer<'p> = packed::RecordWriter<'p, OneToOne>;

/// Reads bytes out of a channel, regardless of record boundaries: see
/// [`Consumer::reader`](Consumer::reader).
pub type Reader<'c> = packed::RecordReader<'c, OneToOne>;

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
        builder::Builder::with(packed::geometry(layout::Kind::Bytes, ring, 1))
    }
}

impl Sealed for Bytes {}

impl RecordKind for Bytes {}

impl BatchKind for Bytes {}

impl PackedKind for Bytes {
    type Room = proto::Room<'static>;
    type Place = ();
}

impl GrowKind for Bytes {}

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
fn ring(
    seat: &Seat,
    producer: &'static RolePage,
    consumer: &'static RolePage,
) -> proto::Ring<'static> {
    let messages = &seat.page().counters.messages;
    proto::Ring {
        tail: &producer.position,
        head: &consumer.position,
        records: packed::ring(seat),
        messages,
        writable: seat.region.writable,
        notifier: seat.notifier(),
        rings: seat.rings(),
    }
}

impl Producer {
    /// Returns `true` if an earlier producer finished and no consumer has acknowledged that end
    /// yet. Records that this producer pushes before then follow the earlier stream without a seam.
    pub fn follows_unread_end(&self) -> bool {
        let seat = &self.end.seat;
        seat.line().unread_end(seat.peer_line())
    }
}

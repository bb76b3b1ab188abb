//! One producer, and every consumer sees all records, each of a length of its own. When the ring is
//! full, the producer waits for the slowest consumer. For logs, frames and encoded messages of which
//! several readers may lose none.
//!
//! A record is one contiguous run of bytes, written and read in place, as in [`bytes`](crate::bytes).
//! The promises are those of [`broadcast`](crate::broadcast) that waits. Positions count bytes: a
//! record takes its length, rounded up to 8, and 8 bytes more.
//!
//! The protocol, and why it is right: [`slipring_core::proto::broadcast_records`].
//!
//! ```
//! use slipring::broadcast::records;
//!
//! let channel = records::Builder::new(64 * 1024).consumers(2).heap()?;
//! let mut tx = channel.producer()?;
//! let (mut one, mut other) = (channel.consumer()?, channel.consumer()?);
//! tx.push(b"hello")?;
//!
//! let mut record = tx.reserve(1500)?;          // in place; dropping discards
//! record[..5].copy_from_slice(b"world");
//! record.commit(5);                            // five bytes of it, visible at once
//!
//! for rx in [&mut one, &mut other] {
//!     assert_eq!(&rx.read()?[..], b"hello");   // in place; dropping released it
//!     assert_eq!(&rx.read()?[..], b"world");
//! }
//! # Ok::<(), slipring::SetupError>(())
//! ```
//!
//! A consumer that comes late begins behind the *newest* record. With `.join(Seek::Oldest)` it begins
//! at the oldest that is kept: what the slowest consumer has not read, and some before that. While no
//! consumer is there, the last seven eighths of a ring are kept, less a record.
//!
//! ```no_run
//! # use slipring::broadcast::records;
//! let log = records::Builder::new(1 << 20).consumers(16);
//! let mut tx = log.producer("app/log")?;                                  // in one
//! let mut rx = log.consumer("app/log")?;                                  // in each of the others
//! # Ok::<(), slipring::SetupError>(())
//! ```

use slipring_core::Schema;
use slipring_core::layout::{self, Role};
use slipring_core::proto::broadcast_records as proto;

pub use slipring_core::proto::broadcast_records::Seek;

use super::{CONSUMERS, peer, place};
use crate::builder;
use crate::error::Error;
use crate::kind::{BatchKind, Kind, OfRecords, PackedKind, RecordKind, SeatToken, sealed::Sealed};
use crate::kinds::packed;
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::{consumer, producer};

/// The kind: one producer, each consumer sees all records.
pub type Records = OfRecords<OneToAll>;

/// Tells [`Records`] from other kinds of records: one producer, and each consumer sees all.
#[derive(Debug)]
pub struct OneToAll(());

/// Makes or opens a `broadcast` channel of records.
pub type Builder = builder::Builder<Records>;

/// The memory of a `broadcast` channel of records, from which the roles can be taken.
pub type Channel = crate::channel::Channel<Records>;

/// The writing end of a `broadcast` channel of records.
pub type Producer = producer::Producer<Records>;

/// A reading end of a `broadcast` channel of records.
pub type Consumer = consumer::Consumer<Records>;

/// A record that a producer has reserved. It dereferences to its bytes.
pub type Reservation<'p> = producer::Reservation<'p, Records>;

/// A record that a consumer reads in place.
pub type Record<'c> = crate::records::Record<'c, Records>;

/// A run of records that a consumer reads in place, one after another: see
/// [`bytes::Records`](crate::bytes::Records).
pub type Run<'c> = crate::records::Records<'c, Records>;

/// Writes bytes into a channel as records: see [`Producer::writer`](Producer::writer).
pub type Writer<'p> = packed::RecordWriter<'p, OneToAll>;

/// Reads bytes out of a channel, regardless of record boundaries: see
/// [`Consumer::reader`](Consumer::reader).
pub type Reader<'c> = packed::RecordReader<'c, OneToAll>;

/// Makes a channel of `ring` bytes between threads of this process, with its first two ends, for
/// records up to half of that, less 8 bytes. For more consumers, make a [`Channel`].
///
/// `ring` must be a power of two, from 64; any other value is [`SetupError::Capacity`].
pub fn channel(ring: usize) -> Result<(Producer, Consumer), SetupError> {
    Builder::new(ring).channel_pair()
}

impl Builder {
    /// Describes a channel of `ring` bytes: a power of two, from 64. Checked when the channel is
    /// made. By default it has seats for 16 consumers.
    ///
    /// The largest record is half the ring less 8, unless [`max_record`](Self::max_record) sets
    /// another.
    pub fn new(ring: usize) -> Builder {
        let kind = layout::Kind::BroadcastRecords;
        builder::Builder::with(packed::geometry(kind, ring, CONSUMERS))
    }

    /// Sets the number of consumer seats: from 1 to 63, 4 KiB each. Checked when the channel is
    /// made.
    #[must_use]
    pub fn consumers(mut self, consumers: usize) -> Self {
        self.geometry.consumers = consumers as u64;
        self
    }

    /// Sets where consumers begin. The default is behind the newest record. [`Seek::Oldest`] begins
    /// at the oldest record that is kept.
    ///
    /// [`Seek::To`] begins at a position, in bytes, as [`position`](Consumer::position) returns it:
    /// at the first record that begins there or behind it. It goes there from record to record, from
    /// the oldest on, which takes a few nanoseconds each. Taking the role returns
    /// [`Ahead`](Error::Ahead) if the position does not exist yet.
    #[must_use]
    pub fn join(mut self, seek: Seek) -> Self {
        self.seek = seek;
        self
    }
}

impl Sealed for Records {}

impl RecordKind for Records {}

impl BatchKind for Records {}

impl PackedKind for Records {
    type Room = proto::Shared<'static>;
    type Place = proto::Seat<'static>;
}

impl Kind for Records {
    type Producer = proto::Producer<'static>;
    type Consumer = proto::Consumer<'static>;

    fn schema() -> Option<Schema> {
        None
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        let seat = token.seat;
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { seat.cached_limit() };
        // SAFETY: the seat makes us the only producer. The cached limit is taken once. The cached
        // limit and the ring are used only while the seat lives beside them.
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
fn ring(seat: &Seat) -> proto::Ring<'static> {
    let (region, geometry) = (&seat.region, seat.region.geometry());
    let producer = region.control().role(geometry, 0);
    proto::Ring {
        tail: &producer.position,
        write_limit: &producer.write_limit.0,
        gating_set: region.control().gating_set(),
        consumers: region.side(Role::Consumer),
        records: packed::ring(seat),
        messages: &seat.page().counters.messages,
        writable: region.writable,
        notifier: seat.notifier(),
    }
}

impl Consumer {
    /// Continues at the oldest record, behind the newest, or at the first record that begins at a
    /// position or behind it: see [`join`](Builder::join). Returns the position of the next record.
    ///
    /// Returns [`Ahead`](Error::Ahead) if the position does not exist yet.
    ///
    /// ```
    /// use slipring::broadcast::records::{self, Seek};
    ///
    /// let (mut tx, mut rx) = records::channel(4096)?;
    /// tx.push(b"one")?;
    /// let second = tx.position();
    /// tx.push(b"two")?;
    /// assert_eq!(rx.seek(Seek::To(second))?, second);
    /// assert_eq!(&rx.read()?[..], b"two");
    /// rx.seek(Seek::Oldest)?;                              // nothing has been overwritten yet
    /// assert_eq!(&rx.read()?[..], b"one");
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        self.end.core.seek(to)
    }
}

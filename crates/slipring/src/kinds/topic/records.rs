//! A topic of byte strings: each message has a length of its own, up to a maximum. For camera frames, encoded messages, states
//! of any size.
//!
//! The promises are those of [`topic`](crate::topic).
//!
//! ```
//! use slipring::topic::records;
//!
//! let (mut tx, mut rx) = records::channel(4, 1 << 20)?;    // the last 4 stay readable, each of up to 1 MiB
//! tx.push(b"a small frame")?;
//!
//! let mut frame = tx.reserve(1 << 20)?;                     // in place; dropping discards
//! frame[..5].copy_from_slice(b"large");
//! frame.commit(5);
//!
//! assert_eq!(&rx.latest()?[..], b"large");
//! let first = rx.read_owned()?;                             // in place, to be let go at any time
//! assert_eq!((&rx.read()?[..], &first[..]), (&b"large"[..], &b"a small frame"[..]));
//! # Ok::<(), slipring::SetupError>(())
//! ```

use slipring_core::Schema;
use slipring_core::proto::topic as proto;

use super::{geometry, publisher, subscriber};
use crate::builder;
use crate::kind::{CrowdKind, Kind, OfRecords, RecordKind, SeatToken, TopicKind, sealed::Sealed};
use crate::records;
use crate::setup_error::SetupError;
use crate::{consumer, producer};

/// The kind: many producers, many consumers, each of them sees all records.
pub type Records = OfRecords<ManyToAll>;

/// Tells [`Records`] from other kinds of records: many producers, and each consumer sees all.
#[derive(Debug)]
pub struct ManyToAll(());

/// Makes or opens a topic of records.
pub type Builder = builder::Builder<Records>;

/// The memory of a topic of records, from which roles can be taken.
pub type Channel = crate::channel::Channel<Records>;

/// A writing end of a topic of records.
pub type Publisher = producer::Producer<Records>;

/// A reading end of a topic of records.
pub type Subscriber = consumer::Consumer<Records>;

/// A record that a publisher has reserved. It dereferences to its bytes.
pub type Reservation<'p> = producer::Reservation<'p, Records>;

/// A record that a subscriber reads in place, in order.
pub type Record<'c> = records::Record<'c, Records>;

/// Makes a topic between threads of this process, with its first two ends, whose last `capacity` records stay readable, each
/// of up to `largest` bytes.
///
/// Errors: as for [`Builder::new`].
pub fn channel(capacity: usize, largest: usize) -> Result<(Publisher, Subscriber), SetupError> {
    Builder::new(capacity, largest).channel_pair()
}

/// The alignment of a record, in bytes: that of a line.
const ALIGN: u64 = 64;

impl Builder {
    /// Describes a topic whose last `capacity` records stay readable: a power of two, from 1 to 16,384. A record has up to
    /// `largest` bytes, and begins at a multiple of 64. Checked when the topic is made ([`SetupError::Capacity`],
    /// [`SetupError::MaxRecord`]). By default it has seats for 16 publishers and 16 subscribers, and a subscriber may hold 4
    /// records besides the one that it reads.
    ///
    /// `largest` costs address space. Memory comes with the records, page by page.
    pub fn new(capacity: usize, largest: usize) -> Builder {
        // An overflow stays far too large, and is refused when the channel is made.
        let size = (largest as u64).checked_next_multiple_of(ALIGN);
        let size = size.unwrap_or(1 << 63);
        builder::Builder::with(geometry(capacity, size, ALIGN))
    }

    /// Also opens topics of values of any type. A subscriber then reads each value as its bytes; a publisher is refused
    /// ([`SetupError::Schema`]).
    ///
    /// ```
    /// use slipring::topic::{self, records};
    ///
    /// let name = format!("doc-any-type-{}", std::process::id());
    /// let mut tx = topic::Builder::<u32>::new(8).ephemeral().producer(&name)?;
    /// let mut rx = records::Builder::new(1, 1).any_type().consumer(&name)?;
    /// tx.push(7)?;
    /// assert_eq!(&rx.read()?[..], 7_u32.to_le_bytes());
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[must_use]
    pub fn any_type(mut self) -> Self {
        self.any_type = true;
        self
    }
}

impl Sealed for Records {}

impl RecordKind for Records {}

impl CrowdKind for Records {}

impl TopicKind for Records {
    type Content = [u8];
}

impl Kind for Records {
    type Producer = proto::Producer<'static, [u8]>;
    type Consumer = proto::Consumer<'static, [u8]>;

    fn schema() -> Option<Schema> {
        None
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        // It may be open for reading alone.
        builder::refuse_values(&token.seat.region.header)?;
        // SAFETY: a topic without a schema is of byte strings.
        unsafe { publisher(token) }
    }

    fn consumer(token: &SeatToken<'_>) -> Result<Self::Consumer, SetupError> {
        // SAFETY: a topic of byte strings, or of values: every value is as many bytes as its slot's header says.
        unsafe { subscriber(token) }
    }
}

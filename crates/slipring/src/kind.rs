//! The kinds as the handles see them: which ends of the core a kind has, and how they are made.

use std::fmt;
use std::marker::PhantomData;

use slipring_core::Schema;
use slipring_core::end::{Endpoint, Pop, Push, Seek};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::mem::Form;
use slipring_core::packed;
use slipring_core::proto::mpmc::Handling;
use slipring_core::proto::topic;
use slipring_core::record::{HoldRecord, HoldRecords, PushRecord, PushRecords};
use slipring_core::rings::{Resize, Sizing};

use crate::payload::Payload;
use crate::seat::Seat;
use crate::setup_error::SetupError;

/// A kind of channel: [`Spsc`](crate::spsc::Spsc), [`Bytes`](crate::bytes::Bytes),
/// [`Broadcast`](crate::broadcast::Broadcast), [`Mpmc`](crate::mpmc::Mpmc), [`Topic`](crate::topic::Topic). The trait is
/// sealed: only slipring defines kinds.
///
/// Every kind has `reserve`, `commit`, `len` and all that waits. A [`SlotKind`] also has `push` and
/// `pop`, and an [`InPlaceKind`] has `read`. A [`RecordKind`] has these three for byte strings.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of channel",
    note = "write `spsc::Producer<u64>`, or `Producer<spsc::Spsc<u64>>`"
)]
pub trait Kind: sealed::Sealed + Sized {
    /// The core's writing end.
    #[doc(hidden)]
    type Producer: Reserve + Send;
    /// The core's reading end.
    #[doc(hidden)]
    type Consumer: Endpoint + Send;

    /// Returns the payload's schema, for kinds that carry a type.
    #[doc(hidden)]
    fn schema() -> Option<Schema>;
    #[doc(hidden)]
    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError>;
    #[doc(hidden)]
    fn consumer(token: &SeatToken<'_>) -> Result<Self::Consumer, SetupError>;
}

/// A kind whose messages are values of one type, each in a slot.
///
/// ```
/// use slipring::{Consumer, Error, Producer, SlotKind};
///
/// fn echo<K: SlotKind>(
///     tx: &mut Producer<K>,
///     rx: &mut Consumer<K>,
///     value: K::Value,
/// ) -> Result<K::Value, Error> {
///     tx.push(value)?;
///     rx.pop()
/// }
///
/// let (mut tx, mut rx) = slipring::spsc::channel::<u64>(8)?;
/// assert_eq!(echo(&mut tx, &mut rx, 7), Ok(7));
/// # Ok::<(), slipring::SetupError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of channel with values in slots",
    note = "`spsc`, `broadcast`, `mpmc` and `topic` are; a `bytes` channel carries records: see `RecordKind`"
)]
pub trait SlotKind:
    Kind<
        Producer: Push<Value = <Self as SlotKind>::Value>,
        Consumer: Pop<Value = <Self as SlotKind>::Value>,
    >
{
    /// The payload.
    type Value: Payload;
}

/// A [`SlotKind`] whose consumers also read messages in place: [`Spsc`](crate::spsc::Spsc),
/// [`Mpmc`](crate::mpmc::Mpmc), [`Topic`](crate::topic::Topic), and [`Broadcast`](crate::broadcast::Broadcast) that waits.
///
/// A producer that overwrites may write a message while a consumer reads it. So consumers of such a
/// channel copy, by `pop` and `pop_slice`, and the compiler refuses the rest:
///
/// ```compile_fail,E0599
/// let (_tx, mut rx) = slipring::broadcast::Builder::<u64>::new(8).overwriting().channel_pair().unwrap();
/// let _ = rx.read(); // `Broadcast<u64, Overwriting>` does not read messages in place
/// ```
///
/// Without `overwriting()` it compiles:
///
/// ```no_run
/// let (_tx, mut rx) = slipring::broadcast::Builder::<u64>::new(8).channel_pair().unwrap();
/// let _ = rx.read();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not read messages in place",
    label = "its consumers copy messages: `pop`, `pop_slice`",
    note = "an overwriting `broadcast` producer may write a message while a consumer reads it",
    note = "`spsc`, `bytes`, `mpmc`, `topic`, and a `broadcast` channel that waits (without `overwriting()`) read in place"
)]
pub trait InPlaceKind: SlotKind<Consumer: Hold> {}

/// An [`InPlaceKind`] whose consumers can look at a message without taking it: [`Spsc`](crate::spsc::Spsc),
/// [`Topic`](crate::topic::Topic), and [`Broadcast`](crate::broadcast::Broadcast) that waits.
///
/// In an [`Mpmc`](crate::mpmc::Mpmc) channel another consumer may take the message meanwhile.
#[diagnostic::on_unimplemented(
    message = "a consumer of `{Self}` cannot look at a message without taking it",
    note = "another consumer may take the message meanwhile: take it by `read`, and give it back by `keep`"
)]
pub trait PeekKind: InPlaceKind {}

/// A kind whose messages are records: byte strings, each with a length of its own:
/// [`Bytes`](crate::bytes::Bytes), and the [`Records`](crate::mpmc::records::Records) of `mpmc`, those of
/// [`broadcast`](crate::broadcast::records::Records) and those of [`topic`](crate::topic::records::Records).
///
/// Every such kind is an [`OfRecords`], which a function over any of them names:
///
/// ```
/// use slipring::{Consumer, Error, OfRecords, Producer, RecordKind};
///
/// fn echo<R>(
///     tx: &mut Producer<OfRecords<R>>,
///     rx: &mut Consumer<OfRecords<R>>,
///     record: &[u8],
/// ) -> Result<Vec<u8>, Error>
/// where
///     OfRecords<R>: RecordKind,
/// {
///     tx.push(record)?;
///     Ok(rx.read()?.to_vec())
/// }
///
/// let (mut tx, mut rx) = slipring::bytes::channel(64)?;
/// assert_eq!(echo(&mut tx, &mut rx, b"seven"), Ok(b"seven".to_vec()));
/// # Ok::<(), slipring::SetupError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of channel with records",
    note = "`bytes`, `broadcast::records`, `mpmc::records` and `topic::records` are; the messages of other kinds are values in slots"
)]
pub trait RecordKind: Kind<Producer: PushRecord, Consumer: HoldRecord> {}

/// A [`RecordKind`] whose records can be appended, and read in place, several at once: [`Bytes`](crate::bytes::Bytes), the
/// [`Records`](crate::broadcast::records::Records) of `broadcast` and those of [`mpmc`](crate::mpmc::records::Records).
#[diagnostic::on_unimplemented(
    message = "the records of `{Self}` are published, and read, one at a time",
    note = "those of `bytes`, `broadcast::records` and `mpmc::records` can be several at once"
)]
pub trait BatchKind: RecordKind<Producer: PushRecords, Consumer: HoldRecords> {}

/// A [`BatchKind`] whose records lie one behind another in a ring of bytes: [`Bytes`](crate::bytes::Bytes), and the
/// [`Records`](crate::broadcast::records::Records) of `broadcast`.
///
/// Their lengths are as they come, so a ring holds as many as fit.
#[diagnostic::on_unimplemented(
    message = "the records of `{Self}` have a slot each",
    note = "those of `bytes` and `broadcast::records` lie one behind another"
)]
pub trait PackedKind:
    BatchKind<
        Producer = packed::Producer<'static, <Self as PackedKind>::Room>,
        Consumer = packed::Consumer<'static, <Self as PackedKind>::Place>,
    >
{
    #[doc(hidden)]
    type Room: packed::Room<'static> + Send;
    #[doc(hidden)]
    type Place: Send;
}

/// A kind whose channels can grow and shrink while both ends are at work: [`Spsc`](crate::spsc::Spsc) and
/// [`Bytes`](crate::bytes::Bytes). See [`max_capacity`](crate::Builder::max_capacity).
#[diagnostic::on_unimplemented(
    message = "the capacity of `{Self}` is fixed",
    note = "`spsc` and `bytes` channels can grow"
)]
pub trait GrowKind: Kind<Producer: Resize> {}

/// A kind with several producers and several consumers, who come and go: [`Mpmc`](crate::mpmc::Mpmc),
/// [`Topic`](crate::topic::Topic), and the records of both.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has one producer",
    note = "`mpmc` and `topic` have several, for values and for records"
)]
pub trait CrowdKind: Kind {}

/// A kind whose messages any one consumer takes: [`Mpmc`](crate::mpmc::Mpmc) and
/// [`Records`](crate::mpmc::records::Records).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a work queue",
    note = "`mpmc` is, for values and for records"
)]
pub trait QueueKind: CrowdKind {
    #[doc(hidden)]
    fn deliveries(consumer: &Self::Consumer) -> u32;

    #[doc(hidden)]
    fn dead_letters(consumer: &Self::Consumer) -> u64;
}

/// A kind whose last messages stay readable for all: [`Topic`](crate::topic::Topic) and
/// [`Records`](crate::topic::records::Records).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a topic",
    note = "`topic` is, for values and for records"
)]
pub trait TopicKind:
    CrowdKind<
        Producer = topic::Producer<'static, <Self as TopicKind>::Content>,
        Consumer = topic::Consumer<'static, <Self as TopicKind>::Content>,
    >
{
    /// The type of a message: a payload, or a byte string.
    type Content: Form + ?Sized + 'static;
}

/// A kind of records: `R` says which. [`Bytes`](crate::bytes::Bytes) is
/// `OfRecords<bytes::OneToOne>`.
// Why not `impl<K: RecordKind> Producer<K>`, as for slots: both have a `push`, and the compiler
// cannot know that no kind is of both. It does see that no `OfRecords` is a `SlotKind`.
pub struct OfRecords<R>(PhantomData<fn() -> R>);

impl<R> fmt::Debug for OfRecords<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfRecords")
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// A seat, for a trait whose methods outside code can see but not call.
pub struct SeatToken<'s> {
    pub(crate) seat: &'s Seat,
    /// The message at which a consumer that sees all messages begins.
    pub(crate) seek: Seek,
    /// The fate of what an `mpmc` consumer has in its hands when it dies.
    pub(crate) handling: Handling,
    /// `true` if a topic's producer notes the time of each commit.
    pub(crate) stamps: bool,
    /// When a producer resizes the channel by itself.
    pub(crate) sizing: Sizing,
}

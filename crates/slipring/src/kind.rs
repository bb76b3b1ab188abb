//! The kinds as the handles see them: which ends of the core a kind has, and how they are made.

use slipring_core::Schema;
use slipring_core::end::{Endpoint, Push};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::proto::broadcast::Seek;

use crate::payload::Payload;
use crate::seat::Seat;
use crate::setup_error::SetupError;

/// A kind of channel: [`Spsc`](crate::spsc::Spsc), [`Bytes`](crate::bytes::Bytes),
/// [`Broadcast`](crate::broadcast::Broadcast). The trait is sealed: only slipring defines kinds.
///
/// Every kind has `reserve`, `commit`, `len` and all that waits. A [`SlotKind`] also has `push`, `pop` and `read`.
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
    note = "`spsc` and `broadcast` are; a `bytes` channel has verbs of its own"
)]
pub trait SlotKind:
    Kind<
        Producer: Push<Value = <Self as SlotKind>::Value>,
        Consumer: Hold<Value = <Self as SlotKind>::Value>,
    >
{
    /// The payload.
    type Value: Payload;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// A seat, for a trait whose methods outside code can see but not call.
pub struct SeatToken<'s> {
    pub(crate) seat: &'s Seat,
    /// The message at which a `broadcast` consumer begins.
    pub(crate) seek: Seek,
}

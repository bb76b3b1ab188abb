//! Messages that have left their subscriber's hands: several at once, let go in any order, on any thread.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use slipring_core::proto::topic as proto;

use super::Origin;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::kind::TopicKind;
use crate::seat::Seat;

/// A message of a topic, out of its subscriber's hands. It stays as it is until this is dropped.
///
/// A subscriber may have handed out several: see [`held`](crate::Builder::held). Each may go to another thread or task.
/// The subscriber's seat stays held until the subscriber and all of its messages are dropped.
///
/// ```
/// let (mut tx, mut rx) = slipring::topic::channel::<u64>(2)?;
/// tx.push(1)?;
/// let first = rx.read_owned()?;
/// (2..100).try_for_each(|number| tx.push(number))?; // never full
/// let newest = rx.latest_owned()?;
/// assert_eq!((*first, *newest), (1, 99));
/// # Ok::<(), slipring::SetupError>(())
/// ```
pub struct OwnedSample<K: TopicKind> {
    // Dropped in this order: the core's guard points into memory that the seat keeps alive.
    core: proto::OwnedSample<'static, K::Content>,
    _seat: Arc<Seat>,
}

impl<K: TopicKind> OwnedSample<K> {
    /// Returns the message's number and origin.
    pub fn origin(&self) -> Origin {
        self.core.origin()
    }
}

impl<K: TopicKind> fmt::Debug for OwnedSample<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl<K: TopicKind> Deref for OwnedSample<K> {
    type Target = K::Content;

    fn deref(&self) -> &K::Content {
        &self.core
    }
}

/// Takes the message in a subscriber's hands out of them.
pub(super) fn hand_out<K: TopicKind>(consumer: &mut Consumer<K>) -> Result<OwnedSample<K>, Error> {
    Ok(OwnedSample {
        // SAFETY: the share of the seat is dropped after the guard, and keeps the memory.
        core: unsafe { consumer.end.core.detach() }?,
        _seat: consumer.end.seat.share(),
    })
}

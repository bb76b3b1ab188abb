//! The events that a set reports.

use slipring_core::End;

/// Identifies a channel in a set. No two entries of one process have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(super) u64);

/// An event that a wait found at one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The key that `watch` returned.
    pub key: Key,
    /// `true` if the handle's next call returns a message, an end or an error, or finds the room
    /// that was asked for. Or it is a consumer whose channel was resized, and has memory to give back: then the next `try_`
    /// verb may return `Empty`, and [`settle`](crate::Consumer::settle) gives it back at once.
    pub ready: bool,
    /// The way in which the other end's holder ended, if this set has not reported it yet. The end
    /// itself stands: see [the module](crate::set#ends).
    pub ended: Option<End>,
    /// `true` if the entry's deadline passed.
    pub overdue: bool,
    /// `true` if the channel's name was found to lead elsewhere, for which a waiting call returns
    /// [`Removed`](crate::Error::Removed) or [`Replaced`](crate::Error::Replaced). Reported once; the handle's
    /// `check_name` tells which it is.
    pub renamed: bool,
}

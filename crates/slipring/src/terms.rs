//! The builder's settings for the handles that it makes.

use std::time::Duration;

use slipring_core::end::Seek;
use slipring_core::layout::Geometry;
use slipring_core::proto::mpmc::Handling;
use slipring_core::rings::Sizing;

use crate::wait::Waiting;

/// The settings of a channel's builder for its handles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The requested geometry.
    pub(crate) asked: Geometry,
    pub(crate) ephemeral: bool,
    pub(crate) patience: Duration,
    pub(crate) waiting: Waiting,
    /// The message at which a consumer that sees all messages begins.
    pub(crate) seek: Seek,
    /// The fate of what an `mpmc` consumer has in its hands when it dies.
    pub(crate) handling: Handling,
    /// `true` if a topic's producer notes the time of each commit.
    pub(crate) stamps: bool,
    /// When a producer resizes the channel by itself.
    pub(crate) sizing: Sizing,
}

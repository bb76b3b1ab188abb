//! The builder's settings for the handles that it makes.

use std::time::Duration;

use slipring_core::layout::Geometry;
use slipring_core::proto::broadcast::Seek;
use slipring_core::proto::mpmc::Handling;

use crate::wait::Waiting;

/// The settings of a channel's builder for its handles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The requested geometry.
    pub(crate) asked: Geometry,
    pub(crate) ephemeral: bool,
    pub(crate) patience: Duration,
    pub(crate) waiting: Waiting,
    /// The message at which a `broadcast` consumer begins.
    pub(crate) seek: Seek,
    /// The fate of what an `mpmc` consumer has in its hands when it dies.
    pub(crate) handling: Handling,
}

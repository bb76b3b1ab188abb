//! Terms of channels that grow and shrink.

use super::Builder;
use crate::growth::{Grow, Shrink};
use crate::kind::GrowKind;

/// Terms of channels whose capacity can change: see [`GrowKind`].
impl<K: GrowKind> Builder<K> {
    /// Lets the capacity change while the channel is in use, between the one that this builder was made with and `capacity`: a power
    /// of two, in the same unit. Checked when the channel is made ([`Setting`](crate::SetupError::Setting)).
    ///
    /// Only the ring in use has memory, so a large value costs address space alone: about twice the largest ring. The
    /// largest record of a `bytes` channel still has to fit its first ring. Needs Linux 5.14, which can say whether there is
    /// memory for a ring.
    ///
    /// A program that locks its memory (`mlockall`) with `MCL_CURRENT` while it has such a channel takes memory for the whole
    /// of it, and gives none back. With `MCL_FUTURE`, the messages of channels that can grow, and of topics, are not locked.
    ///
    /// ```
    /// use std::time::Duration;
    /// use slipring::{Grow, Shrink, bytes};
    ///
    /// let (mut tx, mut rx) = bytes::Builder::new(4096)
    ///     .max_capacity(1 << 20)
    ///     .grow(Grow::WhenFull)
    ///     .shrink(Shrink::WhenIdle(Duration::from_secs(1)))
    ///     .channel_pair()?;
    /// for _ in 0..100 {
    ///     tx.try_push(&[7; 1000])?;                   // more than 4096 bytes hold
    /// }
    /// assert_eq!(tx.capacity(), 128 << 10);
    /// # assert_eq!(rx.read()?.len(), 1000);
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[must_use]
    pub fn max_capacity(mut self, capacity: usize) -> Self {
        self.max_capacity = Some(capacity as u64);
        self
    }

    /// Sets when the producers of this builder make the channel larger by themselves. Without it they do not.
    #[must_use]
    pub fn grow(mut self, grow: Grow) -> Self {
        self.grow = grow;
        self
    }

    /// Sets when the producers of this builder make the channel smaller by themselves. Without it they do not.
    #[must_use]
    pub fn shrink(mut self, shrink: Shrink) -> Self {
        self.shrink = shrink;
        self
    }
}

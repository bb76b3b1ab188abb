//! Inspects the rings of a channel that can grow.

use std::sync::atomic::Ordering;

use slipring_core::layout::MOST_RINGS;
use slipring_core::outside::View;

/// The visible size of a channel that can grow. A hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrowthStat {
    /// The capacity now, in slots or bytes: that of the newest ring. [`Geometry::capacity`](crate::Geometry::capacity) is the first
    /// and smallest one.
    pub capacity: u64,
    /// The largest capacity that it can have.
    pub max_capacity: u64,
    /// The number of resizes since the channel was made.
    pub resizes: u64,
    /// The number of rings that have memory: the newest, and those that are not read to their end or not given back. At most
    /// seven; `None` if the words are impossible.
    pub rings: Option<u64>,
    /// The bytes of memory that the data part has now; `None` where the kernel does not count them by the channel.
    pub backed: Option<u64>,
}

/// Returns the rings of a channel; `None` if its capacity is fixed.
pub(super) fn look(view: &View<'_>, backed: Option<u64>) -> Option<GrowthStat> {
    let words = view.rings?;
    // Relaxed, both: hints.
    let passed = words.passed.load(Ordering::Relaxed);
    let resizes = words.line.newest.load(Ordering::Relaxed);
    let older = resizes.checked_sub(passed);
    Some(GrowthStat {
        capacity: view.capacity(),
        max_capacity: view.geometry.largest_capacity(),
        resizes,
        rings: older
            .filter(|older| *older < MOST_RINGS as u64)
            .map(|older| older + 1),
        backed,
    })
}

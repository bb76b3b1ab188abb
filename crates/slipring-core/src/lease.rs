//! How far a handle may go without asking, in memory that a fork wipes.
//!
//! Each end keeps one private figure: the position up to which it may go before it must look at
//! its peer's. The figure lies apart from the handle, so that an operating system may put it on a
//! page that reads as zeros in a forked child (`MADV_WIPEONFORK`). A handle that `fork` copied then
//! finds its lease used up at the first message, asks, and learns that it is a copy: the check for
//! it costs the busy path nothing, because it *is* the check that the busy path makes anyway.

use core::sync::atomic::{AtomicU64, Ordering};

/// A handle's lease. Two words, the handle's alone: always `core`'s atomics, also in a model,
/// since nothing is ordered by them; atomics only because a fork may change them unseen.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Lease {
    limit: AtomicU64,
    alive: AtomicU64,
}

impl Lease {
    /// A lease for one handle.
    pub const fn new() -> Lease {
        Lease {
            limit: AtomicU64::new(0),
            alive: AtomicU64::new(1),
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether this is still the handle that took the seat, not a forked copy of it.
    #[inline]
    pub fn alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed) != 0
    }
}

impl Default for Lease {
    fn default() -> Lease {
        Lease::new()
    }
}

//! Holds an end's cached limit, in memory that a fork wipes.
//!
//! Each end keeps one private figure: the position that it may reach before it must reload its
//! peer's. The figure lies apart from the handle, so an operating system may put it on a page that
//! reads as zeros in a forked child (`MADV_WIPEONFORK`). A handle that `fork` copied then finds its
//! cached limit used up at the first message. It takes the slow path and learns that it is a copy.
//! This check costs the fast path nothing, because it *is* the check that the fast path makes
//! anyway.

use core::sync::atomic::{AtomicU64, Ordering};

/// A handle's cached limit: two words that belong to the handle alone.
///
/// They are always `core`'s atomics, also in a model, since they order nothing. They are atomics
/// only because a fork may change them unseen.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CachedLimit {
    limit: AtomicU64,
    alive: AtomicU64,
}

impl CachedLimit {
    /// Makes a cached limit for one handle.
    pub const fn new() -> CachedLimit {
        CachedLimit {
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

    /// Returns `true` if this is the handle that took the seat, and not a forked copy of it.
    #[inline]
    pub fn alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed) != 0
    }
}

impl Default for CachedLimit {
    fn default() -> CachedLimit {
        CachedLimit::new()
    }
}

//! The one place that imports atomics and fences: `core`'s in a build that ships, loom's in a
//! model. A protocol file that names `core::sync::atomic` itself is a bug.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Tells the processor (or the model) that this thread is waiting for another one.
#[inline]
pub fn pause() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

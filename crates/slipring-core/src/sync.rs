//! Imports atomics and fences, as the only file: `core`'s in a build that ships, loom's in a model.
//! A protocol file that names `core::sync::atomic` itself is a bug.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Words of shared memory that nobody uses. A model does not follow them: each word that it follows takes it time.
#[repr(transparent)]
pub struct Unused<const WORDS: usize>([core::sync::atomic::AtomicU64; WORDS]);

impl<const WORDS: usize> Default for Unused<WORDS> {
    fn default() -> Self {
        Unused([const { core::sync::atomic::AtomicU64::new(0) }; WORDS])
    }
}

impl<const WORDS: usize> Unused<WORDS> {
    /// Zeroes them, for memory that held other data before. A model's memory may have words of loom's there.
    pub(crate) fn clear(&self) {
        #[cfg(not(loom))]
        self.0
            .iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

/// Keeps the compiler, but not the processor, from moving accesses across. A model has no compiler.
#[inline]
pub fn compiler_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Tells the processor (or the model) that this thread is waiting for another one.
#[inline]
pub fn pause() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

//! Transfers lines to their next writer, by storing into them the values that are there
//! (`line_transfer.rs`).

use core::ptr::NonNull;

/// `true` if this build transfers lines.
///
/// It does not on processors where it was never measured, nor where models and sanitizers would not
/// understand it.
pub(crate) const TRANSFERS_LINES: bool =
    cfg!(all(target_arch = "x86_64", not(loom), not(slipring_plain)));

/// The size of a line that `mem` assumes, in bytes.
pub(super) const LINE: usize = 64;

/// Returns one byte of each line that ends within `len` bytes from `start` on.
///
/// A line that several slots share has its turn with the last of them.
#[inline(always)]
fn lines(start: NonNull<u8>, len: usize) -> impl Iterator<Item = NonNull<u8>> {
    // Counted from the start of the first line, which may lie before `start`.
    let before = start.addr().get() % LINE;
    (0..(before + len) / LINE).map(move |line| {
        // SAFETY: the offset is below `len`, and `start` is valid for that many bytes.
        unsafe { start.add((line * LINE).saturating_sub(before)) }
    })
}

/// Touches lines of bytes that no other thread writes now; others may be reading them.
///
/// # Safety
/// `start` is valid for reads and writes of `len` bytes, and no other thread writes them meanwhile.
#[inline]
#[cfg(all(target_arch = "x86_64", not(loom), not(slipring_plain)))]
pub(super) unsafe fn touch_lines(start: NonNull<u8>, len: usize) {
    for byte in lines(start, len) {
        // SAFETY: no memory changes, since no other thread changes it. So to the language this is
        // no more of an access than a prefetch is, which is why it is in assembly.
        unsafe {
            core::arch::asm!(
                "mov {there}, byte ptr [{byte}]",
                "mov byte ptr [{byte}], {there}",
                byte = in(reg) byte.as_ptr(),
                there = out(reg_byte) _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Touches lines of bytes that others may be writing, by an instruction that leaves each byte as it
/// is.
///
/// # Safety
/// `start` is valid for reads and writes of `len` bytes.
#[inline]
#[cfg(all(target_arch = "x86_64", not(loom), not(slipring_plain)))]
pub(super) unsafe fn racing(start: NonNull<u8>, len: usize) {
    for byte in lines(start, len) {
        // SAFETY: no memory changes, since a locked instruction is one step to all other
        // processors. As above.
        unsafe {
            core::arch::asm!("lock or byte ptr [{byte}], 0", byte = in(reg) byte.as_ptr(), options(nostack));
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(loom), not(slipring_plain))))]
pub(super) use nothing::{nothing as racing, nothing as touch_lines};

#[cfg(not(all(target_arch = "x86_64", not(loom), not(slipring_plain))))]
mod nothing {
    use core::ptr::NonNull;

    /// Stores nothing.
    ///
    /// # Safety
    /// None is asked for.
    #[inline]
    pub(in crate::mem) unsafe fn nothing(start: NonNull<u8>, len: usize) {
        super::lines(start, len).for_each(drop);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[repr(align(64))]
    struct Memory([AtomicU64; 40]);

    impl Memory {
        fn new() -> Memory {
            Memory([const { AtomicU64::new(0) }; 40])
        }

        fn start(&self, skip: usize) -> NonNull<u8> {
            NonNull::from(&self.0[skip / 8]).cast()
        }
    }

    /// Each line is touched once, with the slot that holds its last byte.
    #[test]
    fn only_lines_that_end_are_touched() {
        let memory = Memory::new();
        let from = memory.start(0).addr().get();
        for (skip, len, expected) in [
            (0, 8, &[][..]),
            (56, 8, &[56]),
            (0, 64, &[0]),
            (8, 64, &[8]),
            (8, 120, &[8, 64]),
            (0, 320, &[0, 64, 128, 192, 256]),
            (24, 0, &[]),
        ] {
            let found = lines(memory.start(skip), len).map(|byte| byte.addr().get() - from);
            assert!(found.eq(expected.iter().copied()), "{skip} {len}");
        }
    }

    /// Checks that no other thread's store falls between a load and a store, which would undo it.
    #[test]
    fn nobodys_store_is_undone() {
        extern crate std;
        const ROUNDS: u64 = 10_000;
        let (memory, passes, done) = (Memory::new(), AtomicU64::new(0), AtomicBool::new(false));
        let undone = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: the bytes are atomics that live as long as this scope.
                    unsafe { racing(memory.start(0), 320) };
                    passes.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut undone = 0;
            for round in 1..=ROUNDS {
                let words = memory.0.iter().step_by(8);
                words
                    .clone()
                    .for_each(|word| word.store(round, Ordering::Relaxed));
                // Wait until a thread that had loaded the value from before has stored it.
                let begun = passes.load(Ordering::Relaxed);
                while passes.load(Ordering::Relaxed) < begun + 2 {
                    std::thread::yield_now();
                }
                undone += words
                    .filter(|word| word.load(Ordering::Relaxed) != round)
                    .count();
            }
            done.store(true, Ordering::Relaxed);
            undone
        });
        assert_eq!(undone, 0);
    }
}

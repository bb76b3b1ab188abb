//! Handing lines back to whoever writes them next: storing into them what is there (`hand_back.rs`).

use core::ptr::NonNull;

/// Whether it is done here: not where nobody has measured it, nor where models and sanitizers would not know it.
pub(crate) const HANDS_BACK: bool =
    cfg!(all(target_arch = "x86_64", not(loom), not(slipring_plain)));

/// What a line is taken to be, in bytes.
const LINE: usize = 64;

/// One byte of each line that ends within `len` bytes from `start` on: a line of several slots has its turn with
/// the last of them.
#[inline(always)]
fn lines(start: NonNull<u8>, len: usize) -> impl Iterator<Item = NonNull<u8>> {
    // From the first line's start, which may lie before.
    let before = start.addr().get() % LINE;
    (0..(before + len) / LINE).map(move |line| {
        // SAFETY: below `len`, and `start` is of so many bytes.
        unsafe { start.add((line * LINE).saturating_sub(before)) }
    })
}

/// Of bytes that nobody writes now; others may be reading them.
///
/// # Safety
/// `start` is valid for reads and writes of `len` bytes, and nobody writes them meanwhile.
#[inline]
#[cfg(all(target_arch = "x86_64", not(loom), not(slipring_plain)))]
pub(super) unsafe fn still(start: NonNull<u8>, len: usize) {
    for byte in lines(start, len) {
        // SAFETY: no memory changes, since nobody else changes it. So to the language it is no more of an access
        // than a prefetch is; which is why it is in assembly.
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

/// Of bytes that others may be writing: by an instruction that leaves each as it is, whatever that is.
///
/// # Safety
/// `start` is valid for reads and writes of `len` bytes.
#[inline]
#[cfg(all(target_arch = "x86_64", not(loom), not(slipring_plain)))]
pub(super) unsafe fn racing(start: NonNull<u8>, len: usize) {
    for byte in lines(start, len) {
        // SAFETY: no memory changes, since to all other processors a locked instruction is one step. As above.
        unsafe {
            core::arch::asm!("lock or byte ptr [{byte}], 0", byte = in(reg) byte.as_ptr(), options(nostack));
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(loom), not(slipring_plain))))]
pub(super) use nothing::{nothing as racing, nothing as still};

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

    #[test]
    fn each_line_has_its_turn_with_the_last_byte_of_it() {
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

    /// A store of somebody else's between a load and a store would be undone.
    #[test]
    fn nobodys_store_is_undone() {
        extern crate std;
        const ROUNDS: u64 = 10_000;
        let (memory, passes, done) = (Memory::new(), AtomicU64::new(0), AtomicBool::new(false));
        let undone = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: atomics that live as long as this scope.
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
                // Until whoever had loaded what was there before has stored it.
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

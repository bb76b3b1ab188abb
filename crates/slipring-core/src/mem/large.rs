//! Copies many words that other threads may write or read meanwhile.
//!
//! The copies are in inline assembly on both sides, since the language has none that may race. They
//! rely only on what the hardware promises for each aligned word.
//!
//! Loads are of 16 bytes. A message that was just made by moves of that width is still on its way
//! to the cache. Wider loads of it would wait until it is there. Stores are of 32 bytes if the
//! processor has them, since it commits one a cycle, of whatever width. (`rep movsb` is slower by a
//! quarter for lines that another core has.)

#[cfg(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(loom),
    not(slipring_plain)
))]
mod by_vectors {
    use core::arch::asm;
    use core::arch::x86_64::__cpuid;
    use core::sync::atomic::{AtomicU8, Ordering};

    /// Up to this many words, copying one by one is as fast.
    const FEW: usize = 16;

    /// Copies all but the last few of `words` words, and returns the number copied.
    ///
    /// # Safety
    /// `from` is valid for reads of that many words, and `to` for writes; they do not overlap.
    /// Others that read or write there do so by words, or by this function.
    #[inline(always)]
    pub(in crate::mem) unsafe fn copy(to: *mut u8, from: *const u8, words: usize) -> usize {
        if words < FEW {
            return 0;
        }
        let blocks = words / 8;
        if wide() {
            // SAFETY: the caller's promise, and the processor has AVX.
            unsafe { by_32(to, from, blocks) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { by_16(to, from, blocks) };
        }
        blocks * 8
    }

    /// Copies `blocks` blocks of 64 bytes by stores of 32 bytes.
    ///
    /// # Safety
    /// As for `copy`, of `blocks * 64` bytes. There is at least one block, and the processor has
    /// AVX.
    #[target_feature(enable = "avx")]
    unsafe fn by_32(to: *mut u8, from: *const u8, blocks: usize) {
        // SAFETY: it reads and writes `blocks * 64` bytes from either address up.
        unsafe {
            asm!(
                "2:",
                "vmovups xmm0, [{from}]",
                "vinsertf128 ymm0, ymm0, [{from} + 16], 1",
                "vmovups xmm1, [{from} + 32]",
                "vinsertf128 ymm1, ymm1, [{from} + 48], 1",
                "vmovups [{to}], ymm0",
                "vmovups [{to} + 32], ymm1",
                "add {from}, 64",
                "add {to}, 64",
                "dec {blocks}",
                "jnz 2b",
                "vzeroupper",
                from = inout(reg) from => _,
                to = inout(reg) to => _,
                blocks = inout(reg) blocks => _,
                // `vzeroupper` halves all of them. The caller that this is inlined into may have
                // values in them.
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack),
            );
        }
    }

    /// Copies `blocks` blocks of 64 bytes by stores of 16 bytes.
    ///
    /// # Safety
    /// As for `copy`, of `blocks * 64` bytes. There is at least one block.
    unsafe fn by_16(to: *mut u8, from: *const u8, blocks: usize) {
        // SAFETY: it reads and writes `blocks * 64` bytes from either address up.
        unsafe {
            asm!(
                "2:",
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + 32]",
                "movups {d}, [{from} + 48]",
                "movups [{to}], {a}",
                "movups [{to} + 16], {b}",
                "movups [{to} + 32], {c}",
                "movups [{to} + 48], {d}",
                "add {from}, 64",
                "add {to}, 64",
                "dec {blocks}",
                "jnz 2b",
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                from = inout(reg) from => _,
                to = inout(reg) to => _,
                blocks = inout(reg) blocks => _,
                options(nostack),
            );
        }
    }

    /// Returns `true` if the processor has AVX and the system keeps its registers. Asks once.
    #[inline]
    fn wide() -> bool {
        const NO: u8 = 1;
        const YES: u8 = 2;
        static KNOWN: AtomicU8 = AtomicU8::new(0);
        #[cold]
        #[inline(never)]
        fn ask() -> bool {
            const SYSTEM_KEEPS: u32 = 1 << 27;
            const AVX: u32 = 1 << 28;
            // Every x86-64 has leaf 1.
            let features = __cpuid(1).ecx;
            if features & (SYSTEM_KEEPS | AVX) != SYSTEM_KEEPS | AVX {
                return false;
            }
            let kept: u32;
            // SAFETY: the first bit says that the processor has the instruction. It reads the
            // register that says which registers the system keeps.
            unsafe {
                asm!(
                    "xgetbv",
                    in("ecx") 0,
                    out("eax") kept,
                    out("edx") _,
                    options(nomem, nostack, preserves_flags),
                );
            }
            kept & 6 == 6
        }
        // Relaxed: every thread that asks gets the same answer.
        match KNOWN.load(Ordering::Relaxed) {
            0 => {
                let wide = ask();
                KNOWN.store(if wide { YES } else { NO }, Ordering::Relaxed);
                wide
            }
            known => known == YES,
        }
    }
}

#[cfg(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(loom),
    not(slipring_plain)
))]
pub(super) use by_vectors::copy;

/// Copies none of the words, on processors without such a copy.
///
/// # Safety
/// None is asked for.
#[cfg(not(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(loom),
    not(slipring_plain)
)))]
pub(super) unsafe fn copy(_: *mut u8, _: *const u8, _: usize) -> usize {
    0
}

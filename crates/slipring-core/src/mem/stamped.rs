//! Slots that may be overwritten while they are read: each begins with a word that says which message is
//! in it, and is copied in and out word by word, never referred to.
//!
//! ```text
//! slot   0      stamp    p + 1: holds message p    p: message p is being written    0: nothing yet
//!        lead   the payload, padded to whole words
//! ```
//!
//! # Copies that may race
//! Plain version: a relaxed load and store for each word, which is what the slots' words are shared
//! through. That is what models and sanitizers run, and payloads up to a line or so. Larger ones are
//! copied by the processor's own means (16 bytes at a time, from about a kilobyte on `rep movsb`): in
//! inline assembly, since the language knows no copy that may race, and on both sides, so that what the
//! hardware promises for each word is all that is relied on.

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use crate::sync::{AtomicU64, Ordering};

/// The slots of a ring of `T` that is overwritten: a power of two of them.
pub struct Stamped<'m, T> {
    words: &'m [AtomicU64],
    mask: u64,
    /// From slot to slot, in words.
    stride: usize,
    /// From a slot's start to its payload, in words.
    lead: usize,
    payload: PhantomData<T>,
}

impl<T> Clone for Stamped<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Stamped<'_, T> {}

// SAFETY: of a `T` only copies come and go, over words that are atomics.
unsafe impl<T: Send> Send for Stamped<'_, T> {}

impl<'m, T: Copy> Stamped<'m, T> {
    /// How many words a payload takes.
    const WORDS: usize = size_of::<T>().div_ceil(8);

    /// The slots in `words`: `capacity` of them, `stride` words each, with the payload `lead` words from
    /// the start. Nothing if that does not fit, or `capacity` is no power of two.
    pub fn new(words: &'m [AtomicU64], capacity: u64, stride: usize, lead: usize) -> Option<Self> {
        let needed = (capacity as usize).checked_mul(stride)?;
        let fits = words.len() >= needed && lead >= 1 && lead + Self::WORDS <= stride;
        (fits && capacity.is_power_of_two()).then_some(Stamped {
            words,
            mask: capacity - 1,
            stride,
            lead,
            payload: PhantomData,
        })
    }

    /// How many slots there are.
    #[inline]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// The word that says which message is in the slot of `position`.
    #[inline]
    pub fn stamp(&self, position: u64) -> &'m AtomicU64 {
        let index = (position & self.mask) as usize * self.stride;
        // SAFETY: the index is below capacity * stride, which `new` compared with the length.
        unsafe { self.words.get_unchecked(index) }
    }

    #[inline]
    fn payload(&self, position: u64) -> &'m [AtomicU64] {
        let first = (position & self.mask) as usize * self.stride + self.lead;
        // SAFETY: lead + WORDS is at most the stride, and the slot inside the words: see `new`.
        unsafe { self.words.get_unchecked(first..first + Self::WORDS) }
    }

    /// Copies `value` into the slot of `position`, whoever reads it meanwhile.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "an iterator is not unrolled")]
    pub fn store(&self, position: u64, value: &T) {
        let to = self.payload(position);
        let from = core::ptr::from_ref(value).cast::<u8>();
        let whole = size_of::<T>() / 8;
        // SAFETY: `value` has so many bytes, and the slot so many words.
        let copied = unsafe { large::store(to, from, whole) };
        // By index: of a payload of some words the compiler then makes as many moves.
        for i in copied..whole {
            // SAFETY: the word lies inside `value`; of no alignment in particular.
            let bits = unsafe { from.cast::<u64>().wrapping_add(i).read_unaligned() };
            // Relaxed: the stamp's fence and release order it.
            to[i].store(bits, Ordering::Relaxed);
        }
        if !size_of::<T>().is_multiple_of(8) {
            let mut bytes = [0_u8; 8];
            // SAFETY: what is left of `value` behind its whole words: less than eight bytes.
            unsafe {
                from.wrapping_add(whole * 8)
                    .copy_to_nonoverlapping(bytes.as_mut_ptr(), size_of::<T>() % 8);
            }
            to[whole].store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// Copies the slot of `position` to `value`, all of its bytes, whoever writes it meanwhile: then what comes
    /// is rubbish, which only the stamp, looked at again behind an acquire fence, can tell.
    ///
    /// Plain version: returns the value. One of a kilobyte was then moved four times on its way out.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "an iterator is not unrolled")]
    pub fn load(&self, position: u64, value: &mut MaybeUninit<T>) {
        let from = self.payload(position);
        let to = value.as_mut_ptr().cast::<u8>();
        let whole = size_of::<T>() / 8;
        // SAFETY: `value` has so many bytes, and the slot so many words.
        let copied = unsafe { large::load(to, from, whole) };
        for i in copied..whole {
            // Relaxed: the fence before the second look at the stamp orders it.
            let bits = from[i].load(Ordering::Relaxed);
            // SAFETY: the word lies inside `value`; of no alignment in particular.
            unsafe { to.cast::<u64>().wrapping_add(i).write_unaligned(bits) };
        }
        if !size_of::<T>().is_multiple_of(8) {
            let bytes = from[whole].load(Ordering::Relaxed).to_le_bytes();
            // SAFETY: what is left of `value` behind its whole words: less than eight bytes.
            unsafe {
                to.wrapping_add(whole * 8)
                    .copy_from_nonoverlapping(bytes.as_ptr(), size_of::<T>() % 8);
            }
        }
    }
}

/// Copies of many words by inline assembly; each says how many words it has copied.
#[cfg(all(target_arch = "x86_64", not(loom), not(slipring_plain)))]
mod large {
    use super::AtomicU64;
    use core::arch::asm;

    /// Up to so many words, one by one is as fast.
    const FEW: usize = 16;
    /// From so many words on, the processor's string copy is faster.
    const MANY: usize = 128;

    /// # Safety
    /// `from` is valid for reads of `words` words; `to` has as many.
    #[inline]
    pub(super) unsafe fn store(to: &[AtomicU64], from: *const u8, words: usize) -> usize {
        debug_assert!(words <= to.len());
        // SAFETY: the caller's promise; `to` is made of atomics, which may be written through `&`.
        unsafe { copy(to.as_ptr().cast::<u8>().cast_mut(), from, words) }
    }

    /// # Safety
    /// `to` is valid for writes of `words` words; `from` has as many.
    #[inline]
    pub(super) unsafe fn load(to: *mut u8, from: &[AtomicU64], words: usize) -> usize {
        debug_assert!(words <= from.len());
        // SAFETY: the caller's promise.
        unsafe { copy(to, from.as_ptr().cast(), words) }
    }

    /// # Safety
    /// `from` and `to` are valid for `words` words, and do not overlap.
    #[inline]
    unsafe fn copy(to: *mut u8, from: *const u8, words: usize) -> usize {
        if words < FEW {
            return 0;
        }
        if words >= MANY {
            // SAFETY: reads and writes `words * 8` bytes from either address up; the direction flag is
            // clear by the calling convention.
            unsafe {
                asm!(
                    "rep movsb",
                    inout("rcx") words * 8 => _,
                    inout("rsi") from => _,
                    inout("rdi") to => _,
                    options(nostack, preserves_flags),
                );
            }
            return words;
        }
        let blocks = words / 8;
        // SAFETY: reads and writes `blocks * 64` bytes from either address up; `blocks` is not zero.
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
        blocks * 8
    }
}

/// Where there is no such copy: all words one by one.
#[cfg(not(all(target_arch = "x86_64", not(loom), not(slipring_plain))))]
mod large {
    use super::AtomicU64;

    /// # Safety
    /// None is asked for.
    pub(super) unsafe fn store(_: &[AtomicU64], _: *const u8, _: usize) -> usize {
        0
    }

    /// # Safety
    /// None is asked for.
    pub(super) unsafe fn load(_: *mut u8, _: &[AtomicU64], _: usize) -> usize {
        0
    }
}

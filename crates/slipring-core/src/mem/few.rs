//! Payloads of a few words, which are copied word by word, so that the compiler keeps them in registers.
//!
//! Plain version: a read of the whole, and a write of the whole. What is read goes to the stack and, after the
//! store that releases the slot, from there to where it is used: 17 ns for 64 bytes instead of 12. What is
//! written leaves in eight stores of a word; but how many messages are on their way at once, while each waits
//! for its line, is how many fit in the processor's queue of 64 stores: in halves of that, 12 ns instead of 18.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// More words than these are copied as a whole.
const MOST: usize = 8;

/// A payload of one to eight whole, aligned words, where it lies.
pub(crate) struct Few<'m, T> {
    words: NonNull<AtomicU64>,
    payload: PhantomData<&'m T>,
}

impl<T> Few<'_, T> {
    /// Models and sanitizers are shown plain slots as they are: of what is atomic they would tell no race.
    const PLAIN: bool = cfg!(loom) || cfg!(slipring_plain);

    /// How many words a `T` is; 0 if it is none of these.
    const WORDS: usize = if Self::PLAIN || align_of::<T>() < 8 || size_of::<T>() > MOST * 8 {
        0
    } else {
        size_of::<T>() / 8
    };

    /// The payload at `place`; nothing if a `T` is not a few words.
    ///
    /// # Safety
    /// `place` is aligned to words, and valid for a `T` during `'m`, which has no padding. Whoever else touches it
    /// while `store` runs does so by words that are atomics; and whoever writes it while `load` runs.
    #[inline(always)]
    pub(super) unsafe fn new(place: NonNull<T>) -> Option<Self> {
        (Self::WORDS > 0).then_some(Few {
            words: place.cast(),
            payload: PhantomData,
        })
    }

    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < Self::WORDS);
        // SAFETY: `new` was promised so many words.
        let word = unsafe { self.words.add(index) };
        // SAFETY: and that they are atomics to all while this one lives, which is one access.
        unsafe { word.as_ref() }
    }

    /// Stores `value` there.
    #[inline(always)]
    pub(crate) fn store(&self, value: &T) {
        let bits = |index: usize| {
            let word = core::ptr::from_ref(value).cast::<u64>().wrapping_add(index);
            // SAFETY: inside `value`, which is whole words and aligned to them.
            unsafe { word.read() }
        };
        let mut index = 0;
        while index + 1 < Self::WORDS {
            self.store_two(index, bits(index), bits(index + 1));
            index += 2;
        }
        if index < Self::WORDS {
            // Relaxed: what publishes it orders it.
            self.word(index).store(bits(index), Ordering::Relaxed);
        }
    }

    /// Stores the words `index` and the next, in one instruction.
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    #[inline(always)]
    fn store_two(&self, index: usize, first: u64, second: u64) {
        use core::arch::x86_64::_mm_set_epi64x;
        // SAFETY: there is SSE2.
        let both = unsafe { _mm_set_epi64x(second.cast_signed(), first.cast_signed()) };
        debug_assert!(index + 1 < Self::WORDS);
        let to = self.words.as_ptr().wrapping_add(index);
        // SAFETY: writes two words that are atomics to all; each whole, since the processor does not tear an
        // aligned word. In assembly, since the language knows no such store that may race.
        unsafe {
            core::arch::asm!(
                "movups [{to}], {both}",
                to = in(reg) to,
                both = in(xmm_reg) both,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Stores the words `index` and the next.
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
    #[inline(always)]
    fn store_two(&self, index: usize, first: u64, second: u64) {
        // Relaxed, both: what publishes them orders them.
        self.word(index).store(first, Ordering::Relaxed);
        self.word(index + 1).store(second, Ordering::Relaxed);
    }

    /// The value there: any bits, if it is written meanwhile.
    #[inline(always)]
    pub(crate) fn load(&self) -> MaybeUninit<T> {
        let mut value = MaybeUninit::<T>::uninit();
        for index in 0..Self::WORDS {
            // Relaxed: what follows it orders it.
            let bits = self.word(index).load(Ordering::Relaxed);
            let word = value.as_mut_ptr().cast::<u64>().wrapping_add(index);
            // SAFETY: inside `value`, which is whole words and aligned to them.
            unsafe { word.write(bits) };
        }
        value
    }
}

//! Copies payloads of a few words word by word, so that the compiler keeps them in registers. Odd
//! payloads of that size are read in parts for the same reason.
//!
//! Plain version: one read of the whole, and one write of the whole. A read value goes to the
//! stack. After the store that releases the slot, it goes from there to its use: 17 ns for 64 bytes
//! instead of 12. A written value leaves in eight stores of a word. Each message waits for its
//! line, and the processor's queue has 64 stores. So the queue limits how many messages are on
//! their way at once. With half as many stores, it takes 12 ns instead of 18.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// The most words that are copied one by one; larger payloads are copied as a whole.
const MOST: usize = 8;

/// Returns `true` if a `T` is so small that the compiler can keep it in registers.
pub(crate) const fn is_small<T>() -> bool {
    size_of::<T>() <= MOST * 8
}

/// Reads a value; up to [`MOST`] words of it in parts that do not overlap.
///
/// Plain version: one read of the whole. The compiler then copies 13 bytes as two overlapping words.
/// The copy's reader loads bytes of two stores at once, and waits until both are through. A pop of
/// `spsc` took 9 ns instead of 2.
///
/// # Safety
/// As for [`NonNull::read`].
#[inline(always)]
pub(super) unsafe fn read<T>(place: NonNull<T>) -> T {
    let size = size_of::<T>();
    if size.is_multiple_of(8) || !is_small::<T>() {
        // SAFETY: the caller's promise.
        return unsafe { place.read() };
    }
    let mut value = MaybeUninit::<T>::uninit();
    let from = place.cast::<u8>().as_ptr().cast_const();
    let to = value.as_mut_ptr().cast::<u8>();
    let mut done = 0;
    while size - done >= 8 {
        // SAFETY: the word lies inside the value and its place.
        unsafe { copy::<u64>(from.wrapping_add(done), to.wrapping_add(done)) };
        done += 8;
    }
    if size & 4 != 0 {
        // SAFETY: so do these four bytes.
        unsafe { copy::<u32>(from.wrapping_add(done), to.wrapping_add(done)) };
        done += 4;
    }
    if size & 2 != 0 {
        // SAFETY: so do these two bytes.
        unsafe { copy::<u16>(from.wrapping_add(done), to.wrapping_add(done)) };
        done += 2;
    }
    if size & 1 != 0 {
        // SAFETY: this is the last byte.
        unsafe { copy::<u8>(from.wrapping_add(done), to.wrapping_add(done)) };
    }
    // SAFETY: all of its bytes were copied.
    unsafe { value.assume_init() }
}

/// Copies a `P`, which need not be aligned.
///
/// # Safety
/// `from` is valid for a read of it, and `to` for a write.
#[inline(always)]
unsafe fn copy<P>(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's promise.
    let part = unsafe { from.cast::<P>().read_unaligned() };
    // SAFETY: the caller's promise.
    unsafe { to.cast::<P>().write_unaligned(part) };
}

/// A payload of one to eight whole, aligned words, in place.
pub(crate) struct Small<'m, T> {
    words: NonNull<AtomicU64>,
    payload: PhantomData<&'m T>,
}

impl<T> Small<'_, T> {
    /// `true` in models and sanitizers, which get plain slots: they report no race on atomics.
    const PLAIN: bool = cfg!(loom) || cfg!(slipring_plain);

    /// The number of words of a `T`; 0 if it is not a few whole, aligned words.
    const WORDS: usize = if Self::PLAIN || align_of::<T>() < 8 || size_of::<T>() > MOST * 8 {
        0
    } else {
        size_of::<T>() / 8
    };

    /// Makes the payload at `place`; returns `None` if a `T` is not a few words.
    ///
    /// # Safety
    /// `place` is aligned to words, and valid during `'m` for a `T`, which has no padding. While
    /// `store` runs, others touch it only by words that are atomics. While `load` runs, others
    /// write it only so.
    #[inline(always)]
    pub(super) unsafe fn new(place: NonNull<T>) -> Option<Self> {
        (Self::WORDS > 0).then_some(Small {
            words: place.cast(),
            payload: PhantomData,
        })
    }

    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < Self::WORDS);
        // SAFETY: the caller of `new` promised that many words.
        let word = unsafe { self.words.add(index) };
        // SAFETY: the caller of `new` promised too that they are atomics to all during this access,
        // which is this value's lifetime.
        unsafe { word.as_ref() }
    }

    /// Stores `value` there.
    #[inline(always)]
    pub(crate) fn store(&self, value: &T) {
        let bits = |index: usize| {
            let word = core::ptr::from_ref(value).cast::<u64>().wrapping_add(index);
            // SAFETY: it lies inside `value`, which is whole words and aligned to them.
            unsafe { word.read() }
        };
        let mut index = 0;
        while index + 1 < Self::WORDS {
            self.store_two(index, bits(index), bits(index + 1));
            index += 2;
        }
        if index < Self::WORDS {
            // Relaxed: the store that publishes it orders it.
            self.word(index).store(bits(index), Ordering::Relaxed);
        }
    }

    /// Stores the words `index` and `index + 1` in one instruction.
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    #[inline(always)]
    fn store_two(&self, index: usize, first: u64, second: u64) {
        use core::arch::x86_64::_mm_set_epi64x;
        // SAFETY: the target has SSE2.
        let both = unsafe { _mm_set_epi64x(second.cast_signed(), first.cast_signed()) };
        debug_assert!(index + 1 < Self::WORDS);
        let to = self.words.as_ptr().wrapping_add(index);
        // SAFETY: it writes two words that are atomics to all. Each stays whole, since the
        // processor does not tear an aligned word. It is in assembly, since the language has no
        // such store that may race.
        unsafe {
            core::arch::asm!(
                "movups [{to}], {both}",
                to = in(reg) to,
                both = in(xmm_reg) both,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Stores the words `index` and `index + 1`.
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
    #[inline(always)]
    fn store_two(&self, index: usize, first: u64, second: u64) {
        // Relaxed, both: the store that publishes them orders them.
        self.word(index).store(first, Ordering::Relaxed);
        self.word(index + 1).store(second, Ordering::Relaxed);
    }

    /// Returns the value there; its bits are arbitrary if others write it meanwhile.
    #[inline(always)]
    pub(crate) fn load(&self) -> MaybeUninit<T> {
        let mut value = MaybeUninit::<T>::uninit();
        for index in 0..Self::WORDS {
            // Relaxed: the access that follows orders it.
            let bits = self.word(index).load(Ordering::Relaxed);
            let word = value.as_mut_ptr().cast::<u64>().wrapping_add(index);
            // SAFETY: it lies inside `value`, which is whole words and aligned to them.
            unsafe { word.write(bits) };
        }
        value
    }
}

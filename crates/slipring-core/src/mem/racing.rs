//! Holds slots that may be overwritten while they are read. Values are copied in and out word by
//! word, and never referred to. Each slot is padded to whole words.
//!
//! # Copies that may race
//! Plain version: a relaxed load and store for each word, since the slots' words are shared as
//! atomics. Models and sanitizers run that version, and so do payloads up to a line or so. Those of
//! a few whole words are copied by `small.rs`, and larger ones by wider moves (`large.rs`).

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::{Small, back, large, prefetch};
use crate::geometry::padded;
use crate::sync::{AtomicU64, Ordering};

/// The slots of an overwriting ring of `T`: a power of two of them.
pub struct Racing<'m, T> {
    words: &'m [AtomicU64],
    mask: u64,
    payload: PhantomData<T>,
}

impl<T> Clone for Racing<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Racing<'_, T> {}

// SAFETY: only copies of a `T` come and go, over words that are atomics.
unsafe impl<T: Send> Send for Racing<'_, T> {}

impl<'m, T: Copy> Racing<'m, T> {
    /// The number of words that a payload takes.
    const WORDS: usize = size_of::<T>().div_ceil(8);

    /// The distance from slot to slot, in words.
    const STRIDE: usize = match padded(size_of::<T>() as u64, align_of::<T>() as u64) {
        Some(bytes) => bytes as usize / 8,
        None => panic!("a payload of 2^64 bytes"),
    };

    /// Makes `capacity` slots in `words`.
    ///
    /// Returns `None` if they do not fit, or if `capacity` is not a power of two.
    ///
    /// # Safety
    /// A `T` has no padding: its bytes are copied as words.
    pub unsafe fn new(words: &'m [AtomicU64], capacity: u64) -> Option<Self> {
        let needed = (capacity as usize).checked_mul(Self::STRIDE)?;
        (words.len() >= needed && capacity.is_power_of_two()).then(|| Racing {
            words,
            mask: capacity - 1,
            payload: PhantomData,
        })
    }

    /// Returns the number of slots.
    #[inline]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Prefetches the slot of `position`, which is written next; see `Slots::prefetch_awaited`.
    #[inline(always)]
    pub(crate) fn prefetch_awaited(&self, position: u64) {
        let word = (position & self.mask) as usize * Self::STRIDE;
        if Self::STRIDE <= back::LINE / 8
            && let Some(word) = self.words.get(word)
        {
            prefetch::for_reading(NonNull::from(word));
        }
    }

    /// Makes `capacity` slots at `base`.
    ///
    /// # Safety
    /// `base` is aligned to words, and valid during `'m` for `capacity` padded slots, all
    /// initialised. `capacity` is a power of two. They are accessed only as atomic words, or by the
    /// assembly that is used here in their place. A `T` has no padding.
    #[cfg(not(loom))]
    pub(crate) unsafe fn at(base: NonNull<AtomicU64>, capacity: u64) -> Self {
        debug_assert!(capacity.is_power_of_two());
        let count = capacity as usize * Self::STRIDE;
        // SAFETY: the caller's promise.
        let words = unsafe { core::slice::from_raw_parts(base.as_ptr(), count) };
        Racing {
            words,
            mask: capacity - 1,
            payload: PhantomData,
        }
    }

    #[inline]
    fn slot(&self, position: u64) -> &'m [AtomicU64] {
        let first = (position & self.mask) as usize * Self::STRIDE;
        // SAFETY: the slot's index is below the capacity, and `new` compared that many strides with the length.
        unsafe { self.words.get_unchecked(first..first + Self::WORDS) }
    }

    /// Returns the slot of `position`, if a `T` is a few words.
    #[inline(always)]
    fn small(&self, position: u64) -> Option<Small<'m, T>> {
        let words = NonNull::from(self.slot(position));
        // SAFETY: they are a slot's words, as many as a `T` has, and everybody accesses them as
        // atomics. The caller of `new` promised that a `T` has no padding.
        unsafe { Small::new(words.cast()) }
    }

    /// Transfers the lines of the slot of `position`, even if others read or write it.
    ///
    /// # Safety
    /// This end may write the slots, and not only read them.
    #[inline]
    pub(crate) unsafe fn transfer_lines(&self, position: u64) {
        let first = (position & self.mask) as usize * Self::STRIDE;
        let words = NonNull::from(self.words).cast::<u64>();
        // SAFETY: the slot's index is below the capacity, and `new` compared that many strides with the length.
        let slot = unsafe { words.add(first) };
        // SAFETY: they are a slot's words, up to the next slot's.
        unsafe { back::racing(slot.cast(), Self::STRIDE * 8) };
    }

    /// Copies `value` into the slot of `position`, even if others read it meanwhile.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "an iterator is not unrolled")]
    pub fn store(&self, position: u64, value: &T) {
        if let Some(few) = self.small(position) {
            few.store(value);
            return;
        }
        let to = self.slot(position);
        let from = core::ptr::from_ref(value).cast::<u8>();
        let whole = size_of::<T>() / 8;
        // SAFETY: `value` has that many bytes and the slot that many words, which may be written
        // through `&`.
        let copied = unsafe { large::copy(to.as_ptr().cast::<u8>().cast_mut(), from, whole) };
        // By index: for a payload of some words the compiler then makes as many moves.
        for i in copied..whole {
            // SAFETY: the word lies inside `value`; it has no particular alignment.
            let bits = unsafe { from.cast::<u64>().wrapping_add(i).read_unaligned() };
            // Relaxed: the write limit's fence and the tail's release order it.
            to[i].store(bits, Ordering::Relaxed);
        }
        if !size_of::<T>().is_multiple_of(8) {
            let mut bytes = [0_u8; 8];
            // SAFETY: this is the rest of `value` behind its whole words: less than eight bytes.
            unsafe {
                from.wrapping_add(whole * 8)
                    .copy_to_nonoverlapping(bytes.as_mut_ptr(), size_of::<T>() % 8);
            }
            to[whole].store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// Copies the slot of `position` to `value`, all of its bytes, even if others write it
    /// meanwhile.
    ///
    /// The copy is then garbage. Only the write limit, loaded behind an acquire fence, can tell.
    ///
    /// Plain version: returns the value. A value of a kilobyte was then moved four times on its way
    /// out.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "an iterator is not unrolled")]
    pub fn load(&self, position: u64, value: &mut MaybeUninit<T>) {
        if let Some(few) = self.small(position) {
            *value = few.load();
            return;
        }
        let from = self.slot(position);
        let to = value.as_mut_ptr().cast::<u8>();
        let whole = size_of::<T>() / 8;
        // SAFETY: `value` has that many bytes, and the slot that many words.
        let copied = unsafe { large::copy(to, from.as_ptr().cast(), whole) };
        for i in copied..whole {
            // Relaxed: the fence before the load of the write limit orders it.
            let bits = from[i].load(Ordering::Relaxed);
            // SAFETY: the word lies inside `value`; it has no particular alignment.
            unsafe { to.cast::<u64>().wrapping_add(i).write_unaligned(bits) };
        }
        if !size_of::<T>().is_multiple_of(8) {
            let bytes = from[whole].load(Ordering::Relaxed).to_le_bytes();
            // SAFETY: this is the rest of `value` behind its whole words: less than eight bytes.
            unsafe {
                to.wrapping_add(whole * 8)
                    .copy_from_nonoverlapping(bytes.as_ptr(), size_of::<T>() % 8);
            }
        }
    }
}

//! The slots of a queue of byte strings: all of one size, which is known when the program runs.

use core::marker::PhantomData;
use core::ptr::NonNull;

#[cfg(loom)]
use super::Shadow;
use super::cells::Contents;
use super::prefetch;
use crate::error::Error;

/// The slots of a queue of byte strings, one after another.
#[derive(Clone, Copy)]
pub struct ByteCells<'m> {
    base: NonNull<u8>,
    len: u64,
    size: u64,
    #[cfg(loom)]
    shadow: Shadow<'m>,
    memory: PhantomData<&'m mut [u8]>,
}

// SAFETY: `ByteCells` is an address; the protocol proves which role may touch which slot.
unsafe impl Send for ByteCells<'_> {}
// SAFETY: as above; it is only read.
unsafe impl Sync for ByteCells<'_> {}

impl<'m> ByteCells<'m> {
    /// Makes the slots of a queue at `base`: `len` slots of `size` bytes each.
    ///
    /// # Safety
    /// `base` is valid for `len * size` bytes during `'m`, all of them initialised.
    pub unsafe fn new(
        base: NonNull<u8>,
        len: u64,
        size: u64,
        #[cfg(loom)] shadow: Shadow<'m>,
    ) -> Self {
        ByteCells {
            base,
            len,
            size,
            #[cfg(loom)]
            shadow,
            memory: PhantomData,
        }
    }

    /// Returns the size of a slot, in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// # Safety
    /// `index` is below the number of slots.
    #[inline]
    unsafe fn at(&self, index: u64) -> NonNull<u8> {
        debug_assert!(index < self.len);
        // SAFETY: the caller's promise, and that of the caller of `new`.
        unsafe { self.base.add((index * self.size) as usize) }
    }

    /// Asks for the first line of slot `index`, to be written soon. Does nothing if there is no such slot.
    #[inline(always)]
    pub(crate) fn prefetch_to_write(&self, index: u64) {
        if index < self.len {
            // SAFETY: below the number of slots.
            prefetch::for_writing(unsafe { self.at(index) });
        }
    }

    /// Returns the first `len` bytes of slot `index`, for writing.
    ///
    /// # Safety
    /// `index` is below the number of slots and `len` at most the size of one. No other role touches that slot during
    /// `'a`.
    #[inline]
    pub unsafe fn bytes_mut<'a>(&self, index: u64, len: usize) -> &'a mut [u8] {
        #[cfg(loom)]
        self.shadow[index as usize].with_mut(|_| ());
        // SAFETY: the caller's promise.
        let place = unsafe { self.at(index) };
        // SAFETY: in bounds, and initialised; the caller excludes all others.
        unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), len) }
    }
}

impl Contents for ByteCells<'_> {
    type Content = [u8];

    #[inline]
    fn slots_for(&self, amount: u64) -> Result<u64, Error> {
        let (asked, max) = (amount, self.size);
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        Ok(1)
    }

    #[inline]
    unsafe fn content<'a>(&self, index: u64, len: usize) -> &'a [u8] {
        #[cfg(loom)]
        self.shadow[index as usize].with(|_| ());
        // SAFETY: the caller's promise.
        let place = unsafe { self.at(index) };
        // SAFETY: in bounds, and initialised; the caller excludes writers.
        unsafe { core::slice::from_raw_parts(place.as_ptr(), len) }
    }
}

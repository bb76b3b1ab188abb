//! The slots of a queue: any number of them, found by index.

use core::marker::PhantomData;
use core::ptr::NonNull;

#[cfg(loom)]
use super::Shadow;
use super::prefetch;
use super::small::Small;
use crate::error::Error;

/// The slots of a queue, whatever they hold.
pub trait Contents: Copy {
    /// The content of a slot.
    type Content: ?Sized;

    /// Returns the number of slots that `amount` takes: so many values, or a string of so many bytes.
    ///
    /// Fails with `TooLarge` for a string that no slot holds.
    fn slots_for(&self, amount: u64) -> Result<u64, Error>;

    /// Returns the content of slot `index`, in place: of a string the first `len` bytes.
    ///
    /// # Safety
    /// `index` is below the number of slots, and no other role writes that slot during `'a`. `len` bytes fit a slot.
    unsafe fn content<'a>(&self, index: u64, len: usize) -> &'a Self::Content
    where
        Self::Content: 'a;
}

impl<T: Copy> Contents for Cells<'_, T> {
    type Content = T;

    #[inline]
    fn slots_for(&self, amount: u64) -> Result<u64, Error> {
        Ok(amount)
    }

    #[inline]
    unsafe fn content<'a>(&self, index: u64, _: usize) -> &'a T
    where
        T: 'a,
    {
        // SAFETY: the caller's promise.
        unsafe { self.get(index) }
    }
}

/// The slots of a queue of `T`, one after another.
pub struct Cells<'m, T> {
    base: NonNull<T>,
    len: u64,
    #[cfg(loom)]
    shadow: Shadow<'m>,
    memory: PhantomData<&'m mut [T]>,
}

impl<T> Clone for Cells<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cells<'_, T> {}

// SAFETY: `Cells` is an address; the protocol proves which role may touch which slot.
unsafe impl<T: Send> Send for Cells<'_, T> {}
// SAFETY: as above; it is only read.
unsafe impl<T: Sync> Sync for Cells<'_, T> {}

impl<'m, T> Cells<'m, T> {
    /// Makes the slots of a queue at `base`.
    ///
    /// # Safety
    /// `base` is aligned for `T` and valid for `len` values of `T` during `'m`, all of them initialised.
    pub unsafe fn new(base: NonNull<T>, len: u64, #[cfg(loom)] shadow: Shadow<'m>) -> Self {
        Cells {
            base,
            len,
            #[cfg(loom)]
            shadow,
            memory: PhantomData,
        }
    }

    /// Returns the number of slots.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns `true` if there are no slots.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// # Safety
    /// `index` is below the number of slots.
    #[inline]
    unsafe fn at(&self, index: u64) -> NonNull<T> {
        debug_assert!(index < self.len);
        // SAFETY: the caller's promise, and that of the caller of `new`.
        unsafe { self.base.add(index as usize) }
    }

    /// Asks for the first line of slot `index`, to be read soon. Does nothing if there is no such slot.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u64) {
        if index < self.len {
            // SAFETY: below the number of slots.
            prefetch::for_reading(unsafe { self.at(index) });
        }
    }

    /// Asks for the first line of slot `index`, to be written soon. Does nothing if there is no such slot.
    #[inline(always)]
    pub(crate) fn prefetch_to_write(&self, index: u64) {
        if index < self.len {
            // SAFETY: below the number of slots.
            prefetch::for_writing(unsafe { self.at(index) });
        }
    }

    /// Stores `value` in slot `index`.
    ///
    /// # Safety
    /// `index` is below the number of slots, and no other role touches that slot now.
    #[inline]
    pub unsafe fn write(&self, index: u64, value: &T)
    where
        T: Copy,
    {
        self.touch_mut(index, 1);
        // SAFETY: the caller's promise.
        let place = unsafe { self.at(index) };
        // SAFETY: the caller of `new` promised a valid `T` there; the caller excludes other roles.
        match unsafe { Small::new(place) } {
            Some(few) => few.store(value),
            // SAFETY: `place` is in bounds and aligned; the caller excludes all others.
            None => unsafe { place.write(*value) },
        }
    }

    /// Copies the value out of slot `index`.
    ///
    /// # Safety
    /// `index` is below the number of slots, and no other role writes that slot now. A `T` has no padding, and every
    /// bit pattern is a valid `T`.
    #[inline]
    pub unsafe fn read(&self, index: u64) -> T
    where
        T: Copy,
    {
        self.touch(index, 1);
        // SAFETY: the caller's promise.
        let place = unsafe { self.at(index) };
        // SAFETY: the caller of `new` promised a valid `T` there; the caller excludes writers.
        match unsafe { Small::<T>::new(place) } {
            // SAFETY: `load` reads all of its words, and any bits are a `T`: the caller's promise.
            Some(few) => unsafe { few.load().assume_init() },
            // SAFETY: it is in bounds, aligned and initialised; the caller excludes writers.
            None => unsafe { place.read() },
        }
    }

    /// Returns slot `index`, in place.
    ///
    /// # Safety
    /// `index` is below the number of slots, and no other role writes that slot during `'a`.
    #[inline]
    pub unsafe fn get<'a>(&self, index: u64) -> &'a T {
        self.touch(index, 1);
        // SAFETY: the caller's promise.
        let place = unsafe { self.at(index) };
        // SAFETY: in bounds and aligned; the caller excludes writers.
        unsafe { place.as_ref() }
    }

    /// Returns `count` slots from `index` on, as two runs: up to the last slot, and from the first.
    ///
    /// # Safety
    /// `index` is below the number of slots and `count` at most that. No other role writes those slots during `'a`.
    #[inline]
    pub unsafe fn slices<'a>(&self, index: u64, count: usize) -> (&'a [T], &'a [T]) {
        self.touch(index, count);
        let first = self.run(index, count);
        // SAFETY: the caller's promise.
        let place = unsafe { self.at(index) };
        // SAFETY: `first` slots lie between this one and the last.
        let front = unsafe { core::slice::from_raw_parts(place.as_ptr(), first) };
        // SAFETY: the rest is fewer than all slots, from the first.
        let back = unsafe { core::slice::from_raw_parts(self.base.as_ptr(), count - first) };
        (front, back)
    }

    /// Returns the same slots as [`slices`](Self::slices), for writing.
    ///
    /// # Safety
    /// As for `slices`, and no other role touches those slots during `'a`.
    #[inline]
    pub unsafe fn slices_mut<'a>(&self, index: u64, count: usize) -> (&'a mut [T], &'a mut [T]) {
        self.touch_mut(index, count);
        let first = self.run(index, count);
        // SAFETY: the caller's promise.
        let place = unsafe { self.at(index) };
        // SAFETY: `first` slots lie between this one and the last.
        let front = unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), first) };
        // SAFETY: the rest lies before this slot, so the two never overlap.
        let back = unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), count - first) };
        (front, back)
    }

    /// Returns the number of the `count` slots that come before the first one again.
    #[inline]
    fn run(&self, index: u64, count: usize) -> usize {
        count.min((self.len - index) as usize)
    }

    #[inline]
    fn touch(&self, _index: u64, _count: usize) {
        #[cfg(loom)]
        for i in 0.._count as u64 {
            self.shadow[((_index + i) % self.len) as usize].with(|_| ());
        }
    }

    #[inline]
    fn touch_mut(&self, _index: u64, _count: usize) {
        #[cfg(loom)]
        for i in 0.._count as u64 {
            self.shadow[((_index + i) % self.len) as usize].with_mut(|_| ());
        }
    }
}

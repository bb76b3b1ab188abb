//! The slots of a topic: each has a header of its own, and a payload that lies behind it.

use core::marker::PhantomData;
use core::ptr::NonNull;

#[cfg(loom)]
use super::Shadow;
use super::prefetch;
use crate::error::Error;
use crate::geometry::Geometry;
use crate::layout::SampleHeader;

/// The slots of all producers of a topic, for values of `T`, or for byte strings (`[u8]`).
pub struct Samples<'m, T: ?Sized> {
    base: NonNull<u8>,
    count: u64,
    stride: u64,
    /// The distance of a payload from the start of its slot, in bytes.
    offset: u64,
    size: u64,
    #[cfg(loom)]
    headers: &'m [SampleHeader],
    #[cfg(loom)]
    shadow: Shadow<'m>,
    memory: PhantomData<&'m T>,
}

impl<T: ?Sized> Clone for Samples<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Samples<'_, T> {}

// SAFETY: `Samples` is an address; the protocol proves which role may touch which slot.
unsafe impl<T: Send + ?Sized> Send for Samples<'_, T> {}
// SAFETY: as above; it is only read.
unsafe impl<T: Sync + ?Sized> Sync for Samples<'_, T> {}

impl<'m, T: ?Sized> Samples<'m, T> {
    /// Makes the slots of a topic of this checked shape at `base`.
    ///
    /// # Safety
    /// - `base` is valid during `'m` for the data part of that geometry, all of it initialised, and aligned for a line and
    ///   for the payload.
    /// - If `T` is a value, its size and its alignment are those of the geometry's slots.
    pub unsafe fn new(
        base: NonNull<u8>,
        geometry: &Geometry,
        #[cfg(loom)] headers: &'m [SampleHeader],
        #[cfg(loom)] shadow: Shadow<'m>,
    ) -> Self {
        Samples {
            base,
            count: geometry.slots(),
            stride: geometry.stride(),
            offset: geometry.payload_offset(),
            size: geometry.slot_size,
            #[cfg(loom)]
            headers,
            #[cfg(loom)]
            shadow,
            memory: PhantomData,
        }
    }

    /// Returns the number of slots.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the size of the largest payload, in bytes.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the place of slot `index` in the data part, and the length up to the end of a payload of `len` bytes.
    pub(crate) fn extent(&self, index: u64, len: u64) -> (u64, u64) {
        (index * self.stride, self.offset + len)
    }

    /// Returns the distance from slot to slot, in bytes.
    pub(crate) fn stride(&self) -> u64 {
        self.stride
    }

    /// # Safety
    /// `index` is below the number of slots.
    #[inline]
    unsafe fn slot(&self, index: u64) -> NonNull<u8> {
        debug_assert!(index < self.count);
        // SAFETY: the caller's promise, and that of the caller of `new`.
        unsafe { self.base.add((index * self.stride) as usize) }
    }

    /// # Safety
    /// As for [`slot`](Self::slot).
    #[inline]
    unsafe fn payload(&self, index: u64) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        let slot = unsafe { self.slot(index) };
        // SAFETY: a slot reaches further than the offset of its payload.
        unsafe { slot.add(self.offset as usize) }
    }

    /// Returns the header of slot `index`.
    ///
    /// # Safety
    /// `index` is below the number of slots.
    #[inline]
    pub(crate) unsafe fn header(&self, index: u64) -> &'m SampleHeader {
        #[cfg(loom)]
        return &self.headers[index as usize];
        #[cfg(not(loom))]
        {
            // SAFETY: the caller's promise.
            let slot = unsafe { self.slot(index) };
            // SAFETY: a slot lies at a multiple of a line, and its header is made of atomics.
            unsafe { slot.cast::<SampleHeader>().as_ref() }
        }
    }

    /// Asks for the first lines of slot `index`, to be read soon. Does nothing if there is no such slot.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u64) {
        if index < self.count {
            // SAFETY: below the number of slots.
            prefetch::for_reading(unsafe { self.slot(index) });
        }
    }
}

impl<'m, T: Copy> Samples<'m, T> {
    /// Stores `value` in slot `index`.
    ///
    /// # Safety
    /// `index` is below the number of slots, and no other role touches that slot's payload now.
    #[inline]
    pub(crate) unsafe fn write(&self, index: u64, value: &T) {
        #[cfg(loom)]
        self.shadow[index as usize].with_mut(|_| ());
        // SAFETY: the caller's promise.
        let place = unsafe { self.payload(index) };
        // SAFETY: the caller of `new` promised the alignment and the size of a `T`.
        unsafe { place.cast::<T>().write(*value) };
    }
}

impl<'m> Samples<'m, [u8]> {
    /// Returns the first `len` bytes of the payload of slot `index`, for writing.
    ///
    /// # Safety
    /// `index` is below the number of slots and `len` at most the size of a payload. No other role touches that slot's
    /// payload during `'a`.
    #[inline]
    pub(crate) unsafe fn bytes_mut<'a>(&self, index: u64, len: usize) -> &'a mut [u8] {
        #[cfg(loom)]
        self.shadow[index as usize].with_mut(|_| ());
        // SAFETY: the caller's promise.
        let place = unsafe { self.payload(index) };
        // SAFETY: in bounds, and initialised; the caller excludes all others.
        unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), len) }
    }
}

/// The form of a topic's messages: values of one type, or byte strings (`[u8]`).
pub trait Form {
    /// Returns the number of slots that `amount` takes: so many values, or a string of so many bytes.
    ///
    /// Fails with `TooLarge` for a string that is longer than `size` bytes.
    fn slots_for(size: u64, amount: u64) -> Result<u64, Error>;

    /// Returns the bytes that each slot needs for that.
    fn bytes_for(size: u64, amount: u64) -> u64;

    /// Returns `true` if a payload may have this length.
    fn fits(size: u64, len: u64) -> bool;

    /// Returns the payload at `place`.
    ///
    /// # Safety
    /// `place` is valid for `len` initialised bytes, and aligned for a value; no other role writes them during `'a`.
    unsafe fn at<'a>(place: NonNull<u8>, len: usize) -> &'a Self;
}

impl<T: Copy> Form for T {
    #[inline]
    fn slots_for(_: u64, amount: u64) -> Result<u64, Error> {
        Ok(amount)
    }

    #[inline]
    fn bytes_for(size: u64, _: u64) -> u64 {
        size
    }

    #[inline]
    fn fits(size: u64, len: u64) -> bool {
        len == size
    }

    #[inline]
    unsafe fn at<'a>(place: NonNull<u8>, _: usize) -> &'a T {
        // SAFETY: the caller's promise.
        unsafe { place.cast::<T>().as_ref() }
    }
}

impl Form for [u8] {
    #[inline]
    fn slots_for(size: u64, amount: u64) -> Result<u64, Error> {
        let (asked, max) = (amount, size);
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        Ok(1)
    }

    #[inline]
    fn bytes_for(_: u64, amount: u64) -> u64 {
        amount
    }

    #[inline]
    fn fits(size: u64, len: u64) -> bool {
        len <= size
    }

    #[inline]
    unsafe fn at<'a>(place: NonNull<u8>, len: usize) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts(place.as_ptr(), len) }
    }
}

impl<T: Form + ?Sized> Samples<'_, T> {
    /// Returns the first `len` bytes of the payload of slot `index`, in place; of a value, all.
    ///
    /// # Safety
    /// `index` is below the number of slots, `len` fits, and no other role writes that payload during `'a`.
    #[inline]
    pub(crate) unsafe fn content<'a>(&self, index: u64, len: usize) -> &'a T {
        #[cfg(loom)]
        self.shadow[index as usize].with(|_| ());
        // SAFETY: the caller's promise, and that of the caller of `new`.
        let place = unsafe { self.payload(index) };
        // SAFETY: as above.
        unsafe { T::at(place, len) }
    }
}

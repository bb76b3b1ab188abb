//! From positions to payload bytes: the only arithmetic that turns a number into a pointer.
//!
//! A position counts from zero and never wraps; it is masked here, where it meets memory, so no
//! position, however wrong, can leave the data. Under loom each access is also shown to the model
//! through a *shadow*, one cell a slot (or a word), so that a missing ordering is a failed test.

mod back;
mod few;
mod large;
mod racing;
mod watched;

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) use back::HANDS_BACK;
pub(crate) use few::Few;
pub use racing::Racing;
pub use watched::Watched;

/// A loom cell for each unit of payload memory.
#[cfg(loom)]
pub type Shadow<'m> = &'m [loom::cell::UnsafeCell<()>];

/// The slots of a ring of `T`: a power of two of them, one after another.
pub struct Slots<'m, T> {
    base: NonNull<T>,
    mask: u64,
    #[cfg(loom)]
    shadow: Shadow<'m>,
    memory: PhantomData<&'m mut [T]>,
}

impl<T> Clone for Slots<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slots<'_, T> {}

// SAFETY: `Slots` is an address; which slot may be touched, and by whom, is the protocol's proof.
unsafe impl<T: Send> Send for Slots<'_, T> {}

impl<'m, T> Slots<'m, T> {
    /// # Safety
    /// `base` is aligned for `T` and valid for `capacity` values of `T` during `'m`, all of them
    /// initialised; `capacity` is a power of two.
    pub unsafe fn new(base: NonNull<T>, capacity: u64, #[cfg(loom)] shadow: Shadow<'m>) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Slots {
            base,
            mask: capacity - 1,
            #[cfg(loom)]
            shadow,
            memory: PhantomData,
        }
    }

    /// How many slots there are.
    #[inline]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    #[inline]
    fn at(&self, position: u64) -> NonNull<T> {
        let index = (position & self.mask) as usize;
        // SAFETY: index < capacity, and `new` was promised that many values behind `base`.
        unsafe { self.base.add(index) }
    }

    /// Asks for the first line of the slot of `position`, which will be read soon. A wish.
    #[inline]
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn prefetch(&self, position: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch of any address is allowed, and changes nothing that can be seen.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.at(position).as_ptr().cast()) };
        }
    }

    /// Stores `value` in the slot of `position`.
    ///
    /// # Safety
    /// No other role touches that slot now.
    #[inline]
    pub unsafe fn write(&self, position: u64, value: T) {
        self.touch_mut(position, 1);
        // SAFETY: the caller's promise.
        match unsafe { self.few(position) } {
            Some(few) => few.store(&value),
            // SAFETY: `at` is in bounds and aligned; the caller excludes all others.
            None => unsafe { self.at(position).write(value) },
        }
    }

    /// Copies the value out of the slot of `position`.
    ///
    /// # Safety
    /// No other role writes that slot now; a `T` has no padding, and every bit pattern is one.
    #[inline]
    pub unsafe fn read(&self, position: u64) -> T {
        self.touch(position, 1);
        // SAFETY: the caller's promise.
        match unsafe { self.few(position) } {
            // SAFETY: all of its words, and any bits are a `T`: the caller's promise.
            Some(few) => unsafe { few.load().assume_init() },
            // SAFETY: in bounds, aligned and initialised; the caller excludes writers.
            None => unsafe { self.at(position).read() },
        }
    }

    /// The slot of `position`, if a `T` is a few words.
    ///
    /// # Safety
    /// As for what is done with it: `write` or `read`.
    #[inline(always)]
    pub(crate) unsafe fn few(&self, position: u64) -> Option<Few<'m, T>> {
        // SAFETY: `new` was promised a valid `T` there, for so long, of which the caller excludes others.
        unsafe { Few::new(self.at(position)) }
    }

    /// The slot of `position`, in place.
    ///
    /// # Safety
    /// No other role writes that slot during `'a`.
    #[inline]
    pub unsafe fn get<'a>(&self, position: u64) -> &'a T {
        self.touch(position, 1);
        // SAFETY: `at` is in bounds and aligned; the caller excludes writers.
        unsafe { self.at(position).as_ref() }
    }

    /// `count` slots from `position` on, as two runs: up to the ring's end, and from its start.
    ///
    /// # Safety
    /// `count` is at most the capacity, and no other role writes those slots during `'a`.
    #[inline]
    pub unsafe fn slices<'a>(&self, position: u64, count: usize) -> (&'a [T], &'a [T]) {
        self.touch(position, count);
        let first = self.run(position, count);
        // SAFETY: `first` slots lie between this one and the end of the ring.
        let front = unsafe { core::slice::from_raw_parts(self.at(position).as_ptr(), first) };
        // SAFETY: the rest is fewer than `capacity`, from the start of the ring.
        let back = unsafe { core::slice::from_raw_parts(self.base.as_ptr(), count - first) };
        (front, back)
    }

    /// As [`slices`](Self::slices), for writing.
    ///
    /// # Safety
    /// `count` is at most the capacity, and nobody else touches those slots during `'a`.
    #[inline]
    pub unsafe fn slices_mut<'a>(&self, position: u64, count: usize) -> (&'a mut [T], &'a mut [T]) {
        self.touch_mut(position, count);
        let first = self.run(position, count);
        // SAFETY: `first` slots lie between this one and the end of the ring.
        let front = unsafe { core::slice::from_raw_parts_mut(self.at(position).as_ptr(), first) };
        // SAFETY: the rest lies before this slot (count <= capacity), so the two never overlap.
        let back = unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), count - first) };
        (front, back)
    }

    /// Stores into each line that ends within `count` slots from `position` on what is there.
    ///
    /// # Safety
    /// `count` is at most the capacity, no other role writes those slots now, and this one may.
    #[inline]
    pub(crate) unsafe fn hand_back(&self, position: u64, count: usize) {
        self.touch(position, count);
        let first = self.run(position, count);
        // SAFETY: `first` slots lie between this one and the end of the ring; the caller excludes who writes.
        unsafe { back::still(self.at(position).cast(), first * size_of::<T>()) };
        // SAFETY: the rest is fewer than `capacity`, from the start of the ring.
        unsafe { back::still(self.base.cast(), (count - first) * size_of::<T>()) };
    }

    /// How many of `count` slots come before the end of the ring.
    #[inline]
    fn run(&self, position: u64, count: usize) -> usize {
        debug_assert!(count as u64 <= self.capacity());
        count.min((self.capacity() - (position & self.mask)) as usize)
    }

    #[inline]
    fn touch(&self, _position: u64, _count: usize) {
        #[cfg(loom)]
        for i in 0.._count as u64 {
            self.shadow[((_position + i) & self.mask) as usize].with(|_| ());
        }
    }

    #[inline]
    fn touch_mut(&self, _position: u64, _count: usize) {
        #[cfg(loom)]
        for i in 0.._count as u64 {
            self.shadow[((_position + i) & self.mask) as usize].with_mut(|_| ());
        }
    }
}

/// The bytes of a `bytes` ring: `ring` bytes that positions go round in, and behind them a slack
/// of `largest` bytes that a record may run into.
#[derive(Clone, Copy)]
pub struct Area<'m> {
    base: NonNull<u8>,
    mask: u64,
    largest: u64,
    #[cfg(loom)]
    shadow: Shadow<'m>,
    memory: PhantomData<&'m mut [u8]>,
}

// SAFETY: `Area` is an address; which bytes may be touched, and by whom, is the protocol's proof.
unsafe impl Send for Area<'_> {}

impl<'m> Area<'m> {
    /// # Safety
    /// `base` is 8-byte aligned and valid for `ring + largest` initialised bytes during `'m`;
    /// `ring` is a power of two, `largest` a multiple of 8, both at least 8.
    pub unsafe fn new(
        base: NonNull<u8>,
        ring: u64,
        largest: u64,
        #[cfg(loom)] shadow: Shadow<'m>,
    ) -> Self {
        debug_assert!(ring.is_power_of_two());
        Area {
            base,
            mask: ring - 1,
            largest,
            #[cfg(loom)]
            shadow,
            memory: PhantomData,
        }
    }

    /// The bytes that positions go round in.
    #[inline]
    pub fn ring(&self) -> u64 {
        self.mask + 1
    }

    /// The most bytes that one record may take, its length word included.
    #[inline]
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// The largest payload of one record, in bytes.
    #[inline]
    pub fn largest_payload(&self) -> u64 {
        self.largest - 8
    }

    /// Where the record of `position` starts.
    #[inline]
    fn record(&self, position: u64) -> NonNull<u8> {
        let offset = (position & self.mask & !7) as usize;
        // SAFETY: offset < ring, and `new` was promised at least that many bytes behind `base`.
        unsafe { self.base.add(offset) }
    }

    /// The length word of the record at `position`: always `core`'s atomic, since the model sees it
    /// through the shadow.
    #[inline]
    fn word(&self, position: u64) -> &'m AtomicU64 {
        // SAFETY: `record` is in bounds by at least 8 bytes, 8-byte aligned, and only ever accessed
        // as such a word while it is a record's start (but for `back`, which is no access).
        unsafe { self.record(position).cast::<AtomicU64>().as_ref() }
    }

    /// Loads the length word of the record at `position`: once, whatever a peer does meanwhile.
    ///
    /// # Safety
    /// A record that was committed starts there, and is not released.
    #[inline]
    pub unsafe fn load(&self, position: u64) -> u64 {
        self.touch(position, 0, 8);
        self.word(position).load(Ordering::Relaxed)
    }

    /// Stores the length word of the record at `position`.
    ///
    /// # Safety
    /// No other role touches that record now: where a record starts now, payload may have been.
    #[inline]
    pub unsafe fn store(&self, position: u64, word: u64) {
        self.touch_mut(position, 0, 8);
        self.word(position).store(word, Ordering::Relaxed)
    }

    /// The first `len` payload bytes of the record at `position`.
    ///
    /// # Safety
    /// `len` is at most `largest - 8`, and no other role writes those bytes during `'a`.
    #[inline]
    pub unsafe fn payload<'a>(&self, position: u64, len: usize) -> &'a [u8] {
        self.touch(position, 8, len);
        debug_assert!(len as u64 + 8 <= self.largest);
        // SAFETY: a record starts below `ring` and takes at most `largest`: inside the area.
        unsafe { core::slice::from_raw_parts(self.record(position).as_ptr().wrapping_add(8), len) }
    }

    /// As [`payload`](Self::payload), for writing.
    ///
    /// # Safety
    /// `len` is at most `largest - 8`, and nobody else touches those bytes during `'a`.
    #[inline]
    pub unsafe fn payload_mut<'a>(&self, position: u64, len: usize) -> &'a mut [u8] {
        self.touch_mut(position, 8, len);
        debug_assert!(len as u64 + 8 <= self.largest);
        let first = self.record(position).as_ptr().wrapping_add(8);
        // SAFETY: a record starts below `ring` and takes at most `largest`: inside the area.
        unsafe { core::slice::from_raw_parts_mut(first, len) }
    }

    /// Stores into each line that ends within `size` bytes of records from `position` on what is there, up to the
    /// slack's end. (What of a batch begins at the ring's start again has to wait for the next time.)
    ///
    /// # Safety
    /// `size` is at most the ring, no other role writes at those positions now, and this one may.
    #[inline]
    pub(crate) unsafe fn hand_back(&self, position: u64, size: u64) {
        debug_assert!(size <= self.ring());
        let end = self.ring() + self.largest();
        let len = size.min(end - (position & self.mask)) as usize;
        self.touch(position, 0, len);
        // SAFETY: in one run up to the slack's end. While positions from before the ring's end on to behind it
        // are the caller's, so is the slack: the next record that reaches into it begins behind them.
        unsafe { back::still(self.record(position), len) };
    }

    #[inline]
    fn touch(&self, _position: u64, _skip: usize, _len: usize) {
        #[cfg(loom)]
        for cell in self.cells(_position, _skip, _len) {
            cell.with(|_| ());
        }
    }

    #[inline]
    fn touch_mut(&self, _position: u64, _skip: usize, _len: usize) {
        #[cfg(loom)]
        for cell in self.cells(_position, _skip, _len) {
            cell.with_mut(|_| ());
        }
    }

    /// The shadow's cells, one for each 8 bytes of ring *and* slack.
    #[cfg(loom)]
    fn cells(
        &self,
        position: u64,
        skip: usize,
        len: usize,
    ) -> impl Iterator<Item = &'m loom::cell::UnsafeCell<()>> {
        let first = ((position & self.mask) as usize + skip) / 8;
        self.shadow[first..first + len.div_ceil(8)].iter()
    }
}

//! Turns positions into payload addresses. It has the only arithmetic that makes a pointer from a
//! number.
//!
//! A position counts from zero and never wraps. It is masked here, where it meets memory, so even a
//! wrong position cannot leave the data. Under loom each access is also shown to the model through
//! a *shadow*, with one cell for each slot (or word). A missing ordering is then a failed test.

mod back;
mod byte_cells;
mod cells;
mod classes;
mod large;
pub(crate) mod prefetch;
mod racing;
mod samples;
mod small;
mod watched;

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) use back::TRANSFERS_LINES;
pub use byte_cells::ByteCells;
pub use cells::{Cells, Contents};
pub use classes::Classes;
pub(crate) use classes::{Fixed, RingMemory};
pub use racing::Racing;
pub use samples::{Form, Samples};
use small::Small;
pub(crate) use small::is_small;
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

// SAFETY: `Slots` is an address; the protocol proves which role may touch which slot.
unsafe impl<T: Send> Send for Slots<'_, T> {}

impl<'m, T> Slots<'m, T> {
    /// Makes the slots of a ring at `base`.
    ///
    /// # Safety
    /// `base` is aligned for `T` and valid for `capacity` values of `T` during `'m`, all of them
    /// initialised. `capacity` is a power of two.
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

    /// Returns the number of slots.
    #[inline]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    #[inline]
    fn at(&self, position: u64) -> NonNull<T> {
        let index = (position & self.mask) as usize;
        // SAFETY: index < capacity, and the caller of `new` promised that many values behind
        // `base`.
        unsafe { self.base.add(index) }
    }

    /// Prefetches a message some way behind `position`, which will be read soon. From `position` on, `known` slots are
    /// committed. Only a hint.
    ///
    /// It asks only for committed slots, so it never takes a line from the producer. Plain version: no prefetch. Then the lines
    /// of a message are missed only once it is read, and work on the message before keeps the processor from getting as
    /// far.
    #[inline(always)]
    pub(crate) fn prefetch_behind(&self, position: u64, known: u64) {
        let ahead = const { prefetch::slots_ahead(size_of::<T>()) };
        if known > ahead {
            prefetch::message(self.at(position + ahead).cast(), size_of::<T>());
        }
    }

    /// Prefetches the slot of `position`, which is written next, if it is a line at most. Only a hint.
    ///
    /// A reader that waits calls this at each poll. The slot's line then comes together with the tail's. Plain version:
    /// the slot is loaded once the tail has come, and a round trip waits for one line after another. A larger message
    /// takes its writer some time, and loses the lines that a reader asks for meanwhile.
    #[inline(always)]
    pub(crate) fn prefetch_awaited(&self, position: u64) {
        if size_of::<T>() <= back::LINE {
            prefetch::for_reading(self.at(position));
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
        match unsafe { self.small(position) } {
            Some(few) => few.store(&value),
            // SAFETY: `at` is in bounds and aligned; the caller excludes all others.
            None => unsafe { self.at(position).write(value) },
        }
    }

    /// Copies the value out of the slot of `position`.
    ///
    /// # Safety
    /// No other role writes that slot now. A `T` has no padding, and every bit pattern is a valid
    /// `T`.
    #[inline]
    pub unsafe fn read(&self, position: u64) -> T {
        self.touch(position, 1);
        // SAFETY: the caller's promise.
        match unsafe { self.small(position) } {
            // SAFETY: `load` reads all of its words, and any bits are a `T`: the caller's promise.
            Some(few) => unsafe { few.load().assume_init() },
            // SAFETY: it is in bounds, aligned and initialised; the caller excludes writers.
            None => unsafe { small::read(self.at(position)) },
        }
    }

    /// Returns the slot of `position`, if a `T` is a few words.
    ///
    /// # Safety
    /// As for the `write` or the `read` that the caller does with it.
    #[inline(always)]
    unsafe fn small(&self, position: u64) -> Option<Small<'m, T>> {
        // SAFETY: the caller of `new` promised a valid `T` there for `'m`; this caller excludes
        // other roles.
        unsafe { Small::new(self.at(position)) }
    }

    /// Returns the slot of `position`, in place.
    ///
    /// # Safety
    /// No other role writes that slot during `'a`.
    #[inline]
    pub unsafe fn get<'a>(&self, position: u64) -> &'a T {
        self.touch(position, 1);
        // SAFETY: `at` is in bounds and aligned; the caller excludes writers.
        unsafe { self.at(position).as_ref() }
    }

    /// Returns `count` slots from `position` on, as two runs: up to the ring's end, and from its
    /// start.
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

    /// Returns the same slots as [`slices`](Self::slices), for writing.
    ///
    /// # Safety
    /// `count` is at most the capacity, and no other role touches those slots during `'a`.
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

    /// Transfers the lines that end within `count` slots from `position` on, by storing into each
    /// line the value that is there.
    ///
    /// # Safety
    /// `count` is at most the capacity. No other role writes those slots now, and this role may
    /// write them.
    #[inline]
    pub(crate) unsafe fn transfer_lines(&self, position: u64, count: usize) {
        self.touch(position, count);
        let first = self.run(position, count);
        // SAFETY: `first` slots lie between this one and the end of the ring; the caller excludes
        // writers.
        unsafe { back::touch_lines(self.at(position).cast(), first * size_of::<T>()) };
        // SAFETY: the rest is fewer than `capacity`, from the start of the ring.
        unsafe { back::touch_lines(self.base.cast(), (count - first) * size_of::<T>()) };
    }

    /// Returns the number of the `count` slots that come before the end of the ring.
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

/// The bytes of a `bytes` ring: the `ring` bytes that positions count round, and behind them the
/// slack.
///
/// The slack has `largest` bytes, which a record may run into.
#[derive(Clone, Copy)]
pub struct ByteRing<'m> {
    base: NonNull<u8>,
    mask: u64,
    largest: u64,
    #[cfg(loom)]
    shadow: Shadow<'m>,
    memory: PhantomData<&'m mut [u8]>,
}

// SAFETY: `ByteRing` is an address; the protocol proves which role may touch which bytes.
unsafe impl Send for ByteRing<'_> {}

impl<'m> ByteRing<'m> {
    /// Makes the bytes of a ring and its slack at `base`.
    ///
    /// # Safety
    /// `base` is 8-byte aligned and valid for `ring + largest` initialised bytes during `'m`.
    /// `ring` is a power of two, `largest` a multiple of 8, and both are at least 8.
    pub unsafe fn new(
        base: NonNull<u8>,
        ring: u64,
        largest: u64,
        #[cfg(loom)] shadow: Shadow<'m>,
    ) -> Self {
        debug_assert!(ring.is_power_of_two());
        ByteRing {
            base,
            mask: ring - 1,
            largest,
            #[cfg(loom)]
            shadow,
            memory: PhantomData,
        }
    }

    /// Returns the size of the ring without its slack, in bytes.
    #[inline]
    pub fn ring(&self) -> u64 {
        self.mask + 1
    }

    /// Returns the most bytes that one record may take, its length word included.
    #[inline]
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Returns the largest payload of one record, in bytes.
    #[inline]
    pub fn largest_payload(&self) -> u64 {
        self.largest - 8
    }

    /// Returns the start of the record of `position`.
    #[inline]
    fn record(&self, position: u64) -> NonNull<u8> {
        let offset = (position & self.mask & !7) as usize;
        // SAFETY: offset < ring, and the caller of `new` promised at least that many bytes behind
        // `base`.
        unsafe { self.base.add(offset) }
    }

    /// Prefetches what lies some way behind the record of `len` bytes at `position`, and will be read soon. From `position`
    /// on, `known` bytes are committed. Only a hint.
    #[inline(always)]
    pub(crate) fn prefetch_behind(&self, position: u64, len: usize, known: u64) {
        let ahead = (prefetch::DISTANCE as u64).max(len as u64);
        if known > ahead {
            prefetch::message(self.record(position + ahead), len);
        }
    }

    /// Prefetches the start of the record of `position`, which is written next. Only a hint; see
    /// [`Slots::prefetch_awaited`].
    #[inline(always)]
    pub(crate) fn prefetch_awaited(&self, position: u64) {
        prefetch::for_reading(self.record(position));
    }

    /// Returns the length word of the record at `position`.
    ///
    /// It is always `core`'s atomic, since the model sees it through the shadow.
    #[inline]
    fn word(&self, position: u64) -> &'m AtomicU64 {
        // SAFETY: `record` is in bounds by at least 8 bytes and 8-byte aligned. While it is a
        // record's start it is only accessed as such a word. (What `back` does is no access.)
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
    /// No other role touches that record now. Payload may have lain where a record starts now.
    #[inline]
    pub unsafe fn store(&self, position: u64, word: u64) {
        self.touch_mut(position, 0, 8);
        self.word(position).store(word, Ordering::Relaxed)
    }

    /// Returns the first `len` payload bytes of the record at `position`.
    ///
    /// # Safety
    /// `len` is at most `largest - 8`, and no other role writes those bytes during `'a`.
    #[inline]
    pub unsafe fn payload<'a>(&self, position: u64, len: usize) -> &'a [u8] {
        self.touch(position, 8, len);
        debug_assert!(len as u64 + 8 <= self.largest);
        // SAFETY: a record starts below `ring` and takes at most `largest`, so it lies inside ring
        // and slack.
        unsafe { core::slice::from_raw_parts(self.record(position).as_ptr().wrapping_add(8), len) }
    }

    /// Returns the same bytes as [`payload`](Self::payload), for writing.
    ///
    /// # Safety
    /// `len` is at most `largest - 8`, and no other role touches those bytes during `'a`.
    #[inline]
    pub unsafe fn payload_mut<'a>(&self, position: u64, len: usize) -> &'a mut [u8] {
        self.touch_mut(position, 8, len);
        debug_assert!(len as u64 + 8 <= self.largest);
        let first = self.record(position).as_ptr().wrapping_add(8);
        // SAFETY: a record starts below `ring` and takes at most `largest`, so it lies inside ring
        // and slack.
        unsafe { core::slice::from_raw_parts_mut(first, len) }
    }

    /// Transfers the lines that end within `size` bytes of records from `position` on, up to the
    /// slack's end.
    ///
    /// It stores into each line the value that is there. The part of a batch that begins at the
    /// ring's start again has to wait for the next time.
    ///
    /// # Safety
    /// `size` is at most the ring. No other role writes at those positions now, and this role may.
    #[inline]
    pub(crate) unsafe fn transfer_lines(&self, position: u64, size: u64) {
        debug_assert!(size <= self.ring());
        let end = self.ring() + self.largest();
        let len = size.min(end - (position & self.mask)) as usize;
        self.touch(position, 0, len);
        // SAFETY: the bytes are one run up to the slack's end. While the caller has the positions
        // from before the ring's end to behind it, it has the slack too: the next record that
        // reaches into the slack begins behind them.
        unsafe { back::touch_lines(self.record(position), len) };
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

    /// Returns the shadow's cells, one for each 8 bytes of ring *and* slack.
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

//! Defines the two modes of a `broadcast` channel, as types. The mode says what the producer does
//! when the ring is full.
//!
//! | mode | a full ring | slots | read in place |
//! |---|---|---|---|
//! | [`Waiting`] | the producer waits for the slowest consumer | [`Slots`], plain memory | yes |
//! | [`Overwriting`] | the producer overwrites the oldest messages | [`Racing`], atomic words | no |
//!
//! Both ends have the mode in their type, so each has the code of one mode only. A consumer of an
//! overwriting channel does not implement [`Hold`](crate::guard::Hold): a message that it refers
//! to would change under it. The header has the mode as a number ([`WhenFull`]). Programs that open
//! a channel compare it, and bystanders read it.

use core::mem::MaybeUninit;
#[cfg(not(loom))]
use core::ptr::NonNull;

use crate::end::sealed::Sealed;
use crate::layout::WhenFull;
use crate::mem::{Racing, Slots};
use crate::payload::Payload;

/// The way of the producer of a `broadcast` channel when the ring is full: [`Waiting`] or
/// [`Overwriting`]. The trait is sealed: there are these two.
pub trait Mode: Sealed + 'static {
    /// The mode as it stands in the header.
    const WHEN_FULL: WhenFull;

    /// `true` if the producer overwrites what consumers have not read.
    #[doc(hidden)]
    const OVERWRITES: bool = matches!(Self::WHEN_FULL, WhenFull::Overwrite);

    /// The slots of a channel.
    #[doc(hidden)]
    type Slots<'m, T: Payload>: Store<T> + Send;

    /// Makes the slots in a channel's data part.
    ///
    /// # Safety
    /// - `data` is valid during `'m` for `capacity` slots as `Geometry::stride` spaces them, all
    ///   initialised, and aligned for a `T` and for words. `capacity` is a power of two.
    /// - Only the ends of that channel access them, and watchers.
    #[doc(hidden)]
    #[cfg(not(loom))]
    unsafe fn slots<'m, T: Payload>(data: NonNull<u8>, capacity: u64) -> Self::Slots<'m, T>;
}

/// The producer waits for the slowest consumer, so no message is lost. This is the default.
#[derive(Clone, Copy, Debug)]
pub enum Waiting {}

/// The producer overwrites the oldest messages and never waits. A slow consumer learns what it
/// lost.
#[derive(Clone, Copy, Debug)]
pub enum Overwriting {}

impl Sealed for Waiting {}
impl Sealed for Overwriting {}

impl Mode for Waiting {
    const WHEN_FULL: WhenFull = WhenFull::Wait;
    type Slots<'m, T: Payload> = Slots<'m, T>;

    #[cfg(not(loom))]
    unsafe fn slots<'m, T: Payload>(data: NonNull<u8>, capacity: u64) -> Slots<'m, T> {
        // SAFETY: the caller's promise.
        unsafe { Slots::new(data.cast(), capacity) }
    }
}

impl Mode for Overwriting {
    const WHEN_FULL: WhenFull = WhenFull::Overwrite;
    type Slots<'m, T: Payload> = Racing<'m, T>;

    #[cfg(not(loom))]
    unsafe fn slots<'m, T: Payload>(data: NonNull<u8>, capacity: u64) -> Racing<'m, T> {
        // SAFETY: the caller's promise; a payload has no padding.
        unsafe { Racing::at(data.cast(), capacity) }
    }
}

/// The slots of a channel, of either mode.
///
/// A *plain* slot is one of a channel that waits. A role that may read it excludes one that may
/// write it.
pub trait Store<T>: Copy {
    /// Returns the number of slots.
    fn capacity(&self) -> u64;

    /// Copies `value` to the slot of the message at `position`.
    ///
    /// # Safety
    /// No other role writes there now. If the slots are plain, no other role reads there either.
    unsafe fn write(&self, position: u64, value: &T);

    /// Copies `values` to the slots from `position` on.
    ///
    /// # Safety
    /// As for [`write`](Self::write), for each of them. There are at most as many as slots.
    unsafe fn write_all(&self, position: u64, values: &[T]);

    /// Copies the message of `position` to `value`, all of its bytes. They are garbage if the slot
    /// is written meanwhile.
    ///
    /// # Safety
    /// If the slots are plain, no role writes there now.
    unsafe fn read(&self, position: u64, value: &mut MaybeUninit<T>);

    /// Copies every `stride`th message from `position` on to `out`, which they fill.
    ///
    /// # Safety
    /// As for [`read`](Self::read), for each of them. If `stride` is 1, there are at most as many
    /// as slots.
    unsafe fn read_every(&self, position: u64, stride: u64, out: &mut [T]);

    /// Prefetches a message some way behind `position`, which will be read soon, if that pays. From `position` on, `known`
    /// slots are committed.
    fn prefetch(&self, position: u64, known: u64);

    /// Prefetches the slot of `position`, which is written next, if that pays.
    fn prefetch_awaited(&self, position: u64);

    /// Transfers the lines of `count` messages, every `stride`th from `position` on, back to the
    /// producer; see `line_transfer.rs`.
    ///
    /// # Safety
    /// The messages were read, and not released yet. This end may write the slots, and not only
    /// read them.
    unsafe fn transfer_every(&self, position: u64, stride: u64, count: u64);
}

impl<T: Payload> Store<T> for Slots<'_, T> {
    #[inline]
    fn capacity(&self) -> u64 {
        Slots::capacity(self)
    }

    #[inline(always)]
    unsafe fn write(&self, position: u64, value: &T) {
        // SAFETY: the caller's promise.
        unsafe { Slots::write(self, position, *value) };
    }

    #[inline]
    unsafe fn write_all(&self, position: u64, values: &[T]) {
        // SAFETY: the caller's promise.
        let (front, back) = unsafe { self.slices_mut(position, values.len()) };
        let (first, rest) = values.split_at(front.len());
        front.copy_from_slice(first);
        back.copy_from_slice(rest);
    }

    #[inline(always)]
    unsafe fn read(&self, position: u64, value: &mut MaybeUninit<T>) {
        // SAFETY: the caller's promise; any bytes are a payload.
        value.write(unsafe { Slots::read(self, position) });
    }

    #[inline]
    unsafe fn read_every(&self, position: u64, stride: u64, out: &mut [T]) {
        if stride == 1 {
            // SAFETY: the caller's promise.
            let (front, back) = unsafe { self.slices(position, out.len()) };
            let (first, rest) = out.split_at_mut(front.len());
            first.copy_from_slice(front);
            rest.copy_from_slice(back);
        } else {
            // SAFETY: the caller's promise.
            unsafe { read_each(self, position, stride, out) };
        }
    }

    #[inline(always)]
    fn prefetch(&self, position: u64, known: u64) {
        self.prefetch_behind(position, known);
    }

    #[inline(always)]
    fn prefetch_awaited(&self, position: u64) {
        Slots::prefetch_awaited(self, position);
    }

    #[inline]
    unsafe fn transfer_every(&self, position: u64, stride: u64, count: u64) {
        if stride == 1 && size_of::<T>() <= 64 {
            // SAFETY: the caller's promise; the producer does not write there until we release it.
            unsafe { self.transfer_lines(position, count as usize) };
        } else {
            // SAFETY: as above.
            unsafe { transfer_each(self, position, stride, count) };
        }
    }
}

/// Transfers the lines of one message at a time, outside of the fast path's code. Beside the copy of
/// a larger message, the call costs nothing.
///
/// # Safety
/// As for [`Store::transfer_every`].
#[cold]
#[inline(never)]
unsafe fn transfer_each<T>(slots: &Slots<'_, T>, position: u64, stride: u64, count: u64) {
    for i in 0..count {
        // SAFETY: the caller's promise.
        unsafe { slots.transfer_lines(position + i * stride, 1) };
    }
}

impl<T: Payload> Store<T> for Racing<'_, T> {
    #[inline]
    fn capacity(&self) -> u64 {
        Racing::capacity(self)
    }

    #[inline(always)]
    unsafe fn write(&self, position: u64, value: &T) {
        self.store(position, value);
    }

    #[inline]
    unsafe fn write_all(&self, position: u64, values: &[T]) {
        for (value, i) in values.iter().zip(0..) {
            self.store(position + i, value);
        }
    }

    #[inline(always)]
    unsafe fn read(&self, position: u64, value: &mut MaybeUninit<T>) {
        self.load(position, value);
    }

    #[inline]
    unsafe fn read_every(&self, position: u64, stride: u64, out: &mut [T]) {
        // SAFETY: the caller's promise.
        unsafe { read_each(self, position, stride, out) };
    }

    /// Does nothing: a consumer of an overwriting channel may never get as far.
    #[inline(always)]
    fn prefetch(&self, _: u64, _: u64) {}

    #[inline(always)]
    fn prefetch_awaited(&self, position: u64) {
        Racing::prefetch_awaited(self, position);
    }

    #[inline]
    unsafe fn transfer_every(&self, position: u64, stride: u64, count: u64) {
        for i in 0..count {
            // SAFETY: the caller's promise.
            unsafe { self.transfer_lines(position + i * stride) };
        }
    }
}

/// Reads one message at a time.
///
/// # Safety
/// As for [`Store::read_every`].
#[inline]
unsafe fn read_each<T: Payload>(slots: &impl Store<T>, position: u64, stride: u64, out: &mut [T]) {
    for (place, i) in out.iter_mut().zip(0..) {
        let place = core::ptr::from_mut(place).cast::<MaybeUninit<T>>();
        // SAFETY: a `T` is a `MaybeUninit` of it. `read` writes only whole bytes into it, and any
        // bytes are a `T`.
        let place = unsafe { &mut *place };
        // SAFETY: the caller's promise.
        unsafe { slots.read(position + i * stride, place) };
    }
}

//! Asks for lines ahead of their use. Only hints: any address is allowed, and nothing changes that can be seen.

use core::ptr::NonNull;

use super::back::LINE;

/// The distance, in bytes, from a reader to the message that it prefetches. A processor fetches some ten lines at once, and
/// this is several times as much.
pub(crate) const DISTANCE: usize = 4096;
/// The most slots from a reader to the one that it prefetches: small messages arrive a few lines at a time.
const MOST_SLOTS: usize = 32;
/// The most lines of a message that are prefetched. The processor itself goes on with the rest, once it sees that they are
/// read in order.
const MOST_LINES: usize = 16;

/// Returns the number of slots of `size` bytes from a reader to the one that it prefetches: at least 1.
pub(crate) const fn slots_ahead(size: usize) -> u64 {
    match DISTANCE.checked_div(size) {
        Some(0) => 1,
        Some(slots) if slots < MOST_SLOTS => slots as u64,
        _ => MOST_SLOTS as u64,
    }
}

/// Asks for the first lines of the `len` bytes at `start`, to be read soon.
#[inline(always)]
pub(crate) fn message(start: NonNull<u8>, len: usize) {
    let mut byte = 0;
    let len = len.min(MOST_LINES * LINE);
    while byte < len {
        // Only an address: it need not lie in what is there.
        for_reading(NonNull::new(start.as_ptr().wrapping_add(byte)).unwrap_or(start));
        byte += LINE;
    }
}

/// Asks for the line at `place`, to be read soon.
#[inline(always)]
#[cfg_attr(not(all(target_arch = "x86_64", not(loom))), expect(unused_variables))]
pub(crate) fn for_reading<T>(place: NonNull<T>) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address is allowed, and changes nothing that can be seen.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.as_ptr().cast()) };
    }
}

/// Asks for the line at `place`, to be written soon: other processors lose their copies of it.
#[inline(always)]
#[cfg_attr(not(all(target_arch = "x86_64", not(loom))), expect(unused_variables))]
pub(crate) fn for_writing<T>(place: NonNull<T>) {
    // In assembly: the intrinsic becomes a prefetch for reading unless the build names a processor that has this one.
    // Processors that lack it take it for a `nop`.
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prefetchw byte ptr [{place}]", place = in(reg) place.as_ptr(), options(nostack, preserves_flags, readonly));
    }
}

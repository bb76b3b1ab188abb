//! Asks for lines ahead of their use. Only hints: any address is allowed, and nothing changes that can be seen.

use core::ptr::NonNull;

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

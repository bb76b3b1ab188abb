//! Mappings: the only calls of `mmap` for channel memory, and how they are made safe to touch.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use super::limits::{has_room_for_holes, refuse_absurd};
use crate::pages::HugePages;
use crate::setup_error::SetupError;

/// The size of a transparent huge page, in bytes.
const HUGE: usize = 2 << 20;

/// A mapped range of memory. Dropping it unmaps it, unless it is the caller's.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    owned: bool,
}

// SAFETY: an address range; its users are responsible for what they do in it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Returns a mapping of the caller's memory, which drop leaves alone.
    pub(crate) fn borrowed(memory: NonNull<[u8]>) -> Mapping {
        Mapping {
            base: memory.cast(),
            len: memory.len(),
            owned: false,
        }
    }

    /// Maps fresh private memory, zeroed.
    pub(crate) fn private(len: usize, huge: HugePages) -> Result<Mapping, Errno> {
        let flags = MapFlags::PRIVATE | huge.map_flags();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice harms no other code.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, protection, flags) }?;
        Ok(Mapping::owned(base, len))
    }

    /// Maps fresh private memory, zeroed, whose pages come one by one.
    pub(crate) fn reserved(len: usize, huge: HugePages) -> Result<Mapping, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | huge.map_flags();
        let none = ProtFlags::empty();
        // SAFETY: as in `private`.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, none, flags) }?;
        Mapping::owned(base, len).sparse(true)
    }

    /// Maps the first `len` bytes of a file, shared.
    pub(crate) fn shared(
        file: BorrowedFd<'_>,
        len: usize,
        writable: bool,
    ) -> Result<Mapping, Errno> {
        Mapping::of_file(file, len, protection(writable), MapFlags::SHARED)
    }

    /// Maps the first `len` bytes of a file, shared, whose pages come one by one.
    pub(super) fn shared_sparse(
        file: BorrowedFd<'_>,
        len: usize,
        writable: bool,
    ) -> Result<Mapping, Errno> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        Mapping::of_file(file, len, ProtFlags::empty(), flags)?.sparse(writable)
    }

    fn of_file(
        file: BorrowedFd<'_>,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> Result<Mapping, Errno> {
        // SAFETY: a fresh mapping at an address of the kernel's choice. The file may change under
        // it; this whole crate deals with that by atomics and checked copies.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, file, 0) }?;
        Ok(Mapping::owned(base, len))
    }

    /// Makes a mapping accessible that was made without access, so that its pages come one by one.
    ///
    /// A program that locks all its memory (`mlockall` with `MCL_FUTURE`) would back the whole of it, at the call of `mmap`. So it is
    /// mapped without access, unlocked, and made accessible then. A core dump would read all of it, and is told not to.
    fn sparse(self, writable: bool) -> Result<Mapping, Errno> {
        let base = self.base.as_ptr().cast();
        // SAFETY: the whole of a mapping of ours.
        let _ = unsafe { rustix::mm::munlock(base, self.len) };
        let access = match writable {
            true => MprotectFlags::READ | MprotectFlags::WRITE,
            false => MprotectFlags::READ,
        };
        // SAFETY: as above; no code uses it yet.
        unsafe { rustix::mm::mprotect(base, self.len, access) }?;
        // SAFETY: as above; advice changes no content.
        let _ = unsafe { rustix::mm::madvise(base, self.len, Advice::LinuxDontDump) };
        Ok(self)
    }

    fn owned(base: *mut std::ffi::c_void, len: usize) -> Mapping {
        // mmap never returns null without MAP_FIXED.
        Mapping {
            base: NonNull::new(base.cast()).unwrap_or(NonNull::dangling()),
            len,
            owned: true,
        }
    }

    /// Gives back the whole pages of a part: they are backed anew when they are touched, and hold zeros then. `file` says
    /// that the mapping is a file's. Best effort.
    pub(super) fn give_back(&self, part: Range<usize>, file: bool) {
        let page = rustix::param::page_size();
        let start = part.start.next_multiple_of(page);
        let end = part.end.min(self.len) / page * page;
        if start >= end {
            return;
        }
        let advice = match file {
            true => Advice::LinuxRemove,
            false => Advice::LinuxDontNeed,
        };
        // SAFETY: `start` lies in the mapping.
        let at = unsafe { self.base.add(start) };
        // SAFETY: whole pages of a mapping of ours, whose contents the caller gives up.
        let _ = unsafe { rustix::mm::madvise(at.as_ptr().cast(), end - start, advice) };
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Asks for transparent huge pages where a mapping is large enough to gain by them. Only a
    /// hint.
    pub(crate) fn wish_huge(&self) {
        if self.len >= HUGE {
            self.advise_huge(0..self.len);
        }
    }

    /// Asks for the same in a part: in the huge pages that lie wholly within it.
    pub(super) fn wish_huge_within(&self, part: Range<usize>) {
        self.advise_huge(part.start.next_multiple_of(HUGE)..part.end.min(self.len) / HUGE * HUGE);
    }

    fn advise_huge(&self, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        // SAFETY: `part` lies in the mapping.
        let at = unsafe { self.base.add(part.start) };
        let (at, len) = (at.as_ptr().cast(), part.end - part.start);
        // SAFETY: advice on a mapping of ours changes no content.
        let _ = unsafe { rustix::mm::madvise(at, len, Advice::LinuxHugepage) };
    }

    /// Backs every page now. A missing page (a truncated file, a full file system) is an error
    /// here, and never a signal later.
    pub(crate) fn populate(&self, writable: bool) -> Result<(), Errno> {
        self.populate_range(0..self.len, writable)
    }

    /// Backs every page of a part, which begins at a page, for writing. Fails with `INVAL` on Linux before 5.14, which cannot
    /// say whether there is memory.
    pub(super) fn back_range(&self, part: Range<usize>) -> Result<(), Errno> {
        self.advise_populating(part, Advice::LinuxPopulateWrite)
    }

    /// Like [`populate`](Self::populate), for a part of it, which begins at a page.
    pub(super) fn populate_range(&self, part: Range<usize>, writable: bool) -> Result<(), Errno> {
        let advice = if writable {
            Advice::LinuxPopulateWrite
        } else {
            Advice::LinuxPopulateRead
        };
        match self.advise_populating(part, advice) {
            // Linux before 5.14 does not know the advice; the pages then come one by one.
            Err(Errno::INVAL) => Ok(()),
            other => other,
        }
    }

    fn advise_populating(&self, part: Range<usize>, advice: Advice) -> Result<(), Errno> {
        let (start, end) = (part.start.min(self.len), part.end.min(self.len));
        if start == end {
            return Ok(());
        }
        loop {
            // SAFETY: `start` lies in the mapping, or just behind it.
            let at = unsafe { self.base.add(start) };
            // SAFETY: populating a mapping of ours changes no content.
            match unsafe { rustix::mm::madvise(at.as_ptr().cast(), end - start, advice) } {
                Err(Errno::INTR | Errno::AGAIN) => {}
                other => return other,
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: the whole of a mapping that we made and that no code uses any more.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

fn protection(writable: bool) -> ProtFlags {
    match writable {
        true => ProtFlags::READ | ProtFlags::WRITE,
        false => ProtFlags::READ,
    }
}

/// Returns the length of a channel's file, in bytes.
pub(crate) fn file_len(file: &OwnedFd, shown: &Path) -> Result<usize, SetupError> {
    match rustix::fs::fstat(file) {
        Ok(stat) => Ok(stat.st_size as usize),
        Err(errno) => Err(SetupError::os(
            format_args!("look at {}", shown.display()),
            errno,
        )),
    }
}

/// Refuses a channel whose two parts are one file: its payloads would overwrite the header.
pub(super) fn refuse_one_file(
    control: &OwnedFd,
    data: &OwnedFd,
    shown: &Path,
) -> Result<(), SetupError> {
    let look = |file: &OwnedFd| {
        rustix::fs::fstat(file)
            .map_err(|errno| SetupError::os(format_args!("look at {}", shown.display()), errno))
    };
    let (control, data) = (look(control)?, look(data)?);
    if (control.st_dev, control.st_ino) == (data.st_dev, data.st_ino) {
        return Err(SetupError::BadDescriptor {
            part: "data",
            found: "the same file as the control part".into(),
            expected: "a file of its own",
        });
    }
    Ok(())
}

/// Maps the first `len` bytes of an existing file, whose pages come one by one.
pub(crate) fn existing_sparse(
    file: &OwnedFd,
    len: usize,
    writable: bool,
    shown: &Path,
) -> Result<Mapping, SetupError> {
    let fail = |errno| SetupError::space(shown.display(), len as u64, errno);
    Mapping::shared_sparse(file.as_fd(), len, writable).map_err(fail)
}

/// Maps the first `len` bytes of an existing file, with every page backed.
pub(crate) fn existing(
    file: &OwnedFd,
    len: usize,
    writable: bool,
    shown: &Path,
) -> Result<Mapping, SetupError> {
    let fail = |errno| SetupError::space(shown.display(), len as u64, errno);
    if len == 0 {
        let expected = slipring_core::layout::PAGE as u64;
        return Err(SetupError::Truncated {
            part: "control",
            found: 0,
            expected,
        });
    }
    refuse_absurd(len).map_err(fail)?;
    let holes = || {
        let what = format!(
            "{} was cut short, or has holes that find no space",
            shown.display()
        );
        SetupError::NoSpace {
            needed: len as u64,
            what: what.into(),
        }
    };
    // Check first, before we take space that other programs need.
    if !has_room_for_holes(file.as_fd(), len) {
        return Err(holes());
    }
    let mapping = Mapping::shared(file.as_fd(), len, writable).map_err(fail)?;
    mapping.wish_huge();
    mapping.populate(writable).map_err(|errno| match errno {
        Errno::FAULT => holes(),
        errno => fail(errno),
    })?;
    Ok(mapping)
}

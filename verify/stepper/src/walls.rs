//! Puts memory between inaccessible pages: a process that reads or writes a byte beyond a channel's
//! parts ends by SIGSEGV.
//!
//! ```text
//!         wall   pages of a memfd   wall
//! Front   ####|part............   |####     the first byte is the first of a page
//! Back    ####|   ............part|####     the last byte is the last of a page
//! ```
//!
//! A part need not fill its pages, so each placement is exact at one end; both are used in turn.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use slipring::Borrowed;
use slipring_core::layout::PAGE;

/// The end of a part that touches a wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    Front,
    Back,
}

impl Flush {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flush::Front => "front",
            Flush::Back => "back",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Flush> {
        [Flush::Front, Flush::Back]
            .into_iter()
            .find(|flush| flush.name() == name)
    }
}

/// The two parts of a channel, each between two walls. They are mapped for as long as the program
/// runs.
pub(crate) struct Walled {
    pub(crate) parts: [NonNull<[u8]>; 2],
    pub(crate) files: [OwnedFd; 2],
}

impl Walled {
    /// Returns zeroed memory for parts of these lengths.
    pub(crate) fn new(lens: [usize; 2], flush: Flush) -> Result<Walled, String> {
        let file = |len: usize| -> rustix::io::Result<OwnedFd> {
            let file = rustix::fs::memfd_create("walled", MemfdFlags::CLOEXEC)?;
            rustix::fs::ftruncate(&file, len.next_multiple_of(PAGE) as u64)?;
            Ok(file)
        };
        let files = (file(lens[0]), file(lens[1]));
        match files {
            (Ok(control), Ok(data)) => Walled::open([control, data], lens, flush),
            _ => Err("no memory between walls".into()),
        }
    }

    /// Maps the memory in these files, which `new` made.
    pub(crate) fn open(
        files: [OwnedFd; 2],
        lens: [usize; 2],
        flush: Flush,
    ) -> Result<Walled, String> {
        let map = |file, len| {
            map(file, len, flush).map_err(|errno| format!("map between walls: {errno}"))
        };
        let parts = [map(&files[0], lens[0])?, map(&files[1], lens[1])?];
        Ok(Walled { parts, files })
    }

    pub(crate) fn borrowed(&self) -> Borrowed {
        let [control, data] = self.parts;
        Borrowed { control, data }
    }
}

fn map(file: &OwnedFd, len: usize, flush: Flush) -> rustix::io::Result<NonNull<[u8]>> {
    let pages = len.next_multiple_of(PAGE);
    let nowhere = std::ptr::null_mut();
    let (none, all) = (ProtFlags::empty(), pages + 2 * PAGE);
    // SAFETY: fresh address space at a place of the kernel's choice, never unmapped.
    let wall = unsafe { rustix::mm::mmap_anonymous(nowhere, all, none, MapFlags::PRIVATE) }?;
    let inside = wall.wrapping_byte_add(PAGE);
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: in the middle of what was just reserved, with a page of it left on either side.
    let base = unsafe { rustix::mm::mmap(inside, pages, access, flags, file.as_fd(), 0) }?;
    let at = match flush {
        Flush::Front => 0,
        // Data may begin only at a multiple of 64. Another length ends that much before the wall.
        Flush::Back => pages - len.next_multiple_of(64),
    };
    let part = NonNull::new(base.cast::<u8>().wrapping_add(at)).unwrap_or(NonNull::dangling());
    Ok(NonNull::slice_from_raw_parts(part, len))
}

//! Copies the content of a channel's memory at one instant.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::walls::Walled;

/// The two parts of a channel, mapped beside the processes that work in them.
pub(crate) struct Window {
    parts: [NonNull<[u8]>; 2],
    /// `true` if the mappings are the window's own.
    owned: bool,
}

/// A copy of both parts.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Image {
    parts: [Vec<u8>; 2],
}

impl Window {
    /// Maps the files behind the first two descriptors of a channel.
    pub(crate) fn open(descriptors: &[BorrowedFd<'_>]) -> Result<Window, String> {
        let map = |fd: &BorrowedFd<'_>| {
            let len = rustix::fs::fstat(fd)?.st_size as usize;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a fresh mapping at an address of the kernel's choice, of a sealed memfd's length.
            let base = unsafe {
                rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, fd, 0)
            }?;
            let base = NonNull::new(base.cast::<u8>()).unwrap_or(NonNull::dangling());
            Ok(NonNull::slice_from_raw_parts(base, len))
        };
        let fail = |errno: rustix::io::Errno| format!("map a channel: {errno}");
        match descriptors {
            [control, data, ..] => Ok(Window {
                parts: [map(control).map_err(fail)?, map(data).map_err(fail)?],
                owned: true,
            }),
            _ => Err("the channel has no descriptors".into()),
        }
    }

    /// Opens a window on memory that stays mapped.
    pub(crate) fn within(memory: &Walled) -> Window {
        Window {
            parts: memory.parts,
            owned: false,
        }
    }

    /// Returns the present content of the memory. Every process that works in it must be stopped.
    pub(crate) fn look(&self) -> Image {
        // SAFETY: mapped for its length until drop; nobody writes it meanwhile (the victim is stopped,
        // and the handles of this process are at rest).
        let copy = |part: &NonNull<[u8]>| unsafe { part.as_ref() }.to_vec();
        Image {
            parts: [copy(&self.parts[0]), copy(&self.parts[1])],
        }
    }

    /// Returns `true` if the memory holds the content of `image`.
    pub(crate) fn is(&self, image: &Image) -> bool {
        let same = |(part, copy): (&NonNull<[u8]>, &Vec<u8>)| {
            // SAFETY: as in `look`.
            (unsafe { part.as_ref() }) == copy.as_slice()
        };
        self.parts.iter().zip(&image.parts).all(same)
    }

    /// Changes a word while others may use it.
    pub(crate) fn set(&mut self, part: usize, offset: usize, value: u64) {
        let part = self.parts[part].cast::<u8>();
        // SAFETY: callers stay in the part.
        let word = unsafe { part.add(offset) };
        // SAFETY: an aligned word of a mapping that lives until drop, changed as the atomic that it is for
        // everybody else.
        let word = unsafe { AtomicU64::from_ptr(word.cast().as_ptr()) };
        word.store(value, Ordering::Relaxed);
    }

    /// Restores the memory from `image`, word by word, while others use it.
    pub(crate) fn put_live(&mut self, image: &Image) {
        for part in 0..2 {
            for offset in (0..image.len(part)).step_by(8) {
                self.set(part, offset, image.word_of(part, offset));
            }
        }
    }

    /// Restores the memory from `image`.
    pub(crate) fn put(&mut self, image: &Image) {
        for (part, copy) in self.parts.iter_mut().zip(&image.parts) {
            // SAFETY: as in `look`; the handles of this process look again only after this.
            unsafe { part.as_mut() }.copy_from_slice(copy);
        }
    }
}

impl Image {
    /// Returns the length of a part in bytes.
    pub(crate) fn len(&self, part: usize) -> usize {
        self.parts[part].len()
    }

    /// Returns a word of the control part.
    pub(crate) fn word(&self, offset: usize) -> u64 {
        self.word_of(0, offset)
    }

    /// Returns a word of either part: 0 control, 1 data.
    pub(crate) fn word_of(&self, part: usize, offset: usize) -> u64 {
        let word = self.parts[part]
            .get(offset..)
            .and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        for part in self.parts.iter().filter(|_| self.owned) {
            // SAFETY: mapped by `open`, unmapped once.
            let _ = unsafe { rustix::mm::munmap(part.as_ptr().cast(), part.len()) };
        }
    }
}

/// The images that were seen already.
#[derive(Default)]
pub(crate) struct Seen(HashSet<u64>);

impl Seen {
    /// Returns `true` if this image is new.
    pub(crate) fn is_new(&mut self, image: &Image) -> bool {
        let mut hasher = DefaultHasher::new();
        image.parts.hash(&mut hasher);
        self.0.insert(hasher.finish())
    }
}

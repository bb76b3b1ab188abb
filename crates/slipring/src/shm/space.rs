//! Space for a channel's files: either all of it is allocated before any process can see the
//! channel, or the channel is refused.
//!
//! Plain version: `ftruncate`, then `fallocate`. The real version adds:
//!
//! - *Ask first.* It compares the length with the limit on a process's files (`RLIMIT_FSIZE`),
//!   because the kernel answers a longer `ftruncate` with a signal. It also compares the free
//!   space. A creation refused halfway would have held, for that time, the space that other
//!   programs needed.
//! - *Step by step.* It takes the pages in steps, and checks the rest before each step. If another
//!   program grows at that moment, the creation stops there, and gives all back at once.
//! - *Populate first.* The kernel uses transparent huge pages only through a mapping. `fallocate`
//!   then backs the remaining pages. It answers `NOSPC` where, with `ftruncate` alone, the first
//!   touch would end in SIGBUS.
//! - *Zeros* where there is no `fallocate`, if the file system is known to write in place.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::huge::HUGETLBFS_MAGIC;
use super::limits::{free_in, refuse_absurd};
use super::map::Mapping;
use crate::setup_error::SetupError;

/// The bytes taken between two checks.
pub(super) const STEP: usize = 2 << 20;

/// The pages of a fresh file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// All are backed at once.
    Whole,
    /// They come one by one: whoever is about to write one backs it before. The first bytes, as many as this, are backed at
    /// once.
    Sparse(usize),
}

/// The reason why a file was not made.
#[derive(Debug)]
pub(super) enum Refused {
    /// The kernel refused.
    Errno(Errno),
    /// This process may not have files of more than this many bytes.
    Limit(u64),
    /// The file system has only this many bytes left.
    Free(u64),
    /// This kind of file system cannot preallocate space.
    FileSystem(String),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused::Errno(errno)
    }
}

impl Refused {
    /// Returns the error for the caller: `what` needed `needed` bytes.
    pub(super) fn error(self, what: impl Display, needed: usize) -> SetupError {
        let needed = needed as u64;
        let no_space = |what: String| SetupError::NoSpace {
            needed,
            what: what.into(),
        };
        match self {
            Refused::Errno(errno) => SetupError::space(what, needed, errno),
            Refused::Limit(limit) => no_space(format!(
                "{what}: no file of this process may have more than {limit} bytes (RLIMIT_FSIZE, `ulimit -f`)"
            )),
            Refused::Free(free) => no_space(format!("{what}: {free} bytes are free there")),
            Refused::FileSystem(kind) => SetupError::FileSystem {
                what: what.to_string().into(),
                kind: kind.into(),
            },
        }
    }
}

/// Refuses files of these lengths that would not fit where `dir` is, before any of them is begun.
pub(super) fn ask(dir: BorrowedFd<'_>, lengths: &[usize]) -> Result<(), Refused> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    refuse_absurd(longest)?;
    refuse_limit(longest)?;
    let whole = |len: &usize| len.next_multiple_of(rustix::param::page_size());
    let needed = lengths.iter().map(whole).fold(0, usize::saturating_add);
    refuse_full(dir, needed)
}

/// Gives a fresh file its length, mapped, and with every page backed unless it is to be sparse: the only way to make channel
/// files. The file must be new, and used by no other process: zeros may be written over it. A
/// refused file is empty again.
pub(super) fn made(file: impl AsFd, len: usize, fill: Fill) -> Result<Mapping, Refused> {
    let file = file.as_fd();
    let backed = match fill {
        Fill::Whole => len,
        Fill::Sparse(first) => first,
    };
    refuse_limit(len)?;
    if !is_hugetlbfs(file) || fill == Fill::Whole {
        ask(file, &[backed])?;
    }
    rustix::fs::ftruncate(file, len as u64)?;
    let filled = match fill {
        Fill::Whole => fill_whole(file, len),
        Fill::Sparse(first) => fill_first(file, len, first),
    };
    if filled.is_err() {
        // At once, and not when the file's last descriptor is closed.
        let _ = rustix::fs::ftruncate(file, 0);
    }
    filled
}

/// Maps a file whose pages come one by one, and backs its first bytes.
fn fill_first(file: BorrowedFd<'_>, len: usize, first: usize) -> Result<Mapping, Refused> {
    let mapping = Mapping::shared_sparse(file, len, true)?;
    mapping.back_range(0..first).map_err(|errno| match errno {
        Errno::FAULT => Errno::NOSPC,
        errno => errno,
    })?;
    Ok(mapping)
}

fn fill_whole(file: BorrowedFd<'_>, len: usize) -> Result<Mapping, Refused> {
    let mapping = Mapping::shared(file, len, true)?;
    mapping.wish_huge();
    let set_aside = is_hugetlbfs(file);
    for start in (0..len).step_by(STEP) {
        if start > 0 && !set_aside {
            refuse_full(file, len - start)?;
        }
        let end = len.min(start + STEP);
        mapping
            .populate_range(start..end, true)
            .map_err(|errno| match errno {
                Errno::FAULT => Errno::NOSPC,
                errno => errno,
            })?;
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len as u64) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                write_zeros(file, len)?;
                return Ok(mapping);
            }
            allocated => return Ok(allocated.map(|()| mapping)?),
        }
    }
}

fn is_hugetlbfs(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type as u64 == HUGETLBFS_MAGIC)
}

/// Writes zeros, which allocates space where there is no `fallocate`. `fsync` makes the file
/// system, perhaps another machine's, report whether it found the space.
fn write_zeros(file: BorrowedFd<'_>, len: usize) -> Result<(), Refused> {
    if !writes_in_place(file) {
        return Err(Refused::FileSystem(kind(file)));
    }
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut written = 0;
    while written < len {
        let some = &ZEROS[..ZEROS.len().min(len - written)];
        match rustix::io::pwrite(file, some, written as u64) {
            Ok(0) => return Err(Refused::Errno(Errno::NOSPC)),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Refused::Errno(errno)),
        }
    }
    loop {
        match rustix::fs::fsync(file) {
            Err(Errno::INTR) => {}
            synced => return Ok(synced?),
        }
    }
}

/// Returns `true` if a block that was written once keeps its space for good. A file system that
/// compresses, or writes each block to a new place, keeps no space for zeros.
fn writes_in_place(file: BorrowedFd<'_>) -> bool {
    const RAMFS: u64 = 0x8584_58f6;
    const TMPFS: u64 = 0x0102_1994; // memfds, too
    const NFS: u64 = 0x6969;
    const EXT: u64 = 0xef53; // ext2 and ext3 have no fallocate
    rustix::fs::fstatfs(file)
        .is_ok_and(|stat| [RAMFS, TMPFS, NFS, EXT].contains(&(stat.f_type as u64)))
}

/// Returns the kind of file system: its name if that can be found, or else its number.
fn kind(file: BorrowedFd<'_>) -> String {
    let name = || {
        let dev = rustix::fs::fstat(file).ok()?.st_dev;
        let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        // "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
        let mount = mounts
            .lines()
            .find(|line| line.split(' ').nth(2) == Some(&format!("{major}:{minor}")))?;
        Some(mount.split_once(" - ")?.1.split(' ').next()?.to_owned())
    };
    let number = || {
        let stat = rustix::fs::fstatfs(file);
        format!("kind {:#x}", stat.map_or(0, |stat| stat.f_type as u64))
    };
    name().unwrap_or_else(number)
}

/// Refuses a length above this process's file size limit: the kernel would end the process by
/// SIGXFSZ.
fn refuse_limit(len: usize) -> Result<(), Refused> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if len as u64 > limit => Err(Refused::Limit(limit)),
        _ => Ok(()),
    }
}

/// Refuses to take `needed` bytes more of a file system that reports less.
fn refuse_full(file: BorrowedFd<'_>, needed: usize) -> Result<(), Refused> {
    match free_in(file) {
        Some(free) if free < needed as u64 => Err(Refused::Free(free)),
        _ => Ok(()),
    }
}

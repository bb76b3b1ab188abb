//! Memory for a channel's files: all of it is there before anybody may see the channel, or it is refused.
//!
//! Plain version: `ftruncate`, then `fallocate`. What is done besides:
//!
//! - *Ask first.* The limit on a process's files (`RLIMIT_FSIZE`) is compared with the length, since the
//!   kernel answers a longer `ftruncate` with a signal. The free space is compared too, since a creation
//!   that is refused halfway has held, for that time, what its neighbours needed.
//! - *Step by step.* The pages are taken in steps, and the rest is asked for before each: who runs into a
//!   neighbour that grows at that moment stops there, and gives all back at once. (Not on a hugetlbfs, where a
//!   mapping sets all of its space aside, and what is free is told without it.)
//! - *Populate first.* The kernel uses transparent huge pages only through a mapping; `fallocate` then backs
//!   what that left, and answers `NOSPC` where `ftruncate` alone would let the first touch end in SIGBUS.
//! - *Zeros* where there is no `fallocate`, if the file system is known to write in place.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FallocateFlags, StatFs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::huge::HUGETLBFS_MAGIC;
use super::map::Mapping;
use crate::error::Error;

/// How much is taken between two questions, in bytes.
const STEP: usize = 2 << 20;

/// Why a file was not made.
#[derive(Debug)]
pub(super) enum Refused {
    /// The kernel said no.
    Errno(Errno),
    /// This process may not have files of more than so many bytes.
    Limit(u64),
    /// The file system has only so many bytes left.
    Free(u64),
    /// This kind of file system cannot set space aside.
    FileSystem(String),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused::Errno(errno)
    }
}

impl Refused {
    /// The refusal as the caller sees it: `what` needed that many bytes.
    pub(super) fn error(self, what: impl Display, needed: usize) -> Error {
        let needed = needed as u64;
        let no_space = |what: String| Error::NoSpace {
            needed,
            what: what.into(),
        };
        match self {
            Refused::Errno(errno) => Error::space(what, needed, errno),
            Refused::Limit(limit) => no_space(format!(
                "{what}: no file of this process may have more than {limit} bytes (RLIMIT_FSIZE, `ulimit -f`)"
            )),
            Refused::Free(free) => no_space(format!("{what}: {free} bytes are free there")),
            Refused::FileSystem(kind) => Error::FileSystem {
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

/// Gives a fresh file its length, mapped and with every page backed: the only way to make channel files.
/// The file must be new, and nobody else's: zeros may be written over it. If it is refused it is empty again.
pub(super) fn backed(file: impl AsFd, len: usize) -> Result<Mapping, Refused> {
    let file = file.as_fd();
    ask(file, &[len])?;
    rustix::fs::ftruncate(file, len as u64)?;
    let filled = fill(file, len);
    if filled.is_err() {
        // At once, and not when the file's last descriptor goes.
        let _ = rustix::fs::ftruncate(file, 0);
    }
    filled
}

fn fill(file: BorrowedFd<'_>, len: usize) -> Result<Mapping, Refused> {
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

/// What `fallocate` does, where there is none. `sync` has the file system (that of another machine, say)
/// say whether it found the space.
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

/// Returns `true` if a block that was written once is there for good. (Who compresses, or writes each block
/// to a new place, keeps no space for what was zero.)
fn writes_in_place(file: BorrowedFd<'_>) -> bool {
    const RAMFS: u64 = 0x8584_58f6;
    const TMPFS: u64 = 0x0102_1994; // memfds, too
    const NFS: u64 = 0x6969;
    const EXT: u64 = 0xef53; // ext2 and ext3 have no fallocate
    rustix::fs::fstatfs(file)
        .is_ok_and(|stat| [RAMFS, TMPFS, NFS, EXT].contains(&(stat.f_type as u64)))
}

/// The kind of file system, by its name if that is to be found, else by its number.
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

/// The kernel ends a process by SIGXFSZ that makes a file longer than its limit.
fn refuse_limit(len: usize) -> Result<(), Refused> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if len as u64 > limit => Err(Refused::Limit(limit)),
        _ => Ok(()),
    }
}

/// Refuses to take `needed` bytes more of a file system that says it has less.
fn refuse_full(file: BorrowedFd<'_>, needed: usize) -> Result<(), Refused> {
    match rustix::fs::fstatfs(file).ok().and_then(|stat| free(&stat)) {
        Some(free) if free < needed as u64 => Err(Refused::Free(free)),
        _ => Ok(()),
    }
}

/// Returns `false` if the first `len` bytes of an existing file have holes for which there is no space.
pub(super) fn has_room_for_holes(file: BorrowedFd<'_>, len: usize) -> bool {
    // In units of 512 bytes, whatever the file system's blocks.
    let there = rustix::fs::fstat(file).map_or(len, |stat| (stat.st_blocks as usize) << 9);
    there >= len || refuse_full(file, len - there).is_ok()
}

/// The bytes that anybody may take; `None` where there is no limit, or none that is told.
fn free(stat: &StatFs) -> Option<u64> {
    if stat.f_blocks == 0 {
        return None;
    }
    let unit = match stat.f_frsize {
        0 => stat.f_bsize as u64,
        unit => unit as u64,
    };
    Some(stat.f_bavail.saturating_mul(unit))
}

/// A memfd has no file system to say that it is full, and private memory is promised before it
/// exists: without this the answer to an absurd size would come from the OOM killer.
pub(super) fn refuse_absurd(len: usize) -> Result<(), Errno> {
    let info = rustix::system::sysinfo();
    let unit = (info.mem_unit as u64).max(1);
    let total = (info.totalram as u64 + info.totalswap as u64).saturating_mul(unit);
    if len as u64 > total {
        Err(Errno::NOMEM)
    } else {
        Ok(())
    }
}

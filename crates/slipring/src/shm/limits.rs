//! The available memory and file system space, checked before anything is taken.

use std::os::fd::BorrowedFd;

use rustix::fs::StatFs;
use rustix::io::Errno;

/// Returns `false` if the first `len` bytes of an existing file have holes for which there is no space.
pub(super) fn has_room_for_holes(file: BorrowedFd<'_>, len: usize) -> bool {
    // In units of 512 bytes, whatever the file system's block size.
    let there = rustix::fs::fstat(file).map_or(len, |stat| (stat.st_blocks as usize) << 9);
    there >= len || free_in(file).is_none_or(|free| free >= (len - there) as u64)
}

/// Returns the bytes that any user may take of a file system. Returns `None` if there is no limit,
/// or the file system reports none.
pub(super) fn free(stat: &StatFs) -> Option<u64> {
    if stat.f_blocks == 0 {
        return None;
    }
    let unit = match stat.f_frsize {
        0 => stat.f_bsize as u64,
        unit => unit as u64,
    };
    Some(stat.f_bavail.saturating_mul(unit))
}

/// Refuses a length above the machine's memory and swap space.
///
/// A memfd has no file system to report that it is full, and private memory is promised before it
/// exists. Without this check the OOM killer would answer an absurd size.
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

/// Returns the result of [`free`] for the file system that `file` is in.
pub(super) fn free_in(file: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstatfs(file).ok().and_then(|stat| free(&stat))
}

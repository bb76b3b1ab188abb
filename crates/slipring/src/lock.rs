//! Locks that the kernel frees when their holder dies: open-file-description locks, one byte each.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::error::{self, Error};

/// Tries to lock byte `byte` of the file for this description; returns `false` if another
/// description has it.
pub(crate) fn try_lock(file: BorrowedFd<'_>, byte: usize) -> Result<bool, Error> {
    set(file, byte, 1)
}

/// Tries to lock every byte of the file for this description; returns `false` if another
/// description has any.
pub(crate) fn try_lock_all(file: BorrowedFd<'_>) -> Result<bool, Error> {
    set(file, 0, 0)
}

fn set(file: BorrowedFd<'_>, byte: usize, len: usize) -> Result<bool, Error> {
    match command(file, byte, len, libc::F_OFD_SETLK) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(error::os("lock a seat (F_OFD_SETLK)", errno)),
    }
}

/// Returns `true` if another description holds a lock on byte `byte`.
pub(crate) fn is_held(file: BorrowedFd<'_>, byte: usize) -> Result<bool, Error> {
    match command(file, byte, 1, libc::F_OFD_GETLK) {
        Ok(kind) => Ok(kind != libc::F_UNLCK),
        Err(errno) => Err(error::os("ask for a seat's lock (F_OFD_GETLK)", errno)),
    }
}

/// Issues one `fcntl` for an exclusive lock, and returns the lock type that it left.
fn command(
    file: BorrowedFd<'_>,
    byte: usize,
    len: usize,
    command: libc::c_int,
) -> Result<libc::c_int, Errno> {
    // SAFETY: a struct of integers. Zero is right for the fields not set below, and required for
    // `l_pid`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte as libc::off_t;
    lock.l_len = len as libc::off_t;
    loop {
        // SAFETY: an open descriptor, and a lock structure of ours that outlives the call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
        if result == 0 {
            return Ok(libc::c_int::from(lock.l_type));
        }
        match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::INTR) => {}
            errno => return Err(errno.unwrap_or(Errno::IO)),
        }
    }
}

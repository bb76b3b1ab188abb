//! Locks that the kernel frees when their holder dies: open-file-description locks, a byte each.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Tries to lock byte `byte` of the file, for this description.
pub(crate) fn try_lock(file: BorrowedFd<'_>, byte: usize) -> bool {
    command(file, byte, libc::F_OFD_SETLK, libc::F_WRLCK).is_some()
}

/// Whether another description than this one holds a lock on byte `byte`.
pub(crate) fn is_held(file: BorrowedFd<'_>, byte: usize) -> bool {
    command(file, byte, libc::F_OFD_GETLK, libc::F_WRLCK).is_some_and(|kind| kind != libc::F_UNLCK)
}

/// One `fcntl`; what it left in the lock's kind, or nothing if it was refused.
fn command(
    file: BorrowedFd<'_>,
    byte: usize,
    command: libc::c_int,
    kind: libc::c_int,
) -> Option<libc::c_int> {
    // SAFETY: a struct of integers; zero is right for what is not set below (and l_pid must be).
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte as libc::off_t;
    lock.l_len = 1;
    loop {
        // SAFETY: an open descriptor, and a lock structure of ours that outlives the call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
        if result == 0 {
            return Some(libc::c_int::from(lock.l_type));
        }
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return None;
        }
    }
}

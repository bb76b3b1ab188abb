//! Fresh descriptions of passed files, and their seals.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::setup_error::SetupError;

/// Seals against a peer that resizes the file under us. A peer can still punch holes: their
/// contents then read as zeros, which no protocol takes for a message.
pub(super) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Opens another description of the same file, which shares no locks with the first.
pub(crate) fn fresh_description(file: &OwnedFd) -> Result<OwnedFd, SetupError> {
    reopened(file, OFlags::RDWR)
}

pub(super) fn reopened(file: &OwnedFd, access: OFlags) -> Result<OwnedFd, SetupError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Don't wait for the holder of a file lease, if the file came with one.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => Ok(file),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(SetupError::NeedsProc),
        Err(errno) => Err(SetupError::os("reopen the channel's descriptor", errno)),
    }
}

/// Returns `true` if only the maker of the file may write it.
pub(super) fn is_sealed(data: &OwnedFd) -> bool {
    let writing = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
    // A file that is not a memfd has no seals.
    rustix::fs::fcntl_get_seals(data).is_ok_and(|seals| seals.intersects(writing))
}

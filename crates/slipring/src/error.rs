//! The errors of message verbs, and the conversion of a system's error into one of them.

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

pub use slipring_core::{BatchError, Corrupt, Error, PushError, ResizeError};

/// Sorts the system's error about `call` into the errors that a caller can act on.
#[cold]
pub(crate) fn os(call: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::MFILE => Error::TooManyFiles {
            // `None` means infinity, which is not the limit that was hit.
            limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        },
        Errno::NFILE => Error::TooManyFiles { limit: 0 },
        errno => Error::Os {
            call,
            errno: errno.raw_os_error(),
        },
    }
}

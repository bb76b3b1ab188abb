//! The part of an operating system that a sparse data part needs: its pages come and go.

use crate::error::Error;

/// The memory behind a sparse data part.
pub trait Backing: Sync {
    /// Backs `len` bytes of the data part from `at` on, so that writing them cannot fail. Fails with `NoSpace` or `Os`.
    fn back(&self, at: u64, len: u64) -> Result<(), Error>;

    /// Gives back the whole pages among `len` bytes from `at` on. They read as zeros then. Best effort.
    fn give_back(&self, at: u64, len: u64);

    /// Makes pages among `len` bytes from `at` on ready for use, which have memory already. Only a hint.
    fn touch(&self, at: u64, len: u64) {
        let _ = (at, len);
    }
}

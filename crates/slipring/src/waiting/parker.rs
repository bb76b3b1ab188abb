//! What it takes to wait on behalf of a seat: shared by the seat's handle and the set that it is in.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use slipring_core::wait::Sleeper;

use super::{Kernel, Polled};
use crate::error::Error;
use crate::fork::Unforked;
use crate::region::{Region, pipes};
use crate::seat::Role;

/// The sleeping side of a seat.
pub(crate) struct Parker {
    pub(crate) region: Arc<Region>,
    pub(crate) role: Role,
    /// By which the handle is woken. It borrows, on loan, from `os` and `region`.
    pub(crate) sleeper: Sleeper<'static>,
    /// The descriptor by which an event loop is woken.
    pub(super) polled: Polled,
    /// Behind an `Arc`, which does not claim what it points to for itself when it is moved.
    pub(crate) os: Arc<Kernel>,
}

impl Parker {
    /// `sleeper` is the seat's of `role`, and borrows from `region` and `os` alone.
    pub(crate) fn new(
        region: Arc<Region>,
        role: Role,
        sleeper: Sleeper<'static>,
        os: Arc<Kernel>,
    ) -> Parker {
        Parker {
            region,
            role,
            sleeper,
            polled: Polled::default(),
            os,
        }
    }

    /// What an event loop polls for this seat.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        self.polled.descriptor(&self.region, self.role.seat())
    }

    /// Makes the descriptor readable, as the other side would.
    pub(super) fn ring(&self) -> Result<(), Error> {
        let seat = self.role.seat();
        match &self.region.private {
            Some(private) => private.write(seat),
            None => {
                let pipe = Unforked::open(|| self.region.pipe(seat, pipes::WRITE))?;
                pipe.get().into_iter().for_each(pipes::ring);
            }
        }
        Ok(())
    }

    /// Sees to it that the descriptor hangs up if somebody sits opposite and dies, and only then.
    pub(super) fn plug(&self, alone: bool) -> Result<(), Error> {
        self.polled.plug(&self.region, self.role.seat(), alone)
    }
}

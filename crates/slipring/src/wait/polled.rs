//! The descriptor of a seat that an event loop polls: this side's end of the seat's pipe. See the
//! head of `fd.rs`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::epoll;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::timer;
use crate::error::{self, Error};
use crate::fork::Unforked;
use crate::shm::{Region, pipes};

/// This side's end of a seat's pipe, opened at the first request.
#[derive(Default)]
pub(crate) struct Polled {
    read: OnceLock<Ends>,
    /// The time after arming at which the event loop must poll again in any case; `None` where a
    /// hang-up reports deaths.
    recheck: Option<Duration>,
    /// The spare writer: see the head of `fd.rs`.
    spare_writer: Mutex<Option<Unforked>>,
    /// The seat's pipe, if it was passed to this process.
    passed: Option<Arc<OwnedFd>>,
}

/// The descriptors to poll.
struct Ends {
    pipe: OwnedFd,
    /// A timer, and an epoll over both.
    timed: Option<(OwnedFd, OwnedFd)>,
}

impl Ends {
    fn new(pipe: OwnedFd, recheck: Option<Duration>) -> Result<Ends, Error> {
        let failed = |errno| error::os("make a timer beside the channel's pipe", errno);
        let timed = |_| -> Result<_, Errno> {
            let timer = timer::create()?;
            let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            for (key, fd) in [&pipe, &timer].into_iter().enumerate() {
                let data = epoll::EventData::new_u64(key as u64);
                epoll::add(&both, fd, data, epoll::EventFlags::IN)?;
            }
            Ok((timer, both))
        };
        let timed = recheck.map(timed).transpose().map_err(failed)?;
        Ok(Ends { pipe, timed })
    }

    fn polled(&self) -> BorrowedFd<'_> {
        match &self.timed {
            Some((_, both)) => both.as_fd(),
            None => self.pipe.as_fd(),
        }
    }
}

impl Polled {
    /// Returns the end of a seat that must be polled again `recheck` after it was armed. `passed`
    /// is its pipe, if it was passed.
    pub(super) fn new(recheck: Option<Duration>, passed: Option<Arc<OwnedFd>>) -> Polled {
        Polled {
            recheck,
            passed,
            ..Polled::default()
        }
    }

    /// Opens a description of our own of the seat's pipe.
    pub(super) fn open(
        &self,
        region: &Region,
        seat: usize,
        access: OFlags,
    ) -> Result<OwnedFd, Error> {
        match &self.passed {
            Some(pipe) => pipes::reopened(pipe.as_fd(), access),
            None => region.pipe(seat, access),
        }
    }

    /// Empties the pipe, and returns `true` if something was in it. Also restarts the timer, if
    /// there is one.
    pub(super) fn drain(&self) -> bool {
        let Some(ends) = self.read.get() else {
            return false;
        };
        let found = pipes::drain(ends.pipe.as_fd());
        if let Some((timer, _)) = &ends.timed {
            // Setting the timer clears its readiness. It fails only for a time that no clock knows.
            let _ = timer::set(timer.as_fd(), self.recheck.unwrap_or_default());
        }
        found
    }

    /// Makes the pipe readable by a writing end that is open already; returns `false` if there is
    /// none.
    pub(super) fn ring(&self) -> bool {
        if let (Some(_), Some(ends)) = (self.recheck, self.read.get()) {
            pipes::ring(ends.pipe.as_fd());
            return true;
        }
        let spare_writer = self.lock();
        let spare_writer = spare_writer.as_ref().and_then(Unforked::get);
        spare_writer
            .inspect(|spare_writer| pipes::ring(*spare_writer))
            .is_some()
    }

    /// Returns the descriptor to poll, which stays the same.
    pub(crate) fn descriptor(&self, region: &Region, seat: usize) -> Result<BorrowedFd<'_>, Error> {
        if let Some(ends) = self.read.get() {
            return Ok(ends.polled());
        }
        let mut spare_writer = self.lock();
        // Another thread may have been first, and may have closed the spare writer since.
        if self.read.get().is_none() {
            // A pipe whose hang-up is not used is its own spare writer.
            let access = match self.recheck {
                Some(_) => pipes::WRITE,
                None => pipes::READ,
            };
            let ends = Ends::new(self.open(region, seat, access)?, self.recheck)?;
            // Hold a spare writer from the start: there may never have been another writer.
            self.set_spare_writer(&mut spare_writer, region, seat, true)?;
            let _ = self.read.set(ends);
        }
        self.read.get().map(Ends::polled).ok_or(Error::NoPipes)
    }

    /// Opens a writing end by way of the reading end.
    pub(super) fn writer(&self) -> Result<OwnedFd, Error> {
        let ends = self.read.get().ok_or(Error::NoPipes)?;
        pipes::reopened(ends.pipe.as_fd(), pipes::WRITE)
    }

    pub(super) fn hold_writer(
        &self,
        region: &Region,
        seat: usize,
        wanted: bool,
    ) -> Result<(), Error> {
        self.set_spare_writer(&mut self.lock(), region, seat, wanted)
    }

    fn set_spare_writer(
        &self,
        spare_writer: &mut Option<Unforked>,
        region: &Region,
        seat: usize,
        wanted: bool,
    ) -> Result<(), Error> {
        // A pipe of private memory never hangs up: the region holds both its ends.
        let wanted = wanted && region.private.is_none() && self.recheck.is_none();
        match (wanted, spare_writer.is_some()) {
            (true, false) => {
                *spare_writer = Some(Unforked::open(|| self.open(region, seat, pipes::WRITE))?);
            }
            (false, true) => *spare_writer = None,
            _ => {}
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Unforked>> {
        self.spare_writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

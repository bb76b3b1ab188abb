//! A handle's futures under tokio: its event loop watches the descriptor, in place of the helper thread. (That
//! one still has its second look, where one is owed.)
//!
//! tokio watches *edges*, and keeps what it was told until that is cleared. So a poll clears it, with its
//! waker left there, before it arms and looks: what comes after the clearing wakes the task, what came
//! before is found. And a hang-up is never cleared: after one, the descriptor is entered anew, which tells
//! at once whether it is still hung up.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::Handle;

use super::Parker;
use crate::error::Error;
use crate::fork;

/// How often one poll clears what tokio was told, before it leaves that to the next. The third time is
/// already that of a stranger who rings all the time.
const TURNS: u32 = 3;

pub(crate) struct OnTokio {
    runtime: Handle,
    /// A copy of the handle's descriptor: the same pipe, and another entry than one that the user makes.
    polled: Option<AsyncFd<OwnedFd>>,
    /// `fork::forks` when it was entered.
    forks: u64,
}

impl OnTokio {
    /// Enters the descriptor of `parker` with the runtime that is current.
    pub(super) fn new(parker: &Parker) -> Result<OnTokio, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let copy = rustix::io::fcntl_dupfd_cloexec(parker.descriptor()?, 0)
            .map_err(|errno| Error::os("copy the descriptor of the channel's pipe", errno))?;
        let polled = Some(enter(&runtime, copy)?);
        Ok(OnTokio {
            runtime,
            polled,
            forks: fork::forks(),
        })
    }

    /// Forgets what tokio was told of the descriptor, and leaves the waker with it for what comes.
    pub(super) fn listen(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        for _ in 0..TURNS {
            let hung_up = {
                let polled = self.polled.as_ref().ok_or(Error::NoRuntime)?;
                match polled.poll_read_ready(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(told) => {
                        let mut told = told.map_err(failed)?;
                        let hung_up = told.ready().is_read_closed();
                        told.clear_ready();
                        hung_up
                    }
                }
            };
            if hung_up && let Some(copy) = self.polled.take().map(AsyncFd::into_inner) {
                self.polled = Some(enter(&self.runtime, copy)?);
            }
        }
        // No waker is left: polled again before long, and others in between.
        cx.waker().wake_by_ref();
        Ok(())
    }
}

fn enter(runtime: &Handle, copy: OwnedFd) -> Result<AsyncFd<OwnedFd>, Error> {
    let _current = runtime.enter();
    #[allow(
        deprecated,
        reason = "the new one is unsafe, for sources whose descriptor may change: an OwnedFd's does not"
    )]
    AsyncFd::with_interest(copy, Interest::READABLE).map_err(failed)
}

fn failed(error: io::Error) -> Error {
    Error::Os {
        what: "have tokio watch the channel's pipe".into(),
        source: error.into(),
    }
}

impl Drop for OnTokio {
    fn drop(&mut self) {
        if self.forks != fork::forks() {
            // A forked child has the parent's event loop still: taking the copy out there would take it
            // out here as well.
            std::mem::forget(self.polled.take());
        }
    }
}

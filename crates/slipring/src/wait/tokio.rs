//! A handle's futures under tokio: its event loop watches the descriptor, in place of the helper
//! thread. The helper thread still makes the second look, if one is due.
//!
//! tokio watches *edges*, and keeps a reported readiness until it is cleared. So a poll clears it,
//! with its waker left there, before it arms and looks. News after the clearing wakes the task, and
//! the look finds earlier news. tokio never clears a hang-up. So after one, the descriptor is
//! entered anew, which tells at once whether it is still hung up.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::Handle;

use super::parker::Parker;
use crate::error::{self, Error};
use crate::fork;

/// The number of times that one poll clears tokio's readiness, before it leaves that to the next
/// poll. The third time already means that another process rings all the time.
const TURNS: u32 = 3;

pub(crate) struct OnTokio {
    runtime: Handle,
    /// A copy of the handle's descriptor: the same pipe, but not the entry that the user may make.
    polled: Option<AsyncFd<OwnedFd>>,
    /// The value of `fork::forks` when it was entered.
    forks: u64,
}

impl OnTokio {
    /// Enters the descriptor of `parker` with the current runtime.
    pub(super) fn new(parker: &Parker) -> Result<OnTokio, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let copy = rustix::io::fcntl_dupfd_cloexec(parker.descriptor()?, 0)
            .map_err(|errno| error::os("copy the descriptor of the channel's pipe", errno))?;
        let polled = Some(enter(&runtime, copy)?);
        Ok(OnTokio {
            runtime,
            polled,
            forks: fork::forks(),
        })
    }

    /// Clears tokio's readiness of the descriptor, and leaves the waker with tokio for later news.
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
        // No waker is left with tokio: let this task be polled again soon, and others in between.
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
        call: "have tokio watch the channel's pipe",
        errno: error.raw_os_error().unwrap_or_default(),
    }
}

impl Drop for OnTokio {
    fn drop(&mut self) {
        if self.forks != fork::forks() {
            // A forked child still shares the parent's event loop. Removing the copy there would
            // remove it here as well.
            std::mem::forget(self.polled.take());
        }
    }
}

//! Being asked to go: SIGINT, SIGTERM and SIGHUP set a flag, and the verbs look at it at least ten times a
//! second, wherever they wait. So they leave their role in an orderly way. Where they wait for a descriptor, the
//! signal ends the wait at once, also one that comes just before it: it fills a pipe that is waited for as well.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exit::Failure;
use crate::inherited;

/// How long any wait may last before the flag is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The flag, and the pipe.
pub(crate) struct Signals {
    flag: Arc<AtomicUsize>,
    /// Readable once a signal has come; never emptied.
    come: OwnedFd,
    /// Ours, so that the pipe is not hung up where all signals are ignored.
    _filled: OwnedFd,
}

impl Signals {
    /// From now on these signals only set the flag, and then fill the pipe. A signal that the starter had ignored stays ignored.
    pub(crate) fn catch() -> Result<Signals, Failure> {
        let failed = |error| Failure::io("catch signals", error);
        let flag = Arc::new(AtomicUsize::new(0));
        let (come, filled) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if inherited::is_ignored(signal) {
                continue;
            }
            signal_hook::flag::register_usize(signal, flag.clone(), signal as usize)
                .map_err(failed)?;
            let ours = filled.try_clone().map_err(failed)?;
            signal_hook::low_level::pipe::register(signal, ours).map_err(failed)?;
        }
        Ok(Signals {
            flag,
            come,
            _filled: filled,
        })
    }

    /// `Signal` if one has come.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.flag.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Failure::Signal(signal as i32)),
        }
    }

    /// Waits for a descriptor, at most a [`TICK`]: whether it is ready. `Signal` if one has come.
    pub(crate) fn wait(
        &self,
        descriptor: BorrowedFd<'_>,
        ready: PollFlags,
        what: &str,
    ) -> Result<bool, Failure> {
        self.check()?;
        let mut fds = [
            PollFd::from_borrowed_fd(descriptor, ready),
            PollFd::new(&self.come, PollFlags::IN),
        ];
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.subsec_nanos().into(),
        };
        let polled = poll(&mut fds, Some(&tick));
        self.check()?;
        match polled {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(Failure::io(format!("wait for {what}"), errno)),
        }
    }
}

//! Handles requests to stop: SIGINT, SIGTERM and SIGHUP set a flag, and the verbs look at it at
//! least ten times a second, wherever they wait. So they leave their role in an orderly way.
//!
//! Where a verb waits for a descriptor, the signal ends the wait at once, even a signal that comes
//! just before it. To that end the signal fills a pipe, and the verb waits for that pipe as well.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use crate::exit::Failure;
use crate::inherited;

/// The longest wait before the verb looks at the flag.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Lets a write beyond the limit on the length of files (`ulimit -f`) fail, so that the verb reports
/// it. SIGXFSZ would end the process without a word.
pub(crate) fn outlive_file_limits() -> Result<(), Failure> {
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, ignored)
        .map(drop)
        .map_err(|error| Failure::io("catch SIGXFSZ", error))
}

/// The flag, and the pipe.
pub(crate) struct Signals {
    flag: Arc<AtomicUsize>,
    /// Becomes readable once a signal has come; never emptied.
    come: OwnedFd,
    /// Our writing end, so that the pipe is not hung up where all signals are ignored.
    _filled: OwnedFd,
}

impl Signals {
    /// Catches these signals: from now on each only sets the flag, and then fills the pipe. A
    /// signal that the starter ignored stays ignored.
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

    /// Fails with `Signal` if one has come.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.flag.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Failure::Signal(signal as i32)),
        }
    }

    /// Returns `true` if more than one has come: whoever sends them is in a hurry.
    pub(crate) fn has_second(&self) -> bool {
        // Each signal has put one byte into the pipe.
        rustix::io::ioctl_fionread(&self.come).is_ok_and(|bytes| bytes > 1)
    }

    /// Returns `true` if one comes within a [`TICK`], or has come.
    pub(crate) fn comes_soon(&self) -> bool {
        let mut fds = [PollFd::new(&self.come, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&tick()));
        self.check().is_err()
    }

    /// Waits until this time. Fails with `Signal` if one comes, or has come.
    pub(crate) fn sleep_until(&self, time: Instant) -> Result<(), Failure> {
        loop {
            self.check()?;
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let left = Timespec::try_from(left).unwrap_or(tick());
            let mut fds = [PollFd::new(&self.come, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::io("wait", errno)),
            }
        }
    }

    /// Waits for a descriptor for at most a [`TICK`], and returns `true` if it is ready. Fails with
    /// `Signal` if one has come.
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
        let polled = poll(&mut fds, Some(&tick()));
        self.check()?;
        match polled {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(Failure::io(format!("wait for {what}"), errno)),
        }
    }
}

fn tick() -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: TICK.subsec_nanos().into(),
    }
}

//! The two ways in which a set sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::thread::{ClockId, futex};
use rustix::time::{ClockId as Clock, clock_gettime};

use crate::error::{self, Error};
use crate::wait::policy::LONGEST;

/// The most pipes that one wait names; the next wait names the next ones.
const NAMED: usize = 256;

/// Returns how many channels a set can sleep on by their doorbells: the kernel's limit, less the
/// set's own word. Returns 0 before Linux 5.16, or in a sandbox that does not know the call.
pub(super) fn most_doorbells() -> usize {
    const FUTEX_WAITV_MAX: usize = 128;
    // A kernel that has the call refuses an empty list of doorbells with `EINVAL`.
    match futex::waitv(&[], futex::WaitvFlags::empty(), None, ClockId::Monotonic) {
        Err(Errno::INVAL) => FUTEX_WAITV_MAX - 1,
        _ => 0,
    }
}

/// A sleep that is about to begin.
pub(super) enum Sleep {
    /// On these doorbells, each while it still has the value that was seen.
    Doorbells {
        seen: Vec<futex::Wait>,
        at_most: Duration,
    },
    /// On the pipes of this epoll.
    Pipes {
        poller: Arc<Poller>,
        /// `None` means for ever.
        at_most: Option<Duration>,
    },
}

/// The result of a sleep: the pipes that were named, and whether each was hung up.
pub(super) type Woken = Result<Vec<(u64, bool)>, Error>;

/// Returns the futex wait for one doorbell of a sleep.
pub(super) fn doorbell(word: &AtomicU32, seen: u32, shared: bool) -> futex::Wait {
    let mut wait = futex::Wait::new();
    wait.val = u64::from(seen);
    wait.uaddr = futex::WaitPtr::new(word.as_ptr().cast());
    wait.flags = futex::WaitFlags::SIZE_U32;
    if !shared {
        wait.flags |= futex::WaitFlags::PRIVATE;
    }
    wait
}

impl Sleep {
    /// Sleeps. May return at any time. If a doorbell's memory goes away meanwhile, the sleep ends.
    pub(super) fn sleep(self) -> Woken {
        match self {
            Sleep::Doorbells { seen, at_most } => {
                let until = after(at_most);
                let flags = futex::WaitvFlags::empty();
                match futex::waitv(&seen, flags, Some(&until), ClockId::Monotonic) {
                    // Woken, changed before, interrupted, or too late: the caller looks.
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                    // The kernel has no memory, or a doorbell's memory has just gone away: rest, so
                    // that the caller does not spin.
                    Err(_) => std::thread::sleep(at_most.min(Duration::from_millis(1))),
                }
                Ok(Vec::new())
            }
            Sleep::Pipes { poller, at_most } => poller.wait(at_most),
        }
    }
}

/// Returns the time of the monotonic clock after `at_most`, at most a day from now.
fn after(at_most: Duration) -> Timespec {
    let now = clock_gettime(Clock::Monotonic);
    let then = now.tv_nsec as u128 + at_most.min(LONGEST).as_nanos();
    Timespec {
        tv_sec: now.tv_sec + (then / 1_000_000_000) as i64,
        tv_nsec: (then % 1_000_000_000) as _,
    }
}

/// An epoll over pipes, each under its key, and a descriptor under key 0 that wakes the waiting
/// owner.
pub(super) struct Poller {
    epoll: OwnedFd,
    wakes: OwnedFd,
}

fn failed(errno: Errno) -> Error {
    error::os("wait for many pipes (epoll)", errno)
}

impl Poller {
    pub(super) fn new() -> Result<Poller, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wakes = eventfd(0, flags).map_err(failed)?;
        let poller = Poller { epoll, wakes };
        poller.add(poller.wakes.as_fd(), 0)?;
        Ok(poller)
    }

    pub(super) fn add(&self, pipe: BorrowedFd<'_>, key: u64) -> Result<(), Error> {
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.epoll, pipe, data, epoll::EventFlags::IN).map_err(failed)
    }

    /// Removes a pipe. Call it before the pipe is closed: otherwise a copy in a forked child would
    /// keep it in the epoll.
    pub(super) fn delete(&self, pipe: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, pipe);
    }

    /// Wakes a thread that sleeps here, or is about to.
    pub(super) fn wake(&self) {
        // The kernel refuses only if 2^64 wakes are pending already.
        let _ = rustix::io::write(&self.wakes, &1_u64.to_ne_bytes());
    }

    /// Waits for at most `at_most`, and returns the pipes that are readable or hung up.
    pub(super) fn wait(&self, at_most: Option<Duration>) -> Woken {
        // Round up to whole milliseconds: kernels that need this way of sleeping know no finer
        // timeouts.
        let at_most = at_most.map(|time| {
            let millis = time.min(LONGEST).as_nanos().div_ceil(1_000_000);
            Timespec {
                tv_sec: (millis / 1000) as i64,
                tv_nsec: (millis % 1000 * 1_000_000) as _,
            }
        });
        let mut events = [const { std::mem::MaybeUninit::uninit() }; NAMED];
        let (named, _) = match epoll::wait(&self.epoll, &mut events, at_most.as_ref()) {
            Err(Errno::INTR) => return Ok(Vec::new()),
            named => named.map_err(failed)?,
        };
        let mut keys = Vec::with_capacity(named.len());
        for event in named {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == 0 {
                let _ = rustix::io::read(&self.wakes, &mut [0; 8]);
            } else {
                keys.push((key, flags.contains(epoll::EventFlags::HUP)));
            }
        }
        Ok(keys)
    }
}

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

use crate::error::Error;
use crate::waiting::LONGEST;

/// How many pipes are named at a time; the next wait names the next ones.
const NAMED: usize = 256;

/// How many channels a set sleeps on by their doorbells: what the kernel takes, less the set's own
/// word; none before Linux 5.16, or in a sandbox that does not know the call.
pub(super) fn most_doorbells() -> usize {
    const FUTEX_WAITV_MAX: usize = 128;
    // No doorbells at all are too few: whoever finds that has the call.
    match futex::waitv(&[], futex::WaitvFlags::empty(), None, ClockId::Monotonic) {
        Err(Errno::INVAL) => FUTEX_WAITV_MAX - 1,
        _ => 0,
    }
}

/// A sleep that is about to begin.
pub(super) enum Sleep {
    /// On these doorbells, each for as long as it is as it was seen.
    Doorbells {
        seen: Vec<futex::Wait>,
        at_most: Duration,
    },
    /// On the pipes of this epoll.
    Pipes {
        poller: Arc<Poller>,
        /// Nothing is for ever.
        at_most: Option<Duration>,
    },
}

/// What a sleep told: the pipes that were named, and whether they were hung up.
pub(super) type Woken = Result<Vec<(u64, bool)>, Error>;

/// A doorbell of a sleep.
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
    /// Sleeps. May return at any time. A doorbell whose memory goes away meanwhile ends it.
    pub(super) fn sleep(self) -> Woken {
        match self {
            Sleep::Doorbells { seen, at_most } => {
                let until = after(at_most);
                let flags = futex::WaitvFlags::empty();
                match futex::waitv(&seen, flags, Some(&until), ClockId::Monotonic) {
                    // Woken, changed before, interrupted, too late: the caller looks.
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                    // No memory for it, or a doorbell's has just gone away: no loop without a rest.
                    Err(_) => std::thread::sleep(at_most.min(Duration::from_millis(1))),
                }
                Ok(Vec::new())
            }
            Sleep::Pipes { poller, at_most } => poller.wait(at_most),
        }
    }
}

/// The monotonic clock's time after so long, at most a day.
fn after(at_most: Duration) -> Timespec {
    let now = clock_gettime(Clock::Monotonic);
    let then = now.tv_nsec as u128 + at_most.min(LONGEST).as_nanos();
    Timespec {
        tv_sec: now.tv_sec + (then / 1_000_000_000) as i64,
        tv_nsec: (then % 1_000_000_000) as _,
    }
}

/// An epoll over pipes, each under its key, and a descriptor to wake the sleeper by, under 0.
pub(super) struct Poller {
    epoll: OwnedFd,
    wakes: OwnedFd,
}

fn failed(errno: Errno) -> Error {
    Error::os("wait for many pipes (epoll)", errno)
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

    /// To be called before the pipe is closed: a copy in a forked child would keep it here.
    pub(super) fn delete(&self, pipe: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, pipe);
    }

    /// Wakes whoever sleeps here, or is about to.
    pub(super) fn wake(&self) {
        // Refused only if 2^64 wakes are there already.
        let _ = rustix::io::write(&self.wakes, &1_u64.to_ne_bytes());
    }

    /// The pipes that are readable or hung up, for which it waits at most so long.
    pub(super) fn wait(&self, at_most: Option<Duration>) -> Woken {
        // Up to whole milliseconds: kernels that need this way of sleeping know no others.
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

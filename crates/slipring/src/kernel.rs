//! Sleeping and waking by the kernel's futexes and pipes, and the barrier that lets publishers omit
//! fences.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::Timespec;
use rustix::thread::{MembarrierCommand, futex, membarrier};
use rustix::time::{ClockId, clock_gettime};
use slipring_core::wait::{Os, Reach};

use crate::clock;
use crate::fork::Unforked;
use crate::shm::{Region, pipes};

/// The environment variable that makes every handle of this process fence at each publish and sleep
/// without a barrier. Any value but `0` sets it. It is for kernels without barriers, and for tests.
const FORCE: &str = "SLIPRING_FENCED";

/// The operating system as the core's protocol sees it, for one handle.
pub(crate) struct Kernel {
    barriers: Barriers,
    pipes: Pipes,
}

/// The barrier by which waiters make publishers fence, which then need no fence of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Barriers {
    /// There is no usable barrier.
    None,
    /// All publishers belong to this process.
    Own,
    /// Some publishers may belong to other processes.
    Every,
}

/// The pipes of the other side.
enum Pipes {
    /// Open for exactly as long as the seat is held: when its last writer is gone, a pipe hangs up.
    Open(Vec<OnceLock<Unforked>>),
    /// The same, but opened when they are first written (`Region::opens_late`). `first` is the
    /// number of the first seat.
    Late {
        region: Arc<Region>,
        first: usize,
        open: Vec<OnceLock<Unforked>>,
    },
    /// In this process alone, where no end dies alone. Made when the other side first asks for it.
    /// Holds the number of the first seat.
    Private(Arc<pipes::Private>, usize),
    None,
}

impl Kernel {
    /// Returns the kernel that fits a region, for a handle that wakes the seats `others`. Barriers
    /// reach only processes of this kernel.
    ///
    /// Call this before taking any lock. Registering takes milliseconds in a process of many
    /// threads, and reads the environment, which has a lock of its own.
    pub(crate) fn of(region: &Arc<Region>, others: Range<usize>) -> Kernel {
        let late = region.opens_late(region.geometry().role_of(others.start).other());
        let pipes = match (&region.files, &region.private) {
            (Some(_), _) if late => Pipes::Late {
                region: region.clone(),
                first: others.start,
                open: others.map(|_| OnceLock::new()).collect(),
            },
            (Some(_), _) => Pipes::Open(others.map(|_| OnceLock::new()).collect()),
            (None, Some(private)) => Pipes::Private(private.clone(), others.start),
            (None, None) => Pipes::None,
        };
        // Zero means unknown, on either side.
        let boot = region.header.identity.boot;
        let barriers = if region.private.is_some() {
            Barriers::Own
        } else if boot != 0 && boot == clock::boot_id() {
            Barriers::Every
        } else {
            Barriers::None
        };
        let usable = barriers != Barriers::None && registered();
        let barriers = if usable { barriers } else { Barriers::None };
        Kernel { barriers, pipes }
    }

    /// Keeps the pipe of the other side's seat `seat` open for writing. Only the process with the
    /// seat's lock may open it. A process that only wants the seat, and is stopped meanwhile, would
    /// hide the holder's death.
    pub(crate) fn hold_open(&self, seat: usize, pipe: Unforked) {
        if let Pipes::Open(places) = &self.pipes {
            let _ = places[seat].set(pipe);
        }
    }

    /// Returns `true` if the pipes of the other side must be held open from before the seat is
    /// held.
    pub(crate) fn opens_early(&self) -> bool {
        matches!(self.pipes, Pipes::Open(_))
    }

    /// Returns `true` if handles must fence at each publish.
    pub(crate) fn fenced(&self) -> bool {
        self.barriers == Barriers::None
    }
}

/// Registers this process for its own and other processes' barriers: once, for good, and before its
/// first publish. A forked child inherits the registration.
fn registered() -> bool {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
    // No `OnceLock`: if a fork came in the middle of its first use, the child's would stay in use
    // for ever. Registering twice does no harm. Relaxed: registering is a system call, and orders
    // what comes after it.
    static REGISTERED: AtomicU8 = AtomicU8::new(UNKNOWN);
    match REGISTERED.load(Ordering::Relaxed) {
        UNKNOWN => {
            let forced = std::env::var_os(FORCE).is_some_and(|value| value != "0");
            let done = !forced
                && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
                && membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok();
            REGISTERED.store(if done { YES } else { NO }, Ordering::Relaxed);
            done
        }
        known => known == YES,
    }
}

/// Returns the bits by which the kernel knows these seats, of those that sleep on one doorbell.
fn bits(seats: u64) -> NonZeroU32 {
    NonZeroU32::new((seats | seats >> 32) as u32).unwrap_or(NonZeroU32::MAX)
}

impl Os for Kernel {
    fn sleep(&self, doorbell: &AtomicU32, seen: u32, seats: u64, at_most: u64) {
        // An absolute time, as this call wants it.
        let until = self.now().saturating_add(at_most);
        let until = Timespec {
            tv_sec: (until / 1_000_000_000) as i64,
            tv_nsec: (until % 1_000_000_000) as _,
        };
        // Whatever the call returns (woken, interrupted, too late, timed out), the caller looks
        // again. The futex is shared, not private to the process: the same word is mapped
        // elsewhere.
        let _ = futex::wait_bitset(
            doorbell,
            futex::Flags::empty(),
            seen,
            Some(&until),
            bits(seats),
        );
    }

    fn wake(&self, doorbell: &AtomicU32, seats: u64) {
        // The call fails only if the word is no longer mapped; then no waiter sleeps there.
        let _ = futex::wake_bitset(
            doorbell,
            futex::Flags::empty(),
            i32::MAX as u32,
            bits(seats),
        );
    }

    fn signal(&self, seat: usize) {
        match &self.pipes {
            Pipes::Open(open) => {
                if let Some(pipe) = open[seat].get().and_then(Unforked::get) {
                    pipes::ring(pipe);
                }
            }
            Pipes::Late {
                region,
                first,
                open,
            } => {
                if open[seat].get().is_none() {
                    // Without a free descriptor there is no byte. The poller's helper thread looks
                    // for that case as long as the pipe is not open here (`recheck.rs`).
                    let pipe = Unforked::open(|| region.pipe(first + seat, pipes::WRITE));
                    let _ = pipe.map(|pipe| open[seat].set(pipe));
                }
                if let Some(pipe) = open[seat].get().and_then(Unforked::get) {
                    pipes::ring(pipe);
                }
            }
            Pipes::Private(private, first) => private.write(first + seat),
            Pipes::None => {}
        }
    }

    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn coarse_now(&self) -> u64 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn barrier(&self) -> Reach {
        let (command, reach) = match self.barriers {
            Barriers::None => return Reach::Nobody,
            Barriers::Own => (MembarrierCommand::PrivateExpedited, Reach::Everybody),
            // The barrier can miss CPUs, even of this process: see `wait.rs`. A second look finds
            // what it misses, so a second call would gain nothing.
            Barriers::Every => (MembarrierCommand::GlobalExpedited, Reach::Known),
        };
        match membarrier(command) {
            Ok(()) => reach,
            // A sandbox may refuse what was allowed when this process registered.
            Err(_) => Reach::Nobody,
        }
    }
}

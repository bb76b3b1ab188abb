//! A timer with a descriptor.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// Makes a timer that is not set.
pub(super) fn create() -> Result<OwnedFd, Errno> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    timerfd_create(TimerfdClockId::Monotonic, flags)
}

/// Makes it readable once, `after` from now; until then it is not readable.
pub(super) fn set(timer: BorrowedFd<'_>, after: Duration) -> Result<(), Errno> {
    let once = Itimerspec {
        it_interval: Timespec::default(),
        // Zero would mean never, and so does a time that no clock knows.
        it_value: Timespec::try_from(after.max(Duration::from_nanos(1))).unwrap_or_default(),
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).map(|_| ())
}

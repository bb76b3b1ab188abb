//! Clocks and identities of this machine and this process, read off the hot path.

use std::sync::{Mutex, TryLockError};

use rustix::time::{ClockId, clock_gettime};

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}

/// Returns the nanoseconds since boot, including suspended time. The clock is the same in every
/// process.
pub(crate) fn since_boot() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// Returns the nanoseconds since boot, without suspended time. The clock is the same in every
/// process, and the notes of a queue's slots are by it.
pub(crate) fn since_boot_awake() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Returns the nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// A value that is read once, for the process that read it.
///
/// In a forked child, a thread that does not exist there may hold the lock. So no caller waits for
/// the lock: a caller that does not get it reads the value anew.
struct Known<T>(Mutex<Option<T>>);

impl<T: Copy> Known<T> {
    const fn nothing() -> Known<T> {
        Known(Mutex::new(None))
    }

    /// Returns the stored value if it is `valid`, or else the value that `read` returns. If `read`
    /// was not sure (`None` as its second half), the value is not stored.
    fn get(&self, valid: impl Fn(&T) -> bool, read: impl FnOnce() -> (T, Option<T>)) -> T {
        let mut known = match self.0.try_lock() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(known)) => known.into_inner(),
            Err(TryLockError::WouldBlock) => return read().0,
        };
        if let Some(value) = known.filter(valid) {
            return value;
        }
        let (value, sure) = read();
        *known = sure;
        value
    }
}

/// Returns the kernel's boot id, or zero without /proc.
pub(crate) fn boot_id() -> u128 {
    static KNOWN: Known<u128> = Known::nothing();
    KNOWN.get(
        |_| true,
        || {
            let text =
                std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            let id = u128::from_str_radix(&text.trim().replace('-', ""), 16).ok();
            (id.unwrap_or(0), id)
        },
    )
}

/// The identity of this process, for other processes.
#[derive(Clone, Copy)]
struct Process {
    /// The number of forks between the program's start and the process that read it.
    forks: u64,
    pid: u64,
    /// The process's start time, in clock ticks since boot.
    start: u64,
    /// The process's pid namespace.
    namespace: u64,
}

/// Returns the identity of this process: pid, start time in clock ticks since boot, pid namespace.
/// None of them changes while a process lives. A forked child is another process.
pub(crate) fn process() -> (u64, u64, u64) {
    static KNOWN: Known<Process> = Known::nothing();
    let (forks, pid) = (crate::fork::forks(), u64::from(std::process::id()));
    let found = KNOWN.get(
        |known| (known.forks, known.pid) == (forks, pid),
        || {
            let (start, namespace) = (start_time(), namespace());
            let process = Process {
                forks,
                pid,
                start: start.unwrap_or(0),
                namespace: namespace.unwrap_or(0),
            };
            (process, start.and(namespace).and(Some(process)))
        },
    );
    (found.pid, found.start, found.namespace)
}

fn start_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the command in parentheses, may hold any character: count from its end.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

fn namespace() -> Option<u64> {
    Some(rustix::fs::stat("/proc/self/ns/pid").ok()?.st_ino)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// A stored value is not read again, unless it is another process's or was never certain.
    #[test]
    fn what_is_known_is_kept() {
        let known = Known::<u64>::nothing();
        assert_eq!(known.get(|_| true, || (1, None)), 1);
        assert_eq!(known.get(|_| true, || (2, Some(2))), 2);
        assert_eq!(known.get(|_| true, || panic!("read again")), 2);
        assert_eq!(known.get(|value| *value != 2, || (3, Some(3))), 3);
        let _taken = known.0.lock().unwrap();
        assert_eq!(known.get(|_| true, || (4, Some(4))), 4, "nobody waits");
    }
}

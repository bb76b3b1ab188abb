//! Clocks and names of this machine, read off the hot path.

use rustix::time::{ClockId, clock_gettime};

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}

/// Nanoseconds since boot, suspended time included; the same clock in every process.
pub(crate) fn since_boot() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// The kernel's boot id, or zero without /proc. Read anew each time, off the hot path: what is kept in a
/// `OnceLock` is lost for a child that was forked while it was made.
pub(crate) fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

/// This process as others may find it: pid, start time in clock ticks since boot, pid namespace.
/// Read anew each time: a fork makes another process of us.
pub(crate) fn process() -> (u64, u64, u64) {
    let pid = u64::from(std::process::id());
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the command in parentheses, may hold anything: count from its end.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start = after
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0);
    let namespace = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino);
    (pid, start, namespace)
}

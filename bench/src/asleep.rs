//! Tells from the kernel's report when threads are asleep.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// The time for which a thread must have been asleep when the next message comes.
const SETTLED: Duration = Duration::from_micros(20);

/// The kernel's report about one thread.
pub struct Sleeper(File);

impl Sleeper {
    /// Opens the report about thread `tid` of any process.
    pub fn new(tid: libc::pid_t) -> Result<Sleeper, String> {
        let path = format!("/proc/{tid}/status");
        let file = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok(Sleeper(file))
    }

    /// Returns the number of times that the thread went to sleep, if it is asleep now.
    fn slept(&self) -> Option<u64> {
        let mut text = [0; 4096];
        let len = self.0.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(&text[..len]).ok()?;
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
        let asleep = field("State:")?.trim().starts_with('S');
        let slept = field("voluntary_ctxt_switches:")?.trim().parse().ok()?;
        asleep.then_some(slept)
    }
}

/// Waits until all threads are asleep, and have been for a moment. Returns the number of times that they went to sleep,
/// together.
pub fn all_asleep(sleepers: &[Sleeper]) -> Result<u64, String> {
    let patience = Instant::now();
    let (mut last, mut since) = (None, Instant::now());
    while patience.elapsed() < Duration::from_secs(5) {
        let now = sleepers.iter().map(Sleeper::slept).sum::<Option<u64>>();
        match (now, last) {
            (Some(now), Some(before)) if now == before && since.elapsed() >= SETTLED => {
                return Ok(now);
            }
            (Some(now), Some(before)) if now == before => std::hint::spin_loop(),
            (now, _) => (last, since) = (now, Instant::now()),
        }
    }
    Err("the workers do not fall asleep".to_owned())
}

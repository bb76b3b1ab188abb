//! Measures waiting for many channels: the cost of a wake among a thousand, and the processor time
//! of a thousand idle ones.

use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use slipring::{Error, SetupError, WaitSet, spsc};

use super::RUNS;
use super::runs::{beside, histogram};
use crate::exit::Failure;

/// The number of channels in a large set.
pub(super) const MANY: usize = 1000;
/// Wakes of one run; a tenth more come first, to warm up.
const WAKES: u64 = 5_000;
/// The waker rests this long before each wake, so that the other thread sleeps.
const REST: Duration = Duration::from_micros(50);
/// The idle channels are watched for this long.
const IDLE: Duration = Duration::from_secs(1);

/// The cost of one wake, in nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    /// From before the push until the wait returned: the median.
    pub(super) latency: u64,
    /// Processor time of the woken thread, from one wait to the next: the mean.
    pub(super) processor: u64,
}

/// Measures the cost of a wake in a set of one channel and in a set of [`MANY`], in turn.
pub(super) fn wakes() -> Result<[Cost; 2], Failure> {
    let sizes = [1, MANY];
    let mut latencies = [histogram()?, histogram()?];
    let mut used = [Duration::ZERO; 2];
    for _ in 0..RUNS {
        for (i, size) in sizes.into_iter().enumerate() {
            let (latency, time) = run(size)?;
            latencies[i] += latency;
            used[i] += time;
        }
    }
    Ok([0, 1].map(|i| Cost {
        latency: latencies[i].value_at_quantile(0.5),
        processor: used[i].as_nanos() as u64 / (WAKES * RUNS as u64),
    }))
}

/// A set of idle channels, with their producers.
struct Bed {
    set: WaitSet,
    keys: Vec<slipring::set::Key>,
    rx: Vec<spsc::Consumer<u64>>,
    tx: Vec<spsc::Producer<u64>>,
}

fn bed(size: usize) -> Result<Bed, SetupError> {
    // Each channel takes a pipe, and the usual lower limit refuses that many descriptors.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let ends = (0..size).map(|_| spsc::channel(1));
    let (tx, rx): (Vec<_>, Vec<_>) = ends
        .collect::<Result<Vec<_>, SetupError>>()?
        .into_iter()
        .unzip();
    let set = WaitSet::new()?;
    let keys = rx
        .iter()
        .map(|rx| set.watch(rx))
        .collect::<Result<_, _>>()?;
    Ok(Bed { set, keys, rx, tx })
}

/// Returns the processor time that this thread has used.
pub(super) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn run(size: usize) -> Result<(hdrhistogram::Histogram<u64>, Duration), Failure> {
    let Bed {
        mut set,
        keys,
        mut rx,
        mut tx,
    } = bed(size)?;
    let (mut ack, mut acked) = spsc::channel::<u64>(1)?;
    let total = WAKES + WAKES / 10;
    let which = |number: u64| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize % size;
    let begun = Instant::now();
    let far = move || {
        for number in 0..total {
            let rested = Instant::now();
            while rested.elapsed() < REST {
                std::hint::spin_loop();
            }
            let now = begun.elapsed().as_nanos() as u64;
            tx[which(number)].push(now)?;
            acked.pop()?;
        }
        Ok(())
    };
    beside(far, || {
        let mut latencies = histogram()?;
        let mut used = processor_time();
        for number in 0..total {
            if number == total - WAKES {
                used = processor_time();
            }
            let events = set.wait()?;
            let now = begun.elapsed().as_nanos() as u64;
            if events.len() != 1 || events[0].key != keys[which(number)] {
                return Err(Failure::Words(format!(
                    "wake {number} is of another channel"
                )));
            }
            let sent = rx[which(number)].try_pop()?;
            if number >= total - WAKES {
                latencies.saturating_record(now.saturating_sub(sent));
            }
            ack.push(number)?;
        }
        Ok((latencies, processor_time() - used))
    })
}

/// Returns the share of a core that a set of [`MANY`] idle channels needs.
pub(super) fn idle() -> Result<f64, Failure> {
    let Bed {
        mut set,
        rx: _rx,
        tx: _tx,
        ..
    } = bed(MANY)?;
    let mut wait = |time| match set.wait_timeout(time) {
        Err(Error::TimedOut) => Ok(()),
        Err(error) => Err(Failure::from(error)),
        Ok(_) => Err(Failure::Words("a message that nobody sent".into())),
    };
    // On its first call, the set asks each channel to wake it.
    wait(Duration::ZERO)?;
    let before = processor_time();
    wait(IDLE)?;
    Ok((processor_time() - before).as_secs_f64() / IDLE.as_secs_f64())
}

//! Sends a steady 10,000 messages a second, and measures the processor time of both sides and the
//! delay of the messages. A pipe is used in the same way beside it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, Timespec, clock_gettime};
use slipring::spsc;

use super::{Row, Unit, Wanted};
use crate::bench::many::processor_time;
use crate::bench::runs::{beside, histogram};
use crate::exit::Failure;

const MESSAGES: u64 = 20_000;
/// Nanoseconds from one message to the next.
const EVERY: u64 = 100_000;

/// The figures of one run.
struct Run {
    /// The processor time of each side.
    producer: Duration,
    consumer: Duration,
    /// Nanoseconds from before a send until it was received.
    latency: Histogram<u64>,
}

pub(super) fn run() -> Result<Vec<Row>, Failure> {
    let pacing = pace(|_| Ok(()))?;
    let (ours, pipe) = (over_slipring()?, over_pipe()?);
    let percent = |used: Duration| used.as_nanos() as f64 / (MESSAGES * EVERY) as f64 * 100.0;
    // The time that keeping the pace takes is not the channel's.
    let side = |key: &str, ours: Duration, pipe: Duration| Row {
        key: format!("steady_processor_{key}"),
        name: format!("steady 10,000/s: processor, {key}"),
        unit: Unit::Percent,
        ours: percent(ours),
        peer: ("pipe", percent(pipe)),
        wanted: Wanted::Itself(10.0),
    };
    let mut rows = vec![
        side(
            "producer",
            ours.producer.saturating_sub(pacing),
            pipe.producer.saturating_sub(pacing),
        ),
        side("consumer", ours.consumer, pipe.consumer),
    ];
    rows.extend([("p50", 0.5), ("p99", 0.99)].map(|(name, quantile)| Row {
        key: format!("steady_latency_{name}"),
        name: format!("steady 10,000/s: latency, {name}"),
        unit: Unit::Nanoseconds,
        ours: ours.latency.value_at_quantile(quantile) as f64,
        peer: ("pipe", pipe.latency.value_at_quantile(quantile) as f64),
        wanted: Wanted::AtMost(2.0),
    }));
    Ok(rows)
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Calls `send` at each moment, and returns the processor time that this thread took to do so.
fn pace(mut send: impl FnMut(u64) -> Result<(), Failure>) -> Result<Duration, Failure> {
    let (used, began) = (processor_time(), now());
    for number in 0..MESSAGES {
        let at = began + number * EVERY;
        let at = Timespec {
            tv_sec: (at / 1_000_000_000) as i64,
            tv_nsec: (at % 1_000_000_000) as _,
        };
        while rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &at) == Err(Errno::INTR)
        {
        }
        send(now())?;
    }
    Ok(processor_time() - used)
}

/// Receives all messages.
fn receive(
    mut next: impl FnMut() -> Result<u64, Failure>,
) -> Result<(Duration, Histogram<u64>), Failure> {
    let (used, mut latency) = (processor_time(), histogram()?);
    for _ in 0..MESSAGES {
        let sent = next()?;
        latency.saturating_record(now().saturating_sub(sent));
    }
    Ok((processor_time() - used, latency))
}

fn both(
    mut send: impl FnMut(u64) -> Result<(), Failure> + Send,
    next: impl FnMut() -> Result<u64, Failure>,
) -> Result<Run, Failure> {
    let mut producer = Duration::ZERO;
    let (consumer, latency) = beside(
        || {
            // The usual timer slack of 50 us would be half of the interval.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
            producer = pace(&mut send)?;
            Ok(())
        },
        || receive(next),
    )?;
    Ok(Run {
        producer,
        consumer,
        latency,
    })
}

fn over_slipring() -> Result<Run, Failure> {
    let (mut tx, mut rx) = spsc::channel::<u64>(1024)?;
    both(move |now| Ok(tx.push(now)?), || Ok(rx.pop()?))
}

fn over_pipe() -> Result<Run, Failure> {
    let (rx, tx): (OwnedFd, OwnedFd) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::io("make a pipe", errno))?;
    both(
        |now| match rustix::io::write(&tx, &now.to_ne_bytes()) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Failure::io("write to a pipe", errno)),
        },
        || {
            let mut message = [0; 8];
            loop {
                match rustix::io::read(&rx, &mut message) {
                    Err(Errno::INTR) => {}
                    Ok(0) => return Err(Failure::Words("a pipe ended early".into())),
                    Ok(_) => return Ok(u64::from_ne_bytes(message)),
                    Err(errno) => return Err(Failure::io("read from a pipe", errno)),
                }
            }
        },
    )
}

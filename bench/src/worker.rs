//! Does one run in a process of its own, which the referee starts and whose output it reads back.
//!
//! Each run has a process, because a contender that crashes must not take the others with it. A
//! contender that stalls can only be stopped by killing it. And none should inherit another's heap.

use crate::broadcast::{Fan, Way};
use crate::duel::{Run, Sample};
use crate::message::{Job, Line, Task as Messages};
use crate::peers::{self, About, Mode, Task};
use crate::plan::{Case, Slow, TRIP_CAPACITY};
use std::path::PathBuf;
use std::time::Duration;

/// Steps of work a message in the `slip` cases: a few nanoseconds, about the cost of handing over
/// one message. A batch hands a message over for less, so its messages carry less work.
const TOIL_ONE: u32 = 8;
const TOIL_BATCH: u32 = 3;

/// The orders of a worker, on its command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Order {
    /// The case.
    #[arg(long)]
    pub case: Case,
    /// The contender's name.
    #[arg(long)]
    pub contender: String,
    /// The number of messages on the clock.
    #[arg(long)]
    pub messages: u64,
    /// The number of messages in a probe of the warm-up.
    #[arg(long)]
    pub probe: u64,
    /// The number of slots in a ring of fixed-size messages.
    #[arg(long)]
    pub capacity: usize,
    /// The size in bytes of a ring of records.
    #[arg(long)]
    pub ring_bytes: usize,
    /// The producer's core.
    #[arg(long)]
    pub producer_core: usize,
    /// The consumer's core.
    #[arg(long)]
    pub consumer_core: usize,
    /// A directory on shared memory.
    #[arg(long)]
    pub dir: PathBuf,
    /// Run before the machine's other work: in the real-time class, first in, first out.
    #[arg(long)]
    pub urgent: bool,
}

impl Order {
    /// Returns the same orders as a command line.
    pub fn to_args(&self) -> Vec<String> {
        [
            ("--case", self.case.to_string()),
            ("--contender", self.contender.clone()),
            ("--messages", self.messages.to_string()),
            ("--probe", self.probe.to_string()),
            ("--capacity", self.capacity.to_string()),
            ("--ring-bytes", self.ring_bytes.to_string()),
            ("--producer-core", self.producer_core.to_string()),
            ("--consumer-core", self.consumer_core.to_string()),
            ("--dir", self.dir.display().to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .chain(self.urgent.then(|| "--urgent".to_owned()))
        .collect()
    }
}

/// Runs the order and prints the sample on one line.
pub fn work(order: &Order) -> Result<(), String> {
    let about = peers::named(&order.contender)
        .ok_or_else(|| format!("no contender is called {:?}", order.contender))?;
    if order.urgent {
        let first = libc::sched_param { sched_priority: 1 };
        // SAFETY: `first` is a valid parameter; 0 is this thread, and threads inherit from it.
        let failed = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &first) };
        if failed != 0 {
            return Err(format!("--urgent: {}", std::io::Error::last_os_error()));
        }
    }
    let sample = dispatch(about, order);
    print!(
        "{} {} {} {:.4} {}",
        sample.time.as_nanos(),
        sample.own.unwrap_or(sample.time).as_nanos(),
        sample.bad,
        sample.on_core,
        sample.lost
    );
    match sample.line {
        Some((before, after)) => println!(" {before:.1} {after:.1}"),
        None => println!(),
    }
    Ok(())
}

/// Reads the line that [`work`] printed.
pub fn read_sample(line: &str) -> Option<Sample> {
    let mut words = line.split_whitespace();
    let time = Duration::from_nanos(words.next()?.parse().ok()?);
    let own = Some(Duration::from_nanos(words.next()?.parse().ok()?));
    let bad = words.next()?.parse().ok()?;
    let on_core = words.next()?.parse().ok()?;
    let lost = words.next()?.parse().ok()?;
    let line = match (words.next(), words.next()) {
        (Some(before), Some(after)) => Some((before.parse().ok()?, after.parse().ok()?)),
        _ => None,
    };
    Some(Sample {
        time,
        bad,
        on_core,
        line,
        own,
        lost,
    })
}

fn dispatch(about: &About, order: &Order) -> Sample {
    let run = Run {
        capacity: order.capacity,
        ring_bytes: order.ring_bytes,
        warm: 2 * order.capacity as u64,
        probe: order.probe,
        messages: order.messages,
        cores: (order.producer_core, order.consumer_core),
        processes: false,
        dir: order.dir.clone(),
    };
    match order.case {
        Case::Fixed { size, mode, slow } => by_size(about, size, slow, Task::Stream(mode), &run),
        Case::Trip { size } => {
            let run = Run {
                capacity: TRIP_CAPACITY,
                warm: 2048,
                ..run
            };
            by_size(about, size, Slow::Nobody, Task::RoundTrip, &run)
        }
        Case::Records { spread, mode } => {
            let lengths = spread.lengths();
            // The warm-up goes once around the ring, with about eight bytes a record for its
            // length.
            let warm = (run.ring_bytes / (lengths.mean() + 8)).clamp(512, 1 << 20) as u64;
            peers::run_records(about.name, mode, &lengths, &Run { warm, ..run })
        }
        Case::Broadcast(fan) if fan.way == Way::Trip => {
            let run = Run {
                capacity: TRIP_CAPACITY,
                warm: 2048,
                ..run
            };
            to_all(about, fan, &run)
        }
        Case::Broadcast(fan) => to_all(about, fan, &run),
    }
}

fn to_all(about: &About, fan: Fan, run: &Run) -> Sample {
    let go = match (fan.size, about.aligned) {
        (8, _) => peers::run_broadcast::<Messages<[u64; 1]>>,
        (64, true) => peers::run_broadcast::<Messages<Line>>,
        (64, false) => peers::run_broadcast::<Messages<[u64; 8]>>,
        (1264, _) => peers::run_broadcast::<Messages<[u64; 158]>>,
        (size, _) => panic!("no such message: {size} bytes to all"),
    };
    go(about.name, fan, run)
}

fn by_size(about: &About, size: usize, slow: Slow, task: Task, run: &Run) -> Sample {
    type Small = [u64; 1];
    type Packed = [u64; 8];
    let batch = task == Task::Stream(Mode::Batch);
    let go = match (size, about.aligned, slow, batch) {
        (8, _, Slow::Nobody, _) => go::<Messages<Small>>,
        (8, _, Slow::Producer, false) => go::<Messages<Small, TOIL_ONE>>,
        (8, _, Slow::Consumer, false) => go::<Messages<Small, 0, TOIL_ONE>>,
        (8, _, Slow::Producer, true) => go::<Messages<Small, TOIL_BATCH>>,
        (8, _, Slow::Consumer, true) => go::<Messages<Small, 0, TOIL_BATCH>>,
        (64, true, Slow::Nobody, _) => go::<Messages<Line>>,
        (64, true, Slow::Producer, false) => go::<Messages<Line, TOIL_ONE>>,
        (64, true, Slow::Consumer, false) => go::<Messages<Line, 0, TOIL_ONE>>,
        (64, true, Slow::Producer, true) => go::<Messages<Line, TOIL_BATCH>>,
        (64, true, Slow::Consumer, true) => go::<Messages<Line, 0, TOIL_BATCH>>,
        (64, false, Slow::Nobody, _) => go::<Messages<Packed>>,
        (64, false, Slow::Producer, false) => go::<Messages<Packed, TOIL_ONE>>,
        (64, false, Slow::Consumer, false) => go::<Messages<Packed, 0, TOIL_ONE>>,
        (64, false, Slow::Producer, true) => go::<Messages<Packed, TOIL_BATCH>>,
        (64, false, Slow::Consumer, true) => go::<Messages<Packed, 0, TOIL_BATCH>>,
        (1264, _, Slow::Nobody, _) => go::<Messages<[u64; 158]>>,
        (4096, _, Slow::Nobody, _) => go::<Messages<[u64; 512]>>,
        _ => panic!("no such message: {size} bytes, {slow:?} slow"),
    };
    go(about.name, task, run)
}

fn go<J: Job>(name: &str, task: Task, run: &Run) -> Sample {
    peers::run_fixed::<J>(name, task, run)
}

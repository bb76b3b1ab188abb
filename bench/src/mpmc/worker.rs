//! Does one run in a process of its own, for the same reasons as the other benches: a contender that
//! crashes or stalls ends alone, and none inherits another's heap.

use super::alone;
use super::blocking::Wake;
use super::crew::{self, Run, cores};
use super::peers::{self, Contender, Visit};
use super::plan::{Case, Timed};
use crate::duel::distance;
use crate::message::{Job, Line, Task};
use serde::{Deserialize, Serialize};

/// The orders of a worker, on its command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Order {
    /// The case.
    #[arg(long)]
    pub case: Case,
    /// The contender's name.
    #[arg(long)]
    pub contender: String,
    /// The length of the run in seconds.
    #[arg(long)]
    pub seconds: f64,
}

impl Order {
    /// Returns the same orders as a command line.
    pub fn to_args(&self) -> Vec<String> {
        [
            ("--case", self.case.to_string()),
            ("--contender", self.contender.clone()),
            ("--seconds", self.seconds.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

/// One run's figure, in the unit of its case.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Sample {
    /// Million messages a second, or nanoseconds.
    pub value: f64,
    /// The number of workers that woke for an item, on average, where workers sleep.
    pub woken: Option<f64>,
    /// The nanoseconds of a cache line from the first core to the second and back, before and after.
    pub line: Option<(f64, f64)>,
}

impl Sample {
    /// Returns a sample that is only a value.
    pub fn of(value: f64) -> Sample {
        Sample {
            value,
            woken: None,
            line: None,
        }
    }
}

/// Runs the order and prints the sample on one line.
pub fn work(order: &Order) -> Result<(), String> {
    let cores = cores();
    let line = || (cores.len() > 1).then(|| distance((cores[0], cores[1])));
    let before = line();
    let sample = dispatch(order)?;
    let sample = Sample {
        line: before.zip(line()),
        ..sample
    };
    println!("{}", serde_json::to_string(&sample).expect("plain numbers"));
    Ok(())
}

/// Reads the line that [`work`] printed.
pub fn read_sample(line: &str) -> Option<Sample> {
    serde_json::from_str(line).ok()
}

fn dispatch(order: &Order) -> Result<Sample, String> {
    let seconds = order.seconds;
    let value = match order.case {
        Case::Stream {
            crew,
            size,
            batch,
            capacity,
        } => {
            let run = Run {
                crew,
                batch,
                capacity,
                seconds,
            };
            by_size(&order.contender, size, Streaming(run))
        }
        Case::Alone(timed) => by_size(&order.contender, 8, Alone(timed, seconds)),
        Case::Wake => return peers::wake(&order.contender, Wake::Taken, 1, seconds),
        Case::WakingPush(workers) => {
            return peers::wake(&order.contender, Wake::Push, workers, seconds);
        }
        Case::Jobs(crew) => return peers::jobs(&order.contender, crew, seconds),
    }?;
    Ok(Sample::of(value))
}

/// A stream.
struct Streaming(Run);

impl Visit for Streaming {
    fn visit<J: Job, C: Contender<J>>(self) -> Result<f64, String> {
        crew::stream::<J, C>(&self.0)
    }
}

/// One thread.
struct Alone(Timed, f64);

impl Visit for Alone {
    fn visit<J: Job, C: Contender<J>>(self) -> Result<f64, String> {
        alone::run::<J, C>(self.0, self.1)
    }
}

fn by_size(contender: &str, size: usize, visit: impl Visit) -> Result<f64, String> {
    let about =
        peers::named(contender).ok_or_else(|| format!("no contender is called {contender:?}"))?;
    match (size, about.aligned) {
        (8, _) => peers::visit::<Task<[u64; 1]>>(about.name, visit),
        (32, _) => peers::visit::<Task<[u64; 4]>>(about.name, visit),
        (64, true) => peers::visit::<Task<Line>>(about.name, visit),
        (64, false) => peers::visit::<Task<[u64; 8]>>(about.name, visit),
        (512, _) => peers::visit::<Task<[u64; 64]>>(about.name, visit),
        (1264, _) => peers::visit::<Task<[u64; 158]>>(about.name, visit),
        _ => Err(format!("no such message: {size} bytes")),
    }
}

//! The cases and their names.

use std::fmt;
use std::str::FromStr;

/// Sizes of messages in the streams, in bytes.
pub const SIZES: [usize; 3] = [8, 64, 1264];
/// Capacities in the streams.
pub const CAPACITIES: [usize; 3] = [32, 1024, 4096];
/// The number of messages in a batch of the streams.
pub const BATCH: usize = 16;
/// Sizes of messages in yep-coc's own grid, in bytes.
pub const GRID_SIZES: [usize; 2] = [32, 512];
/// Capacities in yep-coc's own grid.
pub const GRID_CAPACITIES: [usize; 2] = [32, 1024];
/// Sizes of batches in yep-coc's own grid.
pub const GRID_BATCHES: [usize; 3] = [1, 16, 32];
/// The numbers of threads in the streams.
pub const CREWS: [Crew; 4] = [Crew::of(1), Crew::of(2), Crew::of(4), Crew::of(8)];

/// The two numbers of sleeping workers that are compared with each other.
pub const WORKERS: [usize; 2] = [1, 63];
/// The numbers of threads beside Redis.
pub const JOB_CREWS: [Crew; 2] = [Crew::of(1), Crew::of(4)];

/// A part of the cases, as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Producers and consumers that try again when the queue is full or empty.
    Streams,
    /// One thread that pushes and pops.
    Alone,
    /// The sizes, capacities and batches of yep-coc's own benchmark.
    Grid,
    /// Workers that sleep until an item comes.
    Wake,
    /// Jobs for workers that sleep, beside a Redis list on loopback.
    Redis,
    /// Everything.
    All,
}

/// The threads of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Crew {
    /// The number of producers.
    pub producers: usize,
    /// The number of consumers.
    pub consumers: usize,
}

impl Crew {
    /// Returns a crew with as many producers as consumers.
    pub const fn of(each: usize) -> Crew {
        Crew {
            producers: each,
            consumers: each,
        }
    }
}

/// The part of a push and a pop that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timed {
    /// A push, then a pop.
    Both,
    /// The pushes that fill half of the queue.
    Push,
    /// The pops that drain half of the queue.
    Pop,
}

/// One measurement of every contender that offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Case {
    /// A stream between threads: million messages a second.
    Stream {
        /// The threads.
        crew: Crew,
        /// The size of a message in bytes.
        size: usize,
        /// The number of messages handed over at a time.
        batch: usize,
        /// The number of slots.
        capacity: usize,
    },
    /// One thread and messages of 8 bytes: nanoseconds.
    Alone(Timed),
    /// From a push until one sleeping worker has the item: nanoseconds.
    Wake,
    /// A push beside this number of sleeping workers: nanoseconds.
    WakingPush(usize),
    /// Jobs of 64 bytes for workers that sleep: million a second.
    Jobs(Crew),
}

impl Case {
    /// Returns `true` if figures are times, which should be small, and not rates.
    pub fn is_time(self) -> bool {
        match self {
            Case::Stream { .. } | Case::Jobs(_) => false,
            Case::Alone(_) | Case::Wake | Case::WakingPush(_) => true,
        }
    }

    /// Returns `true` if the case belongs to yep-coc's own grid.
    pub fn is_grid(self) -> bool {
        matches!(self, Case::Stream { size, .. } if GRID_SIZES.contains(&size))
    }

    fn belongs(self, part: Part) -> bool {
        match part {
            Part::All => true,
            Part::Grid => self.is_grid(),
            Part::Streams => matches!(self, Case::Stream { .. }) && !self.is_grid(),
            Part::Alone => matches!(self, Case::Alone(_)),
            Part::Wake => matches!(self, Case::Wake | Case::WakingPush(_)),
            Part::Redis => matches!(self, Case::Jobs(_)),
        }
    }
}

impl fmt::Display for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.producers, self.consumers)
    }
}

impl fmt::Display for Case {
    /// Writes a name such as `stream/2+2/64B/by16/1024`: threads, size, batch, capacity.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Stream {
                crew,
                size,
                batch,
                capacity,
            } => {
                let part = if self.is_grid() { "grid" } else { "stream" };
                write!(f, "{part}/{crew}/{size}B/by{batch}/{capacity}")
            }
            Case::Alone(Timed::Both) => write!(f, "alone/both"),
            Case::Alone(Timed::Push) => write!(f, "alone/push"),
            Case::Alone(Timed::Pop) => write!(f, "alone/pop"),
            Case::Wake => write!(f, "wake/latency"),
            Case::WakingPush(workers) => write!(f, "wake/push/{workers}"),
            Case::Jobs(crew) => write!(f, "redis/{crew}"),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    /// Parses the output of `Display`, for a worker's command line.
    fn from_str(name: &str) -> Result<Self, String> {
        cases(Part::All)
            .into_iter()
            .find(|case| case.to_string() == name)
            .ok_or_else(|| format!("no case is called {name:?}"))
    }
}

/// Returns the cases of one part, in the order in which they run.
pub fn cases(part: Part) -> Vec<Case> {
    let mut all = Vec::new();
    let mut stream = |crew, size, batch, capacity| {
        all.push(Case::Stream {
            crew,
            size,
            batch,
            capacity,
        });
    };
    for crew in CREWS {
        for batch in [1, BATCH] {
            for size in SIZES {
                for capacity in CAPACITIES {
                    stream(crew, size, batch, capacity);
                }
                if size == 8 && batch == 1 {
                    stream(crew, size, batch, 256);
                }
            }
        }
    }
    for crew in [Crew::of(1), Crew::of(2)] {
        for batch in GRID_BATCHES {
            for size in GRID_SIZES {
                for capacity in GRID_CAPACITIES {
                    stream(crew, size, batch, capacity);
                }
            }
        }
    }
    all.extend([Timed::Both, Timed::Push, Timed::Pop].map(Case::Alone));
    all.push(Case::Wake);
    all.extend(WORKERS.map(Case::WakingPush));
    all.extend(JOB_CREWS.map(Case::Jobs));
    all.retain(|case| case.belongs(part));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_case_again() {
        for case in cases(Part::All) {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
    }
}

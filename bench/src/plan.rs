//! The cases, their names, and the contenders that take part in each.

use crate::broadcast::Fan;
use crate::message::Lengths;
use crate::peers::{ALL, About, Kind, Mode};
use std::fmt;
use std::str::FromStr;

/// Sizes of fixed-size messages, in bytes.
pub const SIZES: [usize; 4] = [8, 64, 1264, 4096];
/// Sizes in the `slip` cases.
pub const SLIP_SIZES: [usize; 2] = [8, 64];
/// Sizes in round trips.
pub const TRIP_SIZES: [usize; 3] = [8, 64, 1264];
/// The number of slots of the rings in round trips, in every run: only one message is on its way.
pub const TRIP_CAPACITY: usize = 64;

/// A group of cases, as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Streams of fixed-size messages.
    Spsc,
    /// The same with a little work on one side, beside their plain figures.
    Slip,
    /// Streams of variable-size records.
    Bytes,
    /// Round trips.
    Roundtrip,
    /// One writer, and readers that all receive every message.
    Broadcast,
    /// Everything.
    All,
}

/// The side that has a little work to do for each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slow {
    /// Neither.
    Nobody,
    /// The producer: the consumer is faster, and the ring runs near empty.
    Producer,
    /// The consumer: the producer is faster, and the ring runs near full.
    Consumer,
}

/// The lengths of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spread {
    /// All records have this length.
    Fixed(u32),
    /// Random lengths from zero to this.
    UpTo(u32),
}

/// Lengths in the `bytes` cases.
pub const SPREADS: [Spread; 5] = [
    Spread::Fixed(8),
    Spread::Fixed(64),
    Spread::Fixed(1264),
    Spread::UpTo(16),
    Spread::UpTo(32 * 1024),
];

impl Spread {
    /// Returns the lengths themselves.
    pub fn lengths(self) -> Lengths {
        match self {
            Spread::Fixed(len) => Lengths::fixed(len),
            Spread::UpTo(max) => Lengths::random(max),
        }
    }
}

/// One measurement of every contender that offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Case {
    /// A stream of fixed-size messages.
    Fixed {
        /// The size of a message in bytes.
        size: usize,
        /// The way in which they are handed over.
        mode: Mode,
        /// The side that has work to do.
        slow: Slow,
    },
    /// A stream of variable-size records.
    Records {
        /// Their lengths.
        spread: Spread,
        /// The way in which they are handed over.
        mode: Mode,
    },
    /// A round trip.
    Trip {
        /// The size of a message in bytes.
        size: usize,
    },
    /// A broadcast case.
    Broadcast(Fan),
}

impl Case {
    /// Returns `true` if `about` takes part.
    pub fn admits(self, about: &About) -> bool {
        match self {
            Case::Fixed { mode, slow, .. } => {
                about.modes.contains(&mode) && (slow == Slow::Nobody || about.slip)
            }
            Case::Records { mode, .. } => about.records.contains(&mode),
            // The bare line has no message, so it is measured once.
            Case::Trip { size } => {
                about.round_trip && (about.kind != Kind::Bound || size == TRIP_SIZES[0])
            }
            Case::Broadcast(fan) => (about.broadcast)(fan),
        }
    }

    /// Returns the contenders that take part.
    pub fn contenders(self) -> impl Iterator<Item = &'static About> {
        ALL.iter().filter(move |about| self.admits(about))
    }

    /// Returns `true` if figures are times, which should be small, and not rates.
    pub fn is_time(self) -> bool {
        match self {
            Case::Trip { .. } => true,
            Case::Broadcast(fan) => fan.is_time(),
            Case::Fixed { .. } | Case::Records { .. } => false,
        }
    }

    /// Returns `true` if a reader may miss messages.
    pub fn may_lose(self) -> bool {
        matches!(self, Case::Broadcast(fan) if !fan.is_lossless())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spread::Fixed(len) => write!(f, "{len}"),
            Spread::UpTo(max) => write!(f, "0-{max}"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Fixed {
                size,
                mode,
                slow: Slow::Nobody,
            } => write!(f, "spsc/{size}/{mode}"),
            Case::Fixed {
                size,
                mode,
                slow: Slow::Producer,
            } => {
                write!(f, "slip/{size}/{mode}/slow-producer")
            }
            Case::Fixed {
                size,
                mode,
                slow: Slow::Consumer,
            } => {
                write!(f, "slip/{size}/{mode}/slow-consumer")
            }
            Case::Records { spread, mode } => write!(f, "bytes/{spread}/{mode}"),
            Case::Trip { size } => write!(f, "roundtrip/{size}"),
            Case::Broadcast(fan) => write!(f, "{fan}"),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    /// Parses the output of `Display`, for a worker's command line.
    fn from_str(name: &str) -> Result<Self, String> {
        every_case()
            .into_iter()
            .find(|case| case.to_string() == name)
            .ok_or_else(|| format!("no case is called {name:?}"))
    }
}

/// Returns the cases of one group, in the order in which they run.
pub fn cases(group: Group) -> Vec<Case> {
    every_case()
        .into_iter()
        .filter(|case| belongs(*case, group))
        .collect()
}

fn belongs(case: Case, group: Group) -> bool {
    match (group, case) {
        (Group::All, _) => true,
        (Group::Spsc, Case::Fixed { slow, .. }) => slow == Slow::Nobody,
        // Slip is judged against the plain figure of the same run.
        (Group::Slip, Case::Fixed { size, mode, .. }) => {
            SLIP_SIZES.contains(&size) && matches!(mode, Mode::One | Mode::Batch)
        }
        (Group::Bytes, Case::Records { .. }) => true,
        (Group::Roundtrip, Case::Trip { .. }) => true,
        (Group::Broadcast, Case::Broadcast(_)) => true,
        // Its batches are judged against those of one reader's own channel.
        (Group::Broadcast, Case::Fixed { size, mode, slow }) => {
            size <= 64 && mode == Mode::Batch && slow == Slow::Nobody
        }
        _ => false,
    }
}

fn every_case() -> Vec<Case> {
    let mut all = Vec::new();
    for mode in Mode::ALL {
        for size in SIZES {
            all.push(Case::Fixed {
                size,
                mode,
                slow: Slow::Nobody,
            });
            if SLIP_SIZES.contains(&size) && matches!(mode, Mode::One | Mode::Batch) {
                all.push(Case::Fixed {
                    size,
                    mode,
                    slow: Slow::Producer,
                });
                all.push(Case::Fixed {
                    size,
                    mode,
                    slow: Slow::Consumer,
                });
            }
        }
    }
    for mode in [Mode::One, Mode::Drain, Mode::Place] {
        all.extend(SPREADS.map(|spread| Case::Records { spread, mode }));
    }
    all.extend(TRIP_SIZES.map(|size| Case::Trip { size }));
    all.extend(Fan::every().into_iter().map(Case::Broadcast));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_case_again() {
        for case in every_case() {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
    }

    /// Every case, except those of records, has a peer to compare with.
    #[test]
    fn every_case_has_a_peer() {
        for case in every_case()
            .into_iter()
            .filter(|c| !matches!(c, Case::Records { .. }))
        {
            assert!(
                case.contenders().any(|about| about.kind == Kind::Peer),
                "{case}"
            );
        }
    }
}

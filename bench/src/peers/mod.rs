//! The contenders, one file each. Each file says how its crate is used and shows its loops.
//!
//! All wait the same way, by trying again after a `spin_loop` hint, unless the crate brings a
//! busy-waiting call of its own that is its documented way; the file then says so.

mod bound;
mod cloudtoid;
mod crossbeam;
mod disruptor;
mod iceoryx2;
mod que;
mod raw;
mod ringbuf;
mod ringfire;
mod rtrb;
mod seqpacket;
mod shaq;
#[cfg(feature = "slipring")]
mod slipring;
mod std_mpsc;
mod tokio;

use crate::broadcast::Fan;
use crate::duel::{Run, Sample};
use crate::message::{Job, Lengths};
use std::fmt;

/// How a stream of messages is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One at a time, by value; each is published at once.
    One,
    /// Each is published at once; the consumer takes in one go what has arrived, up to 256.
    Drain,
    /// One at a time, written and checked where it lies.
    Place,
    /// 256 at a time on both sides.
    Batch,
}

impl Mode {
    /// All of them, in the order of the tables.
    pub const ALL: [Mode; 4] = [Mode::One, Mode::Drain, Mode::Place, Mode::Batch];

    /// The word used in case names.
    pub fn word(self) -> &'static str {
        match self {
            Mode::One => "one",
            Mode::Drain => "drain",
            Mode::Place => "place",
            Mode::Batch => "batch",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a contender of fixed-size messages is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Pass messages one way.
    Stream(Mode),
    /// Bounce one message to and fro.
    RoundTrip,
}

/// What a contender counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// slipring.
    Ours,
    /// Another crate, or the kernel.
    Peer,
    /// No channel at all: what the machine could do at best.
    Bound,
}

/// A contender: what it offers and how it is used.
#[derive(Debug)]
pub struct About {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// What it counts as.
    pub kind: Kind,
    /// Its package in `Cargo.lock`, whose version is reported.
    pub package: Option<&'static str>,
    /// Its ways with fixed-size messages.
    pub modes: &'static [Mode],
    /// Whether it takes part in round trips.
    pub round_trip: bool,
    /// Its ways with variable-size records.
    pub records: &'static [Mode],
    /// Whether it takes part in this to all.
    pub broadcast: fn(Fan) -> bool,
    /// Whether it takes part in the `slip` cases.
    pub slip: bool,
    /// Whether it is better served by 64-byte messages that are aligned to 64 bytes.
    pub aligned: bool,
    /// Whether it spins while it waits, so that a lost core shows as lost processor time.
    pub spins: bool,
    /// Which calls are measured.
    pub how: &'static str,
}

/// For one that has one reader alone.
pub const NOTHING_TO_ALL: fn(Fan) -> bool = |_| false;

/// Every contender, in the order in which they run and are listed.
pub const ALL: &[About] = &[
    #[cfg(feature = "slipring")]
    slipring::HEAP,
    #[cfg(feature = "slipring")]
    slipring::NAMED,
    #[cfg(feature = "slipring")]
    slipring::PROCESSES,
    rtrb::ABOUT,
    disruptor::ABOUT,
    shaq::ABOUT,
    ringfire::ABOUT,
    que::ABOUT,
    crossbeam::ABOUT,
    std_mpsc::ABOUT,
    iceoryx2::ABOUT,
    tokio::ABOUT,
    ringbuf::ABOUT,
    cloudtoid::ABOUT,
    seqpacket::ABOUT,
    raw::ONE_LINE,
    raw::TWO_LINES,
    bound::ABOUT,
];

/// The contender of that name.
pub fn named(name: &str) -> Option<&'static About> {
    ALL.iter().find(|about| about.name == name)
}

/// Runs one contender of fixed-size messages once. Panics if it does not do what is asked:
/// the plan asks only for what [`About`] offers.
pub fn run_fixed<J: Job>(name: &str, task: Task, run: &Run) -> Sample {
    match name {
        #[cfg(feature = "slipring")]
        "slipring heap" | "slipring named" | "slipring processes" => {
            slipring::run::<J>(name, task, run)
        }
        "rtrb" => rtrb::run::<J>(task, run),
        "disruptor" => disruptor::run::<J>(task, run),
        "shaq" => shaq::run::<J>(task, run),
        "ringfire" => ringfire::run::<J>(task, run),
        "que" => que::run::<J>(task, run),
        "ArrayQueue" => crossbeam::run::<J>(task, run),
        "std mpsc" => std_mpsc::run::<J>(task, run),
        "iceoryx2" => iceoryx2::run::<J>(task, run),
        "raw, one line" => raw::one_line(run),
        "raw, two lines" => raw::two_lines(run),
        "bound" => bound::run::<J>(run),
        other => panic!("{other} does not pass fixed-size messages"),
    }
}

/// Runs one contender once with messages that all readers see.
pub fn run_broadcast<J: Job>(name: &str, fan: Fan, run: &Run) -> Sample {
    match name {
        #[cfg(feature = "slipring")]
        "slipring heap" | "slipring named" | "slipring processes" => {
            slipring::broadcast::run::<J>(name, fan, run)
        }
        "disruptor" => disruptor::broadcast::<J>(fan, run),
        "shaq" => shaq::broadcast::<J>(fan, run),
        "ringfire" => ringfire::broadcast::<J>(fan, run),
        "que" => que::broadcast::<J>(fan, run),
        "iceoryx2" => iceoryx2::broadcast::<J>(fan, run),
        "tokio" => tokio::broadcast::<J>(fan, run),
        "raw, one line" => raw::one_line(run),
        "raw, two lines" => raw::two_lines(run),
        other => panic!("{other} does not pass messages to all"),
    }
}

/// Runs one contender of variable-size records once.
pub fn run_records(name: &str, mode: Mode, lengths: &Lengths, run: &Run) -> Sample {
    match name {
        #[cfg(feature = "slipring")]
        "slipring heap" | "slipring named" | "slipring processes" => {
            slipring::records(name, mode, lengths, run)
        }
        "ringbuf" => ringbuf::run(mode, lengths, run),
        "cloudtoid" => cloudtoid::run(lengths, run),
        "SEQPACKET" => seqpacket::run(lengths, run),
        other => panic!("{other} does not pass variable-size records by {mode}"),
    }
}

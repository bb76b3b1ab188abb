//! The contenders, one file each. Each file says how its crate is used and shows its loops.
//!
//! All wait the same way, by trying again after a `spin_loop` hint. The exception is a crate whose
//! documented way is a busy-waiting call of its own; the file then says so.

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

/// The way in which a stream of messages is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One at a time, by value; each is published at once.
    One,
    /// Each is published at once; the consumer takes all that have arrived in one go, up to 256.
    Drain,
    /// One at a time, written and checked in place.
    Place,
    /// 256 at a time on both sides.
    Batch,
}

impl Mode {
    /// All modes, in the order of the tables.
    pub const ALL: [Mode; 4] = [Mode::One, Mode::Drain, Mode::Place, Mode::Batch];

    /// Returns the word used in case names.
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

/// The task of a contender of fixed-size messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Pass messages one way.
    Stream(Mode),
    /// Bounce one message to and fro.
    RoundTrip,
}

/// The role of a contender in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// slipring.
    Ours,
    /// Another crate, or the kernel.
    Peer,
    /// No channel at all: the best that the machine could do.
    Bound,
}

/// A contender: its features and its use.
#[derive(Debug)]
pub struct About {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// The contender's role in the comparison.
    pub kind: Kind,
    /// Its package in `Cargo.lock`, whose version is reported.
    pub package: Option<&'static str>,
    /// Its modes with fixed-size messages.
    pub modes: &'static [Mode],
    /// `true` if it takes part in round trips.
    pub round_trip: bool,
    /// Its modes with variable-size records.
    pub records: &'static [Mode],
    /// Returns `true` if it takes part in this broadcast case.
    pub broadcast: fn(Fan) -> bool,
    /// `true` if it takes part in the `slip` cases.
    pub slip: bool,
    /// `true` if 64-byte messages aligned to 64 bytes serve it better.
    pub aligned: bool,
    /// `true` if it spins while it waits, so that a lost core shows as lost processor time.
    pub spins: bool,
    /// The calls that are measured.
    pub how: &'static str,
}

/// For a contender that has only one reader.
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

/// Returns the contender of that name.
pub fn named(name: &str) -> Option<&'static About> {
    ALL.iter().find(|about| about.name == name)
}

/// Runs one contender of fixed-size messages once. Panics if it cannot do the task: the plan asks
/// only for tasks that [`About`] offers.
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

//! The contenders, one file each. Each file says how its crate is used.
//!
//! In streams all are tried without blocking, and wait by the same [`Backoff`](super::crew::Backoff).

mod crossbeam;
mod flume;
mod futex;
mod kanal;
pub mod redis;
mod shaq;
#[cfg(feature = "slipring")]
mod slipring;
mod yep_coc;

use super::blocking::{self, Wake};
use super::crew::{Run, Tally};
use super::plan::{Case, Crew};
use super::worker::Sample;
use crate::machine::version_of;
use crate::message::Job;
use std::collections::BTreeMap;
use std::ops::Range;

/// A contender's calls.
///
/// A trait, and not closures, so that each contender's loops contain its calls.
pub trait Contender<J: Job> {
    /// A producer's handle.
    type Tx: Send;
    /// A consumer's handle.
    type Rx: Send;

    /// Makes a queue, and a handle for each thread.
    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>);

    /// Makes message `seq` and hands it over; waits while the queue is full.
    fn push(tx: &mut Self::Tx, seq: u64);

    /// Takes and checks one message. Returns `false` if there is none now.
    fn pop(rx: &mut Self::Rx, tally: &mut Tally) -> bool;

    /// Hands over a batch; waits while the queue is full. Contenders without batches do it one at a
    /// time, and are not asked.
    #[inline(always)]
    fn push_batch(tx: &mut Self::Tx, batch: Range<u64>) {
        for seq in batch {
            Self::push(tx, seq);
        }
    }

    /// Takes and checks up to `max` messages at once. Returns `false` if there is none now.
    #[inline(always)]
    fn pop_batch(rx: &mut Self::Rx, _max: usize, tally: &mut Tally) -> bool {
        Self::pop(rx, tally)
    }
}

/// A contender: its features and its use.
#[derive(Debug)]
pub struct About {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// Its package in `Cargo.lock`, whose version is reported.
    pub package: Option<&'static str>,
    /// `true` if it takes part in the streams, and alone.
    pub streams: bool,
    /// `true` if it can hand over several messages at once.
    pub batches: bool,
    /// `true` if 64-byte messages aligned to 64 bytes serve it better.
    pub aligned: bool,
    /// The calls that are measured.
    pub how: &'static str,
}

/// slipring by value, and slipring in place.
pub const OURS: [&str; 2] = ["slipring", "slipring in place"];

/// Every contender, in the order in which they run and are listed.
pub const ALL: &[About] = &[
    #[cfg(feature = "slipring")]
    slipring::BY_VALUE,
    #[cfg(feature = "slipring")]
    slipring::IN_PLACE,
    crossbeam::ARRAY_QUEUE,
    crossbeam::CHANNEL,
    shaq::ABOUT,
    yep_coc::ABOUT,
    flume::ABOUT,
    kanal::ABOUT,
    futex::ABOUT,
    redis::ABOUT,
];

/// Returns the contender of that name.
pub fn named(name: &str) -> Option<&'static About> {
    ALL.iter().find(|about| about.name == name)
}

/// Returns `true` if the contender is slipring.
pub fn is_ours(name: &str) -> bool {
    OURS.contains(&name)
}

/// Returns the names of the contenders that take part in a case.
pub fn contenders(case: Case) -> impl Iterator<Item = &'static str> {
    let admits = move |about: &&About| match case {
        Case::Stream { batch, .. } if case.is_grid() => {
            (is_ours(about.name) || about.name == "yep-coc") && (batch == 1 || about.batches)
        }
        Case::Stream {
            size: 8,
            capacity: 256,
            ..
        } => is_ours(about.name) || about.name == "ArrayQueue",
        Case::Stream { batch, .. } => about.streams && (batch == 1 || about.batches),
        Case::Alone(_) => about.streams,
        Case::Wake | Case::WakingPush(_) => [OURS[0], "futex"].contains(&about.name),
        Case::Jobs(_) => [OURS[0], "Redis"].contains(&about.name),
    };
    ALL.iter().filter(admits).map(|about| about.name)
}

/// Returns the versions of the contenders.
pub fn versions() -> BTreeMap<&'static str, String> {
    ALL.iter()
        .filter_map(|about| Some((about.name, version_of(about.package?)?)))
        .collect()
}

/// A measurement that any contender can do.
pub trait Visit {
    /// Measures one contender with one kind of message.
    fn visit<J: Job, C: Contender<J>>(self) -> Result<f64, String>;
}

/// Has one contender do a measurement.
pub fn visit<J: Job>(name: &str, visit: impl Visit) -> Result<f64, String> {
    match name {
        #[cfg(feature = "slipring")]
        "slipring" => visit.visit::<J, slipring::ByValue>(),
        #[cfg(feature = "slipring")]
        "slipring in place" => visit.visit::<J, slipring::InPlace>(),
        "ArrayQueue" => visit.visit::<J, crossbeam::Array>(),
        "crossbeam-channel" => visit.visit::<J, crossbeam::Channel>(),
        "shaq" => visit.visit::<J, shaq::Queue>(),
        "yep-coc" => visit.visit::<J, yep_coc::Queue>(),
        "flume" => visit.visit::<J, flume::Channel>(),
        "kanal" => visit.visit::<J, kanal::Channel>(),
        other => Err(format!("{other} passes no messages")),
    }
}

/// Has one contender push to sleeping workers.
pub fn wake(name: &str, what: Wake, workers: usize, seconds: f64) -> Result<Sample, String> {
    match name {
        #[cfg(feature = "slipring")]
        "slipring" => blocking::wake::<slipring::ByValue>(what, workers, seconds),
        "futex" => blocking::wake::<futex::Futex>(what, workers, seconds),
        other => Err(format!("{other} has no sleeping workers")),
    }
}

/// Has one contender pass jobs.
pub fn jobs(name: &str, crew: Crew, seconds: f64) -> Result<Sample, String> {
    match name {
        #[cfg(feature = "slipring")]
        "slipring" => blocking::jobs::<slipring::ByValue>(crew, seconds),
        "Redis" => blocking::jobs::<redis::List>(crew, seconds),
        other => Err(format!("{other} passes no jobs")),
    }
}

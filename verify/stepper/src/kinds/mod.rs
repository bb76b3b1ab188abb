//! What the stepper knows of a kind of channel: its operations, and what must be true after each was cut
//! short. A new kind is one new file here, and one line in `all`.

mod bytes;
mod spsc;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::{Builder, Channel};

use crate::walls::Walled;

/// Which end an operation is of. The other end is alive throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Producer,
    Consumer,
}

/// What is asleep, or armed, at the other end while the operation is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    Awake,
    /// It has asked for a wake, so that the operation rings.
    Armed,
}

/// One operation, to be killed at every instruction.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    pub(crate) other: Other,
    /// How many messages were passed before, so that positions and slots are not those of a fresh
    /// channel.
    pub(crate) passed: u64,
    /// How many messages wait in the channel when it begins.
    pub(crate) before: u64,
    /// How many messages it appends, or takes, at most; `0` for what moves none.
    pub(crate) moves: u64,
    /// All of them at once, or one by one.
    pub(crate) whole: bool,
    /// Whether the victim takes its seat inside the operation (else before).
    pub(crate) takes_seat: bool,
}

impl Operation {
    /// Whether the channel may hold `found` after a kill: what it held, less what was taken from its
    /// front, and what was appended.
    pub(crate) fn allows(&self, found: &[u64]) -> bool {
        let (first, next) = (self.passed, self.passed + self.before);
        let counts = || (0..=self.moves).filter(|n| !self.whole || *n == 0 || *n == self.moves);
        let mut possible = counts().map(|n| match self.side {
            Side::Producer => (first, next + n),
            Side::Consumer => (first + n, next),
        });
        possible.any(|(from, to)| found.iter().copied().eq(from..to))
    }
}

/// A channel of some kind, as the stepper uses it. Messages are numbers; a kind writes and checks whole
/// messages that say theirs.
pub(crate) trait Memory {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
    fn skew(&self) -> u64;
    fn producer(&self) -> Result<Box<dyn Producer>, String>;
    fn consumer(&self) -> Result<Box<dyn Consumer>, String>;
}

/// A producer of numbered messages.
pub(crate) trait Producer {
    /// Appends, for at most `timeout`.
    fn push(&mut self, number: u64, timeout: Duration) -> Result<(), String>;
    /// How many messages fit when the channel is empty: by reserving them, or as many as must fit.
    fn room(&mut self) -> Result<u64, String>;
    /// Asks for a wake, in vain.
    fn arm(&mut self) -> Result<(), String>;
    /// Does the operation of this name.
    fn act(&mut self, name: &str, next: u64) -> Result<(), String>;
    /// Leaves so that its successor goes on where it stopped.
    fn abort(self: Box<Self>);
}

/// What a consumer was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Message(u64),
    Nothing,
    /// The producer's end.
    Ended(slipring::End),
}

/// A consumer of numbered messages.
pub(crate) trait Consumer {
    /// Takes one, or learns of an end, for at most `timeout`. A message that is torn is an error.
    fn pop(&mut self, timeout: Duration) -> Result<Given, String>;
    /// Asks for a wake, in vain.
    fn arm(&mut self) -> Result<(), String>;
    /// Does the operation of this name.
    fn act(&mut self, name: &str) -> Result<(), String>;
    /// Leaves.
    fn abort(self: Box<Self>);
}

/// A channel, or why there is none.
pub(crate) type Made = Result<Box<dyn Memory>, String>;

/// Makes and opens channels of some kind.
pub(crate) trait Maker {
    fn memfd(&self) -> Made;
    fn from_fds(&self, passed: Vec<OwnedFd>) -> Made;
    /// The lengths of the two parts.
    fn lens(&self) -> [usize; 2];
    /// In memory that stays, made anew or as it is there.
    fn within(&self, memory: &Walled, anew: bool) -> Made;
}

/// A kind of channel, and what may be done to it.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// How many messages fit.
    pub(crate) capacity: u64,
    pub(crate) maker: Box<dyn Maker>,
    pub(crate) operations: &'static [Operation],
}

impl<K> Maker for Builder<K>
where
    K: slipring::Kind + 'static,
    K::Producer: Producer + 'static,
    K::Consumer: Consumer + 'static,
{
    fn memfd(&self) -> Made {
        Ok(Box::new(Builder::memfd(self).map_err(words)?))
    }

    fn from_fds(&self, passed: Vec<OwnedFd>) -> Made {
        Ok(Box::new(Builder::from_fds(self, passed).map_err(words)?))
    }

    fn lens(&self) -> [usize; 2] {
        [self.control_len(), self.data_len() as usize]
    }

    fn within(&self, memory: &Walled, anew: bool) -> Made {
        let memory = memory.borrowed();
        let channel = if anew {
            // SAFETY: never unmapped, and of this program alone; at a page's start or so far from its end
            // as it is long, which is a multiple of what its alignment must be.
            unsafe { self.format_in(memory) }
        } else {
            // SAFETY: as above.
            unsafe { self.attach_in(memory) }
        };
        Ok(Box::new(channel.map_err(words)?))
    }
}

impl<K> Memory for Channel<K>
where
    K: slipring::Kind,
    K::Producer: Producer + 'static,
    K::Consumer: Consumer + 'static,
{
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Channel::descriptors(self)
    }

    fn skew(&self) -> u64 {
        self.geometry().skew
    }

    fn producer(&self) -> Result<Box<dyn Producer>, String> {
        Ok(Box::new(Channel::producer(self).map_err(words)?))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, String> {
        Ok(Box::new(Channel::consumer(self).map_err(words)?))
    }
}

/// All kinds.
pub(crate) fn all() -> [Kind; 2] {
    [spsc::kind(), bytes::kind()]
}

/// An error in words.
fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The operations that every kind with one producer and one consumer has: `put` and `take` are its names
/// for those that move messages.
const fn operation(name: &'static str, side: Side, before: u64, moves: u64) -> Operation {
    Operation {
        name,
        side,
        other: Other::Awake,
        passed: 6,
        before,
        moves,
        whole: true,
        takes_seat: false,
    }
}

const fn armed(operation: Operation) -> Operation {
    Operation {
        other: Other::Armed,
        ..operation
    }
}

const fn seating(name: &'static str, side: Side) -> Operation {
    Operation {
        takes_seat: true,
        ..operation(name, side, 2, 0)
    }
}

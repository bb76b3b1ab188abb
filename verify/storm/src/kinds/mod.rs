//! Describes a kind of channel for the storm. A new kind is one new file here, and one line in
//! `all`.

mod broadcast;
mod bytes;
mod slots;
mod spsc;

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::inspect::{self, Stat};
use slipring::{Builder, Channel, Error, Readiness, Role, SetupError, Wait};

/// The way in which the seat holders of a scenario wait and pass messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Blocking calls on the smallest ring, which sleep at once.
    Sleep,
    /// Waits by the descriptor alone, on the smallest ring.
    Poll,
    /// Both of these in turn.
    Turns,
    /// All ways to write, on a larger ring; calls wait as they do by default.
    Stream,
}

impl Way {
    pub(crate) const ALL: [Way; 4] = [Way::Sleep, Way::Poll, Way::Turns, Way::Stream];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Sleep => "sleep",
            Way::Poll => "poll",
            Way::Turns => "turns",
            Way::Stream => "stream",
        }
    }

    /// Returns `true` if the process waits by its descriptor, this time.
    pub(crate) fn polls(self, turn: u64) -> bool {
        match self {
            Way::Sleep | Way::Stream => false,
            Way::Poll => true,
            Way::Turns => turn.is_multiple_of(2),
        }
    }
}

/// The consumers that receive a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The consumer, whose successor goes on where it released.
    One,
    /// Every consumer: the producer waits for the slowest.
    All,
    /// Every consumer, except for messages that were overwritten before it read them: those are
    /// counted.
    Quick,
}

/// The most messages that a killed process may have had in hand. All accepted messages are there,
/// and perhaps some of its last batch. Its successor reads at most this many messages again.
pub(crate) const HAND: u64 = 6;

/// A kind of channel. It has a seat for one producer, which is its first.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) delivery: Delivery,
    /// The number of seats for consumers.
    pub(crate) consumers: usize,
    /// The most messages that some consumer has not taken.
    pub(crate) capacity: fn(Way) -> u64,
    /// Makes a channel in memfds.
    pub(crate) create: fn(Way) -> Vec<OwnedFd>,
    /// Opens the channel for one process: these memfds, or the channel of this name.
    pub(crate) open: fn(Way, Place) -> Box<dyn Ends>,
}

impl Kind {
    /// Returns the number of seats for a role. If more processes want one, the others try again and
    /// again.
    pub(crate) fn seats(&self, role: Role) -> usize {
        match role {
            Role::Producer => 1,
            Role::Consumer => self.consumers,
        }
    }

    /// Returns the role that a process wants: each seat is wanted by the same number of processes.
    pub(crate) fn role(&self, process: usize) -> Role {
        match process % (1 + self.consumers) {
            0 => Role::Producer,
            _ => Role::Consumer,
        }
    }
}

/// Returns all kinds.
pub(crate) fn all() -> [Kind; 4] {
    let [waiting, overwriting] = broadcast::kinds();
    [spsc::kind(), bytes::kind(), waiting, overwriting]
}

/// The place of a channel.
pub(crate) enum Place {
    Named(&'static str),
    Passed(Vec<OwnedFd>),
}

/// A channel in which a process takes seats.
pub(crate) trait Ends {
    fn producer(&self) -> Result<Box<dyn Producer>, SetupError>;
    fn consumer(&self) -> Result<Box<dyn Consumer>, SetupError>;
    fn stat(&self) -> Result<Stat, SetupError>;
}

/// A producer of numbered messages.
pub(crate) trait Producer {
    /// Returns the number that follows the committed messages.
    fn next(&self) -> u64;
    /// Appends one message, waiting for room.
    fn push(&mut self, number: u64) -> Result<(), Error>;
    fn try_push(&mut self, number: u64) -> Result<(), Error>;
    /// Appends one message as `push` does, but writes it in place.
    fn place(&mut self, number: u64) -> Result<(), Error>;
    /// Appends these messages as a batch, waiting for room.
    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error>;
    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error>;
    fn arm(&mut self, number: u64) -> Result<Readiness, Error>;
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
}

/// A consumer of numbered messages, each of which it checks in full.
pub(crate) trait Consumer {
    /// Returns the number of its next message.
    fn next(&self) -> u64;
    /// Reads up to `max` in place, waiting for the first, and releases them when `seen` is done.
    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error>;
    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error>;
    fn arm(&mut self) -> Result<Readiness, Error>;
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
}

/// Makes waiters sleep at once, except in the way where calls wait as they do by default.
fn waiting<K: slipring::Kind>(builder: Builder<K>, way: Way) -> Builder<K> {
    match way {
        Way::Stream => builder,
        _ => builder.wait(Wait::Sleep {
            spin_for: Duration::ZERO,
        }),
    }
}

fn create<K: slipring::Kind>(builder: &Builder<K>) -> Vec<OwnedFd> {
    let channel = builder.memfd().unwrap();
    let passed = channel.descriptors();
    let own = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    passed.iter().map(own).collect()
}

fn open<K>(builder: Builder<K>, place: Place) -> Box<dyn Ends>
where
    K: slipring::Kind + 'static,
    slipring::Producer<K>: Producer,
    slipring::Consumer<K>: Consumer,
{
    match place {
        // The process looks the name up each time, and makes the channel if need be.
        Place::Named(name) => Box::new((builder, name)),
        Place::Passed(descriptors) => Box::new(builder.from_fds(descriptors).unwrap()),
    }
}

impl<K> Ends for (Builder<K>, &'static str)
where
    K: slipring::Kind + 'static,
    slipring::Producer<K>: Producer,
    slipring::Consumer<K>: Consumer,
{
    fn producer(&self) -> Result<Box<dyn Producer>, SetupError> {
        Ok(Box::new(self.0.producer(self.1)?))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, SetupError> {
        Ok(Box::new(self.0.consumer(self.1)?))
    }

    fn stat(&self) -> Result<Stat, SetupError> {
        inspect::stat(self.1)
    }
}

impl<K> Ends for Channel<K>
where
    K: slipring::Kind + 'static,
    slipring::Producer<K>: Producer,
    slipring::Consumer<K>: Consumer,
{
    fn producer(&self) -> Result<Box<dyn Producer>, SetupError> {
        Ok(Box::new(Channel::producer(self)?))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, SetupError> {
        Ok(Box::new(Channel::consumer(self)?))
    }

    fn stat(&self) -> Result<Stat, SetupError> {
        Channel::stat(self)
    }
}

/// Panics on a message that differs from the one written: that ends the storm.
fn checked(check: Result<u64, String>) -> u64 {
    check.unwrap_or_else(|what| panic!("torn: {what}"))
}

//! What the storm knows of a kind of channel. A new kind is one new file here, and one line in `all`.

mod broadcast;
mod bytes;
mod spsc;

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::inspect::{self, Stat};
use slipring::{Builder, Channel, Error, Readiness, Role, Wait};

/// How the holders of a scene's seats pass their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Blocking calls on the smallest ring, which sleep at once.
    Sleep,
    /// By the descriptor alone, on the smallest ring.
    Poll,
    /// The one and the other in turn.
    Turns,
    /// Every way to write there is, on a larger ring; calls wait as they do by default.
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

    /// Whether it waits by its descriptor, this time.
    pub(crate) fn polls(self, turn: u64) -> bool {
        match self {
            Way::Sleep | Way::Stream => false,
            Way::Poll => true,
            Way::Turns => turn.is_multiple_of(2),
        }
    }
}

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The consumer, whose successor goes on where it released.
    One,
    /// Every consumer: the producer waits for the slowest.
    All,
    /// Every consumer, but what is overwritten before it was read: that is counted.
    Quick,
}

/// How many messages whoever is killed may have had in hand: accepted ones are there, and so may some of
/// its last batch be; and what its successor reads again is no more than this.
pub(crate) const HAND: u64 = 6;

/// A kind of channel. It has a seat for one producer, which is its first.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) delivery: Delivery,
    /// How many seats there are for consumers.
    pub(crate) consumers: usize,
    /// How many messages there are at most that somebody has not taken.
    pub(crate) capacity: fn(Way) -> u64,
    /// Makes a channel in memfds.
    pub(crate) create: fn(Way) -> Vec<OwnedFd>,
    /// A channel as one process sees it: these memfds, or the channel of this name.
    pub(crate) open: fn(Way, Place) -> Box<dyn Ends>,
}

impl Kind {
    /// How many seats a role has. If more processes want one, the others try again and again.
    pub(crate) fn seats(&self, role: Role) -> usize {
        match role {
            Role::Producer => 1,
            Role::Consumer => self.consumers,
        }
    }

    /// The role that a process wants: as many want each seat as any other.
    pub(crate) fn role(&self, process: usize) -> Role {
        match process % (1 + self.consumers) {
            0 => Role::Producer,
            _ => Role::Consumer,
        }
    }
}

/// All kinds.
pub(crate) fn all() -> [Kind; 4] {
    let [waiting, overwriting] = broadcast::kinds();
    [spsc::kind(), bytes::kind(), waiting, overwriting]
}

/// Where a channel is.
pub(crate) enum Place {
    Named(&'static str),
    Passed(Vec<OwnedFd>),
}

/// A channel of which seats are taken.
pub(crate) trait Ends {
    fn producer(&self) -> Result<Box<dyn Producer>, Error>;
    fn consumer(&self) -> Result<Box<dyn Consumer>, Error>;
    fn stat(&self) -> Result<Stat, Error>;
}

/// A producer of numbered messages.
pub(crate) trait Producer {
    /// The number that follows what is committed.
    fn next(&self) -> u64;
    /// Appends one, waiting for room.
    fn push(&mut self, number: u64) -> Result<(), Error>;
    fn try_push(&mut self, number: u64) -> Result<(), Error>;
    /// As `push`, written in place.
    fn place(&mut self, number: u64) -> Result<(), Error>;
    /// Appends so many as a batch, waiting for room.
    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error>;
    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error>;
    fn arm(&mut self, number: u64) -> Result<Readiness, Error>;
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
}

/// A consumer of numbered messages, each of which it checks in full.
pub(crate) trait Consumer {
    /// The number of its next message.
    fn next(&self) -> u64;
    /// Reads up to `max` in place, waiting for the first, and releases them when `seen` is done.
    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error>;
    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error>;
    fn arm(&mut self) -> Result<Readiness, Error>;
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
}

/// Whoever sleeps does so at once, but where calls wait as they do by default.
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
    K::Producer: Producer + 'static,
    K::Consumer: Consumer + 'static,
{
    match place {
        // Looked up, and made if need be, each time.
        Place::Named(name) => Box::new((builder, name)),
        Place::Passed(descriptors) => Box::new(builder.from_fds(descriptors).unwrap()),
    }
}

impl<K> Ends for (Builder<K>, &'static str)
where
    K: slipring::Kind,
    K::Producer: Producer + 'static,
    K::Consumer: Consumer + 'static,
{
    fn producer(&self) -> Result<Box<dyn Producer>, Error> {
        Ok(Box::new(self.0.producer(self.1)?))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(self.0.consumer(self.1)?))
    }

    fn stat(&self) -> Result<Stat, Error> {
        inspect::stat(self.1)
    }
}

impl<K> Ends for Channel<K>
where
    K: slipring::Kind,
    K::Producer: Producer + 'static,
    K::Consumer: Consumer + 'static,
{
    fn producer(&self) -> Result<Box<dyn Producer>, Error> {
        Ok(Box::new(Channel::producer(self)?))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(Channel::consumer(self)?))
    }

    fn stat(&self) -> Result<Stat, Error> {
        Channel::stat(self)
    }
}

/// A message that is not what was written is the end of the storm.
fn checked(check: Result<u64, String>) -> u64 {
    check.unwrap_or_else(|what| panic!("torn: {what}"))
}

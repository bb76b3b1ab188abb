//! Describes a kind of channel for the stepper: its operations, and the conditions that must hold
//! after each was cut short. A new kind is one new file here, and one line in `all`.

mod broadcast;
mod bytes;
mod slots;
mod spsc;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::set::Key;
use slipring::{Builder, Channel, Error, Geometry, WaitSet, handover};

use crate::walls::Walled;

/// The end that does an operation. The other end is alive throughout, and so are other consumers,
/// if the kind has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Producer,
    Consumer,
}

/// The state of the other end while the operation is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    Awake,
    /// The other end has asked for a wake, so the operation notifies it.
    Armed,
}

/// One operation, to be killed at every instruction.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    pub(crate) other: Other,
    /// The number of messages passed before, so that positions and slots are not those of a fresh
    /// channel.
    pub(crate) passed: u64,
    /// The number of messages in the channel when the operation begins.
    pub(crate) before: u64,
    /// The most messages that it appends or takes; `0` if it moves none.
    pub(crate) moves: u64,
    /// `true` if it moves all of them at once, `false` if one by one.
    pub(crate) whole: bool,
    /// `true` if the producer still waits for a consumer that died a whole ring behind.
    pub(crate) dead: bool,
}

impl Operation {
    /// Returns the numbers of messages that it may have moved when it was killed.
    fn moved(&self) -> impl Iterator<Item = u64> {
        let (moves, whole) = (self.moves, self.whole);
        (0..=moves).filter(move |n| !whole || *n == 0 || *n == moves)
    }

    /// Returns `true` if the channel may hold `found` after a kill, where the one consumer takes
    /// each message. It may hold its old messages, less those taken from the front, and the
    /// appended ones.
    pub(crate) fn allows(&self, found: &[u64]) -> bool {
        let (first, next) = (self.passed, self.passed + self.before);
        let mut possible = self.moved().map(|n| match self.side {
            Side::Producer => (first, next + n),
            Side::Consumer => (first + n, next),
        });
        possible.any(|(from, to)| found.iter().copied().eq(from..to))
    }

    /// Returns `true` if the committed messages may end at `tail` after a kill, where every
    /// consumer receives each message.
    pub(crate) fn allows_tail(&self, tail: u64) -> bool {
        let next = self.passed + self.before;
        match self.side {
            Side::Producer => self.moved().any(|n| next + n == tail),
            Side::Consumer => next == tail,
        }
    }
}

/// The consumers that receive a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The one consumer.
    Taken,
    /// Every consumer; the producer waits for the slowest.
    Seen,
    /// Every consumer that the producer does not overtake.
    Overtaken,
}

/// A channel of some kind, as the stepper uses it. Messages are numbers. A kind writes and checks
/// whole messages that contain their numbers.
pub(crate) trait Memory {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
    fn geometry(&self) -> Geometry;
    fn producer(&self) -> Result<Box<dyn Producer>, String>;
    fn consumer(&self) -> Result<Box<dyn Consumer>, String>;
    /// Sends the channel over a socket.
    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), String>;
}

/// A producer of numbered messages.
pub(crate) trait Producer {
    /// Appends a message, waiting for at most `timeout`.
    fn push(&mut self, number: u64, timeout: Duration) -> Result<(), String>;
    /// Returns the number of messages that fit when the channel is empty: by reserving them, or as
    /// many as must fit.
    fn room(&mut self) -> Result<u64, String>;
    /// Asks for a wake, in vain.
    fn arm(&mut self) -> Result<(), String>;
    /// Waits for more room than is left beside four messages. Returns `true` if it was there.
    fn wait(&mut self, timeout: Duration) -> Result<bool, String>;
    /// Adds the producer to a set, which reports such room.
    fn watch(&self, set: &WaitSet) -> Result<Key, Error>;
    /// Does the operation of this name.
    fn act(&mut self, name: &str, next: u64) -> Result<(), String>;
    /// Leaves so that its successor goes on where it stopped.
    fn abort(self: Box<Self>);
}

/// The result of a consumer's read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Message(u64),
    /// The producer gave up this many messages before the consumer read them.
    Lost(u64),
    Nothing,
    /// The producer's end.
    Ended(slipring::End),
}

/// A consumer of numbered messages.
pub(crate) trait Consumer {
    /// Goes on at this message, where a consumer chooses.
    fn begin_at(&mut self, _number: u64) -> Result<(), String> {
        Ok(())
    }
    /// Takes one message, or learns of an end, for at most `timeout`. A torn message is an error.
    fn pop(&mut self, timeout: Duration) -> Result<Given, String>;
    /// Asks for a wake, in vain.
    fn arm(&mut self) -> Result<(), String>;
    /// Adds the consumer to a set, which reports messages.
    fn watch(&self, set: &WaitSet) -> Result<Key, Error>;
    /// Does the operation of this name.
    fn act(&mut self, name: &str) -> Result<(), String>;
    /// Leaves the channel.
    fn abort(self: Box<Self>);
}

/// The consumers of a channel, each in a seat of its own.
pub(crate) type Readers = Vec<Box<dyn Consumer>>;

/// A channel, or the reason why there is none.
pub(crate) type Made = Result<Box<dyn Memory>, String>;

/// Makes and opens channels of some kind.
pub(crate) trait Maker {
    fn memfd(&self) -> Made;
    fn passed(&self, passed: Vec<OwnedFd>) -> Made;
    /// Receives a channel from a socket.
    fn receive(&self, socket: BorrowedFd<'_>) -> Made;
    /// Returns the lengths of the two parts.
    fn lens(&self) -> [usize; 2];
    /// Makes a channel in memory that stays: anew, or from the content that is there.
    fn within(&self, memory: &Walled, anew: bool) -> Made;
}

/// A kind of channel, and its operations.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The number of messages that fit.
    pub(crate) capacity: u64,
    /// The number of messages kept at any time: fewer than fit, where the producer overwrites.
    pub(crate) kept: u64,
    pub(crate) flow: Flow,
    /// The number of consumers when an operation begins, the victim included.
    pub(crate) readers: usize,
    pub(crate) maker: Box<dyn Maker>,
    /// The makers for operations that only take a consumer's seat, if they differ from `maker`.
    pub(crate) joins: Vec<(&'static str, Box<dyn Maker>)>,
    pub(crate) operations: Vec<Operation>,
    /// `true` if this kind has another kind's memory and seats, and is handed over in the same way.
    pub(crate) variant: bool,
}

impl Kind {
    /// Returns a kind with one producer and one consumer; `own` are the operations that only it
    /// has.
    fn new(
        name: &'static str,
        capacity: u64,
        maker: impl Maker + 'static,
        own: &[Operation],
    ) -> Kind {
        Kind {
            name,
            capacity,
            kept: capacity,
            flow: Flow::Taken,
            readers: 1,
            maker: Box::new(maker),
            joins: Vec::new(),
            operations: SHARED.iter().chain(own).copied().collect(),
            variant: false,
        }
    }

    /// Takes the seats of all its consumers.
    pub(crate) fn readers(&self, memory: &dyn Memory) -> Result<Readers, String> {
        (0..self.readers).map(|_| memory.consumer()).collect()
    }
}

impl<K> Maker for Builder<K>
where
    K: slipring::Kind + 'static,
    slipring::Producer<K>: Producer,
    slipring::Consumer<K>: Consumer,
{
    fn memfd(&self) -> Made {
        Ok(Box::new(Builder::memfd(self).map_err(words)?))
    }

    fn passed(&self, passed: Vec<OwnedFd>) -> Made {
        Ok(Box::new(Builder::from_fds(self, passed).map_err(words)?))
    }

    fn receive(&self, socket: BorrowedFd<'_>) -> Made {
        Ok(Box::new(handover::receive(socket, self).map_err(words)?))
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
    K: slipring::Kind + 'static,
    slipring::Producer<K>: Producer,
    slipring::Consumer<K>: Consumer,
{
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Channel::descriptors(self)
    }

    fn geometry(&self) -> Geometry {
        Channel::geometry(self)
    }

    fn producer(&self) -> Result<Box<dyn Producer>, String> {
        Ok(Box::new(Channel::producer(self).map_err(words)?))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, String> {
        Ok(Box::new(Channel::consumer(self).map_err(words)?))
    }

    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), String> {
        handover::send(socket, self).map_err(words)
    }
}

/// Returns all kinds.
pub(crate) fn all() -> [Kind; 4] {
    [
        spsc::kind(),
        bytes::kind(),
        broadcast::waiting(),
        broadcast::overwriting(),
    ]
}

/// Returns an error in words.
fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Returns the error for a name that no kind has.
fn no_operation(name: &str) -> String {
    format!("no operation {name}")
}

/// The operations of every kind whose producer waits. Processes without a role do them, or the
/// methods of the traits above. `act` does a kind's own operations, and `push`, `push-iter` and
/// `pop`.
const SHARED: [Operation; 20] = [
    operation("take", Side::Producer, 2, 0),
    operation("take", Side::Consumer, 2, 0),
    operation("attach", Side::Producer, 2, 0),
    operation("leave", Side::Producer, 2, 0),
    operation("leave", Side::Consumer, 2, 0),
    operation("abort", Side::Producer, 2, 0),
    operation("push", Side::Producer, 2, 1),
    armed(operation("push", Side::Producer, 0, 1)),
    operation("push-iter", Side::Producer, 1, 3),
    operation("arm", Side::Producer, 4, 0),
    operation("park", Side::Producer, 4, 0),
    operation("watch", Side::Producer, 4, 0),
    operation("watch-ready", Side::Producer, 0, 0),
    operation("pop", Side::Consumer, 2, 1),
    armed(operation("pop", Side::Consumer, 4, 1)),
    operation("arm", Side::Consumer, 0, 0),
    operation("park", Side::Consumer, 0, 0),
    operation("watch", Side::Consumer, 0, 0),
    operation("watch-ready", Side::Consumer, 2, 0),
    operation("abort", Side::Consumer, 2, 0),
];

/// Does a producer's operation; it waits for at most `patience`.
pub(crate) fn produce(
    tx: &mut dyn Producer,
    name: &str,
    next: u64,
    patience: Duration,
) -> Result<(), String> {
    match name {
        "arm" => tx.arm(),
        "park" => tx.wait(patience).and_then(in_vain),
        "push-waiting" => tx.push(next, patience),
        "watch" => watch(&|set| tx.watch(set), patience).and_then(in_vain),
        "watch-ready" => watch(&|set| tx.watch(set), patience).and_then(not_in_vain),
        name => tx.act(name, next),
    }
}

/// Does a consumer's operation; it waits for at most `patience`.
pub(crate) fn consume(rx: &mut dyn Consumer, name: &str, patience: Duration) -> Result<(), String> {
    match name {
        "arm" => rx.arm(),
        "park" => rx
            .pop(patience)
            .and_then(|given| in_vain(given != Given::Nothing)),
        "watch" => watch(&|set| rx.watch(set), patience).and_then(in_vain),
        "watch-ready" => watch(&|set| rx.watch(set), patience).and_then(not_in_vain),
        name => rx.act(name),
    }
}

fn in_vain(ready: bool) -> Result<(), String> {
    match ready {
        false => Ok(()),
        true => Err("expected TimedOut".into()),
    }
}

fn not_in_vain(ready: bool) -> Result<(), String> {
    match ready {
        true => Ok(()),
        false => Err("expected an event".into()),
    }
}

/// Puts the handle into a set, waits once, and takes it out. Returns `true` if it was ready.
fn watch(add: &dyn Fn(&WaitSet) -> Result<Key, Error>, patience: Duration) -> Result<bool, String> {
    let mut set = WaitSet::new().map_err(words)?;
    let key = add(&set).map_err(words)?;
    let ready = match set.wait_timeout(patience) {
        Ok(events) => events.iter().any(|event| event.key == key && event.ready),
        Err(Error::TimedOut) => false,
        Err(error) => return Err(words(error)),
    };
    match set.unwatch(key) {
        true => Ok(ready),
        false => Err("the entry is gone".into()),
    }
}

const fn operation(name: &'static str, side: Side, before: u64, moves: u64) -> Operation {
    Operation {
        name,
        side,
        other: Other::Awake,
        passed: 6,
        before,
        moves,
        whole: true,
        dead: false,
    }
}

const fn armed(operation: Operation) -> Operation {
    Operation {
        other: Other::Armed,
        ..operation
    }
}

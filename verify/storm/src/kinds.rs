//! Chooses the channels of the storm: how large they are, how their users wait, and where they lie.
//! A new kind of the test kit is here of itself, unless its positions are no account.
//! Queues are such a kind: they are listed here.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::broadcast::Seek;
use slipring::inspect::{self, Stat};
use slipring::{Error, Role, SetupError};
use slipring_testkit::kinds::Unit;
use slipring_testkit::message::LARGEST;
use slipring_testkit::queue::QueueTerms;
use slipring_testkit::{
    Consumer, Delivery, Kind, Maker, Memory, TakenConsumer, TakenProducer, Terms,
};

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

/// The most messages that a killed process may have had in hand. All accepted messages are there,
/// and perhaps some of its last batch. Its successor reads at most this many messages again.
pub(crate) const HAND: u64 = 6;

/// The queues: several producers and several consumers share one.
pub(crate) static QUEUES: [Kind; 3] = [
    QUEUE,
    Kind {
        name: "mpmc-at-most-once",
        ..QUEUE
    },
    Kind {
        name: "mpmc-records",
        ..QUEUE
    },
];

const QUEUE: Kind = Kind {
    name: "mpmc",
    unit: Unit::Slots,
    delivery: Delivery::One,
    producers: 3,
    consumers: 3,
    seeks: false,
    exact_positions: false,
    ends_survive: false,
    released_apart: true,
    variant: true,
    batches: true,
    runs: true,
    queue: true,
    topic: false,
    growing: false,
    maker: |_| unreachable!("queues are made by their own terms"),
};

/// The topics: several publishers and several subscribers share one.
pub(crate) static TOPICS: [Kind; 2] = [
    TOPIC,
    Kind {
        name: "topic-records",
        maker: |terms| topic("topic-records", terms),
        ..TOPIC
    },
];

const TOPIC: Kind = Kind {
    name: "topic",
    unit: Unit::Slots,
    delivery: Delivery::Overwriting,
    producers: 3,
    consumers: 3,
    seeks: true,
    exact_positions: false,
    ends_survive: false,
    released_apart: false,
    variant: true,
    batches: true,
    runs: true,
    queue: false,
    topic: true,
    growing: false,
    maker: |terms| topic("topic", terms),
};

/// Returns the builder of the kit's topic of this name.
fn topic(name: &str, terms: &Terms) -> Box<dyn Maker> {
    let kind = slipring_testkit::kinds::named(name);
    let kind = kind.unwrap_or_else(|| panic!("no kind {name}"));
    (kind.maker)(terms)
}

/// Returns all kinds of the storm.
pub(crate) fn all() -> impl Iterator<Item = &'static Kind> {
    let exact = slipring_testkit::kinds::all().iter();
    let exact = exact.filter(|kind| kind.exact_positions);
    exact.chain(&QUEUES).chain(&TOPICS)
}

/// Returns `true` if the kind is a queue.
pub(crate) fn is_queue(kind: &Kind) -> bool {
    kind.queue
}

/// Returns `true` if several producers hold seats, so that nobody has to wait for one of them.
pub(crate) fn is_shared(kind: &Kind) -> bool {
    kind.queue || kind.topic
}

/// Returns the terms of a queue; `None` for other kinds.
pub(crate) fn queue(kind: &Kind, way: Way) -> Option<QueueTerms> {
    is_queue(kind).then(|| QueueTerms {
        records: kind.name == "mpmc-records",
        at_most_once: kind.name == "mpmc-at-most-once",
        capacity: match way {
            Way::Sleep => 1,
            Way::Poll => 2,
            Way::Turns => 4,
            Way::Stream => 64,
        },
        producers: kind.producers,
        consumers: kind.consumers,
        spin_for: (way != Way::Stream).then_some(Duration::ZERO),
    })
}

/// Returns the role that a process wants: each seat is wanted by the same number of processes.
pub(crate) fn role(kind: &Kind, process: usize) -> Role {
    let produces = match is_shared(kind) {
        // Two processes are one of each.
        true => process.is_multiple_of(2),
        false => process % (kind.producers + kind.consumers) < kind.producers,
    };
    if produces {
        Role::Producer
    } else {
        Role::Consumer
    }
}

/// Returns the capacity of a channel, in the kind's unit.
fn capacity(kind: &Kind, way: Way) -> usize {
    match (kind.unit, way) {
        (Unit::Slots, Way::Stream) => 64,
        (Unit::Slots, _) => 2,
        (Unit::Bytes, Way::Stream) => 4096,
        (Unit::Bytes, _) => 128,
    }
}

/// Returns the most messages that some consumer has not taken.
pub(crate) fn most(kind: &Kind, way: Way) -> u64 {
    let capacity = capacity(kind, way) as u64;
    match kind.unit {
        Unit::Slots => capacity,
        // The shortest records have 16 bytes.
        Unit::Bytes => capacity / 16,
    }
}

pub(crate) fn maker(kind: &Kind, way: Way) -> Box<dyn Maker> {
    (kind.maker)(&Terms {
        capacity: Some(capacity(kind, way)),
        max_record: Some(LARGEST),
        producers: Some(kind.producers),
        consumers: Some(kind.consumers),
        join: Some(Seek::Oldest),
        shrinks: kind.growing,
        spin_for: (way != Way::Stream).then_some(Duration::ZERO),
        ..Terms::default()
    })
}

/// Makes a channel in memfds.
pub(crate) fn create(kind: &Kind, way: Way) -> Vec<OwnedFd> {
    if let Some(terms) = queue(kind, way) {
        return terms.create().unwrap();
    }
    let channel = maker(kind, way).memfd().unwrap();
    let passed = channel.descriptors();
    let own = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    passed.iter().map(own).collect()
}

/// A channel in which a process takes seats.
pub(crate) enum Ends {
    /// The process looks the name up each time, and makes the channel if need be.
    Named(&'static str, Box<dyn Maker>),
    Passed(Box<dyn Memory>),
}

impl Ends {
    /// Opens the channel of this name, if it has one, or the channel in these memfds.
    pub(crate) fn open(kind: &Kind, way: Way, name: &'static str, passed: Vec<OwnedFd>) -> Ends {
        let maker = maker(kind, way);
        if passed.is_empty() {
            Ends::Named(name, maker)
        } else {
            Ends::Passed(maker.passed(passed).unwrap())
        }
    }

    pub(crate) fn producer(&self) -> TakenProducer {
        match self {
            Ends::Named(name, maker) => maker.producer(name),
            Ends::Passed(memory) => memory.producer(),
        }
    }

    pub(crate) fn consumer(&self) -> TakenConsumer {
        match self {
            Ends::Named(name, maker) => maker.consumer(name),
            Ends::Passed(memory) => memory.consumer(),
        }
    }

    pub(crate) fn stat(&self) -> Result<Stat, SetupError> {
        match self {
            Ends::Named(name, _) => inspect::stat(name),
            Ends::Passed(memory) => memory.stat(),
        }
    }
}

/// Reads messages in place, or copies them where they may be overwritten during the read.
pub(crate) fn read(
    kind: &Kind,
    rx: &mut dyn Consumer,
    max: usize,
    seen: &mut dyn FnMut(&[u64]),
) -> Result<(), Error> {
    if kind.waits() {
        rx.read(max, seen)
    } else {
        rx.copy(max, seen)
    }
}

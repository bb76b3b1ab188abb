//! Describes each kind of the test kit as the stepper uses it: its channels of four messages, and
//! the operations that are stepped. A new kind of the kit is here of itself.

use std::time::Duration;

use slipring::broadcast::Seek;
use slipring::{End, Error, Readiness};
use slipring_testkit::kinds::Unit;
use slipring_testkit::{self as testkit, Consumer, Delivery, Handle, Maker, Memory, MessageType};
use slipring_testkit::{Producer, Terms};

use crate::operations::{self, Operation, PASSED};
use crate::walls::Walled;

/// The number of messages that fit, whatever their numbers.
pub(crate) const CAPACITY: u64 = 4;

/// The size of a ring of that many records: each takes 120 bytes at most.
const RING: usize = 512;

/// The largest capacity of a ring of slots that grows: so large that another ring is left if one is in use.
const LARGEST: usize = 16;

/// The largest record of a ring that grows: the first ring holds one.
const RECORD: usize = 112;

/// A kind of channel, and its operations.
pub(crate) struct Kind {
    row: &'static testkit::Kind,
    pub(crate) name: &'static str,
    pub(crate) delivery: Delivery,
    /// The number of messages kept at any time: fewer than fit, where the producer overwrites two
    /// at a time.
    pub(crate) kept: u64,
    /// The number of consumers when an operation begins, the victim included. Where each receives
    /// all messages, one seat is free.
    pub(crate) readers: usize,
    /// The room of an empty channel, in the kind's unit.
    pub(crate) all: usize,
    /// More room than is left beside four messages, whatever their numbers.
    pub(crate) much: usize,
    pub(crate) maker: Box<dyn Maker>,
    pub(crate) operations: Vec<Operation>,
    /// `true` if a finished producer's end is told even if its successor came first.
    pub(crate) ends_survive: bool,
    /// `true` if a batch is released message by message.
    pub(crate) released_apart: bool,
    /// `true` if this kind has another kind's memory and seats, and is handed over in the same way.
    pub(crate) variant: bool,
    /// `true` if one reservation takes several slots.
    pub(crate) runs: bool,
    /// `true` for work queues, which have [operations of their own](crate::queue).
    pub(crate) queue: bool,
    /// `true` if an idle consumer leaves no memory but the newest ring's, of a ring that grows.
    pub(crate) gives_back: bool,
    /// `true` for topics, which have [operations of their own](crate::topic) as well.
    pub(crate) topic: bool,
}

/// A channel, or the reason why there is none.
pub(crate) type Made = Result<Box<dyn Memory>, String>;

/// The consumers of a channel, each in a seat of its own.
pub(crate) type Readers = Vec<Box<dyn Consumer>>;

/// Returns all kinds.
pub(crate) fn all() -> Vec<Kind> {
    testkit::kinds::all().iter().map(Kind::new).collect()
}

/// Returns the kind of this name.
pub(crate) fn named(name: &str) -> Result<Kind, String> {
    testkit::kinds::named(name)
        .map(Kind::new)
        .ok_or_else(|| "no such kind".into())
}

impl Kind {
    fn new(row: &'static testkit::Kind) -> Kind {
        let (all, much) = match row.unit {
            Unit::Bytes if row.growing => (RECORD, RECORD),
            Unit::Slots if row.growing => (LARGEST, LARGEST - CAPACITY as usize + 1),
            Unit::Slots => (CAPACITY as usize, 1),
            Unit::Bytes => (RING - 8, RING - 8),
        };
        Kind {
            row,
            name: row.name,
            delivery: row.delivery,
            kept: CAPACITY - u64::from(!row.waits()),
            readers: match row.delivery {
                Delivery::One => 1,
                Delivery::All | Delivery::Overwriting => row.consumers - 1,
            },
            all,
            much,
            maker: maker(row, Seek::Oldest),
            operations: operations::of(row),
            ends_survive: row.ends_survive,
            released_apart: row.released_apart,
            variant: row.variant,
            runs: row.runs,
            queue: row.queue,
            gives_back: row.growing,
            topic: row.topic,
        }
    }

    /// Returns the builder of a work queue with this number of seats a side. Its consumers have this rule of dead letters,
    /// and die so.
    pub(crate) fn with_fellows(
        &self,
        seats: usize,
        rule: Option<(u32, usize)>,
        at_most_once: bool,
    ) -> Box<dyn Maker> {
        (self.row.maker)(&Terms {
            producers: Some(seats),
            consumers: Some(seats),
            dead_letters: rule,
            at_most_once,
            ..terms(self.row, Seek::Oldest)
        })
    }

    /// Returns the builder of a topic with this number of seats a side.
    pub(crate) fn with_seats(&self, seats: usize) -> Box<dyn Maker> {
        (self.row.maker)(&Terms {
            producers: Some(seats),
            consumers: Some(seats),
            ..terms(self.row, Seek::Oldest)
        })
    }

    /// Returns the first capacity of its channels.
    pub(crate) fn first_capacity(&self) -> usize {
        match self.row.unit {
            Unit::Slots => 1,
            Unit::Bytes => RECORD.next_power_of_two(),
        }
    }

    /// Takes the seats of all its consumers.
    pub(crate) fn readers(&self, memory: &dyn Memory) -> Result<Readers, String> {
        (0..self.readers).map(|_| consumer(memory)).collect()
    }

    /// Returns the builder whose consumers begin as this operation says.
    pub(crate) fn joining(&self, name: &str) -> Box<dyn Maker> {
        match name {
            "join-newest" => maker(self.row, Seek::Newest),
            _ => maker(self.row, Seek::To(PASSED)),
        }
    }

    /// Has a consumer go on at this message, where it may choose.
    pub(crate) fn begin_at(&self, rx: &mut dyn Consumer, number: u64) -> Result<(), String> {
        if !self.row.seeks {
            return Ok(());
        }
        rx.seek(Seek::To(number)).map(drop).map_err(words)
    }

    /// Asks for a wake, in vain.
    pub(crate) fn arm<H: Handle + ?Sized>(&self, end: &mut H) -> Result<(), String> {
        match end.arm(self.much).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is a message, or room".into()),
        }
    }

    /// Makes a channel in memory that stays: anew, or from the content that is there.
    pub(crate) fn within(&self, memory: &Walled, anew: bool) -> Made {
        let memory = memory.borrowed();
        let made = if anew {
            // SAFETY: never unmapped, and of this program alone; at a page's start or so far from its end
            // as it is long, which is a multiple of what its alignment must be.
            unsafe { self.maker.format_in(memory) }
        } else {
            // SAFETY: as above.
            unsafe { self.maker.attach_in(memory) }
        };
        made.map_err(words)
    }
}

fn maker(row: &testkit::Kind, join: Seek) -> Box<dyn Maker> {
    (row.maker)(&terms(row, join))
}

fn terms(row: &testkit::Kind, join: Seek) -> Terms {
    let (capacity, max_record) = match row.unit {
        Unit::Slots if row.growing => (LARGEST, None),
        Unit::Slots => (CAPACITY as usize, None),
        Unit::Bytes if row.growing => (LARGEST * 128, Some(RECORD)),
        Unit::Bytes => (RING, Some(RING - 8)),
    };
    let message = match row.delivery {
        Delivery::One => MessageType::Message,
        // Words of such a slot are stored one by one, and each is an image: there are few of them.
        Delivery::All | Delivery::Overwriting => MessageType::Odd,
    };
    Terms {
        message,
        capacity: Some(capacity),
        max_record,
        producers: Some(row.producers),
        consumers: Some(row.consumers),
        join: Some(join),
        held: row.topic.then_some(2),
        // A wait sleeps at once: polling repeats the same few instructions over and over.
        spin_for: Some(Duration::ZERO),
        ..Terms::default()
    }
}

/// Takes a producer's seat.
pub(crate) fn producer(memory: &dyn Memory) -> Result<Box<dyn Producer>, String> {
    memory.producer().map_err(words)
}

/// Takes a consumer's seat.
pub(crate) fn consumer(memory: &dyn Memory) -> Result<Box<dyn Consumer>, String> {
    memory.consumer().map_err(words)
}

/// Appends a message, waiting for at most `timeout`.
pub(crate) fn push(tx: &mut dyn Producer, number: u64, timeout: Duration) -> Result<(), String> {
    tx.push_timeout(number, timeout).map_err(words)
}

/// The result of a consumer's read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Message(u64),
    /// The producer gave up this many messages before the consumer read them.
    Lost(u64),
    Nothing,
    /// The producer's end.
    Ended(End),
}

/// Takes one message, or learns of an end, for at most `timeout`. A torn message is an error.
pub(crate) fn pop(rx: &mut dyn Consumer, timeout: Duration) -> Result<Given, String> {
    match rx.pop_any(timeout) {
        Ok(came) => Ok(Given::Message(came?)),
        Err(Error::Lagged(lost)) => Ok(Given::Lost(lost)),
        Err(Error::TimedOut) => Ok(Given::Nothing),
        Err(Error::Disconnected(end)) => Ok(Given::Ended(end)),
        Err(error) => Err(words(error)),
    }
}

/// Returns an error in words.
pub(crate) fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

//! `broadcast`: four slots of three words, which say the message's number, where in the channel it stands,
//! and both again. Seats for three consumers, of which one is free while an operation is stepped. In two
//! modes: the producer waits, or overwrites.

use std::time::Duration;

use slipring::broadcast::{self, Seek, WhenFull};
use slipring::set::Key;
use slipring::{Error, Payload, Readiness, Wait, WaitSet};

use super::{
    Consumer, Flow, Given, Kind, Maker, Operation, Producer, SHARED, Side, armed, operation, words,
};

const CAPACITY: u64 = 4;

/// So many messages are there at any time where they are overwritten: two at a time are given up.
const KEPT: u64 = CAPACITY - 1;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Message {
    number: u64,
    position: u64,
    both: u64,
}

impl Message {
    fn new(number: u64, position: u64) -> Message {
        Message {
            number,
            position,
            both: !number.rotate_left(32) ^ position,
        }
    }

    /// Its number, if it is whole, and stands where it was found.
    fn number_at(&self, position: u64) -> Result<u64, String> {
        let Message { number, both, .. } = *self;
        if both != Message::new(number, self.position).both {
            return Err(format!(
                "a torn message: {number:x} {:x} {both:x}",
                self.position
            ));
        }
        if self.position != position {
            return Err(format!("message {} at {position}", self.position));
        }
        Ok(number)
    }
}

/// What is the same in both modes.
const BOTH: [Operation; 7] = [
    operation("read-nothing", Side::Consumer, 0, 0),
    operation("join-newest", Side::Consumer, 3, 0),
    operation("join-number", Side::Consumer, 3, 0),
    back(operation("seek-oldest", Side::Consumer, 0, 0)),
    back(operation("seek-number", Side::Consumer, 0, 0)),
    operation("seek-newest", Side::Consumer, 3, 0),
    operation("stride", Side::Consumer, 3, 0),
];

const WAITING: [Operation; 9] = [
    operation("push-slice", Side::Producer, 1, 3),
    operation("reserve-commit", Side::Producer, 1, 2),
    operation("reserve-discard", Side::Producer, 1, 0),
    operation("reserve-full", Side::Producer, 4, 0),
    operation("pop-slice", Side::Consumer, 3, 3),
    operation("read-release", Side::Consumer, 3, 2),
    operation("read-keep", Side::Consumer, 3, 0),
    Operation {
        passed: 8,
        dead: true,
        ..operation("push-waiting", Side::Producer, 0, 1)
    },
    Operation {
        passed: 8,
        dead: true,
        ..operation("watch-ready", Side::Producer, 0, 0)
    },
];

/// Where the producer does not wait, over what was not read.
const OVERWRITING: [Operation; 14] = [
    operation("take", Side::Producer, 2, 0),
    operation("leave", Side::Producer, 2, 0),
    operation("push", Side::Producer, 2, 1),
    operation("push", Side::Producer, 4, 1),
    armed(operation("push", Side::Producer, 0, 1)),
    operation("push-slice", Side::Producer, 3, 3),
    operation("push-iter", Side::Producer, 3, 3),
    operation("reserve-commit", Side::Producer, 3, 2),
    operation("reserve-discard", Side::Producer, 3, 0),
    operation("take", Side::Consumer, 2, 0),
    operation("leave", Side::Consumer, 2, 0),
    operation("pop", Side::Consumer, 2, 1),
    operation("pop-slice", Side::Consumer, 3, 3),
    operation("park", Side::Consumer, 0, 0),
];

/// The producer has used up what it may write unasked, and no more: so what it wrote last is safe to go back to.
const fn back(operation: Operation) -> Operation {
    Operation {
        passed: 2 * CAPACITY,
        ..operation
    }
}

pub(super) fn waiting() -> Kind {
    let operations = SHARED.iter().chain(&WAITING).chain(&BOTH);
    Kind {
        flow: Flow::Seen,
        operations: operations.copied().collect(),
        ..kind("broadcast", WhenFull::Wait)
    }
}

pub(super) fn overwriting() -> Kind {
    Kind {
        flow: Flow::Overtaken,
        kept: KEPT,
        operations: OVERWRITING.iter().chain(&BOTH).copied().collect(),
        variant: true,
        ..kind("overwriting", WhenFull::Overwrite)
    }
}

fn kind(name: &'static str, when_full: WhenFull) -> Kind {
    let joins = [
        ("join-newest", Seek::Newest),
        (
            "join-number",
            Seek::To(operation("", Side::Consumer, 0, 0).passed),
        ),
    ];
    let join = |(name, seek)| {
        let maker: Box<dyn Maker> = Box::new(builder(when_full).join(seek));
        (name, maker)
    };
    Kind {
        readers: 2,
        joins: joins.map(join).into(),
        ..Kind::new(name, CAPACITY, builder(when_full), &[])
    }
}

fn builder(when_full: WhenFull) -> broadcast::Builder<Message> {
    // Waits by sleeping at once: polling is the same few instructions over and over.
    broadcast::Builder::new(CAPACITY as usize)
        .join(Seek::Oldest)
        .consumers(3)
        .when_full(when_full)
        .wait(Wait::Sleep {
            spin_for: Duration::ZERO,
        })
}

impl Producer for broadcast::Producer<Message> {
    fn push(&mut self, number: u64, timeout: Duration) -> Result<(), String> {
        let message = Message::new(number, self.position());
        self.push_timeout(message, timeout).map_err(words)
    }

    fn room(&mut self) -> Result<u64, String> {
        Ok(self.try_reserve(CAPACITY as usize).map_err(words)?.len() as u64)
    }

    fn arm(&mut self) -> Result<(), String> {
        match broadcast::Producer::arm(self, 1).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is room".into()),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, String> {
        match self.reserve_timeout(1, timeout) {
            Ok(_) => Ok(true),
            Err(Error::TimedOut) => Ok(false),
            Err(error) => Err(words(error)),
        }
    }

    fn watch(&self, set: &WaitSet) -> Result<Key, Error> {
        set.watch_room(self, 1)
    }

    fn act(&mut self, name: &str, next: u64) -> Result<(), String> {
        let at = self.position();
        let values = [0, 1, 2].map(|n| Message::new(next + n, at + n));
        match name {
            "push" => self.try_push(values[0]).map_err(words),
            "push-slice" => self.try_push_slice(&values).map(drop).map_err(words),
            "push-iter" => self.try_push_iter(values).map(drop).map_err(words),
            "reserve-commit" | "reserve-discard" => {
                let mut slots = self.try_reserve(3).map_err(words)?;
                for (slot, value) in values.into_iter().enumerate() {
                    slots.write(slot, value);
                }
                if name == "reserve-commit" {
                    slots.commit(2);
                }
                Ok(())
            }
            "reserve-full" => match self.try_reserve(1).err() {
                Some(Error::Full) => Ok(()),
                other => Err(format!("expected Full, found {other:?}")),
            },
            _ => Err(format!("no operation {name}")),
        }
    }

    fn abort(self: Box<Self>) {
        broadcast::Producer::abort(*self);
    }
}

impl Consumer for broadcast::Consumer<Message> {
    fn begin_at(&mut self, number: u64) -> Result<(), String> {
        self.seek(Seek::To(number)).map(drop).map_err(words)
    }

    fn pop(&mut self, timeout: Duration) -> Result<Given, String> {
        let at = self.position();
        let popped = self.pop_timeout(timeout);
        let gone = self.position().wrapping_sub(at);
        let (given, steps) = match popped {
            Ok(message) => (Given::Message(message.number_at(at)?), 1),
            Err(Error::Lagged(lost)) => (Given::Lost(lost), lost),
            Err(Error::TimedOut) => (Given::Nothing, 0),
            Err(Error::Disconnected(end)) => (Given::Ended(end), 0),
            Err(error) => return Err(words(error)),
        };
        match gone == steps {
            true => Ok(given),
            false => Err(format!("{given:?} at {at} led on by {gone}")),
        }
    }

    fn arm(&mut self) -> Result<(), String> {
        match broadcast::Consumer::arm(self).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is a message".into()),
        }
    }

    fn watch(&self, set: &WaitSet) -> Result<Key, Error> {
        set.watch(self)
    }

    fn act(&mut self, name: &str) -> Result<(), String> {
        let at = self.position();
        let seek = |rx: &mut Self, to| rx.seek(to).map(drop).map_err(words);
        match name {
            "pop" => self.try_pop().map_err(words)?.number_at(at).map(drop),
            "pop-slice" => {
                let mut out = [Message::new(0, 0); 3];
                let count = self.try_pop_slice(&mut out).map_err(words)?;
                let mut found = out[..count].iter().zip(at..);
                found.try_for_each(|(message, at)| message.number_at(at).map(drop))
            }
            "read-release" => self.try_read(2).map(drop).map_err(words),
            "read-keep" => {
                self.try_read(2).map_err(words)?.release(0);
                Ok(())
            }
            "read-nothing" => match self.try_pop() {
                Err(Error::Empty) => Ok(()),
                other => Err(format!("expected Empty, found {:?}", other.err())),
            },
            "seek-oldest" => seek(self, Seek::Oldest),
            "seek-newest" => seek(self, Seek::Newest),
            // Back, to what the others have had.
            "seek-number" => seek(self, Seek::To(at.saturating_sub(1))),
            "stride" => self.stride(1, 2).map_err(words),
            _ => Err(format!("no operation {name}")),
        }
    }

    fn abort(self: Box<Self>) {}
}

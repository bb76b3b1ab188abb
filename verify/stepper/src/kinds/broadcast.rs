//! `broadcast`: four slots of three words, which hold the message's number, its position in the
//! channel, and both again. There are seats for three consumers, one of which is free while an
//! operation is stepped. There are two modes: the producer waits, or overwrites.

use std::time::Duration;

use slipring::broadcast::{self, Broadcast, Seek, WhenFull};
use slipring::{Error, Payload, Wait};

use super::slots::{CAPACITY, Numbered, Slotted};
use super::{Flow, Kind, Maker, Operation, SHARED, Side, armed, no_operation, operation, words};

/// The number of messages kept at any time where the producer overwrites: it gives up two at a
/// time.
const KEPT: u64 = CAPACITY - 1;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Message {
    number: u64,
    position: u64,
    both: u64,
}

impl Numbered for Message {
    fn new(number: u64, position: u64) -> Message {
        Message {
            number,
            position,
            both: !number.rotate_left(32) ^ position,
        }
    }

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

/// The operations that both modes share.
const BOTH: [Operation; 7] = [
    operation("read-nothing", Side::Consumer, 0, 0),
    operation("join-newest", Side::Consumer, 3, 0),
    operation("join-number", Side::Consumer, 3, 0),
    back(operation("seek-oldest", Side::Consumer, 0, 0)),
    back(operation("seek-number", Side::Consumer, 0, 0)),
    operation("seek-newest", Side::Consumer, 3, 0),
    operation("stride", Side::Consumer, 3, 0),
];

const WAITING: [Operation; 10] = [
    operation("push-slice", Side::Producer, 1, 3),
    operation("reserve-commit", Side::Producer, 1, 2),
    operation("reserve-discard", Side::Producer, 1, 0),
    operation("reserve-full", Side::Producer, 4, 0),
    operation("pop-slice", Side::Consumer, 3, 3),
    operation("read-one", Side::Consumer, 3, 1),
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

/// The operations of a producer that does not wait but overwrites unread messages.
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

/// The producer has reached its write limit, and not passed it. So a consumer may safely go back to
/// the last messages.
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
    // The wait sleeps at once: polling repeats the same few instructions over and over.
    broadcast::Builder::new(CAPACITY as usize)
        .join(Seek::Oldest)
        .consumers(3)
        .when_full(when_full)
        .wait(Wait::Sleep {
            spin_for: Duration::ZERO,
        })
}

impl Slotted for Broadcast<Message> {
    fn begin_at(rx: &mut broadcast::Consumer<Message>, number: u64) -> Result<(), String> {
        rx.seek(Seek::To(number)).map(drop).map_err(words)
    }

    fn act(rx: &mut broadcast::Consumer<Message>, name: &str) -> Result<(), String> {
        let seek = match name {
            "seek-oldest" => Seek::Oldest,
            "seek-newest" => Seek::Newest,
            // Goes back, to a message that the others have had.
            "seek-number" => Seek::To(rx.position().saturating_sub(1)),
            "stride" => return rx.stride(1, 2).map_err(words),
            "read-nothing" => {
                return match rx.try_pop() {
                    Err(Error::Empty) => Ok(()),
                    other => Err(format!("expected Empty, found {:?}", other.err())),
                };
            }
            name => return Err(no_operation(name)),
        };
        rx.seek(seek).map(drop).map_err(words)
    }
}

//! `spsc`: four slots of 64 bytes, every word of which says the message's number.

use std::time::Duration;

use slipring::set::Key;
use slipring::{Error, Payload, Readiness, Wait, WaitSet, spsc};

use super::{Consumer, Given, Kind, Operation, Producer, Side, operation, words};

const CAPACITY: u64 = 4;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Message([u64; 8]);

impl Message {
    fn new(number: u64) -> Message {
        Message(std::array::from_fn(|word| number << 8 | word as u64))
    }

    fn number(&self) -> Result<u64, String> {
        let number = self.0[0] >> 8;
        if self.0 == Message::new(number).0 {
            Ok(number)
        } else {
            Err(format!("a torn message: {:x?}", self.0))
        }
    }
}

const OWN: [Operation; 7] = [
    operation("push-slice", Side::Producer, 1, 3),
    operation("reserve-commit", Side::Producer, 1, 2),
    operation("reserve-discard", Side::Producer, 1, 0),
    operation("reserve-full", Side::Producer, 4, 0),
    operation("pop-slice", Side::Consumer, 3, 3),
    operation("read-release", Side::Consumer, 3, 2),
    operation("read-keep", Side::Consumer, 3, 0),
];

pub(super) fn kind() -> Kind {
    Kind::new("spsc", CAPACITY, builder(), &OWN)
}

fn builder() -> spsc::Builder<Message> {
    // Waits by sleeping at once: polling is the same few instructions over and over.
    spsc::Builder::new(CAPACITY as usize).wait(Wait::Sleep {
        spin_for: Duration::ZERO,
    })
}

impl Producer for spsc::Producer<Message> {
    fn push(&mut self, number: u64, timeout: Duration) -> Result<(), String> {
        self.push_timeout(Message::new(number), timeout)
            .map_err(words)
    }

    fn room(&mut self) -> Result<u64, String> {
        Ok(self.try_reserve(CAPACITY as usize).map_err(words)?.len() as u64)
    }

    fn arm(&mut self) -> Result<(), String> {
        match spsc::Producer::arm(self, 1).map_err(words)? {
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
        let values = [next, next + 1, next + 2].map(Message::new);
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
        spsc::Producer::abort(*self);
    }
}

impl Consumer for spsc::Consumer<Message> {
    fn pop(&mut self, timeout: Duration) -> Result<Given, String> {
        match self.pop_timeout(timeout) {
            Ok(message) => Ok(Given::Message(message.number()?)),
            Err(Error::TimedOut) => Ok(Given::Nothing),
            Err(Error::Disconnected(end)) => Ok(Given::Ended(end)),
            Err(error) => Err(words(error)),
        }
    }

    fn arm(&mut self) -> Result<(), String> {
        match spsc::Consumer::arm(self).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is a message".into()),
        }
    }

    fn watch(&self, set: &WaitSet) -> Result<Key, Error> {
        set.watch(self)
    }

    fn act(&mut self, name: &str) -> Result<(), String> {
        match name {
            "pop" => self.try_pop().map(drop).map_err(words),
            "pop-slice" => {
                let mut out = [Message::new(0); 3];
                self.try_pop_slice(&mut out).map(drop).map_err(words)
            }
            "read-release" => self.try_read(2).map(drop).map_err(words),
            "read-keep" => {
                self.try_read(2).map_err(words)?.release(0);
                Ok(())
            }
            _ => Err(format!("no operation {name}")),
        }
    }

    fn abort(self: Box<Self>) {
        spsc::Consumer::abort(*self);
    }
}

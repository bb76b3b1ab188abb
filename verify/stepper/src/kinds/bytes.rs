//! `bytes`: a ring of 256 bytes with records of 10 to 56. Every byte of a record and its length
//! follow from the record's number.

use std::time::Duration;

use slipring::set::Key;
use slipring::{Error, Readiness, Wait, WaitSet, bytes};

use super::{Consumer, Given, Kind, Operation, Producer, Side, no_operation, operation, words};

const RING: usize = 256;
const LARGEST: usize = 56;

/// Returns the record of a number: 10 to 56 bytes, so that records end anywhere in a word, and run
/// into the slack.
fn record(number: u64) -> Vec<u8> {
    let len = 10 + (number as usize * 23) % 47;
    let body = (8..len).map(|at| (number as u8).wrapping_mul(31).wrapping_add(at as u8));
    number.to_le_bytes().into_iter().chain(body).collect()
}

fn number(found: &[u8]) -> Result<u64, String> {
    let number = found
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word));
    if found == record(number) {
        Ok(number)
    } else {
        Err(format!("a torn record: {found:x?}"))
    }
}

/// The number of records that fit, whatever their numbers: each takes 64 bytes of the ring at most.
const CAPACITY: u64 = 4;

const OWN: [Operation; 5] = [
    operation("reserve-commit", Side::Producer, 1, 1),
    operation("reserve-discard", Side::Producer, 1, 0),
    operation("read-release", Side::Consumer, 3, 1),
    operation("read-keep", Side::Consumer, 3, 0),
    operation("read-batch", Side::Consumer, 3, 2),
];

pub(super) fn kind() -> Kind {
    Kind::new("bytes", CAPACITY, builder(), &OWN)
}

fn builder() -> bytes::Builder {
    let wait = Wait::Sleep {
        spin_for: Duration::ZERO,
    };
    bytes::Builder::new(RING).max_record(RING - 8).wait(wait)
}

/// More room than is free beside four records, whatever their numbers.
const MUCH: usize = RING - 8;

impl Producer for bytes::Producer {
    fn push(&mut self, number: u64, timeout: Duration) -> Result<(), String> {
        self.push_timeout(&record(number), timeout).map_err(words)
    }

    fn room(&mut self) -> Result<u64, String> {
        let all = self.try_reserve(RING - 8).map_err(words)?;
        Ok((all.len() / (LARGEST + 6)) as u64)
    }

    fn arm(&mut self) -> Result<(), String> {
        match bytes::Producer::arm(self, MUCH).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is room".into()),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, String> {
        match self.reserve_timeout(MUCH, timeout) {
            Ok(_) => Ok(true),
            Err(Error::TimedOut) => Ok(false),
            Err(error) => Err(words(error)),
        }
    }

    fn watch(&self, set: &WaitSet) -> Result<Key, Error> {
        set.watch_room(self, MUCH)
    }

    fn act(&mut self, name: &str, next: u64) -> Result<(), String> {
        let records = [next, next + 1, next + 2].map(record);
        match name {
            "push" => self.try_push(&records[0]).map_err(words),
            "push-iter" => {
                let mut records = records.iter().map(Vec::as_slice).peekable();
                self.try_push_iter(&mut records).map(drop).map_err(words)
            }
            "reserve-commit" | "reserve-discard" => {
                let mut space = self.try_reserve(LARGEST).map_err(words)?;
                space[..records[0].len()].copy_from_slice(&records[0]);
                if name == "reserve-commit" {
                    space.commit(records[0].len());
                }
                Ok(())
            }
            name => Err(no_operation(name)),
        }
    }

    fn abort(self: Box<Self>) {
        bytes::Producer::abort(*self);
    }
}

impl Consumer for bytes::Consumer {
    fn pop(&mut self, timeout: Duration) -> Result<Given, String> {
        match self.read_timeout(timeout) {
            Ok(found) => Ok(Given::Message(number(&found)?)),
            Err(Error::TimedOut) => Ok(Given::Nothing),
            Err(Error::Disconnected(end)) => Ok(Given::Ended(end)),
            Err(error) => Err(words(error)),
        }
    }

    fn arm(&mut self) -> Result<(), String> {
        match bytes::Consumer::arm(self).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is a record".into()),
        }
    }

    fn watch(&self, set: &WaitSet) -> Result<Key, Error> {
        set.watch(self)
    }

    fn act(&mut self, name: &str) -> Result<(), String> {
        match name {
            "pop" => {
                let mut out = [0; LARGEST];
                self.try_pop(&mut out).map(drop).map_err(words)
            }
            "read-release" => self.try_read().map(drop).map_err(words),
            "read-keep" => {
                self.try_read().map_err(words)?.keep();
                Ok(())
            }
            "read-batch" => {
                let mut batch = self.try_read_batch(2).map_err(words)?;
                while batch.next().map_err(words)?.is_some() {}
                Ok(())
            }
            name => Err(no_operation(name)),
        }
    }

    fn abort(self: Box<Self>) {
        bytes::Consumer::abort(*self);
    }
}

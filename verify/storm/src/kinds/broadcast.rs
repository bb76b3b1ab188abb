//! `broadcast`: slots of 64 bytes, every word of which says the message's number; every consumer sees all.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring::broadcast::{self, WhenFull};
use slipring::{Error, Readiness};
use slipring_tests::message::{Message, Numbered};

use super::{Consumer, Delivery, HAND, Kind, Producer, Way, checked, create, open, waiting};

/// How many consumers' seats there are: fewer than processes that want one, in the larger scenes.
const SEATS: usize = 3;

/// That waits for the slowest, and that overwrites what it has not read.
pub(super) fn kinds() -> [Kind; 2] {
    [
        Kind {
            name: "broadcast",
            delivery: Delivery::All,
            consumers: SEATS,
            capacity,
            create: |way| create(&builder(way, WhenFull::Wait)),
            open: |way, place| open(builder(way, WhenFull::Wait), place),
        },
        Kind {
            name: "broadcast, overwriting",
            delivery: Delivery::Quick,
            consumers: SEATS,
            capacity,
            create: |way| create(&builder(way, WhenFull::Overwrite)),
            open: |way, place| open(builder(way, WhenFull::Overwrite), place),
        },
    ]
}

fn capacity(way: Way) -> u64 {
    if way == Way::Stream { 64 } else { 2 }
}

fn builder(way: Way, when_full: WhenFull) -> broadcast::Builder<Message> {
    let builder = broadcast::Builder::new(capacity(way) as usize).join(broadcast::Seek::Oldest);
    waiting(builder.consumers(SEATS).when_full(when_full), way)
}

impl Producer for broadcast::Producer<Message> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(broadcast::Producer::push(self, Message::numbered(number))?)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        let pushed = broadcast::Producer::try_push(self, Message::numbered(number));
        Ok(pushed?)
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut slots = self.reserve(1)?;
        slots.write(0, Message::numbered(number));
        slots.commit(1);
        Ok(())
    }

    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error> {
        let values = numbers.map(Message::numbered).collect::<Vec<_>>();
        self.push_slice(&values).map_err(|(_, error)| error)
    }

    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        broadcast::Producer::wait_for_consumer(self, timeout)
    }

    fn arm(&mut self, _number: u64) -> Result<Readiness, Error> {
        broadcast::Producer::arm(self, 1)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

impl Consumer for broadcast::Consumer<Message> {
    fn next(&self) -> u64 {
        self.position()
    }

    /// In place; copied where what is being read may be overwritten.
    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        match broadcast::Consumer::read(self, max) {
            Ok(messages) => {
                seen(&numbers(messages.iter()));
                return Ok(());
            }
            Err(Error::Overwritten) => {}
            Err(error) => return Err(error),
        }
        let mut copies = [Message::numbered(0); HAND as usize];
        let count = self.pop_slice(&mut copies[..max])?;
        seen(&numbers(copies[..count].iter()));
        Ok(())
    }

    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        broadcast::Consumer::wait_for_producer(self, timeout)
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        broadcast::Consumer::arm(self)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

fn numbers<'m>(messages: impl Iterator<Item = &'m Message>) -> Vec<u64> {
    messages.map(|message| checked(message.check())).collect()
}

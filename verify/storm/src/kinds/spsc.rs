//! `spsc`: slots of 64 bytes, every word of which says the message's number.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring::{Error, Readiness, spsc};
use slipring_tests::message::{Message, Numbered};

use super::{Consumer, Delivery, Kind, Producer, Way, checked, create, open, waiting};

pub(super) fn kind() -> Kind {
    Kind {
        name: "spsc",
        delivery: Delivery::One,
        consumers: 1,
        capacity,
        create: |way| create(&builder(way)),
        open: |way, place| open(builder(way), place),
    }
}

fn capacity(way: Way) -> u64 {
    if way == Way::Stream { 64 } else { 2 }
}

fn builder(way: Way) -> spsc::Builder<Message> {
    waiting(spsc::Builder::new(capacity(way) as usize), way)
}

impl Producer for spsc::Producer<Message> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(spsc::Producer::push(self, Message::numbered(number))?)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        Ok(spsc::Producer::try_push(self, Message::numbered(number))?)
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
        spsc::Producer::wait_for_consumer(self, timeout)
    }

    fn arm(&mut self, _number: u64) -> Result<Readiness, Error> {
        spsc::Producer::arm(self, 1)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

impl Consumer for spsc::Consumer<Message> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let messages = spsc::Consumer::read(self, max)?;
        let numbers = messages.iter().map(|message| checked(message.check()));
        seen(&numbers.collect::<Vec<_>>());
        Ok(())
    }

    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        spsc::Consumer::wait_for_producer(self, timeout)
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        spsc::Consumer::arm(self)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

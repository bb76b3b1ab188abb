//! `bytes`: records of 16 to 112 bytes. Every byte of a record and its length follow from the
//! record's number.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring::{Error, Readiness, bytes};
use slipring_tests::message::{self, LARGEST};

use super::{Consumer, Delivery, Kind, Producer, Way, checked, create, open, waiting};

pub(super) fn kind() -> Kind {
    Kind {
        name: "bytes",
        delivery: Delivery::One,
        consumers: 1,
        // The capacity for the shortest records.
        capacity: |way| ring(way) as u64 / 16,
        create: |way| create(&builder(way)),
        open: |way, place| open(builder(way), place),
    }
}

fn ring(way: Way) -> usize {
    if way == Way::Stream { 4096 } else { 128 }
}

fn builder(way: Way) -> bytes::Builder {
    waiting(bytes::Builder::new(ring(way)).max_record(LARGEST), way)
}

fn number(at: u64) -> u64 {
    message::record_at(at).unwrap_or_else(|| panic!("torn: a record ends at {at}"))
}

fn record(number: u64) -> Vec<u8> {
    let mut record = vec![0; message::length(number)];
    message::write(number, &mut record);
    record
}

impl Producer for bytes::Producer {
    fn next(&self) -> u64 {
        number(self.position())
    }

    fn push(&mut self, number: u64) -> Result<(), Error> {
        bytes::Producer::push(self, &record(number))
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        bytes::Producer::try_push(self, &record(number))
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut space = self.reserve(LARGEST)?;
        let length = message::length(number);
        message::write(number, &mut space[..length]);
        space.commit(length);
        Ok(())
    }

    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error> {
        let records = numbers.map(record).collect::<Vec<_>>();
        self.push_iter(records.iter().map(Vec::as_slice))?;
        Ok(())
    }

    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        bytes::Producer::wait_for_consumer(self, timeout)
    }

    fn arm(&mut self, number: u64) -> Result<Readiness, Error> {
        bytes::Producer::arm(self, message::length(number))
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

impl Consumer for bytes::Consumer {
    fn next(&self) -> u64 {
        number(self.position())
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let mut records = self.read_batch(max)?;
        let mut numbers = Vec::new();
        while let Some(record) = records.next()? {
            numbers.push(checked(message::check(record)));
        }
        seen(&numbers);
        Ok(())
    }

    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        bytes::Consumer::wait_for_producer(self, timeout)
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        bytes::Consumer::arm(self)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

//! Describes `bytes`: one producer and one consumer, over records of 16 to 112 bytes. Its ends are
//! here too, because records go through verbs of their own.

use std::ops::Range;
use std::time::Duration;

use slipring::Error;
use slipring::bytes::{Builder, Bytes};

use super::{Delivery, Kind, Unit};
use crate::message::{self, LARGEST, record};
use crate::{Came, Consumer, Maker, Producer, Terms, whole};

pub(super) const KIND: Kind = Kind {
    name: "bytes",
    unit: Unit::Bytes,
    delivery: Delivery::One,
    producers: 1,
    consumers: 1,
    seeks: false,
    exact_positions: true,
    ends_survive: true,
    released_apart: false,
    variant: false,
    batches: true,
    queue: false,
    topic: false,
    maker,
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    let builder = Builder::new(terms.capacity.unwrap_or(4096));
    let builder = match terms.max_record {
        Some(max) => builder.max_record(max),
        None => builder,
    };
    Box::new(terms.apply(builder))
}

/// Room for a record whose length is torn, as far as a program's channels allow any.
const LONGEST: usize = 512;

/// Returns the number of the record that begins at this position.
fn number(at: u64) -> u64 {
    message::record_at(at).unwrap_or_else(|| panic!("torn: a record ends at {at}"))
}

impl Producer for slipring::Producer<Bytes> {
    fn next(&self) -> u64 {
        number(self.position())
    }

    fn room_for(&self, number: u64) -> usize {
        message::length(number)
    }

    fn push(&mut self, number: u64) -> Result<(), Error> {
        Self::push(self, &record(number))
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        Self::push_timeout(self, &record(number), timeout)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        Self::try_push(self, &record(number))
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

    fn try_batch(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        self.iterate(numbers, &mut || {})
    }

    fn iterate(&mut self, numbers: Range<u64>, between: &mut dyn FnMut()) -> Result<usize, Error> {
        let records = numbers.map(record).collect::<Vec<_>>();
        let records = records.iter().map(Vec::as_slice);
        self.try_push_iter(&mut records.inspect(|_| between()).peekable())
    }

    fn hold(
        &mut self,
        numbers: Range<u64>,
        decide: &mut dyn FnMut(Range<u64>) -> Option<usize>,
    ) -> Result<(), Error> {
        let mut space = self.try_reserve(LARGEST)?;
        let length = message::length(numbers.start);
        message::write(numbers.start, &mut space[..length]);
        match decide(numbers.start..numbers.start + 1) {
            Some(1..) => space.commit(length),
            Some(0) | None => space.discard(),
        }
        Ok(())
    }

    fn try_room(&mut self, room: usize) -> Result<usize, Error> {
        Ok(self.try_reserve(room)?.len())
    }

    fn wait_for_room(&mut self, room: usize, timeout: Duration) -> Result<(), Error> {
        self.reserve_timeout(room, timeout).map(drop)
    }
}

impl Consumer for slipring::Consumer<Bytes> {
    fn next(&self) -> u64 {
        number(self.position())
    }

    fn try_pop_any(&mut self) -> Result<Came, Error> {
        let mut record = [0; LONGEST];
        let length = Self::try_pop(self, &mut record)?;
        Ok(message::check(&record[..length]))
    }

    fn pop_any(&mut self, timeout: Duration) -> Result<Came, Error> {
        let mut record = [0; LONGEST];
        let length = Self::pop_timeout(self, &mut record, timeout)?;
        Ok(message::check(&record[..length]))
    }

    fn try_read(&mut self) -> Result<Came, Error> {
        Ok(message::check(&Self::try_read(self)?))
    }

    fn try_read_batch(
        &mut self,
        max: usize,
        release: bool,
        seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error> {
        let mut records = Self::try_read_batch(self, max)?;
        while let Some(record) = records.next()? {
            seen(message::check(record));
        }
        if !release {
            records.keep();
        }
        Ok(())
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let mut records = self.read_batch(max)?;
        let mut numbers = Vec::new();
        while let Some(record) = records.next()? {
            numbers.push(whole(message::check(record)));
        }
        seen(&numbers);
        Ok(())
    }
}

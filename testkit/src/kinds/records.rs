//! Describes `mpmc::records`: any consumer takes each message, over records of 16 to 112 bytes in slots. Its ends are here
//! too, because records go through verbs of their own.

use std::ops::Range;
use std::time::Duration;

use slipring::Error;
use slipring::mpmc::records::{Builder, Record, Records};

use super::mpmc::with_terms;
use super::{Delivery, Kind, Unit};
use crate::message::{self, LARGEST, record};
use crate::record_ends;
use crate::{Came, Commit, Consumer, Fate, Finish, Maker, Producer, Terms};

pub(super) const KIND: Kind = Kind {
    name: "records",
    unit: Unit::Slots,
    delivery: Delivery::One,
    producers: 1,
    consumers: 1,
    seeks: false,
    exact_positions: false,
    ends_survive: false,
    released_apart: true,
    variant: false,
    batches: true,
    runs: false,
    queue: true,
    topic: false,
    growing: false,
    maker,
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    let largest = terms.max_record.unwrap_or(LARGEST);
    let builder = with_terms(Builder::new(terms.capacity.unwrap_or(64), largest), terms);
    Box::new(terms.apply(builder))
}

impl Producer for slipring::Producer<Records> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn room_for(&self, _number: u64) -> usize {
        1
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
        record_ends::place(self, number)
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
        record_ends::iterate(self, numbers, between)
    }

    fn hold(
        &mut self,
        numbers: Range<u64>,
        decide: &mut dyn FnMut(Range<u64>) -> Option<usize>,
    ) -> Result<(), Error> {
        record_ends::hold(self, numbers, decide)
    }

    /// Reserves the slots one by one, and all of them at once.
    fn try_room(&mut self, room: usize) -> Result<usize, Error> {
        let slots = (0..room).map(|_| self.try_reserve_owned(LARGEST));
        Ok(slots.collect::<Result<Vec<_>, _>>()?.len())
    }

    fn wait_for_room(&mut self, _room: usize, timeout: Duration) -> Result<(), Error> {
        self.reserve_timeout(LARGEST, timeout).map(drop)
    }

    fn try_reserve_owned(&mut self, numbers: Range<u64>) -> Result<Commit, Error> {
        let length = message::length(numbers.start);
        let mut space = Self::try_reserve_owned(self, LARGEST)?;
        message::write(numbers.start, &mut space[..length]);
        let commit = move |count| match count {
            0 => space.discard(),
            _ => space.commit(length),
        };
        Ok(Box::new(commit))
    }
}

impl Consumer for slipring::Consumer<Records> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn try_pop_any(&mut self) -> Result<Came, Error> {
        record_ends::pop_any(self, None)
    }

    fn pop_any(&mut self, timeout: Duration) -> Result<Came, Error> {
        record_ends::pop_any(self, Some(timeout))
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
        record_ends::try_read_batch(self, max, release, seen)
    }

    /// Reads a batch in place: records are not copied several at once.
    fn try_copy(&mut self, max: usize, seen: &mut dyn FnMut(Came)) -> Result<(), Error> {
        record_ends::try_read_batch(self, max, true, seen)
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        record_ends::read(self, max, seen)
    }

    fn try_read_owned(&mut self) -> Result<(Came, Finish), Error> {
        let record = Self::try_read_owned(self)?;
        let came = message::check(&record);
        let finish = move |release| match release {
            true => record.release(),
            false => record.keep(),
        };
        Ok((came, Box::new(finish)))
    }

    fn try_handle(&mut self, fate: Fate) -> Result<Came, Error> {
        Ok(finish(Self::try_read(self)?, fate))
    }

    fn try_dead_letter(&mut self, fate: Fate) -> Result<Came, Error> {
        Ok(finish(Self::try_dead_letter(self)?, fate))
    }

    fn deliveries(&self) -> u32 {
        Self::deliveries(self)
    }

    fn dead_letters(&self) -> usize {
        Self::dead_letters(self)
    }
}

fn finish(record: Record<'_>, fate: Fate) -> Came {
    let came = message::check(&record);
    match fate {
        Fate::Released => record.release(),
        Fate::GivenBack => record.keep(),
        Fate::PutAside => record.put_aside(),
    }
    came
}

//! Describes `topic`: every consumer receives each message that it reads before producers overwrite it, and reads it in
//! place. Of values, over several seats for producers, and of records of 16 to 112 bytes, over one.
//!
//! The ends of records are here too, because records go through verbs of their own.

use std::ops::Range;
use std::time::Duration;

use slipring::broadcast::Seek;
use slipring::topic::{OwnedSample, Subscriber, Topic, records};
use slipring::{Builder, Error, TopicKind};

use super::{Delivery, Kind, Unit};
use crate::message::{self, LARGEST, Message, Numbered, Odd, record};
use crate::record_ends;
use crate::slots::{self, Family, Reads, Slots};
use crate::{Came, Consumer, Held, Maker, MessageType, Producer, Terms, whole};

pub(super) const KIND: Kind = Kind {
    name: "topic",
    unit: Unit::Slots,
    delivery: Delivery::Overwriting,
    producers: 2,
    consumers: 3,
    seeks: true,
    // Several producers share one order of numbers, so a position does not say what a producer appended.
    exact_positions: false,
    ends_survive: false,
    released_apart: false,
    variant: false,
    batches: true,
    runs: true,
    queue: false,
    topic: true,
    growing: false,
    maker,
};

pub(super) const RECORDS: Kind = Kind {
    name: "topic-records",
    producers: 1,
    batches: false,
    runs: false,
    maker: maker_of_records,
    ..KIND
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    match terms.message {
        MessageType::Message => slots::of::<TopicFamily, Message>(terms),
        MessageType::Odd => slots::of::<TopicFamily, Odd>(terms),
        MessageType::Number => slots::of::<TopicFamily, u64>(terms),
        other => slots::carries_no(other),
    }
}

fn maker_of_records(terms: &Terms) -> Box<dyn Maker> {
    let largest = terms.max_record.unwrap_or(LARGEST);
    let capacity = terms.capacity.unwrap_or(64);
    Box::new(terms.apply(with_terms(records::Builder::new(capacity, largest), terms)))
}

struct TopicFamily;

impl Family for TopicFamily {
    type Of<T: Numbered> = Topic<T>;

    fn builder<T: Numbered>(slots: usize, terms: &Terms) -> Builder<Topic<T>> {
        with_terms(slipring::topic::Builder::<T>::new(slots), terms)
    }
}

/// Tells the builder of a topic the terms that concern it.
fn with_terms<K: TopicKind>(mut builder: Builder<K>, terms: &Terms) -> Builder<K> {
    if let Some(producers) = terms.producers {
        builder = builder.producers(producers);
    }
    if let Some(consumers) = terms.consumers {
        builder = builder.consumers(consumers);
    }
    if let Some(held) = terms.held {
        builder = builder.held(held);
    }
    match terms.join {
        Some(seek) => builder.join(seek),
        None => builder,
    }
}

/// Fails unless the message that was read in order at position `at` has that number.
fn in_order(at: u64, sequence: u64, came: Came) -> Came {
    match sequence == at {
        true => came,
        false => Err(format!(
            "message {sequence} was read at {at}, and holds {came:?}"
        )),
    }
}

impl<T: Numbered> Slots for Topic<T> {
    type Reads = OneByOne;

    fn seek(rx: &mut Subscriber<T>, to: Seek) -> Result<u64, Error> {
        rx.seek(to)
    }

    fn try_nth_latest(rx: &mut Subscriber<T>, back: usize) -> Result<(u64, Came), Error> {
        let sample = rx.nth_latest(back)?;
        Ok((sample.origin().sequence, sample.check()))
    }

    fn try_nth_latest_owned(rx: &mut Subscriber<T>, back: usize) -> Result<Box<dyn Held>, Error> {
        Ok(Box::new(rx.nth_latest_owned(back)?))
    }

    fn try_read_held(rx: &mut Subscriber<T>) -> Result<Box<dyn Held>, Error> {
        Ok(Box::new(rx.try_read_owned()?))
    }
}

/// The calls that read in place, one message at a time: a pin keeps one.
pub(crate) struct OneByOne;

impl<T: Numbered> Reads<Topic<T>> for OneByOne {
    fn try_read(rx: &mut Subscriber<T>) -> Result<Came, Error> {
        let at = rx.position();
        let message = rx.try_read()?;
        Ok(in_order(at, message.origin().sequence, message.check()))
    }

    fn try_read_batch(
        rx: &mut Subscriber<T>,
        max: usize,
        release: bool,
        seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error> {
        let messages = rx.try_read_batch(max)?;
        messages.iter().for_each(|message| seen(message.check()));
        if !release {
            messages.release(0);
        }
        Ok(())
    }

    fn read(
        rx: &mut Subscriber<T>,
        _max: usize,
        seen: &mut dyn FnMut(&[u64]),
    ) -> Result<(), Error> {
        let at = rx.position();
        let message = rx.read()?;
        let came = in_order(at, message.origin().sequence, message.check());
        seen(&[whole(came)]);
        Ok(())
    }
}

impl<T: Numbered> Held for OwnedSample<Topic<T>> {
    fn sequence(&self) -> u64 {
        self.origin().sequence
    }

    fn check(&self) -> Came {
        Numbered::check(&**self)
    }
}

impl Held for OwnedSample<records::Records> {
    fn sequence(&self) -> u64 {
        self.origin().sequence
    }

    fn check(&self) -> Came {
        message::check(self)
    }
}

impl Producer for records::Publisher {
    fn next(&self) -> u64 {
        self.position()
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
        record_ends::place(self, number)
    }

    fn batch(&mut self, mut numbers: Range<u64>) -> Result<(), Error> {
        numbers.try_for_each(|number| Producer::push(self, number))
    }

    fn try_batch(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        self.iterate(numbers, &mut || {})
    }

    fn iterate(&mut self, numbers: Range<u64>, between: &mut dyn FnMut()) -> Result<usize, Error> {
        record_ends::iterate_singly(self, numbers, between)
    }

    fn hold(
        &mut self,
        numbers: Range<u64>,
        decide: &mut dyn FnMut(Range<u64>) -> Option<usize>,
    ) -> Result<(), Error> {
        record_ends::hold(self, numbers, decide)
    }

    /// Reserves one record: there are no more of them at once.
    fn try_room(&mut self, room: usize) -> Result<usize, Error> {
        self.try_reserve(LARGEST).map(|_| room)
    }

    fn wait_for_room(&mut self, _room: usize, timeout: Duration) -> Result<(), Error> {
        self.reserve_timeout(LARGEST, timeout).map(drop)
    }
}

impl Consumer for records::Subscriber {
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
        let at = self.position();
        let record = Self::try_read(self)?;
        Ok(in_order(
            at,
            record.origin().sequence,
            message::check(&record),
        ))
    }

    /// Reads one message: a pin keeps one.
    fn try_read_batch(
        &mut self,
        _max: usize,
        release: bool,
        seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error> {
        let record = Self::try_read(self)?;
        seen(message::check(&record));
        match release {
            true => record.release(),
            false => record.keep(),
        }
        Ok(())
    }

    fn read(&mut self, _max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let at = self.position();
        let record = Self::read(self)?;
        let came = in_order(at, record.origin().sequence, message::check(&record));
        seen(&[whole(came)]);
        Ok(())
    }

    /// Copies one message. (There are no batches of records, and the loss of a second one could not be told.)
    fn try_copy(&mut self, _max: usize, seen: &mut dyn FnMut(Came)) -> Result<(), Error> {
        seen(self.try_pop_any()?);
        Ok(())
    }

    fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        Self::seek(self, to)
    }

    fn try_nth_latest(&mut self, back: usize) -> Result<(u64, Came), Error> {
        let sample = self.nth_latest(back)?;
        Ok((sample.origin().sequence, message::check(&sample)))
    }

    fn try_nth_latest_owned(&mut self, back: usize) -> Result<Box<dyn Held>, Error> {
        Ok(Box::new(self.nth_latest_owned(back)?))
    }

    fn try_read_held(&mut self) -> Result<Box<dyn Held>, Error> {
        Ok(Box::new(self.try_read_owned()?))
    }
}

//! Describes `mpmc`: any consumer takes each message, over slots.

use std::ops::Range;

use slipring::mpmc::{Builder, Consumer, Message, Mpmc, Producer};
use slipring::{Error, QueueKind};

use super::{Delivery, Kind, Unit};
use crate::message::{self, Numbered};
use crate::slots::{self, Family, InPlace, Slots};
use crate::{Came, Commit, Fate, Finish, Maker, MessageType, Terms};

pub(super) const KIND: Kind = Kind {
    name: "mpmc",
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
    runs: true,
    queue: true,
    topic: false,
    growing: false,
    maker,
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    match terms.message {
        MessageType::Message => slots::of::<MpmcFamily, message::Message>(terms),
        MessageType::Number => slots::of::<MpmcFamily, u64>(terms),
        other => slots::carries_no(other),
    }
}

struct MpmcFamily;

impl Family for MpmcFamily {
    type Of<T: Numbered> = Mpmc<T>;

    fn builder<T: Numbered>(slots: usize, terms: &Terms) -> Builder<T> {
        with_terms(Builder::new(slots), terms)
    }
}

/// Tells the builder of a work queue the terms that concern it.
pub(super) fn with_terms<K: QueueKind>(
    builder: slipring::Builder<K>,
    terms: &Terms,
) -> slipring::Builder<K> {
    let mut builder = builder
        .producers(terms.producers.unwrap_or(1))
        .consumers(terms.consumers.unwrap_or(1));
    if terms.at_most_once {
        builder = builder.at_most_once();
    }
    match terms.dead_letters {
        Some((after, keep)) => builder.dead_letters(after, keep),
        None => builder,
    }
}

impl<T: Numbered> Slots for Mpmc<T> {
    type Reads = InPlace;

    fn try_reserve_owned(tx: &mut Producer<T>, numbers: Range<u64>) -> Result<Commit, Error> {
        let mut slots = tx.try_reserve_owned((numbers.end - numbers.start) as usize)?;
        for (slot, number) in numbers.enumerate() {
            slots.write(slot, T::numbered(number));
        }
        Ok(Box::new(move |count| slots.commit(count)))
    }

    fn try_read_owned(rx: &mut Consumer<T>) -> Result<(Came, Finish), Error> {
        let message = rx.try_read_owned()?;
        let came = message.check();
        let finish = move |release| match release {
            true => message.release(),
            false => message.keep(),
        };
        Ok((came, Box::new(finish)))
    }

    fn try_handle(rx: &mut Consumer<T>, fate: Fate) -> Result<Came, Error> {
        Ok(finish(rx.try_read()?, fate))
    }

    fn try_dead_letter(rx: &mut Consumer<T>, fate: Fate) -> Result<Came, Error> {
        Ok(finish(rx.try_dead_letter()?, fate))
    }

    fn deliveries(rx: &Consumer<T>) -> u32 {
        rx.deliveries()
    }

    fn dead_letters(rx: &Consumer<T>) -> usize {
        rx.dead_letters()
    }
}

fn finish<T: Numbered>(message: Message<'_, T>, fate: Fate) -> Came {
    let came = message.check();
    match fate {
        Fate::Released => message.release(),
        Fate::GivenBack => message.keep(),
        Fate::PutAside => message.put_aside(),
    }
    came
}

//! Describes `broadcast`: every consumer receives each message. The producer waits for the slowest
//! consumer, or it overwrites.

use slipring::broadcast::{Broadcast, Builder, Overwriting, Seek, Waiting};
use slipring::{Consumer, Error};

use super::{Delivery, Kind, Unit};
use crate::message::{Message, Numbered, Odd, Packet, Twin};
use crate::slots::{self, CopiesOnly, Family, InPlace, Slots};
use crate::{Maker, MessageType, Terms};

pub(super) const WAITING: Kind = Kind {
    name: "broadcast",
    unit: Unit::Slots,
    delivery: Delivery::All,
    producers: 1,
    consumers: 3,
    seeks: true,
    exact_positions: true,
    ends_survive: true,
    released_apart: false,
    variant: false,
    batches: true,
    runs: true,
    queue: false,
    topic: false,
    growing: false,
    maker: waiting,
};

pub(super) const OVERWRITING: Kind = Kind {
    name: "overwriting",
    delivery: Delivery::Overwriting,
    variant: true,
    batches: true,
    runs: true,
    queue: false,
    topic: false,
    growing: false,
    maker: overwriting,
    ..WAITING
};

fn waiting(terms: &Terms) -> Box<dyn Maker> {
    match terms.message {
        MessageType::Message => slots::of::<WaitingFamily, Message>(terms),
        MessageType::Twin => slots::of::<WaitingFamily, Twin>(terms),
        MessageType::Odd => slots::of::<WaitingFamily, Odd>(terms),
        MessageType::Packet => slots::of::<WaitingFamily, Packet>(terms),
        other => slots::carries_no(other),
    }
}

fn overwriting(terms: &Terms) -> Box<dyn Maker> {
    match terms.message {
        MessageType::Message => slots::of::<OverwritingFamily, Message>(terms),
        MessageType::Twin => slots::of::<OverwritingFamily, Twin>(terms),
        MessageType::Odd => slots::of::<OverwritingFamily, Odd>(terms),
        MessageType::Packet => slots::of::<OverwritingFamily, Packet>(terms),
        other => slots::carries_no(other),
    }
}

struct WaitingFamily;

impl Family for WaitingFamily {
    type Of<T: Numbered> = Broadcast<T>;

    fn builder<T: Numbered>(slots: usize, terms: &Terms) -> Builder<T> {
        let builder = Builder::new(slots);
        let builder = match terms.consumers {
            Some(consumers) => builder.consumers(consumers),
            None => builder,
        };
        match terms.join {
            Some(seek) => builder.join(seek),
            None => builder,
        }
    }
}

struct OverwritingFamily;

impl Family for OverwritingFamily {
    type Of<T: Numbered> = Broadcast<T, Overwriting>;

    fn builder<T: Numbered>(slots: usize, terms: &Terms) -> Builder<T, Overwriting> {
        WaitingFamily::builder::<T>(slots, terms).overwriting()
    }
}

impl<T: Numbered> Slots for Broadcast<T, Waiting> {
    type Reads = InPlace;

    fn seek(rx: &mut Consumer<Self>, to: Seek) -> Result<u64, Error> {
        rx.seek(to)
    }

    fn stride(rx: &mut Consumer<Self>, index: u64, of: u64) -> Result<(), Error> {
        rx.stride(index, of)
    }
}

impl<T: Numbered> Slots for Broadcast<T, Overwriting> {
    type Reads = CopiesOnly;

    fn seek(rx: &mut Consumer<Self>, to: Seek) -> Result<u64, Error> {
        rx.seek(to)
    }

    fn stride(rx: &mut Consumer<Self>, index: u64, of: u64) -> Result<(), Error> {
        rx.stride(index, of)
    }
}

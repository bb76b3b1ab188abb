//! Describes `spsc`: one producer and one consumer, over slots.

use slipring::ResizeError;
use slipring::spsc::{Builder, Spsc};

use super::{Delivery, Kind, Unit};
use crate::message::{Frame, Message, Numbered, Packet, Small, Twin};
use crate::slots::{self, Family, InPlace, Slots};
use crate::{Maker, MessageType, Terms};

pub(super) const KIND: Kind = Kind {
    name: "spsc",
    unit: Unit::Slots,
    delivery: Delivery::One,
    producers: 1,
    consumers: 1,
    seeks: false,
    exact_positions: true,
    ends_survive: true,
    released_apart: false,
    variant: false,
    batches: true,
    runs: true,
    queue: false,
    topic: false,
    growing: false,
    maker,
};

/// Begins with the smallest ring.
pub(super) const GROWING: Kind = Kind {
    name: "spsc-growing",
    variant: true,
    growing: true,
    maker: |terms| match terms.message {
        MessageType::Message => slots::of::<GrowingFamily, Message>(terms),
        MessageType::Number => slots::of::<GrowingFamily, u64>(terms),
        other => slots::carries_no(other),
    },
    ..KIND
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    match terms.message {
        MessageType::Message => slots::of::<SpscFamily, Message>(terms),
        MessageType::Twin => slots::of::<SpscFamily, Twin>(terms),
        MessageType::Small => slots::of::<SpscFamily, Small>(terms),
        MessageType::Number => slots::of::<SpscFamily, u64>(terms),
        MessageType::Packet => slots::of::<SpscFamily, Packet>(terms),
        MessageType::Frame => slots::of::<SpscFamily, Frame>(terms),
        other @ MessageType::Odd => slots::carries_no(other),
    }
}

struct SpscFamily;

struct GrowingFamily;

impl Family for GrowingFamily {
    type Of<T: Numbered> = Spsc<T>;

    fn builder<T: Numbered>(slots: usize, terms: &Terms) -> Builder<T> {
        super::growing(Builder::new((slots / 16).max(1)), slots, terms)
    }
}

impl Family for SpscFamily {
    type Of<T: Numbered> = Spsc<T>;

    fn builder<T: Numbered>(slots: usize, _terms: &Terms) -> Builder<T> {
        Builder::new(slots)
    }
}

impl<T: Numbered> Slots for Spsc<T> {
    type Reads = InPlace;

    fn resize(tx: &mut slipring::Producer<Self>, capacity: usize) -> Result<(), ResizeError> {
        tx.resize(capacity)
    }
}

//! Describes `mpmc`: any consumer takes each message, over slots.

use slipring::mpmc::{Builder, Mpmc};

use super::{Delivery, Kind, Unit};
use crate::message::{Message, Numbered};
use crate::slots::{self, Family, InPlace, Slots};
use crate::{Maker, MessageType, Terms};

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
    maker,
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    match terms.message {
        MessageType::Message => slots::of::<MpmcFamily, Message>(terms),
        MessageType::Number => slots::of::<MpmcFamily, u64>(terms),
        other => slots::carries_no(other),
    }
}

struct MpmcFamily;

impl Family for MpmcFamily {
    type Of<T: Numbered> = Mpmc<T>;

    fn builder<T: Numbered>(slots: usize, terms: &Terms) -> Builder<T> {
        let builder = Builder::new(slots);
        builder
            .producers(terms.producers.unwrap_or(1))
            .consumers(terms.consumers.unwrap_or(1))
    }
}

impl<T: Numbered> Slots for Mpmc<T> {
    type Reads = InPlace;
}

//! Describes `spsc`: one producer and one consumer, over slots.

use slipring::spsc::{Builder, Spsc};

use super::{Delivery, Kind, Unit};
use crate::message::{Frame, Numbered};
use crate::slots::{self, Family, InPlace, Slots};
use crate::{Maker, Terms};

pub(super) const KIND: Kind = Kind {
    name: "spsc",
    unit: Unit::Slots,
    delivery: Delivery::One,
    producers: 1,
    consumers: 1,
    seeks: false,
    variant: false,
    maker: slots::maker::<SpscFamily>,
};

struct SpscFamily;

impl Family for SpscFamily {
    type Of<T: Numbered> = Spsc<T>;

    fn builder<T: Numbered>(slots: usize, _terms: &Terms) -> Builder<T> {
        Builder::new(slots)
    }

    fn frames(terms: &Terms) -> Box<dyn Maker> {
        slots::of::<SpscFamily, Frame>(terms)
    }
}

impl<T: Numbered> Slots for Spsc<T> {
    type Reads = InPlace;
}

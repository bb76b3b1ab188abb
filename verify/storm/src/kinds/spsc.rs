//! `spsc`: for the messages see `slots.rs`.

use slipring::spsc::{self, Spsc};
use slipring_tests::message::Message;

use super::slots::{Slotted, capacity};
use super::{Delivery, Kind, Way, create, open, waiting};

impl Slotted for Spsc<Message> {
    const MAY_OVERWRITE: bool = false;
}

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

fn builder(way: Way) -> spsc::Builder<Message> {
    waiting(spsc::Builder::new(capacity(way) as usize), way)
}

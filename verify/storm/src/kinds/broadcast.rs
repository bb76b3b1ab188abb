//! `broadcast`: every consumer receives every message. For the messages see `slots.rs`.

use slipring::broadcast::{self, Broadcast, WhenFull};
use slipring_tests::message::Message;

use super::slots::{Slotted, capacity};
use super::{Delivery, Kind, Way, create, open, waiting};

impl Slotted for Broadcast<Message> {
    const MAY_OVERWRITE: bool = true;
}

/// The number of consumers' seats: in the larger scenarios, fewer than processes that want one.
const SEATS: usize = 3;

/// Returns the kind that waits for the slowest consumer, and the kind that overwrites unread
/// messages.
pub(super) fn kinds() -> [Kind; 2] {
    [
        Kind {
            name: "broadcast",
            delivery: Delivery::All,
            consumers: SEATS,
            capacity,
            create: |way| create(&builder(way, WhenFull::Wait)),
            open: |way, place| open(builder(way, WhenFull::Wait), place),
        },
        Kind {
            name: "broadcast, overwriting",
            delivery: Delivery::Quick,
            consumers: SEATS,
            capacity,
            create: |way| create(&builder(way, WhenFull::Overwrite)),
            open: |way, place| open(builder(way, WhenFull::Overwrite), place),
        },
    ]
}

fn builder(way: Way, when_full: WhenFull) -> broadcast::Builder<Message> {
    let builder = broadcast::Builder::new(capacity(way) as usize).join(broadcast::Seek::Oldest);
    waiting(builder.consumers(SEATS).when_full(when_full), way)
}

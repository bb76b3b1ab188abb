//! Describes each kind in one row, which the programs ask. A new kind is one file here, and its
//! name in the list of `all`.

mod broadcast;
mod broadcast_records;
mod bytes;
mod mpmc;
mod records;
mod spsc;
mod topic;

use std::time::Duration;

pub use slipring::spec::Unit;
use slipring::{Builder, Grow, GrowKind, ResizeError, Role, Shrink};

use crate::{Maker, Terms};

/// The consumers that receive a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One consumer takes it. The successor of a dead consumer goes on where that one released.
    One,
    /// Every consumer: the producer waits for the slowest.
    All,
    /// Every consumer, except for messages that were overwritten before it read them: those are
    /// counted.
    Overwriting,
}

/// A kind of channel.
pub struct Kind {
    /// The name, in tables and on command lines.
    pub name: &'static str,
    /// The unit in which capacities and positions count.
    pub unit: Unit,
    /// The consumers that receive a message.
    pub delivery: Delivery,
    /// The number of producers' seats in the channels of the programs.
    pub producers: usize,
    /// The number of consumers' seats there.
    pub consumers: usize,
    /// `true` if a consumer chooses where it begins.
    pub seeks: bool,
    /// `true` if a seat's position is exact after its holder was killed, so that accounts may rest on it.
    pub exact_positions: bool,
    /// `true` if a finished producer's end is told even if its successor came first.
    pub ends_survive: bool,
    /// `true` if a batch is released message by message: a kill may leave any of them.
    pub released_apart: bool,
    /// `true` if this kind has another kind's memory and seats.
    pub variant: bool,
    /// `true` if several messages can be committed at once.
    pub batches: bool,
    /// `true` if one reservation takes several slots.
    pub runs: bool,
    /// `true` for work queues: several ends a side, guards that leave their handle's hands, dead letters.
    pub queue: bool,
    /// `true` for topics: several producers, and consumers that read and hold any of the last messages.
    pub topic: bool,
    /// `true` if the ring grows by itself when it is full.
    pub growing: bool,
    /// Returns the builder for these terms.
    pub maker: fn(&Terms) -> Box<dyn Maker>,
}

impl Kind {
    /// Returns the number of seats for a role.
    pub fn seats(&self, role: Role) -> usize {
        match role {
            Role::Producer => self.producers,
            Role::Consumer => self.consumers,
        }
    }

    /// Returns `true` if no message is overwritten.
    pub fn waits(&self) -> bool {
        self.delivery != Delivery::Overwriting
    }
}

static ALL: [Kind; 11] = [
    spsc::KIND,
    spsc::GROWING,
    bytes::KIND,
    bytes::GROWING,
    broadcast::WAITING,
    broadcast::OVERWRITING,
    mpmc::KIND,
    records::KIND,
    broadcast_records::KIND,
    topic::KIND,
    topic::RECORDS,
];

/// Returns the builder of a channel whose producer makes the ring larger when it is full.
fn growing<K: GrowKind>(builder: Builder<K>, largest: usize, terms: &Terms) -> Builder<K> {
    let shrink = match terms.shrinks {
        true => Shrink::WhenIdle(Duration::ZERO),
        false => Shrink::OnRequest,
    };
    builder
        .max_capacity(largest)
        .grow(Grow::WhenFull)
        .shrink(shrink)
}

/// What producers of the kinds of records can do about their ring.
pub(crate) trait Resizes: slipring::Kind + Sized {
    /// Implements [`Producer::resize`](crate::Producer::resize).
    fn resize(_tx: &mut slipring::Producer<Self>, _capacity: usize) -> Result<(), ResizeError> {
        unimplemented!("the capacity of this kind is fixed")
    }
}

/// Returns all kinds.
pub fn all() -> &'static [Kind] {
    &ALL
}

/// Returns the kind of this name.
pub fn named(name: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.name == name)
}

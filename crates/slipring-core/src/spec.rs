//! Describes each kind in one table, which all other code asks.
//!
//! | kind | producers | consumers | a position counts | smallest | when full | can grow |
//! |---|---|---|---|---|---|---|
//! | `spsc` | 1 | 1 | slots | 1 slot | waits | yes |
//! | `bytes` | 1 | 1 | bytes, in steps of 8 | 64 bytes | waits | yes |
//! | `broadcast` | 1 | 63, each sees all | slots | 1 slot | waits, or overwrites | no |
//! | `mpmc` | 63 | 63, any one takes a message | slots | 1 slot | waits | no |
//! | `topic` | 63 | 63, each sees all | messages | 1 message | overwrites | no |
//! | `broadcast-records` | 1 | 63, each sees all | bytes, in steps of 8 | 64 bytes | waits | no |

/// The most seats of one side. Each has a bit in a 64-bit word, which leaves one bit for a flag.
pub const MOST_SEATS: usize = 63;

/// The most seats of both sides together.
pub const MOST_IN_ALL: usize = 2 * MOST_SEATS;

/// The kind of a channel. Its number stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Kind {
    /// One producer, one consumer, fixed-size payloads.
    Spsc = 1,
    /// One producer, one consumer, records of varying size.
    Bytes = 2,
    /// One producer, fixed-size payloads, and each consumer sees all of them.
    Broadcast = 3,
    /// Many producers, many consumers, fixed-size payloads, and any one consumer takes each.
    Mpmc = 4,
    /// Many producers, many consumers, and each consumer sees all; the last messages stay readable.
    Topic = 5,
    /// One producer, records of varying size, and each consumer sees all of them.
    BroadcastRecords = 6,
}

/// One of the two sides of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that writes.
    Producer,
    /// The side that reads.
    Consumer,
}

impl Role {
    /// Returns the role's name, as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
        }
    }

    /// Returns the other side.
    pub fn other(self) -> Role {
        match self {
            Role::Producer => Role::Consumer,
            Role::Consumer => Role::Producer,
        }
    }
}

/// The unit in which positions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Slots of fixed size: one for each message.
    Slots,
    /// Bytes: records with their length words.
    Bytes,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The kind's name, as a user writes it.
    pub name: &'static str,
    /// The most producer seats.
    pub producers: u64,
    /// The most consumer seats.
    pub consumers: u64,
    /// The unit in which positions count.
    pub unit: Unit,
    /// The step: every position is a multiple of this power of two.
    pub step: u64,
    /// The smallest capacity, in the unit.
    pub smallest: u64,
    /// `true` if each consumer sees every message, and has a position of its own.
    ///
    /// Its unread messages then concern no other consumer. A new consumer takes over nothing from
    /// the last holder of its seat.
    pub each_sees_all: bool,
    /// `true` if a channel of this kind may wait when it is full.
    pub may_wait: bool,
    /// `true` if a channel of this kind may overwrite its oldest messages.
    pub may_overwrite: bool,
    /// `true` if each slot has a word by which an end claims it, in a table behind the role pages.
    pub has_claims: bool,
    /// `true` if a ring of entries behind the role pages names the slots of the messages, and each producer has slots of
    /// its own.
    pub has_pool: bool,
    /// `true` if a channel of this kind can be made so that its capacity changes while it is in use.
    pub may_grow: bool,
}

const SPSC: Spec = Spec {
    name: "spsc",
    producers: 1,
    consumers: 1,
    unit: Unit::Slots,
    step: 1,
    smallest: 1,
    each_sees_all: false,
    may_wait: true,
    may_overwrite: false,
    has_claims: false,
    has_pool: false,
    may_grow: true,
};

const BYTES: Spec = Spec {
    name: "bytes",
    unit: Unit::Bytes,
    step: 8,
    smallest: 64,
    ..SPSC
};

const BROADCAST: Spec = Spec {
    name: "broadcast",
    consumers: MOST_SEATS as u64,
    each_sees_all: true,
    may_overwrite: true,
    may_grow: false,
    ..SPSC
};

const MPMC: Spec = Spec {
    name: "mpmc",
    producers: MOST_SEATS as u64,
    consumers: MOST_SEATS as u64,
    has_claims: true,
    may_grow: false,
    ..SPSC
};

const TOPIC: Spec = Spec {
    name: "topic",
    producers: MOST_SEATS as u64,
    consumers: MOST_SEATS as u64,
    each_sees_all: true,
    may_wait: false,
    may_overwrite: true,
    has_pool: true,
    may_grow: false,
    ..SPSC
};

const BROADCAST_RECORDS: Spec = Spec {
    name: "broadcast-records",
    consumers: MOST_SEATS as u64,
    each_sees_all: true,
    may_grow: false,
    ..BYTES
};

impl Spec {
    /// Returns `true` if both sides have many ends. A dead holder then concerns all others, since no descriptor tells of
    /// its death; so whoever waits recovers its seat.
    pub const fn is_crowded(&self) -> bool {
        self.producers > 1
    }

    /// Returns the most seats of a side.
    pub fn most(&self, role: Role) -> u64 {
        match role {
            Role::Producer => self.producers,
            Role::Consumer => self.consumers,
        }
    }
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 6] = [
        Kind::Spsc,
        Kind::Bytes,
        Kind::Broadcast,
        Kind::Mpmc,
        Kind::Topic,
        Kind::BroadcastRecords,
    ];

    /// Returns this kind's row of the table.
    pub const fn spec(self) -> &'static Spec {
        match self {
            Kind::Spsc => &SPSC,
            Kind::Bytes => &BYTES,
            Kind::Broadcast => &BROADCAST,
            Kind::Mpmc => &MPMC,
            Kind::Topic => &TOPIC,
            Kind::BroadcastRecords => &BROADCAST_RECORDS,
        }
    }

    /// Returns the kind with this number in the header.
    pub fn from_number(number: u64) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u64 == number)
    }

    /// Returns the kind's name, as a user writes it.
    pub fn name(self) -> &'static str {
        self.spec().name
    }
}

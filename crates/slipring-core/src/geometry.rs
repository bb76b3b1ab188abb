//! The shape of a channel: from a few figures to where everything lies, and which figures are
//! refused.
//!
//! Figures may come from a user or from a header that a stranger wrote, so nothing here overflows
//! or panics, and [`Geometry::check`] comes before all else.

use crate::error::{Corrupt, Error};
use crate::layout::{LINE, PAGE, SEATS};

/// The most bytes that the data part may have.
const MAX_DATA: u64 = 1 << 46;

/// The most seats of one side: a bit each in a word that has one left.
pub const MOST_SEATS: usize = 63;

/// A skew is a multiple of this, in bytes: what a role's words may take up.
pub const SKEW_STEP: usize = 512;

/// The kind of a channel, by its number in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Kind {
    /// One producer, one consumer, fixed-size payloads.
    Spsc = 1,
    /// One producer, one consumer, records of varying size.
    Bytes = 2,
    /// One producer, and each consumer sees all; fixed-size payloads.
    Broadcast = 3,
}

impl Kind {
    /// The kind with this number in the header.
    pub fn from_number(number: u64) -> Option<Kind> {
        match number {
            1 => Some(Kind::Spsc),
            2 => Some(Kind::Bytes),
            3 => Some(Kind::Broadcast),
            _ => None,
        }
    }

    /// The kind's name, as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Spsc => "spsc",
            Kind::Bytes => "bytes",
            Kind::Broadcast => "broadcast",
        }
    }
}

/// What a producer does when the ring is full. Its number is the header's `flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u64)]
pub enum WhenFull {
    /// It waits for the slowest consumer: nothing is lost.
    #[default]
    Wait = 0,
    /// It overwrites the oldest messages: it never waits, and a slow consumer learns what it lost.
    Overwrite = 1,
}

impl WhenFull {
    /// The rule with this number in the header.
    pub fn from_number(number: u64) -> Option<WhenFull> {
        match number {
            0 => Some(WhenFull::Wait),
            1 => Some(WhenFull::Overwrite),
            _ => None,
        }
    }

    /// The rule's name, as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            WhenFull::Wait => "wait",
            WhenFull::Overwrite => "overwrite",
        }
    }
}

/// The shape of a channel: all that is needed to know where everything lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The kind.
    pub kind: Kind,
    /// What happens when it is full.
    pub when_full: WhenFull,
    /// Slots (`spsc`, `broadcast`), or bytes that positions go round in (`bytes`). A power of two.
    pub capacity: u64,
    /// Bytes of a payload (`spsc`, `broadcast`), or of the largest record with its length word (`bytes`).
    pub slot_size: u64,
    /// The alignment that a payload needs, in bytes.
    pub slot_align: u64,
    /// Producer seats.
    pub producers: u64,
    /// Consumer seats.
    pub consumers: u64,
    /// How far, in bytes, the first role's words lie from the start of its page: see
    /// [`role_offset`](Self::role_offset).
    pub skew: u64,
}

impl Geometry {
    /// The seats of both sides together.
    pub fn seats(&self) -> usize {
        (self.producers + self.consumers) as usize
    }

    /// Where the role pages begin in the control part.
    pub fn roles_offset(&self) -> usize {
        (SEATS + self.seats() * LINE).next_multiple_of(PAGE)
    }

    /// Where the words of seat `seat`'s role page begin in the control part: each seat's a step
    /// further into its page than the one before, the first at the skew, which differs from channel
    /// to channel.
    ///
    /// A processor takes a load for the reader of an earlier store whose address agrees with it in
    /// the twelve low bits, and waits until that store is done. Were all positions at the start of a
    /// page, whoever stores one channel's tail and then looks at another's (a question and its answer)
    /// would wait a line's transfer for nothing: 150 ns a round trip of 64 bytes instead of 90.
    pub fn role_offset(&self, seat: usize) -> usize {
        let within = (self.skew as usize + seat * SKEW_STEP) % PAGE;
        self.roles_offset() + seat * PAGE + within
    }

    /// Bytes of the control part.
    pub fn control_len(&self) -> usize {
        self.roles_offset() + self.seats() * PAGE
    }

    /// Bytes of the data part; nothing for a shape beyond all bounds.
    fn checked_data_len(&self) -> Option<u64> {
        let len = match self.kind {
            Kind::Spsc | Kind::Broadcast => self.capacity.checked_mul(self.checked_stride()?)?,
            Kind::Bytes => self.capacity.checked_add(self.slot_size)?,
        };
        (len <= MAX_DATA).then_some(len)
    }

    /// From the start of one slot to the start of the next, in bytes.
    pub fn stride(&self) -> u64 {
        self.checked_stride().unwrap_or(u64::MAX)
    }

    fn checked_stride(&self) -> Option<u64> {
        match self.when_full {
            WhenFull::Wait => Some(self.slot_size),
            WhenFull::Overwrite => padded(self.slot_size, self.slot_align),
        }
    }

    /// Bytes of the data part.
    pub fn data_len(&self) -> u64 {
        self.checked_data_len().unwrap_or(u64::MAX)
    }

    /// Refuses a shape that no channel can have.
    pub fn check(&self) -> Result<(), Error> {
        let word = |word, found, expected| {
            Err(Error::Corrupt(Corrupt {
                word,
                found,
                expected,
            }))
        };
        let (min, max) = match self.kind {
            Kind::Spsc | Kind::Broadcast => (1, MAX_DATA / self.stride().max(1)),
            Kind::Bytes => (64, MAX_DATA / 2),
        };
        let max = max.checked_ilog2().map_or(0, |bits| 1 << bits);
        if !self.capacity.is_power_of_two() || self.capacity < min || self.capacity > max {
            return Err(Error::Capacity {
                found: self.capacity,
                min,
                max,
            });
        }
        if !self.slot_align.is_power_of_two() || self.slot_align > PAGE as u64 {
            return word("slot_align", self.slot_align, PAGE as u64);
        }
        if self.kind == Kind::Bytes && self.slot_align != 8 {
            return word("slot_align", self.slot_align, 8);
        }
        if self.slot_size == 0 || !self.slot_size.is_multiple_of(self.slot_align) {
            return word(
                "slot_size",
                self.slot_size,
                self.slot_size & !(self.slot_align - 1),
            );
        }
        if self.kind == Kind::Bytes && (self.slot_size < 16 || self.slot_size > self.capacity) {
            return word("slot_size", self.slot_size, self.capacity);
        }
        if self.kind != Kind::Broadcast && self.when_full != WhenFull::Wait {
            return word("flags", self.when_full as u64, 0);
        }
        if self.producers != 1 {
            return word("producers", self.producers, 1);
        }
        if !self.skew.is_multiple_of(SKEW_STEP as u64) || self.skew >= PAGE as u64 {
            return word("skew", self.skew, (PAGE - SKEW_STEP) as u64);
        }
        let most = match self.kind {
            Kind::Spsc | Kind::Bytes => 1,
            Kind::Broadcast => MOST_SEATS as u64,
        };
        if !(1..=most).contains(&self.consumers) {
            return word("consumers", self.consumers, most);
        }
        match self.checked_data_len() {
            Some(_) => Ok(()),
            None => word("capacity", self.capacity, MAX_DATA / self.slot_size.max(1)),
        }
    }
}

/// From the start of one slot to the start of the next where slots are copied as whole words, in bytes.
pub(crate) const fn padded(size: u64, align: u64) -> Option<u64> {
    size.checked_next_multiple_of(if align > 8 { align } else { 8 })
}

//! Computes the shape of a channel: from a few figures to the place of every word, and the figures
//! that are refused.
//!
//! Figures may come from a user, or from a header that a stranger wrote. So no function here
//! overflows or panics, and [`Geometry::check`] comes before all else.

mod growth;

use core::ops::Range;

pub use growth::Growth;

use crate::error::{Corrupt, FormatError};
use crate::spec::{Kind, MOST_IN_ALL, Role, Unit};

/// The distance in bytes between words that different roles write.
pub const LINE: usize = 128;
/// The stride of role pages, in bytes.
pub const PAGE: usize = 4096;
/// The offset of the seat table in the control part.
pub const SEATS: usize = 1024;

/// The distance of the words of the slots from the start of the claims, in bytes.
pub const WORDS_OFFSET: usize = 4 * LINE;

/// The size of a slot's note, in bytes.
pub const NOTE: usize = 16;

/// The size of the header of a topic's slot, in bytes.
pub const SAMPLE_HEADER: u64 = 64;

/// The most slots that all producers of a topic have together: an entry has 16 bits for a slot's number, and 0 means none.
pub(crate) const MOST_POOLED: u64 = u16::MAX as u64;

/// The most pins of a topic's consumer: one for what it reads, and three words of four for what leaves its hands.
pub const MOST_PINS: u64 = 13;

/// Slots of this size or more lie a line further apart than whole pages. At whole pages, the headers of all slots would
/// share one set of a processor's first cache.
const LARGE: u64 = 4096;

/// The most bytes that the data part may have.
const MAX_DATA: u64 = 1 << 46;

/// The step of a skew, in bytes: the most that a role's words may take up.
pub const SKEW_STEP: usize = 512;

/// The rule for a full ring. Its number is the header's `flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u64)]
pub enum WhenFull {
    /// The producer waits for the slowest consumer, and no message is lost.
    #[default]
    Wait = 0,
    /// The producer overwrites the oldest messages and never waits. A slow consumer learns what it
    /// lost.
    Overwrite = 1,
}

impl WhenFull {
    /// Returns the rule with this number in the header.
    pub fn from_number(number: u64) -> Option<WhenFull> {
        match number {
            0 => Some(WhenFull::Wait),
            1 => Some(WhenFull::Overwrite),
            _ => None,
        }
    }

    /// Returns the rule's name, as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            WhenFull::Wait => "wait",
            WhenFull::Overwrite => "overwrite",
        }
    }
}

/// The shape of a channel: all figures that are needed to find every word in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The kind.
    pub kind: Kind,
    /// The rule for a full ring.
    pub when_full: WhenFull,
    /// The number of slots (`spsc`, `broadcast`, `mpmc`), of the ring's bytes (`bytes`), or of the messages that stay
    /// readable (`topic`). A power of two. A channel with claims has one slot more.
    pub capacity: u64,
    /// Bytes of a payload (`spsc`, `broadcast`, `mpmc`), of the largest payload (`topic`), or of the largest record with
    /// its length word (`bytes`).
    pub slot_size: u64,
    /// The alignment that a payload needs, in bytes.
    pub slot_align: u64,
    /// The number of producer seats.
    pub producers: u64,
    /// The number of consumer seats.
    pub consumers: u64,
    /// The distance, in bytes, of the first role's words from the start of its page: see
    /// [`role_offset`](Self::role_offset).
    pub skew: u64,
    /// The number of messages that a consumer of a topic can keep from being overwritten; 0 for other kinds.
    pub pins: u64,
    /// The number of slots that each producer of a topic has; 0 for other kinds.
    pub pool: u64,
    /// How far the channel can grow; `None` if its capacity is fixed.
    pub growth: Option<Growth>,
}

impl Geometry {
    /// Returns the number of seats of both sides together.
    pub fn seats(&self) -> usize {
        // No checked shape has more; one that a user asks about before it is checked may.
        let most = MOST_IN_ALL as u64;
        self.producers.saturating_add(self.consumers).min(most) as usize
    }

    /// Returns the numbers of a role's seats: producers come first.
    pub fn seats_of(&self, role: Role) -> Range<usize> {
        let producers = (self.producers as usize).min(self.seats());
        match role {
            Role::Producer => 0..producers,
            Role::Consumer => producers..self.seats(),
        }
    }

    /// Returns the role of seat `seat`.
    pub fn role_of(&self, seat: usize) -> Role {
        match seat < self.producers as usize {
            true => Role::Producer,
            false => Role::Consumer,
        }
    }

    /// Returns the offset of the role pages in the control part.
    pub fn roles_offset(&self) -> usize {
        (SEATS + self.seats() * LINE).next_multiple_of(PAGE)
    }

    /// Returns the offset, in the control part, of the words of seat `seat`'s role page.
    ///
    /// Each seat's words begin one step further into their page than those of the seat before. The
    /// first seat's begin at the skew, which differs from channel to channel.
    ///
    /// A processor takes a load for the reader of an earlier store if the two addresses agree in
    /// the twelve low bits. The load then waits until that store is done. If all positions lay at
    /// the start of a page, a program that stores one channel's tail and then looks at another's
    /// would wait for nothing. A question and its answer do this. The wait is a line's transfer:
    /// 150 ns a round trip of 64 bytes instead of 90.
    pub fn role_offset(&self, seat: usize) -> usize {
        let within = (self.skew as usize + seat * SKEW_STEP) % PAGE;
        self.roles_offset() + seat * PAGE + within
    }

    /// Returns the offset of the claims in the control part: of their three shared words, each on a line of its own, and
    /// [`WORDS_OFFSET`] bytes further of the word of each slot.
    pub fn claims_offset(&self) -> usize {
        self.roles_offset() + self.seats() * PAGE
    }

    /// Returns the distance of the notes of the slots from the start of the claims, in bytes.
    pub fn notes_offset(&self) -> usize {
        (WORDS_OFFSET + self.slots() as usize * 8).next_multiple_of(LINE)
    }

    /// Returns the size of the claims, in bytes; 0 for a kind without.
    pub fn claims_len(&self) -> usize {
        match self.kind.spec().has_claims {
            true => (self.notes_offset() + self.slots() as usize * NOTE).next_multiple_of(PAGE),
            false => 0,
        }
    }

    /// Returns the size of the ring of entries of a topic, in bytes; 0 for other kinds. It lies where the claims of others
    /// do.
    pub fn entries_len(&self) -> usize {
        match self.kind.spec().has_pool {
            true => (self.capacity as usize * 8).next_multiple_of(PAGE),
            false => 0,
        }
    }

    /// Returns the number of slots.
    pub fn slots(&self) -> u64 {
        let spec = self.kind.spec();
        match spec.has_pool {
            true => self.producers.saturating_mul(self.pool),
            false => self.capacity + u64::from(spec.has_claims),
        }
    }

    /// Returns the number of slots that a topic's producer needs so as never to run out of them, with `pins` for each of
    /// `consumers`: those that the ring names, one to write, those that are pinned, and a batch, so that it need not look
    /// at the pins for each message.
    pub fn pool_of(capacity: u64, consumers: u64, pins: u64) -> u64 {
        let pinned = consumers.saturating_mul(pins);
        capacity.saturating_add(pinned).saturating_add(1 + BATCH)
    }

    /// Returns the distance of a topic's payload from the start of its slot, in bytes.
    pub fn payload_offset(&self) -> u64 {
        self.slot_align.max(SAMPLE_HEADER)
    }

    /// Returns the size of the control part, in bytes.
    pub fn control_len(&self) -> usize {
        self.claims_offset() + self.claims_len() + self.entries_len()
    }

    /// Returns the size of the data part, in bytes; `None` for a shape beyond all bounds.
    fn checked_data_len(&self) -> Option<u64> {
        let len = match self.growth {
            None => self.checked_payloads(),
            Some(growth) => growth.checked_len(self),
        }?;
        (len <= MAX_DATA).then_some(len)
    }

    /// Returns the size of the payloads of this capacity, in bytes.
    fn checked_payloads(&self) -> Option<u64> {
        match self.kind.spec().unit {
            Unit::Slots => self.slots().checked_mul(self.checked_stride()?),
            Unit::Bytes => self.capacity.checked_add(self.slot_size),
        }
    }

    /// Returns the distance from the start of one slot to the start of the next, in bytes.
    pub fn stride(&self) -> u64 {
        self.checked_stride().unwrap_or(u64::MAX)
    }

    fn checked_stride(&self) -> Option<u64> {
        if self.kind.spec().has_pool {
            let whole = self.payload_offset().checked_add(self.slot_size)?;
            let align = self.slot_align.max(LINE as u64);
            let stride = whole.checked_next_multiple_of(align)?;
            return match stride < LARGE {
                true => Some(stride),
                false => stride.checked_next_multiple_of(LARGE)?.checked_add(align),
            };
        }
        match self.when_full {
            WhenFull::Wait => Some(self.slot_size),
            WhenFull::Overwrite => padded(self.slot_size, self.slot_align),
        }
    }

    /// Returns the size of the data part, in bytes.
    pub fn data_len(&self) -> u64 {
        self.checked_data_len().unwrap_or(u64::MAX)
    }

    /// Fails for a shape that no channel can have.
    pub fn check(&self) -> Result<(), FormatError> {
        let word = |word, found, expected| {
            Err(FormatError::Corrupt(Corrupt {
                word,
                found,
                expected,
            }))
        };
        let spec = self.kind.spec();
        // Before the capacity: of slots this large there could not be one.
        if spec.unit == Unit::Slots && self.slot_size > MAX_DATA / 4 {
            return word("slot_size", self.slot_size, MAX_DATA / 4);
        }
        let (min, max) = match spec.unit {
            // Each claim takes 24 bytes as well.
            Unit::Slots if spec.has_claims => (spec.smallest, MAX_DATA / self.stride().max(24) / 2),
            // The least pool has one slot more than the ring has entries.
            Unit::Slots if spec.has_pool => (spec.smallest, MOST_POOLED / 2),
            Unit::Slots => (spec.smallest, MAX_DATA / self.stride().max(1)),
            Unit::Bytes => (spec.smallest, MAX_DATA / 2),
        };
        let max = max.checked_ilog2().map_or(0, |bits| 1 << bits);
        if !self.capacity.is_power_of_two() || self.capacity < min || self.capacity > max {
            return Err(FormatError::Capacity {
                found: self.capacity,
                min,
                max,
            });
        }
        if !self.slot_align.is_power_of_two() || self.slot_align > PAGE as u64 {
            return word("slot_align", self.slot_align, PAGE as u64);
        }
        if spec.unit == Unit::Bytes && self.slot_align != spec.step {
            return word("slot_align", self.slot_align, spec.step);
        }
        if self.slot_size == 0 || !self.slot_size.is_multiple_of(self.slot_align) {
            return word(
                "slot_size",
                self.slot_size,
                self.slot_size & !(self.slot_align - 1),
            );
        }
        if spec.unit == Unit::Bytes && (self.slot_size < 16 || self.slot_size > self.capacity) {
            return word("slot_size", self.slot_size, self.capacity);
        }
        let may = match self.when_full {
            WhenFull::Wait => spec.may_wait,
            WhenFull::Overwrite => spec.may_overwrite,
        };
        if !may {
            return word(
                "flags",
                self.when_full as u64,
                u64::from(spec.may_overwrite),
            );
        }
        if !(1..=spec.producers).contains(&self.producers) {
            return word("producers", self.producers, spec.producers);
        }
        if !self.skew.is_multiple_of(SKEW_STEP as u64) || self.skew >= PAGE as u64 {
            return word("skew", self.skew, (PAGE - SKEW_STEP) as u64);
        }
        if !(1..=spec.consumers).contains(&self.consumers) {
            return word("consumers", self.consumers, spec.consumers);
        }
        let (pins, least) = match spec.has_pool {
            true => (1..=MOST_PINS, self.capacity + 1),
            false => (0..=0, 0),
        };
        if !pins.contains(&self.pins) {
            return word("pins", self.pins, *pins.end());
        }
        let most = if least == 0 {
            0
        } else {
            MOST_POOLED / self.producers
        };
        if !(least..=most).contains(&self.pool) {
            return word("pool", self.pool, most);
        }
        if let Some(growth) = self.growth {
            growth.check(self, max)?;
        }
        match self.checked_data_len() {
            Some(_) => Ok(()),
            None => word("capacity", self.capacity, MAX_DATA / self.slot_size.max(1)),
        }
    }
}

/// The most slots that a topic's producer finds free in one look at the pins.
pub const BATCH: u64 = 64;

/// Returns the distance between the starts of two slots that are copied as whole words, in bytes.
pub(crate) const fn padded(size: u64, align: u64) -> Option<u64> {
    size.checked_next_multiple_of(if align > 8 { align } else { 8 })
}

//! Passes records of varying size from one producer to one consumer, in one ring of bytes. Both
//! sides work in place. When the ring is full, the producer waits.
//!
//! # Guarantees
//! As for `spsc`: a commit is visible at once, `Full` is exact, and no call waits or allocates. No
//! record is lost or torn, and none is read twice but the one in hand of a killed consumer. And:
//! - Each record is one run of bytes, as [`packed`] says.
//!
//! # Refuses
//! A record above the largest size that the creator chose. The producer gets an error at once, and
//! changes nothing.
//!
//! # Words
//! `tail` and `head`, in bytes, and the records between them. `cursor.rs` moves both positions. It
//! explains which end may touch which bytes when, with which ordering, and why that is right.
//! `packed.rs` lays out the records.
//!
//! # Source
//! Ring as in `spsc`, records as in `packed.rs`.

use crate::cached_limit::CachedLimit;
use crate::cursor::{self, Reader, Words};
use crate::error::Error;
use crate::guard;
use crate::mem::ByteRing;
use crate::outside::Outside;
use crate::packed;
use crate::record;
use crate::rings::Rings;
use crate::seat::Peer;
use crate::sync::AtomicU64;
use crate::wait::Notifier;

pub use crate::cursor::Writer as Room;
pub use crate::packed::{PREFIX, record_size};

/// The writing end.
pub type Producer<'m> = packed::Producer<'m, Room<'m>>;

/// The reading end.
pub type Consumer<'m> = packed::Consumer<'m>;

/// A record that a producer has reserved.
pub type Reservation<'p, 'm> = guard::Reservation<'p, Producer<'m>>;

/// A record that a consumer reads in place.
pub type Record<'c, 'm> = record::Record<'c, Consumer<'m>>;

/// A run of records read in place, one after another.
pub type Records<'c, 'm> = record::Records<'c, Consumer<'m>>;

/// Reads a `bytes` channel from outside.
pub(super) const OUTSIDE: Outside = Outside {
    messages: packed::messages,
    ..cursor::OUTSIDE
};

/// The shared words of a channel and its bytes, as both ends see them.
pub struct Ring<'m> {
    /// The position before which everything is committed.
    pub tail: &'m AtomicU64,
    /// The position before which everything is released.
    pub head: &'m AtomicU64,
    /// The records.
    pub records: ByteRing<'m>,
    /// The number of records that were committed (its producer) or released (its consumer). For
    /// people.
    pub messages: &'m AtomicU64,
    /// `true` if this end may store into the payload memory. An end that was handed a sealed
    /// channel may not.
    pub writable: bool,
    /// Wakes the other end.
    pub notifier: Notifier<'m>,
    /// The rings of a channel that can grow, and `records` is the first one's memory.
    pub rings: Option<&'m Rings<'m>>,
}

impl<'m> Ring<'m> {
    fn words(&self) -> Words<'m> {
        Words {
            tail: self.tail,
            head: self.head,
            capacity: self.records.ring(),
            most: self.records.ring(),
            write_limit: None,
            writable: self.writable,
            unit: 8,
            ahead: 0,
            rings: self.rings,
        }
    }
}

impl<'m> Producer<'m> {
    /// Takes the writing end, going on at the committed tail.
    ///
    /// # Safety
    /// - `ring` is the one that the other end has, too.
    /// - Only the two ends write its words and its payloads.
    /// - No other producer of it exists until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let (words, mut records) = (ring.words(), ring.records);
        let writer = Room::new(words, ring.notifier, peer, cached_limit, &mut records)?;
        // SAFETY: what the writer finds free, the only reader has released: see `cursor.rs`.
        Ok(unsafe { Producer::over(writer, records, ring.messages) })
    }
}

impl<'m> Consumer<'m> {
    /// Takes the reading end, going on at the released head.
    ///
    /// # Safety
    /// - `ring` is the one that the other end has, too.
    /// - Only the two ends write its words and its payloads.
    /// - No other consumer of it exists until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let (words, mut records) = (ring.words(), ring.records);
        let reader = Reader::new(words, ring.notifier, peer, cached_limit, &mut records)?;
        // SAFETY: what the reader finds committed, the only writer does not write again before the
        // reader releases it: see `cursor.rs`.
        Ok(unsafe { Consumer::over(reader, records, ring.messages, ()) })
    }
}

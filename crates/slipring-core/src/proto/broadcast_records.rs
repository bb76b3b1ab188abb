//! Sends records of varying size from one producer to every consumer, in one ring of bytes. All work
//! in place. When the ring is full, the producer waits for the slowest consumer.
//!
//! # Guarantees
//! - Every consumer that had joined reads what was committed, in order, once, whole. No record is
//!   lost.
//! - A consumer begins, and goes on, only where a record begins.
//! - Without consumers the producer never waits. It then keeps the last records, at least seven
//!   eighths of a ring less a record, for a consumer that joins at the oldest.
//! - The successor of a killed producer goes on behind the last committed record. The producer
//!   stops waiting for a killed consumer once that consumer's seat is repaired.
//! - A publish costs the same for any number of consumers, while they keep up.
//!
//! # Refuses
//! - A second producer.
//! - To overwrite what a consumer has not read.
//! - A record above the largest size that the creator chose.
//!
//! # Words
//! `tail`, the consumers' positions, `gating_set` and `write_limit`, all in bytes. `gate.rs` moves
//! them, and explains how a consumer joins while the producer writes. `packed.rs` lays out the
//! records. What is left for this file is the place where a consumer may begin.
//!
//! # Where a record begins
//! A consumer that begins inside of a record takes payload for a length. Lengths are in the ring
//! only, one behind another, so nobody can find the start of a record from any position in it. But
//! three positions are *boundaries*, where a record begins or will begin:
//!
//! - *The tail.* The producer commits whole records.
//! - *A consumer's position.* It began at a boundary, and releases whole records.
//! - *The floor*, which is the write limit less the ring's size, or zero.
//!
//! The floor is the oldest record that a consumer may still read. It is a boundary since the producer
//! publishes no other limit. While a consumer is in the gating set, the limit is the slowest one's
//! position and a ring, or the producer's own position and a ring. While there is none, the producer
//! goes from the floor to each next record, until enough is given up, and publishes that record's
//! position and a ring. The limit never decreases, and of two boundaries the greater is one.
//!
//! So a consumer that joins, which moves up to the floor if the floor has passed it (*the write
//! limit* in `gate.rs`), ends at a boundary wherever it began: at the tail, or at the floor. Asked
//! for a position between them, it first stands at the floor, so that the producer waits for it. Then
//! it goes from record to record up to the first that begins there or behind.
//!
//! While the producer goes from the floor on, it reads its own records: nobody else writes, and it
//! has written nothing over them, since it never goes beyond a published limit. It gives up an eighth
//! of the ring or more at a time, and so goes over each record once.
//!
//! The slack needs the floor to be a boundary, too. A record that reaches into the slack is given up,
//! or released, as a whole before the producer may reach the ring's end again: see `packed.rs`.
//!
//! # Strangers
//! A consumer's position that no record can have stops the producer with `Corrupt`. One that is
//! merely wrong may be published. It leads consumers that join into the middle of a record. What they
//! find there is a wrong length (`Corrupt`), or bytes that are no message, and never memory outside
//! of the ring and its slack.
//!
//! # Source
//! The gate as in `gate.rs`, records as in `packed.rs`; the floor as a boundary is ours.

mod watching;

use crate::cached_limit::CachedLimit;
use crate::cursor::{self, Reader};
use crate::end::{Poll, sealed::Sealed};
use crate::error::Error;
use crate::gate::{self, Gate, first, newest};
use crate::guard;
use crate::layout::Side;
use crate::mem::ByteRing;
use crate::outside::Outside;
use crate::packed::{self, Room};
use crate::record;
use crate::seat::Peer;
use crate::sync::AtomicU64;
use crate::wait::Notifier;

pub use crate::end::Seek;
pub use crate::gate::Seat;
pub use watching::Watcher;

/// The writing end.
pub type Producer<'m> = packed::Producer<'m, Shared<'m>>;

/// A reading end.
pub type Consumer<'m> = packed::Consumer<'m, Seat<'m>>;

/// A record that a producer has reserved.
pub type Reservation<'p, 'm> = guard::Reservation<'p, Producer<'m>>;

/// A record that a consumer reads in place.
pub type Record<'c, 'm> = record::Record<'c, Consumer<'m>>;

/// A run of records read in place, one after another.
pub type Records<'c, 'm> = record::Records<'c, Consumer<'m>>;

/// Reads a channel of this kind from outside.
pub(super) const OUTSIDE: Outside = Outside {
    messages: packed::messages,
    ..gate::OUTSIDE
};

/// Every position is a multiple of this.
const STEP: u64 = 8;

/// The shared words of a channel and its bytes, as all ends see them.
pub struct Ring<'m> {
    /// The position before which everything is committed.
    pub tail: &'m AtomicU64,
    /// The position before which the producer may write.
    pub write_limit: &'m AtomicU64,
    /// The consumers that the producer waits for: a bit for each.
    pub gating_set: &'m AtomicU64,
    /// The consumers' seats.
    pub consumers: Side<'m>,
    /// The records.
    pub records: ByteRing<'m>,
    /// The number of records that this seat committed (its producer) or released (a consumer). For
    /// people.
    pub messages: &'m AtomicU64,
    /// `true` if this end may store into the payload memory. An end that was handed a sealed
    /// channel may not.
    pub writable: bool,
    /// Wakes the other end.
    pub notifier: Notifier<'m>,
}

/// The producer's side of the positions: the gate, and the records that it gives up while nobody
/// reads them.
pub struct Shared<'m> {
    gate: Gate<'m>,
    records: ByteRing<'m>,
}

/// Returns the write limit to publish while the gating set is empty, if `wanted` must be free: a
/// ring more than the position of the oldest record that stays.
fn unheld(records: ByteRing<'_>, wanted: u64) -> impl FnOnce(&Gate<'_>) -> u64 {
    move |gate| {
        let (at, capacity) = (gate.at(), gate.capacity());
        if gate.published() >= at + wanted {
            return gate.published();
        }
        let floor = gate.published().saturating_sub(capacity);
        let least = (at + wanted.max(capacity / 8)).saturating_sub(capacity);
        // SAFETY: from the floor up to our tail lie records that we, or producers before us, have
        // committed. Only a producer writes, and none has written beyond the published limit.
        let oldest = unsafe { packed::boundary(&records, floor, least, at) };
        // A stranger wrote the wrong length. Then all records are given up: our tail is a boundary.
        oldest.unwrap_or(at) + capacity
    }
}

impl Sealed for Shared<'_> {}

impl<'m> Room<'m> for Shared<'m> {
    #[inline]
    fn at(&self) -> u64 {
        self.gate.at()
    }

    #[inline]
    fn ours(&self) -> bool {
        self.gate.ours()
    }

    #[inline]
    fn poll(&mut self, wanted: u64, message: u64) -> Poll {
        let unheld = unheld(self.records, wanted);
        self.gate.poll(wanted, message, unheld)
    }

    fn slow_path(
        &mut self,
        wanted: u64,
        message: u64,
        _: Option<&mut ByteRing<'m>>,
    ) -> Result<(), Error> {
        let unheld = unheld(self.records, wanted);
        self.gate.slow_path(wanted, message, unheld)
    }

    #[inline]
    fn commit(&mut self, amount: u64) {
        self.gate.commit(amount);
    }

    #[inline]
    fn end_step(&mut self) {
        self.gate.end_step();
    }

    /// The producer learns of a consumer's death when the seat is repaired, or taken anew.
    fn fail_alone(&mut self, on: bool) {
        self.gate.fail_alone(on);
    }

    fn used(&self) -> Result<u64, Error> {
        self.gate.len()
    }

    /// Returns `None`: consumers come and go, so there is no single end to report.
    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }
}

impl<'m> Producer<'m> {
    /// Takes the writing end, going on behind the last committed record.
    ///
    /// # Safety
    /// - `ring` is the one that the other ends have, too.
    /// - Only the ends write its words and its payloads.
    /// - No other producer of it exists until this one is gone.
    pub unsafe fn new(ring: Ring<'m>, cached_limit: &'m mut CachedLimit) -> Result<Self, Error> {
        let words = gate::Words {
            tail: ring.tail,
            write_limit: ring.write_limit,
            gating_set: ring.gating_set,
            consumers: ring.consumers,
            notifier: ring.notifier,
            capacity: ring.records.ring(),
            unit: STEP,
            overwrites: false,
        };
        let gate = Gate::new(words, cached_limit)?;
        let records = ring.records;
        // SAFETY: what the gate finds free, every consumer of the gating set has released, and none
        // joins there: see `gate.rs`.
        Ok(unsafe { Producer::over(Shared { gate, records }, records, ring.messages) })
    }
}

impl<'m> Consumer<'m> {
    /// Takes a reading end, and begins where `seek` says; at a position, with the first record that
    /// begins there or behind.
    ///
    /// Fails with `Ahead` or `Corrupt`.
    ///
    /// # Safety
    /// - `ring` and `seat` are those that the other ends have, too.
    /// - Only the ends write their words and the payloads.
    /// - No other consumer stands in that seat until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m>,
        seat: Seat<'m>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
        seek: Seek,
    ) -> Result<Self, Error> {
        let (from, to) = way(seek, first(ring.tail, seat.write_limit)?)?;
        let at = seat.stand(from);
        let words = cursor::Words {
            tail: ring.tail,
            head: seat.position,
            capacity: seat.capacity,
            most: seat.capacity,
            write_limit: Some(ring.write_limit),
            writable: ring.writable,
            unit: STEP,
            ahead: 0,
            rings: None,
        };
        let reader = Reader::standing_at(at, words, ring.notifier, peer, cached_limit);
        // SAFETY: the producer waits for what this reader has not released: see `gate.rs`.
        let mut consumer = unsafe { Consumer::over(reader, ring.records, ring.messages, seat) };
        consumer.arrive(to).inspect_err(|_| seat.leave())?;
        Ok(consumer)
    }

    /// Goes on where `to` says, and returns the position of the next record; at a position, with the
    /// first record that begins there or behind.
    ///
    /// Fails with `Ahead`, and stays where it was, or with `Corrupt`. Then it goes on after another seek.
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        let newest = newest(self.reader.tail_word(), self.place.write_limit)?;
        let (from, to) = way(to, newest)?;
        // From the floor, even if it is further than from here: words that were impossible may have
        // led us to a place that is no boundary.
        let at = self.place.stand(from);
        self.reader.go_to(at, 0);
        self.arrive(to)?;
        Ok(self.reader.at())
    }

    /// Checks the place where the seat stands, and goes on to the first record at `to` or behind it.
    fn arrive(&mut self, to: u64) -> Result<(), Error> {
        let at = self.reader.at();
        self.place.check(self.reader.tail_word(), at, STEP)?;
        self.go_forward(to)
    }
}

/// Returns the boundary where a consumer first stands, if the floor is not beyond it, and the
/// position to which it goes from there.
fn way(seek: Seek, newest: u64) -> Result<(u64, u64), Error> {
    match seek {
        Seek::Oldest => Ok((0, 0)),
        Seek::Newest => Ok((newest, newest)),
        Seek::To(asked) if asked > newest => Err(Error::Ahead { asked, newest }),
        Seek::To(asked) => Ok((0, asked)),
    }
}

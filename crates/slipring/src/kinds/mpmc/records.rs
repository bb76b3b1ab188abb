//! A work queue of byte strings: many producers, many consumers, and any one consumer takes each record. The size of a slot
//! is set when the program runs; each record has a length of its own.
//!
//! The promises are those of [`mpmc`](crate::mpmc). The lengths lie apart from the bytes: whatever anybody writes into the
//! data part changes no more than the bytes of records.
//!
//! ```
//! use slipring::mpmc::records;
//!
//! let (mut tx, mut rx) = records::channel(64, 1500)?;      // 64 slots of 1500 bytes
//! tx.push(b"resize cat.png")?;
//!
//! let mut record = tx.reserve(1500)?;                       // in place; dropping discards
//! record[..14].copy_from_slice(b"resize dog.png");
//! record.commit(14);
//!
//! let first = rx.read_owned()?;                             // in place, to be finished with at any time
//! assert_eq!(&rx.read()?[..], b"resize dog.png");
//! assert_eq!(&first[..], b"resize cat.png");
//! # Ok::<(), slipring::SetupError>(())
//! ```

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::Schema;
use slipring_core::guard::Reserve;
use slipring_core::mem::ByteCells;
use slipring_core::proto::mpmc as proto;

use super::{geometry, note_handling, ring};
use crate::builder;
use crate::error::Error;
use crate::kind::{
    BatchKind, CrowdKind, Kind, OfRecords, QueueKind, RecordKind, SeatToken, sealed::Sealed,
};
use crate::records;
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::wait::Until;
use crate::{consumer, producer};

/// The kind: many producers, many consumers, any one of them takes a record.
pub type Records = OfRecords<ManyToMany>;

/// Tells [`Records`] from other kinds of records: many producers, many consumers.
#[derive(Debug)]
pub struct ManyToMany(());

/// Makes or opens a queue of records.
pub type Builder = builder::Builder<Records>;

/// The memory of a queue of records, from which roles can be taken.
pub type Channel = crate::channel::Channel<Records>;

/// A writing end of a queue of records.
pub type Producer = producer::Producer<Records>;

/// A reading end of a queue of records.
pub type Consumer = consumer::Consumer<Records>;

/// A record that a producer has reserved. It dereferences to its bytes.
pub type Reservation<'p> = producer::Reservation<'p, Records>;

/// A record that a consumer reads in place.
pub type Record<'c> = records::Record<'c, Records>;

/// A run of records that a consumer reads in place, one after another. What is not released is given back:
/// see [`bytes::Records`](crate::bytes::Records).
pub type Run<'c> = records::Records<'c, Records>;

/// Makes a queue of `capacity` slots between threads of this process, with its first two ends, for records of up to
/// `largest` bytes.
///
/// Errors: as for [`Builder::new`].
pub fn channel(capacity: usize, largest: usize) -> Result<(Producer, Consumer), SetupError> {
    Builder::new(capacity, largest).channel_pair()
}

/// The alignment of a slot, in bytes.
const ALIGN: u64 = 8;

impl Builder {
    /// Describes a queue of `capacity` slots, a power of two, from 1; for records of up to `largest` bytes, from 1 to
    /// 4 GiB less 8. Checked when the channel is made ([`SetupError::Capacity`], [`SetupError::MaxRecord`]). By default it
    /// has seats for 16 producers and 16 consumers.
    ///
    /// A slot takes `largest` bytes, rounded up to 8, whatever the record's length.
    pub fn new(capacity: usize, largest: usize) -> Builder {
        // An overflow stays far too large, and is refused when the channel is made.
        let size = (largest as u64).checked_next_multiple_of(ALIGN);
        let size = size.unwrap_or(1 << 63);
        builder::Builder::with(geometry(capacity, size, ALIGN))
    }
}

impl Sealed for Records {}

impl RecordKind for Records {}

impl BatchKind for Records {}

impl CrowdKind for Records {}

impl QueueKind for Records {
    fn deliveries(consumer: &Self::Consumer) -> u32 {
        consumer.deliveries()
    }

    fn dead_letters(consumer: &Self::Consumer) -> u64 {
        consumer.dead_letters()
    }
}

impl Kind for Records {
    type Producer = proto::Producer<'static, ByteCells<'static>>;
    type Consumer = proto::Consumer<'static, ByteCells<'static>>;

    fn schema() -> Option<Schema> {
        None
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        let ring = ring(token.seat, cells(token.seat)?)?;
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { token.seat.cached_limit() };
        // SAFETY: the seat makes us its only producer, and whoever took the seat gave back what the last holder had
        // claimed. The cached limit and the ring are used only while the seat lives beside them.
        Ok(unsafe { proto::Producer::new(ring, cached_limit) })
    }

    fn consumer(token: &SeatToken<'_>) -> Result<Self::Consumer, SetupError> {
        let ring = ring(token.seat, cells(token.seat)?)?;
        note_handling(token);
        // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
        let cached_limit = unsafe { token.seat.cached_limit() };
        // SAFETY: as in `producer`, for the consumer in this seat.
        let mut consumer = unsafe { proto::Consumer::new(ring, cached_limit) };
        consumer.set_dead_letters(token.handling.dead_letters);
        Ok(consumer)
    }
}

/// Returns the slots of a validated region.
fn cells(seat: &Seat) -> Result<ByteCells<'static>, SetupError> {
    let (region, geometry) = (&seat.region, seat.region.geometry());
    let (found, max) = (geometry.slot_size, u64::from(u32::MAX));
    if found > max {
        return Err(SetupError::MaxRecord { found, max });
    }
    // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is mapped for that many
    // slots of that size.
    Ok(unsafe { ByteCells::new(region.data(), geometry.slots(), found) })
}

/// A record that a consumer reads in place, out of the consumer's hands: as
/// [`mpmc::OwnedMessage`](super::OwnedMessage).
pub struct OwnedRecord {
    // Dropped in this order: the core's guard points into memory that the seat keeps alive.
    core: proto::OwnedMessage<'static, ByteCells<'static>>,
    _seat: Arc<Seat>,
}

impl fmt::Debug for OwnedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedRecord")
            .field("len", &self.len())
            .field("deliveries", &self.deliveries())
            .finish_non_exhaustive()
    }
}

impl OwnedRecord {
    /// Returns the number of times that this record had been delivered before: to consumers that gave it back, or died
    /// with it.
    pub fn deliveries(&self) -> u32 {
        self.core.deliveries()
    }

    /// Releases the record, as dropping it does, but also while panicking.
    pub fn release(self) {
        self.core.release();
    }

    /// Gives the record back: any consumer may take it again.
    pub fn keep(self) {
        self.core.keep();
    }
}

impl Deref for OwnedRecord {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.core
    }
}

/// A record that a producer has reserved, out of the producer's hands: as
/// [`mpmc::OwnedReservation`](super::OwnedReservation). It dereferences to its bytes.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct OwnedReservation {
    // Dropped in this order: as in `OwnedRecord`.
    core: proto::OwnedReservation<'static, ByteCells<'static>>,
    len: usize,
    _seat: Arc<Seat>,
}

impl fmt::Debug for OwnedReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedReservation")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl OwnedReservation {
    /// Publishes the first `len` bytes. Does nothing in a forked child.
    ///
    /// # Panics
    /// If `len` is more than was reserved, as for a slice.
    pub fn commit(self, len: usize) {
        let reserved = self.len;
        assert!(
            len <= reserved,
            "commit of {len} of a reservation of {reserved}"
        );
        self.core.commit_bytes(len);
    }

    /// Gives up the reservation, as dropping it does.
    pub fn discard(self) {}
}

impl Deref for OwnedReservation {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.core.bytes(self.len)
    }
}

impl DerefMut for OwnedReservation {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.core.bytes_mut(self.len)
    }
}

impl Producer {
    /// Returns `true` if as many records are there as there are slots. Other handles may change that at any time.
    pub fn is_full(&self) -> Result<bool, Error> {
        Ok(self.len()? >= self.capacity())
    }

    /// Reserves a record of up to `len` bytes like [`try_reserve`](Self::try_reserve), as a guard that leaves the
    /// producer's hands.
    pub fn try_reserve_owned(&mut self, len: usize) -> Result<OwnedReservation, Error> {
        self.end.core.claim(len)?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out(len) })
    }

    /// Like [`try_reserve_owned`](Self::try_reserve_owned), waiting for room.
    pub fn reserve_owned(&mut self, len: usize) -> Result<OwnedReservation, Error> {
        self.claim_until(len, Until::Forever)?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out(len) })
    }

    /// Like [`reserve_owned`](Self::reserve_owned), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn reserve_owned_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<OwnedReservation, Error> {
        self.claim_until(len, Until::For(timeout))?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out(len) })
    }

    /// Like [`reserve_owned`](Self::reserve_owned), as a future: see [`push_async`](Self::push_async).
    pub async fn reserve_owned_async(&mut self, len: usize) -> Result<OwnedReservation, Error> {
        self.claim_async(len).await?;
        // SAFETY: claimed just now.
        Ok(unsafe { self.hand_out(len) })
    }

    /// # Safety
    /// A claim of `len` succeeded, and nothing was committed since.
    unsafe fn hand_out(&mut self, len: usize) -> OwnedReservation {
        OwnedReservation {
            // SAFETY: the caller's promise. The share of the seat is dropped after the guard, and keeps the memory.
            core: unsafe { self.end.core.detach_claimed() },
            len,
            _seat: self.end.seat.share(),
        }
    }
}

impl Consumer {
    /// Reads the oldest record in place like [`try_read`](Self::try_read), as a guard that leaves the consumer's hands.
    pub fn try_read_owned(&mut self) -> Result<OwnedRecord, Error> {
        let held = Held::of(self.try_read()?);
        Ok(self.hand_out(held))
    }

    /// Like [`try_read_owned`](Self::try_read_owned), waiting for a record.
    pub fn read_owned(&mut self) -> Result<OwnedRecord, Error> {
        let held = Held::of(self.read()?);
        Ok(self.hand_out(held))
    }

    /// Like [`read_owned`](Self::read_owned), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn read_owned_timeout(&mut self, timeout: Duration) -> Result<OwnedRecord, Error> {
        let held = Held::of(self.read_timeout(timeout)?);
        Ok(self.hand_out(held))
    }

    /// Like [`read_owned`](Self::read_owned), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_owned_async(&mut self) -> Result<OwnedRecord, Error> {
        let held = Held::of(self.read_async().await?);
        Ok(self.hand_out(held))
    }

    fn hand_out(&mut self, held: Held) -> OwnedRecord {
        OwnedRecord {
            // SAFETY: only a record that this consumer has just read, and not released, makes a `Held`. The share of the
            // seat is dropped after the guard, and keeps the memory.
            core: unsafe { self.end.core.detach_held(held.0) },
            _seat: self.end.seat.share(),
        }
    }

    /// Reads a dead letter in place, or returns [`Empty`](Error::Empty): see
    /// [`Builder::dead_letters`](crate::Builder::dead_letters).
    ///
    /// Dropping the letter releases it. [`keep`](Record::keep) gives it back: it is delivered again, as if for the first
    /// time. `put_aside` leaves it a dead letter, and the next call goes on behind it.
    pub fn try_dead_letter(&mut self) -> Result<Record<'_>, Error> {
        self.end.core.try_read_letter()
    }
}

/// The length of a record that was read, and whose guard is gone without a release.
struct Held(usize);

impl Held {
    fn of(record: Record<'_>) -> Held {
        let len = record.len();
        std::mem::forget(record);
        Held(len)
    }
}

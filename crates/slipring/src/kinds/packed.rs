//! The shape, verbs and streams of all kinds whose records lie one behind another in a ring of bytes.

mod io;

use slipring_core::layout::{self, Geometry};
use slipring_core::mem::ByteRing;
use slipring_core::packed::PREFIX;

pub use io::{RecordReader, RecordWriter};

use crate::builder::Builder;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::kind::{OfRecords, PackedKind};
use crate::seat::Seat;

/// Returns the shape of a channel of `ring` bytes, whose records take up to half of it.
pub(super) fn geometry(kind: layout::Kind, ring: usize, consumers: u64) -> Geometry {
    Geometry {
        kind,
        capacity: ring as u64,
        slot_size: (ring as u64 / 2).next_multiple_of(8).max(16),
        slot_align: 8,
        producers: 1,
        consumers,
        when_full: layout::WhenFull::Wait,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    }
}

/// Returns the bytes of a validated region's ring. Use them while `seat` lives.
pub(super) fn ring(seat: &Seat) -> ByteRing<'static> {
    let geometry = seat.region.geometry();
    // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is
    // mapped for the ring and its slack, page-aligned or checked.
    unsafe { ByteRing::new(seat.region.data(), geometry.capacity, geometry.slot_size) }
}

/// Terms of records that lie one behind another: see [`PackedKind`].
impl<R> Builder<OfRecords<R>>
where
    OfRecords<R>: PackedKind,
{
    /// Sets the largest payload of one record, in bytes: at most the ring less 8. That many bytes,
    /// rounded up, are added behind the ring. A larger value is [`MaxRecord`](crate::SetupError::MaxRecord) when the
    /// channel is made.
    #[must_use]
    pub fn max_record(mut self, bytes: usize) -> Self {
        let size = (bytes as u64)
            .checked_add(PREFIX)
            .and_then(|size| size.checked_next_multiple_of(8));
        // An overflow stays far too large, and is refused when the channel is made.
        self.geometry.slot_size = size.unwrap_or(1 << 63).max(16);
        self
    }
}

/// Verbs of records that lie one behind another: see [`PackedKind`].
impl<R> Consumer<OfRecords<R>>
where
    OfRecords<R>: PackedKind,
{
    /// Returns the oldest record without releasing it. Returns [`Empty`](Error::Empty) or
    /// [`Disconnected`](Error::Disconnected) as [`try_read`](Self::try_read) does.
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::bytes::channel(64)?;
    /// tx.push(b"seven")?;
    /// assert_eq!(rx.try_peek()?, b"seven");
    /// assert_eq!(&*rx.read()?, b"seven");
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[inline]
    pub fn try_peek(&mut self) -> Result<&[u8], Error> {
        self.end.core.try_peek()
    }
}

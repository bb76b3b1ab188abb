//! Holds slots, or a ring of records, that a watcher copies as bytes, while it keeps no producer from
//! writing them.
//!
//! They are copied word by word, with relaxed loads. Words that a slot shares with its neighbours
//! are loaded whole. The copy may be torn: the protocol checks that afterwards
//! (`broadcast/watching.rs`, `broadcast_records/watching.rs`).

use crate::geometry::Geometry;
use crate::spec::Kind;
use crate::sync::{AtomicU64, Ordering};

/// The slots of a `broadcast` channel, for any payload, or the bytes of one of records.
#[derive(Clone, Copy)]
pub struct Watched<'m> {
    words: &'m [AtomicU64],
    mask: u64,
    /// The distance from position to position, in bytes: that of slots, or 1.
    stride: usize,
    /// The size of a payload in a slot, or of the largest record with its length, in bytes.
    size: usize,
}

impl<'m> Watched<'m> {
    /// Makes the slots, or the ring of records, in `words`.
    ///
    /// Returns `None` if no `broadcast` channel has that shape, or if it needs more words.
    pub fn new(words: &'m [AtomicU64], geometry: &Geometry) -> Option<Self> {
        let stride = match geometry.kind {
            Kind::Broadcast => geometry.stride() as usize,
            Kind::BroadcastRecords => 1,
            _ => return None,
        };
        if geometry.check().is_err() || words.len() < geometry.data_len().div_ceil(8) as usize {
            return None;
        }
        Some(Watched {
            words,
            mask: geometry.capacity - 1,
            stride,
            size: geometry.slot_size as usize,
        })
    }

    /// Returns the number of slots, or of the ring's bytes.
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Returns the size of a payload in a slot, or of the largest record with its length, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies what lies at `position`, without its first `skipped` bytes, to `out`, as far as `out` and a payload or record
    /// of the largest size reach. Others may write it meanwhile.
    pub fn copy(&self, position: u64, skipped: usize, out: &mut [u8]) {
        let first = (position & self.mask) as usize * self.stride + skipped;
        let end = first + self.size.saturating_sub(skipped).min(out.len());
        let (mut skip, mut to) = (first % 8, out);
        // In bounds: a slot, or the largest record behind the ring's last position, ends inside the data part, and `new`
        // checked that part's length.
        for word in &self.words[first / 8..end.div_ceil(8)] {
            // Relaxed: the fence before the second look orders it.
            let bytes = word.load(Ordering::Relaxed).to_le_bytes();
            let part = &bytes[skip..];
            let count = part.len().min(to.len());
            let (now, rest) = to.split_at_mut(count);
            now.copy_from_slice(&part[..count]);
            (skip, to) = (0, rest);
        }
    }
}

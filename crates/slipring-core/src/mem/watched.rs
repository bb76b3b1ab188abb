//! Holds slots that a watcher copies as bytes, while it keeps no producer from writing them.
//!
//! They are copied word by word, with relaxed loads. Words that a slot shares with its neighbours
//! are loaded whole. The copy may be torn: the protocol checks that afterwards
//! (`broadcast/watching.rs`).

use crate::geometry::Geometry;
use crate::spec::Kind;
use crate::sync::{AtomicU64, Ordering};

/// The slots of a `broadcast` channel, for any payload.
#[derive(Clone, Copy)]
pub struct Watched<'m> {
    words: &'m [AtomicU64],
    mask: u64,
    /// The distance from slot to slot, in bytes.
    stride: usize,
    /// The size of a payload, in bytes.
    size: usize,
}

impl<'m> Watched<'m> {
    /// Makes the slots in `words`.
    ///
    /// Returns `None` if no `broadcast` channel has that shape, or if it needs more words.
    pub fn new(words: &'m [AtomicU64], geometry: &Geometry) -> Option<Self> {
        let right = geometry.kind == Kind::Broadcast && geometry.check().is_ok();
        if !right || words.len() < geometry.data_len().div_ceil(8) as usize {
            return None;
        }
        Some(Watched {
            words,
            mask: geometry.capacity - 1,
            stride: geometry.stride() as usize,
            size: geometry.slot_size as usize,
        })
    }

    /// Returns the number of slots.
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Returns the size of a payload, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies the payload in the slot of `position` to `out`, as far as `out` reaches, even if
    /// others write it meanwhile.
    pub fn copy(&self, position: u64, out: &mut [u8]) {
        let first = (position & self.mask) as usize * self.stride;
        let end = first + self.size.min(out.len());
        let (mut skip, mut to) = (first % 8, out);
        // In bounds: a slot ends inside the data part, and `new` checked that part's length.
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

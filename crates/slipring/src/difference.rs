//! Sizes in which an existing channel differs from those asked for.

use std::fmt;

use slipring_core::layout::Geometry;
use slipring_core::proto::bytes;
use slipring_core::spec::Unit;

/// A size in which an existing channel differs from the one asked for. The existing channel keeps
/// its size. With [`exact`](crate::Builder::exact), opening it is an error instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The name of the size: `capacity` in slots or bytes of the ring, `largest record` in bytes,
    /// or `consumer seats`.
    pub word: &'static str,
    /// The channel's size.
    pub found: u64,
    /// The size asked for.
    pub asked: u64,
}

impl Difference {
    pub(crate) fn between(found: &Geometry, asked: &Geometry) -> Vec<Difference> {
        // For the other kinds the slot is the payload, which was compared already.
        let record = |geometry: &Geometry| geometry.slot_size - bytes::PREFIX;
        let mut sizes = vec![
            ("capacity", found.capacity, asked.capacity),
            ("consumer seats", found.consumers, asked.consumers),
        ];
        if found.kind.spec().unit == Unit::Bytes {
            sizes.insert(1, ("largest record", record(found), record(asked)));
        }
        let differ = sizes.into_iter().filter(|(_, found, asked)| found != asked);
        differ
            .map(|(word, found, asked)| Difference { word, found, asked })
            .collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { word, found, asked } = self;
        write!(f, "{word} {found} instead of {asked}")
    }
}

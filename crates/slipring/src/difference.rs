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
    /// The name of the size: `capacity` and `largest capacity` in slots or bytes of the ring, `largest record` in bytes,
    /// or `consumer seats`.
    pub word: &'static str,
    /// The channel's size.
    pub found: u64,
    /// The size asked for.
    pub asked: u64,
}

impl Difference {
    pub(crate) fn between(found: &Geometry, asked: &Geometry) -> Vec<Difference> {
        // A slot of a payload's size was compared already; one of a queue of records was not.
        let record = |geometry: &Geometry| match geometry.kind.spec().unit {
            Unit::Bytes => geometry.slot_size - bytes::PREFIX,
            _ => geometry.slot_size,
        };
        let may_grow = found.growth.is_some() || asked.growth.is_some();
        let largest = |geometry: &Geometry| match may_grow {
            true => geometry.largest_capacity(),
            false => 0,
        };
        let sizes = [
            ("capacity", found.capacity, asked.capacity),
            ("largest capacity", largest(found), largest(asked)),
            ("largest record", record(found), record(asked)),
            ("consumer seats", found.consumers, asked.consumers),
        ];
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

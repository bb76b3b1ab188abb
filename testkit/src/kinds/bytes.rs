//! Describes `bytes`: one producer and one consumer, over records of 16 to 112 bytes. Its ends are
//! here too, because records go through verbs of their own. `broadcast::records` has the same.

use slipring::ResizeError;
use slipring::bytes::{Builder, Bytes};

use super::{Delivery, Kind, Resizes, Unit};
use crate::message;
use crate::{Maker, Terms};

pub(super) const KIND: Kind = Kind {
    name: "bytes",
    unit: Unit::Bytes,
    delivery: Delivery::One,
    producers: 1,
    consumers: 1,
    seeks: false,
    exact_positions: true,
    ends_survive: true,
    released_apart: false,
    variant: false,
    batches: true,
    runs: false,
    queue: false,
    topic: false,
    growing: false,
    maker,
};

/// Begins with the smallest ring.
pub(super) const GROWING: Kind = Kind {
    name: "bytes-growing",
    variant: true,
    growing: true,
    maker: |terms| {
        let largest = terms.max_record.unwrap_or(message::LARGEST);
        let first = (largest + 8).next_power_of_two().max(64);
        let largest_ring = terms.capacity.unwrap_or(4096).max(first);
        let builder = super::growing(Builder::new(first), largest_ring, terms);
        Box::new(terms.apply(builder.max_record(largest)))
    },
    ..KIND
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    let builder = Builder::new(terms.capacity.unwrap_or(4096));
    let builder = match terms.max_record {
        Some(max) => builder.max_record(max),
        None => builder,
    };
    Box::new(terms.apply(builder))
}

/// Returns the number of the record that begins at this position.
pub(super) fn number(at: u64) -> u64 {
    message::record_at(at).unwrap_or_else(|| panic!("torn: a record ends at {at}"))
}

/// Implements the kit's two ends for a kind of records that lie one behind another. The consumer has
/// the methods `besides`, too.
///
/// By a macro: the language does not let a crate implement a trait for `OfRecords<R>` wherever it is a
/// `PackedKind`, beside one kind of records that is none.
macro_rules! packed_ends {
    ($kind:ty, $($besides:item)*) => {
impl $crate::Producer for slipring::Producer<$kind> {
    fn next(&self) -> u64 {
        $crate::kinds::bytes::number(self.position())
    }

    fn room_for(&self, number: u64) -> usize {
        $crate::message::length(number)
    }

    fn push(&mut self, number: u64) -> Result<(), slipring::Error> {
        Self::push(self, &$crate::message::record(number))
    }

    fn push_timeout(&mut self, number: u64, timeout: std::time::Duration) -> Result<(), slipring::Error> {
        Self::push_timeout(self, &$crate::message::record(number), timeout)
    }

    fn try_push(&mut self, number: u64) -> Result<(), slipring::Error> {
        Self::try_push(self, &$crate::message::record(number))
    }

    fn place(&mut self, number: u64) -> Result<(), slipring::Error> {
        $crate::record_ends::place(self, number)
    }

    fn batch(&mut self, numbers: std::ops::Range<u64>) -> Result<(), slipring::Error> {
        let records = numbers.map($crate::message::record).collect::<Vec<_>>();
        self.push_iter(records.iter().map(Vec::as_slice))?;
        Ok(())
    }

    fn try_batch(&mut self, numbers: std::ops::Range<u64>) -> Result<usize, slipring::Error> {
        self.iterate(numbers, &mut || {})
    }

    fn iterate(&mut self, numbers: std::ops::Range<u64>, between: &mut dyn FnMut()) -> Result<usize, slipring::Error> {
        $crate::record_ends::iterate(self, numbers, between)
    }

    fn hold(
        &mut self,
        numbers: std::ops::Range<u64>,
        decide: &mut dyn FnMut(std::ops::Range<u64>) -> Option<usize>,
    ) -> Result<(), slipring::Error> {
        $crate::record_ends::hold(self, numbers, decide)
    }

    fn try_room(&mut self, room: usize) -> Result<usize, slipring::Error> {
        Ok(self.try_reserve(room)?.len())
    }

    fn wait_for_room(&mut self, room: usize, timeout: std::time::Duration) -> Result<(), slipring::Error> {
        self.reserve_timeout(room, timeout).map(drop)
    }

    fn resize(&mut self, capacity: usize) -> Result<(), slipring::ResizeError> {
        <$kind as $crate::kinds::Resizes>::resize(self, capacity)
    }
}

impl $crate::Consumer for slipring::Consumer<$kind> {
    fn next(&self) -> u64 {
        // Among lies it may be anywhere: no number that a story expects.
        $crate::message::record_at(self.position()).unwrap_or(u64::MAX)
    }

    fn try_pop_any(&mut self) -> Result<$crate::Came, slipring::Error> {
        $crate::record_ends::pop_any(self, None)
    }

    fn pop_any(&mut self, timeout: std::time::Duration) -> Result<$crate::Came, slipring::Error> {
        $crate::record_ends::pop_any(self, Some(timeout))
    }

    fn try_read(&mut self) -> Result<$crate::Came, slipring::Error> {
        Ok($crate::message::check(&Self::try_read(self)?))
    }

    fn try_read_batch(
        &mut self,
        max: usize,
        release: bool,
        seen: &mut dyn FnMut($crate::Came),
    ) -> Result<(), slipring::Error> {
        $crate::record_ends::try_read_batch(self, max, release, seen)
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), slipring::Error> {
        $crate::record_ends::read(self, max, seen)
    }

$($besides)*
}
    };
}

pub(super) use packed_ends;

packed_ends!(Bytes,);

impl Resizes for Bytes {
    fn resize(tx: &mut slipring::Producer<Self>, capacity: usize) -> Result<(), ResizeError> {
        tx.resize(capacity)
    }
}

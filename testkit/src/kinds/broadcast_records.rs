//! Describes `broadcast::records`: every consumer receives each record, of 16 to 112 bytes. Its ends
//! are those of `bytes`; places are asked for by a record's number.

use slipring::broadcast::records::{Builder, Records, Seek};

use super::bytes::{self, packed_ends};
use super::{Delivery, Kind, Resizes};
use crate::message;
use crate::{Maker, Terms};

pub(super) const KIND: Kind = Kind {
    name: "broadcast-records",
    delivery: Delivery::All,
    consumers: 3,
    seeks: true,
    maker,
    ..bytes::KIND
};

fn maker(terms: &Terms) -> Box<dyn Maker> {
    let builder = Builder::new(terms.capacity.unwrap_or(4096));
    let builder = match terms.max_record {
        Some(max) => builder.max_record(max),
        None => builder,
    };
    let builder = match terms.consumers {
        Some(consumers) => builder.consumers(consumers),
        None => builder,
    };
    let builder = match terms.join {
        Some(seek) => builder.join(to_position(seek)),
        None => builder,
    };
    Box::new(terms.apply(builder))
}

/// Returns where to go in bytes, for a place by number.
fn to_position(seek: Seek) -> Seek {
    match seek {
        Seek::To(number) => Seek::To(message::position_of(number)),
        other => other,
    }
}

impl Resizes for Records {}

packed_ends!(
    Records,
    fn seek(&mut self, to: Seek) -> Result<u64, slipring::Error> {
        let at = Self::seek(self, to_position(to))?;
        // Among lies it may be anywhere: no number that a story expects.
        Ok(message::record_at(at).unwrap_or(u64::MAX))
    }
);

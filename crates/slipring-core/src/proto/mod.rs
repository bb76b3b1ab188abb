//! Holds the protocols: the meaning of each kind's words, which end may touch which slot or byte
//! when, and why that is right.
//!
//! A protocol knows neither the other protocols nor the operating system. It implements the traits
//! of [`end`](crate::end) for its two ends; verbs and guards are written over those traits, once.

use crate::outside::Outside;
use crate::spec::Kind;

pub mod broadcast;
pub mod broadcast_records;
pub mod bytes;
pub mod mpmc;
pub mod spsc;
pub mod topic;

/// Returns the view of a kind from outside.
pub fn outside(kind: Kind) -> &'static Outside {
    match kind {
        Kind::Spsc => &spsc::OUTSIDE,
        Kind::Bytes => &bytes::OUTSIDE,
        Kind::Broadcast => &broadcast::OUTSIDE,
        Kind::Mpmc => &mpmc::OUTSIDE,
        Kind::Topic => &topic::OUTSIDE,
        Kind::BroadcastRecords => &broadcast_records::OUTSIDE,
    }
}

//! The kinds, each with the items that only it has.

pub mod broadcast;
pub mod bytes;
pub mod mpmc;
pub(crate) mod packed;
pub mod spsc;
pub mod topic;

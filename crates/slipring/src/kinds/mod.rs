//! The kinds, each with the items that only it has.

pub mod broadcast;
pub mod bytes;
pub mod mpmc;
pub mod spsc;
pub mod topic;

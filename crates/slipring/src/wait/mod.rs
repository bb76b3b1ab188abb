//! The ways to wait, which know ends but no kinds:
//! * `block.rs`: in a call
//! * `fd.rs`: by a descriptor
//! * `future.rs`: in a future
//! * `set`: for many channels

mod attached;
mod block;
mod driver;
mod fd;
mod future;
mod helper;
mod looks;
mod name_check;
mod parker;
mod policy;
mod polled;
mod recheck;
pub mod set;
mod spin;
mod stream;
mod timer;
#[cfg(feature = "tokio")]
mod tokio;

pub(crate) use attached::Attached;
pub use fd::Readiness;
pub use policy::Wait;
pub(crate) use policy::{Until, Waiting};
pub use spin::AdaptiveSpin;
pub(crate) use stream::until_the_end;

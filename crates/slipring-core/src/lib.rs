//! The protocols of slipring, over memory that somebody else provides.
//!
//! No operating system, no allocation, no `std`: what is here runs in a driver or in firmware as
//! well as under the `slipring` crate, which adds memory, liveness, waiting and the handles that
//! most programs want.
//!
//! | file | what it holds |
//! |---|---|
//! | `sync` | the only import of atomics (loom's in a model) |
//! | `error` | what can go wrong |
//! | `payload` | which types may cross, and their fingerprints |
//! | `geometry` | the shape of a channel |
//! | `layout` | the memory format: header, seat lines, role pages |
//! | `mem` | from positions to payload bytes |
//! | `lease` | how far a handle may go unasked; what fork leaves of it |
//! | `seat` | generations, ends, what one end knows of the other |
//! | `wait` | the wake-up protocol: who sleeps, who wakes, and why no wake is lost |
//! | `slip` | the pause that keeps two sides some lines apart |
//! | `cursor` | the two positions of a ring, and how each side learns of the other's |
//! | `spsc`, `bytes`, `broadcast` | the protocols |
//!
//! Each imports only from those above it; the protocols do not know each other.
//!
//! The feature `std` adds one thing: a guard that is in hand when a panic begins, and that the panic drops, releases
//! nothing. Without it no code here can ask whether its thread is panicking, and such a guard releases what any
//! other would.
#![no_std]

#[cfg(feature = "std")]
extern crate std;

#[doc(hidden)]
pub use zerocopy;

pub mod broadcast;
pub mod bytes;
mod cursor;
mod error;
mod geometry;
mod hand_back;
pub mod layout;
mod lease;
pub mod mem;
pub mod payload;
pub mod seat;
mod slip;
pub mod spsc;
pub mod sync;
pub mod wait;

pub use error::{Corrupt, End, Error, PushError};
pub use lease::Lease;
pub use payload::{Payload, Schema};

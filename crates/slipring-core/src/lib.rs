//! Implements slipring's protocols over memory that the caller provides.
//!
//! This crate uses no operating system, no allocator and no `std`, so it runs in a driver or in
//! firmware as well as in a program. The `slipring` crate adds memory, liveness, waiting and the
//! handles that most programs want.
//!
//! # Words
//! Terms of the field keep their usual meaning. These few are ours:
//!
//! | word | meaning |
//! |---|---|
//! | channel | formatted memory, in two parts: *control* (words) and *data* (payloads) |
//! | end | a producer or a consumer; `slipring` wraps each in a handle, this crate has the bare end |
//! | seat | the place of one live handle: its lock, its line in the seat table, its role page |
//! | role page | the words that only the seat's holder writes: its position, its counters |
//! | generation | the number of a seat's holder, counted from 1 |
//! | cached limit | the position that an end may reach before it must reload the peer's position; a fork wipes it |
//! | wait cell | the words by which one side is woken: the *waiters word* and the *doorbell* |
//! | waiters word | a bit for each seat of the side that waits, and `FENCED` |
//! | doorbell | the futex word on which a side's waiters sleep |
//! | notifier | the part of an end that wakes the other side ([`wait::Notifier`]) |
//! | waiter | the part of an end that sleeps until it is woken ([`wait::Waiter`]) |
//! | wake mode | the way a waiter is woken: by its doorbell or by its pipe ([`wait::WakeMode`]) |
//! | spare writer | `slipring`: a writing descriptor that keeps a waiter's own pipe from hanging up |
//! | write limit | `broadcast`: the position before which the producer may write; it never decreases |
//! | gating set | `broadcast`: the consumers that the producer waits for |
//! | block | `broadcast`: the number of slots by which an overwriting producer raises the write limit |
//!
//! # Files
//! ARCHITECTURE.md lists the files by floor; each file imports only from floors below its own. A
//! protocol (`proto`) implements the traits of `end`, `guard` and `record` for its two ends. It also
//! exports a view for programs without a seat (`outside`). No protocol knows another.
//!
//! The feature `std` adds one thing: a guard that a panic drops releases nothing. Without `std`
//! this crate cannot ask if its thread is panicking, so such a guard releases like any other.
#![no_std]

#[cfg(feature = "std")]
extern crate std;

#[doc(hidden)]
pub use zerocopy;

pub mod backing;
mod backoff;
mod cached_limit;
pub mod crowd;
mod cursor;
pub mod end;
mod error;
mod gate;
mod geometry;
pub mod guard;
pub mod layout;
mod line_transfer;
pub mod mem;
pub mod outside;
pub mod packed;
pub mod payload;
pub mod proto;
pub mod record;
pub mod rings;
pub mod seat;
pub mod spec;
pub mod sync;
pub mod wait;

pub use cached_limit::CachedLimit;
pub use error::{BatchError, Corrupt, End, Error, FormatError, PushError, ResizeError};
pub use payload::{Payload, Schema};

//! Messages between threads and processes of one host, through shared memory: no daemon, no system
//! call on the busy path, and nothing lost when somebody is killed.
//!
//! Three questions name every channel: who writes, who reads, what happens when it is full?
//!
//! | kind | writers | readers | when full | payload |
//! |---|---|---|---|---|
//! | [`spsc`] | one | one | wait | fixed-size `T` |
//! | [`bytes`] | one | one | wait | records of varying size |
//! | [`broadcast`] | one | each sees all | wait, or overwrite | fixed-size `T` |
//!
//! One builder, one set of verbs and one error type serve all kinds: `push` and `pop` copy,
//! `reserve` → `commit` and `read` → release work in place; `try_x` never waits, `x` waits,
//! `x_timeout` waits for so long, `x_async` is a future. Linux, x86-64 and other little-endian machines of
//! 64 bits.
//!
//! # Errors
//! Every call on a handle may end with `Corrupt`, if a peer wrote into shared memory what cannot be, and with
//! `Forked` in a child that a fork copied the handle to. A call that waits on a named channel (blocking, `arm`, a
//! future) asks once a second whether the name still leads to the channel, and ends with `NotFound` or `Replaced`
//! if it does not and nothing comes: its directory was emptied, and nobody can join it there any more. Other errors
//! are named where they come from. No call panics for what a peer did.
//!
//! # The helper thread
//! A process has at most one, named `slipring`. It wakes the futures that wait (but for those that tokio's event
//! loop wakes); and a millisecond after a handle was armed, by `arm` or by a future on any runtime, it looks once
//! more: Linux may overlook the processor of a publisher whose news the arming must not miss
//! ([`slipring_core::wait`]). Once a second it asks whether the names of the channels still lead to them on whose
//! descriptors and futures somebody waits: some 10 µs, and one more for each of them. So it is started by the first
//! future that waits, or by the first `arm` that finds nothing in memory that other processes may share. It looks as
//! well for the death of a named `broadcast` channel's producer that has not rung yet. Calls that block never need it,
//! nor does a [`WaitSet`] of up to 127 channels.
//!
//! It takes no signals but for its own faults (a waker is the program's code), and has the affinity and the
//! scheduling of the thread that started it. A waker that blocks keeps it from looking. A program that must
//! have one thread (for `unshare(CLONE_NEWUSER)`, say) does so before it arms; where a thread cannot be
//! started, `arm` takes a millisecond itself.
//!
//! # Named channels outlive their processes
//! What a process leaves unread in a named channel is there for the next one; and so is the channel, until somebody
//! removes it ([`inspect::remove`], `slipring rm`) or the machine reboots. One that shall go with its users is made
//! [`ephemeral`](Builder::ephemeral). A channel that exists keeps its sizes, and
//! [`differences`](Channel::differences) tells who asked for others; to ask for another kind, payload, or
//! [`WhenFull`](broadcast::WhenFull) is an error.
//!
//! # Containers
//! The default directory is `/dev/shm/slipring-UID`, of the process's own user id. A user of the host and root in a
//! container have different ids, so they look in different directories even if they share `/dev/shm`. Set
//! `SLIPRING_DIR` to one directory for both.
//!
//! # Real-time priorities
//! Do not use [`Wait::Yield`] in threads under `SCHED_FIFO` or `SCHED_RR`. Such a thread yields only to threads of its
//! own priority, so a peer of lower priority on the same processor never runs. Use `Wait::Sleep` with `spin_for` zero.
//!
//! # Descriptors
//! A resting handle holds 3 descriptors at most, whatever its channel: the control file, the directory, its peer's
//! pipe. (On the heap it holds none; the producer of a `broadcast` channel in memfds one for each consumer seat.) An
//! armed one (`as_fd`, `arm`, a future that has waited, a [`WaitSet`] of more than 127, a blocking call that has waited
//! for a second) holds 3 more at most, and the helper thread has 2. So `ulimit -n 1024` has room for 200 to 250 armed
//! channels. At the limit calls fail with [`Error::TooManyFiles`], and lose nothing. The exact figures are in
//! `docs/guarantees.md`.
//!
//! # Features
//! None by default. `stream`: consumers as `futures_core::Stream`s. `tokio`: that, and `on_tokio`, by which
//! a handle's futures are woken by tokio's event loop, in place of the helper thread.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod broadcast;
#[allow(unsafe_code)]
pub mod bytes;
#[allow(unsafe_code)]
mod channel;
mod clock;
mod error;
#[allow(unsafe_code)]
mod fork;
pub mod handover;
#[allow(unsafe_code)]
pub mod inspect;
#[allow(unsafe_code)]
mod lock;
mod name;
#[allow(unsafe_code)]
mod region;
#[allow(unsafe_code)]
mod seat;
#[allow(unsafe_code)]
mod signals;
#[allow(unsafe_code)]
pub mod spsc;
mod waiting;

pub use channel::{Builder, Channel, Difference, Kind};
pub use error::{Detail, Error, PushError, SchemaMismatch};
pub use name::{Name, directory};
pub use region::{Borrowed, HugePages, Pages, PoolState, pools, reserve};
pub use seat::Role;
pub use slipring_core::layout::Geometry;
pub use slipring_core::{Corrupt, End, Payload, Schema, payload};
pub use slipring_derive::Payload;
pub use waiting::set::{self, WaitSet};
pub use waiting::{Readiness, Spin, Wait};

#[doc(hidden)]
pub use slipring_core::zerocopy;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

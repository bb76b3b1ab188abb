//! Messages between threads and processes of one host, through shared memory. There is no daemon,
//! no system call on the busy path, and no loss of committed messages when a process is killed.
//!
//! ```
//! use slipring::{Error, spsc};
//!
//! let (mut tx, mut rx) = spsc::channel::<u64>(1024)?; // between processes: `spsc::Builder::new(1024).producer("name")`
//! let sender = std::thread::spawn(move || (0..10).try_for_each(|number| tx.push(number)));
//! let sum: u64 = rx.iter().sum::<Result<u64, Error>>()?; // until the producer has finished
//! assert_eq!(sum, 45);
//! # sender.join().unwrap()?;
//! # Ok::<(), slipring::SetupError>(())
//! ```
//!
//! # Which kind do I need?
//! Three questions name every channel: who writes, who reads, and what happens when it is full?
//!
//! | kind | writers | readers | when full | a message is | for |
//! |---|---|---|---|---|---|
//! | [`spsc`] | one | one | waits | a `T` of fixed size | commands, samples, work for one reader |
//! | [`bytes`] | one | one | waits | a record of any length | logs, frames, encoded messages |
//! | [`broadcast`] | one | each sees all | waits, or overwrites | a `T` of fixed size | market data, sensor data |
//! | [`broadcast::records`] | one | each sees all | waits | a record of any length | logs and frames of which several readers may lose none |
//! | [`mpmc`] | many | any one takes it | waits | a `T` of fixed size | work for several workers |
//! | [`topic`] | many | each sees all | overwrites; the last messages stay readable | a `T`, or a record of any length | camera frames, states, anything of which the newest counts |
//!
//! # Verbs
//! All kinds have the same handles, [`Producer`] and [`Consumer`], the same [`Builder`], and the
//! same verbs.
//!
//! | | copies | works in place |
//! |---|---|---|
//! | producer | `push` | `reserve` → `commit` (dropping discards) |
//! | consumer | `pop` | `read`, `read_batch` → `release` (dropping releases) |
//!
//! A `broadcast` channel that overwrites has no verbs by which its consumers read in place.
//!
//! `try_x` never waits, `x` waits, `x_timeout` waits for a limited time, `x_async` is a future. A
//! program can also wait for a handle by its descriptor ([`arm`](Consumer::arm)), or for many
//! handles in one [`WaitSet`].
//!
//! slipring runs on Linux, on x86-64 and other little-endian 64-bit machines.
//!
//! # Errors
//! A message verb fails with [`Error`], which is small, `Copy`, and comparable. Making or opening a
//! channel, or taking a role, fails with [`SetupError`]. The operator `?` turns an [`Error`] into a
//! [`SetupError`].
//!
//! Every verb can return [`Corrupt`](Error::Corrupt), if a peer wrote an impossible value into
//! shared memory. Every verb returns [`Forked`](Error::Forked) on a handle that a fork copied
//! into a child.
//!
//! A call that waits on a named channel (blocking, `arm`, a future) checks once a second that the
//! name still leads to the channel. If the name does not, and no message or room comes, the call
//! returns [`Removed`](Error::Removed) or [`Replaced`](Error::Replaced): no peer can join the
//! channel any more.
//!
//! Each call's documentation names its other errors. No call panics because of a peer's actions.
//!
//! # Named channels outlive their processes
//! Messages that a process leaves unread in a named channel wait for the next process. The channel
//! itself stays until a user removes it ([`inspect::remove`], `slipring rm`) or the machine
//! reboots. To have a channel removed with its last user, make it
//! [`ephemeral`](Builder::ephemeral).
//!
//! An existing channel keeps its sizes. [`differences`](Channel::differences) returns the sizes in
//! which it differs from the builder's. Asking for another kind, payload, or mode of `broadcast` is
//! an error.
//!
//! # Containers
//! The default directory is `/dev/shm/slipring-UID`, with the process's own user id. A user of the
//! host and root in a container have different ids. So they look in different directories even if
//! they share `/dev/shm`. Set `SLIPRING_DIR` to one directory for both.
//!
//! # Real-time priorities
//! Do not use [`Wait::Yield`] in threads under `SCHED_FIFO` or `SCHED_RR`. Such a thread yields
//! only to threads of its own priority, so a peer of lower priority on the same processor never
//! runs. Use `Wait::Sleep` with `spin_for` zero.
//!
//! # Descriptors
//! A resting handle holds at most 3 descriptors: the control file, the directory, and its peer's
//! pipe. On the heap it holds none. The producer of a `broadcast` channel in memfds holds one for
//! each consumer seat, an end of an [`mpmc`] channel in memfds one for each other seat, and
//! an end of a [`topic`] in memfds one for each seat of the other side. An end of a named channel of either kind holds one for
//! each seat that it has woken by its pipe.
//!
//! An armed handle holds at most 3 more. Both `as_fd` and `arm` arm a handle, and so does a future
//! that has waited. A [`WaitSet`] of more than 127 channels arms its handles, and so does a
//! blocking call that has waited for a second. The helper thread has 2. So `ulimit -n 1024` has
//! room for 200 to 250 armed channels.
//!
//! At the limit, calls fail with [`Error::TooManyFiles`] and lose nothing. The exact figures are in
//! `docs/guarantees.md`.
//!
//! # Features
//! None by default. The feature `stream` makes consumers `futures_core::Stream`s. The feature
//! `tokio` adds `on_tokio` as well: tokio's event loop then wakes a handle's futures, in place of
//! the helper thread.
//!
//! # The helper thread
//! A process has at most one helper thread, named `slipring`. It has four tasks:
//! * It wakes waiting futures, unless tokio's event loop does.
//! * A millisecond after `arm` or a future armed a handle, on any runtime, it looks once more.
//!   `membarrier` can miss the CPU of a publisher, whose message the arming must not miss
//!   ([`slipring_core::wait`]).
//! * Once a second it checks that the names of channels still lead to them. It checks the channels
//!   on whose descriptors and futures a caller waits. This costs some 10 µs, and 1 µs more for each
//!   channel.
//! * It looks for the death of a named `broadcast` channel's producer that has not rung yet.
//!
//! The first future that waits starts it. So does the first `arm` that finds no message or room in
//! memory that other processes may share. Blocking calls never need it, nor does a [`WaitSet`] of
//! up to 127 channels.
//!
//! The helper thread blocks all signals except those for its own faults, because a waker is the
//! program's code. It has the affinity and the scheduling of the thread that started it. A waker
//! that blocks keeps it from looking.
//!
//! A program that must have only one thread, for example for `unshare(CLONE_NEWUSER)`, must do that
//! work before it arms a handle. If no thread can be started, `arm` itself takes a millisecond.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod builder;
mod channel;
mod clock;
#[allow(unsafe_code)]
mod consumer;
mod difference;
mod error;
#[allow(unsafe_code)]
mod fork;
mod growth;
pub mod handover;
/// Shows and sizes the kernel's pools of huge pages, from which channels get theirs
/// ([`Builder::huge_pages`]).
pub mod huge_pages {
    pub use crate::shm::{PoolState, pools, reserve};
}
#[allow(unsafe_code)]
pub mod inspect;
#[allow(unsafe_code)]
mod kernel;
mod kind;
#[allow(unsafe_code)]
mod kinds;
#[allow(unsafe_code)]
mod lock;
mod name;
mod pages;
#[allow(unsafe_code)]
mod producer;
#[allow(unsafe_code)]
mod records;
#[allow(unsafe_code)]
mod seat;
mod setup_error;
#[allow(unsafe_code)]
mod shm;
#[allow(unsafe_code)]
mod signals;
mod terms;
mod wait;

pub use builder::Builder;
pub use channel::Channel;
pub use consumer::{Consumer, Message, Messages};
pub use difference::Difference;
pub use error::{BatchError, Corrupt, Error, PushError, ResizeError};
pub use growth::{Grow, Shrink};
pub use kind::{
    BatchKind, CrowdKind, GrowKind, InPlaceKind, Kind, OfRecords, PackedKind, PeekKind, QueueKind,
    RecordKind, SlotKind, TopicKind,
};
pub use kinds::packed::{RecordReader, RecordWriter};
pub use kinds::{broadcast, bytes, mpmc, spsc, topic};
pub use name::{Name, Pattern, directory};
pub use producer::{Producer, Reservation};
pub use records::{Record, Records};
pub use setup_error::{SchemaMismatch, SetupError};
pub use shm::{Borrowed, HugePages, Pages};
pub use slipring_core::layout::{Geometry, Role};
pub use slipring_core::spec;
pub use slipring_core::{End, Payload, Schema, payload};
pub use slipring_derive::Payload;
pub use wait::set::{self, WaitSet};
pub use wait::{AdaptiveSpin, Readiness, Wait};

#[doc(hidden)]
pub use slipring_core::zerocopy;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

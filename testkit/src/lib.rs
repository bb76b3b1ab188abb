//! Puts every kind of channel behind one set of traits, for programs that test all of them alike.
//!
//! Three programs use it: the peer of the integration tests, the stepper and the storm. They name
//! a kind, ask it for a [`Maker`], make or open a channel ([`Memory`]), and take its seats
//! ([`Producer`], [`Consumer`]). Messages are numbers: the kit writes whole [messages](message)
//! that hold their number, and checks every byte of what it reads.
//!
//! ```text
//! kinds/KIND.rs   what a kind is, and its builder; for records also the ends
//! slots.rs        the ends of every kind with slots
//! queue.rs        the verbs that only queues have, over values and over records
//! ends.rs         what all handles, channels and builders can do
//! terms.rs        the figures with which a program makes its channels
//! ```
//!
//! Each method is one call of the library, with the message built before it and checked after it.
//! The kit asks nothing else of a channel. So the stepper may step a method, and steps the library.
//!
//! # Adding a kind
//!
//! Write `kinds/KIND.rs`, and name it in the list of `kinds/mod.rs`. A kind with slots implements
//! `Slots` and `Family`, and says what reads it in place (`Reads`); a kind with messages of another sort implements [`Producer`] and
//! [`Consumer`]. Nothing here assumes one producer or one consumer, except where a method says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ends;
pub mod kinds;
pub mod message;
pub mod queue;
mod record_ends;
mod slots;
mod terms;

use std::ops::Range;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use slipring::broadcast::Seek;
use slipring::inspect::Stat;
use slipring::set::Key;
use slipring::{Borrowed, Error, Geometry, Pages, Readiness, ResizeError, SetupError, WaitSet};

pub use kinds::{Delivery, Kind};
pub use terms::{MessageType, Terms};

/// A message that came: its number, or how it differs from every message that was written.
pub type Came = Result<u64, String>;

/// A channel, or the reason why there is none.
pub type Made = Result<Box<dyn Memory>, SetupError>;

/// A producer, or the reason why there is none.
pub type TakenProducer = Result<Box<dyn Producer>, SetupError>;

/// A consumer, or the reason why there is none.
pub type TakenConsumer = Result<Box<dyn Consumer>, SetupError>;

/// Commits this many of the messages that a guard has reserved, and gives up the rest. Dropped, it drops the guard.
pub type Commit = Box<dyn FnOnce(usize)>;

/// Releases (`true`) the message that a guard holds, or gives it back. Dropped, it drops the guard.
pub type Finish = Box<dyn FnOnce(bool)>;

/// The fate of a message that a consumer of a work queue has read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is released.
    Released,
    /// It is given back: any consumer may take it again.
    GivenBack,
    /// It is put aside as a dead letter.
    PutAside,
}

/// A message of a topic that has left its consumer's hands. It stays as it is until this is dropped.
pub trait Held: Send {
    /// Returns the message's place in the order of all messages.
    fn sequence(&self) -> u64;
    /// Checks all of it again, and returns its number.
    fn check(&self) -> Came;
}

/// A builder of some kind.
pub trait Maker {
    /// Makes a named channel.
    fn create(&self, name: &str) -> Made;
    /// Opens a named channel.
    fn open(&self, name: &str) -> Made;
    /// Opens a named channel, or makes it.
    fn open_or_create(&self, name: &str) -> Made;
    /// Takes a producer's seat of a named channel, which is made if need be.
    fn producer(&self, name: &str) -> TakenProducer;
    /// Takes a consumer's seat of a named channel, which is made if need be.
    fn consumer(&self, name: &str) -> TakenConsumer;
    /// Makes a channel in memory of this process.
    fn heap(&self) -> Made;
    /// Makes a channel in memfds.
    fn memfd(&self) -> Made;
    /// Opens the channel in these memfds.
    fn passed(&self, descriptors: Vec<OwnedFd>) -> Made;
    /// Receives a channel from a socket.
    fn receive(&self, socket: BorrowedFd<'_>) -> Made;
    /// Returns the lengths of the two parts.
    fn lens(&self) -> [usize; 2];
    /// Makes a channel in this memory.
    ///
    /// # Safety
    /// As for `slipring::Builder::format_in`.
    unsafe fn format_in(&self, memory: Borrowed) -> Made;
    /// Opens the channel in this memory.
    ///
    /// # Safety
    /// As for `slipring::Builder::attach_in`.
    unsafe fn attach_in(&self, memory: Borrowed) -> Made;
}

/// A channel of some kind.
pub trait Memory {
    /// Takes a producer's seat.
    fn producer(&self) -> TakenProducer;
    /// Takes a consumer's seat.
    fn consumer(&self) -> TakenConsumer;
    /// Returns what `slipring stat` shows.
    fn stat(&self) -> Result<Stat, SetupError>;
    /// Returns the channel's shape.
    fn geometry(&self) -> Geometry;
    /// Returns the pages that it lies in.
    fn pages(&self) -> &Pages;
    /// Returns the bytes that its maker left for others.
    fn metadata(&self) -> &[u8];
    /// Returns the descriptors of its parts and pipes.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
    /// Sends the channel over a socket.
    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), SetupError>;
    /// Removes the channel's name.
    fn remove(&self) -> Result<(), SetupError>;
}

/// A handle of some kind, of either role.
///
/// `room` is what a producer asks for, in the kind's unit: slots or bytes. A consumer asks for any
/// message, and ignores it.
#[expect(clippy::len_without_is_empty, reason = "no program asks")]
pub trait Handle: Send {
    /// Returns the handle's position, in the kind's unit.
    fn position(&self) -> u64;
    /// Returns what the channel holds, in the kind's unit.
    fn len(&self) -> Result<usize, Error>;
    /// Returns `true` if the other side has left.
    fn is_disconnected(&mut self) -> Result<bool, Error>;
    /// Waits until the other side is there.
    fn wait_for_peer(&mut self, timeout: Duration) -> Result<(), Error>;
    /// Shows a bystander that this end is alive.
    fn heartbeat(&self);
    /// Returns the descriptor that an event loop polls.
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
    /// Asks that the descriptor becomes readable.
    fn arm(&mut self, room: usize) -> Result<Readiness, Error>;
    /// Adds the handle to a set.
    fn watch(&self, set: &WaitSet, room: usize) -> Result<Key, Error>;
    /// Leaves without an end: a successor goes on where this handle stopped.
    fn abort(self: Box<Self>);
}

/// A producer of some kind, of numbered messages.
pub trait Producer: Handle {
    /// Returns the number that follows the committed messages, where these were numbered from 0 in
    /// the order in which they lie in the channel.
    fn next(&self) -> u64;
    /// Returns the room that this message takes.
    fn room_for(&self, number: u64) -> usize;
    /// Appends a message, waiting for room.
    fn push(&mut self, number: u64) -> Result<(), Error>;
    /// Appends a message, waiting for room for at most `timeout`.
    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error>;
    /// Appends a message if there is room. A message that is refused must come back whole.
    fn try_push(&mut self, number: u64) -> Result<(), Error>;
    /// Appends one message as `push` does, but writes it in place.
    fn place(&mut self, number: u64) -> Result<(), Error>;
    /// Appends these messages as a batch, waiting for room.
    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error>;
    /// Appends as many of these messages as there is room for; returns their number.
    fn try_batch(&mut self, numbers: Range<u64>) -> Result<usize, Error>;
    /// Appends a batch by `try_push_iter` and returns its length; `between` runs inside the
    /// iterator, before each message.
    fn iterate(&mut self, numbers: Range<u64>, between: &mut dyn FnMut()) -> Result<usize, Error>;
    /// Reserves room, writes the messages there, and asks how many to commit; `None` discards the
    /// reservation. Where a reservation is one record, it holds the first message alone.
    fn hold(
        &mut self,
        numbers: Range<u64>,
        decide: &mut dyn FnMut(Range<u64>) -> Option<usize>,
    ) -> Result<(), Error>;
    /// Reserves this room and discards it; returns how much was there.
    fn try_room(&mut self, room: usize) -> Result<usize, Error>;
    /// Waits until there is this room, for at most `timeout`.
    fn wait_for_room(&mut self, room: usize, timeout: Duration) -> Result<(), Error>;

    /// Changes the capacity, in the kind's unit. Only of [kinds that grow](Kind::growing).
    fn resize(&mut self, _capacity: usize) -> Result<(), ResizeError> {
        unimplemented!("the capacity of this kind is fixed")
    }

    /// Reserves room by a guard that leaves the handle's hands, and writes the messages there. Where a reservation is
    /// one record, it holds the first message alone. Only of [work queues](Kind::queue).
    fn try_reserve_owned(&mut self, _numbers: Range<u64>) -> Result<Commit, Error> {
        unimplemented!("guards of this kind stay with their handle")
    }
}

/// A consumer of some kind, of numbered messages, each of which is checked in full.
pub trait Consumer: Handle {
    /// Returns the number of its next message, where messages are numbered as for
    /// [`Producer::next`].
    fn next(&self) -> u64;
    /// Takes a message if there is one.
    fn try_pop_any(&mut self) -> Result<Came, Error>;
    /// Takes a message, waiting for at most `timeout`.
    fn pop_any(&mut self, timeout: Duration) -> Result<Came, Error>;
    /// Reads one message in place, if there is one, and releases it. Only of [kinds that
    /// wait](Kind::waits) and of [topics](Kind::topic), like the next two.
    fn try_read(&mut self) -> Result<Came, Error>;
    /// Reads up to `max` messages in place, and releases all of them or keeps all.
    fn try_read_batch(
        &mut self,
        max: usize,
        release: bool,
        seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error>;
    /// Reads up to `max` messages in place, waiting for the first, and releases them when `seen`
    /// is done. Panics on a torn message.
    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error>;

    /// Copies up to `max` messages, if there are any. Only of kinds with slots, and of work queues.
    fn try_copy(&mut self, _max: usize, _seen: &mut dyn FnMut(Came)) -> Result<(), Error> {
        unimplemented!("records are read in place")
    }

    /// Copies up to `max` messages, waiting for the first. Panics on a torn message. Only of kinds
    /// with slots.
    fn copy(&mut self, _max: usize, _seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        unimplemented!("records are read in place")
    }

    /// Goes on elsewhere. Only of [kinds that seek](Kind::seeks).
    fn seek(&mut self, _to: Seek) -> Result<u64, Error> {
        unimplemented!("consumers of this kind do not seek")
    }

    /// Takes one message of each `of`. Only of [kinds that seek](Kind::seeks).
    fn stride(&mut self, _index: u64, _of: u64) -> Result<(), Error> {
        unimplemented!("consumers of this kind have no stride")
    }

    /// Reads one message by a guard that leaves the handle's hands. Only of [work queues](Kind::queue).
    fn try_read_owned(&mut self) -> Result<(Came, Finish), Error> {
        unimplemented!("guards of this kind stay with their handle")
    }

    /// Reads the message `back` before the newest in place: its place in the order of all messages, and what came. Only of
    /// [topics](Kind::topic), like the next two.
    fn try_nth_latest(&mut self, _back: usize) -> Result<(u64, Came), Error> {
        unimplemented!("this kind keeps no messages")
    }

    /// Holds the message `back` before the newest.
    fn try_nth_latest_owned(&mut self, _back: usize) -> Result<Box<dyn Held>, Error> {
        unimplemented!("this kind keeps no messages")
    }

    /// Holds the next message, if there is one.
    fn try_read_held(&mut self) -> Result<Box<dyn Held>, Error> {
        unimplemented!("this kind keeps no messages")
    }

    /// Reads one message in place, if there is one, and finishes with it so. Only of [work queues](Kind::queue).
    fn try_handle(&mut self, _fate: Fate) -> Result<Came, Error> {
        unimplemented!("messages of this kind are released")
    }

    /// Reads one dead letter in place, if there is one, and finishes with it so.
    fn try_dead_letter(&mut self, _fate: Fate) -> Result<Came, Error> {
        unimplemented!("this kind has no dead letters")
    }

    /// Returns the number of times that the message that was taken last had been delivered before.
    fn deliveries(&self) -> u32 {
        unimplemented!("consumers of this kind count no deliveries")
    }

    /// Returns the number of dead letters.
    fn dead_letters(&self) -> usize {
        unimplemented!("this kind has no dead letters")
    }

    /// Takes a message if there is one. Panics on a torn message.
    fn try_pop(&mut self) -> Result<u64, Error> {
        Ok(whole(self.try_pop_any()?))
    }

    /// Takes a message, waiting for at most `timeout`. Panics on a torn message.
    fn pop_timeout(&mut self, timeout: Duration) -> Result<u64, Error> {
        Ok(whole(self.pop_any(timeout)?))
    }
}

/// Takes over the descriptors with these numbers (`5,6,7,8`), which this process inherited for it.
pub fn inherited(numbers: &str) -> Vec<OwnedFd> {
    let numbers = numbers.split(',').map(|number| number.parse().unwrap());
    // SAFETY: descriptors that were passed to this process under these numbers, and that nothing
    // else of it uses.
    numbers
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect()
}

/// Panics on a message that differs from every one that was written: that ends the program.
fn whole(came: Came) -> u64 {
    came.unwrap_or_else(|what| panic!("torn: {what}"))
}

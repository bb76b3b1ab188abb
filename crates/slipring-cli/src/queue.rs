//! A work queue of items: byte strings. Any worker takes an item.
//!
//! - An item that a worker holds stays in the queue until it is released. If the worker gives it back, or dies, another
//!   worker takes it, and learns how often it was delivered before.
//! - An item that is put aside stays in the queue as a dead letter. No worker takes it before somebody gives it back.
//!
//! This file alone knows how an item lies in the channel: as a record of `mpmc`.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring::inspect::SeatState;
use slipring::mpmc::records::{Builder, Consumer, Producer, Record};
use slipring::{Difference, Error, Readiness, Role, SetupError};

use crate::shape::{CHECK_EVERY, QueueSize};

/// The number of seats on each side: the most that a channel can have, since nobody knows how many feeders and workers
/// will come.
pub(crate) const SEATS: usize = 63;

/// Describes a queue to open, or to make.
pub(crate) struct Queue(Builder);

impl Queue {
    /// Describes a queue of this size. An existing queue keeps its own.
    pub(crate) fn new(size: QueueSize) -> Queue {
        let builder = Builder::new(size.items(), size.max_record())
            .producers(SEATS)
            .consumers(SEATS);
        Queue(builder.check_every(CHECK_EVERY))
    }

    /// Takes a feeding end; makes the queue if it does not exist.
    pub(crate) fn feeder(&self, name: &str) -> Result<Feeder, SetupError> {
        self.0.producer(name).map(Feeder)
    }

    /// Takes a working end; makes the queue if it does not exist. What it puts aside makes the oldest dead letters beyond
    /// `letters` go.
    ///
    /// A dead letter takes the room of an item. So at most half of the queue's items are letters, whatever was asked for.
    pub(crate) fn worker(&self, name: &str, letters: usize) -> Result<Worker, SetupError> {
        let capacity = self.0.open_or_create(name)?.geometry().capacity as usize;
        let letters = letters.min(capacity / 2);
        // The library's own rule never applies: the worker names what it puts aside.
        let builder = self.0.clone().dead_letters(u32::MAX, letters);
        builder.consumer(name).map(Worker)
    }

    /// Takes a working end of a queue that exists, to look after its dead letters; and a feeding end if `feeds`.
    pub(crate) fn letters(name: &str, feeds: bool) -> Result<(Option<Feeder>, Worker), SetupError> {
        let channel = Queue::new(QueueSize::default()).0.open(name)?;
        let feeder = feeds.then(|| channel.producer()).transpose()?;
        Ok((feeder.map(Feeder), Worker(channel.consumer()?)))
    }
}

/// The end that puts items into the queue.
pub(crate) struct Feeder(Producer);

impl Feeder {
    /// Returns the most bytes that an item can have.
    pub(crate) fn largest(&self) -> usize {
        self.0.max_record()
    }

    /// Appends an item of at most [`largest`](Self::largest) bytes; waits for room for at most
    /// `timeout`.
    pub(crate) fn push(&mut self, bytes: &[u8], timeout: Duration) -> Result<(), Error> {
        self.0.push_timeout(bytes, timeout)
    }

    /// Asks for a descriptor that becomes readable when there is room for an item.
    pub(crate) fn arm(&mut self) -> Result<Readiness, Error> {
        self.0.arm(1)
    }

    /// Returns that descriptor.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        self.0.as_fd()
    }

    /// Returns `true` if no worker is present.
    pub(crate) fn is_alone(&mut self) -> Result<bool, Error> {
        self.0.is_disconnected()
    }

    /// Waits until a worker is present, for at most `timeout`.
    pub(crate) fn wait_for_worker(&mut self, timeout: Duration) -> Result<(), Error> {
        self.0.wait_for_consumer(timeout)
    }

    /// Gives a sign of life, and fails if the name leads to another channel by now.
    pub(crate) fn look_after(&self) -> Result<(), Error> {
        self.0.heartbeat();
        self.0.check_name()
    }

    pub(crate) fn differences(&self) -> Vec<Difference> {
        self.0.differences()
    }

    /// Leaves before the work was done. Dropping the feeder says that it was.
    pub(crate) fn abort(self) {
        self.0.abort();
    }
}

/// The end that takes items out of the queue, one at a time.
pub(crate) struct Worker(Consumer);

impl Worker {
    /// Takes another working end of the same queue.
    pub(crate) fn another(&self) -> Result<Worker, SetupError> {
        self.0.another().map(Worker)
    }

    /// Takes the next item, waiting for it for at most `timeout`.
    ///
    /// Returns `Disconnected` once all feeders have left, and no item is in the queue or in the hands
    /// of a worker. Dead letters do not count.
    pub(crate) fn read(&mut self, timeout: Duration) -> Result<Held<'_>, Error> {
        // The question has a side effect that matters here: what dead workers held comes back. A
        // read does that only if it waits, and a full queue may not let it wait for long.
        self.0.is_disconnected()?;
        self.0.read_timeout(timeout).map(Held::new)
    }

    /// Returns the number of dead letters.
    pub(crate) fn letters(&self) -> usize {
        self.0.dead_letters()
    }

    /// Takes a dead letter, or returns `Empty`. What is put aside again is not returned again before that.
    pub(crate) fn letter(&mut self) -> Result<Held<'_>, Error> {
        self.0.try_dead_letter().map(Held::new)
    }

    /// Returns the number of feeders that there have been, if all of them have left: later ends of the stream have higher
    /// numbers.
    pub(crate) fn end_number(&self) -> Result<Option<u64>, SetupError> {
        let seats = self.0.channel().stat()?.seats;
        let feeders = || seats.iter().filter(|seat| seat.role == Role::Producer);
        let gone = feeders().all(|seat| seat.state != SeatState::Held);
        Ok(gone.then(|| feeders().map(|seat| seat.generation).sum()))
    }

    /// Waits until a feeder is present, for at most `timeout`. Acknowledges the end that was reported.
    pub(crate) fn wait_for_feeder(&mut self, timeout: Duration) -> Result<(), Error> {
        self.0.wait_for_producer(timeout)
    }

    pub(crate) fn differences(&self) -> Vec<Difference> {
        self.0.differences()
    }

    /// Leaves before the end of the stream.
    pub(crate) fn abort(self) {
        self.0.abort();
    }
}

/// An item that a worker holds. Dropping it gives it back, so that no early return loses an item.
pub(crate) struct Held<'w> {
    /// `None` once it left this worker's hands.
    record: Option<Record<'w>>,
    bytes: Vec<u8>,
    deliveries: u32,
}

impl<'w> Held<'w> {
    fn new(record: Record<'w>) -> Held<'w> {
        Held {
            // Another program may write there meanwhile: copy first, then look.
            bytes: record.to_vec(),
            deliveries: record.deliveries(),
            record: Some(record),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of times that a worker had taken the item before, and gave it back or died with it.
    pub(crate) fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// Takes the item out of the queue: it is done.
    pub(crate) fn release(mut self) {
        if let Some(record) = self.record.take() {
            record.release();
        }
    }

    /// Leaves the item in the queue as a dead letter.
    pub(crate) fn put_aside(mut self) {
        if let Some(record) = self.record.take() {
            record.put_aside();
        }
    }

    /// Leaves the item to another worker, as dropping it does.
    pub(crate) fn give_back(self) {}
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            record.keep();
        }
    }
}

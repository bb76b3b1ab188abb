//! A work queue of items: byte strings of up to [`LARGEST`] bytes. Any worker takes an item.
//!
//! An item that a worker holds stays in the queue until it is released. If the worker gives it back,
//! or dies, another worker takes it, and it is marked as redelivered.
//!
//! This file alone knows how an item lies in the channel: as the payload [`Item`] of `mpmc`.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring::mpmc::{Builder, Consumer, Messages, Producer};
use slipring::{Difference, Error, Payload, Readiness, SetupError};

use crate::shape::CHECK_EVERY;

/// The most bytes in an item: with its length it fills a page.
pub(crate) const LARGEST: usize = 4092;

/// The number of seats on each side: the most that a channel can have, since nobody knows how many
/// feeders and workers will come.
pub(crate) const SEATS: usize = 63;

/// An item, as it lies in its slot.
#[derive(Clone, Copy, Payload)]
#[repr(C)]
#[payload(name = "slipring item")]
struct Item {
    len: u32,
    bytes: [u8; LARGEST],
}

/// Describes a queue to open, or to make.
pub(crate) struct Queue(Builder<Item>);

impl Queue {
    /// Describes a queue for `capacity` items, a power of two. An existing queue keeps its capacity.
    pub(crate) fn new(capacity: usize) -> Queue {
        let builder = Builder::new(capacity).producers(SEATS).consumers(SEATS);
        Queue(builder.check_every(CHECK_EVERY))
    }

    /// Takes a feeding end; makes the queue if it does not exist.
    pub(crate) fn feeder(&self, name: &str) -> Result<Feeder, SetupError> {
        self.0.producer(name).map(Feeder)
    }

    /// Takes a working end; makes the queue if it does not exist.
    pub(crate) fn worker(&self, name: &str) -> Result<Worker, SetupError> {
        self.0.consumer(name).map(Worker)
    }
}

/// The end that puts items into the queue.
pub(crate) struct Feeder(Producer<Item>);

impl Feeder {
    /// Returns the most bytes that an item can have.
    pub(crate) fn largest(&self) -> usize {
        LARGEST
    }

    /// Appends an item of at most [`largest`](Self::largest) bytes; waits for room for at most
    /// `timeout`.
    pub(crate) fn push(&mut self, bytes: &[u8], timeout: Duration) -> Result<(), Error> {
        let (asked, max) = (bytes.len() as u64, LARGEST as u64);
        let mut item = Item {
            len: asked as u32,
            bytes: [0; LARGEST],
        };
        let Some(front) = item.bytes.get_mut(..bytes.len()) else {
            return Err(Error::TooLarge { asked, max });
        };
        front.copy_from_slice(bytes);
        let pushed = self.0.push_timeout(item, timeout);
        pushed.map_err(|failed| failed.error())
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
pub(crate) struct Worker(Consumer<Item>);

impl Worker {
    /// Takes another working end of the same queue.
    pub(crate) fn another(&self) -> Result<Worker, SetupError> {
        self.0.another().map(Worker)
    }

    /// Takes the next item, waiting for it for at most `timeout`.
    ///
    /// Returns `Disconnected` once all feeders have left, and no item is in the queue or in the hands
    /// of a worker.
    pub(crate) fn read(&mut self, timeout: Duration) -> Result<Held<'_>, Error> {
        // The question has a side effect that matters here: what dead workers held comes back. A
        // read does that only if it waits, and a full queue may not let it wait for long.
        self.0.is_disconnected()?;
        let messages = self.0.read_batch_timeout(1, timeout)?;
        let redelivered = messages.deliveries() > 0;
        // Another program may write there meanwhile: copy first, then look.
        let item = messages.iter().next().copied();
        let bytes = item.map_or(Vec::new(), |item| {
            let len = (item.len as usize).min(LARGEST);
            item.bytes[..len].to_vec()
        });
        Ok(Held {
            messages: Some(messages),
            bytes,
            redelivered,
        })
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
    /// `None` once it was released.
    messages: Option<Messages<'w, Item>>,
    bytes: Vec<u8>,
    redelivered: bool,
}

impl Held<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns `true` if a worker had taken the item before, and gave it back or died with it.
    pub(crate) fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// Takes the item out of the queue: it is done.
    pub(crate) fn release(mut self) {
        if let Some(messages) = self.messages.take() {
            messages.release(1);
        }
    }

    /// Leaves the item to another worker, as dropping it does.
    pub(crate) fn give_back(self) {}
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(messages) = self.messages.take() {
            messages.keep();
        }
    }
}

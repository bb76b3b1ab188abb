//! The shared part of every kind whose messages are values of one type, each in a slot. A message
//! has 64 bytes, and every word of it holds the message's number.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring::{Error, Readiness, SlotKind};
use slipring_tests::message::{Message, Numbered};

use super::{Consumer, HAND, Producer, Way, checked};

/// A kind of such messages.
pub(super) trait Slotted: SlotKind<Value = Message> {
    /// `true` if a channel of this kind may overwrite its messages. They are then copied, and not
    /// read in place.
    const MAY_OVERWRITE: bool;
}

/// Returns the number of slots in a channel.
pub(super) fn capacity(way: Way) -> u64 {
    if way == Way::Stream { 64 } else { 2 }
}

impl<K: Slotted> Producer for slipring::Producer<K> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(Self::push(self, Message::numbered(number))?)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        Ok(Self::try_push(self, Message::numbered(number))?)
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut slots = self.reserve(1)?;
        slots.write(0, Message::numbered(number));
        slots.commit(1);
        Ok(())
    }

    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error> {
        let values = numbers.map(Message::numbered).collect::<Vec<_>>();
        Ok(self.push_slice(&values)?)
    }

    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        Self::wait_for_consumer(self, timeout)
    }

    fn arm(&mut self, _number: u64) -> Result<Readiness, Error> {
        Self::arm(self, 1)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

impl<K: Slotted> Consumer for slipring::Consumer<K> {
    fn next(&self) -> u64 {
        self.position()
    }

    /// Reads in place, or copies messages that may be overwritten during the read.
    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        match self.read_batch(max) {
            Ok(messages) => {
                seen(&numbers(messages.iter()));
                return Ok(());
            }
            Err(Error::Overwritten) if K::MAY_OVERWRITE => {}
            Err(error) => return Err(error),
        }
        let mut copies = [Message::numbered(0); HAND as usize];
        let count = self.pop_slice(&mut copies[..max])?;
        seen(&numbers(copies[..count].iter()));
        Ok(())
    }

    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        Self::wait_for_producer(self, timeout)
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        Self::arm(self)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }
}

fn numbers<'m>(messages: impl Iterator<Item = &'m Message>) -> Vec<u64> {
    messages.map(|message| checked(message.check())).collect()
}

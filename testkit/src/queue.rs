//! Puts queues of values and queues of records behind one set of traits, with the verbs that only queues have.
//!
//! A queue's consumer says how often a message was delivered before, gives messages back, and holds several at once. A
//! producer holds several reservations at once, and commits them in any order. The messages are the numbered ones of
//! [`message`], checked in full.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use slipring::inspect::{self, Stat};
use slipring::mpmc::{Builder, Mpmc, records};
use slipring::{Channel, Error, QueueKind, SetupError, Wait};

use crate::message::{self, LARGEST, Message, Numbered, record};
use crate::{Handle, record_ends, whole};

/// A queue's shape, and the way in which it is used.
#[derive(Clone, Copy, Debug)]
pub struct QueueTerms {
    /// `true` for a queue of records.
    pub records: bool,
    /// `true` if a message is dropped when its holder dies.
    pub at_most_once: bool,
    /// The number of slots.
    pub capacity: usize,
    /// The number of seats for producers.
    pub producers: usize,
    /// The number of seats for consumers.
    pub consumers: usize,
    /// The time for which a waiting call polls before it sleeps.
    pub spin_for: Option<Duration>,
}

/// A producer of a queue, of numbered messages. The verbs number what they append in the order of reservation.
pub trait Feeder: Handle {
    /// Appends a message, waiting for room.
    fn push(&mut self, number: u64) -> Result<(), Error>;
    /// Appends a message, waiting for room for at most `timeout`.
    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error>;
    /// Appends these messages, as one reservation if the kind has any, waiting for room. More room may be reserved than
    /// committed. Returns the number of messages that were appended, at least one.
    fn place(&mut self, numbers: Range<u64>) -> Result<usize, Error>;
    /// Appends as many of these messages as there is room for, and returns their number.
    fn try_batch(&mut self, numbers: Range<u64>) -> Result<usize, Error>;
    /// Appends as many of these messages as there is room for, each by a reservation of its own. They are committed in
    /// the opposite order. Returns their number.
    fn scatter(&mut self, numbers: Range<u64>) -> Result<usize, Error>;
}

/// A consumer of a queue.
pub trait Taker: Handle {
    /// Reads up to `max` messages in place, waiting for the first for at most `timeout`. `seen` gets their numbers, and the
    /// number of times that they had been delivered before. It returns the number of messages to release; the others are
    /// given back.
    fn take(
        &mut self,
        max: usize,
        timeout: Duration,
        seen: &mut dyn FnMut(&[u64], u32) -> usize,
    ) -> Result<(), Error>;
    /// Holds up to `max` messages at once, waiting for the first for at most `timeout`, and finishes with them in the
    /// opposite order. `seen` gets each, and returns `true` if it is to be released and not given back. `released` gets
    /// each that was released.
    fn hold(
        &mut self,
        max: usize,
        timeout: Duration,
        seen: &mut dyn FnMut(u64, u32) -> bool,
        released: &mut dyn FnMut(u64),
    ) -> Result<(), Error>;
    /// Copies a message out and releases it, waiting for it for at most `timeout`. Returns its number, and the number of
    /// times that it had been delivered before.
    fn copy(&mut self, timeout: Duration) -> Result<(u64, u32), Error>;
}

/// A queue in which a process takes seats.
pub trait Queue {
    /// Takes a producer's seat.
    fn feeder(&self) -> Result<Box<dyn Feeder>, SetupError>;
    /// Takes a consumer's seat.
    fn taker(&self) -> Result<Box<dyn Taker>, SetupError>;
    /// Returns what `slipring stat` shows.
    fn stat(&self) -> Result<Stat, SetupError>;
}

/// A queue with a name, looked up for each seat and made if need be; or one in memfds.
enum Place<K: slipring::Kind> {
    Named(String, Box<slipring::Builder<K>>),
    Passed(Box<Channel<K>>),
}

impl QueueTerms {
    fn apply<K: QueueKind>(&self, builder: slipring::Builder<K>) -> slipring::Builder<K> {
        let builder = builder.producers(self.producers).consumers(self.consumers);
        let builder = match self.spin_for {
            Some(spin_for) => builder.wait(Wait::Sleep { spin_for }),
            None => builder,
        };
        match self.at_most_once {
            true => builder.at_most_once(),
            false => builder,
        }
    }

    fn of_values(&self) -> Builder<Message> {
        self.apply(Builder::new(self.capacity))
    }

    fn of_records(&self) -> records::Builder {
        self.apply(records::Builder::new(self.capacity, LARGEST))
    }

    /// Makes a queue in memfds, and returns those.
    pub fn create(&self) -> Result<Vec<OwnedFd>, SetupError> {
        fn copies<K: slipring::Kind>(channel: &Channel<K>) -> Vec<OwnedFd> {
            let descriptors = channel.descriptors().into_iter();
            descriptors
                .map(|fd| fd.try_clone_to_owned().unwrap())
                .collect()
        }
        Ok(match self.records {
            true => copies(&self.of_records().memfd()?),
            false => copies(&self.of_values().memfd()?),
        })
    }

    /// Returns the queue of this name.
    pub fn named(&self, name: &str) -> Box<dyn Queue> {
        let name = name.to_owned();
        match self.records {
            true => Box::new(Place::Named(name, Box::new(self.of_records()))),
            false => Box::new(Place::Named(name, Box::new(self.of_values()))),
        }
    }

    /// Opens the queue in these memfds.
    pub fn passed(&self, descriptors: Vec<OwnedFd>) -> Result<Box<dyn Queue>, SetupError> {
        Ok(match self.records {
            true => Box::new(Place::Passed(Box::new(
                self.of_records().from_fds(descriptors)?,
            ))),
            false => Box::new(Place::Passed(Box::new(
                self.of_values().from_fds(descriptors)?,
            ))),
        })
    }
}

impl<K> Queue for Place<K>
where
    K: QueueKind + 'static,
    slipring::Producer<K>: Feeder,
    slipring::Consumer<K>: Taker,
{
    fn feeder(&self) -> Result<Box<dyn Feeder>, SetupError> {
        Ok(Box::new(match self {
            Place::Named(name, builder) => builder.producer(name)?,
            Place::Passed(channel) => channel.producer()?,
        }))
    }

    fn taker(&self) -> Result<Box<dyn Taker>, SetupError> {
        Ok(Box::new(match self {
            Place::Named(name, builder) => builder.consumer(name)?,
            Place::Passed(channel) => channel.consumer()?,
        }))
    }

    fn stat(&self) -> Result<Stat, SetupError> {
        match self {
            Place::Named(name, _) => inspect::stat(name),
            Place::Passed(channel) => channel.stat(),
        }
    }
}

impl Feeder for slipring::Producer<Mpmc<Message>> {
    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(Self::push(self, Message::numbered(number))?)
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        Ok(Self::push_timeout(
            self,
            Message::numbered(number),
            timeout,
        )?)
    }

    fn place(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        let count = ((numbers.end - numbers.start) as usize).min(self.capacity());
        let spare = usize::from(count < self.capacity() && numbers.start.is_multiple_of(3));
        let mut run = self.reserve(count + spare)?;
        for (index, number) in numbers.take(count).enumerate() {
            run.write(index, Message::numbered(number));
        }
        run.commit(count);
        Ok(count)
    }

    fn try_batch(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        let values = numbers.map(Message::numbered).collect::<Vec<_>>();
        self.try_push_slice(&values)
    }

    fn scatter(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        let mut runs = Vec::new();
        for number in numbers {
            match self.try_reserve_owned(1) {
                Ok(mut run) => {
                    run.write(0, Message::numbered(number));
                    runs.push(run);
                }
                Err(error) if runs.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let count = runs.len();
        runs.into_iter().rev().for_each(|run| run.commit(1));
        Ok(count)
    }
}

impl Taker for slipring::Consumer<Mpmc<Message>> {
    fn take(
        &mut self,
        max: usize,
        timeout: Duration,
        seen: &mut dyn FnMut(&[u64], u32) -> usize,
    ) -> Result<(), Error> {
        let messages = self.read_batch_timeout(max, timeout)?;
        let numbers = messages.iter().map(|message| whole(message.check()));
        let numbers = numbers.collect::<Vec<_>>();
        let release = seen(&numbers, messages.deliveries());
        messages.release(release);
        Ok(())
    }

    fn hold(
        &mut self,
        max: usize,
        timeout: Duration,
        seen: &mut dyn FnMut(u64, u32) -> bool,
        released: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut held = vec![self.read_owned_timeout(timeout)?];
        while held.len() < max
            && let Ok(message) = self.try_read_owned()
        {
            held.push(message);
        }
        let decide = |message: &slipring::mpmc::OwnedMessage<Message>| {
            let number = whole(message.check());
            (number, seen(number, message.deliveries()))
        };
        let decided = held.iter().map(decide).collect::<Vec<_>>();
        for (message, (number, release)) in held.into_iter().zip(decided).rev() {
            match release {
                true => {
                    message.release();
                    released(number);
                }
                false => message.keep(),
            }
        }
        Ok(())
    }

    fn copy(&mut self, timeout: Duration) -> Result<(u64, u32), Error> {
        let message = self.pop_timeout(timeout)?;
        Ok((whole(message.check()), self.deliveries()))
    }
}

impl Feeder for records::Producer {
    fn push(&mut self, number: u64) -> Result<(), Error> {
        Self::push(self, &record(number))
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        Self::push_timeout(self, &record(number), timeout)
    }

    fn place(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        let mut space = self.reserve(LARGEST)?;
        let length = message::length(numbers.start);
        message::write(numbers.start, &mut space[..length]);
        space.commit(length);
        Ok(1)
    }

    fn try_batch(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        record_ends::iterate(self, numbers, &mut || {})
    }

    fn scatter(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        let mut spaces = Vec::new();
        for number in numbers {
            match self.try_reserve_owned(LARGEST) {
                Ok(mut space) => {
                    let length = message::length(number);
                    message::write(number, &mut space[..length]);
                    spaces.push((space, length));
                }
                Err(error) if spaces.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let count = spaces.len();
        let spaces = spaces.into_iter().rev();
        spaces.for_each(|(space, length)| space.commit(length));
        Ok(count)
    }
}

impl Taker for records::Consumer {
    fn take(
        &mut self,
        max: usize,
        timeout: Duration,
        seen: &mut dyn FnMut(&[u64], u32) -> usize,
    ) -> Result<(), Error> {
        // Of two, any number can be released.
        let mut records = self.read_batch_timeout(max.min(2), timeout)?;
        let mut numbers = Vec::new();
        while let Some(record) = records.next()? {
            numbers.push(whole(message::check(record)));
        }
        match seen(&numbers, records.deliveries()) {
            0 => records.keep(),
            release if release < numbers.len() => records.keep_last(),
            _ => records.release(),
        }
        Ok(())
    }

    fn hold(
        &mut self,
        max: usize,
        timeout: Duration,
        seen: &mut dyn FnMut(u64, u32) -> bool,
        released: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut held = vec![self.read_owned_timeout(timeout)?];
        while held.len() < max
            && let Ok(record) = self.try_read_owned()
        {
            held.push(record);
        }
        let decide = |record: &records::OwnedRecord| {
            let number = whole(message::check(record));
            (number, seen(number, record.deliveries()))
        };
        let decided = held.iter().map(decide).collect::<Vec<_>>();
        for (record, (number, release)) in held.into_iter().zip(decided).rev() {
            match release {
                true => {
                    record.release();
                    released(number);
                }
                false => record.keep(),
            }
        }
        Ok(())
    }

    fn copy(&mut self, timeout: Duration) -> Result<(u64, u32), Error> {
        let mut out = [0; LARGEST];
        let length = self.pop_timeout(&mut out, timeout)?;
        Ok((whole(message::check(&out[..length])), self.deliveries()))
    }
}

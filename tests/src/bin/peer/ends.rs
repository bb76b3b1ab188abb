//! Builders, channels and handles of every kind, behind the few verbs that a test needs.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::inspect::Stat;
use slipring::{Builder, Channel, Error, Kind, Pages, Readiness, bytes, handover, spsc};
use slipring_tests::message::{self, Numbered, record};

/// A builder of some kind.
pub(crate) trait Maker {
    fn create(&self, name: &str) -> Result<Box<dyn Memory>, Error>;
    fn open(&self, name: &str) -> Result<Box<dyn Memory>, Error>;
    fn open_or_create(&self, name: &str) -> Result<Box<dyn Memory>, Error>;
    fn producer(&self, name: &str) -> Result<Box<dyn Writer>, Error>;
    fn consumer(&self, name: &str) -> Result<Box<dyn Reader>, Error>;
    fn heap(&self) -> Result<Box<dyn Memory>, Error>;
    fn memfd(&self) -> Result<Box<dyn Memory>, Error>;
    fn passed(&self, descriptors: Vec<OwnedFd>) -> Result<Box<dyn Memory>, Error>;
    fn receive(&self, socket: BorrowedFd<'_>) -> Result<Box<dyn Memory>, Error>;
}

/// A channel of some kind.
pub(crate) trait Memory {
    fn producer(&self) -> Result<Box<dyn Writer>, Error>;
    fn consumer(&self) -> Result<Box<dyn Reader>, Error>;
    fn stat(&self) -> Result<Stat, Error>;
    fn pages(&self) -> &Pages;
    fn metadata(&self) -> &[u8];
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), Error>;
    fn remove(&self) -> Result<(), Error>;
}

/// A producer of some kind, of numbered messages.
pub(crate) trait Writer: Send {
    fn push(&mut self, number: u64) -> Result<(), Error>;
    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error>;
    fn try_push(&mut self, number: u64) -> Result<(), Error>;
    /// Writes in place and commits.
    fn place(&mut self, number: u64) -> Result<(), Error>;
    /// Appends a batch, published at once as far as there is room.
    fn batch(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Error>;
    /// Appends a batch by `try_push_iter` and says how long it was; `between` runs inside the iterator.
    fn iterate(
        &mut self,
        numbers: std::ops::Range<u64>,
        between: &mut dyn FnMut(),
    ) -> Result<usize, Error>;
    /// Reserves, writes, asks how many to commit, commits those.
    fn hold(
        &mut self,
        first: u64,
        count: usize,
        decide: &mut dyn FnMut(&[u64]) -> usize,
    ) -> Result<(), Error>;
    /// The number that follows what is committed.
    fn next(&self) -> u64;
    fn position(&self) -> u64;
    fn len(&self) -> Result<usize, Error>;
    fn is_disconnected(&mut self) -> Result<bool, Error>;
    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error>;
    fn heartbeat(&self);
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
    /// Whether there is room for this message.
    fn arm(&mut self, number: u64) -> Result<Readiness, Error>;
    fn abort(self: Box<Self>);
}

/// A consumer of some kind, of numbered messages, each of which it checks in full.
pub(crate) trait Reader: Send {
    fn pop_timeout(&mut self, timeout: Duration) -> Result<u64, Error>;
    /// As `pop_timeout`; nothing for a message that is not what was written.
    fn pop_any(&mut self, timeout: Duration) -> Result<Option<u64>, Error>;
    fn try_pop(&mut self) -> Result<u64, Error>;
    /// Reads up to `max` in place, waiting for the first, and releases them when `seen` is done.
    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error>;
    fn position(&self) -> u64;
    fn len(&self) -> Result<usize, Error>;
    fn is_disconnected(&mut self) -> Result<bool, Error>;
    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error>;
    fn heartbeat(&self);
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
    fn arm(&mut self) -> Result<Readiness, Error>;
    fn abort(self: Box<Self>);
}

impl<K> Maker for Builder<K>
where
    K: Kind + 'static,
    K::Producer: Writer + 'static,
    K::Consumer: Reader + 'static,
{
    fn create(&self, name: &str) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Builder::create(self, name)?))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Builder::open(self, name)?))
    }

    fn open_or_create(&self, name: &str) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Builder::open_or_create(self, name)?))
    }

    fn producer(&self, name: &str) -> Result<Box<dyn Writer>, Error> {
        Ok(Box::new(Builder::producer(self, name)?))
    }

    fn consumer(&self, name: &str) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(Builder::consumer(self, name)?))
    }

    fn heap(&self) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Builder::heap(self)?))
    }

    fn memfd(&self) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Builder::memfd(self)?))
    }

    fn passed(&self, descriptors: Vec<OwnedFd>) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Builder::from_fds(self, descriptors)?))
    }

    fn receive(&self, socket: BorrowedFd<'_>) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(handover::receive(socket, self)?))
    }
}

impl<K> Memory for Channel<K>
where
    K: Kind,
    K::Producer: Writer + 'static,
    K::Consumer: Reader + 'static,
{
    fn producer(&self) -> Result<Box<dyn Writer>, Error> {
        Ok(Box::new(Channel::producer(self)?))
    }

    fn consumer(&self) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(Channel::consumer(self)?))
    }

    fn stat(&self) -> Result<Stat, Error> {
        Channel::stat(self)
    }

    fn pages(&self) -> &Pages {
        Channel::pages(self)
    }

    fn metadata(&self) -> &[u8] {
        Channel::metadata(self)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Channel::descriptors(self)
    }

    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        handover::send(socket, self)
    }

    fn remove(&self) -> Result<(), Error> {
        Channel::remove(self)
    }
}

/// A message that is not what was written is the end of the test.
pub(crate) fn checked(check: Result<u64, String>) -> u64 {
    check.unwrap_or_else(|what| panic!("torn: {what}"))
}

impl<T: Numbered> Writer for spsc::Producer<T> {
    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(spsc::Producer::push(self, T::numbered(number))?)
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        Ok(spsc::Producer::push_timeout(
            self,
            T::numbered(number),
            timeout,
        )?)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        spsc::Producer::try_push(self, T::numbered(number)).map_err(|failed| {
            assert_eq!(
                checked(failed.value.check()),
                number,
                "the value comes back"
            );
            failed.error
        })
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut slots = self.reserve(1)?;
        slots.write(0, T::numbered(number));
        slots.commit(1);
        Ok(())
    }

    fn batch(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Error> {
        let values = numbers.map(T::numbered).collect::<Vec<_>>();
        self.push_slice(&values).map_err(|(_, error)| error)
    }

    fn iterate(
        &mut self,
        numbers: std::ops::Range<u64>,
        between: &mut dyn FnMut(),
    ) -> Result<usize, Error> {
        self.try_push_iter(numbers.map(|number| {
            between();
            T::numbered(number)
        }))
    }

    fn hold(
        &mut self,
        first: u64,
        count: usize,
        decide: &mut dyn FnMut(&[u64]) -> usize,
    ) -> Result<(), Error> {
        let mut slots = self.try_reserve(count)?;
        let numbers = (first..first + count as u64).collect::<Vec<_>>();
        for (i, number) in numbers.iter().enumerate() {
            slots.write(i, T::numbered(*number));
        }
        slots.commit(decide(&numbers));
        Ok(())
    }

    fn next(&self) -> u64 {
        spsc::Producer::position(self)
    }

    fn position(&self) -> u64 {
        spsc::Producer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        spsc::Producer::len(self)
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        spsc::Producer::is_disconnected(self)
    }

    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        spsc::Producer::wait_for_consumer(self, timeout)
    }

    fn heartbeat(&self) {
        spsc::Producer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self, _number: u64) -> Result<Readiness, Error> {
        spsc::Producer::arm(self, 1)
    }

    fn abort(self: Box<Self>) {
        spsc::Producer::abort(*self);
    }
}

impl<T: Numbered> Reader for spsc::Consumer<T> {
    fn pop_timeout(&mut self, timeout: Duration) -> Result<u64, Error> {
        Ok(checked(spsc::Consumer::pop_timeout(self, timeout)?.check()))
    }

    fn pop_any(&mut self, timeout: Duration) -> Result<Option<u64>, Error> {
        let message = spsc::Consumer::pop_timeout(self, timeout)?;
        Ok(message.check().ok())
    }

    fn try_pop(&mut self) -> Result<u64, Error> {
        Ok(checked(spsc::Consumer::try_pop(self)?.check()))
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let messages = spsc::Consumer::read(self, max)?;
        let numbers = messages.iter().map(|message| checked(message.check()));
        seen(&numbers.collect::<Vec<_>>());
        Ok(())
    }

    fn position(&self) -> u64 {
        spsc::Consumer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        spsc::Consumer::len(self)
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        spsc::Consumer::is_disconnected(self)
    }

    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        spsc::Consumer::wait_for_producer(self, timeout)
    }

    fn heartbeat(&self) {
        spsc::Consumer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        spsc::Consumer::arm(self)
    }

    fn abort(self: Box<Self>) {
        spsc::Consumer::abort(*self);
    }
}

impl Writer for bytes::Producer {
    fn push(&mut self, number: u64) -> Result<(), Error> {
        bytes::Producer::push(self, &record(number))
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        bytes::Producer::push_timeout(self, &record(number), timeout)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        bytes::Producer::try_push(self, &record(number))
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut record = self.reserve(message::LARGEST)?;
        let length = message::length(number);
        message::write(number, &mut record[..length]);
        record.commit(length);
        Ok(())
    }

    fn batch(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Error> {
        let records = numbers.map(record).collect::<Vec<_>>();
        let all = self.push_iter(records.iter().map(Vec::as_slice));
        all.map(|_| ()).map_err(|(_, error)| error)
    }

    fn iterate(
        &mut self,
        numbers: std::ops::Range<u64>,
        between: &mut dyn FnMut(),
    ) -> Result<usize, Error> {
        let records = numbers.map(record).collect::<Vec<_>>();
        let records = records.iter().map(Vec::as_slice).inspect(|_| between());
        self.try_push_iter(&mut records.peekable())
    }

    /// One record, whatever `count` says.
    fn hold(
        &mut self,
        first: u64,
        _count: usize,
        decide: &mut dyn FnMut(&[u64]) -> usize,
    ) -> Result<(), Error> {
        let mut record = self.try_reserve(message::LARGEST)?;
        let length = message::length(first);
        message::write(first, &mut record[..length]);
        match decide(&[first]) {
            0 => record.discard(),
            _ => record.commit(length),
        }
        Ok(())
    }

    fn next(&self) -> u64 {
        let at = bytes::Producer::position(self);
        message::record_at(at).unwrap_or_else(|| panic!("torn: a record ends at {at}"))
    }

    fn position(&self) -> u64 {
        bytes::Producer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        bytes::Producer::len(self)
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        bytes::Producer::is_disconnected(self)
    }

    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        bytes::Producer::wait_for_consumer(self, timeout)
    }

    fn heartbeat(&self) {
        bytes::Producer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self, number: u64) -> Result<Readiness, Error> {
        bytes::Producer::arm(self, message::length(number))
    }

    fn abort(self: Box<Self>) {
        bytes::Producer::abort(*self);
    }
}

impl Reader for bytes::Consumer {
    fn pop_timeout(&mut self, timeout: Duration) -> Result<u64, Error> {
        let mut record = [0; message::LARGEST];
        let length = bytes::Consumer::pop_timeout(self, &mut record, timeout)?;
        Ok(checked(message::check(&record[..length])))
    }

    fn pop_any(&mut self, timeout: Duration) -> Result<Option<u64>, Error> {
        let mut record = [0; message::LARGEST];
        let length = bytes::Consumer::pop_timeout(self, &mut record, timeout)?;
        Ok(message::check(&record[..length]).ok())
    }

    fn try_pop(&mut self) -> Result<u64, Error> {
        let mut record = [0; message::LARGEST];
        let length = bytes::Consumer::try_pop(self, &mut record)?;
        Ok(checked(message::check(&record[..length])))
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let mut records = self.read_batch(max)?;
        let mut numbers = Vec::new();
        while let Some(record) = records.next()? {
            numbers.push(checked(message::check(record)));
        }
        seen(&numbers);
        Ok(())
    }

    fn position(&self) -> u64 {
        bytes::Consumer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        bytes::Consumer::len(self)
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        bytes::Consumer::is_disconnected(self)
    }

    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        bytes::Consumer::wait_for_producer(self, timeout)
    }

    fn heartbeat(&self) {
        bytes::Consumer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        bytes::Consumer::arm(self)
    }

    fn abort(self: Box<Self>) {
        bytes::Consumer::abort(*self);
    }
}

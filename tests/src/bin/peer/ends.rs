//! Builders, channels and handles of every kind, behind the few verbs that a test needs.

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::broadcast::Broadcast;
use slipring::bytes::Bytes;
use slipring::inspect::Stat;
use slipring::spsc::Spsc;
use slipring::{
    Builder, Channel, Consumer, Error, Kind, Pages, Producer, Readiness, SetupError, SlotKind,
    handover,
};
use slipring_tests::message::{self, Numbered, record};

/// A builder of some kind.
pub(crate) trait Maker {
    fn create(&self, name: &str) -> Result<Box<dyn Memory>, SetupError>;
    fn open(&self, name: &str) -> Result<Box<dyn Memory>, SetupError>;
    fn open_or_create(&self, name: &str) -> Result<Box<dyn Memory>, SetupError>;
    fn producer(&self, name: &str) -> Result<Box<dyn Writer>, SetupError>;
    fn consumer(&self, name: &str) -> Result<Box<dyn Reader>, SetupError>;
    fn heap(&self) -> Result<Box<dyn Memory>, SetupError>;
    fn memfd(&self) -> Result<Box<dyn Memory>, SetupError>;
    fn passed(&self, descriptors: Vec<OwnedFd>) -> Result<Box<dyn Memory>, SetupError>;
    fn receive(&self, socket: BorrowedFd<'_>) -> Result<Box<dyn Memory>, SetupError>;
}

/// A channel of some kind.
pub(crate) trait Memory {
    fn producer(&self) -> Result<Box<dyn Writer>, SetupError>;
    fn consumer(&self) -> Result<Box<dyn Reader>, SetupError>;
    fn stat(&self) -> Result<Stat, SetupError>;
    fn pages(&self) -> &Pages;
    fn metadata(&self) -> &[u8];
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), SetupError>;
    fn remove(&self) -> Result<(), SetupError>;
}

/// A handle of some kind, of either role.
pub(crate) trait Handle: Send {
    fn position(&self) -> u64;
    fn len(&self) -> Result<usize, Error>;
    fn is_disconnected(&mut self) -> Result<bool, Error>;
    fn wait_for_peer(&mut self, timeout: Duration) -> Result<(), Error>;
    fn heartbeat(&self);
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
    /// Asks for room for this message; a consumer asks for any message.
    fn arm(&mut self, number: u64) -> Result<Readiness, Error>;
    fn abort(self: Box<Self>);
}

/// A producer of some kind, of numbered messages.
pub(crate) trait Writer: Handle {
    fn push(&mut self, number: u64) -> Result<(), Error>;
    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error>;
    fn try_push(&mut self, number: u64) -> Result<(), Error>;
    /// Writes in place and commits.
    fn place(&mut self, number: u64) -> Result<(), Error>;
    /// Appends a batch, published at once as far as there is room.
    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error>;
    /// Appends a batch by `try_push_iter` and returns its length; `between` runs inside the
    /// iterator.
    fn iterate(&mut self, numbers: Range<u64>, between: &mut dyn FnMut()) -> Result<usize, Error>;
    /// Reserves, writes, asks how many to commit, and commits those.
    fn hold(
        &mut self,
        first: u64,
        count: usize,
        decide: &mut dyn FnMut(&[u64]) -> usize,
    ) -> Result<(), Error>;
    /// Returns the number that follows the committed messages.
    fn next(&self) -> u64;
}

/// A consumer of some kind, of numbered messages, each of which it checks in full.
pub(crate) trait Reader: Handle {
    /// Takes the next message; the inner error says how it differs from the one written.
    fn pop_any(&mut self, timeout: Duration) -> Result<Result<u64, String>, Error>;
    fn pop_timeout(&mut self, timeout: Duration) -> Result<u64, Error> {
        Ok(checked(self.pop_any(timeout)?))
    }
    fn try_pop(&mut self) -> Result<u64, Error>;
    /// Reads up to `max` in place, waiting for the first, and releases them when `seen` is done.
    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error>;
}

impl<K> Maker for Builder<K>
where
    K: Kind + 'static,
    Producer<K>: Writer,
    Consumer<K>: Reader,
{
    fn create(&self, name: &str) -> Result<Box<dyn Memory>, SetupError> {
        Ok(Box::new(Builder::create(self, name)?))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Memory>, SetupError> {
        Ok(Box::new(Builder::open(self, name)?))
    }

    fn open_or_create(&self, name: &str) -> Result<Box<dyn Memory>, SetupError> {
        Ok(Box::new(Builder::open_or_create(self, name)?))
    }

    fn producer(&self, name: &str) -> Result<Box<dyn Writer>, SetupError> {
        Ok(Box::new(Builder::producer(self, name)?))
    }

    fn consumer(&self, name: &str) -> Result<Box<dyn Reader>, SetupError> {
        Ok(Box::new(Builder::consumer(self, name)?))
    }

    fn heap(&self) -> Result<Box<dyn Memory>, SetupError> {
        Ok(Box::new(Builder::heap(self)?))
    }

    fn memfd(&self) -> Result<Box<dyn Memory>, SetupError> {
        Ok(Box::new(Builder::memfd(self)?))
    }

    fn passed(&self, descriptors: Vec<OwnedFd>) -> Result<Box<dyn Memory>, SetupError> {
        Ok(Box::new(Builder::from_fds(self, descriptors)?))
    }

    fn receive(&self, socket: BorrowedFd<'_>) -> Result<Box<dyn Memory>, SetupError> {
        Ok(Box::new(handover::receive(socket, self)?))
    }
}

impl<K> Memory for Channel<K>
where
    K: Kind + 'static,
    Producer<K>: Writer,
    Consumer<K>: Reader,
{
    fn producer(&self) -> Result<Box<dyn Writer>, SetupError> {
        Ok(Box::new(Channel::producer(self)?))
    }

    fn consumer(&self) -> Result<Box<dyn Reader>, SetupError> {
        Ok(Box::new(Channel::consumer(self)?))
    }

    fn stat(&self) -> Result<Stat, SetupError> {
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

    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), SetupError> {
        handover::send(socket, self)
    }

    fn remove(&self) -> Result<(), SetupError> {
        Channel::remove(self)
    }
}

/// Panics on a message that differs from the one written: that ends the test.
fn checked(check: Result<u64, String>) -> u64 {
    check.unwrap_or_else(|what| panic!("torn: {what}"))
}

/// A kind that carries numbers.
pub(crate) trait Carrier: Kind<Producer: Send, Consumer: Send> + 'static {
    /// Returns the room that this message takes: slots, or bytes.
    fn amount(number: u64) -> usize;
}

/// A kind that carries numbers in slots.
trait Slots: SlotKind<Value: Numbered, Producer: Send, Consumer: Send> + 'static {}

impl<T: Numbered> Slots for Spsc<T> {}

impl<T: Numbered> Slots for Broadcast<T> {}

impl<K: Slots> Carrier for K {
    fn amount(_number: u64) -> usize {
        1
    }
}

impl Carrier for Bytes {
    fn amount(number: u64) -> usize {
        message::length(number)
    }
}

impl<K: Carrier> Handle for Producer<K> {
    fn position(&self) -> u64 {
        Producer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        Producer::len(self)
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        Producer::is_disconnected(self)
    }

    fn wait_for_peer(&mut self, timeout: Duration) -> Result<(), Error> {
        self.wait_for_consumer(timeout)
    }

    fn heartbeat(&self) {
        Producer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self, number: u64) -> Result<Readiness, Error> {
        Producer::arm(self, K::amount(number))
    }

    fn abort(self: Box<Self>) {
        Producer::abort(*self);
    }
}

impl<K: Carrier> Handle for Consumer<K> {
    fn position(&self) -> u64 {
        Consumer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        Consumer::len(self)
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        Consumer::is_disconnected(self)
    }

    fn wait_for_peer(&mut self, timeout: Duration) -> Result<(), Error> {
        self.wait_for_producer(timeout)
    }

    fn heartbeat(&self) {
        Consumer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self, _number: u64) -> Result<Readiness, Error> {
        Consumer::arm(self)
    }

    fn abort(self: Box<Self>) {
        Consumer::abort(*self);
    }
}

impl<K: Slots> Writer for Producer<K> {
    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(Producer::<K>::push(self, K::Value::numbered(number))?)
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        let value = K::Value::numbered(number);
        Ok(Producer::<K>::push_timeout(self, value, timeout)?)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        Producer::<K>::try_push(self, K::Value::numbered(number)).map_err(|failed| {
            let back = checked(failed.into_value().check());
            assert_eq!(back, number, "the value comes back");
            failed.error()
        })
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut slots = self.reserve(1)?;
        slots.write(0, K::Value::numbered(number));
        slots.commit(1);
        Ok(())
    }

    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error> {
        let values = numbers.map(K::Value::numbered).collect::<Vec<_>>();
        Ok(self.push_slice(&values)?)
    }

    fn iterate(&mut self, numbers: Range<u64>, between: &mut dyn FnMut()) -> Result<usize, Error> {
        self.try_push_iter(numbers.map(|number| {
            between();
            K::Value::numbered(number)
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
            slots.write(i, K::Value::numbered(*number));
        }
        slots.commit(decide(&numbers));
        Ok(())
    }

    fn next(&self) -> u64 {
        Producer::position(self)
    }
}

impl<K: Slots> Reader for Consumer<K> {
    fn pop_any(&mut self, timeout: Duration) -> Result<Result<u64, String>, Error> {
        Ok(Consumer::<K>::pop_timeout(self, timeout)?.check())
    }

    fn try_pop(&mut self) -> Result<u64, Error> {
        Ok(checked(Consumer::<K>::try_pop(self)?.check()))
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let messages = self.read_batch(max)?;
        let numbers = messages.iter().map(|message| checked(message.check()));
        seen(&numbers.collect::<Vec<_>>());
        Ok(())
    }
}

impl Writer for Producer<Bytes> {
    fn push(&mut self, number: u64) -> Result<(), Error> {
        Producer::<Bytes>::push(self, &record(number))
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        Producer::<Bytes>::push_timeout(self, &record(number), timeout)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        Producer::<Bytes>::try_push(self, &record(number))
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut record = self.reserve(message::LARGEST)?;
        let length = message::length(number);
        message::write(number, &mut record[..length]);
        record.commit(length);
        Ok(())
    }

    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error> {
        let records = numbers.map(record).collect::<Vec<_>>();
        self.push_iter(records.iter().map(Vec::as_slice))?;
        Ok(())
    }

    fn iterate(&mut self, numbers: Range<u64>, between: &mut dyn FnMut()) -> Result<usize, Error> {
        let records = numbers.map(record).collect::<Vec<_>>();
        let records = records.iter().map(Vec::as_slice).inspect(|_| between());
        self.try_push_iter(&mut records.peekable())
    }

    /// Reserves one record, whatever `count` says.
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
        let at = Producer::position(self);
        message::record_at(at).unwrap_or_else(|| panic!("torn: a record ends at {at}"))
    }
}

impl Reader for Consumer<Bytes> {
    fn pop_any(&mut self, timeout: Duration) -> Result<Result<u64, String>, Error> {
        let mut record = [0; message::LARGEST];
        let length = Consumer::<Bytes>::pop_timeout(self, &mut record, timeout)?;
        Ok(message::check(&record[..length]))
    }

    fn try_pop(&mut self) -> Result<u64, Error> {
        let mut record = [0; message::LARGEST];
        let length = Consumer::<Bytes>::try_pop(self, &mut record)?;
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
}

//! Compares `broadcast` with a plain list of all sent messages. The calls come in any order, at
//! every edge of the positions. Each consumer gets the messages from its place on, and learns
//! exactly how many it lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use slipring::broadcast::{
    Builder, Channel, Consumer, Mode, Overwriting, Producer, Reservation, Seek, Waiting,
};
use slipring::inspect::WhenFull;
use slipring::{Error, PushError, SetupError};

use memory::Memory;

/// The last position at which a handle starts (FORMAT.md).
const LAST: u64 = u64::MAX - (1 << 48);
const READERS: usize = 3;

/// The size is odd, so that the last word of a slot is not whole.
type Message = [u8; 13];

fn message(number: u64) -> Message {
    let mut bytes = [0; 13];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[3..]);
    bytes
}

fn starts() -> impl Strategy<Value = u64> {
    let edges = [1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 63];
    prop_oneof![
        Just(0),
        (prop::sample::select(edges.to_vec()), 1..6u64).prop_map(|(edge, before)| edge - before),
        0..LAST - 10_000,
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Push,
    PushSlice(usize),
    PushIter(usize),
    /// Reserve this many, write and commit this many of those.
    Reserve(usize, usize),
    /// The producer leaves, and another one comes.
    Succeed,
    Pop(usize),
    PopSlice(usize, usize),
    /// Read one in place, and release or keep it.
    Read(usize, bool),
    /// Read at most this many in place, release this many of those.
    Batch(usize, usize, usize),
    Seek(usize, Where),
    Stride(usize, u64, u64),
    Leave(usize),
    Join(usize, Where),
}

/// A place, before the numbers are known.
#[derive(Clone, Copy, Debug)]
enum Where {
    Oldest,
    Newest,
    Back(u64),
    Ahead,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let most = 12_usize;
    let place = || {
        prop_oneof![
            Just(Where::Oldest),
            Just(Where::Newest),
            (0..24u64).prop_map(Where::Back),
            Just(Where::Ahead),
        ]
    };
    let reader = || 0..READERS;
    let op = prop_oneof![
        6 => Just(Op::Push),
        2 => (0..most).prop_map(Op::PushSlice),
        2 => (0..most).prop_map(Op::PushIter),
        3 => (0..most, 0..most).prop_map(|(n, m)| Op::Reserve(n, m)),
        1 => Just(Op::Succeed),
        6 => reader().prop_map(Op::Pop),
        3 => (reader(), 0..most).prop_map(|(r, n)| Op::PopSlice(r, n)),
        2 => (reader(), any::<bool>()).prop_map(|(r, release)| Op::Read(r, release)),
        3 => (reader(), 0..most, 0..most).prop_map(|(r, n, m)| Op::Batch(r, n, m)),
        1 => (reader(), place()).prop_map(|(r, w)| Op::Seek(r, w)),
        1 => (reader(), 0..4u64, 0..4u64).prop_map(|(r, i, n)| Op::Stride(r, i, n)),
        1 => reader().prop_map(Op::Leave),
        2 => (reader(), place()).prop_map(|(r, w)| Op::Join(r, w)),
    ];
    prop::collection::vec(op, 1..200)
}

struct Reader<M: Mode> {
    rx: Consumer<Message, M>,
    next: u64,
    index: u64,
    of: u64,
}

impl<M: Mode> Reader<M> {
    /// Returns its first message from `at` on.
    fn own(&self, at: u64) -> u64 {
        (at..)
            .find(|number| number % self.of == self.index)
            .unwrap()
    }
}

/// A mode, with the calls that only one of the two has.
trait InPlace: Mode + Sized {
    fn read(model: &Model<Self>, reader: &mut Reader<Self>, release: bool);
    fn batch(model: &Model<Self>, reader: &mut Reader<Self>, count: usize, of_those: usize);
    fn in_slots(slots: &mut Reservation<'_, Message, Self>);
}

impl InPlace for Waiting {
    fn read(model: &Model<Self>, reader: &mut Reader<Self>, release: bool) {
        let read = reader.rx.try_read().map(|found| {
            let got = *found;
            if release {
                found.release();
            } else {
                found.keep();
            }
            got
        });
        match read {
            Ok(got) if release => model.got(reader, [got]),
            Ok(got) => assert_eq!(got, message(reader.next)),
            Err(error) => model.refused(reader, &error),
        }
    }

    fn batch(model: &Model<Self>, reader: &mut Reader<Self>, count: usize, of_those: usize) {
        let (most, in_a_row) = (model.there(reader).min(count), reader.of == 1);
        let read = reader.rx.try_read_batch(count).map(|messages| {
            let mut got: Vec<Message> = messages.iter().copied().collect();
            assert_eq!(got.len(), messages.len());
            assert!(got.len() <= most);
            assert_eq!(messages.as_slices().is_some(), in_a_row);
            got.truncate(of_those);
            messages.release(got.len());
            got
        });
        match read {
            Ok(got) if got.is_empty() => {}
            Ok(got) => model.got(reader, got),
            Err(error) => model.refused(reader, &error),
        }
    }

    fn in_slots(slots: &mut Reservation<'_, Message>) {
        let len = slots.len();
        let (front, back) = slots.as_mut_slices();
        assert_eq!(front.len() + back.len(), len);
    }
}

impl InPlace for Overwriting {
    fn read(_: &Model<Self>, _: &mut Reader<Self>, _: bool) {}
    fn batch(_: &Model<Self>, _: &mut Reader<Self>, _: usize, _: usize) {}
    fn in_slots(_: &mut Reservation<'_, Message, Self>) {}
}

struct Model<M: Mode> {
    capacity: u64,
    channel: Channel<Message, M>,
    builder: Builder<Message, M>,
    memory: Memory,
    tx: Option<Producer<Message, M>>,
    readers: [Option<Reader<M>>; READERS],
    /// The number of the next message.
    newest: u64,
    /// The write limit, where messages are overwritten: up to here this producer, or any earlier
    /// one, may write slots.
    write_limit: u64,
    lease: u64,
}

impl<M: InPlace> Model<M> {
    fn new(builder: Builder<Message, M>, start: u64) -> Model<M> {
        let builder = builder.consumers(READERS);
        let memory = Memory::of(&builder);
        let channel = memory.format(&builder).unwrap();
        let capacity = channel.geometry().capacity;
        let words = channel.geometry().role_offset(0);
        // Sets the tail and the write limit.
        for word in [words, words + 256] {
            memory.control(word).store(start, Ordering::Relaxed);
        }
        let mut tx = channel.producer().unwrap();
        // Without these there would be numbers without messages before the first.
        for number in start..start + capacity {
            tx.try_push(message(number)).unwrap();
        }
        let mut model = Model {
            capacity,
            channel,
            builder,
            memory,
            tx: Some(tx),
            readers: Default::default(),
            newest: start,
            write_limit: start,
            lease: start,
        };
        for _ in 0..capacity {
            model.gives_up(1);
            model.newest += 1;
        }
        model
    }

    fn overwrites(&self) -> bool {
        M::WHEN_FULL == WhenFull::Overwrite
    }

    /// Returns how many more messages may be sent.
    fn room(&self) -> u64 {
        let gating_set = self.readers.iter().flatten();
        let slowest = gating_set.map(|reader| reader.next.min(self.newest)).min();
        match slowest {
            Some(slowest) if !self.overwrites() => slowest + self.capacity - self.newest,
            _ => self.capacity,
        }
    }

    /// Returns the number of messages in a block: those that are given up at a time (FORMAT.md).
    fn block(&self) -> u64 {
        let eighth = (self.capacity / 8).clamp(16, 256);
        eighth.min(self.capacity / 2).max(1)
    }

    /// Makes room for `wanted` at the next number, a block at a time, where messages are
    /// overwritten.
    fn gives_up(&mut self, wanted: u64) {
        let block = self.block();
        if self.newest + wanted > self.lease {
            self.lease = self.newest + wanted.max(block);
            self.write_limit = self.write_limit.max(self.lease);
        }
    }

    /// Does the same for values whose number is not known beforehand.
    fn gives_up_one_by_one(&mut self, count: u64) {
        let block = self.block();
        for number in 0..count {
            if self.newest + number >= self.lease {
                self.gives_up((number + block).min(self.capacity));
            }
        }
    }

    /// Returns the oldest message that is not given up.
    fn oldest(&self) -> u64 {
        let write_limit = if self.overwrites() {
            self.write_limit
        } else {
            0
        };
        write_limit.max(self.newest).saturating_sub(self.capacity)
    }

    /// Returns the number of lost messages that a reader's next call reports, if any.
    fn lost(&self, reader: &Reader<M>) -> Option<u64> {
        if !self.overwrites() || self.oldest() <= reader.next {
            return None;
        }
        let to = (self.oldest() + self.capacity / 8).min(self.newest);
        Some((to - reader.next).div_ceil(reader.of))
    }

    fn seek(&self, place: Where) -> (Seek, u64) {
        match place {
            Where::Oldest => (Seek::Oldest, self.oldest()),
            Where::Newest => (Seek::Newest, self.newest),
            Where::Back(by) => {
                let to = self.newest.saturating_sub(by);
                (Seek::To(to), to)
            }
            Where::Ahead => (Seek::To(self.newest + 1), self.newest + 1),
        }
    }

    /// Checks that a reader is in an allowed place; from then on the model knows the place.
    fn stands(&mut self, mut reader: Reader<M>, asked: u64) -> Reader<M> {
        let at = reader.rx.position();
        if self.overwrites() {
            assert_eq!(at, reader.own(asked));
        } else {
            // The place is not before the wanted one, nor where messages may be gone. It is not
            // behind all that consumers have had.
            let oldest = self.oldest();
            let gating_set = self.readers.iter().flatten().map(|other| other.next);
            let gone = gating_set.min().unwrap_or(self.newest).min(self.newest);
            assert!(
                at >= reader.own(asked.max(oldest)),
                "{at}, {asked}, {oldest}"
            );
            assert!(
                at <= reader.own(asked.max(gone.max(reader.next))),
                "{at}, {asked}, {gone}"
            );
        }
        reader.next = at;
        reader
    }

    fn send(&mut self, op: &Op) {
        let mut tx = self.tx.take().unwrap();
        let (room, newest) = (self.room(), self.newest);
        let mut fresh = (newest..).map(message);
        match *op {
            Op::Push => match tx.try_push(message(newest)) {
                Ok(()) => {
                    assert!(room > 0);
                    self.gives_up(1);
                    self.newest += 1;
                }
                Err(failed) => {
                    assert_eq!((room, failed), (0, PushError::Full(message(newest))));
                }
            },
            Op::PushSlice(count) | Op::PushIter(count) => {
                let values: Vec<Message> = fresh.by_ref().take(count).collect();
                let done = match op {
                    Op::PushSlice(_) => tx.try_push_slice(&values),
                    _ => tx.try_push_iter(values.iter().copied()),
                };
                match done {
                    Ok(done) => {
                        assert_eq!(done as u64, room.min(count as u64));
                        if let Op::PushSlice(_) = op {
                            self.gives_up(done as u64);
                        } else {
                            self.gives_up_one_by_one(done as u64);
                        }
                        self.newest += done as u64;
                    }
                    Err(error) => assert!(room == 0 && matches!(error, Error::Full)),
                }
            }
            Op::Reserve(count, of_those) => match tx.try_reserve(count) {
                Ok(mut slots) => {
                    assert!(count as u64 <= room);
                    let commit = of_those.min(count);
                    for index in 0..commit {
                        slots.write(index, fresh.next().unwrap());
                    }
                    M::in_slots(&mut slots);
                    slots.commit(commit);
                    self.gives_up(count as u64);
                    self.newest += commit as u64;
                }
                Err(Error::Full) => assert!(count as u64 > room),
                Err(Error::TooLarge { max, .. }) => assert!(count as u64 > max),
                Err(error) => panic!("{error}"),
            },
            _ => {
                drop(tx);
                tx = self.channel.producer().unwrap();
                self.lease = newest;
            }
        }
        assert_eq!(tx.position(), self.newest);
        self.tx = Some(tx);
    }

    /// Checks the error that a reader got instead of messages.
    fn refused(&self, reader: &mut Reader<M>, error: &Error) {
        match error {
            Error::Lagged(lost) => {
                assert_eq!(Some(*lost), self.lost(reader));
                reader.next += lost * reader.of;
            }
            Error::Empty | Error::Disconnected(_) => {
                assert_eq!(self.lost(reader), None);
                assert!(
                    reader.next >= self.newest,
                    "{} of {}",
                    reader.next,
                    self.newest
                );
            }
            error => panic!("{error}"),
        }
    }

    /// Checks that a reader got its next messages.
    fn got(&self, reader: &mut Reader<M>, messages: impl IntoIterator<Item = Message>) {
        assert_eq!(self.lost(reader), None);
        for got in messages {
            assert_eq!(got, message(reader.next));
            reader.next += reader.of;
        }
    }

    /// Returns the number of messages that a reader can get.
    fn there(&self, reader: &Reader<M>) -> usize {
        self.newest.saturating_sub(reader.next).div_ceil(reader.of) as usize
    }

    fn receive(&mut self, mut reader: Reader<M>, op: &Op) -> Reader<M> {
        match *op {
            Op::Pop(_) => match reader.rx.try_pop() {
                Ok(got) => self.got(&mut reader, [got]),
                Err(error) => self.refused(&mut reader, &error),
            },
            Op::PopSlice(_, count) => {
                let mut out = vec![[0; 13]; count];
                match reader.rx.try_pop_slice(&mut out) {
                    Ok(taken) => {
                        assert!(taken <= count && (taken > 0) == (count > 0));
                        if count > 0 {
                            self.got(&mut reader, out[..taken].iter().copied());
                        }
                    }
                    Err(error) => self.refused(&mut reader, &error),
                }
            }
            Op::Read(_, release) => M::read(self, &mut reader, release),
            Op::Batch(_, count, of_those) => M::batch(self, &mut reader, count, of_those),
            Op::Seek(_, place) => {
                let (seek, asked) = self.seek(place);
                match reader.rx.seek(seek) {
                    Ok(at) => {
                        assert_eq!(at, reader.rx.position());
                        return self.stands(reader, asked);
                    }
                    Err(Error::Ahead { asked, newest }) => {
                        assert_eq!((asked, newest), (self.newest + 1, self.newest));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Stride(_, index, of) => match reader.rx.stride(index, of) {
                Ok(()) => {
                    (reader.index, reader.of) = (index, of);
                    reader.next = reader.own(reader.next);
                }
                Err(Error::Stride { .. }) => assert!(index >= of),
                Err(error) => panic!("{error}"),
            },
            _ => unreachable!("not a reader's"),
        }
        assert_eq!(reader.rx.position(), reader.next);
        assert_eq!(reader.rx.len().unwrap(), self.there(&reader));
        reader
    }

    fn join(&mut self, place: Where) -> Option<Reader<M>> {
        let (seek, asked) = self.seek(place);
        let joining = self.builder.clone().join(seek);
        match self.memory.attach(&joining).unwrap().consumer() {
            Ok(rx) => {
                let reader = Reader {
                    rx,
                    next: 0,
                    index: 0,
                    of: 1,
                };
                Some(self.stands(reader, asked))
            }
            Err(SetupError::Message(Error::Ahead { asked, newest })) => {
                assert_eq!((asked, newest), (self.newest + 1, self.newest));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn run(mut self, ops: &[Op]) {
        for op in ops {
            match *op {
                Op::Push | Op::PushSlice(_) | Op::PushIter(_) | Op::Reserve(..) | Op::Succeed => {
                    self.send(op);
                }
                Op::Pop(reader)
                | Op::PopSlice(reader, _)
                | Op::Read(reader, _)
                | Op::Batch(reader, ..)
                | Op::Seek(reader, _)
                | Op::Stride(reader, ..) => {
                    if let Some(taken) = self.readers[reader].take() {
                        self.readers[reader] = Some(self.receive(taken, op));
                    }
                }
                Op::Leave(reader) => self.readers[reader] = None,
                Op::Join(reader, place) => {
                    if self.readers[reader].is_none() {
                        self.readers[reader] = self.join(place);
                    } else if self.readers.iter().all(Option::is_some) {
                        assert!(matches!(
                            self.channel.consumer(),
                            Err(SetupError::RoleTaken {
                                role: "consumer",
                                seats: 3,
                                ..
                            })
                        ));
                    }
                }
            }
        }
        drop(self.tx.take());
        self.readers = Default::default();
        self.memory.assert_fences_stand();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A producer that waits for the slowest reader loses no message, whatever the operations.
    #[test]
    fn a_waiting_producer_loses_nothing(bits in 0..4u32, start in starts(), ops in ops()) {
        Model::new(Builder::new(1 << bits), start).run(&ops);
    }

    /// When a producer overwrites, each reader is told exactly how many messages it lost.
    #[test]
    fn an_overwriting_producer_counts_losses(bits in 0..8u32, start in starts(), ops in ops()) {
        Model::new(Builder::new(1 << bits).overwriting(), start).run(&ops);
    }
}

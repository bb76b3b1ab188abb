//! Compares `spsc` and `bytes` with a `VecDeque`. The calls come in any order, at every edge of the
//! positions. Both ends agree with the plain queue on each message, on `len` and on `Full`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use slipring::{End, Error, Payload, PushError, SetupError, bytes, spsc};

use memory::Memory;

/// The last position at which a handle starts (FORMAT.md); one that started there goes on.
const LAST: u64 = u64::MAX - (1 << 48);

/// Returns the start positions: zero, and just before each edge that a narrower counter would have.
fn starts() -> impl Strategy<Value = u64> {
    let edges = [1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 63, LAST + 1];
    prop_oneof![
        Just(0),
        (prop::sample::select(edges.to_vec()), 1..6u64).prop_map(|(edge, before)| edge - before),
        0..=LAST,
    ]
}

/// Returns `true` if a call found nothing: `Empty`, or, on a new consumer, that the last producer
/// finished.
fn nothing<T: Debug>(found: Result<T, Error>) -> bool {
    match found {
        Err(Error::Empty | Error::Disconnected(End::Finished)) => true,
        other => panic!("the queue is empty, the ring says {other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push,
    PushSlice(usize),
    PushIter(usize),
    /// Reserve this many, write them in place (as slices or not), commit this many of those.
    Reserve(usize, usize, bool),
    Pop,
    PopSlice(usize),
    /// Read one in place, and release or keep it.
    Read(bool),
    /// Read at most this many in place, release this many of those.
    Batch(usize, usize),
    /// Ask how much can be reserved.
    Probe,
    /// The producer, or the consumer, leaves and another one comes.
    Rejoin(bool),
}

fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Push),
        2 => (0..most).prop_map(Op::PushSlice),
        2 => (0..most).prop_map(Op::PushIter),
        4 => (0..most, 0..most, any::<bool>()).prop_map(|(n, m, s)| Op::Reserve(n, m, s)),
        4 => Just(Op::Pop),
        2 => (0..most).prop_map(Op::PopSlice),
        2 => any::<bool>().prop_map(Op::Read),
        4 => (0..most, 0..most).prop_map(|(n, m)| Op::Batch(n, m)),
        1 => Just(Op::Probe),
        1 => any::<bool>().prop_map(Op::Rejoin),
    ];
    prop::collection::vec(op, 1..200)
}

/// Runs `ops` on a ring and on a queue. `message` makes the n-th message.
fn compare<T>(capacity: usize, start: u64, ops: Vec<Op>, message: fn(u64) -> T)
where
    T: Payload + PartialEq + Debug,
{
    let builder = spsc::Builder::<T>::new(capacity);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    memory.start_at(&channel.geometry(), start);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut queue = VecDeque::new();
    let (mut pushed, mut popped) = (start, start);
    for op in ops {
        let room = capacity - queue.len();
        let mut fresh = (pushed..).map(message);
        match op {
            Op::Push => match tx.try_push(message(pushed)) {
                Ok(()) => {
                    assert!(room > 0);
                    queue.push_back(message(pushed));
                }
                Err(failed) => {
                    assert_eq!((room, failed), (0, PushError::Full(message(pushed))));
                }
            },
            Op::PushSlice(count) | Op::PushIter(count) => {
                let values: Vec<T> = fresh.by_ref().take(count).collect();
                let mut left = values.iter().copied();
                let done = match op {
                    Op::PushSlice(_) => tx.try_push_slice(&values),
                    _ => tx.try_push_iter(&mut left),
                };
                // The length of an iterator is not known beforehand, so a full ring is an error
                // first.
                let asked = matches!(op, Op::PushIter(_)) || count > 0;
                match done {
                    Ok(done) => assert_eq!(done, count.min(room)),
                    Err(error) => assert!(matches!(error, Error::Full) && room == 0 && asked),
                }
                if matches!(op, Op::PushIter(_)) {
                    assert_eq!(
                        left.len(),
                        count - count.min(room),
                        "took what it cannot place"
                    );
                }
                queue.extend(&values[..count.min(room)]);
            }
            Op::Reserve(count, commit, as_slices) => match tx.try_reserve(count) {
                Ok(mut slots) => {
                    assert!(count <= room && slots.len() == count);
                    let commit = commit.min(count);
                    if as_slices {
                        let (front, back) = slots.as_mut_slices();
                        assert_eq!(front.len() + back.len(), count);
                        front
                            .iter_mut()
                            .chain(back)
                            .zip(&mut fresh)
                            .for_each(|(to, from)| *to = from);
                    } else {
                        (0..count)
                            .zip(&mut fresh)
                            .for_each(|(i, from)| slots.write(i, from));
                    }
                    if commit == 0 {
                        slots.discard();
                    } else {
                        slots.commit(commit);
                    }
                    queue.extend((pushed..).map(message).take(commit));
                }
                Err(Error::Full) => assert!(count > room && count <= capacity),
                Err(Error::TooLarge { asked, max }) => {
                    assert!(count > capacity);
                    assert_eq!((asked, max), (count as u64, capacity as u64));
                }
                Err(other) => panic!("{other:?}"),
            },
            Op::Pop => match queue.pop_front() {
                Some(expected) => assert_eq!(rx.try_pop().unwrap(), expected),
                None => assert!(nothing(rx.try_pop())),
            },
            Op::PopSlice(count) => {
                let mut out = vec![message(0); count];
                match rx.try_pop_slice(&mut out) {
                    // Messages that it knows of already are a batch too: at least one, if any was
                    // asked for.
                    Ok(done) => {
                        assert!(done <= count.min(queue.len()) && (done > 0 || count == 0));
                        assert!(out[..done].iter().copied().eq(queue.drain(..done)));
                    }
                    failed => assert!(queue.is_empty() && nothing(failed)),
                }
            }
            Op::Read(release) => match (rx.try_read(), queue.front()) {
                (Ok(found), Some(expected)) => {
                    assert_eq!(*found, *expected);
                    if release {
                        found.release();
                        queue.pop_front();
                    } else {
                        found.keep();
                    }
                }
                (found, expected) => {
                    assert!(expected.is_none() && nothing(found.map(|found| *found)))
                }
            },
            Op::Batch(max, release) => match rx.try_read_batch(max) {
                Ok(messages) => {
                    assert!(
                        messages.len() <= max.min(queue.len())
                            && (!messages.is_empty() || max == 0)
                    );
                    assert!(messages.iter().eq(queue.iter().take(messages.len())));
                    let release = release.min(messages.len());
                    messages.release(release);
                    queue.drain(..release);
                }
                Err(error) => assert!(queue.is_empty() && max > 0 && nothing(Err::<(), _>(error))),
            },
            Op::Probe => {
                assert_eq!(tx.try_reserve(room).unwrap().len(), room);
                assert!(tx.try_reserve(room + 1).is_err());
            }
            Op::Rejoin(_) if popped > LAST => {} // it would be refused: see below
            Op::Rejoin(true) => {
                drop(tx);
                tx = channel.producer().unwrap();
            }
            Op::Rejoin(false) => {
                drop(rx);
                rx = channel.consumer().unwrap();
            }
        }
        pushed = tx.position();
        popped = popped.max(rx.position());
        assert_eq!(pushed - popped, queue.len() as u64);
        assert_eq!(
            (tx.len().unwrap(), rx.len().unwrap()),
            (queue.len(), queue.len())
        );
    }
    drop((tx, rx));
    memory.assert_fences_stand();
}

fn scrambled<const N: usize>(n: u64) -> [u8; N] {
    std::array::from_fn(|i| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (8 * (i % 8))) as u8)
}

fn capacities() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 2, 4, 64])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spsc_of_words_is_a_queue(capacity in capacities(), start in starts(), ops in ops(70)) {
        compare::<u64>(capacity, start, ops, |n| n);
    }

    /// An `spsc` ring of messages of odd sizes behaves as a queue, whatever the calls.
    #[test]
    fn odd_sized_spsc_is_a_queue(capacity in capacities(), start in starts(), ops in ops(6)) {
        compare::<[u8; 1]>(capacity, start, ops.clone(), scrambled);
        compare::<[u8; 3]>(capacity, start, ops.clone(), scrambled);
        compare::<[u8; 1265]>(capacity, start, ops, scrambled);
    }
}

#[derive(Clone, Debug)]
enum ByteOp {
    Push(usize),
    PushIter(Vec<usize>),
    /// Reserve this much and commit this much of it; discard without.
    Reserve(usize, Option<usize>),
    /// Read in place, and release or keep.
    Read(bool),
    /// Read a batch of at most this many, and take this many of those.
    Batch(usize, usize),
    /// Copy out, into a buffer of this many bytes.
    Pop(usize),
    Rejoin(bool),
}

fn byte_ops(most: usize) -> impl Strategy<Value = Vec<ByteOp>> {
    // Most lengths are small, and now and then one is the largest that fits, or does not fit.
    let len = prop_oneof![6 => 0..most / 4, 2 => 0..most + 12, 1 => Just(most), 1 => Just(usize::MAX / 2)];
    let fits = prop_oneof![6 => 0..most / 4, 2 => 0..most + 12, 1 => Just(most)];
    let op = prop_oneof![
        6 => fits.clone().prop_map(ByteOp::Push),
        2 => prop::collection::vec(fits.clone(), 0..6).prop_map(ByteOp::PushIter),
        4 => (len, prop::option::of(0..most)).prop_map(|(n, m)| ByteOp::Reserve(n, m)),
        4 => any::<bool>().prop_map(ByteOp::Read),
        4 => (0..6usize, 0..6usize).prop_map(|(n, m)| ByteOp::Batch(n, m)),
        4 => fits.prop_map(ByteOp::Pop),
        1 => any::<bool>().prop_map(ByteOp::Rejoin),
    ];
    prop::collection::vec(op, 1..200)
}

fn record(n: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| scrambled::<8>(n + i as u64 / 8)[i % 8])
        .collect()
}

fn compare_records(ring: usize, max: usize, start: u64, ops: Vec<ByteOp>) {
    let builder = bytes::Builder::new(ring).max_record(max);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let start = start & !7;
    memory.start_at(&channel.geometry(), start);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let max = tx.max_record();
    let size = |len: usize| bytes::record_size(len as u64) as usize;
    let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
    let (mut used, mut number, mut popped) = (0, 0, start);
    for op in ops {
        // This gives the expected outcome for one record of `len` bytes, from the queue alone.
        let fits = |len: usize, outcome: &Result<(), Error>| match outcome {
            Ok(()) => assert!(len <= max && used + size(len) <= ring),
            Err(Error::Full) => assert!(len <= max && used + size(len) > ring),
            Err(Error::TooLarge { asked, max: most }) => {
                assert!(len > max);
                assert_eq!((*asked, *most), (len as u64, max as u64));
            }
            Err(other) => panic!("{other:?}"),
        };
        number += 1;
        match op {
            ByteOp::Push(len) => {
                let outcome = tx.try_push(&record(number, len));
                fits(len, &outcome);
                queue.extend(outcome.ok().map(|()| record(number, len)));
            }
            ByteOp::PushIter(lens) => {
                let records: Vec<_> = lens.iter().map(|len| record(number, *len)).collect();
                let mut left = records.iter().map(|record| &record[..]).peekable();
                let mut then = used;
                let place = |len: &&usize| {
                    then += if **len <= max { size(**len) } else { ring + 1 };
                    then <= ring
                };
                let count = lens.iter().take_while(place).count();
                match tx.try_push_iter(&mut left) {
                    Ok(done) => assert_eq!(done, count),
                    Err(error) => {
                        assert_eq!(count, 0);
                        fits(lens[0], &Err(error));
                    }
                }
                assert_eq!(
                    left.count(),
                    lens.len() - count,
                    "took what it cannot place"
                );
                queue.extend(records.into_iter().take(count));
            }
            ByteOp::Reserve(len, commit) => match tx.try_reserve(len) {
                Ok(mut reserved) => {
                    assert_eq!(reserved.len(), len);
                    fits(len, &Ok(()));
                    reserved.fill(0xee);
                    match commit {
                        None => reserved.discard(),
                        Some(commit) => {
                            let commit = commit.min(len);
                            reserved[..commit].copy_from_slice(&record(number, commit));
                            reserved.commit(commit);
                            queue.push_back(record(number, commit));
                        }
                    }
                }
                Err(error) => fits(len, &Err(error)),
            },
            ByteOp::Read(release) => match (rx.try_read(), queue.front()) {
                (Ok(found), Some(expected)) => {
                    assert_eq!(&found[..], expected);
                    if release {
                        found.release();
                        queue.pop_front();
                    } else {
                        found.keep();
                    }
                }
                (found, expected) => {
                    assert!(expected.is_none() && nothing(found.map(|found| found.len())))
                }
            },
            ByteOp::Batch(most, take) => match rx.try_read_batch(most) {
                Ok(mut records) => {
                    let mut taken = 0;
                    while taken < take {
                        let Some(found) = records.next().unwrap() else {
                            break;
                        };
                        assert_eq!(found, &queue[taken][..]);
                        taken += 1;
                    }
                    // At least one message, if any was asked for.
                    assert!(taken <= most && (taken > 0 || most.min(take) == 0));
                    records.release();
                    queue.drain(..taken);
                }
                Err(error) => assert!(queue.is_empty() && nothing(Err::<(), _>(error))),
            },
            ByteOp::Pop(room) => {
                let mut out = vec![0; room];
                match (rx.try_pop(&mut out), queue.front()) {
                    (Ok(len), Some(expected)) => {
                        assert_eq!(&out[..len], expected);
                        queue.pop_front();
                    }
                    (Err(Error::TooLarge { asked, max }), Some(expected)) => {
                        assert_eq!((asked, max), (expected.len() as u64, room as u64));
                        assert!(expected.len() > room);
                    }
                    (found, expected) => assert!(expected.is_none() && nothing(found)),
                }
            }
            ByteOp::Rejoin(_) if popped > LAST => {} // it would be refused: see below
            ByteOp::Rejoin(true) => {
                drop(tx);
                tx = channel.producer().unwrap();
            }
            ByteOp::Rejoin(false) => {
                drop(rx);
                rx = channel.consumer().unwrap();
            }
        }
        used = queue.iter().map(|record| size(record.len())).sum();
        popped = popped.max(rx.position());
        assert_eq!(tx.position() - popped, used as u64);
        assert_eq!((tx.len().unwrap(), rx.len().unwrap()), (used, used));
    }
    drop((tx, rx));
    memory.assert_fences_stand();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_is_a_queue_of_records(start in starts(), ops in byte_ops(56)) {
        compare_records(64, 56, start, ops.clone()); // a record may fill the ring
        compare_records(64, 13, start, ops.clone());
        compare_records(256, 56, start, ops);
    }

    /// A `bytes` ring with records of many sizes behaves as a queue of records, whatever the calls.
    #[test]
    fn large_bytes_records_form_a_queue(start in starts(), ops in byte_ops(2040)) {
        compare_records(4096, 2040, start, ops.clone());
        compare_records(2048, 2040, start, ops);
    }
}

/// Fault 3 of SEEDS.md: a commit of one message on a large ring is visible at once.
#[test]
fn a_single_commit_is_visible_immediately() {
    let (mut tx, mut rx) = spsc::channel::<u64>(1 << 16).unwrap();
    for value in 0..200_000 {
        let mut slots = tx.try_reserve(1000.min(1 + value as usize % 2000)).unwrap();
        slots.write(0, value);
        slots.commit(1);
        assert_eq!(rx.len().unwrap(), 1);
        assert_eq!(rx.try_pop().unwrap(), value);
    }
}

/// Fault 4 of SEEDS.md: on an empty ring all of it can be reserved, whatever its history.
#[test]
fn empty_ring_can_be_reserved_whole() {
    let (mut tx, mut rx) = spsc::channel::<u64>(64).unwrap();
    let (mut records, mut reader) = bytes::Builder::new(1024)
        .max_record(1016)
        .channel_pair()
        .unwrap();
    for count in 0..=64 {
        for _ in 0..64 {
            assert_eq!(tx.try_push_iter(0..count).unwrap(), count as usize);
            for value in 0..count {
                assert_eq!(rx.try_pop().unwrap(), value);
                records.try_push(&[value as u8; 3]).unwrap();
                assert_eq!(&reader.try_read().unwrap()[..], [value as u8; 3]);
            }
            assert_eq!(tx.try_reserve(64).unwrap().len(), 64);
            assert_eq!(records.try_reserve(1016).unwrap().len(), 1016);
        }
    }
}

/// No handle starts where it could not go on for long; this is the highest position at which it may
/// start.
#[test]
fn positions_beyond_the_last_are_refused() {
    let builder = spsc::Builder::<u64>::new(4);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    for start in [LAST + 1, LAST + 4, u64::MAX - 4, u64::MAX] {
        memory.start_at(&channel.geometry(), start);
        for failed in [channel.producer().map(drop), channel.consumer().map(drop)] {
            match failed {
                Err(SetupError::Corrupt(corrupt)) => {
                    assert_eq!((corrupt.word, corrupt.found), ("head", start))
                }
                other => panic!("{other:?}"),
            }
        }
    }
    memory.start_at(&channel.geometry(), LAST);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    for value in 0..100 {
        tx.try_push(value).unwrap();
        assert_eq!(rx.try_pop().unwrap(), value);
    }
    assert_eq!(rx.position(), LAST + 100);
}

/// Fault 2 of SEEDS.md: two threads pass eight-byte messages and check each value. A slot copied
/// before the tail was loaded shows within milliseconds, as a value of the lap before.
#[test]
fn two_threads_see_no_stale_value() {
    for capacity in [1, 2, 64, 1024] {
        let (mut tx, mut rx) = spsc::channel::<u64>(capacity).unwrap();
        let value = move |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ capacity as u64;
        let producer = std::thread::spawn(move || {
            // The time bounds their number, not the expectation of them.
            let until = Instant::now() + Duration::from_millis(500);
            let mut sent = 0;
            while sent < 10_000_000 && (sent % 4096 != 0 || Instant::now() < until) {
                tx.push(value(sent)).unwrap();
                sent += 1;
            }
            sent
        });
        let mut seen = 0;
        let end = loop {
            match rx.pop() {
                Ok(found) => {
                    assert_eq!(found, value(seen), "message {seen} of capacity {capacity}")
                }
                Err(end) => break end,
            }
            seen += 1;
        };
        assert!(matches!(end, Error::Disconnected(End::Finished)));
        assert_eq!(producer.join().unwrap(), seen);
    }
}

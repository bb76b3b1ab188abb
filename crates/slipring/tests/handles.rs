//! Checks the promises of handles within one process: reported ends, returned values, and no lost
//! messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use slipring::{BatchError, Borrowed, End, Error, PushError, SetupError, broadcast, bytes, spsc};

const SHORT: Duration = Duration::from_millis(20);

/// Returns the error of a batch that found room for `done` messages, and no consumer that would
/// make more.
fn finished_after(done: usize) -> BatchError {
    let error = Error::Disconnected(End::Finished);
    BatchError { done, error }
}

/// A `push_iter` that just fills the ring returns, and does not wait for more room.
#[test]
fn push_iter_may_fill_the_ring() {
    let (mut tx, mut rx) = spsc::channel::<u64>(4).unwrap();
    assert_eq!(tx.push_iter([1, 2, 3, 4]).unwrap(), 4);
    assert_eq!(tx.push_iter([]).unwrap(), 0);
    let mut out = [0; 8];
    assert_eq!(rx.pop_slice(&mut out).unwrap(), 4);
    assert_eq!(out[..4], [1, 2, 3, 4]);
}

/// A `push_iter` that finds its consumer gone says how many messages it has appended.
#[test]
fn push_iter_to_nobody_counts_messages() {
    let (mut tx, rx) = spsc::channel::<u64>(4).unwrap();
    drop(rx);
    assert_eq!(tx.push_iter(0..10), Err(finished_after(4)));
}

/// A `push_iter` that fails takes nothing more from its iterator. The ring is full and its consumer
/// gone. Items that were not appended still belong to the iterator, whether or not it knows its own
/// length.
#[test]
fn failed_push_iter_takes_no_more() {
    let (mut tx, rx) = spsc::channel::<u64>(4).unwrap();
    drop(rx);
    let mut values = 0..10;
    assert_eq!(tx.push_iter(values.by_ref()), Err(finished_after(4)));
    assert_eq!(values.next(), Some(4));
    let mut odd = (0..10).filter(|value| value % 2 == 1);
    assert_eq!(tx.push_iter(odd.by_ref()), Err(finished_after(0)));
    assert_eq!(odd.next(), Some(1));
}

/// `push_iter` of broadcast waits for room before it takes an item from the iterator. The channel
/// is a lossless `broadcast`, whose producer waits for its slowest consumer.
#[test]
fn push_iter_waits_before_taking() {
    let channel = broadcast::Builder::<u64>::new(2).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let mut rx = channel.consumer().unwrap();
    let (started, full) = std::sync::mpsc::channel();
    let left = std::thread::spawn(move || {
        let mut taken = 0;
        let mut values = (0..3_u64).inspect(|_| {
            taken += 1;
            started.send(taken).unwrap();
        });
        tx.push_iter(values.by_ref()).unwrap()
    });
    // The producer takes the third item only once there is room for it, and there is none before
    // the first is read.
    assert_eq!((full.recv().unwrap(), full.recv().unwrap()), (1, 2));
    let waits = || channel.stat().unwrap().seats[0].waits;
    while waits() == 0 {
        std::thread::yield_now();
    }
    let early = full.try_recv();
    assert!(early.is_err(), "{early:?}");
    assert_eq!(rx.pop().unwrap(), 0);
    assert_eq!(full.recv().unwrap(), 3);
    assert_eq!(left.join().unwrap(), 3);
}

/// An iterator stays at its end (`FusedIterator`), and its size hint never shows that it is there.
#[test]
fn push_iter_ends_with_silent_iterators() {
    let (done, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let words = || "1 2 3".split_whitespace();
        let numbers = || words().map(|word| word.parse::<u64>().unwrap());
        let (mut tx, mut rx) = spsc::channel(4).unwrap();
        let pushed = tx.push_iter(numbers()).unwrap();
        assert!(rx.try_read_batch(4).unwrap().iter().copied().eq(1..=3));
        let channel = broadcast::Builder::new(4).heap().unwrap();
        let mut tx = channel.producer().unwrap();
        let mut rx = channel.consumer().unwrap();
        let broadcast = tx.push_iter(numbers()).unwrap();
        assert!(rx.try_read_batch(4).unwrap().iter().copied().eq(1..=3));
        done.send([pushed, broadcast]).unwrap();
    });
    // An endless loop would hold the test up for good.
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok([3, 3]));
}

/// `push_iter` does not ask an iterator again after its end, even if it would go on.
#[test]
fn push_iter_stops_at_first_end() {
    let (mut tx, mut rx) = spsc::channel::<u64>(8).unwrap();
    let mut calls = 0;
    let values = std::iter::from_fn(|| {
        calls += 1;
        (calls % 3 != 0).then_some(calls)
    });
    assert_eq!(tx.push_iter(values).unwrap(), 2);
    assert!(rx.try_read_batch(8).unwrap().iter().copied().eq(1..=2));
    assert_eq!(calls, 3);
}

#[test]
fn nothing_wanted_is_not_waited_for() {
    let (_tx, mut rx) = spsc::channel::<u64>(4).unwrap();
    assert_eq!(rx.pop_slice(&mut []).unwrap(), 0);
    assert!(rx.read_batch(0).unwrap().is_empty());
    let read = rx.read_batch_timeout(0, Duration::MAX);
    assert!(read.unwrap().is_empty());
}

/// `try_push_iter` leaves in the iterator the items that find no place in the ring.
#[test]
fn try_push_iter_leaves_the_rest() {
    let (mut tx, mut rx) = spsc::channel::<u64>(4).unwrap();
    let mut values = 0..10;
    assert_eq!(tx.try_push_iter(&mut values).unwrap(), 4);
    assert_eq!(values.next(), Some(4));
    assert_eq!(rx.try_pop().unwrap(), 0);
}

/// A push that finds no room, at once or in time, gives its value back in the error.
#[test]
fn a_failed_push_returns_the_value() {
    let (mut tx, _rx) = spsc::channel::<u64>(1).unwrap();
    tx.push(1).unwrap();
    assert_eq!(tx.try_push(2), Err(PushError::Full(2)));
    assert_eq!(tx.push_timeout(3, SHORT), Err(PushError::TimedOut(3)));
}

/// The finished end of a producer is reported before the end of its successor.
#[test]
fn a_finished_end_is_reported_first() {
    let channel = bytes::Builder::new(4096).memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    tx.push(b"last words").unwrap();
    drop(tx);
    channel.producer().unwrap().abort();

    let mut rx = channel.consumer().unwrap();
    assert_eq!(&rx.read().unwrap()[..], b"last words");
    assert!(matches!(
        rx.try_read().err(),
        Some(Error::Disconnected(End::Finished))
    ));
    assert!(matches!(
        rx.try_read().err(),
        Some(Error::Disconnected(End::Aborted))
    ));
    drop(rx);

    // Both ends were acknowledged. The next consumer does not hear of them, and waits for the next
    // producer.
    let mut rx = channel.consumer().unwrap();
    assert!(matches!(rx.try_read().err(), Some(Error::Empty)));
    let mut tx = channel.producer().unwrap();
    tx.push(b"hello").unwrap();
    assert_eq!(&rx.read().unwrap()[..], b"hello");
}

/// An end that no consumer has been told of is still reported to the next consumer.
#[test]
fn an_unreported_end_is_reported_later() {
    let channel = bytes::Builder::new(4096).memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    let mut rx = channel.consumer().unwrap();
    tx.push(b"a").unwrap();
    drop(tx);
    assert_eq!(&rx.read().unwrap()[..], b"a");
    drop(rx);
    let mut rx = channel.consumer().unwrap();
    assert!(matches!(
        rx.read().err(),
        Some(Error::Disconnected(End::Finished))
    ));
}

/// A producer that could not be made counts as aborted, not finished, and leaves its role free.
#[test]
fn a_failed_producer_finishes_no_stream() {
    const LINES: usize = 12288;
    #[repr(align(4096))]
    struct Memory([u8; LINES], [u8; 4096]);
    let mut memory = Box::new(Memory([0; LINES], [0; 4096]));
    let borrowed = Borrowed {
        control: std::ptr::NonNull::from(&mut memory.0[..]),
        data: std::ptr::NonNull::from(&mut memory.1[..]),
    };
    // SAFETY: dropped after the channel, aligned to 4096, and used by it alone.
    let channel = unsafe { spsc::Builder::<u64>::new(64).format_in(borrowed) }.unwrap();
    let mut rx = channel.consumer().unwrap();
    let position = channel.geometry().role_offset(0);
    // SAFETY: the producer's position, in the control part.
    let tail = unsafe { borrowed.control.cast::<u8>().add(position) };
    // SAFETY: an aligned word of that memory, accessed as an atomic by everybody.
    let tail = unsafe { std::sync::atomic::AtomicU64::from_ptr(tail.cast().as_ptr()) };
    tail.store(1 << 40, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(channel.producer(), Err(SetupError::Corrupt(_))));
    tail.store(0, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(
        rx.pop_timeout(SHORT),
        Err(Error::Disconnected(End::Aborted))
    ));
    // And the seat is free again.
    let mut tx = channel.producer().unwrap();
    tx.push(7).unwrap();
    assert_eq!(rx.pop().unwrap(), 7);
}

/// Passing one memory for both the control and the data part is refused.
#[test]
fn both_parts_need_separate_memory() {
    let channel = spsc::Builder::<u64>::new(4096).memfd().unwrap();
    let passed = channel.descriptors();
    let own = |part: usize| passed[part].try_clone_to_owned().unwrap();
    let error = spsc::Builder::<u64>::new(4096)
        .from_fds(vec![own(0), own(0), own(2), own(3)])
        .err()
        .unwrap();
    assert!(
        matches!(error, SetupError::BadDescriptor { part: "data", .. }),
        "{error}"
    );
}

/// Borrowed memory must be aligned for the payload, or it is refused.
#[test]
fn borrowed_memory_must_be_aligned() {
    #[derive(slipring::Payload, Clone, Copy)]
    #[repr(C, align(512))]
    struct Wide([u8; 512]);
    let mut control = vec![0u8; 12288 + 128];
    let mut data = vec![0u8; 4096 + 512];
    let skip = |memory: &[u8], align: usize| memory.as_ptr().addr().wrapping_neg() % align;
    let (at, off) = (skip(&control, 128), skip(&data, 512) + 64);
    let borrowed = Borrowed {
        control: std::ptr::NonNull::from(&mut control[at..at + 12288]),
        data: std::ptr::NonNull::from(&mut data[off % 512..][..4096]),
    };
    // SAFETY: dropped after all that is made in it, and used for that alone; alignment is refused.
    let made = unsafe { spsc::Builder::<Wide>::new(4).format_in(borrowed) };
    assert!(matches!(
        made.err(),
        Some(SetupError::Misaligned {
            part: "data",
            expected: 512
        })
    ));
}

/// Clones of builders keep the metadata, and clones of channels share the metadata and the roles.
#[test]
fn clones_share_what_they_hold() {
    let builder = spsc::Builder::<u64>::new(8).metadata(b"mine");
    let channel = builder.clone().heap().unwrap();
    let other = channel.clone();
    assert_eq!(&other.metadata()[..4], b"mine");
    let _tx = channel.producer().unwrap();
    assert!(matches!(
        other.producer().err(),
        Some(SetupError::RoleTaken {
            role: "producer",
            ..
        })
    ));
}

/// A batch read in place is iterated by reference, across the end of the ring, and says its length.
#[test]
fn a_batch_iterates_by_reference() {
    let (mut tx, mut rx) = spsc::channel::<u64>(4).unwrap();
    tx.push_slice(&[0, 1, 2]).unwrap();
    rx.try_read_batch(3).unwrap().release(3);
    tx.push_slice(&[3, 4, 5, 6]).unwrap();
    let batch = rx.try_read_batch(9).unwrap();
    let mut seen = Vec::new();
    for message in &batch {
        seen.push(*message);
    }
    assert_eq!(seen, [3, 4, 5, 6]);
    let mut iter = batch.iter();
    assert_eq!((iter.len(), iter.next(), iter.len()), (4, Some(&3), 3));
    assert_eq!((iter.by_ref().count(), iter.next()), (3, None));
}

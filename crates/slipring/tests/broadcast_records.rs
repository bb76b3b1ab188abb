//! Tests what `broadcast` of records promises, between threads of one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use slipring::broadcast::records::{Builder, Consumer, Producer, Seek, channel};
use slipring::bytes::record_size;
use slipring::{End, Error, SetupError, Wait};

/// The largest record of these tests, in bytes.
const LARGEST: usize = 200;

/// Returns the record that begins at this position: it holds the position, and then as many bytes as
/// follow from that.
fn record_at(position: u64) -> Vec<u8> {
    let rest = (position / 8).wrapping_mul(0x9e37_79b9) % (LARGEST as u64 - 7);
    let mut record = position.to_le_bytes().to_vec();
    record.extend((0..rest).map(|i| (position / 8 + i) as u8));
    record
}

fn push(tx: &mut Producer) -> Result<(), Error> {
    let record = record_at(tx.position());
    tx.push(&record)
}

/// Checks the record that was read at this position.
#[track_caller]
fn check(position: u64, record: &[u8]) {
    assert!(
        record == record_at(position),
        "not the record at {position}"
    );
}

/// Reads records until the producer has left; returns their number.
fn drain(rx: &mut Consumer) -> u64 {
    let mut count = 0;
    loop {
        let at = rx.position();
        match rx.read() {
            Ok(record) => check(at, &record),
            Err(Error::Disconnected(_)) => return count,
            Err(error) => panic!("{error}"),
        }
        count += 1;
    }
}

#[test]
fn each_reader_gets_every_record() {
    for wait in [
        Wait::Yield,
        Wait::Sleep {
            spin_for: Duration::ZERO,
        },
    ] {
        let builder = Builder::new(1024)
            .max_record(LARGEST)
            .consumers(3)
            .wait(wait);
        let channel = builder.heap().unwrap();
        let mut tx = channel.producer().unwrap();
        let readers: Vec<_> = (0..3).map(|_| channel.consumer().unwrap()).collect();
        thread::scope(|threads| {
            for mut rx in readers {
                threads.spawn(move || assert_eq!(drain(&mut rx), 20_000));
            }
            (0..20_000).try_for_each(|_| push(&mut tx)).unwrap();
            drop(tx);
        });
    }
}

/// Consumers join and leave beside a running producer. Each begins where a record begins.
#[test]
fn readers_begin_at_boundaries() {
    let channel = Builder::new(1024).max_record(LARGEST).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let (done, newest) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                push(&mut tx).unwrap();
                newest.store(tx.position(), Ordering::Relaxed);
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                threads.spawn(|| {
                    for join in 0..10_000 {
                        let mut rx = channel.consumer().unwrap();
                        let near = newest.load(Ordering::Relaxed);
                        match join % 4 {
                            0 => {}
                            1 => _ = rx.seek(Seek::Oldest).unwrap(),
                            2 => _ = rx.seek(Seek::To(near.saturating_sub(300))).unwrap(),
                            _ => match rx.seek(Seek::To(rx.position() + 1)) {
                                Ok(_) | Err(Error::Ahead { .. }) => {}
                                Err(error) => panic!("{error}"),
                            },
                        }
                        for _ in 0..3 {
                            let at = rx.position();
                            let record = rx.read().unwrap();
                            check(at, &record);
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        done.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
}

#[test]
fn the_slowest_reader_holds_the_producer() {
    let channel = Builder::new(64).consumers(2).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let (mut fast, mut slow) = (channel.consumer().unwrap(), channel.consumer().unwrap());
    for number in 0..4u8 {
        tx.try_push(&[number; 8]).unwrap();
        assert_eq!(&fast.try_read().unwrap()[..], [number; 8]);
    }
    assert_eq!(tx.try_push(b""), Err(Error::Full));
    assert_eq!((tx.len(), fast.len(), slow.len()), (Ok(64), Ok(0), Ok(64)));
    assert_eq!(&slow.try_read().unwrap()[..], [0; 8]);
    tx.try_push(b"eight by").unwrap();
    assert_eq!(tx.try_push(b""), Err(Error::Full));
    drop(slow);
    tx.try_push(b"three more fit").unwrap();
    assert_eq!(&fast.try_read().unwrap()[..], b"eight by");
    assert_eq!(&fast.try_read().unwrap()[..], b"three more fit");
    assert_eq!(fast.try_read().err(), Some(Error::Empty));
}

/// Without consumers the producer does not wait, and keeps seven eighths of the ring less a record.
#[test]
fn unread_records_stay_for_latecomers() {
    let builder = Builder::new(4096).max_record(LARGEST).join(Seek::Oldest);
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    for _ in 0..2000 {
        push(&mut tx).unwrap();
        let mut rx = channel.consumer().unwrap();
        let kept = tx.position() - rx.position();
        let least = 4096 / 8 * 7 - record_size(LARGEST as u64);
        assert!(
            kept >= least.min(tx.position()),
            "{kept} of {}",
            tx.position()
        );
        assert_eq!(rx.len(), Ok(kept as usize));
        let mut batch = rx.try_read_batch(usize::MAX).unwrap();
        let mut at = tx.position() - kept;
        while let Some(record) = batch.next().unwrap() {
            check(at, record);
            at += record_size(record.len() as u64);
        }
        assert_eq!(at, tx.position());
    }
}

#[test]
fn consumers_go_where_they_ask() {
    let (mut tx, mut rx) = channel(4096).unwrap();
    let places: Vec<u64> = (0..10)
        .map(|_| {
            let at = tx.position();
            push(&mut tx).unwrap();
            at
        })
        .collect();
    for (number, at) in places.iter().enumerate() {
        assert_eq!(rx.seek(Seek::To(*at)), Ok(*at));
        check(*at, &rx.try_read().unwrap());
        // From within a record, forward or back, to the next one.
        let next = places.get(number + 1).copied().unwrap_or(tx.position());
        for inside in [at + 1, at + 8, next] {
            rx.seek(Seek::Oldest).unwrap();
            assert_eq!(rx.seek(Seek::To(inside)), Ok(next));
            rx.seek(Seek::Newest).unwrap();
            assert_eq!(rx.seek(Seek::To(inside)), Ok(next));
        }
    }
    let newest = tx.position();
    let asked = newest + 8;
    assert_eq!(
        rx.seek(Seek::To(asked)),
        Err(Error::Ahead { asked, newest })
    );
    assert_eq!(rx.seek(Seek::Newest), Ok(newest));
    assert_eq!(rx.try_read().err(), Some(Error::Empty));
}

#[test]
fn producers_follow_each_other() {
    let channel = Builder::new(1024).max_record(LARGEST).heap().unwrap();
    let mut rx = channel.consumer().unwrap();
    for _ in 0..100 {
        let mut tx = channel.producer().unwrap();
        push(&mut tx).unwrap();
        // As a killed producer leaves it: written, and never committed.
        tx.reserve(LARGEST).unwrap().fill(0xdd);
        drop(tx);
        let at = rx.position();
        check(at, &rx.try_read().unwrap());
        assert_eq!(
            rx.try_read().err(),
            Some(Error::Disconnected(End::Finished))
        );
    }
}

/// Records that a discarded reservation wrote over are not there for a consumer that joins.
#[test]
fn discarded_reservations_give_records_up() {
    let builder = Builder::new(256).max_record(248).join(Seek::Oldest);
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    (0..2).for_each(|_| tx.push(&[7; 56]).unwrap());
    tx.reserve(180).unwrap().fill(0xdd);
    let mut rx = channel.consumer().unwrap();
    assert_eq!(rx.position(), 64);
    assert_eq!(&rx.try_read().unwrap()[..], [7; 56]);
    assert_eq!(rx.try_read().err(), Some(Error::Empty));
}

#[test]
fn impossible_shapes_are_refused() {
    for ring in [0, 32, 100, usize::MAX] {
        let refused = channel(ring).err().unwrap();
        assert!(matches!(refused, SetupError::Capacity { .. }), "{refused}");
    }
    let refused = Builder::new(64).max_record(64).heap().err().unwrap();
    assert!(matches!(refused, SetupError::MaxRecord { .. }), "{refused}");
    assert!(Builder::new(64).consumers(0).heap().is_err());
    assert!(Builder::new(64).consumers(64).heap().is_err());
    let channel = Builder::new(64).consumers(1).heap().unwrap();
    let _rx = channel.consumer().unwrap();
    let taken = channel.consumer().err().unwrap();
    assert!(
        matches!(taken, SetupError::RoleTaken { seats: 1, .. }),
        "{taken}"
    );
    let mut tx = channel.producer().unwrap();
    let (asked, max) = (25, 24);
    assert_eq!(tx.try_push(&[0; 25]), Err(Error::TooLarge { asked, max }));
    assert_eq!(tx.max_record(), 24);
}

#[test]
fn a_lone_producer_may_fail() {
    let (mut tx, rx) = channel(64).unwrap();
    tx.fail_alone(true);
    tx.push(b"heard").unwrap();
    drop(rx);
    let alone = Err(Error::Disconnected(End::Finished));
    assert_eq!(tx.try_push(b"unheard"), alone);
    assert_eq!(tx.try_reserve(8).map(drop), alone);
    let mut records = [&b""[..]].into_iter().peekable();
    assert_eq!(tx.try_push_iter(&mut records).map(drop), alone);
}

#[test]
fn readers_stream_the_same_lines() {
    let channel = Builder::new(1024).consumers(2).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let mut readers = [channel.consumer().unwrap(), channel.consumer().unwrap()];
    writeln!(tx.writer(), "{} and {}", 1, 2).unwrap();
    tx.push_iter([&b"a line in "[..], b"two records\n"])
        .unwrap();
    drop(tx);
    for rx in &mut readers {
        let lines: Vec<String> = rx.reader().lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["1 and 2", "a line in two records"]);
    }
}

/// A record that is kept is read again, by that consumer alone.
#[test]
fn kept_records_come_again() {
    let channel = Builder::new(1024).consumers(2).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let (mut one, mut other) = (channel.consumer().unwrap(), channel.consumer().unwrap());
    tx.push_iter([&b"one"[..], b"two", b"three"]).unwrap();
    one.try_read().unwrap().keep();
    assert_eq!(one.try_peek().unwrap(), b"one");
    let mut batch = one.try_read_batch(2).unwrap();
    while batch.next().unwrap().is_some() {}
    batch.keep_last();
    let rest: Vec<_> = (0..2).map(|_| one.read().unwrap().to_vec()).collect();
    assert_eq!(rest, [&b"two"[..], b"three"]);
    let mut copy = [0; 8];
    assert_eq!(other.pop(&mut copy), Ok(3));
    assert_eq!(&copy[..3], b"one");
}

//! Checks the messages that a guard holds: all, some or none of them are released. (No call here
//! waits, so that a message that was released by mistake is an error and not a hang.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use slipring::{broadcast, bytes, spsc};

/// Runs `body`, which panics, without a report on standard error.
fn panics(body: impl FnOnce()) {
    let panicked = catch_unwind(AssertUnwindSafe(body));
    assert!(panicked.is_err_and(|payload| payload.is::<&str>()));
}

fn panic_now() -> ! {
    resume_unwind(Box::new("on purpose"));
}

/// A value whose destructor a panic runs.
struct AtDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn spsc_of_ten() -> (spsc::Producer<u64>, spsc::Consumer<u64>) {
    let (mut tx, rx) = spsc::channel(16).unwrap();
    tx.push_iter(0..10).unwrap();
    (tx, rx)
}

fn broadcast_of_ten() -> (broadcast::Producer<u64>, broadcast::Consumer<u64>) {
    let (mut tx, rx) = broadcast::Builder::new(16).channel_pair().unwrap();
    tx.push_iter(0..10).unwrap();
    (tx, rx)
}

fn bytes_of_ten() -> (bytes::Producer, bytes::Consumer) {
    let (mut tx, rx) = bytes::channel(1024).unwrap();
    for number in 0..10_u8 {
        tx.push(&[number]).unwrap();
    }
    (tx, rx)
}

fn rest_of_bytes(rx: &mut bytes::Consumer) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut out = [0];
    while rx.try_pop(&mut out).is_ok() {
        rest.push(out[0]);
    }
    rest
}

#[test]
fn panic_in_a_guard_releases_nothing() {
    let (_tx, mut rx) = spsc_of_ten();
    panics(|| {
        let messages = rx.try_read_batch(10).unwrap();
        assert_eq!(messages.iter().take(3).sum::<u64>(), 3);
        panic_now();
    });
    panics(|| {
        let _message = rx.try_read().unwrap();
        panic_now();
    });
    assert!(rx.try_read_batch(10).unwrap().iter().copied().eq(0..10));
    assert!(rx.is_empty().unwrap(), "a normal drop releases all");

    let (_tx, mut rx) = broadcast_of_ten();
    panics(|| {
        let _messages = rx.try_read_batch(10).unwrap();
        panic_now();
    });
    panics(|| {
        let _message = rx.try_read().unwrap();
        panic_now();
    });
    assert!(rx.try_read_batch(10).unwrap().iter().copied().eq(0..10));
    assert!(rx.is_empty().unwrap());

    let (_tx, mut rx) = bytes_of_ten();
    panics(|| {
        let _record = rx.try_read().unwrap();
        panic_now();
    });
    panics(|| {
        let mut records = rx.try_read_batch(10).unwrap();
        assert_eq!(records.next().unwrap(), Some([0].as_slice()));
        assert_eq!(records.next().unwrap(), Some([1].as_slice()));
        panic_now();
    });
    assert_eq!(rest_of_bytes(&mut rx), Vec::from_iter(0..10));
}

/// The panic drops the consumer: its successor reads the messages again.
#[test]
fn successor_of_a_panic_reads_again() {
    let channel = spsc::Builder::<u64>::new(16).memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    tx.push_iter(0..10).unwrap();
    let mut rx = channel.consumer().unwrap();
    panics(move || {
        let _messages = rx.try_read_batch(10).unwrap();
        panic_now();
    });
    let mut rx = channel.consumer().unwrap();
    assert!(rx.try_read_batch(10).unwrap().iter().copied().eq(0..10));
}

/// A destructor that reads until no message is left ends, even when a panic runs it: its guards are
/// younger than the panic.
#[test]
fn destructor_in_a_panic_drains() {
    // This is more than there are: an endless loop would hold the test up for good.
    let enough = 100;
    let (_tx, mut rx) = spsc_of_ten();
    let mut seen = Vec::new();
    panics(|| {
        let _end = AtDrop(|| {
            while let Ok(messages) = rx.try_read_batch(4)
                && seen.len() < enough
            {
                seen.extend(messages.iter().copied());
            }
        });
        panic_now();
    });
    assert_eq!(seen, Vec::from_iter(0..10));

    let (_tx, mut rx) = broadcast_of_ten();
    seen.clear();
    panics(|| {
        let _end = AtDrop(|| {
            while let Ok(messages) = rx.try_read_batch(4)
                && seen.len() < enough
            {
                seen.extend(messages.iter().copied());
            }
        });
        panic_now();
    });
    assert_eq!(seen, Vec::from_iter(0..10));

    let (_tx, mut rx) = bytes_of_ten();
    seen.clear();
    panics(|| {
        let _end = AtDrop(|| {
            seen.push(u64::from(rx.try_read().unwrap()[0]));
            while let Ok(mut records) = rx.try_read_batch(4)
                && seen.len() < enough
            {
                while let Some(record) = records.next().unwrap() {
                    seen.push(u64::from(record[0]));
                }
            }
        });
        panic_now();
    });
    assert_eq!(seen, Vec::from_iter(0..10));
}

/// A guard that was made during a panic does not mark later guards.
#[test]
fn panic_after_a_draining_destructor_keeps() {
    let (_tx, mut rx) = spsc_of_ten();
    panics(|| {
        let _end = AtDrop(|| rx.try_read_batch(2).unwrap().keep());
        panic_now();
    });
    panics(|| {
        let _messages = rx.try_read_batch(10).unwrap();
        panic_now();
    });
    assert!(rx.try_read_batch(10).unwrap().iter().copied().eq(0..10));
}

/// Calls that copy, or name the messages that they release, work in a destructor that a panic runs.
#[test]
fn a_destructor_in_panic_can_release() {
    let (_tx, mut rx) = spsc_of_ten();
    panics(|| {
        let _end = AtDrop(|| {
            rx.try_read_batch(10).unwrap().keep();
            rx.try_read().unwrap().keep();
            rx.try_read_batch(10).unwrap().release(1);
            rx.try_read().unwrap().release();
            assert_eq!(rx.try_pop().unwrap(), 2);
        });
        panic_now();
    });
    assert_eq!(rx.try_pop().unwrap(), 3);

    let (_tx, mut rx) = broadcast_of_ten();
    panics(|| {
        let _end = AtDrop(|| {
            rx.try_read_batch(10).unwrap().keep();
            rx.try_read().unwrap().keep();
            rx.try_read_batch(10).unwrap().release(1);
            rx.try_read().unwrap().release();
            assert_eq!(rx.try_pop().unwrap(), 2);
        });
        panic_now();
    });
    assert_eq!(rx.try_pop().unwrap(), 3);

    let (_tx, mut rx) = bytes_of_ten();
    panics(|| {
        let _end = AtDrop(|| {
            rx.try_read().unwrap().keep();
            rx.try_read().unwrap().release();
            let mut records = rx.try_read_batch(10).unwrap();
            records.next().unwrap();
            records.release();
            assert_eq!(rx.try_pop(&mut [0]).unwrap(), 1);
        });
        panic_now();
    });
    assert_eq!(rest_of_bytes(&mut rx), Vec::from_iter(3..10));
}

#[test]
fn release_and_keep_leave_the_rest() {
    let (_tx, mut rx) = spsc_of_ten();
    rx.try_read_batch(10).unwrap().keep();
    rx.try_read().unwrap().keep();
    rx.try_read().unwrap().release();
    rx.try_read_batch(10).unwrap().release(3);
    rx.try_read_batch(10).unwrap().release(0);
    assert!(rx.try_read_batch(10).unwrap().iter().copied().eq(4..10));

    let (_tx, mut rx) = broadcast_of_ten();
    rx.try_read_batch(10).unwrap().keep();
    rx.try_read().unwrap().keep();
    rx.try_read().unwrap().release();
    rx.try_read_batch(10).unwrap().release(3);
    rx.try_read_batch(10).unwrap().release(0);
    assert!(rx.try_read_batch(10).unwrap().iter().copied().eq(4..10));

    let (_tx, mut rx) = bytes_of_ten();
    rx.try_read().unwrap().keep();
    let mut records = rx.try_read_batch(10).unwrap();
    records.next().unwrap();
    records.keep();
    rx.try_read_batch(10).unwrap().keep_last();
    let mut records = rx.try_read_batch(10).unwrap();
    (0..4).for_each(|_| assert!(records.next().unwrap().is_some()));
    records.keep_last();
    assert_eq!(rest_of_bytes(&mut rx), Vec::from_iter(3..10));
}

/// `release` of too many messages panics, as a slice does, and so releases none.
#[test]
fn release_of_too_many_keeps_all() {
    let (_tx, mut rx) = spsc_of_ten();
    assert!(
        catch_unwind(AssertUnwindSafe(|| rx
            .try_read_batch(5)
            .unwrap()
            .release(6)))
        .is_err()
    );
    assert!(rx.try_read_batch(10).unwrap().iter().copied().eq(0..10));
}

//! `fail_alone`: every verb of a producer fails once the last consumer has left, for each kind.
#![allow(clippy::unwrap_used)]

use slipring::broadcast::Mode;
use slipring::{End, Error, Producer, PushError, Readiness, SlotKind, broadcast, bytes, spsc};

const GONE: Error = Error::Disconnected(End::Finished);

/// All verbs of a kind with values, each of them twice: an error must not leave room behind.
fn all_fail<K: SlotKind<Value = u64>>(tx: &mut Producer<K>) {
    for _ in 0..2 {
        assert_eq!(
            tx.try_push(1),
            Err(PushError::Disconnected(1, End::Finished))
        );
        assert_eq!(tx.push(1), Err(PushError::Disconnected(1, End::Finished)));
        assert_eq!(tx.try_push_slice(&[1, 2]), Err(GONE));
        assert_eq!(tx.push_slice(&[1, 2]).unwrap_err().error, GONE);
        assert_eq!(tx.try_push_iter([1, 2]), Err(GONE));
        assert_eq!(tx.push_iter([1, 2]).unwrap_err().error, GONE);
        assert_eq!(tx.try_reserve(2).unwrap_err(), GONE);
        assert_eq!(tx.reserve(2).unwrap_err(), GONE);
        assert_eq!(tx.arm(1), Err(GONE));
    }
}

/// All verbs, while a consumer is there.
fn all_work<K: SlotKind<Value = u64>>(tx: &mut Producer<K>) {
    assert_eq!(tx.try_push(1), Ok(()));
    assert_eq!(tx.try_push_slice(&[1, 2]), Ok(2));
    assert_eq!(tx.try_push_iter([1, 2, 3]), Ok(3));
    tx.try_reserve(3).unwrap().commit(1);
    tx.reserve(6).unwrap().discard();
    assert_eq!(tx.arm(1), Ok(Readiness::Ready));
    assert_eq!(tx.position(), 7);
}

#[test]
fn spsc_fails_once_alone() {
    let (mut tx, rx) = spsc::channel::<u64>(32).unwrap();
    tx.fail_alone(true);
    all_work(&mut tx);
    drop(rx);
    all_fail(&mut tx);
    tx.fail_alone(false);
    assert_eq!(tx.try_push(1), Ok(()));
    assert_eq!(tx.position(), 8);
}

/// A producer that is alone when it asks to fail alone fails at once.
#[test]
fn spsc_fails_if_alone_already() {
    let (mut tx, rx) = spsc::channel::<u64>(32).unwrap();
    drop(rx);
    tx.fail_alone(true);
    all_fail(&mut tx);
}

#[test]
fn before_the_first_consumer_all_works() {
    let channel = spsc::Builder::<u64>::new(32).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    tx.fail_alone(true);
    all_work(&mut tx);
}

/// While a consumer is there, a full ring is reported as full, even with `fail_alone`.
#[test]
fn full_stays_full_with_a_peer() {
    let (mut tx, mut rx) = spsc::channel::<u64>(4).unwrap();
    tx.fail_alone(true);
    assert_eq!(tx.try_push_slice(&[1, 2, 3, 4, 5]), Ok(4));
    assert_eq!(tx.try_push(5), Err(PushError::Full(5)));
    assert_eq!(rx.try_pop(), Ok(1));
    assert_eq!(tx.try_push_iter([5, 6]), Ok(1));
    assert_eq!(tx.len(), Ok(4));
}

fn fails_once_alone<M: Mode>(builder: broadcast::Builder<u64, M>) {
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    tx.fail_alone(true);
    let (one, other) = (channel.consumer().unwrap(), channel.consumer().unwrap());
    all_work(&mut tx);
    drop(one);
    assert_eq!(tx.try_push(1), Ok(()), "{:?}", M::WHEN_FULL);
    drop(other);
    all_fail(&mut tx);
    let _next = channel.consumer().unwrap();
    assert_eq!(tx.try_push(1), Ok(()), "{:?}", M::WHEN_FULL);
}

#[test]
fn broadcast_fails_once_alone() {
    fails_once_alone(broadcast::Builder::new(64));
    fails_once_alone(broadcast::Builder::new(64).overwriting());
}

#[test]
fn bytes_fails_once_alone() {
    let (mut tx, rx) = bytes::channel(4096).unwrap();
    tx.fail_alone(true);
    tx.try_push(b"1").unwrap();
    tx.try_reserve(1000).unwrap().commit(1);
    tx.try_reserve(1000).unwrap().discard();
    drop(rx);
    for _ in 0..2 {
        assert_eq!(tx.try_push(b"2"), Err(GONE));
        assert_eq!(tx.push(b"2"), Err(GONE));
        assert_eq!(tx.try_reserve(1).unwrap_err(), GONE);
        let mut records = [&b"2"[..]].into_iter().peekable();
        assert_eq!(tx.try_push_iter(&mut records), Err(GONE));
        assert_eq!(tx.arm(1), Err(GONE));
    }
}

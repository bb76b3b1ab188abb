//! Models `bytes`: records of varying size, some of which run into the slack behind the ring.

use slipring_core::Error;
use slipring_core::end::Endpoint;
use slipring_core::guard::Reserve;
use slipring_core::proto::bytes;
use slipring_core::record::{HoldRecord, HoldRecords, PushRecord, PushRecords};

use crate::{Memory, both, model, until};

/// The size of a ring for two records, or for one that fills it.
const RING: u64 = 16;

fn push(tx: &mut bytes::Producer<'_>, payload: &[u8]) {
    until(|| tx.try_push(payload)).unwrap();
}

fn pop(rx: &mut bytes::Consumer<'_>) -> Vec<u8> {
    until(|| rx.ensure(1)).unwrap();
    rx.try_read().unwrap().to_vec()
}

/// A record may run past the end of the ring into the slack, and the next one wraps.
#[test]
fn records_use_the_slack_and_wrap() {
    model(|| {
        both(
            Memory::records(RING),
            |memory| {
                memory.bytes_producer(|mut tx| {
                    push(&mut tx, b"");
                    push(&mut tx, b"slacking"); // 8..24, half of it behind the ring
                    push(&mut tx, b"abc"); // from 8 again
                });
            },
            |memory| {
                memory.bytes_consumer(|mut rx| {
                    assert_eq!(pop(&mut rx), b"");
                    assert_eq!(pop(&mut rx), b"slacking");
                    assert_eq!(pop(&mut rx), b"abc");
                    assert!(matches!(rx.try_read(), Err(Error::Empty)));
                });
            },
        );
    });
}

/// A record that is committed shorter than reserved leaves the rest of its space to the next
/// record.
#[test]
fn a_shorter_commit_frees_the_rest() {
    model(|| {
        both(
            Memory::records(RING),
            |memory| {
                memory.bytes_producer(|mut tx| {
                    let mut record = tx.try_reserve(8).unwrap();
                    record.copy_from_slice(b"xxxxxxxx");
                    record.commit(0);
                    tx.try_reserve(0).unwrap().discard();
                    until(|| tx.ensure(8)).unwrap();
                    let mut record = tx.try_reserve(8).unwrap();
                    record[..3].copy_from_slice(b"abc");
                    record.commit(3);
                });
            },
            |memory| {
                memory.bytes_consumer(|mut rx| {
                    assert_eq!(pop(&mut rx), b"");
                    assert_eq!(pop(&mut rx), b"abc");
                });
            },
        );
    });
}

/// A batch of records is published as one, and released as one.
#[test]
fn a_batch_is_published_as_one() {
    model(|| {
        both(
            Memory::records(RING),
            |memory| {
                memory.bytes_producer(|mut tx| {
                    let mut records = [&b""[..], b"", b"12345678"].into_iter().peekable();
                    while records.peek().is_some() {
                        until(|| tx.try_push_iter(&mut records)).unwrap();
                    }
                });
            },
            |memory| {
                memory.bytes_consumer(|mut rx| {
                    let mut seen = Vec::new();
                    while seen.len() < 3 {
                        until(|| rx.ensure(1)).unwrap();
                        let mut records = rx.try_read_batch(2).unwrap();
                        while let Some(record) = records.next().unwrap() {
                            seen.push(record.to_vec());
                        }
                    }
                    assert_eq!(seen, [&b""[..], b"", b"12345678"]);
                });
            },
        );
    });
}

/// Handles that join late see all that the ring's positions promise.
#[test]
fn late_joiners_see_promised_records() {
    model(|| {
        let memory = Memory::records(RING);
        memory.bytes_producer(|mut tx| push(&mut tx, b"first"));
        both(
            memory,
            |memory| {
                memory.bytes_producer(|mut tx| push(&mut tx, b"second"));
                memory.any_turn();
            },
            |memory| {
                memory.bytes_consumer(|mut rx| {
                    assert_eq!(pop(&mut rx), b"first");
                    memory.any_turn();
                    assert_eq!(pop(&mut rx), b"second");
                });
            },
        );
    });
}

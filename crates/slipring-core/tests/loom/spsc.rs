//! Models `spsc`: the consumer reads what was committed in order, once, whole; released slots are
//! free again.

use slipring_core::Error;
use slipring_core::end::{Endpoint, Pop, Push};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::proto::spsc;
use slipring_core::sync::Ordering;

use crate::{Memory, both, model, until};

fn push(tx: &mut spsc::Producer<'_, u64>, value: u64) {
    until(|| tx.try_push(value).map_err(|failed| failed.error())).unwrap();
}

fn pop(rx: &mut spsc::Consumer<'_, u64>) -> u64 {
    until(|| rx.try_pop()).unwrap()
}

/// A ring of capacity one hands over one message at a time.
#[test]
fn capacity_one_passes_messages_singly() {
    model(|| {
        both(
            Memory::slots(1),
            |memory| memory.spsc_producer(|mut tx| (1..=3).for_each(|value| push(&mut tx, value))),
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    let seen = [pop(&mut rx), pop(&mut rx), pop(&mut rx)];
                    assert_eq!(seen, [1, 2, 3]);
                    assert_eq!(rx.try_pop(), Err(Error::Empty));
                });
            },
        );
    });
}

#[test]
fn capacity_two_wraps_in_order() {
    model(|| {
        both(
            Memory::slots(2),
            |memory| memory.spsc_producer(|mut tx| (1..=4).for_each(|value| push(&mut tx, value))),
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    (1..=4).for_each(|value| assert_eq!(pop(&mut rx), value));
                    assert_eq!(rx.len(), Ok(0));
                });
            },
        );
    });
}

/// A partial commit shows the slots that were committed, and no more.
#[test]
fn a_partial_commit_shows_no_more() {
    model(|| {
        both(
            Memory::slots(2),
            |memory| {
                memory.spsc_producer(|mut tx| {
                    let mut slots = tx.try_reserve(2).unwrap();
                    slots.write(0, 1);
                    slots.write(1, 666);
                    slots.commit(1);
                    tx.try_reserve(1).unwrap().discard();
                    let mut slots = until(|| tx.ensure(2))
                        .and_then(|()| tx.try_reserve(2))
                        .unwrap();
                    let (front, back) = slots.as_mut_slices();
                    (front[0], back[0]) = (2, 3);
                    slots.commit(2);
                });
            },
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    let mut seen: Vec<u64> = Vec::new();
                    while seen.len() < 3 {
                        until(|| rx.ensure(1)).unwrap();
                        seen.extend(rx.try_read_batch(2).unwrap().iter());
                    }
                    assert_eq!(seen, [1, 2, 3]);
                });
            },
        );
    });
}

#[test]
fn batches_may_be_released_in_part() {
    model(|| {
        both(
            Memory::slots(2),
            |memory| {
                memory.spsc_producer(|mut tx| {
                    let mut rest = &[1, 2, 3, 4][..];
                    while !rest.is_empty() {
                        rest = &rest[until(|| tx.try_push_slice(rest)).unwrap()..];
                    }
                });
            },
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    let mut next = 1;
                    while next <= 4 {
                        until(|| rx.ensure(1)).unwrap();
                        let messages = rx.try_read_batch(2).unwrap();
                        let found: Vec<u64> = messages.iter().copied().collect();
                        assert!(found == [next] || found == [next, next + 1], "{found:?}");
                        messages.release(1);
                        next += 1;
                    }
                });
            },
        );
    });
}

/// A producer that joins late waits until the reader of each slot is done with it.
#[test]
fn a_late_producer_awaits_slot_readers() {
    model(|| {
        let memory = Memory::slots(1);
        memory.spsc_producer(|mut tx| push(&mut tx, 1));
        both(
            memory,
            // Made while the consumer is reading: the head that it finds must bring the reads.
            |memory| memory.spsc_producer(|mut tx| push(&mut tx, 2)),
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    assert_eq!(pop(&mut rx), 1);
                    memory.any_turn();
                    assert_eq!(pop(&mut rx), 2);
                });
            },
        );
    });
}

/// A consumer that joins late sees all the slots that the tail promises.
#[test]
fn a_late_consumer_sees_promised_slots() {
    model(|| {
        both(
            Memory::slots(2),
            |memory| {
                memory.spsc_producer(|mut tx| {
                    push(&mut tx, 1);
                    memory.any_turn();
                    push(&mut tx, 2);
                    memory.any_turn();
                });
            },
            // Made while the producer writes: the tail that it finds must bring the slots.
            |memory| {
                memory.spsc_consumer(|mut rx| assert_eq!([pop(&mut rx), pop(&mut rx)], [1, 2]))
            },
        );
    });
}

/// A program that has counted a message may rely on what the message's sender did before.
#[test]
fn a_counted_message_orders_earlier_work() {
    model(|| {
        both(
            Memory::slots(1),
            |memory| {
                memory.spsc_producer(|mut tx| {
                    memory.note.store(1, Ordering::Relaxed);
                    push(&mut tx, 1);
                });
            },
            |memory| {
                memory.spsc_consumer(|rx| {
                    let noted = rx.len() == Ok(0) || memory.note.load(Ordering::Relaxed) == 1;
                    assert!(noted, "counted, and not there");
                });
            },
        );
    });
}

/// A program that has counted a free slot may rely on what the slot's reader did before.
#[test]
fn a_counted_slot_orders_earlier_work() {
    model(|| {
        let memory = Memory::slots(1);
        memory.spsc_producer(|mut tx| push(&mut tx, 1));
        both(
            memory,
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    memory.note.store(1, Ordering::Relaxed);
                    pop(&mut rx);
                });
            },
            |memory| {
                memory.spsc_producer(|tx| {
                    let noted = tx.len() == Ok(1) || memory.note.load(Ordering::Relaxed) == 1;
                    assert!(noted, "counted, and not there");
                });
            },
        );
    });
}

//! Models leaving: an end is reported once, after all that came before it, and to the right
//! handles.

use std::sync::Arc;

use slipring_core::end::{Endpoint, Pop, Push};
use slipring_core::proto::spsc;
use slipring_core::record::{HoldRecord, PushRecord};
use slipring_core::seat::{Findings, Peer};
use slipring_core::sync::Ordering;
use slipring_core::{CachedLimit, End, Error};

use crate::{Memory, both, model, until};

const FINISHED: Result<u64, Error> = Err(Error::Disconnected(End::Finished));

/// Acknowledges the ends that a consumer was told of, as a handle does when it is dropped.
fn acknowledge(rx: &mut spsc::Consumer<'_, u64>) {
    rx.with_peer(|peer| peer.acknowledge()).unwrap();
}

#[test]
fn finished_producer_is_drained_first() {
    model(|| {
        both(
            Memory::slots(2),
            |memory| {
                memory.spsc_producer(|mut tx| {
                    tx.try_push(1).unwrap();
                    tx.try_push(2).unwrap();
                });
                memory.producer.leave(1, End::Finished);
            },
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    assert_eq!(until(|| rx.try_pop()), Ok(1));
                    assert_eq!(until(|| rx.try_pop()), Ok(2));
                    assert_eq!(until(|| rx.try_pop()), FINISHED);
                    assert_eq!(until(|| rx.try_pop()), FINISHED);
                });
            },
        );
    });
}

/// A consumer of records reads all that a finished producer left before the end is reported to it.
#[test]
fn records_are_drained_before_the_end() {
    model(|| {
        both(
            Memory::records(16),
            |memory| {
                memory.bytes_producer(|mut tx| tx.try_push(b"last").unwrap());
                memory.producer.leave(1, End::Aborted);
            },
            |memory| {
                memory.bytes_consumer(|mut rx| {
                    let mut out = [0; 8];
                    assert_eq!(until(|| rx.try_pop(&mut out)), Ok(4));
                    assert_eq!(&out[..4], b"last");
                    let end = until(|| rx.try_pop(&mut out));
                    assert_eq!(end, Err(Error::Disconnected(End::Aborted)));
                });
            },
        );
    });
}

/// A producer uses the space that a consumer released before it left, and only then finds the end.
#[test]
fn released_space_is_used_first() {
    model(|| {
        both(
            Memory::slots(1),
            |memory| {
                memory.spsc_consumer(|mut rx| assert_eq!(until(|| rx.try_pop()), Ok(1)));
                memory.consumer.leave(1, End::Finished);
            },
            |memory| {
                memory.spsc_producer(|mut tx| {
                    let mut push =
                        |value| until(|| tx.try_push(value).map_err(|failed| failed.error()));
                    assert_eq!(push(1), Ok(()));
                    assert_eq!(push(2), Ok(()));
                    assert_eq!(push(3), Err(Error::Disconnected(End::Finished)));
                });
            },
        );
    });
}

/// An end that was reported to nobody is not history yet. The consumer looks at the ring, then at
/// the seat, then at the ring again. What it finds there is no end yet: if it leaves now, its
/// successor must still be told.
#[test]
fn an_unreported_end_stays_news() {
    model(|| {
        let memory = Memory::slots(2);
        both(
            memory.clone(),
            |memory| {
                memory.spsc_producer(|mut tx| tx.try_push(1).unwrap());
                memory.producer.leave(1, End::Finished);
            },
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    assert_eq!(until(|| rx.try_pop()), Ok(1));
                    acknowledge(&mut rx);
                });
                memory.consumer.leave(1, End::Aborted);
            },
        );
        memory.consumer.take(1).unwrap();
        memory.spsc_consumer(|mut rx| assert_eq!(rx.try_pop(), FINISHED));
    });
}

/// Another thread finds the producer dead, and records it for the handle. The kernel has ordered
/// all that the producer committed before.
#[test]
fn death_found_elsewhere_hides_no_message() {
    model(|| {
        let found = Arc::new(Findings::default());
        let noted = found.clone();
        both(
            Memory::slots(2),
            move |memory| {
                memory.spsc_producer(|mut tx| tx.try_push(1).unwrap());
                noted.died(1);
            },
            |memory| {
                let peer = Peer::producer(&memory.producer, &memory.consumer).sharing(&found);
                let (ring, mut cached_limit) =
                    (memory.spsc(memory.notifier(1)), CachedLimit::new());
                // SAFETY: this is the only consumer.
                let mut rx = unsafe { spsc::Consumer::new(ring, peer, &mut cached_limit) }.unwrap();
                assert_eq!(until(|| rx.try_pop()), Ok(1));
                assert_eq!(found.told(), 0);
                for _ in 0..2 {
                    let end = until(|| rx.try_pop());
                    assert_eq!(end, Err(Error::Disconnected(End::Died)));
                    assert_eq!(found.told(), 1);
                }
            },
        );
    });
}

#[test]
fn successor_publishes_the_end_before_it() {
    model(|| {
        let memory = Memory::slots(1);
        memory.producer.leave(1, End::Finished);
        both(
            memory,
            |memory| {
                memory.producer.take(0).unwrap();
                memory.any_turn();
            },
            |memory| {
                // Whichever of the two it sees, the end is there, and no handle was told of it yet.
                memory.spsc_consumer(|mut rx| {
                    assert_eq!(rx.try_pop(), FINISHED);
                    assert!(rx.try_pop().is_err());
                });
            },
        );
    });
}

#[test]
fn acknowledged_end_means_an_empty_ring() {
    model(|| {
        let memory = Memory::slots(1);
        memory.spsc_producer(|mut tx| tx.try_push(1).unwrap());
        memory.producer.leave(1, End::Finished);
        both(
            memory,
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    assert_eq!(rx.try_pop(), Ok(1));
                    assert_eq!(rx.try_pop(), FINISHED);
                    acknowledge(&mut rx);
                    memory.any_turn();
                });
            },
            |memory| {
                assert_eq!(memory.producer.take(1), Ok(2));
                let mut patience = 0;
                while memory.producer.unread_end(&memory.consumer) {
                    memory.any_turn();
                    loom::thread::yield_now();
                    patience += 1;
                    assert!(patience < 100, "the note never came");
                }
                memory.spsc_producer(|mut tx| {
                    assert_eq!(tx.len(), Ok(0));
                    assert!(tx.try_push(2).is_ok());
                });
            },
        );
    });
}

/// An end that was reported stays history for a new handle, which reports only the ends after it.
#[test]
fn a_new_handle_ignores_old_ends() {
    model(|| {
        let memory = Memory::slots(1);
        memory.producer.leave(1, End::Finished);
        memory.spsc_consumer(|mut rx| {
            assert_eq!(rx.try_pop(), FINISHED);
            acknowledge(&mut rx);
        });
        memory.spsc_consumer(|mut rx| assert_eq!(rx.try_pop(), Err(Error::Empty)));
        both(
            memory,
            |memory| {
                memory.producer.take(0).unwrap();
                memory.spsc_producer(|mut tx| tx.try_push(7).unwrap());
                memory.producer.leave(2, End::Finished);
            },
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    assert_eq!(until(|| rx.try_pop()), Ok(7));
                    assert_eq!(until(|| rx.try_pop()), FINISHED);
                });
            },
        );
    });
}

/// An end and its position belong together. Two generations end one after the other while a reader
/// stands at the end of the second. The reader must not take the first one's end, which it passed
/// long ago, for the second's.
#[test]
fn an_end_keeps_its_own_position() {
    model(|| {
        let memory = Memory::at(1, 0, 2);
        memory.producer.leave(1, End::Finished);
        memory.producer.take(1).unwrap();
        both(
            memory,
            |memory| {
                memory.producer.leave(2, End::Finished);
                memory.producer.take(2).unwrap();
            },
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    if rx.try_pop() == FINISHED {
                        acknowledge(&mut rx);
                        let told = memory.consumer.acknowledged.load(Ordering::Relaxed);
                        assert_eq!(told, 2);
                    }
                });
            },
        );
    });
}

/// An end comes with all that was committed before it. A generation commits, ends, and is
/// succeeded, while a reader stands before what it committed. The end must not be reported first.
#[test]
fn messages_come_before_the_end() {
    model(|| {
        let memory = Memory::at(1, 0, 1);
        memory.producer.leave(1, End::Finished);
        memory.producer.take(1).unwrap();
        memory.consumer.acknowledged.store(1, Ordering::Relaxed);
        both(
            memory,
            |memory| {
                memory.spsc_producer(|mut tx| tx.try_push(7).unwrap());
                memory.producer.leave(2, End::Finished);
                memory.producer.take(2).unwrap();
            },
            |memory| {
                memory.spsc_consumer(|mut rx| {
                    if let Err(told) = rx.try_pop() {
                        assert_eq!(told, Error::Empty);
                    }
                });
            },
        );
    });
}

/// A finished generation is reported with its own position. The pair by itself, for a reader that
/// has not loaded `life` first.
#[test]
fn generation_and_position_match() {
    model(|| {
        let memory = Memory::at(1, 0, 1);
        memory.producer.leave(1, End::Finished);
        memory.producer.take(1).unwrap();
        both(
            memory,
            |memory| {
                memory.producer.leave(2, End::Finished);
                memory.producer.take(2).unwrap();
            },
            |memory| {
                if let Some((generation, position)) = memory.producer.finished() {
                    assert_eq!(generation, position);
                }
            },
        );
    });
}

/// A seat without a lock has one holder at a time. A new holder of a seat on memory without kernel
/// locks comes after all that the last holder did.
#[test]
fn a_lockless_seat_has_one_holder() {
    fn hold(memory: &Memory) -> bool {
        let ours = memory.producer.own();
        if ours {
            memory.shadow[0].with_mut(|_| ());
            memory.producer.disown();
        }
        ours
    }
    model(|| {
        both(
            Memory::slots(1),
            |memory| _ = hold(memory),
            |memory| {
                while !hold(memory) {
                    loom::thread::yield_now();
                }
            },
        );
    });
}

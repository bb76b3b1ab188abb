//! Models a work queue: several producers and consumers, and an end that dies with something in its hands.

mod carry;
mod looks;
mod records;
mod sleepers;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;
use slipring_core::crowd::Crowd;
use slipring_core::end::{Endpoint, Pop, Push};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::layout::{
    Claims, Counters, Geometry, Kind, Note, Role, SeatLine, SeatWords, Side, WaitCell, WhenFull,
};
use slipring_core::mem::{ByteCells, Cells};
use slipring_core::proto::mpmc::{
    Consumer, DeadLetters, Delivery, OwnedMessage, Producer, Queue, Ring, State, recover,
};
use slipring_core::sync::{AtomicU64, Ordering};
use slipring_core::wait::Notifier;
use slipring_core::{CachedLimit, End, Error};

use crate::{NOBODY, until};

/// The ends of a queue of numbers.
type Sender<'m> = Producer<'m, Cells<'m, u64>>;
type Receiver<'m> = Consumer<'m, Cells<'m, u64>>;

/// Runs `body` with three threads or more: they have many more orders, so there are fewer preemptions.
fn model_within(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder.check(body);
}

/// The number of seats of each side.
const SEATS: usize = 2;

/// The shared memory of a queue.
struct Shop {
    geometry: Geometry,
    hints: [AtomicU64; 2],
    returns: AtomicU64,
    words: Box<[AtomicU64]>,
    notes: Box<[Note]>,
    bells: [WaitCell; 2],
    lines: [SeatLine; 2 * SEATS],
    positions: [AtomicU64; 2 * SEATS],
    counters: [Counters; 2 * SEATS],
    slots: Box<[UnsafeCell<u64>]>,
    shadow: Box<[loom::cell::UnsafeCell<()>]>,
}

// SAFETY: loom's atomics and cells, and payloads that only the protocol under test touches, on threads
// that loom runs one at a time.
unsafe impl Sync for Shop {}
// SAFETY: as above.
unsafe impl Send for Shop {}

impl Shop {
    /// Makes a queue of `capacity` messages, with these producer and consumer seats taken.
    fn new(capacity: usize, taken: [usize; 2]) -> Arc<Shop> {
        let slots = capacity + 1;
        let shop = Shop {
            geometry: Geometry {
                kind: Kind::Mpmc,
                when_full: WhenFull::Wait,
                capacity: capacity as u64,
                slot_size: 8,
                slot_align: 8,
                producers: SEATS as u64,
                consumers: SEATS as u64,
                skew: 0,
                pins: 0,
                pool: 0,
                growth: None,
            },
            hints: Default::default(),
            returns: AtomicU64::new(0),
            words: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            notes: (0..slots).map(|_| Note::default()).collect(),
            bells: Default::default(),
            lines: Default::default(),
            positions: Default::default(),
            counters: Default::default(),
            slots: (0..slots).map(|_| UnsafeCell::new(0)).collect(),
            shadow: (0..slots).map(|_| Default::default()).collect(),
        };
        for (side, count) in taken.into_iter().enumerate() {
            for seat in 0..count {
                shop.lines[side * SEATS + seat].take(0).unwrap();
            }
        }
        Arc::new(shop)
    }

    fn queue(&self) -> Queue<'_> {
        let claims = Claims {
            tail_hint: &self.hints[0],
            head_hint: &self.hints[1],
            returns: &self.returns,
            words: &self.words,
            notes: &self.notes,
        };
        Queue::new(&self.geometry, claims).unwrap()
    }

    /// Returns the words of all seats, producers first.
    fn seats(&self) -> [SeatWords<'_>; 2 * SEATS] {
        std::array::from_fn(|seat| SeatWords {
            line: &self.lines[seat],
            position: &self.positions[seat],
            counters: &self.counters[seat],
            pins: None,
        })
    }

    /// Returns the payloads as numbers.
    fn cells(&self) -> Cells<'_, u64> {
        // SAFETY: there are that many messages, all initialised, for as long as `self` is borrowed.
        unsafe { Cells::new(self.base(), self.slots.len() as u64, &self.shadow) }
    }

    /// Returns the payloads as byte strings.
    fn byte_cells(&self) -> ByteCells<'_> {
        // SAFETY: as in `cells`, of 8 bytes each.
        unsafe { ByteCells::new(self.base(), self.slots.len() as u64, 8, &self.shadow) }
    }

    fn base<T>(&self) -> NonNull<T> {
        NonNull::new(self.slots.as_ptr().cast_mut().cast()).unwrap()
    }

    fn ring<'m, C>(&'m self, seats: &'m [SeatWords<'m>], number: usize, cells: C) -> Ring<'m, C> {
        let (producers, consumers) = seats.split_at(SEATS);
        let (mine, theirs, bells) = match number < SEATS {
            true => (producers, consumers, [0, 1]),
            false => (consumers, producers, [1, 0]),
        };
        let line = &self.lines[number];
        let peers = match number < SEATS {
            true => Crowd::consumers(Side::Many(theirs), line).unwrap(),
            false => Crowd::producers(Side::Many(theirs), mine, line),
        };
        let notifier = |bell: usize, sleepers| {
            let counters = &self.counters[number];
            Notifier::new(&self.bells[bell], sleepers, counters, false, &NOBODY)
        };
        Ring {
            queue: self.queue(),
            cells,
            seat: (number % SEATS) as u64,
            position: &self.positions[number],
            handed_out: &self.counters[number].handed_out,
            peers,
            notifier: notifier(bells[1], Side::Many(theirs)),
            fellows: notifier(bells[0], Side::Many(mine)),
        }
    }

    fn producer<R>(&self, seat: usize, body: impl FnOnce(Sender<'_>) -> R) -> R {
        let (seats, mut limit) = (self.seats(), CachedLimit::new());
        let ring = self.ring(&seats, seat, self.cells());
        // SAFETY: each model has one end at a time in a seat.
        body(unsafe { Producer::new(ring, &mut limit) })
    }

    fn consumer<R>(&self, seat: usize, body: impl FnOnce(Receiver<'_>) -> R) -> R {
        let (seats, mut limit) = (self.seats(), CachedLimit::new());
        let ring = self.ring(&seats, SEATS + seat, self.cells());
        // SAFETY: each model has one end at a time in a seat.
        body(unsafe { Consumer::new(ring, &mut limit) })
    }

    /// Pops `count` messages at seat `seat`, waiting for each.
    fn pop_all(&self, seat: usize, count: usize) -> Vec<u64> {
        self.consumer(seat, |mut rx| {
            (0..count)
                .map(|_| until(|| rx.try_pop()).unwrap())
                .collect()
        })
    }

    /// Tries `times` to pop a message at seat `seat`.
    ///
    /// Where two threads would wait, the model could go to and fro between them for ever.
    fn pop_some(&self, seat: usize, times: usize) -> Vec<u64> {
        self.consumer(seat, |mut rx| {
            (0..times).filter_map(|_| rx.try_pop().ok()).collect()
        })
    }

    /// Tries once to push each of `values` at seat `seat`, and returns those that were accepted.
    fn push_some(&self, seat: usize, values: &[u64]) -> Vec<u64> {
        self.producer(seat, |mut tx| {
            let accepted = values.iter().filter(|value| tx.try_push(**value).is_ok());
            accepted.copied().collect()
        })
    }

    /// Pushes `values` at seat `seat`, which have room.
    fn push_all(&self, seat: usize, values: &[u64]) {
        assert_eq!(self.push_some(seat, values), values);
    }
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

/// Two producers push while a consumer pops, none of them waits: what was accepted is taken once, whole, and each
/// producer's messages in their order.
fn two_producers_one_consumer(capacity: usize, preemptions: usize) {
    model_within(preemptions, move || {
        let shop = Shop::new(capacity, [2, 1]);
        let first = shop.clone();
        let second = shop.clone();
        let first = thread::spawn(move || first.push_some(0, &[1, 2]));
        let second = thread::spawn(move || second.push_some(1, &[11]));
        let mut got = shop.pop_some(0, 2);
        let mut accepted = first.join().unwrap();
        accepted.extend(second.join().unwrap());
        got.extend(shop.pop_some(0, capacity + 1));
        let of_first: Vec<_> = got.iter().filter(|value| **value < 10).collect();
        assert!(of_first.is_sorted());
        assert_eq!(sorted(got), sorted(accepted));
    });
}

#[test]
fn two_producers_share_one_slot() {
    two_producers_one_consumer(1, 2);
}

#[test]
fn two_producers_share_two_slots() {
    two_producers_one_consumer(2, 2);
}

/// A producer pushes while two consumers pop: each message is taken by one of them, and each gets its own in order.
fn one_producer_two_consumers(capacity: usize, preemptions: usize) {
    model_within(preemptions, move || {
        let shop = Shop::new(capacity, [1, 2]);
        let (writer, reader) = (shop.clone(), shop.clone());
        let writer = thread::spawn(move || writer.push_some(0, &[1, 2, 3]));
        let reader = thread::spawn(move || reader.pop_some(1, 2));
        let mut got = shop.pop_some(0, 2);
        let accepted = writer.join().unwrap();
        let others = reader.join().unwrap();
        got.extend(shop.pop_some(0, capacity + 1));
        assert!(got.is_sorted() && others.is_sorted());
        got.extend(others);
        assert_eq!(sorted(got), accepted);
    });
}

#[test]
fn two_consumers_share_one_slot() {
    one_producer_two_consumers(1, 2);
}

#[test]
fn two_consumers_share_two_slots() {
    one_producer_two_consumers(2, 2);
}

/// Two and two, at a capacity of two.
#[test]
fn two_and_two_take_each_once() {
    model_within(1, || {
        let shop = Shop::new(2, [2, 2]);
        let writers = [0, 1].map(|seat| {
            let shop = shop.clone();
            thread::spawn(move || shop.push_some(seat, &[seat as u64 + 1]))
        });
        let reader = shop.clone();
        let reader = thread::spawn(move || reader.pop_some(1, 1));
        let mut got = shop.pop_some(0, 1);
        let accepted = writers.map(|writer| writer.join().unwrap()).concat();
        got.extend(reader.join().unwrap());
        got.extend(shop.pop_some(0, 3));
        assert_eq!(sorted(got), sorted(accepted));
    });
}

/// A run of several slots, whole or in part, is seen whole or in part; a run of held ones is released for reuse.
#[test]
fn runs_pass_in_order() {
    model_within(2, || {
        let shop = Shop::new(2, [2, 1]);
        let other = shop.clone();
        let writer = thread::spawn(move || {
            other.producer(0, |mut tx| {
                for (values, committed) in [([1, 2], 2), ([3, 0], 1)] {
                    until(|| tx.ensure(2)).unwrap();
                    let mut run = tx.try_reserve(2).unwrap();
                    run.write(0, values[0]);
                    run.write(1, values[1]);
                    run.commit(committed);
                }
            });
        });
        shop.consumer(0, |mut rx| {
            let mut got = Vec::new();
            while got.len() < 3 {
                let batch = until(|| {
                    rx.try_read_batch(2)
                        .map(|batch| batch.iter().copied().collect::<Vec<_>>())
                });
                got.extend(batch.unwrap());
            }
            assert_eq!(got, [1, 2, 3]);
            assert_eq!(rx.try_pop(), Err(Error::Empty));
        });
        writer.join().unwrap();
    });
}

/// A message that a consumer gives back is taken again, by either consumer, and marked so.
#[test]
fn requeued_message_comes_again() {
    model_within(2, || {
        let shop = Shop::new(2, [1, 2]);
        shop.push_all(0, &[7]);
        let other = shop.clone();
        let giver = thread::spawn(move || {
            other.consumer(0, |mut rx| {
                if let Ok(batch) = rx.try_read_batch(1) {
                    assert_eq!(batch.iter().copied().collect::<Vec<_>>(), [7]);
                    batch.keep();
                    return true;
                }
                false
            })
        });
        let again = shop.consumer(1, |mut rx| {
            assert_eq!(until(|| rx.try_pop()), Ok(7));
            rx.deliveries() > 0
        });
        let given = giver.join().unwrap();
        assert!(given || !again);
    });
}

/// A consumer dies with a run in its hands: both messages come again, to another one that is at work meanwhile.
#[test]
fn recovered_run_comes_again() {
    model_within(2, || {
        let shop = Shop::new(2, [1, 2]);
        shop.push_all(0, &[1, 2]);
        shop.consumer(0, |mut rx| {
            let batch = rx.try_read_batch(2).unwrap();
            assert_eq!(batch.len(), 2);
            std::mem::forget(batch);
        });
        let helper = shop.clone();
        let helper = thread::spawn(move || {
            // SAFETY: the dead end was forgotten, and its handle is gone.
            unsafe { recover(&helper.queue(), Role::Consumer, 0, Delivery::AtLeastOnce) }.unwrap();
            helper.lines[SEATS].leave(1, End::Died);
        });
        shop.consumer(1, |mut rx| {
            let mut got = Vec::new();
            for _ in 0..2 {
                got.push(until(|| rx.try_pop()).unwrap());
                assert!(rx.deliveries() > 0);
            }
            assert_eq!(sorted(got), [1, 2]);
            assert_eq!(rx.try_pop(), Err(Error::Empty));
        });
        helper.join().unwrap();
    });
}

/// A producer dies with a run in its hands, between the two inner stores of a commit: none of it is delivered, and what
/// comes behind it is.
#[test]
fn recovered_reservation_is_skipped() {
    model_within(2, || {
        let shop = Shop::new(4, [2, 1]);
        shop.producer(0, |mut tx| {
            let mut run = tx.try_reserve(2).unwrap();
            run.write(0, 1);
            run.write(1, 2);
            std::mem::forget(run);
        });
        let (helper, writer) = (shop.clone(), shop.clone());
        let helper = thread::spawn(move || {
            // SAFETY: as above.
            unsafe { recover(&helper.queue(), Role::Producer, 0, Delivery::AtLeastOnce) }.unwrap();
        });
        let writer = thread::spawn(move || writer.push_all(1, &[3]));
        assert_eq!(shop.pop_all(0, 1), [3]);
        helper.join().unwrap();
        writer.join().unwrap();
    });
}

/// The end comes when both producers have left, after what they committed. (One of them commits nothing: with a message of
/// each, the model takes minutes.)
#[test]
fn end_comes_after_all_producers() {
    model_within(2, || {
        let shop = Shop::new(2, [2, 1]);
        let writers = [0, 1].map(|seat| {
            let shop = shop.clone();
            thread::spawn(move || {
                if seat == 0 {
                    shop.push_all(seat, &[7]);
                }
                shop.lines[seat].leave(1, End::Finished);
            })
        });
        shop.consumer(0, |mut rx| {
            let mut got = Vec::new();
            let end = loop {
                match until(|| rx.try_pop()) {
                    Ok(value) => got.push(value),
                    Err(error) => break error,
                }
            };
            assert_eq!(got, [7]);
            assert_eq!(end, Error::Disconnected(End::Finished));
        });
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
    });
}

/// A hint leads a new end past everything that was claimed, and no further.
#[test]
fn hint_leads_past_claims() {
    model_within(2, || {
        let shop = Shop::new(2, [1, 1]);
        let other = shop.clone();
        let raiser = thread::spawn(move || {
            other.push_all(0, &[1, 2]);
            other.hints[0].fetch_max(2, Ordering::Release);
        });
        let got = shop.pop_all(0, 2);
        assert_eq!(got, [1, 2]);
        raiser.join().unwrap();
        shop.producer(1, |mut tx| assert_eq!(tx.try_push(3), Ok(())));
        assert_eq!(shop.pop_all(0, 1), [3]);
    });
}

/// The length counts the messages that are there.
#[test]
fn len_counts_messages() {
    model_within(1, || {
        let shop = Shop::new(2, [1, 1]);
        shop.push_all(0, &[1]);
        assert_eq!(shop.producer(0, |tx| tx.len()), Ok(1));
        assert_eq!(shop.pop_all(0, 1), [1]);
        assert_eq!(shop.consumer(0, |rx| rx.len()), Ok(0));
    });
}

/// A consumer passes another one's run and takes what lies behind it: it reads what that message's producer wrote.
#[test]
fn passer_of_a_run_reads_behind_it() {
    model_within(2, || {
        let shop = Shop::new(4, [2, 2]);
        shop.push_all(0, &[1]);
        let (writer, holder) = (shop.clone(), shop.clone());
        let writer = thread::spawn(move || {
            writer.producer(1, |mut tx| tx.try_push_slice(&[2, 3]).unwrap());
        });
        let holder = thread::spawn(move || {
            holder.consumer(0, |mut rx| {
                let _ = rx.try_read_batch(2).map(std::mem::forget);
            });
        });
        let _ = shop.pop_some(1, 1);
        writer.join().unwrap();
        holder.join().unwrap();
    });
}

/// A producer passes another one's run and writes behind it: the consumer that released that slot has read it.
#[test]
fn passer_of_a_run_writes_behind_it() {
    model_within(2, || {
        let shop = Shop::new(4, [2, 2]);
        shop.push_all(0, &[1, 2, 3, 4]);
        assert_eq!(shop.pop_all(1, 1), [1]);
        let (reader, writer) = (shop.clone(), shop.clone());
        let reader = thread::spawn(move || {
            reader.consumer(0, |mut rx| rx.try_pop_slice(&mut [0; 3]).unwrap());
        });
        let writer = thread::spawn(move || {
            writer.producer(1, |mut tx| {
                let _ = tx.try_reserve(3).map(std::mem::forget);
            });
        });
        shop.producer(0, |mut tx| {
            let _ = tx.try_push(9);
        });
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

/// A consumer that looks at all words finds an inner slot of a dead consumer's run before its head is settled.
#[test]
fn inner_slot_is_found_before_its_head() {
    model_within(3, || {
        let shop = Shop::new(2, [1, 2]);
        shop.push_all(0, &[8, 9]);
        assert_eq!(shop.pop_all(1, 2), [8, 9]);
        let (writer, holder) = (shop.clone(), shop.clone());
        let writer = thread::spawn(move || {
            writer.producer(0, |mut tx| assert_eq!(tx.try_push_slice(&[1, 2]), Ok(2)));
        });
        let holder = thread::spawn(move || {
            let held = holder.consumer(0, |mut rx| {
                let held = rx.try_read_batch(2).map(|batch| {
                    let count = batch.len();
                    std::mem::forget(batch);
                    count
                });
                held.unwrap_or(0)
            });
            if held == 2 {
                // SAFETY: the dead end was forgotten, and its handle is gone.
                unsafe { recover(&holder.queue(), Role::Consumer, 0, Delivery::AtLeastOnce) }
                    .unwrap();
            }
        });
        // Relaxed: this only picks the moment, which is rare: the inner slot is the first, and returned.
        for _ in 0..3 {
            if shop.words[0].load(Ordering::Relaxed) & 7 == State::Returned as u64 {
                break;
            }
            thread::yield_now();
        }
        let _ = shop.pop_some(1, 1);
        writer.join().unwrap();
        holder.join().unwrap();
    });
}

/// A consumer is there at all times, in one seat or the other: a producer is never told that they left.
#[test]
fn handover_of_consumers_is_no_end() {
    model_within(2, || {
        let shop = Shop::new(1, [1, 0]);
        shop.lines[SEATS].take(0).unwrap();
        shop.lines[SEATS].leave(1, End::Finished);
        shop.lines[SEATS + 1].take(0).unwrap();
        let other = shop.clone();
        shop.producer(0, |mut tx| {
            tx.try_push(1).unwrap();
            let other = thread::spawn(move || {
                other.lines[SEATS].take(0).unwrap();
                other.lines[SEATS + 1].leave(1, End::Finished);
            });
            let pushed = tx.try_push(2).map_err(|failed| failed.error());
            assert_eq!(pushed, Err(Error::Full));
            other.join().unwrap();
        });
    });
}

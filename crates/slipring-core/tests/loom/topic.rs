//! Models a topic: several producers with a pool each, and consumers that pin what they read.

mod watch;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;
use slipring_core::backing::Backing;
use slipring_core::crowd::Crowd;
use slipring_core::end::{Endpoint, Pop, Push, Seek};
use slipring_core::layout::{
    Counters, Entries, Geometry, Kind, Pins, SampleHeader, SeatLine, SeatWords, Side, WaitCell,
    WhenFull,
};
use slipring_core::mem::Samples;
use slipring_core::proto::topic::{
    Consumer, Keep, Pool, PoolBacking, PoolSlot, Producer, Ring, Sample, Topic, let_go, vacate,
};
use slipring_core::sync::{AtomicU64, Ordering};
use slipring_core::wait::{Notifier, Waiter};
use slipring_core::{CachedLimit, Error};

use crate::wake::{Kernel, sleeping};
use crate::{NOBODY, until};

/// Runs `body` with three threads, or with two that do much: there are fewer preemptions.
fn model_within(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder.check(body);
}

/// The number of seats of each side.
const SEATS: usize = 2;

/// The shared memory of a topic of numbers.
struct Board {
    geometry: Geometry,
    head: AtomicU64,
    entries: Box<[AtomicU64]>,
    gating_set: AtomicU64,
    pins: [Pins; SEATS],
    bells: [WaitCell; 2],
    lines: [SeatLine; 2 * SEATS],
    positions: [AtomicU64; 2 * SEATS],
    counters: [Counters; 2 * SEATS],
    headers: Box<[SampleHeader]>,
    slots: Box<[UnsafeCell<[u64; 16]>]>,
    shadow: Box<[loom::cell::UnsafeCell<()>]>,
    kernel: Kernel,
    /// `true` if producers fence before they look for others that wait.
    fenced: bool,
}

// SAFETY: loom's atomics and cells, and payloads that only the protocol under test touches, on threads
// that loom runs one at a time.
unsafe impl Sync for Board {}
// SAFETY: as above.
unsafe impl Send for Board {}

/// Memory that is there throughout. Giving some back is a write, which no reader may see.
impl Backing for Board {
    fn back(&self, _: u64, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn give_back(&self, at: u64, len: u64) {
        let stride = self.geometry.stride();
        for slot in at / stride..(at + len) / stride {
            self.shadow[slot as usize].with_mut(|_| ());
        }
    }
}

impl PoolBacking for Board {
    fn give_back_vacant(&self) {}
}

type Publisher<'m> = Producer<'m, u64>;
type Subscriber<'m> = Consumer<'m, u64>;

impl Board {
    /// Makes a topic whose last `capacity` messages stay readable, with so many producers; each has `spare` slots more than
    /// the ring has entries.
    fn new(capacity: usize, producers: usize, consumers: usize, spare: usize) -> Arc<Board> {
        Board::made(capacity, producers, consumers, spare, false)
    }

    fn made(
        capacity: usize,
        producers: usize,
        consumers: usize,
        spare: usize,
        fenced: bool,
    ) -> Arc<Board> {
        let geometry = Geometry {
            kind: Kind::Topic,
            when_full: WhenFull::Overwrite,
            capacity: capacity as u64,
            slot_size: 8,
            slot_align: 8,
            producers: producers as u64,
            consumers: consumers as u64,
            skew: 0,
            pins: 2,
            pool: (capacity + spare) as u64,
            growth: None,
        };
        geometry.check().unwrap();
        let slots = geometry.slots() as usize;
        assert_eq!(geometry.stride(), 128);
        let board = Board {
            geometry,
            head: AtomicU64::new(0),
            entries: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            gating_set: AtomicU64::new(0),
            pins: Default::default(),
            bells: Default::default(),
            lines: Default::default(),
            positions: Default::default(),
            counters: Default::default(),
            headers: (0..slots).map(|_| SampleHeader::default()).collect(),
            slots: (0..slots).map(|_| UnsafeCell::new([0; 16])).collect(),
            shadow: (0..slots).map(|_| Default::default()).collect(),
            kernel: Kernel::new(true),
            fenced,
        };
        for seat in 0..producers {
            board.lines[seat].take(0).unwrap();
        }
        for seat in 0..consumers {
            board.lines[SEATS + seat].take(0).unwrap();
        }
        Arc::new(board)
    }

    fn seat(&self, number: usize) -> SeatWords<'_> {
        SeatWords {
            line: &self.lines[number],
            position: &self.positions[number],
            counters: &self.counters[number],
            pins: number.checked_sub(SEATS).map(|seat| &self.pins[seat]),
        }
    }

    fn ring<'m>(&'m self, number: usize, theirs: &'m [SeatWords<'m>]) -> Ring<'m, u64> {
        let entries = Entries {
            head: &self.head,
            words: &self.entries,
        };
        let base = NonNull::new(self.slots.as_ptr().cast_mut().cast()).unwrap();
        let bell = usize::from(number < SEATS);
        Ring {
            topic: Topic::new(entries).unwrap(),
            // SAFETY: there are that many slots, all initialised, for as long as `self` is borrowed.
            samples: unsafe { Samples::new(base, &self.geometry, &self.headers, &self.shadow) },
            seat: (number % SEATS) as u64,
            position: &self.positions[number],
            messages: &self.counters[number].messages,
            gating_set: &self.gating_set,
            notifier: Notifier::new(
                &self.bells[bell],
                Side::Many(theirs),
                &self.counters[number],
                false,
                &NOBODY,
            ),
        }
    }

    fn producers(&self) -> Vec<SeatWords<'_>> {
        let seats = 0..self.geometry.producers as usize;
        seats.map(|number| self.seat(number)).collect()
    }

    fn consumers(&self) -> Vec<SeatWords<'_>> {
        let seats = SEATS..SEATS + self.geometry.consumers as usize;
        seats.map(|number| self.seat(number)).collect()
    }

    /// Returns the notifier by which the producer in this seat wakes others. Its wakes are real ones.
    fn fellows<'m>(&'m self, seat: usize, producers: &'m [SeatWords<'m>]) -> Notifier<'m> {
        let (bell, counters) = (&self.bells[0], &self.counters[seat]);
        let fenced = self.fenced;
        let notifier = Notifier::new(bell, Side::Many(producers), counters, fenced, &self.kernel);
        notifier.of_fellows(1 << seat)
    }

    fn publisher<R>(&self, seat: usize, body: impl FnOnce(Publisher<'_>) -> R) -> R {
        let consumers = self.consumers();
        let producers = self.producers();
        let mut notes = vec![PoolSlot::default(); self.geometry.pool as usize];
        let mut limit = CachedLimit::new();
        let pool = Pool {
            slots: &mut notes,
            consumers: Side::Many(&consumers),
            fellows: (producers.len() > 1).then(|| self.fellows(seat, &producers)),
            backing: None,
            clock: None,
        };
        // SAFETY: each model has one producer a seat at a time.
        body(unsafe { Producer::new(self.ring(seat, &consumers), pool, &mut limit) }.unwrap())
    }

    fn subscriber<R>(&self, seat: usize, body: impl FnOnce(Subscriber<'_>) -> R) -> R {
        let producers = self.producers();
        let number = SEATS + seat;
        let keep = Keep {
            pins: &self.pins[seat],
            most: self.geometry.pins,
            producers: Crowd::producers(Side::Many(&producers), &[], &self.lines[number]),
            lagged: &self.counters[number].lagged,
            handed_out: &self.counters[number].handed_out,
        };
        let mut limit = CachedLimit::new();
        let ring = self.ring(number, &producers);
        // SAFETY: each model has one consumer a seat at a time.
        body(unsafe { Consumer::new(ring, keep, &mut limit, Seek::Oldest) }.unwrap())
    }

    /// Publishes these numbers from seat `seat`, each as soon as there is room.
    fn publish(&self, seat: usize, numbers: std::ops::Range<u64>) {
        self.publisher(seat, |mut tx| {
            for number in numbers {
                until(|| tx.try_push(number).map_err(|error| error.error())).unwrap();
            }
        });
    }

    /// Runs a subscriber on a thread of its own, and recovers its seat then if it is to be dead.
    fn reader(
        self: &Arc<Self>,
        dies: bool,
        body: impl FnOnce(Subscriber<'_>) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let board = self.clone();
        thread::spawn(move || {
            board.subscriber(0, body);
            if dies {
                board.recover(0);
            }
        })
    }

    /// Gives back the memory of a seat without a producer.
    fn vacate(&self, seat: u64) {
        let consumers = self.consumers();
        let mut notes = vec![PoolSlot::default(); self.geometry.pool as usize];
        let entries = Entries {
            head: &self.head,
            words: &self.entries,
        };
        let (topic, sides) = (Topic::new(entries).unwrap(), Side::Many(&consumers));
        let (geometry, gating_set) = (&self.geometry, &self.gating_set);
        // SAFETY: the model has no producer in this seat.
        unsafe { vacate(&topic, geometry, seat, &mut notes, gating_set, sides, self) };
    }

    /// Takes a subscriber's pins away, as whoever recovers its seat does.
    fn recover(&self, seat: usize) {
        let_go(&self.pins[seat], &self.gating_set, 1 << seat);
    }
}

/// A message whose slot is used again while it is read would be a race, which loom reports.
#[test]
fn a_pinned_message_is_not_written() {
    model_within(2, || {
        let board = Board::new(1, 1, 1, 1);
        let reader = board.reader(false, |mut rx| {
            if let Ok(sample) = Sample::latest(&mut rx, 0) {
                assert_eq!(*sample, sample.origin().sequence);
            }
        });
        board.publish(0, 0..3);
        reader.join().unwrap();
    });
}

/// A reader in order gets each message, or learns of its loss.
#[test]
fn readers_in_order_miss_nothing_silently() {
    model_within(3, || {
        let board = Board::new(2, 1, 1, 2);
        let reader = board.reader(false, |mut rx| {
            let mut next = rx.position();
            while next < 4 {
                match rx.try_pop() {
                    Ok(value) => {
                        assert_eq!(value, next);
                        next += 1;
                    }
                    Err(Error::Lagged(lost)) => next += lost,
                    Err(Error::Empty) => thread::yield_now(),
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(next, 4);
        });
        board.publish(0, 0..4);
        reader.join().unwrap();
    });
}

/// Two producers publish without a gap, and each value once.
#[test]
fn producers_share_one_order() {
    model_within(2, || {
        let board = Board::new(4, 2, 1, 3);
        let other = board.clone();
        let first = thread::spawn(move || {
            other.publish(0, 0..2);
        });
        board.publish(1, 10..12);
        first.join().unwrap();
        board.subscriber(0, |mut rx| {
            let all: Vec<u64> = (0..4).map(|_| rx.try_pop().unwrap()).collect();
            let of = |low: u64| {
                all.iter()
                    .copied()
                    .filter(|value| *value / 10 == low)
                    .collect::<Vec<_>>()
            };
            assert_eq!((of(0), of(1)), (vec![0, 1], vec![10, 11]));
            assert_eq!(rx.try_pop(), Err(Error::Empty));
        });
    });
}

/// The newest message never goes back, also while a producer has not told the head.
#[test]
fn the_newest_never_goes_back() {
    model_within(2, || {
        let board = Board::new(1, 2, 1, 3);
        let writers: Vec<_> = (0..2)
            .map(|seat| {
                let other = board.clone();
                thread::spawn(move || {
                    other.publisher(seat, |mut tx| tx.try_push(seat as u64).unwrap());
                })
            })
            .collect();
        board.subscriber(0, |mut rx| {
            let mut last = None;
            for _ in 0..3 {
                match Sample::latest(&mut rx, 0) {
                    Ok(sample) => {
                        let sequence = sample.origin().sequence;
                        assert!(last <= Some(sequence));
                        last = Some(sequence);
                    }
                    Err(Error::Empty) => assert_eq!(last, None),
                    // Overwritten again and again.
                    Err(Error::Lagged(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
    });
}

/// A message that a consumer reads is not overwritten before it lets go, nor one that a dead consumer had pinned before recovery.
#[test]
fn a_released_slot_was_read() {
    model_within(2, || {
        let board = Board::new(1, 1, 1, 1);
        board.publish(0, 0..1);
        let reader = board.reader(true, |mut rx| {
            // SAFETY: dropped before the memory is.
            let sample = unsafe {
                rx.hold_latest(0).unwrap();
                rx.detach()
            };
            let sample = sample.unwrap();
            let (value, sequence) = (*sample, sample.origin().sequence);
            assert_eq!(value, sequence);
            drop(sample);
        });
        board.publish(0, 1..3);
        reader.join().unwrap();
    });
}

/// The successor of a dead producer writes nothing that the ring names.
#[test]
fn successors_spare_what_the_ring_names() {
    model_within(3, || {
        let board = Board::new(2, 2, 1, 2);
        board.publish(0, 0..2);
        let reader = board.reader(false, |mut rx| {
            for back in [1, 0] {
                if let Ok(sample) = Sample::latest(&mut rx, back) {
                    assert_eq!(*sample, sample.origin().sequence);
                }
            }
        });
        // The successor of the first producer.
        board.publish(0, 2..4);
        reader.join().unwrap();
    });
}

/// Whoever counts a message sees what its producer did before.
#[test]
fn a_counted_message_orders_earlier_work() {
    model_within(3, || {
        let board = Board::new(2, 1, 1, 2);
        let note = Arc::new(AtomicU64::new(0));
        let (other, theirs) = (board.clone(), note.clone());
        let reader = thread::spawn(move || {
            other.subscriber(0, |rx| {
                if rx.len().unwrap() == 1 {
                    assert_eq!(theirs.load(Ordering::Relaxed), 1);
                }
            });
        });
        board.publisher(0, |mut tx| {
            note.store(1, Ordering::Relaxed);
            tx.try_push(0).unwrap();
        });
        reader.join().unwrap();
    });
}

/// A subscriber that leaves has read what it had pinned, also for a producer that only sees that it left.
#[test]
fn one_that_leaves_has_read() {
    model_within(2, || {
        let board = Board::new(1, 1, 1, 1);
        board.publish(0, 0..1);
        let reader = board.reader(true, |mut rx| {
            if let Ok(sample) = Sample::latest(&mut rx, 0) {
                assert_eq!(*sample, sample.origin().sequence);
                // Its handle is dropped with the message in its hands.
                std::mem::forget(sample);
            }
        });
        board.publish(0, 1..3);
        reader.join().unwrap();
    });
}

/// A pin that takes the place of another, whose guard was forgotten, lets go of the first message.
#[test]
fn a_replaced_pin_was_read() {
    model_within(3, || {
        let board = Board::new(2, 1, 1, 1);
        board.publish(0, 0..2);
        board.subscriber(0, |mut rx| {
            let other = board.clone();
            let first = Sample::latest(&mut rx, 1).unwrap();
            let writer = thread::spawn(move || {
                other.publisher(0, |mut tx| {
                    // The second may find all slots pinned.
                    for number in 2..4 {
                        if tx.try_push(number).is_err() {
                            break;
                        }
                    }
                });
            });
            assert_eq!(*first, 0);
            std::mem::forget(first);
            if let Ok(second) = Sample::latest(&mut rx, 0) {
                assert_eq!(*second, second.origin().sequence);
            }
            writer.join().unwrap();
        });
    });
}

/// A sample that has left its subscriber's hands was read before its slot is written again.
#[test]
fn a_dropped_sample_was_read() {
    model_within(3, || {
        let board = Board::new(1, 1, 1, 1);
        board.publish(0, 0..1);
        board.subscriber(0, |mut rx| {
            rx.hold_latest(0).unwrap();
            // SAFETY: dropped before the memory is.
            let sample = unsafe { rx.detach() }.unwrap();
            let other = board.clone();
            let writer = thread::spawn(move || other.publish(0, 1..3));
            assert_eq!(*sample, 0);
            drop(sample);
            writer.join().unwrap();
        });
    });
}

/// The memory of a seat without a producer goes back, but for messages that can be read or are pinned.
#[test]
fn vacated_pools_keep_what_is_read() {
    model_within(3, || {
        let board = Board::new(1, 2, 1, 1);
        board.publish(0, 0..1);
        let reader = board.reader(false, |mut rx| {
            if let Ok(sample) = Sample::latest(&mut rx, 0) {
                assert_eq!(*sample, sample.origin().sequence);
            }
        });
        let other = board.clone();
        let writer = thread::spawn(move || other.publish(1, 1..2));
        board.vacate(0);
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

/// A producer that waits for a slot of a small pool is woken when another one's message displaces its own.
#[test]
fn a_displaced_message_wakes_its_producer() {
    model_within(2, || {
        let board = Board::made(1, 2, 1, 1, true);
        board.publish(0, 0..1);
        board.subscriber(0, |mut rx| {
            std::mem::forget(Sample::latest(&mut rx, 0).unwrap());
        });
        // Both slots are taken: one is pinned, and the ring names the other.
        board.publish(0, 1..2);
        let other = board.clone();
        let writer = thread::spawn(move || other.publish(1, 2..3));
        let (bell, counters) = (&board.bells[0], &board.counters[0]);
        let consumers = board.consumers();
        let waiter = Waiter::new(
            bell,
            0,
            counters,
            Side::Many(&consumers),
            false,
            &board.kernel,
        );
        board.publisher(0, |mut tx| {
            sleeping(&waiter, || tx.try_push(3).map_err(|error| error.error()));
        });
        writer.join().unwrap();
    });
}

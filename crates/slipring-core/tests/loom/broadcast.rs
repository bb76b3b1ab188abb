//! One producer, several consumers: what one reads is what was written, whoever joins, leaves, goes back or
//! is overtaken meanwhile.

mod watch;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;
use slipring_core::broadcast::{Consumer, Producer, Ring, Seat, Seek, Store};
use slipring_core::layout::{Bell, Counters, SeatLine, SeatWords, Side};
use slipring_core::mem::{Racing, Slots};
use slipring_core::seat::Peer;
use slipring_core::sync::{AtomicU64, Ordering};
use slipring_core::wait::{Face, Ringer, Sleeper};
use slipring_core::{Error, Lease};

use crate::wake::Kernel;
use crate::{NOBODY, model, until};

/// A message of two words, so that it can be torn.
type Pair = [u64; 2];

const fn pair(number: u64) -> Pair {
    [number, !number]
}

fn number(pair: Pair) -> u64 {
    assert_eq!(pair[1], !pair[0], "a torn message");
    pair[0]
}

/// As `model`, of three threads, or of two that wait for each other: they have many more orders, so there
/// are fewer preemptions, besides the switches at each wait.
fn model_within(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(body);
}

/// The shared memory of a channel with two consumers.
struct Feed {
    tail: AtomicU64,
    gate: AtomicU64,
    members: AtomicU64,
    bells: [Bell; 2],
    lines: [SeatLine; 3],
    positions: [AtomicU64; 3],
    counters: [Counters; 3],
    kernel: Kernel,
    capacity: u64,
    /// Of a channel that waits.
    slots: Box<[UnsafeCell<Pair>]>,
    shadow: Box<[loom::cell::UnsafeCell<()>]>,
    /// Of one that overwrites.
    words: Box<[AtomicU64]>,
    overwrites: bool,
}

// SAFETY: loom's atomics and cells, and payloads that only the protocol under test touches, on threads
// that loom runs one at a time.
unsafe impl Sync for Feed {}
// SAFETY: as above.
unsafe impl Send for Feed {}

/// Words from slot to slot.
const STRIDE: usize = size_of::<Pair>() / 8;

impl Feed {
    fn new(capacity: usize, overwrites: bool) -> Arc<Feed> {
        let feed = Feed {
            tail: AtomicU64::new(0),
            gate: AtomicU64::new(0),
            members: AtomicU64::new(0),
            bells: Default::default(),
            lines: Default::default(),
            positions: Default::default(),
            counters: Default::default(),
            kernel: Kernel::new(false),
            capacity: capacity as u64,
            slots: (0..capacity).map(|_| UnsafeCell::new([0; 2])).collect(),
            shadow: (0..capacity).map(|_| Default::default()).collect(),
            words: (0..capacity * STRIDE).map(|_| Default::default()).collect(),
            overwrites,
        };
        for line in &feed.lines {
            line.take(0).unwrap();
        }
        Arc::new(feed)
    }

    /// The words of seat `seat`: 0 is the producer's.
    fn words_of(&self, seat: usize) -> SeatWords<'_> {
        SeatWords {
            line: &self.lines[seat],
            position: &self.positions[seat],
            counters: &self.counters[seat],
        }
    }

    fn store(&self) -> Store<'_, Pair> {
        if self.overwrites {
            // SAFETY: a pair is two words.
            return Store::Racing(unsafe { Racing::new(&self.words, self.capacity) }.unwrap());
        }
        let base = NonNull::new(self.slots.as_ptr().cast_mut().cast()).unwrap();
        // SAFETY: so many messages, all initialised, for as long as `self` is borrowed.
        Store::Plain(unsafe { Slots::new(base, self.capacity, &self.shadow) })
    }

    fn ring<'m>(&'m self, consumers: &'m [SeatWords<'m>], bell: Ringer<'m>) -> Ring<'m, Pair> {
        Ring {
            tail: &self.tail,
            gate: &self.gate,
            members: &self.members,
            consumers: Side::Many(consumers),
            store: self.store(),
            writable: true,
            bell,
        }
    }

    fn seat(&self, seat: usize) -> Seat<'_> {
        Seat {
            position: &self.positions[seat],
            gate: &self.gate,
            members: &self.members,
            bit: if self.overwrites { 0 } else { 1 << (seat - 1) },
            capacity: self.capacity,
        }
    }

    fn produce<R>(
        &self,
        sleepy: bool,
        body: impl FnOnce(Producer<'_, Pair>, &Sleeper<'_>) -> R,
    ) -> R {
        let consumers = [self.words_of(1), self.words_of(2)];
        let os: &dyn slipring_core::wait::Os = if sleepy { &self.kernel } else { &NOBODY };
        let side = Side::Many(&consumers);
        let bell = Ringer::new(&self.bells[1], side, &self.counters[0], false, os);
        let sleeper = Sleeper::new(&self.bells[0], 0, &self.counters[0], side, true, os);
        let mut lease = Lease::new();
        // SAFETY: the only producer, of words that only the model touches.
        let tx = unsafe { Producer::new(self.ring(&consumers, bell), &mut lease) };
        body(tx.unwrap(), &sleeper)
    }

    fn consume<R>(
        &self,
        seat: usize,
        seek: Seek,
        sleepy: bool,
        body: impl FnOnce(Consumer<'_, Pair>, &Sleeper<'_>) -> R,
    ) -> R {
        let consumers = [self.words_of(1), self.words_of(2)];
        let os: &dyn slipring_core::wait::Os = if sleepy { &self.kernel } else { &NOBODY };
        let producer = Side::One(self.words_of(0));
        let bell = Ringer::new(&self.bells[0], producer, &self.counters[seat], false, os);
        let bit = seat - 1;
        let sleeper = Sleeper::new(
            &self.bells[1],
            bit,
            &self.counters[seat],
            producer,
            false,
            os,
        );
        let mut lease = Lease::new();
        let peer = Peer::producer(&self.lines[0], &self.lines[seat]);
        let ring = self.ring(&consumers, bell);
        // SAFETY: the only one in this seat, of words that only the model touches.
        let rx = unsafe { Consumer::new(ring, self.seat(seat), peer, &mut lease, seek) };
        let result = body(rx.unwrap(), &sleeper);
        self.seat(seat).leave();
        result
    }
}

fn push_all(mut tx: Producer<'_, Pair>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        until(|| tx.try_push(pair(number)).map_err(|failed| failed.error)).unwrap();
    }
}

fn pop_all(rx: &mut Consumer<'_, Pair>, numbers: std::ops::Range<u64>) {
    for expected in numbers {
        assert_eq!(number(until(|| rx.try_pop()).unwrap()), expected);
    }
}

/// Reads the first message in place, and does not release it.
fn look_at_first(rx: &mut Consumer<'_, Pair>) {
    until(|| rx.ensure()).unwrap();
    let messages = rx.try_read(1).unwrap();
    assert_eq!(number(*messages.iter().next().unwrap()), 0);
    messages.release(0);
}

impl Feed {
    /// Has `seat` stand at the beginning, before any thread runs.
    fn joined(self: Arc<Feed>, seat: usize) -> Arc<Feed> {
        self.members
            .fetch_or(self.seat(seat).bit, Ordering::Relaxed);
        self
    }

    /// Sends so many messages before any thread runs, to members that release them at once.
    fn sent(self: Arc<Feed>, messages: u64) -> Arc<Feed> {
        self.produce(false, |mut tx, _| {
            for number in 0..messages {
                tx.try_push(pair(number)).unwrap();
                for position in &self.positions[1..] {
                    position.store(number + 1, Ordering::Relaxed);
                }
            }
        });
        self
    }

    /// Runs a consumer in seat `seat` on a thread of its own.
    fn reader(
        self: &Arc<Feed>,
        seat: usize,
        seek: Seek,
        body: impl FnOnce(Consumer<'_, Pair>) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let feed = self.clone();
        thread::spawn(move || feed.consume(seat, seek, false, |rx, _| body(rx)))
    }
}

#[test]
fn two_consumers_each_see_all() {
    model_within(1, || {
        let feed = Feed::new(2, false).joined(1).joined(2);
        let readers =
            [1, 2].map(|seat| feed.reader(seat, Seek::Oldest, |mut rx| pop_all(&mut rx, 0..2)));
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// The gate: whoever joins reads from some message on, and nothing is written under its eyes.
fn joins_while_the_producer_runs(capacity: usize, sent: u64, messages: u64, seek: Seek) {
    model(move || {
        let feed = Feed::new(capacity, false).sent(sent);
        let late = feed.reader(1, seek, move |mut rx| {
            let begun = rx.position();
            pop_all(&mut rx, begun..messages);
        });
        feed.produce(false, |tx, _| push_all(tx, sent..messages));
        late.join().unwrap();
    });
}

#[test]
fn one_that_joins_at_the_oldest_is_waited_for() {
    joins_while_the_producer_runs(1, 0, 2, Seek::Oldest);
    joins_while_the_producer_runs(2, 2, 4, Seek::Oldest);
}

#[test]
fn one_that_joins_at_the_newest_is_waited_for() {
    joins_while_the_producer_runs(1, 0, 2, Seek::Newest);
}

#[test]
fn one_that_joins_at_a_number_is_waited_for() {
    joins_while_the_producer_runs(2, 2, 4, Seek::To(1));
}

#[test]
fn one_that_goes_back_is_waited_for() {
    model(|| {
        let feed = Feed::new(2, false).joined(1).sent(2);
        let reader = feed.reader(1, Seek::Newest, |mut rx| {
            let begun = rx.seek(Seek::To(1)).unwrap();
            pop_all(&mut rx, begun..4);
        });
        feed.produce(false, |tx, _| push_all(tx, 2..4));
        reader.join().unwrap();
    });
}

/// What it gives up by that, it has read.
#[test]
fn one_that_goes_forward_frees_what_it_has_read() {
    model_within(2, || {
        let feed = Feed::new(1, false).joined(1);
        let reader = feed.reader(1, Seek::Oldest, |mut rx| {
            look_at_first(&mut rx);
            assert_eq!(rx.seek(Seek::Newest), Ok(1));
            pop_all(&mut rx, 1..2);
        });
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        reader.join().unwrap();
    });
}

/// Nor is it written over where the next that is ours lies further on.
#[test]
fn one_that_passes_over_messages_has_read_those_before() {
    model_within(2, || {
        let feed = Feed::new(1, false).joined(1);
        let reader = feed.reader(1, Seek::Oldest, |mut rx| {
            look_at_first(&mut rx);
            rx.stride(1, 2).unwrap();
        });
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        reader.join().unwrap();
    });
}

/// Nor is anything written under the eyes of one that leaves, with what it has not released.
#[test]
fn one_that_leaves_has_read() {
    model_within(2, || {
        let feed = Feed::new(1, false).joined(1);
        let reader = feed.reader(1, Seek::Oldest, |mut rx| {
            look_at_first(&mut rx);
        });
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        reader.join().unwrap();
    });
}

#[test]
fn every_second_message_is_read_by_one_and_the_others_by_the_other() {
    model_within(1, || {
        let feed = Feed::new(2, false).joined(1).joined(2);
        let readers = [0, 1].map(|part| {
            feed.reader(1 + part as usize, Seek::Oldest, move |mut rx| {
                rx.stride(part, 2).unwrap();
                assert_eq!(number(until(|| rx.try_pop()).unwrap()), part);
            })
        });
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// What a consumer of an overwriting channel gets, until all is sent: whole, in order, and what is missing
/// is told.
fn overtaken(messages: u64, batch: bool) {
    model_within(if batch { 1 } else { 3 }, move || {
        let feed = Feed::new(2, true).sent(2);
        let reader = feed.reader(1, Seek::Oldest, move |mut rx| {
            let mut next = rx.position();
            while next < messages {
                match rx.try_pop() {
                    Ok(message) => {
                        assert_eq!(number(message), next);
                        next += 1;
                    }
                    Err(Error::Lagged(lost)) => next += lost,
                    Err(Error::Empty) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
                assert_eq!(rx.position(), next);
            }
        });
        feed.produce(false, |mut tx, _| {
            if batch {
                let mut slots = tx.try_reserve(2).unwrap();
                slots.write(0, pair(2));
                slots.write(1, pair(3));
                slots.commit(2);
            } else {
                push_all(tx, 2..messages);
            }
        });
        reader.join().unwrap();
    });
}

#[test]
fn overtaken_readers_get_whole_messages_and_learn_what_they_lost() {
    overtaken(3, false);
}

#[test]
fn a_reservation_gives_up_the_oldest_and_tears_nothing() {
    overtaken(4, true);
}

/// Attempts until it works, sleeping in between, as `slipring::waiting` does.
fn sleeping<R>(sleeper: &Sleeper<'_>, mut attempt: impl FnMut() -> Result<R, Error>) -> R {
    let mut again = || match attempt() {
        Ok(done) => Some(done),
        Err(Error::Full | Error::Empty) => None,
        Err(other) => panic!("{other}"),
    };
    loop {
        let seen = sleeper.arm(Face::Doorbell).seen;
        if let Some(done) = again() {
            sleeper.disarm();
            return done;
        }
        while !sleeper.rung(seen) {
            sleeper.sleep(seen, u64::MAX);
            if let Some(done) = again() {
                sleeper.disarm();
                return done;
            }
        }
    }
}

/// One publish wakes all who sleep. (Where messages are overwritten it is the same code.)
#[test]
fn one_publish_wakes_all_consumers() {
    model_within(1, || {
        let feed = Feed::new(2, false);
        let readers = [1, 2].map(|seat| {
            let feed = feed.clone();
            thread::spawn(move || {
                feed.consume(seat, Seek::Oldest, true, |mut rx, sleeper| {
                    assert_eq!(number(sleeping(sleeper, || rx.try_pop())), 0);
                });
            })
        });
        feed.produce(true, |tx, _| push_all(tx, 0..1));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_producer_that_sleeps_is_woken_by_the_slowest() {
    model_within(1, || {
        let feed = Feed::new(1, false).joined(1);
        let other = feed.clone();
        let reader = thread::spawn(move || {
            other.consume(1, Seek::Oldest, true, |mut rx, sleeper| {
                for expected in 0..2 {
                    assert_eq!(number(sleeping(sleeper, || rx.try_pop())), expected);
                }
            });
        });
        feed.produce(true, |mut tx, sleeper| {
            for number in 0..2 {
                sleeping(sleeper, || {
                    tx.try_push(pair(number)).map_err(|failed| failed.error)
                });
            }
        });
        reader.join().unwrap();
    });
}

/// Whoever joins further behind takes back what was known to be free: what is granted is looked at anew.
#[test]
fn one_that_joins_behind_takes_back_what_was_known_to_be_free() {
    model(|| {
        let feed = Feed::new(2, false).sent(2);
        let joiner = feed.reader(1, Seek::Oldest, |_| ());
        feed.produce(false, |mut tx, _| {
            for commit in [1, 0] {
                if let Ok(slots) = tx.try_reserve(2) {
                    slots.commit(commit);
                }
            }
        });
        joiner.join().unwrap();
    });
}

//! Models one producer and several consumers. A consumer reads what was written, while others join,
//! leave, go back or are overtaken.

mod records;
mod watch;

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;
use slipring_core::end::{Endpoint, Pop, Push};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::layout::{Counters, SeatLine, SeatWords, Side, WaitCell};
use slipring_core::mem::{Racing, Slots};
use slipring_core::proto::broadcast::{
    Consumer, Mode, Overwriting, Producer, Ring, Seat, Seek, Waiting,
};
use slipring_core::seat::Peer;
use slipring_core::sync::{AtomicU64, Ordering};
use slipring_core::wait::{Notifier, Waiter, WakeMode};
use slipring_core::{CachedLimit, Error};

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

/// Runs `model` with three threads, or with two that wait for each other.
///
/// They have many more orders, so there are fewer preemptions, besides the switches at each wait.
fn model_within(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(body);
}

/// A mode, with its slots in a [`Feed`].
trait Modelled: Mode + Sized {
    fn slots(feed: &Feed<Self>) -> Self::Slots<'_, Pair>;
}

impl Modelled for Waiting {
    fn slots(feed: &Feed<Self>) -> Slots<'_, Pair> {
        let base = NonNull::new(feed.slots.as_ptr().cast_mut().cast()).unwrap();
        // SAFETY: there are that many messages, all initialised, for as long as `feed` is borrowed.
        unsafe { Slots::new(base, feed.capacity, &feed.shadow) }
    }
}

impl Modelled for Overwriting {
    fn slots(feed: &Feed<Self>) -> Racing<'_, Pair> {
        // SAFETY: a pair is two words.
        unsafe { Racing::new(&feed.words, feed.capacity) }.unwrap()
    }
}

/// The shared memory of a channel with two consumers.
struct Feed<M> {
    tail: AtomicU64,
    write_limit: AtomicU64,
    gating_set: AtomicU64,
    bells: [WaitCell; 2],
    lines: [SeatLine; 3],
    positions: [AtomicU64; 3],
    counters: [Counters; 3],
    kernel: Kernel,
    capacity: u64,
    /// The slots of a channel that waits.
    slots: Box<[UnsafeCell<Pair>]>,
    shadow: Box<[loom::cell::UnsafeCell<()>]>,
    /// The words of a channel that overwrites.
    words: Box<[AtomicU64]>,
    mode: PhantomData<fn() -> M>,
}

// SAFETY: loom's atomics and cells, and payloads that only the protocol under test touches, on threads
// that loom runs one at a time.
unsafe impl<M> Sync for Feed<M> {}
// SAFETY: as above.
unsafe impl<M> Send for Feed<M> {}

/// The number of words from slot to slot.
const STRIDE: usize = size_of::<Pair>() / 8;

impl Feed<Waiting> {
    fn waiting(capacity: usize) -> Arc<Self> {
        Feed::new(capacity)
    }
}

impl Feed<Overwriting> {
    fn overwriting(capacity: usize) -> Arc<Self> {
        Feed::new(capacity)
    }
}

impl<M: Modelled> Feed<M> {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Feed::of(capacity, capacity, capacity))
    }

    /// Makes the memory of a ring of `capacity`, with that many slots and loom cells.
    fn of(capacity: usize, slots: usize, cells: usize) -> Self {
        let feed = Feed {
            tail: AtomicU64::new(0),
            write_limit: AtomicU64::new(0),
            gating_set: AtomicU64::new(0),
            bells: Default::default(),
            lines: Default::default(),
            positions: Default::default(),
            counters: Default::default(),
            kernel: Kernel::new(false),
            capacity: capacity as u64,
            slots: (0..slots).map(|_| UnsafeCell::new([0; 2])).collect(),
            shadow: (0..cells).map(|_| Default::default()).collect(),
            words: (0..capacity * STRIDE).map(|_| Default::default()).collect(),
            mode: PhantomData,
        };
        for line in &feed.lines {
            line.take(0).unwrap();
        }
        feed
    }

    /// Returns the words of seat `seat`; seat 0 is the producer's.
    fn words_of(&self, seat: usize) -> SeatWords<'_> {
        SeatWords {
            line: &self.lines[seat],
            position: &self.positions[seat],
            counters: &self.counters[seat],
            pins: None,
        }
    }

    /// Returns the ring as the holder of seat `seat` sees it.
    fn ring<'m>(
        &'m self,
        seat: usize,
        consumers: &'m [SeatWords<'m>],
        notifier: Notifier<'m>,
    ) -> Ring<'m, Pair, M> {
        Ring {
            tail: &self.tail,
            write_limit: &self.write_limit,
            gating_set: &self.gating_set,
            consumers: Side::Many(consumers),
            slots: M::slots(self),
            lagged: &self.counters[seat].lagged,
            writable: true,
            notifier,
        }
    }

    fn seat(&self, seat: usize) -> Seat<'_> {
        Seat {
            position: &self.positions[seat],
            write_limit: &self.write_limit,
            gating_set: &self.gating_set,
            bit: 1 << (seat - 1),
            capacity: self.capacity,
        }
    }

    fn produce<R>(
        &self,
        sleepy: bool,
        body: impl FnOnce(Producer<'_, Pair, M>, &Waiter<'_>) -> R,
    ) -> R {
        let consumers = [self.words_of(1), self.words_of(2)];
        let os: &dyn slipring_core::wait::Os = if sleepy { &self.kernel } else { &NOBODY };
        let side = Side::Many(&consumers);
        let notifier = Notifier::new(&self.bells[1], side, &self.counters[0], false, os);
        let waiter = Waiter::new(&self.bells[0], 0, &self.counters[0], side, true, os);
        let mut cached_limit = CachedLimit::new();
        // SAFETY: this is the only producer, of words that only the model touches.
        let tx = unsafe { Producer::new(self.ring(0, &consumers, notifier), &mut cached_limit) };
        body(tx.unwrap(), &waiter)
    }

    fn consume<R>(
        &self,
        seat: usize,
        seek: Seek,
        sleepy: bool,
        body: impl FnOnce(Consumer<'_, Pair, M>, &Waiter<'_>) -> R,
    ) -> R {
        let consumers = [self.words_of(1), self.words_of(2)];
        let os: &dyn slipring_core::wait::Os = if sleepy { &self.kernel } else { &NOBODY };
        let producer = Side::One(self.words_of(0));
        let notifier = Notifier::new(&self.bells[0], producer, &self.counters[seat], false, os);
        let bit = seat - 1;
        let waiter = Waiter::new(
            &self.bells[1],
            bit,
            &self.counters[seat],
            producer,
            false,
            os,
        );
        let mut cached_limit = CachedLimit::new();
        let peer = Peer::producer(&self.lines[0], &self.lines[seat]);
        let ring = self.ring(seat, &consumers, notifier);
        // SAFETY: this is the only consumer in this seat, of words that only the model touches.
        let rx = unsafe { Consumer::new(ring, self.seat(seat), peer, &mut cached_limit, seek) };
        let result = body(rx.unwrap(), &waiter);
        self.seat(seat).leave();
        result
    }
}

fn push_all<M: Mode>(mut tx: Producer<'_, Pair, M>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        until(|| tx.try_push(pair(number)).map_err(|failed| failed.error())).unwrap();
    }
}

fn pop_all(rx: &mut Consumer<'_, Pair>, numbers: std::ops::Range<u64>) {
    for expected in numbers {
        assert_eq!(number(until(|| rx.try_pop()).unwrap()), expected);
    }
}

/// Reads the first message in place, and does not release it.
fn look_at_first(rx: &mut Consumer<'_, Pair>) {
    until(|| rx.ensure(1)).unwrap();
    let messages = rx.try_read_batch(1).unwrap();
    assert_eq!(number(*messages.iter().next().unwrap()), 0);
    messages.release(0);
}

impl<M: Modelled> Feed<M> {
    /// Makes `seat` stand at the beginning, before any thread runs.
    fn joined(self: Arc<Self>, seat: usize) -> Arc<Self> {
        self.gating_set
            .fetch_or(self.seat(seat).bit, Ordering::Relaxed);
        self
    }

    /// Sends `messages` messages before any thread runs; the gating set's consumers release them at
    /// once.
    fn sent(self: Arc<Self>, messages: u64) -> Arc<Self> {
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
        self: &Arc<Self>,
        seat: usize,
        seek: Seek,
        body: impl FnOnce(Consumer<'_, Pair, M>) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let feed = self.clone();
        thread::spawn(move || feed.consume(seat, seek, false, |rx, _| body(rx)))
    }
}

#[test]
fn two_consumers_each_see_all() {
    model_within(1, || {
        let feed = Feed::waiting(2).joined(1).joined(2);
        let readers =
            [1, 2].map(|seat| feed.reader(seat, Seek::Oldest, |mut rx| pop_all(&mut rx, 0..2)));
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// Checks the write limit: a consumer that joins reads from some message on, and the producer
/// writes none that it is reading.
fn joins_while_the_producer_runs(capacity: usize, sent: u64, messages: u64, seek: Seek) {
    // One slot has all turns of the two; two slots only have more of them.
    let preemptions = if capacity == 1 { 3 } else { 2 };
    model_within(preemptions, move || {
        let feed = Feed::waiting(capacity).sent(sent);
        let late = feed.reader(1, seek, move |mut rx| {
            let begun = rx.position();
            pop_all(&mut rx, begun..messages);
        });
        feed.produce(false, |tx, _| push_all(tx, sent..messages));
        late.join().unwrap();
    });
}

/// The producer waits for a consumer that joins at the oldest message while it runs.
#[test]
fn producers_wait_for_joins_at_oldest() {
    joins_while_the_producer_runs(1, 0, 2, Seek::Oldest);
    joins_while_the_producer_runs(2, 2, 4, Seek::Oldest);
}

/// The producer waits for a consumer that joins at the newest message while it runs.
#[test]
fn producers_wait_for_joins_at_newest() {
    joins_while_the_producer_runs(1, 0, 2, Seek::Newest);
}

/// The producer waits for a consumer that joins at a given message number while it runs.
#[test]
fn producers_wait_for_joins_at_numbers() {
    joins_while_the_producer_runs(2, 2, 4, Seek::To(1));
}

/// The producer waits for a consumer that goes back to an earlier message.
#[test]
fn producers_wait_for_backward_seeks() {
    model(|| {
        let feed = Feed::waiting(2).joined(1).sent(2);
        let reader = feed.reader(1, Seek::Newest, |mut rx| {
            let begun = rx.seek(Seek::To(1)).unwrap();
            pop_all(&mut rx, begun..4);
        });
        feed.produce(false, |tx, _| push_all(tx, 2..4));
        reader.join().unwrap();
    });
}

/// Going forward, the consumer gives up only messages that it has read.
#[test]
fn seeking_forward_frees_only_read_messages() {
    model_within(2, || {
        let feed = Feed::waiting(1).joined(1);
        let reader = feed.reader(1, Seek::Oldest, |mut rx| {
            look_at_first(&mut rx);
            assert_eq!(rx.seek(Seek::Newest), Ok(1));
            pop_all(&mut rx, 1..2);
        });
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        reader.join().unwrap();
    });
}

/// A consumer that passes over messages frees none before it has read it. Nor does the producer
/// write a slot when the next message of ours lies further on.
#[test]
fn a_stride_frees_only_read_messages() {
    model_within(2, || {
        let feed = Feed::waiting(1).joined(1);
        let reader = feed.reader(1, Seek::Oldest, |mut rx| {
            look_at_first(&mut rx);
            rx.stride(1, 2).unwrap();
        });
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        reader.join().unwrap();
    });
}

/// Nor does the producer write a message that a leaving consumer has not released.
#[test]
fn one_that_leaves_has_read() {
    model_within(2, || {
        let feed = Feed::waiting(1).joined(1);
        let reader = feed.reader(1, Seek::Oldest, |mut rx| {
            look_at_first(&mut rx);
        });
        feed.produce(false, |tx, _| push_all(tx, 0..2));
        reader.join().unwrap();
    });
}

/// One consumer reads every second message, and another one reads the others.
#[test]
fn two_strides_share_the_messages() {
    model_within(1, || {
        let feed = Feed::waiting(2).joined(1).joined(2);
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

/// Reads from an overwriting channel until all is sent: messages are whole and in order, and lost
/// ones are reported.
fn overtaken(messages: u64, batch: bool) {
    model_within(if batch { 1 } else { 3 }, move || {
        let feed = Feed::overwriting(2).sent(2);
        let shared = feed.clone();
        let reader = feed.reader(1, Seek::Oldest, move |mut rx| {
            let (mut next, mut missing) = (rx.position(), 0);
            while next < messages {
                match rx.try_pop() {
                    Ok(message) => {
                        assert_eq!(number(message), next);
                        next += 1;
                    }
                    Err(Error::Lagged(lost)) => {
                        next += lost;
                        missing += lost;
                    }
                    Err(Error::Empty) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
                assert_eq!(rx.position(), next);
            }
            let counted = shared.counters[1].lagged.load(Ordering::Relaxed);
            assert_eq!(counted, missing);
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

/// Readers that were overtaken get whole messages and learn how many they lost.
#[test]
fn overtaken_readers_learn_what_they_lost() {
    overtaken(3, false);
}

/// A reservation gives up the oldest messages, and no reader gets a torn one.
#[test]
fn a_reservation_tears_no_message() {
    overtaken(4, true);
}

/// Attempts until it works, and sleeps in between, as `wait/block.rs` of `slipring` does.
fn sleeping<R>(waiter: &Waiter<'_>, mut attempt: impl FnMut() -> Result<R, Error>) -> R {
    let mut again = || match attempt() {
        Ok(done) => Some(done),
        Err(Error::Full | Error::Empty) => None,
        Err(other) => panic!("{other}"),
    };
    loop {
        let seen = waiter.arm(WakeMode::Doorbell).seen;
        if let Some(done) = again() {
            waiter.disarm();
            return done;
        }
        while !waiter.rung(seen) {
            waiter.sleep(seen, u64::MAX);
            if let Some(done) = again() {
                waiter.disarm();
                return done;
            }
        }
    }
}

/// One publish wakes all waiters. (On an overwriting channel the code is the same.)
#[test]
fn one_publish_wakes_all_consumers() {
    model_within(1, || {
        let feed = Feed::waiting(2);
        let readers = [1, 2].map(|seat| {
            let feed = feed.clone();
            thread::spawn(move || {
                feed.consume(seat, Seek::Oldest, true, |mut rx, waiter| {
                    assert_eq!(number(sleeping(waiter, || rx.try_pop())), 0);
                });
            })
        });
        feed.produce(true, |tx, _| push_all(tx, 0..1));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A producer that sleeps on a full ring is woken by the slowest reader.
#[test]
fn the_slowest_reader_wakes_the_producer() {
    model_within(1, || {
        let feed = Feed::waiting(1).joined(1);
        let other = feed.clone();
        let reader = thread::spawn(move || {
            other.consume(1, Seek::Oldest, true, |mut rx, waiter| {
                for expected in 0..2 {
                    assert_eq!(number(sleeping(waiter, || rx.try_pop())), expected);
                }
            });
        });
        feed.produce(true, |mut tx, waiter| {
            for number in 0..2 {
                sleeping(waiter, || {
                    tx.try_push(pair(number)).map_err(|failed| failed.error())
                });
            }
        });
        reader.join().unwrap();
    });
}

/// A consumer that joins further behind takes back what was known to be free: the producer looks
/// anew at what it grants.
#[test]
fn joining_behind_revokes_free_space() {
    model(|| {
        let feed = Feed::waiting(2).sent(2);
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

//! Models a ring that grows and shrinks: no message is lost, torn or read from another ring's memory, and no memory goes
//! while an end uses it.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use slipring_core::backing::Backing;
use slipring_core::end::{Endpoint, Pop, Push};
use slipring_core::layout::{Geometry, Growth, Kind, RingWords, RingsLine, WhenFull};
use slipring_core::mem::{Classes, Slots};
use slipring_core::proto::spsc;
use slipring_core::rings::{Resize, Rings};
use slipring_core::seat::Peer;
use slipring_core::sync::AtomicU64;
use slipring_core::{CachedLimit, Error, ResizeError};

use crate::{Memory, model, until};

type Producer<'m> = spsc::Producer<'m, u64>;
type Consumer<'m> = spsc::Consumer<'m, u64>;
type Shadow = Box<[loom::cell::UnsafeCell<()>]>;

/// Classes of 1, 2 and 4 slots.
const GEOMETRY: Geometry = Geometry {
    kind: Kind::Spsc,
    when_full: WhenFull::Wait,
    capacity: 1,
    slot_size: 8,
    slot_align: 8,
    producers: 1,
    consumers: 1,
    skew: 0,
    pins: 0,
    pool: 0,
    growth: Some(Growth {
        max_capacity: 4,
        grain: 4096,
    }),
};

/// A channel that can grow, and its data part.
struct Growing {
    memory: Arc<Memory>,
    line: RingsLine,
    passed: AtomicU64,
    data: Box<[UnsafeCell<u64>]>,
    shadows: [Shadow; 3],
}

// SAFETY: as for `Memory`.
unsafe impl Sync for Growing {}
// SAFETY: as for `Memory`.
unsafe impl Send for Growing {}

/// Memory that comes and goes: both are writes, which no end may see.
impl Backing for Growing {
    fn back(&self, at: u64, _: u64) -> Result<(), Error> {
        self.wipe(at);
        Ok(())
    }

    fn give_back(&self, at: u64, _: u64) {
        self.wipe(at);
    }
}

impl Growing {
    fn new() -> Arc<Growing> {
        let cells = |count| (0..count).map(|_| Default::default()).collect();
        Arc::new(Growing {
            memory: Memory::slots(1),
            line: RingsLine::default(),
            passed: AtomicU64::new(0),
            data: (0..GEOMETRY.data_len() / 8)
                .map(|_| UnsafeCell::new(0))
                .collect(),
            shadows: [cells(1), cells(2), cells(4)],
        })
    }

    fn wipe(&self, at: u64) {
        let class = (0..3).find(|class| GEOMETRY.area_of(*class).unwrap().start == at);
        for cell in &self.shadows[class.unwrap() as usize] {
            cell.with_mut(|_| ());
        }
    }

    /// Calls `body` with the channel's rings.
    fn with_rings<R>(&self, body: impl FnOnce(&Rings<'_>, NonNull<u8>) -> R) -> R {
        let shadows: Vec<&[_]> = self.shadows.iter().map(|shadow| &**shadow).collect();
        let data = NonNull::new(self.data.as_ptr().cast_mut().cast()).unwrap();
        // SAFETY: the data part has that length, and lives as long as `self` is borrowed.
        let classes = unsafe { Classes::new(data, GEOMETRY, &shadows) };
        let words = RingWords {
            line: &self.line,
            passed: &self.passed,
        };
        body(&Rings::new(words, classes, Some(self)), data)
    }

    fn ring<'m>(
        &'m self,
        role: usize,
        rings: &'m Rings<'m>,
        data: NonNull<u8>,
    ) -> spsc::Ring<'m, u64> {
        spsc::Ring {
            // SAFETY: the first class has one slot, at the start of the data part.
            slots: unsafe { Slots::new(data.cast(), 1, &self.shadows[0]) },
            rings: Some(rings),
            ..self.memory.spsc(self.memory.notifier(role))
        }
    }

    fn producer<R>(&self, body: impl FnOnce(Producer<'_>) -> R) -> R {
        let (peer, mut limit) = (
            Peer::consumer(&self.memory.consumer, || true).unwrap(),
            CachedLimit::new(),
        );
        self.with_rings(|rings, data| {
            let ring = self.ring(0, rings, data);
            // SAFETY: each model has one producer at a time.
            body(unsafe { spsc::Producer::new(ring, peer, &mut limit) }.unwrap())
        })
    }

    fn consumer<R>(&self, body: impl FnOnce(Consumer<'_>) -> R) -> R {
        let (peer, mut limit) = (
            Peer::producer(&self.memory.producer, &self.memory.consumer),
            CachedLimit::new(),
        );
        self.with_rings(|rings, data| {
            let ring = self.ring(1, rings, data);
            // SAFETY: each model has one consumer at a time.
            body(unsafe { spsc::Consumer::new(ring, peer, &mut limit) }.unwrap())
        })
    }
}

/// What a producer does: a message, or a resize.
#[derive(Clone, Copy)]
enum Step {
    Push,
    Resize(u64),
}
use Step::{Push as P, Resize as R};

fn push(tx: &mut Producer<'_>) {
    let number = tx.position();
    until(|| tx.try_push(number).map_err(|failed| failed.error())).unwrap();
}

fn pop(rx: &mut Consumer<'_>) {
    let number = rx.position();
    assert_eq!(until(|| rx.try_pop()), Ok(number));
}

/// Runs the steps, which end in a ring of one or two, beside a consumer of so many messages. Hands messages over in all other rings
/// then, which need the memory of older ones.
fn run(steps: &'static [Step], messages: u64) {
    model(move || {
        let channel = Growing::new();
        let other = channel.clone();
        let thread = loom::thread::spawn(move || {
            other.memory.any_turn();
            other.producer(|mut tx| {
                for step in steps {
                    match step {
                        P => push(&mut tx),
                        // Busy is an answer, too.
                        R(capacity) => match tx.resize(*capacity) {
                            Ok(()) => assert_eq!(tx.capacity() as u64, *capacity),
                            refused => assert_eq!(refused, Err(ResizeError::Busy)),
                        },
                    }
                }
            });
        });
        channel.memory.any_turn();
        channel.consumer(|mut rx| {
            for _ in 0..messages {
                pop(&mut rx);
            }
            rx.settle(u32::MAX);
            assert_eq!(rx.try_pop(), Err(Error::Empty));
        });
        thread.join().unwrap();
        channel.consumer(|mut rx| rx.settle(u32::MAX));
        let last = channel.producer(|tx| tx.capacity() as u64);
        for capacity in [4, 3 - last] {
            channel.producer(|mut tx| {
                tx.resize(capacity).unwrap();
                push(&mut tx);
            });
            channel.consumer(|mut rx| pop(&mut rx));
        }
    });
}

#[test]
fn a_ring_grows_between_two_messages() {
    run(&[P, R(2), P, P], 3);
}

#[test]
fn a_ring_grows_and_shrinks() {
    run(&[P, R(2), P, R(1), P], 3);
}

/// Rings without a message are crossed, too.
#[test]
fn empty_rings_are_crossed() {
    run(&[R(4), R(2), P], 1);
}

/// The memory of a class serves again once it was given back.
#[test]
fn areas_serve_again() {
    run(&[R(2), P, R(1), P, R(2), P], 3);
}

/// A producer that joins late goes on in the newest ring, and spares the memory of those that are still read.
#[test]
fn a_late_producer_spares_older_rings() {
    model(|| {
        let channel = Growing::new();
        channel.producer(|mut tx| {
            push(&mut tx);
            tx.resize(2).unwrap();
            push(&mut tx);
        });
        let other = channel.clone();
        let thread = loom::thread::spawn(move || {
            other.memory.any_turn();
            other.producer(|mut tx| {
                assert_eq!(tx.capacity(), 2);
                let _ = tx.resize(1);
                push(&mut tx);
            });
        });
        channel.memory.any_turn();
        channel.consumer(|mut rx| (0..3).for_each(|_| pop(&mut rx)));
        thread.join().unwrap();
    });
}

/// A consumer that joins late finds its ring by its position, and gives back those before.
#[test]
fn a_late_consumer_finds_its_ring() {
    model(|| {
        let channel = Growing::new();
        let other = channel.clone();
        let thread = loom::thread::spawn(move || {
            other.memory.any_turn();
            other.producer(|mut tx| {
                push(&mut tx);
                tx.resize(2).unwrap();
                push(&mut tx);
                let _ = tx.resize(1);
                push(&mut tx);
            });
        });
        for _ in 0..3 {
            channel.memory.any_turn();
            channel.consumer(|mut rx| pop(&mut rx));
        }
        thread.join().unwrap();
    });
}

/// Whoever asks for the capacity never hears of an older one than before.
#[test]
fn capacities_come_in_order() {
    model(|| {
        let channel = Growing::new();
        let other = channel.clone();
        let thread = loom::thread::spawn(move || {
            other.memory.any_turn();
            other.producer(|mut tx| {
                tx.resize(4).unwrap();
                tx.resize(2).unwrap();
            });
        });
        channel.consumer(|rx| {
            channel.memory.any_turn();
            let seen = [rx.capacity(), rx.capacity()];
            assert!(
                [[1, 1], [1, 4], [1, 2], [4, 4], [4, 2], [2, 2]].contains(&seen),
                "{seen:?}"
            );
        });
        thread.join().unwrap();
    });
}

//! Loom models of the shipped protocol code: every interleaving, and every stale value that the
//! orderings allow, of a few messages between two threads.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p slipring-core --test loom --release
//! ```
//!
//! The memory is made of loom's atomics; payload bytes are real memory with a shadow of loom cells
//! (see `mem.rs`), so that two accesses which nothing orders are a failed model even where the
//! values happen to be right. Which ordering is held by which model: `verify/README.md`, written
//! by `verify/orderings.py`, which weakens each in turn.
//!
//! Not to be modelled here: death, kernel locks, `membarrier`, and SeqCst accesses (loom takes them
//! for acquire and release).
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broadcast;
mod bytes;
mod ends;
mod header;
mod spsc;
mod wake;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use slipring_core::layout::{Bell, Counters, SeatLine, SeatWords, Side};
use slipring_core::mem::{Area, Slots};
use slipring_core::seat::Peer;
use slipring_core::sync::{AtomicU32, AtomicU64, Ordering};
use slipring_core::wait::{Os, Reach, Ringer};
use slipring_core::{Error, Lease, bytes as core_bytes, spsc as core_spsc};

/// A preemption is a switch of threads that neither of them asked for. Three of them, besides the
/// switches at each wait, show every weakened ordering that loom can see (`verify/README.md`) in a
/// second. `LOOM_MAX_PREEMPTIONS=5` takes ten, and no limit more than six minutes.
const PREEMPTIONS: usize = 3;

fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(body);
}

/// Runs `first` on a thread of its own and `second` on this one, in every order in which they may
/// begin, and waits for both.
fn both(
    memory: Arc<Memory>,
    first: impl FnOnce(&Memory) + Send + 'static,
    second: impl FnOnce(&Memory),
) {
    let other = memory.clone();
    let thread = loom::thread::spawn(move || {
        other.any_turn();
        first(&other);
    });
    memory.any_turn();
    second(&memory);
    thread.join().unwrap();
}

/// Asks again, giving way to the other thread, as long as the answer is `Full` or `Empty`.
fn until<T>(mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match ask() {
            Err(Error::Full | Error::Empty) => loom::thread::yield_now(),
            answer => return answer,
        }
    }
}

/// An operating system whose threads never sleep.
struct Nobody;
static NOBODY: Nobody = Nobody;

impl Os for Nobody {
    fn sleep(&self, _: &AtomicU32, _: u32, _: u64) {
        unreachable!("nobody sleeps");
    }

    fn wake(&self, _: &AtomicU32) {
        unreachable!("nobody is woken");
    }

    fn signal(&self, _: usize) {
        unreachable!("nobody polls");
    }

    fn now(&self) -> u64 {
        0
    }

    fn barrier(&self) -> Reach {
        Reach::Nobody
    }
}

/// The shared memory of a channel, as a test makes it: words, two seats, and payload bytes.
struct Memory {
    tail: AtomicU64,
    head: AtomicU64,
    messages: [AtomicU64; 2],
    /// The producer's and the consumer's.
    bells: [Bell; 2],
    counters: [Counters; 2],
    kernel: wake::Kernel,
    producer: SeatLine,
    consumer: SeatLine,
    words: Box<[UnsafeCell<u64>]>,
    shadow: Box<[loom::cell::UnsafeCell<()>]>,
    /// Of `bytes`: the length of the ring, less than the words by the slack.
    ring: u64,
    turns: AtomicU64,
    /// What a program keeps beside the channel.
    note: AtomicU64,
}

// SAFETY: loom's atomics and cells, and payload words that only the protocol under test touches,
// on threads that loom runs one at a time.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    /// An `spsc` ring of `capacity` words, both seats taken.
    fn slots(capacity: usize) -> Arc<Memory> {
        Memory::at(capacity, 0, 0)
    }

    /// As `slots`, with sleepers that have a barrier.
    fn with_barriers(capacity: usize) -> Arc<Memory> {
        Memory::made(capacity, 0, 0, true)
    }

    /// A `bytes` ring with a slack of the same length, both seats taken.
    fn records(ring: u64) -> Arc<Memory> {
        Memory::at(ring as usize / 4, ring, 0)
    }

    fn at(words: usize, ring: u64, position: u64) -> Arc<Memory> {
        Memory::made(words, ring, position, false)
    }

    fn made(words: usize, ring: u64, position: u64, barriers: bool) -> Arc<Memory> {
        let memory = Memory {
            tail: AtomicU64::new(position),
            head: AtomicU64::new(position),
            messages: Default::default(),
            bells: Default::default(),
            counters: Default::default(),
            kernel: wake::Kernel::new(barriers),
            producer: SeatLine::default(),
            consumer: SeatLine::default(),
            words: (0..words).map(|_| UnsafeCell::new(0)).collect(),
            shadow: (0..words).map(|_| Default::default()).collect(),
            ring,
            turns: AtomicU64::new(0),
            note: AtomicU64::new(0),
        };
        memory.producer.take(position).unwrap();
        memory.consumer.take(position).unwrap();
        Arc::new(memory)
    }

    /// A point at which the other thread may take over. Loom looks for a race only between an access
    /// and the one before it to the same word: a thread that loads a word and then stores it (as a
    /// handle does that resumes there) hides what others did before its load. Relaxed, so that it
    /// orders nothing in the model itself.
    fn any_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn base<T>(&self) -> NonNull<T> {
        NonNull::new(self.words.as_ptr().cast_mut().cast()).unwrap()
    }

    /// How the end `role` (0 writes, 1 reads) wakes the other: nobody sleeps in most models.
    fn ringer(&self, role: usize) -> Ringer<'_> {
        let (sleepers, mine) = (self.side(1 - role), &self.counters[role]);
        Ringer::new(&self.bells[1 - role], sleepers, mine, false, &NOBODY)
    }

    /// The only seat of a side.
    fn side(&self, role: usize) -> Side<'_> {
        let line = [&self.producer, &self.consumer][role];
        let position = [&self.tail, &self.head][role];
        let counters = &self.counters[role];
        Side::One(SeatWords {
            line,
            position,
            counters,
        })
    }

    fn spsc<'m>(&'m self, bell: Ringer<'m>) -> core_spsc::Ring<'m, u64> {
        core_spsc::Ring {
            tail: &self.tail,
            head: &self.head,
            // SAFETY: so many words, all initialised, for as long as `self` is borrowed.
            slots: unsafe { Slots::new(self.base(), self.words.len() as u64, &self.shadow) },
            writable: true,
            bell,
        }
    }

    fn bytes(&self, role: usize) -> core_bytes::Ring<'_> {
        let slack = self.words.len() as u64 * 8 - self.ring;
        core_bytes::Ring {
            tail: &self.tail,
            head: &self.head,
            // SAFETY: ring and slack, all initialised, for as long as `self` is borrowed.
            area: unsafe { Area::new(self.base(), self.ring, slack, &self.shadow) },
            messages: &self.messages[role],
            writable: true,
            bell: self.ringer(role),
        }
    }

    fn spsc_producer<R>(&self, body: impl FnOnce(core_spsc::Producer<'_, u64>) -> R) -> R {
        self.producer_with(self.ringer(0), body)
    }

    fn producer_with<R>(
        &self,
        bell: Ringer<'_>,
        body: impl FnOnce(core_spsc::Producer<'_, u64>) -> R,
    ) -> R {
        let (peer, mut lease) = (
            Peer::consumer(&self.consumer, || true).unwrap(),
            Lease::new(),
        );
        // SAFETY: each model has one producer at a time.
        body(unsafe { core_spsc::Producer::new(self.spsc(bell), peer, &mut lease) }.unwrap())
    }

    fn spsc_consumer<R>(&self, body: impl FnOnce(core_spsc::Consumer<'_, u64>) -> R) -> R {
        self.consumer_with(self.ringer(1), body)
    }

    fn consumer_with<R>(
        &self,
        bell: Ringer<'_>,
        body: impl FnOnce(core_spsc::Consumer<'_, u64>) -> R,
    ) -> R {
        let (peer, mut lease) = (Peer::producer(&self.producer, &self.consumer), Lease::new());
        // SAFETY: each model has one consumer at a time.
        body(unsafe { core_spsc::Consumer::new(self.spsc(bell), peer, &mut lease) }.unwrap())
    }

    fn bytes_producer<R>(&self, body: impl FnOnce(core_bytes::Producer<'_>) -> R) -> R {
        let (peer, mut lease) = (
            Peer::consumer(&self.consumer, || true).unwrap(),
            Lease::new(),
        );
        // SAFETY: each model has one producer at a time.
        body(unsafe { core_bytes::Producer::new(self.bytes(0), peer, &mut lease) }.unwrap())
    }

    fn bytes_consumer<R>(&self, body: impl FnOnce(core_bytes::Consumer<'_>) -> R) -> R {
        let (peer, mut lease) = (Peer::producer(&self.producer, &self.consumer), Lease::new());
        // SAFETY: each model has one consumer at a time.
        body(unsafe { core_bytes::Consumer::new(self.bytes(1), peer, &mut lease) }.unwrap())
    }
}

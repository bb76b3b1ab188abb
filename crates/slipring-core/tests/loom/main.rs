//! Models the shipped protocol code under loom: a few messages between two threads, in every
//! interleaving, and with every stale value that the orderings allow.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p slipring-core --test loom --release
//! ```
//!
//! The memory is made of loom's atomics. Payload bytes are real memory with a shadow of loom cells
//! (see `mem.rs`). So two accesses that no ordering separates are a failed model, even if the
//! values happen to be right. `verify/README.md` says which model holds which ordering.
//! `verify/orderings.py` writes it, by weakening each in turn.
//!
//! These cannot be modelled here: death, kernel locks, `membarrier`, and SeqCst accesses (loom
//! takes them for acquire and release).
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broadcast;
mod bytes;
mod ends;
mod growth;
mod header;
mod mpmc;
mod outside;
mod spsc;
mod topic;
mod wake;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use slipring_core::layout::{Counters, SeatLine, SeatWords, Side, WaitCell};
use slipring_core::mem::{ByteRing, Slots};
use slipring_core::proto::{bytes as core_bytes, spsc as core_spsc};
use slipring_core::seat::Peer;
use slipring_core::sync::{AtomicU32, AtomicU64, Ordering};
use slipring_core::wait::{Notifier, Os, Reach};
use slipring_core::{CachedLimit, Error};

/// The number of preemptions: switches of threads that neither of them asked for.
///
/// Three of them, besides the switches at each wait, show every weakened ordering that loom can see
/// (`verify/README.md`) in a second. `LOOM_MAX_PREEMPTIONS=5` takes ten, and no limit more than six
/// minutes.
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

/// Asks again as long as the answer is `Full` or `Empty`, giving way to the other thread.
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
    fn sleep(&self, _: &AtomicU32, _: u32, _: u64, _: u64) {
        unreachable!("nobody sleeps");
    }

    fn wake(&self, _: &AtomicU32, _: u64) {
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
    /// The wait cells: the producer's and the consumer's.
    bells: [WaitCell; 2],
    counters: [Counters; 2],
    kernel: wake::Kernel,
    producer: SeatLine,
    consumer: SeatLine,
    words: Box<[UnsafeCell<u64>]>,
    shadow: Box<[loom::cell::UnsafeCell<()>]>,
    /// For `bytes`: the length of the ring, which is shorter than the words by the slack.
    ring: u64,
    turns: AtomicU64,
    /// Data that a program keeps beside the channel.
    note: AtomicU64,
}

// SAFETY: loom's atomics and cells, and payload words that only the protocol under test touches,
// on threads that loom runs one at a time.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    /// Makes an `spsc` ring of `capacity` words, both seats taken.
    fn slots(capacity: usize) -> Arc<Memory> {
        Memory::at(capacity, 0, 0)
    }

    /// Makes the same as `slots`, with waiters that have a barrier.
    fn with_barriers(capacity: usize) -> Arc<Memory> {
        Memory::made(capacity, 0, 0, true)
    }

    /// Makes a `bytes` ring with a slack of the same length, both seats taken.
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

    /// Marks a point at which the other thread may take over.
    ///
    /// Loom looks for a race only between an access and the one before it to the same word. A
    /// thread may load a word and then store it, as a handle does that resumes there. That hides
    /// what others did before its load. Relaxed, so that it orders nothing in the model itself.
    fn any_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn base<T>(&self) -> NonNull<T> {
        NonNull::new(self.words.as_ptr().cast_mut().cast()).unwrap()
    }

    /// Returns the notifier of the end `role` (0 writes, 1 reads). In most models no thread sleeps.
    fn notifier(&self, role: usize) -> Notifier<'_> {
        let (sleepers, mine) = (self.side(1 - role), &self.counters[role]);
        Notifier::new(&self.bells[1 - role], sleepers, mine, false, &NOBODY)
    }

    /// Returns the words of a role's only seat.
    fn seat(&self, role: usize) -> SeatWords<'_> {
        SeatWords {
            line: [&self.producer, &self.consumer][role],
            position: [&self.tail, &self.head][role],
            counters: &self.counters[role],
            pins: None,
        }
    }

    /// Returns the only seat of a side.
    fn side(&self, role: usize) -> Side<'_> {
        Side::One(self.seat(role))
    }

    fn spsc<'m>(&'m self, notifier: Notifier<'m>) -> core_spsc::Ring<'m, u64> {
        core_spsc::Ring {
            tail: &self.tail,
            head: &self.head,
            // SAFETY: there are that many words, all initialised, for as long as `self` is
            // borrowed.
            slots: unsafe { Slots::new(self.base(), self.words.len() as u64, &self.shadow) },
            writable: true,
            notifier,
            rings: None,
        }
    }

    fn bytes(&self, role: usize) -> core_bytes::Ring<'_> {
        let slack = self.words.len() as u64 * 8 - self.ring;
        core_bytes::Ring {
            tail: &self.tail,
            head: &self.head,
            // SAFETY: there are ring and slack, all initialised, for as long as `self` is borrowed.
            records: unsafe { ByteRing::new(self.base(), self.ring, slack, &self.shadow) },
            messages: &self.messages[role],
            writable: true,
            notifier: self.notifier(role),
            rings: None,
        }
    }

    fn spsc_producer<R>(&self, body: impl FnOnce(core_spsc::Producer<'_, u64>) -> R) -> R {
        self.producer_with(self.notifier(0), body)
    }

    fn producer_with<R>(
        &self,
        notifier: Notifier<'_>,
        body: impl FnOnce(core_spsc::Producer<'_, u64>) -> R,
    ) -> R {
        let (peer, mut cached_limit) = (
            Peer::consumer(&self.consumer, || true).unwrap(),
            CachedLimit::new(),
        );
        // SAFETY: each model has one producer at a time.
        body(
            unsafe { core_spsc::Producer::new(self.spsc(notifier), peer, &mut cached_limit) }
                .unwrap(),
        )
    }

    fn spsc_consumer<R>(&self, body: impl FnOnce(core_spsc::Consumer<'_, u64>) -> R) -> R {
        self.consumer_with(self.notifier(1), body)
    }

    fn consumer_with<R>(
        &self,
        notifier: Notifier<'_>,
        body: impl FnOnce(core_spsc::Consumer<'_, u64>) -> R,
    ) -> R {
        let peer = Peer::producer(&self.producer, &self.consumer);
        self.consumer_of(peer, notifier, body)
    }

    fn consumer_of<R>(
        &self,
        peer: Peer<'_>,
        notifier: Notifier<'_>,
        body: impl FnOnce(core_spsc::Consumer<'_, u64>) -> R,
    ) -> R {
        let mut cached_limit = CachedLimit::new();
        // SAFETY: each model has one consumer at a time.
        body(
            unsafe { core_spsc::Consumer::new(self.spsc(notifier), peer, &mut cached_limit) }
                .unwrap(),
        )
    }

    fn bytes_producer<R>(&self, body: impl FnOnce(core_bytes::Producer<'_>) -> R) -> R {
        let (peer, mut cached_limit) = (
            Peer::consumer(&self.consumer, || true).unwrap(),
            CachedLimit::new(),
        );
        // SAFETY: each model has one producer at a time.
        body(unsafe { core_bytes::Producer::new(self.bytes(0), peer, &mut cached_limit) }.unwrap())
    }

    fn bytes_consumer<R>(&self, body: impl FnOnce(core_bytes::Consumer<'_>) -> R) -> R {
        let (peer, mut cached_limit) = (
            Peer::producer(&self.producer, &self.consumer),
            CachedLimit::new(),
        );
        // SAFETY: each model has one consumer at a time.
        body(unsafe { core_bytes::Consumer::new(self.bytes(1), peer, &mut cached_limit) }.unwrap())
    }
}

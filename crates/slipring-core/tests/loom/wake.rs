//! The wake-up protocol: whoever sleeps with nothing to read (or no room) is woken. The model's sleep
//! has no end but the wake, so a lost one is a deadlock, which loom reports.
//!
//! *Fenced* and *mixed*; the asymmetric variant's barrier is no word in memory, and SPIN's business
//! (`verify/spin`).

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use slipring_core::sync::{AtomicU32, Ordering, fence};
use slipring_core::wait::{Face, Os, Reach, Ringer, SEEN_WITHIN, Sleeper};
use slipring_core::{Error, spsc};

use crate::{Memory, both, model};

/// The kernel, as far as futexes go: it compares under the lock that a waker takes as well.
pub(crate) struct Kernel {
    /// The bytes in the pipe.
    lock: Mutex<u32>,
    woken: Condvar,
    /// Whether it has barriers. They reach nobody but their caller: as for publishers whose process is
    /// not registered, which therefore fence by themselves.
    barriers: bool,
}

impl Kernel {
    pub(crate) fn new(barriers: bool) -> Kernel {
        Kernel {
            lock: Mutex::new(0),
            woken: Condvar::new(),
            barriers,
        }
    }
}

impl Os for Kernel {
    fn sleep(&self, doorbell: &AtomicU32, seen: u32, at_most: u64) {
        // A short sleep may end at any time; let it end at once.
        if at_most <= SEEN_WITHIN {
            return loom::thread::yield_now();
        }
        let guard = self.lock.lock().unwrap();
        if doorbell.load(Ordering::Relaxed) == seen {
            drop(self.woken.wait(guard).unwrap());
        }
    }

    fn wake(&self, _doorbell: &AtomicU32) {
        let _guard = self.lock.lock().unwrap();
        self.woken.notify_all();
    }

    fn signal(&self, _seat: usize) {
        *self.lock.lock().unwrap() += 1;
        self.woken.notify_all();
    }

    fn now(&self) -> u64 {
        0
    }

    fn barrier(&self) -> Reach {
        match self.barriers {
            true => {
                fence(Ordering::SeqCst);
                Reach::Everybody
            }
            false => Reach::Nobody,
        }
    }
}

impl Kernel {
    /// Polls the pipe, with no end but a byte, and takes what is in it.
    fn poll(&self) {
        let mut bytes = self.lock.lock().unwrap();
        while *bytes == 0 {
            bytes = self.woken.wait(bytes).unwrap();
        }
        *bytes = 0;
    }
}

impl Memory {
    fn sleeper(&self, role: usize) -> Sleeper<'_> {
        let (mine, publishers) = (&self.counters[role], self.side(1 - role));
        Sleeper::new(&self.bells[role], 0, mine, publishers, true, &self.kernel)
    }

    /// A ringer whose wakes are real ones.
    pub(crate) fn waker(&self, role: usize, fenced: bool) -> Ringer<'_> {
        let (bell, sleepers) = (&self.bells[1 - role], self.side(1 - role));
        Ringer::new(bell, sleepers, &self.counters[role], fenced, &self.kernel)
    }
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

fn push(memory: &Memory, fenced: bool, values: std::ops::RangeInclusive<u64>) {
    let sleeper = memory.sleeper(0);
    memory.producer_with(
        memory.waker(0, fenced),
        |mut tx: spsc::Producer<'_, u64>| {
            for value in values {
                sleeping(&sleeper, || {
                    tx.try_push(value).map_err(|failed| failed.error)
                });
            }
        },
    );
}

fn pop(memory: &Memory, fenced: bool, values: std::ops::RangeInclusive<u64>) {
    let sleeper = memory.sleeper(1);
    memory.consumer_with(
        memory.waker(1, fenced),
        |mut rx: spsc::Consumer<'_, u64>| {
            for value in values {
                assert_eq!(sleeping(&sleeper, || rx.try_pop()), value);
            }
        },
    );
}

fn from_one_to_the_other(capacity: usize, messages: u64, fenced: bool) {
    model(move || {
        both(
            Memory::slots(capacity),
            move |memory| push(memory, fenced, 1..=messages),
            |memory| pop(memory, fenced, 1..=messages),
        );
    });
}

#[test]
fn a_sleeping_consumer_is_woken() {
    from_one_to_the_other(2, 1, true);
}

#[test]
fn both_sides_may_sleep() {
    from_one_to_the_other(1, 2, true);
}

/// Sleepers with a barrier, before publishers that it does not reach.
#[test]
fn publishers_that_no_barrier_reaches_fence_each_publish() {
    model(|| {
        both(
            Memory::with_barriers(2),
            |memory| push(memory, true, 1..=1),
            |memory| pop(memory, true, 1..=1),
        );
    });
}

#[test]
fn a_sleeping_producer_is_woken() {
    model(|| {
        let memory = Memory::slots(1);
        push(&memory, true, 1..=1);
        both(
            memory,
            |memory| push(memory, true, 2..=2),
            |memory| pop(memory, true, 1..=1),
        );
    });
}

/// Sleepers without a barrier, before publishers that fence only once they have seen that.
#[test]
fn publishers_that_are_told_to_fence_do() {
    from_one_to_the_other(2, 2, false);
}

/// What an earlier sleeper's publisher acknowledged says nothing to the next.
#[test]
fn an_acknowledgement_is_for_one_sleeper() {
    model(|| {
        let memory: Arc<Memory> = Memory::slots(2);
        memory.sleeper(1).arm(Face::Doorbell);
        memory.waker(0, false).wake();
        both(
            memory,
            |memory| push(memory, false, 1..=2),
            |memory| {
                memory.sleeper(1).repair();
                pop(memory, false, 1..=2);
            },
        );
    });
}

/// Nor does what such a sleeper asked for pass for what the next one asks. (This publisher never sleeps: it
/// would fence by that.)
#[test]
fn a_publisher_acknowledges_what_it_will_see() {
    model(|| {
        let memory: Arc<Memory> = Memory::slots(2);
        memory.sleeper(1).arm(Face::Doorbell);
        memory.waker(0, false).wake();
        both(
            memory,
            |memory| {
                memory.producer_with(memory.waker(0, false), |mut tx| {
                    tx.try_push(1).unwrap();
                    tx.try_push(2).unwrap();
                });
            },
            |memory| {
                memory.sleeper(1).repair();
                pop(memory, false, 1..=2);
            },
        );
    });
}

/// Attempts until it works, polling the pipe in between, as an event loop does.
fn polling<R>(
    memory: &Memory,
    sleeper: &Sleeper<'_>,
    mut attempt: impl FnMut() -> Result<R, Error>,
) -> R {
    loop {
        sleeper.arm(Face::Pipe);
        match attempt() {
            Ok(done) => return done,
            Err(Error::Full | Error::Empty) => memory.kernel.poll(),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_polled_pipe_is_written() {
    model(|| {
        both(
            Memory::slots(2),
            |memory| push(memory, true, 1..=2),
            |memory| {
                let sleeper = memory.sleeper(1);
                memory.consumer_with(memory.waker(1, true), |mut rx| {
                    for value in 1..=2 {
                        assert_eq!(polling(memory, &sleeper, || rx.try_pop()), value);
                    }
                });
            },
        );
    });
}

/// What was asked for with one face and not taken back does not take the wake from the other.
fn a_late_waker(memory: fn(usize) -> Arc<Memory>) {
    for pipe_first in [true, false] {
        model(move || {
            both(
                memory(2),
                |memory| push(memory, true, 1..=2),
                move |memory| {
                    let sleeper = memory.sleeper(1);
                    memory.consumer_with(memory.waker(1, true), |mut rx| {
                        for (value, pipe) in [(1, pipe_first), (2, !pipe_first)] {
                            let popped = if pipe {
                                polling(memory, &sleeper, || rx.try_pop())
                            } else {
                                sleeping(&sleeper, || rx.try_pop())
                            };
                            assert_eq!(popped, value);
                        }
                    });
                },
            );
        });
    }
}

#[test]
fn a_late_waker_wakes_by_the_face_of_the_sleep_that_it_clears() {
    a_late_waker(Memory::slots);
}

#[test]
fn a_late_waker_does_so_before_a_sleeper_that_has_a_barrier() {
    a_late_waker(Memory::with_barriers);
}

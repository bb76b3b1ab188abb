//! Models the wake-up protocol: every waiter that sleeps with nothing to read (or no room) is
//! woken. The model's sleep ends only by the wake, so a lost wake is a deadlock, which loom
//! reports.
//!
//! The models cover *fenced* and *mixed*. The asymmetric variant's barrier is no word in memory;
//! SPIN models it (`verify/spin`).

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use slipring_core::Error;
use slipring_core::end::{Pop, Push};
use slipring_core::proto::spsc;
use slipring_core::sync::{AtomicU32, Ordering, fence};
use slipring_core::wait::{Notifier, Os, Reach, SEEN_WITHIN, Waiter, WakeMode};

use crate::{Memory, both, model};

/// Models the kernel's futexes: it compares under the lock that a notifier takes as well.
pub(crate) struct Kernel {
    /// The bytes in the pipe.
    lock: Mutex<u32>,
    woken: Condvar,
    /// `true` if it has barriers. They reach only their caller.
    ///
    /// Publishers whose process is not registered see barriers this way, and therefore fence by
    /// themselves.
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
    fn sleep(&self, doorbell: &AtomicU32, seen: u32, _: u64, at_most: u64) {
        // A short sleep may end at any time; let it end at once.
        if at_most <= SEEN_WITHIN {
            return loom::thread::yield_now();
        }
        let guard = self.lock.lock().unwrap();
        if doorbell.load(Ordering::Relaxed) == seen {
            drop(self.woken.wait(guard).unwrap());
        }
    }

    fn wake(&self, _: &AtomicU32, _: u64) {
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
    /// Polls the pipe until a byte comes, and takes what is in it.
    fn poll(&self) {
        let mut bytes = self.lock.lock().unwrap();
        while *bytes == 0 {
            bytes = self.woken.wait(bytes).unwrap();
        }
        *bytes = 0;
    }
}

impl Memory {
    fn waiter(&self, role: usize) -> Waiter<'_> {
        let (mine, publishers) = (&self.counters[role], self.side(1 - role));
        Waiter::new(&self.bells[role], 0, mine, publishers, true, &self.kernel)
    }

    /// Returns a notifier whose wakes are real ones.
    pub(crate) fn waker(&self, role: usize, fenced: bool) -> Notifier<'_> {
        let (wait_cell, sleepers) = (&self.bells[1 - role], self.side(1 - role));
        Notifier::new(
            wait_cell,
            sleepers,
            &self.counters[role],
            fenced,
            &self.kernel,
        )
    }
}

/// Attempts until it works, and sleeps in between, as `wait/block.rs` of `slipring` does.
pub(crate) fn sleeping<R>(waiter: &Waiter<'_>, mut attempt: impl FnMut() -> Result<R, Error>) -> R {
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

fn push(memory: &Memory, fenced: bool, values: std::ops::RangeInclusive<u64>) {
    let waiter = memory.waiter(0);
    memory.producer_with(
        memory.waker(0, fenced),
        |mut tx: spsc::Producer<'_, u64>| {
            for value in values {
                sleeping(&waiter, || {
                    tx.try_push(value).map_err(|failed| failed.error())
                });
            }
        },
    );
}

fn pop(memory: &Memory, fenced: bool, values: std::ops::RangeInclusive<u64>) {
    let waiter = memory.waiter(1);
    memory.consumer_with(
        memory.waker(1, fenced),
        |mut rx: spsc::Consumer<'_, u64>| {
            for value in values {
                assert_eq!(sleeping(&waiter, || rx.try_pop()), value);
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

/// Publishers that no barrier reaches fence each publish. Waiters with a barrier, and publishers
/// that it does not reach.
#[test]
fn publishers_beyond_barriers_always_fence() {
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

/// Publishers that are asked to fence do so. Waiters without a barrier, and publishers that fence
/// only once they have seen that.
#[test]
fn publishers_fence_when_asked() {
    from_one_to_the_other(2, 2, false);
}

/// A publisher's acknowledgement of an earlier waiter says nothing to the next waiter.
#[test]
fn an_acknowledgement_is_for_one_sleeper() {
    model(|| {
        let memory: Arc<Memory> = Memory::slots(2);
        memory.waiter(1).arm(WakeMode::Doorbell);
        memory.waker(0, false).wake();
        both(
            memory,
            |memory| push(memory, false, 1..=2),
            |memory| {
                memory.waiter(1).repair();
                pop(memory, false, 1..=2);
            },
        );
    });
}

/// Nor does such a waiter's request pass for the next one's. (This publisher never sleeps: it would
/// fence by that.)
#[test]
fn a_publisher_acknowledges_what_it_sees() {
    model(|| {
        let memory: Arc<Memory> = Memory::slots(2);
        memory.waiter(1).arm(WakeMode::Doorbell);
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
                memory.waiter(1).repair();
                pop(memory, false, 1..=2);
            },
        );
    });
}

/// Attempts until it works, and polls the pipe in between, as an event loop does.
fn polling<R>(
    memory: &Memory,
    waiter: &Waiter<'_>,
    mut attempt: impl FnMut() -> Result<R, Error>,
) -> R {
    loop {
        waiter.arm(WakeMode::Pipe);
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
                let waiter = memory.waiter(1);
                memory.consumer_with(memory.waker(1, true), |mut rx| {
                    for value in 1..=2 {
                        assert_eq!(polling(memory, &waiter, || rx.try_pop()), value);
                    }
                });
            },
        );
    });
}

/// A request with one wake mode that was not taken back does not take the wake from the other mode.
fn a_late_waker(memory: fn(usize) -> Arc<Memory>) {
    for pipe_first in [true, false] {
        model(move || {
            both(
                memory(2),
                |memory| push(memory, true, 1..=2),
                move |memory| {
                    let waiter = memory.waiter(1);
                    memory.consumer_with(memory.waker(1, true), |mut rx| {
                        for (value, pipe) in [(1, pipe_first), (2, !pipe_first)] {
                            let popped = if pipe {
                                polling(memory, &waiter, || rx.try_pop())
                            } else {
                                sleeping(&waiter, || rx.try_pop())
                            };
                            assert_eq!(popped, value);
                        }
                    });
                },
            );
        });
    }
}

/// A late waker wakes by the wake mode of the sleep that it clears.
#[test]
fn a_late_waker_uses_that_mode() {
    a_late_waker(Memory::slots);
}

/// A late waker uses the wake mode of the sleep that it clears, also if the sleeper has a barrier.
#[test]
fn a_late_waker_copes_with_barriers() {
    a_late_waker(Memory::with_barriers);
}

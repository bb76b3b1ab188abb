//! Models consumers that sleep in calls: a commit wakes only as many of them as there are messages, and no message waits
//! beside one that sleeps.
//!
//! The model's sleep ends only by the wake, so a lost wake is a deadlock, which loom reports.

use loom::sync::{Condvar, Mutex};
use slipring_core::sync::{AtomicU32, fence};
use slipring_core::wait::{Os, Reach, Waiter, WakeMode};

use super::*;

/// Models the kernel's futexes with a bit for each seat.
struct Kernel {
    /// The seats that sleep.
    asleep: Mutex<u64>,
    woken: Condvar,
}

impl Kernel {
    fn new() -> Arc<Kernel> {
        Arc::new(Kernel {
            asleep: Mutex::new(0),
            woken: Condvar::new(),
        })
    }
}

impl Os for Kernel {
    fn sleep(&self, doorbell: &AtomicU32, seen: u32, seats: u64, _: u64) {
        let mut asleep = self.asleep.lock().unwrap();
        // Relaxed: as the kernel compares, under its own lock.
        if doorbell.load(Ordering::Relaxed) != seen {
            return;
        }
        *asleep |= seats;
        while *asleep & seats != 0 {
            asleep = self.woken.wait(asleep).unwrap();
        }
    }

    fn wake(&self, _: &AtomicU32, seats: u64) {
        *self.asleep.lock().unwrap() &= !seats;
        self.woken.notify_all();
    }

    fn signal(&self, _: usize) {
        unreachable!("nobody polls");
    }

    fn now(&self) -> u64 {
        0
    }

    fn barrier(&self) -> Reach {
        // Publishers fence by themselves.
        fence(Ordering::SeqCst);
        Reach::Everybody
    }
}

/// The side whose ends sleep is the consumers'.
impl Shop {
    /// Returns the ring of a seat whose wakes are real ones.
    fn waking<'m>(
        &'m self,
        seats: &'m [SeatWords<'m>],
        number: usize,
        kernel: &'m Kernel,
    ) -> Ring<'m, Cells<'m, u64>> {
        let mut ring = self.ring(seats, number, self.cells());
        let (consumers, counters) = (Side::Many(&seats[SEATS..]), &self.counters[number]);
        let notifier = Notifier::new(&self.bells[1], consumers, counters, true, kernel).sparing();
        match number < SEATS {
            true => ring.notifier = notifier,
            false => ring.fellows = notifier.of_fellows(1 << (number - SEATS)),
        }
        ring
    }

    fn push_waking(&self, kernel: &Kernel, seat: usize, values: &[u64]) {
        let (seats, mut limit) = (self.seats(), CachedLimit::new());
        let ring = self.waking(&seats, seat, kernel);
        // SAFETY: each model has one end at a time in a seat.
        let mut tx = unsafe { Producer::new(ring, &mut limit) };
        values.iter().for_each(|value| tx.try_push(*value).unwrap());
    }

    fn sleeper<R>(
        &self,
        kernel: &Kernel,
        seat: usize,
        body: impl FnOnce(Receiver<'_>, Waiter<'_>, Notifier<'_>) -> R,
    ) -> R {
        let (seats, mut limit) = (self.seats(), CachedLimit::new());
        let ring = self.waking(&seats, SEATS + seat, kernel);
        let fellows = ring.fellows;
        let (counters, producers) = (&self.counters[SEATS + seat], Side::Many(&seats[..SEATS]));
        let waiter = Waiter::new(&self.bells[1], seat, counters, producers, false, kernel);
        // SAFETY: each model has one end at a time in a seat.
        body(unsafe { Consumer::new(ring, &mut limit) }, waiter, fellows)
    }

    /// Pops `count` messages at seat `seat`, and sleeps in between by this mode, as `wait/block.rs` of `slipring` does.
    fn pop_asleep(&self, kernel: &Kernel, seat: usize, mode: WakeMode, count: usize) -> Vec<u64> {
        self.sleeper(kernel, seat, |mut rx, waiter, _| {
            let pops = (0..count).map(|_| pop_asleep(&mut rx, &waiter, mode));
            pops.collect()
        })
    }

    /// Asks to be woken on behalf of both consumers.
    fn arm_both(&self, kernel: &Kernel, modes: [WakeMode; 2]) {
        for (seat, mode) in modes.into_iter().enumerate() {
            self.sleeper(kernel, seat, |_, waiter, _| waiter.arm(mode));
        }
    }
}

/// Takes up a request that stands, or makes one.
fn pop_asleep(rx: &mut Receiver<'_>, waiter: &Waiter<'_>, mode: WakeMode) -> u64 {
    loop {
        if !waiter.armed() {
            waiter.arm(mode);
        }
        let mut found = rx.ready(1).is_ok();
        while !found && let Some(seen) = waiter.asks_still() {
            waiter.sleep(seen, u64::MAX);
            found = rx.ready(1).is_ok();
        }
        waiter.disarm();
        if let Ok(value) = rx.try_pop() {
            return value;
        }
    }
}

/// Two consumers sleep, and two producers commit one message each: both consumers are told.
fn two_commits_wake_two(modes: [WakeMode; 2]) {
    model_within(3, move || {
        let (shop, kernel) = (Shop::new(2, [2, 2]), Kernel::new());
        shop.arm_both(&kernel, modes);
        let (other, os) = (shop.clone(), kernel.clone());
        let other = thread::spawn(move || other.push_waking(&os, 1, &[2]));
        shop.push_waking(&kernel, 0, &[1]);
        other.join().unwrap();
        // Relaxed: after the join.
        assert_eq!(shop.bells[1].waiters.load(Ordering::Relaxed), 0);
        assert_eq!(sorted(shop.pop_all(0, 2)), [1, 2]);
    });
}

#[test]
fn two_commits_wake_two_calls() {
    two_commits_wake_two([WakeMode::Call, WakeMode::Call]);
}

#[test]
fn two_commits_wake_call_and_set() {
    two_commits_wake_two([WakeMode::Call, WakeMode::Doorbell]);
}

/// A slot is given up that held up two messages: both consumers get one.
#[test]
fn given_up_slot_wakes_both() {
    model_within(1, || {
        let (shop, kernel) = (Shop::new(4, [2, 2]), Kernel::new());
        let (seats, mut limit) = (shop.seats(), CachedLimit::new());
        let ring = shop.waking(&seats, 0, &kernel);
        // SAFETY: each model has one end at a time in a seat.
        let mut tx = unsafe { Producer::new(ring, &mut limit) };
        let run = tx.try_reserve(1).unwrap();
        shop.push_all(1, &[1, 2]);
        shop.arm_both(&kernel, [WakeMode::Call; 2]);
        let sleepers = [0, 1].map(|seat| {
            let (shop, kernel) = (shop.clone(), kernel.clone());
            thread::spawn(move || shop.pop_asleep(&kernel, seat, WakeMode::Call, 1))
        });
        run.discard();
        let got = sleepers.map(|sleeper| sleeper.join().unwrap()).concat();
        assert_eq!(sorted(got), [1, 2]);
    });
}

/// A consumer whose time is over leaves without a message. If it was woken for one, it wakes another consumer.
#[test]
fn leaver_passes_its_wake_on() {
    model_within(1, || {
        let (shop, kernel) = (Shop::new(4, [1, 2]), Kernel::new());
        let (first, os) = (shop.clone(), kernel.clone());
        let first = thread::spawn(move || {
            first.sleeper(&os, 0, |mut rx, waiter, fellows| {
                waiter.arm(WakeMode::Call);
                let found = rx.ready(1).is_ok();
                thread::yield_now();
                let told = !waiter.disarm();
                // Its last look came too early.
                if found {
                    return rx.try_pop().ok();
                }
                if told {
                    fellows.wake_for(1);
                }
                None
            })
        });
        let (other, os) = (shop.clone(), kernel.clone());
        let other = thread::spawn(move || other.pop_asleep(&os, 1, WakeMode::Call, 1));
        shop.push_waking(&kernel, 0, &[1, 2]);
        let mut got = other.join().unwrap();
        got.extend(first.join().unwrap());
        got.extend(shop.pop_some(1, 2));
        assert_eq!(sorted(got), [1, 2]);
    });
}

/// A message is given back beside two consumers that sleep, and a new one is committed.
#[test]
fn requeue_and_commit_wake_two() {
    model_within(1, || {
        let (shop, kernel) = (Shop::new(2, [1, 2]), Kernel::new());
        shop.push_all(0, &[1]);
        let (other, os) = (shop.clone(), kernel.clone());
        let got = shop.sleeper(&kernel, 0, |mut rx, waiter, _| {
            let held = rx.try_read_batch(1).unwrap();
            let other = thread::spawn(move || other.pop_asleep(&os, 1, WakeMode::Call, 1));
            let (writer, os) = (shop.clone(), kernel.clone());
            let writer = thread::spawn(move || writer.push_waking(&os, 0, &[2]));
            held.keep();
            let mut got = vec![pop_asleep(&mut rx, &waiter, WakeMode::Call)];
            got.extend(other.join().unwrap());
            writer.join().unwrap();
            got
        });
        assert_eq!(sorted(got), [1, 2]);
    });
}

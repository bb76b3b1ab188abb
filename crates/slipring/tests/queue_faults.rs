//! The faults of the predecessors that a work queue could have, at the smallest capacities: one slot lent to two, best
//! effort that fails or waits too long, and figures that overflow. (Dead holders need processes: `tests/tests/queue_kills.rs`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod memory;

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use slipring::mpmc::{self, Builder, Consumer, Producer};
use slipring::{End, Error, PushError};

use memory::Memory;

const CAPACITIES: [usize; 3] = [1, 2, 4];

/// The edges of narrower counters.
const EDGES: [u64; 6] = [1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 48, 1 << 54];

/// A wait that ends by its timeout.
const SHORT: Duration = Duration::from_millis(20);
/// A timed call that takes longer has spun past its timeout, also on a busy machine.
const LATE: Duration = Duration::from_secs(20);

/// Slots that are lent, each with the number of whoever has it.
struct Lent<'m> {
    data: &'m Memory,
    slots: Vec<AtomicU64>,
}

const NOBODY: u64 = u64::MAX;

impl Lent<'_> {
    fn slot(&self, message: *const u64) -> &AtomicU64 {
        let start = self.data.borrowed().data.cast::<u8>().as_ptr().addr();
        &self.slots[(message.addr() - start) / size_of::<u64>()]
    }

    fn lend(&self, message: *const u64, to: u64) {
        let had = self.slot(message).swap(to, Ordering::AcqRel);
        assert_eq!(had, NOBODY, "a slot of {had} is lent to {to}");
    }

    fn give_back(&self, message: *const u64, from: u64) {
        let had = self.slot(message).swap(NOBODY, Ordering::AcqRel);
        assert_eq!(had, from);
    }
}

/// Fault 11: no slot is lent to two at once, though its positions come round again and again, and hold guards meanwhile.
#[test]
fn no_slot_is_lent_twice() {
    const EACH: u64 = 20_000;
    for (capacity, edge) in CAPACITIES.into_iter().zip(EDGES.into_iter().skip(1)) {
        let builder = Builder::<u64>::new(capacity);
        let memory = &Memory::of(&builder);
        let channel = &memory.format(&builder).unwrap();
        memory.start_queue_at(&channel.geometry(), edge - EACH);
        let lent = &Lent {
            data: memory,
            slots: (0..=capacity).map(|_| AtomicU64::new(NOBODY)).collect(),
        };
        let feed = |mut tx: Producer<u64>, name: u64| {
            for number in 0..EACH {
                let mut run = tx.reserve(1).unwrap();
                let slot = ptr::from_mut(&mut run.as_mut_slices().0[0]);
                lent.lend(slot, name);
                run.write(0, number);
                lent.give_back(slot, name);
                match number % 7 {
                    3 => run.discard(),
                    _ => run.commit(1),
                }
            }
        };
        let consume = |mut rx: Consumer<u64>, name: u64| {
            let mut held = Vec::new();
            let mut taken = 0;
            loop {
                let message = match rx.read_owned_timeout(Duration::from_micros(10)) {
                    Ok(message) => message,
                    Err(Error::TimedOut) => {
                        // The others may wait for what we hold.
                        held.drain(..).for_each(|message: mpmc::OwnedMessage<u64>| {
                            lent.give_back(&raw const *message, name);
                        });
                        continue;
                    }
                    Err(error) => {
                        assert_eq!(error, Error::Disconnected(End::Finished));
                        assert!(held.is_empty());
                        return taken;
                    }
                };
                lent.lend(&raw const *message, name);
                taken += 1;
                held.push(message);
                if held.len() > 2 {
                    let message = held.swap_remove(taken % held.len());
                    lent.give_back(&raw const *message, name);
                }
            }
        };
        let ends = |name| {
            (
                channel.producer().unwrap(),
                channel.consumer().unwrap(),
                name,
            )
        };
        let taken: usize = thread::scope(|scope| {
            let consumers = [ends(0), ends(2)].map(|(tx, rx, name)| {
                scope.spawn(move || feed(tx, name));
                scope.spawn(move || consume(rx, name + 1))
            });
            consumers
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        let discarded = (0..EACH).filter(|number| number % 7 == 3).count() as u64;
        assert_eq!(taken as u64, 2 * (EACH - discarded), "{capacity}");
    }
}

/// Checks that a call gives up at its timeout: not before, and not much later.
#[track_caller]
fn times_out<E: std::fmt::Debug>(call: impl FnOnce() -> Result<(), E>) -> E {
    let begun = Instant::now();
    let error = call().unwrap_err();
    assert!(
        begun.elapsed() >= SHORT && begun.elapsed() < LATE,
        "{error:?}"
    );
    error
}

/// Fault 12: best effort appends what there is room for, and takes what there is, while others keep slots.
#[test]
fn best_effort_does_what_it_can() {
    for capacity in CAPACITIES {
        let (mut tx, mut rx) = mpmc::channel::<u64>(capacity).unwrap();
        let (mut other_tx, mut other_rx) = (tx.another().unwrap(), rx.another().unwrap());
        // A consumer keeps a message.
        tx.push(100).unwrap();
        let held = other_rx.read_owned().unwrap();
        let mut taken = Vec::new();
        for lap in 0..20 {
            let mut appended = 0;
            while let Ok(more) = tx.try_push_slice(&[lap; 9]) {
                appended += more;
            }
            assert_eq!(appended, capacity - 1, "{capacity}");
            let mut out = [0; 9];
            while let Ok(more) = rx.try_pop_slice(&mut out) {
                taken.extend_from_slice(&out[..more]);
            }
            assert_eq!(taken.len(), (capacity - 1) * (lap as usize + 1));
        }
        held.release();
        // A producer keeps a slot: what lies before it is taken, and what lies behind it is not.
        let before = capacity / 2;
        assert_eq!(tx.try_push_slice(&[1; 9][..before]), Ok(before));
        let reserved = other_tx.try_reserve_owned(1).unwrap();
        let behind = tx.try_push_slice(&[2; 9]).unwrap_or(0);
        assert_eq!(behind, capacity - before - 1);
        if before > 0 {
            assert_eq!(rx.try_pop_slice(&mut [0; 9]), Ok(before));
        }
        assert_eq!(rx.try_pop_slice(&mut [0; 9]), Err(Error::Empty));
        reserved.discard();
        let left = rx.try_pop_slice(&mut [0; 9]).unwrap_or(0);
        assert_eq!(left, behind);
    }
}

/// Fault 12: timed calls give up in time while others keep slots, or others take what comes.
#[test]
fn timeouts_hold_while_others_keep_slots() {
    for capacity in CAPACITIES {
        let (mut tx, mut rx) = mpmc::channel::<u64>(capacity).unwrap();
        let (mut other_tx, mut other_rx) = (tx.another().unwrap(), rx.another().unwrap());
        tx.push_slice(&[7; 9][..capacity]).unwrap();
        let held: Vec<_> = (0..capacity)
            .map(|_| other_rx.read_owned().unwrap())
            .collect();
        assert_eq!(
            times_out(|| tx.push_timeout(1, SHORT)),
            PushError::TimedOut(1)
        );
        let failed = times_out(|| tx.push_slice_timeout(&[1, 2], SHORT));
        assert_eq!((failed.done, failed.error), (0, Error::TimedOut));
        let reserved = times_out(|| tx.reserve_timeout(1, SHORT).map(drop));
        assert_eq!(reserved, Error::TimedOut);
        for taken in [
            times_out(|| rx.pop_timeout(SHORT).map(drop)),
            times_out(|| rx.pop_slice_timeout(&mut [0; 4], SHORT).map(drop)),
            times_out(|| rx.read_batch_timeout(4, SHORT).map(drop)),
            times_out(|| rx.read_owned_timeout(SHORT).map(drop)),
        ] {
            assert_eq!(taken, Error::TimedOut, "{capacity}");
        }
        drop(held);
        let reserved = other_tx.try_reserve_owned(1).unwrap();
        let taken = times_out(|| rx.pop_timeout(SHORT).map(drop));
        assert_eq!(taken, Error::TimedOut, "behind a reserved slot");
        drop(reserved);
        // Wakes that lead to nothing do not prolong the wait.
        let stop = &AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(move || {
                while stop.load(Ordering::Relaxed) == 0 {
                    drop(other_tx.try_reserve(1));
                    thread::yield_now();
                }
            });
            let taken = times_out(|| rx.pop_timeout(SHORT).map(drop));
            stop.store(1, Ordering::Relaxed);
            assert_eq!(taken, Error::TimedOut);
        });
    }
}

/// Fault 13: 1024 slots of 1264 bytes are more than 16 bits count, and each holds what was written there.
#[test]
fn large_slots_hold_what_was_written() {
    type Packet = [u64; 158];
    let packet = |number: u64| -> Packet {
        std::array::from_fn(|word| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word as u64)
    };
    let builder = Builder::<Packet>::new(1024);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    assert_eq!(size_of::<Packet>(), 1264);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    for lap in 0..3 {
        let numbers = lap * 1024..(lap + 1) * 1024;
        for number in numbers.clone() {
            tx.try_push(packet(number)).unwrap();
        }
        assert!(matches!(tx.try_push(packet(0)), Err(PushError::Full(_))));
        let held: Vec<_> = numbers
            .clone()
            .map(|_| rx.try_read_owned().unwrap())
            .collect();
        assert!(
            held.iter()
                .zip(numbers)
                .all(|(held, number)| **held == packet(number))
        );
    }
    memory.assert_fences_stand();
}

/// Fault 13: positions pass the edges of narrower counters, with runs, guards that are held across, ends that come late,
/// and figures that agree.
#[test]
fn positions_pass_every_edge() {
    for (capacity, edge) in CAPACITIES
        .into_iter()
        .flat_map(|capacity| EDGES.map(|edge| (capacity, edge)))
    {
        let builder = Builder::<u64>::new(capacity);
        let memory = Memory::of(&builder);
        let channel = memory.format(&builder).unwrap();
        memory.start_queue_at(&channel.geometry(), edge - 8);
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let mut other = channel.consumer().unwrap();
        tx.push(1000).unwrap();
        let mut held = Some(other.read_owned().unwrap());
        let room = |held: &Option<_>| capacity - usize::from(held.is_some());
        for lap in 0..40_u64 {
            if lap == 30 {
                let message = held.take().unwrap();
                assert_eq!(*message, 1000);
                message.keep();
                assert_eq!((rx.try_pop(), rx.deliveries()), (Ok(1000), 1));
            }
            let values: Vec<u64> = (0..room(&held) as u64)
                .map(|index| 10 * lap + index)
                .collect();
            let mut appended = 0;
            while appended < values.len() {
                appended += tx.try_push_slice(&values[appended..]).unwrap();
            }
            assert_eq!(tx.try_push(9), Err(PushError::Full(9)), "{capacity} {edge}");
            assert_eq!(tx.len(), Ok(capacity));
            // Ends that come late walk to the same place.
            let (mut late_tx, mut late_rx) =
                (channel.producer().unwrap(), channel.consumer().unwrap());
            assert_eq!(late_tx.try_push(9), Err(PushError::Full(9)));
            let mut taken: Vec<u64> = late_rx.try_pop().into_iter().collect();
            let mut out = [0; 4];
            while let Ok(count) = rx.try_pop_slice(&mut out) {
                taken.extend_from_slice(&out[..count]);
            }
            assert_eq!(taken, values, "{capacity} {edge}");
        }
        assert_eq!(tx.position(), edge - 8 + channel_position(capacity));
        drop((tx, rx, other));
        memory.assert_fences_stand();
    }
}

/// Returns the number of messages that one producer commits in `positions_pass_every_edge`.
fn channel_position(capacity: usize) -> u64 {
    let capacity = capacity as u64;
    1 + 30 * (capacity - 1) + 10 * capacity
}

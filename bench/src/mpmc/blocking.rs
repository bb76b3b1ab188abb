//! Calls that block: sleeping workers, and a job queue beside a Redis list.
//!
//! In the `wake` cases the next item is pushed when all workers are asleep, by the state that the
//! kernel reports for each. Workers have other cores than the pusher, if there are any.
//!
//! - `wake/latency`: one worker. From the beginning of the push until the item is taken.
//! - `wake/push/N`: N workers. The push alone, and how many workers woke for each item: how often one
//!   went to sleep, by the kernel's count, until all were asleep again.
//!
//! In the `redis` cases producers push for as long as the run lasts, then one of them pushes an item
//! for each worker that tells it to stop.

use super::crew::{Run, Tally, cores};
use super::plan::Crew;
use super::worker::Sample;
use crate::asleep::{Sleeper, all_asleep};
use crate::duel::pin;
use crate::message::{Job, Line, Task};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::mpsc::channel;
use std::time::Instant;

/// A contender's calls that block. Items are 64 bytes.
pub trait Blocking {
    /// A producer's handle.
    type Tx: Send;
    /// A worker's handle.
    type Rx: Send;

    /// Makes a queue, and a handle for each thread.
    fn ends(run: &Run) -> Result<Ends<Self>, String>;

    /// Hands over an item.
    fn push(tx: &mut Self::Tx, item: Line);

    /// Waits for an item.
    fn pop(rx: &mut Self::Rx) -> Line;
}

/// The handles of the producers, and those of the workers.
pub type Ends<B> = (Vec<<B as Blocking>::Tx>, Vec<<B as Blocking>::Rx>);

type Items = Task<Line>;

/// The item that tells a worker to stop.
const STOP: u64 = u64::MAX;
/// The number of slots.
const CAPACITY: usize = 1024;
/// The fewest items of a run.
const FEWEST: u64 = 20;

/// The part of a wake-up that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Until the item is taken.
    Taken,
    /// The push alone.
    Push,
}

/// Pushes one item after another to sleeping workers. Returns the median time in nanoseconds, and how
/// many workers woke for an item, on average.
pub fn wake<B: Blocking>(what: Wake, workers: usize, seconds: f64) -> Result<Sample, String> {
    let crew = Crew {
        producers: 1,
        consumers: workers,
    };
    let (mut txs, rxs) = B::ends(&run(crew, seconds))?;
    let tx = &mut txs[0];
    let cores = cores();
    let (told, tids) = channel();
    // The number of items taken, and when the last one was, in nanoseconds since `zero`.
    let (taken, when) = (AtomicU64::new(0), AtomicU64::new(0));
    let (taken, when, zero) = (&taken, &when, Instant::now());
    std::thread::scope(|scope| {
        for (i, mut rx) in rxs.into_iter().enumerate() {
            // The pusher has the first core.
            let others = &cores[1.min(cores.len() - 1)..];
            let (core, told) = (others[i % others.len()], told.clone());
            scope.spawn(move || {
                pin(core);
                // SAFETY: returns the calling thread's number, and changes nothing.
                told.send(unsafe { libc::gettid() }).expect("the pusher");
                let mut tally = Tally::default();
                loop {
                    let item = B::pop(&mut rx);
                    when.store(zero.elapsed().as_nanos() as u64, Relaxed);
                    if Items::number(&item) == STOP {
                        return;
                    }
                    tally.took::<Items>(&item);
                    // A wrong item counts as many, which fails the run. Release: pairs with the
                    // pusher's look at `taken`, for `when`.
                    taken.fetch_add(if tally.is_bad() { STOP / 4 } else { 1 }, Release);
                }
            });
        }
        pin(cores[0]);
        let sleepers: Result<Vec<_>, _> = (0..workers)
            .map(|_| Sleeper::new(tids.recv().expect("a worker")))
            .collect();
        let outcome = sleepers.and_then(|sleepers| {
            let (mut times, mut woken, mut items) = (Vec::new(), 0, 0);
            let mut slept = all_asleep(&sleepers)?;
            while zero.elapsed().as_secs_f64() < seconds || items < FEWEST {
                let item = Items::make(items);
                let start = zero.elapsed().as_nanos() as u64;
                B::push(tx, item);
                let pushed = zero.elapsed().as_nanos() as u64;
                items += 1;
                while taken.load(Acquire) < items {
                    std::hint::spin_loop();
                }
                times.push(match what {
                    Wake::Taken => when.load(Relaxed).saturating_sub(start),
                    Wake::Push => pushed - start,
                });
                let before = std::mem::replace(&mut slept, all_asleep(&sleepers)?);
                woken += slept - before;
            }
            if taken.load(Acquire) != items {
                return Err("delivered wrong data, or an item twice".to_owned());
            }
            times.sort_unstable();
            Ok(Sample {
                value: times[times.len() / 2] as f64,
                woken: Some(woken as f64 / items as f64),
                line: None,
            })
        });
        for _ in 0..workers {
            B::push(tx, Items::make(STOP));
        }
        outcome
    })
}

/// Pushes items for as long as the run lasts. Returns the rate in million items a second.
pub fn jobs<B: Blocking>(crew: Crew, seconds: f64) -> Result<Sample, String> {
    let (txs, rxs) = B::ends(&run(crew, seconds))?;
    let cores = cores();
    let core = |thread: usize| cores[thread % cores.len()];
    let barrier = &Barrier::new(crew.producers + crew.consumers);
    let left = &AtomicUsize::new(crew.producers);
    std::thread::scope(|scope| {
        let mut senders = Vec::new();
        for (i, mut tx) in txs.into_iter().enumerate() {
            senders.push(scope.spawn(move || {
                pin(core(i));
                barrier.wait();
                let began = Instant::now();
                // Each producer has numbers of its own.
                let first = (i as u64) << 36;
                let mut next = first;
                while began.elapsed().as_secs_f64() < seconds {
                    for _ in 0..16 {
                        B::push(&mut tx, Items::make(next));
                        next += 1;
                    }
                }
                // AcqRel: the stop items come behind all others.
                if left.fetch_sub(1, AcqRel) == 1 {
                    for _ in 0..crew.consumers {
                        B::push(&mut tx, Items::make(STOP));
                    }
                }
                // The handle comes along: it must outlive the workers.
                (began, Tally::of(&(first..next)), tx)
            }));
        }
        let mut workers = Vec::new();
        for (i, mut rx) in rxs.into_iter().enumerate() {
            workers.push(scope.spawn(move || {
                pin(core(crew.producers + i));
                barrier.wait();
                let mut tally = Tally::default();
                loop {
                    let item = B::pop(&mut rx);
                    if Items::number(&item) == STOP {
                        return (Instant::now(), tally, rx);
                    }
                    tally.took::<Items>(&item);
                }
            }));
        }
        let (mut sent, mut took) = (Tally::default(), Tally::default());
        let (mut first, mut last) = (None::<Instant>, None::<Instant>);
        let mut handles = Vec::new();
        for sender in senders {
            let (began, tally, tx) = sender.join().expect("no thread panics");
            first = Some(first.map_or(began, |other| other.min(began)));
            sent.add(tally);
            handles.push(tx);
        }
        for worker in workers {
            let (ended, tally, _) = worker.join().expect("no thread panics");
            last = Some(last.map_or(ended, |other| other.max(ended)));
            took.add(tally);
        }
        let time = last.zip(first).map_or(0.0, |(b, a)| (b - a).as_secs_f64());
        took.prove(&sent)?;
        Ok(Sample::of(1e-6 * took.count() as f64 / time))
    })
}

fn run(crew: Crew, seconds: f64) -> Run {
    Run {
        crew,
        batch: 1,
        capacity: CAPACITY,
        seconds,
    }
}

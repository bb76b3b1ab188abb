//! The runs themselves: two threads on two processors, every message written and checked in full.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::thread::CpuSet;
use slipring::SetupError;
use slipring::spsc::{Builder, Channel, Consumer, Producer};

use crate::exit::Failure;

/// The most messages in one in-place batch.
pub(super) const BATCH: usize = 256;
/// The most round trips; a twentieth more come first, to warm up.
const ROUNDS: u64 = 100_000;
/// The histogram distinguishes round trips up to this many nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// A message of `8 * N` bytes.
type Message<const N: usize> = [u64; N];

/// The source of a run's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Heap,
    Named,
}

impl Memory {
    pub(super) fn name(self) -> &'static str {
        match self {
            Memory::Heap => "heap",
            Memory::Named => "named",
        }
    }
}

/// A channel for a run. A named one is removed afterwards, whatever happened.
struct Bed<const N: usize>(Channel<Message<N>>);

impl<const N: usize> Bed<N> {
    fn make(memory: Memory, capacity: usize, what: &str) -> Result<Bed<N>, SetupError> {
        let builder = Builder::<Message<N>>::new(capacity);
        Ok(Bed(match memory {
            Memory::Heap => builder.heap()?,
            Memory::Named => builder.create(&format!("bench-{}-{what}", std::process::id()))?,
        }))
    }

    fn ends(&self) -> Result<(Producer<Message<N>>, Consumer<Message<N>>), SetupError> {
        Ok((self.0.producer()?, self.0.consumer()?))
    }
}

impl<const N: usize> Drop for Bed<N> {
    fn drop(&mut self) {
        // A failure here needs no action: `slipring ls` shows the channel.
        let _ = self.0.remove();
    }
}

/// Returns the number of slots for a stream of such messages: as many as stay in the nearest cache.
pub(super) fn capacity(size: usize) -> usize {
    ((256 << 10) / size).next_power_of_two().clamp(BATCH, 4096)
}

/// Runs `far` on another processor beside `near`, and returns what `near` did.
pub(super) fn beside<R>(
    far: impl FnOnce() -> Result<(), Failure> + Send,
    near: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, Failure> {
    let allowed = processors();
    let pin = |index: usize| {
        // With one processor there is nothing to choose.
        if let Some(processor) = allowed.get(index) {
            let mut set = CpuSet::new();
            set.set(*processor);
            let _ = rustix::thread::sched_setaffinity(None, &set);
        }
    };
    std::thread::scope(|scope| {
        let far = scope.spawn(|| {
            pin(1);
            far()
        });
        pin(0);
        let near = near();
        match far.join() {
            Ok(far) => near.and_then(|near| far.map(|()| near)),
            Err(_) => Err(Failure::Words("a thread of the benchmark panicked".into())),
        }
    })
}

/// Returns the first two processors that this process may use, or an empty slice if there is only
/// one.
pub(super) fn processors() -> &'static [usize] {
    static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    // Asks only once, because this thread is pinned itself later.
    ALLOWED.get_or_init(|| {
        let Ok(set) = rustix::thread::sched_getaffinity(None) else {
            return Vec::new();
        };
        let first: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .take(2)
            .collect();
        if first.len() == 2 { first } else { Vec::new() }
    })
}

/// Returns the time that `count` messages take from one thread to the other.
pub(super) fn stream<const N: usize>(
    memory: Memory,
    in_place: bool,
    count: u64,
) -> Result<Duration, Failure> {
    let bed = Bed::<N>::make(memory, capacity(8 * N), "stream")?;
    let (mut tx, mut rx) = bed.ends()?;
    let elapsed = beside(
        move || {
            if in_place {
                write_batches(&mut tx, count)
            } else {
                (0..count).try_for_each(|number| Ok(tx.push([number; N])?))
            }
        },
        move || {
            let begun = Instant::now();
            if in_place {
                read_batches(&mut rx, count)?;
            } else {
                for number in 0..count {
                    check(&rx.pop()?, number)?;
                }
            }
            Ok(begun.elapsed())
        },
    )?;
    Ok(elapsed)
}

fn write_batches<const N: usize>(tx: &mut Producer<Message<N>>, count: u64) -> Result<(), Failure> {
    let mut number = 0;
    while number < count {
        let batch = (count - number).min(BATCH.min(tx.capacity() / 2) as u64) as usize;
        let mut slots = tx.reserve(batch)?;
        let (front, back) = slots.as_mut_slices();
        for slot in front.iter_mut().chain(back) {
            *slot = [number; N];
            number += 1;
        }
        slots.commit(batch);
    }
    Ok(())
}

fn read_batches<const N: usize>(rx: &mut Consumer<Message<N>>, count: u64) -> Result<(), Failure> {
    let mut number = 0;
    while number < count {
        let messages = rx.read_batch(BATCH)?;
        let (front, back) = messages.as_slices();
        for message in front.iter().chain(back) {
            check(message, number)?;
            number += 1;
        }
    }
    Ok(())
}

#[inline]
pub(super) fn check<const N: usize>(message: &Message<N>, number: u64) -> Result<(), Failure> {
    // There is no early exit, so that the compiler can compare in wide steps.
    let wrong = message
        .iter()
        .fold(0, |wrong, word| wrong | (word ^ number));
    if wrong == 0 {
        Ok(())
    } else {
        Err(Failure::Words(format!(
            "check failed: message {number} came out wrong"
        )))
    }
}

/// Returns an empty histogram for round trips.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| Failure::Words(error.to_string()))
}

/// Measures round trips of single messages, each timed.
pub(super) fn round_trips<const N: usize>(
    memory: Memory,
    count: u64,
) -> Result<Histogram<u64>, Failure> {
    let (there, back) = (
        Bed::<N>::make(memory, 64, "there")?,
        Bed::<N>::make(memory, 64, "back")?,
    );
    let (mut ping, mut far_rx) = there.ends()?;
    let (mut far_tx, mut pong) = back.ends()?;
    let rounds = count.min(ROUNDS);
    let warm_up = rounds / 20;
    let total = warm_up + rounds;
    beside(
        move || {
            for _ in 0..total {
                far_tx.push(far_rx.pop()?)?;
            }
            Ok(())
        },
        move || {
            let mut histogram = histogram()?;
            for number in 0..total {
                let begun = Instant::now();
                ping.push([number; N])?;
                check(&pong.pop()?, number)?;
                if number >= warm_up {
                    histogram.saturating_record(begun.elapsed().as_nanos() as u64);
                }
            }
            Ok(histogram)
        },
    )
}

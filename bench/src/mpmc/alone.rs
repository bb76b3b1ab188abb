//! One thread that pushes and pops: the cost of the calls where no other core takes part.
//!
//! A push and a pop are timed together in a loop. Apart, they are timed over half of the queue: the
//! thread fills half of it, then drains it, and only one of the two is on the clock.

use super::crew::{Run, Tally, cores};
use super::peers::Contender;
use super::plan::{Crew, Timed};
use crate::duel::pin;
use crate::message::Job;
use std::ops::Range;
use std::time::{Duration, Instant};

/// The number of slots.
const CAPACITY: usize = 1024;
/// The number of messages that half of the queue holds.
const HALF: u64 = CAPACITY as u64 / 2;

/// Runs one contender, and returns the nanoseconds of the part that is timed.
pub fn run<J: Job, C: Contender<J>>(timed: Timed, seconds: f64) -> Result<f64, String> {
    pin(cores()[0]);
    let run = Run {
        crew: Crew::of(1),
        batch: 1,
        capacity: CAPACITY,
        seconds,
    };
    let (mut txs, mut rxs) = C::ends(&run);
    let (tx, rx) = (&mut txs[0], &mut rxs[0]);
    let (mut tally, mut next) = (Tally::default(), 0);
    // The warm-up goes around the ring; the trial tells how many rounds the run takes.
    let mut rounds = 4;
    for share in [0.15, 1.0] {
        let ns = stretch::<J, C>(timed, tx, rx, rounds, &mut next, &mut tally);
        let wanted = seconds * share * 1e9 / (ns * HALF as f64);
        rounds = (wanted as u64).clamp(4, 10_000_000);
    }
    let ns = stretch::<J, C>(timed, tx, rx, rounds, &mut next, &mut tally);
    tally.prove(&Tally::of(&(0..next))).map(|()| ns)
}

/// Does `rounds` times half of the queue, and returns the nanoseconds for each message.
fn stretch<J: Job, C: Contender<J>>(
    timed: Timed,
    tx: &mut C::Tx,
    rx: &mut C::Rx,
    rounds: u64,
    next: &mut u64,
    tally: &mut Tally,
) -> f64 {
    let mut time = Duration::ZERO;
    for _ in 0..rounds {
        let half = *next..*next + HALF;
        *next = half.end;
        time += match timed {
            Timed::Both => both::<J, C>(tx, rx, half, tally),
            Timed::Push | Timed::Pop => {
                let filling = fill::<J, C>(tx, half);
                let draining = drain::<J, C>(rx, tally);
                if timed == Timed::Push {
                    filling
                } else {
                    draining
                }
            }
        };
    }
    time.as_nanos() as f64 / (rounds * HALF) as f64
}

#[inline(never)]
fn both<J: Job, C: Contender<J>>(
    tx: &mut C::Tx,
    rx: &mut C::Rx,
    half: Range<u64>,
    tally: &mut Tally,
) -> Duration {
    let (mut sum, start) = (*tally, Instant::now());
    for seq in half {
        C::push(tx, seq);
        C::pop(rx, &mut sum);
    }
    let time = start.elapsed();
    *tally = sum;
    time
}

#[inline(never)]
fn fill<J: Job, C: Contender<J>>(tx: &mut C::Tx, half: Range<u64>) -> Duration {
    let start = Instant::now();
    for seq in half {
        C::push(tx, seq);
    }
    start.elapsed()
}

#[inline(never)]
fn drain<J: Job, C: Contender<J>>(rx: &mut C::Rx, tally: &mut Tally) -> Duration {
    let (mut sum, start) = (*tally, Instant::now());
    for _ in 0..HALF {
        C::pop(rx, &mut sum);
    }
    let time = start.elapsed();
    *tally = sum;
    time
}

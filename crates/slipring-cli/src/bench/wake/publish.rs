//! Measures the cost to a publisher of a peer that *could* sleep. slipring's push stands beside the
//! push of a ring that can wake nobody.
//!
//! One thread on one processor fills a ring and empties it again; only the filling is timed. So no
//! cache line travels between processors. Each filling looks at the other side once, and the rest
//! of the figure is the publish itself. Between two pushes both handles are in memory, as in a
//! program that does something else there.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slipring::{SetupError, spsc};

use crate::exit::Failure;

/// The ring stays in the nearest cache, beside the other data there.
const SLOTS: usize = 1024;
/// The number of fillings in one run, which takes about a millisecond.
const FILLINGS: u32 = 500;

/// The cost of a publish in nanoseconds.
pub(super) struct Publish {
    pub(super) slipring: f64,
    pub(super) plain: f64,
    /// The median, over the runs, of the extra time that slipring took.
    pub(super) more: f64,
}

/// Runs each ring `runs` times, in turn. The runs are short and many, so that a change in the
/// machine's speed affects both.
pub(super) fn measure(runs: usize) -> Result<Publish, Failure> {
    let (mut ours, mut plain) = (Slipring::new()?, Plain::new(black_box(SLOTS)));
    let (mut slipring, mut lamport, mut more) = (Vec::new(), Vec::new(), Vec::new());
    // The first run is a warm-up.
    for run in 0..=runs {
        let (theirs, mine) = (plain.run()?, ours.run()?);
        if run > 0 {
            slipring.push(mine);
            lamport.push(theirs);
            more.push(mine - theirs);
        }
    }
    Ok(Publish {
        slipring: super::median(slipring),
        plain: super::median(lamport),
        more: super::median(more),
    })
}

/// Returns the nanoseconds of one publish, from the time that all fillings of a run took.
fn each(all: Duration) -> f64 {
    all.as_nanos() as f64 / f64::from(FILLINGS) / SLOTS as f64
}

fn wrong() -> Failure {
    Failure::Words("check failed: a ring did not hold what was put into it".into())
}

struct Slipring(spsc::Producer<u64>, spsc::Consumer<u64>);

impl Slipring {
    fn new() -> Result<Slipring, SetupError> {
        let (tx, rx) = spsc::channel(SLOTS)?;
        Ok(Slipring(tx, rx))
    }

    fn run(&mut self) -> Result<f64, Failure> {
        let mut all = Duration::ZERO;
        for _ in 0..FILLINGS {
            let begun = Instant::now();
            for value in 0..SLOTS as u64 {
                black_box(&mut self.0).try_push(value)?;
            }
            all += begun.elapsed();
            let values = self.1.try_read_batch(SLOTS)?;
            if !values.iter().copied().eq(0..SLOTS as u64) {
                return Err(wrong());
            }
        }
        Ok(each(all))
    }
}

/// Words of different writers lie apart, as slipring's do.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// Lamport's ring with a private copy of the other position: the least that a publish can take. It
/// cannot wake anybody. As in slipring, the size is chosen at run time.
struct Plain {
    slots: Box<[AtomicU64]>,
    tail: Box<Line>,
    head: Box<Line>,
    /// The writer's own position, and its cached limit.
    at: u64,
    limit: u64,
}

impl Plain {
    fn new(slots: usize) -> Plain {
        Plain {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            tail: Box::default(),
            head: Box::default(),
            at: 0,
            limit: 0,
        }
    }

    #[inline]
    fn try_push(&mut self, value: u64) -> bool {
        if self.at == self.limit {
            self.limit = self.head.0.load(Ordering::Acquire) + self.slots.len() as u64;
            if self.at == self.limit {
                return false;
            }
        }
        let place = self.at as usize & (self.slots.len() - 1);
        self.slots[place].store(value, Ordering::Relaxed);
        self.at += 1;
        self.tail.0.store(self.at, Ordering::Release);
        true
    }

    fn run(&mut self) -> Result<f64, Failure> {
        let mut all = Duration::ZERO;
        for _ in 0..FILLINGS {
            let begun = Instant::now();
            for value in 0..SLOTS as u64 {
                if !black_box(&mut *self).try_push(value) {
                    return Err(wrong());
                }
            }
            all += begun.elapsed();
            let tail = self.tail.0.load(Ordering::Acquire);
            let values = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
            if tail != self.at || !values.eq(0..SLOTS as u64) {
                return Err(wrong());
            }
            self.head.0.store(tail, Ordering::Release);
        }
        Ok(each(all))
    }
}

//! What it costs a publisher that somebody *could* sleep: slipring's push beside that of a ring which
//! can wake nobody.
//!
//! One thread on one processor fills a ring and empties it again; only the filling is timed. So no
//! line is on its way between processors, and no look at the other side is in the figure but one a
//! filling: what remains is the publish itself. Either handle is in memory between two pushes, as in a
//! program that does something else there.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slipring::{Error, spsc};

use crate::exit::Failure;

/// In the nearest cache, beside whatever else is there.
const SLOTS: usize = 1024;
/// Fillings of one run: about a millisecond.
const FILLINGS: u32 = 500;

/// Nanoseconds a publish.
pub(super) struct Publish {
    pub(super) slipring: f64,
    pub(super) plain: f64,
    /// The median of what slipring took longer, run by run.
    pub(super) more: f64,
}

/// `runs` of each, in turn: short and many, so that a change of the machine's mood meets both.
pub(super) fn measure(runs: usize) -> Result<Publish, Failure> {
    let (mut ours, mut plain) = (Slipring::new()?, Plain::new(black_box(SLOTS)));
    let (mut slipring, mut lamport, mut more) = (Vec::new(), Vec::new(), Vec::new());
    // The first is a warm-up.
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

/// Nanoseconds a publish, of so long a time for all fillings of a run.
fn each(all: Duration) -> f64 {
    all.as_nanos() as f64 / f64::from(FILLINGS) / SLOTS as f64
}

fn wrong() -> Failure {
    Failure::Words("check failed: a ring did not hold what was put into it".into())
}

struct Slipring(spsc::Producer<u64>, spsc::Consumer<u64>);

impl Slipring {
    fn new() -> Result<Slipring, Error> {
        let (tx, rx) = spsc::channel(SLOTS)?;
        Ok(Slipring(tx, rx))
    }

    fn run(&mut self) -> Result<f64, Failure> {
        let mut all = Duration::ZERO;
        for _ in 0..FILLINGS {
            let begun = Instant::now();
            for value in 0..SLOTS as u64 {
                black_box(&mut self.0)
                    .try_push(value)
                    .map_err(Error::from)?;
            }
            all += begun.elapsed();
            let values = self.1.try_read(SLOTS)?;
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

/// Lamport's ring with a private copy of the other position: what a publish takes at least, and
/// nothing that could wake anybody. As slipring's, it has the size that it was made with.
struct Plain {
    slots: Box<[AtomicU64]>,
    tail: Box<Line>,
    head: Box<Line>,
    /// The writer's own position, and how far it may go unasked.
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

//! Producers and consumers on their cores, and the proof that each item was taken once.
//!
//! ```text
//! thread k, producers first, on core k modulo the number of cores:
//!
//! 1+1 on 2 cores   core 0: producer             core 1: consumer
//! 2+2 on 2 cores   core 0: producer, consumer   core 1: producer, consumer
//! ```
//!
//! A run has several stretches with the same threads and handles: a warm-up that goes around the ring,
//! probes until their rates agree (`steady`), and the one that counts. Between them all threads meet,
//! and the queue is empty. The clock of a stretch runs from the first thread that
//! begins to the last thread that ends.
//!
//! Producers send disjoint ranges of numbers. Each consumer checks every word of its messages, and
//! counts, sums and squares their numbers. A lost, repeated or invented number changes one of the
//! three.

use super::peers::Contender;
use super::plan::Crew;
use crate::duel::pin;
use crate::message::Job;
use crate::steady::{PROBE, Steady};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Barrier, Mutex};
use std::time::Instant;

/// The parameters of one run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The threads.
    pub crew: Crew,
    /// The number of messages handed over at a time.
    pub batch: usize,
    /// The number of slots.
    pub capacity: usize,
    /// The length of the stretch that counts, in seconds.
    pub seconds: f64,
}

/// Waits between two tries, for all contenders alike: it spins a little, then it yields the core.
///
/// With more threads than cores, the thread that must move first may be waiting for this core.
#[derive(Debug)]
pub struct Backoff(u32);

/// The number of spins before a wait yields the core.
const SPINS: u32 = 64;

impl Backoff {
    /// Returns a wait that begins to spin.
    #[inline(always)]
    pub fn new() -> Backoff {
        Backoff(0)
    }

    /// Waits a moment.
    #[inline(always)]
    pub fn pause(&mut self) {
        if self.0 < SPINS {
            self.0 += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Repeats an attempt until it gives `Some`, with a [`Backoff`] between two tries.
///
/// This is a macro and not a function, because some attempts return a borrow of the handle.
#[macro_export]
macro_rules! until {
    ($attempt:expr) => {{
        let mut wait = $crate::mpmc::crew::Backoff::new();
        loop {
            if let Some(got) = $attempt {
                break got;
            }
            wait.pause();
        }
    }};
}

/// The account of the messages that a consumer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Their number.
    count: u64,
    /// The sum of their numbers.
    sum: u64,
    /// The sum of the squares of their numbers.
    squares: u64,
    /// Nonzero if any word of any message was wrong.
    bad: u64,
}

impl Tally {
    /// Checks a message and enters it.
    #[inline(always)]
    pub fn took<J: Job>(&mut self, msg: &J::Msg) {
        let seq = J::number(msg);
        self.bad |= J::check(msg, seq);
        self.count += 1;
        self.sum = self.sum.wrapping_add(seq);
        self.squares = self.squares.wrapping_add(seq.wrapping_mul(seq));
    }

    /// Returns `true` if any word of any message was wrong.
    pub fn is_bad(&self) -> bool {
        self.bad != 0
    }

    /// Returns the number of messages.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds another account.
    pub fn add(&mut self, other: Tally) {
        self.bad |= other.bad;
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.squares = self.squares.wrapping_add(other.squares);
    }

    /// Returns the account of messages that were each taken once and arrived whole. Numbers are below
    /// 2^41.
    pub fn of(range: &Range<u64>) -> Tally {
        let (start, end) = (u128::from(range.start), u128::from(range.end));
        let sum = |n: u128| n * n.saturating_sub(1) / 2;
        let squares = |n: u128| n * n.saturating_sub(1) * (2 * n).saturating_sub(1) / 6;
        Tally {
            count: range.end - range.start,
            sum: (sum(end) - sum(start)) as u64,
            squares: (squares(end) - squares(start)) as u64,
            bad: 0,
        }
    }

    /// Returns an error that says how this account differs from that of the messages that were sent.
    pub fn prove(&self, sent: &Tally) -> Result<(), String> {
        if self.bad != 0 {
            Err("delivered wrong data".to_owned())
        } else if self.count != sent.count {
            Err(format!(
                "{} items were taken, {} were sent",
                self.count, sent.count
            ))
        } else if self != sent {
            Err("as many items were taken as were sent, but not the same ones".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Stretches are multiples of this number of messages: whole batches for each producer.
const STEP: u64 = 256;

/// What the threads share.
struct Shared {
    barrier: Barrier,
    /// The numbers of the messages of this stretch.
    start: AtomicU64,
    end: AtomicU64,
    /// The stretches so far: none, the warm-up and some probes, or all.
    progress: Mutex<Progress>,
    /// The number of producers that have sent their share of this stretch.
    sent: AtomicUsize,
    /// When the first thread began this stretch, when the last one ended it, and what was taken.
    books: Mutex<(Option<Instant>, Option<Instant>, Tally)>,
    /// The figure of the last stretch, or what went wrong.
    result: Mutex<Result<f64, String>>,
}

#[derive(Debug, Default)]
struct Progress {
    steady: Steady,
    warm: bool,
    timed: bool,
    over: bool,
}

/// Runs one contender, and returns its rate in million messages a second.
pub fn stream<J: Job, C: Contender<J>>(run: &Run) -> Result<f64, String> {
    let (txs, rxs) = C::ends(run);
    assert_eq!(
        (txs.len(), rxs.len()),
        (run.crew.producers, run.crew.consumers)
    );
    let cores = cores();
    let core = |thread: usize| cores[thread % cores.len()];
    let shared = &Shared {
        barrier: Barrier::new(txs.len() + rxs.len()),
        start: AtomicU64::new(0),
        end: AtomicU64::new((2 * run.capacity as u64).max(4096)),
        progress: Mutex::new(Progress::default()),
        sent: AtomicUsize::new(0),
        books: Mutex::new((None, None, Tally::default())),
        result: Mutex::new(Err("no stretch ended".to_owned())),
    };
    let producers = run.crew.producers;
    std::thread::scope(|scope| {
        for (i, tx) in txs.into_iter().enumerate() {
            scope.spawn(move || {
                pin(core(i));
                produce::<J, C>(run, shared, i, tx);
            });
        }
        for (i, rx) in rxs.into_iter().enumerate() {
            scope.spawn(move || {
                pin(core(producers + i));
                consume::<J, C>(run, shared, rx);
            });
        }
    });
    let result = shared.result.lock().expect("no thread panics");
    result.clone()
}

fn produce<J: Job, C: Contender<J>>(run: &Run, shared: &Shared, i: usize, mut tx: C::Tx) {
    while let Some(all) = shared.begin() {
        let began = Instant::now();
        let share = (all.end - all.start) / run.crew.producers as u64;
        let first = all.start + i as u64 * share;
        let mine = first..first + share;
        if run.batch == 1 {
            for seq in mine {
                C::push(&mut tx, seq);
            }
        } else {
            for first in mine.step_by(run.batch) {
                C::push_batch(&mut tx, first..first + run.batch as u64);
            }
        }
        // Release: a consumer that sees all producers done sees their messages.
        shared.sent.fetch_add(1, Release);
        shared.end_stretch(run, began, Tally::default());
    }
}

fn consume<J: Job, C: Contender<J>>(run: &Run, shared: &Shared, mut rx: C::Rx) {
    while shared.begin().is_some() {
        let (began, mut tally) = (Instant::now(), Tally::default());
        let mut wait = Backoff::new();
        loop {
            // Acquire: pairs with `produce`. Asked before the try, so that a queue found empty stays
            // empty.
            let last = shared.sent.load(Acquire) == run.crew.producers;
            let took = if run.batch == 1 {
                C::pop(&mut rx, &mut tally)
            } else {
                C::pop_batch(&mut rx, run.batch, &mut tally)
            };
            if took {
                wait = Backoff::new();
            } else if last {
                break;
            } else {
                wait.pause();
            }
        }
        shared.end_stretch(run, began, tally);
    }
}

impl Shared {
    /// Meets the other threads, and returns the numbers of the next stretch, if there is one.
    fn begin(&self) -> Option<Range<u64>> {
        self.barrier.wait();
        let over = self.progress.lock().expect("no thread panics").over;
        (!over).then(|| self.start.load(Relaxed)..self.end.load(Relaxed))
    }

    /// Enters one thread's stretch, and meets the others. The last thread closes the books.
    fn end_stretch(&self, run: &Run, began: Instant, tally: Tally) {
        let ended = Instant::now();
        {
            let mut books = self.books.lock().expect("no thread panics");
            let (first, last, all) = &mut *books;
            *first = Some(first.map_or(began, |other| other.min(began)));
            *last = Some(last.map_or(ended, |other| other.max(ended)));
            all.add(tally);
        }
        if self.barrier.wait().is_leader() {
            self.close(run);
        }
    }

    fn close(&self, run: &Run) {
        let mut books = self.books.lock().expect("no thread panics");
        let (Some(first), Some(last), tally) = std::mem::take(&mut *books) else {
            return;
        };
        let range = self.start.load(Relaxed)..self.end.load(Relaxed);
        let seconds = (last - first).as_secs_f64();
        let rate = (range.end - range.start) as f64 / seconds;
        let mut result = self.result.lock().expect("no thread panics");
        // A stretch that lost items makes the run worthless, whatever the next one says.
        let mut progress = self.progress.lock().expect("no thread panics");
        if !progress.warm || result.is_ok() {
            *result = tally.prove(&Tally::of(&range)).map(|()| 1e-6 * rate);
        }
        progress.over = progress.timed;
        progress.timed = progress.warm && progress.steady.reached(rate);
        progress.warm = true;
        let seconds = if progress.timed { run.seconds } else { PROBE };
        let next = (rate * seconds) as u64;
        self.start.store(range.end, Relaxed);
        let end = range.end + next.next_multiple_of(STEP).max(STEP);
        self.end.store(end, Relaxed);
        self.sent.store(0, Relaxed);
    }
}

/// Returns the cores that this process may use.
pub fn cores() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place of the size given; 0 is the calling thread.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    let allowed = |core: &usize| {
        // SAFETY: `core` is inside the set.
        unsafe { libc::CPU_ISSET(*core, &set) }
    };
    (0..8 * size_of_val(&set)).filter(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Task;

    type Words = Task<[u64; 8]>;

    fn tally(numbers: impl IntoIterator<Item = u64>) -> Tally {
        let mut tally = Tally::default();
        for seq in numbers {
            tally.took::<Words>(&Words::make(seq));
        }
        tally
    }

    fn prove(tally: Tally, sent: Range<u64>) -> Result<(), String> {
        tally.prove(&Tally::of(&sent))
    }

    #[test]
    fn items_taken_once_pass() {
        assert_eq!(prove(tally(100..300), 100..300), Ok(()));
        assert_eq!(prove(tally((0..300).rev()), 0..300), Ok(()));
    }

    #[test]
    fn a_lost_or_repeated_item_shows() {
        assert!(prove(tally(100..299), 100..300).is_err());
        assert!(prove(tally((100..300).chain([150])), 100..300).is_err());
        let one_for_another = (100..299).chain([150]);
        assert!(prove(tally(one_for_another), 100..300).is_err());
        // The sum alone would not show two such exchanges.
        let both = (100..300).map(|n| match n {
            150 => 151,
            250 => 249,
            n => n,
        });
        assert!(prove(tally(both), 100..300).is_err());
    }

    #[test]
    fn a_torn_item_shows() {
        let mut torn = Words::make(7);
        torn[5] = Words::make(6)[5];
        let mut tally = Tally::default();
        tally.took::<Words>(&torn);
        assert!(prove(tally, 7..8).is_err());
    }
}

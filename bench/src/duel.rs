//! One run: two pinned threads or processes, a warm-up, one timed stretch.
//!
//! ```text
//! core 0, producer   set up │ gauge │ warm-up ....... │ wait for go │ probes, then timed: send N     │ gauge
//! core 1, consumer   set up │ gauge │ warm-up, emptied │ t0, go      │ probes, then timed: check N, t1 │ gauge
//! ```
//!
//! The warm-up goes around the ring, so every page is backed and every cached index has been
//! refreshed. Probes follow until their times agree (`steady`). Each stretch is drained before the
//! next begins, so the timed stretch begins and ends with an empty ring and counts exactly its own N
//! messages.
//!
//! The gauge passes a cache line to and fro for less than a millisecond. On a virtual machine two
//! cores may be neighbours now and far apart a minute later, and every figure then changes by a
//! factor. So each sample says how far apart its cores were, before and after.

use crate::steady::Steady;
use std::io::Error;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

/// The parameters of one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The number of slots in a ring of fixed-size messages.
    pub capacity: usize,
    /// The size in bytes of a ring of variable-size records.
    pub ring_bytes: usize,
    /// The number of messages before the clock starts.
    pub warm: u64,
    /// The number of messages in a probe, or zero for a run without probes.
    pub probe: u64,
    /// The number of messages on the clock.
    pub messages: u64,
    /// The producer's and the consumer's core.
    pub cores: (usize, usize),
    /// `true` for two processes instead of two threads.
    pub processes: bool,
    /// A directory on shared memory, this run's own.
    pub dir: std::path::PathBuf,
}

/// The result of one run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The timed stretch, on the consumer's clock.
    pub time: Duration,
    /// Nonzero if any word of any message was wrong.
    pub bad: u64,
    /// The share of the stretch, 0 to 1, during which the less lucky thread was on its core.
    /// Threads that spin are always on it unless something else wanted the core.
    pub on_core: f64,
    /// The nanoseconds that a cache line took to the other core and back, before and after. `None`
    /// if only one core was used.
    pub line: Option<(f64, f64)>,
    /// The part of the timed stretch that counts, if not all of it does.
    pub own: Option<Duration>,
    /// The number of messages that a reader missed, in cases that allow it.
    pub lost: u64,
}

/// Repeats an attempt until it gives `Some`: every contender here waits so.
///
/// This is a macro and not a function, because some attempts return a borrow of the handle.
#[macro_export]
macro_rules! spin {
    ($attempt:expr) => {
        loop {
            if let Some(got) = $attempt {
                break got;
            }
            std::hint::spin_loop();
        }
    };
}

/// Runs `produce` and `consume` against each other on the run's two cores.
///
/// Each side is set up on its own thread (or in its own process) and gives back a loop over a range
/// of sequence numbers. The consumer's loop returns the result of its checks. Both handles live
/// until both sides are done.
pub fn duel<P, C>(
    run: &Run,
    produce: impl FnOnce() -> P + Send,
    consume: impl FnOnce() -> C + Send,
) -> Sample
where
    P: FnMut(Range<u64>),
    C: FnMut(Range<u64>) -> u64,
{
    let meeting = Meeting::new();
    if run.processes {
        let child = fork();
        if child == 0 {
            meeting.producer_side(run, produce);
            std::process::exit(0);
        }
        let sample = meeting.consumer_side(run, consume);
        // SAFETY: `child` is our child, and its exit status is of no interest.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        return sample;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| meeting.producer_side(run, produce));
        let consumer = scope.spawn(|| meeting.consumer_side(run, consume));
        consumer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The words through which the two sides meet, in memory that both share.
#[repr(C)]
struct Meeting {
    ready: AtomicU32,
    /// Twice the number of the stretch that may begin, plus one if it is on the clock.
    go: AtomicU32,
    done: AtomicU32,
    /// Nanoseconds of processor time that the producer spent on the timed stretch.
    producer_cpu: AtomicU64,
    /// The cache line of the gauge.
    gauge: Alone,
}

/// A word so far from its neighbours that no prefetcher moves them together.
#[repr(C, align(256))]
pub struct Alone(pub AtomicU64);

/// The rounds of one gauging, of which the fastest counts, and the trips in each round.
const GAUGE: (u64, u64) = (4, 250);

impl Meeting {
    fn new() -> &'static Meeting {
        // SAFETY: zeroes are a `Meeting`.
        unsafe { shared() }
    }

    fn producer_side<P: FnMut(Range<u64>)>(&self, run: &Run, produce: impl FnOnce() -> P) {
        pin(run.cores.0);
        let mut send = produce();
        wait_for_both(&self.ready);
        self.answer_gauge(0);
        let mut stretch = Stretch::first(run);
        // One call serves all stretches, so that the loop is compiled once and in place.
        let before = loop {
            let before = thread_cpu();
            send(stretch.range());
            if stretch.timed {
                break before;
            }
            // Acquire: pairs with the consumer's store.
            let go = || Some(self.go.load(Acquire)).filter(|go| go / 2 > stretch.number);
            stretch = stretch.next(run, spin!(go()) % 2 == 1);
        };
        let cpu = thread_cpu() - before;
        self.producer_cpu.store(cpu.as_nanos() as u64, Relaxed);
        self.answer_gauge(1);
        wait_for_both(&self.done);
    }

    fn consumer_side<C>(&self, run: &Run, consume: impl FnOnce() -> C) -> Sample
    where
        C: FnMut(Range<u64>) -> u64,
    {
        pin(run.cores.1);
        let mut receive = consume();
        wait_for_both(&self.ready);
        let near = self.ask_gauge(0);
        let (mut bad, mut steady) = (0, Steady::default());
        let mut stretch = Stretch::first(run);
        let (time, cpu) = loop {
            let (before, start) = (thread_cpu(), Instant::now());
            // Release: pairs with the producer's load, and comes after the clock's start.
            let go = 2 * stretch.number + u32::from(stretch.timed);
            self.go.store(go, Release);
            bad |= receive(stretch.range());
            let time = start.elapsed();
            if stretch.timed {
                break (time, thread_cpu() - before);
            }
            let probed = stretch.number > 0 && steady.reached(time.as_secs_f64());
            stretch = stretch.next(run, probed || run.probe == 0);
        };
        let line = Some((near, self.ask_gauge(1)));
        wait_for_both(&self.done);
        let producer_cpu = Duration::from_nanos(self.producer_cpu.load(Relaxed));
        let on_core = cpu.min(producer_cpu).as_secs_f64() / time.as_secs_f64();
        Sample {
            time,
            bad,
            on_core,
            line,
            own: None,
            lost: 0,
        }
    }

    /// Returns the nanoseconds of a round trip of the gauge's line; `turn` counts the gaugings of a
    /// run.
    fn ask_gauge(&self, turn: u64) -> f64 {
        let (rounds, trips) = GAUGE;
        let mut fastest = f64::INFINITY;
        for round in 0..rounds {
            let first = (turn * rounds + round) * trips;
            let start = Instant::now();
            for trip in first..first + trips {
                self.gauge.0.store(2 * trip + 1, Release);
                while self.gauge.0.load(Acquire) != 2 * trip + 2 {
                    std::hint::spin_loop();
                }
            }
            fastest = fastest.min(start.elapsed().as_nanos() as f64 / trips as f64);
        }
        fastest
    }

    fn answer_gauge(&self, turn: u64) {
        let (rounds, trips) = GAUGE;
        for trip in turn * rounds * trips..(turn + 1) * rounds * trips {
            while self.gauge.0.load(Acquire) != 2 * trip + 1 {
                std::hint::spin_loop();
            }
            self.gauge.0.store(2 * trip + 2, Release);
        }
    }
}

/// Returns a `T` in pages that a child shares. They are never unmapped: the process ends with the run.
///
/// # Safety
/// Zeroes are a `T`, and its alignment is at most a page.
pub unsafe fn shared<T>() -> &'static T {
    let (size, rights) = (size_of::<T>(), libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping somewhere, of no file.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size, rights, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED, "mmap: {}", Error::last_os_error());
    // SAFETY: fresh, aligned to a page and zeroed, which is a `T` as the caller promises.
    unsafe { &*page.cast() }
}

/// Returns the nanoseconds of a cache line to the other core and back, for two cores that have nothing
/// else to do.
pub fn distance((asker, answerer): (usize, usize)) -> f64 {
    let meeting = Meeting::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(answerer);
            meeting.answer_gauge(0);
        });
        let asked = scope.spawn(|| {
            pin(asker);
            meeting.ask_gauge(0)
        });
        asked.join().expect("no thread panics")
    })
}

/// A stretch of a run: the warm-up, a probe, or the one on the clock.
#[derive(Clone, Debug)]
struct Stretch {
    number: u32,
    start: u64,
    end: u64,
    timed: bool,
}

impl Stretch {
    fn first(run: &Run) -> Stretch {
        Stretch {
            number: 0,
            start: 0,
            end: run.warm,
            timed: false,
        }
    }

    fn next(&self, run: &Run, timed: bool) -> Stretch {
        let length = if timed { run.messages } else { run.probe };
        Stretch {
            number: self.number + 1,
            start: self.end,
            end: self.end + length,
            timed,
        }
    }

    /// Returns the numbers of the messages; opaque, so that the compiler does not make several loops of one.
    fn range(&self) -> Range<u64> {
        self.start..std::hint::black_box(self.end)
    }
}

/// Comes to a meeting point, and returns when the other side has come too.
fn wait_for_both(point: &AtomicU32) {
    point.fetch_add(1, AcqRel);
    while point.load(Acquire) < 2 {
        std::thread::yield_now();
    }
}

/// Forks into two processes, and returns zero in the child, which does not outlive its parent. Call
/// it only while this process has one thread.
pub fn fork() -> libc::pid_t {
    // SAFETY: there is no other thread whose locks the child could inherit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", Error::last_os_error());
    if child == 0 {
        // SAFETY: takes a signal's number; changes nothing but this process's own setting.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    }
    child
}

/// Runs a [`duel`] between two handles that were made beforehand.
pub fn stream<T: Send, R: Send>(
    run: &Run,
    (mut tx, mut rx): (T, R),
    send: impl Fn(&mut T, Range<u64>) + Send,
    receive: impl Fn(&mut R, Range<u64>) -> u64 + Send,
) -> Sample {
    duel(
        run,
        || move |range| send(&mut tx, range),
        || move |range| receive(&mut rx, range),
    )
}

/// Sends a range one message at a time, as a loop for [`stream`].
///
/// This and the three that follow are macros. A function that takes `impl Fn` inlines its argument
/// or not, depending on its number of callers. That put slipring, with its three regions, at a
/// disadvantage. Here every contender's loop contains its calls.
#[macro_export]
macro_rules! each {
    ($push:expr) => {
        |tx: &mut _, range: std::ops::Range<u64>| {
            for seq in range {
                $push(tx, seq);
            }
        }
    };
}

/// Receives a range one message at a time; `pop` returns the result of its check.
#[macro_export]
macro_rules! each_checked {
    ($pop:expr) => {
        |rx: &mut _, range: std::ops::Range<u64>| {
            let mut bad = 0;
            for seq in range {
                bad |= $pop(rx, seq);
            }
            bad
        }
    };
}

/// Makes a round trip of each message: one thread sends and waits for the answer. The other answers
/// each right message with the same message, and a wrong one with a wrong one.
///
/// `there` and `back` are two channels. The clock runs on the asking side.
#[macro_export]
macro_rules! bounce {
    ($run:expr, $there:expr, $back:expr, $push:expr, $pop:expr $(,)?) => {{
        let ((mut ask_tx, mut ask_rx), (mut answer_tx, mut answer_rx)) = ($there, $back);
        $crate::duel::duel(
            $run,
            || move |range| $crate::answer!(&mut ask_rx, &mut answer_tx, range, $push, $pop),
            || move |range| $crate::ask!(&mut ask_tx, &mut answer_rx, range, $push, $pop),
        )
    }};
}

/// The answering side of a [`bounce`].
#[macro_export]
macro_rules! answer {
    ($asked:expr, $answers:expr, $range:expr, $push:expr, $pop:expr) => {
        for seq in $range {
            let bad = $pop($asked, seq);
            $push($answers, seq ^ bad);
        }
    };
}

/// The asking side of a [`bounce`].
#[macro_export]
macro_rules! ask {
    ($asks:expr, $answered:expr, $range:expr, $push:expr, $pop:expr) => {{
        let mut bad = 0;
        for seq in $range {
            $push($asks, seq);
            bad |= $pop($answered, seq);
        }
        bad
    }};
}

/// Runs `work` alone on the producer's core: warm-up, then the timed stretch.
pub fn solo(run: &Run, mut work: impl FnMut(Range<u64>) -> u64) -> Sample {
    pin(run.cores.0);
    let mut bad = work(0..run.warm);
    let (before, start) = (thread_cpu(), Instant::now());
    bad |= work(run.warm..run.warm + run.messages);
    let time = start.elapsed();
    let on_core = (thread_cpu() - before).as_secs_f64() / time.as_secs_f64();
    Sample {
        time,
        bad,
        on_core,
        line: None,
        own: None,
        lost: 0,
    }
}

/// Keeps the calling thread on one core. Panics if the core does not exist: that is the operator's
/// mistake, and a figure measured elsewhere would be a lie.
pub fn pin(core: usize) {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    assert!(core < 8 * size_of_val(&set), "core {core} is out of range");
    // SAFETY: `core` is inside the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid set of the size given; 0 is the calling thread.
    let failed = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    assert_eq!(
        failed,
        0,
        "cannot pin to core {core}: {}",
        Error::last_os_error()
    );
}

/// Returns the processor time that the calling thread has used.
fn thread_cpu() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

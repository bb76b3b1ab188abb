//! Decides by trial if a reader transfers lines back to the writer, by storing into the lines that
//! it releases.
//!
//! Plain version: a reader only reads. The writer then still shares each line with the reader, and
//! must ask for it before it can write it again. It asks for one line after another: a processor
//! that has a line asks for the right to write it only when that store's turn has come. Lines that
//! the reader has stored into are gone from the writer. Its stores miss, and misses overlap.
//!
//! Between two cores of a Zen 4 that share no cache, line transfer moves 20 million messages of a
//! kilobyte a second instead of 1.6. Of messages of 64 bytes it moves 45 million instead of 17.
//! Between two cores that share a cache it doubles the speed of a ring that fits into the second
//! level, and halves that of a larger one. The reader cannot know this beforehand, so it measures.
//! Now and then it goes the other way for a while, and stays with the faster way.
//!
//! The reader stores the value that is there: one byte a line, of slots that are still its own. So
//! no value that anybody can read changes, whenever the reader is killed.
//!
//! While stretches are shortest, the reader reads the clock about as often as the number of
//! messages can double in a stretch. The clock is a system call only on machines where every
//! program pays one.
//!
//! # Trying
//! After the first ring, and some stretches of [`STRETCH`] or more, the reader goes the other way.
//! It does so for a ring's length, in which it meets lines that were released the old way, and then
//! for two stretches that count. It stays there if that was faster by an eighth. It compares the
//! fastest of the last few stretches with the fastest of the trial, since other work of the machine
//! only ever makes a stretch slower.
//!
//! If the trial was not faster, the reader waits twice as long before the next one. It waits less
//! if everything has become slower or faster, as it is when one of the two has moved to another
//! processor. While it waits, a stretch is a ring's length as well, since that is what a trial
//! takes.

use crate::mem::TRANSFERS_LINES;
use crate::wait::Os;

/// The shortest stretch, in nanoseconds.
const STRETCH: u64 = 100_000;
/// The number of stretches of a trial that count.
const TRIAL: u32 = 2;
/// The number of stretches before a trial that are compared with it.
const BEFORE: u32 = 4;
/// The most stretches between two trials. All such numbers are multiples of `BEFORE`.
///
/// Three stretches that are slower by half then cost at most a third of a percent.
const RARELY: u32 = 512;
/// The stretches until the next trial if the slower way is slower by half or more.
///
/// This many for each multiple of the faster way's time that the slower way takes, up to `SLOWEST`
/// multiples.
const HARDLY: u32 = 4096;
const SLOWEST: u64 = 64;
/// The fewest stretches until the next trial, once the cost of a stretch has changed.
///
/// It has changed if it is a third more than before the last trial, or a quarter less.
const SOON: u32 = 64;

/// Decides if one reader transfers lines.
pub(crate) struct LineTransfer {
    /// `true` if it does now.
    on: bool,
    /// The position at which the clock is read next; `u64::MAX` if never.
    until: u64,
    /// The position and time at which the present stretch began.
    from: (u64, u64),
    /// The least recent cost of a position, in 2^-20 nanoseconds: the usual way, and on trial.
    usual: u64,
    trial: u64,
    /// The usual cost at the last trial.
    then: u64,
    phase: Phase,
    /// The number of stretches until the next trial, after one in vain.
    rest: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The reader has not read the clock yet.
    Begin,
    /// This many stretches are left until a trial.
    Usual(u32),
    /// The cost still reflects lines that were released before the way changed.
    Change { trial: bool },
    /// This many stretches are left of a trial.
    Trial(u32),
}

impl LineTransfer {
    /// `true` in models, and in tests that ask for it: they always transfer lines.
    const ALWAYS: bool = cfg!(any(loom, slipring_transfers_lines));

    /// Makes the decision for a reader; `allowed` if it may store into the slots that it reads.
    pub(crate) fn new(allowed: bool) -> LineTransfer {
        let tries = allowed && TRANSFERS_LINES && !Self::ALWAYS;
        LineTransfer {
            on: allowed && Self::ALWAYS,
            until: if tries { 0 } else { u64::MAX },
            from: (0, 0),
            usual: u64::MAX,
            trial: u64::MAX,
            then: 0,
            phase: Phase::Begin,
            rest: BEFORE,
        }
    }

    /// Returns `true` if the reader transfers the lines that it releases now.
    #[inline(always)]
    pub(crate) fn on(&self) -> bool {
        self.on
    }

    /// Measures, if it is time. The caller calls it at each look that finds a message.
    ///
    /// The reader is `at`, in a ring of `capacity` positions.
    #[inline]
    pub(crate) fn looked(&mut self, at: u64, capacity: u64, os: &dyn Os) {
        if at >= self.until {
            self.stretch(at, capacity, os.now());
        }
    }

    /// Records that the reader goes on at `to`, without having read the positions from `from` on.
    pub(crate) fn moved(&mut self, from: u64, to: u64) {
        if self.until == u64::MAX {
            return;
        }
        let (began, until) = (
            from.saturating_sub(self.from.0),
            self.until.saturating_sub(from),
        );
        self.from.0 = to.saturating_sub(began);
        self.until = to.saturating_add(until).min(u64::MAX - 1);
    }

    #[cold]
    #[inline(never)]
    fn stretch(&mut self, at: u64, capacity: u64, now: u64) {
        let (from, began) = self.from;
        let took = now.saturating_sub(began);
        let read = at.saturating_sub(from);
        if self.phase != Phase::Begin && took < STRETCH {
            // A reader goes round a small ring many times, and does not read the clock each time.
            self.read_on(at, read.max(1));
            return;
        }
        self.from = (at, now);
        let cost = took.saturating_mul(1 << 20) / read.max(1);
        self.phase = match self.phase {
            // On the first lap of a ring no cache owns its lines.
            Phase::Begin => Phase::Change { trial: false },
            Phase::Change { trial: true } => {
                self.trial = u64::MAX;
                Phase::Trial(TRIAL)
            }
            Phase::Change { trial: false } => Phase::Usual(self.rest),
            Phase::Usual(left) => self.usually(left, cost),
            Phase::Trial(left) => self.tried(left, cost),
        };
        let count = match self.phase {
            // A trial, or the wait for a trial that comes soon.
            Phase::Trial(_) => capacity.div_ceil(8),
            Phase::Usual(_) if self.rest == BEFORE => capacity.div_ceil(8),
            _ => capacity,
        };
        self.read_on(at, count);
    }

    /// Sets the clock to be read next after `count` more positions.
    fn read_on(&mut self, at: u64, count: u64) {
        self.until = at.saturating_add(count).min(u64::MAX - 1);
    }

    fn usually(&mut self, left: u32, cost: u64) -> Phase {
        if left.is_multiple_of(BEFORE) {
            self.usual = u64::MAX;
        }
        self.usual = self.usual.min(cost);
        let left = left - 1;
        if !left.is_multiple_of(BEFORE) {
            return Phase::Usual(left);
        }
        if left > 0 {
            let (now, then) = (self.usual, self.then);
            let other = now / 4 > then / 3 || then / 4 > now / 3;
            if self.rest - left < SOON || !other {
                return Phase::Usual(left);
            }
            self.rest = BEFORE;
        }
        self.then = self.usual;
        self.on = !self.on;
        Phase::Change { trial: true }
    }

    fn tried(&mut self, left: u32, cost: u64) -> Phase {
        self.trial = self.trial.min(cost);
        if left > 1 {
            return Phase::Trial(left - 1);
        }
        let (trial, usual) = (self.trial, self.usual);
        if trial.saturating_add(trial / 8) < usual {
            self.then = trial;
            self.rest = rest_after(usual, trial).unwrap_or(SOON);
            return Phase::Usual(self.rest);
        }
        self.rest = rest_after(trial, usual).unwrap_or((self.rest * 2).min(RARELY));
        self.on = !self.on;
        Phase::Change { trial: false }
    }
}

/// Returns the number of stretches until the next trial, if the slower way is far slower.
fn rest_after(slower: u64, faster: u64) -> Option<u32> {
    let times = (slower / faster.max(1)).clamp(1, SLOWEST) as u32;
    (slower / 3 > faster / 2).then_some(HARDLY * times)
}

// Only where readers try.
#[cfg(all(
    test,
    target_arch = "x86_64",
    not(any(loom, slipring_plain, slipring_transfers_lines))
))]
mod tests {
    use core::cell::Cell;
    use core::sync::atomic::AtomicU32;

    use super::*;
    use crate::wait::Reach;

    const CAPACITY: u64 = 4096;

    /// A clock that a test sets.
    struct Clock(Cell<u64>, Cell<u32>);

    // SAFETY: each test has its own clock, in one thread.
    unsafe impl Sync for Clock {}

    impl Os for Clock {
        fn sleep(&self, _: &AtomicU32, _: u32, _: u64, _: u64) {}
        fn wake(&self, _: &AtomicU32, _: u64) {}
        fn signal(&self, _: usize) {}
        fn now(&self) -> u64 {
            self.1.set(self.1.get() + 1);
            self.0.get()
        }
        fn barrier(&self) -> Reach {
            Reach::Nobody
        }
    }

    /// A reader in a simulated stream, which looks eight times a ring.
    ///
    /// A message takes one time if its slot was only read a ring before, and another if its lines
    /// were transferred.
    struct Stream {
        line_transfer: LineTransfer,
        clock: Clock,
        at: u64,
        was_on: [bool; 8],
    }

    impl Stream {
        fn new(allowed: bool) -> Stream {
            Stream {
                line_transfer: LineTransfer::new(allowed),
                clock: Clock(Cell::new(0), Cell::new(0)),
                at: 0,
                was_on: [false; 8],
            }
        }

        /// Runs `count` rings, and returns the number of rings whose lines were transferred.
        fn rings(&mut self, count: u64, only_read: u64, handed_back: u64) -> u64 {
            let mut on = 0;
            for ring in 0..count {
                for (eighth, was_on) in self.was_on.iter_mut().enumerate() {
                    let each = if *was_on { handed_back } else { only_read };
                    *was_on = self.line_transfer.on();
                    on += u64::from(*was_on);
                    // Now and then the machine does other work.
                    let look = ring * 8 + eighth as u64;
                    let other = if look.is_multiple_of(61) { 50_000 } else { 0 };
                    let took = CAPACITY / 8 * each + other;
                    self.clock.0.set(self.clock.0.get() + took);
                    self.at += CAPACITY / 8;
                    self.line_transfer.looked(self.at, CAPACITY, &self.clock);
                }
            }
            on / 8
        }
    }

    #[test]
    fn stays_with_what_is_faster() {
        let mut stream = Stream::new(true);
        // It decides soon if a ring takes long.
        assert!(stream.rings(10, 5_000, 500) > 7);
        let mut stream = Stream::new(true);
        stream.rings(100, 50, 10);
        assert!(stream.line_transfer.on());
        assert!(stream.rings(10_000, 50, 10) > 9_800);
        let mut stream = Stream::new(true);
        stream.rings(100, 10, 12);
        assert!(!stream.line_transfer.on());
        assert!(stream.rings(100_000, 10, 12) < 2_000);
        // It hardly ever tries a way that is much slower.
        let mut stream = Stream::new(true);
        assert!(stream.rings(100_000, 50, 500) < 100);
    }

    /// If the other way is only a little faster, it is not worth a change.
    #[test]
    fn a_slight_gain_changes_nothing() {
        assert!(Stream::new(true).rings(100_000, 100, 95) < 2_000);
    }

    /// When everything gets slower, the reader finds out anew which way is faster.
    #[test]
    fn a_slowdown_starts_a_new_trial() {
        let mut stream = Stream::new(true);
        stream.rings(50_000, 30, 60);
        assert!(!stream.line_transfer.on());
        stream.rings(100, 300, 40);
        assert!(stream.line_transfer.on());
        stream.rings(100, 30, 60);
        assert!(!stream.line_transfer.on());
    }

    #[test]
    fn who_may_not_never_does() {
        assert_eq!(Stream::new(false).rings(1_000, 50, 10), 0);
    }

    /// With a small ring, the clock is not read each time round.
    #[test]
    fn small_rings_rarely_read_the_clock() {
        let mut stream = Stream::new(true);
        for at in 0..1_000_000 {
            stream.clock.0.set(at * 5);
            stream.line_transfer.looked(at, 1, &stream.clock);
        }
        // There are 50 stretches of 100 µs.
        assert!(stream.clock.1.get() < 50 * 20, "{}", stream.clock.1.get());
    }

    /// Messages that were passed over do not count as read when speeds are compared.
    #[test]
    fn skipped_messages_do_not_count() {
        // One ring in two is lost; with line transfer, two in three.
        let mut stream = Stream::new(true);
        for _ in 0..1_000 {
            let lost = if stream.line_transfer.on() { 2 } else { 1 } * CAPACITY;
            stream.line_transfer.moved(stream.at, stream.at + lost);
            stream.at += lost;
            // The producer takes as long for each ring, so each ring that is read takes longer.
            stream.rings(1, 200, 300);
        }
        assert!(!stream.line_transfer.on());
        let before = stream.line_transfer.from.0;
        stream.line_transfer.moved(stream.at, 0);
        assert_eq!(stream.line_transfer.from.0, 0);
        assert!(before > 0);
    }

    #[test]
    fn any_positions_and_times_do() {
        let mut stream = Stream::new(true);
        for at in [0, u64::MAX, 5, 1 << 63, 0, u64::MAX] {
            for now in [0, u64::MAX, 1 << 40, 7] {
                stream.clock.0.set(now);
                stream.line_transfer.looked(at, u64::MAX, &stream.clock);
                stream.line_transfer.moved(at, at ^ now);
                stream.line_transfer.looked(at, 1, &stream.clock);
            }
        }
    }
}

//! Handing back: whether a reader stores into the lines that it releases, found out by trying.
//!
//! Plain version: a reader only reads. The writer then still has each line, shared with the reader, and must
//! ask for it back before it can write it again: one line after another, since a processor that has a line
//! asks for the right to write it only when that store's turn has come. Lines that the reader has stored
//! into the writer does not have at all; its stores miss, and misses overlap. Between two cores of a
//! Zen 4 that share no cache, this moves 20 million messages of a kilobyte a second instead of 1.6, and 45 of 64
//! bytes instead of 17. Between two that share one it doubles the speed of a ring that fits into the second
//! level, and halves that of a larger one. Who can tell beforehand? So a reader measures: it goes the
//! other way for a while, now and then, and stays with what was faster.
//!
//! What it stores is what is there: one byte a line, of slots that are still its own. Nothing that anybody
//! can read changes, whenever it is killed.
//!
//! Where a stretch is the shortest, the clock is read about as often as a message count can double in it; it is
//! a system call where it is one for everybody.
//!
//! # Trying
//! Behind the first ring, after some stretches of [`STRETCH`] or more, the reader goes the other way: for a ring's
//! length, on which it meets what was read the old way, and for two stretches that count. It stays there if that
//! was faster by an eighth, the fastest of the last few compared with the fastest: what else a machine does only
//! ever makes a stretch slower. If it was not, it waits twice as long before it tries again, or until all is slower
//! or faster than it was, as it is when one of the two has moved to another processor. While it waits, a stretch is
//! a ring's length as well, since that is what a trial takes.

use crate::mem::HANDS_BACK;
use crate::wait::Os;

/// The shortest stretch, in nanoseconds.
const STRETCH: u64 = 100_000;
/// How many stretches a trial lasts, that count.
const TRIAL: u32 = 2;
/// How many of the last stretches before a trial are compared with it.
const BEFORE: u32 = 4;
/// The most stretches between two trials: three that are slower by half at most cost a third of a percent.
/// (All are multiples of `BEFORE`.)
const RARELY: u32 = 512;
/// The same for each time as long that the slower way takes, if it is slower by half or more; up to so many times.
const HARDLY: u32 = 4096;
const SLOWEST: u64 = 64;
/// But only so many, if a stretch has come to cost a third more than before the last trial, or a quarter less.
const SOON: u32 = 64;

/// Whether one reader hands back.
pub(crate) struct HandBack {
    /// Whether it does now.
    on: bool,
    /// Where the clock is read next; never, if it may not.
    until: u64,
    /// Where the present stretch began, and when.
    from: (u64, u64),
    /// The least cost of a position that was met of late, in 2^-20 nanoseconds: the usual way, and on trial.
    usual: u64,
    trial: u64,
    /// The usual one at the last trial.
    then: u64,
    phase: Phase,
    /// How many stretches there are until the next trial, after one in vain.
    rest: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A first look at the clock.
    Begin,
    /// So many stretches are left until a trial.
    Usual(u32),
    /// What was read before the way changed still counts.
    Change { trial: bool },
    /// So many stretches are left of a trial.
    Trial(u32),
}

impl HandBack {
    /// Models, and tests that ask for it, always do.
    const ALWAYS: bool = cfg!(any(loom, slipring_hands_back));

    /// Of a reader that may store into what it reads, or may not.
    pub(crate) fn new(allowed: bool) -> HandBack {
        let tries = allowed && HANDS_BACK && !Self::ALWAYS;
        HandBack {
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

    /// Whether what is released now shall be handed back.
    #[inline(always)]
    pub(crate) fn on(&self) -> bool {
        self.on
    }

    /// To be called at each look that finds something: the reader is `at`, in a ring of `capacity` positions.
    #[inline]
    pub(crate) fn looked(&mut self, at: u64, capacity: u64, os: &dyn Os) {
        if at >= self.until {
            self.stretch(at, capacity, os.now());
        }
    }

    /// The reader goes on elsewhere: what lies between was not read.
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
            // A small ring is gone round many times: not each time by the clock.
            self.read_on(at, read.max(1));
            return;
        }
        self.from = (at, now);
        let cost = took.saturating_mul(1 << 20) / read.max(1);
        self.phase = match self.phase {
            // The first time round a ring lines are nobody's.
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
            // A trial, or one that is soon.
            Phase::Trial(_) => capacity.div_ceil(8),
            Phase::Usual(_) if self.rest == BEFORE => capacity.div_ceil(8),
            _ => capacity,
        };
        self.read_on(at, count);
    }

    /// The clock is read next when so much more was read.
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

/// How many stretches it shall be until the next trial, if the slower way is far slower.
fn rest_after(slower: u64, faster: u64) -> Option<u32> {
    let times = (slower / faster.max(1)).clamp(1, SLOWEST) as u32;
    (slower / 3 > faster / 2).then_some(HARDLY * times)
}

// Where readers try.
#[cfg(all(
    test,
    target_arch = "x86_64",
    not(any(loom, slipring_plain, slipring_hands_back))
))]
mod tests {
    use core::cell::Cell;
    use core::sync::atomic::AtomicU32;

    use super::*;
    use crate::wait::Reach;

    const CAPACITY: u64 = 4096;

    /// A clock that a test sets.
    struct Clock(Cell<u64>, Cell<u32>);

    // SAFETY: each test has its own, in one thread.
    unsafe impl Sync for Clock {}

    impl Os for Clock {
        fn sleep(&self, _: &AtomicU32, _: u32, _: u64) {}
        fn wake(&self, _: &AtomicU32) {}
        fn signal(&self, _: usize) {}
        fn now(&self) -> u64 {
            self.1.set(self.1.get() + 1);
            self.0.get()
        }
        fn barrier(&self) -> Reach {
            Reach::Nobody
        }
    }

    /// A reader in a stream where a message takes so many nanoseconds, read only and handed back, a ring after
    /// it was. It looks eight times a ring.
    struct Stream {
        hand_back: HandBack,
        clock: Clock,
        at: u64,
        was_on: [bool; 8],
    }

    impl Stream {
        fn new(allowed: bool) -> Stream {
            Stream {
                hand_back: HandBack::new(allowed),
                clock: Clock(Cell::new(0), Cell::new(0)),
                at: 0,
                was_on: [false; 8],
            }
        }

        /// So many rings; says how many of them were handed back.
        fn rings(&mut self, count: u64, only_read: u64, handed_back: u64) -> u64 {
            let mut on = 0;
            for ring in 0..count {
                for (eighth, was_on) in self.was_on.iter_mut().enumerate() {
                    let each = if *was_on { handed_back } else { only_read };
                    *was_on = self.hand_back.on();
                    on += u64::from(*was_on);
                    // Now and then the machine does something else.
                    let look = ring * 8 + eighth as u64;
                    let other = if look.is_multiple_of(61) { 50_000 } else { 0 };
                    let took = CAPACITY / 8 * each + other;
                    self.clock.0.set(self.clock.0.get() + took);
                    self.at += CAPACITY / 8;
                    self.hand_back.looked(self.at, CAPACITY, &self.clock);
                }
            }
            on / 8
        }
    }

    #[test]
    fn stays_with_what_is_faster() {
        let mut stream = Stream::new(true);
        // Soon, where a ring takes long.
        assert!(stream.rings(10, 5_000, 500) > 7);
        let mut stream = Stream::new(true);
        stream.rings(100, 50, 10);
        assert!(stream.hand_back.on());
        assert!(stream.rings(10_000, 50, 10) > 9_800);
        let mut stream = Stream::new(true);
        stream.rings(100, 10, 12);
        assert!(!stream.hand_back.on());
        assert!(stream.rings(100_000, 10, 12) < 2_000);
        // Hardly ever tries what is much slower.
        let mut stream = Stream::new(true);
        assert!(stream.rings(100_000, 50, 500) < 100);
    }

    #[test]
    fn a_little_faster_is_not_worth_a_change() {
        assert!(Stream::new(true).rings(100_000, 100, 95) < 2_000);
    }

    #[test]
    fn finds_out_anew_when_all_is_slower() {
        let mut stream = Stream::new(true);
        stream.rings(50_000, 30, 60);
        assert!(!stream.hand_back.on());
        stream.rings(100, 300, 40);
        assert!(stream.hand_back.on());
        stream.rings(100, 30, 60);
        assert!(!stream.hand_back.on());
    }

    #[test]
    fn who_may_not_never_does() {
        assert_eq!(Stream::new(false).rings(1_000, 50, 10), 0);
    }

    #[test]
    fn a_small_ring_does_not_read_the_clock_each_time_round() {
        let mut stream = Stream::new(true);
        for at in 0..1_000_000 {
            stream.clock.0.set(at * 5);
            stream.hand_back.looked(at, 1, &stream.clock);
        }
        // In 50 stretches of 100 µs.
        assert!(stream.clock.1.get() < 50 * 20, "{}", stream.clock.1.get());
    }

    #[test]
    fn what_was_passed_over_does_not_count_as_read() {
        // Half of the messages are lost, one ring in two; handed back, it is two in three.
        let mut stream = Stream::new(true);
        for _ in 0..1_000 {
            let lost = if stream.hand_back.on() { 2 } else { 1 } * CAPACITY;
            stream.hand_back.moved(stream.at, stream.at + lost);
            stream.at += lost;
            // As long for each ring that the producer goes: so each that is read takes longer.
            stream.rings(1, 200, 300);
        }
        assert!(!stream.hand_back.on());
        let before = stream.hand_back.from.0;
        stream.hand_back.moved(stream.at, 0);
        assert_eq!(stream.hand_back.from.0, 0);
        assert!(before > 0);
    }

    #[test]
    fn any_positions_and_times_do() {
        let mut stream = Stream::new(true);
        for at in [0, u64::MAX, 5, 1 << 63, 0, u64::MAX] {
            for now in [0, u64::MAX, 1 << 40, 7] {
                stream.clock.0.set(now);
                stream.hand_back.looked(at, u64::MAX, &stream.clock);
                stream.hand_back.moved(at, at ^ now);
                stream.hand_back.looked(at, 1, &stream.clock);
            }
        }
    }
}

//! Decides how a waiter passes the time before it sleeps: polling, yielding the processor, or
//! neither.
//!
//! Plain version: poll for a fixed time, then sleep. That is right for two ends on two idle
//! processors, and wrong in every other case. If both ends share one processor, the peer cannot run
//! while we poll. If other programs want the processors, the kernel takes ours away for having
//! polled, just when the peer needs us most. And if messages come a little slower than the poll
//! lasts, every poll is wasted.
//!
//! Therefore each way of waiting keeps an *account* of the time that it gained. A poll that finds
//! something saves a sleep, and costs the time that it took. A yield that finds something saves the
//! system calls of a sleep. It costs nothing while the peer runs; but if a third program took the
//! processor, all of that time was lost.
//!
//! A way whose account is overdrawn rests for a number of short waits. That number grows with the
//! debt, and doubles each time.
//!
//! | situation | polls | yields |
//! |---|---|---|
//! | each end has a processor of its own | succeed at once | not reached |
//! | both ends share a processor | fail | succeed: the peer runs meanwhile |
//! | other programs want the processors | fail, or the processor is taken away while we poll | come back too late |
//! | messages come slowly | fail | fail |
//!
//! If both ways rest, the waiter sleeps at once. The kernel prefers a thread that slept, so
//! sleeping is best beside other busy programs. There it passes 3 times as many messages as a
//! socket; a waiter that polls or yields passes half as many.
//!
//! # A peer that is waking up
//! If this handle woke its peer since its last wait, the peer needs 20 to 100 µs to get going. A
//! waiter that polls for less goes to sleep just before the peer arrives, and the peer then finds
//! it asleep. Two ends at full speed then put each other to sleep in turn, thousands of times a
//! second. So the poll lasts [`LONGER`] times as long in this case, and is worth that much.
//!
//! # Source
//! Polling for as long as a sleep costs is at most twice as expensive as the best choice. Karlin,
//! Li, Manasse and Owicki: *Empirical Studies of Competitive Spinning for a Shared-Memory
//! Multiprocessor* (1991).

use std::thread;
use std::time::{Duration, Instant};

/// Factor by which a poll lasts longer while the peer is waking up.
const LONGER: u32 = 4;
/// A wait counts as short if it lasted less than this many polls: polling might have met it.
const SHORT: u32 = 4;
/// The number of yields before a sleep. The first yield lets the peer run; the second is for a
/// third thread that came between.
const YIELDS: u32 = 2;
/// The cost of the system calls of a sleep and a wake-up that a yield saves.
const SYSTEM_CALLS: Duration = Duration::from_micros(5);
/// Attempts before the first reading of the clock.
pub(super) const QUICK: u32 = 16;
/// Attempts between two readings of the clock. A reading costs as much as several attempts.
pub(super) const ATTEMPTS: u32 = 64;

/// Polls for a short time before a sleep, as long as that pays.
///
/// [`Wait::Spin`](crate::Wait::Spin), by contrast, polls without end. The blocking calls use an
/// adaptive spin by themselves ([`Wait::Sleep`](crate::Wait::Sleep)). An event loop that polls a
/// handle for a while before it arms the descriptor can use its own:
///
/// ```
/// use std::time::{Duration, Instant};
/// use slipring::{AdaptiveSpin, Error, SetupError, spsc};
///
/// let (mut tx, mut rx) = spsc::channel::<u64>(64)?;
/// let mut spin = AdaptiveSpin::new(Duration::from_micros(50));
/// tx.try_push(7)?;
/// let mut found = None;
/// let done = spin.poll(|| match rx.try_pop() {
///     Ok(number) => {
///         found = Some(number);
///         Ok(true)
///     }
///     Err(Error::Empty) => Ok(false),
///     Err(error) => Err(error),
/// })?;
/// if !done {
///     let began = Instant::now();
///     // ... arm the descriptor, and sleep on it ...
///     spin.slept(began.elapsed());
/// }
/// assert_eq!(found, Some(7));
/// # Ok::<(), SetupError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveSpin {
    at_most: Duration,
    polls: Account,
    yields: Account,
}

impl AdaptiveSpin {
    /// Returns one that polls for `at_most` before each sleep, as long as polls succeed.
    ///
    /// A good choice is about the time that a sleep and a wake-up take. While a peer wakes up, the
    /// blocking calls poll up to 4 times as long. With zero, [`poll`](Self::poll) makes no attempt:
    /// the caller sleeps at once.
    pub const fn new(at_most: Duration) -> AdaptiveSpin {
        AdaptiveSpin {
            at_most,
            polls: Account::new(),
            yields: Account::new(),
        }
    }

    /// Returns the time given to [`new`](Self::new).
    pub const fn at_most(&self) -> Duration {
        self.at_most
    }

    /// Calls `attempt` until it returns `true` or an error, or until further polling would not pay.
    /// Returns `true` if the last attempt succeeded, and `false` if the caller should sleep. May
    /// yield the processor.
    pub fn poll<E>(&mut self, mut attempt: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
        if self.polls() {
            for _ in 0..QUICK {
                if attempt()? {
                    self.found_quickly();
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
        }
        self.poll_on(&mut (), None, false, |()| attempt(), |(), _| Ok(()))
    }

    /// Returns `true` if polling pays. The caller then makes [`QUICK`] attempts before
    /// [`poll_on`](Self::poll_on).
    ///
    /// A busy peer answers within a few attempts. Reading the clock, or storing the gain, would
    /// only delay the caller.
    #[inline]
    pub(crate) fn polls(&self) -> bool {
        self.polls.open() && !self.at_most.is_zero()
    }

    /// Records that one of the [`QUICK`] attempts found something.
    #[inline]
    pub(crate) fn found_quickly(&mut self) {
        if !self.polls.full {
            self.polls.enter(nanos(self.at_most), nanos(self.at_most));
        }
    }

    /// Like [`poll`](Self::poll) after the first attempts, for a caller that has time until
    /// `deadline`. `peer_wakes_up` is `true` if the caller woke its peer since its last wait. Calls
    /// `look_after` with the time now and then.
    #[cold]
    #[inline(never)]
    pub(crate) fn poll_on<C, E>(
        &mut self,
        caller: &mut C,
        deadline: Option<Instant>,
        peer_wakes_up: bool,
        mut attempt: impl FnMut(&mut C) -> Result<bool, E>,
        mut look_after: impl FnMut(&mut C, Instant) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.at_most.is_zero() {
            return Ok(false);
        }
        if self.polls.open() {
            let window = match peer_wakes_up {
                true => self.at_most.saturating_mul(LONGER),
                false => self.at_most,
            };
            let began = Instant::now();
            loop {
                for _ in 0..ATTEMPTS {
                    if attempt(caller)? {
                        self.polled(true, began, window);
                        return Ok(true);
                    }
                    std::hint::spin_loop();
                }
                let now = Instant::now();
                look_after(caller, now)?;
                // One caller's short deadline says nothing about the success of polls.
                if deadline.is_some_and(|deadline| now >= deadline) {
                    return Ok(false);
                }
                if now - began >= window {
                    break;
                }
            }
            self.polled(false, began, window);
        }
        self.give_way(&mut || attempt(caller))
    }

    /// Records a poll that took from `began` until now.
    fn polled(&mut self, found: bool, began: Instant, window: Duration) {
        let worth = nanos(window);
        let saved = if found { worth } else { 0 };
        self.polls.enter(saved - nanos(began.elapsed()), worth);
    }

    /// Yields to other threads of this processor, then makes an attempt.
    #[cold]
    fn give_way<E>(&mut self, attempt: &mut dyn FnMut() -> Result<bool, E>) -> Result<bool, E> {
        if !self.yields.open() {
            return Ok(false);
        }
        let began = Instant::now();
        let mut found = false;
        for _ in 0..YIELDS {
            thread::yield_now();
            found = attempt()?;
            if found {
                break;
            }
        }
        let took = began.elapsed();
        let timely = found && took < self.at_most.saturating_mul(SHORT);
        let gain = match timely {
            true => nanos(SYSTEM_CALLS),
            false => -nanos(took),
        };
        self.yields.enter(gain, nanos(SYSTEM_CALLS));
        if timely {
            self.polls.missed();
        }
        Ok(found)
    }

    /// Records how long a sleep lasted after a fruitless [`poll`](Self::poll), from before the
    /// sleep to after the wake-up. After a short sleep, polling may be worth another try.
    pub fn slept(&mut self, lasted: Duration) {
        if lasted < self.at_most.saturating_mul(SHORT) {
            self.polls.missed();
            self.yields.missed();
        }
    }
}

fn nanos(time: Duration) -> i64 {
    // Far from overflow, whatever an account adds and multiplies.
    i64::try_from(time.as_nanos()).map_or(1 << 56, |nanos| nanos.min(1 << 56))
}

/// The gains and losses of one way of waiting, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Account {
    balance: i64,
    /// `true` if the last use left nothing to gain, so that a quick success need not be recorded.
    full: bool,
    /// The number of short waits before the next trial; 0 while the way is in use.
    rest: u32,
    /// The number of times the account was overdrawn lately.
    overdrawn: u32,
}

impl Account {
    /// The most times that a rest is doubled.
    const MOST: u32 = 10;
    /// The longest rest is 2^14 short waits: about a second, and 3 at most with the default of 50
    /// µs.
    const LONGEST: u32 = 14;
    /// The account keeps savings of this many successes.
    const SAVED: i64 = 4;

    const fn new() -> Account {
        Account {
            balance: 0,
            full: false,
            rest: 0,
            overdrawn: 0,
        }
    }

    fn open(&self) -> bool {
        self.rest == 0
    }

    /// Records the gain of one use. `worth` is the gain of a quick success.
    fn enter(&mut self, gain: i64, worth: i64) {
        let balance = self.balance.saturating_add(gain);
        self.balance = balance.clamp(0, Account::SAVED * worth);
        self.full = balance >= Account::SAVED * worth && self.overdrawn == 0;
        if balance < 0 {
            let debt = balance.unsigned_abs() / (4 * worth.unsigned_abs()).max(1);
            let rest = debt.clamp(1, 1 << Account::LONGEST) << self.overdrawn;
            self.rest = rest.min(1 << Account::LONGEST) as u32;
            self.overdrawn = (self.overdrawn + 1).min(Account::MOST);
        } else if balance >= 2 * worth {
            self.overdrawn = self.overdrawn.saturating_sub(1);
        }
    }

    /// Records a short wait that passed without this way.
    fn missed(&mut self) {
        self.rest = self.rest.saturating_sub(1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const WORTH: i64 = 50_000;
    const A_MILLISECOND: i64 = 1_000_000;

    /// Records one result at each use, and counts the uses in `waits` short waits.
    fn uses(account: &mut Account, waits: u32, gain: i64) -> u32 {
        let mut uses = 0;
        for _ in 0..waits {
            if account.open() {
                account.enter(gain, WORTH);
                uses += 1;
            } else {
                account.missed();
            }
        }
        uses
    }

    /// Two ends share one processor: no poll finds anything.
    #[test]
    fn fruitless_uses_become_rare() {
        let mut account = Account::new();
        let first = uses(&mut account, 2000, -WORTH);
        assert!((2..=12).contains(&first), "{first}");
        let then = uses(&mut account, 100_000, -WORTH);
        assert!((10..=100).contains(&then), "{then}");
    }

    #[test]
    fn fruitful_uses_go_on() {
        let mut account = Account::new();
        assert_eq!(uses(&mut account, 1000, WORTH - 1000), 1000);
    }

    /// After a long time on one processor, each end gets its own.
    #[test]
    fn a_success_brings_uses_back() {
        let mut account = Account::new();
        uses(&mut account, 100_000, -WORTH);
        let waits = 1 << Account::MOST;
        uses(&mut account, waits, WORTH);
        assert_eq!(uses(&mut account, 1000, WORTH), 1000);
    }

    /// Another program took the processor for a millisecond. A few successes do not outweigh that.
    #[test]
    fn a_lost_processor_stops_uses() {
        let mut account = Account::new();
        uses(&mut account, 1000, WORTH);
        account.enter(WORTH - A_MILLISECOND, WORTH);
        assert!(!account.open());
        assert!(uses(&mut account, 8, WORTH) <= 5);
    }

    /// A waiter whose attempts find nothing soon sleeps at once. As in the blocking calls: attempts
    /// that find nothing, each followed by a short sleep.
    #[test]
    fn an_unlucky_waiter_sleeps_at_once() {
        let mut spin = AdaptiveSpin::new(Duration::from_micros(10));
        let mut polled = 0;
        for _ in 0..2000 {
            let mut attempts = 0;
            let done = spin.poll(|| {
                attempts += 1;
                Ok::<_, ()>(false)
            });
            assert_eq!(done, Ok(false));
            // More attempts than yields alone would make.
            polled += u32::from(attempts > YIELDS);
            spin.slept(Duration::from_micros(1));
        }
        assert!((1..=20).contains(&polled), "{polled}");
    }

    #[test]
    fn zero_never_attempts() {
        let mut spin = AdaptiveSpin::new(Duration::ZERO);
        let done = spin.poll(|| Err::<bool, _>("an attempt"));
        assert_eq!(done, Ok(false));
    }

    #[test]
    fn errors_and_deadlines_end_a_poll() {
        let mut spin = AdaptiveSpin::new(Duration::from_secs(3600));
        assert_eq!(spin.poll(|| Err(7)), Err(7));
        let deadline = Some(Instant::now());
        assert_eq!(
            spin.poll_on(
                &mut (),
                deadline,
                true,
                |()| Ok::<_, ()>(false),
                |(), _| Ok(())
            ),
            Ok(false)
        );
        // One caller's short deadline costs the next caller nothing.
        let mut attempts = 0;
        let done = spin.poll(|| {
            attempts += 1;
            Ok::<_, ()>(attempts == 1000)
        });
        assert_eq!((done, attempts), (Ok(true), 1000));
    }
}

//! The wait policy: how a handle's calls wait, and until when.

use std::time::{Duration, Instant};

/// Tells the waiting calls how to wait. The `try_` calls never wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Poll without end. Gives the shortest latency, and takes a whole core.
    Spin,
    /// Poll, and yield the processor to other threads after each poll.
    Yield,
    /// Poll for a while, then sleep until the other side wakes this one. Sleeping costs almost no
    /// processor time. A wake-up takes some 50 µs, and costs the other side a system call.
    Sleep {
        /// The time to poll before a sleep, as long as polls succeed; see
        /// [`AdaptiveSpin`](crate::AdaptiveSpin). Zero sleeps at once.
        spin_for: Duration,
    },
}

impl Default for Wait {
    /// Polls for 50 µs before a sleep. That is about the cost of a sleep and a wake-up, so waiting
    /// never costs more than twice the minimum. If polls do not succeed, it sleeps at once: see
    /// [`AdaptiveSpin`](crate::AdaptiveSpin).
    fn default() -> Wait {
        Wait::Sleep {
            spin_for: Duration::from_micros(50),
        }
    }
}

/// The wait settings of a handle's calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) wait: Wait,
    /// The longest sleep, and the interval of checks of the other end's lock.
    pub(crate) check_every: Duration,
}

/// The default interval.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(4);

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting {
            wait: Wait::default(),
            check_every: CHECK_EVERY,
        }
    }
}

/// The interval at which a waiting handle checks that its name still leads to its channel.
pub(super) const NAME_EVERY: Duration = Duration::from_secs(1);

/// The longest sleep that we ask the kernel for: a day.
pub(super) const LONGEST: Duration = Duration::from_secs(86_400);

/// The time until which a call waits.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Forever,
    /// For this long, from when the wait begins. A call that need not wait does not read the clock.
    For(Duration),
    At(Instant),
}

impl Until {
    /// Begins the wait. A timeout too long for the clock means no timeout.
    pub(super) fn begin(&mut self) {
        if let Until::For(timeout) = *self {
            *self = Until::after(timeout);
        }
    }

    /// Returns the deadline after `timeout`. A timeout too long for the clock means no timeout.
    pub(crate) fn after(timeout: Duration) -> Until {
        Instant::now()
            .checked_add(timeout)
            .map_or(Until::Forever, Until::At)
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Until::Forever | Until::For(_) => None,
            Until::At(deadline) => Some(deadline),
        }
    }

    pub(super) fn passed(self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// Returns the time left, but at most `most`.
    pub(super) fn left(self, now: Instant, most: Duration) -> Duration {
        self.deadline()
            .map_or(most, |deadline| most.min(deadline.duration_since(now)))
    }
}

//! When a producer resizes its ring by itself.

use crate::error::Error;

/// The rules by which a producer resizes its ring in its own calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizing {
    /// `true` if a call that finds too little room makes the ring larger: the next capacity that is enough and can be had.
    pub grows: bool,
    /// The time after which a ring shrinks that was never more than a quarter full, in nanoseconds. `None`: it never shrinks.
    pub shrinks_after: Option<u64>,
}

/// The time after which a producer that found no memory asks again, in nanoseconds.
const REST: u64 = 10_000_000;

/// Follows a producer's rules.
#[derive(Default)]
pub(crate) struct Sizer {
    pub(crate) sizing: Sizing,
    /// The time at which it began to watch how full the ring is.
    began: Option<u64>,
    /// The most that was in use since then.
    peak: u64,
    /// The time before which it does not ask for more memory, and the bytes that it asked for in vain.
    refused: Option<(u64, u64)>,
}

impl Sizer {
    pub(crate) fn new(sizing: Sizing) -> Sizer {
        Sizer {
            sizing,
            ..Sizer::default()
        }
    }

    /// Notes that `used` of the ring is in use.
    pub(crate) fn note(&mut self, used: u64) {
        self.peak = self.peak.max(used);
    }

    /// Returns the smaller capacity that would do, but at least `least`, if a ring of `capacity` has been too large for long
    /// enough. `used` of it is in use at `now`.
    pub(crate) fn smaller(
        &mut self,
        used: u64,
        capacity: u64,
        least: u64,
        now: u64,
    ) -> Option<u64> {
        let after = self.sizing.shrinks_after?;
        // It begins to watch at the first look.
        let began = *self.began.get_or_insert(now);
        if now.saturating_sub(began) < after {
            return None;
        }
        // Twice what was needed, so that it does not grow again at once.
        let enough = self.peak.saturating_mul(2).checked_next_power_of_two()?;
        (self.began, self.peak) = (Some(now), used);
        let enough = enough.max(least);
        (enough <= capacity / 2).then_some(enough)
    }

    /// Returns the error of a producer that finds too little room, if it is not to ask for more memory at `now`.
    pub(crate) fn refused(&self, now: u64) -> Option<Error> {
        let (until, needed) = self.refused?;
        (now < until).then_some(Error::NoSpace { needed })
    }

    /// Notes that there was no memory for `needed` bytes at `now`, and returns that error.
    pub(crate) fn refuse(&mut self, now: u64, needed: u64) -> Error {
        self.refused = Some((now.saturating_add(REST), needed));
        Error::NoSpace { needed }
    }
}

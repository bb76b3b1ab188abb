//! Backs off: pauses a side briefly, so that a ring does not run empty (or full) all the time.
//!
//! Plain version: when the private copy of the peer's position is used up, load the shared one. A
//! consumer that is a little faster than its producer then finds one message at each look. Every
//! message costs a transfer of two cache lines in both directions. That is ten times slower than
//! two sides that stay some lines apart. So a side that keeps finding *little, at once* pauses a
//! little before its next look, and lets the other side get ahead. (This is temporal slipping, as
//! in Giacomoni, Moseley and Vachharajani, *FastForward*, 2008.) The pause doubles up to [`MOST`].
//!
//! A round trip must not pay for that. It looks alike (one message, found soon), but a pause gains
//! it nothing. Where a longer pause still finds a single message, the peer is not streaming. Then,
//! and whenever a look finds nothing, the pause ends and the next try is put off. Each try in vain
//! doubles the number of looks until the next one.

use crate::sync::pause;

/// The longest pause, in processor pauses.
const MOST: u32 = 32;
/// A pause of this length was in vain if it gathers only a single message.
const VAIN: u32 = 3;
/// This many messages at once are enough: sides that far apart share no line.
///
/// A longer pause would then cost a batch of 256 a fifth of its speed. A quarter of a small ring is
/// enough as well.
const FEW: u64 = 64;
/// After more looks in a row than this without a message, the other side does not stream.
const IDLE: u32 = 2;
/// The most looks by which a new try is put off.
const LONGEST_REST: u32 = 1024;

/// The pause that one side makes before it looks at the other's position.
pub(crate) struct Backoff {
    pauses: u32,
    misses: u32,
    /// The number of misses in a row after which a poll may do with the shortest look.
    short_after: u32,
    /// The number of looks until the next try.
    rest: u32,
    /// The value that `rest` starts from next time.
    next_rest: u32,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            pauses: 0,
            misses: 0,
            short_after: IDLE,
            rest: 0,
            next_rest: 0,
        }
    }
}

impl Backoff {
    /// Makes one whose side has more to look at than a position, so that each poll has to.
    pub(crate) fn without_short_looks() -> Backoff {
        Backoff {
            short_after: u32::MAX,
            ..Backoff::default()
        }
    }

    /// Returns `true` if the last few looks found nothing, so that the shortest one will do.
    #[inline]
    pub(crate) fn looks_short(&self) -> bool {
        self.misses > self.short_after
    }

    /// Lets the peer get ahead. The caller calls it before a look.
    #[inline]
    pub(crate) fn pause(&self) {
        for _ in 0..self.pauses {
            pause();
        }
    }

    /// Returns `true` if the last few looks found nothing.
    #[inline]
    fn idle(&self) -> bool {
        self.misses > IDLE
    }

    /// Records that a look found `gained` slots (or bytes).
    ///
    /// `one` is the size of a single message, and `capacity` the most that can be found.
    #[inline]
    pub(crate) fn found(&mut self, gained: u64, one: u64, capacity: u64) {
        if gained == 0 {
            self.misses = self.misses.saturating_add(1);
            self.pauses = 0;
            return;
        }
        let soon = !self.idle();
        self.misses = 0;
        if self.rest > 0 {
            self.rest -= 1;
        } else if !soon {
            self.pauses = 0;
        } else if gained <= one && self.pauses >= VAIN {
            self.pauses = 0;
            self.next_rest = (self.next_rest * 2 + 1).min(LONGEST_REST);
            self.rest = self.next_rest;
        } else if gained < one.saturating_mul(FEW).min(capacity / 4) {
            self.pauses = (self.pauses * 2 + 1).min(MOST);
            if gained > one {
                self.next_rest = 0;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Returns the pauses after looks that each found `gained` at once.
    fn pauses_after(gained: u64, capacity: u64) -> u32 {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.found(gained, 1, capacity);
        }
        backoff.pauses
    }

    /// An end that gains a good part of the ring at each look does not pause.
    #[test]
    fn large_gains_need_no_pause() {
        for capacity in [1, 2, 4, 8, 32, 64, 4096] {
            assert_eq!(pauses_after(capacity, capacity), 0, "{capacity}");
            assert_eq!(
                pauses_after(capacity.div_ceil(2), capacity),
                0,
                "{capacity}"
            );
        }
        assert_eq!(pauses_after(FEW, 4096), 0);
    }

    /// An end that gains a few messages at once pauses; one that gains a single one gives up
    /// pausing.
    #[test]
    fn single_gains_give_up_the_pause() {
        assert_eq!(pauses_after(2, 4096), MOST);
        assert!(pauses_after(1, 4096) <= VAIN);
    }
}

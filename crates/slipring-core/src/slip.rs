//! Slip: the pause that keeps a ring from running empty (or full) all the time.
//!
//! Plain version: when the private copy of the peer's position is used up, look at the shared one.
//! A consumer that is a little faster than its producer then finds one message at each look, and
//! every message costs a transfer of two cache lines in both directions: ten times slower than
//! two sides that stay some lines apart. So a side that keeps finding *little, at once* pauses a
//! little before its next look, and lets the other side get ahead (temporal slipping, as in
//! Giacomoni, Moseley and Vachharajani, *FastForward*, 2008). The pause doubles up to [`MOST`].
//!
//! A round trip must not pay for that. It looks alike (one message, found soon), but a pause gains
//! it nothing: where a longer pause still finds a single message, nobody is streaming. Then, and
//! whenever a look finds nothing, the pause is over, and the next try is put off: for twice as many
//! looks each time that it was in vain.

use crate::sync::pause;

/// The longest pause, in processor pauses.
const MOST: u32 = 32;
/// A pause of this length that gathers a single message gathers nothing.
const VAIN: u32 = 3;
/// So many messages at once are enough: sides that far apart share no line. (More of a pause then
/// costs a batch of 256 a fifth of its speed.) A quarter of a small ring is enough as well.
const FEW: u64 = 64;
/// More looks than this that found nothing, one after another: the other side does not stream.
const IDLE: u32 = 2;
/// The longest that a new try is put off, in looks.
const LONGEST_REST: u32 = 1024;

/// The pause of one side before it looks at the other's position.
#[derive(Default)]
pub(crate) struct Slip {
    pauses: u32,
    misses: u32,
    /// Looks until the next try.
    rest: u32,
    /// What `rest` starts from next time.
    next_rest: u32,
}

impl Slip {
    /// Lets the peer get ahead. To be called before a look.
    #[inline]
    pub(crate) fn pause(&self) {
        for _ in 0..self.pauses {
            pause();
        }
    }

    /// Whether the last few looks found nothing.
    #[inline]
    pub(crate) fn idle(&self) -> bool {
        self.misses > IDLE
    }

    /// Takes note of what a look has found: `gained` slots (or bytes), of which `one` is a single
    /// message and `capacity` all that there can be.
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

    /// The pauses after looks that each found `gained` at once.
    fn pauses_after(gained: u64, capacity: u64) -> u32 {
        let mut slip = Slip::default();
        for _ in 0..100 {
            slip.found(gained, 1, capacity);
        }
        slip.pauses
    }

    #[test]
    fn who_gains_a_good_part_of_the_ring_does_not_pause() {
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

    #[test]
    fn who_gains_a_few_at_once_pauses_and_who_gains_one_gives_it_up() {
        assert_eq!(pauses_after(2, 4096), MOST);
        assert!(pauses_after(1, 4096) <= VAIN);
    }
}

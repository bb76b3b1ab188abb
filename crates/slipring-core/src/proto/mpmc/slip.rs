//! Lets the other side get ahead, so that the two sides work on different lines.
//!
//! Plain version: an end takes what its look found, and looks again. An end that is a little faster than the other side
//! then finds one message at each look, in the line that the other side is writing. Each message moves lines in both
//! directions, which is four times as slow as two sides that stay some lines apart. So an end that finds *little, soon*
//! pauses before it takes that. (This is temporal slipping, as in Giacomoni, Moseley and Vachharajani, *FastForward*,
//! 2008.)
//!
//! `backoff.rs` does the same for rings with one end a side. There a look costs one line, whatever it finds, so the pause
//! comes before each look. Here a look costs a line for each eight positions, in which the other side may be at work.
//! So the pause comes after the look that found little, and ends once a position far ahead is there.
//!
//! A pause that gains nothing ends the pausing: the other side does not stream, as in a round trip. Each such pause
//! doubles the number of looks until the next one.

use crate::sync::pause;

/// A pause of this length was in vain if nothing more is there after it.
const VAIN: u32 = 15;
/// After more looks than this in a row that found nothing, the other side does not stream.
const SOON: u32 = 64;
/// The most looks by which the next pause is put off.
const LONGEST_REST: u32 = 1024;

/// The pauses of one end.
#[derive(Default)]
pub(super) struct Slip {
    /// The length of the next pause, in processor pauses.
    pauses: u32,
    /// The number of looks in a row that found nothing.
    misses: u32,
    /// The number of looks until the next pause.
    rest: u32,
    /// The value that `rest` starts from next time.
    next_rest: u32,
}

impl Slip {
    /// Records that a look found nothing.
    pub(super) fn missed(&mut self) {
        self.misses = self.misses.saturating_add(1);
    }

    /// Records that a look found something. Returns `true` if the end is to pause, by [`pause`](Self::pause), because
    /// that was `little`.
    pub(super) fn found(&mut self, little: bool) -> bool {
        let missed = core::mem::take(&mut self.misses);
        if !little || missed > SOON {
            return false;
        }
        let rests = self.rest > 0;
        self.rest = self.rest.saturating_sub(1);
        !rests
    }

    /// Pauses, for as long as that has paid so far.
    pub(super) fn pause(&self) {
        for _ in 0..self.pauses {
            pause();
        }
    }

    /// Learns from a pause: `enough` says that a position far ahead is there now, `gained` that more is there than before.
    /// No pause is longer than `longest`.
    pub(super) fn paused(&mut self, enough: bool, gained: bool, longest: u32) {
        if enough {
            self.pauses -= self.pauses / 8;
            self.next_rest = 0;
        } else if !gained && self.pauses >= VAIN {
            self.pauses = 0;
            self.next_rest = (self.next_rest * 2 + 1).min(LONGEST_REST);
            self.rest = self.next_rest;
        } else {
            if gained {
                self.next_rest = 0;
            }
            self.pauses = (self.pauses * 2 + 1).min(longest);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// An end that finds much does not pause, nor does one that found nothing for long.
    #[test]
    fn only_little_and_soon_leads_to_a_pause() {
        let mut slip = Slip::default();
        assert!(!slip.found(false));
        assert!(slip.found(true));
        (0..=SOON).for_each(|_| slip.missed());
        assert!(!slip.found(true));
        assert!(slip.found(true));
    }

    /// Pauses that gain nothing become rare; one that pays is kept.
    #[test]
    fn pauses_in_vain_become_rare() {
        let looks = |enough: bool, gained: bool| {
            let mut slip = Slip::default();
            let pausing = (0..10_000).filter(|_| {
                let pauses = slip.found(true);
                if pauses {
                    slip.paused(enough, gained, 128);
                }
                pauses
            });
            pausing.count()
        };
        assert!(looks(false, false) < 200);
        assert_eq!(looks(false, true), 10_000);
        assert_eq!(looks(true, true), 10_000);
    }
}

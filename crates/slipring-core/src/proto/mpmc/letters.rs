//! Dead letters: messages that were delivered too often. They stay in the ring, out of the way, until somebody takes them.
//!
//! A message that kills each consumer that takes it would kill them all, one after the other. So a consumer may be told
//! to put aside what has been delivered some number of times ([`DeadLetters`]). A letter keeps its slot, and producers
//! carry it along as they carry a held one. When there are more letters than are to be kept, the oldest is dropped.

use super::owned::forget_deliveries;
use super::recovery::Delivery;
use super::word::{Place, Queue, State};
use crate::error::Corrupt;
use crate::sync::Ordering;

/// The rule by which a consumer puts messages aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// A message that has been delivered this often is not delivered again: from 1.
    pub after: u32,
    /// At most this many letters are kept, and at most half as many as the queue has slots. When one more comes, the oldest
    /// is dropped.
    pub keep: u64,
}

/// The way in which a consumer handles messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Handling {
    /// The fate of messages that it has taken when it dies.
    pub delivery: Delivery,
    /// The rule by which it puts messages aside; `None`: it puts none aside.
    pub dead_letters: Option<DeadLetters>,
}

impl Queue<'_> {
    /// Returns the first slot from slot `from` on that is in this state.
    pub(super) fn find_state(&self, state: State, from: u64) -> Result<Option<Place>, Corrupt> {
        for (index, word) in self.words().iter().enumerate().skip(from as usize) {
            // Relaxed: the CAS that takes it compares the word again, and acquires.
            let word = self.shape.read(word.load(Ordering::Relaxed))?;
            if word.state == state {
                let (index, lap) = (index as u64, word.lap);
                return Ok(Some(Place { index, lap }));
            }
        }
        Ok(None)
    }

    /// Returns the number of dead letters, and the place of the one that was put aside first.
    pub(super) fn letters(&self) -> (u64, Option<Place>) {
        let (mut count, mut oldest) = (0, None);
        for (index, word) in (0..).zip(self.words()) {
            // Relaxed: the CAS that takes one compares the word again.
            let Ok(word) = self.shape.read(word.load(Ordering::Relaxed)) else {
                continue;
            };
            if word.state == State::DeadLetter {
                count += 1;
                let lap = word.lap;
                // Relaxed: only compared. Of those put aside at one time, the one that stands first.
                let since = self.note(index).since.load(Ordering::Relaxed);
                let age = (since, lap, index);
                oldest = Some(oldest.map_or(age, |oldest| age.min(oldest)));
            }
        }
        (count, oldest.map(|(_, lap, index)| Place { index, lap }))
    }

    /// Drops the oldest dead letters beyond `keep`, on behalf of the consumer in seat `seat`: at most two. So a surplus
    /// that another consumer left shrinks, and no call takes long.
    pub(super) fn drop_letters(&self, keep: u64, seat: u64) {
        for _ in 0..2 {
            let (count, Some(place)) = self.letters() else {
                return;
            };
            if count <= keep {
                return;
            }
            if let Some(lap) = self.take(place, State::DeadLetter, State::Taken, seat) {
                forget_deliveries(self, place.index, 1);
                // Release: pairs with the acquire of a producer's look.
                self.word(place.index)
                    .store(self.shape.next_free(lap), Ordering::Release);
            }
        }
    }

    /// Takes a slot that is in the state `from` on behalf of the consumer in seat `seat`: into the state `to`. Returns the
    /// slot's lap, or `None` if another end has changed it.
    pub(super) fn take(&self, place: Place, from: State, to: State, seat: u64) -> Option<u64> {
        // Acquire: the word may be a later visit's than the one that the look acquired.
        let taken = self.word(place.index).compare_exchange(
            place.lap | from as u64,
            self.shape.owned(to, seat, 1, place.lap),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        taken.is_ok().then_some(place.lap)
    }
}

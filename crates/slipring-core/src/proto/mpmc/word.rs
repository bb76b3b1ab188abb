//! Takes the word of a slot apart, and walks from word to word.

use core::ptr::NonNull;

use crate::error::Corrupt;
use crate::geometry::Geometry;
use crate::layout::{Claims, Note, Role};
use crate::mem::prefetch;
use crate::outside::View;
use crate::sync::{AtomicU64, Ordering};

/// The state in the low bits of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// May be reserved.
    Free = 0,
    /// The first slot of a run that a producer reserved.
    Reserved = 1,
    /// Holds a message that no consumer has taken.
    Committed = 2,
    /// The first slot of a run that a consumer copies out.
    Taken = 3,
    /// The first slot of a run that a consumer reads in place.
    Held = 4,
    /// Holds a message that a consumer gave back, or did not live to release.
    Returned = 5,
    /// Holds a dead letter: a message that was delivered too often.
    DeadLetter = 7,
}

const STATE: u64 = 7;
const OWNER_SHIFT: u32 = 3;
const OWNER: u64 = 63;
const COUNT_SHIFT: u32 = 9;

/// A word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The state.
    pub(crate) state: State,
    /// The seat of the owner, counted within its side; 0 if the state has no owner.
    pub(crate) owner: u64,
    /// The number of slots of the run; 1 if the state has no owner.
    pub(crate) count: u64,
    /// The lap, in the word's own bits.
    pub(crate) lap: u64,
}

impl Word {
    /// Returns `true` if a producer that comes round may take the slot into its own lap, and go on behind it.
    fn stays(self) -> bool {
        match self.state {
            State::Held => self.count == 1,
            State::Returned | State::DeadLetter => true,
            _ => false,
        }
    }

    /// Returns `true` if a position with this word, of the position's lap, is claimed by this side. A word of a longer
    /// run is the word of its head.
    fn claimed_by(self, side: Role) -> bool {
        match self.state {
            State::Free => false,
            State::Committed | State::Reserved => side == Role::Producer,
            State::Taken | State::Held | State::Returned | State::DeadLetter => true,
        }
    }
}

/// The number of slots, and the place of the lap in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The number of slots: one more than the capacity.
    pub(crate) slots: u64,
    /// One lap, in a word's bits. What lies below is state, owner and count.
    pub(crate) unit: u64,
    producers: u64,
    consumers: u64,
}

impl Shape {
    /// Returns the shape of a checked geometry.
    pub(crate) fn of(geometry: &Geometry) -> Shape {
        Shape {
            slots: geometry.capacity + 1,
            unit: geometry.capacity << COUNT_SHIFT,
            producers: geometry.producers,
            consumers: geometry.consumers,
        }
    }

    pub(crate) fn capacity(self) -> u64 {
        self.slots - 1
    }

    /// Returns the word of a run of `count` slots that seat `owner` has.
    #[inline]
    pub(crate) fn owned(self, state: State, owner: u64, count: u64, lap: u64) -> u64 {
        lap | (count - 1) << COUNT_SHIFT | owner << OWNER_SHIFT | state as u64
    }

    /// Returns the word of a slot that is free in the lap after this one.
    #[inline]
    pub(crate) fn next_free(self, lap: u64) -> u64 {
        free(lap.wrapping_add(self.unit))
    }

    /// Returns the lap of a word, in its own bits.
    #[inline]
    pub(crate) fn lap(self, word: u64) -> u64 {
        word & !(self.unit - 1)
    }

    /// Takes a word apart; an impossible one is `Corrupt`.
    pub(crate) fn read(self, word: u64) -> Result<Word, Corrupt> {
        let corrupt = || Corrupt {
            word: "slot",
            found: word,
            expected: self.owned(State::Returned, 0, 1, self.lap(word)),
        };
        let owner = word >> OWNER_SHIFT & OWNER;
        let count = (word & (self.unit - 1)) >> COUNT_SHIFT;
        let (state, owners) = match word & STATE {
            0 => (State::Free, 1),
            1 => (State::Reserved, self.producers),
            2 => (State::Committed, 1),
            3 => (State::Taken, self.consumers),
            4 => (State::Held, self.consumers),
            5 => (State::Returned, 1),
            7 => (State::DeadLetter, 1),
            _ => return Err(corrupt()),
        };
        let owned = matches!(state, State::Reserved | State::Taken | State::Held);
        if owner >= owners || (!owned && count != 0) {
            return Err(corrupt());
        }
        Ok(Word {
            state,
            owner,
            count: count + 1,
            lap: self.lap(word),
        })
    }
}

/// Returns the word of a free slot.
#[inline]
pub(crate) fn free(lap: u64) -> u64 {
    lap | State::Free as u64
}

/// Returns the word of a slot with a message.
#[inline]
pub(crate) fn committed(lap: u64) -> u64 {
    lap | State::Committed as u64
}

/// Returns the word of a slot whose message is to be delivered again.
#[inline]
pub(crate) fn returned(lap: u64) -> u64 {
    lap | State::Returned as u64
}

/// Returns the word of a slot with a dead letter.
#[inline]
pub(crate) fn dead_letter(lap: u64) -> u64 {
    lap | State::DeadLetter as u64
}

/// A position, as a slot and a lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u64,
    /// In the bits of a word.
    pub(crate) lap: u64,
}

impl Place {
    /// Returns the place of position `position`.
    pub(crate) fn of(position: u64, shape: Shape) -> Place {
        Place {
            index: position % shape.slots,
            lap: (position / shape.slots).wrapping_mul(shape.unit),
        }
    }

    /// Returns the number of this position.
    pub(crate) fn position(self, shape: Shape) -> u64 {
        (self.lap / shape.unit)
            .wrapping_mul(shape.slots)
            .wrapping_add(self.index)
    }

    /// Returns the place `count` positions later; `count` is at most the number of slots.
    #[inline]
    pub(crate) fn after(self, count: u64, shape: Shape) -> Place {
        let index = self.index + count;
        match index >= shape.slots {
            true => Place {
                index: index - shape.slots,
                lap: self.lap.wrapping_add(shape.unit),
            },
            false => Place { index, ..self },
        }
    }
}

/// The words of a queue that all its ends share.
#[derive(Clone, Copy)]
pub struct Queue<'m> {
    pub(crate) claims: Claims<'m>,
    pub(crate) shape: Shape,
}

/// The most words that one walk looks at before it tries the hint.
const STRAIGHT: u64 = 32;

impl<'m> Queue<'m> {
    /// Makes the queue of a checked geometry; `None` if there are not as many words, and notes, as slots.
    pub fn new(geometry: &Geometry, claims: Claims<'m>) -> Option<Queue<'m>> {
        let shape = Shape::of(geometry);
        let slots = [claims.words.len(), claims.notes.len()];
        slots
            .iter()
            .all(|len| *len as u64 == shape.slots)
            .then_some(Queue { claims, shape })
    }

    /// Returns the queue that an outside reader sees.
    pub(crate) fn of(view: &View<'m>) -> Option<Queue<'m>> {
        Queue::new(view.geometry, view.claims?)
    }

    #[inline]
    pub(crate) fn word(&self, index: u64) -> &'m AtomicU64 {
        // Never out of bounds: every index comes from a `Place`, which stays below `slots`.
        &self.claims.words[index as usize]
    }

    /// Returns the note of slot `index`.
    #[inline]
    pub(crate) fn note(&self, index: u64) -> &'m Note {
        // Never out of bounds: as in `word`; there are as many notes as words.
        &self.claims.notes[index as usize]
    }

    /// Asks for the line of word `index`, to be claimed soon. Does nothing if there is no such word.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u64) {
        if let Some(word) = self.claims.words.get(index as usize) {
            prefetch::for_writing(NonNull::from(word));
        }
    }

    /// Returns the words of all slots.
    pub(crate) fn words(&self) -> &'m [AtomicU64] {
        self.claims.words
    }

    fn hint(&self, side: Role) -> &'m AtomicU64 {
        match side {
            Role::Producer => self.claims.tail_hint,
            Role::Consumer => self.claims.head_hint,
        }
    }

    /// Raises the hint of this side to `at`, before which every position is claimed.
    pub(crate) fn raise_hint(&self, side: Role, at: Place) {
        // Relaxed: it says where to look. What a jump rests on is the word there.
        self.hint(side)
            .fetch_max(at.position(self.shape), Ordering::Relaxed);
    }

    /// Walks from `at` to the first position that this side has not claimed, as far as can be seen, and returns the
    /// word there.
    ///
    /// The result is the word of an earlier lap, or of this lap: free, or for a consumer committed or reserved. Or the
    /// other ends were faster for a whole ring; then it is any word.
    pub(crate) fn walk(&self, at: &mut Place, side: Role) -> Result<u64, Corrupt> {
        let shape = self.shape;
        let mut steps = 0;
        loop {
            // Acquire: pairs with the release of a commit, of a release, and of a run's end; see *Orderings*.
            let found = self.word(at.index).load(Ordering::Acquire);
            let word = shape.read(found)?;
            if word.lap < at.lap {
                return Ok(found);
            }
            let ahead = word.lap - at.lap;
            if ahead > 0 {
                // Others have claimed this position, and nearly a lap behind it for each lap more.
                if ahead > 2 * shape.unit {
                    at.lap += ahead - 2 * shape.unit;
                }
                *at = at.after(1, shape);
            } else if word.claimed_by(side) {
                *at = at.after(word.count, shape);
            } else {
                return Ok(found);
            }
            steps += 1;
            if steps == STRAIGHT {
                self.follow_hint(at, side);
            }
            // The first unclaimed position is less than three rings behind a place that a jump led to.
            if steps > 4 * shape.slots + STRAIGHT {
                return Ok(found);
            }
        }
    }

    /// Carries the slot at `at`, whose word is `found`, into the lap of `at`, if a run of `wanted` positions can then be
    /// claimed. Returns `false` if not, or if nothing stays there.
    ///
    /// A slot that is carried in vain would use up its position for nothing: a producer that has reserved something would
    /// wait for room that the ring has only behind that reservation.
    #[cold]
    pub(crate) fn make_way(&self, at: Place, found: u64, wanted: u64) -> bool {
        let word = self.shape.read(found);
        if !word.is_ok_and(|word| self.stays(word, at)) || !self.fits(at, wanted) {
            return false;
        }
        self.carry(at.index, found);
        true
    }

    /// Returns `true` if a run of `wanted` free positions, and the one that stays free, can be had behind `at`: with nothing
    /// before them but free positions, which are given up, and slots that can be carried.
    pub(crate) fn fits(&self, at: Place, wanted: u64) -> bool {
        let (shape, mut run, mut enough) = (self.shape, 0, false);
        // The step at which the run begins.
        let mut begin = 0;
        for step in 0..2 * shape.slots {
            let again = step >= shape.slots;
            let place = match again {
                true => at
                    .after(shape.slots, shape)
                    .after(step - shape.slots, shape),
                false => at.after(step, shape),
            };
            // Acquire: as in `walk`.
            let found = self.word(place.index).load(Ordering::Acquire);
            // What is given up before the run is free in the next lap.
            let given_up = again && step - shape.slots < begin;
            let lap = place.lap.wrapping_sub(if again { shape.unit } else { 0 });
            if found == free(lap) && (!again || given_up) {
                if enough || run == wanted {
                    return true;
                }
                run += 1;
            } else if !again && shape.read(found).is_ok_and(|word| self.stays(word, place)) {
                // As `room` counts.
                enough |= run == 1 && wanted == 1;
                run = 0;
                if !enough {
                    begin = step + 1;
                }
            } else {
                return false;
            }
        }
        false
    }

    /// Returns `true` if the slot at `at`, which has this word, can be carried into the lap of `at`.
    fn stays(&self, word: Word, at: Place) -> bool {
        word.stays() && word.lap.wrapping_add(self.shape.unit) == at.lap
    }

    /// Carries a slot into the next lap, unless its word has changed since.
    fn carry(&self, index: u64, found: u64) {
        // Relaxed: a read-modify-write goes on with what the last store of the word has released, so the payload still comes
        // before it. Nothing behind the slot rests on it: a run does not reach across a slot that somebody holds.
        let _ = self.word(index).compare_exchange(
            found,
            found.wrapping_add(self.shape.unit),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Counts the positions from `at` on, up to `most`, whose words equal `expected` of their lap.
    #[inline]
    pub(crate) fn count(&self, at: Place, most: u64, expected: impl Fn(u64) -> u64) -> u64 {
        let (front, back) = self.run(at, most);
        // Acquire: as in `walk`.
        let equal = |words: &[AtomicU64], word| {
            let others = words
                .iter()
                .position(|slot| slot.load(Ordering::Acquire) != word);
            others.unwrap_or(words.len())
        };
        let count = equal(front, expected(at.lap));
        match count == front.len() && !back.is_empty() {
            true => (count + equal(back, expected(at.lap.wrapping_add(self.shape.unit)))) as u64,
            false => count as u64,
        }
    }

    /// Returns the words of `count` positions from `at` on, at most as many as slots: those of the lap of `at`, and those
    /// of the next one.
    #[inline]
    pub(crate) fn run(&self, at: Place, count: u64) -> (&'m [AtomicU64], &'m [AtomicU64]) {
        let (index, count) = (at.index as usize, count as usize);
        let words = self.claims.words;
        let first = count.min(words.len() - index);
        (&words[index..index + first], &words[..count - first])
    }

    /// Counts the free positions from `at` on, up to `most`, except the one that stays behind them.
    pub(crate) fn room(&self, at: Place, most: u64) -> u64 {
        match self.count(at, most.min(self.shape.capacity()) + 1, free) {
            0 => 0,
            1 => u64::from(self.fits(at, 1)),
            count => count - 1,
        }
    }

    /// Moves `at` forward to this side's hint, if the word before the hint shows that it is right.
    ///
    /// Positions are claimed in order and without gaps. So if the position before the hint is claimed, and nobody has
    /// carried a slot there, all earlier ones are. A garbage hint cannot lead a walk too far.
    pub(crate) fn follow_hint(&self, at: &mut Place, side: Role) {
        let shape = self.shape;
        // Relaxed: see `raise_hint`.
        let hint = self.hint(side).load(Ordering::Relaxed);
        let Some(before) = hint.checked_sub(1) else {
            return;
        };
        let before = Place::of(before, shape);
        if (before.lap, before.index) < (at.lap, at.index) {
            return;
        }
        // Acquire: pairs with the release of the word's last store, or with the fence before it. Whoever stored it has seen
        // every claim before it.
        let Ok(word) = shape.read(self.word(before.index).load(Ordering::Acquire)) else {
            return;
        };
        // An inner slot of a run does not show that it is claimed. Nor does a slot that stays show a consumer that all
        // before it are taken: a producer may have carried it there. Then the walk goes on as it was.
        let sure = side == Role::Producer || !word.stays();
        let this_lap = word.lap == before.lap && word.count == 1 && word.claimed_by(side) && sure;
        let claimed = word.lap > before.lap || this_lap;
        if claimed {
            *at = before.after(1, shape);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::geometry::WhenFull;
    use crate::spec::Kind;

    fn shape(capacity: u64) -> Shape {
        Shape::of(&Geometry {
            kind: Kind::Mpmc,
            when_full: WhenFull::Wait,
            capacity,
            slot_size: 8,
            slot_align: 8,
            producers: 2,
            consumers: 3,
            skew: 0,
            pins: 0,
            pool: 0,
            growth: None,
        })
    }

    /// The parts of a word come out as they were put in, for the smallest capacities and a large one.
    #[test]
    fn words_keep_their_parts() {
        for capacity in [1, 2, 4, 1 << 20] {
            let shape = shape(capacity);
            for (state, owner) in [(State::Reserved, 1), (State::Taken, 2), (State::Held, 2)] {
                for count in [1, capacity] {
                    let lap = 5 * shape.unit;
                    let word = shape.owned(state, owner, count, lap);
                    let expected = Word {
                        state,
                        owner,
                        count,
                        lap,
                    };
                    assert_eq!(shape.read(word), Ok(expected), "{capacity}");
                }
            }
        }
    }

    /// A fresh file is an empty queue.
    #[test]
    fn zero_is_free() {
        let word = shape(4).read(0).map(|word| (word.state, word.lap));
        assert_eq!(word, Ok((State::Free, 0)));
    }

    /// Unknown states, seats that do not exist, and runs of states that have none.
    #[test]
    fn impossible_words_are_corrupt() {
        let shape = shape(4);
        let reserved = |owner| shape.owned(State::Reserved, owner, 1, 0);
        let bad = [
            6,
            15,
            reserved(2),
            shape.owned(State::Held, 3, 1, 0),
            shape.owned(State::Free, 0, 2, 0),
            shape.owned(State::Committed, 1, 1, 0),
        ];
        for word in bad {
            assert!(shape.read(word).is_err(), "{word:#x}");
        }
        assert!(shape.read(reserved(1)).is_ok());
    }

    #[test]
    fn places_and_positions_agree() {
        for capacity in [1, 2, 8] {
            let shape = shape(capacity);
            let mut place = Place { index: 0, lap: 0 };
            for position in 0..50 {
                assert_eq!(place, Place::of(position, shape));
                assert_eq!(place.position(shape), position);
                place = place.after(1, shape);
            }
        }
    }
}

//! Takes the word of a slot apart, and walks from word to word.

use crate::error::Corrupt;
use crate::geometry::Geometry;
use crate::layout::{Claims, Role};
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
    /// Makes the queue of a checked geometry; `None` if there are not as many words as slots.
    pub fn new(geometry: &Geometry, claims: Claims<'m>) -> Option<Queue<'m>> {
        let shape = Shape::of(geometry);
        (claims.words.len() as u64 == shape.slots).then_some(Queue { claims, shape })
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
        // Release: pairs with the acquire in `follow_hint`; see *Orderings*.
        self.hint(side)
            .fetch_max(at.position(self.shape), Ordering::Release);
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
            if ahead != 0 {
                // Others have claimed this position, and nearly a lap behind it for each lap more.
                if ahead > 2 * shape.unit {
                    at.lap += ahead - 2 * shape.unit;
                }
                *at = at.after(1, shape);
            } else {
                let passed = match (word.state, side) {
                    (State::Free, _) | (State::Committed | State::Reserved, Role::Consumer) => {
                        // A reserved or committed slot is the next that a consumer takes.
                        return Ok(found);
                    }
                    (State::Committed | State::Returned, _) => 1,
                    (State::Reserved | State::Taken | State::Held, _) => word.count,
                };
                *at = at.after(passed, shape);
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

    /// Moves `at` forward to this side's hint, if the word before the hint shows that it is right.
    ///
    /// Positions are claimed in order and without gaps. So if the position before the hint is claimed, all earlier
    /// ones are, and a garbage hint cannot lead a walk too far.
    pub(crate) fn follow_hint(&self, at: &mut Place, side: Role) {
        let shape = self.shape;
        // Acquire: pairs with the release in `raise_hint`.
        let hint = self.hint(side).load(Ordering::Acquire);
        let Some(before) = hint.checked_sub(1) else {
            return;
        };
        let before = Place::of(before, shape);
        if (before.lap, before.index) < (at.lap, at.index) {
            return;
        }
        // Acquire: as in `walk`.
        let Ok(word) = shape.read(self.word(before.index).load(Ordering::Acquire)) else {
            return;
        };
        // An inner slot of a run does not show that it is claimed. Then the walk goes on as it was.
        let single = word.count == 1;
        let claimed = word.lap > before.lap
            || word.lap == before.lap
                && match (word.state, side) {
                    (State::Free, _) | (State::Committed | State::Reserved, Role::Consumer) => {
                        false
                    }
                    (State::Committed | State::Returned, _) => true,
                    (State::Reserved | State::Taken | State::Held, _) => single,
                };
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
            7,
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

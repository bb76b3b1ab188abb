//! Reads a queue from outside: what it holds, and who has which of its slots in hand.
//!
//! An outside reader only loads. The words change meanwhile, so each answer is a hint: a claim that is made, carried or
//! given up during a look may be missed, or seen twice. Impossible words are counted, and otherwise passed over.

use super::consumer::ANEW;
use super::word::{Place, Queue, State, Word, committed};
use crate::cursor;
use crate::layout::Role;
use crate::outside::{Outside, View};
use crate::sync::{AtomicU64, Ordering};

/// A run of slots that an end has in its hands, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The end's side.
    pub role: Role,
    /// The end's seat, counted within its side.
    pub seat: u64,
    /// `Reserved`, `Taken` or `Held`.
    pub state: State,
    /// The position of the first slot. It grows by a lap when a producer carries the slot along.
    pub position: u64,
    /// The number of slots: from 1 to the capacity.
    pub count: u64,
    /// The time at which a message in state `Held` was taken, by [`Os::coarse_now`](crate::wait::Os::coarse_now), in
    /// nanoseconds. `None` in other states, or if no time is there.
    ///
    /// The holder stores it just after its claim. Until then it is the time of an earlier claim of this slot.
    pub since: Option<u64>,
    /// The number of times that the messages had been delivered before; 0 in state `Reserved`.
    pub deliveries: u32,
}

/// The numbers of slots that hold something out of the ordinary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Dead letters.
    pub dead_letters: u64,
    /// Messages that wait to be delivered again.
    pub returned: u64,
    /// Slots whose word is impossible.
    pub corrupt: u64,
}

/// Tells `each` of every claim in a queue, in the order of the slots, and returns what else is there. Returns `None` for
/// a channel without claims.
///
/// Loads each slot's word once, and the note of each claimed slot.
pub fn claims(view: &View<'_>, mut each: impl FnMut(Claim)) -> Option<Tally> {
    let queue = Queue::of(view)?;
    let mut tally = Tally::default();
    let mut run = None;
    for (index, word) in (0..).zip(queue.words()) {
        // Relaxed: nothing is read that this orders.
        let found = word.load(Ordering::Relaxed);
        let Ok(word) = queue.shape.read(found) else {
            tally.corrupt += 1;
            continue;
        };
        match word.state {
            State::Free | State::Committed => {}
            State::Returned => tally.returned += 1,
            State::DeadLetter => tally.dead_letters += 1,
            State::Reserved | State::Taken | State::Held => {
                let head = (index, word);
                if !run.is_some_and(|run| covers(run, head)) {
                    each(queue.claim(index, word));
                    run = Some(head);
                }
            }
        }
    }
    Some(tally)
}

/// Returns `true` if the slot of `inner` belongs to the run whose head is `head`: the owner is about to cut the run in two.
fn covers((first, head): (u64, Word), (index, inner): (u64, Word)) -> bool {
    let same = (head.state, head.owner, head.lap) == (inner.state, inner.owner, inner.lap);
    same && index - first < head.count
}

impl Queue<'_> {
    /// Returns the claim whose head, at `index`, has this word.
    fn claim(&self, index: u64, word: Word) -> Claim {
        let note = self.note(index);
        let role = match word.state {
            State::Reserved => Role::Producer,
            _ => Role::Consumer,
        };
        // Relaxed, both: for people.
        let again = note.again.load(Ordering::Relaxed);
        let since = note.since.load(Ordering::Relaxed);
        let position = Place {
            index,
            lap: word.lap,
        }
        .position(self.shape);
        Claim {
            role,
            seat: word.owner,
            state: word.state,
            position,
            count: word.count,
            since: (word.state == State::Held && since != 0).then_some(since),
            deliveries: match role {
                Role::Producer => 0,
                // A dead letter that is tried anew counts as never delivered.
                Role::Consumer if again == ANEW => 0,
                Role::Consumer => again,
            },
        }
    }

    /// Returns the number of slots that hold a message, or belong to a consumer.
    ///
    /// Looks at every word; the answer is exact only while no end works.
    pub(super) fn len(&self) -> u64 {
        let holds = |word: &AtomicU64| {
            // Relaxed: nothing is read that this orders.
            let word = self.shape.read(word.load(Ordering::Relaxed));
            word.is_ok_and(|word| !matches!(word.state, State::Free | State::Reserved))
        };
        self.words().iter().filter(|word| holds(word)).count() as u64
    }

    /// Returns `true` if a message is to be delivered again, or a word is impossible.
    fn has_returned(&self) -> bool {
        self.words().iter().any(|word| {
            // Relaxed: nothing is read that this orders.
            let word = self.shape.read(word.load(Ordering::Relaxed));
            word.is_ok_and(|word| word.state == State::Returned) || word.is_err()
        })
    }
}

/// Reads an `mpmc` channel from outside.
pub(in crate::proto) const OUTSIDE: Outside = Outside {
    has_message: |view, _| {
        let Some(queue) = Queue::of(view) else {
            return true;
        };
        let mut at = queue.start(Role::Consumer);
        match queue.walk(&mut at, Role::Consumer) {
            Ok(word) if word == committed(at.lap) => true,
            // Relaxed: a hint.
            Ok(_) => queue.claims.returns.load(Ordering::Relaxed) != 0 && queue.has_returned(),
            Err(_) => true,
        }
    },
    has_room: |view, _, room| {
        let Some(queue) = Queue::of(view) else {
            return true;
        };
        let mut at = queue.start(Role::Producer);
        let wanted = room.min(queue.shape.capacity());
        // What is at the first unclaimed position: free, or it can be carried, or it is in the way.
        let walked = queue.walk(&mut at, Role::Producer);
        walked.is_err() || queue.fits(at, wanted)
    },
    used: |view| {
        Queue::of(view)
            .map_or(0, |queue| queue.len())
            .min(view.geometry.capacity)
    },
    waited_for: |_, _| false,
    progress: |view, role| sum_of_positions(view, role.other()),
    ..cursor::OUTSIDE
};

/// Returns the number of messages that a side's seats have committed (released) in all.
fn sum_of_positions(view: &View<'_>, side: Role) -> u64 {
    // Relaxed: a figure.
    let positions = view
        .side(side)
        .iter()
        .map(|words| words.position.load(Ordering::Relaxed));
    positions.fold(0, u64::wrapping_add)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, WhenFull};
    use crate::layout::{Claims, Note};
    use crate::proto::mpmc::word::{dead_letter, returned};
    use crate::spec::Kind;

    const SLOTS: usize = 9;
    const GEOMETRY: Geometry = Geometry {
        kind: Kind::Mpmc,
        when_full: WhenFull::Wait,
        capacity: SLOTS as u64 - 1,
        slot_size: 8,
        slot_align: 8,
        producers: 2,
        consumers: 3,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    };
    /// One lap, in a word's bits.
    const LAP: u64 = GEOMETRY.capacity << 9;

    /// A queue of eight slots and one more.
    #[derive(Default)]
    struct Memory {
        hints: [AtomicU64; 3],
        words: [AtomicU64; SLOTS],
        notes: [Note; SLOTS],
    }

    impl Memory {
        fn set(&self, index: usize, word: u64) {
            self.words[index].store(word, Ordering::Relaxed);
        }

        fn own(&self, index: usize, state: State, owner: u64, count: u64, lap: u64) {
            self.set(index, lap | (count - 1) << 9 | owner << 3 | state as u64);
        }

        fn note(&self, index: usize, since: u64, again: u32) {
            self.notes[index].since.store(since, Ordering::Relaxed);
            self.notes[index].again.store(again, Ordering::Relaxed);
        }

        /// Returns the first claims, the number of all claims, and what else is there.
        fn look(&self, geometry: &Geometry) -> ([Option<Claim>; SLOTS], usize, Tally) {
            let [tail_hint, head_hint, returns] = &self.hints;
            let view = View {
                geometry,
                seats: &[],
                gating_set: tail_hint,
                write_limit: tail_hint,
                claims: Some(Claims {
                    tail_hint,
                    head_hint,
                    returns,
                    words: &self.words,
                    notes: &self.notes,
                }),
                entries: None,
                rings: None,
            };
            let (mut claims, mut count) = ([None; SLOTS], 0);
            let tally = super::claims(&view, |claim| {
                claims[count] = Some(claim);
                count += 1;
            });
            (claims, count, tally.unwrap_or_default())
        }
    }

    fn claim(role: Role, seat: u64, state: State, position: u64, count: u64) -> Option<Claim> {
        Some(Claim {
            role,
            seat,
            state,
            position,
            count,
            since: None,
            deliveries: 0,
        })
    }

    /// A fresh queue has neither claims nor anything out of the ordinary, and committed messages change nothing.
    #[test]
    fn unclaimed_slots_are_not_told() {
        let memory = Memory::default();
        assert_eq!(memory.look(&GEOMETRY).1, 0);
        memory.set(0, committed(0));
        let (_, count, tally) = memory.look(&GEOMETRY);
        assert_eq!((count, tally), (0, Tally::default()));
    }

    /// Each claim is told with its end, its state, its present position and its length.
    #[test]
    fn claims_name_their_ends() {
        let memory = Memory::default();
        memory.own(0, State::Reserved, 1, 3, 2 * LAP);
        memory.own(5, State::Taken, 2, 2, LAP);
        memory.own(8, State::Held, 0, 1, LAP);
        let (claims, count, _) = memory.look(&GEOMETRY);
        assert_eq!(count, 3);
        assert_eq!(claims[0], claim(Role::Producer, 1, State::Reserved, 18, 3));
        assert_eq!(claims[1], claim(Role::Consumer, 2, State::Taken, 14, 2));
        assert_eq!(claims[2], claim(Role::Consumer, 0, State::Held, 17, 1));
    }

    /// The time is told of held messages alone, the deliveries of all that a consumer has.
    #[test]
    fn notes_are_read_where_they_count() {
        let memory = Memory::default();
        let states = [State::Reserved, State::Taken, State::Held, State::Held];
        for (index, state) in (0..).zip(states) {
            memory.own(index, state, 1, 1, 0);
            memory.note(index, 70 + index as u64, 2);
        }
        memory.note(3, 0, ANEW);
        let (claims, ..) = memory.look(&GEOMETRY);
        let told = claims.map(|claim| claim.map(|claim| (claim.since, claim.deliveries)));
        let expected = [(None, 0), (None, 2), (Some(72), 2), (None, 0)];
        assert_eq!(told[..4], expected.map(Some));
    }

    /// A run that its owner is cutting in two is told once. Its slots that another consumer has taken again are told, too.
    #[test]
    fn cut_runs_are_told_once() {
        let memory = Memory::default();
        memory.own(2, State::Held, 1, 3, LAP);
        memory.own(3, State::Held, 1, 1, LAP);
        memory.own(4, State::Held, 2, 1, LAP);
        memory.own(5, State::Held, 1, 1, LAP);
        let (claims, count, _) = memory.look(&GEOMETRY);
        let counts = claims.map(|claim| claim.map(|claim| (claim.seat, claim.count)));
        assert_eq!(count, 3);
        assert_eq!(counts[..3], [(1, 3), (2, 1), (1, 1)].map(Some));
    }

    #[test]
    fn letters_and_returns_are_counted() {
        let memory = Memory::default();
        for index in [0, 4, 8] {
            memory.set(index, dead_letter(7 * LAP));
        }
        memory.set(3, returned(LAP));
        let (_, count, tally) = memory.look(&GEOMETRY);
        assert_eq!(count, 0);
        let expected = Tally {
            dead_letters: 3,
            returned: 1,
            corrupt: 0,
        };
        assert_eq!(tally, expected);
    }

    /// Impossible words are counted, and possible ones among garbage stay within the geometry's bounds.
    #[test]
    fn garbage_stays_in_bounds() {
        let memory = Memory::default();
        memory.set(0, u64::MAX);
        memory.set(1, 6);
        memory.own(2, State::Held, 3, 1, 0);
        memory.own(3, State::Taken, 2, 8, !(LAP - 1));
        let (claims, count, tally) = memory.look(&GEOMETRY);
        assert_eq!((count, tally.corrupt), (1, 3));
        assert_eq!(claims[0].map(|claim| claim.count), Some(8));
        let mut state = 1_u64;
        for _ in 0..100_000 {
            for word in &memory.words {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                word.store(state.rotate_left(31), Ordering::Relaxed);
            }
            let (claims, count, tally) = memory.look(&GEOMETRY);
            assert!(count as u64 + tally.corrupt <= SLOTS as u64);
            for claim in claims.iter().flatten() {
                let seats = match claim.role {
                    Role::Producer => GEOMETRY.producers,
                    Role::Consumer => GEOMETRY.consumers,
                };
                assert!(claim.seat < seats && (1..=GEOMETRY.capacity).contains(&claim.count));
            }
        }
    }

    /// A view whose words are not as many as the geometry's slots tells nothing.
    #[test]
    fn other_sizes_are_refused() {
        let memory = Memory::default();
        memory.own(0, State::Held, 0, 1, 0);
        let geometry = Geometry {
            capacity: 16,
            ..GEOMETRY
        };
        let (_, count, tally) = memory.look(&geometry);
        assert_eq!((count, tally), (0, Tally::default()));
    }
}

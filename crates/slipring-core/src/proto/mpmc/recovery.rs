//! Finishes with what a seat has in its hands: by its owner, or by whoever recovers the seat.

use super::word::{Place, Queue, State, Word, returned};
use crate::error::Corrupt;
use crate::layout::Role;
use crate::sync::{Ordering, fence};

/// A recoverer tries this often to settle one slot. A queue goes round once for each try: only a stranger who writes the
/// word again and again outlasts it.
const PATIENCE: u32 = 1000;

/// The fate of messages that a consumer had taken when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Another consumer gets them. The default: no message is lost.
    #[default]
    AtLeastOnce,
    /// They are dropped. So no message is delivered twice, unless a live consumer gives it back.
    AtMostOnce,
}

/// Frees what seat `seat` of this side had reserved, or returns what it had taken.
///
/// Both sides are to be woken afterwards. Does again whatever an earlier recoverer, who was killed, has not done.
///
/// # Safety
/// The caller holds the locks of that seat, and so sees all that the last holder stored. No handle uses the seat any more:
/// what such a handle holds would be delivered to another one.
pub unsafe fn recover(
    queue: &Queue<'_>,
    side: Role,
    seat: u64,
    delivery: Delivery,
) -> Result<(), Corrupt> {
    for index in 0..queue.shape.slots {
        settle_run(queue, side, seat, delivery, index, PATIENCE)?;
    }
    if side == Role::Consumer {
        // Even if nothing was found: the last recoverer may have died before it announced what it returned. Release:
        // pairs with the acquire of a look.
        queue.claims.returns.fetch_add(1, Ordering::Release);
    }
    Ok(())
}

/// Settles the run whose head is at `index`, if it is this seat's, in at most this many tries. A word that still names the
/// seat then is corrupt: the seat must not count as recovered.
fn settle_run(
    queue: &Queue<'_>,
    side: Role,
    seat: u64,
    delivery: Delivery,
    index: u64,
    tries: u32,
) -> Result<(), Corrupt> {
    let shape = queue.shape;
    // Each turn after the first follows a producer that has carried the slot a lap further.
    for _ in 0..tries {
        // Relaxed: whoever holds the dead end's locks sees all that it stored.
        let found = queue.word(index).load(Ordering::Relaxed);
        let head = shape.read(found)?;
        let ours = match side {
            Role::Producer => head.state == State::Reserved,
            Role::Consumer => matches!(head.state, State::Taken | State::Held),
        };
        if !ours || head.owner != seat {
            return Ok(());
        }
        let lap = head.lap;
        let first = Place { index, lap };
        for step in (1..head.count).rev() {
            let inner = first.after(step, shape);
            settle_inner(queue, side, seat, delivery, inner)?;
        }
        forget_note(queue, side, delivery, index);
        // Release: the inner words come before. The owner is dead, and we hold its locks: nobody but a producer that
        // carries the slot changes the word.
        let settled = queue.word(index).compare_exchange(
            found,
            settled(queue, side, delivery, first),
            Ordering::Release,
            Ordering::Relaxed,
        );
        if settled.is_ok() {
            return Ok(());
        }
    }
    // Relaxed: for the message.
    let found = queue.word(index).load(Ordering::Relaxed);
    let lap = shape.lap(found);
    Err(Corrupt {
        word: "slot",
        found,
        expected: settled(queue, side, delivery, Place { index, lap }),
    })
}

/// Clears the note of a message that is to be dropped.
fn forget_note(queue: &Queue<'_>, side: Role, delivery: Delivery, index: u64) {
    if side == Role::Consumer && delivery == Delivery::AtMostOnce {
        // Relaxed: the word comes after.
        queue.note(index).again.store(0, Ordering::Relaxed);
    }
}

fn settle_inner(
    queue: &Queue<'_>,
    side: Role,
    seat: u64,
    delivery: Delivery,
    place: Place,
) -> Result<(), Corrupt> {
    // Relaxed: as above.
    let found = queue.word(place.index).load(Ordering::Relaxed);
    let word = queue.shape.read(found)?;
    let unsettled = word.lap == place.lap && unsettled(word, side, seat);
    if unsettled {
        forget_note(queue, side, delivery, place.index);
        // Release: pairs with the acquire of a consumer that looks at all words. It may take a returned message before
        // the head has changed.
        let _ = queue.word(place.index).compare_exchange(
            found,
            settled(queue, side, delivery, place),
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
    Ok(())
}

/// Returns `true` for an inner word of its run's lap that the owner has not finished with.
fn unsettled(word: Word, side: Role, seat: u64) -> bool {
    match (word.state, side) {
        (State::Free | State::Committed, Role::Producer) => true,
        (State::Committed, Role::Consumer) => true,
        (State::Reserved, Role::Producer) | (State::Held, Role::Consumer) => word.owner == seat,
        _ => false,
    }
}

/// Returns the word of a slot that the owner did not live to finish with.
fn settled(queue: &Queue<'_>, side: Role, delivery: Delivery, place: Place) -> u64 {
    match (side, delivery) {
        (Role::Consumer, Delivery::AtLeastOnce) => returned(place.lap),
        _ => queue.shape.next_free(place.lap),
    }
}

/// A run of slots that an end has claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The place of the head.
    pub(super) first: Place,
    pub(super) count: u64,
    /// The state of the head, which names the owner.
    pub(super) state: State,
    pub(super) owner: u64,
}

impl Run {
    /// Finishes with the first `part` slots at once, and then with the others one by one. `part_word` and `rest_word`
    /// give the new word of a slot of a lap.
    ///
    /// The others become runs of their own first, and then the head's run is cut to its part.
    pub(super) fn finish(
        self,
        queue: &Queue<'_>,
        part: u64,
        part_word: impl Fn(u64) -> u64,
        rest_word: impl Fn(u64) -> u64,
    ) {
        let Run { first, count, .. } = self;
        let shape = queue.shape;
        if count > 1 {
            // Release: pairs with the acquire of an end that lags, or has followed a hint. It may meet the inner words
            // alone, which are stored without an order of their own, and pass them.
            fence(Ordering::Release);
            if part < count {
                self.split(queue, part);
            }
        }
        let (front, back) = queue.run(first, part);
        let inner = [front.get(1..).unwrap_or(&[]), back];
        for (words, lap) in inner
            .into_iter()
            .zip([first.lap, first.after(shape.slots, shape).lap])
        {
            let word = part_word(lap);
            // Relaxed: as in `split`.
            words
                .iter()
                .for_each(|slot| slot.store(word, Ordering::Relaxed));
        }
        match part {
            0 => {}
            1 => self.finish_one(queue, first, &part_word),
            // Release: pairs with the acquire of a look: the payload, or our reads, and the inner words come before.
            _ => queue
                .word(first.index)
                .store(part_word(first.lap), Ordering::Release),
        }
        for step in part..count {
            self.finish_one(queue, first.after(step, shape), &rest_word);
        }
    }

    /// Makes the slots from `part` on runs of their own, and then cuts the head's run.
    fn split(self, queue: &Queue<'_>, part: u64) {
        let Run { first, count, .. } = self;
        let shape = queue.shape;
        for step in (1..count).rev().filter(|step| *step >= part) {
            let place = first.after(step, shape);
            let single = shape.owned(self.state, self.owner, 1, place.lap);
            // Relaxed: nobody looks at an inner word before the head has changed.
            queue.word(place.index).store(single, Ordering::Relaxed);
        }
        let cut = shape.owned(self.state, self.owner, part.max(1), first.lap);
        // Release: pairs with the acquire of a walk; the words of the cut-off slots come before.
        queue.word(first.index).store(cut, Ordering::Release);
    }

    /// Finishes with a slot that is a run of its own.
    fn finish_one(self, queue: &Queue<'_>, place: Place, word_of: &impl Fn(u64) -> u64) {
        if self.state == State::Held {
            self.finish_held(queue, place.index, word_of);
        } else {
            // Release: pairs with the acquire of a look: the payload, or our reads, come before.
            queue
                .word(place.index)
                .store(word_of(place.lap), Ordering::Release);
        }
    }

    /// Finishes with a held slot that is a run of its own: a producer that comes round may carry it into the next lap.
    fn finish_held(self, queue: &Queue<'_>, index: u64, word_of: &impl Fn(u64) -> u64) {
        let (word, shape) = (queue.word(index), queue.shape);
        loop {
            // Relaxed: our own word, of which others change only the lap.
            let found = word.load(Ordering::Relaxed);
            let lap = shape.lap(found);
            if found != shape.owned(State::Held, self.owner, 1, lap) {
                // A stranger has written there. The word is not ours any more.
                return;
            }
            // Release: as above.
            let finished =
                word.compare_exchange(found, word_of(lap), Ordering::Release, Ordering::Relaxed);
            if finished.is_ok() {
                return;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, WhenFull};
    use crate::layout::{Claims, Note};
    use crate::spec::Kind;
    use crate::sync::AtomicU64;

    /// A slot that could not be settled is an error, and not a recovered seat. Nothing was changed.
    #[test]
    fn unsettled_slots_are_told() {
        let hints = [(); 3].map(|()| AtomicU64::new(0));
        let words = [(); 5].map(|()| AtomicU64::new(0));
        let notes = [(); 5].map(|()| Note::default());
        let [tail_hint, head_hint, returns] = &hints;
        let geometry = Geometry {
            kind: Kind::Mpmc,
            when_full: WhenFull::Wait,
            capacity: 4,
            slot_size: 8,
            slot_align: 8,
            producers: 1,
            consumers: 2,
            skew: 0,
            pins: 0,
            pool: 0,
            growth: None,
        };
        let claims = Claims {
            tail_hint,
            head_hint,
            returns,
            words: &words,
            notes: &notes,
        };
        let queue = Queue::new(&geometry, claims).unwrap();
        let (side, delivery) = (Role::Consumer, Delivery::AtLeastOnce);
        let held = queue.shape.owned(State::Held, 1, 1, 0);
        words[2].store(held, Ordering::Relaxed);
        let settle = |index, tries| settle_run(&queue, side, 1, delivery, index, tries);
        let told = settle(2, 0).unwrap_err();
        assert_eq!(
            (told.word, told.found, told.expected),
            ("slot", held, returned(0))
        );
        assert_eq!(words[2].load(Ordering::Relaxed), held);
        assert_eq!((settle(2, 1), settle(3, 1)), (Ok(()), Ok(())));
        assert_eq!(words[2].load(Ordering::Relaxed), returned(0));
    }
}

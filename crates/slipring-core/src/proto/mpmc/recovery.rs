//! Gives back what a seat has in its hands.

use super::word::{Place, Queue, State, Word, committed, free, returned};
use crate::error::Corrupt;
use crate::layout::Role;
use crate::sync::Ordering;

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
/// The caller holds the locks of that seat, and no handle uses it any more: what such a handle holds would be
/// delivered to another one.
pub unsafe fn recover(
    queue: &Queue<'_>,
    side: Role,
    seat: u64,
    delivery: Delivery,
) -> Result<(), Corrupt> {
    for index in 0..queue.shape.slots {
        settle_run(queue, side, seat, delivery, index)?;
    }
    if side == Role::Consumer {
        // Even if nothing was found: the last recoverer may have died before it announced what it returned. Release:
        // pairs with the acquire of a look.
        queue.claims.returns.fetch_add(1, Ordering::Release);
    }
    Ok(())
}

/// Settles the run whose head is at `index`, if it is this seat's.
fn settle_run(
    queue: &Queue<'_>,
    side: Role,
    seat: u64,
    delivery: Delivery,
    index: u64,
) -> Result<(), Corrupt> {
    let shape = queue.shape;
    // Acquire: the words of a run that was split come before its head's.
    let found = queue.word(index).load(Ordering::Acquire);
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
    // Release: the inner words come before. The owner is dead, and we hold its locks: the word is still what it was.
    let _ = queue.word(index).compare_exchange(
        found,
        settled(queue, side, delivery, first),
        Ordering::Release,
        Ordering::Relaxed,
    );
    Ok(())
}

fn settle_inner(
    queue: &Queue<'_>,
    side: Role,
    seat: u64,
    delivery: Delivery,
    place: Place,
) -> Result<(), Corrupt> {
    // Acquire: as above.
    let found = queue.word(place.index).load(Ordering::Acquire);
    let word = queue.shape.read(found)?;
    let unsettled = word.lap == place.lap && unsettled(word, side, seat);
    if unsettled {
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
        _ => free(place.lap.wrapping_add(queue.shape.unit)),
    }
}

/// Publishes, releases or gives up a whole run whose head is at `first`: the inner slots, then the head.
pub(super) fn finish_run(
    queue: &Queue<'_>,
    first: Place,
    count: u64,
    word_of: impl Fn(Place) -> u64,
) {
    for step in (0..count).rev() {
        let place = first.after(step, queue.shape);
        let ordering = match step {
            // Release: pairs with the acquire of a look: the payload, or our reads, and the inner words come before.
            0 => Ordering::Release,
            // Relaxed: nobody looks at an inner word before the head has changed.
            _ => Ordering::Relaxed,
        };
        queue.word(place.index).store(word_of(place), ordering);
    }
}

/// Finishes the first `first_part` slots of a run at once, and then the others one by one.
///
/// The others become runs of their own first, and then the head's run is cut to its part.
pub(super) fn finish_in_parts(
    queue: &Queue<'_>,
    run: (Place, u64),
    owned: (State, u64),
    first_part: u64,
    words: (impl Fn(Place) -> u64, impl Fn(Place) -> u64),
) {
    let ((first, count), (state, owner), shape) = (run, owned, queue.shape);
    if first_part < count && count > 1 {
        for step in (1..count).rev().filter(|step| *step >= first_part) {
            let place = first.after(step, shape);
            let single = shape.owned(state, owner, 1, place.lap);
            // Relaxed: nobody looks at an inner word before the head has changed.
            queue.word(place.index).store(single, Ordering::Relaxed);
        }
        let cut = shape.owned(state, owner, first_part.max(1), first.lap);
        // Release: pairs with the acquire of a walk; the words of the cut-off slots come before.
        queue.word(first.index).store(cut, Ordering::Release);
    }
    finish_run(queue, first, first_part, words.0);
    for step in first_part..count {
        let place = first.after(step, shape);
        // Release: pairs with the acquire of a look.
        queue
            .word(place.index)
            .store(words.1(place), Ordering::Release);
    }
}

/// Returns the word of a slot that is handed to the consumers.
pub(super) fn published(place: Place) -> u64 {
    committed(place.lap)
}

/// Returns the word of a slot that is handed to the producers.
pub(super) fn released(queue: &Queue<'_>, place: Place) -> u64 {
    free(place.lap.wrapping_add(queue.shape.unit))
}

//! Reads a topic from outside.
//!
//! An outside reader only loads. The words change meanwhile, so each answer is a hint. Impossible words count as *there is
//! something*: the handle's next call then tells.

use super::word::{Age, Topic};
use crate::cursor;
use crate::geometry::MOST_POOLED;
use crate::layout::Role;
use crate::outside::{Outside, View};
use crate::sync::Ordering;

/// Reads a topic from outside.
pub const OUTSIDE: Outside = Outside {
    has_message: |view, seat| {
        let at = cursor::position(view, seat);
        topic(view).is_none_or(|topic| topic.look(at).1 != Age::Before)
    },
    has_room,
    used: |view| published(view).min(view.geometry.capacity),
    waited_for: |view, seat| {
        let bit = seat.checked_sub(view.geometry.seats_of(Role::Consumer).start);
        // Relaxed: a hint.
        bit.is_some_and(|bit| view.gating_set.load(Ordering::Relaxed) & 1 << bit != 0)
            && pinned_by(view, seat).next().is_some()
    },
    // Relaxed: a figure.
    messages: |view, seat| {
        view.seat(seat)
            .map_or(0, |words| words.counters.messages.load(Ordering::Relaxed))
    },
    progress: |view, role| match role {
        // What consumers let go, and what other producers displaced: the sum changes with each pin and message.
        Role::Producer => {
            let consumers = view.geometry.seats_of(Role::Consumer);
            let pins: u64 = consumers.flat_map(|seat| pinned_by(view, seat)).sum();
            pins.wrapping_add(published(view))
        }
        Role::Consumer => published(view),
    },
};

fn topic<'v>(view: &View<'v>) -> Option<Topic<'v>> {
    view.entries.and_then(Topic::new)
}

/// Returns the number of messages that are published; 0 if the words are impossible.
fn published(view: &View<'_>) -> u64 {
    topic(view).map_or(0, |topic| topic.newest().unwrap_or(0))
}

/// Returns the slots that the consumer in this seat has pinned, by their numbers. Seats are counted with producers first.
pub fn pinned_by<'v>(view: &View<'v>, seat: usize) -> impl Iterator<Item = u64> + 'v {
    let pins = view.seat(seat).and_then(|words| words.pins);
    let words = pins.map_or(&[][..], |pins| &pins.words[..]);
    words.iter().flat_map(|word| {
        // Relaxed: a hint.
        let pins = word.load(Ordering::Relaxed);
        (0..4).filter_map(move |place| (pins >> (16 * place) & 0xffff).checked_sub(1))
    })
}

/// Returns `true` if the producer in this seat may have `room` slots free: those that no entry names and nobody has pinned.
fn has_room(view: &View<'_>, seat: usize, room: u64) -> bool {
    let pool = view.geometry.pool;
    let Some(topic) = topic(view).filter(|_| pool > 0) else {
        return true;
    };
    let entries = topic
        .entries(0)
        .filter_map(|(_, entry)| entry.slot(u64::MAX).ok());
    let consumers = view.geometry.seats_of(Role::Consumer);
    let pinned = consumers.flat_map(|seat| pinned_by(view, seat));
    // Each slot once: messages that can be read may be pinned as well, and by many.
    let mut seen = [0u64; MOST_POOLED.div_ceil(64) as usize];
    let mut taken = 0;
    for slot in entries.chain(pinned) {
        if slot / pool == seat as u64 {
            let (word, bit) = ((slot % pool) as usize / 64, 1 << (slot % pool % 64));
            taken += u64::from(seen[word] & bit == 0);
            seen[word] |= bit;
        }
    }
    taken + room.min(pool) <= pool
}

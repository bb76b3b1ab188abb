//! Inspects a topic: how much was published, which subscribers keep messages from being overwritten, and the memory of its
//! slots.

use std::sync::atomic::Ordering;

use slipring_core::layout::Role;
use slipring_core::outside::View;
use slipring_core::proto::topic::{Topic, pinned_by};

/// The messages that a subscriber keeps from being overwritten. A hint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pins {
    /// The number of the subscriber's seat, counted from zero: [`SeatStat::index`](super::SeatStat::index).
    pub index: usize,
    /// The subscriber's process id, as it wrote it.
    pub pid: u64,
    /// The number of messages: the one that it reads in place, and those that have left its hands.
    pub count: u64,
}

/// The visible contents of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicStat {
    /// The number of messages that were published since the topic was made; `None` if its words are impossible.
    pub published: Option<u64>,
    /// The subscribers that keep messages, in the order of their seats. A dead one keeps them until its seat is repaired or
    /// taken.
    pub pins: Vec<Pins>,
    /// The bytes of memory that the data part has now; `None` where the kernel does not count them by the topic.
    pub backed: Option<u64>,
}

impl TopicStat {
    /// Returns the number of messages that this subscriber keeps.
    pub fn pins_of(&self, index: usize) -> u64 {
        let of_seat = |pins: &&Pins| pins.index == index;
        self.pins.iter().find(of_seat).map_or(0, |pins| pins.count)
    }
}

/// Returns the contents of a topic; `None` for another kind.
pub(super) fn look(view: &View<'_>, backed: Option<u64>) -> Option<TopicStat> {
    let topic = view.entries.and_then(Topic::new)?;
    Some(TopicStat {
        published: topic.newest().ok(),
        pins: pins(view, |_| true),
        backed,
    })
}

/// Returns the subscribers that keep messages in slots that `counts`, in the order of their seats.
pub(crate) fn pins(view: &View<'_>, counts: impl Fn(u64) -> bool) -> Vec<Pins> {
    // Relaxed, both: hints.
    let members = view.gating_set.load(Ordering::Relaxed);
    let pid = |seat: usize| view.seats[seat].line.pid.load(Ordering::Relaxed);
    let seats = view.geometry.seats_of(Role::Consumer).enumerate();
    let kept = seats.filter(|(index, _)| members & 1 << index != 0);
    let kept = kept.map(|(index, seat)| Pins {
        index,
        pid: pid(seat),
        count: pinned_by(view, seat).filter(|slot| counts(*slot)).count() as u64,
    });
    kept.filter(|pins| pins.count > 0).collect()
}

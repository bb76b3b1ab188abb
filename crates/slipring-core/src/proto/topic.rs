//! Many producers and many consumers. Each consumer sees all messages, in one order, and can read any of the last ones.
//! Messages are read in place, whatever their size; nobody waits for anybody.
//!
//! # Guarantees
//! - All messages of all producers have one order of numbers, without gaps. The newest message never goes back.
//! - A message that a consumer has *pinned* stays as it is until the consumer unpins it.
//! - A consumer that reads in order learns exactly how many messages were overwritten before it read them.
//! - A producer waits for nobody while its pool has as many slots as
//!   [`Geometry::pool_of`](crate::layout::Geometry::pool_of) says. Of a smaller pool it may run out (`Full`), if consumers pin
//!   more than it has to spare.
//! - An end that is killed or stopped at any instruction holds up nobody. A killed producer's messages stay readable.
//!
//! # Refuses
//! - More pins of a consumer than the geometry has.
//! - More ends of a side than the channel has seats.
//!
//! # Words
//! Each producer has a *pool* of slots in the data part. The control part has a ring of *entries*, one for each message that
//! can be read, each with the number of a slot. A consumer keeps its pins on its own role page.
//!
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | an entry | producers: a CAS, or a store if there is one producer seat | everybody | release *(publish)* → acquire *(a look)* |
//! | `head` | producers, after their entry | everybody | release *(publish)* → acquire *(newest)* |
//! | a pin | the consumer, before it reads | producers that look for free slots | fences, see below; release *(unpin)* → acquire *(the scan)* |
//! | `gating_set` | consumers, repairers | producers that look for free slots | as the pins |
//! | a slot's header and payload | the producer of that pool | consumers that have pinned it | by the entry's and the pin's pairs |
//!
//! An entry is `lap << 16 | slot + 1`. Message `q` stands in entry `q % R`, in lap `q / R + 1`; 0 means never written. So
//! the same entry never comes again, and whoever loads one knows which message it is of. (There are 2^48 laps. A topic with
//! one entry and 40 million messages a second ends after 81 days.) `head` counts the messages that are
//! published, or is one behind: a producer may be killed between its entry and the head. Whoever looks for the newest looks
//! at the entry of the head as well, and producers help the head along.
//!
//! # Why a pinned message stays
//! A producer writes a slot again only after two things. The message in it was *displaced*: its entry names another. And behind
//! a fence it finds no pin on it:
//!
//! ```text
//! producer                              consumer
//! sees another entry in q's place       pin := the slot that entry q names
//! fence                                 fence
//! looks at all pins                     entry q still the same? then the message stays
//! writes slots without a pin            else unpins, and the message is gone
//! ```
//!
//! One of the two fences is first in their single order. If the consumer's is first, the producer sees the pin. If the
//! producer's is first, the consumer's second look sees the entry that displaced the message, or a later one. (Linux's
//! barrier for other processes cannot stand for the consumer's fence: it may miss a processor, and a torn message is not a
//! late wake-up.)
//!
//! A consumer that joins sets its bit in the gating set before it pins anything, so the producer that sees the pin sees the
//! bit. What a scan has found free stays free, since only its own producer publishes it again. So one scan serves a batch.
//!
//! # Waiting for a slot
//! A producer with a small pool may wait until a slot is free. It is woken by a consumer that unpins, and by another producer
//! whose message displaces one of its own. That one stores its entry and then looks for waiters; the one that waits sets its
//! bit and then looks at the entries (`wait.rs`). A message that displaces one of the same producer wakes no producer.
//!
//! # Death
//! A producer's pool is its own, and what it has in its hands is nobody's. Its successor reads the ring: slots that an entry
//! names hold messages; all others may be written if there is no pin on them. Nothing else needs repair. A dead consumer's
//! pins are cleared by whoever recovers its seat.
//!
//! # Memory of a pool without a producer
//! No entry will ever name a slot again that none names now, until the seat has a producer again. So its memory goes back to
//! the system, unless there is a pin on it: after the entries comes the fence, and then a look at the pins, as above. The
//! producer does that when it leaves, a successor when it takes the seat, and any other producer, when it gives memory
//! back, by taking the locks of vacant seats meanwhile. No word is written for it, so a kill in the middle changes nothing.
//!
//! # Source
//! Pools and pins: hazard pointers, Michael, *Hazard pointers: safe memory reclamation for lock-free objects* (2004). The
//! second look behind a fence is Dekker's pattern, as in `wait.rs`. A head that lags by one, and that everybody helps along:
//! Michael and Scott, *Simple, fast, and practical non-blocking and blocking concurrent queue algorithms* (1996).

mod consumer;
mod outside;
mod owned;
mod pool;
mod producer;
mod sample;
mod watching;
mod word;

use crate::backing::Backing;
use crate::crowd::Crowd;
use crate::layout::{Pins, Side};
use crate::mem::Samples;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

pub use crate::end::Seek;
pub use consumer::Consumer;
pub use outside::{OUTSIDE, pinned_by};
pub use owned::OwnedSample;
pub use pool::PoolSlot;
pub use producer::{Producer, vacate};
pub use sample::Sample;
pub use watching::{Source, Watcher};
pub use word::Topic;

/// The number and the origin of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The message's number, counted from the channel's first.
    pub sequence: u64,
    /// The number of the producer's seat among those of its side.
    pub publisher: u64,
    /// The time of the commit, in nanoseconds of `CLOCK_MONOTONIC`: since boot, without suspended time. 0 if the producer
    /// notes none.
    pub time: u64,
}

/// The memory of a topic's sparse data part.
pub trait PoolBacking: Backing {
    /// Gives back what the pools of seats without a producer hold, but for messages that are needed: see [`vacate`]. Best
    /// effort.
    fn give_back_vacant(&self);
}

/// The shared words of a topic and its slots, as an end sees them.
pub struct Ring<'m, T: ?Sized> {
    /// The head and the entries.
    pub topic: Topic<'m>,
    /// The slots of all producers.
    pub samples: Samples<'m, T>,
    /// The end's number among the seats of its side.
    pub seat: u64,
    /// The end's position, in its role page.
    pub position: &'m AtomicU64,
    /// Counts the messages of the seat's holders, in its role page.
    pub messages: &'m AtomicU64,
    /// The consumers whose pins count.
    pub gating_set: &'m AtomicU64,
    /// Wakes the other side.
    pub notifier: Notifier<'m>,
}

/// The parts of a producer besides the ring.
pub struct Pool<'m> {
    /// A note for each slot of the pool, for this producer alone.
    pub slots: &'m mut [PoolSlot],
    /// The consumers, whose pins it looks at.
    pub consumers: Side<'m>,
    /// Wakes the other producers; `None` if the topic has a single producer seat.
    pub fellows: Option<Notifier<'m>>,
    /// Backs slots with memory; `None` if all of it is there.
    pub backing: Option<&'m dyn PoolBacking>,
    /// Tells the time of each commit, if messages are to have one: see [`Origin::time`].
    pub clock: Option<fn() -> u64>,
}

/// The parts of a consumer besides the ring.
pub struct Keep<'m> {
    /// The consumer's pins, in its role page.
    pub pins: &'m Pins,
    /// The number of pins that it may have.
    pub most: u64,
    /// Knows whether any producer is left.
    pub producers: Crowd<'m>,
    /// Counts the messages that it lost, for tools.
    pub lagged: &'m AtomicU64,
    /// Counts the pins that have left its hands.
    pub handed_out: &'m AtomicU64,
}

/// Removes the consumer with this bit from the gating set, and its pins. The caller is that consumer, or holds its seat's
/// locks.
pub fn let_go(pins: &Pins, gating_set: &AtomicU64, bit: u64) {
    for word in &pins.words {
        // Release: pairs with the acquire of a producer's scan; what was read comes before.
        word.store(0, Ordering::Release);
    }
    leave(gating_set, bit);
}

/// Removes the consumer with this bit from the gating set.
fn leave(gating_set: &AtomicU64, bit: u64) {
    // Release: pairs with the acquire of a producer's scan; that consumer's reads come before our writes.
    gating_set.fetch_and(!bit, Ordering::Release);
}

//! One producer, and every consumer sees all: a ring of fixed-size slots. When it is full, the producer
//! waits for the slowest consumer, or overwrites what that has not read.
//!
//! # Guarantees
//! - *Wait*: what was committed is read by every consumer that had joined, in order, once, whole.
//! - *Overwrite*: a consumer that was overtaken learns how many of its messages it lost, exactly, and goes
//!   on at the oldest plus an eighth of the ring. No value is torn, and none comes twice.
//! - A publish costs the same however many consumers there are, while they keep up: waiting, the producer
//!   looks at each of them once a ring, not once a message. (Held up by one, it looks at that one alone until it
//!   moves, and then at all.)
//! - A producer that was killed has a successor that goes on behind the last committed message; a consumer
//!   that was killed stops gating once its seat is repaired.
//!
//! # Refuses
//! A second producer; more consumers than the channel has seats; `&T` to what may be overwritten.
//!
//! # Words
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `tail` | the producer, at each commit | consumers | release *(commit)* → acquire *(the reader's look)* |
//! | position of a consumer | that consumer | the producer, when its lease is used up | release *(release)* → acquire *(the look at the slowest)* |
//! | `members` | consumers that join and leave; whoever repairs a dead one's seat | the producer | release *(join)* → acquire *(the look at the slowest)* |
//! | `gate` | the producer | consumers that join | two fences, see below |
//! | stamp of a slot (*Overwrite*) | the producer | consumers | release *(stamp)* → acquire *(the reader's look)* |
//!
//! # The gate
//! Plain version: before each commit the producer looks at every member, and waits while one is a whole
//! ring behind. Instead it looks when its lease is used up, and publishes how far it may then go: the
//! *gate*. A consumer that joins in between must not stand where the producer may write:
//!
//! ```text
//! producer                          consumer that joins (or goes back)
//! gate := slowest + capacity        position := where it wants to stand; members |= its bit
//! fence                             fence
//! looks at the members again        loads the gate
//! goes no further than they let it  position := at least gate - capacity
//! ```
//!
//! Of the two fences one is first in their single order: either the producer, looking again, sees the new
//! member, and goes no further than that lets it; or the member sees the gate, and moves up. The producer
//! writes nothing before it has looked again.
//!
//! A gate is never taken back, not by a successor either: what lies before it may have been written without
//! ever being committed, by a reservation that was discarded, or whose producer was killed. Of what that
//! overwrote, nothing but the gate tells. (Who joins may so move further up than it must.)
//!
//! Without members the gate goes on by an eighth of the ring at a time, so that who joins at the oldest
//! finds most of a ring.
//!
//! # Overwriting
//! A seqlock for each slot (`mem/stamped.rs`). Stamped `p`, message `p` is being written, stamped `p + 1`,
//! it is there; so a reader that waits for `p` takes nothing but `p + 1`, knows by a smaller stamp that it
//! has not come, and by a larger one that it is gone. The producer's fence is between the stamp and the
//! words of the payload, the reader's between those and its second look: had it copied a word of a
//! later message, it would see that message's stamp, or a later one.
//!
//! A producer that was killed left stamps behind the tail: its successor takes those that are committed,
//! in order, for its own (batches are not atomic), and goes on behind them.
//!
//! # Source
//! Gating by the slowest reader: Thompson et al., *Disruptor* (2011); its gate at O(1) by Dekker's pattern,
//! as in `wait.rs`. Seqlocks: Boehm, *Can seqlocks get along with programming language memory models?*
//! (2012).

mod reading;
mod watching;
mod writing;

use crate::layout::Side;
use crate::mem::{Slots, Stamped};
use crate::sync::AtomicU64;
use crate::wait::Ringer;

pub use crate::cursor::Look;
pub use reading::{Consumer, Messages, Seat};
pub use watching::Watcher;
pub use writing::{Producer, Reservation};

/// The slots of a channel.
pub enum Store<'m, T> {
    /// Of one that waits: who may read a slot excludes who may write it.
    Plain(Slots<'m, T>),
    /// Of one that overwrites.
    Stamped(Stamped<'m, T>),
}

impl<T> Clone for Store<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Store<'_, T> {}

impl<T: Copy> Store<'_, T> {
    fn capacity(&self) -> u64 {
        match self {
            Store::Plain(slots) => slots.capacity(),
            Store::Stamped(slots) => slots.capacity(),
        }
    }
}

/// The shared words of a channel and its slots, as all ends see them.
pub struct Ring<'m, T> {
    /// All before it is committed.
    pub tail: &'m AtomicU64,
    /// All before it may be written.
    pub gate: &'m AtomicU64,
    /// Whom the producer waits for: a bit a consumer.
    pub members: &'m AtomicU64,
    /// The consumers' seats.
    pub consumers: Side<'m>,
    /// The payloads.
    pub store: Store<'m, T>,
    /// How this end wakes the other.
    pub bell: Ringer<'m>,
}

/// Where a consumer begins, or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Seek {
    /// At the oldest message that is there.
    #[default]
    Oldest,
    /// Behind the newest: at the next that is committed.
    Newest,
    /// At the message with this number, counted from the channel's first; at the oldest if that is gone.
    /// Beyond the newest is an error (`Ahead`).
    To(u64),
}

//! Sends each message of one producer to every consumer, through a ring of fixed-size slots. When
//! the ring is full, the producer waits for the slowest consumer, or overwrites what it has not
//! read.
//!
//! These are two modes, which are types: [`Waiting`] and [`Overwriting`].
//!
//! # Guarantees
//! - *Waiting*: every consumer that had joined reads what was committed, in order, once, whole.
//! - *Overwriting*: a consumer that was overtaken learns exactly how many of its messages it lost. It
//!   goes on at the oldest plus an eighth of the ring. No value is torn, and none comes twice.
//! - A publish costs the same for any number of consumers, while they keep up. A producer that
//!   waits looks at each consumer once a ring, not once a message. (A producer held up by one
//!   consumer looks at that one alone until it moves, and then at all.)
//! - The successor of a killed producer goes on behind the last committed message. The producer
//!   stops waiting for a killed consumer once that consumer's seat is repaired.
//!
//! # Refuses
//! - A second producer.
//! - More consumers than the channel has seats.
//! - `&T` to a slot that may be overwritten.
//!
//! # Words
//! `tail`, the consumers' positions, `gating_set` and `write_limit`, all in messages. `gate.rs` moves
//! them. It explains how a consumer joins while the producer writes, and why that is right.
//!
//! # Overwriting
//! An overwriting producer has no gating set. It raises the write limit as it likes, a *block* at a
//! time. The reader checks afterwards that the limit had not come too far:
//!
//! ```text
//! producer                          reader that copies message p
//! limit := at + block               tail > p? (acquire)
//! fence                             copies the slot
//! writes slots before the limit     fence (acquire)
//! tail := what is committed         p + capacity >= limit? then the copy is whole
//! ```
//!
//! The acquired tail shows that message `p` was written before the copy began. So only later
//! messages of that slot can tear it: `p + capacity`, or one some further rings on. Before the
//! producer writes such a message, it stores a write limit beyond it and passes a fence, which is
//! at least a release fence. Suppose that the copy has a word of that message. Then that fence
//! comes before ours, and the limit's store before our load. Our load then sees that limit or a
//! later one, and limits never decrease. So a limit of at most `p + capacity` shows that no such
//! word was copied.
//!
//! The usual, plain version is a seqlock: a sequence word in each slot. The producer stores it
//! before and after each message, and the reader looks at it before and after each copy. The write
//! limit is one sequence word for a block of slots. It costs a block of the ring, which counts as
//! lost before it is written. It saves two stores a message, and an eighth of a line or a whole
//! one: 12 ns instead of 18 for 64 bytes. A batch is one commit, and slots look the same in either
//! mode.
//!
//! # Source
//! The gate as in `gate.rs`. The fences around the copy are a seqlock's: Boehm, *Can seqlocks get
//! along with programming language memory models?* (2012).

mod mode;
mod reading;
mod watching;
mod writing;

use crate::gate;
use crate::guard;
use crate::layout::Side;
use crate::outside::Outside;
use crate::payload::Payload;
use crate::sync::AtomicU64;
use crate::wait::Notifier;

pub use crate::end::Seek;
pub use crate::gate::{Seat, leave, slowest};
pub use mode::{Mode, Overwriting, Waiting};
pub use reading::Consumer;
pub use watching::Watcher;
pub use writing::Producer;

/// Slots that a producer has reserved.
pub type Reservation<'p, 'm, T, M = Waiting> = guard::Reservation<'p, Producer<'m, T, M>>;

/// Messages that a consumer reads in place.
pub type Messages<'c, 'm, T> = guard::Messages<'c, Consumer<'m, T, Waiting>>;

/// The shared words of a channel and its slots, as all ends see them.
pub struct Ring<'m, T: Payload, M: Mode = Waiting> {
    /// The position before which everything is committed.
    pub tail: &'m AtomicU64,
    /// The position before which the producer may write.
    pub write_limit: &'m AtomicU64,
    /// The consumers that the producer waits for: a bit for each.
    pub gating_set: &'m AtomicU64,
    /// The consumers' seats.
    pub consumers: Side<'m>,
    /// The payloads.
    pub slots: M::Slots<'m, T>,
    /// Counts the messages that this end lost, for tools. A producer loses none.
    pub lagged: &'m AtomicU64,
    /// `true` if this end may store into the payload memory. An end that was handed a sealed
    /// channel may not.
    pub writable: bool,
    /// Wakes the other end.
    pub notifier: Notifier<'m>,
}

/// Returns the number of messages by which an overwriting producer raises the write limit at a
/// time.
///
/// It is an eighth of the ring, so that the rest stays for consumers that are behind. It has a
/// lower bound, so that the limit's line does not move to and fro all the time, and an upper one,
/// since more does not pay.
fn block(capacity: u64) -> u64 {
    (capacity / 8).clamp(16, 256).min(capacity / 2).max(1)
}

/// Returns the position where a reader goes on that was overtaken, if these are the oldest and the newest.
///
/// It is the oldest message plus an eighth of the ring, so that the reader is not overtaken again at
/// once. That holds for a ring of more than 64 slots; of a smaller one the next block is as much or
/// more. The position is not beyond the newest message: a reservation has given up what it
/// overwrites, but its own messages may never come.
fn resume_at(oldest: u64, newest: u64, capacity: u64) -> u64 {
    (oldest + capacity / 8).min(newest)
}

/// Reads a `broadcast` channel from outside.
pub(super) const OUTSIDE: Outside = gate::OUTSIDE;

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
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `tail` | the producer, at each commit | consumers | release *(commit)* → acquire *(the reader's look)* |
//! | a consumer's position | that consumer | the producer, in a look | release *(release)* → acquire *(the slowest)* |
//! | `gating_set` | consumers, repairers | the producer | release *(leave)* → the fence behind the look, see below |
//! | `write_limit` | the producer | consumers that join or copy racing slots | fences, see below |
//!
//! Consumers write `gating_set` when they join and leave. A program that repairs a dead consumer's
//! seat writes it as well. The producer looks when its cached limit is used up.
//!
//! # The write limit
//! Plain version: before each commit the producer looks at every consumer of the gating set, and
//! waits while one is a whole ring behind. Instead it looks only when its cached limit is used up.
//! It then publishes the position that it may reach: the *write limit*. A consumer that joins in
//! between must not stand where the producer may write:
//!
//! ```text
//! producer                          consumer that joins (or goes back)
//! limit := slowest + capacity       position := where it wants to stand; gating set |= its bit
//! fence                             fence
//! looks at the gating set again     loads the limit
//! goes no further than that allows  position := at least limit - capacity
//! ```
//!
//! One of the two fences is first in their single order. Either the producer, looking again, sees
//! the new consumer, and goes no further than that consumer allows. Or the consumer sees the limit,
//! and moves up. The producer writes nothing before it has looked again.
//!
//! The write limit never decreases, not even for a successor. Slots before it may have been written
//! without ever being committed: by a reservation that was discarded, or whose producer was killed.
//! Only the write limit tells what such a reservation overwrote. So a consumer that joins may move
//! further up than it must.
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
//! Gating by the slowest reader: Thompson et al., *Disruptor* (2011); its write limit at O(1) by
//! Dekker's pattern, as in `wait.rs`. The fences around the copy are a seqlock's: Boehm, *Can
//! seqlocks get along with programming language memory models?* (2012).

mod mode;
mod reading;
mod watching;
mod writing;

use crate::cursor::{self, END, LAST, committed};
use crate::error::Corrupt;
use crate::guard;
use crate::layout::{Role, SeatWords, Side, WhenFull};
use crate::outside::{Outside, View};
use crate::payload::Payload;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::wait::Notifier;

pub use crate::end::Seek;
pub use mode::{Mode, Overwriting, Waiting};
pub use reading::{Consumer, Seat};
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

/// Returns the number of the next message, for an end that begins. No message beyond the write
/// limit is committed.
fn first(tail: &AtomicU64, write_limit: &AtomicU64) -> Result<u64, Corrupt> {
    committed(tail, Some(write_limit), LAST)
}

/// Returns the number of the next message, for an end that goes on.
fn newest(tail: &AtomicU64, write_limit: &AtomicU64) -> Result<u64, Corrupt> {
    committed(tail, Some(write_limit), END)
}

/// Returns the oldest message that the producer has not been free to overwrite.
fn oldest(write_limit: &AtomicU64, capacity: u64) -> u64 {
    // Acquire: pairs with the release in `Producer::raise`. A thread that sees a write limit sees a
    // tail that is at most a ring behind it.
    write_limit.load(Ordering::Acquire).saturating_sub(capacity)
}

/// Returns `true` if the copy of message `at`, and of those behind it, is what was committed.
#[inline(always)]
fn whole(write_limit: &AtomicU64, capacity: u64, at: u64) -> bool {
    // Acquire fence: pairs with the fence in `Producer::raise`; see *overwriting*.
    fence(Ordering::Acquire);
    // Relaxed: behind the fence. One comparison checks that the limit is beyond that message, and
    // by at most a ring.
    write_limit.load(Ordering::Relaxed).wrapping_sub(at + 1) < capacity
}

/// Returns the place where a reader must go on, if its next message `at` may be overwritten.
///
/// `at` was committed. The place is the oldest message plus an eighth of the ring, so that the
/// reader is not overtaken again at once. That holds for a ring of more than 64 slots; of a smaller
/// one the next block is as much or more. The place is not beyond the newest message: a reservation
/// has given up what it overwrites, but its own messages may never come.
fn overtaken(
    tail: &AtomicU64,
    write_limit: &AtomicU64,
    capacity: u64,
    at: u64,
) -> Result<Option<u64>, Corrupt> {
    // Acquire: as in `oldest`.
    let found = write_limit.load(Ordering::Acquire);
    let newest = newest(tail, write_limit)?;
    let oldest = found.saturating_sub(capacity);
    let (word, expected) = ("write_limit", newest.saturating_add(capacity));
    if found <= at || oldest > newest {
        return Err(Corrupt {
            word,
            found,
            expected,
        });
    }
    Ok((oldest > at).then(|| (oldest + capacity / 8).min(newest)))
}

/// Removes the consumer with this bit from the gating set. The caller holds its seat's lock.
pub fn leave(gating_set: &AtomicU64, bit: u64) {
    // Release: pairs with the fence in `Producer::raise`. That consumer's reads come before the
    // producer's writes.
    gating_set.fetch_and(!bit, Ordering::Release);
}

/// Returns the slowest consumer of the gating set, and its position.
pub fn slowest(gating_set: &AtomicU64, consumers: Side<'_>) -> Option<(usize, u64)> {
    slowest_of(gating_set, consumers.seats())
}

fn slowest_of(gating_set: &AtomicU64, consumers: &[SeatWords<'_>]) -> Option<(usize, u64)> {
    // Relaxed: a producer that writes where a consumer that left has read looks twice, with a fence
    // in between. It goes no further than the first look allows (`Producer::raise`). For all others
    // this is a hint. For consumers that join, see *the write limit*.
    let gating_set = gating_set.load(Ordering::Relaxed);
    let positions = consumers
        .iter()
        .enumerate()
        .filter(|(seat, _)| gating_set & 1 << seat != 0)
        // Acquire: pairs with the release in `Reader::release`; its reads come before the
        // producer's writes.
        .map(|(seat, words)| (seat, words.position.load(Ordering::Acquire)));
    positions.min_by_key(|(_, position)| *position)
}

/// Reads a `broadcast` channel from outside.
pub(super) const OUTSIDE: Outside = Outside {
    // A consumer that skips messages may be ahead of the tail.
    has_message: |view, seat| cursor::tail(view) > cursor::position(view, seat),
    has_room: |view, _, room| match view.geometry.when_full {
        WhenFull::Overwrite => true,
        WhenFull::Wait => cursor::room_there(view, slowest_in(view), room),
    },
    used: |view| {
        let from = match view.geometry.when_full {
            // Relaxed: only a figure.
            WhenFull::Overwrite => view
                .write_limit
                .load(Ordering::Relaxed)
                .saturating_sub(view.geometry.capacity),
            WhenFull::Wait => slowest_in(view),
        };
        cursor::tail(view)
            .saturating_sub(from)
            .min(view.geometry.capacity)
    },
    waited_for: |view, seat| {
        let bit = seat.checked_sub(view.geometry.seats_of(Role::Consumer).start);
        // Relaxed: a hint.
        bit.is_some_and(|bit| view.gating_set.load(Ordering::Relaxed) & 1 << bit != 0)
    },
    progress: |view, role| match role {
        Role::Producer => slowest_in(view),
        Role::Consumer => cursor::tail(view),
    },
    ..cursor::OUTSIDE
};

/// Returns the position of the slowest consumer that the producer waits for, or `u64::MAX` if there
/// is none.
fn slowest_in(view: &View<'_>) -> u64 {
    let slowest = slowest_of(view.gating_set, view.side(Role::Consumer));
    slowest.map_or(u64::MAX, |(_, position)| position)
}

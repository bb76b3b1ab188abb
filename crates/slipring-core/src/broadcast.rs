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
//! | `members` | consumers that join and leave; whoever repairs a dead one's seat | the producer | release *(leave)* → the fence behind the look at the slowest, see below |
//! | `gate` | the producer | consumers that join; whoever copies what may be overwritten | fences, see below |
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
//! # Overwriting
//! The same, without members: the producer raises the gate as it likes, a *stretch* at a time, and who reads
//! asks afterwards whether it had come too far:
//!
//! ```text
//! producer                          who copies message p
//! gate := at + stretch              tail > p? (acquire)
//! fence                             copies the slot
//! writes slots before the gate      fence (acquire)
//! tail := what is committed         p + capacity >= gate? then the copy is whole
//! ```
//!
//! The tail, acquired, says that message `p` was written before the copy began; so of what may be torn only
//! later messages of that slot are left: `p + capacity`, or some further rings on. Who writes one of those
//! has before, behind the store of a gate beyond it, passed a fence, which is at least a release fence. If
//! the copy has a word of it, that fence comes before ours, and the gate's store before our load, which
//! sees that gate or a later one; and gates are never taken back. So a gate of at most `p + capacity` says
//! that no such word was copied.
//!
//! Plain version, and the usual one: a sequence word in each slot, stored before and after each message and
//! looked at before and after each copy (a seqlock). The gate is one for a stretch of slots. It costs a
//! stretch of the ring, which counts as lost before it is written; and saves two stores and an eighth of a line
//! or a whole one a message: 12 ns instead of 18 for 64 bytes. A batch is one commit, and slots look the same in
//! either mode.
//!
//! # Source
//! Gating by the slowest reader: Thompson et al., *Disruptor* (2011); its gate at O(1) by Dekker's pattern,
//! as in `wait.rs`. The fences around the copy are a seqlock's: Boehm, *Can seqlocks get along with
//! programming language memory models?* (2012).

mod reading;
mod watching;
mod writing;

use core::mem::MaybeUninit;

use crate::cursor::{END, LAST, committed};
use crate::error::Corrupt;
use crate::layout::Side;
use crate::mem::{Few, Racing, Slots};
use crate::sync::{AtomicU64, Ordering, fence};
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
    Racing(Racing<'m, T>),
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
            Store::Racing(slots) => slots.capacity(),
        }
    }

    /// Copies `value` to where the message of `position` lies.
    ///
    /// Plain version: each store's own way. But a value that either of two arms may store is in memory first,
    /// which costs as many stores again (`mem/few.rs`).
    ///
    /// # Safety
    /// Nobody else writes there now; where the slots are plain, nobody reads there either.
    #[inline(always)]
    unsafe fn write(&self, position: u64, value: &T) {
        // SAFETY: the caller's promise; slots that race are accessed by words.
        if let Some(few) = unsafe { self.few(position) } {
            few.store(value);
            return;
        }
        match self {
            // SAFETY: the caller's promise.
            Store::Plain(slots) => unsafe { slots.write(position, *value) },
            Store::Racing(slots) => slots.store(position, value),
        }
    }

    /// Copies the message of `position` to `value`, all of its bytes: rubbish, if it is written meanwhile.
    ///
    /// # Safety
    /// Where the slots are plain, nobody writes there now.
    #[inline(always)]
    unsafe fn read(&self, position: u64, value: &mut MaybeUninit<T>) {
        // SAFETY: the caller's promise; slots that race are accessed by words.
        if let Some(few) = unsafe { self.few(position) } {
            *value = few.load();
            return;
        }
        match self {
            Store::Plain(slots) => {
                // SAFETY: the caller's promise.
                value.write(unsafe { slots.read(position) });
            }
            Store::Racing(slots) => slots.load(position, value),
        }
    }

    /// Hands back `count` messages from `position` on, of which every `stride`th is ours; see `hand_back.rs`.
    ///
    /// # Safety
    /// They were read, and not released yet; and slots may be written, and not only read.
    #[inline]
    unsafe fn hand_back(&self, position: u64, count: u64, stride: u64) {
        match self {
            // SAFETY: the caller's promise; nobody writes there until we release it.
            Store::Plain(slots) if stride == 1 => unsafe {
                slots.hand_back(position, count as usize)
            },
            Store::Plain(slots) => (0..count).for_each(|i| {
                // SAFETY: as above.
                unsafe { slots.hand_back(position + i * stride, 1) }
            }),
            Store::Racing(slots) => (0..count).for_each(|i| {
                // SAFETY: the caller's promise.
                unsafe { slots.hand_back(position + i * stride) }
            }),
        }
    }

    /// The payload of `position`, if it is a few words.
    ///
    /// # Safety
    /// As for what is done with it: `write` or `read`.
    #[inline(always)]
    unsafe fn few(&self, position: u64) -> Option<Few<'_, T>> {
        match self {
            // SAFETY: the caller's promise.
            Store::Plain(slots) => unsafe { slots.few(position) },
            Store::Racing(slots) => slots.few(position),
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
    /// Whether this end may store where payloads lie (who was handed a sealed channel may not).
    pub writable: bool,
    /// How this end wakes the other.
    pub bell: Ringer<'m>,
}

/// Where a consumer begins, or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Seek {
    /// At the oldest message that is there.
    Oldest,
    /// Behind the newest: at the next that is committed. Where nobody says anything else.
    #[default]
    Newest,
    /// At the message with this number, counted from the channel's first; if that is gone, at the oldest, or, where
    /// the channel overwrites, where the next call's `Lagged` leads.
    /// Beyond the newest is an error (`Ahead`).
    To(u64),
}

/// How far, in messages, a producer that waits for nobody raises the gate at a time: an eighth of the ring, so
/// that the rest is there for who is behind; but not so little that the gate's line goes to and fro all the
/// time, nor more than pays.
fn stretch(capacity: u64) -> u64 {
    (capacity / 8).clamp(16, 256).min(capacity / 2).max(1)
}

/// The number of the next message to come, for who begins; none is committed beyond the gate.
fn first(tail: &AtomicU64, gate: &AtomicU64) -> Result<u64, Corrupt> {
    committed(tail, Some(gate), LAST)
}

/// The same, for who goes on.
fn newest(tail: &AtomicU64, gate: &AtomicU64) -> Result<u64, Corrupt> {
    committed(tail, Some(gate), END)
}

/// The oldest message that the producer has not been free to overwrite.
fn oldest(gate: &AtomicU64, capacity: u64) -> u64 {
    // Acquire: pairs with the release in `Producer::raise`: who sees a gate sees a tail that is at most
    // a ring behind.
    gate.load(Ordering::Acquire).saturating_sub(capacity)
}

/// Whether what was copied of message `at`, and of those behind it, is what was committed.
#[inline(always)]
fn whole(gate: &AtomicU64, capacity: u64, at: u64) -> bool {
    // Acquire fence: pairs with the fence in `Producer::raise`; see *overwriting*.
    fence(Ordering::Acquire);
    // Relaxed: behind the fence. Beyond that message, and at most a ring; in one comparison.
    gate.load(Ordering::Relaxed).wrapping_sub(at + 1) < capacity
}

/// Where somebody must go on whose next message is `at`, which was committed, if it may be overwritten: beyond
/// the oldest by an eighth of the ring, so as not to be overtaken again at once (in a ring of more than 64 slots:
/// of a smaller one the next stretch is as much or more); not beyond the newest, since
/// what a reservation has given up is gone, and what it may bring is not.
fn overtaken(
    tail: &AtomicU64,
    gate: &AtomicU64,
    capacity: u64,
    at: u64,
) -> Result<Option<u64>, Corrupt> {
    // Acquire: as in `oldest`.
    let found = gate.load(Ordering::Acquire);
    let newest = newest(tail, gate)?;
    let oldest = found.saturating_sub(capacity);
    let (word, expected) = ("gate", newest.saturating_add(capacity));
    if found <= at || oldest > newest {
        return Err(Corrupt {
            word,
            found,
            expected,
        });
    }
    Ok((oldest > at).then(|| (oldest + capacity / 8).min(newest)))
}

/// From now on nobody waits for the consumer with this bit. The caller holds its seat's lock.
pub fn leave(members: &AtomicU64, bit: u64) {
    // Release: pairs with the fence in `Producer::raise`; that consumer's reads come before the producer's writes.
    members.fetch_and(!bit, Ordering::Release);
}

/// Which member is the slowest, and where it stands.
pub fn slowest(members: &AtomicU64, consumers: Side<'_>) -> Option<(usize, u64)> {
    // Relaxed: who writes where one that left has read looks twice, with a fence in between, and goes no further
    // than the first look lets it (`Producer::raise`). For all others it is a hint. For who joins see the gate.
    let members = members.load(Ordering::Relaxed);
    let seats = consumers.seats().iter().enumerate();
    let positions = seats
        .filter(|(seat, _)| members & 1 << seat != 0)
        // Acquire: pairs with the release in `Reader::release`; its reads come before the producer's writes.
        .map(|(seat, words)| (seat, words.position.load(Ordering::Acquire)));
    positions.min_by_key(|(_, position)| *position)
}

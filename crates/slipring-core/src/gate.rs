//! Lets one producer send to consumers that come and go: the gating set, the write limit, and a
//! consumer's place. Every kind in which each consumer sees all messages of one ring uses it.
//!
//! The protocols know what lies at the positions: slots, or bytes.
//!
//! # Guarantees
//! - A producer that waits never writes what a consumer of the gating set has not released.
//! - A look at the consumers costs a load for each of them. The producer looks only when its cached
//!   limit is used up.
//! - A consumer that joins or goes back stands at a position that is not written any more while it
//!   stands there.
//!
//! # Refuses
//! To keep anything for consumers that are not there.
//!
//! # Words
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `tail` | the producer, at each commit | consumers | release *(commit)* → acquire *(the reader's look)* |
//! | a consumer's position | that consumer | the producer, in a look | release *(release)* → acquire *(the slowest)* |
//! | `gating_set` | consumers, repairers | the producer | release *(leave)* → acquire *(the slowest)*; fences, see below |
//! | `write_limit` | the producer | consumers that join or copy racing slots | fences, see below |
//!
//! Consumers write `gating_set` when they join and leave. A program that repairs a dead consumer's
//! seat writes it as well.
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
//! # Source
//! Gating by the slowest reader: Thompson et al., *Disruptor* (2011); its write limit at O(1) by
//! Dekker's pattern, as in `wait.rs`.

pub(crate) mod watching;

use crate::backoff::Backoff;
use crate::cached_limit::CachedLimit;
use crate::crowd::all_left;
use crate::cursor::{self, END, LAST, committed};
use crate::end::Poll;
use crate::error::{Corrupt, End, Error};
use crate::layout::{Role, SeatWords, Side, WhenFull};
use crate::outside::{Outside, View};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::wait::Notifier;

/// Returns the position at which an end begins. Nothing beyond the write limit is committed.
pub(crate) fn first(tail: &AtomicU64, write_limit: &AtomicU64) -> Result<u64, Corrupt> {
    committed(tail, Some(write_limit), LAST)
}

/// Returns the position of the next message, for an end that goes on.
pub(crate) fn newest(tail: &AtomicU64, write_limit: &AtomicU64) -> Result<u64, Corrupt> {
    committed(tail, Some(write_limit), END)
}

/// Returns the oldest position that the producer has not been free to overwrite.
pub(crate) fn oldest(write_limit: &AtomicU64, capacity: u64) -> u64 {
    // Acquire: pairs with the release in `Gate::raise`. A thread that sees a write limit sees a
    // tail that is at most a ring behind it.
    write_limit.load(Ordering::Acquire).saturating_sub(capacity)
}

/// Returns the oldest position that may still be whole and the newest, if what lies at `at` may be overwritten.
///
/// `at` was committed.
pub(crate) fn overtaken(
    tail: &AtomicU64,
    write_limit: &AtomicU64,
    capacity: u64,
    at: u64,
) -> Result<Option<(u64, u64)>, Corrupt> {
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
    Ok((oldest > at).then_some((oldest, newest)))
}

/// Returns `true` if a copy of what was committed at `at`, and of what lies behind it, is whole.
#[inline(always)]
pub(crate) fn whole(write_limit: &AtomicU64, capacity: u64, at: u64) -> bool {
    // Acquire fence: pairs with the fence in `Gate::raise`; see *overwriting* in `broadcast.rs`.
    fence(Ordering::Acquire);
    // Relaxed: behind the fence. One comparison checks that the limit is beyond that position, and
    // by at most a ring.
    write_limit.load(Ordering::Relaxed).wrapping_sub(at + 1) < capacity
}

/// Removes the consumer with this bit from the gating set. The caller holds its seat's lock.
pub fn leave(gating_set: &AtomicU64, bit: u64) {
    // Release: pairs with the acquire in `slowest_of`. That consumer's reads come before the
    // producer's writes.
    gating_set.fetch_and(!bit, Ordering::Release);
}

/// Returns the slowest consumer of the gating set, and its position.
pub fn slowest(gating_set: &AtomicU64, consumers: Side<'_>) -> Option<(usize, u64)> {
    slowest_of(gating_set, consumers.seats())
}

fn slowest_of(gating_set: &AtomicU64, consumers: &[SeatWords<'_>]) -> Option<(usize, u64)> {
    // Acquire: pairs with the release in `leave`; the reads of a consumer that left come before the
    // producer's writes. It may have joined and left between the producer's two looks. For
    // consumers that join, see *the write limit*.
    let gating_set = gating_set.load(Ordering::Acquire);
    let positions = consumers
        .iter()
        .enumerate()
        .filter(|(seat, _)| gating_set & 1 << seat != 0)
        // Acquire: pairs with the release in `Reader::release`; its reads come before the
        // producer's writes.
        .map(|(seat, words)| (seat, words.position.load(Ordering::Acquire)));
    positions.min_by_key(|(_, position)| *position)
}

/// The shared words of a ring with one producer and many consumers, and its shape.
pub(crate) struct Words<'m> {
    pub(crate) tail: &'m AtomicU64,
    pub(crate) write_limit: &'m AtomicU64,
    pub(crate) gating_set: &'m AtomicU64,
    pub(crate) consumers: Side<'m>,
    pub(crate) notifier: Notifier<'m>,
    /// The size of the ring.
    pub(crate) capacity: u64,
    /// Every position is a multiple of this power of two.
    pub(crate) unit: u64,
    /// `true` if the producer waits for nobody.
    pub(crate) overwrites: bool,
}

/// The writing side. It may fill the positions from `at` on, as far as the consumers let it.
pub(crate) struct Gate<'m> {
    words: Words<'m>,
    /// Our own position; `tail` is its published copy.
    at: u64,
    /// The highest write limit that was ever published, by all producers.
    published: u64,
    /// The position that `at` may reach before we must look at the gating set again.
    limit: &'m CachedLimit,
    backoff: Backoff,
    /// The consumer that held us back when we last looked, and its position then.
    held_by: Option<(usize, u64)>,
    /// `true` if a call fails once the last consumer has left.
    fails_alone: bool,
}

impl<'m> Gate<'m> {
    /// Takes the writing side, going on behind what was committed last.
    pub(crate) fn new(words: Words<'m>, limit: &'m mut CachedLimit) -> Result<Self, Error> {
        // Behind all that the last producer did.
        let at = first(words.tail, words.write_limit)?;
        aligned("tail", at, words.unit)?;
        // Nothing is known of the gating set, and a write limit counts only after a second look at
        // it. But the last producer may have written before that limit. (Relaxed: the seat has
        // brought all that the last producer did.)
        let published = words.write_limit.load(Ordering::Relaxed);
        let published = published.min(at + words.capacity);
        aligned("write_limit", published, words.unit)?;
        limit.set(at);
        Ok(Gate {
            published,
            words,
            at,
            limit,
            backoff: Backoff::default(),
            held_by: None,
            fails_alone: false,
        })
    }

    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Returns the size of the ring.
    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.words.capacity
    }

    /// Returns `true` if this is the handle that took the seat, and not a forked copy.
    #[inline]
    pub(crate) fn ours(&self) -> bool {
        self.limit.alive()
    }

    /// Returns the amount that is known to be free, without a look at the gating set.
    #[inline]
    pub(crate) fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.at)
    }

    /// Returns the highest write limit that was ever published.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// Makes calls fail once the last consumer has left.
    pub(crate) fn fail_alone(&mut self, on: bool) {
        self.fails_alone = on;
        if self.limit.alive() {
            self.limit.set(self.at);
        }
    }

    /// Ends a step: while it is to fail alone, the next one asks again.
    #[inline]
    pub(crate) fn end_step(&self) {
        if self.fails_alone {
            self.limit.set(self.at);
        }
    }

    /// Returns `true` if a call is to fail since no consumer is left.
    pub(crate) fn left_alone(&self) -> bool {
        self.fails_alone && all_left(self.words.consumers.seats())
    }

    /// Checks if `wanted` is free.
    ///
    /// `message` is the size of a single message, near enough to tell one from several. `unheld`
    /// returns the write limit to publish if the gating set is empty: see [`raise`](Self::raise).
    #[inline]
    pub(crate) fn poll(
        &mut self,
        wanted: u64,
        message: u64,
        unheld: impl FnOnce(&Self) -> u64,
    ) -> Poll {
        if self.known() >= wanted {
            Poll::Ready
        } else {
            self.look(wanted, message, unheld)
        }
    }

    /// Looks at the positions of the gating set. This is the rare case.
    #[cold]
    #[inline(never)]
    fn look(&mut self, wanted: u64, message: u64, unheld: impl FnOnce(&Self) -> u64) -> Poll {
        let capacity = self.words.capacity;
        if !self.limit.alive() || wanted > capacity || self.left_alone() {
            return Poll::Unclear;
        }
        if self.words.overwrites {
            self.raise(wanted, unheld);
            return Poll::Ready;
        }
        self.backoff.pause();
        if self.still_held() {
            self.backoff.found(0, message, capacity);
            return Poll::NotReady;
        }
        let before = self.known();
        self.raise(wanted, unheld);
        if self.check_slowest().is_err() {
            return Poll::Unclear;
        }
        // The amount is lower than before if a consumer joined further behind.
        let gained = self.known().saturating_sub(before);
        self.backoff.found(gained, message, capacity);
        if self.known() >= wanted {
            Poll::Ready
        } else {
            Poll::NotReady
        }
    }

    /// Decides a look that ended in [`Poll::Unclear`].
    #[cold]
    #[inline(never)]
    pub(crate) fn slow_path(
        &mut self,
        wanted: u64,
        message: u64,
        unheld: impl FnOnce(&Self) -> u64,
    ) -> Result<(), Error> {
        let max = self.words.capacity;
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if wanted > max {
            return Err(Error::TooLarge { asked: wanted, max });
        }
        // A consumer may have come since the poll.
        match self.look(wanted, message, unheld) {
            Poll::Ready => Ok(()),
            Poll::NotReady => Err(Error::Full),
            Poll::Unclear => {
                self.check_slowest()?;
                Err(Error::Disconnected(End::Finished))
            }
        }
    }

    /// Fails if the position that holds the producer back cannot be one.
    fn check_slowest(&self) -> Result<(), Corrupt> {
        // Of slots, any position can be one.
        match self.words.unit {
            1 => Ok(()),
            unit => aligned("position", self.slowest().map_or(0, |(_, at)| at), unit),
        }
    }

    /// Returns `true` if the consumer that held us back last time still does.
    ///
    /// Then we need not look at the others, nor take their lines from them.
    fn still_held(&self) -> bool {
        let Some((seat, position)) = self.held_by else {
            return false;
        };
        // Relaxed, both: a hint; it leads either to no look, or to a look at all.
        let words = self.words.consumers.seats().get(seat);
        self.words.gating_set.load(Ordering::Relaxed) & 1 << seat != 0
            && words.is_some_and(|words| words.position.load(Ordering::Relaxed) == position)
    }

    /// Raises the write limit as far as the slowest consumer of the gating set allows.
    ///
    /// If the gating set is empty, `unheld` returns the new limit: from `at + wanted` to
    /// `at + capacity`, but not below the one that is published.
    pub(crate) fn raise(&mut self, wanted: u64, unheld: impl FnOnce(&Self) -> u64) {
        let capacity = self.words.capacity;
        let slowest = self.slowest();
        self.held_by = None;
        if let Some((_, position)) = slowest
            && position & (self.words.unit - 1) != 0
        {
            // No position: `look` reports it. No consumer that joins may be led there.
            return;
        }
        let write_limit = match slowest {
            Some((_, slowest)) => slowest.saturating_add(capacity),
            None => unheld(self),
        };
        if write_limit <= self.limit.get().max(self.at) {
            self.held_by = slowest;
            return;
        }
        self.published = self.published.max(write_limit);
        // Release: pairs with the acquire in `oldest`; our tail comes before.
        self.words
            .write_limit
            .store(self.published, Ordering::Release);
        // SeqCst: pairs with the fence in `Seat::stand`; see *the write limit*. For readers that
        // copy what may be overwritten, it is a release fence: see *overwriting* in `broadcast.rs`.
        fence(Ordering::SeqCst);
        // A consumer that leaves only now was in the gating set at the first look. The limit is no
        // further than that consumer allowed.
        let again = self.slowest();
        let again = again.map_or(write_limit, |(_, slowest)| slowest.saturating_add(capacity));
        let limit = write_limit.min(again).max(self.at);
        self.limit.set(match self.fails_alone {
            // Each step looks again.
            true => limit.min(self.at + wanted),
            false => limit,
        });
    }

    /// Returns the slowest consumer of the gating set, and its position; `None` if we overwrite.
    ///
    /// The position is at most ours, since a consumer that skips may be ahead.
    fn slowest(&self) -> Option<(usize, u64)> {
        if self.words.overwrites {
            return None;
        }
        let (seat, position) = slowest(self.words.gating_set, self.words.consumers)?;
        Some((seat, position.min(self.at)))
    }

    /// *Commit*: publishes everything up to the new tail to all consumers.
    #[inline]
    pub(crate) fn commit(&mut self, amount: u64) {
        self.at += amount;
        // Release: pairs with the acquire in `committed`; what was written comes before it.
        self.words.tail.store(self.at, Ordering::Release);
        self.words.notifier.ring();
    }

    /// Returns the distance of the slowest consumer that the producer waits for; 0 if it waits for
    /// none.
    pub(crate) fn len(&self) -> Result<u64, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let slowest = self.slowest().map_or(self.at, |(_, position)| position);
        // The position is another process's hint, so the distance is capped at the capacity.
        Ok((self.at - slowest).min(self.words.capacity))
    }
}

/// Fails unless `found` is a multiple of `unit`.
pub(crate) fn aligned(word: &'static str, found: u64, unit: u64) -> Result<(), Corrupt> {
    match found & (unit - 1) {
        0 => Ok(()),
        odd => Err(Corrupt {
            word,
            found,
            expected: found - odd,
        }),
    }
}

/// The words by which a consumer stands somewhere in the ring.
///
/// It joins with them, and its place is cleared with them when it left or died.
#[derive(Clone, Copy)]
pub struct Seat<'m> {
    /// The consumer's position, in its role page.
    pub position: &'m AtomicU64,
    /// The producer's write limit.
    pub write_limit: &'m AtomicU64,
    /// The consumers that the producer waits for.
    pub gating_set: &'m AtomicU64,
    /// The consumer's bit in `gating_set`. An overwriting channel does not use it.
    pub bit: u64,
    /// The size of the ring.
    pub capacity: u64,
}

impl Seat<'_> {
    /// Stands at `wanted`, or at the oldest safe position if that is further on, and returns the
    /// place. From then on the producer waits for it.
    pub(crate) fn stand(&self, wanted: u64) -> u64 {
        let first = wanted.max(self.floor());
        // Release: this releases the messages that it passes over.
        self.position.store(first, Ordering::Release);
        // Relaxed: before the fence, like the position. A producer may see the bit alone, and a
        // position of this seat's last holder; it looks again behind its fence.
        self.gating_set.fetch_or(self.bit, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `Gate::raise`; see *the write limit*.
        fence(Ordering::SeqCst);
        let then = first.max(self.floor());
        if then != first {
            // Relaxed: we had released the messages that this passes over. Otherwise there would be
            // no such limit.
            self.position.store(then, Ordering::Relaxed);
        }
        then
    }

    /// Returns the oldest position that the producer has not been free to overwrite.
    pub(crate) fn floor(&self) -> u64 {
        oldest(self.write_limit, self.capacity)
    }

    /// Fails if a consumer that is waited for cannot stand at `at`, where the write limit has led
    /// it.
    pub(crate) fn check(&self, tail: &AtomicU64, at: u64, unit: u64) -> Result<(), Error> {
        // Relaxed: nothing is read that this orders. A thread that acquired the write limit sees no
        // tail from before it, and the limit is at most a ring ahead of that tail.
        let newest = tail.load(Ordering::Relaxed);
        let [found, expected] = [at, newest].map(|at| at.saturating_add(self.capacity));
        if at > newest {
            let word = "write_limit";
            return Err(Error::Corrupt(Corrupt {
                word,
                found,
                expected,
            }));
        }
        Ok(aligned("write_limit", found, unit)?)
    }

    /// Removes this seat from the gating set. The caller holds the seat's lock.
    pub fn leave(&self) {
        leave(self.gating_set, self.bit);
    }
}

/// Reads a ring with one producer and many consumers from outside.
pub(crate) const OUTSIDE: Outside = Outside {
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

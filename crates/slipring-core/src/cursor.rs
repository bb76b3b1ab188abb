//! Moves the positions of a ring's two ends: which end may touch which part, and how each side
//! learns the other's position.
//!
//! `spsc` counts slots with it, and `bytes` counts bytes. The memory's contents are their business.
//!
//! # Words
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `tail` | the writer, at each commit | the reader | release *(commit)* → acquire *(the reader's look)* |
//! | `head` | the reader, at each release | the writer, if maybe full | release *(release)* → acquire *(its look)* |
//! | memory | the writer, in `[tail, head + capacity)` | the reader, in `[head, tail)` | by the two pairs above |
//!
//! # Why it is right
//! *Commit*: the writer writes memory before it releases `tail`, and the reader reads it only after
//! it acquired a `tail` beyond it. So the reader sees what was written, and never what lay there
//! before. *Release*: the reader reads memory before it releases `head`, and the writer writes it
//! again only after it acquired that `head`.
//!
//! Each side owns its own position, as a private copy that it never reads back. It keeps what it
//! knows of the other's position in its [`CachedLimit`]: the position that it may reach before it
//! must reload the other's. It reloads only when the cached limit means *possibly full* or
//! *possibly empty*. The answer then is exact, since both positions are published at every step.
//!
//! # Source
//! Lamport, *Proving the correctness of multiprocess programs* (1977). Private copies of the other
//! side's position as in Lee et al., *MCRingBuffer* (2010), though every commit is published.

mod growing;
mod reader;

use crate::backoff::Backoff;
use crate::cached_limit::CachedLimit;
use crate::end::Poll;
use crate::error::{Corrupt, Error};
use crate::layout::Role;
use crate::mem::RingMemory;
use crate::outside::{Outside, View};
use crate::rings::{Opener, Rings, Sizer, Sizing};
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

pub(crate) use reader::Reader;

/// The last position at which a handle may start. Beyond it a handle would soon wrap.
///
/// At 10^9 messages a second it is 584 years away.
pub(crate) const LAST: u64 = u64::MAX - (1 << 48);

/// The last possible position. A reader that skips may add to it without wrapping.
pub(crate) const END: u64 = u64::MAX - (1 << 47);

/// A producer that is to shrink its ring looks this often while the ring goes round once.
const LOOKS: u64 = 64;

/// Returns the writer's position, and makes visible all that the writer wrote before it.
///
/// Fails if the position is beyond `most`, or beyond the write limit.
#[inline]
pub(crate) fn committed(
    tail: &AtomicU64,
    write_limit: Option<&AtomicU64>,
    most: u64,
) -> Result<u64, Corrupt> {
    // Acquire: pairs with the release in `Writer::commit`, and in broadcast's. A caller may act on
    // the messages that it counts.
    let found = tail.load(Ordering::Acquire);
    // Relaxed: this comes after the load of the tail. The producer stored that tail after a write
    // limit that is not below it.
    let expected = write_limit.map_or(most, |write_limit| {
        write_limit.load(Ordering::Relaxed).min(most)
    });
    if found > expected {
        let word = "tail";
        return Err(Corrupt {
            word,
            found,
            expected,
        });
    }
    Ok(found)
}

/// Reads a ring with one writer and one reader from outside.
///
/// Loads are relaxed unless a comment says otherwise: nothing is read that they order. A handle
/// looks again, with its own acquire, and sees at least this.
pub(crate) const OUTSIDE: Outside = Outside {
    // Any state but *empty* means a message, or something impossible.
    has_message: |view, _| tail(view) != head(view) || view.has_old_rings(),
    has_room: |view, _, room| {
        // Acquire: pairs with the release in `Reader::release`. The reader's word comes first. In
        // the other order the writer's position could appear behind it, which is impossible
        // otherwise.
        let head = view.first_position(Role::Consumer);
        room_there(view, head, room)
    },
    used: |view| {
        let head = view.first_position(Role::Consumer);
        tail(view).saturating_sub(head).min(view.longest())
    },
    waited_for: |view, seat| view.geometry.role_of(seat) == Role::Consumer,
    messages: |view, seat| position(view, seat),
    progress: |view, role| match role {
        Role::Producer => head(view),
        Role::Consumer => tail(view),
    },
};

/// Returns `true` if a writer with this head before it finds `room`, or something impossible.
pub(crate) fn room_there(view: &View<'_>, head: u64, room: u64) -> bool {
    let (capacity, step) = (view.capacity(), view.geometry.kind.spec().step);
    // A reader that skips messages may be ahead of the tail, and a garbage position may be
    // anywhere.
    let used = tail(view).saturating_sub(head);
    used > view.longest()
        || used & (step - 1) != 0
        || capacity.saturating_sub(used) >= room.min(capacity)
}

/// Returns the position of seat `seat`.
pub(crate) fn position(view: &View<'_>, seat: usize) -> u64 {
    let words = view.seat(seat);
    words.map_or(0, |words| words.position.load(Ordering::Relaxed))
}

/// Returns the writer's position.
pub(crate) fn tail(view: &View<'_>) -> u64 {
    position(view, view.geometry.seats_of(Role::Producer).start)
}

fn head(view: &View<'_>) -> u64 {
    position(view, view.geometry.seats_of(Role::Consumer).start)
}

/// The words that both ends share, and the rules by which positions count.
pub(crate) struct Words<'m> {
    pub(crate) tail: &'m AtomicU64,
    pub(crate) head: &'m AtomicU64,
    /// The size of the ring.
    pub(crate) capacity: u64,
    /// The most that the tail may be ahead of the head.
    pub(crate) most: u64,
    /// The word with the position before which the writer may write, if there is one. Every commit
    /// stays within it.
    pub(crate) write_limit: Option<&'m AtomicU64>,
    /// `true` if this end may store into the payload memory.
    pub(crate) writable: bool,
    /// Every position is a multiple of this power of two.
    pub(crate) unit: u64,
    /// The most that the head may be ahead of the tail, for a reader that skips messages.
    pub(crate) ahead: u64,
    /// The rings of a channel that can grow.
    pub(crate) rings: Option<&'m Rings<'m>>,
}

impl Words<'_> {
    /// Returns the distance by which `tail` is ahead of `head`.
    ///
    /// One of the two is ours. The other, `found`, is a hint: loaded once, checked here, and used
    /// only as the checked local copy.
    #[inline]
    fn distance(
        &self,
        head: u64,
        tail: u64,
        word: &'static str,
        found: u64,
    ) -> Result<u64, Corrupt> {
        self.distance_within(self.most, head, tail, word, found)
    }

    /// Returns the same, if it is at most `most`.
    #[inline]
    fn distance_within(
        &self,
        most: u64,
        head: u64,
        tail: u64,
        word: &'static str,
        found: u64,
    ) -> Result<u64, Corrupt> {
        // Checked: positions never wrap. So a head beyond the tail is garbage at any distance,
        // except for a reader that skips.
        if let Some(ahead) = tail.checked_sub(head)
            && ahead <= most
            && ahead & (self.unit - 1) == 0
        {
            return Ok(ahead);
        }
        if head > tail && head - tail <= self.ahead {
            return Ok(0);
        }
        let expected = if found == tail {
            head.saturating_add(most)
        } else {
            tail
        };
        Err(Corrupt {
            word,
            found,
            expected,
        })
    }

    /// Returns the writer's position, and makes visible all that the writer wrote before it.
    fn committed(&self) -> Result<u64, Corrupt> {
        committed(self.tail, self.write_limit, END)
    }

    /// Returns the positions at which a new writer and a new reader go on, if both words are
    /// possible.
    fn resume(&self) -> Result<(u64, u64), Error> {
        // Acquire: pairs with the release of the reader. A tail loaded after this head is not
        // behind it, and the writer goes as far as this head lets it.
        let head = self.head.load(Ordering::Acquire);
        // Relaxed: a writer's own tail comes with its seat's lock, and so does all that was written
        // before it. A reader loads it again, with an acquire, before it reads.
        let tail = self.tail.load(Ordering::Relaxed);
        if head > LAST || head & (self.unit - 1) != 0 {
            return Err(Corrupt {
                word: "head",
                found: head,
                expected: LAST,
            }
            .into());
        }
        self.distance_within(self.longest(), head, tail, "tail", tail)?;
        Ok((tail, head))
    }

    /// Returns the most that the tail may be ahead of the head, whatever rings lie between them.
    fn longest(&self) -> u64 {
        self.rings.map_or(self.most, Rings::most)
    }

    /// Goes on in a ring of `capacity`, of which more may be in use after a shrink.
    fn enter(&mut self, capacity: u64, used: u64) {
        (self.capacity, self.most) = (capacity, capacity.max(used));
    }
}

/// The writing side. It may fill the positions from `at` on, as far as they are free.
pub struct Writer<'m> {
    words: Words<'m>,
    /// Our own position; `tail` is its published copy.
    at: u64,
    /// The position that `at` may reach before we must reload the reader's.
    limit: &'m CachedLimit,
    backoff: Backoff,
    /// Wakes the reader.
    notifier: Notifier<'m>,
    pub(crate) peer: Peer<'m>,
    /// `true` if a call fails as soon as the reader has left, and not only when the ring is full.
    fails_alone: bool,
    /// `true` if the cached limit may be below what is known to be free.
    capped: bool,
    /// The amount that was free at the last look.
    seen_free: u64,
    /// Opens rings, if the channel can grow.
    opener: Option<Opener<'m>>,
    sizer: Sizer,
}

impl<'m> Writer<'m> {
    /// Makes a writer that goes on at the tail, and gives `memory` the ring there.
    pub(crate) fn new(
        mut words: Words<'m>,
        notifier: Notifier<'m>,
        peer: Peer<'m>,
        limit: &'m mut CachedLimit,
        memory: &mut impl RingMemory<'m>,
    ) -> Result<Self, Error> {
        let (at, head) = words.resume()?;
        let opener = match words.rings {
            None => None,
            Some(rings) => {
                let opener = Opener::resume(rings, at, words.unit)?;
                opener.enter(memory);
                words.enter(opener.capacity(), at.saturating_sub(head));
                Some(opener)
            }
        };
        limit.set(head + words.capacity);
        Ok(Writer {
            words,
            at,
            limit,
            backoff: Backoff::default(),
            notifier,
            peer,
            fails_alone: false,
            capped: false,
            seen_free: 0,
            opener,
            sizer: Sizer::default(),
        })
    }

    /// Returns how much of `wanted` is free after `ensured`, the answer to a question for it: at least 1, or that answer.
    #[inline]
    pub(crate) fn part_of(&self, wanted: u64, ensured: Result<(), Error>) -> Result<u64, Error> {
        let error = match ensured {
            Ok(()) => return Ok(wanted),
            Err(error) => error,
        };
        // What the look saw counts only if it came to its end: not in a forked copy, nor among impossible words.
        let found = match (self.capped, error) {
            (false, _) => self.known(),
            (true, Error::Full) => self.seen_free,
            (true, Error::Disconnected(_)) if !self.fails_alone => self.seen_free,
            (true, _) => 0,
        };
        match found {
            0 => Err(error),
            found => Ok(wanted.min(found)),
        }
    }

    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Makes calls fail as soon as the reader has left, and not only when the ring is full.
    ///
    /// It costs nothing while it is off. While it is on, the cached limit stays where the writer stands, so each step
    /// reloads; [`free`](Self::free) leaves what it found in `seen_free`.
    pub(crate) fn fail_alone(&mut self, on: bool) {
        self.fails_alone = on;
        self.change_limit();
    }

    /// Returns `true` if this is the handle that took the seat, and not a forked copy.
    ///
    /// A forked copy must not finish a guard. A guard checks this itself, since no cached limit
    /// stands between it and the shared position.
    #[inline]
    pub(crate) fn ours(&self) -> bool {
        self.limit.alive()
    }

    /// Returns the amount that is known to be free, without a load of the reader's position.
    #[inline]
    pub(crate) fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.at)
    }

    /// Checks if `wanted` is free.
    ///
    /// `message` is the size of a single message, near enough to tell one from several.
    #[inline]
    pub(crate) fn poll(&mut self, wanted: u64, message: u64) -> Poll {
        if self.known() >= wanted {
            Poll::Ready
        } else {
            self.look(wanted, message)
        }
    }

    /// *Commit*: gives everything up to the new tail to the reader.
    #[inline]
    pub(crate) fn commit(&mut self, amount: u64) {
        self.at += amount;
        // Release: pairs with the acquire in `committed`; what was written comes before it.
        self.words.tail.store(self.at, Ordering::Release);
        self.notifier.ring();
    }

    /// Reloads the reader's position. This is the rare case.
    #[cold]
    #[inline(never)]
    fn look(&mut self, wanted: u64, message: u64) -> Poll {
        if !self.limit.alive() || wanted > self.words.capacity {
            return Poll::Unclear;
        }
        self.backoff.pause();
        let before = self.known();
        if self.fails_alone && !self.peer.quiet() {
            return Poll::Unclear;
        }
        let Ok(free) = self.free() else {
            return Poll::Unclear;
        };
        self.backoff
            .found(free.saturating_sub(before), message, self.words.capacity);
        let Sizing {
            grows,
            shrinks_after,
        } = self.sizer.sizing;
        if free >= wanted && shrinks_after.is_none() {
            Poll::Ready
        } else if free < wanted && !grows && self.peer.quiet() {
            Poll::NotReady
        } else {
            Poll::Unclear
        }
    }

    /// Decides a look that ended in [`Poll::Unclear`].
    ///
    /// With `memory`, nothing is written that is not committed, so the ring may be resized.
    #[cold]
    #[inline(never)]
    pub(crate) fn slow_path(
        &mut self,
        wanted: u64,
        memory: Option<&mut impl RingMemory<'m>>,
    ) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let may_hold = match &self.opener {
            Some(opener) if self.sizer.sizing.grows => opener.max_capacity(),
            _ => self.words.capacity,
        };
        if wanted > may_hold {
            return Err(Error::TooLarge {
                asked: wanted,
                max: may_hold,
            });
        }
        if !self.fails_alone && self.free()? >= wanted {
            if let Some(memory) = memory {
                self.shrink(wanted, memory)?;
            }
            return Ok(());
        }
        match self.peer.end(self.at)? {
            // The reader may have released more just before it left.
            Some(_) if !self.fails_alone && self.free()? >= wanted => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None if self.fails_alone && self.free()? >= wanted => {
                if let Some(memory) = memory {
                    self.shrink(wanted, memory)?;
                }
                Ok(())
            }
            None => {
                let grown = match memory {
                    Some(memory) => self.grow(wanted, memory)?,
                    None => false,
                };
                if grown { Ok(()) } else { Err(Error::Full) }
            }
        }
    }

    /// Forgets what is free, since the rules for the cached limit have changed.
    fn change_limit(&mut self) {
        self.capped = self.fails_alone || self.sizer.sizing.shrinks_after.is_some();
        if self.limit.alive() {
            self.limit.set(self.at);
        }
    }

    /// Loads the reader's position, renews the cached limit, and returns the amount that is free.
    fn free(&mut self) -> Result<u64, Error> {
        // Acquire: pairs with the release in `Reader::release`; its reads come before our writes.
        let head = self.words.head.load(Ordering::Acquire);
        let used = self.words.distance(head, self.at, "head", head)?;
        let capacity = self.words.capacity;
        let end = head + capacity;
        self.limit.set(match (self.fails_alone, &self.opener) {
            (true, _) => self.at,
            // A producer that is to shrink the ring looks now and then how full it is, however large it is.
            (false, Some(opener)) if self.sizer.sizing.shrinks_after.is_some() => {
                let often = opener.min_capacity().max(capacity / LOOKS);
                end.min(self.at + often)
            }
            (false, _) => end,
        });
        // More may be in use after a shrink.
        self.seen_free = capacity.saturating_sub(used);
        self.sizer.note(used);
        Ok(self.seen_free)
    }

    /// Returns the exact amount that is committed and not released.
    pub(crate) fn len(&self) -> Result<u64, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        // Acquire: pairs with the release in `Reader::release`. A caller may act on the space that
        // it counts.
        let head = self.words.head.load(Ordering::Acquire);
        Ok(self.words.distance(head, self.at, "head", head)?)
    }
}

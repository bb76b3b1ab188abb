//! The reading side of a cursor.

use super::Words;
use crate::backoff::Backoff;
use crate::cached_limit::CachedLimit;
use crate::end::Poll;
use crate::error::{Corrupt, Error};
use crate::guard::PanicMark;
use crate::line_transfer::LineTransfer;
use crate::mem::RingMemory;
use crate::rings::Crosser;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

/// The reading side. It may read the positions from `at` on, as far as they are committed.
pub(crate) struct Reader<'m> {
    pub(super) words: Words<'m>,
    /// Our own position; `head` is its published copy, exact after every release.
    at: u64,
    /// The position that `at` may reach before we must reload the writer's.
    pub(super) limit: &'m CachedLimit,
    backoff: Backoff,
    line_transfer: LineTransfer,
    panic: PanicMark,
    /// Wakes the writer.
    pub(super) notifier: Notifier<'m>,
    pub(crate) peer: Peer<'m>,
    /// Crosses from ring to ring, if the channel can grow.
    pub(super) crosser: Option<Crosser<'m>>,
}

impl<'m> Reader<'m> {
    /// Makes a reader that goes on at the head, and gives `memory` the ring there.
    pub(crate) fn new(
        mut words: Words<'m>,
        notifier: Notifier<'m>,
        peer: Peer<'m>,
        limit: &'m mut CachedLimit,
        memory: &mut impl RingMemory<'m>,
    ) -> Result<Self, Error> {
        let (_, at) = words.resume()?;
        let crosser = match words.rings {
            None => None,
            Some(rings) => {
                let crosser = Crosser::resume(rings, at, words.tail, words.unit)?;
                crosser.enter(memory);
                words.enter(crosser.capacity(), 0);
                Some(crosser)
            }
        };
        let reader = Reader::standing_at(at, words, notifier, peer, limit);
        let backoff = match crosser {
            None => Backoff::default(),
            // An idle reader has to see a new ring.
            Some(_) => Backoff::without_short_looks(),
        };
        Ok(Reader {
            crosser,
            backoff,
            ..reader
        })
    }

    /// Makes a reader that begins at `at`, the position in its own word. It knows nothing yet of
    /// the messages there.
    pub(crate) fn standing_at(
        at: u64,
        words: Words<'m>,
        notifier: Notifier<'m>,
        peer: Peer<'m>,
        limit: &'m mut CachedLimit,
    ) -> Self {
        limit.set(at);
        Reader {
            line_transfer: LineTransfer::new(words.writable),
            panic: PanicMark::default(),
            words,
            at,
            limit,
            backoff: Backoff::default(),
            notifier,
            peer,
            crosser: None,
        }
    }

    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Returns `true` if this is the handle that took the seat, and not a forked copy.
    ///
    /// A forked copy must not finish a guard. A guard checks this itself, since no cached limit
    /// stands between it and the shared position.
    #[inline]
    pub(crate) fn ours(&self) -> bool {
        self.limit.alive()
    }

    /// Returns the size of the newest ring.
    pub(crate) fn capacity(&self) -> u64 {
        let own = self.words.capacity;
        self.crosser.as_ref().map_or(own, Crosser::newest_capacity)
    }

    /// Prepares [`drop_releases`](Self::drop_releases). The caller calls this when it makes a guard.
    #[inline]
    pub(crate) fn begin_guard(&mut self) {
        self.panic.begin();
    }

    /// Returns `true` if a guard that goes out of scope releases its messages.
    ///
    /// A guard that a panic drops does not ([`PanicMark`]). The release itself asks
    /// [`ours`](Self::ours), so that it asks once.
    #[inline]
    pub(crate) fn drop_releases(&self) -> bool {
        self.panic.drop_releases()
    }

    /// Returns the position up to which messages are known to be committed, without a load of the
    /// writer's.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.limit.get()
    }

    /// Returns the amount that is known to be committed, without a load of the writer's position.
    #[inline]
    pub(crate) fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.at)
    }

    /// Checks if a message is there.
    ///
    /// `message` is the size of a single message, near enough to tell one from several.
    #[inline]
    pub(crate) fn poll(&mut self, message: u64) -> Poll {
        if self.known() > 0 {
            Poll::Ready
        } else if self.backoff.looks_short()
            // Relaxed: a hint; it leads either to no message, or to a look.
            && self.words.tail.load(Ordering::Relaxed) == self.at
            && self.limit.alive()
            && self.peer.quiet()
        {
            Poll::NotReady
        } else {
            self.look(message)
        }
    }

    /// Returns `true` if this reader is in the newest ring, and has given the others back. Call it after a load of the tail.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        self.crosser.as_ref().is_none_or(Crosser::settled)
    }

    /// *Release*: lets the writer write everything before the new head again.
    #[inline]
    pub(crate) fn release(&mut self, amount: u64) {
        self.at += amount;
        // Release: pairs with the acquire in `Writer::free`; our reads come before it.
        self.words.head.store(self.at, Ordering::Release);
        self.notifier.ring();
    }

    /// Reloads the writer's position. This is the rare case.
    #[cold]
    #[inline(never)]
    fn look(&mut self, message: u64) -> Poll {
        if !self.limit.alive() {
            return Poll::Unclear;
        }
        self.backoff.pause();
        let Ok(tail) = self.words.committed() else {
            return Poll::Unclear;
        };
        if !self.is_settled() {
            return Poll::Unclear;
        }
        let Ok(found) = self.renew(tail) else {
            return Poll::Unclear;
        };
        self.backoff.found(found, message, self.words.capacity);
        if found > 0 {
            let capacity = self.words.capacity;
            self.line_transfer
                .looked(self.at, capacity, self.notifier.os());
            Poll::Ready
        } else if self.peer.quiet() {
            Poll::NotReady
        } else {
            Poll::Unclear
        }
    }

    /// Returns `true` if the reader transfers lines back before it releases them; see
    /// `line_transfer.rs`.
    #[inline(always)]
    pub(crate) fn transfers_lines(&self) -> bool {
        self.line_transfer.on()
    }

    /// Decides a look that ended in [`Poll::Unclear`]. If that leads into another ring, gives `memory` that ring.
    #[cold]
    #[inline(never)]
    pub(crate) fn slow_path(&mut self, memory: &mut impl RingMemory<'m>) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let found = self.filled(memory)?;
        // One step each time, so that no message waits for long.
        self.give_back();
        if found > 0 {
            return Ok(());
        }
        match self.peer.end(self.at.min(self.limit.get()))? {
            // The writer may have committed more just before it left.
            Some(_) if self.filled(memory)? > 0 => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None => Err(Error::Empty),
        }
    }

    /// Goes on at `at`, of which nothing is known yet. From now on the head may be `ahead` of the
    /// tail.
    ///
    /// *Release*, when it goes forward.
    pub(crate) fn go_to(&mut self, at: u64, ahead: u64) {
        self.line_transfer.moved(self.at, at);
        self.at = at;
        self.words.ahead = ahead;
        self.limit.set(at);
        // Release: as in `release`.
        self.words.head.store(at, Ordering::Release);
        self.notifier.ring();
    }

    /// Forgets what is known of the committed messages, so that the next poll reloads.
    pub(crate) fn forget(&mut self) {
        self.limit.set(self.at);
    }

    pub(crate) fn tail_word(&self) -> &'m AtomicU64 {
        self.words.tail
    }

    /// Returns the distance by which the reader has skipped ahead of the tail, at most the allowed
    /// one.
    pub(crate) fn ahead(&self) -> u64 {
        // Relaxed: nothing is read that this orders.
        let tail = self.words.tail.load(Ordering::Relaxed);
        self.at.saturating_sub(tail).min(self.words.ahead)
    }

    /// Loads the writer's position, renews the cached limit, and returns the amount that is there in this ring. Crosses into
    /// the next ring at the end of this one, and gives `memory` that ring.
    pub(super) fn filled(&mut self, memory: &mut impl RingMemory<'m>) -> Result<u64, Error> {
        let mut end = self.words.committed()?;
        if let Some(crosser) = &mut self.crosser {
            end = crosser.cross(self.at, end, || self.words.committed())?;
            crosser.enter(memory);
            self.words.enter(crosser.capacity(), 0);
        }
        Ok(self.renew(end)?)
    }

    /// Renews the cached limit: this reader may read up to `end`. Returns the amount that is there.
    fn renew(&mut self, end: u64) -> Result<u64, Corrupt> {
        let filled = self.words.distance(self.at, end, "tail", end)?;
        self.limit.set(end);
        Ok(filled)
    }

    /// Returns the exact amount that is committed and not released.
    pub(crate) fn len(&self) -> Result<u64, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let (tail, longest) = (self.words.committed()?, self.words.longest());
        let filled = self
            .words
            .distance_within(longest, self.at, tail, "tail", tail)?;
        Ok(filled)
    }
}

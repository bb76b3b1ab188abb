//! Implements the producer of a `broadcast` channel. See the head of `broadcast.rs`.

use core::fmt;

use super::mode::Store as _;
use super::{Mode, Ring, Waiting, block, first, slowest};
use crate::backoff::Backoff;
use crate::cached_limit::CachedLimit;
use crate::end::{Endpoint, Poll, Push, sealed::Sealed};
use crate::error::{End, Error};
use crate::guard::{self, Reserve};
use crate::layout::Side;
use crate::payload::Payload;
use crate::seat::{Peer, State};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::wait::Notifier;

/// The writing end.
pub struct Producer<'m, T: Payload, M: Mode = Waiting> {
    tail: &'m AtomicU64,
    write_limit: &'m AtomicU64,
    gating_set: &'m AtomicU64,
    consumers: Side<'m>,
    slots: M::Slots<'m, T>,
    notifier: Notifier<'m>,
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

impl<T: Payload, M: Mode> fmt::Debug for Producer<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.at)
            .finish_non_exhaustive()
    }
}

impl<'m, T: Payload, M: Mode> Producer<'m, T, M> {
    /// Takes the writing end, going on behind the last committed message.
    ///
    /// # Safety
    /// - `ring` is the one that the other ends have, too.
    /// - Only the ends write its words and its payloads.
    /// - No other producer of it exists until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m, T, M>,
        cached_limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let Ring {
            tail,
            write_limit,
            gating_set,
            consumers,
            slots,
            notifier,
            ..
        } = ring;
        // Behind all that the last producer did.
        let at = first(tail, write_limit)?;
        // Nothing is known of the gating set, and a write limit counts only after a second look at
        // it. But the last producer may have written the slots before that limit. (Relaxed: the
        // seat has brought all that the last producer did.)
        let published = write_limit
            .load(Ordering::Relaxed)
            .min(at + slots.capacity());
        cached_limit.set(at);
        Ok(Producer {
            tail,
            write_limit,
            gating_set,
            consumers,
            slots,
            notifier,
            at,
            published,
            limit: cached_limit,
            backoff: Backoff::default(),
            held_by: None,
            fails_alone: false,
        })
    }

    /// Returns the number of slots known to be free, without a look at the gating set.
    #[inline]
    fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.at)
    }

    /// Looks at the positions of the gating set. This is the rare case.
    #[cold]
    #[inline(never)]
    fn look(&mut self, wanted: u64) -> Poll {
        if !self.limit.alive() || wanted > self.slots.capacity() {
            return Poll::Unclear;
        }
        if self.fails_alone && self.alone() {
            return Poll::Unclear;
        }
        if M::OVERWRITES {
            self.raise(wanted);
            return Poll::Ready;
        }
        self.backoff.pause();
        if self.still_held() {
            self.backoff.found(0, 1, self.slots.capacity());
            return Poll::NotReady;
        }
        let before = self.known();
        self.raise(wanted);
        // The number is lower than before if a consumer joined further behind.
        let gained = self.known().saturating_sub(before);
        self.backoff.found(gained, 1, self.slots.capacity());
        if self.known() >= wanted {
            Poll::Ready
        } else {
            Poll::NotReady
        }
    }

    /// Returns `true` if a consumer was there at some time, and none is any more.
    fn alone(&self) -> bool {
        let lives = self.consumers.seats().iter().map(|seat| seat.line.life());
        let (mut came, mut held) = (false, false);
        for life in lives.flatten() {
            came |= life.generation > 0;
            held |= life.state == State::Held;
        }
        came && !held
    }

    /// Ends a step: while it is to fail alone, the next one asks again.
    #[inline]
    fn end_step(&self) {
        if self.fails_alone {
            self.limit.set(self.at);
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
        let words = self.consumers.seats().get(seat);
        self.gating_set.load(Ordering::Relaxed) & 1 << seat != 0
            && words.is_some_and(|words| words.position.load(Ordering::Relaxed) == position)
    }

    /// Raises the write limit as far as the slowest consumer of the gating set allows.
    fn raise(&mut self, wanted: u64) {
        let capacity = self.slots.capacity();
        let slowest = self.slowest();
        self.held_by = None;
        let write_limit = match slowest {
            Some((_, slowest)) => slowest.saturating_add(capacity),
            None => self.at + wanted.max(block(capacity)),
        };
        if write_limit <= self.limit.get().max(self.at) {
            self.held_by = slowest;
            return;
        }
        self.published = self.published.max(write_limit);
        // Release: pairs with the acquire in `oldest`; our tail comes before.
        self.write_limit.store(self.published, Ordering::Release);
        // SeqCst: pairs with the fence in `Seat::stand`; see *the write limit*. For readers that
        // copy what may be overwritten, it is a release fence: see *overwriting*. For a consumer
        // that left before the first look, it is an acquire fence, which pairs with the release in
        // `leave`.
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
        if M::OVERWRITES {
            return None;
        }
        let (seat, position) = slowest(self.gating_set, self.consumers)?;
        Some((seat, position.min(self.at)))
    }

    /// *Commit*: publishes everything up to the new tail to all consumers.
    #[inline]
    fn commit(&mut self, count: u64) {
        self.at += count;
        // Release: pairs with the acquire in `committed`; what was written comes before it.
        self.tail.store(self.at, Ordering::Release);
        self.notifier.ring();
    }

    /// Writes the slot `ahead` of the tail.
    ///
    /// # Safety
    /// More than `ahead` slots were found free, and nothing was appended since. This process is not
    /// a fork of the one that found them.
    #[inline(always)]
    unsafe fn store_ahead(&mut self, ahead: u64, value: &T) {
        // SAFETY: the slot lies before the write limit, and only we write. If we do not overwrite,
        // every consumer of the gating set has released the slot.
        unsafe { self.slots.write(self.at + ahead, value) };
    }

    /// Returns the number of slots, up to `wanted`, that can be had: at least one, or an error.
    ///
    /// Returns `None` if `wanted` is 0.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        if wanted == 0 {
            return Ok(None);
        }
        let wanted = wanted.min(self.capacity());
        match self.ensure(wanted) {
            Err(error) if self.known() == 0 => Err(error),
            _ => Ok(Some(wanted.min(self.known() as usize))),
        }
    }
}

impl<T: Payload, M: Mode> Sealed for Producer<'_, T, M> {}

impl<T: Payload, M: Mode> Endpoint for Producer<'_, T, M> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        if self.known() >= amount as u64 {
            Poll::Ready
        } else {
            self.look(amount as u64)
        }
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        let (asked, max) = (amount as u64, self.slots.capacity());
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        // A consumer may have come since the poll.
        match self.look(asked) {
            Poll::Ready => Ok(()),
            Poll::NotReady => Err(Error::Full),
            Poll::Unclear => Err(Error::Disconnected(End::Finished)),
        }
    }

    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        if !M::OVERWRITES {
            return self.ensure(amount).inspect(|()| self.end_step());
        }
        let left_alone = self.fails_alone && self.alone();
        if self.limit.alive() && amount <= self.capacity() && !left_alone {
            return Ok(());
        }
        self.slow_path(amount)
    }

    /// Returns `None`: consumers come and go, so there is no single end to report.
    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }

    fn capacity(&self) -> usize {
        self.slots.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.at
    }

    /// Returns the distance of the slowest consumer that the producer waits for; 0 if it waits for
    /// none.
    fn len(&self) -> Result<usize, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let slowest = self.slowest().map_or(self.at, |(_, position)| position);
        // The position is another process's hint, so the distance is capped at the capacity.
        Ok((self.at - slowest).min(self.slots.capacity()) as usize)
    }
}

impl<T: Payload, M: Mode> Push for Producer<'_, T, M> {
    type Value = T;

    #[inline(always)]
    unsafe fn put(&mut self, value: &T) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.store_ahead(0, value) };
        self.commit(1);
        true
    }

    #[inline]
    unsafe fn write(&mut self, index: usize, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.store_ahead(index as u64, &value) };
    }

    #[inline]
    fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        let Some(count) = self.best_effort(values.len())? else {
            return Ok(0);
        };
        // SAFETY: `best_effort` saw that many slots before the write limit, and only we write. If we
        // do not overwrite, every consumer of the gating set has released them.
        unsafe { self.slots.write_all(self.at, &values[..count]) };
        self.commit(count as u64);
        self.end_step();
        Ok(count)
    }

    #[inline]
    fn try_push_iter(&mut self, values: &mut impl Iterator<Item = T>) -> Result<usize, Error> {
        let room = if M::OVERWRITES {
            if !self.limit.alive() {
                return Err(Error::Forked);
            }
            if self.fails_alone && self.alone() {
                return Err(Error::Disconnected(End::Finished));
            }
            // We give up no more old messages than we write.
            self.capacity()
        } else {
            self.best_effort(usize::MAX)?.unwrap_or(0)
        };
        let mut count = 0;
        for value in values.take(room) {
            // An iterator may run any code: it may have forked.
            if !self.limit.alive() {
                return Err(Error::Forked);
            }
            if count >= self.known() {
                let on = count + block(self.slots.capacity());
                self.raise(on.min(self.slots.capacity()));
            }
            // SAFETY: `count` is below the number of slots known to be free.
            unsafe { self.store_ahead(count, &value) };
            count += 1;
        }
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.commit(count);
        }
        self.end_step();
        Ok(count as usize)
    }
}

impl<T: Payload, M: Mode> Reserve for Producer<'_, T, M> {
    /// Makes calls fail once the last consumer has left.
    ///
    /// The producer learns of a consumer's death when the seat is repaired, or taken anew.
    fn fail_alone(&mut self, on: bool) {
        self.fails_alone = on;
        if self.limit.alive() {
            self.limit.set(self.at);
        }
    }

    #[inline]
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        self.ensure(amount)?;
        // Whatever becomes of the reservation: the next step asks again.
        self.end_step();
        Ok(())
    }

    #[inline]
    unsafe fn commit_claimed(&mut self, amount: usize) {
        if amount > 0 && self.limit.alive() {
            self.commit(amount as u64);
        }
    }
}

/// A reservation of an overwriting channel has no such slices: a consumer may be reading the slots.
impl<T: Payload> guard::Reservation<'_, Producer<'_, T, Waiting>> {
    /// Returns the reserved slots in place, in order: up to the ring's end, and from its start.
    ///
    /// They still hold an earlier message's bytes.
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        let producer = &self.producer;
        // SAFETY: they lie before the write limit, only we write, and every consumer of the gating
        // set has released them. `&mut self` borrows them once.
        unsafe { producer.slots.slices_mut(producer.at, self.amount) }
    }
}

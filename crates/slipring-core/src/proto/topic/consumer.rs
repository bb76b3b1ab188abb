//! The reading end of a topic. See the head of `topic.rs`.

use core::fmt;

use super::owned::{OwnedSample, Pinned, origin_of};
use super::word::{Age, Entry, Topic};
use super::{Keep, Origin, Ring};
use crate::cached_limit::CachedLimit;
use crate::crowd::Crowd;
use crate::end::{Endpoint, Poll, Pop, Seek, sealed::Sealed};
use crate::error::{Corrupt, Error};
use crate::guard::{Hold, PanicMark, Runs};
use crate::layout::Pins;
use crate::mem::{Form, Samples};
use crate::record::HoldRecord;
use crate::seat::{PATIENCE, Peer};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::wait::Notifier;

/// The reading end.
pub struct Consumer<'m, T: ?Sized> {
    topic: Topic<'m>,
    pub(super) samples: Samples<'m, T>,
    /// The number of the next message.
    at: u64,
    /// The entry of that message, while the cached limit lies beyond it.
    found: Entry,
    /// One more than `at` if the entry of that message has been found.
    limit: &'m CachedLimit,
    position: &'m AtomicU64,
    pins: &'m Pins,
    /// The number of pins for messages that leave its hands.
    spare: u64,
    /// The message that it has in its hands.
    held: Option<Pinned>,
    /// `true` if the next message is the one in its hands, so that its release goes on.
    in_order: bool,
    /// The number of messages that it knew to be published when it last asked for the newest.
    seen: u64,
    notifier: Notifier<'m>,
    producers: Crowd<'m>,
    lagged: &'m AtomicU64,
    handed_out: &'m AtomicU64,
    panic: PanicMark,
}

impl<T: ?Sized> fmt::Debug for Consumer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.at)
            .field("capacity", &self.topic.capacity())
            .finish_non_exhaustive()
    }
}

/// The answer of an attempt to pin a message.
enum Pin {
    Done(Pinned),
    /// The message is not published.
    Before,
    /// It was overwritten.
    After,
}

impl<'m, T: Form + ?Sized> Consumer<'m, T> {
    /// Takes a reading end, and begins where `seek` says.
    ///
    /// Fails with `Ahead` or `Corrupt`.
    ///
    /// # Safety
    /// - All ends of this topic have the same words, and as many slots.
    /// - Only they write its words and its payloads.
    /// - No other consumer has this seat until this one is gone.
    /// - Every bit pattern is a valid `T`.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        keep: Keep<'m>,
        limit: &'m mut CachedLimit,
        seek: Seek,
    ) -> Result<Self, Error> {
        limit.set(0);
        // Relaxed: the last holder's samples are gone.
        keep.handed_out.store(0, Ordering::Relaxed);
        for word in &keep.pins.words {
            // Relaxed: before the bit is set, nobody looks at them.
            word.store(0, Ordering::Relaxed);
        }
        // Relaxed: a producer that sees a later pin sees the bit, since both come before the fence behind the pin. One that sees
        // the bit and a pin of the last holder takes that slot for pinned.
        ring.gating_set.fetch_or(1 << ring.seat, Ordering::Relaxed);
        let mut consumer = Consumer {
            topic: ring.topic,
            samples: ring.samples,
            at: 0,
            found: Entry(0),
            limit,
            position: ring.position,
            pins: keep.pins,
            spare: keep.most.saturating_sub(1),
            held: None,
            in_order: false,
            seen: 0,
            notifier: ring.notifier,
            producers: keep.producers,
            lagged: keep.lagged,
            handed_out: keep.handed_out,
            panic: PanicMark::default(),
        };
        consumer.seek(seek).inspect_err(|_| {
            super::leave(ring.gating_set, 1 << ring.seat);
        })?;
        Ok(consumer)
    }

    /// Goes on where `to` says, and returns the number of that message.
    ///
    /// If the message was overwritten, the next call returns `Lagged`. Fails with `Ahead`, `Corrupt` or `Forked`.
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let newest = self.topic.newest()?;
        let at = match to {
            Seek::Oldest => newest.saturating_sub(self.topic.capacity()),
            Seek::Newest => newest,
            Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
            Seek::To(asked) => asked,
        };
        self.go_to(at);
        Ok(at)
    }

    fn go_to(&mut self, at: u64) {
        self.at = at;
        self.limit.set(0);
        // Relaxed: for tools, and for the set that this handle is in.
        self.position.store(at, Ordering::Relaxed);
    }

    /// Looks for the next message. This is the rare case.
    #[inline]
    fn look(&mut self) -> Poll {
        if !self.limit.alive() {
            return Poll::Unclear;
        }
        match self.find() {
            true => Poll::Ready,
            false if self.producers.quiet() => Poll::NotReady,
            false => Poll::Unclear,
        }
    }

    /// Returns `true` if the next message is there, or was.
    #[inline]
    fn find(&mut self) -> bool {
        let (entry, age) = self.topic.look(self.at);
        if age == Age::Before {
            return false;
        }
        self.found = entry;
        self.limit.set(self.at.saturating_add(1));
        true
    }

    /// Pins message `sequence`, whose entry was found to be `entry`, with the pin of what this end reads.
    #[inline(always)]
    fn pin(&self, sequence: u64, entry: Entry) -> Result<Pin, Corrupt> {
        let word = &self.pins.words[0];
        // Relaxed: what this pin kept before is let go of below. Of this slot no more than the header was read, and what stands
        // there leads here.
        let clear = || word.store(0, Ordering::Relaxed);
        let slot = entry.slot(self.samples.count())?;
        // Its lines are on their way while the fence waits.
        self.samples.prefetch(slot);
        // Release: what this pin kept before, if anything, was read before. Producers that find it gone may write that slot.
        word.store(slot + 1, Ordering::Release);
        // SeqCst: pairs with the fence before a producer's scan; see *why a pinned message stays*.
        fence(Ordering::SeqCst);
        if !self.topic.stands(sequence, entry) {
            clear();
            // Acquire: pairs with the release of the producer that overwrote the message. The head that we look at next shows
            // that, too.
            fence(Ordering::Acquire);
            return Ok(Pin::After);
        }
        // SAFETY: checked to be below the number of slots.
        let header = unsafe { self.samples.header(slot) };
        // Relaxed, both: the look has acquired the entry. The slot is pinned, so its header does not change.
        let found = header.sequence.load(Ordering::Relaxed);
        let len = header.length.load(Ordering::Relaxed);
        let corrupt = |word, found, expected| {
            clear();
            Err(Corrupt {
                word,
                found,
                expected,
            })
        };
        if found != sequence + 1 {
            return corrupt("sequence", found, sequence + 1);
        }
        if !T::fits(self.samples.size(), len) {
            return corrupt("length", len, self.samples.size());
        }
        Ok(Pin::Done(Pinned {
            slot,
            sequence,
            len: len as usize,
        }))
    }

    /// Pins the message `back` before the newest.
    fn pin_latest(&mut self, back: u64) -> Result<Pinned, Error> {
        let max = self.topic.capacity();
        if back >= max {
            return Err(Error::TooLarge {
                asked: back.saturating_add(1),
                max,
            });
        }
        let mut fresh = false;
        for _ in 0..PATIENCE {
            // The head is a line that every producer writes. If there is no newer message, it is left alone.
            if self.topic.look(self.seen).1 != Age::Before {
                self.seen = self.topic.newest()?;
                fresh = true;
            }
            let Some(sequence) = self.seen.checked_sub(1 + back) else {
                return Err(Error::Empty);
            };
            let (entry, age) = self.topic.look(sequence);
            let pinned = match age {
                Age::Own => self.pin(sequence, entry)?,
                Age::After => Pin::After,
                Age::Before => Pin::Before,
            };
            match pinned {
                Pin::Done(pinned) => return Ok(pinned),
                // Overwritten since: there is a newer one.
                Pin::After => {}
                // No producer leaves a gap.
                Pin::Before if fresh => {
                    self.seen = 0;
                    return Err(self.topic.disagree().into());
                }
                // The head was wrong when it was asked last. It may be right now.
                Pin::Before => self.seen = 0,
            }
        }
        // Each turn, others have published `max - back` messages or more.
        Err(Error::Lagged(1))
    }

    /// Takes the message `back` before the newest into this end's hands, whatever it has read so far: 0 is the newest.
    ///
    /// Fails with `Empty` if there is none, with `TooLarge` if that many do not stay readable, with `Lagged` if producers
    /// overwrote it again and again meanwhile, with `Corrupt` and `Forked`.
    pub fn hold_latest(&mut self, back: u64) -> Result<usize, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let pinned = self.pin_latest(back)?;
        (self.held, self.in_order) = (Some(pinned), false);
        Ok(pinned.len)
    }

    /// Takes the next message into this end's hands.
    ///
    /// Fails with `Empty`, `Lagged`, `Disconnected`, `Corrupt` and `Forked`.
    pub fn hold_in_order(&mut self) -> Result<usize, Error> {
        self.hold_next().map(|pinned| pinned.len)
    }

    #[inline]
    fn hold_next(&mut self) -> Result<Pinned, Error> {
        self.ensure(1)?;
        let pinned = self.pin_next()?;
        (self.held, self.in_order) = (Some(pinned), true);
        Ok(pinned)
    }

    /// Pins the next message, which `poll` has found. If it cannot, it goes on behind what it met.
    #[inline]
    fn pin_next(&mut self) -> Result<Pinned, Error> {
        match self.pin_found() {
            Ok(Pin::Done(pinned)) => Ok(pinned),
            Ok(_) => Err(self.overrun()),
            Err(corrupt) => {
                // The next message may be whole.
                self.go_to(self.at.saturating_add(1));
                Err(corrupt.into())
            }
        }
    }

    /// Tries to pin the next message, which `poll` has found. Changes nothing if it cannot.
    #[inline(always)]
    fn pin_found(&self) -> Result<Pin, Corrupt> {
        let entry = self.found;
        // The poll may have found a later one's.
        match self.topic.is_of(self.at, entry) {
            true => self.pin(self.at, entry),
            false => Ok(Pin::After),
        }
    }

    /// Goes on further ahead after the next message was overwritten, and returns `Lagged` with the number of messages that
    /// are lost, or `Corrupt`.
    #[cold]
    #[inline(never)]
    fn overrun(&mut self) -> Error {
        let to = match self.topic.resume_at(self.at) {
            Ok(to) => to,
            Err(error) => {
                // The entry that was found may have been rubbish, too: look at it again.
                self.limit.set(0);
                return error;
            }
        };
        let lost = to - self.at;
        // Relaxed: it has one writer, and tools read it.
        let sum = self.lagged.load(Ordering::Relaxed).wrapping_add(lost);
        self.lagged.store(sum, Ordering::Relaxed);
        self.go_to(to);
        Error::Lagged(lost)
    }

    /// Gives up the pin of what this end has in its hands.
    #[inline(always)]
    fn unpin(&mut self) {
        self.held = None;
        // Release: pairs with the acquire of a producer's scan; what was read comes before.
        self.pins.words[0].store(0, Ordering::Release);
        self.notifier.ring();
    }

    /// Ends the reading of what this end has in its hands: goes on behind it, if it is the next message and `go_on`.
    #[inline]
    pub(super) fn finish(&mut self, go_on: bool) {
        if !self.limit.alive() || self.held.is_none() {
            return;
        }
        if go_on && self.in_order {
            self.go_to(self.at + 1);
        }
        self.unpin();
    }

    /// Returns the slot of the message in this end's hands, and the length of its payload. Only for a guard of it.
    #[inline]
    pub(super) fn held_slot(&self) -> (u64, usize) {
        self.held.map_or((0, 0), |held| (held.slot, held.len))
    }

    /// Returns the number and the origin of the message in this end's hands.
    pub(super) fn origin(&self) -> Origin {
        self.held.map_or(
            Origin {
                sequence: 0,
                publisher: 0,
                time: 0,
            },
            |held| origin_of(&self.samples, held),
        )
    }

    /// Takes the message in this end's hands out of them: whoever has the result lets go of it, on any thread.
    ///
    /// Fails with `TooManyHeld` if this end has no pin to spare, and lets go of the message. The next read sees it again.
    ///
    /// # Safety
    /// The result is gone before the memory is, and before the seat is left.
    pub unsafe fn detach(&mut self) -> Result<OwnedSample<'m, T>, Error> {
        let held = self.held.ok_or(Error::Empty)?;
        let max = self.spare;
        let Some(pin) = self.spare_pin() else {
            self.finish(false);
            return Err(Error::TooManyHeld { max });
        };
        let (word, shift) = pin;
        // Relaxed: the slot stays pinned by the first pin until this one is there. A producer that finds the first one gone, by
        // an acquire that pairs with the release in `unpin`, finds this one: it looks at the first one first. What others
        // released in this word goes on with a read-modify-write. No other thread sets a pin, and this one was 0.
        self.pins.words[word].fetch_or((held.slot + 1) << shift, Ordering::Relaxed);
        // Relaxed: for tools.
        self.handed_out.fetch_add(1, Ordering::Relaxed);
        let sample = OwnedSample {
            samples: self.samples,
            pinned: held,
            pin,
            pins: self.pins,
            limit: self.limit,
            handed_out: self.handed_out,
            notifier: self.notifier.fencing(),
        };
        self.finish(true);
        Ok(sample)
    }

    /// Returns a pin that is not in use: its word, and its place there.
    fn spare_pin(&self) -> Option<(usize, u32)> {
        (0..self.spare).find_map(|pin| {
            let (word, shift) = (1 + pin as usize / 4, pin as u32 % 4 * 16);
            // Relaxed: only we set pins. The exchange that sets this one keeps the release of the thread that cleared it.
            let pins = self.pins.words.get(word)?.load(Ordering::Relaxed);
            (pins >> shift & 0xffff == 0).then_some((word, shift))
        })
    }
}

impl<T: ?Sized> Sealed for Consumer<'_, T> {}

impl<T: Form + ?Sized> Endpoint for Consumer<'_, T> {
    const NOT_READY: Error = Error::Empty;

    #[inline]
    fn poll(&mut self, _: usize) -> Poll {
        match self.limit.get() > self.at {
            true => Poll::Ready,
            false => self.look(),
        }
    }

    fn slow_path(&mut self, _: usize) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if self.find() {
            return Ok(());
        }
        let Some(news) = self.producers.end()? else {
            return Err(Error::Empty);
        };
        // A producer may have published more just before it left.
        if self.find() {
            return Ok(());
        }
        if !self.producers.stands(news)? {
            return Err(Error::Empty);
        }
        Err(Error::Disconnected(self.producers.tell(news)))
    }

    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }

    fn with_crowd<R>(&mut self, ask: impl FnOnce(&mut Crowd<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.producers))
    }

    fn capacity(&self) -> usize {
        self.topic.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.at
    }

    /// Returns the number of messages that are published and not yet read in order. Some of them may be gone.
    fn len(&self) -> Result<usize, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        Ok(self.topic.newest()?.saturating_sub(self.at) as usize)
    }
}

impl<T: Copy> Consumer<'_, T> {
    /// Copies the next message, which is pinned, and goes on behind it.
    #[inline(always)]
    fn copy(&mut self, pinned: Pinned) -> T {
        // SAFETY: pinned: its length is that of a `T`, and no producer writes it until it is unpinned.
        let value = *unsafe { self.samples.content(pinned.slot, pinned.len) };
        self.go_to(self.at + 1);
        self.unpin();
        value
    }
}

impl<T: Copy> Pop for Consumer<'_, T> {
    type Value = T;

    #[inline(always)]
    unsafe fn take(&mut self) -> Result<T, Error> {
        let pinned = self.pin_next()?;
        Ok(self.copy(pinned))
    }

    fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        let mut count = 0;
        for place in out.iter_mut() {
            match self.ensure(1) {
                Ok(()) => {}
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
            let pinned = match count {
                0 => self.pin_next()?,
                _ => match self.pin_found() {
                    Ok(Pin::Done(pinned)) => pinned,
                    // The next call meets it again, and tells.
                    _ => break,
                },
            };
            *place = self.copy(pinned);
            count += 1;
        }
        Ok(count)
    }
}

impl<T: Copy> Hold for Consumer<'_, T> {
    /// Holds one message: a pin keeps one slot.
    #[inline]
    fn hold(&mut self, max: usize) -> Result<usize, Error> {
        if max == 0 {
            return Ok(0);
        }
        self.hold_next().map(|_| 1)
    }

    #[inline]
    unsafe fn held<'a>(&self, _: usize) -> &'a T {
        let (slot, len) = self.held_slot();
        // SAFETY: the caller's promise: `hold` has pinned that slot.
        unsafe { self.samples.content(slot, len) }
    }

    #[inline]
    unsafe fn held_slices<'a>(&self, _: usize) -> Option<Runs<'a, T>> {
        None
    }

    #[inline]
    unsafe fn release_held(&mut self, count: usize) {
        self.finish(count > 0);
    }

    #[inline]
    unsafe fn keep_held(&mut self) {
        self.finish(false);
    }

    #[inline]
    fn begin_guard(&mut self) {
        self.panic.begin();
    }

    #[inline]
    fn drop_releases(&self) -> bool {
        self.limit.alive() && self.panic.drop_releases()
    }
}

impl HoldRecord for Consumer<'_, [u8]> {
    fn max_record(&self) -> usize {
        self.samples.size() as usize
    }

    #[inline]
    fn hold_record(&mut self) -> Result<usize, Error> {
        self.hold_in_order()
    }

    #[inline]
    unsafe fn held_record<'a>(&self, len: usize) -> &'a [u8] {
        let (slot, _) = self.held_slot();
        // SAFETY: the caller's promise: `hold_record` has pinned that slot, and checked the length.
        unsafe { self.samples.content(slot, len) }
    }

    #[inline]
    unsafe fn release_record(&mut self, _: usize) {
        self.finish(true);
    }

    #[inline]
    unsafe fn keep_record(&mut self) {
        self.finish(false);
    }

    #[inline]
    fn begin_guard(&mut self) {
        self.panic.begin();
    }

    #[inline]
    fn drop_releases(&self) -> bool {
        self.limit.alive() && self.panic.drop_releases()
    }
}

//! The writing end of a topic. See the head of `topic.rs`.

mod memory;

use core::fmt;

use super::pool::Slots;
use super::word::{Age, Entry, Topic};
use super::{Pool, PoolBacking, Ring};
use crate::cached_limit::CachedLimit;
use crate::crowd::all_left;
use crate::end::{Endpoint, Poll, Push, sealed::Sealed};
use crate::error::{Corrupt, End, Error};
use crate::guard::Reserve;
use crate::layout::{SampleHeader, Side};
use crate::mem::{Form, Samples};
use crate::record::PushRecord;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Notifier;

use memory::give_back_fresh;
pub use memory::vacate;

/// A producer gives up after so many tries to publish a message: only words that a stranger wrote take it so far, since with
/// each try that fails another producer has published one.
const TRIES: u32 = 1 << 16;

/// The writing end.
pub struct Producer<'m, T: ?Sized> {
    topic: Topic<'m>,
    samples: Samples<'m, T>,
    pool: Slots<'m>,
    /// The number of messages that it knows to be published; at least those up to its own last.
    next: u64,
    /// The number of messages that this handle has published, in whose unit the cached limit counts.
    done: u64,
    /// The value of `done` up to which there are free slots.
    limit: &'m CachedLimit,
    position: &'m AtomicU64,
    /// Counts its messages and its predecessors', for tools.
    messages: &'m AtomicU64,
    /// The number of its predecessors' messages.
    before: u64,
    gating_set: &'m AtomicU64,
    consumers: Side<'m>,
    notifier: Notifier<'m>,
    /// Wakes other producers: a message that displaces one of theirs frees a slot. `None` if no other can come.
    fellows: Option<Notifier<'m>>,
    backing: Option<&'m dyn PoolBacking>,
    clock: Option<fn() -> u64>,
    seat: u64,
    /// `true` if a call fails once the last consumer has left.
    fails_alone: bool,
    /// The bytes of a slot, with its header, that stay backed; more is given back when the slot is used next.
    keep: u64,
    /// The fault that kept a commit from publishing.
    broken: Option<Corrupt>,
}

impl<T: ?Sized> fmt::Debug for Producer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.next)
            .finish_non_exhaustive()
    }
}

impl<'m, T: Form + ?Sized> Producer<'m, T> {
    /// Takes a writing end, and the slots of its seat.
    ///
    /// Fails with `Corrupt`.
    ///
    /// # Safety
    /// - All ends of this topic have the same words, and as many slots.
    /// - Only they write its words and its payloads.
    /// - No other producer has this seat until this one is gone. If there are no `pool.fellows`, the topic has no other seat for one.
    /// - `pool.slots` has a note for each slot of the seat.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        pool: Pool<'m>,
        limit: &'m mut CachedLimit,
    ) -> Result<Self, Error> {
        let topic = ring.topic;
        let next = topic.newest()?;
        if next > 0 {
            // Its producer may have died before it told the head.
            topic.advance(next - 1);
        }
        limit.set(0);
        let first = ring.seat * pool.slots.len() as u64;
        let stride = ring.samples.stride();
        // Relaxed: the seat's own, and its lock has brought it. A figure: a stranger may have written it.
        let before = ring.messages.load(Ordering::Relaxed);
        let slots = Slots::new(
            pool.slots,
            first,
            &topic,
            next,
            stride,
            ring.gating_set,
            pool.consumers,
        );
        if let Some(backing) = pool.backing {
            give_back_fresh(&slots, stride, backing);
        }
        Ok(Producer {
            topic,
            samples: ring.samples,
            pool: slots,
            next,
            done: 0,
            limit,
            position: ring.position,
            messages: ring.messages,
            before,
            gating_set: ring.gating_set,
            consumers: pool.consumers,
            notifier: ring.notifier,
            fellows: pool.fellows,
            backing: pool.backing,
            clock: pool.clock,
            seat: ring.seat,
            fails_alone: false,
            keep: u64::MAX,
            broken: None,
        })
    }

    /// Returns the number of slots known to be free.
    #[inline]
    fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.done)
    }

    /// Renews the cached limit. While the producer is to fail alone, each step asks again.
    #[inline]
    fn note_free(&self, free: usize) {
        self.limit.set(self.done + free as u64);
    }

    /// Looks for free slots, with memory for `amount`. This is the rare case.
    #[cold]
    #[inline(never)]
    fn look(&mut self, amount: u64) -> Poll {
        // The slow path tells of the fault.
        if self.broken.is_some() {
            return Poll::Unclear;
        }
        match self.prepare(amount) {
            Ok(()) => Poll::Ready,
            Err(Error::Full) => Poll::NotReady,
            Err(_) => Poll::Unclear,
        }
    }

    /// Finds free slots for `amount`, and backs them with memory.
    fn prepare(&mut self, amount: u64) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if self.fails_alone && all_left(self.consumers.seats()) {
            return Err(Error::Disconnected(End::Finished));
        }
        // A producer that is alone does not ask at each message: it publishes at most its pool until it asks again.
        let pool = self.pool.len() as u64;
        if self.next.saturating_add(pool) > self.topic.last() {
            return Err(self.topic.disagree().into());
        }
        let max = self.most();
        let wanted = T::slots_for(self.samples.size(), amount)?;
        if wanted > max {
            return Err(Error::TooLarge { asked: wanted, max });
        }
        if (self.pool.free() as u64) < wanted || self.pool.has_heavy() {
            let before = self.pool.free();
            let (gating_set, consumers) = (self.gating_set, self.consumers);
            self.pool
                .refill(wanted as usize, &self.topic, gating_set, consumers);
            self.shed(before);
        }
        if (self.pool.free() as u64) < wanted {
            return Err(Error::Full);
        }
        let need = T::bytes_for(self.samples.size(), amount);
        let backed = self.back_next(wanted as usize, need);
        if matches!(backed, Err(Error::NoSpace { .. })) {
            self.reclaim();
            self.back_next(wanted as usize, need)?;
        } else {
            backed?;
        }
        // While messages are in heavy slots, each step looks for those that were overwritten.
        self.note_free(match self.pool.has_heavy() {
            true => wanted as usize,
            false => self.pool.free(),
        });
        Ok(())
    }

    /// Returns the number of slots that it may claim at once. The ring may name as many of its slots as it has entries, and
    /// only others' messages would free one of those.
    fn most(&self) -> u64 {
        let spare = (self.pool.len() as u64).saturating_sub(self.topic.capacity());
        self.topic.capacity().min(spare)
    }

    /// Returns `true` if the next slots are free, and have memory for `amount`.
    #[inline]
    fn prepared(&mut self, amount: u64) -> bool {
        let Ok(wanted) = T::slots_for(self.samples.size(), amount) else {
            return false;
        };
        if self.known() < wanted || (wanted > 1 && wanted > self.most()) {
            return false;
        }
        if self.backing.is_none() {
            return true;
        }
        let need = T::bytes_for(self.samples.size(), amount);
        let (_, len) = self.samples.extent(0, need);
        (0..wanted as usize).all(|ahead| {
            let slot = self.pool.next(ahead);
            (len..=self.keep.max(len)).contains(&self.pool.note(slot).backed)
        })
    }

    /// Ends a step: while it is to fail alone, the next one asks again.
    #[inline]
    fn end_step(&self) {
        if self.fails_alone {
            self.note_free(0);
        }
    }

    /// Publishes the next free slot, with a payload of `len` bytes. Returns `false` if the words are impossible: then
    /// nothing was published, and the next call fails.
    #[inline]
    fn publish(&mut self, len: u64) -> bool {
        let slot = self.pool.number(self.pool.next(0));
        // SAFETY: the pool has slots of this producer alone, all below the number of slots.
        let header = unsafe { self.samples.header(slot) };
        // Relaxed, all: the entry's release publishes them.
        header.length.store(len, Ordering::Relaxed);
        header.publisher.store(self.seat, Ordering::Relaxed);
        let time = self.clock.map_or(0, |clock| clock());
        header.time.store(time, Ordering::Relaxed);
        let sequence = match self.fellows.is_none() {
            true => {
                header.sequence.store(self.next + 1, Ordering::Relaxed);
                self.topic.publish_alone(self.next, slot);
                self.next
            }
            false => match self.publish_among(header, slot) {
                Ok(sequence) => sequence,
                Err(corrupt) => {
                    self.broken = Some(corrupt);
                    self.note_free(0);
                    return false;
                }
            },
        };
        self.next = sequence + 1;
        self.pool.publish(sequence);
        self.done += 1;
        // Relaxed, both: for tools.
        self.position.store(self.next, Ordering::Relaxed);
        let messages = self.before.wrapping_add(self.done);
        self.messages.store(messages, Ordering::Relaxed);
        true
    }

    /// Publishes `slot` as the next message, whichever that is: other producers publish, too.
    #[inline]
    fn publish_among(&self, header: &SampleHeader, slot: u64) -> Result<u64, Corrupt> {
        let mut at = self.next;
        for _ in 0..TRIES {
            if at >= self.topic.last() {
                break;
            }
            let (before, age) = self.topic.look(at);
            match age {
                Age::Before => {
                    // Relaxed: as in `publish`. Nobody else sees the slot before the entry names it.
                    header.sequence.store(at + 1, Ordering::Relaxed);
                    if self.topic.publish(at, before, slot) {
                        self.topic.advance(at);
                        self.ring_displaced(before);
                        return Ok(at);
                    }
                }
                Age::Own => {
                    // The one who published it may be dead. If not, the head is further on.
                    at = self.topic.advance(at);
                }
                Age::After => at = self.topic.head()?,
            }
        }
        Err(self.topic.disagree())
    }

    /// Wakes the producer whose message was displaced, if it is another one: it may wait for a free slot.
    #[inline]
    fn ring_displaced(&self, before: Entry) {
        let foreign = |slot| self.pool.is_foreign(slot);
        if let Some(fellows) = &self.fellows
            && before.slot(u64::MAX).is_ok_and(foreign)
        {
            fellows.ring();
        }
    }

    /// Returns the number of the reserved slot `index`: the free slots that come next are reserved.
    #[inline]
    fn reserved(&self, index: usize) -> u64 {
        self.pool.number(self.pool.next(index))
    }

    /// Publishes the first `count` reserved slots in order, each of `len` bytes.
    fn commit_slots(&mut self, count: usize, len: u64) {
        for _ in 0..count {
            if !self.publish(len) {
                break;
            }
        }
        self.notifier.ring();
        self.end_step();
    }
}

impl<T: ?Sized> Sealed for Producer<'_, T> {}

impl<T: Form + ?Sized> Endpoint for Producer<'_, T> {
    const NOT_READY: Error = Error::Full;

    #[inline]
    fn poll(&mut self, amount: usize) -> Poll {
        match self.prepared(amount as u64) {
            true => Poll::Ready,
            false => self.look(amount as u64),
        }
    }

    fn slow_path(&mut self, amount: usize) -> Result<(), Error> {
        if let Some(corrupt) = self.broken.take() {
            return Err(corrupt.into());
        }
        self.prepare(amount as u64)
    }

    /// Returns `None`: consumers come and go, so there is no single end to report.
    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }

    fn capacity(&self) -> usize {
        self.topic.capacity() as usize
    }

    /// Returns the number of messages that this end knows to be published.
    fn position(&self) -> u64 {
        self.next
    }

    /// Returns the number of messages that can be read.
    fn len(&self) -> Result<usize, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        Ok(self.topic.newest()?.min(self.topic.capacity()) as usize)
    }
}

impl<T: Form + ?Sized> Producer<'_, T> {
    /// See [`Reserve::fail_alone`].
    fn fail_when_alone(&mut self, on: bool) {
        self.fails_alone = on;
        if self.limit.alive() {
            self.note_free(0);
        }
    }
}

impl<T: Copy> Push for Producer<'_, T> {
    type Value = T;

    #[inline(always)]
    unsafe fn put(&mut self, value: &T) -> bool {
        // SAFETY: the caller's poll found a free slot of this producer.
        unsafe { self.samples.write(self.reserved(0), value) };
        let published = self.publish(self.samples.size());
        self.notifier.ring();
        self.end_step();
        published
    }

    #[inline]
    unsafe fn write(&mut self, index: usize, value: T) {
        // SAFETY: the caller's claim found that many free slots of this producer.
        unsafe { self.samples.write(self.reserved(index), &value) };
    }

    /// Publishes the values one after another: another producer's may come in between.
    fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        self.try_push_iter(&mut values.iter().copied())
    }

    fn try_push_iter(&mut self, values: &mut impl Iterator<Item = T>) -> Result<usize, Error> {
        let mut count = 0;
        loop {
            if values.size_hint().1 == Some(0) {
                return Ok(count);
            }
            match self.ensure(1) {
                Ok(()) => {}
                Err(error) if count == 0 => return Err(error),
                Err(_) => return Ok(count),
            }
            let Some(value) = values.next() else {
                return Ok(count);
            };
            // An iterator may run any code: it may have forked.
            if !self.limit.alive() {
                return Err(Error::Forked);
            }
            // SAFETY: `ensure` succeeded.
            if !unsafe { self.put(&value) } {
                self.ensure(1)?;
            }
            count += 1;
        }
    }
}

impl<T: Copy> Reserve for Producer<'_, T> {
    /// Claims slots. They are published one after another: another producer's messages may come in between.
    #[inline]
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        self.ensure(amount)
    }

    fn fail_alone(&mut self, on: bool) {
        self.fail_when_alone(on);
    }

    fn room_for(&self, amount: usize) -> Result<u64, Error> {
        let (asked, max) = (amount as u64, self.most());
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        Ok(asked)
    }

    unsafe fn commit_claimed(&mut self, amount: usize) {
        if amount > 0 && self.limit.alive() {
            self.commit_slots(amount, self.samples.size());
        }
    }
}

impl Reserve for Producer<'_, [u8]> {
    fn fail_alone(&mut self, on: bool) {
        self.fail_when_alone(on);
    }

    fn room_for(&self, amount: usize) -> Result<u64, Error> {
        <[u8]>::slots_for(self.samples.size(), amount as u64)
    }

    unsafe fn commit_claimed(&mut self, amount: usize) {
        if self.limit.alive() {
            self.commit_slots(1, amount as u64);
        }
    }
}

impl PushRecord for Producer<'_, [u8]> {
    fn max_record(&self) -> usize {
        self.samples.size() as usize
    }

    #[inline]
    unsafe fn put_record(&mut self, payload: &[u8]) -> bool {
        // SAFETY: the caller's poll found a free slot of this producer, and compared the length with its size.
        let bytes = unsafe { self.samples.bytes_mut(self.reserved(0), payload.len()) };
        bytes.copy_from_slice(payload);
        let published = self.publish(payload.len() as u64);
        self.notifier.ring();
        self.end_step();
        published
    }

    #[inline]
    unsafe fn claimed<'a>(&self, len: usize) -> &'a [u8] {
        // SAFETY: the claim found a free slot of this producer, for at least `len` bytes.
        unsafe { self.samples.content(self.reserved(0), len) }
    }

    #[inline]
    unsafe fn claimed_mut<'a>(&mut self, len: usize) -> &'a mut [u8] {
        // SAFETY: as in `claimed`; the caller has no other reference to it.
        unsafe { self.samples.bytes_mut(self.reserved(0), len) }
    }
}

//! The consumers of a `broadcast` channel. See the head of `broadcast.rs`.

use core::mem::MaybeUninit;

use super::{Look, Ring, Seek, Store};
use crate::cursor::{LAST, Reader, Words};
use crate::error::{Corrupt, Error};
use crate::lease::Lease;
use crate::mem::Stamped;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering, fence};

/// How many slots ahead a consumer asks for a line: only committed ones, see `spsc.rs`.
const AHEAD: u64 = 8;

/// The most parts that the messages can be shared out in.
const MOST_PARTS: u64 = 1 << 32;

/// No message has a number beyond this, nor near it.
const TOP: u64 = u64::MAX - (1 << 47);

/// So many looks in vain, and the tail is looked at as well.
const LOOKS: u32 = 64;

/// A consumer that learns of news by the stamps asks after so many messages whether it was forked.
const LEASE: u64 = 1 << 16;

/// The words by which a consumer stands somewhere in the ring: with them it joins, and with them its
/// place is cleared when it left or died.
#[derive(Clone, Copy)]
pub struct Seat<'m> {
    /// Where it stands: its role page's position.
    pub position: &'m AtomicU64,
    /// The producer's.
    pub gate: &'m AtomicU64,
    /// Whom the producer waits for.
    pub members: &'m AtomicU64,
    /// Its bit in `members`; 0 where messages are overwritten, since nobody waits then.
    pub bit: u64,
    /// How many messages the ring holds.
    pub capacity: u64,
}

impl Seat<'_> {
    /// Stands at `wanted`, or at the oldest message that is safe if that is further on; says where.
    fn stand(&self, wanted: u64) -> u64 {
        if self.bit == 0 {
            self.position.store(wanted, Ordering::Release);
            return wanted;
        }
        let first = wanted.max(self.floor());
        // Release: as a release. Before the bit.
        self.position.store(first, Ordering::Release);
        // Release: pairs with the acquire in `Producer::slowest`.
        self.members.fetch_or(self.bit, Ordering::Release);
        // SeqCst: pairs with the fence in `Producer::raise`; see *the gate*.
        fence(Ordering::SeqCst);
        let then = first.max(self.floor());
        if then != first {
            // Release: as a release.
            self.position.store(then, Ordering::Release);
        }
        then
    }

    /// The oldest message that the producer has not been free to overwrite.
    fn floor(&self) -> u64 {
        // Acquire: pairs with the release in `Producer::raise`: who sees a gate sees a tail that is at most
        // a ring behind.
        self.gate
            .load(Ordering::Acquire)
            .saturating_sub(self.capacity)
    }

    /// From now on nobody waits for this seat. The caller holds its lock.
    pub fn leave(&self) {
        // Release: pairs with the acquire in `Producer::slowest`; our reads come before.
        self.members.fetch_and(!self.bit, Ordering::Release);
    }
}

/// A reading end.
pub struct Consumer<'m, T> {
    reader: Reader<'m>,
    seat: Seat<'m>,
    store: Store<'m, T>,
    /// Every so many messages one is ours.
    stride: u64,
    /// Which of them.
    index: u64,
    /// Looks at the stamp in vain, one after another.
    misses: u32,
}

impl<'m, T: Copy> Consumer<'m, T> {
    /// Takes a reading end, and begins where `seek` says: `Ahead`, `Corrupt`.
    ///
    /// # Safety
    /// `ring` and `seat` are those that the other ends have, too; nothing but the ends writes their words
    /// or the payloads; nobody else stands in that seat until this consumer is gone; a `T` has no padding
    /// and no pointers, and every bit pattern is one.
    pub unsafe fn new(
        ring: Ring<'m, T>,
        seat: Seat<'m>,
        peer: Peer<'m>,
        lease: &'m mut Lease,
        seek: Seek,
    ) -> Result<Self, Error> {
        let place = place(ring.tail, &seat, seek)?;
        let at = standing(ring.tail, &seat, place).inspect_err(|_| seat.leave())?;
        let words = Words {
            tail: ring.tail,
            head: seat.position,
            capacity: seat.capacity,
            unit: 1,
            ahead: 0,
        };
        Ok(Consumer {
            reader: Reader::standing_at(at, words, ring.bell, peer, lease),
            seat,
            store: ring.store,
            stride: 1,
            index: 0,
            misses: 0,
        })
    }

    /// Takes the oldest message: `Empty`, `Lagged`, `Disconnected` (empty, and no producer), `Corrupt`.
    #[inline]
    pub fn try_pop(&mut self) -> Result<T, Error> {
        self.ensure()?;
        let mut value = MaybeUninit::uninit();
        // SAFETY: `ensure` has just said so.
        if unsafe { self.take(&mut value) } {
            // SAFETY: taken.
            Ok(unsafe { value.assume_init() })
        } else {
            Err(self.overrun())
        }
    }

    /// Why a message that was there could not be taken.
    #[cold]
    #[inline(never)]
    pub fn overrun(&mut self) -> Error {
        match self.ensure() {
            Err(error) => error,
            // A stamp that comes again is a stranger's.
            Ok(()) => sequence(0, self.reader.at() + 1).into(),
        }
    }

    /// Makes sure that there is a message, without taking it.
    #[inline]
    pub fn ensure(&mut self) -> Result<(), Error> {
        match self.poll() {
            Look::Enough => Ok(()),
            Look::Nothing => Err(Error::Empty),
            Look::Trouble => self.trouble(),
        }
    }

    /// As [`ensure`](Self::ensure), in one word: for loops that try again and again.
    #[inline]
    pub fn poll(&mut self) -> Look {
        match &self.store {
            Store::Plain(_) => self.reader.poll(1),
            Store::Stamped(slots) => {
                let at = self.reader.at();
                // Acquire: pairs with the release in `finish`; the payload comes before.
                let stamp = slots.stamp(at).load(Ordering::Acquire);
                if stamp == at + 1 && self.reader.known() > 0 {
                    Look::Enough
                } else {
                    self.glance()
                }
            }
        }
    }

    /// The rarer answers of a stamp.
    #[cold]
    #[inline(never)]
    fn glance(&mut self) -> Look {
        let Store::Stamped(slots) = self.store else {
            return Look::Trouble;
        };
        if !self.reader.ours() {
            return Look::Trouble;
        }
        let at = self.reader.at();
        self.reader.set_limit(at.saturating_add(LEASE));
        let idle = self.reader.slip.idle();
        let mut there = at;
        if !idle {
            // One that keeps up with its producer would take each line from its hands: see `slip.rs`.
            self.reader.slip.pause();
            there = self.reader.tail();
        }
        // Acquire: as in `poll`.
        let stamp = slots.stamp(at).load(Ordering::Acquire);
        // What is stamped may not be published yet.
        let gained = u64::from(stamp == at + 1).max(there.saturating_sub(at));
        if !idle || gained > 0 {
            let slip = &mut self.reader.slip;
            slip.found(gained, self.stride, self.seat.capacity);
        }
        self.misses = self.misses.wrapping_add(1);
        if stamp == at + 1 {
            Look::Enough
        } else if stamp <= at
            && self.reader.peer.quiet()
            // Else a scribbled stamp would be *not yet* for ever.
            && (!self.misses.is_multiple_of(LOOKS) || self.reader.tail() <= at)
        {
            Look::Nothing
        } else {
            Look::Trouble
        }
    }

    /// What a look could not say in one word.
    #[cold]
    #[inline(never)]
    pub fn trouble(&mut self) -> Result<(), Error> {
        let Store::Stamped(slots) = self.store else {
            return self.reader.trouble();
        };
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        if self.there(&slots)? {
            return Ok(());
        }
        let (at, tail) = (self.reader.at(), self.reader.tail());
        match self.reader.peer.end(at.min(tail))? {
            // It may have committed more just before it left.
            Some(_) if self.there(&slots)? => Ok(()),
            Some(news) => Err(Error::Disconnected(self.reader.peer.tell(news))),
            // The tail was loaded before, so what it tells of must be there by now.
            None if tail > at && !self.there(&slots)? => {
                let stamp = slots.stamp(at).load(Ordering::Relaxed);
                Err(sequence(stamp, at + 1).into())
            }
            None => Err(Error::Empty),
        }
    }

    /// Whether our next message is there; `Lagged` if it was.
    fn there(&mut self, slots: &Stamped<'m, T>) -> Result<bool, Error> {
        let at = self.reader.at();
        // Acquire: pairs with the releases in `begin` and `finish`.
        let stamp = slots.stamp(at).load(Ordering::Acquire);
        if stamp > at + 1 {
            return Err(self.overtaken(slots, stamp));
        }
        Ok(stamp == at + 1)
    }

    /// The producer has come round to our slot: goes on further ahead, and says how many of our messages
    /// that has cost.
    fn overtaken(&mut self, slots: &Stamped<'m, T>, stamp: u64) -> Error {
        let (at, capacity) = (self.reader.at(), self.seat.capacity);
        let mask = capacity - 1;
        // Which message is in our slot, or on its way into it.
        let there = match stamp & mask {
            part if part == (at + 1) & mask => stamp - 1,
            part if part == at & mask => stamp,
            _ => return sequence(stamp, at + 1).into(),
        };
        let tail = self.reader.tail();
        // Stamped after a tail that is at most a ring behind; and what is before the tail, less a ring, is
        // gone, from our slot as well. (Acquire: pairs with the release in `begin`, so the tail is not older.)
        let possible = there < tail.saturating_add(capacity) && there.max(tail) <= TOP;
        let stamp = slots.stamp(at).load(Ordering::Acquire);
        if !possible || tail > stamp.saturating_add(capacity) {
            return sequence(stamp, tail.saturating_add(capacity)).into();
        }
        let head = tail.max(there + 1);
        // Not beyond the tail: what a reservation has given up is gone, what it may bring is not.
        let to = (head - capacity + capacity / 8).min(tail).max(at + 1);
        let lost = (to - at).div_ceil(self.stride);
        self.reader.go_to(at + lost * self.stride, self.stride - 1);
        Error::Lagged(lost)
    }

    /// Whether nobody overwrites what this consumer has not read: then [`pop_ensured`](Self::pop_ensured) takes
    /// it, else [`take`](Self::take).
    #[inline(always)]
    pub fn keeps(&self) -> bool {
        matches!(self.store, Store::Plain(_))
    }

    /// Takes the message that [`ensure`](Self::ensure) found: by value, since one that goes through memory
    /// makes whoever uses it wait for that store.
    ///
    /// # Safety
    /// As for `take`, and the channel `keeps`.
    #[inline(always)]
    pub unsafe fn pop_ensured(&mut self) -> T {
        let Store::Plain(slots) = &self.store else {
            // SAFETY: the caller's promise: it keeps.
            unsafe { core::hint::unreachable_unchecked() }
        };
        let at = self.reader.at();
        if size_of::<T>() >= 32 && self.reader.known() > AHEAD {
            slots.prefetch(at + AHEAD);
        }
        // SAFETY: before the tail, acquired, and not written until we release.
        let value = unsafe { slots.read(at) };
        self.reader.release(self.stride);
        value
    }

    /// Takes the message that [`ensure`](Self::ensure) found, into `value`: not if it has been overwritten
    /// since; then `value` holds any bits. Either way all of its bytes are written.
    ///
    /// # Safety
    /// `ensure` succeeded, or `poll` said `Enough`; nothing was taken since, and this process has not
    /// forked into another.
    #[inline(always)]
    pub unsafe fn take(&mut self, value: &mut MaybeUninit<T>) -> bool {
        let at = self.reader.at();
        match &self.store {
            Store::Plain(_) => {
                // SAFETY: the caller's promise, and it keeps.
                value.write(unsafe { self.pop_ensured() });
                return true;
            }
            Store::Stamped(slots) => {
                slots.load(at, value);
                // Acquire fence: pairs with the release fence in `Producer::write`.
                fence(Ordering::Acquire);
                if slots.stamp(at).load(Ordering::Relaxed) != at + 1 {
                    return false;
                }
            }
        }
        self.reader.release(self.stride);
        true
    }

    /// Copies up to `out.len()` messages into `out`, and says how many: at least one, or an error (none if
    /// `out` is empty). What lies behind those in `out` may have changed.
    #[inline]
    pub fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        if out.is_empty() {
            return Ok(0);
        }
        self.ensure()?;
        if let Store::Plain(slots) = self.store
            && self.stride == 1
        {
            let count = out.len().min(self.known());
            // SAFETY: so many are before the tail, acquired, and not written until we release.
            let (front, back) = unsafe { slots.slices(self.reader.at(), count) };
            let (first, rest) = out[..count].split_at_mut(front.len());
            first.copy_from_slice(front);
            rest.copy_from_slice(back);
            self.reader.release(count as u64);
            return Ok(count);
        }
        let mut count = 0;
        for place in out {
            // What is known already is a batch, too; and what goes wrong is told at the next call.
            let more = match &self.store {
                Store::Plain(_) => self.reader.known() > 0,
                Store::Stamped(_) => self.poll() == Look::Enough,
            };
            if !more {
                break;
            }
            let place = core::ptr::from_mut(place).cast::<MaybeUninit<T>>();
            // SAFETY: a `T` is a `MaybeUninit` of it, into which `take` writes nothing but whole bytes, any of
            // which are a `T`.
            let place = unsafe { &mut *place };
            // SAFETY: there is a message, see above.
            if !unsafe { self.take(place) } {
                break;
            }
            count += 1;
        }
        match count {
            // Overtaken at the first.
            0 => Err(self.ensure().err().unwrap_or(Error::Empty)),
            count => Ok(count),
        }
    }

    /// How many of our messages are known to be there.
    #[inline]
    fn known(&self) -> usize {
        self.reader.known().div_ceil(self.stride) as usize
    }

    /// Up to `max` messages in place: at least one, or an error; `Overwritten` where the producer does not
    /// wait until they are released.
    #[inline]
    pub fn try_read(&mut self, max: usize) -> Result<Messages<'_, 'm, T>, Error> {
        if let Store::Stamped(_) = self.store {
            return Err(Error::Overwritten);
        }
        if max > 0 {
            self.ensure()?;
        }
        let count = max.min(self.known());
        Ok(Messages {
            consumer: self,
            count,
        })
    }

    /// From now on only every `of`th message is ours: those whose number leaves `index` when divided by
    /// `of`. `Stride` unless `index` is below `of`.
    pub fn stride(&mut self, index: u64, of: u64) -> Result<(), Error> {
        if index >= of || of > MOST_PARTS {
            return Err(Error::Stride { index, of });
        }
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        (self.index, self.stride) = (index, of);
        self.go_to(self.reader.at());
        Ok(())
    }

    /// Goes on where `to` says, and says which message that is: `Ahead`, `Corrupt`.
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        let tail = self.reader.tail_word();
        let place = place(tail, &self.seat, to)?;
        // Where it stands, and is waited for, whether or not that is possible.
        self.go_to(place);
        standing(tail, &self.seat, place)?;
        Ok(self.reader.at())
    }

    /// Goes on at our first message from `at` on.
    fn go_to(&mut self, at: u64) {
        let on = (self.index + self.stride - at % self.stride) % self.stride;
        self.reader.go_to(at.saturating_add(on), self.stride - 1);
    }

    /// How many of our messages are committed and not yet taken. Where messages are overwritten, some of
    /// them may be gone.
    pub fn len(&self) -> Result<usize, Error> {
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        let ahead = self.reader.tail().saturating_sub(self.reader.at());
        Ok(ahead.div_ceil(self.stride) as usize)
    }

    /// Whether every committed message of ours is taken.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// How many messages the ring holds.
    pub fn capacity(&self) -> usize {
        self.store.capacity() as usize
    }

    /// The number of our next message, counted from the channel's first.
    pub fn position(&self) -> u64 {
        self.reader.at()
    }

    /// What is known of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.reader.peer
    }
}

/// Stands where `seek` says.
fn place(tail: &AtomicU64, seat: &Seat<'_>, seek: Seek) -> Result<u64, Error> {
    // Acquire: pairs with the release in `Producer::commit`.
    let newest = tail.load(Ordering::Acquire);
    if newest > LAST {
        let (word, found, expected) = ("tail", newest, LAST);
        return Err(Corrupt {
            word,
            found,
            expected,
        }
        .into());
    }
    let oldest = newest.saturating_sub(seat.capacity);
    let wanted = match seek {
        Seek::Oldest => oldest,
        Seek::Newest => newest,
        Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
        Seek::To(asked) if seat.bit == 0 => asked,
        Seek::To(asked) => asked.max(oldest),
    };
    Ok(seat.stand(wanted))
}

/// That somebody may stand at `at`.
fn standing(tail: &AtomicU64, seat: &Seat<'_>, at: u64) -> Result<u64, Error> {
    // Acquire: as in `place`. The gate is at most a ring ahead of the tail, which may have gone on since.
    let newest = tail.load(Ordering::Acquire);
    if seat.bit != 0 && at > newest {
        let (word, found, expected) = ("gate", at.saturating_add(seat.capacity), newest);
        return Err(Corrupt {
            word,
            found,
            expected,
        }
        .into());
    }
    Ok(at)
}

/// A stamp that cannot be there.
pub(super) fn sequence(found: u64, expected: u64) -> Corrupt {
    Corrupt {
        word: "stamp",
        found,
        expected,
    }
}

/// Messages read in place. Dropping it releases them all.
pub struct Messages<'c, 'm, T: Copy> {
    consumer: &'c mut Consumer<'m, T>,
    count: usize,
}

impl<T: Copy> Messages<'_, '_, T> {
    /// How many messages there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none (only after `try_read(0)`).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The messages in order: up to the ring's end, and from its start. Nothing for a consumer whose
    /// messages are not neighbours (a stride of more than one).
    #[inline]
    pub fn as_slices(&self) -> Option<(&[T], &[T])> {
        match &self.consumer.store {
            Store::Plain(slots) if self.consumer.stride == 1 => {
                let at = self.consumer.reader.at();
                // SAFETY: before the tail, acquired, and not written until we release.
                Some(unsafe { slots.slices(at, self.count) })
            }
            _ => None,
        }
    }

    /// The messages in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (at, stride) = (self.consumer.reader.at(), self.consumer.stride);
        let slots = match &self.consumer.store {
            Store::Plain(slots) => Some(slots),
            // `try_read` makes no guard there.
            Store::Stamped(_) => None,
        };
        slots.into_iter().flat_map(move |slots| {
            // SAFETY: before the tail, acquired, and not written until we release.
            (0..self.count as u64).map(move |i| unsafe { slots.get(at + i * stride) })
        })
    }

    /// Releases the first `count` messages and leaves the rest to be read again.
    ///
    /// # Panics
    /// If `count` is more than `len`, as for a slice.
    #[inline]
    pub fn release(mut self, count: usize) {
        assert!(
            count <= self.count,
            "release of {count} messages of {}",
            self.count
        );
        self.count = count;
    }
}

impl<T: Copy> Drop for Messages<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 && self.consumer.reader.ours() {
            let amount = self.count as u64 * self.consumer.stride;
            self.consumer.reader.release(amount);
        }
    }
}

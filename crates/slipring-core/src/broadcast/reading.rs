//! The consumers of a `broadcast` channel. See the head of `broadcast.rs`.

use core::fmt;
use core::mem::{ManuallyDrop, MaybeUninit};

use super::{Look, Ring, Seek, Store, first, newest, oldest, overtaken, whole};
use crate::cursor::{Reader, Words};
use crate::error::{Corrupt, Error};
use crate::lease::Lease;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering, fence};

/// How many slots ahead a consumer asks for a line: only committed ones, see `spsc.rs`.
const AHEAD: u64 = 32;

/// The most parts that the messages can be shared out in.
const MOST_PARTS: u64 = 1 << 32;

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
            // Relaxed: nobody waits for it; for tools.
            self.position.store(wanted, Ordering::Relaxed);
            return wanted;
        }
        let first = wanted.max(self.floor());
        // Release: as a release, of what it passes over.
        self.position.store(first, Ordering::Release);
        // Relaxed: before the fence, as the position. A producer that sees the bit alone, and a position of this
        // seat's last holder, looks again behind its fence.
        self.members.fetch_or(self.bit, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `Producer::raise`; see *the gate*.
        fence(Ordering::SeqCst);
        let then = first.max(self.floor());
        if then != first {
            // Relaxed: what this passes over we had released before, else there were no such gate.
            self.position.store(then, Ordering::Relaxed);
        }
        then
    }

    /// The oldest message that the producer has not been free to overwrite.
    fn floor(&self) -> u64 {
        oldest(self.gate, self.capacity)
    }

    /// From now on nobody waits for this seat. The caller holds its lock.
    pub fn leave(&self) {
        super::leave(self.members, self.bit);
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
}

impl<T> fmt::Debug for Consumer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.reader.at())
            .field("capacity", &self.seat.capacity)
            .field("stride", &self.stride)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
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
        let place = place(first(ring.tail, seat.gate)?, &seat, seek)?;
        let at = standing(ring.tail, &seat, place).inspect_err(|_| seat.leave())?;
        let words = Words {
            tail: ring.tail,
            head: seat.position,
            capacity: seat.capacity,
            gate: Some(ring.gate),
            writable: ring.writable,
            waits: matches!(ring.store, Store::Plain(_)),
            unit: 1,
            ahead: 0,
        };
        Ok(Consumer {
            reader: Reader::standing_at(at, words, ring.bell, peer, lease),
            seat,
            store: ring.store,
            stride: 1,
            index: 0,
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

    /// Why a message that was there could not be taken: goes on further ahead, and says how many of our messages
    /// that has cost.
    #[cold]
    #[inline(never)]
    pub fn overrun(&mut self) -> Error {
        let (at, seat) = (self.reader.at(), &self.seat);
        match overtaken(self.reader.tail_word(), seat.gate, seat.capacity, at) {
            Ok(Some(to)) => {
                let lost = (to - at).div_ceil(self.stride);
                self.reader.go_to(at + lost * self.stride, self.stride - 1);
                Error::Lagged(lost)
            }
            // It was gone, and gates are never taken back.
            Ok(None) => self.unknown(gate_error(at + seat.capacity, at + seat.capacity + 1)),
            Err(corrupt) => self.unknown(corrupt.into()),
        }
    }

    /// Nothing is known any more of what is there: the words told of what cannot be.
    fn unknown(&mut self, error: Error) -> Error {
        self.reader.forget();
        error
    }

    /// Makes sure that there is a message, without taking it. (It may be gone before it is taken, where messages
    /// are overwritten.)
    #[inline]
    pub fn ensure(&mut self) -> Result<(), Error> {
        self.reader.ensure(self.stride)
    }

    /// As [`ensure`](Self::ensure), in one word: for loops that try again and again.
    #[inline]
    pub fn poll(&mut self) -> Look {
        self.reader.poll(self.stride)
    }

    /// What a look could not say in one word.
    pub fn trouble(&mut self) -> Result<(), Error> {
        self.reader.trouble()
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
        if let Store::Plain(slots) = &self.store
            && size_of::<T>() >= 32
            && self.reader.known() > AHEAD
        {
            slots.prefetch(at + AHEAD);
        }
        // SAFETY: where the slots are plain: before the tail, acquired, and not written until we release.
        unsafe { self.store.read(at, value) };
        if !self.whole() {
            return false;
        }
        self.release(1);
        true
    }

    /// Whether what was copied of our message, and of those behind it, is what was committed.
    #[inline(always)]
    fn whole(&self) -> bool {
        match self.store {
            Store::Plain(_) => true,
            Store::Racing(_) => whole(self.seat.gate, self.seat.capacity, self.reader.at()),
        }
    }

    /// Copies up to `out.len()` messages into `out`, and says how many: at least one, or an error (none if
    /// `out` is empty); where messages are overwritten, an eighth of the ring at most. What lies behind those in
    /// `out` may have changed.
    #[inline]
    pub fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        if out.is_empty() {
            return Ok(0);
        }
        self.ensure()?;
        let mut count = out.len().min(self.known());
        if let Store::Racing(slots) = &self.store {
            // No more than the producer leaves to one that was overtaken; and nothing that is gone already.
            count = count.min((slots.capacity() / 8).max(1) as usize);
            if count > 1 && !self.whole() {
                return Err(self.overrun());
            }
        }
        let (at, out) = (self.reader.at(), &mut out[..count]);
        match &self.store {
            Store::Plain(slots) if self.stride == 1 => {
                // SAFETY: so many are before the tail, acquired, and not written until we release.
                let (front, back) = unsafe { slots.slices(at, count) };
                let (first, rest) = out.split_at_mut(front.len());
                first.copy_from_slice(front);
                rest.copy_from_slice(back);
            }
            store => {
                for (place, i) in out.iter_mut().zip(0..) {
                    let place = core::ptr::from_mut(place).cast::<MaybeUninit<T>>();
                    // SAFETY: a `T` is a `MaybeUninit` of it, into which `read` writes nothing but whole
                    // bytes, any of which are a `T`.
                    let place = unsafe { &mut *place };
                    // SAFETY: as in `take`.
                    unsafe { store.read(at + i * self.stride, place) };
                }
            }
        }
        // Overtaken are the oldest first.
        if !self.whole() {
            return Err(self.overrun());
        }
        self.release(count);
        Ok(count)
    }

    /// Releases `count` of our messages, which were handed out.
    #[inline(always)]
    fn release(&mut self, count: usize) {
        let (at, count) = (self.reader.at(), count as u64);
        if self.reader.hands_back() {
            // SAFETY: not released yet; a reader hands back only what may be written.
            unsafe { self.store.hand_back(at, count, self.stride) };
        }
        self.reader.release(count * self.stride);
    }

    /// How many of our messages are known to be there.
    #[inline]
    fn known(&self) -> usize {
        let known = self.reader.known();
        // A division is as dear as all else that a message costs.
        match self.stride {
            1 => known as usize,
            stride => known.div_ceil(stride) as usize,
        }
    }

    /// Up to `max` messages in place: at least one, or an error; `Overwritten` where the producer does not
    /// wait until they are released.
    #[inline]
    pub fn try_read(&mut self, max: usize) -> Result<Messages<'_, 'm, T>, Error> {
        if let Store::Racing(_) = self.store {
            return Err(Error::Overwritten);
        }
        if max > 0 {
            self.ensure()?;
        }
        let count = max.min(self.known());
        self.reader.begin_guard();
        Ok(Messages {
            consumer: self,
            count,
        })
    }

    /// From now on only every `of`th message is ours: those whose number leaves `index` when divided by
    /// `of`. `Stride` unless `index` is below `of`, and that at most 2^32.
    pub fn stride(&mut self, index: u64, of: u64) -> Result<(), Error> {
        if index >= of || of > MOST_PARTS {
            return Err(Error::Stride { index, of });
        }
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        (self.index, self.stride) = (index, of);
        // It may have skipped further than it now would: until the tail has caught up.
        let ahead = self.reader.ahead().saturating_add(of - 1);
        self.go_to(self.reader.at(), ahead);
        Ok(())
    }

    /// Goes on where `to` says, and says which message that is: `Ahead`, `Corrupt`.
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        let tail = self.reader.tail_word();
        let place = place(newest(tail, self.seat.gate)?, &self.seat, to)?;
        // Where it stands, and is waited for, whether or not that is possible.
        self.go_to(place, self.stride - 1);
        standing(tail, &self.seat, place)?;
        Ok(self.reader.at())
    }

    /// Goes on at our first message from `at` on, so far ahead of the tail at most.
    fn go_to(&mut self, at: u64, ahead: u64) {
        let on = (self.index + self.stride - at % self.stride) % self.stride;
        self.reader.go_to(at.saturating_add(on), ahead);
    }

    /// How many of our messages are committed and not yet taken. Where messages are overwritten, some of
    /// them may be gone.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.reader.len()?.div_ceil(self.stride) as usize)
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
fn place(newest: u64, seat: &Seat<'_>, seek: Seek) -> Result<u64, Error> {
    let oldest = newest.saturating_sub(seat.capacity).max(seat.floor());
    let wanted = match seek {
        // Not beyond the newest that we know of, though the gate may tell of later ones.
        Seek::Oldest => oldest.min(newest),
        Seek::Newest => newest,
        Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
        Seek::To(asked) if seat.bit == 0 => asked,
        Seek::To(asked) => asked.max(oldest),
    };
    Ok(seat.stand(wanted))
}

/// That somebody may stand at `at`.
fn standing(tail: &AtomicU64, seat: &Seat<'_>, at: u64) -> Result<u64, Error> {
    // Relaxed: nothing is read that it tells of; and whoever saw the gate, acquired, sees no tail from before it, of
    // which that is at most a ring ahead.
    let newest = tail.load(Ordering::Relaxed);
    if seat.bit != 0 && at > newest {
        let [found, expected] = [at, newest].map(|at| at.saturating_add(seat.capacity));
        return Err(gate_error(found, expected));
    }
    Ok(at)
}

/// A gate that cannot be.
fn gate_error(found: u64, expected: u64) -> Error {
    let word = "gate";
    Error::Corrupt(Corrupt {
        word,
        found,
        expected,
    })
}

/// Messages read in place. Dropping it releases them all; [`release`](Self::release) the first few;
/// [`keep`](Self::keep) none. A drop by a panic that began while it was held releases none either (with the
/// feature `std`): the next read sees them again. A kill while it is held releases all: nobody comes after a
/// consumer that would read its messages.
///
/// An early return by `?` is a drop like any other. A loop that may fail counts what it has dealt with, and
/// calls [`release`](Self::release): see the example at [`spsc::Messages`](crate::spsc::Messages).
pub struct Messages<'c, 'm, T: Copy> {
    consumer: &'c mut Consumer<'m, T>,
    count: usize,
}

impl<T: Copy> fmt::Debug for Messages<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("len", &self.count)
            .field("position", &self.consumer.reader.at())
            .field("stride", &self.consumer.stride)
            .finish_non_exhaustive()
    }
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
            Store::Racing(_) => None,
        };
        slots.into_iter().flat_map(move |slots| {
            // SAFETY: before the tail, acquired, and not written until we release.
            (0..self.count as u64).map(move |i| unsafe { slots.get(at + i * stride) })
        })
    }

    /// Releases the first `count` messages and leaves the rest to be read again; also while panicking.
    ///
    /// # Panics
    /// If `count` is more than `len`, as for a slice; then nothing is released.
    #[inline]
    pub fn release(self, count: usize) {
        // First: a guard that this panic dropped would release all, where `std` does not tell of the panic.
        let mut guard = ManuallyDrop::new(self);
        assert!(
            count <= guard.count,
            "release of {count} messages of {}",
            guard.count
        );
        if count > 0 && guard.consumer.reader.ours() {
            guard.consumer.release(count);
        }
    }

    /// Releases nothing: the next read sees all of the messages again.
    #[inline]
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<T: Copy> Drop for Messages<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 && self.consumer.reader.drop_releases() {
            self.consumer.release(self.count);
        }
    }
}

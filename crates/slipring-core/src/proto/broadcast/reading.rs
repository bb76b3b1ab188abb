//! Implements the consumers of a `broadcast` channel. See the head of `broadcast.rs`.

use core::fmt;
use core::mem::MaybeUninit;

use super::mode::Store;
use super::{Mode, Ring, Seek, Waiting, resume_at};
use crate::cached_limit::CachedLimit;
use crate::cursor::{Reader, Words};
use crate::end::{Endpoint, Poll, Pop, sealed::Sealed};
use crate::error::{Corrupt, Error};
use crate::gate::{Seat, first, newest, overtaken, whole};
use crate::guard::{self, Hold, Runs};
use crate::mem::Fixed;
use crate::payload::Payload;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering};

/// The most parts that consumers can divide the messages into.
const MOST_PARTS: u64 = 1 << 32;

/// A reading end.
pub struct Consumer<'m, T: Payload, M: Mode = Waiting> {
    reader: Reader<'m>,
    seat: Seat<'m>,
    slots: M::Slots<'m, T>,
    /// The number of messages of which one is ours.
    stride: u64,
    /// The remainder that our messages' numbers leave, divided by `stride`.
    index: u64,
    /// Counts lost messages, for tools.
    lagged: &'m AtomicU64,
}

impl<T: Payload, M: Mode> fmt::Debug for Consumer<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.reader.at())
            .field("capacity", &self.seat.capacity)
            .field("stride", &self.stride)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl<'m, T: Payload, M: Mode> Consumer<'m, T, M> {
    /// Takes a reading end, and begins where `seek` says.
    ///
    /// Fails with `Ahead` or `Corrupt`.
    ///
    /// # Safety
    /// - `ring` and `seat` are those that the other ends have, too.
    /// - Only the ends write their words and the payloads.
    /// - No other consumer stands in that seat until this one is gone.
    pub unsafe fn new(
        ring: Ring<'m, T, M>,
        seat: Seat<'m>,
        peer: Peer<'m>,
        cached_limit: &'m mut CachedLimit,
        seek: Seek,
    ) -> Result<Self, Error> {
        let place = place::<M>(first(ring.tail, seat.write_limit)?, &seat, seek)?;
        let at = standing::<M>(ring.tail, &seat, place).inspect_err(|_| seat.leave())?;
        let words = Words {
            tail: ring.tail,
            head: seat.position,
            capacity: seat.capacity,
            write_limit: Some(ring.write_limit),
            writable: ring.writable,
            most: match M::OVERWRITES {
                true => u64::MAX,
                false => seat.capacity,
            },
            unit: 1,
            ahead: 0,
            rings: None,
        };
        Ok(Consumer {
            reader: Reader::standing_at(at, words, ring.notifier, peer, cached_limit),
            seat,
            slots: ring.slots,
            stride: 1,
            index: 0,
            lagged: ring.lagged,
        })
    }

    /// Goes on further ahead after a message could not be taken, and returns the reason.
    ///
    /// The reason is `Lagged` with the number of our messages that it cost, or `Corrupt`.
    #[cold]
    #[inline(never)]
    fn overrun(&mut self) -> Error {
        let (at, seat) = (self.reader.at(), &self.seat);
        match overtaken(self.reader.tail_word(), seat.write_limit, seat.capacity, at) {
            Ok(Some((oldest, newest))) => {
                let to = resume_at(oldest, newest, seat.capacity);
                let lost = (to - at).div_ceil(self.stride);
                self.reader.go_to(at + lost * self.stride, self.stride - 1);
                // Relaxed: it has one writer, and tools read it.
                let sum = self.lagged.load(Ordering::Relaxed).wrapping_add(lost);
                self.lagged.store(sum, Ordering::Relaxed);
                Error::Lagged(lost)
            }
            // The message was gone, and the write limit never decreases.
            Ok(None) => self.unknown(Error::Corrupt(Corrupt {
                word: "write_limit",
                found: at + seat.capacity,
                expected: at + seat.capacity + 1,
            })),
            Err(corrupt) => self.unknown(corrupt.into()),
        }
    }

    /// Forgets what is known of the messages, since the words hold something impossible. Returns
    /// `error`.
    fn unknown(&mut self, error: Error) -> Error {
        self.reader.forget();
        error
    }

    /// Returns `true` if the copy of our message, and of those behind it, is what was committed.
    #[inline(always)]
    fn whole(&self) -> bool {
        !M::OVERWRITES || whole(self.seat.write_limit, self.seat.capacity, self.reader.at())
    }

    /// Releases `count` of our messages, which were handed out.
    #[inline(always)]
    fn release(&mut self, count: usize) {
        let (at, count) = (self.reader.at(), count as u64);
        if self.reader.transfers_lines() {
            // SAFETY: they are not released yet; a reader transfers lines back only if it may write
            // the slots.
            unsafe { self.slots.transfer_every(at, self.stride, count) };
        }
        self.reader.release(count * self.stride);
    }

    /// Returns the number of our messages that are known to be there.
    #[inline]
    fn known(&self) -> usize {
        let known = self.reader.known();
        // A division costs as much as all other work on a message.
        match self.stride {
            1 => known as usize,
            stride => known.div_ceil(stride) as usize,
        }
    }

    /// Makes only every `of`th message ours: those whose number leaves `index` when divided by
    /// `of`.
    ///
    /// Fails with `Stride` unless `index` is below `of`, and `of` is at most 2^32.
    pub fn stride(&mut self, index: u64, of: u64) -> Result<(), Error> {
        if index >= of || of > MOST_PARTS {
            return Err(Error::Stride { index, of });
        }
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        (self.index, self.stride) = (index, of);
        // The reader may have skipped further than it now would. That stays allowed until the tail
        // has caught up.
        let ahead = self.reader.ahead().saturating_add(of - 1);
        self.go_to(self.reader.at(), ahead);
        Ok(())
    }

    /// Goes on where `to` says, and returns the number of that message.
    ///
    /// Fails with `Ahead` or `Corrupt`.
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        if !self.reader.ours() {
            return Err(Error::Forked);
        }
        let tail = self.reader.tail_word();
        let place = place::<M>(newest(tail, self.seat.write_limit)?, &self.seat, to)?;
        // The reader stands there, and is waited for, even if the place turns out to be impossible.
        self.go_to(place, self.stride - 1);
        standing::<M>(tail, &self.seat, place)?;
        Ok(self.reader.at())
    }

    /// Goes on at our first message from `at` on, at most `ahead` beyond the tail.
    fn go_to(&mut self, at: u64, ahead: u64) {
        let on = (self.index + self.stride - at % self.stride) % self.stride;
        self.reader.go_to(at.saturating_add(on), ahead);
    }
}

impl<T: Payload, M: Mode> Sealed for Consumer<'_, T, M> {}

impl<T: Payload, M: Mode> Endpoint for Consumer<'_, T, M> {
    const NOT_READY: Error = Error::Empty;

    #[inline]
    fn poll(&mut self, _: usize) -> Poll {
        let found = self.reader.poll(self.stride);
        if found == Poll::NotReady {
            self.slots.prefetch_awaited(self.reader.at());
        }
        found
    }

    fn slow_path(&mut self, _: usize) -> Result<(), Error> {
        self.reader.slow_path(&mut Fixed)
    }

    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.reader.peer))
    }

    fn capacity(&self) -> usize {
        self.slots.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.reader.at()
    }

    /// Returns the number of our messages that are committed and not yet taken.
    ///
    /// On an overwriting channel some of them may be gone.
    fn len(&self) -> Result<usize, Error> {
        Ok(self.reader.len()?.div_ceil(self.stride) as usize)
    }
}

impl<T: Payload, M: Mode> Pop for Consumer<'_, T, M> {
    type Value = T;

    #[inline(always)]
    unsafe fn take(&mut self) -> Result<T, Error> {
        let at = self.reader.at();
        self.slots.prefetch(at, self.reader.known());
        let mut value = MaybeUninit::uninit();
        // SAFETY: if the slots are plain, they lie before the acquired tail, and are not written
        // until we release.
        unsafe { self.slots.read(at, &mut value) };
        if !self.whole() {
            return Err(self.overrun());
        }
        self.release(1);
        // SAFETY: `read` wrote all of its bytes, and any bytes are a `T`; whole, it is the message.
        Ok(unsafe { value.assume_init() })
    }

    /// Copies up to `out.len()` messages into `out`, and returns their number.
    ///
    /// Returns at least one, or an error; 0 only if `out` is empty. On an overwriting channel it
    /// copies at most an eighth of the ring. The rest of `out` may have changed.
    #[inline]
    fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        if out.is_empty() {
            return Ok(0);
        }
        self.ensure(1)?;
        let mut count = out.len().min(self.known());
        if M::OVERWRITES {
            // At most as many as the producer leaves to a reader that was overtaken, and none that
            // is already gone.
            count = count.min((self.slots.capacity() / 8).max(1) as usize);
            if count > 1 && !self.whole() {
                return Err(self.overrun());
            }
        }
        let (at, out) = (self.reader.at(), &mut out[..count]);
        // SAFETY: if the slots are plain, that many messages of ours lie before the acquired tail,
        // and are not written until we release.
        unsafe { self.slots.read_every(at, self.stride, out) };
        // The producer overtakes the oldest messages first.
        if !self.whole() {
            return Err(self.overrun());
        }
        self.release(count);
        Ok(count)
    }
}

impl<T: Payload> Hold for Consumer<'_, T, Waiting> {
    #[inline]
    fn hold(&mut self, max: usize) -> Result<usize, Error> {
        if max > 0 {
            self.ensure(1)?;
        }
        Store::prefetch(&self.slots, self.reader.at(), self.reader.known());
        Ok(max.min(self.known()))
    }

    #[inline]
    unsafe fn held<'a>(&self, index: usize) -> &'a T {
        // SAFETY: it lies before the acquired tail, and is not written until we release.
        unsafe {
            self.slots
                .get(self.reader.at() + index as u64 * self.stride)
        }
    }

    #[inline]
    unsafe fn held_slices<'a>(&self, count: usize) -> Option<Runs<'a, T>> {
        if self.stride != 1 {
            return None;
        }
        // SAFETY: they lie before the acquired tail, and are not written until we release.
        Some(unsafe { self.slots.slices(self.reader.at(), count) })
    }

    #[inline]
    unsafe fn release_held(&mut self, count: usize) {
        if count > 0 && self.reader.ours() {
            self.release(count);
        }
    }

    #[inline]
    fn begin_guard(&mut self) {
        self.reader.begin_guard();
    }

    #[inline]
    fn drop_releases(&self) -> bool {
        self.reader.drop_releases()
    }
}

impl<T: Payload> guard::Messages<'_, Consumer<'_, T, Waiting>> {
    /// Returns the messages in order: up to the ring's end, and from its start.
    ///
    /// Returns `None` if the messages do not lie next to each other (a stride of more than one).
    #[inline]
    pub fn as_slices(&self) -> Option<(&[T], &[T])> {
        // SAFETY: that many are held, and are not released while the guard is borrowed.
        unsafe { self.consumer.held_slices(self.count) }
    }
}

/// Stands where `seek` says, and returns the place.
fn place<M: Mode>(newest: u64, seat: &Seat<'_>, seek: Seek) -> Result<u64, Error> {
    let oldest = newest.saturating_sub(seat.capacity).max(seat.floor());
    let wanted = match seek {
        // Not beyond the newest that we know of, although the write limit may show that there are
        // later ones.
        Seek::Oldest => oldest.min(newest),
        Seek::Newest => newest,
        Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
        Seek::To(asked) if M::OVERWRITES => asked,
        Seek::To(asked) => asked.max(oldest),
    };
    if M::OVERWRITES {
        // Relaxed: the producer does not wait for it; only tools read it.
        seat.position.store(wanted, Ordering::Relaxed);
        return Ok(wanted);
    }
    Ok(seat.stand(wanted))
}

/// Returns `at` if a consumer may stand there.
fn standing<M: Mode>(tail: &AtomicU64, seat: &Seat<'_>, at: u64) -> Result<u64, Error> {
    if !M::OVERWRITES {
        seat.check(tail, at, 1)?;
    }
    Ok(at)
}

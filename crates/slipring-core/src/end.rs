//! Defines the traits that the ends of every kind implement, and writes each verb once over them.
//!
//! A kind's protocol file implements these traits for its producer and its consumer. The verbs of
//! the public crate use nothing else, nor do those provided here for programs without an operating
//! system.
//!
//! | trait | what it adds | implemented by |
//! |---|---|---|
//! | [`Endpoint`] | the question *is there room, or a message?*, and the peer | every end |
//! | [`Push`] | moves values into slots | producers of fixed-size values |
//! | [`Pop`] | moves values out of slots | consumers of fixed-size values |
//! | [`guard::Reserve`](crate::guard::Reserve) | reserves space in place, commits it | every producer |
//! | [`guard::Hold`](crate::guard::Hold) | reads slots in place, releases them | consumers of fixed-size values, if the producer waits for the release |
//! | [`record::PushRecord`](crate::record::PushRecord) | appends byte strings | producers of records |
//! | [`record::HoldRecord`](crate::record::HoldRecord) | reads a record in place, releases it | consumers of records |
//!
//! # The answer to `poll` may be out of date
//! Another end of the same side may take what `poll` found, and an overwriting producer may
//! overtake a reader. So [`Push::put`], [`Pop::take`], their like for records, and the methods that
//! reserve and hold in place may fail after `poll` returned [`Poll::Ready`]. Every verb then tries again from the
//! start. With one producer and one consumer they never fail, and the compiler removes the loop.
//!
//! The traits are sealed: only slipring's own kinds implement them.

use crate::crowd::Crowd;
use crate::error::{Error, PushError};
use crate::mem::is_small;
use crate::seat::Peer;

/// The answer of a poll, in one register.
///
/// An [`Error`] has the size of several registers. A loop that polls through memory would wait
/// there for its own earlier stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The room, or the message, is there.
    Ready,
    /// There is too little room, or no message, and the peer has not left: `Full`, or `Empty`.
    NotReady,
    /// Anything else: [`Endpoint::slow_path`] finds out which.
    Unclear,
}

/// The place where a consumer that sees all messages begins, or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Seek {
    /// The oldest message that is there.
    Oldest,
    /// Behind the newest message: at the next one that is committed. This is the default.
    #[default]
    Newest,
    /// The message with this number, counted from the channel's first.
    ///
    /// If it is gone, the consumer begins at the oldest. On an overwriting channel, and in a topic, it begins where
    /// the next call's `Lagged` leads. A number beyond the newest is an error (`Ahead`). If positions
    /// count bytes, it is the first record that begins at this position or behind it.
    To(u64),
}

pub(crate) mod sealed {
    /// Lets only this crate implement the traits of this file.
    pub trait Sealed {}
}

/// One end of a channel, as far as waiting on it goes.
///
/// `amount` is the room that a producer wants: slots, or bytes of a record's payload. A consumer
/// always asks for one message, whatever the amount.
pub trait Endpoint: sealed::Sealed {
    /// The error of a verb while the end is not ready: [`Error::Full`] or [`Error::Empty`].
    const NOT_READY: Error;

    /// Checks if there is room for `amount`, or a message.
    fn poll(&mut self, amount: usize) -> Poll;

    /// Decides a [`poll`](Self::poll) that was [`Poll::Unclear`], without another pause.
    fn slow_path(&mut self, amount: usize) -> Result<(), Error>;

    /// Checks like [`ensure`](Self::ensure), and changes nothing that others see.
    ///
    /// An overwriting producer gives up old messages to make room, so `ensure` costs its consumers
    /// something there.
    #[inline]
    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        self.ensure(amount)
    }

    /// Makes sure that there is room for `amount`, or a message, and takes neither.
    ///
    /// Fails with [`NOT_READY`](Self::NOT_READY), `Disconnected`, `TooLarge`, `Forked` or
    /// `Corrupt`.
    #[inline]
    fn ensure(&mut self, amount: usize) -> Result<(), Error> {
        match self.poll(amount) {
            Poll::Ready => Ok(()),
            Poll::NotReady => Err(Self::NOT_READY),
            Poll::Unclear => self.slow_path(amount),
        }
    }

    /// Does what may be put off, but not over a sleep: call it before this end sleeps, and before it leaves.
    ///
    /// Only ends of a channel that can grow put something off. The consumer gives back the memory of the rings that it has read,
    /// in `steps` of 2 MiB at most, and stops when a message comes. The producer shrinks the ring if its rule says so. Returns
    /// `true` if more is left to do.
    fn settle(&mut self, steps: u32) -> bool {
        let _ = steps;
        false
    }

    /// Calls `ask` with this end's view of its only peer.
    ///
    /// Returns `None` for an end with many peers.
    fn with_peer<R>(&mut self, ask: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R>;

    /// Calls `ask` with this end's view of its many peers, whose ends it reports.
    ///
    /// Returns `None` for an end with one peer, and for one that no peer's end concerns.
    fn with_crowd<R>(&mut self, ask: impl FnOnce(&mut Crowd<'_>) -> R) -> Option<R> {
        let _ = ask;
        None
    }

    /// Returns the channel's capacity: in slots, or in bytes with length words.
    fn capacity(&self) -> usize;

    /// Returns this end's position: the total ever committed, or released, by all holders of its
    /// seat.
    fn position(&self) -> u64;

    /// Returns the exact amount that is committed and not yet released.
    ///
    /// The unit is that of [`capacity`](Self::capacity).
    fn len(&self) -> Result<usize, Error>;

    /// Returns `true` if every committed message is released.
    #[inline]
    fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }
}

/// A producer of fixed-size values.
pub trait Push: Endpoint {
    /// The type of the value in a slot.
    type Value: Copy;

    /// Appends `value`; returns `false`, and appends nothing, if another producer took the slot.
    ///
    /// By reference: a large value that a failed attempt gives back would be copied once more.
    ///
    /// # Safety
    /// `poll(1)`, or a poll of more, returned [`Poll::Ready`], or `ensure` succeeded. Nothing was
    /// appended since, and this process is not a fork of the one that asked.
    unsafe fn put(&mut self, value: &Self::Value) -> bool;

    /// Stores `value` in slot `index` of the slots that were claimed
    /// ([`Reserve`](crate::guard::Reserve)).
    ///
    /// # Safety
    /// A claim of more than `index` slots succeeded, and nothing was committed since.
    unsafe fn write(&mut self, index: usize, value: Self::Value);

    /// Appends as many of `values` as fit, published as one, and returns their number.
    ///
    /// Fails only if none fit and `values` is not empty.
    fn try_push_slice(&mut self, values: &[Self::Value]) -> Result<usize, Error>;

    /// Appends as many of the iterator's values as fit, published as one, and returns their number.
    ///
    /// Takes no value from the iterator that it cannot place.
    fn try_push_iter(
        &mut self,
        values: &mut impl Iterator<Item = Self::Value>,
    ) -> Result<usize, Error>;

    /// Appends `value`, or gives it back with the reason.
    ///
    /// The reasons are `Full`, `Disconnected` (full, and no consumer), `Forked` and `Corrupt`.
    // Always inlined: a call takes the value and the result through memory, and a large value is
    // then copied once more than into its slot.
    #[inline(always)]
    fn try_push(&mut self, value: Self::Value) -> Result<(), PushError<Self::Value>> {
        loop {
            match self.poll(1) {
                Poll::Ready => {}
                Poll::NotReady => return Err(PushError::new(value, Self::NOT_READY)),
                Poll::Unclear => {
                    // `cold` does not get the value, so the value need not be in memory before it
                    // is in its slot.
                    if let Some(error) = cold(self, 1) {
                        return Err(give_back(value, error));
                    }
                }
            }
            // SAFETY: `poll` returned `Ready` just now, or the slow path succeeded.
            if unsafe { self.put(&value) } {
                return Ok(());
            }
        }
    }
}

/// A consumer of fixed-size values.
pub trait Pop: Endpoint {
    /// The type of the value in a slot.
    type Value: Copy;

    /// `true` if other consumers may take what a poll found. Where there are none, the compiler removes the loops of the
    /// verbs, and with them a copy of the value.
    const RIVALS: bool = false;

    /// Takes the message that the poll found.
    ///
    /// Fails with `Empty` if another consumer took it, and with `Lagged` if the producer overwrote
    /// it.
    ///
    /// # Safety
    /// `poll` returned [`Poll::Ready`], or `ensure` succeeded. Nothing was taken since, and this
    /// process is not a fork of the one that asked.
    unsafe fn take(&mut self) -> Result<Self::Value, Error>;

    /// Copies up to `out.len()` messages into `out` and returns their number.
    ///
    /// Returns at least one, or an error; 0 only if `out` is empty.
    fn try_pop_slice(&mut self, out: &mut [Self::Value]) -> Result<usize, Error>;

    /// Takes the oldest message.
    ///
    /// Fails with `Empty`, `Lagged`, `Disconnected` (empty, and no producer), `Forked` or
    /// `Corrupt`.
    // Always inlined, as `try_push`.
    #[inline(always)]
    fn try_pop(&mut self) -> Result<Self::Value, Error> {
        loop {
            match self.poll(1) {
                Poll::Ready => {}
                Poll::NotReady => return Err(Self::NOT_READY),
                Poll::Unclear => {
                    if let Some(error) = cold(self, 1) {
                        return Err(error);
                    }
                }
            }
            // SAFETY: `poll` returned `Ready` just now, or the slow path succeeded.
            let taken = unsafe { self.take() };
            if !Self::RIVALS || !matches!(taken, Err(Error::Empty)) {
                return taken;
            }
        }
    }
}

/// Runs the slow path, outside of the fast path's code.
#[cold]
#[inline(never)]
fn cold<E: Endpoint + ?Sized>(end: &mut E, amount: usize) -> Option<Error> {
    end.slow_path(amount).err()
}

/// Puts a value and a reason together.
///
/// Plain version: `PushError::new`. Its four variants hold the value in different places. The
/// compiler copies a large value into each of them piece by piece, and the fast path's copy as well:
/// 760 ns for 4096 bytes instead of 420. A value of a few words must not be passed to a function: it
/// would have to be in memory before it is in its slot.
#[inline(always)]
fn give_back<T>(value: T, error: Error) -> PushError<T> {
    if is_small::<T>() {
        PushError::new(value, error)
    } else {
        give_large_back(value, error)
    }
}

#[cold]
#[inline(never)]
fn give_large_back<T>(value: T, error: Error) -> PushError<T> {
    PushError::new(value, error)
}

//! The writing handle, with the verbs that are the same for all kinds.

use std::fmt;
use std::future::poll_fn;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring_core::end::{Endpoint, Push};
use slipring_core::guard::{self, Reserve};

use crate::difference::Difference;
use crate::error::{BatchError, Error, PushError};
use crate::kind::{Kind, SlotKind};
use crate::terms::Terms;
use crate::wait::set::{AnyProducer, Wish, sealed::Watched};
use crate::wait::{Attached, Readiness, Until, Wait};

/// Room that a producer of kind `K` has reserved: slots, or one record. Dropping it discards it.
pub type Reservation<'p, K> = guard::Reservation<'p, <K as Kind>::Producer>;

/// The writing end of a channel of kind `K`: see [`spsc`](crate::spsc), [`bytes`](crate::bytes),
/// [`broadcast`](crate::broadcast).
///
/// Dropping the producer ends the stream: *finished*, or *aborted* if the thread is panicking. An
/// `amount` counts slots; for `bytes` it is the length of one record in bytes.
pub struct Producer<K: Kind> {
    pub(crate) end: Attached<K::Producer>,
    pub(crate) terms: Terms,
}

/// Prints the seat and the handle's position, but no payload.
impl<K: Kind> fmt::Debug for Producer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("kind", &self.end.seat.region.geometry().kind.name())
            .field("seat", &self.end.seat.number)
            .field("position", &self.position())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl<K: SlotKind> Producer<K> {
    /// Appends `value`, or gives it back if there is no room now ([`Full`](PushError::Full)).
    ///
    /// Gives it back as [`Disconnected`](PushError::Disconnected) if there is no room and the
    /// consumer is gone. A `broadcast` producer waits only for the consumers that are present, so it
    /// returns `Disconnected` only after [`fail_alone`](Self::fail_alone).
    ///
    /// A topic's publisher is `Full` only if subscribers hold its slots: see [`pins`](Self::pins).
    ///
    /// Never waits. Enters the kernel only to wake a sleeping consumer.
    ///
    /// ```
    /// use slipring::{PushError, spsc};
    ///
    /// let (mut tx, rx) = spsc::channel::<u64>(1)?;
    /// assert_eq!(tx.try_push(7), Ok(()));
    /// assert_eq!(tx.try_push(9), Err(PushError::Full(9)));
    /// # drop(rx);
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[inline]
    #[doc(alias = "send")]
    pub fn try_push(&mut self, value: K::Value) -> Result<(), PushError<K::Value>> {
        self.end.core.try_push(value)
    }

    /// Appends `value`, waiting while the channel is full.
    ///
    /// Gives the value back if the channel is full and the consumer is gone. If no consumer has
    /// joined yet, the call waits as well.
    ///
    /// A `broadcast` channel is full while its slowest consumer is a whole ring behind. The
    /// producer notices a consumer that died and stops waiting for it. It keeps waiting for a
    /// consumer that is stopped. If the channel overwrites, the producer waits for no consumer.
    #[inline]
    pub fn push(&mut self, value: K::Value) -> Result<(), PushError<K::Value>> {
        self.push_until(value, Until::Forever)
    }

    /// Like [`push`](Self::push), for at most `timeout`: then [`TimedOut`](PushError::TimedOut),
    /// with the value.
    #[inline]
    pub fn push_timeout(
        &mut self,
        value: K::Value,
        timeout: Duration,
    ) -> Result<(), PushError<K::Value>> {
        self.push_until(value, Until::For(timeout))
    }

    // Always inlined: as a call, the fast path would pay for a result in memory at each message. A stream
    // of 8 bytes falls from 260 to 150 million a second.
    #[inline(always)]
    fn push_until(&mut self, value: K::Value, mut until: Until) -> Result<(), PushError<K::Value>> {
        loop {
            if let Err(error) = self.end.ready(1, &mut until) {
                return Err(PushError::new(value, error));
            }
            // SAFETY: `ready` has just returned `Ok`: there is room.
            if unsafe { self.end.core.put(&value) } {
                return Ok(());
            }
        }
    }

    /// Like [`push`](Self::push), as a future for any runtime.
    ///
    /// Only the task sleeps. The first future that has to wait starts the [helper
    /// thread](crate#the-helper-thread).
    ///
    /// A dropped future has pushed nothing. A future that finds room is ready at its first poll.
    /// After 128 such polls in a row, one poll wakes its task and returns pending, so that other
    /// tasks run.
    ///
    /// The future fails with [`NoPipes`](Error::NoPipes) if it would have to wait on borrowed
    /// memory. It fails with [`InSet`](Error::InSet) while a [`WaitSet`](crate::WaitSet) waits for
    /// the handle, and with [`Forked`](Error::Forked) in a forked child.
    ///
    /// A poll does not block its thread, with two exceptions. If no helper thread can be started, a
    /// poll takes a little over 1 ms and fails with [`Os`](Error::Os), unless tokio drives it. If a
    /// peer has just died, a poll takes up to 10 ms while the kernel frees the dead process's
    /// resources.
    ///
    /// ```
    /// use slipring::{SetupError, spsc};
    ///
    /// async fn relay(
    ///     mut from: spsc::Consumer<u64>,
    ///     mut to: spsc::Producer<u64>,
    /// ) -> Result<(), SetupError> {
    ///     loop {
    ///         to.push_async(from.pop_async().await?).await?;
    ///     }
    /// }
    /// # let _ = relay;
    /// ```
    pub async fn push_async(&mut self, value: K::Value) -> Result<(), PushError<K::Value>> {
        let mut value = value;
        loop {
            if let Err(error) = self.room(1).await {
                return Err(PushError::new(value, error));
            }
            match self.end.core.try_push(value) {
                // Another producer took the slot.
                Err(PushError::Full(back)) => value = back,
                pushed => return pushed,
            }
        }
    }

    /// Returns `true` if there is no room for another message, so that [`try_push`](Self::try_push)
    /// would fail. Always returns `false` if the channel overwrites.
    pub fn is_full(&self) -> Result<bool, Error> {
        Ok(self.len()? >= self.capacity())
    }

    /// Appends as many of `values` as fit, publishes them together, and returns their number.
    /// Returns at least one, or an error; returns 0 only if `values` is empty.
    ///
    /// Takes the values by reference. A large message is copied less often this way than by
    /// [`try_push`](Self::try_push).
    #[inline]
    pub fn try_push_slice(&mut self, values: &[K::Value]) -> Result<usize, Error> {
        self.end.core.try_push_slice(values)
    }

    /// Appends all of `values`, waiting whenever the channel is full. On failure, the
    /// [`BatchError`] holds the number of values already appended.
    pub fn push_slice(&mut self, values: &[K::Value]) -> Result<(), BatchError> {
        self.push_slice_until(values, Until::Forever)
    }

    /// Like [`push_slice`](Self::push_slice), for at most `timeout` in total.
    pub fn push_slice_timeout(
        &mut self,
        values: &[K::Value],
        timeout: Duration,
    ) -> Result<(), BatchError> {
        self.push_slice_until(values, Until::For(timeout))
    }

    fn push_slice_until(
        &mut self,
        values: &[K::Value],
        mut until: Until,
    ) -> Result<(), BatchError> {
        let mut done = 0;
        while done < values.len() {
            let room = self.end.ready(1, &mut until);
            match room.and_then(|()| self.try_push_slice(&values[done..])) {
                Ok(count) => done += count,
                // Another producer took the slots.
                Err(Error::Full) => {}
                Err(error) => return Err(BatchError { done, error }),
            }
        }
        Ok(())
    }

    /// Like [`push_slice`](Self::push_slice), as a future: see [`push_async`](Self::push_async). If
    /// the future is dropped, [`position`](Self::position) tells how many values it has appended.
    pub async fn push_slice_async(&mut self, values: &[K::Value]) -> Result<(), BatchError> {
        let mut done = 0;
        while done < values.len() {
            let room = self.room(1).await;
            match room.and_then(|()| self.try_push_slice(&values[done..])) {
                Ok(count) => done += count,
                Err(Error::Full) => {}
                Err(error) => return Err(BatchError { done, error }),
            }
        }
        Ok(())
    }

    /// Appends as many of the iterator's values as fit, publishes them together, and returns their
    /// number.
    ///
    /// Takes no value from the iterator unless there is room for it; pass `&mut iterator` to
    /// continue with the rest later. Returns [`Full`](Error::Full) if there is no room at all, even
    /// if the iterator is empty.
    #[inline]
    pub fn try_push_iter(
        &mut self,
        values: impl IntoIterator<Item = K::Value>,
    ) -> Result<usize, Error> {
        self.end.core.try_push_iter(&mut values.into_iter())
    }

    /// Appends all of the iterator's values, waiting whenever the channel is full, and returns
    /// their number. Publishes each time the available room is used up. On failure, the
    /// [`BatchError`] holds the number of values already appended.
    ///
    /// Takes no value from the iterator before there is room for it. Pass `&mut iterator` to
    /// continue after an error with the first value that was not appended.
    ///
    /// The call does not wait for room once `size_hint` reports that the iterator has ended. An
    /// iterator whose `size_hint` cannot report its end, such as a `filter`, may wait for room that
    /// it does not need.
    pub fn push_iter(
        &mut self,
        values: impl IntoIterator<Item = K::Value>,
    ) -> Result<usize, BatchError> {
        let mut values = values.into_iter();
        let (mut done, mut ended) = (0, false);
        // Find room first: a value taken from the iterator could not be given back.
        while !ended && values.size_hint().1 != Some(0) {
            // Don't use `fuse`. It leaves a `FusedIterator` as it is, and the size hint of such an
            // iterator need not report its end.
            let mut seen = std::iter::from_fn(|| {
                let value = values.next();
                ended = value.is_none();
                value
            });
            let room = self.end.ready(1, &mut Until::Forever);
            match room.and_then(|()| self.end.core.try_push_iter(&mut seen)) {
                Ok(count) => done += count,
                // Another producer took the slots.
                Err(Error::Full) => {}
                Err(error) => return Err(BatchError { done, error }),
            }
        }
        Ok(done)
    }
}

impl<K: Kind> Producer<K> {
    /// Reserves `amount` slots, or a record of up to `amount` bytes, to write in place. Dropping
    /// the reservation discards it.
    ///
    /// Reserves everything or nothing: returns [`Full`](Error::Full) or
    /// [`Disconnected`](Error::Disconnected), or [`TooLarge`](Error::TooLarge) if `amount` exceeds
    /// what the channel can ever hold.
    ///
    /// The memory still holds an earlier message. If the channel overwrites, the old messages in
    /// these slots are given up at once, at least one whole block of them. See
    /// [`overwriting`](crate::broadcast::Builder::overwriting). An earlier call may already have
    /// given them up.
    #[inline]
    #[doc(alias = "claim")]
    #[doc(alias = "loan")]
    pub fn try_reserve(&mut self, amount: usize) -> Result<Reservation<'_, K>, Error> {
        self.end.core.try_reserve(amount)
    }

    /// Like [`try_reserve`](Self::try_reserve), waiting until there is room.
    #[inline]
    pub fn reserve(&mut self, amount: usize) -> Result<Reservation<'_, K>, Error> {
        self.reserve_until(amount, Until::Forever)
    }

    /// Like [`reserve`](Self::reserve), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    #[inline]
    pub fn reserve_timeout(
        &mut self,
        amount: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_, K>, Error> {
        self.reserve_until(amount, Until::For(timeout))
    }

    #[inline(always)]
    fn reserve_until(&mut self, amount: usize, until: Until) -> Result<Reservation<'_, K>, Error> {
        self.claim_until(amount, until)?;
        // SAFETY: claimed just now.
        Ok(unsafe { guard::Reservation::of_claimed(&mut self.end.core, amount) })
    }

    /// Claims space, waiting for it.
    #[inline(always)]
    pub(crate) fn claim_until(&mut self, amount: usize, mut until: Until) -> Result<(), Error> {
        loop {
            self.end.ready(amount, &mut until)?;
            match self.end.core.claim(amount) {
                // Another producer took the room.
                Err(Error::Full) => {}
                claimed => return claimed,
            }
        }
    }

    /// Claims space, and lets the task sleep until it is there.
    pub(crate) async fn claim_async(&mut self, amount: usize) -> Result<(), Error> {
        loop {
            self.room(amount).await?;
            match self.end.core.claim(amount) {
                Err(Error::Full) => {}
                claimed => return claimed,
            }
        }
    }

    /// Like [`reserve`](Self::reserve), as a future: see `push_async`. A dropped future has
    /// reserved nothing.
    pub async fn reserve_async(&mut self, amount: usize) -> Result<Reservation<'_, K>, Error> {
        self.claim_async(amount).await?;
        // SAFETY: claimed just now.
        Ok(unsafe { guard::Reservation::of_claimed(&mut self.end.core, amount) })
    }

    pub(crate) async fn room(&mut self, amount: usize) -> Result<(), Error> {
        poll_fn(|cx| self.end.poll_ready(amount, cx)).await
    }

    /// Returns exactly how much is committed and not yet released: messages, or for `bytes` ring
    /// bytes including length words.
    ///
    /// For `broadcast`, returns how far the slowest consumer in the gating set is behind, or 0 if
    /// the producer waits for no consumer.
    pub fn len(&self) -> Result<usize, Error> {
        self.end.core.len()
    }

    /// Returns `true` if every committed message is released.
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.end.core.is_empty()
    }

    /// Returns the channel's capacity: messages, or for `bytes` the bytes of the ring, length words
    /// included. If the channel can grow, it is that of the newest ring, and more may be unread after a shrink.
    pub fn capacity(&self) -> usize {
        self.end.core.capacity()
    }

    /// Returns how much all producers of this channel have ever committed: messages, or for `bytes`
    /// bytes.
    pub fn position(&self) -> u64 {
        self.end.core.position()
    }

    /// Returns `true` if no consumer is present: none has joined yet, or the last one left or died.
    /// Asks the kernel with one system call; for `broadcast`, with one for each seat that was ever
    /// taken.
    pub fn is_disconnected(&mut self) -> Result<bool, Error> {
        self.end.alone()
    }

    /// Waits until a consumer is present, for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    /// Also acknowledges the end that [`Disconnected`](Error::Disconnected) reported: a
    /// [`WaitSet`](crate::WaitSet) that holds the handle does not report it again.
    pub fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        self.end.wait_for_peer(Until::For(timeout))
    }

    /// Waits until no consumer is present, for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    /// Returns at once if none is.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (mut tx, rx) = slipring::spsc::channel::<u64>(8)?;
    /// assert_eq!(tx.closed_timeout(Duration::ZERO), Err(slipring::Error::TimedOut));
    /// drop(rx);
    /// assert_eq!(tx.closed_timeout(Duration::ZERO), Ok(()));
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn closed_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.end.wait_until_alone(Until::For(timeout))
    }

    /// Like [`closed_timeout`](Self::closed_timeout) without a time limit, as a future: see
    /// `push_async`.
    pub async fn closed_async(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.end.poll_alone(cx)).await
    }

    /// Like [`wait_for_consumer`](Self::wait_for_consumer) without a time limit, as a future: see
    /// `push_async`.
    pub async fn wait_for_consumer_async(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.end.poll_peer(cx)).await
    }

    /// Returns the descriptor by which an event loop (epoll, mio, libuv) waits for room, in place
    /// of a blocking call.
    ///
    /// The descriptor belongs to this handle alone, is the same each time, and becomes *readable*
    /// when there is news. Watch it level-triggered, and call [`arm`](Self::arm) before each poll.
    /// Leave reading it to `arm`. [`Readiness`] has an example.
    ///
    /// The first call creates the descriptor. It fails with [`NoPipes`](Error::NoPipes) for
    /// borrowed memory, and with [`TooManyFiles`](Error::TooManyFiles) at the
    /// [limit](crate#descriptors) of descriptors.
    ///
    /// The descriptor of a `broadcast` producer cannot show that a consumer died. So, while armed,
    /// it also becomes readable every few milliseconds (`check_every`). `arm` then detects a dead
    /// consumer and stops waiting for it.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.end.descriptor()
    }

    /// Checks for room for `amount`; if there is none, arms the descriptor. The descriptor then
    /// becomes readable when the consumer makes room, joins, leaves, or dies; death also hangs it
    /// up.
    ///
    /// Call `arm` before each poll: it clears the previous readiness.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) in the same cases as `try_reserve`; the
    /// descriptor then becomes readable when the next consumer joins. Returns
    /// [`InSet`](Error::InSet) while a [`WaitSet`](crate::WaitSet) waits for the handle, and
    /// [`Forked`](Error::Forked) in a forked child.
    ///
    /// `arm` does not wait for the other side. If no [helper thread](crate#the-helper-thread) can
    /// be started, it takes a little over 1 ms. If a consumer has just died, it takes up to 10 ms
    /// while the kernel frees the dead process's resources.
    pub fn arm(&mut self, amount: usize) -> Result<Readiness, Error> {
        self.end.arm(amount)
    }

    /// Sets when pushes and reservations fail with [`Disconnected`](Error::Disconnected). With
    /// `true`, they fail once the last consumer has left. With `false`, the default, they fail only
    /// when the channel is also full. If no consumer has joined yet, they succeed.
    ///
    /// With `true`, each push also loads the consumer's words. A push does not detect by itself
    /// that a consumer *died*. A waiting call, [`is_disconnected`](Self::is_disconnected) or a
    /// [`WaitSet`](crate::WaitSet) must detect it first. For `broadcast`, the seat must be taken
    /// anew first.
    ///
    /// ```
    /// use slipring::{End, PushError, spsc};
    ///
    /// let (mut tx, rx) = spsc::channel::<u64>(8)?;
    /// tx.fail_alone(true);
    /// assert_eq!(tx.try_push(1), Ok(()));
    /// drop(rx);
    /// assert_eq!(tx.try_push(2), Err(PushError::Disconnected(2, End::Finished)));
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn fail_alone(&mut self, on: bool) {
        self.end.core.fail_alone(on);
    }

    /// Sets how this handle's waiting calls wait from now on.
    pub fn set_wait(&mut self, wait: Wait) {
        self.end.state.waiting.wait = wait;
    }

    /// Records a sign of life, which `stat` shows and nothing acts on. Waiting calls do so by
    /// themselves.
    pub fn heartbeat(&self) {
        self.end.seat.beat();
    }

    /// Checks that the channel's name still leads to this channel. Returns
    /// [`Removed`](Error::Removed) if the name is gone, or [`Replaced`](Error::Replaced) if it
    /// leads to another channel.
    ///
    /// Makes two or three system calls. The waiting calls check once a second by themselves. A
    /// channel without a name always passes. Returns [`Forked`](Error::Forked) in a forked child.
    pub fn check_name(&self) -> Result<(), Error> {
        self.end.seat.check_name()
    }

    /// Returns the sizes in which the channel differs from what this handle's builder asked for;
    /// empty if none. An existing channel keeps its sizes.
    pub fn differences(&self) -> Vec<Difference> {
        Difference::between(self.end.seat.region.geometry(), &self.terms.asked)
    }

    /// Leaves before the work is done. Consumers get `Disconnected(Aborted)` after they have read
    /// what was committed.
    pub fn abort(self) {
        self.end.seat.abort();
    }

    /// Lets the current tokio runtime drive this handle's futures from now on, in place of the
    /// helper thread. A wake-up then costs one thread switch less.
    ///
    /// The futures may be awaited anywhere while that runtime runs. After it has shut down, a
    /// future that has to wait fails with [`Os`](Error::Os). Returns
    /// [`NoRuntime`](Error::NoRuntime) outside a runtime and [`NoPipes`](Error::NoPipes) for
    /// borrowed memory; nothing has changed then.
    ///
    /// # Panics
    /// Panics as tokio does, if the runtime was built without `enable_io`.
    #[cfg(feature = "tokio")]
    pub fn on_tokio(&mut self) -> Result<(), Error> {
        self.end.on_tokio()
    }
}

impl<K: Kind> Watched for Producer<K> {
    fn ask(&self, amount: usize) -> Result<Wish, Error> {
        let room = self.end.core.room_for(amount)?;
        self.end.ask(Some(room)).map(Wish::Channel)
    }
}

impl<K: Kind> AnyProducer for Producer<K> {}

//! The reading handle, with the verbs that are the same for all kinds.

use std::fmt;
use std::future::poll_fn;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring_core::end::{Endpoint, Pop};
use slipring_core::guard::{self, Hold};

use crate::difference::Difference;
use crate::error::Error;
use crate::kind::{InPlaceKind, Kind, PeekKind, SlotKind};
use crate::terms::Terms;
use crate::wait::set::{AnyConsumer, Wish, sealed::Watched};
use crate::wait::{Attached, Readiness, Until, Wait, until_the_end};

/// Messages that a consumer of kind `K` reads in place. Dropping the guard releases them.
pub type Messages<'c, K> = guard::Messages<'c, <K as Kind>::Consumer>;

/// One message that a consumer of kind `K` reads in place. Dropping the guard releases it.
pub type Message<'c, K> = guard::Message<'c, <K as Kind>::Consumer>;

/// The reading end of a channel of kind `K`: see [`spsc`](crate::spsc), [`bytes`](crate::bytes),
/// [`broadcast`](crate::broadcast). If the channel overwrites, it has no verbs that read in place.
///
/// Dropping the consumer leaves the channel. The next consumer gets the messages that this one has
/// not released. A `broadcast` consumer's unread messages are lost to its successor, and the
/// producer no longer waits for it.
pub struct Consumer<K: Kind> {
    pub(crate) end: Attached<K::Consumer>,
    pub(crate) terms: Terms,
}

/// Prints the seat and the handle's position, but no payload.
impl<K: Kind> fmt::Debug for Consumer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("kind", &self.end.seat.region.geometry().kind.name())
            .field("seat", &self.end.seat.number)
            .field("position", &self.position())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl<K: SlotKind> Consumer<K> {
    /// Takes the oldest message. Returns `Empty` if there is none, or `Disconnected` if there is
    /// none and the producer left.
    ///
    /// Returns `Lagged(n)` if the producer of an overwriting `broadcast` channel has overwritten `n`
    /// messages that this consumer had not read. The consumer then continues at the oldest message
    /// plus an eighth of the ring. Other channels never return it.
    ///
    /// Never waits. Enters the kernel only to wake a sleeping producer, so it cannot detect that a
    /// producer *died*. The waiting calls, [`is_disconnected`](Self::is_disconnected) and a
    /// [`WaitSet`](crate::WaitSet) can. After one of them has detected a death, `try_pop` reports
    /// it.
    #[inline]
    #[doc(alias = "recv")]
    pub fn try_pop(&mut self) -> Result<K::Value, Error> {
        self.end.core.try_pop()
    }

    /// Takes the oldest message, waiting while there is none. If no producer has joined yet, the
    /// call waits as well.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) once all messages are read and the producer is
    /// gone, and [`Lagged`](Error::Lagged) as [`try_pop`](Self::try_pop) does.
    #[inline]
    pub fn pop(&mut self) -> Result<K::Value, Error> {
        self.pop_until(Until::Forever)
    }

    /// Like [`pop`](Self::pop), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    #[inline]
    pub fn pop_timeout(&mut self, timeout: Duration) -> Result<K::Value, Error> {
        self.pop_until(Until::For(timeout))
    }

    // Always inlined: see `push_until`.
    #[inline(always)]
    fn pop_until(&mut self, mut until: Until) -> Result<K::Value, Error> {
        loop {
            self.end.ready(1, &mut until)?;
            // SAFETY: `ready` has just returned `Ok`: there is a message.
            let taken = unsafe { self.end.core.take() };
            // Not if another consumer took it.
            if !K::Consumer::RIVALS || !matches!(taken, Err(Error::Empty)) {
                return taken;
            }
        }
    }

    /// Like [`pop`](Self::pop), as a future for any runtime.
    ///
    /// Only the task sleeps. The first future that has to wait starts the [helper
    /// thread](crate#the-helper-thread).
    ///
    /// A dropped future has taken nothing. A future that finds a message is ready at its first
    /// poll. After 128 such polls in a row, one poll wakes its task and returns pending, so that
    /// other tasks run.
    ///
    /// The future fails with [`NoPipes`](Error::NoPipes) if it would have to wait on borrowed
    /// memory. It fails with [`InSet`](Error::InSet) while a [`WaitSet`](crate::WaitSet) waits for
    /// the handle, and with [`Forked`](Error::Forked) in a forked child.
    ///
    /// A poll does not block its thread, with two exceptions. If no helper thread can be started, a
    /// poll takes a little over 1 ms and fails with [`Os`](Error::Os), unless tokio drives it. If a
    /// peer has just died, a poll takes up to 10 ms while the kernel frees the dead process's
    /// resources.
    pub async fn pop_async(&mut self) -> Result<K::Value, Error> {
        loop {
            self.message().await?;
            match self.end.core.try_pop() {
                // Another consumer took it.
                Err(Error::Empty) => {}
                taken => return taken,
            }
        }
    }

    /// Copies up to `out.len()` messages into `out`, releases them together, and returns their
    /// number. Returns at least one, or an error; returns 0 only if `out` is empty.
    ///
    /// If the channel overwrites, one call copies at most an eighth of the ring. One call returns
    /// either messages or [`Lagged`](Error::Lagged), which comes before the messages after the gap.
    /// The rest of `out` behind the copied messages may have changed; after `Lagged`, all of it may
    /// have.
    #[inline]
    pub fn try_pop_slice(&mut self, out: &mut [K::Value]) -> Result<usize, Error> {
        self.end.core.try_pop_slice(out)
    }

    /// Like [`try_pop_slice`](Self::try_pop_slice), waiting until there is a message.
    pub fn pop_slice(&mut self, out: &mut [K::Value]) -> Result<usize, Error> {
        self.pop_slice_until(out, Until::Forever)
    }

    /// Like [`pop_slice`](Self::pop_slice), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn pop_slice_timeout(
        &mut self,
        out: &mut [K::Value],
        timeout: Duration,
    ) -> Result<usize, Error> {
        self.pop_slice_until(out, Until::For(timeout))
    }

    fn pop_slice_until(&mut self, out: &mut [K::Value], mut until: Until) -> Result<usize, Error> {
        loop {
            if !out.is_empty() {
                self.end.ready(1, &mut until)?;
            }
            match self.end.core.try_pop_slice(out) {
                // Another consumer took them.
                Err(Error::Empty) => {}
                taken => return taken,
            }
        }
    }

    /// Like [`pop_slice`](Self::pop_slice), as a future: see [`pop_async`](Self::pop_async).
    pub async fn pop_slice_async(&mut self, out: &mut [K::Value]) -> Result<usize, Error> {
        loop {
            if !out.is_empty() {
                self.message().await?;
            }
            match self.end.core.try_pop_slice(out) {
                Err(Error::Empty) => {}
                taken => return taken,
            }
        }
    }

    /// Returns an iterator over the messages, which waits for each as [`pop`](Self::pop) does. It
    /// ends when the producer has finished and all messages are read.
    ///
    /// `Lagged` is an item before the next message. Any other error, such as `Corrupt` or the
    /// `Disconnected` of a producer that aborted or died, is the last item. Dropping the iterator
    /// loses nothing.
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::spsc::channel::<u64>(8)?;
    /// tx.push_slice(&[1, 2, 3])?;
    /// drop(tx); // the end of the stream
    /// let sum: u64 = rx.iter().sum::<Result<_, _>>()?;
    /// assert_eq!(sum, 6);
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn iter(&mut self) -> impl std::iter::FusedIterator<Item = Result<K::Value, Error>> {
        until_the_end(move || self.pop())
    }

    /// Returns the messages as a stream, which waits for each as [`pop_async`](Self::pop_async)
    /// does. It ends when the producer has finished and all messages are read.
    ///
    /// `Lagged` is an item before the next message. Any other error, such as `Corrupt` or the
    /// `Disconnected` of a producer that aborted or died, is the last item.
    ///
    /// Dropping the stream loses nothing: a new stream continues where it stopped. After a
    /// `Disconnected`, the new stream continues only with the next producer. See
    /// [`wait_for_producer_async`](Self::wait_for_producer_async).
    ///
    /// ```
    /// use futures_core::Stream;
    /// use std::{future::poll_fn, pin::Pin};
    ///
    /// # fn main() -> Result<(), slipring::SetupError> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let (mut tx, mut rx) = slipring::spsc::channel::<u64>(8)?;
    /// tx.push(1)?;
    /// drop(tx); // the end of the stream
    /// let mut stream = rx.stream();
    /// while let Some(message) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
    ///     assert_eq!(message?, 1);
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    #[cfg(feature = "stream")]
    pub fn stream(
        &mut self,
    ) -> impl futures_core::FusedStream<Item = Result<K::Value, Error>> + Unpin {
        until_the_end(move |cx: &mut std::task::Context<'_>| {
            loop {
                std::task::ready!(self.end.poll_ready(1, cx))?;
                match self.end.core.try_pop() {
                    Err(Error::Empty) => {}
                    taken => return std::task::Poll::Ready(taken),
                }
            }
        })
    }
}

/// Verbs that read in place. Consumers of an overwriting `broadcast` channel have none of them: see
/// [`InPlaceKind`].
impl<K: InPlaceKind> Consumer<K> {
    /// Reads the oldest message in place. Dropping the guard releases the message.
    ///
    /// Returns `Empty` or `Disconnected` as [`try_pop`](Self::try_pop) does.
    #[inline]
    pub fn try_read(&mut self) -> Result<Message<'_, K>, Error> {
        self.end.core.try_read()
    }

    /// Like [`try_read`](Self::try_read), waiting until there is a message.
    #[inline]
    pub fn read(&mut self) -> Result<Message<'_, K>, Error> {
        self.hold_until(1, Until::Forever)?;
        // SAFETY: the line above holds it.
        Ok(unsafe { guard::Message::of_held(&mut self.end.core) })
    }

    /// Like [`read`](Self::read), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    #[inline]
    pub fn read_timeout(&mut self, timeout: Duration) -> Result<Message<'_, K>, Error> {
        self.hold_until(1, Until::For(timeout))?;
        // SAFETY: the line above holds it.
        Ok(unsafe { guard::Message::of_held(&mut self.end.core) })
    }

    /// Like [`read`](Self::read), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_async(&mut self) -> Result<Message<'_, K>, Error> {
        self.hold_async(1).await?;
        // SAFETY: the line above holds it.
        Ok(unsafe { guard::Message::of_held(&mut self.end.core) })
    }

    /// Reads up to `max` messages in place. Returns at least one, or an error as from
    /// [`try_read`](Self::try_read).
    ///
    /// Dropping the guard releases the messages, even by an early `?`: see [`Messages`].
    #[inline]
    pub fn try_read_batch(&mut self, max: usize) -> Result<Messages<'_, K>, Error> {
        self.end.core.try_read_batch(max)
    }

    /// Like [`try_read_batch`](Self::try_read_batch), waiting until there is a message.
    #[inline]
    pub fn read_batch(&mut self, max: usize) -> Result<Messages<'_, K>, Error> {
        let count = self.hold_until(max, Until::Forever)?;
        // SAFETY: the line above holds so many.
        Ok(unsafe { guard::Messages::of_held(&mut self.end.core, count) })
    }

    /// Like [`read_batch`](Self::read_batch), for at most `timeout`
    /// ([`TimedOut`](Error::TimedOut)).
    pub fn read_batch_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> Result<Messages<'_, K>, Error> {
        let count = self.hold_until(max, Until::For(timeout))?;
        // SAFETY: the line above holds so many.
        Ok(unsafe { guard::Messages::of_held(&mut self.end.core, count) })
    }

    /// Like [`read_batch`](Self::read_batch), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_batch_async(&mut self, max: usize) -> Result<Messages<'_, K>, Error> {
        let count = self.hold_async(max).await?;
        // SAFETY: the line above holds so many.
        Ok(unsafe { guard::Messages::of_held(&mut self.end.core, count) })
    }

    #[inline(always)]
    pub(crate) fn hold_until(&mut self, max: usize, mut until: Until) -> Result<usize, Error> {
        loop {
            match self.end.core.hold(max) {
                // There is no message, or another consumer took it.
                Err(Error::Empty) => self.end.ready(1, &mut until)?,
                held => return held,
            }
        }
    }

    pub(crate) async fn hold_async(&mut self, max: usize) -> Result<usize, Error> {
        loop {
            if max > 0 {
                // Also if one is there: a task that always finds one must leave its thread to others at times.
                self.message().await?;
            }
            match self.end.core.hold(max) {
                // Another consumer took it.
                Err(Error::Empty) => {}
                held => return held,
            }
        }
    }
}

impl<K: PeekKind> Consumer<K> {
    /// Copies the oldest message without releasing it.
    ///
    /// Returns `Empty` or `Disconnected` as [`try_pop`](Self::try_pop) does.
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::spsc::channel::<u64>(8)?;
    /// tx.push(7)?;
    /// assert_eq!((rx.try_peek(), rx.try_pop()), (Ok(7), Ok(7)));
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[inline]
    pub fn try_peek(&mut self) -> Result<K::Value, Error> {
        let message = self.try_read()?;
        let value = *message;
        message.keep();
        Ok(value)
    }
}

impl<K: Kind> Consumer<K> {
    pub(crate) async fn message(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.end.poll_ready(1, cx)).await
    }

    /// Returns exactly how much is committed and not yet released: messages, or for `bytes` ring
    /// bytes including length words.
    ///
    /// For `broadcast`, returns how many messages this consumer is behind. If the channel
    /// overwrites, some of them may be gone.
    pub fn len(&self) -> Result<usize, Error> {
        self.end.core.len()
    }

    /// Returns `true` if every committed message is released; for `broadcast`, if this consumer has
    /// released them all.
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.end.core.is_empty()
    }

    /// Returns the channel's capacity: messages, or for `bytes` the bytes of the ring, length words
    /// included. If the channel can grow, it is that of the newest ring, and more may be unread after a shrink.
    pub fn capacity(&self) -> usize {
        self.end.core.capacity()
    }

    /// Returns how much all consumers of this channel have ever released: messages, or for `bytes`
    /// bytes.
    ///
    /// For `broadcast`, returns the number of this consumer's next message, counted from the
    /// channel's first.
    pub fn position(&self) -> u64 {
        self.end.core.position()
    }

    /// Returns `true` if no producer is present: none has joined yet, or the last one left or died.
    /// There may still be messages. Asks the kernel with one system call.
    pub fn is_disconnected(&mut self) -> Result<bool, Error> {
        self.end.alone()
    }

    /// Waits until a producer is present, for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    /// Also acknowledges the end that [`Disconnected`](Error::Disconnected) reported: a
    /// [`WaitSet`](crate::WaitSet) that holds the handle does not report it again.
    ///
    /// A producer that joined, published and left before this call is not present. Read its
    /// messages first, with the `try_` verbs.
    pub fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        self.end.wait_for_peer(Until::For(timeout))
    }

    /// Waits until no producer is present, for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    /// Returns at once if none is. There may still be messages.
    pub fn closed_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.end.wait_until_alone(Until::For(timeout))
    }

    /// Like [`closed_timeout`](Self::closed_timeout) without a time limit, as a future: see
    /// `pop_async`.
    pub async fn closed_async(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.end.poll_alone(cx)).await
    }

    /// Like [`wait_for_producer`](Self::wait_for_producer) without a time limit, as a future: see
    /// `pop_async`.
    pub async fn wait_for_producer_async(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.end.poll_peer(cx)).await
    }

    /// Returns the descriptor by which an event loop (epoll, mio, libuv) waits for a message, in
    /// place of a blocking call.
    ///
    /// The descriptor belongs to this handle alone, is the same each time, and becomes *readable*
    /// when there is news. Watch it level-triggered, and call [`arm`](Self::arm) before each poll.
    /// Leave reading it to `arm`. [`Readiness`] has an example.
    ///
    /// The first call creates the descriptor. It fails with [`NoPipes`](Error::NoPipes) for
    /// borrowed memory, and with [`TooManyFiles`](Error::TooManyFiles) at the
    /// [limit](crate#descriptors) of descriptors.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.end.descriptor()
    }

    /// Checks for a message; if there is none, arms the descriptor. The descriptor then becomes
    /// readable when the producer commits a message, joins, leaves, or dies; death also hangs it
    /// up.
    ///
    /// Call `arm` before each poll: it clears the previous readiness.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) in the same cases as `try_pop`, and also if
    /// the producer died. The descriptor then becomes readable when the next producer joins. Never
    /// returns [`Lagged`](Error::Lagged): an overwritten message counts as `Ready`, and the next
    /// read reports it. Returns [`InSet`](Error::InSet) while a [`WaitSet`](crate::WaitSet) waits
    /// for the handle, and [`Forked`](Error::Forked) in a forked child.
    ///
    /// `arm` does not wait for the other side. If no [helper thread](crate#the-helper-thread) can
    /// be started, it takes a little over 1 ms. If a producer has just died, it takes up to 10 ms
    /// while the kernel frees the dead process's resources.
    ///
    /// One death is reported later: that of a named `broadcast` channel's producer that has never
    /// woken this consumer. The helper thread reports it up to 16 times `check_every` later,
    /// without a hang-up. In that case `arm` returns [`Os`](Error::Os) if no helper thread can be
    /// started.
    pub fn arm(&mut self) -> Result<Readiness, Error> {
        self.end.arm(1)
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

    /// Leaves before the work is done. The producer gets `Disconnected(Aborted)` when the channel
    /// is full.
    ///
    /// The producer of a `broadcast` channel waits for the remaining consumers instead. There only
    /// the seat's state shows the abort.
    pub fn abort(self) {
        self.end.seat.abort();
    }

    /// Lets the current tokio runtime drive this handle's futures and streams from now on, in place
    /// of the helper thread. A wake-up then costs one thread switch less.
    ///
    /// The futures may be awaited anywhere while that runtime runs. After it has shut down, a
    /// future that has to wait fails with [`Os`](Error::Os). Returns
    /// [`NoRuntime`](Error::NoRuntime) outside a runtime and [`NoPipes`](Error::NoPipes) for
    /// borrowed memory; nothing has changed then.
    ///
    /// # Panics
    /// Panics as tokio does, if the runtime was built without `enable_io`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// runtime.block_on(async {
    ///     let (mut tx, mut rx) = slipring::spsc::channel::<u64>(8)?;
    ///     rx.on_tokio()?;
    ///     tx.push(1)?;
    ///     assert_eq!(rx.pop_async().await?, 1);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub fn on_tokio(&mut self) -> Result<(), Error> {
        self.end.on_tokio()
    }
}

impl<K: Kind> Watched for Consumer<K> {
    fn ask(&self, _: usize) -> Result<Wish, Error> {
        self.end.ask(None).map(Wish::Channel)
    }
}

impl<K: Kind> AnyConsumer for Consumer<K> {}

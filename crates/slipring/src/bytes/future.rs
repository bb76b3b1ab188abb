//! The verbs that wait, as futures.

use std::future::poll_fn;

use super::{Consumer, Producer, Record, Reservation, core};
use crate::error::Error;
use crate::waiting;

impl Producer {
    /// As [`push`](Self::push), as a future of any runtime: the task sleeps, no thread does, but the helper
    /// thread that this process keeps for its futures (`slipring`, started by the first one that has to
    /// wait). A future that is dropped has pushed nothing. `NoPipes` if it would have to wait on borrowed
    /// memory; `InSet` while a [`WaitSet`](crate::WaitSet) waits for the handle; `Forked` in a forked child.
    /// Does not block its thread; but where no [helper thread](crate#the-helper-thread) can be started a poll
    /// takes a little over 1 ms (and fails, with `Os`, unless tokio drives it), and up to 10 ms while the
    /// kernel frees what a peer held that has just died. One that finds room is ready at its first poll, so a
    /// task whose consumer is always faster goes on;
    /// every 128 such polls in a row, one lets other tasks run first: it wakes its task and is pending.
    ///
    /// ```
    /// use slipring::bytes;
    ///
    /// async fn greet(tx: &mut bytes::Producer) -> Result<(), slipring::Error> {
    ///     tx.push_async(b"hello").await?;
    ///     let mut record = tx.reserve_async(1500).await?;     // in place; dropping discards
    ///     record[..5].copy_from_slice(b"world");
    ///     record.commit(5);
    ///     Ok(())
    /// }
    /// # let _ = greet;
    /// ```
    pub async fn push_async(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.room(payload.len()).await?;
        Ok(self.core.try_push(payload)?)
    }

    /// As [`reserve`](Self::reserve), as a future: see [`push_async`](Self::push_async). A future that
    /// is dropped has reserved nothing.
    pub async fn reserve_async(&mut self, len: usize) -> Result<Reservation<'_, 'static>, Error> {
        self.room(len).await?;
        Ok(self.core.try_reserve(len)?)
    }

    /// As [`wait_for_consumer`](Self::wait_for_consumer), as a future: see
    /// [`push_async`](Self::push_async).
    pub async fn wait_for_consumer_async(&mut self) -> Result<(), Error> {
        let (core, seat) = (&mut self.core, &mut self.seat);
        poll_fn(|cx| waiting::poll_peer(core, seat, cx)).await
    }

    async fn room(&mut self, len: usize) -> Result<(), Error> {
        let (core, seat) = (&mut self.core, &mut self.seat);
        poll_fn(|cx| waiting::poll_ready(core, seat, cx, |core| core.ensure(len))).await
    }

    /// From now on this handle's futures are driven by the tokio runtime that is current, in place of
    /// the helper thread: a wake-up costs one switch of threads less. They may be awaited anywhere, while
    /// that runtime runs; after it has shut down, one that has to wait is an error of the system.
    /// `NoRuntime` outside of a runtime, `NoPipes` for borrowed memory; then nothing has changed.
    ///
    /// # Panics
    /// As tokio does, if the runtime was built without `enable_io`.
    #[cfg(feature = "tokio")]
    pub fn on_tokio(&mut self) -> Result<(), Error> {
        self.seat.on_tokio()
    }
}

impl Consumer {
    /// As [`pop`](Self::pop), as a future of any runtime: the task sleeps, no thread does, but the helper
    /// thread that this process keeps for its futures (`slipring`, started by the first one that has to
    /// wait). A future that is dropped has taken nothing. `NoPipes` if it would have to wait on borrowed
    /// memory; `InSet` while a [`WaitSet`](crate::WaitSet) waits for the handle; `Forked` in a forked child.
    /// Does not block its thread; but where no [helper thread](crate#the-helper-thread) can be started a poll
    /// takes a little over 1 ms (and fails, with `Os`, unless tokio drives it), and up to 10 ms while the
    /// kernel frees what a peer held that has just died. One that finds a record is ready at its first poll,
    /// so a task whose producer is always faster goes on;
    /// every 128 such polls in a row, one lets other tasks run first: it wakes its task and is pending.
    pub async fn pop_async(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.record().await?;
        Ok(self.core.try_pop(out)?)
    }

    /// As [`read`](Self::read), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_async(&mut self) -> Result<Record<'_, 'static>, Error> {
        self.record().await?;
        Ok(self.core.try_read()?)
    }

    /// As [`wait_for_producer`](Self::wait_for_producer), as a future: see [`pop_async`](Self::pop_async).
    pub async fn wait_for_producer_async(&mut self) -> Result<(), Error> {
        let (core, seat) = (&mut self.core, &mut self.seat);
        poll_fn(|cx| waiting::poll_peer(core, seat, cx)).await
    }

    async fn record(&mut self) -> Result<(), Error> {
        let (core, seat) = (&mut self.core, &mut self.seat);
        poll_fn(|cx| waiting::poll_ready(core, seat, cx, core::Consumer::ensure)).await
    }

    /// The records, copied, as a stream, which ends when the producer has finished and all is read. Any
    /// other error (`Disconnected` by a producer that aborted or died, `Corrupt`, ..) is its last item.
    /// Dropping the stream loses nothing; a new one goes on, but after a `Disconnected` only with the
    /// next producer (see [`wait_for_producer_async`](Self::wait_for_producer_async)). It waits as
    /// [`pop_async`](Self::pop_async) does.
    ///
    /// ```
    /// use futures_core::Stream;
    /// use std::{future::poll_fn, pin::Pin};
    ///
    /// # fn main() -> Result<(), slipring::Error> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let (mut tx, mut rx) = slipring::bytes::channel(64)?;
    /// tx.push(b"1")?;
    /// drop(tx); // the end of the stream
    /// let mut stream = rx.stream();
    /// while let Some(message) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
    ///     assert_eq!(message?, b"1");
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    #[cfg(feature = "stream")]
    pub fn stream(
        &mut self,
    ) -> impl futures_core::FusedStream<Item = Result<Vec<u8>, Error>> + Unpin {
        waiting::stream(|cx| {
            let ready =
                waiting::poll_ready(&mut self.core, &mut self.seat, cx, core::Consumer::ensure);
            ready.map(|there| {
                there.and_then(|()| {
                    let record = self.core.try_read()?;
                    let copy = record.to_vec();
                    // By name: a drop would not, in a destructor that a panic runs.
                    record.release();
                    Ok(copy)
                })
            })
        })
    }

    /// From now on this handle's futures and streams are driven by the tokio runtime that is current, in
    /// place of the helper thread: a wake-up costs one switch of threads less. They may be awaited
    /// anywhere, while that runtime runs; after it has shut down, one that has to wait is an error of the
    /// system. `NoRuntime` outside of a runtime, `NoPipes` for borrowed memory; then nothing has changed.
    ///
    /// # Panics
    /// As tokio does, if the runtime was built without `enable_io`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// runtime.block_on(async {
    ///     let (mut tx, mut rx) = slipring::bytes::channel(64)?;
    ///     rx.on_tokio()?;
    ///     tx.push(b"1")?;
    ///     let mut out = [0; 8];
    ///     let len = rx.pop_async(&mut out).await?;
    ///     assert_eq!(&out[..len], b"1");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub fn on_tokio(&mut self) -> Result<(), Error> {
        self.seat.on_tokio()
    }
}

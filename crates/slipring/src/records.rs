//! The verbs of records, which are the same for all kinds that carry them.

mod batch;

use std::time::Duration;

use slipring_core::record::{self, HoldRecord, PushRecord};

use crate::consumer::Consumer;
use crate::error::Error;
use crate::kind::{Kind, OfRecords, RecordKind};
use crate::producer::Producer;
use crate::wait::{Until, until_the_end};

/// A record that a consumer of kind `K` reads in place. Dropping it releases it.
pub type Record<'c, K> = record::Record<'c, <K as Kind>::Consumer>;

/// Several records that a consumer of kind `K` reads in place. Dropping it releases those that it returned.
pub type Records<'c, K> = record::Records<'c, <K as Kind>::Consumer>;

/// Verbs of records: see [`RecordKind`].
impl<R> Producer<OfRecords<R>>
where
    OfRecords<R>: RecordKind,
{
    /// Appends a record, or returns [`Full`](Error::Full) if there is no room now.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) if there is no room and the consumer is gone,
    /// and [`TooLarge`](Error::TooLarge) above the largest record. Never waits. Enters the kernel
    /// only to wake a sleeping consumer. A topic's publisher is `Full` only if subscribers hold its slots: see
    /// [`pins`](Producer::pins).
    #[inline]
    #[doc(alias = "send")]
    pub fn try_push(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.end.core.try_push(payload)
    }

    /// Like [`try_push`](Self::try_push), waiting while the channel is full. If no consumer has
    /// joined yet, the call waits as well.
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.push_until(payload, Until::Forever)
    }

    /// Like [`push`](Self::push), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    #[inline]
    pub fn push_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<(), Error> {
        self.push_until(payload, Until::For(timeout))
    }

    // Always inlined: see `push_until` of slots.
    #[inline(always)]
    fn push_until(&mut self, payload: &[u8], mut until: Until) -> Result<(), Error> {
        loop {
            self.end.ready(payload.len(), &mut until)?;
            // SAFETY: `ready` has just returned `Ok`: there is room.
            if unsafe { self.end.core.put_record(payload) } {
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
        loop {
            self.room(payload.len()).await?;
            match self.end.core.try_push(payload) {
                // Another producer took the room.
                Err(Error::Full) => {}
                pushed => return pushed,
            }
        }
    }

    /// Returns the largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.end.core.max_record()
    }
}

/// Verbs of records: see [`RecordKind`].
impl<R> Consumer<OfRecords<R>>
where
    OfRecords<R>: RecordKind,
{
    /// Reads the oldest record in place. Dropping the record releases it.
    ///
    /// Returns [`Empty`](Error::Empty) if there is no record, or
    /// [`Disconnected`](Error::Disconnected) if there is none and the producer left.
    ///
    /// Never waits. Enters the kernel only to wake a sleeping producer when the record is released,
    /// so it cannot detect that a producer *died*. The waiting calls,
    /// [`is_disconnected`](Self::is_disconnected) and a [`WaitSet`](crate::WaitSet) can. After one
    /// of them has detected a death, `try_read` reports it.
    #[inline]
    #[doc(alias = "recv")]
    pub fn try_read(&mut self) -> Result<Record<'_, OfRecords<R>>, Error> {
        self.end.core.try_read()
    }

    /// Like [`try_read`](Self::try_read), waiting until there is a record. If no producer has
    /// joined yet, the call waits as well.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) once all records are read and the producer is
    /// gone.
    #[inline]
    pub fn read(&mut self) -> Result<Record<'_, OfRecords<R>>, Error> {
        let len = self.hold_until(Until::Forever)?;
        // SAFETY: the line above holds it.
        Ok(unsafe { record::Record::of_held(&mut self.end.core, len) })
    }

    /// Like [`read`](Self::read), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    #[inline]
    pub fn read_timeout(&mut self, timeout: Duration) -> Result<Record<'_, OfRecords<R>>, Error> {
        let len = self.hold_until(Until::For(timeout))?;
        // SAFETY: the line above holds it.
        Ok(unsafe { record::Record::of_held(&mut self.end.core, len) })
    }

    /// Like [`read`](Self::read), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_async(&mut self) -> Result<Record<'_, OfRecords<R>>, Error> {
        let len = loop {
            self.message().await?;
            match self.end.core.hold_record() {
                // Another consumer took it.
                Err(Error::Empty) => {}
                held => break held?,
            }
        };
        // SAFETY: the line above holds it.
        Ok(unsafe { record::Record::of_held(&mut self.end.core, len) })
    }

    // Always inlined, as `push_until`.
    #[inline(always)]
    fn hold_until(&mut self, mut until: Until) -> Result<usize, Error> {
        loop {
            match self.end.core.hold_record() {
                // There is no record, or another consumer took it.
                Err(Error::Empty) => self.end.ready(1, &mut until)?,
                held => return held,
            }
        }
    }

    /// Copies the oldest record into `out` and returns its length. Returns
    /// [`TooLarge`](Error::TooLarge) if the record is longer than `out`; the record stays in the
    /// channel.
    #[inline]
    pub fn try_pop(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.end.core.try_pop(out)
    }

    /// Like [`try_pop`](Self::try_pop), waiting until there is a record.
    #[inline]
    pub fn pop(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.pop_until(out, Until::Forever)
    }

    /// Like [`pop`](Self::pop), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn pop_timeout(&mut self, out: &mut [u8], timeout: Duration) -> Result<usize, Error> {
        self.pop_until(out, Until::For(timeout))
    }

    /// Like [`pop`](Self::pop), as a future for any runtime: see `push_async` of [`Producer`]. A
    /// dropped future has taken nothing.
    pub async fn pop_async(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        loop {
            self.message().await?;
            match self.end.core.try_pop(out) {
                // Another consumer took it.
                Err(Error::Empty) => {}
                taken => return taken,
            }
        }
    }

    fn pop_until(&mut self, out: &mut [u8], mut until: Until) -> Result<usize, Error> {
        loop {
            match self.end.core.try_pop(out) {
                // There is no record, or another consumer took it.
                Err(Error::Empty) => self.end.ready(1, &mut until)?,
                taken => return taken,
            }
        }
    }

    /// Returns an iterator over copies of the records, which waits for each as [`read`](Self::read)
    /// does. It ends when the producer has finished and all records are read. [`read`](Self::read)
    /// itself copies nothing.
    ///
    /// Any other error, such as [`Corrupt`](Error::Corrupt) or the
    /// [`Disconnected`](Error::Disconnected) of a producer that aborted or died, is the last item.
    /// Dropping the iterator loses nothing.
    pub fn iter(&mut self) -> impl std::iter::FusedIterator<Item = Result<Vec<u8>, Error>> {
        until_the_end(move || Ok(copied(self.read()?)))
    }

    /// Returns copies of the records as a stream, which waits for each as
    /// [`pop_async`](Self::pop_async) does. It ends when the producer has finished and all records
    /// are read.
    ///
    /// Any other error, such as [`Corrupt`](Error::Corrupt) or the
    /// [`Disconnected`](Error::Disconnected) of a producer that aborted or died, is the last item.
    ///
    /// Dropping the stream loses nothing: a new stream continues where it stopped. After a
    /// [`Disconnected`](Error::Disconnected), the new stream continues only with the next producer.
    /// See [`wait_for_producer_async`](Self::wait_for_producer_async).
    ///
    /// ```
    /// use futures_core::Stream;
    /// use std::{future::poll_fn, pin::Pin};
    ///
    /// # fn main() -> Result<(), slipring::SetupError> {
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
        until_the_end(move |cx: &mut std::task::Context<'_>| {
            loop {
                std::task::ready!(self.end.poll_ready(1, cx))?;
                match self.end.core.try_read() {
                    Err(Error::Empty) => {}
                    read => return std::task::Poll::Ready(read.map(copied)),
                }
            }
        })
    }

    /// Returns the largest payload of one record, in bytes.
    pub fn max_record(&self) -> usize {
        self.end.core.max_record()
    }
}

fn copied<C: HoldRecord>(record: record::Record<'_, C>) -> Vec<u8> {
    let copy = record.to_vec();
    // Release by name: in a destructor that runs during a panic, a drop would release nothing.
    record.release();
    copy
}

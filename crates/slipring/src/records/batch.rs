//! The verbs of several records at once.

use std::iter::Peekable;
use std::time::Duration;

use slipring_core::record::{self, HoldRecords, PushRecords};

use super::Records;
use crate::consumer::Consumer;
use crate::error::{BatchError, Error};
use crate::kind::{BatchKind, OfRecords};
use crate::producer::Producer;
use crate::wait::Until;

/// Verbs of several records at once: see [`BatchKind`].
impl<R> Producer<OfRecords<R>>
where
    OfRecords<R>: BatchKind,
{
    /// Appends as many records as fit, publishes them together, and returns their number. Returns
    /// at least one, or an error; returns 0 only if the iterator is empty.
    ///
    /// Takes no record from the iterator unless there is room for it, so the iterator must be
    /// peekable. A work queue takes as many slots at once as the iterator is sure to fill (`size_hint`), and publishes
    /// those together.
    pub fn try_push_iter<'a, I>(&mut self, payloads: &mut Peekable<I>) -> Result<usize, Error>
    where
        I: Iterator<Item = &'a [u8]>,
    {
        self.end.core.try_push_iter(payloads)
    }

    /// Appends all records, waiting whenever the channel is full, and returns their number.
    /// Publishes each time the available room is used up. On failure, the [`BatchError`] holds the
    /// number of records already appended; the record after those is the one that failed.
    ///
    /// The failed record has been taken from the iterator, because only a record tells how much
    /// room it needs. A caller that must not lose it calls [`try_push_iter`](Self::try_push_iter)
    /// with a peekable iterator.
    pub fn push_iter<'a, I>(&mut self, payloads: I) -> Result<usize, BatchError>
    where
        I: IntoIterator<Item = &'a [u8]>,
    {
        let mut payloads = payloads.into_iter().peekable();
        let mut done = 0;
        while let Some(next) = payloads.peek() {
            let room = self.end.ready(next.len(), &mut Until::Forever);
            match room.and_then(|()| self.try_push_iter(&mut payloads)) {
                Ok(count) => done += count,
                // Another producer took the room.
                Err(Error::Full) => {}
                Err(error) => return Err(BatchError { done, error }),
            }
        }
        Ok(done)
    }
}

/// Verbs of several records at once: see [`BatchKind`].
impl<R> Consumer<OfRecords<R>>
where
    OfRecords<R>: BatchKind,
{
    /// Reads up to `max` consecutive records in place. Dropping the guard, even by an early `?`,
    /// releases those that it returned, and no others: see [`bytes::Records`](crate::bytes::Records).
    ///
    /// ```
    /// let (mut tx, mut rx) = slipring::bytes::channel(4096)?;
    /// tx.push_iter([&b"one"[..], b"two", b"three"])?;
    /// let mut batch = rx.read_batch(16)?;
    /// while let Some(record) = batch.next()? {
    ///     println!("{} bytes", record.len());
    /// }
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[inline]
    pub fn try_read_batch(&mut self, max: usize) -> Result<Records<'_, OfRecords<R>>, Error> {
        self.end.core.try_read_batch(max)
    }

    /// Like [`try_read_batch`](Self::try_read_batch), waiting until there is a record.
    #[inline]
    pub fn read_batch(&mut self, max: usize) -> Result<Records<'_, OfRecords<R>>, Error> {
        self.batch_until(max, Until::Forever)
    }

    /// Like [`read_batch`](Self::read_batch), for at most `timeout`
    /// ([`TimedOut`](Error::TimedOut)).
    pub fn read_batch_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> Result<Records<'_, OfRecords<R>>, Error> {
        self.batch_until(max, Until::For(timeout))
    }

    /// Like [`read_batch`](Self::read_batch), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_batch_async(
        &mut self,
        max: usize,
    ) -> Result<Records<'_, OfRecords<R>>, Error> {
        let held = loop {
            self.message().await?;
            match self.end.core.hold_records(max) {
                // Another consumer took it.
                Err(Error::Empty) => {}
                held => break held?,
            }
        };
        // SAFETY: the line above holds them.
        Ok(unsafe { record::Records::of_held(&mut self.end.core, held) })
    }

    fn batch_until(
        &mut self,
        max: usize,
        mut until: Until,
    ) -> Result<Records<'_, OfRecords<R>>, Error> {
        let held = loop {
            self.end.ready(1, &mut until)?;
            match self.end.core.hold_records(max) {
                // Another consumer took it.
                Err(Error::Empty) => {}
                held => break held?,
            }
        };
        // SAFETY: the line above holds them.
        Ok(unsafe { record::Records::of_held(&mut self.end.core, held) })
    }
}

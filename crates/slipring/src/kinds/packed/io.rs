//! A channel of records as a stream of bytes: the traits of `std::io` and of tokio.
//!
//! | trait | a call | waits |
//! |---|---|---|
//! | `Write` of [`RecordWriter`] | pushes one record of at most the largest size | while the channel is full |
//! | `Read`, `BufRead` of [`RecordReader`] | reads the rest of the oldest record only | while there is none |
//! | tokio's `AsyncWrite`, `AsyncRead`, `AsyncBufRead` | the same | as a task |
//!
//! The reader releases a record when its last byte is consumed. If a reader is dropped or killed in
//! the middle of a record, the whole record stays. The next reader begins at the record's start.

use std::fmt;
use std::io::{BufRead, Error as IoError, ErrorKind, Read, Result, Write};

use slipring_core::End;

use crate::consumer::Consumer;
use crate::error::Error;
use crate::kind::{OfRecords, PackedKind};
use crate::producer::Producer;

/// Writes bytes into a channel as records: see [`writer`](Producer::writer).
#[derive(Debug)]
pub struct RecordWriter<'p, R>(&'p mut Producer<OfRecords<R>>)
where
    OfRecords<R>: PackedKind;

/// Reads bytes out of a channel, regardless of record boundaries: see
/// [`Consumer::reader`](Consumer::reader).
#[derive(Debug)]
pub struct RecordReader<'c, R>
where
    OfRecords<R>: PackedKind,
{
    consumer: &'c mut Consumer<OfRecords<R>>,
    /// The number of bytes of the oldest record that are consumed.
    consumed: usize,
}

impl<R> Producer<OfRecords<R>>
where
    OfRecords<R>: PackedKind,
{
    /// Returns a writer. Each write publishes one record of at most the largest size at once, so
    /// there is nothing to flush. A `write!` or `writeln!` is one write.
    ///
    /// ```
    /// use std::io::{BufRead, Write};
    ///
    /// let (mut tx, mut rx) = slipring::bytes::channel(4096)?;
    /// let (one, two) = (1, 2);
    /// writeln!(tx.writer(), "{one} and {two}")?;
    /// drop(tx); // the end of the stream
    /// let lines: Vec<String> = rx.reader().lines().collect::<Result<_, _>>()?;
    /// assert_eq!(lines, ["1 and 2"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns `BrokenPipe` if the channel is full and the consumer is gone. Any other [`Error`] is
    /// the source of an error of kind `Other`.
    pub fn writer(&mut self) -> RecordWriter<'_, R> {
        RecordWriter(self)
    }
}

impl<R> Consumer<OfRecords<R>>
where
    OfRecords<R>: PackedKind,
{
    /// Returns a reader, which begins at the start of the oldest record. It reaches its end when
    /// the producer has finished and all records are read.
    ///
    /// # Errors
    /// Returns `ConnectionAborted` if the producer aborted or died, after everything that it
    /// committed. Any other [`Error`] is the source of an error of kind `Other`.
    pub fn reader(&mut self) -> RecordReader<'_, R> {
        RecordReader {
            consumer: self,
            consumed: 0,
        }
    }
}

impl<R> RecordWriter<'_, R>
where
    OfRecords<R>: PackedKind,
{
    /// Returns the part of `bytes` that fits into one record.
    fn part<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[..bytes.len().min(self.0.max_record())]
    }
}

impl<R> Write for RecordWriter<'_, R>
where
    OfRecords<R>: PackedKind,
{
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let part = self.part(bytes);
        if !part.is_empty() {
            self.0.push(part).map_err(IoError::from)?;
        }
        Ok(part.len())
    }

    /// As one record, and not as one for each argument.
    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> Result<()> {
        match arguments.as_str() {
            Some(text) => self.write_all(text.as_bytes()),
            None => self.write_all(arguments.to_string().as_bytes()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The result of a look at the oldest record.
enum Left {
    /// Some of a record is left.
    Data,
    /// The stream has ended.
    End,
    /// Nothing is there yet.
    Nothing,
}

/// Says what an error means for a reader: the end of the stream, or a failure.
fn end_or_failure(error: Error) -> Result<Left> {
    match error {
        Error::Empty => Ok(Left::Nothing),
        Error::Disconnected(End::Finished) => Ok(Left::End),
        Error::Disconnected(_) => Err(IoError::new(ErrorKind::ConnectionAborted, error)),
        error => Err(error.into()),
    }
}

impl<R> RecordReader<'_, R>
where
    OfRecords<R>: PackedKind,
{
    /// Looks at what is left of the oldest record. Steps over records that are read to their end, and over empty ones: they
    /// are no end of the stream.
    fn look(&mut self) -> Result<Left> {
        loop {
            match self.consumer.try_peek() {
                Ok(record) if self.consumed < record.len() => return Ok(Left::Data),
                Ok(_) => self.release()?,
                Err(error) => return end_or_failure(error),
            }
        }
    }

    /// Returns what is left of the oldest record, after [`look`](Self::look) found data.
    fn data(&mut self) -> Result<&[u8]> {
        let record = self.consumer.try_peek().map_err(IoError::from)?;
        Ok(record.get(self.consumed..).unwrap_or(&[]))
    }

    /// Releases the oldest record.
    fn release(&mut self) -> Result<()> {
        self.consumed = 0;
        self.consumer.try_read().map_err(IoError::from)?.release();
        Ok(())
    }

    /// Takes note that `amount` more bytes were consumed.
    fn advance(&mut self, amount: usize) {
        self.consumed += amount;
        let over = (self.consumer.try_peek()).is_ok_and(|record| self.consumed >= record.len());
        if over {
            // The next call says what is wrong, if anything is.
            let _ = self.release();
        }
    }
}

impl<R> BufRead for RecordReader<'_, R>
where
    OfRecords<R>: PackedKind,
{
    fn fill_buf(&mut self) -> Result<&[u8]> {
        loop {
            match self.look()? {
                Left::Data => return self.data(),
                Left::End => return Ok(&[]),
                Left::Nothing => {}
            }
            // An end that this call tells is told: asked again, the consumer would take it for history.
            if let Err(error) = self.consumer.end.ready(1, &mut crate::wait::Until::Forever)
                && let Left::End = end_or_failure(error)?
            {
                return Ok(&[]);
            }
        }
    }

    fn consume(&mut self, amount: usize) {
        if amount > 0 {
            self.advance(amount);
        }
    }
}

impl<R> Read for RecordReader<'_, R>
where
    OfRecords<R>: PackedKind,
{
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(feature = "tokio")]
mod tokio {
    //! The same as tasks.

    use std::io::{Read, Result};
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use ::tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

    use super::{IoError, Left, RecordReader, RecordWriter, end_or_failure};
    use crate::kind::{OfRecords, PackedKind};

    impl<R> AsyncWrite for RecordWriter<'_, R>
    where
        OfRecords<R>: PackedKind,
    {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            let part = self.part(bytes);
            if part.is_empty() {
                return Poll::Ready(Ok(0));
            }
            ready!(self.0.end.poll_ready(part.len(), cx)).map_err(IoError::from)?;
            Poll::Ready(
                self.0
                    .try_push(part)
                    .map(|()| part.len())
                    .map_err(IoError::from),
            )
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        /// The stream ends when the producer is dropped.
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl<R> RecordReader<'_, R>
    where
        OfRecords<R>: PackedKind,
    {
        /// As [`look`](RecordReader::look), ready once there is data, or the end.
        fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<Result<Left>> {
            loop {
                // Also if there is data: a task that always finds some must leave its thread to others at times.
                if let Err(error) = ready!(self.consumer.end.poll_ready(1, cx)) {
                    match end_or_failure(error)? {
                        Left::Nothing => continue,
                        end => return Poll::Ready(Ok(end)),
                    }
                }
                // An end that this look reports is reported: the next one would not find it again.
                match self.look()? {
                    Left::Nothing => {}
                    found => return Poll::Ready(Ok(found)),
                }
            }
        }
    }

    impl<R> AsyncBufRead for RecordReader<'_, R>
    where
        OfRecords<R>: PackedKind,
    {
        fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<&[u8]>> {
            let reader = self.get_mut();
            match ready!(reader.poll_look(cx))? {
                Left::Data => Poll::Ready(reader.data()),
                Left::End | Left::Nothing => Poll::Ready(Ok(&[])),
            }
        }

        fn consume(mut self: Pin<&mut Self>, amount: usize) {
            if amount > 0 {
                self.advance(amount);
            }
        }
    }

    impl<R> AsyncRead for RecordReader<'_, R>
    where
        OfRecords<R>: PackedKind,
    {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            let count = match ready!(self.poll_look(cx))? {
                Left::Data => self.data()?.read(out.initialize_unfilled())?,
                Left::End | Left::Nothing => 0,
            };
            out.advance(count);
            if count > 0 {
                self.advance(count);
            }
            Poll::Ready(Ok(()))
        }
    }
}

//! A `bytes` channel as a stream of bytes: the traits of `std::io` and of tokio.
//!
//! | trait | a call | waits |
//! |---|---|---|
//! | `Write` of [`Writer`] | pushes one record of at most the largest size | while the channel is full |
//! | `Read`, `BufRead` of [`Reader`] | reads the rest of the oldest record only | while there is none |
//! | tokio's `AsyncWrite`, `AsyncRead`, `AsyncBufRead` | the same | as a task |
//!
//! The reader releases a record when its last byte is consumed. If a reader is dropped or killed in
//! the middle of a record, the whole record stays. The next reader begins at the record's start.

use std::io::{BufRead, Error as IoError, ErrorKind, Read, Result, Write};

use slipring_core::End;

use super::{Consumer, Producer};
use crate::error::Error;

/// Writes bytes into a channel as records: see [`Producer::writer`](Producer::writer).
#[derive(Debug)]
pub struct Writer<'p>(&'p mut Producer);

/// Reads bytes out of a channel, regardless of record boundaries: see
/// [`Consumer::reader`](Consumer::reader).
#[derive(Debug)]
pub struct Reader<'c> {
    consumer: &'c mut Consumer,
    /// The number of bytes of the oldest record that are consumed.
    consumed: usize,
}

impl Producer {
    /// Returns a writer. Each write publishes one record of at most the largest size at once, so
    /// there is nothing to flush.
    ///
    /// ```
    /// use std::io::{BufRead, Write};
    ///
    /// let (mut tx, mut rx) = slipring::bytes::channel(4096)?;
    /// writeln!(tx.writer(), "{} and {}", 1, 2)?;
    /// drop(tx); // the end of the stream
    /// let lines: Vec<String> = rx.reader().lines().collect::<Result<_, _>>()?;
    /// assert_eq!(lines, ["1 and 2"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns `BrokenPipe` if the channel is full and the consumer is gone. Any other [`Error`] is
    /// the source of an error of kind `Other`.
    pub fn writer(&mut self) -> Writer<'_> {
        Writer(self)
    }
}

impl Consumer {
    /// Returns a reader, which begins at the start of the oldest record. It reaches its end when
    /// the producer has finished and all records are read.
    ///
    /// # Errors
    /// Returns `ConnectionAborted` if the producer aborted or died, after everything that it
    /// committed. Any other [`Error`] is the source of an error of kind `Other`.
    pub fn reader(&mut self) -> Reader<'_> {
        Reader {
            consumer: self,
            consumed: 0,
        }
    }
}

/// Translates a verb's error into an error of `std::io`.
fn in_io(error: Error) -> IoError {
    let kind = match error {
        Error::Disconnected(_) => ErrorKind::BrokenPipe,
        Error::Os { errno, .. } => return IoError::from_raw_os_error(errno),
        _ => ErrorKind::Other,
    };
    IoError::new(kind, error)
}

impl Writer<'_> {
    /// Returns the part of `bytes` that fits into one record.
    fn part<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[..bytes.len().min(self.0.max_record())]
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let part = self.part(bytes);
        if !part.is_empty() {
            self.0.push(part).map_err(in_io)?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Reader<'_> {
    /// Returns the rest of the oldest record, or `None` if the caller must wait for a record.
    /// Returns an empty slice at the end of the stream.
    fn left(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let len = match self.consumer.try_peek() {
                Ok(record) => record.len(),
                Err(Error::Empty) => return Ok(None),
                Err(Error::Disconnected(End::Finished)) => return Ok(Some(&[])),
                Err(Error::Disconnected(end)) => {
                    let error = Error::Disconnected(end);
                    return Err(IoError::new(ErrorKind::ConnectionAborted, error));
                }
                Err(error) => return Err(in_io(error)),
            };
            if self.consumed < len {
                break;
            }
            // An empty record is not the end of the stream.
            self.release()?;
        }
        let record = self.consumer.try_peek().map_err(in_io)?;
        Ok(record.get(self.consumed..))
    }

    /// Releases the oldest record.
    fn release(&mut self) -> Result<()> {
        self.consumed = 0;
        self.consumer.try_read().map_err(in_io)?.release();
        Ok(())
    }

    /// Marks `amount` more bytes of the oldest record as consumed.
    fn advance(&mut self, amount: usize) {
        self.consumed += amount;
        let over = self
            .consumer
            .try_peek()
            .is_ok_and(|record| self.consumed >= record.len());
        if over {
            // If this fails, the next call reports the error.
            let _ = self.release();
        }
    }
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        while self.left()?.is_none() {
            match self.consumer.end.ready(1, &mut crate::wait::Until::Forever) {
                // `left` reports the end of the stream.
                Ok(()) | Err(Error::Disconnected(_)) => {}
                Err(error) => return Err(in_io(error)),
            }
        }
        Ok(self.left()?.unwrap_or(&[]))
    }

    fn consume(&mut self, amount: usize) {
        if amount > 0 {
            self.advance(amount);
        }
    }
}

impl Read for Reader<'_> {
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

    use super::{Reader, Writer, in_io};
    use crate::error::Error;

    impl AsyncWrite for Writer<'_> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            let part = self.part(bytes);
            if part.is_empty() {
                return Poll::Ready(Ok(0));
            }
            ready!(self.0.end.poll_ready(part.len(), cx)).map_err(in_io)?;
            Poll::Ready(self.0.try_push(part).map(|()| part.len()).map_err(in_io))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        /// The stream ends when the producer is dropped.
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Reader<'_> {
        fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
            while self.left()?.is_none() {
                match ready!(self.consumer.end.poll_ready(1, cx)) {
                    // `left` reports the end of the stream.
                    Ok(()) | Err(Error::Disconnected(_)) => {}
                    Err(error) => return Poll::Ready(Err(in_io(error))),
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncBufRead for Reader<'_> {
        fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<&[u8]>> {
            let reader = self.get_mut();
            ready!(reader.poll_left(cx))?;
            Poll::Ready(Ok(reader.left()?.unwrap_or(&[])))
        }

        fn consume(mut self: Pin<&mut Self>, amount: usize) {
            if amount > 0 {
                self.advance(amount);
            }
        }
    }

    impl AsyncRead for Reader<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            ready!(self.poll_left(cx))?;
            let count = match self.left()? {
                Some(mut left) => left.read(out.initialize_unfilled())?,
                None => 0,
            };
            out.advance(count);
            if count > 0 {
                self.advance(count);
            }
            Poll::Ready(Ok(()))
        }
    }
}

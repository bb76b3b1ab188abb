//! A consumer's messages one after another, until the stream ends: as an iterator that waits, and
//! as an asynchronous stream.
//!
//! Both end when the producer has finished and all messages are read. `Lagged` is an item before
//! the next message. Any other error is the last item.

use std::iter::FusedIterator;
#[cfg(feature = "stream")]
use std::task::{Context, Poll};

use slipring_core::End;

use crate::error::Error;

/// Yields the results of `next`, until the stream ends.
pub(crate) struct Until<F> {
    /// `None` once it has ended.
    next: Option<F>,
}

/// Makes an iterator, or a stream, of the results of `next`.
pub(crate) fn until_the_end<F>(next: F) -> Until<F> {
    Until { next: Some(next) }
}

impl<F> Until<F> {
    /// Returns the item for a message or an error.
    fn item<T>(&mut self, found: Result<T, Error>) -> Option<Result<T, Error>> {
        let error = match found {
            Ok(message) => return Some(Ok(message)),
            Err(error) => error,
        };
        // `Lagged` reports the lost messages, and the remaining ones follow.
        if !matches!(error, Error::Lagged(_)) {
            self.next = None;
        }
        (error != Error::Disconnected(End::Finished)).then_some(Err(error))
    }
}

impl<T, F: FnMut() -> Result<T, Error>> Iterator for Until<F> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.next.as_mut()?();
        self.item(found)
    }
}

impl<T, F: FnMut() -> Result<T, Error>> FusedIterator for Until<F> {}

#[cfg(feature = "stream")]
impl<T, F> futures_core::Stream for Until<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Result<T, Error>> + Unpin,
{
    type Item = Result<T, Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let found = std::task::ready!(next(cx));
        Poll::Ready(self.item(found))
    }
}

#[cfg(feature = "stream")]
impl<T, F> futures_core::FusedStream for Until<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Result<T, Error>> + Unpin,
{
    fn is_terminated(&self) -> bool {
        self.next.is_none()
    }
}

//! Rust futures: a poll that found nothing arms the descriptor and leaves a waker with the driver
//! that watches it.
//!
//! A poll takes nothing, and publishes nothing, before it returns *ready*. So a future that is
//! dropped loses nothing. Its request to the other side stands until it is answered, or until the
//! next call on the handle takes it up. That costs at most one needless wake-up.

use std::task::{Context, Poll};
use std::time::Instant;

use slipring_core::end::Endpoint;

use super::attached::{Attached, WaitState};
#[cfg(feature = "tokio")]
use super::driver::Driver;
use super::looks;
use crate::error::Error;

/// After this many polls of one handle that were ready at once, the next one lets other tasks run.
/// tokio allows as many.
const READY_POLLS: u32 = 128;

impl<C: Endpoint> Attached<C> {
    /// Is ready when there is room for `amount`, or a message, or when it fails for good. Until
    /// then the task is woken when that may be so.
    pub(crate) fn poll_ready(
        &mut self,
        amount: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        self.poll_done(cx, |end| end.found(amount))
    }

    /// Is ready when there is a live peer whose end has not been reported to this handle.
    pub(crate) fn poll_peer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.seat.ours() {
            return Poll::Ready(Err(Error::Forked));
        }
        self.acknowledge();
        self.poll_done(cx, Attached::present)
    }

    /// Is ready when no peer is present.
    pub(crate) fn poll_alone(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.seat.ours() {
            return Poll::Ready(Err(Error::Forked));
        }
        self.poll_done(cx, Attached::alone)
    }

    fn poll_done(
        &mut self,
        cx: &mut Context<'_>,
        mut done: impl FnMut(&mut Self) -> Result<bool, Error>,
    ) -> Poll<Result<(), Error>> {
        let state = &mut self.state;
        // A task that always finds something must leave the thread to others at times: tokio
        // counts, or else we do.
        if state.driver.counts_turns() && state.ready_polls >= READY_POLLS {
            state.ready_polls = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        #[cfg(feature = "tokio")]
        let turn = match state.driver {
            Driver::Tokio(_) => Some(std::task::ready!(::tokio::task::coop::poll_proceed(cx))),
            _ => None,
        };
        let polled = match done(self) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => self.rest_in_task(cx, done),
            Err(error) => Poll::Ready(Err(error)),
        };
        self.state.ready_polls = match polled {
            Poll::Ready(_) => self.state.ready_polls.saturating_add(1),
            Poll::Pending => 0,
        };
        #[cfg(feature = "tokio")]
        if let Some(turn) = turn
            && polled.is_ready()
        {
            turn.made_progress();
        }
        polled
    }

    #[cold]
    #[inline(never)]
    fn rest_in_task(
        &mut self,
        cx: &mut Context<'_>,
        mut done: impl FnMut(&mut Self) -> Result<bool, Error>,
    ) -> Poll<Result<(), Error>> {
        // A set asks on the handle's behalf, in its own way.
        if self.state.parker.in_set() {
            return Poll::Ready(Err(Error::InSet));
        }
        self.state.driver.forget(cx)?;
        self.ask_for_a_byte()?;
        // For what was published before the other side was asked.
        let mut found = done(self)?;
        if !found && !looks::look_later(&self.state.parker)? {
            found = done(self)?;
        }
        if found {
            self.state.parker.disarm();
            return Poll::Ready(Ok(()));
        }
        looks::watch_name(&self.state.parker);
        if let Err(renamed) = self.state.parker.check_name_in_time(Instant::now()) {
            // News that came meanwhile comes first.
            if !done(self)? {
                return Poll::Ready(Err(renamed));
            }
            self.state.parker.disarm();
            return Poll::Ready(Ok(()));
        }
        let WaitState { driver, parker, .. } = &mut self.state;
        driver.rest(parker, cx)?;
        self.seat.beat();
        if self.state.owes {
            // The next poll gives more back.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

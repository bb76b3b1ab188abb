//! The face of a Rust future: a poll that found nothing arms the descriptor and leaves a waker with
//! whoever watches that.
//!
//! Nothing is taken, and nothing published, before a poll says *ready*: so a future that is dropped loses
//! nothing. What it asked the other side for stands until it is answered, or until the next call on the
//! handle takes it up: at most one wake that nobody needs.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use slipring_core::Error as Core;

#[cfg(feature = "tokio")]
use super::on_tokio::OnTokio;
use super::pipe::ask;
use super::reactor::Registration;
use super::{Parker, Waits, again, found, name_check, present, take_note};
use crate::error::Error;
use crate::seat::Seat;

/// Who watches the descriptor of a handle for its futures.
#[derive(Default)]
pub(crate) enum Driver {
    /// Nobody yet: the helper thread, if a future has to wait.
    #[default]
    Unasked,
    Helper(Registration),
    #[cfg(feature = "tokio")]
    Tokio(Box<OnTokio>),
}

/// After so many polls of one handle that were ready at once, the next one lets other tasks run: as many as tokio allows.
const READY_POLLS: u32 = 128;

impl Driver {
    /// Whether nobody else sees to it that a task leaves the thread to others.
    fn counts_turns(&self) -> bool {
        match self {
            Driver::Unasked | Driver::Helper(_) => true,
            #[cfg(feature = "tokio")]
            Driver::Tokio(_) => false,
        }
    }

    /// Before the descriptor is armed: what it said until now is forgotten.
    fn forget(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        match self {
            // Told of what *is*, not of what happens, once `rest` is called.
            Driver::Unasked | Driver::Helper(_) => Ok(()),
            #[cfg(feature = "tokio")]
            Driver::Tokio(tokio) => tokio.listen(_cx),
        }
    }

    /// After it was armed, and nothing found: from now on the waker is woken when it has something to
    /// tell.
    fn rest(&mut self, parker: &Arc<Parker>, cx: &Context<'_>) -> Result<(), Error> {
        match self {
            Driver::Unasked => {
                let registration = Registration::new(parker)?;
                registration.rest(cx.waker())?;
                *self = Driver::Helper(registration);
                Ok(())
            }
            Driver::Helper(registration) => registration.rest(cx.waker()),
            // It has listened since `forget`.
            #[cfg(feature = "tokio")]
            Driver::Tokio(_) => Ok(()),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn on_tokio(&mut self, parker: &Parker) -> Result<(), Error> {
        *self = Driver::Tokio(Box::new(OnTokio::new(parker)?));
        Ok(())
    }
}

/// Whether `attempt` works, or fails for good; if neither, the task is woken when it may.
pub(crate) fn poll_ready<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    cx: &mut Context<'_>,
    mut attempt: impl FnMut(&mut C) -> Result<(), Core>,
) -> Poll<Result<(), Error>> {
    poll_until(core, seat, cx, |core, _| found(attempt(core)))
}

/// Whether there is a live peer at the other end whose end this handle has not been told of; if not, the
/// task is woken when one comes.
pub(crate) fn poll_peer<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    if !seat.ours() {
        return Poll::Ready(Err(Error::Forked));
    }
    take_note(core, seat);
    poll_until(core, seat, cx, present)
}

fn poll_until<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    cx: &mut Context<'_>,
    mut done: impl FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Poll<Result<(), Error>> {
    // A task that always finds something must leave the thread to others at times: tokio counts, or else we do.
    if seat.driver.counts_turns() && seat.ready_polls >= READY_POLLS {
        seat.ready_polls = 0;
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    #[cfg(feature = "tokio")]
    let turn = match seat.driver {
        Driver::Tokio(_) => Some(std::task::ready!(::tokio::task::coop::poll_proceed(cx))),
        _ => None,
    };
    let polled = match done(core, seat) {
        Ok(true) => Poll::Ready(Ok(())),
        Ok(false) => wait(core, seat, cx, done),
        Err(error) => Poll::Ready(Err(error)),
    };
    seat.ready_polls = match polled {
        Poll::Ready(_) => seat.ready_polls.saturating_add(1),
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
fn wait<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    cx: &mut Context<'_>,
    mut done: impl FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Poll<Result<(), Error>> {
    // A set asks on the handle's behalf, in its own way.
    if seat.parker.in_set() {
        return Poll::Ready(Err(Error::InSet));
    }
    seat.driver.forget(cx)?;
    ask(core, seat)?;
    // What was published before the other side was asked.
    let mut found = done(core, seat)?;
    if !found && !again::look(&seat.parker)? {
        found = done(core, seat)?;
    }
    if found {
        seat.parker.disarm();
        return Poll::Ready(Ok(()));
    }
    name_check::watch(&seat.parker);
    if let Err(renamed) = seat.parker.check_name_in_time(Instant::now()) {
        // What came meanwhile comes first.
        if !done(core, seat)? {
            return Poll::Ready(Err(renamed));
        }
        seat.parker.disarm();
        return Poll::Ready(Ok(()));
    }
    seat.driver.rest(&seat.parker, cx)?;
    seat.beat();
    Poll::Pending
}

/// What `next` yields, until the producer finished, or anything else but `Lagged` ends it, as the last item.
#[cfg(feature = "stream")]
pub(crate) fn stream<T, F>(
    next: F,
) -> impl futures_core::FusedStream<Item = Result<T, Error>> + Unpin
where
    F: FnMut(&mut Context<'_>) -> Poll<Result<T, Error>> + Unpin,
{
    Stream { next: Some(next) }
}

#[cfg(feature = "stream")]
struct Stream<F> {
    /// Nothing once it has ended.
    next: Option<F>,
}

#[cfg(feature = "stream")]
impl<T, F> futures_core::Stream for Stream<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Result<T, Error>> + Unpin,
{
    type Item = Result<T, Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Error>>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        match std::task::ready!(next(cx)) {
            Ok(message) => Poll::Ready(Some(Ok(message))),
            Err(error) => {
                // What was lost is told, and the rest comes.
                if !matches!(error, Error::Lagged(_)) {
                    self.next = None;
                }
                let finished = matches!(error, Error::Disconnected(slipring_core::End::Finished));
                Poll::Ready((!finished).then_some(Err(error)))
            }
        }
    }
}

#[cfg(feature = "stream")]
impl<T, F> futures_core::FusedStream for Stream<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Result<T, Error>> + Unpin,
{
    fn is_terminated(&self) -> bool {
        self.next.is_none()
    }
}

//! The second look at a handle that polls its pipe, where the barrier may not have reached every publisher
//! (`slipring_core::wait`): who overlooked the bit writes no byte, and a poll has no bound.
//!
//! Who armed, and found nothing, has the helper thread look, once, a while later: whether the bit stands still, and
//! the other side is not where it was when the caller looked. Then the helper makes the descriptor readable, as the
//! other side should have. So it is readable when there is something, and only then. Arming costs one system
//! call for many handles, as long as the helper's timer runs.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slipring_core::wait::{Asked, SEEN_WITHIN};

use super::Parker;
use super::reactor::Reactor;

/// How long after it was armed a handle is looked at again.
pub(super) const AFTER: Duration = Duration::from_nanos(SEEN_WITHIN);
/// How long after it could not ring the helper tries again.
const RETRY: Duration = Duration::from_millis(10);

/// The second look at one handle.
#[derive(Default)]
pub(crate) struct Again {
    /// Nothing if none is due.
    due: Mutex<Option<Due>>,
    reactor: OnceLock<Arc<Reactor>>,
}

struct Due {
    at: Instant,
    /// Where the other side was before the handle's own look.
    since: u64,
    /// Whether the helper knows.
    listed: bool,
}

/// Empties the pipe, and sees to it that the bit stands, by `ask`; and notes if somebody may have overlooked that.
/// Whether the bit did not stand. It is owed a look then, also by who comes back to find the bit set.
///
/// The helper looks before all of that, or after it: in between it would take what is just being armed for what was
/// overlooked, and its byte would come after the emptying.
pub(super) fn asking(parker: &Parker, ask: impl FnOnce() -> Option<Asked>) -> bool {
    let mut due = parker.again.due();
    let asked = ask();
    let since = parker.position();
    if asked.is_some_and(|asked| parker.sleeper.unsure(asked)) {
        let at = Instant::now() + AFTER;
        let listed = due.as_ref().is_some_and(|due| due.listed);
        *due = Some(Due { at, since, listed });
    } else if let Some(due) = &mut *due {
        // Its caller is about to look at all that came before.
        due.since = since;
    }
    asked.is_some()
}

/// Has the helper look again at a handle, if that is owed. `false` if there is no helper to be had: then the time is
/// over, and the caller is to look.
pub(super) fn look(parker: &Arc<Parker>) -> bool {
    let again = &parker.again;
    match &mut *again.due() {
        Some(due) if !due.listed => due.listed = true,
        _ => return true,
    }
    let listed = again.list(parker);
    if !listed {
        again.forget();
        std::thread::sleep(AFTER);
    }
    listed
}

/// The helper's look; when it is to come back for another.
pub(super) fn looked(parker: &Parker, now: Instant) -> Option<Instant> {
    // Kept while it rings: who leaves waits for that, and nobody else's pipe is written.
    let mut due = parker.again.due();
    let current = due.as_mut()?;
    if current.at > now {
        return Some(current.at);
    }
    let overlooked = parker.sleeper.polls() && parker.position() != current.since;
    if overlooked && parker.ring().is_err() {
        // No descriptor to be had just now.
        current.at = now + RETRY;
        return Some(current.at);
    }
    *due = None;
    None
}

impl Again {
    /// Whether somebody may have overlooked the bit, and nobody has looked since.
    pub(super) fn owed(&self) -> bool {
        self.due().is_some()
    }

    /// Nobody looks any more.
    pub(super) fn forget(&self) {
        *self.due() = None;
    }

    fn list(&self, parker: &Arc<Parker>) -> bool {
        let reactor = match self.reactor.get() {
            Some(reactor) => reactor,
            None => match Reactor::current() {
                Ok(reactor) => self.reactor.get_or_init(|| reactor),
                Err(_) => return false,
            },
        };
        reactor.look_again(Arc::downgrade(parker))
    }

    fn due(&self) -> MutexGuard<'_, Option<Due>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The second look at a handle that polls its pipe, where the barrier may not have reached every publisher
//! (`slipring_core::wait`): who overlooked the bit writes no byte, and a poll has no bound.
//!
//! Who armed, and found nothing, has the helper thread look, once, a while later: whether the bit stands still, and
//! the other side is not where it was then. Then the helper makes the descriptor readable, as the other side should
//! have. So it is readable when there is something, and only then; and arming costs one system call for many
//! handles, as long as the helper's timer runs.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slipring_core::wait::SEEN_WITHIN;

use super::Parker;
use super::reactor::Reactor;

/// How long after it was armed a handle is looked at again.
pub(super) const AFTER: Duration = Duration::from_nanos(SEEN_WITHIN);

/// The second look at one handle.
#[derive(Default)]
pub(crate) struct Again {
    /// Nothing if none is due. The helper holds this while it rings, so that nobody is rung for who has left.
    due: Mutex<Option<Due>>,
    reactor: OnceLock<Arc<Reactor>>,
}

struct Due {
    at: Instant,
    /// Where the other side was when the handle was armed.
    since: u64,
    /// Whether the helper knows.
    listed: bool,
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

impl Again {
    /// Somebody may have overlooked the bit that was just set; before that, the other side was at `since`. Owed until
    /// it was looked at, also by who comes back to find the bit set still.
    pub(super) fn owe(&self, since: u64) {
        let at = Instant::now() + AFTER;
        let mut due = self.due();
        let listed = due.as_ref().is_some_and(|due| due.listed);
        *due = Some(Due { at, since, listed });
    }

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

/// The helper's look; whether it has to come back for another.
pub(super) fn looked(parker: &Parker, now: Instant) -> bool {
    let mut due = parker.again.due();
    match &mut *due {
        None => return false,
        Some(due) if due.at > now => return true,
        Some(due) => {
            let overlooked = parker.sleeper.armed() && parker.position() != due.since;
            if overlooked && parker.ring().is_err() {
                // No descriptor to be had just now.
                due.at = now + AFTER;
                return true;
            }
        }
    }
    *due = None;
    false
}

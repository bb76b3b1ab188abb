//! The checks for a waiting handle besides its channel's words, by the handle itself and by the
//! helper thread.
//!
//! There are two. The second look serves publishers that may have overlooked the bit
//! (`recheck.rs`). The other checks the channel's name: see `name_check.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slipring_core::wait::Asked;

use super::helper::{Look, Reactor};
use super::parker::Parker;
use super::policy::NAME_EVERY;
use super::recheck::{AFTER, AskedFor, Due, RETRY};
use crate::error::Error;

/// Arms the handle by `ask`, which empties the pipe and sets the bit. Returns `true` if the bit was
/// newly set.
///
/// If a publisher may have overlooked the new bit, records that a second look is due. The caller
/// must then look once more, even if it comes back later and finds the bit already set.
///
/// The helper looks before all of this, or after it. In between it would take a bit that is just
/// being armed for an overlooked one, and its byte would come after the emptying.
pub(super) fn asking(parker: &Parker, ask: impl FnOnce() -> Option<Asked>) -> bool {
    let mut again = parker.recheck.asked();
    let asked = ask();
    let since = parker.position();
    if asked.is_some_and(|asked| parker.waiter.unsure(asked)) {
        let at = Instant::now() + AFTER;
        again.due = Some(Due { at, since });
    } else if let Some(due) = &mut again.due {
        // The caller is about to look at everything that came before.
        due.since = since;
    }
    asked.is_some()
}

/// Lets the helper thread look again at a handle, if that is due. Returns `false` if no helper
/// thread can be started: then the time has passed, and the caller must look. Fails if a vigil has
/// no helper thread: a poll might never end.
pub(super) fn look_later(parker: &Arc<Parker>) -> Result<bool, Error> {
    let again = &parker.recheck;
    let (at, new, vigil) = {
        let mut asked = again.asked();
        let Some(at) = asked.next() else {
            return Ok(true);
        };
        let new = !std::mem::replace(&mut asked.listed, true);
        (at, new, asked.vigil.is_some())
    };
    let look = new.then(|| {
        let parker = Arc::downgrade(parker);
        let look = move |now, made| looked(&*parker.upgrade()?, now, made);
        Box::new(look) as Look
    });
    let listed = again.list(look, at);
    let Err(error) = listed else {
        return Ok(true);
    };
    again.forget();
    if new {
        again.asked().listed = false;
    }
    if vigil {
        return Err(error);
    }
    std::thread::sleep(AFTER);
    Ok(false)
}

/// Runs the helper's look, and returns the time of the next one. `made` is a moment in the past.
fn looked(parker: &Parker, now: Instant, made: Instant) -> Option<Instant> {
    // Held while the helper rings: a leaving handle waits for that, so the byte never goes into a
    // successor's pipe.
    let mut again = parker.recheck.asked();
    look_for_overlooked(&mut again, parker, now);
    keep_watch(&mut again, parker, now, made);
    let next = again.next();
    again.listed = next.is_some();
    next
}

fn look_for_overlooked(again: &mut AskedFor, parker: &Parker, now: Instant) {
    let Some(due) = again.due.as_mut().filter(|due| due.at <= now) else {
        return;
    };
    let overlooked = parker.waiter.polls() && parker.position() != due.since;
    if overlooked && parker.ring().is_err() {
        // No descriptor is available just now.
        due.at = now + RETRY;
        return;
    }
    again.due = None;
}

fn keep_watch(again: &mut AskedFor, parker: &Parker, now: Instant, made: Instant) {
    let Some(vigil) = again.vigil.as_mut().filter(|vigil| vigil.at <= now) else {
        return;
    };
    if parker.readable() {
        // The poller will come back.
        again.vigil = None;
        return;
    }
    // A peer that took the bit a moment ago is about to write.
    let taken = !parker.waiter.polls();
    if (taken && vigil.taken) || parker.peer_ended(vigil.known) {
        if parker.ring().is_err() {
            vigil.at = now + RETRY;
        } else {
            again.vigil = None;
        }
        return;
    }
    vigil.taken = taken;
    vigil.every = vigil.every.saturating_mul(2).min(vigil.rarest);
    // All vigils with the same interval come at one time.
    let every = vigil.every.as_nanos().clamp(1, u64::MAX.into());
    let into = now.saturating_duration_since(made).as_nanos() % every;
    vigil.at = now + Duration::from_nanos((every - into) as u64);
}

impl Parker {
    /// Returns `Removed` or `Replaced` if a check is due, nothing came since the last one, and the
    /// name leads elsewhere.
    pub(super) fn check_name_in_time(&self, now: Instant) -> Result<(), Error> {
        let passed = now.saturating_duration_since(self.name.made).as_nanos() as u64;
        if passed < self.name.due.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_name(now)
    }

    /// Like [`check_name_in_time`](Self::check_name_in_time), even if no check is due.
    #[cold]
    #[inline(never)]
    pub(super) fn check_name(&self, now: Instant) -> Result<(), Error> {
        if !self.name.named() {
            return Ok(());
        }
        let next = now.saturating_duration_since(self.name.made) + NAME_EVERY;
        self.name
            .due
            .store(next.as_nanos() as u64, Ordering::Relaxed);
        let position = self.position();
        if self.name.seen.swap(position, Ordering::Relaxed) != position {
            return Ok(());
        }
        self.region.check_name()
    }

    /// Makes the descriptor of a polling handle readable, if its name leads elsewhere. The helper
    /// thread calls this.
    pub(super) fn ring_if_renamed(&self) {
        if !self.waiter.polls() || self.check_name(Instant::now()).is_ok() {
            return;
        }
        self.recheck.unless_left(|| {
            // The handle checks for itself when it is armed next.
            self.name.due.store(0, Ordering::Relaxed);
            // If no descriptor is available, the helper tries again in a second.
            let _ = self.ring();
        });
    }
}

/// Lets the helper thread check the name once a second for as long as the handle lives. Without a
/// helper thread, only arming checks it.
pub(super) fn watch_name(parker: &Arc<Parker>) {
    let name = &parker.name;
    if !name.named() || name.listed.swap(true, Ordering::Relaxed) {
        return;
    }
    match Reactor::current() {
        Ok(reactor) => {
            let parker = Arc::downgrade(parker);
            reactor.watch_name(Box::new(move || {
                let parker = parker.upgrade();
                parker.inspect(|parker| parker.ring_if_renamed()).is_some()
            }));
        }
        Err(_) => name.listed.store(false, Ordering::Relaxed),
    }
}

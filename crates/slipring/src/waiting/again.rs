//! The second look at a handle that polls its pipe, where the barrier may not have reached every publisher
//! (`slipring_core::wait`): who overlooked the bit writes no byte, and a poll has no bound.
//!
//! Who armed, and found nothing, has the helper thread look, once, a while later: whether the bit stands still, and
//! the other side is not where it was when the caller looked. Then the helper makes the descriptor readable, as the
//! other side should have. So it is readable when there is something, and only then. Arming costs one system
//! call for many handles, as long as the helper's timer runs.
//!
//! # The vigil
//! Where the other side opens a pipe only when it first writes there, no hang-up tells of its death before
//! (`pipe.rs`, *Opened late*). As long as such a handle polls, the helper comes back: after `check_every`, then half
//! as often each time, down to a sixteenth. It makes the descriptor readable when the other side has ended, or
//! has taken the bit and written no byte (since it was killed in between, or had no descriptor left to open the pipe).

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slipring_core::wait::{Asked, SEEN_WITHIN};

use super::reactor::Reactor;
use super::{LONGEST, Parker};
use crate::error::Error;

/// How long after it was armed a handle is looked at again.
pub(super) const AFTER: Duration = Duration::from_nanos(SEEN_WITHIN);
/// How long after it could not ring the helper tries again.
const RETRY: Duration = Duration::from_millis(10);
/// A vigil becomes so many times rarer, and no more.
const RAREST: u32 = 16;

/// What the helper is to do for one handle.
#[derive(Default)]
pub(crate) struct Again {
    asked: Mutex<AskedFor>,
    reactor: OnceLock<Arc<Reactor>>,
}

#[derive(Default)]
struct AskedFor {
    /// The second look; nothing if none is due.
    due: Option<Due>,
    vigil: Option<Vigil>,
    /// Whether the helper knows of either.
    listed: bool,
    /// Whether the handle has left: its pipe is somebody else's.
    left: bool,
}

struct Due {
    at: Instant,
    /// Where the other side was before the handle's own look.
    since: u64,
}

struct Vigil {
    at: Instant,
    every: Duration,
    rarest: Duration,
    /// The generation of the peer up to which ends are no news.
    known: u64,
    /// Whether the last look found the bit taken, and no byte.
    taken: bool,
}

impl AskedFor {
    /// When the helper is to look next.
    fn next(&self) -> Option<Instant> {
        let due = self.due.as_ref().map(|due| due.at);
        let vigil = self.vigil.as_ref().map(|vigil| vigil.at);
        due.into_iter().chain(vigil).min()
    }
}

/// Empties the pipe, and sees to it that the bit stands, by `ask`; and notes if somebody may have overlooked that.
/// Whether the bit did not stand. It is owed a look then, also by who comes back to find the bit set.
///
/// The helper looks before all of that, or after it: in between it would take what is just being armed for what was
/// overlooked, and its byte would come after the emptying.
pub(super) fn asking(parker: &Parker, ask: impl FnOnce() -> Option<Asked>) -> bool {
    let mut again = parker.again.asked();
    let asked = ask();
    let since = parker.position();
    if asked.is_some_and(|asked| parker.sleeper.unsure(asked)) {
        let at = Instant::now() + AFTER;
        again.due = Some(Due { at, since });
    } else if let Some(due) = &mut again.due {
        // Its caller is about to look at all that came before.
        due.since = since;
    }
    asked.is_some()
}

/// Has the helper look again at a handle, if that is owed. `false` if there is no helper to be had: then the time is
/// over, and the caller is to look. Fails if there is none for a vigil: a poll might never end.
pub(super) fn look(parker: &Arc<Parker>) -> Result<bool, Error> {
    let again = &parker.again;
    let (at, new, vigil) = {
        let mut asked = again.asked();
        let Some(at) = asked.next() else {
            return Ok(true);
        };
        let new = !std::mem::replace(&mut asked.listed, true);
        (at, new, asked.vigil.is_some())
    };
    let listed = again.list(parker, at, new);
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

/// The helper's look; when it is to come back for another. `made` is some moment of the past.
pub(super) fn looked(parker: &Parker, now: Instant, made: Instant) -> Option<Instant> {
    // Kept while it rings: who leaves waits for that, and nobody else's pipe is written.
    let mut again = parker.again.asked();
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
    let overlooked = parker.sleeper.polls() && parker.position() != due.since;
    if overlooked && parker.ring().is_err() {
        // No descriptor to be had just now.
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
        // Whoever polls will come back.
        again.vigil = None;
        return;
    }
    // Who took the bit a moment ago is about to write.
    let taken = !parker.sleeper.polls();
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
    // All that are as rare come at one time.
    let every = vigil.every.as_nanos().clamp(1, u64::MAX.into());
    let into = now.saturating_duration_since(made).as_nanos() % every;
    vigil.at = now + Duration::from_nanos((every - into) as u64);
}

impl Again {
    /// Whether somebody may have overlooked the bit, and nobody has looked since.
    pub(super) fn owed(&self) -> bool {
        self.asked().due.is_some()
    }

    /// Whether no hang-up would tell of the peer's death.
    pub(super) fn vigilant(&self) -> bool {
        self.asked().vigil.is_some()
    }

    /// From now on the helper, once it is asked to, looks for the death of the peer, if that is of a generation above
    /// `known`; with nothing, no more.
    pub(super) fn keep_vigil(&self, known: Option<u64>, every: Duration) {
        let every = every.max(AFTER);
        self.asked().vigil = known.map(|known| Vigil {
            // A time too far for the clock is a day.
            at: Instant::now() + every.min(LONGEST),
            every,
            rarest: every.saturating_mul(RAREST).min(LONGEST),
            known,
            taken: false,
        });
    }

    /// The handle has looked itself, as late as the helper would have.
    pub(super) fn looked(&self) {
        self.asked().due = None;
    }

    /// The handle leaves: nobody looks any more, and when this returns nobody rings.
    pub(super) fn leave(&self) {
        let mut asked = self.asked();
        (asked.due, asked.vigil, asked.left) = (None, None, true);
    }

    /// Does something that must not be done once the handle has left, which waits for it.
    pub(super) fn unless_left(&self, act: impl FnOnce()) {
        let asked = self.asked();
        if !asked.left {
            act();
        }
    }

    /// Nobody looks any more.
    pub(super) fn forget(&self) {
        let mut asked = self.asked();
        (asked.due, asked.vigil) = (None, None);
    }

    fn list(&self, parker: &Arc<Parker>, at: Instant, new: bool) -> Result<(), Error> {
        let reactor = match self.reactor.get() {
            Some(reactor) => reactor,
            None => {
                let reactor = Reactor::current()?;
                self.reactor.get_or_init(|| reactor)
            }
        };
        reactor.look_again(new.then(|| Arc::downgrade(parker)), at)
    }

    fn asked(&self) -> MutexGuard<'_, AskedFor> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

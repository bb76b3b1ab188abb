//! The second look at a handle that polls its pipe.
//!
//! The barrier may not have reached every publisher (`slipring_core::wait`). A publisher that
//! overlooked the bit writes no byte, and a poll has no bound. So a handle that armed, and found
//! nothing, lets the helper thread look once, a while later. The helper checks two things: the bit
//! still stands, and the other side has moved since the handle's own look. Then it makes the
//! descriptor readable, as the other side should have. So the descriptor is readable when there is
//! news, and only then. While the helper's timer runs, arming many handles costs one system call.
//!
//! # The vigil
//! If the other side opens a pipe only when it first writes there, no hang-up reports its death
//! before (`fd.rs`, *Opened late*). As long as such a handle polls, the helper comes back: after
//! `check_every`, then half as often each time, down to a sixteenth.
//!
//! The helper makes the descriptor readable when the other side has ended. It also does so when the
//! other side has taken the bit and written no byte. Then the other side was killed in between, or
//! had no descriptor left to open the pipe.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slipring_core::wait::SEEN_WITHIN;

use super::helper::{Look, Reactor};
use super::policy::LONGEST;
use crate::error::Error;

/// The time after arming at which the helper thread looks at a handle again.
pub(super) const AFTER: Duration = Duration::from_nanos(SEEN_WITHIN);
/// The time after which the helper tries again to ring, if it could not.
pub(super) const RETRY: Duration = Duration::from_millis(10);
/// The factor by which a vigil becomes rarer at most.
const RAREST: u32 = 16;

/// The helper's tasks for one handle.
#[derive(Default)]
pub(crate) struct Recheck {
    asked: Mutex<AskedFor>,
    reactor: OnceLock<Arc<Reactor>>,
}

#[derive(Default)]
pub(super) struct AskedFor {
    /// The second look; `None` if none is due.
    pub(super) due: Option<Due>,
    pub(super) vigil: Option<Vigil>,
    /// `true` if the helper knows of either.
    pub(super) listed: bool,
    /// `true` once the handle has left: its pipe belongs to a successor.
    left: bool,
}

pub(super) struct Due {
    pub(super) at: Instant,
    /// The position of the other side before the handle's own look.
    pub(super) since: u64,
}

pub(super) struct Vigil {
    pub(super) at: Instant,
    pub(super) every: Duration,
    pub(super) rarest: Duration,
    /// The generation of the peer up to which ends are not reported again.
    pub(super) known: u64,
    /// `true` if the last look found the bit taken, but no byte.
    pub(super) taken: bool,
}

impl AskedFor {
    /// Returns the time of the helper's next look.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.due.as_ref().map(|due| due.at);
        let vigil = self.vigil.as_ref().map(|vigil| vigil.at);
        due.into_iter().chain(vigil).min()
    }
}

impl Recheck {
    /// Returns `true` if a publisher may have overlooked the bit, and no look has covered that
    /// since.
    pub(super) fn owed(&self) -> bool {
        self.asked().due.is_some()
    }

    /// Returns `true` if no hang-up would report the peer's death.
    pub(super) fn vigilant(&self) -> bool {
        self.asked().vigil.is_some()
    }

    /// Lets the helper, once it is asked to, look for the death of a peer of a generation above
    /// `known`. With `None`, ends that vigil.
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

    /// Records that the handle has looked itself, as late as the helper would have.
    pub(super) fn looked(&self) {
        self.asked().due = None;
    }

    /// Ends all looks, because the handle leaves. When this returns, the helper does not ring any
    /// more.
    pub(super) fn leave(&self) {
        let mut asked = self.asked();
        (asked.due, asked.vigil, asked.left) = (None, None, true);
    }

    /// Calls `act` unless the handle has left. A handle that leaves waits for it.
    pub(super) fn unless_left(&self, act: impl FnOnce()) {
        let asked = self.asked();
        if !asked.left {
            act();
        }
    }

    /// Ends all looks.
    pub(super) fn forget(&self) {
        let mut asked = self.asked();
        (asked.due, asked.vigil) = (None, None);
    }

    /// Lets the helper look at time `at`, by `look` if it does not know of the handle yet.
    pub(super) fn list(&self, look: Option<Look>, at: Instant) -> Result<(), Error> {
        let reactor = match self.reactor.get() {
            Some(reactor) => reactor,
            None => {
                let reactor = Reactor::current()?;
                self.reactor.get_or_init(|| reactor)
            }
        };
        reactor.look_again(look, at)
    }

    pub(super) fn asked(&self) -> MutexGuard<'_, AskedFor> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

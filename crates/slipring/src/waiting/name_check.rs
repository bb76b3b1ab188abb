//! A waiting handle asks once a second whether its channel's name still leads to its channel.
//!
//! The directory of a named channel may be emptied under those who wait (`rm -rf`, logind's `RemoveIPC`). The
//! channel lives on in the memory of its handles, but nobody can join them there: whoever comes later makes
//! another channel, and both sides would wait for ever. So the waiting handle is told: `NotFound`, or `Replaced`
//! if the name leads to another channel by now.
//!
//! - What lies in the ring comes first, and so does an end that the handle was not told of yet.
//! - A handle whose peer has moved since the last look is not told: the two still serve each other.
//! - Memory without a name is never asked about. What the system refuses to say counts as *still there*.
//!
//! | who waits | who asks |
//! |---|---|
//! | a call that polls or sleeps | the call itself (`look_after`) |
//! | a descriptor, a future | the helper thread, once a second for all of them; it makes the descriptor readable, and the next arming asks for itself |
//! | a `WaitSet` | the wait itself, once a second for all entries |
//!
//! One look takes about a microsecond. `inotify` would tell sooner and cost no looks; but a user has 128
//! instances of it (`max_user_instances`), and NFS and FUSE do not tell by it what others remove.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Parker;
use super::reactor::Reactor;
use crate::error::Error;

/// How often the name is looked at.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Longer than any process runs.
const NEVER: u64 = u64::MAX;

/// What a handle remembers between two looks. All accesses are relaxed: its own figures, which order nothing.
pub(super) struct NameCheck {
    made: Instant,
    /// When to look next, in nanoseconds after `made`.
    due: AtomicU64,
    /// The position of the other side at the last look.
    seen: AtomicU64,
    /// Whether the helper thread looks, too.
    listed: AtomicBool,
}

impl NameCheck {
    pub(super) fn new(named: bool) -> NameCheck {
        let due = if named {
            EVERY.as_nanos() as u64
        } else {
            NEVER
        };
        NameCheck {
            made: Instant::now(),
            due: AtomicU64::new(due),
            seen: AtomicU64::new(0),
            listed: AtomicBool::new(false),
        }
    }

    /// Begins with the other side at `position`.
    pub(super) fn begin(&self, position: u64) {
        self.seen.store(position, Ordering::Relaxed);
    }

    fn named(&self) -> bool {
        self.due.load(Ordering::Relaxed) != NEVER
    }
}

impl Parker {
    /// Returns `NotFound` or `Replaced` if it is time to look, nothing came since the last look, and the name
    /// leads elsewhere.
    pub(super) fn check_name_in_time(&self, now: Instant) -> Result<(), Error> {
        let passed = now.saturating_duration_since(self.name.made).as_nanos() as u64;
        if passed < self.name.due.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_name(now)
    }

    /// As [`check_name_in_time`](Self::check_name_in_time), whether or not it is time.
    #[cold]
    #[inline(never)]
    pub(super) fn check_name(&self, now: Instant) -> Result<(), Error> {
        if !self.name.named() {
            return Ok(());
        }
        let next = now.saturating_duration_since(self.name.made) + EVERY;
        self.name
            .due
            .store(next.as_nanos() as u64, Ordering::Relaxed);
        let position = self.position();
        if self.name.seen.swap(position, Ordering::Relaxed) != position {
            return Ok(());
        }
        self.region.check_name()
    }

    /// The helper's look: makes the descriptor of a handle that waits by it readable, if its name leads elsewhere.
    pub(super) fn ring_if_renamed(&self) {
        if !self.sleeper.polls() || self.check_name(Instant::now()).is_ok() {
            return;
        }
        self.again.unless_left(|| {
            // The handle looks for itself when it is armed next.
            self.name.due.store(0, Ordering::Relaxed);
            // Without a descriptor to be had: again in a second.
            let _ = self.ring();
        });
    }
}

/// Has the helper thread look at the name once a second for as long as the handle lives. Without a helper only
/// arming looks.
pub(super) fn watch(parker: &Arc<Parker>) {
    let name = &parker.name;
    if !name.named() || name.listed.swap(true, Ordering::Relaxed) {
        return;
    }
    match Reactor::current() {
        Ok(reactor) => reactor.watch_name(Arc::downgrade(parker)),
        Err(_) => name.listed.store(false, Ordering::Relaxed),
    }
}

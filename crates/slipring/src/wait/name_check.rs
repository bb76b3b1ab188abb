//! A waiting handle checks once a second that its channel's name still leads to its channel.
//!
//! The directory of a named channel may be emptied while handles wait (`rm -rf`, logind's
//! `RemoveIPC`). The channel lives on in the memory of its handles, but no process can join them
//! there. A later process makes another channel, and both sides would wait for ever. So the waiting
//! handle returns `Removed`, or `Replaced` if the name now leads to another channel.
//!
//! - Messages in the ring come first, and so does an end that was not reported to the handle yet.
//! - A handle whose peer has moved since the last check gets no error: the two still serve each
//!   other.
//! - Memory without a name is never checked. If the system refuses to answer, the name counts as
//!   *still there*.
//!
//! | waiter | checker |
//! |---|---|
//! | a call that polls or sleeps | the call itself (`look_after`) |
//! | a descriptor, a future | the helper thread, once a second for all; it makes it readable, and arming checks |
//! | a `WaitSet` | the wait itself, once a second for all entries |
//!
//! One check takes about a microsecond. `inotify` would report sooner and need no checks. But a
//! user has only 128 instances of it (`max_user_instances`), and NFS and FUSE do not report by it
//! what others remove.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::policy::NAME_EVERY;

/// Longer than any process runs.
const NEVER: u64 = u64::MAX;

/// The memory of a handle between two checks. All accesses are relaxed: the handle's own figures,
/// which order nothing.
pub(super) struct NameCheck {
    pub(super) made: Instant,
    /// The time of the next check, in nanoseconds after `made`.
    pub(super) due: AtomicU64,
    /// The position of the other side at the last check.
    pub(super) seen: AtomicU64,
    /// `true` if the helper thread checks, too.
    pub(super) listed: AtomicBool,
}

impl NameCheck {
    pub(super) fn new(named: bool) -> NameCheck {
        let due = if named {
            NAME_EVERY.as_nanos() as u64
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

    pub(super) fn named(&self) -> bool {
        self.due.load(Ordering::Relaxed) != NEVER
    }
}

//! A descriptor in a set, with what its owner knows besides: a discovery of channels has one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::event::{Event, Key};
use crate::error::Error;
use crate::wait::parker::{TellSet, Told};

/// A descriptor that becomes readable when there may be news. Its owner and a set share it.
pub struct Feed {
    descriptor: OwnedFd,
    /// `true` if the owner's next call returns something, whatever the descriptor says.
    pending: AtomicBool,
    /// Returns `true` if there is news of which no descriptor tells. Asked about once a second.
    look: Box<dyn Fn() -> bool + Send + Sync>,
    /// Tells the set that it is in.
    set: Mutex<Option<TellSet>>,
}

impl Feed {
    pub(crate) fn new(
        descriptor: OwnedFd,
        look: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Feed {
        Feed {
            descriptor,
            pending: AtomicBool::new(true),
            look: Box::new(look),
            set: Mutex::default(),
        }
    }

    /// Records what the owner's next call would find by itself.
    pub(crate) fn set_pending(&self, pending: bool) {
        // Relaxed: what was found is the owner's alone. A set that looks too early is told, under its lock.
        let before = self.pending.swap(pending, Ordering::Relaxed);
        if pending && !before {
            self.tell(Told::Vacated);
        }
    }

    /// Takes the feed out of its set. Its owner goes.
    pub(crate) fn leave(&self) {
        self.tell(Told::Left);
    }

    /// Call it while the set's lock is not held.
    fn tell(&self, what: Told) {
        // Not under our lock: the set's lock comes first.
        let set = self.link().clone();
        if let Some(tell) = set {
            tell(what);
        }
    }

    /// Joins a set. Fails with `InSet` if it is in one.
    pub(super) fn join(&self, set: TellSet) -> Result<(), Error> {
        let mut link = self.link();
        match link.is_some() {
            true => Err(Error::InSet),
            false => {
                *link = Some(set);
                Ok(())
            }
        }
    }

    /// Leaves the set.
    pub(super) fn part(&self) {
        *self.link() = None;
    }

    fn link(&self) -> MutexGuard<'_, Option<TellSet>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if the owner's next call may find news.
    fn ready(&self) -> bool {
        // Relaxed: see `set_pending`.
        if self.pending.load(Ordering::Relaxed) {
            return true;
        }
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        // An error is news, too: the owner's next call meets it.
        !matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
    }
}

impl AsFd for Feed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// An entry of a set that is no channel.
pub(super) struct FeedEntry {
    pub(super) feed: Arc<Feed>,
    pub(super) passive: bool,
    pub(super) deadline: Option<Instant>,
    /// `true` while the entry is on the list of entries to look at.
    pub(super) due: bool,
    /// `true` if the deadline passed and no wait has reported it yet.
    pub(super) overdue: bool,
    /// `true` if the last look in vain found news of which no descriptor tells.
    moved: bool,
}

impl FeedEntry {
    pub(super) fn new(feed: Arc<Feed>, passive: bool) -> FeedEntry {
        FeedEntry {
            feed,
            passive,
            deadline: None,
            due: false,
            overdue: false,
            moved: false,
        }
    }

    /// Returns the entry's event, if there is any, and marks it as reported.
    pub(super) fn news(&mut self, key: u64) -> Option<Event> {
        let event = Event {
            key: Key(key),
            ready: std::mem::take(&mut self.moved) || self.feed.ready(),
            ended: None,
            overdue: std::mem::take(&mut self.overdue),
            renamed: false,
        };
        (event.ready || event.overdue).then_some(event)
    }

    /// Looks for news of which no descriptor tells; returns `true` if there is some.
    pub(super) fn look(&mut self) -> bool {
        self.moved = (self.feed.look)();
        self.moved
    }
}

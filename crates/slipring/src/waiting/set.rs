//! Waiting for many channels with one sleep.
//!
//! A [`WaitSet`] holds channels of any kind, either end of them, and sleeps until one of them has
//! something to tell. It borrows no handle: they are used as before, between waits.
//!
//! ```
//! use slipring::{WaitSet, bytes, spsc};
//!
//! let (mut ticks_tx, mut ticks) = spsc::channel::<u64>(64)?;
//! let (mut log_tx, mut log) = bytes::channel(4096)?;
//! let mut set = WaitSet::new()?;
//! let (of_ticks, of_log) = (set.watch(&ticks)?, set.watch(&log)?);
//!
//! ticks_tx.push(7)?;
//! let events = set.wait()?;                       // sleeps if there is nothing
//! assert_eq!(events.len(), 1);
//! assert!(events[0].ready && events[0].key == of_ticks);
//! assert_eq!(ticks.try_pop()?, 7);
//!
//! drop(log_tx);                                   // its stream is finished
//! let events = set.wait()?;
//! assert_eq!((events[0].key, events[0].ended), (of_log, Some(slipring::End::Finished)));
//! assert!(matches!(log.try_read(), Err(slipring::Error::Disconnected(_))));
//! assert!(set.wait()?[0].ready);                  // the end stands
//! set.unwatch(of_log);
//! # drop(ticks_tx);
//! # Ok::<(), slipring::Error>(())
//! ```
//!
//! # What is reported
//! *Ready* is a level: as long as a handle's next call has something to do or to say, each wait reports
//! it again, at once. *Ended* is told once for the latest end that a look finds; what was committed before
//! may still be there: read on until `Disconnected`. *Overdue* is told once for each deadline.
//! *Renamed* is told once, when the name of a channel that has one leads elsewhere: each wait asks once a second.
//! *Passive* entries wake nobody: they are looked at when something else ended a wait.
//!
//! # Ends
//! An end stands until somebody else sits opposite. As long as it stands the handle's calls return `Disconnected`,
//! and each wait reports the handle as ready. It makes no difference who was told before, or how often. A death that
//! only the set found is told by the handle's `try_` calls as well.
//!
//! So a loop that keeps such a handle in its set does not sleep. Do one of two things with it:
//! - take it out ([`unwatch`](WaitSet::unwatch), or drop it);
//! - have it take note of the end, by `wait_for_producer` (or `wait_for_consumer`) with a timeout of zero. It says
//!   `TimedOut`, and the set waits for whoever comes next.
//!
//! ```
//! use slipring::{Error, WaitSet, spsc};
//! use std::time::Duration;
//!
//! let channel = spsc::Builder::<u64>::new(64).heap()?;
//! let mut rx = channel.consumer()?;
//! let mut set = WaitSet::new()?;
//! set.watch(&rx)?;
//!
//! drop(channel.producer()?);                      // comes, and finishes
//! assert!(set.wait()?[0].ready);
//! assert!(matches!(rx.try_pop(), Err(Error::Disconnected(_))));
//! assert!(set.wait()?[0].ready);                  // still so
//! assert!(matches!(rx.wait_for_producer(Duration::ZERO), Err(Error::TimedOut)));
//! assert!(matches!(set.wait_timeout(Duration::ZERO), Err(Error::TimedOut)));
//!
//! channel.producer()?.push(7)?;                   // the next one
//! assert!(set.wait()?[0].ready);
//! assert_eq!(rx.try_pop()?, 7);
//! # Ok::<(), Error>(())
//! ```
//!
//! Once somebody else sits there, the end of one who aborted or died is history, and nobody is told of it any more. A
//! *finished* end is told first, once, by the handle; until then it is ready. The producer of a `broadcast` channel has
//! no such end: that some of its consumers left makes it ready only if there is room.
//!
//! # How it sleeps
//! Up to 127 watched channels: one `futex_waitv` on all their doorbells, and on a word of the set's own.
//! As in any sleep on doorbells, it ends every few milliseconds for a look at who was killed, and at what
//! a killed publisher did not ring for: each `check_every` (the shortest of the entries'), once for every
//! 16 entries, so every 32 ms with 127. Each sleep costs about 0.3 µs for each of them.
//!
//! Beyond 127, or where `futex_waitv` is missing (before Linux 5.16): one epoll over the handles' pipes,
//! at a cost that does not grow, and without any such look, but for one a millisecond after a channel was
//! asked, and, where `membarrier` is refused, one each millisecond until all publishers fence
//! (`slipring_core::wait`): a death hangs the pipe up. (That of a named `broadcast` channel's producer which has not
//! rung yet is told by the [helper thread](crate#the-helper-thread).) It goes back to `futex_waitv` at 63. A pipe
//! takes up to three [descriptors](crate#descriptors) for each entry, which stay open for as long as its handle does, also
//! if the set was refused one more; borrowed memory has none, so there the 128th channel is refused (`NoPipes`).
//!
//! # Why no wake is lost
//! A set asks to be woken by the same bit that the handle's own sleep would use, and looks once more
//! after it asked: the argument of `slipring_core::wait`. An entry is either *armed*, and was looked at
//! after that, or *due*: on the list that each wait looks through before it sleeps. It leaves the list only
//! by being armed, and comes back when it was rung for, when it was reported, when its handle used the
//! bit for a sleep of its own, and, all of them, when the set changes the way it sleeps. Whoever puts
//! something on the list while the owner sleeps wakes the owner, under the lock under which that
//! went to sleep.

mod entry;
mod sleep;
mod state;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slipring_core::End;

use super::{Parker, Until};
use crate::error::Error;
use crate::fork::LeasePage;
use entry::Entry;
use state::State;

/// A channel in a set. No two entries of one process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

/// What a wait found at one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What `watch` returned.
    pub key: Key,
    /// Whether there is a message (or the room that was asked for), or an end or an error that the handle's next
    /// call returns.
    pub ready: bool,
    /// How the other end's holder ended, if that is news to this set. The end itself stands: see
    /// [the module](self#ends).
    pub ended: Option<End>,
    /// Whether its deadline passed.
    pub overdue: bool,
    /// Whether the channel's name was found to lead elsewhere, as a waiting call would say by `NotFound` or
    /// `Replaced`. Told once; the handle's `check_name` says which.
    pub renamed: bool,
}

/// A consumer of any kind.
pub trait AnyConsumer: sealed::Watched {}

/// A producer of any kind.
pub trait AnyProducer: sealed::Watched {}

pub(crate) mod sealed {
    use super::Ask;
    use crate::error::Error;

    /// A handle that a set can wait for.
    pub trait Watched {
        /// What the set needs to know. `amount` is the producer's: slots, or bytes of a record.
        fn ask(&self, amount: usize) -> Result<Ask, Error>;
    }
}

/// What a set needs to wait on behalf of a handle.
pub struct Ask {
    pub(crate) parker: Arc<Parker>,
    /// The room that a producer waits for, in units of its ring; nothing for a consumer.
    pub(crate) room: Option<u64>,
    pub(crate) check_every: Duration,
}

/// Many channels, and the one who waits for them. See [the module](self).
pub struct WaitSet(Members);

impl fmt::Debug for WaitSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet").finish_non_exhaustive()
    }
}

/// The channels of a [`WaitSet`], to be changed from any thread, also while the set's owner waits.
#[derive(Clone)]
pub struct Members(Arc<Shared>);

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

/// What a set, its members and the parkers in it share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// What the owner sleeps on beside its channels. Bumped under the lock.
    word: AtomicU32,
    /// Tells a forked child, in which the set is inert.
    page: LeasePage,
}

impl WaitSet {
    /// An empty set.
    pub fn new() -> Result<WaitSet, Error> {
        Ok(WaitSet(Members(Arc::new(Shared {
            state: Mutex::new(State::new(sleep::most_doorbells())),
            word: AtomicU32::new(0),
            page: LeasePage::new()?,
        }))))
    }

    /// Adds a consumer: ready when there is a message. See [`Members::watch`].
    pub fn watch(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.0.watch(consumer)
    }

    /// As [`watch`](Self::watch), without being woken by it. See [`Members::watch_passive`].
    pub fn watch_passive(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.0.watch_passive(consumer)
    }

    /// Adds a producer: ready when there is room for `amount`. See [`Members::watch_room`].
    pub fn watch_room(&self, producer: &impl AnyProducer, amount: usize) -> Result<Key, Error> {
        self.0.watch_room(producer, amount)
    }

    /// As [`watch_room`](Self::watch_room), without being woken by it.
    pub fn watch_room_passive(
        &self,
        producer: &impl AnyProducer,
        amount: usize,
    ) -> Result<Key, Error> {
        self.0.watch_room_passive(producer, amount)
    }

    /// Takes an entry out; whether it was there. See [`Members::unwatch`].
    pub fn unwatch(&self, key: Key) -> bool {
        self.0.unwatch(key)
    }

    /// Sets or clears an entry's deadline; whether it is there. See [`Members::set_deadline`].
    pub fn set_deadline(&self, key: Key, deadline: Option<Instant>) -> bool {
        self.0.set_deadline(key, deadline)
    }

    /// How many entries there are, passive ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What other threads change the set by.
    pub fn members(&self) -> Members {
        self.0.clone()
    }

    /// Waits until at least one watched entry has something to report, and returns all that have, each
    /// once. Returns at once if one has; else it sleeps, without polling first: a wake-up takes some
    /// 50 µs. An empty set waits for another thread to add to it. After a fork: `Forked`. `Os` if a
    /// descriptor was needed and refused; nothing is lost by it.
    pub fn wait(&mut self) -> Result<Vec<Event>, Error> {
        self.wait_until(Until::Forever)
    }

    /// As [`wait`](Self::wait), for at most `timeout` (`TimedOut`). Zero looks and does not wait. Passive
    /// entries are looked at even then. With more than 127 entries a timeout, and a deadline, may be
    /// late by a millisecond.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Vec<Event>, Error> {
        self.wait_until(Until::after(timeout))
    }

    /// Looks through the list; sleeps; looks again.
    fn wait_until(&mut self, until: Until) -> Result<Vec<Event>, Error> {
        let shared = self.0.shared()?;
        let mut events = Vec::new();
        let mut slept = false;
        shared.lock().renew();
        loop {
            let now = Instant::now();
            let mut state = shared.lock();
            let mut found = state.look(now, &mut events);
            let last = until.passed(now);
            if last || !events.is_empty() || found.is_err() {
                // An entry that is always ready must not hide the others; who slept has asked them.
                if !slept || last {
                    found = found.and(state.gather(last));
                    found = found.and(state.look(now, &mut events));
                }
                state.look_at_passive(now, &mut events);
                return match found {
                    _ if !events.is_empty() => Ok(events),
                    Ok(()) => Err(Error::TimedOut),
                    Err(error) => Err(error),
                };
            }
            let sleep = state.fall_asleep(&shared.word, until, now);
            drop(state);
            let woken = sleep.sleep();
            shared.lock().wake_up(woken)?;
            slept = true;
        }
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        if let Ok(shared) = self.0.shared() {
            shared.lock().close();
        }
    }
}

impl Members {
    /// Adds a consumer, which stays where it is: ready when there is a message. `InSet` if it is in a
    /// set already, `NoSet` if this one was dropped, `Forked` for the copy of a handle or a set in a
    /// forked child. Beyond 127 entries `NoPipes` if any is in borrowed memory, and `Os` if there are
    /// no more descriptors; the set is then as it was.
    ///
    /// A handle in a set may be used as ever, its blocking calls as well; dropped, it takes itself out
    /// of the set. It is not for another event loop at the same time: `arm`, and futures that have to
    /// wait, are refused (`InSet`).
    pub fn watch(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.add(consumer.ask(0)?, false)
    }

    /// As [`watch`](Self::watch), but nothing that happens there ends a wait, nor does its deadline: the
    /// entry is looked at when something else ended one, or a timeout.
    pub fn watch_passive(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.add(consumer.ask(0)?, true)
    }

    /// Adds a producer: ready when there is room for `amount` slots (`spsc`, `broadcast`), or for a record of so
    /// many bytes (`bytes`). More than the channel ever takes is `TooLarge`; else as [`watch`](Self::watch).
    /// A producer mostly has room, and so is mostly ready: put it in when a push said `Full`.
    pub fn watch_room(&self, producer: &impl AnyProducer, amount: usize) -> Result<Key, Error> {
        self.add(producer.ask(amount)?, false)
    }

    /// As [`watch_room`](Self::watch_room), without ending a wait.
    pub fn watch_room_passive(
        &self,
        producer: &impl AnyProducer,
        amount: usize,
    ) -> Result<Key, Error> {
        self.add(producer.ask(amount)?, true)
    }

    fn add(&self, ask: Ask, passive: bool) -> Result<Key, Error> {
        /// Zero is the set's own.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let shared = self.shared()?;
        let mut state = shared.lock();
        if state.closed() {
            return Err(Error::NoSet);
        }
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        ask.parker.join(Arc::downgrade(&self.0), key)?;
        let parker = ask.parker.clone();
        if let Err(error) = state.admit(key, Entry::new(ask, passive)) {
            parker.part();
            return Err(error);
        }
        state.wake(&shared.word);
        Ok(Key(key))
    }

    /// Takes an entry out; whether it was there. When this returns, no wait that begins reports it.
    pub fn unwatch(&self, key: Key) -> bool {
        self.shared().is_ok_and(|shared| shared.remove(key.0))
    }

    /// Has an entry reported when `deadline` has passed, once; nothing clears it, and so does being
    /// reported (being ready does not). Whether the entry is there.
    pub fn set_deadline(&self, key: Key, deadline: Option<Instant>) -> bool {
        let Ok(shared) = self.shared() else {
            return false;
        };
        let mut state = shared.lock();
        let there = state.set_deadline(key.0, deadline);
        state.wake(&shared.word);
        there
    }

    /// How many entries there are, passive ones included.
    pub fn len(&self) -> usize {
        self.shared().map_or(0, |shared| shared.lock().len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Not in a forked child, where the lock may be held for ever.
    fn shared(&self) -> Result<&Shared, Error> {
        if self.0.page.alive() {
            Ok(&self.0)
        } else {
            Err(Error::Forked)
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of this entry used its bit: the set must look, and ask again. From that handle's own
    /// process alone.
    pub(super) fn disturb(&self, key: u64) {
        let mut state = self.lock();
        if state.disturb(key) {
            state.wake(&self.word);
        }
    }

    /// Takes an entry out; whether it was there.
    pub(super) fn remove(&self, key: u64) -> bool {
        let mut state = self.lock();
        let there = state.remove(key);
        state.wake(&self.word);
        there
    }
}

//! Waits for many channels with one sleep.
//!
//! A [`WaitSet`] holds either end of channels of any kind, and sleeps until one of them has
//! something to report. It borrows no handle: the program uses the handles as before, between
//! waits.
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
//! # Ok::<(), slipring::SetupError>(())
//! ```
//!
//! # What is reported
//! * *Ready* is a level. Each wait reports it at once, as long as the handle's next call would
//!   return a message, room, an end or an error.
//! * *Ended* is reported once, for the latest end that the set finds. Messages committed before
//!   that end may still be there: read on until [`Disconnected`](Error::Disconnected).
//! * *Overdue* is reported once for each deadline.
//! * *Renamed* is reported once, when the name of a named channel leads elsewhere. Each wait checks
//!   the names once a second.
//!
//! *Passive* entries never wake the owner. The set looks at them when something else ended a wait.
//!
//! # Ends
//! An end stands until a new peer takes the seat opposite. As long as it stands, the handle's calls
//! return [`Disconnected`](Error::Disconnected), and each wait reports the handle as ready. Earlier
//! reports of the end change nothing. If only the set found a death, the handle's `try_` calls
//! report it as well.
//!
//! A loop that keeps such a handle in its set therefore does not sleep. Do one of two things with
//! it:
//! - Take it out, by [`unwatch`](WaitSet::unwatch) or by dropping it.
//! - Let it acknowledge the end: call `wait_for_producer` (or `wait_for_consumer`) with a timeout
//!   of zero. The call returns [`TimedOut`](Error::TimedOut), and the set then waits for the next
//!   peer.
//!
//! ```
//! use slipring::{Error, SetupError, WaitSet, spsc};
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
//! # Ok::<(), SetupError>(())
//! ```
//!
//! Once a new peer has taken the seat, the *aborted* or *died* end of the previous one is not
//! reported any more. A *finished* end is different: the handle reports it first, once, and is
//! ready until then. The producer of a `broadcast` channel has no such end. When some of its
//! consumers left, it is ready only if there is room.
//!
//! # How it sleeps
//! With up to 127 watched channels, the set sleeps in one `futex_waitv` on all their doorbells and
//! on a word of its own. Each sleep costs about 0.3 µs per channel.
//!
//! Like any sleep on doorbells, it ends every few milliseconds. The set then checks which peers
//! were killed, and looks for messages whose publisher was killed before it could ring. It checks
//! once per `check_every` (the shortest of the entries') for every 16 entries, so every 32 ms with
//! 127.
//!
//! Beyond 127 channels, or if `futex_waitv` is missing (before Linux 5.16), the set uses one epoll
//! over the handles' pipes. Its cost does not grow with the channels. A death hangs up the pipe, so
//! no periodic check is needed, with these exceptions:
//! - A millisecond after a channel was armed, the set looks once more.
//! - If `membarrier` is refused, it looks each millisecond until all publishers fence
//!   (`slipring_core::wait`).
//! - The [helper thread](crate#the-helper-thread) reports the death of a named `broadcast`
//!   channel's producer that has not rung yet.
//!
//! The set returns to `futex_waitv` when 63 channels are left. A pipe takes up to three
//! [descriptors](crate#descriptors) for each entry. They stay open as long as the entry's handle
//! does, even if the set was refused one more. Borrowed memory has no pipes, so there the 128th
//! channel is refused ([`NoPipes`](Error::NoPipes)).
//!
//! # Discoveries
//! A set may also hold a [`Discovery`](crate::inspect::Discovery): one wait then covers channels, and channels that appear. It is
//! ready as long as its `try_next` would return something. The kernel rings no doorbell for a directory. So a
//! set with a discovery that is not passive sleeps on its epoll, however few its channels are.
//!
//! ```no_run
//! use slipring::inspect::{self, Discovered};
//! use slipring::{WaitSet, topic};
//!
//! let mut discovery = inspect::discover("cam/*")?;
//! let mut set = WaitSet::new()?;
//! let cameras = set.watch(&discovery)?;
//! let mut subscribers = std::collections::BTreeMap::new();
//! loop {
//!     for event in set.wait()? {
//!         if event.key == cameras {
//!             while let Some(Discovered::Appeared { name, .. }) = discovery.try_next()? {
//!                 let rx = topic::records::Builder::new(4, 1 << 20).consumer(&name.to_string())?;
//!                 subscribers.insert(set.watch(&rx)?, rx);
//!             }
//!         } else if let Some(rx) = subscribers.get_mut(&event.key) {
//!             println!("{} bytes", rx.latest()?.len());
//!             # return Ok(());
//!         }
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), slipring::SetupError>(())
//! ```
//!
//! # Why no wake is lost
//! A set asks to be woken by the same bit that the handle's own sleep would use, and looks once
//! more after it asked. That is the argument of `slipring_core::wait`.
//!
//! An entry is either *armed* or *due*. An armed entry was looked at after it was armed. A due
//! entry is on the list that each wait looks through before it sleeps. An entry leaves the list
//! only by being armed. It returns to the list in these cases:
//! - A peer rang for it.
//! - A wait reported it.
//! - Its handle used the bit for a sleep of its own.
//! - The set changes the way it sleeps; then all entries return.
//!
//! A thread that puts an entry on the list while the owner sleeps wakes the owner. It does so under
//! the same lock under which the owner went to sleep.

mod entry;
mod event;
mod feed;
mod sleep;
mod state;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use super::parker::Ask;
use super::parker::{TellSet, Told};
use super::policy::Until;
use crate::error::Error;
use crate::fork::LimitPage;
use entry::Entry;
pub use event::{Event, Key};
pub(crate) use feed::Feed;
use feed::FeedEntry;
use state::State;

/// A consumer of any kind, or a [`Discovery`](crate::inspect::Discovery) of channels.
pub trait AnyConsumer: sealed::Watched {}

/// A producer of any kind.
pub trait AnyProducer: sealed::Watched {}

pub(crate) mod sealed {
    use super::Wish;
    use crate::error::Error;

    /// A handle that a set can wait for.
    pub trait Watched {
        /// Returns what the set needs to know. A producer's `amount` is slots, or the bytes of a
        /// record.
        fn ask(&self, amount: usize) -> Result<Wish, Error>;
    }
}

/// The thing that a set is to wait for.
pub enum Wish {
    /// An end of a channel.
    Channel(Ask),
    /// A descriptor that is no channel's.
    Feed(Arc<Feed>),
}

/// Waits for many channels. See [the module](self).
pub struct WaitSet(Members);

impl fmt::Debug for WaitSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet").finish_non_exhaustive()
    }
}

/// Changes the channels of a [`WaitSet`] from any thread, even while the set's owner waits.
#[derive(Clone)]
pub struct Members(Arc<Shared>);

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

/// The state that a set, its members and the parkers in it share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The word that the owner sleeps on beside its channels. Incremented under the lock.
    word: AtomicU32,
    /// Detects a forked child, in which the set is inert.
    page: LimitPage,
}

impl WaitSet {
    /// Returns an empty set.
    pub fn new() -> Result<WaitSet, Error> {
        Ok(WaitSet(Members(Arc::new(Shared {
            state: Mutex::new(State::new(sleep::most_doorbells())),
            word: AtomicU32::new(0),
            page: LimitPage::new()?,
        }))))
    }

    /// Adds a consumer: ready when there is a message. See [`Members::watch`].
    pub fn watch(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.0.watch(consumer)
    }

    /// Like [`watch`](Self::watch), but the consumer does not wake the set. See
    /// [`Members::watch_passive`].
    pub fn watch_passive(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.0.watch_passive(consumer)
    }

    /// Adds a producer: ready when there is room for `amount`. See [`Members::watch_room`].
    pub fn watch_room(&self, producer: &impl AnyProducer, amount: usize) -> Result<Key, Error> {
        self.0.watch_room(producer, amount)
    }

    /// Like [`watch_room`](Self::watch_room), but the producer does not wake the set.
    pub fn watch_room_passive(
        &self,
        producer: &impl AnyProducer,
        amount: usize,
    ) -> Result<Key, Error> {
        self.0.watch_room_passive(producer, amount)
    }

    /// Takes an entry out; returns `true` if it was there. See [`Members::unwatch`].
    pub fn unwatch(&self, key: Key) -> bool {
        self.0.unwatch(key)
    }

    /// Sets or clears an entry's deadline; returns `true` if the entry is there. See
    /// [`Members::set_deadline`].
    pub fn set_deadline(&self, key: Key, deadline: Option<Instant>) -> bool {
        self.0.set_deadline(key, deadline)
    }

    /// Returns the number of entries, passive ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a handle by which other threads change the set.
    pub fn members(&self) -> Members {
        self.0.clone()
    }

    /// Waits until at least one watched entry has something to report, and returns each entry that
    /// has, once.
    ///
    /// Returns at once if an entry has something to report. Otherwise it sleeps, without polling
    /// first; a wake-up takes some 50 µs. An empty set waits for another thread to add an entry.
    /// Returns [`Forked`](Error::Forked) after a fork, and [`Os`](Error::Os) if it needed a
    /// descriptor and was refused; that loses nothing.
    pub fn wait(&mut self) -> Result<Vec<Event>, Error> {
        self.wait_until(Until::Forever)
    }

    /// Like [`wait`](Self::wait), for at most `timeout` ([`TimedOut`](Error::TimedOut)). With zero
    /// it looks and does not wait.
    ///
    /// The set looks at passive entries even then. With more than 127 entries, a timeout or a
    /// deadline may be late by a millisecond.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Vec<Event>, Error> {
        self.wait_until(Until::after(timeout))
    }

    /// Looks through the list, sleeps, and looks again.
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
                // An entry that is always ready must not hide the others. After a sleep, the set
                // has asked them already.
                if !slept || last {
                    found = found.and(state.make_rung_due(last));
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
    /// Adds a consumer, which is ready when there is a message; or a discovery, which is ready when a channel appeared or went.
    ///
    /// Returns [`InSet`](Error::InSet) if the handle is in a set already, and
    /// [`NoSet`](Error::NoSet) if this set was dropped. Returns [`Forked`](Error::Forked) for a
    /// copied handle or set in a forked child. Beyond 127 entries, returns
    /// [`NoPipes`](Error::NoPipes) if any entry is in borrowed memory, and [`Os`](Error::Os) if no
    /// descriptors are left. On any error the set is unchanged.
    ///
    /// The program may use a handle in a set as before, its blocking calls as well. A dropped
    /// handle takes itself out of the set. Another event loop cannot use the handle at the same
    /// time: `arm` returns [`InSet`](Error::InSet), and so do futures that have to wait.
    pub fn watch(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.add(consumer.ask(0)?, false)
    }

    /// Like [`watch`](Self::watch), but neither an event of the channel nor the entry's deadline
    /// ends a wait. The set looks at the entry when something else, or a timeout, ended a wait.
    pub fn watch_passive(&self, consumer: &impl AnyConsumer) -> Result<Key, Error> {
        self.add(consumer.ask(0)?, true)
    }

    /// Adds a producer, which is ready when there is room for `amount`. For `spsc` and `broadcast`
    /// that is a number of slots; for `bytes`, one record of that many bytes.
    ///
    /// Returns [`TooLarge`](Error::TooLarge) if `amount` exceeds what the channel can ever hold;
    /// other errors as for [`watch`](Self::watch). A producer usually has room, and so is usually
    /// ready. Add it after a push returned [`Full`](Error::Full).
    pub fn watch_room(&self, producer: &impl AnyProducer, amount: usize) -> Result<Key, Error> {
        self.add(producer.ask(amount)?, false)
    }

    /// Like [`watch_room`](Self::watch_room), but the producer does not wake the set.
    pub fn watch_room_passive(
        &self,
        producer: &impl AnyProducer,
        amount: usize,
    ) -> Result<Key, Error> {
        self.add(producer.ask(amount)?, true)
    }

    fn add(&self, wish: Wish, passive: bool) -> Result<Key, Error> {
        /// Key zero is the set's own.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let shared = self.shared()?;
        let mut state = shared.lock();
        if state.closed() {
            return Err(Error::NoSet);
        }
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        let set = Arc::downgrade(&self.0);
        let tell: TellSet = Arc::new(move |told| {
            let Some(set) = set.upgrade() else {
                return;
            };
            match told {
                Told::Vacated => set.disturb(key),
                Told::Left => {
                    set.remove(key);
                }
            }
        });
        match wish {
            Wish::Channel(ask) => {
                let parker = ask.parker.clone();
                parker.join(tell)?;
                let admitted = state.admit(key, Entry::new(ask, passive));
                admitted.inspect_err(|_| parker.part())?;
            }
            Wish::Feed(feed) => {
                feed.join(tell)?;
                let admitted = state.admit_feed(key, FeedEntry::new(feed.clone(), passive));
                admitted.inspect_err(|_| feed.part())?;
            }
        }
        state.wake(&shared.word);
        Ok(Key(key))
    }

    /// Takes an entry out; returns `true` if it was there. A wait that begins after this call does
    /// not report the entry.
    pub fn unwatch(&self, key: Key) -> bool {
        self.shared().is_ok_and(|shared| shared.remove(key.0))
    }

    /// Sets a deadline; the set reports the entry once when it has passed. Returns `true` if the
    /// entry is there.
    ///
    /// `None` clears the deadline, and so does the report; being ready does not.
    pub fn set_deadline(&self, key: Key, deadline: Option<Instant>) -> bool {
        let Ok(shared) = self.shared() else {
            return false;
        };
        let mut state = shared.lock();
        let there = state.set_deadline(key.0, deadline);
        state.wake(&shared.word);
        there
    }

    /// Returns the number of entries, passive ones included.
    pub fn len(&self) -> usize {
        self.shared().map_or(0, |shared| shared.lock().len())
    }

    /// Returns `true` if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the shared state, except in a forked child, where the lock may be held for ever.
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

    /// Records that the handle of this entry used its bit: the set must look and arm again. Only
    /// that handle's own process calls this.
    pub(super) fn disturb(&self, key: u64) {
        let mut state = self.lock();
        if state.disturb(key) {
            state.wake(&self.word);
        }
    }

    /// Takes an entry out; returns `true` if it was there.
    pub(super) fn remove(&self, key: u64) -> bool {
        let mut state = self.lock();
        let there = state.remove(key);
        state.wake(&self.word);
        there
    }
}

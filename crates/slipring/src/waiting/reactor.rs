//! The helper thread: one a process, which sleeps on the descriptors of all handles whose futures wait,
//! and wakes those.
//!
//! It runs an `epoll`, in which each handle is entered once, *level-triggered* and *one-shot*: told of
//! once, then disabled until the handle's next future that has to wait enables it again. Edge-triggered
//! would save that call, but a hang-up comes some microseconds before the kernel frees the dead peer's
//! lock: whoever looked in between found it alive, and must be told again.
//!
//! It also looks once more at handles that were armed a moment ago (`again.rs`), when its timer says so; and once a
//! second at the names of those that wait (`name_check.rs`).
//!
//! # Fork
//! The helper is not inherited. The handles in the child are inert, but new ones may be made there, and
//! get a new helper. Two things see to that: the `epoll` is closed in the child (`Unforked`), by which a
//! reactor is known to be the parent's; and the lock of `REACTOR` is taken only while forks are kept off,
//! so no child finds it locked. The locks within a reactor may well be; nobody in the child takes them.
//!
//! # Locks
//! A waker is user code, to be cloned, woken and dropped: its last drop may free a task, and with it a
//! handle of ours. So none is woken or dropped here while a lock is held.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;

use super::{Parker, again, name_check, timer};
use crate::error::Error;
use crate::fork::{NoFork, Unforked};
use crate::signals;

/// This process's reactor; or its parent's, whose `epoll` is closed here. To be locked under a `NoFork`.
static REACTOR: Mutex<Option<Arc<Reactor>>> = Mutex::new(None);

/// The stack of the helper. It is the usual one, but must be said: else the standard library looks at the
/// environment, which has a lock of its own, while forks are kept off.
const STACK: usize = 2 * 1024 * 1024;

pub(super) struct Reactor {
    epoll: Unforked,
    handles: Mutex<Handles>,
    /// Set as long as somebody is to be looked at again.
    timer: Unforked,
    again: Mutex<Listed>,
    names: Mutex<Names>,
    made: Instant,
}

/// Who is to be looked at again.
#[derive(Default)]
struct Listed {
    parkers: Vec<Weak<Parker>>,
    /// For when the timer is set; nothing while the helper is looking.
    at: Option<Instant>,
}

/// The handles whose channels' names are looked at.
#[derive(Default)]
struct Names {
    /// When; nothing while there are none.
    at: Option<Instant>,
    parkers: Vec<Weak<Parker>>,
}

/// The timer's token. (No handle gets so far.)
const TIMER: u64 = u64::MAX;

#[derive(Default)]
struct Handles {
    /// Never given twice: an event that comes late finds nobody, not somebody else.
    next: u64,
    slots: BTreeMap<u64, Arc<Mutex<Slot>>>,
}

/// What the helper knows of a handle.
#[derive(Default)]
struct Slot {
    /// Whom to wake.
    waker: Option<Waker>,
    /// Whether the helper will be told of the descriptor.
    enabled: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reactor {
    /// That of this process: made, and its thread started, if there is none yet.
    pub(super) fn current() -> Result<Arc<Reactor>, Error> {
        let (epoll, timer, reactor);
        // From here on as little as can be: every fork of this process waits for us. (And nobody else
        // starts a second helper.) Closing what is made here waits likewise: so it is dropped after.
        let no_fork = NoFork::begin();
        let mut current = lock(&REACTOR);
        if let Some(ours) = &*current
            && ours.epoll.get().is_some()
        {
            return Ok(ours.clone());
        }
        let failed = |errno| Error::os("make an epoll for the helper thread", errno);
        epoll = Unforked::open_within(&no_fork, || epoll::create(CreateFlags::CLOEXEC))
            .map_err(failed)?;
        timer = Unforked::open_within(&no_fork, timer::create).map_err(failed)?;
        if let (Some(epoll), Some(timer)) = (epoll.get(), timer.get()) {
            let data = EventData::new_u64(TIMER);
            epoll::add(epoll, timer, data, EventFlags::IN).map_err(failed)?;
        }
        reactor = Arc::new(Reactor {
            epoll,
            handles: Mutex::default(),
            timer,
            again: Mutex::default(),
            names: Mutex::default(),
            made: Instant::now(),
        });
        let helper = reactor.clone();
        let builder = thread::Builder::new()
            .name("slipring".into())
            .stack_size(STACK);
        let started = signals::blocked(|| builder.spawn(move || helper.run()));
        if let Err(error) = started {
            return Err(Error::Os {
                what: "start the helper thread".into(),
                source: error.into(),
            });
        }
        // The parent's stays as it is, whatever was locked in it when it was copied.
        mem::forget(current.replace(reactor.clone()));
        Ok(reactor)
    }

    /// The helper's life.
    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        let mut wakers = Vec::new();
        // None: a waker forked, and this is the child.
        while let Some(epoll) = self.epoll.get() {
            let at_most = self.look_at_names();
            match epoll::wait(epoll, spare_capacity(&mut events), at_most.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Somebody closed our descriptor: there is nothing left to sleep on.
                Err(_) => return,
            }
            if events.iter().any(|event| event.data.u64() == TIMER) {
                self.look();
            }
            {
                let handles = lock(&self.handles);
                wakers.extend(events.drain(..).filter_map(|event| {
                    let mut slot = lock(handles.slots.get(&event.data.u64())?);
                    slot.enabled = false;
                    slot.waker.take()
                }));
            }
            for waker in wakers.drain(..) {
                // What panics is not ours, and the others have to be woken all the same.
                // Nor is the drop of what it panicked with.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake()))
                    && let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic)))
                {
                    mem::forget(panic);
                }
            }
        }
    }

    /// Has the helper look again `at` some moment: at those that it knows of, and at `parker`.
    pub(super) fn look_again(
        &self,
        parker: Option<Weak<Parker>>,
        at: Instant,
    ) -> Result<(), Error> {
        let mut again = lock(&self.again);
        // For many handles that are armed at about one time the timer is set once.
        if again.at.is_none_or(|set| at < set) {
            if !self.set_timer(at.saturating_duration_since(Instant::now())) {
                return Err(Error::os("set the helper thread's timer", Errno::IO));
            }
            again.at = Some(at);
        }
        again.parkers.extend(parker);
        Ok(())
    }

    /// Has the helper look at the name of a handle's channel, once a second.
    pub(super) fn watch_name(&self, parker: Weak<Parker>) {
        let mut names = lock(&self.names);
        names.parkers.push(parker);
        if names.at.is_none() {
            names.at = Some(Instant::now() + name_check::EVERY);
            drop(names);
            // It may sleep without end, or for longer. (If it cannot be woken, it looks when it wakes.)
            let _ = self.look_again(None, Instant::now());
        }
    }

    /// Looks at the names if it is time; returns how long it is until the next look.
    fn look_at_names(&self) -> Option<Timespec> {
        let now = Instant::now();
        let parkers = {
            let mut names = lock(&self.names);
            match names.at? {
                at if at > now => return Timespec::try_from(at - now).ok(),
                _ => mem::take(&mut names.parkers),
            }
        };
        // Whoever is dropped here, as the last of its owners, is so while no lock is held.
        let alive = |weak: &Weak<Parker>| {
            let parker = weak.upgrade();
            parker.inspect(|parker| parker.ring_if_renamed()).is_some()
        };
        let left = parkers.into_iter().filter(alive).collect::<Vec<_>>();
        let mut names = lock(&self.names);
        names.parkers.extend(left);
        names.at = (!names.parkers.is_empty()).then(|| now + name_check::EVERY);
        names.at.and(Timespec::try_from(name_check::EVERY).ok())
    }

    fn set_timer(&self, after: Duration) -> bool {
        let timer = self.timer.get();
        timer.is_some_and(|timer| timer::set(timer, after).is_ok())
    }

    /// Looks at all who are due.
    fn look(&self) {
        if let Some(timer) = self.timer.get() {
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
        loop {
            let listed = {
                let mut again = lock(&self.again);
                again.at = None;
                mem::take(&mut again.parkers)
            };
            let now = Instant::now();
            let mut next = None;
            // Whoever is dropped here, as the last of its owners, is so while no lock is held.
            let left = listed.into_iter().filter(|parker| {
                let at = parker
                    .upgrade()
                    .and_then(|parker| again::looked(&parker, now, self.made));
                next = [next, at].into_iter().flatten().min();
                at.is_some()
            });
            let left = left.collect::<Vec<_>>();
            let mut again = lock(&self.again);
            again.parkers.extend(left);
            let Some(at) = next.filter(|at| again.at.is_none_or(|set| *at < set)) else {
                // Nobody; or the timer is set, by those who came meanwhile.
                return;
            };
            again.at = Some(at);
            let after = at.saturating_duration_since(Instant::now());
            if self.set_timer(after) {
                return;
            }
            // A sandbox that came later, say.
            drop(again);
            thread::sleep(after);
        }
    }
}

/// A handle's entry in the reactor, for as long as the handle lives.
pub(crate) struct Registration {
    reactor: Arc<Reactor>,
    token: u64,
    slot: Arc<Mutex<Slot>>,
    /// Whose descriptor is entered.
    parker: Arc<Parker>,
}

impl Registration {
    pub(super) fn new(parker: &Arc<Parker>) -> Result<Registration, Error> {
        let reactor = Reactor::current()?;
        let slot = Arc::<Mutex<Slot>>::default();
        let mut handles = lock(&reactor.handles);
        let token = handles.next;
        handles.next += 1;
        handles.slots.insert(token, slot.clone());
        drop(handles);
        // Before it is in the `epoll`: a failure, too, takes the slot back.
        let registration = Registration {
            reactor,
            token,
            slot,
            parker: parker.clone(),
        };
        // Disabled. (A hang-up is told all the same, of which there is nobody to be woken yet.)
        let disabled = EventFlags::ONESHOT;
        registration.control(|epoll, fd, data| epoll::add(epoll, fd, data, disabled))?;
        Ok(registration)
    }

    /// From now on `waker` is woken, once, when the descriptor is readable or hung up; also if it is so
    /// already.
    pub(super) fn rest(&self, waker: &Waker) -> Result<(), Error> {
        // Cloned, and the last one dropped, while no lock is held.
        let waker = waker.clone();
        let (last, enabled) = {
            let mut slot = lock(&self.slot);
            let last = slot.waker.replace(waker);
            // Before the call: what that sets off may be told before it returns.
            (last, mem::replace(&mut slot.enabled, true))
        };
        drop(last);
        if enabled {
            // Still, or told of while we were at it; then the helper has yet to look, and wakes us.
            return Ok(());
        }
        let readable = EventFlags::IN | EventFlags::ONESHOT;
        let done = self.control(|epoll, fd, data| epoll::modify(epoll, fd, data, readable));
        if done.is_err() {
            lock(&self.slot).enabled = false;
        }
        done
    }

    fn control(
        &self,
        call: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>, EventData) -> Result<(), Errno>,
    ) -> Result<(), Error> {
        let epoll = self.reactor.epoll.get().ok_or(Error::Forked)?;
        let fd = self.parker.descriptor()?;
        call(epoll, fd, EventData::new_u64(self.token))
            .map_err(|errno| Error::os("have the helper thread watch the channel's pipe", errno))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // In a forked child nothing is entered, and nothing may be locked.
        if self.reactor.epoll.get().is_none() {
            return;
        }
        let _ = self.control(|epoll, fd, _| epoll::delete(epoll, fd));
        lock(&self.reactor.handles).slots.remove(&self.token);
        // The waker is dropped with our share of the slot, the last one, after this.
    }
}

//! The helper thread: one per process. It sleeps on the descriptors of all handles whose futures
//! wait, and wakes those futures.
//!
//! It runs an `epoll` with one entry for each handle, *level-triggered* and *one-shot*. An entry
//! reports once, and is then disabled until the handle's next future that has to wait enables it
//! again. Edge-triggered entries would save that call. But a hang-up comes some microseconds before
//! the kernel frees the dead peer's lock. A future that looked in between found the peer alive, and
//! needs another report.
//!
//! When its timer expires, it also looks once more at handles that were armed a moment ago: see
//! `recheck.rs`. Once a second it checks the names of waiting handles (`name_check.rs`).
//!
//! # Fork
//! A forked child does not inherit the helper thread. The handles in the child are inert, but new
//! ones may be made there, and get a new helper. Two things make that work:
//! - The `epoll` is closed in the child (`Unforked`), by which the child recognizes the parent's
//!   reactor.
//! - The lock of `REACTOR` is taken only while forks are kept off, so no child finds it locked. The
//!   locks within a reactor may well be locked, but no thread in the child takes them.
//!
//! # Locks
//! A waker is user code, to be cloned, woken and dropped. Its last drop may free a task, and with
//! it a handle of ours. So no waker is woken or dropped here while a lock is held.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;

use super::policy::NAME_EVERY;
use super::timer;
use crate::error::{self, Error};
use crate::fork::{NoFork, Unforked};
use crate::signals;

/// This process's reactor, or its parent's, whose `epoll` is closed here. Lock it under a `NoFork`.
static REACTOR: Mutex<Option<Arc<Reactor>>> = Mutex::new(None);

/// The helper's stack size. It is the usual one, but must be given explicitly. Otherwise the
/// standard library reads the environment, which has a lock of its own, while forks are kept off.
const STACK: usize = 2 * 1024 * 1024;

pub(super) struct Reactor {
    epoll: Unforked,
    handles: Mutex<Handles>,
    /// Set as long as a handle is to be looked at again.
    timer: Unforked,
    again: Mutex<Listed>,
    names: Mutex<Names>,
    made: Instant,
}

/// One look at a handle. Its arguments are the current time and a moment in the past. Returns the
/// time of the next look, or `None` if the handle is done or gone.
pub(super) type Look = Box<dyn FnMut(Instant, Instant) -> Option<Instant> + Send>;

/// One check of the name of a handle's channel; returns `false` if the handle is gone.
pub(super) type NameLook = Box<dyn FnMut() -> bool + Send>;

/// The handles to look at again.
#[derive(Default)]
struct Listed {
    looks: Vec<Look>,
    /// The time for which the timer is set; `None` while the helper is looking.
    at: Option<Instant>,
}

/// The handles whose channels' names are checked.
#[derive(Default)]
struct Names {
    /// The time of the next check; `None` while there are no handles.
    at: Option<Instant>,
    looks: Vec<NameLook>,
}

/// The timer's token, which no handle's token ever reaches.
const TIMER: u64 = u64::MAX;

#[derive(Default)]
struct Handles {
    /// The next token. No token is given twice, so a late event finds no handle instead of a wrong
    /// one.
    next: u64,
    slots: BTreeMap<u64, Arc<Mutex<Slot>>>,
}

/// The helper's knowledge of a handle.
#[derive(Default)]
struct Slot {
    /// The waker to wake.
    waker: Option<Waker>,
    /// `true` if the epoll will report the descriptor to the helper.
    enabled: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No thread panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reactor {
    /// Returns this process's reactor. Makes it, and starts its thread, if there is none yet.
    pub(super) fn current() -> Result<Arc<Reactor>, Error> {
        let (epoll, timer, reactor);
        // Do as little as possible from here on: every fork of this process waits for us, and no
        // other thread starts a second helper. Closing what is made here waits for forks likewise,
        // so it is dropped afterwards.
        let no_fork = NoFork::begin();
        let mut current = lock(&REACTOR);
        if let Some(ours) = &*current
            && ours.epoll.get().is_some()
        {
            return Ok(ours.clone());
        }
        let failed = |errno| error::os("make an epoll for the helper thread", errno);
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
                call: "start the helper thread",
                errno: error.raw_os_error().unwrap_or_default(),
            });
        }
        // Leave the parent's reactor as it is, whatever was locked in it when it was copied.
        mem::forget(current.replace(reactor.clone()));
        Ok(reactor)
    }

    /// Runs the helper thread.
    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        let mut wakers = Vec::new();
        // `None`: a waker forked, and this is the child.
        while let Some(epoll) = self.epoll.get() {
            let at_most = self.look_at_names();
            match epoll::wait(epoll, spare_capacity(&mut events), at_most.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Other code closed our descriptor: there is nothing left to sleep on.
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
                // A panicking waker is not our code, and the others must be woken all the same.
                // Neither is the drop of its panic payload.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake()))
                    && let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic)))
                {
                    mem::forget(panic);
                }
            }
        }
    }

    /// Lets the helper look again at time `at`: at the handles that it knows of, and by `look`.
    pub(super) fn look_again(&self, look: Option<Look>, at: Instant) -> Result<(), Error> {
        let mut again = lock(&self.again);
        // For many handles that are armed at about one time, the timer is set once.
        if again.at.is_none_or(|set| at < set) {
            if !self.set_timer(at.saturating_duration_since(Instant::now())) {
                return Err(error::os("set the helper thread's timer", Errno::IO));
            }
            again.at = Some(at);
        }
        again.looks.extend(look);
        Ok(())
    }

    /// Lets the helper check the name of a handle's channel, once a second.
    pub(super) fn watch_name(&self, look: NameLook) {
        let mut names = lock(&self.names);
        names.looks.push(look);
        if names.at.is_none() {
            names.at = Some(Instant::now() + NAME_EVERY);
            drop(names);
            // The helper may sleep without end, or for longer. If it cannot be woken, it checks
            // when it wakes.
            let _ = self.look_again(None, Instant::now());
        }
    }

    /// Checks the names if that is due; returns the time until the next check.
    fn look_at_names(&self) -> Option<Timespec> {
        let now = Instant::now();
        let mut looks = {
            let mut names = lock(&self.names);
            match names.at? {
                at if at > now => return Timespec::try_from(at - now).ok(),
                _ => mem::take(&mut names.looks),
            }
        };
        // No lock is held, in case this drops the last owner of a handle.
        looks.retain_mut(|look| look());
        let mut names = lock(&self.names);
        names.looks.extend(looks);
        names.at = (!names.looks.is_empty()).then(|| now + NAME_EVERY);
        names.at.and(Timespec::try_from(NAME_EVERY).ok())
    }

    fn set_timer(&self, after: Duration) -> bool {
        let timer = self.timer.get();
        timer.is_some_and(|timer| timer::set(timer, after).is_ok())
    }

    /// Looks at all handles that are due.
    fn look(&self) {
        if let Some(timer) = self.timer.get() {
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
        loop {
            let mut looks = {
                let mut again = lock(&self.again);
                again.at = None;
                mem::take(&mut again.looks)
            };
            let now = Instant::now();
            let mut next = None;
            // No lock is held, in case this drops the last owner of a handle.
            looks.retain_mut(|look| {
                let at = look(now, self.made);
                next = [next, at].into_iter().flatten().min();
                at.is_some()
            });
            let mut again = lock(&self.again);
            again.looks.extend(looks);
            let Some(at) = next.filter(|at| again.at.is_none_or(|set| *at < set)) else {
                // No handle is left, or newcomers have set the timer.
                return;
            };
            again.at = Some(at);
            let after = at.saturating_duration_since(Instant::now());
            if self.set_timer(after) {
                return;
            }
            // A sandbox that was entered later, for example.
            drop(again);
            thread::sleep(after);
        }
    }
}

/// A handle's entry in the reactor. Its owner calls [`leave`](Self::leave) before dropping it.
pub(super) struct Registration {
    reactor: Arc<Reactor>,
    token: u64,
    slot: Arc<Mutex<Slot>>,
}

impl Registration {
    /// Enters `descriptor`, which the epoll does not report yet.
    pub(super) fn new(descriptor: BorrowedFd<'_>) -> Result<Registration, Error> {
        let reactor = Reactor::current()?;
        let slot = Arc::<Mutex<Slot>>::default();
        let mut handles = lock(&reactor.handles);
        let token = handles.next;
        handles.next += 1;
        handles.slots.insert(token, slot.clone());
        drop(handles);
        let registration = Registration {
            reactor,
            token,
            slot,
        };
        // Disabled. The epoll reports a hang-up all the same, but there is no waker to wake yet.
        let disabled = EventFlags::ONESHOT;
        let entered =
            registration.control(|epoll, data| epoll::add(epoll, descriptor, data, disabled));
        entered.inspect_err(|_| registration.forget())?;
        Ok(registration)
    }

    /// Arranges that `waker` is woken once when the descriptor is readable or hung up, even if it
    /// is so already.
    pub(super) fn rest(&self, descriptor: BorrowedFd<'_>, waker: &Waker) -> Result<(), Error> {
        // Clone the waker, and drop the last one, while no lock is held.
        let waker = waker.clone();
        let (last, enabled) = {
            let mut slot = lock(&self.slot);
            let last = slot.waker.replace(waker);
            // Before the call: the epoll may report the result before the call returns.
            (last, mem::replace(&mut slot.enabled, true))
        };
        drop(last);
        if enabled {
            // The entry is still enabled, or the epoll reported it meanwhile. Then the helper has
            // yet to look, and wakes us.
            return Ok(());
        }
        let readable = EventFlags::IN | EventFlags::ONESHOT;
        let done = self.control(|epoll, data| epoll::modify(epoll, descriptor, data, readable));
        if done.is_err() {
            lock(&self.slot).enabled = false;
        }
        done
    }

    /// Takes the descriptor out again.
    pub(super) fn leave(&self, descriptor: Option<BorrowedFd<'_>>) {
        // In a forked child no descriptor is entered, and no lock may be taken.
        if self.reactor.epoll.get().is_none() {
            return;
        }
        if let Some(descriptor) = descriptor {
            let _ = self.control(|epoll, _| epoll::delete(epoll, descriptor));
        }
        self.forget();
    }

    fn forget(&self) {
        // The waker is dropped after this, with our share of the slot, which is the last.
        lock(&self.reactor.handles).slots.remove(&self.token);
    }

    fn control(
        &self,
        call: impl FnOnce(BorrowedFd<'_>, EventData) -> Result<(), Errno>,
    ) -> Result<(), Error> {
        let epoll = self.reactor.epoll.get().ok_or(Error::Forked)?;
        call(epoll, EventData::new_u64(self.token))
            .map_err(|errno| error::os("have the helper thread watch the channel's pipe", errno))
    }
}

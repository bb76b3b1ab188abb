//! What it takes to wait on behalf of a seat: shared by the seat's handle and the set that it is in.
//!
//! # One bit, two who may set it
//! A seat has one bit in its bell's waiters word, and one `face` beside it. The handle's own calls and
//! the set that it is in share them: while the handle *occupies* the words (a call of its own
//! sleeps) the set leaves them alone; when it *vacates* them, the set is told, and asks
//! anew. When the handle leaves, it takes itself out of the set before anybody else may take its seat.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slipring_core::broadcast;
use slipring_core::layout::Kind;
use slipring_core::seat::{Findings, State};
use slipring_core::wait::{Asked, Face, Sleeper};

use super::again::Again;
use super::name_check::NameCheck;
use super::set::Shared;
use super::{Kernel, Polled};
use crate::error::Error;
use crate::fork::Unforked;
use crate::region::{Region, pipes};
use crate::seat::Role;

/// So many looks, of 10 ms each, find a peer's pipe hung up and its lock held, before that peer is taken for one
/// that lives. Dying takes microseconds, but a process that dies is scheduled as any other.
const DYING: u32 = 500;

/// The sleeping side of a seat.
pub(crate) struct Parker {
    pub(crate) region: Arc<Region>,
    pub(crate) role: Role,
    /// The number of the seat.
    pub(crate) number: usize,
    /// By which the handle is woken. It borrows, on loan, from `os` and `region`.
    pub(crate) sleeper: Sleeper<'static>,
    /// The generation of the peer up to which ends are history: they were when the handle was made, or the handle
    /// took note of them to wait for somebody else.
    history: AtomicU64,
    /// What the handle, and the set that it is in, know of the peer's end.
    pub(crate) findings: Findings,
    /// The descriptor by which an event loop is woken.
    pub(super) polled: Polled,
    /// Whether the peer opens this seat's pipe only when it first writes there: until then no hang-up tells of its
    /// death, and the pipe is plugged.
    pub(super) late: bool,
    /// The generation of a peer that has closed its pipe, or not opened it yet, and holds its lock.
    hung: AtomicU64,
    /// How many looks found it so.
    looks: AtomicU32,
    link: Mutex<Link>,
    pub(super) again: Again,
    pub(super) name: NameCheck,
    check_every: Duration,
    /// Behind an `Arc`, which does not claim what it points to for itself when it is moved.
    pub(crate) os: Arc<Kernel>,
}

/// Who has the words of a seat just now.
#[derive(Default)]
struct Link {
    /// The set that the handle is in, and its key there.
    set: Option<(Weak<Shared>, u64)>,
    /// Whether the handle uses the words itself.
    occupied: bool,
}

impl Parker {
    /// `sleeper` is the seat's of this number, and borrows from `region` and `os` alone.
    pub(crate) fn new(
        region: Arc<Region>,
        number: usize,
        sleeper: Sleeper<'static>,
        os: Arc<Kernel>,
        check_every: Duration,
    ) -> Parker {
        let (role, geometry) = (Role::of_seat(number), region.geometry());
        // Where many sit opposite, no hang-up tells of a death. (In private memory nobody dies.)
        let many = role == Role::Producer && geometry.kind == Kind::Broadcast;
        let recheck = (many && region.files.is_some()).then_some(check_every);
        let passed = region.passed_pipe(number);
        let late = region.opens_late(role.other());
        let name = NameCheck::new(region.named());
        let parker = Parker {
            region,
            role,
            number,
            sleeper,
            history: AtomicU64::new(0),
            findings: Findings::default(),
            polled: Polled::new(recheck, passed),
            late,
            hung: AtomicU64::new(0),
            looks: AtomicU32::new(0),
            link: Mutex::default(),
            again: Again::default(),
            name,
            check_every,
            os,
        };
        parker.name.begin(parker.position());
        parker
    }

    /// Ends of generations up to this one are history.
    pub(crate) fn set_history(&self, known: u64) {
        // Relaxed: nothing is read on its strength. The handle alone stores it.
        self.history.store(known, Ordering::Relaxed);
    }

    /// The generation of the peer up to which ends are history.
    pub(super) fn history(&self) -> u64 {
        // Relaxed: as above.
        self.history.load(Ordering::Relaxed)
    }

    /// What an event loop polls for this seat.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        self.polled.descriptor(&self.region, self.number)
    }

    /// Makes the descriptor readable, as the other side would.
    pub(super) fn ring(&self) -> Result<(), Error> {
        if let Some(private) = &self.region.private {
            private.write(self.number);
            return Ok(());
        }
        if self.polled.ring() {
            return Ok(());
        }
        // The pipe of a channel whose directory is gone is found by our own end of it.
        let open = || self.polled.open(&self.region, self.number, pipes::WRITE);
        let pipe = Unforked::open(open).or_else(|_| Unforked::open(|| self.polled.writer()))?;
        pipe.get().into_iter().for_each(pipes::ring);
        Ok(())
    }

    /// Sees to it that the descriptor hangs up if somebody sits opposite and dies, and only then.
    pub(super) fn plug(&self, alone: bool) -> Result<(), Error> {
        self.polled.plug(&self.region, self.number, alone)
    }

    /// Whether this peer has closed its pipe, and lives: the pipe tells nothing any more.
    pub(super) fn hung(&self, generation: u64) -> bool {
        // Relaxed, all of these: figures of this handle's own.
        self.hung.load(Ordering::Relaxed) == generation
            && self.looks.load(Ordering::Relaxed) >= DYING
    }

    /// Notes that a look found this peer's pipe hung up, and its lock held.
    pub(super) fn set_hung(&self, generation: u64) {
        let again = self.hung.swap(generation, Ordering::Relaxed) == generation;
        let looks = match again {
            true => self.looks.load(Ordering::Relaxed),
            // One that opens late has not hung up.
            false if self.late => DYING,
            false => 0,
        };
        self.looks.store(looks.saturating_add(1), Ordering::Relaxed);
    }

    /// Empties the pipe. Whoever wrote there may hold it open from now on.
    pub(super) fn drain(&self) {
        if self.polled.drain() && self.late {
            // Relaxed: as above. No generation that sits is 0.
            self.hung.store(0, Ordering::Relaxed);
        }
    }

    /// Sees to it that whoever polls this seat's pipe is told of a death, where the peer opens the pipe late: by its
    /// hang-up if the peer, of generation `present`, has opened it; else by the helper, which looks for the death of a
    /// generation above `known`.
    ///
    /// The kernel says which: while nobody else has it open for writing, a pipe without its plug is hung up. If that
    /// was another writer than the peer, the hang-up comes when that one is gone, and whoever polls looks again.
    pub(super) fn plug_late(&self, present: Option<u64>, known: u64) -> Result<(), Error> {
        let opened = match present {
            Some(generation) if !self.hung(generation) => {
                let hung = self.hung_up()?;
                if hung {
                    self.set_hung(generation);
                }
                !hung
            }
            _ => false,
        };
        self.plug(!opened)?;
        self.again
            .keep_vigil((!opened).then_some(known), self.check_every);
        Ok(())
    }

    /// Whether the pipe says that there is something to be looked at.
    pub(super) fn readable(&self) -> bool {
        let Ok(pipe) = self.descriptor() else {
            return false;
        };
        let mut polled = [PollFd::from_borrowed_fd(pipe, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Returns `true` if a peer of a generation above `known` has left or died: it may not have lived to ring. Of a
    /// peer that cannot be asked about, `false`; if its words are impossible, `true`: the handle's next call says so.
    pub(super) fn peer_ended(&self, known: u64) -> bool {
        let seat = self.role.other().seats(self.region.geometry()).start;
        let line = self.region.control().seat(seat);
        let Ok(life) = line.life() else {
            return true;
        };
        if life.generation <= known || life.state != State::Held {
            return life.generation > known;
        }
        // The word, the lock, the word again.
        matches!(self.region.held(seat), Ok(Some(false)))
            && line.life().is_ok_and(|again| again == life)
    }

    /// Takes back what was asked for.
    pub(super) fn disarm(&self) {
        self.again.keep_vigil(None, self.check_every);
        self.sleeper.disarm();
    }

    /// The handle uses the words itself, until it vacates them.
    pub(crate) fn occupy(&self) {
        self.link().occupied = true;
        self.again.keep_vigil(None, self.check_every);
    }

    /// The handle is done with the words.
    pub(crate) fn vacate(&self) {
        let mut link = self.link();
        link.occupied = false;
        let set = link.set.clone();
        // The set's lock comes before this one.
        drop(link);
        if let Some((set, key)) = set
            && let Some(set) = set.upgrade()
        {
            set.disturb(key);
        }
    }

    /// The handle leaves: when this returns, no set knows of it, and nobody looks after its bit.
    pub(crate) fn leave(&self) {
        self.again.leave();
        let set = self.link().set.take();
        if let Some((set, key)) = set
            && let Some(set) = set.upgrade()
        {
            set.remove(key);
        }
    }

    /// Whether the handle is in a set.
    pub(super) fn in_set(&self) -> bool {
        self.link().set.is_some()
    }

    /// Puts the handle into a set, under this key: `InSet` if it is in one.
    pub(super) fn join(&self, set: Weak<Shared>, key: u64) -> Result<(), Error> {
        let mut link = self.link();
        if link.set.is_some() {
            return Err(Error::InSet);
        }
        link.set = Some((set, key));
        Ok(())
    }

    /// Takes the handle out of its set, and back what the set asked for.
    pub(super) fn part(&self) {
        let mut link = self.link();
        link.set = None;
        if !link.occupied {
            self.disarm();
        }
    }

    /// Asks, for the set, to be woken, unless the handle uses the words.
    pub(super) fn arm_for_set(&self, face: Face) -> Option<Asked> {
        let link = self.link();
        if face == Face::Pipe {
            self.descriptor().ok()?;
            // Also if the handle has the words: a byte that nobody takes would keep the set awake until it is
            // done. But not if it sleeps on that byte: the set may be the first to see it, and the handle takes it
            // as soon as it runs. (A handle that polls its own descriptor is not in a set.)
            if !(link.occupied && self.sleeper.on_pipe()) {
                self.drain();
            }
        }
        if link.occupied {
            return None;
        }
        Some(self.sleeper.arm(face))
    }

    /// Takes back what the set asked for.
    pub(super) fn disarm_for_set(&self) {
        let link = self.link();
        if !link.occupied {
            self.disarm();
        }
    }

    /// The other side's position, which moves when there is news: that of the only one opposite, or of the slowest
    /// for whom a producer waits.
    pub(super) fn position(&self) -> u64 {
        let geometry = self.region.geometry();
        if self.role == Role::Producer && geometry.kind == Kind::Broadcast {
            return self.slowest();
        }
        let seat = self.role.other().seats(geometry).start;
        let page = self.region.control().role(geometry, seat);
        // Relaxed: it is only compared with another reading of the same word; nothing is read on its strength.
        // Who looks afterwards, the caller itself or whoever is rung, sees at least this, as any later reading
        // of one word does, and looks with an acquire of its own.
        page.position.0.load(Ordering::Relaxed)
    }

    /// Where the slowest of those stands for whom a producer of many waits. Without any nobody is waited for.
    pub(super) fn slowest(&self) -> u64 {
        let consumers = self.region.side(Role::Consumer);
        let slowest = broadcast::slowest(self.region.control().members(), consumers);
        slowest.map_or(u64::MAX, |(_, position)| position)
    }

    /// Whether the pipe, with no plug in it, is hung up now.
    pub(super) fn hung_up(&self) -> Result<bool, Error> {
        self.plug(false)?;
        let mut polled = [PollFd::from_borrowed_fd(
            self.descriptor()?,
            PollFlags::empty(),
        )];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(_) => Ok(polled[0].revents().contains(PollFlags::HUP)),
            // Asked again in a moment.
            Err(_) => Ok(true),
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Waits on behalf of a seat: shared by the seat's handle and the set that it is in.
//!
//! # One bit with two users
//! A seat has one bit in the waiters word of its wait cell, and one `wake_mode` beside it. The
//! handle's own calls share them with the set that the handle is in. While the handle *occupies*
//! the words, a call of its own sleeps, and the set leaves them alone. When the handle *vacates*
//! them, it tells the set, which asks anew. When the handle leaves, it takes itself out of the set
//! before any successor may take its seat.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slipring_core::layout::Role;
use slipring_core::outside::Outside;
use slipring_core::proto;
use slipring_core::seat::{Findings, State};
use slipring_core::wait::{Asked, Waiter, WakeMode};

use super::name_check::NameCheck;
use super::polled::Polled;
use super::recheck::Recheck;
use crate::error::Error;
use crate::fork::Unforked;
use crate::seat::{Kernels, Seat, repair_dead};
use crate::setup_error::SetupError;
use crate::shm::{Region, pipes};

/// After this many looks, of 10 ms each, a peer with a hung-up pipe and a held lock counts as
/// alive. Dying takes microseconds, but the kernel schedules a dying process like any other.
const DYING: u32 = 500;

/// The sleeping side of a seat.
pub(crate) struct Parker {
    pub(crate) region: Arc<Region>,
    pub(crate) role: Role,
    /// The number of the seat.
    pub(crate) number: usize,
    /// Wakes the handle. It borrows from `os` and `region`, which this struct keeps alive.
    pub(crate) waiter: Waiter<'static>,
    /// The generation of the peer up to which ends are not reported again. Either they were old
    /// when the handle was made, or the handle acknowledged them to wait for a successor.
    history: AtomicU64,
    /// The knowledge of the handle, and of the set that it is in, about the peer's end.
    pub(crate) findings: Arc<Findings>,
    /// The descriptor that wakes an event loop.
    pub(super) polled: Polled,
    /// `true` if the peer opens this seat's pipe only when it first writes there. Until then no
    /// hang-up reports its death, and the pipe has a spare writer.
    pub(super) late: bool,
    /// The view of the kind from outside.
    pub(super) outside: &'static Outside,
    /// The generation of a peer that has closed its pipe, or not opened it yet, and holds its lock.
    hung: AtomicU64,
    /// The number of looks that found it so.
    looks: AtomicU32,
    link: Mutex<Link>,
    pub(super) recheck: Recheck,
    pub(super) name: NameCheck,
    check_every: Duration,
    /// The kernels, which the waiter borrows, too.
    kernels: Kernels,
}

/// A message from a handle to the set that it is in.
#[derive(Clone, Copy)]
pub(crate) enum Told {
    /// The handle used the words itself, and is done.
    Vacated,
    /// The handle leaves its seat.
    Left,
}

/// Tells the set that the handle is in. Call it while no lock of the parker's is held: the set's
/// lock comes first.
pub(crate) type TellSet = Arc<dyn Fn(Told) + Send + Sync>;

/// The current user of a seat's words.
#[derive(Default)]
struct Link {
    /// Tells the set that the handle is in.
    set: Option<TellSet>,
    /// `true` while the handle uses the words itself.
    occupied: bool,
    /// `true` while the handle polls its pipe meanwhile.
    rests: bool,
}

impl Parker {
    /// Returns the parker of this seat, which is checked every `check_every`.
    pub(super) fn new(seat: &Seat, check_every: Duration) -> Parker {
        let (region, role, number) = (seat.region.clone(), seat.role, seat.number);
        // Where many peers may be opposite, no hang-up reports a death. In private memory no end
        // dies alone.
        let many = region.geometry().kind.spec().most(role.other()) > 1;
        let recheck = (many && region.files.is_some()).then_some(check_every);
        let polled = Polled::new(recheck, region.passed_pipe(number));
        let parker = Parker {
            role,
            number,
            waiter: seat.waiter(),
            history: AtomicU64::new(0),
            findings: seat.findings.clone(),
            polled,
            late: !many && region.opens_late(role.other()),
            outside: proto::outside(region.geometry().kind),
            hung: AtomicU64::new(0),
            looks: AtomicU32::new(0),
            link: Mutex::default(),
            recheck: Recheck::default(),
            name: NameCheck::new(region.named()),
            region,
            check_every,
            kernels: seat.kernels.clone(),
        };
        parker.name.begin(parker.position());
        parker
    }

    /// Gives back what dead holders had in their hands: see [`repair_dead`](crate::seat::repair_dead).
    pub(super) fn repair_dead(&self) -> Result<(), SetupError> {
        repair_dead(&self.region, self.number, &self.kernels)
    }

    /// Sets the generation up to which ends are not reported again.
    pub(crate) fn set_history(&self, known: u64) {
        // Relaxed: no other read depends on it. Only the handle stores it.
        self.history.store(known, Ordering::Relaxed);
    }

    /// Returns the generation of the peer up to which ends are not reported again.
    pub(super) fn history(&self) -> u64 {
        // Relaxed: as above.
        self.history.load(Ordering::Relaxed)
    }

    /// Returns the descriptor that an event loop polls for this seat.
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
        // If the channel's directory is gone, our own end leads to the pipe.
        let open = || self.polled.open(&self.region, self.number, pipes::WRITE);
        let pipe = Unforked::open(open).or_else(|_| Unforked::open(|| self.polled.writer()))?;
        pipe.get().into_iter().for_each(pipes::ring);
        Ok(())
    }

    /// Makes the descriptor hang up if a present peer dies, and only then.
    pub(super) fn hold_writer(&self, alone: bool) -> Result<(), Error> {
        self.polled.hold_writer(&self.region, self.number, alone)
    }

    /// Returns `true` if this peer has closed its pipe but lives: the pipe reports nothing any
    /// more.
    pub(super) fn hung(&self, generation: u64) -> bool {
        // Relaxed, all of these: this handle's own figures.
        self.hung.load(Ordering::Relaxed) == generation
            && self.looks.load(Ordering::Relaxed) >= DYING
    }

    /// Records that a look found this peer's pipe hung up, and its lock held.
    pub(super) fn set_hung(&self, generation: u64) {
        let again = self.hung.swap(generation, Ordering::Relaxed) == generation;
        let looks = match again {
            true => self.looks.load(Ordering::Relaxed),
            // A peer that opens late has not hung up.
            false if self.late => DYING,
            false => 0,
        };
        self.looks.store(looks.saturating_add(1), Ordering::Relaxed);
    }

    /// Empties the pipe. A peer that wrote there may hold it open from now on.
    pub(super) fn drain(&self) {
        if self.polled.drain() && self.late {
            // Relaxed: as above. No seated peer has generation 0.
            self.hung.store(0, Ordering::Relaxed);
        }
    }

    /// Arranges that a poll of this seat's pipe ends when the peer dies, for a peer that opens the
    /// pipe late. If the peer, of generation `present`, has opened the pipe, its hang-up does that.
    /// Otherwise the helper thread looks for the death of a generation above `known`.
    ///
    /// The kernel tells which case it is. Without its spare writer, a pipe is hung up while no
    /// other process has it open for writing. If a process other than the peer was the writer, the
    /// hang-up comes when that process is gone, and the poller looks again.
    pub(super) fn hold_writer_late(&self, present: Option<u64>, known: u64) -> Result<(), Error> {
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
        self.hold_writer(!opened)?;
        self.recheck
            .keep_vigil((!opened).then_some(known), self.check_every);
        Ok(())
    }

    /// Returns `true` if the pipe is readable, so that there is something to look at.
    pub(super) fn readable(&self) -> bool {
        let Ok(pipe) = self.descriptor() else {
            return false;
        };
        let mut polled = [PollFd::from_borrowed_fd(pipe, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Returns `true` if a peer of a generation above `known` has left or died, perhaps without
    /// having rung.
    ///
    /// Returns `false` for a peer that the kernel cannot be asked about. Returns `true` if its
    /// words are impossible: the handle's next call reports that.
    pub(super) fn peer_ended(&self, known: u64) -> bool {
        let seat = self.region.geometry().seats_of(self.role.other()).start;
        let line = self.region.control().seat(seat);
        let Ok(life) = line.life() else {
            return true;
        };
        if life.generation <= known || life.state != State::Held {
            return life.generation > known;
        }
        // If the kernel does not answer, the next look tries again.
        self.region.died(seat, life).unwrap_or(false)
    }

    /// Takes back the request. Returns `false` if a notifier had taken it.
    pub(super) fn disarm(&self) -> bool {
        self.recheck.keep_vigil(None, self.check_every);
        self.waiter.disarm()
    }

    /// Lets the handle use the words itself until it vacates them. `rests` is `true` if it polls
    /// its pipe meanwhile.
    pub(super) fn occupy(&self, rests: bool) {
        let mut link = self.link();
        (link.occupied, link.rests) = (true, rests);
        drop(link);
        self.recheck.keep_vigil(None, self.check_every);
    }

    /// Returns `true` while a call of the handle polls the pipe: bytes in it are for that call.
    pub(super) fn rests(&self) -> bool {
        self.link().rests
    }

    /// Gives the words back when the handle is done with them.
    pub(crate) fn vacate(&self) {
        let mut link = self.link();
        (link.occupied, link.rests) = (false, false);
        let set = link.set.clone();
        // The set's lock comes before this one.
        drop(link);
        if let Some(tell) = set {
            tell(Told::Vacated);
        }
    }

    /// Takes the handle out. When this returns, no set knows of it, and the helper thread does not
    /// look after its bit.
    pub(crate) fn leave(&self) {
        self.recheck.leave();
        let set = self.link().set.take();
        if let Some(tell) = set {
            tell(Told::Left);
        }
    }

    /// Returns `true` if the handle is in a set.
    pub(super) fn in_set(&self) -> bool {
        self.link().set.is_some()
    }

    /// Puts the handle into a set, which it tells by `set`. Returns `InSet` if it is in a set
    /// already.
    pub(super) fn join(&self, set: TellSet) -> Result<(), Error> {
        let mut link = self.link();
        if link.set.is_some() {
            return Err(Error::InSet);
        }
        link.set = Some(set);
        Ok(())
    }

    /// Takes the handle out of its set, and takes back the set's request.
    pub(super) fn part(&self) {
        let mut link = self.link();
        link.set = None;
        if !link.occupied {
            self.disarm();
        }
    }

    /// Asks to be woken for the set, unless the handle uses the words.
    pub(super) fn arm_for_set(&self, wake_mode: WakeMode) -> Option<Asked> {
        let link = self.link();
        // Even if the handle has the words: a byte that no call takes would keep the set awake
        // until the handle is done. A handle that polls its own descriptor is not in a set.
        if wake_mode == WakeMode::Pipe {
            self.descriptor().ok()?;
            self.drain();
        }
        if link.occupied {
            return None;
        }
        Some(self.waiter.arm(wake_mode))
    }

    /// Takes back the set's request.
    pub(super) fn disarm_for_set(&self) {
        let link = self.link();
        if !link.occupied {
            self.disarm();
        }
    }

    /// Returns a figure that changes when the other side makes news. It is only compared with
    /// another reading. A later look, by the handle or by a thread that is rung, sees at least
    /// this, and uses an acquire of its own.
    pub(super) fn position(&self) -> u64 {
        (self.outside.progress)(&self.region.view(), self.role)
    }

    /// Closes the spare writer, and returns `true` if the pipe is hung up now.
    pub(super) fn hung_up(&self) -> Result<bool, Error> {
        self.hold_writer(false)?;
        let mut polled = [PollFd::from_borrowed_fd(
            self.descriptor()?,
            PollFlags::empty(),
        )];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(_) => Ok(polled[0].revents().contains(PollFlags::HUP)),
            // The caller asks again in a moment.
            Err(_) => Ok(true),
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The things that a set needs to wait on behalf of a handle.
pub struct Ask {
    pub(crate) parker: Arc<Parker>,
    /// The room that a producer waits for, in units of its ring; `None` for a consumer.
    pub(crate) room: Option<u64>,
    pub(crate) check_every: Duration,
}

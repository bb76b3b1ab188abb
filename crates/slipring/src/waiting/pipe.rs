//! The face that an event loop polls: one end of a seat's pipe.
//!
//! *Arm*, then poll. Arming empties the pipe, asks the other side for a byte, and looks once more: so
//! what is there by then is reported at once, and what comes later makes the descriptor readable. A
//! channel on which nobody has armed costs the other side no system call.
//!
//! # Hang-up
//! The other side holds the pipe open for writing, and the kernel hangs it up when that side dies: so
//! there is no bounded sleep here, and no timer (but for the second look at who may have been overlooked:
//! `again.rs`). A pipe that hung up stays so, and would keep its event
//! loop awake; therefore, while nobody sits opposite (or an end was told of), this side holds a writing
//! end itself, the *plug*. Whoever arrives rings, so the next arming pulls the plug; arming looks for
//! somebody opposite once more after it asked for the byte, since that ring may have gone before.
//!
//! # Opened late
//! The producer of a named `broadcast` channel may have 63 pipes opposite, and opens each when it first rings there
//! (`Region::opens_late`). Until then nothing hangs up when it dies. So whoever arms keeps the plug in, and has the
//! helper thread keep a *vigil* (`again.rs`): the helper makes the descriptor readable when the producer has left or
//! died, or has taken the bit and not rung. No word says which of the two it is, the kernel does: arming pulls the
//! plug of a pipe in which a byte was, and if that does not hang it up, the producer has it open (`plug_late`).
//!
//! # Many opposite
//! A producer that waits for the slowest of many has no pipe that one of them alone holds open, and so no
//! hang-up. Its descriptor is an epoll over its pipe and a timer, which is set when it is armed: so it is
//! polled again after `check_every`, and asks the kernel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, epoll};
use rustix::fs::{OFlags, Timespec};
use rustix::io::Errno;
use slipring_core::Error as Core;
use slipring_core::seat::Life;
use slipring_core::wait::Face;

use super::{Waits, again, name_check, notice_death, timer};
use crate::error::Error;
use crate::fork::Unforked;
use crate::region::{Region, pipes};
use crate::seat::Seat;

/// What arming found. One rule serves every event loop: take what is there, arm, and poll only once that says
/// [`Armed`](Self::Armed).
///
/// ```
/// use rustix::event::{PollFd, PollFlags, poll};
/// use slipring::{Readiness, spsc};
///
/// let (mut tx, mut rx) = spsc::channel::<u64>(64)?;
/// let feed = std::thread::spawn(move || (0..1000).try_for_each(|number| tx.push(number)));
/// let mut sum = 0;
/// loop {
///     while let Ok(number) = rx.try_pop() {
///         sum += number;
///     }
///     match rx.arm() {
///         Ok(Readiness::Ready) => {}
///         Ok(Readiness::Armed) => {
///             poll(&mut [PollFd::new(&rx.as_fd()?, PollFlags::IN)], None)?;
///         }
///         Err(_) => break, // the producer is gone, and all is read
///     }
/// }
/// assert_eq!(sum, 999 * 500);
/// # feed.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is ready now makes no descriptor readable later"]
pub enum Readiness {
    /// What was asked for is there: take it before you poll.
    Ready,
    /// Nothing is there now. The descriptor becomes readable when there is.
    Armed,
}

/// This side's end of a seat's pipe, once it was asked for.
#[derive(Default)]
pub(crate) struct Polled {
    read: OnceLock<Ends>,
    /// How long after it was armed it is to be polled again in any case; nothing where a hang-up tells.
    recheck: Option<Duration>,
    /// A writing end of our own: see the head of this file.
    plug: Mutex<Option<Unforked>>,
    /// The seat's pipe, if it was passed to this process.
    passed: Option<Arc<OwnedFd>>,
}

/// What there is to poll.
struct Ends {
    pipe: OwnedFd,
    /// A timer, and an epoll over both.
    timed: Option<(OwnedFd, OwnedFd)>,
}

impl Ends {
    fn new(pipe: OwnedFd, recheck: Option<Duration>) -> Result<Ends, Error> {
        let failed = |errno| Error::os("make a timer beside the channel's pipe", errno);
        let timed = |_| -> Result<_, Errno> {
            let timer = timer::create()?;
            let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            for (key, fd) in [&pipe, &timer].into_iter().enumerate() {
                let data = epoll::EventData::new_u64(key as u64);
                epoll::add(&both, fd, data, epoll::EventFlags::IN)?;
            }
            Ok((timer, both))
        };
        let timed = recheck.map(timed).transpose().map_err(failed)?;
        Ok(Ends { pipe, timed })
    }

    fn polled(&self) -> BorrowedFd<'_> {
        match &self.timed {
            Some((_, both)) => both.as_fd(),
            None => self.pipe.as_fd(),
        }
    }
}

impl Polled {
    /// Of a seat that is to be polled again in any case, `recheck` after it was armed; its pipe, if it was passed.
    pub(super) fn new(recheck: Option<Duration>, passed: Option<Arc<OwnedFd>>) -> Polled {
        Polled {
            recheck,
            passed,
            ..Polled::default()
        }
    }

    /// A description of our own of the seat's pipe.
    pub(super) fn open(
        &self,
        region: &Region,
        seat: usize,
        access: OFlags,
    ) -> Result<OwnedFd, Error> {
        match &self.passed {
            Some(pipe) => pipes::reopened(pipe.as_fd(), access),
            None => region.pipe(seat, access),
        }
    }

    /// Empties the pipe, and returns `true` if something was in it; from now on it is to be polled again after a
    /// while, if that is so.
    pub(super) fn drain(&self) -> bool {
        let Some(ends) = self.read.get() else {
            return false;
        };
        let found = pipes::drain(ends.pipe.as_fd());
        if let Some((timer, _)) = &ends.timed {
            // Setting it takes back what it told. It fails for no time that a clock knows.
            let _ = timer::set(timer.as_fd(), self.recheck.unwrap_or_default());
        }
        found
    }

    /// Makes the pipe readable by a writing end that is open already: `false` if there is none.
    pub(super) fn ring(&self) -> bool {
        if let (Some(_), Some(ends)) = (self.recheck, self.read.get()) {
            pipes::ring(ends.pipe.as_fd());
            return true;
        }
        let plug = self.lock();
        let plug = plug.as_ref().and_then(Unforked::get);
        plug.inspect(|plug| pipes::ring(*plug)).is_some()
    }

    /// The descriptor to be polled, which stays the same.
    pub(crate) fn descriptor(&self, region: &Region, seat: usize) -> Result<BorrowedFd<'_>, Error> {
        if let Some(ends) = self.read.get() {
            return Ok(ends.polled());
        }
        let mut plug = self.lock();
        // Another thread may have been first, and may have pulled the plug since.
        if self.read.get().is_none() {
            // One whose hang-up tells nobody anything is its own plug.
            let access = match self.recheck {
                Some(_) => pipes::WRITE,
                None => pipes::READ,
            };
            let ends = Ends::new(self.open(region, seat, access)?, self.recheck)?;
            // Plugged from the first: nobody may ever have written.
            self.plug_in(&mut plug, region, seat, true)?;
            let _ = self.read.set(ends);
        }
        self.read.get().map(Ends::polled).ok_or(Error::NoPipes)
    }

    /// A writing end, by way of the reading one.
    pub(super) fn writer(&self) -> Result<OwnedFd, Error> {
        let ends = self.read.get().ok_or(Error::NoPipes)?;
        pipes::reopened(ends.pipe.as_fd(), pipes::WRITE)
    }

    pub(super) fn plug(&self, region: &Region, seat: usize, wanted: bool) -> Result<(), Error> {
        self.plug_in(&mut self.lock(), region, seat, wanted)
    }

    fn plug_in(
        &self,
        plug: &mut Option<Unforked>,
        region: &Region,
        seat: usize,
        wanted: bool,
    ) -> Result<(), Error> {
        // A pipe of private memory never hangs up: both its ends are the region's.
        let wanted = wanted && region.private.is_none() && self.recheck.is_none();
        match (wanted, plug.is_some()) {
            (true, false) => {
                *plug = Some(Unforked::open(|| self.open(region, seat, pipes::WRITE))?);
            }
            (false, true) => *plug = None,
            _ => {}
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Unforked>> {
        self.plug.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The descriptor to be polled for a seat. A forked copy of it would be a second reader, and its plug a
/// writer that hides the peer's hang-up.
pub(crate) fn descriptor(seat: &Seat) -> Result<BorrowedFd<'_>, Error> {
    if seat.ours() {
        seat.parker.descriptor()
    } else {
        Err(Error::Forked)
    }
}

/// Arms the descriptor, if `attempt` finds nothing, or tells of an end (as an error: then the descriptor
/// becomes readable when somebody comes).
pub(crate) fn arm<C: Waits>(
    core: &mut C,
    seat: &Seat,
    mut attempt: impl FnMut(&mut C) -> Result<(), Core>,
) -> Result<Readiness, Error> {
    // Refused where there is none, also to those who would not have to poll it now.
    descriptor(seat)?;
    // A set asks on the handle's behalf, in its own way. (None takes it while it is borrowed here.)
    if seat.parker.in_set() {
        return Err(Error::InSet);
    }
    let end = match attempt(core) {
        Ok(()) => return Ok(Readiness::Ready),
        Err(Core::Full | Core::Empty) => {
            ask(core, seat)?;
            let mut found = attempt(core);
            if matches!(found, Err(Core::Full | Core::Empty)) && !again::look(&seat.parker)? {
                found = attempt(core);
            }
            match found {
                Ok(()) => {
                    seat.parker.disarm();
                    return Ok(Readiness::Ready);
                }
                Err(Core::Full | Core::Empty) => {
                    name_check::watch(&seat.parker);
                    let Err(renamed) = seat.parker.check_name_in_time(Instant::now()) else {
                        return Ok(Readiness::Armed);
                    };
                    // What came meanwhile comes first.
                    if !super::found(attempt(core))? {
                        return Err(renamed);
                    }
                    seat.parker.disarm();
                    return Ok(Readiness::Ready);
                }
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    if matches!(end, Core::Disconnected(_)) {
        name_check::watch(&seat.parker);
        // Not attempted again: that would take note of the end, which nobody was told of yet. But whoever
        // came before the bit was set has rung for nobody; it may even have left or died by now, and what
        // it left is news. (Nor is the end kept back if this fails.)
        let _ = ask(core, seat).and_then(|()| {
            // Who has come may have published something, too, and overlooked the bit.
            again::look(&seat.parker)?;
            match followed(core)? {
                true => seat.parker.ring(),
                false => Ok(()),
            }
        });
    }
    Err(end.into())
}

/// Empties the pipe, and asks the other side for a byte. Whoever asks looks once more afterwards, for
/// what was published before; and, if that finds nothing, has somebody look after a while (`again::look`).
pub(super) fn ask<C: Waits>(core: &mut C, seat: &Seat) -> Result<(), Error> {
    descriptor(seat)?;
    if seat.parker.sleeper.armed() {
        // Asked for already, and not answered: there is nothing, or nobody who could answer any more.
        notice_death(core, seat)?;
    }
    if !seat.parker.late {
        plug(core, seat)?;
    }
    // Also if the bit still stands: the byte of the waker that cleared the last one may have come after
    // that was armed, and would keep the event loop awake. And before the bit is looked at: a byte that
    // answers this bit, and that we take, has cleared it by then.
    let asked = again::asking(&seat.parker, || {
        seat.parker.drain();
        let armed = seat.parker.sleeper.armed();
        (!armed).then(|| seat.parker.sleeper.arm(Face::Pipe))
    });
    if asked {
        seat.count_park();
    }
    if !seat.parker.late {
        if asked {
            // Whoever arrived before the bit was set.
            plug(core, seat)?;
        }
        return hung_up(core, seat);
    }
    let present = suspect(core)?.map(|peer| peer.generation);
    // Nothing more is told of who sits there, if that one is known to be gone.
    let known = match present {
        Some(generation) => generation - 1,
        None => seat.peer_line().life()?.generation,
    };
    seat.parker.plug_late(present, known)
}

/// Waits until the pipe has something to tell, for at most so long, and returns `true` if it has. May return at any
/// time.
pub(super) fn poll(seat: &Seat, at_most: Duration) -> Result<bool, Error> {
    let mut polled = [PollFd::from_borrowed_fd(descriptor(seat)?, PollFlags::IN)];
    // No time that the kernel does not know is asked for. Whatever it says: the caller looks.
    let at_most = Timespec::try_from(at_most).unwrap_or_default();
    let polled = rustix::event::poll(&mut polled, Some(&at_most));
    Ok(polled.is_ok_and(|ready| ready > 0))
}

/// A pipe that hung up belongs to a dead peer, whose lock the kernel frees a moment later: waits for that.
/// Whoever was told of the hang-up only once (as by an edge-triggered epoll) would else find the peer
/// alive, poll, and never be told again.
///
/// If that moment is long, on a machine that does not let the dying one run, the descriptor is made readable,
/// so that the event loop comes back, again and again. One that lives, and has closed its pipe all the same
/// (as daemons close all that they have open), tells no more by it: in the end the pipe is plugged until
/// somebody else sits there.
fn hung_up<C: Waits>(core: &mut C, seat: &Seat) -> Result<(), Error> {
    // Microseconds do; then a rest, in case that it is for our processor that the dying one waits.
    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_millis(10);
    let begun = Instant::now();
    while let Some(peer) = suspect(core)?
        && !seat.parker.hung(peer.generation)
        && seat.parker.hung_up()?
    {
        notice_death(core, seat)?;
        let waited = begun.elapsed();
        if waited < SHORT {
            std::thread::yield_now();
        } else if waited < LONG {
            std::thread::sleep(SHORT / 4);
        } else {
            seat.parker.set_hung(peer.generation);
            if !seat.parker.hung(peer.generation) {
                seat.parker.ring()?;
            }
            // Whoever sits there by now: a word that never rests must not keep us here.
            break;
        }
    }
    // If it is dead by now, the hang-up has told all that it had to.
    plug(core, seat)
}

/// Whether somebody has come, or left, since the end that this handle was told of.
fn followed<C: Waits>(core: &mut C) -> Result<bool, Error> {
    match core.other() {
        Some(peer) => Ok(peer.followed()?),
        None => Ok(false),
    }
}

/// Whose death the pipe's hang-up tells of.
fn suspect<C: Waits>(core: &mut C) -> Result<Option<Life>, Error> {
    match core.other() {
        Some(peer) => Ok(peer.suspect()?),
        None => Ok(None),
    }
}

/// Sees to it that the pipe hangs up if somebody sits opposite and dies, and only then.
fn plug<C: Waits>(core: &mut C, seat: &Seat) -> Result<(), Error> {
    let peer = suspect(core)?;
    let alone = peer.is_none_or(|peer| seat.parker.hung(peer.generation));
    seat.parker.plug(alone)
}

//! The descriptor that an event loop polls: one end of a seat's pipe.
//!
//! *Arm*, then poll. Arming empties the pipe, asks the other side for a byte, and looks once more.
//! News that is there by then is reported at once, and later news makes the descriptor readable. A
//! channel on which no handle is armed costs the other side no system call.
//!
//! # Hang-up
//! The other side holds the pipe open for writing, and the kernel hangs it up when that side dies.
//! Therefore this file needs no bounded sleep, and no timer. The one exception is the second look,
//! for publishers that may have overlooked the bit (`recheck.rs`).
//!
//! A pipe that hung up stays so, and would keep its event loop awake. Therefore this side holds a
//! writing end itself, the *spare writer*, while no peer is present or its end was reported. An
//! arriving peer rings, so the next arming closes the spare writer. That ring may have come before
//! arming asked for the byte; so arming looks for a peer once more afterwards.
//!
//! # Opened late
//! The producer of a named `broadcast` channel may have 63 pipes opposite. It opens each when it
//! first rings there (`Region::opens_late`). Until then its death hangs nothing up. So the arming
//! side keeps the spare writer, and lets the helper thread keep a *vigil*: see `recheck.rs`. The
//! helper makes the descriptor readable when the producer has left or died, or has taken the bit
//! and not rung.
//!
//! No word tells whether the producer has opened the pipe, but the kernel does. Arming closes the
//! spare writer of a pipe in which a byte was. If that does not hang the pipe up, the producer has
//! it open (`hold_writer_late`).
//!
//! # Many opposite
//! A producer that waits for the slowest of many has no pipe that one of them alone holds open, and
//! so no hang-up. Its descriptor is an epoll over its pipe and a timer, which arming sets. So the
//! event loop polls it again after `check_every`, and arming asks the kernel.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Timespec;
use slipring_core::end::Endpoint;
use slipring_core::seat::Life;
use slipring_core::wait::WakeMode;

use super::attached::Attached;
use super::looks;
use crate::error::Error;

/// The result of arming. One rule serves every event loop: take the messages that are there, arm,
/// and poll only if that returns [`Armed`](Self::Armed).
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
    /// The message or the room is there: take it before you poll.
    Ready,
    /// There is nothing now. The descriptor becomes readable when there is.
    Armed,
}

impl<C: Endpoint> Attached<C> {
    /// Returns the descriptor to poll for the seat; `Forked` in a forked child. A forked copy would
    /// be a second reader, and its spare writer would hide the peer's hang-up.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        if self.seat.ours() {
            self.state.parker.descriptor()
        } else {
            Err(Error::Forked)
        }
    }

    /// Arms the descriptor if the core finds nothing, or reports an end as an error. After an end,
    /// the descriptor becomes readable when a peer comes.
    pub(crate) fn arm(&mut self, amount: usize) -> Result<Readiness, Error> {
        // Fail if there is no descriptor, even for a caller that need not poll it now.
        self.descriptor()?;
        // A set asks on the handle's behalf, in its own way. No set takes the handle while it is
        // borrowed here.
        if self.state.parker.in_set() {
            return Err(Error::InSet);
        }
        let end = match self.found(amount) {
            Ok(true) => return Ok(Readiness::Ready),
            Ok(false) => {
                // Nobody asks again before the descriptor is readable.
                if self.state.owes {
                    self.core.settle(u32::MAX);
                }
                self.ask_for_a_byte()?;
                let mut found = self.found(amount);
                if found == Ok(false) && !looks::look_later(&self.state.parker)? {
                    found = self.found(amount);
                }
                match found {
                    Ok(true) => {
                        self.state.parker.disarm();
                        return Ok(Readiness::Ready);
                    }
                    Ok(false) => {
                        looks::watch_name(&self.state.parker);
                        let name = self.state.parker.check_name_in_time(Instant::now());
                        let Err(renamed) = name else {
                            return Ok(Readiness::Armed);
                        };
                        // News that came meanwhile comes first.
                        if !self.found(amount)? {
                            return Err(renamed);
                        }
                        self.state.parker.disarm();
                        return Ok(Readiness::Ready);
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if matches!(end, Error::Disconnected(_)) {
            looks::watch_name(&self.state.parker);
            // Do not look again: that would acknowledge the end before it was reported. But a peer
            // that came before the bit was set has rung for no one. It may even have left or died
            // by now, and what it left is news. The end is reported even if this fails.
            let _ = self.watch_for_successor();
        }
        Err(end)
    }

    /// Makes the descriptor readable when a successor follows a peer whose end was reported.
    fn watch_for_successor(&mut self) -> Result<(), Error> {
        self.ask_for_a_byte()?;
        // A peer that has come may also have published something, and overlooked the bit.
        looks::look_later(&self.state.parker)?;
        let followed = self.core.with_peer(|peer| peer.followed());
        match followed.or_else(|| self.core.with_crowd(|crowd| crowd.followed())) {
            Some(followed) if followed? => self.state.parker.ring(),
            _ => Ok(()),
        }
    }

    /// Empties the pipe, and asks the other side for a byte. The caller looks once more afterwards,
    /// for what was published before. If it finds nothing, it arranges a later look
    /// (`looks::look_later`).
    pub(super) fn ask_for_a_byte(&mut self) -> Result<(), Error> {
        self.descriptor()?;
        if self.state.parker.waiter.armed() {
            // Asked for already, and not answered: there is nothing, or no peer that could answer
            // any more.
            self.notice_death()?;
        }
        let late = self.state.parker.late;
        if !late {
            self.hold_writer()?;
        }
        let parker = &self.state.parker;
        // Empty the pipe even if the bit still stands. The waker that cleared the previous bit may
        // have written its byte after this one was armed; that byte would keep the event loop
        // awake. Empty it before the look at the bit: if we take a byte that answers this bit, the
        // waker has cleared the bit by then.
        let asked = looks::asking(parker, || {
            parker.drain();
            let armed = parker.waiter.armed();
            (!armed).then(|| parker.waiter.arm(WakeMode::Pipe))
        });
        if asked {
            self.seat.count_park();
        }
        if !late {
            if asked {
                // For a peer that arrived before the bit was set.
                self.hold_writer()?;
            }
            return self.wait_for_the_lock();
        }
        let present = self.suspect()?.map(|peer| peer.generation);
        // If the present peer is known to be gone, its end is not reported any more.
        let known = match present {
            Some(generation) => generation - 1,
            None => self.seat.peer_line().life()?.generation,
        };
        self.state.parker.hold_writer_late(present, known)
    }

    /// Waits for the kernel to free the lock of a dead peer, whose pipe hangs up a moment before.
    ///
    /// Without this wait, a caller that gets the hang-up only once (from an edge-triggered epoll)
    /// would find the peer alive. It would poll, and never get the hang-up again.
    ///
    /// That moment can be long on a machine that does not let the dying process run. Then the
    /// descriptor is made readable, so that the event loop comes back again and again. A peer may
    /// also live and have closed its pipe, as daemons close all their descriptors. Its pipe tells
    /// nothing any more: in the end the spare writer keeps it open until another peer takes the
    /// seat.
    fn wait_for_the_lock(&mut self) -> Result<(), Error> {
        // Microseconds suffice. Then rest, in case the dying process waits for our processor.
        const SHORT: Duration = Duration::from_millis(1);
        const LONG: Duration = Duration::from_millis(10);
        let begun = Instant::now();
        while let Some(peer) = self.suspect()?
            && !self.state.parker.hung(peer.generation)
            && self.state.parker.hung_up()?
        {
            self.notice_death()?;
            let waited = begun.elapsed();
            if waited < SHORT {
                std::thread::yield_now();
            } else if waited < LONG {
                std::thread::sleep(SHORT / 4);
            } else {
                self.state.parker.set_hung(peer.generation);
                if !self.state.parker.hung(peer.generation) {
                    self.state.parker.ring()?;
                }
                // For the peer that is present by now: a word that keeps changing must not keep us
                // here.
                break;
            }
        }
        // If the peer is dead by now, the hang-up has served its purpose.
        self.hold_writer()
    }

    /// Returns the peer whose death the pipe's hang-up reports.
    fn suspect(&mut self) -> Result<Option<Life>, Error> {
        match self.core.with_peer(|peer| peer.suspect()) {
            Some(suspect) => Ok(suspect?),
            None => Ok(None),
        }
    }

    /// Makes the pipe hang up if a present peer dies, and only then.
    fn hold_writer(&mut self) -> Result<(), Error> {
        let peer = self.suspect()?;
        let hung = |peer: Life| self.state.parker.hung(peer.generation);
        self.state.parker.hold_writer(peer.is_none_or(hung))
    }
}

/// Waits until the descriptor is readable or hung up, for at most `at_most`, and returns `true` if
/// it is. May return at any time.
pub(super) fn poll(descriptor: BorrowedFd<'_>, at_most: Duration) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    // The kernel never gets a time that it does not know. Whatever it returns, the caller looks.
    let at_most = Timespec::try_from(at_most).unwrap_or_default();
    let polled = rustix::event::poll(&mut polled, Some(&at_most));
    polled.is_ok_and(|ready| ready > 0)
}

//! An attached end: the core's end of a channel, the seat that it holds, and its wait state, as one
//! object.
//!
//! Everything that a handle does besides moving messages is a method of it. This file deals with
//! the peer, `block.rs` with waiting in a call, `fd.rs` with the descriptor, `future.rs` with
//! futures.

use std::sync::Arc;
use std::time::Duration;

use slipring_core::end::{Endpoint, Poll};

use super::driver::Driver;
use super::parker::{Ask, Parker};
use super::policy::{Until, Waiting};
use super::spin::AdaptiveSpin;
use crate::error::Error;
use crate::seat::{Seat, SharedSeat};
use crate::setup_error::SetupError;

/// The steps in which a waiting consumer gives memory back between two looks at its deadline: some 3 ms in all.
const STEPS: u32 = 8;

/// One attached end of a channel: the contents of a handle.
pub(crate) struct Attached<C: Endpoint> {
    // Dropped in this order: the core's end points into memory that the seat keeps alive.
    pub(crate) core: C,
    pub(crate) state: WaitState,
    pub(crate) seat: SharedSeat,
}

/// The state of a handle's waiting.
pub(crate) struct WaitState {
    /// The wait settings of its calls.
    pub(crate) waiting: Waiting,
    /// Decides how long they poll before they sleep.
    pub(super) spin: AdaptiveSpin,
    /// The number of times that the handle had woken the other side when it last began to wait.
    pub(super) woken: u64,
    /// Wakes its futures.
    pub(super) driver: Driver,
    /// `true` if it has memory to give back still: see `Endpoint::settle`.
    pub(super) owes: bool,
    /// `true` if its last sleep was ended by a wake.
    pub(super) told: bool,
    /// The number of its futures' polls in a row that were ready.
    pub(super) ready_polls: u32,
    /// Puts it to sleep and wakes it.
    pub(super) parker: Arc<Parker>,
}

impl WaitState {
    fn new(seat: &Seat, waiting: Waiting, known: u64) -> WaitState {
        let parker = Parker::new(seat, waiting.check_every);
        parker.set_history(known);
        WaitState {
            waiting,
            spin: AdaptiveSpin::new(Duration::ZERO),
            woken: 0,
            driver: Driver::default(),
            owes: false,
            told: false,
            ready_polls: 0,
            parker: Arc::new(parker),
        }
    }
}

impl<C: Endpoint> Attached<C> {
    /// Attaches the core's end to the seat that it was made for, and wakes a peer that waits for
    /// this end to come.
    pub(crate) fn new(mut core: C, seat: Seat, waiting: Waiting) -> Attached<C> {
        let known = known_of(&mut core);
        let state = WaitState::new(&seat, waiting, known);
        seat.settle();
        let seat = SharedSeat::new(seat);
        Attached { core, state, seat }
    }

    /// Waits until there is room for `amount`, or a message.
    #[inline]
    pub(crate) fn ready(&mut self, amount: usize, until: &mut Until) -> Result<(), Error> {
        match self.core.poll(amount) {
            Poll::Ready => Ok(()),
            Poll::NotReady => self.wait(amount, until),
            Poll::Unclear => self.slow_path(amount, until),
        }
    }

    #[cold]
    #[inline(never)]
    fn slow_path(&mut self, amount: usize, until: &mut Until) -> Result<(), Error> {
        match self.core.slow_path(amount) {
            Err(error) if error == C::NOT_READY => self.wait(amount, until),
            done => done,
        }
    }

    /// Returns `true` if the core finds the room or the message, and `false` if it may find it
    /// later.
    pub(super) fn found(&mut self, amount: usize) -> Result<bool, Error> {
        match self.core.ready(amount) {
            Ok(()) => Ok(true),
            Err(error) if error == C::NOT_READY => {
                // A sleep may follow. Whatever comes meanwhile wakes us. A producer waits for room, and shrinks nothing.
                self.state.owes = error == Error::Empty && self.core.settle(STEPS);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns `true` if a peer is present whose end has not been reported to this handle. Asks the
    /// kernel.
    pub(crate) fn present(&mut self) -> Result<bool, Error> {
        self.notice_death()?;
        match self.core.with_peer(|peer| peer.present()) {
            Some(present) => Ok(present?),
            None => self.seat.anybody_opposite(),
        }
    }

    /// Returns `true` if no peer is present whose end has not been reported to this handle.
    pub(crate) fn alone(&mut self) -> Result<bool, Error> {
        Ok(!self.present()?)
    }

    /// Asks the kernel about a peer whose words only show that it has not left. An end with many peers asks about all
    /// whose death would concern it, and gives back what they had in their hands.
    pub(crate) fn notice_death(&mut self) -> Result<(), Error> {
        let Some(suspect) = self.core.with_peer(|peer| peer.suspect()) else {
            return match self.seat.repair_dead() {
                Err(SetupError::Forked) => Err(Error::Forked),
                Err(SetupError::Corrupt(corrupt)) => Err(Error::Corrupt(corrupt)),
                // A lack of descriptors, for example: the next look tries again.
                _ => Ok(()),
            };
        };
        let Some(suspect) = suspect? else {
            return Ok(());
        };
        if self.seat.peer_died(suspect)? {
            self.core.with_peer(|peer| peer.died(suspect));
        }
        Ok(())
    }

    /// Acknowledges the end that was reported to this handle. A later consumer, and the set that
    /// the handle is in, do not report it again.
    pub(super) fn acknowledge(&mut self) {
        self.core.with_peer(|peer| peer.acknowledge());
        self.core.with_crowd(|crowd| crowd.acknowledge());
        self.state.parker.set_history(known_of(&mut self.core));
    }

    /// Returns what a set needs to wait for `room`, or for a message if that is `None`.
    pub(crate) fn ask(&self, room: Option<u64>) -> Result<Ask, Error> {
        if !self.seat.ours() {
            return Err(Error::Forked);
        }
        Ok(Ask {
            parker: self.state.parker.clone(),
            room,
            check_every: self.state.waiting.check_every,
        })
    }

    /// Lets the current tokio runtime drive the handle's futures from now on.
    #[cfg(feature = "tokio")]
    pub(crate) fn on_tokio(&mut self) -> Result<(), Error> {
        if !self.seat.ours() {
            return Err(Error::Forked);
        }
        self.state.driver.on_tokio(&self.state.parker)
    }

    /// Returns `true` if this handle woke the other side since the last call.
    pub(super) fn woke_peer(&mut self) -> bool {
        let woken = self.seat.wakes();
        std::mem::replace(&mut self.state.woken, woken) != woken
    }
}

/// Returns the figure up to which ends are not reported to this end any more.
fn known_of(core: &mut impl Endpoint) -> u64 {
    let peer = core.with_peer(|peer| peer.known());
    let known = peer.or_else(|| core.with_crowd(|crowd| crowd.known()));
    known.unwrap_or(0)
}

impl<C: Endpoint> Drop for Attached<C> {
    fn drop(&mut self) {
        if self.seat.ours() {
            self.core.settle(u32::MAX);
            self.acknowledge();
            // Before the seat is free: no set may ask to be woken by words that are no longer ours.
            self.state.parker.leave();
        }
    }
}

//! Seats: which process holds a role. The kernel knows, because it frees a dead holder's locks.
//!
//! A seat has two bytes in the control file, at the offset of its seat line: *held* (+0) and *under
//! repair* (+1). They are locked, never written. To take a seat:
//!
//! 1. With forks held off, open a fresh description of the control file. A passed descriptor would
//!    share its sender's description, and with it every lock.
//! 2. Lock *repair*, then *held*. If another process has *repair*: wait for it, then return
//!    `Recovering`. If another process has *held*: return `RoleTaken`.
//! 3. Check that the name still leads to this file. Otherwise another process removed the channel,
//!    or put another file in its place: start again.
//! 4. Open the other seat's pipe, and hold it open for as long as this seat. Its hang-up tells the
//!    other side's event loop of our death. Do not open it earlier: a process that only wants the
//!    seat would hide its holder's death. The producer of a named `broadcast` channel opens each
//!    consumer's pipe when it first rings there.
//! 5. Map one page through the description and close it. The mapping keeps the lock, and leaves no
//!    descriptor number for others to inherit or to close. Some file systems may not keep the lock
//!    then (overlayfs does not). On those, keep the descriptor instead; a forked child closes it.
//! 6. Repair what the last holder left, become the next generation, unlock *repair*.
//!
//! Where there is no file (heap, borrowed memory), a word in the seat line refuses a second taker.
//! A dead holder is never detected there.

mod pool;
mod repair;
mod rings;
mod taking;

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slipring_core::crowd::Crowd;
use slipring_core::layout::{Role, RolePage, SeatLine, WaitCell};
use slipring_core::proto::topic::{PoolBacking, PoolSlot};
use slipring_core::rings::Rings;
use slipring_core::seat::{Findings, Life, Peer, State};
use slipring_core::wait::{Notifier, Waiter};
use slipring_core::{CachedLimit, End};

use crate::clock;
use crate::error::Error;
use crate::fork::{LimitPage, NoFork, Unforked};
use crate::kernel::Kernel;
use crate::setup_error::SetupError;
use crate::shm::{Region, pipes};

use pool::Pool;
use repair::give_back;
pub(crate) use repair::repair_dead;
use taking::Hold;

/// A held seat. Dropping it leaves: finished, or aborted. It is aborted while panicking, or before
/// its handle was made (`settle`).
pub(crate) struct Seat {
    pub(crate) region: Arc<Region>,
    pub(crate) role: Role,
    /// The seat's number, producers first.
    pub(crate) number: usize,
    generation: u64,
    cached_limit: LimitPage,
    pool: Pool,
    /// The rings of a channel that can grow.
    rings: Option<Arc<Rings<'static>>>,
    hold: Hold,
    aborted: AtomicBool,
    /// `true` if the channel is removed when this was the last handle, and nothing is unread.
    pub(crate) ephemeral: bool,
    pub(crate) kernels: Kernels,
    /// The knowledge of the handle, and of the set that it is in, about the peer's end.
    pub(crate) findings: Arc<Findings>,
}

/// A handle's share of its seat. The guards that have left its hands have the others: the seat is left with the last of
/// them.
pub(crate) struct SharedSeat(Arc<Seat>);

impl SharedSeat {
    pub(crate) fn new(seat: Seat) -> SharedSeat {
        SharedSeat(Arc::new(seat))
    }

    /// Returns a share for a guard.
    pub(crate) fn share(&self) -> Arc<Seat> {
        self.0.clone()
    }
}

impl Deref for SharedSeat {
    type Target = Seat;

    fn deref(&self) -> &Seat {
        &self.0
    }
}

impl Drop for SharedSeat {
    fn drop(&mut self) {
        // The last share may be dropped elsewhere, and later.
        if std::thread::panicking() {
            self.abort();
        }
    }
}

/// The kernels by which a seat wakes others. In an `Arc`: moving an `Arc` claims no unique access to its contents.
#[derive(Clone)]
pub(crate) struct Kernels {
    /// Wakes the other side.
    opposite: Arc<Kernel>,
    /// Wakes the seat's own side: of a kind whose ends compete, and the publishers of a topic.
    fellows: Option<Arc<Kernel>>,
}

impl Kernels {
    fn of(region: &Arc<Region>, role: Role) -> Kernels {
        let geometry = region.geometry();
        let kernel = |role| Arc::new(Kernel::of(region, geometry.seats_of(role)));
        let spec = geometry.kind.spec();
        let publishers = spec.has_pool && role == Role::Producer;
        Kernels {
            opposite: kernel(role.other()),
            fellows: (spec.has_claims || publishers).then(|| kernel(role)),
        }
    }

    /// Opens the pipes that a holder must have open from before its seat is held.
    fn open_early(
        &self,
        region: &Region,
        number: usize,
        no_fork: &NoFork,
    ) -> Result<(), SetupError> {
        let geometry = region.geometry();
        let fellows = geometry.seats_of(geometry.role_of(number));
        let opposite = Some((&self.opposite, opposite(region, number)));
        let fellows = self.fellows.as_ref().map(|kernel| (kernel, fellows));
        for (kernel, seats) in opposite.into_iter().chain(fellows) {
            let early = seats.enumerate().filter(|_| kernel.opens_early());
            for (place, other) in early.filter(|(_, other)| *other != number) {
                let pipe = Unforked::open_within(no_fork, || region.pipe(other, pipes::WRITE))?;
                kernel.hold_open(place, pipe);
            }
        }
        Ok(())
    }
}

impl Seat {
    /// Returns the line of this seat.
    pub(crate) fn line(&self) -> &'static SeatLine {
        self.region.control().seat(self.number)
    }

    /// Returns the role page of this seat.
    pub(crate) fn page(&self) -> &'static RolePage {
        self.region
            .control()
            .role(self.region.geometry(), self.number)
    }

    /// Returns the number of the seat at the other end, or of the first one if there are several.
    fn peer_number(&self) -> usize {
        opposite(&self.region, self.number).start
    }

    /// Returns the role page of the seat at the other end.
    pub(crate) fn peer_page(&self) -> &'static RolePage {
        self.region
            .control()
            .role(self.region.geometry(), self.peer_number())
    }

    /// Returns the line of the seat at the other end.
    pub(crate) fn peer_line(&self) -> &'static SeatLine {
        self.region.control().seat(self.peer_number())
    }

    /// Returns the initial knowledge of this seat's handle about the other end.
    pub(crate) fn peer(&self) -> Result<Peer<'static>, SetupError> {
        let peer = match self.role {
            Role::Consumer => Peer::producer(self.peer_line(), self.line()),
            Role::Producer => {
                let alive = || self.peer_held().unwrap_or(true);
                Peer::consumer(self.peer_line(), alive)?
            }
        };
        Ok(peer.sharing(on_loan(&self.findings)))
    }

    /// Returns `true` if the other seat is held, or if the kernel cannot tell.
    fn peer_held(&self) -> Result<bool, Error> {
        Ok(self.region.held(self.peer_number())?.unwrap_or(true))
    }

    /// Returns `true` if the peer with this `life` is dead.
    pub(crate) fn peer_died(&self, life: Life) -> Result<bool, Error> {
        self.region.died(self.peer_number(), life)
    }

    /// Returns its bit, among the seats of its side.
    pub(crate) fn bit(&self) -> u64 {
        bit(&self.region, self.number)
    }

    /// Returns `true` if any seat opposite is held, or if the kernel cannot tell.
    pub(crate) fn anybody_opposite(&self) -> Result<bool, Error> {
        for seat in opposite(&self.region, self.number) {
            let life = self.region.control().seat(seat).life()?;
            if life.state == State::Held && self.region.held(seat)?.unwrap_or(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records that the handle is made: from now on leaving means that this end finished. Wakes a
    /// peer that waits for this end to come.
    pub(crate) fn settle(&self) {
        // Relaxed, as all of its accesses: an `Arc` orders them before the drop.
        self.aborted.store(false, Ordering::Relaxed);
        if self.region.opens_late(self.role) {
            // A predecessor may have taken a poller's bit and died before it rang. That poller is
            // hung up, or the helper thread looks after it (`recheck.rs`). So no pipe is opened
            // unasked.
            let notifier = self.notifier();
            notifier.wake();
            notifier.wake_all_asleep();
        } else {
            self.notifier().arrive();
        }
        self.wake_fellows();
    }

    /// Gives back what dead holders had in their hands: see [`repair_dead`].
    pub(crate) fn repair_dead(&self) -> Result<(), SetupError> {
        repair_dead(&self.region, self.number, &self.kernels)
    }

    /// Wakes the seat's own side, of a kind whose ends compete: what a holder had in its hands is there again, or an end
    /// may stand now.
    fn wake_fellows(&self) {
        if self.region.geometry().kind.spec().has_claims {
            self.fellow_notifier().wake();
        }
    }

    /// Wakes another handle of the seat's side in place of this one, which was woken and takes nothing, if the two compete.
    pub(crate) fn wake_another(&self) {
        if self.region.geometry().kind.spec().has_claims && self.ours() {
            self.fellow_notifier().wake_for(1);
        }
    }

    /// Returns the wait cell by which the other side is woken.
    fn wait_cell_opposite(&self) -> &'static WaitCell {
        self.region.control().wait_cell(self.role == Role::Producer)
    }

    /// Returns the notifier that wakes the other end.
    pub(crate) fn notifier(&self) -> Notifier<'static> {
        let os = on_loan(&self.kernels.opposite);
        let wait_cell = self.wait_cell_opposite();
        let sleepers = self.region.side(self.role.other());
        let notifier = Notifier::new(wait_cell, sleepers, &self.page().counters, os.fenced(), os);
        self.for_side(notifier, self.role.other())
    }

    /// Makes a notifier of the consumers of a queue wake no more of them than there are messages.
    fn for_side(&self, notifier: Notifier<'static>, side: Role) -> Notifier<'static> {
        let rivals = self.region.geometry().kind.spec().has_claims && side == Role::Consumer;
        if rivals { notifier.sparing() } else { notifier }
    }

    /// Returns the notifier that wakes the seat's own side: see [`Kernels`].
    pub(crate) fn fellow_notifier(&self) -> Notifier<'static> {
        let os = on_loan(
            self.kernels
                .fellows
                .as_ref()
                .unwrap_or(&self.kernels.opposite),
        );
        let wait_cell = self.region.control().wait_cell(self.role == Role::Consumer);
        let fellows = self.region.side(self.role);
        let notifier = Notifier::new(wait_cell, fellows, &self.page().counters, os.fenced(), os);
        self.for_side(notifier.of_fellows(self.bit()), self.role)
    }

    /// Returns the initial knowledge of this seat's handle about its many peers.
    pub(crate) fn crowd(&self) -> Result<Crowd<'static>, SetupError> {
        // Of those that are dead by now, nobody is told any more. If this fails, whoever waits tries again.
        let _ = self.repair_dead();
        let (peers, line) = (self.region.side(self.role.other()), self.line());
        let side = self.region.side(self.role);
        // Where each sees all messages, each is told the end.
        let fellows = match self.region.geometry().kind.spec().each_sees_all {
            true => &[],
            false => side.seats(),
        };
        Ok(match self.role {
            Role::Producer => Crowd::consumers(peers, line)?,
            Role::Consumer => Crowd::producers(peers, fellows, line),
        })
    }

    /// Returns the waiter by which the handle is woken. Do not use it after the seat is dropped.
    pub(crate) fn waiter(&self) -> Waiter<'static> {
        waiter(&self.region, self.number, on_loan(&self.kernels.opposite))
    }

    /// Returns the cached limit of this seat's handle.
    ///
    /// # Safety
    /// Call this once, and do not use the result after the seat is dropped.
    pub(crate) unsafe fn cached_limit(&self) -> &'static mut CachedLimit {
        // SAFETY: the caller's promise.
        unsafe { self.cached_limit.cached_limit() }
    }

    /// Returns the rings of a channel that can grow; `None` if its capacity is fixed. Do not use them after the seat is
    /// dropped.
    pub(crate) fn rings(&self) -> Option<&'static Rings<'static>> {
        self.rings.as_ref().map(on_loan)
    }

    /// Returns what backs the slots of a topic with memory; `None` if all of it is there.
    pub(crate) fn backing(&self) -> Option<&'static dyn PoolBacking> {
        self.pool.backing()
    }

    /// Returns the notes of a topic's producer about its slots.
    ///
    /// # Safety
    /// Call this once, and do not use the result after the seat is dropped.
    pub(crate) unsafe fn pool(&self) -> &'static mut [PoolSlot] {
        // SAFETY: the caller's promise; the pool is vacated when the seat is dropped.
        unsafe { self.pool.notes() }
    }

    /// Returns `true` in the process that took the seat, and `false` in a forked child.
    pub(crate) fn ours(&self) -> bool {
        self.cached_limit.alive()
    }

    /// Checks that the channel's name still leads to it: see `Place::check`.
    pub(crate) fn check_name(&self) -> Result<(), Error> {
        if !self.ours() {
            return Err(Error::Forked);
        }
        self.region.check_name()
    }

    /// Records a sign of life, for people.
    pub(crate) fn beat(&self) {
        if self.ours() {
            self.line()
                .heartbeat
                .store(clock::since_boot(), Ordering::Relaxed);
        }
    }

    /// Counts a call that had to wait, for people.
    pub(crate) fn count_wait(&self) {
        let waits = &self.page().counters.waits;
        // One writer: a load and a store, no read-modify-write.
        waits.store(
            waits.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    /// Returns the number of times that this handle has woken the other side.
    pub(crate) fn wakes(&self) -> u64 {
        self.page().counters.wakes.load(Ordering::Relaxed)
    }

    /// Counts a sleep, for people.
    pub(crate) fn count_park(&self) {
        let parks = &self.page().counters.parks;
        // One writer: a load and a store, no read-modify-write.
        parks.store(
            parks.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    /// Records that this end did not finish, so that leaving means aborted from now on.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.ours() {
            return;
        }
        let end = if *self.aborted.get_mut() || std::thread::panicking() {
            End::Aborted
        } else {
            End::Finished
        };
        // A forgotten guard may hold something. If its words are impossible, whoever meets them reports that.
        let _ = give_back(&self.region, self.number);
        self.pool.vacate();
        // The channel's idle time is counted from here.
        self.beat();
        self.line().leave(self.generation, end);
        // Before the lock goes: a successor has the same words. This also ends the waiter's message
        // to publishers.
        self.waiter().repair();
        self.notifier().wake();
        self.wake_fellows();
        // Release all locks, even where a descriptor has the lock: a process that removes the
        // channel takes all of them.
        let hold = std::mem::replace(&mut self.hold, Hold::Word);
        hold.release(&self.region, self.number);
        drop(hold);
        if self.ephemeral && end == End::Finished {
            self.region.remove_spent();
        }
    }
}

/// Returns the numbers of the seats opposite.
fn opposite(region: &Region, number: usize) -> Range<usize> {
    let geometry = region.geometry();
    geometry.seats_of(geometry.role_of(number).other())
}

/// Returns the bit of a seat, among those of its side.
fn bit(region: &Region, number: usize) -> u64 {
    let geometry = region.geometry();
    1 << (number - geometry.seats_of(geometry.role_of(number)).start)
}

/// Returns the waiter by which the holder of a seat is woken.
fn waiter<'m>(region: &Region, number: usize, os: &'m Kernel) -> Waiter<'m> {
    let (control, geometry) = (region.control(), region.geometry());
    let role = geometry.role_of(number);
    let side = geometry.seats_of(role);
    Waiter::new(
        control.wait_cell(role == Role::Consumer),
        number - side.start,
        &control.role(region.geometry(), number).counters,
        region.side(role.other()),
        side.len() == 1,
        os,
    )
}

/// Extends the lifetime of a borrow, as for the control part: a handle's words are dropped before
/// its seat. `owned` is the seat's parker, or a part of that.
fn on_loan<T>(owned: &Arc<T>) -> &'static T {
    // SAFETY: the contents of the `Arc` stay in place. They live until the seat, and the sets that
    // it is in, have dropped its parker. Their borrowers, the parker's waiter and the core handle
    // beside the seat, are not used after that.
    unsafe { &*Arc::as_ptr(owned) }
}

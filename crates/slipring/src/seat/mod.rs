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

use std::ops::{Deref, Range};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use slipring_core::crowd::Crowd;
use slipring_core::layout::{LINE, PAGE, Role, RolePage, SEATS, SeatLine, WaitCell};
use slipring_core::proto::topic::{Backing, PoolSlot};
use slipring_core::seat::{Findings, Life, Peer, State};
use slipring_core::wait::{ALWAYS, Notifier, Waiter};
use slipring_core::{CachedLimit, End};

use crate::clock;
use crate::error::Error;
use crate::fork::{LimitPage, NoFork, Unforked};
use crate::kernel::Kernel;
use crate::lock;
use crate::setup_error::SetupError;
use crate::shm::{Files, Place, Region, pipes};

use pool::Pool;
use repair::give_back;
pub(crate) use repair::repair_dead;

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

/// The thing that keeps a seat held.
enum Hold {
    /// A mapping through the description that has the lock.
    Mapping(NonNull<std::ffi::c_void>),
    /// The description itself, on a file system that drops a lock while a mapping still needs it.
    Descriptor { _locked: Unforked },
    /// The `owner` word.
    Word,
}

// SAFETY: the mapping is an address to be unmapped once; the rest may be sent and shared anyway.
unsafe impl Send for Hold {}
// SAFETY: as above; nothing reads through the address.
unsafe impl Sync for Hold {}

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

/// The reason why a seat could not be taken just now.
enum Busy {
    Held,
    Repair,
    /// The name now leads elsewhere.
    Gone,
    Failed(SetupError),
}

impl From<Error> for Busy {
    fn from(error: Error) -> Busy {
        Busy::Failed(error.into())
    }
}

impl From<SetupError> for Busy {
    fn from(error: SetupError) -> Busy {
        Busy::Failed(error)
    }
}

impl Seat {
    /// Takes the first free seat of `role`. Waits up to `patience` for a repair in progress.
    /// Returns `None` if the name now leads to another channel.
    pub(crate) fn take(
        region: &Arc<Region>,
        role: Role,
        patience: Duration,
    ) -> Result<Option<Seat>, SetupError> {
        if role == Role::Producer && !region.writable {
            return Err(SetupError::Sealed);
        }
        // A copy of private memory, whose pipes are its parent's.
        if region
            .private
            .as_ref()
            .is_some_and(|private| private.inherited())
        {
            return Err(SetupError::Forked);
        }
        let cached_limit = LimitPage::new()?;
        let geometry = region.geometry();
        let kernels = Kernels::of(region, role);
        let until = Instant::now().checked_add(patience);
        loop {
            let seats = geometry.seats_of(role);
            let (mut number, last) = (seats.start, seats.end - 1);
            let mut repaired = false;
            let attempt = loop {
                let attempt = match &region.files {
                    None => Seat::take_word(region, number, &kernels.opposite),
                    Some(files) => Seat::take_lock(region, files, number, &kernels),
                };
                match attempt {
                    Err(Busy::Held | Busy::Repair) if number < last => number += 1,
                    // A seat passed before may come free.
                    Err(Busy::Held) if repaired => break Err(Busy::Repair),
                    attempt => break attempt,
                }
                repaired |= matches!(attempt, Err(Busy::Repair));
            };
            match attempt {
                Ok((generation, hold)) => {
                    return Ok(Some(Seat {
                        region: region.clone(),
                        role,
                        number,
                        generation,
                        cached_limit,
                        pool: Pool::new(region, role, number),
                        hold,
                        aborted: AtomicBool::new(true),
                        ephemeral: false,
                        kernels,
                        findings: Arc::default(),
                    }));
                }
                Err(Busy::Gone) => return Ok(None),
                Err(Busy::Failed(error)) => return Err(error),
                Err(Busy::Held) => {
                    let first = region.control().seat(geometry.seats_of(role).start);
                    return Err(SetupError::RoleTaken {
                        role: role.name(),
                        seats: geometry.seats_of(role).len() as u64,
                        pid: first.pid.load(Ordering::Relaxed),
                    });
                }
                Err(Busy::Repair) if until.is_some_and(|until| Instant::now() >= until) => {
                    return Err(SetupError::Recovering { role: role.name() });
                }
                // A repair takes microseconds, and no wake-up reports its end.
                Err(Busy::Repair) => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    fn take_word(region: &Region, number: usize, os: &Kernel) -> Result<(u64, Hold), Busy> {
        if !region.control().seat(number).own() {
            return Err(Busy::Held);
        }
        let generation = sit_down(region, number, clock::process(), os);
        if generation.is_err() {
            Hold::Word.release(region, number);
        }
        Ok((generation?, Hold::Word))
    }

    fn take_lock(
        region: &Region,
        files: &Files,
        number: usize,
        kernels: &Kernels,
    ) -> Result<(u64, Hold), Busy> {
        let us = clock::process();
        let stays = files.lock_outlives_descriptor()?;
        // Declared first, so that it is dropped after forks are free again: its drop waits for
        // forks.
        let hold;
        // Do as little as possible from here on: every fork of this process waits for us.
        let no_fork = NoFork::begin();
        let held = SEATS + number * LINE;
        // If the name leads elsewhere, there is no file: it was removed.
        let fresh = || {
            files.fresh().map_err(|error| match files.current() {
                true => Busy::Failed(error),
                false => Busy::Gone,
            })
        };
        let repairing = fresh()?;
        if !lock::try_lock(repairing.as_fd(), held + 1)? {
            return Err(Busy::Repair);
        }
        let holding = fresh()?;
        if !lock::try_lock(holding.as_fd(), held)? {
            // Not `RoleTaken` if it was removed meanwhile: then the name leads elsewhere.
            return Err(if files.current() {
                Busy::Held
            } else {
                Busy::Gone
            });
        }
        if !files.current() {
            return Err(Busy::Gone);
        }
        // Before any process can see that the seat is held: from then on the pipe's hang-up means a
        // death.
        kernels.open_early(region, number, &no_fork)?;
        hold = if stays {
            Hold::Mapping(map_page(&holding)?)
        } else {
            let locked = Unforked::open_within(&no_fork, || Ok::<_, SetupError>(holding))?;
            Hold::Descriptor { _locked: locked }
        };
        let generation = sit_down(region, number, us, &kernels.opposite);
        if generation.is_err() {
            hold.release(region, number);
        }
        // Closing `repairing` here ends the seat's repair.
        Ok((generation?, hold))
    }

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

    /// Returns what backs the slots of a topic with memory; `None` if all of it is there.
    pub(crate) fn backing(&self) -> Option<&'static dyn Backing> {
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

impl Hold {
    fn release(&self, region: &Region, number: usize) {
        match self {
            Hold::Mapping(mapping) => unmap_page(*mapping),
            Hold::Descriptor { .. } => {}
            Hold::Word => region.control().seat(number).disown(),
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

/// Repairs what the last holder left, and becomes the next generation.
///
/// A holder that was killed in its sleep left its bit. A holder that was killed awake left its
/// promise to fence. A `broadcast` consumer left its place in the gating set, and an `mpmc` end the slots that it had
/// claimed. Nothing else needs repair: what was not committed never was, and what was not released is read again.
fn sit_down(
    region: &Region,
    number: usize,
    us: (u64, u64, u64),
    os: &Kernel,
) -> Result<u64, SetupError> {
    let line = region.control().seat(number);
    let page = region.control().role(region.geometry(), number);
    give_back(region, number)?;
    waiter(region, number, os).repair();
    let promise = if os.fenced() { ALWAYS } else { 0 };
    page.counters.fence_ack.store(promise, Ordering::Relaxed);
    let (pid, start, namespace) = us;
    line.pid.store(pid, Ordering::Relaxed);
    line.start_time.store(start, Ordering::Relaxed);
    line.pid_namespace.store(namespace, Ordering::Relaxed);
    line.heartbeat.store(clock::since_boot(), Ordering::Relaxed);
    // Relaxed: the seat is ours, so its position is. The last holder's store came before its lock,
    // or its word, was free.
    Ok(line.take(page.position.0.load(Ordering::Relaxed))?)
}

impl Files {
    fn fresh(&self) -> Result<OwnedFd, SetupError> {
        match &self.place {
            Some(place) => place.fresh(),
            None => crate::shm::fresh_description(&self.control),
        }
    }

    /// Returns `true` if a lock stays for as long as a mapping made through its description does.
    ///
    /// Decided by the file system's name, not by trial: another thread's `posix_spawn` may hold a
    /// copy of the descriptor during a trial.
    fn lock_outlives_descriptor(&self) -> Result<bool, SetupError> {
        const TMPFS: u64 = 0x0102_1994; // memfds, too
        const EXT: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const BTRFS: u64 = 0x9123_683e;
        match rustix::fs::fstatfs(&self.control) {
            Ok(stat) => Ok([TMPFS, EXT, XFS, BTRFS].contains(&(stat.f_type as u64))),
            Err(errno) => Err(SetupError::os("look at the channel's file system", errno)),
        }
    }

    /// Returns `true` if the channel has no name, or its name still leads to these files.
    fn current(&self) -> bool {
        let ours = |place: &Place| place.still_has(&self.control);
        self.place.as_ref().is_none_or(ours)
    }
}

/// Maps one page of the control file through `file`. No forked child inherits it.
fn map_page(file: &OwnedFd) -> Result<NonNull<std::ffi::c_void>, SetupError> {
    let fail = |errno| SetupError::space("a page for the seat's lock", PAGE as u64, errno);
    let flags = MapFlags::SHARED | MapFlags::NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choice; it is never accessed.
    let page =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), PAGE, ProtFlags::READ, flags, file, 0) };
    let page = NonNull::new(page.map_err(fail)?).unwrap_or(NonNull::dangling());
    // SAFETY: advice on the page just mapped.
    match unsafe { rustix::mm::madvise(page.as_ptr(), PAGE, Advice::LinuxDontFork) } {
        Ok(()) => Ok(page),
        Err(errno) => {
            unmap_page(page);
            Err(fail(errno))
        }
    }
}

fn unmap_page(page: NonNull<std::ffi::c_void>) {
    // SAFETY: a page that `map_page` mapped, unmapped once, and never accessed.
    let _ = unsafe { rustix::mm::munmap(page.as_ptr(), PAGE) };
}

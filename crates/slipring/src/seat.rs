//! Seats: who holds a role, found out from the kernel, which frees a dead holder's locks.
//!
//! A seat has two bytes in the control file, at the offset of its seat line: *held* (+0) and *under
//! repair* (+1). They are locked, never written. To take a seat:
//!
//! 1. With forks held off, open a fresh description of the control file. (A passed descriptor
//!    shares its sender's description, and with it every lock.)
//! 2. Lock *repair*, then *held*. *Repair* locked by another: wait for it, then `Recovering`.
//!    *Held* locked: `RoleTaken`.
//! 3. See that the name still leads to this file; else somebody removed the channel, or put another file in
//!    its place: start again.
//! 4. Open the other seat's pipe, to be held open for as long as this seat: its hang-up is how the other
//!    side's event loop learns of our death. Not earlier: who only wants a seat would hide its holder's.
//!    (The producer of a named `broadcast` channel opens those of its consumers when it first rings there.)
//! 5. Map one page through the description and close it: the mapping keeps the lock, no number in
//!    the descriptor table is left for others to inherit or to close. On file systems that may not
//!    keep the lock then (overlayfs does not), keep the descriptor instead (a forked child closes it).
//! 6. Repair what the last holder left, become the next generation, unlock *repair*.
//!
//! Where no file is (heap, borrowed memory), a word in the seat line refuses a second taker, and
//! nothing ever tells that its holder died.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use slipring_core::broadcast;
use slipring_core::layout::{Bell, Geometry, Kind, LINE, PAGE, RolePage, SEATS, SeatLine};
use slipring_core::seat::{Peer, State};
use slipring_core::wait::{ALWAYS, Os, Ringer, Sleeper};
use slipring_core::{End, Lease};

use crate::channel::Difference;
use crate::clock;
use crate::error::Error;
use crate::fork::{LeasePage, NoFork, Unforked};
use crate::lock;
use crate::region::{Files, Place, Region, pipes};
use crate::waiting::{Ask, Driver, Kernel, Parker, Spin, Waiting};

/// One of the two ends of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that writes.
    Producer,
    /// The end that reads.
    Consumer,
}

impl Role {
    /// The role's name, as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
        }
    }

    /// The numbers of its seats: producers come first.
    pub(crate) fn seats(self, geometry: &Geometry) -> Range<usize> {
        let producers = geometry.producers as usize;
        match self {
            Role::Producer => 0..producers,
            Role::Consumer => producers..geometry.seats(),
        }
    }

    /// The role of a seat. (No kind has more than one producer.)
    pub(crate) fn of_seat(seat: usize) -> Role {
        match seat {
            0 => Role::Producer,
            _ => Role::Consumer,
        }
    }

    pub(crate) fn other(self) -> Role {
        match self {
            Role::Producer => Role::Consumer,
            Role::Consumer => Role::Producer,
        }
    }
}

/// A held seat. Dropping it leaves: finished, or aborted while panicking or before the handle that
/// it was taken for was made (`settle`).
pub(crate) struct Seat {
    pub(crate) region: Arc<Region>,
    pub(crate) role: Role,
    /// Its number, producers first.
    pub(crate) number: usize,
    generation: u64,
    lease: LeasePage,
    hold: Hold,
    aborted: bool,
    /// What the handle's builder asked for.
    pub(crate) asked: Geometry,
    /// Whether the channel is removed when this was the last handle, and nothing is unread.
    pub(crate) ephemeral: bool,
    /// How the handle's calls wait.
    pub(crate) waiting: Waiting,
    /// How long they poll before they sleep.
    pub(crate) spin: Spin,
    /// How often the handle had woken the other side when it last began to wait.
    woken: u64,
    /// By which the handle's futures are woken.
    pub(crate) driver: Driver,
    /// How many polls of its futures in a row were ready.
    pub(crate) ready_polls: u32,
    /// By which the handle waits.
    pub(crate) parker: Arc<Parker>,
}

/// What keeps a seat held.
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

/// Why a seat could not be taken just now.
enum Busy {
    Held,
    Repair,
    /// The name leads elsewhere by now.
    Gone,
    Failed(Error),
}

impl From<Error> for Busy {
    fn from(error: Error) -> Busy {
        Busy::Failed(error)
    }
}

impl Seat {
    /// Takes a free seat of `role`, the first there is, waiting up to `patience` for a repair that is under way.
    /// Nothing if the name leads to another channel by now.
    pub(crate) fn take(
        region: &Arc<Region>,
        role: Role,
        patience: Duration,
        waiting: Waiting,
    ) -> Result<Option<Seat>, Error> {
        if role == Role::Producer && !region.writable {
            return Err(Error::Sealed);
        }
        // A copy of private memory, whose pipes are its parent's.
        if region
            .private
            .as_ref()
            .is_some_and(|private| private.inherited())
        {
            return Err(Error::Forked);
        }
        let lease = LeasePage::new()?;
        let geometry = region.geometry();
        let os = Arc::new(Kernel::of(region, role.other().seats(geometry)));
        let until = Instant::now().checked_add(patience);
        loop {
            let seats = role.seats(geometry);
            let (mut number, last) = (seats.start, seats.end - 1);
            let mut repaired = false;
            let attempt = loop {
                let attempt = match &region.files {
                    None => Seat::take_word(region, number, &os),
                    Some(files) => Seat::take_lock(region, files, number, &os),
                };
                match attempt {
                    Err(Busy::Held | Busy::Repair) if number < last => number += 1,
                    // One of those before may come free.
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
                        lease,
                        hold,
                        aborted: true,
                        asked: *geometry,
                        ephemeral: false,
                        waiting,
                        spin: Spin::new(Duration::ZERO),
                        woken: 0,
                        driver: Driver::default(),
                        ready_polls: 0,
                        parker: Arc::new(Parker::new(
                            region.clone(),
                            number,
                            sleeper(region, number, on_loan(&os)),
                            os,
                            waiting.check_every,
                        )),
                    }));
                }
                Err(Busy::Gone) => return Ok(None),
                Err(Busy::Failed(error)) => return Err(error),
                Err(Busy::Held) if geometry.kind == Kind::Broadcast && role == Role::Consumer => {
                    let max = geometry.consumers;
                    return Err(Error::TooManyReaders { max });
                }
                Err(Busy::Held) => {
                    let pid = region.control().seat(number).pid.load(Ordering::Relaxed);
                    return Err(Error::RoleTaken {
                        role: role.name(),
                        pid,
                    });
                }
                Err(Busy::Repair) if until.is_some_and(|until| Instant::now() >= until) => {
                    return Err(Error::Recovering { role: role.name() });
                }
                // A repair takes microseconds, and no wake-up tells of its end.
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
        os: &Kernel,
    ) -> Result<(u64, Hold), Busy> {
        let us = clock::process();
        let stays = files.lock_outlives_descriptor()?;
        // Dropped, if it comes to that, after forks are free again: for which that waits.
        let hold;
        // From here on as little as can be: every fork of this process waits for us.
        let no_fork = NoFork::begin();
        let held = SEATS + number * LINE;
        // No file where the name leads elsewhere: it was removed.
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
        // Before anybody can see that the seat is held: from then on the pipe's hang-up means a death.
        let early = opposite(region, number).filter(|_| os.opens_early());
        for (place, other) in early.enumerate() {
            let pipe = Unforked::open_within(&no_fork, || region.pipe(other, pipes::WRITE))?;
            os.hold_open(place, pipe);
        }
        hold = if stays {
            Hold::Mapping(map_page(&holding)?)
        } else {
            let locked = Unforked::open_within(&no_fork, || Ok::<_, Error>(holding))?;
            Hold::Descriptor { _locked: locked }
        };
        let generation = sit_down(region, number, us, os);
        if generation.is_err() {
            hold.release(region, number);
        }
        // `repairing` is closed here, and with it the seat's repair is over.
        Ok((generation?, hold))
    }

    /// The line of this seat.
    pub(crate) fn line(&self) -> &'static SeatLine {
        self.region.control().seat(self.number)
    }

    /// The role page of this seat.
    pub(crate) fn page(&self) -> &'static RolePage {
        self.region
            .control()
            .role(self.region.geometry(), self.number)
    }

    /// The number of the seat at the other end, where that has one; else of its first.
    fn peer_number(&self) -> usize {
        opposite(&self.region, self.number).start
    }

    /// The role page of the seat at the other end.
    pub(crate) fn peer_page(&self) -> &'static RolePage {
        self.region
            .control()
            .role(self.region.geometry(), self.peer_number())
    }

    /// The line of the seat at the other end.
    pub(crate) fn peer_line(&self) -> &'static SeatLine {
        self.region.control().seat(self.peer_number())
    }

    /// What this seat's handle starts out knowing of the other end.
    pub(crate) fn peer(&self) -> Result<Peer<'static>, Error> {
        let findings = &on_loan(&self.parker).findings;
        let peer = match self.role {
            Role::Consumer => Peer::producer(self.peer_line(), self.line()),
            Role::Producer => {
                let alive = || self.peer_held().unwrap_or(true);
                Peer::consumer(self.peer_line(), alive)?
            }
        };
        self.parker.set_history(peer.known());
        Ok(peer.sharing(findings))
    }

    /// What a set needs to wait for `room` units of the ring, or for a message if that is nothing.
    pub(crate) fn ask(&self, room: Option<u64>) -> Result<Ask, Error> {
        if !self.ours() {
            return Err(Error::Forked);
        }
        Ok(Ask {
            parker: self.parker.clone(),
            room,
            check_every: self.waiting.check_every,
        })
    }

    /// Whether the other seat is held, for all that can be known.
    pub(crate) fn peer_held(&self) -> Result<bool, Error> {
        Ok(self.region.held(self.peer_number())?.unwrap_or(true))
    }

    /// Its bit, among the seats of its side.
    pub(crate) fn bit(&self) -> u64 {
        bit(&self.region, self.number)
    }

    /// Whether anybody sits opposite, for all that can be known.
    pub(crate) fn anybody_opposite(&self) -> Result<bool, Error> {
        for seat in opposite(&self.region, self.number) {
            let life = self.region.control().seat(seat).life()?;
            if life.state == State::Held && self.region.held(seat)?.unwrap_or(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The handle is made: from now on leaving means that this end finished. Wakes a peer that waits
    /// for somebody to come.
    pub(crate) fn settle(&mut self) {
        self.aborted = false;
        if self.region.opens_late(self.role) {
            // Who polls, and was asked for by a predecessor that did not live to ring, is hung up or is looked after
            // (`again.rs`). So nobody's pipe is opened unasked.
            self.ringer().wake();
            self.parker.os.wake(&self.bell_opposite().doorbell);
        } else {
            self.ringer().arrive();
        }
    }

    /// The bell by which the other side is woken.
    fn bell_opposite(&self) -> &'static Bell {
        self.region.control().bell(self.role == Role::Producer)
    }

    /// How the handle wakes the other end.
    pub(crate) fn ringer(&self) -> Ringer<'static> {
        let os = on_loan(&self.parker.os);
        let bell = self.bell_opposite();
        let sleepers = self.region.side(self.role.other());
        Ringer::new(bell, sleepers, &self.page().counters, os.fenced(), os)
    }

    /// # Safety
    /// Called once, and what it returns is not used after the seat is dropped.
    pub(crate) unsafe fn lease(&self) -> &'static mut Lease {
        // SAFETY: the caller's promise.
        unsafe { self.lease.lease() }
    }

    /// Whether this is the process that took the seat, not a forked child of it.
    pub(crate) fn ours(&self) -> bool {
        self.lease.alive()
    }

    /// Asks whether the channel's name still leads to it: see `Place::check`.
    pub(crate) fn check_name(&self) -> Result<(), Error> {
        if !self.ours() {
            return Err(Error::Forked);
        }
        self.region.check_name()
    }

    /// In which sizes the channel differs from what was asked for.
    pub(crate) fn differences(&self) -> Vec<Difference> {
        Difference::between(self.region.geometry(), &self.asked)
    }

    /// Gives a sign of life, for people.
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

    /// Returns `true` if this handle woke the other side since the last call.
    pub(crate) fn woke_peer(&mut self) -> bool {
        let woken = self.page().counters.wakes.load(Ordering::Relaxed);
        std::mem::replace(&mut self.woken, woken) != woken
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

    /// From now on the handle's futures are driven by the tokio runtime that is current.
    #[cfg(feature = "tokio")]
    pub(crate) fn on_tokio(&mut self) -> Result<(), Error> {
        if !self.ours() {
            return Err(Error::Forked);
        }
        self.driver.on_tokio(&self.parker)
    }

    /// From now on, leaving means that this end did not finish.
    pub(crate) fn abort(&mut self) {
        self.aborted = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.ours() {
            return;
        }
        // First: no set asks to be woken by words that are not ours any more.
        self.parker.leave();
        let end = if self.aborted || std::thread::panicking() {
            End::Aborted
        } else {
            End::Finished
        };
        leave_members(&self.region, self.number);
        // How long ago the channel was used is counted from here.
        self.beat();
        self.line().leave(self.generation, end);
        // Before the lock goes: a successor has the same words. (What a sleeper told publishers is over.)
        self.parker.sleeper.repair();
        self.ringer().wake();
        // Whole, also where a descriptor has the lock: whoever removes the channel takes all of them.
        let hold = std::mem::replace(&mut self.hold, Hold::Word);
        hold.release(&self.region, self.number);
        drop(hold);
        if self.ephemeral && end == End::Finished {
            self.region.remove_spent();
        }
    }
}

/// Returns `true` if nothing is unread: all that was committed was released, and a consumer was told of the last
/// producer's end. (In `broadcast` nothing is kept for anybody who is not there.) Nobody holds a seat meanwhile.
pub(crate) fn spent(region: &Region) -> bool {
    let (control, geometry) = (region.control(), region.geometry());
    if geometry.kind == Kind::Broadcast {
        return true;
    }
    let [tail, head] = [0, 1].map(|seat| &control.role(geometry, seat).position.0);
    let (producer, consumer) = (control.seat(0), control.seat(1));
    // Relaxed, both: the locks of both seats are ours, and order all that their holders stored.
    let released = tail.load(Ordering::Relaxed) == head.load(Ordering::Relaxed);
    let told = consumer.acknowledged.load(Ordering::Relaxed);
    released && producer.life().is_ok_and(|life| life.generation <= told)
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

/// The numbers of the seats opposite.
fn opposite(region: &Region, number: usize) -> Range<usize> {
    Role::of_seat(number).other().seats(region.geometry())
}

/// The bit of a seat, among those of its side.
fn bit(region: &Region, number: usize) -> u64 {
    let side = Role::of_seat(number).seats(region.geometry());
    1 << (number - side.start)
}

/// From now on no producer waits for who sits here, or sat.
fn leave_members(region: &Region, number: usize) {
    if region.geometry().kind == Kind::Broadcast && Role::of_seat(number) == Role::Consumer {
        broadcast::leave(region.control().members(), bit(region, number));
    }
}

/// Has nobody wait any more for the consumers that died: takes the seat of each, as its next holder
/// would, and clears its place. One whose lock is held, or just being taken, lives. `number` is the
/// producer's seat.
pub(crate) fn repair_members(region: &Region, number: usize) -> Result<(), Error> {
    let Some(files) = &region.files else {
        return Ok(());
    };
    let control = region.control();
    for other in opposite(region, number) {
        let bit = bit(region, other);
        // Relaxed: the locks order what is done on its strength.
        let member = || control.members().load(Ordering::Relaxed) & bit != 0;
        if !member() || region.held(other)? != Some(false) {
            continue;
        }
        // A child forked in between would hold the locks.
        let _no_fork = NoFork::begin();
        let held = SEATS + other * LINE;
        let (repairing, holding) = (files.fresh()?, files.fresh()?);
        // In the order of takers. The bit once more: another may have come and joined.
        if lock::try_lock(repairing.as_fd(), held + 1)?
            && lock::try_lock(holding.as_fd(), held)?
            && member()
        {
            leave_members(region, other);
            // Who is dead need not be told that somebody sleeps without a barrier. (Its successor begins anew.)
            let dead = control.role(region.geometry(), other);
            dead.counters.fence_ack.store(ALWAYS, Ordering::Relaxed);
            let recovered = &control.role(region.geometry(), number).counters.recovered;
            // One writer: a load and a store, no read-modify-write.
            let count = recovered.load(Ordering::Relaxed).wrapping_add(1);
            recovered.store(count, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// By which the holder of a seat is woken.
fn sleeper<'m>(region: &Region, number: usize, os: &'m Kernel) -> Sleeper<'m> {
    let (control, role) = (region.control(), Role::of_seat(number));
    let side = role.seats(region.geometry());
    Sleeper::new(
        control.bell(role == Role::Consumer),
        number - side.start,
        &control.role(region.geometry(), number).counters,
        region.side(role.other()),
        side.len() == 1,
        os,
    )
}

/// The lifetime is a loan, as that of the control part: a handle's words are dropped before its seat. `owned` is the
/// seat's parker, or a part of that.
fn on_loan<T>(owned: &Arc<T>) -> &'static T {
    // SAFETY: what the `Arc` points to stays where it is, and lives until the seat and the sets that
    // it is in have dropped its parker; what borrows it (the parker's sleeper, and the core handle
    // beside the seat) is not used after.
    unsafe { &*Arc::as_ptr(owned) }
}

/// Repairs what the last holder left, and becomes the next generation.
///
/// A holder that was killed in its sleep left its bit, one that was killed awake the promise to fence, and a
/// consumer of `broadcast` its place among those that are waited for. Nothing else needs mending: what was
/// not committed never was, and what was not released is read again.
fn sit_down(
    region: &Region,
    number: usize,
    us: (u64, u64, u64),
    os: &Kernel,
) -> Result<u64, Error> {
    let line = region.control().seat(number);
    let page = region.control().role(region.geometry(), number);
    leave_members(region, number);
    sleeper(region, number, os).repair();
    let promise = if os.fenced() { ALWAYS } else { 0 };
    page.counters.fence_ack.store(promise, Ordering::Relaxed);
    let (pid, start, namespace) = us;
    line.pid.store(pid, Ordering::Relaxed);
    line.start_time.store(start, Ordering::Relaxed);
    line.pid_namespace.store(namespace, Ordering::Relaxed);
    line.heartbeat.store(clock::since_boot(), Ordering::Relaxed);
    // Relaxed: the seat is ours, so its position is, and the last holder's store came before its lock, or
    // its word, was free.
    Ok(line.take(page.position.0.load(Ordering::Relaxed))?)
}

impl Files {
    fn fresh(&self) -> Result<OwnedFd, Error> {
        match &self.place {
            Some(place) => place.fresh(),
            None => crate::region::fresh_description(&self.control),
        }
    }

    /// Whether a lock stays for as long as a mapping made through its description does.
    ///
    /// By name, not by trial: what a trial sees may be a copy of the descriptor that another thread's
    /// `posix_spawn` is just about to close.
    fn lock_outlives_descriptor(&self) -> Result<bool, Error> {
        const TMPFS: u64 = 0x0102_1994; // memfds, too
        const EXT: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const BTRFS: u64 = 0x9123_683e;
        match rustix::fs::fstatfs(&self.control) {
            Ok(stat) => Ok([TMPFS, EXT, XFS, BTRFS].contains(&(stat.f_type as u64))),
            Err(errno) => Err(Error::os("look at the channel's file system", errno)),
        }
    }

    /// Whether the channel's name (if it has one) still leads to these files.
    fn current(&self) -> bool {
        let ours = |place: &Place| place.still_has(&self.control);
        self.place.as_ref().is_none_or(ours)
    }
}

/// One page of the control file, through `file`, that no forked child inherits.
fn map_page(file: &OwnedFd) -> Result<NonNull<std::ffi::c_void>, Error> {
    let fail = |errno| Error::space("a page for the seat's lock", PAGE as u64, errno);
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

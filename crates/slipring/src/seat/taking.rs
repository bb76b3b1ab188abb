//! Takes a seat: the steps at the head of `mod.rs`.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use slipring_core::layout::{LINE, PAGE, Role, SEATS};
use slipring_core::wait::ALWAYS;

use super::pool::Pool;
use super::repair::give_back;
use super::rings;
use super::{Kernels, Seat, waiter};
use crate::clock;
use crate::error::Error;
use crate::fork::{LimitPage, NoFork, Unforked};
use crate::kernel::Kernel;
use crate::lock;
use crate::setup_error::SetupError;
use crate::shm::{Files, Place, Region};

/// The thing that keeps a seat held.
pub(super) enum Hold {
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

impl Hold {
    pub(super) fn release(&self, region: &Region, number: usize) {
        match self {
            Hold::Mapping(mapping) => unmap_page(*mapping),
            Hold::Descriptor { .. } => {}
            Hold::Word => region.control().seat(number).disown(),
        }
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
                        rings: rings::of(region),
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
    Ok(line.take(page.position.load(Ordering::Relaxed))?)
}

impl Files {
    pub(super) fn fresh(&self) -> Result<OwnedFd, SetupError> {
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

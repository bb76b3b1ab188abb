//! The pool of a topic's publisher: its notes, and the memory behind its slots.

use std::cell::UnsafeCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use slipring_core::backing::Backing;
use slipring_core::layout::{Geometry, LINE, Role, SEATS};
use slipring_core::proto::topic::{self, PoolBacking, PoolSlot, Topic};

use super::on_loan;
use crate::error::Error;
use crate::fork::{NoFork, Unforked};
use crate::lock;
use crate::setup_error::SetupError;
use crate::shm::{Files, Region};

/// The pool of a seat.
pub(super) struct Pool {
    /// The notes of its publisher about the slots; none for another seat.
    notes: UnsafeCell<Box<[PoolSlot]>>,
    /// `None` if all memory is there.
    memory: Option<Arc<Memory>>,
}

// SAFETY: whoever has the notes has them alone (`notes`); the rest may be shared anyway.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes the pool of the seat that has this number.
    pub(super) fn new(region: &Arc<Region>, role: Role, number: usize) -> Pool {
        let publishes = role == Role::Producer && region.geometry().kind.spec().has_pool;
        let notes = match publishes {
            true => notes(region.geometry()),
            false => Box::default(),
        };
        let memory = (publishes && region.is_sparse()).then(|| {
            let region = region.clone();
            Arc::new(Memory { region, number })
        });
        let notes = UnsafeCell::new(notes);
        Pool { notes, memory }
    }

    /// Returns what backs the slots with memory; `None` if all of it is there.
    pub(super) fn backing(&self) -> Option<&'static dyn PoolBacking> {
        self.memory
            .as_ref()
            .map(|memory| on_loan(memory) as &dyn PoolBacking)
    }

    /// Returns the notes of the publisher.
    ///
    /// # Safety
    /// Call this once, and do not use the result after the pool is dropped or vacated.
    pub(super) unsafe fn notes(&self) -> &'static mut [PoolSlot] {
        // SAFETY: the caller's promise: there is no other reference, and the pool, which owns them, is there.
        unsafe { &mut *self.notes.get() }
    }

    /// Gives back the memory that no message needs: its publisher leaves.
    pub(super) fn vacate(&mut self) {
        if let Some(memory) = &self.memory {
            vacate(
                &memory.region,
                memory.number,
                self.notes.get_mut(),
                &**memory,
            );
        }
    }
}

/// Returns fresh notes about the slots of a pool.
fn notes(geometry: &Geometry) -> Box<[PoolSlot]> {
    // Checked: at most 65,535 notes of 32 bytes.
    vec![PoolSlot::default(); geometry.pool as usize].into()
}

/// The memory behind the slots of a topic, as the publisher in seat `number` sees it.
struct Memory {
    region: Arc<Region>,
    number: usize,
}

impl Backing for Memory {
    fn back(&self, at: u64, len: u64) -> Result<(), Error> {
        self.region.back_slot(at, len)
    }

    fn give_back(&self, at: u64, len: u64) {
        self.region.give_back(at, len);
    }
}

impl PoolBacking for Memory {
    fn give_back_vacant(&self) {
        // On the heap no lock keeps a taker off.
        let Some(files) = &self.region.files else {
            return;
        };
        let geometry = self.region.geometry();
        let mut notes = notes(geometry);
        for other in geometry.seats_of(Role::Producer) {
            if other == self.number || !matches!(self.region.held(other), Ok(Some(false))) {
                continue;
            }
            // A seat that is being taken is left alone, and so is one whose locks this process cannot take.
            if let Ok(Some(_locks)) = lock_vacant(files, other) {
                vacate(&self.region, other, &mut notes, self);
            }
        }
    }
}

/// Takes both locks of a seat that nobody holds; `None` if somebody does, or is about to.
///
/// A forked child has no copy of them. The caller may hold them for longer than forks may wait.
fn lock_vacant(files: &Files, number: usize) -> Result<Option<[Unforked; 2]>, SetupError> {
    let held = SEATS + number * LINE;
    // Declared first, so that they are dropped after forks are free again.
    let locks;
    let no_fork = NoFork::begin();
    let unforked = |file: OwnedFd| Unforked::open_within(&no_fork, || Ok::<_, SetupError>(file));
    let (repairing, holding) = (files.fresh()?, files.fresh()?);
    // In the order of takers.
    let ours =
        lock::try_lock(repairing.as_fd(), held + 1)? && lock::try_lock(holding.as_fd(), held)?;
    locks = match ours {
        true => Some([unforked(repairing)?, unforked(holding)?]),
        false => None,
    };
    Ok(locks)
}

/// Gives back the memory of a publisher's pool that no message needs. The caller is that publisher, which is leaving, or holds
/// the locks of its seat.
fn vacate(region: &Region, number: usize, notes: &mut [PoolSlot], backing: &dyn Backing) {
    let (control, geometry) = (region.control(), region.geometry());
    let Some(topic) = control.entries(geometry).and_then(Topic::new) else {
        return;
    };
    let (gating_set, consumers) = (control.gating_set(), region.side(Role::Consumer));
    let seat = number as u64;
    // SAFETY: the caller's promise.
    unsafe {
        topic::vacate(
            &topic, geometry, seat, notes, gating_set, consumers, backing,
        )
    };
}

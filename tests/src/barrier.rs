//! Counters in files that processes map, and a barrier at which they wait for one another. It uses
//! none of slipring's own code, because that is under test.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::room::PATIENCE;

/// Returns the counter in the first word of a file: zero in a new one.
pub fn counter(path: &Path) -> &'static AtomicU64 {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false);
    let file = file.open(path).unwrap();
    file.set_len(4096).unwrap();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let (nowhere, shared) = (std::ptr::null_mut(), MapFlags::SHARED);
    // SAFETY: a fresh mapping at an address of the kernel's choice, never unmapped.
    let page = unsafe { mmap(nowhere, 4096, access, shared, &file, 0) };
    let word = page.unwrap().cast::<AtomicU64>();
    // SAFETY: page-aligned, mapped for ever, and everybody uses it as this atomic.
    unsafe { &*word }
}

/// One worker's view of the barrier.
pub struct Barrier {
    arrived: &'static AtomicU64,
    parties: u64,
    rounds: u64,
}

impl Barrier {
    /// Makes the file of a barrier.
    pub fn create(path: &Path) {
        File::create(path).unwrap().set_len(4096).unwrap();
    }

    /// Joins the barrier of this many workers.
    pub fn join(path: &Path, parties: u64) -> Barrier {
        Barrier {
            arrived: counter(path),
            parties,
            rounds: 0,
        }
    }

    /// Waits until all workers are here.
    pub fn wait(&mut self) {
        self.rounds += 1;
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let start = Instant::now();
        while self.arrived.load(Ordering::Acquire) < self.rounds * self.parties {
            assert!(
                start.elapsed() < PATIENCE,
                "somebody never came to the barrier"
            );
            std::thread::yield_now();
        }
    }
}

//! What the processes of a scene tell its referee: words in a memory of their own, which none of slipring's
//! is. Each is written by one process at a time, and read by the referee; they outlive whoever is killed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::time::{ClockId, clock_gettime};

/// How many processes a scene has at most.
pub(crate) const MOST: usize = 64;

/// All words of a scene.
#[repr(C, align(128))]
pub(crate) struct Words {
    /// How many messages consumers have taken.
    pub(crate) messages: AtomicU64,
    /// How often a process sat down.
    pub(crate) seatings: AtomicU64,
    /// The seat that held the producer back when somebody looked last, and its holder's process id.
    pub(crate) slowest: AtomicU64,
    pub(crate) slowest_pid: AtomicU64,
    seats: [SeatWords; MOST],
    parties: [PartyWords; MOST],
}

/// Of one seat; written by its holder.
#[repr(C, align(128))]
pub(crate) struct SeatWords {
    /// The number after the last message accepted, or processed.
    pub(crate) done: AtomicU64,
    /// How many messages came again, since their reader was killed with them in hand.
    pub(crate) again: AtomicU64,
    /// When the last holder sat down.
    pub(crate) seated_at: AtomicU64,
}

/// Of one process; set to zero when it is replaced.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct PartyWords {
    /// How often its seat was refused to it.
    pub(crate) tries: AtomicU64,
    /// 1 as soon as it sits, and where.
    pub(crate) seated: AtomicU64,
    pub(crate) seat: AtomicU64,
    /// How many messages it lost, which were overwritten.
    pub(crate) lost: AtomicU64,
    /// How often it was told that somebody opposite died, and when it was last.
    pub(crate) told: AtomicU64,
    pub(crate) told_at: AtomicU64,
    /// How many had sat down when a call of its last returned after another one did, and when that was.
    pub(crate) noticed: AtomicU64,
    pub(crate) noticed_at: AtomicU64,
}

impl Words {
    /// Fresh ones, and the memory that they are in.
    pub(crate) fn create() -> (&'static Words, OwnedFd) {
        let memory = rustix::fs::memfd_create("storm", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, size_of::<Words>() as u64).unwrap();
        (Words::map(memory.as_fd()), memory)
    }

    /// Those in this memory, for as long as the process lives.
    pub(crate) fn map(memory: BorrowedFd<'_>) -> &'static Words {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let (nowhere, len) = (std::ptr::null_mut(), size_of::<Words>());
        // SAFETY: a fresh mapping at an address of the kernel's choice, never unmapped.
        let words = unsafe { mmap(nowhere, len, access, MapFlags::SHARED, memory, 0) };
        // SAFETY: page-aligned, mapped for ever, made of atomics for which zero is a value.
        unsafe { &*words.unwrap().cast() }
    }

    pub(crate) fn seat(&self, number: usize) -> &SeatWords {
        &self.seats[number]
    }

    pub(crate) fn party(&self, index: usize) -> &PartyWords {
        &self.parties[index]
    }
}

impl PartyWords {
    /// For the next process.
    pub(crate) fn clear(&self) {
        let words = [
            &self.tries,
            &self.seated,
            &self.seat,
            &self.lost,
            &self.told,
            &self.told_at,
            &self.noticed,
            &self.noticed_at,
        ];
        words.iter().for_each(|word| put(word, 0));
    }

    pub(crate) fn is_seated(&self) -> bool {
        get(&self.seated) == 1
    }

    /// Where it sits.
    pub(crate) fn seat(&self) -> Option<usize> {
        self.is_seated().then(|| get(&self.seat) as usize)
    }
}

pub(crate) fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

pub(crate) fn put(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Release);
}

/// Adds to a word; what it is then.
pub(crate) fn add(word: &AtomicU64, more: u64) -> u64 {
    word.fetch_add(more, Ordering::AcqRel) + more
}

/// The clock of all processes, in nanoseconds.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

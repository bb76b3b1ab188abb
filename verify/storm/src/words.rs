//! The words by which a scenario's workers report to its referee, in a memory of their own that
//! slipring does not use. One worker at a time writes each word, and the referee reads it. The
//! words outlive killed workers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::time::{ClockId, clock_gettime};

use crate::ledger::Ledger;
use crate::topic::Lines;

/// The most processes of a scenario.
pub(crate) const MOST: usize = 64;

/// All words of a scenario.
#[repr(C, align(128))]
pub(crate) struct Words {
    /// The number of messages that consumers have taken.
    pub(crate) messages: AtomicU64,
    /// The number of times that a process took a seat.
    pub(crate) seatings: AtomicU64,
    /// The seat that held the producer back at the last look, and its holder's process id.
    pub(crate) slowest: AtomicU64,
    pub(crate) slowest_pid: AtomicU64,
    /// The number of resizes of a ring that grows, once all is done.
    pub(crate) resizes: AtomicU64,
    seats: [SeatWords; MOST],
    parties: [PartyWords; MOST],
    /// The messages of a topic's publishers.
    pub(crate) lines: Lines,
    /// The account of a queue's messages.
    pub(crate) ledger: Ledger,
}

/// The words of one seat; its holder writes them.
#[repr(C, align(128))]
pub(crate) struct SeatWords {
    /// The number after the last message accepted, or processed.
    pub(crate) done: AtomicU64,
    /// The number of messages that came again, since their reader was killed with them in hand.
    pub(crate) again: AtomicU64,
    /// The time at which the last holder took the seat.
    pub(crate) seated_at: AtomicU64,
}

/// The words of one worker; set to zero when it is replaced.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct PartyWords {
    /// The number of times that its seat was refused to it.
    pub(crate) tries: AtomicU64,
    /// 1 as soon as it has a seat, and the seat's number.
    pub(crate) seated: AtomicU64,
    pub(crate) seat: AtomicU64,
    /// The number of messages that it lost because they were overwritten.
    pub(crate) lost: AtomicU64,
    /// The number of times that it learned of a death opposite, and the time of the last.
    pub(crate) told: AtomicU64,
    pub(crate) told_at: AtomicU64,
    /// The number of seatings when its calls last found a new one, and the time of that.
    pub(crate) noticed: AtomicU64,
    pub(crate) noticed_at: AtomicU64,
}

impl Words {
    /// Makes fresh words, and returns them with their memory.
    pub(crate) fn create() -> (&'static Words, OwnedFd) {
        let memory = rustix::fs::memfd_create("storm", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, size_of::<Words>() as u64).unwrap();
        (Words::map(memory.as_fd()), memory)
    }

    /// Maps the words in this memory, for as long as the process lives.
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

    pub(crate) fn worker(&self, index: usize) -> &PartyWords {
        &self.parties[index]
    }
}

impl PartyWords {
    /// Resets the words for the next process.
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

    /// Returns its seat.
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

/// Adds to a word, and returns its new value.
pub(crate) fn add(word: &AtomicU64, more: u64) -> u64 {
    word.fetch_add(more, Ordering::AcqRel) + more
}

/// Returns the time of the clock that all processes share, in nanoseconds.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

//! The account of a work queue's messages, in a file that workers and referee share.

use std::fs::OpenOptions;
use std::ops::Range;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};
use slipring::mpmc;

/// A producer is about to push the message.
pub const PUSHING: u64 = 1;
/// The push returned.
pub const PUSHED: u64 = 2;

/// The words before those of the messages: the next number, the capacity, and whether consumers stop at the end.
const HEAD: usize = 3;

/// The account: for each message what its producer did, and how often it was taken.
pub struct Ledger {
    words: &'static [AtomicU64],
}

impl Ledger {
    /// Makes a ledger for `messages` messages of a queue of `capacity` slots.
    pub fn create(path: &Path, messages: usize, capacity: usize) -> Ledger {
        let file = std::fs::File::create(path).unwrap();
        file.set_len(((HEAD + 2 * messages) * 8) as u64).unwrap();
        let ledger = Ledger::open(path.to_str().unwrap());
        set(&ledger.words[1], capacity as u64);
        ledger
    }

    /// Maps an existing ledger, for the rest of the process's life.
    pub fn open(path: &str) -> Ledger {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let len = file.metadata().unwrap().len() as usize;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, &file, 0) };
        let base = base.unwrap().cast::<AtomicU64>();
        // SAFETY: mapped for `len` bytes for good, zero at first, and accessed only as atomics.
        let words = unsafe { std::slice::from_raw_parts(base, len / 8) };
        Ledger { words }
    }

    /// Returns the builder of the queue.
    pub fn builder(&self) -> mpmc::Builder<u64> {
        mpmc::Builder::new(get(&self.words[1]) as usize)
    }

    /// Returns the number of messages that it has room for.
    pub fn messages(&self) -> usize {
        (self.words.len() - HEAD) / 2
    }

    /// Draws up to `most` numbers that no producer has had; `None` when there are no more.
    pub fn draw(&self, most: u64) -> Option<Range<u64>> {
        let all = self.messages() as u64;
        let first = self.words[0].fetch_add(most, Ordering::Relaxed);
        (first < all).then(|| first..all.min(first + most))
    }

    /// Returns how many numbers were drawn.
    pub fn drawn(&self) -> u64 {
        get(&self.words[0]).min(self.messages() as u64)
    }

    /// Notes how far the push of a message is.
    pub fn pushed(&self, number: u64, state: u64) {
        set(&self.words[HEAD + 2 * number as usize], state);
    }

    /// Notes that a message was taken, and returns how often it had been taken before.
    pub fn take(&self, number: u64) -> u64 {
        self.words[HEAD + 2 * number as usize + 1].fetch_add(1, Ordering::Relaxed)
    }

    /// Returns how far the push of a message came, and how often it was taken.
    pub fn account(&self, number: u64) -> (u64, u64) {
        let at = HEAD + 2 * number as usize;
        (get(&self.words[at]), get(&self.words[at + 1]))
    }

    /// Returns the word that tells consumers to leave at the end; else they wait for further producers.
    pub fn stop(&self) -> &AtomicU64 {
        &self.words[2]
    }
}

/// Loads a word of the ledger.
pub fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::SeqCst)
}

/// Stores a word of the ledger.
pub fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::SeqCst);
}

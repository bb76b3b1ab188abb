//! Observes a seat from outside, through the kernel and the seat's words: see FORMAT.md.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::words::now;

/// The offset of the seat table, and the length of a seat's line.
const SEATS: usize = 1024;
const LINE: usize = 128;
/// The word that counts a topic's messages.
const HEAD: usize = 896;
/// The words of a line: the generation with the seat's state, and the holder's last heartbeat.
const LIFE: usize = 0;
const HEARTBEAT: usize = 64;

/// A view of a channel's control part.
pub(crate) struct Watch {
    control: OwnedFd,
    page: *const u8,
}

// SAFETY: a mapping for ever, read only, and only by atomics.
unsafe impl Send for Watch {}

/// The time at which the kernel released a seat.
#[derive(Clone, Copy)]
pub(crate) struct Release {
    /// A time at which the seat was still held.
    pub(crate) after: u64,
    /// A time at which the seat was no longer held.
    pub(crate) by: u64,
}

impl Watch {
    pub(crate) fn new(control: OwnedFd) -> Watch {
        let (nowhere, shared) = (std::ptr::null_mut(), MapFlags::SHARED);
        // More than a control part may have: nobody looks beyond its end.
        // SAFETY: a fresh mapping at an address of the kernel's choice, never unmapped.
        let page = unsafe { mmap(nowhere, 1 << 16, ProtFlags::READ, shared, &control, 0) };
        let page = page.unwrap().cast();
        Watch { control, page }
    }

    /// Returns the generation and the state of the seat.
    pub(crate) fn life(&self, seat: usize) -> u64 {
        self.word(seat, LIFE)
    }

    /// Returns the time of the holder's last heartbeat.
    pub(crate) fn heartbeat(&self, seat: usize) -> u64 {
        self.word(seat, HEARTBEAT)
    }

    /// Returns `true` if the newest message of a topic is not in its head. `entries` is the place of its ring, which has
    /// this many.
    pub(crate) fn is_behind(&self, entries: usize, capacity: u64) -> bool {
        let head = self.at(HEAD);
        let entry = self.at(entries + 8 * (head % capacity) as usize);
        entry >> 16 == head / capacity + 1
    }

    fn word(&self, seat: usize, word: usize) -> u64 {
        self.at(SEATS + LINE * seat + word)
    }

    /// Returns the word at this offset.
    fn at(&self, offset: usize) -> u64 {
        // SAFETY: callers stay in the control part.
        let word = unsafe { self.page.add(offset) };
        // SAFETY: mapped for ever, aligned, and everybody uses it as this atomic.
        let word = unsafe { AtomicU64::from_ptr(word.cast_mut().cast()) };
        word.load(Ordering::Acquire)
    }

    /// Returns `true` if a process holds the seat.
    pub(crate) fn is_held(&self, seat: usize) -> bool {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_start = (SEATS + LINE * seat) as libc::off_t;
        lock.l_len = 1;
        let fd = self.control.as_raw_fd();
        // SAFETY: an open descriptor, and a structure that outlives the call.
        let asked = unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) };
        assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
        lock.l_type != libc::F_UNLCK as libc::c_short
    }

    /// Waits, without a pause, until the holder whose life word was `life`, at the time `after`,
    /// has lost the seat. (A successor may be so quick that the seat is never seen free.)
    pub(crate) fn released(&self, seat: usize, life: u64, mut after: u64) -> Release {
        let began = after;
        loop {
            let asked = now();
            if !self.is_held(seat) || self.life(seat) != life {
                return Release { after, by: now() };
            }
            after = asked;
            assert!(asked - began < 60_000_000_000, "seat {seat} is never free");
        }
    }
}

//! Puts a channel into the test's own memory: every word is within reach, and no handle may touch a
//! fence around the data, whatever the words say.
#![allow(dead_code)] // Each test file uses a part of it.

pub(crate) mod calls;
pub(crate) mod header;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use slipring::{Borrowed, Builder, Channel, Geometry, Kind, SetupError};
use slipring_core::layout::{LINE, RolePage, SEATS, WORDS_OFFSET};

/// The offset of the write limit in a producer's page, in bytes.
pub(crate) const GATE: usize = std::mem::offset_of!(RolePage, write_limit);

const FENCE: u8 = 0xf5;

/// Bytes for the strictest alignment, and aligned to it.
#[repr(C, align(128))]
struct Line(UnsafeCell<[u8; LINE]>);

/// The two parts of a channel, the data between two fences.
pub(crate) struct Memory {
    control: Box<[Line]>,
    control_len: usize,
    data: Box<[Line]>,
    data_len: usize,
}

// SAFETY: only addresses; who touches what behind them is up to the channel in it and its test.
unsafe impl Sync for Memory {}

fn lines(bytes: usize, fill: u8) -> Box<[Line]> {
    let line = || Line(UnsafeCell::new([fill; LINE]));
    (0..bytes.div_ceil(LINE)).map(|_| line()).collect()
}

impl Memory {
    /// Returns zeroed memory for a channel such as `builder` makes.
    pub(crate) fn of<K: Kind>(builder: &Builder<K>) -> Memory {
        Memory::new(builder.control_len(), builder.data_len() as usize)
    }

    /// Returns zeroed memory of these lengths in bytes.
    pub(crate) fn new(control_len: usize, data_len: usize) -> Memory {
        let memory = Memory {
            control: lines(control_len, 0),
            control_len,
            data: lines(LINE + data_len + LINE, FENCE),
            data_len,
        };
        // SAFETY: inside `data`, which nobody else knows yet.
        unsafe { memory.data_start().write_bytes(0, data_len) };
        memory
    }

    fn data_start(&self) -> *mut u8 {
        self.data
            .as_ptr()
            .cast_mut()
            .cast::<u8>()
            .wrapping_add(LINE)
    }

    /// Returns the argument of `format_in` and `attach_in`.
    pub(crate) fn borrowed(&self) -> Borrowed {
        let part =
            |start: *mut u8, len| NonNull::slice_from_raw_parts(NonNull::new(start).unwrap(), len);
        Borrowed {
            control: part(self.control.as_ptr().cast_mut().cast(), self.control_len),
            data: part(self.data_start(), self.data_len),
        }
    }

    /// Makes a channel here.
    pub(crate) fn format<K: Kind>(&self, builder: &Builder<K>) -> Result<Channel<K>, SetupError> {
        // SAFETY: of the lengths given, aligned, and the tests drop their handles before it.
        unsafe { builder.format_in(self.borrowed()) }
    }

    /// Attaches to the channel that is here.
    pub(crate) fn attach<K: Kind>(&self, builder: &Builder<K>) -> Result<Channel<K>, SetupError> {
        self.attach_but(builder, 0)
    }

    /// Attaches to the channel that is here, without the last bytes of its control part.
    pub(crate) fn attach_but<K: Kind>(
        &self,
        builder: &Builder<K>,
        left_out: usize,
    ) -> Result<Channel<K>, SetupError> {
        let Borrowed { control, data } = self.borrowed();
        let control = NonNull::slice_from_raw_parts(control.cast(), control.len() - left_out);
        // SAFETY: as in `format`, or less of it.
        unsafe { builder.attach_in(Borrowed { control, data }) }
    }

    /// Returns the word at `offset` bytes into the control part.
    pub(crate) fn control(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.control_len);
        let word = self.control.as_ptr().cast::<u8>().wrapping_add(offset);
        // SAFETY: in bounds and aligned by the assertion; all words there are accessed as atomics.
        unsafe { &*word.cast::<AtomicU64>() }
    }

    /// Corrects the header's checksum, as FORMAT.md gives it: for a hostile peer that knows how.
    pub(crate) fn reseal(&self) {
        let words = (0..512)
            .step_by(8)
            .filter(|offset| ![0, 184].contains(offset));
        let sum = words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, offset| {
            (hash ^ self.control(offset).load(Ordering::Relaxed)).wrapping_mul(0x0100_0000_01b3)
        });
        self.control(184).store(sum, Ordering::Relaxed);
    }

    fn data(&self, offset: usize) -> *mut u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.data_len);
        self.data_start().wrapping_add(offset).cast()
    }

    /// Sets the word at `offset` bytes into the data part. Do not call it while another thread uses
    /// the channel.
    pub(crate) fn set_data(&self, offset: usize, value: u64) {
        // SAFETY: `data` gives what is in bounds and aligned; on the only thread, between two calls.
        unsafe { self.data(offset).write(value) };
    }

    /// Changes that word, under the same condition.
    pub(crate) fn change_data(&self, offset: usize, change: impl FnOnce(u64) -> u64) {
        let word = self.data(offset);
        // SAFETY: as in `set_data`.
        let before = unsafe { word.read() };
        // SAFETY: as above.
        unsafe { word.write(change(before)) };
    }

    /// Returns the position word of a seat: producers come first.
    pub(crate) fn position(&self, geometry: &Geometry, seat: usize) -> &AtomicU64 {
        self.control(geometry.role_offset(seat))
    }

    /// Returns a word of a seat's line.
    pub(crate) fn seat(&self, seat: usize, offset: usize) -> &AtomicU64 {
        self.control(SEATS + seat * LINE + offset)
    }

    /// Sets both positions, as if this much had gone through, and the write limit, where there is
    /// one.
    pub(crate) fn start_at(&self, geometry: &Geometry, position: u64) {
        self.control(geometry.role_offset(0) + GATE)
            .store(position, Ordering::Relaxed);
        for seat in [0, 1] {
            self.position(geometry, seat)
                .store(position, Ordering::Relaxed);
        }
    }

    /// Makes an empty queue look as if this many positions had gone through. Handles that come later begin there.
    pub(crate) fn start_queue_at(&self, geometry: &Geometry, position: u64) {
        let (claims, slots) = (geometry.claims_offset(), geometry.slots());
        for index in 0..slots {
            // Free as the first position from there on that has this slot.
            let lap = (position + slots - 1 - index) / slots;
            let word = claims + WORDS_OFFSET + 8 * index as usize;
            self.control(word)
                .store(lap * (geometry.capacity << 9), Ordering::Relaxed);
        }
        for hint in [claims, claims + LINE] {
            self.control(hint).store(position, Ordering::Relaxed);
        }
        for seat in 0..geometry.seats() {
            self.position(geometry, seat)
                .store(position, Ordering::Relaxed);
        }
    }

    /// Checks that nobody wrote beyond the data.
    #[track_caller]
    pub(crate) fn assert_fences_stand(&self) {
        let all = self.data.len() * LINE;
        let inside = LINE..LINE + self.data_len;
        let bytes = self.data.as_ptr().cast::<u8>();
        for at in (0..all).filter(|at| !inside.contains(at)) {
            // SAFETY: in bounds; nobody has the fences' addresses.
            let byte = unsafe { bytes.wrapping_add(at).read() };
            assert_eq!(byte, FENCE, "byte {at} of {all}");
        }
    }
}

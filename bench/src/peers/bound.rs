//! No channel at all: one thread writes 256 messages into a ring and checks them, again and again.
//!
//! It shows the cost of writing and checking alone. Two threads can be faster, since they share the
//! work; it is a landmark, not a limit.

use super::{About, Kind, Mode, NOTHING_TO_ALL};
use crate::duel::{Run, Sample, solo};
use crate::message::{BATCH, Job};
use std::hint::black_box;
use std::mem::MaybeUninit;

pub const ABOUT: About = About {
    name: "bound",
    kind: Kind::Bound,
    package: None,
    modes: &[Mode::Batch],
    round_trip: false,
    records: &[],
    broadcast: NOTHING_TO_ALL,
    slip: false,
    aligned: true,
    spins: true,
    how: "one thread, no sharing: 256 messages written, then checked",
};

pub fn run<J: Job>(run: &Run) -> Sample {
    let mut ring = Vec::with_capacity(run.capacity);
    ring.resize_with(run.capacity, MaybeUninit::<J::Msg>::uninit);
    solo(run, |range| {
        let mut bad = 0;
        for first in range.step_by(BATCH as usize) {
            let at = first as usize % run.capacity;
            let slots = &mut ring[at..at + BATCH as usize];
            for (slot, seq) in slots.iter_mut().zip(first..) {
                J::fill(slot, seq);
            }
            // The compiler may not carry its knowledge of the words from one loop to the other.
            for (slot, seq) in black_box(slots).iter().zip(first..) {
                // SAFETY: it was filled by the loop above.
                bad |= J::check(unsafe { slot.assume_init_ref() }, seq);
            }
        }
        bad
    })
}

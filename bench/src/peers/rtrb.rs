//! rtrb: one producer, one consumer, threads of one process, on the heap.

use super::{About, Kind, Mode, NOTHING_TO_ALL, Task};
use crate::duel::{Run, Sample, stream};
use crate::message::{BATCH, Job};
use crate::{bounce, each, each_checked, spin};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::ops::Range;

pub const ABOUT: About = About {
    name: "rtrb",
    kind: Kind::Peer,
    package: Some("rtrb"),
    modes: &[Mode::One, Mode::Drain, Mode::Place, Mode::Batch],
    round_trip: true,
    records: &[],
    broadcast: NOTHING_TO_ALL,
    slip: true,
    aligned: true,
    spins: true,
    how: "`push` / `pop`; in place and in batches `write_chunk_uninit` / `read_chunk`",
};

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    let ring = || RingBuffer::<J::Msg>::new(run.capacity);
    match task {
        Task::Stream(Mode::One) => stream(run, ring(), each!(push::<J>), each_checked!(pop::<J>)),
        Task::Stream(Mode::Drain) => stream(run, ring(), each!(push::<J>), drain::<J>),
        Task::Stream(Mode::Place) => stream(run, ring(), each!(put::<J>), each_checked!(take::<J>)),
        Task::Stream(Mode::Batch) => stream(run, ring(), batches::<J>, drain::<J>),
        Task::RoundTrip => bounce!(run, ring(), ring(), push::<J>, pop::<J>),
    }
}

#[inline(always)]
fn push<J: Job>(tx: &mut Producer<J::Msg>, seq: u64) {
    let mut msg = J::make(seq);
    while let Err(PushError::Full(back)) = tx.push(msg) {
        msg = back;
        std::hint::spin_loop();
    }
}

#[inline(always)]
fn pop<J: Job>(rx: &mut Consumer<J::Msg>, seq: u64) -> u64 {
    J::check(&spin!(rx.pop().ok()), seq)
}

#[inline(always)]
fn put<J: Job>(tx: &mut Producer<J::Msg>, seq: u64) {
    let mut chunk = spin!(tx.write_chunk_uninit(1).ok());
    J::fill(&mut chunk.as_mut_slices().0[0], seq);
    // SAFETY: the one slot was just filled.
    unsafe { chunk.commit_all() };
}

#[inline(always)]
fn take<J: Job>(rx: &mut Consumer<J::Msg>, seq: u64) -> u64 {
    let chunk = spin!(rx.read_chunk(1).ok());
    let bad = J::check(&chunk.as_slices().0[0], seq);
    chunk.commit_all();
    bad
}

fn batches<J: Job>(tx: &mut Producer<J::Msg>, range: Range<u64>) {
    for first in range.step_by(BATCH as usize) {
        let mut chunk = spin!(tx.write_chunk_uninit(BATCH as usize).ok());
        let (front, back) = chunk.as_mut_slices();
        let mut seq = first;
        for run in [front, back] {
            for slot in run {
                J::fill(slot, seq);
                seq += 1;
            }
        }
        // SAFETY: all slots were just filled.
        unsafe { chunk.commit_all() };
    }
}

fn drain<J: Job>(rx: &mut Consumer<J::Msg>, range: Range<u64>) -> u64 {
    let (mut seq, mut bad) = (range.start, 0);
    while seq < range.end {
        let there = spin!(Some(rx.slots()).filter(|n| *n > 0)).min(BATCH as usize);
        let chunk = rx.read_chunk(there).expect("as many as there are");
        let (front, back) = chunk.as_slices();
        for run in [front, back] {
            for msg in run {
                bad |= J::check(msg, seq);
                seq += 1;
            }
        }
        chunk.commit_all();
    }
    bad
}

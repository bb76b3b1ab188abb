//! shaq 4.0.0: a queue for shared memory, here on its own heap region (`spsc::pair`).
//!
//! It can wake sleeping consumers, and pays for that with a full fence on every publish. A batch
//! shares that cost and a single message cannot. In the broadcast cases it is `shaq::broadcast`
//! with one producer's lane, in a file on shared memory.

use super::{About, Kind, Mode, Task};
use crate::broadcast::{Fan, Flow, Place};
use crate::duel::{Run, Sample, stream};
use crate::message::{BATCH, Job};
use crate::to_all;
use crate::{bounce, each, each_checked, spin};
use shaq::broadcast as fan_out;
use shaq::spsc::{Consumer, Producer, pair};
use std::num::NonZeroUsize;
use std::ops::Range;

pub const ABOUT: About = About {
    name: "shaq",
    kind: Kind::Peer,
    package: Some("shaq"),
    modes: &[Mode::One, Mode::Drain, Mode::Place, Mode::Batch],
    round_trip: true,
    records: &[],
    broadcast: |fan| fan.flow == Flow::Wait,
    slip: true,
    aligned: true,
    spins: true,
    how: "`try_write` / `try_read`; in place and in batches `write_batch` + `try_as_mut` / \
          `try_reserve_read_batch`; to all the same of `broadcast`",
};

const BATCH_MAX: NonZeroUsize = NonZeroUsize::new(BATCH as usize).unwrap();

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    let ring = || pair::<J::Msg>(run.capacity).expect("a heap queue");
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
    while let Err(back) = tx.try_write(msg) {
        msg = back;
        std::hint::spin_loop();
    }
}

#[inline(always)]
fn pop<J: Job>(rx: &mut Consumer<J::Msg>, seq: u64) -> u64 {
    J::check(&spin!(rx.try_read()), seq)
}

#[inline(always)]
fn put<J: Job>(tx: &mut Producer<J::Msg>, seq: u64) {
    spin!({
        let mut batch = tx.write_batch();
        // SAFETY: the slot, if there is one, is filled before the batch is dropped.
        let slot = unsafe { batch.try_as_mut() };
        slot.map(|slot| J::fill(slot, seq))
    });
}

#[inline(always)]
fn take<J: Job>(rx: &mut Consumer<J::Msg>, seq: u64) -> u64 {
    let batch = spin!(rx.try_reserve_read_batch(NonZeroUsize::MIN));
    J::check(&batch.as_slices().0[0], seq)
}

fn batches<J: Job>(tx: &mut Producer<J::Msg>, range: Range<u64>) {
    let mut seq = range.start;
    while seq < range.end {
        let end = range.end.min(seq + BATCH);
        let mut batch = tx.write_batch();
        while seq < end {
            // SAFETY: the slot, if there is one, is filled before the batch is dropped.
            let Some(slot) = (unsafe { batch.try_as_mut() }) else {
                break;
            };
            J::fill(slot, seq);
            seq += 1;
        }
    }
}

fn drain<J: Job>(rx: &mut Consumer<J::Msg>, range: Range<u64>) -> u64 {
    let (mut seq, mut bad) = (range.start, 0);
    while seq < range.end {
        let batch = spin!(rx.try_reserve_read_batch(BATCH_MAX));
        let (front, back) = batch.as_slices();
        for run in [front, back] {
            for msg in run {
                bad |= J::check(msg, seq);
                seq += 1;
            }
        }
    }
    bad
}

pub fn broadcast<J: Job>(fan: Fan, run: &Run) -> Sample {
    let mut options = std::fs::File::options();
    options.read(true).write(true).create_new(true);
    let file = options.open(run.dir.join("all")).expect("a file");
    let config = fan_out::BroadcastConfig {
        capacity: run.capacity,
        producer_slots: 1,
        consumer_slots: fan.readers,
    };
    // SAFETY: a new file, which nobody else opens; messages are words without pointers.
    let queue = unsafe { fan_out::Broadcast::<J::Msg>::create(&file, config) }.expect("a queue");
    let readers: Vec<_> = (0..fan.readers)
        .map(|_| queue.consumer().expect("a consumer"))
        .collect();
    let tx = queue.producer(fan_out::ProducerId::new(0)).expect("a lane");
    to_all!(
        fan,
        run,
        (|| tx, || readers),
        (push_to_all::<J>, take_one::<J>),
        (batches_to_all::<J>, take_batch::<J>),
    )
}

#[inline(always)]
fn push_to_all<J: Job>(tx: &mut fan_out::Producer<J::Msg>, seq: u64) {
    let mut msg = J::make(seq);
    while let Err(back) = tx.try_write(msg) {
        msg = back;
        std::hint::spin_loop();
    }
}

#[inline(always)]
fn take_one<J: Job>(rx: &mut fan_out::Consumer<J::Msg>, place: &mut Place) -> bool {
    let Some(msg) = rx.try_read() else {
        return false;
    };
    place.took(J::check(&msg, place.next));
    true
}

#[inline(always)]
fn batches_to_all<J: Job>(tx: &mut fan_out::Producer<J::Msg>, range: Range<u64>) {
    for first in range.step_by(BATCH as usize) {
        // SAFETY: each slot is filled before the batch is dropped.
        let mut batch = spin!(unsafe { tx.try_reserve_write_batch(BATCH_MAX) });
        for i in 0..BATCH {
            // SAFETY: `i` is below the batch's length.
            let slot = unsafe { batch.as_mut(i as usize) };
            J::fill(slot, first + i);
        }
    }
}

#[inline(always)]
fn take_batch<J: Job>(rx: &mut fan_out::Consumer<J::Msg>, place: &mut Place) -> bool {
    if let Some(batch) = rx.try_reserve_read_batch(BATCH_MAX) {
        let (front, back) = batch.as_slices();
        for run in [front, back] {
            for msg in run {
                place.took(J::check(msg, place.next));
            }
        }
    }
    false
}

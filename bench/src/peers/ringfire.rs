//! ringfire: one producer, many readers, through a file on shared memory; here with one
//! registered reader and `LosslessBackpressure`, so that the producer waits for it.
//!
//! Slots carry a sequence word and are always copied in and out. Aligned 64-byte messages make its
//! slots 128 bytes long, which is the faster layout (50 against 38 million a second).

use super::{About, Kind, Mode, Task};
use crate::duel::{Run, Sample, stream};
use crate::message::{BATCH, Job};
use crate::{bounce, each, each_checked, spin};
use ringfire::{FlowControl, RingConsumer, RingProducer, RingProducerBuilder};
use std::ops::Range;

pub const ABOUT: About = About {
    name: "ringfire",
    kind: Kind::Peer,
    package: Some("ringfire"),
    modes: &[Mode::One, Mode::Drain, Mode::Batch],
    round_trip: true,
    records: &[],
    slip: true,
    aligned: true,
    spins: true,
    how: "lossless: `try_push` / `try_recv`; batches `push_batch` / `recv_batch`",
};

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    let ring = |name: &str| {
        let path = run.dir.join(name);
        let tx = RingProducerBuilder::new(run.capacity as u64)
            .flow_control(FlowControl::LosslessBackpressure)
            .max_readers(1)
            .build::<J::Msg, _>(&path)
            .expect("a ring file");
        (
            tx,
            RingConsumer::<J::Msg>::attach(&path).expect("its reader"),
        )
    };
    match task {
        Task::Stream(Mode::One) => {
            stream(run, ring("one"), each!(push::<J>), each_checked!(pop::<J>))
        }
        Task::Stream(Mode::Batch) => stream(run, ring("batch"), batches::<J>, drain::<J>),
        Task::Stream(_) => stream(run, ring("drain"), each!(push::<J>), drain::<J>),
        Task::RoundTrip => bounce!(run, ring("there"), ring("back"), push::<J>, pop::<J>),
    }
}

#[inline(always)]
fn push<J: Job>(tx: &mut RingProducer<J::Msg>, seq: u64) {
    let msg = J::make(seq);
    spin!(tx.try_push(&msg).ok());
}

#[inline(always)]
fn pop<J: Job>(rx: &mut RingConsumer<J::Msg>, seq: u64) -> u64 {
    J::check(&spin!(rx.try_recv()), seq)
}

fn batches<J: Job>(tx: &mut RingProducer<J::Msg>, range: Range<u64>) {
    let mut batch = vec![J::make(0); BATCH as usize];
    for first in range.step_by(BATCH as usize) {
        for (msg, seq) in batch.iter_mut().zip(first..) {
            J::refill(msg, seq);
        }
        tx.push_batch(&batch);
    }
}

fn drain<J: Job>(rx: &mut RingConsumer<J::Msg>, range: Range<u64>) -> u64 {
    let mut batch = vec![J::make(0); BATCH as usize];
    let (mut seq, mut bad) = (range.start, 0);
    while seq < range.end {
        let n = spin!(Some(rx.recv_batch(&mut batch)).filter(|n| *n > 0));
        for msg in &batch[..n] {
            bad |= J::check(msg, seq);
            seq += 1;
        }
    }
    bad
}

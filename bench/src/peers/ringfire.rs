//! ringfire: one producer, many readers, through a file on shared memory. Here it has one
//! registered reader and `LosslessBackpressure`, so that the producer waits for it. In the
//! broadcast cases it overwrites (`LossyLatestWins`) where the case says so.
//!
//! Slots carry a sequence word and are always copied in and out. Aligned 64-byte messages make its
//! slots 128 bytes long, which is the faster layout (50 against 38 million a second).

use super::{About, Kind, Mode, Task};
use crate::broadcast::{self, Fan, Flow, Place, Way};
use crate::duel::{Run, Sample, stream};
use crate::message::{BATCH, Job};
use crate::to_all;
use crate::{bounce, each, each_checked, spin};
use ringfire::{FlowControl, RecvStatus, RingConsumer, RingProducer, RingProducerBuilder};
use std::ops::Range;

pub const ABOUT: About = About {
    name: "ringfire",
    kind: Kind::Peer,
    package: Some("ringfire"),
    modes: &[Mode::One, Mode::Drain, Mode::Batch],
    round_trip: true,
    records: &[],
    broadcast: |fan| fan.way != Way::Bare,
    slip: true,
    aligned: true,
    spins: true,
    how: "lossless: `try_push` / `try_recv`; batches `push_batch` / `recv_batch`; lossy: `recv_status`",
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

/// A reader, and the number of lost messages that it has reported.
type Reader<M> = (RingConsumer<M>, u64);

pub fn broadcast<J: Job>(fan: Fan, run: &Run) -> Sample {
    let ring = |name: &str| {
        let path = run.dir.join(name);
        let (flow, registered) = match fan.flow {
            Flow::Wait => (FlowControl::LosslessBackpressure, fan.readers),
            Flow::Paced | Flow::Free => (FlowControl::LossyLatestWins, 0),
        };
        let tx = RingProducerBuilder::new(run.capacity as u64)
            .flow_control(flow)
            .max_readers(registered)
            .build::<J::Msg, _>(&path)
            .expect("a ring file");
        let reader = |_| (RingConsumer::attach(&path).expect("its reader"), 0);
        let readers: Vec<Reader<J::Msg>> = (0..fan.readers).map(reader).collect();
        (tx, readers)
    };
    let (tx, mut readers) = ring("there");
    if fan.way == Way::Trip {
        let (back, mut answers) = ring("back");
        let (there, back) = ((tx, readers.remove(0)), (back, answers.remove(0)));
        return bounce!(run, there, back, push::<J>, |rx, seq| {
            broadcast::wait_for(rx, seq, take::<J>)
        });
    }
    let mut batch = vec![J::make(0); BATCH as usize];
    let mut drain = move |(rx, _): &mut Reader<J::Msg>, place: &mut Place| {
        let n = rx.recv_batch(&mut batch);
        for msg in &batch[..n] {
            place.took(J::check(msg, place.next));
        }
        false
    };
    to_all!(
        fan,
        run,
        (|| tx, || readers),
        (push::<J>, take::<J>),
        (batches::<J>, drain),
    )
}

#[inline(always)]
fn take<J: Job>((rx, told): &mut Reader<J::Msg>, place: &mut Place) -> bool {
    let (msg, more) = match rx.recv_status() {
        RecvStatus::Ok(msg) => (Some(msg), true),
        // The consumer counts the messages that it skipped, but reports them here only together
        // with a message.
        RecvStatus::Empty => (None, false),
        RecvStatus::Lapped { item, .. } => (Some(item), true),
    };
    if rx.lapped_count() != *told {
        place.lost(rx.lapped_count() - *told);
        *told = rx.lapped_count();
    }
    if let Some(msg) = msg {
        place.took(J::check(&msg, place.next));
    }
    more
}

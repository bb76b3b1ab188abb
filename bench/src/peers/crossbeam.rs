//! crossbeam's `ArrayQueue`: many producers, many consumers, here one of each.

use super::{About, Kind, Mode, NOTHING_TO_ALL, Task};
use crate::duel::{Run, Sample, stream};
use crate::message::Job;
use crate::{bounce, each, each_checked, spin};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

pub const ABOUT: About = About {
    name: "ArrayQueue",
    kind: Kind::Peer,
    package: Some("crossbeam-queue"),
    modes: &[Mode::One],
    round_trip: true,
    records: &[],
    broadcast: NOTHING_TO_ALL,
    slip: false,
    aligned: false,
    spins: true,
    how: "`push` / `pop`",
};

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    let ring = || {
        let queue = Arc::new(ArrayQueue::<J::Msg>::new(run.capacity));
        (Arc::clone(&queue), queue)
    };
    match task {
        Task::Stream(_) => stream(run, ring(), each!(push::<J>), each_checked!(pop::<J>)),
        Task::RoundTrip => bounce!(run, ring(), ring(), push::<J>, pop::<J>),
    }
}

#[inline(always)]
fn push<J: Job>(queue: &mut Arc<ArrayQueue<J::Msg>>, seq: u64) {
    let mut msg = J::make(seq);
    while let Err(back) = queue.push(msg) {
        msg = back;
        std::hint::spin_loop();
    }
}

#[inline(always)]
fn pop<J: Job>(queue: &mut Arc<ArrayQueue<J::Msg>>, seq: u64) -> u64 {
    J::check(&spin!(queue.pop()), seq)
}

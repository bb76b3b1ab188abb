//! The standard library's bounded channel: many producers, here one.

use super::{About, Kind, Mode, NOTHING_TO_ALL, Task};
use crate::duel::{Run, Sample, stream};
use crate::message::Job;
use crate::{bounce, each, each_checked, spin};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

pub const ABOUT: About = About {
    name: "std mpsc",
    kind: Kind::Peer,
    package: None,
    modes: &[Mode::One],
    round_trip: true,
    records: &[],
    broadcast: NOTHING_TO_ALL,
    slip: false,
    aligned: false,
    spins: true,
    how: "`sync_channel`: `try_send` / `try_recv`",
};

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    let ring = || sync_channel::<J::Msg>(run.capacity);
    match task {
        Task::Stream(_) => stream(run, ring(), each!(push::<J>), each_checked!(pop::<J>)),
        Task::RoundTrip => bounce!(run, ring(), ring(), push::<J>, pop::<J>),
    }
}

#[inline(always)]
fn push<J: Job>(tx: &mut SyncSender<J::Msg>, seq: u64) {
    let mut msg = J::make(seq);
    loop {
        match tx.try_send(msg) {
            Ok(()) => break,
            Err(TrySendError::Full(back)) => msg = back,
            Err(TrySendError::Disconnected(_)) => panic!("the receiver lives as long as we do"),
        }
        std::hint::spin_loop();
    }
}

#[inline(always)]
fn pop<J: Job>(rx: &mut Receiver<J::Msg>, seq: u64) -> u64 {
    J::check(&spin!(rx.try_recv().ok()), seq)
}

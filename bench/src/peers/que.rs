//! que, its lossless channel: one producer, one consumer, in memory that the caller provides.
//!
//! A pushed message becomes visible at the next `sync`: after every message in *one*, after every
//! 256 in *batch*. Its capacity is part of its type.
//!
//! `pop` copies the slot first and looks at the producer's position afterwards. If the producer
//! publishes in between, `pop` returns the slot's content from a lap ago, and the run reports wrong
//! data. That happens always in *one* and in round trips, where the consumer closely follows the
//! producer. It happens now and then in *batch* with large messages. No call lets a caller look
//! first.
//!
//! In the broadcast cases it is used headless, where it overwrites. It does not report a reader's
//! losses, so the messages' own numbers show them.

use super::{About, Kind, Mode, Task};
use crate::broadcast::{self, Fan, Flow, Place, Way};
use crate::duel::{Run, Sample, stream};
use crate::message::{BATCH, Job};
use crate::to_all;
use crate::{bounce, each, each_checked, spin};
use que::Channel;
use que::headless_spmc;
use que::lossless::{consumer::Consumer, producer::Producer};
use std::alloc::{Layout, alloc_zeroed};
use std::hint::black_box;
use std::ops::Range;

pub const ABOUT: About = About {
    name: "que",
    kind: Kind::Peer,
    package: Some("que"),
    modes: &[Mode::One, Mode::Batch],
    round_trip: true,
    records: &[],
    broadcast: |fan| fan.flow != Flow::Wait,
    slip: true,
    aligned: false,
    spins: true,
    how: "lossless: `push` and `sync` each message, or `sync` every 256 / `pop`; to all: headless",
};

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    match run.capacity {
        64 => with_capacity::<J, 64>(task, run),
        256 => with_capacity::<J, 256>(task, run),
        1024 => with_capacity::<J, 1024>(task, run),
        4096 => with_capacity::<J, 4096>(task, run),
        16384 => with_capacity::<J, 16384>(task, run),
        other => panic!("que is built here for 64, 256, 1024, 4096 and 16384 slots, not {other}"),
    }
}

fn with_capacity<J: Job, const N: usize>(task: Task, run: &Run) -> Sample {
    match task {
        Task::Stream(Mode::Batch) => stream(
            run,
            ring::<J, N>(),
            batches::<J, N>,
            each_checked!(pop::<J, N>),
        ),
        Task::Stream(_) => stream(
            run,
            ring::<J, N>(),
            each!(push::<J, N>),
            each_checked!(pop::<J, N>),
        ),
        Task::RoundTrip => bounce!(
            run,
            ring::<J, N>(),
            ring::<J, N>(),
            push::<J, N>,
            pop::<J, N>,
        ),
    }
}

type Ring<M, const N: usize> = (Producer<M, N>, Consumer<M, N>);

/// Returns memory on the heap for a channel, page-aligned as its shared memory would be. It is
/// never freed: the process ends with the run.
fn memory<J: Job, const N: usize>() -> *mut u8 {
    let layout = Layout::new::<Channel<J::Msg, N>>()
        .align_to(4096)
        .expect("a small alignment");
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    assert!(!memory.is_null(), "no memory");
    memory
}

fn ring<J: Job, const N: usize>() -> Ring<J::Msg, N> {
    let memory = memory::<J, N>();
    // SAFETY: zeroed memory of the channel's size and more than its alignment.
    let tx = unsafe { Producer::initialize_in(memory) }.expect("a fresh channel");
    // SAFETY: the channel was just made there.
    let rx = unsafe { Consumer::join(memory) }.expect("its consumer");
    (tx, rx)
}

#[inline(always)]
fn push<J: Job, const N: usize>(tx: &mut Producer<J::Msg, N>, seq: u64) {
    let msg = J::make(seq);
    spin!(tx.push(&msg).ok());
    tx.sync();
}

fn batches<J: Job, const N: usize>(tx: &mut Producer<J::Msg, N>, range: Range<u64>) {
    for first in range.step_by(BATCH as usize) {
        for seq in first..first + BATCH {
            let msg = J::make(seq);
            spin!(tx.push(&msg).ok());
        }
        tx.sync();
    }
}

#[inline(always)]
fn pop<J: Job, const N: usize>(rx: &mut Consumer<J::Msg, N>, seq: u64) -> u64 {
    J::check(&spin!(rx.pop()), seq)
}

pub fn broadcast<J: Job>(fan: Fan, run: &Run) -> Sample {
    match run.capacity {
        64 => headless::<J, 64>(fan, run),
        256 => headless::<J, 256>(fan, run),
        1024 => headless::<J, 1024>(fan, run),
        4096 => headless::<J, 4096>(fan, run),
        16384 => headless::<J, 16384>(fan, run),
        other => panic!("que is built here for 64, 256, 1024, 4096 and 16384 slots, not {other}"),
    }
}

type Writer<M, const N: usize> = headless_spmc::producer::Producer<M, N>;
type Reader<M, const N: usize> = headless_spmc::consumer::Consumer<M, N>;

fn headless<J: Job, const N: usize>(fan: Fan, run: &Run) -> Sample {
    let ring = || {
        let memory = memory::<J, N>();
        // SAFETY: zeroed memory of the channel's size and more than its alignment.
        let tx = unsafe { Writer::<J::Msg, N>::initialize_in(memory) }.expect("a fresh channel");
        let reader = |_| {
            // SAFETY: the channel was just made there.
            unsafe { Reader::<J::Msg, N>::join(memory) }.expect("a consumer")
        };
        (tx, (0..fan.readers).map(reader).collect::<Vec<_>>())
    };
    let (mut tx, mut readers) = ring();
    match fan.way {
        Way::Trip => {
            let (back, mut answers) = ring();
            let (there, back) = ((tx, readers.remove(0)), (back, answers.remove(0)));
            bounce!(run, there, back, write::<J, N>, |rx, seq| {
                broadcast::wait_for(rx, seq, take::<J, N>)
            })
        }
        Way::Bare => {
            let (msg, rx) = (J::make(0), &mut readers[0]);
            broadcast::bare(run, |check| {
                tx.push(black_box(&msg));
                tx.sync();
                match rx.pop() {
                    Some(got) if check => J::check(&got, 0),
                    got => u64::from(black_box(&got).is_none()),
                }
            })
        }
        _ => {
            let each = |tx: &mut Writer<J::Msg, N>, range: Range<u64>| {
                range.for_each(|seq| write::<J, N>(tx, seq));
            };
            to_all!(
                fan,
                run,
                (|| tx, || readers),
                (write::<J, N>, take::<J, N>),
                (each, take::<J, N>)
            )
        }
    }
}

#[inline(always)]
fn write<J: Job, const N: usize>(tx: &mut Writer<J::Msg, N>, seq: u64) {
    let msg = J::make(seq);
    tx.push(&msg);
    tx.sync();
}

#[inline(always)]
fn take<J: Job, const N: usize>(rx: &mut Reader<J::Msg, N>, place: &mut Place) -> bool {
    let Some(msg) = rx.pop() else {
        return false;
    };
    place.found(J::number(&msg));
    place.took(J::check(&msg, place.next));
    true
}

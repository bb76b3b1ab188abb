//! slipring: one producer, one consumer, threads or processes.
//!
//! It runs three times, with the same loops: on the heap; through a named region, where each thread
//! opens the name and maps the memory for itself; and through a named region between two processes.

pub mod broadcast;

use super::{About, Kind, Mode, Task};
use crate::duel::{Run, Sample, duel};
use crate::message::{BATCH, Job, Lengths, Message, check_bytes, fill_bytes};
use crate::{answer, ask, each, each_checked, spin};
use ::slipring::spsc::{Consumer, Producer};
use ::slipring::{Error, Payload, PushError, SetupError, SlotKind, bytes, spsc};
use std::ops::Range;

pub const HEAP: About = About {
    name: "slipring heap",
    kind: Kind::Ours,
    package: Some("slipring"),
    modes: &[Mode::One, Mode::Drain, Mode::Place, Mode::Batch],
    round_trip: true,
    records: &[Mode::One, Mode::Drain, Mode::Place],
    broadcast: |_| true,
    slip: true,
    aligned: true,
    spins: true,
    how: "`try_push` / `try_pop`; in place `try_reserve` / `try_read`, in batches `try_reserve` / \
          `try_read_batch`; to all the same, overwriting by `try_push` / `try_pop`; round trips of 1264 bytes in place",
};

pub const NAMED: About = About {
    name: "slipring named",
    ..HEAP
};

/// Takes part in a few cases only: enough to see that threads that map for themselves stand for
/// processes.
pub const PROCESSES: About = About {
    name: "slipring processes",
    modes: &[Mode::One, Mode::Batch],
    records: &[Mode::Place],
    broadcast: broadcast::between_processes,
    slip: false,
    ..HEAP
};

pub fn run<J: Job>(region: &str, task: Task, run: &Run) -> Sample {
    let run = &Run {
        processes: region == PROCESSES.name,
        ..run.clone()
    };
    match task {
        Task::Stream(Mode::One) => pass(region, run, each!(push::<J>), each_checked!(pop::<J>)),
        Task::Stream(Mode::Drain) => pass(region, run, each!(push::<J>), drain::<J>),
        Task::Stream(Mode::Place) => pass(region, run, each!(put::<J>), each_checked!(take::<J>)),
        Task::Stream(Mode::Batch) => pass(region, run, batches::<J>, drain::<J>),
        Task::RoundTrip => round_trips::<J>(region, run),
    }
}

/// Passes messages. On the heap both sides get handles made beforehand; else each opens the name
/// for itself.
fn pass<M: Payload>(
    region: &str,
    run: &Run,
    send: impl Fn(&mut Producer<M>, Range<u64>) + Send,
    receive: impl Fn(&mut Consumer<M>, Range<u64>) -> u64 + Send,
) -> Sample {
    let ring = spsc::Builder::<M>::new(run.capacity);
    let (tx, rx) = ends(region, || ring.channel_pair());
    duel(
        run,
        || {
            let mut tx = tx.unwrap_or_else(|| ring.producer("there").expect("a named producer"));
            move |range| send(&mut tx, range)
        },
        || {
            let mut rx = rx.unwrap_or_else(|| ring.consumer("there").expect("a named consumer"));
            move |range| receive(&mut rx, range)
        },
    )
}

/// Returns both ends of a heap channel, or `None` for a named one.
fn ends<P, C>(
    region: &str,
    pair: impl FnOnce() -> Result<(P, C), SetupError>,
) -> (Option<P>, Option<C>) {
    if region == HEAP.name {
        let (tx, rx) = pair().expect("a heap channel");
        (Some(tx), Some(rx))
    } else {
        (None, None)
    }
}

fn round_trips<J: Job>(region: &str, run: &Run) -> Sample {
    let ring = spsc::Builder::<J::Msg>::new(run.capacity);
    let (ask_tx, ask_rx) = ends(region, || ring.channel_pair());
    let (answer_tx, answer_rx) = ends(region, || ring.channel_pair());
    let tx = |name| ring.producer(name).expect("a named producer");
    let rx = |name| ring.consumer(name).expect("a named consumer");
    // As one would: what is larger than a line stays in its slot.
    let in_place = J::Msg::WORDS > 8;
    duel(
        run,
        || {
            let mut rx = ask_rx.unwrap_or_else(|| rx("there"));
            let mut tx = answer_tx.unwrap_or_else(|| tx("back"));
            move |range| match in_place {
                true => answer!(&mut rx, &mut tx, range, put::<J>, take::<J>),
                false => answer!(&mut rx, &mut tx, range, push::<J>, pop::<J>),
            }
        },
        || {
            let mut tx = ask_tx.unwrap_or_else(|| tx("there"));
            let mut rx = answer_rx.unwrap_or_else(|| rx("back"));
            move |range| match in_place {
                true => ask!(&mut tx, &mut rx, range, put::<J>, take::<J>),
                false => ask!(&mut tx, &mut rx, range, push::<J>, pop::<J>),
            }
        },
    )
}

/// Returns the result if there is one. `Full` and `Empty` mean *try again*; any other error ends
/// the run and its process.
#[inline(always)]
fn now<R>(tried: Result<R, Error>) -> Option<R> {
    match tried {
        Ok(got) => Some(got),
        Err(Error::Full | Error::Empty) => None,
        Err(other) => stop(other),
    }
}

#[cold]
#[inline(never)]
fn stop(error: Error) -> ! {
    panic!("{error}")
}

#[inline(always)]
fn push<J: Job>(tx: &mut Producer<J::Msg>, seq: u64) {
    push_value(tx, J::make(seq));
}

/// Pushes a value to either kind of slots.
#[inline(always)]
fn push_value<K: SlotKind>(tx: &mut ::slipring::Producer<K>, mut msg: K::Value) {
    loop {
        match tx.try_push(msg) {
            Ok(()) => return,
            Err(PushError::Full(back)) => msg = back,
            Err(other) => stop(other.error()),
        }
        std::hint::spin_loop();
    }
}

#[inline(always)]
fn pop<J: Job>(rx: &mut Consumer<J::Msg>, seq: u64) -> u64 {
    J::check(&spin!(now(rx.try_pop())), seq)
}

#[inline(always)]
fn put<J: Job>(tx: &mut Producer<J::Msg>, seq: u64) {
    let mut slots = spin!(now(tx.try_reserve(1)));
    J::refill(&mut slots.as_mut_slices().0[0], seq);
    slots.commit(1);
}

#[inline(always)]
fn take<J: Job>(rx: &mut Consumer<J::Msg>, seq: u64) -> u64 {
    let msg = spin!(now(rx.try_read()));
    J::check(&msg, seq)
}

fn batches<J: Job>(tx: &mut Producer<J::Msg>, range: Range<u64>) {
    for first in range.step_by(BATCH as usize) {
        let mut slots = spin!(now(tx.try_reserve(BATCH as usize)));
        let (front, back) = slots.as_mut_slices();
        let mut seq = first;
        for run in [front, back] {
            for slot in run {
                J::refill(slot, seq);
                seq += 1;
            }
        }
        slots.commit(BATCH as usize);
    }
}

fn drain<J: Job>(rx: &mut Consumer<J::Msg>, range: Range<u64>) -> u64 {
    let (mut seq, mut bad) = (range.start, 0);
    while seq < range.end {
        let msgs = spin!(now(rx.try_read_batch(BATCH as usize)));
        let (front, back) = msgs.as_slices();
        for run in [front, back] {
            for msg in run {
                bad |= J::check(msg, seq);
                seq += 1;
            }
        }
    }
    bad
}

pub fn records(region: &str, mode: Mode, lengths: &Lengths, run: &Run) -> Sample {
    let run = &Run {
        processes: region == PROCESSES.name,
        ..run.clone()
    };
    let ring = bytes::Builder::new(run.ring_bytes);
    let mut scratch = vec![0_u8; lengths.max()];
    let mut copied = scratch.clone();
    let mut send = move |tx: &mut bytes::Producer, range: Range<u64>| {
        for seq in range {
            let len = lengths.of(seq);
            if mode == Mode::One {
                fill_bytes(&mut scratch[..len], seq);
                spin!(now(tx.try_push(&scratch[..len])));
            } else {
                let mut record = spin!(now(tx.try_reserve(len)));
                fill_bytes(&mut record, seq);
                record.commit(len);
            }
        }
    };
    let check =
        |record: &[u8], seq| (record.len() ^ lengths.of(seq)) as u64 | check_bytes(record, seq);
    let mut receive = move |rx: &mut bytes::Consumer, range: Range<u64>| {
        let (mut seq, mut bad) = (range.start, 0);
        while seq < range.end {
            if mode == Mode::Drain {
                let mut batch = spin!(now(rx.try_read_batch(BATCH as usize)));
                while let Some(record) = batch.next().expect("a sound channel") {
                    bad |= check(record, seq);
                    seq += 1;
                }
            } else if mode == Mode::One {
                let len = spin!(now(rx.try_pop(&mut copied)));
                bad |= check(&copied[..len], seq);
                seq += 1;
            } else {
                bad |= check(&spin!(now(rx.try_read())), seq);
                seq += 1;
            }
        }
        bad
    };
    let (tx, rx) = ends(region, || ring.channel_pair());
    duel(
        run,
        || {
            let mut tx = tx.unwrap_or_else(|| ring.producer("records").expect("a named producer"));
            move |range| send(&mut tx, range)
        },
        || {
            let mut rx = rx.unwrap_or_else(|| ring.consumer("records").expect("a named consumer"));
            move |range| receive(&mut rx, range)
        },
    )
}

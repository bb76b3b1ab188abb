//! slipring's `broadcast`: one producer, and readers that all receive every message, in the regions
//! of the others.
//!
//! Where the producer waits, batches are written and read in place. Where it overwrites, the
//! channel reports a loss (`Lagged`), and the reported messages must be the missing ones.

use super::{PROCESSES, ends, now, push_value, stop};
use crate::broadcast::{self, Fan, Flow, Place, Way};
use crate::duel::{Run, Sample, duel};
use crate::message::{BATCH, Job};
use crate::to_all;
use crate::{answer, ask, spin};
use ::slipring::broadcast::{Builder, Consumer, Mode, Overwriting, Producer, Seek, Waiting};
use ::slipring::{Error, SetupError};
use std::hint::black_box;
use std::ops::Range;
use std::slice;

/// Returns `true` for the few cases between two processes. None of them needs the pace.
pub fn between_processes(fan: Fan) -> bool {
    matches!(fan.way, Way::One | Way::Batch) && fan.flow == Flow::Wait && fan.readers == 1
}

pub fn run<J: Job>(region: &str, fan: Fan, run: &Run) -> Sample {
    let run = &Run {
        processes: region == PROCESSES.name,
        ..run.clone()
    };
    let ring = Builder::<J::Msg>::new(run.capacity)
        .join(Seek::Oldest)
        .consumers(fan.readers);
    match fan.flow {
        Flow::Wait => run_mode::<J, Waiting>(region, fan, run, ring),
        Flow::Paced | Flow::Free => {
            run_mode::<J, Overwriting>(region, fan, run, ring.overwriting())
        }
    }
}

fn run_mode<J: Job, M: Batched>(
    region: &str,
    fan: Fan,
    run: &Run,
    ring: Builder<J::Msg, M>,
) -> Sample {
    let pair = || {
        ends(region, || {
            let channel = ring.heap()?;
            let reader = |_| Ok((channel.consumer()?, J::make(0)));
            let readers: Result<Vec<_>, SetupError> = (0..fan.readers).map(reader).collect();
            Ok((channel.producer()?, readers?))
        })
    };
    let tx = |name: &str| ring.producer(name).expect("a named producer");
    let rx = |name: &str| {
        let rx = ring.consumer(name).expect("a named consumer");
        (rx, J::make(0))
    };
    let (made, readers) = pair();
    if fan.way == Way::Trip {
        return trips::<J, M>(run, (made, readers), pair(), tx, rx);
    }
    let tx = || made.unwrap_or_else(|| tx("there"));
    let readers = || readers.unwrap_or_else(|| (0..fan.readers).map(|_| rx("there")).collect());
    if fan.way == Way::Bare {
        let (mut tx, (mut rx, mut got)) = (tx(), readers().swap_remove(0));
        let msg = J::make(0);
        return broadcast::bare(run, |check| {
            let pushed = tx.try_push_slice(slice::from_ref(black_box(&msg)));
            let popped = rx.try_pop_slice(slice::from_mut(&mut got));
            match (pushed, popped) {
                (Ok(1), Ok(1)) if check => J::check(&got, 0),
                (pushed, popped) => {
                    black_box(&got);
                    u64::from(pushed.is_err() | popped.is_err())
                }
            }
        });
    }
    to_all!(
        fan,
        run,
        (tx, readers),
        (push::<J, M>, pop::<J, M>),
        (M::batches::<J>, M::drain::<J>),
    )
}

/// Returns `true` if a message is better handed over by reference: each move of a large one is a
/// copy.
fn large<J: Job>() -> bool {
    size_of::<J::Msg>() > 64
}

/// A consumer, and the place to which it copies a large message.
type Reader<T, M> = (Consumer<T, M>, T);

type Made<T, M> = (Option<Producer<T, M>>, Option<Vec<Reader<T, M>>>);

fn trips<J: Job, M: Mode>(
    run: &Run,
    (ask_tx, ask_rx): Made<J::Msg, M>,
    (answer_tx, answer_rx): Made<J::Msg, M>,
    tx: impl Fn(&str) -> Producer<J::Msg, M> + Sync,
    rx: impl Fn(&str) -> Reader<J::Msg, M> + Sync,
) -> Sample {
    let only = |readers: Option<Vec<_>>| readers.map(|mut readers| readers.swap_remove(0));
    duel(
        run,
        || {
            let mut rx = only(ask_rx).unwrap_or_else(|| rx("there"));
            let mut tx = answer_tx.unwrap_or_else(|| tx("back"));
            move |range| answer!(&mut rx, &mut tx, range, push::<J, M>, wait_for::<J, M>)
        },
        || {
            let mut tx = ask_tx.unwrap_or_else(|| tx("there"));
            let mut rx = only(answer_rx).unwrap_or_else(|| rx("back"));
            move |range| ask!(&mut tx, &mut rx, range, push::<J, M>, wait_for::<J, M>)
        },
    )
}

#[inline(always)]
fn push<J: Job, M: Mode>(tx: &mut Producer<J::Msg, M>, seq: u64) {
    let msg = J::make(seq);
    if large::<J>() {
        let msg = slice::from_ref(&msg);
        spin!(now(tx.try_push_slice(msg)));
    } else {
        push_value(tx, msg);
    }
}

#[inline(always)]
fn pop<J: Job, M: Mode>((rx, out): &mut Reader<J::Msg, M>, place: &mut Place) -> bool {
    let popped = if large::<J>() {
        let popped = rx.try_pop_slice(slice::from_mut(out));
        popped.map(|_| J::check(out, place.next))
    } else {
        rx.try_pop().map(|msg| J::check(&msg, place.next))
    };
    match popped {
        Ok(found) => place.took(found),
        Err(Error::Empty) => return false,
        Err(Error::Lagged(lost)) => place.lost(lost),
        Err(other) => stop(other),
    }
    true
}

#[inline(always)]
fn wait_for<J: Job, M: Mode>(rx: &mut Reader<J::Msg, M>, seq: u64) -> u64 {
    broadcast::wait_for(rx, seq, pop::<J, M>)
}

/// A mode. Batches are for the one that waits: they are written and read in place.
trait Batched: Mode + Sized {
    fn batches<J: Job>(tx: &mut Producer<J::Msg, Self>, range: Range<u64>);
    fn drain<J: Job>(reader: &mut Reader<J::Msg, Self>, place: &mut Place) -> bool;
}

impl Batched for Waiting {
    #[inline(always)]
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

    #[inline(always)]
    fn drain<J: Job>((rx, _): &mut Reader<J::Msg, Self>, place: &mut Place) -> bool {
        let Some(msgs) = now(rx.try_read_batch(BATCH as usize)) else {
            return false;
        };
        let (front, back) = msgs.as_slices().expect("neighbours");
        for run in [front, back] {
            for msg in run {
                place.took(J::check(msg, place.next));
            }
        }
        false
    }
}

impl Batched for Overwriting {
    fn batches<J: Job>(_: &mut Producer<J::Msg, Self>, _: Range<u64>) {
        unreachable!("no plan has batches on a ring that overwrites")
    }

    fn drain<J: Job>(_: &mut Reader<J::Msg, Self>, _: &mut Place) -> bool {
        unreachable!("as above")
    }
}

//! slipring's `broadcast`: one producer, and readers that all see all, in the regions of the others.
//!
//! Where the producer waits, batches are written and read in place. Where it overwrites, a loss is
//! told (`Lagged`), and what was told must be what is missing.

use super::{PROCESSES, ends, now, stop};
use crate::broadcast::{self, Fan, Flow, Place, Way};
use crate::duel::{Run, Sample, duel};
use crate::message::{BATCH, Job};
use crate::{answer, ask, spin};
use ::slipring::Error;
use ::slipring::broadcast::{Builder, Consumer, Producer, WhenFull};
use std::hint::black_box;
use std::ops::Range;

/// Between two processes a few cases only, and none of which the pace would have to know.
pub fn between_processes(fan: Fan) -> bool {
    matches!(fan.way, Way::One | Way::Batch) && fan.flow == Flow::Wait && fan.readers == 1
}

pub fn run<J: Job>(region: &str, fan: Fan, run: &Run) -> Sample {
    let run = &Run {
        processes: region == PROCESSES.name,
        ..run.clone()
    };
    let when_full = match fan.flow {
        Flow::Wait => WhenFull::Wait,
        Flow::Paced | Flow::Free => WhenFull::Overwrite,
    };
    let ring = || {
        Builder::<J::Msg>::new(run.capacity)
            .consumers(fan.readers)
            .when_full(when_full)
    };
    let pair = || {
        ends(region, || {
            let channel = ring().heap()?;
            let readers: Result<Vec<_>, _> = (0..fan.readers).map(|_| channel.consumer()).collect();
            Ok((channel.producer()?, readers?))
        })
    };
    let tx = |name: &str| ring().producer(name).expect("a named producer");
    let rx = |name: &str| ring().consumer(name).expect("a named consumer");
    let (made, readers) = pair();
    if fan.way == Way::Trip {
        return trips::<J>(run, (made, readers), pair(), tx, rx);
    }
    let tx = || made.unwrap_or_else(|| tx("there"));
    let readers = || readers.unwrap_or_else(|| (0..fan.readers).map(|_| rx("there")).collect());
    if fan.way == Way::Bare {
        let (mut tx, mut rx) = (tx(), readers().swap_remove(0));
        let msg = J::make(0);
        let pass = || {
            tx.try_push(*black_box(&msg)).ok()?;
            rx.try_pop().ok()
        };
        return broadcast::bare(run, pass, |got| J::check(got, 0));
    }
    broadcast::run(
        fan,
        run,
        (tx, readers),
        (push::<J>, pop::<J>),
        (batches::<J>, drain::<J>),
    )
}

type Made<M> = (Option<Producer<M>>, Option<Vec<Consumer<M>>>);

fn trips<J: Job>(
    run: &Run,
    (ask_tx, ask_rx): Made<J::Msg>,
    (answer_tx, answer_rx): Made<J::Msg>,
    tx: impl Fn(&str) -> Producer<J::Msg> + Sync,
    rx: impl Fn(&str) -> Consumer<J::Msg> + Sync,
) -> Sample {
    let only = |readers: Option<Vec<_>>| readers.map(|mut readers| readers.swap_remove(0));
    duel(
        run,
        || {
            let mut rx = only(ask_rx).unwrap_or_else(|| rx("there"));
            let mut tx = answer_tx.unwrap_or_else(|| tx("back"));
            move |range| answer!(&mut rx, &mut tx, range, push::<J>, wait_for::<J>)
        },
        || {
            let mut tx = ask_tx.unwrap_or_else(|| tx("there"));
            let mut rx = only(answer_rx).unwrap_or_else(|| rx("back"));
            move |range| ask!(&mut tx, &mut rx, range, push::<J>, wait_for::<J>)
        },
    )
}

#[inline(always)]
fn push<J: Job>(tx: &mut Producer<J::Msg>, seq: u64) {
    let mut msg = J::make(seq);
    while let Err(back) = tx.try_push(msg) {
        now::<()>(Err(back.error));
        msg = back.value;
        std::hint::spin_loop();
    }
}

#[inline(always)]
fn pop<J: Job>(rx: &mut Consumer<J::Msg>, place: &mut Place) -> bool {
    match rx.try_pop() {
        Ok(msg) => place.took(J::check(&msg, place.next)),
        Err(Error::Empty) => return false,
        Err(Error::Lagged(lost)) => place.lost(lost),
        Err(other) => stop(other),
    }
    true
}

#[inline(always)]
fn wait_for<J: Job>(rx: &mut Consumer<J::Msg>, seq: u64) -> u64 {
    broadcast::wait_for(rx, seq, pop::<J>)
}

#[inline(always)]
fn batches<J: Job>(tx: &mut Producer<J::Msg>, range: Range<u64>) {
    for first in range.step_by(BATCH as usize) {
        let mut slots = spin!(now(tx.try_reserve(BATCH as usize)));
        let (front, back) = slots.as_mut_slices().expect("a ring that waits");
        for (slot, seq) in front.iter_mut().chain(back).zip(first..) {
            J::refill(slot, seq);
        }
        slots.commit(BATCH as usize);
    }
}

#[inline(always)]
fn drain<J: Job>(rx: &mut Consumer<J::Msg>, place: &mut Place) -> bool {
    let Some(msgs) = now(rx.try_read(BATCH as usize)) else {
        return false;
    };
    let (front, back) = msgs.as_slices().expect("neighbours");
    for msg in front.iter().chain(back) {
        place.took(J::check(msg, place.next));
    }
    false
}

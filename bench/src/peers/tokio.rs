//! tokio's `sync::broadcast`: many senders, and receivers that all receive every message. It is on
//! the heap, without a runtime.
//!
//! It overwrites, and reports how much a receiver has lost. Each slot and the tail have a lock.

use super::{About, Kind};
use crate::bounce;
use crate::broadcast::{self, Fan, Flow, Place, Way};
use crate::duel::{Run, Sample};
use crate::message::Job;
use crate::to_all;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

pub const ABOUT: About = About {
    name: "tokio",
    kind: Kind::Peer,
    package: Some("tokio"),
    modes: &[],
    round_trip: false,
    records: &[],
    broadcast: |fan| fan.flow != Flow::Wait && fan.way != Way::Bare,
    slip: false,
    aligned: false,
    spins: true,
    how: "`sync::broadcast`: `send` / `try_recv`",
};

pub fn broadcast<J: Job>(fan: Fan, run: &Run) -> Sample {
    let ring = || {
        let (tx, first) = channel(run.capacity);
        let more = (1..fan.readers).map(|_| tx.subscribe());
        let readers: Vec<_> = std::iter::once(first).chain(more).collect();
        (tx, readers)
    };
    let (tx, mut readers) = ring();
    if fan.way == Way::Trip {
        let (back, mut answers) = ring();
        let (there, back) = ((tx, readers.remove(0)), (back, answers.remove(0)));
        return bounce!(run, there, back, push::<J>, |rx, seq| {
            broadcast::wait_for(rx, seq, pop::<J>)
        });
    }
    let ends = (|| tx, || readers);
    let each = |tx: &mut _, range: std::ops::Range<u64>| range.for_each(|seq| push::<J>(tx, seq));
    to_all!(fan, run, ends, (push::<J>, pop::<J>), (each, pop::<J>))
}

#[inline(always)]
fn push<J: Job>(tx: &mut Sender<J::Msg>, seq: u64) {
    if tx.send(J::make(seq)).is_err() {
        panic!("no receiver");
    }
}

#[inline(always)]
fn pop<J: Job>(rx: &mut Receiver<J::Msg>, place: &mut Place) -> bool {
    match rx.try_recv() {
        Ok(msg) => place.took(J::check(&msg, place.next)),
        Err(TryRecvError::Lagged(lost)) => place.lost(lost),
        Err(TryRecvError::Empty) => return false,
        Err(TryRecvError::Closed) => panic!("closed"),
    }
    true
}

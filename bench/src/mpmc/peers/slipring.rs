//! slipring's `mpmc`, on the heap: by value, and in place.
//!
//! By value, a batch is a slice that is copied into the queue, and copied out of it. In place, the
//! messages are written and checked where they lie.

use super::{About, Contender};
use crate::message::{Job, Line};
use crate::mpmc::blocking::{Blocking, Ends};
use crate::mpmc::crew::{Run, Tally};
use crate::until;
use ::slipring::mpmc::{Builder, Consumer, Producer};
use ::slipring::{Error, Payload, PushError};
use std::ops::Range;

pub const BY_VALUE: About = About {
    name: "slipring",
    package: Some("slipring"),
    streams: true,
    batches: true,
    aligned: true,
    how: "`try_push` / `try_pop`; in batches `try_push_slice` / `try_pop_slice`; where it sleeps \
          `push` / `pop`",
};

pub const IN_PLACE: About = About {
    name: "slipring in place",
    how: "`try_reserve` / `try_read`; in batches `try_reserve` / `try_read_batch`",
    ..BY_VALUE
};

/// The longest batch of any case.
const MOST: usize = 32;

/// Messages by value.
pub struct ByValue;

impl<J: Job> Contender<J> for ByValue {
    /// The producer, and the messages of its next batch.
    type Tx = (Producer<J::Msg>, Vec<J::Msg>);
    /// The consumer, and the place for a batch.
    type Rx = (Consumer<J::Msg>, Vec<J::Msg>);

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (txs, rxs) = ends::<J::Msg>(run);
        let room = || vec![J::make(0); MOST];
        (
            txs.into_iter().map(|tx| (tx, room())).collect(),
            rxs.into_iter().map(|rx| (rx, room())).collect(),
        )
    }

    #[inline(always)]
    fn push((tx, _): &mut Self::Tx, seq: u64) {
        let mut msg = J::make(seq);
        until!(match tx.try_push(msg) {
            Ok(()) => Some(()),
            Err(PushError::Full(back)) => {
                msg = back;
                None
            }
            Err(other) => stop(other.error()),
        });
    }

    #[inline(always)]
    fn pop((rx, _): &mut Self::Rx, tally: &mut Tally) -> bool {
        let popped = now(rx.try_pop());
        if let Some(msg) = &popped {
            tally.took::<J>(msg);
        }
        popped.is_some()
    }

    #[inline(always)]
    fn push_batch((tx, room): &mut Self::Tx, batch: Range<u64>) {
        let count = (batch.end - batch.start) as usize;
        for (slot, seq) in room.iter_mut().zip(batch) {
            J::refill(slot, seq);
        }
        let mut done = 0;
        while done < count {
            done += until!(now(tx.try_push_slice(&room[done..count])));
        }
    }

    #[inline(always)]
    fn pop_batch((rx, room): &mut Self::Rx, max: usize, tally: &mut Tally) -> bool {
        let Some(count) = now(rx.try_pop_slice(&mut room[..max])) else {
            return false;
        };
        for msg in &room[..count] {
            tally.took::<J>(msg);
        }
        true
    }
}

impl Blocking for ByValue {
    type Tx = Producer<Line>;
    type Rx = Consumer<Line>;

    fn ends(run: &Run) -> Result<Ends<Self>, String> {
        Ok(ends::<Line>(run))
    }

    fn push(tx: &mut Self::Tx, item: Line) {
        tx.push(item).expect("workers");
    }

    fn pop(rx: &mut Self::Rx) -> Line {
        rx.pop().expect("a producer")
    }
}

/// Messages in place.
pub struct InPlace;

impl<J: Job> Contender<J> for InPlace {
    type Tx = Producer<J::Msg>;
    type Rx = Consumer<J::Msg>;

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        ends::<J::Msg>(run)
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, seq: u64) {
        let mut slots = until!(now(tx.try_reserve(1)));
        J::refill(&mut slots.as_mut_slices().0[0], seq);
        slots.commit(1);
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx, tally: &mut Tally) -> bool {
        let Some(msg) = now(rx.try_read()) else {
            return false;
        };
        tally.took::<J>(&msg);
        true
    }

    #[inline(always)]
    fn push_batch(tx: &mut Self::Tx, batch: Range<u64>) {
        let count = (batch.end - batch.start) as usize;
        let mut slots = until!(now(tx.try_reserve(count)));
        let (front, back) = slots.as_mut_slices();
        for (slot, seq) in front.iter_mut().chain(back).zip(batch) {
            J::refill(slot, seq);
        }
        slots.commit(count);
    }

    #[inline(always)]
    fn pop_batch(rx: &mut Self::Rx, max: usize, tally: &mut Tally) -> bool {
        let Some(msgs) = now(rx.try_read_batch(max)) else {
            return false;
        };
        for msg in msgs.iter() {
            tally.took::<J>(msg);
        }
        true
    }
}

/// Returns the ends of one channel.
fn ends<M: Payload>(run: &Run) -> (Vec<Producer<M>>, Vec<Consumer<M>>) {
    let channel = Builder::<M>::new(run.capacity)
        .producers(run.crew.producers)
        .consumers(run.crew.consumers);
    let (tx, rx) = channel.channel_pair().expect("a heap channel");
    let mut txs = vec![tx];
    while txs.len() < run.crew.producers {
        let another = txs[0].another().expect("another producer");
        txs.push(another);
    }
    let mut rxs = vec![rx];
    while rxs.len() < run.crew.consumers {
        let another = rxs[0].another().expect("another consumer");
        rxs.push(another);
    }
    (txs, rxs)
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

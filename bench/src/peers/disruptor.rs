//! disruptor: one producer, one polling consumer, threads of one process, on the heap.
//!
//! Messages are always written and read in place, and the consumer always takes all that have
//! arrived. So its one way of publishing each message stands in the tables as *one* and counts as
//! *drain* and *place* too. The broadcast cases do the same, with one poller for each reader. A
//! consumer thread of its own (`handle_events_with`) was no faster.

use super::{About, Kind, Mode, Task};
use crate::broadcast::{Fan, Flow, Place};
use crate::duel::{Run, Sample, stream};
use crate::message::{BATCH, Job};
use crate::to_all;
use crate::{bounce, each, spin};
use disruptor::{BusySpin, EventPoller, Producer, SingleProducerBarrier, build_single_producer};
use std::ops::Range;

pub const ABOUT: About = About {
    name: "disruptor",
    kind: Kind::Peer,
    package: Some("disruptor"),
    modes: &[Mode::One, Mode::Batch],
    round_trip: true,
    records: &[],
    broadcast: |fan| fan.flow == Flow::Wait,
    slip: true,
    aligned: true,
    spins: true,
    how: "`publish` or `batch_publish` with `BusySpin` / `EventPoller::poll`",
};

type Poller<J> = EventPoller<<J as Job>::Msg, SingleProducerBarrier>;

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    let ring = || {
        let builder = build_single_producer(run.capacity, || J::make(0), BusySpin);
        let (poller, builder) = builder.new_event_poller();
        (builder.build(), poller)
    };
    match task {
        Task::Stream(Mode::Batch) => stream(run, ring(), batches::<J, _>, drain::<J>),
        Task::Stream(_) => stream(run, ring(), each!(push::<J, _>), drain::<J>),
        Task::RoundTrip => bounce!(run, ring(), ring(), push::<J, _>, |rx, seq| {
            drain::<J>(rx, seq..seq + 1)
        }),
    }
}

#[inline(always)]
fn push<J: Job, P: Producer<J::Msg>>(tx: &mut P, seq: u64) {
    tx.publish(|slot| J::refill(slot, seq));
}

fn batches<J: Job, P: Producer<J::Msg>>(tx: &mut P, range: Range<u64>) {
    for first in range.step_by(BATCH as usize) {
        tx.batch_publish(BATCH as usize, |slots| {
            for (slot, seq) in slots.zip(first..) {
                J::refill(slot, seq);
            }
        });
    }
}

#[inline(always)]
fn drain<J: Job>(rx: &mut Poller<J>, range: Range<u64>) -> u64 {
    let (mut seq, mut bad) = (range.start, 0);
    while seq < range.end {
        let mut events = spin!(rx.poll().ok());
        for msg in &mut events {
            bad |= J::check(msg, seq);
            seq += 1;
        }
    }
    bad
}

pub fn broadcast<J: Job>(fan: Fan, run: &Run) -> Sample {
    let builder = build_single_producer(run.capacity, || J::make(0), BusySpin);
    let (first, builder) = builder.new_event_poller();
    let mut readers = vec![first];
    // With one reader the producer is of another type than with several.
    if fan.readers == 1 {
        return to_all::<J, _>(fan, run, builder.build(), readers);
    }
    let (second, mut builder) = builder.new_event_poller();
    readers.push(second);
    for _ in 2..fan.readers {
        let (another, more) = builder.new_event_poller();
        readers.push(another);
        builder = more;
    }
    to_all::<J, _>(fan, run, builder.build(), readers)
}

fn to_all<J: Job, P: Producer<J::Msg> + Send>(
    fan: Fan,
    run: &Run,
    tx: P,
    readers: Vec<Poller<J>>,
) -> Sample {
    to_all!(
        fan,
        run,
        (|| tx, || readers),
        (push::<J, P>, take::<J>),
        (batches::<J, P>, take::<J>),
    )
}

#[inline(always)]
fn take<J: Job>(rx: &mut Poller<J>, place: &mut Place) -> bool {
    if let Ok(mut events) = rx.poll() {
        for msg in &mut events {
            place.took(J::check(msg, place.next));
        }
    }
    false
}

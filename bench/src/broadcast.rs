//! Broadcast: one writer, and readers that all receive every message. This module holds the tasks,
//! and the loops around a contender's calls.
//!
//! ```text
//! core 0   the writer
//! core 1   one thread, which polls all readers in turn, each for what it has, up to 256 messages
//! ```
//!
//! Several readers therefore share a core, on any machine. The writer has the same number of places
//! to look at, and one other core reads the lines.
//!
//! A reader knows the next message's number, and checks all of each message. A reader that lost
//! messages goes on behind them, and must arrive exactly at the end: received and lost messages
//! together are the sent ones.

use crate::duel::{Alone, Run, Sample, duel, solo};
use crate::message::BATCH;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

/// The numbers of readers, in the cases that vary them.
pub const READERS: &[usize] = &[1, 2, 4, 16, 63];
/// The two numbers of readers that are compared with each other.
pub const FEW_AND_MANY: &[usize] = &[1, 63];

/// One task for a broadcast contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fan {
    /// The part of the run that is timed.
    pub way: Way,
    /// The writer's behaviour when the ring is full.
    pub flow: Flow,
    /// The size of a message in bytes.
    pub size: usize,
    /// The number of readers of each message.
    pub readers: usize,
}

/// The part of a run that is timed, and the way in which messages are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// A stream, one message at a time, until all readers have received all.
    One,
    /// A stream, 256 messages at a time on both sides.
    Batch,
    /// The writer alone: one message at a time, beside readers that never read.
    Idle,
    /// One thread writes 256 messages and has each reader take them; only the writing is timed.
    Drained,
    /// One thread pushes, publishes and pops.
    Alone,
    /// The same as in que's own benchmark: always the same message, without a check.
    Bare,
    /// A round trip, through two channels.
    Trip,
}

/// The writer's behaviour when the ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// The writer waits for the slowest reader.
    Wait,
    /// The writer overwrites, but we hold it back half a ring before the slowest reader, so that
    /// none is lost.
    Paced,
    /// The writer overwrites, and writes as fast as it can.
    Free,
}

impl Fan {
    /// Returns all tasks.
    pub fn every() -> Vec<Fan> {
        use {Flow::*, Way::*};
        let rows: [(Way, Flow, &[usize]); 9] = [
            (One, Wait, &[8, 64]),
            (Batch, Wait, &[8, 64]),
            (One, Paced, &[64, 1264]),
            (One, Free, &[64, 1264]),
            (Idle, Free, &[8, 64]),
            (Drained, Wait, &[8, 64]),
            (Alone, Free, &[1264]),
            (Bare, Free, &[1264]),
            (Trip, Free, &[8]),
        ];
        let fans = rows.into_iter().flat_map(|(way, flow, sizes)| {
            let first = move |&size| Fan {
                way,
                flow,
                size,
                readers: 1,
            };
            sizes.iter().map(first)
        });
        fans.flat_map(Fan::columns).collect()
    }

    /// Returns this task once for each of its numbers of readers.
    pub fn columns(self) -> impl Iterator<Item = Fan> {
        let counts = match (self.way, self.flow) {
            (Way::One | Way::Batch, Flow::Wait | Flow::Paced) => READERS,
            (Way::One | Way::Batch, Flow::Free) | (Way::Idle | Way::Drained, _) => FEW_AND_MANY,
            (Way::Alone | Way::Bare | Way::Trip, _) => &[1],
        };
        counts.iter().map(move |&readers| Fan { readers, ..self })
    }

    /// Returns `true` if the figure is a time.
    pub fn is_time(self) -> bool {
        matches!(self.way, Way::Idle | Way::Drained | Way::Trip)
    }

    /// Returns `true` if no message may be lost.
    pub fn is_lossless(self) -> bool {
        self.flow != Flow::Free || matches!(self.way, Way::Alone | Way::Bare | Way::Trip)
    }
}

impl fmt::Display for Fan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::One => "one",
            Way::Batch => "batch",
            Way::Idle => "idle",
            Way::Drained => "drained",
            Way::Alone => "alone",
            Way::Bare => "bare",
            Way::Trip => "roundtrip",
        };
        let flow = match self.flow {
            Flow::Wait => "wait",
            Flow::Paced => "paced",
            Flow::Free => "free",
        };
        write!(f, "broadcast/{way}/{flow}/{}/{}", self.size, self.readers)
    }
}

/// A reader's position in a range of messages.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The number of the next message.
    pub next: u64,
    /// The number behind the last message.
    end: u64,
    /// Nonzero if any message was wrong.
    pub bad: u64,
    /// The number of lost messages.
    pub lost: u64,
}

impl Place {
    fn new(range: Range<u64>) -> Place {
        Place {
            next: range.start,
            end: range.end,
            bad: 0,
            lost: 0,
        }
    }

    /// Returns the range of messages that are left.
    pub fn all(&self) -> Range<u64> {
        self.next..self.end
    }

    /// Records that the next message came, and the result of its check.
    #[inline(always)]
    pub fn took(&mut self, found: u64) {
        self.bad |= found;
        self.next += 1;
    }

    /// Records that `count` messages will not come.
    #[cold]
    pub fn lost(&mut self, count: u64) {
        self.lost += count;
        self.next += count;
        // A message that was never sent cannot be lost.
        self.bad |= u64::from(self.next > self.end);
    }

    /// Records that message `number` came, by its first word; for contenders that do not report
    /// losses.
    #[inline(always)]
    pub fn found(&mut self, number: u64) {
        if number != self.next {
            self.jumped(number);
        }
    }

    #[cold]
    fn jumped(&mut self, number: u64) {
        if (self.next..self.end).contains(&number) {
            self.lost(number - self.next);
        } else {
            self.bad |= 1;
        }
    }
}

/// Holds back a writer that does not wait for readers. It is one word, so that it costs all
/// contenders alike.
struct Pace {
    slowest: Alone,
    ahead: u64,
}

/// The number of messages between two looks at the pace.
const STEP: u64 = 64;

impl Pace {
    fn new(flow: Flow, capacity: usize) -> Pace {
        let ahead = match flow {
            Flow::Paced => capacity as u64 / 2,
            Flow::Wait | Flow::Free => u64::MAX,
        };
        Pace {
            slowest: Alone(AtomicU64::new(0)),
            ahead,
        }
    }

    /// Waits before the writer writes message `seq` and the others of one step.
    #[inline(always)]
    fn wait(&self, seq: u64) {
        if self.ahead < u64::MAX {
            while seq + STEP > self.slowest.0.load(Relaxed) + self.ahead {
                std::hint::spin_loop();
            }
        }
    }

    #[inline(always)]
    fn tell(&self, slowest: u64) {
        if self.ahead < u64::MAX && slowest >= self.slowest.0.load(Relaxed) + STEP {
            self.slowest.0.store(slowest, Relaxed);
        }
    }
}

/// Has all readers take a range, in turn. Returns their results together: any error, and the
/// average number of messages that each reader lost.
///
/// `take` has a reader take the available messages, up to [`BATCH`].
#[inline(always)]
fn pump<R>(
    readers: &mut [R],
    range: Range<u64>,
    pace: &Pace,
    mut take: impl FnMut(&mut R, &mut Place),
) -> Place {
    let mut places = vec![Place::new(range.clone()); readers.len()];
    let mut sum = Place::new(range);
    loop {
        let (mut slowest, mut moved) = (sum.end, false);
        for (reader, place) in readers.iter_mut().zip(&mut places) {
            let mut at = *place;
            take(reader, &mut at);
            moved |= at.next != place.next;
            slowest = slowest.min(at.next);
            *place = at;
        }
        if slowest >= sum.end {
            break;
        }
        pace.tell(slowest);
        if !moved {
            std::hint::spin_loop();
        }
    }
    pace.tell(sum.end);
    for place in &places {
        sum.bad |= place.bad | (place.next ^ place.end);
        sum.lost += place.lost;
    }
    sum.lost /= readers.len() as u64;
    sum
}

/// Does the task of `fan` with a contender's calls, except for [`Way::Bare`] and [`Way::Trip`].
///
/// The first pair of calls hands over one message. The second pair hands over 256, or the messages
/// that are available; the taking call returns `true` if there may be more. The loops around the
/// calls are made here, for each contender. When the calls were passed as functions, they were
/// inlined into one contender's loop and not into another's, and that decided which one won.
#[macro_export]
macro_rules! to_all {
    ($fan:expr, $run:expr, $ends:expr, ($push:expr, $pop:expr), ($batches:expr, $drain:expr) $(,)?) => {
        $crate::broadcast::run(
            $fan,
            $run,
            $ends,
            (
                |tx: &mut _, range: std::ops::Range<u64>| {
                    for seq in range {
                        $push(tx, seq);
                    }
                },
                |rx: &mut _, place: &mut $crate::broadcast::Place| {
                    for _ in 0..$crate::message::BATCH {
                        if !$pop(rx, place) {
                            break;
                        }
                    }
                },
                |tx: &mut _, rx: &mut _, place: &mut $crate::broadcast::Place| {
                    for seq in place.all() {
                        $push(tx, seq);
                        $pop(rx, place);
                    }
                },
            ),
            (
                $batches,
                |rx: &mut _, place: &mut $crate::broadcast::Place| {
                    for _ in 0..$crate::message::BATCH {
                        if !$drain(rx, place) {
                            break;
                        }
                    }
                },
            ),
        )
    };
}

/// The expansion of [`to_all!`](crate::to_all). The ends are made where they are used. The first
/// three calls send a range, take the available messages, and do both by turns; the last two do so
/// in batches.
pub fn run<T, R>(
    fan: Fan,
    run: &Run,
    (tx, readers): (impl FnOnce() -> T + Send, impl FnOnce() -> Vec<R> + Send),
    (push, take, both): (
        impl FnMut(&mut T, Range<u64>) + Send,
        impl FnMut(&mut R, &mut Place) + Send,
        impl FnMut(&mut T, &mut R, &mut Place),
    ),
    (batches, drain): (
        impl FnMut(&mut T, Range<u64>) + Send,
        impl FnMut(&mut R, &mut Place) + Send,
    ),
) -> Sample {
    match fan.way {
        Way::One => stream(fan, run, (tx, readers), (push, STEP), take),
        Way::Batch => stream(fan, run, (tx, readers), (batches, BATCH), drain),
        Way::Idle => idle(run, tx(), readers(), push, take),
        Way::Drained => drained(run, tx(), readers(), push, take),
        Way::Alone => alone(run, tx(), readers(), both),
        Way::Bare | Way::Trip => panic!("{fan} is not for these loops"),
    }
}

/// Runs the writer on one core, and its readers on the other.
fn stream<T, R>(
    fan: Fan,
    run: &Run,
    (tx, readers): (impl FnOnce() -> T + Send, impl FnOnce() -> Vec<R> + Send),
    (mut send, step): (impl FnMut(&mut T, Range<u64>) + Send, u64),
    mut take: impl FnMut(&mut R, &mut Place) + Send,
) -> Sample {
    let pace = Pace::new(fan.flow, run.capacity);
    let lost = AtomicU64::new(0);
    let sample = duel(
        run,
        || {
            let (mut tx, pace) = (tx(), &pace);
            move |range: Range<u64>| {
                for first in range.step_by(step as usize) {
                    pace.wait(first);
                    send(&mut tx, first..first + step);
                }
            }
        },
        || {
            let (mut readers, pace, lost) = (readers(), &pace, &lost);
            move |range| {
                let found = pump(&mut readers, range, pace, &mut take);
                lost.store(found.lost, Relaxed);
                found.bad
            }
        },
    );
    Sample {
        lost: lost.into_inner(),
        ..sample
    }
}

/// Times the writer alone. The readers take the remaining messages after the clock has stopped.
fn idle<T, R>(
    run: &Run,
    mut tx: T,
    mut readers: Vec<R>,
    mut push: impl FnMut(&mut T, Range<u64>),
    take: impl FnMut(&mut R, &mut Place),
) -> Sample {
    let sample = solo(run, |range| {
        push(&mut tx, range);
        0
    });
    let all = 0..run.warm + run.messages;
    let found = pump(&mut readers, all, &Pace::new(Flow::Free, 0), take);
    Sample {
        bad: found.bad,
        ..sample
    }
}

fn drained<T, R>(
    run: &Run,
    mut tx: T,
    mut readers: Vec<R>,
    mut push: impl FnMut(&mut T, Range<u64>),
    mut take: impl FnMut(&mut R, &mut Place),
) -> Sample {
    let pace = Pace::new(Flow::Wait, 0);
    let mut writing = Duration::ZERO;
    let sample = solo(run, |range| {
        writing = Duration::ZERO;
        let mut bad = 0;
        for first in range.step_by(BATCH as usize) {
            let batch = first..first + BATCH;
            let start = Instant::now();
            push(&mut tx, batch.clone());
            writing += start.elapsed();
            bad |= pump(&mut readers, batch, &pace, &mut take).bad;
        }
        bad
    });
    Sample {
        own: Some(writing),
        ..sample
    }
}

fn alone<T, R>(
    run: &Run,
    mut tx: T,
    mut readers: Vec<R>,
    mut both: impl FnMut(&mut T, &mut R, &mut Place),
) -> Sample {
    let rx = &mut readers[0];
    solo(run, |range| {
        let mut place = Place::new(range);
        both(&mut tx, rx, &mut place);
        place.bad | place.lost | (place.next ^ place.end)
    })
}

/// Runs [`Way::Bare`], for two contenders. `pass` hands over the same message and, if asked to,
/// checks the one that came. Otherwise it shows the message only to the optimizer. It returns zero
/// if all was well.
pub fn bare(run: &Run, mut pass: impl FnMut(bool) -> u64) -> Sample {
    solo(run, |range| {
        let bad = range.skip(1).fold(0, |bad, _| bad | pass(false));
        bad | pass(true)
    })
}

/// Waits for message `seq` and takes it; for round trips.
#[inline(always)]
pub fn wait_for<R>(rx: &mut R, seq: u64, mut pop: impl FnMut(&mut R, &mut Place) -> bool) -> u64 {
    let mut place = Place::new(seq..seq + 1);
    while place.next == seq {
        if !pop(rx, &mut place) {
            std::hint::spin_loop();
        }
    }
    place.bad | place.lost
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the place of a reader that meets these in turn: a message's check, or a loss.
    fn read(range: Range<u64>, found: &[Result<u64, u64>]) -> Place {
        let mut left = [found.iter()];
        pump(
            &mut left,
            range,
            &Pace::new(Flow::Free, 0),
            |left, place| match left.next() {
                Some(Ok(check)) => place.took(*check),
                Some(Err(count)) => place.lost(*count),
                None => {}
            },
        )
    }

    /// Messages that were received and messages reported as lost add up to what was sent.
    #[test]
    fn received_plus_lost_equals_sent() {
        let place = read(5..10, &[Ok(0), Err(3), Ok(0)]);
        assert_eq!((place.bad, place.lost), (0, 3));
    }

    /// A reported loss of messages that were never sent counts as a fault.
    #[test]
    fn losing_unsent_messages_is_bad() {
        assert_ne!(read(5..10, &[Ok(0), Err(5)]).bad, 0);
    }

    #[test]
    fn a_wrong_word_shows() {
        assert_ne!(read(0..2, &[Ok(4), Ok(0)]).bad, 0);
    }

    /// Without reported losses, a message from before the expected one counts as a fault.
    #[test]
    fn a_backward_jump_is_bad() {
        let mut place = Place::new(4..10);
        place.found(6);
        assert_eq!((place.next, place.lost, place.bad), (6, 2, 0));
        place.found(3);
        assert_ne!(place.bad, 0);
    }
}

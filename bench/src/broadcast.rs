//! Broadcast: one writer, and readers that all see all. What is asked, and the loops around a
//! contender's calls.
//!
//! ```text
//! core 0   the writer
//! core 1   one thread, which polls all readers in turn, each for what it has, up to 256 messages
//! ```
//!
//! So more readers than one share a core, whatever the machine has: what a writer meets is the same
//! number of places to look at, and lines that one other core reads.
//!
//! A reader knows which message must come next, and checks all of each. One that is told of a loss goes
//! on behind it, and must arrive exactly at the end: received and lost are together what was sent.

use crate::duel::{Alone, Run, Sample, duel, solo};
use crate::message::BATCH;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

/// Readers, where that is what varies.
pub const READERS: &[usize] = &[1, 2, 4, 16, 63];
/// The two that are compared with each other.
pub const FEW_AND_MANY: &[usize] = &[1, 63];

/// One thing asked of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fan {
    /// What is timed.
    pub way: Way,
    /// What happens when the ring is full.
    pub flow: Flow,
    /// Bytes a message.
    pub size: usize,
    /// How many read each message.
    pub readers: usize,
}

/// What is timed, and how messages are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// A stream, one at a time, until all readers have all.
    One,
    /// A stream, 256 at a time on both sides.
    Batch,
    /// The writer alone: one at a time, beside readers that never read.
    Idle,
    /// The writer's part of one thread that writes 256 and has each reader take them.
    Drained,
    /// One thread: push, publish, pop.
    Alone,
    /// The same as que's own benchmark does it: always the same message, and nobody checks it.
    Bare,
    /// A round trip, through two.
    Trip,
}

/// What happens when the ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// The writer waits for the slowest reader.
    Wait,
    /// It overwrites, but we hold it back half a ring before the slowest, so that nothing is lost.
    Paced,
    /// It overwrites, and writes as fast as it can.
    Free,
}

impl Fan {
    /// All of them.
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

    /// This one with each number of readers that is asked for.
    pub fn columns(self) -> impl Iterator<Item = Fan> {
        let counts = match (self.way, self.flow) {
            (Way::One | Way::Batch, Flow::Wait | Flow::Paced) => READERS,
            (Way::One | Way::Batch, Flow::Free) | (Way::Idle | Way::Drained, _) => FEW_AND_MANY,
            (Way::Alone | Way::Bare | Way::Trip, _) => &[1],
        };
        counts.iter().map(move |&readers| Fan { readers, ..self })
    }

    /// Whether the figure is a time.
    pub fn is_time(self) -> bool {
        matches!(self.way, Way::Idle | Way::Drained | Way::Trip)
    }

    /// Whether no message may be lost.
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

/// Where a reader stands in a stretch.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The message that must come next.
    pub next: u64,
    /// Behind the last.
    end: u64,
    /// Nonzero if anything was wrong.
    pub bad: u64,
    /// How many messages are lost.
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

    /// All that are left.
    pub fn all(&self) -> Range<u64> {
        self.next..self.end
    }

    /// The next message came, and its check found this.
    #[inline(always)]
    pub fn took(&mut self, found: u64) {
        self.bad |= found;
        self.next += 1;
    }

    /// So many messages will not come.
    #[cold]
    pub fn lost(&mut self, count: u64) {
        self.lost += count;
        self.next += count;
        // What was never sent cannot be lost.
        self.bad |= u64::from(self.next > self.end);
    }

    /// Message `number` is here, says its first word; for contenders that do not tell their losses.
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

/// How a writer that waits for nobody is held back. One word, so that it costs all contenders alike.
struct Pace {
    slowest: Alone,
    ahead: u64,
}

/// Messages between two looks at the pace.
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

    /// Before message `seq` and those of one step are written.
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

/// Has all readers take a range, in turn; says where they ended, together: anything wrong, and how
/// many each lost on average.
///
/// `take` has a reader take what there is, up to [`BATCH`] messages.
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

/// Does what `fan` asks with a contender's calls, but for [`Way::Bare`] and [`Way::Trip`].
///
/// Of the calls, the first pair hands over one message, the second 256, or what there is; who takes says
/// whether there may be more. The loops around them are made here, for each contender: passed as functions
/// they were inlined into one contender's loop and not into another's, and that decided who won.
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

/// What [`to_all!`](crate::to_all) becomes. The ends are made where they are used. Of the calls, the first three
/// send a range, take what there is, and do both by turns; the last two do so in batches.
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

/// The writer on one core, its readers on the other.
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

/// What is left for the readers they take when the clock has stopped.
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

/// [`Way::Bare`], for two contenders: `pass` hands over the same message, checks what came if it is told to,
/// and else shows it to nobody but the optimizer; zero if all was well.
pub fn bare(run: &Run, mut pass: impl FnMut(bool) -> u64) -> Sample {
    solo(run, |range| {
        let bad = range.skip(1).fold(0, |bad, _| bad | pass(false));
        bad | pass(true)
    })
}

/// Takes message `seq`, waiting for it; for round trips.
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

    /// A reader that finds these in turn: a message's check, or a loss.
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

    #[test]
    fn received_and_lost_are_what_was_sent() {
        let place = read(5..10, &[Ok(0), Err(3), Ok(0)]);
        assert_eq!((place.bad, place.lost), (0, 3));
    }

    #[test]
    fn a_loss_of_what_was_never_sent_shows() {
        assert_ne!(read(5..10, &[Ok(0), Err(5)]).bad, 0);
    }

    #[test]
    fn a_wrong_word_shows() {
        assert_ne!(read(0..2, &[Ok(4), Ok(0)]).bad, 0);
    }

    #[test]
    fn a_message_from_before_shows_where_losses_are_not_told() {
        let mut place = Place::new(4..10);
        place.found(6);
        assert_eq!((place.next, place.lost, place.bad), (6, 2, 0));
        place.found(3);
        assert_ne!(place.bad, 0);
    }
}

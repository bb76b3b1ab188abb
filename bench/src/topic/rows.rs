//! slipring's rows.

use super::sleep::{asleep, check, mark};
use super::{FRAME, FRAMES, HISTORY, Row, duelled, pair, row};
use crate::duel::{duel, pin};
use crate::{answer, ask, spin};
use slipring::topic::{Builder, Publisher, Subscriber, records};
use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// A message of 64 bytes.
type Message = [u64; 8];

pub const ROWS: &[Row] = &[
    row("latest", latest),
    row("publish/one-seat", |s| publish(s, 1, false)),
    row("publish/seats", |s| publish(s, 16, false)),
    row("publish/one-seat/stamped", |s| publish(s, 1, true)),
    row("publish/seats/stamped", |s| publish(s, 16, true)),
    pair("trip/one-seat", |s| trip(s, 1)),
    pair("trip/seats", |s| trip(s, 4)),
    pair("view/64B", |s| view(s, 64, 64)),
    pair("view/64B/large-slots", |s| view(s, FRAME, 64)),
    pair("view/6.2MB", |s| view(s, FRAME, FRAME)),
    pair("sleep/64B", |s| sleep(s, 64)),
    pair("sleep/6.2MB", |s| sleep(s, FRAME)),
    pair("crowd/1", |s| crowd(s, 1)),
    pair("crowd/60", |s| crowd(s, 60)),
];

/// The messages of a stretch, of which the fastest counts.
const STRETCH: u64 = 1 << 14;

/// Returns the nanoseconds of one step in the fastest of many stretches.
fn fastest(seconds: f64, mut stretch: impl FnMut(Range<u64>)) -> f64 {
    let (begun, mut best, mut next) = (Instant::now(), f64::INFINITY, 0);
    while begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        stretch(next..next + STRETCH);
        best = best.min(start.elapsed().as_nanos() as f64 / STRETCH as f64);
        next += STRETCH;
    }
    best
}

fn builder(seats: usize, stamps: bool) -> Builder<Message> {
    let builder = Builder::new(HISTORY).producers(seats);
    if stamps {
        builder.time_stamps()
    } else {
        builder
    }
}

/// Writes a message in place.
#[inline(always)]
fn put(tx: &mut Publisher<Message>, seq: u64) {
    let mut room = tx.try_reserve(1).expect("never full");
    room.write(0, [seq; 8]);
    room.commit(1);
}

/// Looks at the next message in place, and returns zero if it is the right one.
#[inline(always)]
fn take(rx: &mut Subscriber<Message>, seq: u64) -> u64 {
    let message = spin!(rx.try_read().ok());
    message.iter().fold(0, |bad, word| bad | (word ^ seq))
}

fn latest(seconds: f64) -> Result<f64, String> {
    pin(0);
    let channel = builder(1, false).heap().map_err(|e| e.to_string())?;
    let (mut tx, mut rx) = (
        channel.producer().map_err(|e| e.to_string())?,
        channel.consumer().map_err(|e| e.to_string())?,
    );
    put(&mut tx, 7);
    Ok(fastest(seconds, |range| {
        let mut sum = 0;
        for _ in range {
            let message = rx.latest().expect("a message");
            sum += message.iter().sum::<u64>();
        }
        black_box(sum);
    }))
}

fn publish(seconds: f64, seats: usize, stamps: bool) -> Result<f64, String> {
    pin(0);
    let channel = builder(seats, stamps).heap().map_err(|e| e.to_string())?;
    let mut tx = channel.producer().map_err(|e| e.to_string())?;
    let _rx = channel.consumer().map_err(|e| e.to_string())?;
    Ok(fastest(seconds, |range| {
        for seq in range {
            put(&mut tx, seq);
        }
    }))
}

fn trip(seconds: f64, seats: usize) -> Result<f64, String> {
    duelled(seconds, false, |run| {
        let topic = || builder(seats, false).memfd().expect("a topic");
        let (there, back) = (topic(), topic());
        duel(
            run,
            || {
                let mut rx = there.consumer().expect("a subscriber");
                let mut tx = back.producer().expect("a publisher");
                move |range| answer!(&mut rx, &mut tx, range, put, take)
            },
            || {
                let mut tx = there.producer().expect("a publisher");
                let mut rx = back.consumer().expect("a subscriber");
                move |range| ask!(&mut tx, &mut rx, range, put, take)
            },
        )
    })
}

/// Publishes `len` bytes in slots for `largest`, views them in another process, and waits for its answer.
fn view(seconds: f64, largest: usize, len: usize) -> Result<f64, String> {
    duelled(seconds, true, |run| {
        let there = records::Builder::new(FRAMES, largest).producers(1).memfd();
        let there = there.expect("a topic");
        let back = builder(1, false).memfd().expect("a topic");
        let see = |rx: &mut records::Subscriber, seq: u64| {
            let frame = spin!(rx.try_read().ok());
            check(&frame, seq)
        };
        duel(
            run,
            || {
                let mut rx = there.consumer().expect("a subscriber");
                let mut tx = back.producer().expect("a publisher");
                move |range: Range<u64>| {
                    for seq in range {
                        let bad = see(&mut rx, seq);
                        put(&mut tx, seq ^ bad);
                    }
                }
            },
            || {
                let mut tx = there.producer().expect("a publisher");
                let mut rx = back.consumer().expect("a subscriber");
                move |range: Range<u64>| {
                    let mut bad = 0;
                    for seq in range {
                        show(&mut tx, len, seq);
                        bad |= take(&mut rx, seq);
                    }
                    bad
                }
            },
        )
    })
}

/// Publishes `len` bytes to a subscriber in another process that sleeps.
fn sleep(seconds: f64, len: usize) -> Result<f64, String> {
    let topic = records::Builder::new(FRAMES, len).producers(1).memfd();
    let topic = topic.map_err(|e| e.to_string())?;
    asleep(
        seconds,
        || {
            let mut rx = topic.consumer().map_err(|e| e.to_string())?;
            Ok(move |seq| check(&rx.read().expect("a publisher"), seq))
        },
        || {
            let mut tx = topic.producer().map_err(|e| e.to_string())?;
            Ok(move |seq| show(&mut tx, len, seq))
        },
    )
}

/// Publishes a frame as it lies there, but for its number.
#[inline(always)]
fn show(tx: &mut records::Publisher, len: usize, seq: u64) {
    let mut frame = tx.try_reserve(len).expect("never full");
    mark(&mut frame[..len], seq);
    frame.commit(len);
}

/// Publishes while so many subscribers look at the newest message again and again, all of them on one other core.
fn crowd(seconds: f64, subscribers: usize) -> Result<f64, String> {
    let channel = builder(1, false).consumers(60).heap();
    let channel = channel.map_err(|e| e.to_string())?;
    let mut tx = channel.producer().map_err(|e| e.to_string())?;
    let rxs = (0..subscribers).map(|_| channel.consumer());
    let mut rxs = rxs
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| e.to_string())?;
    let done = AtomicBool::new(false);
    let nanos = std::thread::scope(|threads| {
        threads.spawn(|| {
            pin(1);
            let mut sum = 0;
            while !done.load(Relaxed) {
                for rx in &mut rxs {
                    sum += rx.latest().map_or(0, |message| message[0]);
                }
            }
            black_box(sum);
        });
        pin(0);
        let mut next = 0;
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < seconds {
            (next..next + STRETCH).for_each(|seq| put(&mut tx, seq));
            next += STRETCH;
        }
        let nanos = begun.elapsed().as_nanos() as f64 / next as f64;
        done.store(true, Relaxed);
        nanos
    });
    Ok(nanos)
}

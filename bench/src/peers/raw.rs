//! No channel at all: two cores pass a cache line to and fro, the lower bound of any round trip.
//!
//! On one line, each turn transfers the line and the right to write it. On two, each side writes
//! its own and watches the other's. Which is faster depends on the machine. So both are measured,
//! and the faster one is *the raw line* of the tables.

use super::{About, Kind};
use crate::broadcast::Way;
use crate::duel::{Alone, Run, Sample, duel};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::*};

pub const ONE_LINE: About = About {
    name: "raw, one line",
    kind: Kind::Bound,
    package: None,
    modes: &[],
    round_trip: true,
    records: &[],
    broadcast: |fan| fan.way == Way::Trip,
    slip: false,
    aligned: false,
    spins: true,
    how: "one word that both sides store to in turn",
};

pub const TWO_LINES: About = About {
    name: "raw, two lines",
    how: "one word a side, 256 bytes apart",
    ..ONE_LINE
};

pub fn one_line(run: &Run) -> Sample {
    let line = Alone(AtomicU64::new(u64::MAX));
    ping_pong(run, &line.0, &line.0)
}

pub fn two_lines(run: &Run) -> Sample {
    let lines = [
        Alone(AtomicU64::new(u64::MAX)),
        Alone(AtomicU64::new(u64::MAX)),
    ];
    ping_pong(run, &lines[0].0, &lines[1].0)
}

/// Runs the round trip. Question `seq` is stored as `2 * seq`, its answer as `2 * seq + 1`.
fn ping_pong(run: &Run, ask: &AtomicU64, answer: &AtomicU64) -> Sample {
    let wait = |word: &AtomicU64, value| {
        while word.load(Acquire) != value {
            std::hint::spin_loop();
        }
    };
    duel(
        run,
        || {
            move |range: Range<u64>| {
                for seq in range {
                    wait(ask, 2 * seq);
                    answer.store(2 * seq + 1, Release);
                }
            }
        },
        || {
            move |range: Range<u64>| {
                for seq in range {
                    ask.store(2 * seq, Release);
                    wait(answer, 2 * seq + 1);
                }
                0
            }
        },
    )
}

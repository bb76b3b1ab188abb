//! `slipring-bench probe`: what this machine takes to move lines between two cores, and the floors that follow for a ring.
//!
//! Two pinned threads take turns at the same lines. A round trip is the median of some rounds, since it depends on where the
//! lines lie. The cost of a line in order is the least of them: other work of the machine only adds to it. `docs/speed.md` says how the floors follow from these costs, and what a ring adds.

use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Instant;

use crate::duel::{Alone, pin};
use crate::machine;

/// The command line of `slipring-bench probe`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The two cores.
    #[arg(long, default_value = "0,1", value_parser = crate::cores)]
    cores: (usize, usize),
    /// The number of rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// The number of turns in a round of round trips.
const TRIPS: u64 = 20_000;
/// The sizes of memory that are passed, in bytes: those of the bench's rings of 4096 messages.
const SIZES: [(usize, &str); 4] = [(8, "8 B"), (64, "64 B"), (1264, "1264 B"), (4096, "4096 B")];
const SLOTS: usize = 4096;
const LINE: usize = 64;

/// The costs of a line, in nanoseconds, where lines are taken in order.
#[derive(Clone, Copy)]
struct Costs {
    /// Reading a line that the other core wrote.
    read: f64,
    /// Writing a line that the other core has read.
    write_read: f64,
    /// Writing a line that the other core has written.
    write_written: f64,
    /// Writing and reading a line that no other core touches.
    alone: f64,
}

/// Probes the machine and prints its costs and the floors.
pub fn probe(options: &Options) -> Result<(), String> {
    let machine = machine::look();
    println!("processor: {}", machine.cpu);
    println!(
        "cores {} and {}, {}\n",
        options.cores.0, options.cores.1, machine.caches
    );
    let one = trips(options, Trip::OneLine);
    let two = trips(options, Trip::TwoLines);
    let late = trips(options, Trip::Message { early: false });
    let early = trips(options, Trip::Message { early: true });
    println!("| a round trip by | ns |\n|---|---:|");
    println!("| one line, both ways | {one:.0} |");
    println!("| a line each way | {two:.0} |");
    println!(
        "| a line for the position and one for the message, each way, loaded one after the other | {late:.0} |"
    );
    println!(
        "| the same, the message's line asked for at each poll: the floor of a ring | {early:.0} |\n"
    );
    println!(
        "| ring of {SLOTS} slots | read what the other wrote | write what the other read | write what the other wrote | alone | floor of a stream, M/s |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (size, name) in SIZES {
        let costs = costs(options, size * SLOTS);
        let lines = size as f64 / LINE as f64;
        let floor = 1e3 / (lines * costs.read.max(costs.write_read.min(costs.write_written)));
        println!(
            "| {name} | {:.2} ns a line | {:.2} | {:.2} | {:.2} | {floor:.1} |",
            costs.read, costs.write_read, costs.write_written, costs.alone
        );
    }
    Ok(())
}

/// The lines by which a round trip is made.
#[derive(Clone, Copy)]
enum Trip {
    OneLine,
    TwoLines,
    Message {
        /// `true` if a side that waits asks for the message's line at each poll.
        early: bool,
    },
}

/// The words of both directions.
struct Lines {
    position: [Alone; 2],
    messages: [[Alone; 64]; 2],
}

/// Returns the nanoseconds of a round trip: the median of the rounds.
fn trips(options: &Options, trip: Trip) -> f64 {
    let mut times = Vec::new();
    for _ in 0..options.rounds {
        // New memory each time: how far a line is depends on its address.
        let lines = Box::leak(Box::new(Lines {
            position: [const { Alone(AtomicU64::new(0)) }; 2],
            messages: [const { [const { Alone(AtomicU64::new(0)) }; 64] }; 2],
        }));
        let lines = &*lines;
        let took = std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(options.cores.0);
                for turn in 1..=TRIPS {
                    receive(lines, trip, 0, turn);
                    send(lines, trip, 1, turn);
                }
            });
            let asking = scope.spawn(|| {
                pin(options.cores.1);
                let start = Instant::now();
                for turn in 1..=TRIPS {
                    send(lines, trip, 0, turn);
                    receive(lines, trip, 1, turn);
                }
                start.elapsed().as_nanos() as f64 / TRIPS as f64
            });
            asking.join().expect("no side panics")
        });
        times.push(took);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Returns the word of a direction, and its value at this turn: one word serves both directions by odd and even values.
fn word(lines: &Lines, trip: Trip, way: usize, turn: u64) -> (&AtomicU64, u64) {
    match trip {
        Trip::OneLine => (&lines.position[0].0, 2 * turn + way as u64),
        _ => (&lines.position[way].0, turn),
    }
}

#[inline(always)]
fn send(lines: &Lines, trip: Trip, way: usize, turn: u64) {
    if let Trip::Message { .. } = trip {
        lines.messages[way][turn as usize % 64]
            .0
            .store(turn, Relaxed);
    }
    let (word, value) = word(lines, trip, way, turn);
    word.store(value, Release);
}

#[inline(always)]
fn receive(lines: &Lines, trip: Trip, way: usize, turn: u64) {
    let (word, value) = word(lines, trip, way, turn);
    let message = &lines.messages[way][turn as usize % 64].0;
    while word.load(Acquire) != value {
        if let Trip::Message { early: true } = trip {
            ask_for(message);
        }
        std::hint::spin_loop();
    }
    if let Trip::Message { .. } = trip {
        assert_eq!(
            message.load(Relaxed),
            turn,
            "the message came before its position"
        );
    }
}

/// Asks for the line of a word, to be read soon. Does nothing on processors for which it is not written.
#[inline(always)]
fn ask_for(word: &AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed, and changes nothing that can be seen.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}

/// Passes `size` bytes to and fro, in order, and returns what each line cost.
fn costs(options: &Options, size: usize) -> Costs {
    let words: Vec<AtomicU64> = (0..size / 8).map(|_| AtomicU64::new(0)).collect();
    let (words, turn) = (&words[..], &Alone(AtomicU64::new(0)));
    let rounds = options.rounds as u64;
    // The other core's part: it reads at one turn, and writes at the next.
    let other = move |round: u64| {
        wait(turn, 4 * round + 1);
        let read = timed(words, read);
        next(turn);
        wait(turn, 4 * round + 3);
        timed(words, |words| write(words, round));
        next(turn);
        read
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            pin(options.cores.1);
            (0..rounds).map(other).fold(f64::INFINITY, f64::min)
        });
        pin(options.cores.0);
        let (mut written, mut was_read) = (f64::INFINITY, f64::INFINITY);
        for round in 0..rounds {
            // The lines are the other core's, which wrote them last.
            let took = timed(words, |words| write(words, round));
            written = if round == 0 {
                written
            } else {
                written.min(took)
            };
            next(turn);
            wait(turn, 4 * round + 2);
            was_read = was_read.min(timed(words, |words| write(words, round)));
            next(turn);
            wait(turn, 4 * round + 4);
        }
        let read_there = other.join().expect("the other core reads and writes");
        let mut alone = f64::INFINITY;
        for round in 0..=rounds {
            let took = timed(words, |words| write(words, round)) + timed(words, read);
            alone = if round == 0 { alone } else { alone.min(took) };
        }
        Costs {
            read: read_there,
            write_read: was_read,
            write_written: written,
            alone,
        }
    })
}

fn wait(turn: &Alone, value: u64) {
    while turn.0.load(Acquire) < value {
        std::hint::spin_loop();
    }
}

fn next(turn: &Alone) {
    turn.0.fetch_add(1, AcqRel);
}

/// Returns the nanoseconds that `work` takes a line.
fn timed(words: &[AtomicU64], work: impl Fn(&[AtomicU64])) -> f64 {
    let start = Instant::now();
    work(words);
    start.elapsed().as_nanos() as f64 / (words.len() * 8) as f64 * LINE as f64
}

fn write(words: &[AtomicU64], value: u64) {
    for (word, i) in words.iter().zip(0..) {
        word.store(value ^ i, Relaxed);
    }
}

fn read(words: &[AtomicU64]) {
    let mut sum = 0_u64;
    for word in words {
        sum = sum.wrapping_add(word.load(Relaxed));
    }
    std::hint::black_box(sum);
}

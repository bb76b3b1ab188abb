//! `slipring-bench growth`: a channel that can grow beside one of fixed capacity, before and after it has grown; what a resize
//! takes; and how long a consumer is kept from its messages while it gives memory back.
//!
//! All runs are in this process, on two pinned threads, and the contenders take turns: what the machine does meanwhile
//! concerns all of them. A ratio is that of the medians.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use slipring::{Builder, Error, GrowKind, Payload, bytes, spsc};

use crate::duel::pin;
use crate::machine;

/// The command line of `slipring-bench growth`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The two cores.
    #[arg(long, default_value = "0,1", value_parser = crate::cores)]
    cores: (usize, usize),
    /// The number of runs of each contender in each case.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// The length of a run in seconds.
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
}

/// The capacity of the fixed channels, in slots; rings of records have as many times 64 bytes.
const SLOTS: usize = 4096;
/// How much smaller a channel begins that grows to that, and how much larger it could become.
const TIMES: usize = 64;

/// How the channel of a run comes to its capacity.
#[derive(Clone, Copy, PartialEq)]
enum Contender {
    Fixed,
    /// It can grow, and never did.
    Growable,
    /// It began smaller.
    Grown,
}

const CONTENDERS: [Contender; 3] = [Contender::Fixed, Contender::Growable, Contender::Grown];

/// The ends of a run's channel.
type Ends<K> = (slipring::Producer<K>, slipring::Consumer<K>);

/// Makes a contender's channel of `capacity` in memfds.
fn ends<K: GrowKind>(
    contender: Contender,
    new: impl Fn(usize) -> Builder<K>,
    capacity: usize,
) -> Ends<K> {
    let builder = match contender {
        Contender::Fixed => new(capacity),
        Contender::Growable => new(capacity).max_capacity(capacity * TIMES),
        Contender::Grown => new(capacity / TIMES).max_capacity(capacity),
    };
    let channel = builder.memfd().expect("a channel");
    let (mut tx, mut rx) = (
        channel.producer().expect("a producer"),
        channel.consumer().expect("a consumer"),
    );
    if contender == Contender::Grown {
        tx.resize(capacity).expect("a larger ring");
        rx.settle();
    }
    (tx, rx)
}

/// Moves messages for some time, and returns how many a second came over.
fn stream<K: GrowKind>(
    options: &Options,
    ends: Ends<K>,
    mut send: impl FnMut(&mut slipring::Producer<K>) + Send,
    mut receive: impl FnMut(&mut slipring::Consumer<K>) -> u64 + Send,
) -> f64 {
    let (mut tx, mut rx) = ends;
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(options.cores.0);
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    send(&mut tx);
                }
            }
        });
        let counted = scope.spawn(move || {
            pin(options.cores.1);
            // Until both are at work.
            let warm = Instant::now();
            while warm.elapsed() < Duration::from_millis(20) {
                let _ = (0..64).map(|_| receive(&mut rx)).sum::<u64>();
            }
            let (mut count, began) = (0, Instant::now());
            while began.elapsed().as_secs_f64() < options.seconds {
                count += (0..64).map(|_| receive(&mut rx)).sum::<u64>();
            }
            let rate = count as f64 / began.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            rate
        });
        counted.join().expect("no side panics")
    })
}

fn values<const WORDS: usize>(options: &Options, contender: Contender) -> f64
where
    [u64; WORDS]: Payload,
{
    let ends = ends(contender, spsc::Builder::<[u64; WORDS]>::new, SLOTS);
    let mut number = 0;
    stream(
        options,
        ends,
        move |tx| {
            number += 1;
            let _ = tx.try_push([number; WORDS]);
        },
        |rx| {
            u64::from(
                rx.try_pop()
                    .is_ok_and(|message| std::hint::black_box(message)[0] > 0),
            )
        },
    )
}

fn batches(options: &Options, contender: Contender) -> f64 {
    let ends = ends(contender, spsc::Builder::<u64>::new, SLOTS);
    stream(
        options,
        ends,
        |tx| {
            let _ = tx.try_push_slice(&[7; 64]);
        },
        |rx| {
            rx.try_read_batch(64)
                .map_or(0, |batch| std::hint::black_box(&batch).len() as u64)
        },
    )
}

fn records(options: &Options, contender: Contender, len: usize) -> f64 {
    let new = |ring| bytes::Builder::new(ring).max_record(len);
    let ends = ends(contender, new, SLOTS * 64 * (len / 64).next_power_of_two());
    let record = vec![7; len];
    stream(
        options,
        ends,
        move |tx| {
            let _ = tx.try_push(&record);
        },
        |rx| {
            rx.try_read().map_or(0, |record| {
                u64::from(std::hint::black_box(&*record)[0] == 7)
            })
        },
    )
}

/// Returns the round trips a second of 8 bytes.
fn round_trips(options: &Options, contender: Contender) -> f64 {
    let there = ends(contender, spsc::Builder::<u64>::new, SLOTS);
    let back = ends(contender, spsc::Builder::<u64>::new, SLOTS);
    let ((mut ask, mut asked), (mut answer, mut answered)) = (there, back);
    let pop = |rx: &mut spsc::Consumer<u64>| loop {
        match rx.try_pop() {
            Ok(value) => return Some(value),
            Err(Error::Empty) => std::hint::spin_loop(),
            Err(_) => return None,
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(options.cores.0);
            while let Some(value) = pop(&mut asked) {
                let _ = answer.try_push(value);
            }
        });
        let counted = scope.spawn(move || {
            pin(options.cores.1);
            let (mut count, began) = (0, Instant::now());
            while began.elapsed().as_secs_f64() < options.seconds {
                for _ in 0..64 {
                    let _ = ask.try_push(count);
                    let _ = pop(&mut answered);
                    count += 1;
                }
            }
            count as f64 / began.elapsed().as_secs_f64()
        });
        counted.join().expect("no side panics")
    })
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// A case, and what it measures for a contender.
type Case<'a> = (&'a str, Box<dyn Fn(Contender) -> f64 + 'a>);

/// Measures and prints the tables.
pub fn compare(options: &Options) -> Result<(), String> {
    let machine = machine::look();
    println!("processor: {}", machine.cpu);
    println!(
        "\n| case | fixed, M/s | growable, never resized | wanted | grown to this size | wanted |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let cases: [Case<'_>; 7] = [
        (
            "8 B, one at a time",
            Box::new(|who| values::<1>(options, who)),
        ),
        (
            "64 B, one at a time",
            Box::new(|who| values::<8>(options, who)),
        ),
        (
            "1264 B, one at a time",
            Box::new(|who| values::<158>(options, who)),
        ),
        ("8 B, batches of 64", Box::new(|who| batches(options, who))),
        ("records of 64 B", Box::new(|who| records(options, who, 64))),
        (
            "records of 1264 B",
            Box::new(|who| records(options, who, 1264)),
        ),
        (
            "round trips of 8 B",
            Box::new(|who| round_trips(options, who)),
        ),
    ];
    for (name, measure) in &cases {
        let mut samples = [vec![], vec![], vec![]];
        for round in 0..options.rounds {
            for turn in 0..3 {
                let who = (round + turn) % 3;
                samples[who].push(measure(CONTENDERS[who]));
            }
        }
        let [fixed, growable, grown] = samples.map(median);
        println!(
            "| {name} | {:.2} | {:.3} | 0.98 | {:.3} | 0.97 |",
            fixed / 1e6,
            growable / fixed,
            grown / fixed
        );
    }
    resizes();
    Ok(())
}

/// Measures what resizes take, and the steps by which memory goes back.
fn resizes() {
    println!(
        "\n| ring | resize, µs | wanted: 30 µs and 1 ms a MiB | the longest step of giving it back, µs | wanted |"
    );
    println!("|---:|---:|---:|---:|---:|");
    for shift in [16, 20, 22, 24, 26] {
        let (mut took, mut longest) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            let channel = bytes::Builder::new(4096).max_capacity(1 << shift).memfd();
            let channel = channel.expect("a channel");
            let mut tx = channel.producer().expect("a producer");
            let mut rx = channel.consumer().expect("a consumer");
            let began = Instant::now();
            tx.resize(1 << shift).expect("a larger ring");
            took.push(began.elapsed().as_secs_f64() * 1e6);
            rx.settle();
            tx.resize(4096).expect("the first ring");
            let mut step: f64 = 0.0;
            // Each look gives back a part.
            while channel
                .stat()
                .is_ok_and(|stat| stat.growth.is_some_and(|growth| growth.rings != Some(1)))
            {
                let began = Instant::now();
                let _ = rx.try_read();
                step = step.max(began.elapsed().as_secs_f64() * 1e6);
            }
            longest.push(step);
        }
        let mib = (1u64 << shift) as f64 / f64::from(1 << 20);
        println!(
            "| {} KiB | {:.0} | {:.0} | {:.0} | 500 |",
            (1u64 << shift) / 1024,
            median(took),
            30.0 + 1000.0 * mib,
            median(longest)
        );
    }
}

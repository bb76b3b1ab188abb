//! Kills and stops processes at random, and accounts for every message.
//!
//! ```text
//! storm [KILLS]          this many kills, of all kinds and all ways to wait; no count is kept
//! storm --until KILLS    until this many kills in all: goes on where `verify/RESULTS.md` stands
//! storm --soak SECONDS   all kinds at once, as fast as they go; adds the result to `verify/RESULTS.md`
//! storm --stop SECONDS   stops the holder of each seat for that long: it is never reclaimed
//! ```
//!
//! Two to eight processes share a channel. As many as there are seats hold one, and pass numbered
//! messages, each of which holds its number and can be checked in full. The others want the seats,
//! and try again and again. A queue and a topic have up to three producers and three consumers.
//!
//! Between two blows messages pass. A blow kills one process or two, kills one while another is
//! stopped, or stops one; each killed process is replaced. After each blow, everybody must go on.
//!
//! The storm panics, with exit code 1, if a message is lost, torn, out of place, or twice without
//! reason. It also panics if a live process is reported dead, or if a process waits for more than a
//! minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kinds;
mod ledger;
mod queue;
mod scenario;
mod tally;
mod topic;
mod watch;
mod words;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use slipring_testkit::Kind;

use kinds::Way;
use scenario::{Plot, Scenario};
use tally::{Count, Results, Row, Tally, figure};

/// The number of kills in one scenario.
const SHARD: u64 = 180;
/// The number of processes in a scenario.
const PROCESSES: std::ops::RangeInclusive<u64> = 2..=8;

#[derive(Parser)]
struct Args {
    /// The number of processes to kill.
    #[arg(default_value_t = 9_720)]
    kills: u64,
    /// Go on until this many were killed in all; the counts are kept in verify/RESULTS.md.
    #[arg(long, value_name = "KILLS")]
    until: Option<u64>,
    /// Instead, let all kinds run at once for this long, and add the result to verify/RESULTS.md.
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    /// Instead, stop the holder of each seat for this long.
    #[arg(long, value_name = "SECONDS")]
    stop: Option<u64>,
    /// Run only kinds whose names begin with this.
    #[arg(long, value_name = "KIND", default_value = "")]
    kind: String,
    /// The number of scenarios at once. Times are worth most with one.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Be a worker of a scenario.
    #[arg(long, hide = true, num_args = 4, value_name = "WHO")]
    worker: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.worker.is_empty() {
        worker::run(&args.worker);
        return ExitCode::SUCCESS;
    }
    let mut kinds = Vec::from_iter(kinds::all());
    kinds.retain(|kind| kind.name.starts_with(&args.kind));
    let well = match (args.soak, args.stop, args.until) {
        (Some(seconds), _, _) => soak(&kinds, seconds),
        (_, Some(seconds), _) => stop(&kinds, seconds),
        (_, _, Some(kills)) => storm(&kinds, Results::load(), kills, args.jobs, true),
        _ => storm(&kinds, Results::default(), args.kills, args.jobs, false),
    };
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns the rows of the results, each with its kind and its way to wait.
fn rows(kinds: &[&'static Kind]) -> Vec<(Row, &'static Kind, Way)> {
    let ways = |kind: &&'static Kind| Way::ALL.map(|way| (*kind, way));
    let rows = kinds.iter().flat_map(ways);
    rows.map(|(kind, way)| ((kind.name.into(), way.name().into()), kind, way))
        .collect()
}

/// Runs storms until `total` were killed in all. Returns `true` if all went well.
fn storm(kinds: &[&'static Kind], results: Results, total: u64, jobs: usize, keep: bool) -> bool {
    let rows = rows(kinds);
    // A scenario counts as run once it has begun, when the next one is chosen.
    let begun = rows.iter().map(|(row, ..)| results.kills(row)).collect();
    let begun = Mutex::<Vec<u64>>::new(begun);
    let next = || {
        let mut begun = begun.lock().unwrap();
        let open = begun.iter().sum::<u64>() < total;
        let (index, kills) = begun
            .iter_mut()
            .enumerate()
            .min_by_key(|row| *row.1)
            .filter(|_| open)?;
        let shard = *kills / SHARD;
        *kills += SHARD;
        Some((index, shard))
    };
    let results = Mutex::new(results);
    let well = at_once(jobs, |well| {
        while let Some((index, shard)) = next().filter(|_| well.load(Ordering::Relaxed)) {
            let (row, kind, way) = &rows[index];
            let tally = rage(plot(kind, *way, index as u64, shard));
            let add = |results: &mut Results| results.add_storm(row.clone(), &tally);
            if keep {
                println!("{}", Results::keep(add).summary());
            } else {
                add(&mut results.lock().unwrap());
            }
        }
    });
    if !keep {
        let results = results.into_inner().unwrap();
        println!("{}\n\n{}", results.times_table(), results.summary());
    }
    well
}

/// Runs this many threads until all are done. Returns `true` if none of them panicked; the flag
/// tells the others.
fn at_once(threads: usize, act: impl Fn(&AtomicBool) + Sync) -> bool {
    let well = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if catch_unwind(AssertUnwindSafe(|| act(&well))).is_err() {
                    well.store(false, Ordering::Relaxed);
                }
            });
        }
    });
    well.into_inner()
}

/// Returns one scenario of the row's many. They differ in the number of workers, in the channel's
/// place, and in the dice.
fn plot(kind: &Kind, way: Way, row: u64, shard: u64) -> Plot<'_> {
    let sizes = PROCESSES.end() - PROCESSES.start() + 1;
    Plot {
        kind,
        way,
        passed: (row + shard + shard / sizes) % 2 == 1,
        processes: (PROCESSES.start() + (row + shard) % sizes) as usize,
        seed: (row << 48 | shard).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

fn rage(plot: Plot<'_>) -> Tally {
    let mut scenario = Scenario::begin(plot);
    while scenario.tally.get(Count::Kills) < SHARD {
        scenario.blow();
    }
    scenario.end()
}

/// Returns each kind twice: named and passed.
fn places(kinds: &[&'static Kind]) -> impl Iterator<Item = (&'static Kind, bool)> {
    kinds
        .iter()
        .flat_map(|kind| [(*kind, false), (*kind, true)])
}

fn soak(kinds: &[&'static Kind], seconds: u64) -> bool {
    let places = Mutex::new(places(kinds));
    at_once(2 * kinds.len(), |_| {
        let (kind, passed) = places.lock().unwrap().next().unwrap();
        let mut scenario = Scenario::begin(Plot {
            kind,
            way: Way::Stream,
            passed,
            // Of a queue, and of a topic: a process for each seat.
            processes: if kinds::is_shared(kind) { 6 } else { 2 },
            seed: 0,
        });
        scenario.rest(Duration::from_secs(seconds));
        let messages = scenario.end().get(Count::Messages);
        let place = if passed { "passed" } else { "named" };
        println!(
            "{} {place}: {} messages, 0 lost",
            kind.name,
            figure(messages)
        );
        let row = (kind.name.to_owned(), place.to_owned());
        Results::keep(|results| results.add_soak(row, seconds, messages));
    })
}

fn stop(kinds: &[&'static Kind], seconds: u64) -> bool {
    let holders = places(kinds).flat_map(|(kind, passed)| {
        // The first seat of each role.
        let seats = [0, kind.producers].into_iter();
        seats.flat_map(move |seat| [Way::Sleep, Way::Poll].map(|way| (kind, passed, seat, way)))
    });
    let holders = holders.collect::<Vec<_>>();
    let (count, holders) = (holders.len(), Mutex::new(holders));
    let well = at_once(count, |_| {
        let (kind, passed, seat, way) = holders.lock().unwrap().pop().unwrap();
        let mut scenario = Scenario::begin(Plot {
            kind,
            way,
            passed,
            processes: 4,
            seed: 0,
        });
        scenario.flow(100);
        scenario.hold(seat, Duration::from_secs(seconds));
        scenario.end();
    });
    if well {
        println!("{count} holders stopped for {seconds} s each: none was reclaimed, or told dead");
    }
    well
}

//! `slipring-bench topic`: publishing, and looking at the newest message, beside iceoryx2.
//!
//! Each figure is a time in nanoseconds. A row is measured in a process of its own, several times, by turns with the others.
//! The figure of a row is the least of its runs for calls without a partner, since whatever else the machine does only adds
//! to it; for round trips, the median.
//!
//! - `rows`: slipring's calls;
//! - `iceoryx`: the round trip of iceoryx2, publish-subscribe with the same history;
//! - `redis`: Redis Streams, with a subscriber that sleeps;
//! - `zenoh`: Zenoh with shared memory, likewise; measured if built with the feature `zenoh`;
//! - `sleep`: how publications to a sleeping subscriber are timed.

mod iceoryx;
mod redis;
mod rows;
mod sleep;
mod zenoh;

use crate::duel::{Run, Sample};
use crate::machine;
use crate::redis::directory;
use crate::referee::{answer, turn};
use crate::report::number;
use crate::steady::PROBE;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The command line of `slipring-bench topic`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Measure only the rows whose names contain one of these words.
    #[arg(num_args = 0.., value_name = "ROW")]
    only: Vec<String>,
    /// The number of runs of each row.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// The length of a run in seconds.
    #[arg(long, default_value_t = 0.1)]
    seconds: f64,
    /// The time in seconds after which a run counts as stalled.
    #[arg(long, default_value_t = 5.0)]
    timeout: f64,
}

/// The orders of a worker, on its command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Order {
    /// The row's name.
    #[arg(long)]
    row: String,
    /// The length of the run in seconds.
    #[arg(long)]
    seconds: f64,
}

/// A thing to measure.
struct Row {
    name: &'static str,
    /// `true` if two cores take part, so that the fastest run may be a lucky one.
    pair: bool,
    /// Returns an error that says what is missing, if the row cannot be measured here.
    present: fn() -> Result<(), String>,
    /// Returns the nanoseconds of one message, measured for so many seconds.
    measure: fn(f64) -> Result<f64, String>,
}

/// Returns a row of calls that have no partner.
const fn row(name: &'static str, measure: fn(f64) -> Result<f64, String>) -> Row {
    Row {
        name,
        pair: false,
        present: || Ok(()),
        measure,
    }
}

/// Returns a row in which two cores take part.
const fn pair(name: &'static str, measure: fn(f64) -> Result<f64, String>) -> Row {
    Row {
        name,
        pair: true,
        ..row(name, measure)
    }
}

/// Returns a row of a peer that may be missing.
const fn peer(
    name: &'static str,
    present: fn() -> Result<(), String>,
    measure: fn(f64) -> Result<f64, String>,
) -> Row {
    Row {
        present,
        ..pair(name, measure)
    }
}

/// The goal of a row.
struct Goal {
    row: &'static str,
    bound: Bound,
}

enum Bound {
    /// At most so many nanoseconds.
    Nanos(f64),
    /// At most so many times another row's.
    Times(f64, &'static str),
    /// So many times faster than another row.
    Faster(f64, &'static str),
}

const GOALS: &[Goal] = {
    use Bound::{Faster, Nanos, Times};
    const fn goal(row: &'static str, bound: Bound) -> Goal {
        Goal { row, bound }
    }
    &[
        goal("latest", Nanos(20.0)),
        goal("publish/one-seat", Nanos(20.0)),
        goal("publish/seats", Nanos(40.0)),
        goal("publish/one-seat/stamped", Nanos(50.0)),
        goal("publish/seats/stamped", Nanos(65.0)),
        goal("trip/one-seat", Faster(3.0, "trip/iceoryx2")),
        goal("trip/seats", Faster(2.5, "trip/iceoryx2")),
        goal("view/6.2MB", Times(1.25, "view/64B/large-slots")),
        goal("view/6.2MB", Times(1.5, "view/64B")),
        goal("sleep/6.2MB", Faster(50.0, "sleep/6.2MB/redis")),
        goal("crowd/60", Times(1.3, "crowd/1")),
    ]
};

fn rows() -> impl Iterator<Item = &'static Row> {
    let ours = rows::ROWS.iter();
    ours.chain(iceoryx::ROWS)
        .chain(redis::ROWS)
        .chain(zenoh::ROWS)
}

/// Measures what the command line asks for, and prints the tables.
pub fn compare(options: &Options) -> Result<(), String> {
    let asked = |row: &&Row| {
        let named = |word: &String| row.name.contains(word.as_str());
        options.only.is_empty() || options.only.iter().any(named)
    };
    let rows: Vec<&Row> = rows().filter(asked).collect();
    let machine = machine::look();
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut failures = Vec::new();
    for _ in 0..options.runs {
        for row in &rows {
            // A row that failed is not asked again.
            if failures.iter().any(|(failed, _)| *failed == row.name) {
                continue;
            }
            match once(row, options) {
                Ok(nanos) => figures.entry(row.name).or_default().push(nanos),
                Err(reason) => failures.push((row.name, reason)),
            }
        }
    }
    println!("# slipring's topics\n");
    println!("{}, Linux {}\n", machine.cpu, machine.kernel);
    println!("| row | ns | least | most |\n|---|---:|---:|---:|");
    let mut chosen = BTreeMap::new();
    for row in &rows {
        let Some(figures) = figures.get_mut(row.name) else {
            println!("| {} | missing | | |", row.name);
            continue;
        };
        figures.sort_by(f64::total_cmp);
        let (least, most) = (figures[0], figures[figures.len() - 1]);
        let figure = if row.pair {
            figures[figures.len() / 2]
        } else {
            least
        };
        chosen.insert(row.name, figure);
        let texts = [figure, least, most].map(number);
        println!("| {} | {} |", row.name, texts.join(" | "));
    }
    println!("\n| goal | found | |\n|---|---:|---|");
    for goal in GOALS {
        judge(goal, &chosen);
    }
    for (name, reason) in failures {
        println!("\nno figure: {name}: {reason}");
    }
    Ok(())
}

fn judge(goal: &Goal, figures: &BTreeMap<&str, f64>) {
    let figure = |name| figures.get(name).copied();
    let row = goal.row;
    let verdict = |what: String, found: Option<f64>, kept: fn(f64, f64) -> bool, bound: f64| {
        if let Some(found) = found {
            let kept = if kept(found, bound) { "kept" } else { "missed" };
            println!("| {what} | {} | {kept} |", number(found));
        }
    };
    let at_most = |found: f64, bound: f64| found <= bound;
    let at_least = |found: f64, bound: f64| found >= bound;
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    match goal.bound {
        Bound::Nanos(bound) => {
            verdict(format!("{row} ≤ {bound} ns"), figure(row), at_most, bound);
        }
        Bound::Times(bound, other) => {
            let what = format!("{row} ≤ {bound} × {other}");
            verdict(what, over(figure(row), figure(other)), at_most, bound);
        }
        Bound::Faster(bound, other) => {
            let what = format!("{row} ≥ {bound} × faster than {other}");
            verdict(what, over(figure(other), figure(row)), at_least, bound);
        }
    }
}

/// Starts one worker and waits for its figure.
fn once(row: &Row, options: &Options) -> Result<f64, String> {
    (row.present)()?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let timeout = Duration::try_from_secs_f64(options.timeout).map_err(|e| e.to_string())?;
    // Held until the run is over: two measurements at once take turns.
    let lock = turn().map_err(|e| e.to_string())?;
    lock.lock()
        .map_err(|e| format!("cannot wait for my turn: {e}"))?;
    let child = Command::new(program)
        .args(["topic-worker", "--row", row.name])
        .args(["--seconds", &options.seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start a worker: {e}"))?;
    let pid = child.id();
    let line = answer(child, timeout);
    // A worker that was killed leaves its server's directory, or its socket; mostly there is none.
    let _ = std::fs::remove_dir_all(directory(pid));
    zenoh::sweep(pid);
    let line = line?;
    let unreadable = |_| format!("unreadable answer {line:?}");
    line.trim().parse().map_err(unreadable)
}

/// Measures one row and prints its figure.
pub fn work(order: &Order) -> Result<(), String> {
    let row = rows().find(|row| row.name == order.row);
    let row = row.ok_or_else(|| format!("no row is called {:?}", order.row))?;
    println!("{}", (row.measure)(order.seconds)?);
    Ok(())
}

/// The number of messages that stay readable.
const HISTORY: usize = 8;
/// The number of frames that stay readable.
const FRAMES: usize = 4;
/// The bytes of a picture of 1920 by 1080 points with three colours.
const FRAME: usize = 1920 * 1080 * 3;

/// Measures a duel: first a short one, which tells how many messages the other has. Returns the nanoseconds of a message.
fn duelled(seconds: f64, processes: bool, duel: impl Fn(&Run) -> Sample) -> Result<f64, String> {
    let dir = std::path::PathBuf::from(format!("/dev/shm/topic-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut run = Run {
        capacity: HISTORY,
        ring_bytes: 0,
        warm: 1000,
        probe: 0,
        messages: 1000,
        cores: (0, 1),
        processes,
        dir: dir.clone(),
    };
    let nanos = |run: &Run, sample: &Sample| sample.time.as_nanos() as f64 / run.messages as f64;
    let first = duel(&run);
    let lasting = |seconds: f64| (seconds * 1e9 / nanos(&run, &first)).clamp(100.0, 1e9) as u64;
    (run.probe, run.messages) = (lasting(PROBE), lasting(seconds));
    let sample = duel(&run);
    let _ = std::fs::remove_dir_all(&dir);
    match first.bad | sample.bad {
        0 => Ok(nanos(&run, &sample)),
        _ => Err("wrong messages".to_owned()),
    }
}

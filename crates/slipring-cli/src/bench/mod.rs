//! `slipring bench`: measures the speed of `spsc` on this machine. It measures slipring alone;
//! `bench/` in the source tree measures it beside its peers.
//!
//! Two pinned threads pass messages; every message is written and checked in full. Each stream
//! figure is the median of three runs, with the ring in the nearest cache.

mod many;
mod runs;
mod scarce;
mod wake;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::progress::Progress;
use crate::text;
use runs::Memory;

/// Measure slipring on this machine: streams and round trips of fixed-size messages
#[derive(clap::Args)]
#[command(subcommand_value_name = "WHAT")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The message sizes in bytes: any of 8, 64, 1264, 4096
    #[arg(long, value_delimiter = ',', default_value = "8,64,1264,4096", value_parser = size)]
    size: Vec<usize>,
    /// Bytes to move in each run of a stream
    #[arg(long, default_value = "512M", value_parser = text::parse_bytes)]
    bytes: usize,
    /// Print the figures as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// The other measurements, each a verb of its own.
#[derive(clap::Subcommand)]
enum What {
    /// Measure waits and wakes beside pure spinning, a bare futex and bare pipes
    Wake {
        /// Measure everything this many times, in turn
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
    },
    /// Measure waiting on busy processors: both ends on one, busy strangers on all, slow messages
    Scarce {
        /// Measure each figure this many times, in turn with its peer's; the medians count
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
    },
}

const SIZES: [usize; 4] = [8, 64, 1264, 4096];
const RUNS: usize = 3;
/// A stream of small messages is long enough with this many.
const MOST: u64 = 8_000_000;

fn size(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|size| SIZES.contains(size))
        .ok_or_else(|| "use some of 8, 64, 1264, 4096".into())
}

/// Messages of one size through one kind of memory.
struct Case {
    size: usize,
    memory: Memory,
    /// Messages a second: one at a time, and in place. `None` if a run was too short to time.
    one: Option<f64>,
    in_place: Option<f64>,
    round_trip: Histogram<u64>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match args.what {
        Some(What::Wake { runs }) => return wake::run(runs.into(), args.json),
        Some(What::Scarce { runs }) => return scarce::run(runs.into(), args.json),
        None => {}
    }
    let mut sizes = args.size.clone();
    sizes.sort_unstable();
    sizes.dedup();
    let bar = Progress::messages("bench", sizes.len() as u64 * 2);
    let mut cases = Vec::new();
    for size in sizes {
        for memory in [Memory::Heap, Memory::Named] {
            cases.push(case(size, memory, args.bytes)?);
            bar.add(1);
        }
    }
    drop(bar);
    if args.json {
        text::answer_json(&json!({
            "processors": runs::processors(),
            "batch": runs::BATCH,
            "cases": cases.iter().map(as_json).collect::<Vec<_>>(),
        }))
    } else {
        text::answer(as_text(&cases))
    }
}

/// Measures one message size. The sizes are types, so this list names those that exist.
fn case(size: usize, memory: Memory, bytes: usize) -> Result<Case, Failure> {
    match size {
        8 => case_of::<1>(memory, bytes),
        64 => case_of::<8>(memory, bytes),
        1264 => case_of::<158>(memory, bytes),
        _ => case_of::<512>(memory, bytes),
    }
}

fn case_of<const N: usize>(memory: Memory, bytes: usize) -> Result<Case, Failure> {
    let size = 8 * N;
    let count = (bytes as u64 / size as u64).clamp(1, MOST);
    let stream = |in_place| -> Result<Option<f64>, Failure> {
        let mut times = Vec::new();
        for _ in 0..RUNS {
            times.push(runs::stream::<N>(memory, in_place, count)?);
        }
        times.sort_unstable();
        let median = times.get(RUNS / 2).copied().unwrap_or(Duration::MAX);
        Ok(text::rate(count as f64, median))
    };
    Ok(Case {
        size,
        memory,
        one: stream(false)?,
        in_place: stream(true)?,
        round_trip: runs::round_trips::<N>(memory, count)?,
    })
}

/// Returns the middle figure, or 0 if there is none.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

fn as_json(case: &Case) -> Value {
    let quantiles = QUANTILES.map(|(name, quantile)| {
        let ns = case.round_trip.value_at_quantile(quantile);
        (name.to_string(), Value::from(ns))
    });
    json!({
        "size": case.size,
        "memory": case.memory.name(),
        "capacity": runs::capacity(case.size),
        "one_at_a_time_per_s": case.one,
        "in_place_per_s": case.in_place,
        "round_trip_ns": Value::Object(quantiles.into_iter().collect()),
    })
}

fn as_text(cases: &[Case]) -> String {
    let head = [
        "BYTES", "MEMORY", "M MSG/S", "GB/S", "IN PLACE", "GB/S", "RTT P50", "P99", "P99.9",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for case in cases {
        let scaled =
            |rate, scale: f64| text::rate_or_too_short(rate, |rate| format!("{:.1}", rate * scale));
        let millions = |rate| scaled(rate, 1e-6);
        let gigabytes = |rate| scaled(rate, case.size as f64 / 1e9);
        let mut row = vec![
            case.size.to_string(),
            case.memory.name().to_string(),
            millions(case.one),
            gigabytes(case.one),
            millions(case.in_place),
            gigabytes(case.in_place),
        ];
        let quantiles = QUANTILES
            .map(|(_, quantile)| text::nanoseconds(case.round_trip.value_at_quantile(quantile)));
        row.extend(quantiles);
        rows.push(row);
    }
    let placed = match runs::processors() {
        [near, far] => format!("pinned to processors {near} and {far}"),
        _ => "not pinned: only one processor".to_string(),
    };
    format!(
        "{}\nspsc between two threads, {placed}; median of {RUNS} runs; one push and pop at a time, \
         and reserve and read in place in batches of up to {}; round trips of single messages\n",
        text::table(&rows, &[0, 2, 3, 4, 5, 6, 7, 8]),
        runs::BATCH,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that three runs of a few messages each give no rate, since they end before a clock
    /// can tell.
    #[test]
    fn short_runs_tell_no_rates() {
        let case = Case {
            size: 8,
            memory: Memory::Heap,
            one: text::rate(9.0, Duration::from_micros(999)),
            in_place: text::rate(2e6, Duration::from_secs(1)),
            round_trip: runs::histogram().unwrap_or_else(|_| unreachable!()),
        };
        let told = as_json(&case);
        assert_eq!(told["one_at_a_time_per_s"], Value::Null);
        assert_eq!(told["in_place_per_s"], 2e6);
        let shown = as_text(&[case]);
        let row = "    8  heap    too short  too short       2.0   0.0";
        assert!(shown.contains(row), "{shown}");
    }
}

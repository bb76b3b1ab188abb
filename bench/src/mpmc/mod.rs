//! `slipring-bench mpmc`: slipring's work queue beside its peers.
//!
//! The files, in the order of a run:
//!
//! - `plan`: the cases and their names;
//! - `rounds`: starts a process for each run, by turns, and gathers its figures;
//! - `worker`: that process; it picks the contender and the message type;
//! - `crew`: producers and consumers on their cores, and the proof that each item was taken once;
//! - `alone`: one thread that pushes and pops;
//! - `blocking`: workers that sleep, and jobs beside Redis;
//! - `peers`: the contenders' calls, one file each;
//! - `goals`, `report`: the evaluation of the figures.

mod alone;
mod blocking;
mod crew;
mod goals;
mod peers;
mod plan;
mod report;
mod rounds;
mod worker;

use crate::machine;
use plan::{Case, Part};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use worker::{Order, work};

/// The command line of `slipring-bench mpmc`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The part to measure.
    #[arg(value_enum, default_value = "all")]
    part: Part,
    /// Measure only the cases whose names contain one of these words; `--list` shows the names.
    #[arg(long, num_args = 1.., value_name = "CASE")]
    only: Vec<String>,
    /// Measure only these contenders, separated by commas; `slipring` means both of its ways.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// The number of runs of each contender in each case [default: 7, quick: 3].
    #[arg(long)]
    runs: Option<usize>,
    /// The length of a run in seconds [default: 0.15, quick: 0.03].
    #[arg(long)]
    seconds: Option<f64>,
    /// Make fewer and shorter runs: for a first look, not for a verdict.
    #[arg(long)]
    quick: bool,
    /// The time in seconds after which a run counts as stalled.
    #[arg(long, default_value_t = 5.0)]
    timeout: f64,
    /// Write everything, every sample included, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the tables to this file instead of standard output.
    #[arg(long)]
    md: Option<PathBuf>,
    /// Print the names of the cases and measure nothing.
    #[arg(long)]
    list: bool,
}

/// The settings of a whole measurement.
#[derive(Clone, Debug, Serialize)]
struct Settings {
    /// The number of runs of each contender in each case.
    runs: usize,
    /// The length of a run in seconds.
    seconds: f64,
    /// The time after which a run counts as stalled.
    timeout: Duration,
    /// The contenders asked for; empty means all.
    peers: Vec<String>,
}

impl Settings {
    /// Returns `true` if the user asked for this contender.
    fn invites(&self, name: &str) -> bool {
        let means = |asked: &String| asked == name || (asked == "slipring" && peers::is_ours(name));
        self.peers.is_empty() || self.peers.iter().any(means)
    }
}

/// Measures what the command line asks for, and writes the report.
pub fn compare(options: &Options) -> Result<(), String> {
    let cases = chosen(options)?;
    if options.list {
        for case in cases {
            println!("{case}");
        }
        return Ok(());
    }
    for name in &options.peers {
        if name != "slipring" && peers::named(name).is_none() {
            let known: Vec<_> = peers::ALL.iter().map(|about| about.name).collect();
            return Err(format!(
                "no contender is called {name:?}; there are: {}",
                known.join(", ")
            ));
        }
    }
    let default_seconds = if options.quick { 0.03 } else { 0.15 };
    let settings = Settings {
        runs: options.runs.unwrap_or(if options.quick { 3 } else { 7 }),
        seconds: options.seconds.unwrap_or(default_seconds),
        timeout: Duration::try_from_secs_f64(options.timeout).map_err(|e| e.to_string())?,
        peers: options.peers.clone(),
    };

    let mut machine = machine::look();
    machine.versions = peers::versions();
    let started = Instant::now();
    let watched = std::io::stderr().is_terminal();
    let figures = rounds::measure(&cases, &settings, |run, case, name| {
        if watched {
            rounds::show_progress(run, settings.runs, case, name);
        }
    })
    .map_err(|e| e.to_string())?;
    if watched {
        eprintln!();
    }
    let report = report::Report {
        machine: &machine,
        settings: &settings,
        figures: &figures,
        seconds: started.elapsed().as_secs_f64(),
    };
    if let Some(path) = &options.json {
        crate::write(path, &format!("{:#}\n", report.json()))?;
    }
    match &options.md {
        Some(path) => crate::write(path, &report.markdown())?,
        None => print!("{}", report.markdown()),
    }
    Ok(())
}

/// Returns the cases that the command line names.
fn chosen(options: &Options) -> Result<Vec<Case>, String> {
    let mut cases = plan::cases(options.part);
    for word in &options.only {
        if !cases.iter().any(|case| case.to_string().contains(word)) {
            return Err(format!(
                "no case of this part has {word:?} in its name; `--list` shows the names"
            ));
        }
    }
    if !options.only.is_empty() {
        cases.retain(|case| {
            let name = case.to_string();
            options.only.iter().any(|word| name.contains(word))
        });
    }
    Ok(cases)
}

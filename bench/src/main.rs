//! slipring beside its peers: the same messages, the same checks, the same two cores.
//!
//! `README.md` explains how to read the output. The files, in the order of a run:
//!
//! - `plan`: the cases, and the contenders that take part in each;
//! - `referee`: rounds, calibration, timeouts; it starts a process for each run;
//! - `worker`: that process; it picks the contender and the message type;
//! - `steady`: the length of the warm-up;
//! - `duel`: two pinned threads, a warm-up, a timed stretch;
//! - `broadcast`: the same for one writer and many readers;
//! - `message`: the messages and their checks;
//! - `peers`: the contenders' loops, one file each;
//! - `asleep`: the kernel's report of sleeping threads;
//! - `redis`: a Redis server of our own;
//! - `targets`, `report`, `machine`: the evaluation of the figures;
//! - `plot`: the picture of a run;
//! - `mpmc`: a measurement of its own, of the work queue;
//! - `topic`: another, of topics;
//! - `growth`: a channel that can grow beside a fixed one;
//! - `probe`: the costs of this machine, without any contender.

mod asleep;
mod broadcast;
mod duel;
#[cfg(feature = "slipring")]
mod growth;
mod machine;
mod message;
mod mpmc;
mod peers;
mod plan;
mod plot;
mod probe;
mod redis;
mod referee;
mod report;
mod steady;
mod targets;
#[cfg(feature = "slipring")]
mod topic;
mod worker;

use clap::{Parser, Subcommand};
use peers::{About, Kind};
use plan::Group;
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measures slipring beside its peers and prints Markdown tables.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    other: Option<Other>,
    /// The group of cases to measure.
    #[arg(value_enum, default_value = "all")]
    group: Group,
    /// The number of runs of each contender in each case [default: 9, quick: 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// The length of a run in seconds [default: 0.25, quick: 0.06].
    #[arg(long)]
    seconds: Option<f64>,
    /// Make fewer and shorter runs: for a first look, not for a verdict.
    #[arg(long)]
    quick: bool,
    /// Measure only these contenders, separated by commas; `slipring` means all of its regions.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// The number of slots in the rings of fixed-size messages: 256, 1024, 4096 or 16384.
    #[arg(long, default_value_t = 4096, value_parser = capacity)]
    capacity: usize,
    /// The size in bytes of the rings of records.
    #[arg(long, default_value_t = 8 * 1024 * 1024)]
    ring_bytes: usize,
    /// The producer's and the consumer's core.
    #[arg(long, default_value = "0,1", value_parser = cores)]
    cores: (usize, usize),
    /// The most repeats of a run that lost its core to another program.
    #[arg(long, default_value_t = 2)]
    repeats: usize,
    /// Measure in the real-time class (needs privilege): for a machine that has other work to do.
    /// That work then waits.
    #[arg(long)]
    urgent: bool,
    /// The time in seconds after which a run counts as stalled.
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    /// Write everything, every sample included, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the tables to this file instead of standard output.
    #[arg(long)]
    md: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Other {
    /// Measure the work queue (`mpmc`) beside its peers.
    Mpmc(mpmc::Options),
    /// Measure topics: publish, look at the newest, round trips.
    #[cfg(feature = "slipring")]
    Topic(topic::Options),
    /// Measure a channel that can grow beside a fixed one, and what resizes take.
    #[cfg(feature = "slipring")]
    Growth(growth::Options),
    /// Measure what this machine takes to move lines between two cores, and the floors that follow.
    Probe(probe::Options),
    /// Draw the rates and round trips of a run, from its JSON, as SVG.
    Plot(plot::Options),
    /// Do one run, for the referee.
    #[command(hide = true)]
    Worker(worker::Order),
    /// Do one run of the work queue's.
    #[command(hide = true)]
    MpmcWorker(mpmc::Order),
    /// Do one run of a topic's.
    #[cfg(feature = "slipring")]
    #[command(hide = true)]
    TopicWorker(topic::Order),
}

/// The settings of a whole measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The number of runs of each contender in each case.
    pub rounds: usize,
    /// The length of a run in seconds.
    pub seconds: f64,
    /// The number of slots in the rings.
    pub capacity: usize,
    /// The size in bytes of the rings of records.
    pub ring_bytes: usize,
    /// The producer's and the consumer's core.
    pub cores: (usize, usize),
    /// The most repeats of a disturbed run.
    pub repeats: usize,
    /// The time after which a run counts as stalled.
    pub timeout: Duration,
    /// `true` if runs have priority over the machine's other work.
    pub urgent: bool,
    /// The contenders asked for; empty means all.
    pub peers: Vec<String>,
}

impl Settings {
    /// Returns `true` if the user asked for this contender.
    pub fn invites(&self, about: &About) -> bool {
        let means =
            |name: &String| name == about.name || (name == "slipring" && about.kind == Kind::Ours);
        self.peers.is_empty() || self.peers.iter().any(means)
    }
}

fn capacity(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ (256 | 1024 | 4096 | 16384)) => Ok(n),
        _ => Err("expected 256, 1024, 4096 or 16384".to_owned()),
    }
}

fn cores(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once(',')
        .map(|(a, b)| (a.trim().parse(), b.trim().parse()));
    match parsed {
        Some((Ok(a), Ok(b))) if a != b => Ok((a, b)),
        _ => Err("expected two different cores, as in 0,1".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.other {
        Some(Other::Mpmc(options)) => mpmc::compare(options),
        #[cfg(feature = "slipring")]
        Some(Other::Growth(options)) => growth::compare(options),
        Some(Other::Probe(options)) => probe::probe(options),
        Some(Other::Plot(options)) => plot::plot(options),
        Some(Other::Worker(order)) => worker::work(order),
        Some(Other::MpmcWorker(order)) => mpmc::work(order),
        #[cfg(feature = "slipring")]
        Some(Other::Topic(options)) => topic::compare(options),
        #[cfg(feature = "slipring")]
        Some(Other::TopicWorker(order)) => topic::work(order),
        None => compare(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("slipring-bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn compare(cli: &Cli) -> Result<(), String> {
    let settings = Settings {
        rounds: cli.rounds.unwrap_or(if cli.quick { 3 } else { 9 }),
        seconds: cli.seconds.unwrap_or(if cli.quick { 0.06 } else { 0.25 }),
        capacity: cli.capacity,
        ring_bytes: cli.ring_bytes,
        cores: cli.cores,
        repeats: cli.repeats,
        timeout: Duration::try_from_secs_f64(cli.timeout).map_err(|e| e.to_string())?,
        urgent: cli.urgent,
        peers: cli.peers.clone(),
    };
    for name in &settings.peers {
        if name != "slipring" && peers::named(name).is_none() {
            let known: Vec<_> = peers::ALL.iter().map(|about| about.name).collect();
            return Err(format!(
                "no contender is called {name:?}; there are: {}",
                known.join(", ")
            ));
        }
    }

    let machine = machine::look();
    let started = Instant::now();
    let watched = std::io::stderr().is_terminal();
    let figures = referee::measure(&plan::cases(cli.group), &settings, |round, case, about| {
        if watched {
            referee::show_progress(round, settings.rounds, case, about);
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
    if let Some(path) = &cli.json {
        write(path, &format!("{:#}\n", report.json()))?;
    }
    match &cli.md {
        Some(path) => write(path, &report.markdown())?,
        None => print!("{}", report.markdown()),
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

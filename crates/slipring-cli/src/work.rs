//! `slipring work`: runs a command for each item of a work queue.
//!
//! - A worker holds its item in the queue until the command has exited with 0, or has failed for good.
//!   So a worker that is killed loses nothing: the queue gives the item to another one.
//! - Each thread has a working end of its own. It waits for the command that it has started, because
//!   the command dies with its thread (see [`command`](crate::command)).
//!
//! # Retries
//! The worker that took an item repeats the command itself, and holds the item meanwhile. It could
//! give the item back instead, but then nobody would count the attempts, and a bad item would keep
//! all workers busy. The price: if the worker dies, the next one counts from the beginning.
//!
//! # A signal
//! The first one ends the running commands (SIGTERM, then SIGKILL after the grace), and a second one
//! kills them at once. A command that succeeds all the same is done; the items of the others go back.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use slipring::{End, Error};

use crate::command::{Ended, Limits, Template};
use crate::exit::Failure;
use crate::progress::Progress;
use crate::queue::{Held, Queue, SEATS, Worker};
use crate::role::Role;
use crate::signals::{Signals, TICK};
use crate::{shape, text};

/// Run a command for each item of a work queue, until its feeders have finished and it is empty
///
/// `slipring send --queue NAME --lines` feeds the queue. Feeders and workers may run in any number of
/// terminals: up to 63 feeders, and up to 63 commands at the same time. One worker takes an item.
///
/// The command has the item on its standard input: a line with its newline. Each {} in its arguments
/// is replaced by the line without the newline. Do not put {} into a shell's script; write
/// `sh -c '... "$1" ...' sh {}`. An item with a NUL cannot replace {}, and fails. What the command
/// writes goes where the output of work goes.
///
/// The item is done when the command exits with 0. If the command fails, the same worker tries again,
/// as often as --retries allows. Then the item has failed: work names it on standard error, and it
/// leaves the queue. The attempts of a worker that died do not count.
///
/// If a worker is killed, its command is killed, too, and another worker runs the item again. Programs
/// that the command has started are not killed then. So an item may be run twice: SLIPRING_REDELIVERED
/// is 1 if it may have been run before, else 0. SLIPRING_ATTEMPT counts from 1. As long as a worker
/// holds an item, the other items go once around the queue and no further: see --items.
///
/// A signal ends work. The running commands get SIGTERM, and the items of those that do not succeed
/// go back into the queue. A second signal kills the commands at once.
// In two lines, for narrow terminals: `clap` does not wrap its own.
#[derive(clap::Args)]
#[command(override_usage = "slipring work [OPTIONS] <NAME>\n           -- <COMMAND>...")]
pub(crate) struct Args {
    /// The queue: `topic` or `domain/topic`; made if it does not exist
    pub(crate) name: String,
    /// Run up to this many commands at the same time, at most 63
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=SEATS as i64)
    )]
    jobs: u8,
    /// Try a failing item again, up to this many times
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Stop a command that runs longer than this, with all that it has started; it has failed.
    /// Seconds, or 200ms, 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// Kill a command that goes on for this long after it was asked to stop
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = text::parse_duration,
        allow_negative_numbers = true
    )]
    grace: Duration,
    /// Go on with the next feeder until a signal; report each end on standard error
    #[arg(long)]
    follow: bool,
    /// Print how many items were done, failed and redelivered, as JSON, at the end
    #[arg(long)]
    json: bool,
    /// The number of items that the queue holds, a power of two, if this command makes it [default:
    /// 1024]
    #[arg(long, value_name = "N")]
    items: Option<usize>,
    #[command(flatten)]
    role: Role,
    /// The command and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let limits = Limits {
        timeout: args.timeout,
        grace: args.grace,
    };
    let Some(command) = Template::new(&args.command, limits) else {
        return Err(Failure::Words("name the command behind `--`".into()));
    };
    let signals = Signals::catch()?;
    let (first, others) = take_seats(args, &signals)?;
    let crew = Crew {
        args,
        command,
        signals,
        figures: Figures::default(),
        bar: Progress::figures(),
        stopping: AtomicBool::new(false),
        end_told: AtomicBool::new(false),
    };
    let worked = crew.work_all(first, others);
    if args.json {
        text::answer_json(&crew.figures.json(&args.name))?;
    }
    let (end, failed) = (worked?, crew.figures.failed.load(Ordering::Relaxed));
    match (failed, end) {
        (0, End::Finished) => Ok(()),
        (0, end) => Err(Failure::Drained(end)),
        (1, _) => Err(Failure::Words("1 item failed".into())),
        (failed, _) => Err(Failure::Words(format!(
            "{} items failed",
            text::count(failed)
        ))),
    }
}

/// Takes a working end for each command that may run at the same time.
fn take_seats(args: &Args, signals: &Signals) -> Result<(Worker, Vec<Worker>), Failure> {
    let queue = Queue::new(args.items.unwrap_or(shape::ITEMS));
    let first = args.role.take(signals, || Ok(queue.worker(&args.name)?))?;
    shape::tell_of_items(&args.name, args.items, &first.differences());
    let mut others = Vec::new();
    for _ in 1..args.jobs {
        others.push(args.role.take(signals, || Ok(first.another()?))?);
    }
    Ok((first, others))
}

/// What the threads of this process share. Each has a working end of its own.
struct Crew<'a> {
    args: &'a Args,
    command: Template,
    signals: Signals,
    figures: Figures,
    bar: Progress,
    /// `true` once a thread failed: the others finish what they have begun.
    stopping: AtomicBool,
    /// `true` once the end of the stream was reported, until there is news of another feeder.
    end_told: AtomicBool,
}

impl Crew<'_> {
    /// Works with all ends, one of them in this thread, and returns the worst end of the stream that
    /// one of them saw.
    fn work_all(&self, first: Worker, others: Vec<Worker>) -> Result<End, Failure> {
        let results = thread::scope(|scope| {
            let work = |worker| scope.spawn(move || self.work_and_leave(worker));
            let threads: Vec<_> = others.into_iter().map(work).collect();
            let mut results = vec![self.work_and_leave(first)];
            for thread in threads {
                let result = thread.join();
                results.push(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            results
        });
        let mut worst = Ok(End::Finished);
        for result in results {
            worst = match (worst, result) {
                // What failed in one thread is worth more than the signal that ended the others.
                (Err(Failure::Signal(_)) | Ok(_), Err(failure)) => Err(failure),
                (Ok(End::Died), _) | (Ok(_), Ok(End::Died)) => Ok(End::Died),
                (Ok(End::Finished), Ok(end)) => Ok(end),
                (worst, _) => worst,
            };
        }
        worst
    }

    fn work_and_leave(&self, mut worker: Worker) -> Result<End, Failure> {
        let worked = self.work(&mut worker);
        if worked.is_err() {
            self.stopping.store(true, Ordering::Relaxed);
            worker.abort();
        }
        // Dropping the worker acknowledges the end.
        worked
    }

    /// Runs the command for one item after another, until the end of the stream.
    fn work(&self, worker: &mut Worker) -> Result<End, Failure> {
        loop {
            self.signals.check()?;
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(End::Finished);
            }
            let error = match worker.read(TICK) {
                Ok(item) => {
                    self.end_told.store(false, Ordering::Relaxed);
                    self.run(item)?;
                    continue;
                }
                Err(error) => error,
            };
            match error {
                Error::TimedOut => {}
                Error::Disconnected(end) if self.args.follow => self.await_feeder(worker, end)?,
                Error::Disconnected(end) => return Ok(end),
                error => return Err(error.into()),
            }
        }
    }

    /// Reports the end, once for all threads, and waits for the next feeder for a tick.
    ///
    /// A feeder that came and went meanwhile left items, or nothing that matters.
    fn await_feeder(&self, worker: &mut Worker, end: End) -> Result<(), Failure> {
        if !self.end_told.swap(true, Ordering::Relaxed) {
            let ended = Failure::Drained(end);
            self.bar.say(&format!("{ended}; waiting for the next one"));
        }
        match worker.wait_for_feeder(TICK) {
            Ok(()) => {
                self.end_told.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(Error::TimedOut) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs the command for an item until it succeeds, or has failed often enough. If the command
    /// cannot be started, or a signal comes, the item goes back.
    fn run(&self, item: Held<'_>) -> Result<(), Failure> {
        let figures = &self.figures;
        if item.redelivered() {
            add(&figures.redelivered, 1);
        }
        add(&figures.running, 1);
        self.draw();
        let ended = self.run_often(&item);
        figures.running.fetch_sub(1, Ordering::Relaxed);
        match ended {
            Ok(Ended::Succeeded) => {
                item.release();
                add(&figures.done, 1);
            }
            Ok(Ended::Failed(reason) | Ended::Unfit(reason)) => {
                self.bar
                    .say(&format!("item `{}` failed: {reason}", shown(item.bytes())));
                item.release();
                add(&figures.failed, 1);
            }
            Ok(Ended::Stopped) => {
                item.give_back();
                add(&figures.given_back, 1);
            }
            Err(failure) => {
                item.give_back();
                add(&figures.given_back, 1);
                return Err(failure);
            }
        }
        self.draw();
        Ok(())
    }

    fn run_often(&self, item: &Held<'_>) -> Result<Ended, Failure> {
        let mut attempt = 1;
        loop {
            if self.signals.check().is_err() {
                return Ok(Ended::Stopped);
            }
            let environment = [
                ("SLIPRING_ATTEMPT", attempt.to_string()),
                (
                    "SLIPRING_REDELIVERED",
                    u8::from(item.redelivered()).to_string(),
                ),
            ];
            let ended = self
                .command
                .run(item.bytes(), &environment, &self.signals)?;
            match ended {
                // Another worker has the time to try again.
                Ended::Failed(_) if self.signals.check().is_err() => return Ok(Ended::Stopped),
                Ended::Failed(_) if attempt <= u64::from(self.args.retries) => {
                    add(&self.figures.retried, 1);
                    attempt += 1;
                }
                Ended::Failed(reason) if attempt > 1 => {
                    return Ok(Ended::Failed(format!("{reason}, after {attempt} attempts")));
                }
                ended => return Ok(ended),
            }
        }
    }

    fn draw(&self) {
        let figures = &self.figures;
        self.bar.set(figures.done.load(Ordering::Relaxed));
        self.bar.describe(|| figures.text());
    }
}

/// Counts what this process did.
#[derive(Default)]
struct Figures {
    done: AtomicU64,
    running: AtomicU64,
    failed: AtomicU64,
    /// Items that were taken, and had been taken before.
    redelivered: AtomicU64,
    /// Attempts after the first one.
    retried: AtomicU64,
    given_back: AtomicU64,
}

fn add(figure: &AtomicU64, amount: u64) {
    // Relaxed: a figure.
    figure.fetch_add(amount, Ordering::Relaxed);
}

impl Figures {
    fn text(&self) -> String {
        let figure = |figure: &AtomicU64| text::count(figure.load(Ordering::Relaxed));
        format!(
            "work {} done, {} running, {} failed, {} redelivered",
            figure(&self.done),
            figure(&self.running),
            figure(&self.failed),
            figure(&self.redelivered),
        )
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let figure = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        json!({
            "name": name,
            "done": figure(&self.done),
            "failed": figure(&self.failed),
            "redelivered": figure(&self.redelivered),
            "retried": figure(&self.retried),
            "given_back": figure(&self.given_back),
        })
    }
}

/// The most characters of an item that a message shows.
const SHOWN: usize = 60;

/// Returns an item as a message shows it: in one line, and cut if it is long.
fn shown(item: &[u8]) -> String {
    let text = String::from_utf8_lossy(item.strip_suffix(b"\n").unwrap_or(item));
    let mut shown = String::new();
    for (at, char) in text.chars().enumerate() {
        match char {
            _ if at == SHOWN => return shown + "...",
            char if char.is_control() => shown.extend(char.escape_default()),
            char => shown.push(char),
        }
    }
    shown
}

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
//! # Giving up
//! The worker puts an item aside as a dead letter if its command has failed for good, and if it was
//! delivered too often: it may be the item that kills whoever takes it. Either way the item has failed,
//! and this worker says so. (The library could put aside by itself what was delivered too often, but then
//! nobody would say so.)
//!
//! When a worker dies, all items that it was running have come once more, and only one of them may be to
//! blame. So an item that has come back twice runs while its process takes no other one.
//!
//! # A signal
//! The first one ends the running commands (SIGTERM, then SIGKILL after the grace), and a second one
//! kills them at once. A command that succeeds all the same is done; the items of the others go back.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::json;
use slipring::{End, Error};

use crate::command::{Ended, Limits, Template};
use crate::exit::Failure;
use crate::progress::Progress;
use crate::queue::{Held, Queue, SEATS, Worker};
use crate::role::Role;
use crate::shape::QueueSize;
use crate::signals::{Signals, TICK};
use crate::text;

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
/// as often as --retries allows. Then the item has failed: work names it on standard error, and puts
/// it aside. The attempts of a worker that died do not count.
///
/// If a worker is killed, its command is killed, too, and another worker runs the item again. Programs
/// that the command has started are not killed then. So an item may be run more than once:
/// SLIPRING_DELIVERIES is the number of workers that had it before, and gave it back or died with it.
/// SLIPRING_ATTEMPT counts from 1.
///
/// An item that --max-deliveries workers had, and none has finished, has failed as well: it may be the
/// one that kills them. What ran beside it in the same process counts the same deaths. So an item that
/// came back twice runs while its process takes no other one, whatever --jobs says.
///
/// An item that was put aside stays in the queue as a dead letter, and takes the room of one. See
/// `slipring letters`, which shows the letters, and tries them again or drops them.
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
    /// Put aside an item that this many workers had, and none has finished; 0: never
    #[arg(long, value_name = "N", default_value_t = 5)]
    max_deliveries: u32,
    /// Keep up to this many failed items as dead letters, but at most half of --items; the oldest go
    /// first
    #[arg(long, value_name = "N", default_value_t = 64)]
    keep_letters: usize,
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
    /// Print how many items were done, failed and redelivered, and how many dead letters the queue
    /// has, as JSON, at the end
    #[arg(long)]
    json: bool,
    /// The number of items that the queue holds, a power of two, if this command makes it [default:
    /// 1024]
    #[arg(long, value_name = "N")]
    items: Option<usize>,
    /// The largest item in bytes, if this command makes the queue [default: 4096]
    #[arg(long, value_name = "BYTES", value_parser = text::parse_some_bytes, allow_negative_numbers = true)]
    max_record: Option<usize>,
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
        gate: Mutex::new(()),
        stopping: AtomicBool::new(false),
        end_told: AtomicU64::new(0),
    };
    let worked = crew.work_all(first, others);
    if args.json {
        text::answer_json(&crew.figures.json(&args.name))?;
    }
    crew.tell_of_letters();
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
    let (items, max_record) = (args.items, args.max_record);
    let size = QueueSize { items, max_record };
    let queue = Queue::new(size);
    let take = || Ok(queue.worker(&args.name, args.keep_letters)?);
    let first = args.role.take(signals, take)?;
    size.tell(&args.name, &first.differences());
    let mut others = Vec::new();
    for _ in 1..args.jobs {
        others.push(args.role.take(signals, || Ok(first.another()?))?);
    }
    Ok((first, others))
}

/// An item that came back this often is suspected of killing its workers.
const SUSPECT: u32 = 2;

/// The state that the threads of this process share. Each has a working end of its own.
struct Crew<'a> {
    args: &'a Args,
    command: Template,
    signals: Signals,
    figures: Figures,
    bar: Progress,
    /// Held by the thread that takes an item, and for as long as it runs one that is suspected.
    gate: Mutex<()>,
    /// `true` once a thread failed: the others finish what they have begun.
    stopping: AtomicBool,
    /// The number of the last end of the stream that was reported: see [`Worker::end_number`].
    end_told: AtomicU64,
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
        // Relaxed: a figure; read once all threads have left.
        let letters = worker.letters() as u64;
        self.figures.dead_letters.store(letters, Ordering::Relaxed);
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
            let Some(error) = self.run_next(worker)? else {
                continue;
            };
            match error {
                Error::TimedOut => {}
                Error::Disconnected(end) if self.args.follow => self.await_feeder(worker, end)?,
                Error::Disconnected(end) => return Ok(end),
                error => return Err(error.into()),
            }
        }
    }

    /// Takes the next item and runs the command for it, or returns the reason for which there is none.
    fn run_next(&self, worker: &mut Worker) -> Result<Option<Error>, Failure> {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        // The gate may have been closed for long.
        self.signals.check()?;
        let item = match worker.read(TICK) {
            Ok(item) => item,
            Err(error) => return Ok(Some(error)),
        };
        let _closed = (item.deliveries() >= SUSPECT).then_some(gate);
        self.run(item)?;
        Ok(None)
    }

    /// Reports the end, once for all threads, and waits for the next feeder for a tick.
    ///
    /// Threads learn of an end one after another, and the first of them may learn of the next one before the last has
    /// learned of this one. So each end has a number. An end that nobody has reported before the next feeder came is not
    /// reported: that feeder's end is.
    fn await_feeder(&self, worker: &mut Worker, end: End) -> Result<(), Failure> {
        let number = worker.end_number()?;
        // Relaxed: the number says it all.
        if number.is_some_and(|number| self.end_told.fetch_max(number, Ordering::Relaxed) < number)
        {
            let ended = Failure::Drained(end);
            self.bar.say(&format!("{ended}; waiting for the next one"));
        }
        match worker.wait_for_feeder(TICK) {
            Ok(()) | Err(Error::TimedOut) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs the command for an item until it succeeds, or has failed often enough. If the command
    /// cannot be started, or a signal comes, the item goes back.
    fn run(&self, item: Held<'_>) -> Result<(), Failure> {
        let figures = &self.figures;
        let (deliveries, most) = (item.deliveries(), self.args.max_deliveries);
        if most > 0 && deliveries >= most {
            let workers = match deliveries {
                1 => "1 worker".to_string(),
                more => format!("{more} workers"),
            };
            self.give_up(item, &format!("{workers} had it, and none has finished it"));
            return Ok(());
        }
        if deliveries > 0 {
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
                self.give_up(item, &reason);
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

    /// Puts an item aside that has failed for this reason.
    fn give_up(&self, item: Held<'_>, reason: &str) {
        let shown = shown(item.bytes());
        self.bar.say(&format!("item `{shown}` failed: {reason}"));
        item.put_aside();
        add(&self.figures.failed, 1);
        self.draw();
    }

    /// Says on standard error that the queue has dead letters.
    fn tell_of_letters(&self) {
        let letters = self.figures.dead_letters.load(Ordering::Relaxed);
        let (count, verb) = match letters {
            0 => return,
            1 => ("1 dead letter".into(), "is"),
            _ => (format!("{} dead letters", text::count(letters)), "are"),
        };
        let name = &self.args.name;
        self.bar.say(&format!(
            "{count} {verb} in the queue; `slipring letters {name}` shows what failed"
        ));
    }

    fn run_often(&self, item: &Held<'_>) -> Result<Ended, Failure> {
        let mut attempt = 1;
        loop {
            if self.signals.check().is_err() {
                return Ok(Ended::Stopped);
            }
            let environment = [
                ("SLIPRING_ATTEMPT", attempt.to_string()),
                ("SLIPRING_DELIVERIES", item.deliveries().to_string()),
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
    /// The dead letters in the queue, as the last thread that left saw them.
    dead_letters: AtomicU64,
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
            "dead_letters": figure(&self.dead_letters),
        })
    }
}

/// The most characters of an item that a message shows.
const SHOWN: usize = 60;

/// Returns an item as a message shows it: in one line, and cut if it is long.
fn shown(item: &[u8]) -> String {
    let text = String::from_utf8_lossy(item.strip_suffix(b"\n").unwrap_or(item));
    let (front, dots) = match text.char_indices().nth(SHOWN) {
        Some((at, _)) => (&text[..at], "..."),
        None => (&text[..], ""),
    };
    text::in_one_line(front) + dots
}

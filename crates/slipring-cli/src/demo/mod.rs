//! `slipring demo`: two real processes pass a million real messages, and do the same work over the
//! kernel's `SOCK_SEQPACKET` beside it.
//!
//! The parent makes the memory and starts the two ends, which are this program again under a hidden
//! verb. The ends inherit the channel as descriptors of sealed memfds and pipes. It has no name and
//! leaves nothing behind, however the demo ends.

mod ends;
mod sockets;
mod waiting;
mod work;

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slipring::inspect::SeatStat;
use slipring::{Role, bytes};

use crate::exit::Failure;
use crate::progress::{self, Progress};
use crate::text;
use waiting::Waiting;
use work::{Check, Work};

/// Two processes pass messages through shared memory, then through SOCK_SEQPACKET
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The number of messages
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// The largest message in bytes; sizes are random from 0 to this
    #[arg(long, default_value = "32K", value_parser = size)]
    max_size: u32,
    /// Bytes of the ring, a power of two [default: 512K, or more for messages above 128K]
    #[arg(long, value_parser = text::parse_bytes)]
    ring: Option<usize>,
    /// The seed of the random sizes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The part of each message that the reader checks, besides number and length
    #[arg(long, value_enum, default_value_t = Check::Sample)]
    check: Check,
    /// The way in which each side waits for the other
    #[arg(long, value_enum, default_value_t = Waiting::Sleep)]
    wait: Waiting,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// One of the demo's two processes.
#[derive(clap::Args)]
pub(crate) struct EndArgs {
    #[arg(long)]
    write: bool,
    /// Use the socket that is standard input, not a channel.
    #[arg(long)]
    socket: bool,
    /// The descriptors of the channel.
    #[arg(long, value_delimiter = ',')]
    passed: Vec<i32>,
    #[arg(long)]
    ring: usize,
    #[arg(long)]
    messages: u64,
    #[arg(long)]
    max_size: u32,
    #[arg(long)]
    seed: u64,
    #[arg(long, value_enum)]
    check: Check,
    #[arg(long, value_enum)]
    wait: Waiting,
    #[arg(long)]
    progress: bool,
}

impl EndArgs {
    fn work(&self) -> Work {
        Work::new(self.messages, self.max_size, self.seed, self.check)
    }
}

fn size(text: &str) -> Result<u32, String> {
    let bytes = text::parse_bytes(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= 1 << 30)
        .ok_or_else(|| "at most 1G".into())
}

/// Runs the demo.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let ring = args.ring.unwrap_or_else(|| default_ring(args.max_size));
    // The ring has room for the largest message; slipring reports a message that is larger than the
    // ring.
    let largest = (args.max_size as usize).max(8);
    let channel = bytes::Builder::new(ring).max_record(largest).memfd()?;
    let ours = over_channel(args, ring, &channel)?;
    drop(channel);
    let sockets = over_sockets(args, ring)?;
    if args.json {
        text::answer_json(&as_json(args, ring, &ours, &sockets))
    } else {
        text::answer(as_text(args, ring, &ours, &sockets))
    }
}

/// Returns half of a usual second-level cache: a ring that stays in there moves large messages
/// several times faster than one that does not. A smaller ring was no faster. It also makes the two
/// ends wait more often where others want the processors too.
fn default_ring(max_size: u32) -> usize {
    (512 << 10).max((max_size as usize * 4).next_power_of_two())
}

/// Runs one of the two ends, for the demo's hidden verb.
pub(crate) fn run_end(args: &EndArgs) -> Result<(), Failure> {
    // Nobody is left to read our figures when the parent is gone.
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal)
        .map_err(|errno| Failure::io("follow the parent", errno))?;
    match (args.socket, args.write) {
        (false, true) => ends::write(args),
        (false, false) => ends::read(args),
        (true, true) => sockets::write(args),
        (true, false) => sockets::read(args),
    }
}

/// The result of one transport.
struct Outcome {
    elapsed: Duration,
    bytes: u64,
    messages: u64,
    writer: Calls,
    reader: Calls,
}

/// The number of times that one end entered the kernel to pass messages, to sleep and to wake.
#[derive(Clone, Copy)]
struct Calls {
    all: u64,
    /// The number of times that it slept and that it woke the other, or `None` if nobody counted.
    counted: Option<(u64, u64)>,
}

impl Calls {
    /// Returns one call a message, as for sockets (a call that found no message slept inside it).
    fn each(messages: u64) -> Calls {
        Calls {
            all: messages,
            counted: None,
        }
    }

    fn of(wait: Waiting, seat: &SeatStat, other: &SeatStat) -> Calls {
        Calls {
            all: wait.system_calls(seat, other),
            counted: Some((seat.parks, seat.wakes)),
        }
    }

    fn as_json(self, elapsed: Duration) -> Value {
        let mut out = json!({ "system_calls_per_s": self.per_s(elapsed) });
        if let Some((parks, wakes)) = self.counted {
            out["parks"] = parks.into();
            out["wakes"] = wakes.into();
        }
        out
    }

    fn per_s(self, elapsed: Duration) -> Option<f64> {
        text::rate(self.all as f64, elapsed)
    }
}

impl Outcome {
    fn messages_per_s(&self) -> Option<f64> {
        text::rate(self.messages as f64, self.elapsed)
    }

    fn mb_per_s(&self) -> Option<f64> {
        text::rate(self.bytes as f64 / 1e6, self.elapsed)
    }

    fn as_json(&self) -> Value {
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "messages_per_s": self.messages_per_s(),
            "mb_per_s": self.mb_per_s(),
            "writer": self.writer.as_json(self.elapsed),
            "reader": self.reader.as_json(self.elapsed),
        })
    }
}

fn over_channel(args: &Args, ring: usize, channel: &bytes::Channel) -> Result<Outcome, Failure> {
    let fail = |errno: rustix::io::Errno| Failure::io("pass the channel's descriptors", errno);
    // Only these copies survive an exec, and they live until both ends run. This process has one
    // thread here, and starts nothing else meanwhile.
    let copies: Result<Vec<OwnedFd>, _> =
        channel.descriptors().iter().map(rustix::io::dup).collect();
    let copies = copies.map_err(fail)?;
    let numbers: Vec<String> = copies.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let passed = [format!("--passed={}", numbers.join(","))];
    let start = |write| start(args, ring, write, &passed, Stdio::null());
    let ends = Ends {
        reader: start(false)?,
        writer: start(true)?,
    };
    drop(copies);
    let outcome = ends.follow("slipring", args)?;
    let stat = channel.stat()?;
    let seat = |role| stat.seats.iter().find(|seat| seat.role == role);
    let calls = |role, other| match (seat(role), seat(other)) {
        (Some(seat), Some(other)) => Calls::of(args.wait, seat, other),
        _ => Calls::each(0),
    };
    Ok(Outcome {
        writer: calls(Role::Producer, Role::Consumer),
        reader: calls(Role::Consumer, Role::Producer),
        ..outcome
    })
}

fn over_sockets(args: &Args, ring: usize) -> Result<Outcome, Failure> {
    let (writer, reader) = sockets::pair()?;
    let start =
        |write, socket: OwnedFd| start(args, ring, write, &["--socket".to_string()], socket.into());
    let ends = Ends {
        reader: start(false, reader)?,
        writer: start(true, writer)?,
    };
    ends.follow("SEQPACKET", args)
}

/// Starts this program again as one of the two ends.
fn start(
    args: &Args,
    ring: usize,
    write: bool,
    passed: &[String],
    stdin: Stdio,
) -> Result<Child, Failure> {
    let fail = |error| Failure::io("start a process of the demo", error);
    let mut command = Command::new(std::env::current_exe().map_err(fail)?);
    command.arg("demo-end").args(passed);
    command.arg(format!("--ring={ring}"));
    command.arg(format!("--messages={}", args.messages));
    command.arg(format!("--max-size={}", args.max_size));
    command.arg(format!("--seed={}", args.seed));
    command.arg(format!("--check={}", args.check.name()));
    command.arg(format!("--wait={}", args.wait.name()));
    if write {
        command.arg("--write").stdout(Stdio::null());
    } else {
        command.stdout(Stdio::piped());
        if progress::wanted() {
            command.arg("--progress");
        }
    }
    command.stdin(stdin).spawn().map_err(fail)
}

/// Two processes at work. Dropping it ends both.
struct Ends {
    reader: Child,
    writer: Child,
}

impl Ends {
    /// Shows the reader's progress, and returns its measurement when both ends are done.
    fn follow(mut self, what: &'static str, args: &Args) -> Result<Outcome, Failure> {
        let mut outcome = None;
        if let Some(stdout) = self.reader.stdout.take() {
            let bar = Progress::messages(what, args.messages);
            for line in BufReader::new(stdout).lines() {
                let line = line.map_err(|error| Failure::io("follow the reader", error))?;
                match Tally::parse(&line) {
                    Some((done, None)) => bar.set(done),
                    Some((bytes, Some(elapsed))) => {
                        bar.set(args.messages);
                        outcome = Some(Outcome {
                            elapsed,
                            bytes,
                            messages: args.messages,
                            writer: Calls::each(args.messages),
                            reader: Calls::each(args.messages),
                        });
                    }
                    None => {}
                }
            }
        }
        let wait = |child: &mut Child| {
            child
                .wait()
                .map_err(|error| Failure::io("wait for the demo's processes", error))
        };
        let (reader, writer) = (wait(&mut self.reader)?, wait(&mut self.writer)?);
        match outcome {
            Some(outcome) if reader.success() && writer.success() => Ok(outcome),
            // An end that exited has reported the reason; an end that was killed could not.
            _ if reader.code().is_some() && writer.code().is_some() => Err(Failure::Told(1)),
            _ => Err(Failure::Words(format!(
                "the demo's processes ended early (reader: {reader}, writer: {writer})"
            ))),
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        for child in [&mut self.reader, &mut self.writer] {
            // Both calls fail for a process that was waited for; then there is nothing to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The reader's clock, and its lines to the parent: `progress MESSAGES`, `done BYTES NANOSECONDS`.
struct Tally {
    begun: Instant,
    shown: Option<Instant>,
    looks: u32,
}

impl Tally {
    /// Looks at the clock once in this many calls, and prints a line at most ten times a second.
    const LOOKS: u32 = 512;

    fn new(args: &EndArgs) -> Tally {
        let now = Instant::now();
        Tally {
            begun: now,
            shown: args.progress.then_some(now),
            looks: 0,
        }
    }

    fn start(&mut self) {
        self.begun = Instant::now();
    }

    #[inline]
    fn progress(&mut self, work: &Work) -> Result<(), Failure> {
        self.looks += 1;
        if self.looks < Tally::LOOKS {
            return Ok(());
        }
        self.looks = 0;
        match self.shown {
            Some(shown) if shown.elapsed() >= Duration::from_millis(100) => {
                self.shown = Some(Instant::now());
                text::answer(format!("progress {}", work.number()))
            }
            _ => Ok(()),
        }
    }

    fn done(&self, work: &Work) -> Result<(), Failure> {
        let elapsed = self.begun.elapsed().as_nanos();
        text::answer(format!("done {} {elapsed}", work.bytes))
    }

    /// Returns the figure in a line, and the time if it is the last line.
    fn parse(line: &str) -> Option<(u64, Option<Duration>)> {
        let mut fields = line.split(' ');
        let (word, figure) = (fields.next()?, fields.next()?.parse().ok()?);
        match word {
            "progress" => Some((figure, None)),
            "done" => {
                let elapsed = Duration::from_nanos(fields.next()?.parse().ok()?);
                Some((figure, Some(elapsed)))
            }
            _ => None,
        }
    }
}

fn ratio(ours: &Outcome, sockets: &Outcome) -> Option<f64> {
    Some(ours.messages_per_s()? / sockets.messages_per_s()?)
}

fn as_json(args: &Args, ring: usize, ours: &Outcome, sockets: &Outcome) -> Value {
    json!({
        "messages": args.messages,
        "max_size": args.max_size,
        "bytes": ours.bytes,
        "ring": ring,
        "seed": args.seed,
        "check": args.check.name(),
        "wait": args.wait.name(),
        "slipring": ours.as_json(),
        "seqpacket": sockets.as_json(),
        "ratio": ratio(ours, sockets),
    })
}

fn as_text(args: &Args, ring: usize, ours: &Outcome, sockets: &Outcome) -> String {
    let head = ["", "messages/s", "MB/s", "seconds", "system calls/s"].map(String::from);
    let rate = |rate| text::rate_or_too_short(rate, |rate| text::count(rate as u64));
    let row = |name: &str, outcome: &Outcome| {
        vec![
            name.to_string(),
            rate(outcome.messages_per_s()),
            rate(outcome.mb_per_s()),
            format!("{:.3}", outcome.elapsed.as_secs_f64()),
            [outcome.writer, outcome.reader]
                .map(|calls| rate(calls.per_s(outcome.elapsed)))
                .join(" + "),
        ]
    };
    let rows = [
        head.to_vec(),
        row("slipring", ours),
        row("SOCK_SEQPACKET", sockets),
    ];
    format!(
        "{} messages of 0 to {} ({} in all) from one process to another, ring {}, check: {}, wait: {}\n\n{}(system calls: writer + reader)\n\n{}\n",
        text::count(args.messages),
        text::bytes(args.max_size.into()),
        text::bytes(ours.bytes),
        text::bytes(ring as u64),
        args.check.name(),
        args.wait.name(),
        text::table(&rows, &[1, 2, 3, 4]),
        ratio(ours, sockets).map_or(
            "too short to compare with SOCK_SEQPACKET".to_string(),
            |ratio| format!("{ratio:.1} times SOCK_SEQPACKET")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    /// Checks that a demo of one message gives no rate: it takes as long as the clock does.
    #[test]
    fn short_demos_tell_no_rates() {
        let args = Command::parse_from(["demo"]).args;
        let took = |micros| Outcome {
            elapsed: Duration::from_micros(micros),
            bytes: 1 << 20,
            messages: 1,
            writer: Calls::each(1),
            reader: Calls::each(1),
        };
        let shown = as_text(&args, 64, &took(999), &took(2000));
        assert!(
            shown.contains(
                "slipring         too short  too short    0.001  too short + too short\n"
            ),
            "{shown}"
        );
        assert!(
            shown.contains("SOCK_SEQPACKET         500        524    0.002"),
            "{shown}"
        );
        assert!(
            shown.ends_with("too short to compare with SOCK_SEQPACKET\n"),
            "{shown}"
        );
        let told = as_json(&args, 64, &took(2000), &took(999));
        assert_eq!(told["slipring"]["messages_per_s"], 500.0);
        for rate in [
            "/seqpacket/messages_per_s",
            "/seqpacket/mb_per_s",
            "/seqpacket/reader/system_calls_per_s",
            "/ratio",
        ] {
            assert_eq!(told.pointer(rate), Some(&Value::Null), "{rate}");
        }
    }
}

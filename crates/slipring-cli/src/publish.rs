//! `slipring pub`: publishes standard input, or files, to a topic of records.
//!
//! - A publisher waits for nobody, except where a program made the topic with few slots and subscribers hold them all.
//! - Lines go through the same cutter as those for a work queue. Here a message is the line without its newline.
//! - A signal publishes no part of a line or frame. The first line that was not published is named.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use slipring::Error;
use slipring::topic::records::{Builder, Publisher};

use crate::exit::Failure;
use crate::feed::{Line, Lines};
use crate::progress::Progress;
use crate::role::Role;
use crate::send::Input;
use crate::shape::{CHECK_EVERY, TopicSize};
use crate::signals::{Signals, TICK};
use crate::text;

/// The most that one read asks for, where the input is cut into messages.
const READ: usize = 64 << 10;
/// The number of bytes in a frame's length.
const LENGTH: usize = 4;
/// The interval at which a busy publisher checks that the name still leads to its topic.
const SECOND: Duration = Duration::from_secs(1);

/// Publish lines of standard input, or files, to a topic
///
/// Each line is a message, without its newline. The last messages stay readable in the topic, also after pub
/// has ended: see --history. Nobody has to read them, and pub waits for nobody. Any number of pubs may publish to
/// one topic at the same time, up to its seats (16, unless a program made it). See `slipring sub`.
///
/// Lines that are too long are left out and named, and the exit code is 1. A frame or a file that is too large is
/// an error; what came before it was published. A signal names the first line that was not published.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The topic: `topic` or `domain/topic`; made if it does not exist
    pub(crate) name: String,
    /// Publish what each read brings as a message, of any bytes
    #[arg(long, group = "mode")]
    raw: bool,
    /// Read frames as `sub --framed` writes them (a length as u32 little-endian, then so many bytes), and
    /// publish each as a message
    #[arg(long, group = "mode")]
    framed: bool,
    /// Publish this file as one message, and do not read standard input; may be repeated
    #[arg(long, group = "mode", value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Publish at most this many messages a second; fractions are allowed
    #[arg(long, value_name = "N", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// The largest message in bytes, if this command makes the topic [default: 64K, or the largest
    /// --file if that is more]
    #[arg(long, value_name = "BYTES", value_parser = text::parse_some_bytes, allow_negative_numbers = true)]
    max_size: Option<usize>,
    /// The number of messages that stay readable, a power of two, if this command makes the topic
    /// [default: 16]
    #[arg(long, value_name = "N")]
    history: Option<usize>,
    /// Note the time of each message, for `sub --json`
    #[arg(long)]
    time: bool,
    #[command(flatten)]
    role: Role,
}

impl Args {
    /// Returns `true` if it reads standard input.
    pub(crate) fn reads_input(&self) -> bool {
        self.file.is_empty()
    }
}

/// Parses a number of messages a second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate| (1e-6..=1e9).contains(rate))
        .ok_or_else(|| "use a number of messages a second, such as 0.5 or 30".into())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let size = TopicSize {
        history: args.history,
        max_size: args.max_size,
    };
    let least = largest(&args.file)?;
    let mut builder = Builder::new(size.history(), size.max_size(least)).check_every(CHECK_EVERY);
    if args.time {
        builder = builder.time_stamps();
    }
    let tx = args
        .role
        .take(&signals, || Ok(builder.producer(&args.name)?))?;
    size.tell(&args.name, &tx.differences());
    let input = Input::stdin();
    let total = input.total.filter(|_| args.reads_input());
    let mut publish = Publish {
        max: tx.max_record(),
        tx,
        name: &args.name,
        pace: args.rate.map(Pace::new),
        input,
        bar: Progress::bytes("pub", total),
        signals: &signals,
        checked: Instant::now(),
        told: false,
        left_out: false,
    };
    let done = match (args.raw, args.framed, args.file.is_empty()) {
        (true, ..) => publish.raw(),
        (_, true, _) => publish.frames(),
        (_, _, false) => publish.files(&args.file),
        _ => publish.lines(),
    };
    match done {
        // Dropping the publisher says that it has finished. What was left out is on standard error.
        Ok(()) if publish.left_out => Err(Failure::Told(1)),
        Ok(()) => Ok(()),
        Err(failure) => {
            publish.tx.abort();
            Err(failure)
        }
    }
}

/// Returns the length of the largest of these files: before the topic is made, all of them must be there.
fn largest(files: &[PathBuf]) -> Result<usize, Failure> {
    let mut largest = 0;
    for path in files {
        let file = fs::metadata(path)
            .map_err(|error| Failure::io(format!("look at {}", path.display()), error))?;
        largest = largest.max(file.len() as usize);
    }
    Ok(largest)
}

/// The times at which messages are due.
struct Pace {
    period: Duration,
    due: Instant,
}

impl Pace {
    fn new(rate: f64) -> Pace {
        Pace {
            period: Duration::from_secs_f64(1.0 / rate),
            due: Instant::now(),
        }
    }

    /// Waits until the next message is due. Input that came late does not make up for it.
    fn wait(&mut self, signals: &Signals) -> Result<(), Failure> {
        signals.sleep_until(self.due)?;
        self.due = self.due.max(Instant::now()) + self.period;
        Ok(())
    }
}

struct Publish<'a> {
    tx: Publisher,
    name: &'a str,
    /// The most bytes of a message.
    max: usize,
    pace: Option<Pace>,
    input: Input,
    bar: Progress,
    signals: &'a Signals,
    /// The time at which the name was last checked.
    checked: Instant,
    /// `true` once the user was told that all slots are held.
    told: bool,
    /// `true` once a line was left out.
    left_out: bool,
}

impl Publish<'_> {
    fn lines(&mut self) -> Result<(), Failure> {
        // The newline is not part of the message.
        let mut lines = Lines::new(self.max + 1);
        let done = (|| {
            loop {
                let count = self.read(lines.space())?;
                match count {
                    0 => lines.end(),
                    count => lines.grow(count),
                }
                self.push_lines(&mut lines)?;
                if count == 0 {
                    return Ok(());
                }
            }
        })();
        if let Err(Failure::Signal(_)) = done {
            self.bar.say(&format!(
                "line {} of the input, and what follows it, was not published",
                lines.number()
            ));
        }
        done
    }

    /// Publishes the whole lines that were read.
    fn push_lines(&mut self, lines: &mut Lines) -> Result<(), Failure> {
        while let Some(line) = lines.first() {
            let (message, len) = match line {
                Line::Item(line) => {
                    let message = line.strip_suffix(b"\n").unwrap_or(line);
                    (Some(message), message.len() as u64)
                }
                Line::TooLong(len, newline) => (None, len - u64::from(newline)),
            };
            match message.filter(|message| message.len() <= self.max) {
                Some(message) => self.push(message)?,
                None => {
                    let (number, max) = (lines.number(), self.max);
                    self.bar.say(&format!(
                        "line {number} of the input has {len} bytes, and a message of the topic at most {max}; it was \
                         left out"
                    ));
                    self.left_out = true;
                }
            }
            lines.pass();
        }
        Ok(())
    }

    fn raw(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![0; self.max];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(()),
                count => self.push(&buffer[..count])?,
            }
        }
    }

    fn frames(&mut self) -> Result<(), Failure> {
        let mut buffer = Vec::new();
        // The position in the input at which the buffer begins.
        let mut at = 0;
        loop {
            let mut taken = 0;
            let wanted = loop {
                let rest: &[u8] = &buffer[taken..];
                let Some((length, payload)) = rest.split_first_chunk::<LENGTH>() else {
                    break LENGTH;
                };
                let len = u32::from_le_bytes(*length) as usize;
                if len > self.max {
                    return Err(Failure::Words(format!(
                        "the frame at byte {} of the input has {len} bytes, and the largest message of topic `{}` {}; if \
                         the input is frames, remove the topic, and make it with --max-size {len}",
                        at + taken,
                        self.name,
                        self.max,
                    )));
                }
                match payload.get(..len) {
                    Some(payload) => self.push(payload)?,
                    None => break LENGTH + len,
                }
                taken += LENGTH + len;
            };
            buffer.drain(..taken);
            at += taken;
            let kept = buffer.len();
            buffer.resize(wanted.max(kept + READ), 0);
            let count = self.read(&mut buffer[kept..])?;
            buffer.truncate(kept + count);
            if count == 0 && kept > 0 {
                return Err(Failure::Words(format!(
                    "standard input ends within the frame at byte {at}, after {kept} of its {wanted} bytes, its length \
                     included; the frames before it were published"
                )));
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn files(&mut self, files: &[PathBuf]) -> Result<(), Failure> {
        for path in files {
            let shown = path.display();
            let failed = |error| Failure::io(format!("read {shown}"), error);
            let file = fs::File::open(path).map_err(failed)?;
            let len = file.metadata().map_err(failed)?.len();
            let mut message = Vec::new();
            // A device may have no end.
            let most = self.max as u64 + 1;
            file.take(most).read_to_end(&mut message).map_err(failed)?;
            if message.len() > self.max {
                let len = len.max(message.len() as u64);
                return Err(Failure::Words(format!(
                    "{shown} has {len} bytes or more, and the largest message of topic `{}` {}; remove the topic, and \
                     make it with --max-size {len}",
                    self.name, self.max,
                )));
            }
            self.push(&message)?;
            self.bar.add(message.len() as u64);
        }
        Ok(())
    }

    /// Reads some of standard input; 0 at its end.
    fn read(&mut self, space: &mut [u8]) -> Result<usize, Failure> {
        loop {
            let tx = &self.tx;
            self.input.wait(self.signals, || {
                tx.heartbeat();
                Ok(tx.check_name()?)
            })?;
            match rustix::io::read(rustix::stdio::stdin(), &mut *space) {
                Ok(count) => {
                    self.bar.add(count as u64);
                    return Ok(count);
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(Failure::io("read standard input", errno)),
            }
        }
    }

    /// Publishes a message when it is due.
    fn push(&mut self, message: &[u8]) -> Result<(), Failure> {
        self.signals.check()?;
        if let Some(pace) = &mut self.pace {
            pace.wait(self.signals)?;
        }
        if self.checked.elapsed() >= SECOND {
            self.checked = Instant::now();
            self.tx.check_name()?;
        }
        loop {
            match self.tx.push_timeout(message, TICK) {
                Ok(()) => return Ok(()),
                Err(Error::TimedOut) => {
                    self.signals.check()?;
                    if !self.told {
                        self.told = true;
                        self.bar.say(&self.holders());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the reason why there is no room: who holds messages.
    fn holders(&self) -> String {
        let pins = self.tx.pins();
        let each = pins.iter().map(|pins| {
            format!(
                "subscriber {} (process {}) holds {}",
                pins.index, pins.pid, pins.count
            )
        });
        let each: Vec<String> = each.collect();
        format!(
            "no slot is free for the next message: {}; waiting until one lets go",
            each.join(", ")
        )
    }
}

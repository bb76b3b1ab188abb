//! `slipring tail`: shows the messages of a live topic or `broadcast` channel, seen from outside.
//!
//! It holds no seat, pins nothing and maps the channel read-only, and nobody waits for it. It loses the messages
//! for which it is too slow, counts them, and reports them on standard error.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use slipring::broadcast::Seek;
use slipring::inspect::{Message, Watch};
use slipring::spec::Kind;
use slipring::topic::Origin;
use slipring::{End, Error};

use crate::exit::{Failure, complain};
use crate::output::{BATCH, Format, Output};
use crate::progress::Progress;
use crate::signals::{Signals, TICK};
use crate::text::{self, push_hex as hex};

/// The number of payload bytes shown on one line: with number and length they fit 80 columns.
const SHORT: usize = 24;
/// The shortest interval between two reports of lost messages and of progress.
const SECOND: Duration = Duration::from_secs(1);
/// It looks at its clock once in this many messages.
const LOOK: u64 = 1024;

/// Show the messages of a topic or a broadcast channel as they come
///
/// Each message takes a line: its number, counted from the channel's first, and its first 24 bytes in
/// hexadecimal. (Records of a broadcast channel are numbered by their position in its ring, in bytes, and so are
/// the lost ones.)
///
/// tail takes no seat and nobody waits for it, so it cannot slow the channel. It reports the
/// messages that it was too slow for on standard error. A channel that waits for its consumers
/// overwrites nothing that one of them has not read. tail is not a consumer: it sees all messages
/// only if it keeps up with the slowest consumer. (To read a topic as text, from a seat: slipring sub.)
///
/// It ends when the producer has (of a topic, the last publisher), unless --follow is given. If there is none, it waits for the
/// next one; with --oldest or --from it ends behind the last message of one that has left.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`
    pub(crate) name: String,
    /// Begin at the oldest message in the channel
    #[arg(long, group = "begin")]
    oldest: bool,
    /// Begin behind the newest message, with the next to come (the default)
    #[arg(long, group = "begin")]
    newest: bool,
    /// Begin at this message, counted from the channel's first, 0
    #[arg(long, group = "begin", value_name = "NUMBER")]
    from: Option<u64>,
    /// End after this many messages
    #[arg(short = 'n', long, value_name = "N")]
    messages: Option<u64>,
    /// Go on with the next producer until a signal; report each end on standard error
    #[arg(long)]
    follow: bool,
    /// Show every byte, sixteen on a line
    #[arg(long, conflicts_with_all = ["json", "count"])]
    hex: bool,
    /// Print one JSON object a line: `number`, and the bytes in hexadecimal; of a topic also
    /// `publisher` and `time_ns`, as `sub --json` does. With --count, print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Only count; print at the end the messages that came and were lost, and the rate since the
    /// first came
    #[arg(long)]
    count: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let seek = match (args.from, args.oldest) {
        (Some(number), _) => Seek::To(number),
        (None, true) => Seek::Oldest,
        (None, false) => Seek::Newest,
    };
    let mut watch = Watch::new(&args.name, seek)?;
    if matches!(seek, Seek::Newest) {
        // Without a producer it waits for the next one.
        watch.skip_end()?;
    }
    let mut tail = Tail {
        show: match (args.count, args.json, args.hex) {
            (true, ..) => None,
            (_, true, _) => Some(as_json),
            (_, _, true) => Some(as_dump),
            _ => Some(as_line),
        },
        output: Output::stdout(Format::Bytes),
        line: String::new(),
        bar: args.count.then(|| Progress::counted("tail")),
        began: None,
        seen: 0,
        lost: 0,
        untold: 0,
        told: None,
        in_bytes: watch.header().geometry.kind == Kind::BroadcastRecords,
    };
    let ended = tail.all(&mut watch, args, &signals);
    let ended = match ended {
        Err(Failure::BrokenPipe) => ended,
        // This also writes messages that came before a signal, as far as they can be written at
        // once.
        ended => tail.output.flush(&signals).and(ended),
    };
    tail.tell_lost();
    if args.count {
        drop(tail.bar.take());
        let elapsed = tail.began.map_or(Duration::ZERO, |began| began.elapsed());
        text::answer(tail.figures(elapsed, args.json))?;
    }
    match ended {
        Ok(None | Some(End::Finished)) => Ok(()),
        Ok(Some(end)) => Err(Failure::Left(end)),
        // As with any verb that prints: no record is kept for later, and nobody reads the output.
        Err(Failure::BrokenPipe) => Err(Failure::Told(141)),
        Err(failure) => Err(failure),
    }
}

/// A function that writes a message as text.
type Show = fn(Message<'_>, &mut String);

struct Tail {
    show: Option<Show>,
    output: Output,
    line: String,
    bar: Option<Progress>,
    /// The time at which the first message came.
    began: Option<Instant>,
    seen: u64,
    lost: u64,
    /// The number of lost messages that were not reported yet.
    untold: u64,
    /// The time of the last report of lost messages.
    told: Option<Instant>,
    /// `true` if positions, and so what is lost, count bytes.
    in_bytes: bool,
}

impl Tail {
    /// Shows messages until the count is reached or the producer left, and returns the way in which
    /// it ended.
    fn all(
        &mut self,
        watch: &mut Watch,
        args: &Args,
        signals: &Signals,
    ) -> Result<Option<End>, Failure> {
        while args.messages.is_none_or(|messages| self.seen < messages) {
            signals.check()?;
            let next = match watch.try_next() {
                Err(Error::Empty) => {
                    self.output.flush(signals)?;
                    self.tick();
                    watch.next_timeout(TICK)
                }
                next => next,
            };
            match next {
                Ok(message) => self.show(message, signals)?,
                Err(Error::Lagged(lost)) => {
                    self.lost += lost;
                    self.untold += lost;
                    self.tick();
                }
                Err(Error::TimedOut) => {}
                Err(Error::Disconnected(end)) if args.follow => {
                    self.say(&format!("{}; waiting for the next one", Failure::Left(end)));
                    watch.skip_end()?;
                }
                Err(Error::Disconnected(end)) => return Ok(Some(end)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn show(&mut self, message: Message<'_>, signals: &Signals) -> Result<(), Failure> {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.bar.iter().for_each(Progress::restart);
        }
        self.seen += 1;
        if self.seen.is_multiple_of(LOOK) {
            self.tick();
        }
        let Some(show) = self.show else {
            return Ok(());
        };
        self.line.clear();
        show(message, &mut self.line);
        self.output.put(self.line.as_bytes(), signals)?;
        if self.output.kept() >= BATCH {
            self.output.flush(signals)?;
        }
        Ok(())
    }

    /// Reports the present state, at most once a second.
    fn tick(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set(self.seen);
        }
        if self.told.is_none_or(|told| told.elapsed() >= SECOND) {
            self.tell_lost();
        }
    }

    fn tell_lost(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if untold == 0 {
            return;
        }
        let (now, all) = (text::count(untold), text::count(self.lost));
        let unit = match self.in_bytes {
            true => "bytes of records",
            false => "messages",
        };
        self.say(&format!("{now} {unit} were lost unseen; {all} in all"));
        self.told = Some(Instant::now());
    }

    /// Reports something on standard error.
    fn say(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.say(words),
            None => complain(words),
        }
    }

    fn figures(&self, elapsed: Duration, as_json: bool) -> String {
        let seconds = elapsed.as_secs_f64();
        let rate = text::rate(self.seen as f64, elapsed);
        if as_json {
            let figures = json!({
                "messages": self.seen,
                "lost": self.lost,
                "seconds": seconds,
                "messages_per_s": rate,
            });
            return format!("{figures:#}");
        }
        format!(
            "{} messages, {}{} lost, in {seconds:.3} s: {}",
            text::count(self.seen),
            text::count(self.lost),
            if self.in_bytes { " bytes" } else { "" },
            text::rate_or_too_short(rate, |rate| text::count(rate as u64) + " a second"),
        )
    }
}

fn as_line(message: Message<'_>, out: &mut String) {
    let shown = &message.payload[..message.payload.len().min(SHORT)];
    let _ = write!(out, "{:>10}  ", message.number);
    hex(shown, out);
    if shown.len() < message.payload.len() {
        let _ = write!(out, ".. {} bytes", message.payload.len());
    }
    out.push('\n');
}

fn as_json(message: Message<'_>, out: &mut String) {
    let _ = write!(out, r#"{{"number":{},"#, message.number);
    if let Some(Origin {
        publisher, time, ..
    }) = message.origin
    {
        let _ = match time {
            0 => write!(out, r#""publisher":{publisher},"time_ns":null,"#),
            time => write!(out, r#""publisher":{publisher},"time_ns":{time},"#),
        };
    }
    out.push_str(r#""bytes":""#);
    hex(message.payload, out);
    out.push_str("\"}\n");
}

/// Writes a message as `hexdump -C` does, under its number.
fn as_dump(message: Message<'_>, out: &mut String) {
    let (number, len) = (message.number, message.payload.len());
    let _ = writeln!(out, "message {number}, {len} bytes");
    for (row, bytes) in message.payload.chunks(16).enumerate() {
        let _ = write!(out, "{:08x} ", row * 16);
        for at in 0..16 {
            out.push_str(if at % 8 == 0 { " " } else { "" });
            match bytes.get(at) {
                Some(byte) => hex(&[*byte], out),
                None => out.push_str("  "),
            }
            out.push(' ');
        }
        out.push_str(" |");
        let shown = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        out.extend(bytes.iter().map(shown));
        out.push_str("|\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(show: Show, payload: &[u8]) -> String {
        let mut out = String::new();
        let (number, origin) = (7, None);
        let message = Message {
            number,
            origin,
            payload,
        };
        show(message, &mut out);
        out
    }

    /// A message takes one line, as text or JSON; a dump has one line for every sixteen bytes.
    #[test]
    fn messages_are_formatted_in_each_style() {
        assert_eq!(shown(as_line, b"\x00\xffA"), "         7  00ff41\n");
        let long = shown(as_line, &[1; 40]);
        assert!(long.ends_with("0101.. 40 bytes\n"), "{long}");
        let parsed = serde_json::from_str(&shown(as_json, b"\x0aB")).ok();
        assert_eq!(parsed, Some(json!({ "number": 7, "bytes": "0a42" })));
        let dump = "message 7, 18 bytes\n\
            00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n\
            00000010  67 0a                                             |g.|\n";
        assert_eq!(shown(as_dump, b"0123456789abcdefg\n"), dump);
    }
}

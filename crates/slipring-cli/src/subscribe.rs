//! `slipring sub`: writes the messages of topics to standard output.
//!
//! - Every argument is a pattern of names. (A name is a pattern that matches itself.) So a topic that is not there yet is
//!   waited for, and one that is removed and made anew is followed: see [`Subscriptions`].
//! - One thread waits for all topics, and for those that appear: a message wakes it alone.
//! - A topic that is there at the start is read from its next message on, or from the last few. A topic that comes later is
//!   read from its oldest message on, so that nothing is missed between its making and its discovery.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use slipring::topic::records::{Builder, Records, Subscriber};
use slipring::topic::{News, Origin, Seek, Subscriptions};
use slipring::{Error, Name, Pattern, SetupError};

use crate::exit::Failure;
use crate::output::{Format, Output};
use crate::progress::Progress;
use crate::role::{self, Role};
use crate::shape::CHECK_EVERY;
use crate::signals::{Signals, TICK};
use crate::text;

/// The most messages of one topic before the others have their turn.
const TURN: usize = 256;
/// The shortest interval between two reports of lost messages.
const SECOND: Duration = Duration::from_secs(1);

/// Write the messages of topics to standard output, as they come
///
/// In a pattern, `*` stands for any characters of one part of a name: 'cam/*' is all topics of the domain cam, and '*/imu' the
/// topic imu of every domain. (Quote it: the shell has patterns of its own.) Topics that appear later are picked up, from
/// their oldest message on. A topic that is not there yet is waited for.
///
/// Each message takes a line, behind the name of its topic and a tab if there may be several topics. It is written as it is; for
/// messages that are no lines, use --json, --framed or --raw. The values of a topic that carries a program's own type are
/// shown in hexadecimal.
///
/// sub goes on until a signal, or --messages; publishers may come and go. It takes a subscriber's seat of each topic. No publisher waits
/// for it: if it is too slow, it loses messages, and says how many on standard error. Topics of a pattern that it cannot
/// read (those without a free seat) are named and left out. To look on without a seat: slipring tail.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The topics: `topic`, `domain/topic`, or patterns of names
    #[arg(required = true, value_name = "TOPIC|PATTERN")]
    names: Vec<String>,
    /// Begin with the last N messages of each topic, as far as they are still readable, and go on
    #[arg(long, value_name = "N", conflicts_with = "latest")]
    last: Option<u64>,
    /// With --last: end behind the messages that are there now
    #[arg(long, requires = "last", conflicts_with = "latest")]
    no_follow: bool,
    /// Write only the newest message of each topic that is there, and end
    #[arg(long)]
    latest: bool,
    /// With --latest: go on with whatever is the newest message then, and leave out those before it
    #[arg(long, requires = "latest", conflicts_with = "last")]
    follow: bool,
    /// End after this many messages, of all topics together
    #[arg(short = 'n', long, value_name = "N")]
    messages: Option<u64>,
    /// Print one JSON object a line: `topic`, `sequence` (counted from the topic's first message), `publisher` (its
    /// seat), `time_ns` (since boot, of `pub --time`), and the message as `text`, or as `bytes` in hexadecimal if it
    /// is no text; of a topic with a type also `type`, and always `bytes`
    #[arg(long, group = "format")]
    json: bool,
    /// Write only the bytes of the messages
    #[arg(long, group = "format")]
    raw: bool,
    /// Write each message as a frame: its length as u32 little-endian, then its bytes
    #[arg(long, group = "format")]
    framed: bool,
    #[command(flatten)]
    role: Role,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let patterns = args.names.iter().map(|name| Pattern::new(name));
    let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
    allow_many_files();
    let format = match args.framed {
        true => Format::Framed,
        false => Format::Bytes,
    };
    let several = patterns.len() > 1 || patterns.iter().any(|pattern| pattern.as_name().is_none());
    // The sizes are those of the topics that are there.
    let builder = Builder::new(1, 1).any_type().check_every(CHECK_EVERY);
    let mut sub = Sub {
        args,
        all: Subscriptions::new(builder, patterns.iter().cloned())?,
        patterns,
        signals: &signals,
        topics: BTreeMap::new(),
        taken: Vec::new(),
        show: Show {
            args,
            several,
            output: Output::stdout(format),
            line: String::new(),
            seen: 0,
        },
        bar: Progress::beside_output("sub"),
        told: None,
    };
    let done = match (args.latest && !args.follow) || args.no_follow {
        true => sub.present(),
        false => sub.follow(),
    };
    let done = match done {
        Err(Failure::BrokenPipe) => done,
        // This also writes messages that came before a signal, as far as they can be written at once.
        done => sub.show.output.flush(&signals).and(done),
    };
    sub.tell_lost(true);
    match done {
        // As with any verb that prints: nobody reads the output.
        Err(Failure::BrokenPipe) => Err(Failure::Told(141)),
        done => done,
    }
}

/// Raises the limit on open files as far as this process may: each topic takes a few.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that is refused, the old limit holds.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A topic that is read.
#[derive(Default)]
struct Topic {
    /// The type of its messages; empty for byte strings.
    schema: String,
    /// The number of its next message when it was joined.
    joined_at: u64,
    /// The number of messages that were lost, and that of those not yet reported.
    lost: u64,
    untold: u64,
}

struct Sub<'a> {
    args: &'a Args,
    patterns: Vec<Pattern>,
    signals: &'a Signals,
    all: Subscriptions<Records>,
    topics: BTreeMap<Name, Topic>,
    /// The topics without a free seat, and the time until which they are asked again.
    taken: Vec<(Name, Instant)>,
    show: Show<'a>,
    bar: Progress,
    /// The time of the last report of lost messages.
    told: Option<Instant>,
}

impl Sub<'_> {
    /// Joins the topics that are there.
    fn start(&mut self) -> Result<(), Failure> {
        for news in self.all.wait_timeout(Duration::ZERO)? {
            self.take(news, true)?;
        }
        while !self.taken.is_empty() {
            self.signals.check()?;
            std::thread::sleep(role::AGAIN);
            self.ask_again(true)?;
        }
        Ok(())
    }

    /// Takes up what has happened to a topic. Fails if one that was named cannot be read.
    fn take(&mut self, news: News<Records>, at_start: bool) -> Result<(), Failure> {
        match news {
            News::Joined(name) => self.joined(name, at_start),
            News::Ready(name) => self.read(&name).map(drop),
            News::Left(name, mut rx) => {
                if let Some(mut topic) = self.topics.remove(&name) {
                    let show = &mut self.show;
                    while !show.is_done()
                        && show.some_of(&name, &mut topic, &mut rx, self.signals)? == TURN
                    {
                    }
                    self.tell_loss(&name, &mut topic);
                }
                Ok(())
            }
            News::Refused(name, error) => {
                let until = Instant::now() + self.args.role.patience();
                self.refused(name, error, until)
            }
            _ => Ok(()),
        }
    }

    fn joined(&mut self, name: Name, at_start: bool) -> Result<(), Failure> {
        let Some(rx) = self.all.get_mut(&name) else {
            return Ok(());
        };
        let joined_at = rx.position();
        if let Some(last) = self.args.last.filter(|last| at_start && *last > 0) {
            let oldest = rx.seek(Seek::Oldest)?;
            let from = joined_at.saturating_sub(last).max(oldest);
            rx.seek(Seek::To(from.min(joined_at)))?;
        }
        if at_start && self.args.latest && self.args.follow {
            rx.seek(Seek::To(joined_at.saturating_sub(1)))?;
        }
        let topic = Topic {
            schema: rx.channel().stat()?.schema_name,
            joined_at,
            ..Topic::default()
        };
        self.topics.insert(name, topic);
        Ok(())
    }

    /// A topic could not be joined. It is asked again if its seats may become free by then.
    fn refused(&mut self, name: Name, error: SetupError, until: Instant) -> Result<(), Failure> {
        if role::may_become_free(&error) && Instant::now() < until {
            self.taken.push((name, until));
            return Ok(());
        }
        let named = |pattern: &Pattern| pattern.as_name().as_ref() == Some(&name);
        match error {
            // It went again; that is reported by itself.
            SetupError::NotFound { .. } => Ok(()),
            error if self.patterns.iter().any(named) => Err(error.into()),
            error => {
                self.bar.say(&format!("`{name}` is left out: {error}"));
                Ok(())
            }
        }
    }

    /// Asks again for topics that had no free seat.
    fn ask_again(&mut self, at_start: bool) -> Result<(), Failure> {
        for (name, until) in std::mem::take(&mut self.taken) {
            match self.all.join(&name) {
                Ok(_) => self.joined(name, at_start)?,
                Err(error) => self.refused(name, error, until)?,
            }
        }
        Ok(())
    }

    /// Writes the newest message of each topic that is there, or the last few.
    fn present(&mut self) -> Result<(), Failure> {
        self.start()?;
        for pattern in &self.patterns {
            if !self.topics.keys().any(|name| pattern.matches(name)) {
                return Err(Failure::Words(match pattern.as_name() {
                    Some(name) => {
                        format!("no topic `{name}`; publish to it first (`slipring pub`)")
                    }
                    None => format!("no topic matches `{pattern}`"),
                }));
            }
        }
        let signals = self.signals;
        for (name, rx) in self.all.iter_mut() {
            let Some(topic) = self.topics.get_mut(name) else {
                continue;
            };
            if self.args.no_follow {
                while !self.show.is_done() && rx.position() < topic.joined_at {
                    signals.check()?;
                    if !self.show.one_of(name, topic, rx, signals)? {
                        break;
                    }
                }
                continue;
            }
            match rx.latest() {
                _ if self.show.is_done() => {}
                Ok(sample) => {
                    let origin = sample.origin();
                    self.show.message(name, topic, origin, &sample, signals)?;
                }
                Err(Error::Empty) => {}
                Err(error) => return Err(Failure::from(error).about(&name.to_string())),
            }
        }
        match self.show.seen {
            0 if self.args.messages != Some(0) => {
                Err(Failure::Words("nothing was published there yet".into()))
            }
            _ => Ok(()),
        }
    }

    /// Writes messages until the count is reached, and joins topics meanwhile.
    fn follow(&mut self) -> Result<(), Failure> {
        self.start()?;
        self.tell_missing();
        while !self.show.is_done() {
            self.signals.check()?;
            for news in self.all.wait_timeout(TICK)? {
                self.take(news, false)?;
            }
            self.ask_again(false)?;
            self.tell_lost(false);
            self.bar.set(self.show.seen);
            self.show.output.flush(self.signals)?;
        }
        Ok(())
    }

    /// Writes some messages of a topic, and returns their number.
    fn read(&mut self, name: &Name) -> Result<usize, Failure> {
        match (self.topics.get_mut(name), self.all.get_mut(name)) {
            (Some(topic), Some(rx)) => self.show.some_of(name, topic, rx, self.signals),
            _ => Ok(0),
        }
    }

    /// Names the patterns for which there is no topic.
    fn tell_missing(&self) {
        for pattern in &self.patterns {
            if self.topics.keys().any(|name| pattern.matches(name)) {
                continue;
            }
            self.bar.say(&match pattern.as_name() {
                Some(name) => format!("no topic `{name}` yet; waiting for it"),
                None => format!("no topic matches `{pattern}` yet; waiting for one"),
            });
        }
    }

    /// Reports the messages that were lost; at most once a second, unless this is the end.
    fn tell_lost(&mut self, at_end: bool) {
        if !at_end && self.told.is_some_and(|told| told.elapsed() < SECOND) {
            return;
        }
        let mut topics = std::mem::take(&mut self.topics);
        for (name, topic) in topics.iter_mut().filter(|(_, topic)| topic.untold > 0) {
            self.tell_loss(name, topic);
            self.told = Some(Instant::now());
        }
        self.topics = topics;
    }

    fn tell_loss(&self, name: &Name, topic: &mut Topic) {
        let untold = std::mem::take(&mut topic.untold);
        if untold > 0 {
            let (now, all) = (text::count(untold), text::count(topic.lost));
            let of = match self.show.several {
                true => format!(" of `{name}`"),
                false => String::new(),
            };
            self.bar.say(&format!(
                "{now} messages{of} were lost unread; {all} in all"
            ));
        }
    }
}

/// Writes messages in the format that was asked for.
struct Show<'a> {
    args: &'a Args,
    several: bool,
    output: Output,
    line: String,
    /// The number of messages that were written.
    seen: u64,
}

impl Show<'_> {
    /// Returns `true` if as many messages were written as were asked for.
    fn is_done(&self) -> bool {
        self.args.messages.is_some_and(|count| self.seen >= count)
    }

    /// Writes some messages of a topic, and returns their number.
    fn some_of(
        &mut self,
        name: &Name,
        topic: &mut Topic,
        rx: &mut Subscriber,
        signals: &Signals,
    ) -> Result<usize, Failure> {
        for count in 0..TURN {
            if self.is_done() || !self.one_of(name, topic, rx, signals)? {
                return Ok(count);
            }
        }
        Ok(TURN)
    }

    /// Writes a message of a topic, or counts lost ones. Returns `false` if there is none now.
    fn one_of(
        &mut self,
        name: &Name,
        topic: &mut Topic,
        rx: &mut Subscriber,
        signals: &Signals,
    ) -> Result<bool, Failure> {
        let shown = match self.args.latest {
            true => self.newest_of(name, topic, rx, signals),
            false => self.next_of(name, topic, rx, signals),
        };
        match shown {
            Ok(shown) => shown?,
            Err(Error::Lagged(lost)) if !self.args.latest => {
                topic.lost += lost;
                topic.untold += lost;
            }
            Err(Error::Lagged(_)) => {}
            // The next publisher may come; and the subscriptions tell of a name that is gone.
            Err(Error::Empty | Error::Disconnected(_) | Error::Removed | Error::Replaced) => {
                return Ok(false);
            }
            Err(error) => return Err(Failure::from(error).about(&name.to_string())),
        }
        Ok(true)
    }

    /// Writes the next message.
    fn next_of(
        &mut self,
        name: &Name,
        topic: &Topic,
        rx: &mut Subscriber,
        signals: &Signals,
    ) -> Result<Result<(), Failure>, Error> {
        let record = rx.try_read()?;
        Ok(self.message(name, topic, record.origin(), &record, signals))
    }

    /// Writes the newest message, if there is a new one, and goes on behind it.
    fn newest_of(
        &mut self,
        name: &Name,
        topic: &Topic,
        rx: &mut Subscriber,
        signals: &Signals,
    ) -> Result<Result<(), Failure>, Error> {
        rx.try_read()?.keep();
        let sample = rx.latest()?;
        let origin = sample.origin();
        let shown = self.message(name, topic, origin, &sample, signals);
        drop(sample);
        rx.seek(Seek::To(origin.sequence + 1))?;
        Ok(shown)
    }

    fn message(
        &mut self,
        name: &Name,
        topic: &Topic,
        origin: Origin,
        payload: &[u8],
        signals: &Signals,
    ) -> Result<(), Failure> {
        self.seen += 1;
        if self.args.json {
            self.line = as_json(name, &topic.schema, origin, payload).to_string();
            self.line.push('\n');
            return self.output.put(self.line.as_bytes(), signals);
        }
        if self.args.raw || self.args.framed {
            return self.output.put(payload, signals);
        }
        if self.several {
            self.output.put(format!("{name}\t").as_bytes(), signals)?;
        }
        if !topic.schema.is_empty() {
            self.line = text::hex(payload);
            self.line.push('\n');
            return self.output.put(self.line.as_bytes(), signals);
        }
        self.output.put(payload, signals)?;
        match payload.ends_with(b"\n") {
            true => Ok(()),
            false => self.output.put(b"\n", signals),
        }
    }
}

fn as_json(topic: &Name, schema: &str, origin: Origin, payload: &[u8]) -> Value {
    let mut out = json!({
        "topic": topic.to_string(),
        "sequence": origin.sequence,
        "publisher": origin.publisher,
        // A publisher that notes no time has 0 there.
        "time_ns": (origin.time != 0).then_some(origin.time),
    });
    if !schema.is_empty() {
        out["type"] = schema.into();
    }
    match std::str::from_utf8(payload) {
        Ok(text) if schema.is_empty() => out["text"] = text.into(),
        _ => out["bytes"] = text::hex(payload).into(),
    }
    out
}

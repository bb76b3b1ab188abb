//! `slipring sub`: writes the messages of topics to standard output.
//!
//! - Every argument is a pattern of names. (A name is a pattern that matches itself.) So a topic that is not there yet is
//!   waited for, and one that is removed and made anew is followed.
//! - One [`WaitSet`] holds all subscribers: a message wakes this process alone, and of it one thread. The set cannot wait for
//!   the discovery of topics. A second thread does, and adds subscribers to the set.
//! - A topic that is there at the start is read from its next message on, or from the last few. A topic that comes later is
//!   read from its oldest message on, so that nothing is missed between its making and its discovery.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use slipring::inspect::{Discovered, Discovery};
use slipring::set::{Key, Members};
use slipring::spec::Kind;
use slipring::topic::records::{Builder, Subscriber};
use slipring::topic::{Origin, Seek};
use slipring::{Error, Name, Pattern, SetupError, WaitSet};

use crate::exit::Failure;
use crate::output::{Format, Output};
use crate::progress::Progress;
use crate::role::Role;
use crate::shape::CHECK_EVERY;
use crate::signals::{Signals, TICK};
use crate::text;

/// The most messages of one topic before the others have their turn.
const TURN: usize = 256;
/// The shortest interval between two reports of lost messages, and the interval at which a discovery looks by itself.
const SECOND: Duration = Duration::from_secs(1);

/// Write the messages of topics to standard output, as they come
///
/// In a pattern, `*` stands for any characters of one part of a name: 'cam/*' is all topics of the domain cam, and '*/imu' the
/// topic imu of every domain. Topics that appear later are picked up, from their oldest message on. A topic that is not
/// there yet is waited for.
///
/// Each message takes a line, behind the name of its topic and a tab if there may be several topics. It is written as it is; for
/// messages that are no lines, use --json, --framed or --raw.
///
/// sub goes on until a signal, or --count; publishers may come and go. It takes a subscriber's seat of each topic. No publisher waits
/// for it: if it is too slow, it loses messages, and says how many on standard error. Topics of a pattern that it cannot
/// read (those of a program's own type, or without a free seat) are named and left out.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The topics: `topic`, `domain/topic`, or patterns of names
    #[arg(required = true, value_name = "TOPIC|PATTERN")]
    names: Vec<String>,
    /// Begin with the last N messages of each topic, as far as they are still readable
    #[arg(long, value_name = "N", conflicts_with = "latest")]
    last: Option<u64>,
    /// Write only the newest message of each topic that is there, and end
    #[arg(long)]
    latest: bool,
    /// With --latest: go on with whatever is the newest message then, and leave out those before it
    #[arg(long, requires = "latest")]
    follow: bool,
    /// End after this many messages
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Print one JSON object a line: `topic`, `sequence` (counted from the topic's first message), `publisher` (its
    /// seat), `time_ns` (since boot, of `pub --time`), and the message as `text`, or as `bytes` in hexadecimal if it
    /// is no text
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
    let mut set = WaitSet::new()?;
    let mut discovery = Discovery::new(patterns.iter().cloned())?;
    let format = match args.framed {
        true => Format::Framed,
        false => Format::Bytes,
    };
    let several = patterns.len() > 1 || patterns.iter().any(|pattern| pattern.as_name().is_none());
    let mut sub = Sub {
        joining: Joining {
            args,
            patterns: &patterns,
            members: set.members(),
            signals: &signals,
        },
        several,
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
    let topics = Mutex::new(Topics::default());
    while let Some(found) = discovery.try_next()? {
        sub.joining.take(found, &topics, true)?;
    }
    let done = match args.latest && !args.follow {
        true => sub.newest(&topics),
        false => sub.follow(&mut set, discovery, &topics),
    };
    let done = match done {
        Err(Failure::BrokenPipe) => done,
        // This also writes messages that came before a signal, as far as they can be written at once.
        done => sub.show.output.flush(&signals).and(done),
    };
    sub.tell_lost(&mut lock(&topics), true);
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

/// The topics that are read, under the lock by which a new one is complete before the set's owner looks for it.
#[derive(Default)]
struct Topics {
    joined: BTreeMap<Key, Topic>,
    /// The reason for which the thread that discovers topics has ended.
    failure: Option<Failure>,
}

fn lock(topics: &Mutex<Topics>) -> MutexGuard<'_, Topics> {
    topics.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A topic that is read.
struct Topic {
    name: Name,
    rx: Subscriber,
    /// `true` if its name is gone: it is read to its end.
    gone: bool,
    /// The number of messages that were lost, and that of those not yet reported.
    lost: u64,
    untold: u64,
}

/// The means to join topics, from either thread.
struct Joining<'a> {
    args: &'a Args,
    patterns: &'a [Pattern],
    members: Members,
    signals: &'a Signals,
}

impl Joining<'_> {
    /// Joins a topic that appeared, or notes that one is gone. Fails if a topic that was named cannot be read.
    fn take(
        &self,
        found: Discovered,
        topics: &Mutex<Topics>,
        at_start: bool,
    ) -> Result<(), Failure> {
        match found {
            Discovered::Appeared { name, kind } => self.appeared(&name, kind, topics, at_start),
            Discovered::Gone { name, .. } => {
                let mut topics = lock(topics);
                let gone = topics
                    .joined
                    .values_mut()
                    .filter(|topic| topic.name == name);
                gone.for_each(|topic| topic.gone = true);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn appeared(
        &self,
        name: &Name,
        kind: Option<Kind>,
        topics: &Mutex<Topics>,
        at_start: bool,
    ) -> Result<(), Failure> {
        let named = self
            .patterns
            .iter()
            .any(|pattern| pattern.as_name().as_ref() == Some(name));
        // A pattern is for topics; other channels are not missed.
        if !named && kind.is_some_and(|kind| kind != Kind::Topic) {
            return Ok(());
        }
        match self.join(name, topics, at_start) {
            // It went again; that is reported next.
            Err(Failure::Slipring(SetupError::NotFound { .. })) => Ok(()),
            Err(failure @ Failure::Slipring(_)) if !named => {
                crate::exit::complain(format_args!("`{name}` is left out: {failure}"));
                Ok(())
            }
            joined => joined,
        }
    }

    fn join(&self, name: &Name, topics: &Mutex<Topics>, at_start: bool) -> Result<(), Failure> {
        let seek = match at_start {
            true => Seek::Newest,
            false => Seek::Oldest,
        };
        // The sizes are those of the topic that is there.
        let builder = Builder::new(1, 1).join(seek).check_every(CHECK_EVERY);
        let mut rx = self.args.role.take(self.signals, || {
            Ok(builder.open(&name.to_string())?.consumer()?)
        })?;
        let last = match self.args.latest {
            true => 1,
            false => self.args.last.unwrap_or(0),
        };
        if at_start && last > 0 {
            let newest = rx.position();
            let oldest = rx.seek(Seek::Oldest)?;
            rx.seek(Seek::To(newest.saturating_sub(last).max(oldest)))?;
        }
        let mut topics = lock(topics);
        let key = self.members.watch(&rx)?;
        let name = name.clone();
        let (gone, lost, untold) = (false, 0, 0);
        topics.joined.insert(
            key,
            Topic {
                name,
                rx,
                gone,
                lost,
                untold,
            },
        );
        Ok(())
    }

    /// Joins topics as they come, until `end` is hung up.
    fn go_on(
        &self,
        mut discovery: Discovery,
        topics: &Mutex<Topics>,
        end: &OwnedFd,
    ) -> Result<(), Failure> {
        let at_most = Timespec::try_from(SECOND).unwrap_or_default();
        loop {
            while let Some(found) = discovery.try_next()? {
                self.take(found, topics, false)?;
            }
            let mut fds = [
                PollFd::new(&discovery, PollFlags::IN),
                PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, Some(&at_most)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::io("wait for topics", errno)),
            }
            if !fds[1].revents().is_empty() {
                return Ok(());
            }
        }
    }
}

struct Sub<'a> {
    joining: Joining<'a>,
    several: bool,
    show: Show<'a>,
    bar: Progress,
    /// The time of the last report of lost messages.
    told: Option<Instant>,
}

impl Sub<'_> {
    /// Writes the newest message of each topic.
    fn newest(&mut self, topics: &Mutex<Topics>) -> Result<(), Failure> {
        let mut topics = lock(topics);
        for pattern in self.joining.patterns {
            let there = |topic: &Topic| pattern.matches(&topic.name);
            if !topics.joined.values().any(there) {
                let refusal = match pattern.as_name() {
                    Some(name) => {
                        format!("no topic `{name}`; publish to it first (`slipring pub`)")
                    }
                    None => format!("no topic matches `{pattern}`"),
                };
                return Err(Failure::Words(refusal));
            }
        }
        let mut by_name: Vec<_> = topics.joined.values_mut().collect();
        by_name.sort_by(|one, other| one.name.cmp(&other.name));
        for topic in by_name {
            if self.show.is_done() {
                break;
            }
            match topic.rx.latest() {
                Ok(sample) => {
                    let signals = self.joining.signals;
                    self.show
                        .message(&topic.name, sample.origin(), &sample, signals)?;
                }
                Err(Error::Empty) => {}
                Err(error) => return Err(Failure::from(error).about(&topic.name.to_string())),
            }
        }
        match self.show.seen {
            0 => Err(Failure::Words("nothing was published there yet".into())),
            _ => Ok(()),
        }
    }

    /// Writes messages until the count is reached, and joins topics meanwhile.
    fn follow(
        &mut self,
        set: &mut WaitSet,
        discovery: Discovery,
        topics: &Mutex<Topics>,
    ) -> Result<(), Failure> {
        self.tell_missing(&lock(topics));
        let (end, ended) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::io("make a pipe", errno))?;
        thread::scope(|threads| {
            let joining = Joining {
                members: self.joining.members.clone(),
                ..self.joining
            };
            threads.spawn(move || {
                if let Err(failure) = joining.go_on(discovery, topics, &end) {
                    lock(topics).failure = Some(failure);
                }
            });
            let done = self.read_all(set, topics);
            drop(ended);
            done
        })
    }

    fn read_all(&mut self, set: &mut WaitSet, topics: &Mutex<Topics>) -> Result<(), Failure> {
        let signals = self.joining.signals;
        while !self.show.is_done() {
            signals.check()?;
            let events = match set.wait_timeout(TICK) {
                Err(Error::TimedOut) => Vec::new(),
                events => events?,
            };
            let mut topics = lock(topics);
            for event in events.iter().filter(|event| event.ready) {
                if let Some(topic) = topics.joined.get_mut(&event.key) {
                    self.read(topic)?;
                }
            }
            self.leave_gone(&mut topics)?;
            self.tell_lost(&mut topics, false);
            self.bar.set(self.show.seen);
            if let Some(failure) = topics.failure.take() {
                return Err(failure);
            }
            // The other thread may go on while nobody reads the output.
            drop(topics);
            self.show.output.flush(signals)?;
        }
        Ok(())
    }

    /// Reads what is left of topics whose names are gone, and leaves them.
    fn leave_gone(&mut self, topics: &mut Topics) -> Result<(), Failure> {
        while let Some(key) = topics
            .joined
            .iter()
            .find_map(|(key, topic)| topic.gone.then_some(*key))
        {
            if let Some(mut topic) = topics.joined.remove(&key) {
                while !self.show.is_done() && self.read(&mut topic)? == TURN {}
                self.keep_loss(&topic);
            }
        }
        Ok(())
    }

    /// Writes some messages of a topic, and returns their number.
    fn read(&mut self, topic: &mut Topic) -> Result<usize, Failure> {
        for count in 0..TURN {
            if self.show.is_done() {
                return Ok(count);
            }
            let shown = match self.joining.args.latest {
                true => self.newest_of(topic),
                false => self.next_of(topic),
            };
            match shown {
                Ok(shown) => shown?,
                Err(Error::Empty) => return Ok(count),
                Err(Error::Lagged(lost)) if !self.joining.args.latest => {
                    topic.lost += lost;
                    topic.untold += lost;
                }
                Err(Error::Lagged(_)) => {}
                Err(Error::Disconnected(_)) => {
                    // It would be reported again and again; the next publisher may come.
                    match topic.rx.wait_for_producer(Duration::ZERO) {
                        Ok(()) | Err(Error::TimedOut) => return Ok(count),
                        Err(error) => return Err(error.into()),
                    }
                }
                // The discovery tells of it.
                Err(Error::Removed | Error::Replaced) => return Ok(count),
                Err(error) => return Err(Failure::from(error).about(&topic.name.to_string())),
            }
        }
        Ok(TURN)
    }

    /// Writes the next message.
    fn next_of(&mut self, topic: &mut Topic) -> Result<Result<(), Failure>, Error> {
        let record = topic.rx.try_read()?;
        let (origin, signals) = (record.origin(), self.joining.signals);
        Ok(self.show.message(&topic.name, origin, &record, signals))
    }

    /// Writes the newest message, if there is a new one, and goes on behind it.
    fn newest_of(&mut self, topic: &mut Topic) -> Result<Result<(), Failure>, Error> {
        topic.rx.try_read()?.keep();
        let sample = topic.rx.latest()?;
        let (origin, signals) = (sample.origin(), self.joining.signals);
        let shown = self.show.message(&topic.name, origin, &sample, signals);
        drop(sample);
        topic.rx.seek(Seek::To(origin.sequence + 1))?;
        Ok(shown)
    }

    /// Names the patterns for which there is no topic.
    fn tell_missing(&self, topics: &Topics) {
        for pattern in self.joining.patterns {
            let there = |topic: &Topic| pattern.matches(&topic.name);
            if topics.joined.values().any(there) {
                continue;
            }
            self.bar.say(&match pattern.as_name() {
                Some(name) => format!("no topic `{name}` yet; waiting for it"),
                None => format!("no topic matches `{pattern}` yet; waiting for one"),
            });
        }
    }

    /// Reports the messages that were lost; at most once a second, unless this is the end.
    fn tell_lost(&mut self, topics: &mut Topics, at_end: bool) {
        if !at_end && self.told.is_some_and(|told| told.elapsed() < SECOND) {
            return;
        }
        for topic in topics.joined.values_mut().filter(|topic| topic.untold > 0) {
            self.keep_loss(topic);
            topic.untold = 0;
            self.told = Some(Instant::now());
        }
    }

    fn keep_loss(&self, topic: &Topic) {
        if topic.untold > 0 {
            let (now, all) = (text::count(topic.untold), text::count(topic.lost));
            let of = match self.several {
                true => format!(" of `{}`", topic.name),
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
        self.args.count.is_some_and(|count| self.seen >= count)
    }

    fn message(
        &mut self,
        topic: &Name,
        origin: Origin,
        payload: &[u8],
        signals: &Signals,
    ) -> Result<(), Failure> {
        self.seen += 1;
        if self.args.json {
            self.line = as_json(topic, origin, payload).to_string();
            self.line.push('\n');
            return self.output.put(self.line.as_bytes(), signals);
        }
        if self.args.raw || self.args.framed {
            return self.output.put(payload, signals);
        }
        if self.several {
            self.output.put(format!("{topic}\t").as_bytes(), signals)?;
        }
        self.output.put(payload, signals)?;
        match payload.ends_with(b"\n") {
            true => Ok(()),
            false => self.output.put(b"\n", signals),
        }
    }
}

fn as_json(topic: &Name, origin: Origin, payload: &[u8]) -> Value {
    let mut out = json!({
        "topic": topic.to_string(),
        "sequence": origin.sequence,
        "publisher": origin.publisher,
        // A publisher that notes no time has 0 there.
        "time_ns": (origin.time != 0).then_some(origin.time),
    });
    match std::str::from_utf8(payload) {
        Ok(text) => out["text"] = text.into(),
        Err(_) => {
            let bytes = payload.iter().map(|byte| format!("{byte:02x}"));
            out["bytes"] = bytes.collect::<String>().into();
        }
    }
    out
}

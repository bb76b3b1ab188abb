//! One worker: the channel and the handles that it has, and the verbs on them.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slipring::inspect::{self, SeatStat};
use slipring::{Error, SetupError};
use slipring_testkit::{Consumer, Handle, Made, Maker, Memory, Producer, inherited};
use slipring_tests::room::PATIENCE;
use slipring_tests::{counter, options};

use crate::{
    broadcasts, forks, hostile, lives, next_line, races, say, scribbling, sets, topics, waiting,
};

/// The answer to a verb.
pub(crate) type Said = Result<Vec<String>, SetupError>;

/// The things that a process of a test has.
#[derive(Default)]
pub(crate) struct Worker {
    pub(crate) channel: Option<Box<dyn Memory>>,
    pub(crate) producer: Option<Box<dyn Producer>>,
    pub(crate) consumer: Option<Box<dyn Consumer>>,
    pub(crate) watch: Option<sets::Watch>,
    pub(crate) topics: topics::Topics,
    pub(crate) locked: Vec<OwnedFd>,
    pub(crate) socket: Option<UnixListener>,
    /// A connection over which a channel went.
    pub(crate) connection: Option<OwnedFd>,
}

/// The words of a line.
pub(crate) struct Line<'l> {
    pub(crate) words: Vec<&'l str>,
    pub(crate) options: HashMap<&'l str, &'l str>,
}

impl<'l> Line<'l> {
    fn parse(line: &'l str) -> Line<'l> {
        let (options, words) = line
            .split_whitespace()
            .partition::<Vec<_>, _>(|word| word.contains('='));
        let options = options
            .into_iter()
            .filter_map(|option| option.split_once('='))
            .collect();
        Line { words, options }
    }

    pub(crate) fn word(&self, index: usize) -> &'l str {
        self.words
            .get(index)
            .unwrap_or_else(|| panic!("no word {index} in {:?}", self.words))
    }

    pub(crate) fn number(&self, index: usize) -> u64 {
        self.word(index)
            .parse()
            .unwrap_or_else(|_| panic!("no number: {}", self.word(index)))
    }

    fn option(&self, key: &str) -> Option<u64> {
        self.options.get(key).map(|value| value.parse().unwrap())
    }

    fn timeout(&self) -> Duration {
        self.option("timeout")
            .map_or(PATIENCE, Duration::from_millis)
    }
}

/// Returns a name from its spelling in the line.
pub(crate) fn name(word: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
        } else if let [high, low, others @ ..] = others {
            let digits = [*high, *low];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            rest = others;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Returns the builder that the options describe.
pub(crate) fn maker(line: &Line<'_>) -> Box<dyn Maker> {
    options::maker(line.options.iter().map(|(key, value)| (*key, *value)))
}

/// Returns the error's variant, as a programmer writes it: `Debug` of an error is its sentence.
pub(crate) fn variant(error: &SetupError) -> String {
    macro_rules! named {
        ($error:ident: $of:ident; $($name:ident)*) => {
            match $error {
                $($of::$name { .. } => stringify!($name).to_owned(),)*
                other => panic!("name the variant of this error here: {other}"),
            }
        };
    }
    match error {
        SetupError::Message(Error::Disconnected(end)) => format!("Disconnected({end:?})"),
        SetupError::Message(Error::Lagged(lost)) => format!("Lagged({lost})"),
        SetupError::Message(error) => named!(
            error: Error;
            Full Empty TimedOut Ahead Stride TooLarge Removed Replaced NoPipes BadPipe InSet NoSet TooManyHeld NoSpace
        ),
        error => named!(
            error: SetupError;
            Forked Corrupt NotAChannel Version Kind Schema WhenFull Geometry Truncated Misaligned Capacity MaxRecord Consumers Metadata BadName NotFound AlreadyExists NoDirectory UnsafeDirectory Directory Permission NoSpace FileSystem NotMounted NoPool RoleTaken TooManyFiles Sealed NotSealable Recovering InUse NotRemoved NeedsProc NotPassable NotHandedOver BadDescriptor Os
        ),
    }
}

/// Returns an answer as a line.
pub(crate) fn spell(said: &Said) -> String {
    let clean = |text: &str| text.replace(['\t', '\n'], " ");
    match said {
        Ok(words) => words
            .iter()
            .fold("ok".to_owned(), |line, word| line + "\t" + &clean(word)),
        Err(error) => format!(
            "err\t{}\t{}",
            clean(&variant(error)),
            clean(&error.to_string())
        ),
    }
}

fn one(word: impl ToString) -> Said {
    Ok(vec![word.to_string()])
}

impl Worker {
    pub(crate) fn tx(&mut self) -> &mut dyn Producer {
        self.producer.as_deref_mut().expect("no producer")
    }

    pub(crate) fn rx(&mut self) -> &mut dyn Consumer {
        self.consumer.as_deref_mut().expect("no consumer")
    }

    /// Returns the handle of this role.
    pub(crate) fn end(&mut self, role: &str) -> &mut dyn Handle {
        match role {
            "producer" => self.tx(),
            _ => self.rx(),
        }
    }

    /// Returns the handle of this role, and the room that a producer wants for its next message.
    pub(crate) fn end_and_room(&mut self, role: &str) -> (&mut dyn Handle, usize) {
        let room = match role {
            "producer" => {
                let tx = self.tx();
                tx.room_for(tx.next())
            }
            _ => 0,
        };
        (self.end(role), room)
    }

    /// Takes the handle of this role away from the worker.
    pub(crate) fn take(&mut self, role: &str) -> Box<dyn Handle> {
        match role {
            "producer" => self.producer.take().expect("no producer"),
            _ => self.consumer.take().expect("no consumer"),
        }
    }

    pub(crate) fn memory(&self) -> &dyn Memory {
        self.channel.as_deref().expect("no channel")
    }

    pub(crate) fn keep(&mut self, channel: Made) -> Said {
        let channel = self.channel.insert(channel?);
        one(format!("{:032x}", channel.stat()?.header.identity.unique))
    }

    /// Obeys the line.
    pub(crate) fn obey(&mut self, text: &str) -> Said {
        let line = &Line::parse(text);
        let verb = line.word(0);
        match verb {
            "create" => self.keep(maker(line).create(&name(line.word(1)))),
            "open" => self.keep(maker(line).open(&name(line.word(1)))),
            "open-or-create" => self.keep(maker(line).open_or_create(&name(line.word(1)))),
            "heap" => self.keep(maker(line).heap()),
            "memfd" => self.keep(maker(line).memfd()),
            "from-fds" => self.keep(maker(line).passed(inherited(line.word(1)))),
            "close" => {
                self.channel = None;
                Ok(vec![])
            }
            "producer" => {
                self.producer = Some(match line.words.get(1) {
                    Some(word) => maker(line).producer(&name(word)),
                    None => self.memory().producer(),
                }?);
                Ok(vec![])
            }
            "consumer" => {
                self.consumer = Some(match line.words.get(1) {
                    Some(word) => maker(line).consumer(&name(word)),
                    None => self.memory().consumer(),
                }?);
                Ok(vec![])
            }
            "push" => {
                let first = line.number(1);
                for number in first..first + line.number(2) {
                    self.tx().push_timeout(number, line.timeout())?;
                }
                Ok(vec![])
            }
            "try-push" => {
                self.tx().try_push(line.number(1))?;
                Ok(vec![])
            }
            "resize-ring" => one(match self.tx().resize(line.number(1) as usize) {
                Ok(()) => "resized".to_owned(),
                Err(error) => error.to_string(),
            }),
            "try-batch" => {
                let first = line.number(1);
                one(self.tx().try_batch(first..first + line.number(2))?)
            }
            "place" => {
                self.tx().place(line.number(1))?;
                Ok(vec![])
            }
            "pop" => {
                let mut popped = || self.rx().pop_timeout(line.timeout());
                (0..line.number(1))
                    .map(|_| Ok(popped()?.to_string()))
                    .collect()
            }
            "try-pop" => one(self.rx().try_pop()?),
            "drain" => {
                Ok(std::iter::from_fn(|| Some(self.rx().try_pop().ok()?.to_string())).collect())
            }
            "hold-push" => {
                let numbers = line.number(1)..line.number(1) + line.number(2);
                forks::holding(|decide| {
                    let mut decide = |held: Range<u64>| Some(decide(&held.collect::<Vec<_>>()));
                    self.tx().hold(numbers, &mut decide)
                })
            }
            "hold-pop" => {
                let max = line.number(1) as usize;
                forks::holding(|decide| {
                    self.rx().read(max, &mut |numbers| {
                        decide(numbers);
                    })
                })
            }
            "leave" | "abort" | "panic" => {
                self.give_up(verb, line.word(1));
                Ok(vec![])
            }
            "next" => one(self.tx().next()),
            "position" => one(self.end(line.word(1)).position()),
            "len" => one(self.end(line.word(1)).len()?),
            "disconnected" => one(self.end(line.word(1)).is_disconnected()?),
            "heartbeat" => {
                self.end(line.word(1)).heartbeat();
                Ok(vec![])
            }
            "wait-for" => {
                let timeout = Duration::from_millis(line.number(2));
                match line.word(1) {
                    "consumer" => self.tx().wait_for_peer(timeout)?,
                    _ => self.rx().wait_for_peer(timeout)?,
                }
                Ok(vec![])
            }
            "identity" => one(format!(
                "{:032x}",
                self.memory().stat()?.header.identity.unique
            )),
            "pages" => {
                let pages = self.memory().pages();
                let reason = pages.reason.clone().unwrap_or_default();
                Ok(vec![pages.asked.to_string(), pages.got.to_string(), reason])
            }
            "metadata" => {
                let text = String::from_utf8_lossy(self.memory().metadata()).into_owned();
                one(text.trim_end_matches('\0'))
            }
            "geometry" => {
                let geometry = self.memory().stat()?.geometry;
                let figures = [geometry.capacity, geometry.slot_size];
                Ok(figures.map(|figure| figure.to_string()).to_vec())
            }
            "stat" => {
                let stat = inspect::stat(&name(line.word(1)))?;
                let unique = format!("{:032x}", stat.header.identity.unique);
                Ok(vec![unique, stat.len.to_string(), stat.schema_name])
            }
            "seat" => {
                let stat = inspect::stat(&name(line.word(1)))?;
                let seat = stat
                    .seats
                    .into_iter()
                    .find(|seat| seat.role.name() == line.word(2));
                Ok(seat_words(&seat.unwrap()))
            }
            "list" => Ok(inspect::list()?.iter().map(ToString::to_string).collect()),
            "remove" => match line.words.get(1) {
                Some(word) => inspect::remove(&name(word)),
                None => self.memory().remove(),
            }
            .map(|()| vec![]),
            "stream-produce" => self.stream_produce(line),
            "stream-consume" => self.stream_consume(line),
            "unwiped" => forks::unwiped(),
            "fork" => forks::fork(self, text.split_once(' ').unwrap().1),
            "fork-iterator" => {
                let numbers = line.number(1)..line.number(1) + line.number(2);
                forks::iterating(|between| self.tx().iterate(numbers, between))
            }
            "fork-parked" => forks::parked(line, line.number(1)),
            "fork-linger" => forks::fork_linger(),
            "exec-linger" => forks::exec_linger(),
            "fork-storm" => forks::storm(&name(line.word(1)), line.number(2)),
            "race" => races::race(line),
            "churn" => races::churn(line),
            "occupy" => races::occupy(line),
            "wreck" => races::wreck(line),
            "rebuild" => races::rebuild(line),
            "fenced" => {
                waiting::fenced();
                Ok(vec![])
            }
            "sandbox" => {
                waiting::sandbox();
                Ok(vec![])
            }
            "ask" => waiting::ask(line),
            "answer" => waiting::answer(line),
            "sleep-pop" => waiting::sleep_pop(),
            "endure" => hostile::endure(self, line),
            "scribble" => scribbling::scribble(line),
            _ if verb.starts_with("life-") => lives::obey(self, line),
            _ if verb.starts_with("topic-") || verb.starts_with("frame-") => {
                topics::obey(self, line)
            }
            _ if verb.starts_with("watch") => sets::obey(self, line),
            _ => broadcasts::obey(self, line),
        }
    }

    fn give_up(&mut self, how: &str, role: &str) {
        let handle = self.take(role);
        match how {
            "leave" => drop(handle),
            "abort" => handle.abort(),
            _ => {
                std::panic::set_hook(Box::new(|_| {}));
                let result = catch_unwind(AssertUnwindSafe(move || {
                    let _held = handle;
                    panic!("on purpose");
                }));
                drop(std::panic::take_hook());
                assert!(result.is_err());
            }
        }
    }

    /// Writes consecutive numbers for ever, in every way there is. It goes on where the last
    /// producer was killed, and all messages that the counter shows as accepted are there.
    fn stream_produce(&mut self, line: &Line<'_>) -> Said {
        let accepted = line.words.get(1).map(|path| counter(Path::new(path)));
        let before = accepted.map_or(0, |accepted| accepted.load(Ordering::Relaxed));
        assert!(self.tx().next() >= before, "{before} were accepted");
        say("ok");
        loop {
            let tx = self.tx();
            let number = tx.next();
            let written = match number % 8 {
                0 => tx.batch(number..number + 5),
                1 | 2 => tx.place(number),
                _ => tx.push(number),
            };
            match written {
                Ok(()) => {
                    if let Some(accepted) = accepted {
                        accepted.store(tx.next(), Ordering::Relaxed);
                    }
                }
                Err(Error::Disconnected(_)) => tx.wait_for_peer(PATIENCE)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads in place for ever. The counter holds the number that follows the seen messages. Its
    /// highest byte holds how many of them were in hand: they come again if their reader was killed
    /// before it had released them, all of them or none. No other message comes again.
    fn stream_consume(&mut self, line: &Line<'_>) -> Said {
        let seen = counter(Path::new(line.word(1)));
        let before = seen.load(Ordering::Relaxed);
        let (end, hand) = (before & (u64::MAX >> 8), before >> 56);
        let mut next = None;
        say("ok");
        loop {
            let rx = self.rx();
            let read = rx.read(7, &mut |numbers| {
                let (first, count) = (numbers[0], numbers.len() as u64);
                match next {
                    Some(next) => assert_eq!(first, next, "missing, reused, or out of order"),
                    None => assert!(
                        [end, end - hand].contains(&first),
                        "{first}, not {end}, with {hand} in hand"
                    ),
                }
                assert!(
                    numbers.iter().copied().eq(first..first + count),
                    "{numbers:?}"
                );
                next = Some(first + count);
                seen.store(count << 56 | (first + count), Ordering::Relaxed);
            });
            match read {
                Ok(()) => {}
                Err(Error::Disconnected(_)) => rx.wait_for_peer(PATIENCE)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn seat_words(seat: &SeatStat) -> Vec<String> {
    let figures = [
        seat.generation,
        seat.pid,
        seat.position,
        seat.messages,
        seat.heartbeat_age.unwrap_or(0),
    ];
    let words = std::iter::once(seat.state.name().to_owned());
    words
        .chain(figures.iter().map(ToString::to_string))
        .collect()
}

/// Returns the next line that a held guard waits for.
pub(crate) fn verdict() -> Vec<String> {
    let line = next_line().unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

//! The verbs of topics: several publishers, and subscribers that read any of the last messages and hold some.
//!
//! Publishers number their messages by line and life: `LINE << 48 | LIFE << 32 | N`, N from 0. So a subscriber knows from the
//! numbers alone that none is missing. What goes on until a line comes says `more` when it has begun.
//!
//! | verb | does |
//! |---|---|
//! | `topic-publish` LINE LIFE COUNT | publishes so many messages (0: until a line comes); says how many |
//! | `topic-follow` COUNT | reads so many (0: until a line comes, and then all) in order, by all verbs; says how many, and how many were lost |
//! | `topic-newest` COUNT | reads the newest again and again, and those before it; says how many it read, and the newest |
//! | `topic-hold` COUNT | the same, and holds some of them at random; says how many it held |
//! | `topic-pin` COUNT | holds the newest messages; says their places in the order |
//! | `topic-held` | checks what it holds; says their places |
//! | `topic-free` | lets go of all |
//! | `topic-last` N | says the places of the last N messages, the newest first |
//! | `frame-producer`, `frame-consumer` NAME MAX | takes a role of a topic of records of up to MAX bytes |
//! | `frame-push` LEN FILL | publishes a record of LEN bytes, all FILL |
//! | `frame-trim` KEEP | gives memory back |
//! | `frame-latest` | says the length and the content of the newest record |
//! | `topic-watch` NAME COUNT | takes the consumers of the topics NAME-0 and so on, and puts them in a set |
//! | `topic-wait` MS | waits for the set once, at most so long; says the numbers of topics that have news, and takes that |

use std::time::Duration;

use slipring::topic::{self, records};
use slipring::{Error, WaitSet};
use slipring_testkit::{Consumer, Held};

use crate::worker::{Line, Said, Worker, name};

/// An entry of a set, and its topic's subscriber.
type Watched = (slipring::set::Key, topic::Subscriber<u64>);

/// The things that a worker has of topics.
#[derive(Default)]
pub(crate) struct Topics {
    held: Vec<(u64, Box<dyn Held>)>,
    publisher: Option<records::Publisher>,
    subscriber: Option<records::Subscriber>,
    set: Option<(WaitSet, Vec<Watched>)>,
}

/// The number of messages that a subscriber of these tests may hold.
const HELD: usize = 4;

fn frames(line: &Line<'_>) -> records::Builder {
    let largest = line.number(2) as usize;
    records::Builder::new(2, largest).producers(2).consumers(1)
}

pub(crate) fn obey(worker: &mut Worker, line: &Line<'_>) -> Said {
    let words = |words: &[u64]| Ok(words.iter().map(u64::to_string).collect());
    match line.word(0) {
        "topic-publish" => publish(worker, line),
        "topic-follow" => follow(worker.rx(), line.number(1)),
        "topic-newest" => newest(worker.rx(), line.number(1), false),
        "topic-hold" => newest(worker.rx(), line.number(1), true),
        "topic-pin" => {
            for back in 0..line.number(1) {
                let held = worker.rx().try_nth_latest_owned(back as usize)?;
                let number = held.check().unwrap();
                worker.topics.held.push((number, held));
            }
            words(&places(&worker.topics.held))
        }
        "topic-held" => words(&places(&worker.topics.held)),
        "topic-free" => {
            worker.topics.held.clear();
            Ok(vec![])
        }
        "topic-last" => {
            let mut last = Vec::new();
            for back in 0..line.number(1) {
                let (place, came) = worker.rx().try_nth_latest(back as usize)?;
                came.unwrap();
                last.push(place);
            }
            words(&last)
        }
        "frame-producer" => {
            worker.topics.publisher = Some(frames(line).producer(&name(line.word(1)))?);
            Ok(vec![])
        }
        "frame-consumer" => {
            worker.topics.subscriber = Some(frames(line).consumer(&name(line.word(1)))?);
            Ok(vec![])
        }
        "frame-push" => {
            let (len, fill) = (line.number(1) as usize, line.number(2) as u8);
            let tx = worker.topics.publisher.as_mut().expect("no publisher");
            tx.try_push(&vec![fill; len])?;
            Ok(vec![])
        }
        "frame-trim" => {
            let tx = worker.topics.publisher.as_mut().expect("no publisher");
            tx.trim(line.number(1) as usize);
            Ok(vec![])
        }
        "frame-latest" => {
            let rx = worker.topics.subscriber.as_mut().expect("no subscriber");
            let record = rx.latest()?;
            let fill = record[0];
            assert!(record.iter().all(|byte| *byte == fill), "torn");
            words(&[record.len() as u64, fill.into()])
        }
        "topic-watch" => {
            let set = WaitSet::new()?;
            let mut topics = Vec::new();
            for index in 0..line.number(2) {
                // Only a wake ends a sleep.
                let builder = topic::Builder::new(8).check_every(Duration::from_secs(3600));
                let rx = builder.consumer(&format!("{}-{index}", line.word(1)))?;
                topics.push((set.watch(&rx)?, rx));
            }
            worker.topics.set = Some((set, topics));
            Ok(vec![])
        }
        "topic-wait" => {
            let (set, topics) = worker.topics.set.as_mut().expect("no set");
            let events = set.wait_timeout(Duration::from_millis(line.number(1)))?;
            let mut news = Vec::new();
            for (index, (key, rx)) in topics.iter_mut().enumerate() {
                if events.iter().any(|event| event.key == *key && event.ready) {
                    news.extend([index as u64, rx.try_pop()?]);
                }
            }
            words(&news)
        }
        verb => panic!("no verb {verb}"),
    }
}

/// Counts `count` rounds; if that is 0, says that it has begun, and goes on until a line comes.
fn rounds(count: u64) -> impl Iterator<Item = u64> {
    if count == 0 {
        crate::say("ok\tmore");
    }
    crate::rounds(count)
}

/// Checks all held messages, and returns their places in the order.
fn places(held: &[(u64, Box<dyn Held>)]) -> Vec<u64> {
    let place = |(number, held): &(u64, Box<dyn Held>)| {
        assert_eq!(held.check(), Ok(*number), "a held message changed");
        held.sequence()
    };
    held.iter().map(place).collect()
}

fn publish(worker: &mut Worker, line: &Line<'_>) -> Said {
    let first = line.number(1) << 48 | line.number(2) << 32;
    let tx = worker.tx();
    let mut count = 0;
    for round in rounds(line.number(3)) {
        let number = first + round;
        // A publisher is never full: it waits for nobody.
        match round % 4 {
            0 => tx.place(number)?,
            1 => tx.push(number)?,
            _ => tx.try_push(number)?,
        }
        count = round + 1;
    }
    Ok(vec![count.to_string()])
}

/// The account of a reader in order: which message of each line comes next.
#[derive(Default)]
struct Account {
    /// The last number of each line, if no message was lost since.
    last: [Option<u64>; 16],
    newest: [Option<u64>; 16],
}

impl Account {
    fn take(&mut self, number: u64) {
        let line = (number >> 48) as usize;
        if let Some(last) = self.last[line] {
            let same_life = number >> 32 == last >> 32;
            let first = number & 0xffff_ffff == 0;
            let next = number == last + 1 || !same_life && number > last && first;
            assert!(next, "{number:#x} came after {last:#x}");
        }
        assert!(self.newest[line] < Some(number), "{number:#x} came again");
        self.newest[line] = Some(number);
        self.last[line] = Some(number);
    }

    fn lose(&mut self) {
        self.last = [None; 16];
    }
}

fn follow(rx: &mut dyn Consumer, count: u64) -> Said {
    let (mut account, mut read, mut lost) = (Account::default(), 0, 0);
    let mut turns = rounds(count);
    loop {
        let turn = turns.next();
        let at = rx.position();
        let taken = match turn.unwrap_or(0) % 3 {
            0 => rx.try_read().map(|came| vec![came]),
            1 => rx.try_pop_any().map(|came| vec![came]),
            _ => {
                let mut came = Vec::new();
                rx.try_copy(3, &mut |one| came.push(one)).map(|()| came)
            }
        };
        match taken {
            Ok(came) => {
                assert_eq!(rx.position(), at + came.len() as u64);
                read += came.len() as u64;
                came.into_iter()
                    .for_each(|came| account.take(came.unwrap()));
            }
            Err(Error::Lagged(count)) => {
                assert_eq!(rx.position(), at + count);
                lost += count;
                account.lose();
            }
            Err(Error::Empty | Error::Disconnected(_)) if turn.is_none() => {
                return Ok(vec![read.to_string(), lost.to_string()]);
            }
            Err(Error::Empty | Error::Disconnected(_)) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the newest, and those before it. Whatever was published when the newest was read is there afterwards.
fn newest(rx: &mut dyn Consumer, count: u64, hold: bool) -> Said {
    let (mut last, mut read, mut kept) = (0, 0_u64, 0_u64);
    let mut held: Vec<(u64, Box<dyn Held>)> = Vec::new();
    let mut dice = u64::from(std::process::id());
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    for _ in rounds(count) {
        let (place, came) = match rx.try_nth_latest(0) {
            Err(Error::Empty) => continue,
            found => found?,
        };
        came.unwrap();
        assert!(place >= last, "the newest is {place}, after {last}");
        (last, read) = (place, read + 1);
        let back = 1 + roll(6);
        match rx.try_nth_latest(back as usize) {
            Ok((place, came)) => {
                came.unwrap();
                assert!(place + back >= last, "{place} is {back} before {last}");
            }
            // Somebody publishes that fast, or there were not that many.
            Err(Error::Lagged(_) | Error::Empty) => {}
            Err(error) => return Err(error.into()),
        }
        if !hold {
            continue;
        }
        let found = match roll(2) {
            0 => rx.try_nth_latest_owned(0),
            _ => rx.try_read_held(),
        };
        match found {
            Ok(sample) => {
                assert!(held.len() < HELD, "more than it may hold");
                held.push((sample.check().unwrap(), sample));
                kept += 1;
            }
            Err(Error::TooManyHeld { .. }) => assert_eq!(held.len(), HELD),
            Err(Error::Lagged(_) | Error::Empty | Error::Disconnected(_)) => {}
            Err(error) => return Err(error.into()),
        }
        places(&held);
        if !held.is_empty() && roll(3) == 0 {
            held.swap_remove(roll(held.len() as u64) as usize);
        }
    }
    places(&held);
    Ok(vec![read.to_string(), last.to_string(), kept.to_string()])
}

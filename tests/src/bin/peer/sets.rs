//! Waiting for many channels with one sleep. Channel `I` of `NAME` is called `NAME-I`, and carries `u64`.
//!
//! | verb | does |
//! |---|---|
//! | `watch` NAME COUNT IDLE | takes the consumers of COUNT channels, and puts them in a set, with IDLE channels that nobody writes |
//! | `watch-wait` | waits once; says `I=what` for each event: `ready`, or how the producer ended |
//! | `watch-pop` I, `watch-pop-waiting` I | says the number that is there; or waits for it |
//! | `watch-out` I, `watch-in` I | takes the consumer out of the set, and puts it in again |
//! | `watch-note` I | acknowledges the reported end, and does not wait longer for the next producer |
//! | `watch-stream` | goes on for ever; writes to its output each number, with I in the highest byte, and `!I` for a producer that died |
//! | `watch-answer` COUNT IDLE, `watch-ask` COUNT IDLE N | passes N messages there (`there-I`) and back (`back-I`), each on another channel (0: until a line comes); both wait by sets, and no other message is in flight; says `more` when it has its seats, and the asker every thousand |
//!
//! `check=` is the interval in milliseconds at which a set checks by itself; without it, it never
//! does.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use slipring::set::{Event, Key};
use slipring::{End, Error, SetupError, WaitSet, spsc};

use crate::waiting::{linger, pin};
use crate::worker::{Line, Said, Worker};
use crate::{rounds, say};

type Ends = (spsc::Producer<u64>, spsc::Consumer<u64>);

/// A set, and its entries.
pub(crate) struct Watch {
    set: WaitSet,
    channels: Vec<(Key, spsc::Consumer<u64>)>,
    _idle: Vec<Ends>,
}

fn builder(capacity: usize, line: &Line<'_>) -> spsc::Builder<u64> {
    let check = line
        .options
        .get("check")
        .map(|check| check.parse().unwrap());
    // A timeout so long that a lost wake is a test that does not end.
    let check = check.map_or(Duration::from_secs(3600), Duration::from_millis);
    spsc::Builder::new(capacity).check_every(check)
}

fn allow_many_descriptors() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

impl Watch {
    fn new(name: &str, count: u64, idle: u64, line: &Line<'_>) -> Result<Watch, SetupError> {
        allow_many_descriptors();
        let set = WaitSet::new()?;
        let mut channels = Vec::new();
        for index in 0..count {
            let rx = builder(64, line).consumer(&format!("{name}-{index}"))?;
            channels.push((set.watch(&rx)?, rx));
        }
        let idle = (0..idle).map(|_| {
            let ends = builder(1, line).channel_pair()?;
            set.watch(&ends.1)?;
            Ok(ends)
        });
        let _idle = idle.collect::<Result<_, SetupError>>()?;
        Ok(Watch {
            set,
            channels,
            _idle,
        })
    }

    fn index(&self, event: &Event) -> usize {
        let mut keys = self.channels.iter().map(|(key, _)| *key);
        keys.position(|key| key == event.key).unwrap()
    }

    /// Takes the one message that is in flight.
    fn next(&mut self) -> Result<(usize, u64), Error> {
        let mut found = Vec::new();
        while found.is_empty() {
            for event in self.set.wait()? {
                assert!(event.ready, "{event:?}");
                let index = self.index(&event);
                match self.channels[index].1.try_pop() {
                    Ok(number) => found.push((index, number)),
                    // The process that answered the last message leaves.
                    Err(Error::Disconnected(End::Finished)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        assert_eq!(found.len(), 1, "{found:?}");
        Ok(found[0])
    }
}

fn watched(worker: &mut Worker) -> &mut Watch {
    worker.watch.as_mut().expect("no set")
}

pub(crate) fn obey(worker: &mut Worker, line: &Line<'_>) -> Said {
    match line.word(0) {
        "watch" => {
            let (count, idle) = (line.number(2), line.number(3));
            worker.watch = Some(Watch::new(line.word(1), count, idle, line)?);
            Ok(vec![])
        }
        "watch-wait" => wait(watched(worker)),
        "watch-pop" => {
            let (_, rx) = &mut watched(worker).channels[line.number(1) as usize];
            Ok(vec![rx.try_pop()?.to_string()])
        }
        "watch-pop-waiting" => {
            let (_, rx) = &mut watched(worker).channels[line.number(1) as usize];
            Ok(vec![rx.pop()?.to_string()])
        }
        "watch-out" => {
            let watch = watched(worker);
            let (key, _) = watch.channels[line.number(1) as usize];
            assert!(watch.set.unwatch(key));
            Ok(vec![])
        }
        "watch-in" => {
            let watch = watched(worker);
            let (key, rx) = &mut watch.channels[line.number(1) as usize];
            *key = watch.set.watch(rx)?;
            Ok(vec![])
        }
        "watch-note" => {
            let (_, rx) = &mut watched(worker).channels[line.number(1) as usize];
            take_note(rx);
            Ok(vec![])
        }
        "watch-stream" => stream(watched(worker)),
        "watch-answer" => answer(line),
        "watch-ask" => ask(line),
        verb => panic!("no verb {verb}"),
    }
}

/// Acknowledges the end: from now on the set waits for the next producer.
fn take_note(rx: &mut spsc::Consumer<u64>) {
    assert_eq!(rx.wait_for_producer(Duration::ZERO), Err(Error::TimedOut));
}

fn wait(watch: &mut Watch) -> Said {
    let events = watch.set.wait()?;
    let said = events.iter().flat_map(|event| {
        let index = watch.index(event);
        let ready = event.ready.then(|| format!("{index}=ready"));
        let ended = event.ended.map(|end| format!("{index}={end:?}"));
        [ready, ended].into_iter().flatten()
    });
    Ok(said.collect())
}

fn stream(watch: &mut Watch) -> Said {
    say("ok");
    let out = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    let log = |word: u64| (&out).write_all(&word.to_le_bytes()).unwrap();
    loop {
        for event in watch.set.wait()? {
            let index = watch.index(&event);
            let rx = &mut watch.channels[index].1;
            let last = loop {
                match rx.try_pop() {
                    Ok(number) => log((index as u64) << 56 | number),
                    Err(error) => break error,
                }
            };
            if event.ended == Some(End::Died) {
                // The handle's next call reports the end that the set found.
                assert_eq!(last, Error::Disconnected(End::Died));
                take_note(rx);
                log(!(index as u64));
            }
        }
    }
}

/// Returns the channel, of `count`, that message `number` takes.
fn channel(number: u64, count: u64) -> usize {
    ((number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % count) as usize
}

fn producers(name: &str, line: &Line<'_>) -> Result<Vec<spsc::Producer<u64>>, SetupError> {
    let open = |index| builder(64, line).producer(&format!("{name}-{index}"));
    (0..line.number(1)).map(open).collect()
}

/// The message after which both stop.
const LAST: u64 = u64::MAX;

fn answer(line: &Line<'_>) -> Said {
    pin(1);
    let count = line.number(1);
    let mut watch = Watch::new("there", count, line.number(2), line)?;
    let mut back = producers("back", line)?;
    say("ok\tmore");
    let mut expected = 0;
    loop {
        let (from, number) = watch.next()?;
        assert!(number == expected || number == LAST, "{number}");
        assert_eq!(from, channel(number, count));
        linger(number ^ 0x5555);
        back[channel(number ^ 1, count)].try_push(number).unwrap();
        if number == LAST {
            return Ok(vec![]);
        }
        expected += 1;
    }
}

fn ask(line: &Line<'_>) -> Said {
    pin(0);
    let count = line.number(1);
    let mut watch = Watch::new("back", count, line.number(2), line)?;
    let mut there = producers("there", line)?;
    say("ok\tmore");
    for number in rounds(line.number(3)).chain([LAST]) {
        linger(number);
        there[channel(number, count)].try_push(number).unwrap();
        assert_eq!(watch.next()?, (channel(number ^ 1, count), number));
        if number != LAST && number % 1000 == 999 {
            say("ok\tmore");
        }
    }
    Ok(vec![])
}

//! Checks the promises of named channels within one process. A waiter learns that its channel's
//! directory was emptied, however it waits. Other sizes are reported, other policies refused. An
//! ephemeral channel goes with its last user.
//!
//! Only the news ends a sleep in these tests: a waiter that never learns of it is a test that does
//! not end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod executor;

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use executor::block_on;
use rustix::event::{PollFd, PollFlags, poll};
use slipring::broadcast::{self, Seek};
use slipring::inspect::Watch;
use slipring::{End, Error, Kind, Readiness, SetupError, Wait, WaitSet, bytes, spsc};

/// A timeout so long that a waiter that is never woken is a test that does not end.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// The number of entries beyond which a set sleeps on pipes.
const DOORBELLS: usize = 127;

/// A domain of one test, removed with it.
struct Domain(&'static str);

/// The number of domains. The last one removes the directory too.
static DOMAINS: Mutex<u32> = Mutex::new(0);

impl Domain {
    fn new(name: &'static str) -> Domain {
        let mut domains = DOMAINS.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = format!("/dev/shm/slipring-named-{}", std::process::id());
        if *domains == 0 {
            fs::create_dir_all(&dir).unwrap();
            // SAFETY: the standard library's own lock orders it with the reads of this process.
            unsafe { std::env::set_var("SLIPRING_DIR", dir) };
        }
        *domains += 1;
        Domain(name)
    }

    fn path(&self) -> PathBuf {
        slipring::directory().0.join(format!("@{}", self.0))
    }

    fn name(&self, topic: &str) -> String {
        format!("{}/{topic}", self.0)
    }

    /// Empties the directory as `rm -rf` does.
    fn empty(&self) {
        fs::remove_dir_all(self.path()).unwrap();
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mut domains = DOMAINS.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = fs::remove_dir_all(self.path());
        *domains -= 1;
        if *domains == 0 {
            let _ = fs::remove_dir(slipring::directory().0);
        }
    }
}

fn ways() -> [Wait; 4] {
    let spin_for = Duration::ZERO;
    [
        Wait::Sleep { spin_for },
        Wait::default(),
        Wait::Yield,
        Wait::Spin,
    ]
}

/// Tries each kind, each end and each way to wait. No check of the peer comes by itself.
#[test]
fn blocking_calls_are_told() {
    let domain = Domain::new("blocking");
    let name = |kind: &str, at: usize| domain.name(&format!("{kind}-{at}"));
    let mut calls: Vec<(String, Box<dyn FnOnce() -> Error + Send>)> = Vec::new();
    for (at, wait) in ways().into_iter().enumerate() {
        let fixed = || {
            spsc::Builder::<u64>::new(1)
                .wait(wait)
                .check_every(FOR_EVER)
        };
        let alone = name("alone", at);
        let mut rx = fixed().consumer(&alone).unwrap();
        calls.push((alone, Box::new(move || rx.pop().unwrap_err())));
        // The call also waits for a live peer that sends nothing.
        let (full, records) = (name("full", at), name("records", at));
        let mut tx = fixed().producer(&full).unwrap();
        let idle = fixed().consumer(&full).unwrap();
        tx.push(7).unwrap();
        calls.push((
            full,
            Box::new(move || {
                let _idle = idle;
                tx.push(8).unwrap_err().error()
            }),
        ));
        let builder = bytes::Builder::new(64).wait(wait).check_every(FOR_EVER);
        let mut rx = builder.consumer(&records).unwrap();
        calls.push((
            records,
            Box::new(move || rx.wait_for_producer(FOR_EVER).unwrap_err()),
        ));
        let builder = broadcast::Builder::<u64>::new(1).wait(wait);
        let (slowest, each) = (name("slowest", at), name("each", at));
        let (mut tx, idle) = (
            builder.producer(&slowest).unwrap(),
            builder.consumer(&slowest).unwrap(),
        );
        tx.push(7).unwrap();
        calls.push((
            slowest,
            Box::new(move || {
                let _idle = idle;
                tx.push(8).unwrap_err().error()
            }),
        ));
        let mut rx = builder.consumer(&each).unwrap();
        calls.push((each, Box::new(move || rx.pop().unwrap_err())));
    }
    let waiting = calls
        .into_iter()
        .map(|(name, call)| (name, thread::spawn(call)));
    let waiting = waiting.collect::<Vec<_>>();
    domain.empty();
    for (name, waiting) in waiting {
        assert_eq!(waiting.join().unwrap(), Error::Removed, "{name}");
    }
}

/// This waits as `recv` does: no single call is long enough for a check.
#[test]
fn short_waits_add_up() {
    let domain = Domain::new("short");
    for wait in ways() {
        let name = domain.name("x");
        let mut rx = spsc::Builder::<u64>::new(1)
            .wait(wait)
            .consumer(&name)
            .unwrap();
        domain.empty();
        let error = loop {
            match rx.pop_timeout(Duration::from_micros(100)) {
                Err(Error::TimedOut) => {}
                told => break told.unwrap_err(),
            }
        };
        assert_eq!(error, Error::Removed);
    }
}

/// A later process makes another channel; and the directory above may be another one, too.
#[test]
fn another_channel_is_told_apart() {
    let domain = Domain::new("replaced");
    let name = domain.name("x");
    let builder = spsc::Builder::<u64>::new(1);
    for how in ["emptied", "one removed", "moved away"] {
        let mut rx = builder.consumer(&name).unwrap();
        match how {
            "emptied" => domain.empty(),
            "one removed" => fs::remove_dir_all(domain.path().join("x")).unwrap(),
            _ => fs::rename(domain.path(), domain.path().with_extension("aside")).unwrap(),
        }
        let mut later = builder.producer(&name).unwrap();
        assert_eq!(rx.pop(), Err(Error::Replaced), "{how}");
        // The ends of the new channel get no report.
        assert!(later.check_name().is_ok());
        later.push(7).unwrap();
        drop((rx, later));
        domain.empty();
    }
    fs::remove_dir_all(domain.path().with_extension("aside")).unwrap();
}

/// After the report the handle is armed again, and gets the report again.
#[test]
fn descriptors_become_readable() {
    let domain = Domain::new("descriptor");
    let name = domain.name("x");
    let mut rx = spsc::Builder::<u64>::new(1).consumer(&name).unwrap();
    let fd = rx.as_fd().unwrap().try_clone_to_owned().unwrap();
    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
    domain.empty();
    for _ in 0..2 {
        let error = loop {
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
            match rx.arm() {
                Ok(Readiness::Armed) => {}
                told => break told.unwrap_err(),
            }
        };
        assert_eq!(error, Error::Removed);
    }
}

#[test]
fn futures_are_told() {
    let domain = Domain::new("future");
    let name = domain.name("x");
    let mut rx = bytes::Builder::new(64).consumer(&name).unwrap();
    let waiting = thread::spawn(move || block_on(rx.read_async()).map(drop).unwrap_err());
    let peers = domain.name("y");
    let mut tx = spsc::Builder::<u64>::new(1).producer(&peers).unwrap();
    let alone = thread::spawn(move || block_on(tx.wait_for_consumer_async()).unwrap_err());
    domain.empty();
    assert_eq!(waiting.join().unwrap(), Error::Removed);
    assert_eq!(alone.join().unwrap(), Error::Removed);
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_tasks_are_told() {
    let domain = Domain::new("tokio");
    let name = domain.name("x");
    let mut rx = spsc::Builder::<u64>::new(1).consumer(&name).unwrap();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().build().unwrap();
    let error = runtime.block_on(async {
        rx.on_tokio().unwrap();
        domain.empty();
        rx.pop_async().await.unwrap_err()
    });
    assert_eq!(error, Error::Removed);
}

/// Tries a set on doorbells, and a set on pipes.
#[test]
fn sets_report_renamed_channels() {
    let domain = Domain::new("set");
    for idle in [0, DOORBELLS] {
        let name = domain.name("x");
        let builder = spsc::Builder::<u64>::new(1).check_every(FOR_EVER);
        let rx = builder.consumer(&name).unwrap();
        let others = (0..idle).map(|_| builder.channel_pair().unwrap());
        let others = others.collect::<Vec<_>>();
        let mut set = WaitSet::new().unwrap();
        for (_, rx) in &others {
            set.watch(rx).unwrap();
        }
        let key = set.watch(&rx).unwrap();
        domain.empty();
        let events = set.wait().unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(events[0].renamed && events[0].key == key, "{events:?}");
        assert!(!events[0].ready, "{events:?}");
        assert_eq!(rx.check_name(), Err(Error::Removed));
        // The set reports it once.
        let told = set.wait_timeout(Duration::from_millis(2500));
        assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
    }
}

/// Pending messages come first, and so does an end.
#[test]
fn messages_come_first() {
    let domain = Domain::new("first");
    let name = domain.name("x");
    let builder = spsc::Builder::<u64>::new(4);
    let (mut tx, mut rx) = (
        builder.producer(&name).unwrap(),
        builder.consumer(&name).unwrap(),
    );
    tx.push(1).unwrap();
    domain.empty();
    drop(tx);
    assert_eq!(rx.pop().unwrap(), 1);
    assert!(matches!(rx.pop(), Err(Error::Disconnected(_))));
    assert_eq!(rx.wait_for_producer(FOR_EVER), Err(Error::Removed));
}

/// A watch that begins behind all sent messages gets the end, as a consumer does, at each call.
#[test]
fn late_watchers_are_told_ends() {
    let domain = Domain::new("watched");
    let name = domain.name("x");
    let builder = broadcast::Builder::<u64>::new(4);
    let mut tx = builder.producer(&name).unwrap();
    tx.push(1).unwrap();
    let mut early = Watch::new(&name, Seek::Newest).unwrap();
    assert!(matches!(early.try_next(), Err(Error::Empty)));
    // Its producer is there: nothing is skipped.
    early.skip_end().unwrap();
    drop(tx);
    let mut late = Watch::new(&name, Seek::Newest).unwrap();
    for watch in [&mut early, &mut late] {
        for _ in 0..3 {
            let end = watch.try_next().unwrap_err();
            assert!(matches!(end, Error::Disconnected(End::Finished)), "{end}");
        }
        let end = watch.next_timeout(FOR_EVER).unwrap_err();
        assert!(matches!(end, Error::Disconnected(End::Finished)), "{end}");
        watch.skip_end().unwrap();
        assert!(matches!(watch.try_next(), Err(Error::Empty)));
    }
    let mut tx = builder.producer(&name).unwrap();
    tx.push(2).unwrap();
    tx.abort();
    for watch in [&mut early, &mut late] {
        // The end does not come before the producer's messages.
        watch.skip_end().unwrap();
        assert_eq!(watch.try_next().unwrap().payload, 2_u64.to_le_bytes());
        let end = watch.try_next().unwrap_err();
        assert!(matches!(end, Error::Disconnected(End::Aborted)), "{end}");
    }
}

/// Two ends that go on talking are left alone: each check finds that the other has moved.
#[test]
fn lively_pairs_are_left_alone() {
    let domain = Domain::new("lively");
    let builder = |wait| spsc::Builder::<u64>::new(1).wait(wait);
    let (there, back) = (domain.name("there"), domain.name("back"));
    let [sleep, ..] = ways();
    let mut tx = builder(sleep).producer(&there).unwrap();
    let mut from = builder(sleep).consumer(&back).unwrap();
    let mut rx = builder(sleep).consumer(&there).unwrap();
    let mut to = builder(sleep).producer(&back).unwrap();
    domain.empty();
    let echo = thread::spawn(move || {
        while let Ok(number) = rx.pop() {
            to.push(number).unwrap();
        }
    });
    let begun = std::time::Instant::now();
    let mut number = 0;
    // This is longer than two checks.
    while begun.elapsed() < Duration::from_millis(2500) {
        tx.push(number).unwrap();
        assert_eq!(from.pop().unwrap(), number);
        number += 1;
    }
    drop(tx);
    echo.join().unwrap();
}

#[test]
fn nameless_channels_are_never_asked() {
    let builder = spsc::Builder::<u64>::new(1);
    let (tx, mut rx) = builder.channel_pair().unwrap();
    assert!(tx.check_name().is_ok() && rx.check_name().is_ok());
    let memfd = builder.memfd().unwrap();
    assert!(memfd.consumer().unwrap().check_name().is_ok());
    let waited = rx.pop_timeout(Duration::from_millis(1100));
    assert!(matches!(waited, Err(Error::TimedOut)), "{waited:?}");
}

/// An existing channel keeps its size and reports the difference; a policy is not a size.
#[test]
fn other_sizes_are_told() {
    let domain = Domain::new("sizes");
    let name = domain.name("records");
    let builder = bytes::Builder::new(1024).max_record(100);
    let made = builder.create(&name).unwrap();
    assert_eq!(made.differences(), []);
    let asked = bytes::Builder::new(4096).max_record(200);
    let told = |differences: Vec<slipring::Difference>| {
        let words = differences.iter().map(ToString::to_string);
        words.collect::<Vec<_>>()
    };
    let words = [
        "capacity 1024 instead of 4096",
        "largest record 104 instead of 200",
    ];
    let (tx, rx) = (
        asked.producer(&name).unwrap(),
        asked.consumer(&name).unwrap(),
    );
    for differences in [
        asked.open(&name).unwrap().differences(),
        tx.differences(),
        rx.differences(),
    ] {
        assert_eq!(told(differences), words);
    }
    let name = domain.name("feed");
    let feed = |capacity| broadcast::Builder::<u64>::new(capacity).consumers(capacity);
    assert_eq!(feed(2).producer(&name).unwrap().differences(), []);
    assert_eq!(
        told(feed(4).consumer(&name).unwrap().differences()),
        ["capacity 2 instead of 4", "consumer seats 2 instead of 4"]
    );
    let other = feed(2).overwriting().producer(&name);
    assert!(matches!(other.err(), Some(SetupError::WhenFull { .. })));
}

/// Checks that a later process does not find the channel.
#[track_caller]
fn gone<K: Kind>(builder: &slipring::Builder<K>, name: &str) {
    let error = builder.open(name).expect_err("a channel");
    let SetupError::NotFound { name: found, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(&**found, name);
}

/// The last user that leaves removes the channel, if nothing is unread.
#[test]
fn ephemeral_channels_are_removed() {
    let domain = Domain::new("ephemeral");
    let name = domain.name("x");
    let builder = spsc::Builder::<u64>::new(4).ephemeral();
    let ended = |rx: &mut spsc::Consumer<u64>| matches!(rx.pop(), Err(Error::Disconnected(_)));
    // No producer has ever come.
    drop(builder.consumer(&name).unwrap());
    gone(&builder, &name);
    let (mut tx, rx) = (
        builder.producer(&name).unwrap(),
        builder.consumer(&name).unwrap(),
    );
    tx.push(1).unwrap();
    drop(tx);
    // A message, then an end, is unread: the next consumer finds both.
    assert_eq!(rx.position(), 0);
    drop(rx);
    let mut rx = builder.consumer(&name).unwrap();
    assert_eq!(rx.pop().unwrap(), 1);
    drop(rx);
    let mut rx = builder.consumer(&name).unwrap();
    assert!(ended(&mut rx));
    // A producer came meanwhile, and left before anybody could see it.
    let mut tx = builder.producer(&name).unwrap();
    tx.push(2).unwrap();
    drop(tx);
    drop(rx);
    let mut rx = builder.consumer(&name).unwrap();
    assert_eq!(rx.pop().unwrap(), 2);
    assert!(ended(&mut rx));
    // A consumer that aborts leaves the channel to the next one.
    rx.abort();
    let rx = builder.consumer(&name).unwrap();
    // Another handle holds it.
    let tx = spsc::Builder::<u64>::new(4).producer(&name).unwrap();
    drop(rx);
    builder.open(&name).unwrap();
    drop(tx);
    let mut rx = builder.consumer(&name).unwrap();
    assert!(ended(&mut rx));
    drop(rx);
    gone(&builder, &name);
}

/// The last end of `broadcast` that leaves removes the channel.
#[test]
fn ephemeral_feeds_go_last() {
    let domain = Domain::new("feeds");
    let name = domain.name("x");
    let builder = broadcast::Builder::<u64>::new(4).consumers(2).ephemeral();
    let (mut tx, rx) = (
        builder.producer(&name).unwrap(),
        builder.consumer(&name).unwrap(),
    );
    tx.push(1).unwrap();
    drop(tx);
    builder.open(&name).unwrap();
    drop(rx);
    gone(&builder, &name);
}

/// The last channel of a domain takes the domain's directory with it, however it is removed.
#[test]
fn empty_domains_are_removed() {
    let domain = Domain::new("emptied");
    let (one, other) = (domain.name("one"), domain.name("other"));
    let builder = spsc::Builder::<u64>::new(1).ephemeral();
    builder.create(&one).unwrap();
    let rx = builder.consumer(&other).unwrap();
    slipring::inspect::remove(&one).unwrap();
    assert!(domain.path().exists(), "it has a channel yet");
    drop(rx);
    assert!(!domain.path().exists());
    builder.create(&one).unwrap();
    slipring::inspect::remove(&one).unwrap();
    assert!(!domain.path().exists());
}

/// A creator whose domain is removed under its hands makes the domain again.
#[test]
fn domains_are_removed_under_creators() {
    let domain = Domain::new("contested");
    let work = |topic: &str| {
        let name = domain.name(topic);
        for _ in 0..500 {
            spsc::Builder::<u64>::new(1).create(&name).unwrap();
            slipring::inspect::remove(&name).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| work("one"));
        work("other");
    });
    assert!(!domain.path().exists());
}

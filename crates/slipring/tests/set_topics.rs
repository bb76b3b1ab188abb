//! A set over topics, and over topics that appear: a write wakes only a set that watches it, and one wait covers all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use slipring::inspect::{Discovered, Discovery};
use slipring::spec::Kind;
use slipring::topic::{self, News, Publisher, Seek, Subscriber, Subscriptions, records};
use slipring::{Error, Name, Pattern, SetupError, Wait, WaitSet, bytes};

/// A timeout so long that a lost wake is a test that does not end.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// The domain of one test, removed with it. Its name is that of no other process.
struct Domain(String);

impl Domain {
    fn new(test: &str) -> Domain {
        Domain(format!("set-{test}-{}", std::process::id()))
    }

    fn name(&self, topic: &str) -> String {
        format!("{}/{topic}", self.0)
    }

    fn all(&self) -> Pattern {
        Pattern::new(&self.name("*")).unwrap()
    }

    fn path(&self, topic: &str) -> PathBuf {
        let dir = slipring::directory().0.join(format!("@{}", self.0));
        dir.join(topic)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(slipring::directory().0.join(format!("@{}", self.0)));
    }
}

/// Returns the ends of a topic whose subscriber is woken by nothing but messages.
fn ends() -> (Publisher<u64>, Subscriber<u64>) {
    let wait = Wait::Sleep {
        spin_for: Duration::ZERO,
    };
    let topic = topic::Builder::new(1024).wait(wait).check_every(FOR_EVER);
    topic.channel_pair().unwrap()
}

/// Returns how often the publishers of this subscriber's topic woke somebody.
fn wakes(rx: &Subscriber<u64>) -> u64 {
    let stat = rx.channel().stat().unwrap();
    stat.seats.iter().map(|seat| seat.wakes).sum()
}

/// Waits until a thread that has stored its id sleeps in the call that a set makes. Where the kernel does not tell (no
/// `syscall` file), it only waits until the thread began.
fn until_asleep(thread: &AtomicU64) {
    let sleeps = [
        libc::SYS_futex_waitv,
        libc::SYS_epoll_pwait,
        // The C library makes this call, under the sanitizers.
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait2,
    ];
    loop {
        let id = thread.load(Ordering::Acquire);
        let called = fs::read_to_string(format!("/proc/self/task/{id}/syscall"));
        let asleep = called.map_or(true, |called| {
            let is = |number: &i64| called.starts_with(&format!("{number} "));
            sleeps.iter().any(is)
        });
        if id != 0 && asleep {
            return;
        }
        thread::yield_now();
    }
}

fn this_thread() -> u64 {
    // SAFETY: a call without arguments.
    (unsafe { libc::gettid() }) as u64
}

/// Five topics in one set, of which three are passive. A message in a passive one wakes nobody: its publisher makes no system call
/// for it, and the set sleeps on. A message in a watched one wakes the set once, by its own publisher alone.
#[test]
fn only_watched_topics_wake_a_set() {
    // The more idle topics there are, the set sleeps on pipes.
    for idle in [0, 128] {
        let idle: Vec<_> = (0..idle).map(|_| ends()).collect();
        let (mut publishers, subscribers): (Vec<_>, Vec<_>) = (0..5).map(|_| ends()).unzip();
        let mut set = WaitSet::new().unwrap();
        for (_, rx) in &idle {
            set.watch(rx).unwrap();
        }
        let keys: Vec<_> = subscribers
            .iter()
            .enumerate()
            .map(|(number, rx)| match number {
                0 | 1 => set.watch(rx).unwrap(),
                _ => set.watch_passive(rx).unwrap(),
            })
            .collect();
        let (owner, returns) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|threads| {
            let (owner, returns) = (&owner, &returns);
            let woken = threads.spawn(move || {
                owner.store(this_thread(), Ordering::Release);
                let events = set.wait().unwrap();
                returns.fetch_add(1, Ordering::Release);
                events
            });
            until_asleep(owner);
            for tx in &mut publishers[2..] {
                for message in 0..100 {
                    tx.push(message).unwrap();
                }
            }
            until_asleep(owner);
            assert_eq!(
                returns.load(Ordering::Acquire),
                0,
                "a passive topic woke it"
            );
            assert!(subscribers.iter().all(|rx| wakes(rx) == 0));
            publishers[1].push(7).unwrap();
            let events = woken.join().unwrap();
            let mut found: Vec<_> = events.iter().map(|event| event.key).collect();
            found.sort();
            assert_eq!(
                found,
                keys[1..],
                "and those that are passive are told with it"
            );
            assert!(
                events
                    .iter()
                    .all(|event| event.ready && event.ended.is_none())
            );
        });
        let woken: Vec<_> = subscribers.iter().map(wakes).collect();
        assert_eq!(woken, [0, 1, 0, 0, 0]);
        assert!(idle.iter().all(|(_, rx)| wakes(rx) == 0));
    }
}

/// One wait covers messages of topics, and topics that appear and go, whichever comes.
#[test]
fn a_set_waits_for_topics_that_appear() {
    let domain = Domain::new("appear");
    let mut discovery = Discovery::new([domain.all()]).unwrap();
    let (mut tx, mut rx) = ends();
    let mut set = WaitSet::new().unwrap();
    let messages = set.watch(&rx).unwrap();
    let topics = set.watch(&discovery).unwrap();
    assert!(matches!(set.watch(&discovery), Err(Error::InSet)));
    assert_eq!(set.len(), 2);
    let quiet = |set: &mut WaitSet| {
        let found = set.wait_timeout(Duration::ZERO);
        assert!(matches!(found, Err(Error::TimedOut)), "{found:?}");
    };
    // A new discovery has not been asked yet.
    assert_eq!(set.wait().unwrap()[0].key, topics);
    assert_eq!(discovery.try_next().unwrap(), None);
    quiet(&mut set);
    let owner = AtomicU64::new(0);
    let name = domain.name("x");
    thread::scope(|threads| {
        let woken = threads.spawn(|| {
            owner.store(this_thread(), Ordering::Release);
            set.wait().unwrap()
        });
        until_asleep(&owner);
        bytes::Builder::new(64).create(&name).unwrap();
        let events = woken.join().unwrap();
        assert_eq!((events.len(), events[0].key), (1, topics));
    });
    // Ready is a level: until it was asked for all. A message is told beside it.
    tx.push(1).unwrap();
    let keys: Vec<_> = set.wait().unwrap().iter().map(|event| event.key).collect();
    assert!(keys.contains(&topics) && keys.contains(&messages) && keys.len() == 2);
    topic::Builder::<u64>::new(4)
        .create(&domain.name("y"))
        .unwrap();
    let appeared = |found| match found {
        Some(Discovered::Appeared { name, kind }) => (name.topic().to_string(), kind),
        other => panic!("{other:?}"),
    };
    let first = appeared(discovery.try_next().unwrap());
    assert_eq!(first, ("x".to_string(), Some(Kind::Bytes)));
    assert!(set.wait().unwrap().iter().any(|event| event.key == topics));
    let second = appeared(discovery.try_next().unwrap());
    assert_eq!(second, ("y".to_string(), Some(Kind::Topic)));
    assert_eq!(discovery.try_next().unwrap(), None);
    let found = set.wait().unwrap();
    assert_eq!((found.len(), found[0].key), (1, messages));
    assert_eq!(rx.pop().unwrap(), 1);
    quiet(&mut set);
    // A deadline is told once; a passive one ends no wait.
    assert!(set.set_deadline(topics, Some(Instant::now())));
    let found = set.wait().unwrap();
    assert!(found.len() == 1 && found[0].overdue && !found[0].ready && found[0].key == topics);
    quiet(&mut set);
    assert!(set.unwatch(topics));
    let passive = set.watch_passive(&discovery).unwrap();
    slipring::inspect::remove(&name).unwrap();
    tx.push(2).unwrap();
    let keys: Vec<_> = set.wait().unwrap().iter().map(|event| event.key).collect();
    assert_eq!(keys, [messages, passive]);
    // It leaves with its owner, and the set goes on.
    drop(discovery);
    assert_eq!((set.len(), set.unwatch(passive)), (1, false));
    let found = set.wait().unwrap();
    assert_eq!((found.len(), found[0].key), (1, messages));
}

/// Subscriptions to a pattern take up topics that come later, from their oldest message on, and leave those that go.
#[test]
fn subscriptions_take_up_new_topics() {
    let domain = Domain::new("subs");
    let builder = records::Builder::new(8, 64);
    let mut early = builder.producer(&domain.name("early")).unwrap();
    early.push(b"before").unwrap();
    bytes::Builder::new(64)
        .create(&domain.name("stream"))
        .unwrap();
    let typed = topic::Builder::<u64>::new(4).producer(&domain.name("typed"));
    let mut all = Subscriptions::new(builder.clone(), [domain.all()]).unwrap();
    let mut joined = Vec::new();
    for news in all.wait().unwrap() {
        match news {
            News::Joined(name) => joined.push(name.topic().to_string()),
            News::Refused(name, SetupError::Schema(_)) => assert_eq!(name.topic(), "typed"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(joined, ["early"], "channels of other kinds are left out");
    assert!(all.wait_timeout(Duration::ZERO).unwrap().is_empty());
    // Behind the newest message of one that was there; from the oldest of one that comes.
    early.push(b"after").unwrap();
    let mut late = builder.producer(&domain.name("late")).unwrap();
    late.push(b"first").unwrap();
    drop(late);
    let mut read = BTreeMap::new();
    while read.len() < 2 {
        for news in all.wait().unwrap() {
            if let News::Ready(name) = news {
                let rx = all.get_mut(&name).unwrap();
                while let Ok(record) = rx.try_read() {
                    read.insert(name.topic().to_string(), record.to_vec());
                }
            }
        }
    }
    let expected = [("early", &b"after"[..]), ("late", b"first")];
    assert!(
        read.iter()
            .map(|(name, read)| (&name[..], &read[..]))
            .eq(expected)
    );
    // Its last publisher has left, which a read has returned: that is not reported for ever.
    let news = all.wait_timeout(Duration::ZERO).unwrap();
    assert!(news.is_empty(), "{news:?}");
    let names: Vec<_> = all
        .iter_mut()
        .map(|(name, _)| name.topic().to_string())
        .collect();
    assert_eq!(names, ["early", "late"]);
    // Removed and made anew: what is left can be read, and the successor is read from its start.
    builder
        .producer(&domain.name("late"))
        .unwrap()
        .push(b"left")
        .unwrap();
    fs::remove_dir_all(domain.path("late")).unwrap();
    builder
        .producer(&domain.name("late"))
        .unwrap()
        .push(b"anew")
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        for news in all.wait().unwrap() {
            match news {
                News::Left(name, mut rx) => {
                    seen.push(format!("{} left", name.topic()));
                    while let Ok(record) = rx.try_read() {
                        seen.push(String::from_utf8(record.to_vec()).unwrap());
                    }
                }
                News::Joined(name) => seen.push(format!("{} joined", name.topic())),
                News::Ready(name) => {
                    while let Some(Ok(record)) = all
                        .get_mut(&name)
                        .map(|rx| rx.try_read().map(|record| record.to_vec()))
                    {
                        seen.push(String::from_utf8(record).unwrap());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // The first message may have been read before the name was found to be gone.
    seen.sort();
    assert_eq!(seen, ["anew", "late joined", "late left", "left"]);
    drop(typed);
}

/// A topic without a free seat is refused, and can be asked for again; one that was named is refused for its kind.
#[test]
fn refused_topics_can_be_joined_later() {
    let domain = Domain::new("refused");
    let builder = records::Builder::new(8, 64).consumers(1);
    let name = Name::new(&domain.name("full")).unwrap();
    let mut tx = builder.producer(&name.to_string()).unwrap();
    let holder = builder.consumer(&name.to_string()).unwrap();
    bytes::Builder::new(64)
        .create(&domain.name("stream"))
        .unwrap();
    let stream = Pattern::new(&domain.name("stream")).unwrap();
    let from_start = builder.clone().join(Seek::Oldest);
    let mut all = Subscriptions::new(from_start, [domain.all(), stream]).unwrap();
    let news = all.wait().unwrap();
    let refused = |news: &News<_>| match news {
        News::Refused(name, error) => format!("{}: {error}", name.topic()),
        other => panic!("{other:?}"),
    };
    let refusals: Vec<_> = news.iter().map(refused).collect();
    assert!(
        refusals[0].starts_with("full: the consumer of this channel is taken"),
        "{refusals:?}"
    );
    assert!(
        refusals[1].starts_with("stream: the channel is of kind `bytes`"),
        "{refusals:?}"
    );
    assert_eq!(refusals.len(), 2);
    assert!(matches!(all.join(&name), Err(SetupError::RoleTaken { .. })));
    drop(holder);
    all.join(&name).unwrap();
    tx.push(b"now").unwrap();
    assert!(matches!(&all.wait().unwrap()[..], [News::Ready(ready)] if *ready == name));
    assert_eq!(&all.get_mut(&name).unwrap().try_read().unwrap()[..], b"now");
}

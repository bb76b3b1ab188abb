//! Watches topics and records from outside: messages are whole, in order, and counted; the channel stays as it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use slipring::broadcast::records;
use slipring::bytes::record_size;
use slipring::inspect::Watch;
use slipring::topic::{self, Seek};
use slipring::{End, Error, SetupError, mpmc};

/// The domain of one test, removed with it. Its name is that of no other process.
struct Domain(String);

impl Domain {
    fn new(test: &str) -> Domain {
        Domain(format!("watch-{test}-{}", std::process::id()))
    }

    fn name(&self, topic: &str) -> String {
        format!("{}/{topic}", self.0)
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

/// Returns message `number`, up to `most` bytes long: any part of another message in it shows.
fn message(number: u64, most: usize) -> Vec<u8> {
    let len = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize % (most - 7);
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|at| (number as usize * 31 + at) as u8));
    bytes
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

#[test]
fn watches_see_what_was_published() {
    let domain = Domain::new("topic");
    let name = domain.name("x");
    let topic = topic::records::Builder::new(4, 100).producers(2);
    let mut one = topic.producer(&name).unwrap();
    let mut other = topic.clone().time_stamps().producer(&name).unwrap();
    one.push(b"first").unwrap();
    let mut watch = Watch::new(&name, Seek::Oldest).unwrap();
    let mut late = Watch::new(&name, Seek::Newest).unwrap();
    other.push(b"").unwrap();
    let seen = watch.try_next().unwrap();
    let origin = seen.origin.unwrap();
    assert_eq!((seen.number, seen.payload), (0, &b"first"[..]));
    assert_eq!((origin.sequence, origin.publisher, origin.time), (0, 0, 0));
    for watch in [&mut watch, &mut late] {
        let seen = watch.try_next().unwrap();
        let origin = seen.origin.unwrap();
        assert_eq!((seen.number, seen.payload), (1, &b""[..]));
        assert_eq!((origin.sequence, origin.publisher), (1, 1));
        assert!(origin.time > 0);
        assert_eq!(watch.try_next(), Err(Error::Empty));
    }
    // No seat is taken, and nothing is pinned.
    let stat = watch.stat().unwrap();
    assert!(stat.seats.iter().skip(2).all(|seat| seat.generation == 0));
    assert_eq!(stat.topic.unwrap().pins, []);
    // Eight messages, of which four are gone; the watch leaves room before it is overtaken again.
    for number in 0..8 {
        one.push(&[number]).unwrap();
    }
    assert_eq!(late.try_next(), Err(Error::Lagged(4)));
    let rest: Vec<_> = (0..4)
        .map(|_| late.try_next().unwrap().payload[0])
        .collect();
    assert_eq!(rest, [4, 5, 6, 7]);
    assert!(matches!(
        Watch::new(&name, Seek::To(11)),
        Err(SetupError::Message(Error::Ahead {
            asked: 11,
            newest: 10
        }))
    ));
    // Messages before the end come first; the end stands until it is skipped, or somebody comes.
    let mut from = Watch::new(&name, Seek::To(8)).unwrap();
    drop(one);
    assert_eq!(from.try_next().unwrap().number, 8);
    other.abort();
    from.skip_end().unwrap();
    assert_eq!(from.try_next().unwrap().number, 9, "it was not shown yet");
    for _ in 0..2 {
        assert_eq!(from.try_next(), Err(Error::Disconnected(End::Aborted)));
    }
    from.skip_end().unwrap();
    assert_eq!(
        from.next_timeout(Duration::ZERO).map(|seen| seen.number),
        Err(Error::TimedOut)
    );
    let mut next = topic.producer(&name).unwrap();
    assert_eq!(late.try_next(), Err(Error::Empty));
    next.push(b"again").unwrap();
    drop(next);
    assert_eq!(from.try_next().unwrap().payload, b"again");
    assert_eq!(from.try_next(), Err(Error::Disconnected(End::Finished)));
}

#[test]
fn typed_topics_are_watched_as_bytes() {
    let domain = Domain::new("typed");
    let name = domain.name("x");
    let topic = topic::Builder::<[u32; 3]>::new(8);
    let mut tx = topic.producer(&name).unwrap();
    let mut watch = Watch::new(&name, Seek::Oldest).unwrap();
    tx.push([1, 2, 3]).unwrap();
    assert_eq!(
        watch.try_next().unwrap().payload,
        b"\x01\0\0\0\x02\0\0\0\x03\0\0\0"
    );
}

/// Publishers write slots again as fast as they can, and give memory back; whatever the watch shows is whole.
#[test]
fn racing_publishers_leave_messages_whole() {
    const MOST: usize = 20_000;
    const COUNT: u64 = 30_000;
    let domain = Domain::new("racing");
    let name = domain.name("x");
    let topic = topic::records::Builder::new(8, MOST)
        .producers(2)
        .consumers(1)
        .held(0);
    let mut publishers = [0, 1].map(|_| topic.producer(&name).unwrap());
    let mut watch = Watch::new(&name, Seek::Oldest).unwrap();
    let done = AtomicBool::new(false);
    let (mut seen, mut lost) = (0, 0);
    thread::scope(|threads| {
        let running: Vec<_> = publishers
            .iter_mut()
            .map(|tx| {
                threads.spawn(move || {
                    for number in 0..COUNT / 2 {
                        tx.push(&message(number, MOST)).unwrap();
                        if number % 64 == 0 {
                            tx.trim(0);
                        }
                    }
                })
            })
            .collect();
        let done = &done;
        threads.spawn(move || {
            for thread in running {
                thread.join().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        loop {
            let last = done.load(Ordering::Acquire);
            let at = watch.position();
            match watch.try_next() {
                Ok(shown) => {
                    assert_eq!((shown.number, shown.origin.unwrap().sequence), (at, at));
                    let number = number_of(shown.payload);
                    assert!(
                        shown.payload == message(number, MOST),
                        "message {number} torn"
                    );
                    seen += 1;
                }
                Err(Error::Lagged(count)) => lost += count,
                Err(Error::Empty) if last => break,
                Err(Error::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(seen + lost, COUNT);
    assert!(seen > 50 && lost > 0, "{seen} seen, {lost} lost");
}

/// A watch backs no memory where it looks, and changes no word.
#[test]
fn watches_write_nothing() {
    let domain = Domain::new("still");
    let name = domain.name("x");
    let topic = topic::records::Builder::new(8, 1 << 20);
    let mut tx = topic.producer(&name).unwrap();
    tx.push(&[7; 100]).unwrap();
    let path = domain.path("x");
    let backed = || fs::metadata(path.join("data")).unwrap().blocks();
    let control = || fs::read(path.join("control")).unwrap();
    let before = (backed(), control());
    // An entry that names a slot without memory: a stranger's, or one whose memory went while a watch looked.
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path.join("control"))
        .unwrap();
    let stat = slipring::inspect::stat(&name).unwrap();
    let entries = stat.geometry.claims_offset() as u64;
    let entry = |index: u64| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, entries + 8 * index).unwrap();
        u64::from_le_bytes(word)
    };
    assert_eq!(entry(0) >> 16, 1, "the first message's entry is there");
    let unused = (1 << 16) | 40;
    file.write_all_at(&u64::to_le_bytes(unused), entries + 8)
        .unwrap();
    let mut watch = Watch::new(&name, Seek::Oldest).unwrap();
    assert_eq!(watch.try_next().unwrap().payload, [7; 100]);
    let told = watch.try_next();
    assert!(
        matches!(told, Err(Error::Corrupt(why)) if why.word == "sequence"),
        "{told:?}"
    );
    // It goes on behind that message. An entry beyond all slots is an error, too.
    file.write_all_at(&u64::to_le_bytes((1 << 16) | 0xffff), entries + 16)
        .unwrap();
    let told = watch.try_next();
    assert!(
        matches!(told, Err(Error::Corrupt(why)) if why.word == "entry"),
        "{told:?}"
    );
    assert_eq!(watch.position(), 3);
    file.write_all_at(&[0; 16], entries + 8).unwrap();
    assert!(before == (backed(), control()));
}

/// Records are watched from where they begin; what was given up is counted in bytes of position.
#[test]
fn records_are_watched() {
    let domain = Domain::new("records");
    let name = domain.name("x");
    let builder = records::Builder::new(1024).max_record(200);
    let mut tx = builder.producer(&name).unwrap();
    let positions: Vec<_> = (0..5)
        .map(|number| {
            let at = tx.position();
            tx.push(&message(number, 200)).unwrap();
            at
        })
        .collect();
    let mut watch = Watch::new(&name, Seek::Oldest).unwrap();
    for (number, at) in positions.iter().enumerate() {
        let seen = watch.try_next().unwrap();
        assert_eq!((seen.number, seen.origin), (*at, None));
        assert!(seen.payload == message(number as u64, 200));
    }
    assert_eq!(watch.try_next(), Err(Error::Empty));
    // At a position it begins with the first record that begins there or behind it.
    for (asked, found) in [
        (positions[2], 2),
        (positions[2] + 1, 3),
        (positions[3] + 8, 4),
    ] {
        let mut from = Watch::new(&name, Seek::To(asked)).unwrap();
        assert_eq!(
            number_of(from.try_next().unwrap().payload),
            found,
            "{asked}"
        );
    }
    // A ring and more: what was given up is counted, and what is left begins where a record does.
    for number in 5..20 {
        tx.push(&message(number, 200)).unwrap();
    }
    let at = watch.position();
    let Err(Error::Lagged(lost)) = watch.try_next() else {
        panic!("it was overwritten");
    };
    let given_up: u64 = (5..20)
        .map(|number| record_size(message(number, 200).len() as u64))
        .scan(0, |sum, size| {
            *sum += size;
            Some(*sum)
        })
        .find(|sum| *sum == lost)
        .expect("whole records");
    assert_eq!(watch.position(), at + given_up);
    let first = number_of(watch.try_next().unwrap().payload);
    for number in first + 1..20 {
        assert!(watch.try_next().unwrap().payload == message(number, 200));
    }
    drop(tx);
    assert_eq!(watch.try_next(), Err(Error::Disconnected(End::Finished)));
}

/// A producer goes round its ring as fast as it can, with a consumer and without.
#[test]
fn racing_records_are_whole() {
    const MOST: usize = 300;
    const COUNT: u64 = 300_000;
    for reads in [false, true] {
        let domain = Domain::new(if reads { "read" } else { "unread" });
        let name = domain.name("x");
        let builder = records::Builder::new(4096).max_record(MOST);
        let mut tx = builder.producer(&name).unwrap();
        let rx = reads.then(|| builder.consumer(&name).unwrap());
        let mut watch = Watch::new(&name, Seek::Oldest).unwrap();
        let (mut seen, mut bytes, mut lost) = (0, 0, 0);
        thread::scope(|threads| {
            if let Some(mut rx) = rx {
                threads.spawn(move || while rx.read().is_ok() {});
            }
            threads.spawn(move || {
                for number in 0..COUNT {
                    tx.push(&message(number, MOST)).unwrap();
                }
            });
            loop {
                let at = watch.position();
                match watch.try_next() {
                    Ok(shown) => {
                        assert_eq!(shown.number, at);
                        let number = number_of(shown.payload);
                        assert!(
                            shown.payload == message(number, MOST),
                            "record {number} torn"
                        );
                        bytes += record_size(shown.payload.len() as u64);
                        seen += 1;
                    }
                    Err(Error::Lagged(count)) => lost += count,
                    Err(Error::Empty) => {}
                    Err(Error::Disconnected(End::Finished)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let all: u64 = (0..COUNT)
            .map(|number| record_size(message(number, MOST).len() as u64))
            .sum();
        assert_eq!(bytes + lost, all);
        assert!(seen > 100 && lost > 0, "{seen} seen, {lost} bytes lost");
    }
}

#[test]
fn other_kinds_are_refused() {
    let domain = Domain::new("others");
    let name = domain.name("x");
    let _queue = mpmc::Builder::<u64>::new(8).producer(&name).unwrap();
    let refused = Watch::new(&name, Seek::Newest).unwrap_err().to_string();
    assert!(refused.contains("is of kind `mpmc`"), "{refused}");
    assert!(refused.contains("`broadcast` or `topic`"), "{refused}");
}

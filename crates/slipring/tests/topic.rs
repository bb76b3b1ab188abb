//! Tests what a topic promises, between threads of one process.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use slipring::topic::{self, Seek, records};
use slipring::{End, Error, SetupError, WaitSet};

#[test]
fn the_last_messages_stay_readable() {
    let (mut tx, mut rx) = topic::channel::<u64>(4).unwrap();
    assert_eq!(rx.latest().err(), Some(Error::Empty));
    assert_eq!(
        rx.nth_latest(4).err(),
        Some(Error::TooLarge { asked: 5, max: 4 })
    );
    for number in 0..100u64 {
        tx.push(number).unwrap();
        for back in 0..4.min(number + 1) {
            let sample = rx.nth_latest(back as usize).unwrap();
            assert_eq!(*sample, number - back);
            assert_eq!(sample.origin().sequence, number - back);
        }
        if number < 3 {
            assert_eq!(rx.nth_latest(number as usize + 1).err(), Some(Error::Empty));
        }
    }
    // In order: 96 were overwritten.
    assert_eq!(rx.pop(), Err(Error::Lagged(96)));
    let rest: Vec<u64> = (0..4).map(|_| rx.pop().unwrap()).collect();
    assert_eq!(rest, [96, 97, 98, 99]);
    assert_eq!(rx.try_pop(), Err(Error::Empty));
}

#[test]
fn held_messages_stay_as_they_are() {
    let (mut tx, mut rx) = records::channel(2, 1000).unwrap();
    let text = |number: usize| vec![number as u8; number % 1000];
    let mut held = Vec::new();
    for number in 0..5000 {
        tx.push(&text(number)).unwrap();
        if number % 1000 == 7 && held.len() < 4 {
            held.push((number, rx.latest_owned().unwrap()));
        }
    }
    assert_eq!(held.len(), 4);
    assert_eq!(rx.latest_owned().err(), Some(Error::TooManyHeld { max: 4 }));
    assert_eq!(&rx.latest().unwrap()[..], &text(4999)[..]);
    for (number, sample) in held {
        assert_eq!(
            (&sample[..], sample.origin().sequence),
            (&text(number)[..], number as u64)
        );
    }
    assert!(rx.latest_owned().is_ok());
}

#[test]
fn publishers_share_one_order() {
    let (tx, mut rx) = topic::channel::<[u64; 9]>(64).unwrap();
    let each = 50_000u64;
    std::thread::scope(|threads| {
        for publisher in 0..3 {
            let mut tx = tx.another().unwrap();
            threads.spawn(move || {
                for number in 0..each {
                    tx.push([publisher * each + number; 9]).unwrap();
                }
            });
        }
        drop(tx);
        let (mut next, mut lost, mut seen) = ([0; 3], 0, 0);
        let mut expected = 0;
        loop {
            match rx.read() {
                Ok(message) => {
                    let value = *message;
                    assert_eq!(value, [value[0]; 9], "a torn message");
                    assert_eq!(message.origin().sequence, expected + lost);
                    let (publisher, number) = ((value[0] / each) as usize, value[0] % each);
                    assert!(number >= next[publisher]);
                    next[publisher] = number + 1;
                    (seen, expected) = (seen + 1, expected + 1);
                }
                Err(Error::Lagged(count)) => lost += count,
                Err(Error::Disconnected(_)) => break,
                Err(other) => unreachable!("{other}"),
            }
        }
        assert_eq!(seen + lost, 3 * each);
    });
}

/// A copy of several messages stops before one that was overwritten meanwhile, and the next call tells of the loss.
#[test]
fn slices_hide_no_loss() {
    let (mut tx, mut rx) = topic::channel::<u64>(2).unwrap();
    let count = 300_000;
    std::thread::scope(|threads| {
        threads.spawn(move || (0..count).try_for_each(|number| tx.push(number)).unwrap());
        let (mut out, mut lost, mut seen) = ([0; 8], 0, 0);
        loop {
            let at = rx.position();
            match rx.try_pop_slice(&mut out) {
                Ok(copied) => {
                    assert_eq!(rx.position(), at + copied as u64);
                    let expected = at..at + copied as u64;
                    assert!(out[..copied].iter().copied().eq(expected), "{at}: {out:?}");
                    seen += copied as u64;
                }
                Err(Error::Lagged(count)) => lost += count,
                Err(Error::Empty) => std::thread::yield_now(),
                Err(Error::Disconnected(_)) => break,
                Err(other) => unreachable!("{other}"),
            }
        }
        assert_eq!(seen + lost, count);
        // What was told is counted, and nothing else.
        let stat = rx.channel().stat().unwrap();
        let lagged = stat.seats.iter().map(|seat| seat.lagged);
        assert_eq!(lagged.sum::<u64>(), lost);
    });
}

#[test]
fn small_pools_tell_that_they_are_full() {
    let (mut tx, mut rx) = topic::Builder::<u64>::new(2)
        .pool(4)
        .channel_pair()
        .unwrap();
    let mut held = Vec::new();
    let full = loop {
        match tx.try_push(held.len() as u64) {
            Ok(()) => held.push(rx.latest_owned().unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(full, slipring::PushError::Full(held.len() as u64));
    drop(held);
    assert_eq!(tx.try_push(9), Ok(()));
}

#[test]
fn impossible_shapes_are_refused() {
    let refused = |builder: records::Builder| builder.channel_pair().err().unwrap();
    assert!(matches!(
        refused(records::Builder::new(3, 8)),
        SetupError::Capacity { .. }
    ));
    assert!(matches!(
        refused(records::Builder::new(1 << 16, 8)),
        SetupError::Capacity { .. }
    ));
    let four = || records::Builder::new(4, 8);
    let settings = [
        (four().held(13), "held", 13, 0, 12),
        (four().held(usize::MAX), "held", u64::MAX - 1, 0, 12),
        (four().pool(4), "pool", 4, 5, 4095),
        (four().producers(64), "producers", 64, 1, 63),
        (four().producers(0), "producers", 0, 1, 63),
    ];
    for (builder, setting, found, min, max) in settings {
        match refused(builder) {
            SetupError::Setting {
                setting: s,
                found: f,
                min: least,
                max: most,
            } => assert_eq!((s, f, least, most), (setting, found, min, max)),
            other => unreachable!("{other}"),
        }
    }
    assert!(matches!(
        refused(four().consumers(0)),
        SetupError::Consumers { found: 0, max: 63 }
    ));
    for largest in [0, usize::MAX] {
        let error = refused(records::Builder::new(4, largest));
        assert!(matches!(error, SetupError::MaxRecord { .. }), "{error}");
    }
}

#[test]
fn subscribers_begin_where_they_ask() {
    let topic = topic::Builder::<u64>::new(4).heap().unwrap();
    let mut tx = topic.producer().unwrap();
    (0..10).try_for_each(|number| tx.push(number)).unwrap();
    let mut rx = topic.consumer().unwrap();
    assert_eq!(rx.try_pop(), Err(Error::Empty));
    assert_eq!(rx.seek(Seek::Oldest), Ok(6));
    assert_eq!(rx.pop(), Ok(6));
    assert_eq!(rx.seek(Seek::To(8)), Ok(8));
    assert_eq!(rx.pop(), Ok(8));
    assert_eq!(
        rx.seek(Seek::To(11)),
        Err(Error::Ahead {
            asked: 11,
            newest: 10
        })
    );
    rx.seek(Seek::To(1)).unwrap();
    assert_eq!(rx.pop(), Err(Error::Lagged(5)));
    assert_eq!(rx.pop(), Ok(6));
}

/// The messages that stay readable do not keep a set from telling that the last publisher has left.
#[test]
fn sets_tell_the_end() {
    let (mut tx, mut rx) = topic::channel::<u64>(4).unwrap();
    let mut set = WaitSet::new().unwrap();
    let key = set.watch(&rx).unwrap();
    tx.push(7).unwrap();
    assert!(set.wait().unwrap()[0].ready);
    assert_eq!(rx.try_pop(), Ok(7));
    let reader = std::thread::spawn(move || {
        let events = set.wait().unwrap();
        (events[0].key, events[0].ended, events[0].ready)
    });
    drop(tx);
    assert_eq!(reader.join().unwrap(), (key, Some(End::Finished), true));
    assert_eq!(rx.try_pop(), Err(Error::Disconnected(End::Finished)));
    assert_eq!(*rx.latest().unwrap(), 7);
}

/// Every subscriber of an ended topic reads what is there and is told the end, also after another one has taken note of it,
/// unless a publisher has come since.
#[test]
fn late_subscribers_are_told_the_end() {
    let finished = Err(Error::Disconnected(End::Finished));
    let topic = topic::Builder::<u64>::new(4)
        .join(Seek::Oldest)
        .heap()
        .unwrap();
    let mut fresh = topic.consumer().unwrap();
    assert_eq!(fresh.try_pop(), Err(Error::Empty), "no publisher ever came");
    let mut tx = topic.producer().unwrap();
    (0..6).try_for_each(|number| tx.push(number)).unwrap();
    drop(tx);
    for _ in 0..3 {
        let mut late = topic.consumer().unwrap();
        let read: Vec<u64> = (0..4).map(|_| late.pop().unwrap()).collect();
        assert_eq!(read, [2, 3, 4, 5]);
        assert_eq!((late.pop(), late.try_pop()), (finished, finished));
    }
    let mut late = topic.consumer().unwrap();
    late.seek(Seek::Newest).unwrap();
    let mut set = WaitSet::new().unwrap();
    set.watch(&late).unwrap();
    assert_eq!(set.wait().unwrap()[0].ended, Some(End::Finished));
    assert_eq!(late.pop(), finished);
    // The next publisher is waited for, by those who were told and by those who come.
    let mut tx = topic.producer().unwrap();
    let mut later = topic.consumer().unwrap();
    later.seek(Seek::Newest).unwrap();
    assert_eq!(
        (late.try_pop(), later.try_pop()),
        (Err(Error::Empty), Err(Error::Empty))
    );
    tx.push(6).unwrap();
    tx.abort();
    let aborted = Err(Error::Disconnected(End::Aborted));
    for rx in [&mut late, &mut later] {
        assert_eq!((rx.pop(), rx.pop()), (Ok(6), aborted));
    }
}

/// A publisher that waits for a slot is woken by another one whose message displaces its own, and by nothing else here.
#[test]
fn displaced_publishers_are_woken() {
    for in_a_set in [false, true] {
        let hour = Duration::from_secs(3600);
        let builder = topic::Builder::<u64>::new(1).pool(2).check_every(hour);
        let topic = builder.heap().unwrap();
        let (mut tx, mut other) = (topic.producer().unwrap(), topic.producer().unwrap());
        let mut rx = topic.consumer().unwrap();
        tx.push(0).unwrap();
        let _held = rx.latest_owned().unwrap();
        tx.push(1).unwrap();
        assert_eq!(tx.try_push(3), Err(slipring::PushError::Full(3)));
        let waits = std::thread::spawn(move || match in_a_set {
            true => {
                let mut set = WaitSet::new().unwrap();
                set.watch_room(&tx, 1).unwrap();
                set.wait_timeout(Duration::from_secs(60)).unwrap();
                tx.try_push(3)
            }
            false => tx.push_timeout(3, Duration::from_secs(60)),
        });
        while !in_a_set && topic.stat().unwrap().seats[0].parks == 0 {
            std::thread::yield_now();
        }
        other.push(2).unwrap();
        assert_eq!(waits.join().unwrap(), Ok(()));
    }
}

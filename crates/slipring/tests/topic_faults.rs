//! The faults that a topic could have: impossible words, pools that run out, and the last numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod memory;

use std::sync::atomic::Ordering;
use std::time::Duration;

use slipring::topic::{self, Builder, Seek};
use slipring::{Error, PushError, WaitSet};
use slipring_core::layout::{HEAD, LINE, MOST_PINS};

use memory::Memory;

/// A wait that ends by its timeout.
const SHORT: Duration = Duration::from_millis(20);

fn small() -> Builder<u64> {
    Builder::new(4).producers(2).consumers(1)
}

#[test]
fn impossible_entries_end_a_push() {
    let builder = small();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let entries = channel.geometry().claims_offset();
    let mut tx = channel.producer().unwrap();
    tx.push(1).unwrap();
    memory
        .control(entries + 8)
        .store(u64::MAX, Ordering::Relaxed);
    for _ in 0..3 {
        let refused = tx.try_push(2);
        assert!(
            matches!(refused, Err(PushError::Failed(2, Error::Corrupt(_)))),
            "{refused:?}"
        );
        assert!(matches!(
            tx.push_timeout(2, SHORT),
            Err(PushError::Failed(..))
        ));
        assert!(matches!(tx.try_push_iter([2, 3]), Err(Error::Corrupt(_))));
    }
    memory.control(entries + 8).store(0, Ordering::Relaxed);
    tx.push(2).unwrap();
    memory.assert_fences_stand();
}

#[test]
fn counts_of_messages_decide_nothing() {
    let builder = small();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let messages = channel.geometry().role_offset(0) + LINE;
    for count in [u64::MAX, u64::MAX - 3, 1 << 63] {
        memory.control(messages).store(count, Ordering::Relaxed);
        let mut tx = channel.producer().unwrap();
        for number in 0..500 {
            tx.push(number).unwrap();
        }
        drop(tx);
        let counted = memory.control(messages).load(Ordering::Relaxed);
        assert_eq!(counted, count.wrapping_add(500));
    }
}

#[test]
fn the_last_number_ends_the_topic() {
    for producers in [1, 2] {
        let builder = small().producers(producers).join(Seek::Oldest);
        let memory = Memory::of(&builder);
        let channel = memory.format(&builder).unwrap();
        let last = ((1 << 48) - 2) * 4;
        memory.control(HEAD).store(last - 100, Ordering::Relaxed);
        let mut tx = channel.producer().unwrap();
        let mut rx = channel.consumer().unwrap();
        let mut published = 0;
        let refused = loop {
            match tx.try_push(published) {
                Ok(()) => published += 1,
                Err(error) => break error,
            }
            assert_eq!(*rx.latest().unwrap(), published - 1);
            assert!(published <= 100);
        };
        assert!(
            matches!(refused, PushError::Failed(_, Error::Corrupt(_))),
            "{refused:?}"
        );
        assert_eq!(*rx.latest().unwrap(), published - 1);
    }
}

#[test]
fn claims_that_never_fit_are_too_large() {
    let (mut tx, _rx) = topic::channel::<u64>(1024).unwrap();
    (0..3000).try_for_each(|number| tx.push(number)).unwrap();
    let most = match tx.try_reserve(1024).err() {
        Some(Error::TooLarge { asked: 1024, max }) => max as usize,
        other => panic!("{other:?}"),
    };
    assert!(most >= 64);
    for _ in 0..100 {
        tx.try_reserve(most).unwrap().commit(most);
    }
    // Also where the ring is smaller than what a look found free.
    let (mut tx, _rx) = topic::channel::<u64>(4).unwrap();
    for _ in 0..3 {
        assert!(matches!(
            tx.try_reserve(5).err(),
            Some(Error::TooLarge { asked: 5, max: 4 })
        ));
        tx.push(1).unwrap();
    }
}

#[test]
fn sets_see_the_room_that_there_is() {
    let builder = Builder::<u64>::new(2).producers(2).pool(4);
    let channel = builder.heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    (0..2).try_for_each(|number| tx.push(number)).unwrap();
    let _both = [rx.read_owned().unwrap(), rx.read_owned().unwrap()];
    let mut set = WaitSet::new().unwrap();
    set.watch_room(&tx, 1).unwrap();
    let ready = set.wait_timeout(SHORT).map(|events| events.len());
    assert_eq!(ready, Ok(1));
    tx.try_push(2).unwrap();
}

#[test]
fn room_behind_a_late_head_is_found() {
    let builder = Builder::<u64>::new(2).producers(2).consumers(1).pool(3);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut tx, mut other) = (channel.producer().unwrap(), channel.producer().unwrap());
    let mut rx = channel.consumer().unwrap();
    (0..2).try_for_each(|number| tx.push(number)).unwrap();
    let _held = rx.nth_latest_owned(1).unwrap();
    (2..3).try_for_each(|number| tx.push(number)).unwrap();
    assert!(matches!(tx.try_push(3), Err(PushError::Full(3))));
    other.push(3).unwrap();
    // As if `other` had been killed before it told the head.
    memory.control(HEAD).store(3, Ordering::Relaxed);
    assert_eq!(tx.try_push(4), Ok(()));
    assert_eq!(*rx.latest().unwrap(), 4);
}

#[test]
fn the_smallest_topic_carries() {
    let builder = Builder::<[u64; 9]>::new(1)
        .producers(2)
        .consumers(2)
        .join(Seek::Oldest);
    let channel = builder.held(MOST_PINS as usize - 1).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut held = Vec::new();
    for number in 0..200 {
        tx.push([number; 9]).unwrap();
        assert_eq!(*rx.latest().unwrap(), [number; 9]);
        if held.len() + 1 < MOST_PINS as usize {
            held.push(rx.read_owned().unwrap());
        }
    }
    for (number, sample) in held.iter().enumerate() {
        assert_eq!(**sample, [number as u64; 9]);
    }
    assert_eq!(rx.pop(), Err(Error::Lagged(187)));
    assert_eq!(rx.pop(), Ok([199; 9]));
}

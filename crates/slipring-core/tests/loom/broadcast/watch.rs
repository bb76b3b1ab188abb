//! Models a watcher: what it copies is whole, and lost messages are reported.

use slipring_core::layout::{Geometry, Kind};
use slipring_core::mem::Watched;
use slipring_core::proto::broadcast::Watcher;
use slipring_core::sync::fence;

use super::*;

/// Watches until `messages` are copied or lost.
fn watch<M: Modelled>(feed: &Feed<M>, messages: u64) {
    let geometry = Geometry {
        kind: Kind::Broadcast,
        when_full: M::WHEN_FULL,
        capacity: feed.capacity,
        slot_size: 16,
        slot_align: 8,
        producers: 1,
        consumers: 2,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    };
    let slots = Watched::new(&feed.words, &geometry).unwrap();
    let notes = SeatLine::default();
    let peer = Peer::producer(&feed.lines[0], &notes);
    let mut watcher =
        Watcher::new(&feed.tail, &feed.write_limit, slots, peer, Seek::Oldest).unwrap();
    let mut next = watcher.position();
    while next < messages {
        let mut bytes = [0; 16];
        match watcher.try_next(&mut bytes) {
            Ok(told) => {
                let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                assert_eq!((told, number([word(0), word(8)])), (next, next));
                next += 1;
            }
            Err(Error::Lagged(lost)) => next += lost,
            Err(Error::Empty) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(watcher.position(), next);
    }
}

/// Whoever watches a channel that overwrites gets whole messages.
#[test]
fn watchers_get_whole_messages_when_overwriting() {
    model_within(3, || {
        let feed = Feed::overwriting(2).sent(2);
        let other = feed.clone();
        let watcher = thread::spawn(move || watch(&other, 3));
        feed.produce(false, |tx, _| push_all(tx, 2..3));
        watcher.join().unwrap();
    });
}

/// Whoever watches a channel that waits gets whole messages. The producer's side copies what
/// `Producer::raise`, `write` and `commit` do, with words in place of plain slots. Of plain slots
/// the model only knows that they race.
#[test]
fn watchers_get_whole_messages_when_waiting() {
    model_within(2, || {
        let feed = Feed::waiting(1);
        let write = |feed: &Feed<Waiting>, message: u64| {
            feed.write_limit.store(message + 1, Ordering::Release);
            fence(Ordering::SeqCst);
            let words = feed.words.iter().zip(pair(message));
            words.for_each(|(word, value)| word.store(value, Ordering::Relaxed));
            feed.tail.store(message + 1, Ordering::Release);
        };
        write(&feed, 0);
        let other = feed.clone();
        let watcher = thread::spawn(move || watch(&other, 3));
        write(&feed, 1);
        write(&feed, 2);
        watcher.join().unwrap();
    });
}

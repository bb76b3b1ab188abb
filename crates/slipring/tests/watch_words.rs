//! A watcher meets arbitrary words: it returns `Corrupt`, and neither panics nor hangs nor leaves
//! the data. Of each kind that can be watched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};

use slipring::broadcast::Seek;
use slipring::inspect::WhenFull;
use slipring::{Error, Geometry};
use slipring_core::layout::{Entries, Kind, SeatLine};
use slipring_core::mem::Watched;
use slipring_core::proto::broadcast::Watcher;
use slipring_core::proto::broadcast_records;
use slipring_core::proto::topic::{self, Source, Topic};
use slipring_core::seat::Peer;

fn geometry(when_full: WhenFull, capacity: u64, slot_size: u64) -> Geometry {
    Geometry {
        kind: Kind::Broadcast,
        when_full,
        capacity,
        slot_size,
        slot_align: 1,
        producers: 1,
        consumers: 1,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    }
}

fn words(geometry: &Geometry) -> Vec<AtomicU64> {
    let words = geometry.data_len().div_ceil(8);
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

/// A watcher goes on beyond the last position at which a new watcher may begin.
#[test]
fn watchers_may_pass_the_last_start() {
    let last = u64::MAX - (1 << 48);
    for when_full in [WhenFull::Wait, WhenFull::Overwrite] {
        let shape = geometry(when_full, 2, 8);
        let (data, line, notes) = (words(&shape), SeatLine::default(), SeatLine::default());
        let [tail, write_limit] = [last, last + 2].map(AtomicU64::new);
        let begin = |seek| {
            let slots = Watched::new(&data, &shape).unwrap();
            Watcher::new(
                &tail,
                &write_limit,
                slots,
                Peer::producer(&line, &notes),
                seek,
            )
        };
        let mut watcher = begin(Seek::Newest).unwrap();
        tail.store(last + 2, Ordering::Relaxed);
        for number in [last, last + 1] {
            assert_eq!(watcher.try_next(&mut [0; 8]), Ok(number));
        }
        // The watcher is overtaken, too.
        [&tail, &write_limit]
            .iter()
            .for_each(|word| word.store(last + 8, Ordering::Relaxed));
        let told = watcher.try_next(&mut [0; 8]);
        assert!(matches!(told, Err(Error::Lagged(4..))), "{told:?}");
        assert!(matches!(begin(Seek::Newest), Err(Error::Corrupt(_))));
    }
}

/// Returns a source of numbers, the same ones each time.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Whatever words a watcher finds, it neither panics nor reports impossible numbers.
#[test]
fn arbitrary_words_do_no_harm() {
    let mut random = random();
    let mut any = |base: u64| match random() % 8 {
        0 => random(),
        1 => u64::MAX - random() % 20,
        2 => u64::MAX - (1 << 48) - random() % 20,
        _ => base + random() % 20,
    };
    let (mut came, mut lagged, mut corrupt) = (0, 0, 0);
    for round in 0..200_000 {
        let when_full = [WhenFull::Wait, WhenFull::Overwrite][round % 2];
        let shape = geometry(when_full, [2, 8][round / 2 % 2], 8);
        let data = words(&shape);
        let (tail, write_limit, line) = (AtomicU64::new(0), AtomicU64::new(0), SeatLine::default());
        let notes = SeatLine::default();
        let base = if round % 3 == 0 { any(0) / 2 } else { 0 };
        let mut scribble = || {
            for word in data.iter().chain([&tail, &write_limit]) {
                word.store(any(base), Ordering::Relaxed);
            }
            if any(0) == 7 {
                line.life.store(any(256), Ordering::Relaxed);
            }
        };
        scribble();
        let slots = Watched::new(&data, &shape).unwrap();
        let peer = Peer::producer(&line, &notes);
        let seek = [Seek::Oldest, Seek::Newest, Seek::To(base + 3)][round % 3];
        let Ok(mut watcher) = Watcher::new(&tail, &write_limit, slots, peer, seek) else {
            continue;
        };
        for _ in 0..8 {
            let before = watcher.position();
            match watcher.try_next(&mut [0; 8]) {
                Ok(number) => {
                    came += 1;
                    assert_eq!((number, watcher.position()), (before, before + 1));
                }
                Err(Error::Lagged(lost)) => {
                    lagged += 1;
                    assert!(lost > 0);
                    assert_eq!(watcher.position(), before + lost);
                }
                Err(Error::Corrupt(_)) => corrupt += 1,
                Err(Error::Empty | Error::Disconnected(_)) => {}
                Err(error) => panic!("{error}"),
            }
            scribble();
        }
    }
    assert!(
        came > 0 && lagged > 0 && corrupt > 0,
        "{came} {lagged} {corrupt}"
    );
}

/// The same for records: what comes lies behind what came before, has a possible length, and leads to the next position.
#[test]
fn arbitrary_records_do_no_harm() {
    let mut random = random();
    let mut any = |base: u64| match random() % 12 {
        0 => random(),
        1 => u64::MAX - random() % 20,
        2 => u64::MAX - (1 << 48) - random() % 20,
        3 => base + random() % 100,
        _ => base + random() % 12 * 8,
    };
    let (mut came, mut lagged, mut corrupt) = (0, 0, 0);
    for round in 0..200_000 {
        let shape = Geometry {
            kind: Kind::BroadcastRecords,
            slot_align: 8,
            ..geometry(WhenFull::Wait, 64, 24)
        };
        let data = words(&shape);
        let (tail, write_limit, line) = (AtomicU64::new(0), AtomicU64::new(0), SeatLine::default());
        let notes = SeatLine::default();
        let base = if round % 3 == 0 { any(0) / 2 } else { 0 };
        let mut scribble = || {
            for word in [&tail, &write_limit] {
                word.store(any(base), Ordering::Relaxed);
            }
            for word in &data {
                // Most are the length of a record, some of one that is too long.
                let said = any(0) % 40;
                let length = if said < 32 { said << 8 | 1 } else { any(0) };
                word.store(length, Ordering::Relaxed);
            }
            if any(0) == 8 {
                line.life.store(any(256), Ordering::Relaxed);
            }
        };
        scribble();
        let records = Watched::new(&data, &shape).unwrap();
        let peer = Peer::producer(&line, &notes);
        let from = base + 24;
        let seek = [Seek::Oldest, Seek::Newest, Seek::To(from)][round % 3];
        let begun = broadcast_records::Watcher::new(&tail, &write_limit, records, peer, seek);
        let Ok(mut watcher) = begun else {
            continue;
        };
        for _ in 0..8 {
            let before = watcher.position();
            let told = watcher.try_next(&mut [0; 16]);
            let now = watcher.position();
            assert!(now >= before, "{told:?}: back from {before} to {now}");
            match told {
                Ok((at, len)) => {
                    came += 1;
                    assert!(len <= 16 && at >= before);
                    assert_eq!(now, at + slipring::bytes::record_size(len as u64));
                    assert!(round % 3 != 2 || at >= from);
                }
                Err(Error::Lagged(lost)) => {
                    lagged += 1;
                    assert!(lost > 0 && lost <= now - before);
                }
                Err(Error::Corrupt(_)) => corrupt += 1,
                Err(Error::Empty | Error::Disconnected(_)) => {}
                Err(error) => panic!("{error}"),
            }
            scribble();
        }
    }
    assert!(
        came > 0 && lagged > 0 && corrupt > 0,
        "{came} {lagged} {corrupt}"
    );
}

/// The data of a topic. A copy from beyond it panics.
struct Slots<'a>(&'a [AtomicU64]);

impl Source for Slots<'_> {
    fn copy(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(at % 8, 0);
        for (i, part) in out.chunks_mut(8).enumerate() {
            let word = self.0[at as usize / 8 + i].load(Ordering::Relaxed);
            part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

/// The same for topics: no entry leads out of the data, and a message has the number that was asked for.
#[test]
fn arbitrary_entries_do_no_harm() {
    let mut random = random();
    let (mut came, mut lagged, mut corrupt) = (0, 0, 0);
    for round in 0..200_000_u64 {
        let shape = Geometry {
            kind: Kind::Topic,
            pins: 1,
            pool: 8,
            growth: None,
            ..geometry(WhenFull::Overwrite, [2, 4][round as usize % 2], 16)
        };
        let data = words(&shape);
        let entries = words(&Geometry {
            kind: Kind::Spsc,
            ..geometry(WhenFull::Wait, shape.capacity, 8)
        });
        let head = AtomicU64::new(0);
        let stride = shape.stride() as usize / 8;
        let mut scribble = || {
            let base = random() % 6;
            head.store(base, Ordering::Relaxed);
            for (index, word) in entries.iter().enumerate() {
                // The entry of the newest message in its place, as a rule; and of a slot that there is.
                let lap = (base + shape.capacity - 1 - index as u64) / shape.capacity;
                let lap = lap + u64::from(random().is_multiple_of(8));
                let slot = random() % 9;
                let slot = if random().is_multiple_of(8) {
                    random() % 65536
                } else {
                    slot
                };
                word.store(lap << 16 | slot, Ordering::Relaxed);
            }
            for slot in data.chunks(stride) {
                slot[0].store(random() % 7, Ordering::Relaxed);
                slot[1].store(random() % 20, Ordering::Relaxed);
            }
            // Sometimes a word is anything at all.
            let all = || entries.iter().chain([&head]).chain(&data);
            if random().is_multiple_of(2) {
                let which = random() as usize % all().count();
                all().nth(which).unwrap().store(random(), Ordering::Relaxed);
            }
        };
        scribble();
        let topic = Topic::new(Entries {
            head: &head,
            words: &entries,
        });
        let seek = [Seek::Oldest, Seek::Newest, Seek::To(1)][round as usize % 3];
        let Ok(mut watcher) = topic::Watcher::new(topic.unwrap(), &shape, Slots(&data), seek)
        else {
            continue;
        };
        for _ in 0..8 {
            let before = watcher.position();
            let told = watcher.try_next(&mut [0; 16]);
            let now = watcher.position();
            match told {
                Ok((origin, len)) => {
                    came += 1;
                    assert!(len <= 16);
                    assert_eq!((origin.sequence, now), (before, before + 1));
                }
                Err(Error::Lagged(lost)) => {
                    lagged += 1;
                    assert!(lost > 0);
                    assert_eq!(now, before + lost);
                }
                // It may pass over a message that is corrupt.
                Err(Error::Corrupt(_)) => {
                    corrupt += 1;
                    assert!(now - before <= 1);
                }
                Err(Error::Empty) => assert_eq!(now, before),
                Err(error) => panic!("{error}"),
            }
            scribble();
        }
    }
    assert!(
        came > 0 && lagged > 0 && corrupt > 0,
        "{came} {lagged} {corrupt}"
    );
}

/// A watcher copies payloads of any size exactly, to the byte. Slots of a channel that waits lie
/// side by side, without alignment to words.
#[test]
fn payloads_of_any_size_are_exact() {
    for size in 1..40 {
        let shape = geometry(WhenFull::Wait, 8, size);
        let data = words(&shape);
        for (at, word) in data.iter().enumerate() {
            let bytes = std::array::from_fn(|i| (at * 8 + i) as u8);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        let slots = Watched::new(&data, &shape).unwrap();
        for position in 0..16 {
            let mut out = vec![0; size as usize];
            slots.copy(position, 0, &mut out);
            let first = position % 8 * size;
            let expected: Vec<_> = (first..first + size).map(|byte| byte as u8).collect();
            assert_eq!(out, expected, "message {position} of {size} bytes");
        }
    }
}

/// A shape that does not fit the words it is given is refused.
#[test]
fn a_misfitting_shape_is_refused() {
    let shape = geometry(WhenFull::Overwrite, 8, 8);
    let data = words(&shape);
    assert!(Watched::new(&data, &shape).is_some());
    assert!(Watched::new(&data[1..], &shape).is_none());
    let spsc = Geometry {
        kind: Kind::Spsc,
        when_full: WhenFull::Wait,
        ..shape
    };
    assert!(Watched::new(&data, &spsc).is_none());
    assert!(
        Watched::new(
            &data,
            &Geometry {
                capacity: 7,
                ..shape
            }
        )
        .is_none()
    );
}

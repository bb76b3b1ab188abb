//! A watcher meets arbitrary words: it returns `Corrupt`, and neither panics nor hangs nor leaves
//! the data.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};

use slipring::broadcast::Seek;
use slipring::inspect::WhenFull;
use slipring::{Error, Geometry};
use slipring_core::layout::{Kind, SeatLine};
use slipring_core::mem::Watched;
use slipring_core::proto::broadcast::Watcher;
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

/// Whatever words a watcher finds, it neither panics nor reports impossible numbers.
#[test]
fn arbitrary_words_do_no_harm() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
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

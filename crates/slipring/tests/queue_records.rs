//! Queues of byte strings: lengths, limits, guards of every sort, and what a stranger may write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use slipring::mpmc::records::{self, Builder, Consumer};
use slipring::{End, Error, SetupError};

const FINISHED: Error = Error::Disconnected(End::Finished);

fn pops(rx: &mut Consumer) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| rx.try_read().ok().map(|record| record.to_vec())).collect()
}

/// Records of all lengths come out as they went in, around the end of the ring many times.
#[test]
fn records_keep_their_lengths() {
    for capacity in [1, 2, 4, 8] {
        let (mut tx, mut rx) = records::channel(capacity, 21).unwrap();
        assert_eq!((tx.max_record(), rx.max_record()), (24, 24));
        for round in 0..50_usize {
            let record: Vec<u8> = (0..round % 25).map(|byte| (byte + round) as u8).collect();
            tx.try_push(&record).unwrap();
            let mut out = [0; 24];
            let len = rx.try_pop(&mut out).unwrap();
            assert_eq!(out[..len], record);
        }
        assert_eq!(rx.try_read().unwrap_err(), Error::Empty);
    }
}

/// Full is full at the capacity, whatever the lengths; too long is refused, and nothing else happens.
#[test]
fn limits_are_told() {
    let (mut tx, mut rx) = records::channel(2, 8).unwrap();
    let too_large = Error::TooLarge { asked: 9, max: 8 };
    assert_eq!(tx.try_push(&[0; 9]), Err(too_large));
    assert_eq!(tx.push(&[0; 9]), Err(too_large));
    assert_eq!(tx.try_reserve(9).unwrap_err(), too_large);
    assert_eq!(tx.try_reserve_owned(9).unwrap_err(), too_large);
    tx.try_push(b"").unwrap();
    tx.try_push(b"12345678").unwrap();
    assert_eq!(
        (tx.try_push(b""), tx.is_full()),
        (Err(Error::Full), Ok(true))
    );
    assert_eq!(
        tx.push_timeout(b"", Duration::from_millis(1)),
        Err(Error::TimedOut)
    );
    let small = Error::TooLarge { asked: 8, max: 3 };
    assert_eq!(rx.try_pop(&mut []), Ok(0));
    assert_eq!(rx.try_pop(&mut [0; 3]), Err(small));
    assert_eq!(pops(&mut rx), [b"12345678"]);
    for (capacity, largest) in [(3, 8), (0, 8)] {
        let refused = Builder::new(capacity, largest).heap().unwrap_err();
        assert!(
            matches!(refused, SetupError::Capacity { .. }),
            "{refused:?}"
        );
    }
    for largest in [0, usize::MAX] {
        let refused = Builder::new(4, largest).heap().unwrap_err();
        assert!(
            matches!(refused, SetupError::MaxRecord { .. }),
            "{refused:?}"
        );
    }
}

/// A reservation is committed at its real length, or discarded; an empty record is one.
#[test]
fn reservations_are_committed_at_their_length() {
    let (mut tx, mut rx) = records::channel(8, 16).unwrap();
    for len in [16, 0, 5] {
        let mut record = tx.try_reserve(16).unwrap();
        record.fill(len as u8);
        record.commit(len);
    }
    tx.try_reserve(16).unwrap().discard();
    let mut owned: Vec<_> = (0..3).map(|_| tx.try_reserve_owned(4).unwrap()).collect();
    for (byte, record) in owned.iter_mut().enumerate() {
        record.fill(byte as u8);
        assert_eq!(record.len(), 4);
    }
    owned.pop().unwrap().commit(1);
    drop(owned.pop());
    assert_eq!(pops(&mut rx), [&[16; 16][..], &[], &[5; 5]]);
    owned.pop().unwrap().commit(4);
    assert_eq!(pops(&mut rx), [&[0; 4][..], &[2]]);
}

/// What is given back comes again, to any consumer, and says how often it came.
#[test]
fn kept_records_come_again() {
    let channel = Builder::new(8, 16).dead_letters(3, 2).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut other = rx.another().unwrap();
    tx.push(b"one").unwrap();
    tx.push(b"two").unwrap();
    let first = rx.read_owned().unwrap();
    let second = rx.read().unwrap();
    assert_eq!((&first[..], &second[..]), (&b"one"[..], &b"two"[..]));
    second.keep();
    first.keep();
    let mut again: Vec<_> = (0..2).map(|_| other.try_read_owned().unwrap()).collect();
    again.sort_by(|one, two| one.cmp(two));
    assert_eq!([&again[0][..], &again[1][..]], [b"one", b"two"]);
    assert!(again.iter().all(|record| record.deliveries() == 1));
    again.pop().unwrap().release();
    again.pop().unwrap().keep();
    let third = rx.try_read().unwrap();
    assert_eq!((&third[..], third.deliveries()), (&b"one"[..], 2));
    third.keep();
    assert_eq!(rx.try_read().unwrap_err(), Error::Empty);
    assert_eq!(&rx.try_dead_letter().unwrap()[..], b"one");
    drop(tx);
    assert_eq!(rx.read().unwrap_err(), FINISHED);
}

/// What is put aside is a letter, and a letter that is put aside again is read once in each round.
#[test]
fn records_are_put_aside() {
    let channel = Builder::new(8, 16).dead_letters(5, 2).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    for record in [b"one", b"two", b"six"] {
        tx.push(record).unwrap();
        rx.read().unwrap().put_aside();
    }
    assert_eq!(rx.try_read().unwrap_err(), Error::Empty);
    for _ in 0..2 {
        let mut seen = Vec::new();
        while let Ok(letter) = rx.try_dead_letter() {
            seen.push((letter.to_vec(), letter.deliveries()));
            letter.put_aside();
        }
        // The oldest was dropped.
        assert_eq!(seen, [(b"two".to_vec(), 0), (b"six".to_vec(), 0)]);
        assert_eq!(rx.dead_letters(), 2);
    }
    rx.try_dead_letter().unwrap().release();
    rx.try_dead_letter().unwrap().keep();
    let again = rx.try_read().unwrap();
    assert_eq!((&again[..], again.deliveries()), (&b"six"[..], 0));
    again.release();
    assert_eq!((rx.dead_letters(), tx.is_empty()), (0, Ok(true)));
    // A slot that had a letter counts from the beginning.
    for _ in 0..9 {
        tx.push(b"new").unwrap();
        let record = rx.read().unwrap();
        assert_eq!(record.deliveries(), 0);
    }
}

/// Three producers and three consumers, in threads: each record comes once and whole.
#[test]
fn many_ends_share_the_records() {
    const EACH: u64 = 5_000;
    let channel = Builder::new(16, 64).heap().unwrap();
    let taken = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for producer in 0..3_u64 {
            let mut tx = channel.producer().unwrap();
            scope.spawn(move || {
                for number in 0..EACH {
                    let key = producer * EACH + number;
                    let record: Vec<u8> = key.to_le_bytes().repeat(1 + key as usize % 8);
                    tx.push(&record).unwrap();
                }
            });
        }
        for _ in 0..3 {
            let (mut rx, taken) = (channel.consumer().unwrap(), &taken);
            scope.spawn(move || {
                let mut mine = Vec::new();
                for record in rx.iter() {
                    let record = record.unwrap();
                    let (keys, rest) = record.as_chunks::<8>();
                    let key = u64::from_le_bytes(keys[0]);
                    assert!(rest.is_empty() && keys.iter().all(|word| *word == keys[0]));
                    assert_eq!(keys.len(), 1 + key as usize % 8);
                    mine.push(key);
                }
                taken.lock().unwrap().extend(mine);
            });
        }
    });
    let mut taken = taken.into_inner().unwrap();
    taken.sort_unstable();
    assert!(taken.into_iter().eq(0..3 * EACH));
}

/// A queue of values is no queue of records.
#[test]
fn kinds_do_not_mix() {
    let name = format!("queue-records-{}", std::process::id());
    let channel = slipring::mpmc::Builder::<u64>::new(8)
        .create(&name)
        .unwrap();
    let refused = Builder::new(8, 8).open(&name).map(drop);
    assert!(matches!(refused, Err(SetupError::Schema(_))), "{refused:?}");
    channel.remove().unwrap();
}

fn records_of<'a>(
    messages: &'a [&'a [u8]],
) -> std::iter::Peekable<impl ExactSizeIterator<Item = &'a [u8]>> {
    messages.iter().copied().peekable()
}

/// Records go in and come out several at once, around the end of the ring, at lengths of their own.
#[test]
fn batches_keep_lengths_and_order() {
    for capacity in [1, 2, 4, 8] {
        let (mut tx, mut rx) = records::channel(capacity, 16).unwrap();
        for round in 0..40_usize {
            let wanted: Vec<Vec<u8>> = (0..round % (capacity + 2))
                .map(|at| vec![(round + at) as u8; (round + at) % 17])
                .collect();
            let mut left = wanted.iter().map(Vec::as_slice).peekable();
            let mut came: Vec<Vec<u8>> = Vec::new();
            while left.peek().is_some() {
                let pushed = tx.try_push_iter(&mut left).unwrap();
                assert!((1..=capacity).contains(&pushed));
                assert_eq!(tx.len(), Ok(pushed));
                let mut batch = rx.try_read_batch(usize::MAX).unwrap();
                while let Some(record) = batch.next().unwrap() {
                    came.push(record.to_vec());
                }
                assert_eq!(batch.next(), Ok(None));
                assert_eq!(batch.deliveries(), 0);
                drop(batch);
                assert_eq!(rx.len(), Ok(0));
            }
            assert_eq!(came, wanted);
        }
    }
}

/// A batch takes nothing from the iterator that does not go in: not what is too long, and not what finds no room.
#[test]
fn batches_take_what_fits() {
    let (mut tx, mut rx) = records::channel(4, 8).unwrap();
    let too_long = [&b"1"[..], b"2", b"too long for it", b"4"];
    let mut messages = records_of(&too_long);
    assert_eq!(tx.try_push_iter(&mut messages), Ok(2));
    let too_large = Error::TooLarge { asked: 15, max: 8 };
    assert_eq!(pops(&mut rx), [b"1", b"2"]);
    assert_eq!(tx.try_push_iter(&mut messages), Err(too_large));
    assert_eq!(messages.next(), Some(&b"too long for it"[..]));
    assert_eq!(tx.try_push_iter(&mut messages), Ok(1));
    tx.push_iter([&b"5"[..], b"6"]).unwrap();
    let too_many = [&b"7"[..], b"8"];
    let mut messages = records_of(&too_many);
    assert_eq!(tx.try_push_iter(&mut messages), Ok(1));
    assert_eq!(tx.try_push_iter(&mut messages), Err(Error::Full));
    assert_eq!(messages.len(), 1);
    assert_eq!(tx.try_push_iter(&mut records_of(&[])), Ok(0));
    assert_eq!(pops(&mut rx), [b"4", b"5", b"6", b"7"]);
    assert_eq!(tx.push_iter([&b"7"[..], b"8"]).unwrap(), 2);
    let failed = tx.push_iter([&b"9"[..], b"longer than 8"]).unwrap_err();
    let too_large = Error::TooLarge { asked: 13, max: 8 };
    assert_eq!((failed.done, failed.error), (1, too_large));
    assert_eq!(pops(&mut rx), [b"7", b"8", b"9"]);
}

/// A batch gives back what it does not release, returned or not: any consumer takes it, and learns that it came before.
#[test]
fn batches_give_back_what_they_keep() {
    let (mut tx, mut rx) = records::channel(8, 8).unwrap();
    let mut other = rx.another().unwrap();
    tx.push_iter([&b"1"[..], b"2", b"3", b"4"]).unwrap();
    let mut batch = rx.read_batch(3).unwrap();
    assert_eq!(batch.next().unwrap(), Some(&b"1"[..]));
    assert_eq!(batch.next().unwrap(), Some(&b"2"[..]));
    batch.keep_last(); // the first is released
    let mut came: Vec<_> = std::iter::from_fn(|| {
        let record = other.try_read().ok()?;
        Some((record.to_vec(), record.deliveries()))
    })
    .collect();
    came.sort();
    assert_eq!(
        came,
        [(b"2".to_vec(), 1), (b"3".to_vec(), 1), (b"4".to_vec(), 0)]
    );
    tx.push(b"5").unwrap();
    rx.read_batch(2).unwrap().keep();
    let mut batch = other.read_batch_timeout(2, Duration::from_secs(9)).unwrap();
    assert_eq!(batch.next().unwrap(), Some(&b"5"[..]));
    assert_eq!(batch.deliveries(), 1);
    drop(batch);
    drop(tx);
    assert_eq!(rx.read_batch(1).unwrap_err(), FINISHED);
}

/// An iterator that panics leaves nothing behind, and the room is there again.
#[test]
fn batches_of_a_broken_iterator_vanish() {
    let (mut tx, mut rx) = records::channel(4, 8).unwrap();
    let broken = (0..3).map(|at| match at {
        2 => panic!("on purpose"),
        _ => &b"lost"[..],
    });
    let mut broken = broken.peekable();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tx.try_push_iter(&mut broken)
    }));
    assert!(caught.is_err());
    assert_eq!(rx.try_read().unwrap_err(), Error::Empty);
    assert_eq!(tx.push_iter([&b"1"[..], b"2", b"3", b"4"]).unwrap(), 4);
    assert_eq!(pops(&mut rx).len(), 4);
}

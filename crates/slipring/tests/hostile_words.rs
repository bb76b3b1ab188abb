//! Checks hostile words: each word of a channel is set to a forbidden value, before an attach and
//! under live handles. The answer is a typed error or correct work. It is never a panic, a byte
//! outside the data, or a call that does not return. (The fuzz targets in `verify/fuzz` go further;
//! this is their fixed corpus.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;

use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use slipring::broadcast;
use slipring::topic::{self, Publisher, Subscriber};
use slipring::{
    Builder, Consumer, Corrupt, Error, Kind, Producer, PushError, SetupError, bytes, spsc,
};
use slipring_core::layout::{Geometry, HEAD, PAGE, Role, RolePage};

use memory::calls::{
    Calls, is_typed, use_broadcast, use_broadcast_records, use_bytes, use_slots, use_topic,
};
use memory::{GATE, Memory};

/// Returns the values to which a word is changed: each bit flipped, and those at which arithmetic
/// breaks.
fn corruptions(word: u64) -> impl Iterator<Item = u64> {
    let flips = (0..64).map(move |bit| word ^ 1 << bit);
    let edges = [
        0,
        1,
        7,
        8,
        1 << 47,
        (1 << 48) - 1,
        1 << 63,
        u64::MAX - 7,
        u64::MAX - (1 << 48),
        u64::MAX,
    ];
    let near = [
        word.wrapping_add(1),
        word.wrapping_sub(1),
        word.wrapping_add(8),
        word.wrapping_sub(8),
    ];
    flips
        .chain(edges)
        .chain(near)
        .filter(move |value| *value != word)
}

fn spsc_builder() -> spsc::Builder<u64> {
    spsc::Builder::new(4).metadata(b"mine")
}

fn bytes_builder() -> bytes::Builder {
    bytes::Builder::new(64).max_record(24)
}

fn broadcast_builder() -> broadcast::Builder<u64> {
    broadcast::Builder::new(4)
        .consumers(2)
        .join(broadcast::Seek::Oldest)
}

/// Two publishers of a topic and its two subscribers, the first of whom may hold two messages.
type Ends = (Vec<Publisher<u64>>, Vec<Subscriber<u64>>);

fn topic_builder() -> topic::Builder<u64> {
    topic::Builder::new(4)
        .producers(2)
        .consumers(2)
        .held(2)
        .join(topic::Seek::Oldest)
}

fn topic_ends(channel: &topic::Channel<u64>) -> Result<Ends, SetupError> {
    Ok((
        vec![channel.producer()?, channel.producer()?],
        vec![channel.consumer()?, channel.consumer()?],
    ))
}

/// An attach reads the header once: it refuses every changed word by name.
#[test]
fn every_changed_header_word_is_refused() {
    let builder = spsc_builder();
    let memory = Memory::of(&builder);
    drop(memory.format(&builder).unwrap());
    for offset in (0..512).step_by(8) {
        let word = memory.control(offset);
        let right = word.load(Ordering::Relaxed);
        for wrong in corruptions(right) {
            word.store(wrong, Ordering::Relaxed);
            let what = format!("header word {offset} = {wrong:#x}");
            match memory.attach(&builder).map(drop) {
                Err(SetupError::NotAChannel { found, .. }) => {
                    assert_eq!((offset, found), (0, Some(wrong)))
                }
                Err(SetupError::Version { found, .. }) => assert_eq!((offset, found), (8, wrong)),
                Err(SetupError::Corrupt(corrupt)) => {
                    assert_ne!(corrupt.found, corrupt.expected, "{what}")
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        word.store(right, Ordering::Relaxed);
    }
    memory.attach(&builder).map(drop).unwrap();
}

/// Changes header words under a right checksum, so that each word has to be checked itself: it is
/// refused, or harmless. `may_differ` are the geometry's words that may hold other values all the
/// same.
fn resealed_header_words<K: Kind>(
    builder: &Builder<K>,
    may_differ: &[usize],
    use_it: impl Fn(&mut Producer<K>, &mut Consumer<K>, &str),
) {
    let memory = Memory::of(builder);
    drop(memory.format(builder).unwrap());
    memory.reseal();
    let attached = memory.attach(builder).map(drop);
    attached.expect("the checksum is as FORMAT.md says");
    for offset in (8..512).step_by(8).filter(|offset| *offset != 184) {
        let right = memory.control(offset).load(Ordering::Relaxed);
        for wrong in corruptions(right) {
            memory.control(offset).store(wrong, Ordering::Relaxed);
            memory.reseal();
            let what = format!("header word {offset} = {wrong:#x}");
            // Identity, schema version, the schema's name and the metadata may hold anything.
            let free = (112..160).contains(&offset) || offset >= 192;
            match memory.attach(builder) {
                Ok(channel) => {
                    assert!(free || may_differ.contains(&offset), "{what}");
                    let (mut tx, mut rx) =
                        (channel.producer().unwrap(), channel.consumer().unwrap());
                    use_it(&mut tx, &mut rx, &what);
                }
                Err(
                    SetupError::Corrupt(_)
                    | SetupError::Version { .. }
                    | SetupError::Kind { .. }
                    | SetupError::Schema(_)
                    | SetupError::WhenFull { .. }
                    | SetupError::Capacity { .. }
                    | SetupError::Truncated { .. }
                    | SetupError::Misaligned { .. },
                ) => assert!(!free, "{what}"),
                Err(other) => panic!("{what}: {other:?}"),
            }
        }
        memory.control(offset).store(right, Ordering::Relaxed);
    }
    memory.assert_fences_stand();
}

/// Every changed header word whose checksum is right again is refused or does no harm.
#[test]
fn resealed_header_changes_are_harmless() {
    // The skew (160) may be any of eight.
    resealed_header_words(&spsc_builder(), &[160], use_slots);
    // A `bytes` channel does not use its slots' alignment (88), as long as it divides their size.
    // The fingerprint (96, 104) belongs to no type.
    resealed_header_words(&bytes_builder(), &[88, 96, 104, 160], use_bytes);
    resealed_header_words(&broadcast_builder(), &[24, 160], |tx, rx, what| {
        use_broadcast(tx, std::slice::from_mut(rx), what);
    });
    let overwriting = broadcast_builder().overwriting();
    resealed_header_words(&overwriting, &[24, 160], |tx, rx, what| {
        use_broadcast(tx, std::slice::from_mut(rx), what);
    });
}

/// A topic whose header has impossible numbers of pins or slots is refused by name.
#[test]
fn impossible_pins_and_pools_are_refused() {
    let builder = topic_builder();
    let memory = Memory::of(&builder);
    drop(memory.format(&builder).unwrap());
    let slots = topic_builder().heap().unwrap().geometry().pool;
    for (name, offset, right, wrong) in [
        ("pins", 168, 3, &[0, 14, 1 << 16, u64::MAX][..]),
        ("pool", 176, slots, &[0, 4, 1 << 15, 1 << 48, u64::MAX][..]),
    ] {
        let word = memory.control(offset);
        assert_eq!(word.load(Ordering::Relaxed), right, "{name}");
        for wrong in wrong {
            word.store(*wrong, Ordering::Relaxed);
            memory.reseal();
            let found = corrupt(memory.attach(&builder));
            assert_eq!((found.word, found.found), (name, *wrong));
        }
        word.store(right, Ordering::Relaxed);
        memory.reseal();
    }
    memory.attach(&builder).map(drop).unwrap();
}

/// The words of a topic that its ends use: those of wait cells, seats and role pages, and its own.
fn topic_words(geometry: &Geometry) -> Vec<usize> {
    let bells = [0, 8, 16].map(|word| 512 + word);
    let mut words = Vec::from_iter(bells.into_iter().chain(bells.map(|word| word + 128)));
    words.extend([768, HEAD]);
    words.extend((0..geometry.capacity as usize).map(|entry| geometry.claims_offset() + 8 * entry));
    for seat in 0..geometry.seats() {
        words.extend((0..72).step_by(8).map(|word| 1024 + 128 * seat + word));
        let page = geometry.role_offset(seat);
        words.extend((128..192).step_by(8).chain([0]).map(|word| page + word));
    }
    words.extend(topic_pins(geometry));
    words
}

/// The words with the pins of both subscribers.
fn topic_pins(geometry: &Geometry) -> Vec<usize> {
    let pins = std::mem::offset_of!(RolePage, pins);
    let pages = geometry.seats_of(Role::Consumer);
    let pages = pages.map(|seat| geometry.role_offset(seat) + pins);
    pages
        .flat_map(|pins| (pins..pins + 32).step_by(8))
        .collect()
}

/// Every wrong value of every word of a topic is survived, under live handles and by those that come later.
#[test]
fn topic_handles_survive_wrong_words() {
    let builder = topic_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let geometry = channel.geometry();
    for offset in topic_words(&geometry) {
        let word = memory.control(offset);
        let (mut txs, mut rxs) = topic_ends(&channel).unwrap();
        use_topic(&mut txs, &mut rxs, "nothing is wrong yet");
        let right = word.load(Ordering::Relaxed);
        for wrong in corruptions(right) {
            let what = format!("word {offset} = {wrong:#x}");
            word.store(wrong, Ordering::Relaxed);
            use_topic(&mut txs, &mut rxs, &what);
        }
        drop((txs, rxs));
        for wrong in corruptions(right) {
            let what = format!("word {offset} = {wrong:#x} before anybody came");
            word.store(wrong, Ordering::Relaxed);
            match topic_ends(&channel) {
                Ok((mut txs, mut rxs)) => use_topic(&mut txs, &mut rxs, &what),
                failed => is_typed(failed.map(drop), &what),
            }
        }
        for offset in (512..geometry.control_len()).step_by(8) {
            memory.control(offset).store(0, Ordering::Relaxed);
        }
    }
    memory.assert_fences_stand();
}

/// Publishers go on, and are never full, whatever the pins and the gating set say; and each word that is right again
/// brings the messages back.
#[test]
fn wrong_pins_stop_no_publisher() {
    let builder = topic_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut txs, mut rxs) = topic_ends(&channel).unwrap();
    let mut number = 0;
    for offset in [768].into_iter().chain(topic_pins(&channel.geometry())) {
        let word = memory.control(offset);
        let right = word.load(Ordering::Relaxed);
        for wrong in corruptions(right) {
            word.store(wrong, Ordering::Relaxed);
            // More than a pool has slots.
            for tx in &mut txs {
                for _ in 0..100 {
                    tx.try_push(number).unwrap();
                    number += 1;
                }
            }
            word.store(right, Ordering::Relaxed);
            for rx in &mut rxs {
                assert_eq!(*rx.latest().unwrap(), number - 1);
                rx.seek(topic::Seek::Oldest).unwrap();
                let rest = (0..4).map(|_| rx.try_pop().unwrap());
                assert_eq!(rest.collect::<Vec<_>>(), Vec::from_iter(number - 4..number));
            }
        }
    }
}

/// A publisher whose words are impossible learns that by each verb, and goes on as soon as they are right again.
#[test]
fn wrong_entries_end_each_push() {
    let builder = topic_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut txs, mut rxs) = topic_ends(&channel).unwrap();
    let (tx, entries) = (&mut txs[0], channel.geometry().claims_offset());
    let words = [HEAD, entries, entries + 8, entries + 16, entries + 24];
    for number in 0..20 {
        tx.try_push(number).unwrap();
        let before = words.map(|word| memory.control(word).load(Ordering::Relaxed));
        // All entries are of a lap far ahead.
        for word in &words[1..] {
            memory.control(*word).fetch_or(1 << 60, Ordering::Relaxed);
        }
        assert!(matches!(
            tx.try_push(99),
            Err(PushError::Failed(99, Error::Corrupt(_)))
        ));
        assert!(matches!(
            tx.push_timeout(99, Duration::from_millis(1)),
            Err(PushError::Failed(99, Error::Corrupt(_)))
        ));
        for (word, right) in words.iter().zip(before) {
            memory.control(*word).store(right, Ordering::Relaxed);
        }
        assert_eq!(*rxs[0].latest().unwrap(), number);
    }
}

/// A wrong head or entry is a typed error, and publishers and subscribers go on as soon as it is right again.
#[test]
fn wrong_heads_and_entries_leave_no_trace() {
    let builder = topic_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut txs, mut rxs) = topic_ends(&channel).unwrap();
    let entries = channel.geometry().claims_offset();
    let words = [HEAD, entries, entries + 8, entries + 16, entries + 24];
    let mut number = 0;
    for offset in words {
        for wrong in corruptions(0) {
            for tx in &mut txs {
                tx.try_push(number).unwrap();
                number += 1;
            }
            let before = words.map(|word| memory.control(word).load(Ordering::Relaxed));
            let wrong = wrong ^ memory.control(offset).load(Ordering::Relaxed);
            memory.control(offset).store(wrong, Ordering::Relaxed);
            let what = format!("word {offset} = {wrong:#x}");
            for rx in &mut rxs {
                is_typed(rx.latest().map(|sample| *sample), &what);
                is_typed(rx.nth_latest(3).map(|sample| *sample), &what);
                is_typed(rx.seek(topic::Seek::Oldest), &what);
                is_typed(rx.try_pop(), &what);
            }
            for (word, right) in words.iter().zip(before) {
                memory.control(*word).store(right, Ordering::Relaxed);
            }
            for rx in &mut rxs {
                rx.seek(topic::Seek::Newest).unwrap();
                assert_eq!(*rx.latest().unwrap(), number - 1, "{what}");
            }
        }
    }
}

/// A header that says another number or a length that cannot be is an error that names it. The next message is whole, and
/// the publisher goes on with that slot.
#[test]
fn wrong_sample_headers_break_one_message() {
    let builder = topic_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut txs, mut rxs) = topic_ends(&channel).unwrap();
    let (tx, rx) = (&mut txs[0], &mut rxs[0]);
    let (geometry, mut number) = (channel.geometry(), 0);
    let entries = geometry.claims_offset();
    for (name, word) in [("sequence", 0), ("length", 8)] {
        for bit in 0..64 {
            for _ in 0..4 {
                tx.try_push(number).unwrap();
                number += 1;
            }
            let broken = number - 3;
            let entry = memory.control(entries + 8 * (broken % 4) as usize);
            let slot = (entry.load(Ordering::Relaxed) & 0xffff) - 1;
            let header = slot as usize * 128 + word;
            memory.change_data(header, |word| word ^ 1 << bit);
            rx.seek(topic::Seek::Oldest).unwrap();
            assert_eq!(rx.try_pop(), Ok(number - 4));
            let found = corrupt(rx.try_read());
            assert_eq!(found.word, name, "bit {bit}");
            assert_eq!(corrupt(rx.nth_latest(2)).word, name, "bit {bit}");
            assert_eq!(corrupt(rx.nth_latest_owned(2)).word, name, "bit {bit}");
            assert_eq!(rx.try_pop(), Ok(number - 2));
            assert_eq!(*rx.latest().unwrap(), number - 1);
        }
    }
    // Nobody has a pin: each slot of the pool comes again.
    for _ in 0..1000 {
        tx.try_push(number).unwrap();
        number += 1;
    }
    let ring = (0..4).map(|back| *rx.nth_latest(back).unwrap());
    assert_eq!(ring.sum::<u64>(), 4 * number - 10);
    memory.assert_fences_stand();
}

#[test]
fn short_or_empty_memory_is_refused() {
    let builder = spsc_builder();
    let (control, data) = (builder.control_len(), builder.data_len() as usize);
    for (control, data) in [
        (0, data),
        (512, data),
        (4096, data),
        (control - 8, data),
        (control, 0),
        (control, data - 1),
    ] {
        let memory = Memory::new(control, data);
        for outcome in [memory.format(&builder), memory.attach(&builder)] {
            match outcome.map(drop) {
                Err(SetupError::Truncated {
                    found, expected, ..
                }) => assert!(found < expected),
                Err(SetupError::NotAChannel { found: Some(0), .. }) => assert!(control >= PAGE),
                other => panic!("{control} {data}: {other:?}"),
            }
        }
    }
}

/// Changes every word of the wait cells, of the gating set, of all seat lines and all role pages
/// (some past their end). It does so with live handles, and again with handles that come later.
fn words_under_handles<H>(
    memory: &Memory,
    geometry: &Geometry,
    take: impl Fn() -> Result<H, SetupError>,
    use_them: impl Fn(&mut H, &str),
) {
    let lines = (512..1024 + geometry.seats() * 128).step_by(8);
    let pages = (0..geometry.seats()).flat_map(|seat| {
        (0..272)
            .step_by(8)
            .map(move |at| geometry.role_offset(seat) + at)
    });
    for offset in lines.chain(pages) {
        let word = memory.control(offset);
        let mut handles = take().expect("every word was put right again");
        use_them(&mut handles, "nothing is wrong yet");
        let right = word.load(Ordering::Relaxed);
        for wrong in corruptions(right) {
            let what = format!("word {offset} = {wrong:#x}");
            word.store(wrong, Ordering::Relaxed);
            use_them(&mut handles, &what);
        }
        drop(handles);
        // The owner words keep a role taken. All other words must be survived, or refused by name.
        for wrong in corruptions(right) {
            let what = format!("word {offset} = {wrong:#x} before anybody came");
            word.store(wrong, Ordering::Relaxed);
            match take() {
                Ok(mut handles) => use_them(&mut handles, &what),
                failed => is_typed(failed.map(drop), &what),
            }
        }
        for offset in (512..geometry.control_len()).step_by(8) {
            memory.control(offset).store(0, Ordering::Relaxed);
        }
    }
    memory.assert_fences_stand();
}

/// Every wrong value of every word under live `spsc` handles is survived.
#[test]
fn spsc_handles_survive_wrong_words() {
    let builder = spsc_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    words_under_handles(
        &memory,
        &channel.geometry(),
        || Ok((channel.producer()?, channel.consumer()?)),
        |(tx, rx), what| use_slots(tx, rx, what),
    );
}

/// Every wrong value of every word under live `bytes` handles is survived.
#[test]
fn bytes_handles_survive_wrong_words() {
    let builder = bytes_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    words_under_handles(
        &memory,
        &channel.geometry(),
        || Ok((channel.producer()?, channel.consumer()?)),
        |(tx, rx), what| use_bytes(tx, rx, what),
    );
}

fn words_under_readers<K: Kind>(
    builder: &Builder<K>,
    use_them: impl Fn(&mut Producer<K>, &mut [Consumer<K>], &str),
) {
    let memory = Memory::of(builder);
    let channel = memory.format(builder).unwrap();
    words_under_handles(
        &memory,
        &channel.geometry(),
        || {
            Ok((
                channel.producer()?,
                [channel.consumer()?, channel.consumer()?],
            ))
        },
        |(tx, readers), what| use_them(tx, readers, what),
    );
}

/// Every wrong value of every word under live `broadcast` handles is survived.
#[test]
fn broadcast_handles_survive_wrong_words() {
    words_under_readers(&broadcast_builder(), use_broadcast);
    words_under_readers(&broadcast_builder().overwriting(), use_broadcast);
}

fn records_builder() -> broadcast::records::Builder {
    broadcast::records::Builder::new(256)
        .max_record(64)
        .consumers(2)
        .join(broadcast::Seek::Oldest)
}

/// Every wrong value of every word under live handles of `broadcast` records is survived.
#[test]
fn broadcast_records_survive_wrong_words() {
    words_under_readers(&records_builder(), use_broadcast_records);
}

/// No record begins where a consumer's position or the write limit says so, if it is no multiple of
/// 8. A wrong length word stops a consumer that goes over it, and nobody else.
#[test]
fn impossible_boundaries_are_corrupt() {
    let builder = records_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let geometry = channel.geometry();
    let page = geometry.role_offset(0);
    let (write_limit, position) = (
        memory.control(page + GATE),
        memory.control(geometry.role_offset(1)),
    );
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    while tx.try_push(b"three words, or 24 bytes").is_ok() {}
    position.store(4, Ordering::Relaxed);
    for _ in 0..3 {
        let found = corrupt(tx.try_push(b"more"));
        assert_eq!((found.word, found.found), ("position", 4));
    }
    position.store(0, Ordering::Relaxed);
    assert_eq!(tx.try_push(b"more"), Err(Error::Full));

    let limit = write_limit.load(Ordering::Relaxed);
    write_limit.store(limit + 4, Ordering::Relaxed);
    for found in [
        corrupt(rx.seek(broadcast::Seek::Oldest)),
        corrupt(channel.consumer()),
    ] {
        assert_eq!((found.word, found.found), ("write_limit", limit + 4));
    }
    write_limit.store(limit, Ordering::Relaxed);

    for wrong in [0, 1 << 60 | 1, 24 << 8 | 3] {
        memory.set_data(32, wrong);
        let found = corrupt(rx.seek(broadcast::Seek::To(72)));
        assert_eq!((found.word, found.found), ("record length", wrong));
        assert_eq!(rx.seek(broadcast::Seek::Oldest), Ok(0));
        assert_eq!(rx.try_read().map(|record| record.len()), Ok(24));
        assert_eq!(corrupt(rx.try_read()).found, wrong);
        rx.seek(broadcast::Seek::Oldest).unwrap();
    }
    // Without consumers, a producer that would have to go over it gives up all.
    drop(rx);
    assert_eq!(tx.try_push(&[7; 40]), Ok(()));
    let mut rx = channel.consumer().unwrap();
    assert_eq!(&rx.try_read().unwrap()[..], [7; 40]);
}

/// Returns the word that makes this call fail.
#[track_caller]
fn corrupt<T>(outcome: Result<T, impl Into<SetupError>>) -> Corrupt {
    match outcome.map(drop).map_err(Into::into) {
        Err(SetupError::Corrupt(corrupt)) => corrupt,
        other => panic!("{other:?}"),
    }
}

/// The consumer does not take slots before an impossible tail for messages. It does not remember
/// them once the tail is right again, where the tail may also be any distance ahead of a consumer.
#[test]
fn an_impossible_tail_is_refused() {
    impossible_tails_are_refused(&broadcast_builder());
    impossible_tails_are_refused(&broadcast_builder().overwriting());
}

fn impossible_tails_are_refused<M: Calls>(builder: &broadcast::Builder<u64, M>) {
    for wrong in [9, 1 << 32, u64::MAX - (1 << 48), u64::MAX] {
        let memory = Memory::of(builder);
        let channel = memory.format(builder).unwrap();
        let tail = memory.control(channel.geometry().role_offset(0));
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        tx.push(0).unwrap();
        assert_eq!(rx.try_pop().unwrap(), 0);
        for part in [1, 1 << 32] {
            rx.stride(0, part).unwrap();
            tail.store(wrong, Ordering::Relaxed);
            for corrupt in [
                corrupt(rx.try_pop()),
                corrupt(rx.try_pop_slice(&mut [0; 99])),
                corrupt(rx.len()),
                corrupt(rx.seek(broadcast::Seek::Newest)),
                corrupt(rx.seek(broadcast::Seek::To(wrong))),
                corrupt(channel.consumer()),
            ] {
                assert_eq!((corrupt.word, corrupt.found), ("tail", wrong));
            }
            tail.store(tx.position(), Ordering::Relaxed);
            assert!(matches!(rx.try_pop(), Err(Error::Empty)));
        }
        rx.stride(0, 1).unwrap();
        rx.seek(broadcast::Seek::Newest).unwrap();
        // Nor may it read a reservation's writes there.
        let mut slots = tx.try_reserve(1).unwrap();
        slots.write(0, 0xdead);
        assert!(matches!(rx.try_pop(), Err(Error::Empty)));
        drop(slots);
        tx.push(1).unwrap();
        assert_eq!(rx.try_pop().unwrap(), 1);
    }
}

/// An impossible gate is refused until the next seek. A consumer that an impossible write limit
/// misled finds no message, and no position wraps, until it seeks anew.
#[test]
fn an_impossible_gate_needs_a_seek() {
    let builder = broadcast_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let page = channel.geometry().role_offset(0);
    let (tail, write_limit) = (memory.control(page), memory.control(page + GATE));
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.push(0).unwrap();
    let right = [tail, write_limit].map(|word| word.load(Ordering::Relaxed));
    write_limit.store(u64::MAX, Ordering::Relaxed);
    let refused = |taken: Result<(), Error>, named| match taken {
        Err(Error::Corrupt(corrupt)) => assert_eq!(corrupt.word, named),
        other => panic!("{other:?}"),
    };
    refused(rx.seek(broadcast::Seek::Oldest).map(drop), "write_limit");
    rx.stride(3, 8).unwrap();
    for wrong in [u64::MAX, u64::MAX - 3, 1 << 40] {
        tail.store(wrong, Ordering::Relaxed);
        refused(rx.try_pop().map(drop), "tail");
    }
    for (word, right) in [tail, write_limit].into_iter().zip(right) {
        word.store(right, Ordering::Relaxed);
    }
    refused(rx.try_pop().map(drop), "tail");
    refused(rx.len().map(drop), "tail");
    rx.stride(0, 1).unwrap();
    refused(rx.try_pop().map(drop), "tail");
    rx.seek(broadcast::Seek::Oldest).unwrap();
    assert_eq!(rx.try_pop().unwrap(), 0);
    tx.push(1).unwrap();
    assert_eq!(rx.try_pop().unwrap(), 1);
}

/// The end of a generation that has not been yet is not believed. An end that no taker can have
/// noted is `Corrupt`, reports no end, and spoils nothing. Once it is right again, so is the
/// consumer.
#[test]
fn an_impossible_end_is_not_believed() {
    let builder = spsc_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let last_end = memory.seat(0, 16);
    for generation in [1, 2, 1000] {
        last_end.store(generation << 8 | 2, Ordering::Relaxed);
        match rx.try_pop() {
            Err(Error::Corrupt(corrupt)) => assert_eq!(corrupt.word, "last_end"),
            other => panic!("generation {generation}: {other:?}"),
        }
    }
    last_end.store(0, Ordering::Relaxed);
    assert!(matches!(rx.try_pop(), Err(Error::Empty)));
    assert!(tx.try_push(7).is_ok());
    assert!(rx.try_pop().is_ok());
}

/// Sets the length word of a committed record to anything: the result is `Corrupt`, or a record
/// within the committed bytes. The ring goes on once the word is right again.
#[test]
fn wrong_lengths_stay_within_the_commit() {
    let builder = bytes_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let right = 11 << 8 | 1;
    for start in (640..704).step_by(8) {
        for wrong in corruptions(right) {
            memory.start_at(&channel.geometry(), start);
            let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
            tx.try_push(b"eleven byte").unwrap();
            tx.try_push(b"next").unwrap();
            memory.set_data(start as usize % 64, wrong);
            match rx.try_read() {
                Ok(record) => {
                    assert_eq!((wrong & 0xff, wrong >> 8), (1, record.len() as u64));
                    assert!(record.len() <= 24, "{wrong:#x}");
                    record.keep();
                }
                Err(Error::Corrupt(corrupt)) => {
                    assert_eq!((corrupt.word, corrupt.found), ("record length", wrong));
                }
                other => panic!("{wrong:#x}: {:?}", other.map(|record| record.len())),
            }
            if let Ok(mut records) = rx.try_read_batch(2) {
                while let Ok(Some(record)) = records.next() {
                    assert!(record.len() <= 24, "{wrong:#x}");
                }
            }
            if rx.position() == start {
                memory.set_data(start as usize % 64, right);
                assert_eq!(&rx.try_read().unwrap()[..], b"eleven byte", "{wrong:#x}");
                assert_eq!(&rx.try_read().unwrap()[..], b"next", "{wrong:#x}");
            }
        }
    }
    memory.assert_fences_stand();
}

/// Where a position is impossible, the error names the word and the value found.
#[test]
fn impossible_positions_are_corrupt_and_named() {
    let builder = spsc_builder();
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let geometry = channel.geometry();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let named = |outcome: Result<(), Error>, word, found| match outcome {
        Err(Error::Corrupt(corrupt)) => assert_eq!((corrupt.word, corrupt.found), (word, found)),
        other => panic!("{word} {found:#x}: {other:?}"),
    };
    tx.try_push(0).unwrap();
    assert_eq!(rx.try_pop().unwrap(), 0);
    for found in [u64::MAX, u64::MAX - 1] {
        // It would be less than the capacity behind the tail, if positions wrapped.
        memory
            .position(&geometry, 1)
            .store(found, Ordering::Relaxed);
        named(tx.len().map(drop), "head", found);
        named(tx.try_reserve(4).map(drop), "head", found);
    }
    memory.position(&geometry, 1).store(1, Ordering::Relaxed);
    for value in 1..6 {
        tx.try_push(value).unwrap();
        assert_eq!(rx.try_pop().unwrap(), value);
    }
    // The position is ahead of the tail, or more than the capacity behind it, also where that is
    // below zero.
    for found in [7, 1, u64::MAX, u64::MAX - 3, 1 << 63] {
        memory
            .position(&geometry, 1)
            .store(found, Ordering::Relaxed);
        named(tx.len().map(drop), "head", found);
        named(tx.try_reserve(4).map(drop), "head", found);
    }
    memory.position(&geometry, 1).store(6, Ordering::Relaxed);
    for found in [5, 11, 0, u64::MAX, 1 << 63] {
        memory
            .position(&geometry, 0)
            .store(found, Ordering::Relaxed);
        named(rx.len().map(drop), "tail", found);
        named(rx.try_pop().map(drop), "tail", found);
    }
}

#[derive(Clone, Debug)]
enum Poke {
    Control(usize, u64),
    Data(usize, u64),
    Use,
    Rejoin,
}

fn pokes() -> impl Strategy<Value = Vec<Poke>> {
    let value = prop_oneof![
        any::<u64>(),
        0..200u64,
        (0..64u32, 0..20u64).prop_map(|(bit, by)| (1 << bit) - by.min(1 << bit)),
        any::<u8>().prop_map(|n| u64::MAX - u64::from(n))
    ];
    let poke = prop_oneof![
        3 => (128..1024usize + 2 * 16, value.clone()).prop_map(|(n, v)| Poke::Control(n, v)),
        3 => ((0..2usize), value.clone()).prop_map(|(seat, v)| Poke::Control(seat + 2000, v)),
        3 => (0..8usize, value).prop_map(|(n, v)| Poke::Data(n, v)),
        4 => Just(Poke::Use),
        1 => Just(Poke::Rejoin),
    ];
    prop::collection::vec(poke, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any words, written at any time into the memory under live handles, are survived.
    #[test]
    fn handles_survive_any_words_anytime(pokes in pokes()) {
        let (spsc_builder, bytes_builder) = (spsc_builder(), bytes_builder());
        let (spsc_memory, bytes_memory) = (Memory::of(&spsc_builder), Memory::of(&bytes_builder));
        let ring = spsc_memory.format(&spsc_builder).unwrap();
        let records = bytes_memory.format(&bytes_builder).unwrap();
        let mut first = (ring.producer().ok(), ring.consumer().ok());
        let mut second = (records.producer().ok(), records.consumer().ok());
        for poke in pokes {
            match poke {
                Poke::Control(seat @ 2000.., value) => {
                    spsc_memory.position(&ring.geometry(), seat - 2000).store(value, Ordering::Relaxed);
                    bytes_memory.position(&records.geometry(), seat - 2000).store(value, Ordering::Relaxed);
                }
                Poke::Control(word, value) => {
                    for memory in [&spsc_memory, &bytes_memory] {
                        memory.control(word * 8).store(value, Ordering::Relaxed);
                    }
                }
                Poke::Data(word, value) => {
                    spsc_memory.set_data(word % 4 * 8, value);
                    bytes_memory.set_data(word * 8, value);
                }
                Poke::Use => {
                    if let (Some(tx), Some(rx)) = (&mut first.0, &mut first.1) {
                        use_slots(tx, rx, "spsc");
                    }
                    if let (Some(tx), Some(rx)) = (&mut second.0, &mut second.1) {
                        use_bytes(tx, rx, "bytes");
                    }
                }
                Poke::Rejoin => {
                    drop((first, second));
                    for memory in [&spsc_memory, &bytes_memory] {
                        memory.seat(0, 8).store(0, Ordering::Relaxed);
                        memory.seat(1, 8).store(0, Ordering::Relaxed);
                    }
                    first = (ring.producer().ok(), ring.consumer().ok());
                    second = (records.producer().ok(), records.consumer().ok());
                }
            }
        }
        drop((first, second));
        spsc_memory.assert_fences_stand();
        bytes_memory.assert_fences_stand();
    }
}

//! Makes every call on both ends; only typed errors may come, whatever the words hold.

use std::time::{Duration, Instant};

use slipring::broadcast::{self, Mode, Overwriting, Seek, Waiting};
use slipring::topic::{Publisher, Subscriber, records};
use slipring::{
    Consumer, Error, InPlaceKind, OfRecords, PackedKind, Producer, SetupError, TopicKind,
};

/// Long enough for a few looks at the peer, and no longer.
const SOON: Duration = Duration::from_micros(1);

/// However slow the machine, all calls of a round have returned by then.
const LATE: Duration = Duration::from_secs(20);

/// Fails unless the result is an error that garbage in a seat line or a position may cause.
/// `TimedOut` and `RoleTaken` are believable: a word may well say that a peer is there, or that
/// much was overwritten.
pub(crate) fn is_typed<T>(outcome: Result<T, impl Into<SetupError>>, what: &str) {
    match outcome.map_err(Into::into) {
        Ok(_) => {}
        Err(SetupError::RoleTaken { .. } | SetupError::Corrupt(_)) => {}
        Err(SetupError::Message(
            Error::Full
            | Error::Empty
            | Error::TimedOut
            | Error::Disconnected(_)
            | Error::TooLarge { .. }
            | Error::Lagged(_)
            | Error::Ahead { .. }
            | Error::TooManyHeld { .. },
        )) => {}
        Err(other) => panic!("{what}: {other:?}"),
    }
}

/// Makes every call of a producer and a consumer of `u64`, of which one takes each message.
pub(crate) fn use_slots<K: InPlaceKind<Value = u64>>(
    tx: &mut Producer<K>,
    rx: &mut Consumer<K>,
    what: &str,
) {
    for _ in 0..3 {
        is_typed(tx.len(), what);
        is_typed(tx.try_push(1), what);
        is_typed(tx.try_push_slice(&[1, 2, 3]), what);
        is_typed(tx.try_push_iter([1, 2]), what);
        is_typed(tx.try_reserve(2).map(|slots| slots.commit(1)), what);
        is_typed(tx.push_timeout(1, SOON), what);
        is_typed(tx.is_disconnected(), what);
        is_typed(rx.len(), what);
        is_typed(rx.try_pop(), what);
        is_typed(rx.try_pop_slice(&mut [0; 3]), what);
        is_typed(rx.try_read().map(|message| *message), what);
        is_typed(
            rx.try_read_batch(2).map(|messages| messages.release(1)),
            what,
        );
        is_typed(rx.pop_timeout(SOON), what);
        is_typed(rx.is_disconnected(), what);
        is_typed(rx.wait_for_producer(SOON), what);
        is_typed(tx.wait_for_consumer(SOON), what);
    }
}

/// The same for records that lie one behind another.
pub(crate) fn use_bytes<R>(
    tx: &mut Producer<OfRecords<R>>,
    rx: &mut Consumer<OfRecords<R>>,
    what: &str,
) where
    OfRecords<R>: PackedKind,
{
    let most = rx.max_record();
    for _ in 0..3 {
        is_typed(tx.len(), what);
        is_typed(tx.try_push(b"payload"), what);
        is_typed(
            tx.try_push_iter(&mut [&b"a"[..], b"bc"].into_iter().peekable()),
            what,
        );
        is_typed(tx.try_reserve(20).map(|record| record.commit(9)), what);
        is_typed(tx.push_timeout(b"", SOON), what);
        is_typed(tx.is_disconnected(), what);
        is_typed(rx.len(), what);
        is_typed(rx.try_pop(&mut [0; 8]), what);
        is_typed(rx.try_read().map(|record| record.len()), what);
        is_typed(
            rx.try_read_batch(3).and_then(|mut records| {
                while let Some(record) = records.next()? {
                    assert!(record.len() <= most, "{what}");
                }
                Ok(())
            }),
            what,
        );
        is_typed(rx.read_timeout(SOON).map(|record| record.len()), what);
        is_typed(rx.is_disconnected(), what);
        is_typed(rx.wait_for_producer(SOON), what);
        is_typed(tx.wait_for_consumer(SOON), what);
    }
}

/// The same for records that each consumer sees.
pub(crate) fn use_broadcast_records(
    tx: &mut broadcast::records::Producer,
    readers: &mut [broadcast::records::Consumer],
    what: &str,
) {
    let begun = Instant::now();
    for rx in readers {
        use_bytes(tx, rx, what);
        for to in [Seek::To(rx.position() / 2), Seek::Oldest, Seek::Newest] {
            is_typed(rx.seek(to), what);
            is_typed(rx.try_read().map(|record| record.len()), what);
        }
    }
    assert!(begun.elapsed() < LATE, "{what}: late");
}

/// A mode of `broadcast`, with the calls that only one of the two has.
pub(crate) trait Calls: Mode + Sized {
    fn read_in_place(rx: &mut broadcast::Consumer<u64, Self>, what: &str);
}

impl Calls for Waiting {
    fn read_in_place(rx: &mut broadcast::Consumer<u64>, what: &str) {
        is_typed(rx.try_read().map(|message| *message), what);
        is_typed(
            rx.try_read_batch(2).map(|messages| messages.iter().count()),
            what,
        );
    }
}

impl Calls for Overwriting {
    fn read_in_place(_: &mut broadcast::Consumer<u64, Self>, _: &str) {}
}

/// The same for a producer and its consumers; the second one keeps to every third message.
pub(crate) fn use_broadcast<M: Calls>(
    tx: &mut broadcast::Producer<u64, M>,
    readers: &mut [broadcast::Consumer<u64, M>],
    what: &str,
) {
    let begun = Instant::now();
    for _ in 0..2 {
        is_typed(tx.try_push(1), what);
        is_typed(tx.try_push_slice(&[1, 2, 3]), what);
        is_typed(tx.try_push_iter([1, 2]), what);
        is_typed(tx.try_reserve(2).map(|slots| slots.commit(1)), what);
        is_typed(tx.push_timeout(1, SOON), what);
        is_typed(tx.is_disconnected(), what);
        is_typed(tx.wait_for_consumer(SOON), what);
        for (place, rx) in readers.iter_mut().enumerate() {
            is_typed(rx.stride(0, 1 + 2 * place as u64), what);
            is_typed(rx.len(), what);
            is_typed(rx.try_pop(), what);
            is_typed(rx.try_pop_slice(&mut [0; 3]), what);
            M::read_in_place(rx, what);
            is_typed(rx.pop_timeout(SOON), what);
            is_typed(rx.is_disconnected(), what);
            is_typed(rx.wait_for_producer(SOON), what);
            for to in [Seek::To(rx.position() / 2), Seek::Oldest, Seek::Newest] {
                is_typed(rx.seek(to), what);
                is_typed(rx.try_pop(), what);
            }
        }
    }
    assert!(begun.elapsed() < LATE, "{what}: late");
}

/// The same for two publishers and two subscribers of a topic.
pub(crate) fn use_topic(txs: &mut [Publisher<u64>], rxs: &mut [Subscriber<u64>], what: &str) {
    let begun = Instant::now();
    for tx in txs {
        is_typed(tx.try_push(1), what);
        is_typed(tx.try_push_slice(&[1, 2, 3]), what);
        is_typed(tx.try_reserve(2).map(|slots| slots.commit(1)), what);
        is_typed(tx.push_timeout(1, SOON), what);
        use_publisher(tx, what);
    }
    for rx in rxs {
        is_typed(rx.try_pop(), what);
        is_typed(rx.try_pop_slice(&mut [0; 3]), what);
        is_typed(rx.try_read().map(|message| *message), what);
        is_typed(rx.pop_timeout(SOON), what);
        use_subscriber(rx, |number| *number, what);
        is_typed(rx.try_pop(), what);
    }
    assert!(begun.elapsed() < LATE, "{what}: late");
}

/// The same for a topic of records.
pub(crate) fn use_topic_records(
    txs: &mut [records::Publisher],
    rxs: &mut [records::Subscriber],
    what: &str,
) {
    let begun = Instant::now();
    for tx in txs {
        is_typed(tx.try_push(b"payload"), what);
        is_typed(tx.try_push(&[7; 300]), what);
        is_typed(tx.try_reserve(20).map(|record| record.commit(9)), what);
        is_typed(tx.push_timeout(b"", SOON), what);
        use_publisher(tx, what);
    }
    for rx in rxs {
        let most = rx.max_record();
        is_typed(rx.try_pop(&mut [0; 8]), what);
        is_typed(rx.try_read().map(|record| sum(&record)), what);
        is_typed(rx.read_timeout(SOON).map(|record| sum(&record)), what);
        let looked = |record: &[u8]| {
            assert!(record.len() <= most, "{what}");
            sum(record)
        };
        use_subscriber(rx, looked, what);
        is_typed(rx.try_read().map(|record| sum(&record)), what);
    }
    assert!(begun.elapsed() < LATE, "{what}: late");
}

/// Reads every byte.
pub(crate) fn sum(record: &[u8]) -> u64 {
    record.iter().map(|byte| u64::from(*byte)).sum()
}

/// Makes the calls that publishers of all topics have.
fn use_publisher<K: TopicKind>(tx: &mut Producer<K>, what: &str) {
    is_typed(tx.len(), what);
    is_typed(tx.is_disconnected(), what);
    is_typed(tx.wait_for_consumer(SOON), what);
    tx.trim(8);
}

/// Makes the calls that subscribers of all topics have, and looks at each message that they return.
fn use_subscriber<K: TopicKind>(
    rx: &mut Consumer<K>,
    look: impl Fn(&K::Content) -> u64,
    what: &str,
) {
    is_typed(rx.len(), what);
    let newest = rx.latest();
    is_typed(newest.map(|sample| (look(&sample), sample.origin())), what);
    is_typed(rx.nth_latest(3).map(|sample| look(&sample)), what);
    let held = [
        rx.try_read_owned(),
        rx.latest_owned(),
        rx.nth_latest_owned(1),
    ];
    for held in held {
        is_typed(held.map(|sample| (look(&sample), sample.origin())), what);
    }
    is_typed(rx.is_disconnected(), what);
    is_typed(rx.wait_for_producer(SOON), what);
    for to in [Seek::To(rx.position() / 2), Seek::Oldest, Seek::Newest] {
        is_typed(rx.seek(to), what);
        is_typed(rx.try_read_owned().map(|sample| look(&sample)), what);
    }
}

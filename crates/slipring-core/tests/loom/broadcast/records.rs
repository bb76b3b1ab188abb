//! Models records of varying size that each consumer sees: a consumer that joins, or goes back, begins
//! where a record begins, and the producer writes nothing that it reads.

use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;
use slipring_core::end::{Endpoint, Seek};
use slipring_core::guard::Reserve;
use slipring_core::layout::Side;
use slipring_core::mem::ByteRing;
use slipring_core::proto::broadcast_records::{Consumer, Producer, Ring};
use slipring_core::record::{HoldRecord, PushRecord};
use slipring_core::seat::Peer;
use slipring_core::sync::Ordering;
use slipring_core::wait::Notifier;
use slipring_core::{CachedLimit, Error};

use super::{Feed, Waiting, model_within};
use crate::{NOBODY, until};

/// The size of a ring for two records, or for one that fills it.
const RING: u64 = 16;

/// The largest record, with its length word.
const LARGEST: u64 = 16;

/// The records of a stream, one after another. Each second one takes twice the space, so records of
/// different laps begin at different places, and some run into the slack.
fn record(number: usize) -> &'static [u8] {
    [&b""[..], b"slacking", b"", b"a record"][number % 4]
}

/// Returns the position where that record begins.
fn position_of(number: usize) -> u64 {
    (0..number).map(|n| 8 + record(n).len() as u64).sum()
}

/// Returns the number of the record that begins at this position.
fn number_at(position: u64) -> usize {
    let number = (0..).find(|n| position_of(*n) >= position).unwrap();
    assert_eq!(position_of(number), position, "inside of a record");
    number
}

type Bytes = Feed<Waiting>;

impl Bytes {
    fn of_records() -> Arc<Self> {
        Bytes::of_ring(RING)
    }

    fn of_ring(ring: u64) -> Arc<Self> {
        let bytes = (ring + LARGEST) as usize;
        Arc::new(Feed::of(ring as usize, bytes.div_ceil(16), bytes / 8))
    }

    fn with_bytes<R>(&self, seat: usize, body: impl FnOnce(Ring<'_>) -> R) -> R {
        let consumers = [self.words_of(1), self.words_of(2)];
        let side = match seat {
            0 => Side::Many(&consumers),
            _ => Side::One(self.words_of(0)),
        };
        let (bell, counters) = (&self.bells[usize::from(seat == 0)], &self.counters[seat]);
        let base = NonNull::new(self.slots.as_ptr().cast_mut().cast()).unwrap();
        body(Ring {
            tail: &self.tail,
            write_limit: &self.write_limit,
            gating_set: &self.gating_set,
            consumers: Side::Many(&consumers),
            // SAFETY: there are ring and slack, all initialised, for as long as `self` is borrowed.
            records: unsafe { ByteRing::new(base, self.capacity, LARGEST, &self.shadow) },
            messages: &counters.messages,
            writable: true,
            notifier: Notifier::new(bell, side, counters, false, &NOBODY),
        })
    }

    fn produce_records<R>(&self, body: impl FnOnce(Producer<'_>) -> R) -> R {
        self.with_bytes(0, |ring| {
            let mut cached_limit = CachedLimit::new();
            // SAFETY: this is the only producer, of words that only the model touches.
            body(unsafe { Producer::new(ring, &mut cached_limit) }.unwrap())
        })
    }

    fn consume_records<R>(
        &self,
        seat: usize,
        seek: Seek,
        body: impl FnOnce(Consumer<'_>) -> R,
    ) -> R {
        let result = self.with_bytes(seat, |ring| {
            let mut cached_limit = CachedLimit::new();
            let peer = Peer::producer(&self.lines[0], &self.lines[seat]);
            let place = self.seat(seat);
            // SAFETY: this is the only consumer in this seat, of words that only the model touches.
            body(unsafe { Consumer::new(ring, place, peer, &mut cached_limit, seek) }.unwrap())
        });
        self.seat(seat).leave();
        result
    }

    /// Sends records before any thread runs; nobody reads them.
    fn written(self: Arc<Self>, records: usize) -> Arc<Self> {
        self.produce_records(|tx| push_all(tx, 0..records));
        self
    }

    fn record_reader(
        self: &Arc<Self>,
        seat: usize,
        seek: Seek,
        body: impl FnOnce(Consumer<'_>) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let feed = self.clone();
        thread::spawn(move || feed.consume_records(seat, seek, body))
    }
}

fn push_all(mut tx: Producer<'_>, numbers: std::ops::Range<usize>) {
    for number in numbers {
        until(|| tx.try_push(record(number))).unwrap();
    }
}

/// Reads all records from where the consumer stands up to number `end`.
fn read_to(rx: &mut Consumer<'_>, end: usize) {
    for number in number_at(rx.position())..end {
        until(|| rx.ensure(1)).unwrap();
        assert_eq!(&rx.try_read().unwrap()[..], record(number));
    }
}

#[test]
fn two_consumers_each_see_records() {
    model_within(1, || {
        let feed = Bytes::of_ring(2 * RING).joined(1).joined(2);
        let readers =
            [1, 2].map(|seat| feed.record_reader(seat, Seek::Oldest, |mut rx| read_to(&mut rx, 2)));
        feed.produce_records(|tx| push_all(tx, 0..2));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A consumer joins while the producer runs, and reads what was written from there on.
fn joins_while_the_producer_runs(sent: usize, records: usize, seek: Seek) {
    model_within(2, move || {
        let feed = Bytes::of_records().written(sent);
        let late = feed.record_reader(1, seek, move |mut rx| read_to(&mut rx, records));
        feed.produce_records(|tx| push_all(tx, sent..records));
        late.join().unwrap();
    });
}

/// The producer gives up whole records while nobody reads, also beside a consumer that joins.
#[test]
fn joins_at_oldest_find_a_boundary() {
    joins_while_the_producer_runs(1, 2, Seek::Oldest);
    joins_while_the_producer_runs(2, 3, Seek::Oldest);
}

/// The producer may be a ring further before a consumer that joins behind the newest record stands.
#[test]
fn joins_at_newest_find_a_boundary() {
    joins_while_the_producer_runs(1, 3, Seek::Newest);
}

/// A position inside of a record leads to the next record.
#[test]
fn joins_at_positions_find_a_boundary() {
    joins_while_the_producer_runs(1, 2, Seek::To(1));
}

/// The producer waits for a consumer that goes back, which it does record by record.
#[test]
fn backward_seeks_revoke_free_bytes() {
    model_within(2, || {
        let feed = Bytes::of_records().written(1);
        let reader = feed.record_reader(1, Seek::Newest, |mut rx| {
            rx.seek(Seek::To(0)).unwrap();
            read_to(&mut rx, 2);
        });
        feed.produce_records(|tx| push_all(tx, 1..2));
        reader.join().unwrap();
    });
}

/// A producer that discards a reservation, or dies with it, has given up what it wrote over. Its
/// successor goes on, and a consumer that joins begins behind.
#[test]
fn discarded_bytes_are_never_read() {
    model_within(2, || {
        let feed = Bytes::of_records().written(2);
        let late = feed.record_reader(1, Seek::Oldest, |mut rx| read_to(&mut rx, 3));
        feed.produce_records(|mut tx| {
            if let Ok(mut record) = tx.try_reserve(8) {
                record.copy_from_slice(b"garbage!");
            }
        });
        feed.produce_records(|tx| push_all(tx, 2..3));
        late.join().unwrap();
    });
}

/// A consumer that leaves has read what it held before the producer writes there.
#[test]
fn leaving_frees_only_read_records() {
    model_within(2, || {
        let feed = Bytes::of_records().written(1);
        let leaver = feed.record_reader(1, Seek::Oldest, |mut rx| {
            let number = number_at(rx.position());
            match rx.try_read() {
                // Kept, so that only the leave lets the producer write there.
                Ok(first) => {
                    assert_eq!(&first[..], record(number));
                    first.keep();
                }
                Err(error) => assert_eq!(error, Error::Empty),
            }
        });
        feed.produce_records(|tx| push_all(tx, 1..3));
        leaver.join().unwrap();
        assert_eq!(feed.gating_set.load(Ordering::Relaxed), 0);
    });
}

//! Models queues of byte strings.

use slipring_core::record::{HoldRecord, HoldRecords, PushRecord, PushRecords};

use super::*;

type Writer<'m> = Producer<'m, ByteCells<'m>>;
type Reader<'m> = Consumer<'m, ByteCells<'m>>;

impl Shop {
    fn writer<R>(&self, seat: usize, body: impl FnOnce(Writer<'_>) -> R) -> R {
        let (seats, mut limit) = (self.seats(), CachedLimit::new());
        let ring = self.ring(&seats, seat, self.byte_cells());
        // SAFETY: each model has one end at a time in a seat.
        body(unsafe { Producer::new(ring, &mut limit) })
    }

    fn reader<R>(&self, seat: usize, body: impl FnOnce(Reader<'_>) -> R) -> R {
        let (seats, mut limit) = (self.seats(), CachedLimit::new());
        let ring = self.ring(&seats, SEATS + seat, self.byte_cells());
        // SAFETY: each model has one end at a time in a seat.
        body(unsafe { Consumer::new(ring, &mut limit) })
    }
}

/// A record is read with the length and the bytes that its producer wrote, around the end of the ring.
#[test]
fn record_comes_with_its_length() {
    model_within(2, || {
        let shop = Shop::new(1, [1, 1]);
        let other = shop.clone();
        let writer = thread::spawn(move || {
            other.writer(0, |mut tx| {
                for record in [&b"1"[..], b"22", b"333"] {
                    until(|| tx.try_push(record)).unwrap();
                }
            });
        });
        shop.reader(0, |mut rx| {
            for wanted in [&b"1"[..], b"22", b"333"] {
                assert_eq!(
                    &*until(|| rx.try_read().map(|record| record.to_vec())).unwrap(),
                    wanted
                );
            }
        });
        writer.join().unwrap();
    });
}

/// A batch comes whole or in part, and what its reader does not return comes again.
#[test]
fn batch_of_records_comes_in_order() {
    model_within(2, || {
        let shop = Shop::new(2, [1, 1]);
        let other = shop.clone();
        let writer = thread::spawn(move || {
            other.writer(0, |mut tx| {
                let records = [&b"1"[..], b"22", b"333"];
                let mut left = records.iter().copied().peekable();
                while left.peek().is_some() {
                    until(|| tx.try_push_iter(&mut left)).unwrap();
                }
            });
        });
        let mut got = Vec::new();
        shop.reader(0, |mut rx| {
            while got.len() < 3 {
                let taken = until(|| {
                    let mut batch = rx.try_read_batch(2)?;
                    Ok(batch.next()?.map(<[u8]>::to_vec))
                });
                got.extend(taken.unwrap());
            }
        });
        got.sort_by_key(Vec::len);
        assert_eq!(got, [&b"1"[..], b"22", b"333"]);
        writer.join().unwrap();
    });
}

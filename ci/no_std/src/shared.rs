//! Records that every consumer sees, on bare ground: one producer, two consumers, and one that joins late.

use slipring_core::end::Seek;
use slipring_core::guard::Reserve;
use slipring_core::layout::{Control, Geometry, Kind, SeatWords, Side, WhenFull};
use slipring_core::mem::ByteRing;
use slipring_core::proto::broadcast_records::{Consumer, Producer, Ring, Seat};
use slipring_core::record::{HoldRecord, HoldRecords, PushRecord};
use slipring_core::seat::Peer;
use slipring_core::wait::Notifier;
use slipring_core::{CachedLimit, End, Error};

use crate::{Bare, DATA, Ground, Wrong, check, fresh, make};

/// Its control part: a page for the header and the seats, and one for each of three seats.
const CONTROL: usize = 4 * 4096;

/// The ring's size, and that of the largest record with its length word.
const RING: u64 = 1024;
const LARGEST: u64 = 256;

static RECORDS: (Ground<CONTROL>, Ground<DATA>) = fresh();

/// The words of the channel: seat 0 writes, seats 1 and 2 read.
struct Feed<'m> {
    geometry: Geometry,
    control: Control<'static>,
    readers: &'m [SeatWords<'static>; 2],
}

impl<'m> Feed<'m> {
    /// Returns what the end in seat `number` uses.
    fn ring(&self, number: usize) -> Ring<'m> {
        let producer = self.control.role(&self.geometry, 0);
        let mine = &self.control.role(&self.geometry, number).counters;
        let waiters = match number {
            0 => Side::Many(self.readers),
            _ => Side::One(self.control.seat_words(&self.geometry, 0)),
        };
        let wait_cell = self.control.wait_cell(number == 0);
        Ring {
            tail: &producer.position,
            write_limit: &producer.write_limit.0,
            gating_set: self.control.gating_set(),
            consumers: Side::Many(self.readers),
            // SAFETY: the data part has ring and slack, and is a static.
            records: unsafe { ByteRing::new(RECORDS.1.base(), RING, LARGEST) },
            messages: &mine.messages,
            writable: true,
            notifier: Notifier::new(wait_cell, waiters, mine, true, &Bare),
        }
    }

    /// Returns the place of the consumer in seat `number`.
    fn seat(&self, number: usize) -> Seat<'static> {
        Seat {
            position: &self.control.role(&self.geometry, number).position,
            write_limit: &self.control.role(&self.geometry, 0).write_limit.0,
            gating_set: self.control.gating_set(),
            bit: 1 << (number - 1),
            capacity: RING,
        }
    }

    /// # Safety
    /// There is no other consumer in that seat.
    unsafe fn consumer(
        &self,
        number: usize,
        limit: &'m mut CachedLimit,
        seek: Seek,
    ) -> Result<Consumer<'m>, Wrong> {
        let peer = Peer::producer(self.control.seat(0), self.control.seat(number));
        // SAFETY: the caller's promise; all ends have these words.
        Ok(unsafe { Consumer::new(self.ring(number), self.seat(number), peer, limit, seek) }?)
    }
}

/// The byte that record `number` is made of.
fn byte(number: usize) -> u8 {
    number as u8
}

/// The length of record `number`.
fn len(number: usize) -> usize {
    number * 13 % 249
}

/// Reads the next record, which must be this one.
fn expect(step: u8, rx: &mut Consumer<'_>, number: usize) -> Result<(), Wrong> {
    let record = rx.try_read()?;
    let right = record.iter().all(|found| *found == byte(number));
    check(step, record.len() == len(number) && right)
}

/// Both consumers see all, one record at a time or in batches; then one of them is waited for, until it is dead.
pub(crate) fn records() -> Result<(), Wrong> {
    let geometry = Geometry {
        kind: Kind::BroadcastRecords,
        capacity: RING,
        slot_size: LARGEST,
        slot_align: 8,
        when_full: WhenFull::Wait,
        producers: 1,
        consumers: 2,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    };
    let control = make(&RECORDS, &geometry)?;
    let readers = core::array::from_fn(|number| control.seat_words(&geometry, 1 + number));
    let feed = Feed {
        geometry,
        control,
        readers: &readers,
    };
    let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| CachedLimit::new());
    // SAFETY: this is the only producer.
    let mut tx = unsafe { Producer::new(feed.ring(0), &mut first) }?;
    // SAFETY: this is the only consumer in seat 1.
    let mut rx = unsafe { feed.consumer(1, &mut second, Seek::Oldest) }?;
    // SAFETY: this is the only consumer in seat 2.
    let mut doomed_rx = unsafe { feed.consumer(2, &mut third, Seek::Oldest) }?;

    let mut batched = 0;
    for number in 0..1000 {
        let mut record = tx.try_reserve(248)?;
        record[..len(number)].fill(byte(number));
        record.commit(len(number));
        expect(110, &mut rx, number)?;
        if number % 3 == 2 {
            let mut batch = doomed_rx.try_read_batch(3)?;
            while let Some(record) = batch.next()? {
                let right = record.iter().all(|found| *found == byte(batched));
                check(111, record.len() == len(batched) && right)?;
                batched += 1;
            }
            check(112, batched == number + 1)?;
        }
    }
    expect(113, &mut doomed_rx, 999)?;

    // The producer waits for the slower one, and overwrites nothing.
    let record = |number| ([byte(number); 256], len(number));
    let mut next = 1000;
    let full = loop {
        let (bytes, len) = record(next);
        match tx.try_push(&bytes[..len]) {
            Ok(()) => expect(114, &mut rx, next)?,
            Err(error) => break error,
        }
        next += 1;
    };
    check(115, full == Error::Full && next > 1004)?;
    expect(116, &mut doomed_rx, 1000)?;

    // It is dead, and its seat is recovered: the producer goes on.
    feed.seat(2).leave();
    let (bytes, len) = record(next);
    check(117, tx.try_push(&bytes[..len]) == Ok(()))?;
    expect(118, &mut rx, next)?;

    // One that joins late begins where a record begins.
    check(119, tx.try_push(&[7; 20]) == Ok(()))?;
    // SAFETY: the last consumer in seat 2 is not used any more.
    let mut late = unsafe { feed.consumer(2, &mut fourth, Seek::Newest) }?;
    check(120, matches!(late.try_read(), Err(Error::Empty)))?;
    check(121, tx.try_push(&[8; 3]) == Ok(()))?;
    check(122, *late.try_read()? == [8; 3])?;
    check(123, *rx.try_read()? == [7; 20])?;
    check(124, *rx.try_read()? == [8; 3])?;
    control.seat(0).leave(1, End::Finished);
    let ended = Error::Disconnected(End::Finished);
    check(125, matches!(rx.try_read(), Err(error) if error == ended))?;
    check(126, matches!(late.try_read(), Err(error) if error == ended))
}

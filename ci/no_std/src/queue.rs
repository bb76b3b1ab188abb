//! A work queue on bare ground: control and data are two statics, as a device's memory would be apart from the host's.

use slipring_core::crowd::Crowd;
use slipring_core::end::{Endpoint, Pop, Push};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::layout::{Control, Geometry, Kind, Role, SeatWords, Side, WhenFull};
use slipring_core::mem::Cells;
use slipring_core::proto::mpmc::{self, Delivery, Queue, recover};
use slipring_core::wait::Notifier;
use slipring_core::{CachedLimit, End, Error};

use crate::{Bare, DATA, Ground, Wrong, check, fresh, make};

/// Its control part: a page for the header and the seats, one for each of four seats, and one for the claims.
const CONTROL: usize = 6 * 4096;

static JOBS: (Ground<CONTROL>, Ground<DATA>) = fresh();

/// The words of a work queue: seats 0 and 1 produce, seats 2 and 3 consume.
struct Jobs<'m> {
    control: Control<'static>,
    queue: Queue<'static>,
    seats: &'m [SeatWords<'static>; 4],
}

impl<'m> Jobs<'m> {
    /// Returns what the end in seat `number` uses.
    fn ring(&self, number: usize) -> Result<mpmc::Ring<'m, Cells<'m, u64>>, Wrong> {
        let (producers, consumers) = self.seats.split_at(2);
        let SeatWords {
            line,
            position,
            counters,
            ..
        } = self.seats[number];
        let consumes = number >= 2;
        let (mine, theirs) = match consumes {
            true => (consumers, producers),
            false => (producers, consumers),
        };
        let peers = match consumes {
            true => Crowd::producers(Side::Many(theirs), mine, line),
            false => Crowd::consumers(Side::Many(theirs), line)?,
        };
        let waker = |consumers, sleepers| {
            let wait_cell = self.control.wait_cell(consumers);
            Notifier::new(wait_cell, Side::Many(sleepers), counters, true, &Bare)
        };
        Ok(mpmc::Ring {
            queue: self.queue,
            // SAFETY: the data part has more than 17 words, and is a static.
            cells: unsafe { Cells::new(JOBS.1.base().cast(), 17) },
            seat: (number % 2) as u64,
            position,
            handed_out: &counters.handed_out,
            peers,
            notifier: waker(!consumes, theirs),
            fellows: waker(consumes, mine).of_fellows(1 << (number % 2)),
        })
    }

    /// Records that the end in seat `number` is dead, and gives back what it had in its hands.
    ///
    /// # Safety
    /// No handle has that seat any more.
    unsafe fn reap(&self, number: usize) -> Result<(), Wrong> {
        let side = match number < 2 {
            true => Role::Producer,
            false => Role::Consumer,
        };
        let seat = (number % 2) as u64;
        // SAFETY: the caller's promise; the only thread needs no lock.
        unsafe { recover(&self.queue, side, seat, Delivery::AtLeastOnce) }?;
        let line = self.control.seat(number);
        line.leave(line.life()?.generation, End::Died);
        Ok(())
    }
}

/// Two producers and two consumers take turns, until one of each dies with something in its hands.
pub(crate) fn jobs() -> Result<(), Wrong> {
    let geometry = Geometry {
        kind: Kind::Mpmc,
        capacity: 16,
        slot_size: 8,
        slot_align: 8,
        when_full: WhenFull::Wait,
        producers: 2,
        consumers: 2,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    };
    let control = make(&JOBS, &geometry)?;
    let claims = control.claims(&geometry).ok_or(Wrong(31))?;
    let queue = Queue::new(&geometry, claims).ok_or(Wrong(31))?;
    let seats = &core::array::from_fn(|seat| control.seat_words(&geometry, seat));
    let jobs = Jobs {
        control,
        queue,
        seats,
    };
    let [mut first, mut second, mut third, mut fourth, mut fifth] =
        [(); 5].map(|()| CachedLimit::new());
    // SAFETY: this is the only producer in seat 0.
    let mut tx = unsafe { mpmc::Producer::new(jobs.ring(0)?, &mut first) };
    // SAFETY: this is the only producer in seat 1.
    let mut doomed_tx = unsafe { mpmc::Producer::new(jobs.ring(1)?, &mut second) };
    // SAFETY: this is the only consumer in seat 2.
    let mut rx = unsafe { mpmc::Consumer::new(jobs.ring(2)?, &mut third) };
    // SAFETY: this is the only consumer in seat 3.
    let mut doomed_rx = unsafe { mpmc::Consumer::new(jobs.ring(3)?, &mut fourth) };

    // In turn, many times round the ring.
    for value in (0..1000).step_by(2) {
        check(32, tx.try_push(value) == Ok(()))?;
        check(33, doomed_tx.try_push(value + 1) == Ok(()))?;
        check(34, rx.try_pop() == Ok(value))?;
        check(35, doomed_rx.try_pop() == Ok(value + 1))?;
    }
    check(36, rx.try_pop() == Err(Error::Empty))?;

    // A stranger overwrites the whole data part. The queue does not notice.
    check(37, tx.try_push_slice(&[0; 16]) == Ok(16))?;
    for at in 0..DATA {
        // SAFETY: inside the static, and no end holds a reference into it.
        let byte = unsafe { JOBS.1.base().add(at) };
        // SAFETY: as above, and nobody else touches it: there is one thread.
        unsafe { byte.write_volatile(0xa5) };
    }
    for _ in 0..16 {
        check(38, rx.try_pop() == Ok(0xa5a5_a5a5_a5a5_a5a5))?;
    }
    check(39, rx.try_pop() == Err(Error::Empty))?;

    // A consumer takes three messages and dies. The others pass it meanwhile.
    check(40, tx.try_push_slice(&[0, 1, 2, 3]) == Ok(4))?;
    core::mem::forget(doomed_rx.try_read_batch(3)?);
    check(41, rx.try_pop() == Ok(3) && rx.deliveries() == 0)?;
    check(42, rx.try_pop() == Err(Error::Empty) && rx.len() == Ok(3))?;
    // SAFETY: its consumer is not used any more.
    unsafe { jobs.reap(3) }?;
    for value in 0..3 {
        check(43, rx.try_pop() == Ok(value) && rx.deliveries() == 1)?;
    }
    check(44, rx.try_pop() == Err(Error::Empty) && rx.len() == Ok(0))?;

    // A producer dies with what it had reserved. That is skipped.
    core::mem::forget(doomed_tx.try_reserve(2)?);
    check(45, tx.try_push(5) == Ok(()))?;
    check(46, rx.try_pop() == Err(Error::Empty))?;
    // SAFETY: its producer is not used any more.
    unsafe { jobs.reap(1) }?;
    check(47, rx.try_pop() == Ok(5))?;

    // The dead consumer's seat has a successor, and it too is told of the end.
    control.seat(3).take(0)?;
    // SAFETY: this is the only consumer in seat 3, and the seat was recovered.
    let mut next_rx = unsafe { mpmc::Consumer::new(jobs.ring(3)?, &mut fifth) };
    check(48, tx.try_push_slice(&[6, 7]) == Ok(2))?;
    control.seat(0).leave(1, End::Finished);
    check(49, next_rx.try_pop() == Ok(6))?;
    check(50, rx.try_pop() == Ok(7))?;
    // One of the two producers died: the end says the worse.
    let end = Err(Error::Disconnected(End::Died));
    check(51, rx.try_pop() == end && next_rx.try_pop() == end)
}

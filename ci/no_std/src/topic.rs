//! Topics on bare ground: two publishers and two subscribers, of values and of byte strings.

use slipring_core::CachedLimit;
use slipring_core::crowd::Crowd;
use slipring_core::end::{Pop, Push, Seek};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::layout::{Control, Entries, Geometry, Kind, Pins, SeatWords, Side, WhenFull};
use slipring_core::mem::{Form, Samples};
use slipring_core::proto::topic::{
    Consumer, Keep, Pool, PoolSlot, Producer, Ring, Sample, Topic, let_go,
};
use slipring_core::record::{HoldRecord, PushRecord};
use slipring_core::sync::Ordering;
use slipring_core::wait::Notifier;
use slipring_core::{End, Error};

use crate::{Bare, DATA, Ground, Wrong, check, fresh, make};

/// Its control part: a page for the header and the seats, one for each of four seats, and one for the entries.
const CONTROL: usize = 6 * 4096;

/// The number of messages that stay readable.
const RING: u64 = 4;
/// The pins of each subscriber.
const PINS: u64 = 2;
/// The slots of each publisher: those that the ring names, those that are pinned, and one to write.
const POOL: usize = (RING + 2 * PINS + 1) as usize;

static VALUES: (Ground<CONTROL>, Ground<DATA>) = fresh();
static STRINGS: (Ground<CONTROL>, Ground<DATA>) = fresh();

/// The words of a topic: seats 0 and 1 publish, seats 2 and 3 subscribe.
struct Board<'m> {
    memory: &'static (Ground<CONTROL>, Ground<DATA>),
    geometry: Geometry,
    control: Control<'static>,
    entries: Entries<'static>,
    seats: &'m [SeatWords<'static>; 4],
}

impl<'m> Board<'m> {
    /// Returns what the end in seat `number` uses.
    fn ring<T: ?Sized>(&self, number: usize) -> Result<Ring<'m, T>, Wrong> {
        let (publishers, subscribers) = self.seats.split_at(2);
        let SeatWords {
            position, counters, ..
        } = self.seats[number];
        let theirs = match number < 2 {
            true => subscribers,
            false => publishers,
        };
        let wait_cell = self.control.wait_cell(number < 2);
        Ok(Ring {
            topic: Topic::new(self.entries).ok_or(Wrong(61))?,
            // SAFETY: the data part is a static, all zero, and has room for the slots of that geometry.
            samples: unsafe { Samples::new(self.memory.1.base(), &self.geometry) },
            seat: (number % 2) as u64,
            position,
            messages: &counters.messages,
            gating_set: self.control.gating_set(),
            notifier: Notifier::new(wait_cell, Side::Many(theirs), counters, true, &Bare),
        })
    }

    /// # Safety
    /// There is no other publisher in that seat.
    unsafe fn publisher<T: Form + ?Sized>(
        &self,
        number: usize,
        slots: &'m mut [PoolSlot; POOL],
        limit: &'m mut CachedLimit,
    ) -> Result<Producer<'m, T>, Wrong> {
        let (publishers, subscribers) = self.seats.split_at(2);
        let (wait_cell, counters) = (self.control.wait_cell(false), self.seats[number].counters);
        let fellows = Notifier::new(wait_cell, Side::Many(publishers), counters, true, &Bare);
        let pool = Pool {
            slots,
            consumers: Side::Many(subscribers),
            fellows: Some(fellows.of_fellows(1 << number)),
            backing: None,
            clock: None,
        };
        // SAFETY: the caller's promise; all ends have these words, and the pool a note for each slot.
        Ok(unsafe { Producer::new(self.ring(number)?, pool, limit) }?)
    }

    /// # Safety
    /// There is no other subscriber in that seat, and every bit pattern is a `T`.
    unsafe fn subscriber<T: Form + ?Sized>(
        &self,
        number: usize,
        limit: &'m mut CachedLimit,
    ) -> Result<Consumer<'m, T>, Wrong> {
        let SeatWords { line, counters, .. } = self.seats[number];
        let keep = Keep {
            pins: self.pins(number)?,
            most: PINS,
            producers: Crowd::producers(Side::Many(&self.seats[..2]), &[], line),
            lagged: &counters.lagged,
            handed_out: &counters.handed_out,
        };
        // SAFETY: the caller's promise; all ends have these words.
        Ok(unsafe { Consumer::new(self.ring(number)?, keep, limit, Seek::Oldest) }?)
    }

    fn pins(&self, number: usize) -> Result<&'static Pins, Wrong> {
        self.seats[number].pins.ok_or(Wrong(62))
    }

    /// Takes the pins of the dead subscriber in seat `number` away.
    fn reap(&self, number: usize) -> Result<(), Wrong> {
        let_go(
            self.pins(number)?,
            self.control.gating_set(),
            1 << (number % 2),
        );
        Ok(())
    }
}

/// Makes a topic in `memory`, and runs `body` over its words.
fn within(
    memory: &'static (Ground<CONTROL>, Ground<DATA>),
    slot_size: u64,
    body: impl FnOnce(&Board<'_>) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    let geometry = Geometry {
        kind: Kind::Topic,
        capacity: RING,
        slot_size,
        slot_align: 8,
        when_full: WhenFull::Overwrite,
        producers: 2,
        consumers: 2,
        skew: 0,
        pins: PINS,
        pool: POOL as u64,
        growth: None,
    };
    let control = make(memory, &geometry)?;
    let seats = core::array::from_fn(|seat| control.seat_words(&geometry, seat));
    body(&Board {
        memory,
        geometry,
        control,
        entries: control.entries(&geometry).ok_or(Wrong(60))?,
        seats: &seats,
    })
}

/// Values: they have one order, and what is pinned stays, until its subscriber is dead.
pub(crate) fn values() -> Result<(), Wrong> {
    within(&VALUES, 8, |board| {
        let [mut notes, mut more_notes] = [[PoolSlot::default(); POOL]; 2];
        let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| CachedLimit::new());
        // SAFETY: this is the only publisher in seat 0.
        let mut tx = unsafe { board.publisher::<u64>(0, &mut notes, &mut first) }?;
        // SAFETY: this is the only publisher in seat 1.
        let mut other_tx = unsafe { board.publisher::<u64>(1, &mut more_notes, &mut second) }?;
        // SAFETY: this is the only subscriber in seat 2.
        let mut rx = unsafe { board.subscriber::<u64>(2, &mut third) }?;
        // SAFETY: this is the only subscriber in seat 3.
        let mut doomed_rx = unsafe { board.subscriber::<u64>(3, &mut fourth) }?;

        // In turn, many times round the ring.
        for value in (0..1000).step_by(2) {
            check(63, tx.try_push(value) == Ok(()))?;
            check(64, other_tx.try_push(value + 1) == Ok(()))?;
            check(65, rx.try_pop() == Ok(value))?;
            let message = rx.try_read()?;
            check(66, *message == value + 1 && message.origin().publisher == 1)?;
            message.release();
            let newest = Sample::latest(&mut doomed_rx, 0)?;
            check(
                67,
                *newest == value + 1 && newest.origin().sequence == value + 1,
            )?;
        }
        check(68, rx.try_pop() == Err(Error::Empty))?;

        // What has not been read in order is lost, but for the last ones.
        check(69, doomed_rx.try_pop() == Err(Error::Lagged(996)))?;
        for value in 996..1000 {
            check(70, doomed_rx.try_pop() == Ok(value))?;
        }

        // A message stays as it is while the others go round both pools, and nobody waits.
        let kept = Sample::latest(&mut rx, 1)?;
        for value in 1000..1100 {
            check(71, tx.try_push(value) == Ok(()))?;
            check(72, other_tx.try_push(value) == Ok(()))?;
            check(73, *kept == 998)?;
        }
        drop(kept);
        check(74, rx.try_pop() == Err(Error::Lagged(196)))?;

        // A subscriber dies with a pin; once that is gone no slot is lost.
        core::mem::forget(Sample::latest(&mut doomed_rx, 0)?);
        let pins = || {
            board
                .pins(3)
                .map(|pins| pins.words[0].load(Ordering::Relaxed))
        };
        check(75, pins()? != 0)?;
        board.reap(3)?;
        let members = board.control.gating_set().load(Ordering::Relaxed);
        check(76, pins()? == 0 && members == 1)?;

        // A publisher dies after its entry and before the head: its message is there, and the next one goes behind.
        check(77, other_tx.try_push(5) == Ok(()))?;
        let head = board.entries.head.fetch_sub(1, Ordering::Relaxed);
        check(78, *Sample::latest(&mut rx, 0)? == 5)?;
        check(79, tx.try_push(6) == Ok(()))?;
        check(80, board.entries.head.load(Ordering::Relaxed) == head + 1)?;
        check(81, *Sample::latest(&mut rx, 0)? == 6)?;
        check(82, *Sample::latest(&mut rx, 1)? == 5)?;

        // The end comes once both have left.
        board.control.seat(0).leave(1, End::Finished);
        rx.seek(Seek::Newest)?;
        check(83, rx.try_pop() == Err(Error::Empty))?;
        board.control.seat(1).leave(1, End::Finished);
        let end = Err(Error::Disconnected(End::Finished));
        check(84, rx.try_pop() == end)
    })
}

/// Byte strings of varying length, written in place.
pub(crate) fn strings() -> Result<(), Wrong> {
    within(&STRINGS, 240, |board| {
        let mut notes = [PoolSlot::default(); POOL];
        let [mut first, mut second] = [(); 2].map(|()| CachedLimit::new());
        // SAFETY: this is the only publisher in seat 1.
        let mut tx = unsafe { board.publisher::<[u8]>(1, &mut notes, &mut first) }?;
        // SAFETY: this is the only subscriber in seat 2.
        let mut rx = unsafe { board.subscriber::<[u8]>(2, &mut second) }?;
        for len in (0..=240).chain(0..100) {
            let mut string = tx.try_reserve(240)?;
            string[..len].fill(len as u8);
            string.commit(len);
            let found = rx.try_read()?;
            let right = found.len() == len && found.iter().all(|byte| *byte == len as u8);
            check(85, right && found.origin().publisher == 1)?;
        }
        let (asked, max) = (241, 240);
        check(
            86,
            tx.try_push(&[0; 241]) == Err(Error::TooLarge { asked, max }),
        )?;
        check(87, matches!(rx.try_read(), Err(Error::Empty)))
    })
}

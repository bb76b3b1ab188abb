//! Guards, as they are with and without the feature `std`: `cargo test -p slipring-core` builds without it,
//! `--workspace` with it.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use slipring_core::CachedLimit;
use slipring_core::end::Push;
use slipring_core::guard::Hold;
use slipring_core::layout::{
    Control, Geometry, Identity, Kind, METADATA, RolePage, Side, WhenFull,
};
use slipring_core::mem::Slots;
use slipring_core::payload::Payload;
use slipring_core::proto::{broadcast, spsc};
use slipring_core::seat::Peer;
use slipring_core::sync::AtomicU32;
use slipring_core::wait::{Notifier, Os, Reach};

/// Pages: the control part, and data.
#[repr(C, align(4096))]
struct Ground([u8; 4 * 4096]);

const CONTROL: usize = 3 * 4096;

/// A machine with nobody to wake and nobody who sleeps.
struct Bare;

impl Os for Bare {
    fn sleep(&self, _: &AtomicU32, _: u32, _: u64, _: u64) {}
    fn wake(&self, _: &AtomicU32, _: u64) {}
    fn signal(&self, _: usize) {}
    fn now(&self) -> u64 {
        0
    }
    fn barrier(&self) -> Reach {
        Reach::Nobody
    }
}

/// A channel of sixteen numbers, over memory that goes with it.
struct Made {
    /// Not used by this name any more, once `control` and `data` have it.
    _ground: Box<UnsafeCell<Ground>>,
    control: Control<'static>,
    geometry: Geometry,
    data: NonNull<u64>,
}

impl Made {
    fn new(kind: Kind) -> Made {
        let geometry = Geometry {
            kind,
            capacity: 16,
            slot_size: 8,
            slot_align: 8,
            when_full: WhenFull::Wait,
            producers: 1,
            consumers: 1,
            skew: 0,
            pins: 0,
            pool: 0,
            growth: None,
        };
        let owned = Box::new(UnsafeCell::new(Ground([0; 4 * 4096])));
        let ground = NonNull::new(owned.get()).unwrap().cast::<u8>();
        // SAFETY: of that length, accessed through this alone, and no handle outlives what `new` returns.
        let control = unsafe { Control::new(ground, CONTROL) }.unwrap();
        let schema = Some(&u64::SCHEMA);
        control
            .format(&geometry, schema, Identity::default(), &[0; METADATA], 4096)
            .unwrap();
        control.seat(0).take(0).unwrap();
        control.seat(1).take(0).unwrap();
        // SAFETY: the last page.
        let data = unsafe { ground.byte_add(CONTROL) }.cast();
        Made {
            _ground: owned,
            control,
            geometry,
            data,
        }
    }

    fn roles(&self) -> [&'static RolePage; 2] {
        [0, 1].map(|seat| self.control.role(&self.geometry, seat))
    }

    fn slots(&self) -> Slots<'static, u64> {
        // SAFETY: a page has more than 16 words.
        unsafe { Slots::new(self.data, 16) }
    }

    fn notifier(&self, role: usize) -> Notifier<'static> {
        let sleeper = Side::One(self.control.seat_words(&self.geometry, 1 - role));
        let mine = &self.roles()[role].counters;
        Notifier::new(
            self.control.wait_cell(role == 0),
            sleeper,
            mine,
            true,
            &Bare,
        )
    }

    fn producer(&self) -> Peer<'static> {
        Peer::producer(self.control.seat(0), self.control.seat(1))
    }
}

fn spsc_of_ten(test: impl FnOnce(spsc::Consumer<'_, u64>)) {
    let made = Made::new(Kind::Spsc);
    let (mut ours, mut theirs) = (CachedLimit::new(), CachedLimit::new());
    let [producer, consumer] = made.roles();
    let ring = |role| spsc::Ring {
        tail: &producer.position,
        head: &consumer.position,
        slots: made.slots(),
        writable: true,
        notifier: made.notifier(role),
        rings: None,
    };
    let peer = Peer::consumer(made.control.seat(1), || true).unwrap();
    // SAFETY: the only producer.
    let mut tx = unsafe { spsc::Producer::new(ring(0), peer, &mut ours) }.unwrap();
    assert_eq!(tx.try_push_iter(&mut (0..10)), Ok(10));
    // SAFETY: the only consumer.
    test(unsafe { spsc::Consumer::new(ring(1), made.producer(), &mut theirs) }.unwrap());
}

fn broadcast_of_ten(test: impl FnOnce(broadcast::Consumer<'_, u64>)) {
    let made = Made::new(Kind::Broadcast);
    let (mut ours, mut theirs) = (CachedLimit::new(), CachedLimit::new());
    let [producer, consumer] = made.roles();
    let seats = [made.control.seat_words(&made.geometry, 1)];
    let ring = |role| broadcast::Ring::<u64> {
        tail: &producer.position,
        write_limit: &producer.write_limit.0,
        gating_set: made.control.gating_set(),
        consumers: Side::Many(&seats),
        slots: made.slots(),
        lagged: &consumer.counters.lagged,
        writable: true,
        notifier: made.notifier(role),
    };
    let seat = broadcast::Seat {
        position: &consumer.position,
        write_limit: &producer.write_limit.0,
        gating_set: made.control.gating_set(),
        bit: 1,
        capacity: 16,
    };
    // SAFETY: the only producer.
    let mut tx = unsafe { broadcast::Producer::new(ring(0), &mut ours) }.unwrap();
    assert_eq!(tx.try_push_iter(&mut (0..10)), Ok(10));
    let (peer, oldest) = (made.producer(), broadcast::Seek::Oldest);
    // SAFETY: the only consumer.
    test(unsafe { broadcast::Consumer::new(ring(1), seat, peer, &mut theirs, oldest) }.unwrap());
}

fn panics(body: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(body)).is_err());
}

/// The panic is the release's own, and the guard is gone with it.
#[test]
fn release_of_too_many_keeps_all() {
    spsc_of_ten(|mut rx| {
        panics(|| rx.try_read_batch(2).unwrap().release(5));
        assert!(rx.try_read_batch(16).unwrap().iter().copied().eq(0..10));
    });
}

/// On a broadcast channel, releasing more messages than the batch has panics and keeps all of them.
#[test]
fn too_large_broadcast_release_keeps_all() {
    broadcast_of_ten(|mut rx| {
        panics(|| rx.try_read_batch(2).unwrap().release(5));
        assert!(rx.try_read_batch(16).unwrap().iter().copied().eq(0..10));
    });
}

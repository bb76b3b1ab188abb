//! Models an outside reader, which has no seat: a wait set, a tool.

use slipring_core::end::{Pop, Push};
use slipring_core::layout::{Geometry, Kind, WhenFull};
use slipring_core::outside::View;
use slipring_core::proto::outside;
use slipring_core::sync::AtomicU64;

use crate::{Memory, both, model};

/// A bystander sees no room that never was there. There is always a message or two in a ring of
/// two, so there never is room for two.
#[test]
fn a_bystander_sees_only_real_room() {
    model(|| {
        let memory = Memory::slots(2);
        memory.spsc_producer(|mut tx| tx.try_push(1).unwrap());
        both(
            memory,
            |memory| {
                memory.spsc_producer(|mut tx| tx.try_push(2).unwrap());
                memory.spsc_consumer(|mut rx| assert_eq!(rx.try_pop(), Ok(1)));
            },
            |memory| {
                let geometry = Geometry {
                    kind: Kind::Spsc,
                    when_full: WhenFull::Wait,
                    capacity: 2,
                    slot_size: 8,
                    slot_align: 8,
                    producers: 1,
                    consumers: 1,
                    skew: 0,
                    pins: 0,
                    pool: 0,
                    growth: None,
                };
                let (seats, nobody) = ([memory.seat(0), memory.seat(1)], AtomicU64::new(0));
                let view = View {
                    geometry: &geometry,
                    seats: &seats,
                    gating_set: &nobody,
                    write_limit: &nobody,
                    claims: None,
                    entries: None,
                    rings: None,
                };
                let seen = outside(geometry.kind);
                assert!(!(seen.has_room)(&view, 0, 2));
            },
        );
    });
}

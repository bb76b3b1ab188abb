//! Faults of slipring's predecessors (SEEDS.md), each with the run that would find it again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::FileExt;

use slipring::spsc;
use slipring_tests::message::{Frame, Numbered, Packet};
use slipring_tests::place::{is_broadcast, overwrites};
use slipring_tests::{Peer, Room, kinds};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

fn pair(room: &Room, kind: &str) -> (Peer, Peer) {
    let (mut tx, mut rx) = (room.peer(), room.peer());
    tx.ok(&format!("producer ticks {kind}"));
    rx.ok(&format!("consumer ticks {kind}"));
    (tx, rx)
}

/// No value is read before it is written. Fault 2: two threads, or two processes, pass 8-byte
/// messages as fast as they can.
#[test]
fn no_read_overtakes_its_write() {
    for capacity in [1, 2, 64, 1024] {
        let (mut tx, rx) = spsc::channel::<u64>(capacity).unwrap();
        // A ring of one or two slots changes hands at each message.
        let count = if capacity <= 2 { 20_000 } else { 1_000_000 };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..count {
                    tx.push(number).unwrap();
                }
            });
            // The handle is dropped with this closure, also by a failure: then the other thread
            // ends as well.
            let mut rx = rx;
            for number in 0..count {
                assert_eq!(rx.pop().unwrap(), number, "capacity {capacity}");
            }
        });
    }
    for capacity in [1, 2, 1024] {
        let room = room();
        let (mut tx, mut rx) = pair(&room, &format!("kind=u64 capacity={capacity}"));
        let count = if capacity <= 2 { 5_000 } else { 100_000 };
        tx.tell(&format!("push 0 {count}"));
        assert_eq!(
            rx.numbers(&format!("pop {count}")),
            (0..count).collect::<Vec<_>>()
        );
        tx.answer().unwrap();
    }
}

/// One message committed on a big ring is visible at once. Fault 3.
#[test]
fn a_lone_commit_is_visible_immediately() {
    for kind in [
        "kind=spsc capacity=65536",
        "kind=bytes capacity=16777216 max=112",
        "kind=broadcast capacity=65536",
        "kind=broadcast capacity=65536 full=overwrite",
    ] {
        let room = room();
        let (mut tx, mut rx) = pair(&room, kind);
        for number in 0..20 {
            // Half of it is committed in place out of a large reservation, half pushed.
            if number % 2 == 0 {
                tx.ok(&format!("hold-push {number} 1000"));
                tx.ok("commit 1");
            } else {
                tx.ok(&format!("try-push {number}"));
            }
            assert_eq!(rx.number("try-pop"), number);
        }
    }
}

/// An empty ring lends its whole capacity. Fault 4.
#[test]
fn an_empty_ring_lends_all_slots() {
    let kinds = |capacity| ["spsc", "broadcast"].map(|kind| (kind, capacity));
    for (kind, capacity) in [1, 2, 64, 1024].into_iter().flat_map(kinds) {
        let room = room();
        let (mut tx, mut rx) = pair(&room, &format!("kind={kind} capacity={capacity}"));
        let mut next = 0;
        for offset in 0..capacity.min(70) {
            // It reads up to here, one at a time; nobody asks the consumer to publish anything.
            for _ in 0..offset {
                tx.ok(&format!("try-push {next}"));
                assert_eq!(rx.number("try-pop"), next);
                next += 1;
            }
            tx.ok(&format!("hold-push {next} {capacity}"));
            tx.ok(&format!("commit {capacity}"));
            tx.refused("try-push 0", "Full", &["full"]);
            assert_eq!(rx.number("len consumer"), capacity);
            assert_eq!(
                rx.numbers("drain"),
                (next..next + capacity).collect::<Vec<_>>()
            );
            next += capacity;
        }
    }
}

/// Slots of 1264 bytes and of 128 KiB hold what was written. Fault 13: 1024 slots of 1264 bytes are
/// more than 16 bits can count, and 128 KiB are in one slot.
#[test]
fn large_slots_hold_what_was_written() {
    fn full<T: Numbered>(capacity: u64) {
        let (mut tx, mut rx) = spsc::channel::<T>(capacity as usize).unwrap();
        for lap in 0..2 {
            // All slots are full at once, so no slot overlaps another.
            for number in lap * capacity..(lap + 1) * capacity {
                tx.try_push(T::numbered(number)).unwrap();
            }
            for number in lap * capacity..(lap + 1) * capacity {
                assert_eq!(rx.try_pop().unwrap().check(), Ok(number));
            }
        }
    }
    full::<Packet>(1024);
    full::<Packet>(65536);
    // This thread has the stack that such messages need.
    let frames = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(|| full::<Frame>(64));
    frames.unwrap().join().unwrap();
    for (kind, capacity) in [("packet", 1024), ("frame", 64)] {
        let room = room();
        let (mut tx, mut rx) = pair(&room, &format!("kind={kind} capacity={capacity}"));
        for lap in 0..2 {
            let (first, last) = (lap * capacity, (lap + 1) * capacity);
            tx.ok(&format!("push {first} {capacity}"));
            tx.refused(&format!("try-push {last}"), "Full", &[]);
            assert_eq!(rx.numbers("drain"), (first..last).collect::<Vec<_>>());
        }
    }
}

/// Returns the offsets of the two positions in the control file of a channel with two seats, and of
/// the write limit in `broadcast`. FORMAT.md gives them.
fn positions(control: &fs::File) -> [u64; 3] {
    let mut skew = [0; 8];
    control.read_exact_at(&mut skew, 160).unwrap();
    let skew = u64::from_le_bytes(skew);
    [4096 + skew, 8192 + (skew + 512) % 4096, 4096 + skew + 256]
}

/// Fault 13: positions are 64 bits wide everywhere, and pass the edges of every narrower type.
#[test]
fn positions_pass_every_edge() {
    let edges = [
        1 << 8,
        1 << 15,
        1 << 16,
        1 << 31,
        1 << 32,
        1 << 48,
        1 << 53,
        1 << 63,
    ];
    for kind in kinds!("") {
        for edge in edges.into_iter().chain([u64::MAX - (1 << 48)]) {
            let room = room();
            room.peer().ok(&format!("create ticks {kind}"));
            // The channel starts as if this many had gone by already. `bytes` counts in units of
            // eight.
            let start = (edge - 40) & !7;
            let control = fs::File::options()
                .read(true)
                .write(true)
                .open(room.file("ticks", "control"));
            let control = control.unwrap();
            // Messages that went by are overwritten: they would be zeros.
            let write_limit = if is_broadcast(kind) { start + 64 } else { 0 };
            for (at, word) in positions(&control)
                .into_iter()
                .zip([start, start, write_limit])
            {
                control.write_all_at(&word.to_le_bytes(), at).unwrap();
            }
            let (mut tx, mut rx) = pair(&room, kind);
            assert_eq!(tx.number("position producer"), start);
            assert_eq!(rx.number("position consumer"), start);
            // The producer passes the edge at once: until there is no room, or so that the old
            // messages are overwritten.
            let lost = if overwrites(kind) {
                tx.ok("push 0 100");
                let refusal = rx.refused("pop 1", "Lagged", &[]);
                // Seven blocks of 16 were begun, less the ring; and the consumer goes on an eighth
                // of the ring further.
                assert_eq!(refusal.debug, "Lagged(56)", "past {edge:#x}");
                56
            } else {
                tx.refused("push 0 1000 timeout=0", "TimedOut", &["full"]);
                0
            };
            let passed = rx.numbers("drain");
            let mut next = lost + passed.len() as u64;
            assert!(next > 40, "past {edge:#x}");
            assert_eq!(passed, (lost..next).collect::<Vec<_>>(), "past {edge:#x}");
            for _ in 0..10 {
                let numbers = (next..next + 20).collect::<Vec<_>>();
                tx.ok(&format!("push {next} 20"));
                let ends = [
                    tx.number("position producer"),
                    rx.number("position consumer"),
                ];
                let queued = ends[0] - ends[1];
                assert_eq!(rx.number("len consumer"), queued);
                // A producer that overwrites waits for nobody.
                let held = if overwrites(kind) { 0 } else { queued };
                assert_eq!(tx.number("len producer"), held);
                assert_eq!(rx.numbers("pop 20"), numbers, "past {edge:#x}");
                next += 20;
            }
            assert!(tx.number("position producer") >= start + 200);
            // Restarted beyond the edge, both go on there, as long as there is a long way to go.
            if edge < u64::MAX - (1 << 48) {
                tx.kill();
                rx.kill();
                let (mut tx, mut rx) = pair(&room, kind);
                // A consumer of `broadcast` finds the messages that are still there.
                let found = rx.numbers("drain");
                assert_eq!(found.is_empty(), !is_broadcast(kind), "{found:?}");
                assert_eq!(found, (next - found.len() as u64..next).collect::<Vec<_>>());
                tx.ok(&format!("push {next} 20"));
                assert_eq!(rx.numbers("pop 20"), (next..next + 20).collect::<Vec<_>>());
            }
        }
    }
}

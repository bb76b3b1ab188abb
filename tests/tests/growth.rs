//! Rings that are resized while one of the two processes is killed or stopped: what nobody uses has no memory in the end, and
//! the other process goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::MetadataExt;

use slipring_tests::{Room, eventually};

/// The first ring of these channels, in bytes, and the pages behind it: a record of 112 bytes may run into the second.
const FIRST: u64 = 128;
const PAGE: u64 = 4096;
/// A ring whose memory takes some milliseconds to come.
const LARGE: u64 = 64 << 20;

const KIND: &str = "kind=bytes-growing max=112 capacity=67108864";

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// Returns the bytes of memory behind the data part.
fn backed(room: &Room) -> u64 {
    let data = fs::metadata(room.file("ticks", "data")).unwrap();
    data.blocks() * 512
}

/// A producer that is killed while it takes memory for a ring leaves none of it to anybody.
#[test]
fn killed_resizes_leave_no_memory() {
    let room = room();
    let mut rx = room.peer();
    rx.ok(&format!("consumer ticks {KIND}"));
    assert_eq!(backed(&room), PAGE);
    for round in 0..20 {
        let mut tx = room.peer();
        tx.ok(&format!("producer ticks {KIND}"));
        assert_eq!(
            backed(&room),
            PAGE,
            "what the last one left, in round {round}"
        );
        tx.ok(&format!("push {round} 1"));
        tx.tell(&format!("resize-ring {LARGE}"));
        eventually("memory comes", || backed(&room) > round * (1 << 20) + PAGE);
        tx.kill();
        assert_eq!(rx.number("pop 1"), round);
        // It may have been quicker. Then its successor has the large ring, and makes it small again.
        let mut tx = room.peer();
        tx.ok(&format!("producer ticks {KIND}"));
        let _ = rx.ask("try-pop");
        tx.ok(&format!("resize-ring {FIRST}"));
        eventually("the large ring goes", || {
            let _ = rx.ask("try-pop");
            backed(&room) == PAGE
        });
    }
}

/// A consumer that is killed after the resize leaves the old rings to its successor.
#[test]
fn successors_give_old_rings_back() {
    let room = room();
    let mut tx = room.peer();
    tx.ok(&format!("producer ticks {KIND}"));
    for round in 0..10 {
        let mut rx = room.peer();
        rx.ok(&format!("consumer ticks {KIND}"));
        tx.ok("push 0 1");
        assert_eq!(tx.ok(&format!("resize-ring {}", 1 << 20)), ["resized"]);
        tx.ok("push 1 100");
        let small = FIRST << (1 + round % 4);
        assert_eq!(tx.ok(&format!("resize-ring {small}")), ["resized"]);
        assert_eq!(rx.numbers("pop 30"), (0..30).collect::<Vec<_>>());
        rx.kill();
        assert!(backed(&room) > 1 << 20);
        let mut next = room.peer();
        next.ok(&format!("consumer ticks {KIND}"));
        assert_eq!(next.numbers("drain"), (30..101).collect::<Vec<_>>());
        eventually("all but the newest go", || {
            let _ = next.ask("try-pop");
            backed(&room) == PAGE
        });
    }
}

/// A stopped consumer keeps what it reads, and holds up no message that others could take: there are none. The producer goes on.
#[test]
fn stopped_consumers_delay_only_their_memory() {
    let room = room();
    let (mut tx, mut rx) = (room.peer(), room.peer());
    tx.ok(&format!("producer ticks {KIND}"));
    rx.ok(&format!("consumer ticks {KIND}"));
    tx.ok("push 0 1");
    rx.freeze();
    tx.ok(&format!("resize-ring {}", 1 << 20));
    tx.ok("push 1 1000");
    // The first ring is still the consumer's.
    let said = tx.ok(&format!("resize-ring {FIRST}")).join(" ");
    assert!(said.contains("still reads"), "{said}");
    assert!(backed(&room) > 1 << 20);
    rx.thaw();
    assert_eq!(rx.numbers("pop 1001"), (0..1001).collect::<Vec<_>>());
    let _ = rx.ask("try-pop");
    let said = tx.ok(&format!("resize-ring {FIRST}")).join(" ");
    assert_eq!(said, "resized");
    eventually("the large ring goes", || {
        let _ = rx.ask("try-pop");
        backed(&room) == PAGE
    });
}

//! A side that is killed with SIGKILL, in the middle of its work, loses nothing. Its successor goes
//! on where it was, and at most the messages in its hand come again. (Kills at random are in
//! `verify/storm`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::Ordering;

use slipring_tests::{Peer, Place, Room, counter, eventually};

const SPSC: &str = "kind=spsc capacity=64";
const BYTES: &str = "kind=bytes capacity=4096 max=112";

fn all() -> Vec<Place> {
    Place::all(env!("CARGO_BIN_EXE_peer"), &[SPSC, BYTES])
}

/// If a consumer is killed while it reads, the next one resumes at the released head.
#[test]
fn reading_resumes_at_the_released_head() {
    for place in all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 10");
        assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
        assert_eq!(rx.numbers("hold-pop 4"), [3, 4, 5, 6]);
        rx.kill();
        let mut rx = place.seat("consumer");
        assert_eq!(rx.numbers("pop 7"), [3, 4, 5, 6, 7, 8, 9]);
        // The producer goes on with its new consumer, once round the ring and more.
        for lap in 1..20 {
            tx.ok(&format!("push {} 10", lap * 10));
            assert_eq!(
                rx.numbers("pop 10"),
                (lap * 10..lap * 10 + 10).collect::<Vec<_>>()
            );
        }
    }
}

/// A producer that is killed while it writes leaves exactly what it had committed.
#[test]
fn a_killed_producer_keeps_its_commits() {
    for place in all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 2");
        tx.ok("hold-push 2 5");
        tx.kill();
        let mut tx = place.seat("producer");
        assert_eq!(tx.number("next"), 2);
        assert_eq!(rx.numbers("drain"), [0, 1]);
        tx.ok("push 2 3");
        assert_eq!(rx.numbers("pop 3"), [2, 3, 4]);
    }
}

/// Kills each kind's sides a hundred times each in either sort of place, and each time another
/// process takes the seat. Accepted messages are there, in order and unbroken. A message comes
/// again only if the killed consumer had it in hand. (The peers check that, by counters that
/// outlive them.)
#[test]
fn a_stream_survives_hundreds_of_kills() {
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    for place in all() {
        let paths = ["accepted", "seen"].map(|name| place.room.path().join(name));
        let verbs = ["producer stream-produce", "consumer stream-consume"];
        let start = |side: usize| {
            let (role, verb) = verbs[side].split_once(' ').unwrap();
            let mut peer = place.seat(role);
            peer.ok(&format!("{verb} {}", paths[side].display()));
            peer
        };
        let counters = paths.each_ref().map(|path| counter(path));
        let came = |side: usize| counters[side].load(Ordering::Relaxed) & (u64::MAX >> 8);
        let mut sides = [start(0), start(1)];
        for turn in 0..200 {
            let victim = turn % 2;
            dice = dice
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let until = came(victim) + (dice >> 33) % 200;
            eventually("the stream goes on", || {
                assert!(sides.iter_mut().all(Peer::is_running), "it ended by itself");
                came(victim) > until
            });
            sides[victim].kill();
            sides[victim] = start(victim);
        }
        sides[0].kill();
        let end = place.seat("producer").number("next");
        assert!(end >= came(0), "{end} of {}: {}", came(0), place.shown());
        eventually("all of it is read", || came(1) == end);
    }
}

/// A process that is killed while it takes a role or leaves it leaves that role free.
#[test]
fn a_killed_taker_frees_its_role() {
    for role in ["producer", "consumer"] {
        let room = Room::new(env!("CARGO_BIN_EXE_peer"));
        let mut dice = 7_u64;
        let mut generation = 0;
        for _ in 0..60 {
            let mut peer = room.peer();
            peer.ok(&format!("occupy ticks {role}"));
            dice = dice
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            for _ in 0..(dice >> 33) % 2000 {
                std::hint::black_box(room.path().exists());
            }
            assert!(peer.is_running());
            peer.kill();
            // The seat is neither held nor under repair: the kernel has freed both, and nobody has
            // to wait.
            let mut peer = room.peer();
            peer.ok(&format!("{role} ticks patience=0"));
            let said = peer.ok(&format!("seat ticks {role}"));
            let now = said[1].parse::<u64>().unwrap();
            assert!(
                now > generation && said[0] == "held",
                "{said:?} after {generation}"
            );
            generation = now;
        }
    }
}

/// A producer that waits on a full ring outlives its consumer, and goes on with the next one.
#[test]
fn a_waiting_producer_outlives_its_consumer() {
    for place in all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.tell("stream-produce");
        tx.answer().unwrap();
        assert_eq!(rx.numbers("pop 1"), [0]);
        rx.kill();
        // The producer waits for another consumer, which finds every message there.
        let mut rx = place.seat("consumer");
        assert_eq!(rx.numbers("pop 1000"), (1..1001).collect::<Vec<_>>());
        assert!(tx.is_running());
    }
}

/// A waiter that polls for an hour before it sleeps checks its peer meanwhile.
#[test]
fn long_polls_are_told_of_deaths() {
    const POLLS: [&str; 3] = [
        "kind=spsc capacity=64 wait=poll",
        "kind=bytes capacity=4096 max=112 wait=poll",
        "kind=broadcast capacity=64 consumers=2 wait=poll",
    ];
    for place in Place::all(env!("CARGO_BIN_EXE_peer"), &POLLS) {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 1");
        assert_eq!(rx.numbers("pop 1"), [0]);
        rx.tell("pop 1");
        tx.kill();
        rx.answer().unwrap_err().is("Disconnected", &["died"]);
    }
}

//! Ends of a work queue that are killed with their hands full stop nobody: the others go on by themselves, before any
//! successor comes. (Kills and stops at random are in `verify/storm`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::{Peer, Place};

const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// Returns a queue of each of the smallest capacities, named and passed.
fn all() -> Vec<(u64, Place)> {
    let options = |capacity| match capacity {
        1 => "kind=mpmc capacity=1 producers=2 consumers=2",
        2 => "kind=mpmc capacity=2 producers=2 consumers=2",
        _ => "kind=mpmc capacity=4 producers=2 consumers=2",
    };
    let places = |capacity| {
        let places = Place::all(PEER, &[options(capacity)]).into_iter();
        places.map(move |place| (capacity, place))
    };
    [1, 2, 4].into_iter().flat_map(places).collect()
}

/// Passes messages, more than go once round the queue.
fn pass(tx: &mut Peer, rx: &mut Peer) {
    for number in 100..120 {
        tx.ok(&format!("push {number} 1"));
        assert_eq!(rx.numbers("pop 1"), [number]);
    }
}

/// Fault 17: what a dead consumer held comes to another one, also if the queue was full, and its slots are free then.
#[test]
fn dead_consumers_stop_nobody() {
    for (capacity, place) in all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let mut victim = place.seat("consumer");
        tx.ok(&format!("push 0 {capacity}"));
        let held = victim.numbers(&format!("hold-pop {capacity}"));
        victim.kill();
        let mut again = rx.numbers(&format!("pop {capacity}"));
        again.sort_unstable();
        assert_eq!(again, held, "{}", place.shown());
        pass(&mut tx, &mut rx);
    }
}

/// Fault 17: a producer that waits for the room that a dead consumer held gets it.
#[test]
fn dead_consumers_free_room() {
    for (capacity, place) in all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let mut victim = place.seat("consumer");
        tx.ok(&format!("push 0 {capacity}"));
        victim.ok(&format!("hold-pop {capacity}"));
        tx.tell("push 50 1");
        victim.kill();
        // Taking what comes again makes room for the push.
        let mut taken = rx.numbers(&format!("pop {}", capacity + 1));
        taken.sort_unstable();
        assert_eq!(taken, (0..capacity).chain([50]).collect::<Vec<_>>());
        tx.answer().unwrap();
        pass(&mut tx, &mut rx);
    }
}

/// Fault 17: what a dead producer had reserved is skipped, by those who wait behind it and by those who want its room.
#[test]
fn dead_producers_stop_nobody() {
    for (capacity, place) in all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let mut victim = place.seat("producer");
        victim.ok(&format!("hold-push 0 {capacity}"));
        rx.tell("pop 1");
        tx.tell("push 50 1");
        victim.kill();
        tx.answer().unwrap();
        assert_eq!(rx.answer().unwrap(), ["50"], "{}", place.shown());
        pass(&mut tx, &mut rx);
    }
}

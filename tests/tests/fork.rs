//! A fork copies memory and descriptors, but no seat. Handles in the child are inert, and nobody
//! notices their use or their drop there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring::spsc;
use slipring_tests::message::Message;
use slipring_tests::{Peer, Room, from_fds};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

const KINDS: [&str; 4] = [
    FIXED[0],
    FIXED[1],
    "kind=spsc-growing capacity=64 shrinks=yes",
    "kind=bytes-growing capacity=4096 max=112 shrinks=yes",
];

/// Those in which a batch is not cut by the end of a small ring.
const FIXED: [&str; 2] = ["kind=spsc capacity=64", "kind=bytes capacity=4096 max=112"];

fn seat(room: &Room, role: &str, kind: &str) -> Peer {
    let mut peer = room.peer();
    peer.ok(&format!("{role} ticks {kind}"));
    peer
}

/// Asserts that the child answered `Forked`.
#[track_caller]
fn is_forked(said: &[String]) {
    assert_eq!(said[0], "err", "{said:?}");
    assert_eq!(said[1], "Forked");
    assert!(
        said[2].contains("copied by fork")
            && said[2].contains("open the channel again in the child"),
        "{said:?}"
    );
}

/// A forked producer refuses even its first push, though there is room.
#[test]
fn a_forked_producer_refuses_any_push() {
    for kind in KINDS {
        let room = room();
        let (mut tx, mut rx) = (seat(&room, "producer", kind), seat(&room, "consumer", kind));
        let unused = room.contents();
        // There is room, and the fast path has never asked the kernel: the child must ask all the
        // same.
        for line in [
            "try-push 0",
            "push 0 1",
            "place 0",
            "hold-push 0 1",
            "wait-for consumer 100",
        ] {
            is_forked(&tx.ok(&format!("fork {line}")));
        }
        unused.are_those_of(&room, "the child wrote into the channel");
        // The same holds in the middle of traffic.
        tx.ok("push 0 5");
        is_forked(&tx.ok("fork try-push 5"));
        is_forked(&tx.ok("fork try-batch 5 3"));
        tx.ok("push 5 5");
        assert_eq!(rx.numbers("drain"), (0..10).collect::<Vec<_>>());
    }
}

/// Where `MADV_WIPEONFORK` is refused, a fork handler zeroes the cached limits.
#[test]
fn a_forked_child_is_inert_unwiped() {
    for kind in KINDS {
        let room = room();
        let (mut tx, mut rx) = (room.peer(), room.peer());
        tx.ok("unwiped");
        rx.ok("unwiped");
        tx.ok(&format!("producer ticks {kind}"));
        rx.ok(&format!("consumer ticks {kind}"));
        tx.ok("push 0 5");
        let before = room.contents();
        is_forked(&tx.ok("fork try-push 5"));
        is_forked(&tx.ok("fork try-batch 5 3"));
        is_forked(&rx.ok("fork try-pop"));
        before.are_those_of(&room, "the child wrote into the channel");
        tx.ok("push 5 5");
        assert_eq!(rx.numbers("drain"), (0..10).collect::<Vec<_>>());
    }
}

/// If a batch forks in its iterator, the parent alone appends it.
#[test]
fn a_forking_batch_is_appended_once() {
    let queues = ["kind=mpmc capacity=64", "kind=records capacity=64 max=112"];
    for kind in FIXED.into_iter().chain(queues) {
        let room = room();
        let (mut tx, mut rx) = (seat(&room, "producer", kind), seat(&room, "consumer", kind));
        let said = tx.ok("fork-iterator 0 5");
        is_forked(&said);
        assert_eq!(said.last().unwrap(), "5");
        assert_eq!(rx.numbers("drain"), (0..5).collect::<Vec<_>>());
    }
}

/// A forked consumer refuses even messages that it knows to be there.
#[test]
fn a_forked_consumer_refuses_any_pop() {
    for kind in KINDS {
        let room = room();
        let (mut tx, mut rx) = (seat(&room, "producer", kind), seat(&room, "consumer", kind));
        tx.ok("push 0 10");
        assert_eq!(rx.number("pop 1"), 0);
        let before = room.contents();
        for line in ["try-pop", "pop 1", "hold-pop 3", "wait-for producer 100"] {
            is_forked(&rx.ok(&format!("fork {line}")));
        }
        before.are_those_of(&room, "the child wrote into the channel");
        assert_eq!(rx.numbers("drain"), (1..10).collect::<Vec<_>>());
    }
}

/// A forked child that drops its handles, aborts or panics does not leave its parent's role.
#[test]
fn a_childs_drop_frees_no_role() {
    for kind in KINDS {
        let room = room();
        let (mut tx, mut rx) = (seat(&room, "producer", kind), seat(&room, "consumer", kind));
        tx.ok("push 0 3");
        for how in ["leave", "abort", "panic"] {
            assert_eq!(tx.ok(&format!("fork {how} producer")), ["ok"]);
            assert_eq!(rx.ok(&format!("fork {how} consumer")), ["ok"]);
            for role in ["producer", "consumer"] {
                let said = room.peer().ok(&format!("seat ticks {role}"));
                assert_eq!(said[..2], ["held".to_owned(), "1".to_owned()]);
                room.peer()
                    .refused(&format!("{role} ticks {kind}"), "RoleTaken", &[]);
            }
        }
        assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
        rx.refused("pop 1 timeout=50", "TimedOut", &[]);
        tx.ok("push 3 1");
        assert_eq!(rx.number("pop 1"), 3);
    }
}

/// A guard that is finished in a forked child releases nothing and publishes nothing.
#[test]
fn a_childs_guards_change_nothing() {
    for kind in FIXED {
        let room = room();
        let (mut tx, mut rx) = (seat(&room, "producer", kind), seat(&room, "consumer", kind));
        tx.ok("push 0 4");
        // The child drops its copy of a read in progress: it is not released.
        assert_eq!(rx.numbers("hold-pop 3"), [0, 1, 2]);
        let before = room.contents();
        rx.ok("fork 0");
        before.are_those_of(&room, "a child released what its parent reads");
        rx.ok("release");
        // The child commits its copy of a reservation: nothing is published.
        assert_eq!(tx.numbers("hold-push 4 1"), [4]);
        tx.ok("fork 1");
        assert_eq!(
            rx.numbers("drain"),
            [3],
            "a child published what its parent writes"
        );
        tx.ok("commit 1");
        assert_eq!(rx.numbers("drain"), [4]);
    }
}

/// A child, forked or executed, does not keep the role of its dead parent.
#[test]
fn children_hold_no_dead_parents_role() {
    for kind in KINDS {
        for how in ["fork-linger", "exec-linger"] {
            let room = room();
            let (mut tx, mut rx) = (seat(&room, "producer", kind), seat(&room, "consumer", kind));
            tx.ok("push 0 2");
            tx.ok(how);
            rx.ok(how);
            tx.kill();
            assert_eq!(rx.numbers("pop 2"), [0, 1]);
            rx.refused("pop 1", "Disconnected", &["died"]);
            rx.kill();
            // The children are still there, and hold nothing.
            let (mut tx, mut rx) = (seat(&room, "producer", kind), seat(&room, "consumer", kind));
            tx.ok("push 2 1");
            assert_eq!(rx.number("pop 1"), 2);
            tx.ok("leave producer");
            rx.ok("leave consumer");
            room.peer().ok("remove ticks");
        }
    }
}

/// A child does not keep its dead parent's role in a passed channel either.
#[test]
fn passed_channels_free_dead_parents_roles() {
    let room = room();
    let channel = spsc::Builder::<Message>::new(64).memfd().unwrap();
    let passed = channel.descriptors();
    let seat = |role: &str| {
        let mut peer = room.peer_with(&passed);
        peer.ok(&from_fds(&passed));
        peer.ok(role);
        peer
    };
    let mut tx = seat("producer");
    tx.ok("push 0 2");
    tx.ok("fork-linger");
    is_forked(&tx.ok("fork try-push 2"));
    tx.kill();
    let mut rx = seat("consumer");
    assert_eq!(rx.numbers("pop 2"), [0, 1]);
    rx.refused("pop 1", "Disconnected", &["died"]);
    let mut tx = seat("producer");
    tx.ok("push 2 1");
    assert_eq!(rx.number("pop 1"), 2);
}

/// A process that forks while it is parked is woken all the same. A wake is for the process that
/// went to sleep. Its child neither takes it nor keeps it from coming, and the child's use of its
/// copies of the handles wakes nobody.
#[test]
fn a_parked_forking_process_is_woken() {
    for kind in KINDS {
        let room = room();
        let mut parent = room.peer();
        parent.tell(&format!("fork-parked 40 {kind} wait=sleep"));
        let mut producers = ["ticks", "tocks"].map(|name| {
            let mut tx = room.peer();
            tx.ok(&format!("producer {name} {kind}"));
            tx
        });
        for round in 0..40 {
            let said = parent.answer().unwrap();
            assert_eq!(
                said,
                [r#"Some("Forked") Some("Forked") Some("Forked") Some("Forked")"#]
            );
            for tx in &mut producers {
                tx.ok(&format!("push {round} 1"));
            }
        }
        parent.answer().unwrap();
    }
}

#[test]
fn a_child_may_attach_anew() {
    for kind in KINDS {
        let room = room();
        let mut tx = seat(&room, "producer", kind);
        tx.ok("push 0 3");
        // The child is a process like any other: it gets a free role, and not one that is taken.
        assert_eq!(tx.ok(&format!("fork consumer ticks {kind}")), ["ok"]);
        // It reports its own process id, and not the one that its parent cached.
        let pid = |role: &str| room.peer().ok(&format!("seat ticks {role}"))[2].clone();
        assert_eq!(pid("producer"), tx.pid().to_string());
        assert!(!["0".into(), tx.pid().to_string()].contains(&pid("consumer")));
        let said = tx.ok(&format!("fork producer ticks {kind}"));
        assert_eq!(said[1].split(' ').next(), Some("RoleTaken"));
        tx.ok("push 3 1");
    }
}

/// A child forked while another thread takes a role does not hold that role.
#[test]
fn a_concurrent_fork_holds_no_role() {
    let room = room();
    let mut parent = room.peer();
    // A thread takes the seat over and over while another forks: each round would be `RoleTaken` if a
    // child had been born with the lock of the round before.
    let takes = parent.number("fork-storm ticks 60");
    assert!(takes >= 60, "{takes}");
    // All 60 children are still there; the parent and others may take seats.
    parent.ok("producer ticks");
    parent.ok("push 0 1");
    parent.kill();
    let (mut tx, mut rx) = (seat(&room, "producer", ""), seat(&room, "consumer", ""));
    tx.ok("push 1 1");
    assert_eq!(rx.numbers("pop 2"), [0, 1]);
}

/// A channel on the heap is inert in a forked child. Its memory is a copy there, but its pipes
/// would be the parent's.
#[test]
fn heap_channels_refuse_forked_children() {
    for kind in KINDS {
        let room = room();
        let mut parent = room.peer();
        parent.ok(&format!("heap {kind}"));
        is_forked(&parent.ok("fork producer"));
        is_forked(&parent.ok("fork consumer"));
        parent.ok("producer");
        parent.ok("consumer");
        parent.ok("push 0 3");
        assert_eq!(parent.numbers("pop 3"), [0, 1, 2]);
    }
}

//! Tries the places in which a handle may live, and the ways in which its thread or its process may
//! end. It checks the other side's report, and the state that the next holder finds. (Forks are in
//! `fork.rs`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rustix::process::{Pid, Signal, kill_process};
use slipring_tests::{Peer, Place, Room, eventually};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
const KINDS: [&str; 2] = ["kind=spsc capacity=64", "kind=bytes capacity=4096 max=112"];

/// Runs a story for each kind, named and passed, and for each role. The holder does `act`. The
/// other side learns of this end, after all accepted messages; the next holder goes on where the
/// last one was.
fn ends(end: &str, act: impl Fn(&mut Peer, &str)) {
    for place in Place::all(PEER, &KINDS) {
        for role in ["producer", "consumer"] {
            let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
            let first = tx.number("next");
            tx.ok(&format!("push {first} 3"));
            assert_eq!(rx.number("pop 1"), first);
            if role == "producer" {
                act(&mut tx, role);
                assert_eq!(rx.numbers("pop 2"), [first + 1, first + 2]);
                rx.refused("pop 1", "Disconnected", &[end]);
                let mut tx = place.seat(role);
                assert_eq!(tx.number("next"), first + 3, "{}", place.shown());
                tx.ok(&format!("push {} 1", first + 3));
                assert_eq!(rx.number("pop 1"), first + 3);
            } else {
                act(&mut rx, role);
                let line = format!("push {} 1000", first + 3);
                tx.refused(&line, "Disconnected", &[end]);
                let mut rx = place.seat(role);
                let next = tx.number("next");
                let left = (first + 1..next).collect::<Vec<_>>();
                assert_eq!(rx.numbers("drain"), left, "{}", place.shown());
            }
        }
    }
}

/// The process ends by returning from `main`.
fn returns(peer: &mut Peer) {
    assert!(peer.end(), "it did not end well");
}

/// A handle that is a local variable of `main` finishes when `main` returns.
#[test]
fn a_local_of_main_finishes() {
    ends("finished", |peer, _| returns(peer));
}

/// A handle in a static is not dropped when `main` returns.
#[test]
fn a_static_handle_is_not_dropped() {
    ends("died", |peer, role| {
        peer.ok(&format!("life-static {role}"));
        returns(peer);
    });
}

/// A handle that an exit handler drops finishes.
#[test]
fn a_drop_at_exit_finishes() {
    ends("finished", |peer, role| {
        peer.ok(&format!("life-at-exit {role}"));
        returns(peer);
    });
}

/// A handle that was forgotten keeps its role until its process ends.
#[test]
fn a_forgotten_handle_keeps_its_role() {
    ends("died", |peer, role| {
        peer.ok(&format!("life-forgotten {role}"));
        returns(peer);
    });
}

/// A handle in another thread is not dropped when `main` returns.
#[test]
fn other_threads_handles_are_not_dropped() {
    ends("died", |peer, role| {
        peer.ok(&format!("life-elsewhere {role}"));
        returns(peer);
    });
}

#[test]
fn exit_drops_no_handle() {
    ends("died", |peer, _| peer.tell("life-exit"));
}

#[test]
fn abort_drops_no_handle() {
    ends("died", |peer, _| peer.tell("life-abort"));
}

/// A handle in a thread that panics ends as aborted.
#[test]
fn a_panic_aborts_the_threads_handle() {
    ends("aborted", |peer, role| {
        peer.ok(&format!("life-panic {role}"));
        assert!(peer.is_running());
    });
}

/// A thread-local handle finishes when its thread ends.
#[test]
fn a_thread_local_handle_finishes() {
    ends("finished", |peer, role| {
        peer.ok(&format!("life-local {role}"));
        assert!(peer.is_running());
    });
}

/// A thread-local handle of the main thread finishes when `main` returns. glibc behaves so; the
/// standard library does not promise it.
#[test]
fn a_main_thread_local_handle_finishes() {
    ends("finished", |peer, role| {
        peer.ok(&format!("life-main-local {role}"));
        returns(peer);
    });
}

/// Exec frees the role, though the process lives on: the new program, in the same process, may take
/// it.
#[test]
fn exec_frees_the_role() {
    ends("died", |peer, _| {
        let before = peer.pid();
        peer.ok("life-exec");
        peer.ok("list");
        assert_eq!(peer.pid(), before);
    });
    for kind in KINDS {
        let room = Room::new(PEER);
        let mut tx = room.peer();
        tx.ok(&format!("producer ticks {kind}"));
        tx.ok("push 0 3");
        tx.ok("life-exec");
        tx.ok(&format!("producer ticks {kind}"));
        assert_eq!(tx.number("next"), 3);
    }
}

/// A handle outlives the thread that made it.
#[test]
fn a_handle_outlives_its_first_thread() {
    for kind in KINDS {
        let room = Room::new(PEER);
        let (mut tx, mut rx) = (room.peer(), room.peer());
        tx.ok(&format!("life-born producer ticks {kind}"));
        rx.ok(&format!("life-born consumer ticks {kind}"));
        for (peer, role) in [(&mut tx, "producer"), (&mut rx, "consumer")] {
            assert_eq!(peer.ok(&format!("disconnected {role}")), ["false"]);
            let line = format!("{role} ticks {kind}");
            room.peer().refused(&line, "RoleTaken", &[]);
        }
        // The consumer is asleep, or awake.
        rx.tell("pop 3");
        tx.ok("push 0 3");
        assert_eq!(rx.answer().unwrap(), ["0", "1", "2"]);
        rx.tell("pop 1");
        tx.kill();
        assert_eq!(rx.answer().unwrap_err().debug, "Disconnected(Died)");
    }
}

/// Peers in different pid namespaces find out about each other's deaths, and about nothing else.
/// Each of two processes is number 1 to itself: locks, not numbers, say which is alive.
#[test]
fn deaths_are_reported_across_pid_namespaces() {
    for place in Place::all(PEER, &KINDS) {
        let (mut tx, mut rx) = (place.peer(), place.peer());
        let mut outside = [0; 2];
        for (peer, outside) in [&mut tx, &mut rx].into_iter().zip(&mut outside) {
            let said = &peer.ok("life-namespace")[0];
            if said == "refused" {
                eprintln!("skipped: this user may not make pid namespaces");
                return;
            }
            *outside = said.parse().unwrap();
        }
        place.sit(&mut tx, "producer", 0);
        place.sit(&mut rx, "consumer", 0);
        if place.shown().starts_with("named") {
            for role in ["producer", "consumer"] {
                let said = place.room.peer().ok(&format!("seat ticks {role}"));
                assert_eq!([&said[0], &said[2]], ["held", "1"]);
            }
        }
        rx.tell("pop 3");
        tx.ok("push 0 3");
        assert_eq!(rx.answer().unwrap(), ["0", "1", "2"], "{}", place.shown());
        // We are in a third namespace, and look as well.
        let options = place.options;
        let mut third = place.peer();
        if place.shown().starts_with("named") {
            third.refused(&format!("producer ticks {options}"), "RoleTaken", &["1"]);
        }
        rx.tell("pop 1");
        kill_process(Pid::from_raw(outside[0]).unwrap(), Signal::KILL).unwrap();
        assert_eq!(rx.answer().unwrap_err().debug, "Disconnected(Died)");
        assert_eq!(rx.ok("disconnected consumer"), ["true"]);
        let mut tx = place.seat("producer");
        assert_eq!(tx.number("next"), 3);
        tx.ok("push 3 1");
        assert_eq!(rx.number("pop 1"), 3);
        kill_process(Pid::from_raw(outside[1]).unwrap(), Signal::KILL).unwrap();
        tx.refused("push 4 1000", "Disconnected", &["died"]);
        eventually("its parent goes with it", || !rx.is_running());
    }
}

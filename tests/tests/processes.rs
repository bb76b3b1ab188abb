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

#[test]
fn a_handle_that_is_a_local_of_main_finishes_when_main_returns() {
    ends("finished", |peer, _| returns(peer));
}

#[test]
fn a_handle_in_a_static_is_not_dropped_when_main_returns() {
    ends("died", |peer, role| {
        peer.ok(&format!("life-static {role}"));
        returns(peer);
    });
}

#[test]
fn a_handle_that_an_exit_handler_drops_finishes() {
    ends("finished", |peer, role| {
        peer.ok(&format!("life-at-exit {role}"));
        returns(peer);
    });
}

#[test]
fn a_handle_that_was_forgotten_keeps_its_seat_until_its_process_ends() {
    ends("died", |peer, role| {
        peer.ok(&format!("life-forgotten {role}"));
        returns(peer);
    });
}

#[test]
fn a_handle_in_another_thread_is_not_dropped_when_main_returns() {
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

#[test]
fn a_handle_in_a_thread_that_panics_aborts() {
    ends("aborted", |peer, role| {
        peer.ok(&format!("life-panic {role}"));
        assert!(peer.is_running());
    });
}

#[test]
fn a_thread_local_handle_finishes_when_its_thread_ends() {
    ends("finished", |peer, role| {
        peer.ok(&format!("life-local {role}"));
        assert!(peer.is_running());
    });
}

/// glibc behaves so; the standard library does not promise it.
#[test]
fn a_thread_local_handle_of_the_main_thread_finishes_when_main_returns() {
    ends("finished", |peer, role| {
        peer.ok(&format!("life-main-local {role}"));
        returns(peer);
    });
}

/// The seat is free, and the new program, in the same process, may take it.
#[test]
fn exec_frees_the_seat_though_the_process_lives_on() {
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

#[test]
fn a_handle_outlives_the_thread_that_made_it() {
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

/// Each of two processes is number 1 to itself: locks, not numbers, say which is alive.
#[test]
fn peers_in_other_pid_namespaces_are_told_of_each_others_deaths_only() {
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

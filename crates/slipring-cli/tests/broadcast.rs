//! `send` and `recv` over a `broadcast` channel of records: every receiver gets all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;

use common::{Place, noise, text, until};
use rustix::process::Signal;

fn held_receivers(place: &Place) -> usize {
    let Some(stat) = place.stat("x") else {
        return 0;
    };
    let seats = stat["consumers"].as_array().unwrap().clone();
    seats.iter().filter(|seat| seat["state"] == "held").count()
}

/// Three receivers, of whom one is killed on the way: the others get every byte, and the sender ends.
#[test]
fn every_receiver_gets_all() {
    let place = Place::new();
    let input = place.file("input");
    let content = noise(8 << 20, 5);
    fs::write(&input, &content).unwrap();
    let outputs = [1, 2, 3].map(|number| place.file(&format!("output-{number}")));
    let mut receivers = outputs
        .each_ref()
        .map(|output| place.recv(&["x", "--broadcast"], output));
    until("all receive", || held_receivers(&place) == 3);
    // An existing channel needs no flag.
    receivers[2].signal(Signal::STOP);
    let mut sender = place.send(&["x"], &input);
    let stopped = || place.stat("x").unwrap()["producer"]["waits"].as_u64() > Some(0);
    until("the sender waits for the one that was stopped", stopped);
    assert!(sender.is_running());
    receivers[2].signal(Signal::KILL);
    assert_eq!(sender.code(), Some(0), "{}", sender.stderr());
    for (receiver, output) in receivers.iter_mut().zip(&outputs).take(2) {
        assert_eq!(receiver.code(), Some(0), "{}", receiver.stderr());
        assert!(fs::read(output).unwrap() == content);
    }
    assert_eq!(place.stat("x").unwrap()["kind"], "broadcast-records");
}

/// Lines and frames keep their marks. A receiver that comes late gets what is kept; the sender has waited for nobody.
#[test]
fn late_receivers_get_what_is_kept() {
    let place = Place::new();
    let mut sender = place.send_open(&["x", "--broadcast", "--lines"]);
    let mut input = sender.0.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    drop(input);
    assert_eq!(sender.code(), Some(0));
    for _ in 0..2 {
        let output = place.run(&["recv", "x", "--lines"]);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), "one\ntwo\n".into())
        );
    }
    let refused = place.run(&["recv", "x", "--framed"]);
    assert_eq!(refused.status.code(), Some(1));
    let shown = place.run(&["tail", "x", "--oldest", "--json"]);
    let shown = common::objects(&shown.stdout);
    let numbers: Vec<_> = shown.iter().map(|shown| shown["number"].as_u64()).collect();
    assert_eq!(numbers, [Some(0), Some(16)], "positions, in bytes");
    let mut other = place.send_open(&["frames", "--broadcast", "--framed"]);
    other
        .0
        .stdin
        .take()
        .unwrap()
        .write_all(b"\x02\0\0\0ab")
        .unwrap();
    assert_eq!(other.code(), Some(0));
    assert_eq!(place.run(&["recv", "frames"]).stdout, b"\x02\0\0\0ab");
}

#[test]
fn other_kinds_are_refused() {
    let place = Place::new();
    assert!(place.run(&["create", "x"]).status.success());
    for verb in ["send", "recv"] {
        let output = place.run(&[verb, "x", "--broadcast"]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        let said = text(&output.stderr);
        assert!(
            said.contains("is of kind `bytes`, this program asked for `broadcast-records`"),
            "{said}"
        );
    }
    let output = place.run(&["send", "y", "--broadcast", "--queue", "--lines"]);
    assert_eq!(output.status.code(), Some(2));
}

/// A receiver of all keeps no place for the next one, and does not say that it did.
#[test]
fn unread_output_keeps_no_place() {
    let place = Place::new();
    let mut recv = place.recv_piped(&["x", "--broadcast"]);
    until("the receiver is there", || held_receivers(&place) == 1);
    drop(recv.0.stdout.take());
    let mut sender = place.send_open(&["x", "--broadcast", "--lines"]);
    let mut input = sender.0.stdin.take().unwrap();
    input.write_all(b"unread\n").unwrap();
    assert_eq!(recv.code(), Some(141));
    let said = recv.stderr();
    assert!(
        said.contains("begins at the oldest record") && !said.contains("kept"),
        "{said}"
    );
    drop(input);
    assert_eq!(sender.code(), Some(0));
}

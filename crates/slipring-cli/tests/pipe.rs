//! `send` beside `recv` carries any input, whichever starts first, and whatever happens to either.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Place, noise, until};
use rustix::process::Signal;

/// A file arrives whole when the sender starts first.
#[test]
fn sender_first_delivers_the_whole_file() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, noise(5 << 20, 1)).unwrap();
    let mut send = place.send(&["x"], &input);
    place.until_seat("x", "producer", "held", 1);
    let mut recv = place.recv(&["x"], &copy);
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
    assert!(fs::read(&input).unwrap() == fs::read(&copy).unwrap());
}

/// A file arrives whole when the receiver starts first.
#[test]
fn receiver_first_delivers_the_whole_file() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, noise((5 << 20) + 1, 2)).unwrap();
    let mut recv = place.recv(&["deep/x"], &copy);
    place.until_seat("deep/x", "consumer", "held", 1);
    let mut send = place.send(&["deep/x"], &input);
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
    assert!(fs::read(&input).unwrap() == fs::read(&copy).unwrap());
}

/// A file of one GiB arrives with the same SHA-256 digest.
#[test]
fn one_gib_arrives_intact() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    let mut file = File::create(&input).unwrap();
    let mut block = noise(16 << 20, 3);
    for number in 0..64_u64 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block).unwrap();
    }
    drop(file);
    let mut recv = place.recv(&["x"], &copy);
    let mut send = place.send(&["x"], &input);
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
    let hash = |path: &PathBuf| {
        Command::new("sha256sum")
            .stdin(File::open(path).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let hashes = [hash(&input), hash(&copy)].map(|child| child.wait_with_output().unwrap());
    assert!(hashes[0].status.success());
    assert_eq!(
        common::text(&hashes[0].stdout),
        common::text(&hashes[1].stdout)
    );
    assert_eq!(fs::metadata(&copy).unwrap().len(), 1 << 30);
}

/// No input at all still makes a stream, which finishes and is received as an empty file.
#[test]
fn empty_input_makes_a_finished_stream() {
    let place = Place::new();
    let copy = place.file("copy");
    assert!(place.run(&["send", "x"]).status.success());
    assert_eq!(place.recv(&["x"], &copy).code(), Some(0));
    assert_eq!(fs::read(&copy).unwrap(), b"");
}

/// Frames show the records of a channel without a mark as they are; `--lines` adds no newline to
/// them.
#[test]
fn framed_tells_the_records_apart() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, "aaaabbbbcc").unwrap();
    let made = place.run(&["create", "x", "--ring", "1K", "--max-record", "8"]);
    assert!(made.status.success());
    let received = |format: &str| {
        assert_eq!(place.send(&["x", "--chunk", "4"], &input).code(), Some(0));
        assert_eq!(place.recv(&["x", format], &copy).code(), Some(0));
        fs::read(&copy).unwrap()
    };
    assert_eq!(received("--raw"), b"aaaabbbbcc");
    assert_eq!(
        received("--framed"),
        b"\x04\0\0\0aaaa\x04\0\0\0bbbb\x02\0\0\0cc"
    );
    assert_eq!(place.run(&["recv", "x", "--lines"]).status.code(), Some(1));
}

/// A channel made for small records can carry a large file.
#[test]
fn small_records_carry_a_large_file() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, noise(100_001, 4)).unwrap();
    let made = place.run(&["create", "x", "--ring", "1K", "--max-record", "100"]);
    assert!(made.status.success());
    let mut send = place.send(&["x"], &input);
    let mut recv = place.recv(&["x"], &copy);
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
    assert!(fs::read(&input).unwrap() == fs::read(&copy).unwrap());
}

/// What is written bit by bit arrives bit by bit, without waiting for more input.
#[test]
fn data_arrives_as_it_is_written() {
    let place = Place::new();
    let mut send = place.send_open(&["x"]);
    let mut recv = place.recv_piped(&["x"]);
    let (mut to, mut from) = (send.0.stdin.take().unwrap(), recv.0.stdout.take().unwrap());
    for word in ["one", "two", "three"] {
        to.write_all(word.as_bytes()).unwrap();
        let mut back = vec![0; word.len()];
        from.read_exact(&mut back).unwrap();
        assert_eq!(back, word.as_bytes());
    }
    drop(to);
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
}

/// Bytes that a receiver could no longer write out are kept for the next receiver.
#[test]
fn unread_data_waits_for_a_receiver() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, noise(100_000, 5)).unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    let mut recv = place.recv_piped(&["x"]);
    drop(recv.0.stdout.take());
    assert_eq!(recv.code(), Some(141));
    assert!(recv.stderr().contains("is kept for the next recv"));
    place.until_seat("x", "consumer", "aborted", 1);
    assert_eq!(place.recv(&["x"], &copy).code(), Some(0));
    let (input, copy) = (fs::read(&input).unwrap(), fs::read(&copy).unwrap());
    // Nothing was written if the pipe was closed at once, and little if recv was quick.
    assert!(!copy.is_empty() && input.ends_with(&copy));
}

/// A receiver whose output is stuck still leaves on SIGINT.
#[test]
fn sigint_ends_a_stuck_receiver() {
    let place = Place::new();
    let input = place.file("input");
    fs::write(&input, noise(2 << 20, 6)).unwrap();
    let mut send = place.send(&["x"], &input);
    let mut recv = place.recv_piped(&["x"]);
    // The pipe is full, then the ring.
    until("the channel is full", || {
        place
            .stat("x")
            .is_some_and(|stat| stat["len"].as_u64() > Some(400 << 10))
    });
    // The sender may have filled the channel before a receiver came that could leave.
    place.until_seat("x", "consumer", "held", 1);
    recv.signal(Signal::INT);
    assert_eq!(recv.code(), Some(130));
    place.until_seat("x", "consumer", "aborted", 1);
    send.signal(Signal::TERM);
    assert_eq!(send.code(), Some(143));
}

/// A sender goes on when its receiver is killed; a second one gets the rest, and nothing is lost.
#[test]
fn senders_outlive_a_killed_receiver() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    let all = noise(2 << 20, 7);
    fs::write(&input, &all).unwrap();
    let mut send = place.send(&["x"], &input);
    let mut first = place.recv_piped(&["x"]);
    until("the channel is full", || {
        place
            .stat("x")
            .is_some_and(|stat| stat["len"].as_u64() > Some(400 << 10))
    });
    // Before that no receiver is there whose death could be reported.
    place.until_seat("x", "consumer", "held", 1);
    first.signal(Signal::KILL);
    assert_eq!(first.code(), None);
    let mut before = Vec::new();
    first
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut before)
        .unwrap();
    let mut stderr = send.0.stderr.take().unwrap();
    let mut said = [0; 60];
    stderr.read_exact(&mut said).unwrap();
    assert_eq!(
        common::text(&said),
        "slipring: the channel is full, and its receiver died; waiting"[..60]
    );
    let mut second = place.recv(&["x"], &copy);
    assert_eq!((send.code(), second.code()), (Some(0), Some(0)));
    let after = fs::read(&copy).unwrap();
    assert!(all.starts_with(&before) && all.ends_with(&after));
    // The record in hand comes again, and no other does.
    assert!(before.len() + after.len() >= all.len());
    assert!(before.len() + after.len() <= all.len() + (128 << 10));
}

//! `pub` of a topic with few slots, all of which subscribers hold: it says who, and waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::{Place, Running};
use rustix::process::Signal;

/// A process of its own makes a topic in which a publisher has two slots, and holds the first message.
#[test]
fn publishers_name_those_who_hold_slots() {
    if std::env::var_os("TOPICS_HOLDER").is_some() {
        let topic = slipring::topic::records::Builder::new(1, 64).pool(2);
        let mut rx = topic.consumer("x").unwrap();
        println!("waits");
        let held = rx.read_owned().unwrap();
        assert_eq!(&held[..], b"one");
        println!("holds");
        // Until the test kills it.
        std::thread::park();
        return;
    }
    let place = Place::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "publishers_name_those_who_hold_slots";
    command.args(["--exact", name, "--nocapture", "-q"]);
    command.env("SLIPRING_DIR", place.channels());
    command.env("TOPICS_HOLDER", "1").stdout(Stdio::piped());
    let mut holder = Running::start(&mut command);
    let pid = holder.0.id();
    let mut lines = BufReader::new(holder.0.stdout.take().unwrap()).lines();
    let mut says = |word| assert!(lines.any(|line| line.unwrap().ends_with(word)));
    says("waits");
    let publish = |input: &[u8]| {
        let mut command = place.command(&["pub", "x"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let mut stdin = running.0.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        running
    };
    assert_eq!(publish(b"one\n").code(), Some(0));
    says("holds");
    let mut publisher = publish(b"two\nthree\n");
    let mut said = String::new();
    let mut errors = BufReader::new(publisher.0.stderr.take().unwrap());
    errors.read_line(&mut said).unwrap();
    let expected = format!("subscriber 0 (process {pid}) holds 1; waiting");
    assert!(said.contains(&expected), "{said}");
    holder.signal(Signal::KILL);
    assert_eq!(publisher.code(), Some(0));
}

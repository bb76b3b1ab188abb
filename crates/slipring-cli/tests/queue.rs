//! `ls` and `stat` beside a work queue. Its ends live in a process of its own: this test's executable becomes that process
//! on request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::{Command, Stdio};

use common::{Place, text};
use serde_json::Value;

/// The process holds two of 16 producers' seats and one of 16 consumers', and runs the command.
#[test]
fn many_seats_take_few_columns() {
    if let Ok(program) = std::env::var("QUEUE_COMMAND") {
        let channel = slipring::mpmc::Builder::<u64>::new(8);
        let mut tx = channel.producer("jobs").unwrap();
        let (_other, _rx) = (tx.another().unwrap(), channel.consumer("jobs").unwrap());
        tx.push(1).unwrap();
        for args in [&["ls"][..], &["stat", "jobs"], &["stat", "jobs", "--json"]] {
            assert!(
                Command::new(&program)
                    .args(args)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        return;
    }
    let place = Place::new();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "many_seats_take_few_columns",
            "--nocapture",
            "-q",
        ])
        .env("SLIPRING_DIR", place.channels())
        .env("QUEUE_COMMAND", env!("CARGO_BIN_EXE_slipring"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for line in [
        "2 of 16 held  1 of 16 held",
        "producer 1  held",
        "consumer 0  held",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(!shown.contains("never"), "{shown}");
    // The rest of the output is of the test's own process.
    let begin = shown.find("\n{").unwrap() + 1;
    let mut values = serde_json::Deserializer::from_str(&shown[begin..]).into_iter::<Value>();
    let stat = values.next().unwrap().unwrap();
    let indices = |side: &str| {
        let seats = stat[side].as_array().unwrap().iter();
        seats.map(|seat| seat["index"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(indices("producers"), [Some(0), Some(1)]);
    assert_eq!(indices("consumers"), [Some(0)]);
}

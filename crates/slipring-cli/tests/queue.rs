//! `ls` and `stat` beside a work queue. Its ends live in a process of its own: this test's executable becomes that process
//! on request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use common::{Place, Running, noise, text};
use rustix::process::Signal;
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

/// A process of its own holds an item, a batch and a reservation while `stat` is asked, and goes on holding them after a kill.
#[test]
fn stat_tells_who_holds_what() {
    if std::env::var_os("QUEUE_HOLDER").is_some() {
        let channel = slipring::mpmc::Builder::<u64>::new(8).dead_letters(1, 4);
        let mut tx = channel.producer("jobs").unwrap();
        let mut rx = channel.consumer("jobs").unwrap();
        tx.push_slice(&[1, 2]).unwrap();
        rx.read().unwrap().keep();
        assert_eq!(rx.pop(), Ok(2), "the first is put aside");
        tx.push_slice(&[3, 4]).unwrap();
        let _reserved = tx.reserve(2).unwrap();
        let _item = rx.read_owned().unwrap();
        println!("holds");
        // Until the test kills it.
        std::thread::park();
        return;
    }
    let place = Place::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "stat_tells_who_holds_what", "--nocapture", "-q"]);
    command.env("SLIPRING_DIR", place.channels());
    command.env("QUEUE_HOLDER", "1").stdout(Stdio::piped());
    let mut holder = Running::start(&mut command);
    let pid = holder.0.id();
    let mut lines = BufReader::new(holder.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("holds")));
    let check = || {
        let stat = place.stat("jobs").unwrap();
        let claims = stat["claims"].as_array().unwrap();
        assert_eq!(claims.len(), 2, "{stat:#}");
        let [held, reserved] = [&claims[0], &claims[1]];
        assert_eq!(held["held_for_ns"].as_u64().map(|_| ()), Some(()));
        for (claim, role, state, count) in [
            (held, "consumer", "held", 1),
            (reserved, "producer", "reserved", 2),
        ] {
            assert_eq!(
                (&claim["role"], &claim["state"]),
                (&role.into(), &state.into())
            );
            assert_eq!(
                (&claim["count"], &claim["pid"]),
                (&count.into(), &pid.into())
            );
            assert_eq!(
                (&claim["index"], &claim["deliveries"]),
                (&0.into(), &0.into())
            );
        }
        assert_eq!(held["position"], 2);
        assert_eq!(reserved["held_for_ns"], Value::Null);
        assert_eq!(
            (&stat["dead_letters"], &stat["returned"]),
            (&1.into(), &0.into())
        );
        let shown = text(&place.run(&["stat", "jobs"]).stdout);
        let rows: Vec<Vec<_>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let pid = pid.to_string();
        assert!(rows.contains(&vec!["dead", "letters", "1"]), "{shown}");
        assert!(
            rows.iter()
                .any(|row| row.starts_with(&["consumer", "0", &pid, "held", "2", "1"])),
            "{shown}"
        );
        let reserved = ["producer", "0", &pid, "reserved", "4", "2", "-", "-"];
        assert!(rows.contains(&reserved.to_vec()), "{shown}");
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
    };
    check();
    holder.signal(Signal::KILL);
    assert_eq!(holder.code(), None);
    // Nobody has repaired its seats yet: `stat` only reads.
    check();
}

/// A stranger overwrites the whole data part of a queue with unread items. `ls` and `stat` say the same as before: they
/// read the control part alone.
#[test]
fn scribbled_data_changes_no_figure() {
    let place = Place::new();
    let input = place.file("input");
    std::fs::write(&input, "a\nb\nc\n").unwrap();
    let mut send = place.send(&["jobs", "--queue", "--lines"], &input);
    assert_eq!(send.code(), Some(0), "{}", send.stderr());
    // Times go on by themselves.
    let stat = || {
        let mut stat = place.stat("jobs").expect("stat succeeds");
        let seats = stat["producers"].as_array_mut().unwrap();
        for seat in seats {
            let seat = seat.as_object_mut().unwrap();
            seat.retain(|figure, _| !figure.contains("age"));
        }
        stat.as_object_mut()
            .unwrap()
            .retain(|figure, _| !figure.contains("idle"));
        stat
    };
    let before = stat();
    assert_eq!(before["unread"], 3);
    let path = place.channels().join("jobs").join("data");
    let data = std::fs::File::options().write(true).open(path).unwrap();
    let len = data.metadata().unwrap().len() as usize;
    for seed in 1..20 {
        data.write_all_at(&noise(len, seed), 0).unwrap();
        assert_eq!(stat(), before);
        for args in [&["ls"][..], &["ls", "--json"], &["stat", "jobs"]] {
            let output = place.run(args);
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert!(text(&output.stdout).contains("jobs"));
        }
    }
}

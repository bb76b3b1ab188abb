//! `tail` beside topics, and beside `broadcast` channels of records. It takes no seat, and its messages are whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::{Place, Running, noise, objects, publish, text, until};
use rustix::process::Signal;

/// Starts `tail x ARGS..`, whose output the test reads.
fn tail(place: &Place, args: &[&str]) -> (Running, impl FnMut() -> String + use<>) {
    let all = [&["tail", "x"], args].concat();
    let mut running = Running::start(place.command(&all).stdout(Stdio::piped()));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap());
    let line = move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };
    (running, line)
}

/// Publishes, and insists on success.
fn published(place: &Place, args: &[&str], input: &[u8]) {
    let output = publish(place, args, input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn topics_are_shown_from_outside() {
    let place = Place::new();
    published(&place, &["x", "--history", "4"], b"0\n1\n2\n3\n4\n5\n");
    let files = ["control", "data"].map(|part| place.channels().join("x").join(part));
    let before = files.each_ref().map(|file| fs::read(file).unwrap());
    // What is there, then the end of the last publisher.
    let shown = place.run(&["tail", "x", "--oldest", "--json"]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    let shown = objects(&shown.stdout);
    let bytes: Vec<_> = shown.iter().map(|shown| shown["bytes"].clone()).collect();
    assert_eq!(bytes, ["32", "33", "34", "35"]);
    let numbers: Vec<_> = shown.iter().map(|shown| shown["number"].clone()).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
    assert!(
        shown
            .iter()
            .all(|shown| shown["publisher"] == 0 && shown["time_ns"].is_null())
    );
    let lost = place.run(&["tail", "x", "--from", "1", "-n", "2"]);
    assert_eq!(text(&lost.stdout), "         2  32\n         3  33\n");
    assert_eq!(
        text(&lost.stderr),
        "slipring: 1 messages were lost unseen; 1 in all\n"
    );
    let dump = text(&place.run(&["tail", "x", "--from", "5", "--hex"]).stdout);
    assert!(
        dump.starts_with("message 5, 1 bytes\n00000000  35 "),
        "{dump}"
    );
    let count = place.run(&["tail", "x", "--oldest", "--count", "--json"]);
    let count = common::json(&count);
    assert_eq!((&count["messages"], &count["lost"]), (&4.into(), &0.into()));
    for (file, before) in files.iter().zip(before) {
        assert!(fs::read(file).unwrap() == before, "{}", file.display());
    }
    let ahead = place.run(&["tail", "x", "--from", "7"]);
    assert_eq!(ahead.status.code(), Some(1));
}

/// With --follow it goes on with the next publishers, also where the last one was killed; without, that is its end.
#[test]
fn the_ends_of_publishers_are_told() {
    let place = Place::new();
    published(&place, &["x"], b"0\n");
    let (mut followed, mut line) = tail(&place, &["--oldest", "--follow"]);
    assert_eq!(line(), "         0  30\n");
    published(&place, &["x", "--time"], b"1\n");
    assert_eq!(line(), "         1  31\n");
    let mut killed = Running::start(place.command(&["pub", "x"]).stdin(Stdio::piped()));
    let input = killed.0.stdin.as_mut().unwrap();
    input.write_all(b"2\n").unwrap();
    assert_eq!(line(), "         2  32\n");
    let (mut ends, mut last) = tail(&place, &["--from", "2", "--json"]);
    assert!(last().contains(r#""number":2"#));
    assert!(ends.is_running(), "a publisher is there");
    killed.signal(Signal::KILL);
    assert_eq!(ends.code(), Some(4));
    assert!(ends.stderr().contains("it died"));
    published(&place, &["x"], b"3\n");
    assert_eq!(line(), "         3  33\n");
    followed.signal(Signal::TERM);
    assert_eq!(followed.code(), Some(143));
    let said = followed.stderr();
    assert!(said.contains("it died; waiting for the next one"), "{said}");
    assert!(
        said.contains("it finished; waiting for the next one"),
        "{said}"
    );
}

/// It needs no free seat, and a topic that its user may only read.
#[test]
fn full_topics_can_be_watched() {
    if std::env::var_os("TAIL_OWNER").is_some() {
        let topic = slipring::topic::Builder::<u64>::new(4)
            .producers(1)
            .consumers(1);
        let (mut tx, _rx) = (topic.producer("x").unwrap(), topic.consumer("x").unwrap());
        tx.push(0x0102).unwrap();
        let _records = {
            let records = slipring::broadcast::records::Builder::new(4096).consumers(1);
            let mut tx = records.producer("y").unwrap();
            let rx = records.consumer("y").unwrap();
            tx.push(b"some record").unwrap();
            (tx, rx)
        };
        println!("holds");
        // Until the test kills it.
        std::thread::park();
        return;
    }
    let place = Place::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "full_topics_can_be_watched", "--nocapture", "-q"]);
    command.env("SLIPRING_DIR", place.channels());
    command.env("TAIL_OWNER", "1").stdout(Stdio::piped());
    let mut owner = Running::start(&mut command);
    let mut lines = BufReader::new(owner.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("holds")));
    let shown = place.run(&["tail", "x", "--oldest", "-n", "1"]);
    assert_eq!(text(&shown.stdout), "         0  0201000000000000\n");
    let shown = place.run(&["tail", "y", "--oldest", "-n", "1", "--hex"]);
    assert!(text(&shown.stdout).contains("|some record|"));
    let stat = place.stat("x").unwrap();
    assert_eq!(stat["consumers"].as_array().unwrap().len(), 1);
}

/// A frame of some megabytes is copied whole while its slot is written again and again.
#[test]
fn large_messages_stay_whole() {
    let place = Place::new();
    let frames = [place.file("one"), place.file("other")];
    let contents = [noise(1 << 20, 1), noise(1 << 20, 2)];
    for (file, content) in frames.iter().zip(&contents) {
        fs::write(file, content).unwrap();
    }
    let paths = frames.each_ref().map(|file| file.to_str().unwrap());
    published(&place, &["x", "--history", "1", "--file", paths[0]], b"");
    let (mut tail, mut line) = tail(&place, &["--oldest", "--json", "--follow"]);
    let hex = |content: &Vec<u8>| -> String {
        content.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let known = contents.each_ref().map(hex);
    let check = |line: &str| {
        let shown = &objects(line.as_bytes())[0];
        let bytes = shown["bytes"].as_str().unwrap();
        assert!(known.iter().any(|known| known == bytes), "torn");
    };
    check(&line());
    let mut files = Vec::new();
    for _ in 0..40 {
        files.extend(paths.iter().flat_map(|path| ["--file", *path]));
    }
    let mut args = vec!["pub", "x"];
    args.extend(files);
    let mut publisher = Running::start(&mut place.command(&args));
    check(&line());
    until("all were published", || !publisher.is_running());
    tail.signal(Signal::TERM);
    loop {
        let line = line();
        // The signal may cut the last line: what no longer fits the pipe is not written.
        if !line.ends_with('\n') {
            break;
        }
        check(&line);
    }
    assert_eq!(tail.code(), Some(143));
}

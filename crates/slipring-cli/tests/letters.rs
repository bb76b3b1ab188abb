//! Dead letters of a work queue: items that kill their workers or fail are put aside, shown, tried again and dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::process::{Output, Stdio};

use common::{Place, Running, text, until};
use serde_json::{Value, json};

fn feed(place: &Place, flags: &[&str], lines: &str) {
    let input = place.file("input");
    fs::write(&input, lines).unwrap();
    let mut send = place.send(&[&["jobs", "--queue", "--lines"], flags].concat(), &input);
    assert_eq!(send.code(), Some(0), "{}", send.stderr());
}

fn work(place: &Place, flags: &[&str], script: &str) -> Output {
    let command = ["--", "sh", "-c", script, "sh", "{}"];
    place.run(&[&["work", "jobs", "--json"], flags, &command].concat())
}

fn letters(place: &Place, flags: &[&str]) -> String {
    let output = place.run(&[&["letters", "jobs"], flags].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns how many were done and failed, and how many letters there are.
fn figures(output: &Output) -> [u64; 3] {
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    ["done", "failed", "dead_letters"].map(|figure| figures[figure].as_u64().unwrap())
}

/// An item kills each worker that takes it. Three workers die of it, all other items are run, and it is put aside by a
/// fourth, which names it.
#[test]
fn poison_is_put_aside() {
    let place = Place::new();
    let lines: String = (0..40).map(|number| format!("{number}\n")).collect();
    feed(&place, &[], &(lines + "poison\n"));
    let log = place.file("log");
    let script = format!(
        "echo $1 $SLIPRING_DELIVERIES >> {}; case $1 in poison) kill -9 $PPID;; esac",
        log.display()
    );
    let args = ["work", "jobs", "--json", "--max-deliveries", "3", "--"];
    let command = ["sh", "-c", &script, "sh", "{}"];
    let start = || {
        let mut work = place.command(&[&args[..], &command].concat());
        Running::start(work.stdout(Stdio::piped()))
    };
    let mut workers = [start(), start()];
    let (mut killed, mut ended) = (0, Vec::new());
    until("the queue is done", || {
        for worker in &mut workers {
            if worker.is_running() {
                continue;
            }
            match worker.code() {
                None => killed += 1,
                Some(code) => ended.push((code, worker.stderr())),
            }
            *worker = start();
        }
        ended.iter().any(|(_, said)| said.contains("poison"))
    });
    assert_eq!(killed, 3);
    let (code, said) = ended
        .iter()
        .find(|(_, said)| said.contains("poison"))
        .unwrap();
    let expected = "item `poison` failed: 3 workers had it, and none has finished it\n";
    assert!(*code == 1 && said.contains(expected), "{said}");
    let log = fs::read_to_string(&log).unwrap();
    let runs = |item: &str| {
        let lines = log.lines().filter_map(|line| line.strip_prefix(item));
        lines
            .map(|count| count.trim().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(runs("poison "), ["0", "1", "2"]);
    let once = |number| runs(&format!("{number} ")) == ["0"];
    assert!((0..40).all(once), "{log}");
    assert_eq!(letters(&place, &[]), "  3  poison\n");
}

/// A process with four commands dies of one item. The items that run beside it are not put aside with it.
#[test]
fn neighbours_of_poison_are_run() {
    let place = Place::new();
    feed(&place, &[], "1\npoison\n2\n3\n4\n5\n");
    // Four commands have begun when the worker is killed, and the other three do not end by themselves. Later they end, and
    // fail if they see another one beside them.
    let (log, begun) = (place.file("log"), place.file("begun"));
    fs::create_dir(&begun).unwrap();
    let script = r#"
        touch "$2/$1"
        if [ "$1" = poison ]; then
            [ "$SLIPRING_DELIVERIES" -ge 2 ] || while [ $(ls "$2" | wc -l) -lt 4 ]; do sleep 0.01; done
            rm "$2"/*
            kill -9 $PPID
            exit
        fi
        [ "$SLIPRING_DELIVERIES" -ge 2 ] || exec tail -f /dev/null
        for look in 1 2 3 4 5 6 7 8; do
            [ "$(ls "$2")" = "$1" ] || exit 1
        done
        echo "$1" >> "$3"
        rm "$2/$1""#;
    let (log, begun) = (log.to_str().unwrap(), begun.to_str().unwrap());
    let run = || {
        let command = ["--", "sh", "-c", script, "sh", "{}", begun, log];
        place.run(&[&["work", "jobs", "--json", "-j4"], &command[..]].concat())
    };
    // The first two workers die with four items in hand, and the next three with the poison alone.
    for _ in 0..5 {
        assert_eq!(run().status.code(), None);
    }
    let output = work(&place, &["-j4"], "true");
    assert_eq!(figures(&output)[1..], [1, 1]);
    assert_eq!(letters(&place, &[]), "  5  poison\n");
    let mut done: Vec<_> = fs::read_to_string(log)
        .unwrap_or_default()
        .lines()
        .map(String::from)
        .collect();
    done.sort();
    assert_eq!(done.len() as u64 + figures(&output)[0], 5, "{done:?}");
}

/// Letters are shown, and stay; tried again, they are run as if for the first time; dropped, they are gone.
#[test]
fn letters_are_shown_retried_and_dropped() {
    let place = Place::new();
    feed(&place, &[], "good\nbad\x07\nworse\n");
    let script = "echo $SLIPRING_DELIVERIES $1 >&2; test $1 = good";
    let output = work(&place, &[], script);
    assert_eq!(
        (output.status.code(), figures(&output)),
        (Some(1), [1, 2, 2])
    );
    let shown = "  0  bad\\u{7}\n  0  worse\n";
    for _ in 0..2 {
        assert_eq!(letters(&place, &[]), shown);
    }
    let listed: Vec<Value> = letters(&place, &["--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected = [("bad\x07\n", 0), ("worse\n", 0)];
    assert_eq!(
        listed,
        expected.map(|(item, deliveries)| json!({ "item": item, "deliveries": deliveries }))
    );
    // The feeders have left, and an earlier worker has seen that: this one ends all the same.
    assert_eq!(letters(&place, &["--retry"]), shown);
    assert_eq!(letters(&place, &[]), "");
    let output = work(
        &place,
        &[],
        "echo $SLIPRING_DELIVERIES $1 >&2; test $1 != worse",
    );
    assert_eq!(
        (output.status.code(), figures(&output)),
        (Some(1), [1, 1, 1])
    );
    assert!(
        text(&output.stderr).contains("0 worse\n"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(letters(&place, &["--drop"]), "  0  worse\n");
    let output = place.run(&["letters", "jobs"]);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), "slipring: no dead letters in `jobs`\n".into())
    );
    assert_eq!(place.stat("jobs").unwrap()["unread"], 0);
}

/// The newest letters are kept, as many as were asked for, and at most half of the queue; 0 keeps none.
#[test]
fn old_letters_go_first() {
    let lines: String = (0..7).map(|number| format!("{number}\n")).collect();
    for (keep, kept) in [("64", 3..7), ("3", 4..7), ("0", 0..0)] {
        let place = Place::new();
        feed(&place, &["--items", "8"], &lines);
        let output = work(&place, &["--keep-letters", keep], "exit 1");
        assert_eq!(figures(&output), [0, 7, kept.clone().count() as u64]);
        let expected: String = kept.map(|number| format!("  0  {number}\n")).collect();
        assert_eq!(letters(&place, &[]), expected);
    }
}

/// A look at the letters neither makes a queue nor ends its stream.
#[test]
fn looking_disturbs_nobody() {
    let place = Place::new();
    assert_eq!(place.run(&["letters", "jobs"]).status.code(), Some(1));
    assert!(place.stat("jobs").is_none());
    feed(&place, &[], "a\n");
    assert_eq!(letters(&place, &[]), "");
    let output = work(&place, &[], "true");
    assert_eq!(
        (output.status.code(), figures(&output)),
        (Some(0), [1, 0, 0])
    );
    // Other verbs name the one that serves a queue.
    for verb in ["recv", "tail"] {
        let output = place.run(&[verb, "jobs"]);
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains("`slipring work`"),
            "{said}"
        );
    }
}

//! `pub` and `sub`: messages of topics, between processes. Nothing here waits for a time: a subscriber that comes first waits
//! for the topic, and reads it from its oldest message on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, Running, noise, objects, publish, text, until};
use rustix::process::Signal;
use serde_json::Value;

/// Publishes, and insists on success without a word.
fn published(place: &Place, args: &[&str], input: &[u8]) {
    let output = publish(place, args, input);
    assert_eq!(text(&output.stderr), "", "{args:?}");
    assert_eq!(output.status.code(), Some(0), "{args:?}");
    assert!(output.stdout.is_empty());
}

/// A `sub` whose output and errors the test reads.
struct Sub {
    running: Running,
    out: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
}

impl Sub {
    fn start(place: &Place, args: &[&str]) -> Sub {
        let mut command = place.command(&[&["sub"], args].concat());
        let mut running = Running::start(command.stdout(Stdio::piped()));
        let out = BufReader::new(running.0.stdout.take().unwrap());
        let errors = BufReader::new(running.0.stderr.take().unwrap());
        Sub {
            running,
            out,
            errors,
        }
    }

    /// Starts a `sub` for whose topics it is too early: topics that come now are read from their oldest message on.
    fn early(place: &Place, args: &[&str]) -> Sub {
        let mut sub = Sub::start(place, args);
        let mut said = String::new();
        while !said.contains("waiting for") {
            assert!(sub.errors.read_line(&mut said).unwrap() > 0, "{said}");
        }
        sub
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Waits for its end, and returns its exit code, the rest of its output, and of its errors.
    fn end(mut self) -> (Option<i32>, Vec<u8>, String) {
        let (mut rest, mut said) = (Vec::new(), String::new());
        self.out.read_to_end(&mut rest).unwrap();
        self.errors.read_to_string(&mut said).unwrap();
        (self.running.code(), rest, said)
    }
}

fn until_subscribed(place: &Place, name: &str, count: usize) {
    until("the subscribers are there", || {
        let seats = |stat: Value| {
            let seats = stat["consumers"].as_array().unwrap().clone();
            seats.iter().filter(|seat| seat["state"] == "held").count()
        };
        place.stat(name).is_some_and(|stat| seats(stat) == count)
    });
}

#[test]
fn lines_pass_as_they_are() {
    let place = Place::new();
    let sub = Sub::early(&place, &["x", "--messages", "4"]);
    published(&place, &["x"], b"one\n\ntwo \xff\nlast");
    let (code, out, said) = sub.end();
    assert_eq!((code, &out[..]), (Some(0), &b"one\n\ntwo \xff\nlast\n"[..]));
    assert_eq!(said, "");
    // The messages stay readable, and have no newline.
    let last = place.run(&["sub", "x", "--last", "3", "-n", "2", "--raw"]);
    assert_eq!(last.stdout, b"two \xff");
    let all = place.run(&["sub", "x", "--last", "99", "-n", "4", "--framed"]);
    assert_eq!(
        all.stdout,
        b"\x03\0\0\0one\0\0\0\0\x05\0\0\0two \xff\x04\0\0\0last"
    );
}

/// A pattern takes up topics of domains that come later, and no others.
#[test]
fn patterns_pick_up_new_topics() {
    let place = Place::new();
    assert!(place.run(&["create", "cam/stream"]).status.success());
    let sub = Sub::early(&place, &["cam/*", "*/imu", "--json", "-n", "5"]);
    published(&place, &["cam/a", "--time"], b"first\nsecond\n");
    published(&place, &["other/front"], b"unseen\n");
    published(&place, &["r1/imu"], b"{\"x\": 1}\n");
    published(&place, &["cam/b", "--raw"], b"\xff\0");
    published(&place, &["r2/imu"], b"\n");
    let (code, out, said) = sub.end();
    assert_eq!(code, Some(0), "{said}");
    let mut found = objects(&out);
    assert_eq!(found.len(), 5);
    let key = |found: &Value| (found["topic"].to_string(), found["sequence"].as_u64());
    found.sort_by_key(key);
    let topics: Vec<_> = found.iter().map(|found| found["topic"].clone()).collect();
    assert_eq!(topics, ["cam/a", "cam/a", "cam/b", "r1/imu", "r2/imu"]);
    let texts: Vec<_> = found.iter().map(|found| found["text"].clone()).collect();
    assert_eq!(texts[..2], ["first", "second"]);
    assert_eq!(
        (&texts[2], &found[2]["bytes"]),
        (&Value::Null, &Value::from("ff00"))
    );
    assert_eq!(texts[3..], ["{\"x\": 1}", ""]);
    let sequences: Vec<_> = found
        .iter()
        .map(|found| found["sequence"].clone())
        .collect();
    assert_eq!(sequences, [0, 1, 0, 0, 0]);
    assert!(found.iter().all(|found| found["publisher"] == 0));
    // Only the first publisher noted times.
    let times: Vec<_> = found
        .iter()
        .map(|found| found["time_ns"].as_u64())
        .collect();
    assert!(times[0] > Some(0) && times[1] >= times[0], "{times:?}");
    assert_eq!(times[2..], [None; 3]);
}

/// Several topics tell their names; the set holds more of them than it has doorbells.
#[test]
fn many_topics_share_a_set() {
    let place = Place::new();
    let sub = Sub::early(&place, &["many/*"]);
    let count = 140;
    for number in 0..count / 2 {
        published(
            &place,
            &[&format!("many/{number}"), "--max-size", "64"],
            b"hello\n",
        );
    }
    let mut sub = sub;
    let mut seen: Vec<_> = (0..count / 2).map(|_| sub.line()).collect();
    for number in count / 2..count {
        published(
            &place,
            &[&format!("many/{number}"), "--max-size", "64"],
            b"hello\n",
        );
    }
    seen.extend((0..count / 2).map(|_| sub.line()));
    seen.sort();
    let mut expected: Vec<_> = (0..count)
        .map(|number| format!("many/{number}\thello\n"))
        .collect();
    expected.sort();
    assert_eq!(seen, expected);
    // Later publishers come to all of them.
    for number in [0, 100, 139] {
        published(&place, &[&format!("many/{number}")], b"again\n");
        assert_eq!(sub.line(), format!("many/{number}\tagain\n"));
    }
    sub.running.signal(Signal::TERM);
    assert_eq!(sub.end().0, Some(143));
}

#[test]
fn latest_shows_the_newest() {
    let place = Place::new();
    published(&place, &["d/a"], b"1\n2\n3\n");
    published(&place, &["d/b"], b"4\n");
    let latest = |args: &[&str]| place.run(&[&["sub", "--latest"], args].concat());
    assert_eq!(latest(&["d/a"]).stdout, b"3\n");
    assert_eq!(latest(&["d/*"]).stdout, b"d/a\t3\nd/b\t4\n");
    assert_eq!(latest(&["d/b", "d/a", "-n", "1"]).stdout, b"d/a\t3\n");
    // What is not there is an error, and not waited for.
    for (args, said) in [
        (
            ["d/c"],
            "slipring: no topic `d/c`; publish to it first (`slipring pub`)\n",
        ),
        (["e/*"], "slipring: no topic matches `e/*`\n"),
    ] {
        let output = latest(&args);
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(1), said.into())
        );
    }
    published(&place, &["empty"], b"");
    let output = latest(&["empty"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "slipring: nothing was published there yet\n"
    );
    // It goes on with each newest, and with those of later publishers.
    let mut sub = Sub::start(&place, &["d/a", "--latest", "--follow"]);
    assert_eq!(sub.line(), "3\n");
    sub.running.signal(Signal::STOP);
    published(&place, &["d/a"], b"5\n6\n7\n");
    sub.running.signal(Signal::CONT);
    assert_eq!(sub.line(), "7\n");
    published(&place, &["d/a"], b"8\n");
    assert_eq!(sub.line(), "8\n");
    sub.running.signal(Signal::INT);
    let (code, rest, said) = sub.end();
    assert_eq!(
        (code, rest.len(), &said[..]),
        (Some(130), 0, "slipring: interrupted\n")
    );
}

/// A subscriber that is stopped loses messages, and counts each.
#[test]
fn losses_are_counted() {
    let place = Place::new();
    published(&place, &["x", "--history", "4"], b"");
    let mut sub = Sub::start(&place, &["x"]);
    until_subscribed(&place, "x", 1);
    sub.running.signal(Signal::STOP);
    let lines: String = (0..5000).map(|number| format!("{number}\n")).collect();
    published(&place, &["x"], lines.as_bytes());
    sub.running.signal(Signal::CONT);
    let mut seen = 1;
    while sub.line() != "4999\n" {
        seen += 1;
    }
    sub.running.signal(Signal::TERM);
    let (code, _, said) = sub.end();
    assert_eq!(code, Some(143));
    let lost = 5000 - seen;
    let tail = format!("{}{:03} in all", "4 ", lost - 4000);
    assert!(seen < 1000 && said.contains(&tail), "{seen} seen: {said}");
    assert!(said.contains("messages were lost unread"), "{said}");
}

/// The messages of a killed publisher stay readable, and the next one goes on behind them.
#[test]
fn killed_publishers_leave_messages() {
    let place = Place::new();
    let mut killed = Running::start(place.command(&["pub", "x"]).stdin(Stdio::piped()));
    killed
        .0
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"1\n2\nhalf")
        .unwrap();
    let mut sub = Sub::start(&place, &["x", "--last", "2", "--json"]);
    assert_eq!(objects(sub.line().as_bytes())[0]["text"], "1");
    assert_eq!(objects(sub.line().as_bytes())[0]["text"], "2");
    killed.signal(Signal::KILL);
    assert_eq!(killed.code(), None);
    published(&place, &["x"], b"3\n");
    let third = objects(sub.line().as_bytes());
    assert_eq!(
        (&third[0]["text"], &third[0]["sequence"]),
        (&"3".into(), &2.into())
    );
    sub.running.signal(Signal::KILL);
    assert_eq!(sub.end().0, None);
    let last = place.run(&["sub", "x", "--last", "3", "-n", "3"]);
    assert_eq!(last.stdout, b"1\n2\n3\n");
}

/// A topic whose directory was removed is left, and its successor is read from the start.
#[test]
fn removed_topics_are_followed() {
    let place = Place::new();
    published(&place, &["x"], b"1\n");
    let mut sub = Sub::start(&place, &["x", "--last", "1"]);
    assert_eq!(sub.line(), "1\n");
    let refused = place.run(&["rm", "x"]);
    assert_eq!(
        refused.status.code(),
        Some(5),
        "a subscriber holds its seat"
    );
    fs::remove_dir_all(place.channels().join("x")).unwrap();
    published(&place, &["x", "--history", "2"], b"2\n3\n");
    assert_eq!((sub.line(), sub.line()), ("2\n".into(), "3\n".into()));
    // The publisher of a topic that is removed learns of it.
    let mut publisher = Running::start(place.command(&["pub", "x"]).stdin(Stdio::piped()));
    publisher
        .0
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"4\n")
        .unwrap();
    assert_eq!(sub.line(), "4\n");
    fs::remove_dir_all(place.channels().join("x")).unwrap();
    assert_eq!(publisher.code(), Some(1));
    let said = publisher.stderr();
    assert!(said.contains("no channel `x` any more"), "{said}");
}

#[test]
fn frames_and_pieces_pass() {
    let place = Place::new();
    let frames: Vec<Vec<u8>> = [0, 1, 4096, 65_536].map(|len| noise(len, 7)).into();
    let framed = |frames: &[Vec<u8>]| -> Vec<u8> {
        let with_length =
            |frame: &Vec<u8>| [&(frame.len() as u32).to_le_bytes()[..], frame].concat();
        frames.iter().flat_map(with_length).collect()
    };
    let sub = Sub::early(&place, &["x", "--framed", "-n", "4"]);
    published(&place, &["x", "--framed"], &framed(&frames));
    let (code, out, _) = sub.end();
    assert!(code == Some(0) && out == framed(&frames));
    // Too large, and cut short: what came before was published.
    let large = framed(&[b"before".to_vec(), vec![0; 65_537]]);
    let output = publish(&place, &["x", "--framed"], &large);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("the frame at byte 10 of the input has 65537 bytes"),
        "{said}"
    );
    assert!(said.contains("--max-size 65537"), "{said}");
    assert_eq!(place.run(&["sub", "x", "--latest"]).stdout, b"before\n");
    let output = publish(&place, &["x", "--framed"], b"\x02\0\0\0ab\x09\0\0\0short");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("within the frame at byte 6, after 9 of its 13 bytes"),
        "{said}"
    );
    assert_eq!(place.run(&["sub", "x", "--latest"]).stdout, b"ab\n");
    // Raw pieces: together they are the input.
    let input = noise(300_000, 9);
    published(
        &place,
        &["raw", "--raw", "--max-size", "1000", "--history", "1024"],
        &input,
    );
    let count = input.len().div_ceil(1024).to_string();
    let all = place.run(&["sub", "raw", "--last", "9999", "-n", &count, "--raw"]);
    assert!(all.stdout == input, "{} bytes", all.stdout.len());
}

#[test]
fn long_lines_are_left_out() {
    let place = Place::new();
    let input = format!(
        "{}\n{}\nfits\n{}",
        "a".repeat(64),
        "b".repeat(65),
        "c".repeat(66)
    );
    let output = publish(&place, &["x", "--max-size", "64"], input.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].contains("line 2 of the input has 65 bytes") && lines[0].contains("at most 64")
    );
    assert!(
        lines[1].contains("line 4 of the input has 66 bytes"),
        "{said}"
    );
    let all = place.run(&["sub", "x", "--last", "9", "-n", "2"]);
    assert_eq!(text(&all.stdout), format!("{}\nfits\n", "a".repeat(64)));
    // An existing topic keeps its sizes, and says so.
    let output = publish(&place, &["x", "--max-size", "128", "--history", "32"], b"");
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(
        said.contains("capacity 16 instead of 32, largest record 64 instead of 128"),
        "{said}"
    );
}

#[test]
fn files_are_single_messages() {
    let place = Place::new();
    let (one, other) = (place.file("one"), place.file("other"));
    let frame = noise(100_000, 3);
    fs::write(&one, &frame).unwrap();
    fs::write(&other, b"a\nb\n").unwrap();
    let [one, other] = [&one, &other].map(|path| path.to_str().unwrap());
    published(&place, &["x", "--file", other, "--file", one], b"not read");
    let all = place.run(&["sub", "x", "--last", "2", "-n", "2", "--framed"]);
    let expected = [&b"\x04\0\0\0a\nb\n\xa0\x86\x01\0"[..], &frame].concat();
    assert!(all.stdout == expected);
    // A file that is not there makes no topic; one that is too large is named.
    let output = publish(&place, &["y", "--file", "/nowhere"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot look at /nowhere"));
    assert!(place.stat("y").is_none());
    published(&place, &["z", "--max-size", "64"], b"");
    let output = publish(&place, &["z", "--file", one], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--max-size 100000"));
    // A device without an end is no message, either; what came before it was published.
    let output = publish(&place, &["z", "--file", other, "--file", "/dev/zero"], b"");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("/dev/zero has 65 bytes or more"), "{said}");
    assert_eq!(
        place.run(&["sub", "z", "--latest", "--raw"]).stdout,
        b"a\nb\n"
    );
    // A camera's frame: the topic is made large enough for it.
    let frame = noise(1920 * 1080 * 3, 4);
    fs::write(place.file("frame"), &frame).unwrap();
    let path = place.file("frame");
    published(
        &place,
        &["cam/front", "--file", path.to_str().unwrap()],
        b"",
    );
    let shown = place.run(&["sub", "cam/front", "--latest", "--raw"]);
    assert!(shown.stdout == frame, "{} bytes", shown.stdout.len());
}

/// Twenty messages at a hundred a second take at least a fifth of a second.
#[test]
fn rates_are_kept() {
    let place = Place::new();
    let began = Instant::now();
    published(
        &place,
        &["x", "--rate", "100", "--history", "32"],
        &b"m\n".repeat(21),
    );
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        place.run(&["sub", "x", "--last", "99", "-n", "21"]).stdout,
        b"m\n".repeat(21)
    );
    // A signal ends the wait, and names what was not published.
    let mut slow = place.command(&["pub", "x", "--rate", "0.001"]);
    let mut slow = Running::start(slow.stdin(Stdio::piped()));
    slow.0
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"now\nlater\n")
        .unwrap();
    let mut sub = Sub::start(&place, &["x", "--latest", "--follow"]);
    while sub.line() != "now\n" {}
    slow.signal(Signal::TERM);
    assert_eq!(slow.code(), Some(143));
    let said = slow.stderr();
    assert!(
        said.contains("line 2 of the input, and what follows it, was not published"),
        "{said}"
    );
}

#[test]
fn refusals_have_their_codes() {
    let place = Place::new();
    assert!(place.run(&["create", "stream"]).status.success());
    published(&place, &["x"], b"");
    let refused = |args: &[&str]| {
        let output = place.run(args);
        assert!(output.stdout.is_empty(), "{args:?}");
        (output.status.code(), text(&output.stderr))
    };
    for (args, code, words) in [
        (&["pub", "a/b/c"][..], 2, "is no channel name"),
        (&["pub", "*"], 2, "is no channel name"),
        (&["pub", "new", "--history", "3"], 2, "4 is the next"),
        (
            &["pub", "new", "--rate", "0"],
            2,
            "a number of messages a second",
        ),
        (&["pub", "new", "--max-size", "0"], 2, "at least 1"),
        (
            &["pub", "new", "--raw", "--framed"],
            2,
            "cannot be used with",
        ),
        (&["pub", "stream"], 1, "is of kind `bytes`"),
        (&["sub"], 2, "required"),
        (&["sub", "a?"], 2, "`a?` is no pattern of names"),
        (&["sub", "x", "--follow"], 2, "--latest"),
        (
            &["sub", "x", "--last", "1", "--latest"],
            2,
            "cannot be used with",
        ),
        (&["sub", "x", "--json", "--raw"], 2, "cannot be used with"),
        (&["sub", "stream"], 1, "is of kind `bytes`"),
        (&["recv", "x"], 1, "`slipring sub`"),
        (&["send", "x"], 1, "`slipring pub`"),
    ] {
        let (found, said) = refused(args);
        assert_eq!(found, Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    assert!(place.stat("new").is_none(), "a refusal makes no topic");
}

/// A process of its own makes a topic of its type, and one with a single seat of each side, which it holds.
#[test]
fn other_programs_topics_are_refused() {
    if std::env::var_os("TOPICS_OWNER").is_some() {
        let typed = slipring::topic::Builder::<u64>::new(4);
        let _typed = typed.producer("d/typed").unwrap();
        let single = slipring::topic::records::Builder::new(4, 64);
        let single = single
            .producers(1)
            .consumers(1)
            .open_or_create("d/single")
            .unwrap();
        let _ends = (single.producer().unwrap(), single.consumer().unwrap());
        println!("holds");
        // Until the test kills it.
        std::thread::park();
        return;
    }
    let place = Place::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "other_programs_topics_are_refused",
        "--nocapture",
        "-q",
    ]);
    command.env("SLIPRING_DIR", place.channels());
    command.env("TOPICS_OWNER", "1").stdout(Stdio::piped());
    let mut owner = Running::start(&mut command);
    let mut lines = BufReader::new(owner.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("holds")));
    let output = place.run(&["pub", "d/typed"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the channel carries `u64`"));
    for verb in ["pub", "sub"] {
        let output = place.run(&[verb, "d/single", "--wait", "0"]);
        assert_eq!(output.status.code(), Some(5), "{verb}");
        assert!(text(&output.stderr).contains("is taken"));
    }
    // Of a pattern they are left out, and the others are read.
    let mut sub = Sub::start(&place, &["d/*", "-n", "1", "--wait", "0"]);
    let mut left_out = String::new();
    sub.errors.read_line(&mut left_out).unwrap();
    assert!(left_out.contains("`d/single` is left out"), "{left_out}");
    published(&place, &["d/good"], b"fine\n");
    let (code, out, said) = sub.end();
    assert_eq!(
        (code, text(&out)),
        (Some(0), "d/good\tfine\n".into()),
        "{said}"
    );
    assert_eq!(said, "");
    // It said so before it waited.
    let sub = Sub::start(&place, &["d/*", "--latest", "--wait", "0"]);
    let (code, out, said) = sub.end();
    assert_eq!((code, text(&out)), (Some(0), "d/good\tfine\n".into()));
    let left_out = "`d/single` is left out: the consumer of this channel is taken";
    assert!(said.contains(left_out), "{said}");
}

/// A process of its own holds messages while `stat` is asked, and after a kill they are told of it all the same.
#[test]
fn stat_tells_who_keeps_what() {
    if std::env::var_os("TOPICS_HOLDER").is_some() {
        let topic = slipring::topic::records::Builder::new(4, 1 << 20);
        let (mut tx, mut rx) = (topic.producer("x").unwrap(), topic.consumer("x").unwrap());
        let _idle = topic.consumer("x").unwrap();
        for _ in 0..6 {
            tx.push(&[7; 5000]).unwrap();
        }
        let _held = [rx.latest_owned().unwrap(), rx.nth_latest_owned(3).unwrap()];
        println!("holds");
        // Until the test kills it.
        std::thread::park();
        return;
    }
    let place = Place::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "stat_tells_who_keeps_what", "--nocapture", "-q"]);
    command.env("SLIPRING_DIR", place.channels());
    command.env("TOPICS_HOLDER", "1").stdout(Stdio::piped());
    let mut holder = Running::start(&mut command);
    let pid = holder.0.id();
    let mut lines = BufReader::new(holder.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("holds")));
    let check = |state: &str| {
        let stat = place.stat("x").unwrap();
        assert_eq!((&stat["published"], &stat["len"]), (&6.into(), &4.into()));
        assert_eq!(
            (&stat["most_pins"], &stat["consumer_seats"]),
            (&5.into(), &16.into())
        );
        let memory = stat["memory"].as_u64().unwrap();
        assert!((4 * 5000..stat["most_memory"].as_u64().unwrap() / 100).contains(&memory));
        let consumers = stat["consumers"].as_array().unwrap();
        let figures = |seat: &Value| {
            (
                seat["index"].clone(),
                seat["pins"].clone(),
                seat["pid"].clone(),
            )
        };
        let figures: Vec<_> = consumers.iter().map(figures).collect();
        assert_eq!(
            figures,
            [
                (0.into(), 2.into(), pid.into()),
                (1.into(), 0.into(), pid.into())
            ]
        );
        assert_eq!(
            (
                &consumers[0]["state"],
                stat["producers"][0]["messages"].as_u64()
            ),
            (&state.into(), Some(6))
        );
        let shown = text(&place.run(&["stat", "x"]).stdout);
        for fact in [
            "kind         topic",
            "published    6 messages",
            "messages     up to 1 MiB",
            "2 of 5",
        ] {
            assert!(shown.contains(fact), "{fact}: {shown}");
        }
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
        shown
    };
    let shown = check("held");
    assert!(shown.contains("subscribers  2 of 16 seats held"), "{shown}");
    assert!(
        text(&place.run(&["ls"]).stdout)
            .contains("4 messages  4 messages  1 of 16 held  2 of 16 held")
    );
    holder.signal(Signal::KILL);
    assert_eq!(holder.code(), None);
    until("the kernel has freed its seats", || {
        place.stat("x").unwrap()["producers"][0]["state"] == "died"
    });
    let shown = check("died");
    assert!(shown.contains("subscribers  0 of 16 seats held"), "{shown}");
}

/// Nobody reads the output any more: sub ends by itself.
#[test]
fn closed_output_ends_sub() {
    let place = Place::new();
    let sub = Sub::early(&place, &["x"]);
    let Sub {
        mut running, out, ..
    } = sub;
    drop(out);
    published(&place, &["x"], b"unread\n");
    assert_eq!(running.code(), Some(141));
}

//! `tail` and `stat` beside a live `broadcast` channel. Each end is a process of its own: this
//! test's executable becomes one on request (`an_end`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, Running, json, text, until};
use rustix::process::Signal;
use serde_json::Value;
use slipring::broadcast::{Builder, Mode, Seek};
use slipring::inspect::WhenFull;
use slipring::{Error, Payload};

/// A message that shows whether it is whole.
#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Tick {
    number: u64,
    words: [u64; 20],
}

impl Tick {
    fn new(number: u64) -> Tick {
        let words = std::array::from_fn(|i| number ^ i as u64);
        Tick { number, words }
    }
}

const TICK: usize = size_of::<Tick>();

/// One end of the channel `x` in another process; it obeys commands, line by line, and answers
/// each.
struct End(Running, BufReader<std::process::ChildStdout>);

impl End {
    fn start(place: &Place, role: &str, when_full: WhenFull) -> End {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "an_end", "--nocapture", "-q"]);
        command.env("SLIPRING_DIR", place.channels());
        command.env("TAIL_ROLE", role);
        command.env("TAIL_WHEN_FULL", when_full.name());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(command.stderr(Stdio::null()));
        let answers = BufReader::new(running.0.stdout.take().unwrap());
        let mut end = End(running, answers);
        end.answer();
        end
    }

    /// Gives the process a command, and waits until it is done: it answers with a number.
    fn tell(&mut self, what: &str) -> u64 {
        self.order(what);
        self.answer()
    }

    fn order(&mut self, what: &str) {
        writeln!(self.0.0.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    fn answer(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "it went");
            // The test harness writes lines between the answers.
            if let Some(number) = line.trim().rsplit_once("done ") {
                return number.1.parse().unwrap();
            }
        }
    }

    fn pid(&self) -> u64 {
        self.0.0.id().into()
    }
}

/// The process that `End` starts; by itself, a test of two such processes.
#[test]
fn an_end() {
    let Ok(role) = std::env::var("TAIL_ROLE") else {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", WhenFull::Wait);
        let mut consumer = End::start(&place, "consumer", WhenFull::Wait);
        assert_ne!(producer.pid(), consumer.pid());
        assert_eq!(producer.tell("push 3"), 3);
        assert_eq!(consumer.tell("pop 2"), 2);
        assert_eq!(producer.tell("fill"), 10, "two are released");
        return;
    };
    let builder = Builder::new(8);
    match std::env::var("TAIL_WHEN_FULL").unwrap().as_str() {
        "wait" => obey(&role, builder),
        _ => obey(&role, builder.overwriting()),
    }
}

fn obey<M: Mode>(role: &str, builder: Builder<Tick, M>) {
    // A crowd takes all seats that a channel can have.
    let (name, consumers) = match role {
        "crowd" => (long_name(), 63),
        _ => ("x".to_string(), 2),
    };
    let builder = builder.consumers(consumers);
    let mut out = std::io::stdout();
    let mut done = |number: u64| {
        writeln!(out, "done {number}").unwrap();
        out.flush().unwrap();
    };
    let orders = std::io::stdin().lines().map(Result::unwrap);
    let number = |order: &str| order.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    if role != "consumer" {
        let mut tx = builder.producer(&name).unwrap();
        let readers = if role == "crowd" { consumers } else { 0 };
        let join = |_| builder.clone().join(Seek::Oldest).consumer(&name).unwrap();
        let _readers: Vec<_> = (0..readers).map(join).collect();
        done(0);
        for order in orders {
            match order.split(' ').next().unwrap() {
                "push" => {
                    for _ in 0..number(&order) {
                        tx.push(Tick::new(tx.position())).unwrap();
                    }
                }
                "fill" => while tx.try_push(Tick::new(tx.position())).is_ok() {},
                "abort" => return tx.abort(),
                _ => return,
            }
            done(tx.position());
        }
    } else {
        let mut rx = builder.join(Seek::Oldest).consumer("x").unwrap();
        done(rx.position());
        for order in orders {
            let count = number(&order);
            let mut took = 0;
            while took < count {
                match rx.pop() {
                    Ok(tick) => assert_eq!(tick.words, Tick::new(tick.number).words),
                    Err(Error::Lagged(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                took += 1;
            }
            done(rx.position());
        }
    }
}

/// Returns the longest name: of two parts.
fn long_name() -> String {
    ["a", "b"].map(|part| part.repeat(64)).join("/")
}

const BOTH: [WhenFull; 2] = [WhenFull::Wait, WhenFull::Overwrite];

/// Starts `tail x ARGS..`, whose output the test reads.
fn tail(place: &Place, args: &[&str]) -> Running {
    let all = [&["tail", "x"], args].concat();
    Running::start(place.command(&all).stdout(Stdio::piped()))
}

/// Returns `true` if a process has mapped the file.
fn has_mapped(process: &Running, file: &std::path::Path) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.0.id())).unwrap();
    maps.contains(file.to_str().unwrap())
}

/// Returns the numbers of the messages in the lines that `--json` wrote: all of them whole.
fn numbers(lines: &str) -> Vec<u64> {
    let number = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap();
        let number = message["number"].as_u64().unwrap();
        let words = Tick::new(number).words;
        let bytes = std::iter::once(number).chain(words);
        let bytes = bytes.flat_map(u64::to_le_bytes);
        let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(message["bytes"], hex.as_str(), "message {number}");
        number
    };
    lines.lines().map(number).collect()
}

fn stdout(running: &mut Running) -> String {
    let mut all = String::new();
    let stdout = running.0.stdout.as_mut().unwrap();
    stdout.read_to_string(&mut all).unwrap();
    all
}

/// Tail shows the messages that are there and those that come, until the producer finishes.
#[test]
fn tail_shows_old_and_new_messages() {
    for when_full in BOTH {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", when_full);
        producer.tell("push 5");
        let mut tail = tail(&place, &["--oldest", "--json"]);
        let mut lines = BufReader::new(tail.0.stdout.take().unwrap());
        let mut shown = String::new();
        for _ in 0..5 {
            lines.read_line(&mut shown).unwrap();
        }
        producer.tell("push 3");
        for _ in 0..3 {
            lines.read_line(&mut shown).unwrap();
        }
        producer.order("finish");
        assert_eq!(numbers(&shown), (0..8).collect::<Vec<_>>());
        assert_eq!(tail.code(), Some(0));
        assert_eq!(tail.stderr(), "");
    }
}

#[test]
fn what_was_overwritten_is_counted_exactly() {
    for when_full in BOTH {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", when_full);
        producer.tell("push 20");
        // Twelve messages are gone, and tail leaves out an eighth of the ring.
        let output = place.run(&["tail", "x", "--from", "0", "-n", "7", "--json"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(numbers(&text(&output.stdout)), (13..20).collect::<Vec<_>>());
        let said = text(&output.stderr);
        assert_eq!(said, "slipring: 13 messages were lost unseen; 13 in all\n");
        let output = place.run(&["tail", "x", "--from", "0", "-n", "7", "--count", "--json"]);
        let figures = json(&output);
        assert_eq!(
            (&figures["messages"], &figures["lost"]),
            (&7.into(), &13.into())
        );
        let ahead = place.run(&["tail", "x", "--from", "21"]);
        assert_eq!(ahead.status.code(), Some(1));
        assert!(text(&ahead.stderr).contains("the next to come is 20"));
    }
}

/// By default, a line shows the message's number and its first bytes.
#[test]
fn lines_show_numbers_and_first_bytes() {
    for when_full in BOTH {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", when_full);
        producer.tell("push 3");
        let shown = place.run(&["tail", "x", "--oldest", "-n", "2"]);
        let lines = concat!(
            "         0  000000000000000000000000000000000100000000000000.. 168 bytes\n",
            "         1  010000000000000001000000000000000000000000000000.. 168 bytes\n",
        );
        assert_eq!(
            (text(&shown.stdout).as_str(), text(&shown.stderr)),
            (lines, String::new())
        );
    }
}

/// In hexadecimal, tail shows every byte of a message, sixteen on a line.
#[test]
fn hex_output_shows_every_byte() {
    let place = Place::new();
    let mut producer = End::start(&place, "producer", WhenFull::Overwrite);
    producer.tell("push 65");
    let shown = place.run(&["tail", "x", "--from", "64", "-n", "1", "--hex"]);
    let dump = "message 64, 168 bytes\n\
            00000000  40 00 00 00 00 00 00 00  40 00 00 00 00 00 00 00  |@.......@.......|\n\
            00000010  41 00 00 00 00 00 00 00  42 00 00 00 00 00 00 00  |A.......B.......|\n\
            00000020  43 00 00 00 00 00 00 00  44 00 00 00 00 00 00 00  |C.......D.......|\n\
            00000030  45 00 00 00 00 00 00 00  46 00 00 00 00 00 00 00  |E.......F.......|\n\
            00000040  47 00 00 00 00 00 00 00  48 00 00 00 00 00 00 00  |G.......H.......|\n\
            00000050  49 00 00 00 00 00 00 00  4a 00 00 00 00 00 00 00  |I.......J.......|\n\
            00000060  4b 00 00 00 00 00 00 00  4c 00 00 00 00 00 00 00  |K.......L.......|\n\
            00000070  4d 00 00 00 00 00 00 00  4e 00 00 00 00 00 00 00  |M.......N.......|\n\
            00000080  4f 00 00 00 00 00 00 00  50 00 00 00 00 00 00 00  |O.......P.......|\n\
            00000090  51 00 00 00 00 00 00 00  52 00 00 00 00 00 00 00  |Q.......R.......|\n\
            000000a0  53 00 00 00 00 00 00 00                           |S.......|\n\
            ";
    assert_eq!(
        (text(&shown.stdout).as_str(), text(&shown.stderr)),
        (dump, String::new())
    );
}

/// When tail only counts messages, it reports them in one line.
#[test]
fn count_prints_one_line() {
    for when_full in BOTH {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", when_full);
        producer.tell("push 20");
        let output = place.run(&["tail", "x", "--from", "0", "-n", "7", "--count"]);
        let said = text(&output.stdout);
        // Only the time that it took, and so the rate, may differ.
        let figures = said.strip_prefix("7 messages, 13 lost, in ").expect(&said);
        let (seconds, rate) = figures.split_once(" s: ").expect(&said);
        let time = seconds.parse::<f64>().unwrap();
        assert_eq!(format!("{time:.3}"), seconds);
        match rate.strip_suffix(" a second\n") {
            Some(rate) => {
                assert!(time >= 0.001, "{said}");
                assert!(rate.replace(' ', "").parse::<u64>().is_ok(), "{said}");
            }
            None => assert!(time <= 0.001 && rate == "too short\n", "{said}"),
        }
        assert_eq!(
            text(&output.stderr),
            "slipring: 13 messages were lost unseen; 13 in all\n"
        );
    }
}

/// The wait for the first message is no part of the rate.
#[test]
fn the_count_begins_with_a_message() {
    let place = Place::new();
    let mut producer = End::start(&place, "producer", WhenFull::Wait);
    let mut tail = tail(&place, &["--count", "--json", "-n", "3"]);
    let data = place.channels().join("x").join("data");
    until("it has attached", || has_mapped(&tail, &data));
    let attached = Instant::now();
    let waited = Duration::from_millis(300);
    until("it has waited", || attached.elapsed() > waited);
    let pushed = Instant::now();
    // Three messages come: the first may be there before tail found its place in the channel.
    until("it ends", || {
        producer.tell("push 3");
        !tail.is_running()
    });
    let took = pushed.elapsed().as_secs_f64();
    let figures: Value = serde_json::from_str(&stdout(&mut tail)).unwrap();
    assert_eq!(figures["messages"], 3);
    let seconds = figures["seconds"].as_f64().unwrap();
    assert!(seconds <= took, "{figures} in {took} s");
    assert_eq!(
        figures["messages_per_s"].is_null(),
        seconds < 0.001,
        "{figures}"
    );
    // Without a message there is no time either.
    let mut none = Running::start(
        place
            .command(&["tail", "x", "--count", "-n", "0"])
            .stdout(Stdio::piped()),
    );
    assert_eq!(
        stdout(&mut none),
        "0 messages, 0 lost, in 0.000 s: too short\n"
    );
}

/// Beside a fast producer, tail shows messages whole and in order, and counts all that were lost.
#[test]
fn fast_producers_leave_messages_whole() {
    for when_full in BOTH {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", when_full);
        let mut tail = tail(&place, &["--from", "0", "--json"]);
        let messages = producer.tell("push 200000");
        producer.order("finish");
        let shown = numbers(&stdout(&mut tail));
        assert!(shown.is_sorted_by(|one, next| one < next));
        assert_eq!(tail.code(), Some(0));
        let said = tail.stderr();
        let lost = said.lines().last().map_or(0, |line| {
            let all = line
                .rsplit_once("; ")
                .unwrap()
                .1
                .trim_end_matches(" in all");
            all.replace(' ', "").parse::<u64>().unwrap()
        });
        assert_eq!(shown.len() as u64 + lost, messages, "{said}");
    }
}

/// Tail changes nothing in the channel, and needs no consumer's seat.
#[test]
fn tail_leaves_the_channel_unchanged() {
    for when_full in BOTH {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", when_full);
        let _readers = [1, 2].map(|_| End::start(&place, "consumer", when_full));
        producer.tell("push 8");
        let files = ["control", "data"].map(|part| place.channels().join("x").join(part));
        let before = files.each_ref().map(|file| fs::read(file).unwrap());
        assert!(before[1].len() >= 8 * TICK);
        let shown = place.run(&["tail", "x", "--oldest", "-n", "8", "--json"]);
        assert_eq!(numbers(&text(&shown.stdout)), (0..8).collect::<Vec<_>>());
        // The same holds for a tail that waits.
        let mut waiting = tail(&place, &["--newest"]);
        until("it has attached", || has_mapped(&waiting, &files[1]));
        assert!(waiting.is_running());
        let stat = place.stat("x").unwrap();
        assert_eq!(stat["consumers"].as_array().unwrap().len(), 2);
        for (file, before) in files.iter().zip(before) {
            assert!(fs::read(file).unwrap() == before, "{}", file.display());
        }
        waiting.signal(Signal::INT);
        assert_eq!(waiting.code(), Some(130));
    }
}

/// Stat names the paused reader that holds the producer back.
#[test]
fn stat_names_the_paused_reader() {
    let place = Place::new();
    let mut producer = End::start(&place, "producer", WhenFull::Wait);
    let mut fast = End::start(&place, "consumer", WhenFull::Wait);
    let mut paused = End::start(&place, "consumer", WhenFull::Wait);
    paused.0.signal(Signal::STOP);
    assert_eq!(producer.tell("fill"), 8);
    assert_eq!(fast.tell("pop 8"), 8);
    assert_eq!(producer.tell("fill"), 8, "a paused reader gates");
    let stat = place.stat("x").unwrap();
    let holder = &stat["holds_back"];
    assert_eq!((&holder["index"], &holder["lag"]), (&1.into(), &8.into()));
    assert_eq!(holder["pid"], paused.pid());
    assert_eq!(stat["when_full"], "wait");
    let lags = [0, 1].map(|index| stat["consumers"][index]["lag"].as_u64().unwrap());
    assert_eq!(lags, [0, 8]);
    let shown = text(&place.run(&["stat", "x"]).stdout);
    let line = format!(
        "by consumer 1 (held), process {}, 8 slots behind",
        paused.pid()
    );
    assert!(shown.contains(&line), "{shown}");
    assert!(shown.contains("2 of 2 seats held"), "{shown}");
    let listed = text(&place.run(&["ls"]).stdout);
    assert!(listed.contains("2 of 2 held"), "{listed}");
    // A passive reader sees the messages that the channel keeps there.
    let seen = place.run(&["tail", "x", "--oldest", "-n", "8", "--json"]);
    assert_eq!(numbers(&text(&seen.stdout)).len(), 8);
    paused.0.signal(Signal::CONT);
    assert_eq!(paused.tell("pop 3"), 3);
    assert_eq!(producer.tell("fill"), 11);
    assert_eq!(place.stat("x").unwrap()["holds_back"]["pid"], paused.pid());
}

/// Stat shows what a consumer lost, and leaves out seats that nobody took.
#[test]
fn stat_shows_losses_and_used_seats() {
    let place = Place::new();
    let mut producer = End::start(&place, "producer", WhenFull::Overwrite);
    let mut slow = End::start(&place, "consumer", WhenFull::Overwrite);
    producer.tell("push 20");
    slow.tell("pop 1");
    let stat = place.stat("x").unwrap();
    assert_eq!(stat["when_full"], "overwrite");
    assert_eq!(stat["consumer_seats"], 2);
    assert_eq!(stat["consumers"].as_array().unwrap().len(), 1);
    assert_eq!(stat["consumers"][0]["lagged"], 13);
    assert!(stat["holds_back"].is_null());
    let shown = text(&place.run(&["stat", "x"]).stdout);
    assert!(shown.contains("overwrite the oldest messages"), "{shown}");
    assert!(
        shown.contains("consumer 0") && !shown.contains("consumer 1"),
        "{shown}"
    );
}

/// Messages that consumers have read are not unread, though an overwriting ring still holds them. A
/// dead one reads none.
#[test]
fn unread_is_what_consumers_can_read() {
    let place = Place::new();
    let mut producer = End::start(&place, "producer", WhenFull::Overwrite);
    let figures = || {
        let listed = json(&place.run(&["ls", "--json"]))[0].clone();
        assert_eq!(listed["unread"], place.stat("x").unwrap()["unread"]);
        (listed["unread"].as_u64(), listed["len"].as_u64().unwrap())
    };
    let listed = || {
        let listed = text(&place.run(&["ls"]).stdout);
        let row = listed.lines().nth(1).unwrap();
        row.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .nth(3)
            .unwrap()
            .to_string()
    };
    producer.tell("push 3");
    assert_eq!((figures(), listed()), ((None, 3), "-".into()));
    let mut consumer = End::start(&place, "consumer", WhenFull::Overwrite);
    assert_eq!((figures(), listed()), ((Some(3), 3), "3 slots".into()));
    consumer.tell("pop 3");
    assert_eq!((figures(), listed()), ((Some(0), 3), "0 slots".into()));
    producer.tell("push 2");
    assert_eq!((figures(), listed()), ((Some(2), 5), "2 slots".into()));
    producer.tell("push 20");
    let (unread, len) = figures();
    assert_eq!((unread, len <= 8), (Some(len), true));
    consumer.0.signal(Signal::KILL);
    consumer.0.code();
    assert_eq!((figures(), listed()), ((None, len), "-".into()));
}

/// Prints the longest name, all possible seats, and the consumer that holds the producer back.
#[test]
fn people_see_eighty_columns() {
    for when_full in BOTH {
        let place = Place::new();
        let name = long_name();
        let mut crowd = End::start(&place, "crowd", when_full);
        match when_full {
            WhenFull::Wait => crowd.tell("fill"),
            WhenFull::Overwrite => crowd.tell("push 12345"),
        };
        let stat = text(&place.run(&["stat", &name]).stdout);
        let rows = |first: &str| stat.lines().filter(|line| line.starts_with(first)).count();
        assert_eq!((rows("consumer "), rows("SEAT ")), (2 * 63, 2), "{stat}");
        assert!(stat.contains(&("a".repeat(64) + "/\n")), "{stat}");
        let held_back = stat.contains("held back");
        assert_eq!(held_back, when_full == WhenFull::Wait, "{stat}");
        let mut shown = vec![stat];
        for more in [&[][..], &["--hex"], &["--count"]] {
            let args = [&["tail", &name, "--from", "0", "-n", "1"], more].concat();
            let output = place.run(&args);
            assert!(output.status.success(), "{output:?}");
            shown.extend([output.stdout, output.stderr].map(|said| text(&said)));
        }
        for line in shown.iter().flat_map(|shown| shown.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

/// A dead consumer's lag matters only if the producer still waits for it.
#[test]
fn a_dead_consumers_lag_is_told() {
    for (when_full, lag) in [(WhenFull::Wait, Some(3)), (WhenFull::Overwrite, None)] {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", when_full);
        let mut consumer = End::start(&place, "consumer", when_full);
        producer.tell("push 3");
        let told = || {
            let stat = place.stat("x").unwrap();
            let about = stat["consumers"][0].clone();
            let shown = text(&place.run(&["stat", "x"]).stdout);
            let lines: Vec<Vec<_>> = shown
                .lines()
                .map(|line| line.split_whitespace().collect())
                .collect();
            let head = lines.iter().position(|line| line.contains(&"LAG")).unwrap();
            let row = lines[head..]
                .iter()
                .find(|line| line[..].starts_with(&["consumer", "0"]));
            // The cells are counted from the right: only there each cell is one word.
            let back = lines[head].iter().rev().position(|cell| *cell == "LAG");
            let cell = row.unwrap().iter().rev().nth(back.unwrap()).unwrap();
            assert!(about.get("lag").is_some());
            (
                about["state"].as_str().unwrap().to_string(),
                about["lag"].as_u64(),
                cell.parse::<u64>().ok(),
            )
        };
        assert_eq!(told(), ("held".into(), Some(3), Some(3)));
        consumer.0.signal(Signal::KILL);
        consumer.0.code();
        assert_eq!(told(), ("died".into(), lag, lag));
    }
}

#[test]
fn how_the_producer_left_is_told() {
    for (how, code, words) in [("abort", 3, "it aborted"), ("", 4, "it died")] {
        let place = Place::new();
        let mut producer = End::start(&place, "producer", WhenFull::Overwrite);
        producer.tell("push 2");
        let mut tail = tail(&place, &["--oldest", "--json"]);
        let mut lines = BufReader::new(tail.0.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        match how {
            "" => producer.0.signal(Signal::KILL),
            how => producer.order(how),
        }
        assert_eq!(tail.code(), Some(code));
        assert!(tail.stderr().contains(words));
    }
}

/// Tail refuses a channel whose messages one consumer takes.
#[test]
fn tail_refuses_other_kinds() {
    let place = Place::new();
    assert!(place.run(&["create", "x"]).status.success());
    let output = place.run(&["tail", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("is of kind `bytes`, this program asked for `broadcast` or `topic`"),
        "{said}"
    );
}

/// Tail refuses a damaged channel, and stops when the channel is removed while it waits.
#[test]
fn tail_stops_on_damage_or_removal() {
    let place = Place::new();
    let mut producer = End::start(&place, "producer", WhenFull::Wait);
    producer.tell("push 2");
    producer.order("finish");
    until("it left", || !producer.0.is_running());
    let dir = place.channels().join("x");
    let run = |word: &str| {
        let output = place.run(&["tail", "x", "--oldest"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).contains(word),
            "{}",
            text(&output.stderr)
        );
    };
    // The role pages follow the first page: an impossible tail, and all else wrong, too.
    let control = fs::read(dir.join("control")).unwrap();
    let mut rubbish = control.clone();
    rubbish[4096..].fill(0xff);
    fs::write(dir.join("control"), rubbish).unwrap();
    run("`tail` holds 0xffffffffffffffff");
    fs::write(dir.join("control"), &control).unwrap();
    let mut waiting = tail(&place, &[]);
    until("it has attached", || {
        has_mapped(&waiting, &dir.join("data"))
    });
    assert!(
        waiting.is_running(),
        "an end that is history is none of its"
    );
    assert!(place.run(&["rm", "x"]).status.success());
    assert_eq!(waiting.code(), Some(1));
    assert!(waiting.stderr().contains("no channel `x`"));
    let mut producer = End::start(&place, "producer", WhenFull::Overwrite);
    producer.tell("push 2");
    let data = fs::OpenOptions::new()
        .write(true)
        .open(dir.join("data"))
        .unwrap();
    data.set_len(100).unwrap();
    run("truncated");
}

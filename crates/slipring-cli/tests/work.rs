//! `send --queue` and `work`: a command for each line, with retries, time limits and signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use common::{Place, Running, json, text, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A command that runs until it is killed.
const FOREVER: [&str; 3] = ["tail", "-f", "/dev/null"];

/// Feeds the lines to the queue `jobs`.
fn feed(place: &Place, input: &[u8]) -> Running {
    let file = place.file("input");
    fs::write(&file, input).unwrap();
    let mut send = place.send(&["jobs", "--queue", "--lines"], &file);
    send.code();
    send
}

/// Returns the arguments of `work jobs FLAGS -- COMMAND`.
fn words<'a>(flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["work", "jobs"], flags, &["--"], command].concat()
}

/// Runs `work jobs` to its end.
fn work(place: &Place, flags: &[&str], command: &[&str]) -> Output {
    place.run(&words(flags, command))
}

/// Starts `work jobs`, which writes to pipes.
fn start(place: &Place, flags: &[&str], command: &[&str]) -> Running {
    let mut work = place.command(&words(flags, command));
    Running::start(work.stdout(Stdio::piped()))
}

/// Returns what a worker wrote to standard output, after its end.
fn stdout(work: &mut Running) -> String {
    std::io::read_to_string(work.0.stdout.take().unwrap()).unwrap()
}

/// The items that failed are the dead letters.
fn figures(done: u64, failed: u64, redelivered: u64, retried: u64, given_back: u64) -> Value {
    json!({
        "name": "jobs",
        "done": done,
        "failed": failed,
        "redelivered": redelivered,
        "retried": retried,
        "given_back": given_back,
        "dead_letters": failed,
    })
}

/// Returns the number of items in the queue.
fn unread(place: &Place) -> u64 {
    place.stat("jobs").unwrap()["unread"].as_u64().unwrap()
}

/// Returns a script that writes its process id into `started`, and then runs until it is killed.
fn report_and_stay(started: &Path) -> String {
    let file = started.display();
    format!(
        "echo $$ > {file}.new; mv {file}.new {file}; exec {}",
        FOREVER.join(" ")
    )
}

/// Waits until a script has written its process id, and returns it.
fn started(file: &Path) -> String {
    until("the command runs", || file.exists());
    fs::read_to_string(file).unwrap().trim().to_string()
}

/// Waits until a process is gone, or waits for nothing but its parent.
fn until_gone(pid: &str) {
    until("the command is gone", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}

/// A command has the line on its standard input, with the newline that it had, and without it in its
/// arguments.
#[test]
fn each_line_is_an_item() {
    let place = Place::new();
    assert_eq!(feed(&place, b"a\n\n$(b) 'c'\nlast").code(), Some(0));
    let script = r#"printf "[%s]" "$1" "$2"; cat"#;
    let output = work(&place, &[], &["sh", "-c", script, "sh", "{}", "x{}{}"]);
    let written = "[a][xaa]a\n[][x]\n[$(b) 'c'][x$(b) 'c'$(b) 'c']$(b) 'c'\n[last][xlastlast]last";
    assert_eq!(text(&output.stdout), written);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

/// A command that leaves its input unread is no failure, and one that wants no arguments gets none.
#[test]
fn commands_need_not_read() {
    let place = Place::new();
    feed(&place, b"a\nb\n");
    let output = work(&place, &["--json", "-j2"], &["true"]);
    assert_eq!(json(&output), figures(2, 0, 0, 0, 0));
    feed(&place, b"a\nb\n");
    assert_eq!(text(&work(&place, &[], &["cat"]).stdout), "a\nb\n");
}

/// A failed item is named with its status, the others are done, and the exit code is 1.
#[test]
fn failures_are_told() {
    let place = Place::new();
    feed(&place, b"good\nbad\x07\nbetter\n");
    let output = work(
        &place,
        &["--json"],
        &["sh", "-c", "! grep -q bad || exit 7"],
    );
    assert_eq!(
        (output.status.code(), json(&output)),
        (Some(1), figures(2, 1, 0, 0, 0))
    );
    let said = text(&output.stderr);
    let expected = "slipring: item `bad\\u{7}` failed: exit status: 7\n\
        slipring: 1 dead letter is in the queue; `slipring letters jobs` shows what failed\n\
        slipring: 1 item failed\n";
    assert_eq!(said, expected);
    // The other items have left the queue.
    assert_eq!(unread(&place), 1);
}

/// A failing item is tried again as often as asked for, by the same worker.
#[test]
fn failing_items_are_tried_again() {
    let place = Place::new();
    let script = "echo $SLIPRING_ATTEMPT $SLIPRING_DELIVERIES; test $SLIPRING_ATTEMPT = 3";
    for (retries, code, tries) in [("2", 0, "1 0\n2 0\n3 0\n"), ("1", 1, "1 0\n2 0\n")] {
        feed(&place, b"x\n");
        let output = work(&place, &["--retries", retries], &["sh", "-c", script]);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(code), tries.into())
        );
        let told = text(&output.stderr).contains("exit status: 1, after 2 attempts");
        assert_eq!(told, code == 1, "{}", text(&output.stderr));
    }
}

/// A command that runs for too long fails. What it has started goes with it, even if it ignores SIGTERM.
#[test]
fn time_limits_end_the_whole_group() {
    let place = Place::new();
    feed(&place, b"x\n");
    let output = work(&place, &["--timeout", "10ms"], &FOREVER);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("item `x` failed: it ran longer than 10ms\n"),
        "{said}"
    );
    // The command ignores SIGTERM, or only what it has started.
    let forever = FOREVER.join(" ");
    for (start, grace) in [
        (format!("trap '' TERM; {forever} &"), "10ms"),
        (format!("(trap '' TERM; exec {forever}) &"), "1h"),
    ] {
        feed(&place, b"x\n");
        let file = place.file(grace);
        // The attempt after the first one that came so far as to start a process succeeds.
        let script = format!(
            "test ! -e {0} || exit 0; {start} echo $! > {0}.new; mv {0}.new {0}; wait",
            file.display(),
        );
        let flags = ["--timeout", "300ms", "--grace", grace, "--retries", "1000"];
        let output = work(&place, &flags, &["sh", "-c", &script]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        until_gone(&started(&file));
    }
}

/// A line that is too long is named and left out; all others are sent.
#[test]
fn long_lines_are_left_out() {
    let place = Place::new();
    let (largest, longer) = ("x".repeat(4095), "y".repeat(4096));
    let input = format!("a\n{longer}\n{largest}\n{}\nb\n{longer}", longer.repeat(40));
    let mut send = feed(&place, input.as_bytes());
    assert_eq!(send.code(), Some(1));
    let said = send.stderr();
    let lines: Vec<_> = said.lines().collect();
    for (line, number, len) in [(lines[0], 2, 4097), (lines[1], 4, 163_841)] {
        let expected = format!(
            "slipring: line {number} of the input is an item of {len} bytes, and the queue takes at most 4096; it was \
             left out"
        );
        assert_eq!(line, expected);
    }
    assert_eq!(lines.len(), 2);
    // The last line fits, because it has no newline.
    let output = work(&place, &[], &["cat"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("a\n{largest}\nb\n{longer}"));
}

/// The queue's largest item is that of the command that made it.
#[test]
fn max_record_sets_the_largest_item() {
    let place = Place::new();
    let (largest, longer) = ("x".repeat(99_999), "y".repeat(100_000));
    let input = place.file("input");
    fs::write(&input, format!("{largest}\n{longer}\n")).unwrap();
    let flags = ["--queue", "--lines", "--items", "4", "--max-record"];
    let send = |size| place.send(&[&["jobs"], &flags[..], &[size]].concat(), &input);
    let mut made = send("100000");
    assert_eq!(made.code(), Some(1));
    let said = made.stderr();
    assert!(
        said.contains(
            "line 2 of the input is an item of 100001 bytes, and the queue takes at most 100000;"
        ),
        "{said}"
    );
    let output = work(&place, &[], &["cat"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), format!("{largest}\n"))
    );
    // Another size is told, and changes nothing.
    let mut again = send("200000");
    assert_eq!(again.code(), Some(1));
    let told = "exists, and stays as it is: largest record 100000 instead of 200000";
    let said = again.stderr();
    assert!(
        said.contains(told) && said.contains("at most 100000"),
        "{said}"
    );
}

/// An item with a NUL fails where it is to be an argument, and only there.
#[test]
fn nul_is_no_argument() {
    let place = Place::new();
    feed(&place, b"a\0b\nc\n");
    let output = work(&place, &["--retries", "3", "--json"], &["true", "{}"]);
    assert_eq!(
        (output.status.code(), json(&output)),
        (Some(1), figures(1, 1, 0, 0, 0))
    );
    let said = text(&output.stderr);
    assert!(
        said.contains("item `a\\u{0}b` failed: it has a NUL"),
        "{said}"
    );
    feed(&place, b"a\0b\n");
    assert_eq!(work(&place, &[], &["cat"]).stdout, b"a\0b\n");
}

/// A command that does not exist costs no item.
#[test]
fn missing_commands_cost_nothing() {
    let place = Place::new();
    feed(&place, b"x\ny\n");
    let output = work(&place, &["--json"], &["/no/such/command"]);
    assert_eq!(
        (output.status.code(), json(&output)),
        (Some(1), figures(0, 0, 0, 0, 1))
    );
    let said = text(&output.stderr);
    assert!(
        said.starts_with("slipring: cannot run `/no/such/command`: "),
        "{said}"
    );
    assert_eq!(unread(&place), 2);
}

/// A signal gives the running item back, and stops its command.
#[test]
fn sigterm_gives_back() {
    let place = Place::new();
    feed(&place, b"x\n");
    let file = place.file("started");
    let script = report_and_stay(&file);
    let mut first = start(&place, &["--json"], &["sh", "-c", &script]);
    let pid = started(&file);
    first.signal(Signal::TERM);
    assert_eq!(first.code(), Some(143));
    until_gone(&pid);
    assert_eq!(first.stderr(), "slipring: terminated\n");
    let told: Value = serde_json::from_str(&stdout(&mut first)).unwrap();
    assert_eq!(told, figures(0, 0, 0, 0, 1));
    let output = work(&place, &[], &["sh", "-c", "cat; echo $SLIPRING_DELIVERIES"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "x\n1\n".into())
    );
}

/// A command that succeeds in spite of the signal is done.
#[test]
fn success_after_sigterm_counts() {
    let place = Place::new();
    feed(&place, b"x\ny\n");
    let file = place.file("started");
    let script = format!(
        "trap 'kill $!; exit 0' INT TERM; {} & echo $$ > {1}.new; mv {1}.new {1}; wait",
        FOREVER.join(" "),
        file.display(),
    );
    let mut first = start(&place, &["--json"], &["sh", "-c", &script]);
    started(&file);
    first.signal(Signal::INT);
    assert_eq!(first.code(), Some(130));
    let told: Value = serde_json::from_str(&stdout(&mut first)).unwrap();
    assert_eq!((told, unread(&place)), (figures(1, 0, 0, 0, 0), 1));
}

/// A second signal kills a command that ignores the first, and its item stays.
#[test]
fn second_signal_kills() {
    let place = Place::new();
    feed(&place, b"x\n");
    let file = place.file("started");
    let script = format!("trap '' TERM; {}", report_and_stay(&file));
    let mut first = start(&place, &["--grace", "1h"], &["sh", "-c", &script]);
    let pid = started(&file);
    // Two signals at the same time may count as one.
    until("the worker ends", || {
        first.signal(Signal::TERM);
        !first.is_running()
    });
    assert_eq!((first.code(), unread(&place)), (Some(143), 1));
    until_gone(&pid);
}

/// What a killed worker held is run by another one, and its command does not go on.
#[test]
fn killed_workers_lose_nothing() {
    let place = Place::new();
    feed(&place, b"x\n");
    let file = place.file("started");
    let script = report_and_stay(&file);
    let mut first = start(&place, &[], &["sh", "-c", &script]);
    let pid = started(&file);
    let mut second = start(&place, &["--json"], &["true"]);
    first.signal(Signal::KILL);
    assert_eq!(first.code(), None);
    until_gone(&pid);
    assert_eq!(second.code(), Some(0));
    let told: Value = serde_json::from_str(&stdout(&mut second)).unwrap();
    assert_eq!(told, figures(1, 0, 1, 0, 0));
}

/// The way in which the last feeder left is the worker's exit code.
#[test]
fn ends_are_told() {
    for (signal, code, words) in [
        (Signal::TERM, 3, "a feeder aborted"),
        (Signal::KILL, 4, "a feeder died"),
    ] {
        let place = Place::new();
        let mut send = place.send_open(&["jobs", "--queue", "--lines"]);
        use std::io::Write;
        send.0
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"a\nb\nhalf")
            .unwrap();
        until("two items", || {
            place.stat("jobs").is_some_and(|stat| stat["unread"] == 2)
        });
        send.signal(signal);
        send.code();
        if signal == Signal::TERM {
            let said = "slipring: line 3 of the input, and what follows it, was not sent\nslipring: terminated\n";
            assert_eq!(send.stderr(), said);
        }
        let output = work(&place, &[], &["cat"]);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(code), "a\nb\n".into())
        );
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
}

/// A worker that follows serves one feeder after another, and tells each end once.
#[test]
fn follow_waits_for_the_next_feeder() {
    let place = Place::new();
    let output = place.file("output");
    let script = format!("cat >> {}", output.display());
    let mut work = start(&place, &["--follow", "-j3"], &["sh", "-c", &script]);
    for lines in ["a\n", "a\nb\n"] {
        let last = &lines[lines.len() - 2..];
        assert_eq!(feed(&place, last.as_bytes()).code(), Some(0));
        until("it is done", || {
            fs::read_to_string(&output).is_ok_and(|done| done == lines)
        });
    }
    work.signal(Signal::TERM);
    assert_eq!(work.code(), Some(143));
    let said = work.stderr();
    assert!(
        said.starts_with("slipring: all feeders finished; waiting for the next one\n"),
        "{said}"
    );
}

/// Many threads learn of each end, and one of them tells it.
#[test]
fn each_end_is_told_once() {
    const FEEDERS: usize = 30;
    let place = Place::new();
    let told = place.file("told");
    let mut work = place.command(&words(&["--follow", "-j16"], &["true"]));
    let mut work = Running::start(work.stderr(fs::File::create(&told).unwrap()));
    let ends = || fs::read_to_string(&told).unwrap();
    for number in 1..=FEEDERS {
        assert_eq!(feed(&place, b"x\n").code(), Some(0));
        until("the end is told", || ends().lines().count() >= number);
    }
    work.signal(Signal::TERM);
    assert_eq!(work.code(), Some(143));
    let line = "slipring: all feeders finished; waiting for the next one\n";
    assert_eq!(ends(), line.repeat(FEEDERS) + "slipring: terminated\n");
}

/// A feeder waits for room in a small queue; workers in several processes share its items.
#[test]
fn small_queues_carry_many_items() {
    let place = Place::new();
    let lines: String = (0..200).map(|number| format!("{number}\n")).collect();
    let input = place.file("input");
    fs::write(&input, &lines).unwrap();
    let mut send = place.send(&["jobs", "--queue", "--lines", "--items", "4"], &input);
    until("the queue is full", || {
        place.stat("jobs").is_some_and(|stat| stat["unread"] == 4)
    });
    let mut workers: Vec<_> = (0..3).map(|_| start(&place, &["-j2"], &["cat"])).collect();
    assert_eq!(send.code(), Some(0), "{}", send.stderr());
    let mut done = Vec::new();
    for worker in &mut workers {
        assert_eq!(worker.code(), Some(0));
        done.extend(
            stdout(worker)
                .lines()
                .map(|line| line.parse::<u32>().unwrap()),
        );
    }
    done.sort_unstable();
    assert_eq!(done, (0..200).collect::<Vec<_>>());
}

/// Options that make no sense are usage errors, and a channel of another kind is refused.
#[test]
fn wrong_uses_are_refused() {
    let place = Place::new();
    for args in [
        &["send", "jobs", "--queue"][..],
        &["send", "jobs", "--queue", "--raw"],
        &["send", "jobs", "--queue", "--lines", "--ring", "4K"],
        &["send", "jobs", "--queue", "--lines", "--items", "3"],
        &["send", "jobs", "--lines", "--items", "4"],
        &["send", "jobs", "--lines", "--max-record", "4K"],
        &["send", "jobs", "--queue", "--lines", "--max-record", "0"],
        &["letters", "jobs", "--retry", "--drop"],
        &["work", "jobs"],
        &["work", "jobs", "-j0", "--", "true"],
        &["work", "jobs", "-j64", "--", "true"],
        &["work", "jobs", "--items", "3", "--", "true"],
        &["work", "jobs", "--timeout", "soon", "--", "true"],
        &["work", "a/b/c", "--", "true"],
    ] {
        assert_eq!(place.run(args).status.code(), Some(2), "{args:?}");
    }
    assert!(place.run(&["create", "jobs"]).status.success());
    for args in [
        &["send", "jobs", "--queue", "--lines"][..],
        &words(&[], &["true"]),
    ] {
        let output = place.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output.stderr).contains("`bytes`"),
            "{}",
            text(&output.stderr)
        );
    }
}

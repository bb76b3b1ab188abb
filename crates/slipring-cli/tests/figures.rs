//! `demo` and `bench`: small runs of the real thing, and figures that are consistent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;

use common::{Place, Running, json, text, until};
use rustix::process::{Pid, Signal, kill_process};

/// The demo checks every message in full, and the figures that it reports agree with each other.
#[test]
fn the_demo_reports_consistent_figures() {
    let place = Place::new();
    let args = ["demo", "--messages", "20000", "--json", "--check", "full"];
    let output = place.run(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let demo = json(&output);
    assert_eq!(demo["messages"], 20000);
    assert_eq!(demo["check"], "full");
    let mean = demo["bytes"].as_f64().unwrap() / 20000.0;
    assert!((15_000.0..18_000.0).contains(&mean), "{mean}");
    let rate = |transport: &str| demo[transport]["messages_per_s"].as_f64().unwrap();
    let ratio = demo["ratio"].as_f64().unwrap();
    assert!(rate("slipring") > 0.0 && rate("seqpacket") > 0.0);
    assert!((ratio * rate("seqpacket") / rate("slipring") - 1.0).abs() < 1e-6);
    let seconds = demo["slipring"]["seconds"].as_f64().unwrap();
    assert!((seconds * rate("slipring") / 20000.0 - 1.0).abs() < 1e-6);
}

/// The demo works with any maximum size of messages, from none to a mebibyte.
#[test]
fn the_demo_takes_any_message_size() {
    let place = Place::new();
    for max_size in ["0", "1", "7", "8", "9", "16", "1M"] {
        let args = [
            "demo",
            "--messages",
            "300",
            "--max-size",
            max_size,
            "--check",
            "full",
            "--json",
        ];
        let output = place.run(&args);
        assert!(
            output.status.success(),
            "{max_size}: {}",
            text(&output.stderr)
        );
        assert_eq!(json(&output)["messages"], 300);
    }
    let small = [
        "demo",
        "--messages",
        "2000",
        "--max-size",
        "56",
        "--ring",
        "64",
        "--json",
    ];
    assert!(place.run(&small).status.success());
}

/// The demo's output for people ends with the ratio to SOCK_SEQPACKET.
#[test]
fn the_demo_ends_with_the_ratio() {
    let place = Place::new();
    // These are enough messages to be timed on any machine.
    let output = place.run(&["demo", "--messages", "20000", "--seed", "9"]);
    let shown = text(&output.stdout);
    assert!(
        shown.starts_with("20 000 messages of 0 to 32 KiB"),
        "{shown}"
    );
    assert!(
        shown.trim_end().ends_with("times SOCK_SEQPACKET"),
        "{shown}"
    );
}

/// The bench measures both kinds of memory, and leaves no channel behind.
#[test]
fn the_bench_measures_and_cleans_up() {
    let place = Place::new();
    // No machine moves this much in a millisecond, so every rate is printed.
    let output = place.run(&["bench", "--size", "8,1264", "--bytes", "32M", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bench = json(&output);
    let cases = bench["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        assert!(case["one_at_a_time_per_s"].as_f64() > Some(0.0));
        assert!(case["in_place_per_s"].as_f64() > Some(0.0));
        assert!(case["round_trip_ns"]["p50"].as_u64() > Some(0));
    }
    assert_eq!(text(&place.run(&["ls"]).stdout), "");
}

/// The demo waits in the way that it was asked to, and its counts of system calls agree with that.
#[test]
fn the_demo_uses_the_chosen_wait() {
    for wait in ["spin", "sleep", "fd", "async"] {
        let place = Place::new();
        let run = ["demo", "--messages", "5000", "--check", "full", "--json"];
        let output = place.run(&[&run[..], &["--wait", wait]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let demo = json(&output);
        assert_eq!(demo["wait"], wait);
        for (end, other) in [("writer", "reader"), ("reader", "writer")] {
            let figure = |end, what: &str| demo["slipring"][end][what].as_f64().unwrap();
            // Each sleep takes two system calls or more, each wake-up one. (A woken end may have
            // found the news before it slept: then it made a call, and did not park.)
            let least = 2.0 * figure(end, "parks") + figure(end, "wakes");
            let seconds = demo["slipring"]["seconds"].as_f64().unwrap();
            let calls = figure(end, "system_calls_per_s") * seconds;
            let any = least + figure(other, "wakes") > 0.0;
            assert!(calls >= least * 0.999 && (any || calls == 0.0), "{demo}");
            assert!(demo["seqpacket"][end]["system_calls_per_s"].as_f64() > Some(0.0));
        }
    }
}

/// The demo polls its descriptors time and again, with both kinds of wait that use them. The ring
/// holds a few messages, so it is full, or empty, most of the time.
#[test]
fn the_demo_polls_its_descriptors_often() {
    let place = Place::new();
    let run = [
        "demo",
        "--messages",
        "20000",
        "--max-size",
        "100",
        "--ring",
        "256",
    ];
    for wait in ["fd", "async"] {
        let more = ["--check", "full", "--json", "--wait", wait];
        let output = place.run(&[&run[..], &more[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(json(&output)["messages"], 20000);
    }
}

#[test]
fn bench_wake_measures_what_sleeping_costs() {
    let output = Place::new().run(&["bench", "wake", "--runs", "1", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let figures = json(&output);
    for pointer in [
        "/publish_ns/slipring",
        "/publish_ns/no_wake_up",
        "/stream_8_bytes_per_s/spin",
        "/stream_8_bytes_per_s/default",
        "/round_trip_ns/default",
        "/round_trip_ns/asleep",
        "/round_trip_ns/futex",
        "/round_trip_ns/descriptor",
        "/round_trip_ns/pipe",
        "/idle_sleeper_percent_of_a_core",
    ] {
        assert!(
            figures.pointer(pointer).unwrap().as_f64() > Some(0.0),
            "{pointer}"
        );
    }
}

/// The demo ends, and reports it, when either of its processes is killed. The hang-up of its pipe
/// wakes the other end, which has no timer.
#[test]
fn a_killed_process_ends_the_demo() {
    for write in [false, true] {
        let place = Place::new();
        let run = ["demo", "--messages", "1000000000", "--max-size", "100"];
        // The ring holds a message or two: each end waits for the other nearly all the time.
        let more = ["--ring", "128", "--wait", "fd"];
        let mut demo = Running::start(&mut place.command(&[&run[..], &more[..]].concat()));
        let mut victim = None;
        until("both ends run", || {
            let path = format!("/proc/{0}/task/{0}/children", demo.0.id());
            let children = fs::read_to_string(path).unwrap();
            let ends: Vec<_> = children
                .split_whitespace()
                .filter_map(|pid| {
                    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                    line.contains("demo-end")
                        .then(|| (pid.to_string(), line.contains("--write")))
                })
                .collect();
            victim = ends
                .iter()
                .find(|end| end.1 == write)
                .map(|end| end.0.parse().unwrap());
            ends.len() == 2
        });
        // The sleep leads into the work; a kill on the way there is reported as well.
        std::thread::sleep(std::time::Duration::from_millis(50));
        kill_process(Pid::from_raw(victim.unwrap()).unwrap(), Signal::KILL).unwrap();
        assert_eq!(demo.code(), Some(1));
        assert!(demo.stderr().contains("ended early"));
    }
}

/// Checks that each figure is there, and stands beside its peer's; people judge whether it is good.
#[test]
fn bench_scarce_measures_every_case() {
    let place = Place::new();
    let output = place.run(&["bench", "scarce", "--runs", "1", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let figures = json(&output);
    let rows = figures["rows"].as_array().unwrap();
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "one_processor_round_trip_8",
            "one_processor_round_trip_1264",
            "one_processor_demo_sleep",
            "one_processor_demo_fd",
            "one_processor_demo_async",
            "one_processor_file",
            "strangers_demo",
            "one_processor_stranger_demo",
            "steady_processor_producer",
            "steady_processor_consumer",
            "steady_latency_p50",
            "steady_latency_p99",
        ]
    );
    for row in rows {
        let figure = |key: &str| row[key].as_f64().unwrap();
        // A producer's time beyond that of its clock may round to zero.
        if row["name"] != "steady_processor_producer" {
            assert!(
                figure("slipring") > 0.0 && figure("peer_figure") > 0.0,
                "{row}"
            );
            assert!(
                (figure("ratio") * figure("peer_figure") / figure("slipring") - 1.0).abs() < 1e-6
            );
        }
        assert!(row["reached"].is_boolean(), "{row}");
    }
    let left: Vec<_> = fs::read_dir(place.channels()).unwrap().collect();
    assert!(left.is_empty(), "a channel stayed: {left:?}");
}

//! The verbs that look and change: their answers, and their refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::{Place, json, text, until};
use serde_json::json;

#[test]
fn create_ls_stat_and_rm_agree() {
    let place = Place::new();
    assert_eq!(json(&place.run(&["ls", "--json"])), json!([]));
    let args = [
        "create",
        "market/ticks",
        "--ring",
        "64K",
        "--max-record",
        "1000",
    ];
    let more = ["--metadata", "made for a test", "--mode", "640", "--json"];
    let made = json(&place.run(&[&args[..], &more[..]].concat()));
    assert_eq!(made["ring"], 65536);
    assert_eq!(made["max_record"], 1000);
    assert_eq!(made["mode"], "0640");
    let stat = place.stat("market/ticks").unwrap();
    assert_eq!(stat["kind"], "bytes");
    assert_eq!(stat["capacity"], 65536);
    assert_eq!(stat["max_record"], 1000);
    assert_eq!(stat["metadata"], "made for a test");
    assert_eq!(stat["producer"]["state"], "never");
    assert_eq!(stat["page_size"], rustix::param::page_size());
    assert_eq!(
        json(&place.run(&["ls", "--json"]))[0]["name"],
        "market/ticks"
    );
    let shown = text(&place.run(&["stat", "market/ticks"]).stdout);
    assert!(shown.contains("metadata  made for a test"), "{shown}");
    let seat = shown.lines().find(|line| line.starts_with("producer"));
    let seat = seat.unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(seat, ["producer", "never", "-", "-", "-"], "{shown}");
    let listed = text(&place.run(&["ls"]).stdout);
    assert!(
        listed.contains("market/ticks  bytes    64 KiB     0 B  never"),
        "{listed}"
    );
    assert!(place.run(&["rm", "market/ticks"]).status.success());
    assert_eq!(json(&place.run(&["ls", "--json"])), json!([]));
}

/// Stat counts how often each end went to sleep and how often it woke the other.
#[test]
fn stat_counts_sleeps_and_wakeups() {
    let place = Place::new();
    let mut recv = place.recv_piped(&["ticks"]);
    let figure = |role: &str, word: &str| {
        let stat = place.stat("ticks");
        stat.map_or(0, |stat| stat[role][word].as_u64().unwrap())
    };
    until("the consumer sleeps", || figure("consumer", "parks") > 0);
    assert_eq!(figure("consumer", "wakes"), 0, "there was nobody");
    // A receiver that comes wakes the sender. A sender wakes the receiver, if it sleeps again by
    // then.
    let mut send = place.send_open(&["ticks"]);
    until("it was woken", || figure("producer", "wakes") > 0);
    let mut stdin = send.0.stdin.take().unwrap();
    until("it was woken for a message", || {
        stdin.write_all(b"a message").unwrap();
        figure("producer", "wakes") > 1 && figure("consumer", "parks") > 1
    });
    drop(stdin);
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
    // People see the same figures, under these heads.
    let shown = text(&place.run(&["stat", "ticks"]).stdout);
    let row = |first: &str| {
        // This is the second table of the seats.
        let line = shown.lines().rfind(|line| line.starts_with(first));
        line.unwrap().split_whitespace().collect::<Vec<_>>()
    };
    let heads = row("SEAT");
    assert_eq!(heads[heads.len() - 2..], ["PARKS", "WAKES"], "{shown}");
    for role in ["producer", "consumer"] {
        let figures = ["parks", "wakes"].map(|word| figure(role, word).to_string());
        let row = row(role);
        assert_eq!(row[row.len() - 2..], figures, "{shown}");
    }
}

#[test]
fn create_does_not_touch_what_exists() {
    let place = Place::new();
    assert!(
        place
            .run(&["create", "x", "--metadata", "first"])
            .status
            .success()
    );
    let second = place.run(&["create", "x", "--metadata", "second"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("channel `x` exists"));
    assert_eq!(place.stat("x").unwrap()["metadata"], "first");
}

/// A channel in use is not removed, but the others named with it are.
#[test]
fn rm_spares_channels_in_use() {
    let place = Place::new();
    assert!(place.run(&["create", "idle"]).status.success());
    let _recv = place.recv_piped(&["busy"]);
    place.until_seat("busy", "consumer", "held", 1);
    let removed = place.run(&["rm", "busy", "idle", "nothing"]);
    assert_eq!(removed.status.code(), Some(5));
    let said = text(&removed.stderr);
    assert!(
        said.contains("channel `busy` is in use: its consumer is held"),
        "{said}"
    );
    assert!(said.contains("no channel `nothing`"), "{said}");
    assert!(place.stat("idle").is_none());
    place.until_seat("busy", "consumer", "held", 1);
}

/// `rm` removes by patterns and by domains, and prints the names.
#[test]
fn rm_takes_patterns_and_domains() {
    let place = Place::new();
    let make = |name: &str| assert!(place.run(&["create", name]).status.success(), "{name}");
    let removed = |args: &[&str]| {
        let output = place.run(&[&["rm"], args].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        text(&output.stdout)
    };
    let all = ["a", "cam", "cam/left", "cam/right", "lidar/left"];
    all.into_iter().for_each(make);
    assert_eq!(removed(&["a", "a*"]), "removed a\n");
    assert_eq!(
        removed(&["cam/*t"]),
        "removed cam/left\nremoved cam/right\n"
    );
    let none = place.run(&["rm", "cam/*", "lidar/*"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        text(&none.stderr).contains("no channel matches `cam/*`"),
        "{none:?}"
    );
    assert_eq!(text(&none.stdout), "removed lidar/left\n");
    ["cam/left", "lidar/left"].into_iter().for_each(make);
    assert_eq!(removed(&["--domain", "cam"]), "removed cam/left\n");
    assert!(place.stat("cam").is_some() && place.stat("lidar/left").is_some());
    assert_eq!(removed(&["--unused"]), "removed cam\nremoved lidar/left\n");
    assert_eq!(removed(&["--unused"]), "");
    // A pattern of nothing, or a name that can be no domain, is refused.
    for args in [
        &["rm"][..],
        &["rm", "--domain", "a/b"],
        &["rm", "--older-than", "7"],
    ] {
        assert_eq!(place.run(args).status.code(), Some(2), "{args:?}");
    }
}

/// What `rm` does not find it reports with advice that fits: no channel is to be created first.
#[test]
fn rm_explains_what_is_missing() {
    let place = Place::new();
    assert!(place.run(&["create", "cam/left"]).status.success());
    for (args, code, advice) in [
        (&["rm", "lidar"][..], 1, "; look at `slipring ls`\n"),
        (
            &["rm", "cam"],
            1,
            "; for the channels of the domain `cam` use `--domain cam`\n",
        ),
        (&["rm", "lidar*"], 1, "; look at `slipring ls`\n"),
        (
            &["rm", "c*"],
            1,
            "; `*` does not stand for `/`: for the channels of domains use 'c*/*'\n",
        ),
        (
            &["rm", "--domain", "a/b"],
            2,
            "`a/b` is no channel name: a domain has no `/`; ",
        ),
        (
            &["rm", "--domain", "a b"],
            2,
            "`a b` is no channel name: it has a character that is not allowed; ",
        ),
    ] {
        let refused = place.run(args);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{args:?}");
        assert!(said.contains(advice), "{args:?}: {said}");
    }
    assert!(place.stat("cam/left").is_some());
}

/// Channels in use stay, without a word; and so do those that are not old enough.
#[test]
fn rm_clears_what_is_unused() {
    let place = Place::new();
    let _recv = place.recv_piped(&["busy"]);
    place.until_seat("busy", "consumer", "held", 1);
    assert!(place.run(&["create", "idle"]).status.success());
    let old = place.run(&["rm", "--older-than", "1h"]);
    assert_eq!(
        (old.status.code(), text(&old.stdout)),
        (Some(0), String::new())
    );
    let unused = place.run(&["rm", "--unused"]);
    assert_eq!(unused.status.code(), Some(0), "{unused:?}");
    assert_eq!(
        (text(&unused.stdout), text(&unused.stderr)),
        ("removed idle\n".into(), String::new())
    );
    assert!(place.run(&["create", "idle"]).status.success());
    let old = place.run(&["rm", "--older-than", "0s", "busy", "idle"]);
    assert_eq!(
        (old.status.code(), text(&old.stdout)),
        (Some(0), "removed idle\n".into())
    );
    place.until_seat("busy", "consumer", "held", 1);
}

/// An existing channel keeps its size; a verb that asked for another size reports that in one line.
#[test]
fn other_sizes_are_told() {
    let place = Place::new();
    assert!(
        place
            .run(&["create", "x", "--ring", "64K"])
            .status
            .success()
    );
    let told = |args: &[&str]| text(&place.run(args).stderr);
    let said = told(&["send", "x", "--ring", "1M"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("channel `x` exists") && said.contains("capacity 65536 instead of 1048576"),
        "{said}"
    );
    assert_eq!(told(&["recv", "x", "--ring", "64K"]), "");
    assert_eq!(told(&["send", "x"]), "");
    let said = told(&["recv", "x", "--chunk", "4K"]);
    assert!(
        said.contains("largest record 32760 instead of 4096"),
        "{said}"
    );
}

/// Both ends wait in a channel that is gone, and both report it.
#[test]
fn an_emptied_directory_is_told() {
    let place = Place::new();
    let mut waiting = [
        place.recv_piped(&["a"]),
        place.recv_piped(&["x"]),
        place.send_open(&["x"]),
    ];
    place.until_seat("a", "consumer", "held", 1);
    place.until_seat("x", "consumer", "held", 1);
    place.until_seat("x", "producer", "held", 1);
    for name in ["a", "x"] {
        fs::remove_dir_all(place.channels().join(name)).unwrap();
    }
    let codes = waiting.each_mut().map(|running| running.code());
    // Either end of `x` may have left first, and the other may have learned of that.
    assert_eq!(codes[0], Some(1));
    assert!([Some(1), Some(3)].contains(&codes[1]), "{codes:?}");
    assert_eq!(codes[2], Some(1));
}

/// The channel of a finished transfer is removed with it; a channel that somebody still uses stays.
#[test]
fn recv_removes_what_is_done() {
    let place = Place::new();
    fs::write(place.file("input"), "all of it").unwrap();
    let mut send = place.send(&["x"], &place.file("input"));
    assert_eq!(send.code(), Some(0));
    let got = place.run(&["recv", "x", "--remove"]);
    assert_eq!(
        (got.status.code(), text(&got.stdout)),
        (Some(0), "all of it".into())
    );
    assert!(place.stat("x").is_none());
    assert_eq!(fs::read_dir(place.channels()).unwrap().count(), 0);
    // A killed receiver removes nothing; the next one does.
    let killed = place.recv_piped(&["y", "--remove"]);
    place.until_seat("y", "consumer", "held", 1);
    drop(killed);
    assert!(place.stat("y").is_some());
    let mut send = place.send(&["y"], &place.file("input"));
    assert_eq!(send.code(), Some(0));
    assert!(place.run(&["recv", "y", "--remove"]).status.success());
    assert!(place.stat("y").is_none());
}

/// A directory that takes no channels, such as /proc, is refused with what to do.
#[test]
fn unfit_directories_are_told() {
    let place = Place::new();
    let mut command = place.command(&["create", "x"]);
    let made = command.env("SLIPRING_DIR", "/proc").output().unwrap();
    let said = text(&made.stderr);
    assert_eq!(made.status.code(), Some(1), "{said}");
    assert!(said.contains("; set SLIPRING_DIR to a directory"), "{said}");
}

/// A value that is refused is answered by what to write in its place, a negative one too.
#[test]
fn refused_values_come_with_advice() {
    let place = Place::new();
    for value in ["2s", "-1", "inf", "1e30"] {
        for verb in ["send", "recv"] {
            let said = text(&place.run(&[verb, "x", "--wait", value]).stderr);
            assert!(said.contains("use a number of seconds, such as"), "{said}");
        }
    }
    for (verb, flag) in [
        ("send", "--ring"),
        ("recv", "--chunk"),
        ("create", "--ring"),
        ("create", "--max-record"),
    ] {
        let said = text(&place.run(&[verb, "x", flag, "-5"]).stderr);
        assert!(said.contains("use a number of bytes, such as"), "{said}");
    }
}

/// Impossible names and sizes, and options that do not go together, are usage errors.
#[test]
fn impossible_arguments_are_usage_errors() {
    let place = Place::new();
    let long = "x".repeat(65);
    for name in ["", "..", ".hidden", "a/b/c", "a/", "/a", "a b", &long] {
        for verb in ["send", "recv", "create", "stat", "tail", "rm"] {
            let output = place.run(&[verb, name]);
            assert_eq!(output.status.code(), Some(2), "{verb} `{name}`");
            assert!(
                text(&output.stderr).contains("is no channel name"),
                "{verb} `{name}`"
            );
        }
    }
    for ring in ["0", "63", "1000", "3", "1G1", "x", "9999999999G"] {
        let output = place.run(&["create", "x", "--ring", ring]);
        assert_eq!(output.status.code(), Some(2), "ring {ring}");
    }
    let more = "x".repeat(257);
    for args in [
        &["create", "x", "--ring", "64", "--max-record", "100"][..],
        &["create", "x", "--mode", "999"],
        &["create", "x", "--huge", "4K"],
        &["create", "x", "--metadata", &more],
        &["send", "x", "--ring", "1K", "--chunk", "2K"],
        &["send", "x", "--chunk", "0"],
        &["recv", "x", "--follow", "--remove"],
        &["create", "x", "--mode", "060"],
        &["demo", "--messages", "0"],
        &["demo", "--ring", "1K"],
        &["tail", "x", "--oldest", "--from", "3"],
        &["tail", "x", "--hex", "--json"],
        &["nonsense"],
    ] {
        assert_eq!(place.run(args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(json(&place.run(&["ls", "--json"])), json!([]));
}

/// A missing directory and a missing channel are reported as such.
#[test]
fn missing_places_are_reported() {
    let place = Place::new();
    let nowhere = place.file("nowhere");
    for args in [
        &["ls"][..],
        &["stat", "x"],
        &["tail", "x"],
        &["send", "x"],
        &["recv", "x"],
        &["rm", "x"],
    ] {
        let output = place
            .command(args)
            .env("SLIPRING_DIR", &nowhere)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output.stderr).contains("does not exist; create it"),
            "{args:?}"
        );
    }
    for verb in ["stat", "tail", "rm"] {
        let output = place.run(&[verb, "x"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("no channel `x`"));
    }
}

/// A ruined channel is listed as such and refused by the other commands, and it can be removed.
#[test]
fn ruined_channels_can_be_removed() {
    let place = Place::new();
    assert!(place.run(&["create", "good"]).status.success());
    for (name, control) in [
        ("junk", vec![0x55; 20000]),
        ("zero", vec![0; 20000]),
        ("short", vec![1; 10]),
    ] {
        assert!(place.run(&["create", name]).status.success());
        let dir = place.channels().join(name);
        fs::write(dir.join("control"), control).unwrap();
        fs::write(dir.join("data"), vec![0; 100_000]).unwrap();
        for verb in ["stat", "tail", "send", "recv"] {
            let output = place.run(&[verb, name]);
            assert_eq!(output.status.code(), Some(1), "{verb} {name}");
            let said = text(&output.stderr);
            assert_eq!(said.lines().count(), 1, "{verb} {name}: {said}");
        }
    }
    let listed = place.run(&["ls"]);
    assert!(listed.status.success());
    let listed = text(&listed.stdout);
    assert!(listed.contains("good  bytes"), "{listed}");
    assert!(listed.contains("junk  (not a channel:"), "{listed}");
    assert!(json(&place.run(&["ls", "--json"]))[1]["error"].is_string());
    assert!(place.run(&["rm", "junk", "zero", "short"]).status.success());
    assert_eq!(
        json(&place.run(&["ls", "--json"]))
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn rm_leaves_photos_alone() {
    let place = Place::new();
    assert!(place.run(&["create", "idle"]).status.success());
    let photos = place.channels().join("photos");
    fs::create_dir(&photos).unwrap();
    for name in ["control", "data", "beach.jpg"] {
        fs::write(photos.join(name), name).unwrap();
    }
    let removed = place.run(&["rm", "photos", "idle"]);
    assert_eq!(removed.status.code(), Some(1));
    let said = text(&removed.stderr);
    assert!(
        said.contains("photos was not removed: it holds a file `beach.jpg`"),
        "{said}"
    );
    assert!(place.stat("idle").is_none());
    for name in ["control", "data", "beach.jpg"] {
        assert_eq!(fs::read(photos.join(name)).unwrap(), name.as_bytes());
    }
    assert_eq!(fs::read_dir(place.channels()).unwrap().count(), 1);
}

#[test]
fn create_names_the_file_limit() {
    let place = Place::new();
    let mut command = std::process::Command::new("sh");
    let script = "ulimit -f 100; exec \"$0\" create f";
    command.args(["-c", script, env!("CARGO_BIN_EXE_slipring")]);
    let output = command
        .env("SLIPRING_DIR", place.channels())
        .output()
        .unwrap();
    // It ended with an exit code: no signal ended it.
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("`ulimit -f`"), "{said}");
    assert_eq!(fs::read_dir(place.channels()).unwrap().count(), 0);
}

/// If the huge pages asked for are not there, create reports what it got instead, and why.
#[test]
fn missing_huge_pages_are_reported() {
    let place = Place::new();
    let pools = json(&place.run(&["hugepages", "--json"]));
    let made = json(&place.run(&["create", "x", "--huge", "1G", "--ring", "64K", "--json"]));
    assert_eq!(made["pages"]["asked"], 1 << 30);
    let mounted = |pool: &serde_json::Value| {
        pool["page_size"] == 1 << 30 && !pool["mount"].is_null() && pool["free"].as_u64() > Some(0)
    };
    if !pools.as_array().unwrap().iter().any(mounted) {
        assert_eq!(made["pages"]["got"], rustix::param::page_size());
        assert!(made["pages"]["reason"].is_string());
    }
}

#[test]
fn help_names_the_exit_codes() {
    let place = Place::new();
    let help = place.run(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "130 ", "141 ", "143 "] {
        assert!(help.contains(&format!("\n  {code}")), "{code}");
    }
}

/// The help of every verb, long and short, wraps at words: no line is longer than the terminal or than 80
/// columns, and the words are the same at every width.
#[test]
fn help_fits_the_terminal() {
    let place = Place::new();
    let verbs = "demo send recv work create ls stat tail rm hugepages bench";
    let mut calls: Vec<Vec<&str>> = verbs.split(' ').map(|verb| vec![verb]).collect();
    calls.extend([vec![], vec!["bench", "wake"], vec!["bench", "scarce"]]);
    for (call, flag) in calls
        .iter()
        .flat_map(|call| [(call, "--help"), (call, "-h")])
    {
        let at = |columns: usize| {
            let mut command = place.command(call);
            command.arg(flag).env("COLUMNS", columns.to_string());
            let help = text(&command.stdout(Stdio::piped()).output().unwrap().stdout);
            for line in help.lines() {
                assert!(line.chars().count() <= columns.min(80), "{call:?}: {line}");
            }
            let words = help.split_whitespace().map(String::from);
            words.collect::<Vec<_>>()
        };
        let words = at(80);
        assert!(words.contains(&"Usage:".to_string()), "{call:?}");
        assert_eq!((at(40), at(300)), (words.clone(), words), "{call:?}");
    }
}

/// Each exit code begins a line, and all else of the table stands indented behind it, in a terminal
/// of 60 columns too.
#[test]
fn exit_codes_stand_out() {
    let place = Place::new();
    for columns in ["60", "80"] {
        let mut command = place.command(&["--help"]);
        command.env("COLUMNS", columns).stdout(Stdio::piped());
        let help = text(&command.output().unwrap().stdout);
        let table = help.split_once("Exit codes:\n").unwrap().1;
        let table = table.split_once("\n\n").unwrap().0;
        let at_start = table.lines().filter_map(|line| {
            let (code, text) = line.split_at(7);
            assert!(!text.starts_with(' '), "{line}");
            (!code.trim().is_empty()).then(|| code.trim())
        });
        let codes = ["0", "1", "2", "3", "4", "5", "129", "130", "143", "141"];
        assert_eq!(at_start.collect::<Vec<_>>(), codes);
    }
}

/// Without channels `ls` prints nothing on standard output, and says so on standard error.
#[test]
fn empty_ls_says_so() {
    let place = Place::new();
    let listed = place.run(&["ls"]);
    assert_eq!(
        (listed.status.code(), text(&listed.stdout)),
        (Some(0), String::new())
    );
    assert!(text(&listed.stderr).starts_with("slipring: no named channels in "));
}

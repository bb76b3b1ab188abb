//! `sub` of typed topics, and its flags together: several topics, the last few messages, formats, counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Place, Running, objects, publish, text};

/// Publishes, and insists on success.
fn published(place: &Place, args: &[&str], input: &[u8]) {
    let output = publish(place, args, input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// Runs `sub` to its end, and insists on success without a word.
fn sub(place: &Place, args: &[&str]) -> Vec<u8> {
    let output = place.run(&[&["sub"], args].concat());
    assert_eq!(text(&output.stderr), "", "{args:?}");
    assert_eq!(output.status.code(), Some(0), "{args:?}");
    output.stdout
}

/// Values are shown as hexadecimal, and their bytes can be had as they are. A process of its own publishes them.
#[test]
fn values_are_shown_as_bytes() {
    if std::env::var_os("SUBSCRIBE_OWNER").is_some() {
        let topic = slipring::topic::Builder::<u32>::new(4);
        let mut tx = topic.time_stamps().producer("d/typed").unwrap();
        for value in [1, 0x4142_4344, 0xff00_0000] {
            tx.push(value).unwrap();
        }
        return;
    }
    let place = Place::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "values_are_shown_as_bytes", "-q"]);
    command.env("SLIPRING_DIR", place.channels());
    let owner = command.env("SUBSCRIBE_OWNER", "1").output().unwrap();
    assert!(owner.status.success(), "{}", text(&owner.stderr));
    published(&place, &["d/lines"], b"text\n");
    let typed = |args: &[&str]| {
        sub(
            &place,
            &[&["d/typed", "--last", "9", "--no-follow"], args].concat(),
        )
    };
    assert_eq!(text(&typed(&[])), "01000000\n44434241\n000000ff\n");
    assert_eq!(typed(&["--raw", "-n", "2"]), b"\x01\0\0\0DCBA");
    assert_eq!(typed(&["--framed", "-n", "1"]), b"\x04\0\0\0\x01\0\0\0");
    let shown = objects(&typed(&["--json"]));
    assert_eq!(
        (&shown[1]["bytes"], &shown[1]["type"]),
        (&"44434241".into(), &"u32".into())
    );
    assert!(shown[1]["text"].is_null(), "values are no text");
    assert!(shown[1]["time_ns"].as_u64() >= shown[0]["time_ns"].as_u64());
    // Beside one of byte strings.
    assert_eq!(
        text(&sub(&place, &["d/*", "--latest"])),
        "d/lines\ttext\nd/typed\t000000ff\n"
    );
    let both = objects(&sub(&place, &["d/*", "--latest", "--json"]));
    assert_eq!(
        (&both[0]["text"], &both[0]["type"]),
        (&"text".into(), &serde_json::Value::Null)
    );
    // Nobody may publish bytes there.
    let refused = publish(&place, &["d/typed"], b"x\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("the channel carries `u32`"));
}

#[test]
fn flags_work_together() {
    let place = Place::new();
    published(&place, &["d/a", "--history", "4"], b"1\n2\n3\n4\n5\n6\n");
    published(&place, &["d/b"], b"7\n8\n");
    published(&place, &["c"], b"9\n");
    // The last of each, as far as they are readable; more than there are is no error.
    let last = |args: &[&str]| text(&sub(&place, &[&["--no-follow"], args].concat()));
    assert_eq!(
        last(&["d/*", "--last", "2"]),
        "d/a\t5\nd/a\t6\nd/b\t7\nd/b\t8\n"
    );
    assert_eq!(
        last(&["d/*", "c", "--last", "99", "-n", "5"]),
        "c\t9\nd/a\t3\nd/a\t4\nd/a\t5\nd/a\t6\n"
    );
    assert_eq!(last(&["d/b", "c", "--last", "1", "--raw"]), "98");
    let shown = objects(last(&["c", "d/a", "--last", "3", "--json"]).as_bytes());
    let told: Vec<_> = shown
        .iter()
        .map(|shown| format!("{} {} {}", shown["topic"], shown["sequence"], shown["text"]))
        .collect();
    assert_eq!(
        told,
        [
            r#""c" 0 "9""#,
            r#""d/a" 3 "4""#,
            r#""d/a" 4 "5""#,
            r#""d/a" 5 "6""#
        ]
    );
    assert_eq!(
        text(&sub(&place, &["d/*", "--latest", "-n", "1", "--framed"])),
        "\u{1}\0\0\x006"
    );
    assert_eq!(text(&sub(&place, &["d/a", "-n", "0"])), "");
    // Without --no-follow it goes on with what comes, of topics that come, too.
    let mut command = place.command(&["sub", "d/*", "--last", "1", "-n", "4"]);
    let mut running = Running::start(command.stdout(Stdio::piped()));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert_eq!([line(), line()], ["d/a\t6", "d/b\t8"]);
    published(&place, &["d/b"], b"10\n");
    assert_eq!(line(), "d/b\t10");
    published(&place, &["d/new"], b"11\n");
    assert_eq!(line(), "d/new\t11");
    assert_eq!(running.code(), Some(0));
}

#[test]
fn bad_mixes_are_refused() {
    let place = Place::new();
    published(&place, &["x"], b"1\n");
    for (args, words) in [
        (&["x", "--no-follow"][..], "--last"),
        (&["x", "--latest", "--no-follow"], "cannot be used with"),
        (&["x", "--last", "1", "--follow"], "cannot be used with"),
        (&["x", "--last", "1", "--latest"], "cannot be used with"),
        (&["x", "--raw", "--json"], "cannot be used with"),
        (&["x", "--raw", "--framed"], "cannot be used with"),
        (&["x", "--last", "-1"], "unexpected argument"),
        (&["x", "--messages", "many"], "invalid value"),
    ] {
        let output = place.run(&[&["sub"], args].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            said.contains(words) && output.stdout.is_empty(),
            "{args:?}: {said}"
        );
    }
    // What is not there is not waited for.
    for (args, words) in [
        (&["y", "--last", "1", "--no-follow"][..], "no topic `y`"),
        (
            &["x", "y/*", "--last", "1", "--no-follow"],
            "no topic matches `y/*`",
        ),
    ] {
        let output = place.run(&[&["sub"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}");
    }
}

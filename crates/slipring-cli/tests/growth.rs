//! `--max-ring` and `resize`: a ring grows under a burst, gives its memory back, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use common::{Place, json, noise, text, until};

/// Returns the bytes of memory behind the channel's messages.
fn memory(place: &Place, name: &str) -> u64 {
    let data = place.channels().join(name).join("data");
    std::fs::metadata(data).unwrap().blocks() * 512
}

/// A burst of fifty times the ring goes through at once, and the ring is small again soon after it was read.
#[test]
fn a_burst_makes_the_ring_grow_and_shrink() {
    let place = Place::new();
    let burst = noise(3 << 20, 7);
    let flags = [
        "burst",
        "--ring",
        "64K",
        "--max-ring",
        "4M",
        "--chunk",
        "16K",
    ];
    let mut send = place.send_open(&flags);
    let input = send.0.stdin.as_mut().unwrap();
    // Nobody reads yet, and still all of it goes in.
    input.write_all(&burst).unwrap();
    until("all of it is in the channel", || {
        place
            .stat("burst")
            .is_some_and(|stat| stat["len"].as_u64() >= Some(burst.len() as u64))
    });
    let grown = place.stat("burst").unwrap();
    assert_eq!(grown["capacity"], 4 << 20);
    assert_eq!(
        (&grown["min_capacity"], &grown["max_capacity"]),
        (&(64 << 10).into(), &(4 << 20).into())
    );
    assert!(
        grown["resizes"].as_u64().unwrap() > 0 && grown["rings"].as_u64().unwrap() > 1,
        "{grown}"
    );
    assert_eq!(grown["memory"].as_u64().unwrap(), memory(&place, "burst"));
    let output = place.file("copy");
    let mut recv = place.recv(&["burst"], &output);
    until("the ring is small, and its memory is gone", || {
        let stat = place.stat("burst").unwrap();
        stat["capacity"] == 64 << 10 && stat["rings"] == 1 && memory(&place, "burst") < 128 << 10
    });
    drop(send.0.stdin.take());
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
    assert!(std::fs::read(&output).unwrap() == burst);
}

/// `resize` says what it did, and what is not possible.
#[test]
fn resize_says_what_is_possible() {
    let place = Place::new();
    let made = place.run(&[
        "create",
        "logs",
        "--ring",
        "64K",
        "--max-ring",
        "1M",
        "--json",
    ]);
    assert_eq!(
        (&json(&made)["ring"], &json(&made)["max_ring"]),
        (&(64 << 10).into(), &(1 << 20).into())
    );
    let resized = place.run(&["resize", "logs", "1M", "--json"]);
    assert!(resized.status.success(), "{}", text(&resized.stderr));
    assert_eq!(
        (&json(&resized)["before"], &json(&resized)["ring"]),
        (&(64 << 10).into(), &(1 << 20).into())
    );
    assert_eq!(
        text(&place.run(&["resize", "logs", "64K"]).stdout),
        "logs: ring 64 KiB, was 1 MiB\n"
    );
    assert!(memory(&place, "logs") < 128 << 10);
    assert!(place.run(&["create", "fixed"]).status.success());
    for (words, code, says) in [
        (
            ["resize", "logs", "2M"],
            2,
            "a power of two from 65536 to 1048576",
        ),
        (
            ["resize", "logs", "4K"],
            2,
            "a power of two from 65536 to 1048576",
        ),
        (
            ["resize", "logs", "100000"],
            2,
            "a power of two from 65536 to 1048576",
        ),
        (["resize", "fixed", "1M"], 1, "capacity is fixed"),
        (["resize", "nothing", "1M"], 1, "nothing"),
        (["create", "small", "--max-ring=64K"], 2, "max_capacity"),
    ] {
        let refused = place.run(&words);
        assert_eq!(
            refused.status.code(),
            Some(code),
            "{words:?}: {}",
            text(&refused.stderr)
        );
        assert!(
            text(&refused.stderr).contains(says),
            "{words:?}: {}",
            text(&refused.stderr)
        );
    }
    // Whoever is there is not disturbed, and whoever comes later hears of nothing.
    let output = place.file("copy");
    let mut recv = place.recv(&["logs"], &output);
    place.until_seat("logs", "consumer", "held", 3);
    assert_eq!(place.run(&["resize", "logs", "1M"]).status.code(), Some(5));
    let mut send = place.send_open(&["logs"]);
    send.0.stdin.take().unwrap().write_all(b"a line\n").unwrap();
    assert_eq!((send.code(), recv.code()), (Some(0), Some(0)));
    assert_eq!(std::fs::read(&output).unwrap(), b"a line\n");
}

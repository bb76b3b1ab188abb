//! A channel that cannot be made, or is not the wanted one, is refused. The error says what was
//! found, what was expected and what to do. The live channel is not touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring::{Error, bytes, spsc};
use slipring_tests::{Peer, Room, is_root};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// The ways to make a channel.
const WAYS: [&str; 4] = ["create ticks", "producer ticks", "heap", "memfd"];

#[test]
fn zero_and_odd_capacities_are_refused() {
    let room = room();
    let mut peer = room.peer();
    let bad = [
        (
            "kind=spsc capacity=0",
            vec!["0 is no capacity", "power of two from 1 to"],
        ),
        (
            "kind=spsc capacity=3",
            vec!["3 is no capacity", "4 is the next"],
        ),
        (
            "kind=spsc capacity=1000",
            vec!["1000 is no capacity", "1024 is the next"],
        ),
        (
            "kind=spsc capacity=18446744073709551615",
            vec!["is no capacity", "power of two"],
        ),
        (
            "kind=spsc capacity=2199023255552",
            vec!["2199023255552 is no capacity", "1099511627776"],
        ),
        (
            "kind=bytes capacity=0",
            vec!["0 is no capacity", "power of two from 64 to"],
        ),
        (
            "kind=bytes capacity=32",
            vec!["32 is no capacity", "from 64 to"],
        ),
        (
            "kind=bytes capacity=100",
            vec!["100 is no capacity", "128 is the next"],
        ),
        (
            "kind=bytes capacity=4097",
            vec!["4097 is no capacity", "8192 is the next"],
        ),
        (
            "kind=bytes capacity=9223372036854775808",
            vec!["is no capacity", "power of two"],
        ),
    ];
    for way in WAYS {
        for (options, words) in &bad {
            peer.refused(&format!("{way} {options}"), "Capacity", words);
        }
    }
    assert_eq!(room.names(), Vec::<String>::new(), "something was made");
}

/// An absurd capacity fails at once with `NoSpace`.
#[test]
fn absurd_capacities_have_no_space() {
    let room = room();
    let mut peer = room.peer();
    // These are 64 TiB, 16 TiB, and a ring of 16 TiB: legal shapes that no machine holds.
    for options in [
        "kind=spsc capacity=1099511627776",
        "kind=u64 capacity=2199023255552",
        "kind=bytes capacity=17592186044416 max=100",
    ] {
        for way in WAYS {
            let words = ["no space for", "smaller capacity"];
            peer.refused(&format!("{way} {options}"), "NoSpace", &words);
        }
    }
    // The most memory that the process ever had shows that it did not try.
    let peak = peer.number("memory");
    assert!(peak < 128 << 10, "{peak} KiB");
    assert_eq!(room.names(), Vec::<String>::new(), "something is left");
    peer.ok("create ticks");
}

/// A largest record that does not fit the ring is refused.
#[test]
fn largest_records_must_fit_the_ring() {
    let room = room();
    let mut peer = room.peer();
    for max in ["4089", "5000", "9223372036854775807"] {
        for way in WAYS {
            let line = format!("{way} kind=bytes capacity=4096 max={max}");
            peer.refused(&line, "MaxRecord", &["8 to 4088 bytes", "larger ring"]);
        }
    }
    assert_eq!(room.names(), Vec::<String>::new());
}

/// A record or batch larger than the ring is an error at once, and changes nothing.
#[test]
fn oversized_records_and_batches_are_refused() {
    for ring in [64_usize, 4096] {
        let most = ring - 8;
        let builder = bytes::Builder::new(ring).max_record(most);
        let (mut tx, mut rx) = builder.channel_pair().unwrap();
        let payload = (0..=most).map(|i| i as u8).collect::<Vec<_>>();
        for _ in 0..3 {
            let refused = [
                tx.try_push(&payload).unwrap_err(),
                tx.push(&payload).unwrap_err(),
                tx.try_reserve(most + 1).err().unwrap(),
                tx.reserve(usize::MAX).err().unwrap(),
            ];
            let asked = [most + 1, most + 1, most + 1, usize::MAX].map(|asked| asked as u64);
            for (error, asked) in refused.into_iter().zip(asked) {
                let (text, max) = (error.to_string(), most as u64);
                assert_eq!(error, Error::TooLarge { asked, max });
                assert!(text.contains(&format!("at most {most} fit")), "{text}");
            }
            assert_eq!((tx.len().unwrap(), tx.max_record()), (0, most));
            // The largest record that fits does fit, whole, wherever the ring stands.
            tx.push(&payload[..most]).unwrap();
            assert_eq!(&rx.read().unwrap()[..], &payload[..most]);
            tx.push(&payload[..5]).unwrap();
            assert_eq!(&rx.read().unwrap()[..], &payload[..5]);
        }
    }
    let (mut tx, _rx) = spsc::channel::<u64>(8).unwrap();
    let too_large = |asked| Some(Error::TooLarge { asked, max: 8 });
    assert_eq!(tx.try_reserve(9).err(), too_large(9));
    assert_eq!(tx.reserve(usize::MAX).err(), too_large(u64::MAX));
    assert_eq!(tx.position(), 0);
}

/// A name that breaks the rule is refused.
#[test]
fn names_must_follow_the_rule() {
    let room = room();
    let mut peer = room.peer();
    let long = "x".repeat(65);
    let bad = [
        ("%", "empty"),
        (long.as_str(), "longer than 64 bytes"),
        (&format!("market/{long}"), "longer than 64 bytes"),
        ("..", "dot"),
        (".", "dot"),
        (".hidden", "dot"),
        ("a/..", "dot"),
        ("../a", "dot"),
        ("a/b/c", "more than one `/`"),
        ("/abs", "empty part"),
        ("a/", "empty part"),
        ("/", "empty part"),
        ("//", "more than one `/`"),
        ("nul%00", "not allowed"),
        ("%00", "not allowed"),
        ("a%20b", "not allowed"),
        ("line%0a", "not allowed"),
        ("@market", "not allowed"),
        ("%c3%bcmlaut", "not allowed"),
        ("a\\b", "not allowed"),
    ];
    for (name, why) in bad {
        let verbs = [
            "create",
            "open",
            "open-or-create",
            "producer",
            "consumer",
            "stat",
            "remove",
        ];
        for verb in verbs {
            let rule = [
                why,
                "`topic` or `domain/topic`",
                "1 to 64 of the characters",
            ];
            peer.refused(&format!("{verb} {name}"), "BadName", &rule);
        }
    }
    assert_eq!(room.names(), Vec::<String>::new());
    // These names are the longest allowed.
    let (domain, topic) = ("d".repeat(64), "t".repeat(64));
    peer.ok(&format!("create {domain}/{topic}"));
    assert_eq!(peer.ok("list"), [format!("{domain}/{topic}")]);
}

#[test]
fn domains_do_not_collide() {
    let room = room();
    let names = [
        "ticks",
        "market/ticks",
        "orders/ticks",
        "market",
        "market/market",
    ];
    let mut makers = names.map(|name| {
        let mut peer = room.peer();
        peer.ok(&format!("producer {name}"));
        peer
    });
    for (i, peer) in makers.iter_mut().enumerate() {
        peer.ok(&format!("push {} 1", i * 100));
    }
    for (i, name) in names.iter().enumerate() {
        let mut peer = room.peer();
        peer.ok(&format!("consumer {name}"));
        assert_eq!(peer.numbers("drain"), [i as u64 * 100], "{name}");
    }
}

/// Returns a channel in use, with three messages in it: its room, producer and consumer.
fn live(kind: &str) -> (Room, Peer, Peer) {
    let room = room();
    let (mut tx, mut rx) = (room.peer(), room.peer());
    tx.ok(&format!("producer ticks {kind}"));
    rx.ok(&format!("consumer ticks {kind}"));
    tx.ok("push 0 5");
    assert_eq!(rx.numbers("pop 2"), [0, 1]);
    (room, tx, rx)
}

/// Checks that traffic goes on as if nothing had happened.
#[track_caller]
fn goes_on(tx: &mut Peer, rx: &mut Peer) {
    tx.ok("push 5 20");
    assert_eq!(rx.numbers("drain"), (2..25).collect::<Vec<_>>());
}

/// Another type, size or kind is refused, and the live channel is untouched.
#[test]
fn a_mismatch_leaves_the_channel_untouched() {
    let spsc = "kind=spsc capacity=64";
    let bytes = "kind=bytes capacity=4096 max=112";
    let (message, twin, small) = ("`Message`", "`Twin`", "`Small`");
    let both = "both sides must use one definition";
    let cases = [
        (
            spsc,
            "kind=twin capacity=64",
            "Schema",
            vec![message, twin, "64 bytes", both],
        ),
        (
            spsc,
            "kind=small capacity=64",
            "Schema",
            vec![message, small, "32 bytes", both],
        ),
        (
            spsc,
            "kind=u64 capacity=512",
            "Schema",
            vec![message, "`u64`", "8 bytes", both],
        ),
        (
            spsc,
            "kind=packet capacity=4096",
            "Schema",
            vec![message, "1264 bytes", both],
        ),
        (
            spsc,
            "kind=bytes capacity=65536",
            "Kind",
            vec!["`spsc`", "`bytes`"],
        ),
        (
            bytes,
            "kind=spsc capacity=64",
            "Kind",
            vec!["`bytes`", "`spsc`"],
        ),
        (
            spsc,
            "kind=spsc capacity=128 exact=1",
            "Geometry",
            vec!["capacity 64", "insists on 128", "remove it"],
        ),
        (
            bytes,
            "kind=bytes capacity=4096 max=200 exact=1",
            "Geometry",
            vec!["largest record 112", "200"],
        ),
    ];
    for (kind, other, error, words) in cases {
        let (room, mut tx, mut rx) = live(kind);
        let before = room.contents();
        let mut peer = room.peer();
        for verb in ["open", "open-or-create", "producer", "consumer"] {
            peer.refused(&format!("{verb} ticks {other}"), error, &words);
        }
        peer.refused(
            &format!("create ticks {other}"),
            "AlreadyExists",
            &["ticks"],
        );
        before.are_those_of(&room, "the live channel");
        goes_on(&mut tx, &mut rx);
    }
}

/// Without `exact`, a request for another geometry opens the channel that is there.
#[test]
fn without_exact_any_geometry_opens() {
    for (kind, other) in [
        ("kind=spsc capacity=64", "kind=spsc capacity=1024"),
        (
            "kind=bytes capacity=4096 max=112",
            "kind=bytes capacity=65536 max=5000",
        ),
    ] {
        let (room, mut tx, mut rx) = live(kind);
        let before = room.contents();
        let mut peer = room.peer();
        let found = peer.ok(&format!("open-or-create ticks {other}"));
        assert_eq!(found, room.peer().ok(&format!("open ticks {kind} exact=1")));
        let figures = if kind.contains("bytes") {
            ["4096", "120"]
        } else {
            ["64", "64"]
        };
        assert_eq!(peer.ok("geometry"), figures);
        before.are_those_of(&room, "the live channel");
        goes_on(&mut tx, &mut rx);
    }
}

/// A second create fails and leaves the live channel alone.
#[test]
fn a_second_create_changes_nothing() {
    for kind in ["kind=spsc capacity=64", "kind=bytes capacity=4096 max=112"] {
        let (room, mut tx, mut rx) = live(kind);
        let before = room.contents();
        let mut peer = room.peer();
        let words = ["ticks", "exists in", "open it, or remove it first"];
        peer.refused(&format!("create ticks {kind}"), "AlreadyExists", &words);
        peer.refused("create ticks kind=spsc capacity=8", "AlreadyExists", &words);
        // Creates that fail for other reasons do no more.
        let long = "m".repeat(257);
        let metadata = ["256 bytes", "257 were given"];
        peer.refused(
            &format!("create ticks metadata={long}"),
            "Metadata",
            &metadata,
        );
        peer.refused("create ticks capacity=7", "Capacity", &["8 is the next"]);
        peer.refused("create ticks capacity=1099511627776", "AlreadyExists", &[]);
        peer.refused(
            "remove ticks",
            "InUse",
            &["ticks", "producer", "stop it first"],
        );
        before.are_those_of(&room, "the live channel");
        goes_on(&mut tx, &mut rx);
    }
}

/// Metadata is kept to the last of its 256 bytes, and one byte more is refused.
#[test]
fn metadata_holds_256_bytes() {
    let room = room();
    let mut peer = room.peer();
    let most = "m".repeat(256);
    peer.ok(&format!("create full metadata={most}"));
    assert_eq!(peer.ok("metadata"), [most]);
    peer.ok("create short metadata=hello");
    let mut other = room.peer();
    // An existing channel keeps its metadata, whatever the opener would have written.
    other.ok("open-or-create short metadata=other");
    assert_eq!(other.ok("metadata"), ["hello"]);
    let long = "m".repeat(257);
    for way in WAYS {
        peer.refused(
            &format!("{way} metadata={long}"),
            "Metadata",
            &["256 bytes", "257"],
        );
    }
    assert_eq!(room.names(), ["full", "short"]);
}

/// What is not there is not found, and looking for it makes nothing.
#[test]
fn what_is_missing_is_not_found() {
    let room = room();
    let mut peer = room.peer();
    for name in ["ticks", "market/ticks"] {
        for verb in ["open", "stat", "remove"] {
            let words = [name, "no channel", "create it first", "slipring ls"];
            peer.refused(&format!("{verb} {name}"), "NotFound", &words);
        }
    }
    assert_eq!(room.names(), Vec::<String>::new(), "looking made something");
    // A directory that does not exist is not made: a misspelt SLIPRING_DIR would be two worlds.
    let missing = room.path().join("missing");
    peer.ok(&format!("dir {}", missing.display()));
    for line in [
        "open ticks",
        "create ticks",
        "producer ticks",
        "stat ticks",
        "remove ticks",
        "list",
    ] {
        let words = [
            missing.to_str().unwrap(),
            "does not exist",
            "create it, or change SLIPRING_DIR",
        ];
        peer.refused(line, "NoDirectory", &words);
    }
    assert!(!missing.exists());
    let file = room.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    peer.ok(&format!("dir {}", file.display()));
    for line in ["open ticks", "create ticks", "list"] {
        peer.refused(
            line,
            "Directory",
            &[
                file.to_str().unwrap(),
                "Not a directory",
                "set SLIPRING_DIR",
            ],
        );
    }
    if !is_root() {
        // Only root may write into a directory without a write bit.
        peer.ok("dir /");
        peer.refused("create ticks", "Directory", &["SLIPRING_DIR"]);
    }
}

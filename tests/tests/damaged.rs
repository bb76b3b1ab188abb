//! A channel with damaged files: an opener refuses it, it disturbs nobody, and it can be removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use slipring_tests::{Room, kinds};

const KINDS: [&str; 4] = kinds!("");

/// A room with an idle channel `ticks` in which three messages wait, and one named `whole`.
fn room(kind: &str) -> Room {
    let room = Room::new(env!("CARGO_BIN_EXE_peer"));
    for name in ["ticks", "whole"] {
        let mut peer = room.peer();
        peer.ok(&format!("producer {name} {kind}"));
        peer.ok("push 0 3");
    }
    room
}

/// The damage to a room, and the error and its words with which opening `ticks` is refused.
type Case<'c> = (&'c str, &'c dyn Fn(&Room), &'c str, &'c [&'c str]);

/// The result of removing such a channel.
#[derive(Clone, Copy, PartialEq)]
enum Removal {
    /// It can be removed.
    Done,
    /// Removing it is refused as opening it is.
    NotRemoved,
    /// Refused as opening it is.
    Refused,
}

#[track_caller]
fn each(cases: &[Case<'_>], removal: Removal) {
    for (case, options) in cases.iter().flat_map(|case| KINDS.map(|kind| (case, kind))) {
        let (what, damage, kind, words) = case;
        eprintln!("{what}, {options}");
        let room = room(options);
        damage(&room);
        let before = room.contents();
        let mut peer = room.peer();
        for verb in ["open", "open-or-create", "producer", "consumer"] {
            peer.refused(&format!("{verb} ticks {options}"), kind, words);
        }
        // A passive look takes no more of the data than its length, wherever that comes from.
        assert!(
            peer.ask("stat ticks").is_err() || what.contains("a link"),
            "{what}"
        );
        peer.refused(
            &format!("create ticks {options}"),
            "AlreadyExists",
            &["ticks"],
        );
        before.are_those_of(&room, what);
        if removal == Removal::Done {
            peer.ok("remove ticks");
            peer.ok(&format!("producer ticks {options}"));
            peer.ok("push 0 1");
            peer.ok(&format!("consumer ticks {options}"));
            assert_eq!(peer.number("pop 1"), 0, "{what}");
        } else {
            let kind = match removal {
                Removal::NotRemoved => "NotRemoved",
                _ => kind,
            };
            peer.refused("remove ticks", kind, &["ticks"]);
            before.are_those_of(&room, what);
        }
        // The neighbour never noticed.
        peer.ok(&format!("consumer whole {options}"));
        assert_eq!(peer.numbers("drain"), [0, 1, 2], "{what}");
    }
}

fn resize(path: &Path, len: u64) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}

/// Changes the header's words, and gives them a checksum that fits.
fn reseal(room: &Room, change: impl Fn(&mut [u64])) {
    let path = room.file("ticks", "control");
    let mut bytes = fs::read(&path).unwrap();
    let mut words = bytes
        .chunks_exact(8)
        .take(64)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect::<Vec<_>>();
    change(&mut words);
    words[23] = words
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != 0 && *i != 23)
        .fold(0xcbf2_9ce4_8422_2325, |hash, (_, word)| {
            (hash ^ word).wrapping_mul(0x0100_0000_01b3)
        });
    for (eight, word) in bytes.chunks_exact_mut(8).zip(words) {
        eight.copy_from_slice(&word.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn what_is_no_channel_is_refused() {
    let zero: &dyn Fn(&Room) = &|room| {
        let path = room.file("ticks", "control");
        fs::write(&path, vec![0; fs::read(&path).unwrap().len()]).unwrap();
    };
    let text: &dyn Fn(&Room) =
        &|room| fs::write(room.file("ticks", "control"), "hello, world ".repeat(4000)).unwrap();
    let magic: &dyn Fn(&Room) = &|room| {
        let path = room.file("ticks", "control");
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] = b'H';
        fs::write(&path, bytes).unwrap();
    };
    each(
        &[
            (
                "all zero",
                zero,
                "NotAChannel",
                &["0x0000000000000000", "SLIPRING", "ticks"],
            ),
            (
                "some text",
                text,
                "NotAChannel",
                &["0x77202c6f6c6c6568", "SLIPRING"],
            ),
            ("another magic", magic, "NotAChannel", &["0x48", "SLIPRING"]),
        ],
        Removal::Done,
    );
}

#[test]
fn a_truncated_channel_is_refused() {
    let cut = |part, len| move |room: &Room| resize(&room.file("ticks", part), len);
    let shorten: &dyn Fn(&Room) = &|room| {
        let data = room.file("ticks", "data");
        resize(&data, fs::metadata(&data).unwrap().len() - 1);
    };
    each(
        &[
            (
                "no control",
                &cut("control", 0),
                "Truncated",
                &["control", "has 0 bytes", "remove it"],
            ),
            (
                "100 bytes",
                &cut("control", 100),
                "Truncated",
                &["control", "has 100 bytes", "4096"],
            ),
            (
                "a header",
                &cut("control", 4096),
                "Truncated",
                &["control", "4096 bytes", "12288"],
            ),
            (
                "a byte less",
                &cut("control", 12287),
                "Truncated",
                &["control", "12287", "12288"],
            ),
            (
                "no data",
                &cut("data", 0),
                "Truncated",
                &["data", "has 0 bytes", "remove it"],
            ),
            (
                "half the data",
                &cut("data", 2048),
                "Truncated",
                &["data", "2048"],
            ),
            (
                "a byte less",
                shorten,
                "Truncated",
                &["data", "create it again"],
            ),
        ],
        Removal::Done,
    );
}

/// A channel of another version is refused, and the error names both versions.
#[test]
fn another_version_is_refused() {
    let says = ["version 3", "version 2", "programs of one release"];
    let bare: &dyn Fn(&Room) = &|room| {
        let path = room.file("ticks", "control");
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 3;
        fs::write(&path, bytes).unwrap();
    };
    each(
        &[
            ("a word", bare, "Version", &says),
            (
                "a whole header",
                &|room| reseal(room, |words| words[1] = 3),
                "Version",
                &says,
            ),
            (
                "version 0",
                &|room| reseal(room, |words| words[1] = 0),
                "Version",
                &["version 0"],
            ),
        ],
        Removal::Done,
    );
}

/// A header with values that cannot be is reported as corrupt.
#[test]
fn an_impossible_header_is_corrupt() {
    let changed: &dyn Fn(&Room) = &|room| {
        let path = room.file("ticks", "control");
        let mut bytes = fs::read(&path).unwrap();
        bytes[300] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let word =
        |index: usize, value: u64| move |room: &Room| reseal(room, |words| words[index] = value);
    each(
        &[
            (
                "a bit of metadata",
                changed,
                "Corrupt",
                &["`checksum`", "remove it and create it again"],
            ),
            ("kind", &word(2, 9), "Corrupt", &["`kind`", "0x9"]),
            ("flags", &word(3, 2), "Corrupt", &["`flags`"]),
            (
                "control_len",
                &word(4, 1 << 40),
                "Corrupt",
                &["`control_len`"],
            ),
            ("data_len", &word(5, 1 << 40), "Corrupt", &["`data_len`"]),
            ("page_stride", &word(6, 0), "Corrupt", &["`page_stride`"]),
            ("producers", &word(7, 1 << 60), "Corrupt", &["`producers`"]),
            ("consumers", &word(8, 0), "Corrupt", &["`consumers`"]),
            ("consumers", &word(8, 64), "Corrupt", &["`consumers`"]),
            ("capacity", &word(9, 63), "Capacity", &["63"]),
            ("slot_size", &word(10, 7), "Corrupt", &["`slot_size`"]),
            ("slot_align", &word(11, 3), "Corrupt", &["`slot_align`"]),
        ],
        Removal::Done,
    );
}

/// Files that are something else than a channel's, such as a FIFO, a link or a directory, are
/// refused.
#[test]
fn other_kinds_of_file_are_refused() {
    for part in ["control", "data"] {
        let replace = |make: fn(&Room, &Path)| {
            move |room: &Room| {
                let path = room.file("ticks", part);
                fs::remove_file(&path).unwrap();
                make(room, &path);
            }
        };
        each(
            &[("missing", &replace(|_, _| {}), "NotAChannel", &["ticks"])],
            Removal::Done,
        );
        each(
            &[
                // Opening it must not wait for anybody at the other end.
                (
                    "a FIFO",
                    &replace(|_, path| fifo(path)),
                    "NotAChannel",
                    &["ticks"],
                ),
                (
                    "a link to a channel's",
                    &replace(|room, path| {
                        let part = path.file_name().unwrap().to_str().unwrap();
                        symlink(room.file("whole", part), path).unwrap();
                    }),
                    "NotAChannel",
                    &[],
                ),
                (
                    "a link to nothing",
                    &replace(|_, path| symlink("nothing", path).unwrap()),
                    if part == "data" { "Os" } else { "NotAChannel" },
                    &[],
                ),
                (
                    "a directory",
                    &replace(|_, path| fs::create_dir(path).unwrap()),
                    "NotAChannel",
                    &["ticks"],
                ),
            ],
            Removal::NotRemoved,
        );
    }
}

/// A channel can be removed although its huge page file is lost, so that its link leads nowhere.
#[test]
fn a_lost_hugepage_file_is_removed() {
    let unmounted = |room: &Room| {
        let path = room.file("ticks", "data");
        fs::remove_file(&path).unwrap();
        symlink("/nowhere/slipring-0123456789abcdef", &path).unwrap();
    };
    let case = (
        "a link to nothing",
        &unmounted as &dyn Fn(&Room),
        "Os",
        &[] as &[&str],
    );
    each(&[case], Removal::Done);
}

/// A name that is no directory is refused, and it is not removed.
#[test]
fn a_name_must_be_a_directory() {
    let replace = |make: fn(&Room, &Path)| {
        move |room: &Room| {
            let path = room.path().join("ticks");
            fs::remove_dir_all(&path).unwrap();
            make(room, &path);
        }
    };
    each(
        &[
            (
                "a file",
                &replace(|_, path| fs::write(path, "mine").unwrap()),
                "NotAChannel",
                &["ticks"],
            ),
            (
                "a FIFO",
                &replace(|_, path| fifo(path)),
                "NotAChannel",
                &["ticks"],
            ),
            (
                "a link to a channel",
                &replace(|room, path| symlink(room.path().join("whole"), path).unwrap()),
                "NotAChannel",
                &["ticks"],
            ),
        ],
        Removal::Refused,
    );
}

/// Data that was punched out is reported as corrupt, and never delivered as a message.
#[test]
fn punched_out_data_is_corrupt() {
    let room = Room::new(env!("CARGO_BIN_EXE_peer"));
    let mut tx = room.peer();
    tx.ok("producer ticks kind=bytes capacity=4096 max=112");
    tx.ok("push 0 3");
    tx.ok("leave producer");
    let data = room.file("ticks", "data");
    let len = fs::metadata(&data).unwrap().len();
    resize(&data, 0);
    resize(&data, len);
    let mut rx = room.peer();
    rx.ok("consumer ticks kind=bytes");
    for line in ["try-pop", "pop 1", "hold-pop 3"] {
        rx.refused(line, "Corrupt", &["`record length`", "0x0"]);
    }
    rx.ok("leave consumer");
    rx.ok("remove ticks");
}

//! A channel without a name, handed over as two descriptors, is a channel like any other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use slipring::{SetupError, bytes, spsc};
use slipring_tests::message::{LARGEST, Message};
use slipring_tests::{Peer, Room, from_fds, is_root};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// Starts a child that inherits the descriptors and opens the channel.
fn successor(room: &Room, passed: &[BorrowedFd<'_>], kind: &str) -> Peer {
    let mut peer = room.peer_with(passed);
    peer.ok(&format!("{} {kind}", from_fds(passed)));
    peer
}

#[test]
fn inherited_descriptors_are_a_channel() {
    let room = room();
    let channel = spsc::Builder::<Message>::new(64)
        .metadata(b"for you")
        .memfd()
        .unwrap();
    let descriptors = channel.descriptors();
    let (mut tx, mut rx) = (
        successor(&room, &descriptors, ""),
        successor(&room, &descriptors, ""),
    );
    assert_eq!(tx.ok("identity"), rx.ok("identity"));
    assert_eq!(rx.ok("metadata"), ["for you"]);
    assert_eq!(rx.ok("geometry"), ["64", "64"]);
    tx.ok("producer");
    rx.ok("consumer");
    for lap in 0..50 {
        tx.ok(&format!("push {} 60", lap * 60));
        assert_eq!(
            rx.numbers("pop 60"),
            (lap * 60..lap * 60 + 60).collect::<Vec<_>>()
        );
    }
    tx.ok("leave producer");
    rx.refused("pop 1", "Disconnected", &["finished"]);
    assert_eq!(room.names(), Vec::<String>::new(), "it has no name");
}

/// A role has one holder, though the processes' descriptors share one open file description.
#[test]
fn a_role_in_memfds_is_exclusive() {
    let room = room();
    let channel = bytes::Builder::new(4096)
        .max_record(LARGEST)
        .memfd()
        .unwrap();
    let descriptors = channel.descriptors();
    let mut tx = channel.producer().unwrap();
    let taken = channel.producer().err().unwrap();
    assert!(
        matches!(
            taken,
            SetupError::RoleTaken {
                role: "producer",
                ..
            }
        ),
        "{taken}"
    );
    let mut child = successor(&room, &descriptors, "kind=bytes");
    child.refused(
        "producer",
        "RoleTaken",
        &["producer", &std::process::id().to_string()],
    );
    child.ok("consumer");
    let mut second = successor(&room, &descriptors, "kind=bytes");
    second.refused(
        "consumer",
        "RoleTaken",
        &["consumer", &child.pid().to_string()],
    );
    tx.push(&record(0)).unwrap();
    assert_eq!(child.number("pop 1"), 0);
    // When the child dies the seat is free, though its descriptors are open elsewhere.
    child.kill();
    assert!(tx.is_disconnected().unwrap());
    second.ok("consumer");
    tx.push(&record(1)).unwrap();
    assert_eq!(second.number("pop 1"), 1);
    drop(tx);
    second.refused("pop 1", "Disconnected", &["finished"]);
}

fn record(number: u64) -> Vec<u8> {
    let mut record = vec![0; slipring_tests::message::length(number)];
    slipring_tests::message::write(number, &mut record);
    record
}

/// A channel can be passed to another process over a Unix socket.
#[test]
fn a_unix_socket_carries_a_channel() {
    for kind in ["kind=spsc capacity=64", "kind=bytes capacity=4096 max=112"] {
        let room = room();
        let socket = room.path().join("socket");
        let (mut tx, mut rx) = (room.peer(), room.peer());
        let made = tx.ok(&format!("memfd {kind}"));
        tx.ok("producer");
        tx.ok("push 0 5");
        rx.ok(&format!("bind {}", socket.display()));
        rx.tell(&format!("recv-fds {kind}"));
        tx.ok(&format!("send-fds {}", socket.display()));
        assert_eq!(rx.answer().unwrap(), made, "the same channel");
        rx.refused(
            "producer",
            "RoleTaken",
            &["producer", &tx.pid().to_string()],
        );
        rx.ok("consumer");
        assert_eq!(rx.numbers("pop 5"), [0, 1, 2, 3, 4]);
        tx.ok("push 5 20");
        assert_eq!(rx.numbers("pop 20"), (5..25).collect::<Vec<_>>());
        // The receiver keeps the memory alive, and passes it on.
        tx.kill();
        rx.refused("pop 1", "Disconnected", &["died"]);
        let mut next = room.peer();
        let second = room.path().join("second");
        next.ok(&format!("bind {}", second.display()));
        next.tell(&format!("recv-fds {kind}"));
        rx.ok(&format!("send-fds {}", second.display()));
        assert_eq!(next.answer().unwrap(), made);
        next.ok("producer");
        assert_eq!(next.number("next"), 25);
        next.ok("push 25 1");
        assert_eq!(rx.number("pop 1"), 25);
    }
}

/// Where a sealed memfd is expected, any other descriptor is refused.
#[test]
fn only_sealed_memfds_are_accepted() {
    let room = room();
    let path = room.path().join("file");
    std::fs::write(&path, vec![0; 65536]).unwrap();
    let open = || OwnedFd::from(File::options().read(true).write(true).open(&path).unwrap());
    let memfd = |len: u64, seals: SealFlags| {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, len).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    };
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    let good = spsc::Builder::<Message>::new(64).memfd().unwrap();
    let own = |part: usize| good.descriptors()[part].try_clone_to_owned().unwrap();
    let open_with = |control: OwnedFd, data: OwnedFd| {
        spsc::Builder::<Message>::new(64).from_fds(vec![control, data, own(2), own(3)])
    };
    let bad: [(&str, OwnedFd); 6] = [
        // A channel in shared memory can be sealed like a memfd, and is not.
        ("", open()),
        ("no memfd", std::io::pipe().unwrap().0.into()),
        ("no memfd", File::open("/dev/zero").unwrap().into()),
        ("can still be resized", memfd(65536, SealFlags::empty())),
        ("can still be resized", memfd(65536, SealFlags::SHRINK)),
        ("empty", memfd(0, sealed)),
    ];
    for (found, descriptor) in bad {
        let copy = descriptor.try_clone().unwrap();
        let as_control = open_with(copy, own(1)).err().unwrap();
        let as_data = open_with(own(0), descriptor).err().unwrap();
        for (part, error) in [("control", as_control), ("data", as_data)] {
            let text = error.to_string();
            assert!(
                matches!(error, SetupError::BadDescriptor { .. }),
                "{error:?}"
            );
            for word in [part, found, "expected a memfd sealed against resizing"] {
                assert!(text.contains(word), "no `{word}` in: {text}");
            }
        }
    }
    // These are sealed memfds that are no channel: empty, too short, the wrong way round.
    let zero = open_with(memfd(65536, sealed), own(1)).err().unwrap();
    assert!(
        matches!(zero, SetupError::NotAChannel { found: Some(0), .. }),
        "{zero:?}"
    );
    let short = open_with(memfd(100, sealed), own(1)).err().unwrap();
    assert!(
        matches!(
            short,
            SetupError::Truncated {
                part: "control",
                ..
            }
        ),
        "{short:?}"
    );
    let small = open_with(own(0), memfd(100, sealed)).err().unwrap();
    assert!(
        matches!(
            small,
            SetupError::Truncated {
                part: "data",
                expected: 4096,
                ..
            }
        ),
        "{small:?}"
    );
    assert!(open_with(own(1), own(0)).is_err());
    // These are no pipes, too few or too many.
    for (parts, found) in [
        (&[0, 1, 2, 0][..], "no pipe"),
        (&[0, 1, 2], "missing"),
        (&[0, 1], "missing"),
        (&[0, 1, 2, 3, 3], "one too many"),
    ] {
        let passed = parts.iter().map(|part| own(*part)).collect();
        let error = spsc::Builder::<Message>::new(64).from_fds(passed).err();
        let Some(error @ SetupError::BadDescriptor { part: "pipe", .. }) = error else {
            panic!("{parts:?}: {error:?}");
        };
        let text = error.to_string();
        assert!(
            text.contains(found) && text.contains("a pipe for each"),
            "{text}"
        );
    }
    // The good channel is as good as before.
    let mut rx = good.consumer().unwrap();
    let mut tx = open_with(own(0), own(1)).unwrap().producer().unwrap();
    tx.push(slipring_tests::message::Numbered::numbered(7))
        .unwrap();
    assert_eq!(
        slipring_tests::message::Numbered::check(&rx.pop().unwrap()),
        Ok(7)
    );
}

#[test]
fn another_type_or_kind_is_refused() {
    let room = room();
    let channel = spsc::Builder::<Message>::new(64).memfd().unwrap();
    let passed = channel.descriptors();
    let open = from_fds(&passed);
    for (kind, error, words) in [
        ("twin", "Schema", ["`Message`", "`Twin`"]),
        ("small", "Schema", ["(64 bytes", "(32 bytes"]),
        ("bytes", "Kind", ["`spsc`", "`bytes`"]),
    ] {
        let mut peer = room.peer_with(&passed);
        peer.refused(&format!("{open} kind={kind}"), error, &words);
    }
    let mut peer = room.peer_with(&passed);
    peer.refused(
        &format!("{open} capacity=128 exact=1"),
        "Geometry",
        &["64", "128"],
    );
}

/// Without /proc, a passed channel is refused, and the error says what it needs.
#[test]
fn a_passed_channel_needs_proc() {
    let room = room();
    let channel = spsc::Builder::<Message>::new(64).memfd().unwrap();
    let passed = channel.descriptors();
    let mut peer = room.peer_with(&passed);
    if is_root() {
        peer.ok("private");
        peer.ok("mount tmpfs /proc");
        peer.refused(&from_fds(&passed), "NeedsProc", &["needs /proc mounted"]);
        // A named channel does not need /proc.
        peer.ok("producer ticks");
        peer.ok("push 0 3");
        let mut rx = room.peer();
        rx.ok("consumer ticks");
        assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
        peer.kill();
        rx.refused("pop 1", "Disconnected", &["died"]);
    } else {
        // Only root can take /proc away from a process.
        peer.ok(&from_fds(&passed));
    }
}

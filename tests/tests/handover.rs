//! A channel handed over a Unix socket to another process is a channel like any other. Anything
//! else that comes that way is refused, with every descriptor closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use slipring::{handover, spsc};
use slipring_tests::message::Message;
use slipring_tests::stranger::{GREETING, Pieces, listener, sends};
use slipring_tests::{Peer, Room, is_root};

const SPSC: &str = "kind=spsc capacity=64";
const BYTES: &str = "kind=bytes capacity=4096 max=112";
const SOCKETS: [&str; 2] = ["stream", "seqpacket"];

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// Hands `from`'s channel to `to`; returns the identity that both report.
fn hand_over(from: &mut Peer, socket: &str, to: &mut (Peer, PathBuf), options: &str) -> String {
    to.0.tell(&format!("take-over {options}"));
    from.ok(&format!("hand-over {socket} {}", to.1.display()));
    let identity = to.0.answer().unwrap();
    assert_eq!(identity, from.ok("identity"), "the same channel");
    identity[0].clone()
}

/// A channel goes over either kind of socket, and both of its ends learn of deaths.
#[test]
fn a_channel_passes_over_either_socket() {
    for socket in SOCKETS {
        for options in [SPSC, BYTES] {
            let room = room();
            let mut tx = room.peer();
            tx.ok(&format!("memfd {options}"));
            tx.ok("producer");
            tx.ok("push 0 5");
            let mut to = listener(&room, socket);
            hand_over(&mut tx, socket, &mut to, options);
            let mut rx = to.0;
            rx.refused("producer", "RoleTaken", &[&tx.pid().to_string()]);
            rx.ok("consumer");
            rx.ok("poll-pop 0 5");
            rx.tell("poll-pop 5 500");
            tx.tell("poll-push 5 500");
            tx.answer().unwrap();
            rx.answer().unwrap();
            // The receiver of a channel may hand it on, and survives the giver.
            let mut to = listener(&room, socket);
            hand_over(&mut rx, socket, &mut to, options);
            let mut next = to.0;
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            rx.tell("poll consumer");
            tx.kill();
            assert_eq!(rx.answer().unwrap(), ["hup"]);
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
            next.ok("producer");
            assert_eq!(next.number("next"), 505);
            next.ok("push 505 3");
            rx.ok("poll-pop 505 3");
            // The other way round: the socket reports it at once, and the channel too.
            next.ok("push-full");
            assert_eq!(next.ok("arm producer"), ["armed"]);
            next.tell("poll producer");
            rx.kill();
            assert_eq!(next.answer().unwrap(), ["hup"]);
            next.ok("hung-up");
            next.refused("wait-for consumer 50", "TimedOut", &[]);
        }
    }
}

/// Neither the giver nor the receiver can resize what was handed over.
#[test]
fn nobody_resizes_a_passed_channel() {
    let room = room();
    let mut giver = room.peer();
    giver.ok(&format!("memfd {SPSC}"));
    giver.ok("producer");
    let mut to = listener(&room, "stream");
    hand_over(&mut giver, "stream", &mut to, SPSC);
    for peer in [&mut giver, &mut to.0] {
        let refused = format!("{:?}", rustix::io::Errno::PERM);
        assert_eq!(peer.ok("resize"), [refused.as_str(); 4]);
    }
    giver.ok("push 0 3");
    to.0.ok("consumer");
    to.0.ok("poll-pop 0 3");
}

/// A process of another user may use a channel that it was given.
#[test]
fn another_user_may_use_a_channel() {
    if !is_root() {
        return; // One cannot become another user.
    }
    for options in [SPSC, BYTES] {
        let room = room();
        let mut giver = room.peer();
        giver.ok(&format!("memfd {options}"));
        giver.ok("producer");
        let mut to = listener(&room, "stream");
        to.0.ok("become 65534 65534");
        hand_over(&mut giver, "stream", &mut to, options);
        to.0.ok("consumer");
        giver.ok("push 0 3");
        to.0.ok("poll-pop 0 3");
        to.0.tell("poll-pop 3 1");
        giver.ok("push 3 1");
        to.0.answer().unwrap();
        giver.kill();
        assert_eq!(to.0.ok("poll-end"), ["Disconnected(Died)"]);
    }
}

/// A channel of another kind, type or geometry is refused, and none of its descriptors is kept.
#[test]
fn a_mismatch_is_refused_without_leaks() {
    for (given, asked, error, words) in [
        (SPSC, BYTES, "Kind", ["`spsc`", "`bytes`"]),
        (BYTES, SPSC, "Kind", ["`bytes`", "`spsc`"]),
        (SPSC, "kind=twin", "Schema", ["`Message`", "`Twin`"]),
        (SPSC, "kind=small", "Schema", ["(64 bytes", "(32 bytes"]),
        (
            SPSC,
            "kind=spsc capacity=128 exact=1",
            "Geometry",
            ["64", "128"],
        ),
    ] {
        let room = room();
        let mut giver = room.peer();
        giver.ok(&format!("memfd {given}"));
        giver.ok("producer");
        let mut to = listener(&room, "stream");
        let before = to.0.number("files");
        to.0.tell(&format!("take-over {asked}"));
        giver.ok(&format!("hand-over stream {}", to.1.display()));
        to.0.answer().unwrap_err().is(error, &words);
        assert_eq!(
            to.0.number("files"),
            before,
            "a descriptor is left: {asked}"
        );
        // The giver still has its channel, and may give it to another process.
        hand_over(&mut giver, "stream", &mut to, given);
        to.0.ok("consumer");
        giver.ok("push 0 2");
        to.0.ok("poll-pop 0 2");
    }
}

/// A channel that has a name, or that belongs to one process, is not passed.
#[test]
fn only_a_memfd_channel_is_passed() {
    let room = room();
    let (to, path) = listener(&room, "stream");
    let mut giver = room.peer();
    for line in ["create ticks", "heap"] {
        giver.ok(line);
        giver.refused(
            &format!("hand-over stream {}", path.display()),
            "NotPassable",
            &["memfd()", "by its name"],
        );
    }
    drop(to);
}

/// What is no channel is refused, and every descriptor that came with it is closed.
#[test]
fn what_is_no_channel_is_refused() {
    let room = room();
    let channel = spsc::Builder::<Message>::new(64).memfd().unwrap();
    let own = channel.descriptors();
    let file = std::fs::File::open(room.path()).unwrap();
    let pipe = std::io::pipe().unwrap();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let resizable = memfd_create("resizable", flags).unwrap();
    rustix::fs::ftruncate(&resizable, 65536).unwrap();
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    let (file, pipe, resizable, socket) = (
        file.as_fd(),
        pipe.0.as_fd(),
        resizable.as_fd(),
        socket.as_fd(),
    );
    let with = |part: usize, other| {
        let mut passed = own.clone();
        passed[part] = other;
        vec![(&GREETING[..], passed)]
    };
    let long: &[u8] = b"slipring channel, and more of it";
    let cases: Vec<(&str, Pieces<'_>, &str, &str)> = vec![
        (
            "stream",
            vec![],
            "NotHandedOver",
            "the end of the connection",
        ),
        (
            "seqpacket",
            vec![],
            "NotHandedOver",
            "the end of the connection",
        ),
        (
            "stream",
            vec![(&GREETING[..7], own.clone())],
            "NotHandedOver",
            "the end of the connection",
        ),
        (
            "stream",
            vec![(b"GET / HTTP/1.1\r\n", vec![])],
            "NotHandedOver",
            "another message",
        ),
        (
            "stream",
            vec![(b"GET / HTTP/1.1\r\n", own.clone())],
            "NotHandedOver",
            "another message",
        ),
        (
            "stream",
            vec![(b"s", own.clone()), (b"o", own.clone())],
            "NotHandedOver",
            "another message",
        ),
        (
            "seqpacket",
            vec![(long, own.clone())],
            "NotHandedOver",
            "another message",
        ),
        (
            "stream",
            vec![(GREETING, vec![])],
            "NotHandedOver",
            "without descriptors",
        ),
        (
            "seqpacket",
            vec![(GREETING, vec![])],
            "NotHandedOver",
            "without descriptors",
        ),
        (
            "stream",
            vec![(GREETING, own[..1].to_vec())],
            "BadDescriptor",
            "missing",
        ),
        (
            "stream",
            vec![(GREETING, own[..3].to_vec())],
            "BadDescriptor",
            "missing",
        ),
        (
            "stream",
            vec![(GREETING, [own.clone(), vec![own[3]]].concat())],
            "BadDescriptor",
            "too many",
        ),
        (
            "seqpacket",
            vec![(GREETING, vec![own[0]; 253])],
            "BadDescriptor",
            "too many",
        ),
        (
            "stream",
            with(0, file),
            "BadDescriptor",
            "control descriptor is no memfd",
        ),
        (
            "stream",
            with(1, resizable),
            "BadDescriptor",
            "can still be resized",
        ),
        ("stream", with(0, pipe), "BadDescriptor", "no memfd"),
        ("stream", with(2, socket), "BadDescriptor", "no pipe"),
        ("seqpacket", with(3, own[0]), "BadDescriptor", "no pipe"),
        ("stream", with(0, own[1]), "BadDescriptor", "the same file"),
    ];
    let mut peers = SOCKETS.map(|socket| listener(&room, socket));
    for (socket, pieces, error, word) in &cases {
        let to = &mut peers[SOCKETS.iter().position(|known| known == socket).unwrap()];
        let before = to.0.number("files");
        to.0.tell(&format!("take-over {SPSC}"));
        sends(to, socket, pieces);
        let refusal = to.0.answer().unwrap_err();
        refusal.is(error, &[word]);
        assert_eq!(
            to.0.number("files"),
            before,
            "a descriptor is left: {refusal:?}"
        );
    }
    // In pieces, and in pieces with descriptors each, it is still the same channel.
    let to = &mut peers[0];
    for pieces in [
        vec![
            (&GREETING[..1], own.clone()),
            (&GREETING[1..9], vec![]),
            (&GREETING[9..], vec![]),
        ],
        vec![
            (&GREETING[..8], own[..2].to_vec()),
            (&GREETING[8..], own[2..].to_vec()),
        ],
    ] {
        to.0.tell(&format!("take-over {SPSC}"));
        sends(to, "stream", &pieces);
        to.0.answer().unwrap();
    }
    to.0.ok("consumer");
    let mut tx = channel.producer().unwrap();
    tx.push(slipring_tests::message::Numbered::numbered(0))
        .unwrap();
    to.0.ok("poll-pop 0 1");
}

/// A receiver that may open no more files says so, and keeps none of those that it was sent.
#[test]
fn too_few_descriptors_are_reported() {
    let channel = spsc::Builder::<Message>::new(64).memfd().unwrap();
    let own = channel.descriptors();
    for socket in SOCKETS {
        // There is one for the connection; then some of the four, and not enough to open the
        // receiver's own.
        for more in 1..7 {
            let room = room();
            let mut to = listener(&room, socket);
            let before = to.0.number("files");
            // The look takes one as well.
            to.0.ok(&format!("room-for-files {more}"));
            to.0.tell(&format!("take-over {SPSC}"));
            sends(&mut to, socket, &vec![(&GREETING[..], own.clone())]);
            let refusal = to.0.answer().unwrap_err();
            if more < 5 {
                refusal.is(
                    "NotHandedOver",
                    &["more descriptors than this process may open", "ulimit -n"],
                );
            } else {
                refusal.is("TooManyFiles", &["RLIMIT_NOFILE", "ulimit -n"]);
            }
            assert_eq!(
                to.0.number("files"),
                before,
                "a descriptor is left, of {more}"
            );
        }
    }
}

/// If either side of the socket hangs up first, the other side gets an error.
#[test]
fn an_early_hang_up_is_reported() {
    for socket in SOCKETS {
        let room = room();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(theirs);
        let channel = spsc::Builder::<Message>::new(64).memfd().unwrap();
        let refused = handover::send(&ours, &channel).unwrap_err();
        assert!(
            matches!(refused, slipring::SetupError::Os { .. }),
            "{refused:?}"
        );
        assert!(
            refused
                .to_string()
                .contains("send the channel over the socket"),
            "{refused}"
        );
        // The giver was killed before it gave.
        let mut to = listener(&room, socket);
        to.0.tell(&format!("take-over {SPSC}"));
        sends(&mut to, socket, &vec![]);
        to.0.answer()
            .unwrap_err()
            .is("NotHandedOver", &["the end of the connection"]);
    }
}

/// Either end of a pipe may be passed, says FORMAT.md; a writing end does not keep a hang-up away
/// either.
#[test]
fn either_pipe_end_may_be_passed() {
    for both in [false, true] {
        let room = room();
        let channel = spsc::Builder::<Message>::new(64).memfd().unwrap();
        let own = channel.descriptors();
        let pipes = [std::io::pipe().unwrap(), std::io::pipe().unwrap()];
        let writes: [OwnedFd; 2] = pipes
            .each_ref()
            .map(|pipe| pipe.1.try_clone().unwrap().into());
        let mut pieces = vec![(&GREETING[..], own[..2].to_vec())];
        pieces[0].1.extend(writes.iter().map(AsFd::as_fd));
        let mut peers = [(); 2].map(|()| {
            let mut to = listener(&room, "stream");
            to.0.tell(&format!("take-over {SPSC}"));
            sends(&mut to, "stream", &pieces);
            to.0.answer().unwrap();
            to.0
        });
        drop(pieces);
        drop((writes, pipes));
        let [tx, rx] = &mut peers;
        tx.ok("producer");
        rx.ok("consumer");
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        rx.tell("poll consumer");
        if both {
            tx.ok("push 0 1");
            assert_eq!(rx.answer().unwrap(), ["in"]);
            rx.ok("poll-pop 0 1");
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            rx.tell("poll consumer");
        }
        tx.kill();
        assert_eq!(rx.answer().unwrap(), ["hup"]);
        assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
    }
}

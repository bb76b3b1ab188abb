//! `--lines` and `--framed` carry every byte, keep records apart, and refuse a channel with another
//! mark.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::{Seek, Write};

use common::{Place, Running, noise, until};
use rustix::process::Signal;

/// Returns lines of all lengths from 0 to 300 bytes, with every byte value in them, and no newline
/// at the end.
fn lines(len: usize) -> Vec<u8> {
    let mut text = noise(len, 11);
    let mut end = 0;
    for length in noise(len, 12).chunks_exact(2) {
        end += usize::from(u16::from_le_bytes([length[0], length[1]]) % 301);
        match text.get_mut(end) {
            Some(byte) => *byte = b'\n',
            None => break,
        }
        end += 1;
    }
    *text.last_mut().unwrap() = b'.';
    text
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length, payload].concat()
}

/// Returns the payloads in a stream of frames.
fn payloads(mut frames: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = frames.split_first_chunk() {
        let (payload, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        found.push(payload.to_vec());
        frames = rest;
    }
    found
}

/// Returns frames of all lengths up to the largest record, with empty ones and ones of zeros among
/// them.
fn frames(max: usize) -> Vec<Vec<u8>> {
    let mut frames = vec![vec![], vec![0; 4], vec![], vec![0], noise(max, 13)];
    frames.extend((0..200).map(|number| noise(number * 7 % (max + 1), number as u64)));
    frames.extend(vec![vec![]; 50]);
    frames.push(noise(max, 14));
    frames
}

/// Writes each piece when the one before it was read, so that each read brings a piece.
fn dribble<'a>(send: &mut Running, pieces: impl IntoIterator<Item = &'a [u8]>) {
    let stdin = send.0.stdin.as_mut().unwrap();
    for piece in pieces {
        stdin.write_all(piece).unwrap();
        until("the sender reads", || {
            rustix::io::ioctl_fionread(&*stdin).unwrap() == 0
        });
    }
}

/// Cuts the input as `send --lines` does, the simple way.
fn as_records(input: &[u8], max: usize) -> Vec<Vec<u8>> {
    let lines = input.split_inclusive(|byte| *byte == b'\n');
    let pieces = lines.flat_map(|line| line.chunks(max));
    pieces.map(<[u8]>::to_vec).collect()
}

/// Waits until that many senders have come; the last may have left.
fn until_come(place: &Place, name: &str, senders: u64) {
    until("the sender has come", || {
        let stat = place.stat(name);
        stat.is_some_and(|stat| stat["producer"]["generation"] == senders)
    });
}

/// Checks that `send` with these arguments into `recv` with those carries `input`, whichever starts
/// first.
fn carries(send: &[&str], recv: &[&str], input: &[u8], output: &[u8]) {
    let place = Place::new();
    let (from, to) = (place.file("input"), place.file("copy"));
    fs::write(&from, input).unwrap();
    for name in ["send-first", "recv-first"] {
        let (send, recv) = ([&[name], send].concat(), [&[name], recv].concat());
        let (mut send, mut recv) = if name == "send-first" {
            let send = place.send(&send, &from);
            until_come(&place, name, 1);
            (send, place.recv(&recv, &to))
        } else {
            let recv = place.recv(&recv, &to);
            place.until_seat(name, "consumer", "held", 1);
            (place.send(&send, &from), recv)
        };
        assert_eq!((send.code(), recv.code()), (Some(0), Some(0)), "{name}");
        assert!(fs::read(&to).unwrap() == output, "{name}");
    }
}

#[test]
fn lines_carry_every_byte() {
    let input = lines(3 << 20);
    carries(&["--lines"], &["--lines"], &input, &input);
    carries(&["--lines"], &[], &input, &input);
    carries(&["--lines"], &["--raw"], &input, &input);
    // A sender without a flag follows the mark.
    carries(&[], &[], &input, &input);
    let small = ["--lines", "--ring", "64", "--chunk", "8"];
    carries(
        &small,
        &["--ring", "64", "--chunk", "8"],
        &input[..5000],
        &input[..5000],
    );
}

/// Records that are larger than a read wait for their room, even if there is room for a read.
#[test]
fn large_records_find_room() {
    let line = [&[b'x'; 299_999][..], b"\n"].concat();
    for (mode, record) in [("--lines", line.clone()), ("--framed", frame(&line))] {
        let place = Place::new();
        let (from, to) = (place.file("input"), place.file("copy"));
        let input = record.repeat(5);
        fs::write(&from, &input).unwrap();
        let args = ["x", mode, "--ring", "512K", "--chunk", "300000"];
        let mut send = place.send(&args, &from);
        until("the sender waits", || {
            place
                .stat("x")
                .is_some_and(|stat| stat["producer"]["parks"].as_u64() > Some(0))
        });
        place.until_messages("x", "producer", 1);
        assert_eq!(place.recv(&["x"], &to).code(), Some(0), "{mode}");
        assert_eq!(send.code(), Some(0));
        assert!(fs::read(&to).unwrap() == input, "{mode}");
        place.until_messages("x", "producer", 5);
    }
}

/// A sender without a flag sends lines where the receiver marked the channel for them.
#[test]
fn bare_senders_follow_lines() {
    let place = Place::new();
    let (from, to) = (place.file("input"), place.file("copy"));
    let input = lines(1 << 20);
    fs::write(&from, &input).unwrap();
    let mut recv = place.recv(&["x", "--lines"], &to);
    place.until_seat("x", "consumer", "held", 1);
    assert_eq!(place.send(&["x"], &from).code(), Some(0));
    assert_eq!(recv.code(), Some(0));
    assert!(fs::read(&to).unwrap() == input);
    place.until_messages("x", "producer", as_records(&input, 64 << 10).len() as u64);
}

/// Each line is one record with its newline; a line that is too long goes in pieces.
#[test]
fn lines_are_records() {
    let place = Place::new();
    let (from, to) = (place.file("input"), place.file("copy"));
    let mut input = b"one\n\n\nt\0w\0o\n\n".to_vec();
    for length in [94, 95, 96, 97, 190, 191, 192, 250] {
        input.extend(vec![b'x'; length]);
        input.push(b'\n');
    }
    input.extend_from_slice(&lines(20_000));
    for (name, input) in [
        ("rest", &input[..]),
        ("newline", b"one\ntwo\n"),
        ("alone", b"no newline"),
        ("full", &[b'x'; 96]),
        ("empty", b"\n"),
        ("nothing", b""),
    ] {
        fs::write(&from, input).unwrap();
        // Nobody marked the channel, so that frames show its records.
        let made = place.run(&["create", name, "--ring", "1K", "--max-record", "96"]);
        assert!(made.status.success());
        let mut send = place.send(&[name, "--lines"], &from);
        let mut recv = place.recv(&[name, "--framed"], &to);
        assert_eq!((send.code(), recv.code()), (Some(0), Some(0)), "{name}");
        let records = payloads(&fs::read(&to).unwrap());
        assert!(records == as_records(input, 96), "{name}");
    }
}

/// A line that comes in pieces is one record, and the rest at the end is another.
#[test]
fn dribbled_lines_stay_whole() {
    let place = Place::new();
    let to = place.file("copy");
    let input = [&b"a\nb"[..], b"", b"c", b"\n", b"\n\nd", &[0; 70], b"e\nf"].concat();
    for size in [1, 2, 3, 7] {
        let name = format!("x{size}");
        assert!(place.run(&["create", &name]).status.success());
        let mut send = place.send_open(&[&name, "--lines"]);
        dribble(&mut send, input.chunks(size));
        drop(send.0.stdin.take());
        assert_eq!(send.code(), Some(0));
        assert_eq!(place.recv(&[&name, "--framed"], &to).code(), Some(0));
        let records = payloads(&fs::read(&to).unwrap());
        assert_eq!(records, as_records(&input, 64 << 10), "{size}");
    }
}

/// A line is in the channel as soon as its newline was read.
#[test]
fn lines_do_not_wait() {
    let place = Place::new();
    let mut send = place.send_open(&["x", "--lines"]);
    let mut expected = 0;
    for (piece, lines) in [("one\ntw", 1), ("o", 0), ("\nthree\n", 2), ("\n", 1)] {
        dribble(&mut send, [piece.as_bytes()]);
        expected += lines;
        place.until_messages("x", "producer", expected);
    }
}

/// A signal ends a sender only after it sent all that it has read, including a line without an end.
#[test]
fn signals_leave_the_rest() {
    let place = Place::new();
    let to = place.file("copy");
    let mut send = place.send_open(&["x", "--lines"]);
    dribble(&mut send, [&b"whole\npart"[..]]);
    send.signal(Signal::TERM);
    assert_eq!(send.code(), Some(143));
    assert_eq!(place.recv(&["x", "--lines"], &to).code(), Some(3));
    assert_eq!(fs::read(&to).unwrap(), b"whole\npart");
}

/// Interrupts a sender that has no room. Returns the number of bytes that it read, and those that a
/// receiver then gets.
fn interrupted(input: &[u8], mode: &str, max: &str) -> (usize, Vec<u8>) {
    let place = Place::new();
    let (from, to) = (place.file("input"), place.file("copy"));
    fs::write(&from, input).unwrap();
    let mut input = File::open(&from).unwrap();
    let args = ["send", "x", mode, "--ring", "1K", "--chunk", max];
    let shared = input.try_clone().unwrap();
    let mut send = Running::start(place.command(&args).stdin(shared));
    until("the sender has no room", || {
        place
            .stat("x")
            .is_some_and(|stat| stat["producer"]["parks"].as_u64() > Some(0))
    });
    send.signal(Signal::INT);
    assert_eq!(send.code(), Some(130));
    assert_eq!(place.recv(&["x"], &to).code(), Some(3));
    let read = input.stream_position().unwrap();
    (usize::try_from(read).unwrap(), fs::read(&to).unwrap())
}

/// A sender reads no more than it can send at once, so all that it has read arrives.
#[test]
fn interrupted_lines_are_not_lost() {
    for (input, max) in [
        (vec![b'\n'; 100_000], "256"),
        (b"1\n".repeat(50_000), "8"),
        (b"seven.\n".repeat(20_000), "900"),
        (lines(100_000), "500"),
        (noise(100_000, 15), "1000"),
    ] {
        let (read, copy) = interrupted(&input, "--lines", max);
        assert!(copy == input[..read], "{max}: {} of {read}", copy.len());
    }
}

/// The same holds for frames; only a frame of which a part was read does not arrive.
#[test]
fn interrupted_frames_are_not_lost() {
    for (length, max) in [(0, "256"), (1, "8"), (100, "250"), (899, "900")] {
        let one = frame(&vec![b'x'; length]);
        let (read, copy) = interrupted(&one.repeat(10_000), "--framed", max);
        let whole = read / one.len() * one.len();
        assert_eq!(copy.len(), whole, "{max}");
    }
}

#[test]
fn frames_come_back_as_they_were() {
    let sent = frames(64 << 10);
    let input = sent.iter().flat_map(|payload| frame(payload));
    let input = input.collect::<Vec<u8>>();
    carries(&["--framed"], &["--framed"], &input, &input);
    let place = Place::new();
    let (from, to) = (place.file("input"), place.file("copy"));
    fs::write(&from, &input).unwrap();
    // A receiver without a flag follows the mark; with --raw it writes no lengths.
    for (number, args, expected) in [
        (1, &["x"][..], &input),
        (2, &["x", "--raw"], &sent.concat()),
    ] {
        let mut send = place.send(&["x", "--framed"], &from);
        until_come(&place, "x", number);
        assert_eq!(place.recv(args, &to).code(), Some(0), "{args:?}");
        assert_eq!(send.code(), Some(0));
        assert!(&fs::read(&to).unwrap() == expected, "{args:?}");
    }
    place.until_messages("x", "producer", 2 * sent.len() as u64);
}

#[test]
fn dribbled_frames_stay_whole() {
    let place = Place::new();
    let to = place.file("copy");
    let input: Vec<u8> = frames(20)
        .iter()
        .take(60)
        .flat_map(|it| frame(it))
        .collect();
    for size in ["1", "3", "4", "9"] {
        let mut send = place.send_open(&[size, "--framed", "--ring", "64", "--chunk", "20"]);
        let mut recv = place.recv(&[size, "--framed", "--ring", "64", "--chunk", "20"], &to);
        dribble(&mut send, input.chunks(size.parse().unwrap()));
        drop(send.0.stdin.take());
        assert_eq!((send.code(), recv.code()), (Some(0), Some(0)), "{size}");
        assert!(fs::read(&to).unwrap() == input, "{size}");
    }
}

/// A frame that the input cuts short, or that no record can hold, fails after the frames before it.
#[test]
fn broken_frames_are_refused() {
    let place = Place::new();
    let (from, to) = (place.file("input"), place.file("copy"));
    let good = [frame(b"good"), frame(b"")].concat();
    for (name, end, said) in [
        (
            "length",
            &[9, 0][..],
            "standard input ends within the frame at byte 12, after 2 of the 4 bytes of its length; \
             the frames before it were sent",
        ),
        (
            "payload",
            &[9, 0, 0, 0, 1, 2, 3],
            "standard input ends within the frame at byte 12, after 3 of its 9 bytes; \
             the frames before it were sent",
        ),
        (
            "none",
            &[9, 0, 0, 0],
            "standard input ends within the frame at byte 12, after 0 of its 9 bytes; \
             the frames before it were sent",
        ),
        (
            "large",
            &[101, 0, 0, 0],
            "the frame at byte 12 of the input has 101 bytes, and the largest record of the channel 96; \
             if the input is frames, remove the channel, and make it with --ring 1024 --chunk 101",
        ),
        (
            "huge",
            b"text\n",
            "the frame at byte 12 of the input has 1954047348 bytes, and the largest record of the channel 96; \
             if the input is frames, remove the channel, and make it with --ring 4294967296 --chunk 1954047348",
        ),
    ] {
        fs::write(&from, [&good, end].concat()).unwrap();
        let args = [name, "--framed", "--ring", "1K", "--chunk", "96"];
        let mut send = place.send(&args, &from);
        assert_eq!(send.code(), Some(1), "{name}");
        assert_eq!(send.stderr(), format!("slipring: {said}\n"));
        // The receiver learns that the stream was not finished.
        assert_eq!(place.recv(&[name], &to).code(), Some(3), "{name}");
        assert_eq!(fs::read(&to).unwrap(), good, "{name}");
    }
}

/// Tries each flag of each verb at each mark: a contradiction is refused before a role is taken.
#[test]
fn contradictions_are_refused() {
    let place = Place::new();
    let marks: [(&str, &[&str], &str); 5] = [
        ("none", &[], "has no mark that says what its records are"),
        (
            "other",
            &["--metadata", "prices"],
            "has no mark that says what its records are",
        ),
        ("raw", &["--raw"], "is marked --raw"),
        ("lines", &["--lines"], "is marked --lines"),
        ("framed", &["--framed"], "is marked --framed"),
    ];
    let write_bytes = "to write its bytes as they are; or remove the channel, then start";
    let recv_lines =
        format!("leave out --lines {write_bytes} `send --lines` or `recv --lines` first");
    let recv_framed =
        format!("leave out --framed {write_bytes} `send --framed` or `recv --framed` first");
    let send_framed = "remove the channel, then start `recv --framed` or `send --framed` first";
    let use_framed = "use --framed, or remove the channel";
    let refused = |verb: &str, flag: &str, mark: &str| match (verb, flag, mark) {
        ("send", "" | "--raw" | "--lines", "framed") => Some(use_framed),
        ("send", "--raw", "lines") => Some("use --lines, or remove the channel"),
        ("send", "--framed", "none" | "other" | "raw" | "lines") => Some(send_framed),
        ("recv", "--lines", "none" | "other" | "raw") => Some(&recv_lines[..]),
        ("recv", "--lines", "framed") => Some("use --framed, or --raw for the bytes alone"),
        ("recv", "--framed", "raw" | "lines") => Some(&recv_framed[..]),
        _ => None,
    };
    let mut refusals = 0;
    for (mark, flags, found) in marks {
        assert!(
            place
                .run(&[&["create", mark], flags].concat())
                .status
                .success()
        );
        let metadata = place.stat(mark).unwrap()["metadata"].clone();
        let mut generations = [0, 0];
        // The sender comes first, so that its receiver finds an end to read to.
        for flag in ["", "--raw", "--lines", "--framed"] {
            for (verb, role) in [("send", 0), ("recv", 1)] {
                let all = [verb, mark, flag];
                let args = if flag.is_empty() { &all[..2] } else { &all[..] };
                let Some(advice) = refused(verb, flag, mark) else {
                    generations[role] += 1;
                    continue;
                };
                refusals += 1;
                let mut running = Running::start(&mut place.command(args));
                let asked = match flag {
                    "" => format!("`{verb}` without a flag"),
                    flag => format!("`{verb} {flag}`"),
                };
                assert_eq!(
                    (running.code(), running.stderr()),
                    (
                        Some(1),
                        format!(
                            "slipring: channel `{mark}` {found}, so {asked} is refused; {advice}\n"
                        )
                    )
                );
            }
        }
        let stat = place.stat(mark).unwrap();
        for role in ["producer", "consumer"] {
            assert_eq!(stat[role]["state"], "never", "{mark}");
        }
        // All other flags are served. Each sender is followed by a receiver, which acknowledges its
        // end.
        let (sends, recvs) = (
            accepted("send", mark, refused),
            accepted("recv", mark, refused),
        );
        assert_eq!([sends.len(), recvs.len()], generations);
        for number in 0..sends.len().max(recvs.len()) {
            let send = &sends[number % sends.len()];
            let recv = &recvs[number % recvs.len()];
            assert_eq!(place.run(send).status.code(), Some(0), "{send:?}");
            assert_eq!(place.run(recv).status.code(), Some(0), "{recv:?}");
        }
        assert_eq!(place.stat(mark).unwrap()["metadata"], metadata);
    }
    assert_eq!(refusals, 14);
}

/// Returns the commands of a verb that a channel with this mark serves.
fn accepted<'a>(
    verb: &'a str,
    mark: &'a str,
    refused: impl Fn(&str, &str, &str) -> Option<&'a str>,
) -> Vec<Vec<&'a str>> {
    let flags = ["", "--raw", "--lines", "--framed"].into_iter();
    let flags = flags.filter(|flag| refused(verb, flag, mark).is_none());
    let all = flags.map(|flag| vec![verb, mark, flag]);
    all.map(|args| args.into_iter().filter(|arg| !arg.is_empty()).collect())
        .collect()
}

/// The end that comes first makes the channel with its mark, and the other follows or is refused.
#[test]
fn the_first_marks_the_channel() {
    let place = Place::new();
    for (first, mark) in [
        (&["send"][..], "slipring send --raw"),
        (&["send", "--raw"], "slipring send --raw"),
        (&["send", "--lines"], "slipring send --lines"),
        (&["send", "--framed"], "slipring send --framed"),
        (&["recv"], ""),
        (&["recv", "--raw"], "slipring send --raw"),
        (&["recv", "--lines"], "slipring send --lines"),
        (&["recv", "--framed"], "slipring send --framed"),
        (&["create"], ""),
        (&["create", "--framed"], "slipring send --framed"),
    ] {
        let name = first.concat().replace('-', "");
        let args = [&first[..1], &[&name[..]], &first[1..]].concat();
        if first[0] == "recv" {
            let recv = Running::start(&mut place.command(&args));
            place.until_seat(&name, "consumer", "held", 1);
            drop(recv);
        } else {
            assert_eq!(place.run(&args).status.code(), Some(0), "{args:?}");
        }
        assert_eq!(place.stat(&name).unwrap()["metadata"], mark, "{args:?}");
    }
    for args in [
        &["send", "x", "--lines", "--framed"][..],
        &["send", "x", "--raw", "--lines"],
        &["recv", "x", "--lines", "--framed"],
        &["create", "x", "--raw", "--framed"],
        &["create", "x", "--lines", "--metadata", "prices"],
    ] {
        assert_eq!(place.run(args).status.code(), Some(2), "{args:?}");
    }
    assert!(place.stat("x").is_none());
}

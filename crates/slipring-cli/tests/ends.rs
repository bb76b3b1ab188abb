//! Checks that each way to end a stream is reported as such, and once, and that no role is left
//! behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, Read, Write};

use common::{Place, Running};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

/// Sends a word, ends the sender by the signal, and returns both exit codes and what arrived.
fn ended_by(signal: Signal) -> (Option<i32>, Option<i32>, Vec<u8>, String) {
    let place = Place::new();
    let copy = place.file("copy");
    let mut send = place.send_open(&["x"]);
    send.0.stdin.as_mut().unwrap().write_all(b"so far").unwrap();
    place.until_messages("x", "producer", 1);
    let mut recv = place.recv(&["x"], &copy);
    place.until_messages("x", "consumer", 1);
    send.signal(signal);
    let codes = (send.code(), recv.code());
    (codes.0, codes.1, fs::read(&copy).unwrap(), recv.stderr())
}

#[test]
fn an_interrupted_sender_is_told_apart() {
    let (send, recv, arrived, said) = ended_by(Signal::INT);
    assert_eq!((send, recv), (Some(130), Some(3)));
    assert_eq!(arrived, b"so far");
    assert!(said.starts_with("slipring: the sender aborted"), "{said}");
    let (send, recv, ..) = ended_by(Signal::TERM);
    assert_eq!((send, recv), (Some(143), Some(3)));
}

#[test]
fn a_killed_sender_is_told_apart() {
    let (send, recv, arrived, said) = ended_by(Signal::KILL);
    assert_eq!((send, recv), (None, Some(4)));
    assert_eq!(arrived, b"so far");
    assert!(said.starts_with("slipring: the sender died"), "{said}");
}

/// A receiver that comes after the sender died drains what is left, and reports that the sender
/// died.
#[test]
fn late_receivers_learn_how_it_ended() {
    let place = Place::new();
    let copy = place.file("copy");
    let mut send = place.send_open(&["x"]);
    send.0.stdin.as_mut().unwrap().write_all(b"so far").unwrap();
    place.until_messages("x", "producer", 1);
    send.signal(Signal::KILL);
    assert_eq!(send.code(), None);
    place.until_seat("x", "producer", "died", 1);
    assert_eq!(place.recv(&["x"], &copy).code(), Some(4));
    assert_eq!(fs::read(&copy).unwrap(), b"so far");
}

#[test]
fn a_role_is_taken_once() {
    let place = Place::new();
    let _send = place.send_open(&["x"]);
    place.until_seat("x", "producer", "held", 1);
    let second = place.run(&["send", "x", "--wait", "0"]);
    assert_eq!(second.status.code(), Some(5));
    assert!(common::text(&second.stderr).contains("the producer of this channel is taken"));
    let _recv = place.recv_piped(&["x"]);
    place.until_seat("x", "consumer", "held", 1);
    let second = place.run(&["recv", "x", "--wait", "0.05"]);
    assert_eq!(second.status.code(), Some(5));
    // The live pair was not disturbed.
    place.until_seat("x", "producer", "held", 1);
    place.until_seat("x", "consumer", "held", 1);
}

/// No role stays taken after SIGINT: both ends leave, and others can take the roles again.
#[test]
fn sigint_leaves_no_role_held() {
    let place = Place::new();
    for generation in 1..=3 {
        // The sender comes first: to a receiver alone, the last round's aborted sender would be
        // news.
        let mut send = place.send_open(&["x"]);
        place.until_seat("x", "producer", "held", generation);
        let mut recv = place.recv_piped(&["x"]);
        place.until_seat("x", "consumer", "held", generation);
        recv.signal(Signal::INT);
        assert_eq!(recv.code(), Some(130));
        place.until_seat("x", "consumer", "aborted", generation);
        send.signal(Signal::INT);
        assert_eq!(send.code(), Some(130));
        place.until_seat("x", "producer", "aborted", generation);
    }
    assert!(place.run(&["rm", "x"]).status.success());
}

#[test]
fn an_acknowledged_end_is_history() {
    let place = Place::new();
    let (first, second) = (place.file("first"), place.file("second"));
    let input = place.file("input");
    fs::write(&input, "one").unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    assert_eq!(place.recv(&["x"], &first).code(), Some(0));
    let mut recv = place.recv(&["x"], &second);
    place.until_seat("x", "consumer", "held", 2);
    fs::write(&input, "two").unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    // A receiver that took the first end for news would have left without a message.
    assert_eq!(recv.code(), Some(0));
    assert_eq!(fs::read(&first).unwrap(), b"one");
    assert_eq!(fs::read(&second).unwrap(), b"two");
}

/// An aborted end, too, is reported only once: the next receiver waits for a new sender.
#[test]
fn an_abort_is_reported_once() {
    let place = Place::new();
    let copy = place.file("copy");
    let mut send = place.send_open(&["x"]);
    place.until_seat("x", "producer", "held", 1);
    send.signal(Signal::INT);
    assert_eq!(send.code(), Some(130));
    assert_eq!(place.recv(&["x"], &copy).code(), Some(3));
    let mut recv = place.recv(&["x"], &copy);
    place.until_seat("x", "consumer", "held", 2);
    assert_eq!(place.run(&["send", "x"]).status.code(), Some(0));
    assert_eq!(recv.code(), Some(0));
}

/// A new stream waits until the stream before it was read to its end.
#[test]
fn streams_wait_for_the_one_before() {
    let place = Place::new();
    let (first, second) = (place.file("first"), place.file("second"));
    let input = place.file("input");
    fs::write(&input, "one").unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    fs::write(&input, "two").unwrap();
    let mut send = place.send(&["x"], &input);
    let mut said = [0; 30];
    send.0
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    assert_eq!(&said, b"slipring: the stream before th");
    assert_eq!(place.recv(&["x"], &first).code(), Some(0));
    assert_eq!(send.code(), Some(0));
    assert_eq!(place.recv(&["x"], &second).code(), Some(0));
    assert_eq!(fs::read(&first).unwrap(), b"one");
    assert_eq!(fs::read(&second).unwrap(), b"two");
}

/// Runs the script in a shell, with the command as `$0`.
fn shell(place: &Place, script: &str) -> std::process::Output {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_slipring")]);
    command.env("SLIPRING_DIR", place.channels());
    command.output().unwrap()
}

/// A verb with a closed descriptor fails before it makes a channel, sends an end or takes a
/// message.
#[test]
fn closed_descriptors_touch_nothing() {
    let place = Place::new();
    for script in [
        "\"$0\" send x <&-",
        "\"$0\" recv x >&-",
        "\"$0\" recv x 2>&-",
    ] {
        assert_eq!(shell(&place, script).status.code(), Some(1), "{script}");
        assert!(place.stat("x").is_none(), "{script}");
    }
    let said = shell(&place, "\"$0\" send x <&-").stderr;
    assert!(common::text(&said).contains("standard input (descriptor 0) is closed"));
    let made = shell(&place, "\"$0\" create x >&-");
    assert_eq!(made.status.code(), Some(1), "{made:?}");
    assert!(place.stat("x").is_none());
}

/// A verb refuses a closed descriptor only if it uses it.
#[test]
fn unused_descriptors_may_be_closed() {
    let place = Place::new();
    for script in [
        "\"$0\" create x --json <&-",
        "\"$0\" ls <&-",
        "\"$0\" stat x <&-",
        "\"$0\" send x </dev/null >&-",
        "\"$0\" recv x <&-",
        "\"$0\" rm x <&-",
    ] {
        let done = shell(&place, script);
        let said = common::text(&done.stderr);
        assert_eq!(
            (done.status.code(), said.as_str()),
            (Some(0), ""),
            "{script}"
        );
    }
}

/// An output that may not grow is reported, and what was not written stays for the next receiver.
#[test]
fn file_limits_are_told() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, common::noise(100_000, 11)).unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    let script = format!("ulimit -f 16; \"$0\" recv x > {}", copy.display());
    let limited = shell(&place, &script);
    let said = common::text(&limited.stderr);
    assert_eq!(limited.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("slipring: cannot write to standard output: File too large"),
        "{said}"
    );
    assert_eq!(place.recv(&["x"], &copy).code(), Some(0));
    assert!(fs::read(&copy).unwrap() == fs::read(&input).unwrap());
}

/// Returns `true` once this process has a handler for SIGINT.
fn catches_sigint(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & 1 << (Signal::INT.as_raw() - 1) != 0
}

/// Ctrl-C ends each verb wherever it waits: for input, for a peer, for room, for a role, for the
/// reader of its output. Nothing else would end these waits.
#[test]
fn sigint_ends_every_wait() {
    let place = Place::new();
    let (input, many) = (place.file("input"), place.file("many"));
    fs::write(&input, "one").unwrap();
    fs::write(&many, common::noise(4 << 20, 12)).unwrap();
    let parks = |name: &str, role: &str| {
        let stat = place.stat(name);
        stat.is_some_and(|stat| stat[role]["parks"].as_u64() > Some(0))
    };
    let until_held = |name: &str, role: &str| place.until_seat(name, role, "held", 1);
    let interrupted = |what: &str, mut running: Running| {
        common::until("SIGINT is caught", || catches_sigint(running.0.id()));
        assert!(running.is_running(), "{what}");
        running.signal(Signal::INT);
        assert_eq!(running.code(), Some(130), "{what}");
        assert!(
            running.stderr().ends_with("slipring: interrupted\n"),
            "{what}"
        );
    };

    let idle = place.send_open(&["input"]);
    until_held("input", "producer");
    let second = place.send_open(&["input", "--wait", "3600"]);
    interrupted("send waits for its role", second);
    interrupted("send waits for input", idle);

    let full = place.send(&["full"], &many);
    common::until("the sender sleeps", || parks("full", "producer"));
    interrupted("send waits for room", full);

    assert_eq!(place.send(&["ended"], &input).code(), Some(0));
    let follows = place.send(&["ended"], &input);
    place.until_seat("ended", "producer", "held", 2);
    interrupted("send waits for the end to be read", follows);

    let idle = place.recv_piped(&["empty"]);
    common::until("the receiver sleeps", || parks("empty", "consumer"));
    let second = place.recv_piped(&["empty", "--wait", "3600"]);
    interrupted("recv waits for its role", second);
    interrupted("recv waits for a sender", idle);

    assert_eq!(place.send(&["left"], &input).code(), Some(0));
    let follower = place.recv_piped(&["left", "--follow"]);
    place.until_messages("left", "consumer", 1);
    interrupted("recv waits for the next sender", follower);

    let sender = place.send(&["stuck"], &many);
    let stuck = place.recv_piped(&["stuck"]);
    common::until("the sender sleeps", || parks("stuck", "producer"));
    interrupted("recv waits for its reader", stuck);
    interrupted("send waits for the next receiver", sender);
}

/// SIGHUP ends a sender in an orderly way.
#[test]
fn hangup_ends_like_termination() {
    let (send, recv, ..) = ended_by(Signal::HUP);
    assert_eq!((send, recv), (Some(129), Some(3)));
}

/// The sender starts as under nohup: a signal that its starter ignored does not end it.
#[test]
fn ignored_signals_stay_ignored() {
    let place = Place::new();
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        "trap '' HUP; exec \"$0\" send y",
        env!("CARGO_BIN_EXE_slipring"),
    ]);
    command.env("SLIPRING_DIR", place.channels());
    command.stdin(std::process::Stdio::piped());
    let mut send = common::Running::start(&mut command);
    place.until_seat("y", "producer", "held", 1);
    send.signal(Signal::HUP);
    drop(send.0.stdin.take());
    assert_eq!(send.code(), Some(0));
}

/// A receiver whose standard output is a full socket still obeys a signal.
#[test]
fn full_socket_lets_go() {
    let place = Place::new();
    let input = place.file("input");
    fs::write(&input, common::noise(4 << 20, 8)).unwrap();
    let _send = place.send(&["x"], &input);
    let (_unread, output) = std::os::unix::net::UnixStream::pair().unwrap();
    let output = std::os::fd::OwnedFd::from(output);
    let ours = output.try_clone().unwrap();
    let mut recv = common::Running::start(place.command(&["recv", "x"]).stdout(output));
    place.until_seat("x", "consumer", "held", 1);
    common::until("the channel is full", || {
        place
            .stat("x")
            .is_some_and(|stat| stat["len"].as_u64() > Some(400 << 10))
    });
    common::until("the socket is full", || {
        let mut fds = [PollFd::new(&ours, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
    });
    recv.signal(Signal::TERM);
    assert_eq!(recv.code(), Some(143));
}

/// A process that comes at once after a killed sender gets its role, however long the kernel takes
/// to free it.
#[test]
fn killed_holders_refuse_nobody() {
    let place = Place::new();
    let mut send = place.send_open(&["x"]);
    for generation in 1..=20 {
        place.until_seat("x", "producer", "held", generation);
        send.signal(Signal::KILL);
        // The killed sender is not waited for before the next one starts.
        let next = place.send_open(&["x", "--wait", "60"]);
        let mut killed = std::mem::replace(&mut send, next);
        assert_eq!(killed.code(), None);
    }
    place.until_seat("x", "producer", "held", 21);
}

/// `--follow` outlasts its senders, however they end, and reports each end; a signal ends it.
#[test]
fn followers_outlast_their_senders() {
    let place = Place::new();
    let (copy, input) = (place.file("copy"), place.file("input"));
    let mut recv = place.recv(&["x", "--follow"], &copy);
    place.until_seat("x", "consumer", "held", 1);
    fs::write(&input, "one,").unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    let mut killed = place.send_open(&["x"]);
    killed.0.stdin.as_mut().unwrap().write_all(b"two,").unwrap();
    place.until_messages("x", "consumer", 2);
    killed.signal(Signal::KILL);
    assert_eq!(killed.code(), None);
    let mut said = std::io::BufReader::new(recv.0.stderr.take().unwrap()).lines();
    // The third sender comes after the death was reported, so that each end is reported.
    let mut told = said
        .by_ref()
        .take(2)
        .map(Result::unwrap)
        .collect::<Vec<_>>();
    fs::write(&input, "three").unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    told.push(said.next().unwrap().unwrap());
    recv.signal(Signal::TERM);
    assert_eq!(recv.code(), Some(143));
    assert_eq!(fs::read(&copy).unwrap(), b"one,two,three");
    assert_eq!(
        told[0],
        "slipring: the sender finished; waiting for the next one"
    );
    assert!(told[1].starts_with("slipring: the sender died"), "{told:?}");
    assert_eq!(told[2], told[0]);
}

/// A follower reports an end once, however long it waits for the next sender.
#[test]
fn followers_report_an_end_once() {
    let place = Place::new();
    let (copy, input) = (place.file("copy"), place.file("input"));
    let mut recv = place.recv(&["x", "--follow"], &copy);
    place.until_seat("x", "consumer", "held", 1);
    fs::write(&input, "one").unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    place.until_messages("x", "consumer", 1);
    let parks = || place.stat("x").unwrap()["consumer"]["parks"].as_u64();
    // The follower waits anew several times, and each time finds the same end.
    let before = parks();
    common::until("the follower has slept", || {
        parks() > before.map(|parks| parks + 5)
    });
    recv.signal(Signal::TERM);
    assert_eq!(recv.code(), Some(143));
    assert_eq!(
        recv.stderr(),
        "slipring: the sender finished; waiting for the next one\nslipring: terminated\n"
    );
}

/// A sender that fills the channel before a receiver has come reports once that it waits for one.
#[test]
fn lonely_senders_say_so_once() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, common::noise(4 << 20, 9)).unwrap();
    let mut send = place.send(&["x"], &input);
    let mut said = std::io::BufReader::new(send.0.stderr.take().unwrap()).lines();
    assert_eq!(
        said.next().unwrap().unwrap(),
        "slipring: the channel is full, and nobody reads it yet; waiting for a receiver"
    );
    assert_eq!(place.recv(&["x"], &copy).code(), Some(0));
    assert_eq!(send.code(), Some(0));
    assert_eq!(said.count(), 0);
    assert!(fs::read(&copy).unwrap() == fs::read(&input).unwrap());
}

/// A sender does not take a slow receiver for a missing one.
#[test]
fn slow_receivers_count_as_receivers() {
    let place = Place::new();
    let input = place.file("input");
    let mut recv = place.recv_piped(&["x"]);
    place.until_seat("x", "consumer", "held", 1);
    fs::write(&input, common::noise(4 << 20, 10)).unwrap();
    let mut send = place.send(&["x"], &input);
    // The sender has waited in vain, and waits anew.
    common::until("the sender has waited twice", || {
        place.stat("x").is_some_and(|stat| {
            stat["len"].as_u64() > Some(400 << 10) && stat["producer"]["parks"].as_u64() > Some(8)
        })
    });
    let mut copy = Vec::new();
    recv.0
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut copy)
        .unwrap();
    assert!(copy == fs::read(&input).unwrap());
    assert_eq!((send.code(), send.stderr()), (Some(0), String::new()));
}

//! A bar on standard error, where that is a terminal, and only there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};

use common::{Place, Running, noise, text};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

/// Runs a command that succeeds, and returns all that it writes to standard error, a terminal.
fn on_a_terminal(command: &mut Command) -> String {
    show(command, false)
}

/// Does the same as [`on_a_terminal`], and includes standard output if that goes to the same terminal.
fn show(command: &mut Command, output: bool) -> String {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    unlockpt(&terminal).unwrap();
    let stderr = ioctl_tiocgptpeer(&terminal, flags).unwrap();
    if output {
        command.stdout(stderr.try_clone().unwrap());
    }
    let mut running = Running::start(command.env("TERM", "xterm").stderr(stderr));
    // Ours is closed, so the terminal's end comes with the last process that has it.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (mut terminal, mut said) = (File::from(terminal), Vec::new());
    let end = terminal.read_to_end(&mut said).unwrap_err();
    assert_eq!(
        end.raw_os_error(),
        Some(rustix::io::Errno::IO.raw_os_error())
    );
    assert_eq!(running.code(), Some(0), "{}", text(&said));
    text(&said)
}

const DEMO: [&str; 3] = ["demo", "--messages", "20000"];

/// The demo draws how far it is and how fast it goes, in whole messages.
#[test]
fn the_demo_draws_progress_and_rate() {
    let place = Place::new();
    let said = on_a_terminal(&mut place.command(&DEMO));
    for what in ["slipring", "SEQPACKET"] {
        let done = format!("{what} 20,000/20,000 [");
        let (_, bar) = said.rsplit_once(&done).expect(&said);
        let (bar, rate) = bar.split_once("] ").unwrap();
        assert!(bar.bytes().all(|byte| byte == b'='), "{said}");
        let (rate, _) = rate.split_once("/s").unwrap();
        let figure = |byte: u8| byte.is_ascii_digit() || byte == b',';
        assert!(!rate.is_empty() && rate.bytes().all(figure), "{rate}");
    }
}

#[test]
fn send_draws_how_much_has_gone() {
    let place = Place::new();
    let (input, copy) = (place.file("input"), place.file("copy"));
    fs::write(&input, noise(5 << 20, 1)).unwrap();
    let mut recv = place.recv(&["x"], &copy);
    let file = File::open(&input).unwrap();
    let said = on_a_terminal(place.command(&["send", "x"]).stdin(file));
    assert!(said.contains("send 5.00 MiB/5.00 MiB [="), "{said}");
    assert_eq!((recv.code(), recv.stderr()), (Some(0), String::new()));
}

/// A worker draws how many items it has done and is at.
#[test]
fn work_draws_its_figures() {
    let place = Place::new();
    let input = place.file("input");
    fs::write(&input, "a\nb\n").unwrap();
    assert_eq!(
        place.send(&["x", "--queue", "--lines"], &input).code(),
        Some(0)
    );
    let said = on_a_terminal(&mut place.command(&["work", "x", "--", "true"]));
    for figures in [
        "work 0 done, 1 running, 0 failed, 0 redelivered",
        "work 2 done, 0 running, 0 failed, 0 redelivered",
    ] {
        assert!(said.contains(figures), "{figures}: {said}");
    }
}

/// No progress bar is drawn where nobody would see it.
#[test]
fn no_terminal_means_no_bar() {
    let place = Place::new();
    let output = place.run(&DEMO);
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
}

/// A receiver draws a bar only if its records go elsewhere than to the same terminal.
#[test]
fn records_are_not_mixed_with_bars() {
    let place = Place::new();
    let input = place.file("input");
    fs::write(&input, "all that was sent").unwrap();
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    assert_eq!(
        show(&mut place.command(&["recv", "x"]), true),
        "all that was sent"
    );
    assert_eq!(place.send(&["x"], &input).code(), Some(0));
    let said = on_a_terminal(&mut place.command(&["recv", "x"]));
    assert!(said.contains("recv 17 B"), "{said}");
}

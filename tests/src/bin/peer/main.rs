//! The other process of a test: it obeys one line at a time, and answers each with a line.
//!
//! ```text
//! ok   \t word \t word ...          done; the results
//! err  \t variant \t text           slipring's error, as a programmer and as a user sees it
//! ```
//!
//! A line is a verb, its words, and options `key=value`. On anything that a test does not expect (a
//! torn message, a system call that fails, a verb that does not exist) it panics: the test sees its
//! end.
//!
//! Options of a channel:
//!
//! - `kind`: a kind of the test kit (`spsc`, `bytes`, `broadcast`), or that with the type of its
//!   messages (`broadcast-twin`), or the type alone for `spsc` (`twin`, `small`, `u64`, `packet`,
//!   `frame`)
//! - `capacity`, `max` (largest record), `consumers`, `full=overwrite`, `mode` (octal), `metadata`,
//!   `huge` (`2m`, `1g`)
//! - `patience` (in milliseconds), `exact=1`, `producers`, `join=default` (else `broadcast` consumers begin at
//!   the oldest)
//! - `wait=sleep` (at once), `check` (the interval in milliseconds)
//!
//! In a name, `%` stands for an empty name and `%XX` for a byte.
//!
//! | verb | does |
//! |---|---|
//! | `create`, `open`, `open-or-create` NAME; `heap`; `memfd`; `from-fds` C,D,P,P | makes or opens a channel and keeps it; says its identity |
//! | `producer`, `consumer` (NAME) | takes the role, of the channel kept or of the one named |
//! | `push` FIRST COUNT, `try-push` N, `place` N, `try-batch` FIRST COUNT | appends; `timeout=` in milliseconds |
//! | `pop` COUNT, `try-pop`, `drain` | says the numbers |
//! | `hold-push` FIRST COUNT, `hold-pop` COUNT | holds a guard in place, until `commit N`, `release`; `fork N` meanwhile |
//! | `leave`, `abort`, `panic` ROLE | gives the role up |
//! | `position`, `len`, `disconnected`, `heartbeat` ROLE; `next`; `wait-for` ROLE MS | asks a handle |
//! | `identity`, `pages`, `metadata`; `stat` NAME; `seat` NAME ROLE; `list`; `remove` (NAME) | asks a channel |
//! | `stream-produce` (COUNTER), `stream-consume` COUNTER | goes on for ever; keeps its progress in that file |
//! | `race`, `churn`, `occupy`, `wreck`, `rebuild` | see `races.rs` |
//! | `fork` LINE; `fork-linger`, `exec-linger`, `fork-storm`, `fork-parked` ROUNDS | see `forks.rs` |
//! | `fenced`, `sandbox`, `ask`, `answer`, `sleep-pop` | see `waiting.rs` |
//! | `arm`, `poll`, `glance`, `poll-..`, `wait-..`, ... | see `polling.rs` |
//! | `listen`, `take-over`, `hand-over`, `files`, ... | see `handing.rs` |
//! | `follow`, `die-in-batch`, `table`, `holds-back` | see `broadcasts.rs` |
//! | `endure` ROLE MS | see `hostile.rs` |
//! | `scribble` FD SEED | see `scribbling.rs` |
//! | `life-…` | see `lives.rs` |
//! | `watch` and `watch-…` | see `sets.rs` |
//! | `topic-…`, `frame-…` | see `topics.rs` |
//! | the rest | see `system.rs` |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broadcasts;
mod forks;
mod handing;
mod hostile;
mod lives;
mod polling;
mod races;
mod scribbling;
mod sets;
mod system;
mod topics;
mod waiting;
mod worker;

use std::io::{BufRead, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("linger") {
        forks::linger(&args.next().expect("a directory").into());
    }
    let mut worker = worker::Worker::default();
    while let Some(line) = next_line() {
        let answer = worker.obey(&line);
        say(&worker::spell(&answer));
    }
}

/// Returns the next line, or `None` when the test is gone.
fn next_line() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line).unwrap() {
        0 => None,
        _ => Some(line.trim_end().to_owned()),
    }
}

/// Returns `true` if there is a line to be read. (A test sends the next line after the answer to
/// the last.)
fn is_told() -> bool {
    let stdin = std::io::stdin();
    let mut polled = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|said| said > 0)
}

/// Counts `count` rounds; if that is 0, goes on until any line comes.
fn rounds(count: u64) -> impl Iterator<Item = u64> {
    let enough = move |round: u64| match count {
        0 => is_told() && next_line().is_some(),
        _ => round == count,
    };
    (0..).take_while(move |round| !enough(*round))
}

/// Answers. If the test no longer listens, there is no reason to stay.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

//! The command that `work` runs for an item: makes its arguments, starts it, and waits for its end.
//!
//! - The item is its standard input: a file in memory, so nothing waits for a command that does not
//!   read it.
//! - It has a process group of its own. What stops it stops what it has started, too.
//! - The kernel kills it when the thread that started it dies (`PR_SET_PDEATHSIG`). So it does not go
//!   on beside its successor after its worker was killed. Three gaps remain. What it has started itself
//!   goes on: the kernel has no such signal for a group. The signal comes a moment after the worker's
//!   item is free. A program that gains rights when it starts (setuid) does not get it.
#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::exit::Failure;
use crate::signals::{Signals, TICK};

/// This stands for the item in an argument.
const PLACE: &[u8] = b"{}";

/// A command with places for the item in its arguments.
pub(crate) struct Template {
    program: OsString,
    arguments: Vec<OsString>,
    limits: Limits,
}

/// The times that a command gets.
pub(crate) struct Limits {
    /// It is stopped after this long.
    pub(crate) timeout: Option<Duration>,
    /// It is killed when it goes on for this long after it was asked to stop.
    pub(crate) grace: Duration,
}

/// The way in which a command ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its exit status is 0.
    Succeeded,
    /// It failed, for this reason. Another attempt may succeed.
    Failed(String),
    /// It cannot be run for this item, for this reason.
    Unfit(String),
    /// It did not succeed before a signal asked us to stop.
    Stopped,
}

impl Template {
    /// Makes a template of the program and its arguments; `None` without a program.
    pub(crate) fn new(words: &[OsString], limits: Limits) -> Option<Template> {
        let (program, arguments) = words.split_first()?;
        Some(Template {
            program: program.clone(),
            arguments: arguments.to_vec(),
            limits,
        })
    }

    /// Runs the command for an item to its end. Fails if it cannot be started, for any item.
    pub(crate) fn run(
        &self,
        item: &[u8],
        environment: &[(&str, String)],
        signals: &Signals,
    ) -> Result<Ended, Failure> {
        let text = item.strip_suffix(b"\n").unwrap_or(item);
        let has_place = |argument: &OsString| contains(argument.as_bytes(), PLACE);
        let uses_text = self.arguments.iter().any(has_place);
        if uses_text && text.contains(&0) {
            let reason = "it has a NUL, which no argument can have; leave out {} and read the item from standard input";
            return Ok(Ended::Unfit(reason.into()));
        }
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments.iter().map(|argument| fill(argument, text)))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(standard_input(item)?);
        match start(&mut command) {
            Ok(child) => watch(child, &self.limits, signals),
            Err(error) if uses_text && error.kind() == io::ErrorKind::ArgumentListTooLong => {
                let reason = "it is too long for an argument; leave out {} and read the item from standard input";
                Ok(Ended::Unfit(reason.into()))
            }
            Err(error) => {
                let program = self.program.display();
                Err(Failure::io(format!("run `{program}`"), error))
            }
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Puts the item's text into each place of an argument.
fn fill(argument: &OsStr, text: &[u8]) -> OsString {
    let (mut rest, mut filled) = (argument.as_bytes(), Vec::new());
    while let Some(at) = memchr::memmem::find(rest, PLACE) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(text);
        rest = &rest[at + PLACE.len()..];
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}

/// Makes a file in memory with the item. (A pipe would want a writer that neither waits for the command
/// nor minds if it does not read.)
fn standard_input(item: &[u8]) -> Result<Stdio, Failure> {
    let make = || {
        let mut file = File::from(rustix::fs::memfd_create("item", MemfdFlags::CLOEXEC)?);
        file.write_all(item)?;
        file.rewind()?;
        Ok(file)
    };
    let made = make().map_err(|error: io::Error| Failure::io("make a file in memory", error));
    made.map(Stdio::from)
}

/// Starts the command in a group of its own, as a process that does not outlive this thread.
fn start(command: &mut Command) -> io::Result<Child> {
    let worker = rustix::process::getpid();
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls, and does not allocate.
    unsafe { command.pre_exec(move || die_with(worker)) };
    command.spawn()
}

/// Asks the kernel to kill this process when the thread dies that started it.
fn die_with(worker: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The worker may have died before that.
    match rustix::process::getppid() == Some(worker) {
        true => Ok(()),
        false => Err(rustix::io::Errno::SRCH.into()),
    }
}

/// The reason for which we end a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    TimedOut,
    Signal,
}

/// Waits for the command's end, and brings it about if its time is over or a signal comes.
fn watch(mut child: Child, limits: &Limits, signals: &Signals) -> Result<Ended, Failure> {
    let group = Pid::from_child(&child);
    let began = Instant::now();
    let watched = wait(group, began, limits, signals);
    if !matches!(watched, Ok(None)) {
        // Whatever is left of the group must not go on beside the next attempt. The command was not
        // waited for yet, so its number still stands for this group.
        send(group, Signal::KILL);
    }
    let status = child
        .wait()
        .map_err(|error| Failure::io("wait for the command", error))?;
    Ok(match watched? {
        Some(Reason::TimedOut) => {
            let timeout = limits.timeout.unwrap_or_default();
            Ended::Failed(format!("it ran longer than {timeout:?}"))
        }
        _ if status.success() => Ended::Succeeded,
        Some(Reason::Signal) => Ended::Stopped,
        // The same signal may be on its way to us: a service manager sends it to all processes, and
        // then the item has not failed.
        None if matches!(status.signal(), Some(1 | 2 | 15)) && signals.comes_soon() => {
            Ended::Stopped
        }
        None => Ended::Failed(status.to_string()),
    })
}

/// Waits until the command has ended, and returns the reason if that was our doing.
fn wait(
    group: Pid,
    began: Instant,
    limits: &Limits,
    signals: &Signals,
) -> Result<Option<Reason>, Failure> {
    let failed = |errno| Failure::io("watch the command", errno);
    let exit = rustix::process::pidfd_open(group, PidfdFlags::empty()).map_err(failed)?;
    let mut ending = None;
    // The time of the next step: to ask it to stop, then to kill it, then none.
    let mut next = limits
        .timeout
        .and_then(|timeout| began.checked_add(timeout));
    loop {
        let left = next.map_or(TICK, |next| next.saturating_duration_since(Instant::now()));
        if has_ended(&exit, left.min(TICK)).map_err(failed)? {
            return Ok(ending);
        }
        let over = next.is_some_and(|next| Instant::now() >= next);
        let asked_to_stop = signals.check().is_err();
        if ending.is_none() && (over || asked_to_stop) {
            ending = Some(match asked_to_stop {
                true => Reason::Signal,
                false => Reason::TimedOut,
            });
            stop(group);
            next = Instant::now().checked_add(limits.grace);
        } else if ending.is_some() && (over || signals.has_second()) {
            send(group, Signal::KILL);
            next = None;
        }
    }
}

/// Returns `true` if the process has ended within `timeout`.
fn has_ended(exit: &impl AsFd, timeout: Duration) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::new(exit, PollFlags::IN)];
    let timeout = Timespec::try_from(timeout).unwrap_or_default();
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Asks a group to end, even if it was stopped.
fn stop(group: Pid) {
    send(group, Signal::TERM);
    send(group, Signal::CONT);
}

/// Sends a signal to a group. If nothing is left of it, there is nothing to do.
fn send(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled() {
        for (argument, filled) in [
            ("{}", "a b"),
            ("x{}y{}", "xa bya b"),
            ("{ }", "{ }"),
            ("{{}}", "{a b}"),
            ("", ""),
        ] {
            assert_eq!(fill(OsStr::new(argument), b"a b"), filled);
        }
        // What an item brings is not a place.
        assert_eq!(fill(OsStr::new("-{}-"), b"{}"), "-{}-");
    }
}

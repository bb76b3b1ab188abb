//! The other process of a test, and the lines that it gets: `bin/peer/main.rs` lists them.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::room::{PATIENCE, eventually};

/// A process that obeys one line at a time. Killed when dropped.
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    unread: Vec<u8>,
}

/// Returns the line that makes a peer open the channel of these inherited descriptors.
pub fn from_fds(passed: &[BorrowedFd<'_>]) -> String {
    let numbers: Vec<String> = passed.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    format!("from-fds {}", numbers.join(","))
}

/// A peer's answer to a line that it could obey: words.
pub type Answer = Vec<String>;

/// A peer's answer to a line that it could not obey: slipring's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error's variant.
    pub kind: String,
    /// All of it, as a programmer sees it.
    pub debug: String,
    /// All of it, as a user sees it.
    pub text: String,
}

impl Refusal {
    /// Asserts that it is this error, and that its text has all of these words: the value found,
    /// the value expected, the remedy.
    #[track_caller]
    pub fn is(&self, kind: &str, words: &[&str]) {
        assert_eq!(self.kind, kind, "{self:?}");
        for word in words {
            assert!(self.text.contains(word), "no `{word}` in: {}", self.text);
        }
    }
}

impl Peer {
    /// Starts a process with `SLIPRING_DIR` set to `dir`, and these descriptors besides its own.
    pub fn start(program: &Path, dir: &Path, descriptors: &[BorrowedFd<'_>]) -> Peer {
        let mut command = Command::new(program);
        command
            .env("SLIPRING_DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let inherited = descriptors
            .iter()
            .map(|fd| fd.as_raw_fd())
            .collect::<Vec<_>>();
        let keep = move || {
            for fd in &inherited {
                // SAFETY: one system call on a descriptor that the parent keeps open meanwhile.
                if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } == -1 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
        let mut child = unsafe { command.pre_exec(keep) }
            .spawn()
            .expect("the program `peer`");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().unwrap();
        Peer {
            child,
            stdin,
            stdout,
            unread: Vec::new(),
        }
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a line, without waiting for the answer.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin was closed");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("`{line}`: {error}"));
    }

    /// Waits for its next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Result<Answer, Refusal> {
        let line = self.line();
        let mut parts = line.split('\t');
        match parts.next() {
            Some("ok") => Ok(parts.map(str::to_owned).collect()),
            Some("err") => {
                let mut part = || parts.next().unwrap_or_default().to_owned();
                let (debug, text) = (part(), part());
                let end = debug
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(debug.len());
                Err(Refusal {
                    kind: debug[..end].to_owned(),
                    debug,
                    text,
                })
            }
            _ => panic!("the peer said `{line}`"),
        }
    }

    /// Sends it a line, and waits for the answer.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Result<Answer, Refusal> {
        self.tell(line);
        self.answer()
    }

    /// Sends it a line that it can obey, and returns the answer.
    #[track_caller]
    pub fn ok(&mut self, line: &str) -> Answer {
        match self.ask(line) {
            Ok(answer) => answer,
            Err(refusal) => panic!("`{line}`: {refusal:?}"),
        }
    }

    /// Sends it a line that it can obey, and returns the numbers of the answer.
    #[track_caller]
    pub fn numbers(&mut self, line: &str) -> Vec<u64> {
        let answer = self.ok(line);
        let number = |word: &String| {
            word.parse()
                .unwrap_or_else(|_| panic!("`{line}`: {answer:?}"))
        };
        answer.iter().map(number).collect()
    }

    /// Sends it a line that it can obey, and returns the number of the answer.
    #[track_caller]
    pub fn number(&mut self, line: &str) -> u64 {
        let numbers = self.numbers(line);
        assert_eq!(numbers.len(), 1, "`{line}`: {numbers:?}");
        numbers[0]
    }

    /// Sends it a line that it must refuse with this error, in these words.
    #[track_caller]
    pub fn refused(&mut self, line: &str, kind: &str, words: &[&str]) -> Refusal {
        match self.ask(line) {
            Ok(answer) => panic!("`{line}` was not refused: {answer:?}"),
            Err(refusal) => {
                refusal.is(kind, words);
                refusal
            }
        }
    }

    /// Returns `true` if it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended, and returns the signal that ended it, if one did.
    pub fn ended_by(&mut self) -> Option<i32> {
        eventually("the process ends", || !self.is_running());
        self.child.wait().unwrap().signal()
    }

    /// Ends it as the OOM killer would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Closes its standard input: it ends by itself. Returns `true` if it ended well.
    pub fn end(&mut self) -> bool {
        self.stdin = None;
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Sends it the stop signal, without waiting until it has stopped.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Stops it, and waits until it has stopped.
    pub fn freeze(&self) {
        self.stop();
        eventually("the process stops", || self.state() == Some('T'));
    }

    /// Waits until it has slept for five milliseconds without a break: longer than a waiter puts
    /// anything off.
    pub fn until_overdue(&self) {
        let (mut since, mut pauses) = (Instant::now(), None);
        eventually("it sleeps for long", || {
            let now = (self.state() == Some('S')).then(|| self.pauses());
            if now.is_none() || now != pauses {
                (since, pauses) = (Instant::now(), now);
            }
            since.elapsed() > Duration::from_millis(5)
        });
    }

    /// Returns the state of its main thread, a letter of `proc(5)`.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Returns how often it has paused, or waited for something.
    pub fn pauses(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = |line: &str| {
            Some(
                line.strip_prefix("voluntary_ctxt_switches:")?
                    .trim()
                    .parse(),
            )
        };
        status.lines().find_map(line).unwrap().unwrap()
    }

    /// Lets it go on after a stop.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Returns a path as this process sees it, in its own mount namespace.
    pub fn sees(&self, path: &Path) -> std::path::PathBuf {
        format!("/proc/{}/root{}", self.pid(), path.display()).into()
    }

    /// Returns the next eight bytes of its output, for a process that writes numbers, or `None` at
    /// its end.
    #[track_caller]
    pub fn word(&mut self) -> Option<u64> {
        while self.unread.len() < 8 {
            if !self.fill() {
                return None;
            }
        }
        let mut word = [0; 8];
        word.copy_from_slice(&self.unread[..8]);
        self.unread.drain(..8);
        Some(u64::from_le_bytes(word))
    }

    #[track_caller]
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.drain(..=end).collect::<Vec<_>>();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            if !self.fill() {
                let status = self.child.wait();
                panic!("the peer ended instead of answering: {status:?}");
            }
        }
    }

    /// Reads some more of its output; returns `false` at the end of it.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let start = Instant::now();
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.stdout.as_fd(), PollFlags::IN)];
            let left = PATIENCE.saturating_sub(start.elapsed());
            let timeout = rustix::event::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: 0,
            };
            match poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => panic!("poll: {errno}"),
                Ok(0) => panic!("the peer says nothing"),
                Ok(_) => {}
            }
            let mut some = [0; 16384];
            let count = self.stdout.read(&mut some).unwrap();
            self.unread.extend_from_slice(&some[..count]);
            return count > 0;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

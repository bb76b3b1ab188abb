//! Helpers that the tests of the command share: a private directory for channels, real processes,
//! and waits for a condition instead of for a time.
#![allow(dead_code)]

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A directory in memory, one for each test's channels and files.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        let dir = tempfile::Builder::new()
            .prefix("slipring-test-")
            .tempdir_in("/dev/shm");
        Place(dir.expect("a directory in /dev/shm"))
    }

    /// Returns the directory of the channels.
    pub(crate) fn channels(&self) -> PathBuf {
        let dir = self.0.path().join("channels");
        std::fs::create_dir_all(&dir).expect("the channels' directory");
        dir
    }

    /// Returns the path of a file beside them.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Signals act as in a terminal, even if the tests run under `nohup` or in a script's background.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("env");
        command.args([
            "--default-signal=HUP,INT,TERM",
            env!("CARGO_BIN_EXE_slipring"),
        ]);
        command.args(args).env("SLIPRING_DIR", self.channels());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.stdout(Stdio::piped());
        command.output().expect("slipring runs")
    }

    /// Starts `send NAME ARGS..`, which reads the file.
    pub(crate) fn send(&self, args: &[&str], input: &PathBuf) -> Running {
        let input = File::open(input).expect("the input");
        let all = [&["send"], args].concat();
        Running::start(self.command(&all).stdin(input))
    }

    /// Starts `send NAME ARGS..`, which reads the test's own writes.
    pub(crate) fn send_open(&self, args: &[&str]) -> Running {
        let all = [&["send"], args].concat();
        Running::start(self.command(&all).stdin(Stdio::piped()))
    }

    /// Starts `recv NAME ARGS..`, which writes the file.
    pub(crate) fn recv(&self, args: &[&str], output: &PathBuf) -> Running {
        let output = File::create(output).expect("the output");
        let all = [&["recv"], args].concat();
        Running::start(self.command(&all).stdout(output))
    }

    /// Starts `recv NAME ARGS..`, which writes to a pipe that nobody reads yet.
    pub(crate) fn recv_piped(&self, args: &[&str]) -> Running {
        let all = [&["recv"], args].concat();
        Running::start(self.command(&all).stdout(Stdio::piped()))
    }

    /// Returns the output of `stat --json`, or `None` while there is no such channel.
    pub(crate) fn stat(&self, name: &str) -> Option<Value> {
        let output = self.run(&["stat", name, "--json"]);
        output.status.success().then(|| json(&output))
    }

    /// Waits until `role` is in this state, as its holder number `generation`.
    pub(crate) fn until_seat(&self, name: &str, role: &str, state: &str, generation: u64) {
        until(&format!("the {role} of {name} is {state}"), || {
            self.stat(name).is_some_and(|stat| {
                stat[role]["state"] == state && stat[role]["generation"] == generation
            })
        });
    }

    /// Waits until this many messages were committed (`producer`) or released (`consumer`).
    pub(crate) fn until_messages(&self, name: &str, role: &str, count: u64) {
        until(&format!("{count} messages at the {role} of {name}"), || {
            self.stat(name)
                .is_some_and(|stat| stat[role]["messages"] == count)
        });
    }
}

/// Runs `pub ARGS..` with this input, to its end.
pub(crate) fn publish(place: &Place, args: &[&str], input: &[u8]) -> Output {
    let mut command = place.command(&[&["pub"], args].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // What refuses its arguments reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A process of the test; killed if the test fails before it ended.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        Running(command.spawn().expect("slipring starts"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("the process is there");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child of ours").is_none()
    }

    /// Waits for its end, and returns its exit code (`None` if a signal killed it).
    pub(crate) fn code(&mut self) -> Option<i32> {
        until("a process ends", || !self.is_running());
        self.0.wait().expect("a child of ours").code()
    }

    /// Returns all its output on standard error, after its end.
    pub(crate) fn stderr(&mut self) -> String {
        let stderr = self.0.stderr.take().expect("standard error is a pipe");
        std::io::read_to_string(stderr).expect("text")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

/// Returns the JSON objects of these lines.
pub(crate) fn objects(lines: &[u8]) -> Vec<Value> {
    let lines = text(lines);
    let parsed = lines.lines().map(serde_json::from_str);
    parsed.map(Result::unwrap).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Polls until the condition holds; panics after a minute.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited a minute in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns bytes that do not repeat nearby.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        out.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    out.truncate(len);
    out
}

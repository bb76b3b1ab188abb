//! Measures whole processes: the demo, and a file from one process to another.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::CpuSet;
use serde_json::Value;

use super::{Row, Unit, Wanted, on_one_processor};
use crate::bench::median;
use crate::exit::Failure;
use crate::text;

/// The number of messages in one demo.
const MESSAGES: u64 = 200_000;
/// The size of the file in bytes.
const FILE: usize = 512 << 20;

pub(super) fn demo_on_one_processor(wait: &'static str, runs: usize) -> Result<Row, Failure> {
    let (ours, socket) = on_one_processor(|| demo(wait, runs))?;
    Ok(Row {
        key: format!("one_processor_demo_{wait}"),
        name: format!("one processor: demo --wait {wait}"),
        unit: Unit::MessagesPerSecond,
        ours,
        peer: ("SEQPACKET", socket),
        wanted: Wanted::AtLeast(1.0),
    })
}

/// Measures the demo beside one busy thread on each allowed processor.
pub(super) fn demo_beside_strangers(runs: usize) -> Result<Row, Failure> {
    let (ours, socket) = beside_strangers(|| demo("sleep", runs))?;
    Ok(Row {
        key: "strangers_demo".into(),
        name: "a busy stranger on each processor: demo".into(),
        unit: Unit::MessagesPerSecond,
        ours,
        peer: ("SEQPACKET", socket),
        wanted: Wanted::AtLeast(2.0),
    })
}

/// Measures the demo with both ends and a busy stranger on one processor.
pub(super) fn demo_beside_a_stranger(runs: usize) -> Result<Row, Failure> {
    let (ours, socket) = on_one_processor(|| beside_strangers(|| demo("sleep", runs)))?;
    Ok(Row {
        key: "one_processor_stranger_demo".into(),
        name: "one processor, and a busy stranger: demo".into(),
        unit: Unit::MessagesPerSecond,
        ours,
        peer: ("SEQPACKET", socket),
        wanted: Wanted::AtLeast(1.0),
    })
}

/// Runs `work` while a thread that never rests occupies each allowed processor.
fn beside_strangers<R>(work: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    let fail = |errno| Failure::io("ask for the processors", errno);
    let allowed = rustix::thread::sched_getaffinity(None).map_err(fail)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for processor in (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)) {
            let done = &done;
            scope.spawn(move || {
                let mut one = CpuSet::new();
                one.set(processor);
                let _ = rustix::thread::sched_setaffinity(None, &one);
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Runs the demo, and returns its median rates in messages a second: ours and the socket's.
fn demo(wait: &str, runs: usize) -> Result<(f64, f64), Failure> {
    let mut figures_of = Vec::new();
    for _ in 0..runs {
        let messages = format!("--messages={MESSAGES}");
        let output = ourselves()?
            .args(["demo", "--json", "--wait", wait, &messages])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| Failure::io("start the demo", error))?;
        if !output.status.success() {
            return Err(Failure::Words(format!(
                "the demo failed ({})",
                output.status
            )));
        }
        let figures: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::Words(format!("the demo's figures: {error}")))?;
        let figure = |who: &str| figures[who]["messages_per_s"].as_f64().unwrap_or(0.0);
        figures_of.push((figure("slipring"), figure("seqpacket")));
    }
    let (ours, sockets): (Vec<_>, Vec<_>) = figures_of.into_iter().unzip();
    Ok((median(ours), median(sockets)))
}

/// Measures `send | recv` beside `cat | cat`.
pub(super) fn file_on_one_processor(runs: usize) -> Result<Row, Failure> {
    let file = memfd_create("slipring-bench", MemfdFlags::CLOEXEC)
        .map_err(|errno| Failure::io("make a file in memory", errno))?;
    let mut file = std::fs::File::from(file);
    let block = vec![0x5a; 1 << 20];
    for _ in 0..FILE / block.len() {
        let written = file.write_all(&block);
        written.map_err(|error| Failure::io("fill a file in memory", error))?;
    }
    let (mut ours, mut cats) = (Vec::new(), Vec::new());
    on_one_processor(|| {
        for _ in 0..runs {
            ours.push(send_and_recv(&file)?.as_secs_f64());
            cats.push(two_cats(&file)?.as_secs_f64());
        }
        Ok(())
    })?;
    Ok(Row {
        key: "one_processor_file".into(),
        name: format!("one processor: send | recv, {}", text::bytes(FILE as u64)),
        unit: Unit::Seconds,
        ours: median(ours),
        peer: ("cat | cat", median(cats)),
        wanted: Wanted::AtMost(1.3),
    })
}

fn send_and_recv(file: &std::fs::File) -> Result<Duration, Failure> {
    // `recv` does not remove the channel; this guard does.
    let name = Name(format!("bench-{}", std::process::id()));
    let began = Instant::now();
    let recv = ourselves()?
        .args(["recv", &name.0])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| Failure::io("start recv", error))?;
    let send = ourselves()?
        .args(["send", &name.0])
        .stdin(from_start(file)?)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| Failure::io("start send", error))?;
    finish("send", send)?;
    finish("recv", recv)?;
    Ok(began.elapsed())
}

fn two_cats(file: &std::fs::File) -> Result<Duration, Failure> {
    let began = Instant::now();
    let mut first = Command::new("cat")
        .stdin(from_start(file)?)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io("start cat", error))?;
    let between = first.stdout.take().map_or(Stdio::null(), Stdio::from);
    let second = Command::new("cat")
        .stdin(between)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| Failure::io("start cat", error))?;
    finish("cat", first)?;
    finish("cat", second)?;
    Ok(began.elapsed())
}

/// Opens the file anew, with a position of its own.
fn from_start(file: &std::fs::File) -> Result<Stdio, Failure> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = std::fs::File::open(path);
    Ok(opened
        .map_err(|error| Failure::io("open a file in memory", error))?
        .into())
}

fn finish(what: &str, mut child: Child) -> Result<(), Failure> {
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Words(format!("{what} failed ({status})"))),
        Err(error) => Err(Failure::io(format!("wait for {what}"), error)),
    }
}

fn ourselves() -> Result<Command, Failure> {
    let path = std::env::current_exe();
    Ok(Command::new(path.map_err(|error| {
        Failure::io("find this program", error)
    })?))
}

/// A channel's name; the channel is removed when this is dropped.
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        // A failure here needs no action: `slipring ls` shows the channel.
        let _ = slipring::inspect::remove(&self.0);
    }
}

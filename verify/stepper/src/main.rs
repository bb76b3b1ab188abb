//! Kills a process at every instruction of every operation, and checks the channel that is left.
//!
//! ```text
//! stepper [--recovery | --stopped [--near N]] [--first] [--only WORDS] [KIND|names...]
//! ```
//!
//! An operation runs in a process of its own, under ptrace, one instruction at a time. After each
//! instruction, the channel's memory is compared with its previous content. Each new image is the
//! one that a SIGKILL at that instant would leave (with the dead process's locks free), and is
//! checked: see `check`. With `--recovery` a successor also begins at each of those images. Its
//! taking of the seat is stepped and checked in the same way: a kill inside recovery.
//!
//! With `--stopped` the process is stopped instead of killed: see `queue::stopped`.
//!
//! Exit code 1 if any image breaks a promise.

mod check;
mod errno;
mod every;
mod fellows;
mod handover;
mod honest;
mod hostile;
mod image;
mod kinds;
mod names;
mod operations;
mod queue;
mod topic;
mod trace;
mod walls;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use slipring::Role;
use slipring_testkit::{Memory, inherited};

use check::Stage;
use image::{Image, Seen, Window};
use kinds::{Kind, consumer, producer, words};
use operations::{Operation, Other, consume, produce};
use trace::Victim;

/// A stepped operation waits this long: long enough to fall asleep, though each instruction of the
/// way there takes some 20 µs under ptrace.
const PARK: Duration = Duration::from_millis(100);

#[derive(Parser)]
#[command(group(ArgGroup::new("lies").args(["hostile", "every_word"])))]
struct Args {
    /// Also kill each successor at every instruction of taking the dead process's seat.
    #[arg(long)]
    recovery: bool,
    /// Instead of all that, stop an end of a work queue, or of a topic, at each new image of each operation. Others must go
    /// on, and so must it afterwards.
    #[arg(long)]
    stopped: bool,
    /// Also stop it at each of this many instructions before a change of the memory, and at some behind it.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "stopped")]
    near: u64,
    /// Instead of all that, make every system call of every operation fail in turn.
    #[arg(long)]
    errno: bool,
    /// Instead of all that, tell this many lies to each kind at rest, and a hundredth as many live.
    #[arg(long, value_name = "LIES")]
    hostile: Option<u64>,
    /// Tell this many lies live, in place of a hundredth.
    #[arg(long, value_name = "LIES", requires = "hostile")]
    live: Option<u64>,
    /// Instead of all that, change each control word in use of each kind, at rest: flip each of its
    /// bits, and set it to extremes.
    #[arg(long)]
    every_word: bool,
    /// Put the channels' memory between inaccessible pages, so that no access beyond it goes
    /// unnoticed.
    #[arg(long, requires = "lies")]
    walls: bool,
    /// The seed of the lies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop at the first failure.
    #[arg(long)]
    first: bool,
    /// Run only operations whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Run only these kinds, or `names`: named channels made, opened and removed.
    kinds: Vec<String>,
}

impl Args {
    fn wants(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|name| name == kind)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let text: Vec<&str> = words.iter().map(String::as_str).collect();
    let part = match text[..] {
        [_, "victim", "names", name] => Some(names::victim(name)),
        [_, "victim", "handover", name, kind, passed] => Some(handover::victim(name, kind, passed)),
        [_, "victim", "queue", kind, index, name, passed] => {
            Some(queue::victim(kind, index, name, passed))
        }
        [_, "victim", "topic", kind, index, name, passed] => {
            Some(topic::victim(kind, index, name, passed))
        }
        [_, "victim", "alone", ..] => Some(victim(&words[3..])),
        [_, "honest", role, kind, place, passed] => Some(honest::act(role, kind, place, passed)),
        [_, "names", "make"] => Some(names::make()),
        [_, "names", "examine"] => Some(names::examine()),
        _ => None,
    };
    if let Some(done) = part {
        return match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let args = Args::parse();
    if args.errno {
        return errno::main(&args);
    }
    if let Some(lies) = args.hostile {
        return hostile::main(&args, lies);
    }
    if args.stopped {
        let queues = queue::stopped::main(&args);
        return match topic::stopped::main(&args) {
            ExitCode::SUCCESS => queues,
            failed => failed,
        };
    }
    if args.every_word {
        return every::main(&args);
    }
    let mut report = Report::new(args);
    println!("| kind | operation | instructions | images | in recovery: instructions | images |");
    println!("|---|---|---|---|---|---|");
    let done = report.all();
    println!("| all | {}", report.totals);
    if done.is_break() || report.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The results so far, printed line by line.
struct Report {
    args: Args,
    totals: Figures,
    failed: bool,
}

impl Report {
    fn new(args: Args) -> Report {
        Report {
            args,
            totals: Figures::default(),
            failed: false,
        }
    }

    /// Runs everything that was asked for, and stops at the first failure if that was asked for.
    fn all(&mut self) -> ControlFlow<()> {
        for kind in kinds::all() {
            if !self.args.wants(kind.name) {
                continue;
            }
            let shown = format!("`{}`", kind.name);
            for operation in &kind.operations {
                let recovery = self.args.recovery;
                self.tell(&shown, &full_name(operation), || {
                    run(&kind, operation, recovery)
                })?;
            }
            for name in handover::OPERATIONS.iter().filter(|_| !kind.variant) {
                let title = format!("handover: {name}");
                self.tell(&shown, &title, || {
                    handover::run(&kind, name).map(Figures::of)
                })?;
            }
        }
        queue::all(self)?;
        topic::all(self)?;
        if self.args.wants("names") {
            for name in names::OPERATIONS {
                self.tell("names", name, || names::run(name).map(Figures::of))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn tell(
        &mut self,
        kind: &str,
        name: &str,
        work: impl FnOnce() -> Result<Figures, String>,
    ) -> ControlFlow<()> {
        if !name.contains(&self.args.only) {
            return ControlFlow::Continue(());
        }
        match work() {
            Ok(figures) => {
                println!("| {kind} | {name} {figures}");
                self.totals.add(&figures);
            }
            Err(error) => {
                println!("| {kind} | {name} | **failed** | {error} | | |");
                eprintln!("{kind} {name}: {error}");
                self.failed = true;
                if self.args.first {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn full_name(operation: &Operation) -> String {
    let role = operation.role.name();
    let other = match operation.other {
        Other::Awake => "",
        Other::Armed => ", the other asleep",
    };
    let dead = if operation.dead { ", one dead" } else { "" };
    format!("{role}: {}{other}{dead}", operation.name)
}

/// The counts of one operation.
#[derive(Default)]
struct Figures {
    instructions: u64,
    images: u64,
    recovery_instructions: u64,
    recovery_images: u64,
}

impl Figures {
    fn of((instructions, images): (u64, u64)) -> Figures {
        Figures {
            instructions,
            images,
            ..Figures::default()
        }
    }

    fn add(&mut self, other: &Figures) {
        self.instructions += other.instructions;
        self.images += other.images;
        self.recovery_instructions += other.recovery_instructions;
        self.recovery_images += other.recovery_images;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "| {} | {} | {} | {} |",
            self.instructions, self.images, self.recovery_instructions, self.recovery_images
        )
    }
}

fn run(kind: &Kind, operation: &Operation, recovery: bool) -> Result<Figures, String> {
    let mut stage = Stage::set(kind, operation, None, false)?;
    let skew = stage.memory.geometry().skew;
    let (instructions, images) = step(kind, operation, operation, &mut stage)?;
    drop(stage);
    let mut figures = Figures {
        instructions,
        images: images.len() as u64,
        ..Figures::default()
    };
    for (at, image) in &images {
        check::image(kind, operation, skew, check::finished(image), image)
            .map_err(|error| format!("killed after instruction {at}: {error}"))?;
    }
    if recovery {
        let taking = kind
            .operations
            .iter()
            .find(|taking| taking.name == "take" && taking.role == operation.role)
            .ok_or("nobody takes this seat")?;
        let mut seen = Seen::default();
        for (at, image) in &images {
            let finished = check::finished(image);
            let mut stage = Stage::at(kind, operation, skew, image)?;
            let (instructions, images) = step(kind, operation, taking, &mut stage)?;
            drop(stage);
            figures.recovery_instructions += instructions;
            for (within, image) in images {
                if seen.is_new(&image) {
                    figures.recovery_images += 1;
                    check::image(kind, operation, skew, finished, &image).map_err(|error| {
                        format!(
                            "killed after instruction {at}, its successor after {within}: {error}"
                        )
                    })?;
                }
            }
        }
    }
    Ok(figures)
}

/// Steps a victim through `what`, on a stage that was set for `operation`. Returns the number of
/// instructions, and each image that it went through, with the instruction after which it was first
/// seen.
fn step(
    kind: &Kind,
    operation: &Operation,
    what: &Operation,
    stage: &mut Stage,
) -> Result<(u64, Vec<(u64, Image)>), String> {
    let mut victim = stage.victim(kind, operation, what, PARK)?;
    let stepped = step_through(&mut victim, &stage.window)?;
    victim.finish()?;
    Ok(stepped)
}

/// Steps a victim to the end of its operation.
fn step_through(victim: &mut Victim, window: &Window) -> Result<(u64, Vec<(u64, Image)>), String> {
    let (mut seen, mut images, mut instructions) = (Seen::default(), Vec::new(), 0);
    let mut last = window.look();
    seen.is_new(&last);
    images.push((0, last.clone()));
    while victim.step()? {
        instructions += 1;
        if !window.is(&last) {
            last = window.look();
            if seen.is_new(&last) {
                images.push((instructions, last.clone()));
            }
        }
    }
    Ok((instructions, images))
}

/// Runs in the other process: does the operation between two signals, and prints its result.
fn victim(arguments: &[String]) -> Result<(), String> {
    let [kind, index, next, patience, passed] = arguments else {
        return Err("expected five words".into());
    };
    let number = |word: &str| word.parse::<u64>().map_err(|error| error.to_string());
    let kind = kinds::named(kind)?;
    let operation = kind.operations.get(number(index)? as usize);
    let operation = operation.ok_or("no such operation")?;
    let memory = kind.maker.passed(inherited(passed)).map_err(words)?;
    let patience = Duration::from_millis(number(patience)?);
    let before = Held::now()?;
    let done = perform(&kind, &*memory, operation, number(next)?, patience);
    before.is_all()?;
    match done {
        Ok(()) => println!("ok"),
        Err(error) => println!("error {error}"),
    }
    Ok(())
}

/// The resources of a process that it could leak: descriptors, and mappings of channels.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Their numbers, and the names of their files.
    descriptors: BTreeMap<String, String>,
    mappings: usize,
}

impl Held {
    fn now() -> Result<Held, String> {
        let fail = |error: std::io::Error| format!("look at what this process holds: {error}");
        let open = std::fs::read_dir("/proc/self/fd").map_err(fail)?;
        let descriptor = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.ok()?.path();
            let of = std::fs::read_link(&path).ok()?;
            let number = path.file_name()?.to_string_lossy().into_owned();
            let of = of.to_string_lossy().into_owned();
            // This skips the descriptor by which we look.
            (!of.starts_with("/proc/")).then_some((number, of))
        };
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(fail)?;
        let channels = ["memfd:slipring", "/control", "/data"];
        let of_channels = |line: &&str| channels.iter().any(|name| line.contains(name));
        Ok(Held {
            descriptors: open.filter_map(descriptor).collect(),
            mappings: maps.lines().filter(of_channels).count(),
        })
    }

    fn is_all(&self) -> Result<(), String> {
        let mut now = Held::now()?;
        if helper() {
            // The process keeps its helper thread's descriptors, which it has since this operation
            // at the earliest.
            for of in ["anon_inode:[eventpoll]", "anon_inode:[timerfd]"] {
                let new = |(number, what): &(&String, &String)| {
                    *what == of && !self.descriptors.contains_key(*number)
                };
                let first = now.descriptors.iter().find(new);
                if let Some(number) = first.map(|(number, _)| number.clone()) {
                    now.descriptors.remove(&number);
                }
            }
        }
        match now == *self {
            true => Ok(()),
            false => Err(format!("leaked: {now:?}, before {self:?}")),
        }
    }
}

/// Returns `true` if this process has the library's helper thread: it starts no other.
fn helper() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1)
}

/// Does the operation; afterwards drops the handle.
fn perform(
    kind: &Kind,
    memory: &dyn Memory,
    operation: &Operation,
    next: u64,
    patience: Duration,
) -> Result<(), String> {
    match (operation.role, operation.name) {
        (_, "attach") => {
            let passed = copies(memory)?;
            trace::begin();
            let attached = kind.maker.passed(passed).map(drop);
            trace::end();
            attached.map_err(words)
        }
        (Role::Producer, "take") => {
            trace::begin();
            let taken = memory.producer();
            trace::end();
            taken.map(|tx| tx.abort()).map_err(words)
        }
        (Role::Consumer, "take") => take(memory),
        (Role::Consumer, name) if name.starts_with("join") => {
            let joining = kind.joining(name).passed(copies(memory)?);
            take(&*joining.map_err(words)?)
        }
        (Role::Producer, name) => {
            let mut tx = producer(memory)?;
            trace::begin();
            match name {
                "leave" => drop(tx),
                "abort" => tx.abort(),
                name => {
                    let done = produce(kind, &mut *tx, name, next, patience);
                    trace::end();
                    tx.abort();
                    return done;
                }
            }
            trace::end();
            Ok(())
        }
        (Role::Consumer, name) => {
            let mut rx = consumer(memory)?;
            kind.begin_at(&mut *rx, operation.passed)?;
            trace::begin();
            match name {
                "leave" => drop(rx),
                "abort" => rx.abort(),
                name => {
                    let done = consume(kind, &mut *rx, name, operation.passed, patience);
                    trace::end();
                    rx.abort();
                    return done;
                }
            }
            trace::end();
            Ok(())
        }
    }
}

/// Takes a consumer's seat.
fn take(memory: &dyn Memory) -> Result<(), String> {
    trace::begin();
    let taken = memory.consumer();
    trace::end();
    taken.map(|rx| rx.abort()).map_err(words)
}

/// Duplicates the channel's descriptors.
fn copies(memory: &dyn Memory) -> Result<Vec<OwnedFd>, String> {
    hostile::copies(&memory.descriptors())
}

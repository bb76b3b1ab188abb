//! Kills a process while it makes, opens or removes a named channel. In the directory that it
//! leaves, everybody else finds a whole channel or none, and no file stays for ever.
//!
//! The victim works in a directory of its own. After each of its instructions the tree is compared
//! with its previous state. Each new state is copied (as the kernel leaves it: without the dead
//! process's locks), and another process examines it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use slipring::{bytes, inspect, spsc};

use crate::Held;
use crate::trace::{self, Inject, Victim};

/// The operations on names; `tear` begins with a channel that exists, and so do `open` and `again`.
pub(crate) const OPERATIONS: [&str; 5] = ["create", "open", "producer", "again", "tear"];

const NAME: &str = "market/ticks";

fn builder() -> spsc::Builder<u64> {
    spsc::Builder::new(8)
}

/// Runs in the victim, whose `SLIPRING_DIR` is the stage.
pub(crate) fn victim(name: &str) -> Result<(), String> {
    let before = Held::now()?;
    trace::begin();
    let done = match name {
        "create" => builder().create(NAME).map(drop),
        "open" => builder().open(NAME).map(drop),
        "producer" | "again" => builder().producer(NAME).map(drop),
        _ => inspect::remove(NAME),
    };
    trace::end();
    before.is_all()?;
    match done {
        Ok(()) => println!("ok"),
        Err(error) => println!("error {error}"),
    }
    Ok(())
}

/// Returns a call's error in words.
fn about<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Runs in the examiner, whose `SLIPRING_DIR` is a copy of the directory that the victim left.
pub(crate) fn examine() -> Result<(), String> {
    // A channel that is there has a name, and works.
    for name in inspect::list().map_err(about("list"))? {
        inspect::stat(&name.to_string()).map_err(about("stat"))?;
    }
    // The next process finds a channel, or makes it.
    let mut tx = builder()
        .producer(NAME)
        .map_err(about("the next producer"))?;
    let mut rx = builder()
        .consumer(NAME)
        .map_err(about("the next consumer"))?;
    for number in 0..20 {
        tx.push(number).map_err(|error| error.to_string())?;
        if rx.pop().map_err(about("pop"))? != number {
            return Err("another message than was sent".into());
        }
    }
    drop((tx, rx));
    inspect::remove(NAME).map_err(about("remove"))?;
    // A creator sweeps the files that killed processes left, there and in the domain.
    for name in ["other", "market/other"] {
        bytes::Builder::new(64)
            .create(name)
            .map_err(about("create another"))?;
        inspect::remove(name).map_err(about("remove another"))?;
    }
    let base = std::env::var_os("SLIPRING_DIR").ok_or("no SLIPRING_DIR")?;
    let left = tree(Path::new(&base))?;
    match left.as_slice() {
        [] => Ok(()),
        left => Err(format!(
            "left for ever: {:?}",
            left.iter().map(|e| &e.path).collect::<Vec<_>>()
        )),
    }
}

/// Returns a directory, and the process that is about to do the operation there.
fn stage(name: &str) -> Result<(Room, Victim), String> {
    let stage = Room::new()?;
    if ["open", "again", "tear"].contains(&name) {
        // Another process makes the channel, because it has this `SLIPRING_DIR`.
        child(&stage.0, &["make"])?;
    }
    let victim = Victim::start_in(&stage.0, &["names".into(), name.into()], &[])?;
    Ok((stage, victim))
}

/// Makes system call number `at` of an operation fail, checks its directory, and returns the
/// victim's message. Returns `None` if there is no such call.
pub(crate) fn inject(
    name: &str,
    at: u64,
    errno: i32,
    spared: &[i64],
) -> Result<Option<String>, String> {
    let (stage, mut victim) = stage(name)?;
    let Inject::Done(call) = victim.inject(at, errno, spared)? else {
        return Ok(None);
    };
    let about = |error: String| format!("(call {call}) {error}");
    let said = victim.said().map_err(about)?;
    child(&stage.0, &["examine"]).map_err(about)?;
    Ok(Some(said))
}

/// Steps one operation, and returns the numbers of instructions and of states of the directory.
pub(crate) fn run(name: &str) -> Result<(u64, u64), String> {
    let (stage, mut victim) = stage(name)?;
    let (mut instructions, mut states) = (0, 0);
    let (mut last, mut seen) = (Vec::new(), HashSet::new());
    loop {
        let now = tree(&stage.0)?;
        if now != last && seen.insert(format!("{now:?}")) {
            states += 1;
            let copy = Room::new()?;
            copy_tree(&stage.0, &copy.0)?;
            child(&copy.0, &["examine"])
                .map_err(|error| format!("killed after instruction {instructions}: {error}"))?;
        }
        last = now;
        if !victim.step()? {
            break;
        }
        instructions += 1;
    }
    victim.finish()?;
    Ok((instructions, states))
}

/// Runs in a process of its own: makes a channel for the victim to find.
pub(crate) fn make() -> Result<(), String> {
    builder()
        .create(NAME)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn child(dir: &Path, words: &[&str]) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("names").args(words).env("SLIPRING_DIR", dir);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
    }
}

/// A directory on shared memory, removed when dropped.
struct Room(PathBuf);

impl Room {
    fn new() -> Result<Room, String> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = format!("/dev/shm/slipring-stepper-{}-{number}", std::process::id());
        fs::create_dir(&path).map_err(|error| format!("make {path}: {error}"))?;
        Ok(Room(path.into()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The content of a directory at one path. Files have their bytes: a channel's are small.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    inode: u64,
    mode: u32,
    bytes: Vec<u8>,
}

fn tree(base: &Path) -> Result<Vec<Entry>, String> {
    let (mut entries, mut dirs) = (Vec::new(), vec![base.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        let listed = fs::read_dir(&dir).map_err(|error| error.to_string())?;
        for path in listed.filter_map(|entry| Some(entry.ok()?.path())) {
            let meta = fs::symlink_metadata(&path).map_err(|error| error.to_string())?;
            let bytes = match meta.is_file() {
                true => fs::read(&path).map_err(|error| error.to_string())?,
                false => Vec::new(),
            };
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            entries.push(Entry {
                path: path.strip_prefix(base).unwrap_or(&path).to_path_buf(),
                inode: meta.ino(),
                mode: meta.mode(),
                bytes,
            });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("copy the stage: {error}");
    for entry in tree(from)? {
        let (source, copy) = (from.join(&entry.path), to.join(&entry.path));
        let kind = fs::symlink_metadata(&source).map_err(fail)?.file_type();
        if kind.is_dir() {
            fs::create_dir(&copy).map_err(fail)?;
        } else if kind.is_fifo() {
            let mode = rustix::fs::Mode::from_raw_mode(entry.mode);
            rustix::fs::mkfifoat(rustix::fs::CWD, &copy, mode)
                .map_err(|errno| fail(errno.into()))?;
        } else {
            fs::write(&copy, &entry.bytes).map_err(fail)?;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(entry.mode);
        fs::set_permissions(&copy, mode).map_err(fail)?;
    }
    Ok(())
}

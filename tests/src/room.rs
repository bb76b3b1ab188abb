//! A directory of one test, in shared memory, removed with the test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Peer;

/// The longest time that an expected event may take, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The content of a directory: for each path its inode, its mode, and its bytes if it is a file.
pub struct Contents(BTreeMap<PathBuf, (u64, u32, Vec<u8>)>);

impl Contents {
    /// Returns `true` if this path was there.
    pub fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// Asserts that the room holds this content now, to the byte.
    #[track_caller]
    pub fn are_those_of(&self, room: &Room, what: &str) {
        let now = room.contents();
        let paths = |contents: &Contents| contents.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(self), paths(&now), "{what}");
        for ((path, before), after) in self.0.iter().zip(now.0.values()) {
            let what = format!("{what}: {}", path.display());
            assert_eq!(
                (before.0, before.1),
                (after.0, after.1),
                "{what} is another file"
            );
            assert_eq!(before.2.len(), after.2.len(), "{what} was resized");
            let differs = before.2.iter().zip(&after.2).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{what} was written to");
        }
    }
}

/// The directory of a test: its workers' `SLIPRING_DIR`.
pub struct Room {
    path: PathBuf,
    program: PathBuf,
}

impl Room {
    /// Makes a fresh directory, mode 0755. `program` is the peer's: `env!("CARGO_BIN_EXE_peer")`.
    pub fn new(program: &str) -> Room {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/dev/shm/slipring-test-{}-{number}", std::process::id());
        let path = PathBuf::from(path);
        // A killed test run of the same process id may have left a directory.
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o755).create(&path).unwrap();
        Room {
            path,
            program: program.into(),
        }
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a channel's file in it.
    pub fn file(&self, channel: &str, part: &str) -> PathBuf {
        self.path.join(channel).join(part)
    }

    /// Starts a worker.
    pub fn peer(&self) -> Peer {
        Peer::start(&self.program, &self.path, &[])
    }

    /// Starts a worker that inherits these descriptors, under the same numbers.
    pub fn peer_with(&self, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> Peer {
        Peer::start(&self.program, &self.path, descriptors)
    }

    /// Returns the names in the directory, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap();
        let mut names = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        names
    }

    /// Returns everything in the directory, to be compared with later content.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents(BTreeMap::new());
        collect(&self.path, &mut contents);
        contents
    }
}

fn collect(dir: &Path, contents: &mut Contents) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let bytes = if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            collect(&path, contents);
        }
        contents.0.insert(path, (meta.ino(), meta.mode(), bytes));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Checks again until the condition is true, for at most a minute.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::yield_now();
    }
}

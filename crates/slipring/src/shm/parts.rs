//! The entries of a directory that belong to a channel. They are checked before anything is
//! removed. A directory that merely lies among channels, or that holds any other file, is left as
//! it is.
//!
//! | entry | must be |
//! |---|---|
//! | `control` | a regular file |
//! | `data` | a regular file, or a symbolic link to a file with a name of our huge page files |
//! | `pipe-0` .. `pipe-125` | a FIFO |
//!
//! Names alone prove nothing for a directory whose own name we did not make: `control` and `data`
//! are common words. There, a magic number identifies a channel; a channel that has lost it is
//! identified by its FIFOs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use slipring_core::layout::MAGIC;

use super::names::{CONTROL, DATA, HUGE, is_temporary};
use super::{huge, pipes};

/// All entries of a channel's directory.
#[derive(Default)]
pub(super) struct Parts {
    control: bool,
    data: bool,
    /// The target of `data`, if it is a link.
    huge: Option<PathBuf>,
    pipes: Vec<usize>,
}

/// The reason why a directory is not a channel's, or not known to be.
pub(super) enum Foreign {
    /// It contains this foreign entry, in words.
    Holds(String),
    /// It could not be listed.
    Unknown(Errno),
}

impl From<Errno> for Foreign {
    fn from(errno: Errno) -> Foreign {
        Foreign::Unknown(errno)
    }
}

impl Parts {
    /// Returns the parts in this directory, which must hold nothing else.
    pub(super) fn of(dir: &OwnedFd) -> Result<Parts, Foreign> {
        let mut parts = Parts::default();
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            let name = name.to_string_lossy();
            match (name.as_ref(), kind) {
                (CONTROL, FileType::RegularFile) => parts.control = true,
                (DATA, FileType::RegularFile) => parts.data = true,
                (DATA, FileType::Symlink) => match huge_target(dir)? {
                    Some(target) => (parts.data, parts.huge) = (true, Some(target)),
                    None => return Err(Foreign::Holds(found(&name, kind))),
                },
                (name, FileType::Fifo) if pipes::seat_of(name).is_some() => {
                    parts.pipes.extend(pipes::seat_of(name));
                }
                (name, kind) => return Err(Foreign::Holds(found(name, kind))),
            }
        }
        Ok(parts)
    }

    /// Like [`of`](Self::of), for a directory whose name proves nothing: its contents must prove
    /// that it is a channel.
    pub(super) fn of_channel(dir: &OwnedFd) -> Result<Parts, Foreign> {
        let parts = Parts::of(dir)?;
        let ours = !parts.pipes.is_empty() || parts.control && begins_with_magic(dir)?;
        let found = match parts.control || parts.data {
            _ if ours => return Ok(parts),
            true => "files that have the names of a channel's, and not its contents",
            false => "nothing at all",
        };
        Err(Foreign::Holds(found.into()))
    }

    /// Removes the parts. Best effort: the later removal of the directory fails if any part is
    /// left.
    pub(super) fn remove(&self, dir: &OwnedFd) {
        if let Some(target) = &self.huge {
            remove_huge(dir, target);
        }
        let unlink = |name: &str| {
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        };
        if self.data {
            unlink(DATA);
        }
        self.pipes
            .iter()
            .for_each(|seat| unlink(&pipes::name(*seat)));
        // Last: the magic number in it identifies the channel.
        if self.control {
            unlink(CONTROL);
        }
    }
}

/// Describes an entry in words, made printable.
fn found(name: &str, kind: FileType) -> String {
    let kind = match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something",
    };
    format!("{kind} `{}`", name.escape_debug())
}

fn begins_with_magic(dir: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let control = rustix::fs::openat(dir, CONTROL, flags, Mode::empty())?;
    let mut word = [0; 8];
    let count = rustix::io::pread(&control, &mut word, 0)?;
    Ok(count == word.len() && u64::from_le_bytes(word) == MAGIC)
}

/// Returns the target of the link `data`, if it has a name of our huge page files.
fn huge_target(dir: &OwnedFd) -> Result<Option<PathBuf>, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let target = rustix::fs::readlinkat(dir, DATA, Vec::new())?;
    let target = Path::new(std::ffi::OsStr::from_bytes(target.to_bytes()));
    let name = target.file_name().and_then(|name| name.to_str());
    let ours = target.is_absolute() && name.is_some_and(|name| is_temporary(name, HUGE));
    Ok(ours.then(|| target.to_path_buf()))
}

/// Removes the huge page file, if it is one and belongs to the owner of the channel's directory.
fn remove_huge(dir: &OwnedFd, target: &Path) {
    let huge =
        rustix::fs::statfs(target).is_ok_and(|stat| stat.f_type as u64 == huge::HUGETLBFS_MAGIC);
    let owner = |stat: Result<rustix::fs::Stat, Errno>| stat.map(|stat| stat.st_uid).ok();
    if huge && owner(rustix::fs::lstat(target)) == owner(rustix::fs::fstat(dir.as_fd())) {
        let _ = rustix::fs::unlink(target);
    }
}

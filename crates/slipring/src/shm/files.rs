//! The directories and files of named channels: how each is made, opened and mapped, and which
//! files are refused as not ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::huge;
use super::map::Mapping;
use super::names::{BUILDING, CONTROL, DATA, HUGE, temporary};
use super::space::{Fill, Refused, made};
use crate::error::Error;
use crate::name::{Name, directory};
use crate::pages::HugePages;
use crate::setup_error::{SetupError, path};

/// The place of a named channel in the file system.
pub(crate) struct Place {
    pub(crate) name: Name,
    /// The channel's directory.
    pub(super) dir: OwnedFd,
    /// The directory that holds it, the base or a domain: device and inode. It is found again by
    /// `..`, so that no handle keeps a descriptor of it.
    parent: (u64, u64),
    /// The path of the control file, as it was when the channel was opened.
    control: PathBuf,
}

impl Place {
    /// Returns the place of the channel in directory `dir`, which lies in `parent`.
    pub(super) fn new(name: &Name, dir: OwnedFd, parent: &OwnedFd) -> Result<Place, SetupError> {
        let stat = rustix::fs::fstat(parent)
            .map_err(|errno| SetupError::os("look at the channels' directory", errno))?;
        let control = shown(name).join(CONTROL);
        Ok(Place {
            name: name.clone(),
            dir,
            parent: (stat.st_dev, stat.st_ino),
            // The process may change its directory, or SLIPRING_DIR.
            control: std::path::absolute(&control).unwrap_or(control),
        })
    }

    /// Opens the directory that holds the channel; returns `NotFound` if the channel was moved out
    /// of it.
    pub(super) fn parent(&self) -> Result<OwnedFd, SetupError> {
        let parent = open_at(&self.dir, "..")
            .map_err(|errno| SetupError::os("open the channels' directory", errno))?;
        match rustix::fs::fstat(&parent) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == self.parent => Ok(parent),
            _ => Err(self.name.not_found()),
        }
    }

    /// Returns the path of the channel's directory, for error messages.
    pub(super) fn shown(&self) -> PathBuf {
        shown(&self.name)
    }

    /// Checks that the name still leads to this control file. Returns `Removed` if there is none,
    /// and `Replaced` if there is another. Two system calls if all is well. If the check itself
    /// fails, the channel counts as still there.
    pub(crate) fn check(&self, control: &OwnedFd) -> Result<(), Error> {
        let Ok(ours) = rustix::fs::fstat(control) else {
            return Ok(());
        };
        let by_path = rustix::fs::lstat(&self.control);
        if by_path.as_ref().is_ok_and(|there| same_file(there, &ours)) {
            return Ok(());
        }
        // The path may mean something else in this process by now (`chroot`); the directory stays
        // the same.
        let below = format!("{}/{CONTROL}", self.name.topic());
        let by_directory = self.beside(&below);
        // STALE: NFS returns it for a file that another machine removed.
        let nothing = |errno: &Errno| matches!(*errno, Errno::NOENT | Errno::NOTDIR | Errno::STALE);
        match (by_path, by_directory) {
            // Moved as a whole; no process has made another one yet.
            (Err(_), Ok(there)) if same_file(&there, &ours) => Ok(()),
            (Ok(_), _) | (_, Ok(_)) => Err(Error::Replaced),
            (Err(one), Err(other)) if nothing(&one) && nothing(&other) => Err(Error::Removed),
            _ => Ok(()),
        }
    }

    /// Opens a description of our own of the control file.
    pub(crate) fn fresh(&self) -> Result<OwnedFd, SetupError> {
        open_part(self.dir.as_fd(), CONTROL, &self.name, OFlags::RDWR)
    }

    /// Returns `true` if the name still leads to this directory. Another process may have removed
    /// and remade it since we opened it.
    pub(crate) fn still(&self) -> bool {
        match (self.beside(self.name.topic()), rustix::fs::fstat(&self.dir)) {
            (Ok(there), Ok(ours)) => same_file(&there, &ours),
            _ => false,
        }
    }

    /// Queries a path in the directory that holds the channel; returns `NOENT` if the channel was
    /// moved out of it. Uses paths alone, so that it needs no free descriptor.
    fn beside(&self, path: &str) -> Result<Stat, Errno> {
        let parent = rustix::fs::statat(&self.dir, "..", AtFlags::empty())?;
        if (parent.st_dev, parent.st_ino) != self.parent {
            return Err(Errno::NOENT);
        }
        rustix::fs::statat(&self.dir, format!("../{path}"), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Returns `true` if the name leads here, and the control file is still this one, whose locks
    /// we know.
    pub(crate) fn still_has(&self, control: &OwnedFd) -> bool {
        self.still() && leads_to(&self.dir, CONTROL, control)
    }
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev && a.st_ino == b.st_ino
}

pub(super) fn shown(name: &Name) -> PathBuf {
    let base = directory().0;
    let dir = name
        .domain_dir()
        .map_or(base.clone(), |domain| base.join(domain));
    dir.join(name.topic())
}

/// Opens the base directory. Makes the default one if it is missing, and checks it for safety.
pub(crate) fn base(make: bool) -> Result<OwnedFd, SetupError> {
    let (dir, default) = directory();
    if default && make {
        match rustix::fs::mkdir(&dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                let what = format_args!("make the directory {}", dir.display());
                return Err(SetupError::directory(what, errno));
            }
        }
    }
    let follow = if default {
        OFlags::NOFOLLOW
    } else {
        OFlags::empty()
    };
    let open = |how| {
        let flags = how | follow | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&dir, flags, Mode::empty())
    };
    let refuse = |errno| match errno {
        Errno::NOENT => SetupError::NoDirectory { dir: path(&dir) },
        // Something else has the name. If nothing has, /dev/shm is not a directory.
        Errno::NOTDIR | Errno::LOOP if default && rustix::fs::lstat(&dir).is_ok() => {
            unsafe_directory(&dir, "it is no directory".into())
        }
        errno => {
            let what = format_args!("open the directory {}", dir.display());
            SetupError::directory(what, errno)
        }
    };
    let fd = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) if default => {
            let unread = open(OFlags::PATH).map_err(refuse)?;
            owned_and_usable(&unread, &dir, make)?;
            open(OFlags::RDONLY)
        }
        opened => opened,
    };
    let fd = fd.map_err(refuse)?;
    if default {
        owned_and_usable(&fd, &dir, make)?;
    }
    Ok(fd)
}

fn unsafe_directory(dir: &Path, found: String) -> SetupError {
    SetupError::UnsafeDirectory {
        dir: path(dir),
        found: found.into(),
    }
}

/// Refuses a default directory that is not the user's own, or that others may write to. If an
/// earlier run's umask took away the user's own rights, restores them.
fn owned_and_usable(fd: &OwnedFd, dir: &Path, make: bool) -> Result<(), SetupError> {
    let stat =
        rustix::fs::fstat(fd).map_err(|errno| SetupError::os("look at the directory", errno))?;
    let mode = stat.st_mode & 0o777;
    if stat.st_uid != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        let found = format!("it belongs to user {} and has mode {mode:04o}", stat.st_uid);
        return Err(unsafe_directory(dir, found));
    }
    let needed = if make { 0o700 } else { 0o500 };
    if mode & needed == needed {
        return Ok(());
    }
    // It is ours, under our name for it, and has fewer rights than `mkdir` asked for: so a umask
    // did it.
    let mended = mode & 0o077 == 0 && set_mode(fd, 0o700).is_ok();
    if mended {
        return Ok(());
    }
    let found = format!("it has mode {mode:04o}, which keeps you out (`chmod 700` it)");
    Err(unsafe_directory(dir, found))
}

/// Runs `fchmod`, even for a descriptor that was opened without the right to read.
fn set_mode(fd: &OwnedFd, mode: u32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::fchmod(fd, mode) {
        Err(Errno::BADF) => {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::chmod(path, mode)
        }
        changed => changed,
    }
}

/// Opens the directory that holds the channel. With a mode, makes a missing domain first.
pub(super) fn parent_of(name: &Name, make: Option<u32>) -> Result<OwnedFd, SetupError> {
    let base = match base(make.is_some()) {
        Err(SetupError::NoDirectory { .. }) if make.is_none() && directory().1 => {
            return Err(name.not_found());
        }
        base => base?,
    };
    let Some(domain) = name.domain_dir() else {
        return Ok(base);
    };
    loop {
        if let Some(mode) = make {
            make_domain(&base, &domain, mode)?;
        }
        return match open_at(&base, &domain) {
            // Its last channel was removed, and the domain with it.
            Err(Errno::NOENT) if make.is_some() => continue,
            Err(Errno::NOENT) => Err(name.not_found()),
            Err(errno) => Err(SetupError::os(
                format_args!("open the domain {domain}"),
                errno,
            )),
            Ok(dir) => Ok(dir),
        };
    }
}

/// Removes the directory of the channel's domain if it is empty and this user's own. Best effort.
///
/// The owner can make the same directory again. Another user, such as an administrator, may have
/// given it rights that this user could not give it.
pub(super) fn remove_empty_domain(name: &Name, parent: &OwnedFd) {
    let own = |stat: Stat| stat.st_uid == rustix::process::geteuid().as_raw();
    if let Some(domain) = name.domain_dir()
        && rustix::fs::fstat(parent).is_ok_and(own)
    {
        let path = format!("../{domain}");
        let _ = rustix::fs::unlinkat(parent, path, AtFlags::REMOVEDIR);
    }
}

/// Returns `true` if this directory was removed after it was opened.
pub(super) fn is_removed(dir: &OwnedFd) -> bool {
    rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_nlink == 0)
}

/// Makes the directory of a domain, as open to others as files of this mode are. It appears with
/// that mode.
fn make_domain(base: &OwnedFd, domain: &str, mode: u32) -> Result<(), SetupError> {
    while !exists(base, domain) {
        let Some(fresh) = FreshDir::make(base)? else {
            continue;
        };
        let named = open_to(&fresh.dir, mode).and_then(|()| {
            let noreplace = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(base, &fresh.name, base, domain, noreplace)
        });
        if let Err(errno) = named {
            let _ = rustix::fs::unlinkat(base, &fresh.name, AtFlags::REMOVEDIR);
            if errno != Errno::EXIST {
                return Err(SetupError::named(
                    format_args!("make the domain {domain}"),
                    errno,
                ));
            }
        }
    }
    Ok(())
}

/// A new directory under a temporary name, accessible to this user alone, whatever the umask. It is
/// locked, so that no creator sweeps it.
pub(super) struct FreshDir {
    pub(super) name: String,
    pub(super) dir: OwnedFd,
}

impl FreshDir {
    /// Makes one in `parent`; returns `None` if another creator swept it in the instant before it
    /// was locked.
    pub(super) fn make(parent: &OwnedFd) -> Result<Option<FreshDir>, SetupError> {
        let name = temporary(BUILDING);
        rustix::fs::mkdirat(parent, &name, Mode::RWXU).map_err(|errno| {
            let base = directory().0;
            let what = format!("make the directory {name} in {}", base.display());
            match errno {
                Errno::NOSPC => SetupError::space("a directory for the channel", 0, errno),
                // NOENT: the directory was removed, or takes none, as /proc.
                Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOENT => {
                    SetupError::directory(what, errno)
                }
                errno => SetupError::os(what, errno),
            }
        })?;
        // Retry only after a sweeper's actions: any other failure would repeat for ever.
        let fail = |errno| {
            let _ = rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR);
            SetupError::os("open and lock the channel's new directory", errno)
        };
        let dir = match open_own(parent, &name) {
            Err(Errno::NOENT) => return Ok(None),
            dir => dir.map_err(fail)?,
        };
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked.map_err(fail)?,
        }
        let there = leads_to(parent, &name, &dir);
        Ok(there.then_some(FreshDir { name, dir }))
    }
}

/// Opens a directory that this process has just made, to which the umask may have left it no right.
fn open_own(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match open_at(parent, name) {
        Err(Errno::ACCESS) => rustix::fs::openat(parent, name, flags, Mode::empty())?,
        dir => dir?,
    };
    let stat = rustix::fs::fstat(&dir)?;
    if stat.st_mode & 0o700 == 0o700 {
        return Ok(dir);
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::ACCESS);
    }
    set_mode(&dir, stat.st_mode & 0o2000 | 0o700)?;
    open_at(parent, name)
}

/// Opens a new directory to the users who may read or write files of this mode. It keeps the setgid
/// bit, by which the files in it belong to its group.
pub(super) fn open_to(dir: &OwnedFd, mode: u32) -> Result<(), Errno> {
    let found = rustix::fs::fstat(dir)?.st_mode & 0o7777;
    // A user who may read a part may list the directory. The umask does not apply to the caller's
    // choice.
    let wanted = found & 0o2000 | (mode & 0o444) >> 2 | mode | 0o700;
    if found == wanted {
        return Ok(());
    }
    set_mode(dir, wanted)
}

pub(super) fn open_at(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

pub(super) fn open_dir(parent: &OwnedFd, name: &Name) -> Result<OwnedFd, SetupError> {
    open_at(parent, name.topic()).map_err(|errno| match errno {
        Errno::NOENT => name.not_found(),
        Errno::NOTDIR | Errno::LOOP => SetupError::NotAChannel {
            what: shown(name).display().to_string().into(),
            found: None,
        },
        errno => SetupError::os(format_args!("open {}", shown(name).display()), errno),
    })
}

/// Opens the channel's directory, and calls `look` on it. Repeats both if the directory was removed
/// (and perhaps remade) meanwhile: an error then is about files that the name no longer leads to.
pub(super) fn look_in<R>(
    parent: &OwnedFd,
    name: &Name,
    look: impl Fn(&OwnedFd) -> Result<R, SetupError>,
) -> Result<(OwnedFd, R), SetupError> {
    loop {
        let dir = open_dir(parent, name)?;
        match look(&dir) {
            Err(_) if !leads_to(parent, name.topic(), &dir) => {}
            looked => return looked.map(|found| (dir, found)),
        }
    }
}

/// Returns `true` if the name in `parent` still leads to this directory or file.
pub(super) fn leads_to(parent: &OwnedFd, name: &str, file: &OwnedFd) -> bool {
    let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    match (there, rustix::fs::fstat(file)) {
        (Ok(there), Ok(ours)) => same_file(&there, &ours),
        _ => false,
    }
}

pub(super) fn exists(parent: &OwnedFd, topic: &str) -> bool {
    rustix::fs::statat(parent, topic, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Describes a file to be made, for error messages.
pub(super) fn part_in_words(part: &str) -> String {
    format!("the channel's {part} file in {}", directory().0.display())
}

pub(super) fn create_part(
    dir: &OwnedFd,
    part: &str,
    len: usize,
    mode: u32,
    fill: Fill,
) -> Result<(OwnedFd, Mapping), SetupError> {
    let what = || part_in_words(part);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, part, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| SetupError::space(what(), len as u64, errno))?;
    let mapping = made(&file, len, fill).map_err(|refused| refused.error(what(), len))?;
    // Set the mode explicitly: the umask does not apply to the caller's choice.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o666))
        .map_err(|errno| SetupError::os(what(), errno))?;
    Ok((file, mapping))
}

/// Makes the data part in a hugetlbfs, with a symbolic link to it in the channel's directory.
///
/// The link comes first: a sweeper can then find what a killed creator leaves.
pub(super) fn create_huge(
    dir: &OwnedFd,
    size: HugePages,
    needed: usize,
    mode: u32,
    fill: Fill,
) -> Result<(OwnedFd, Mapping), SetupError> {
    let Some(mount) = huge::mount(size) else {
        return Err(SetupError::NotMounted { size });
    };
    let target = mount.join(temporary(HUGE));
    let fail = |refused: Refused| refused.error(target.display(), needed);
    rustix::fs::symlinkat(&target, dir, DATA).map_err(|errno| fail(errno.into()))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let unlink_data = || rustix::fs::unlinkat(dir, DATA, AtFlags::empty());
    let file = rustix::fs::open(&target, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
        // The existing file is not ours.
        let _ = unlink_data();
        fail(errno.into())
    })?;
    let made = made(&file, size.round(needed), fill).and_then(|mapping| {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o666))?;
        Ok(mapping)
    });
    match made {
        Ok(mapping) => Ok((file, mapping)),
        Err(refused) => {
            let _ = rustix::fs::unlink(&target);
            let _ = unlink_data();
            Err(fail(refused))
        }
    }
}

/// Opens one file of a channel, which must be a regular one, of at least a header's length.
pub(super) fn open_part(
    dir: BorrowedFd<'_>,
    part: &'static str,
    name: &Name,
    access: OFlags,
) -> Result<OwnedFd, SetupError> {
    let shown = || shown(name).join(part);
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(dir, part, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::LOOP | Errno::ISDIR => SetupError::NotAChannel {
                what: shown().display().to_string().into(),
                found: None,
            },
            errno => SetupError::named(format_args!("open {}", shown().display()), errno),
        })?;
    regular(&file, part, name)?;
    Ok(file)
}

fn regular(file: &OwnedFd, part: &'static str, name: &Name) -> Result<(), SetupError> {
    let what = || shown(name).join(part).display().to_string();
    let stat = rustix::fs::fstat(file)
        .map_err(|errno| SetupError::os(format_args!("look at {}", what()), errno))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(SetupError::NotAChannel {
            what: what().into(),
            found: None,
        });
    }
    Ok(())
}

/// Opens the data file. If it is a link, it must lead to a hugetlbfs file of the same owner.
pub(super) fn open_data(
    dir: &OwnedFd,
    name: &Name,
    control: &OwnedFd,
    access: OFlags,
) -> Result<OwnedFd, SetupError> {
    let Ok(target) = rustix::fs::readlinkat(dir, DATA, Vec::new()) else {
        return open_part(dir.as_fd(), DATA, name, access);
    };
    let what = || format!("open {} (a huge page file)", target.to_string_lossy());
    // Check it before opening it: opening a device may already do something.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&target, flags, Mode::empty())
        .map_err(|errno| SetupError::os(what(), errno))?;
    regular(&file, DATA, name)?;
    let kind = rustix::fs::fstatfs(&file).map_or(0, |stat| stat.f_type as u64);
    let owner = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| stat.st_uid);
    match (owner(&file), owner(control)) {
        (Ok(a), Ok(b)) if a == b && kind == huge::HUGETLBFS_MAGIC => {
            super::fds::reopened(&file, access)
        }
        _ => Err(SetupError::NotAChannel {
            what: target.to_string_lossy().as_ref().into(),
            found: None,
        }),
    }
}

pub(super) fn entries(dir: &OwnedFd) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else {
        return Vec::new();
    };
    let name = |entry: rustix::fs::DirEntry| entry.file_name().to_str().ok().map(str::to_owned);
    entries
        .filter_map(|entry| name(entry.ok()?))
        .filter(|name| name != "." && name != "..")
        .collect()
}

//! The directories and files of named channels: how each is made, opened and mapped, and what is
//! refused as not ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::map::Mapping;
use super::parts::HUGE;
use super::space::{Refused, backed};
use super::{HugePages, huge};
use crate::error::{Error, path};
use crate::name::{Name, directory};

pub(super) const CONTROL: &str = "control";
pub(super) const DATA: &str = "data";

/// The front of the temporary name of a directory that is being made.
pub(super) const BUILDING: &str = ".new-";
/// The same for one that is being removed.
pub(super) const REMOVING: &str = ".old-";

/// Where a named channel lives.
pub(crate) struct Place {
    pub(crate) name: Name,
    /// The channel's directory.
    pub(super) dir: OwnedFd,
    /// The directory that it lies in, the base or a domain: device and inode. It is found again by `..`, so that no
    /// handle keeps a descriptor of it.
    parent: (u64, u64),
    /// The control file by its path, as it was when the channel was opened.
    control: PathBuf,
}

impl Place {
    /// The directory `dir` of the channel, which lies in `parent`.
    pub(super) fn new(name: &Name, dir: OwnedFd, parent: &OwnedFd) -> Result<Place, Error> {
        let stat = rustix::fs::fstat(parent)
            .map_err(|errno| Error::os("look at the channels' directory", errno))?;
        let control = shown(name).join(CONTROL);
        Ok(Place {
            name: name.clone(),
            dir,
            parent: (stat.st_dev, stat.st_ino),
            // The process may change its directory, or SLIPRING_DIR.
            control: std::path::absolute(&control).unwrap_or(control),
        })
    }

    /// The directory that the channel lies in: `NotFound` if the channel was moved out of it.
    pub(super) fn parent(&self) -> Result<OwnedFd, Error> {
        let parent = open_at(&self.dir, "..")
            .map_err(|errno| Error::os("open the channels' directory", errno))?;
        match rustix::fs::fstat(&parent) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == self.parent => Ok(parent),
            _ => Err(self.name.not_found()),
        }
    }

    /// The channel's directory, for messages.
    pub(super) fn shown(&self) -> PathBuf {
        shown(&self.name)
    }

    /// Asks whether somebody who opens the name finds this control file: `NotFound` if there is none, `Replaced`
    /// if there is another. Two system calls if all is well. What cannot be asked counts as still there.
    pub(crate) fn check(&self, control: &OwnedFd) -> Result<(), Error> {
        let Ok(ours) = rustix::fs::fstat(control) else {
            return Ok(());
        };
        let by_path = rustix::fs::lstat(&self.control);
        if by_path.as_ref().is_ok_and(|there| same_file(there, &ours)) {
            return Ok(());
        }
        // The path may mean something else in this process by now (`chroot`); the directory stays what it was.
        let below = format!("{}/{CONTROL}", self.name.topic());
        let by_directory = self.beside(&below);
        // Above the file, the channel's directory, and the domain's.
        let above = 2 + usize::from(self.name.domain().is_some());
        let base = self.control.ancestors().nth(above);
        let dir = path(base.unwrap_or(&self.control));
        let name = self.name.to_string().into();
        // (STALE: of NFS, for what another machine removed.)
        let nothing = |errno: &Errno| matches!(*errno, Errno::NOENT | Errno::NOTDIR | Errno::STALE);
        match (by_path, by_directory) {
            // Moved as a whole; nobody has made another one yet.
            (Err(_), Ok(there)) if same_file(&there, &ours) => Ok(()),
            (Ok(_), _) | (_, Ok(_)) => Err(Error::Replaced { name, dir }),
            (Err(one), Err(other)) if nothing(&one) && nothing(&other) => {
                Err(Error::NotFound { name, dir })
            }
            _ => Ok(()),
        }
    }

    /// A description of the control file of our own.
    pub(crate) fn fresh(&self) -> Result<OwnedFd, Error> {
        open_part(self.dir.as_fd(), CONTROL, &self.name, OFlags::RDWR)
    }

    /// Whether the name still leads to this directory: it may have been removed and remade
    /// since we opened it.
    pub(crate) fn still(&self) -> bool {
        match (self.beside(self.name.topic()), rustix::fs::fstat(&self.dir)) {
            (Ok(there), Ok(ours)) => same_file(&there, &ours),
            _ => false,
        }
    }

    /// Looks at a path in the directory that the channel lies in: `NOENT` if the channel was moved out of it. By
    /// paths alone, so that it needs no free descriptor.
    fn beside(&self, path: &str) -> Result<Stat, Errno> {
        let parent = rustix::fs::statat(&self.dir, "..", AtFlags::empty())?;
        if (parent.st_dev, parent.st_ino) != self.parent {
            return Err(Errno::NOENT);
        }
        rustix::fs::statat(&self.dir, format!("../{path}"), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// And whether the control file there is still this one, whose locks we know.
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

/// The base directory, made if it is the default one and missing, and checked if it is the default.
pub(crate) fn base(make: bool) -> Result<OwnedFd, Error> {
    let (dir, default) = directory();
    if default && make {
        match rustix::fs::mkdir(&dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                let what = format_args!("make the directory {}", dir.display());
                return Err(Error::directory(what, errno));
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
        Errno::NOENT => Error::NoDirectory { dir: path(&dir) },
        // Something else has the name. (If nothing has, /dev/shm is no directory.)
        Errno::NOTDIR | Errno::LOOP if default && rustix::fs::lstat(&dir).is_ok() => {
            unsafe_directory(&dir, "it is no directory".into())
        }
        errno => {
            let what = format_args!("open the directory {}", dir.display());
            Error::directory(what, errno)
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

fn unsafe_directory(dir: &Path, found: String) -> Error {
    Error::UnsafeDirectory {
        dir: path(dir),
        found: found.into(),
    }
}

/// Refuses a default directory that is not the user's own, or that others may write to. One that an earlier
/// run made under a umask that took its own rights away gets them back.
fn owned_and_usable(fd: &OwnedFd, dir: &Path, make: bool) -> Result<(), Error> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| Error::os("look at the directory", errno))?;
    let mode = stat.st_mode & 0o777;
    if stat.st_uid != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        let found = format!("it belongs to user {} and has mode {mode:04o}", stat.st_uid);
        return Err(unsafe_directory(dir, found));
    }
    let needed = if make { 0o700 } else { 0o500 };
    if mode & needed == needed {
        return Ok(());
    }
    // Ours, under our name for it, and with fewer rights than `mkdir` asked for: so a umask did it.
    let mended = mode & 0o077 == 0 && set_mode(fd, 0o700).is_ok();
    if mended {
        return Ok(());
    }
    let found = format!("it has mode {mode:04o}, which keeps you out (`chmod 700` it)");
    Err(unsafe_directory(dir, found))
}

/// `fchmod`, also for a descriptor that was opened without the right to read.
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

/// The directory that holds (or, with a mode, shall hold) the channel.
pub(super) fn parent_of(name: &Name, make: Option<u32>) -> Result<OwnedFd, Error> {
    let base = match base(make.is_some()) {
        Err(Error::NoDirectory { .. }) if make.is_none() && directory().1 => {
            return Err(name.not_found());
        }
        base => base?,
    };
    let Some(domain) = name.domain_dir() else {
        return Ok(base);
    };
    if let Some(mode) = make {
        make_domain(&base, &domain, mode)?;
    }
    open_at(&base, &domain).map_err(|errno| match errno {
        Errno::NOENT => name.not_found(),
        errno => Error::os(format_args!("open the domain {domain}"), errno),
    })
}

/// The directory of a domain, as open to others as files of this mode are. It appears with that mode.
fn make_domain(base: &OwnedFd, domain: &str, mode: u32) -> Result<(), Error> {
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
                return Err(Error::named(
                    format_args!("make the domain {domain}"),
                    errno,
                ));
            }
        }
    }
    Ok(())
}

/// A new directory under a temporary name, the user's alone, whatever the umask. It is locked, so that
/// nobody sweeps it.
pub(super) struct FreshDir {
    pub(super) name: String,
    pub(super) dir: OwnedFd,
}

impl FreshDir {
    /// Makes one in `parent`; `None` if another creator swept it in the instant before it was locked.
    pub(super) fn make(parent: &OwnedFd) -> Result<Option<FreshDir>, Error> {
        let name = temporary(BUILDING);
        rustix::fs::mkdirat(parent, &name, Mode::RWXU).map_err(|errno| {
            let base = directory().0;
            let what = format!("make the directory {name} in {}", base.display());
            match errno {
                Errno::NOSPC => Error::space("a directory for the channel", 0, errno),
                Errno::ACCESS | Errno::PERM | Errno::ROFS => Error::directory(what, errno),
                errno => Error::os(what, errno),
            }
        })?;
        // Only what a sweeper does means "again": anything else would fail for ever.
        let fail = |errno| {
            let _ = rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR);
            Error::os("open and lock the channel's new directory", errno)
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

/// Opens a new directory to those who may read or write files of this mode. It keeps the bit that has the
/// files in it belong to its group.
pub(super) fn open_to(dir: &OwnedFd, mode: u32) -> Result<(), Errno> {
    let found = rustix::fs::fstat(dir)?.st_mode & 0o7777;
    // Who may read a part may list the directory; the umask has no say in what the caller chose.
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

pub(super) fn open_dir(parent: &OwnedFd, name: &Name) -> Result<OwnedFd, Error> {
    open_at(parent, name.topic()).map_err(|errno| match errno {
        Errno::NOENT => name.not_found(),
        Errno::NOTDIR | Errno::LOOP => Error::NotAChannel {
            what: shown(name).display().to_string().into(),
            found: None,
        },
        errno => Error::os(format_args!("open {}", shown(name).display()), errno),
    })
}

/// Opens the channel's directory, and what `look` wants of it. Again, if it was removed (and perhaps
/// remade) while we looked: an error then is about files that the name does not lead to any more.
pub(super) fn look_in<R>(
    parent: &OwnedFd,
    name: &Name,
    look: impl Fn(&OwnedFd) -> Result<R, Error>,
) -> Result<(OwnedFd, R), Error> {
    loop {
        let dir = open_dir(parent, name)?;
        match look(&dir) {
            Err(_) if !leads_to(parent, name.topic(), &dir) => {}
            looked => return looked.map(|found| (dir, found)),
        }
    }
}

/// Whether the name in `parent` is (still) this directory's, or file's.
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

/// A file that is to be made, for messages.
pub(super) fn part_in_words(part: &str) -> String {
    format!("the channel's {part} file in {}", directory().0.display())
}

pub(super) fn create_part(
    dir: &OwnedFd,
    part: &str,
    len: usize,
    mode: u32,
) -> Result<(OwnedFd, Mapping), Error> {
    let what = || part_in_words(part);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, part, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::space(what(), len as u64, errno))?;
    let mapping = backed(&file, len).map_err(|refused| refused.error(what(), len))?;
    // The umask has no say in what the caller chose.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o666))
        .map_err(|errno| Error::os(what(), errno))?;
    Ok((file, mapping))
}

/// The data part in a hugetlbfs, with a symbolic link to it in the channel's directory.
///
/// The link comes first: what a killed creator leaves can then be found by whoever sweeps.
pub(super) fn create_huge(
    dir: &OwnedFd,
    size: HugePages,
    needed: usize,
    mode: u32,
) -> Result<(OwnedFd, Mapping), Error> {
    let Some(mount) = huge::mount(size) else {
        return Err(Error::NotMounted { size });
    };
    let target = mount.join(temporary(HUGE));
    let fail = |refused: Refused| refused.error(target.display(), needed);
    rustix::fs::symlinkat(&target, dir, DATA).map_err(|errno| fail(errno.into()))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let unlink_data = || rustix::fs::unlinkat(dir, DATA, AtFlags::empty());
    let file = rustix::fs::open(&target, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
        // What is there is not ours.
        let _ = unlink_data();
        fail(errno.into())
    })?;
    let made = backed(&file, size.round(needed)).and_then(|mapping| {
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

/// Opens one file of a channel: a regular one, of at least a header's length.
pub(super) fn open_part(
    dir: BorrowedFd<'_>,
    part: &'static str,
    name: &Name,
    access: OFlags,
) -> Result<OwnedFd, Error> {
    let shown = || shown(name).join(part);
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(dir, part, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::LOOP | Errno::ISDIR => Error::NotAChannel {
                what: shown().display().to_string().into(),
                found: None,
            },
            errno => Error::named(format_args!("open {}", shown().display()), errno),
        })?;
    regular(&file, part, name)?;
    Ok(file)
}

fn regular(file: &OwnedFd, part: &'static str, name: &Name) -> Result<(), Error> {
    let what = || shown(name).join(part).display().to_string();
    let stat = rustix::fs::fstat(file)
        .map_err(|errno| Error::os(format_args!("look at {}", what()), errno))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Error::NotAChannel {
            what: what().into(),
            found: None,
        });
    }
    Ok(())
}

/// Opens the data file; where it is a link, it must lead to a hugetlbfs file of the same owner.
pub(super) fn open_data(
    dir: &OwnedFd,
    name: &Name,
    control: &OwnedFd,
    access: OFlags,
) -> Result<OwnedFd, Error> {
    let Ok(target) = rustix::fs::readlinkat(dir, DATA, Vec::new()) else {
        return open_part(dir.as_fd(), DATA, name, access);
    };
    let what = || format!("open {} (a huge page file)", target.to_string_lossy());
    // Looked at before it is opened: opening a device may already do something.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&target, flags, Mode::empty())
        .map_err(|errno| Error::os(what(), errno))?;
    regular(&file, DATA, name)?;
    let kind = rustix::fs::fstatfs(&file).map_or(0, |stat| stat.f_type as u64);
    let owner = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| stat.st_uid);
    match (owner(&file), owner(control)) {
        (Ok(a), Ok(b)) if a == b && kind == huge::HUGETLBFS_MAGIC => {
            super::memfd::reopened(&file, access)
        }
        _ => Err(Error::NotAChannel {
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

pub(super) fn temporary(prefix: &str) -> String {
    let mut random = [0; 8];
    if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) != Ok(8) {
        random = crate::clock::since_boot().to_le_bytes();
    }
    format!("{prefix}{:016x}", u64::from_le_bytes(random))
}

/// Returns `true` for a name that `temporary` gave, or may have given.
pub(super) fn is_temporary(name: &str, prefix: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.strip_prefix(prefix)
        .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(digit))
}

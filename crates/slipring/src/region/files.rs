//! The directories and files of named channels: how each is made, opened and mapped, and what is
//! refused as not ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::map::{Mapping, backed};
use super::{HugePages, huge};
use crate::error::{Error, path};
use crate::name::{Name, directory};

pub(super) const CONTROL: &str = "control";
pub(super) const DATA: &str = "data";

/// Where a named channel lives.
pub(crate) struct Place {
    pub(crate) name: Name,
    /// The channel's directory.
    pub(super) dir: OwnedFd,
    /// The directory that it lies in: the base, or a domain.
    pub(super) parent: OwnedFd,
}

impl Place {
    /// The channel's directory, for messages.
    pub(super) fn shown(&self) -> PathBuf {
        shown(&self.name)
    }

    /// A description of the control file of our own.
    pub(crate) fn fresh(&self) -> Result<OwnedFd, Error> {
        open_part(self.dir.as_fd(), CONTROL, &self.name, OFlags::RDWR)
    }

    /// Whether the name still leads to this directory: it may have been removed and remade
    /// since we opened it.
    pub(crate) fn still(&self) -> bool {
        leads_to(&self.parent, self.name.topic(), &self.dir)
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
            Err(errno) => return Err(Error::os(format_args!("make {}", dir.display()), errno)),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flags = if default {
        flags | OFlags::NOFOLLOW
    } else {
        flags
    };
    let fd = rustix::fs::open(&dir, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Error::NoDirectory { dir: path(&dir) },
        Errno::NOTDIR | Errno::LOOP => Error::UnsafeDirectory {
            dir: path(&dir),
            found: "it is no directory".into(),
        },
        errno => Error::os(format_args!("open {}", dir.display()), errno),
    })?;
    if default {
        let stat =
            rustix::fs::fstat(&fd).map_err(|errno| Error::os("look at the directory", errno))?;
        let uid = rustix::process::geteuid().as_raw();
        let mode = stat.st_mode & 0o777;
        if stat.st_uid != uid || mode & 0o022 != 0 {
            let found = format!("it belongs to user {} and has mode {mode:04o}", stat.st_uid);
            return Err(Error::UnsafeDirectory {
                dir: path(&dir),
                found: found.into(),
            });
        }
    }
    Ok(fd)
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
        make_dir(base.as_fd(), &domain, mode)?;
    }
    open_at(&base, &domain).map_err(|errno| match errno {
        Errno::NOENT => name.not_found(),
        errno => Error::os(format_args!("open the domain {domain}"), errno),
    })
}

/// A directory as open to others as files of this mode are.
pub(super) fn make_dir(parent: BorrowedFd<'_>, name: &str, mode: u32) -> Result<(), Error> {
    let fail = |errno| {
        Error::os(
            format_args!("make the directory {name} in {}", directory().0.display()),
            errno,
        )
    };
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOSPC) => {
            return Err(Error::space("a directory for the channel", 0, Errno::NOSPC));
        }
        Err(errno) => return Err(fail(errno)),
    }
    // Who may read a part may list the directory; the umask has no say in what the caller chose.
    let search = (mode & 0o444) >> 2 | mode | 0o700;
    match rustix::fs::chmodat(parent, name, Mode::from_raw_mode(search), AtFlags::empty()) {
        // Swept by another creator in this instant: whoever opens it next finds out.
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(fail(errno)),
    }
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

pub(super) fn create_part(
    dir: &OwnedFd,
    part: &str,
    len: usize,
    mode: u32,
) -> Result<(OwnedFd, Mapping), Error> {
    let what = || format!("the channel's {part} file in {}", directory().0.display());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, part, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::space(what(), len as u64, errno))?;
    let mapping = backed(&file, len).map_err(|errno| Error::space(what(), len as u64, errno))?;
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
    let target = mount.join(format!("slipring{}", temporary("-")));
    let fail = |errno| Error::space(target.display(), needed as u64, errno);
    rustix::fs::symlinkat(&target, dir, DATA).map_err(fail)?;
    let made = (|| {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&target, flags, Mode::RUSR | Mode::WUSR)?;
        let mapping = backed(&file, size.round(needed))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o666))?;
        Ok((file, mapping))
    })();
    made.map_err(|errno| {
        remove_data(dir);
        fail(errno)
    })
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
            errno => Error::os(format_args!("open {}", shown().display()), errno),
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

/// Removes the data file, and what it links to if that is a huge page file of ours.
pub(super) fn remove_data(dir: &OwnedFd) {
    if let Ok(target) = rustix::fs::readlinkat(dir, DATA, Vec::new()) {
        let target = Path::new(std::ffi::OsStr::new(target.to_str().unwrap_or(""))).to_path_buf();
        let ours = target
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("slipring-"))
            && target.is_absolute();
        let huge = rustix::fs::statfs(&target)
            .is_ok_and(|stat| stat.f_type as u64 == huge::HUGETLBFS_MAGIC);
        let owner = |stat: Result<Stat, Errno>| stat.map(|stat| stat.st_uid).ok();
        let same = owner(rustix::fs::lstat(&target)) == owner(rustix::fs::fstat(dir));
        if ours && huge && same {
            let _ = rustix::fs::unlink(&target);
        }
    }
    let _ = rustix::fs::unlinkat(dir, DATA, AtFlags::empty());
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

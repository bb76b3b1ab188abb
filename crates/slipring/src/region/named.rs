//! Named channels: a directory `NAME/` with the files `control` and `data`.
//!
//! It is built under a temporary name and appears by one `renameat2(RENAME_NOREPLACE)`: nobody ever
//! sees a half-made channel, and of two creators exactly one succeeds. A creator holds an `flock`
//! on the directory while it builds; what a killed one left is therefore recognised by its free
//! lock, and swept by the next creator.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::map::{Mapping, backed};
use super::{Files, HugePages, Pages, Plan, Region, huge};
use crate::error::{Error, path};
use crate::lock;
use crate::name::{Name, directory};

const BUILDING: &str = ".new-";
const REMOVING: &str = ".old-";
const CONTROL: &str = "control";
const DATA: &str = "data";

/// Where a named channel lives.
pub(crate) struct Place {
    pub(crate) name: Name,
    /// The channel's directory.
    dir: OwnedFd,
    /// The directory that it lies in: the base, or a domain.
    parent: OwnedFd,
}

impl Region {
    /// Makes a new named channel; `AlreadyExists` if there is one, which is not touched.
    pub(crate) fn create(name: &Name, plan: &Plan) -> Result<Region, Error> {
        plan.geometry.check().map_err(Error::from)?;
        let parent = parent_of(name, Some(plan.mode))?;
        if exists(&parent, name.topic()) {
            return Err(already_exists(name));
        }
        sweep(&parent);
        loop {
            match build(name, &parent, plan) {
                // Swept by another creator in the instant before we had our lock: again.
                Ok(None) => {}
                Ok(Some(region)) => return Ok(region),
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a named channel.
    pub(crate) fn open(name: &Name) -> Result<Region, Error> {
        let parent = parent_of(name, None)?;
        let dir = open_dir(&parent, name)?;
        let control_file = open_part(dir.as_fd(), CONTROL, name, OFlags::RDWR)?;
        let data_file = open_data(&dir, name, &control_file)?;
        let control = map_part(CONTROL, &control_file, name, true)?;
        let data = map_part(DATA, &data_file, name, true)?;
        let pages = Pages::of(data_file.as_fd());
        let place = Place {
            name: name.clone(),
            dir,
            parent,
        };
        let shown = place.shown();
        let files = Files {
            control: control_file,
            data: data_file,
            place: Some(place),
        };
        Region::attach(control, data, Some(files), pages).map_err(|error| error.about(&shown))
    }

    /// Removes a named channel that nobody holds a seat of.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match self
            .files
            .as_ref()
            .and_then(|files| files.place.as_ref().map(|place| (files, place)))
        {
            None => Ok(()),
            Some((files, place)) => {
                // Held until the channel is gone: nobody takes a seat of it meanwhile.
                let _seats = lock_all(files, place, self.geometry().seats())?;
                unlink(place)
            }
        }
    }
}

impl Place {
    /// The channel's directory, for messages.
    fn shown(&self) -> PathBuf {
        shown(&self.name)
    }

    /// A description of the control file of our own.
    pub(crate) fn fresh(&self) -> Result<OwnedFd, Error> {
        open_part(self.dir.as_fd(), CONTROL, &self.name, OFlags::RDWR)
    }

    /// Whether the name still leads to this control file: it may have been removed and remade
    /// since we opened it.
    pub(crate) fn still(&self, control: &OwnedFd) -> bool {
        let path = format!("{}/{CONTROL}", self.name.topic());
        let there = rustix::fs::statat(&self.parent, &path, AtFlags::SYMLINK_NOFOLLOW);
        match (there, rustix::fs::fstat(control)) {
            (Ok(there), Ok(ours)) => same_file(&there, &ours),
            _ => false,
        }
    }
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev && a.st_ino == b.st_ino
}

fn shown(name: &Name) -> PathBuf {
    let base = directory().0;
    let dir = name
        .domain_dir()
        .map_or(base.clone(), |domain| base.join(domain));
    dir.join(name.topic())
}

fn already_exists(name: &Name) -> Error {
    Error::AlreadyExists {
        name: name.to_string().into(),
        dir: path(directory().0),
    }
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
fn parent_of(name: &Name, make: Option<u32>) -> Result<OwnedFd, Error> {
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
fn make_dir(parent: BorrowedFd<'_>, name: &str, mode: u32) -> Result<(), Error> {
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
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(search), AtFlags::empty()).map_err(fail)
}

fn open_at(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn open_dir(parent: &OwnedFd, name: &Name) -> Result<OwnedFd, Error> {
    open_at(parent, name.topic()).map_err(|errno| match errno {
        Errno::NOENT => name.not_found(),
        Errno::NOTDIR | Errno::LOOP => Error::NotAChannel {
            what: shown(name).display().to_string().into(),
            found: 0,
        },
        errno => Error::os(format_args!("open {}", shown(name).display()), errno),
    })
}

fn exists(parent: &OwnedFd, topic: &str) -> bool {
    rustix::fs::statat(parent, topic, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Builds the channel under a temporary name and lets it appear. Nothing if another creator swept
/// the directory before we could lock it.
fn build(name: &Name, parent: &OwnedFd, plan: &Plan) -> Result<Option<Region>, Error> {
    let temporary = temporary(BUILDING);
    make_dir(parent.as_fd(), &temporary, plan.mode)?;
    let Ok(dir) = open_at(parent, &temporary) else {
        return Ok(None);
    };
    if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err()
        || !exists(parent, &temporary)
    {
        return Ok(None);
    }
    let built = fill(name, parent, &dir, plan).and_then(|(files, control, data, pages)| {
        let region = Region::format(control, data, Some(files), pages, plan)?;
        rustix::fs::renameat_with(
            parent,
            &temporary,
            parent,
            name.topic(),
            RenameFlags::NOREPLACE,
        )
        .map_err(|errno| match errno {
            Errno::EXIST => already_exists(name),
            errno => Error::os(
                format_args!("name the channel {}", shown(name).display()),
                errno,
            ),
        })?;
        Ok(region)
    });
    if built.is_err() {
        discard(parent, &temporary, &dir);
    }
    built.map(Some)
}

type Parts = (Files, Mapping, Mapping, Pages);

fn fill(name: &Name, parent: &OwnedFd, dir: &OwnedFd, plan: &Plan) -> Result<Parts, Error> {
    let (control_file, control) =
        create_part(dir, CONTROL, plan.geometry.control_len(), plan.mode)?;
    let needed = plan.geometry.data_len() as usize;
    let ((data_file, data), pages) = huge::with_fallback(plan.huge, |size| match size {
        HugePages::Off => create_part(dir, DATA, needed, plan.mode),
        size => create_huge(dir, size, needed, plan.mode),
    })?;
    let fail = |errno| Error::os("open the channel's directory", errno);
    let dir = dir
        .try_clone()
        .map_err(|error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let parent = parent
        .try_clone()
        .map_err(|error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let place = Place {
        name: name.clone(),
        dir,
        parent,
    };
    Ok((
        Files {
            control: control_file,
            data: data_file,
            place: Some(place),
        },
        control,
        data,
        pages,
    ))
}

fn create_part(
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
fn create_huge(
    dir: &OwnedFd,
    size: HugePages,
    needed: usize,
    mode: u32,
) -> Result<(OwnedFd, Mapping), Error> {
    let Some(mount) = huge::mount(size) else {
        let what = format!("no hugetlbfs with {size} is mounted (see `slipring hugepages`)");
        return Err(Error::NoSpace {
            needed: needed as u64,
            what: what.into(),
        });
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
fn open_part(
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
                found: 0,
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
            found: 0,
        });
    }
    Ok(())
}

/// Opens the data file; where it is a link, it must lead to a hugetlbfs file of the same owner.
fn open_data(dir: &OwnedFd, name: &Name, control: &OwnedFd) -> Result<OwnedFd, Error> {
    let Ok(target) = rustix::fs::readlinkat(dir, DATA, Vec::new()) else {
        return open_part(dir.as_fd(), DATA, name, OFlags::RDWR);
    };
    let what = || format!("open {} (a huge page file)", target.to_string_lossy());
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(&target, flags, Mode::empty())
        .map_err(|errno| Error::os(what(), errno))?;
    regular(&file, DATA, name)?;
    let kind = rustix::fs::fstatfs(&file).map_or(0, |stat| stat.f_type as u64);
    let owner = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| stat.st_uid);
    match (owner(&file), owner(control)) {
        (Ok(a), Ok(b)) if a == b && kind == huge::HUGETLBFS_MAGIC => Ok(file),
        _ => Err(Error::NotAChannel {
            what: target.to_string_lossy().into(),
            found: 0,
        }),
    }
}

fn map_part(
    part: &'static str,
    file: &OwnedFd,
    name: &Name,
    writable: bool,
) -> Result<Mapping, Error> {
    let what = || shown(name).join(part).display().to_string();
    let stat = rustix::fs::fstat(file)
        .map_err(|errno| Error::os(format_args!("look at {}", what()), errno))?;
    let len = stat.st_size as u64;
    if len == 0 {
        return Err(Error::Truncated {
            part,
            found: 0,
            expected: slipring_core::layout::PAGE as u64,
        });
    }
    let mapping = Mapping::shared(file.as_fd(), len as usize, writable)
        .map_err(|errno| Error::space(what(), len, errno))?;
    mapping.wish_huge();
    mapping.populate(writable).map_err(|errno| match errno {
        Errno::FAULT => Error::NoSpace {
            needed: len,
            what: format!("{} has holes that cannot be filled", what()).into(),
        },
        errno => Error::space(what(), len, errno),
    })?;
    Ok(mapping)
}

/// The control part of a channel, mapped to be looked at only, and the file that tells of locks.
pub(crate) fn inspect(name: &Name) -> Result<(OwnedFd, Mapping, u64), Error> {
    let parent = parent_of(name, None)?;
    let dir = open_dir(&parent, name)?;
    let control = open_part(dir.as_fd(), CONTROL, name, OFlags::RDONLY)?;
    let mapping = map_part(CONTROL, &control, name, false)?;
    let data = rustix::fs::statat(&dir, DATA, AtFlags::empty()).map_err(|errno| {
        Error::os(
            format_args!("look at {}/{DATA}", shown(name).display()),
            errno,
        )
    })?;
    Ok((control, mapping, data.st_size as u64))
}

/// Locks every seat's bytes, or says which is held.
fn lock_all(files: &Files, place: &Place, seats: usize) -> Result<OwnedFd, Error> {
    use slipring_core::layout::{LINE, SEATS};
    let file = place.fresh()?;
    for seat in 0..seats {
        let byte = SEATS + seat * LINE;
        for byte in [byte + 1, byte] {
            if !lock::try_lock(file.as_fd(), byte) {
                let role = if seat == 0 { "producer" } else { "consumer" };
                let pid = crate::inspect::holder(files, seat);
                return Err(Error::InUse {
                    name: place.name.to_string().into(),
                    role,
                    pid,
                });
            }
        }
    }
    Ok(file)
}

/// Takes the name away first, in one step, then what lies behind it.
fn unlink(place: &Place) -> Result<(), Error> {
    let fail = |errno| Error::os(format_args!("remove {}", place.shown().display()), errno);
    let old = temporary(REMOVING);
    rustix::fs::renameat_with(
        &place.parent,
        place.name.topic(),
        &place.parent,
        &old,
        RenameFlags::NOREPLACE,
    )
    .map_err(|errno| {
        if errno == Errno::NOENT {
            place.name.not_found()
        } else {
            fail(errno)
        }
    })?;
    discard(&place.parent, &old, &place.dir);
    Ok(())
}

/// Removes a named channel, whatever state its files are in, if nobody holds a seat of it.
///
/// A directory that holds no valid channel any more is removed as well: that is how a user gets
/// rid of a corrupt one.
pub(crate) fn remove(name: &Name) -> Result<(), Error> {
    match Region::open(name) {
        Ok(region) => region.remove(),
        Err(
            error @ (Error::NotFound { .. } | Error::Permission { .. } | Error::NoDirectory { .. }),
        ) => Err(error),
        Err(_) => {
            let parent = parent_of(name, None)?;
            let dir = open_dir(&parent, name)?;
            let place = Place {
                name: name.clone(),
                dir,
                parent,
            };
            if let Ok(control) = place.fresh() {
                let files = Files {
                    control,
                    data: place.fresh()?,
                    place: None,
                };
                let _seats = lock_all(&files, &place, 2)?;
                return unlink(&place);
            }
            unlink(&place)
        }
    }
}

/// Removes a channel's directory under its temporary name. Best effort: a later creator sweeps.
fn discard(parent: &OwnedFd, temporary: &str, dir: &OwnedFd) {
    remove_data(dir);
    let _ = rustix::fs::unlinkat(dir, CONTROL, AtFlags::empty());
    let _ = rustix::fs::unlinkat(parent, temporary, AtFlags::REMOVEDIR);
}

/// Removes the data file, and what it links to if that is a huge page file of ours.
fn remove_data(dir: &OwnedFd) {
    if let Ok(target) = rustix::fs::readlinkat(dir, DATA, Vec::new()) {
        let target = Path::new(std::ffi::OsStr::new(target.to_str().unwrap_or(""))).to_path_buf();
        let ours = target
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("slipring-"));
        let huge = rustix::fs::statfs(&target)
            .is_ok_and(|stat| stat.f_type as u64 == huge::HUGETLBFS_MAGIC);
        if ours && huge {
            let _ = rustix::fs::unlink(&target);
        }
    }
    let _ = rustix::fs::unlinkat(dir, DATA, AtFlags::empty());
}

/// Removes what killed creators and removers left: temporary directories whose lock is free.
fn sweep(parent: &OwnedFd) {
    for name in entries(parent) {
        if !name.starts_with(BUILDING) && !name.starts_with(REMOVING) {
            continue;
        }
        if let Ok(dir) = open_at(parent, &name)
            && rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            discard(parent, &name, &dir);
        }
    }
}

fn entries(dir: &OwnedFd) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else {
        return Vec::new();
    };
    let name = |entry: rustix::fs::DirEntry| entry.file_name().to_str().ok().map(str::to_owned);
    entries
        .filter_map(|entry| name(entry.ok()?))
        .filter(|name| name != "." && name != "..")
        .collect()
}

/// The names of all channels, sorted.
pub(crate) fn list() -> Result<Vec<Name>, Error> {
    let base = match base(false) {
        Err(Error::NoDirectory { .. }) if directory().1 => return Ok(Vec::new()),
        base => base?,
    };
    let mut names = Vec::new();
    for entry in entries(&base) {
        match entry.strip_prefix('@') {
            None => names.extend(Name::new(&entry)),
            Some(domain) => {
                let Ok(dir) = open_at(&base, &entry) else {
                    continue;
                };
                let topics = entries(&dir);
                names.extend(
                    topics
                        .iter()
                        .filter_map(|topic| Name::new(&format!("{domain}/{topic}")).ok()),
                );
            }
        }
    }
    names.sort();
    Ok(names)
}

fn temporary(prefix: &str) -> String {
    let mut random = [0; 8];
    if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) != Ok(8) {
        random = crate::clock::since_boot().to_le_bytes();
    }
    format!("{prefix}{:016x}", u64::from_le_bytes(random))
}

//! Named channels: a directory `NAME/` with the files `control` and `data`, and a FIFO a seat.
//!
//! It is built under a temporary name and appears by one `renameat2(RENAME_NOREPLACE)`: nobody ever
//! sees a half-made channel, and of two creators exactly one succeeds. A creator holds an `flock`
//! on the directory while it builds; what a killed one left is therefore recognised by its free
//! lock, and swept by the next creator.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Weak;

use rustix::fs::{AtFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use super::files::{
    BUILDING, CONTROL, DATA, FreshDir, Place, REMOVING, base, create_huge, create_part, entries,
    exists, is_temporary, leads_to, look_in, open_at, open_data, open_dir, open_part, open_to,
    parent_of, part_in_words, shown, temporary,
};
use super::map::{self, Mapping};
use super::parts::{Foreign, Parts};
use super::{Files, HugePages, Pages, Plan, Region, huge, pipes, space};
use crate::error::{Error, path};
use crate::fork::NoFork;
use crate::lock;
use crate::name::{Name, directory};
use crate::seat::{Role, spent};

/// The front of the name of a channel that was moved by mistake, and could not get its own again. It is a channel's
/// name, so that `ls` shows it and `rm` takes it.
const PUT_BACK: &str = "moved-";

impl Region {
    /// Makes a new named channel; `AlreadyExists` if there is one, which is not touched.
    pub(crate) fn create(name: &Name, plan: &Plan) -> Result<Region, Error> {
        let parent = parent_of(name, Some(plan.mode))?;
        if exists(&parent, name.topic()) {
            return Err(already_exists(name));
        }
        sweep(&parent);
        room_for(plan, &parent)?;
        loop {
            // Nothing: swept by another creator in the instant before we had our lock. Again.
            if let Some(region) = build(name, &parent, plan)? {
                return Ok(region);
            }
        }
    }

    /// Opens a named channel.
    pub(crate) fn open(name: &Name) -> Result<Region, Error> {
        Region::open_for(name, OFlags::RDWR)
    }

    /// Opens a named channel to look at it only: what is mapped cannot be written, and no role be taken.
    pub(crate) fn look(name: &Name) -> Result<Region, Error> {
        Region::open_for(name, OFlags::RDONLY)
    }

    fn open_for(name: &Name, access: OFlags) -> Result<Region, Error> {
        let parent = parent_of(name, None)?;
        let (dir, (control_file, data_file)) = look_in(&parent, name, |dir| {
            let control = open_part(dir.as_fd(), CONTROL, name, access)?;
            let data = open_data(dir, name, &control, access)?;
            Ok((control, data))
        })?;
        let place = Place::new(name, dir, &parent)?;
        let shown = place.shown();
        let files = Files {
            control: control_file,
            place: Some(place),
            passed: Weak::new(),
        };
        Region::attach(files, &data_file, &shown, access == OFlags::RDWR)
            .map_err(|error| error.about(&shown))
    }

    /// Removes a named channel that nobody holds a seat of.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match self.files.as_ref().and_then(|files| files.place.as_ref()) {
            None => Ok(()),
            Some(place) => remove_place(place, || true),
        }
    }

    /// Removes a named channel that nobody holds a seat of, and in which nothing is unread. What fails leaves it as
    /// it is.
    pub(crate) fn remove_spent(&self) {
        if let Some(files) = &self.files
            && let Some(place) = &files.place
        {
            let _ = remove_place(place, || place.still_has(&files.control) && spent(self));
        }
    }
}

/// Refuses a channel that does not fit before anything of it is made.
fn room_for(plan: &Plan, parent: &OwnedFd) -> Result<(), Error> {
    let (control, data) = (
        plan.geometry.control_len(),
        plan.geometry.data_len() as usize,
    );
    let (part, lengths) = match plan.huge {
        HugePages::Off => (DATA, vec![control, data]),
        // The data goes elsewhere, or asks by itself.
        _ => (CONTROL, vec![control]),
    };
    let needed = lengths.iter().copied().fold(0, usize::saturating_add);
    space::ask(parent.as_fd(), &lengths)
        .map_err(|refused| refused.error(part_in_words(part), needed))
}

fn already_exists(name: &Name) -> Error {
    Error::AlreadyExists {
        name: name.to_string().into(),
        dir: path(directory().0),
    }
}

/// Builds the channel under a temporary name and lets it appear. Nothing if another creator swept
/// the directory before we could lock it.
fn build(name: &Name, parent: &OwnedFd, plan: &Plan) -> Result<Option<Region>, Error> {
    let Some(FreshDir {
        name: temporary,
        dir,
    }) = FreshDir::make(parent)?
    else {
        return Ok(None);
    };
    let built = fill(name, parent, &dir, plan).and_then(|(files, control, data, pages)| {
        let region = Region::format(control, data, Some(files), pages, plan)?;
        let fail = |errno| {
            let what = format!("name the channel {}", shown(name).display());
            Error::named(what, errno)
        };
        // Only now: while it is built nobody else can put anything in a part's place.
        open_to(&dir, plan.mode).map_err(fail)?;
        rustix::fs::renameat_with(
            parent,
            &temporary,
            parent,
            name.topic(),
            RenameFlags::NOREPLACE,
        )
        .map_err(|errno| match errno {
            Errno::EXIST => already_exists(name),
            errno => fail(errno),
        })?;
        // The lock has done its work; the region keeps a descriptor of its description.
        let _ = rustix::fs::flock(&dir, FlockOperation::Unlock);
        Ok(region)
    });
    if built.is_err() {
        let _ = discard(parent, &temporary, &dir);
    }
    built.map(Some)
}

type Filled = (Files, Mapping, Mapping, Pages);

fn fill(name: &Name, parent: &OwnedFd, dir: &OwnedFd, plan: &Plan) -> Result<Filled, Error> {
    let (control_file, control) =
        create_part(dir, CONTROL, plan.geometry.control_len(), plan.mode)?;
    let needed = plan.geometry.data_len() as usize;
    let ((_, data), pages) = huge::with_fallback(plan.huge, |size| match size {
        HugePages::Off => create_part(dir, DATA, needed, plan.mode),
        size => create_huge(dir, size, needed, plan.mode),
    })?;
    pipes::create(dir, plan.geometry.seats(), plan.mode)?;
    let fail = |errno| Error::os("open the channel's directory", errno);
    let dir = dir
        .try_clone()
        .map_err(|error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let place = Place::new(name, dir, parent)?;
    Ok((
        Files {
            control: control_file,
            place: Some(place),
            passed: Weak::new(),
        },
        control,
        data,
        pages,
    ))
}

/// The control part of a channel, mapped to be looked at only, and the file that tells of locks.
pub(crate) fn inspect(name: &Name) -> Result<(OwnedFd, Mapping, u64), Error> {
    let parent = parent_of(name, None)?;
    let shown = shown(name);
    let (_, (control, data)) = look_in(&parent, name, |dir| {
        let control = open_part(dir.as_fd(), CONTROL, name, OFlags::RDONLY)?;
        let data = rustix::fs::statat(dir, DATA, AtFlags::empty()).map_err(|errno| {
            Error::os(format_args!("look at {}/{DATA}", shown.display()), errno)
        })?;
        Ok((control, data))
    })?;
    let len = map::file_len(&control, &shown)?.min(super::MAX_CONTROL);
    let mapping = map::existing(&control, len, false, &shown.join(CONTROL))?;
    Ok((control, mapping, data.st_size as u64))
}

/// Removes a channel, if nobody holds a seat of it: all locks of its control file are ours while its
/// name goes, so nobody takes a seat meanwhile. `NotFound` if the name leads elsewhere by now: to
/// another channel, which is not ours to remove.
///
/// Under the locks, `wanted` has the last word: without it nothing happens.
fn remove_place(place: &Place, wanted: impl FnOnce() -> bool) -> Result<(), Error> {
    // A forked child would keep what is locked here.
    let _no_fork = NoFork::begin();
    let gone = |error| {
        if place.still() {
            error
        } else {
            place.name.not_found()
        }
    };
    let control = place.fresh().map_err(gone)?;
    if !lock::try_lock_all(control.as_fd())? {
        return Err(in_use(place, &control));
    }
    if !place.still() {
        return Err(place.name.not_found());
    }
    if !wanted() {
        return Ok(());
    }
    unlink(place)
}

/// Says which seat is held. (If it was let go since, the first.)
fn in_use(place: &Place, control: &OwnedFd) -> Error {
    use slipring_core::layout::{LINE, MOST_SEATS, SEATS};
    let held = |seat: &usize| lock::is_held(control.as_fd(), SEATS + seat * LINE).unwrap_or(false);
    let seat = (0..=MOST_SEATS).find(held).unwrap_or(0);
    Error::InUse {
        name: place.name.to_string().into(),
        role: Role::of_seat(seat).name(),
        pid: crate::inspect::holder(control, seat),
    }
}

/// Takes the name away first, in one step, then what lies behind it: if that is a channel, and nothing else.
fn unlink(place: &Place) -> Result<(), Error> {
    let refuse = |foreign, at: PathBuf| match foreign {
        _ if !place.still() => place.name.not_found(),
        Foreign::Holds(found) => Error::NotRemoved {
            dir: path(at),
            found: found.into(),
        },
        Foreign::Unknown(errno) => Error::os(format_args!("look into {}", at.display()), errno),
    };
    Parts::of_channel(&place.dir).map_err(|foreign| refuse(foreign, place.shown()))?;
    let parent = place.parent()?;
    let rename = |from: &str, to: &str| move_to(&parent, from, to);
    let (topic, old) = (place.name.topic(), temporary(REMOVING));
    rename(topic, &old).map_err(|errno| match errno {
        Errno::NOENT => place.name.not_found(),
        errno => Error::named(format_args!("remove {}", place.shown().display()), errno),
    })?;
    if !leads_to(&parent, &old, &place.dir) {
        // Somebody gave the name to another channel since we looked.
        return match put_back(&parent, &old, topic) {
            // Nothing is there: a creator has swept what we moved.
            Err(Errno::NOENT) => Ok(()),
            _ => Err(place.name.not_found()),
        };
    }
    let left = place.shown().with_file_name(&old);
    match discard(&parent, &old, &place.dir) {
        // Somebody put something there since we looked. Nothing is removed yet.
        Err(Foreign::Holds(found)) => Err(Error::NotRemoved {
            dir: path(match rename(&old, topic) {
                Ok(()) => place.shown(),
                Err(_) => left,
            }),
            found: found.into(),
        }),
        Err(Foreign::Unknown(errno @ Errno::NOTEMPTY)) => {
            Err(Error::os(format_args!("remove {}", left.display()), errno))
        }
        // The name is gone; a later creator sweeps.
        Ok(()) | Err(Foreign::Unknown(_)) => Ok(()),
    }
}

/// Renames a directory, unless something has the new name.
fn move_to(parent: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    rustix::fs::renameat_with(parent, from, parent, to, RenameFlags::NOREPLACE)
}

/// Gives a channel that was moved by mistake its name again. If the name is taken by now, the channel gets one that
/// nobody sweeps.
fn put_back(parent: &OwnedFd, moved: &str, topic: &str) -> Result<(), Errno> {
    match move_to(parent, moved, topic) {
        Err(Errno::EXIST) => move_to(parent, moved, &temporary(PUT_BACK)),
        moved => moved,
    }
}

/// Removes a named channel, whatever state its files are in, if nobody holds a seat of it.
///
/// That is how a user gets rid of a corrupt one. A directory without a control file holds no seats. One that
/// is no channel's, or holds something else, is `NotRemoved`.
pub(crate) fn remove(name: &Name) -> Result<(), Error> {
    let parent = parent_of(name, None)?;
    let dir = open_dir(&parent, name)?;
    let control = rustix::fs::statat(&dir, CONTROL, AtFlags::SYMLINK_NOFOLLOW);
    let regular = |stat: &rustix::fs::Stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
    };
    let place = Place::new(name, dir, &parent)?;
    match control {
        Ok(stat) if regular(&stat) => remove_place(&place, || true),
        Ok(_) | Err(Errno::NOENT) if place.still() => unlink(&place),
        Ok(_) | Err(Errno::NOENT) => Err(name.not_found()),
        Err(errno) => {
            let what = format!("look at {}", place.shown().display());
            Err(Error::os(what, errno))
        }
    }
}

/// Removes a channel's directory under its temporary name, if it holds nothing else. Best effort: a later
/// creator sweeps.
fn discard(parent: &OwnedFd, temporary: &str, dir: &OwnedFd) -> Result<(), Foreign> {
    Parts::of(dir)?.remove(dir);
    Ok(rustix::fs::unlinkat(parent, temporary, AtFlags::REMOVEDIR)?)
}

/// Removes what killed creators and removers left: directories with a temporary name of ours whose lock is
/// free, and that hold nothing but parts of channels.
fn sweep(parent: &OwnedFd) {
    for name in entries(parent) {
        if !is_temporary(&name, BUILDING) && !is_temporary(&name, REMOVING) {
            continue;
        }
        match open_at(parent, &name) {
            Ok(dir) => {
                let free = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive);
                // Under the lock: its creator may have given it its real name in the meantime.
                if free.is_ok() && leads_to(parent, &name, &dir) {
                    let _ = discard(parent, &name, &dir);
                }
            }
            // Its creator, this user, died before it had the right to open it: so it is empty, and else it stays.
            Err(Errno::ACCESS) if is_own(parent, &name) => {
                let _ = rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR);
            }
            // Another user's: perhaps it is being made. Or it could not be asked for.
            Err(_) => {}
        }
    }
}

/// Returns `true` if this user owns what has that name.
fn is_own(parent: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw())
}

fn is_dir(parent: &OwnedFd, name: &str) -> bool {
    use rustix::fs::FileType;
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
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
            // A channel is a directory; other files are none of ours.
            None if is_dir(&base, &entry) => names.extend(Name::new(&entry)),
            None => {}
            Some(domain) => {
                let Ok(dir) = open_at(&base, &entry) else {
                    continue;
                };
                let topics = entries(&dir);
                names.extend(
                    topics
                        .iter()
                        .filter(|topic| is_dir(&dir, topic))
                        .filter_map(|topic| Name::new(&format!("{domain}/{topic}")).ok()),
                );
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::fs;
    use std::path::Path;

    /// A directory of one test, gone with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new(test: &str) -> Dir {
            let path = format!("/dev/shm/slipring-{test}-{}", std::process::id());
            fs::create_dir(&path).unwrap();
            Dir(path.into())
        }

        fn open(&self) -> OwnedFd {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&self.0, flags, Mode::empty()).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What looks like a channel that lost its control file.
    fn channel(parent: &OwnedFd, topic: &str) -> OwnedFd {
        rustix::fs::mkdirat(parent, topic, Mode::RWXU).unwrap();
        let dir = open_at(parent, topic).unwrap();
        pipes::create(&dir, 2, 0o600).unwrap();
        dir
    }

    fn hidden(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }

    /// Two remove a channel without a control file, which has no locks to keep them apart. Between the later one's
    /// look and its rename somebody makes a new channel of that name.
    #[test]
    fn a_channel_made_meanwhile_stays() {
        let dir = Dir::new("made-meanwhile");
        let parent = dir.open();
        let name = Name::new("x").unwrap();
        let place = Place::new(&name, channel(&parent, "x"), &parent).unwrap();
        fs::rename(dir.0.join("x"), dir.0.join("elsewhere")).unwrap();
        let live = channel(&parent, "x");
        assert!(matches!(unlink(&place), Err(Error::NotFound { .. })));
        assert!(leads_to(&parent, "x", &live));
        assert_eq!(entries(&live).len(), 2);
        assert_eq!(hidden(&dir.0), Vec::<String>::new());
        // The right one goes.
        let place = Place::new(&name, live, &parent).unwrap();
        unlink(&place).unwrap();
        assert!(!exists(&parent, "x"));
    }

    /// The name was taken a second time before the channel got it back.
    #[test]
    fn a_moved_channel_is_not_swept() {
        let dir = Dir::new("moved");
        let parent = dir.open();
        let old = temporary(REMOVING);
        let live = channel(&parent, &old);
        channel(&parent, "x");
        put_back(&parent, &old, "x").unwrap();
        sweep(&parent);
        let names = entries(&parent);
        let moved = names.iter().find(|name| name.starts_with(PUT_BACK));
        let moved = moved.unwrap();
        assert!(Name::new(moved).is_ok());
        assert!(leads_to(&parent, moved, &live));
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

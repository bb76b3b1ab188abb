//! Named channels: a directory `NAME/` with the files `control` and `data`, and a FIFO per seat.
//!
//! A creator builds it under a temporary name and lets it appear by one
//! `renameat2(RENAME_NOREPLACE)`. So no process ever sees a half-made channel, and of two creators
//! exactly one succeeds. A creator holds an `flock` on the directory while it builds. If it is
//! killed, the free lock identifies the rest, and the next creator sweeps it.

mod listing;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;
use slipring_core::layout::{LINE, MOST_IN_ALL, PAGE, Role, SEATS, SeatWords};
use slipring_core::proto;

use super::files::{
    FreshDir, Place, create_huge, create_part, entries, exists, is_removed, leads_to, look_in,
    open_at, open_data, open_dir, open_part, open_to, parent_of, part_in_words,
    remove_empty_domain, shown,
};
use super::huge::{self, Pages};
use super::map::Mapping;
use super::names::{BUILDING, CONTROL, DATA, REMOVING, is_temporary, temporary};
use super::parts::{Foreign, Parts};
use super::region::{Files, Plan, Region, control_of, map_control};
use super::space::Fill;
use super::{pipes, space};
use crate::fork::NoFork;
use crate::lock;
use crate::name::{Name, directory};
use crate::pages::HugePages;
use crate::setup_error::{SetupError, path};

pub(crate) use listing::{Base, base_file, list};

/// The prefix of the name of a channel that was moved by mistake, and could not get its own name
/// again. It is a valid channel name, so that `ls` shows the channel and `rm` takes it.
const PUT_BACK: &str = "moved-";

impl Region {
    /// Makes a new named channel; returns `AlreadyExists` if there is one, which is not touched.
    pub(crate) fn create(name: &Name, plan: &Plan) -> Result<Region, SetupError> {
        loop {
            let parent = parent_of(name, Some(plan.mode))?;
            if exists(&parent, name.topic()) {
                return Err(already_exists(name));
            }
            sweep(&parent);
            room_for(plan, &parent)?;
            match build(name, &parent, plan) {
                Ok(Some(region)) => return Ok(region),
                // Another creator swept the directory in the instant before we had our lock.
                Ok(None) => {}
                // The domain's last channel was removed, and the domain with it.
                Err(_) if is_removed(&parent) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a named channel.
    pub(crate) fn open(name: &Name) -> Result<Region, SetupError> {
        Region::open_for(name, OFlags::RDWR).map(|(region, _)| region)
    }

    /// Opens a named channel for watching only: its mappings cannot be written, and no role can be
    /// taken. Also returns the file of its data part.
    pub(crate) fn look(name: &Name) -> Result<(Region, OwnedFd), SetupError> {
        Region::open_for(name, OFlags::RDONLY)
    }

    fn open_for(name: &Name, access: OFlags) -> Result<(Region, OwnedFd), SetupError> {
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
        let region = Region::attach(files, &data_file, &shown, access == OFlags::RDWR)
            .map_err(|error| error.about(&shown))?;
        Ok((region, data_file))
    }

    /// Returns the bytes of memory that the data part has; `None` for memory without a file to ask about.
    pub(crate) fn backed(&self) -> Option<u64> {
        let files = self.files.as_ref()?;
        let stat = match &files.place {
            Some(place) => rustix::fs::statat(&place.dir, DATA, AtFlags::empty()),
            None => rustix::fs::fstat(&files.passed.upgrade()?.data),
        };
        Some(DataSize::from(stat.ok()?).backed)
    }

    /// Removes a named channel none of whose seats is held.
    pub(crate) fn remove(&self) -> Result<(), SetupError> {
        match self.files.as_ref().and_then(|files| files.place.as_ref()) {
            None => Ok(()),
            Some(place) => remove_place(place, || true),
        }
    }

    /// Removes a named channel if none of its seats is held and nothing is unread. A failure leaves
    /// it as it is.
    pub(crate) fn remove_spent(&self) {
        if let Some(files) = &self.files
            && let Some(place) = &files.place
        {
            let _ = remove_place(place, || place.still_has(&files.control) && spent(self));
        }
    }
}

/// Refuses a channel that does not fit, before any part of it is made.
fn room_for(plan: &Plan, parent: &OwnedFd) -> Result<(), SetupError> {
    let (control, data) = (
        plan.geometry.control_len(),
        plan.geometry.data_len() as usize,
    );
    let (part, lengths) = match plan.huge {
        HugePages::Off if plan.fill(HugePages::Off) == Fill::Whole => (DATA, vec![control, data]),
        // The first ring of a channel that can grow.
        HugePages::Off if plan.geometry.growth.is_some() => {
            let first = plan.geometry.area_of(0).map_or(0, |area| area.end);
            (DATA, vec![control, first as usize])
        }
        // The data part goes elsewhere, or checks its own space; a sparse one takes none yet.
        _ => (CONTROL, vec![control]),
    };
    let needed = lengths.iter().copied().fold(0, usize::saturating_add);
    space::ask(parent.as_fd(), &lengths)
        .map_err(|refused| refused.error(part_in_words(part), needed))
}

fn already_exists(name: &Name) -> SetupError {
    SetupError::AlreadyExists {
        name: name.to_string().into(),
        dir: path(directory().0),
    }
}

/// Builds the channel under a temporary name and lets it appear. Returns `None` if another creator
/// swept the directory before we could lock it.
fn build(name: &Name, parent: &OwnedFd, plan: &Plan) -> Result<Option<Region>, SetupError> {
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
            SetupError::named(what, errno)
        };
        // Only now: before this, no other user could put anything in a part's place.
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

fn fill(name: &Name, parent: &OwnedFd, dir: &OwnedFd, plan: &Plan) -> Result<Filled, SetupError> {
    let (control_file, control) = create_part(
        dir,
        CONTROL,
        plan.geometry.control_len(),
        plan.mode,
        Fill::Whole,
    )?;
    let needed = plan.geometry.data_len() as usize;
    let ((_, data), pages) = huge::with_fallback(plan.huge, |size| match size {
        HugePages::Off => create_part(dir, DATA, needed, plan.mode, plan.fill(size)),
        size => create_huge(dir, size, needed, plan.mode, plan.fill(size)),
    })?;
    pipes::create(dir, plan.geometry.seats(), plan.mode)?;
    let fail = |errno| SetupError::os("open the channel's directory", errno);
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

/// The size of a data part.
#[derive(Clone, Copy)]
pub(crate) struct DataSize {
    pub(crate) len: u64,
    /// The bytes that the file system has given it.
    pub(crate) backed: u64,
}

impl From<rustix::fs::Stat> for DataSize {
    fn from(stat: rustix::fs::Stat) -> DataSize {
        DataSize {
            len: stat.st_size as u64,
            // In units of 512 bytes, whatever the file system.
            backed: stat.st_blocks as u64 * 512,
        }
    }
}

/// Maps the control part of a channel read-only. Also returns the file for querying locks, and the
/// data part's size.
pub(crate) fn inspect(name: &Name) -> Result<(OwnedFd, Mapping, DataSize), SetupError> {
    let parent = parent_of(name, None)?;
    let shown = shown(name);
    let (_, (control, data)) = look_in(&parent, name, |dir| {
        let control = open_part(dir.as_fd(), CONTROL, name, OFlags::RDONLY)?;
        let data = rustix::fs::statat(dir, DATA, AtFlags::empty()).map_err(|errno| {
            SetupError::os(format_args!("look at {}/{DATA}", shown.display()), errno)
        })?;
        Ok((control, data))
    })?;
    let mapping = map_control(&control, false, &shown.join(CONTROL))?;
    Ok((control, mapping, data.into()))
}

/// Removes a channel, if none of its seats is held.
///
/// It holds all locks of the control file while the name goes, so no process takes a seat
/// meanwhile. Returns `NotFound` if the name now leads elsewhere: another channel is not ours to
/// remove.
///
/// Under the locks, `wanted` decides: if it returns `false`, nothing is removed.
fn remove_place(place: &Place, wanted: impl FnOnce() -> bool) -> Result<(), SetupError> {
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

/// Returns the error with the seat that is held, or with the first one if it was released since.
fn in_use(place: &Place, control: &OwnedFd) -> SetupError {
    let held = |seat: &usize| lock::is_held(control.as_fd(), SEATS + seat * LINE).unwrap_or(false);
    let seat = (0..MOST_IN_ALL).find(held).unwrap_or(0);
    let (role, pid) = holder(control, seat);
    SetupError::InUse {
        name: place.name.to_string().into(),
        role: role.name(),
        pid,
    }
}

/// Removes the name first, in one step, then the directory behind it, if that is a channel and
/// nothing else. The last channel of a domain takes the domain's directory with it.
fn unlink(place: &Place) -> Result<(), SetupError> {
    let refuse = |foreign, at: PathBuf| match foreign {
        _ if !place.still() => place.name.not_found(),
        Foreign::Holds(found) => SetupError::NotRemoved {
            dir: path(at),
            found: found.into(),
        },
        Foreign::Unknown(errno) => {
            SetupError::os(format_args!("look into {}", at.display()), errno)
        }
    };
    Parts::of_channel(&place.dir).map_err(|foreign| refuse(foreign, place.shown()))?;
    let parent = place.parent()?;
    let rename = |from: &str, to: &str| move_to(&parent, from, to);
    let (topic, old) = (place.name.topic(), temporary(REMOVING));
    rename(topic, &old).map_err(|errno| match errno {
        Errno::NOENT => place.name.not_found(),
        errno => SetupError::named(format_args!("remove {}", place.shown().display()), errno),
    })?;
    if !leads_to(&parent, &old, &place.dir) {
        // Another process gave the name to another channel since we looked.
        return match put_back(&parent, &old, topic) {
            // It is gone: a creator has swept what we moved.
            Err(Errno::NOENT) => Ok(()),
            _ => Err(place.name.not_found()),
        };
    }
    let left = place.shown().with_file_name(&old);
    match discard(&parent, &old, &place.dir) {
        // Another process put a file there since we looked. Nothing is removed yet.
        Err(Foreign::Holds(found)) => Err(SetupError::NotRemoved {
            dir: path(match rename(&old, topic) {
                Ok(()) => place.shown(),
                Err(_) => left,
            }),
            found: found.into(),
        }),
        Err(Foreign::Unknown(errno @ Errno::NOTEMPTY)) => Err(SetupError::os(
            format_args!("remove {}", left.display()),
            errno,
        )),
        Ok(()) => {
            remove_empty_domain(&place.name, &parent);
            Ok(())
        }
        // The name is gone; a later creator sweeps the rest.
        Err(Foreign::Unknown(_)) => Ok(()),
    }
}

/// Renames a directory, unless the new name exists.
fn move_to(parent: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    rustix::fs::renameat_with(parent, from, parent, to, RenameFlags::NOREPLACE)
}

/// Gives a channel that was moved by mistake its name again. If the name is taken, gives it a name
/// that no creator sweeps.
fn put_back(parent: &OwnedFd, moved: &str, topic: &str) -> Result<(), Errno> {
    match move_to(parent, moved, topic) {
        Err(Errno::EXIST) => move_to(parent, moved, &temporary(PUT_BACK)),
        moved => moved,
    }
}

/// Removes a named channel, whatever state its files are in, if none of its seats is held.
///
/// A user can remove a corrupt channel this way. A directory without a control file holds no seats.
/// Returns `NotRemoved` for a directory that is not a channel's, or that holds other files.
pub(crate) fn remove(name: &Name) -> Result<(), SetupError> {
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
            Err(SetupError::os(what, errno))
        }
    }
}

/// Removes a channel's directory under its temporary name, if it holds nothing else. Best effort: a
/// later creator sweeps.
fn discard(parent: &OwnedFd, temporary: &str, dir: &OwnedFd) -> Result<(), Foreign> {
    Parts::of(dir)?.remove(dir);
    Ok(rustix::fs::unlinkat(parent, temporary, AtFlags::REMOVEDIR)?)
}

/// Removes what killed creators and removers left: directories with a temporary name of ours, a
/// free lock, and nothing but parts of channels.
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
            // Its creator, this user, died before it had the right to open the directory. So the
            // directory is empty; otherwise it stays.
            Err(Errno::ACCESS) if is_own(parent, &name) => {
                let _ = rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR);
            }
            // It is another user's and perhaps being made, or the question failed.
            Err(_) => {}
        }
    }
}

/// Returns `true` if this user owns the file of that name.
fn is_own(parent: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw())
}

fn is_dir(parent: &OwnedFd, name: &str) -> bool {
    use rustix::fs::FileType;
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Returns `true` if nothing is unread: every committed message was released, and a consumer saw
/// the last producer's end.
///
/// `broadcast` keeps nothing for absent consumers. No seat is held meanwhile.
fn spent(region: &Region) -> bool {
    let (view, spec) = (region.view(), region.geometry().kind.spec());
    if spec.each_sees_all {
        return true;
    }
    // Relaxed: the locks of all seats are ours, and order all that their holders stored.
    let acknowledged = |seat: &SeatWords<'_>| seat.line.acknowledged.load(Ordering::Relaxed);
    let told = view.side(Role::Consumer).iter().map(acknowledged).max();
    let released = (proto::outside(region.geometry().kind).used)(&view) == 0;
    let generations = view
        .side(Role::Producer)
        .iter()
        .map(|seat| seat.line.life());
    let came = generations.map(|life| life.map(|life| life.generation));
    released
        && came
            .sum::<Result<u64, _>>()
            .is_ok_and(|came| Some(came) <= told)
}

/// Returns the role of a seat, and the process id that its holder wrote, or 0 if the file cannot be
/// read.
fn holder(control: &OwnedFd, seat: usize) -> (Role, u64) {
    let unknown = match seat {
        0 => (Role::Producer, 0),
        _ => (Role::Consumer, 0),
    };
    let Ok(mapping) = map_control(control, false, Path::new(CONTROL)) else {
        return unknown;
    };
    // Whole pages: `view` rejects a shorter control part.
    let needed = (SEATS + (seat + 1) * LINE).next_multiple_of(PAGE);
    let Ok(view) = control_of(&mapping) else {
        return unknown;
    };
    if mapping.len() < needed {
        return unknown;
    }
    let pid = view.seat(seat).pid.load(Ordering::Relaxed);
    match view.read(u64::MAX) {
        Ok(header) => (header.geometry.role_of(seat), pid),
        Err(_) => (unknown.0, pid),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::fs;
    use std::path::Path;

    /// A directory for one test, removed on drop.
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

    /// Makes a directory that looks like a channel without its control file.
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

    /// Two processes remove a channel without a control file, which has no locks to keep them
    /// apart. Between the later one's look and its rename, a third makes a new channel of that
    /// name.
    #[test]
    fn a_channel_made_meanwhile_stays() {
        let dir = Dir::new("made-meanwhile");
        let parent = dir.open();
        let name = Name::new("x").unwrap();
        let place = Place::new(&name, channel(&parent, "x"), &parent).unwrap();
        fs::rename(dir.0.join("x"), dir.0.join("elsewhere")).unwrap();
        let live = channel(&parent, "x");
        assert!(matches!(unlink(&place), Err(SetupError::NotFound { .. })));
        assert!(leads_to(&parent, "x", &live));
        assert_eq!(entries(&live).len(), 2);
        assert_eq!(hidden(&dir.0), Vec::<String>::new());
        // The right one is removed.
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

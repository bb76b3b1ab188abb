//! Named channels: a directory `NAME/` with the files `control` and `data`.
//!
//! It is built under a temporary name and appears by one `renameat2(RENAME_NOREPLACE)`: nobody ever
//! sees a half-made channel, and of two creators exactly one succeeds. A creator holds an `flock`
//! on the directory while it builds; what a killed one left is therefore recognised by its free
//! lock, and swept by the next creator.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use super::files::{
    CONTROL, DATA, Place, base, create_huge, create_part, entries, exists, make_dir, open_at,
    open_data, open_dir, open_part, parent_of, remove_data, shown, temporary,
};
use super::map::{self, Mapping};
use super::{Files, HugePages, Pages, Plan, Region, huge};
use crate::error::{Error, path};
use crate::lock;
use crate::name::{Name, directory};

const BUILDING: &str = ".new-";
const REMOVING: &str = ".old-";

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
        Region::attach(files, &shown).map_err(|error| error.about(&shown))
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

fn already_exists(name: &Name) -> Error {
    Error::AlreadyExists {
        name: name.to_string().into(),
        dir: path(directory().0),
    }
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

/// The control part of a channel, mapped to be looked at only, and the file that tells of locks.
pub(crate) fn inspect(name: &Name) -> Result<(OwnedFd, Mapping, u64), Error> {
    let parent = parent_of(name, None)?;
    let dir = open_dir(&parent, name)?;
    let control = open_part(dir.as_fd(), CONTROL, name, OFlags::RDONLY)?;
    let shown = shown(name);
    let len = map::file_len(&control, &shown)?.min(super::MAX_CONTROL);
    let mapping = map::existing(&control, len, false, &shown.join(CONTROL))?;
    let data = rustix::fs::statat(&dir, DATA, AtFlags::empty())
        .map_err(|errno| Error::os(format_args!("look at {}/{DATA}", shown.display()), errno))?;
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

//! Memory without a name: two memfds, and a pipe a seat, to be inherited by a child or passed over a Unix socket.

use std::cmp::Ordering;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use slipring_core::layout::MOST_SEATS;

use super::map::Mapping;
use super::space::backed;
use super::{Files, HugePages, Passed, Plan, Region, huge, pipes};
use crate::error::Error;

/// Against a peer that resizes the file under us. Holes can still be punched: then what was there
/// reads as zeros, which no protocol takes for a message.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

impl Region {
    /// A fresh channel in two memfds, and what its `Channel` needs to pass it on.
    pub(crate) fn memfd(plan: &Plan) -> Result<(Region, Arc<Passed>), Error> {
        let (control_file, control) = create(
            "slipring-control",
            plan.geometry.control_len(),
            HugePages::Off,
        )?;
        let needed = plan.geometry.data_len() as usize;
        let ((data_file, data), pages) = huge::with_fallback(plan.huge, |size| {
            create("slipring-data", size.round(needed), size)
        })?;
        let passed = Arc::new(Passed {
            data: data_file,
            pipes: pipes::anonymous(plan.geometry.seats())?,
        });
        let files = Files {
            control: control_file,
            place: None,
            passed: Arc::downgrade(&passed),
        };
        let region = Region::format(control, data, Some(files), pages, plan)?;
        if plan.sealed {
            // After our own mapping was made, which stays writable. Those that come later are refused,
            // and so are `write`, `mprotect` and the punching of holes.
            rustix::fs::fcntl_add_seals(&passed.data, SealFlags::FUTURE_WRITE)
                .map_err(|errno| Error::os("seal the data part against writing", errno))?;
        }
        Ok((region, passed))
    }

    /// The channel in descriptors that somebody passed: two memfds that nobody can resize any more,
    /// and a pipe for each seat; whatever else they are is refused.
    pub(crate) fn from_fds(descriptors: Vec<OwnedFd>) -> Result<(Region, Arc<Passed>), Error> {
        let mut descriptors = descriptors.into_iter();
        let mut next = |part| descriptors.next().ok_or_else(|| bad(part, "missing"));
        let (control, data) = (next("control")?, next("data")?);
        let pipes: Vec<OwnedFd> = descriptors.collect();
        check("control", &control)?;
        check("data", &data)?;
        // Before each of them is looked at, and opened once more.
        if pipes.len() > 1 + MOST_SEATS {
            return Err(bad("pipe", "one too many"));
        }
        if !pipes.iter().all(|pipe| pipes::is_pipe(pipe.as_fd())) {
            return Err(bad("pipe", "no pipe"));
        }
        // Descriptions of our own: what was passed shares its sender's, and with it all locks. Of the pipes
        // each handle opens its own; what is kept here only reads, since a writer hides every hang-up.
        let (control, data) = (fresh_description(&control)?, fresh_description(&data)?);
        let read = |pipe: &OwnedFd| pipes::reopened(pipe.as_fd(), pipes::READ).map(Arc::new);
        let pipes = pipes.iter().map(read).collect::<Result<_, _>>()?;
        let passed = Arc::new(Passed { data, pipes });
        let files = Files {
            control,
            place: None,
            passed: Arc::downgrade(&passed),
        };
        let region = Region::attach(files, &passed.data, Path::new("(passed)"), true)?;
        match passed.pipes.len().cmp(&region.geometry().seats()) {
            Ordering::Less => Err(bad("pipe", "missing")),
            Ordering::Equal => Ok((region, passed)),
            Ordering::Greater => Err(bad("pipe", "one too many")),
        }
    }
}

/// Another description of the same file, which shares no locks with the first.
pub(crate) fn fresh_description(file: &OwnedFd) -> Result<OwnedFd, Error> {
    reopened(file, rustix::fs::OFlags::RDWR)
}

pub(super) fn reopened(file: &OwnedFd, access: rustix::fs::OFlags) -> Result<OwnedFd, Error> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    use rustix::fs::OFlags;
    // Not to be kept waiting for the holder of a lease, if it came with one.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(&path, flags, rustix::fs::Mode::empty()) {
        Ok(file) => Ok(file),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::NeedsProc),
        Err(errno) => Err(Error::os("reopen the channel's descriptor", errno)),
    }
}

/// Whether only who made the file may write it.
pub(super) fn is_sealed(data: &OwnedFd) -> bool {
    let writing = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
    // No memfd: no seals.
    rustix::fs::fcntl_get_seals(data).is_ok_and(|seals| seals.intersects(writing))
}

fn create(name: &str, len: usize, huge: HugePages) -> Result<(OwnedFd, Mapping), Error> {
    let what = || format!("a memfd ({name})");
    let fail = |errno| Error::space(what(), len as u64, errno);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | huge.memfd_flags();
    let file = rustix::fs::memfd_create(name, flags).map_err(fail)?;
    let mapping = backed(&file, len).map_err(|refused| refused.error(what(), len))?;
    rustix::fs::fcntl_add_seals(&file, SEALS).map_err(fail)?;
    Ok((file, mapping))
}

fn bad(part: &'static str, found: &str) -> Error {
    let expected = match part {
        "pipe" => "a pipe for each seat, after control and data",
        _ => "a memfd sealed against resizing (F_SEAL_SHRINK and F_SEAL_GROW)",
    };
    Error::BadDescriptor {
        part,
        found: found.into(),
        expected,
    }
}

fn check(part: &'static str, file: &OwnedFd) -> Result<(), Error> {
    match rustix::fs::fcntl_get_seals(file) {
        Ok(seals) if !seals.contains(SEALS) => Err(bad(part, "a memfd that can still be resized")),
        Ok(_) => match rustix::fs::fstat(file) {
            Ok(stat) if stat.st_size == 0 => Err(bad(part, "an empty memfd")),
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::os("look at a passed descriptor", errno)),
        },
        Err(_) => Err(bad(part, "no memfd")),
    }
}

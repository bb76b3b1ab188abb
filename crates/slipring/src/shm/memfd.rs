//! Memory without a name: two memfds, and a pipe per seat, for a child to inherit or to pass over a
//! Unix socket.

use std::cmp::Ordering;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use slipring_core::layout::MOST_IN_ALL;

use super::fds::{SEALS, fresh_description};
use super::map::Mapping;
use super::region::{Files, Passed, Plan, Region};
use super::space::{Fill, made};
use super::{huge, pipes};
use crate::pages::HugePages;
use crate::setup_error::SetupError;

impl Region {
    /// Makes a fresh channel in two memfds. Also returns what its `Channel` needs to pass it on.
    pub(crate) fn memfd(plan: &Plan) -> Result<(Region, Arc<Passed>), SetupError> {
        let (control_file, control) = create(
            "slipring-control",
            plan.geometry.control_len(),
            HugePages::Off,
            Fill::Whole,
        )?;
        let needed = plan.geometry.data_len() as usize;
        let ((data_file, data), pages) = huge::with_fallback(plan.huge, |size| {
            create("slipring-data", size.round(needed), size, plan.fill(size))
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
            // Seal after making our own mapping, which stays writable. The kernel refuses later
            // writable mappings, and `write`, `mprotect` and the punching of holes as well.
            rustix::fs::fcntl_add_seals(&passed.data, SealFlags::FUTURE_WRITE)
                .map_err(|errno| SetupError::os("seal the data part against writing", errno))?;
        }
        Ok((region, passed))
    }

    /// Opens the channel in passed descriptors: two memfds that no process can resize any more, and
    /// a pipe for each seat. Refuses any other descriptors.
    pub(crate) fn from_fds(descriptors: Vec<OwnedFd>) -> Result<(Region, Arc<Passed>), SetupError> {
        let mut descriptors = descriptors.into_iter();
        let mut next = |part| descriptors.next().ok_or_else(|| bad(part, "missing"));
        let (control, data) = (next("control")?, next("data")?);
        let pipes: Vec<OwnedFd> = descriptors.collect();
        check("control", &control)?;
        check("data", &data)?;
        // Before looking at each of them, and opening it once more.
        if pipes.len() > MOST_IN_ALL {
            return Err(bad("pipe", "one too many"));
        }
        if !pipes.iter().all(|pipe| pipes::is_pipe(pipe.as_fd())) {
            return Err(bad("pipe", "no pipe"));
        }
        // Open our own descriptions: a passed descriptor shares its sender's, and with it all
        // locks. Each handle opens its own pipes. The ones kept here only read, because a writer
        // hides every hang-up.
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

fn create(
    name: &str,
    len: usize,
    huge: HugePages,
    fill: Fill,
) -> Result<(OwnedFd, Mapping), SetupError> {
    let what = || format!("a memfd ({name})");
    let fail = |errno| SetupError::space(what(), len as u64, errno);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | huge.memfd_flags();
    let file = rustix::fs::memfd_create(name, flags).map_err(fail)?;
    let mapping = made(&file, len, fill).map_err(|refused| refused.error(what(), len))?;
    rustix::fs::fcntl_add_seals(&file, SEALS).map_err(fail)?;
    Ok((file, mapping))
}

fn bad(part: &'static str, found: &str) -> SetupError {
    let expected = match part {
        "pipe" => "a pipe for each seat, after control and data",
        _ => "a memfd sealed against resizing (F_SEAL_SHRINK and F_SEAL_GROW)",
    };
    SetupError::BadDescriptor {
        part,
        found: found.into(),
        expected,
    }
}

fn check(part: &'static str, file: &OwnedFd) -> Result<(), SetupError> {
    match rustix::fs::fcntl_get_seals(file) {
        Ok(seals) if !seals.contains(SEALS) => Err(bad(part, "a memfd that can still be resized")),
        Ok(_) => match rustix::fs::fstat(file) {
            Ok(stat) if stat.st_size == 0 => Err(bad(part, "an empty memfd")),
            Ok(_) => Ok(()),
            Err(errno) => Err(SetupError::os("look at a passed descriptor", errno)),
        },
        Err(_) => Err(bad(part, "no memfd")),
    }
}

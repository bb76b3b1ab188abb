//! Pipes: one for each seat, by which an event loop learns that its channel has something to tell.
//!
//! Whoever sits in a seat reads its pipe; whoever sits opposite writes it, and holds it open for writing
//! for as long as it lives, so that the kernel hangs the pipe up when it dies. (The producer of a named
//! `broadcast` channel opens the pipe of a consumer when it first writes there.) Each opens a description
//! of its own: no stranger can make it block.
//!
//! | region | where the pipes are |
//! |---|---|
//! | named | FIFOs `pipe-0`, `pipe-1`, .. in the channel's directory |
//! | memfd | passed beside the memfds; reopened through /proc |
//! | heap | made when one is first asked for |
//! | borrowed | none |

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use slipring_core::layout::{Kind, MOST_SEATS};

use super::{Region, files};
use crate::error::Error;
use crate::name::Name;
use crate::seat::Role;

/// For a reader: nobody's write fails for want of one while it is open.
pub(crate) const READ: OFlags = OFlags::RDONLY;
/// For a writer: it reads as well, so that it may write when nobody else reads.
pub(crate) const WRITE: OFlags = OFlags::RDWR;

const OWN: OFlags = OFlags::NONBLOCK.union(OFlags::CLOEXEC);

pub(super) fn name(seat: usize) -> String {
    format!("pipe-{seat}")
}

/// The seat whose FIFO has this name.
pub(super) fn seat_of(name: &str) -> Option<usize> {
    let seat = name.strip_prefix("pipe-")?.parse().ok()?;
    (seat <= MOST_SEATS && self::name(seat) == name).then_some(seat)
}

/// The pipes of a channel in private memory: reading and writing end of each seat's.
pub(crate) struct Private {
    pipes: Vec<Mutex<Option<(OwnedFd, OwnedFd)>>>,
    /// How many forks lay between the program's start and the process that made it.
    forks: u64,
}

impl Private {
    /// The pipes of so many seats.
    pub(super) fn new(seats: usize) -> Private {
        Private {
            pipes: (0..seats).map(|_| Mutex::default()).collect(),
            forks: crate::fork::forks(),
        }
    }

    /// Whether a fork has come between: then the pipes are another process's as well.
    pub(crate) fn inherited(&self) -> bool {
        self.forks != crate::fork::forks()
    }

    fn of(&self, seat: usize) -> MutexGuard<'_, Option<(OwnedFd, OwnedFd)>> {
        self.pipes[seat]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self, seat: usize) -> Result<OwnedFd, Errno> {
        let mut pipe = self.of(seat);
        let ends = match &*pipe {
            Some(ends) => ends,
            None => pipe.insert(rustix::pipe::pipe_with(
                PipeFlags::NONBLOCK | PipeFlags::CLOEXEC,
            )?),
        };
        rustix::io::fcntl_dupfd_cloexec(&ends.0, 0)
    }

    /// Writes the pipe of `seat`, if it was ever asked for.
    pub(crate) fn write(&self, seat: usize) {
        if let Some((_, write)) = &*self.of(seat) {
            ring(write.as_fd());
        }
    }
}

/// Makes whoever polls the pipe look. A full pipe is readable already.
pub(crate) fn ring(pipe: BorrowedFd<'_>) {
    while rustix::io::write(pipe, &[1]) == Err(Errno::INTR) {}
}

/// Takes out what was written: from now on the pipe is not readable until somebody writes again. (A
/// stranger who writes faster than we read leaves it readable: better than to keep us here.)
///
/// Returns `true` if anything was written.
pub(crate) fn drain(pipe: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 1024];
    let mut found = false;
    for _ in 0..64 {
        match rustix::io::read(pipe, &mut bytes) {
            Ok(1024) => found = true,
            Err(Errno::INTR) => {}
            // Empty; or hung up, with nothing left.
            read => return found || read.is_ok_and(|read| read > 0),
        }
    }
    found
}

impl Region {
    /// Returns `true` if whoever holds seat `holder` opens the pipes opposite only when it first writes them. So does
    /// the producer of a named `broadcast` channel, which may have 63 pipes opposite. (A passed channel's producer
    /// must hold its pipes in any case: no name leads to them.)
    pub(crate) fn opens_late(&self, holder: Role) -> bool {
        let named = self
            .files
            .as_ref()
            .is_some_and(|files| files.place.is_some());
        named && self.geometry().kind == Kind::Broadcast && holder == Role::Producer
    }

    /// The passed pipe of `seat`, for the handle that sits there: it outlives the `Channel` by that.
    pub(crate) fn passed_pipe(&self, seat: usize) -> Option<Arc<OwnedFd>> {
        let passed = self.files.as_ref()?.passed.upgrade()?;
        passed.pipes.get(seat).cloned()
    }

    /// A description of our own of the pipe of `seat`.
    pub(crate) fn pipe(&self, seat: usize, access: OFlags) -> Result<OwnedFd, Error> {
        let fail = |errno| Error::os("open the channel's pipe", errno);
        let Some(files) = &self.files else {
            let private = self.private.as_deref().ok_or(Error::NoPipes)?;
            return private.reader(seat).map_err(fail);
        };
        if let Some(place) = &files.place {
            let pipe = named(place.dir.as_fd(), &place.name, seat, access);
            // Without it since the channel is gone: then that is what to say.
            return pipe.or_else(|error| self.check_name().and(Err(error)));
        }
        let passed = files.passed.upgrade().ok_or(Error::NoPipes)?;
        let pipe = passed.pipes.get(seat).ok_or(Error::NoPipes)?;
        reopened(pipe.as_fd(), access)
    }
}

/// A description of our own of a pipe that was passed, by whichever end.
pub(crate) fn reopened(pipe: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd, Error> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    match rustix::fs::open(&path, access | OWN, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::NeedsProc),
        pipe => pipe.map_err(|errno| Error::os("open the channel's pipe", errno)),
    }
}

fn named(dir: BorrowedFd<'_>, name: &Name, seat: usize, access: OFlags) -> Result<OwnedFd, Error> {
    let part = self::name(seat);
    let shown = || files::shown(name).join(&part);
    let flags = access | OWN | OFlags::NOFOLLOW;
    let refused = || Error::NotAChannel {
        what: shown().display().to_string().into(),
        found: None,
    };
    match rustix::fs::openat(dir, &part, flags, Mode::empty()) {
        Ok(pipe) if is_pipe(pipe.as_fd()) => Ok(pipe),
        // ENXIO: a socket.
        Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Err(refused()),
        Err(errno) => Err(Error::os(format_args!("open {}", shown().display()), errno)),
    }
}

pub(super) fn is_pipe(pipe: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(pipe)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// The FIFOs of a new named channel.
pub(super) fn create(dir: &OwnedFd, seats: usize, mode: u32) -> Result<(), Error> {
    for seat in 0..seats {
        let name = name(seat);
        let made = rustix::fs::mkfifoat(dir, &name, Mode::RUSR | Mode::WUSR).and_then(|()| {
            // The umask has no say in what the caller chose.
            let mode = Mode::from_raw_mode(mode & 0o666);
            rustix::fs::chmodat(dir, &name, mode, AtFlags::empty())
        });
        made.map_err(|errno| Error::space("the channel's pipes", 0, errno))?;
    }
    Ok(())
}

/// The pipes of a new channel without a name. (Their writing ends are opened by those who write.) As
/// with a memfd, whoever was given one may open it, another user too.
pub(super) fn anonymous(seats: usize) -> Result<Vec<Arc<OwnedFd>>, Error> {
    let pipe = |_| {
        let (pipe, _) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        rustix::fs::fchmod(&pipe, Mode::from_raw_mode(0o666))?;
        Ok(Arc::new(pipe))
    };
    let made: Result<_, Errno> = (0..seats).map(pipe).collect();
    made.map_err(|errno| Error::os("make the channel's pipes", errno))
}

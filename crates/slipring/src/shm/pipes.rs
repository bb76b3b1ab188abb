//! Pipes: one for each seat, which tells an event loop that its channel has news.
//!
//! The holder of a seat reads its pipe. The peer opposite writes it, and holds it open for writing
//! for as long as it lives. So the kernel hangs the pipe up when the peer dies. The producer of a
//! named `broadcast` channel opens the pipe of a consumer when it first writes there. Each opens a
//! description of its own, so no other process can make it block.
//!
//! | region | place of the pipes |
//! |---|---|
//! | named | FIFOs `pipe-0`, `pipe-1`, .. in the channel's directory |
//! | memfd | passed beside the memfds; reopened through /proc |
//! | heap | made at the first request |
//! | borrowed | none |

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use slipring_core::layout::MOST_IN_ALL;

use crate::error::{self, Error};
use crate::setup_error::SetupError;

/// For a reader: while it is open, no write fails for want of a reader.
pub(crate) const READ: OFlags = OFlags::RDONLY;
/// For a writer: it reads as well, so that it may write when there is no other reader.
pub(crate) const WRITE: OFlags = OFlags::RDWR;

const OWN: OFlags = OFlags::NONBLOCK.union(OFlags::CLOEXEC);

pub(super) fn name(seat: usize) -> String {
    format!("pipe-{seat}")
}

/// Returns the seat whose FIFO has this name.
pub(super) fn seat_of(name: &str) -> Option<usize> {
    let seat = name.strip_prefix("pipe-")?.parse().ok()?;
    (seat < MOST_IN_ALL && self::name(seat) == name).then_some(seat)
}

/// The pipes of a channel in private memory: the reading and the writing end of each seat's pipe.
pub(crate) struct Private {
    pipes: Vec<Mutex<Option<(OwnedFd, OwnedFd)>>>,
    /// The number of forks between the program's start and the process that made it.
    forks: u64,
}

impl Private {
    /// Returns the pipes of `seats` seats.
    pub(super) fn new(seats: usize) -> Private {
        Private {
            pipes: (0..seats).map(|_| Mutex::default()).collect(),
            forks: crate::fork::forks(),
        }
    }

    /// Returns `true` after a fork: then the pipes belong to another process as well.
    pub(crate) fn inherited(&self) -> bool {
        self.forks != crate::fork::forks()
    }

    fn of(&self, seat: usize) -> MutexGuard<'_, Option<(OwnedFd, OwnedFd)>> {
        self.pipes[seat]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reader(&self, seat: usize) -> Result<OwnedFd, Errno> {
        let mut pipe = self.of(seat);
        let ends = match &*pipe {
            Some(ends) => ends,
            None => pipe.insert(rustix::pipe::pipe_with(
                PipeFlags::NONBLOCK | PipeFlags::CLOEXEC,
            )?),
        };
        rustix::io::fcntl_dupfd_cloexec(&ends.0, 0)
    }

    /// Writes to the pipe of `seat`, if it was ever requested.
    pub(crate) fn write(&self, seat: usize) {
        if let Some((_, write)) = &*self.of(seat) {
            ring(write.as_fd());
        }
    }
}

/// Makes the pipe readable, so that its poller looks. A full pipe is readable already.
pub(crate) fn ring(pipe: BorrowedFd<'_>) {
    while rustix::io::write(pipe, &[1]) == Err(Errno::INTR) {}
}

/// Empties the pipe, so that it is not readable until the next write. Returns `true` if there was
/// anything in it.
///
/// A process that writes faster than we read leaves the pipe readable. That is better than to keep
/// us here.
pub(crate) fn drain(pipe: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 1024];
    let mut found = false;
    for _ in 0..64 {
        match rustix::io::read(pipe, &mut bytes) {
            Ok(1024) => found = true,
            Err(Errno::INTR) => {}
            // Empty, or hung up with nothing left.
            read => return found || read.is_ok_and(|read| read > 0),
        }
    }
    found
}

/// Opens a description of our own of a passed pipe, from either of its ends.
pub(crate) fn reopened(pipe: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd, Error> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let opened = rustix::fs::open(&path, access | OWN, Mode::empty());
    opened.map_err(|errno| error::os("open a passed pipe through /proc (is it mounted?)", errno))
}

pub(super) fn named(dir: BorrowedFd<'_>, seat: usize, access: OFlags) -> Result<OwnedFd, Error> {
    let flags = access | OWN | OFlags::NOFOLLOW;
    match rustix::fs::openat(dir, self::name(seat), flags, Mode::empty()) {
        Ok(pipe) if is_pipe(pipe.as_fd()) => Ok(pipe),
        // ENXIO: it is a socket.
        Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
            Err(Error::BadPipe { seat: seat as u64 })
        }
        Err(errno) => Err(error::os("open the channel's pipe", errno)),
    }
}

pub(super) fn is_pipe(pipe: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(pipe)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Makes the FIFOs of a new named channel.
pub(super) fn create(dir: &OwnedFd, seats: usize, mode: u32) -> Result<(), SetupError> {
    for seat in 0..seats {
        let name = name(seat);
        let made = rustix::fs::mkfifoat(dir, &name, Mode::RUSR | Mode::WUSR).and_then(|()| {
            // Set the mode explicitly: the umask does not apply to the caller's choice.
            let mode = Mode::from_raw_mode(mode & 0o666);
            rustix::fs::chmodat(dir, &name, mode, AtFlags::empty())
        });
        made.map_err(|errno| SetupError::space("the channel's pipes", 0, errno))?;
    }
    Ok(())
}

/// Makes the pipes of a new channel without a name. The writers open their own writing ends. As
/// with a memfd, a process that was given a pipe may open it, even as another user.
pub(super) fn anonymous(seats: usize) -> Result<Vec<Arc<OwnedFd>>, Error> {
    let pipe = |_| {
        let (pipe, _) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        rustix::fs::fchmod(&pipe, Mode::from_raw_mode(0o666))?;
        Ok(Arc::new(pipe))
    };
    let made: Result<_, Errno> = (0..seats).map(pipe).collect();
    made.map_err(|errno| error::os("make the channel's pipes", errno))
}

//! Standard output, as the verbs write it that pass messages on: in large pieces, and never so that a signal
//! would have to wait for whoever reads it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::exit::Failure;
use crate::signals::Signals;

/// Records at least so long are written from where they lie.
const DIRECT: usize = 16 << 10;
/// About so much is kept before it is written.
pub(crate) const BATCH: usize = 64 << 10;

/// How records are told apart.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    /// Not at all: only their bytes are written.
    Bytes,
    /// The length before each, as u32 little-endian.
    Framed,
}

/// How standard output is written so that a write does not block.
enum Way {
    /// A file: writes to it do not wait for a reader.
    File,
    /// Our own description of a pipe or terminal, which does not block.
    Own(OwnedFd),
    /// A socket: each send says by itself that it does not block.
    Socket,
    /// Anything else: wait until it is writable, and write no more than then fits for certain.
    Polled,
}

/// A pipe that is writable takes this many bytes without blocking (`PIPE_BUF`).
const SMALL: usize = 4096;

/// Standard output, with what is on its way there.
pub(crate) struct Output {
    format: Format,
    way: Way,
    pending: Vec<u8>,
}

impl Output {
    /// Writes to a pipe must not block, or a signal would have to wait for its reader. `O_NONBLOCK`
    /// belongs to the description, which we share with others; so we open one of our own.
    pub(crate) fn stdout(format: Format) -> Output {
        let kind = rustix::fs::fstat(rustix::stdio::stdout())
            .map(|stat| FileType::from_raw_mode(stat.st_mode));
        let way = match kind {
            Ok(FileType::Fifo | FileType::CharacterDevice) => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                // Without /proc, or where it may not be opened, we poll before each write.
                rustix::fs::open("/proc/self/fd/1", flags, Mode::empty())
                    .map_or(Way::Polled, Way::Own)
            }
            Ok(FileType::Socket) => Way::Socket,
            _ => Way::File,
        };
        Output {
            format,
            way,
            pending: Vec::with_capacity(BATCH + DIRECT),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Own(own) => own.as_fd(),
            _ => rustix::stdio::stdout(),
        }
    }

    /// One write of what fits now; `AGAIN` if nothing does.
    fn write_some(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        match self.way {
            Way::File | Way::Own(_) => rustix::io::write(self.fd(), bytes),
            Way::Socket => send(self.fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Polled => {
                let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::OUT)];
                match poll(&mut fds, Some(&Timespec::default()))? {
                    0 => Err(Errno::AGAIN),
                    _ => rustix::io::write(self.fd(), &bytes[..bytes.len().min(SMALL)]),
                }
            }
        }
    }

    /// How many bytes are kept for `flush`.
    pub(crate) fn kept(&self) -> usize {
        self.pending.len()
    }

    /// Writes a record, or keeps a short one until `flush`.
    pub(crate) fn put(&mut self, record: &[u8], signals: &Signals) -> Result<(), Failure> {
        if let Format::Framed = self.format {
            let len = u32::try_from(record.len()).map_err(|_| {
                Failure::Words(format!(
                    "a record of {} bytes is too long for --framed (u32)",
                    record.len()
                ))
            })?;
            self.pending.extend_from_slice(&len.to_le_bytes());
        }
        if record.len() < DIRECT {
            self.pending.extend_from_slice(record);
        } else {
            self.flush(signals)?;
            self.write(record, signals)?;
        }
        Ok(())
    }

    /// Writes what was kept.
    pub(crate) fn flush(&mut self, signals: &Signals) -> Result<(), Failure> {
        let pending = std::mem::take(&mut self.pending);
        let written = self.write(&pending, signals);
        self.pending = pending;
        self.pending.clear();
        written
    }

    fn write(&self, mut bytes: &[u8], signals: &Signals) -> Result<(), Failure> {
        while !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => signals.check()?,
                Err(Errno::AGAIN) => {
                    signals.wait(self.fd(), PollFlags::OUT, "standard output")?;
                }
                Err(Errno::PIPE) => return Err(Failure::BrokenPipe),
                Err(errno) => return Err(Failure::io("write to standard output", errno)),
            }
        }
        Ok(())
    }
}

//! Writes standard output for the verbs that pass messages on. It writes large pieces, and never
//! blocks: a signal would otherwise have to wait for the reader of the output.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::exit::Failure;
use crate::signals::Signals;

/// Records of at least this length are written in place.
const DIRECT: usize = 16 << 10;
/// About this many bytes are kept before they are written.
pub(crate) const BATCH: usize = 64 << 10;

/// The way in which records are separated.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    /// No separation: only the bytes are written.
    Bytes,
    /// Each record follows its length, as u32 little-endian.
    Framed,
}

/// The way in which a write to standard output avoids blocking.
enum Way {
    /// A file: writes to it do not wait for a reader.
    File,
    /// Our own description of a pipe or terminal, which does not block.
    Own(OwnedFd),
    /// A socket: each send says by itself that it does not block.
    Socket,
    /// Anything else: wait until it is writable, and write only as much as then fits for certain.
    Polled,
}

/// A pipe that is writable takes this many bytes without blocking (`PIPE_BUF`).
const SMALL: usize = 4096;

/// Standard output, with the bytes that are kept for it.
pub(crate) struct Output {
    format: Format,
    way: Way,
    pending: Vec<u8>,
}

impl Output {
    /// Opens standard output for writes that do not block: with a blocked write, a signal would
    /// have to wait for the pipe's reader. `O_NONBLOCK` belongs to the description, which we share
    /// with others; so we open one of our own.
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

    /// Writes once, as much as fits now, and returns the count, or `AGAIN` if nothing fits.
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

    /// Returns the number of bytes that are kept for `flush`.
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

    /// Writes the kept bytes.
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

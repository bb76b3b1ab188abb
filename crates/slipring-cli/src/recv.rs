//! `slipring recv`: a channel to standard output.
//!
//! A record is released only after it was written: if nobody reads the output any more, or a signal
//! comes while it is stuck, the record stays in the channel for the next `recv`, which writes it
//! anew from its start. The end of the stream is acknowledged last; from then on it is history.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use slipring::{End, Error, bytes::Consumer};

use crate::exit::Failure;
use crate::progress::Progress;
use crate::send::tick;
use crate::shape::Shape;
use crate::signals::{Signals, TICK};

/// Records at least so long are written from where they lie.
const DIRECT: usize = 16 << 10;
/// At most about so much is written before it is released.
const BATCH: usize = 64 << 10;

/// Write a channel to standard output, until its sender finishes
///
/// Exits with 0 only if the sender finished; see the codes in `slipring --help`. An end that an
/// earlier recv has seen is history: this one waits for the next sender.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`; made if it does not exist
    name: String,
    /// Write the records as they are, one after another (the default)
    #[arg(long, group = "format")]
    raw: bool,
    /// Write a newline after each record
    #[arg(long, group = "format")]
    lines: bool,
    /// Write the length before each record, as u32 little-endian
    #[arg(long, group = "format")]
    framed: bool,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Format {
    Raw,
    Lines,
    Framed,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let format = match (args.lines, args.framed) {
        (true, _) => Format::Lines,
        (_, true) => Format::Framed,
        _ => Format::Raw,
    };
    let mut rx = args.shape.builder().consumer(&args.name)?;
    match recv(&mut rx, format, &signals) {
        // Dropping the consumer acknowledges the end, now that all is written.
        Ok(End::Finished) => Ok(()),
        Ok(end) => Err(Failure::Ended(end)),
        Err(failure) => {
            rx.abort();
            Err(failure)
        }
    }
}

fn recv(rx: &mut Consumer, format: Format, signals: &Signals) -> Result<End, Failure> {
    let bar = Progress::bytes("recv", None);
    let mut output = Output::stdout(format);
    loop {
        signals.check()?;
        match rx.read_timeout(TICK) {
            Ok(first) => first.keep(),
            Err(Error::TimedOut) => continue,
            Err(Error::Disconnected(end)) => return Ok(end),
            Err(error) => return Err(error.into()),
        }
        bar.add(pass_on(rx, &mut output, signals)?);
    }
}

/// Writes some records and releases them; on a failure none is released.
fn pass_on(rx: &mut Consumer, output: &mut Output, signals: &Signals) -> Result<u64, Failure> {
    let mut records = rx.try_read_batch(usize::MAX)?;
    let mut passed = 0;
    let written = (|| {
        while passed < BATCH {
            match records.next().map_err(Error::from)? {
                Some(record) => {
                    output.put(record, signals)?;
                    passed += record.len().max(8);
                }
                None => break,
            }
        }
        output.flush(signals)
    })();
    match written {
        Ok(()) => records.release(),
        // Not dropped: dropping releases.
        Err(_) => std::mem::forget(records),
    }
    written.map(|()| passed as u64)
}

/// Standard output, with what is on its way there.
struct Output {
    format: Format,
    /// Our own description of a pipe or terminal, which does not block; nothing for a file.
    own: Option<OwnedFd>,
    pending: Vec<u8>,
}

impl Output {
    /// Writes to a pipe must not block, or a signal would have to wait for its reader. `O_NONBLOCK`
    /// belongs to the description, which we share with others; so we open one of our own.
    fn stdout(format: Format) -> Output {
        let kind = rustix::fs::fstat(rustix::stdio::stdout())
            .map(|stat| FileType::from_raw_mode(stat.st_mode));
        let own = match kind {
            Ok(FileType::Fifo | FileType::CharacterDevice) => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                // Without /proc, or where it may not be opened, writes block after all.
                rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).ok()
            }
            _ => None,
        };
        Output {
            format,
            own,
            pending: Vec::with_capacity(BATCH + DIRECT),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.own {
            Some(own) => own.as_fd(),
            None => rustix::stdio::stdout(),
        }
    }

    /// Writes a record, or keeps a short one until `flush`.
    fn put(&mut self, record: &[u8], signals: &Signals) -> Result<(), Failure> {
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
        if let Format::Lines = self.format {
            self.pending.push(b'\n');
        }
        Ok(())
    }

    fn flush(&mut self, signals: &Signals) -> Result<(), Failure> {
        let pending = std::mem::take(&mut self.pending);
        let written = self.write(&pending, signals);
        self.pending = pending;
        self.pending.clear();
        written
    }

    fn write(&self, mut bytes: &[u8], signals: &Signals) -> Result<(), Failure> {
        while !bytes.is_empty() {
            match rustix::io::write(self.fd(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => signals.check()?,
                Err(Errno::AGAIN) => {
                    signals.check()?;
                    let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::OUT)];
                    match poll(&mut fds, Some(&tick())) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(Failure::io("wait for standard output", errno)),
                    }
                }
                Err(Errno::PIPE) => return Err(Failure::BrokenPipe),
                Err(errno) => return Err(Failure::io("write to standard output", errno)),
            }
        }
        Ok(())
    }
}

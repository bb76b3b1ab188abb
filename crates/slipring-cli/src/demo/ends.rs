//! Runs the two processes of the demo, over a channel whose memory they inherited.
//!
//! The writer reserves each message in the ring, fills it there and commits it, one at a time. The
//! reader checks each message in place, and releases a few at once. The clock is the reader's: it
//! runs from the first message that the reader sees until it has checked the last. The writer does
//! not begin before the reader has attached.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags};
use slipring::{Error, SetupError, bytes};

use super::waiting::Waiter;
use super::work::Work;
use super::{EndArgs, Tally};
use crate::exit::Failure;

/// Each side waits this long for the other to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Attaches to the channel in the descriptors that the parent left open for us.
///
/// The descriptors are opened anew through /proc, as slipring does with any passed descriptor. A
/// description shared with the parent would share its locks. The pipes are opened for reading
/// alone: a process that held one open for writing would keep it from hanging up when the other end
/// dies.
fn attach(args: &EndArgs) -> Result<bytes::Channel, Failure> {
    let open = |number: &i32| {
        let path = format!("/proc/self/fd/{number}");
        let open = |access| {
            let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Mode::empty())
                .map_err(|errno| Failure::io(format!("open {path}"), errno))
        };
        let found = open(OFlags::RDONLY)?;
        match rustix::fs::fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Fifo) => Ok(found),
            _ => open(OFlags::RDWR),
        }
    };
    let passed: Result<Vec<OwnedFd>, Failure> = args.passed.iter().map(open).collect();
    let builder = bytes::Builder::new(args.ring).wait(args.wait.how());
    Ok(builder.from_fds(passed?)?)
}

/// Runs the writing process.
pub(super) fn write(args: &EndArgs) -> Result<(), Failure> {
    let mut tx = attach(args)?.producer()?;
    let mut waiter = Waiter::new(args.wait, || tx.as_fd())?;
    match write_all(&mut tx, &mut waiter, args.work()) {
        Ok(()) => Ok(()),
        // The reader went away and reports the reason itself.
        Err(Failure::Slipring(SetupError::Message(Error::Disconnected(_)))) => {
            Err(Failure::Told(1))
        }
        Err(failure) => {
            tx.abort();
            Err(failure)
        }
    }
}

fn write_all(tx: &mut bytes::Producer, waiter: &mut Waiter, mut work: Work) -> Result<(), Failure> {
    tx.wait_for_consumer(PATIENCE)?;
    while let Some(size) = work.next() {
        loop {
            let error = match tx.try_reserve(size) {
                Ok(mut message) => {
                    work.fill(&mut message);
                    message.commit(size);
                    break;
                }
                Err(error) => error,
            };
            match error {
                Error::Full => waiter.room(tx, size)?,
                error => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Runs the reading process.
pub(super) fn read(args: &EndArgs) -> Result<(), Failure> {
    let mut rx = attach(args)?.consumer()?;
    let mut waiter = Waiter::new(args.wait, || rx.as_fd())?;
    let mut work = args.work();
    let mut tally = Tally::new(args);
    // The batch is large enough to save releases, and small enough that the writer never waits for
    // them.
    let mean = args.max_size as usize / 2 + 16;
    let batch = (args.ring / 8 / mean).clamp(1, 256);
    wait_for_first(&mut rx)?;
    tally.start();
    while work.number() < args.messages {
        let error = match rx.try_read_batch(batch) {
            Ok(mut messages) => {
                while let Some(message) = messages.next()? {
                    match work.next() {
                        Some(size) => work.check(message, size)?,
                        None => return Err(Failure::Words("more messages than were sent".into())),
                    }
                }
                messages.release();
                tally.progress(&work)?;
                continue;
            }
            Err(error) => error,
        };
        match error {
            Error::Empty => waiter.message(&mut rx)?,
            error => return Err(error.into()),
        }
    }
    tally.done(&work)
}

/// Spins until there is a message, so that the clock starts with the first one. After a sleep the
/// ring would already be full, and that filling would not be timed.
fn wait_for_first(rx: &mut bytes::Consumer) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        match rx.try_read() {
            Ok(first) => {
                first.keep();
                return Ok(());
            }
            // The writer may need this processor.
            Err(Error::Empty) if begun.elapsed() < PATIENCE => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}

//! The two processes of the demo, over a channel whose memory they inherited.
//!
//! The writer reserves each message in the ring, fills it there and commits it, one at a time; the
//! reader checks each where it lies, and releases a few at once. The clock is the reader's: it runs
//! from the first message that it sees until it has checked the last, and the writer does not begin
//! before the reader is there.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags};
use slipring::{Error, bytes};

use super::waiting::Waiter;
use super::work::Work;
use super::{EndArgs, Tally};
use crate::exit::Failure;

/// How long either side waits for the other to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The channel in the descriptors that the parent left open for us.
///
/// Opened anew through /proc, as slipring does with any passed descriptor: a description shared
/// with the parent would share its locks. The pipes for reading alone: whoever held one open for
/// writing would keep it from hanging up when the other end dies.
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

/// The writing process.
pub(super) fn write(args: &EndArgs) -> Result<(), Failure> {
    let mut tx = attach(args)?.producer()?;
    let mut waiter = Waiter::new(args.wait, || tx.as_fd())?;
    match write_all(&mut tx, &mut waiter, args.work()) {
        Ok(()) => Ok(()),
        // The reader, which went away, says why.
        Err(Failure::Slipring(Error::Disconnected(_))) => Err(Failure::Told(1)),
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

/// The reading process.
pub(super) fn read(args: &EndArgs) -> Result<(), Failure> {
    let mut rx = attach(args)?.consumer()?;
    let mut waiter = Waiter::new(args.wait, || rx.as_fd())?;
    let mut work = args.work();
    let mut tally = Tally::new(args);
    // Enough at once to spare the releases, and so little that the writer never waits for them.
    let mean = args.max_size as usize / 2 + 16;
    let batch = (args.ring / 8 / mean).clamp(1, 256);
    wait_for_first(&mut rx)?;
    tally.start();
    while work.number() < args.messages {
        let error = match rx.try_read_batch(batch) {
            Ok(mut messages) => {
                while let Some(message) = messages.next().map_err(Error::from)? {
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

/// Spins until there is something, so that the clock starts with the first message and not after
/// a nap in which the ring would have been filled unseen.
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

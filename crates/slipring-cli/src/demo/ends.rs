//! The two processes of the demo, over a channel whose memory they inherited.
//!
//! The writer reserves each message in the ring, fills it there and commits it, one at a time; the
//! reader checks each where it lies, and releases a few at once. The clock is the reader's: it runs
//! from the first message that it sees until it has checked the last, and the writer does not begin
//! before the reader is there.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use slipring::{Error, bytes};

use super::{EndArgs, Tally};
use crate::exit::Failure;

/// How long either side waits for the other to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The channel in the descriptors that the parent left open for us.
///
/// Opened anew through /proc, as slipring does with any passed descriptor: a description shared
/// with the parent would share its locks.
fn attach(args: &EndArgs) -> Result<bytes::Channel, Failure> {
    let open = |number: i32| {
        let path = format!("/proc/self/fd/{number}");
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| Failure::io(format!("open {path}"), error))
    };
    let passed: Result<Vec<OwnedFd>, Failure> =
        args.passed.iter().map(|fd| Ok(open(*fd)?.into())).collect();
    let builder = bytes::Builder::new(args.ring).wait(args.wait.how());
    Ok(builder.from_fds(passed?)?)
}

/// The writing process.
pub(super) fn write(args: &EndArgs) -> Result<(), Failure> {
    let mut tx = attach(args)?.producer()?;
    let mut work = args.work();
    let mut all = || {
        tx.wait_for_consumer(PATIENCE)?;
        while let Some(size) = work.next() {
            let mut message = tx.reserve(size)?;
            work.fill(&mut message);
            message.commit(size);
        }
        Ok(())
    };
    match all() {
        Ok(()) => Ok(()),
        // The reader, which went away, says why.
        Err(Error::Disconnected(_)) => Err(Failure::Told(1)),
        Err(error) => {
            tx.abort();
            Err(error.into())
        }
    }
}

/// The reading process.
pub(super) fn read(args: &EndArgs) -> Result<(), Failure> {
    let mut rx = attach(args)?.consumer()?;
    let mut work = args.work();
    let mut tally = Tally::new(args);
    // Enough at once to spare the releases, and so little that the writer never waits for them.
    let mean = args.max_size as usize / 2 + 16;
    let batch = (args.ring / 8 / mean).clamp(1, 256);
    wait_for_first(&mut rx)?;
    tally.start();
    while work.number() < args.messages {
        let mut messages = rx.read_batch(batch)?;
        while let Some(message) = messages.next().map_err(Error::from)? {
            match work.next() {
                Some(size) => work.check(message, size)?,
                None => return Err(Failure::Words("more messages than were sent".into())),
            }
        }
        messages.release();
        tally.progress(&work)?;
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
            Err(Error::Empty) if begun.elapsed() < PATIENCE => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
    }
}

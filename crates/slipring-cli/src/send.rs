//! `slipring send`: standard input into a channel, straight into its memory.
//!
//! Each `read(2)` goes into reserved space of the ring and is committed as one record. What was read
//! is in the channel before anything else happens, so nothing read is ever lost: without a receiver
//! the sender waits for one, however often they come and go. End of input finishes the stream; a
//! signal leaves it as *aborted*, after what was read.

use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::FileType;
use rustix::io::Errno;
use slipring::{Error, bytes::Producer};

use crate::exit::Failure;
use crate::progress::Progress;
use crate::role::Role;
use crate::shape::Shape;
use crate::signals::{Signals, TICK};

/// Read standard input into a channel; its end closes the channel
///
/// Beside `slipring recv NAME` it carries any file, whichever of the two starts first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`; made if it does not exist
    name: String,
    #[command(flatten)]
    role: Role,
    #[command(flatten)]
    shape: Shape,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let builder = args.shape.builder();
    let mut tx = args.role.take(&signals, || builder.producer(&args.name))?;
    args.shape.tell(&args.name, &tx.differences());
    let chunk = args.shape.chunk().min(tx.max_record());
    match send(&mut tx, chunk, &signals) {
        // Dropping the producer finishes the stream.
        Ok(()) => Ok(()),
        Err(failure) => {
            tx.abort();
            Err(failure)
        }
    }
}

fn send(tx: &mut Producer, chunk: usize, signals: &Signals) -> Result<(), Failure> {
    let input = Input::stdin();
    let bar = Progress::bytes("send", input.total);
    after_unread_end(tx, signals, &bar)?;
    let mut told = false;
    loop {
        input.wait(tx, signals)?;
        room(tx, chunk, signals, &bar, &mut told)?;
        let mut space = tx.try_reserve(chunk)?;
        match rustix::io::read(rustix::stdio::stdin(), &mut space[..]) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                space.commit(count);
                bar.add(count as u64);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Failure::io("read standard input", errno)),
        }
    }
}

/// Does not begin before the end of the stream before this one was read: a receiver could not tell
/// the two apart.
fn after_unread_end(tx: &Producer, signals: &Signals, bar: &Progress) -> Result<(), Failure> {
    if tx.follows_unread_end() {
        bar.say("the stream before this one is not read to its end; waiting for a receiver");
        while tx.follows_unread_end() {
            signals.check()?;
            tx.heartbeat();
            tx.check_name()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    } else if !tx.is_empty()? {
        bar.say("what an earlier sender left, without finishing, is still unread; this follows it");
    }
    Ok(())
}

/// Waits until a whole chunk can be reserved: for space, and if need be for a receiver, which it tells once.
fn room(
    tx: &mut Producer,
    chunk: usize,
    signals: &Signals,
    bar: &Progress,
    told: &mut bool,
) -> Result<(), Failure> {
    loop {
        signals.check()?;
        match tx.reserve_timeout(chunk, TICK) {
            Ok(_discarded) => return Ok(()),
            Err(Error::TimedOut) => {
                if !*told && tx.is_disconnected()? {
                    *told = true;
                    bar.say("the channel is full, and nobody reads it yet; waiting for a receiver");
                }
            }
            Err(Error::Disconnected(end)) => {
                bar.say(&format!(
                    "the channel is full, and its receiver {end}; waiting for the next one"
                ));
                next_consumer(tx, signals)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn next_consumer(tx: &mut Producer, signals: &Signals) -> Result<(), Failure> {
    loop {
        signals.check()?;
        match tx.wait_for_consumer(TICK) {
            Ok(()) => return Ok(()),
            Err(Error::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Standard input, as far as waiting for it goes.
struct Input {
    /// A regular file is always ready.
    ready: bool,
    /// How much will come, if that is known.
    total: Option<u64>,
}

impl Input {
    fn stdin() -> Input {
        let stdin = rustix::stdio::stdin();
        let stat = rustix::fs::fstat(stdin).ok();
        let file =
            stat.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let total = file.and_then(|stat| {
            let left = (stat.st_size as u64).checked_sub(rustix::fs::tell(stdin).ok()?)?;
            // Files of /proc say 0 and have something.
            (left > 0).then_some(left)
        });
        Input {
            ready: file.is_some(),
            total,
        }
    }

    /// Waits until a read would not block, or a signal asks us to go.
    fn wait(&self, tx: &Producer, signals: &Signals) -> Result<(), Failure> {
        if self.ready {
            return signals.check();
        }
        while !signals.wait(rustix::stdio::stdin(), PollFlags::IN, "standard input")? {
            tx.heartbeat();
            tx.check_name()?;
        }
        Ok(())
    }
}

//! `slipring send`: reads standard input straight into a channel's memory.
//!
//! In raw mode each `read(2)` goes into reserved space of the ring and is committed as one record.
//! The bytes are in the channel before anything else happens, so nothing read is ever lost. Without
//! a receiver the sender waits for one, however often receivers come and go. End of input finishes
//! the stream. A signal leaves it as *aborted*, after the bytes that were read.
//!
//! Lines and frames are cut out of a buffer (see [`cut`](crate::cut)). The same holds for them,
//! with two exceptions: a signal drops a frame of which only a part was read, and SIGKILL drops a
//! line whose end was not read.

use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::FileType;
use rustix::io::Errno;
use slipring::broadcast::records;
use slipring::{Builder, Channel, Error, Grow, OfRecords, PackedKind, Producer, Shrink, bytes};

use crate::cut::{Cutter, Rule};
use crate::exit::Failure;
use crate::feed;
use crate::mode::{self, Mode};
use crate::progress::Progress;
use crate::role::Role;
use crate::shape::{QueueSize, Shape, is_broadcast};
use crate::signals::{Signals, TICK};
use crate::text;

/// A ring that can grow shrinks after this time in which it was mostly empty.
const SHRINKS_AFTER: Duration = Duration::from_secs(1);

/// Read standard input into a channel; its end closes the channel
///
/// Together with `slipring recv NAME` it carries any file, whichever of the two starts first.
///
/// Each record stays in the channel until a receiver has read it, also after send has ended. If
/// the ring is full, send waits for a receiver. A second send waits until the end of the first one's
/// stream was read; --wait does not limit that.
///
/// The command that makes the channel (send, recv or create) marks it with its flag, --raw, --lines
/// or --framed. The mark stays; `slipring stat` shows it as metadata. Give both ends the same flag,
/// and either may come first. Without a flag, send sends lines to a channel that is marked --lines,
/// and raw bytes to any other. It refuses these flags: --framed unless the mark is --framed; any
/// other, or none, if the mark is --framed; --raw if the mark is --lines.
///
/// With --broadcast every receiver gets all of it, and send waits for the slowest of them. Without
/// a receiver it waits for nobody, and keeps the last records for those that come.
///
/// With --queue the channel is a work queue. Any number of sends may feed it at the same time (up to
/// 63), and `slipring work` runs a command for each line. Lines that are too long are left out and
/// named, and the exit code is 1. A signal names the first line that was not sent.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`; made if it does not exist
    pub(crate) name: String,
    /// Send each piece as it was read (the default); recv writes the same bytes
    #[arg(long, group = "mode")]
    raw: bool,
    /// Send each line as a record, with its newline; cut a line that is longer than the largest record
    #[arg(long, group = "mode")]
    lines: bool,
    /// Read frames as recv --framed writes them, and send each as a record
    #[arg(long, group = "mode")]
    framed: bool,
    /// Send to every receiver, if this command makes the channel; an existing one stays what it is
    #[arg(long, conflicts_with = "max_ring")]
    broadcast: bool,
    /// Put each line into a work queue as an item, for `slipring work`; leave out a line that is
    /// longer, with its newline, than the queue's largest item
    #[arg(long, requires = "lines", conflicts_with_all = ["raw", "framed", "broadcast", "ring", "chunk", "max_ring"])]
    queue: bool,
    /// The number of items that the queue holds, a power of two, if this command makes it [default:
    /// 1024]
    #[arg(long, value_name = "N", requires = "queue")]
    items: Option<usize>,
    /// The largest item in bytes, if this command makes the queue [default: 4096]
    #[arg(long, value_name = "BYTES", requires = "queue", value_parser = text::parse_some_bytes, allow_negative_numbers = true)]
    max_record: Option<usize>,
    #[command(flatten)]
    role: Role,
    #[command(flatten)]
    shape: Shape,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    if args.queue {
        let (items, max_record) = (args.items, args.max_record);
        let size = QueueSize { items, max_record };
        return feed::run(&args.name, size, &args.role, &signals);
    }
    if args.broadcast || is_broadcast(&args.name) {
        let builder = args.shape.builder(records::Builder::new);
        return send_by(args, &builder, &signals, |_, _, _| Ok(()));
    }
    let builder = args.shape.bytes_builder();
    let builder = builder
        .grow(Grow::WhenFull)
        .shrink(Shrink::WhenIdle(SHRINKS_AFTER));
    send_by(args, &builder, &signals, after_unread_end)
}

/// Sends to a channel of this kind. `first` is done once before anything is sent.
fn send_by<R>(
    args: &Args,
    builder: &Builder<OfRecords<R>>,
    signals: &Signals,
    first: First<R>,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    let asked = Mode::asked(args.raw, args.lines, args.framed);
    let mark = Some(asked.unwrap_or(Mode::Raw));
    let (mut tx, mode) = args.role.take(signals, || {
        let check = |found| mode::to_send(&args.name, asked, found);
        mode::take(builder, mark, &args.name, check, Channel::producer)
    })?;
    args.shape.tell(&args.name, &tx.differences());
    let max = tx.max_record();
    let sent = match mode {
        Mode::Raw => send(&mut tx, args.shape.chunk().min(max), signals, first),
        Mode::Lines => send_cut(&mut tx, Cutter::new(Rule::Lines, max), signals, first),
        Mode::Framed => send_cut(&mut tx, Cutter::new(Rule::Frames, max), signals, first),
    };
    match sent {
        // Dropping the producer finishes the stream.
        Ok(()) => Ok(()),
        Err(failure) => {
            tx.abort();
            Err(failure)
        }
    }
}

/// The step that a sender takes before it sends anything.
type First<R> = fn(&Producer<OfRecords<R>>, &Signals, &Progress) -> Result<(), Failure>;

fn send<R>(
    tx: &mut Producer<OfRecords<R>>,
    chunk: usize,
    signals: &Signals,
    first: First<R>,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    let input = Input::stdin();
    let bar = Progress::bytes("send", input.total);
    first(tx, signals, &bar)?;
    let mut told = false;
    loop {
        input.wait(signals, || look_after(tx))?;
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

/// Does the same as `send`, but passes the input through the cutter.
fn send_cut<R>(
    tx: &mut Producer<OfRecords<R>>,
    mut cutter: Cutter,
    signals: &Signals,
    first: First<R>,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    let sent = cut(tx, &mut cutter, signals, first);
    // However the loop ended, the part of the last line that was read is sent.
    cutter.push_rest(tx)?;
    sent
}

fn cut<R>(
    tx: &mut Producer<OfRecords<R>>,
    cutter: &mut Cutter,
    signals: &Signals,
    first: First<R>,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    let input = Input::stdin();
    let bar = Progress::bytes("send", input.total);
    first(tx, signals, &bar)?;
    let mut told = false;
    loop {
        input.wait(signals, || look_after(tx))?;
        room(tx, cutter.wanted(), signals, &bar, &mut told)?;
        let free = tx.capacity().saturating_sub(tx.len()?);
        match rustix::io::read(rustix::stdio::stdin(), cutter.space(free)) {
            Ok(0) => return cutter.check_end(),
            Ok(count) => {
                cutter.push(tx, count)?;
                bar.add(count as u64);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Failure::io("read standard input", errno)),
        }
    }
}

/// Waits until the end of the previous stream was read: a receiver could not tell the two streams
/// apart.
fn after_unread_end(
    tx: &bytes::Producer,
    signals: &Signals,
    bar: &Progress,
) -> Result<(), Failure> {
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

/// Waits until a whole chunk can be reserved: for space, and if need be for a receiver. It reports
/// that wait once.
fn room<R>(
    tx: &mut Producer<OfRecords<R>>,
    chunk: usize,
    signals: &Signals,
    bar: &Progress,
    told: &mut bool,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    loop {
        signals.check()?;
        match tx.reserve_timeout(chunk, TICK).map(drop) {
            Ok(()) => return Ok(()),
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

fn next_consumer<R>(tx: &mut Producer<OfRecords<R>>, signals: &Signals) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    loop {
        signals.check()?;
        match tx.wait_for_consumer(TICK) {
            Ok(()) => return Ok(()),
            Err(Error::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives a sign of life, shrinks a ring that has become too large, and fails if the name leads to another channel by now.
fn look_after<R>(tx: &mut Producer<OfRecords<R>>) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    tx.heartbeat();
    tx.settle();
    Ok(tx.check_name()?)
}

/// Standard input, and the means to wait for it.
pub(crate) struct Input {
    /// `true` for a regular file, which is always ready.
    ready: bool,
    /// The number of bytes that will come, if that is known.
    pub(crate) total: Option<u64>,
}

impl Input {
    pub(crate) fn stdin() -> Input {
        let stdin = rustix::stdio::stdin();
        let stat = rustix::fs::fstat(stdin).ok();
        let file =
            stat.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let total = file.and_then(|stat| {
            let left = (stat.st_size as u64).checked_sub(rustix::fs::tell(stdin).ok()?)?;
            // Files of /proc report a size of 0 and have content.
            (left > 0).then_some(left)
        });
        Input {
            ready: file.is_some(),
            total,
        }
    }

    /// Waits until a read would not block, or a signal asks us to stop. Calls `look_after` meanwhile,
    /// again and again.
    pub(crate) fn wait(
        &self,
        signals: &Signals,
        mut look_after: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.ready {
            return signals.check();
        }
        while !signals.wait(rustix::stdio::stdin(), PollFlags::IN, "standard input")? {
            look_after()?;
        }
        Ok(())
    }
}

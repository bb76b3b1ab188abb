//! `slipring recv`: copies a channel to standard output.
//!
//! A record is released only after it was written. If the reader of the output is gone, or a signal
//! comes while the write is stuck, the record stays in the channel. The next `recv` writes it anew
//! from its start. Of a channel made with `--broadcast`, each `recv` begins at the oldest record that is kept. The end of the
//! stream is acknowledged last; after that it is not reported again.

use slipring::broadcast::records;
use slipring::{Builder, Channel, Consumer, End, Error, OfRecords, PackedKind};

use crate::exit::Failure;
use crate::mode::{self, Mode};
use crate::output::{BATCH, Format, Output};
use crate::progress::Progress;
use crate::role::Role;
use crate::shape::{Shape, is_broadcast};
use crate::signals::{Signals, TICK};

/// Write a channel to standard output, until its sender finishes
///
/// Exits with 0 only if the sender finished; see the codes in `slipring --help`. An end that an
/// earlier recv has reported is not reported again: this recv waits for the next sender.
///
/// Without a flag, recv follows the channel's mark (see `slipring send --help`). It writes frames
/// from a channel that is marked --framed, and the bytes as they are from any other. If recv makes
/// the channel, its flag is the mark. Without a flag the new channel has no mark, and takes raw
/// bytes and lines, but no frames. recv refuses --lines without that mark, and --framed if the mark
/// is --raw or --lines.
///
/// Every recv of a channel that was made with --broadcast writes all records, from the oldest one that is
/// kept. Its sender waits for the slowest recv.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`; made if it does not exist
    pub(crate) name: String,
    /// Write the bytes as they are, from any channel; write only the payload of frames
    #[arg(long, group = "mode")]
    raw: bool,
    /// Write lines as they were sent; refuse a channel that is not marked --lines
    #[arg(long, group = "mode")]
    lines: bool,
    /// Write each record as a frame: its length as u32 little-endian, then its bytes
    #[arg(long, group = "mode")]
    framed: bool,
    /// Let every receiver get all, if this command makes the channel; an existing one stays what it is
    #[arg(long)]
    broadcast: bool,
    /// Go on with the next sender until a signal; report each end on standard error
    #[arg(long)]
    follow: bool,
    /// Remove the channel at the end, unless another process has come to use it; not with
    /// --follow, which has no end but a signal
    #[arg(long, conflicts_with = "follow")]
    remove: bool,
    #[command(flatten)]
    role: Role,
    #[command(flatten)]
    shape: Shape,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    if args.broadcast || is_broadcast(&args.name) {
        let builder = args.shape.builder(records::Builder::new);
        let kept = "the next recv begins at the oldest record that is there then";
        return recv_by(args, builder.join(records::Seek::Oldest), kept, &signals);
    }
    let kept = "what was not written is kept for the next recv";
    recv_by(args, args.shape.bytes_builder(), kept, &signals)
}

/// Receives from a channel of this kind. `kept` says what becomes of records that cannot be written any more.
fn recv_by<R>(
    args: &Args,
    mut builder: Builder<OfRecords<R>>,
    kept: &'static str,
    signals: &Signals,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    let asked = Mode::asked(args.raw, args.lines, args.framed);
    if args.remove {
        builder = builder.ephemeral();
    }
    let (mut rx, format) = args.role.take(signals, || {
        let check = |found| mode::to_write(&args.name, asked, found);
        mode::take(&builder, asked, &args.name, check, Channel::consumer)
    })?;
    args.shape.tell(&args.name, &rx.differences());
    match recv(&mut rx, format, args.follow, signals) {
        // All is written, so dropping the consumer acknowledges the end; then `recv` removes the
        // channel.
        Ok(End::Finished) => Ok(()),
        Ok(end) => Err(Failure::Ended(end)),
        Err(failure) => {
            rx.abort();
            Err(match failure {
                Failure::BrokenPipe => Failure::Unwritten(kept),
                failure => failure,
            })
        }
    }
}

fn recv<R>(
    rx: &mut Consumer<OfRecords<R>>,
    format: Format,
    follow: bool,
    signals: &Signals,
) -> Result<End, Failure>
where
    OfRecords<R>: PackedKind,
{
    let bar = Progress::beside_output("recv");
    let mut output = Output::stdout(format);
    loop {
        signals.check()?;
        match rx.read_timeout(TICK).map(|first| first.keep()) {
            Ok(()) => {}
            Err(Error::TimedOut) => continue,
            Err(Error::Disconnected(end)) if follow => {
                let ended = Failure::Ended(end);
                bar.say(&format!("{ended}; waiting for the next one"));
                next_sender(rx, end, signals)?;
                continue;
            }
            Err(Error::Disconnected(end)) => return Ok(end),
            Err(error) => return Err(error.into()),
        }
        bar.add(pass_on(rx, &mut output, signals)?);
    }
}

/// Acknowledges this end, and waits until there is news of another sender: it is present, or left
/// records, or ended otherwise.
///
/// An end stands until another sender takes its place, so `read` alone would report it again.
fn next_sender<R>(
    rx: &mut Consumer<OfRecords<R>>,
    reported: End,
    signals: &Signals,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    loop {
        signals.check()?;
        match rx.wait_for_producer(TICK) {
            Ok(()) => return Ok(()),
            Err(Error::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        // A sender that came and went meanwhile is not present.
        match rx.try_read().map(|first| first.keep()) {
            Err(Error::Disconnected(end)) if end == reported => {}
            Ok(()) | Err(Error::Empty | Error::Disconnected(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes some records and releases them; on a failure it releases none.
fn pass_on<R>(
    rx: &mut Consumer<OfRecords<R>>,
    output: &mut Output,
    signals: &Signals,
) -> Result<u64, Failure>
where
    OfRecords<R>: PackedKind,
{
    let mut records = rx.try_read_batch(usize::MAX)?;
    let mut passed = 0;
    let written = (|| {
        while passed < BATCH {
            match records.next()? {
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
        Err(_) => records.keep(),
    }
    written.map(|()| passed as u64)
}

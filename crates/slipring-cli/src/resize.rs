//! `slipring resize`: changes the capacity of a channel that nobody writes just now.

use serde_json::json;
use slipring::{ResizeError, bytes};

use crate::exit::Failure;
use crate::text;

/// Change the capacity of a `bytes` channel that can grow
///
/// The channel was made with --max-ring. Unread records stay, and count: after a shrink the ring is full until fewer bytes than
/// that are unread. The receiver gives the old memory back once it has read it.
///
/// It takes both places for a moment, so it is refused (exit code 5) while a sender or a receiver is there: `send` resizes the
/// ring by itself. It is also refused while the end of a stream is unread.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`
    name: String,
    /// Bytes of the ring, a power of two, from the first ring to the largest
    #[arg(value_parser = text::parse_bytes, allow_negative_numbers = true)]
    ring: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // The sizes of an existing channel do not depend on the builder's.
    let channel = bytes::Builder::new(64).open(&args.name)?;
    // Before anybody is kept from a place.
    let class = channel.geometry().class_for(args.ring as u64);
    class.map_err(|error| refused(&args.name, error))?;
    // Both places, so that nobody takes this for a sender that came and left.
    let mut rx = channel.consumer()?;
    let mut tx = channel.producer()?;
    if tx.follows_unread_end() {
        return Err(Failure::Taken(format!(
            "channel `{}` was not resized: the end of the stream in it was not read yet; let `recv` read it",
            args.name
        )));
    }
    let before = tx.capacity();
    let resized = tx.resize(args.ring);
    let after = tx.capacity();
    // It ends no stream; the next receiver need not hear of it.
    tx.abort();
    rx.settle();
    let _ = rx.try_peek();
    drop(rx);
    resized.map_err(|error| refused(&args.name, error))?;
    if args.json {
        return text::answer_json(&json!({
            "name": args.name,
            "before": before,
            "ring": after,
        }));
    }
    text::answer(format!(
        "{}: ring {}, was {}",
        args.name,
        text::bytes(after as u64),
        text::bytes(before as u64)
    ))
}

fn refused(name: &str, error: ResizeError) -> Failure {
    let words = format!("channel `{name}` was not resized: {error}");
    match error {
        ResizeError::Capacity { .. } => Failure::Usage(words),
        ResizeError::Busy => Failure::Taken(words),
        _ => Failure::Words(words),
    }
}

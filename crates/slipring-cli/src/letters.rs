//! `slipring letters`: shows the dead letters of a work queue, and tries them again or drops them.
//!
//! - It takes one letter at a time, and a worker's seat. A letter that it only shows goes back as a letter.
//! - A letter is shown before it is tried again or dropped. If nobody reads the output, it stays.
//! - If it is killed with a letter in hand, the letter comes to a worker once more.
//!
//! With `--retry` it is a feeder, too. So a worker that comes later ends when it has run the letters: it would wait for
//! the next feeder if an earlier worker had seen the end of the last one.

use serde_json::{Value, json};
use slipring::Error;

use crate::exit::{Failure, complain};
use crate::queue::{Held, Queue};
use crate::text;

/// Show the dead letters of a work queue: the items that failed
///
/// `slipring work` puts an item aside if its command has failed for good, or if too many workers died with
/// it or gave it back. The item stays in the queue as a dead letter until it is dropped.
///
/// Each letter takes a line: the number of workers that gave it back or died with it (0 if its command
/// failed at the first), and the item, without its newline.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The queue: `topic` or `domain/topic`
    pub(crate) name: String,
    /// Give the letters back to the queue: workers run them again, as if for the first time
    #[arg(long, conflicts_with = "drop")]
    retry: bool,
    /// Drop the letters
    #[arg(long)]
    drop: bool,
    /// Print one JSON object a line: `deliveries`, and `item` as text, or `bytes` in hexadecimal if it
    /// is no text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (feeder, mut worker) = Queue::letters(&args.name, args.retry)?;
    let done = (|| {
        let (count, mut seen) = (worker.letters(), 0);
        // A letter that is tried again may soon be one again: look at each once.
        while seen < count {
            let letter = match worker.letter() {
                Ok(letter) => letter,
                Err(Error::Empty) => break,
                Err(error) => return Err(error.into()),
            };
            seen += 1;
            let shown = match args.json {
                true => text::answer(as_json(&letter).to_string()),
                false => text::answer(as_line(&letter)),
            };
            match (&shown, args.retry, args.drop) {
                (Ok(()), true, _) => letter.give_back(),
                (Ok(()), _, true) => letter.release(),
                _ => letter.put_aside(),
            }
            shown?;
        }
        if seen == 0 {
            complain(format_args!("no dead letters in `{}`", args.name));
        }
        Ok(())
    })();
    // It has not seen the end of the stream.
    worker.abort();
    // Only now: the feeder's end comes behind the letters.
    drop(feeder);
    done
}

fn as_line(letter: &Held<'_>) -> String {
    let item = letter.bytes();
    let item = String::from_utf8_lossy(item.strip_suffix(b"\n").unwrap_or(item));
    format!("{:>3}  {}", letter.deliveries(), text::in_one_line(&item))
}

fn as_json(letter: &Held<'_>) -> Value {
    let deliveries = letter.deliveries();
    match std::str::from_utf8(letter.bytes()) {
        Ok(item) => json!({ "deliveries": deliveries, "item": item }),
        Err(_) => {
            let bytes = letter.bytes().iter().map(|byte| format!("{byte:02x}"));
            json!({ "deliveries": deliveries, "bytes": bytes.collect::<String>() })
        }
    }
}

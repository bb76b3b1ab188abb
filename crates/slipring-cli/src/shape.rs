//! Holds the size of a channel that `send`, `recv` or `pub` makes if it comes first. An existing channel
//! keeps its own size, and the verb reports the difference.

use std::time::Duration;

use slipring::inspect;
use slipring::spec::Kind;
use slipring::{Builder, Difference, OfRecords, PackedKind, bytes};

use crate::exit::complain;
use crate::text;

/// A ring of this size stays in the nearest cache, and still takes many reads of a pipe's 64 KiB.
const RING: usize = 512 << 10;
/// A pipe holds this much by default: no read from one brings more.
const CHUNK: usize = 64 << 10;

/// A queue has room for this many items, of this many bytes. It takes 4 MiB.
const ITEMS: usize = 1024;
const ITEM: usize = 4096;

/// A sleeping verb checks at this interval that the other end is alive. When idle, each check costs
/// some 30 us. A user who waits for a file is not in a hurry to hear of a death.
pub(crate) const CHECK_EVERY: Duration = Duration::from_millis(20);

/// The shape of a channel that does not exist yet
#[derive(clap::Args)]
pub(crate) struct Shape {
    /// Bytes of the ring, a power of two, if this command makes the channel [default: 512K]
    #[arg(long, value_parser = text::parse_bytes, allow_negative_numbers = true)]
    ring: Option<usize>,
    /// Let the ring grow up to this many bytes, a power of two, if this command makes the channel. A ring that can grow
    /// does so when send finds it full, and shrinks when it was mostly empty for a second
    #[arg(long, value_name = "BYTES", value_parser = text::parse_bytes, allow_negative_numbers = true)]
    max_ring: Option<usize>,
    /// The largest record in bytes, if this command makes the channel [default: 64K, or a quarter
    /// of the ring if that is less]
    #[arg(long, value_parser = text::parse_some_bytes, allow_negative_numbers = true)]
    chunk: Option<usize>,
}

impl Shape {
    /// Returns the size of the largest record.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk.unwrap_or((self.ring() / 4).clamp(8, CHUNK))
    }

    fn ring(&self) -> usize {
        self.ring.unwrap_or(RING)
    }

    /// Reports on standard error, in one line, if an existing channel has other sizes than the
    /// flags asked for.
    pub(crate) fn tell(&self, name: &str, differences: &[Difference]) {
        let asked = |difference: &&Difference| match difference.word {
            "capacity" => self.ring.is_some(),
            "largest capacity" => self.max_ring.is_some(),
            _ => self.chunk.is_some(),
        };
        tell(name, differences.iter().filter(asked));
    }

    /// Returns a builder for the channel. `new` makes one of the kind, for a ring of some bytes.
    pub(crate) fn builder<R>(
        &self,
        new: fn(usize) -> Builder<OfRecords<R>>,
    ) -> Builder<OfRecords<R>>
    where
        OfRecords<R>: PackedKind,
    {
        new(self.ring())
            .max_record(self.chunk())
            .check_every(CHECK_EVERY)
    }
}

impl Shape {
    /// Returns a builder for a `bytes` channel, which may grow as far as the flags say.
    pub(crate) fn bytes_builder(&self) -> bytes::Builder {
        let builder = self.builder(bytes::Builder::new);
        match self.max_ring {
            Some(max_ring) => builder.max_capacity(max_ring),
            None => builder,
        }
    }
}

/// Returns `true` if there is a `broadcast` channel of records with this name.
pub(crate) fn is_broadcast(name: &str) -> bool {
    // What is wrong with it is told when it is opened.
    inspect::stat(name).is_ok_and(|stat| stat.geometry.kind == Kind::BroadcastRecords)
}

/// The size of a work queue that does not exist yet, as far as the flags name it.
#[derive(Clone, Copy, Default)]
pub(crate) struct QueueSize {
    /// The number of items.
    pub(crate) items: Option<usize>,
    /// The most bytes of an item.
    pub(crate) max_record: Option<usize>,
}

impl QueueSize {
    pub(crate) fn items(self) -> usize {
        self.items.unwrap_or(ITEMS)
    }

    pub(crate) fn max_record(self) -> usize {
        self.max_record.unwrap_or(ITEM)
    }

    /// Reports on standard error if an existing queue has other sizes than the flags asked for.
    pub(crate) fn tell(self, name: &str, differences: &[Difference]) {
        let asked = |difference: &&Difference| match difference.word {
            "capacity" => self.items.is_some(),
            "largest record" => self.max_record.is_some(),
            _ => false,
        };
        tell(name, differences.iter().filter(asked));
    }
}

/// A topic keeps this many messages readable, of up to this many bytes.
const HISTORY: usize = 16;
const MESSAGE: usize = 64 << 10;

/// The size of a topic that does not exist yet, as far as the flags name it.
#[derive(Clone, Copy)]
pub(crate) struct TopicSize {
    /// The number of messages that stay readable.
    pub(crate) history: Option<usize>,
    /// The most bytes of a message.
    pub(crate) max_size: Option<usize>,
}

impl TopicSize {
    pub(crate) fn history(self) -> usize {
        self.history.unwrap_or(HISTORY)
    }

    /// Returns the most bytes of a message: by default `least`, or more.
    pub(crate) fn max_size(self, least: usize) -> usize {
        self.max_size.unwrap_or(MESSAGE.max(least))
    }

    /// Reports on standard error if an existing topic has other sizes than the flags asked for.
    pub(crate) fn tell(self, name: &str, differences: &[Difference]) {
        let asked = |difference: &&Difference| match difference.word {
            "capacity" => self.history.is_some(),
            "largest record" => self.max_size.is_some(),
            _ => false,
        };
        tell(name, differences.iter().filter(asked));
    }
}

fn tell<'a>(name: &str, differences: impl Iterator<Item = &'a Difference>) {
    let told: Vec<_> = differences.map(Difference::to_string).collect();
    if !told.is_empty() {
        complain(format_args!(
            "channel `{name}` exists, and stays as it is: {}",
            told.join(", ")
        ));
    }
}

//! Holds the figures and wishes with which a program makes its channels, of whatever kind.

use std::time::Duration;

use slipring::broadcast::Seek;
use slipring::{Builder, HugePages, Wait};

/// The type of the messages in slots. (Records are of one sort.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageType {
    /// [`Message`](crate::message::Message), the usual one.
    #[default]
    Message,
    /// [`Twin`](crate::message::Twin).
    Twin,
    /// [`Small`](crate::message::Small).
    Small,
    /// [`Odd`](crate::message::Odd).
    Odd,
    /// `u64`, the number alone.
    Number,
    /// [`Packet`](crate::message::Packet).
    Packet,
    /// [`Frame`](crate::message::Frame), of `spsc` alone.
    Frame,
}

/// The wishes of a program for a builder. A kind takes what concerns it, and leaves its own defaults
/// where nothing is given.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The type of the messages.
    pub message: MessageType,
    /// The capacity, in the kind's unit.
    pub capacity: Option<usize>,
    /// The largest record, in bytes.
    pub max_record: Option<usize>,
    /// The number of producers' seats, where a kind has several.
    pub producers: Option<usize>,
    /// The number of consumers' seats, where a kind has several.
    pub consumers: Option<usize>,
    /// The number of messages that a consumer of a topic may hold besides the one that it reads.
    pub held: Option<usize>,
    /// After how many deliveries consumers of a work queue put a message aside, and how many they keep.
    pub dead_letters: Option<(u32, usize)>,
    /// `true` if what consumers of a work queue had in their hands is dropped when they die.
    pub at_most_once: bool,
    /// The message at which a consumer begins.
    pub join: Option<Seek>,
    /// The time for which a waiting call polls before it sleeps.
    pub spin_for: Option<Duration>,
    /// The time between two checks that the other side is alive.
    pub check_every: Option<Duration>,
    /// The longest time that a repair by another process may take.
    pub patience: Option<Duration>,
    /// The mode of the channel's files.
    pub mode: Option<u32>,
    /// The bytes for others.
    pub metadata: Option<String>,
    /// The size of pages to ask for.
    pub huge: Option<HugePages>,
    /// `true` if a ring that grows shrinks again at every chance.
    pub shrinks: bool,
    /// `true` if an existing channel must have exactly this shape.
    pub exact: bool,
}

impl Terms {
    /// Tells a builder the terms that concern every kind.
    pub(crate) fn apply<K: slipring::Kind>(&self, mut builder: Builder<K>) -> Builder<K> {
        if let Some(spin_for) = self.spin_for {
            builder = builder.wait(Wait::Sleep { spin_for });
        }
        if let Some(check_every) = self.check_every {
            builder = builder.check_every(check_every);
        }
        if let Some(patience) = self.patience {
            builder = builder.patience(patience);
        }
        if let Some(mode) = self.mode {
            builder = builder.mode(mode);
        }
        if let Some(metadata) = &self.metadata {
            builder = builder.metadata(metadata.as_bytes());
        }
        if let Some(huge) = self.huge {
            builder = builder.huge_pages(huge);
        }
        if self.exact {
            builder = builder.exact();
        }
        builder
    }
}

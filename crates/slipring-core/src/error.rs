//! What can go wrong, in words of one machine size: the core allocates nothing, so an error names
//! the word that it tripped over and carries the two figures, found and expected.

use core::fmt;

/// Why a peer is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It left in an orderly way: for a producer, the end of its stream.
    Finished,
    /// It left on purpose before it was done (SIGINT, a drop while panicking, `abort`).
    Aborted,
    /// Its process was killed or ended without leaving.
    Died,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Finished => "finished",
            End::Aborted => "aborted",
            End::Died => "died",
        })
    }
}

/// A word in shared memory that holds an impossible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The word, as FORMAT.md names it.
    pub word: &'static str,
    /// What was read there.
    pub found: u64,
    /// The largest (or the only) value that could have been right.
    pub expected: u64,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Corrupt {
            word,
            found,
            expected,
        } = self;
        write!(
            f,
            "the word `{word}` holds {found:#x}, possible is {expected:#x}"
        )
    }
}

/// Every failure of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No space for what was asked; nothing was changed.
    Full,
    /// Nothing to read.
    Empty,
    /// The peer is gone, and (for a consumer) everything that it committed has been read.
    Disconnected(End),
    /// The consumer was overtaken: so many of its messages are gone. It goes on behind them.
    Lagged(u64),
    /// What may be overwritten cannot be read in place.
    Overwritten,
    /// A message that is not there yet.
    Ahead {
        /// The number asked for.
        asked: u64,
        /// The number of the next message that is committed.
        newest: u64,
    },
    /// Not one of so many parts.
    Stride {
        /// Which part was asked for, counted from zero.
        index: u64,
        /// Of how many.
        of: u64,
    },
    /// More than the channel can ever hold at once: bytes of a record, or slots.
    TooLarge {
        /// What was asked for.
        asked: u64,
        /// The most that this channel takes.
        max: u64,
    },
    /// The handle was copied by `fork`; only the parent's works.
    Forked,
    /// A peer, or a stranger, wrote what cannot be.
    Corrupt(Corrupt),
    /// The memory does not begin with a channel's magic.
    NotAChannel {
        /// The first eight bytes.
        found: u64,
    },
    /// A channel of another format version.
    Version {
        /// The version in the header.
        found: u64,
        /// The version that this program speaks.
        expected: u64,
    },
    /// The memory is shorter than the channel in it.
    Truncated {
        /// Which of the two parts: `control` or `data`.
        part: &'static str,
        /// Its length in bytes.
        found: u64,
        /// The length that the channel needs, in bytes.
        expected: u64,
    },
    /// The memory does not begin at a multiple of the alignment that a channel needs.
    Misaligned {
        /// Which of the two parts: `control` or `data`.
        part: &'static str,
        /// The alignment in bytes.
        expected: u64,
    },
    /// A capacity that is zero, no power of two, or beyond all bounds.
    Capacity {
        /// What was asked for (slots, or bytes).
        found: u64,
        /// The smallest that is allowed.
        min: u64,
        /// The largest that is allowed.
        max: u64,
    },
}

impl From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Self {
        Error::Corrupt(corrupt)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Full => write!(f, "the channel is full"),
            Error::Empty => write!(f, "the channel is empty"),
            Error::Disconnected(end) => write!(f, "the peer is gone: it {end}"),
            Error::Lagged(lost) => write!(
                f,
                "overtaken: {lost} messages were given up before they were read"
            ),
            Error::Overwritten => write!(
                f,
                "this channel overwrites its messages: they are copied (`pop`), not read in place"
            ),
            Error::Ahead { asked, newest } => write!(
                f,
                "message {asked} is not there yet; the next to come is {newest}"
            ),
            Error::Stride { index, of } => write!(
                f,
                "there is no part {index} of {of}; parts are counted from 0, and there are 1 to 2^32"
            ),
            Error::TooLarge { asked, max } => {
                write!(
                    f,
                    "{asked} is more than this channel ever holds at once; at most {max} fit"
                )
            }
            Error::Forked => write!(
                f,
                "this handle was copied by fork; use it in the parent, or attach anew in the child"
            ),
            Error::Corrupt(corrupt) => write!(f, "the channel is corrupt: {corrupt}"),
            Error::NotAChannel { found } => write!(
                f,
                "not a channel: it begins with {found:#018x}, a channel begins with \"SLIPRING\""
            ),
            Error::Version { found, expected } => write!(
                f,
                "the channel has format version {found}, this program speaks version {expected}; \
                 use programs of one release, or remove the channel and create it again"
            ),
            Error::Truncated {
                part,
                found,
                expected,
            } => {
                write!(
                    f,
                    "the {part} memory has {found} bytes, the channel needs {expected}"
                )
            }
            Error::Misaligned { part, expected } => {
                write!(
                    f,
                    "the {part} memory must begin at a multiple of {expected} bytes"
                )
            }
            Error::Capacity { found, min, max } => write!(
                f,
                "{found} is no capacity; use a power of two from {min} to {max}"
            ),
        }
    }
}

impl core::error::Error for Error {}

/// A push that failed gives its value back.
pub struct PushError<T> {
    /// What was to be pushed.
    pub value: T,
    /// Why it was not.
    pub error: Error,
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

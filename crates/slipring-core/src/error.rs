//! Defines the errors of the core.
//!
//! The core allocates nothing. So an error about a wrong word names that word and carries two
//! figures: the value found and the value expected.
//!
//! Message verbs fail with [`Error`], which is small and `Copy`. Making a channel in memory, or
//! finding one there, fails with [`FormatError`].

use core::fmt;

/// The way in which a peer left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The peer left in an orderly way. For a producer, that is the end of its stream.
    Finished,
    /// The peer left on purpose before it was done (SIGINT, a drop while panicking, `abort`).
    Aborted,
    /// The peer's process was killed, or ended without leaving.
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
    /// The word's name in FORMAT.md.
    pub word: &'static str,
    /// The value found there.
    pub found: u64,
    /// The largest value (or the only one) that could have been right.
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
            "the word `{word}` holds {found:#x}, at most {expected:#x} is valid"
        )
    }
}

/// The reason why a message verb failed. The verb changed nothing, unless its documentation says
/// otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no room for the amount asked for. Only `try_` verbs return this.
    ///
    /// A publisher of a topic is full only if it has few slots and subscribers hold them: `Publisher::pins` says which.
    Full,
    /// There is no message to read now. Only `try_` verbs return this.
    Empty,
    /// The timeout of a `_timeout` verb passed.
    TimedOut,
    /// The peer is gone.
    ///
    /// A consumer gets this once it has read everything that the producer committed. A producer
    /// gets it once the ring is full, since the consumer no longer reads. A successor may come: see
    /// `wait_for_producer` and `wait_for_consumer`.
    Disconnected(End),
    /// The producer overwrote this many messages before this consumer read them. The consumer goes
    /// on behind them. Only consumers of an overwriting `broadcast` channel get this, and watchers.
    Lagged(u64),
    /// The message with this number has not been committed yet.
    Ahead {
        /// The number asked for.
        asked: u64,
        /// The number of the next message that will be committed.
        newest: u64,
    },
    /// The messages have no such part.
    Stride {
        /// The part asked for, counted from zero.
        index: u64,
        /// The number of parts.
        of: u64,
    },
    /// The amount is more than the channel can ever hold at once.
    TooLarge {
        /// The amount asked for: slots, or bytes of a record.
        asked: u64,
        /// The most that this channel takes.
        max: u64,
    },
    /// The handle was copied by `fork`. Only the parent's handle works.
    Forked,
    /// A peer, or a stranger, wrote an impossible value into shared memory.
    Corrupt(Corrupt),
    /// The channel's name was removed while the handle waited, so no program can join it there any
    /// more.
    Removed,
    /// The channel's name now leads to another channel, made while the handle waited.
    Replaced,
    /// The channel lies in borrowed memory, which has no descriptor to poll, and so no futures.
    NoPipes,
    /// The file in the place of the seat's pipe, in the channel's directory, is not a pipe.
    BadPipe {
        /// The seat's number: the pipe is `pipe-N`.
        seat: u64,
    },
    /// The handle is in a wait set, which waits for it.
    InSet,
    /// The wait set that this handle was in was dropped.
    NoSet,
    /// `on_tokio` was called outside of a tokio runtime.
    NoRuntime,
    /// This process, or the whole machine, has as many files open as it may.
    TooManyFiles {
        /// The number of descriptors that this process may have (`RLIMIT_NOFILE`, the soft limit).
        /// 0 if the machine has no more.
        limit: u64,
    },
    /// This consumer holds as many messages as it may. Drop one of them first.
    TooManyHeld {
        /// The number of messages that may leave the consumer's hands.
        max: u64,
    },
    /// There is no memory for a message of this size: the file system is full, or has a quota. Nothing was written.
    NoSpace {
        /// The bytes that were asked for.
        needed: u64,
    },
    /// The operating system refused a call.
    Os {
        /// The call that was attempted.
        call: &'static str,
        /// The error's number.
        errno: i32,
    },
}

impl From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Self {
        Error::Corrupt(corrupt)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Full => f.write_str(
                "the channel is full; try again when the consumer has released something",
            ),
            Error::Empty => f.write_str(
                "the channel is empty; try again when the producer has committed something",
            ),
            Error::TimedOut => f.write_str(
                "timed out: the channel stayed full (or empty) for the whole time",
            ),
            Error::Disconnected(end) => write!(f, "the peer is gone: it {end}"),
            Error::Lagged(lost) => write!(
                f,
                "the producer overwrote {lost} messages before they were read; read faster, or make the ring larger"
            ),
            Error::Ahead { asked, newest } => write!(
                f,
                "message {asked} is not there yet: the next to come is {newest}; join at the newest, and wait"
            ),
            Error::Stride { index, of } => write!(
                f,
                "there is no part {index} of {of}: parts are counted from 0, and there are 1 to 2^32"
            ),
            Error::TooLarge { asked, max } => write!(
                f,
                "{asked} is more than this channel ever takes at once; at most {max} fit"
            ),
            Error::Forked => f.write_str(
                "this handle was copied by fork and does nothing; open the channel again in the child",
            ),
            Error::Corrupt(corrupt) => write!(
                f,
                "the channel is corrupt: {corrupt}; remove it and create it again"
            ),
            Error::Removed => f.write_str(
                "the channel was removed while this handle waited, so nobody can join it; drop the handle, and create the \
                 channel again",
            ),
            Error::Replaced => f.write_str(
                "the channel was removed and made anew while this handle waited; drop the handle, and open the channel again",
            ),
            Error::NoPipes => f.write_str(
                "this channel lies in borrowed memory, which has no pipes: wait with the blocking calls, or make the \
                 channel with a name, in memfds or on the heap",
            ),
            Error::BadPipe { seat } => write!(
                f,
                "`pipe-{seat}` in the channel's directory is no pipe; somebody replaced it: remove the channel and create \
                 it again"
            ),
            Error::InSet => f.write_str(
                "this handle is in a wait set, which waits for it; take it out there first (`unwatch`)",
            ),
            Error::NoSet => {
                f.write_str("the wait set was dropped; nobody would wait for this channel")
            }
            Error::NoRuntime => {
                f.write_str("no tokio runtime is current on this thread: call on_tokio within one")
            }
            Error::TooManyFiles { limit: 0 } => f.write_str(
                "the machine has as many files open as it may have; raise fs.file-max (sysctl), or end programs that hold \
                 many",
            ),
            Error::TooManyFiles { limit } => write!(
                f,
                "this process has all {limit} file descriptors open that it may have (RLIMIT_NOFILE); raise the limit \
                 (`ulimit -n`, `LimitNOFILE=` of systemd, setrlimit), or drop handles"
            ),
            Error::TooManyHeld { max } => write!(
                f,
                "this consumer already holds {max} messages, as many as the topic allows; drop one, or make the topic with more pins"
            ),
            Error::NoSpace { needed } => write!(
                f,
                "there is no memory for {needed} bytes of a message: the file system is full, or has a quota; give memory \
                 back (`trim`), or remove channels that nobody uses (`slipring rm --unused`)"
            ),
            #[cfg(feature = "std")]
            Error::Os { call, errno } => {
                let source = std::io::Error::from_raw_os_error(errno);
                write!(f, "cannot {call}: {source}")
            }
            #[cfg(not(feature = "std"))]
            Error::Os { call, errno } => write!(f, "cannot {call}: error {errno}"),
        }
    }
}

/// Prints the same sentence as `Display`, because `unwrap` and a `main` that returns an error print
/// it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Error {}

/// `Disconnected` is `BrokenPipe`, `TimedOut` is that, `Os` is of the kind that the system's error has, and the rest is `Other`.
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        use std::io::ErrorKind;
        let kind = match error {
            Error::Disconnected(_) => ErrorKind::BrokenPipe,
            Error::TimedOut => ErrorKind::TimedOut,
            Error::Os { errno, .. } => std::io::Error::from_raw_os_error(errno).kind(),
            _ => ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

/// The reason why a channel was not resized. It goes on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResizeError {
    /// The channel was made without a largest capacity, so its capacity is fixed.
    Fixed,
    /// The capacity is not a power of two, or not within the channel's limits.
    Capacity {
        /// The capacity asked for, in slots or bytes of the ring.
        asked: u64,
        /// The capacity that the channel was made with.
        min: u64,
        /// Its largest capacity.
        max: u64,
    },
    /// The consumer has not read all messages from before an earlier resize, or has not given their memory back. The area of
    /// that capacity is still in use, or seven rings are.
    Busy,
    /// There is no memory for that capacity: the file system is full, or has a quota.
    NoSpace {
        /// The bytes that were asked for.
        needed: u64,
    },
    /// The end cannot do anything just now: `Forked`, `Corrupt`, or an error of the operating system.
    Failed(Error),
}

impl From<Error> for ResizeError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSpace { needed } => ResizeError::NoSpace { needed },
            error => ResizeError::Failed(error),
        }
    }
}

impl From<Corrupt> for ResizeError {
    fn from(corrupt: Corrupt) -> Self {
        ResizeError::Failed(corrupt.into())
    }
}

impl fmt::Display for ResizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ResizeError::Fixed => f.write_str(
                "the channel's capacity is fixed; make the channel with a largest capacity (`max_capacity`)",
            ),
            ResizeError::Capacity { asked, min, max } => write!(
                f,
                "a capacity of {asked} is not possible; it is a power of two from {min} to {max}"
            ),
            ResizeError::Busy => f.write_str(
                "the consumer still reads messages from before an earlier resize; try again when it has read them",
            ),
            ResizeError::NoSpace { needed } => write!(
                f,
                "there is no memory for a ring of {needed} bytes: the file system is full, or has a quota; the channel goes on \
                 as it is"
            ),
            ResizeError::Failed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ResizeError {}

/// The reason why memory is not a channel, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// A word of the header, or a figure that the caller asked for, is impossible.
    Corrupt(Corrupt),
    /// The memory does not begin with a channel's magic.
    NotAChannel {
        /// The first eight bytes.
        found: u64,
    },
    /// The channel has another format version.
    Version {
        /// The version in the header.
        found: u64,
        /// The version of this program.
        expected: u64,
    },
    /// The memory is shorter than the channel in it.
    Truncated {
        /// The part that is too short: `control` or `data`.
        part: &'static str,
        /// Its length in bytes.
        found: u64,
        /// The length that the channel needs, in bytes.
        expected: u64,
    },
    /// The memory does not begin at a multiple of the alignment that a channel needs.
    Misaligned {
        /// The part that is misaligned: `control` or `data`.
        part: &'static str,
        /// The alignment in bytes.
        expected: u64,
    },
    /// The capacity is zero, not a power of two, or too large.
    Capacity {
        /// The capacity asked for, in slots or bytes.
        found: u64,
        /// The smallest capacity that is allowed.
        min: u64,
        /// The largest capacity that is allowed.
        max: u64,
    },
}

impl From<Corrupt> for FormatError {
    fn from(corrupt: Corrupt) -> Self {
        FormatError::Corrupt(corrupt)
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Corrupt(corrupt) => write!(
                f,
                "the channel is corrupt: {corrupt}; remove it and create it again"
            ),
            FormatError::NotAChannel { found } => write!(
                f,
                "the memory is not a channel: it begins with {found:#018x}, a channel begins with \"SLIPRING\""
            ),
            FormatError::Version { found, expected } => write!(
                f,
                "the channel has format version {found}, this program speaks version {expected}; \
                 use programs of one release, or remove the channel and create it again"
            ),
            FormatError::Truncated {
                part,
                found,
                expected,
            } => write!(
                f,
                "the {part} memory has {found} bytes, the channel needs {expected}; provide that many"
            ),
            FormatError::Misaligned { part, expected } => write!(
                f,
                "the {part} memory must begin at a multiple of {expected} bytes; align it so"
            ),
            FormatError::Capacity { found, min, max } => write!(
                f,
                "{found} is no capacity; use a power of two from {min} to {max}"
            ),
        }
    }
}

impl core::error::Error for FormatError {}

/// The reason why a push failed, with the value that it gives back.
///
/// ```
/// # use slipring_core as slipring;
/// use slipring::{End, Error, PushError};
///
/// let failed = PushError::new(9, Error::Disconnected(End::Died));
/// assert_eq!(failed, PushError::Disconnected(9, End::Died));
/// assert_eq!((failed.error(), failed.into_value()), (Error::Disconnected(End::Died), 9));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PushError<T> {
    /// There is no room now. Only `try_` verbs return this.
    Full(T),
    /// The timeout of a `_timeout` verb passed.
    TimedOut(T),
    /// The channel is full, and no consumer is there to make room.
    Disconnected(T, End),
    /// The push failed for any other reason.
    Failed(T, Error),
}

impl<T> PushError<T> {
    /// Puts a value and a reason together.
    #[inline]
    pub fn new(value: T, error: Error) -> PushError<T> {
        match error {
            Error::Full => PushError::Full(value),
            Error::TimedOut => PushError::TimedOut(value),
            Error::Disconnected(end) => PushError::Disconnected(value, end),
            error => PushError::Failed(value, error),
        }
    }

    /// Returns the value that was not pushed.
    pub fn into_value(self) -> T {
        match self {
            PushError::Full(value)
            | PushError::TimedOut(value)
            | PushError::Disconnected(value, _)
            | PushError::Failed(value, _) => value,
        }
    }

    /// Returns the reason.
    pub fn error(&self) -> Error {
        match *self {
            PushError::Full(_) => Error::Full,
            PushError::TimedOut(_) => Error::TimedOut,
            PushError::Disconnected(_, end) => Error::Disconnected(end),
            PushError::Failed(_, error) => error,
        }
    }
}

impl<T> From<PushError<T>> for Error {
    fn from(failed: PushError<T>) -> Error {
        failed.error()
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error(), f)
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error(), f)
    }
}

impl<T> core::error::Error for PushError<T> {}

/// The reason why a verb for many messages stopped before it was done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchError {
    /// The number of messages that were appended before.
    pub done: usize,
    /// The error that stopped it.
    pub error: Error,
}

impl From<BatchError> for Error {
    fn from(failed: BatchError) -> Error {
        failed.error
    }
}

impl fmt::Debug for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped after {} messages: {}", self.done, self.error)
    }
}

impl core::error::Error for BatchError {}

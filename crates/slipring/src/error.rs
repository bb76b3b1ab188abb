//! The one error type: what was found, what was expected, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use slipring_core::{Corrupt, End};

use crate::region::HugePages;

/// What a call on a channel, or the making or opening of one, can end with.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No space for what was asked; nothing was changed. Only from `try_` calls.
    #[error("the channel is full; try again when the consumer has released something")]
    Full,
    /// Nothing to read now. Only from `try_` calls.
    #[error("the channel is empty; try again when the producer has committed something")]
    Empty,
    /// The timeout of a `_timeout` call passed; nothing was changed.
    #[error("timed out: the channel stayed full (or empty) for the whole time")]
    TimedOut,
    /// The peer is gone, and what it committed has been read (or the ring it no longer reads is
    /// full). A successor may come: see `wait_for_producer` and `wait_for_consumer`.
    #[error("the peer is gone: it {0}")]
    Disconnected(End),
    /// The producer gave up so many messages before this consumer read them; it goes on behind them. Only
    /// where the channel was made to overwrite.
    #[error(
        "overtaken: {0} messages were given up before they were read; read faster, or make the ring larger"
    )]
    Lagged(u64),
    /// A channel that overwrites its messages has none to be read in place.
    #[error("this channel overwrites its messages, so they are copied: use `pop` or `pop_slice`")]
    Overwritten,
    /// A message that is not there yet.
    #[error(
        "message {asked} is not there yet: the next to come is {newest}; join at the newest, and wait"
    )]
    Ahead {
        /// The number that was asked for.
        asked: u64,
        /// The number of the next message to come.
        newest: u64,
    },
    /// No such part of the messages.
    #[error("there is no part {index} of {of}: parts are counted from 0, and there are 1 to 2^32")]
    Stride {
        /// Which part.
        index: u64,
        /// Of how many.
        of: u64,
    },
    /// More consumers than the channel was made for.
    #[error(
        "all {max} consumer seats of this channel are held; wait until one leaves, or make it with more (`consumers`, at most 63)"
    )]
    TooManyReaders {
        /// How many seats it has.
        max: u64,
    },
    /// More than the channel can ever hold at once: bytes of a record, or slots.
    #[error("{asked} is more than this channel ever takes at once; at most {max} fit")]
    TooLarge {
        /// What was asked for, in bytes or slots.
        asked: u64,
        /// The most that is possible.
        max: u64,
    },
    /// The handle was copied by `fork`.
    #[error("this handle was copied by fork and is inert; attach anew in the child")]
    Forked,
    /// A word in shared memory is impossible: some peer, or a stranger, wrote it.
    #[error("the channel is corrupt: {0}; remove it and create it again")]
    Corrupt(Corrupt),

    /// The memory or file is no channel.
    #[error("not a channel: {what} {}", first_word(*found))]
    NotAChannel {
        /// The file, or the memory.
        what: Detail<str>,
        /// Its first eight bytes; nothing for what is no regular file at all.
        found: Option<u64>,
    },
    /// A channel of another format version.
    #[error(
        "the channel has format version {found}, this program speaks version {expected}; use \
         programs of one release, or remove the channel and create it again"
    )]
    Version {
        /// The version in the header.
        found: u64,
        /// The version that this program speaks.
        expected: u64,
    },
    /// A channel of another kind.
    #[error(
        "the channel is of kind `{found}`, this program asked for `{expected}`; {}",
        serves(found)
    )]
    Kind {
        /// The kind of the channel.
        found: &'static str,
        /// The kind that was asked for.
        expected: &'static str,
    },
    /// A channel of another payload type.
    #[error("{0}")]
    Schema(Detail<SchemaMismatch>),
    /// A `broadcast` channel that does something else when it is full.
    #[error(
        "the channel {found} when it is full, this program asked for one that {expected}; ask for what it does \
         (`when_full`), or remove it and create it again"
    )]
    WhenFull {
        /// What the channel does.
        found: &'static str,
        /// What was asked for.
        expected: &'static str,
    },
    /// `exact()` was asked for, and the channel that exists has another geometry.
    #[error(
        "the channel exists with {word} {found}, this program insists on {expected}; remove it, or \
         open it without exact()"
    )]
    Geometry {
        /// Which figure differs.
        word: &'static str,
        /// The figure of the channel.
        found: u64,
        /// The figure that was asked for.
        expected: u64,
    },
    /// The memory or file is shorter than the channel in it.
    #[error(
        "truncated: the {part} part has {found} bytes, the channel needs {expected}; remove it and create it again"
    )]
    Truncated {
        /// `control` or `data`.
        part: &'static str,
        /// Its length in bytes.
        found: u64,
        /// The length that is needed, in bytes.
        expected: u64,
    },
    /// Borrowed memory that does not begin where a channel can.
    #[error("the {part} memory must begin at a multiple of {expected} bytes")]
    Misaligned {
        /// `control` or `data`.
        part: &'static str,
        /// The alignment in bytes.
        expected: u64,
    },
    /// A capacity that no channel can have.
    #[error("{found} is no capacity: use a power of two from {min} to {max}{}", nearest(*found, *min, *max))]
    Capacity {
        /// What was asked for, in slots or bytes.
        found: u64,
        /// The smallest possible.
        min: u64,
        /// The largest possible.
        max: u64,
    },
    /// A largest record that does not fit the ring.
    #[error(
        "the largest record may have 8 to {max} bytes in this ring, {found} were asked for; use a larger ring"
    )]
    MaxRecord {
        /// What was asked for, in bytes, rounded up to a multiple of 8.
        found: u64,
        /// The most that this ring allows, in bytes.
        max: u64,
    },
    /// Seats for more consumers than a channel can have, or for none.
    #[error("{found} is no number of consumers: a channel has seats for 1 to {max}")]
    Consumers {
        /// What was asked for.
        found: u64,
        /// The most that is possible.
        max: u64,
    },
    /// More user metadata than the header holds.
    #[error("the header holds {max} bytes of user metadata, {found} were given")]
    Metadata {
        /// The bytes given.
        found: usize,
        /// The bytes that fit.
        max: usize,
    },

    /// A name that breaks the rule.
    #[error(
        "`{name}` is no channel name: {why}; a name is `topic` or `domain/topic`, each part 1 to 64 of the characters A-Z a-z 0-9 . _ - and not beginning with a dot"
    )]
    BadName {
        /// The name, made printable.
        name: Detail<str>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such channel. Also from calls that wait, whose channel was removed under them: its memory lives as long
    /// as they do, but nobody can join them there.
    #[error(
        "no channel `{name}` in {dir} (never made, or removed); create it first, or look at `slipring ls`"
    )]
    NotFound {
        /// The name.
        name: Detail<str>,
        /// The directory that was searched.
        dir: Detail<Path>,
    },
    /// From calls that wait: the channel was removed under them, and its name leads to another one by now.
    #[error(
        "channel `{name}` in {dir} is another one by now: it was removed and made anew while this handle \
         waited; drop the handle, and open the channel again"
    )]
    Replaced {
        /// The name.
        name: Detail<str>,
        /// The directory.
        dir: Detail<Path>,
    },
    /// `create` found a channel of that name. It was not touched.
    #[error("channel `{name}` exists in {dir}; open it, or remove it first (`slipring rm {name}`)")]
    AlreadyExists {
        /// The name.
        name: Detail<str>,
        /// The directory.
        dir: Detail<Path>,
    },
    /// The directory for named channels does not exist.
    #[error(
        "the directory {dir} for named channels does not exist; create it, or change SLIPRING_DIR"
    )]
    NoDirectory {
        /// The directory.
        dir: Detail<Path>,
    },
    /// The directory for named channels cannot be made, opened or written: there is no /dev/shm, its file system
    /// is read-only, or the directory is another user's.
    #[error(
        "cannot {what}: {source}; set SLIPRING_DIR to a directory in which you may make files (in memory, on a \
         tmpfs, if there is one)"
    )]
    Directory {
        /// What was attempted, with the path.
        what: Detail<str>,
        /// What the system said.
        source: Detail<io::Error>,
    },
    /// The default directory for named channels belongs to somebody else or is open to others.
    #[error(
        "{dir} is not safe for named channels: {found}; expected a directory of yours with mode 0700 (or set SLIPRING_DIR)"
    )]
    UnsafeDirectory {
        /// The directory.
        dir: Detail<Path>,
        /// What is wrong with it.
        found: Detail<str>,
    },
    /// The kernel refused access.
    #[error(
        "no permission to {what}; ask its owner; whoever creates a channel may widen its permissions (`slipring create --mode 660`, in a program `mode()`)"
    )]
    Permission {
        /// What was refused, with the path.
        what: Detail<str>,
    },
    /// The memory or file system cannot hold the channel.
    #[error("no space for {needed} bytes: {what}; use a smaller capacity, or make room")]
    NoSpace {
        /// Bytes asked for.
        needed: u64,
        /// Where.
        what: Detail<str>,
    },
    /// The file system can neither set space aside nor be trusted with zeros in its place.
    #[error(
        "cannot make {what}: its file system ({kind}) does not set space aside (fallocate); \
         set SLIPRING_DIR to a directory on tmpfs (/dev/shm), ext4, XFS or Btrfs"
    )]
    FileSystem {
        /// What was to be made, with the path.
        what: Detail<str>,
        /// The kind of file system.
        kind: Detail<str>,
    },
    /// A named channel in huge pages needs a file system of such pages.
    #[error(
        "no hugetlbfs with {size} is mounted; mount one (as root, `slipring hugepages --mount`), or do without huge pages"
    )]
    NotMounted {
        /// The page size.
        size: HugePages,
    },
    /// Only huge pages come from a pool that can be set.
    #[error("pages of the usual size are reserved in no pool: name 2 MiB or 1 GiB ones")]
    NoPool,

    /// Somebody else holds the role.
    #[error("the {role} of this channel is taken{}; there is one at a time", holder(*pid))]
    RoleTaken {
        /// `producer` or `consumer`.
        role: &'static str,
        /// The holder's process id as it wrote it itself (a hint), or 0.
        pid: u64,
    },
    /// Only the process that made the channel may write its messages.
    #[error(
        "the channel's data is sealed against writing: its producer is in the process that made it; \
         make it without sealed() to have the producer elsewhere"
    )]
    Sealed,
    /// Only memfds can be sealed.
    #[error("only a channel in memfds can be sealed(); make it with memfd(), or without sealed()")]
    NotSealable,
    /// Somebody is repairing the seat of a dead holder, and did not finish in time.
    #[error("the {role}'s seat is under repair by another process; try again in a moment")]
    Recovering {
        /// `producer` or `consumer`.
        role: &'static str,
    },
    /// The channel cannot be removed while somebody uses it.
    #[error("channel `{name}` is in use: its {role} is held{}; stop it first", holder(*pid))]
    InUse {
        /// The name.
        name: Detail<str>,
        /// The role that is held.
        role: &'static str,
        /// The holder's process id as it wrote it itself (a hint), or 0.
        pid: u64,
    },
    /// What has the channel's name is not a channel's directory, or holds something else as well. It was left
    /// as it is.
    #[error(
        "{dir} was not removed: it holds {found}, and slipring removes nothing but channels; take that away, \
         or remove the directory by hand"
    )]
    NotRemoved {
        /// The directory.
        dir: Detail<Path>,
        /// What is in it that is no part of a channel.
        found: Detail<str>,
    },
    /// A passed descriptor cannot be reopened without /proc.
    #[error("a passed channel needs /proc mounted (to open its own description of the memory)")]
    NeedsProc,
    /// A channel in borrowed memory has no descriptor that could be polled, and so no futures.
    #[error(
        "this channel lies in borrowed memory, which has no pipes: wait with the blocking calls, or \
         make the channel with a name, in memfds or on the heap"
    )]
    NoPipes,
    /// `on_tokio` was called outside of a tokio runtime.
    #[cfg(feature = "tokio")]
    #[error("no tokio runtime is current on this thread: call on_tokio within one")]
    NoRuntime,
    /// A channel that has a name, or is this process's alone, is not sent over a socket.
    #[error(
        "only a channel in memfds (`memfd()`) can be handed over: open a named one by its name instead"
    )]
    NotPassable,
    /// The handle is in a wait set, which waits for it.
    #[error(
        "this handle is in a wait set, which waits for it; take it out there first (`unwatch`)"
    )]
    InSet,
    /// The wait set of these members was dropped.
    #[error("the wait set was dropped; nobody would wait for this channel")]
    NoSet,
    /// Something other than a channel came over the socket.
    #[error(
        "expected a channel over the socket, found {found}; both ends must use slipring::handover"
    )]
    NotHandedOver {
        /// What came.
        found: &'static str,
    },
    /// A descriptor that was passed is not what a channel is made of.
    #[error("the passed {part} descriptor is {found}, expected {expected}")]
    BadDescriptor {
        /// `control`, `data` or `pipe`.
        part: &'static str,
        /// What it is.
        found: Detail<str>,
        /// What it should be.
        expected: &'static str,
    },
    /// This process, or the whole machine, has as many files open as it may; nothing was lost.
    #[error("cannot {what}: {}", too_many(*limit))]
    TooManyFiles {
        /// What was attempted, with the path.
        what: Detail<str>,
        /// How many descriptors this process may have (`RLIMIT_NOFILE`, the soft one); nothing if it is the machine that
        /// has no more.
        limit: Option<u64>,
    },
    /// Any other refusal of the operating system.
    #[error("cannot {what}: {source}")]
    Os {
        /// What was attempted, with the path.
        what: Detail<str>,
        /// What the system said.
        source: Detail<io::Error>,
    },
}

/// The same sentence as `Display`: a `main` that returns an [`Error`], and `unwrap`, print it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an [`Error`] tells beyond its kind: texts, paths, the system's own error. Read it through
/// `Deref`.
///
/// Plain version: a `Box`. But every loop over `try_pop` drops an `Error` at each turn, and a `Box` is
/// dropped through a pointer to it: the whole result would then live in memory, and be copied there
/// (64 bytes at a time: 18 ns instead of 12). This one is handed over by value, and only if it is there.
pub struct Detail<T: ?Sized>(Option<Box<T>>);

impl<T: ?Sized> Drop for Detail<T> {
    #[inline]
    fn drop(&mut self) {
        #[cold]
        #[inline(never)]
        fn free<T: ?Sized>(_: Option<Box<T>>) {}
        free(self.0.take());
    }
}

impl<T: ?Sized> std::ops::Deref for Detail<T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "made full, and emptied by `drop` alone")]
    fn deref(&self) -> &T {
        self.0.as_deref().expect("only `drop` takes it")
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Detail<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Detail<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> From<T> for Detail<T> {
    fn from(detail: T) -> Self {
        Detail(Some(Box::new(detail)))
    }
}

impl From<String> for Detail<str> {
    fn from(text: String) -> Self {
        Detail(Some(text.into()))
    }
}

impl From<&str> for Detail<str> {
    fn from(text: &str) -> Self {
        Detail(Some(text.into()))
    }
}

impl From<PathBuf> for Detail<Path> {
    fn from(path: PathBuf) -> Self {
        Detail(Some(path.into()))
    }
}

/// Two payload definitions that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMismatch {
    /// The channel's payload: name, version, bytes, fingerprint.
    pub found: (String, u64, u64, u128),
    /// This program's payload.
    pub expected: (String, u64, u64, u128),
}

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, version, size, print) = &self.found;
        write!(
            f,
            "the channel carries `{name}` version {version} ({size} bytes, fingerprint {print:032x}), "
        )?;
        let (name, version, size, print) = &self.expected;
        write!(
            f,
            "this program uses `{name}` version {version} ({size} bytes, fingerprint {print:032x}); "
        )?;
        write!(f, "both sides must use one definition")
    }
}

fn holder(pid: u64) -> String {
    if pid == 0 {
        String::new()
    } else {
        format!(" (by process {pid}, it says)")
    }
}

fn serves(kind: &str) -> &'static str {
    match kind {
        "bytes" => "`slipring send` and `slipring recv` serve it",
        "broadcast" => "`slipring tail` shows its messages",
        _ => "a program that knows its payload serves it; `slipring stat` shows its figures",
    }
}

fn first_word(found: Option<u64>) -> String {
    match found {
        Some(word) => format!("begins with {word:#018x} where a channel has \"SLIPRING\""),
        None => "is not the regular file that a channel has there".into(),
    }
}

fn too_many(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!(
            "this process has all {limit} file descriptors open that it may have (RLIMIT_NOFILE); raise the limit \
             (`ulimit -n`, `LimitNOFILE=` of systemd, setrlimit), or drop handles"
        ),
        None => {
            "the machine has as many files open as it may have; raise fs.file-max (sysctl), or \
                 end programs that hold many"
                .into()
        }
    }
}

fn nearest(found: u64, min: u64, max: u64) -> String {
    match found.checked_next_power_of_two() {
        Some(next) if next != found && next >= min && next <= max => {
            format!("; {next} is the next")
        }
        _ => String::new(),
    }
}

impl Error {
    /// Sorts what the system said into the errors that a caller can act on.
    pub(crate) fn os(what: impl fmt::Display, errno: rustix::io::Errno) -> Error {
        use rustix::io::Errno;
        let what = what.to_string().into();
        match errno {
            Errno::ACCESS | Errno::PERM => Error::Permission { what },
            Errno::MFILE => {
                let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
                // Nothing is infinity, which is not what was hit.
                let limit = Some(limit.unwrap_or(u64::MAX));
                Error::TooManyFiles { what, limit }
            }
            Errno::NFILE => Error::TooManyFiles { what, limit: None },
            _ => Error::Os {
                what,
                source: io::Error::from(errno).into(),
            },
        }
    }

    /// For a call that needs the directory for named channels to be there and writable.
    pub(crate) fn directory(what: impl fmt::Display, errno: rustix::io::Errno) -> Error {
        match errno {
            // Another directory would not help.
            rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => Error::os(what, errno),
            errno => Error::Directory {
                what: what.to_string().into(),
                source: io::Error::from(errno).into(),
            },
        }
    }

    /// As [`os`](Self::os), for a call on something of a named channel: a read-only file system is `Directory`.
    pub(crate) fn named(what: impl fmt::Display, errno: rustix::io::Errno) -> Error {
        match errno {
            rustix::io::Errno::ROFS => Error::directory(what, errno),
            errno => Error::os(what, errno),
        }
    }

    /// As [`os`](Self::os), for a call that needs `needed` bytes of memory.
    pub(crate) fn space(what: impl fmt::Display, needed: u64, errno: rustix::io::Errno) -> Error {
        use rustix::io::Errno;
        match errno {
            Errno::NOSPC | Errno::NOMEM | Errno::DQUOT | Errno::FBIG | Errno::FAULT => {
                Error::NoSpace {
                    needed,
                    what: what.to_string().into(),
                }
            }
            errno => Error::os(format_args!("get space for {what}"), errno),
        }
    }

    /// Puts a name to the memory that was found to be no channel.
    pub(crate) fn about(self, path: &Path) -> Error {
        match self {
            Error::NotAChannel { found, .. } => Error::NotAChannel {
                what: path.display().to_string().into(),
                found,
            },
            other => other,
        }
    }
}

impl From<slipring_core::Error> for Error {
    /// In two halves: the answers of every poll are told apart where they are made.
    #[inline]
    fn from(error: slipring_core::Error) -> Error {
        match error {
            slipring_core::Error::Full => Error::Full,
            slipring_core::Error::Empty => Error::Empty,
            other => rare(other),
        }
    }
}

#[cold]
#[inline(never)]
fn rare(error: slipring_core::Error) -> Error {
    use slipring_core::Error as Core;
    match error {
        Core::Full => Error::Full,
        Core::Empty => Error::Empty,
        Core::Disconnected(end) => Error::Disconnected(end),
        Core::TooLarge { asked, max } => Error::TooLarge { asked, max },
        Core::Forked => Error::Forked,
        Core::Lagged(lost) => Error::Lagged(lost),
        Core::Overwritten => Error::Overwritten,
        Core::Ahead { asked, newest } => Error::Ahead { asked, newest },
        Core::Stride { index, of } => Error::Stride { index, of },
        Core::Corrupt(corrupt) => Error::Corrupt(corrupt),
        Core::NotAChannel { found } => Error::NotAChannel {
            what: "the memory".into(),
            found: Some(found),
        },
        Core::Version { found, expected } => Error::Version { found, expected },
        Core::Truncated {
            part,
            found,
            expected,
        } => Error::Truncated {
            part,
            found,
            expected,
        },
        Core::Misaligned { part, expected } => Error::Misaligned { part, expected },
        Core::Capacity { found, min, max } => Error::Capacity { found, min, max },
        // The core is of this workspace; whatever it adds is a kind of corruption until named.
        other => Error::Os {
            what: "use the channel".into(),
            source: io::Error::other(other.to_string()).into(),
        },
    }
}

impl From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Error {
        Error::Corrupt(corrupt)
    }
}

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

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for PushError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl<T> From<PushError<T>> for Error {
    fn from(failed: PushError<T>) -> Error {
        failed.error
    }
}

impl<T> From<slipring_core::PushError<T>> for PushError<T> {
    #[inline]
    fn from(failed: slipring_core::PushError<T>) -> PushError<T> {
        PushError {
            value: failed.value,
            error: failed.error.into(),
        }
    }
}

/// A path in an error.
pub(crate) fn path(path: impl Into<PathBuf>) -> Detail<Path> {
    path.into().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    /// What `main` and `unwrap` print is the advice, and each sentence has its verb.
    #[test]
    fn debug_prints_advice() {
        let refused = Error::space("the data file", 8, Errno::NODEV);
        let said = format!("{refused:?}");
        assert!(
            said.starts_with("cannot get space for the data file: "),
            "{said}"
        );
        let kind = Error::Kind {
            found: "broadcast",
            expected: "bytes",
        };
        assert!(format!("{kind:?}").contains("`slipring tail`"), "{kind:?}");
        let refused = Error::os("open the channel", Errno::ACCESS);
        assert!(
            format!("{refused:?}").contains("slipring create --mode 660"),
            "{refused:?}"
        );
    }
}

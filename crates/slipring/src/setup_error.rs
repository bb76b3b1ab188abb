//! The error of making, opening or removing a channel, or of taking its role. It tells what was
//! found, what was expected, and what to do.

mod advice;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use slipring_core::{BatchError, Corrupt, Error, FormatError, PushError};

use crate::pages::HugePages;
use advice::{first_word, holder, nearest, serves, taken, too_many};

/// The reason why a channel could not be made, opened or removed, or its role not taken.
///
/// The operator `?` turns a message verb's [`Error`] into a `SetupError`. So a function that opens
/// channels and uses them can return it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A message verb failed, or a verb that a new handle begins with. (`Forked`, `Corrupt`, `TooManyFiles` and `Os` of
    /// [`Error`] become the variants of the same name.)
    #[error("{0}")]
    Message(Error),
    /// A `fork` copied the handle or the memory.
    #[error(
        "this handle, or its memory, was copied by fork and is the parent's; open the channel again in the child"
    )]
    Forked,
    /// A word in shared memory holds an impossible value: a peer, or another program, wrote it.
    #[error("the channel is corrupt: {0}; remove it and create it again")]
    Corrupt(Corrupt),

    /// The memory or file is no channel.
    #[error("not a channel: {what} {}", first_word(*found))]
    NotAChannel {
        /// The file, or the memory.
        what: Box<str>,
        /// Its first eight bytes; `None` if it is not a regular file.
        found: Option<u64>,
    },
    /// The channel has another format version.
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
    /// The channel is of another kind.
    #[error(
        "the channel is of kind `{found}`, this program asked for `{expected}`; {}",
        serves(found)
    )]
    Kind {
        /// The kind of the channel.
        found: &'static str,
        /// The requested kind.
        expected: &'static str,
    },
    /// The channel has another payload type.
    #[error("{0}")]
    Schema(Box<SchemaMismatch>),
    /// The `broadcast` channel is of the other mode: it behaves differently when it is full.
    #[error(
        "the channel {found} when it is full, this program asked for one that {expected}; ask for the other mode \
         (`overwriting`), or remove it and create it again"
    )]
    WhenFull {
        /// The channel's behaviour.
        found: &'static str,
        /// The requested behaviour.
        expected: &'static str,
    },
    /// The builder asked for `exact()`, and the existing channel has another geometry.
    #[error(
        "the channel exists with {word} {found}, this program insists on {expected}; remove it, or \
         open it without exact()"
    )]
    Geometry {
        /// The name of the figure that differs.
        word: &'static str,
        /// The channel's figure.
        found: u64,
        /// The requested figure.
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
        /// The length that the channel needs, in bytes.
        expected: u64,
    },
    /// The borrowed memory does not begin at the alignment that a channel needs.
    #[error(
        "the {part} memory must begin at a multiple of {expected} bytes; allocate it with that alignment, or map it"
    )]
    Misaligned {
        /// `control` or `data`.
        part: &'static str,
        /// The alignment in bytes.
        expected: u64,
    },
    /// No channel can have this capacity.
    #[error("{found} is no capacity: use a power of two from {min} to {max}{}", nearest(*found, *min, *max))]
    Capacity {
        /// The requested capacity, in slots or bytes.
        found: u64,
        /// The smallest valid capacity.
        min: u64,
        /// The largest valid capacity.
        max: u64,
    },
    /// The largest record does not fit the ring.
    #[error(
        "the largest record may have 8 to {max} bytes in this ring, {found} were asked for; use a larger ring"
    )]
    MaxRecord {
        /// The requested size in bytes, rounded up to a multiple of 8.
        found: u64,
        /// The most that this ring allows, in bytes.
        max: u64,
    },
    /// The channel would have no consumer seat, or more than a channel can have.
    #[error("{found} is no number of consumers: a channel has seats for 1 to {max}")]
    Consumers {
        /// The requested number.
        found: u64,
        /// The largest valid number.
        max: u64,
    },
    /// The channel cannot be made with this value of a setting.
    #[error("{found} is no value for `{setting}`: this channel may have {min} to {max}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// The requested value.
        found: u64,
        /// The smallest valid value.
        min: u64,
        /// The largest valid value.
        max: u64,
    },
    /// The user metadata is longer than the header's space for it.
    #[error(
        "the header holds {max} bytes of user metadata, {found} were given; give fewer, and send the rest as a message"
    )]
    Metadata {
        /// The number of bytes given.
        found: usize,
        /// The number of bytes that fit.
        max: usize,
    },

    /// The name breaks the naming rule.
    #[error(
        "`{name}` is no channel name: {why}; a name is `topic` or `domain/topic`, each part 1 to 64 of the characters A-Z a-z 0-9 . _ - and not beginning with a dot"
    )]
    BadName {
        /// The name, made printable.
        name: Box<str>,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The pattern of names breaks the rule.
    #[error(
        "`{pattern}` is no pattern of names: {why}; a pattern is `topic` or `domain/topic`, in which `*` stands for any \
         characters of one part, such as `cam/*`, `*/imu` or `*`"
    )]
    BadPattern {
        /// The pattern, made printable.
        pattern: Box<str>,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// There is no such channel.
    #[error(
        "no channel `{name}` in {dir} (never made, or removed); create it first, or look at `slipring ls`"
    )]
    NotFound {
        /// The name.
        name: Box<str>,
        /// The directory that was searched.
        dir: Box<Path>,
    },
    /// `create` found a channel of that name, and did not touch it.
    #[error("channel `{name}` exists in {dir}; open it, or remove it first (`slipring rm {name}`)")]
    AlreadyExists {
        /// The name.
        name: Box<str>,
        /// The directory.
        dir: Box<Path>,
    },
    /// The directory for named channels does not exist.
    #[error(
        "the directory {dir} for named channels does not exist; create it, or change SLIPRING_DIR"
    )]
    NoDirectory {
        /// The directory.
        dir: Box<Path>,
    },
    /// The directory for named channels cannot be made, opened or written. Either there is no
    /// /dev/shm, or its file system is read-only, or the directory is another user's.
    #[error(
        "cannot {what}: {source}; set SLIPRING_DIR to a directory in which you may make files (in memory, on a \
         tmpfs, if there is one)"
    )]
    Directory {
        /// The attempted action, with the path.
        what: Box<str>,
        /// The system's error.
        source: io::Error,
    },
    /// The default directory for named channels belongs to another user, or is open to others.
    #[error(
        "{dir} is not safe for named channels: {found}; expected a directory of yours with mode 0700 (or set SLIPRING_DIR)"
    )]
    UnsafeDirectory {
        /// The directory.
        dir: Box<Path>,
        /// The reason why it is unsafe.
        found: Box<str>,
    },
    /// The kernel refused access.
    #[error(
        "no permission to {what}; ask its owner; whoever creates a channel may widen its permissions (`slipring create --mode 660`, in a program `mode()`)"
    )]
    Permission {
        /// The refused action, with the path.
        what: Box<str>,
    },
    /// The memory or file system cannot hold the channel.
    #[error("no space for {needed} bytes: {what}; use a smaller capacity, or make room")]
    NoSpace {
        /// The number of bytes asked for.
        needed: u64,
        /// The place: memory or file.
        what: Box<str>,
    },
    /// The file system can neither preallocate space nor guarantee zeros in its place.
    #[error(
        "cannot make {what}: its file system ({kind}) does not set space aside (fallocate); \
         set SLIPRING_DIR to a directory on tmpfs (/dev/shm), ext4, XFS or Btrfs"
    )]
    FileSystem {
        /// The file to be made, with the path.
        what: Box<str>,
        /// The kind of file system.
        kind: Box<str>,
    },
    /// A named channel in huge pages needs a mounted file system of such pages.
    #[error(
        "no hugetlbfs with {size} is mounted; mount one (as root, `slipring hugepages --mount`), or do without huge pages"
    )]
    NotMounted {
        /// The page size.
        size: HugePages,
    },
    /// Only huge pages come from a pool whose size can be set.
    #[error("pages of the usual size are reserved in no pool: name 2 MiB or 1 GiB ones")]
    NoPool,

    /// All seats of the role have holders.
    #[error("{}", taken(role, *seats, *pid))]
    RoleTaken {
        /// `producer` or `consumer`.
        role: &'static str,
        /// The number of the role's seats in the channel.
        seats: u64,
        /// The process id of one holder as the holder wrote it (a hint), or 0.
        pid: u64,
    },
    /// Only the process that made the channel may write its messages.
    #[error(
        "the channel's data is sealed against writing: its producer is in the process that made it; \
         make it without sealed() to have the producer elsewhere"
    )]
    Sealed,
    /// Only memfds can be sealed, and only a channel of fixed capacity.
    #[error(
        "only a channel of fixed capacity in memfds can be sealed(); make it with memfd() and without max_capacity(), or without sealed()"
    )]
    NotSealable,
    /// Another process is repairing the seat of a dead holder, and did not finish in time.
    #[error("the {role}'s seat is under repair by another process; try again in a moment")]
    Recovering {
        /// `producer` or `consumer`.
        role: &'static str,
    },
    /// The channel cannot be removed while one of its seats is held.
    #[error("channel `{name}` is in use: its {role} is held{}; stop it first", holder(*pid))]
    InUse {
        /// The name.
        name: Box<str>,
        /// The role that has a holder.
        role: &'static str,
        /// The holder's process id as the holder wrote it (a hint), or 0.
        pid: u64,
    },
    /// The directory with the channel's name is not a channel's, or holds other files as well. It
    /// was left as it is.
    #[error(
        "{dir} was not removed: it holds {found}, and slipring removes nothing but channels; take that away, \
         or remove the directory by hand"
    )]
    NotRemoved {
        /// The directory.
        dir: Box<Path>,
        /// The file in it that is not part of a channel.
        found: Box<str>,
    },
    /// A passed descriptor cannot be reopened without /proc.
    #[error(
        "a passed channel needs /proc mounted (to open its own description of the memory); mount it, or make a named \
         channel and open it by its name"
    )]
    NeedsProc,
    /// A named channel, or a channel in this process's own memory, cannot be sent over a socket.
    #[error(
        "only a channel in memfds (`memfd()`) can be handed over: open a named one by its name instead"
    )]
    NotPassable,
    /// The socket delivered something other than a channel.
    #[error(
        "expected a channel over the socket, found {found}; both ends must use slipring::handover"
    )]
    NotHandedOver {
        /// A description of the message that came.
        found: &'static str,
    },
    /// A passed descriptor is not a part of a channel.
    #[error(
        "the passed {part} descriptor is {found}, expected {expected}; pass what `Channel::descriptors` returns, in its \
         order"
    )]
    BadDescriptor {
        /// `control`, `data` or `pipe`.
        part: &'static str,
        /// A description of the descriptor.
        found: Box<str>,
        /// The expected description.
        expected: &'static str,
    },
    /// This process, or the whole machine, has as many files open as it may. No message was lost.
    #[error("cannot {what}: {}", too_many(*limit))]
    TooManyFiles {
        /// The attempted action, with the path.
        what: Box<str>,
        /// The number of descriptors that this process may have (the soft `RLIMIT_NOFILE`); `None`
        /// if the machine has reached its limit.
        limit: Option<u64>,
    },
    /// The operating system refused for any other reason.
    #[error("cannot {what}: {source}")]
    Os {
        /// The attempted action, with the path.
        what: Box<str>,
        /// The system's error.
        source: io::Error,
    },
}

/// Prints the same sentence as `Display`. A `main` that returns a [`SetupError`] prints it, and so
/// does `unwrap`.
impl fmt::Debug for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

impl SetupError {
    /// Sorts the system's error into the errors that a caller can act on.
    pub(crate) fn os(what: impl fmt::Display, errno: rustix::io::Errno) -> SetupError {
        use rustix::io::Errno;
        let what = what.to_string().into();
        match errno {
            Errno::ACCESS | Errno::PERM => SetupError::Permission { what },
            Errno::MFILE => {
                let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
                // `None` means infinity, which is not the limit that was hit.
                let limit = Some(limit.unwrap_or(u64::MAX));
                SetupError::TooManyFiles { what, limit }
            }
            Errno::NFILE => SetupError::TooManyFiles { what, limit: None },
            _ => SetupError::Os {
                what,
                source: io::Error::from(errno),
            },
        }
    }

    /// Returns the error of a call that needs a writable directory for named channels.
    pub(crate) fn directory(what: impl fmt::Display, errno: rustix::io::Errno) -> SetupError {
        match errno {
            // Another directory would not help.
            rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => SetupError::os(what, errno),
            errno => SetupError::Directory {
                what: what.to_string().into(),
                source: io::Error::from(errno),
            },
        }
    }

    /// Like [`os`](Self::os), for a call on a file of a named channel: a read-only file system is
    /// `Directory`.
    pub(crate) fn named(what: impl fmt::Display, errno: rustix::io::Errno) -> SetupError {
        match errno {
            rustix::io::Errno::ROFS => SetupError::directory(what, errno),
            errno => SetupError::os(what, errno),
        }
    }

    /// Like [`os`](Self::os), for a call that needs `needed` bytes of memory.
    pub(crate) fn space(
        what: impl fmt::Display,
        needed: u64,
        errno: rustix::io::Errno,
    ) -> SetupError {
        use rustix::io::Errno;
        match errno {
            Errno::NOSPC | Errno::NOMEM | Errno::DQUOT | Errno::FBIG | Errno::FAULT => {
                SetupError::NoSpace {
                    needed,
                    what: what.to_string().into(),
                }
            }
            errno => SetupError::os(format_args!("get space for {what}"), errno),
        }
    }

    /// Adds the path to the error for memory that is not a channel.
    pub(crate) fn about(self, path: &Path) -> SetupError {
        match self {
            SetupError::NotAChannel { found, .. } => SetupError::NotAChannel {
                what: path.display().to_string().into(),
                found,
            },
            other => other,
        }
    }
}

impl From<Error> for SetupError {
    fn from(error: Error) -> SetupError {
        match error {
            Error::Corrupt(corrupt) => SetupError::Corrupt(corrupt),
            Error::Forked => SetupError::Forked,
            Error::Os { call, errno } => {
                SetupError::os(call, rustix::io::Errno::from_raw_os_error(errno))
            }
            Error::TooManyFiles { limit } => SetupError::TooManyFiles {
                what: "open another file for the channel".into(),
                limit: (limit > 0).then_some(limit),
            },
            error => SetupError::Message(error),
        }
    }
}

impl<T> From<PushError<T>> for SetupError {
    fn from(failed: PushError<T>) -> SetupError {
        failed.error().into()
    }
}

impl From<BatchError> for SetupError {
    fn from(failed: BatchError) -> SetupError {
        failed.error.into()
    }
}

impl From<Corrupt> for SetupError {
    fn from(corrupt: Corrupt) -> SetupError {
        SetupError::Corrupt(corrupt)
    }
}

impl From<FormatError> for SetupError {
    fn from(error: FormatError) -> SetupError {
        match error {
            FormatError::Corrupt(corrupt) => SetupError::Corrupt(corrupt),
            FormatError::NotAChannel { found } => SetupError::NotAChannel {
                what: "the memory".into(),
                found: Some(found),
            },
            FormatError::Version { found, expected } => SetupError::Version { found, expected },
            FormatError::Truncated {
                part,
                found,
                expected,
            } => SetupError::Truncated {
                part,
                found,
                expected,
            },
            FormatError::Misaligned { part, expected } => SetupError::Misaligned { part, expected },
            FormatError::Capacity { found, min, max } => SetupError::Capacity { found, min, max },
            // The core belongs to this workspace. An error that it adds is shown in its own words.
            other => SetupError::Os {
                what: "use the channel".into(),
                source: io::Error::other(other.to_string()),
            },
        }
    }
}

/// Converts a path for an error.
pub(crate) fn path(path: impl Into<PathBuf>) -> Box<Path> {
    path.into().into_boxed_path()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    /// `main` and `unwrap` print the advice, and each sentence has its verb.
    #[test]
    fn debug_prints_advice() {
        let refused = SetupError::space("the data file", 8, Errno::NODEV);
        let said = format!("{refused:?}");
        assert!(
            said.starts_with("cannot get space for the data file: "),
            "{said}"
        );
        let kind = SetupError::Kind {
            found: "broadcast",
            expected: "bytes",
        };
        assert!(format!("{kind:?}").contains("`slipring tail`"), "{kind:?}");
        let (part, role) = ("data", "producer");
        let misaligned = SetupError::Misaligned { part, expected: 64 };
        let (found, max) = (300, 256);
        let metadata = SetupError::Metadata { found, max };
        let descriptor = SetupError::BadDescriptor {
            part,
            found: "empty".into(),
            expected: "a memfd",
        };
        let (seats, pid) = (1, 0);
        let taken = SetupError::RoleTaken { role, seats, pid };
        for (refused, advice) in [
            (misaligned, "allocate it with that alignment"),
            (metadata, "give fewer"),
            (SetupError::NeedsProc, "mount it"),
            (descriptor, "pass what `Channel::descriptors` returns"),
            (taken, "stop it, or wait until it leaves"),
        ] {
            assert!(format!("{refused:?}").contains(advice), "{refused:?}");
        }
    }
}

//! Ends the command with one message on standard error, and a code that scripts may rely on.

use std::fmt;
use std::io;
use std::process::ExitCode;

use slipring::{BatchError, End, Error, PushError, SetupError};

/// The exit codes, as `--help` shows them.
///
/// Each line is short, and breaks by itself: `clap` would not indent what it wraps.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done; for recv and tail: the sender finished, and
       all that it sent was written; for work: all feeders
       finished, and each item that it ran succeeded
  1    failure; the message on standard error says which;
       also if an item of work failed (see letters), or a
       line was too long for send --queue or pub
  2    usage: a wrong flag, or a name or size that no
       channel can have
  3    recv, tail, work: the sender aborted (by a signal or
       an error); all that it had sent was written, or run
  4    recv, tail, work: the sender died (killed, crashed);
       all that it had sent was written, or run
  5    taken: another process holds the role, or uses the
       channel to be removed or resized
  129  ended by SIGHUP; send, recv, pub and sub left in good
       order, and work gave back what was not done
  130  ended by SIGINT, as by Ctrl-C; likewise
  143  ended by SIGTERM; likewise
  141  nobody reads the output any more; recv leaves what it
       could not write in the channel

Named channels live in $SLIPRING_DIR, by default
/dev/shm/slipring-UID.";

/// The reasons for which a verb does not end with 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// slipring refused a request.
    Slipring(SetupError),
    /// The system refused another request.
    Io(String, io::Error),
    /// A check failed, or another error that has only a message.
    Words(String),
    /// `recv`: the stream ended, but its sender did not finish it.
    Ended(End),
    /// `tail`: the stream ended in the same way.
    Left(End),
    /// `work`: the queue is empty, but not every feeder finished.
    Drained(End),
    /// A size that the channel cannot have, in words.
    Usage(String),
    /// Somebody uses what is to be changed, in words.
    Taken(String),
    /// A signal asked us to stop.
    Signal(i32),
    /// Nobody reads standard output any more.
    BrokenPipe,
    /// `recv`: likewise; the words say what became of the records.
    Unwritten(&'static str),
    /// The errors were already reported, line by line; only the code remains.
    Told(u8),
}

impl Failure {
    /// Adds the channel's name to an error about a name that was taken away during a wait: the
    /// error does not know the name.
    pub(crate) fn about(self, name: &str) -> Failure {
        match self {
            Failure::Slipring(SetupError::Message(Error::Removed)) => Failure::Words(format!(
                "no channel `{name}` any more: it was removed while this waited; start both sides again"
            )),
            Failure::Slipring(SetupError::Message(Error::Replaced)) => Failure::Words(format!(
                "channel `{name}` is another one by now: it was removed and made anew while this waited; start this side \
                 again"
            )),
            other => other,
        }
    }

    /// Returns the exit code, as in [`TABLE`].
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Slipring(error) => code_of(error),
            Failure::Io(..) | Failure::Words(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Taken(_) => 5,
            Failure::Ended(end) | Failure::Left(end) | Failure::Drained(end) => match end {
                End::Finished => 0,
                End::Aborted => 3,
                End::Died => 4,
            },
            Failure::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
            Failure::BrokenPipe | Failure::Unwritten(_) => 141,
            Failure::Told(code) => *code,
        }
    }

    /// Prints the reason once, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !matches!(self, Failure::Told(_)) {
            complain(self);
        }
        ExitCode::from(self.code())
    }
}

/// Prints one line on standard error. If standard error is closed, nobody is left to read it.
pub(crate) fn complain(what: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "slipring: {what}");
}

fn code_of(error: &SetupError) -> u8 {
    match error {
        SetupError::BadName { .. }
        | SetupError::BadPattern { .. }
        | SetupError::Capacity { .. }
        | SetupError::MaxRecord { .. }
        | SetupError::Consumers { .. }
        | SetupError::Setting { .. }
        | SetupError::Metadata { .. } => 2,
        SetupError::RoleTaken { .. } | SetupError::Recovering { .. } | SetupError::InUse { .. } => {
            5
        }
        _ => 1,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Slipring(error) => error.fmt(f),
            Failure::Io(what, source) => write!(f, "cannot {what}: {source}"),
            Failure::Words(words) | Failure::Usage(words) | Failure::Taken(words) => {
                f.write_str(words)
            }
            Failure::Ended(End::Finished) => f.write_str("the sender finished"),
            Failure::Ended(End::Aborted) => f.write_str(
                "the sender aborted (by a signal or an error); all that it had sent was written",
            ),
            Failure::Ended(End::Died) => {
                f.write_str("the sender died before it was done; all that it had sent was written")
            }
            Failure::Drained(End::Finished) => f.write_str("all feeders finished"),
            Failure::Drained(End::Aborted) => f.write_str(
                "a feeder aborted (by a signal or an error); no item that it had sent is left",
            ),
            Failure::Drained(End::Died) => {
                f.write_str("a feeder died before it was done; no item that it had sent is left")
            }
            Failure::Left(end) => write!(f, "the producer is gone: it {end}"),
            Failure::Signal(1) => f.write_str("hung up"),
            Failure::Signal(2) => f.write_str("interrupted"),
            Failure::Signal(15) => f.write_str("terminated"),
            Failure::Signal(signal) => write!(f, "ended by signal {signal}"),
            Failure::BrokenPipe => f.write_str("nobody reads the output any more"),
            Failure::Unwritten(kept) => write!(f, "nobody reads the output any more; {kept}"),
            Failure::Told(_) => Ok(()),
        }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Failure {
        Failure::Slipring(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Slipring(error.into())
    }
}

impl<T> From<PushError<T>> for Failure {
    fn from(failed: PushError<T>) -> Failure {
        failed.error().into()
    }
}

impl From<BatchError> for Failure {
    fn from(failed: BatchError) -> Failure {
        failed.error.into()
    }
}

impl Failure {
    /// Makes a failure from the system's error, where `what` says what we tried to do.
    pub(crate) fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Failure {
        Failure::Io(what.into(), error.into())
    }
}

//! How the command ends: one message on standard error, and a code that scripts may rely on.

use std::fmt;
use std::io;
use std::process::ExitCode;

use slipring::{End, Error};

/// The exit codes, as `--help` shows them.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done; for recv and tail: the sender finished, and all it sent was written
  1    failure (the message on standard error says which)
  2    usage: a wrong flag, or a name or size that no channel can have
  3    recv, tail: the sender was interrupted; what it had sent was written
  4    recv, tail: the sender died (killed, crashed); what it had sent was written
  5    taken: another process holds the role, or uses the channel to be removed
  129  ended by SIGHUP        (send, recv: left in an orderly way)
  130  interrupted by SIGINT   (send, recv: left in an orderly way)
  141  nobody reads the output any more; recv keeps what it could not write
  143  ended by SIGTERM        (send, recv: left in an orderly way)

Named channels live in $SLIPRING_DIR, by default /dev/shm/slipring-UID.";

/// Why a verb did not end with 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// slipring refused.
    Slipring(Error),
    /// The system refused something else.
    Io(String, io::Error),
    /// A check failed, or something else that has only words.
    Words(String),
    /// `recv`: the stream ended, but was not finished.
    Ended(End),
    /// `tail`: as above.
    Left(End),
    /// A signal asked us to go.
    Signal(i32),
    /// Nobody reads standard output any more.
    BrokenPipe,
    /// It was told already, line by line; the code remains.
    Told(u8),
}

impl Failure {
    /// The exit code, as in [`TABLE`].
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Slipring(error) => code_of(error),
            Failure::Io(..) | Failure::Words(_) => 1,
            Failure::Ended(end) | Failure::Left(end) => match end {
                End::Finished => 0,
                End::Aborted => 3,
                End::Died => 4,
            },
            Failure::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
            Failure::BrokenPipe => 141,
            Failure::Told(code) => *code,
        }
    }

    /// Says why, once, and gives the code to end with.
    pub(crate) fn report(&self) -> ExitCode {
        if !matches!(self, Failure::Told(_)) {
            complain(self);
        }
        ExitCode::from(self.code())
    }
}

/// One line on standard error. If that is closed, nobody is left to be told.
pub(crate) fn complain(what: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "slipring: {what}");
}

fn code_of(error: &Error) -> u8 {
    match error {
        Error::BadName { .. }
        | Error::Capacity { .. }
        | Error::MaxRecord { .. }
        | Error::Consumers { .. }
        | Error::Metadata { .. } => 2,
        Error::RoleTaken { .. } | Error::Recovering { .. } | Error::InUse { .. } => 5,
        _ => 1,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Slipring(error) => error.fmt(f),
            Failure::Io(what, source) => write!(f, "cannot {what}: {source}"),
            Failure::Words(words) => f.write_str(words),
            Failure::Ended(End::Finished) => f.write_str("the sender finished"),
            Failure::Ended(End::Aborted) => f.write_str(
                "the sender was interrupted before it was done; all that it had sent was written",
            ),
            Failure::Ended(End::Died) => {
                f.write_str("the sender died before it was done; all that it had sent was written")
            }
            Failure::Left(end) => write!(f, "the producer is gone: it {end}"),
            Failure::Signal(1) => f.write_str("hung up"),
            Failure::Signal(2) => f.write_str("interrupted"),
            Failure::Signal(15) => f.write_str("terminated"),
            Failure::Signal(signal) => write!(f, "ended by signal {signal}"),
            Failure::BrokenPipe => f.write_str(
                "nobody reads the output any more; what was not written is kept for the next recv",
            ),
            Failure::Told(_) => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Slipring(error)
    }
}

impl Failure {
    /// What the system said when we tried to `what`.
    pub(crate) fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Failure {
        Failure::Io(what.into(), error.into())
    }
}

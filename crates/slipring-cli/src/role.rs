//! Takes the one role of a channel: the previous holder may still be on its way out.

use std::time::{Duration, Instant};

use slipring::SetupError;

use crate::exit::Failure;
use crate::signals::Signals;

/// The interval between two requests for a role that is taken.
pub(crate) const AGAIN: Duration = Duration::from_millis(5);

/// The wait for the role
#[derive(clap::Args)]
pub(crate) struct Role {
    /// Wait this long if another process holds the role; fractions are allowed
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "1",
        value_parser = seconds,
        allow_negative_numbers = true
    )]
    wait: Duration,
}

/// Returns `true` if a later request for the role may succeed.
pub(crate) fn may_become_free(error: &SetupError) -> bool {
    matches!(
        error,
        SetupError::RoleTaken { .. } | SetupError::Recovering { .. }
    )
}

impl Role {
    /// Returns how long to wait for a role that is taken.
    pub(crate) fn patience(&self) -> Duration {
        self.wait
    }

    /// Calls `take` until the role is free. A process that was killed holds its role until the
    /// kernel has cleared it away. That may be after its parent knows of its death.
    pub(crate) fn take<T>(
        &self,
        signals: &Signals,
        mut take: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        loop {
            match take() {
                Err(Failure::Slipring(error))
                    if may_become_free(&error) && begun.elapsed() < self.wait =>
                {
                    signals.check()?;
                    std::thread::sleep(AGAIN.min(self.wait));
                }
                done => return done,
            }
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "use a number of seconds, such as 0.5 or 10".into())
}

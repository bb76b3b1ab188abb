//! Taking the one role of a channel: whoever had it may still be on its way out.

use std::time::{Duration, Instant};

use slipring::Error;

use crate::exit::Failure;
use crate::signals::Signals;

/// How often a role that is taken is asked for again.
const AGAIN: Duration = Duration::from_millis(5);

/// How long to wait for the role
#[derive(clap::Args)]
pub(crate) struct Role {
    /// Wait so long if another process holds the role; fractions are allowed
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    wait: Duration,
}

impl Role {
    /// Calls `take` until the role is free. A process that was killed holds its role until the kernel has
    /// cleared it away, which may be after its parent knows of its death.
    pub(crate) fn take<T>(
        &self,
        signals: &Signals,
        mut take: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        loop {
            match take() {
                Err(Failure::Slipring(Error::RoleTaken { .. } | Error::Recovering { .. }))
                    if begun.elapsed() < self.wait =>
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
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

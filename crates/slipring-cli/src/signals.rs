//! Being asked to go: SIGINT, SIGTERM and SIGHUP set a flag, and the verbs look at it at least ten times a
//! second, wherever they wait. So they leave their role in an orderly way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exit::Failure;
use crate::inherited;

/// How long any wait may last before the flag is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The flag.
pub(crate) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// From now on these signals only set the flag. A signal that the starter had ignored stays ignored.
    pub(crate) fn catch() -> Result<Signals, Failure> {
        let flag = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if inherited::is_ignored(signal) {
                continue;
            }
            signal_hook::flag::register_usize(signal, flag.clone(), signal as usize)
                .map_err(|error| Failure::io("catch signals", error))?;
        }
        Ok(Signals(flag))
    }

    /// `Signal` if one has come.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Failure::Signal(signal as i32)),
        }
    }
}

//! Wakes a handle's futures, by the helper thread or by tokio.

use std::sync::Arc;
use std::task::{Context, Waker};

use super::helper::Registration;
use super::parker::Parker;
#[cfg(feature = "tokio")]
use super::tokio::OnTokio;
use crate::error::Error;

/// The watcher of a handle's descriptor, for its futures.
#[derive(Default)]
pub(crate) enum Driver {
    /// None yet; the helper thread, once a future has to wait.
    #[default]
    Unasked,
    Helper(Helped),
    #[cfg(feature = "tokio")]
    Tokio(Box<OnTokio>),
}

impl Driver {
    /// Returns `true` if we must count polls ourselves, because nothing else makes a task leave the
    /// thread to others.
    pub(super) fn counts_turns(&self) -> bool {
        match self {
            Driver::Unasked | Driver::Helper(_) => true,
            #[cfg(feature = "tokio")]
            Driver::Tokio(_) => false,
        }
    }

    /// Clears the earlier readiness, before the descriptor is armed.
    pub(super) fn forget(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        match self {
            // The helper thread reports the current *level*, not events, once `rest` is called.
            Driver::Unasked | Driver::Helper(_) => Ok(()),
            #[cfg(feature = "tokio")]
            Driver::Tokio(tokio) => tokio.listen(_cx),
        }
    }

    /// Lets the waker be woken when the descriptor is readable. Called after arming, if nothing was
    /// found.
    pub(super) fn rest(&mut self, parker: &Arc<Parker>, cx: &Context<'_>) -> Result<(), Error> {
        match self {
            Driver::Unasked => {
                let helped = Helped {
                    registration: Registration::new(parker.descriptor()?)?,
                    parker: parker.clone(),
                };
                helped.rest(cx.waker())?;
                *self = Driver::Helper(helped);
                Ok(())
            }
            Driver::Helper(helped) => helped.rest(cx.waker()),
            // It has listened since `forget`.
            #[cfg(feature = "tokio")]
            Driver::Tokio(_) => Ok(()),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn on_tokio(&mut self, parker: &Parker) -> Result<(), Error> {
        *self = Driver::Tokio(Box::new(OnTokio::new(parker)?));
        Ok(())
    }
}

/// A handle whose descriptor the helper thread watches.
pub(crate) struct Helped {
    registration: Registration,
    parker: Arc<Parker>,
}

impl Helped {
    fn rest(&self, waker: &Waker) -> Result<(), Error> {
        self.registration.rest(self.parker.descriptor()?, waker)
    }
}

impl Drop for Helped {
    fn drop(&mut self) {
        self.registration.leave(self.parker.descriptor().ok());
    }
}

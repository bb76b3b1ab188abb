//! Watches a `broadcast` channel: copies messages without a seat and without writing any word. So
//! no producer waits for a watcher, and no end can tell that it is there. See the head of
//! `broadcast.rs`.
//!
//! # Guarantees
//! - Every message that a watcher hands out was committed. Messages come in order, once, and whole.
//! - It counts exactly the messages that were overwritten before it copied them (`Lagged`).
//!
//! # Refuses
//! To be waited for: a producer that waits for consumers does not wait for a watcher.
//!
//! # The second look
//! A watcher looks a second time in either mode, like a consumer of an overwriting channel: see
//! *overwriting* in `broadcast.rs`. The write limit of a producer that waits serves as well.
//!
//! The second look is more careful than it must be, since the producer may not have written yet
//! what it *may* write. While all consumers keep up, the message a ring behind the write limit is
//! the newest one. So a watcher must keep up as well.
//!
//! There is one gap. A producer that waits writes its slots by plain stores (`&mut T`). Beside our
//! relaxed loads, the language calls that a race. It is a race between processes, so two facts
//! decide. Neither compiler nor processor moves a store to before the fence, not even a plain one.
//! And bytes that raced are not handed out.

use core::fmt;

use super::{Seek, resume_at};
use crate::error::Error;
use crate::gate::watching::{Next, PATIENCE, Place};
use crate::mem::Watched;
use crate::seat::Peer;
use crate::sync::AtomicU64;

/// Watches a channel.
pub struct Watcher<'m> {
    place: Place<'m>,
    slots: Watched<'m>,
}

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("position", &self.place.at)
            .finish_non_exhaustive()
    }
}

impl<'m> Watcher<'m> {
    /// Begins where `seek` says.
    ///
    /// Fails with `Ahead` or `Corrupt`. If the messages from a number asked for are gone, the first
    /// call reports them. `peer` is the producer; its notes lie in the watcher's own memory.
    pub fn new(
        tail: &'m AtomicU64,
        write_limit: &'m AtomicU64,
        slots: Watched<'m>,
        peer: Peer<'m>,
        seek: Seek,
    ) -> Result<Self, Error> {
        Ok(Watcher {
            place: Place::new(tail, write_limit, slots.capacity(), peer, seek)?,
            slots,
        })
    }

    /// Returns the number of the next message, counted from the channel's first.
    pub fn position(&self) -> u64 {
        self.place.at
    }

    /// Returns this watcher's view of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.place.peer
    }

    /// Copies the next message to `out`, as far as `out` reaches, and returns its number.
    ///
    /// Fails with `Empty`, `Lagged`, `Disconnected` (empty, and no producer) or `Corrupt`.
    pub fn try_next(&mut self, out: &mut [u8]) -> Result<u64, Error> {
        for _ in 0..PATIENCE {
            let at = self.place.at;
            match self.place.look()? {
                Next::Before => {
                    self.place.slow_path()?;
                    continue;
                }
                Next::Gone { oldest, newest } => {
                    self.place.at = resume_at(oldest, newest, self.slots.capacity());
                    return Err(Error::Lagged(self.place.at - at));
                }
                Next::There { .. } => {}
            }
            self.slots.copy(at, 0, out);
            if self.place.whole() {
                self.place.at += 1;
                return Ok(at);
            }
        }
        Err(Error::Empty)
    }
}

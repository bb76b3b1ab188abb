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

use super::{Seek, overtaken};
use crate::error::{Corrupt, Error};
use crate::gate::{first, newest, oldest, whole};
use crate::mem::Watched;
use crate::seat::Peer;
use crate::sync::AtomicU64;

/// The number of tries to copy a message that is overwritten meanwhile, before the caller may look
/// at its clock.
///
/// A producer that is that fast shows by `Lagged`; a garbage word might do this forever.
const PATIENCE: u32 = 16;

/// Watches a channel.
pub struct Watcher<'m> {
    tail: &'m AtomicU64,
    write_limit: &'m AtomicU64,
    slots: Watched<'m>,
    peer: Peer<'m>,
    at: u64,
}

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("position", &self.at)
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
        let newest = first(tail, write_limit)?;
        let at = match seek {
            Seek::Oldest => oldest(write_limit, slots.capacity()).min(newest),
            Seek::Newest => newest,
            Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
            Seek::To(asked) => asked,
        };
        Ok(Watcher {
            tail,
            write_limit,
            slots,
            peer,
            at,
        })
    }

    /// Returns the number of the next message, counted from the channel's first.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Returns this watcher's view of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.peer
    }

    /// Copies the next message to `out`, as far as `out` reaches, and returns its number.
    ///
    /// Fails with `Empty`, `Lagged`, `Disconnected` (empty, and no producer) or `Corrupt`.
    pub fn try_next(&mut self, out: &mut [u8]) -> Result<u64, Error> {
        for _ in 0..PATIENCE {
            if !self.there()? {
                self.slow_path()?;
            }
            self.slots.copy(self.at, 0, out);
            if whole(self.write_limit, self.slots.capacity(), self.at) {
                self.at += 1;
                return Ok(self.at - 1);
            }
        }
        Err(Error::Empty)
    }

    /// Returns `true` if our next message is there. Fails with `Lagged` if it was there and is
    /// gone.
    fn there(&mut self) -> Result<bool, Error> {
        let (at, newest) = (self.at, newest(self.tail, self.write_limit)?);
        if newest < at {
            let (word, found, expected) = ("tail", newest, at);
            return Err(Corrupt {
                word,
                found,
                expected,
            }
            .into());
        }
        if newest == at {
            return Ok(false);
        }
        match overtaken(self.tail, self.write_limit, self.slots.capacity(), at)? {
            Some(to) => Err(self.lagged(to)),
            None => Ok(true),
        }
    }

    /// Goes on at `to`, and returns the number of messages that this cost.
    fn lagged(&mut self, to: u64) -> Error {
        let lost = to - self.at;
        self.at = to;
        Error::Lagged(lost)
    }

    /// Returns the reason why there is no message, or `Ok` if there is one by now.
    fn slow_path(&mut self) -> Result<(), Error> {
        let newest = newest(self.tail, self.write_limit)?;
        match self.peer.end(self.at.min(newest))? {
            // The producer may have committed more just before it left.
            Some(_) if self.there()? => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None if self.there()? => Ok(()),
            None => Err(Error::Empty),
        }
    }
}

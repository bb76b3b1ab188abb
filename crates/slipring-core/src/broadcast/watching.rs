//! Who only watches a `broadcast` channel: it copies messages, holds no seat and writes no word, so nobody
//! waits for it, and nobody can tell that it is there. See the head of `broadcast.rs`.
//!
//! # Guarantees
//! - What it hands out was committed, comes in order, once, and whole.
//! - What was overwritten before it was copied is counted, exactly (`Lagged`).
//!
//! # Refuses
//! To be waited for: where the producer waits for consumers, it does not wait for who watches.
//!
//! # The second look
//! As a consumer's where messages are overwritten, in either mode: see *overwriting* in `broadcast.rs`. The gate
//! of a producer that waits is one as well.
//!
//! It is more careful than it must be: what the producer *may* write it has perhaps not written. Where all
//! consumers keep up, what is a ring behind the gate is the newest message, and who watches must keep up
//! as well.
//!
//! One gap: a producer that waits writes its slots by plain stores (`&mut T`), and those, beside our relaxed
//! loads, the language calls a race. It is one between processes: what matters is that neither compiler nor
//! processor moves a store to before the fence, which is so for plain ones, too; and bytes that raced
//! are not handed out.

use core::fmt;

use super::{Seek, first, newest, oldest, overtaken, whole};
use crate::error::{Corrupt, Error};
use crate::mem::Watched;
use crate::seat::Peer;
use crate::sync::AtomicU64;

/// How often a message that is overwritten under our eyes is looked for again, before the caller may look
/// at its clock: a producer that is so fast tells us by `Lagged`, rubbish might do this for ever.
const PATIENCE: u32 = 16;

/// Somebody who watches.
pub struct Watcher<'m> {
    tail: &'m AtomicU64,
    gate: &'m AtomicU64,
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
    /// Begins where `seek` says: `Ahead`, `Corrupt`. What of a number asked for is gone, the first call tells.
    ///
    /// `peer` is the producer; whoever takes note there of its ends, takes note in memory of its own.
    pub fn new(
        tail: &'m AtomicU64,
        gate: &'m AtomicU64,
        slots: Watched<'m>,
        peer: Peer<'m>,
        seek: Seek,
    ) -> Result<Self, Error> {
        let newest = first(tail, gate)?;
        let at = match seek {
            Seek::Oldest => oldest(gate, slots.capacity()).min(newest),
            Seek::Newest => newest,
            Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
            Seek::To(asked) => asked,
        };
        Ok(Watcher {
            tail,
            gate,
            slots,
            peer,
            at,
        })
    }

    /// The number of the next message, counted from the channel's first.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// What is known of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.peer
    }

    /// Copies the next message to `out`, as far as that reaches, and says its number: `Empty`, `Lagged`,
    /// `Disconnected` (empty, and no producer), `Corrupt`.
    pub fn try_next(&mut self, out: &mut [u8]) -> Result<u64, Error> {
        for _ in 0..PATIENCE {
            if !self.there()? {
                self.trouble()?;
            }
            self.slots.copy(self.at, out);
            if whole(self.gate, self.slots.capacity(), self.at) {
                self.at += 1;
                return Ok(self.at - 1);
            }
        }
        Err(Error::Empty)
    }

    /// Whether our next message is there; `Lagged` if it was.
    fn there(&mut self) -> Result<bool, Error> {
        let (at, newest) = (self.at, newest(self.tail, self.gate)?);
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
        match overtaken(self.tail, self.gate, self.slots.capacity(), at)? {
            Some(to) => Err(self.lagged(to)),
            None => Ok(true),
        }
    }

    /// Goes on at `to`, and says how many messages that has cost.
    fn lagged(&mut self, to: u64) -> Error {
        let lost = to - self.at;
        self.at = to;
        Error::Lagged(lost)
    }

    /// Why there is nothing, unless there is by now.
    fn trouble(&mut self) -> Result<(), Error> {
        let newest = newest(self.tail, self.gate)?;
        match self.peer.end(self.at.min(newest))? {
            // It may have committed more just before it left.
            Some(_) if self.there()? => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None if self.there()? => Ok(()),
            None => Err(Error::Empty),
        }
    }
}

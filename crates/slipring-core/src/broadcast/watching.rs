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
//! *Overwrite*: as a consumer; stamp, copy, fence, stamp.
//!
//! *Wait*: slots have no stamps. The gate says how far the producer may write, so after the copy it tells
//! what may have been written meanwhile:
//!
//! ```text
//! producer                        who watches message p
//! gate := g                       tail > p? (acquire)
//! fence                           copies the slot
//! writes slots before g           fence (acquire)
//! tail := what is committed       p + capacity >= gate? then the copy is whole
//! ```
//!
//! The tail, acquired, says that message `p` was written before the copy began; so of what may be torn only
//! later messages of that slot are left: `p + capacity`, or some further rings on. Who writes one of those
//! has before, behind the store of a gate beyond it, passed a fence, which is at least a release fence. If
//! the copy has a word of it, that fence comes before ours, and the gate's store before our load, which
//! sees that gate or a later one; and gates are never taken back. So a gate of at most `p + capacity` says
//! that no such word was copied.
//!
//! It is more careful than it must be: what the producer *may* write it has perhaps not written. Where all
//! consumers keep up, what is a ring behind the gate is the newest message, and who watches must keep up
//! as well.
//!
//! One gap: a producer that waits writes its slots by plain stores (`&mut T`), and those, beside our relaxed
//! loads, the language calls a race. It is one between processes: what matters is that neither compiler nor
//! processor moves a store to before the fence, which is so for plain ones, too; and bytes that raced
//! are not handed out.

use super::Seek;
use super::reading::sequence;
use crate::cursor::LAST;
use crate::error::{Corrupt, Error};
use crate::mem::Watched;
use crate::seat::Peer;
use crate::sync::{AtomicU64, Ordering, fence};

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
        let mut watcher = Watcher {
            tail,
            gate,
            slots,
            peer,
            at: 0,
        };
        let newest = watcher.newest()?;
        watcher.at = match seek {
            Seek::Oldest => watcher.oldest(newest)?,
            Seek::Newest => newest,
            Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
            Seek::To(asked) => asked,
        };
        Ok(watcher)
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
            // Acquire fence: pairs with the release fence in `Producer::write`, and the one in
            // `Producer::raise`; see *the second look*.
            fence(Ordering::Acquire);
            if self.whole() {
                self.at += 1;
                return Ok(self.at - 1);
            }
        }
        Err(Error::Empty)
    }

    /// Whether what was copied is our message. Behind the fence.
    fn whole(&self) -> bool {
        match self.slots.stamp(self.at) {
            Some(stamp) => stamp.load(Ordering::Relaxed) == self.at + 1,
            // Relaxed: nothing is read on its strength.
            None => self.gate.load(Ordering::Relaxed) <= self.at + self.slots.capacity(),
        }
    }

    /// Whether our next message is there; `Lagged` if it was.
    fn there(&mut self) -> Result<bool, Error> {
        let at = self.at;
        if let Some(stamp) = self.slots.stamp(at) {
            // Acquire: pairs with the releases in `begin` and `finish`.
            let seen = stamp.load(Ordering::Acquire);
            if seen <= at + 1 {
                return Ok(seen == at + 1);
            }
            let to = self.overtaken(stamp, seen)?;
            return Err(self.lagged(to));
        }
        let newest = self.newest()?;
        if newest < at {
            let (word, found, expected) = ("tail", newest, at);
            return Err(Corrupt {
                word,
                found,
                expected,
            }
            .into());
        }
        let oldest = self.oldest(newest)?;
        if oldest > at {
            let further = oldest.saturating_add(self.slots.capacity() / 8);
            return Err(self.lagged(further.min(newest).max(oldest)));
        }
        Ok(newest > at)
    }

    /// Where to go on when a later message's stamp was `seen` in our slot, as `Consumer::overtaken` does:
    /// beyond the oldest by an eighth of the ring, and not beyond the newest, since what a reservation has
    /// given up is gone, and what it may bring is not.
    fn overtaken(&self, stamp: &AtomicU64, seen: u64) -> Result<u64, Corrupt> {
        let (at, capacity) = (self.at, self.slots.capacity());
        let mask = capacity - 1;
        // Which message is in our slot, or on its way into it.
        let there = match seen & mask {
            part if part == (at + 1) & mask => seen - 1,
            part if part == at & mask => seen,
            _ => return Err(sequence(seen, at + 1)),
        };
        // Acquire: pairs with the release in `begin`, so the tail is not older than what was seen.
        let tail = self.tail.load(Ordering::Acquire);
        let stamp = stamp.load(Ordering::Acquire);
        // Stamped after a tail that is at most a ring behind; and what is before the tail, less a ring, is
        // gone, from our slot as well.
        let possible = there < tail.saturating_add(capacity) && there.max(tail) <= LAST;
        if !possible || tail > stamp.saturating_add(capacity) {
            return Err(sequence(stamp, tail.saturating_add(capacity)));
        }
        let head = tail.max(there + 1);
        // `there` is a ring ahead of us, and the tail less than one behind that: beyond us.
        Ok((head - capacity + capacity / 8).min(tail))
    }

    /// Goes on at `to`, and says how many messages that has cost.
    fn lagged(&mut self, to: u64) -> Error {
        let lost = to - self.at;
        self.at = to;
        Error::Lagged(lost)
    }

    /// The number of the next message to come.
    fn newest(&self) -> Result<u64, Error> {
        // Acquire: pairs with the release in `Producer::commit`.
        let newest = self.tail.load(Ordering::Acquire);
        if newest > LAST {
            let (word, found, expected) = ("tail", newest, LAST);
            return Err(Corrupt {
                word,
                found,
                expected,
            }
            .into());
        }
        Ok(newest)
    }

    /// The oldest message that the producer may not have begun to overwrite. At most the newest, which was
    /// `newest` a moment ago.
    fn oldest(&self, newest: u64) -> Result<u64, Error> {
        let capacity = self.slots.capacity();
        if self.slots.stamp(0).is_some() {
            return Ok(newest.saturating_sub(capacity));
        }
        // Acquire: pairs with the release in `Producer::raise`: who sees a gate sees a tail that is at most
        // a ring behind.
        let gate = self.gate.load(Ordering::Acquire);
        let oldest = gate.saturating_sub(capacity);
        if oldest > newest && oldest > self.newest()? {
            let (word, found, expected) = ("gate", gate, newest.saturating_add(capacity));
            return Err(Corrupt {
                word,
                found,
                expected,
            }
            .into());
        }
        Ok(oldest.max(newest.saturating_sub(capacity)))
    }

    /// Why there is nothing, unless there is by now.
    fn trouble(&mut self) -> Result<(), Error> {
        let (at, newest) = (self.at, self.newest()?);
        match self.peer.end(at.min(newest))? {
            // It may have committed more just before it left.
            Some(_) if self.there()? => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None if self.there()? => Ok(()),
            // The tail was loaded before, so what it tells of must be there by now.
            None => match self.slots.stamp(at) {
                Some(stamp) if newest > at => {
                    Err(sequence(stamp.load(Ordering::Relaxed), at + 1).into())
                }
                _ => Err(Error::Empty),
            },
        }
    }
}

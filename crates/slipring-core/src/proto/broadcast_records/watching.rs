//! Watches a `broadcast` channel of records: copies them without a seat and without writing any word. So no producer waits
//! for a watcher, and no end can tell that it is there.
//!
//! # Guarantees
//! - Every record that a watcher hands out was committed. Records come in order, once, and whole.
//! - It counts exactly the bytes of position that were given up before it copied them (`Lagged`).
//!
//! # Refuses
//! To be waited for. While all consumers keep up, a watcher must keep up as well: see *the second look* in
//! `broadcast/watching.rs`.
//!
//! # Why a record is whole
//! The argument is *overwriting* in `broadcast.rs`: a producer stores a write limit beyond whatever it is about to write, and
//! passes a fence, before it writes. Here a position counts bytes. A watcher looks at the limit behind each copy: first of
//! the length, before it believes that, and then of the payload. The slack takes no special care. A record that reaches into
//! it one lap later ends more than a ring behind the start of ours, and so does the limit.
//!
//! A watcher begins, and goes on, only at boundaries: at the tail, at the floor, and behind a whole record. See *where a
//! record begins* in `broadcast_records.rs`.

use core::fmt;

use super::Seek;
use crate::error::{Corrupt, Error};
use crate::gate::{first, newest, oldest, overtaken, whole};
use crate::mem::Watched;
use crate::packed::{self, PREFIX, record_size};
use crate::seat::Peer;
use crate::sync::AtomicU64;

/// The number of tries to copy a record that is overwritten meanwhile, before the caller may look at its clock.
const PATIENCE: u32 = 16;

/// Watches a channel.
pub struct Watcher<'m> {
    tail: &'m AtomicU64,
    write_limit: &'m AtomicU64,
    records: Watched<'m>,
    peer: Peer<'m>,
    at: u64,
    /// The position up to which records are passed over, to begin where `seek` said.
    from: u64,
}

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("position", &self.at)
            .finish_non_exhaustive()
    }
}

impl<'m> Watcher<'m> {
    /// Begins where `seek` says; at a position, with the first record that begins there or behind it.
    ///
    /// Fails with `Ahead` or `Corrupt`. If the records from a position asked for are gone, the first call reports them. `peer`
    /// is the producer; its notes lie in the watcher's own memory.
    pub fn new(
        tail: &'m AtomicU64,
        write_limit: &'m AtomicU64,
        records: Watched<'m>,
        peer: Peer<'m>,
        seek: Seek,
    ) -> Result<Self, Error> {
        let newest = first(tail, write_limit)?;
        let floor = oldest(write_limit, records.capacity()).min(newest);
        let (at, from) = match seek {
            Seek::Oldest => (floor, 0),
            Seek::Newest => (newest, 0),
            Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
            // What lies before the floor is reported as lost.
            Seek::To(asked) => (asked.min(floor), asked),
        };
        Ok(Watcher {
            tail,
            write_limit,
            records,
            peer,
            at,
            from,
        })
    }

    /// Returns the position of the next record, in bytes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Returns this watcher's view of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.peer
    }

    /// Copies the next record to `out`, as far as `out` reaches. Returns its position, and its length.
    ///
    /// Fails with `Empty`, `Lagged`, `Disconnected` (empty, and no producer) or `Corrupt`.
    pub fn try_next(&mut self, out: &mut [u8]) -> Result<(u64, usize), Error> {
        let mut tries = 0;
        while tries < PATIENCE {
            tries += 1;
            let Some(newest) = self.there()? else {
                self.slow_path()?;
                continue;
            };
            let mut word = [0; PREFIX as usize];
            self.records.copy(self.at, 0, &mut word);
            if !self.whole() {
                continue;
            }
            let room = (newest - self.at).min(self.records.size() as u64);
            let len = packed::checked_length(u64::from_le_bytes(word), room)?;
            let behind = self.at + record_size(len as u64);
            if self.at < self.from {
                // At most a ring of records lies before that position.
                (self.at, tries) = (behind, 0);
                continue;
            }
            let part = out.len().min(len);
            let prefix = PREFIX as usize;
            self.records.copy(self.at, prefix, &mut out[..part]);
            if self.whole() {
                let at = core::mem::replace(&mut self.at, behind);
                return Ok((at, len));
            }
        }
        Err(Error::Empty)
    }

    /// Returns `true` if what was copied of our next record is whole.
    fn whole(&self) -> bool {
        whole(self.write_limit, self.records.capacity(), self.at)
    }

    /// Returns the newest position if our next record is there. Fails with `Lagged` if it was there and is gone.
    fn there(&mut self) -> Result<Option<u64>, Error> {
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
            return Ok(None);
        }
        match overtaken(self.tail, self.write_limit, self.records.capacity(), at)? {
            None => Ok(Some(newest)),
            Some((floor, _)) => {
                // The floor is where a record begins; further on, nobody knows where one does.
                self.at = floor;
                match floor.checked_sub(at.max(self.from)) {
                    Some(lost @ 1..) => Err(Error::Lagged(lost)),
                    // Only records that were to be passed over are gone.
                    _ => Ok((floor < newest).then_some(newest)),
                }
            }
        }
    }

    /// Returns the reason why there is no record, or `Ok` if there is one by now.
    fn slow_path(&mut self) -> Result<(), Error> {
        let newest = newest(self.tail, self.write_limit)?;
        match self.peer.end(self.at.min(newest))? {
            // The producer may have committed more just before it left.
            Some(_) if self.there()?.is_some() => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None if self.there()?.is_some() => Ok(()),
            None => Err(Error::Empty),
        }
    }
}

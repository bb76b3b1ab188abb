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
use crate::error::Error;
use crate::gate::watching::{Next, PATIENCE, Place};
use crate::mem::Watched;
use crate::packed::{self, PREFIX, record_size};
use crate::seat::Peer;
use crate::sync::AtomicU64;

/// Watches a channel.
pub struct Watcher<'m> {
    place: Place<'m>,
    records: Watched<'m>,
    /// The position up to which records are passed over, to begin where `seek` said.
    from: u64,
}

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("position", &self.place.at)
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
        let mut place = Place::new(tail, write_limit, records.capacity(), peer, seek)?;
        let from = match seek {
            Seek::To(asked) => asked,
            Seek::Oldest | Seek::Newest => 0,
        };
        if from > 0 {
            // Perhaps no record begins there: look for the first from the floor on. What lies before the floor is reported as
            // lost.
            place.at = from.min(place.oldest());
        }
        Ok(Watcher {
            place,
            records,
            from,
        })
    }

    /// Returns the position of the next record, in bytes.
    pub fn position(&self) -> u64 {
        self.place.at
    }

    /// Returns this watcher's view of the producer.
    pub fn peer(&mut self) -> &mut Peer<'m> {
        &mut self.place.peer
    }

    /// Copies the next record to `out`, as far as `out` reaches. Returns its position, and its length.
    ///
    /// Fails with `Empty`, `Lagged`, `Disconnected` (empty, and no producer) or `Corrupt`.
    pub fn try_next(&mut self, out: &mut [u8]) -> Result<(u64, usize), Error> {
        let mut tries = 0;
        while tries < PATIENCE {
            tries += 1;
            let at = self.place.at;
            let newest = match self.place.look()? {
                Next::Before => {
                    self.place.slow_path()?;
                    continue;
                }
                Next::Gone { oldest, .. } => {
                    self.go_on(oldest)?;
                    continue;
                }
                Next::There { newest } => newest,
            };
            let mut word = [0; PREFIX as usize];
            self.records.copy(at, 0, &mut word);
            if !self.place.whole() {
                continue;
            }
            let room = (newest - at).min(self.records.size() as u64);
            let len = packed::checked_length(u64::from_le_bytes(word), room)?;
            let behind = at + record_size(len as u64);
            if at < self.from {
                // At most a ring of records lies before that position.
                (self.place.at, tries) = (behind, 0);
                continue;
            }
            let part = out.len().min(len);
            let prefix = PREFIX as usize;
            self.records.copy(at, prefix, &mut out[..part]);
            if self.place.whole() {
                self.place.at = behind;
                return Ok((at, len));
            }
        }
        Err(Error::Empty)
    }

    /// Goes on at the floor. Fails with `Lagged` if records are gone that were not to be passed over.
    fn go_on(&mut self, floor: u64) -> Result<(), Error> {
        // The floor is where a record begins; further on, nobody knows where one does.
        let at = core::mem::replace(&mut self.place.at, floor);
        match floor.checked_sub(at.max(self.from)) {
            Some(lost @ 1..) => Err(Error::Lagged(lost)),
            _ => Ok(()),
        }
    }
}

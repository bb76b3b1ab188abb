//! The place of a watcher in a ring with one producer: it copies messages without a seat. The watchers of `broadcast` and of
//! its records use it; they know what lies at the positions.

use super::{first, newest, oldest, overtaken, whole};
use crate::end::Seek;
use crate::error::{Corrupt, Error};
use crate::seat::Peer;
use crate::sync::AtomicU64;

/// The number of tries to copy a message that is overwritten meanwhile, before the caller may look at its clock.
///
/// A producer that is that fast shows by `Lagged`; a garbage word might do this forever.
pub(crate) const PATIENCE: u32 = 16;

/// A watcher's place.
pub(crate) struct Place<'m> {
    tail: &'m AtomicU64,
    write_limit: &'m AtomicU64,
    /// The size of the ring.
    capacity: u64,
    /// The watcher's view of the producer.
    pub(crate) peer: Peer<'m>,
    /// The position of the next message.
    pub(crate) at: u64,
}

/// The state of the next message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is not committed.
    Before,
    /// It is there; `newest` is the position behind the newest message.
    There { newest: u64 },
    /// It was overwritten, or may be; `oldest` is the first position that was not.
    Gone { oldest: u64, newest: u64 },
}

impl<'m> Place<'m> {
    /// Begins where `seek` says. A position asked for may be gone by now.
    ///
    /// Fails with `Ahead` or `Corrupt`.
    pub(crate) fn new(
        tail: &'m AtomicU64,
        write_limit: &'m AtomicU64,
        capacity: u64,
        peer: Peer<'m>,
        seek: Seek,
    ) -> Result<Self, Error> {
        let newest = first(tail, write_limit)?;
        let at = match seek {
            Seek::Oldest => oldest(write_limit, capacity).min(newest),
            Seek::Newest => newest,
            Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
            Seek::To(asked) => asked,
        };
        Ok(Place {
            tail,
            write_limit,
            capacity,
            peer,
            at,
        })
    }

    /// Returns the oldest position that the producer has not been free to overwrite.
    pub(crate) fn oldest(&self) -> u64 {
        oldest(self.write_limit, self.capacity)
    }

    /// Returns `true` if what was copied of the next message is whole.
    pub(crate) fn whole(&self) -> bool {
        whole(self.write_limit, self.capacity, self.at)
    }

    /// Looks for the next message.
    pub(crate) fn look(&self) -> Result<Next, Corrupt> {
        let newest = newest(self.tail, self.write_limit)?;
        if newest < self.at {
            return Err(Corrupt {
                word: "tail",
                found: newest,
                expected: self.at,
            });
        }
        if newest == self.at {
            return Ok(Next::Before);
        }
        let gone = overtaken(self.tail, self.write_limit, self.capacity, self.at)?;
        Ok(match gone {
            Some((oldest, newest)) => Next::Gone { oldest, newest },
            None => Next::There { newest },
        })
    }

    /// Returns the reason why there is no message. Returns `Ok` if one was committed by now: look again.
    pub(crate) fn slow_path(&mut self) -> Result<(), Error> {
        let newest = newest(self.tail, self.write_limit)?;
        let end = self.peer.end(self.at.min(newest))?;
        // The producer may have committed more just before it left.
        if self.look()? != Next::Before {
            return Ok(());
        }
        match end {
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None => Err(Error::Empty),
        }
    }
}

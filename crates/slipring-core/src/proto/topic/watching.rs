//! Watches a topic: copies messages without a seat, without a pin, and without writing any word. So no end can tell that a
//! watcher is there. See the head of `topic.rs`.
//!
//! # Guarantees
//! - Every message that a watcher hands out was published. Messages come in order, once, and whole.
//! - It counts exactly the messages that were overwritten before it copied them (`Lagged`).
//!
//! # Refuses
//! To keep a message: while a watcher copies it, a producer may write its slot again. Then the copy is thrown away.
//!
//! # The second look
//! A consumer pins a slot, and then looks at the entry again. A watcher has no pin, so it looks again behind its copy:
//!
//! ```text
//! producer                              watcher
//! sees another entry in q's place       sees the entry of q (acquire)
//! fence                                 copies the slot that it names
//! writes the slot of q again            fence (acquire)
//!                                       entry q still the same? then the copy is whole
//! ```
//!
//! Suppose that the copy has a word of a later message in that slot. Then the producer's fence comes before ours, and the
//! entry that it saw before its second fence comes before our second look. So that look sees another entry than q's, and the
//! same entry never comes again. (A successor looks at all entries before its first scan, behind which it passes the fence.)
//!
//! # Reads by the kernel
//! A producer may give the memory of a free slot back. A load from a mapping would then back that memory again, or end the
//! process where there is none (`SIGBUS`). So a watcher asks its [`Source`] for copies, and the kernel makes them: a hole reads as
//! zeros, and stays a hole. A copy by the kernel is no access of the program, so it cannot race with the producer's stores either.
//! Its loads come before the fence, as it has returned by then.

use core::fmt;

use super::word::{Age, Entry, Topic};
use super::{Origin, Seek};
use crate::error::{Corrupt, Error};
use crate::geometry::{Geometry, SAMPLE_HEADER};
use crate::sync::{Ordering, fence};

/// Copies bytes of the data part, also while producers write them.
pub trait Source {
    /// Copies the bytes from `at` on to `out`, all of them. Fails with `Os`.
    fn copy(&self, at: u64, out: &mut [u8]) -> Result<(), Error>;
}

/// Watches a topic.
pub struct Watcher<'m, S> {
    topic: Topic<'m>,
    source: S,
    /// The number of slots, their distance, and that of a payload from its slot's start.
    count: u64,
    stride: u64,
    offset: u64,
    /// The size of the largest payload.
    size: u64,
    at: u64,
}

impl<S> fmt::Debug for Watcher<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("position", &self.at)
            .finish_non_exhaustive()
    }
}

impl<'m, S: Source> Watcher<'m, S> {
    /// Begins where `seek` says, in a topic of this checked shape.
    ///
    /// Fails with `Ahead` or `Corrupt`. If the messages from a number asked for are gone, the first call reports them.
    pub fn new(
        topic: Topic<'m>,
        geometry: &Geometry,
        source: S,
        seek: Seek,
    ) -> Result<Self, Error> {
        let newest = topic.newest()?;
        let at = match seek {
            Seek::Oldest => newest.saturating_sub(topic.capacity()),
            Seek::Newest => newest,
            Seek::To(asked) if asked > newest => return Err(Error::Ahead { asked, newest }),
            Seek::To(asked) => asked,
        };
        Ok(Watcher {
            topic,
            source,
            count: geometry.slots(),
            stride: geometry.stride(),
            offset: geometry.payload_offset(),
            size: geometry.slot_size,
            at,
        })
    }

    /// Returns the number of the next message, counted from the topic's first.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Returns `true` if the next message was published. It may be gone.
    pub fn has_next(&self) -> bool {
        self.topic.look(self.at).1 != Age::Before
    }

    /// Copies the next message to `out`, as far as `out` reaches. Returns its origin, and its length.
    ///
    /// Fails with `Empty`, `Lagged`, `Corrupt`, or as the source does. A message that is `Corrupt` by itself is passed over.
    pub fn try_next(&mut self, out: &mut [u8]) -> Result<(Origin, usize), Error> {
        let (entry, age) = self.topic.look(self.at);
        let copied = match age {
            Age::Before => return Err(Error::Empty),
            Age::After => None,
            Age::Own => {
                let slot = entry
                    .slot(self.count)
                    .inspect_err(|_| self.at = self.at.saturating_add(1))?;
                self.copy(slot, entry, out)?
            }
        };
        match copied {
            Some(copied) => {
                self.at += 1;
                Ok(copied)
            }
            None => Err(self.overrun()),
        }
    }

    /// Returns `true` if what was copied of our next message is whole.
    fn whole(&self, entry: Entry) -> bool {
        // Acquire: pairs with the fence before a producer's scan; see *the second look*.
        fence(Ordering::Acquire);
        self.topic.stands(self.at, entry)
    }

    /// Copies our next message out of `slot`, which its entry names; `None` if it was overwritten meanwhile.
    fn copy(
        &mut self,
        slot: u64,
        entry: Entry,
        out: &mut [u8],
    ) -> Result<Option<(Origin, usize)>, Error> {
        // No overflow: the shape was checked, and the slot is one of it.
        let place = slot * self.stride;
        let mut header = [0; SAMPLE_HEADER as usize];
        self.source.copy(place, &mut header)?;
        if !self.whole(entry) {
            return Ok(None);
        }
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[8 * index..8 * index + 8]);
            u64::from_le_bytes(word)
        };
        let (found, len) = (word(0), word(1));
        let wrong = match () {
            () if found != self.at + 1 => Some(("sequence", found, self.at + 1)),
            () if len > self.size => Some(("length", len, self.size)),
            () => None,
        };
        if let Some((word, found, expected)) = wrong {
            // The next message may be whole.
            self.at += 1;
            return Err(Corrupt {
                word,
                found,
                expected,
            }
            .into());
        }
        let part = out.len().min(len as usize);
        self.source.copy(place + self.offset, &mut out[..part])?;
        let origin = Origin {
            sequence: self.at,
            time: word(2),
            publisher: word(3),
        };
        Ok(self.whole(entry).then_some((origin, len as usize)))
    }

    /// Goes on further ahead after the next message was overwritten, and returns `Lagged` with the number of messages that are
    /// lost, or `Corrupt`.
    fn overrun(&mut self) -> Error {
        // Acquire: pairs with the release of the producer that overwrote the message. The head that we look at next shows it.
        fence(Ordering::Acquire);
        match self.topic.resume_at(self.at) {
            Ok(to) => Error::Lagged(to - core::mem::replace(&mut self.at, to)),
            Err(error) => error,
        }
    }
}

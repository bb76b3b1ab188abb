//! The words of a topic: the head, and the ring of entries.

use crate::cursor::LAST;
use crate::error::{Corrupt, Error};
use crate::layout::Entries;
use crate::seat::PATIENCE;
use crate::sync::{AtomicU64, Ordering};

/// The number of bits of an entry that name a slot.
const SLOT_BITS: u32 = 16;
/// The mask of those bits.
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
/// Laps before this one fit an entry.
const MOST_LAPS: u64 = 1 << (64 - SLOT_BITS);

/// The head and the entries of a topic.
#[derive(Clone, Copy)]
pub struct Topic<'m> {
    head: &'m AtomicU64,
    words: &'m [AtomicU64],
    /// The number of bits of a message's number that choose the entry.
    bits: u32,
    /// The number of messages that the entries can tell apart, and so the last head.
    last: u64,
}

/// An entry, as it was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u64);

/// The age of an entry, compared with the one that a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// The message is not published.
    Before,
    /// It is the message's own.
    Own,
    /// The message was overwritten.
    After,
}

impl Entry {
    fn of(lap: u64, slot: u64) -> Entry {
        Entry(lap << SLOT_BITS | (slot + 1))
    }

    fn lap(self) -> u64 {
        self.0 >> SLOT_BITS
    }

    /// Returns the slot that it names, if that is one of `count`.
    #[inline]
    pub(super) fn slot(self, count: u64) -> Result<u64, Corrupt> {
        let found = self.0 & SLOT_MASK;
        match found.checked_sub(1) {
            Some(slot) if slot < count => Ok(slot),
            _ => Err(Corrupt {
                word: "entry",
                found,
                expected: count,
            }),
        }
    }
}

impl<'m> Topic<'m> {
    /// Returns the words of a topic; `None` if the number of entries is no power of two.
    pub fn new(entries: Entries<'m>) -> Option<Topic<'m>> {
        let count = entries.words.len();
        // The multiplication saturates for more than 2^16 entries.
        let last = LAST.min((MOST_LAPS - 2).saturating_mul(count as u64));
        count.is_power_of_two().then_some(Topic {
            head: entries.head,
            words: entries.words,
            bits: count.trailing_zeros(),
            last,
        })
    }

    /// Returns the number of messages that stay readable.
    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.words.len() as u64
    }

    /// Returns the entry of message `sequence`, and its lap there.
    #[inline]
    pub(super) fn place(&self, sequence: u64) -> (&'m AtomicU64, u64) {
        // A power of two: the mask is in bounds.
        let index = sequence as usize & (self.words.len() - 1);
        (&self.words[index], (sequence >> self.bits) + 1)
    }

    /// Returns the entry of message `sequence` as it is now, and its age.
    ///
    /// Acquire: pairs with the release of the producer that wrote it. The slot that it names holds that message.
    #[inline]
    pub(super) fn look(&self, sequence: u64) -> (Entry, Age) {
        let (word, lap) = self.place(sequence);
        let found = Entry(word.load(Ordering::Acquire));
        (found, age(found, lap))
    }

    /// Returns `true` if the entry of message `sequence` names `slot` for it.
    ///
    /// Relaxed: the caller's fence follows, before it looks at the pins.
    pub(super) fn names(&self, sequence: u64, slot: u64) -> bool {
        let (word, lap) = self.place(sequence);
        word.load(Ordering::Relaxed) == Entry::of(lap, slot).0
    }

    /// Returns `true` if `entry` is that of message `sequence`.
    #[inline]
    pub(super) fn is_of(&self, sequence: u64, entry: Entry) -> bool {
        age(entry, self.place(sequence).1) == Age::Own
    }

    /// Returns `true` if message `sequence` still has that entry.
    ///
    /// Relaxed: the caller has passed a fence.
    #[inline]
    pub(super) fn stands(&self, sequence: u64, entry: Entry) -> bool {
        self.place(sequence).0.load(Ordering::Relaxed) == entry.0
    }

    /// Returns all entries, each with its index, in the order of their messages: from that of message `oldest` on.
    pub(super) fn entries(&self, oldest: u64) -> impl Iterator<Item = (u64, Entry)> {
        let mask = self.words.len() - 1;
        let indices = (0..self.words.len()).map(move |ahead| (oldest as usize + ahead) & mask);
        // Relaxed: the caller's fence follows, before it looks at the pins. (The seat's lock has brought what the seat's last
        // holder did.)
        indices.map(|index| {
            (
                index as u64,
                Entry(self.words[index].load(Ordering::Relaxed)),
            )
        })
    }

    /// Returns the number of the message at `index` of the ring that has this entry; `None` if there is none.
    pub(super) fn sequence(&self, index: u64, entry: Entry) -> Option<u64> {
        let lap = entry.lap().checked_sub(1)?;
        lap.checked_mul(self.capacity())?.checked_add(index)
    }

    /// Returns the head as it stands, unless it is impossible. It may be one behind.
    ///
    /// Acquire: pairs with the release of the producer that stored it. The messages before it are published.
    pub(super) fn head(&self) -> Result<u64, Corrupt> {
        let (found, expected) = (self.head.load(Ordering::Acquire), self.last());
        match found <= expected {
            true => Ok(found),
            false => Err(Corrupt {
                word: "head",
                found,
                expected,
            }),
        }
    }

    /// Returns the number of messages that the topic may ever have.
    #[inline]
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Returns the number of messages that are published.
    ///
    /// Fails with `Corrupt` if the head and the entries do not come to agree.
    pub fn newest(&self) -> Result<u64, Error> {
        // More than one turn only if others publish a whole ring meanwhile.
        for _ in 0..PATIENCE {
            let head = self.head()?;
            match self.look(head).1 {
                Age::Before => return Ok(head),
                // Its producer has not stored the head yet, or was killed before.
                Age::Own => return Ok(head + 1),
                // The head is an old one.
                Age::After => core::hint::spin_loop(),
            }
        }
        Err(self.disagree().into())
    }

    /// Returns the number of the message to go on with after message `sequence` was overwritten.
    ///
    /// Fails with `Corrupt` if the words do not tell that it was, or hold something impossible.
    #[cold]
    pub(super) fn resume_at(&self, sequence: u64) -> Result<u64, Error> {
        let newest = self.newest()?;
        let oldest = newest.saturating_sub(self.capacity());
        if oldest <= sequence {
            return Err(self.disagree().into());
        }
        // Not to be overtaken again at once. At most the newest.
        Ok((oldest + self.capacity() / 8).min(newest - 1))
    }

    /// Returns the error for a head that does not come to agree with the entries.
    #[cold]
    pub(super) fn disagree(&self) -> Corrupt {
        Corrupt {
            word: "head",
            // Relaxed: a figure.
            found: self.head.load(Ordering::Relaxed),
            expected: self.last(),
        }
    }

    /// Publishes `slot` as message `sequence`, if nobody else has published that message. `before` is what the entry held.
    #[inline]
    pub(super) fn publish(&self, sequence: u64, before: Entry, slot: u64) -> bool {
        let (word, lap) = self.place(sequence);
        let entry = Entry::of(lap, slot);
        // Release: pairs with the acquire of a look; the payload and its header come before. Relaxed where it fails: the
        // caller looks again.
        let won = word.compare_exchange(before.0, entry.0, Ordering::Release, Ordering::Relaxed);
        won.is_ok()
    }

    /// Publishes `slot` as message `sequence`, where there is no other producer.
    #[inline]
    pub(super) fn publish_alone(&self, sequence: u64, slot: u64) {
        let (word, lap) = self.place(sequence);
        // Release: as in `publish`.
        word.store(Entry::of(lap, slot).0, Ordering::Release);
        // Release: pairs with the acquire in `head`; the entry comes before.
        self.head.store(sequence + 1, Ordering::Release);
    }

    /// Tells the head that message `sequence` is published. Somebody else may have told it. Returns a number of messages that
    /// are published: more than `sequence`.
    #[inline]
    pub(super) fn advance(&self, sequence: u64) -> u64 {
        // Release: pairs with the acquire in `head`; the entry comes before, and what this thread has seen of others' entries.
        // Relaxed where it fails: only a figure. Whoever goes on from it looks at entries, and the head itself goes on by
        // read-modify-writes, with what others released in it.
        let told = self.head.compare_exchange(
            sequence,
            sequence + 1,
            Ordering::Release,
            Ordering::Relaxed,
        );
        match told {
            Ok(_) => sequence + 1,
            Err(further) if further > sequence => further,
            Err(_) => self.raise(sequence + 1),
        }
    }

    /// Raises a head that is behind by more than one, and returns `to`. Only a stranger's writes take it there, and nobody else
    /// would help it along.
    #[cold]
    fn raise(&self, to: u64) -> u64 {
        // Release: as in `advance`.
        self.head.fetch_max(to, Ordering::Release);
        to
    }
}

#[inline]
fn age(found: Entry, lap: u64) -> Age {
    match found.lap().cmp(&lap) {
        core::cmp::Ordering::Less => Age::Before,
        core::cmp::Ordering::Equal => Age::Own,
        core::cmp::Ordering::Greater => Age::After,
    }
}

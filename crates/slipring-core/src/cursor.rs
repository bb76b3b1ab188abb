//! The two ends of a ring, as far as positions go: who may touch what, and how each side learns of
//! the other. `spsc` counts slots with it, `bytes` counts bytes; what lies there is their business.
//!
//! # Words
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `tail` | the writer, at each commit | the reader | release *(commit)* → acquire *(the reader's look)* |
//! | `head` | the reader, at each release | the writer, when it may be full | release *(release)* → acquire *(the writer's look)* |
//! | memory | the writer, in `[tail, head + capacity)` | the reader, in `[head, tail)` | by the two pairs above |
//!
//! # Why it is right
//! *Commit*: memory is written before `tail` is released, and read only after a `tail` beyond it was
//! acquired; so the reader sees what was written, and never what lay there before. *Release*: memory
//! is read before `head` is released, and written again only after that `head` was acquired.
//!
//! Each side owns its own position, a private copy that is never read back, and keeps what it knows
//! of the other's in its [`Lease`]: how far it may go unasked. It asks again only when the lease
//! says *possibly full* or *possibly empty*; the answer then is exact, since both positions are
//! published at every step.
//!
//! # Source
//! Lamport, *Proving the correctness of multiprocess programs* (1977); private copies of the other
//! side's position as in Lee et al., *MCRingBuffer* (2010), though every commit is published.

use crate::error::{Corrupt, Error};
use crate::hand_back::HandBack;
use crate::lease::Lease;
use crate::seat::Peer;
use crate::slip::Slip;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::Ringer;

/// No handle starts beyond this position: from here it could not go on for long without wrapping.
/// (At 10^9 messages a second it is 584 years away.)
pub(crate) const LAST: u64 = u64::MAX - (1 << 48);

/// No position is beyond this: what a reader that skips may add to it does not go round.
pub(crate) const END: u64 = u64::MAX - (1 << 47);

/// The writer's position, and all that it wrote before it: at most `most`, and not beyond a gate.
#[inline]
pub(crate) fn committed(
    tail: &AtomicU64,
    gate: Option<&AtomicU64>,
    most: u64,
) -> Result<u64, Corrupt> {
    // Acquire: pairs with the release in `Writer::commit`, and in broadcast's; a caller may act on what it tells.
    let found = tail.load(Ordering::Acquire);
    // Relaxed: behind the tail, which was stored behind a gate that is not before it.
    let expected = gate.map_or(most, |gate| gate.load(Ordering::Relaxed).min(most));
    if found > expected {
        let word = "tail";
        return Err(Corrupt {
            word,
            found,
            expected,
        });
    }
    Ok(found)
}

/// Returns `true` if this thread is unwinding. Costs a load of a word that nobody writes without a panic.
#[inline]
fn panicking() -> bool {
    #[cfg(feature = "std")]
    return std::thread::panicking();
    #[cfg(not(feature = "std"))]
    return false;
}

/// The words that both ends share, and how positions count.
pub(crate) struct Words<'m> {
    pub(crate) tail: &'m AtomicU64,
    pub(crate) head: &'m AtomicU64,
    /// How far the tail may be ahead of the head, where it waits for it: the size of the ring.
    pub(crate) capacity: u64,
    /// How far the writer may write, where a word says so. Nothing beyond it is committed.
    pub(crate) gate: Option<&'m AtomicU64>,
    /// Whether the tail waits for the head.
    pub(crate) waits: bool,
    /// Whether this end may store where payloads lie.
    pub(crate) writable: bool,
    /// Every position is a multiple of this power of two.
    pub(crate) unit: u64,
    /// How far the head may be ahead of the tail: that of a reader which skips messages.
    pub(crate) ahead: u64,
}

impl Words<'_> {
    /// How far `tail` is ahead of `head`, of which one is ours and the other, `found`, a hint:
    /// loaded once, checked here, and used only as the checked local copy.
    #[inline]
    fn distance(
        &self,
        head: u64,
        tail: u64,
        word: &'static str,
        found: u64,
    ) -> Result<u64, Corrupt> {
        // Checked: positions never go round, so a head beyond the tail is rubbish at any distance (but
        // that of a reader which skips).
        if let Some(ahead) = tail.checked_sub(head)
            && (ahead <= self.capacity || !self.waits)
            && ahead & (self.unit - 1) == 0
        {
            return Ok(ahead);
        }
        if head > tail && head - tail <= self.ahead {
            return Ok(0);
        }
        let expected = if found == tail {
            head.saturating_add(self.capacity)
        } else {
            tail
        };
        Err(Corrupt {
            word,
            found,
            expected,
        })
    }

    /// The writer's position, and all that it wrote before it.
    fn committed(&self) -> Result<u64, Corrupt> {
        committed(self.tail, self.gate, END)
    }

    /// The positions at which a new writer and a new reader go on, if the two words are possible.
    fn resume(&self) -> Result<(u64, u64), Error> {
        // Acquire: pairs with the release of the reader; a tail that is looked at after this head is not behind it,
        // and a writer goes as far as this head lets it.
        let head = self.head.load(Ordering::Acquire);
        // Relaxed: a writer's own, which its seat's lock brings, with all that was written before it; a reader
        // looks again, with an acquire, before it reads.
        let tail = self.tail.load(Ordering::Relaxed);
        if head > LAST || head & (self.unit - 1) != 0 {
            return Err(Corrupt {
                word: "head",
                found: head,
                expected: LAST,
            }
            .into());
        }
        self.distance(head, tail, "tail", tail)?;
        Ok((tail, head))
    }
}

/// What a look at the other side's position has found, in one register: an `Error` has the size of
/// five, and a poll that returns one through memory waits there for its own earlier stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What was asked for is there.
    Enough,
    /// Too little, and the peer has not said that it left: `Full`, or `Empty`.
    Nothing,
    /// Anything else: `trouble` knows.
    Trouble,
}

/// The writing side: the positions from `at` on are its to fill, as far as they are free.
pub(crate) struct Writer<'m> {
    words: Words<'m>,
    /// Ours alone; `tail` is its published copy.
    at: u64,
    /// `at` may go up to here unasked.
    limit: &'m Lease,
    slip: Slip,
    /// Wakes the reader.
    bell: Ringer<'m>,
    pub(crate) peer: Peer<'m>,
}

impl<'m> Writer<'m> {
    pub(crate) fn new(
        words: Words<'m>,
        bell: Ringer<'m>,
        peer: Peer<'m>,
        limit: &'m mut Lease,
    ) -> Result<Self, Error> {
        let (at, head) = words.resume()?;
        limit.set(head + words.capacity);
        Ok(Writer {
            words,
            at,
            limit,
            slip: Slip::default(),
            bell,
            peer,
        })
    }

    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether this is the handle that took the seat. A forked copy must not finish a guard: those
    /// are asked for once, so no lease stands between them and the shared position.
    #[inline]
    pub(crate) fn ours(&self) -> bool {
        self.limit.alive()
    }

    /// How much is known to be free, without a look at the reader's position.
    #[inline]
    pub(crate) fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.at)
    }

    /// Makes sure that `wanted` is free: `Full`, `Disconnected` (and full), `TooLarge`, `Corrupt`.
    ///
    /// `message` is the size of a single message, near enough to tell one from several.
    #[inline]
    pub(crate) fn ensure(&mut self, wanted: u64, message: u64) -> Result<(), Error> {
        match self.poll(wanted, message) {
            Look::Enough => Ok(()),
            Look::Nothing => Err(Error::Full),
            Look::Trouble => self.trouble(wanted),
        }
    }

    /// As [`ensure`](Self::ensure), in one word.
    #[inline]
    pub(crate) fn poll(&mut self, wanted: u64, message: u64) -> Look {
        if self.known() >= wanted {
            Look::Enough
        } else {
            self.look(wanted, message)
        }
    }

    /// *Commit*: everything up to the new tail belongs to the reader.
    #[inline]
    pub(crate) fn commit(&mut self, amount: u64) {
        self.at += amount;
        // Release: pairs with the acquire in `committed`; what was written comes before it.
        self.words.tail.store(self.at, Ordering::Release);
        self.bell.ring();
    }

    /// The rare question: how far is the reader really?
    #[cold]
    #[inline(never)]
    fn look(&mut self, wanted: u64, message: u64) -> Look {
        if !self.limit.alive() || wanted > self.words.capacity {
            return Look::Trouble;
        }
        self.slip.pause();
        let before = self.known();
        let Ok(free) = self.free() else {
            return Look::Trouble;
        };
        self.slip
            .found(free.saturating_sub(before), message, self.words.capacity);
        if free >= wanted {
            Look::Enough
        } else if self.peer.quiet() {
            Look::Nothing
        } else {
            Look::Trouble
        }
    }

    /// What a look could not say in one word.
    #[cold]
    #[inline(never)]
    pub(crate) fn trouble(&mut self, wanted: u64) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if wanted > self.words.capacity {
            return Err(Error::TooLarge {
                asked: wanted,
                max: self.words.capacity,
            });
        }
        if self.free()? >= wanted {
            return Ok(());
        }
        match self.peer.end(self.at)? {
            // It may have released more just before it left.
            Some(_) if self.free()? >= wanted => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None => Err(Error::Full),
        }
    }

    /// Reads the reader's position, renews the lease, and says how much is free.
    fn free(&mut self) -> Result<u64, Error> {
        // Acquire: pairs with the release in `Reader::release`; its reads come before our writes.
        let head = self.words.head.load(Ordering::Acquire);
        let used = self.words.distance(head, self.at, "head", head)?;
        self.limit.set(head + self.words.capacity);
        Ok(self.words.capacity - used)
    }

    /// What is committed and not released, exactly.
    pub(crate) fn len(&self) -> Result<u64, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        // Acquire: pairs with the release in `Reader::release`; a caller may act on what it frees.
        let head = self.words.head.load(Ordering::Acquire);
        Ok(self.words.distance(head, self.at, "head", head)?)
    }
}

/// The reading side: the positions from `at` on are its to read, as far as they are committed.
pub(crate) struct Reader<'m> {
    words: Words<'m>,
    /// Ours alone; `head` is its published copy, exact after every release.
    at: u64,
    /// `at` may go up to here unasked.
    limit: &'m Lease,
    slip: Slip,
    hand_back: HandBack,
    /// Whether the thread was panicking when the last guard was made.
    panicked: bool,
    /// Wakes the writer.
    bell: Ringer<'m>,
    pub(crate) peer: Peer<'m>,
}

impl<'m> Reader<'m> {
    pub(crate) fn new(
        words: Words<'m>,
        bell: Ringer<'m>,
        peer: Peer<'m>,
        limit: &'m mut Lease,
    ) -> Result<Self, Error> {
        let (_, at) = words.resume()?;
        Ok(Reader::standing_at(at, words, bell, peer, limit))
    }

    /// A reader that begins at `at`, where its own word says that it stands; nothing is known yet of what
    /// is there.
    pub(crate) fn standing_at(
        at: u64,
        words: Words<'m>,
        bell: Ringer<'m>,
        peer: Peer<'m>,
        limit: &'m mut Lease,
    ) -> Self {
        limit.set(at);
        Reader {
            hand_back: HandBack::new(words.writable),
            panicked: false,
            words,
            at,
            limit,
            slip: Slip::default(),
            bell,
            peer,
        }
    }

    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether this is the handle that took the seat. A forked copy must not finish a guard: those
    /// are asked for once, so no lease stands between them and the shared position.
    #[inline]
    pub(crate) fn ours(&self) -> bool {
        self.limit.alive()
    }

    /// Notes whether the thread is panicking: to be called when a guard is made. (The note is not in the guard itself,
    /// which so fits two registers. There is one guard at a time.)
    #[inline]
    pub(crate) fn begin_guard(&mut self) {
        // Plain version: the assignment alone. A store costs more here than two looks.
        if panicking() || self.panicked {
            self.note_panic();
        }
    }

    #[cold]
    #[inline(never)]
    fn note_panic(&mut self) {
        self.panicked = panicking();
    }

    /// Returns `true` if a guard that goes out of scope releases its messages: not in a forked copy, nor if its
    /// thread began to panic since the guard was made. The code that was to read them may have read some: nobody
    /// knows which, so all stay to be read again, as after a kill.
    ///
    /// A guard that was made during a panic is a destructor's, which drops it where it is done with it: there, too, a
    /// loop that reads until nothing is left must come to its end. (So a second panic, caught within that destructor,
    /// releases. `std`'s mutex sees no such one either.)
    #[inline]
    pub(crate) fn drop_releases(&self) -> bool {
        self.ours() && (!panicking() || self.panicked)
    }

    /// Up to where it is known to be committed, without a look at the writer's position.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.limit.get()
    }

    /// How much is known to be committed, without a look at the writer's position.
    #[inline]
    pub(crate) fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.at)
    }

    /// Makes sure that something is there: `Empty`, `Disconnected` (and empty), `Corrupt`.
    ///
    /// `message` is the size of a single message, near enough to tell one from several.
    #[inline]
    pub(crate) fn ensure(&mut self, message: u64) -> Result<(), Error> {
        match self.poll(message) {
            Look::Enough => Ok(()),
            Look::Nothing => Err(Error::Empty),
            Look::Trouble => self.trouble(),
        }
    }

    /// As [`ensure`](Self::ensure), in one word.
    #[inline]
    pub(crate) fn poll(&mut self, message: u64) -> Look {
        if self.known() > 0 {
            Look::Enough
        } else if self.slip.idle()
            // Relaxed: a hint; what it leads to is either nothing, or a look.
            && self.words.tail.load(Ordering::Relaxed) == self.at
            && self.limit.alive()
            && self.peer.quiet()
        {
            Look::Nothing
        } else {
            self.look(message)
        }
    }

    /// *Release*: everything before the new head may be written again.
    #[inline]
    pub(crate) fn release(&mut self, amount: u64) {
        self.at += amount;
        // Release: pairs with the acquire in `Writer::free`; our reads come before it.
        self.words.head.store(self.at, Ordering::Release);
        self.bell.ring();
    }

    /// The rare question: how far is the writer really?
    #[cold]
    #[inline(never)]
    fn look(&mut self, message: u64) -> Look {
        if !self.limit.alive() {
            return Look::Trouble;
        }
        self.slip.pause();
        let Ok(found) = self.filled() else {
            return Look::Trouble;
        };
        self.slip.found(found, message, self.words.capacity);
        if found > 0 {
            let capacity = self.words.capacity;
            self.hand_back.looked(self.at, capacity, self.bell.os());
            Look::Enough
        } else if self.peer.quiet() {
            Look::Nothing
        } else {
            Look::Trouble
        }
    }

    /// Whether what was read shall be handed back before it is released; see `hand_back.rs`.
    #[inline(always)]
    pub(crate) fn hands_back(&self) -> bool {
        self.hand_back.on()
    }

    /// What a look could not say in one word.
    #[cold]
    #[inline(never)]
    pub(crate) fn trouble(&mut self) -> Result<(), Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if self.filled()? > 0 {
            return Ok(());
        }
        match self.peer.end(self.at.min(self.limit.get()))? {
            // It may have committed more just before it left.
            Some(_) if self.filled()? > 0 => Ok(()),
            Some(news) => Err(Error::Disconnected(self.peer.tell(news))),
            None => Err(Error::Empty),
        }
    }

    /// Goes on at `at`, of which nothing is known yet; so far ahead of the tail may it be from now on.
    /// *Release*, when it goes forward.
    pub(crate) fn go_to(&mut self, at: u64, ahead: u64) {
        self.hand_back.moved(self.at, at);
        self.at = at;
        self.words.ahead = ahead;
        self.limit.set(at);
        // Release: as in `release`.
        self.words.head.store(at, Ordering::Release);
        self.bell.ring();
    }

    /// Nothing is known any more of what is committed.
    pub(crate) fn forget(&mut self) {
        self.limit.set(self.at);
    }

    pub(crate) fn tail_word(&self) -> &'m AtomicU64 {
        self.words.tail
    }

    /// How far it has skipped ahead of the tail: no further than it may be.
    pub(crate) fn ahead(&self) -> u64 {
        // Relaxed: nothing is read that it tells of.
        let tail = self.words.tail.load(Ordering::Relaxed);
        self.at.saturating_sub(tail).min(self.words.ahead)
    }

    /// Reads the writer's position, renews the lease, and says how much is there.
    fn filled(&mut self) -> Result<u64, Error> {
        let tail = self.words.committed()?;
        let filled = self.words.distance(self.at, tail, "tail", tail)?;
        self.limit.set(tail);
        Ok(filled)
    }

    /// What is committed and not released, exactly.
    pub(crate) fn len(&self) -> Result<u64, Error> {
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        let tail = self.words.committed()?;
        Ok(self.words.distance(self.at, tail, "tail", tail)?)
    }
}

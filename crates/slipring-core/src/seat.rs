//! The words of a seat: who holds it, how the last holder left, and what its peer knows of that.
//!
//! Whether a seat is held *now* only the kernel knows (its lock; see `slipring::seat`), or, on memory
//! without kernel locks, the word `owner`. The other words here say what a lock cannot: which generation
//! of holder this is, and how one that left did so.
//!
//! ```text
//! life  63                     8 7      0
//!       | generation           | state  |    0 never held   1 held   2 finished   3 aborted
//! ```
//!
//! *Died* is no state: nobody is left to write it. It is `held` with the lock free, looked at in
//! this order: the word, the lock, the word again with the same generation.
//!
//! **Ends.** An end belongs to one generation of producer. A consumer handle that was told of it
//! takes note at its next call, or when it is dropped, by storing the generation in its own line;
//! from then on that end is history, and a later consumer waits for the next producer instead.
//! A *finished* end outlives the seat's next taker, which copies it to `last_end` with its
//! position, and is told before the end of any successor; the ends of producers that aborted or
//! died do not: their successor goes on.

use crate::error::{Corrupt, End};
use crate::layout::SeatLine;
use crate::sync::{AtomicU64, Ordering, fence};

/// How often a word that keeps changing is looked at again: nobody sits down so often.
const PATIENCE: u32 = 1000;
/// No seat has had so many holders.
const MOST: u64 = (1 << 56) - 1;

/// A seat's `life` word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How many holders this seat has had, the present one included.
    pub generation: u64,
    /// What the latest of them is doing.
    pub state: State,
}

/// The state in a `life` word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has held the seat yet.
    Never,
    /// Held; or its holder died, which only the seat's lock tells.
    Held,
    /// The last holder left in an orderly way.
    Finished,
    /// The last holder left before it was done.
    Aborted,
}

impl Life {
    fn from_word(word: u64) -> Result<Life, Corrupt> {
        let state = match word & 0xff {
            // A seat that nobody held has had no holders, and no other has had so many.
            _ if (word >> 8 == 0) != (word == 0) || word >> 8 == MOST => {
                return Err(Corrupt {
                    word: "life",
                    found: word,
                    expected: (MOST - 1) << 8 | 3,
                });
            }
            0 => State::Never,
            1 => State::Held,
            2 => State::Finished,
            3 => State::Aborted,
            _ => {
                return Err(Corrupt {
                    word: "life",
                    found: word,
                    expected: word & !0xff | 3,
                });
            }
        };
        Ok(Life {
            generation: word >> 8,
            state,
        })
    }

    fn word(self) -> u64 {
        self.generation << 8 | self.state as u64
    }

    /// How this holder left, if it said so.
    pub fn end(self) -> Option<End> {
        match self.state {
            State::Never | State::Held => None,
            State::Finished => Some(End::Finished),
            State::Aborted => Some(End::Aborted),
        }
    }
}

impl SeatLine {
    /// The seat's `life` as it is now.
    pub fn life(&self) -> Result<Life, Corrupt> {
        // Acquire: pairs with the releases in `take` and `leave`, so that all that the last holder
        // stored before it left is seen by whoever sees that it left.
        Life::from_word(self.life.load(Ordering::Acquire))
    }

    /// Takes the place of the lock, on memory that has none: whether the caller holds the seat now.
    pub fn own(&self) -> bool {
        // Acquire: pairs with the release in `disown`; this holder comes after all that the last one did.
        self.owner
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Lets go of what `own` took.
    pub fn disown(&self) {
        // Release: pairs with the acquire in `own`.
        self.owner.store(0, Ordering::Release);
    }

    /// Makes the caller, who holds the seat's lock, its next generation, and returns that.
    ///
    /// `position` is where the seat's role stands: if the last holder finished, there it ended.
    /// Killed between any two of these stores, the taker has changed nothing that the next one
    /// would not store again.
    pub fn take(&self, position: u64) -> Result<u64, Corrupt> {
        let last = self.life()?;
        if last.state == State::Finished {
            // A seqlock whose odd value is zero: `last_end` speaks of the position next to it.
            self.last_end.store(0, Ordering::Relaxed);
            // Release fence: pairs with the acquire fence in `finished`; zero comes first.
            fence(Ordering::Release);
            self.last_end_position.store(position, Ordering::Relaxed);
            // Release: pairs with the acquire in `finished`; the position comes before.
            self.last_end.store(last.word(), Ordering::Release);
        }
        let generation = last.generation + 1;
        // Release: pairs with the acquire in `life`; publishes `last_end` and its position.
        self.life.store(
            Life {
                generation,
                state: State::Held,
            }
            .word(),
            Ordering::Release,
        );
        Ok(generation)
    }

    /// The latest generation that finished and was succeeded, and the position at which it did; nothing
    /// while that changes.
    pub fn finished(&self) -> Option<(u64, u64)> {
        // Acquire: pairs with the release in `take`.
        let word = self.last_end.load(Ordering::Acquire);
        let position = self.last_end_position.load(Ordering::Relaxed);
        // Acquire fence: pairs with the release fence in `take`; a position of a later end would
        // show its zero, or the end itself, here. (And see `unread_end`.)
        fence(Ordering::Acquire);
        let same = self.last_end.load(Ordering::Relaxed) == word;
        let life = Life::from_word(word).ok()?;
        (same && life.state == State::Finished).then_some((life.generation, position))
    }

    /// Whether a finished stream of an earlier holder still waits for `consumer` to take note of
    /// its end.
    pub fn unread_end(&self, consumer: &SeatLine) -> bool {
        // Relaxed: the acquire fence in `finished`, behind it, pairs with the release in
        // `Peer::acknowledge`.
        let acknowledged = consumer.acknowledged.load(Ordering::Relaxed);
        self.finished()
            .is_some_and(|(generation, _)| generation > acknowledged)
    }

    /// Says how generation `generation` leaves. The caller still holds the seat's lock.
    pub fn leave(&self, generation: u64, end: End) {
        let state = match end {
            End::Finished => State::Finished,
            End::Aborted | End::Died => State::Aborted,
        };
        // Release: pairs with the acquire in `life`; all that was committed comes before the end.
        self.life
            .store(Life { generation, state }.word(), Ordering::Release);
    }
}

/// The end of a generation, of which a handle has not been told yet.
#[derive(Clone, Copy, Debug)]
pub struct News {
    generation: u64,
    end: End,
}

/// What a handle, and a thread that waits on the handle's behalf, tell each other of the peer. It lies in memory of
/// their own, not in the channel's.
#[derive(Debug, Default)]
pub struct Findings {
    /// The generation that either of them found dead, by its lock.
    dead: AtomicU64,
    /// The generation whose end the handle was told of last.
    told: AtomicU64,
}

impl Findings {
    /// Notes that this generation is dead. Only that generation's lock may say so, and only between two looks at its
    /// `life`: see the head of this file.
    pub fn died(&self, generation: u64) {
        // Release: pairs with the acquire in `is_dead`; whoever takes this generation for dead sees all that it committed.
        // The latest one counts, whoever comes first.
        self.dead.fetch_max(generation, Ordering::Release);
    }

    /// Returns `true` if this generation was found dead.
    pub fn is_dead(&self, generation: u64) -> bool {
        // Acquire: pairs with the release in `died`.
        self.dead.load(Ordering::Acquire) == generation
    }

    /// Returns the generation whose end the handle was told of last.
    pub fn told(&self) -> u64 {
        // Relaxed: nothing is read on its strength.
        self.told.load(Ordering::Relaxed)
    }
}

/// What one handle knows of the handle at the other end.
pub struct Peer<'m> {
    line: &'m SeatLine,
    /// Where a consumer takes note of its producer's ends; nothing for a producer.
    notes: Option<&'m SeatLine>,
    /// The ends of generations up to this one are history.
    known: u64,
    /// The generation whose end this handle was told of last.
    told: u64,
    /// The generation that was found dead, by its lock.
    dead: u64,
    /// The `life` word that, last time, told of no end at all: while it stays there is none, unless its generation is
    /// found dead.
    quiet: u64,
    /// Shared with whoever waits on this handle's behalf; nothing if nobody may.
    findings: Option<&'m Findings>,
}

impl<'m> Peer<'m> {
    /// The producer, as the consumer in seat `mine` sees it: ends that no consumer has taken note
    /// of are still news.
    pub fn producer(line: &'m SeatLine, mine: &'m SeatLine) -> Peer<'m> {
        let known = mine.acknowledged.load(Ordering::Relaxed);
        Peer {
            line,
            notes: Some(mine),
            known,
            told: 0,
            dead: 0,
            quiet: 0,
            findings: None,
        }
    }

    /// The consumer, as a producer sees it: that an earlier one left is history.
    ///
    /// `alive` asks the kernel whether the seat is held now, as far as that can be known.
    pub fn consumer(
        line: &'m SeatLine,
        mut alive: impl FnMut() -> bool,
    ) -> Result<Peer<'m>, Corrupt> {
        // The word, the lock, the word again: else one that sits down in between is taken for
        // history, and its end will never be news.
        let (mut life, mut held) = (line.life()?, alive());
        for _ in 0..PATIENCE {
            let after = line.life()?;
            if after == life {
                break;
            }
            (life, held) = (after, alive());
        }
        let present = held && life.state == State::Held;
        let known = life.generation.saturating_sub(u64::from(present));
        Ok(Peer {
            line,
            notes: None,
            known,
            told: 0,
            dead: 0,
            quiet: 0,
            findings: None,
        })
    }

    /// From now on a death that either finds is known to both, and what this handle is told is known there.
    #[must_use]
    pub fn sharing(mut self, findings: &'m Findings) -> Peer<'m> {
        self.findings = Some(findings);
        self
    }

    /// The peer's `life`, if it may be that it died without anybody having noticed yet.
    pub fn suspect(&self) -> Result<Option<Life>, Corrupt> {
        let life = self.line.life()?;
        let unknown = life.generation > self.known && !self.is_dead(life.generation);
        Ok((life.state == State::Held && unknown).then_some(life))
    }

    /// Notes that `suspect`'s generation is dead: its lock was free, and its life the same after.
    pub fn died(&mut self, suspect: Life) {
        self.dead = suspect.generation;
        self.quiet = 0;
        if let Some(findings) = self.findings {
            findings.died(suspect.generation);
        }
    }

    /// Returns `true` if this generation was found dead.
    #[inline]
    fn is_dead(&self, generation: u64) -> bool {
        self.dead == generation || self.findings.is_some_and(|found| found.is_dead(generation))
    }

    /// The latest generation whose end is no news to this handle.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Whether a peer is seated whose end this handle has not been told of.
    pub fn present(&self) -> Result<bool, Corrupt> {
        let life = self.line.life()?;
        let alive = life.generation > self.known && !self.is_dead(life.generation);
        Ok(life.state == State::Held && alive)
    }

    /// Whether anybody has sat there after the one whose end this handle was told of last, whatever has
    /// become of that since.
    pub fn followed(&self) -> Result<bool, Corrupt> {
        Ok(self.line.life()?.generation > self.told)
    }

    /// Whether the peer's `life` is the one that told of no end: then there is still none, unless somebody else found
    /// its holder dead. Asked at every poll that found nothing, so this is all that a round trip pays for ends.
    #[inline]
    pub(crate) fn quiet(&self) -> bool {
        // Relaxed: the same word as before, and nothing is read on its strength.
        let word = self.line.life.load(Ordering::Relaxed);
        // Relaxed: `end` asks again, with an acquire.
        let died = |found: &Findings| found.dead.load(Ordering::Relaxed) == word >> 8;
        word == self.quiet && word != 0 && !self.findings.is_some_and(died)
    }

    /// The end that this handle is to be told of, its ring being at `position` and empty (full).
    ///
    /// Being asked again after it was told counts as having taken note of it. The caller looks at
    /// the ring once more before it believes the answer, since the peer may have used it just
    /// before it left, and passes on what it believes with [`tell`](Self::tell).
    pub fn end(&mut self, position: u64) -> Result<Option<News>, Corrupt> {
        let life = self.line.life()?;
        self.acknowledge();
        if self.known > life.generation {
            let (found, expected) = (self.known, life.generation);
            return Err(Corrupt {
                word: "acknowledged",
                found,
                expected,
            });
        }
        // An earlier end comes first, also if its successor has left by now.
        let last = self.last_end()?;
        if let Some((generation, there)) = last
            && there == position
        {
            let end = End::Finished;
            return Ok(Some(News { generation, end }));
        }
        let end = match life.end() {
            None if life.state == State::Held && self.is_dead(life.generation) => Some(End::Died),
            end => end,
        };
        // An end that the ring has passed is never told any more: positions only grow.
        let passed = last.is_none_or(|(_, there)| there < position);
        if life.state == State::Held && end.is_none() && passed {
            self.quiet = life.word();
        }
        let news = life.generation > self.known || life.generation == self.told;
        Ok(end.filter(|_| news).map(|end| News {
            generation: life.generation,
            end,
        }))
    }

    /// The finished end of an earlier generation that has a successor, and where, if it is news.
    fn last_end(&self) -> Result<Option<(u64, u64)>, Corrupt> {
        if self.notes.is_none() {
            return Ok(None);
        }
        let Some((generation, position)) = self.line.finished() else {
            return Ok(None);
        };
        // Loaded after it: its taker wrote it over a `life` of that generation that had finished, and
        // before its own.
        let life = self.line.life()?;
        let over = generation == life.generation && life.state == State::Finished;
        if generation >= life.generation && !over {
            return Err(Corrupt {
                word: "last_end",
                found: generation,
                expected: life.generation.saturating_sub(1),
            });
        }
        Ok((generation > self.known).then_some((generation, position)))
    }

    /// From now on this handle was told of that end.
    pub fn tell(&mut self, news: News) -> End {
        self.told = news.generation;
        if let Some(findings) = self.findings {
            // Relaxed: nothing is read on its strength.
            findings.told.store(self.told, Ordering::Relaxed);
        }
        news.end
    }

    /// Takes note of the end that this handle was told of: from now on it is history for others.
    pub fn acknowledge(&mut self) {
        if self.told > self.known {
            self.known = self.told;
            if let Some(notes) = self.notes {
                // Release: pairs with the acquire fence in `finished`, by `unread_end`; all that the
                // consumer released comes before its note.
                notes.acknowledged.store(self.known, Ordering::Release);
            }
        }
    }
}

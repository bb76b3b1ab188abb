//! Describes the words of a seat: its holder, how the last holder left, and what its peer knows of
//! that.
//!
//! Only the kernel knows if a seat is held *now*, by the seat's lock (see `slipring::seat`). On
//! memory without kernel locks the word `owner` takes the lock's place. The other words hold what a
//! lock cannot: the generation of the holder, and how a holder that left did so.
//!
//! ```text
//! life  63                     8 7      0
//!       | generation           | state  |    0 never held   1 held   2 finished   3 aborted   4 died
//! ```
//!
//! A dead holder cannot write that it died. Its state is `held` with the lock free. A reader looks in this order: the
//! word, the lock, the word again with the same generation. (Whoever recovers a seat of an `mpmc` channel holds its
//! locks, and writes *died* for it.)
//!
//! **Ends.** An end belongs to one generation of producer. A consumer handle that was told of an
//! end acknowledges it at its next call, or when it is dropped. It does so by storing the
//! generation in its own line. From then on that end has been reported, and a later consumer waits for the next
//! producer instead. A *finished* end outlives the seat's next taker, which copies it to `last_end`
//! with its position. It is reported before the end of any successor. The ends of producers that
//! aborted or died are not kept: their successor goes on.

use crate::error::{Corrupt, End};
use crate::layout::SeatLine;
use crate::sync::{AtomicU64, Ordering, fence};

/// The most times that a word which keeps changing is read again. No seat changes hands that often.
pub(crate) const PATIENCE: u32 = 1000;
/// More holders than any seat has had.
const MOST: u64 = (1 << 56) - 1;

/// A seat's `life` word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The number of holders that this seat has had, the present one included.
    pub generation: u64,
    /// The state of the latest holder.
    pub state: State,
}

/// The state in a `life` word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No handle has held the seat yet.
    Never,
    /// Held, or its holder died; only the seat's lock tells the two apart.
    Held,
    /// The last holder left in an orderly way.
    Finished,
    /// The last holder left before it was done.
    Aborted,
    /// The last holder died. Whoever recovered its seat stored this, under the seat's locks (`mpmc`).
    Died,
}

impl Life {
    fn from_word(word: u64) -> Result<Life, Corrupt> {
        let state = match word & 0xff {
            // A seat that was never held has had no holders, and no seat has had as many as `MOST`.
            _ if (word >> 8 == 0) != (word == 0) || word >> 8 == MOST => {
                return Err(Corrupt {
                    word: "life",
                    found: word,
                    expected: (MOST - 1) << 8 | 4,
                });
            }
            0 => State::Never,
            1 => State::Held,
            2 => State::Finished,
            3 => State::Aborted,
            4 => State::Died,
            _ => {
                return Err(Corrupt {
                    word: "life",
                    found: word,
                    expected: word & !0xff | 4,
                });
            }
        };
        Ok(Life {
            generation: word >> 8,
            state,
        })
    }

    pub(crate) fn word(self) -> u64 {
        self.generation << 8 | self.state as u64
    }

    /// Returns how this holder left, if it wrote that.
    pub fn end(self) -> Option<End> {
        match self.state {
            State::Never | State::Held => None,
            State::Finished => Some(End::Finished),
            State::Aborted => Some(End::Aborted),
            State::Died => Some(End::Died),
        }
    }
}

impl SeatLine {
    /// Returns the seat's `life` as it is now.
    pub fn life(&self) -> Result<Life, Corrupt> {
        // Acquire: pairs with the releases in `take` and `leave`. A reader that sees that the last
        // holder left also sees all that this holder stored before it left.
        Life::from_word(self.life.load(Ordering::Acquire))
    }

    /// Takes the seat on memory without kernel locks. Returns `true` if the caller holds it now.
    pub fn own(&self) -> bool {
        // Acquire: pairs with the release in `disown`; this holder comes after all that the last
        // one did.
        self.owner
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Gives up the seat that `own` took.
    pub fn disown(&self) {
        // Release: pairs with the acquire in `own`.
        self.owner.store(0, Ordering::Release);
    }

    /// Begins the next generation, whose holder is the caller, and returns its number. The caller
    /// holds the seat's lock.
    ///
    /// `position` is the position of the seat's role. If the last holder finished, its stream ended
    /// there. A taker that is killed between any two of these stores has changed nothing that the
    /// next taker would not store again.
    pub fn take(&self, position: u64) -> Result<u64, Corrupt> {
        let last = self.life()?;
        if last.state == State::Finished {
            // A seqlock whose odd value is zero: `last_end` describes the position next to it.
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

    /// Returns the latest generation that finished and was succeeded, and the position of its end.
    ///
    /// Returns `None` while that changes.
    pub fn finished(&self) -> Option<(u64, u64)> {
        // Acquire: pairs with the release in `take`.
        let word = self.last_end.load(Ordering::Acquire);
        let position = self.last_end_position.load(Ordering::Relaxed);
        // Acquire fence: pairs with the release fence in `take`. If the position belongs to a later
        // end, the load below shows that end's zero, or that end itself. (And see `unread_end`.)
        fence(Ordering::Acquire);
        let same = self.last_end.load(Ordering::Relaxed) == word;
        let life = Life::from_word(word).ok()?;
        (same && life.state == State::Finished).then_some((life.generation, position))
    }

    /// Returns `true` if `consumer` has not yet acknowledged the end of an earlier holder that
    /// finished.
    pub fn unread_end(&self, consumer: &SeatLine) -> bool {
        // Relaxed: the acquire fence in `finished`, behind it, pairs with the release in
        // `Peer::acknowledge`.
        let acknowledged = consumer.acknowledged.load(Ordering::Relaxed);
        self.finished()
            .is_some_and(|(generation, _)| generation > acknowledged)
    }

    /// Records how generation `generation` leaves. The caller holds the seat's lock: it is the leaving handle, or recovers
    /// the seat of a dead one.
    pub fn leave(&self, generation: u64, end: End) {
        let state = match end {
            End::Finished => State::Finished,
            End::Aborted => State::Aborted,
            End::Died => State::Died,
        };
        // Release: pairs with the acquire in `life`; all that was committed comes before the end.
        self.life
            .store(Life { generation, state }.word(), Ordering::Release);
    }
}

/// The end of a generation that a handle has not been told of yet.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// The generation that ended; of a crowd, the sum of all.
    pub generation: u64,
    /// The way in which it left.
    pub end: End,
}

/// The facts about the peer that a handle shares with a thread that waits on its behalf.
///
/// They lie in the process's own memory, not in the channel's.
#[derive(Debug, Default)]
pub struct Findings {
    /// The generation that either of them found dead, by its lock.
    dead: AtomicU64,
    /// The latest generation whose end the handle was told of.
    told: AtomicU64,
}

impl Findings {
    /// Records that this generation is dead.
    ///
    /// Only that generation's lock may prove it, and only between two loads of the generation's
    /// `life`: see the head of this file.
    pub fn died(&self, generation: u64) {
        // Release: pairs with the acquire in `is_dead`. A thread that takes this generation for
        // dead sees all that it committed. The latest generation counts, whichever thread comes
        // first.
        self.dead.fetch_max(generation, Ordering::Release);
    }

    /// Returns `true` if this generation was found dead.
    pub fn is_dead(&self, generation: u64) -> bool {
        // Acquire: pairs with the release in `died`.
        self.dead.load(Ordering::Acquire) == generation
    }

    /// Returns the latest generation whose end the handle was told of.
    pub fn told(&self) -> u64 {
        // Relaxed: nothing is read that this orders.
        self.told.load(Ordering::Relaxed)
    }
}

/// One handle's view of the handle at the other end.
pub struct Peer<'m> {
    line: &'m SeatLine,
    /// The line where a consumer acknowledges its producer's ends; `None` for a producer.
    notes: Option<&'m SeatLine>,
    /// The ends of generations up to this one are reported.
    known: u64,
    /// The latest generation whose end this handle was told of.
    told: u64,
    /// The generation that was found dead, by its lock.
    dead: u64,
    /// The `life` word that, at the last check, showed no end.
    ///
    /// While the word stays the same there is no end, unless its generation is found dead.
    quiet: u64,
    /// Shared with the thread that waits on this handle's behalf; `None` if no thread may.
    findings: Option<&'m Findings>,
}

impl<'m> Peer<'m> {
    /// Makes the view of the producer that the consumer in seat `mine` has.
    ///
    /// Ends that no consumer has acknowledged will still be reported.
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

    /// Makes the view of the consumer that a producer has. An earlier consumer's end is not
    /// reported.
    ///
    /// `alive` asks the kernel if the seat is held now, as far as that can be known.
    pub fn consumer(
        line: &'m SeatLine,
        mut alive: impl FnMut() -> bool,
    ) -> Result<Peer<'m>, Corrupt> {
        // The word, the lock, the word again. Otherwise a consumer that sits down in between would
        // be taken for an earlier one, and its end would never be reported.
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

    /// Shares `findings` from now on: a death that either side finds, and the ends that this handle
    /// is told of.
    #[must_use]
    pub fn sharing(mut self, findings: &'m Findings) -> Peer<'m> {
        self.findings = Some(findings);
        self
    }

    /// Returns the peer's `life` if the peer may have died without this handle's knowledge.
    pub fn suspect(&self) -> Result<Option<Life>, Corrupt> {
        let life = self.line.life()?;
        let unknown = life.generation > self.known && !self.is_dead(life.generation);
        Ok((life.state == State::Held && unknown).then_some(life))
    }

    /// Records that `suspect`'s generation is dead: its lock was free, and its `life` the same
    /// afterwards.
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

    /// Returns the latest generation whose end this handle will not report any more.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Returns `true` if a peer holds the seat, and this handle has not been told of its end.
    pub fn present(&self) -> Result<bool, Corrupt> {
        let life = self.line.life()?;
        let alive = life.generation > self.known && !self.is_dead(life.generation);
        Ok(life.state == State::Held && alive)
    }

    /// Returns `true` if a successor has held the seat since the end that this handle was last told
    /// of.
    ///
    /// The successor may have left since.
    pub fn followed(&self) -> Result<bool, Corrupt> {
        Ok(self.line.life()?.generation > self.told)
    }

    /// Returns `true` if the peer's `life` is still the word that showed no end.
    ///
    /// Then there still is none, unless another thread found its holder dead. Every poll that found
    /// nothing calls this, so this is all that a round trip pays for ends.
    #[inline]
    pub(crate) fn quiet(&self) -> bool {
        // Relaxed: the same word as before, and nothing is read that this orders.
        let word = self.line.life.load(Ordering::Relaxed);
        // Relaxed: `end` loads it again, with an acquire.
        let died = |found: &Findings| found.dead.load(Ordering::Relaxed) == word >> 8;
        word == self.quiet && word != 0 && !self.findings.is_some_and(died)
    }

    /// Returns the end to report to this handle, whose ring is at `position` and empty (full).
    ///
    /// A second call after an end was told acknowledges that end. The caller must look at the ring
    /// once more before it believes the answer, since the peer may have used the ring just before
    /// it left. It passes on the end that it believes with [`tell`](Self::tell).
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
        // An earlier end comes first, even if its successor has left by now.
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
        // An end that the ring has passed is never reported any more: positions only grow.
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

    /// Returns the generation and position of an earlier end that finished and has a successor.
    ///
    /// Returns `None` if it was reported.
    fn last_end(&self) -> Result<Option<(u64, u64)>, Corrupt> {
        if self.notes.is_none() {
            return Ok(None);
        }
        let Some((generation, position)) = self.line.finished() else {
            return Ok(None);
        };
        // This load comes after `finished`. The taker wrote `last_end` over a `life` of that
        // generation that had finished, and before its own `life`.
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

    /// Records that this handle was told of that end, and returns it.
    pub fn tell(&mut self, news: News) -> End {
        self.told = news.generation;
        if let Some(findings) = self.findings {
            // Relaxed: nothing is read that this orders.
            findings.told.store(self.told, Ordering::Relaxed);
        }
        news.end
    }

    /// Acknowledges the end that this handle was told of. From now on it is not reported to others.
    pub fn acknowledge(&mut self) {
        if self.told > self.known {
            self.known = self.told;
            if let Some(notes) = self.notes {
                // Release: pairs with the acquire fence in `finished`, by `unread_end`. All that
                // the consumer released comes before its acknowledgement.
                notes.acknowledged.store(self.known, Ordering::Release);
            }
        }
    }
}

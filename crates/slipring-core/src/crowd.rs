//! Knows whether any of many peers is left, and how they left: what `Peer` knows of a single one.

use crate::error::{Corrupt, End};
use crate::layout::{MOST_SEATS, SeatLine, SeatWords, Side};
use crate::seat::{News, PATIENCE, State};
use crate::sync::Ordering;

/// One handle's view of many handles at the other side, of which any may come and go.
///
/// The *end* is reported when none of them is left. It counts as another end than the last one if a handle has come
/// since: the sum of all generations tells.
pub struct Crowd<'m> {
    seats: Side<'m>,
    /// The line where the handle notes the ends that it was told of; `None` for a bystander.
    mine: Option<&'m SeatLine>,
    /// Ends up to this sum of generations are reported.
    known: u64,
    /// The sum at the end that this handle was told of.
    told: u64,
    /// The end that this handle was told of.
    last: Option<End>,
    /// The generation of each seat whose end is reported.
    reported: [u64; MOST_SEATS],
    /// A seat that was held at the last check, and its `life` then.
    witness: Option<(&'m SeatLine, u64)>,
}

impl<'m> Crowd<'m> {
    /// Makes a consumer's view of the producers. An end that one of the fellows has acknowledged is not reported. A consumer
    /// that competes with others for messages passes all of them; one that sees all messages passes none, and is told
    /// the last end in any case.
    pub fn producers(seats: Side<'m>, fellows: &[SeatWords<'_>], mine: &'m SeatLine) -> Crowd<'m> {
        // Relaxed: nothing is read that this orders.
        let acknowledged =
            |fellow: &SeatWords<'_>| fellow.line.acknowledged.load(Ordering::Relaxed);
        let known = fellows.iter().map(acknowledged).max().unwrap_or(0);
        let mut crowd = Crowd::fresh(seats, Some(mine));
        crowd.catch_up(known);
        crowd
    }

    /// Makes the view of a bystander, who acknowledges nothing. Ends up to the sum `known` are not reported.
    pub fn outside(seats: Side<'m>, known: u64) -> Crowd<'m> {
        let mut crowd = Crowd::fresh(seats, None);
        crowd.catch_up(known);
        crowd
    }

    /// Takes the ends up to the sum `known` for reported.
    pub fn catch_up(&mut self, known: u64) {
        self.known = self.known.max(known);
        // If the words are impossible, the first look reports that.
        if self.count().is_ok_and(|count| count.sum <= self.known) {
            self.note_reported();
        }
    }

    /// Makes a producer's view of the consumers. The end of consumers that have left by now is not reported.
    pub fn consumers(seats: Side<'m>, mine: &'m SeatLine) -> Result<Crowd<'m>, Corrupt> {
        let mut crowd = Crowd::fresh(seats, Some(mine));
        let count = crowd.count()?;
        crowd.known = match count.held {
            None => count.sum,
            Some(_) => count.sum.saturating_sub(1),
        };
        crowd.note_reported();
        Ok(crowd)
    }

    fn fresh(seats: Side<'m>, mine: Option<&'m SeatLine>) -> Crowd<'m> {
        Crowd {
            seats,
            mine,
            known: 0,
            told: 0,
            last: None,
            reported: [0; MOST_SEATS],
            witness: None,
        }
    }

    /// Counts the generations, and remembers a seat that is held.
    fn count(&mut self) -> Result<Count<'m>, Corrupt> {
        let count = steady_count(self.seats.seats(), &self.reported)?;
        self.witness = count.held;
        Ok(count)
    }

    /// Notes that the ends of all present generations are reported.
    fn note_reported(&mut self) {
        for (words, reported) in self.seats.seats().iter().zip(&mut self.reported) {
            // Only ends: the end of a holder that is there is still to come.
            if let Ok(life) = words.line.life()
                && life.state != State::Held
            {
                *reported = life.generation;
            }
        }
    }

    /// Returns `true` if a seat that was held at the last check is held by the same handle.
    ///
    /// Every poll that found nothing calls this; it loads one word.
    #[inline]
    pub(crate) fn quiet(&self) -> bool {
        // Relaxed: the same word as before, and nothing is read that this orders.
        let same = |(line, life): (&SeatLine, u64)| line.life.load(Ordering::Relaxed) == life;
        self.witness.is_some_and(same)
    }

    /// Returns the end to report to this handle. A second call after an end was told acknowledges that end.
    ///
    /// The caller looks once more for messages (for room) before it believes the answer, and passes on the end that it
    /// believes with [`tell`](Self::tell).
    pub fn end(&mut self) -> Result<Option<News>, Corrupt> {
        self.acknowledge();
        let count = self.count()?;
        if self.known > count.sum {
            let (found, expected) = (self.known, count.sum);
            return Err(Corrupt {
                word: "acknowledged",
                found,
                expected,
            });
        }
        let repeated = (count.sum == self.told).then_some(self.last).flatten();
        let news = count.end().filter(|_| count.sum > self.known);
        let end = repeated.or(news).filter(|_| count.held.is_none());
        Ok(end.map(|end| News {
            generation: count.sum,
            end,
        }))
    }

    /// Returns `true` if no handle has come since `end` returned `news`.
    pub fn stands(&mut self, news: News) -> Result<bool, Corrupt> {
        let count = self.count()?;
        Ok(count.sum == news.generation && count.held.is_none())
    }

    /// Returns `true` if a handle has come since the end that this handle was last told of. It may have left since.
    pub fn followed(&mut self) -> Result<bool, Corrupt> {
        Ok(self.count()?.sum > self.told)
    }

    /// Returns `true` if a seat is held.
    pub fn present(&mut self) -> Result<bool, Corrupt> {
        Ok(self.count()?.held.is_some())
    }

    /// Returns the sum of generations up to which ends are not reported any more.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Records that this handle was told of that end, and returns it.
    pub fn tell(&mut self, news: News) -> End {
        self.told = news.generation;
        self.last = Some(news.end);
        self.note_reported();
        news.end
    }

    /// Acknowledges the end that this handle was told of. From now on it is not reported to handles that come later.
    pub fn acknowledge(&mut self) {
        if self.told > self.known {
            self.known = self.told;
            if let Some(mine) = self.mine {
                // Relaxed: nothing is read that this orders.
                mine.acknowledged.store(self.known, Ordering::Relaxed);
            }
        }
    }
}

/// Returns `true` if a handle was there at some time, and none is any more.
pub(crate) fn all_left(seats: &[SeatWords<'_>]) -> bool {
    let (mut came, mut held) = (false, false);
    for life in seats.iter().flat_map(|seat| seat.line.life()) {
        came |= life.generation > 0;
        held |= life.state == State::Held;
    }
    came && !held
}

/// The lives of a side's seats, taken together.
#[derive(Default)]
struct Count<'m> {
    /// The sum of all generations.
    sum: u64,
    /// A seat that is held, and its `life`.
    held: Option<(&'m SeatLine, u64)>,
    /// The end of the last holders that are not reported yet: died if one of them did, else aborted if one of them did.
    left: Option<End>,
}

impl Count<'_> {
    /// Returns how the last holders left, if no seat is held.
    fn end(&self) -> Option<End> {
        self.left.filter(|_| self.held.is_none())
    }
}

/// Counts until two counts agree: then no handle came in between, and none was overlooked that sat down in a seat before
/// another one left.
fn steady_count<'m>(seats: &[SeatWords<'m>], reported: &[u64]) -> Result<Count<'m>, Corrupt> {
    let mut last = count(seats, reported)?;
    for _ in 0..PATIENCE {
        let again = count(seats, reported)?;
        if again.sum == last.sum {
            return Ok(again);
        }
        last = again;
    }
    Ok(last)
}

fn count<'m>(seats: &[SeatWords<'m>], reported: &[u64]) -> Result<Count<'m>, Corrupt> {
    let mut count = Count::default();
    for (words, known) in seats.iter().zip(reported) {
        let life = words.line.life()?;
        count.sum = count.sum.wrapping_add(life.generation);
        if life.state == State::Held {
            count.held = Some((words.line, life.word()));
        }
        if *known >= life.generation {
            continue;
        }
        count.left = match (count.left, life.end()) {
            (Some(End::Died), _) | (_, Some(End::Died)) => Some(End::Died),
            (Some(End::Aborted), _) | (_, Some(End::Aborted)) => Some(End::Aborted),
            (before, now) => now.or(before),
        };
    }
    Ok(count)
}

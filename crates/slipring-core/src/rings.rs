//! Lets a channel of one producer and one consumer grow and shrink while both run.
//!
//! Positions go on as they are. Their memory changes: a *ring* is a run of positions that lie in one area of the data part, and
//! each *class* of capacity has an area of its own. The producer opens rings, one behind another; the consumer gives
//! their memory back.
//!
//! # Words
//! | word | written by | read by | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `rings`: the number of the newest ring | the producer | the consumer | release *(open)* → acquire *(cross)* |
//! | `from`, `class` of ring r | the producer, before `rings` says r | the consumer | by the pair above |
//! | `passed`: the oldest ring whose memory is not given back | the consumer | the producer | release *(give back)* → acquire *(open)* |
//!
//! Ring r holds the positions from `from` of r up to `from` of r + 1. Its record lies at r modulo seven, so seven rings can be live:
//! those from `passed` to `rings`. No two live rings are of one class.
//!
//! # Why it is right
//! *Agreement*: the producer stores `rings` before any tail beyond `from`. The consumer loads the tail first and `rings` then. So it
//! knows of each ring whose messages it finds, and reads no further than the next ring's `from`.
//!
//! *No overwriting*: the producer writes position p once p < head + capacity. The slot of p in the same ring belonged to a position
//! at most p - capacity, which is released. A slot of an older ring of that class: that ring is below `passed`, so it is read to its
//! end.
//!
//! *No memory goes under anybody's hands*: the producer left an area when it opened the next ring, and the consumer when it crossed.
//! The producer takes an area again only once `passed` is beyond its ring, which the consumer stores after the memory is
//! given back.
//!
//! *Kills*: a producer that is killed before it stores `rings` leaves memory that no ring uses, which its successor gives back.
//! After that store the resize is done. A consumer that is killed finds its ring again by its position, and gives back
//! all older ones.
//!
//! # Source
//! Ours. `verify/spin/grow.pml` is its model; docs/decisions says what we rejected.

mod sizing;

use crate::backing::Backing;
use crate::end::Endpoint;
use crate::error::{Corrupt, Error, ResizeError};
use crate::layout::{MOST_RINGS, RingRecord, RingWords};
use crate::mem::{Classes, RingMemory};
use crate::sync::{AtomicU64, Ordering};

pub(crate) use sizing::Sizer;
pub use sizing::Sizing;

/// The most bytes that a consumer gives back in one step. A step takes less than half a millisecond.
const STEP: u64 = 2 << 20;

/// A producer of a channel that can grow.
pub trait Resize: Endpoint {
    /// Goes on in a ring of `capacity`: a power of two from the channel's first capacity to its largest. Does nothing if the newest
    /// ring has that capacity.
    ///
    /// Never waits. Messages that are not read yet stay where they are, and count: after a shrink the channel is full until
    /// fewer than `capacity` are left.
    fn resize(&mut self, capacity: u64) -> Result<(), ResizeError>;

    /// Sets the rules by which this producer resizes the ring by itself.
    fn set_sizing(&mut self, sizing: Sizing);

    /// Returns the largest capacity that the channel can have: its capacity, if that is fixed.
    fn max_capacity(&self) -> u64;
}

/// More resizes than any channel has.
const MOST: u64 = 1 << 56;

/// The rings of a channel, as both ends see them.
#[derive(Clone, Copy)]
pub struct Rings<'m> {
    words: RingWords<'m>,
    classes: Classes<'m>,
    backing: Option<&'m dyn Backing>,
}

impl<'m> Rings<'m> {
    /// Makes the rings of a channel that can grow. Without `backing`, all memory is there for good.
    pub fn new(
        words: RingWords<'m>,
        classes: Classes<'m>,
        backing: Option<&'m dyn Backing>,
    ) -> Rings<'m> {
        Rings {
            words,
            classes,
            backing,
        }
    }

    /// Returns an upper bound of what all live rings hold together.
    pub(crate) fn most(&self) -> u64 {
        self.classes.geometry().most_unread()
    }

    fn record(&self, ring: u64) -> &RingRecord {
        self.words.record(ring)
    }

    /// Returns the capacity of the newest ring.
    fn newest_capacity(&self) -> u64 {
        self.classes.capacity(self.words.newest_class())
    }

    /// Makes the pages of a class ready, which have memory.
    fn touch(&self, class: u64) {
        let area = self.classes.area(class);
        if let Some(backing) = self.backing {
            backing.touch(area.start, area.end - area.start);
        }
    }

    /// Backs the area of a class.
    fn back(&self, class: u64) -> Result<(), Error> {
        let area = self.classes.area(class);
        self.backing.map_or(Ok(()), |backing| {
            backing.back(area.start, area.end - area.start)
        })
    }
}

/// Returns the place of a ring's record.
fn place(ring: u64) -> usize {
    (ring % MOST_RINGS as u64) as usize
}

fn wrong(word: &'static str, found: u64, expected: u64) -> Corrupt {
    Corrupt {
        word,
        found,
        expected,
    }
}

/// The live rings, as an end knows them: private copies of the shared words, checked.
struct Live {
    /// The number of the end's own ring: the newest that it knows.
    ring: u64,
    /// The number of the oldest one.
    passed: u64,
    /// The class of each.
    classes: [u64; MOST_RINGS],
}

impl Live {
    /// Takes over the live rings, up to the last one whose start `is_reached`, if the words are possible.
    ///
    /// `tail` loads the producer's position. Positions are multiples of `step`.
    fn resume(
        rings: &Rings<'_>,
        tail: impl Fn() -> u64,
        step: u64,
        is_reached: impl Fn(u64) -> bool,
    ) -> Result<Live, Corrupt> {
        // Acquire: pairs with the release in `Opener::open`; the records come before, and the tail at which the ring begins.
        let newest = rings.words.line.newest.load(Ordering::Acquire);
        let tail = tail();
        // Acquire: pairs with the release in `Crosser::give_back`; the memory of the rings before is given back.
        let passed = rings.words.passed.load(Ordering::Acquire);
        if newest > MOST || passed > newest {
            return Err(wrong("passed", passed, newest.min(MOST)));
        }
        if newest - passed >= MOST_RINGS as u64 {
            return Err(wrong("rings", newest, passed + MOST_RINGS as u64 - 1));
        }
        let mut live = Live {
            ring: passed,
            passed,
            classes: [0; MOST_RINGS],
        };
        let mut begun = 0;
        for ring in passed..=newest {
            // Relaxed, both: `rings` brought them.
            let from = rings.record(ring).from.load(Ordering::Relaxed);
            let class = rings.record(ring).class.load(Ordering::Relaxed);
            if from < begun || from > tail || !from.is_multiple_of(step) {
                return Err(wrong("from", from, tail));
            }
            match is_reached(from) {
                true => live.enter(rings, ring, class)?,
                false if ring > passed => break,
                false => return Err(wrong("passed", passed, newest)),
            }
            begun = from;
        }
        Ok(live)
    }

    /// Returns `true` if a live ring is of this class.
    fn uses(&self, class: u64) -> bool {
        (self.passed..=self.ring).any(|ring| self.classes[place(ring)] == class)
    }

    /// Goes on to ring `ring`, which is of this class.
    fn enter(&mut self, rings: &Rings<'_>, ring: u64, class: u64) -> Result<(), Corrupt> {
        let classes = rings.classes.geometry().classes();
        let again = ring > self.passed && self.uses(class);
        if class >= classes || again {
            return Err(wrong("class", class, classes - 1));
        }
        self.ring = ring;
        self.classes[place(ring)] = class;
        Ok(())
    }

    /// Returns the class of the end's own ring.
    fn class(&self) -> u64 {
        self.classes[place(self.ring)]
    }
}

/// A producer's part: it opens rings.
pub(crate) struct Opener<'m> {
    rings: &'m Rings<'m>,
    live: Live,
}

impl<'m> Opener<'m> {
    /// Goes on in the newest ring, and gives back the memory that no ring uses. `tail` is the producer's position, a multiple of
    /// `step`.
    pub(crate) fn resume(rings: &'m Rings<'m>, tail: u64, step: u64) -> Result<Self, Error> {
        let live = Live::resume(rings, || tail, step, |_| true)?;
        let opener = Opener { rings, live };
        for class in 0..rings.classes.geometry().classes() {
            if !opener.live.uses(class)
                && let Some(backing) = rings.backing
            {
                let area = rings.classes.area(class);
                backing.give_back(area.start, area.end - area.start);
            }
        }
        rings.touch(opener.live.class());
        Ok(opener)
    }

    /// Returns the capacity of the newest ring.
    pub(crate) fn capacity(&self) -> u64 {
        self.rings.classes.capacity(self.live.class())
    }

    /// Returns the first capacity, which is the smallest.
    pub(crate) fn min_capacity(&self) -> u64 {
        self.rings.classes.capacity(0)
    }

    /// Returns the largest capacity.
    pub(crate) fn max_capacity(&self) -> u64 {
        self.rings.classes.geometry().largest_capacity()
    }

    /// Gives `memory` the area of the newest ring.
    pub(crate) fn enter(&self, memory: &mut impl RingMemory<'m>) {
        memory.move_to(&self.rings.classes, self.live.class());
    }

    /// Returns a capacity to grow to: twice the newest ring's, or more if so many rings are live that twice each time would not
    /// lead to the largest capacity. `None` if there is no larger one, or no further ring.
    pub(crate) fn larger(&mut self) -> Result<Option<u64>, Corrupt> {
        self.see_passed()?;
        let left = MOST_RINGS as u64 - 1 - (self.live.ring - self.live.passed);
        let classes = self.rings.classes.geometry().classes() - 1 - self.live.class();
        if left == 0 || classes == 0 {
            return Ok(None);
        }
        let class = self.live.class() + classes.div_ceil(left);
        Ok(Some(self.rings.classes.capacity(class)))
    }

    /// Opens a ring of `capacity` at `at`, the producer's position; returns `false` if the newest one has that capacity.
    pub(crate) fn open(&mut self, capacity: u64, at: u64) -> Result<bool, ResizeError> {
        let class = self.rings.classes.geometry().class_for(capacity)?;
        if class == self.live.class() {
            return Ok(false);
        }
        self.see_passed()?;
        let next = self.live.ring + 1;
        if next - self.live.passed >= MOST_RINGS as u64 || self.live.uses(class) {
            return Err(ResizeError::Busy);
        }
        self.rings.back(class)?;
        // Relaxed, both: the store of `rings` publishes them.
        self.rings.record(next).from.store(at, Ordering::Relaxed);
        self.rings
            .record(next)
            .class
            .store(class, Ordering::Relaxed);
        // Release: pairs with the acquire in `Crosser::cross`; the record comes before it, and the memory.
        self.rings.words.line.newest.store(next, Ordering::Release);
        self.live.ring = next;
        self.live.classes[place(next)] = class;
        Ok(true)
    }

    /// Learns which rings the consumer has passed.
    fn see_passed(&mut self) -> Result<(), Corrupt> {
        // Acquire: pairs with the release in `Crosser::give_back`. The consumer's reads there, and the return of the memory, come
        // before our writes.
        let passed = self.rings.words.passed.load(Ordering::Acquire);
        if !(self.live.passed..=self.live.ring).contains(&passed) {
            return Err(wrong("passed", passed, self.live.ring));
        }
        self.live.passed = passed;
        Ok(())
    }
}

/// The result of one step of giving memory back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivesBack {
    /// There was nothing.
    Nothing,
    /// A part of a ring's memory.
    Part,
    /// The rest of it: its area can be used again.
    Ring,
}

/// A consumer's part: it crosses from ring to ring, and gives their memory back.
pub(crate) struct Crosser<'m> {
    rings: &'m Rings<'m>,
    live: Live,
    /// The bytes of the oldest live ring's area that are given back.
    given: u64,
}

impl<'m> Crosser<'m> {
    /// Goes on in the ring of `head`, the consumer's position. `tail` is the producer's. Both are multiples of `step`.
    pub(crate) fn resume(
        rings: &'m Rings<'m>,
        head: u64,
        tail: &AtomicU64,
        step: u64,
    ) -> Result<Self, Error> {
        // Relaxed: a ring's record is younger than the tail at which it begins.
        let tail = || tail.load(Ordering::Relaxed);
        let live = Live::resume(rings, tail, step, |from| from <= head)?;
        rings.touch(live.class());
        Ok(Crosser {
            rings,
            live,
            given: 0,
        })
    }

    /// Returns the capacity of the consumer's own ring.
    pub(crate) fn capacity(&self) -> u64 {
        self.rings.classes.capacity(self.live.class())
    }

    /// Returns the capacity of the newest ring.
    pub(crate) fn newest_capacity(&self) -> u64 {
        self.rings.newest_capacity()
    }

    /// Gives `memory` the area of the consumer's own ring.
    pub(crate) fn enter(&self, memory: &mut impl RingMemory<'m>) {
        memory.move_to(&self.rings.classes, self.live.class());
    }

    /// Returns `true` if no newer ring is known, and no memory has to be given back.
    ///
    /// Call it after the load of a tail: the messages up to there are all in the consumer's ring then.
    #[inline]
    pub(crate) fn settled(&self) -> bool {
        // Relaxed: whoever acquired a tail beyond a ring's start sees that ring here. `cross` loads it again, with an acquire.
        self.live.passed == self.live.ring
            && self.rings.words.line.newest.load(Ordering::Relaxed) == self.live.ring
    }

    /// Returns the end of what the consumer may read, which stands at `at`: `tail`, or the end of its ring. Crosses first
    /// into the next ring if it is at the end of its own.
    ///
    /// `tail` was acquired before. `again` acquires it anew.
    pub(crate) fn cross(
        &mut self,
        at: u64,
        tail: u64,
        again: impl Fn() -> Result<u64, Corrupt>,
    ) -> Result<u64, Corrupt> {
        loop {
            // Acquire: pairs with the release in `Opener::open`; the record comes before, and the memory.
            let newest = self.rings.words.line.newest.load(Ordering::Acquire);
            let Live { ring, passed, .. } = self.live;
            if newest == ring {
                return Ok(tail);
            }
            if newest < ring || newest - passed >= MOST_RINGS as u64 {
                return Err(wrong("rings", newest, passed + MOST_RINGS as u64 - 1));
            }
            // Relaxed, both: `rings` brought them.
            let next = self.rings.record(ring + 1);
            let from = next.from.load(Ordering::Relaxed);
            // The ring may be younger than that tail.
            if from < at || from > tail && from > again()? {
                return Err(wrong("from", from, tail));
            }
            if from > at {
                return Ok(from);
            }
            let class = next.class.load(Ordering::Relaxed);
            self.live.enter(self.rings, ring + 1, class)?;
        }
    }

    /// Returns the number of the newest ring as it is now. A hint.
    pub(crate) fn newest(&self) -> u64 {
        self.rings.words.line.newest.load(Ordering::Relaxed)
    }

    /// Returns `true` if all rings before this one are given back.
    pub(crate) fn has_passed(&self, ring: u64) -> bool {
        self.live.passed >= ring
    }

    /// Gives back some of the memory of rings that are read to their end.
    pub(crate) fn give_back(&mut self) -> GivesBack {
        let Live { ring, passed, .. } = self.live;
        if passed == ring {
            return GivesBack::Nothing;
        }
        let geometry = self.rings.classes.geometry();
        let grain = geometry.growth.map_or(1, |growth| growth.grain);
        let area = self.rings.classes.area(self.live.classes[place(passed)]);
        let len = area.end - area.start;
        if let Some(backing) = self.rings.backing {
            let step = (len - self.given).min(STEP.max(grain));
            backing.give_back(area.start + self.given, step);
            self.given += step;
            if self.given < len {
                return GivesBack::Part;
            }
        }
        self.given = 0;
        self.live.passed += 1;
        // Release: pairs with the acquire in `Opener::see_passed`. Our reads there come before, and the return of the memory.
        self.rings
            .words
            .passed
            .store(self.live.passed, Ordering::Release);
        GivesBack::Ring
    }
}

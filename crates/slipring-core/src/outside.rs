//! Reads a channel's words from outside, for a wait set, `stat` and tools. An outside reader holds
//! no seat and asks no handle.
//!
//! Every protocol file exports one [`Outside`]; [`proto::outside`](crate::proto::outside) finds it
//! by the kind. Every figure read here is a hint. An impossible figure counts as *there is
//! something*: the handle's next call then returns `Corrupt`.

use crate::geometry::Geometry;
use crate::layout::{Claims, Entries, MOST_RINGS, RingWords, Role, SeatWords};
use crate::sync::{AtomicU64, Ordering};

/// The words of a channel, for an outside reader.
#[derive(Clone, Copy)]
pub struct View<'v> {
    /// The channel's shape, checked.
    pub geometry: &'v Geometry,
    /// The words of all its seats, producers first.
    pub seats: &'v [SeatWords<'v>],
    /// The consumers that the producer waits for: a bit for each seat.
    pub gating_set: &'v AtomicU64,
    /// The position before which the producer may write.
    pub write_limit: &'v AtomicU64,
    /// The claims of an `mpmc` channel.
    pub claims: Option<Claims<'v>>,
    /// The entries of a topic.
    pub entries: Option<Entries<'v>>,
    /// The rings of a channel that can grow.
    pub rings: Option<RingWords<'v>>,
}

impl<'v> View<'v> {
    /// Returns the words of a role's seats.
    pub fn side(&self, role: Role) -> &'v [SeatWords<'v>] {
        self.seats.get(self.geometry.seats_of(role)).unwrap_or(&[])
    }

    /// Returns the capacity: that of the newest ring, if the channel can grow.
    pub fn capacity(&self) -> u64 {
        let class = self.rings.map(|rings| rings.newest_class());
        let newest = class.and_then(|class| self.geometry.capacity_of(class));
        newest.unwrap_or(self.geometry.capacity)
    }

    /// Returns the most that can be unread at a time, in all rings together.
    pub(crate) fn longest(&self) -> u64 {
        self.geometry.most_unread()
    }

    /// Returns `true` if the consumer has memory to give back.
    pub(crate) fn has_old_rings(&self) -> bool {
        // Relaxed, both: hints.
        self.rings.is_some_and(|rings| {
            let passed = rings.passed.load(Ordering::Relaxed);
            let newest = rings.line.newest.load(Ordering::Relaxed);
            // Anything else is impossible, and nobody gives it back.
            (1..MOST_RINGS as u64).contains(&newest.wrapping_sub(passed))
        })
    }

    /// Returns the words of seat `seat`, counted with producers first.
    pub(crate) fn seat(&self, seat: usize) -> Option<&'v SeatWords<'v>> {
        self.seats.get(seat)
    }

    /// Returns the position of a role's first seat. Acquire: pairs with the release that published
    /// it.
    pub(crate) fn first_position(&self, role: Role) -> u64 {
        let first = self.side(role).first();
        first.map_or(0, |words| words.position.load(Ordering::Acquire))
    }
}

/// The questions that an outside reader may ask of a kind. Each protocol file exports one.
pub struct Outside {
    /// Returns `true` if the consumer in this seat finds a message, or something impossible, or has memory to give back.
    ///
    /// Seats are counted with producers first.
    pub has_message: fn(&View<'_>, usize) -> bool,
    /// Returns `true` if the producer in this seat finds room for that many units, or something impossible.
    pub has_room: fn(&View<'_>, usize, u64) -> bool,
    /// Returns the amount that is committed and not yet released, in units; at most the capacity, unless that shrank.
    ///
    /// The slowest consumer that a producer waits for decides. On an overwriting channel it is the
    /// amount that is there.
    pub used: fn(&View<'_>) -> u64,
    /// Returns `true` if a producer waits for the consumer in this seat, or would with a full ring.
    pub waited_for: fn(&View<'_>, usize) -> bool,
    /// Returns the number of messages that the holders of this seat committed or released.
    pub messages: fn(&View<'_>, usize) -> u64,
    /// Returns a figure that changes when the other side of this role commits or releases.
    pub progress: fn(&View<'_>, Role) -> u64,
}

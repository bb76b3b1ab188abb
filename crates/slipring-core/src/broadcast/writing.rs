//! The producer of a `broadcast` channel. See the head of `broadcast.rs`.

use core::fmt;

use super::{Look, Ring, Store, first, slowest, stretch};
use crate::error::Error;
use crate::layout::Side;
use crate::lease::Lease;
use crate::slip::Slip;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::wait::Ringer;

/// The writing end.
pub struct Producer<'m, T> {
    tail: &'m AtomicU64,
    gate: &'m AtomicU64,
    members: &'m AtomicU64,
    consumers: Side<'m>,
    store: Store<'m, T>,
    bell: Ringer<'m>,
    /// Ours alone; `tail` is its published copy.
    at: u64,
    /// The highest gate that was ever published, by all producers.
    published: u64,
    /// `at` may go up to here unasked.
    limit: &'m Lease,
    slip: Slip,
    /// Who held us back when we last looked, and where it stood.
    held_by: Option<(usize, u64)>,
}

impl<T> fmt::Debug for Producer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("position", &self.at)
            .finish_non_exhaustive()
    }
}

impl<'m, T: Copy> Producer<'m, T> {
    /// Takes the writing end, going on behind the last committed message.
    ///
    /// # Safety
    /// `ring` is the one that the other ends have, too; nothing but the ends writes its words or its
    /// payloads; no other producer of it exists until this one is gone; a `T` has no padding and no
    /// pointers, and every bit pattern is one.
    pub unsafe fn new(ring: Ring<'m, T>, lease: &'m mut Lease) -> Result<Self, Error> {
        let Ring {
            tail,
            gate,
            members,
            consumers,
            store,
            bell,
            ..
        } = ring;
        // Behind all that the last producer did.
        let at = first(tail, gate)?;
        // Nothing is known of the members; and a gate without a second look at them is none. But what lies
        // before it the last producer may have written. (Relaxed: what it did, the seat has brought.)
        let published = gate.load(Ordering::Relaxed).min(at + store.capacity());
        lease.set(at);
        Ok(Producer {
            tail,
            gate,
            members,
            consumers,
            store,
            bell,
            at,
            published,
            limit: lease,
            slip: Slip::default(),
            held_by: None,
        })
    }

    /// How much is known to be free, without a look at the members.
    #[inline]
    fn known(&self) -> u64 {
        self.limit.get().saturating_sub(self.at)
    }

    /// Makes sure that `count` slots may be written: `Full`, `TooLarge`.
    #[inline]
    pub fn ensure(&mut self, count: usize) -> Result<(), Error> {
        match self.poll(count) {
            Look::Enough => Ok(()),
            Look::Nothing => Err(Error::Full),
            Look::Trouble => Err(self.trouble(count)),
        }
    }

    /// Says whether there is room for `count`, as [`ensure`](Self::ensure), and gives up nothing for it.
    pub fn room(&mut self, count: usize) -> Result<(), Error> {
        match self.store {
            Store::Racing(_) if self.limit.alive() && count <= self.capacity() => Ok(()),
            Store::Racing(_) => Err(self.trouble(count)),
            Store::Plain(_) => self.ensure(count),
        }
    }

    /// As [`ensure`](Self::ensure), in one word.
    #[inline]
    pub fn poll(&mut self, count: usize) -> Look {
        if self.known() >= count as u64 {
            Look::Enough
        } else {
            self.look(count as u64)
        }
    }

    /// The rare question: how far are the members?
    #[cold]
    #[inline(never)]
    fn look(&mut self, wanted: u64) -> Look {
        if !self.limit.alive() || wanted > self.store.capacity() {
            return Look::Trouble;
        }
        if let Store::Racing(_) = self.store {
            self.raise(wanted);
            return Look::Enough;
        }
        self.slip.pause();
        if self.still_held() {
            self.slip.found(0, 1, self.store.capacity());
            return Look::Nothing;
        }
        let before = self.known();
        self.raise(wanted);
        // Less than before, if somebody joined further behind.
        let gained = self.known().saturating_sub(before);
        self.slip.found(gained, 1, self.store.capacity());
        if self.known() >= wanted {
            Look::Enough
        } else {
            Look::Nothing
        }
    }

    /// What a look could not say in one word.
    #[cold]
    #[inline(never)]
    pub fn trouble(&self, wanted: usize) -> Error {
        if !self.limit.alive() {
            return Error::Forked;
        }
        Error::TooLarge {
            asked: wanted as u64,
            max: self.store.capacity(),
        }
    }

    /// Whether the member that held us back last time still does: then the others need not be asked, nor
    /// their lines taken out of their hands.
    fn still_held(&self) -> bool {
        let Some((seat, position)) = self.held_by else {
            return false;
        };
        // Relaxed, both: a hint; what it leads to is nothing, or a look at all.
        let words = self.consumers.seats().get(seat);
        self.members.load(Ordering::Relaxed) & 1 << seat != 0
            && words.is_some_and(|words| words.position.load(Ordering::Relaxed) == position)
    }

    /// Raises the gate as far as the slowest member lets it.
    fn raise(&mut self, wanted: u64) {
        let capacity = self.store.capacity();
        let slowest = self.slowest();
        self.held_by = None;
        let gate = match slowest {
            Some((_, slowest)) => slowest.saturating_add(capacity),
            None => self.at + wanted.max(stretch(capacity)),
        };
        if gate <= self.limit.get().max(self.at) {
            self.held_by = slowest;
            return;
        }
        self.published = self.published.max(gate);
        // Release: pairs with the acquire in `oldest`; our tail comes before.
        self.gate.store(self.published, Ordering::Release);
        // SeqCst: pairs with the fence in `Seat::stand`; see *the gate*. For who copies what may be
        // overwritten, a release fence: see *overwriting*. For who has left before the first look, an acquire
        // fence, which pairs with the release in `leave`.
        fence(Ordering::SeqCst);
        // Who leaves only now was a member at the first look, and the gate is no further than it let us.
        let again = self.slowest();
        let again = again.map_or(gate, |(_, slowest)| slowest.saturating_add(capacity));
        self.limit.set(gate.min(again).max(self.at));
    }

    /// Which member is the slowest, and where it stands; at most where we do, since one that skips may be
    /// ahead. Nobody where messages are overwritten.
    fn slowest(&self) -> Option<(usize, u64)> {
        let (seat, position) = match self.store {
            Store::Plain(_) => slowest(self.members, self.consumers)?,
            Store::Racing(_) => return None,
        };
        Some((seat, position.min(self.at)))
    }

    /// *Commit*: everything up to the new tail is there for all.
    #[inline]
    fn commit(&mut self, count: u64) {
        self.at += count;
        // Release: pairs with the acquire in `committed`; what was written comes before it.
        self.tail.store(self.at, Ordering::Release);
        self.bell.ring();
    }

    /// Appends `value`, or gives it back: `Full` (never where messages are overwritten), `Forked`.
    #[inline]
    pub fn try_push(&mut self, value: T) -> Result<(), crate::PushError<T>> {
        if let Err(error) = self.ensure(1) {
            return Err(crate::PushError { value, error });
        }
        // SAFETY: `ensure` has just said so.
        unsafe { self.push_ensured(value) };
        Ok(())
    }

    /// Appends `value` where [`ensure`](Self::ensure) found room.
    ///
    /// # Safety
    /// `ensure(1)`, or of more, succeeded, or `poll` said `Enough`; nothing was appended since, and
    /// this process has not forked into another.
    #[inline(always)]
    pub unsafe fn push_ensured(&mut self, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.write(0, &value) };
        self.commit(1);
    }

    /// Writes the slot `ahead` of the tail.
    ///
    /// # Safety
    /// As for `push_ensured`, of more than `ahead` slots.
    #[inline(always)]
    unsafe fn write(&mut self, ahead: u64, value: &T) {
        // SAFETY: before the gate, and only we write; where nobody overwrites, every member has released the slot.
        unsafe { self.store.write(self.at + ahead, value) };
    }

    /// Appends as many of `values` as there is room for, and says how many those were: at least one, or an
    /// error (none if `values` is empty).
    #[inline]
    pub fn try_push_slice(&mut self, values: &[T]) -> Result<usize, Error> {
        let Some(count) = self.best_effort(values.len())? else {
            return Ok(0);
        };
        match &self.store {
            Store::Plain(slots) => {
                // SAFETY: `best_effort` saw that many slots before the gate, and only we write.
                let (front, back) = unsafe { slots.slices_mut(self.at, count) };
                let (first, rest) = values[..count].split_at(front.len());
                front.copy_from_slice(first);
                back.copy_from_slice(rest);
            }
            Store::Racing(_) => {
                for (ahead, value) in values[..count].iter().enumerate() {
                    // SAFETY: `best_effort` saw that many slots.
                    unsafe { self.write(ahead as u64, value) };
                }
            }
        }
        self.commit(count as u64);
        Ok(count)
    }

    /// Appends as many of the iterator's values as there is room for, published as one, and says how many. Takes
    /// no value that it cannot place.
    #[inline]
    pub fn try_push_iter<I: Iterator<Item = T>>(&mut self, values: &mut I) -> Result<usize, Error> {
        let room = match self.store {
            Store::Racing(_) if !self.limit.alive() => return Err(Error::Forked),
            // No more is given up than is written.
            Store::Racing(_) => self.capacity(),
            Store::Plain(_) => self.best_effort(usize::MAX)?.unwrap_or(0),
        };
        let mut count = 0;
        for value in values.take(room) {
            // An iterator is anybody's code: it may have forked.
            if !self.limit.alive() {
                return Err(Error::Forked);
            }
            if count >= self.known() {
                let on = count + stretch(self.store.capacity());
                self.raise(on.min(self.store.capacity()));
            }
            // SAFETY: `count` is below what is known to be free.
            unsafe { self.write(count, &value) };
            count += 1;
        }
        if !self.limit.alive() {
            return Err(Error::Forked);
        }
        if count > 0 {
            self.commit(count);
        }
        Ok(count as usize)
    }

    /// How many slots, up to `wanted`, can be had: at least one, or an error; none if none wanted.
    #[inline]
    fn best_effort(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        if wanted == 0 {
            return Ok(None);
        }
        let wanted = wanted.min(self.capacity());
        match self.ensure(wanted) {
            Err(error) if self.known() == 0 => Err(error),
            _ => Ok(Some(wanted.min(self.known() as usize))),
        }
    }

    /// Reserves `count` slots, all or nothing. Where messages are overwritten, what lies there is given up at
    /// once, unless it was before; with at least a stretch.
    #[inline]
    pub fn try_reserve(&mut self, count: usize) -> Result<Reservation<'_, 'm, T>, Error> {
        self.ensure(count)?;
        Ok(Reservation {
            producer: self,
            count,
        })
    }

    /// How many messages the ring holds.
    pub fn capacity(&self) -> usize {
        self.store.capacity() as usize
    }

    /// The number of messages ever committed here, by all producers.
    pub fn position(&self) -> u64 {
        self.at
    }
}

/// Slots reserved by a producer. Dropped without a commit it publishes nothing; nor does a kill while it is
/// held: the successor writes the same slots.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct Reservation<'p, 'm, T> {
    producer: &'p mut Producer<'m, T>,
    count: usize,
}

impl<T> fmt::Debug for Reservation<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.count)
            .field("position", &self.producer.at)
            .finish_non_exhaustive()
    }
}

impl<T: Copy> Reservation<'_, '_, T> {
    /// How many slots are reserved.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no slot is reserved.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Stores `value` in the reserved slot `index`. Not in a forked child: the slot is the parent's.
    ///
    /// # Panics
    /// If `index` is not below `len`, as for a slice.
    #[inline]
    pub fn write(&mut self, index: usize, value: T) {
        assert!(
            index < self.count,
            "slot {index} of a reservation of {}",
            self.count
        );
        // SAFETY: the slot is reserved.
        unsafe { self.producer.write(index as u64, &value) };
    }

    /// The reserved slots in place, in order: up to the ring's end, and from its start. They hold what some
    /// earlier message left there. Nothing where messages are overwritten: somebody may be reading them.
    #[inline]
    pub fn as_mut_slices(&mut self) -> Option<(&mut [T], &mut [T])> {
        match &self.producer.store {
            // SAFETY: before the gate, only we write, and `&mut self` borrows them once.
            Store::Plain(slots) => Some(unsafe { slots.slices_mut(self.producer.at, self.count) }),
            Store::Racing(_) => None,
        }
    }

    /// Publishes the first `count` slots and gives up the rest.
    ///
    /// # Panics
    /// If `count` is more than `len`, as for a slice.
    #[inline]
    pub fn commit(self, count: usize) {
        assert!(
            count <= self.count,
            "commit of {count} slots of a reservation of {}",
            self.count
        );
        if count == 0 || !self.producer.limit.alive() {
            return;
        }
        self.producer.commit(count as u64);
    }

    /// Gives all slots up: the same as dropping the reservation.
    #[inline]
    pub fn discard(self) {}
}

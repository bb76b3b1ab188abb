//! Defines the guards: one for space that a producer reserved, one for messages that a consumer
//! reads in place. Every kind uses the same two.
//!
//! A guard borrows its end, so there is one at a time. Where an end has rivals (`mpmc`), the claim has changed the words
//! of its slots. Elsewhere no shared word changes before the guard is committed or released.

use core::fmt;
use core::iter::FusedIterator;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::slice;

use crate::end::{Endpoint, Pop, Push};
use crate::error::Error;

/// A producer that writes in place.
pub trait Reserve: Endpoint {
    /// Claims `amount` slots, or a record of up to `amount` bytes: all or nothing.
    #[inline]
    fn claim(&mut self, amount: usize) -> Result<(), Error> {
        self.ensure(amount)
    }

    /// Makes later calls fail with `Disconnected` once the last consumer has left (`true`), or only
    /// when the ring is full (`false`).
    fn fail_alone(&mut self, on: bool);

    /// Returns the part of the ring that `amount` takes, in the unit of the capacity.
    ///
    /// Fails with `TooLarge` if the ring can never hold that much.
    fn room_for(&self, amount: usize) -> Result<u64, Error> {
        let (asked, max) = (amount as u64, self.capacity() as u64);
        if asked > max {
            return Err(Error::TooLarge { asked, max });
        }
        Ok(asked)
    }

    /// Publishes the first `amount` of the claimed space and gives up the rest. Does nothing in a
    /// forked child.
    ///
    /// # Safety
    /// A claim of at least `amount` succeeded, and nothing was committed since.
    unsafe fn commit_claimed(&mut self, amount: usize);

    /// Gives up the claimed space. Does nothing in a forked child, nor where a claim changes no shared word.
    ///
    /// # Safety
    /// A claim succeeded, and nothing was committed since.
    #[inline]
    unsafe fn discard_claimed(&mut self) {}

    /// Reserves `amount` slots, or a record of up to `amount` bytes, to be written in place.
    #[inline]
    fn try_reserve(&mut self, amount: usize) -> Result<Reservation<'_, Self>, Error>
    where
        Self: Sized,
    {
        self.claim(amount)?;
        // SAFETY: the line above.
        Ok(unsafe { Reservation::of_claimed(self, amount) })
    }
}

/// A consumer that reads slots in place. Its messages do not change before it releases them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot read messages in place",
    note = "an overwriting producer may overwrite a message while it is read: copy it, by `try_pop` or `try_pop_slice`"
)]
pub trait Hold: Pop {
    /// Holds up to `max` messages in place and returns their number.
    ///
    /// Returns at least one, or an error; 0 only if `max` is 0.
    fn hold(&mut self, max: usize) -> Result<usize, Error>;

    /// Returns the held message `index` in place.
    ///
    /// # Safety
    /// [`hold`](Self::hold) returned more than `index`, and nothing was released since. The caller
    /// does not use the reference after the release.
    unsafe fn held<'a>(&self, index: usize) -> &'a Self::Value;

    /// Returns the first `count` held messages as two runs: up to the ring's end, and from its
    /// start.
    ///
    /// Returns `None` if the messages do not lie next to each other.
    ///
    /// # Safety
    /// As for [`held`](Self::held), for `count` messages.
    unsafe fn held_slices<'a>(&self, count: usize) -> Option<Runs<'a, Self::Value>>;

    /// Releases the first `count` held messages. Does nothing in a forked child.
    ///
    /// # Safety
    /// `hold` returned at least `count`, nothing was released since, and no reference to those messages is used any more.
    unsafe fn release_held(&mut self, count: usize);

    /// Leaves the held messages to be read again. Does nothing in a forked child, nor where holding changes no shared
    /// word.
    ///
    /// # Safety
    /// As for [`release_held`](Self::release_held), for all that is held.
    #[inline]
    unsafe fn keep_held(&mut self) {}

    /// Prepares [`drop_releases`](Self::drop_releases), when a guard is made: not at each `hold`,
    /// which may find nothing.
    fn begin_guard(&mut self);

    /// Returns `true` if a guard that goes out of scope releases its messages.
    ///
    /// It does not if its thread began to panic since the guard was made.
    fn drop_releases(&self) -> bool;

    /// Reads up to `max` messages in place: at least one, or an error.
    #[inline]
    fn try_read_batch(&mut self, max: usize) -> Result<Messages<'_, Self>, Error>
    where
        Self: Sized,
    {
        let count = self.hold(max)?;
        // SAFETY: the line above.
        Ok(unsafe { Messages::of_held(self, count) })
    }

    /// Reads the oldest message in place.
    #[inline]
    fn try_read(&mut self) -> Result<Message<'_, Self>, Error>
    where
        Self: Sized,
    {
        self.hold(1)?;
        // SAFETY: the line above; it fails if there is none.
        Ok(unsafe { Message::of_held(self) })
    }
}

/// Remembers if the thread was panicking when the last guard was made. There is one guard at a time.
///
/// The consumer keeps the mark, so that a guard fits two registers.
#[derive(Default)]
pub(crate) struct PanicMark(bool);

impl PanicMark {
    /// Records if the thread is panicking, when a guard is made.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.0 = panicking();
    }

    /// Returns `false` if the thread began to panic since `begin`.
    ///
    /// The code that was to read the messages may have read some of them, and no one knows which. So all stay to be
    /// read again, as after a kill.
    ///
    /// A guard made during a panic belongs to a destructor, which drops it when it is done with it. There, too, a loop
    /// that reads until the ring is empty must end. So a second panic, caught within that destructor, releases; `std`'s
    /// mutex does not see such a panic either.
    #[inline]
    pub(crate) fn drop_releases(&self) -> bool {
        !panicking() || self.0
    }
}

/// Returns `true` if this thread is unwinding. Costs a load of a word that is written only by panics.
#[inline]
fn panicking() -> bool {
    #[cfg(feature = "std")]
    return std::thread::panicking();
    #[cfg(not(feature = "std"))]
    return false;
}

/// Messages in order, as two runs: up to the ring's end, and from its start.
pub type Runs<'a, T> = (&'a [T], &'a [T]);

/// Space that a producer has reserved: slots, or a record.
///
/// Dropping the reservation discards it. So does a kill: the successor writes in the same place, or in an `mpmc` channel
/// whoever repairs the seat gives the space up.
#[must_use = "dropping a reservation discards it; commit() publishes"]
pub struct Reservation<'p, P: Reserve> {
    pub(crate) producer: &'p mut P,
    pub(crate) amount: usize,
}

impl<P: Reserve> fmt::Debug for Reservation<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.amount)
            .field("position", &self.producer.position())
            .finish_non_exhaustive()
    }
}

impl<'p, P: Reserve> Reservation<'p, P> {
    /// Makes the guard of the space that `claim(amount)` has just claimed.
    ///
    /// # Safety
    /// A claim of `amount` succeeded just now.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn of_claimed(producer: &'p mut P, amount: usize) -> Self {
        Reservation { producer, amount }
    }

    /// Publishes the first `amount` slots, or bytes of the record, at once, and gives up the rest.
    ///
    /// Does nothing in a forked child.
    ///
    /// # Panics
    /// If `amount` is more than was reserved, as for a slice.
    #[inline]
    pub fn commit(self, amount: usize) {
        assert!(
            amount <= self.amount,
            "commit of {amount} of a reservation of {}",
            self.amount
        );
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: at most what was claimed, and this consumes the guard.
        unsafe { guard.producer.commit_claimed(amount) };
    }

    /// Gives up the whole reservation, as dropping it does.
    #[inline]
    pub fn discard(self) {}
}

impl<P: Reserve> Drop for Reservation<'_, P> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard was not committed, and this consumes it.
        unsafe { self.producer.discard_claimed() };
    }
}

impl<P: Push + Reserve> Reservation<'_, P> {
    /// Returns how many slots are reserved.
    #[inline]
    pub fn len(&self) -> usize {
        self.amount
    }

    /// Returns `true` if no slot is reserved.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.amount == 0
    }

    /// Stores `value` in the reserved slot `index`. A forked child must not call this: the slot
    /// belongs to the parent.
    ///
    /// # Panics
    /// If `index` is not below `len`, as for a slice.
    #[inline]
    pub fn write(&mut self, index: usize, value: P::Value) {
        assert!(
            index < self.amount,
            "slot {index} of a reservation of {}",
            self.amount
        );
        // SAFETY: `index` is below the claimed number, and a commit consumes the guard.
        unsafe { self.producer.write(index, value) };
    }
}

/// Messages read in place.
///
/// Dropping the guard releases all of them, [`release`](Self::release) the first few, and
/// [`keep`](Self::keep) none. What is not released is read again: in an `mpmc` channel, by any consumer.
///
/// With the feature `std`, a drop by a panic that began after the read releases none: the next read
/// sees the messages again. A kill releases none either, and the successor reads them. A
/// `broadcast` consumer has no successor.
///
/// `Result`'s `?` drops the guard just as the end of a loop does, and the guard cannot tell the two
/// apart. A loop that may leave early must release the messages that it has handled by number. The
/// rest stays to be read again:
///
/// ```
/// # mod slipring {
/// #     pub mod spsc {
/// #         use slipring_core::{guard, proto::spsc::Consumer};
/// #         pub type Messages<'c, T> = guard::Messages<'c, Consumer<'c, T>>;
/// #     }
/// # }
/// use slipring::spsc::Messages;
///
/// fn handle_all(batch: Messages<'_, u64>) -> Result<(), std::num::TryFromIntError> {
///     let handled = batch.iter().try_fold(0, |done, value| {
///         u32::try_from(*value).map(|_| done + 1).map_err(|error| (done, error))
///     });
///     match handled {
///         Ok(_) => Ok(()), // dropped: all are released
///         Err((done, error)) => {
///             batch.release(done); // the one that failed is read again, and those behind it
///             Err(error)
///         }
///     }
/// }
/// # let _ = handle_all;
/// ```
pub struct Messages<'c, C: Hold> {
    pub(crate) consumer: &'c mut C,
    pub(crate) count: usize,
}

impl<C: Hold> fmt::Debug for Messages<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("len", &self.count)
            .field("position", &self.consumer.position())
            .finish_non_exhaustive()
    }
}

impl<'c, C: Hold> Messages<'c, C> {
    /// Makes the guard of the `count` messages that `hold` has just found.
    ///
    /// # Safety
    /// `hold` returned `count` just now.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn of_held(consumer: &'c mut C, count: usize) -> Self {
        consumer.begin_guard();
        Messages { consumer, count }
    }

    /// Returns the number of messages.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns `true` if there are no messages, which only a read of at most 0 leads to.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the messages in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_, C> {
        // SAFETY: so many are held; the borrow of the guard ends before it releases.
        let (first, then, single) = match unsafe { self.consumer.held_slices(self.count) } {
            Some((front, back)) => (front, back, self.count),
            None => (&[][..], &[][..], 0),
        };
        Iter {
            run: first.iter(),
            then: then.iter(),
            consumer: &*self.consumer,
            single,
            count: self.count,
        }
    }

    /// Releases the first `count` messages and leaves the rest to be read again; also while
    /// panicking.
    ///
    /// # Panics
    /// If `count` is more than `len`, as for a slice; then nothing is released.
    #[inline]
    pub fn release(self, count: usize) {
        // First, so that the assertion's panic does not drop the guard. Without `std` the drop
        // cannot tell that it unwinds, and would release all.
        let mut guard = ManuallyDrop::new(self);
        assert!(
            count <= guard.count,
            "release of {count} messages of {}",
            guard.count
        );
        // SAFETY: at most what is held, and this consumes the guard, which every reference borrows.
        unsafe { guard.consumer.release_held(count) };
    }

    /// Releases nothing: the next read sees all of the messages again.
    #[inline]
    pub fn keep(self) {
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: this consumes the guard, which every reference borrows.
        unsafe { guard.consumer.keep_held() };
    }
}

/// Messages read in place, in order: see [`Messages::iter`].
// Plain version: one at a time, by its index. Runs of neighbours need no mask each. Each step tries
// the runs in order, so a loop moves one word a message: 0.33 ns. It moved three, and took 0.44 ns,
// when a rare step put the second run in place of the first.
pub struct Iter<'g, C: Hold> {
    /// The first run.
    run: slice::Iter<'g, C::Value>,
    /// The run behind it.
    then: slice::Iter<'g, C::Value>,
    consumer: &'g C,
    /// The index of the next message that lies in no run.
    single: usize,
    count: usize,
}

impl<'g, C: Hold> Iter<'g, C> {
    /// Returns the next message that lies in no run.
    #[cold]
    fn next_single(&mut self) -> Option<&'g C::Value> {
        if self.single == self.count {
            return None;
        }
        // SAFETY: below what is held; the borrow of the guard ends before it releases.
        let message = unsafe { self.consumer.held(self.single) };
        self.single += 1;
        Some(message)
    }
}

impl<'g, C: Hold> Iterator for Iter<'g, C> {
    type Item = &'g C::Value;

    #[inline]
    fn next(&mut self) -> Option<&'g C::Value> {
        if let Some(message) = self.run.next() {
            return Some(message);
        }
        if let Some(message) = self.then.next() {
            return Some(message);
        }
        self.next_single()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.run.len() + self.then.len() + (self.count - self.single);
        (left, Some(left))
    }
}

impl<C: Hold> ExactSizeIterator for Iter<'_, C> {}

impl<C: Hold> FusedIterator for Iter<'_, C> {}

impl<C: Hold> fmt::Debug for Iter<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("len", &self.len()).finish()
    }
}

impl<'g, C: Hold> IntoIterator for &'g Messages<'_, C> {
    type Item = &'g C::Value;
    type IntoIter = Iter<'g, C>;

    #[inline]
    fn into_iter(self) -> Iter<'g, C> {
        self.iter()
    }
}

impl<C: Hold> Drop for Messages<'_, C> {
    #[inline]
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        if self.consumer.drop_releases() {
            // SAFETY: so many are held; no reference outlives the guard.
            unsafe { self.consumer.release_held(self.count) };
        } else {
            // SAFETY: as above.
            unsafe { self.consumer.keep_held() };
        }
    }
}

/// One message read in place: [`Messages`] of length 1, which dereferences to the message.
pub struct Message<'c, C: Hold>(pub(crate) Messages<'c, C>);

impl<C: Hold> fmt::Debug for Message<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("position", &self.0.consumer.position())
            .finish_non_exhaustive()
    }
}

impl<'c, C: Hold> Message<'c, C> {
    /// Makes the guard of the one message that `hold(1)` has just found.
    ///
    /// # Safety
    /// `hold(1)` returned 1 just now.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn of_held(consumer: &'c mut C) -> Self {
        // SAFETY: the caller's promise.
        Message(unsafe { Messages::of_held(consumer, 1) })
    }

    /// Releases the message, as dropping it does, but also while panicking.
    #[inline]
    pub fn release(self) {
        self.0.release(1);
    }

    /// Leaves the message where it is, to be read again.
    #[inline]
    pub fn keep(self) {
        self.0.keep();
    }
}

impl<C: Hold> Deref for Message<'_, C> {
    type Target = C::Value;

    #[inline]
    fn deref(&self) -> &C::Value {
        // SAFETY: the guard holds one message, and its borrow ends before it releases.
        unsafe { self.0.consumer.held(0) }
    }
}

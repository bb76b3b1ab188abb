//! The reading end: takes messages, copies them out or reads them in place, and releases their slots.

use core::fmt;
use core::mem::ManuallyDrop;

use super::Ring;
use super::claimant::{Claimant, Reading};
use super::letters::DeadLetters;
use super::owned::{OwnedMessage, announce_returns, forget_deliveries};
use super::recovery::Run;
use super::word::{Place, State, committed, dead_letter, returned};
use crate::cached_limit::CachedLimit;
use crate::crowd::Crowd;
use crate::end::{Endpoint, Poll, Pop, sealed::Sealed};
use crate::error::Error;
use crate::guard::{self, Hold, PanicMark, Runs};
use crate::mem::{Cells, Contents};
use crate::seat::Peer;
use crate::sync::Ordering;

/// The count of deliveries of a dead letter that is tried anew: one more makes 0.
pub(super) const ANEW: u32 = u32::MAX;

/// The reading end.
pub struct Consumer<'m, C> {
    pub(super) claimant: Claimant<'m, Reading>,
    pub(super) cells: C,
    /// A slot whose message is to be delivered again, as the last look found it.
    again: Option<Place>,
    /// The value of `returns` whose messages this end has looked for.
    seen: Option<u64>,
    /// The number of times that what was taken last had been delivered before.
    deliveries: u32,
    /// `true` if what was taken last was a dead letter.
    letter: bool,
    /// The slot from which on the next letter is looked for: the one behind a letter that was put aside again.
    letters_from: u64,
    dead_letters: Option<DeadLetters>,
    /// The run that was taken last, and is held.
    pub(super) run: Run,
    pub(super) panic: PanicMark,
}

impl<C> fmt::Debug for Consumer<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("position", &self.claimant.position())
            .field("capacity", &self.claimant.capacity())
            .finish_non_exhaustive()
    }
}

impl<'m, C: Contents> Consumer<'m, C> {
    /// Takes a reading end.
    ///
    /// # Safety
    /// - All ends of this queue have the same words, and as many slots.
    /// - Only they write its words and its payloads.
    /// - No other consumer has this seat until this one is gone, and no slot's word names the seat.
    /// - What a slot holds has no padding and no pointers, and every bit pattern is valid.
    pub unsafe fn new(ring: Ring<'m, C>, limit: &'m mut CachedLimit) -> Self {
        let (claimant, cells) = Claimant::<Reading>::new(ring, limit);
        Consumer {
            again: None,
            // What was returned before this end came is news to it.
            seen: None,
            deliveries: 0,
            letter: false,
            letters_from: 0,
            dead_letters: None,
            run: Run {
                first: claimant.at,
                count: 0,
                state: State::Held,
                owner: claimant.seat,
            },
            panic: PanicMark::default(),
            claimant,
            cells,
        }
    }

    /// Returns the number of times that the message that was taken last had been delivered before: to consumers that
    /// gave it back, or died with it.
    #[inline]
    pub fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// Makes this consumer put messages aside that were delivered too often; `None`: none.
    pub fn set_dead_letters(&mut self, rule: Option<DeadLetters>) {
        self.dead_letters = rule;
    }

    /// Returns the number of dead letters. Other ends may change it at any time.
    pub fn dead_letters(&self) -> u64 {
        self.claimant.queue.letters().0
    }

    /// Looks for a message, and returns `true` if there is one: one that was given back, or else the next.
    fn find(&mut self, wanted: u64) -> Result<bool, Error> {
        self.claimant.forget();
        self.again = None;
        // Acquire: pairs with the release in `announce_returns` and `recover`; the words come before.
        let returns = self.claimant.queue.claims.returns.load(Ordering::Acquire);
        if self.seen != Some(returns) {
            self.again = self.find_returned()?;
            if self.again.is_some() {
                return Ok(true);
            }
            self.seen = Some(returns);
        }
        Ok(self.claimant.find(wanted)? > 0)
    }

    #[cold]
    #[inline(never)]
    fn find_returned(&self) -> Result<Option<Place>, Error> {
        Ok(self.claimant.queue.find_state(State::Returned, 0)?)
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self) -> Poll {
        if !self.claimant.alive() {
            return Poll::Unclear;
        }
        match self.find(1) {
            Ok(true) => Poll::Ready,
            Ok(false) if self.claimant.peers.quiet() => Poll::NotReady,
            _ => Poll::Unclear,
        }
    }

    /// Claims up to `max` messages in one run, and returns the run; `None` if another consumer was faster, or the message
    /// was put aside.
    ///
    /// # Safety
    /// The last look found a message, and none was claimed since.
    #[inline(always)]
    unsafe fn claim(&mut self, state: State, max: u64) -> Option<Run> {
        let known = self.claimant.known();
        if known == 0 {
            return self.claim_returned(state);
        }
        let (first, count) = (self.claimant.at, known.min(max));
        // SAFETY: the look found that many.
        if !unsafe { self.claimant.claim(state, count) } {
            return None;
        }
        self.deliveries = 0;
        if self.claimant.fellows.is_awaited() {
            self.wake_next();
        }
        let owner = self.claimant.seat;
        Some(Run {
            first,
            count,
            state,
            owner,
        })
    }

    /// Wakes another consumer if the next position holds a message as well. A commit wakes a consumer for each of its own
    /// messages, and not for those behind it that were committed earlier.
    #[cold]
    #[inline(never)]
    fn wake_next(&mut self) {
        let (queue, at) = (&self.claimant.queue, self.claimant.at);
        if self.claimant.known() > 0 || queue.count(at, 1, committed) > 0 {
            self.claimant.fellows.ring_for(1);
        }
    }

    /// Claims the message that was given back, or puts it aside.
    #[cold]
    #[inline(never)]
    fn claim_returned(&mut self, state: State) -> Option<Run> {
        let place = self.again.take()?;
        let run = self.take_single(place, State::Returned, state)?;
        let again = &self.claimant.queue.note(place.index).again;
        // Relaxed, both: the message is ours.
        self.deliveries = again.load(Ordering::Relaxed).wrapping_add(1);
        again.store(self.deliveries, Ordering::Relaxed);
        if self.claimant.fellows.is_awaited() {
            // For the message that this end was perhaps woken for.
            self.claimant.fellows.ring_for(1);
        }
        match self.dead_letters {
            Some(rule) if self.deliveries >= rule.after => {
                self.put_aside(run, rule.keep);
                None
            }
            _ => Some(run),
        }
    }

    /// Takes the slot at `place` from one state into another.
    fn take_single(&self, place: Place, from: State, state: State) -> Option<Run> {
        let owner = self.claimant.seat;
        self.claimant.queue.take(place, from, state, owner)?;
        Some(Run {
            first: place,
            count: 1,
            state,
            owner,
        })
    }

    /// Puts a message aside that this end holds as a run of one.
    fn put_aside(&mut self, run: Run, keep: u64) {
        let queue = &self.claimant.queue;
        // Exact, so that the letters have an order.
        let now = self.claimant.notifier.os().now();
        // Relaxed: the word comes after.
        queue
            .note(run.first.index)
            .since
            .store(now, Ordering::Relaxed);
        // Letters alone must not fill the queue.
        let keep = keep.min(queue.shape.capacity() / 2);
        run.finish(queue, 1, dead_letter, |lap| queue.shape.next_free(lap));
        queue.drop_letters(keep, self.claimant.seat);
        // A dropped letter is room for a producer, and may be the last thing that fellows wait for.
        self.claimant.finished(0);
        self.announce_end();
    }

    /// Puts the held message aside as a dead letter: one that was taken by `hold(1)`, or a letter.
    ///
    /// # Safety
    /// No reference to the message is used any more.
    pub(super) unsafe fn put_held_aside(&mut self) {
        let run = self.run;
        if run.count == 0 || !self.claimant.alive() {
            return;
        }
        self.run.count = 0;
        if self.letter {
            self.letters_from = run.first.index + 1;
        }
        let keep = self.dead_letters.map_or(u64::MAX, |rule| rule.keep);
        self.put_aside(run, keep);
    }

    /// Counts `count` messages as released, and wakes the producers.
    #[inline(always)]
    fn released(&mut self, count: u64) {
        self.claimant.finished(count);
        if !self.claimant.peers.quiet() {
            self.announce_end();
        }
    }

    /// Wakes the other consumers if no producer is left: this may have been the last message that they wait for.
    ///
    /// Either this end sees that the last producer has left, and rings; or that producer's own wake comes after the
    /// release, and whoever it wakes sees the slot free. (By the argument of `wait.rs`: a waiter's barrier comes
    /// between its bit and its look.)
    #[cold]
    #[inline(never)]
    fn announce_end(&mut self) {
        // If the words are impossible, the next look reports that.
        if self.claimant.peers.present() != Ok(true) {
            self.claimant.fellows.ring();
        }
    }

    /// Releases the first `count` messages of the run, and gives the rest back.
    ///
    /// # Safety
    /// No reference to the messages is used any more.
    pub(super) unsafe fn finish(&mut self, count: u64) {
        let run = self.run;
        if run.count == 0 || !self.claimant.alive() {
            return;
        }
        self.run.count = 0;
        let queue = &self.claimant.queue;
        if count > 0 {
            forget_deliveries(queue, run.first.index, self.deliveries);
        } else if self.letter {
            // The next delivery counts as the first. Relaxed: the word comes after.
            let again = &queue.note(run.first.index).again;
            again.store(ANEW, Ordering::Relaxed);
        }
        run.finish(queue, count, |lap| queue.shape.next_free(lap), returned);
        if count < run.count {
            announce_returns(queue);
            // This end looks for them at once. The others do when they have taken what their last look found.
            self.claimant.forget();
        }
        self.released(count);
        if count < run.count {
            self.claimant.fellows.ring();
        }
    }

    /// Takes up to `max` messages, and returns their number: at least one, or an error; 0 if `max` is 0.
    pub(super) fn hold_as(&mut self, state: State, max: usize) -> Result<usize, Error> {
        // A guard that was forgotten keeps its messages until this end leaves.
        self.run.count = 0;
        self.letter = false;
        let max = (max as u64).min(self.claimant.capacity());
        if max == 0 {
            return Ok(0);
        }
        loop {
            self.ensure(1)?;
            let known = self.claimant.known();
            if known > 0 && known < max {
                // As many as there are. Returned messages come one at a time.
                self.find(max)?;
            }
            // SAFETY: a look found a message just now; if it is gone, the claim fails.
            if let Some(run) = unsafe { self.claim(state, max) } {
                self.run = run;
                return Ok(run.count as usize);
            }
        }
    }

    /// Notes when the held messages were taken.
    pub(super) fn note_time(&self) {
        let queue = &self.claimant.queue;
        let now = self.claimant.notifier.os().coarse_now();
        for step in 0..self.run.count {
            let place = self.run.first.after(step, queue.shape);
            // Relaxed: for people.
            queue.note(place.index).since.store(now, Ordering::Relaxed);
        }
    }

    /// Takes the held messages out of this end's hands: whoever has the result releases the message, on any thread and in
    /// any order.
    ///
    /// # Safety
    /// `hold(1)` or `hold_letter` succeeded, or `hold_record` returned `len`, and nothing was released since. The result is
    /// gone before the memory is, and before the seat is left.
    pub unsafe fn detach_held(&mut self, len: usize) -> OwnedMessage<'m, C> {
        let run = self.run;
        self.run.count = 0;
        self.claimant.count(run.count);
        OwnedMessage::new(run, &self.claimant, self.cells, len, self.deliveries)
    }

    /// Holds a dead letter in place, as `hold` does a message, or fails with `Empty`.
    ///
    /// Released, it is gone. Given back, it is delivered again, as if for the first time. Put aside again, it is not held
    /// again before this has failed with `Empty`.
    pub fn hold_letter(&mut self) -> Result<(), Error> {
        if !self.claimant.alive() {
            return Err(Error::Forked);
        }
        self.run.count = 0;
        while let Some(place) = self
            .claimant
            .queue
            .find_state(State::DeadLetter, self.letters_from)?
        {
            if let Some(run) = self.take_single(place, State::DeadLetter, State::Held) {
                // Relaxed: the letter is ours.
                let again = self
                    .claimant
                    .queue
                    .note(place.index)
                    .again
                    .load(Ordering::Relaxed);
                (self.run, self.letter, self.deliveries) = (run, true, again);
                self.note_time();
                return Ok(());
            }
        }
        self.letters_from = 0;
        Err(Error::Empty)
    }

    /// Returns `true` if a message is in the hands of another end, or has left this end's hands, or has come meanwhile.
    fn others_hold(&self) -> Result<bool, Error> {
        // Acquire: pairs with the release of a guard that is finished with, which then has changed its word.
        let handed_out = self.claimant.handed_out.load(Ordering::Acquire) > 0;
        for word in self.claimant.queue.words() {
            // Acquire: as in `walk`.
            let word = self
                .claimant
                .queue
                .shape
                .read(word.load(Ordering::Acquire))?;
            let taken = matches!(word.state, State::Taken | State::Held);
            // What this end holds itself, in a guard that was forgotten, does not come back.
            let ours = taken && word.owner == self.claimant.seat && !handed_out;
            let nothing = matches!(word.state, State::Free | State::DeadLetter);
            if !nothing && !ours {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<C> Sealed for Consumer<'_, C> {}

impl<C: Contents> Endpoint for Consumer<'_, C> {
    const NOT_READY: Error = Error::Empty;

    #[inline]
    fn poll(&mut self, _: usize) -> Poll {
        if self.claimant.known() > 0 {
            Poll::Ready
        } else {
            self.look()
        }
    }

    /// Looks in any case: another consumer may have taken what an earlier look found.
    fn ready(&mut self, amount: usize) -> Result<(), Error> {
        self.claimant.forget();
        self.ensure(amount)
    }

    fn slow_path(&mut self, _: usize) -> Result<(), Error> {
        if !self.claimant.alive() {
            return Err(Error::Forked);
        }
        if self.find(1)? {
            return Ok(());
        }
        let Some(news) = self.claimant.peers.end()? else {
            return Err(Error::Empty);
        };
        // A producer may have committed more just before it left.
        if self.find(1)? {
            return Ok(());
        }
        // What another consumer holds may come back. What has come meanwhile is found at the next look.
        if self.others_hold()? || !self.claimant.peers.stands(news)? {
            return Err(Error::Empty);
        }
        Err(Error::Disconnected(self.claimant.peers.tell(news)))
    }

    fn with_peer<R>(&mut self, _: impl FnOnce(&mut Peer<'_>) -> R) -> Option<R> {
        None
    }

    fn with_crowd<R>(&mut self, ask: impl FnOnce(&mut Crowd<'_>) -> R) -> Option<R> {
        Some(ask(&mut self.claimant.peers))
    }

    fn capacity(&self) -> usize {
        self.claimant.capacity() as usize
    }

    fn position(&self) -> u64 {
        self.claimant.position()
    }

    fn len(&self) -> Result<usize, Error> {
        self.claimant.len()
    }
}

impl<'m, T: Copy> Pop for Consumer<'m, Cells<'m, T>> {
    type Value = T;

    const RIVALS: bool = true;

    #[inline(always)]
    unsafe fn take(&mut self) -> Result<T, Error> {
        // SAFETY: the caller's promise.
        let run = unsafe { self.claim(State::Taken, 1) }.ok_or(Error::Empty)?;
        let place = run.first;
        let ask = |index| self.cells.prefetch(index);
        self.claimant
            .ask_ahead(place.index, size_of::<T>() as u64, ask);
        // SAFETY: a place's index is below the number of slots. The slot is ours since the claim, and committed.
        let value = unsafe { self.cells.read(place.index) };
        let queue = &self.claimant.queue;
        forget_deliveries(queue, place.index, self.deliveries);
        // Release: pairs with the acquire of a producer's look; our read comes before.
        queue
            .word(place.index)
            .store(queue.shape.next_free(place.lap), Ordering::Release);
        self.released(1);
        Ok(value)
    }

    fn try_pop_slice(&mut self, out: &mut [T]) -> Result<usize, Error> {
        if out.is_empty() {
            return Ok(0);
        }
        let count = self.hold_as(State::Taken, out.len())?;
        let ask = |index| self.cells.prefetch(index);
        self.claimant
            .ask_behind(count as u64, size_of::<T>() as u64, ask);
        // SAFETY: claimed above.
        let (front, back) = unsafe { self.cells.slices(self.run.first.index, count) };
        let (first, rest) = out[..count].split_at_mut(front.len());
        first.copy_from_slice(front);
        rest.copy_from_slice(back);
        // SAFETY: taken just now, and copied.
        unsafe { self.release_held(count) };
        Ok(count)
    }
}

impl<'m, T: Copy> Hold for Consumer<'m, Cells<'m, T>> {
    fn hold(&mut self, max: usize) -> Result<usize, Error> {
        let count = self.hold_as(State::Held, max)?;
        self.note_time();
        Ok(count)
    }

    #[inline]
    unsafe fn held<'a>(&self, index: usize) -> &'a T {
        let place = self
            .run
            .first
            .after(index as u64, self.claimant.queue.shape);
        // SAFETY: a place's index is below the number of slots; the slot is held, and not written until released.
        unsafe { self.cells.get(place.index) }
    }

    #[inline]
    unsafe fn held_slices<'a>(&self, count: usize) -> Option<Runs<'a, T>> {
        // SAFETY: as in `held`, for the first `count` of the run.
        Some(unsafe { self.cells.slices(self.run.first.index, count) })
    }

    #[inline]
    unsafe fn release_held(&mut self, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.finish(count as u64) };
    }

    unsafe fn keep_held(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.finish(0) };
    }

    #[inline]
    fn begin_guard(&mut self) {
        self.panic.begin();
    }

    #[inline]
    fn drop_releases(&self) -> bool {
        self.claimant.alive() && self.panic.drop_releases()
    }
}

impl<'m, T: Copy> Consumer<'m, Cells<'m, T>> {
    /// Reads a dead letter in place: see [`hold_letter`](Self::hold_letter).
    pub fn try_read_letter(&mut self) -> Result<guard::Message<'_, Self>, Error> {
        self.hold_letter()?;
        // SAFETY: the line above.
        Ok(unsafe { guard::Message::of_held(self) })
    }
}

impl<'m, T: Copy> guard::Messages<'_, Consumer<'m, Cells<'m, T>>> {
    /// Returns the messages in order: up to the last slot, and from the first.
    #[inline]
    pub fn as_slices(&self) -> (&[T], &[T]) {
        // SAFETY: so many are held; the borrow of the guard ends before it releases.
        unsafe { self.consumer.held_slices(self.count) }.unwrap_or_default()
    }

    /// Returns the number of times that these messages had been delivered before: to consumers that gave them back, or
    /// died with them.
    pub fn deliveries(&self) -> u32 {
        self.consumer.deliveries
    }
}

impl<'m, T: Copy> guard::Message<'_, Consumer<'m, Cells<'m, T>>> {
    /// Returns the number of times that this message had been delivered before: to consumers that gave it back, or died
    /// with it.
    pub fn deliveries(&self) -> u32 {
        self.0.consumer.deliveries
    }

    /// Puts the message aside as a dead letter, however often it was delivered.
    pub fn put_aside(self) {
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: the message is held, and this consumes the guard, which every reference borrows.
        unsafe { guard.0.consumer.put_held_aside() };
    }
}

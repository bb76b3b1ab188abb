//! The entries of a set, and which of them are due for a look: what is done under the set's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;
use slipring_core::wait::Face;

use super::Event;
use super::entry::Entry;
use super::sleep::{Poller, Sleep, Woken, doorbell};
use crate::error::Error;
use crate::waiting::again::AFTER;
use crate::waiting::{LONGEST, Until, name_check};

/// About how many peers the kernel is asked at a time: each is a system call.
const AT_A_TIME: usize = 16;
/// What a set knows.
pub(super) struct State {
    entries: BTreeMap<u64, Entry>,
    passive: BTreeSet<u64>,
    /// Of the entries that are not passive.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those to be looked at before the next sleep, each once.
    due: Vec<u64>,
    /// Those that this wait reported, which are due in the next.
    reported: Vec<u64>,
    /// Those that are to be looked at again after a rest: see `Entry::restless`.
    restless: BTreeSet<u64>,
    /// When: also if the owner is kept too busy to sleep.
    restless_at: Instant,
    /// The passive entry about whose peer the kernel was asked last.
    asked: u64,
    /// When all entries are looked at again. (Not with pipes.)
    check_at: Instant,
    /// When the names of the channels are looked at again, and for how many of the watched ones that matters.
    names_at: Instant,
    named: usize,
    /// How many entries the set can wait for by their doorbells.
    most: usize,
    /// How it waits for more.
    poller: Option<Arc<Poller>>,
    /// Where the owner sleeps.
    asleep: Option<Asleep>,
    closed: bool,
}

enum Asleep {
    Doorbells,
    Pipes(Arc<Poller>),
}

impl State {
    pub(super) fn new(most: usize) -> State {
        State {
            entries: BTreeMap::new(),
            passive: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            due: Vec::new(),
            reported: Vec::new(),
            restless: BTreeSet::new(),
            restless_at: Instant::now(),
            asked: 0,
            check_at: Instant::now(),
            names_at: Instant::now(),
            named: 0,
            most,
            poller: None,
            asleep: None,
            closed: false,
        }
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts an entry in; or nothing is changed.
    pub(super) fn admit(&mut self, key: u64, entry: Entry) -> Result<(), Error> {
        if entry.passive {
            self.passive.insert(key);
        } else if let Some(poller) = &self.poller {
            poller.add(entry.parker.descriptor()?, key)?;
        } else if self.watched() >= self.most {
            let poller = Poller::new()?;
            poller.add(entry.parker.descriptor()?, key)?;
            for (key, entry) in self.entries.iter().filter(|(_, entry)| !entry.passive) {
                poller.add(entry.parker.descriptor()?, *key)?;
            }
            self.sleep_by(Some(poller));
        }
        // An earlier look, if it is this entry's wish. A time too far for the clock is no wish.
        let check_at = Instant::now().checked_add(entry.check_every);
        self.check_at = check_at.map_or(self.check_at, |at| self.check_at.min(at));
        if !entry.passive && entry.parker.region.named() {
            if self.named == 0 {
                self.names_at = Instant::now() + name_check::EVERY;
            }
            self.named += 1;
        }
        self.entries.insert(key, entry);
        self.attend(key);
        Ok(())
    }

    /// Takes an entry out; whether it was there.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(entry) = self.entries.remove(&key) else {
            return false;
        };
        self.passive.remove(&key);
        if !entry.passive && entry.parker.region.named() {
            self.named -= 1;
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        if let Some(poller) = &self.poller
            && !entry.passive
        {
            if let Ok(pipe) = entry.parker.descriptor() {
                poller.delete(pipe);
            }
            // At half, so that one channel that comes and goes does not change it each time.
            if self.watched() <= self.most / 2 && self.most > 0 {
                self.sleep_by(None);
            }
        }
        entry.parker.part();
        true
    }

    /// Ends the set.
    pub(super) fn close(&mut self) {
        self.closed = true;
        while let Some((&key, _)) = self.entries.first_key_value() {
            self.remove(key);
        }
        self.poller = None;
    }

    pub(super) fn set_deadline(&mut self, key: u64, deadline: Option<Instant>) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else {
            return false;
        };
        let before = std::mem::replace(&mut entry.deadline, deadline);
        if !entry.passive {
            if let Some(before) = before {
                self.deadlines.remove(&(before, key));
            }
            self.deadlines.extend(deadline.map(|at| (at, key)));
        }
        true
    }

    /// The entry must be armed anew; whether that is so.
    pub(super) fn disturb(&mut self, key: u64) -> bool {
        match self.entries.get_mut(&key) {
            Some(entry) if !entry.passive => entry.armed = None,
            _ => return false,
        }
        self.attend(key);
        true
    }

    /// Wakes the owner, if it sleeps.
    pub(super) fn wake(&mut self, word: &AtomicU32) {
        match self.asleep.take() {
            None => {}
            Some(Asleep::Doorbells) => {
                // Relaxed: what it tells of is under the lock.
                word.fetch_add(1, Ordering::Relaxed);
                let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
            }
            Some(Asleep::Pipes(poller)) => poller.wake(),
        }
    }

    fn watched(&self) -> usize {
        self.entries.len() - self.passive.len()
    }

    fn face(&self) -> Face {
        match self.poller {
            Some(_) => Face::Pipe,
            None => Face::Doorbell,
        }
    }

    /// Changes the way of sleeping: every entry is armed anew, for the other face.
    fn sleep_by(&mut self, poller: Option<Poller>) {
        self.poller = poller.map(Arc::new);
        self.entries
            .values_mut()
            .for_each(|entry| entry.armed = None);
        self.attend_all();
    }

    /// The entry is to be looked at.
    fn attend(&mut self, key: u64) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !entry.passive
            && !std::mem::replace(&mut entry.due, true)
        {
            self.due.push(key);
        }
    }

    /// A wait begins: what the last one reported may still be so.
    pub(super) fn renew(&mut self) {
        self.due.append(&mut self.reported);
    }

    /// Looks at all that is due. What fails stays due.
    pub(super) fn look(&mut self, now: Instant, events: &mut Vec<Event>) -> Result<(), Error> {
        while let Some((at, key)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.deadline, entry.overdue) = (None, true);
            }
            self.attend(key);
        }
        if self.poller.is_none() && now >= self.check_at {
            self.check(now);
        }
        if now >= self.restless_at {
            self.look_again();
        }
        if self.named > 0 && now >= self.names_at {
            self.look_at_names(now);
        }
        // Who has been due for longest comes first.
        self.due.reverse();
        while let Some(key) = self.due.pop() {
            if let Err(error) = self.look_at(key, events) {
                self.due.push(key);
                return Err(error);
            }
        }
        Ok(())
    }

    fn look_at(&mut self, key: u64, events: &mut Vec<Event>) -> Result<(), Error> {
        let face = self.face();
        let Some(entry) = self.entries.get_mut(&key) else {
            return Ok(());
        };
        let looked = Instant::now();
        let mut news = entry.news(key);
        if news.is_none() && entry.arm(face)? {
            // What came before the bit was set.
            news = entry.news(key);
        }
        if let Some(event) = news {
            if face == Face::Pipe {
                // Its peer may die while it stays ready. What fails is tried again by the next look; what was found
                // is told.
                let _ = entry.plug();
            }
            // Due still, but not before the next wait.
            entry.disarm();
            events.push(event);
            self.reported.push(key);
        } else {
            entry.due = false;
            if entry.restless(face, looked) {
                if self.restless.is_empty() {
                    self.restless_at = Instant::now() + AFTER;
                }
                self.restless.insert(key);
            }
        }
        Ok(())
    }

    fn look_again(&mut self) {
        for key in std::mem::take(&mut self.restless) {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.look_again();
                self.attend(key);
            }
        }
    }

    /// Looks whether the channels' names still lead to them. (Passive entries end no wait by that either.)
    fn look_at_names(&mut self, now: Instant) {
        self.names_at = now + name_check::EVERY;
        for (key, entry) in &mut self.entries {
            let renamed = entry.look_at_name(now);
            if renamed && !entry.passive && !std::mem::replace(&mut entry.due, true) {
                self.due.push(*key);
            }
        }
    }

    /// Looks for what a killed publisher did not ring for, and asks the kernel who was killed.
    fn check(&mut self, now: Instant) {
        self.check_at = now + self.check_every();
        self.attend_all();
        for entry in self.entries.values_mut().filter(|entry| !entry.passive) {
            entry.ask = true;
        }
    }

    /// As often as the most careful entry asks, but not more often than for so many at a time: with 127
    /// entries a look costs some 80 µs, half of it to go to sleep again.
    fn check_every(&self) -> Duration {
        let watched = self.entries.values().filter(|entry| !entry.passive);
        let every = watched.map(|entry| entry.check_every).min();
        let looks = self.watched().div_ceil(AT_A_TIME).max(1) as u32;
        // An empty set has nothing to look at; a day is for ever.
        let every = every.unwrap_or(LONGEST).saturating_mul(looks);
        every.min(LONGEST)
    }

    fn attend_all(&mut self) {
        for (key, entry) in &mut self.entries {
            if !entry.passive && !std::mem::replace(&mut entry.due, true) {
                self.due.push(*key);
            }
        }
    }

    /// Has the kernel asked about the peers of the next few passive entries.
    fn ask_some(&mut self) {
        let behind = (Bound::Excluded(self.asked), Bound::Unbounded);
        let next = self.passive.range(behind).take(AT_A_TIME);
        let mut left = AT_A_TIME;
        for key in next {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.ask = true;
            }
            self.asked = *key;
            left -= 1;
        }
        if left > 0 {
            // Past the last one; from the first, next time.
            self.asked = 0;
        }
    }

    /// Finds out, without waiting, which entries were rung for. `last` is before a wait gives up.
    pub(super) fn gather(&mut self, last: bool) -> Result<(), Error> {
        match self.poller.clone() {
            Some(poller) => self.name(poller.wait(Some(Duration::ZERO))?),
            None if last => self.attend_all(),
            None => self.attend_rung(),
        }
        Ok(())
    }

    fn attend_rung(&mut self) {
        for (key, entry) in &mut self.entries {
            if !entry.passive && !entry.due && entry.rung() {
                entry.due = true;
                self.due.push(*key);
            }
        }
    }

    /// The pipes that epoll named: they are to be emptied, and armed anew.
    fn name(&mut self, named: Vec<(u64, bool)>) {
        for (key, hung_up) in named {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.armed = None;
                entry.hung_up |= hung_up;
                entry.ask |= hung_up || entry.told_by_bytes();
                self.attend(key);
            }
        }
    }

    /// The owner is about to sleep, with nothing due.
    pub(super) fn fall_asleep(&mut self, word: &AtomicU32, until: Until, now: Instant) -> Sleep {
        let mut at_most = until.left(now, Duration::MAX);
        if let Some((deadline, _)) = self.deadlines.first() {
            at_most = at_most.min(deadline.duration_since(now));
        }
        if !self.restless.is_empty() {
            at_most = at_most.min(self.restless_at.saturating_duration_since(now));
        }
        if self.named > 0 {
            at_most = at_most.min(self.names_at.saturating_duration_since(now));
        }
        if let Some(poller) = self.poller.clone() {
            self.asleep = Some(Asleep::Pipes(poller.clone()));
            let at_most = (at_most != Duration::MAX).then_some(at_most);
            return Sleep::Pipes { poller, at_most };
        }
        self.asleep = Some(Asleep::Doorbells);
        let mut seen = Vec::with_capacity(1 + self.watched());
        // Relaxed: bumped under the lock, which we hold.
        seen.push(doorbell(word, word.load(Ordering::Relaxed), false));
        let armed = |entry: &Entry| Some(doorbell(entry.doorbell(), entry.armed?, true));
        seen.extend(self.entries.values().filter_map(armed));
        at_most = at_most.min(self.check_at.duration_since(now));
        Sleep::Doorbells { seen, at_most }
    }

    /// The owner is awake.
    pub(super) fn wake_up(&mut self, woken: Woken) -> Result<(), Error> {
        self.asleep = None;
        if self.poller.is_none() {
            self.attend_rung();
        }
        self.name(woken?);
        Ok(())
    }

    /// Looks at the passive entries.
    pub(super) fn look_at_passive(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.passive.is_empty() {
            return;
        }
        self.ask_some();
        for key in &self.passive {
            if let Some(entry) = self.entries.get_mut(key) {
                if entry.deadline.is_some_and(|deadline| deadline <= now) {
                    (entry.deadline, entry.overdue) = (None, true);
                }
                events.extend(entry.news(*key));
            }
        }
    }
}

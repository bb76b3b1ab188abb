//! The entries of a set, and which of them are due for a look: everything that happens under the
//! set's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;
use slipring_core::wait::WakeMode;

use super::entry::Entry;
use super::event::Event;
use super::feed::FeedEntry;
use super::sleep::{Poller, Sleep, Woken, doorbell};
use crate::error::Error;
use crate::wait::policy::{LONGEST, NAME_EVERY, Until};
use crate::wait::recheck::AFTER;

/// About how many peers one look asks the kernel about; each costs a system call.
const AT_A_TIME: usize = 16;
/// The state of a set.
pub(super) struct State {
    entries: BTreeMap<u64, Entry>,
    /// The entries that are no channels.
    feeds: BTreeMap<u64, FeedEntry>,
    passive: BTreeSet<u64>,
    /// The deadlines of the entries that are not passive.
    deadlines: BTreeSet<(Instant, u64)>,
    /// The entries to look at before the next sleep, each once.
    due: Vec<u64>,
    /// The entries that this wait reported, which are due in the next.
    reported: Vec<u64>,
    /// The entries to look at again after a rest: see `Entry::needs_another_look`.
    unsettled: BTreeSet<u64>,
    /// The time of that look, which comes even if the owner is too busy to sleep.
    restless_at: Instant,
    /// The passive entry whose peer the set asked the kernel about last.
    asked: u64,
    /// The time of the next look at all entries. Unused with pipes.
    check_at: Instant,
    /// The time of the next check of the channels' names, and the number of watched entries with a
    /// name to check.
    names_at: Instant,
    named: usize,
    /// The number of entries that the set can wait for by their doorbells.
    most: usize,
    /// The poller by which the set waits for more entries.
    poller: Option<Arc<Poller>>,
    /// The place where the owner sleeps.
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
            feeds: BTreeMap::new(),
            passive: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            due: Vec::new(),
            reported: Vec::new(),
            unsettled: BTreeSet::new(),
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
        self.entries.len() + self.feeds.len()
    }

    /// Adds an entry; on an error nothing has changed.
    pub(super) fn admit(&mut self, key: u64, entry: Entry) -> Result<(), Error> {
        if entry.passive {
            self.passive.insert(key);
        } else if let Some(poller) = &self.poller {
            poller.add(entry.parker.descriptor()?, key)?;
        } else if self.watched() >= self.most {
            let poller = self.poller_of_all()?;
            poller.add(entry.parker.descriptor()?, key)?;
            self.sleep_by(Some(poller));
        }
        // Look earlier, if this entry asks for that. A time too far for the clock does not count.
        let check_at = Instant::now().checked_add(entry.check_every);
        self.check_at = check_at.map_or(self.check_at, |at| self.check_at.min(at));
        if !entry.passive && entry.parker.region.named() {
            self.check_names();
        }
        self.entries.insert(key, entry);
        self.make_due(key);
        Ok(())
    }

    /// Adds an entry that is no channel; on an error nothing has changed.
    pub(super) fn admit_feed(&mut self, key: u64, entry: FeedEntry) -> Result<(), Error> {
        if entry.passive {
            self.passive.insert(key);
        } else if let Some(poller) = &self.poller {
            poller.add(entry.feed.as_fd(), key)?;
        } else {
            let poller = self.poller_of_all()?;
            poller.add(entry.feed.as_fd(), key)?;
            self.sleep_by(Some(poller));
        }
        if !entry.passive {
            self.check_names();
        }
        self.feeds.insert(key, entry);
        self.make_due(key);
        Ok(())
    }

    /// Returns a poller with the pipes of all entries that are not passive.
    fn poller_of_all(&self) -> Result<Poller, Error> {
        let poller = Poller::new()?;
        for (key, entry) in self.entries.iter().filter(|(_, entry)| !entry.passive) {
            poller.add(entry.parker.descriptor()?, *key)?;
        }
        Ok(poller)
    }

    /// Notes one more entry whose name, or directory, is checked once a second.
    fn check_names(&mut self) {
        if self.named == 0 {
            self.names_at = Instant::now() + NAME_EVERY;
        }
        self.named += 1;
    }

    /// Takes an entry out; returns `true` if it was there.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(entry) = self.entries.remove(&key) else {
            return self.remove_feed(key);
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
            self.leave_pipes();
        }
        entry.parker.part();
        true
    }

    fn remove_feed(&mut self, key: u64) -> bool {
        let Some(entry) = self.feeds.remove(&key) else {
            return false;
        };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        if !self.passive.remove(&key) {
            self.named -= 1;
            if let Some(poller) = &self.poller {
                poller.delete(entry.feed.as_fd());
            }
            self.leave_pipes();
        }
        entry.feed.part();
        true
    }

    /// Sleeps on doorbells again, if they suffice.
    fn leave_pipes(&mut self) {
        let needed = self.feeds.values().any(|entry| !entry.passive);
        // At half, so that one channel that comes and goes does not switch it each time.
        if !needed && self.watched() <= self.most / 2 && self.most > 0 && self.poller.is_some() {
            self.sleep_by(None);
        }
    }

    /// Ends the set.
    pub(super) fn close(&mut self) {
        self.closed = true;
        while let Some((&key, _)) = self.entries.first_key_value() {
            self.remove(key);
        }
        while let Some((&key, _)) = self.feeds.first_key_value() {
            self.remove(key);
        }
        self.poller = None;
    }

    pub(super) fn set_deadline(&mut self, key: u64, deadline: Option<Instant>) -> bool {
        let (place, passive) = match (self.entries.get_mut(&key), self.feeds.get_mut(&key)) {
            (Some(entry), _) => (&mut entry.deadline, entry.passive),
            (_, Some(entry)) => (&mut entry.deadline, entry.passive),
            (None, None) => return false,
        };
        let before = std::mem::replace(place, deadline);
        if !passive {
            if let Some(before) = before {
                self.deadlines.remove(&(before, key));
            }
            self.deadlines.extend(deadline.map(|at| (at, key)));
        }
        true
    }

    /// Marks an entry as needing to be armed anew; returns `true` if it does.
    pub(super) fn disturb(&mut self, key: u64) -> bool {
        match self.entries.get_mut(&key) {
            Some(entry) if !entry.passive => entry.armed = None,
            None if self.feeds.get(&key).is_some_and(|entry| !entry.passive) => {}
            _ => return false,
        }
        self.make_due(key);
        true
    }

    /// Wakes the owner, if it sleeps.
    pub(super) fn wake(&mut self, word: &AtomicU32) {
        match self.asleep.take() {
            None => {}
            Some(Asleep::Doorbells) => {
                // Relaxed: the lock protects the news.
                word.fetch_add(1, Ordering::Relaxed);
                let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
            }
            Some(Asleep::Pipes(poller)) => poller.wake(),
        }
    }

    fn watched(&self) -> usize {
        let channels = |entry: &&FeedEntry| entry.passive;
        let passive = self.passive.len() - self.feeds.values().filter(channels).count();
        self.entries.len() - passive
    }

    fn wake_mode(&self) -> WakeMode {
        match self.poller {
            Some(_) => WakeMode::Pipe,
            None => WakeMode::Doorbell,
        }
    }

    /// Changes the way of sleeping: every entry is armed anew, for the other wake mode.
    fn sleep_by(&mut self, poller: Option<Poller>) {
        self.poller = poller.map(Arc::new);
        self.entries
            .values_mut()
            .for_each(|entry| entry.armed = None);
        self.attend_all();
    }

    /// Puts an entry on the list of entries to look at.
    fn make_due(&mut self, key: u64) {
        let due = match (self.entries.get_mut(&key), self.feeds.get_mut(&key)) {
            (Some(entry), _) if !entry.passive => &mut entry.due,
            (_, Some(entry)) if !entry.passive => &mut entry.due,
            _ => return,
        };
        if !std::mem::replace(due, true) {
            self.due.push(key);
        }
    }

    /// Begins a wait: the entries that the last wait reported may still be ready.
    pub(super) fn renew(&mut self) {
        self.due.append(&mut self.reported);
    }

    /// Looks at all entries that are due. An entry whose look fails stays due.
    pub(super) fn look(&mut self, now: Instant, events: &mut Vec<Event>) -> Result<(), Error> {
        while let Some((at, key)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.deadline, entry.overdue) = (None, true);
            }
            if let Some(entry) = self.feeds.get_mut(&key) {
                (entry.deadline, entry.overdue) = (None, true);
            }
            self.make_due(key);
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
        // The entry that has been due for longest comes first.
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
        let wake_mode = self.wake_mode();
        let Some(entry) = self.entries.get_mut(&key) else {
            self.look_at_feed(key, events);
            return Ok(());
        };
        let looked = Instant::now();
        let mut news = entry.news(key);
        if news.is_none() && entry.arm(wake_mode)? {
            // For news that came before the bit was set.
            news = entry.news(key);
        }
        if let Some(event) = news {
            if wake_mode == WakeMode::Pipe {
                // Its peer may die while the entry stays ready. If this fails, the next look tries
                // again; the news found so far is reported.
                let _ = entry.hold_writer();
            }
            // The entry stays due, but not before the next wait.
            entry.disarm();
            events.push(event);
            self.reported.push(key);
        } else {
            entry.due = false;
            if entry.needs_another_look(wake_mode, looked) {
                if self.unsettled.is_empty() {
                    self.restless_at = Instant::now() + AFTER;
                }
                self.unsettled.insert(key);
            }
        }
        Ok(())
    }

    fn look_at_feed(&mut self, key: u64, events: &mut Vec<Event>) {
        if let Some(entry) = self.feeds.get_mut(&key) {
            match entry.news(key) {
                // The entry stays due, but not before the next wait.
                Some(event) => {
                    events.push(event);
                    self.reported.push(key);
                }
                None => entry.due = false,
            }
        }
    }

    fn look_again(&mut self) {
        for key in std::mem::take(&mut self.unsettled) {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.look_again();
                self.make_due(key);
            }
        }
    }

    /// Checks that the channels' names still lead to them. A renamed passive entry does not end a
    /// wait either.
    fn look_at_names(&mut self, now: Instant) {
        self.names_at = now + NAME_EVERY;
        for (key, entry) in &mut self.entries {
            let renamed = entry.look_at_name(now);
            if renamed && !entry.passive && !std::mem::replace(&mut entry.due, true) {
                self.due.push(*key);
            }
        }
        for (key, entry) in self.feeds.iter_mut().filter(|(_, entry)| !entry.passive) {
            if entry.look() && !std::mem::replace(&mut entry.due, true) {
                self.due.push(*key);
            }
        }
    }

    /// Looks for messages whose publisher was killed before it rang, and asks the kernel which
    /// peers were killed.
    fn check(&mut self, now: Instant) {
        self.check_at = now + self.check_every();
        self.attend_all();
        for entry in self.entries.values_mut().filter(|entry| !entry.passive) {
            entry.ask = true;
        }
    }

    /// Returns the shortest interval that an entry asks for, multiplied by the number of groups of
    /// entries. With 127 entries a look costs some 80 µs, half of it to go to sleep again.
    fn check_every(&self) -> Duration {
        let watched = self.entries.values().filter(|entry| !entry.passive);
        let every = watched.map(|entry| entry.check_every).min();
        let looks = self.watched().div_ceil(AT_A_TIME).max(1) as u32;
        // An empty set has nothing to look at; a day counts as for ever.
        let every = every.unwrap_or(LONGEST).saturating_mul(looks);
        every.min(LONGEST)
    }

    fn attend_all(&mut self) {
        for (key, entry) in &mut self.entries {
            if !entry.passive && !std::mem::replace(&mut entry.due, true) {
                self.due.push(*key);
            }
        }
        for (key, entry) in &mut self.feeds {
            if !entry.passive && !std::mem::replace(&mut entry.due, true) {
                self.due.push(*key);
            }
        }
    }

    /// Marks the next few passive entries, so that their looks ask the kernel about the peers.
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
            // Past the last entry: begin at the first one next time.
            self.asked = 0;
        }
    }

    /// Finds out, without waiting, which entries were rung for. `last` is `true` in the last look
    /// before a wait gives up.
    pub(super) fn make_rung_due(&mut self, last: bool) -> Result<(), Error> {
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

    /// Records the pipes that epoll named: they must be emptied, and armed anew.
    fn name(&mut self, named: Vec<(u64, bool)>) {
        for (key, hung_up) in named {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.armed = None;
                entry.hung_up |= hung_up;
                entry.ask |= hung_up || entry.told_by_bytes();
            }
            self.make_due(key);
        }
    }

    /// Returns the sleep that the owner is about to begin, with nothing due.
    pub(super) fn fall_asleep(&mut self, word: &AtomicU32, until: Until, now: Instant) -> Sleep {
        let mut at_most = until.left(now, Duration::MAX);
        if let Some((deadline, _)) = self.deadlines.first() {
            at_most = at_most.min(deadline.duration_since(now));
        }
        if !self.unsettled.is_empty() {
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
        // Relaxed: incremented under the lock, which we hold.
        seen.push(doorbell(word, word.load(Ordering::Relaxed), false));
        let armed = |entry: &Entry| Some(doorbell(entry.doorbell(), entry.armed?, true));
        seen.extend(self.entries.values().filter_map(armed));
        at_most = at_most.min(self.check_at.duration_since(now));
        Sleep::Doorbells { seen, at_most }
    }

    /// Records that the owner is awake, and what its sleep reported.
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
            if let Some(entry) = self.feeds.get_mut(key) {
                if entry.deadline.is_some_and(|deadline| deadline <= now) {
                    (entry.deadline, entry.overdue) = (None, true);
                }
                events.extend(entry.news(*key));
            }
        }
    }
}

//! One channel of a set, seen through its words: the set has no handle to ask.
//!
//! The set treats what the other side wrote as a hint. An impossible value counts as ready: the
//! handle's next call returns `Corrupt`.
//!
//! The set also reads our own words from shared memory, while the handle has private copies. So
//! another process that changes those words can make an entry ready for nothing, or hide a message.
//! That lasts until the handle stores the words again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slipring_core::crowd::Crowd;
use slipring_core::layout::{Role, SeatLine};
use slipring_core::seat::{Life, State};
use slipring_core::wait::WakeMode;
use slipring_core::{Corrupt, End};

use super::event::{Event, Key};
use crate::error::Error;
use crate::wait::looks;
use crate::wait::parker::{Ask, Parker};
use crate::wait::policy::CHECK_EVERY;
use crate::wait::recheck::AFTER;

/// One entry of a set. Its words lie in the region that `parker` keeps alive.
pub(super) struct Entry {
    pub(super) parker: Arc<Parker>,
    pub(super) passive: bool,
    pub(super) check_every: Duration,
    pub(super) deadline: Option<Instant>,
    /// The value that `arm` returned, while the entry is armed.
    pub(super) armed: Option<u32>,
    /// `true` while the entry is on the list of entries to look at.
    pub(super) due: bool,
    /// `true` if the deadline passed and no wait has reported it yet.
    pub(super) overdue: bool,
    /// `true` if the next look must ask the kernel whether the peer lives.
    pub(super) ask: bool,
    /// `true` if the channel's name was found to lead elsewhere and no wait has reported it yet.
    pub(super) renamed: bool,
    /// `true` once the rename was reported.
    told_renamed: bool,
    /// `true` if the pipe was hung up.
    pub(super) hung_up: bool,
    /// The generation of the peer that has hung up but lives: see `hold_writer`.
    hung: u64,
    /// Ends of generations up to this one are not reported again.
    told: u64,
    /// Until this time, a publisher may have overlooked the bit; `None` once a later look has
    /// covered that.
    unsure_until: Option<Instant>,
    room: Option<u64>,
    words: Words,
}

/// The peer's end, as a look found it.
#[derive(Default)]
struct Ending {
    /// `true` if an end stands: the handle's next call returns it, unless there is a message or
    /// room.
    stands: bool,
    /// The end that this set has not reported yet.
    news: Option<End>,
}

/// The shared words of an entry.
struct Words {
    tail: &'static AtomicU64,
    /// Our own position if we read; otherwise that of the only reader.
    head: &'static AtomicU64,
    /// The peer whose end is reported; `None` for a producer of many consumers.
    peer: Option<(usize, &'static SeatLine)>,
    /// The peers of a kind whose end is that of all of them.
    crowd: Option<Crowd<'static>>,
    doorbell: &'static AtomicU32,
}

impl Entry {
    pub(super) fn new(ask: Ask, passive: bool) -> Entry {
        let Ask {
            parker,
            room,
            check_every,
        } = ask;
        let (control, geometry) = (parker.region.control(), parker.region.geometry());
        let first = |role: Role| geometry.seats_of(role).start;
        let position = |seat| &control.role(geometry, seat).position;
        let (reader, peer) = match parker.role {
            Role::Producer => (first(Role::Consumer), first(Role::Consumer)),
            Role::Consumer => (parker.number, first(Role::Producer)),
        };
        let many = geometry.kind.spec().most(parker.role.other()) > 1;
        let words = Words {
            tail: position(first(Role::Producer)),
            head: position(reader),
            peer: (!many).then(|| (peer, control.seat(peer))),
            crowd: (geometry.kind.spec().is_crowded()).then(|| {
                let peers = parker.region.side(parker.role.other());
                Crowd::outside(peers, parker.history())
            }),
            doorbell: parker.waiter.doorbell(),
        };
        Entry {
            told: parker.history(),
            parker,
            passive,
            check_every,
            deadline: None,
            armed: None,
            due: false,
            overdue: false,
            ask: true,
            renamed: false,
            told_renamed: false,
            hung_up: false,
            hung: 0,
            unsure_until: None,
            room,
            words,
        }
    }

    /// Returns `true` if a byte, not a hang-up, reports a peer's death. That is so if many seats
    /// are opposite, or if the peer opens the pipe late.
    pub(super) fn told_by_bytes(&self) -> bool {
        self.words.peer.is_none() || self.parker.late
    }

    /// Returns the doorbell that this side sleeps on.
    pub(super) fn doorbell(&self) -> &'static AtomicU32 {
        self.words.doorbell
    }

    /// Returns `true` if a peer rang since the entry was armed, or took the bit and died before it
    /// rang.
    pub(super) fn rung(&self) -> bool {
        self.armed.is_none_or(|seen| self.parker.waiter.rung(seen))
    }

    /// Returns the entry's event, if there is any, and marks it as reported.
    pub(super) fn news(&mut self, key: u64) -> Option<Event> {
        let (end, corrupt) = match self.end() {
            Ok(end) => (end, false),
            Err(_) => (Ending::default(), true),
        };
        let event = Event {
            key: Key(key),
            // After the look for an end, so that it sees everything committed before that end.
            ready: corrupt || end.stands || self.ready(),
            ended: end.news,
            overdue: std::mem::take(&mut self.overdue),
            renamed: std::mem::take(&mut self.renamed),
        };
        let told = event.ready || event.ended.is_some() || event.overdue || event.renamed;
        told.then_some(event)
    }

    /// Checks that the channel's name still leads to it. Returns `true` if it does not and no wait
    /// has reported that yet.
    pub(super) fn look_at_name(&mut self, now: Instant) -> bool {
        if !self.told_renamed && self.parker.check_name(now).is_err() {
            (self.renamed, self.told_renamed) = (true, true);
        }
        self.renamed
    }

    /// Returns `true` if the handle's next call finds the message or the room that it asked for.
    fn ready(&self) -> bool {
        let (parker, view) = (&self.parker, self.parker.region.view());
        match self.room {
            Some(room) => (parker.outside.has_room)(&view, parker.number, room),
            None => (parker.outside.has_message)(&view, parker.number),
        }
    }

    /// Looks for an end of the peer, as the handle's next call does (`Peer::end` of the core). That
    /// call sees the same [`Findings`](slipring_core::seat::Findings).
    fn end(&mut self) -> Result<Ending, Corrupt> {
        let Some((_, peer)) = self.words.peer else {
            self.look_for_dead();
            return self.end_of_crowd();
        };
        let life = peer.life()?;
        let history = self.parker.history();
        self.told = self.told.max(history);
        let end = match life.end() {
            None if self.died(life)? => Some(End::Died),
            end => end,
        }
        .filter(|_| life.generation > history);
        let last = self.last_end(peer, life);
        let stands = end.is_some() || last.is_some_and(|(_, here)| here);
        // Report an earlier end first, even if its successor has left by now.
        let ends = [
            last.map(|(generation, _)| (generation, End::Finished)),
            end.map(|end| (life.generation, end)),
        ];
        let mut ends = ends.into_iter().flatten();
        let news = ends.find(|(generation, _)| *generation > self.told);
        if let Some((generation, _)) = news {
            self.told = generation;
        }
        Ok(Ending {
            stands,
            news: news.map(|(_, end)| end),
        })
    }

    /// Returns the finished generation before this one, if the handle will report its end. Also
    /// returns whether the handle stands at that end. Returns `None` for a handle that joined
    /// behind the end, or skipped it.
    fn last_end(&self, peer: &SeatLine, life: Life) -> Option<(u64, bool)> {
        if self.parker.role == Role::Producer {
            return None;
        }
        let (last, there) = peer.finished()?;
        // The handle reports this end once; everything after it is its successor's.
        let known = self.parker.history().max(self.parker.findings.told());
        // Relaxed, both: as in `ready`.
        let head = self.words.head.load(Ordering::Relaxed);
        let at = head.min(self.words.tail.load(Ordering::Relaxed));
        let ahead = known < last && last < life.generation && at <= there;
        ahead.then_some((last, at == there))
    }

    /// Looks for the end of many peers, as the handle's next call does (`Crowd::end` of the core).
    fn end_of_crowd(&mut self) -> Result<Ending, Corrupt> {
        let Some(crowd) = &mut self.words.crowd else {
            return Ok(Ending::default());
        };
        let history = self.parker.history();
        if history > crowd.known() {
            crowd.catch_up(history);
        }
        self.told = self.told.max(history);
        // The set's own view repeats an end that the handle has acknowledged meanwhile.
        let Some(news) = crowd.end()?.filter(|news| news.generation > history) else {
            return Ok(Ending::default());
        };
        // What another consumer of a queue holds may come back.
        let stands = self.parker.role == Role::Producer
            || !self.parker.region.geometry().kind.spec().has_claims
            || (self.parker.outside.used)(&self.parker.region.view()) == 0;
        let is_news = stands && news.generation > self.told;
        if is_news {
            self.told = news.generation;
            crowd.tell(news);
        }
        Ok(Ending {
            stands,
            news: is_news.then_some(news.end),
        })
    }

    /// Gives back what dead ends had in their hands, if there is a reason to ask.
    fn look_for_dead(&mut self) {
        if std::mem::take(&mut self.ask) {
            // If this fails, the next look tries again.
            let _ = self.parker.repair_dead();
        }
    }

    /// Returns `true` if the peer is dead without having left. Asks the kernel if there is a
    /// reason.
    fn died(&mut self, life: Life) -> Result<bool, Corrupt> {
        if life.state != State::Held || life.generation <= self.parker.history() {
            return Ok(false);
        }
        if self.parker.findings.is_dead(life.generation) {
            return Ok(true);
        }
        if !self.ask {
            return Ok(false);
        }
        self.ask = false;
        let Some((number, _)) = self.words.peer else {
            return Ok(false);
        };
        let dead = match self.parker.region.died(number, life) {
            Err(Error::Corrupt(corrupt)) => return Err(corrupt),
            // The next look tries again.
            dead => dead.unwrap_or(false),
        };
        if dead {
            self.parker.findings.died(life.generation);
        }
        Ok(dead)
    }

    /// Asks to be woken by `wake_mode`, unless that request stands already. Returns `true` if it
    /// asked; the caller must then look once more.
    pub(super) fn arm(&mut self, wake_mode: WakeMode) -> Result<bool, Error> {
        if self.parker.rests() {
            // A call of the handle polls the pipe now and owns its byte. The call tells the set
            // when it is done.
            self.armed = None;
            return Ok(true);
        }
        if wake_mode == WakeMode::Pipe {
            self.hold_writer()?;
        }
        if !self.rung() {
            if wake_mode == WakeMode::Pipe && self.parker.late {
                // `hold_writer` has restarted the vigil meanwhile.
                self.have_death_looked_for();
            }
            return Ok(false);
        }
        // `None` if the handle sleeps by itself; it tells the set when it is done.
        let asked = self.parker.arm_for_set(wake_mode);
        self.armed = asked.map(|asked| asked.seen);
        let unsure = asked.filter(|asked| self.parker.waiter.unsure(*asked));
        self.unsure_until = unsure.map(|_| Instant::now() + AFTER);
        if wake_mode == WakeMode::Pipe {
            // For a peer that arrived before the bit was set.
            self.hold_writer()?;
            match asked {
                Some(_) if self.parker.late => self.have_death_looked_for(),
                // The handle polls by itself, and has its own death check arranged.
                _ => {}
            }
        }
        Ok(true)
    }

    /// Lets the helper thread look for the death of a peer that opens this seat's pipe late. If
    /// there is no helper thread, the set looks.
    fn have_death_looked_for(&mut self) {
        if looks::look_later(&self.parker).is_err() {
            self.parker.recheck.forget();
            self.hung = u64::MAX;
        }
    }

    /// Takes back the request of `arm`.
    pub(super) fn disarm(&mut self) {
        if self.armed.take().is_some() {
            self.parker.disarm_for_set();
        }
    }

    /// Returns `true` if the set's sleep must be bounded so that another look follows the one that
    /// began at `looked`.
    ///
    /// There are three reasons:
    /// * The pipe reported an end that has not come yet.
    /// * Not all publishers are known to see the bit (`slipring_core::wait`, *mixed*).
    /// * A publisher may have overlooked the bit. On the doorbell, the bounded sleep covers this
    ///   reason by itself.
    pub(super) fn needs_another_look(&mut self, wake_mode: WakeMode, looked: Instant) -> bool {
        if self.unsure_until.is_some_and(|until| until <= looked) {
            self.unsure_until = None;
        }
        let bounded = wake_mode == WakeMode::Doorbell && self.check_every <= CHECK_EVERY;
        let overlooked = self.unsure_until.is_some() && !bounded;
        let unheard = !self.parker.waiter.heard();
        self.hung != 0 || (self.armed.is_some() && (unheard || overlooked))
    }

    /// Prepares that other look.
    pub(super) fn look_again(&mut self) {
        self.ask |= self.hung != 0;
        self.hung_up |= self.hung != 0;
    }

    /// Makes the pipe hang up if a present peer dies, and only then.
    ///
    /// A dying peer may have lost its pipe and not yet its lock. Or another process may have
    /// inherited its lock (`Hold::Descriptor` in `seat/taking.rs`). In both cases the spare writer
    /// keeps the pipe from hanging up, and the set asks the kernel again and again.
    pub(super) fn hold_writer(&mut self) -> Result<(), Error> {
        let Some((_, peer)) = self.words.peer else {
            return self.parker.hold_writer(true);
        };
        let life = peer.life();
        let present = life.is_ok_and(|life| {
            life.state == State::Held
                && life.generation > self.told
                && !self.parker.findings.is_dead(life.generation)
        });
        let generation = life.map_or(0, |life| life.generation);
        if self.parker.late {
            (self.hung_up, self.hung) = (false, 0);
            return self
                .parker
                .hold_writer_late(present.then_some(generation), self.told);
        }
        if std::mem::take(&mut self.hung_up) {
            let hung = present && self.parker.hung_up()?;
            self.hung = if hung { generation } else { 0 };
        }
        if self.hung != generation || !present {
            self.hung = 0;
        }
        self.parker.hold_writer(!present || self.hung != 0)
    }
}

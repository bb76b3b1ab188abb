//! One channel of a set, as its words show it: the set has no handle to ask.
//!
//! What the other side wrote is a hint. What is impossible counts as ready: the handle's next call says
//! `Corrupt`. (Our own words are read here, too, where the handle has copies: a stranger who changes those
//! can make an entry ready for nothing, or hide what is there, until the handle stores them again.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slipring_core::layout::{Kind, SeatLine, WhenFull};
use slipring_core::seat::{Life, State};
use slipring_core::wait::Face;
use slipring_core::{Corrupt, End};

use super::{Ask, Event, Key};
use crate::error::Error;
use crate::seat::{Role, repair_members};
use crate::waiting::again::{self, AFTER};
use crate::waiting::{CHECK_EVERY, Parker};

/// In place of a generation: nobody but the set looks for the peer's death.
const UNWATCHED: u64 = u64::MAX;

/// One entry. The words are on loan from the region that `parker` keeps.
pub(super) struct Entry {
    pub(super) parker: Arc<Parker>,
    pub(super) passive: bool,
    pub(super) check_every: Duration,
    pub(super) deadline: Option<Instant>,
    /// What `arm` returned, while the entry is armed.
    pub(super) armed: Option<u32>,
    /// Whether it is on the list of those to be looked at.
    pub(super) due: bool,
    /// Whether its deadline passed, and nobody was told yet.
    pub(super) overdue: bool,
    /// Whether to ask the kernel, at the next look, if the peer lives.
    pub(super) ask: bool,
    /// Whether its channel's name was found to lead elsewhere, and nobody was told yet.
    pub(super) renamed: bool,
    /// Whether somebody was told.
    told_renamed: bool,
    /// Whether its pipe was hung up.
    pub(super) hung_up: bool,
    /// The generation of the peer that has hung up and lives, see `plug`; or `UNWATCHED`.
    hung: u64,
    /// Ends of generations up to this one are no news.
    told: u64,
    /// Until when somebody may have overlooked the bit: not looked at since.
    unsure_until: Option<Instant>,
    room: Option<u64>,
    words: Words,
}

/// What a look for the peer's end found.
#[derive(Default)]
struct Ending {
    /// Whether an end stands: the handle's next call returns it, unless there is a message or room.
    stands: bool,
    /// The end that this set has not told of yet.
    news: Option<End>,
}

/// The shared words of an entry.
struct Words {
    tail: &'static AtomicU64,
    /// Ours, if we read; else the only reader's.
    head: &'static AtomicU64,
    /// Whose end is news: nobody's, for a producer of many.
    peer: Option<(usize, &'static SeatLine)>,
    doorbell: &'static AtomicU32,
    capacity: u64,
    /// Every position is a multiple of it.
    unit: u64,
}

impl Entry {
    pub(super) fn new(ask: Ask, passive: bool) -> Entry {
        let Ask {
            parker,
            room,
            check_every,
        } = ask;
        let (control, geometry) = (parker.region.control(), parker.region.geometry());
        let first = |role: Role| role.seats(geometry).start;
        let position = |seat| &control.role(geometry, seat).position.0;
        let (reader, peer) = match parker.role {
            Role::Producer => (first(Role::Consumer), first(Role::Consumer)),
            Role::Consumer => (parker.number, first(Role::Producer)),
        };
        let many = parker.role == Role::Producer && geometry.kind == Kind::Broadcast;
        let words = Words {
            tail: position(first(Role::Producer)),
            head: position(reader),
            peer: (!many).then(|| (peer, control.seat(peer))),
            doorbell: &control.bell(parker.role == Role::Consumer).doorbell,
            capacity: geometry.capacity,
            unit: match geometry.kind {
                Kind::Spsc | Kind::Broadcast => 1,
                Kind::Bytes => 8,
            },
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

    /// Whether a death opposite is told by a byte, not by a hang-up: where many sit there, or one that opens late.
    pub(super) fn told_by_bytes(&self) -> bool {
        self.words.peer.is_none() || self.parker.late
    }

    /// What this side sleeps on.
    pub(super) fn doorbell(&self) -> &'static AtomicU32 {
        self.words.doorbell
    }

    /// Whether somebody rang since it was armed, or took the bit and did not live to ring.
    pub(super) fn rung(&self) -> bool {
        self.armed.is_none_or(|seen| self.parker.sleeper.rung(seen))
    }

    /// What there is to report, which is then told.
    pub(super) fn news(&mut self, key: u64) -> Option<Event> {
        let (end, corrupt) = match self.end() {
            Ok(end) => (end, false),
            Err(_) => (Ending::default(), true),
        };
        let event = Event {
            key: Key(key),
            // After the look for an end: what was committed before it is seen.
            ready: corrupt || end.stands || self.ready(),
            ended: end.news,
            overdue: std::mem::take(&mut self.overdue),
            renamed: std::mem::take(&mut self.renamed),
        };
        let told = event.ready || event.ended.is_some() || event.overdue || event.renamed;
        told.then_some(event)
    }

    /// Looks whether the channel's name still leads to it; returns whether it does not, and nobody was told.
    pub(super) fn look_at_name(&mut self, now: Instant) -> bool {
        if !self.told_renamed && self.parker.check_name(now).is_err() {
            (self.renamed, self.told_renamed) = (true, true);
        }
        self.renamed
    }

    /// Whether the handle's next call finds what was asked for.
    fn ready(&self) -> bool {
        let geometry = self.parker.region.geometry();
        // Relaxed, all but one: nothing is read on their strength. The handle looks again, with an acquire
        // of its own, and sees at least this.
        let Some(room) = self.room else {
            let tail = self.words.tail.load(Ordering::Relaxed);
            let head = self.words.head.load(Ordering::Relaxed);
            // Anything but *empty* is a message, or impossible. (One that skips messages may be ahead.)
            return match geometry.kind {
                Kind::Broadcast => tail > head,
                Kind::Spsc | Kind::Bytes => tail != head,
            };
        };
        if geometry.when_full == WhenFull::Overwrite {
            return true;
        }
        // Acquire: pairs with the release in `Reader::release`. The peer's word first: in the other order
        // our own could be behind it, which is impossible otherwise.
        let head = match geometry.kind {
            Kind::Broadcast => self.parker.slowest(),
            Kind::Spsc | Kind::Bytes => self.words.head.load(Ordering::Acquire),
        };
        let tail = self.words.tail.load(Ordering::Relaxed);
        // One that skips messages may be ahead, and rubbish anywhere.
        let used = tail.saturating_sub(head);
        used > self.words.capacity
            || !used.is_multiple_of(self.words.unit)
            || self.words.capacity - used >= room
    }

    /// Looks for an end of the peer, as the handle's next call does (`Peer::end` of the core): that sees the same
    /// [`Findings`](slipring_core::seat::Findings).
    fn end(&mut self) -> Result<Ending, Corrupt> {
        let Some((_, peer)) = self.words.peer else {
            self.look_after_members();
            return Ok(Ending::default());
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
        // An earlier end comes first, also if its successor has left by now.
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

    /// Returns the finished generation before this one, and whether the handle stands at its end, if the handle will
    /// be told of that. (Not one that joined behind it, or skipped it.)
    fn last_end(&self, peer: &SeatLine, life: Life) -> Option<(u64, bool)> {
        if self.parker.role == Role::Producer {
            return None;
        }
        let (last, there) = peer.finished()?;
        // The handle tells of it once: what follows is its successor's.
        let known = self.parker.history().max(self.parker.findings.told());
        // Relaxed, both: as in `ready`.
        let head = self.words.head.load(Ordering::Relaxed);
        let at = head.min(self.words.tail.load(Ordering::Relaxed));
        let ahead = known < last && last < life.generation && at <= there;
        ahead.then_some((last, at == there))
    }

    /// Has nobody wait for consumers that died, if there is a reason to ask.
    fn look_after_members(&mut self) {
        if std::mem::take(&mut self.ask) {
            // What fails is tried again at the next look.
            let _ = repair_members(&self.parker.region, self.parker.number);
        }
    }

    /// Returns `true` if the peer, which did not leave, is dead; asks the kernel if there is a reason.
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
        let Some((number, peer)) = self.words.peer else {
            return Ok(false);
        };
        // The word, the lock, the word again: free, and the same generation, means dead. Who cannot be
        // asked about is alive.
        let free = matches!(self.parker.region.held(number), Ok(Some(false)));
        let dead = free && peer.life()? == life;
        if dead {
            self.parker.findings.died(life.generation);
        }
        Ok(dead)
    }

    /// Asks to be woken by `face`, unless that stands already; then whoever calls must look once more.
    /// Whether it did.
    pub(super) fn arm(&mut self, face: Face) -> Result<bool, Error> {
        let unwatched = self.hung == UNWATCHED;
        if face == Face::Pipe {
            self.plug()?;
        }
        if !self.rung() {
            if face == Face::Pipe {
                // `plug` has begun the watch for a death anew.
                self.have_it_watched(unwatched);
            }
            return Ok(false);
        }
        // Nothing if the handle sleeps by itself: it tells when it is done.
        let asked = self.parker.arm_for_set(face);
        self.armed = asked.map(|asked| asked.seen);
        let unsure = asked.filter(|asked| self.parker.sleeper.unsure(*asked));
        self.unsure_until = unsure.map(|_| Instant::now() + AFTER);
        if face == Face::Pipe {
            // Whoever arrived before the bit was set.
            self.plug()?;
            if asked.is_some() {
                self.have_it_watched(false);
            } else if self.parker.late {
                // Nobody polls.
                self.parker.again.forget();
            }
        }
        Ok(true)
    }

    /// Has the helper look for a death of which no hang-up would tell. If there is no helper, the set looks itself;
    /// `unwatched` if that is known, so that nobody tries to start one at each look.
    fn have_it_watched(&mut self, unwatched: bool) {
        if !self.parker.late || !self.parker.again.vigilant() {
            return;
        }
        if unwatched || again::look(&self.parker).is_err() {
            self.hung = UNWATCHED;
        }
    }

    /// Takes back what `arm` asked for.
    pub(super) fn disarm(&mut self) {
        if self.armed.take().is_some() {
            self.parker.disarm_for_set();
        }
    }

    /// Whether its sleep must be bounded, and by another look than the one that began at `looked`: the pipe told of
    /// an end that did not come yet; or not all publishers are known to see the bit (`slipring_core::wait`,
    /// *mixed*); or one may have overlooked it. (Which, on the doorbell, the end of a sleep tells as well.)
    pub(super) fn restless(&mut self, face: Face, looked: Instant) -> bool {
        if self.unsure_until.is_some_and(|until| until <= looked) {
            self.unsure_until = None;
        }
        let bounded = face == Face::Doorbell && self.check_every <= CHECK_EVERY;
        let overlooked = self.unsure_until.is_some() && !bounded;
        let unheard = !self.parker.sleeper.heard();
        self.hung != 0 || (self.armed.is_some() && (unheard || overlooked))
    }

    /// Before that other look.
    pub(super) fn look_again(&mut self) {
        self.ask |= self.hung != 0;
        self.hung_up |= self.hung != 0;
    }

    /// Sees to it that the pipe hangs up if somebody sits opposite and dies, and only then.
    ///
    /// A peer that is just dying may have lost its pipe and not yet its lock, or its lock may have been
    /// inherited (`seat.rs`, *Descriptor*): then the pipe is plugged, and the kernel asked again and again.
    pub(super) fn plug(&mut self) -> Result<(), Error> {
        let Some((_, peer)) = self.words.peer else {
            return self.parker.plug(true);
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
                .plug_late(present.then_some(generation), self.told);
        }
        if std::mem::take(&mut self.hung_up) {
            let hung = present && self.parker.hung_up()?;
            self.hung = if hung { generation } else { 0 };
        }
        if self.hung != generation || !present {
            self.hung = 0;
        }
        self.parker.plug(!present || self.hung != 0)
    }
}

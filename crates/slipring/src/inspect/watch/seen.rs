//! The view that a watch has of each kind: the core's watcher, and the ends of the producers.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use slipring_core::crowd::Crowd;
use slipring_core::end::Seek;
use slipring_core::layout::{Kind, Role, SeatLine, Side};
use slipring_core::mem::Watched;
use slipring_core::proto::topic::{Origin, Source, Topic};
use slipring_core::proto::{broadcast, broadcast_records, topic};
use slipring_core::seat::{Peer, State};
use slipring_core::{Corrupt, End};

use crate::error::{self, Error};
use crate::setup_error::SetupError;
use crate::shm::Region;

/// A message that was copied.
pub(super) struct Copied {
    pub(super) number: u64,
    pub(super) len: usize,
    pub(super) origin: Option<Origin>,
}

/// The watcher of a kind. It borrows from a region, which its owner keeps alive beside it.
pub(super) enum Seen {
    Slots {
        core: broadcast::Watcher<'static>,
        notes: Notes,
        size: usize,
    },
    Records {
        core: broadcast_records::Watcher<'static>,
        notes: Notes,
    },
    Topic {
        core: topic::Watcher<'static, DataFile>,
        producers: Box<Producers>,
    },
}

/// The line in which a watcher notes the ends that it has seen. The core's watcher borrows it.
pub(super) struct Notes(Arc<SeatLine>);

impl Notes {
    /// Returns the watcher's knowledge of the producer: the ends of its generations up to `known` are
    /// already reported.
    fn peer(&self, line: &'static SeatLine, known: u64) -> Peer<'static> {
        // Relaxed: read by this thread alone.
        self.0.acknowledged.store(known, Ordering::Relaxed);
        // SAFETY: behind an `Arc` that lives beside the watcher and is never given away, and made of atomics.
        Peer::producer(line, unsafe { &*Arc::as_ptr(&self.0) })
    }
}

impl Seen {
    pub(super) fn new(region: &Region, data: OwnedFd, seek: Seek) -> Result<Seen, SetupError> {
        let geometry = region.geometry();
        match geometry.kind {
            Kind::Broadcast | Kind::BroadcastRecords => Seen::of_one(region, seek),
            Kind::Topic => {
                let entries = region.control().entries(geometry);
                let topic = entries.and_then(Topic::new).ok_or(SetupError::Kind {
                    found: geometry.kind.name(),
                    expected: WATCHED,
                })?;
                let core = topic::Watcher::new(topic, geometry, DataFile(data), seek)?;
                let producers = Box::new(Producers::new(region, seek)?);
                Ok(Seen::Topic { core, producers })
            }
            kind => Err(SetupError::Kind {
                found: kind.name(),
                expected: WATCHED,
            }),
        }
    }

    /// Watches a channel of one producer.
    fn of_one(region: &Region, seek: Seek) -> Result<Seen, SetupError> {
        let geometry = region.geometry();
        let words = geometry.data_len().div_ceil(8) as usize;
        let base = region.data().cast::<AtomicU64>().as_ptr();
        // SAFETY: the header was checked against the real size. So while `region` lives, the data
        // part is mapped, page-aligned, for all of its bytes and up to the end of their last page.
        // Only relaxed loads of whole words follow, beside which the channel's ends may write.
        let words: &'static [AtomicU64] = unsafe { std::slice::from_raw_parts(base, words) };
        let memory = Watched::new(words, geometry).ok_or(SetupError::Truncated {
            part: "data",
            found: words.len() as u64 * 8,
            expected: geometry.data_len(),
        })?;
        let control = region.control();
        let (line, page) = (control.seat(0), control.role(geometry, 0));
        // Like a consumer: for a watcher behind everything sent so far, only the last end is news.
        let known = match seek {
            Seek::Newest => line.life()?.generation.saturating_sub(1),
            Seek::Oldest | Seek::To(_) => 0,
        };
        let notes = Notes(Arc::new(SeatLine::default()));
        let peer = notes.peer(line, known);
        let (tail, limit) = (&page.position, &page.write_limit.0);
        Ok(match geometry.kind {
            Kind::Broadcast => Seen::Slots {
                core: broadcast::Watcher::new(tail, limit, memory, peer, seek)?,
                notes,
                size: memory.size(),
            },
            _ => Seen::Records {
                core: broadcast_records::Watcher::new(tail, limit, memory, peer, seek)?,
                notes,
            },
        })
    }

    pub(super) fn position(&self) -> u64 {
        match self {
            Seen::Slots { core, .. } => core.position(),
            Seen::Records { core, .. } => core.position(),
            Seen::Topic { core, .. } => core.position(),
        }
    }

    /// Copies the next message to `out`, which has room for the largest.
    pub(super) fn try_next(&mut self, out: &mut [u8]) -> Result<Copied, Error> {
        match self {
            Seen::Slots { core, size, .. } => core.try_next(out).map(|number| Copied {
                number,
                len: *size,
                origin: None,
            }),
            Seen::Records { core, .. } => core.try_next(out).map(|(number, len)| Copied {
                number,
                len,
                origin: None,
            }),
            Seen::Topic { core, producers } => {
                let mut next = || {
                    core.try_next(out).map(|(origin, len)| Copied {
                        number: origin.sequence,
                        len,
                        origin: Some(origin),
                    })
                };
                match next() {
                    Err(Error::Empty) => {}
                    copied => return copied,
                }
                match producers.end()? {
                    None => Err(Error::Empty),
                    // A producer may have published more just before it left.
                    Some(end) => next().map_err(|error| match error {
                        Error::Empty => Error::Disconnected(end),
                        error => error,
                    }),
                }
            }
        }
    }

    /// Asks the kernel about the producers, and returns `true` if all that are left were found dead.
    pub(super) fn look_for_dead(&mut self, region: &Region) -> Result<bool, Error> {
        let peer = match self {
            Seen::Topic { producers, .. } => return producers.look_for_dead(region),
            Seen::Slots { core, .. } => core.peer(),
            Seen::Records { core, .. } => core.peer(),
        };
        if let Some(suspect) = peer.suspect()?
            && region.died(0, suspect)?
        {
            peer.died(suspect);
            return Ok(true);
        }
        Ok(false)
    }

    /// See [`Watch::skip_end`](super::Watch::skip_end).
    pub(super) fn skip_end(&mut self, region: &Region) -> Result<(), Error> {
        let at = self.position();
        let (peer, notes) = match self {
            Seen::Topic { core, producers } => {
                producers.look_for_dead(region)?;
                let end = producers.end()?;
                // After the look for an end, so that it sees everything published before that end.
                if end.is_some() && !core.has_next() {
                    producers.skip();
                }
                return Ok(());
            }
            Seen::Slots { core, notes, .. } => (core.peer(), notes),
            Seen::Records { core, notes } => (core.peer(), notes),
        };
        let control = region.control();
        let (line, page) = (control.seat(0), control.role(region.geometry(), 0));
        let life = line.life()?;
        let over = life.end().is_some() || region.held(0)? == Some(false);
        // Relaxed: read after `life`, whose load brings everything that was sent before that end.
        // For a producer that died, the lock does so.
        let shown = page.position.load(Ordering::Relaxed) == at;
        if over && shown && line.life()? == life {
            *peer = notes.peer(line, life.generation);
        }
        Ok(())
    }
}

/// The kinds that can be watched.
const WATCHED: &str = "broadcast` or `topic";

/// The data part of a topic. The kernel copies from it: see `proto/topic/watching.rs` of the core.
pub(super) struct DataFile(OwnedFd);

impl Source for DataFile {
    fn copy(&self, mut at: u64, mut out: &mut [u8]) -> Result<(), Error> {
        while !out.is_empty() {
            match rustix::io::pread(&self.0, &mut *out, at) {
                // Somebody has cut the file off.
                Ok(0) => {
                    return Err(Corrupt {
                        word: "data",
                        found: at,
                        expected: at + out.len() as u64,
                    }
                    .into());
                }
                Ok(count) => (at, out) = (at + count as u64, &mut out[count..]),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(error::os("read a topic's messages", errno)),
            }
        }
        Ok(())
    }
}

/// The producers of a topic, as a watcher knows them: it notes nothing where others read it.
pub(super) struct Producers {
    seats: Side<'static>,
    crowd: Crowd<'static>,
    /// The sum of all generations at which all producers that were left were found dead.
    dead: Option<u64>,
    /// Ends up to this sum are not reported.
    skipped: u64,
}

impl Producers {
    fn new(region: &Region, seek: Seek) -> Result<Producers, SetupError> {
        let seats = region.side(Role::Producer);
        let mut producers = Producers {
            crowd: Crowd::outside(seats, 0),
            seats,
            dead: None,
            skipped: 0,
        };
        if matches!(seek, Seek::Newest) {
            // As a subscriber that joins behind everything: only the last end is news.
            let known = producers.sum()?.saturating_sub(1);
            producers.crowd = Crowd::outside(seats, known);
        }
        Ok(producers)
    }

    /// Returns the sum of all generations: it grows with each producer that comes.
    fn sum(&self) -> Result<u64, Corrupt> {
        let mut lives = self.seats.seats().iter().map(|seat| seat.line.life());
        lives.try_fold(0_u64, |sum, life| Ok(sum.wrapping_add(life?.generation)))
    }

    /// Returns the end to report, if no producer is left.
    fn end(&mut self) -> Result<Option<End>, Corrupt> {
        if let Some(news) = self.crowd.end()? {
            return Ok(Some(self.crowd.tell(news)));
        }
        let sum = self.sum()?;
        let died = self.dead == Some(sum) && sum > self.skipped;
        Ok(died.then_some(End::Died))
    }

    /// Asks the kernel about each producer that has not left. Returns `true` if none of them lives, and that is news.
    fn look_for_dead(&mut self, region: &Region) -> Result<bool, Error> {
        let before = self.sum()?;
        if self.dead == Some(before) {
            return Ok(false);
        }
        let mut any = false;
        for (number, seat) in self.seats.seats().iter().enumerate() {
            let life = seat.line.life()?;
            if life.state == State::Held {
                if !region.died(number, life)? {
                    return Ok(false);
                }
                any = true;
            }
        }
        // None has come meanwhile, in a seat that was looked at already.
        let dead = any && self.sum()? == before;
        if dead {
            self.dead = Some(before);
        }
        Ok(dead && before > self.skipped)
    }

    /// Takes the present end for reported.
    fn skip(&mut self) {
        if let Ok(sum) = self.sum() {
            self.skipped = sum;
            self.crowd = Crowd::outside(self.seats, sum);
        }
    }
}

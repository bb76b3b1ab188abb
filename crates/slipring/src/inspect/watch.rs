//! Watching the messages of a `broadcast` channel from outside.
//!
//! The channel is mapped read-only: who watches takes no seat and no lock, writes no word and wakes nobody.
//! So it needs no seat to be free and cannot slow the channel or break it; and nobody waits for it. What it
//! was too slow for it learns by `Lagged`, as from a channel that overwrites. How messages come whole all
//! the same: [`slipring_core::broadcast::Watcher`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slipring_core::Error as Core;
use slipring_core::broadcast::{Seek, Watcher};
use slipring_core::layout::{Header, Kind, SeatLine};
use slipring_core::mem::Watched;
use slipring_core::seat::Peer;

use super::{Stat, of_region};
use crate::error::Error;
use crate::name::Name;
use crate::region::Region;

/// From one look to the next, while there is nothing. Nobody wakes who only watches.
const NAP: Duration = Duration::from_millis(1);
/// After so many naps in which nothing came, they are longer: idle, it uses well under a hundredth of a core.
const NAPS: u32 = 100;
const LONG_NAP: Duration = Duration::from_millis(10);

/// How often, while there is nothing, it asks whether the producer died or the channel was removed.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// Somebody who watches a `broadcast` channel. It needs no payload type: messages come as bytes.
///
/// ```no_run
/// use slipring::{broadcast, inspect};
///
/// let mut tx = broadcast::Builder::<u32>::new(8).producer("market/ticks")?;
/// tx.push(7)?;
/// let mut watch = inspect::Watch::new("market/ticks", broadcast::Seek::Oldest)?;
/// let message = watch.try_next()?;
/// assert_eq!((message.number, message.payload), (0, &7_u32.to_le_bytes()[..]));
/// # Ok::<(), slipring::Error>(())
/// ```
pub struct Watch {
    core: Watcher<'static>,
    /// The payload that was copied last.
    payload: Vec<u8>,
    /// How many naps it took since the last message.
    naps: u32,
    // After `core`, which points into both.
    notes: Arc<SeatLine>,
    region: Region,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

/// A copied message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'w> {
    /// Its number, counted from the channel's first.
    pub number: u64,
    /// Its bytes.
    pub payload: &'w [u8],
}

/// What is known of the producer if the ends of its generations up to `known` are history. It takes note of ends in
/// `notes`, which live longer.
fn producer(line: &'static SeatLine, notes: &Arc<SeatLine>, known: u64) -> Peer<'static> {
    // Relaxed: read by this thread alone.
    notes.acknowledged.store(known, Ordering::Relaxed);
    // SAFETY: behind an `Arc` that lives beside the watch's `core` and is never given away, and made of atomics.
    Peer::producer(line, unsafe { &*Arc::as_ptr(notes) })
}

impl Watch {
    /// Watches a named channel from the oldest message on, the newest, or a number (of which what is gone is
    /// told by `Lagged`): `NotFound`, `Kind`, `Ahead`, and what is wrong with the channel, if something is.
    pub fn new(name: &str, seek: Seek) -> Result<Watch, Error> {
        let region = Region::look(&Name::new(name)?)?;
        let geometry = *region.geometry();
        if geometry.kind != Kind::Broadcast {
            return Err(Error::Kind {
                found: geometry.kind.name(),
                expected: Kind::Broadcast.name(),
            });
        }
        let words = geometry.data_len().div_ceil(8) as usize;
        let base = region.data().cast::<AtomicU64>().as_ptr();
        // SAFETY: the header was checked against the real size, so the data part is mapped for all of its
        // bytes (and up to the end of their last page), page-aligned, while `region` lives; only relaxed
        // loads of whole words follow, beside which the channel's ends may write.
        let words: &'static [AtomicU64] = unsafe { std::slice::from_raw_parts(base, words) };
        let slots = Watched::new(words, &geometry).ok_or(Error::Truncated {
            part: "data",
            found: words.len() as u64 * 8,
            expected: geometry.data_len(),
        })?;
        let control = region.control();
        let (line, page) = (control.seat(0), control.role(&geometry, 0));
        // As a consumer: behind all that was sent only the last end is news.
        let known = match seek {
            Seek::Newest => line.life()?.generation.saturating_sub(1),
            Seek::Oldest | Seek::To(_) => 0,
        };
        let notes = Arc::new(SeatLine::default());
        let peer = producer(line, &notes, known);
        let core = Watcher::new(&page.position.0, &page.gate.0, slots, peer, seek)?;
        Ok(Watch {
            core,
            payload: vec![0; geometry.slot_size as usize],
            naps: 0,
            notes,
            region,
        })
    }

    /// Copies the next message: `Empty` if there is none now, `Lagged(n)` if it and others were
    /// given up to be overwritten before they were copied, n in all (the next call goes on behind them),
    /// `Disconnected` if there is none and the producer left, also before this watch began. That it *died*
    /// [`next_timeout`](Self::next_timeout) finds out. Each call tells of an end until somebody else is the producer;
    /// see [`skip_end`](Self::skip_end).
    pub fn try_next(&mut self) -> Result<Message<'_>, Error> {
        let number = self.core.try_next(&mut self.payload)?;
        Ok(self.message(number))
    }

    /// As [`try_next`](Self::try_next), waiting for at most `timeout` (`TimedOut`): it looks every
    /// millisecond, every ten after a while of silence. `NotFound` if the channel was removed, `Replaced` if
    /// another has its name by now.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, Error> {
        let began = Instant::now();
        let mut checked = began;
        loop {
            match self.core.try_next(&mut self.payload) {
                Ok(number) => return Ok(self.message(number)),
                Err(Core::Empty) => {}
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            let left = timeout.saturating_sub(now - began);
            let last = left.is_zero();
            if last || now - checked >= CHECK_EVERY {
                checked = now;
                if self.check()? {
                    continue;
                }
            }
            if last {
                return Err(Error::TimedOut);
            }
            let nap = if self.naps < NAPS { NAP } else { LONG_NAP };
            self.naps = self.naps.saturating_add(1);
            std::thread::sleep(left.min(nap));
        }
    }

    /// Takes the end of the last producer for history, so that the next calls wait for another producer. Does nothing if
    /// that one is still there, or has sent something that this watch has not shown. Asks the kernel: one system call.
    pub fn skip_end(&mut self) -> Result<(), Error> {
        let control = self.region.control();
        let (line, page) = (control.seat(0), control.role(self.region.geometry(), 0));
        let life = line.life()?;
        let over = life.end().is_some() || self.region.held(0)? == Some(false);
        // Relaxed: behind `life`, which brings all that was sent before that end. (As the lock does, of one who died.)
        let shown = page.position.0.load(Ordering::Relaxed) == self.core.position();
        if over && shown && line.life()? == life {
            *self.core.peer() = producer(line, &self.notes, life.generation);
        }
        Ok(())
    }

    fn message(&mut self, number: u64) -> Message<'_> {
        self.naps = 0;
        let payload = &self.payload[..];
        Message { number, payload }
    }

    /// Asks the kernel after the producer; true if it died. `NotFound` or `Replaced` if the name leads elsewhere.
    fn check(&mut self) -> Result<bool, Error> {
        let peer = self.core.peer();
        // The word, the lock, the word again: see `seat.rs` of the core.
        if let Some(suspect) = peer.suspect()?
            && self.region.held(0)? == Some(false)
            && peer.suspect()? == Some(suspect)
        {
            peer.died(suspect);
            return Ok(true);
        }
        self.region.check_name()?;
        Ok(false)
    }

    /// The number of the next message, counted from the channel's first.
    pub fn position(&self) -> u64 {
        self.core.position()
    }

    /// The channel's header, as it was made.
    pub fn header(&self) -> &Header {
        &self.region.header
    }

    /// What can be known of the channel now.
    pub fn stat(&self) -> Result<Stat, Error> {
        of_region(&self.region)
    }
}

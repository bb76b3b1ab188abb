//! Watches the messages of a `broadcast` channel from outside.
//!
//! The watcher maps the channel read-only: it takes no seat and no lock, writes no word and wakes
//! no waiter. So it needs no free seat, and cannot slow or break the channel. No producer waits for
//! it. If it is too slow, it gets [`Lagged`](Error::Lagged), as from a channel that overwrites.
//! [`slipring_core::proto::broadcast::Watcher`] explains why its messages are whole all the same.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slipring_core::layout::{Header, Kind, SeatLine};
use slipring_core::mem::Watched;
use slipring_core::proto::broadcast::{Seek, Watcher};
use slipring_core::seat::Peer;

use super::{Stat, of_region};
use crate::error::Error;
use crate::name::Name;
use crate::setup_error::SetupError;
use crate::shm::Region;

/// The time between two looks while there is no message. Watchers are never woken; they poll.
const NAP: Duration = Duration::from_millis(1);
/// After this many naps without a message, the naps get longer: an idle watcher uses well under a
/// hundredth of a core.
const NAPS: u32 = 100;
const LONG_NAP: Duration = Duration::from_millis(10);

/// The interval, while there is no message, at which it checks that the producer lives and the
/// channel exists.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// Watches a `broadcast` channel. It needs no payload type: messages come as bytes.
///
/// ```no_run
/// use slipring::{broadcast, inspect};
///
/// let mut tx = broadcast::Builder::<u32>::new(8).producer("market/ticks")?;
/// tx.push(7)?;
/// let mut watch = inspect::Watch::new("market/ticks", broadcast::Seek::Oldest)?;
/// let message = watch.try_next()?;
/// assert_eq!((message.number, message.payload), (0, &7_u32.to_le_bytes()[..]));
/// # Ok::<(), slipring::SetupError>(())
/// ```
pub struct Watch {
    core: Watcher<'static>,
    /// The payload of the latest copied message.
    payload: Vec<u8>,
    /// The number of naps since the last message.
    naps: u32,
    // Declared after `core`, which points into both.
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
    /// The message's number, counted from the channel's first.
    pub number: u64,
    /// The message's bytes.
    pub payload: &'w [u8],
}

/// Returns the watcher's knowledge of the producer: the ends of its generations up to `known` are
/// already reported. It acknowledges ends in `notes`, which live longer.
fn producer(line: &'static SeatLine, notes: &Arc<SeatLine>, known: u64) -> Peer<'static> {
    // Relaxed: read by this thread alone.
    notes.acknowledged.store(known, Ordering::Relaxed);
    // SAFETY: behind an `Arc` that lives beside the watch's `core` and is never given away, and made of atomics.
    Peer::producer(line, unsafe { &*Arc::as_ptr(notes) })
}

impl Watch {
    /// Watches a named channel from the oldest message on, the newest, or a number. If messages
    /// from that number on are gone, the first call returns [`Lagged`](Error::Lagged).
    ///
    /// Returns [`NotFound`](SetupError::NotFound), [`Kind`](SetupError::Kind) or
    /// [`Ahead`](Error::Ahead), or an error for invalid contents.
    pub fn new(name: &str, seek: Seek) -> Result<Watch, SetupError> {
        let region = Region::look(&Name::new(name)?)?;
        let geometry = *region.geometry();
        if geometry.kind != Kind::Broadcast {
            return Err(SetupError::Kind {
                found: geometry.kind.name(),
                expected: Kind::Broadcast.name(),
            });
        }
        let words = geometry.data_len().div_ceil(8) as usize;
        let base = region.data().cast::<AtomicU64>().as_ptr();
        // SAFETY: the header was checked against the real size. So while `region` lives, the data
        // part is mapped, page-aligned, for all of its bytes and up to the end of their last page.
        // Only relaxed loads of whole words follow, beside which the channel's ends may write.
        let words: &'static [AtomicU64] = unsafe { std::slice::from_raw_parts(base, words) };
        let slots = Watched::new(words, &geometry).ok_or(SetupError::Truncated {
            part: "data",
            found: words.len() as u64 * 8,
            expected: geometry.data_len(),
        })?;
        let control = region.control();
        let (line, page) = (control.seat(0), control.role(&geometry, 0));
        // Like a consumer: for a watcher behind everything sent so far, only the last end is news.
        let known = match seek {
            Seek::Newest => line.life()?.generation.saturating_sub(1),
            Seek::Oldest | Seek::To(_) => 0,
        };
        let notes = Arc::new(SeatLine::default());
        let peer = producer(line, &notes, known);
        let core = Watcher::new(&page.position.0, &page.write_limit.0, slots, peer, seek)?;
        Ok(Watch {
            core,
            payload: vec![0; geometry.slot_size as usize],
            naps: 0,
            notes,
            region,
        })
    }

    /// Copies the next message. Returns [`Empty`](Error::Empty) if there is none now.
    ///
    /// Returns `Lagged(n)` if `n` messages, the next one included, were given up before they were
    /// copied. The next call continues behind them.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) if there is no message and the producer left,
    /// even before this watch began. Only [`next_timeout`](Self::next_timeout) detects that the
    /// producer *died*. Each call reports an end until a new producer takes the seat; see
    /// [`skip_end`](Self::skip_end).
    pub fn try_next(&mut self) -> Result<Message<'_>, Error> {
        let number = self.core.try_next(&mut self.payload)?;
        Ok(self.message(number))
    }

    /// Like [`try_next`](Self::try_next), waiting for at most `timeout`
    /// ([`TimedOut`](Error::TimedOut)). It looks every millisecond, and every ten after a while of
    /// silence.
    ///
    /// Returns [`Removed`](Error::Removed) if the channel was removed, and
    /// [`Replaced`](Error::Replaced) if its name now leads to another channel.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, Error> {
        let began = Instant::now();
        let mut checked = began;
        loop {
            match self.core.try_next(&mut self.payload) {
                Ok(number) => return Ok(self.message(number)),
                Err(Error::Empty) => {}
                Err(error) => return Err(error),
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

    /// Acknowledges the end of the last producer, so that the next calls wait for another one. Asks
    /// the kernel with one system call.
    ///
    /// Does nothing if that producer is still there, or has sent messages that this watch has not
    /// shown.
    pub fn skip_end(&mut self) -> Result<(), Error> {
        let control = self.region.control();
        let (line, page) = (control.seat(0), control.role(self.region.geometry(), 0));
        let life = line.life()?;
        let over = life.end().is_some() || self.region.held(0)? == Some(false);
        // Relaxed: read after `life`, whose load brings everything that was sent before that end.
        // For a producer that died, the lock does so.
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

    /// Asks the kernel about the producer, and returns `true` if it died. Returns
    /// [`Removed`](Error::Removed) or [`Replaced`](Error::Replaced) if the name leads elsewhere.
    fn check(&mut self) -> Result<bool, Error> {
        let peer = self.core.peer();
        // Read the word, the lock, and the word again: see `seat.rs` of the core.
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

    /// Returns the number of the next message, counted from the channel's first.
    pub fn position(&self) -> u64 {
        self.core.position()
    }

    /// Returns the channel's header, as the creator wrote it.
    pub fn header(&self) -> &Header {
        &self.region.header
    }

    /// Returns the channel's visible state now.
    pub fn stat(&self) -> Result<Stat, SetupError> {
        of_region(&self.region)
    }
}

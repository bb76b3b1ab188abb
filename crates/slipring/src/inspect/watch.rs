//! Watches the messages of a channel from outside: of a `broadcast` channel, of one of records, and of a topic.
//!
//! The watcher maps the channel read-only: it takes no seat and no lock, pins nothing, writes no word and wakes no waiter. So it
//! needs no free seat, and cannot slow or break the channel. No producer waits for it. If it is too slow, it gets
//! [`Lagged`](Error::Lagged), as from a channel that overwrites.
//!
//! Its messages are whole all the same: [`broadcast`](slipring_core::proto::broadcast::Watcher),
//! [`broadcast::records`](slipring_core::proto::broadcast_records::Watcher) and
//! [`topic`](slipring_core::proto::topic::Watcher) explain why.

mod seen;

use std::fmt;
use std::time::{Duration, Instant};

use slipring_core::end::Seek;
use slipring_core::layout::Header;
use slipring_core::proto::topic::Origin;

use super::{Stat, of_region};
use crate::error::Error;
use crate::name::Name;
use crate::setup_error::SetupError;
use crate::shm::Region;
use seen::{Copied, Seen};

/// The time between two looks while there is no message. Watchers are never woken; they poll.
const NAP: Duration = Duration::from_millis(1);
/// After this many naps without a message, the naps get longer: an idle watcher uses well under a
/// hundredth of a core.
const NAPS: u32 = 100;
const LONG_NAP: Duration = Duration::from_millis(10);

/// The interval, while there is no message, at which it checks that the producer lives and the
/// channel exists.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// Watches a `broadcast` channel, one of records, or a topic. It needs no payload type: messages come as bytes.
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
    seen: Seen,
    /// The payload of the latest copied message.
    payload: Vec<u8>,
    /// The number of naps since the last message.
    naps: u32,
    // Declared after `seen`, which points into it.
    region: Region,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// A copied message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'w> {
    /// The message's number, counted from the channel's first; of [`broadcast::records`](crate::broadcast::records) its
    /// position, in bytes.
    pub number: u64,
    /// The publisher of a topic's message, and its time; `None` for other kinds.
    pub origin: Option<Origin>,
    /// The message's bytes.
    pub payload: &'w [u8],
}

impl Watch {
    /// Watches a named channel from the oldest message on, the newest, or a number. If messages
    /// from that number on are gone, the first call returns [`Lagged`](Error::Lagged). Records are counted in bytes: a watch
    /// begins with the first that begins at that position or behind it.
    ///
    /// Returns [`NotFound`](SetupError::NotFound), [`Kind`](SetupError::Kind) or
    /// [`Ahead`](Error::Ahead), or an error for invalid contents.
    pub fn new(name: &str, seek: Seek) -> Result<Watch, SetupError> {
        let (region, data) = Region::look(&Name::new(name)?)?;
        let seen = Seen::new(&region, data, seek)?;
        Ok(Watch {
            seen,
            payload: vec![0; region.geometry().slot_size as usize],
            naps: 0,
            region,
        })
    }

    /// Copies the next message. Returns [`Empty`](Error::Empty) if there is none now.
    ///
    /// Returns `Lagged(n)` if `n` messages, the next one included, were given up before they were
    /// copied; of records, `n` bytes of position. The next call continues behind them.
    ///
    /// Returns [`Disconnected`](Error::Disconnected) if there is no message and the producer left (of a topic: all of them),
    /// even before this watch began. Only [`next_timeout`](Self::next_timeout) detects that the
    /// producer *died*. Each call reports an end until a new producer takes the seat; see
    /// [`skip_end`](Self::skip_end).
    pub fn try_next(&mut self) -> Result<Message<'_>, Error> {
        let copied = self.seen.try_next(&mut self.payload)?;
        Ok(self.message(copied))
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
            match self.seen.try_next(&mut self.payload) {
                Ok(copied) => return Ok(self.message(copied)),
                Err(Error::Empty) => {}
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            let left = timeout.saturating_sub(now - began);
            let last = left.is_zero();
            if last || now - checked >= CHECK_EVERY {
                checked = now;
                if self.seen.look_for_dead(&self.region)? {
                    continue;
                }
                self.region.check_name()?;
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
    /// the kernel with a system call or a few.
    ///
    /// Does nothing if that producer is still there, or has sent messages that this watch has not
    /// shown.
    pub fn skip_end(&mut self) -> Result<(), Error> {
        self.seen.skip_end(&self.region)
    }

    fn message(&mut self, copied: Copied) -> Message<'_> {
        self.naps = 0;
        Message {
            number: copied.number,
            origin: copied.origin,
            payload: &self.payload[..copied.len],
        }
    }

    /// Returns the number of the next message, counted from the channel's first; of records, its position in bytes.
    pub fn position(&self) -> u64 {
        self.seen.position()
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

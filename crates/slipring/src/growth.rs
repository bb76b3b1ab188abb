//! Channels whose capacity changes while they are in use: the verbs, and the rules by which a producer resizes by itself.

use std::time::Duration;

use slipring_core::end::Endpoint;
use slipring_core::rings::{Resize, Sizing};

use crate::consumer::Consumer;
use crate::error::ResizeError;
use crate::kind::{GrowKind, Kind};
use crate::producer::Producer;

/// The rule by which a producer makes its channel larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grow {
    /// Only [`resize`](Producer::resize) does.
    #[default]
    OnRequest,
    /// So does a call that would find the channel full, or the messages too many for it: it takes the next capacity that
    /// is enough and whose memory is to be had. If there is none, the call returns or waits as ever.
    WhenFull,
}

/// The rule by which a producer makes its channel smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shrink {
    /// Only [`resize`](Producer::resize) does.
    #[default]
    OnRequest,
    /// So does a call of the producer, once the channel was never more than a quarter full for this time. It keeps room for
    /// twice what was in use. A producer that makes no calls shrinks nothing; one that makes few calls
    /// [`settle`](Producer::settle).
    WhenIdle(Duration),
}

/// Returns the rules as the core's producer follows them.
pub(crate) fn sizing(grow: Grow, shrink: Shrink) -> Sizing {
    Sizing {
        grows: grow == Grow::WhenFull,
        shrinks_after: match shrink {
            Shrink::OnRequest => None,
            Shrink::WhenIdle(time) => Some(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        },
    }
}

/// Verbs of channels whose capacity can change: see [`GrowKind`].
impl<K: GrowKind> Producer<K> {
    /// Changes the capacity of a channel that was made with [`max_capacity`](crate::Builder::max_capacity), while the consumer goes on
    /// reading.
    ///
    /// `capacity` is a power of two, from the capacity that the channel was made with to its largest. Nothing is copied, lost
    /// or reordered: messages that are not read yet stay where they are. After a shrink the channel is full until fewer
    /// than `capacity` are left. Once the consumer has read them, it gives their memory back; it does so in its own
    /// calls, a part at a time. Until then both rings take up memory.
    ///
    /// The call never waits. It takes about 30 µs, and a millisecond for each MiB of new memory. If the process is killed
    /// in it, the channel has either capacity, and the next producer goes on.
    ///
    /// Returns [`Fixed`](ResizeError::Fixed), [`Capacity`](ResizeError::Capacity), [`NoSpace`](ResizeError::NoSpace), or
    /// [`Busy`](ResizeError::Busy) while the consumer still has messages from before an earlier resize. The channel goes on
    /// as it was then.
    ///
    /// ```
    /// use slipring::spsc;
    ///
    /// let (mut tx, mut rx) = spsc::Builder::<u64>::new(2).max_capacity(1024).channel_pair()?;
    /// tx.push_slice(&[1, 2])?;
    /// tx.resize(1024)?;
    /// tx.push(3)?;
    /// assert_eq!((tx.capacity(), tx.len()?), (1024, 3));
    /// assert_eq!([rx.pop()?, rx.pop()?, rx.pop()?], [1, 2, 3]);
    /// tx.resize(2)?;
    /// assert_eq!(tx.try_push_slice(&[4, 5, 6])?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resize(&mut self, capacity: usize) -> Result<(), ResizeError> {
        self.end.core.resize(capacity as u64)
    }

    /// Sets when this producer resizes the channel by itself. The default is what its builder said, and without that never. Does
    /// nothing to a channel of fixed capacity.
    pub fn set_sizing(&mut self, grow: Grow, shrink: Shrink) {
        self.end.core.set_sizing(sizing(grow, shrink));
    }

    /// Returns the largest capacity that the channel can have: its capacity, if that is fixed.
    pub fn max_capacity(&self) -> usize {
        self.end.core.max_capacity() as usize
    }
}

/// Verbs of channels whose capacity can change: see [`GrowKind`].
impl<K: GrowKind> Consumer<K> {
    /// Returns the largest capacity that the channel can have: its capacity, if that is fixed.
    pub fn max_capacity(&self) -> usize {
        self.end.seat.region.geometry().largest_capacity() as usize
    }
}

impl<K: Kind> Producer<K> {
    /// Shrinks the channel if this producer's [rule](Shrink) says so.
    ///
    /// Calls that append look at the rule only now and then. A program that appends little calls this on a timer. Does nothing to a channel that cannot grow.
    pub fn settle(&mut self) {
        self.end.core.settle(u32::MAX);
    }
}

impl<K: Kind> Consumer<K> {
    /// Gives back the memory of the rings that are read to their end, if the channel was resized. It stops when a message
    /// comes.
    ///
    /// Calls that read give back up to 2 MiB at a time, and waiting calls up to 16 MiB at each look, so that they keep to their
    /// timeouts. A program that takes
    /// messages only with `try_` verbs, and then does other work, may call this before. Does nothing to a channel that cannot
    /// grow.
    pub fn settle(&mut self) {
        self.end.core.settle(u32::MAX);
    }
}

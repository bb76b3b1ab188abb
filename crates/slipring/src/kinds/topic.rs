//! Named messages from many publishers to many subscribers: each subscriber sees all, or reads the newest, or any of the
//! last ones; payloads of a fixed-size type. Nobody waits for anybody.
//!
//! Up to 63 publishers and 63 subscribers, in threads or processes, come and go as they like. All messages have one order
//! of numbers, without gaps. The last `capacity` messages stay readable. Messages are written and read in place, whatever
//! their size. A message that a subscriber is reading stays as it is, however many are published meanwhile.
//!
//! A subscriber that reads in order and is too slow learns exactly how many messages it lost
//! ([`Lagged`](Error::Lagged)). An end that is killed or stopped at any instruction holds up nobody, and what a killed
//! publisher had published stays readable.
//!
//! When the last publisher has left, each subscriber reads what is there and then gets
//! [`Disconnected`](Error::Disconnected), also one that comes later. A subscriber that goes on reading waits for the next
//! publisher.
//!
//! Memory comes when it is needed: a publisher backs a slot before it first writes there. A publisher that leaves gives back
//! all but the messages that can still be read ([`trim`](Publisher::trim)). By default there are enough slots
//! that a publisher is never [`Full`](Error::Full).
//!
//! The protocol, and why it is right: [`slipring_core::proto::topic`].
//!
//! ```
//! use slipring::{Error, SetupError, topic};
//!
//! let (mut tx, mut rx) = topic::channel::<u64>(8)?;                // the last 8 stay readable
//! let mut camera2 = tx.another()?;
//! tx.push(1)?;
//! camera2.push(2)?;
//! assert_eq!((rx.pop()?, rx.pop()?), (1, 2));                      // in order
//! assert_eq!(*rx.latest()?, 2);                                    // the newest, as often as you like
//! let older = rx.nth_latest(1)?;
//! assert_eq!((*older, older.origin().sequence, older.origin().publisher), (1, 0, 0));
//! # Ok::<(), SetupError>(())
//! ```
//!
//! Byte strings have any length up to a maximum: [`records`]. Processes may come in any order:
//!
//! ```no_run
//! # use slipring::topic;
//! let mut tx = topic::records::Builder::new(4, 1920 * 1080 * 3).producer("cam/front")?;  // in one, or in several
//! let mut rx = topic::records::Builder::new(4, 1920 * 1080 * 3).consumer("cam/front")?;  // in others
//! # Ok::<(), slipring::SetupError>(())
//! ```

mod owned;
pub mod records;
mod subscriptions;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use slipring_core::layout::{self, Geometry, MOST_SEATS};
use slipring_core::mem::{Form, Samples};
use slipring_core::proto::topic as proto;
use slipring_core::{FormatError, Schema};

pub use owned::OwnedSample;
pub use slipring_core::end::Seek;
pub use slipring_core::proto::topic::Origin;
pub use subscriptions::{News, Subscriptions};

use crate::error::Error;
use crate::inspect::{self, Pins};
use crate::kind::{
    CrowdKind, InPlaceKind, Kind, PeekKind, SeatToken, SlotKind, TopicKind, sealed::Sealed,
};
use crate::payload::Payload;
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::{builder, clock, consumer, producer};

/// The kind: many producers, many consumers, each of them sees all messages, fixed-size payloads.
pub struct Topic<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Topic")
    }
}

/// Makes or opens a topic of `T`.
pub type Builder<T> = builder::Builder<Topic<T>>;

/// The memory of a topic of `T`, from which roles can be taken.
pub type Channel<T> = crate::channel::Channel<Topic<T>>;

/// A writing end of a topic of `T`.
pub type Publisher<T> = producer::Producer<Topic<T>>;

/// A reading end of a topic of `T`.
pub type Subscriber<T> = consumer::Consumer<Topic<T>>;

/// A message of a topic that its subscriber reads in place, whatever it has read in order: see
/// [`latest`](Subscriber::latest). It dereferences to the message.
pub type Sample<'c, K> = proto::Sample<'c, 'static, <K as TopicKind>::Content>;

/// Makes a topic between threads of this process, with its first two ends.
///
/// `capacity` is the number of messages that stay readable: a power of two, from 1 to 16,384. Anything else is
/// [`SetupError::Capacity`].
pub fn channel<T: Payload>(capacity: usize) -> Result<(Publisher<T>, Subscriber<T>), SetupError> {
    Builder::new(capacity).channel_pair()
}

/// The default number of seats of each side.
const ENDS: u64 = 16;

/// The default number of messages that a subscriber may hold at once.
const PINS: u64 = 5;

const _: () = assert!(ENDS <= MOST_SEATS as u64 && PINS <= layout::MOST_PINS);

/// Returns the shape of a topic of `capacity` messages of that size and alignment.
fn geometry(capacity: usize, slot_size: u64, slot_align: u64) -> Geometry {
    let capacity = capacity as u64;
    Geometry {
        kind: layout::Kind::Topic,
        when_full: layout::WhenFull::Overwrite,
        capacity,
        slot_size,
        slot_align,
        producers: ENDS,
        consumers: ENDS,
        skew: 0,
        pins: PINS,
        pool: Geometry::pool_of(capacity, ENDS, PINS),
        growth: None,
    }
}

impl<T: Payload> Builder<T> {
    /// Describes a topic whose last `capacity` messages stay readable: a power of two, from 1 to 16,384. Checked when the
    /// topic is made. By default it has seats for 16 publishers and 16 subscribers, and a subscriber may hold 4 messages
    /// besides the one that it reads.
    pub fn new(capacity: usize) -> Builder<T> {
        const {
            assert!(
                align_of::<T>() <= layout::PAGE,
                "a payload's alignment is at most 4096 bytes"
            );
        }
        let (size, align) = (size_of::<T>() as u64, align_of::<T>() as u64);
        builder::Builder::with(geometry(capacity, size, align))
    }
}

/// The terms of a topic: see [`TopicKind`].
impl<K: TopicKind> builder::Builder<K> {
    /// Sets the number of messages that a subscriber may hold at once besides the one that it reads: from 0 to 12. Checked
    /// when the topic is made ([`SetupError::Setting`]). The default is 4.
    ///
    /// Each adds a slot for each subscriber to each publisher's pool, of address space; memory comes when it is needed.
    #[must_use]
    pub fn held(mut self, held: usize) -> Self {
        self.geometry.pins = (held as u64).saturating_add(1);
        self
    }

    /// Sets the number of slots of each publisher: at least one more than the capacity, and at most 65,535 for all publishers
    /// together. Checked when the topic is made ([`SetupError::Setting`]).
    ///
    /// By default there are enough for the messages that stay readable, for all that subscribers may hold, and 65 more. So a
    /// publisher that reserves at most 65 messages at once is never [`Full`](Error::Full). It may reserve as many as it has
    /// slots besides those that stay readable; more are [`TooLarge`](Error::TooLarge). With fewer slots it may be, if subscribers hold more messages than there is
    /// room for: [`pins`](crate::Producer::pins) says which. Fewer take less address space, which `ulimit -v` may limit.
    #[must_use]
    pub fn pool(mut self, slots: usize) -> Self {
        self.pool = Some(slots as u64);
        self
    }

    /// Sets where subscribers begin, as for [`broadcast`](crate::broadcast::Builder::join): the default is behind the newest
    /// message.
    #[must_use]
    pub fn join(mut self, seek: Seek) -> Self {
        self.seek = seek;
        self
    }

    /// Lets the publishers that this builder makes note the time of each commit: see [`Origin`]. It costs some 20 ns.
    #[must_use]
    pub fn time_stamps(mut self) -> Self {
        self.stamps = true;
        self
    }
}

impl<T: Payload> Sealed for Topic<T> {}

impl<T: Payload> SlotKind for Topic<T> {
    type Value = T;
}

impl<T: Payload> InPlaceKind for Topic<T> {}

impl<T: Payload> PeekKind for Topic<T> {}

impl<T: Payload> CrowdKind for Topic<T> {}

impl<T: Payload> TopicKind for Topic<T> {
    type Content = T;
}

impl<T: Payload> Kind for Topic<T> {
    type Producer = proto::Producer<'static, T>;
    type Consumer = proto::Consumer<'static, T>;

    fn schema() -> Option<Schema> {
        Some(T::SCHEMA)
    }

    fn producer(token: &SeatToken<'_>) -> Result<Self::Producer, SetupError> {
        // SAFETY: the kind and the schema were compared.
        unsafe { publisher(token) }
    }

    fn consumer(token: &SeatToken<'_>) -> Result<Self::Consumer, SetupError> {
        // SAFETY: the kind and the schema were compared, and `T: Payload` accepts any bits.
        unsafe { subscriber(token) }
    }
}

/// Makes the writing end of a topic.
///
/// # Safety
/// Payloads of this topic are of type `T`.
unsafe fn publisher<T: Form + ?Sized>(
    token: &SeatToken<'_>,
) -> Result<proto::Producer<'static, T>, SetupError> {
    let seat = token.seat;
    // SAFETY: called once per seat; the notes belong to that seat's handle.
    let slots = unsafe { seat.pool() };
    // SAFETY: as above, for the cached limit.
    let cached_limit = unsafe { seat.cached_limit() };
    let pool = proto::Pool {
        slots,
        consumers: seat.region.side(layout::Role::Consumer),
        fellows: (seat.region.geometry().producers > 1).then(|| seat.fellow_notifier()),
        backing: seat.backing(),
        clock: token
            .stamps
            .then_some(clock::since_boot_awake as fn() -> u64),
    };
    // SAFETY: the caller's promise.
    let ring = unsafe { ring(seat) }?;
    // SAFETY: the seat makes us its only producer, with a note for each slot. The cached limit and the ring are used only
    // while the seat lives beside them.
    Ok(unsafe { proto::Producer::new(ring, pool, cached_limit) }?)
}

/// Makes the reading end of a topic.
///
/// # Safety
/// Payloads of this topic are of type `T`, which accepts any bits.
unsafe fn subscriber<T: Form + ?Sized>(
    token: &SeatToken<'_>,
) -> Result<proto::Consumer<'static, T>, SetupError> {
    let seat = token.seat;
    let page = seat.page();
    let keep = proto::Keep {
        pins: &page.pins,
        most: seat.region.geometry().pins,
        producers: seat.crowd()?,
        lagged: &page.counters.lagged,
        handed_out: &page.counters.handed_out,
    };
    // SAFETY: the caller's promise.
    let ring = unsafe { ring(seat) }?;
    // SAFETY: called once per seat; the cached limit belongs to that seat's handle.
    let cached_limit = unsafe { seat.cached_limit() };
    // SAFETY: as in `publisher`, for the consumer in this seat.
    Ok(unsafe { proto::Consumer::new(ring, keep, cached_limit, token.seek) }?)
}

/// Returns the ring of a validated region, as the end in this seat uses it.
///
/// # Safety
/// Payloads of this topic are of type `T`.
unsafe fn ring<T: Form + ?Sized>(seat: &Seat) -> Result<proto::Ring<'static, T>, SetupError> {
    let (region, geometry) = (&seat.region, seat.region.geometry());
    let entries = region.control().entries(geometry);
    // Never fails: the geometry was checked for this kind.
    let topic = entries.and_then(proto::Topic::new);
    let topic = topic.ok_or(FormatError::Truncated {
        part: "control",
        found: 0,
        expected: geometry.control_len() as u64,
    })?;
    let page = seat.page();
    Ok(proto::Ring {
        topic,
        // SAFETY: the header was checked against the real sizes. While `seat` lives, the data part is mapped for that many
        // slots, page-aligned or checked. The type is the caller's promise.
        samples: unsafe { Samples::new(region.data(), geometry) },
        seat: (seat.number - geometry.seats_of(seat.role).start) as u64,
        position: &page.position,
        messages: &page.counters.messages,
        gating_set: region.control().gating_set(),
        notifier: seat.notifier(),
    })
}

/// Verbs of topics: see [`TopicKind`].
impl<K: TopicKind> producer::Producer<K> {
    /// Gives memory back: slots that hold no message keep at most `keep` bytes of payload.
    ///
    /// A slot with a larger message gives back the rest when this publisher next publishes after that message was overwritten
    /// and let go. So one message more than stay readable leaves no slot large, if they are small, and nobody holds the large
    /// ones. A larger message that is published later makes its slot large again, until the slot is used for a smaller one.
    /// Without `trim` the slot stays that large. Does nothing in memory of the caller's, or of huge pages.
    ///
    /// It also gives back what publishers left that are gone: all slots whose messages were overwritten and let go since. A
    /// publisher that leaves, or that follows a dead one in its seat, gives back all other slots. (On the heap nobody does
    /// so for others.)
    pub fn trim(&mut self, keep: usize) {
        self.end.core.trim(keep as u64);
    }

    /// Returns the subscribers that hold messages in this publisher's slots, in the order of their seats. They are the reason
    /// why it is [`Full`](Error::Full). A hint, which writes no word.
    ///
    /// ```
    /// use slipring::{PushError, topic};
    ///
    /// let (mut tx, mut rx) = topic::Builder::<u64>::new(1).pool(2).channel_pair()?;
    /// tx.push(7)?;
    /// let held = rx.read_owned()?;
    /// tx.push(8)?;
    /// assert_eq!(tx.try_push(9), Err(PushError::Full(9)));
    /// let pins = tx.pins();
    /// assert_eq!((pins[0].index, pins[0].pid, pins[0].count), (0, u64::from(std::process::id()), 1));
    /// # drop(held);
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn pins(&self) -> Vec<Pins> {
        let seat = &self.end.seat;
        let pool = seat.region.geometry().pool;
        inspect::pins(&seat.region.view(), |slot| {
            slot / pool == seat.number as u64
        })
    }
}

/// Verbs of topics: see [`TopicKind`].
impl<K: TopicKind> consumer::Consumer<K> {
    /// Reads the newest message in place, whatever this subscriber has read in order. Dropping the guard lets go of it.
    ///
    /// Returns [`Empty`](Error::Empty) if nothing was ever published, and [`Lagged`](Error::Lagged) if publishers overwrote the
    /// newest message again and again before it could be read, as they may where one or two stay readable. A message stays readable after its publisher has left.
    /// Never waits; to wait for the next message, use [`read`](Self::read) or [`arm`](Self::arm).
    #[inline]
    pub fn latest(&mut self) -> Result<Sample<'_, K>, Error> {
        proto::Sample::latest(&mut self.end.core, 0)
    }

    /// Reads the message `back` before the newest in place: `nth_latest(0)` is [`latest`](Self::latest).
    ///
    /// Returns [`TooLarge`](Error::TooLarge) if that many messages do not stay readable, [`Empty`](Error::Empty) if there
    /// were not that many, and [`Lagged`](Error::Lagged) if publishers overwrote that message again and again before it
    /// could be read.
    #[inline]
    pub fn nth_latest(&mut self, back: usize) -> Result<Sample<'_, K>, Error> {
        proto::Sample::latest(&mut self.end.core, back as u64)
    }

    /// Continues at the oldest message, the newest, or a message by its number. Returns the number of the message that comes
    /// next.
    ///
    /// If that message is gone, the next call returns [`Lagged`](Error::Lagged). Returns [`Ahead`](Error::Ahead) if the
    /// message does not exist yet.
    ///
    /// ```
    /// use slipring::topic::{self, Seek};
    ///
    /// let (mut tx, mut rx) = topic::channel::<u64>(8)?;
    /// (0..6).try_for_each(|number| tx.push(number))?;
    /// rx.seek(Seek::To(4))?;                               // all since number 4
    /// assert_eq!((rx.pop()?, rx.pop()?), (4, 5));
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    #[doc(alias = "since")]
    pub fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        self.end.core.seek(to)
    }

    /// Like [`latest`](Self::latest), as a guard that leaves the subscriber's hands.
    pub fn latest_owned(&mut self) -> Result<OwnedSample<K>, Error> {
        self.nth_latest_owned(0)
    }

    /// Like [`nth_latest`](Self::nth_latest), as a guard that leaves the subscriber's hands.
    pub fn nth_latest_owned(&mut self, back: usize) -> Result<OwnedSample<K>, Error> {
        self.end.core.hold_latest(back as u64)?;
        owned::hand_out(self)
    }

    /// Reads the next message in place like [`try_read`](Self::try_read), as a guard that leaves the subscriber's hands.
    ///
    /// Returns [`TooManyHeld`](Error::TooManyHeld) if the subscriber holds as many as it may: see
    /// [`held`](crate::Builder::held). The message stays the next one.
    pub fn try_read_owned(&mut self) -> Result<OwnedSample<K>, Error> {
        self.end.core.hold_in_order()?;
        owned::hand_out(self)
    }

    /// Like [`try_read_owned`](Self::try_read_owned), waiting for a message.
    pub fn read_owned(&mut self) -> Result<OwnedSample<K>, Error> {
        self.hold_in_order(crate::wait::Until::Forever)?;
        owned::hand_out(self)
    }

    /// Like [`read_owned`](Self::read_owned), for at most `timeout` ([`TimedOut`](Error::TimedOut)).
    pub fn read_owned_timeout(&mut self, timeout: Duration) -> Result<OwnedSample<K>, Error> {
        self.hold_in_order(crate::wait::Until::For(timeout))?;
        owned::hand_out(self)
    }

    /// Like [`read_owned`](Self::read_owned), as a future: see [`pop_async`](Self::pop_async).
    pub async fn read_owned_async(&mut self) -> Result<OwnedSample<K>, Error> {
        self.message().await?;
        self.end.core.hold_in_order()?;
        owned::hand_out(self)
    }

    fn hold_in_order(&mut self, mut until: crate::wait::Until) -> Result<(), Error> {
        self.end.ready(1, &mut until)?;
        self.end.core.hold_in_order()?;
        Ok(())
    }
}

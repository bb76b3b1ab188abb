//! Inspects channels without disturbing them: takes no seat and writes no word.

mod discover;
mod growth;
mod queue;
mod topic;
mod watch;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use slipring_core::layout::{Control, Geometry, Header, LINE, Role, SEATS, SeatWords};
use slipring_core::outside::View;
use slipring_core::proto;
use slipring_core::seat::State;
use slipring_core::spec::Unit;

use crate::clock;
use crate::lock;
use crate::name::Name;
use crate::setup_error::SetupError;
use crate::shm::{self, Mapping, Region, named};

pub use discover::{Discovered, Discovery, discover};
pub use growth::GrowthStat;
pub use queue::{Claim, ClaimState, QueueStat};
pub use slipring_core::layout::WhenFull;
pub(crate) use topic::pins;
pub use topic::{Pins, TopicStat};
pub use watch::{Message, Watch};

/// The state of a seat, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatState {
    /// No holder has taken it yet.
    Never,
    /// It has a holder. Without kernel locks: its last holder did not leave it.
    Held,
    /// Its last holder finished.
    Finished,
    /// Its last holder left before it was done.
    Aborted,
    /// Its last holder died.
    Died,
}

impl SeatState {
    /// Returns the state in one word.
    pub fn name(self) -> &'static str {
        match self {
            SeatState::Never => "never",
            SeatState::Held => "held",
            SeatState::Finished => "finished",
            SeatState::Aborted => "aborted",
            SeatState::Died => "died",
        }
    }
}

/// The visible state of a seat. All fields but `state` are what its holder wrote: a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatStat {
    /// The role.
    pub role: Role,
    /// The number of the seat in its role, counted from zero.
    pub index: usize,
    /// `true` if the producer waits for it, or would wait with a full ring. In a `broadcast`
    /// channel, true for the consumers in the gating set.
    pub waited_for: bool,
    /// Tells whether the seat is held, or how its last holder left.
    pub state: SeatState,
    /// The number of holders that it has had.
    pub generation: u64,
    /// The latest holder's process id.
    pub pid: u64,
    /// Nanoseconds since the holder last gave a sign of life, if any ever did.
    pub heartbeat_age: Option<u64>,
    /// The position, in slots or bytes. A producer has committed everything before it; a consumer
    /// has released everything before it.
    pub position: u64,
    /// The number of messages committed or released. For `spsc` the same as `position`.
    pub messages: u64,
    /// The number of times that a holder's call waited: a producer's at a full channel, a
    /// consumer's at an empty one.
    pub waits: u64,
    /// The number of times that its holders went to sleep.
    pub parks: u64,
    /// The number of times that its holders woke the other end.
    pub wakes: u64,
    /// The number of messages that its holders lost, because they were given up before they were
    /// read.
    pub lagged: u64,
    /// The number of dead consumers' seats that its holders repaired.
    pub recovered: u64,
}

/// The visible state of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The channel's geometry.
    pub geometry: Geometry,
    /// The payload's name; empty for `bytes`.
    pub schema_name: String,
    /// The header, as the creator wrote it.
    pub header: Header,
    /// The amount that is committed and not yet released by the slowest consumer, in slots or
    /// bytes; at most the capacity, unless that shrank. If the channel overwrites, the amount that is still there.
    pub len: u64,
    /// The seats: the producers', then the consumers'.
    pub seats: Vec<SeatStat>,
    /// The claims of a work queue's ends; `None` for other kinds.
    pub queue: Option<QueueStat>,
    /// The contents of a topic, and who keeps messages of it; `None` for other kinds.
    pub topic: Option<TopicStat>,
    /// The rings of a channel that can grow; `None` if its capacity is fixed.
    pub growth: Option<GrowthStat>,
}

impl Stat {
    /// Returns the capacity now, in slots or bytes. A channel that can grow began with that of its geometry.
    pub fn capacity(&self) -> u64 {
        let now = self.growth.map(|growth| growth.capacity);
        now.unwrap_or(self.geometry.capacity)
    }

    /// Returns the seat that holds the producer back: the slowest consumer for which it waits, or
    /// would wait, with a full ring. Nobody holds the publishers of a topic back.
    pub fn holds_back(&self) -> Option<&SeatStat> {
        // A ring of bytes is full if the largest record does not fit: it seldom has no room at all.
        let spec = self.geometry.kind.spec();
        let room = match (spec.unit, spec.each_sees_all) {
            (Unit::Bytes, true) => self.geometry.slot_size,
            _ => 1,
        };
        let full = self.len.saturating_add(room) > self.capacity() && self.topic.is_none();
        let readers = self.seats.iter().filter(|seat| seat.waited_for);
        readers.min_by_key(|seat| seat.position).filter(|_| full)
    }

    /// Returns the time since the latest sign of life: making the channel, taking a seat, waiting,
    /// leaving.
    ///
    /// Returns `None` if the channel records no sign of life. Like all that holders write, it is a
    /// hint.
    pub fn idle(&self) -> Option<Duration> {
        let identity = self.header.identity;
        let made = (identity.created != 0).then(|| clock::now().saturating_sub(identity.created));
        // Signs of life are counted from the boot.
        let beats = self.seats.iter().filter_map(|seat| seat.heartbeat_age);
        let beats = beats.filter(|_| identity.boot == clock::boot_id());
        beats.chain(made).min().map(Duration::from_nanos)
    }

    /// Returns what the ends of a work queue have in their hands; nothing for other kinds.
    ///
    /// ```
    /// use slipring::mpmc;
    ///
    /// let (mut tx, mut rx) = mpmc::channel::<u64>(8)?;
    /// tx.push(7)?;
    /// let message = rx.read()?;
    /// let stat = tx.channel().stat()?;
    /// for claim in stat.claims() {
    ///     println!("{} {} has {} slots {}", claim.role.name(), claim.index, claim.count, claim.state.name());
    /// }
    /// assert_eq!(stat.claims().len(), 1);
    /// drop(message);
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn claims(&self) -> &[Claim] {
        self.queue.as_ref().map_or(&[], |queue| &queue.claims)
    }

    /// Returns the seat of the end that has a claim.
    pub fn holder(&self, claim: &Claim) -> Option<&SeatStat> {
        let seat = |seat: &&SeatStat| (seat.role, seat.index) == (claim.role, claim.index);
        self.seats.iter().find(seat)
    }

    /// Returns how many slots or bytes this consumer is behind the producer.
    pub fn lag(&self, consumer: &SeatStat) -> u64 {
        let newest = match &self.topic {
            // A producer of many knows the newest only at its own commits.
            Some(topic) => topic.published.unwrap_or(0),
            None => self.seats.first().map_or(0, |producer| producer.position),
        };
        newest.saturating_sub(consumer.position)
    }
}

/// Returns the names of all channels in the directory for named channels, sorted. Leaves out
/// channels that are half made or half removed.
///
/// Returns [`NoDirectory`](SetupError::NoDirectory), [`Directory`](SetupError::Directory),
/// [`UnsafeDirectory`](SetupError::UnsafeDirectory), [`Permission`](SetupError::Permission) or
/// [`Os`](SetupError::Os) for the directory itself.
///
/// ```no_run
/// use slipring::inspect;
///
/// for name in inspect::list()? {
///     let name = name.to_string();
///     match inspect::stat(&name) {
///         Ok(stat) => println!("{name}: {} of {} used", stat.len, stat.geometry.capacity),
///         Err(why) => println!("{name}: {why}"),
///     }
/// }
/// # Ok::<(), slipring::SetupError>(())
/// ```
pub fn list() -> Result<Vec<Name>, SetupError> {
    named::list()
}

/// Inspects a named channel. It maps the channel read-only and takes no lock, so no user of the
/// channel notices.
///
/// Returns [`BadName`](SetupError::BadName), [`NotFound`](SetupError::NotFound) or
/// [`Permission`](SetupError::Permission); or [`NotAChannel`](SetupError::NotAChannel),
/// [`Version`](SetupError::Version), [`Truncated`](SetupError::Truncated) or
/// [`Corrupt`](SetupError::Corrupt) for invalid contents. It reads the figures one after another
/// while the channel goes on. Example: [`list`].
pub fn stat(name: &str) -> Result<Stat, SetupError> {
    let name = Name::new(name)?;
    let (file, mapping, data) = named::inspect(&name)?;
    let control = view(&mapping)?;
    let header = control.read(data.len)?;
    look(control, &header, Some(&file), Some(data.backed))
}

/// Removes a named channel, even a corrupt one.
///
/// Returns [`InUse`](SetupError::InUse) while one of its seats is held. Returns
/// [`NotRemoved`](SetupError::NotRemoved) for a directory that never was a channel, or that holds
/// other files. Other errors: [`BadName`](SetupError::BadName), [`NotFound`](SetupError::NotFound),
/// [`Permission`](SetupError::Permission). If it is killed halfway, the next creator sweeps the
/// rest.
pub fn remove(name: &str) -> Result<(), SetupError> {
    named::remove(&Name::new(name)?)
}

pub(crate) fn of_region(region: &Region) -> Result<Stat, SetupError> {
    look(
        region.control(),
        &region.header,
        region.files.as_ref().map(|files| &files.control),
        region.backed(),
    )
}

fn view(mapping: &Mapping) -> Result<Control<'_>, SetupError> {
    // SAFETY: mapped, and populated, for its whole length while borrowed; only loads follow.
    Ok(unsafe { Control::new(mapping.base(), mapping.len()) }?)
}

fn look(
    control: Control<'_>,
    header: &Header,
    file: Option<&OwnedFd>,
    backed: Option<u64>,
) -> Result<Stat, SetupError> {
    let geometry = header.geometry;
    let words: Vec<_> = (0..geometry.seats())
        .map(|seat| control.seat_words(&geometry, seat))
        .collect();
    let view = View {
        geometry: &geometry,
        seats: &words,
        gating_set: control.gating_set(),
        write_limit: &control.role(&geometry, 0).write_limit.0,
        claims: control.claims(&geometry),
        entries: control.entries(&geometry),
        rings: control.rings(&geometry),
    };
    let seats = (0..geometry.seats()).map(|seat| look_at_seat(&view, seat, file));
    let seats = seats.collect::<Result<Vec<_>, SetupError>>()?;
    let len = (proto::outside(geometry.kind).used)(&view);
    Ok(Stat {
        geometry,
        schema_name: shm::schema_name(header),
        header: *header,
        len,
        seats,
        queue: queue::look(&view, header),
        topic: topic::look(&view, backed),
        growth: growth::look(&view, backed),
    })
}

fn look_at_seat(
    view: &View<'_>,
    seat: usize,
    file: Option<&OwnedFd>,
) -> Result<SeatStat, SetupError> {
    let geometry = view.geometry;
    let outside = proto::outside(geometry.kind);
    let role = geometry.role_of(seat);
    let index = seat - geometry.seats_of(role).start;
    let SeatWords {
        line,
        position,
        counters,
        ..
    } = view.seats[seat];
    let life = line.life()?;
    let state = match life.state {
        State::Never => SeatState::Never,
        State::Finished => SeatState::Finished,
        State::Aborted => SeatState::Aborted,
        State::Died => SeatState::Died,
        // Read the word, the lock, and the word again.
        State::Held => {
            let held = match file {
                Some(file) => lock::is_held(file.as_fd(), SEATS + seat * LINE)?,
                None => true,
            };
            if !held && line.life()? == life {
                SeatState::Died
            } else {
                SeatState::Held
            }
        }
    };
    let beat = line.heartbeat.load(Ordering::Relaxed);
    Ok(SeatStat {
        role,
        index,
        waited_for: (outside.waited_for)(view, seat),
        state,
        generation: life.generation,
        pid: line.pid.load(Ordering::Relaxed),
        heartbeat_age: (beat != 0).then(|| clock::since_boot().saturating_sub(beat)),
        // Relaxed: a figure, like the others.
        position: position.load(Ordering::Relaxed),
        messages: (outside.messages)(view, seat),
        waits: counters.waits.load(Ordering::Relaxed),
        parks: counters.parks.load(Ordering::Relaxed),
        wakes: counters.wakes.load(Ordering::Relaxed),
        lagged: counters.lagged.load(Ordering::Relaxed),
        recovered: counters.recovered.load(Ordering::Relaxed),
    })
}

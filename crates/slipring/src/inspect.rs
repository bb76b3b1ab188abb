//! Looking at channels without disturbing anybody: no seat is taken, no word is written.

mod watch;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use slipring_core::layout::{Control, Geometry, Header, Kind, LINE, PAGE, SEATS, WhenFull};
use slipring_core::seat::State;

use crate::clock;
use crate::error::Error;
use crate::lock;
use crate::name::Name;
use crate::region::{Mapping, Region, named};
use crate::seat::Role;

pub use watch::{Message, Watch};

/// A seat, as far as one can see from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatState {
    /// Nobody has held it yet.
    Never,
    /// Somebody holds it. (Without kernel locks: somebody did not leave it.)
    Held,
    /// Its last holder finished.
    Finished,
    /// Its last holder left before it was done.
    Aborted,
    /// Its last holder died.
    Died,
}

impl SeatState {
    /// The state in one word.
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

/// What can be known of a seat. All but `state` is what its holder wrote: a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatStat {
    /// Which role.
    pub role: Role,
    /// Which seat of that role, counted from zero.
    pub index: usize,
    /// Of a consumer of `broadcast`: whether the producer waits for it.
    pub member: bool,
    /// Who holds it, or how the last holder left.
    pub state: SeatState,
    /// How many holders it has had.
    pub generation: u64,
    /// The latest holder's process id.
    pub pid: u64,
    /// Nanoseconds since the holder last gave a sign of life, if any ever did.
    pub heartbeat_age: Option<u64>,
    /// Producer: all before it is committed. Consumer: all before it is released. In slots or bytes.
    pub position: u64,
    /// Messages committed or released. (For `spsc` the same as `position`.)
    pub messages: u64,
    /// How often a call of a holder found the channel full (producer) or empty (consumer), and waited.
    pub waits: u64,
    /// How often its holders went to sleep.
    pub parks: u64,
    /// How often its holders woke the other end.
    pub wakes: u64,
    /// Messages that its holders lost, because they were given up before they were read.
    pub lagged: u64,
    /// Seats of dead consumers that its holders repaired.
    pub recovered: u64,
}

/// What can be known of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The channel's shape.
    pub geometry: Geometry,
    /// The payload's name; empty for `bytes`.
    pub schema_name: String,
    /// The header, as it was made.
    pub header: Header,
    /// Committed and not yet released (by the slowest consumer; where messages are overwritten, those that
    /// are there), in slots or bytes; at most the capacity.
    pub len: u64,
    /// The seats: producer, then consumers.
    pub seats: Vec<SeatStat>,
}

impl Stat {
    /// The seat that holds the producer back: the consumer for which it waits, or would wait, with a full
    /// ring.
    pub fn holds_back(&self) -> Option<&SeatStat> {
        let full = self.len >= self.geometry.capacity;
        let readers = self.seats.iter().filter(|seat| match self.geometry.kind {
            Kind::Broadcast => seat.member,
            Kind::Spsc | Kind::Bytes => seat.role == Role::Consumer,
        });
        readers.min_by_key(|seat| seat.position).filter(|_| full)
    }

    /// Returns for how long nobody has given a sign of life: made the channel, taken a seat, waited, left. Nothing
    /// if the channel tells of none. A hint, as all that holders wrote.
    pub fn idle(&self) -> Option<Duration> {
        let identity = self.header.identity;
        let made = (identity.created != 0).then(|| clock::now().saturating_sub(identity.created));
        // Signs of life are counted from the boot.
        let beats = self.seats.iter().filter_map(|seat| seat.heartbeat_age);
        let beats = beats.filter(|_| identity.boot == clock::boot_id());
        beats.chain(made).min().map(Duration::from_nanos)
    }

    /// How many messages (slots, or bytes) this consumer is behind the producer.
    pub fn lag(&self, consumer: &SeatStat) -> u64 {
        let newest = self.seats.first().map_or(0, |producer| producer.position);
        newest.saturating_sub(consumer.position)
    }
}

/// The names of all channels in the directory for named channels, sorted. What is half made or half removed
/// is left out. `NoDirectory`, `Directory`, `UnsafeDirectory`, `Permission`, `Os` for the directory itself.
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
/// # Ok::<(), slipring::Error>(())
/// ```
pub fn list() -> Result<Vec<Name>, Error> {
    named::list()
}

/// Looks at a named channel. It is mapped read-only, and no lock is taken: nobody notices. `BadName`,
/// `NotFound`, `Permission`; `NotAChannel`, `Version`, `Truncated` or `Corrupt` for what lies there. Figures
/// are read one after another, while the channel goes on. Example: [`list`].
pub fn stat(name: &str) -> Result<Stat, Error> {
    let name = Name::new(name)?;
    let (file, mapping, data_len) = named::inspect(&name)?;
    let control = view(&mapping)?;
    let header = control.read(data_len)?;
    look(control, &header, Some(&file))
}

/// Removes a named channel: `InUse` while a seat of it is held. What is no valid channel any more (a corrupt
/// one) is removed as well, but `NotRemoved` is what never was one, or holds anything else. `BadName`,
/// `NotFound`, `Permission`. Killed halfway it leaves what the next creator sweeps.
pub fn remove(name: &str) -> Result<(), Error> {
    named::remove(&Name::new(name)?)
}

pub(crate) fn of_region(region: &Region) -> Result<Stat, Error> {
    look(
        region.control(),
        &region.header,
        region.files.as_ref().map(|files| &files.control),
    )
}

/// The process id that a seat's holder wrote, or 0.
pub(crate) fn holder(control: &OwnedFd, seat: usize) -> u64 {
    // Whole pages: less is no control part to `view`.
    let len = (SEATS + (seat + 1) * LINE).next_multiple_of(PAGE);
    let there = rustix::fs::fstat(control).is_ok_and(|stat| stat.st_size >= len as i64);
    let mapping = there.then(|| Mapping::shared(control.as_fd(), len, false).ok());
    let pid = mapping.flatten().and_then(|mapping| {
        mapping.populate(false).ok()?;
        Some(view(&mapping).ok()?.seat(seat).pid.load(Ordering::Relaxed))
    });
    pid.unwrap_or(0)
}

fn view(mapping: &Mapping) -> Result<Control<'_>, Error> {
    // SAFETY: mapped, and populated, for its whole length while borrowed; only loads follow.
    Ok(unsafe { Control::new(mapping.base(), mapping.len()) }?)
}

fn look(control: Control<'_>, header: &Header, file: Option<&OwnedFd>) -> Result<Stat, Error> {
    let geometry = header.geometry;
    let seats = (0..geometry.seats()).map(|seat| look_at_seat(control, &geometry, seat, file));
    let seats = seats.collect::<Result<Vec<_>, Error>>()?;
    let newest = seats.first().map_or(0, |producer| producer.position);
    let consumers = seats.iter().filter(|seat| seat.role == Role::Consumer);
    let slowest = match (geometry.kind, geometry.when_full) {
        (Kind::Broadcast, WhenFull::Overwrite) => {
            let gate = &control.role(&geometry, 0).gate.0;
            Some(
                gate.load(Ordering::Relaxed)
                    .saturating_sub(geometry.capacity),
            )
        }
        (Kind::Broadcast, WhenFull::Wait) => consumers
            .filter(|seat| seat.member)
            .map(|seat| seat.position)
            .min(),
        _ => consumers.map(|seat| seat.position).min(),
    };
    let len = newest
        .saturating_sub(slowest.unwrap_or(newest))
        .min(geometry.capacity);
    Ok(Stat {
        geometry,
        schema_name: crate::channel::schema_name(header),
        header: *header,
        len,
        seats,
    })
}

fn look_at_seat(
    control: Control<'_>,
    geometry: &Geometry,
    seat: usize,
    file: Option<&OwnedFd>,
) -> Result<SeatStat, Error> {
    let role = Role::of_seat(seat);
    let index = seat - role.seats(geometry).start;
    let line = control.seat(seat);
    let page = control.role(geometry, seat);
    let life = line.life()?;
    let state = match life.state {
        State::Never => SeatState::Never,
        State::Finished => SeatState::Finished,
        State::Aborted => SeatState::Aborted,
        // The word, the lock, the word again.
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
    // Relaxed: a figure, as the others.
    let position = page.position.0.load(Ordering::Relaxed);
    let messages = match geometry.kind {
        Kind::Spsc | Kind::Broadcast => position,
        Kind::Bytes => page.counters.messages.load(Ordering::Relaxed),
    };
    let members = control.members().load(Ordering::Relaxed);
    let broadcast = geometry.kind == Kind::Broadcast;
    Ok(SeatStat {
        role,
        index,
        member: broadcast && role == Role::Consumer && members & 1 << index != 0,
        state,
        generation: life.generation,
        pid: line.pid.load(Ordering::Relaxed),
        heartbeat_age: (beat != 0).then(|| clock::since_boot().saturating_sub(beat)),
        position,
        messages,
        waits: page.counters.waits.load(Ordering::Relaxed),
        parks: page.counters.parks.load(Ordering::Relaxed),
        wakes: page.counters.wakes.load(Ordering::Relaxed),
        lagged: page.counters.lagged.load(Ordering::Relaxed),
        recovered: page.counters.recovered.load(Ordering::Relaxed),
    })
}

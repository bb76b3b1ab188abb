//! The builder, which makes or opens a channel of any kind.

mod sizes;

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slipring_core::end::Seek;
use slipring_core::layout::{Geometry, Growth, Header, METADATA, SKEW_STEP, WhenFull};
use slipring_core::proto::mpmc::Handling;
use slipring_core::spec::Unit;
use slipring_core::{FormatError, Schema};

use crate::channel::Channel;
use crate::consumer::Consumer;
use crate::difference::Difference;
use crate::growth::{self, Grow, Shrink};
use crate::kind::{CrowdKind, Kind};
use crate::name::Name;
use crate::pages::HugePages;
use crate::producer::Producer;
use crate::setup_error::{SchemaMismatch, SetupError};
use crate::shm::{self, Borrowed, Passed, Plan, Region};
use crate::terms::Terms;
use crate::wait::{Wait, Waiting};

/// Describes a channel to make, or the channel that is expected to exist.
///
/// All kinds share this builder. Each kind's own page shows how to begin one.
///
/// ```
/// use slipring::{HugePages, SetupError, spsc};
///
/// let builder = spsc::Builder::<u64>::new(1024).metadata(b"prices, in cents").huge_pages(HugePages::TwoMiB);
/// let channel = builder.memfd()?;
/// assert_eq!(&channel.metadata()[..6], b"prices");
/// if let Some(why) = &channel.pages().reason {
///     println!("ordinary pages: {why}");
/// }
/// let tx = channel.producer()?;
/// assert!(matches!(channel.producer(), Err(SetupError::RoleTaken { .. })));
/// # Ok::<(), SetupError>(())
/// ```
///
/// # Errors
/// *Making* a channel, wherever it lies:
/// * [`Capacity`](SetupError::Capacity), [`MaxRecord`](SetupError::MaxRecord),
///   [`Consumers`](SetupError::Consumers), [`Setting`](SetupError::Setting) or
///   [`Metadata`](SetupError::Metadata) for a value that no channel can have. Nothing has been touched then.
/// * [`NoSpace`](SetupError::NoSpace) if the memory is not available, or if a file size limit
///   (`ulimit -f`) forbids it. All memory is allocated before the channel appears.
/// * [`FileSystem`](SetupError::FileSystem) if the file system cannot preallocate space.
/// * [`NotSealable`](SetupError::NotSealable) for [`sealed`](Self::sealed) anywhere but in memfds, and for a channel that can grow.
///
/// *Opening* an existing channel, which is not touched on failure:
/// * [`NotAChannel`](SetupError::NotAChannel), [`Version`](SetupError::Version),
///   [`Truncated`](SetupError::Truncated) or [`Corrupt`](SetupError::Corrupt) for invalid contents.
/// * [`Kind`](SetupError::Kind), [`Schema`](SetupError::Schema), [`WhenFull`](SetupError::WhenFull)
///   or, with [`exact`](Self::exact), [`Geometry`](SetupError::Geometry) if the channel is not the
///   expected one.
///
/// Other sizes are no error: an existing channel keeps its sizes. The method `differences` of the
/// channel and of its handles reports them.
///
/// By a *name*: [`BadName`](SetupError::BadName); [`NoDirectory`](SetupError::NoDirectory),
/// [`Directory`](SetupError::Directory), [`UnsafeDirectory`](SetupError::UnsafeDirectory) or
/// [`Permission`](SetupError::Permission) for the directory; [`NotFound`](SetupError::NotFound);
/// [`AlreadyExists`](SetupError::AlreadyExists).
///
/// *Taking a role*, after repairing a seat whose holder died:
/// * [`RoleTaken`](SetupError::RoleTaken) while the role has a holder.
/// * [`Message`](SetupError::Message) of [`BadPipe`](crate::Error::BadPipe) if the other side's pipe is no
///   longer a pipe.
/// * [`Recovering`](SetupError::Recovering) if another process's repair takes longer than
///   [`patience`](Self::patience).
/// * [`Sealed`](SetupError::Sealed) for a producer that may not write.
/// * [`Ahead`](crate::Error::Ahead) for a consumer that asked to begin at a message that does not exist
///   yet (`join` of [`broadcast`](crate::broadcast) and [`topic`](crate::topic)).
/// * [`Corrupt`](SetupError::Corrupt) for an impossible value in shared memory.
/// * [`Forked`](SetupError::Forked) for heap memory that a fork copied.
///
/// Any call can return [`Os`](SetupError::Os), with the system's error, if the system refuses for
/// another reason, such as a lack of descriptors. None of these calls waits for the other side.
pub struct Builder<K> {
    pub(crate) geometry: Geometry,
    metadata: Result<[u8; METADATA], usize>,
    huge: HugePages,
    mode: u32,
    exact: bool,
    sealed: bool,
    ephemeral: bool,
    patience: Duration,
    waiting: Waiting,
    /// The message at which a consumer that sees all messages begins.
    pub(crate) seek: Seek,
    /// The fate of what an `mpmc` consumer has in its hands when it dies.
    pub(crate) handling: Handling,
    /// `true` if a topic's producer notes the time of each commit.
    pub(crate) stamps: bool,
    /// `true` if a topic of values may be opened as one of byte strings, to be read.
    pub(crate) any_type: bool,
    /// The number of slots of each producer of a topic; `None` for as many as it may need.
    pub(crate) pool: Option<u64>,
    /// The largest capacity; `None` for one that is fixed.
    max_capacity: Option<u64>,
    grow: Grow,
    shrink: Shrink,
    kind: PhantomData<fn() -> K>,
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("geometry", &self.geometry)
            .field("huge", &self.huge)
            .field("mode", &format_args!("{:#o}", self.mode))
            .field("exact", &self.exact)
            .field("sealed", &self.sealed)
            .field("ephemeral", &self.ephemeral)
            .field("patience", &self.patience)
            .field("seek", &self.seek)
            .field("handling", &self.handling)
            .finish_non_exhaustive()
    }
}

// By hand: a derive would require `K: Clone`, but `K` is only a name.
impl<K> Clone for Builder<K> {
    fn clone(&self) -> Self {
        Builder { ..*self }
    }
}

impl<K> Builder<K> {
    /// Returns this builder as one of kind `L`. The caller sets what differs in the geometry.
    pub(crate) fn of_kind<L>(self) -> Builder<L> {
        Builder {
            geometry: self.geometry,
            metadata: self.metadata,
            huge: self.huge,
            mode: self.mode,
            exact: self.exact,
            sealed: self.sealed,
            ephemeral: self.ephemeral,
            patience: self.patience,
            waiting: self.waiting,
            seek: self.seek,
            handling: self.handling,
            stamps: self.stamps,
            any_type: self.any_type,
            pool: self.pool,
            max_capacity: self.max_capacity,
            grow: self.grow,
            shrink: self.shrink,
            kind: PhantomData,
        }
    }
}

/// The seats of a channel with several producers and consumers: see [`CrowdKind`].
impl<K: CrowdKind> Builder<K> {
    /// Sets the number of producer seats: from 1 to 63, 4 KiB each. Checked when the channel is made.
    #[must_use]
    pub fn producers(mut self, producers: usize) -> Self {
        self.geometry.producers = producers as u64;
        self
    }

    /// Sets the number of consumer seats: from 1 to 63, 4 KiB each. Checked when the channel is made.
    #[must_use]
    pub fn consumers(mut self, consumers: usize) -> Self {
        self.geometry.consumers = consumers as u64;
        self
    }
}

impl<K: Kind> Builder<K> {
    pub(crate) fn with(geometry: Geometry) -> Self {
        Builder {
            geometry,
            metadata: Ok([0; METADATA]),
            huge: HugePages::Off,
            mode: 0o600,
            exact: false,
            sealed: false,
            ephemeral: false,
            patience: Duration::from_secs(1),
            waiting: Waiting::default(),
            seek: Seek::default(),
            handling: Handling::default(),
            stamps: false,
            any_type: false,
            pool: None,
            max_capacity: None,
            grow: Grow::default(),
            shrink: Shrink::default(),
            kind: PhantomData,
        }
    }

    /// Stores up to 256 bytes for the channel's users in its header, padded with zeros. They are
    /// fixed once the channel is made. Making a channel with more bytes fails with
    /// [`Metadata`](SetupError::Metadata).
    #[must_use]
    pub fn metadata(mut self, bytes: &[u8]) -> Self {
        let mut metadata = [0; METADATA];
        self.metadata = match metadata.get_mut(..bytes.len()) {
            Some(front) => {
                front.copy_from_slice(bytes);
                Ok(metadata)
            }
            None => Err(bytes.len()),
        };
        self
    }

    /// Asks for huge pages for the data part. If none are available, the data part gets ordinary
    /// pages; [`Channel::pages`] tells so, and why.
    #[must_use]
    pub fn huge_pages(mut self, size: HugePages) -> Self {
        self.huge = size;
        self
    }

    /// Sets the permissions of a named channel's files, as for `chmod`. The default is 0o600: the
    /// owner alone.
    ///
    /// Taking a role needs read and write permission; watching needs read permission. Beware: any
    /// process that may read can also lock a seat's byte, and so keep others from the role. The
    /// umask does not apply. In a setgid directory, all files belong to the directory's group.
    ///
    /// The directory must let others in as well. The default directory does not, so set
    /// `SLIPRING_DIR` for channels that several users share.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o666;
        self
    }

    /// Makes it an error ([`Geometry`](SetupError::Geometry)) to open a channel with sizes other
    /// than this builder's. By default an existing channel keeps its sizes: see
    /// [`Channel::differences`]. Only kind, payload, and the behaviour when full must match.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Lets only this process write the messages of a channel that it makes with
    /// [`memfd`](Self::memfd).
    ///
    /// Processes that receive the channel can only read the messages, whatever they do: the data
    /// part carries `F_SEAL_FUTURE_WRITE`. The control part stays writable by both sides.
    ///
    /// The price: the producer must always be in this process, and taking the role elsewhere
    /// returns [`Sealed`](SetupError::Sealed). So the producer has no successor when the process
    /// dies.
    ///
    /// Only memfds can be sealed: making a channel elsewhere returns
    /// [`NotSealable`](SetupError::NotSealable).
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// Makes each handle of this builder remove its named channel on drop, if no seat is held any
    /// more and nothing is unread. By default a named channel outlives its processes until a user
    /// removes it.
    ///
    /// In `spsc` and `bytes`, two things count as *unread*: a message not yet released, and an end
    /// that no consumer has seen. So a consumer that got [`Disconnected`](crate::Error::Disconnected)
    /// removes the channel, and a producer that leaves first does not. Set this option where
    /// consumers are made. In `broadcast`, each consumer chooses where it begins; there the last
    /// handle to leave removes the channel, with its messages.
    ///
    /// A handle that aborts, panics or is killed removes nothing. A handle that lacks the
    /// permission removes nothing either. The channel then stays until the next such handle, or
    /// `slipring rm --unused`, removes it. A handle that is killed halfway through the removal
    /// leaves files that the next creator sweeps.
    ///
    /// A process that opens the channel at that moment either gets it before it is removed, or
    /// makes a new one. The option does nothing to channels without a name.
    ///
    /// ```no_run
    /// use slipring::{Error, SetupError, bytes};
    ///
    /// let mut rx = bytes::Builder::new(1 << 16).ephemeral().consumer("transfer-17")?;
    /// loop {
    ///     match rx.read() {
    ///         Ok(record) => println!("{} bytes", record.len()),
    ///         Err(Error::Disconnected(_)) => break,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// drop(rx);       // and the channel is gone
    /// # Ok::<(), SetupError>(())
    /// ```
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Sets how long to wait while another process repairs a dead holder's seat, before
    /// [`Recovering`](SetupError::Recovering). The default is one second; a repair takes
    /// microseconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets how the waiting calls of the handles wait. The default polls for 50 µs, then sleeps.
    /// Each side chooses for itself, and a handle can change its choice with `set_wait`.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.waiting.wait = wait;
        self
    }

    /// Sets how long a waiting call sleeps at most before it checks the other side by itself. The
    /// default is 4 ms.
    ///
    /// The check detects that the other side's holder died. It also finds a message whose publisher
    /// was killed before it could wake the waiter. A longer interval costs less when idle, and
    /// detects deaths later.
    ///
    /// After a second without success, a call waits on its pipe instead, if two more descriptors
    /// are available. The pipe reports deaths by itself and costs next to nothing. A producer that
    /// waits for the slowest of many consumers keeps checking.
    ///
    /// On the heap, where no end can die alone, the interval is at least a second.
    #[must_use]
    pub fn check_every(mut self, check_every: Duration) -> Self {
        self.waiting.check_every = check_every;
        self
    }

    /// Makes a new named channel. Returns [`AlreadyExists`](SetupError::AlreadyExists) if there is
    /// one, which is not touched.
    ///
    /// The channel appears whole or not at all: the next creator sweeps the files of a creator that
    /// was killed halfway. Other [errors](Self#errors): of making, by a name.
    pub fn create(&self, name: &str) -> Result<Channel<K>, SetupError> {
        let region = Region::create(&Name::new(name)?, &self.open_plan()?)?;
        self.channel(region)
    }

    /// Opens a named channel. Returns [`NotFound`](SetupError::NotFound) if there is none. Other
    /// [errors](Self#errors): of opening, by a name.
    pub fn open(&self, name: &str) -> Result<Channel<K>, SetupError> {
        let region = Region::open(&Name::new(name)?)?;
        self.channel(region)
    }

    /// Opens a named channel, or makes it, so that either side may come first.
    /// [Errors](Self#errors): of making, of opening, by a name.
    pub fn open_or_create(&self, name: &str) -> Result<Channel<K>, SetupError> {
        let plan = self.open_plan()?;
        let name = Name::new(name)?;
        loop {
            match Region::open(&name) {
                Err(SetupError::NotFound { .. }) => match Region::create(&name, &plan) {
                    // Another process made it in between, or made and removed it: try again.
                    Err(SetupError::AlreadyExists { .. }) => {}
                    made => return self.channel(made?),
                },
                opened => return self.channel(opened?),
            }
        }
    }

    /// Takes the writing role of a named channel, and makes the channel if it does not exist.
    /// [Errors](Self#errors): of making, of opening, by a name, of taking a role (such as
    /// [`RoleTaken`](SetupError::RoleTaken)).
    pub fn producer(&self, name: &str) -> Result<Producer<K>, SetupError> {
        self.taken(name, Channel::take_producer)
    }

    /// Takes the reading role of a named channel, and makes the channel if it does not exist.
    /// [Errors](Self#errors): of making, of opening, by a name, of taking a role (such as
    /// [`RoleTaken`](SetupError::RoleTaken)).
    pub fn consumer(&self, name: &str) -> Result<Consumer<K>, SetupError> {
        self.taken(name, Channel::take_consumer)
    }

    fn taken<H>(
        &self,
        name: &str,
        take: impl Fn(&Channel<K>) -> Result<Option<H>, SetupError>,
    ) -> Result<H, SetupError> {
        loop {
            // `None`: the channel was removed, and perhaps remade, before we took the seat.
            if let Some(handle) = take(&self.open_or_create(name)?)? {
                return Ok(handle);
            }
        }
    }

    /// Makes a channel in this process's own memory, for its threads, and takes both roles.
    /// [Errors](Self#errors): of making, of taking a role.
    pub fn channel_pair(&self) -> Result<(Producer<K>, Consumer<K>), SetupError> {
        let channel = self.heap()?;
        Ok((channel.producer()?, channel.consumer()?))
    }

    /// Makes a channel in this process's own memory. [Errors](Self#errors): of making.
    pub fn heap(&self) -> Result<Channel<K>, SetupError> {
        let region = Region::heap(&self.open_plan()?)?;
        self.channel(region)
    }

    /// Makes a channel without a name, in two sealed memfds, to pass to a child or over a Unix
    /// socket.
    ///
    /// See [`handover`](crate::handover), or [`Channel::descriptors`] and
    /// [`from_fds`](Self::from_fds). [Errors](Self#errors): of making.
    ///
    /// ```
    /// use slipring::bytes;
    ///
    /// let builder = bytes::Builder::new(4096);
    /// let channel = builder.memfd()?;
    /// let passed = channel.descriptors().iter().map(|fd| fd.try_clone_to_owned()).collect::<Result<_, _>>()?;
    /// let mut rx = builder.from_fds(passed)?.consumer()?;      // in the other process
    /// channel.producer()?.push(b"over there")?;
    /// assert_eq!(&*rx.read()?, b"over there");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn memfd(&self) -> Result<Channel<K>, SetupError> {
        self.passed(Region::memfd(&self.plan()?)?)
    }

    /// Opens the channel whose [`descriptors`](Channel::descriptors) another process passed, in
    /// their order.
    ///
    /// The descriptors must be memfds sealed against resizing, and one pipe for each seat; anything
    /// else is [`BadDescriptor`](SetupError::BadDescriptor). Needs /proc
    /// ([`NeedsProc`](SetupError::NeedsProc)). Other [errors](Self#errors): of opening.
    pub fn from_fds(&self, descriptors: Vec<OwnedFd>) -> Result<Channel<K>, SetupError> {
        self.passed(Region::from_fds(descriptors)?)
    }

    /// Returns the length in bytes of the control part of such a channel.
    pub fn control_len(&self) -> usize {
        self.shape().control_len()
    }

    /// Returns the length in bytes of the data part of such a channel.
    pub fn data_len(&self) -> u64 {
        self.shape().data_len()
    }

    /// Makes a channel in the caller's memory, whose contents are lost.
    ///
    /// Returns [`Truncated`](SetupError::Truncated) if the memory is shorter than
    /// [`control_len`](Self::control_len) or [`data_len`](Self::data_len). Returns
    /// [`Misaligned`](SetupError::Misaligned) if it begins at the wrong alignment. Other
    /// [errors](Self#errors): of making. Borrowed memory has no kernel locks, so nothing detects
    /// that a holder died.
    ///
    /// # Safety
    /// Both parts must be valid for reads and writes until the last handle and the channel are
    /// dropped. In every process, only slipring, or code that follows FORMAT.md, may use them.
    /// Their addresses must meet the alignment that [`Borrowed`] names.
    pub unsafe fn format_in(&self, memory: Borrowed) -> Result<Channel<K>, SetupError> {
        let plan = self.open_plan()?;
        // SAFETY: the caller's promise.
        self.channel(unsafe { Region::format_in(memory, &plan) }?)
    }

    /// Opens the channel that an earlier [`format_in`](Self::format_in) made in this memory.
    /// Returns [`Truncated`](SetupError::Truncated), [`Misaligned`](SetupError::Misaligned), and
    /// the [errors](Self#errors) of opening.
    ///
    /// # Safety
    /// The caller must keep the promises of [`format_in`](Self::format_in).
    pub unsafe fn attach_in(&self, memory: Borrowed) -> Result<Channel<K>, SetupError> {
        // SAFETY: the caller's promise.
        self.channel(unsafe { Region::attach_in(memory) }?)
    }

    /// Returns the shape of the channel that this builder makes.
    fn shape(&self) -> Geometry {
        let Geometry {
            capacity,
            consumers,
            pins,
            ..
        } = self.geometry;
        let pool = match self.geometry.kind.spec().has_pool {
            true => self
                .pool
                .unwrap_or(Geometry::pool_of(capacity, consumers, pins)),
            false => 0,
        };
        // Pages come and go whole.
        let growth = self.max_capacity.map(|max_capacity| Growth {
            max_capacity,
            grain: self.huge.bytes() as u64,
        });
        Geometry {
            pool,
            growth,
            ..self.geometry
        }
    }

    fn plan(&self) -> Result<Plan, SetupError> {
        // Nobody could give memory back.
        if self.sealed && self.max_capacity.is_some() {
            return Err(SetupError::NotSealable);
        }
        let metadata = self.metadata.map_err(|found| SetupError::Metadata {
            found,
            max: METADATA,
        })?;
        let shape = self.shape();
        shape.check().map_err(|error| self.in_words(error))?;
        let geometry = Geometry {
            skew: next_skew(),
            ..shape
        };
        Ok(Plan {
            geometry,
            schema: K::schema(),
            metadata,
            huge: self.huge,
            mode: self.mode,
            sealed: self.sealed,
        })
    }

    /// Returns a plan for memory that cannot be sealed.
    fn open_plan(&self) -> Result<Plan, SetupError> {
        if self.sealed {
            return Err(SetupError::NotSealable);
        }
        self.plan()
    }

    /// Translates an error about a header word into an error about the value that the user chose.
    fn in_words(&self, error: FormatError) -> SetupError {
        let FormatError::Corrupt(corrupt) = error else {
            return error.into();
        };
        let (found, max) = (corrupt.found, corrupt.expected);
        match corrupt.word {
            "slot_size" if self.geometry.kind.spec().unit == Unit::Bytes => SetupError::MaxRecord {
                found: found.saturating_sub(8),
                max: self.geometry.capacity - 8,
            },
            "slot_size" => SetupError::MaxRecord {
                found,
                max: match self.geometry.kind.spec().has_pool {
                    true => max,
                    false => u32::MAX.into(),
                },
            },
            "consumers" => SetupError::Consumers { found, max },
            "producers" => setting("producers", found, 1, max),
            // A consumer has one pin besides those for what it holds.
            "pins" => setting("held", found.saturating_sub(1), 0, max - 1),
            "max_capacity" => setting("max_capacity", found, self.geometry.capacity, max),
            "pool" => setting("pool", found, self.geometry.capacity + 1, max),
            _ => corrupt.into(),
        }
    }

    fn passed(&self, (region, passed): (Region, Arc<Passed>)) -> Result<Channel<K>, SetupError> {
        let mut channel = self.channel(region)?;
        channel.passed = Some(passed);
        Ok(channel)
    }

    /// Checks that a region matches this builder.
    fn channel(&self, region: Region) -> Result<Channel<K>, SetupError> {
        let header = &region.header;
        let (found, asked) = (&header.geometry, &self.shape());
        if found.kind != asked.kind {
            return Err(SetupError::Kind {
                found: found.kind.name(),
                expected: asked.kind.name(),
            });
        }
        if let Some(schema) = K::schema() {
            let same = header.fingerprint == schema.fingerprint
                && found.slot_size == asked.slot_size
                && found.slot_align == asked.slot_align;
            if !same {
                return Err(SetupError::Schema(mismatch(header, &schema).into()));
            }
        }
        if K::schema().is_none() && !self.any_type {
            refuse_values(header)?;
        }
        if found.when_full != asked.when_full {
            return Err(SetupError::WhenFull {
                found: policy(found.when_full),
                expected: policy(asked.when_full),
            });
        }
        if self.exact
            && let Some(first) = Difference::between(found, asked).first()
        {
            return Err(SetupError::Geometry {
                word: first.word,
                found: first.found,
                expected: first.asked,
            });
        }
        Ok(Channel {
            region: Arc::new(region),
            passed: None,
            terms: Terms {
                asked: self.shape(),
                ephemeral: self.ephemeral,
                patience: self.patience,
                waiting: self.waiting,
                seek: self.seek,
                handling: self.handling,
                stamps: self.stamps,
                sizing: growth::sizing(self.grow, self.shrink),
            },
            kind: PhantomData,
        })
    }
}

/// Refuses a channel whose messages are values of a type.
pub(crate) fn refuse_values(header: &Header) -> Result<(), SetupError> {
    match header.fingerprint {
        0 => Ok(()),
        _ => Err(SetupError::Schema(mismatch(header, &RECORDS).into())),
    }
}

fn setting(setting: &'static str, found: u64, min: u64, max: u64) -> SetupError {
    SetupError::Setting {
        setting,
        found,
        min,
        max,
    }
}

/// Returns the description, for error messages, of what a channel does when it is full.
fn policy(when_full: WhenFull) -> &'static str {
    match when_full {
        WhenFull::Wait => "waits for its slowest consumer",
        WhenFull::Overwrite => "overwrites its oldest messages",
    }
}

/// Returns the skew of a new channel. It differs from those of the last few channels (see
/// `Geometry::role_offset`), and probably from that of a channel that a neighbouring process makes.
fn next_skew() -> u64 {
    static MADE: AtomicU64 = AtomicU64::new(0);
    // Relaxed: any value is right.
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let turn = u64::from(std::process::id()).wrapping_add(made) % 3;
    // The steps of the two seats are 3 and 4, 5 and 6, or 7 and 0. Step 2 is where the seat table
    // lies in its page, and step 1 where the wait cells lie; both are loaded all the time.
    (3 + 2 * turn) * SKEW_STEP as u64
}

/// The schema of a channel of byte strings, for error messages: it has none.
const RECORDS: Schema = Schema {
    name: "records",
    version: 0,
    size: 0,
    align: 1,
    fingerprint: 0,
};

fn mismatch(header: &Header, schema: &Schema) -> SchemaMismatch {
    let name = shm::schema_name(header);
    SchemaMismatch {
        found: (
            name,
            header.schema_version,
            header.geometry.slot_size,
            header.fingerprint,
        ),
        expected: (
            schema.name.into(),
            schema.version.into(),
            schema.size as u64,
            schema.fingerprint,
        ),
    }
}

//! What all kinds share: the builder, and the channel as memory that roles are taken of.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slipring_core::broadcast::Seek;
use slipring_core::layout::{self, Geometry, Header, METADATA, SKEW_STEP, WhenFull};
use slipring_core::{Schema, bytes};

use crate::error::{Error, SchemaMismatch};
use crate::name::Name;
use crate::region::{Borrowed, HugePages, Pages, Passed, Plan, Region};
use crate::seat::{Role, Seat};
use crate::waiting::{Wait, Waiting};

/// A kind of channel: which handles it has. Sealed; the kinds are slipring's.
pub trait Kind: sealed::Sealed {
    /// The writing handle.
    type Producer;
    /// The reading handle.
    type Consumer;

    /// The payload's schema, for kinds that carry a type.
    #[doc(hidden)]
    fn schema() -> Option<Schema>;
    #[doc(hidden)]
    fn producer(seat: SeatToken) -> Result<Self::Producer, Error>;
    #[doc(hidden)]
    fn consumer(seat: SeatToken) -> Result<Self::Consumer, Error>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// A seat, in a trait that the outside can see but not call.
pub struct SeatToken(pub(crate) Seat, pub(crate) Seek);

/// How a channel is to be made, or what is expected of one that exists.
///
/// The same for every kind; see the kinds' own pages for how to begin one.
///
/// ```
/// use slipring::{Error, HugePages, spsc};
///
/// let builder = spsc::Builder::<u64>::new(1024).metadata(b"prices, in cents").huge_pages(HugePages::TwoMiB);
/// let channel = builder.memfd()?;
/// assert_eq!(&channel.metadata()[..6], b"prices");
/// if let Some(why) = &channel.pages().reason {
///     println!("ordinary pages: {why}");
/// }
/// let tx = channel.producer()?;
/// assert!(matches!(channel.producer(), Err(Error::RoleTaken { .. })));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// *Making* a channel, wherever: `Capacity`, `MaxRecord`, `Consumers` or `Metadata` for what no channel can
/// have, before anything is touched; `NoSpace` if the memory is not to be had (all of it is, before the
/// channel appears), or a limit on files (`ulimit -f`) forbids it; `FileSystem` where no space can be set
/// aside; `NotSealable` for [`sealed`](Self::sealed) anywhere but in memfds.
///
/// *Opening* one that exists: `NotAChannel`, `Version`, `Truncated`, `Corrupt` for what lies there, `Kind`,
/// `Schema`, `WhenFull` or (with [`exact`](Self::exact)) `Geometry` for a channel that is another; it is not
/// touched. Other sizes are no error: what exists wins, and `differences` of the channel and its handles says so.
///
/// By a *name*: `BadName`; `NoDirectory`, `Directory`, `UnsafeDirectory` or `Permission` for where it lies, `NotFound`,
/// `AlreadyExists`.
///
/// *Taking a role*: `RoleTaken`, or of `broadcast`'s consumers `TooManyReaders`; `Recovering` after the
/// [`patience`](Self::patience) for somebody else's repair; `Sealed` for a producer that may not write;
/// `Ahead` for a consumer that was to begin at a message not yet there ([`broadcast`](crate::broadcast)'s
/// `join`); `Corrupt`; `Forked` for heap memory that a fork copied. A seat whose holder died is repaired
/// first.
///
/// And `Os`, with what the system said, for every other refusal of its (descriptors run out, say). None of these
/// calls waits for the other side.
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
    /// Where a consumer of `broadcast` begins.
    pub(crate) seek: Seek,
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
            .finish_non_exhaustive()
    }
}

// By hand: a derive would ask that the kind, which is only a name, can be cloned.
impl<K> Clone for Builder<K> {
    fn clone(&self) -> Self {
        Builder { ..*self }
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
            kind: PhantomData,
        }
    }

    /// Up to 256 bytes for the channel's users, kept in its header, padded with zeros. Fixed once
    /// the channel is made; more is an error then (`Metadata`).
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

    /// Asks for huge pages for the data part. If there are none it is made with ordinary pages, and
    /// [`Channel::pages`] says so and why.
    #[must_use]
    pub fn huge_pages(mut self, size: HugePages) -> Self {
        self.huge = size;
        self
    }

    /// The permissions of a named channel's files, as for `chmod` (default 0o600: the owner alone).
    /// Taking a role needs read and write, looking on needs read. (Who may read can also lock a seat's
    /// byte, and so keep others from the role.) The umask has no say, and in a setgid directory all belongs
    /// to its group. The directory above must let others in as well: the default one does not, so set
    /// `SLIPRING_DIR` for channels to share.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o666;
        self
    }

    /// Makes it an error (`Geometry`) to open a channel with other sizes than this builder's. Without it, what
    /// exists wins (see [`Channel::differences`]); only kind, payload, and what happens when it is full must match.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Lets only this process write the messages of a channel that it makes with [`memfd`](Self::memfd):
    /// those to whom it is handed over may read them, and no more, whatever they do (`F_SEAL_FUTURE_WRITE`
    /// on the data part). The price: the producer is always in this process (`Sealed` elsewhere), so
    /// it has no successor when the process dies. The control part stays writable by both sides.
    ///
    /// Only memfds can be sealed: making a channel elsewhere is `NotSealable`.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// Has each handle of this builder remove its named channel when it is dropped and nobody is left to use it: no
    /// seat is held, and nothing is unread. Without it a named channel outlives its processes until somebody
    /// removes it.
    ///
    /// *Unread*, in `spsc` and `bytes`, is a message that was not released, and an end that no consumer was told
    /// of. So a consumer that was told `Disconnected` removes the channel, and a producer that leaves first does
    /// not: set it where consumers are made. In `broadcast`, whose consumers each begin where they ask to, whoever
    /// leaves last removes it, with the messages.
    ///
    /// A handle that aborts, panics or is killed removes nothing, and neither does one that cannot (no
    /// permission, say): then the channel stays as any other, for the next such handle or `slipring rm --unused`.
    /// Killed halfway through the removal, it leaves what the next creator sweeps. Whoever opens the
    /// channel at that moment gets it before it is removed, or makes a new one. Nothing happens to
    /// channels without a name.
    ///
    /// ```no_run
    /// use slipring::{Error, bytes};
    ///
    /// let mut rx = bytes::Builder::new(1 << 16).ephemeral().consumer("transfer-17")?;
    /// loop {
    ///     match rx.read() {
    ///         Ok(record) => println!("{} bytes", record.len()),
    ///         Err(Error::Disconnected(_)) => break,
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// drop(rx);       // and the channel is gone
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// How long to wait for another process that is repairing a dead holder's seat, before
    /// `Recovering` (default one second; a repair takes microseconds).
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How the waiting calls of the handles pass their time (default: poll for 50 µs, then sleep). Each
    /// side chooses for itself; a handle may change its mind, see `set_wait`.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.waiting.wait = wait;
        self
    }

    /// How long a waiting call sleeps at most before it looks by itself: whether the other end's holder
    /// is still alive, and whether something came whose publisher was killed before it could tell
    /// (default 4 ms). Longer costs less when idle, and learns of deaths later. After a second in vain a
    /// call goes over to its pipe (two descriptors more, if they are to be had), which tells of deaths by
    /// itself, and costs next to nothing; a producer that waits for the slowest of many goes on looking. On the
    /// heap, where nobody dies alone, this is a second at least.
    #[must_use]
    pub fn check_every(mut self, check_every: Duration) -> Self {
        self.waiting.check_every = check_every;
        self
    }

    /// Makes a new named channel; `AlreadyExists` if there is one, which is not touched. It appears whole, or
    /// not at all: what a creator leaves that is killed halfway, the next one sweeps. Other
    /// [errors](Self#errors): of making, by a name.
    pub fn create(&self, name: &str) -> Result<Channel<K>, Error> {
        let region = Region::create(&Name::new(name)?, &self.open_plan()?)?;
        self.channel(region)
    }

    /// Opens a named channel; `NotFound` if there is none. Other [errors](Self#errors): of opening, by a name.
    pub fn open(&self, name: &str) -> Result<Channel<K>, Error> {
        let region = Region::open(&Name::new(name)?)?;
        self.channel(region)
    }

    /// Opens a named channel, or makes it: either side may come first. [Errors](Self#errors): of making, of
    /// opening, by a name.
    pub fn open_or_create(&self, name: &str) -> Result<Channel<K>, Error> {
        let plan = self.open_plan()?;
        let name = Name::new(name)?;
        loop {
            match Region::open(&name) {
                Err(Error::NotFound { .. }) => match Region::create(&name, &plan) {
                    // Somebody made it in between, or made and removed it: look again.
                    Err(Error::AlreadyExists { .. }) => {}
                    made => return self.channel(made?),
                },
                opened => return self.channel(opened?),
            }
        }
    }

    /// Takes the writing role of a named channel, which is made if it does not exist. [Errors](Self#errors):
    /// of making, of opening, by a name, of taking a role (`RoleTaken`, and so on).
    pub fn producer(&self, name: &str) -> Result<K::Producer, Error> {
        K::producer(SeatToken(self.seat(name, Role::Producer)?, self.seek))
    }

    /// Takes the reading role of a named channel, which is made if it does not exist. [Errors](Self#errors):
    /// of making, of opening, by a name, of taking a role (`RoleTaken`, `TooManyReaders`, and so on).
    pub fn consumer(&self, name: &str) -> Result<K::Consumer, Error> {
        K::consumer(SeatToken(self.seat(name, Role::Consumer)?, self.seek))
    }

    fn seat(&self, name: &str, role: Role) -> Result<Seat, Error> {
        loop {
            // Nothing: the channel was removed (and perhaps remade) before we sat down.
            if let Some(seat) = self.open_or_create(name)?.take(role)? {
                return Ok(seat);
            }
        }
    }

    /// Makes a channel in memory of this process alone, for its threads, and takes both roles.
    /// [Errors](Self#errors): of making, of taking a role.
    pub fn channel_pair(&self) -> Result<(K::Producer, K::Consumer), Error> {
        let channel = self.heap()?;
        Ok((channel.producer()?, channel.consumer()?))
    }

    /// Makes a channel in memory of this process alone. [Errors](Self#errors): of making.
    pub fn heap(&self) -> Result<Channel<K>, Error> {
        let region = Region::heap(&self.open_plan()?)?;
        self.channel(region)
    }

    /// Makes a channel without a name, in two sealed memfds, for a child or to be sent over a Unix
    /// socket: see [`handover`](crate::handover), or [`Channel::descriptors`] and
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
    pub fn memfd(&self) -> Result<Channel<K>, Error> {
        self.passed(Region::memfd(&self.plan()?)?)
    }

    /// The channel in the [`descriptors`](Channel::descriptors) that another process passed, in their
    /// order. Anything but memfds sealed against resizing, and a pipe a seat, is `BadDescriptor`. Needs
    /// /proc (`NeedsProc`). Other [errors](Self#errors): of opening.
    pub fn from_fds(&self, descriptors: Vec<OwnedFd>) -> Result<Channel<K>, Error> {
        self.passed(Region::from_fds(descriptors)?)
    }

    /// The bytes that the control part of such a channel takes.
    pub fn control_len(&self) -> usize {
        self.geometry.control_len()
    }

    /// The bytes that the data part of such a channel takes.
    pub fn data_len(&self) -> u64 {
        self.geometry.data_len()
    }

    /// Makes a channel in the caller's memory, whose contents are lost. `Truncated` or `Misaligned` for
    /// memory that is too short ([`control_len`](Self::control_len), [`data_len`](Self::data_len)), or begins
    /// in the wrong place; other [errors](Self#errors): of making. There are no kernel locks in borrowed
    /// memory: that a holder died, nobody finds out.
    ///
    /// # Safety
    /// Both parts are valid for reads and writes until the last handle and the channel are dropped,
    /// nothing else in any process uses them but slipring (or what keeps to FORMAT.md), and their
    /// addresses meet the alignment that [`Borrowed`] names.
    pub unsafe fn format_in(&self, memory: Borrowed) -> Result<Channel<K>, Error> {
        let plan = self.open_plan()?;
        // SAFETY: the caller's promise.
        self.channel(unsafe { Region::format_in(memory, &plan) }?)
    }

    /// The channel that somebody made in this memory with [`format_in`](Self::format_in): `Truncated`,
    /// `Misaligned`, and the [errors](Self#errors) of opening.
    ///
    /// # Safety
    /// As for [`format_in`](Self::format_in).
    pub unsafe fn attach_in(&self, memory: Borrowed) -> Result<Channel<K>, Error> {
        // SAFETY: the caller's promise.
        self.channel(unsafe { Region::attach_in(memory) }?)
    }

    fn plan(&self) -> Result<Plan, Error> {
        let metadata = self.metadata.map_err(|found| Error::Metadata {
            found,
            max: METADATA,
        })?;
        self.geometry
            .check()
            .map_err(|error| self.in_words(error))?;
        let geometry = Geometry {
            skew: next_skew(),
            ..self.geometry
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

    /// A plan for memory that cannot be sealed.
    fn open_plan(&self) -> Result<Plan, Error> {
        if self.sealed {
            return Err(Error::NotSealable);
        }
        self.plan()
    }

    /// What is a word of the header to the core, here a user chose.
    fn in_words(&self, error: slipring_core::Error) -> Error {
        let slipring_core::Error::Corrupt(corrupt) = error else {
            return error.into();
        };
        let (found, max) = (corrupt.found, corrupt.expected);
        match corrupt.word {
            "slot_size" => Error::MaxRecord {
                found: found.saturating_sub(8),
                max: self.geometry.capacity - 8,
            },
            "consumers" => Error::Consumers { found, max },
            _ => corrupt.into(),
        }
    }

    fn passed(&self, (region, passed): (Region, Arc<Passed>)) -> Result<Channel<K>, Error> {
        let mut channel = self.channel(region)?;
        channel.passed = Some(passed);
        Ok(channel)
    }

    /// Checks that a region is what this builder speaks of.
    fn channel(&self, region: Region) -> Result<Channel<K>, Error> {
        let header = &region.header;
        let (found, asked) = (&header.geometry, &self.geometry);
        if found.kind != asked.kind {
            return Err(Error::Kind {
                found: found.kind.name(),
                expected: asked.kind.name(),
            });
        }
        if let Some(schema) = K::schema() {
            let same = header.fingerprint == schema.fingerprint
                && found.slot_size == asked.slot_size
                && found.slot_align == asked.slot_align;
            if !same {
                return Err(Error::Schema(mismatch(header, &schema).into()));
            }
        }
        if found.when_full != asked.when_full {
            return Err(Error::WhenFull {
                found: policy(found.when_full),
                expected: policy(asked.when_full),
            });
        }
        if self.exact
            && let Some(first) = Difference::between(found, asked).first()
        {
            return Err(Error::Geometry {
                word: first.word,
                found: first.found,
                expected: first.asked,
            });
        }
        Ok(Channel {
            region: Arc::new(region),
            asked: self.geometry,
            ephemeral: self.ephemeral,
            passed: None,
            patience: self.patience,
            waiting: self.waiting,
            seek: self.seek,
            kind: PhantomData,
        })
    }
}

/// What a channel does when it is full, for messages.
fn policy(when_full: WhenFull) -> &'static str {
    match when_full {
        WhenFull::Wait => "waits for its slowest consumer",
        WhenFull::Overwrite => "overwrites its oldest messages",
    }
}

/// A size in which a channel that exists differs from what was asked for. What exists wins, unless the builder
/// insists ([`exact`](Builder::exact)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Which size: `capacity` (slots, or bytes of the ring), `largest record` (bytes), `consumer seats`.
    pub word: &'static str,
    /// What the channel has.
    pub found: u64,
    /// What was asked for.
    pub asked: u64,
}

impl Difference {
    pub(crate) fn between(found: &Geometry, asked: &Geometry) -> Vec<Difference> {
        // (Of the other kinds the slot is the payload, which was compared.)
        let record = |geometry: &Geometry| geometry.slot_size - bytes::PREFIX;
        let mut sizes = vec![
            ("capacity", found.capacity, asked.capacity),
            ("consumer seats", found.consumers, asked.consumers),
        ];
        if found.kind == layout::Kind::Bytes {
            sizes.insert(1, ("largest record", record(found), record(asked)));
        }
        let differ = sizes.into_iter().filter(|(_, found, asked)| found != asked);
        differ
            .map(|(word, found, asked)| Difference { word, found, asked })
            .collect()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { word, found, asked } = self;
        write!(f, "{word} {found} instead of {asked}")
    }
}

/// A skew for a new channel: another one than that of the last few (see `Geometry::role_offset`), and
/// probably another one than that of a channel that a neighbouring process makes.
fn next_skew() -> u64 {
    static MADE: AtomicU64 = AtomicU64::new(0);
    // Relaxed: any value is right.
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let turn = u64::from(std::process::id()).wrapping_add(made) % 3;
    // In steps: 3 and 4, 5 and 6, or 7 and 0 for the two seats. Two is where the seat table lies in
    // its page, and one where the bells do; both are loaded all the time.
    (3 + 2 * turn) * SKEW_STEP as u64
}

fn mismatch(header: &Header, schema: &Schema) -> SchemaMismatch {
    let name = schema_name(header);
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

/// The payload's name in a header, made printable: a stranger may have written it.
pub(crate) fn schema_name(header: &Header) -> String {
    let end = header
        .schema_name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(header.schema_name.len());
    String::from_utf8_lossy(&header.schema_name[..end])
        .escape_debug()
        .to_string()
}

/// A channel: its memory, of which the roles can be taken. Holds no seat itself.
pub struct Channel<K> {
    pub(crate) region: Arc<Region>,
    /// What the builder asked for.
    asked: Geometry,
    ephemeral: bool,
    /// What only a channel in memfds has: the descriptors to be passed.
    passed: Option<Arc<Passed>>,
    patience: Duration,
    waiting: Waiting,
    seek: Seek,
    kind: PhantomData<fn() -> K>,
}

impl<K> fmt::Debug for Channel<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("geometry", &self.region.geometry())
            .field("ephemeral", &self.ephemeral)
            .field("patience", &self.patience)
            .field("seek", &self.seek)
            .finish_non_exhaustive()
    }
}

impl<K> Clone for Channel<K> {
    fn clone(&self) -> Self {
        let (region, passed) = (self.region.clone(), self.passed.clone());
        Channel {
            region,
            passed,
            ..*self
        }
    }
}

impl<K: Kind> Channel<K> {
    /// Takes the writing role: `RoleTaken` while another handle in any process has it, `Sealed` where only
    /// its maker may write, `NotFound` if the channel was removed meanwhile; else as
    /// [`Builder`](Builder#errors) says of roles.
    pub fn producer(&self) -> Result<K::Producer, Error> {
        K::producer(SeatToken(self.seat(Role::Producer)?, self.seek))
    }

    /// Takes the reading role: `RoleTaken` while another handle in any process has it, of `broadcast`
    /// `TooManyReaders` while all seats are held, `NotFound` if the channel was removed meanwhile; else as
    /// [`Builder`](Builder#errors) says of roles.
    pub fn consumer(&self) -> Result<K::Consumer, Error> {
        K::consumer(SeatToken(self.seat(Role::Consumer)?, self.seek))
    }

    fn seat(&self, role: Role) -> Result<Seat, Error> {
        self.take(role)?.ok_or_else(|| self.removed())
    }

    /// Takes a seat; nothing if the name leads to another channel by now.
    fn take(&self, role: Role) -> Result<Option<Seat>, Error> {
        let mut seat = Seat::take(&self.region, role, self.patience, self.waiting)?;
        if let Some(seat) = &mut seat {
            seat.asked = self.asked;
            seat.ephemeral = self.ephemeral;
        }
        Ok(seat)
    }

    fn removed(&self) -> Error {
        let place = self
            .region
            .files
            .as_ref()
            .and_then(|files| files.place.as_ref());
        match place {
            Some(place) => place.name.not_found(),
            None => Error::NeedsProc,
        }
    }

    /// The 256 bytes that the channel's creator left for its users.
    pub fn metadata(&self) -> &[u8; METADATA] {
        &self.region.header.metadata
    }

    /// The channel's shape.
    pub fn geometry(&self) -> Geometry {
        self.region.header.geometry
    }

    /// Returns the sizes in which the channel differs from what its builder asked for: what exists wins.
    ///
    /// ```no_run
    /// let builder = slipring::bytes::Builder::new(1 << 20);
    /// for difference in builder.open_or_create("backup")?.differences() {
    ///     eprintln!("the channel exists: {difference}");      // capacity 65536 instead of 1048576
    /// }
    /// # Ok::<(), slipring::Error>(())
    /// ```
    pub fn differences(&self) -> Vec<Difference> {
        Difference::between(self.region.geometry(), &self.asked)
    }

    /// Which pages the data part has, and whether that is what was asked for.
    pub fn pages(&self) -> &Pages {
        &self.region.pages
    }

    /// The descriptors of a channel in memfds, for a child process or a Unix socket: the control part's,
    /// the data part's, and a pipe for each seat, the producer's first. They are close-on-exec. None
    /// for a channel that is found by its name, or that is this process's alone.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.passed {
            Some(passed) => self.region.descriptors(passed),
            None => Vec::new(),
        }
    }

    /// What everybody may know of the channel: see [`crate::inspect`].
    pub fn stat(&self) -> Result<crate::inspect::Stat, Error> {
        crate::inspect::of_region(&self.region)
    }

    /// Removes a named channel: `InUse` while a seat of it is held, `NotRemoved` while its directory holds
    /// anything else, `NotFound` if the name leads elsewhere by now. Memory that somebody still has
    /// mapped stays until they let go. Does nothing for a channel without a name.
    pub fn remove(&self) -> Result<(), Error> {
        self.region.remove()
    }
}

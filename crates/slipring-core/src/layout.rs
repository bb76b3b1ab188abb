//! The memory format: what lies where in a channel's two parts, *control* and *data*.
//!
//! FORMAT.md specifies it byte by byte for readers in any language; this file is its Rust side and
//! the only one that casts bytes. Every offset below is held by a compile-time assertion.
//!
//! ```text
//! control   0      header: magic, geometry, schema, identity, user metadata   (fixed once made)
//!           512    bells: the producers', and at 640 the consumers'
//!           768    members: which consumers the producer waits for; then zeros
//!           1024   seat table: one 128-byte line a seat, producers first
//!           ..     to the next multiple of the page stride
//!           R      role pages: one page stride a seat, in the order of the seats
//! data      0      the payloads
//! ```
//!
//! | word | written by | read by | ordering |
//! |---|---|---|---|
//! | header | the creator, before the magic | everybody, once, at attach | magic: release / acquire |
//! | seat line | the seat's holder | peers, tools | `life`: release / acquire (see `seat.rs`) |
//! | `owner` of a seat line | takers on memory without locks | the same | acquire-release CAS |
//! | bell | sleepers and wakers | publishers | see `wait.rs` |
//! | members | consumers; whoever repairs a dead one's seat | the producer | see `broadcast.rs` |
//! | `gate` of a role page | the producer | consumers that join, and all who copy what may be overwritten | see `broadcast.rs` |
//! | role page | the seat's holder | peers, tools | `position`: release / acquire |

use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::NonNull;

use crate::error::{Corrupt, Error};
pub use crate::geometry::{Geometry, Kind, MOST_SEATS, SKEW_STEP, WhenFull};
use crate::payload::Schema;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The first eight bytes of a channel's control part, stored last: `SLIPRING` in memory order.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SLIPRING");
/// The format version that this code reads and writes.
pub const VERSION: u64 = 1;
/// Words that different roles write are this many bytes apart.
pub const LINE: usize = 128;
/// The stride of role pages, in bytes.
pub const PAGE: usize = 4096;
/// The bytes that a creator may leave in the header for its users.
pub const METADATA: usize = 256;
/// The bytes of the schema's name in the header; longer names are cut.
pub const NAME: usize = 64;
/// Where the bells begin in the control part: one a line, the producers' first.
pub const BELLS: usize = 512;
/// Where the word of the members lies in the control part.
pub const MEMBERS: usize = 768;
/// Where the seat table begins in the control part.
pub const SEATS: usize = 1024;

#[cfg(not(target_endian = "little"))]
compile_error!("the format is little-endian; a big-endian host would need its own reading of it");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("positions meet memory as indices of 64 bits");
#[cfg(not(target_has_atomic = "64"))]
compile_error!("positions are 64-bit atomics");

/// Which creation of a channel this is: two that bear one name differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// The kernel's boot id when the channel was made; zero if unknown.
    pub boot: u128,
    /// A number of its own for every channel ever made.
    pub unique: u128,
    /// When it was made, in nanoseconds since 1970; zero if unknown. For people.
    pub created: u64,
}

/// A private, validated copy of a header. Nothing reads the shared one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The channel's shape.
    pub geometry: Geometry,
    /// The payload's fingerprint (zero for `bytes`).
    pub fingerprint: u128,
    /// The payload's version, as its author counts.
    pub schema_version: u64,
    /// The payload's name, cut to 64 bytes, padded with zeros. For people.
    pub schema_name: [u8; NAME],
    /// Which creation this is.
    pub identity: Identity,
    /// What the creator left for its users.
    pub metadata: [u8; METADATA],
}

/// The words of the header in shared memory, 64 bits each. Offsets in bytes.
#[repr(C, align(128))]
pub struct HeaderWords {
    magic: AtomicU64,            // 0
    version: AtomicU64,          // 8
    kind: AtomicU64,             // 16
    flags: AtomicU64,            // 24: 1 if a full ring is overwritten; else zero
    control_len: AtomicU64,      // 32
    data_len: AtomicU64,         // 40
    page_stride: AtomicU64,      // 48
    producers: AtomicU64,        // 56
    consumers: AtomicU64,        // 64
    capacity: AtomicU64,         // 72
    slot_size: AtomicU64,        // 80
    slot_align: AtomicU64,       // 88
    fingerprint: [AtomicU64; 2], // 96: low half first
    boot: [AtomicU64; 2],        // 112
    unique: [AtomicU64; 2],      // 128
    created: AtomicU64,          // 144
    schema_version: AtomicU64,   // 152
    skew: AtomicU64,             // 160
    reserved: [AtomicU64; 2],    // 168: zero in version 1
    checksum: AtomicU64,         // 184
    schema_name: [AtomicU64; 8], // 192
    metadata: [AtomicU64; 32],   // 256
}

/// The words by which one side of a channel is woken by the other. See `wait.rs`.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Bell {
    /// A bit for each seat of the side that wants to be woken, and `FENCED`.
    pub waiters: AtomicU64, // 0
    /// How often a sleeper came that has no barrier.
    pub epoch: AtomicU64, // 8
    /// What the side sleeps on: bumped when it is woken. The only word of 32 bits.
    pub doorbell: AtomicU32, // 16
    reserved: [AtomicU32; 27],
}

/// The words of a seat: its holder writes them, everybody may read them. See `seat.rs`.
#[repr(C, align(128))]
#[derive(Default)]
pub struct SeatLine {
    /// Generation and state of the seat: who holds it, or how the last holder left.
    pub life: AtomicU64, // 0
    /// On memory without kernel locks: 1 while somebody holds the seat. Zero elsewhere.
    pub owner: AtomicU64, // 8
    /// How the generation before this one ended, when it finished: generation and state.
    pub last_end: AtomicU64, // 16
    /// The position at which it ended.
    pub last_end_position: AtomicU64, // 24
    /// Of a consumer: the latest producer generation whose end it has taken note of.
    pub acknowledged: AtomicU64, // 32
    /// The holder's process id, as it saw it itself. For people.
    pub pid: AtomicU64, // 40
    /// The holder's start time, in clock ticks since boot. For people.
    pub start_time: AtomicU64, // 48
    /// The inode of the holder's pid namespace. For people.
    pub pid_namespace: AtomicU64, // 56
    /// When the holder last gave a sign of life, in nanoseconds since boot. For people.
    pub heartbeat: AtomicU64, // 64
    reserved: [AtomicU64; 7],
}

/// One word alone on its line.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Line(pub AtomicU64);

/// Figures for people, each written by the page's holder alone.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Counters {
    /// Messages committed (producer) or released (consumer).
    pub messages: AtomicU64, // 128
    /// How often the holder found the channel full (producer) or empty (consumer) and had to wait.
    pub waits: AtomicU64, // 136
    /// How often the holder went to sleep.
    pub parks: AtomicU64, // 144
    /// How often the holder woke the other side.
    pub wakes: AtomicU64, // 152
    /// The latest `epoch` of the other side's bell for which the holder fences. Not for people.
    pub fence_ack: AtomicU64, // 160
    /// How the holder is to be woken: 0 by the doorbell, else by its pipe. Not for people.
    pub face: AtomicU64, // 168
    /// Of a consumer: the messages that it lost, because they were given up before it read them.
    pub lagged: AtomicU64, // 176
    /// Of a producer: the seats of dead consumers that it repaired.
    pub recovered: AtomicU64, // 184
    reserved: [AtomicU64; 8],
}

/// The page of a role, written by the holder of its seat alone.
#[repr(C, align(128))]
#[derive(Default)]
pub struct RolePage {
    /// Producer: all before it is committed. Consumer: all before it is released.
    pub position: Line, // 0
    /// Figures for people.
    pub counters: Counters, // 128
    /// Producer of a `broadcast` channel: all before it may be written, so what lies a whole ring before it may
    /// be gone.
    pub gate: Line, // 256
}

/// The words by which one seat is known to others.
#[derive(Clone, Copy)]
pub struct SeatWords<'m> {
    /// Who holds it.
    pub line: &'m SeatLine,
    /// How far its holder is.
    pub position: &'m AtomicU64,
    /// Its holder's figures, and how it is to be woken.
    pub counters: &'m Counters,
}

/// The seats of one side.
#[derive(Clone, Copy)]
pub enum Side<'m> {
    /// The only one.
    One(SeatWords<'m>),
    /// All of them, in the order of their bits.
    Many(&'m [SeatWords<'m>]),
}

impl<'m> Side<'m> {
    /// The seats in the order of their bits.
    pub fn seats(&self) -> &[SeatWords<'m>] {
        match self {
            Side::One(seat) => core::slice::from_ref(seat),
            Side::Many(seats) => seats,
        }
    }
}

#[cfg(not(loom))]
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(HeaderWords, magic) == 0);
    assert!(offset_of!(HeaderWords, version) == 8);
    assert!(offset_of!(HeaderWords, kind) == 16);
    assert!(offset_of!(HeaderWords, flags) == 24);
    assert!(offset_of!(HeaderWords, control_len) == 32);
    assert!(offset_of!(HeaderWords, data_len) == 40);
    assert!(offset_of!(HeaderWords, page_stride) == 48);
    assert!(offset_of!(HeaderWords, producers) == 56);
    assert!(offset_of!(HeaderWords, consumers) == 64);
    assert!(offset_of!(HeaderWords, capacity) == 72);
    assert!(offset_of!(HeaderWords, slot_size) == 80);
    assert!(offset_of!(HeaderWords, slot_align) == 88);
    assert!(offset_of!(HeaderWords, fingerprint) == 96);
    assert!(offset_of!(HeaderWords, boot) == 112);
    assert!(offset_of!(HeaderWords, unique) == 128);
    assert!(offset_of!(HeaderWords, created) == 144);
    assert!(offset_of!(HeaderWords, schema_version) == 152);
    assert!(offset_of!(HeaderWords, skew) == 160);
    assert!(offset_of!(HeaderWords, reserved) == 168);
    assert!(offset_of!(HeaderWords, checksum) == 184);
    assert!(offset_of!(HeaderWords, schema_name) == 192);
    assert!(offset_of!(HeaderWords, metadata) == 256);
    assert!(size_of::<HeaderWords>() == 512);
    assert!(offset_of!(SeatLine, life) == 0);
    assert!(offset_of!(SeatLine, owner) == 8);
    assert!(offset_of!(SeatLine, last_end) == 16);
    assert!(offset_of!(SeatLine, last_end_position) == 24);
    assert!(offset_of!(SeatLine, acknowledged) == 32);
    assert!(offset_of!(SeatLine, pid) == 40);
    assert!(offset_of!(SeatLine, start_time) == 48);
    assert!(offset_of!(SeatLine, pid_namespace) == 56);
    assert!(offset_of!(SeatLine, heartbeat) == 64);
    assert!(size_of::<SeatLine>() == LINE);
    assert!(offset_of!(RolePage, position) == 0);
    assert!(offset_of!(RolePage, counters) == 128);
    assert!(offset_of!(RolePage, gate) == 256);
    assert!(MEMBERS + LINE <= SEATS && BELLS + 2 * LINE <= MEMBERS);
    assert!(offset_of!(Counters, messages) == 0);
    assert!(offset_of!(Counters, waits) == 8);
    assert!(offset_of!(Counters, parks) == 16);
    assert!(offset_of!(Counters, wakes) == 24);
    assert!(offset_of!(Counters, fence_ack) == 32);
    assert!(offset_of!(Counters, face) == 40);
    assert!(offset_of!(Counters, lagged) == 48);
    assert!(offset_of!(Counters, recovered) == 56);
    assert!(size_of::<Counters>() == 128);
    assert!(offset_of!(Bell, waiters) == 0);
    assert!(offset_of!(Bell, epoch) == 8);
    assert!(offset_of!(Bell, doorbell) == 16);
    assert!(size_of::<Bell>() == LINE && BELLS + 2 * LINE <= SEATS);
    assert!(size_of::<RolePage>() <= SKEW_STEP);
};

/// How many words of the header the checksum covers: all but the magic and the checksum itself.
const WORDS: usize = size_of::<[u64; 64]>() / 8;

/// A channel's control part in memory. Only an address: who may write what is the table above.
#[derive(Clone, Copy)]
pub struct Control<'m> {
    base: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'m [AtomicU64]>,
}

// SAFETY: every word behind it is an atomic.
unsafe impl Send for Control<'_> {}
// SAFETY: every word behind it is an atomic.
unsafe impl Sync for Control<'_> {}

impl<'m> Control<'m> {
    /// The control part at `base`; refused if too short for a header or not on a line of 128 bytes.
    ///
    /// # Safety
    /// `base` is valid for `len` initialised bytes during `'m`, which nobody accesses but through
    /// atomics of 64 bits, and the doorbells of 32 (as this code, and every reader that keeps to
    /// FORMAT.md, does).
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Result<Self, Error> {
        if !base.as_ptr().addr().is_multiple_of(LINE) {
            return Err(Error::Misaligned {
                part: "control",
                expected: LINE as u64,
            });
        }
        if len < PAGE {
            return Err(Error::Truncated {
                part: "control",
                found: len as u64,
                expected: PAGE as u64,
            });
        }
        Ok(Control {
            base,
            len,
            memory: PhantomData,
        })
    }

    /// The bytes of the control part.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a control part has at least a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn header(&self) -> &'m HeaderWords {
        // SAFETY: `new` checked alignment and length; atomics may be shared.
        unsafe { self.base.cast::<HeaderWords>().as_ref() }
    }

    /// The header as 64 plain words, in order.
    fn words(&self) -> &'m [AtomicU64; WORDS] {
        // SAFETY: the header is 512 bytes of `AtomicU64`, see the assertions above.
        unsafe { self.base.cast::<[AtomicU64; WORDS]>().as_ref() }
    }

    /// The bell by which the consumers are woken, or else the producers.
    pub fn bell(&self, consumers: bool) -> &'m Bell {
        // SAFETY: in the first page, which `new` checked to be there, and 128-byte aligned.
        let line = unsafe { self.base.add(BELLS + usize::from(consumers) * LINE) };
        // SAFETY: as above, and made of atomics.
        unsafe { line.cast::<Bell>().as_ref() }
    }

    /// Which consumers the producer waits for: a bit a seat.
    pub fn members(&self) -> &'m AtomicU64 {
        // SAFETY: in the first page, which `new` checked to be there, and 128-byte aligned.
        let line = unsafe { self.base.add(MEMBERS) };
        // SAFETY: as above, and made of atomics.
        unsafe { &line.cast::<Line>().as_ref().0 }
    }

    /// The words of seat `seat`, as others know it.
    ///
    /// # Panics
    /// Never for a seat of the geometry that this memory was validated against.
    pub fn seat_words(&self, geometry: &Geometry, seat: usize) -> SeatWords<'m> {
        let page = self.role(geometry, seat);
        SeatWords {
            line: self.seat(seat),
            position: &page.position.0,
            counters: &page.counters,
        }
    }

    /// The line of seat `seat`, counted with producers first.
    ///
    /// # Panics
    /// Never for a seat of the geometry that this memory was validated against.
    pub fn seat(&self, seat: usize) -> &'m SeatLine {
        let offset = SEATS + seat * LINE;
        assert!(offset + LINE <= self.len, "a seat inside the control part");
        // SAFETY: in bounds by the line above, 128-byte aligned, and made of atomics.
        let line = unsafe { self.base.add(offset) };
        // SAFETY: as above.
        unsafe { line.cast::<SeatLine>().as_ref() }
    }

    /// The role page of seat `seat`.
    ///
    /// # Panics
    /// Never for a seat of the geometry that this memory was validated against.
    pub fn role(&self, geometry: &Geometry, seat: usize) -> &'m RolePage {
        // A geometry's fields are public: an unchecked one may lead anywhere.
        let valid = geometry.check().is_ok() && seat < geometry.seats();
        assert!(valid && geometry.control_len() <= self.len, "a valid seat");
        let offset = geometry.role_offset(seat);
        // SAFETY: a checked geometry's seat lies inside its control part, and its words at a multiple
        // of 512 from a base that is 128-byte aligned.
        let page = unsafe { self.base.add(offset) };
        // SAFETY: as above, and made of atomics.
        unsafe { page.cast::<RolePage>().as_ref() }
    }

    /// Writes a channel's header here, its magic last. The rest of the control part must be zero.
    ///
    /// `data_len` is what the data part really has, in bytes.
    pub fn format(
        &self,
        geometry: &Geometry,
        schema: Option<&Schema>,
        identity: Identity,
        metadata: &[u8; METADATA],
        data_len: u64,
    ) -> Result<Header, Error> {
        geometry.check()?;
        check_len("control", self.len as u64, geometry.control_len() as u64)?;
        check_len("data", data_len, geometry.data_len())?;
        let words = self.header();
        // Relaxed throughout: the magic's release publishes them all.
        let put = |word: &AtomicU64, value: u64| word.store(value, Ordering::Relaxed);
        put(&words.magic, 0);
        for consumers in [false, true] {
            let Bell {
                waiters,
                epoch,
                doorbell,
                reserved,
            } = self.bell(consumers);
            put(waiters, 0);
            put(epoch, 0);
            doorbell.store(0, Ordering::Relaxed);
            reserved
                .iter()
                .for_each(|word| word.store(0, Ordering::Relaxed));
        }
        put(self.members(), 0);
        for seat in 0..geometry.seats() {
            self.clear(geometry, seat);
        }
        put(&words.version, VERSION);
        put(&words.kind, geometry.kind as u64);
        put(&words.flags, geometry.when_full as u64);
        put(&words.control_len, geometry.control_len() as u64);
        put(&words.data_len, geometry.data_len());
        put(&words.page_stride, PAGE as u64);
        put(&words.producers, geometry.producers);
        put(&words.consumers, geometry.consumers);
        put(&words.capacity, geometry.capacity);
        put(&words.slot_size, geometry.slot_size);
        put(&words.slot_align, geometry.slot_align);
        put_wide(
            &words.fingerprint,
            schema.map_or(0, |schema| schema.fingerprint),
        );
        put_wide(&words.boot, identity.boot);
        put_wide(&words.unique, identity.unique);
        put(&words.created, identity.created);
        put(
            &words.schema_version,
            schema.map_or(0, |schema| schema.version.into()),
        );
        put(&words.skew, geometry.skew);
        words.reserved.iter().for_each(|word| put(word, 0));
        let mut name = [0; NAME];
        let from = schema.map_or("", |schema| schema.name).as_bytes();
        let cut = from.len().min(NAME);
        name[..cut].copy_from_slice(&from[..cut]);
        put_bytes(&words.schema_name, &name);
        put_bytes(&words.metadata, metadata);
        put(&words.checksum, checksum(&self.copy()));
        // Release: pairs with the acquire of the magic in `read`.
        words.magic.store(MAGIC, Ordering::Release);
        self.read(data_len)
    }

    /// Zeroes the words of a seat, for memory that held something else before.
    fn clear(&self, geometry: &Geometry, seat: usize) {
        let SeatLine {
            life,
            owner,
            last_end,
            last_end_position,
            acknowledged,
            pid,
            start_time,
            pid_namespace,
            heartbeat,
            reserved,
        } = self.seat(seat);
        let RolePage {
            position,
            counters,
            gate,
        } = self.role(geometry, seat);
        let line = [
            life,
            owner,
            last_end,
            last_end_position,
            acknowledged,
            pid,
            start_time,
            pid_namespace,
            heartbeat,
            &position.0,
            &gate.0,
            &counters.messages,
            &counters.waits,
            &counters.parks,
            &counters.wakes,
            &counters.fence_ack,
            &counters.face,
            &counters.lagged,
            &counters.recovered,
        ];
        for word in line.into_iter().chain(reserved).chain(&counters.reserved) {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn copy(&self) -> [u64; WORDS] {
        core::array::from_fn(|i| self.words()[i].load(Ordering::Relaxed))
    }

    /// Copies the header once, and validates every word of the copy against the format and against
    /// what the two parts really have.
    pub fn read(&self, data_len: u64) -> Result<Header, Error> {
        // Acquire: pairs with the release of the magic in `format`.
        let magic = self.header().magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err(Error::NotAChannel { found: magic });
        }
        let copy = self.copy();
        let at = |offset: usize| copy[offset / 8];
        let wide = |offset: usize| u128::from(at(offset)) | u128::from(at(offset + 8)) << 64;
        if at(8) != VERSION {
            return Err(Error::Version {
                found: at(8),
                expected: VERSION,
            });
        }
        let same = |word, found, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(Corrupt {
                    word,
                    found,
                    expected,
                })
            }
        };
        same("checksum", at(184), checksum(&copy))?;
        let kind = Kind::from_number(at(16)).ok_or(Corrupt {
            word: "kind",
            found: at(16),
            expected: 3,
        })?;
        let when_full = WhenFull::from_number(at(24)).ok_or(Corrupt {
            word: "flags",
            found: at(24),
            expected: 1,
        })?;
        let geometry = Geometry {
            kind,
            when_full,
            capacity: at(72),
            slot_size: at(80),
            slot_align: at(88),
            producers: at(56),
            consumers: at(64),
            skew: at(160),
        };
        same("page_stride", at(48), PAGE as u64)?;
        geometry.check()?;
        same("control_len", at(32), geometry.control_len() as u64)?;
        same("data_len", at(40), geometry.data_len())?;
        for reserved in [168, 176] {
            same("reserved", at(reserved), 0)?;
        }
        check_len("control", self.len as u64, geometry.control_len() as u64)?;
        check_len("data", data_len, geometry.data_len())?;
        Ok(Header {
            geometry,
            fingerprint: wide(96),
            schema_version: at(152),
            schema_name: bytes(&copy[24..32]),
            identity: Identity {
                boot: wide(112),
                unique: wide(128),
                created: at(144),
            },
            metadata: bytes(&copy[32..64]),
        })
    }
}

/// FNV-1a over 64-bit words: any changed word changes it. No proof against malice, and needs none:
/// every word is validated on its own besides.
fn checksum(words: &[u64; WORDS]) -> u64 {
    let covered = words
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != 0 && *i != 184 / 8);
    covered.fold(0xcbf2_9ce4_8422_2325, |hash, (_, word)| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3)
    })
}

fn check_len(part: &'static str, found: u64, expected: u64) -> Result<(), Error> {
    if found >= expected {
        Ok(())
    } else {
        Err(Error::Truncated {
            part,
            found,
            expected,
        })
    }
}

fn put_wide(words: &[AtomicU64; 2], value: u128) {
    words[0].store(value as u64, Ordering::Relaxed);
    words[1].store((value >> 64) as u64, Ordering::Relaxed);
}

fn put_bytes<const WORDS: usize>(words: &[AtomicU64; WORDS], bytes: &[u8]) {
    for (word, eight) in words.iter().zip(bytes.chunks_exact(8)) {
        let mut value = [0; 8];
        value.copy_from_slice(eight);
        word.store(u64::from_le_bytes(value), Ordering::Relaxed);
    }
}

fn bytes<const LEN: usize>(words: &[u64]) -> [u8; LEN] {
    let mut out = [0; LEN];
    for (eight, word) in out.chunks_exact_mut(8).zip(words) {
        eight.copy_from_slice(&word.to_le_bytes());
    }
    out
}

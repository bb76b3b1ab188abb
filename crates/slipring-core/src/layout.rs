//! Defines the memory format: the layout of a channel's two parts, *control* and *data*.
//!
//! FORMAT.md specifies it byte by byte for readers in any language. This file is its Rust side, and
//! the only one that casts bytes of the control part. `words.rs` asserts every offset at compile time.
//!
//! ```text
//! control   0      header: magic, geometry, schema, identity, user metadata   (fixed once made)
//!           512    wait cells: the producers', and at 640 the consumers'
//!           768    gating set: which consumers the producer waits for
//!           896    head: how many messages of a `topic` are published; then zeros
//!                  rings, of a channel that can grow: which area each of its latest rings has
//!           1024   seat table: one 128-byte line a seat, producers first
//!           ..     to the next multiple of the page stride
//!           R      role pages: one page stride a seat, in the order of the seats
//!           C      claims, of `mpmc`: two hints, the count of returns, a word for each slot
//!                  entries, of `topic`: a word for each message that stays readable
//! data      0      the payloads
//! ```
//!
//! | word | written by | read by | ordering |
//! |---|---|---|---|
//! | header | the creator, before the magic | everybody, once, at attach | magic: release / acquire |
//! | seat line | the seat's holder | peers, tools | `life`: release / acquire (see `seat.rs`) |
//! | `owner` of a seat line | takers on memory without locks | the same | acquire-release CAS |
//! | wait cell | waiters and notifiers | publishers | see `wait.rs` |
//! | gating set | consumers; repairers of a dead consumer's seat | the producer | see `broadcast.rs` |
//! | `write_limit` of a role page | the producer | consumers that join or copy racing slots | see `broadcast.rs` |
//! | role page | the seat's holder | peers, tools | `position`: release / acquire |
//! | `head`, entries | producers of a topic | everybody | see `topic.rs` |
//! | `pins` of a role page | the consumer of a topic | its producers | see `topic.rs` |

mod words;

use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::NonNull;

use crate::error::{Corrupt, FormatError};
pub use crate::geometry::{
    BATCH, Geometry, Growth, LINE, MOST_PINS, NOTE, PAGE, SAMPLE_HEADER, SEATS, SKEW_STEP,
    WORDS_OFFSET, WhenFull,
};
use crate::payload::Schema;
pub use words::{
    Claims, Counters, Entries, GATING_SET, HEAD, HeaderWords, Line, MOST_RINGS, Note, Pins, RINGS,
    RingRecord, RingWords, RingsLine, RolePage, SampleHeader, SeatLine, SeatWords, Side,
    WAIT_CELLS, WaitCell,
};

pub use crate::spec::{Kind, MOST_IN_ALL, MOST_SEATS, Role};
use crate::sync::{AtomicU64, Ordering};

/// The first eight bytes of a channel's control part, stored last: `SLIPRING` in memory order.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SLIPRING");
/// The format version that this code reads and writes, for a channel of fixed capacity.
pub const VERSION: u64 = 1;
/// The format version of a channel that can grow, so that code which does not know of growth leaves it alone.
pub const GROWING_VERSION: u64 = 2;
/// The number of bytes that a creator may leave in the header for its users.
pub const METADATA: usize = 256;
/// The number of bytes of the schema's name in the header; longer names are cut.
pub const NAME: usize = 64;

#[cfg(not(target_endian = "little"))]
compile_error!("the format is little-endian; a big-endian host would need its own reading of it");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("positions meet memory as indices of 64 bits");
#[cfg(not(target_has_atomic = "64"))]
compile_error!("positions are 64-bit atomics");

/// Identifies one creation of a channel: two channels of the same name differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// The kernel's boot id when the channel was made; zero if unknown.
    pub boot: u128,
    /// A number that differs for every channel ever made.
    pub unique: u128,
    /// The time of creation, in nanoseconds since 1970; zero if unknown. For people.
    pub created: u64,
}

/// A private, validated copy of a header. No code reads the shared header again.
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
    /// The identity of this creation.
    pub identity: Identity,
    /// The bytes that the creator left for its users.
    pub metadata: [u8; METADATA],
}

/// The number of words in the header. The checksum covers all but the magic and the checksum
/// itself.
const WORDS: usize = size_of::<[u64; 64]>() / 8;

/// A channel's control part in memory. It is only an address; the table above says who may write
/// which word.
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
    /// Makes the control part at `base`.
    ///
    /// Fails if the memory is too short for a header, or not on a line of 128 bytes.
    ///
    /// # Safety
    /// `base` is valid for `len` initialised bytes during `'m`. All code accesses them only through
    /// atomics of 64 bits, and the doorbells through atomics of 32. (This code does, and so does
    /// every reader that keeps to FORMAT.md.)
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Result<Self, FormatError> {
        if !base.as_ptr().addr().is_multiple_of(LINE) {
            return Err(FormatError::Misaligned {
                part: "control",
                expected: LINE as u64,
            });
        }
        if len < PAGE {
            return Err(FormatError::Truncated {
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

    /// Returns the size of the control part, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns `false`: a control part has at least a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn header(&self) -> &'m HeaderWords {
        // SAFETY: `new` checked alignment and length; atomics may be shared.
        unsafe { self.base.cast::<HeaderWords>().as_ref() }
    }

    /// Returns the header as 64 plain words, in order.
    fn words(&self) -> &'m [AtomicU64; WORDS] {
        // SAFETY: the header is 512 bytes of `AtomicU64`, see the assertions above.
        unsafe { self.base.cast::<[AtomicU64; WORDS]>().as_ref() }
    }

    /// Returns the wait cell of the consumers' side (`true`), or of the producers' (`false`).
    pub fn wait_cell(&self, consumers: bool) -> &'m WaitCell {
        // SAFETY: it lies in the first page, which `new` checked to be there, and is 128-byte
        // aligned.
        let line = unsafe { self.base.add(WAIT_CELLS + usize::from(consumers) * LINE) };
        // SAFETY: as above, and made of atomics.
        unsafe { line.cast::<WaitCell>().as_ref() }
    }

    /// Returns the gating set: a bit for each consumer that the producer waits for.
    pub fn gating_set(&self) -> &'m AtomicU64 {
        self.line(GATING_SET)
    }

    /// Returns the word of the line at `offset`, which lies in the first page, at a multiple of a line.
    fn line(&self, offset: usize) -> &'m AtomicU64 {
        debug_assert!(offset < SEATS && offset.is_multiple_of(LINE));
        // SAFETY: it lies in the first page, which `new` checked to be there, and is 128-byte
        // aligned.
        let line = unsafe { self.base.add(offset) };
        // SAFETY: as above, and made of atomics.
        unsafe { &line.cast::<Line>().as_ref().0 }
    }

    /// Returns the words of seat `seat` that others read.
    ///
    /// # Panics
    /// Never for a seat of the geometry that this memory was validated against.
    pub fn seat_words(&self, geometry: &Geometry, seat: usize) -> SeatWords<'m> {
        let page = self.role(geometry, seat);
        SeatWords {
            line: self.seat(seat),
            position: &page.position,
            counters: &page.counters,
            pins: geometry.kind.spec().has_pool.then_some(&page.pins),
        }
    }

    /// Returns the line of seat `seat`, counted with producers first.
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

    /// Returns the role page of seat `seat`.
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

    /// Returns the claims of a channel whose kind has them.
    ///
    /// # Panics
    /// Never for a geometry that this memory was validated against.
    pub fn claims(&self, geometry: &Geometry) -> Option<Claims<'m>> {
        if !geometry.kind.spec().has_claims {
            return None;
        }
        // A geometry's fields are public: an unchecked one may lead anywhere.
        let valid = geometry.check().is_ok() && geometry.control_len() <= self.len;
        assert!(valid, "claims inside the control part");
        // SAFETY: a checked geometry's claims lie inside its control part, at a multiple of a page.
        let base = unsafe { self.base.add(geometry.claims_offset()) };
        // SAFETY: as above; three lines, made of atomics.
        let lines = unsafe { base.cast::<[Line; 3]>().as_ref() };
        // SAFETY: as above.
        let words = unsafe { base.add(WORDS_OFFSET) }.cast::<AtomicU64>();
        let slots = geometry.slots() as usize;
        // SAFETY: as above, for a word for each slot.
        let words = unsafe { core::slice::from_raw_parts(words.as_ptr(), slots) };
        // SAFETY: as above, at a multiple of a line.
        let notes = unsafe { base.add(geometry.notes_offset()) }.cast::<Note>();
        // SAFETY: as above, for a note for each slot; made of atomics.
        let notes = unsafe { core::slice::from_raw_parts(notes.as_ptr(), slots) };
        let [tail_hint, head_hint, returns] = lines;
        Some(Claims {
            tail_hint: &tail_hint.0,
            head_hint: &head_hint.0,
            returns: &returns.0,
            words,
            notes,
        })
    }

    fn rings_line(&self) -> &'m RingsLine {
        // SAFETY: it lies in the first page, which `new` checked to be there, and is 128-byte aligned.
        let line = unsafe { self.base.add(RINGS) };
        // SAFETY: as above, and made of atomics.
        unsafe { line.cast::<RingsLine>().as_ref() }
    }

    /// Returns the words of the rings of a channel that can grow; `None` if its capacity is fixed.
    ///
    /// # Panics
    /// Never for a geometry that this memory was validated against.
    pub fn rings(&self, geometry: &Geometry) -> Option<RingWords<'m>> {
        geometry.growth?;
        let consumer = geometry.seats_of(Role::Consumer).start;
        Some(RingWords {
            line: self.rings_line(),
            passed: &self.role(geometry, consumer).passed,
        })
    }

    /// Returns the entries of a topic; `None` for other kinds.
    ///
    /// # Panics
    /// Never for a geometry that this memory was validated against.
    pub fn entries(&self, geometry: &Geometry) -> Option<Entries<'m>> {
        if !geometry.kind.spec().has_pool {
            return None;
        }
        // A geometry's fields are public: an unchecked one may lead anywhere.
        let valid = geometry.check().is_ok() && geometry.control_len() <= self.len;
        assert!(valid, "entries inside the control part");
        // SAFETY: a checked geometry's entries lie inside its control part, at a multiple of a page.
        let words = unsafe { self.base.add(geometry.claims_offset()) }.cast::<AtomicU64>();
        let count = geometry.capacity as usize;
        // SAFETY: as above, and made of atomics.
        let words = unsafe { core::slice::from_raw_parts(words.as_ptr(), count) };
        let head = self.line(HEAD);
        Some(Entries { head, words })
    }

    /// Writes a channel's header here, its magic last. The rest of the control part must be zero.
    ///
    /// `data_len` is the real size of the data part, in bytes.
    pub fn format(
        &self,
        geometry: &Geometry,
        schema: Option<&Schema>,
        identity: Identity,
        metadata: &[u8; METADATA],
        data_len: u64,
    ) -> Result<Header, FormatError> {
        geometry.check()?;
        check_len("control", self.len as u64, geometry.control_len() as u64)?;
        check_len("data", data_len, geometry.data_len())?;
        let words = self.header();
        // Relaxed throughout: the magic's release publishes them all.
        let put = |word: &AtomicU64, value: u64| word.store(value, Ordering::Relaxed);
        put(&words.magic, 0);
        for consumers in [false, true] {
            let WaitCell {
                waiters,
                epoch,
                doorbell,
                upper_doorbell,
                reserved,
            } = self.wait_cell(consumers);
            put(waiters, 0);
            put(epoch, 0);
            doorbell.store(0, Ordering::Relaxed);
            upper_doorbell.store(0, Ordering::Relaxed);
            reserved.clear();
        }
        put(self.gating_set(), 0);
        let RingsLine {
            newest,
            reserved,
            records,
        } = self.rings_line();
        // The first word is also the head of a topic.
        put(newest, 0);
        reserved.clear();
        for record in records {
            put(&record.from, 0);
            put(&record.class, 0);
        }
        for seat in 0..geometry.seats() {
            self.clear(geometry, seat);
        }
        if let Some(claims) = self.claims(geometry) {
            let hints = [claims.tail_hint, claims.head_hint, claims.returns];
            let words = hints.into_iter().chain(claims.words);
            words.for_each(|word| put(word, 0));
            for note in claims.notes {
                note.length.store(0, Ordering::Relaxed);
                note.again.store(0, Ordering::Relaxed);
                put(&note.since, 0);
            }
        }
        if let Some(entries) = self.entries(geometry) {
            entries.words.iter().for_each(|word| put(word, 0));
        }
        let version = match geometry.growth {
            None => VERSION,
            Some(_) => GROWING_VERSION,
        };
        put(&words.version, version);
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
        let limits = match geometry.growth {
            None => [geometry.pins, geometry.pool],
            Some(growth) => [growth.max_capacity, growth.grain],
        };
        put(&words.limits[0], limits[0]);
        put(&words.limits[1], limits[1]);
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

    /// Zeroes the words of a seat, for memory that held other data before.
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
            passed,
            reserved: beside,
            counters,
            write_limit,
            pins,
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
            position,
            passed,
            &write_limit.0,
            &counters.messages,
            &counters.waits,
            &counters.parks,
            &counters.wakes,
            &counters.fence_ack,
            &counters.wake_mode,
            &counters.lagged,
            &counters.recovered,
            &counters.at_most_once,
            &counters.handed_out,
        ];
        for word in line.into_iter().chain(&pins.words) {
            word.store(0, Ordering::Relaxed);
        }
        reserved.clear();
        beside.clear();
        counters.reserved.clear();
        pins.reserved.clear();
    }

    fn copy(&self) -> [u64; WORDS] {
        core::array::from_fn(|i| self.words()[i].load(Ordering::Relaxed))
    }

    /// Copies the header once, and validates every word of the copy.
    ///
    /// It checks the copy against the format, and against the real sizes of the two parts.
    pub fn read(&self, data_len: u64) -> Result<Header, FormatError> {
        // Acquire: pairs with the release of the magic in `format`.
        let magic = self.header().magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err(FormatError::NotAChannel { found: magic });
        }
        let copy = self.copy();
        let at = |offset: usize| copy[offset / 8];
        let wide = |offset: usize| u128::from(at(offset)) | u128::from(at(offset + 8)) << 64;
        let growth = match at(8) {
            VERSION => None,
            GROWING_VERSION => Some(Growth {
                max_capacity: at(168),
                grain: at(176),
            }),
            found => {
                return Err(FormatError::Version {
                    found,
                    expected: GROWING_VERSION,
                });
            }
        };
        // The two words are a topic's, or those of a channel that can grow.
        let of_topic = |word: u64| match growth {
            None => word,
            Some(_) => 0,
        };
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
            expected: Kind::ALL.len() as u64,
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
            pins: of_topic(at(168)),
            pool: of_topic(at(176)),
            growth,
        };
        same("page_stride", at(48), PAGE as u64)?;
        geometry.check()?;
        same("control_len", at(32), geometry.control_len() as u64)?;
        same("data_len", at(40), geometry.data_len())?;
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

/// Returns the FNV-1a hash over 64-bit words, which any changed word changes.
///
/// It does not resist malice, and need not: every word is also validated on its own.
fn checksum(words: &[u64; WORDS]) -> u64 {
    let covered = words
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != 0 && *i != 184 / 8);
    covered.fold(0xcbf2_9ce4_8422_2325, |hash, (_, word)| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3)
    })
}

fn check_len(part: &'static str, found: u64, expected: u64) -> Result<(), FormatError> {
    if found >= expected {
        Ok(())
    } else {
        Err(FormatError::Truncated {
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

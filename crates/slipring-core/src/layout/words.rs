//! The words of the control part and of a topic's slots, as structs whose offsets are asserted.

use crate::sync::{AtomicU32, AtomicU64, Ordering, Unused};

/// The offset of the wait cells in the control part: one a line, the producers' first.
pub const WAIT_CELLS: usize = 512;
/// The offset of the gating set's word in the control part.
pub const GATING_SET: usize = 768;
/// The offset of the word that counts a topic's messages in the control part.
pub const HEAD: usize = 896;
/// The offset of the record of resizes in the control part, of a channel that can grow.
pub const RINGS: usize = 896;
/// The most rings that a channel has at a time: the newest, and those that are not read to their end or not given back.
pub const MOST_RINGS: usize = 7;

/// The words of the header in shared memory, 64 bits each. Offsets in bytes.
#[repr(C, align(128))]
pub struct HeaderWords {
    pub(super) magic: AtomicU64,            // 0
    pub(super) version: AtomicU64,          // 8
    pub(super) kind: AtomicU64,             // 16
    pub(super) flags: AtomicU64,            // 24: 1 if a full ring is overwritten; else zero
    pub(super) control_len: AtomicU64,      // 32
    pub(super) data_len: AtomicU64,         // 40
    pub(super) page_stride: AtomicU64,      // 48
    pub(super) producers: AtomicU64,        // 56
    pub(super) consumers: AtomicU64,        // 64
    pub(super) capacity: AtomicU64,         // 72
    pub(super) slot_size: AtomicU64,        // 80
    pub(super) slot_align: AtomicU64,       // 88
    pub(super) fingerprint: [AtomicU64; 2], // 96: low half first
    pub(super) boot: [AtomicU64; 2],        // 112
    pub(super) unique: [AtomicU64; 2],      // 128
    pub(super) created: AtomicU64,          // 144
    pub(super) schema_version: AtomicU64,   // 152
    pub(super) skew: AtomicU64,             // 160
    // Of a topic, `pins` and `pool`; of a channel that can grow, `max_capacity` and `grain`; else zeros.
    pub(super) limits: [AtomicU64; 2],      // 168
    pub(super) checksum: AtomicU64,         // 184
    pub(super) schema_name: [AtomicU64; 8], // 192
    pub(super) metadata: [AtomicU64; 32],   // 256
}

/// The words by which one side of a channel is woken by the other. See `wait.rs`.
#[repr(C, align(128))]
#[derive(Default)]
pub struct WaitCell {
    /// A bit for each seat of the side that wants to be woken, and `FENCED`.
    pub waiters: AtomicU64, // 0
    /// The number of times that a waiter without a barrier came.
    pub epoch: AtomicU64, // 8
    /// The futex on which seats 0 to 31 of the side sleep; each wake of one of them bumps it. It has 32 bits.
    pub doorbell: AtomicU32, // 16
    /// The same of the other seats: a futex tells 32 sleepers apart.
    pub upper_doorbell: AtomicU32, // 20
    pub(super) reserved: Unused<13>,
}

impl WaitCell {
    /// Returns the futex on which this seat of the side sleeps.
    #[inline]
    pub fn doorbell_of(&self, seat: usize) -> &AtomicU32 {
        match seat < 32 {
            true => &self.doorbell,
            false => &self.upper_doorbell,
        }
    }

    /// Returns both futexes, each with the bits of its seats.
    pub fn doorbells(&self) -> [(&AtomicU32, u64); 2] {
        let lower = u64::from(u32::MAX);
        [(&self.doorbell, lower), (&self.upper_doorbell, !lower)]
    }
}

/// The words of a seat: only its holder writes them, and everybody may read them. See `seat.rs`.
#[repr(C, align(128))]
#[derive(Default)]
pub struct SeatLine {
    /// Generation and state of the seat: held, or how the last holder left.
    pub life: AtomicU64, // 0
    /// On memory without kernel locks: 1 while the seat is held. Zero elsewhere.
    pub owner: AtomicU64, // 8
    /// The end of the generation before this one, if it finished: generation and state.
    pub last_end: AtomicU64, // 16
    /// The position at which it ended.
    pub last_end_position: AtomicU64, // 24
    /// On a consumer's line: the latest producer generation whose end the consumer has
    /// acknowledged.
    pub acknowledged: AtomicU64, // 32
    /// The holder's process id, as the holder itself saw it. For people.
    pub pid: AtomicU64, // 40
    /// The holder's start time, in clock ticks since boot. For people.
    pub start_time: AtomicU64, // 48
    /// The inode of the holder's pid namespace. For people.
    pub pid_namespace: AtomicU64, // 56
    /// The time of the holder's last sign of life, in nanoseconds since boot. For people.
    pub heartbeat: AtomicU64, // 64
    pub(super) reserved: Unused<7>,
}

/// One word alone on its line.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Line(pub AtomicU64);

/// The record of the resizes of a channel that can grow. Its producer writes it. See `rings.rs`.
#[repr(C, align(128))]
#[derive(Default)]
pub struct RingsLine {
    /// The number of the newest ring, counted from the channel's first.
    pub newest: AtomicU64, // 0
    pub(super) reserved: Unused<1>, // 8
    /// The record of ring r, at r modulo their number.
    pub records: [RingRecord; MOST_RINGS], // 16
}

impl RingWords<'_> {
    /// Returns the record of ring `ring`.
    pub(crate) fn record(&self, ring: u64) -> &RingRecord {
        &self.line.records[(ring % MOST_RINGS as u64) as usize]
    }

    /// Returns the class of the newest ring, which a stranger may have made impossible.
    pub(crate) fn newest_class(&self) -> u64 {
        // Acquire: pairs with the release in `Opener::open`; the record comes before.
        let newest = self.line.newest.load(Ordering::Acquire);
        self.record(newest).class.load(Ordering::Relaxed)
    }
}

/// One ring of a channel that can grow.
#[repr(C)]
#[derive(Default)]
pub struct RingRecord {
    /// The ring's first position.
    pub from: AtomicU64, // 0
    /// The class of its capacity, and so of its area.
    pub class: AtomicU64, // 8
}

/// The words by which the ends of a channel that can grow find its rings. See `rings.rs`.
#[derive(Clone, Copy)]
pub struct RingWords<'m> {
    /// The rings.
    pub line: &'m RingsLine,
    /// The number of the oldest ring whose memory is not given back.
    pub passed: &'m AtomicU64,
}

/// Figures for people. Only the page's holder writes them.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Counters {
    /// Messages committed (producer) or released (consumer).
    pub messages: AtomicU64, // 128
    /// The number of times that the holder had to wait: for room (producer) or a message
    /// (consumer).
    pub waits: AtomicU64, // 136
    /// The number of times that the holder went to sleep.
    pub parks: AtomicU64, // 144
    /// The number of times that the holder woke the other side.
    pub wakes: AtomicU64, // 152
    /// The latest `epoch` of the other side's wait cell for which the holder fences. Not for
    /// people.
    pub fence_ack: AtomicU64, // 160
    /// The holder's wake mode: 0 for the doorbell, else for its pipe. Not for people.
    pub wake_mode: AtomicU64, // 168
    /// On a consumer's page: the messages that it lost, since they were given up before it read
    /// them.
    pub lagged: AtomicU64, // 176
    /// The number of dead holders' seats that the holder repaired.
    pub recovered: AtomicU64, // 184
    /// On an `mpmc` consumer's page: 1 if what it has in its hands when it dies is not delivered again.
    pub at_most_once: AtomicU64, // 192
    /// On an `mpmc` consumer's page: the number of messages that have left the holder's hands and are not finished with.
    pub handed_out: AtomicU64, // 200
    pub(super) reserved: Unused<6>,
}

/// The page of a role. Only the holder of its seat writes it.
#[repr(C, align(128))]
#[derive(Default)]
pub struct RolePage {
    /// The position before which everything is committed (producer) or released (consumer).
    pub position: AtomicU64, // 0
    /// On the page of the consumer of a channel that can grow: the number of the oldest ring whose memory is not given back.
    pub passed: AtomicU64, // 8
    pub(super) reserved: Unused<14>,
    /// Figures for people.
    pub counters: Counters, // 128
    /// On the page of a `broadcast` producer: the position before which it may write.
    ///
    /// A message that lies a whole ring before it may be gone.
    pub write_limit: Line, // 256
    /// On the page of a topic's consumer: the slots that no producer may write.
    pub pins: Pins, // 384
}

/// The slots that a consumer of a topic keeps from being written: four a word, each by its number plus 1, or 0.
///
/// Only the holder of the seat sets them. The first word is for what it reads; in the others are the slots of messages that
/// have left its hands, which other threads clear.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Pins {
    /// The pins.
    pub words: [AtomicU64; 4],
    pub(super) reserved: Unused<12>,
}

/// The header of a topic's slot, before its payload. The producer to whom the slot belongs writes it.
#[repr(C, align(64))]
#[derive(Default)]
pub struct SampleHeader {
    /// The number of the message, counted from the channel's first, plus 1.
    pub sequence: AtomicU64, // 0
    /// The length of the payload, in bytes.
    pub length: AtomicU64, // 8
    /// The time of the commit, in nanoseconds of `CLOCK_MONOTONIC`, if the producer notes it; else 0.
    pub time: AtomicU64, // 16
    /// The producer's number among those of its side.
    pub publisher: AtomicU64, // 24
    pub(super) reserved: Unused<4>,
}

/// The words of one seat that others read.
#[derive(Clone, Copy)]
pub struct SeatWords<'m> {
    /// The seat's line, with its holder's generation and state.
    pub line: &'m SeatLine,
    /// The holder's position.
    pub position: &'m AtomicU64,
    /// The holder's figures, and its wake mode.
    pub counters: &'m Counters,
    /// The slots that a topic's consumer keeps; `None` for other kinds.
    pub pins: Option<&'m Pins>,
}

/// The words by which the ends of a topic find its messages. See `topic.rs`.
#[derive(Clone, Copy)]
pub struct Entries<'m> {
    /// The number of messages that are published, or one less.
    pub head: &'m AtomicU64,
    /// The entries: a power of two of them.
    pub words: &'m [AtomicU64],
}

/// The words by which the ends of an `mpmc` channel claim its slots. See `mpmc.rs`.
#[derive(Clone, Copy)]
pub struct Claims<'m> {
    /// A lower bound of the first position that no producer has reserved.
    pub tail_hint: &'m AtomicU64,
    /// A lower bound of the first position that no consumer has taken.
    pub head_hint: &'m AtomicU64,
    /// Counts the times at which messages were given back.
    pub returns: &'m AtomicU64,
    /// The word of each slot.
    pub words: &'m [AtomicU64],
    /// The note of each slot.
    pub notes: &'m [Note],
}

/// Records about a slot of an `mpmc` channel, beside the slot's word. No claim depends on them.
#[repr(C)]
#[derive(Default)]
pub struct Note {
    /// The length of the slot's message, in bytes, if the channel carries bytes. Whoever has reserved the slot writes it.
    pub length: AtomicU32, // 0
    /// The number of times that the slot's message was delivered again. Whoever has taken it writes this.
    pub again: AtomicU32, // 4
    /// The time at which the message was last taken to be read in place, by a clock that all processes share; in
    /// nanoseconds. Whoever has taken it writes this.
    pub since: AtomicU64, // 8
}

/// The seats of one side.
#[derive(Clone, Copy)]
pub enum Side<'m> {
    /// The side has one seat.
    One(SeatWords<'m>),
    /// All seats of the side, in the order of their bits.
    Many(&'m [SeatWords<'m>]),
}

impl<'m> Side<'m> {
    /// Returns the seats in the order of their bits.
    pub fn seats(&self) -> &[SeatWords<'m>] {
        match self {
            Side::One(seat) => core::slice::from_ref(seat),
            Side::Many(seats) => seats,
        }
    }
}

#[cfg(not(loom))]
const _: () = {
    use core::mem::{offset_of, size_of};

    use crate::geometry::{LINE, NOTE, SAMPLE_HEADER, SEATS, SKEW_STEP, WORDS_OFFSET};

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
    assert!(offset_of!(HeaderWords, limits) == 168);
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
    assert!(offset_of!(RolePage, position) == 0 && offset_of!(RolePage, passed) == 8);
    assert!(offset_of!(RolePage, counters) == 128);
    assert!(offset_of!(RolePage, write_limit) == 256);
    assert!(offset_of!(RolePage, pins) == 384);
    assert!(size_of::<SampleHeader>() == SAMPLE_HEADER as usize);
    assert!(offset_of!(SampleHeader, length) == 8 && offset_of!(SampleHeader, time) == 16);
    assert!(offset_of!(SampleHeader, publisher) == 24);
    assert!(GATING_SET + LINE <= HEAD && WAIT_CELLS + 2 * LINE <= GATING_SET);
    assert!(HEAD + LINE <= SEATS && RINGS + size_of::<RingsLine>() <= SEATS);
    assert!(offset_of!(RingsLine, newest) == 0 && offset_of!(RingsLine, records) == 16);
    assert!(size_of::<RingRecord>() == 16 && offset_of!(RingRecord, class) == 8);
    assert!(size_of::<RingsLine>() == LINE);
    assert!(offset_of!(Counters, messages) == 0);
    assert!(offset_of!(Counters, waits) == 8);
    assert!(offset_of!(Counters, parks) == 16);
    assert!(offset_of!(Counters, wakes) == 24);
    assert!(offset_of!(Counters, fence_ack) == 32);
    assert!(offset_of!(Counters, wake_mode) == 40);
    assert!(offset_of!(Counters, lagged) == 48);
    assert!(offset_of!(Counters, recovered) == 56);
    assert!(offset_of!(Counters, at_most_once) == 64);
    assert!(offset_of!(Counters, handed_out) == 72);
    assert!(size_of::<Line>() == LINE && 3 * LINE <= WORDS_OFFSET);
    assert!(size_of::<Note>() == NOTE);
    assert!(offset_of!(Note, again) == 4 && offset_of!(Note, since) == 8);
    assert!(size_of::<Counters>() == 128);
    assert!(offset_of!(WaitCell, waiters) == 0);
    assert!(offset_of!(WaitCell, epoch) == 8);
    assert!(offset_of!(WaitCell, doorbell) == 16);
    assert!(offset_of!(WaitCell, upper_doorbell) == 20);
    assert!(size_of::<WaitCell>() == LINE && WAIT_CELLS + 2 * LINE <= SEATS);
    assert!(size_of::<RolePage>() <= SKEW_STEP);
};

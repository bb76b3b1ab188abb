//! Makes and checks the messages: every word of every message is written, and every word is
//! checked.
//!
//! Word `i` of message `seq` is `seq * SEED + i * STEP`. Two messages differ in every word, so a
//! stale, torn, repeated or misplaced word shows. The rule is one multiplication a message and one
//! addition a word. The compiler turns it into vectors, so it costs all contenders the same little.
//! A consumer folds all differences into one number, which is nonzero if any word was ever wrong;
//! there is no branch a word.
//!
//! The work that the `slip` cases add to one side is part of making or of checking a message, so no
//! contender's loop knows about it.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const STEP: u64 = 0xD1B5_4A32_D192_ED03;
/// The factor that turns a first word into its message's number: Newton's iteration, each step of
/// which doubles the number of right bits.
const UNSEED: u64 = {
    let (mut inverse, mut bits) = (SEED, 3);
    while bits < 64 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(SEED.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
};

/// The number of messages in a batch. Run lengths are multiples of it.
pub const BATCH: u64 = 256;

#[inline(always)]
fn word(seq: u64, i: usize) -> u64 {
    seq.wrapping_mul(SEED)
        .wrapping_add((i as u64).wrapping_mul(STEP))
}

/// The number of words that are made and checked together: a cache line, four SSE registers.
const GROUP: usize = 8;

/// Returns words `first..first + GROUP` of message `seq`: it adds constants to one number. A plain
/// loop would carry the number from word to word and wait for it.
#[inline(always)]
fn group(seq: u64, first: usize) -> [u64; GROUP] {
    let base = word(seq, first);
    std::array::from_fn(|i| base.wrapping_add((i as u64).wrapping_mul(STEP)))
}

/// A fixed-size message: `WORDS` words, no padding, any bit pattern.
///
/// The long list of bounds is the union of the contenders' bounds on a payload.
///
/// # Safety
/// The type is exactly `WORDS` aligned `u64`s, and nothing else.
pub unsafe trait Message:
    Copy + Debug + Send + Sync + 'static + bytemuck::AnyBitPattern + Shareable + OurPayload
{
    /// Its size in words.
    const WORDS: usize;
}

/// iceoryx2's bound on payloads.
pub use iceoryx2::prelude::ZeroCopySend as Shareable;
/// slipring's bound on payloads.
#[cfg(feature = "slipring")]
pub use slipring::Payload as OurPayload;

/// Stands in for slipring's bound when slipring is not built.
#[cfg(not(feature = "slipring"))]
pub trait OurPayload {}
#[cfg(not(feature = "slipring"))]
impl<T> OurPayload for T {}

// SAFETY: an array of N words is N words.
unsafe impl<const N: usize> Message for [u64; N]
where
    [u64; N]: OurPayload,
{
    const WORDS: usize = N;
}

/// Sixty-four bytes on a cache line of their own.
///
/// It serves contenders that keep bare messages side by side on the heap. An `[u64; 8]` there
/// straddles two lines, because `malloc` returns large blocks 16 bytes past a page.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "slipring", derive(slipring::Payload))]
#[repr(C, align(64))]
pub struct Line(pub [u64; 8]);

// SAFETY: eight words, size 64, alignment 64: no padding.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above, and every bit pattern of a word is a word.
unsafe impl bytemuck::AnyBitPattern for Line {}
// SAFETY: plain words without pointers, `repr(C)`.
unsafe impl Shareable for Line {}
// SAFETY: eight words, no padding.
unsafe impl Message for Line {
    const WORDS: usize = 8;
}

/// The way to make and check messages: the message type, and the extra work on either side.
pub trait Job: Send + Sync + 'static {
    /// The message.
    type Msg: Message;
    /// Makes message `seq`, by value.
    fn make(seq: u64) -> Self::Msg;
    /// Writes message `seq` in its final place.
    fn fill(slot: &mut MaybeUninit<Self::Msg>, seq: u64);
    /// Returns zero if every word of `msg` is message `seq`'s.
    fn check(msg: &Self::Msg, seq: u64) -> u64;

    /// Returns the message's number, by its first word.
    fn number(msg: &Self::Msg) -> u64;

    /// Writes message `seq` over an older one.
    #[inline(always)]
    fn refill(slot: &mut Self::Msg, seq: u64) {
        // SAFETY: `fill` leaves the slot initialised, so the reference stays valid afterwards.
        Self::fill(unsafe { &mut *(&raw mut *slot).cast() }, seq);
    }
}

/// A job with messages `M`, `MAKE` steps of work to make one and `CHECK` steps to check one.
pub struct Task<M, const MAKE: u32 = 0, const CHECK: u32 = 0>(PhantomData<fn() -> M>);

impl<M: Message, const MAKE: u32, const CHECK: u32> Job for Task<M, MAKE, CHECK> {
    type Msg = M;

    #[inline(always)]
    fn make(seq: u64) -> M {
        let mut msg = MaybeUninit::uninit();
        Self::fill(&mut msg, seq);
        // SAFETY: `fill` wrote every word.
        unsafe { msg.assume_init() }
    }

    #[inline(always)]
    fn fill(slot: &mut MaybeUninit<M>, seq: u64) {
        toil::<MAKE>(seq);
        let words: *mut MaybeUninit<u64> = slot.as_mut_ptr().cast();
        // SAFETY: a `Message` is exactly `WORDS` aligned words, and `slot` is ours alone.
        let words = unsafe { std::slice::from_raw_parts_mut(words, M::WORDS) };
        if M::WORDS > GROUP {
            return fill_words(words, seq);
        }
        for (i, slot) in words.iter_mut().enumerate() {
            slot.write(word(seq, i));
        }
    }

    #[inline(always)]
    fn number(msg: &M) -> u64 {
        let first: *const u64 = (&raw const *msg).cast();
        // SAFETY: a `Message` is one aligned, initialised word at least.
        unsafe { first.read() }.wrapping_mul(UNSEED)
    }

    #[inline(always)]
    fn check(msg: &M, seq: u64) -> u64 {
        toil::<CHECK>(seq);
        let words: *const u64 = (&raw const *msg).cast();
        // SAFETY: a `Message` is exactly `WORDS` aligned, initialised words.
        let words = unsafe { std::slice::from_raw_parts(words, M::WORDS) };
        if M::WORDS > GROUP {
            return check_words(words, seq);
        }
        words
            .iter()
            .enumerate()
            .fold(0, |bad, (i, w)| bad | (w ^ word(seq, i)))
    }
}

/// Writes message `seq`. Neither this function nor the three that follow are ever inlined. Inlined
/// into one contender's loop they became vectors, into another's they did not, and that decided
/// which one won.
#[inline(never)]
fn fill_words(words: &mut [MaybeUninit<u64>], seq: u64) {
    let whole = words.len() / GROUP * GROUP;
    let (groups, rest) = words.as_chunks_mut::<GROUP>();
    for (g, slots) in groups.iter_mut().enumerate() {
        *slots = group(seq, g * GROUP).map(MaybeUninit::new);
    }
    for (slot, i) in rest.iter_mut().zip(whole..) {
        slot.write(word(seq, i));
    }
}

/// Returns zero if every word is message `seq`'s.
#[inline(never)]
fn check_words(words: &[u64], seq: u64) -> u64 {
    let whole = words.len() / GROUP * GROUP;
    let (groups, rest) = words.as_chunks::<GROUP>();
    let mut bad = [0; GROUP];
    for (g, words) in groups.iter().enumerate() {
        let expected = group(seq, g * GROUP);
        for i in 0..GROUP {
            bad[i] |= words[i] ^ expected[i];
        }
    }
    rest.iter()
        .zip(whole..)
        .fold(fold(bad), |bad, (w, i)| bad | (w ^ word(seq, i)))
}

#[inline(always)]
fn fold(bad: [u64; GROUP]) -> u64 {
    bad.into_iter().fold(0, |a, b| a | b)
}

/// Does a little work: a chain of `STEPS` dependent multiplications, one chain a message.
#[inline(always)]
fn toil<const STEPS: u32>(seq: u64) {
    if STEPS > 0 {
        let done = (0..STEPS).fold(seq, |x, _| x.wrapping_mul(SEED) ^ STEP);
        // `black_box` would store the result, and a store between those to the slots would
        // change how they leave the core. This keeps it in a register.
        // SAFETY: an empty instruction that reads one register.
        unsafe {
            std::arch::asm!("/* {0} */", in(reg) done, options(nomem, nostack, preserves_flags));
        }
    }
}

/// Writes record `seq` over all of `record`, of any length.
#[inline(never)]
pub fn fill_bytes(record: &mut [u8], seq: u64) {
    let whole = record.len() / 8;
    let (words, tail) = record.as_chunks_mut::<8>();
    let (groups, rest) = words.as_chunks_mut::<GROUP>();
    for (g, slots) in groups.iter_mut().enumerate() {
        *slots = group(seq, g * GROUP).map(u64::to_le_bytes);
    }
    for (slot, i) in rest.iter_mut().zip(whole / GROUP * GROUP..) {
        *slot = word(seq, i).to_le_bytes();
    }
    for (slot, byte) in tail.iter_mut().zip(word(seq, whole).to_le_bytes()) {
        *slot = byte;
    }
}

/// Returns zero if every byte of `record` is record `seq`'s.
#[inline(never)]
pub fn check_bytes(record: &[u8], seq: u64) -> u64 {
    let whole = record.len() / 8;
    let (words, tail) = record.as_chunks::<8>();
    let (groups, rest) = words.as_chunks::<GROUP>();
    let mut bad = [0; GROUP];
    for (g, words) in groups.iter().enumerate() {
        let expected = group(seq, g * GROUP);
        for i in 0..GROUP {
            bad[i] |= u64::from_le_bytes(words[i]) ^ expected[i];
        }
    }
    let mut bad = fold(bad);
    for (w, i) in rest.iter().zip(whole / GROUP * GROUP..) {
        bad |= u64::from_le_bytes(*w) ^ word(seq, i);
    }
    let expected = word(seq, whole).to_le_bytes();
    tail.iter()
        .zip(expected)
        .fold(bad, |bad, (a, b)| bad | u64::from(a ^ b))
}

/// The lengths of the records of one run, known to both sides.
///
/// They are in a table, so that a fixed length and a random one cost the same to look up.
#[derive(Clone)]
pub struct Lengths(Box<[u32; 4096]>);

impl Lengths {
    /// Returns lengths that are all `len` bytes.
    pub fn fixed(len: u32) -> Self {
        Self(Box::new([len; 4096]))
    }

    /// Returns lengths evenly spread over `0..=max`, the same ones in every run.
    pub fn random(max: u32) -> Self {
        let mut state = 1_u64;
        Self(Box::new(std::array::from_fn(|_| {
            // splitmix64
            state = state.wrapping_add(SEED);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) % (u64::from(max) + 1)) as u32
        })))
    }

    /// Returns the length of record `seq`.
    #[inline(always)]
    pub fn of(&self, seq: u64) -> usize {
        self.0[(seq % 4096) as usize] as usize
    }

    /// Returns the mean length.
    pub fn mean(&self) -> usize {
        self.0.iter().map(|len| *len as usize).sum::<usize>() / self.0.len()
    }

    /// Returns the greatest length.
    pub fn max(&self) -> usize {
        self.0.iter().copied().max().unwrap_or(0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message passes the check for its own number and fails the check for another one.
    #[test]
    fn only_the_right_number_passes_check() {
        let msg = <Task<[u64; 158]>>::make(7);
        assert_eq!(<Task<[u64; 158]>>::check(&msg, 7), 0);
        assert_ne!(<Task<[u64; 158]>>::check(&msg, 8), 0);
    }

    #[test]
    fn a_message_tells_its_number() {
        for seq in [0, 1, 7, 1 << 40, u64::MAX] {
            assert_eq!(<Task<[u64; 8]>>::number(&<Task<[u64; 8]>>::make(seq)), seq);
        }
    }

    #[test]
    fn one_wrong_bit_anywhere_shows() {
        for i in 0..512 {
            let mut msg = <Task<[u64; 512]>>::make(3);
            msg[i] ^= 1 << (i % 64);
            assert_ne!(<Task<[u64; 512]>>::check(&msg, 3), 0, "word {i}");
        }
    }

    /// Records of every length below 150 bytes are written in full, and any changed byte fails the
    /// check.
    #[test]
    fn small_records_are_checked_in_full() {
        for len in 0..150 {
            let mut record = vec![0xAA; len];
            fill_bytes(&mut record, 5);
            assert_eq!(check_bytes(&record, 5), 0);
            for i in 0..len {
                record[i] ^= 0x10;
                assert_ne!(check_bytes(&record, 5), 0, "byte {i} of {len}");
                record[i] ^= 0x10;
            }
        }
    }
}

//! The work by which both transports are measured: messages of seeded random sizes. The writer
//! fills each one completely, and the reader checks it.
//!
//! Both sides run the same generator in step. So the reader knows the number *and* the length of
//! the next message before it arrives, even if the message is empty.
//!
//! ```text
//! message   0  number, u64 little-endian (as much of it as fits)
//!           8  one byte, made from the number, up to the end
//! ```

use clap::ValueEnum;

use crate::exit::Failure;

/// The part of a message that the reader checks, besides its number and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// The byte behind the number, and one at a random place.
    Sample,
    /// Every byte.
    Full,
}

impl Check {
    /// Returns the word for it, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Check::Sample => "sample",
            Check::Full => "full",
        }
    }
}

/// The sequence of messages that both sides expect.
pub(crate) struct Work {
    state: u64,
    span: u64,
    number: u64,
    messages: u64,
    check: Check,
    /// The position of the sample in the present message, as a fraction of 2^32.
    probe: u64,
    /// The number of payload bytes so far.
    pub(crate) bytes: u64,
}

impl Work {
    /// Makes a sequence of `messages` messages of 0 to `max_size` bytes, from `seed`.
    pub(crate) fn new(messages: u64, max_size: u32, seed: u64, check: Check) -> Work {
        Work {
            state: seed,
            span: u64::from(max_size) + 1,
            number: 0,
            messages,
            check,
            probe: 0,
            bytes: 0,
        }
    }

    /// Returns the number of messages that were begun.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Goes on to the next message and returns its size, or `None` when all are done.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.number == self.messages {
            return None;
        }
        self.number += 1;
        // SplitMix64 (Steele, Lea and Flood, 2014), its high half scaled to the span of sizes.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        self.probe = z & 0xffff_ffff;
        let size = ((z >> 32) * self.span) >> 32;
        self.bytes += size;
        Some(size as usize)
    }

    /// Fills the present message, every byte of it.
    #[inline]
    pub(crate) fn fill(&self, message: &mut [u8]) {
        let (number, filler) = (self.number.to_le_bytes(), self.filler());
        match message.split_first_chunk_mut::<8>() {
            Some((front, rest)) => {
                *front = number;
                rest.fill(filler);
            }
            None => message.copy_from_slice(&number[..message.len()]),
        }
    }

    /// Checks that `message` is the present one, of `size` bytes.
    #[inline]
    pub(crate) fn check(&self, message: &[u8], size: usize) -> Result<(), Failure> {
        if message.len() == size && self.matches(message) {
            Ok(())
        } else {
            Err(self.wrong(message, size))
        }
    }

    #[inline]
    fn matches(&self, message: &[u8]) -> bool {
        let (number, filler) = (self.number.to_le_bytes(), self.filler());
        let Some((front, rest)) = message.split_first_chunk::<8>() else {
            return *message == number[..message.len()];
        };
        let probe = (self.probe * rest.len() as u64) >> 32;
        let right = |at: u64| rest.get(at as usize).is_none_or(|byte| *byte == filler);
        if self.check == Check::Sample {
            return *front == number && right(0) && right(probe);
        }
        // All bytes are right if the first is, and each equals its neighbour: one memcmp checks
        // that.
        let last = rest.len().saturating_sub(1);
        *front == number && right(0) && (rest.is_empty() || rest[1..] == rest[..last])
    }

    #[inline]
    fn filler(&self) -> u8 {
        (self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    #[cold]
    fn wrong(&self, message: &[u8], size: usize) -> Failure {
        let found = &message[..message.len().min(16)];
        Failure::Words(format!(
            "check failed: message {} should have {size} bytes, all as its number says; found {} bytes, beginning with {found:02x?}",
            self.number,
            message.len(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filled message passes the full check; any changed byte, or one byte too many, fails it.
    #[test]
    fn the_full_check_finds_changed_bytes() {
        let mut work = Work::new(200, 40, 7, Check::Full);
        while let Some(size) = work.next() {
            let mut message = vec![0xee; size];
            work.fill(&mut message);
            assert!(work.check(&message, size).is_ok());
            for at in 0..size {
                message[at] ^= 0x40;
                assert!(work.check(&message, size).is_err(), "byte {at} of {size}");
                message[at] ^= 0x40;
            }
            message.push(0);
            assert!(work.check(&message, size).is_err());
        }
    }

    /// Both sides get the same sizes from the same seed, and the sizes cover the whole span.
    #[test]
    fn both_sides_see_the_same_sizes() {
        let sizes = |seed| {
            let mut work = Work::new(1000, 3, seed, Check::Sample);
            std::iter::from_fn(move || work.next()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(1), sizes(1));
        assert_ne!(sizes(1), sizes(2));
        assert!((0..=3).all(|size| sizes(1).contains(&size)));
    }
}

//! Cuts standard input into records: lines or frames.
//!
//! The plain idea is to read a line and push it. Here one `read(2)` brings many records, and all
//! whole ones are published together. The rest is at most one record, and is kept for the next
//! read.
//!
//! - A whole record is in the channel before anything else happens, so a signal loses none. To that
//!   end no read brings more than the channel has room for, however the input is cut. So a push
//!   never waits.
//! - `lines`: a line is sent with its newline. A line longer than the largest record is sent in
//!   pieces of that size. A last line without a newline, at the end of the input or when a signal
//!   comes, is sent without one.
//! - `framed`: a frame is a length (u32, little-endian) and then that many bytes. A frame that is
//!   too large, or that the input cuts short, is an error. The frames before it are sent first.

use std::iter;

use slipring::bytes::{PREFIX, record_size};
use slipring::{OfRecords, PackedKind, Producer};

use crate::exit::Failure;

/// The most that one read asks for: a pipe holds this much by default.
const READ: usize = 64 << 10;
/// The number of bytes in a frame's length.
const LENGTH: usize = 4;

/// The rule by which the input is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Cuts after each newline.
    Lines,
    /// Cuts by the length before each frame.
    Frames,
}

/// The input that was read and is not yet a whole record.
pub(crate) struct Cutter {
    rule: Rule,
    /// The largest record of the channel.
    max: usize,
    buffer: Vec<u8>,
    /// The number of bytes of the buffer that were read. The bytes behind them mean nothing.
    kept: usize,
    /// The position in the input at which the buffer begins.
    at: u64,
}

impl Cutter {
    pub(crate) fn new(rule: Rule, max: usize) -> Cutter {
        Cutter {
            rule,
            max,
            buffer: Vec::new(),
            kept: 0,
            at: 0,
        }
    }

    /// Returns the length of the record for which the channel should have room before the next
    /// read. That room also suffices for the kept bytes and one byte more, and mostly for a read of
    /// some size.
    pub(crate) fn wanted(&self) -> usize {
        match self.rule {
            Rule::Lines => self.max.min(self.kept + READ),
            Rule::Frames => self.max.min(READ).max(self.length().unwrap_or(0)),
        }
    }

    /// Returns space for the next read: as much as `free` bytes of the ring hold, however it is
    /// cut.
    ///
    /// A record of *n* bytes takes 8 + *n* bytes of the ring, rounded up to 8. The worst line has
    /// one byte and takes 16 times its length. The worst frame takes 16 for 5 bytes, which is less
    /// than 4 times.
    pub(crate) fn space(&mut self, free: usize) -> &mut [u8] {
        let size = |len: usize| record_size(len as u64) as usize;
        let most = match (self.rule, self.length()) {
            // In the worst case a newline comes first, and behind it only newlines.
            (Rule::Lines, _) => {
                let spare = free.saturating_sub(size(self.kept + 1));
                (1 + spare / 16).min(self.max - self.kept)
            }
            (Rule::Frames, Some(len)) => {
                let spare = free.saturating_sub(size(len));
                LENGTH + len - self.kept + spare / 4
            }
            (Rule::Frames, None) => (free / 4).saturating_sub(self.kept).max(1),
        };
        let end = self.kept + most.min(READ);
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.kept..end]
    }

    /// Pushes all records that are whole after `count` more bytes were read into the space. Never
    /// waits.
    pub(crate) fn push<R>(
        &mut self,
        tx: &mut Producer<OfRecords<R>>,
        count: usize,
    ) -> Result<(), Failure>
    where
        OfRecords<R>: PackedKind,
    {
        let kept = self.kept;
        self.kept += count;
        let bytes = &self.buffer[..self.kept];
        let whole = match self.rule {
            Rule::Lines => whole_lines(bytes, kept, self.max),
            Rule::Frames => whole_frames(bytes, self.max),
        };
        match self.rule {
            Rule::Lines => push_all(tx, lines(&bytes[..whole]))?,
            Rule::Frames => push_all(tx, frames(&bytes[..whole]))?,
        }
        self.buffer.copy_within(whole..self.kept, 0);
        self.kept -= whole;
        self.at += whole as u64;
        match self.length() {
            Some(len) if len > self.max => Err(Failure::Words(format!(
                "the frame at byte {} of the input has {len} bytes, and the largest record of the channel {}; \
                 if the input is frames, remove the channel, and make it with --ring {} --chunk {len}",
                self.at,
                self.max,
                // A record of half the ring always fits.
                (2 * (len + PREFIX as usize))
                    .next_power_of_two()
                    .max(tx.capacity()),
            ))),
            _ => Ok(()),
        }
    }

    /// Pushes the line that has no newline, because none will come. Never waits.
    pub(crate) fn push_rest<R>(&mut self, tx: &mut Producer<OfRecords<R>>) -> Result<(), Failure>
    where
        OfRecords<R>: PackedKind,
    {
        if self.rule == Rule::Lines && self.kept > 0 {
            tx.try_push(&self.buffer[..self.kept])?;
            self.kept = 0;
        }
        Ok(())
    }

    /// Fails if the input ends here, within a frame.
    pub(crate) fn check_end(&self) -> Result<(), Failure> {
        if self.rule == Rule::Lines || self.kept == 0 {
            return Ok(());
        }
        let found = match self.length() {
            Some(len) => format!("{} of its {len} bytes", self.kept - LENGTH),
            None => format!("{} of the {LENGTH} bytes of its length", self.kept),
        };
        Err(Failure::Words(format!(
            "standard input ends within the frame at byte {}, after {found}; the frames before it were sent",
            self.at
        )))
    }

    /// Returns the length of the frame that is kept in part, or `None` if its length field is not
    /// complete.
    fn length(&self) -> Option<usize> {
        let (length, _) = self.buffer[..self.kept].split_first_chunk()?;
        (self.rule == Rule::Frames).then_some(u32::from_le_bytes(*length) as usize)
    }
}

/// Returns the length of the whole lines. The first `searched` bytes have no newline.
fn whole_lines(bytes: &[u8], searched: usize, max: usize) -> usize {
    match memchr::memrchr(b'\n', &bytes[searched..]) {
        Some(last) => searched + last + 1,
        // The bytes fill a record: the line goes on in the next one.
        None if bytes.len() == max => max,
        None => 0,
    }
}

/// Returns the length of the whole frames, up to the first that is too large.
fn whole_frames(bytes: &[u8], max: usize) -> usize {
    let fit = frames(bytes).take_while(|frame| frame.len() <= max);
    fit.map(|frame| LENGTH + frame.len()).sum()
}

fn lines(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let line = bytes.split_off(..end)?;
        (!line.is_empty()).then_some(line)
    })
}

/// Returns the payloads of the frames, up to the first that is not whole.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        let (length, behind) = bytes.split_first_chunk()?;
        let (frame, rest) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(frame)
    })
}

/// Pushes records for which there is room, published together.
fn push_all<'a, R>(
    tx: &mut Producer<OfRecords<R>>,
    records: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Failure>
where
    OfRecords<R>: PackedKind,
{
    let mut records = records.peekable();
    while records.peek().is_some() {
        tx.try_push_iter(&mut records)?;
    }
    Ok(())
}

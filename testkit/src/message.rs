//! Writes and checks messages that hold their number: every word of a message follows from it.

use slipring::Payload;

/// A fixed-size message.
pub trait Numbered: Payload {
    /// Returns the message with this number.
    fn numbered(number: u64) -> Self;
    /// Returns its number, if every word of it is right.
    fn check(&self) -> Result<u64, String>;
}

fn word(number: u64, index: usize) -> u64 {
    (number ^ (index as u64) << 56)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $words:literal) => {
        $(#[$doc])*
        #[derive(Payload, Clone, Copy)]
        #[repr(C)]
        pub struct $name {
            number: u64,
            fill: [u64; $words],
        }

        impl Numbered for $name {
            fn numbered(number: u64) -> Self {
                $name { number, fill: std::array::from_fn(|i| word(number, i)) }
            }

            fn check(&self) -> Result<u64, String> {
                match self.fill.iter().enumerate().position(|(i, found)| *found != word(self.number, i)) {
                    None => Ok(self.number),
                    Some(i) => Err(format!("message {}: word {i} is {:#x}", self.number, self.fill[i])),
                }
            }
        }
    };
}

numbered!(
    /// The usual message: 64 bytes.
    Message, 7
);
numbered!(
    /// As [`Message`], byte for byte, under another name.
    Twin, 7
);
numbered!(
    /// A smaller message: 32 bytes.
    Small, 3
);
numbered!(
    /// A message whose size is no power of two: 24 bytes.
    Odd, 2
);
numbered!(
    /// The message of fault 13: 1264 bytes.
    Packet, 157
);
numbered!(
    /// A message larger than 16 bits can count: 128 KiB.
    Frame, 16383
);

impl Numbered for u64 {
    fn numbered(number: u64) -> u64 {
        number
    }

    fn check(&self) -> Result<u64, String> {
        Ok(*self)
    }
}

/// The number of lengths before they repeat. It is a prime, so that records wander over the ring.
const PERIOD: u64 = 97;

/// The largest record, in bytes.
pub const LARGEST: usize = 112;

/// Returns the length of record `number`: from 16 to 112 bytes, mostly no multiple of 8.
pub fn length(number: u64) -> usize {
    16 + (number % PERIOD * 37 % PERIOD) as usize
}

/// Writes record `number` into `out`, which has [`length`] bytes.
pub fn write(number: u64, out: &mut [u8]) {
    assert_eq!(out.len(), length(number));
    for (i, chunk) in out.chunks_mut(8).enumerate() {
        let value = if i == 0 { number } else { word(number, i) };
        chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
    }
}

/// Returns record `number`.
pub fn record(number: u64) -> Vec<u8> {
    let mut record = vec![0; length(number)];
    write(number, &mut record);
    record
}

/// Returns the number of a record, if every byte of it, and its length, is right.
pub fn check(record: &[u8]) -> Result<u64, String> {
    let front = record
        .first_chunk()
        .ok_or("a record too short to say its number")?;
    let number = u64::from_le_bytes(*front);
    let mut rest = record.chunks(8).enumerate().skip(1);
    let right = |(i, found): (usize, &[u8])| found == &word(number, i).to_le_bytes()[..found.len()];
    if record.len() == length(number) && rest.all(right) {
        Ok(number)
    } else {
        Err(format!(
            "record {number} of {} bytes is torn: {record:02x?}",
            record.len()
        ))
    }
}

/// Returns the position of the record with this number in a channel of bytes that began with record 0.
pub fn position_of(number: u64) -> u64 {
    let size = |number| slipring::bytes::record_size(length(number) as u64);
    let lap = (0..PERIOD).map(size).sum::<u64>();
    number / PERIOD * lap + (0..number % PERIOD).map(size).sum::<u64>()
}

/// Returns the record that begins at this position of a `bytes` channel that began with record 0,
/// or `None` if none does. So a restarted producer learns from the position alone which records
/// were committed.
pub fn record_at(position: u64) -> Option<u64> {
    let size = |number| slipring::bytes::record_size(length(number) as u64);
    let lap = (0..PERIOD).map(size).sum::<u64>();
    let (mut number, mut at) = (position / lap * PERIOD, position / lap * lap);
    while at < position {
        at += size(number);
        number += 1;
    }
    (at == position).then_some(number)
}

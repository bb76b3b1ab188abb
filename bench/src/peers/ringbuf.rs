//! ringbuf: a ring of bytes on the heap; we put a four-byte length before each record.
//!
//! A record is built with its length in one buffer and pushed by one `push_slice`, so that each
//! record is one publication. The consumer checks it in place, unless it wraps around the end of
//! the ring, and skips it in one step. In *drain* it skips in one step all whole records before the
//! end of the ring.

use super::{About, Kind, Mode, NOTHING_TO_ALL};
use crate::duel::{Run, Sample, duel};
use crate::message::{Lengths, check_bytes, fill_bytes};
use crate::spin;
use ::ringbuf::HeapRb;
use ::ringbuf::traits::{Consumer, Observer, Producer, Split};
use std::ops::Range;

pub const ABOUT: About = About {
    name: "ringbuf",
    kind: Kind::Peer,
    package: Some("ringbuf"),
    modes: &[],
    round_trip: false,
    records: &[Mode::One, Mode::Drain],
    broadcast: NOTHING_TO_ALL,
    slip: false,
    aligned: false,
    spins: true,
    how: "`HeapRb<u8>`, length and record in one `push_slice` / `as_slices`, `skip`",
};

const PREFIX: usize = size_of::<u32>();

pub fn run(mode: Mode, lengths: &Lengths, run: &Run) -> Sample {
    let (mut tx, mut rx) = HeapRb::<u8>::new(run.ring_bytes).split();
    let buffer = || vec![0_u8; PREFIX + lengths.max()];
    duel(
        run,
        || {
            let mut record = buffer();
            move |range: Range<u64>| {
                for seq in range {
                    let len = lengths.of(seq);
                    let record = &mut record[..PREFIX + len];
                    record[..PREFIX].copy_from_slice(&(len as u32).to_le_bytes());
                    fill_bytes(&mut record[PREFIX..], seq);
                    spin!((tx.vacant_len() >= record.len()).then_some(()));
                    tx.push_slice(record);
                }
            }
        },
        || {
            let mut wrapped = buffer();
            move |range: Range<u64>| {
                let (mut seq, mut bad) = (range.start, 0);
                while seq < range.end {
                    spin!((!rx.is_empty()).then_some(()));
                    let front = rx.as_slices().0;
                    let mut done = 0;
                    while let Some(record) = whole(&front[done..]) {
                        bad |= (record.len() ^ lengths.of(seq)) as u64 | check_bytes(record, seq);
                        seq += 1;
                        done += PREFIX + record.len();
                        if mode == Mode::One {
                            break;
                        }
                    }
                    if done == 0 {
                        let there = rx.peek_slice(&mut wrapped);
                        let record = whole(&wrapped[..there]).expect("records are pushed whole");
                        bad |= (record.len() ^ lengths.of(seq)) as u64 | check_bytes(record, seq);
                        seq += 1;
                        done = PREFIX + record.len();
                    }
                    rx.skip(done);
                }
                bad
            }
        },
    )
}

/// Returns the record at the start of `bytes`, if all of it is there.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
    rest.get(..u32::from_le_bytes(*prefix) as usize)
}

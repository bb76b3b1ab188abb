//! Changes arbitrary words at any time while both ends of a `bytes` channel are in use, or of records that all read:
//! positions, the gate, seats, lengths and payloads change under live handles.
#![no_main]

#[path = "../../../crates/slipring/tests/memory/mod.rs"]
mod memory;

use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slipring::broadcast::{self, Seek};
use slipring::bytes;
use slipring::{Builder, Consumer, OfRecords, PackedKind};

use memory::calls::{is_typed, use_bytes};
use memory::{GATE, Memory};

#[derive(Arbitrary, Debug)]
enum Step {
    /// Moves the producer's or the consumer's position by this amount, or sets it to that.
    Position(bool, bool, u64),
    Seat(u8, u64),
    /// The write limit.
    Limit(u64),
    GatingSet(u64),
    Seek(u64),
    Data(u8, u64),
    Push(u8),
    Reserve(u8, u8),
    Read(bool),
    Batch(u8),
    Everything,
    Rejoin,
}

/// The verb that only one of the two kinds has.
trait Seeks: Sized {
    fn seek(_: &mut Consumer<OfRecords<Self>>, _: u64)
    where
        OfRecords<Self>: PackedKind,
    {
    }
}

impl Seeks for bytes::OneToOne {}

impl Seeks for broadcast::records::OneToAll {
    fn seek(rx: &mut broadcast::records::Consumer, to: u64) {
        is_typed(rx.seek(Seek::To(to)), "seek");
    }
}

fuzz_target!(|input: (bool, Vec<Step>)| {
    let (all_read, steps) = input;
    match all_read {
        true => run(
            broadcast::records::Builder::new(128)
                .consumers(1)
                .max_record(48),
            &steps,
        ),
        false => run(bytes::Builder::new(128).max_record(48), &steps),
    }
});

fn run<R: Seeks>(builder: Builder<OfRecords<R>>, steps: &[Step])
where
    OfRecords<R>: PackedKind,
{
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).expect("zeroed memory");
    let geometry = channel.geometry();
    let data_words = builder.data_len() as usize / 8;
    let mut tx = channel.producer().expect("a fresh channel");
    let mut rx = channel.consumer().expect("a fresh channel");
    for step in steps.iter().take(64) {
        match *step {
            Step::Position(seat, by, value) => {
                let word = memory.position(&geometry, usize::from(seat));
                let before = word.load(Ordering::Relaxed);
                let after = if by {
                    before.wrapping_add(value)
                } else {
                    value
                };
                word.store(after, Ordering::Relaxed);
            }
            Step::Seat(at, value) => memory
                .seat(usize::from(at) & 1, usize::from(at >> 1) % 16 * 8)
                .store(value, Ordering::Relaxed),
            Step::Limit(value) => memory
                .control(geometry.role_offset(0) + GATE)
                .store(value, Ordering::Relaxed),
            Step::GatingSet(value) => memory.control(768).store(value, Ordering::Relaxed),
            Step::Seek(to) => R::seek(&mut rx, to),
            Step::Data(at, value) => memory.set_data(usize::from(at) % data_words * 8, value),
            Step::Push(len) => is_typed(tx.try_push(&[7; 256][..usize::from(len)]), "push"),
            Step::Reserve(len, commit) => is_typed(
                tx.try_reserve(len.into()).map(|mut record| {
                    record.fill(9);
                    record.commit(usize::from(commit.min(len)));
                }),
                "reserve",
            ),
            Step::Read(keep) => is_typed(
                rx.try_read().map(|record| {
                    assert!(record.len() <= 48);
                    let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
                    if keep {
                        record.keep();
                    }
                    sum
                }),
                "read",
            ),
            Step::Batch(max) => is_typed(
                rx.try_read_batch(max.into()).map(|mut records| {
                    while let Ok(Some(record)) = records.next() {
                        assert!(record.len() <= 48);
                    }
                }),
                "batch",
            ),
            Step::Everything => use_bytes(&mut tx, &mut rx, "everything"),
            Step::Rejoin => {
                drop((tx, rx));
                for seat in [0, 1] {
                    memory.seat(seat, 8).store(0, Ordering::Relaxed);
                }
                let (Ok(producer), Ok(consumer)) = (channel.producer(), channel.consumer()) else {
                    memory.assert_fences_stand();
                    return;
                };
                (tx, rx) = (producer, consumer);
            }
        }
    }
    drop((tx, rx));
    memory.assert_fences_stand();
}

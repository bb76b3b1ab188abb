//! Writes garbage into the claims and seats of a work queue while its handles work: no panic, no access out of bounds,
//! no endless call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod memory;

use std::mem::{forget, offset_of};
use std::sync::atomic::Ordering;
use std::time::Duration;

use slipring::mpmc::{Builder, Channel};
use slipring::{End, Error};
use slipring_core::layout::{SeatLine, WORDS_OFFSET};

use memory::Memory;

fn builder(capacity: usize) -> Builder<u64> {
    Builder::new(capacity).producers(2).consumers(2)
}

/// Figures of a seat that are garbage do no harm, or are reported.
#[test]
fn garbage_figures_do_no_harm() {
    let builder = builder(4);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    for seat in [0, 2] {
        let position = channel.geometry().role_offset(seat);
        memory.control(position).store(u64::MAX, Ordering::Relaxed);
    }
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.try_push(1).unwrap();
    assert_eq!(rx.try_pop(), Ok(1));
    drop(rx);
    let acknowledged = offset_of!(SeatLine, acknowledged);
    memory
        .seat(3, acknowledged)
        .store(u64::MAX, Ordering::Relaxed);
    let mut rx = channel.consumer().unwrap();
    drop(tx);
    assert!(matches!(rx.try_pop(), Err(Error::Corrupt(corrupt)) if corrupt.word == "acknowledged"));
    memory.seat(3, acknowledged).store(0, Ordering::Relaxed);
    let mut rx = channel.consumer().unwrap();
    assert_eq!(rx.try_pop(), Err(Error::Disconnected(End::Finished)));
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Writes one piece of garbage: more often something that might be right than not.
fn scribble(memory: &Memory, channel: &Channel<u64>, dice: &mut Dice) {
    let geometry = channel.geometry();
    let (claims, slots, unit) = (
        geometry.claims_offset(),
        geometry.slots(),
        geometry.capacity << 9,
    );
    let lap = dice.roll(8) * unit;
    let value = match dice.roll(6) {
        0 => dice.roll(u64::MAX),
        1 => u64::MAX,
        2 => lap | dice.roll(6) | dice.roll(3) << 3,
        3 => !(unit - 1) | dice.roll(6),
        4 => {
            lap | dice.roll(geometry.capacity) << 9
                | dice.roll(2) << 3
                | [1, 3, 4][dice.roll(3) as usize]
        }
        _ => lap | dice.roll(2) << 1,
    };
    let seat = dice.roll(4) as usize;
    let offset = match dice.roll(10) {
        0 => claims,
        1 => claims + 128,
        2 => claims + 256,
        3 => geometry.role_offset(seat),
        4 => 1024 + 128 * seat + offset_of!(SeatLine, acknowledged),
        5 => 1024 + 128 * seat + offset_of!(SeatLine, life),
        _ => claims + WORDS_OFFSET + 8 * dice.roll(slots) as usize,
    };
    memory.control(offset).store(value, Ordering::Relaxed);
}

fn round(seed: u64, capacity: usize) {
    const MOMENT: Duration = Duration::from_micros(1);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let builder = builder(capacity);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let mut txs: Vec<_> = (0..2).map(|_| channel.producer().unwrap()).collect();
    let mut rxs: Vec<_> = (0..2).map(|_| channel.consumer().unwrap()).collect();
    for _ in 0..200 {
        if dice.roll(3) == 0 {
            scribble(&memory, &channel, &mut dice);
        }
        let handle = dice.roll(2) as usize;
        let count = dice.roll(capacity as u64 + 2) as usize;
        let (values, mut out) = (vec![7; count], vec![0; count]);
        let (tx, rx) = (&mut txs[handle], &mut rxs[handle]);
        // Any answer will do.
        match dice.roll(13) {
            0 => drop(tx.try_push(1)),
            1 => drop(tx.try_push_slice(&values)),
            2 => drop(tx.try_push_iter(values.iter().copied())),
            3 => drop(tx.try_push_iter(values.iter().copied().filter(|_| true))),
            4 => drop(tx.try_reserve(count).map(|run| run.commit(count / 2))),
            5 => drop(tx.try_reserve(count).map(forget)),
            6 => drop(rx.try_pop()),
            7 => drop(rx.try_pop_slice(&mut out)),
            8 => drop(rx.try_read_batch(count).map(|batch| {
                let half = batch.iter().count() / 2;
                batch.release(half);
            })),
            9 => drop(rx.try_read_batch(count).map(forget)),
            10 => drop((
                rx.len(),
                tx.len(),
                rx.is_disconnected(),
                tx.is_disconnected(),
            )),
            11 => drop((tx.push_timeout(1, MOMENT), rx.pop_timeout(MOMENT))),
            _ => {
                drop((txs.swap_remove(handle), rxs.swap_remove(handle)));
                let (Ok(tx), Ok(rx)) = (channel.producer(), channel.consumer()) else {
                    return;
                };
                txs.push(tx);
                rxs.push(rx);
            }
        }
    }
    drop((txs, rxs));
    memory.assert_fences_stand();
}

/// Each of many sequences of calls and garbage ends.
#[test]
fn scribbled_claims_do_no_harm() {
    for seed in 1..500 {
        for capacity in [1, 2, 4, 64] {
            round(seed, capacity);
        }
    }
}

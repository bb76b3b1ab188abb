//! Checks what an outside reader is told of a work queue: who has what in hand, since when, and what is out of the
//! ordinary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod memory;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slipring::inspect::{Claim, ClaimState, QueueStat};
use slipring::mpmc::{Builder, Channel};
use slipring::{Role, spsc};
use slipring_core::layout::WORDS_OFFSET;

use memory::Memory;

fn queue(channel: &Channel<u64>) -> QueueStat {
    channel.stat().unwrap().queue.unwrap()
}

/// Returns the claims without their times.
fn claims(channel: &Channel<u64>) -> Vec<(Role, usize, ClaimState, u64, u64, u32)> {
    let parts = |claim: &Claim| {
        (
            claim.role,
            claim.index,
            claim.state,
            claim.position,
            claim.count,
            claim.deliveries,
        )
    };
    let stat = channel.stat().unwrap();
    stat.claims().iter().map(parts).collect()
}

/// What is reserved and what is read in place is told of its seat, until it is committed or released.
#[test]
fn claims_last_until_released() {
    let channel = Builder::<u64>::new(8).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let (mut tx2, mut rx2) = (tx.another().unwrap(), rx.another().unwrap());
    assert_eq!(claims(&channel), []);
    tx.push_slice(&[0, 1, 2, 3]).unwrap();
    assert_eq!(queue(&channel), QueueStat::default());
    let batch = rx.read_batch(2).unwrap();
    let (owned, reserved) = (rx2.read_owned().unwrap(), tx2.reserve(3).unwrap());
    let expected = [
        (Role::Consumer, 0, ClaimState::Held, 0, 2, 0),
        (Role::Consumer, 1, ClaimState::Held, 2, 1, 0),
        (Role::Producer, 1, ClaimState::Reserved, 4, 3, 0),
    ];
    assert_eq!(claims(&channel), expected);
    let stat = channel.stat().unwrap();
    let pids = stat
        .claims()
        .iter()
        .map(|claim| stat.holder(claim).unwrap());
    assert!(
        pids.clone()
            .all(|seat| seat.pid == u64::from(std::process::id()))
    );
    batch.release(2);
    assert_eq!(claims(&channel), expected[1..]);
    drop(owned);
    assert_eq!(claims(&channel), expected[2..]);
    reserved.commit(1);
    assert_eq!(claims(&channel), []);
}

/// A message that is held while the ring goes round keeps its holder and its time, and has a later position.
#[test]
fn carried_message_keeps_its_time() {
    let channel = Builder::<u64>::new(4).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.push(7).unwrap();
    let begin = Instant::now();
    let held = rx.read_owned().unwrap();
    let first = queue(&channel).claims.pop().unwrap();
    for number in 0..20 {
        tx.push(number).unwrap();
        assert_eq!(rx.pop(), Ok(number));
    }
    let later = queue(&channel).claims.pop().unwrap();
    assert_eq!((first.position, later.position % 5), (0, 0));
    assert!(later.position >= 20, "{later:?}");
    assert_eq!((later.index, later.count), (first.index, 1));
    let (first, later) = (first.held_for.unwrap(), later.held_for.unwrap());
    // The clock of the notes is up to 10 ms late.
    let inexact = Duration::from_millis(50);
    assert!(
        first <= later && later <= begin.elapsed() + inexact,
        "{first:?} {later:?}"
    );
    held.release();
    assert_eq!(claims(&channel), []);
}

/// Deliveries are told of a message that came again, and returned messages and dead letters are counted.
#[test]
fn letters_and_returns_are_counted() {
    let channel = Builder::<u64>::new(8).dead_letters(2, 4).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let figures = || {
        let queue = queue(&channel);
        (queue.claims.len(), queue.returned, queue.dead_letters)
    };
    tx.push(1).unwrap();
    rx.read().unwrap().keep();
    assert_eq!(figures(), (0, 1, 0));
    let again = rx.read_owned().unwrap();
    assert_eq!(figures(), (1, 0, 0));
    assert_eq!(queue(&channel).claims[0].deliveries, again.deliveries());
    assert_eq!(again.deliveries(), 1);
    again.keep();
    assert!(rx.try_pop().is_err(), "it is put aside");
    assert_eq!(figures(), (0, 0, 1));
    let letter = rx.try_dead_letter().unwrap();
    assert_eq!(figures(), (1, 0, 0));
    letter.keep();
    assert_eq!(figures(), (0, 1, 0));
    let anew = rx.read_owned().unwrap();
    assert_eq!(queue(&channel).claims[0].deliveries, 0, "tried anew");
    drop(anew);
    assert_eq!(figures(), (0, 0, 0));
}

/// A seat that was left with messages in hand has none once they are returned.
#[test]
fn left_messages_are_returned() {
    let channel = Builder::<u64>::new(4).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.push_slice(&[1, 2]).unwrap();
    std::mem::forget(rx.read_batch(2).unwrap());
    assert_eq!(queue(&channel).claims.len(), 1);
    drop(rx);
    let queue = queue(&channel);
    assert_eq!((queue.claims.len(), queue.returned), (0, 2));
}

#[test]
fn other_kinds_have_no_claims() {
    let channel = spsc::Builder::<u64>::new(4).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let _reserved = tx.try_reserve(2).unwrap();
    let stat = channel.stat().unwrap();
    assert_eq!((stat.queue.is_none(), stat.claims().len()), (true, 0));
}

/// Garbage in words and notes is counted, or told as it is; the time of such a claim is missing or in the past.
#[test]
fn garbage_is_survived() {
    let builder = Builder::<u64>::new(4).producers(2).consumers(2);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let geometry = channel.geometry();
    let word = |index| memory.control(geometry.claims_offset() + WORDS_OFFSET + 8 * index);
    let note = |index| {
        let notes = geometry.claims_offset() + geometry.notes_offset();
        (
            memory.control(notes + 16 * index),
            memory.control(notes + 16 * index + 8),
        )
    };
    word(0).store(u64::MAX, Ordering::Relaxed);
    word(1).store(4, Ordering::Relaxed);
    note(1).0.store(u64::MAX << 32, Ordering::Relaxed);
    note(1).1.store(u64::MAX, Ordering::Relaxed);
    let found = queue(&channel);
    assert_eq!((found.corrupt, found.claims.len()), (1, 1));
    assert_eq!(
        (found.claims[0].held_for, found.claims[0].deliveries),
        (None, 0)
    );
    let mut state = 1_u64;
    for _ in 0..2000 {
        for index in 0..geometry.slots() as usize {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            word(index).store(state.rotate_left(31), Ordering::Relaxed);
            note(index).1.store(state, Ordering::Relaxed);
        }
        let stat = channel.stat().unwrap();
        assert!(
            stat.claims()
                .iter()
                .all(|claim| stat.holder(claim).is_some())
        );
    }
}

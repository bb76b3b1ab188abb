//! Counts the memory behind the slots of a topic: it comes with the messages, and goes back when no message needs it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use slipring::topic::records::{Builder, Channel, Publisher};

/// The size of a large message, in bytes.
const LARGE: usize = 1 << 20;

/// The most that a slot with a large message has: a page at each of its ends is a neighbour's as well.
const WHOLE: usize = LARGE + 8192;

/// The most that a slot with a small message has.
const SMALL: usize = 8192;

/// The number of messages that stay readable.
const LAST: usize = 4;

/// The number of slots that a publisher of large messages finds free in one look.
const BATCH: usize = 4;

fn builder() -> Builder {
    Builder::new(LAST, LARGE).producers(2).consumers(1)
}

/// Returns how many bytes of the data part are backed.
fn backed(channel: &Channel) -> usize {
    let stat = channel.stat().unwrap();
    stat.topic.unwrap().backed.unwrap() as usize
}

fn push_large(tx: &mut Publisher, fills: std::ops::Range<u8>) {
    for fill in fills {
        tx.try_push(&vec![fill; LARGE]).unwrap();
    }
}

fn is_large(message: &[u8], fill: u8) -> bool {
    message.len() == LARGE && message.iter().all(|byte| *byte == fill)
}

#[test]
fn leavers_give_back_what_nobody_needs() {
    let channel = builder().memfd().unwrap();
    let (mut leaver, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    push_large(&mut leaver, 0..7);
    let held = rx.nth_latest_owned(3).unwrap();
    push_large(&mut leaver, 7..11);
    assert!(backed(&channel) >= (LAST + 2) * LARGE);
    drop(leaver);
    assert!(backed(&channel) <= (LAST + 1) * WHOLE);
    assert!(is_large(&held, 3), "a held message changed");
    for back in 0..LAST {
        assert!(is_large(&rx.nth_latest(back).unwrap(), 10 - back as u8));
    }
    // Other messages have their places now.
    let mut other = channel.producer().unwrap();
    let mut tx = channel.producer().unwrap();
    (0..LAST).for_each(|_| tx.push(b"small").unwrap());
    drop(other);
    assert!(backed(&channel) <= WHOLE + (LAST + 1 + BATCH) * SMALL);
    assert!(is_large(&held, 3), "a held message changed");
    drop(held);
    // The next one in that seat gives it back.
    other = channel.producer().unwrap();
    assert!(backed(&channel) <= (LAST + 1 + BATCH) * SMALL);
    other.push(b"more").unwrap();
    assert_eq!(&rx.latest().unwrap()[..], b"more");
}

/// Whoever gives memory back gives back what publishers left that are gone.
#[test]
fn others_give_back_what_leavers_left() {
    let channel = builder().memfd().unwrap();
    let (mut leaver, mut tx) = (channel.producer().unwrap(), channel.producer().unwrap());
    let mut rx = channel.consumer().unwrap();
    push_large(&mut leaver, 0..9);
    let held = rx.nth_latest_owned(0).unwrap();
    drop(leaver);
    (0..LAST).for_each(|_| tx.push(b"small").unwrap());
    assert!(backed(&channel) >= LAST * LARGE);
    tx.trim(64);
    assert!(backed(&channel) <= WHOLE + (LAST + 1 + BATCH) * SMALL);
    assert!(is_large(&held, 8), "a held message changed");
    drop(held);
    tx.trim(64);
    assert!(backed(&channel) <= (LAST + 1 + BATCH) * SMALL);
    // The seat is free as ever.
    push_large(&mut channel.producer().unwrap(), 0..9);
    assert!(is_large(&rx.latest().unwrap(), 8));
}

/// Slots that share a page with others give back no page of theirs.
#[test]
fn neighbours_keep_their_pages() {
    let channel = Builder::new(8, 200)
        .producers(2)
        .consumers(1)
        .memfd()
        .unwrap();
    let mut rx = channel.consumer().unwrap();
    let mut fellow = channel.producer().unwrap();
    for round in 0..30_u8 {
        let mut tx = channel.producer().unwrap();
        (0..40).for_each(|_| tx.push(&[round; 200]).unwrap());
        let held = rx.nth_latest_owned(5).unwrap();
        (0..2).for_each(|_| fellow.push(&[!round; 200]).unwrap());
        drop(tx);
        for back in 0..8 {
            let fill = if back < 2 { !round } else { round };
            assert_eq!(&rx.nth_latest(back).unwrap()[..], [fill; 200]);
        }
        let tx = channel.producer().unwrap();
        fellow.trim(0);
        assert_eq!(&held[..], [round; 200]);
        assert_eq!(&rx.nth_latest(7).unwrap()[..], [round; 200]);
        drop(tx);
    }
}

/// The successor of a publisher of large messages, too, leaves no slot large once as many small ones are there.
#[test]
fn successors_trim_what_predecessors_backed() {
    let channel = builder().producers(1).memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    push_large(&mut tx, 0..100);
    drop(tx);
    assert!(backed(&channel) >= LAST * LARGE);
    let mut tx = channel.producer().unwrap();
    tx.trim(64);
    (0..LAST + 1).for_each(|_| tx.push(b"small").unwrap());
    assert!(backed(&channel) <= (LAST + 1 + BATCH) * SMALL);
    // As much as ever.
    tx.trim(usize::MAX);
    push_large(&mut tx, 0..10);
}

#[test]
fn publishers_back_few_slots() {
    let channel = builder().memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    (0..4).for_each(|_| push_large(&mut tx, 0..250));
    let slots = LAST + 1 + BATCH;
    assert!(backed(&channel) <= slots * WHOLE);
    tx.trim(64);
    // All but the messages that can be read.
    assert!(backed(&channel) <= LAST * WHOLE + (1 + BATCH) * SMALL);
    for small in 0..=LAST {
        tx.push(b"small").unwrap();
        assert!(backed(&channel) <= (LAST - small).min(LAST) * WHOLE + WHOLE + slots * SMALL);
    }
    assert!(backed(&channel) <= slots * SMALL);
}

/// Slots come back one and all, also when they are overwritten by another publisher, more than one look asks for.
#[test]
fn others_overwrite_what_is_to_be_given_back() {
    const LAST: usize = 64;
    let builder = Builder::new(LAST, LARGE / 8).producers(2).consumers(1);
    let channel = builder.memfd().unwrap();
    let (mut tx, mut other) = (channel.producer().unwrap(), channel.producer().unwrap());
    for _ in 0..3 * LAST {
        tx.push(&[1; LARGE / 8]).unwrap();
    }
    tx.trim(64);
    (0..LAST).for_each(|_| other.push(b"small").unwrap());
    assert!(backed(&channel) >= LAST * LARGE / 8);
    tx.push(b"small").unwrap();
    assert!(backed(&channel) <= 2 * (LAST + 1 + BATCH) * SMALL);
}

/// A message that is held when memory is given back stays, and its slot follows when it is let go.
#[test]
fn held_messages_are_given_back_later() {
    let channel = builder().memfd().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    push_large(&mut tx, 0..9);
    let overwritten = rx.nth_latest_owned(3).unwrap();
    push_large(&mut tx, 9..13);
    let newest = rx.nth_latest_owned(0).unwrap();
    tx.trim(64);
    let slots = LAST + 3 + BATCH;
    (0..LAST + 1).for_each(|_| tx.push(b"small").unwrap());
    assert!(backed(&channel) <= 2 * WHOLE + slots * SMALL);
    assert!(is_large(&overwritten, 5) && is_large(&newest, 12));
    drop((overwritten, newest));
    (0..LAST + 1 + BATCH).for_each(|_| tx.push(b"small").unwrap());
    assert!(backed(&channel) <= slots * SMALL);
}

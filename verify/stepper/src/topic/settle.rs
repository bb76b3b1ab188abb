//! Settles an image of a topic: which messages it holds. It is found out four times, each time by others.

use std::time::Duration;

use slipring::Role;
use slipring_core::layout::{GATING_SET, LINE};
use slipring_testkit::{Consumer, Producer};

use super::stage::Stage;
use super::{BEFORE, Operation, PASSED, SEATS};
use crate::check::FRESH;
use crate::fellows::{ORDERS, Order};
use crate::image::Image;
use crate::kinds::{CAPACITY, Given, Kind, consumer, pop, producer, push, words};

/// The offset of a consumer's pins on its role page, and the number of words with pins.
const PINS: usize = 3 * LINE;
const PIN_WORDS: usize = 4;

/// Returns the number of messages that the victim had published.
pub(super) fn image(
    kind: &Kind,
    operation: &Operation,
    skew: u64,
    image: &Image,
) -> Result<u64, String> {
    let mut first = None;
    for order in ORDERS {
        let about = |error: String| format!("{order:?} first: {error}");
        let moved = settle(kind, operation, skew, image, order).map_err(about)?;
        if *first.get_or_insert(moved) != moved {
            return Err(about(format!(
                "{moved} were published, for a consumer {first:?}"
            )));
        }
    }
    first.ok_or_else(|| "nobody goes on".into())
}

fn settle(
    kind: &Kind,
    operation: &Operation,
    skew: u64,
    image: &Image,
    order: Order,
) -> Result<u64, String> {
    let mut stage = Stage::at(kind, operation, skew, image)?;
    let (mut txs, mut rxs) = (Vec::new(), Vec::new());
    let mut fresh = 0;
    match (order, operation.role) {
        (Order::Consumer, _) => {}
        (Order::Producer, _) => {
            push(&mut *stage.tx, FRESH, Duration::ZERO)?;
            fresh = 1;
        }
        (Order::Successor, Role::Producer) => {
            let mut tx = producer(&*stage.memory)?;
            push(&mut *tx, FRESH, Duration::ZERO)?;
            fresh = 1;
            txs.push(tx);
        }
        (Order::Successor, Role::Consumer) => rxs.push(consumer(&*stage.memory)?),
        (Order::New, _) => {
            stage.held = None;
            stage.tx.abort();
            stage.rx.abort();
            stage.window.put(image);
            (stage.tx, stage.rx) = (producer(&*stage.memory)?, consumer(&*stage.memory)?);
            kind.begin_at(&mut *stage.rx, PASSED)?;
        }
    }
    txs.push(stage.tx);
    rxs.insert(0, stage.rx);
    let moved = look(&mut *rxs[0], fresh)?;
    if let Some(held) = &stage.held {
        whole(held.sequence(), held.check())?;
    }
    // Newcomers take the seats that the dead left, and all go on.
    while txs.len() < SEATS - 1 {
        txs.push(producer(&*stage.memory)?);
    }
    while rxs.len() < SEATS {
        rxs.push(consumer(&*stage.memory)?);
    }
    traffic(&mut txs, &mut rxs)?;
    if let Some(held) = stage.held.take() {
        whole(held.sequence(), held.check())?;
    }
    drop(rxs);
    let (geometry, now) = (stage.memory.geometry(), stage.window.look());
    if now.word(GATING_SET) != 0 {
        return Err(format!("gating set {:x}", now.word(GATING_SET)));
    }
    for seat in geometry.seats_of(Role::Consumer) {
        let pins = geometry.role_offset(seat) + PINS;
        let mut pins = (0..PIN_WORDS).map(|word| now.word(pins + word * 8));
        if pins.any(|pins| pins != 0) {
            return Err(format!("seat {seat} has pins, and nobody is there"));
        }
    }
    Ok(moved)
}

/// Fails unless the held message is the first that nobody had read.
fn whole(sequence: u64, came: slipring_testkit::Came) -> Result<(), String> {
    match came? {
        PASSED if sequence == PASSED => Ok(()),
        found => Err(format!("held {PASSED}, which is now {found} at {sequence}")),
    }
}

/// Reads the newest messages, and then all in order. Returns the number of messages that the victim had published, where
/// `fresh` have come since.
fn look(rx: &mut dyn Consumer, fresh: u64) -> Result<u64, String> {
    let (newest, _) = rx.try_nth_latest(0).map_err(words)?;
    let next = PASSED + BEFORE;
    let moved = (newest + 1)
        .checked_sub(next + fresh)
        .ok_or_else(|| format!("{newest} is the newest, and {fresh} came behind {next}"))?;
    let number = |sequence: u64| match sequence.checked_sub(next + moved) {
        None => sequence,
        Some(since) => FRESH + since,
    };
    for back in 0..CAPACITY {
        let (sequence, came) = rx.try_nth_latest(back as usize).map_err(words)?;
        if (sequence, came?) != (newest - back, number(newest - back)) {
            return Err(format!("{back} before {newest} is {sequence}"));
        }
    }
    let mut at = PASSED;
    loop {
        match pop(rx, Duration::ZERO)? {
            Given::Message(found) if found == number(at) => at += 1,
            Given::Lost(lost) if at + lost <= newest => at += lost,
            Given::Nothing | Given::Ended(_) if at == newest + 1 => return Ok(moved),
            other => return Err(format!("{other:?} at {at}, and the newest is {newest}")),
        }
        if rx.position() != at {
            return Err(format!("at {}, not {at}", rx.position()));
        }
    }
}

/// Checks that the topic works as ever, through all these ends, more often than a pool has slots: nobody is ever full.
fn traffic(txs: &mut [Box<dyn Producer>], rxs: &mut [Box<dyn Consumer>]) -> Result<(), String> {
    let mut next = 2 * FRESH;
    for rx in rxs.iter_mut() {
        while !matches!(
            pop(&mut **rx, Duration::ZERO)?,
            Given::Nothing | Given::Ended(_)
        ) {}
    }
    for burst in [1, CAPACITY, 2, CAPACITY, 3, CAPACITY, 1, 1] {
        let burst = next..next + burst;
        next = burst.end;
        for (number, index) in burst.clone().zip(0..) {
            let tx = index % txs.len();
            push(&mut *txs[tx], number, Duration::ZERO)?;
        }
        for rx in rxs.iter_mut() {
            for number in burst.clone() {
                match pop(&mut **rx, Duration::ZERO)? {
                    Given::Message(found) if found == number => {}
                    other => return Err(format!("expected {number}, found {other:?}")),
                }
            }
        }
    }
    // A whole pool, and as much again.
    for number in next..next + 200 {
        push(&mut *txs[0], number, Duration::ZERO)?;
    }
    for tx in txs {
        let room = tx.try_room(CAPACITY as usize).map_err(words)?;
        if room as u64 != CAPACITY {
            return Err(format!("room for {room} of {CAPACITY}"));
        }
    }
    Ok(())
}

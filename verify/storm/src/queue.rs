//! Runs a worker of a queue's scenario: several producers and several consumers hold seats, and the account is the
//! [ledger](crate::ledger)'s.

use std::time::Duration;

use slipring::{End, Error, Readiness, Role};
use slipring_testkit::queue::{Feeder, Queue, QueueTerms, Taker};
use slipring_tests::room::PATIENCE;

use crate::kinds::{HAND, Way};
use crate::ledger::Floor;
use crate::words::{Words, add, put};
use crate::worker::{Worker, look, own_seat, patiently};

/// A time after which some calls give up.
const MOMENT: Duration = Duration::from_micros(200);
/// A time that no call reaches: the referee loses its patience before.
const LONG: Duration = Duration::from_secs(10 * PATIENCE.as_secs());

/// One of so many messages is given back at its first delivery.
const KEPT: u64 = 16;

/// Works until it is killed, or finds something wrong.
pub(crate) fn work(worker: &mut Worker, terms: &QueueTerms, queue: &dyn Queue) -> Error {
    match worker.role {
        Role::Producer => feed(worker, queue),
        Role::Consumer => consume(worker, terms, queue),
    }
}

fn feed(worker: &mut Worker, queue: &dyn Queue) -> Error {
    let mut tx = worker.sit_down(|| queue.feeder());
    worker.seat = own_seat(|| queue.stat());
    worker.seated();
    let ledger = &worker.words.ledger;
    let most = if worker.way == Way::Stream { HAND } else { 2 };
    for turn in 1.. {
        let mut left = ledger.draw(worker.index, 1 + turn % most);
        while !left.is_empty() {
            let done = match append(worker, &mut *tx, turn, left.clone()) {
                Ok(done) => done as u64,
                Err(error) => return error,
            };
            if done > 0 {
                ledger.pushed(left.start..left.start + done);
                left.start += done;
                worker.look_round();
            }
        }
    }
    unreachable!("turns do not end")
}

/// Appends some of the messages, and returns how many: none if it has only waited.
fn append(
    worker: &mut Worker,
    tx: &mut dyn Feeder,
    turn: u64,
    numbers: std::ops::Range<u64>,
) -> Result<usize, Error> {
    let polls = worker.way.polls(turn);
    let first = numbers.start;
    let done = match turn / 2 % 8 {
        0 | 1 => tx.try_batch(numbers),
        2 | 3 => tx.scatter(numbers),
        4 | 5 if !polls => tx.place(numbers),
        6 if !polls => tx.push_timeout(first, MOMENT).map(|()| 1),
        _ if !polls => tx.push(first).map(|()| 1),
        _ => tx.try_batch(first..first + 1),
    };
    match done {
        Err(Error::Full) if !polls => tx.push(first).map(|()| 1),
        done => done,
    }
    .or_else(|error| match error {
        Error::TimedOut => Ok(0),
        Error::Full => match tx.arm(1) {
            Ok(Readiness::Ready) => Ok(0),
            Ok(Readiness::Armed) => look(tx.fd()?).map(|()| 0),
            Err(error) => {
                worker.told(error)?;
                look(tx.fd()?).map(|()| 0)
            }
        },
        error => {
            worker.told(error)?;
            tx.wait_for_peer(PATIENCE).map(|()| 0)
        }
    })
}

fn consume(worker: &mut Worker, terms: &QueueTerms, queue: &dyn Queue) -> Error {
    let mut rx = worker.sit_down(|| queue.taker());
    worker.seat = own_seat(|| queue.stat());
    worker.seated();
    for turn in 1.. {
        let polls = worker.way.polls(turn);
        if polls {
            let armed = match rx.arm(1) {
                Ok(Readiness::Ready) => Ok(()),
                Ok(Readiness::Armed) => rx.fd().and_then(look),
                Err(error) => worker.told(error).and_then(|()| rx.fd().and_then(look)),
            };
            if let Err(error) = armed {
                return error;
            }
        }
        let timeout = match (polls, turn % 5) {
            (true, _) => Duration::ZERO,
            (false, 0) => MOMENT,
            (false, _) => LONG,
        };
        match take(worker.words, worker.seat, terms, &mut *rx, turn, timeout) {
            Ok(()) => worker.look_round(),
            Err(Error::TimedOut) => {}
            Err(error) => {
                let waited = worker.told(error).and_then(|()| rx.wait_for_peer(PATIENCE));
                if let Err(error) = waited {
                    return error;
                }
            }
        }
    }
    unreachable!("turns do not end")
}

/// Takes some messages, by one verb or another, and accounts for them.
fn take(
    words: &Words,
    seat: usize,
    terms: &QueueTerms,
    rx: &mut dyn Taker,
    turn: u64,
    timeout: Duration,
) -> Result<(), Error> {
    let ledger = &words.ledger;
    let mut floor = ledger.floor();
    let mut note = |message, deliveries| {
        let comes_once = !terms.at_most_once || deliveries == 0;
        assert!(comes_once, "message {message:#x} comes again");
        note(words, seat, message, deliveries, &mut floor);
    };
    let keeps = |message: u64, deliveries| {
        message % KEPT == KEPT / 2 && deliveries == 0 && !terms.at_most_once
    };
    match turn % 4 {
        // Somebody who dies behind a copy has lost it. So queues that lose nothing are not copied from.
        0 if terms.at_most_once => {
            let (message, deliveries) = rx.copy(timeout)?;
            note(message, deliveries);
            ledger.released(message);
            Ok(())
        }
        1 => rx.hold(
            3,
            timeout,
            &mut |message, deliveries| {
                note(message, deliveries);
                !keeps(message, deliveries)
            },
            &mut |message| ledger.released(message),
        ),
        _ => {
            let mut released = Vec::new();
            rx.take(HAND as usize, timeout, &mut |messages, deliveries| {
                messages
                    .iter()
                    .for_each(|message| note(*message, deliveries));
                let kept = messages.iter().rev();
                let kept = kept.take_while(|message| keeps(**message, deliveries));
                released.extend(&messages[..messages.len() - kept.count()]);
                released.len()
            })?;
            released
                .into_iter()
                .for_each(|message| ledger.released(message));
            Ok(())
        }
    }
}

/// Notes a message that a consumer holds.
fn note(words: &Words, seat: usize, message: u64, deliveries: u32, floor: &mut Floor) {
    match words.ledger.take(message, deliveries, floor) {
        Ok(false) => add(&words.seat(0).done, 1),
        Ok(true) => add(&words.seat(seat).again, 1),
        Err(what) => panic!("{what}"),
    };
    add(&words.messages, 1);
}

/// Accounts for every message once all workers are gone: takes each seat once, so that all dead holders are recovered, and
/// then all that is left. The queue is as good as new afterwards.
pub(crate) fn audit(terms: &QueueTerms, queue: &dyn Queue, words: &Words) {
    let feeders = (0..terms.producers).map(|_| patiently(|| queue.feeder(), || {}));
    let feeders = feeders.collect::<Vec<_>>();
    let takers = (0..terms.consumers).map(|_| patiently(|| queue.taker(), || {}));
    let mut rx = takers.collect::<Vec<_>>().swap_remove(0);
    drop(feeders);
    let end = loop {
        // The second turn: the verb that takes the most at once.
        if let Err(error) = take(words, terms.producers, terms, &mut *rx, 2, PATIENCE) {
            break error;
        }
    };
    assert_eq!(end, Error::Disconnected(End::Finished));
    let missing = words.ledger.missing();
    match terms.at_most_once {
        true => put(&words.ledger.dropped, missing),
        false => assert_eq!(missing, 0, "messages are lost"),
    }
    assert_eq!(queue.stat().unwrap().len, 0);
    let room = terms.capacity as u64;
    let placed = queue.feeder().unwrap().try_batch(0..room).unwrap();
    assert_eq!(placed as u64, room, "slots are lost");
}

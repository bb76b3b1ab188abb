//! One end of a work queue in a process of its own, until it is killed: `worker ROLE LEDGER NAME HOW`.
//!
//! The ledger is a file that all workers map. It has a word for each message number, in which a producer notes that it
//! is about to push the message, and that the push returned; and one in which each consumer adds what it took, before
//! it releases the message. So a referee that kills workers at random knows afterwards what must have become of every
//! message.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use slipring::{Error, mpmc};
use slipring_tests::ledger::{Ledger, PUSHED, PUSHING, get};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, ledger, name, how] = &arguments[..] else {
        panic!("a worker is told its role, its ledger, its channel and its way");
    };
    let ledger = Ledger::open(ledger);
    let builder = ledger.builder();
    match role.as_str() {
        "producer" => produce(&ledger, builder.producer(name).unwrap(), how),
        "consumer" if how == "held" => hold(&ledger, builder.consumer(name).unwrap()),
        "consumer" => consume(&ledger, builder.consumer(name).unwrap(), how),
        role => panic!("{role} is no role"),
    }
}

/// Pushes the next numbers, until the ledger is used up.
fn produce(ledger: &Ledger, mut tx: mpmc::Producer<u64>, how: &str) {
    let most = match how {
        "one" => 1,
        _ => 3,
    };
    while let Some(numbers) = ledger.draw(most) {
        numbers
            .clone()
            .for_each(|number| ledger.pushed(number, PUSHING));
        if how == "one" {
            for number in numbers.clone() {
                wait_out(&mut tx, |tx| Ok(tx.push(number)?));
            }
        } else {
            let count = (numbers.end - numbers.start) as usize;
            wait_out(&mut tx, |tx| {
                let mut run = tx.reserve(count)?;
                for (index, number) in numbers.clone().enumerate() {
                    run.write(index, number);
                }
                run.commit(count);
                Ok(())
            });
        }
        numbers.for_each(|number| ledger.pushed(number, PUSHED));
    }
}

/// Pushes by `push`, again if all consumers were killed before their successors came.
fn wait_out(
    tx: &mut mpmc::Producer<u64>,
    mut push: impl FnMut(&mut mpmc::Producer<u64>) -> Result<(), Error>,
) {
    while let Err(error) = push(tx) {
        assert!(matches!(error, Error::Disconnected(_)), "{error}");
        tx.wait_for_consumer(Duration::from_secs(60)).unwrap();
    }
}

/// Takes messages in place until there are none, once the referee wants to stop. An auditor begins when all others are
/// gone.
fn consume(ledger: &Ledger, mut rx: mpmc::Consumer<u64>, how: &str) {
    let most = match how {
        "one" => 1,
        _ => 4,
    };
    loop {
        let error = match rx.read_batch_timeout(most, Duration::from_millis(50)) {
            Ok(messages) => {
                let again = messages.iter().map(|number| ledger.take(*number)).max();
                let again = again.is_some_and(|before| before > 0);
                // A message that was taken before is marked. The other way round it need not be: its taker may have
                // died before it noted anything.
                assert!(!again || messages.deliveries() > 0, "taken twice");
                continue;
            }
            Err(error) => error,
        };
        let over = matches!(error, Error::TimedOut | Error::Disconnected(_));
        assert!(over, "{error}");
        if get(ledger.stop()) != 0 && rx.is_empty().unwrap() {
            return;
        }
    }
}

/// Holds a few messages at a time, and finishes with them in any order: releases most, and gives some back. So the queue
/// goes round and round while slots are held.
fn hold(ledger: &Ledger, mut rx: mpmc::Consumer<u64>) {
    let (mut held, mut turn) = (Vec::new(), 0_usize);
    loop {
        let error = match rx.read_owned_timeout(Duration::from_millis(2)) {
            Ok(message) => {
                let before = ledger.take(*message);
                assert!(before == 0 || message.deliveries() > 0, "taken twice");
                held.push(message);
                turn += 1;
                if held.len() > 3 {
                    let one = held.swap_remove(turn * 7 % held.len());
                    match turn % 8 {
                        0 => one.keep(),
                        _ => one.release(),
                    }
                }
                continue;
            }
            Err(error) => error,
        };
        held.clear();
        let over = matches!(error, Error::TimedOut | Error::Disconnected(_));
        assert!(over, "{error}");
        if get(ledger.stop()) != 0 && rx.is_empty().unwrap() {
            return;
        }
    }
}

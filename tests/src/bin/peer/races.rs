//! Runs many processes at once that make a channel, remove it, and take its seats.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use slipring::inspect::{self, SeatState};
use slipring::{Error, SetupError};
use slipring_tests::Barrier;

use crate::say;
use crate::worker::{Line, Said, maker, name, variant};

/// The number of times that each outcome was seen.
#[derive(Default)]
struct Outcomes(BTreeMap<String, u64>);

impl Outcomes {
    fn add(&mut self, outcome: &str) {
        *self.0.entry(outcome.to_owned()).or_default() += 1;
    }

    fn error(&mut self, error: impl Into<SetupError>) {
        let error = error.into();
        let variant = variant(&error);
        match error {
            SetupError::RoleTaken { .. }
            | SetupError::AlreadyExists { .. }
            | SetupError::NotFound { .. }
            | SetupError::InUse { .. } => {
                self.add(&variant);
            }
            _ => self.add(&format!("{variant}: {error}")),
        }
    }

    fn remove(&mut self, name: &str) {
        match inspect::remove(name) {
            Ok(()) => self.add("removed"),
            Err(error) => self.error(error),
        }
    }

    fn said(self) -> Said {
        Ok(self
            .0
            .iter()
            .map(|(outcome, count)| format!("{outcome}={count}"))
            .collect())
    }
}

/// Runs `race NAME HOW RANK PARTIES ROUNDS BARRIER`: in each round all make the channel at once,
/// with `create` or `open-or-create`; then the first removes it. Says for each round `made` or
/// `found`, and the channel's identity.
pub(crate) fn race(line: &Line<'_>) -> Said {
    let (name, how, rank) = (name(line.word(1)), line.word(2), line.number(3));
    let mut barrier = Barrier::join(Path::new(line.word(6)), line.number(4));
    let maker = maker(line);
    let mut said = Vec::new();
    for _ in 0..line.number(5) {
        barrier.wait();
        let (outcome, channel) = match how {
            "create" => match maker.create(&name) {
                Ok(channel) => ("made", channel),
                // A process whose create fails because the channel exists finds it whole.
                Err(SetupError::AlreadyExists { .. }) => ("found", maker.open(&name)?),
                Err(error) => return Err(error),
            },
            _ => ("either", maker.open_or_create(&name)?),
        };
        said.push(format!(
            "{outcome} {:032x}",
            channel.stat()?.header.identity.unique
        ));
        barrier.wait();
        if rank == 0 {
            channel.remove()?;
        }
        barrier.wait();
    }
    Ok(said)
}

/// Runs `churn NAME ROLE ROUNDS OWNER`: takes the role, makes or finds the channel for it, and
/// checks by the file OWNER that no other process has it. Then it passes a message and leaves;
/// every fourth time it removes the channel as well. Says how often each outcome came.
pub(crate) fn churn(line: &Line<'_>) -> Said {
    let (name, role, owner) = (name(line.word(1)), line.word(2), line.word(4));
    let maker = maker(line);
    let mut outcomes = Outcomes::default();
    // A holder of a seat has it in the channel that bears the name.
    let sits = || {
        let me = u64::from(std::process::id());
        inspect::stat(&name).is_ok_and(|stat| {
            let mut seats = stat.seats.iter().filter(|seat| seat.role.name() == role);
            seats.all(|seat| seat.state == SeatState::Held && seat.pid == me)
        })
    };
    // One owner at a time makes the file, and removes it before it leaves its seat.
    let alone = || match File::create_new(owner) {
        Err(_) => "two owners",
        Ok(_) if !sits() => "removed under its owner",
        Ok(_) => "seated",
    };
    let done = || std::fs::remove_file(owner).unwrap();
    for round in 0..line.number(3) {
        match role {
            "producer" => match maker.producer(&name) {
                Ok(mut tx) => {
                    outcomes.add(alone());
                    match tx.try_push(tx.next()) {
                        Ok(()) => outcomes.add("pushed"),
                        Err(Error::Full | Error::Disconnected(_)) => {}
                        Err(error) => outcomes.error(error),
                    }
                    done();
                }
                Err(error) => outcomes.error(error),
            },
            _ => match maker.consumer(&name) {
                Ok(mut rx) => {
                    outcomes.add(alone());
                    let position = rx.position();
                    match rx.try_pop() {
                        Ok(number) if number == position => outcomes.add("popped"),
                        Ok(number) => outcomes.add(&format!("{number} at {position}")),
                        Err(Error::Empty | Error::Disconnected(_)) => {}
                        Err(error) => outcomes.error(error),
                    }
                    done();
                }
                Err(error) => outcomes.error(error),
            },
        }
        if round % 4 == 0 {
            outcomes.remove(&name);
        }
    }
    outcomes.said()
}

/// Runs `occupy NAME ROLE`: takes the role and leaves it, for ever.
pub(crate) fn occupy(line: &Line<'_>) -> Said {
    let (maker, name) = (maker(line), name(line.word(1)));
    say("ok");
    loop {
        match line.word(2) {
            "producer" => drop(maker.producer(&name)?),
            _ => drop(maker.consumer(&name)?),
        }
    }
}

/// Runs `wreck NAME STOP`: removes the channel, again and again, until the file STOP is there. Says
/// how often each outcome came.
pub(crate) fn wreck(line: &Line<'_>) -> Said {
    let (name, stop) = (name(line.word(1)), Path::new(line.word(2)));
    let mut outcomes = Outcomes::default();
    while !stop.exists() {
        outcomes.remove(&name);
        std::thread::yield_now();
    }
    outcomes.said()
}

/// Runs `rebuild NAME`: makes and removes the channel for ever.
pub(crate) fn rebuild(line: &Line<'_>) -> Said {
    let name = name(line.word(1));
    say("ok");
    loop {
        maker(line).create(&name)?.remove()?;
    }
}

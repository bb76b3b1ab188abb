//! Stops an end of a work queue at each new image of each operation, and at instructions near these.
//!
//! While it is stopped, its fellows pass messages, several times around. They are held up by nothing but the slots that
//! the stopped end has in its hands:
//!
//! - Nothing, or messages that it reads in place one by one: they go on for as long as they like.
//! - What it copies out, or reads in place as a batch: all that comes behind is delivered, until the queue has gone round to
//!   that slot.
//! - What it has reserved: what was committed before is delivered, and there is room for the rest of the queue.
//!
//! Their calls end in time. Then the process goes on, and finishes its operation. Each message was taken once.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use slipring::inspect::{Claim, ClaimState};
use slipring::{Error, Role};

use super::operations::{Dead, First, Operation, PASSED};
use super::settle::{self, Account};
use super::stage::{Stage, VICTIM};
use super::victim::Deeds;
use crate::Args;
use crate::check::FRESH;
use crate::hostile::LATE;
use crate::kinds::{self, CAPACITY, Given, Kind, pop, words};

/// The number of times that fellows go round a queue whose stopped end is in nobody's way.
const LAPS: u64 = 3;

/// A call that waits in vain does so for this long.
const SHORT: Duration = Duration::from_micros(100);

/// Prints a row for each operation of each wanted work queue.
pub(crate) fn main(args: &Args) -> ExitCode {
    println!("| kind | operation | stops | of these in somebody's way | messages meanwhile |");
    println!("|---|---|---|---|---|");
    let (mut totals, mut failed) = (Figures::default(), false);
    for kind in kinds::all().iter().filter(|kind| kind.queue) {
        for operation in super::operations_of(kind) {
            let title = operation.title();
            if !args.wants(kind.name) || !title.contains(&args.only) {
                continue;
            }
            match all(kind, operation, args.near) {
                Ok(figures) => {
                    println!("| `{}` | {title} {figures}", kind.name);
                    totals.add(&figures);
                }
                Err(error) => {
                    println!("| `{}` | {title} | **failed** | {error} | |", kind.name);
                    eprintln!("{} {title}: {error}", kind.name);
                    failed = true;
                    if args.first {
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
    }
    println!("| all | {totals}");
    ExitCode::from(u8::from(failed))
}

/// The counts of one operation.
#[derive(Default)]
struct Figures {
    stops: u64,
    blocked: u64,
    messages: u64,
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.stops += other.stops;
        self.blocked += other.blocked;
        self.messages += other.messages;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures {
            stops,
            blocked,
            messages,
        } = self;
        write!(f, "| {stops} | {blocked} | {messages} |")
    }
}

/// Stops the operation everywhere, each time another process.
fn all(kind: &Kind, operation: &Operation, near: u64) -> Result<Figures, String> {
    let mut stage = Stage::set(kind, operation, None)?;
    let (instructions, images) = super::step(&mut stage, operation.name)?;
    drop(stage);
    let stops: BTreeSet<u64> = images
        .iter()
        .flat_map(|(at, _)| at.saturating_sub(near)..=(at + near / 4).min(instructions))
        .collect();
    let mut figures = Figures::default();
    for at in stops {
        let about = |error: String| format!("stopped after instruction {at}: {error}");
        one(kind, operation, at, &mut figures).map_err(about)?;
    }
    Ok(figures)
}

/// Stops it after so many instructions.
fn one(kind: &Kind, operation: &Operation, at: u64, figures: &mut Figures) -> Result<(), String> {
    let mut stage = Stage::set(kind, operation, None)?;
    let mut victim = stage.victim(operation.name)?;
    for _ in 0..at {
        // Operations that sleep differ in their length.
        if !victim.step()? {
            break;
        }
    }
    let begun = Instant::now();
    let mut fellows = Fellows {
        stage,
        pushed: 0,
        account: Account::default(),
        fresh: Vec::new(),
    };
    let blocked = fellows.go_on(operation)?;
    if begun.elapsed() > LATE {
        return Err(format!("the others were held up for {:?}", begun.elapsed()));
    }
    figures.stops += 1;
    figures.blocked += u64::from(blocked);
    figures.messages += fellows.pushed;
    let deeds = Deeds::read(&victim.said()?)?;
    fellows.settle(operation, &deeds)
}

/// The ends that are not stopped.
struct Fellows<'o> {
    stage: Stage<'o>,
    /// The number of fresh messages.
    pushed: u64,
    account: Account,
    /// The fresh messages that were taken.
    fresh: Vec<u64>,
}

impl Fellows<'_> {
    /// Passes messages beside the stopped end. Returns `true` if that has something in its hands that holds others up.
    fn go_on(&mut self, operation: &Operation) -> Result<bool, String> {
        let stat = self.stage.memory.stat().map_err(words)?;
        let stopped = |claim: &&Claim| claim.index >= VICTIM;
        let blocking: Vec<Claim> = stat.claims().iter().filter(stopped).cloned().collect();
        // What was committed before is delivered first.
        self.take()?;
        let single = |claim: &Claim| claim.state == ClaimState::Held && claim.count == 1;
        if blocking.iter().all(single) && operation.dead == Dead::Nobody {
            for _ in 0..LAPS * CAPACITY {
                if !self.push()? {
                    return Err(format!("the queue is full, and they have {blocking:?}"));
                }
                self.take()?;
            }
            self.expect_all()?;
            return Ok(false);
        }
        while self.push()? {
            self.take()?;
            if self.pushed > LAPS * CAPACITY {
                return match operation.dead {
                    Dead::Nobody => Err(format!("never full, and they have {blocking:?}")),
                    // The fellows have repaired it.
                    _ => Ok(false),
                };
            }
        }
        self.take()?;
        if operation.dead != Dead::Nobody {
            // Who repairs a dead end, and is stopped, holds others up as that end did.
            return Ok(true);
        }
        let first = blocking
            .iter()
            .map(|claim| claim.position)
            .min()
            .unwrap_or(0);
        // The position of the first fresh message, at most: behind all that was there, was carried, or is reserved. And
        // what was carried still takes a slot.
        let behind = operation.next() + operation.firsts + operation.added.len() as u64 + 1;
        if first + CAPACITY - operation.firsts > behind + self.pushed {
            let pushed = self.pushed;
            return Err(format!(
                "full after {pushed} messages, they have {blocking:?}"
            ));
        }
        if blocking.iter().all(|claim| claim.role == Role::Consumer) {
            self.expect_all()?;
        }
        Ok(true)
    }

    /// Appends a fresh message. Returns `false` if there is no room.
    fn push(&mut self) -> Result<bool, String> {
        match self.stage.tx.push_timeout(FRESH + self.pushed, SHORT) {
            Ok(()) => {
                self.pushed += 1;
                Ok(true)
            }
            Err(Error::TimedOut) => Ok(false),
            Err(error) => Err(words(error)),
        }
    }

    /// Takes what is there.
    fn take(&mut self) -> Result<(), String> {
        let Fellows {
            stage,
            account,
            fresh,
            ..
        } = self;
        settle::drain(&mut *stage.rx, || Ok(true), account, fresh)
    }

    /// Fails unless all fresh messages were taken, in order.
    fn expect_all(&self) -> Result<(), String> {
        let Fellows { pushed, fresh, .. } = self;
        match fresh.iter().copied().eq(FRESH..FRESH + pushed) {
            true => Ok(()),
            false => Err(format!("sent {pushed}, and took {fresh:?}")),
        }
    }

    /// Accounts for all messages, once the stopped end has finished.
    fn settle(mut self, operation: &Operation, deeds: &Deeds) -> Result<(), String> {
        let by_victim: Vec<u64> = deeds.released.clone();
        let Fellows {
            stage,
            account,
            fresh,
            ..
        } = &mut self;
        let dead = Vec::from_iter(operation.dead_seat());
        let repaired = || settle::are_repaired(&*stage.memory, &dead);
        settle::drain(&mut *stage.rx, repaired, account, fresh)?;
        settle::take_letters(&mut *stage.rx, account)?;
        let held = operation
            .firsts()
            .filter(|_| operation.first == First::Held);
        let found = account.messages.keys().chain(&*fresh).copied();
        let mut found: Vec<u64> = found.chain(by_victim).chain(held).collect();
        found.sort_unstable();
        let sent = operation.firsts().chain(operation.committed());
        let mut sent: Vec<u64> = sent.chain(FRESH..FRESH + self.pushed).collect();
        sent.extend(&deeds.pushed);
        sent.sort_unstable();
        // The letter that is one too many is dropped.
        let dropped = operation.gone.iter().map(|number| PASSED + number);
        if operation.first == First::Letters && operation.rule.is_some() {
            for number in dropped {
                sent.retain(|one| *one != number);
                found.retain(|one| *one != number);
            }
        }
        if found != sent {
            return Err(format!("sent {sent:?}, found {found:?}, it did {deeds:?}"));
        }
        let given_back = |number: &&u64| self.account.messages.contains_key(number);
        for number in deeds.given_back.iter().filter(given_back) {
            let found = self.account.messages[number];
            let letter = operation.back.iter().any(|back| PASSED + back == *number);
            if !found.marked && !letter {
                return Err(format!("{number} came again, unmarked"));
            }
        }
        let Stage {
            window,
            tx,
            mut rx,
            held,
            ..
        } = self.stage;
        held.into_iter().for_each(|finish| finish(true));
        match pop(&mut *rx, Duration::ZERO)? {
            Given::Nothing => settle::traffic(&window, &mut [tx], &mut [rx]),
            other => Err(format!("the queue was empty, and has {other:?}")),
        }
    }
}

//! Kills an end of a topic that has fellows: another producer and another consumer, in seats of their own, which stay.
//!
//! The victim follows a producer in its seat that published the last messages. The fellow consumer holds one of them, so
//! that a successor meets a pin on a slot of its own.
//!
//! Each image is settled four times: a fellow consumer goes on first, a fellow producer, a successor, or only new ends are
//! left. All four must find the same messages, in one order without a gap, and the newest one of them. Held messages stay
//! as they are, nobody waits for the dead, and their pins come free.
//!
//! With `--stopped` nobody is killed: see [`stopped`].
//!
//! A victim may die between its entry in the ring and the head. The report counts those images: there must be some.

mod settle;
mod stage;
pub(crate) mod stopped;

use std::ops::ControlFlow;
use std::time::Duration;

use slipring::Role;
use slipring_core::layout::HEAD;
use slipring_testkit::inherited;

use crate::image::{Image, Seen};
use crate::kinds::{self, CAPACITY, Kind, consumer, producer, words};
use crate::operations::{consume, produce};
use crate::{Figures, Report, trace};
use stage::Stage;

/// The number of messages that were passed before.
const PASSED: u64 = 6;

/// The number of committed messages that nobody has read in order.
const BEFORE: u64 = 2;

/// The number of seats of each side: a fellow's, the victim's, and a free one.
const SEATS: usize = 3;

/// The operation of the successor: it takes the victim's seat.
const TAKE: &str = "take";

/// One operation of an end with fellows.
struct Operation {
    name: &'static str,
    role: Role,
    /// The most messages that it publishes.
    moves: u64,
    /// `true` if somebody died just before the head was told of the newest message.
    behind: bool,
}

const fn produces(name: &'static str, moves: u64) -> Operation {
    Operation {
        name,
        role: Role::Producer,
        moves,
        behind: false,
    }
}

const fn consumes(name: &'static str) -> Operation {
    Operation {
        name,
        role: Role::Consumer,
        moves: 0,
        behind: false,
    }
}

const fn behind(operation: Operation) -> Operation {
    Operation {
        behind: true,
        ..operation
    }
}

static OPERATIONS: [Operation; 19] = [
    produces(TAKE, 0),
    behind(produces(TAKE, 0)),
    produces("leave", 0),
    produces("push", 1),
    behind(produces("push", 1)),
    produces("place", 1),
    produces("push-slice", 3),
    behind(produces("push-slice", 3)),
    produces("reserve-discard", 0),
    consumes(TAKE),
    consumes("leave"),
    consumes("read-one"),
    consumes("read-owned"),
    behind(consumes("read-owned")),
    consumes("latest"),
    behind(consumes("latest")),
    consumes("nth-latest"),
    consumes("hold-latest"),
    consumes("hold-many"),
];

impl Operation {
    fn title(&self) -> String {
        let behind = if self.behind { ", the head behind" } else { "" };
        format!("{} with fellows: {}{behind}", self.role.name(), self.name)
    }
}

/// Returns `true` if the newest message of the image is not in the head.
fn is_behind(image: &Image, entries: usize) -> bool {
    let head = image.word(HEAD);
    let entry = image.word(entries + (head % CAPACITY) as usize * 8);
    entry >> 16 == head / CAPACITY + 1
}

/// Steps all operations over all topics.
pub(crate) fn all(report: &mut Report) -> ControlFlow<()> {
    for kind in kinds::all().iter().filter(|kind| kind.topic) {
        if !report.args.wants(kind.name) {
            continue;
        }
        let (shown, mut found) = (format!("`{}`", kind.name), 0);
        for operation in &OPERATIONS {
            let recovery = report.args.recovery;
            report.tell(&shown, &operation.title(), || {
                run(kind, operation, recovery, &mut found)
            })?;
        }
        if report.args.only.is_empty() {
            let title = format!("of these, {found} between the entry and the head");
            report.tell(&shown, &title, || match found {
                0 => Err("no image has the head behind its entries".into()),
                _ => Ok(Figures::default()),
            })?;
        }
    }
    ControlFlow::Continue(())
}

fn run(
    kind: &Kind,
    operation: &Operation,
    recovery: bool,
    found: &mut u64,
) -> Result<Figures, String> {
    let mut stage = Stage::set(kind, operation, None)?;
    let (skew, entries) = {
        let geometry = stage.memory.geometry();
        (geometry.skew, geometry.claims_offset())
    };
    let (instructions, images) = step(&mut stage, operation.name)?;
    drop(stage);
    let mut figures = Figures {
        instructions,
        images: images.len() as u64,
        ..Figures::default()
    };
    let (mut seen, mut least) = (Seen::default(), 0);
    for (index, (at, image)) in images.iter().enumerate() {
        let about = |error: String| format!("killed after instruction {at}: {error}");
        let moved = settle::image(kind, operation, skew, image).map_err(about)?;
        let last = index + 1 == images.len();
        if moved < least || moved > operation.moves || last && moved < operation.moves {
            let moves = operation.moves;
            return Err(about(format!(
                "{moved} of {moves} published, after {least}"
            )));
        }
        least = moved;
        *found += u64::from(!operation.behind && is_behind(image, entries));
        if !recovery {
            continue;
        }
        let mut stage = Stage::at(kind, operation, skew, image)?;
        let (instructions, images) = step(&mut stage, TAKE)?;
        drop(stage);
        figures.recovery_instructions += instructions;
        for (within, image) in images {
            if seen.is_new(&image) {
                figures.recovery_images += 1;
                let about = |error| about(format!("its successor after {within}: {error}"));
                let again = settle::image(kind, operation, skew, &image).map_err(about)?;
                if again != moved {
                    return Err(about(format!("{again} published, before {moved}")));
                }
            }
        }
    }
    Ok(figures)
}

/// Steps a victim through the operation `name`. Returns the number of instructions, and each image that it went through.
fn step(stage: &mut Stage<'_>, name: &str) -> Result<(u64, Vec<(u64, Image)>), String> {
    let mut victim = stage.victim(name)?;
    let stepped = crate::step_through(&mut victim, &stage.window)?;
    victim.finish()?;
    Ok(stepped)
}

/// Runs in the other process: does the operation between two signals, and prints its result.
pub(crate) fn victim(kind: &str, index: &str, name: &str, passed: &str) -> Result<(), String> {
    let kind = kinds::named(kind)?;
    let operation = index
        .parse()
        .ok()
        .and_then(|index: usize| OPERATIONS.get(index));
    let operation = operation.ok_or("no such operation")?;
    let memory = kind.with_seats(SEATS).passed(inherited(passed));
    let memory = memory.map_err(words)?;
    let next = PASSED + BEFORE;
    match (operation.role, name) {
        (Role::Producer, TAKE) => {
            trace::begin();
            let taken = memory.producer();
            trace::end();
            taken.map_err(words)?.abort();
        }
        (Role::Consumer, TAKE) => {
            trace::begin();
            let taken = memory.consumer();
            trace::end();
            taken.map_err(words)?.abort();
        }
        (Role::Producer, "leave") => {
            let tx = producer(&*memory)?;
            trace::begin();
            drop(tx);
            trace::end();
        }
        (Role::Consumer, "leave") => {
            let rx = consumer(&*memory)?;
            trace::begin();
            drop(rx);
            trace::end();
        }
        (Role::Producer, name) => {
            let mut tx = producer(&*memory)?;
            trace::begin();
            let done = produce(&kind, &mut *tx, name, next, Duration::ZERO);
            trace::end();
            tx.abort();
            done?;
        }
        (Role::Consumer, name) => {
            let mut rx = consumer(&*memory)?;
            kind.begin_at(&mut *rx, PASSED)?;
            trace::begin();
            let done = consume(&kind, &mut *rx, name, PASSED, Duration::ZERO);
            trace::end();
            rx.abort();
            if done
                .as_ref()
                .is_err_and(|error| error.contains("overwrote"))
            {
                // Only where it was stopped meanwhile.
                println!("late");
                return Ok(());
            }
            done?;
        }
    }
    println!("ok");
    Ok(())
}

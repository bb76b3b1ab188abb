//! Kills an end of a work queue that has fellows: other producers and consumers, in seats of their own, which stay.
//!
//! The [`stage`] has a producer and a consumer in this process; the victim holds another seat. Besides the verbs of every
//! kind the operations are those of work queues alone: guards that leave their handle's hands, messages that are given
//! back or put aside, slots that a producer carries past, and the repair of a dead end by one that waits.
//!
//! The account of each image is settled four times ([`settle`]): a fellow consumer goes on first, a fellow producer, a
//! successor, or only new ends are left. All four must give the same account. It tells where each message was, and whether
//! it came with the mark of an earlier delivery. So no message is lost, torn, or delivered twice unmarked, no dead letter
//! is lost or doubled, and the whole capacity is there again.
//!
//! With `--stopped` nobody is killed: see [`stopped`].

mod operations;
mod settle;
mod stage;
pub(crate) mod stopped;
mod victim;

use std::ops::ControlFlow;

use crate::image::{Image, Seen};
use crate::kinds::{self, Kind};
use crate::{Figures, Report};
use operations::{OPERATIONS, Operation};
use settle::{Account, Bounds};
use stage::Stage;
pub(crate) use victim::victim;

/// Steps all operations over all work queues.
pub(crate) fn all(report: &mut Report) -> ControlFlow<()> {
    for kind in kinds::all().iter().filter(|kind| kind.queue) {
        if !report.args.wants(kind.name) {
            continue;
        }
        for operation in operations_of(kind) {
            let recovery = report.args.recovery;
            report.tell(&format!("`{}`", kind.name), &operation.title(), || {
                run(kind, operation, recovery)
            })?;
        }
    }
    ControlFlow::Continue(())
}

/// Returns the operations of a kind: those of runs only where it has them.
fn operations_of(kind: &Kind) -> impl Iterator<Item = &'static Operation> {
    let runs = kind.runs;
    OPERATIONS
        .iter()
        .filter(move |operation| runs || !operation.run)
}

fn run(kind: &Kind, operation: &Operation, recovery: bool) -> Result<Figures, String> {
    let mut stage = Stage::set(kind, operation, None)?;
    let skew = stage.memory.geometry().skew;
    let (instructions, images) = step(&mut stage, operation.name)?;
    drop(stage);
    let mut figures = Figures {
        instructions,
        images: images.len() as u64,
        ..Figures::default()
    };
    let mut bounds = Bounds::of(operation);
    let last = images.len() - 1;
    let mut accounts = Vec::new();
    for (index, (at, image)) in images.iter().enumerate() {
        let about = |error: String| format!("killed after instruction {at}: {error}");
        let account = settle::image(kind, operation, skew, image).map_err(about)?;
        bounds.check(&account, index == last).map_err(about)?;
        accounts.push(account);
    }
    if recovery {
        let mut seen = Seen::default();
        for ((at, image), account) in images.iter().zip(&accounts) {
            repair(
                kind,
                operation,
                skew,
                image,
                account,
                &mut seen,
                &mut figures,
            )
            .map_err(|error| format!("killed after instruction {at}, {error}"))?;
        }
    }
    Ok(figures)
}

/// Kills the successor at each instruction of taking the dead one's seat. Each image that is left must give the account
/// that the dead one left.
fn repair(
    kind: &Kind,
    operation: &Operation,
    skew: u64,
    image: &Image,
    account: &Account,
    seen: &mut Seen,
    figures: &mut Figures,
) -> Result<(), String> {
    let mut stage = Stage::at(kind, operation, skew, image)?;
    let (instructions, images) = step(&mut stage, victim::TAKE)?;
    drop(stage);
    figures.recovery_instructions += instructions;
    for (within, image) in images {
        if seen.is_new(&image) {
            figures.recovery_images += 1;
            let about = |error| format!("its successor after {within}: {error}");
            let found = settle::image(kind, operation, skew, &image).map_err(about)?;
            if !found.is_same(account) {
                return Err(about(format!("found {found:?}, before {account:?}")));
            }
        }
    }
    Ok(())
}

/// Steps a victim through the operation `name`. Returns the number of instructions, and each image that it went through.
fn step(stage: &mut Stage<'_>, name: &str) -> Result<(u64, Vec<(u64, Image)>), String> {
    let mut victim = stage.victim(name)?;
    let stepped = crate::step_through(&mut victim, &stage.window)?;
    victim.said().and_then(|said| victim::Deeds::read(&said))?;
    Ok(stepped)
}

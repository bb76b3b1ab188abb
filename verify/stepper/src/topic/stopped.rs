//! Stops an end of a topic while the others go on: a subscriber at each instruction of a read, a publisher at each new image.
//!
//! While it is stopped, a fellow publishes more than its pool has slots, and a subscriber reads the newest: nobody waits. Beside a
//! stopped subscriber, the fellow has the seat, and so the pool, of the one whose message is read. Then the stopped end goes
//! on. What it reads is whole, and the message that it asked for, or it learns that it is too late.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use slipring::Role;

use super::stage::Stage;
use super::{BEFORE, OPERATIONS, Operation, PASSED};
use crate::Args;
use crate::hostile::LATE;
use crate::kinds::{self, Kind, producer, push, words};

/// More than a pool has slots.
const MEANWHILE: u64 = 200;

/// The operations of subscribers that are stopped: the others repeat these.
const READS: [&str; 3] = ["read-one", "latest", "hold-latest"];

/// Prints a row for each operation of each wanted topic. Returns `true` if all went well.
pub(crate) fn main(args: &Args) -> ExitCode {
    println!("| kind | operation | stops | of these too late |");
    println!("|---|---|---|---|");
    let mut failed = false;
    for kind in kinds::all().iter().filter(|kind| kind.topic) {
        for operation in OPERATIONS.iter().filter(|operation| !operation.behind) {
            let title = operation.title();
            let reads = READS.contains(&operation.name);
            let wanted = args.wants(kind.name) && title.contains(&args.only);
            if !wanted || operation.role == Role::Consumer && !reads {
                continue;
            }
            match all(kind, operation) {
                Ok((stops, late)) => println!("| `{}` | {title} | {stops} | {late} |", kind.name),
                Err(error) => {
                    println!("| `{}` | {title} | **failed** | {error} |", kind.name);
                    eprintln!("{} {title}: {error}", kind.name);
                    failed = true;
                    if args.first {
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// Stops the operation everywhere. Returns the number of stops, and of those after which it was too late.
fn all(kind: &Kind, operation: &Operation) -> Result<(u64, u64), String> {
    let (instructions, images) =
        super::step(&mut Stage::set(kind, operation, None)?, operation.name)?;
    let stops: Vec<u64> = match operation.role {
        Role::Consumer => (0..instructions).collect(),
        Role::Producer => images.into_iter().map(|(at, _)| at).collect(),
    };
    let mut late = 0;
    for at in &stops {
        let about = |error: String| format!("stopped after instruction {at}: {error}");
        late += u64::from(one(kind, operation, *at).map_err(about)?);
    }
    Ok((stops.len() as u64, late))
}

/// Stops the operation after this many instructions. Returns `true` if it was too late then.
fn one(kind: &Kind, operation: &Operation, at: u64) -> Result<bool, String> {
    let mut stage = Stage::set(kind, operation, None)?;
    let mut victim = stage.victim(operation.name)?;
    for _ in 0..at {
        victim.step()?;
    }
    if operation.role == Role::Consumer {
        stage.tx = producer(&*stage.memory)?;
    }
    let begun = Instant::now();
    // A message's number is its place in the order.
    for number in PASSED + BEFORE..PASSED + BEFORE + MEANWHILE {
        push(&mut *stage.tx, number, Duration::ZERO)?;
    }
    let (before, came) = stage.rx.try_nth_latest(0).map_err(words)?;
    came?;
    if begun.elapsed() > LATE {
        return Err("a call ended late".into());
    }
    let late = match victim.said()?.as_str() {
        "ok" => false,
        "late" => true,
        said => return Err(said.into()),
    };
    let (newest, came) = stage.rx.try_nth_latest(0).map_err(words)?;
    came?;
    let published = PASSED + BEFORE + MEANWHILE + operation.moves;
    if newest + 1 != published || before > newest {
        return Err(format!(
            "{newest} is the newest, after {before}, of {published}"
        ));
    }
    let held = stage.held.as_ref().ok_or("nothing is held")?;
    match held.check()? {
        PASSED => Ok(late),
        found => Err(format!("{found} is held, not {PASSED}")),
    }
}

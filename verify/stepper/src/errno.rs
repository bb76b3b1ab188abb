//! Makes every system call of every operation fail, one at a time, with each error that a full
//! machine gives. The operation returns a typed error or does without the call. It leaks nothing,
//! and leaves a channel that works.
//!
//! ptrace makes the calls fail (they are never entered), so the caller does not matter.

use std::process::ExitCode;
use std::time::Duration;

use crate::check::{self, Stage};
use crate::kinds::{self, Kind};
use crate::operations::Operation;
use crate::trace::Inject;
use crate::{Args, handover, names};

/// The injected errors: too many files, no memory, no space, a signal, no permission.
const ERRNOS: [i32; 5] = [
    libc::EMFILE,
    libc::ENOMEM,
    libc::ENOSPC,
    libc::EINTR,
    libc::EPERM,
];

/// Calls that cannot fail so, or that are not the operation's. A descriptor that is not closed, or
/// memory that is not unmapped, would be the injector's leak. With some of the rest a victim says
/// where it is. Others are the heap's, whose failure ends a Rust program anywhere.
const SPARED: [i64; 9] = [
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_tgkill,
    libc::SYS_rt_sigprocmask,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_brk,
    libc::SYS_exit_group,
    libc::SYS_sigaltstack,
];

/// No operation makes this many calls. A sleeping operation does, but its later calls repeat the
/// earlier.
const MOST: u64 = 100;

/// An operation waits this long, for a few looks at its peer.
const PARK: Duration = Duration::from_millis(20);

/// The counts of a row.
#[derive(Default)]
struct Figures {
    calls: u64,
    faults: u64,
    /// The number of faults that ended in an error; the operation did without the other calls.
    errors: u64,
}

impl Figures {
    /// Prints a line of the table; returns `false` if it reports a failure.
    fn add(&mut self, name: &str, found: Result<Figures, String>) -> bool {
        match found {
            Ok(Figures {
                calls,
                faults,
                errors,
            }) => {
                println!("| {name} | {calls} | {faults} | {errors} |");
                self.calls += calls;
                self.faults += faults;
                self.errors += errors;
                true
            }
            Err(error) => {
                println!("| {name} | **failed** | {error} | |");
                eprintln!("{name}: {error}");
                false
            }
        }
    }

    fn count(&mut self, said: &str) -> Result<(), String> {
        self.faults += 1;
        match said.strip_prefix("error ") {
            // This is not slipring's error but the operation's own: it did a forbidden thing.
            Some(error) if error.starts_with("expected") => Err(said.to_string()),
            Some(_) => {
                self.errors += 1;
                Ok(())
            }
            None if said == "ok" => Ok(()),
            None => Err(said.to_string()),
        }
    }
}

/// Runs all operations of the chosen kinds.
pub(crate) fn main(args: &Args) -> ExitCode {
    println!("| kind | operation | system calls | faults injected | of these an error |");
    println!("|---|---|---|---|---|");
    let (mut totals, mut failed) = (Figures::default(), false);
    for mut kind in kinds::all() {
        // A consumer whose call was refused leaves the memory, and no message.
        kind.gives_back = false;
        for operation in &kind.operations {
            if args.wants(kind.name) && operation.name.contains(&args.only) {
                let name = format!("`{}` | {}", kind.name, crate::full_name(operation));
                failed |= !totals.add(&name, all_of(|at, errno| one(&kind, operation, at, errno)));
            }
        }
    }
    let handed = |kind: &&Kind| args.wants(kind.name) && !kind.variant;
    for kind in kinds::all().iter().filter(handed) {
        for name in handover::OPERATIONS {
            let title = format!("`{}` | handover: {name}", kind.name);
            if title.contains(&args.only) {
                let inject = |at, errno| handover::inject(kind, name, at, errno, &SPARED);
                failed |= !totals.add(&title, all_of(inject));
            }
        }
    }
    for name in names::OPERATIONS {
        if args.wants("names") && name.contains(&args.only) {
            let inject = |at, errno| names::inject(name, at, errno, &SPARED);
            failed |= !totals.add(&format!("names | {name}"), all_of(inject));
        }
    }
    println!(
        "| all | | {} | {} | {} |",
        totals.calls, totals.faults, totals.errors
    );
    ExitCode::from(u8::from(failed))
}

/// Makes each call fail with each error, until there is no such call.
fn all_of(
    mut inject: impl FnMut(u64, i32) -> Result<Option<String>, String>,
) -> Result<Figures, String> {
    let mut figures = Figures::default();
    for errno in ERRNOS {
        for at in 0..MOST {
            let about = |error: String| format!("errno {errno} in call {at}: {error}");
            match inject(at, errno).map_err(about)? {
                Some(said) => figures.count(&said).map_err(about)?,
                None => break,
            }
            figures.calls = figures.calls.max(at + 1);
        }
    }
    Ok(figures)
}

/// Injects one fault into an operation of a kind, and returns the victim's message.
fn one(kind: &Kind, operation: &Operation, at: u64, errno: i32) -> Result<Option<String>, String> {
    let mut stage = Stage::set(kind, operation, None, false)?;
    let skew = stage.memory.geometry().skew;
    let mut victim = stage.victim(kind, operation, operation, PARK)?;
    let Inject::Done(call) = victim.inject(at, errno, &SPARED)? else {
        return Ok(None);
    };
    let about = |error: String| format!("(call {call}) {error}");
    let said = victim.said().map_err(about)?;
    let image = stage.window.look();
    drop(stage);
    check::image(kind, operation, skew, check::finished(&image), &image).map_err(about)?;
    Ok(Some(said))
}

//! The honest workers of a live run: processes that pass messages for ever by timed calls, whatever
//! they meet.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use slipring_testkit::{Delivery, inherited};

use crate::hostile::{LATE, Place};
use crate::kinds::{self, Given, Kind, consumer, pop, producer, push, words};
use crate::walls::{Flush, Walled};

/// The duration of a timed call.
pub(crate) const SHORT: Duration = Duration::from_millis(2);

/// A worker takes its seat anew after this many calls in vain.
const VAIN: u32 = 10;

/// An honest process.
pub(crate) struct Honest {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    asks: std::process::ChildStdin,
}

impl Honest {
    pub(crate) fn start(
        kind: &Kind,
        place: Place,
        passed: &[OwnedFd],
        role: &str,
    ) -> Result<Honest, String> {
        use std::os::unix::process::CommandExt;
        let numbers: Vec<i32> = passed.iter().map(|fd| fd.as_raw_fd()).collect();
        let text: Vec<String> = numbers.iter().map(i32::to_string).collect();
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        let place = place.map_or("", Flush::name);
        command.args(["honest", role, kind.name, place, &text.join(",")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let keep = move || {
            for fd in &numbers {
                // SAFETY: one system call on a descriptor that the parent keeps open meanwhile.
                unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
        let mut child = unsafe { command.pre_exec(keep) }
            .spawn()
            .map_err(|error| error.to_string())?;
        let (said, asks) = (child.stdout.take(), child.stdin.take());
        let (said, asks) = (said.ok_or("no output")?, asks.ok_or("no input")?);
        Ok(Honest {
            child,
            said: BufReader::new(said),
            asks,
        })
    }

    pub(crate) fn is_alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            ended => Err(format!("an honest process ended: {ended:?}")),
        }
    }

    /// Returns the number of messages that the process has passed.
    pub(crate) fn passed(&mut self) -> Result<u64, String> {
        let line = self.says()?;
        let number = line.split(' ').next().and_then(|word| word.parse().ok());
        number.ok_or_else(|| format!("an honest process said: {line}"))
    }

    /// Returns the number of passed messages, and the last error that the process met.
    pub(crate) fn says(&mut self) -> Result<String, String> {
        let fail = |error: std::io::Error| format!("an honest process does not answer: {error}");
        self.asks.write_all(b"?").map_err(fail)?;
        let mut line = String::new();
        self.said.read_line(&mut line).map_err(fail)?;
        Ok(line)
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs in the honest process: passes messages for ever, whatever it meets, and reports their
/// number when asked.
pub(crate) fn act(role: &str, kind: &str, place: &str, passed: &str) -> Result<(), String> {
    let kind = kinds::named(kind)?;
    let memory = match (Flush::named(place), inherited(passed)) {
        (None, passed) => kind.maker.passed(passed).map_err(words)?,
        (Some(flush), passed) => {
            let files = passed.try_into().map_err(|_| "not two files")?;
            let walled = Walled::open(files, kind.maker.lens(), flush)?;
            kind.within(&walled, false)?
        }
    };
    let count = Arc::new(AtomicU64::new(0));
    let met = Arc::new(Mutex::new(String::new()));
    let (shown, last) = (count.clone(), met.clone());
    std::thread::spawn(move || {
        use std::io::Read;
        let mut ask = [0];
        while std::io::stdin().read_exact(&mut ask).is_ok() {
            let met = last
                .lock()
                .map_or_else(|_| String::new(), |met| met.clone());
            println!("{} {met}", shown.load(Ordering::Relaxed));
        }
        std::process::exit(0);
    });
    let meet = |error: String| {
        if let Ok(mut met) = met.lock() {
            *met = error;
        }
    };
    let mut number = 0;
    loop {
        // While a lie keeps the seat from being taken, there is nothing to do. A worker that waits
        // in vain for long takes its seat anew. A handle keeps its own position to itself, and a
        // lie about it in memory can leave one side full and the other empty.
        let mut one = || -> Result<(), String> {
            let timed = |begun: Instant| match begun.elapsed() {
                late if late > LATE => std::process::exit(3),
                _ => Instant::now(),
            };
            let (mut at, mut vain) = (Instant::now(), 0);
            if role == "producer" {
                let mut tx = producer(&*memory)?;
                loop {
                    let pushed = push(&mut *tx, number % 200, SHORT);
                    at = timed(at);
                    match pushed {
                        Ok(()) => {
                            (number, vain) = (number + 1, 0);
                            if kind.delivery == Delivery::Overwriting {
                                // Without this nobody ever reads one of its few slots.
                                std::thread::yield_now();
                            }
                        }
                        Err(error) if error.contains("corrupt") || vain == VAIN => {
                            return Err(error);
                        }
                        Err(_) => vain += 1,
                    }
                }
            }
            let mut rx = consumer(&*memory)?;
            loop {
                let popped = pop(&mut *rx, SHORT);
                at = timed(at);
                match popped {
                    Ok(Given::Message(_)) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        vain = 0;
                    }
                    Ok(Given::Lost(_)) => {}
                    Ok(_) if vain == VAIN => return Err("nothing came".into()),
                    Err(error) if error.contains("corrupt") || vain == VAIN => return Err(error),
                    // Either no message came, or it was scribbled on and is gone.
                    _ => vain += 1,
                }
            }
        };
        if let Err(error) = one() {
            meet(error);
        }
        std::thread::yield_now();
    }
}

//! Hands channels over, and kills the giver or the receiver. The other is left with a whole channel
//! or a typed error. The users of the channel never notice.
//!
//! The victim is stepped. Others can see the channel's memory, and the number of bytes that wait in
//! the socket. At each new state of these the victim is killed, and the rest is examined. Then
//! another victim goes on to the next state.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use slipring::Role;
use slipring::inspect::SeatStat;
use slipring_testkit::{Memory, Producer, inherited};

use crate::Held;
use crate::check;
use crate::image::{Image, Window};
use crate::kinds::{self, Kind, Readers, producer, words};
use crate::trace::{self, Inject, Victim};

/// The operations of the victim.
pub(crate) const OPERATIONS: [&str; 2] = ["send", "receive"];

/// A channel in use, and a socket of which the victim has one end.
struct Scenario<'k> {
    kind: &'k Kind,
    name: &'static str,
    memory: Box<dyn Memory>,
    window: Window,
    tx: Box<dyn Producer>,
    readers: Readers,
    ours: UnixStream,
    /// The victim's end, kept open to look into until the victim is killed.
    theirs: UnixStream,
}

impl<'k> Scenario<'k> {
    fn set(kind: &'k Kind, name: &'static str) -> Result<(Scenario<'k>, Victim), String> {
        let memory = kind.maker.memfd().map_err(words)?;
        let window = Window::open(&memory.descriptors())?;
        let (tx, readers) = (producer(&*memory)?, kind.readers(&*memory)?);
        let (ours, theirs) = UnixStream::pair().map_err(words)?;
        let scenario = Scenario {
            kind,
            name,
            memory,
            window,
            tx,
            readers,
            ours,
            theirs,
        };
        let mut passed = vec![scenario.theirs.as_fd()];
        if name == "send" {
            passed.extend(scenario.memory.descriptors());
        } else {
            let given = scenario.memory.hand_over(scenario.ours.as_fd());
            given.map_err(words)?;
        }
        let numbers: Vec<String> = passed.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let words = ["handover", name, kind.name, &numbers.join(",")].map(String::from);
        let victim = Victim::start(&words, &passed)?;
        drop(passed);
        Ok((scenario, victim))
    }

    /// Returns the state that others can see.
    fn state(&self) -> Result<(Image, u64, u64), String> {
        let (ours, theirs) = (waiting(&self.ours)?, waiting(&self.theirs)?);
        Ok((self.window.look(), ours, theirs))
    }

    /// Checks the channel and the socket after the victim's death.
    fn examine(self) -> Result<(), String> {
        let Scenario {
            kind,
            name,
            memory,
            window,
            mut tx,
            mut readers,
            ours,
            theirs,
        } = self;
        drop(theirs);
        // The receiver has the right channel, or learns that none came.
        if name == "send" {
            match kind.maker.receive(ours.as_fd()) {
                Ok(channel) if same(&*channel) => {}
                Ok(_) => return Err("another channel came".into()),
                Err(error) if words(&error).contains("the end of the connection") => {}
                Err(error) => return Err(words(error)),
            }
        }
        // Another process can still give the channel to it.
        let (ours, theirs) = UnixStream::pair().map_err(words)?;
        memory.hand_over(theirs.as_fd()).map_err(words)?;
        let given = kind.maker.receive(ours.as_fd()).map_err(words)?;
        if !same(&*given) {
            return Err("another channel was given".into());
        }
        check::traffic(kind, &window, &mut *tx, &mut readers)
    }
}

/// Returns `true` if the channel is the one in use here: we hold a producer's seat.
fn same(channel: &dyn Memory) -> bool {
    let us = u64::from(std::process::id());
    let ours = |seat: &SeatStat| seat.role == Role::Producer && seat.pid == us;
    channel.stat().is_ok_and(|stat| stat.seats.iter().any(ours))
}

/// Returns the number of bytes that may be read from a socket.
fn waiting(socket: &UnixStream) -> Result<u64, String> {
    rustix::io::ioctl_fionread(socket).map_err(words)
}

/// Steps one operation, and returns the numbers of instructions and of states.
pub(crate) fn run(kind: &Kind, name: &'static str) -> Result<(u64, u64), String> {
    for states in 0.. {
        let (scenario, mut victim) = Scenario::set(kind, name)?;
        let (mut instructions, mut seen) = (0, vec![scenario.state()?]);
        while seen.len() <= states && victim.step()? {
            instructions += 1;
            let now = scenario.state()?;
            if !seen.contains(&now) {
                seen.push(now);
            }
        }
        if seen.len() <= states {
            // The victim came to its end, having gone through all states.
            victim.finish()?;
            scenario.examine()?;
            return Ok((instructions, states as u64));
        }
        drop(victim);
        let about = |error| format!("killed after instruction {instructions}: {error}");
        scenario.examine().map_err(about)?;
    }
    Err("there is always another state".into())
}

/// Makes system call number `at` of an operation fail, checks the other processes, and returns the
/// victim's message. Returns `None` if there is no such call.
pub(crate) fn inject(
    kind: &Kind,
    name: &'static str,
    at: u64,
    errno: i32,
    spared: &[i64],
) -> Result<Option<String>, String> {
    let (scenario, mut victim) = Scenario::set(kind, name)?;
    let Inject::Done(call) = victim.inject(at, errno, spared)? else {
        return Ok(None);
    };
    let about = |error: String| format!("(call {call}) {error}");
    let said = victim.said().map_err(about)?;
    scenario.examine().map_err(about)?;
    Ok(Some(said))
}

/// Runs in the victim.
pub(crate) fn victim(name: &str, kind: &str, passed: &str) -> Result<(), String> {
    let kind = kinds::named(kind)?;
    let mut passed = inherited(passed);
    let socket = passed.remove(0);
    let socket: BorrowedFd<'_> = socket.as_fd();
    let channel = match name {
        "send" => Some(kind.maker.passed(passed).map_err(words)?),
        _ => None,
    };
    let before = Held::now()?;
    trace::begin();
    let done = match &channel {
        Some(channel) => channel.hand_over(socket),
        None => kind.maker.receive(socket).map(drop),
    };
    trace::end();
    before.is_all()?;
    match done {
        Ok(()) => println!("ok"),
        Err(error) => println!("error {error}"),
    }
    Ok(())
}

//! Publications to a subscriber in another process that sleeps.
//!
//! ```text
//! core 0, publisher    wait until it sleeps │ t0 │ publish │ wait for t1 ...
//! core 1, subscriber   sleeps ............................ │ wakes, views, t1 │ sleeps ...
//! ```
//!
//! The kernel tells when the subscriber is asleep. The figure is the median of `t1 - t0`. Publishers write the first and
//! the last eight bytes of a frame, and subscribers look at those; a message of another number shows there.

use crate::asleep::{Sleeper, all_asleep};
use crate::duel::{fork, pin, shared};
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Instant;

/// The fewest publications of a run.
const FEWEST: u64 = 20;
/// The publications before those that count.
const WARM: u64 = 10;

/// The words that both processes share.
#[repr(C)]
struct Board {
    /// One when the subscriber is set up.
    ready: AtomicU64,
    /// One when the next message is the last.
    last: AtomicU64,
    /// The number of messages that the subscriber viewed.
    viewed: AtomicU64,
    /// The time of the last view, in nanoseconds since the run began.
    when: AtomicU64,
    /// Nonzero if any message was wrong.
    bad: AtomicU64,
}

/// Writes the number of a message into its first and last eight bytes.
#[inline(always)]
pub fn mark(frame: &mut [u8], seq: u64) {
    let (first, last) = (0, frame.len() - 8);
    frame[first..first + 8].fill(seq as u8);
    frame[last..].fill(seq as u8);
}

/// Returns zero if the message has this number.
#[inline(always)]
pub fn check(frame: &[u8], seq: u64) -> u64 {
    let differs = |bytes: &[u8]| bytes.iter().fold(0, |bad, b| bad | (*b ^ seq as u8));
    u64::from(differs(&frame[..8]) | differs(&frame[frame.len() - 8..]))
}

/// Returns the median nanoseconds from a publication until a sleeping subscriber in another process views the message.
///
/// `subscriber` and `publisher` set up their side, each in its own process, the subscriber's first. The loops they return
/// take the message's number; the subscriber's waits for it and returns the result of its check.
pub fn asleep<P, S>(
    seconds: f64,
    subscriber: impl FnOnce() -> Result<S, String>,
    publisher: impl FnOnce() -> Result<P, String>,
) -> Result<f64, String>
where
    P: FnMut(u64),
    S: FnMut(u64) -> u64,
{
    let zero = Instant::now();
    // SAFETY: zeroes are a `Board`.
    let board: &Board = unsafe { shared() };
    let child = fork();
    if child == 0 {
        pin(1);
        let mut view = match subscriber() {
            Ok(view) => view,
            Err(reason) => {
                eprintln!("{reason}");
                std::process::exit(1);
            }
        };
        // Release: pairs with the publisher's look.
        board.ready.store(1, Release);
        for seq in 0.. {
            let bad = view(seq);
            board.when.store(zero.elapsed().as_nanos() as u64, Relaxed);
            board.bad.fetch_or(bad, Relaxed);
            // Release: pairs with the publisher's look, for the other words.
            board.viewed.store(seq + 1, Release);
            if board.last.load(Relaxed) == 1 {
                break;
            }
        }
        drop(view);
        std::process::exit(0);
    }
    let times = publications(seconds, board, child, zero, publisher);
    if times.is_err() {
        // SAFETY: `child` is our child, and not yet waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    // SAFETY: `child` is our child; its exit status is of no interest.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    let mut times = times?;
    times.sort_unstable();
    match board.bad.load(Relaxed) {
        0 => Ok(times[times.len() / 2] as f64),
        _ => Err("wrong messages".to_owned()),
    }
}

fn publications<P: FnMut(u64)>(
    seconds: f64,
    board: &Board,
    child: libc::pid_t,
    zero: Instant,
    publisher: impl FnOnce() -> Result<P, String>,
) -> Result<Vec<u64>, String> {
    let sleeper = [Sleeper::new(child)?];
    pin(0);
    until("the subscriber is not set up", || {
        board.ready.load(Acquire) == 1
    })?;
    let mut publish = publisher()?;
    let (mut times, begun) = (Vec::new(), Instant::now());
    for seq in 0.. {
        let last = begun.elapsed().as_secs_f64() >= seconds && seq >= WARM + FEWEST;
        board.last.store(u64::from(last), Relaxed);
        all_asleep(&sleeper)?;
        let start = zero.elapsed().as_nanos() as u64;
        publish(seq);
        // Acquire: pairs with the subscriber's store, for `when`.
        until("a message never arrived", || {
            board.viewed.load(Acquire) > seq
        })?;
        if seq >= WARM {
            times.push(board.when.load(Relaxed) - start);
        }
        if last {
            break;
        }
    }
    Ok(times)
}

/// Spins until a condition holds, for five seconds at most.
fn until(trouble: &str, holds: impl Fn() -> bool) -> Result<(), String> {
    let patience = Instant::now();
    while !holds() {
        if patience.elapsed().as_secs() >= 5 {
            return Err(trouble.to_owned());
        }
        std::hint::spin_loop();
    }
    Ok(())
}

//! Sleeping and waking, over and over.
//!
//! | verb | does |
//! |---|---|
//! | `fenced` | uses no barriers in this process, as `SLIPRING_FENCED=1` asks |
//! | `sandbox` | makes the kernel refuse `membarrier` from now on |
//! | `ask` N, `answer` | passes messages there (`there`) and back (`back`), until the answerer was woken N times (0: until a line comes); says `more` when it has its seats, and every ten thousand |
//! | `sleep-pop` | sleeps until a message comes, for a minute at a time; says its number |

use std::time::Duration;

use slipring::{Wait, inspect, spsc};

use crate::worker::{Line, Said, maker};
use crate::{is_told, next_line, say};

/// A timeout so long that a lost wake is a test that does not end.
const FOR_EVER: Duration = Duration::from_secs(3600);

pub(crate) fn fenced() {
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("SLIPRING_FENCED", "1") };
}

/// Refuses `membarrier` with EPERM, as a container's filter may.
pub(crate) fn sandbox() {
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    slipring_tests::sandbox::filter(libc::SYS_membarrier, None, refused);
}

/// Returns how often the producer of `name` found that its consumer had asked to be woken.
fn wakes(name: &str) -> u64 {
    let seats = inspect::stat(name).unwrap().seats;
    let producer = |seat: &inspect::SeatStat| seat.role == slipring::Role::Producer;
    seats.into_iter().find(producer).unwrap().wakes
}

/// Keeps this thread on its core, if that core exists, so that the two sides do run at once.
pub(crate) fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Lets some nanoseconds pass, sometimes more and sometimes fewer, until just about the moment at
/// which the other side goes to sleep. That side has just sent its message.
pub(crate) fn linger(number: u64) {
    for _ in 0..number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58 {
        std::hint::spin_loop();
    }
}

/// The message after which both stop.
const LAST: u64 = u64::MAX;

pub(crate) fn ask(line: &Line<'_>) -> Said {
    pin(0);
    let mut tx = maker(line).producer("there")?;
    // The asker is awake when the answer comes, which is just when the other side goes to sleep.
    let mut rx = maker(line).consumer("back")?;
    say("ok\tmore");
    let mut trip = |number| -> Result<(), slipring::Error> {
        linger(number);
        tx.push(number)?;
        assert_eq!(rx.pop_timeout(FOR_EVER)?, number);
        Ok(())
    };
    let (mut number, mut woken, mut told) = (0, 0, 0);
    // On a busy machine a thousand messages may take a minute: a worker that waits for a line
    // checks at each message.
    let enough = |number: u64, woken| match line.number(1) {
        0 => is_told() && next_line().is_some(),
        count => number.is_multiple_of(1000) && woken >= count,
    };
    while !enough(number, woken) {
        trip(number)?;
        number += 1;
        if number % 1000 == 0 {
            woken = wakes("there");
            // This saves the test from guessing how long all of it may take.
            if woken / 10_000 > told {
                told = woken / 10_000;
                say("ok\tmore");
            }
        }
    }
    trip(LAST)?;
    Ok(vec![])
}

pub(crate) fn answer(line: &Line<'_>) -> Said {
    pin(1);
    let mut rx = maker(line).consumer("there")?;
    let mut tx = maker(line).producer("back")?;
    say("ok\tmore");
    let mut expected = 0;
    loop {
        let number = rx.pop_timeout(FOR_EVER)?;
        assert!(
            number == expected || number == LAST,
            "{number}, not {expected}"
        );
        tx.push(number)?;
        if number == LAST {
            return Ok(vec![]);
        }
        linger(number ^ 0x5555);
        expected += 1;
    }
}

pub(crate) fn sleep_pop() -> Said {
    let spin_for = Duration::ZERO;
    let builder = spsc::Builder::<u64>::new(1).wait(Wait::Sleep { spin_for });
    let mut rx = builder.check_every(FOR_EVER).consumer("there")?;
    Ok(vec![rx.pop()?.to_string()])
}

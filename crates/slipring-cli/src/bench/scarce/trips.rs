//! Measures round trips of two threads that share one processor: over slipring with its default
//! waiting, and over pipes.

use std::os::fd::OwnedFd;
use std::time::Instant;

use hdrhistogram::Histogram;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use slipring::spsc;

use super::{Row, Unit, Wanted, on_one_processor};
use crate::bench::runs::{check, histogram};
use crate::exit::Failure;

/// Round trips of one run; a twentieth more come first, to warm up.
const TRIPS: u64 = 20_000;
const TOTAL: u64 = TRIPS + TRIPS / 20;

/// Returns the middle round trip of messages of `8 * N` bytes, measured in turn with the pipe's.
pub(super) fn run<const N: usize>(runs: usize) -> Result<Row, Failure> {
    let (mut ours, mut pipes) = (histogram()?, histogram()?);
    on_one_processor(|| {
        for _ in 0..runs {
            ours += over_slipring::<N>()?;
            pipes += over_pipes::<N>()?;
        }
        Ok(())
    })?;
    let size = 8 * N;
    Ok(Row {
        key: format!("one_processor_round_trip_{size}"),
        name: format!("one processor: round trip, {size} B"),
        unit: Unit::Nanoseconds,
        ours: ours.value_at_quantile(0.5) as f64,
        peer: ("pipe", pipes.value_at_quantile(0.5) as f64),
        wanted: Wanted::AtMost(1.2),
    })
}

fn over_slipring<const N: usize>() -> Result<Histogram<u64>, Failure> {
    let ((mut ping, mut far_rx), (mut far_tx, mut pong)) =
        (spsc::channel::<[u64; N]>(64)?, spsc::channel(64)?);
    both(
        move || (0..TOTAL).try_for_each(|_| Ok(far_tx.push(far_rx.pop()?)?)),
        |number| {
            ping.push([number; N])?;
            check::<N>(&pong.pop()?, number)
        },
    )
}

fn over_pipes<const N: usize>() -> Result<Histogram<u64>, Failure> {
    let pipe = || {
        let made = pipe_with(PipeFlags::CLOEXEC);
        made.map_err(|errno| Failure::io("make a pipe", errno))
    };
    let ((far_rx, ping), (pong, far_tx)) = (pipe()?, pipe()?);
    both(
        move || {
            let mut message = [0; N];
            (0..TOTAL).try_for_each(|_| {
                receive(&far_rx, &mut message)?;
                send(&far_tx, &message)
            })
        },
        |number| {
            let mut message = [number; N];
            send(&ping, &message)?;
            receive(&pong, &mut message)?;
            check(&message, number)
        },
    )
}

fn send<const N: usize>(pipe: &OwnedFd, message: &[u64; N]) -> Result<(), Failure> {
    // A pipe takes up to 4096 bytes in one piece.
    match rustix::io::write(pipe, zerocopy::IntoBytes::as_bytes(message)) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Failure::io("write to a pipe", errno)),
    }
}

fn receive<const N: usize>(pipe: &OwnedFd, message: &mut [u64; N]) -> Result<(), Failure> {
    loop {
        match rustix::io::read(pipe, zerocopy::IntoBytes::as_mut_bytes(message)) {
            Ok(0) => return Err(Failure::Words("a pipe ended early".into())),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::io("read from a pipe", errno)),
        }
    }
}

/// Runs `far` in a thread of its own, and times each `trip`.
fn both(
    far: impl FnOnce() -> Result<(), Failure> + Send,
    mut trip: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<Histogram<u64>, Failure> {
    std::thread::scope(|scope| {
        let far = scope.spawn(far);
        let mut trips = histogram()?;
        for number in 0..TOTAL {
            let began = Instant::now();
            trip(number)?;
            if number >= TOTAL - TRIPS {
                trips.saturating_record(began.elapsed().as_nanos() as u64);
            }
        }
        match far.join() {
            Ok(far) => far.map(|()| trips),
            Err(_) => Err(Failure::Words("a thread of the benchmark panicked".into())),
        }
    })
}

//! Measures round trips of two threads that both sleep in epoll: over slipring's descriptors, and
//! over bare pipes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use slipring::{Readiness, spsc};

use super::{AT_ONCE, TOTAL, ends, timed};
use crate::bench::runs::{beside, check};
use crate::exit::Failure;

/// Watches one descriptor, level-triggered.
struct Watch(OwnedFd);

impl Watch {
    fn new(descriptor: BorrowedFd<'_>) -> Result<Watch, Failure> {
        let fail = |errno| Failure::io("watch a descriptor", errno);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(fail)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, descriptor, data, epoll::EventFlags::IN).map_err(fail)?;
        Ok(Watch(epoll))
    }

    fn wait(&self) -> Result<(), Failure> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        match epoll::wait(&self.0, &mut events, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Failure::io("wait for a descriptor", errno)),
        }
    }
}

/// Waits as an event loop does: it arms the handle, and polls if there is no message.
pub(super) fn round_trips() -> Result<Histogram<u64>, Failure> {
    type Ends = (spsc::Producer<[u64; 1]>, spsc::Consumer<[u64; 1]>);
    let ((mut ping, mut far_rx), (mut far_tx, mut pong)): (Ends, Ends) =
        (ends(1, AT_ONCE)?, ends(1, AT_ONCE)?);
    let next = |rx: &mut spsc::Consumer<[u64; 1]>, watch: &Watch| -> Result<_, Failure> {
        while rx.arm()? == Readiness::Armed {
            watch.wait()?;
        }
        Ok(rx.try_pop()?)
    };
    beside(
        move || {
            let watch = Watch::new(far_rx.as_fd()?)?;
            for _ in 0..TOTAL {
                let message = next(&mut far_rx, &watch)?;
                far_tx.try_push(message)?;
            }
            Ok(())
        },
        move || {
            let watch = Watch::new(pong.as_fd()?)?;
            timed(|number| {
                ping.try_push([number])?;
                check(&next(&mut pong, &watch)?, number)
            })
        },
    )
}

/// Measures the lower bound for two threads that sleep in epoll: they pass one byte to and fro.
pub(super) fn bare_round_trips() -> Result<Histogram<u64>, Failure> {
    let pipe = || {
        let made = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC);
        made.map_err(|errno| Failure::io("make a pipe", errno))
    };
    let ((far_rx, ping), (pong, far_tx)) = (pipe()?, pipe()?);
    let send = |pipe: &OwnedFd| match rustix::io::write(pipe, &[1]) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Failure::io("write to a pipe", errno)),
    };
    let next = |pipe: &OwnedFd, watch: &Watch| loop {
        watch.wait()?;
        match rustix::io::read(pipe, &mut [0; 64]) {
            Ok(_) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(Failure::io("read from a pipe", errno)),
        }
    };
    beside(
        move || {
            let watch = Watch::new(far_rx.as_fd())?;
            for _ in 0..TOTAL {
                next(&far_rx, &watch)?;
                send(&far_tx)?;
            }
            Ok(())
        },
        move || {
            let watch = Watch::new(pong.as_fd())?;
            timed(|_| {
                send(&ping)?;
                next(&pong, &watch)
            })
        },
    )
}

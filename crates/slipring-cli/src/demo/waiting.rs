//! Lets the demo's two ends wait for each other: in slipring's own calls, in an event loop that
//! polls the handle's descriptor, or in a future.
//!
//! An end tries first, and comes here only when it found nothing. So the way of waiting adds no
//! cost to the busy path.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slipring::bytes::{Consumer, Producer};
use slipring::inspect::SeatStat;
use slipring::{AdaptiveSpin, Error, Readiness, Wait};
use tokio::runtime::{self, Runtime};

use crate::exit::Failure;

/// The ways in which the demo's two processes can wait.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Waiting {
    /// Poll without end
    Spin,
    /// Poll for 50 us if that pays, then sleep until woken
    Sleep,
    /// Poll for 50 us if that pays, then wait in an event loop (epoll, by way of mio) on the handle's descriptor
    Fd,
    /// Poll for 50 us if that pays, then await the handle's future, under tokio
    Async,
}

impl Waiting {
    pub(super) fn name(self) -> &'static str {
        match self {
            Waiting::Spin => "spin",
            Waiting::Sleep => "sleep",
            Waiting::Fd => "fd",
            Waiting::Async => "async",
        }
    }

    /// Returns the wait option for slipring's own calls.
    pub(super) fn how(self) -> Wait {
        match self {
            Waiting::Spin => Wait::Spin,
            // `Fd` and `Async` use this only until the other end has come.
            Waiting::Sleep | Waiting::Fd | Waiting::Async => Wait::default(),
        }
    }

    /// Returns the number of system calls by which the holder of a seat slept and woke its peer. The
    /// counters of both seats give it. (A long sleep makes some more, to check on its peer.)
    pub(super) fn system_calls(self, seat: &SeatStat, other: &SeatStat) -> u64 {
        let to_sleep = match self {
            // A sleep takes a barrier and a futex call. A waiter that found news behind the barrier
            // did not sleep, and may have been woken all the same. (A spinning waiter makes neither
            // call.)
            Waiting::Spin | Waiting::Sleep => seat.parks.max(other.wakes) + seat.parks,
            // A sleep empties the pipe, and takes a barrier and an epoll call.
            Waiting::Fd | Waiting::Async => 3 * seat.parks,
        };
        to_sleep + seat.wakes
    }
}

/// The way in which one end waits when it finds nothing.
pub(super) enum Waiter {
    /// The end waits in slipring's own call.
    Call,
    /// The end polls the handle's descriptor.
    Descriptor(EventLoop),
    /// The end awaits the handle's future.
    Future {
        runtime: Runtime,
        spin: AdaptiveSpin,
        /// `true` once the runtime drives the handle's futures.
        drives: bool,
    },
}

impl Waiter {
    pub(super) fn new<'h>(
        waiting: Waiting,
        descriptor: impl FnOnce() -> Result<BorrowedFd<'h>, Error>,
    ) -> Result<Waiter, Failure> {
        Ok(match waiting {
            Waiting::Spin | Waiting::Sleep => Waiter::Call,
            Waiting::Fd => Waiter::Descriptor(EventLoop::new(descriptor()?)?),
            Waiting::Async => {
                let runtime = runtime::Builder::new_current_thread().enable_io().build();
                let runtime = runtime.map_err(|error| Failure::io("start tokio", error))?;
                let (spin, drives) = (AdaptiveSpin::new(SPIN_FOR), false);
                Waiter::Future {
                    runtime,
                    spin,
                    drives,
                }
            }
        })
    }

    /// Waits until the ring has room for a message of `size` bytes.
    pub(super) fn room(&mut self, tx: &mut Producer, size: usize) -> Result<(), Failure> {
        match self {
            Waiter::Call => {
                drop(tx.reserve(size)?);
                Ok(())
            }
            Waiter::Descriptor(events) => {
                events.until(tx, |tx| tx.try_reserve(size).map(drop), |tx| tx.arm(size))
            }
            Waiter::Future {
                runtime,
                spin,
                drives,
            } => {
                if poll(spin, tx, |tx| tx.try_reserve(size).map(drop))? {
                    return Ok(());
                }
                let began = Instant::now();
                runtime.block_on(async {
                    if !std::mem::replace(drives, true) {
                        tx.on_tokio()?;
                    }
                    tx.reserve_async(size).await.map(drop)
                })?;
                spin.slept(began.elapsed());
                Ok(())
            }
        }
    }

    /// Waits until there is a message.
    pub(super) fn message(&mut self, rx: &mut Consumer) -> Result<(), Failure> {
        match self {
            Waiter::Call => {
                rx.read()?.keep();
                Ok(())
            }
            Waiter::Descriptor(events) => events.until(
                rx,
                |rx| rx.try_read().map(|first| first.keep()),
                Consumer::arm,
            ),
            Waiter::Future {
                runtime,
                spin,
                drives,
            } => {
                if poll(spin, rx, |rx| rx.try_read().map(|first| first.keep()))? {
                    return Ok(());
                }
                let began = Instant::now();
                runtime.block_on(async {
                    if !std::mem::replace(drives, true) {
                        rx.on_tokio()?;
                    }
                    rx.read_async().await.map(|first| first.keep())
                })?;
                spin.slept(began.elapsed());
                Ok(())
            }
        }
    }
}

/// Tries for a while, as long as that pays. Returns `true` if it succeeded.
fn poll<H>(
    spin: &mut AdaptiveSpin,
    handle: &mut H,
    mut attempt: impl FnMut(&mut H) -> Result<(), Error>,
) -> Result<bool, Error> {
    spin.poll(|| match attempt(handle) {
        Ok(()) => Ok(true),
        Err(Error::Full | Error::Empty) => Ok(false),
        Err(error) => Err(error),
    })
}

/// An event loop tries for this long before it polls, as slipring's own calls do, for the same
/// reason: a sleep and a wake-up cost about as much.
const SPIN_FOR: Duration = Duration::from_micros(50);

/// An event loop that waits for one handle.
pub(super) struct EventLoop {
    poll: Poll,
    events: Events,
    spin: AdaptiveSpin,
    /// The handle's descriptor. The handle keeps it open and unchanged.
    descriptor: RawFd,
}

impl EventLoop {
    fn new(descriptor: BorrowedFd<'_>) -> Result<EventLoop, Failure> {
        let fail = |error| Failure::io("make an event loop", error);
        let events = EventLoop {
            poll: Poll::new().map_err(fail)?,
            events: Events::with_capacity(1),
            spin: AdaptiveSpin::new(SPIN_FOR),
            descriptor: descriptor.as_raw_fd(),
        };
        let registry = events.poll.registry();
        registry
            .register(
                &mut SourceFd(&events.descriptor),
                Token(0),
                Interest::READABLE,
            )
            .map_err(fail)?;
        Ok(events)
    }

    /// Waits until `attempt` succeeds, or fails with an error other than `Full` or `Empty`.
    fn until<H>(
        &mut self,
        handle: &mut H,
        attempt: impl FnMut(&mut H) -> Result<(), Error>,
        mut arm: impl FnMut(&mut H) -> Result<Readiness, Error>,
    ) -> Result<(), Failure> {
        if poll(&mut self.spin, handle, attempt)? {
            return Ok(());
        }
        // The loop polls only after arming. A handle that was ready when it was armed does not
        // become readable later.
        let began = Instant::now();
        while arm(handle)? == Readiness::Armed {
            self.poll()?;
        }
        self.spin.slept(began.elapsed());
        Ok(())
    }

    fn poll(&mut self) -> Result<(), Failure> {
        let fail = |error| Failure::io("poll the channel's descriptor", error);
        match self.poll.poll(&mut self.events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled.map_err(fail)?,
        }
        // mio watches for edges, and reports a hang-up once. A process that dies may hang up a
        // moment before the kernel frees its seat. `arm` asks for the seat, so it needs another
        // chance: the descriptor is registered anew in its present state. (A byte is no such case:
        // `arm` takes it out, and the next one is an edge.)
        if self.events.iter().any(|event| event.is_read_closed()) {
            let source = &mut SourceFd(&self.descriptor);
            let registry = self.poll.registry();
            registry
                .reregister(source, Token(0), Interest::READABLE)
                .map_err(fail)?;
        }
        Ok(())
    }
}

//! How a blocked call waits: the one place through which every `push`, `pop`, `reserve` and `read`
//! that is not a `try_` goes.
//!
//! Today it polls: a short spin, then giving way to others, then naps that grow to a millisecond.
//! Every few milliseconds it looks whether the other end's holder is still alive.

use std::time::{Duration, Instant};

use slipring_core::seat::Peer;
use slipring_core::{Error as Core, bytes, spsc};

use crate::error::Error;
use crate::seat::Seat;

/// Polls with nothing but a processor pause between them.
const SPINS: u32 = 2_000;
/// Then so many that give the processor away.
const YIELDS: u32 = 200;
const SHORTEST_NAP: Duration = Duration::from_micros(50);
const LONGEST_NAP: Duration = Duration::from_millis(1);
/// How often the other end's lock is looked at.
const CHECK: Duration = Duration::from_millis(4);

/// A core handle, as far as waiting on it goes.
pub(crate) trait Waits {
    /// What it knows of the other end.
    fn other(&mut self) -> &mut Peer<'static>;
}

impl<T: Copy> Waits for spsc::Producer<'static, T> {
    fn other(&mut self) -> &mut Peer<'static> {
        self.peer()
    }
}

impl<T: Copy> Waits for spsc::Consumer<'static, T> {
    fn other(&mut self) -> &mut Peer<'static> {
        self.peer()
    }
}

impl Waits for bytes::Producer<'static> {
    fn other(&mut self) -> &mut Peer<'static> {
        self.peer()
    }
}

impl Waits for bytes::Consumer<'static> {
    fn other(&mut self) -> &mut Peer<'static> {
        self.peer()
    }
}

/// Until when a call waits.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Forever,
    At(Instant),
}

impl Until {
    /// A timeout too long for the clock is none.
    pub(crate) fn after(timeout: Duration) -> Until {
        Instant::now()
            .checked_add(timeout)
            .map_or(Until::Forever, Until::At)
    }

    fn passed(self, now: Instant) -> bool {
        matches!(self, Until::At(deadline) if now >= deadline)
    }
}

/// Attempts until it works, fails for good, or `until` has passed (`TimedOut`).
///
/// Not inlined: a caller tries once by itself, and comes here when that found nothing.
#[cold]
#[inline(never)]
pub(crate) fn wait<C: Waits>(
    core: &mut C,
    seat: &Seat,
    until: Until,
    mut attempt: impl FnMut(&mut C) -> Result<(), Core>,
) -> Result<(), Error> {
    let mut pace = Pace::default();
    loop {
        match attempt(core) {
            Err(Core::Full | Core::Empty) => {}
            done => return Ok(done?),
        }
        if pace.turns == 0 {
            seat.count_wait();
        }
        match pace.rest(core, seat, until) {
            // The last word has who died, or what came, while we were not looking.
            Err(Error::TimedOut) => {
                notice_death(core, seat)?;
                return match attempt(core) {
                    Err(Core::Full | Core::Empty) => Err(Error::TimedOut),
                    done => Ok(done?),
                };
            }
            rested => rested?,
        }
    }
}

/// Waits for a live peer at the other end whose end this handle has not been told of.
pub(crate) fn wait_for_peer<C: Waits>(
    core: &mut C,
    seat: &Seat,
    until: Until,
) -> Result<(), Error> {
    if !seat.ours() {
        return Err(Error::Forked);
    }
    core.other().acknowledge();
    let mut pace = Pace::default();
    loop {
        notice_death(core, seat)?;
        if core.other().present()? {
            return Ok(());
        }
        pace.rest(core, seat, until)?;
    }
}

/// Asks the kernel about a peer of which the words only say that it has not left.
pub(crate) fn notice_death<C: Waits>(core: &mut C, seat: &Seat) -> Result<(), Error> {
    let Some(suspect) = core.other().suspect()? else {
        return Ok(());
    };
    // The word, the lock, the word again: free, and the same generation, means dead.
    if !seat.peer_held()? && core.other().suspect()? == Some(suspect) {
        core.other().died(suspect);
    }
    Ok(())
}

/// How a waiting call passes its time.
#[derive(Default)]
struct Pace {
    turns: u32,
    nap: Duration,
    checked: Option<Instant>,
}

impl Pace {
    fn rest<C: Waits>(&mut self, core: &mut C, seat: &Seat, until: Until) -> Result<(), Error> {
        self.turns = self.turns.saturating_add(1);
        if self.turns < SPINS && !self.turns.is_multiple_of(64) {
            std::hint::spin_loop();
            return Ok(());
        }
        let now = Instant::now();
        if until.passed(now) {
            return Err(Error::TimedOut);
        }
        let checked = *self.checked.get_or_insert(now);
        if now.duration_since(checked) >= CHECK || self.turns == SPINS {
            self.checked = Some(now);
            seat.beat();
            notice_death(core, seat)?;
        }
        if self.turns >= SPINS + YIELDS {
            self.nap = (self.nap * 2).clamp(SHORTEST_NAP, LONGEST_NAP);
            let left = match until {
                Until::At(deadline) => deadline.duration_since(now),
                Until::Forever => LONGEST_NAP,
            };
            std::thread::sleep(self.nap.min(left));
        } else if self.turns >= SPINS {
            std::thread::yield_now();
        }
        Ok(())
    }
}

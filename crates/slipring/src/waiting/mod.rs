//! How a blocked call waits: the one place through which every `push`, `pop`, `reserve` and `read`
//! that is not a `try_` goes.
//!
//! It polls for a while if that pays (`spin.rs`), then sleeps until the other side rings
//! (`slipring_core::wait`). Every few milliseconds it looks whether the other end's holder is still alive, and whether something came
//! whose publisher was killed before it could ring; after a second in vain it sleeps on its pipe, which
//! tells of both (that of a producer which waits for many does not, so it goes on looking; nor does one that the peer
//! has not opened yet). Once a second it asks whether the channel's name still leads to it (`name_check.rs`).

mod again;
mod futex;
mod future;
mod name_check;
#[cfg(feature = "tokio")]
mod on_tokio;
mod parker;
mod pipe;
mod reactor;
pub mod set;
mod spin;
mod timer;

use std::time::{Duration, Instant};

use slipring_core::seat::Peer;
use slipring_core::wait::Face;
use slipring_core::{Error as Core, broadcast, bytes, spsc};

use crate::error::Error;
use crate::seat::{self, Seat};
pub(crate) use futex::Kernel;
#[cfg(feature = "stream")]
pub(crate) use future::stream;
pub(crate) use future::{Driver, poll_peer, poll_ready};
pub(crate) use parker::Parker;
pub use pipe::Readiness;
use pipe::ask;
pub(crate) use pipe::{Polled, arm, descriptor};
pub(crate) use set::Ask;
pub use spin::Spin;

/// How the calls that wait pass their time. (`try_` calls never wait.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Poll without end. The shortest latency, for a core of one's own: all of it.
    Spin,
    /// Poll, giving the processor to whoever wants it after each poll.
    Yield,
    /// Poll for a while, then sleep until the other side has something to tell. Sleeping costs no
    /// processor time to speak of; being woken takes some 50 µs, and costs the other side a system call.
    Sleep {
        /// How long to poll before a sleep, as long as polls succeed; see [`Spin`]. Zero sleeps at once.
        spin_for: Duration,
    },
}

impl Default for Wait {
    /// Polls for 50 µs before a sleep: about what a sleep and a wake-up cost, so that waiting never costs more
    /// than twice what it must. Where polls do not succeed, it sleeps at once: see [`Spin`].
    fn default() -> Wait {
        Wait::Sleep {
            spin_for: Duration::from_micros(50),
        }
    }
}

/// How a handle's calls wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) wait: Wait,
    /// The longest sleep, and how often the other end's lock is looked at.
    pub(crate) check_every: Duration,
}

/// How often, if nobody says otherwise.
const CHECK_EVERY: Duration = Duration::from_millis(4);

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting {
            wait: Wait::default(),
            check_every: CHECK_EVERY,
        }
    }
}

/// The longest sleep that the kernel is asked for: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A core handle, as far as waiting on it goes.
pub(crate) trait Waits {
    /// What it knows of the other end, where that is one.
    fn other(&mut self) -> Option<&mut Peer<'static>>;
}

impl<T: Copy> Waits for broadcast::Producer<'static, T> {
    /// Its consumers come and go; it has no end of theirs to tell.
    fn other(&mut self) -> Option<&mut Peer<'static>> {
        None
    }
}

impl<T: Copy> Waits for broadcast::Consumer<'static, T> {
    fn other(&mut self) -> Option<&mut Peer<'static>> {
        Some(self.peer())
    }
}

impl<T: Copy> Waits for spsc::Producer<'static, T> {
    fn other(&mut self) -> Option<&mut Peer<'static>> {
        Some(self.peer())
    }
}

impl<T: Copy> Waits for spsc::Consumer<'static, T> {
    fn other(&mut self) -> Option<&mut Peer<'static>> {
        Some(self.peer())
    }
}

impl Waits for bytes::Producer<'static> {
    fn other(&mut self) -> Option<&mut Peer<'static>> {
        Some(self.peer())
    }
}

impl Waits for bytes::Consumer<'static> {
    fn other(&mut self) -> Option<&mut Peer<'static>> {
        Some(self.peer())
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

    /// What is left, if that is less than `most`.
    fn left(self, now: Instant, most: Duration) -> Duration {
        match self {
            Until::Forever => most,
            Until::At(deadline) => most.min(deadline.duration_since(now)),
        }
    }
}

/// Attempts until it works, fails for good, or `until` has passed (`TimedOut`).
///
/// Not inlined: a caller tries once by itself, and comes here when that found nothing.
#[cold]
#[inline(never)]
pub(crate) fn wait<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    until: Until,
    mut attempt: impl FnMut(&mut C) -> Result<(), Core>,
) -> Result<(), Error> {
    seat.count_wait();
    let mut done = |core: &mut C, _: &Seat| found(attempt(core));
    match wait_until(core, seat, until, &mut done) {
        Ok(()) => Ok(()),
        Err(error) => last_look(core, seat, error, &mut done),
    }
}

/// What came while the name of the channel was found to lead elsewhere comes first. A wait too short for any look
/// at the name makes up for it.
#[cold]
#[inline(never)]
fn last_look<C: Waits>(
    core: &mut C,
    seat: &Seat,
    error: Error,
    done: &mut dyn FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Result<(), Error> {
    let error = match error {
        Error::TimedOut => match seat.parker.check_name_in_time(Instant::now()) {
            Ok(()) => return Err(Error::TimedOut),
            Err(error) => error,
        },
        error => error,
    };
    match error {
        Error::NotFound { .. } | Error::Replaced { .. } if done(core, seat)? => Ok(()),
        error => Err(error),
    }
}

/// Whether an attempt worked; if not, it failed for want of a message or of room, and not for good.
fn found(attempt: Result<(), Core>) -> Result<bool, Error> {
    match attempt {
        Ok(()) => Ok(true),
        Err(Core::Full | Core::Empty) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits for a live peer at the other end whose end this handle has not been told of.
pub(crate) fn wait_for_peer<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    until: Until,
) -> Result<(), Error> {
    if !seat.ours() {
        return Err(Error::Forked);
    }
    take_note(core, seat);
    match wait_until(core, seat, until, present) {
        Ok(()) => Ok(()),
        Err(error) => last_look(core, seat, error, &mut present),
    }
}

/// The end that this handle was told of is history from now on: for a later consumer, and for the set that the handle
/// is in.
fn take_note<C: Waits>(core: &mut C, seat: &Seat) {
    if let Some(peer) = core.other() {
        peer.acknowledge();
        seat.parker.set_history(peer.known());
    }
}

/// Whether somebody sits opposite whose end this handle has not been told of.
pub(crate) fn present<C: Waits>(core: &mut C, seat: &Seat) -> Result<bool, Error> {
    notice_death(core, seat)?;
    match core.other() {
        Some(peer) => Ok(peer.present()?),
        None => seat.anybody_opposite(),
    }
}

/// Asks the kernel about a peer of which the words only say that it has not left; or, for a producer of
/// many, about those for whom it waits.
pub(crate) fn notice_death<C: Waits>(core: &mut C, seat: &Seat) -> Result<(), Error> {
    let Some(peer) = core.other() else {
        return match seat::repair_members(&seat.region, seat.number) {
            Err(error @ (Error::Forked | Error::Corrupt(_))) => Err(error),
            // Too many open files, say: tried again at the next look.
            _ => Ok(()),
        };
    };
    let Some(suspect) = peer.suspect()? else {
        return Ok(());
    };
    // The word, the lock, the word again: free, and the same generation, means dead.
    if !seat.peer_held()? && peer.suspect()? == Some(suspect) {
        peer.died(suspect);
    }
    Ok(())
}

fn wait_until<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    until: Until,
    mut done: impl FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Result<(), Error> {
    let waited = match seat.waiting.wait {
        Wait::Spin => poll(core, seat, until, std::hint::spin_loop, &mut done)?,
        Wait::Yield => poll(core, seat, until, std::thread::yield_now, &mut done)?,
        Wait::Sleep { spin_for } => {
            // A handle may have changed its mind.
            if seat.spin.at_most() != spin_for {
                seat.spin = Spin::new(spin_for);
            }
            match spin(core, seat, until, &mut done)? {
                Waited::InVain => {
                    let began = Instant::now();
                    let waited = sleep(core, seat, until, &mut done)?;
                    if waited == Waited::Done {
                        seat.spin.slept(began.elapsed());
                    }
                    waited
                }
                waited => waited,
            }
        }
    };
    if waited == Waited::Done {
        return Ok(());
    }
    // The last word has who died, or what came, while we were not looking.
    notice_death(core, seat)?;
    if done(core, seat)? {
        Ok(())
    } else {
        Err(Error::TimedOut)
    }
}

/// How waiting ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Done,
    /// The time for this way of waiting is over.
    InVain,
    /// The caller's time is over.
    TimedOut,
}

/// Waits without sleeping, for as long as that pays.
fn spin<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    until: Until,
    done: &mut impl FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Result<Waited, Error> {
    if seat.spin.polls() {
        for _ in 0..spin::QUICK {
            if done(core, seat)? {
                seat.spin.found_quickly();
                return Ok(Waited::Done);
            }
            std::hint::spin_loop();
        }
    }
    let deadline = match until {
        Until::Forever => None,
        Until::At(deadline) => Some(deadline),
    };
    let peer_wakes_up = seat.woke_peer();
    // Copied out and back: `done` borrows the seat.
    let mut spin = seat.spin;
    let mut checked = None;
    let found = spin.poll_on(
        core,
        deadline,
        peer_wakes_up,
        |core| done(core, seat),
        |core, now| look_after(core, seat, now, checked.get_or_insert(now)),
    );
    seat.spin = spin;
    Ok(match found? {
        true => Waited::Done,
        false => Waited::InVain,
    })
}

/// Polls until `until`, with a `pause` after each attempt.
fn poll<C: Waits>(
    core: &mut C,
    seat: &Seat,
    until: Until,
    pause: impl Fn(),
    done: &mut impl FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Result<Waited, Error> {
    // The clock costs as much as several polls, a yielding poll far more than the clock.
    let turns = match seat.waiting.wait {
        Wait::Yield => 1,
        _ => spin::ATTEMPTS,
    };
    let mut checked = Instant::now();
    loop {
        for _ in 0..turns {
            if done(core, seat)? {
                return Ok(Waited::Done);
            }
            pause();
        }
        let now = Instant::now();
        if until.passed(now) {
            return Ok(Waited::TimedOut);
        }
        look_after(core, seat, now, &mut checked)?;
    }
}

/// After so long in vain a sleeper goes over to its pipe, which needs no bounded sleeps.
const QUIET: Duration = Duration::from_secs(1);

/// Sleeps until the other side rings, again and again.
fn sleep<C: Waits>(
    core: &mut C,
    seat: &mut Seat,
    until: Until,
    done: &mut impl FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Result<Waited, Error> {
    let began = Instant::now();
    let mut checked = began;
    // Whether there is a pipe to go over to.
    let mut rests = seat.region.files.is_some() && core.other().is_some();
    // Private memory is one process's, where nobody is killed alone: no sleep need be bounded.
    let longest = match seat.region.private {
        Some(_) => seat.waiting.check_every.max(QUIET),
        None if seat.region.named() => seat.waiting.check_every.min(name_check::EVERY),
        None => seat.waiting.check_every,
    };
    loop {
        // Once a turn, whatever ended the last one: a stranger may ring all the time.
        let mut now = Instant::now();
        if until.passed(now) {
            return Ok(Waited::TimedOut);
        }
        if rests && now.duration_since(began) >= QUIET {
            match rest(core, seat, until, done)? {
                Some(Waited::InVain) => {
                    look_after(core, seat, Instant::now(), &mut checked)?;
                    continue;
                }
                Some(waited) => return Ok(waited),
                None => rests = false,
            }
        }
        // From here on a set that the handle is in leaves the words alone.
        seat.parker.occupy();
        let asked = seat.parker.sleeper.arm(Face::Doorbell);
        let (seen, armed) = (asked.seen, Instant::now());
        let seat = &*seat;
        let _armed = Armed(seat);
        // What was published before the bit was set.
        if done(core, seat)? {
            return Ok(Waited::Done);
        }
        seat.count_park();
        while !seat.parker.sleeper.rung(seen) {
            // A sleep that is short in any case need not be shorter for who may have overlooked the bit.
            let unsure = longest > CHECK_EVERY && seat.parker.sleeper.unsure(asked);
            let longest = match unsure && now.saturating_duration_since(armed) < again::AFTER {
                true => again::AFTER,
                false => longest,
            };
            let at_most = until.left(now, longest).min(LONGEST);
            seat.parker.sleeper.sleep(seen, at_most.as_nanos() as u64);
            now = Instant::now();
            if seat.parker.sleeper.rung(seen) || until.passed(now) {
                break;
            }
            // What a killed publisher did not ring for; and, since nobody sleeps on it once more, its end.
            look_after(core, seat, now, &mut checked)?;
            if done(core, seat)? {
                return Ok(Waited::Done);
            }
            if rests && now.duration_since(began) >= QUIET {
                break;
            }
        }
        if done(core, seat)? {
            return Ok(Waited::Done);
        }
        look_after(core, seat, now, &mut checked)?;
    }
}

/// Sleeps on the pipe for a while: one wake-up a second in place of hundreds, and a death is told at once.
/// Nothing if there is no pipe to be had: the doorbell does as well.
fn rest<C: Waits>(
    core: &mut C,
    seat: &Seat,
    until: Until,
    done: &mut impl FnMut(&mut C, &Seat) -> Result<bool, Error>,
) -> Result<Option<Waited>, Error> {
    seat.parker.occupy();
    // What the set that the handle is in may have asked for meanwhile, by its own face. (See `Armed`.)
    if seat.ours() {
        seat.parker.disarm();
    }
    let _armed = Armed(seat);
    match ask(core, seat) {
        Ok(()) => {}
        Err(error @ (Error::Forked | Error::Corrupt(_))) => return Err(error),
        // Too many open files, say, or a FIFO that somebody removed.
        Err(_) => return Ok(None),
    }
    if done(core, seat)? {
        return Ok(Some(Waited::Done));
    }
    if seat.parker.again.owed() {
        let began = Instant::now();
        pipe::poll(seat, until.left(began, again::AFTER))?;
        if done(core, seat)? {
            return Ok(Some(Waited::Done));
        }
        // Cut short.
        if began.elapsed() < again::AFTER {
            return Ok(Some(Waited::InVain));
        }
        seat.parker.again.looked();
    }
    let (mut left, mut checked) = (QUIET, Instant::now());
    loop {
        // No hang-up tells of the death of a peer that has not opened the pipe yet: it is asked for, as on the doorbell.
        let bounded = seat.parker.again.vigilant();
        let at_most = match bounded {
            true => left.min(seat.waiting.check_every),
            false => left,
        };
        let began = Instant::now();
        let told = pipe::poll(seat, until.left(began, at_most))?;
        if done(core, seat)? {
            return Ok(Some(Waited::Done));
        }
        let now = Instant::now();
        left = left.saturating_sub(now - began);
        if told || !bounded || left.is_zero() || until.passed(now) || !seat.parker.sleeper.polls() {
            return Ok(Some(Waited::InVain));
        }
        look_after(core, seat, now, &mut checked)?;
    }
}

/// Gives a sign of life, and looks for one of the peer's, every so often; and looks at the channel's name.
fn look_after<C: Waits>(
    core: &mut C,
    seat: &Seat,
    now: Instant,
    checked: &mut Instant,
) -> Result<(), Error> {
    if now.duration_since(*checked) >= seat.waiting.check_every {
        *checked = now;
        seat.beat();
        notice_death(core, seat)?;
    }
    seat.parker.check_name_in_time(now)
}

/// A seat whose sleeper asked to be woken, and takes that back when it need not be any more.
struct Armed<'s>(&'s Seat);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        // A signal's handler may have forked: the bit is the parent's.
        if self.0.ours() {
            self.0.parker.disarm();
            self.0.parker.vacate();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// A message that came at the last moment is not held back by the news that nobody else can join.
    #[test]
    fn what_came_meanwhile_comes_first() {
        let (mut tx, mut rx) = crate::spsc::channel::<u64>(4).unwrap();
        let (core, seat) = rx.parts();
        let gone = || {
            let (name, dir) = ("x".into(), crate::error::path("/"));
            Error::Replaced { name, dir }
        };
        let mut look = |error| last_look(core, seat, error, &mut |core, _| found(core.ensure()));
        assert!(matches!(look(gone()), Err(Error::Replaced { .. })));
        tx.push(7).unwrap();
        assert!(look(gone()).is_ok());
        assert!(matches!(look(Error::TimedOut), Err(Error::TimedOut)));
    }

    /// What the set had asked for by its doorbell, a publisher would ring there.
    #[test]
    fn who_rests_beside_a_set_is_rung_for_by_its_pipe() {
        let channel = crate::spsc::Builder::<u64>::new(4).memfd().unwrap();
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let mut set = set::WaitSet::new().unwrap();
        set.watch(&rx).unwrap();
        assert!(set.wait_timeout(Duration::ZERO).is_err());
        let (core, seat) = rx.parts();
        let rested = rest(core, seat, Until::Forever, &mut |_, seat| {
            let _ = tx.try_push(7);
            let pipe = descriptor(seat)?;
            let rung = poll(
                &mut [PollFd::new(&pipe, PollFlags::IN)],
                Some(&Timespec::default()),
            );
            assert_eq!(rung, Ok(1));
            Ok(true)
        });
        assert!(matches!(rested.unwrap(), Some(Waited::Done)));
        assert_eq!(rx.try_pop().unwrap(), 7);
    }

    /// The owner of a set on pipes may look before the sleeper runs, and finds too little for the set.
    #[test]
    fn sets_leave_resters_their_byte() {
        let channel = crate::spsc::Builder::<u64>::new(4).memfd().unwrap();
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        tx.push_slice(&[7; 4]).unwrap();
        let mut set = set::WaitSet::new().unwrap();
        set.watch_room(&tx, 4).unwrap();
        let idle = (0..127).map(|_| crate::spsc::channel::<u64>(1).unwrap());
        let idle = idle.collect::<Vec<_>>();
        for (_, rx) in &idle {
            set.watch(rx).unwrap();
        }
        assert!(set.wait_timeout(Duration::ZERO).is_err());
        let (core, seat) = tx.parts();
        let rested = rest(core, seat, Until::Forever, &mut |_, seat| {
            assert_eq!(rx.try_pop().unwrap(), 7);
            let told = set.wait_timeout(Duration::ZERO);
            assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
            let pipe = descriptor(seat)?;
            let rung = poll(
                &mut [PollFd::new(&pipe, PollFlags::IN)],
                Some(&Timespec::default()),
            );
            assert_eq!(rung, Ok(1));
            Ok(true)
        });
        assert!(matches!(rested.unwrap(), Some(Waited::Done)));
        // Once the handle is done, the set takes it.
        assert!(set.wait_timeout(Duration::ZERO).is_err());
        assert!(!tx.parts().1.parker.readable());
    }
}

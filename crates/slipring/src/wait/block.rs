//! Blocking calls: every verb that is not a `try_` waits here.
//!
//! The call polls for a while if that pays (`spin.rs`). Then it sleeps until the other side rings:
//! see `slipring_core::wait`. Every few milliseconds it checks that the other end's holder is still
//! alive. It also looks for a message whose publisher was killed before it could ring.
//!
//! After a second in vain it sleeps on its pipe, which reports both. Two kinds of pipe do not, so
//! their calls keep checking. One belongs to a producer that waits for many; the other is not yet
//! opened by the peer.
//!
//! Once a second the call checks that the channel's name still leads to it (`name_check.rs`).

use std::time::{Duration, Instant};

use slipring_core::end::Endpoint;
use slipring_core::wait::WakeMode;

use super::attached::Attached;
use super::policy::{CHECK_EVERY, LONGEST, NAME_EVERY, Until, Wait};
use super::spin::{self, AdaptiveSpin};
use super::{fd, recheck};
use crate::error::Error;

/// A condition that is checked again and again. It returns `true` if the wait is over, and an error
/// if it never will be.
trait Done<C: Endpoint>: FnMut(&mut Attached<C>) -> Result<bool, Error> {}

impl<C: Endpoint, F: FnMut(&mut Attached<C>) -> Result<bool, Error>> Done<C> for F {}

impl<C: Endpoint> Attached<C> {
    /// Waits until there is room for `amount`, or a message; until the wait fails for good; or
    /// until `until` has passed (`TimedOut`).
    ///
    /// Not inlined: a caller polls once by itself, and comes here when that found nothing.
    #[cold]
    #[inline(never)]
    pub(super) fn wait(&mut self, amount: usize, until: &mut Until) -> Result<(), Error> {
        until.begin();
        self.seat.count_wait();
        self.wait_for(WakeMode::Call, *until, |end| end.found(amount))
    }

    /// Waits for a live peer whose end has not been reported to this handle.
    pub(crate) fn wait_for_peer(&mut self, mut until: Until) -> Result<(), Error> {
        if !self.seat.ours() {
            return Err(Error::Forked);
        }
        self.notice_death()?;
        self.acknowledge();
        until.begin();
        self.wait_for(WakeMode::Doorbell, until, Attached::present)
    }

    /// Waits until no peer is present.
    pub(crate) fn wait_until_alone(&mut self, mut until: Until) -> Result<(), Error> {
        if !self.seat.ours() {
            return Err(Error::Forked);
        }
        until.begin();
        self.wait_for(WakeMode::Doorbell, until, Attached::alone)
    }

    /// `mode` is the wake mode of its sleeps on the doorbell.
    fn wait_for(
        &mut self,
        mode: WakeMode,
        until: Until,
        mut done: impl Done<C>,
    ) -> Result<(), Error> {
        self.state.told = false;
        let waited = match self.wait_until(mode, until, &mut done) {
            Ok(()) => return Ok(()),
            Err(error) => self.last_look(error, &mut done),
        };
        if waited.is_err() && self.state.told {
            self.seat.wake_another();
        }
        waited
    }

    /// Looks once more after an error, so that news which came before the name led elsewhere is
    /// reported first. If the wait was too short for any check of the name, checks it now.
    #[cold]
    #[inline(never)]
    fn last_look(&mut self, error: Error, done: &mut dyn Done<C>) -> Result<(), Error> {
        let error = match error {
            Error::TimedOut => match self.state.parker.check_name_in_time(Instant::now()) {
                Ok(()) => return Err(Error::TimedOut),
                Err(error) => error,
            },
            error => error,
        };
        match error {
            Error::Removed | Error::Replaced if done(self)? => Ok(()),
            error => Err(error),
        }
    }

    fn wait_until(
        &mut self,
        mode: WakeMode,
        until: Until,
        done: &mut impl Done<C>,
    ) -> Result<(), Error> {
        let waited = match self.state.waiting.wait {
            Wait::Spin => self.poll_until(until, std::hint::spin_loop, done)?,
            Wait::Yield => self.poll_until(until, std::thread::yield_now, done)?,
            Wait::Sleep { spin_for } => {
                // The program may have changed the handle's settings.
                if self.state.spin.at_most() != spin_for {
                    self.state.spin = AdaptiveSpin::new(spin_for);
                }
                match self.spin(until, done)? {
                    Waited::InVain => {
                        let began = Instant::now();
                        let waited = self.sleep(mode, until, done)?;
                        if waited == Waited::Done {
                            self.state.spin.slept(began.elapsed());
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
        // A last look, for a death or news that came while we were not looking.
        self.notice_death()?;
        if done(self)? {
            Ok(())
        } else {
            Err(Error::TimedOut)
        }
    }

    /// Waits without sleeping, for as long as that pays.
    fn spin(&mut self, until: Until, done: &mut impl Done<C>) -> Result<Waited, Error> {
        if self.state.spin.polls() {
            for _ in 0..spin::QUICK {
                if done(self)? {
                    self.state.spin.found_quickly();
                    return Ok(Waited::Done);
                }
                std::hint::spin_loop();
            }
        }
        let peer_wakes_up = self.woke_peer();
        // Copied out and back: `done` borrows the whole end.
        let mut spin = self.state.spin;
        let mut checked = None;
        let found = spin.poll_on(
            self,
            until.deadline(),
            peer_wakes_up,
            &mut *done,
            |end, now| end.look_after(now, checked.get_or_insert(now)),
        );
        self.state.spin = spin;
        Ok(match found? {
            true => Waited::Done,
            false => Waited::InVain,
        })
    }

    /// Polls until `until`, with a `pause` after each attempt.
    fn poll_until(
        &mut self,
        until: Until,
        pause: impl Fn(),
        done: &mut impl Done<C>,
    ) -> Result<Waited, Error> {
        // Reading the clock costs as much as several polls. A yielding poll costs far more than the
        // clock.
        let turns = match self.state.waiting.wait {
            Wait::Yield => 1,
            _ => spin::ATTEMPTS,
        };
        let mut checked = Instant::now();
        loop {
            for _ in 0..turns {
                if done(self)? {
                    return Ok(Waited::Done);
                }
                pause();
            }
            let now = Instant::now();
            if until.passed(now) {
                return Ok(Waited::TimedOut);
            }
            self.look_after(now, &mut checked)?;
        }
    }

    /// Sleeps until the other side rings, again and again.
    fn sleep(
        &mut self,
        mode: WakeMode,
        until: Until,
        done: &mut impl Done<C>,
    ) -> Result<Waited, Error> {
        let began = Instant::now();
        let mut checked = began;
        // `rests` tells whether there is a pipe to sleep on.
        let has_peer = self.core.with_peer(|_| ()).is_some();
        let mut rests = self.seat.region.files.is_some() && has_peer;
        let check_every = self.state.waiting.check_every;
        // Private memory belongs to one process, in which no end is killed alone: no sleep needs a
        // bound.
        let longest = match self.seat.region.private {
            Some(_) => check_every.max(QUIET),
            None if self.seat.region.named() => check_every.min(NAME_EVERY),
            None => check_every,
        };
        loop {
            // Once a turn, whatever ended the last one: another process may ring all the time.
            let now = Instant::now();
            if until.passed(now) {
                return Ok(Waited::TimedOut);
            }
            let quiet_from = rests.then(|| began + QUIET);
            if quiet_from.is_some_and(|quiet| now >= quiet) {
                match self.rest(until, done)? {
                    Some(Waited::InVain) => {
                        self.look_after(Instant::now(), &mut checked)?;
                        continue;
                    }
                    Some(waited) => return Ok(waited),
                    None => rests = false,
                }
            }
            // From here on, a set that the handle is in leaves the words alone.
            self.state.parker.occupy(false);
            let slept = self.sleep_armed(mode, until, longest, quiet_from, &mut checked, done);
            self.stop_asking();
            if slept? {
                return Ok(Waited::Done);
            }
            self.look_after(Instant::now(), &mut checked)?;
        }
    }

    /// Asks to be rung, and sleeps until that, or until there is another reason to look. Returns
    /// `true` if the wait is over.
    fn sleep_armed(
        &mut self,
        mode: WakeMode,
        until: Until,
        longest: Duration,
        quiet_from: Option<Instant>,
        checked: &mut Instant,
        done: &mut impl Done<C>,
    ) -> Result<bool, Error> {
        let asked = self.state.parker.waiter.arm(mode);
        let armed = Instant::now();
        // For a message published before the bit was set.
        if done(self)? {
            return Ok(true);
        }
        self.seat.count_park();
        let mut now = armed;
        while let Some(seen) = self.state.parker.waiter.asks_still() {
            // A sleep with a short bound covers a publisher that may have overlooked the bit; it
            // needs no shorter one.
            let unsure = longest > CHECK_EVERY && self.state.parker.waiter.unsure(asked);
            let longest = match unsure && now.saturating_duration_since(armed) < recheck::AFTER {
                true => recheck::AFTER,
                false => longest,
            };
            let at_most = until.left(now, longest).min(LONGEST);
            let nanos = at_most.as_nanos() as u64;
            self.state.parker.waiter.sleep(seen, nanos);
            now = Instant::now();
            if !self.state.parker.waiter.armed() || until.passed(now) {
                break;
            }
            // Finds a message whose publisher was killed before it could ring. Also finds that
            // publisher's end: nothing would report it in the next sleep.
            self.look_after(now, checked)?;
            if done(self)? {
                return Ok(true);
            }
            if quiet_from.is_some_and(|quiet| now >= quiet) {
                break;
            }
        }
        done(self)
    }

    /// Takes back the request, and lets a set that the handle is in have the words again.
    fn stop_asking(&mut self) {
        // A signal handler may have forked: then the bit is the parent's.
        if self.seat.ours() {
            self.state.told = !self.state.parker.disarm();
            self.state.parker.vacate();
        }
    }

    /// Sleeps on the pipe for a while. It wakes once a second instead of hundreds of times, and a
    /// death is reported at once. Returns `None` if no pipe is available: the doorbell also works.
    fn rest(&mut self, until: Until, done: &mut impl Done<C>) -> Result<Option<Waited>, Error> {
        self.state.parker.occupy(true);
        // Take back what the set that the handle is in may have asked for meanwhile, by its own
        // wake mode. See `stop_asking`.
        if self.seat.ours() {
            self.state.parker.disarm();
        }
        let rested = self.rest_armed(until, done);
        self.stop_asking();
        rested
    }

    fn rest_armed(
        &mut self,
        until: Until,
        done: &mut impl Done<C>,
    ) -> Result<Option<Waited>, Error> {
        match self.ask_for_a_byte() {
            Ok(()) => {}
            Err(error @ (Error::Forked | Error::Corrupt(_))) => return Err(error),
            // A lack of descriptors, for example, or a FIFO that was removed.
            Err(_) => return Ok(None),
        }
        if done(self)? {
            return Ok(Some(Waited::Done));
        }
        if self.state.parker.recheck.owed() {
            let began = Instant::now();
            fd::poll(self.descriptor()?, until.left(began, recheck::AFTER));
            if done(self)? {
                return Ok(Some(Waited::Done));
            }
            // Cut short.
            if began.elapsed() < recheck::AFTER {
                return Ok(Some(Waited::InVain));
            }
            self.state.parker.recheck.looked();
        }
        let (mut left, mut checked) = (QUIET, Instant::now());
        loop {
            // No hang-up reports the death of a peer that has not opened the pipe yet. So check for
            // it, as in a sleep on the doorbell.
            let bounded = self.state.parker.recheck.vigilant();
            let at_most = match bounded {
                true => left.min(self.state.waiting.check_every),
                false => left,
            };
            let began = Instant::now();
            let told = fd::poll(self.descriptor()?, until.left(began, at_most));
            if done(self)? {
                return Ok(Some(Waited::Done));
            }
            let now = Instant::now();
            left = left.saturating_sub(now - began);
            let over = told || !bounded || left.is_zero() || until.passed(now);
            if over || !self.state.parker.waiter.polls() {
                return Ok(Some(Waited::InVain));
            }
            self.look_after(now, &mut checked)?;
        }
    }

    /// Records a sign of life and checks the peer once every `check_every`; checks the channel's
    /// name when that is due.
    fn look_after(&mut self, now: Instant, checked: &mut Instant) -> Result<(), Error> {
        if now.duration_since(*checked) >= self.state.waiting.check_every {
            *checked = now;
            self.seat.beat();
            self.notice_death()?;
        }
        self.state.parker.check_name_in_time(now)
    }
}

/// The outcome of a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Done,
    /// The time for this way of waiting is over.
    InVain,
    /// The caller's time is over.
    TimedOut,
}

/// After this long in vain, a sleeper switches to its pipe, which needs no bounded sleeps.
const QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::wait::set::WaitSet;

    /// The news that no peer can join does not hold back a message that came at the last moment.
    #[test]
    fn what_came_meanwhile_comes_first() {
        let (mut tx, mut rx) = crate::spsc::channel::<u64>(4).unwrap();
        let mut look = |error| {
            rx.end
                .last_look(error, &mut |end: &mut Attached<_>| end.found(1))
        };
        assert_eq!(look(Error::Replaced), Err(Error::Replaced));
        tx.push(7).unwrap();
        assert_eq!(look(Error::Replaced), Ok(()));
        assert_eq!(look(Error::TimedOut), Err(Error::TimedOut));
    }

    /// A call that rests beside a set is notified through its pipe. The set had asked by its
    /// doorbell; without the new request, a publisher would ring there.
    #[test]
    fn a_resting_call_wakes_by_pipe() {
        let channel = crate::spsc::Builder::<u64>::new(4).memfd().unwrap();
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let mut set = WaitSet::new().unwrap();
        set.watch(&rx).unwrap();
        assert!(set.wait_timeout(Duration::ZERO).is_err());
        let rested = rx.end.rest(Until::Forever, &mut |end: &mut Attached<_>| {
            let _ = tx.try_push(7);
            let pipe = end.descriptor()?;
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

    /// The room is too small for the set but enough for the call: the set leaves the byte to the
    /// call.
    #[test]
    fn a_set_leaves_calls_their_byte() {
        let mut set = WaitSet::new().unwrap();
        let others: Vec<_> = (0..127)
            .map(|_| crate::spsc::channel::<u64>(2).unwrap())
            .collect();
        others.iter().for_each(|(_, rx)| {
            set.watch(rx).unwrap();
        });
        let channel = crate::spsc::Builder::<u64>::new(4).memfd().unwrap();
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        tx.push_slice(&[0, 1, 2, 3]).unwrap();
        set.watch_room(&tx, 4).unwrap();
        assert!(set.wait_timeout(Duration::ZERO).is_err());
        let rested = tx.end.rest(Until::Forever, &mut |end: &mut Attached<_>| {
            rx.try_pop()?;
            assert!(set.wait_timeout(Duration::ZERO).is_err());
            let pipe = end.descriptor()?;
            let byte = poll(
                &mut [PollFd::new(&pipe, PollFlags::IN)],
                Some(&Timespec::default()),
            );
            assert_eq!(byte, Ok(1));
            Ok(true)
        });
        assert!(matches!(rested.unwrap(), Some(Waited::Done)));
    }
}

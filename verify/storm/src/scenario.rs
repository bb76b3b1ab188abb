//! Runs a scenario: one channel, the workers that want its seats, and the referee that starts,
//! kills and stops them.
//!
//! The referee holds no seat, and passes no message. The scenario's words show what each worker
//! did, the kernel shows who holds each seat, and dice choose the next victim. When the referee
//! waits for a condition, it checks again and again; a condition that never comes true is a panic.

mod stopped;
mod workers;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use slipring::Role;
use slipring_testkit::{Delivery, Kind};
use slipring_tests::Room;
use slipring_tests::room::PATIENCE;

use stopped::Stopped;

use crate::kinds::{self, HAND, Way};
use crate::tally::{Count, Tally, Time};
use crate::watch::{Release, Watch};
use crate::words::{Words, get, now};
use crate::worker::{self, NAME};

/// The most messages that pass between two blows.
const LULL: u64 = 100;
/// A release that is known less exactly than this, in nanoseconds, is not measured from. A worker
/// that waited longer than this for a processor was disturbed.
const UNSURE: u64 = 100_000;
/// The number of instructions that a publisher of a topic makes, at most, before it is killed.
const STEPS: usize = 20_000;

/// The parameters of a scenario.
pub(crate) struct Plot<'k> {
    pub(crate) kind: &'k Kind,
    pub(crate) way: Way,
    /// `true` if the channel is in memfds that all workers inherit, `false` if it has a name.
    pub(crate) passed: bool,
    pub(crate) processes: usize,
    pub(crate) seed: u64,
}

impl std::fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.passed { "passed" } else { "named" };
        let (kind, way) = (self.kind.name, self.way.name());
        let (processes, seed) = (self.processes, self.seed);
        write!(
            f,
            "{kind} {place} {way}, {processes} processes, seed {seed}"
        )
    }
}

/// A running scenario.
pub(crate) struct Scenario<'k> {
    plot: Plot<'k>,
    room: Room,
    words: &'static Words,
    memory: OwnedFd,
    /// The channel's descriptors, if it is passed.
    passed: Vec<OwnedFd>,
    /// A worker that is stopped now and then, and never killed: it lives through everything.
    spared: Option<usize>,
    /// The workers. A killed worker's place is `None` until its replacement is there.
    workers: Vec<Option<Child>>,
    watch: Watch,
    dice: u64,
    /// The number of consumers that were killed.
    consumers_killed: u64,
    pub(crate) tally: Tally,
}

impl<'k> Scenario<'k> {
    /// Starts the scenario, and returns when all workers are there and each seat is taken.
    pub(crate) fn begin(plot: Plot<'k>) -> Scenario<'k> {
        let passed = match plot.passed {
            true => kinds::create(plot.kind, plot.way),
            false => Vec::new(),
        };
        let (words, memory) = Words::create();
        // The spared worker is a consumer, where there is another one.
        let spares = plot.kind.delivery != Delivery::One && plot.processes > 2;
        let mut scenario = Scenario {
            room: Room::new(""),
            words,
            // This stands in until there is a channel.
            watch: Watch::new(memory.try_clone().unwrap()),
            memory,
            passed,
            spared: spares.then_some(1),
            workers: (0..plot.processes).map(|_| None).collect(),
            dice: plot.seed,
            consumers_killed: 0,
            tally: Tally::default(),
            plot,
        };
        (0..scenario.workers.len()).for_each(|index| scenario.start(index));
        scenario.settle();
        let control = match scenario.passed.first() {
            Some(control) => control.try_clone().unwrap(),
            None => File::open(scenario.room.file(NAME, "control"))
                .unwrap()
                .into(),
        };
        scenario.watch = Watch::new(control);
        scenario
    }

    /// Goes on until `more` further messages were taken.
    pub(crate) fn flow(&mut self, more: u64) {
        let wanted = get(&self.words.messages) + more;
        self.until("messages are taken", |scenario| {
            get(&scenario.words.messages) >= wanted
        });
    }

    /// Strikes one or two workers after some messages, at a random moment.
    pub(crate) fn blow(&mut self) {
        let lull = self.roll(LULL);
        self.flow(1 + lull);
        (0..self.roll(4096)).for_each(|_| std::hint::spin_loop());
        if self.plot.kind.topic && self.roll(3) == 0 {
            self.kill_publishers();
            return;
        }
        match self.roll(16) {
            0 => {
                let one = self.pick(|_| true);
                self.pause(one);
            }
            1 => {
                let one = self.pick_victim();
                let spared = self.spared;
                let other = self.pick(|other| other != one && Some(other) != spared);
                self.kill_both(one, other);
            }
            2..8 => {
                let one = self.pick_victim();
                let stopped = self.pick(|other| other != one);
                self.kill_beside(one, stopped);
            }
            _ => {
                let one = self.pick_victim();
                self.kill(one);
            }
        }
    }

    /// Kills a worker, and measures how long the others take to go on.
    fn kill(&mut self, victim: usize) {
        let role = self.role(victim);
        let Some(seat) = self.words.worker(victim).seat() else {
            self.strike(victim);
            self.reap(victim);
            self.start(victim);
            return;
        };
        let waiting = self.wanting(role).any(|index| index != victim);
        let mut delays = (0..self.workers.len())
            .map(|index| self.delay(index))
            .collect::<Vec<_>>();
        // The successor's delays begin anew.
        delays[victim] = 0;
        let (life, before) = (self.watch.life(seat), now());
        self.strike(victim);
        let release = self.watch.released(seat, life, before);
        self.reap(victim);
        let of_many = role == Role::Consumer && self.plot.kind.delivery != Delivery::One;
        // Now and then no replacement comes before the other side learned of the death, or went on
        // without learning of it.
        if !waiting && self.roll(2) == 0 {
            if of_many {
                self.flow_freely();
            } else if self
                .of(role)
                .any(|index| self.words.worker(index).is_seated())
            {
                // The others of a queue find what the dead one held, and go on.
                self.flow(LULL);
            } else {
                self.until("the other side is told of a death", |scenario| {
                    let mut opposite = scenario.opposite(role);
                    let told = |index| get(&scenario.words.worker(index).told_at) >= release.after;
                    // The exception is a worker that had not tried yet, and has taken the seat more
                    // quickly.
                    scenario.holder(seat).is_some() || opposite.all(told)
                });
            }
        }
        self.start(victim);
        self.settle();
        if release.by - release.after <= UNSURE {
            // A producer with many consumers learns of no death, and may not have waited for this
            // one. Nor may the ends of a queue or a topic.
            if !of_many && !kinds::is_shared(self.plot.kind) {
                self.measure(role, seat, release, &delays);
            }
            let seated_at = get(&self.words.seat(seat).seated_at);
            if let (true, Some(time)) = (waiting, seated_at.checked_sub(release.after)) {
                self.tally.time(Time::Succeeded, time);
            }
        }
    }

    fn measure(&mut self, role: Role, seat: usize, release: Release, delays: &[u64]) {
        let since = |at: u64| at.checked_sub(release.after);
        for index in self.opposite(role).collect::<Vec<_>>() {
            let worker = self.words.worker(index);
            let (told, noticed) = (since(get(&worker.told_at)), since(get(&worker.noticed_at)));
            let Some(time) = [told, noticed].into_iter().flatten().min() else {
                continue;
            };
            self.tally.time(Time::Unblocked, time);
            // A worker that learned of no death waited for the successor to act.
            let successor = self.holder(seat).filter(|_| told != Some(time));
            let delay = |index: usize| self.delay(index) - delays[index];
            if [Some(index), successor]
                .into_iter()
                .flatten()
                .map(delay)
                .sum::<u64>()
                <= UNSURE
            {
                self.tally.time(Time::Undisturbed, time);
            }
        }
    }

    /// Waits until the producer has gone once round the ring and on: no consumer holds it back.
    fn flow_freely(&mut self) {
        let accepted = |scenario: &Scenario<'_>| get(&scenario.words.seat(0).done);
        let wanted = accepted(self) + kinds::most(self.plot.kind, self.plot.way) + 2 * HAND;
        self.until("the producer goes on", |scenario| {
            accepted(scenario) >= wanted
        });
    }

    /// Kills one worker and stops another at the same moment. Had the other stopped before, the
    /// first would be waiting for it by now, and not at work. The stopped worker sleeps until the
    /// killed one has a successor.
    fn kill_beside(&mut self, victim: usize, stopped: usize) {
        self.signal(stopped, Signal::STOP);
        self.strike(victim);
        self.reap(victim);
        self.stopped(stopped);
        self.start(victim);
        let (role, other) = (self.role(victim), self.role(stopped));
        // A worker that wants such a seat may have been stopped as it took it, or was about to. A
        // producer with many consumers may have been stopped as it took a consumer's seat to repair
        // it, and so may any end of a queue.
        if role != other
            && (role == Role::Producer || self.plot.kind.delivery == Delivery::One)
            && !kinds::is_shared(self.plot.kind)
        {
            self.until("all seats are taken again", |scenario| {
                scenario.is_full(role)
            });
        }
        self.signal(stopped, Signal::CONT);
        self.settle();
    }

    fn kill_both(&mut self, one: usize, other: usize) {
        [one, other]
            .into_iter()
            .for_each(|index| self.strike(index));
        [one, other].into_iter().for_each(|index| self.reap(index));
        [one, other].into_iter().for_each(|index| self.start(index));
        self.settle();
    }

    /// Stops all publishers of a topic, and kills them: one of them where it has written the entry of a message, and not the
    /// head. Subscribers go on meanwhile.
    fn kill_publishers(&mut self) {
        let publishers = self.of(Role::Producer).collect::<Vec<_>>();
        let seated = |index: &usize| self.words.worker(*index).is_seated();
        let one = publishers.iter().copied().find(seated);
        let geometry = {
            let maker = kinds::maker(self.plot.kind, self.plot.way);
            maker.heap().unwrap().geometry()
        };
        let (entries, capacity) = (geometry.claims_offset(), geometry.capacity);
        for index in publishers.iter().filter(|index| Some(**index) != one) {
            self.freeze(*index);
        }
        if let Some(one) = one {
            self.step_until(one, STEPS, |watch| watch.is_behind(entries, capacity));
        }
        for index in &publishers {
            self.strike(*index);
            self.reap(*index);
        }
        if self.watch.is_behind(entries, capacity) {
            self.tally.add(Count::Behind, 1);
        }
        publishers.iter().for_each(|index| self.start(*index));
        self.settle();
    }

    /// Stops the holder of this seat for a time, and checks that it is the same afterwards.
    pub(crate) fn hold(&mut self, seat: usize, long: Duration) {
        let index = self.holder(seat).unwrap();
        self.freeze(index);
        let (stopped, began) = (Stopped::new(self, index), Instant::now());
        while began.elapsed() < long {
            std::thread::sleep(Duration::from_millis(100));
            stopped.is_alive(self);
        }
        self.thaw(index);
        self.flow(1000);
        stopped.is_alive(self);
    }

    /// Leaves all workers alone for a time.
    pub(crate) fn rest(&mut self, long: Duration) {
        let began = Instant::now();
        while began.elapsed() < long {
            std::thread::sleep(Duration::from_millis(100));
            self.flow(1);
        }
    }

    /// Kills all workers, and accounts for every message that was ever committed. Where consumers
    /// receive all messages, some live, and account for themselves.
    pub(crate) fn end(mut self) -> Tally {
        let mut lost = 0;
        self.check_counts(0);
        for index in 0..self.workers.len() {
            let told = get(&self.words.worker(index).told);
            self.tally.add(Count::Told, told);
            // A subscriber of a topic that takes its seat after the last publisher has left may not be told of that.
            let many = self.plot.kind.delivery != Delivery::One
                && (!self.plot.kind.topic || self.words.worker(index).is_seated());
            let lives = many && (Some(index) == self.spared || self.roll(2) == 0);
            if self.role(index) == Role::Producer || !lives {
                // These messages are not counted: no blow of the dice caused them.
                lost += get(&self.words.worker(index).lost);
                self.signal(index, Signal::KILL);
                self.reap(index);
            }
        }
        self.tally.add(Count::Lost, lost);
        let mut auditor = self.spawn(worker::AUDITOR);
        let mut living = self.workers.iter_mut().flatten().collect::<Vec<_>>();
        living.push(&mut auditor);
        let began = Instant::now();
        while !living.is_empty() {
            living.retain_mut(|child| {
                let ended = child.try_wait().unwrap();
                if let Some(status) = ended {
                    assert!(status.success(), "at the end: {status}: {}", self.plot);
                }
                ended.is_none()
            });
            assert!(began.elapsed() < PATIENCE, "no end: {}", self.plot);
            std::thread::sleep(Duration::from_micros(100));
        }
        self.check_counts(self.of(Role::Consumer).count() as u64);
        self.tally
            .add(Count::Dropped, get(&self.words.ledger.dropped));
        self.workers.clear();
        for seat in 0..self.plot.kind.producers + self.plot.kind.consumers {
            self.tally
                .add(Count::Again, get(&self.words.seat(seat).again));
        }
        self.tally.add(Count::Resizes, get(&self.words.resizes));
        self.tally
            .add(Count::Messages, get(&self.words.seat(0).done));
        std::mem::take(&mut self.tally)
    }

    /// Checks that the consumers that were killed, and `more` of them, explain each wrong count of deliveries, and each
    /// message that was dropped.
    fn check_counts(&self, more: u64) {
        let most = (self.consumers_killed + more) * HAND;
        let ledger = &self.words.ledger;
        for (what, count) in [("strays", &ledger.strays), ("dropped", &ledger.dropped)] {
            let count = get(count);
            assert!(count <= most, "{count} {what} of {most}: {}", self.plot);
        }
    }

    /// Waits until every seated worker knows of every other one, and no seat is empty.
    fn settle(&mut self) {
        self.until("everybody goes on", |scenario| {
            let seatings = get(&scenario.words.seatings);
            let knows = |index: usize| {
                let worker = scenario.words.worker(index);
                !worker.is_seated() || get(&worker.noticed) == seatings
            };
            [Role::Producer, Role::Consumer]
                .into_iter()
                .all(|role| scenario.is_full(role))
                && (0..scenario.workers.len()).all(knows)
        });
    }

    /// Returns `true` if every seat of this role is taken, as far as there are workers for it.
    fn is_full(&self, role: Role) -> bool {
        let seated = |index: &usize| self.words.worker(*index).is_seated();
        let wanted = self.of(role).count().min(self.plot.kind.seats(role));
        self.of(role).filter(seated).count() == wanted
    }

    /// Checks again and again until the condition is true.
    fn until(&mut self, what: &str, is_so: impl Fn(&Scenario<'_>) -> bool) {
        let began = Instant::now();
        for turn in 1_u32.. {
            if is_so(self) {
                return;
            }
            if turn.is_multiple_of(64) {
                self.all_live();
                assert!(
                    began.elapsed() < PATIENCE,
                    "never: {what}: {}{self}",
                    self.plot
                );
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Returns the role that a worker wants.
    fn role(&self, index: usize) -> Role {
        kinds::role(self.plot.kind, index)
    }

    /// Returns the worker that holds this seat.
    fn holder(&self, seat: usize) -> Option<usize> {
        (0..self.workers.len()).find(|index| self.words.worker(*index).seat() == Some(seat))
    }

    /// Returns the workers that want a seat of this role, and were refused it.
    fn wanting(&self, role: Role) -> impl Iterator<Item = usize> {
        self.of(role).filter(|index| {
            let worker = self.words.worker(*index);
            !worker.is_seated() && get(&worker.tries) > 0
        })
    }

    fn of(&self, role: Role) -> impl Iterator<Item = usize> {
        (0..self.workers.len()).filter(move |index| self.role(*index) == role)
    }

    /// Returns the workers in the seats of the other side.
    fn opposite(&self, role: Role) -> impl Iterator<Item = usize> {
        (0..self.workers.len())
            .filter(move |index| self.role(*index) != role && self.words.worker(*index).is_seated())
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.dice >> 32) % sides
    }

    /// Picks a worker for which the condition is true; three times of four a seated one.
    fn pick(&mut self, is_so: impl Fn(usize) -> bool) -> usize {
        let all = (0..self.workers.len()).filter(|index| is_so(*index));
        let mut all = all.collect::<Vec<_>>();
        let seated = |index: &usize| self.words.worker(*index).is_seated();
        let any_seated = all.iter().any(seated);
        if self.roll(4) > 0 && any_seated {
            all.retain(seated);
        }
        all[self.roll(all.len() as u64) as usize]
    }

    fn pick_victim(&mut self) -> usize {
        let spared = self.spared;
        self.pick(|index| Some(index) != spared)
    }
}

/// Shows the state of all workers, for people who have to find out what went wrong.
impl std::fmt::Display for Scenario<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.words;
        write!(f, "\n{} sat down; it is {}", get(&words.seatings), now())?;
        for index in 0..self.workers.len() {
            write!(
                f,
                "\n{index} {:?}: {:?}",
                self.role(index),
                words.worker(index)
            )?;
        }
        for seat in 0..self.plot.kind.producers + self.plot.kind.consumers {
            write!(f, "\nseat {seat}: life {:x}", self.watch.life(seat))?;
        }
        Ok(())
    }
}

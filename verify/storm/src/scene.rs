//! One channel, the processes that want its seats, and the referee who starts, kills and stops them.
//!
//! The referee holds no seat, and passes no message. It knows from the scene's words what each process
//! did, from the kernel who holds what, and from its dice whom to hit next. What it waits for it asks for
//! again and again; what never happens is a panic.

mod cast;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use slipring_tests::Room;
use slipring_tests::room::PATIENCE;

use crate::kinds::{Kind, Seat, Way};
use crate::party::{self, NAME};
use crate::tally::{Count, Tally, Time};
use crate::watch::{Release, Watch};
use crate::words::{Words, get, now};

/// How many messages pass between two blows, at most.
const LULL: u64 = 100;
/// A release that is known less exactly than this, in nanoseconds, is not measured from; and who waited
/// longer than this for a processor was disturbed.
const UNSURE: u64 = 100_000;

/// What a scene is.
pub(crate) struct Plot<'k> {
    pub(crate) kind: &'k Kind,
    pub(crate) way: Way,
    /// In memfds that everybody inherits, or under a name.
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

/// A scene that is played.
pub(crate) struct Scene<'k> {
    plot: Plot<'k>,
    room: Room,
    words: &'static Words,
    memory: OwnedFd,
    /// The channel, if it is passed.
    passed: Vec<OwnedFd>,
    /// For each process the seat that it wants.
    seats: Vec<Seat>,
    /// Nobody where one was killed, until the next one is there.
    cast: Vec<Option<Child>>,
    watch: Watch,
    dice: u64,
    pub(crate) tally: Tally,
}

impl<'k> Scene<'k> {
    /// Everybody is there, and each seat is taken.
    pub(crate) fn begin(plot: Plot<'k>) -> Scene<'k> {
        let passed = match plot.passed {
            true => (plot.kind.create)(plot.way),
            false => Vec::new(),
        };
        let (words, memory) = Words::create();
        let seats = (plot.kind.seats)(plot.processes);
        let mut scene = Scene {
            room: Room::new(""),
            words,
            // Until there is a channel.
            watch: Watch::new(memory.try_clone().unwrap()),
            memory,
            passed,
            cast: seats.iter().map(|_| None).collect(),
            seats,
            dice: plot.seed,
            tally: Tally::default(),
            plot,
        };
        (0..scene.seats.len()).for_each(|index| scene.start(index));
        scene.settle();
        let control = match scene.passed.first() {
            Some(control) => control.try_clone().unwrap(),
            None => File::open(scene.room.file(NAME, "control")).unwrap().into(),
        };
        scene.watch = Watch::new(control);
        scene
    }

    /// Goes on until so many messages more were taken.
    pub(crate) fn flow(&mut self, more: u64) {
        let wanted = get(&self.words.messages) + more;
        self.until("messages are taken", |scene| {
            get(&scene.words.messages) >= wanted
        });
    }

    /// After some messages, and not just then, somebody is hit.
    pub(crate) fn blow(&mut self) {
        let lull = self.roll(LULL);
        self.flow(1 + lull);
        (0..self.roll(4096)).for_each(|_| std::hint::spin_loop());
        let one = self.pick();
        match self.roll(16) {
            0 => self.pause(one),
            1 => {
                let other = self.pick_beside(one);
                self.kill_both(one, other);
            }
            2..8 => {
                let stopped = self.pick_beside(one);
                self.kill_beside(one, stopped);
            }
            _ => self.kill(one),
        }
    }

    /// Kills one, and measures how long the others take to go on.
    fn kill(&mut self, victim: usize) {
        let seat = self.seats[victim].number;
        let seated = self.words.party(victim).is_seated();
        let waiting = self.wanting(seat).any(|index| index != victim);
        let mut delays = (0..self.cast.len())
            .map(|index| self.delay(index))
            .collect::<Vec<_>>();
        // Its successor's begin anew.
        delays[victim] = 0;
        let (life, before) = (self.watch.life(seat), now());
        self.strike(victim);
        if !seated {
            self.bury(victim);
            self.start(victim);
            return;
        }
        let release = self.watch.released(seat, life, before);
        self.bury(victim);
        // Now and then nobody comes before the other side was told.
        if !waiting && self.roll(2) == 0 {
            self.until("the other side is told of a death", |scene| {
                let mut opposite = scene.opposite(seat);
                let told = |index| get(&scene.words.party(index).told_at) >= release.after;
                // But for one who had not tried yet, and has been quicker than that.
                scene.holder(seat).is_some() || opposite.all(told)
            });
        }
        self.start(victim);
        self.settle();
        if release.by - release.after <= UNSURE {
            self.measure(seat, release, &delays, waiting);
        }
    }

    fn measure(&mut self, seat: usize, release: Release, delays: &[u64], waiting: bool) {
        let since = |at: u64| at.checked_sub(release.after);
        for index in self.opposite(seat).collect::<Vec<_>>() {
            let party = self.words.party(index);
            let (told, noticed) = (since(get(&party.told_at)), since(get(&party.noticed_at)));
            let Some(time) = [told, noticed].into_iter().flatten().min() else {
                continue;
            };
            self.tally.time(Time::Unblocked, time);
            // Who was not told waited for the successor to do something.
            let heir = self.holder(seat).filter(|_| told != Some(time));
            let delay = |index: usize| self.delay(index) - delays[index];
            if [Some(index), heir]
                .into_iter()
                .flatten()
                .map(delay)
                .sum::<u64>()
                <= UNSURE
            {
                self.tally.time(Time::Undisturbed, time);
            }
        }
        if let (true, Some(time)) = (waiting, since(get(&self.words.seat(seat).seated_at))) {
            self.tally.time(Time::Succeeded, time);
        }
    }

    /// Kills one and stops another at the same moment: had the other stopped before, the one would be
    /// waiting for it by now, and not at work. It sleeps through all until the one has a successor.
    fn kill_beside(&mut self, victim: usize, stopped: usize) {
        self.signal(stopped, Signal::STOP);
        self.strike(victim);
        self.bury(victim);
        self.stopped(stopped);
        self.start(victim);
        let seat = self.seats[victim].number;
        // One that wants the same seat may have been stopped as it took it, or as it was about to.
        if self.seats[stopped] != self.seats[victim] {
            self.until("somebody sits there again", |scene| {
                scene.holder(seat).is_some()
            });
        }
        self.signal(stopped, Signal::CONT);
        self.settle();
    }

    fn kill_both(&mut self, one: usize, other: usize) {
        [one, other]
            .into_iter()
            .for_each(|index| self.strike(index));
        [one, other].into_iter().for_each(|index| self.bury(index));
        [one, other].into_iter().for_each(|index| self.start(index));
        self.settle();
    }

    /// Stops one for as long as it takes everybody else to look, twice, whether it still has its seat.
    fn pause(&mut self, index: usize) {
        self.freeze(index);
        let seat = self.seats[index].number;
        if !self.words.party(index).is_seated() {
            self.flow(1);
        } else {
            let stopped = Stopped::new(self, index);
            for wanting in self.wanting(seat).collect::<Vec<_>>() {
                let tries = get(&self.words.party(wanting).tries);
                self.until("the seat is refused to others", |scene| {
                    get(&scene.words.party(wanting).tries) >= tries + 2
                });
            }
            // Those who wait in a blocking call look at its lock, and give a sign of life then.
            if self.plot.way == Way::Sleep {
                for opposite in self.opposite(seat).collect::<Vec<_>>() {
                    for _ in 0..2 {
                        let number = self.seats[opposite].number;
                        let beat = self.watch.heartbeat(number);
                        self.until("the other side looks", |scene| {
                            scene.watch.heartbeat(number) != beat
                        });
                    }
                }
            }
            stopped.is_alive(self);
        }
        self.thaw(index);
    }

    /// Stops the holder of this seat for so long, and sees that it is the same afterwards.
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

    /// Leaves everybody alone for so long.
    pub(crate) fn rest(&mut self, long: Duration) {
        let began = Instant::now();
        while began.elapsed() < long {
            std::thread::sleep(Duration::from_millis(100));
            self.flow(1);
        }
    }

    /// Kills all, and accounts for every message that was ever committed.
    pub(crate) fn end(mut self) -> Tally {
        for index in 0..self.cast.len() {
            let told = get(&self.words.party(index).told);
            self.tally.add(Count::Told, told);
            // Not counted: it is no blow of the dice.
            self.signal(index, Signal::KILL);
            self.bury(index);
        }
        let mut auditor = self.spawn(party::AUDITOR);
        let status = auditor.wait().unwrap();
        assert!(status.success(), "the auditor says: {status}");
        for seat in 0..self.seats.len() {
            self.tally
                .add(Count::Again, get(&self.words.seat(seat).again));
        }
        self.tally
            .add(Count::Messages, get(&self.words.seat(0).done));
        std::mem::take(&mut self.tally)
    }

    /// Everybody who sits there knows of everybody else who does, and no seat is empty.
    fn settle(&mut self) {
        self.until("everybody goes on", |scene| {
            let seatings = get(&scene.words.seatings);
            let seated = |seat: &Seat| scene.holder(seat.number).is_some();
            let knows = |index: usize| {
                let party = scene.words.party(index);
                !party.is_seated() || get(&party.noticed) == seatings
            };
            scene.seats.iter().all(seated) && (0..scene.cast.len()).all(knows)
        });
    }

    /// Asks again until it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Scene<'_>) -> bool) {
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

    /// Who holds this seat.
    fn holder(&self, seat: usize) -> Option<usize> {
        self.of(seat)
            .find(|index| self.words.party(*index).is_seated())
    }

    /// Who wants this seat, and was refused it.
    fn wanting(&self, seat: usize) -> impl Iterator<Item = usize> {
        self.of(seat).filter(|index| {
            let party = self.words.party(*index);
            !party.is_seated() && get(&party.tries) > 0
        })
    }

    fn of(&self, seat: usize) -> impl Iterator<Item = usize> {
        (0..self.cast.len()).filter(move |index| self.seats[*index].number == seat)
    }

    /// Who sits on the other side.
    fn opposite(&self, seat: usize) -> impl Iterator<Item = usize> {
        let role = self
            .seats
            .iter()
            .find(|known| known.number == seat)
            .map(|known| known.role);
        (0..self.cast.len()).filter(move |index| {
            Some(self.seats[*index].role) != role && self.words.party(*index).is_seated()
        })
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.dice >> 32) % sides
    }

    /// Somebody, three times of four one who sits.
    fn pick(&mut self) -> usize {
        let any = self.roll(self.cast.len() as u64) as usize;
        match self.roll(4) {
            0 => any,
            _ => self.holder(self.seats[any].number).unwrap_or(any),
        }
    }

    fn pick_beside(&mut self, one: usize) -> usize {
        loop {
            let other = self.pick();
            if other != one {
                return other;
            }
        }
    }
}

/// Where everybody is, for whoever has to find out what went wrong.
impl std::fmt::Display for Scene<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.words;
        write!(f, "\n{} sat down; it is {}", get(&words.seatings), now())?;
        for (index, seat) in self.seats.iter().enumerate() {
            let life = self.watch.life(seat.number);
            write!(
                f,
                "\n{index} {seat:?}, life {life:x}: {:?}",
                words.party(index)
            )?;
        }
        Ok(())
    }
}

/// A holder that was stopped: it is alive, and nobody may take its seat or be told of its death.
struct Stopped {
    index: usize,
    seat: usize,
    life: u64,
    seatings: u64,
    told: Vec<u64>,
}

impl Stopped {
    fn new(scene: &Scene<'_>, index: usize) -> Stopped {
        let seat = scene.seats[index].number;
        Stopped {
            index,
            seat,
            life: scene.watch.life(seat),
            seatings: get(&scene.words.seatings),
            told: Stopped::told(scene),
        }
    }

    fn told(scene: &Scene<'_>) -> Vec<u64> {
        let told = |index| get(&scene.words.party(index).told);
        (0..scene.cast.len()).map(told).collect()
    }

    fn is_alive(&self, scene: &Scene<'_>) {
        let plot = &scene.plot;
        assert!(scene.watch.is_held(self.seat), "free while stopped: {plot}");
        assert_eq!(scene.watch.life(self.seat), self.life, "reclaimed: {plot}");
        assert_eq!(scene.holder(self.seat), Some(self.index), "{plot}");
        assert_eq!(
            get(&scene.words.seatings),
            self.seatings,
            "somebody sat down: {plot}"
        );
        assert_eq!(Stopped::told(scene), self.told, "told dead: {plot}");
    }
}

//! Stops workers, and checks that they count as alive meanwhile.

use std::time::Instant;

use slipring::Role;
use slipring_testkit::Delivery;
use slipring_tests::room::PATIENCE;

use super::Scenario;
use crate::kinds::{self, Way};
use crate::words::get;
use crate::worker;

impl Scenario<'_> {
    /// Stops a worker until every other one has checked, twice, that it still has its seat.
    pub(super) fn pause(&mut self, index: usize) {
        self.freeze(index);
        let role = self.role(index);
        if !self.words.worker(index).is_seated() {
            self.flow(1);
            self.thaw(index);
            return;
        }
        let stopped = Stopped::new(self, index);
        for wanting in self.wanting(role).collect::<Vec<_>>() {
            let tries = get(&self.words.worker(wanting).tries);
            self.until("the seat is refused to others", |scenario| {
                get(&scenario.words.worker(wanting).tries) >= tries + 2
            });
        }
        let lost = get(&self.words.worker(index).lost);
        let mut overtaken = false;
        match (role, self.plot.kind.delivery) {
            (Role::Consumer, Delivery::All) => self.is_waited_for(&stopped),
            (Role::Consumer, Delivery::Overwriting) => {
                self.flow_freely();
                overtaken = true;
            }
            _ => {}
        }
        // Workers that wait in a blocking call check its lock, and update their heartbeat then. Those of a queue need
        // not wait for this one.
        if self.plot.way == Way::Sleep && !overtaken && !kinds::is_shared(self.plot.kind) {
            for opposite in self.opposite(role).collect::<Vec<_>>() {
                for _ in 0..2 {
                    let Some(number) = self.words.worker(opposite).seat() else {
                        continue;
                    };
                    let beat = self.watch.heartbeat(number);
                    self.until("the other side looks", |scenario| {
                        scenario.watch.heartbeat(number) != beat
                    });
                }
            }
        }
        stopped.is_alive(self);
        self.thaw(index);
        if overtaken {
            self.until("one that was overtaken is told so", |scenario| {
                get(&scenario.words.worker(index).lost) > lost
            });
        }
    }

    /// Checks that a stopped consumer holds the producer back, and that `stat` names it.
    fn is_waited_for(&mut self, stopped: &Stopped) {
        let pid = self.pid(stopped.index).as_raw_nonzero().get() as u64;
        let began = Instant::now();
        loop {
            let status = self.spawn(worker::ONLOOKER).wait().unwrap();
            assert!(status.success(), "the onlooker says: {status}");
            let words = self.words;
            if (get(&words.slowest), get(&words.slowest_pid)) == (stopped.seat as u64, pid) {
                return;
            }
            self.all_live();
            assert!(
                began.elapsed() < PATIENCE,
                "nobody says that {} holds the producer back: {}{self}",
                stopped.index,
                self.plot
            );
        }
    }
}

/// A holder that was stopped. It is alive: nobody may take its seat or learn of its death.
pub(super) struct Stopped {
    index: usize,
    seat: usize,
    life: u64,
    seatings: u64,
    told: Vec<u64>,
}

impl Stopped {
    pub(super) fn new(scenario: &Scenario<'_>, index: usize) -> Stopped {
        let seat = get(&scenario.words.worker(index).seat) as usize;
        Stopped {
            index,
            seat,
            life: scenario.watch.life(seat),
            seatings: get(&scenario.words.seatings),
            told: Stopped::told(scenario),
        }
    }

    fn told(scenario: &Scenario<'_>) -> Vec<u64> {
        let told = |index| get(&scenario.words.worker(index).told);
        (0..scenario.workers.len()).map(told).collect()
    }

    pub(super) fn is_alive(&self, scenario: &Scenario<'_>) {
        let plot = &scenario.plot;
        assert!(
            scenario.watch.is_held(self.seat),
            "free while stopped: {plot}"
        );
        assert_eq!(
            scenario.watch.life(self.seat),
            self.life,
            "reclaimed: {plot}"
        );
        assert_eq!(scenario.holder(self.seat), Some(self.index), "{plot}");
        assert_eq!(
            get(&scenario.words.seatings),
            self.seatings,
            "somebody sat down: {plot}"
        );
        assert_eq!(Stopped::told(scenario), self.told, "told dead: {plot}");
    }
}

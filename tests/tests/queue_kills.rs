//! Kills producers and consumers of a work queue at random moments, and settles the account of every message.
//!
//! `SLIPRING_KILLS` sets the number of kills of each case; the default suits CI.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use slipring_tests::Room;
use slipring_tests::ledger::{Ledger, PUSHED, set};
use slipring_tests::room::PATIENCE;

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// One case: a queue of `capacity` slots, that many workers of each role, which pass messages `how`.
struct Case {
    capacity: usize,
    producers: usize,
    consumers: usize,
    how: &'static str,
}

/// The referee of a case.
struct Referee {
    room: Room,
    case: Case,
    ledger: Ledger,
    workers: Vec<Child>,
    dice: u64,
}

impl Referee {
    fn begin(case: Case, messages: usize) -> Referee {
        let room = Room::new(WORKER);
        let ledger = Ledger::create(&room.path().join(LEDGER), messages, case.capacity);
        let mut referee = Referee {
            dice: case.capacity as u64 + 1,
            workers: Vec::new(),
            room,
            case,
            ledger,
        };
        for index in 0..referee.case.producers + referee.case.consumers {
            let child = referee.start(index);
            referee.workers.push(child);
        }
        referee
    }

    fn start(&self, index: usize) -> Child {
        let role = match index < self.case.producers {
            true => "producer",
            false => "consumer",
        };
        let ledger = self.room.path().join(LEDGER);
        Command::new(WORKER)
            .args([role, ledger.to_str().unwrap(), "jobs", self.case.how])
            .env("SLIPRING_DIR", self.room.path())
            .spawn()
            .unwrap()
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    /// Waits until `condition` holds.
    fn until(&self, what: &str, condition: impl Fn(&Referee) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} for too long");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Returns how many messages were taken, each counted as often as it was.
    fn taken(&self) -> u64 {
        (0..self.ledger.drawn())
            .map(|number| self.ledger.account(number).1)
            .sum()
    }

    /// Kills one worker after some more messages were drawn, and starts another in its place.
    fn strike(&mut self) {
        let wanted = self.ledger.drawn() + 1 + self.roll(60);
        self.until("no message was drawn", |referee| {
            let drawn = referee.ledger.drawn();
            drawn >= wanted || drawn == referee.ledger.messages() as u64
        });
        (0..self.roll(4096)).for_each(|_| std::hint::spin_loop());
        let victim = self.roll(self.workers.len() as u64) as usize;
        let _ = self.workers[victim].kill();
        let _ = self.workers[victim].wait();
        self.workers[victim] = self.start(victim);
    }

    /// Lets all workers finish, and settles the account. Returns how many messages were taken more than once.
    fn settle(mut self) -> u64 {
        let mut workers = std::mem::take(&mut self.workers);
        let consumers = workers.split_off(self.case.producers);
        let finish = |workers: Vec<Child>| {
            for mut worker in workers {
                let status = worker.wait().unwrap();
                assert!(status.success(), "a worker: {status}");
            }
        };
        finish(workers);
        set(self.ledger.stop(), 1);
        finish(consumers);
        let mut again = 0;
        for number in 0..self.ledger.drawn() {
            let (state, taken) = self.ledger.account(number);
            if state == PUSHED {
                assert!(taken > 0, "message {number} is lost");
            }
            again += u64::from(taken > 1);
        }
        again
    }
}

impl Drop for Referee {
    /// Leaves no worker behind when the test fails.
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

const LEDGER: &str = "ledger";

fn kills() -> u64 {
    let set = std::env::var("SLIPRING_KILLS");
    set.map_or(60, |kills| kills.parse().expect("a number of kills"))
}

/// No accepted message is lost, whoever is killed and whenever; what was taken twice was marked. The others go on.
fn kill(case: Case) {
    let kills = kills();
    let shown = format!("capacity {} {}", case.capacity, case.how);
    let mut referee = Referee::begin(case, 100 * kills as usize);
    for _ in 0..kills {
        referee.strike();
    }
    let taken = referee.taken();
    let all = referee.ledger.messages();
    let again = referee.settle();
    println!(
        "{shown}: {kills} killed, {taken} of {all} messages taken meanwhile, {again} taken again"
    );
}

#[test]
fn kills_of_one_slot_lose_nothing() {
    kill(Case {
        capacity: 1,
        producers: 2,
        consumers: 2,
        how: "one",
    });
}

#[test]
fn kills_of_small_runs_lose_nothing() {
    kill(Case {
        capacity: 4,
        producers: 2,
        consumers: 2,
        how: "run",
    });
}

#[test]
fn kills_of_many_lose_nothing() {
    kill(Case {
        capacity: 256,
        producers: 4,
        consumers: 4,
        how: "run",
    });
}

/// While consumers hold messages, the queue goes round, and producers carry what is held.
#[test]
fn kills_of_holders_lose_nothing() {
    kill(Case {
        capacity: 16,
        producers: 2,
        consumers: 3,
        how: "held",
    });
}

/// Producers and consumers are stopped for a while and continued: nothing is lost, and nothing comes twice.
#[test]
fn stopped_workers_lose_nothing() {
    let case = Case {
        capacity: 256,
        producers: 3,
        consumers: 3,
        how: "run",
    };
    let mut referee = Referee::begin(case, 20_000);
    for _ in 0..50 {
        let victim = 3 + referee.roll(3) as usize;
        let signal = |referee: &Referee, signal| {
            kill_process(Pid::from_child(&referee.workers[victim]), signal).unwrap();
        };
        signal(&referee, Signal::STOP);
        (0..referee.roll(1 << 16)).for_each(|_| std::hint::spin_loop());
        signal(&referee, Signal::CONT);
    }
    assert_eq!(referee.settle(), 0, "taken twice without a death");
}

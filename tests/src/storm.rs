//! Storms: both sides are killed at random, again and again, and every message is accounted for.

use std::time::{Duration, Instant};

use crate::{Peer, Place};

/// Who is killed, how often, doing what.
pub struct Storm<'s> {
    /// Where.
    pub place: &'s Place,
    /// What is said to each producer that sits down.
    pub produce: &'s str,
    /// What is said to each consumer that sits down, which writes each number to its output before it
    /// releases it.
    pub consume: &'s str,
    /// How many messages a consumer has in hand at most.
    pub hand: u64,
    /// How many messages are processed between two kills, at most.
    pub lull: u64,
    /// How many are killed.
    pub kills: u64,
    /// Of the dice.
    pub seed: u64,
    /// Whether, every other time, the survivor is stopped until the victim has a successor: then it
    /// notices nothing of what went on between.
    pub stops: bool,
}

/// A storm over sides that wait.
pub struct Variant {
    /// How they wait: `sleep`, `poll`, `turns`.
    pub waits: &'static str,
    options: &'static str,
    passed: bool,
}

/// The smallest rings, so that both sides wait all the time; whoever sleeps does so at once.
const SPSC: &str = "kind=spsc capacity=2 wait=sleep";
const BYTES: &str = "kind=bytes capacity=128 max=112 wait=sleep";

const fn variant(waits: &'static str, options: &'static str, passed: bool) -> Variant {
    Variant {
        waits,
        options,
        passed,
    }
}

/// All of them.
pub const VARIANTS: [Variant; 12] = [
    variant("sleep", SPSC, false),
    variant("sleep", BYTES, false),
    variant("sleep", SPSC, true),
    variant("sleep", BYTES, true),
    variant("poll", SPSC, false),
    variant("poll", BYTES, false),
    variant("poll", SPSC, true),
    variant("poll", BYTES, true),
    variant("turns", SPSC, false),
    variant("turns", BYTES, false),
    variant("turns", SPSC, true),
    variant("turns", BYTES, true),
];

impl Variant {
    /// So many kills.
    #[track_caller]
    pub fn rage(&self, program: &str, kills: u64, seed: u64) -> Toll {
        let place = if self.passed {
            Place::passed(program, self.options)
        } else {
            Place::named(program, self.options)
        };
        // As many as the ring has room for, or one record.
        let storm = Storm {
            place: &place,
            produce: &format!("wait-produce {}", self.waits),
            consume: &format!("wait-consume {} 2", self.waits),
            hand: 2,
            lull: 100,
            kills,
            seed,
            stops: true,
        };
        storm.rage()
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.options.split(' ').next().unwrap();
        let how = if self.passed { "passed" } else { "named" };
        write!(f, "{} {kind} {how}", self.waits)
    }
}

/// What a storm did.
#[derive(Default)]
pub struct Toll {
    /// How many messages were ever committed; all of them arrived.
    pub committed: u64,
    /// How many producers were killed, and how many consumers.
    pub killed: [u64; 2],
    /// How often a consumer was told that its producer died.
    pub deaths: u64,
    /// How many messages came twice, since their consumer was killed with them in hand.
    pub redelivered: u64,
    /// The longest time for which nothing came.
    pub silence: Duration,
}

/// The test's own list of what was processed: every number once, in order, but for what a killed
/// consumer had in hand.
struct Ledger {
    expected: u64,
    /// A new consumer has not processed anything yet.
    fresh: bool,
    hand: u64,
    toll: Toll,
}

impl Ledger {
    #[track_caller]
    fn enter(&mut self, number: u64) {
        if number == !0 {
            self.toll.deaths += 1;
            return;
        }
        if self.fresh {
            let again = self.expected.wrapping_sub(number);
            assert!(
                again <= self.hand,
                "{number} after all before {} were processed",
                self.expected
            );
            self.toll.redelivered += again;
            self.expected = number;
            self.fresh = false;
        }
        assert_eq!(number, self.expected, "the sequence breaks");
        self.expected += 1;
    }
}

impl Storm<'_> {
    /// Rages until all are killed that are to be; then drains the channel, and sees that nothing is
    /// missing.
    #[track_caller]
    pub fn rage(&self) -> Toll {
        let (mut tx, mut rx) = (self.producer(), self.consumer());
        let toll = Toll::default();
        let mut ledger = Ledger {
            expected: 0,
            fresh: false,
            hand: self.hand,
            toll,
        };
        let mut dice = self.seed;
        for _ in 0..self.kills {
            dice = dice
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            // The traffic flows before each kill, and whatever was killed was at work.
            for _ in 0..=(dice >> 33) % self.lull {
                let before = Instant::now();
                ledger.enter(rx.word().expect("the consumer ended by itself"));
                ledger.toll.silence = ledger.toll.silence.max(before.elapsed());
            }
            let victim = (dice >> 62) as usize & 1;
            let stops = self.stops && dice >> 61 & 1 == 1;
            ledger.toll.killed[victim] += 1;
            if victim == 0 {
                assert!(tx.is_running(), "the producer ended by itself");
                self.survived(stops.then_some(&rx), &mut tx, |tx| *tx = self.producer());
            } else {
                assert!(rx.is_running(), "the consumer ended by itself");
                self.survived(stops.then_some(&tx), &mut rx, |rx| {
                    // What it had processed before it died counts.
                    while let Some(number) = rx.word() {
                        ledger.enter(number);
                    }
                    ledger.fresh = true;
                    *rx = self.consumer();
                });
            }
        }
        for peer in [&mut tx, &mut rx] {
            assert!(peer.is_running(), "a side ended by itself");
            peer.kill();
        }
        while let Some(number) = rx.word() {
            ledger.enter(number);
        }
        // The last ones drain the ring: what was ever committed is accounted for, to the last message.
        ledger.fresh = true;
        let (mut tx, mut rx) = (self.place.seat("producer"), self.place.seat("consumer"));
        ledger.toll.committed = tx.number("next");
        tx.ok("leave producer");
        for number in rx.numbers("drain") {
            ledger.enter(number);
        }
        assert_eq!(ledger.expected, ledger.toll.committed);
        rx.refused("pop 1", "Disconnected", &["finished"]);
        ledger.toll
    }

    /// Kills the one and stops the other at the same moment: had the other stopped before, the one would
    /// be waiting for it by now, and not at work.
    fn survived(
        &self,
        survivor: Option<&Peer>,
        victim: &mut Peer,
        succeed: impl FnOnce(&mut Peer),
    ) {
        if let Some(survivor) = survivor {
            survivor.stop();
        }
        victim.kill();
        if let Some(survivor) = survivor {
            survivor.freeze();
        }
        succeed(victim);
        if let Some(survivor) = survivor {
            survivor.thaw();
        }
    }

    fn producer(&self) -> Peer {
        let mut tx = self.place.seat("producer");
        tx.ok(self.produce);
        tx
    }

    fn consumer(&self) -> Peer {
        let mut rx = self.place.seat("consumer");
        rx.ok(self.consume);
        rx
    }
}

impl std::fmt::Display for Toll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} messages; killed {} producers and {} consumers, {} deaths told, {} messages redelivered, \
             {} ms the longest silence",
            self.committed,
            self.killed[0],
            self.killed[1],
            self.deaths,
            self.redelivered,
            self.silence.as_millis(),
        )
    }
}

//! A side that is killed, with SIGKILL and in the middle of whatever it was doing, loses nothing:
//! its successor goes on where it was, and at most the messages in its hand come again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use slipring::{bytes, spsc};
use slipring_tests::message::{LARGEST, Message};
use slipring_tests::{Peer, Room, from_fds};

/// How many messages a consumer of the storm takes in hand at once.
const HAND: u64 = 6;
/// How often each storm kills.
const KILLS: u64 = 200;

/// A channel, named or passed, that outlives everybody who uses it.
struct Place {
    room: Room,
    options: &'static str,
    passed: Option<Vec<OwnedFd>>,
}

impl Place {
    fn named(options: &'static str) -> Place {
        Place {
            room: Room::new(env!("CARGO_BIN_EXE_peer")),
            options,
            passed: None,
        }
    }

    fn passed(options: &'static str) -> Place {
        let own = |passed: Vec<BorrowedFd<'_>>| {
            let own = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
            passed.iter().map(own).collect()
        };
        let passed = if options.contains("bytes") {
            let builder = bytes::Builder::new(4096).max_record(LARGEST);
            own(builder.memfd().unwrap().descriptors())
        } else {
            let builder = spsc::Builder::<Message>::new(64);
            own(builder.memfd().unwrap().descriptors())
        };
        Place {
            passed: Some(passed),
            ..Place::named(options)
        }
    }

    fn all() -> [Place; 4] {
        [
            Place::named(SPSC),
            Place::named(BYTES),
            Place::passed(SPSC),
            Place::passed(BYTES),
        ]
    }

    /// A new process that has this role.
    fn seat(&self, role: &str) -> Peer {
        let options = self.options;
        match &self.passed {
            None => {
                let mut peer = self.room.peer();
                peer.ok(&format!("{role} ticks {options}"));
                peer
            }
            Some(passed) => {
                let passed: Vec<_> = passed.iter().map(AsFd::as_fd).collect();
                let mut peer = self.room.peer_with(&passed);
                peer.ok(&format!("{} {options}", from_fds(&passed)));
                peer.ok(role);
                peer
            }
        }
    }
}

const SPSC: &str = "kind=spsc capacity=64";
const BYTES: &str = "kind=bytes capacity=4096 max=112";

/// The test's own list of what was processed: every number once, in order, but for what a killed
/// consumer had in hand.
#[derive(Default)]
struct Ledger {
    expected: u64,
    /// A new consumer has not processed anything yet.
    fresh: bool,
    redelivered: u64,
    deaths: u64,
}

impl Ledger {
    #[track_caller]
    fn enter(&mut self, number: u64) {
        if number == !0 {
            self.deaths += 1;
            return;
        }
        if self.fresh {
            let again = self.expected.wrapping_sub(number);
            assert!(
                again <= HAND,
                "{number} after all before {} were processed",
                self.expected
            );
            self.redelivered += again;
            self.expected = number;
            self.fresh = false;
        }
        assert_eq!(number, self.expected, "the sequence breaks");
        self.expected += 1;
    }
}

fn storm(place: &Place) {
    let produce = || {
        let mut tx = place.seat("producer");
        tx.ok("stream-produce");
        tx
    };
    let consume = || {
        let mut rx = place.seat("consumer");
        rx.ok(&format!("stream-consume {HAND}"));
        rx
    };
    let (mut tx, mut rx) = (produce(), consume());
    let mut ledger = Ledger::default();
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let mut killed = [0, 0];
    for _ in 0..KILLS {
        dice = dice
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        // The traffic flows before each kill, and whatever was killed was at work.
        for _ in 0..=(dice >> 33) % 300 {
            ledger.enter(rx.word().expect("the consumer ended by itself"));
        }
        let victim = (dice >> 62) as usize & 1;
        killed[victim] += 1;
        if victim == 0 {
            assert!(tx.is_running(), "the producer ended by itself");
            tx.kill();
            tx = produce();
        } else {
            assert!(rx.is_running(), "the consumer ended by itself");
            rx.kill();
            // What it had processed before it died counts.
            while let Some(number) = rx.word() {
                ledger.enter(number);
            }
            ledger.fresh = true;
            rx = consume();
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
    let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
    let committed = tx.number("next");
    tx.ok("leave producer");
    for number in rx.numbers("drain") {
        ledger.enter(number);
    }
    assert_eq!(ledger.expected, committed);
    rx.refused("pop 1", "Disconnected", &["finished"]);
    eprintln!(
        "{} {}: {committed} messages; killed {} producers and {} consumers, {} deaths told, {} \
         messages redelivered",
        if place.passed.is_some() {
            "passed"
        } else {
            "named"
        },
        place.options,
        killed[0],
        killed[1],
        ledger.deaths,
        ledger.redelivered,
    );
}

#[test]
fn a_named_spsc_channel_survives_200_kills() {
    storm(&Place::named(SPSC));
}

#[test]
fn a_named_bytes_channel_survives_200_kills() {
    storm(&Place::named(BYTES));
}

#[test]
fn a_passed_spsc_channel_survives_200_kills() {
    storm(&Place::passed(SPSC));
}

#[test]
fn a_passed_bytes_channel_survives_200_kills() {
    storm(&Place::passed(BYTES));
}

#[test]
fn consumer_killed_while_reading_resumes_at_released_head() {
    for place in Place::all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 10");
        assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
        assert_eq!(rx.numbers("hold-pop 4"), [3, 4, 5, 6]);
        rx.kill();
        let mut rx = place.seat("consumer");
        assert_eq!(rx.numbers("pop 7"), [3, 4, 5, 6, 7, 8, 9]);
        // The producer goes on with its new consumer, once round the ring and more.
        for lap in 1..20 {
            tx.ok(&format!("push {} 10", lap * 10));
            assert_eq!(
                rx.numbers("pop 10"),
                (lap * 10..lap * 10 + 10).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn producer_killed_while_writing_leaves_what_it_committed() {
    for place in Place::all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 2");
        tx.ok("hold-push 2 5");
        tx.kill();
        let mut tx = place.seat("producer");
        assert_eq!(tx.number("next"), 2);
        assert_eq!(rx.numbers("drain"), [0, 1]);
        tx.ok("push 2 3");
        assert_eq!(rx.numbers("pop 3"), [2, 3, 4]);
    }
}

#[test]
fn a_taker_killed_while_it_sits_down_or_stands_up_leaves_the_seat_free() {
    for role in ["producer", "consumer"] {
        let room = Room::new(env!("CARGO_BIN_EXE_peer"));
        let mut dice = 7_u64;
        let mut generation = 0;
        for _ in 0..60 {
            let mut peer = room.peer();
            peer.ok(&format!("occupy ticks {role}"));
            dice = dice
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            for _ in 0..(dice >> 33) % 2000 {
                std::hint::black_box(room.path().exists());
            }
            assert!(peer.is_running());
            peer.kill();
            // Neither held nor under repair: the kernel has freed both, and nobody has to wait.
            let mut peer = room.peer();
            peer.ok(&format!("{role} ticks patience=0"));
            let said = peer.ok(&format!("seat ticks {role}"));
            let now = said[1].parse::<u64>().unwrap();
            assert!(
                now > generation && said[0] == "held",
                "{said:?} after {generation}"
            );
            generation = now;
        }
    }
}

#[test]
fn producer_waiting_on_a_full_ring_outlives_its_consumer() {
    for place in Place::all() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.tell("stream-produce");
        tx.answer().unwrap();
        assert_eq!(rx.numbers("pop 1"), [0]);
        rx.kill();
        // It waits for another consumer, who finds every message there.
        let mut rx = place.seat("consumer");
        assert_eq!(rx.numbers("pop 1000"), (1..1001).collect::<Vec<_>>());
        assert!(tx.is_running());
    }
}

//! A named `broadcast` producer opens a consumer's pipe when it first notifies it. These tests
//! check a consumer's reports before that, after it, and if there is no descriptor left for it.
//! They also check a process with too few descriptors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::{Peer, Place, eventually};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
const WAITING: &str = "kind=broadcast capacity=64 consumers=63";
const OVERWRITING: &str = "kind=broadcast capacity=64 consumers=63 full=overwrite";
const LATE: [&str; 2] = [WAITING, OVERWRITING];

fn places() -> [Place; 2] {
    LATE.map(|options| Place::named(PEER, options))
}

/// Arms a consumer, which finds no message, and lets it poll without end.
fn poll(rx: &mut Peer) {
    assert_eq!(rx.ok("arm consumer"), ["armed"]);
    rx.tell("poll consumer");
}

/// This holds for any number of seats, until a consumer polls.
#[test]
fn a_resting_producer_opens_no_pipe() {
    for place in places() {
        let mut tx = place.peer();
        let before = tx.number("files");
        place.sit(&mut tx, "producer", 0);
        assert_eq!(tx.number("files") - before, 2, "{}", place.options);
        let mut consumers: Vec<Peer> = (0..3).map(|_| place.seat("consumer")).collect();
        // Blocking calls need no pipe, nor do consumers that join and leave.
        tx.ok("push 0 5");
        consumers
            .iter_mut()
            .for_each(|rx| assert_eq!(rx.numbers("pop 5"), [0, 1, 2, 3, 4]));
        assert_eq!(tx.number("files") - before, 2);
        // There is one for each that polls.
        for rx in &mut consumers[..2] {
            poll(rx);
        }
        tx.ok("push 5 1");
        for rx in &mut consumers[..2] {
            assert_eq!(rx.answer().unwrap(), ["in"]);
        }
        assert_eq!(tx.number("files") - before, 4);
    }
}

/// Before the producer has opened the pipe nothing hangs up: a check finds the death. After it the
/// kernel reports it.
#[test]
fn either_state_reports_a_death() {
    for place in places() {
        let mut rx = place.seat("consumer");
        let mut next = 0;
        for opened in [false, true, true, false, false] {
            let mut tx = place.seat("producer");
            if opened {
                poll(&mut rx);
                tx.ok(&format!("push {next} 1"));
                assert_eq!(rx.answer().unwrap(), ["in"]);
                assert_eq!(rx.numbers("pop 1"), [next]);
                next += 1;
            }
            poll(&mut rx);
            tx.kill();
            let told = rx.answer().unwrap();
            if opened || next == 0 {
                // Later on the consumer asked the producer at its arrival, which has opened the
                // pipe then.
                let expected = if opened { "hup" } else { "in" };
                assert_eq!(told, [expected], "{}", place.options);
            }
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
            // It was reported once.
            rx.ok("rest consumer");
        }
    }
}

/// A successor is noticed before and after the producer has opened the pipe. The byte of a new
/// successor, or of its first message, reaches a consumer that waits for one.
#[test]
fn successors_are_noticed_in_either_state() {
    for place in places() {
        let mut rx = place.seat("consumer");
        for opened in [false, true] {
            rx.ok("rest consumer");
            rx.tell("poll consumer");
            let mut tx = place.seat("producer");
            assert_eq!(rx.answer().unwrap(), ["in"]);
            let next = tx.number("next");
            if opened {
                rx.tell(&format!("poll-pop {next} 3"));
                tx.ok(&format!("push {next} 3"));
                rx.answer().unwrap();
            }
            tx.kill();
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
        }
    }
}

/// The producer takes the bit, opens the pipe, and is killed where it would write. Then a successor
/// takes the seat, which does not notify unasked. A consumer that slept through all of that learns
/// of it.
#[test]
fn a_killed_waker_loses_no_wake() {
    for place in places() {
        for opened in [false, true] {
            for frozen in [false, true] {
                let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
                let mut next = tx.number("next");
                rx.ok("drain");
                if opened {
                    poll(&mut rx);
                    tx.ok(&format!("push {next} 1"));
                    assert_eq!(rx.answer().unwrap(), ["in"]);
                    rx.ok("pop 1");
                    next += 1;
                }
                poll(&mut rx);
                if frozen {
                    rx.freeze();
                }
                tx.ok("trap-rings");
                tx.tell(&format!("try-push {next}"));
                eventually("the producer dies", || !tx.is_running());
                let _successor = frozen.then(|| place.seat("producer"));
                if frozen {
                    rx.thaw();
                }
                let told = rx.answer().unwrap();
                assert!(told == ["in"] || told == ["hup"], "{told:?}");
                assert_eq!(rx.numbers("pop 1"), [next], "{}", place.options);
            }
        }
    }
}

/// A producer that may open no descriptors loses no wake. The producer takes the bit and writes no
/// byte: the consumer looks for the message, and finds it.
#[test]
fn producer_without_descriptors_loses_no_wake() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("room-for-files 0");
        for number in 0..5 {
            poll(&mut rx);
            tx.ok(&format!("push {number} 1"));
            assert_eq!(rx.answer().unwrap(), ["in"], "{}", place.options);
            assert_eq!(rx.numbers("pop 1"), [number]);
        }
        // Its death is reported as that of any producer that has opened nothing.
        poll(&mut rx);
        tx.kill();
        assert_eq!(rx.answer().unwrap(), ["in"]);
        assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
    }
}

/// A long blocking call learns of messages and deaths too. A blocking call has waited for a second,
/// and gone over to a pipe that nobody has opened.
#[test]
fn a_long_blocking_call_finds_out() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        for number in 0..2 {
            rx.tell("pop 1");
            rx.until_overdue();
            tx.ok(&format!("push {number} 1"));
            assert_eq!(rx.answer().unwrap(), [number.to_string()]);
        }
        drop(tx);
        rx.refused("pop 1", "Disconnected", &["died"]);
        let mut tx = place.seat("producer");
        rx.tell("pop 1");
        rx.until_overdue();
        tx.kill();
        rx.answer().unwrap_err().is("Disconnected", &["died"]);
    }
}

/// A child's copy of a pipe that was opened late is closed as well, and a child opens none.
#[test]
fn a_forked_child_hides_no_death() {
    for place in places() {
        for how in ["fork-linger", "exec-linger"] {
            let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
            let next = tx.number("next");
            tx.ok(how);
            rx.ok("drain");
            poll(&mut rx);
            tx.ok(&format!("push {next} 1"));
            assert_eq!(rx.answer().unwrap(), ["in"]);
            rx.ok("pop 1");
            tx.ok(how);
            rx.ok(how);
            poll(&mut rx);
            tx.kill();
            assert_eq!(rx.answer().unwrap(), ["hup"], "{how}, {}", place.options);
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
            rx.ok("leave consumer");
        }
    }
}

/// Allows a fixed number of descriptors, from none to enough. Each refusal names the limit, closes
/// the descriptors that it had opened, and costs no message.
#[test]
fn too_few_descriptors_lose_nothing() {
    let kinds = ["kind=spsc capacity=64", "kind=bytes capacity=4096 max=112"];
    for options in kinds.into_iter().chain(LATE) {
        let place = Place::named(PEER, options);
        let mut tx = place.seat("producer");
        let mut refusals = 0;
        for more in 0.. {
            assert!(more < 20, "it is never enough");
            let mut rx = place.peer();
            let before = rx.number("files");
            rx.ok(&format!("room-for-files {more}"));
            if let Err(refusal) = place.try_sit(&mut rx, "consumer", 0) {
                refusal.is("TooManyFiles", &["ulimit -n", "RLIMIT_NOFILE"]);
                if more > 0 {
                    assert_eq!(rx.number("files"), before, "{options}, {more}");
                }
                refusals += 1;
                continue;
            }
            let next = tx.number("next");
            rx.ok("drain");
            let armed = rx.ask("arm consumer");
            if let Err(refusal) = &armed {
                refusal.is("TooManyFiles", &["ulimit -n", "RLIMIT_NOFILE"]);
                refusals += 1;
            } else {
                rx.tell("poll consumer");
            }
            tx.ok(&format!("push {next} 1"));
            if armed.is_ok() {
                assert_eq!(rx.answer().unwrap(), ["in"], "{options}, {more}");
            }
            assert_eq!(rx.numbers("pop 1"), [next], "{options}, {more}");
            if armed.is_ok() {
                break;
            }
        }
        assert!(refusals > 3, "{options}: {refusals}");
    }
}

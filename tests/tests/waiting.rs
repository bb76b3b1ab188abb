//! Sleepers in other processes: woken whatever barriers they and their publishers have, through stops,
//! kills and restarts. Where nothing else is said a sleep has no end but the wake (an hour), so that a
//! lost one is a test that does not end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::{Peer, Room, eventually};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// Every kind of channel: of one message (or record of the largest size) where it can be.
const KINDS: [&str; 4] = [
    "kind=u64 capacity=1",
    "kind=bytes capacity=128 max=112",
    "kind=broadcast capacity=1 consumers=2",
    "kind=broadcast capacity=64 consumers=2 full=overwrite",
];

/// How often each answerer asks to be woken, and is: of four kinds, in five pairs of variants, a million
/// times.
const WAKES: u64 = 50_000;

/// Milliseconds, for sleeps without an end but the wake.
const NEVER: u64 = 3_600_000;

/// Has one peer pass a message to another and back, `wakes` times. The asker polls for a while before it
/// sleeps, the answerer sleeps at once.
fn begin(peers: [&mut Peer; 2], options: &str, check: u64, wakes: u64) {
    let [asker, answerer] = peers;
    answerer.tell(&format!("answer {options} check={check} wait=sleep"));
    assert_eq!(answerer.answer().unwrap(), ["more"]);
    asker.tell(&format!("ask {wakes} {options} check={check}"));
    assert_eq!(asker.answer().unwrap(), ["more"]);
}

/// Lets two peers that were told this before pass one message to and fro; nothing else is in flight.
fn bounce(asker_is: &[&str], answerer_is: &[&str]) {
    for options in KINDS {
        let room = room();
        let [mut asker, mut answerer] = [asker_is, answerer_is].map(|lines| {
            let mut peer = room.peer();
            lines.iter().for_each(|line| drop(peer.ok(line)));
            peer
        });
        begin([&mut asker, &mut answerer], options, NEVER, WAKES);
        until_done(&mut asker);
        answerer.answer().unwrap();
    }
}

/// Waits for the asker, which says now and then that there is more to come: on a busy machine all of it
/// may take longer than anything that must happen may take.
fn until_done(asker: &mut Peer) {
    while asker.answer().unwrap() == ["more"] {}
}

#[test]
fn no_wake_is_lost_with_barriers() {
    bounce(&[], &[]);
}

#[test]
fn no_wake_is_lost_without_barriers() {
    bounce(&["fenced"], &["fenced"]);
}

#[test]
fn no_wake_is_lost_between_one_with_barriers_and_one_without() {
    bounce(&["fenced"], &[]);
}

/// Refused from the start: the process is not registered, so its publishes fence, and its sleeps tell
/// the other side to.
#[test]
fn a_sandbox_without_membarrier_chooses_fences_by_itself() {
    bounce(&["sandbox"], &[]);
}

/// Refused after the process has registered: its publishes do not fence, and its sleeper finds out when
/// it would sleep.
#[test]
fn a_sandbox_that_comes_later_does_too() {
    let later = ["producer warm-up kind=u64", "leave producer", "sandbox"];
    bounce(&later, &later);
}

#[test]
fn stops_of_either_side_lose_no_wake() {
    for options in KINDS {
        let room = room();
        let (mut a, mut b) = (room.peer(), room.peer());
        begin([&mut a, &mut b], options, NEVER, 10_000);
        for turn in 0..20 {
            let stopped = if turn % 2 == 0 { &a } else { &b };
            stopped.freeze();
            stopped.thaw();
        }
        until_done(&mut a);
        b.answer().unwrap();
    }
}

/// The bit that a killed sleeper left is cleared by whoever comes next, who sleeps in its place.
#[test]
fn a_sleeper_that_is_killed_is_followed_by_one_that_is_woken() {
    let room = room();
    let mut tx = room.peer();
    tx.ok("producer there kind=u64 capacity=1");
    for number in 0..20 {
        let mut rx = room.peer();
        rx.tell("sleep-pop");
        eventually("it sleeps", || asleep(&room));
        rx.kill();
        let mut rx = room.peer();
        rx.tell("sleep-pop");
        eventually("the next one sleeps", || asleep(&room));
        tx.ok(&format!("push {number} 1"));
        assert_eq!(rx.answer().unwrap(), [number.to_string()]);
    }
}

/// Whether the consumer's bit is set: the waiters word of the second bell, as FORMAT.md says.
fn asleep(room: &Room) -> bool {
    let control = std::fs::read(room.file("there", "control")).unwrap();
    u64::from_le_bytes(control[640..648].try_into().unwrap()) & 1 != 0
}

/// A consumer that sleeps for ever learns at once that its producer finished, and that another came.
#[test]
fn who_leaves_and_who_comes_wakes_the_other() {
    let room = room();
    let mut tx = room.peer();
    tx.ok("producer there kind=u64 capacity=1");
    let mut rx = room.peer();
    rx.tell("sleep-pop");
    eventually("it sleeps", || asleep(&room));
    tx.ok("leave producer");
    assert_eq!(rx.answer().unwrap_err().debug, "Disconnected(Finished)");
}

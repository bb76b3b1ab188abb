//! Sleepers in other processes: woken whatever barriers they and their publishers have, through stops,
//! kills and restarts. Where nothing else is said a sleep has no end but the wake (an hour), so that a
//! lost one is a test that does not end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::{Peer, Room};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// How often each answerer asks to be woken, and is: in five pairs of variants a million times.
const WAKES: u64 = 200_000;

/// Lets `asker` and `answerer` pass one message to and fro; nothing else is in flight.
fn bounce(asker: &mut Peer, answerer: &mut Peer) {
    answerer.tell("answer");
    asker.tell(&format!("ask {WAKES}"));
    until_done(asker);
    answerer.answer().unwrap();
}

/// Waits for the asker, which says now and then that there is more to come: on a busy machine all of it
/// may take longer than anything that must happen may take.
fn until_done(asker: &mut Peer) {
    while asker.answer().unwrap() == ["more"] {}
}

#[test]
fn no_wake_is_lost_with_barriers() {
    let room = room();
    bounce(&mut room.peer(), &mut room.peer());
}

#[test]
fn no_wake_is_lost_without_barriers() {
    let room = room();
    let (mut a, mut b) = (room.peer(), room.peer());
    a.ok("fenced");
    b.ok("fenced");
    bounce(&mut a, &mut b);
}

#[test]
fn no_wake_is_lost_between_one_with_barriers_and_one_without() {
    let room = room();
    let (mut a, mut b) = (room.peer(), room.peer());
    a.ok("fenced");
    bounce(&mut a, &mut b);
}

/// Refused from the start: the process is not registered, so its publishes fence, and its sleeps tell
/// the other side to.
#[test]
fn a_sandbox_without_membarrier_chooses_fences_by_itself() {
    let room = room();
    let (mut a, mut b) = (room.peer(), room.peer());
    a.ok("sandbox");
    bounce(&mut a, &mut b);
}

/// Refused after the process has registered: its publishes do not fence, and its sleeper finds out when
/// it would sleep.
#[test]
fn a_sandbox_that_comes_later_does_too() {
    let room = room();
    let (mut a, mut b) = (room.peer(), room.peer());
    for peer in [&mut a, &mut b] {
        peer.ok("producer warm-up kind=u64 capacity=64");
        peer.ok("leave producer");
        peer.ok("sandbox");
    }
    bounce(&mut a, &mut b);
}

#[test]
fn stops_of_either_side_lose_no_wake() {
    let room = room();
    let (mut a, mut b) = (room.peer(), room.peer());
    b.tell("answer");
    a.tell("ask 20000");
    for turn in 0..40 {
        let stopped = if turn % 2 == 0 { &a } else { &b };
        stopped.freeze();
        stopped.thaw();
    }
    until_done(&mut a);
    b.answer().unwrap();
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
        slipring_tests::eventually("it sleeps", || asleep(&room));
        rx.kill();
        let mut rx = room.peer();
        rx.tell("sleep-pop");
        slipring_tests::eventually("the next one sleeps", || asleep(&room));
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
    slipring_tests::eventually("it sleeps", || asleep(&room));
    tx.ok("leave producer");
    assert_eq!(rx.answer().unwrap_err().debug, "Disconnected(Finished)");
}

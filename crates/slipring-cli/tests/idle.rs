//! `send`, `recv` and `work` sleep while there is nothing to do: under one per cent of a processor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use common::{Place, Running, noise, until};

/// The sleeps and the processor time of a process so far.
#[derive(Clone, Copy)]
struct Done {
    at: Instant,
    /// The number of times that it went to sleep of its own accord.
    sleeps: u64,
    /// Its time on a processor, for itself and in the kernel.
    worked: Duration,
}

impl Done {
    fn by(process: &Running) -> Done {
        let file = |name: &str| {
            fs::read_to_string(format!("/proc/{}/{name}", process.0.id())).expect("a live process")
        };
        let status = file("status");
        let sleeps = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        // This file has nanoseconds, where `stat` has hundredths of a second.
        let worked = file("schedstat");
        let worked = worked.split(' ').next().unwrap().parse().unwrap();
        Done {
            at: Instant::now(),
            sleeps: sleeps.unwrap().trim().parse().unwrap(),
            worked: Duration::from_nanos(worked),
        }
    }
}

/// Watches a process for two seconds in which it has nothing to do. It must wake at most as often
/// as its bounds say (20 ms for the other end's death, 100 ms for signals), however busy the
/// machine is. It must use less than a hundredth of the time.
fn rests(who: &str, process: &Running) {
    let before = Done::by(process);
    std::thread::sleep(Duration::from_secs(2));
    let after = Done::by(process);
    let (time, sleeps) = (after.at - before.at, after.sleeps - before.sleeps);
    let worked = after.worked - before.worked;
    let allowed = time.as_millis() as u64 * (50 + 20) / 1000 + 5;
    assert!(sleeps > 0, "{who} never slept");
    assert!(sleeps <= allowed, "{who} woke {sleeps} times in {time:?}");
    assert!(worked < time / 100, "{who} worked {worked:?} in {time:?}");
}

/// A worker rests while a feeder has no items for it, and so does the feeder.
#[test]
fn a_worker_without_items_rests() {
    let place = Place::new();
    let send = place.send_open(&["x", "--queue", "--lines"]);
    let work = Running::start(&mut place.command(&["work", "x", "--", "true"]));
    until("both are there", || {
        place.stat("x").is_some_and(|stat| {
            let held = |side: &str| stat[side][0]["state"] == "held";
            held("producers") && held("consumers")
        })
    });
    rests("the worker", &work);
    rests("the feeder", &send);
}

#[test]
fn a_receiver_without_a_sender_rests() {
    let place = Place::new();
    let recv = place.recv_piped(&["x"]);
    place.until_seat("x", "consumer", "held", 1);
    asleep(&place, "consumer");
    rests("recv", &recv);
}

#[test]
fn both_rest_between_messages() {
    let place = Place::new();
    let mut send = place.send_open(&["x"]);
    let recv = place.recv(&["x"], &place.file("copy"));
    send.0.stdin.as_mut().unwrap().write_all(b"word").unwrap();
    place.until_messages("x", "consumer", 1);
    asleep(&place, "consumer");
    std::thread::scope(|scope| {
        scope.spawn(|| rests("send", &send));
        rests("recv", &recv);
    });
}

#[test]
fn a_sender_without_room_rests() {
    let place = Place::new();
    let input = place.file("input");
    fs::write(&input, noise(1 << 20, 8)).unwrap();
    let send = place.send(&["x"], &input);
    until("the channel is full", || {
        place
            .stat("x")
            .is_some_and(|stat| stat["len"].as_u64() > Some(400 << 10))
    });
    asleep(&place, "producer");
    rests("send", &send);
}

/// Waits until the holder of a seat has begun to sleep.
fn asleep(place: &Place, role: &str) {
    until(&format!("the {role} sleeps"), || {
        place
            .stat("x")
            .is_some_and(|stat| stat[role]["parks"].as_u64() > Some(0))
    });
}

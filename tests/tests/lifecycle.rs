//! Checks which process may take which seat, in which order, and what each learns of the other's
//! end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::place::{is_broadcast, overwrites};
use slipring_tests::{Peer, Room, eventually, kinds};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

const KINDS: [&str; 4] = kinds!("");

/// Gives the story a room, and for each kind a channel name with its options.
fn each_kind(mut story: impl FnMut(&Room, &str)) {
    for kind in KINDS {
        story(&room(), kind);
    }
}

/// Does the same for the kinds whose consumers all go on where the last one was: untaken messages
/// wait, and so does the producer. (In `broadcast` each consumer has its own place, and begins
/// anew.)
fn each_queue(mut story: impl FnMut(&Room, &str)) {
    each_kind(|room, kind| {
        if !is_broadcast(kind) {
            story(room, kind);
        }
    });
}

/// Starts a process with this role of the channel `ticks`.
fn seat(room: &Room, role: &str, kind: &str) -> Peer {
    let mut peer = room.peer();
    peer.ok(&format!("{role} ticks {kind}"));
    peer
}

/// Returns state, generation, process id, position and messages of a seat, as anybody sees it.
fn look(room: &Room, role: &str) -> (String, [u64; 5]) {
    let words = room.peer().ok(&format!("seat ticks {role}"));
    let figures = std::array::from_fn(|i| words[i + 1].parse().unwrap());
    (words[0].clone(), figures)
}

#[test]
fn either_side_may_come_first() {
    each_kind(|room, kind| {
        for (first, second) in [("producer", "consumer"), ("consumer", "producer")] {
            let mut one = seat(room, first, kind);
            let mut two = seat(room, second, kind);
            let (tx, rx) = if first == "producer" {
                (&mut one, &mut two)
            } else {
                (&mut two, &mut one)
            };
            tx.ok("push 0 20");
            assert_eq!(rx.numbers("pop 20"), (0..20).collect::<Vec<_>>());
            one.kill();
            two.kill();
            room.peer().ok("remove ticks");
        }
    });
}

/// A consumer waits for its first producer, and a producer for its first consumer.
#[test]
fn either_side_waits_for_its_peer() {
    each_kind(|room, kind| {
        let mut rx = seat(room, "consumer", kind);
        rx.refused("try-pop", "Empty", &["empty"]);
        rx.refused("pop 1 timeout=20", "TimedOut", &["empty"]);
        rx.refused("wait-for producer 20", "TimedOut", &[]);
        assert_eq!(rx.ok("disconnected consumer"), ["true"]);
        // The consumer is blocked before the producer exists.
        rx.tell("pop 2");
        let mut tx = seat(room, "producer", kind);
        tx.ok("wait-for consumer 60000");
        assert_eq!(tx.ok("disconnected producer"), ["false"]);
        tx.ok("push 0 2");
        assert_eq!(rx.answer().unwrap(), ["0", "1"]);
        rx.ok("wait-for producer 60000");
        assert_eq!(rx.ok("disconnected consumer"), ["false"]);
    });
    each_kind(|room, kind| {
        let mut tx = seat(room, "producer", kind);
        assert_eq!(tx.ok("disconnected producer"), ["true"]);
        tx.refused("wait-for consumer 20", "TimedOut", &[]);
        tx.tell("push 0 500");
        if is_broadcast(kind) {
            // The producer does not wait for an empty seat; a new consumer finds most of a ring.
            tx.answer().unwrap();
            let found = seat(room, "consumer", kind).numbers("drain");
            assert!((48..=64).contains(&found.len()), "{found:?}");
            assert_eq!(found, (500 - found.len() as u64..500).collect::<Vec<_>>());
            return;
        }
        // This is more than the ring holds: the producer is blocked, without an error, before the
        // consumer exists.
        let mut rx = seat(room, "consumer", kind);
        assert_eq!(rx.numbers("pop 500"), (0..500).collect::<Vec<_>>());
        tx.answer().unwrap();
    });
}

/// A second attempt to take a role is refused, and the first holder is not disturbed.
#[test]
fn a_taken_role_is_refused() {
    each_kind(|room, kind| {
        let (mut tx, mut rx) = (seat(room, "producer", kind), seat(room, "consumer", kind));
        tx.ok("push 0 10");
        assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
        let before = room.contents();
        for (peer, role) in [(&tx, "producer"), (&rx, "consumer")] {
            let holder = format!("process {}", peer.pid());
            let (error, words) = ("RoleTaken", [role, "taken", &holder, "one at a time"]);
            // It tries from another process, by name and by a channel that is open already.
            let mut other = room.peer();
            other.refused(&format!("{role} ticks {kind}"), error, &words);
            other.ok(&format!("open ticks {kind}"));
            other.refused(role, error, &words);
        }
        // It tries from the same process.
        tx.refused(
            &format!("producer ticks {kind}"),
            "RoleTaken",
            &["producer"],
        );
        let line = format!("consumer ticks {kind}");
        rx.refused(&line, "RoleTaken", &["consumer"]);
        before.are_those_of(room, "a refused taker wrote something");
        // Both go on as if nothing had happened.
        assert_eq!(rx.numbers("pop 7"), [3, 4, 5, 6, 7, 8, 9]);
        tx.ok("push 10 5");
        assert_eq!(rx.numbers("pop 5"), [10, 11, 12, 13, 14]);
        assert_eq!(look(room, "producer").1[0], 1, "still the first generation");
        assert_eq!(look(room, "consumer").1[0], 1, "still the first generation");
    });
}

/// A role that its holder left is free at once.
#[test]
fn a_left_role_is_free() {
    each_kind(|room, kind| {
        let mut peer = room.peer();
        peer.ok(&format!("create ticks {kind}"));
        for round in 0..20 {
            peer.ok("producer");
            assert_eq!(peer.number("next"), round);
            peer.ok(&format!("push {round} 1"));
            let how = ["leave producer", "abort producer", "panic producer"][round as usize % 3];
            peer.ok(how);
            peer.ok("consumer");
            // The oldest message in the channel is the last one, or the first.
            let first = if is_broadcast(kind) { 0 } else { round };
            assert_eq!(peer.numbers("drain"), (first..=round).collect::<Vec<_>>());
            peer.ok(["leave consumer", "panic consumer", "abort consumer"][round as usize % 3]);
        }
        assert_eq!(look(room, "producer").1[0], 20);
    });
}

/// A new consumer resumes where the last one released.
#[test]
fn a_new_consumer_resumes() {
    each_queue(|room, kind| {
        let mut tx = seat(room, "producer", kind);
        tx.ok("push 0 12");
        let mut at = 0;
        for how in ["leave", "abort", "panic", "kill"] {
            let mut rx = seat(room, "consumer", kind);
            assert_eq!(rx.numbers("pop 3"), [at, at + 1, at + 2]);
            at += 3;
            if how == "kill" {
                rx.kill();
            } else {
                rx.ok(&format!("{how} consumer"));
            }
        }
        // A consumer that was never there during a push finds all queued messages.
        tx.ok("push 12 5");
        let mut rx = seat(room, "consumer", kind);
        assert_eq!(rx.numbers("drain"), [12, 13, 14, 15, 16]);
    });
}

/// A second producer goes on where the first ended.
#[test]
fn a_new_producer_goes_on() {
    each_kind(|room, kind| {
        let mut rx = seat(room, "consumer", kind);
        for how in ["leave", "abort", "panic", "kill"] {
            let mut tx = seat(room, "producer", kind);
            let next = tx.number("next");
            tx.ok(&format!("push {next} 7"));
            assert_eq!(rx.number("pop 1"), next);
            if how == "kill" {
                tx.kill();
            } else {
                tx.ok(&format!("{how} producer"));
            }
            // The rest comes first, then the way it ended.
            let rest = (next + 1..next + 7).collect::<Vec<_>>();
            assert_eq!(rx.numbers("pop 6"), rest);
            let told = match how {
                "leave" => "finished",
                "kill" => "died",
                _ => "aborted",
            };
            rx.refused("pop 1", "Disconnected", &[told, "the peer is gone"]);
        }
        assert_eq!(look(room, "producer").1[0], 4);
    });
}

/// A finished producer is reported until a consumer has acknowledged it, and never again.
#[test]
fn an_end_is_reported_until_acknowledged() {
    each_queue(|room, kind| {
        let mut tx = seat(room, "producer", kind);
        tx.ok("push 0 3");
        tx.ok("leave producer");
        // A consumer that did not reach the end leaves the report to the next.
        let mut rx = seat(room, "consumer", kind);
        assert_eq!(rx.numbers("pop 2"), [0, 1]);
        rx.ok("leave consumer");
        // A consumer that was killed just as it got the report has not acknowledged it.
        let mut rx = seat(room, "consumer", kind);
        assert_eq!(rx.number("pop 1"), 2);
        rx.refused("pop 1", "Disconnected", &["finished"]);
        rx.kill();
        // This one gets the report, and acknowledges it by leaving.
        let mut rx = seat(room, "consumer", kind);
        rx.refused("pop 1", "Disconnected", &["finished"]);
        rx.ok("leave consumer");
        // This one does not get the report again: it waits for the next producer.
        let mut rx = seat(room, "consumer", kind);
        rx.refused("try-pop", "Empty", &[]);
        rx.refused("pop 1 timeout=50", "TimedOut", &[]);
        rx.tell("pop 1");
        let mut tx = seat(room, "producer", kind);
        tx.ok("push 3 1");
        assert_eq!(rx.answer().unwrap(), ["3"]);
        // The next end is reported again, and acknowledged by asking again.
        tx.ok("leave producer");
        rx.refused("pop 1", "Disconnected", &["finished"]);
        rx.refused("pop 1 timeout=50", "Disconnected", &["finished"]);
        rx.kill();
        let mut rx = seat(room, "consumer", kind);
        rx.refused("pop 1 timeout=50", "TimedOut", &[]);
    });
}

/// A producer's end is reported even if the next producer has taken the role already.
#[test]
fn a_new_producer_hides_no_end() {
    each_kind(|room, kind| {
        let mut tx = seat(room, "producer", kind);
        tx.ok("push 0 2");
        tx.ok("leave producer");
        let mut next = seat(room, "producer", kind);
        let mut rx = seat(room, "consumer", kind);
        assert_eq!(rx.numbers("pop 2"), [0, 1]);
        rx.refused("pop 1", "Disconnected", &["finished"]);
        rx.ok("wait-for producer 60000");
        next.ok("push 2 2");
        assert_eq!(rx.numbers("pop 2"), [2, 3]);
        next.ok("leave producer");
        rx.refused("pop 1", "Disconnected", &["finished"]);
    });
}

/// A killed producer is seen as died, and so is a killed consumer.
#[test]
fn killed_peers_are_seen_as_died() {
    each_kind(|room, kind| {
        let (mut tx, mut rx) = (seat(room, "producer", kind), seat(room, "consumer", kind));
        tx.ok("push 0 4");
        // The consumer is blocked while the producer is alive, and gets the report when it is not.
        assert_eq!(rx.numbers("pop 4"), [0, 1, 2, 3]);
        rx.tell("pop 1");
        tx.kill();
        rx.answer().unwrap_err().is("Disconnected", &["died"]);
        assert_eq!(look(room, "producer").0, "died");
        assert_eq!(rx.ok("disconnected consumer"), ["true"]);

        let mut tx = seat(room, "producer", kind);
        rx.ok("wait-for producer 60000");
        if is_broadcast(kind) {
            // Nobody learns of its death: it is no longer waited for.
            rx.kill();
            assert_eq!(look(room, "consumer").0, "died");
            assert_eq!(tx.ok("disconnected producer"), ["true"]);
            tx.ok("push 4 1000");
            return;
        }
        tx.tell("push 4 1000");
        assert_eq!(rx.number("pop 1"), 4);
        rx.kill();
        tx.answer().unwrap_err().is("Disconnected", &["died"]);
        assert_eq!(look(room, "consumer").0, "died");
        // Messages for which there is room may still be written, and none of them is lost.
        let queued = tx.number("next");
        let mut rx = seat(room, "consumer", kind);
        tx.ok("wait-for consumer 60000");
        assert_eq!(rx.numbers("drain"), (5..queued).collect::<Vec<_>>());
    });
}

/// A producer finds out how its consumer left once the ring is full.
#[test]
fn a_consumers_end_reaches_the_producer() {
    each_queue(|room, kind| {
        let mut tx = seat(room, "producer", kind);
        for (how, told) in [
            ("leave", "finished"),
            ("abort", "aborted"),
            ("panic", "aborted"),
        ] {
            let mut rx = seat(room, "consumer", kind);
            tx.ok("wait-for consumer 60000");
            rx.ok(&format!("{how} consumer"));
            let next = tx.number("next");
            tx.refused(&format!("push {next} 1000"), "Disconnected", &[told]);
            let queued = tx.number("next");
            let mut rx = seat(room, "consumer", kind);
            assert_eq!(rx.numbers("drain").last(), Some(&(queued - 1)));
        }
    });
}

#[test]
fn a_stopped_process_is_alive() {
    each_kind(|room, kind| {
        let (mut tx, mut rx) = (seat(room, "producer", kind), seat(room, "consumer", kind));
        tx.ok("push 0 1");
        assert_eq!(rx.number("pop 1"), 0);
        tx.freeze();
        rx.refused("pop 1 timeout=100", "TimedOut", &[]);
        assert_eq!(rx.ok("disconnected consumer"), ["false"]);
        assert_eq!(look(room, "producer").0, "held");
        let mut other = room.peer();
        other.refused(
            &format!("producer ticks {kind}"),
            "RoleTaken",
            &["producer"],
        );
        other.refused(
            "remove ticks",
            "InUse",
            &["ticks", "producer", "stop it first"],
        );
        tx.thaw();
        tx.ok("push 1 1");
        assert_eq!(rx.number("pop 1"), 1);

        rx.freeze();
        if overwrites(kind) {
            tx.ok("push 2 40");
        } else {
            tx.refused("push 2 1000 timeout=100", "TimedOut", &["full"]);
        }
        assert_eq!(tx.ok("disconnected producer"), ["false"]);
        let line = format!("consumer ticks {kind}");
        other.refused(&line, "RoleTaken", &["consumer"]);
        let queued = tx.number("next");
        rx.thaw();
        assert_eq!(rx.numbers("drain"), (2..queued).collect::<Vec<_>>());
    });
}

#[test]
fn the_heartbeat_figure_moves() {
    each_kind(|room, kind| {
        let (mut tx, mut rx) = (seat(room, "producer", kind), seat(room, "consumer", kind));
        for (peer, role) in [(&mut tx, "producer"), (&mut rx, "consumer")] {
            let age = || look(room, role).1[4];
            // The age grows while the holder is silent, and falls at its next heartbeat.
            let old = age();
            eventually("the age grows", || age() > old + 5_000_000);
            let before = age();
            peer.ok(&format!("heartbeat {role}"));
            eventually("a younger sign of life", || {
                peer.ok(&format!("heartbeat {role}"));
                age() < before
            });
            assert_eq!(
                look(room, role).1[1],
                u64::from(peer.pid()),
                "the holder's process id"
            );
        }
        // A waiting call updates its heartbeat by itself: between two looks the figure falls.
        rx.tell("pop 1");
        let mut last = look(room, "consumer").1[4];
        eventually("a waiting call gives signs of life", || {
            let now = look(room, "consumer").1[4];
            std::mem::replace(&mut last, now) > now
        });
        tx.ok("push 0 1");
        assert_eq!(rx.answer().unwrap(), ["0"]);
    });
}

/// The figures of a role are what happened.
#[test]
fn role_figures_match_what_happened() {
    each_kind(|room, kind| {
        let (mut tx, mut rx) = (seat(room, "producer", kind), seat(room, "consumer", kind));
        tx.ok("push 0 9");
        rx.numbers("pop 4");
        let (state, [generation, pid, position, messages, _]) = look(room, "producer");
        assert_eq!((state.as_str(), generation, messages), ("held", 1, 9));
        assert_eq!(
            (pid, position),
            (u64::from(tx.pid()), tx.number("position producer"))
        );
        let (state, [generation, pid, position, messages, _]) = look(room, "consumer");
        assert_eq!((state.as_str(), generation, messages), ("held", 1, 4));
        assert_eq!(
            (pid, position),
            (u64::from(rx.pid()), rx.number("position consumer"))
        );
        let queued = rx.number("len consumer");
        // A producer that overwrites waits for nobody.
        let held = if overwrites(kind) { 0 } else { queued };
        assert_eq!(tx.number("len producer"), held);
        // A message stays until it is overwritten, even if consumers have had it.
        let there = if overwrites(kind) { 9 } else { queued };
        assert_eq!(room.peer().ok("stat ticks")[1], there.to_string());
        tx.ok("leave producer");
        rx.ok("abort consumer");
        assert_eq!(look(room, "producer").0, "finished");
        assert_eq!(look(room, "consumer").0, "aborted");
    });
}

/// A role under repair is reported as recovering, and nobody can take it.
#[test]
fn nobody_takes_a_role_under_repair() {
    each_kind(|room, kind| {
        let mut owner = room.peer();
        owner.ok(&format!("create ticks {kind}"));
        for (seat, role) in [(0, "producer"), (1, "consumer")] {
            let control = room.file("ticks", "control");
            let lock = format!("lock {} {}", control.display(), 1024 + seat * 128 + 1);
            let mut repairer = room.peer();
            let mut taker = room.peer();
            repairer.ok(&lock);
            let words = [role, "under repair", "try again"];
            taker.refused(
                &format!("{role} ticks {kind} patience=30"),
                "Recovering",
                &words,
            );
            taker.refused(
                &format!("{role} ticks {kind} patience=0"),
                "Recovering",
                &words,
            );
            // The same holds while somebody repairs the seat: nobody knows the repair's result
            // before its end.
            repairer.ok("unlock");
            owner.ok(role);
            repairer.ok(&lock);
            taker.refused(
                &format!("{role} ticks {kind} patience=30"),
                "Recovering",
                &words,
            );
            repairer.ok("unlock");
            taker.refused(&format!("{role} ticks {kind}"), "RoleTaken", &[role]);
            owner.ok(&format!("leave {role}"));
            // A patient taker gets the seat when the repair is over, or the repairer dead.
            repairer.ok(&lock);
            taker.tell(&format!("{role} ticks {kind} patience=60000"));
            repairer.kill();
            taker.answer().unwrap();
        }
    });
}

/// A channel in use cannot be removed, and an idle one can.
#[test]
fn only_idle_channels_can_be_removed() {
    each_kind(|room, kind| {
        let mut tx = seat(room, "producer", kind);
        let mut other = room.peer();
        let holder = format!("process {}", tx.pid());
        let words = ["ticks", "producer", &holder, "stop it first"];
        other.refused("remove ticks", "InUse", &words);
        tx.ok("push 0 1");
        tx.ok("leave producer");
        other.ok("remove ticks");
        assert_eq!(room.names(), Vec::<String>::new());
        other.refused("remove ticks", "NotFound", &["ticks", "create it first"]);
        // A process that has the removed channel open gets an error, and no seat in it.
        other.ok(&format!("create ticks {kind}"));
        let mut stale = room.peer();
        stale.ok(&format!("open ticks {kind}"));
        other.ok("remove");
        stale.refused("producer", "NotFound", &["ticks"]);
        other.ok(&format!("create ticks {kind}"));
        stale.refused("producer", "NotFound", &["ticks"]);
        // Nor may it remove the channel that has the name now.
        stale.refused("remove", "NotFound", &["ticks"]);
        assert_eq!(other.ok("list"), ["ticks"]);
        // By name a process comes to the new channel.
        stale.ok(&format!("producer ticks {kind}"));
        stale.ok("push 0 1");
        other.ok("consumer");
        assert_eq!(other.number("pop 1"), 0);
    });
}

/// A role can be taken only in the channel that has the name now.
#[test]
fn a_renamed_channel_gives_no_role() {
    each_kind(|room, kind| {
        let mut stale = room.peer();
        stale.ok(&format!("create ticks {kind}"));
        // Its files are all there, and lockable; only the name leads elsewhere, or nowhere.
        let moved = room.path().join("moved");
        std::fs::rename(room.path().join("ticks"), &moved).unwrap();
        for role in ["producer", "consumer", "remove"] {
            stale.refused(role, "NotFound", &["ticks"]);
        }
        let mut other = room.peer();
        other.ok(&format!("producer ticks {kind}"));
        for role in ["producer", "consumer", "remove"] {
            stale.refused(role, "NotFound", &["ticks"]);
        }
        assert_eq!(other.ok("list"), ["moved", "ticks"]);
        other.ok("push 0 2");
        stale.ok(&format!("consumer ticks {kind}"));
        assert_eq!(stale.numbers("pop 2"), [0, 1]);
        let mut rx = room.peer();
        rx.ok(&format!("consumer moved {kind}"));
        rx.refused("try-pop", "Empty", &[]);
    });
}

/// The list shows the channels that exist, and no others.
#[test]
fn the_list_shows_exactly_what_exists() {
    let room = room();
    let mut peer = room.peer();
    assert_eq!(peer.ok("list"), Vec::<String>::new());
    for name in ["ticks", "market/ticks", "market/book", "a.b_c-D9"] {
        peer.ok(&format!("create {name}"));
    }
    assert_eq!(
        peer.ok("list"),
        ["a.b_c-D9", "ticks", "market/book", "market/ticks"]
            .map(str::to_owned)
            .as_slice()
    );
    peer.ok("remove market/ticks");
    assert_eq!(peer.ok("list").len(), 3);
}

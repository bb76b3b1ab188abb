//! Many processes use one name at once: one channel is made, whole, and no process takes another's
//! seat.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use slipring_tests::{Barrier, Peer, Room, eventually};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// Returns the answers of eight processes for each round of a race to make one channel.
fn race(how: &str, rounds: usize) -> Vec<Vec<String>> {
    let (room, ground) = (room(), room());
    let barrier = ground.path().join("barrier");
    Barrier::create(&barrier);
    let mut peers = (0..8).map(|_| room.peer()).collect::<Vec<_>>();
    for (rank, peer) in peers.iter_mut().enumerate() {
        peer.tell(&format!(
            "race ticks {how} {rank} 8 {rounds} {}",
            barrier.display()
        ));
    }
    let said = peers
        .iter_mut()
        .map(|peer| peer.answer().unwrap())
        .collect();
    assert_eq!(room.names(), Vec::<String>::new(), "something is left");
    said
}

/// Of eight processes that create at once, one makes the channel, and all find it.
#[test]
fn one_of_eight_creators_succeeds() {
    let said = race("create", 100);
    for round in 0..100 {
        let words = said.iter().map(|said| said[round].split_once(' ').unwrap());
        let (outcomes, identities): (Vec<_>, Vec<_>) = words.unzip();
        let made = outcomes
            .iter()
            .filter(|outcome| **outcome == "made")
            .count();
        assert_eq!(made, 1, "round {round}: {outcomes:?}");
        assert!(
            identities.iter().all(|identity| *identity == identities[0]),
            "{identities:?}"
        );
    }
}

/// Eight processes that open or create at once all come to one channel.
#[test]
fn open_or_create_yields_one_channel() {
    let said = race("open-or-create", 100);
    let mut seen = Vec::new();
    for round in 0..100 {
        assert!(
            said.iter().all(|one| one[round] == said[0][round]),
            "round {round}: {said:?}"
        );
        seen.push(said[0][round].clone());
    }
    // Each round has another channel.
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 100);
}

/// Adds up the outcomes that peers counted.
fn count(peers: &mut [Peer], sum: &mut HashMap<String, u64>) {
    for peer in peers {
        for word in peer.answer().unwrap() {
            let (outcome, count) = word.rsplit_once('=').unwrap();
            *sum.entry(outcome.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
    }
}

#[track_caller]
fn only_possible(sum: &HashMap<String, u64>) {
    let possible = [
        "seated",
        "pushed",
        "popped",
        "removed",
        "RoleTaken",
        "NotFound",
        "InUse",
    ];
    for outcome in sum.keys() {
        assert!(possible.contains(&outcome.as_str()), "{sum:?}");
    }
}

/// Removing a channel while others come and go never makes two owners or half a channel.
#[test]
fn concurrent_removal_is_safe() {
    let (room, ground) = (room(), room());
    let file = |role: &str| ground.path().join(role).display().to_string();
    let mut owners = (0..4).map(|_| room.peer()).collect::<Vec<_>>();
    let mut wreckers = (0..2).map(|_| room.peer()).collect::<Vec<_>>();
    for peer in &mut wreckers {
        peer.tell(&format!("wreck ticks {}", file("stop")));
    }
    let mut sum = HashMap::new();
    let mut batches = 0;
    eventually("all that can happen happens", || {
        for (i, peer) in owners.iter_mut().enumerate() {
            let role = if i < 3 { "producer" } else { "consumer" };
            peer.tell(&format!("churn ticks {role} 300 {}", file(role)));
        }
        count(&mut owners, &mut sum);
        only_possible(&sum);
        batches += 1;
        let wanted = [
            "seated",
            "pushed",
            "popped",
            "removed",
            "RoleTaken",
            "InUse",
        ];
        batches >= 5 && wanted.iter().all(|outcome| sum.contains_key(*outcome))
    });
    std::fs::write(file("stop"), "").unwrap();
    count(&mut wreckers, &mut sum);
    eprintln!("{sum:?}");
    only_possible(&sum);
    let _ = room.peer().ask("remove ticks");
    assert_eq!(room.names(), Vec::<String>::new(), "something is left");
}

/// What a killed creator leaves behind is swept by the next one.
#[test]
fn leftovers_of_killed_creators_are_swept() {
    let room = room();
    let mut dice = 1_u64;
    let mut left = 0;
    for _ in 0..60 {
        let mut peer = room.peer();
        peer.ok("rebuild ticks capacity=16384");
        // It is killed some way into its work, at another point each time.
        dice = dice
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        for _ in 0..(dice >> 33) % 4000 {
            std::hint::black_box(room.path().exists());
        }
        peer.kill();
        for name in room.names() {
            let temporary = name.starts_with(".new-") || name.starts_with(".old-");
            left += u64::from(temporary);
            assert!(temporary || name == "ticks", "{name}");
        }
        // A half-made channel never has the name, and nobody sees it without one.
        let mut peer = room.peer();
        match peer.ask("open ticks capacity=16384") {
            Ok(_) => {
                assert_eq!(peer.ok("list"), ["ticks"]);
                peer.ok("producer");
                peer.ok("push 0 1");
                peer.ok("consumer");
                assert_eq!(peer.number("pop 1"), 0);
                peer.ok("leave producer");
                peer.ok("leave consumer");
                peer.ok("remove");
            }
            Err(refusal) => {
                refusal.is("NotFound", &["ticks"]);
                assert_eq!(peer.ok("list"), Vec::<String>::new());
            }
        }
        peer.ok("create ticks");
        assert_eq!(room.names(), ["ticks"], "the leftovers are swept");
        peer.ok("remove");
    }
    eprintln!("{left} leftovers swept");
    assert!(left > 0, "no kill met a creator at work");
}

/// The directory of a creator that is still at work is not swept.
#[test]
fn a_working_creator_is_not_swept() {
    let room = room();
    let mut peer = room.peer();
    // There are two names: one is made while the other's creators sweep.
    peer.ok("rebuild ticks capacity=4096");
    let mut other = room.peer();
    for _ in 0..200 {
        other.ok("create other");
        other.ok("remove other");
    }
    assert!(peer.is_running(), "its directory was swept under it");
}

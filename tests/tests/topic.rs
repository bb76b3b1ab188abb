//! Many publishers and many subscribers of one topic, each a process: order, newest and held messages, kills, stops, a full
//! file system. Every message is checked in full wherever it is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use slipring_tests::{Peer, Place, Room, eventually, is_root};

const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// Topics of values and of records (whose lengths differ, message by message), named and passed. The last messages are few.
fn places() -> Vec<Place> {
    let options = [
        "kind=topic capacity=8 producers=4 consumers=4 held=4",
        "kind=topic-records capacity=8 producers=4 consumers=4 held=4",
    ];
    Place::all(PEER, &options)
}

fn topic() -> Place {
    Place::passed(
        PEER,
        "kind=topic-records capacity=8 producers=4 consumers=4 held=4",
    )
}

fn numbers(peer: &mut Peer) -> Vec<u64> {
    let answer = peer.answer().unwrap();
    answer.iter().map(|word| word.parse().unwrap()).collect()
}

/// Begins what goes on until a line comes.
#[track_caller]
fn begin(peer: &mut Peer, line: &str) {
    assert_eq!(peer.ok(line), ["more"]);
}

/// Ends what goes on until a line comes, and returns the answer.
fn finish(peer: &mut Peer) -> Vec<u64> {
    peer.tell("enough");
    numbers(peer)
}

/// Waits until a subscriber sees the newest message move on, `times` times.
fn goes_on(rx: &mut Peer, times: u64) {
    for _ in 0..times {
        let before = last(rx);
        eventually("the newest message is another one", || last(rx) > before);
    }
}

fn last(rx: &mut Peer) -> Option<u64> {
    match rx.ask("topic-last 1") {
        Ok(found) => Some(found[0].parse().unwrap()),
        Err(refusal) => {
            refusal.is("Empty", &[]);
            None
        }
    }
}

/// Three publishers race. One subscriber reads in order and knows what it lost; one reads the newest; one holds messages
/// at random. Fault 15: length and data are of one version. Fault 18: all are processes.
#[test]
fn racing_publishers_share_one_order() {
    for place in places() {
        let (mut order, mut newest, mut hold) = (
            place.seat("consumer"),
            place.seat("consumer"),
            place.seat("consumer"),
        );
        let mut txs: Vec<Peer> = (0..3).map(|_| place.seat("producer")).collect();
        begin(&mut order, "topic-follow 0");
        for (line, tx) in txs.iter_mut().enumerate() {
            begin(tx, &format!("topic-publish {line} 0 0"));
        }
        goes_on(&mut newest, 1);
        newest.tell("topic-newest 5000");
        hold.tell("topic-hold 5000");
        let about = place.shown();
        assert_eq!(numbers(&mut newest)[0], 5000, "{about}");
        let [read, _, held] = numbers(&mut hold)[..] else {
            panic!("{about}");
        };
        assert!(read == 5000 && held > 0, "{about}");
        let published: u64 = txs.iter_mut().map(|tx| finish(tx)[0]).sum();
        let found = finish(&mut order);
        assert_eq!(found.iter().sum::<u64>(), published, "{about}");
        let mut late = place.seat("consumer");
        let all = late.numbers("topic-last 8");
        assert_eq!(all, Vec::from_iter((published - 8..published).rev()));
    }
}

/// Fault 17: killed publishers leave all their messages, and their successors go on. Nobody waits.
#[test]
fn killed_publishers_leave_their_messages() {
    for place in places() {
        let (mut order, mut rx) = (place.seat("consumer"), place.seat("consumer"));
        let mut other = place.seat("producer");
        begin(&mut order, "topic-follow 0");
        begin(&mut other, "topic-publish 0 0 0");
        let mut victims: Vec<Peer> = (0..2).map(|_| place.seat("producer")).collect();
        for life in 0..12 {
            for (line, victim) in victims.iter_mut().enumerate() {
                begin(victim, &format!("topic-publish {} {life} 0", line + 1));
            }
            goes_on(&mut rx, 3);
            victims.iter_mut().for_each(Peer::kill);
            goes_on(&mut rx, 1);
            victims = (0..2).map(|_| place.seat("producer")).collect();
        }
        finish(&mut other);
        victims.iter_mut().for_each(Peer::kill);
        // The newest of all is there, and so are those before it.
        let newest = last(&mut rx).unwrap();
        let found = finish(&mut order);
        assert_eq!(found.iter().sum::<u64>(), newest + 1, "{}", place.shown());
        assert_eq!(rx.numbers("topic-last 8").len(), 8);
    }
}

/// Fault 17: a subscriber that is killed with all its pins set holds up nobody, and its successor may hold as many.
#[test]
fn killed_subscribers_free_their_pins() {
    for place in places() {
        let (mut tx, mut order) = (place.seat("producer"), place.seat("consumer"));
        begin(&mut order, "topic-follow 0");
        begin(&mut tx, "topic-publish 0 0 0");
        let mut first = place.seat("consumer");
        goes_on(&mut first, 8);
        for round in 0..6 {
            // All other seats are held by dead ones in the end, with all their pins.
            let mut victims: Vec<Peer> = (0..2).map(|_| place.seat("consumer")).collect();
            for victim in &mut victims {
                assert_eq!(victim.ok("topic-pin 4").len(), 4);
                victim.refused("topic-pin 1", "TooManyHeld", &["4"]);
            }
            goes_on(&mut first, 2);
            assert_eq!(victims[round % 2].ok("topic-held").len(), 4);
            victims.iter_mut().for_each(Peer::kill);
        }
        goes_on(&mut first, 2);
        let published = finish(&mut tx)[0];
        let found = finish(&mut order);
        assert_eq!(found.iter().sum::<u64>(), published, "{}", place.shown());
        // More than a pool has slots, beside all those dead pins: never full.
        tx.ok("topic-publish 0 1 2000");
    }
}

/// A stopped publisher, and a stopped subscriber with all its pins, delay nobody. What the subscriber held is whole when it
/// goes on, and so is all that the publisher publishes then.
#[test]
fn stopped_ends_delay_nobody() {
    for place in places() {
        let (mut tx, mut stopped) = (place.seat("producer"), place.seat("producer"));
        let (mut rx, mut holder) = (place.seat("consumer"), place.seat("consumer"));
        let mut order = place.seat("consumer");
        begin(&mut stopped, "topic-publish 1 0 0");
        goes_on(&mut rx, 8);
        begin(&mut order, "topic-follow 0");
        let held = holder.ok("topic-pin 4");
        holder.freeze();
        stopped.freeze();
        assert_eq!(tx.ok("topic-publish 0 0 5000"), ["5000"]);
        let newest = last(&mut rx).unwrap();
        let expected = Vec::from_iter((newest - 7..=newest).rev());
        assert_eq!(rx.numbers("topic-last 8"), expected);
        holder.thaw();
        assert_eq!(holder.ok("topic-held"), held, "{}", place.shown());
        stopped.thaw();
        goes_on(&mut rx, 2);
        finish(&mut stopped);
        finish(&mut order);
        holder.ok("topic-free");
        assert_eq!(holder.ok("topic-pin 4").len(), 4);
    }
}

/// The last messages are exact, and whole, while publishers go on: no other ones than the newest, in their order.
#[test]
fn last_messages_are_exact_under_load() {
    for place in places() {
        let mut rx = place.seat("consumer");
        let mut txs: Vec<Peer> = (0..2).map(|_| place.seat("producer")).collect();
        for (line, tx) in txs.iter_mut().enumerate() {
            begin(tx, &format!("topic-publish {line} 0 0"));
        }
        goes_on(&mut rx, 9);
        let (read, newest) = match &rx.numbers("topic-newest 20000")[..] {
            [read, newest, _] => (*read, *newest),
            other => panic!("{other:?}"),
        };
        assert_eq!(read, 20_000);
        let published: u64 = txs.iter_mut().map(|tx| finish(tx)[0]).sum();
        assert!(newest < published);
        assert_eq!(last(&mut rx), Some(published - 1), "{}", place.shown());
    }
}

/// Two publishers and a subscriber of frames, on a file system of 1 MiB.
struct Small {
    txs: [Peer; 2],
    rx: Peer,
    filler: PathBuf,
    _room: Room,
}

impl Small {
    fn new() -> Small {
        let room = Room::new(PEER);
        let dir = room.path().join("small");
        fs::create_dir(&dir).unwrap();
        let mut first = room.peer();
        first.ok("private");
        first.ok(&format!("mount tmpfs {} size:1m", dir.display()));
        let mut others = [room.peer(), room.peer()];
        for other in &mut others {
            other.ok(&format!("join {}", first.pid()));
        }
        let [second, rx] = others;
        let filler = dir.join("filler");
        let mut small = Small {
            txs: [first, second],
            rx,
            filler,
            _room: room,
        };
        // The slots have some 40 MiB.
        for peer in small.txs.iter_mut().chain([&mut small.rx]) {
            peer.ok(&format!("dir {}", dir.display()));
        }
        for tx in &mut small.txs {
            tx.ok("frame-producer frames 262144");
        }
        small.rx.ok("frame-consumer frames 262144");
        small
    }

    /// Takes all memory that is left.
    fn fill(&mut self) {
        let fill = format!("fill {}", self.filler.display());
        self.txs[1].number(&fill);
    }

    fn latest(&mut self) -> Vec<u64> {
        self.rx.numbers("frame-latest")
    }
}

/// When the file system is full, a message that needs more memory is refused. The last one stays readable, and the
/// publisher goes on as soon as there is room. It goes on with small ones at once.
#[test]
fn growing_messages_find_no_space() {
    if !is_root() {
        return;
    }
    let mut small = Small::new();
    for fill in 0..40 {
        small.txs[0].ok(&format!("frame-push {} {fill}", 100 + fill));
    }
    small.fill();
    for _ in 0..3 {
        let about = ["no memory for", "full"];
        small.txs[0].refused("frame-push 200000 77", "NoSpace", &about);
        assert_eq!(small.latest(), [139, 39]);
    }
    // A slot that has memory serves.
    small.txs[0].ok("frame-push 100 78");
    assert_eq!(small.latest(), [100, 78]);
    fs::remove_file(small.txs[1].sees(&small.filler)).unwrap();
    small.txs[0].ok("frame-push 200000 79");
    assert_eq!(small.latest(), [200_000, 79]);
}

/// When the file system is full, a publisher gives back what its free slots have, and publishers that are gone, before it refuses
/// a message.
#[test]
fn growing_messages_take_what_is_free() {
    if !is_root() {
        return;
    }
    for own in [true, false] {
        let mut small = Small::new();
        for fill in 0..20 {
            small.txs[0].ok(&format!("frame-push 120000 {fill}"));
        }
        small.fill();
        assert_eq!(small.latest(), [120_000, 19]);
        let publisher = match own {
            true => 0,
            false => {
                small.txs[0].kill();
                1
            }
        };
        for fill in 20..40 {
            small.txs[publisher].ok(&format!("frame-push 200000 {fill}"));
            assert_eq!(small.latest(), [200_000, fill]);
        }
    }
}

/// The memory of a killed publisher comes back with its successor, or when another publisher gives memory back. Its messages
/// stay.
#[test]
fn dead_publishers_memory_comes_back() {
    for by_successor in [true, false] {
        let room = Room::new(PEER);
        let (mut victim, mut other, mut rx) = (room.peer(), room.peer(), room.peer());
        for peer in [&mut victim, &mut other] {
            peer.ok("frame-producer frames 262144");
        }
        rx.ok("frame-consumer frames 262144");
        let data = room.file("frames", "data");
        let slots = || fs::metadata(&data).unwrap().blocks() / (262_144 / 512);
        for fill in 0..20 {
            victim.ok(&format!("frame-push 262144 {fill}"));
        }
        assert!(slots() >= 5);
        victim.kill();
        let mut successor = room.peer();
        let mut give_back = || match by_successor {
            true => successor.ok("frame-producer frames 262144"),
            false => other.ok("frame-trim 0"),
        };
        give_back();
        // The last two, and a page or two of each.
        assert_eq!(slots(), 2);
        assert_eq!(rx.numbers("frame-latest"), [262_144, 19]);
    }
}

/// Fault 14: a write wakes only those that watch that topic.
#[test]
fn a_write_wakes_only_its_watchers() {
    let room = Room::new(PEER);
    let (mut one, mut two, mut tx) = (room.peer(), room.peer(), room.peer());
    one.ok("topic-watch mine 2");
    two.ok("topic-watch yours 1");
    tx.ok("producer mine-1 kind=topic-u64 capacity=8");
    one.tell("topic-wait 60000");
    two.tell("topic-wait 60000");
    one.until_overdue();
    two.until_overdue();
    let asleep = two.pauses();
    for number in 0..100 {
        tx.ok(&format!("push {number} 1"));
        assert_eq!(numbers(&mut one), [1, number]);
        one.tell("topic-wait 60000");
    }
    assert_eq!(two.pauses(), asleep, "a write elsewhere woke it");
    let mut other = room.peer();
    other.ok("producer yours-0 kind=topic-u64 capacity=8");
    other.ok("push 7 1");
    assert_eq!(numbers(&mut two), [0, 7]);
}

/// Fault 16: names are checked, and two domains do not collide; a topic is not taken for another kind.
#[test]
fn topics_have_names_of_their_own() {
    let room = Room::new(PEER);
    let options = "kind=topic capacity=8 producers=2 consumers=2";
    let (mut a, mut b, mut rx) = (room.peer(), room.peer(), room.peer());
    for (name, why) in [
        ("x/y/z", "more than one `/`"),
        ("..", "dot"),
        ("%", "empty"),
    ] {
        a.refused(&format!("producer {name} {options}"), "BadName", &[why]);
    }
    let long = "x".repeat(65);
    a.refused(&format!("producer {long} {options}"), "BadName", &["64"]);
    a.ok(&format!("producer left/cam {options}"));
    b.ok(&format!("producer right/cam {options}"));
    a.ok("topic-publish 1 0 10");
    b.ok("topic-publish 2 0 3");
    rx.ok(&format!("consumer right/cam {options}"));
    assert_eq!(rx.numbers("topic-last 1"), [2]);
    rx.refused("open left/cam kind=topic-records", "Schema", &["records"]);
    rx.refused("open left/cam kind=broadcast", "Kind", &["topic"]);
}

/// Fault 17: the topic goes on after each of its ends was killed once, without a repair by hand.
#[test]
fn dead_ends_leave_a_sound_topic() {
    let place = topic();
    for life in 0..8 {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok(&format!("topic-publish 0 {life} 40"));
        let newest = 40 * (life + 1) - 1;
        assert_eq!(rx.numbers("topic-pin 4")[0], newest);
        tx.kill();
        rx.kill();
    }
    let mut late = place.seat("consumer");
    assert_eq!(late.numbers("topic-last 2"), [319, 318]);
    assert_eq!(late.number("len consumer"), 8);
}

//! One producer and several consumers, each a process. Every consumer gets all messages, or learns
//! exactly which it missed. A killed consumer holds nobody up, and a stopped one holds the producer
//! back while it is stopped. (Kills at random are in `verify/storm`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use slipring::broadcast::{self, Mode};
use slipring::{Error, PushError, SetupError, WaitSet, handover, spsc};
use slipring_tests::message::{Message, Numbered, Packet};
use slipring_tests::room::PATIENCE;
use slipring_tests::stranger::listener;
use slipring_tests::{Peer, Place, Room, eventually, from_fds};

/// Rings of four messages, for three consumers.
const WAITING: &str = "kind=broadcast capacity=4 consumers=3";
const OVERWRITING: &str = "kind=broadcast capacity=4 consumers=3 full=overwrite";
/// The same, larger.
const LARGE: &str = "kind=broadcast capacity=64 consumers=3";
const LARGE_OVERWRITING: &str = "kind=broadcast capacity=64 consumers=3 full=overwrite";
/// A ring of records, of which it holds from four to twenty-one.
const RECORDS: &str = "kind=broadcast-records capacity=512 max=112 consumers=3";

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

fn places(options: &[&'static str]) -> Vec<Place> {
    Place::all(env!("CARGO_BIN_EXE_peer"), options)
}

/// The public state of a seat.
#[derive(Debug)]
struct Seen {
    state: String,
    member: bool,
    position: u64,
    waits: u64,
    lagged: u64,
    recovered: u64,
}

/// Returns the seats, the producer's first.
#[track_caller]
fn table(onlooker: &mut Peer) -> Vec<Seen> {
    let seats = onlooker.ok("table").into_iter().map(|line| {
        let (state, figures) = line.split_once(' ').unwrap();
        let figures = figures.split(' ').map(|word| word.parse().unwrap());
        let [member, _pid, position, waits, lagged, recovered] =
            figures.collect::<Vec<u64>>().try_into().unwrap();
        let (state, member) = (state.to_owned(), member == 1);
        Seen {
            state,
            member,
            position,
            waits,
            lagged,
            recovered,
        }
    });
    seats.collect()
}

/// Waits until the producer's call waits, and this consumer holds it back.
#[track_caller]
fn is_held_back(onlooker: &mut Peer, index: u64, by: &Peer) {
    let expected = [index, u64::from(by.pid())];
    eventually("the producer waits for that one", || {
        table(onlooker)[0].waits > 0 && onlooker.numbers("holds-back") == expected
    });
}

/// Waits until every consumer has taken all messages.
#[track_caller]
fn all_taken(onlooker: &mut Peer) {
    eventually("all is taken", || {
        let seats = table(onlooker);
        let held = |seat: &&Seen| seat.state == "held";
        let behind = seats.iter().filter(held);
        behind
            .map(|seat| seat.position)
            .all(|at| at == seats[0].position)
    });
}

/// Long enough for many checks.
const SHORT: Duration = Duration::from_millis(50);

/// Returns those numbers.
fn from(first: u64, count: u64) -> Vec<u64> {
    (first..first + count).collect()
}

#[test]
fn each_of_three_processes_sees_all() {
    for place in places(&[WAITING, LARGE, RECORDS]) {
        let mut readers = [(); 3].map(|()| place.seat("consumer"));
        let mut tx = place.seat("producer");
        readers.iter_mut().for_each(|rx| rx.tell("follow"));
        tx.ok("push 0 5000");
        tx.ok("leave producer");
        for rx in &mut readers {
            assert_eq!(rx.answer().unwrap(), ["5000", "5000", "0"]);
        }
    }
}

/// Fault 5: an overtaken consumer learns exactly how many it lost; no message is torn, and none
/// comes twice.
#[test]
fn three_overtaken_readers_know_their_losses() {
    for place in places(&[OVERWRITING, LARGE_OVERWRITING]) {
        let mut readers = [(); 3].map(|()| place.seat("consumer"));
        let mut tx = place.seat("producer");
        let mut onlooker = place.opened();
        // This makes certain that one of them is overtaken.
        readers[0].freeze();
        tx.ok("push 0 1000");
        readers[0].thaw();
        readers.iter_mut().for_each(|rx| rx.tell("follow"));
        tx.ok("push 1000 300000");
        tx.ok("leave producer");
        for (index, rx) in readers.iter_mut().enumerate() {
            let said = rx.answer().unwrap();
            let [next, taken, lost] = std::array::from_fn(|i| said[i].parse::<u64>().unwrap());
            assert_eq!((next, taken + lost), (301_000, 301_000), "{said:?}");
            assert!(taken > 0 && (index > 0 || lost > 0), "{said:?}");
            assert_eq!(table(&mut onlooker)[1 + index].lagged, lost);
        }
    }
}

/// A reader that is killed stops holding the writer back. Fault 17.
#[test]
fn a_killed_reader_holds_nobody_back() {
    // It is killed while it reads nothing, and while it reads in place.
    for hold in [false, true] {
        for place in places(&[WAITING]) {
            let (mut dead, mut rx) = (place.seat("consumer"), place.seat("consumer"));
            let mut tx = place.seat("producer");
            let mut onlooker = place.opened();
            tx.tell("push 0 100");
            assert_eq!(rx.numbers("pop 4"), from(0, 4));
            if hold {
                assert_eq!(dead.numbers("hold-pop 3"), from(0, 3));
            }
            is_held_back(&mut onlooker, 0, &dead);
            dead.kill();
            assert_eq!(rx.numbers("pop 96"), from(4, 96));
            tx.answer().unwrap();
            let seats = table(&mut onlooker);
            assert_eq!(seats[0].recovered, 1);
            assert_eq!((seats[1].state.as_str(), seats[1].member), ("died", false));
            // Its seat is free for a successor, which finds the newest message and all that come.
            let mut successor = place.seat("consumer");
            assert_eq!(table(&mut onlooker)[1].state, "held");
            let found = successor.numbers("drain");
            assert!(!found.is_empty() && found.len() <= 4, "{found:?}");
            let count = found.len() as u64;
            assert_eq!(found, from(100 - count, count));
            tx.tell("push 100 50");
            successor.tell("pop 50");
            assert_eq!(rx.numbers("pop 50"), from(100, 50));
            let rest = successor.answer().unwrap();
            assert_eq!((rest.len(), rest[49].as_str()), (50, "149"));
            tx.answer().unwrap();
        }
    }
}

/// Readers are killed wherever they are while they read. The writer goes on each time, and the other readers miss nothing.
#[test]
fn random_kills_cost_others_nothing() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for place in places(&[WAITING, LARGE, RECORDS]) {
        let mut readers = [place.seat("consumer"), place.seat("consumer")];
        readers.iter_mut().for_each(|rx| rx.tell("follow"));
        let mut tx = place.seat("producer");
        let mut onlooker = place.opened();
        tx.tell("stream-produce");
        tx.answer().unwrap();
        for _ in 0..25 {
            let mut victim = place.seat("consumer");
            victim.tell("follow");
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let wanted = table(&mut onlooker)[0].position + (state >> 40) % 3000;
            eventually("the writer goes on", || {
                table(&mut onlooker)[0].position >= wanted
            });
            victim.kill();
        }
        tx.kill();
        let mut tx = place.seat("producer");
        let next = tx.number("next");
        // The last victim's seat may not be repaired yet.
        tx.ok(&format!("push {next} 1000"));
        all_taken(&mut onlooker);
        let seats = table(&mut onlooker);
        assert_eq!((seats[3].state.as_str(), seats[3].member), ("died", false));
        tx.ok("leave producer");
        for rx in &mut readers {
            let all = (next + 1000).to_string();
            assert_eq!(
                rx.answer().unwrap(),
                [&all[..], &all, "0"],
                "{}",
                place.shown()
            );
        }
    }
}

/// When all readers are killed, none of them holds the writer back any longer.
#[test]
fn all_killed_readers_hold_nobody_back() {
    for place in places(&[WAITING, RECORDS]) {
        let mut dead = [(); 3].map(|()| place.seat("consumer"));
        let mut tx = place.seat("producer");
        tx.tell("push 0 1000");
        is_held_back(&mut place.opened(), 0, &dead[0]);
        dead.iter_mut().for_each(Peer::kill);
        tx.answer().unwrap();
        // The same holds for a wait by the descriptor, which does not report it: its owner asks
        // again.
        let mut rx = place.seat("consumer");
        rx.numbers("drain");
        tx.ok("push-full");
        assert_eq!(tx.ok("arm producer"), ["armed"]);
        rx.kill();
        eventually("there is room", || tx.ok("arm producer") == ["ready"]);
    }
}

/// A reader that is stopped, but alive, holds the writer back until it goes on.
#[test]
fn a_stopped_reader_holds_writers_back() {
    for place in places(&[WAITING]) {
        let (mut rx, mut stopped) = (place.seat("consumer"), place.seat("consumer"));
        let mut tx = place.seat("producer");
        let mut onlooker = place.opened();
        stopped.freeze();
        tx.tell("push 0 100");
        assert_eq!(rx.numbers("pop 4"), from(0, 4));
        is_held_back(&mut onlooker, 1, &stopped);
        // The producer waits many times as long as it would for a dead consumer.
        rx.refused("pop 1 timeout=200", "TimedOut", &[]);
        is_held_back(&mut onlooker, 1, &stopped);
        let seats = table(&mut onlooker);
        assert_eq!((seats[0].position, seats[0].recovered), (4, 0));
        assert_eq!((seats[2].state.as_str(), seats[2].member), ("held", true));
        stopped.thaw();
        stopped.tell("pop 100");
        assert_eq!(rx.numbers("pop 96"), from(4, 96));
        assert_eq!(stopped.answer().unwrap().len(), 100);
        tx.answer().unwrap();
    }
}

/// A reader that was stopped while its writer overwrote finds out exactly what it missed. Fault 5.
#[test]
fn a_stopped_reader_learns_its_loss() {
    for place in places(&[OVERWRITING]) {
        let (mut rx, mut tx) = (place.seat("consumer"), place.seat("producer"));
        let mut onlooker = place.opened();
        tx.ok("push 0 3");
        assert_eq!(rx.number("pop 1"), 0);
        rx.freeze();
        tx.ok("push 3 97");
        assert_eq!(onlooker.ok("holds-back"), Vec::<String>::new());
        rx.thaw();
        let refusal = rx.refused("pop 1", "Lagged", &["95"]);
        assert_eq!(refusal.debug, "Lagged(95)");
        assert_eq!(rx.numbers("pop 4"), from(96, 4));
        rx.refused("try-pop", "Empty", &[]);
        assert_eq!(table(&mut onlooker)[1].lagged, 95);
    }
}

/// A writer killed in a batch leaves exactly what it committed, and no number comes twice.
#[test]
fn only_committed_messages_survive_a_kill() {
    for place in places(&[LARGE, LARGE_OVERWRITING]) {
        let overwrites = place.options.contains("overwrite");
        let mut readers = [place.seat("consumer"), place.seat("consumer")];
        let mut next = 0;
        for round in 0..4 {
            let mut tx = place.seat("producer");
            assert_eq!(tx.number("next"), next, "{}", place.shown());
            tx.ok(&format!("push {next} 2"));
            // A batch becomes visible to all at once.
            if round % 2 == 0 {
                tx.tell(&format!("die-in-batch {} 8 5", next + 2));
                assert_eq!(tx.ended_by(), Some(libc::SIGKILL));
            } else {
                tx.ok(&format!("hold-push {} 5", next + 2));
                tx.kill();
            }
            for rx in &mut readers {
                assert_eq!(rx.numbers("pop 2"), from(next, 2));
                rx.refused("pop 1", "Disconnected", &["died"]);
            }
            next += 2;
        }
        let mut tx = place.seat("producer");
        for rx in &mut readers {
            rx.ok("wait-for producer 60000");
            rx.tell("pop 200");
        }
        if overwrites {
            // The batch fills the room, so that nobody is overtaken.
            for batch in 0..5 {
                all_taken(&mut place.opened());
                tx.ok(&format!("push {} 40", next + batch * 40));
            }
        } else {
            tx.ok(&format!("push {next} 200"));
        }
        for rx in &mut readers {
            assert_eq!(rx.answer().unwrap().last(), Some(&(next + 199).to_string()));
        }
    }
}

/// When writers are killed under load, their successors go on without a gap in the numbers.
#[test]
fn killed_writers_leave_no_gap() {
    for place in places(&[LARGE, LARGE_OVERWRITING, RECORDS]) {
        let mut readers = [(); 3].map(|()| place.seat("consumer"));
        readers.iter_mut().for_each(|rx| rx.tell("follow"));
        let mut onlooker = place.opened();
        for _ in 0..10 {
            let mut tx = place.seat("producer");
            tx.tell("stream-produce");
            tx.answer().unwrap();
            let wanted = table(&mut onlooker)[0].position + 500;
            eventually("messages are sent", || {
                table(&mut onlooker)[0].position >= wanted
            });
            tx.kill();
        }
        let mut tx = place.seat("producer");
        let next = tx.number("next");
        tx.ok(&format!("push {next} 100"));
        all_taken(&mut onlooker);
        tx.ok("leave producer");
        for rx in &mut readers {
            let said = rx.answer().unwrap();
            let [at, taken, lost] = std::array::from_fn(|i| said[i].parse::<u64>().unwrap());
            assert_eq!((at, taken + lost), (next + 100, next + 100), "{said:?}");
            if !place.options.contains("overwrite") {
                assert_eq!(lost, 0);
            }
        }
    }
}

/// Whoever finds no free seat is refused. Fault 9: a second producer, and one consumer too many,
/// disturb nobody.
#[test]
fn a_refused_newcomer_disturbs_nobody() {
    for options in [WAITING, OVERWRITING] {
        let place = Place::named(env!("CARGO_BIN_EXE_peer"), options);
        let mut readers = [(); 3].map(|()| place.seat("consumer"));
        let mut tx = place.seat("producer");
        tx.ok("push 0 3");
        assert_eq!(readers[0].numbers("pop 2"), [0, 1]);
        let before = place.room.contents();
        let mut other = place.peer();
        let holder = format!("process {}", tx.pid());
        other
            .ask(&format!("producer ticks {options}"))
            .unwrap_err()
            .is("RoleTaken", &["producer", &holder]);
        other
            .ask(&format!("consumer ticks {options}"))
            .unwrap_err()
            .is("RoleTaken", &["all 3 consumer seats"]);
        // A reader may not take a second seat where there is none, either.
        readers[1].refused(
            &format!("consumer ticks {options}"),
            "RoleTaken",
            &["all 3 consumer seats"],
        );
        // Tries another type, another kind, another shape.
        let other_size = |size, another| options.replace(size, another) + " exact=1";
        for (kind, error) in [
            ("kind=broadcast-twin", "Schema"),
            ("kind=broadcast-packet", "Schema"),
            ("kind=spsc", "Kind"),
            ("kind=bytes", "Kind"),
            (&other_size("capacity=4", "capacity=8"), "Geometry"),
            (&other_size("consumers=3", "consumers=4"), "Geometry"),
        ] {
            for verb in ["open", "open-or-create", "producer", "consumer"] {
                other.refused(&format!("{verb} ticks {kind}"), error, &[]);
            }
            other.refused(&format!("create ticks {kind}"), "AlreadyExists", &[]);
        }
        other.refused("remove ticks", "InUse", &["producer"]);
        before.are_those_of(&place.room, "the live channel");
        // All go on, and a consumer that comes later gets a seat that was left.
        assert_eq!(readers[0].number("pop 1"), 2);
        for rx in &mut readers[1..] {
            assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
        }
        readers[1].ok("leave consumer");
        let mut successor = place.seat("consumer");
        assert_eq!(successor.numbers("drain").last(), Some(&2));
        tx.ok("push 3 1");
        for rx in [&mut readers[0], &mut successor] {
            assert_eq!(rx.number("pop 1"), 3);
        }
        // The behaviour when full is part of the wanted channel. Sizes are not, unless the opener
        // insists.
        let mode = match options {
            WAITING => OVERWRITING,
            _ => WAITING,
        };
        let both = [
            "waits for its slowest",
            "overwrites its oldest",
            "overwriting",
        ];
        for insists in ["", " exact=1"] {
            other.refused(&format!("open ticks {mode}{insists}"), "WhenFull", &both);
        }
        let larger = options.replace("capacity=4", "capacity=8");
        other.ok(&format!("open ticks {larger}"));
    }
}

/// A forked child can neither use its parent's handles, nor leave in its name, nor keep its place.
#[test]
fn a_forked_child_takes_no_part() {
    for place in places(&[WAITING, OVERWRITING]) {
        let overwrites = place.options.contains("overwrite");
        let (mut rx, mut tx) = (place.seat("consumer"), place.seat("producer"));
        tx.ok("push 0 3");
        assert_eq!(rx.number("pop 1"), 0);
        for line in ["try-push 3", "push 3 1", "place 3", "hold-push 3 1"] {
            assert_eq!(tx.ok(&format!("fork {line}"))[1], "Forked", "{line}");
        }
        for line in ["try-pop", "pop 1", "len consumer", "wait-for producer 100"] {
            assert_eq!(rx.ok(&format!("fork {line}"))[1], "Forked", "{line}");
        }
        let said = tx.ok("fork-iterator 3 1");
        assert_eq!(
            (said[1].as_str(), said[said.len() - 1].as_str()),
            ("Forked", "1")
        );
        // The parent does not leave either when the child drops its copies.
        for how in ["leave", "abort", "panic"] {
            assert_eq!(tx.ok(&format!("fork {how} producer")), ["ok"]);
            assert_eq!(rx.ok(&format!("fork {how} consumer")), ["ok"]);
        }
        let seats = table(&mut place.opened());
        assert_eq!(seats[0].state, "held");
        assert_eq!(
            (seats[1].state.as_str(), seats[1].member),
            ("held", !overwrites)
        );
        if overwrites {
            assert_eq!(rx.numbers("pop 3"), [1, 2, 3]);
            tx.ok("push 4 1");
            assert_eq!(rx.number("pop 1"), 4);
        } else {
            // The producer waits for the parent.
            tx.ok("push 4 1");
            tx.refused("push 5 1 timeout=50", "TimedOut", &["full"]);
            assert_eq!(rx.numbers("pop 4"), [1, 2, 3, 4]);
        }
        // A child that stays does not keep a dead parent's place.
        rx.ok("fork-linger");
        rx.ok("exec-linger");
        rx.kill();
        let next = tx.number("next");
        tx.ok(&format!("push {next} 20"));
    }
}

/// A channel for 63 readers can be handed over through a socket. A message of 16 bytes, and 66
/// descriptors beside it.
#[test]
fn sockets_carry_channels_for_63_readers() {
    const MOST: &str = "kind=broadcast capacity=64 consumers=63";
    for socket in ["stream", "seqpacket"] {
        let room = room();
        let mut tx = room.peer();
        tx.ok(&format!("memfd {MOST}"));
        tx.ok("producer");
        let mut to = listener(&room, socket);
        let before = to.0.number("files");
        to.0.tell(&format!("take-over {MOST}"));
        tx.ok(&format!("hand-over {socket} {}", to.1.display()));
        assert_eq!(to.0.answer().unwrap(), tx.ok("identity"));
        let mut rx = to.0;
        // These are two memfds, 64 pipes, and the connection.
        assert_eq!(rx.number("files"), before + 67);
        rx.refused("producer", "RoleTaken", &[&tx.pid().to_string()]);
        rx.ok("consumer");
        tx.ok("push 0 5");
        rx.ok("poll-pop 0 5");
        rx.tell("poll-pop 5 500");
        tx.tell("poll-push 5 500");
        tx.answer().unwrap();
        rx.answer().unwrap();
        // It goes on to another process while the giver lives, and survives the giver.
        let mut to = listener(&room, socket);
        to.0.tell(&format!("take-over {MOST}"));
        rx.ok(&format!("hand-over {socket} {}", to.1.display()));
        to.0.answer().unwrap();
        let mut next = to.0;
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        rx.tell("poll consumer");
        tx.kill();
        assert_eq!(rx.answer().unwrap(), ["hup"]);
        assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
        next.ok("producer");
        assert_eq!(next.number("next"), 505);
        next.ok("push 505 3");
        rx.ok("poll-pop 505 3");
    }
}

/// All 63 readers of a channel that was handed over see every message.
#[test]
fn handed_over_channels_serve_63_readers() {
    let builder = broadcast::Builder::<Message>::new(64).consumers(63);
    let given = builder.memfd().unwrap();
    assert_eq!(given.descriptors().len(), 66);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    handover::send(&ours, &given).unwrap();
    let taken = handover::receive(&theirs, &builder).unwrap();
    let readers = (0..63).map(|_| taken.consumer().unwrap());
    let mut readers = readers.collect::<Vec<_>>();
    assert!(matches!(
        given.consumer(),
        Err(SetupError::RoleTaken {
            role: "consumer",
            seats: 63,
            ..
        })
    ));
    let mut tx = given.producer().unwrap();
    for lap in 0..3 {
        for number in lap * 64..(lap + 1) * 64 {
            tx.try_push(Message::numbered(number)).unwrap();
        }
        let refused = tx.try_push(Message::numbered(0));
        assert!(matches!(refused, Err(PushError::Full(_))), "{refused:?}");
        for rx in &mut readers {
            for number in lap * 64..(lap + 1) * 64 {
                assert_eq!(rx.try_pop().unwrap().check(), Ok(number));
            }
        }
    }
}

/// Slots of 1264 bytes hold what was written to them. Fault 13: 1024 slots of 1264 bytes are more
/// than 16 bits can count.
#[test]
fn large_slots_hold_what_was_written() {
    fill_large_slots(broadcast::Builder::new(1024));
    fill_large_slots(broadcast::Builder::new(1024).overwriting());
    for full in ["wait", "overwrite"] {
        let room = room();
        let options = format!("kind=broadcast-packet capacity=1024 consumers=2 full={full}");
        let mut readers = [room.peer(), room.peer()];
        for rx in &mut readers {
            rx.ok(&format!("consumer ticks {options}"));
        }
        let mut tx = room.peer();
        tx.ok(&format!("producer ticks {options}"));
        for lap in 0..2 {
            tx.ok(&format!("push {} 1024", lap * 1024));
            if full == "wait" {
                tx.refused(&format!("try-push {}", lap * 1024 + 1024), "Full", &[]);
            }
            for rx in &mut readers {
                assert_eq!(rx.numbers("drain"), from(lap * 1024, 1024));
            }
        }
        if full == "overwrite" {
            // Two rings and a message were sent, for which the producer gave up an eighth of the
            // ring. The consumer goes on at the oldest message left, and an eighth of the ring
            // further.
            tx.ok("push 2048 2049");
            for rx in &mut readers {
                let refusal = rx.refused("try-pop", "Lagged", &[]);
                assert_eq!(refusal.debug, format!("Lagged({})", 1024 + 128 + 128));
                assert_eq!(rx.numbers("drain"), from(2048 + 1280, 2049 - 1280));
            }
        }
    }
}

/// Fills all of 1024 slots, and reads them, in this process.
fn fill_large_slots<M: Mode>(builder: broadcast::Builder<Packet, M>) {
    let channel = builder.consumers(2).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let mut readers = [channel.consumer().unwrap(), channel.consumer().unwrap()];
    for lap in 0..3 {
        // All slots are full at once, so no slot overlaps another.
        for number in lap * 1024..(lap + 1) * 1024 {
            tx.try_push(Packet::numbered(number)).unwrap();
        }
        for rx in &mut readers {
            for number in lap * 1024..(lap + 1) * 1024 {
                assert_eq!(rx.try_pop().unwrap().check(), Ok(number));
            }
        }
    }
}

/// Returns a full channel in memfds: its producer, here, and a process that reads nothing of it.
fn full(room: &Room) -> (broadcast::Producer<Message>, Peer) {
    let builder = broadcast::Builder::<Message>::new(4).consumers(3);
    let channel = builder.memfd().unwrap();
    let passed = channel.descriptors();
    let mut rx = room.peer_with(&passed);
    rx.ok(&format!("{} {WAITING}", from_fds(&passed)));
    rx.ok("consumer");
    let mut tx = channel.producer().unwrap();
    (0..4).for_each(|number| tx.try_push(Message::numbered(number)).unwrap());
    (tx, rx)
}

/// A waker that wakes a thread.
struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

/// A future that waits for a reader goes on when that reader is killed. No descriptor reports the
/// death of one of many consumers: the future must check by itself.
#[test]
fn a_future_notices_a_killed_reader() {
    let room = room();
    let (mut tx, mut rx) = full(&room);
    let (pending, was_pending) = std::sync::mpsc::channel();
    let task = std::thread::spawn(move || {
        let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut pushed = std::pin::pin!(tx.push_async(Message::numbered(4)));
        loop {
            match pushed.as_mut().poll(&mut context) {
                std::task::Poll::Ready(pushed) => return pushed.unwrap(),
                std::task::Poll::Pending => _ = pending.send(()),
            }
            std::thread::park();
        }
    });
    was_pending.recv_timeout(PATIENCE).unwrap();
    assert!(!task.is_finished());
    rx.kill();
    eventually("the future is ready", || task.is_finished());
    task.join().unwrap();
}

/// A set that waits for a reader goes on when that reader is killed. Tries both ways in which a set
/// sleeps: by doorbells, and by pipes.
#[test]
fn a_set_notices_a_killed_reader() {
    for idle in [0, 130] {
        let room = room();
        let (tx, mut rx) = full(&room);
        let idle = (0..idle).map(|_| spsc::channel::<u64>(1).unwrap());
        let idle = idle.collect::<Vec<_>>();
        let mut set = WaitSet::new().unwrap();
        for (_tx, rx) in &idle {
            set.watch(rx).unwrap();
        }
        let key = set.watch_room(&tx, 1).unwrap();
        let waited = set.wait_timeout(SHORT);
        assert_eq!(waited, Err(Error::TimedOut));
        rx.freeze();
        let waited = set.wait_timeout(SHORT);
        assert_eq!(waited, Err(Error::TimedOut));
        rx.kill();
        let events = set.wait_timeout(PATIENCE).unwrap();
        assert_eq!(events.len(), 1, "of {} idle ones", idle.len());
        assert!(events[0].key == key && events[0].ready);
    }
}

/// However long it has been waiting, a producer checks every few milliseconds for dead consumers.
#[test]
fn a_long_waiting_writer_checks_readers() {
    let place = Place::named(env!("CARGO_BIN_EXE_peer"), WAITING);
    let (mut dead, mut tx) = (place.seat("consumer"), place.seat("producer"));
    let mut onlooker = place.opened();
    tx.tell("push 0 100");
    is_held_back(&mut onlooker, 0, &dead);
    // It goes over to another way of sleeping after a second, if it does; and it updates its
    // heartbeat at each check.
    let (began, mut oldest) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(2800) {
        oldest = oldest.max(
            onlooker.ok("seat ticks producer")[5]
                .parse::<u64>()
                .unwrap(),
        );
    }
    assert!(oldest < 600_000_000, "no look for {oldest} ns");
    dead.kill();
    tx.answer().unwrap();
}

//! Checks a handle's descriptor with real processes: it is readable when there is news and only
//! then, even if a peer dies or meddles. Only the news ends a poll here, so a missed one is a test
//! that does not end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode};
use slipring::{Readiness, bytes, spsc};
use slipring_tests::message::LARGEST;
use slipring_tests::{Peer, Place, Room, eventually, from_fds};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
/// The smallest channels: one message, or one record of the largest size.
const SMALL: [&str; 2] = ["kind=spsc capacity=1", "kind=bytes capacity=128 max=112"];
/// The same for the third kind: a consumer always has room for others. And the mode that never
/// waits.
const WAITING: &str = "kind=broadcast capacity=1 consumers=2";
const OVERWRITING: &str = "kind=broadcast capacity=64 consumers=2 full=overwrite";
const SPSC: &str = "kind=spsc capacity=64";
const BYTES: &str = "kind=bytes capacity=4096 max=112";
/// The number of messages there and back, for each of eight places; half as many for each other way
/// to fence.
const ROUNDS: u64 = 10_000;
/// The extra reports of a descriptor besides one for each message: of arrivals, for example.
const FEW: u64 = 4;

/// Returns fixtures of every kind for messages to and fro, named and passed.
fn fixtures() -> Vec<Place> {
    Place::all(PEER, &[SMALL[0], SMALL[1], WAITING, OVERWRITING])
}

/// Returns both kinds with one consumer, named and passed.
fn places() -> Vec<Place> {
    Place::all(PEER, &[SPSC, BYTES])
}

/// Starts two peers with a channel there and one back.
fn players(place: &Place, before: [&[&str]; 2]) -> [Peer; 2] {
    let mut peers = [place.peer(), place.peer()];
    for (peer, lines) in peers.iter_mut().zip(before) {
        lines.iter().for_each(|line| drop(peer.ok(line)));
    }
    let [a, b] = &mut peers;
    place.sit(a, "producer", 0);
    place.sit(b, "consumer", 0);
    place.sit(b, "producer", 1);
    place.sit(a, "consumer", 1);
    peers
}

fn number(peer: &mut Peer) -> u64 {
    peer.answer().unwrap()[0].parse().unwrap()
}

/// Passes one message to and fro; whenever none is in flight, `serve` checks that its descriptor is
/// quiet.
fn volley(place: &Place, before: [&[&str]; 2], rounds: u64) {
    let [mut a, mut b] = players(place, before);
    b.tell(&format!("return {rounds}"));
    a.tell(&format!("serve {rounds}"));
    for peer in [&mut a, &mut b] {
        let polls = number(peer);
        assert!(polls > 0, "it never waited");
        // A poll returns only for a notification, and for each message there is one at most.
        assert!(polls <= rounds + FEW, "{polls} polls: {}", place.shown());
    }
}

/// With one message in flight, no descriptor is silent despite news, and none is readable without.
#[test]
fn descriptors_report_exactly_what_comes() {
    for place in fixtures() {
        volley(&place, [&[], &[]], ROUNDS);
    }
}

/// With one message in flight descriptors report exactly, also with fences in place of barriers.
#[test]
fn descriptors_also_work_with_fences() {
    for place in fixtures() {
        volley(&place, [&["fenced"], &["fenced"]], ROUNDS / 2);
    }
}

/// Descriptors report one message in flight exactly, also if only one process has barriers.
#[test]
fn descriptors_work_with_mixed_barriers() {
    let warm_up: &[&str] = &["producer warm-up", "leave producer", "sandbox"];
    for before in [
        [&["fenced"][..], &[]],
        [&[], &["fenced"]],
        [&["sandbox"], &[]],
        [warm_up; 2],
    ] {
        for options in [SMALL[0], WAITING, OVERWRITING] {
            volley(&Place::named(PEER, options), before, ROUNDS / 4);
        }
    }
}

/// In a ring of one slot the descriptors report both room and messages.
#[test]
fn one_slot_reports_room_and_messages() {
    for place in Place::all(PEER, &[SMALL[0], SMALL[1], WAITING]) {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.tell(&format!("poll-push 0 {ROUNDS}"));
        rx.tell(&format!("poll-pop 0 {ROUNDS}"));
        let polls = [number(&mut tx), number(&mut rx)];
        assert!(polls[0] + polls[1] > 0, "nobody ever waited");
        assert!(
            polls.iter().all(|polls| *polls <= ROUNDS + FEW),
            "{polls:?}: {}",
            place.shown()
        );
    }
}

/// No news is lost when either side is stopped for a while. Tries short stops, and stops after
/// which the other side has polled for longer than a waiter's second look.
#[test]
fn stopped_processes_lose_no_news() {
    for place in fixtures() {
        let [mut a, mut b] = players(&place, [&[], &[]]);
        b.tell("return 0");
        a.tell("serve 0");
        for turn in 0..20 {
            let (stopped, other) = if turn % 2 == 0 { (&a, &b) } else { (&b, &a) };
            stopped.freeze();
            if turn % 4 < 2 {
                other.until_overdue();
            }
            stopped.thaw();
        }
        a.tell("enough");
        assert!(number(&mut a) > 0, "it never waited");
        a.ok("leave producer");
        let end = b.answer().unwrap_err().debug;
        assert_eq!(end, "Disconnected(Finished)", "{}", place.shown());
    }
}

/// Asserts that the consumer, which learned of an end, is left alone until a producer comes, and
/// then learns of that one's messages.
#[track_caller]
fn rests_until_a_successor_comes(place: &Place, rx: &mut Peer, next: u64) -> Peer {
    rx.ok("rest consumer");
    rx.tell("poll consumer");
    let mut tx = place.seat("producer");
    assert_eq!(rx.answer().unwrap(), ["in"], "{}", place.shown());
    assert_eq!(tx.number("next"), next);
    rx.tell(&format!("poll-pop {next} 10"));
    tx.ok(&format!("push {next} 10"));
    rx.answer().unwrap();
    rx.ok("rest consumer");
    tx
}

/// When a producer is killed, its consumer's descriptor reports a hang-up.
#[test]
fn a_killed_producer_hangs_up() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 3");
        rx.ok("poll-pop 0 3");
        for number in 0..10 {
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            rx.tell("poll consumer");
            tx.kill();
            assert_eq!(rx.answer().unwrap(), ["hup"], "{}", place.shown());
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
            tx = rests_until_a_successor_comes(&place, &mut rx, 3 + 10 * number);
        }
    }
}

/// If a producer dies before it notifies of a message, its hang-up makes the consumer find it.
#[test]
fn a_hang_up_replaces_lost_notifications() {
    for place in places() {
        // It dies before it saw the waiter, or after it took the waiter's bit and was about to
        // notify.
        for rings in [false, true] {
            let (mut tx, mut rx) = (place.peer(), place.peer());
            // Without this a second look, a millisecond after the first, may be sooner.
            for (peer, role) in [(&mut tx, "producer"), (&mut rx, "consumer")] {
                peer.ok("fenced");
                place.sit(peer, role, 0);
            }
            let next = tx.number("next");
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            rx.tell("poll consumer");
            if rings {
                tx.ok("trap-rings");
                tx.tell(&format!("try-push {next}"));
            } else {
                tx.ok(&format!("publish-unrung {next}"));
                tx.kill();
            }
            assert_eq!(rx.answer().unwrap(), ["hup"], "{}", place.shown());
            assert_eq!(
                rx.ok("poll-end"),
                [next.to_string(), "Disconnected(Died)".into()]
            );
            rests_until_a_successor_comes(&place, &mut rx, next + 1);
        }
    }
}

/// A process that was stopped during a death and a succession finds out about both. The hang-up of
/// a producer that took the bit and did not notify ends when its successor opens the pipe. A
/// consumer that was stopped in between finds neither hang-up nor byte, unless the successor
/// notifies unasked.
#[test]
fn a_stopped_peer_misses_no_succession() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        rx.tell("poll consumer");
        rx.freeze();
        tx.ok("trap-rings");
        tx.tell("try-push 0");
        eventually("the producer dies", || !tx.is_running());
        let mut tx = place.seat("producer");
        rx.thaw();
        assert_eq!(rx.answer().unwrap(), ["in"], "{}", place.shown());
        rx.ok("poll-pop 0 1");
        rx.tell("poll-pop 1 1");
        tx.ok("push 1 1");
        rx.answer().unwrap();
    }
    // The same holds for a producer without room.
    for place in Place::all(PEER, &SMALL) {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let [first, next] = tx.numbers("push-full")[..] else {
            panic!()
        };
        assert_eq!(tx.ok("arm producer"), ["armed"]);
        tx.tell("poll producer");
        tx.freeze();
        rx.ok("trap-rings");
        rx.tell("try-pop");
        eventually("the consumer dies", || !rx.is_running());
        let mut rx = place.seat("consumer");
        tx.thaw();
        assert_eq!(tx.answer().unwrap(), ["in"], "{}", place.shown());
        // One was taken, and its taker killed: there is room for that, or none yet.
        tx.tell(&format!("poll-push {next} 1"));
        rx.ok(&format!("poll-pop {} {}", first + 1, next - first));
        tx.answer().unwrap();
    }
}

/// When a consumer is killed, its producer's descriptor reports a hang-up.
#[test]
fn a_killed_consumer_hangs_up() {
    for place in Place::all(PEER, &SMALL) {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        for _ in 0..10 {
            let [first, next] = tx.numbers("push-full")[..] else {
                panic!()
            };
            assert_eq!(tx.ok("arm producer"), ["armed"]);
            tx.tell("poll producer");
            rx.kill();
            assert_eq!(tx.answer().unwrap(), ["hup"], "{}", place.shown());
            // Until its locks are gone the producer may be alive, for all that others can know.
            eventually("the producer is told", || {
                tx.ask("arm producer")
                    .is_err_and(|told| told.debug == "Disconnected(Died)")
            });
            tx.ok("rest producer");
            tx.tell("poll producer");
            rx = place.seat("consumer");
            assert_eq!(tx.answer().unwrap(), ["in"], "{}", place.shown());
            tx.tell(&format!("poll-push {next} 1"));
            rx.ok(&format!("poll-pop {first} {}", next + 1 - first));
            tx.answer().unwrap();
        }
    }
}

/// A death that takes its time is reported in the end. A process that dies on a busy machine may
/// have lost its pipe, and not yet its lock, for as long as others run.
#[test]
fn a_slow_death_is_reported_eventually() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        tx.ok("close-pipes");
        for _ in 0..20 {
            let said = rx.ok("poll consumer");
            assert!(said.contains(&"hup".to_owned()), "{said:?}");
            assert_eq!(rx.ok("arm consumer"), ["armed"], "{}", place.shown());
        }
        tx.kill();
        assert_eq!(
            rx.ok("poll-end"),
            ["Disconnected(Died)"],
            "{}",
            place.shown()
        );
    }
}

/// A producer killed while it takes its role keeps nobody awake, and leaves nobody waiting.
#[test]
fn producers_killed_on_arrival_block_nobody() {
    for place in places() {
        let mut rx = place.seat("consumer");
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        assert_eq!(rx.ok("glance consumer"), [""; 0], "nobody was ever there");
        for _ in 0..5 {
            // It dies with its seat, before it could report: nothing is lost, and nothing reported.
            let mut tx = place.peer();
            tx.ok("trap-rings");
            let options = place.options;
            if place.shown().starts_with("named") {
                tx.tell(&format!("producer ticks {options}"));
                eventually("it dies", || !tx.is_running());
                assert_eq!(rx.ok("glance consumer"), [""; 0]);
            }
            // It dies just after it reported.
            rx.tell("poll consumer");
            place.seat("producer").kill();
            assert!(rx.answer().unwrap().contains(&"in".to_owned()));
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
        }
        rests_until_a_successor_comes(&place, &mut rx, 0);
    }
}

/// A process that only wants a seat must not hold its pipe open: that would hide the holder's death
/// for as long as it tries, or is stopped. This one tries for a minute, since another process keeps
/// the seat under repair.
#[test]
fn a_contender_hides_no_death() {
    for options in [SPSC, BYTES] {
        let place = Place::named(PEER, options);
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let mut repairer = place.peer();
        // The producer's repair byte, as FORMAT.md says.
        let control = place.room.file("ticks", "control");
        repairer.ok(&format!("lock {} 1025", control.display()));
        let mut contender = place.peer();
        let before = contender.pauses();
        contender.tell(&format!("producer ticks {options} patience=60000"));
        eventually("it tries again and again", || {
            contender.pauses() > before + 20
        });
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        rx.tell("poll consumer");
        tx.kill();
        assert_eq!(rx.answer().unwrap(), ["hup"]);
        assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
        // From the moment it has the seat, its own death is reported.
        repairer.ok("unlock");
        contender.answer().unwrap();
        contender.ok("push 0 1");
        rx.ok("poll-pop 0 1");
        rx.ok("rest consumer");
        rx.tell("poll consumer");
        contender.kill();
        assert_eq!(rx.answer().unwrap(), ["hup"]);
        assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
    }
}

/// A live peer has closed its end of the pipe (as daemons close all that they have open). The
/// hang-up is reported again and again for a while. Then the pipe is silent, until another process
/// takes the seat.
#[test]
fn producers_without_pipes_keep_nobody_awake() {
    let place = Place::passed(PEER, SPSC);
    let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
    assert_eq!(rx.ok("arm consumer"), ["armed"]);
    rx.tell("poll consumer");
    tx.ok("close-pipes");
    assert_eq!(rx.answer().unwrap(), ["hup"]);
    eventually("nobody is kept awake", || {
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        rx.ok("glance consumer").is_empty()
    });
    rx.ok("rest consumer");
    // It lives. It cannot notify, but a consumer that looks finds its messages.
    assert_eq!(rx.ok("disconnected consumer"), ["false"]);
    tx.ok("push 0 1");
    assert_eq!(rx.ok("arm consumer"), ["ready"]);
    assert_eq!(rx.numbers("pop 1"), [0]);
    rx.ok("rest consumer");
    tx.kill();
    rx.refused("pop 1", "Disconnected", &["died"]);
    let mut tx = rests_until_a_successor_comes(&place, &mut rx, 1);
    rx.tell("poll consumer");
    tx.kill();
    assert_eq!(rx.answer().unwrap(), ["hup"]);
    assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
}

/// A live consumer that closes its pipes does not keep its producer awake for ever.
#[test]
fn consumers_without_pipes_keep_nobody_awake() {
    let place = Place::named(PEER, SMALL[1]);
    let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
    let next = tx.numbers("push-full")[1];
    assert_eq!(tx.ok("arm producer"), ["armed"]);
    tx.tell("poll producer");
    rx.ok("close-pipes");
    assert_eq!(tx.answer().unwrap(), ["hup"]);
    eventually("nobody is kept awake", || {
        assert_eq!(tx.ok("arm producer"), ["armed"]);
        tx.ok("glance producer").is_empty()
    });
    tx.ok("rest producer");
    assert_eq!(tx.ok("disconnected producer"), ["false"]);
    rx.kill();
    tx.refused(&format!("push {next} 1"), "Disconnected", &["died"]);
}

/// An end that comes between the look and the request notifies nobody: arming looks once more.
#[test]
fn an_end_during_arming_is_reported() {
    for (how, end) in [
        ("leave", "Finished"),
        ("abort", "Aborted"),
        ("kill", "Died"),
    ] {
        for place in Place::all(PEER, &SMALL) {
            for role in ["producer", "consumer"] {
                let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
                let (who, other, whose) = match role {
                    "producer" => (&mut tx, &mut rx, "consumer"),
                    _ => (&mut rx, &mut tx, "producer"),
                };
                match role {
                    "producer" => drop(who.ok("push-full")),
                    // Another round left messages there.
                    _ => drop(who.ok("drain")),
                }
                who.tell(&format!("arm-late {role}"));
                assert_eq!(who.answer().unwrap(), ["trapped"], "{}", place.shown());
                match how {
                    "kill" => other.kill(),
                    _ => drop(other.ok(&format!("{how} {whose}"))),
                }
                who.tell("go on");
                let told = who.answer().unwrap_err().debug;
                assert_eq!(told, format!("Disconnected({end})"), "{}", place.shown());
            }
        }
    }
}

/// An end is reported together with all that came before it.
#[test]
fn an_end_follows_all_earlier_messages() {
    for place in places() {
        let mut rx = place.seat("consumer");
        for (turn, how) in ["leave", "abort", "panic", "leave"].into_iter().enumerate() {
            let first = turn as u64 * 12;
            let mut tx = place.seat("producer");
            rx.tell("poll-end");
            tx.ok(&format!("push {first} 2"));
            tx.ok(&format!("{how} producer"));
            let end = if how == "leave" {
                "Finished"
            } else {
                "Aborted"
            };
            let told = [
                first.to_string(),
                (first + 1).to_string(),
                format!("Disconnected({end})"),
            ];
            assert_eq!(rx.answer().unwrap(), told, "{}", place.shown());
            drop(rests_until_a_successor_comes(&place, &mut rx, first + 2));
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
        }
    }
}

/// The end of a stream is reported although the next one has begun. Arming asks once: an end that
/// it finds is not acknowledged before its caller has heard of it.
#[test]
fn a_new_stream_hides_no_end() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 2");
        tx.ok("leave producer");
        let mut tx = place.seat("producer");
        assert_eq!(rx.numbers("pop 2"), [0, 1]);
        let told = rx.refused("arm consumer", "Disconnected", &["finished"]);
        assert_eq!(told.debug, "Disconnected(Finished)");
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        rx.tell("poll-pop 2 1");
        tx.ok("push 2 1");
        rx.answer().unwrap();
    }
}

/// The children that a process has forked or executed keep none of its pipes open.
#[test]
fn child_processes_keep_no_pipe_open() {
    for place in places() {
        for how in ["fork-linger", "exec-linger"] {
            let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
            let next = tx.number("next");
            // Its spare writer is open just now, and its child's copy must not be.
            tx.kill();
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
            rx.ok(how);
            let mut tx = rests_until_a_successor_comes(&place, &mut rx, next);
            tx.ok(how);
            rx.tell("poll consumer");
            tx.kill();
            assert_eq!(rx.answer().unwrap(), ["hup"], "{how}, {}", place.shown());
            assert_eq!(rx.ok("poll-end"), ["Disconnected(Died)"]);
            rx.ok("leave consumer");
        }
    }
}

/// A forked handle has no descriptor, and disturbs none of its parent's.
#[test]
fn a_forked_handle_disturbs_no_descriptor() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        for line in ["glance consumer", "arm consumer"] {
            assert_eq!(
                rx.ok(&format!("fork {line}"))[1],
                "Forked",
                "{}",
                place.shown()
            );
        }
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        assert_eq!(rx.ok("fork arm consumer")[1], "Forked");
        assert_eq!(rx.ok("fork leave consumer"), ["ok"]);
        assert_eq!(tx.ok("fork arm producer")[1], "Forked");
        assert_eq!(rx.ok("glance consumer"), [""; 0]);
        rx.tell("poll-pop 0 1");
        tx.ok("push 0 1");
        rx.answer().unwrap();
    }
}

/// A message makes its own channel's descriptor readable and no other. Fault 14 of the
/// predecessors: all channels had one wake bit.
#[test]
fn a_message_wakes_only_its_channel() {
    let room = Room::new(PEER);
    let channels =
        [(); 4].map(|()| spsc::Builder::<slipring_tests::message::Message>::new(64).memfd());
    let channels = channels.map(Result::unwrap);
    let records = [(); 4].map(|()| {
        bytes::Builder::new(4096)
            .max_record(LARGEST)
            .memfd()
            .unwrap()
    });
    let mut rx = channels
        .each_ref()
        .map(|channel| channel.consumer().unwrap());
    let mut records_rx = records
        .each_ref()
        .map(|channel| channel.consumer().unwrap());
    let passed = channels.iter().map(|channel| (channel.descriptors(), SPSC));
    let passed = passed.chain(records.iter().map(|channel| (channel.descriptors(), BYTES)));
    let peers = passed.map(|(passed, options)| {
        let mut tx = room.peer_with(&passed);
        tx.ok(&format!("{} {options}", from_fds(&passed)));
        tx.ok("producer");
        tx
    });
    for (which, tx) in peers.collect::<Vec<_>>().iter_mut().enumerate() {
        for rx in &mut rx {
            assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        }
        for rx in &mut records_rx {
            assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        }
        tx.ok("push 0 1");
        let descriptors = rx.iter().map(|rx| rx.as_fd().unwrap());
        let descriptors = descriptors.chain(records_rx.iter().map(|rx| rx.as_fd().unwrap()));
        let polled = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut polled = polled.collect::<Vec<_>>();
        poll(&mut polled, Some(&Timespec::default())).unwrap();
        for (other, polled) in polled.iter().enumerate() {
            let readable = !polled.revents().is_empty();
            assert_eq!(
                readable,
                other == which,
                "{other}, where {which} was written"
            );
        }
        if which < 4 {
            rx[which].try_pop().unwrap();
        } else {
            drop(records_rx[which - 4].try_read().unwrap());
        }
    }
}

/// A producer that wakes a consumer which was killed in its sleep lives on, and its message
/// arrives.
#[test]
fn a_waker_outlives_its_sleeper() {
    for place in places() {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("sigpipe");
        for number in 0..5 {
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            rx.kill();
            // Its bit is set, and nobody reads its pipe.
            tx.ok(&format!("push {number} 1"));
            rx = place.seat("consumer");
            rx.ok(&format!("poll-pop {number} 1"));
        }
    }
}

/// A stranger that writes to a FIFO or reads from it blocks nobody and loses no message.
#[test]
fn strangers_in_a_fifo_block_nobody() {
    for options in [SPSC, BYTES] {
        let place = Place::named(PEER, options);
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let mut stranger = place.peer();
        let fifo = place.room.file("ticks", "pipe-1");
        let fifo = fifo.display();
        // A byte that nobody sent, or that comes late, is read and dropped.
        for _ in 0..3 {
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            rx.tell("poll consumer");
            stranger.ok(&format!("poke {fifo}"));
            assert_eq!(rx.answer().unwrap(), ["in"]);
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            assert_eq!(
                rx.ok("glance consumer"),
                [""; 0],
                "a stray byte keeps it awake"
            );
        }
        // The pipe is full: a notifier finds it readable, and goes on.
        assert!(stranger.number(&format!("stuff {fifo}")) >= 65536);
        tx.ok("push 0 20");
        rx.ok("poll-pop 0 20");
        eventually("the rubbish is gone", || {
            assert_eq!(rx.ok("arm consumer"), ["armed"]);
            rx.ok("glance consumer").is_empty()
        });
        // The pipe is empty: a stolen notification is not repeated. A hostile process that the mode
        // lets in can do that much. The message is there all the same; the blocking calls, and the
        // next arming, find it.
        tx.ok("push 20 1");
        assert_eq!(stranger.number(&format!("steal {fifo}")), 1);
        assert_eq!(rx.ok("glance consumer"), [""; 0]);
        assert_eq!(rx.ok("arm consumer"), ["ready"]);
        assert_eq!(rx.numbers("pop 1"), [20]);
        rx.tell("poll-pop 21 1");
        tx.ok("push 21 1");
        rx.answer().unwrap();
    }
}

/// Whatever stands in a FIFO's place is refused, and the live channel goes on.
#[test]
fn a_replaced_fifo_is_refused() {
    for stands in ["nothing", "a file", "a symbolic link", "a socket"] {
        let place = Place::named(PEER, SPSC);
        let room = &place.room;
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        for seat in [0, 1] {
            let fifo = room.file("ticks", &format!("pipe-{seat}"));
            let aside = room.path().join(format!("aside-{seat}"));
            match stands {
                "nothing" => fs::remove_file(&fifo).unwrap(),
                "a symbolic link" => {
                    fs::rename(&fifo, &aside).unwrap();
                    std::os::unix::fs::symlink(&aside, &fifo).unwrap();
                }
                "a socket" => {
                    fs::remove_file(&fifo).unwrap();
                    drop(std::os::unix::net::UnixListener::bind(&fifo).unwrap());
                }
                _ => {
                    fs::remove_file(&fifo).unwrap();
                    fs::write(&fifo, "not a pipe").unwrap();
                }
            }
        }
        // A process that was there before keeps its open files.
        rx.tell("poll-pop 0 20");
        tx.ok("push 0 20");
        rx.answer().unwrap();
        // A process that has opened nothing yet still waits in a blocking call.
        tx.refused("arm producer", "BadPipe", &["`pipe-0`", "is no pipe"]);
        tx.ok("push 20 1");
        assert_eq!(rx.numbers("pop 1"), [20]);
        if stands == "nothing" {
            // It also waits so long that it would go over to its pipe.
            let [first, next] = tx.numbers("push-full")[..] else {
                panic!()
            };
            tx.refused(&format!("push {next} 1 timeout=1500"), "TimedOut", &[]);
            assert_eq!(
                rx.numbers(&format!("pop {}", next - first)),
                (first..next).collect::<Vec<_>>()
            );
        }
        tx.kill();
        rx.refused("pop 1", "Disconnected", &["died"]);
        rx.ok("leave consumer");
        // A newcomer's error names the wrong file, and changes nothing.
        let before = room.contents();
        for (role, pipe) in [("producer", "pipe-1"), ("consumer", "pipe-0")] {
            room.peer().refused(
                &format!("{role} ticks {SPSC}"),
                "BadPipe",
                &[pipe, "is no pipe"],
            );
        }
        before.are_those_of(room, "a channel without pipes");
        if stands != "nothing" {
            // The file there belongs to somebody, and stays until they take it away.
            let words = ["was not removed", stands, "pipe-"];
            room.peer().refused("remove ticks", "NotRemoved", &words);
            before.are_those_of(room, "a directory that holds something else");
            for seat in [0, 1] {
                fs::remove_file(room.file("ticks", &format!("pipe-{seat}"))).unwrap();
            }
        }
        room.peer().ok("remove ticks");
        let left = room.names();
        assert!(
            left.iter().all(|name| name.starts_with("aside")),
            "{left:?}"
        );
    }
}

/// Removing a channel, and sweeping up what killed processes left, removes the FIFOs too.
#[test]
fn removing_also_removes_the_fifos() {
    let room = Room::new(PEER);
    let mut peer = room.peer();
    peer.ok("producer ticks");
    peer.ok("leave producer");
    for seat in [0, 1] {
        let fifo = fs::symlink_metadata(room.file("ticks", &format!("pipe-{seat}"))).unwrap();
        use std::os::unix::fs::FileTypeExt;
        assert!(fifo.file_type().is_fifo());
    }
    peer.ok("remove ticks");
    assert_eq!(room.names(), [""; 0]);
    // A killed creator, and a killed remover, left these.
    for litter in [".new-0123456789abcdef", ".old-0123456789abcdef"] {
        let dir = room.path().join(litter);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("control"), "").unwrap();
        for pipe in ["pipe-0", "pipe-1"] {
            let mode = Mode::RUSR | Mode::WUSR;
            let path = dir.join(pipe);
            rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).unwrap();
        }
    }
    peer.ok("create other");
    assert_eq!(room.names(), ["other"]);
}

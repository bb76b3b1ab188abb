//! Waiters in other processes: woken with any barriers of theirs and of their publishers, through
//! stops, kills and restarts. Unless a test says otherwise, only the wake ends a sleep (of an
//! hour), so a lost one is a test that does not end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::{Peer, Room, eventually};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// Every kind of channel: of one message (or record of the largest size) where that is possible.
const KINDS: [&str; 4] = [
    "kind=u64 capacity=1",
    "kind=bytes capacity=128 max=112",
    "kind=broadcast capacity=1 consumers=2",
    "kind=broadcast capacity=64 consumers=2 full=overwrite",
];

/// The number of wakes that each answerer asks for, and gets: of four kinds, in five pairs of
/// variants, a million times.
const WAKES: u64 = 50_000;

/// An interval in milliseconds, for sleeps that only the wake ends.
const NEVER: u64 = 3_600_000;

/// Makes one peer pass a message to another and back, `wakes` times. The asker polls for a while
/// before it sleeps, the answerer sleeps at once.
fn begin(peers: [&mut Peer; 2], options: &str, check: u64, wakes: u64) {
    let [asker, answerer] = peers;
    answerer.tell(&format!("answer {options} check={check} wait=sleep"));
    assert_eq!(answerer.answer().unwrap(), ["more"]);
    asker.tell(&format!("ask {wakes} {options} check={check}"));
    assert_eq!(asker.answer().unwrap(), ["more"]);
}

/// Lets two peers with these preparations pass one message to and fro; no other message is in
/// flight.
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

/// Waits for the asker, which says now and then that there is more to come: on a busy machine all
/// of it may take longer than any expected event may take.
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

/// No wake is lost between a process with barriers and one without.
#[test]
fn mixed_barriers_lose_no_wake() {
    bounce(&["fenced"], &[]);
}

/// In a sandbox without membarrier, a process chooses fences by itself. The barrier is refused from
/// the start: the process is not registered. So its publishes fence, and its sleeps tell the other
/// side to fence.
#[test]
fn without_membarrier_fences_are_chosen() {
    bounce(&["sandbox"], &[]);
}

/// A process whose sandbox comes later copes by itself too, and no wake is lost. The barrier is
/// refused after the process has registered: its publishes do not fence, and its waiter finds out
/// when it would sleep.
#[test]
fn a_late_sandbox_loses_no_wake() {
    let later = ["producer warm-up kind=u64", "leave producer", "sandbox"];
    bounce(&later, &later);
}

/// Stops of either side lose no wake. Some stops are short, and only a wake ends a sleep. Others
/// last until the other side has checked the stopped one three times, and gone on waiting each
/// time.
#[test]
fn stops_lose_no_wake() {
    for (options, check) in KINDS
        .into_iter()
        .flat_map(|kind| [(kind, NEVER), (kind, 4)])
    {
        let room = room();
        let (mut a, mut b) = (room.peer(), room.peer());
        begin([&mut a, &mut b], options, check, 0);
        for turn in 0..12 {
            let (stopped, reads) = if turn % 2 == 0 {
                (&a, "there")
            } else {
                (&b, "back")
            };
            stopped.freeze();
            // The heartbeat of the other side's consumer, which updates it at each check.
            let beat = || word(&room, reads, 1152 + 64);
            for _ in 0..if check == NEVER { 0 } else { 3 } {
                let last = beat();
                eventually("it looks", || beat() != last);
            }
            stopped.thaw();
        }
        a.tell("enough");
        until_done(&mut a);
        b.answer().unwrap();
    }
}

/// The wait cells of the producers and of the consumers, in a channel's control part, as FORMAT.md
/// says.
const WAIT_CELLS: [usize; 2] = [512, 640];

/// Starts a worker on the channel that is waited on; nobody rings its doorbells.
fn worker(room: &Room, fenced: bool, role: &str, options: &str) -> Peer {
    let mut peer = room.peer();
    if fenced {
        peer.ok("fenced");
    }
    peer.ok(&format!("{role} there {options} wait=sleep"));
    peer
}

/// Tells the notifier to go on, now that the other side sleeps, and to die in the call that would
/// wake it. Returns `true` if it died: a waiter may just have been on its way from the doorbell to
/// its pipe, without a request.
fn dies_waking(room: &Room, waker: &mut Peer, line: &str, bell: usize) -> bool {
    eventually("it sleeps", || asks(room, bell));
    let doorbell = || word(room, "there", bell + 16) as u32;
    let before = doorbell();
    waker.tell(line);
    let died = waker.ended_by() == Some(libc::SIGSYS);
    // It took the bit, and rang the doorbell; it did not ask the kernel to wake anybody.
    assert_eq!(doorbell() - before, u32::from(died));
    died
}

/// Lets a consumer sleep, and a producer publish. Returns `true` if the producer died in the wake.
fn message_without_wake(options: &str, [fenced_tx, fenced_rx]: [bool; 2], successor: bool) -> bool {
    let room = room();
    let mut rx = worker(&room, fenced_rx, "consumer", options);
    let mut tx = worker(&room, fenced_tx, "producer", options);
    rx.tell("pop 1");
    let died = dies_waking(&room, &mut tx, "trap-rings push 0 1", WAIT_CELLS[1]);
    let mut tx = successor.then(|| worker(&room, fenced_tx, "producer", options));
    assert_eq!(rx.answer().unwrap(), ["0"], "{options}");
    if let Some(tx) = &mut tx {
        rx.tell("pop 1");
        tx.ok("push 1 1");
        assert_eq!(rx.answer().unwrap(), ["1"], "{options}");
    }
    died
}

/// Lets a producer sleep, and a consumer release all messages. Returns `true` if the consumer died
/// in the wake.
fn room_without_wake(options: &str, [fenced_tx, fenced_rx]: [bool; 2], successor: bool) -> bool {
    let room = room();
    let mut rx = worker(&room, fenced_rx, "consumer", options);
    let mut tx = worker(&room, fenced_tx, "producer", options);
    let next = tx.numbers("push-full")[1];
    rx.tell(&format!("trap-rings hold-pop {next}"));
    assert_eq!(rx.answer().unwrap().len() as u64, next);
    tx.tell(&format!("push {next} 1"));
    let died = dies_waking(&room, &mut rx, "release", WAIT_CELLS[0]);
    let mut successor = successor.then(|| worker(&room, fenced_rx, "consumer", options));
    // A consumer of `broadcast` begins at the oldest message in the channel, and its producer waits
    // for it.
    let mut seen = successor
        .as_mut()
        .map_or(vec![], |successor| successor.numbers("drain"));
    tx.answer().unwrap();
    let mut successor = successor.unwrap_or_else(|| worker(&room, fenced_rx, "consumer", options));
    seen.extend(successor.numbers("drain"));
    assert_eq!(seen.pop(), Some(next), "{options}");
    assert!(
        seen.is_empty() || options.contains("broadcast"),
        "{seen:?} were released"
    );
    died
}

/// A notifier that is killed before its system call costs no message. The notifier is killed in the
/// call itself: it took the bit and rang the doorbell, and did not ask the kernel. The waiter finds
/// the message at the end of its sleep. If its sleep has no end, a successor wakes it.
#[test]
fn a_killed_notifier_loses_no_message() {
    let both = [false, true];
    for (tx, rx) in both.into_iter().flat_map(|tx| both.map(|rx| (tx, rx))) {
        for successor in both {
            let check = if successor { NEVER } else { 4 };
            for kind in KINDS {
                let options = format!("{kind} check={check}");
                let mut tries = 0..3;
                assert!(tries.any(|_| message_without_wake(&options, [tx, rx], successor)));
                // A producer that overwrites waits for nobody.
                if !kind.contains("overwrite") {
                    assert!(tries.any(|_| room_without_wake(&options, [tx, rx], successor)));
                }
            }
        }
    }
}

/// A sleeper that is killed is followed by one that is woken. The next waiter clears the bit that a
/// killed one left, and sleeps in its place.
#[test]
fn a_killed_sleepers_successor_is_woken() {
    let room = room();
    let mut tx = room.peer();
    tx.ok("producer there kind=u64 capacity=1");
    for number in 0..20 {
        let mut rx = room.peer();
        rx.tell("sleep-pop");
        eventually("it sleeps", || asks(&room, WAIT_CELLS[1]));
        rx.kill();
        let mut rx = room.peer();
        rx.tell("sleep-pop");
        eventually("the next one sleeps", || asks(&room, WAIT_CELLS[1]));
        tx.ok(&format!("push {number} 1"));
        assert_eq!(rx.answer().unwrap(), [number.to_string()]);
    }
}

/// Returns a word of the channel's control part, at an offset from FORMAT.md.
fn word(room: &Room, channel: &str, offset: usize) -> u64 {
    let control = std::fs::read(room.file(channel, "control")).unwrap();
    u64::from_le_bytes(control[offset..offset + 8].try_into().unwrap())
}

/// Returns `true` if the first seat has asked for a wake through this wait cell.
fn asks(room: &Room, bell: usize) -> bool {
    word(room, "there", bell) & 1 != 0
}

/// A consumer that sleeps without a limit learns at once that its producer finished.
#[test]
fn leaving_wakes_the_other_side() {
    let room = room();
    let mut tx = room.peer();
    tx.ok("producer there kind=u64 capacity=1");
    let mut rx = room.peer();
    rx.tell("sleep-pop");
    eventually("it sleeps", || asks(&room, WAIT_CELLS[1]));
    tx.ok("leave producer");
    assert_eq!(rx.answer().unwrap_err().debug, "Disconnected(Finished)");
}

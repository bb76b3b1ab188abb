//! A set in one process has its channels' other ends in others. It is woken with any barriers, and
//! learns of killed peers, in both of its ways to sleep. Unless a test says otherwise, only the
//! wake ends a sleep (of an hour), so a lost one is a test that does not end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::{Peer, Room, eventually};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// The number of idle channels beside: none for a sleep on doorbells, and this many for one on
/// pipes.
const IDLE: [u64; 2] = [0, 130];

/// Makes two peers pass one message to and fro, with these ends of their lines.
fn begin(peers: [&mut Peer; 2], ask: &str, answer: &str) {
    let [asker, answerer] = peers;
    answerer.tell(&format!("watch-answer {answer}"));
    asker.tell(&format!("watch-ask {ask}"));
    for peer in [asker, answerer] {
        assert_eq!(peer.answer().unwrap(), ["more"]);
    }
}

/// Lets `asker` and `answerer` pass one message to and fro, over this many channels each way.
fn bounce(asker: &mut Peer, answerer: &mut Peer, channels: u64, idle: u64, messages: u64) {
    let ask = format!("{channels} 0 {messages}");
    begin([asker, answerer], &ask, &format!("{channels} {idle}"));
    finish(asker, answerer);
}

/// Waits for the asker, which says now and then that there is more to come: on a busy machine all
/// of it may take longer than the test waits for an answer.
fn finish(asker: &mut Peer, answerer: &mut Peer) {
    while asker.answer().unwrap() == ["more"] {}
    answerer.answer().unwrap();
}

#[test]
fn no_wake_is_lost_with_barriers() {
    for idle in IDLE {
        let room = room();
        bounce(&mut room.peer(), &mut room.peer(), 4, idle, 50_000);
    }
}

/// The answerer's publishes fence, and its sleeps tell the asker's publishes to fence too; or both
/// do.
#[test]
fn no_wake_is_lost_without_barriers() {
    for idle in IDLE {
        for both in [false, true] {
            let room = room();
            let (mut asker, mut answerer) = (room.peer(), room.peer());
            answerer.ok("fenced");
            if both {
                asker.ok("fenced");
            }
            bounce(&mut asker, &mut answerer, 4, idle, 20_000);
        }
    }
}

/// No wake is lost in a sandbox that comes later. The barrier is refused after the processes have
/// registered: their publishes do not fence, and their sets find out when they would sleep.
#[test]
fn a_late_sandbox_loses_no_wake() {
    for idle in IDLE {
        let room = room();
        let (mut asker, mut answerer) = (room.peer(), room.peer());
        for peer in [&mut asker, &mut answerer] {
            peer.ok("producer warm-up kind=u64 capacity=64");
            peer.ok("leave producer");
            peer.ok("sandbox");
        }
        bounce(&mut asker, &mut answerer, 4, idle, 20_000);
    }
}

#[test]
fn a_thousand_channels_are_waited_for() {
    let room = room();
    bounce(&mut room.peer(), &mut room.peer(), 1000, 0, 20_000);
}

/// A stop of either side loses no wake. Some stops are short, and only a wake ends a sleep. Others
/// are long. On doorbells they last until the other side's set has slept and checked by itself a
/// few times. On pipes they last until it has slept for longer than it puts any check off.
#[test]
fn a_stop_loses_no_wake() {
    for (idle, check, held) in [
        (IDLE[0], "", false),
        (IDLE[0], "check=4", true),
        (IDLE[1], "", false),
        (IDLE[1], "", true),
    ] {
        let room = room();
        let (mut asker, mut answerer) = (room.peer(), room.peer());
        let [ask, answer] = ["0", ""].map(|rounds| format!("4 {idle} {rounds} {check}"));
        begin([&mut asker, &mut answerer], &ask, &answer);
        for turn in 0..20 {
            let (stopped, other) = match turn % 2 {
                0 => (&asker, &answerer),
                _ => (&answerer, &asker),
            };
            stopped.freeze();
            let before = other.pauses();
            match (held, idle) {
                (false, _) => {}
                (true, 0) => eventually("it looks", || other.pauses() > before + 4),
                (true, _) => other.until_overdue(),
            }
            stopped.thaw();
        }
        asker.tell("enough");
        finish(&mut asker, &mut answerer);
    }
}

/// A producer is killed without a message to send, so that only its death can end the wait; and
/// another before the set knew the channel.
#[test]
fn deaths_stand_until_noted_or_succeeded() {
    for idle in IDLE {
        let room = room();
        let mut writers: Vec<Peer> = (0..3).map(|_| room.peer()).collect();
        for (index, writer) in writers.iter_mut().enumerate() {
            writer.ok(&format!("producer ticks-{index} kind=u64 capacity=64"));
        }
        writers[0].kill();
        let mut rx = room.peer();
        // On doorbells the set must check; on pipes, nobody does.
        let check = if idle == 0 { "check=4" } else { "" };
        rx.ok(&format!("watch ticks 3 {idle} {check}"));
        assert_eq!(rx.ok("watch-wait"), ["0=ready", "0=Died"]);
        // Only the set asked the kernel; the handle's next call reports the result, again and
        // again.
        told(&mut rx, 0);
        rx.ok("watch-note 0");
        rx.tell("watch-wait");
        writers[1].kill();
        assert_eq!(rx.answer().unwrap(), ["1=ready", "1=Died"]);
        told(&mut rx, 1);
        rx.ok("watch-note 1");
        rx.tell("watch-wait");
        writers[2].ok("push 7 1");
        assert_eq!(rx.answer().unwrap(), ["2=ready"], "each death until then");
        assert_eq!(rx.ok("watch-pop 2"), ["7"]);
        // The set waits for a successor's message, and reports its death again.
        rx.tell("watch-wait");
        let mut next = room.peer();
        next.ok("producer ticks-1 kind=u64 capacity=64");
        next.ok("push 0 1");
        assert_eq!(rx.answer().unwrap(), ["1=ready"]);
        assert_eq!(rx.ok("watch-pop 1"), ["0"]);
        rx.tell("watch-wait");
        next.kill();
        assert_eq!(rx.answer().unwrap(), ["1=ready", "1=Died"]);
        told(&mut rx, 1);
        // Nobody acknowledged that end, but its successor has the seat.
        let mut last = room.peer();
        last.ok("producer ticks-1 kind=u64 capacity=64");
        rx.tell("watch-wait");
        writers[2].ok("leave producer");
        assert_eq!(rx.answer().unwrap(), ["2=ready", "2=Finished"]);
    }
}

/// Checks that each call that does not wait, and each wait of the set, reports the producer's
/// death.
fn told(rx: &mut Peer, index: usize) {
    for _ in 0..3 {
        let told = rx.refused(&format!("watch-pop {index}"), "Disconnected", &["died"]);
        assert_eq!(told.debug, "Disconnected(Died)");
        assert_eq!(rx.ok("watch-wait"), [format!("{index}=ready")]);
    }
}

/// A call that waits finds the death; then the handle is put into a set.
#[test]
fn deaths_told_before_watching_stand() {
    for idle in IDLE {
        let room = room();
        let (mut tx, mut rx) = (room.peer(), room.peer());
        tx.ok("producer ticks-0 kind=u64 capacity=64");
        rx.ok(&format!("watch ticks 1 {idle} check=4"));
        rx.ok("watch-out 0");
        tx.kill();
        for _ in 0..2 {
            rx.refused("watch-pop-waiting 0", "Disconnected", &["died"]);
        }
        rx.ok("watch-in 0");
        assert_eq!(rx.ok("watch-wait"), ["0=ready", "0=Died"]);
        told(&mut rx, 0);
    }
}

/// Kills producers at any point (between a publish and its wake, too). They lose no message that
/// they committed, and each death is reported.
fn storm(idle: u64) {
    const WRITERS: usize = 3;
    const KILLS: u64 = 100;
    let room = room();
    let produce = |index: usize| {
        let mut tx = room.peer();
        tx.ok(&format!("producer ticks-{index} kind=u64 capacity=64"));
        tx.ok("stream-produce");
        tx
    };
    let mut rx = room.peer();
    let check = if idle == 0 { "check=4" } else { "" };
    rx.ok(&format!("watch ticks {WRITERS} {idle} {check}"));
    rx.ok("watch-stream");
    let mut writers: Vec<Peer> = (0..WRITERS).map(produce).collect();
    let mut expected = [0_u64; WRITERS];
    let mut word = |rx: &mut Peer| {
        let word = rx.word().expect("the set's owner ended by itself");
        if word > u64::MAX - WRITERS as u64 {
            return Some(!word as usize);
        }
        let (index, number) = ((word >> 56) as usize, word & (u64::MAX >> 8));
        assert_eq!(number, expected[index], "the sequence of {index} breaks");
        expected[index] += 1;
        None
    };
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..KILLS {
        dice = dice
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        for _ in 0..(dice >> 33) % 3000 {
            assert_eq!(word(&mut rx), None, "nobody was killed");
        }
        let victim = (dice >> 50) as usize % WRITERS;
        assert!(writers[victim].is_running(), "it ended by itself");
        writers[victim].kill();
        let dead = loop {
            if let Some(dead) = word(&mut rx) {
                break dead;
            }
        };
        assert_eq!(dead, victim);
        writers[victim] = produce(victim);
    }
}

/// When producers are killed again and again, doorbells lose no message and no report of a death.
#[test]
fn kills_on_doorbells_lose_nothing() {
    storm(0);
}

/// When producers are killed again and again, pipes lose no message and no report of a death.
#[test]
fn kills_on_pipes_lose_nothing() {
    storm(130);
}

/// A forked child's copy does nothing, and the child's end changes nothing for the parent.
#[test]
fn a_forked_set_does_nothing() {
    for idle in IDLE {
        let room = room();
        let (mut tx, mut rx) = (room.peer(), room.peer());
        tx.ok("producer ticks-0 kind=u64 capacity=64");
        rx.ok(&format!("watch ticks 1 {idle}"));
        rx.tell("watch-wait");
        tx.ok("push 0 1");
        assert_eq!(rx.answer().unwrap(), ["0=ready"]);
        assert_eq!(rx.ok("fork watch-wait")[0], "err");
        assert!(rx.ok("fork watch-wait")[1].starts_with("Forked"));
        assert_eq!(rx.ok("watch-pop 0"), ["0"]);
        rx.tell("watch-wait");
        tx.ok("push 1 1");
        assert_eq!(rx.answer().unwrap(), ["0=ready"]);
        assert_eq!(rx.ok("watch-pop 0"), ["1"]);
        // The parent still has the consumer's end: its producer sees it alive.
        assert_eq!(tx.ok("disconnected producer"), ["false"]);
    }
}

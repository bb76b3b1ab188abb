//! Checks the promises of a work queue within one process: any consumer takes a message, what is given back comes
//! again, ends come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::mem::forget;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slipring::mpmc::{self, Builder, Consumer, Producer};
use slipring::{End, Error, PushError, Readiness, SetupError, Wait, WaitSet};

const SHORT: Duration = Duration::from_millis(20);
const FINISHED: Error = Error::Disconnected(End::Finished);

fn pops(rx: &mut Consumer<u64>) -> Vec<u64> {
    std::iter::from_fn(|| rx.try_pop().ok()).collect()
}

/// Each message is taken by one consumer, in the order of reservation.
#[test]
fn any_consumer_takes_a_message() {
    for capacity in [1, 2, 4, 64] {
        let (mut tx, mut rx) = mpmc::channel::<u64>(capacity).unwrap();
        let (mut tx2, mut rx2) = (tx.another().unwrap(), rx.another().unwrap());
        for lap in 0..10 {
            tx.push(2 * lap).unwrap();
            assert_eq!(rx2.pop(), Ok(2 * lap), "{capacity}");
            tx2.push(2 * lap + 1).unwrap();
            assert_eq!(rx.pop(), Ok(2 * lap + 1));
            assert_eq!(rx.try_pop(), Err(Error::Empty));
        }
    }
}

/// A queue holds exactly its capacity, whoever fills it.
#[test]
fn full_at_capacity() {
    for capacity in [1, 2, 8] {
        let (mut tx, mut rx) = mpmc::channel::<u64>(capacity).unwrap();
        let mut tx2 = tx.another().unwrap();
        for number in 0..capacity as u64 {
            let tx = if number % 2 == 0 { &mut tx } else { &mut tx2 };
            tx.try_push(number).unwrap();
        }
        assert_eq!(tx.try_push(9), Err(PushError::Full(9)));
        assert_eq!(tx2.try_push(9), Err(PushError::Full(9)));
        assert!(tx.is_full().unwrap());
        assert_eq!((tx.len(), rx.len()), (Ok(capacity), Ok(capacity)));
        assert_eq!(tx.push_timeout(9, SHORT), Err(PushError::TimedOut(9)));
        assert_eq!(pops(&mut rx).len(), capacity);
        tx2.try_push(9).unwrap();
    }
}

/// A batch is reserved whole; what is not committed of it is skipped.
#[test]
fn part_of_a_reservation_is_skipped() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(4).unwrap();
    for lap in 0..6 {
        let mut run = tx.reserve(4).unwrap();
        (0..4).for_each(|index| run.write(index, 10 * lap + index as u64));
        run.commit(3);
        assert_eq!(pops(&mut rx), [10 * lap, 10 * lap + 1, 10 * lap + 2]);
        drop(tx.reserve(2).unwrap());
        tx.push(7).unwrap();
        assert_eq!(pops(&mut rx), [7]);
    }
    assert!(matches!(
        tx.try_reserve(5),
        Err(Error::TooLarge { asked: 5, max: 4 })
    ));
}

/// Slices go through in both directions, around the ring's end.
#[test]
fn slices_go_around_the_end() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(4).unwrap();
    for lap in 0..20_u64 {
        let values = [lap, lap + 1, lap + 2];
        assert_eq!(tx.try_push_slice(&values), Ok(3));
        let mut out = [0; 8];
        assert_eq!(rx.try_pop_slice(&mut out), Ok(3));
        assert_eq!(out[..3], values);
        assert_eq!(tx.push_iter([lap; 2]), Ok(2));
        let batch = rx.read_batch(8).unwrap();
        assert_eq!(batch.iter().copied().collect::<Vec<_>>(), [lap; 2]);
        let (front, back) = batch.as_slices();
        assert_eq!(front.len() + back.len(), 2);
    }
    assert_eq!(tx.try_push_slice(&[0; 9]), Ok(4));
    assert_eq!(tx.try_push_slice(&[]), Ok(0));
}

/// A consumer that gives messages back takes them again before all others, and they are marked.
#[test]
fn kept_messages_come_again() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    let mut other = rx.another().unwrap();
    tx.push_slice(&[0, 1, 2, 3, 4]).unwrap();
    let batch = rx.read_batch(3).unwrap();
    assert!(batch.deliveries() == 0);
    batch.release(1);
    assert_eq!((other.pop(), other.deliveries()), (Ok(1), 1));
    assert_eq!((rx.pop(), rx.deliveries()), (Ok(2), 1));
    assert_eq!((other.pop(), other.deliveries()), (Ok(3), 0));
    rx.read().unwrap().keep();
    assert_eq!((other.pop(), other.deliveries()), (Ok(4), 1));
    assert_eq!(other.try_pop(), Err(Error::Empty));
}

/// A panic in the middle of a guard gives its messages back.
#[test]
fn panic_gives_messages_back() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    let mut other = rx.another().unwrap();
    tx.push_slice(&[0, 1]).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _batch = rx.read_batch(2).unwrap();
        panic!("while reading");
    }));
    assert!(panicked.is_err());
    assert_eq!(pops(&mut other), [0, 1]);
}

/// The messages of a forgotten guard come again when its handle leaves, or are dropped if the handle asked for that. A
/// forgotten reservation is skipped.
#[test]
fn leaving_gives_back_what_was_forgotten() {
    for (at_most_once, expected) in [(false, &[0, 1, 2][..]), (true, &[2])] {
        let builder = Builder::<u64>::new(4);
        let channel = match at_most_once {
            true => builder.at_most_once().heap().unwrap(),
            false => builder.heap().unwrap(),
        };
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let mut other = channel.consumer().unwrap();
        tx.push_slice(&[0, 1]).unwrap();
        forget(rx.read_batch(2).unwrap());
        forget(tx.reserve(1).unwrap());
        let mut late = channel.producer().unwrap();
        late.push(2).unwrap();
        assert_eq!(other.try_pop(), Err(Error::Empty), "behind a reserved slot");
        drop((tx, rx));
        let mut got = pops(&mut other);
        got.sort_unstable();
        assert_eq!(got, expected);
        late.push_slice(&[5, 6, 7, 8]).unwrap();
        assert_eq!(pops(&mut other), [5, 6, 7, 8]);
    }
}

/// A message that is held stops nobody, however often the queue goes around; it takes up one slot.
#[test]
fn held_message_stops_nobody() {
    for capacity in [2, 4, 8] {
        let (mut tx, mut rx) = mpmc::channel::<u64>(capacity).unwrap();
        let mut other = rx.another().unwrap();
        tx.push(1000).unwrap();
        let held = rx.read().unwrap();
        for number in 0..100 {
            assert_eq!(tx.try_push(number), Ok(()), "{capacity}");
            assert_eq!(other.try_pop(), Ok(number));
        }
        let fit = (0..100).take_while(|number| tx.try_push(*number).is_ok());
        assert_eq!(fit.count(), capacity - 1);
        assert_eq!((*held, tx.len()), (1000, Ok(capacity)));
        assert_eq!(pops(&mut other).len(), capacity - 1);
        drop(held);
        let numbers: Vec<u64> = (0..100)
            .take_while(|number| tx.try_push(*number).is_ok())
            .collect();
        assert_eq!((numbers.len(), pops(&mut other)), (capacity, numbers));
    }
}

/// A run that needs several slots in a row is found behind a held one, wherever that lies; and if there are none in a row,
/// nobody's room is given up for that.
#[test]
fn runs_are_found_behind_held_slots() {
    for held_after in 0..8 {
        let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
        let mut other = rx.another().unwrap();
        tx.push(1000).unwrap();
        let held = rx.read().unwrap();
        for number in 0..held_after {
            tx.push(number).unwrap();
            assert_eq!(other.pop(), Ok(number));
        }
        for count in [7, 3, 7, 2] {
            let mut run = tx.try_reserve(count).unwrap();
            (0..count).for_each(|index| run.write(index, index as u64));
            run.commit(count);
            assert!(
                pops(&mut other).into_iter().eq(0..count as u64),
                "{held_after}"
            );
        }
        assert!(matches!(tx.try_reserve(8), Err(Error::Full)), "one is held");
        drop(held);
        tx.try_reserve(8).unwrap().commit(8);
        assert_eq!(pops(&mut other).len(), 8);
    }
    let (mut tx, mut rx) = mpmc::channel::<u64>(4).unwrap();
    tx.push_slice(&[0, 1, 2, 3]).unwrap();
    let held: Vec<_> = (0..4).map(|_| rx.read_owned().unwrap()).collect();
    let (even, _odd): (Vec<_>, Vec<_>) = held.into_iter().partition(|message| **message % 2 == 0);
    drop(even);
    for _ in 0..20 {
        assert!(matches!(tx.try_reserve(3), Err(Error::Full)));
    }
    tx.try_push(7).unwrap();
    assert_eq!(rx.pop(), Ok(7));
}

/// Whoever waits for room with a reservation in hand is not kept from what is released meanwhile.
#[test]
fn held_slots_use_up_no_room_before_a_reservation() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    for round in 0..20 {
        tx.push_slice(&[0, 1, 2, 3, 4, 5, 6]).unwrap();
        let held: Vec<_> = (0..7).map(|_| rx.read_owned().unwrap()).collect();
        let mut first = tx.try_reserve_owned(1).unwrap();
        first.write(0, round);
        assert!(tx.try_reserve_owned(1).is_err());
        drop(held);
        let second = tx.try_reserve_owned(1).unwrap();
        first.commit(1);
        second.discard();
        assert_eq!(rx.pop(), Ok(round));
    }
}

/// A consumer is told no end while messages that have left its hands may come back to it, and is woken when one does.
#[test]
fn handed_out_messages_may_come_back() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(4).unwrap();
    tx.push_slice(&[1, 2]).unwrap();
    let (first, second) = (rx.read_owned().unwrap(), rx.read_owned().unwrap());
    drop(tx);
    assert_eq!(rx.pop_timeout(SHORT), Err(Error::TimedOut));
    let other = std::thread::spawn(move || {
        second.release();
        first.keep();
    });
    assert_eq!((rx.pop(), rx.deliveries()), (Ok(1), 1));
    assert_eq!(rx.pop(), Err(FINISHED));
    other.join().unwrap();
}

/// Messages that left their consumer's hands are finished with in any order, by any thread, also after the consumer is
/// gone; what is given back comes again.
#[test]
fn owned_messages_are_finished_in_any_order() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    let mut other = rx.another().unwrap();
    tx.push_slice(&[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    fn shared(_: &(impl Send + Sync)) {}
    let mut held: Vec<_> = (0..8).map(|_| rx.try_read_owned().unwrap()).collect();
    shared(&held);
    assert_eq!(tx.try_push(8), Err(PushError::Full(8)));
    assert!(held.iter().map(|message| **message).eq(0..8));
    drop(rx);
    held.pop().unwrap().keep();
    let third = held.remove(2);
    std::thread::spawn(move || third.release()).join().unwrap();
    let panicked = std::thread::spawn({
        let fourth = held.remove(2);
        move || {
            let _fourth = fourth;
            panic!("while reading");
        }
    });
    assert!(panicked.join().is_err());
    let mut back = [
        (other.pop(), other.deliveries()),
        (other.pop(), other.deliveries()),
    ];
    back.sort_by_key(|(message, _)| message.ok());
    assert_eq!(back, [(Ok(3), 1), (Ok(7), 1)]);
    assert_eq!(other.try_pop(), Err(Error::Empty));
    drop(tx);
    assert_eq!(
        other.pop_timeout(SHORT),
        Err(Error::TimedOut),
        "one may come back"
    );
    drop(held);
    assert_eq!(other.pop(), Err(FINISHED));
}

/// Reservations that left their producer's hands are committed in any order; consumers get them in order of reservation.
#[test]
fn owned_reservations_keep_their_order() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    let mut runs: Vec<_> = (0..4).map(|_| tx.try_reserve_owned(2).unwrap()).collect();
    assert!(matches!(tx.try_reserve_owned(1), Err(Error::Full)));
    for (run, number) in runs.iter_mut().zip([0, 10, 20, 30]) {
        run.write(0, number);
        run.write(1, number + 1);
        assert_eq!(run.len(), 2);
    }
    drop(tx);
    runs.pop().unwrap().commit(1);
    runs.pop().unwrap().commit(2);
    assert_eq!(rx.try_pop(), Err(Error::Empty), "the first comes before");
    runs.remove(0).commit(2);
    assert_eq!(pops(&mut rx), [0, 1]);
    drop(runs);
    assert_eq!(pops(&mut rx), [20, 21, 30]);
    assert_eq!(rx.pop(), Err(FINISHED), "once the last reservation is gone");
}

/// What was delivered too often is put aside, counted, bounded, and can be read, dropped, or tried again.
#[test]
fn dead_letters_are_put_aside() {
    let channel = Builder::<u64>::new(8).dead_letters(2, 2).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let bury = |rx: &mut mpmc::Consumer<u64>, number| {
        for before in [0, 1] {
            let message = rx.read().unwrap();
            assert_eq!((*message, message.deliveries()), (number, before));
            message.keep();
        }
        assert_eq!(rx.try_pop(), Err(Error::Empty));
    };
    for number in [1, 2] {
        tx.push(number).unwrap();
        bury(&mut rx, number);
    }
    // They take up slots, and stop nobody.
    for number in 0..100 {
        tx.try_push(number).unwrap();
        assert_eq!((rx.try_pop(), rx.deliveries()), (Ok(number), 0));
    }
    assert_eq!(
        (0..9)
            .take_while(|number| tx.try_push(*number).is_ok())
            .count(),
        6
    );
    assert_eq!(pops(&mut rx), [0, 1, 2, 3, 4, 5]);
    // One more drops one of them.
    tx.push(3).unwrap();
    bury(&mut rx, 3);
    let mut letters = vec![*rx.try_dead_letter().unwrap()];
    let again = rx.try_dead_letter().unwrap();
    letters.push(*again);
    again.keep();
    assert!(letters.contains(&3), "{letters:?}");
    assert!(rx.try_dead_letter().is_err());
    // What is given back is tried as often as a new one.
    bury(&mut rx, letters[1]);
    drop(rx.try_dead_letter().unwrap());
    assert_eq!(tx.len(), Ok(0));
    drop(tx);
    assert_eq!(rx.pop(), Err(FINISHED));
}

/// Dead letters hold up no end of the stream.
#[test]
fn end_comes_beside_dead_letters() {
    let channel = Builder::<u64>::new(4).dead_letters(1, 4).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.push(1).unwrap();
    rx.read().unwrap().keep();
    drop(tx);
    assert_eq!(rx.pop(), Err(FINISHED));
    assert_eq!(*rx.try_dead_letter().unwrap(), 1);
}

/// The end comes to each consumer when the last producer has left and everything is taken; not while another consumer
/// holds a message that may come again.
#[test]
fn end_comes_after_the_last_message() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    let (tx2, mut other) = (tx.another().unwrap(), rx.another().unwrap());
    tx.push_slice(&[1, 2]).unwrap();
    drop(tx);
    assert_eq!(rx.pop(), Ok(1));
    assert_eq!(rx.pop_timeout(SHORT), Ok(2));
    assert_eq!(rx.pop_timeout(SHORT), Err(Error::TimedOut), "one is left");
    let mut tx2 = tx2;
    tx2.push(3).unwrap();
    drop(tx2);
    let held = other.read().unwrap();
    assert_eq!(
        rx.pop_timeout(SHORT),
        Err(Error::TimedOut),
        "it may come again"
    );
    held.keep();
    assert_eq!(rx.pop(), Ok(3));
    assert_eq!((rx.pop(), other.pop()), (Err(FINISHED), Err(FINISHED)));
    assert_eq!(rx.pop(), Err(FINISHED), "an end stands");
    // A consumer that comes after the end was acknowledged waits for the next producer.
    let channel = rx.channel();
    drop((rx, other));
    let mut late = channel.consumer().unwrap();
    assert_eq!(late.pop_timeout(SHORT), Err(Error::TimedOut));
    let mut tx = channel.producer().unwrap();
    tx.push(4).unwrap();
    drop(tx);
    assert_eq!((late.pop(), late.pop()), (Ok(4), Err(FINISHED)));
}

/// An aborted end is told as such if no producer finished.
#[test]
fn abort_is_told() {
    let (tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    tx.abort();
    assert_eq!(rx.pop(), Err(Error::Disconnected(End::Aborted)));
}

/// A producer learns that the last consumer has left when the queue is full, or at once if it wants that.
#[test]
fn producer_learns_of_the_last_consumer() {
    let (mut tx, rx) = mpmc::channel::<u64>(2).unwrap();
    let other = rx.another().unwrap();
    drop(rx);
    assert_eq!(tx.push_slice(&[1, 2]), Ok(()));
    assert_eq!(tx.try_push(3), Err(PushError::Full(3)));
    drop(other);
    assert_eq!(tx.push(3), Err(PushError::Disconnected(3, End::Finished)));
    let (mut tx, rx) = mpmc::channel::<u64>(2).unwrap();
    tx.fail_alone(true);
    tx.push(1).unwrap();
    assert_eq!(tx.try_push_slice(&[2, 3, 4]), Ok(1));
    drop(rx);
    assert_eq!(tx.push(3), Err(PushError::Disconnected(3, End::Finished)));
}

/// Each side has as many seats as its builder said, at most 63.
#[test]
fn seats_are_limited() {
    let channel = Builder::<u64>::new(2)
        .producers(63)
        .consumers(2)
        .heap()
        .unwrap();
    let producers: Vec<Producer<u64>> = (0..63).map(|_| channel.producer().unwrap()).collect();
    let taken = |error| matches!(error, SetupError::RoleTaken { seats: 63, .. });
    assert!(taken(channel.producer().unwrap_err()));
    assert!(taken(producers[0].another().unwrap_err()));
    let _consumers = [channel.consumer().unwrap(), channel.consumer().unwrap()];
    assert!(channel.consumer().is_err());
    drop(producers);
    assert!(channel.producer().is_ok());
    for (producers, consumers) in [(64, 1), (0, 1), (1, 64), (1, 0)] {
        let builder = Builder::<u64>::new(2)
            .producers(producers)
            .consumers(consumers);
        assert!(builder.heap().is_err(), "{producers} {consumers}");
    }
    for capacity in [0, 3, 1 << 50] {
        let refused = Builder::<u64>::new(capacity).heap().unwrap_err();
        assert!(matches!(refused, SetupError::Capacity { .. }), "{refused}");
    }
}

/// Returns `true` if the descriptor becomes readable.
fn readable(fd: &impl AsFd) -> bool {
    let wait = Timespec::try_from(Duration::from_secs(60)).unwrap();
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&wait)).unwrap() == 1
}

/// A descriptor becomes readable by a push, by room, and by a message that another consumer gives back.
#[test]
fn descriptors_tell_of_returns() {
    for channel in [
        Builder::<u64>::new(1).heap().unwrap(),
        Builder::<u64>::new(1).memfd().unwrap(),
    ] {
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let (mut tx2, mut other) = (channel.producer().unwrap(), channel.consumer().unwrap());
        assert_eq!(rx.arm(), Ok(Readiness::Armed));
        tx.push(1).unwrap();
        assert!(readable(&rx.as_fd().unwrap()));
        assert_eq!(tx2.arm(1), Ok(Readiness::Armed));
        let held = rx.read().unwrap();
        assert_eq!(other.arm(), Ok(Readiness::Armed));
        held.keep();
        assert!(readable(&other.as_fd().unwrap()));
        assert_eq!(other.pop(), Ok(1));
        assert!(readable(&tx2.as_fd().unwrap()));
        // A reservation that is given up makes room, too.
        let run = tx.reserve(1).unwrap();
        assert_eq!(tx2.arm(1), Ok(Readiness::Armed));
        drop(run);
        assert!(readable(&tx2.as_fd().unwrap()));
        tx2.push(2).unwrap();
        assert_eq!(rx.pop(), Ok(2));
    }
}

/// A set tells of messages, of room, and of the end.
#[test]
fn sets_tell_of_news_and_the_end() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(1).unwrap();
    let mut other = tx.another().unwrap();
    let mut set = WaitSet::new().unwrap();
    set.watch(&rx).unwrap();
    assert!(set.wait_timeout(SHORT).is_err());
    tx.push(1).unwrap();
    assert!(set.wait().unwrap().iter().any(|event| event.ready));
    assert_eq!(rx.pop(), Ok(1));
    set.watch_room(&other, 1).unwrap();
    assert!(
        set.wait().unwrap().iter().any(|event| event.ready),
        "there is room"
    );
    other.push(2).unwrap();
    drop((tx, other));
    assert_eq!(rx.pop(), Ok(2));
    let ended = |event: &slipring::set::Event| event.ended == Some(End::Finished) && event.ready;
    assert!(set.wait().unwrap().iter().any(ended));
    assert_eq!(rx.pop(), Err(FINISHED));
}

/// A builder whose handles look after nothing by themselves: a lost wake would be waited for.
fn unattended(capacity: usize) -> Builder<u64> {
    let waiting = Wait::Sleep {
        spin_for: Duration::ZERO,
    };
    let hour = Duration::from_secs(3600);
    Builder::new(capacity).wait(waiting).check_every(hour)
}

/// A consumer that waits for the end is woken when another one releases the last message.
#[test]
fn last_release_announces_the_end() {
    for channel in [
        unattended(4).heap().unwrap(),
        unattended(4).memfd().unwrap(),
    ] {
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let (mut other, watched) = (channel.consumer().unwrap(), channel.consumer().unwrap());
        tx.push(1).unwrap();
        let held = rx.read().unwrap();
        drop(tx);
        let mut set = WaitSet::new().unwrap();
        set.watch(&watched).unwrap();
        assert!(set.wait_timeout(SHORT).is_err());
        assert_eq!(other.arm(), Ok(Readiness::Armed));
        drop(held);
        assert!(readable(&other.as_fd().unwrap()));
        assert_eq!(other.pop(), Err(FINISHED));
        let event = set.wait().unwrap()[0];
        assert_eq!((event.ready, event.ended), (true, Some(End::Finished)));
    }
}

/// A set is not ready for messages that another consumer holds, or that lie behind a reserved slot.
#[test]
fn sets_wait_for_what_can_be_had() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(8).unwrap();
    let (mut tx2, mut other) = (tx.another().unwrap(), rx.another().unwrap());
    let mut set = WaitSet::new().unwrap();
    set.watch(&other).unwrap();
    tx.push_slice(&[0, 1, 2, 3]).unwrap();
    let batch = rx.read_batch(4).unwrap();
    assert_eq!(batch.len(), 4);
    assert!(set.wait_timeout(SHORT).is_err());
    drop(batch);
    let run = tx.try_reserve(1).unwrap();
    tx2.push(4).unwrap();
    assert!(set.wait_timeout(SHORT).is_err());
    drop(run);
    assert!(set.wait().unwrap()[0].ready);
    assert_eq!(other.pop(), Ok(4));
}

/// A producer that gives up a reservation leaves its own wish to be woken alone.
#[test]
fn discard_keeps_the_own_request() {
    let channel = unattended(2).memfd().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.push(1).unwrap();
    assert_eq!(tx.arm(2), Ok(Readiness::Armed));
    tx.try_reserve(1).unwrap().discard();
    assert_eq!(rx.pop(), Ok(1));
    assert!(readable(&tx.as_fd().unwrap()));
}

/// A handle that comes late walks past all that was claimed, though the ring has gone around three times.
#[test]
fn late_handles_walk_far() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(64).unwrap();
    let mut late = rx.another().unwrap();
    for number in 0..195 {
        tx.try_push(number).unwrap();
        rx.try_pop().unwrap();
    }
    (0..60).for_each(|number| tx.try_push(number).unwrap());
    (0..20).for_each(|number| assert_eq!(rx.try_pop(), Ok(number)));
    let mut set = WaitSet::new().unwrap();
    set.watch_room(&tx, 1).unwrap();
    assert!(set.wait().unwrap()[0].ready, "there is room for 24");
    tx.another().unwrap().try_push(60).unwrap();
    assert_eq!(late.try_pop(), Ok(20));
}

/// An end is told as its last holders left, whatever earlier ones did.
#[test]
fn old_finish_hides_no_abort() {
    let (tx, mut rx) = mpmc::channel::<u64>(4).unwrap();
    drop((tx.another().unwrap(), tx));
    assert_eq!(rx.try_pop(), Err(FINISHED));
    assert_eq!(rx.try_pop(), Err(FINISHED));
    let tx = rx.channel().producer().unwrap();
    tx.abort();
    assert_eq!(rx.try_pop(), Err(Error::Disconnected(End::Aborted)));
    drop(rx.channel().producer().unwrap());
    assert_eq!(rx.try_pop(), Err(FINISHED));
}

/// A set tells an end as the handle does: an old death or abort does not count again.
#[test]
fn sets_forget_reported_ends() {
    let (tx, mut rx) = mpmc::channel::<u64>(4).unwrap();
    let other = tx.another().unwrap();
    let mut set = WaitSet::new().unwrap();
    set.watch(&rx).unwrap();
    drop(tx);
    other.abort();
    let ended = |set: &mut WaitSet| set.wait().unwrap()[0].ended;
    assert_eq!(ended(&mut set), Some(End::Aborted));
    assert_eq!(rx.try_pop(), Err(Error::Disconnected(End::Aborted)));
    assert_eq!(rx.try_pop(), Err(Error::Disconnected(End::Aborted)));
    drop(rx.channel().producer().unwrap());
    assert_eq!(ended(&mut set), Some(End::Finished));
    assert_eq!(rx.try_pop(), Err(FINISHED));
}

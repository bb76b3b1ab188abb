//! Runs the verbs as futures, driven by the helper thread. Every message arrives, even if futures
//! or handles are dropped or processes forked in between. (Killed peers by the thousand:
//! `tests/tests/`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod executor;
mod feed;
mod memory;

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{pin::pin, thread};

use executor::{block_on, channels, fork, join_all, poll_once, polls_until, succeeded};
use slipring::{End, Error, PushError, Wait, WaitSet, bytes, spsc};

const MESSAGES: u64 = 20_000;
const AT_ONCE: Wait = Wait::Sleep {
    spin_for: std::time::Duration::ZERO,
};

/// Does the same for records up to 8 bytes; `records` of them fit.
fn records(records: usize) -> [(bytes::Producer, bytes::Consumer); 2] {
    let builder = || bytes::Builder::new(16 * records).max_record(16 * records - 8);
    let memfd = builder().memfd().unwrap();
    let passed = (memfd.producer().unwrap(), memfd.consumer().unwrap());
    [builder().channel_pair().unwrap(), passed]
}

/// A single message in flight wakes whoever waits for it.
#[test]
fn one_message_wakes_whoever_waits() {
    for capacity in [1, 2] {
        for ((mut to, mut from), (mut back, mut answers)) in
            channels(capacity).into_iter().zip(channels(capacity))
        {
            thread::scope(|scope| {
                scope.spawn(move || {
                    block_on(async {
                        while let Ok(value) = from.pop_async().await {
                            back.push_async(value + 1).await.unwrap();
                        }
                    });
                });
                block_on(async {
                    for value in 0..MESSAGES {
                        to.push_async(value).await.unwrap();
                        assert_eq!(answers.pop_async().await.unwrap(), value + 1);
                    }
                });
                drop(to);
            });
        }
    }
}

/// Rings of one slot and of two deliver all messages in order.
#[test]
fn small_rings_deliver_all_in_order() {
    for capacity in [1, 2] {
        for (mut tx, mut rx) in channels(capacity) {
            thread::scope(|scope| {
                scope.spawn(move || {
                    block_on(async {
                        for value in 0..MESSAGES {
                            tx.push_async(value).await.unwrap();
                        }
                    });
                });
                block_on(async {
                    for value in 0..MESSAGES {
                        assert_eq!(rx.pop_async().await.unwrap(), value);
                    }
                    let end = rx.pop_async().await;
                    assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
                });
            });
        }
    }
}

/// A batch written in place waits until all the room that it asked for is there.
#[test]
fn batches_wait_for_all_their_room() {
    for (mut tx, mut rx) in channels(4) {
        thread::scope(|scope| {
            scope.spawn(move || {
                block_on(async {
                    let mut next = 0;
                    while next < MESSAGES {
                        let mut slots = tx.reserve_async(3).await.unwrap();
                        (0..3).for_each(|n| slots.write(n, next + n as u64));
                        slots.commit(3);
                        next += 3;
                    }
                    let refused = tx.reserve_async(5).await.err().unwrap();
                    assert!(matches!(refused, Error::TooLarge { asked: 5, max: 4 }));
                });
            });
            block_on(async {
                let mut next = 0;
                assert_eq!(rx.read_batch_async(0).await.unwrap().len(), 0);
                while let Ok(messages) = rx.read_batch_async(2).await {
                    for value in messages.iter() {
                        assert_eq!(*value, next);
                        next += 1;
                    }
                }
                assert_eq!(next, MESSAGES.next_multiple_of(3));
            });
        });
    }
}

#[test]
fn records_wake_as_messages_do() {
    for (mut tx, mut rx) in records(4) {
        thread::scope(|scope| {
            scope.spawn(move || {
                block_on(async {
                    for value in 0..MESSAGES {
                        // Four lengths in turn: 1 to 8 bytes.
                        let len = 1 + value as usize % 8;
                        if value % 2 == 0 {
                            tx.push_async(&value.to_le_bytes()[..len]).await.unwrap();
                        } else {
                            let mut record = tx.reserve_async(8).await.unwrap();
                            record[..len].copy_from_slice(&value.to_le_bytes()[..len]);
                            record.commit(len);
                        }
                    }
                });
            });
            block_on(async {
                let mut out = [0; 8];
                for value in 0..MESSAGES {
                    let expected = &value.to_le_bytes()[..1 + value as usize % 8];
                    if value % 3 == 0 {
                        let len = rx.pop_async(&mut out).await.unwrap();
                        assert_eq!(&out[..len], expected);
                    } else {
                        assert_eq!(&rx.read_async().await.unwrap()[..], expected);
                    }
                }
                let end = rx.read_async().await.err().unwrap();
                assert!(matches!(end, Error::Disconnected(End::Finished)));
            });
        });
    }
}

/// A record that does not fit the reader's buffer stays in the ring, and a larger buffer takes it.
#[test]
fn a_record_too_long_stays() {
    let (mut tx, mut rx) = bytes::channel(64).unwrap();
    block_on(async {
        tx.push_async(b"12345678").await.unwrap();
        let refused = rx.pop_async(&mut [0; 4]).await.unwrap_err();
        assert!(matches!(refused, Error::TooLarge { asked: 8, max: 4 }));
        assert_eq!(rx.pop_async(&mut [0; 8]).await.unwrap(), 8);
        let refused = tx.push_async(&[0; 60]).await.unwrap_err();
        assert!(matches!(refused, Error::TooLarge { asked: 60, .. }));
    });
}

/// Futures that are dropped lose no message and repeat none. Futures that take a message, or make
/// room, in a loop that drops them again and again.
#[test]
fn dropped_futures_lose_and_repeat_nothing() {
    for capacity in [1, 2] {
        for (mut tx, mut rx) in channels(capacity) {
            tx.set_wait(AT_ONCE);
            rx.set_wait(AT_ONCE);
            thread::scope(|scope| {
                scope.spawn(move || {
                    for value in 0..MESSAGES {
                        // The value goes in if the future was polled to its end, and only then.
                        let went_in = (0..value % 3).any(|_| {
                            poll_once(tx.push_async(value))
                                .map(Result::unwrap)
                                .is_ready()
                        });
                        match value % 5 {
                            _ if went_in => {}
                            0 => tx.push(value).unwrap(),
                            _ => block_on(tx.push_async(value)).unwrap(),
                        }
                    }
                });
                let mut expected = 0;
                while expected < MESSAGES {
                    for _ in 0..expected % 4 {
                        if expected < MESSAGES
                            && let Poll::Ready(value) = poll_once(rx.pop_async())
                        {
                            assert_eq!(value.unwrap(), expected);
                            expected += 1;
                        }
                    }
                    // This uses the other wake mode, while the last future's request still stands.
                    let value = match expected % 5 {
                        _ if expected == MESSAGES => break,
                        0 => rx.pop(),
                        _ => block_on(rx.pop_async()),
                    };
                    assert_eq!(value.unwrap(), expected);
                    expected += 1;
                }
                let end = block_on(rx.pop_async());
                assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
            });
        }
    }
}

/// A push whose future is dropped while it waits for room leaves nothing in the ring.
#[test]
fn a_push_called_off_never_happened() {
    for (mut tx, mut rx) in channels(1) {
        for value in 0..2_000 {
            tx.try_push(value).unwrap();
            assert!(poll_once(tx.push_async(u64::MAX)).is_pending());
            assert_eq!(rx.try_pop().unwrap(), value);
            assert!(poll_once(rx.pop_async()).is_pending());
            assert!(poll_once(rx.read_async()).is_pending());
            assert!(poll_once(rx.read_batch_async(1)).is_pending());
        }
        assert_eq!(tx.len().unwrap(), 0);
    }
}

/// It comes after a hang-up, which stays until the waiter holds a spare writer, and after a byte
/// that should wake nobody.
#[test]
fn an_idle_future_is_left_alone() {
    let channel = spsc::Builder::<u64>::new(2).memfd().unwrap();
    let (mut rx, first) = (channel.consumer().unwrap(), channel.producer().unwrap());
    assert!(poll_once(rx.pop_async()).is_pending());
    drop(first);
    let end = block_on(rx.pop_async());
    assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
    let mut second = channel.producer().unwrap();
    let pipe = format!("/proc/self/fd/{}", rx.as_fd().unwrap().as_raw_fd());
    assert!(poll_once(rx.pop_async()).is_pending());
    std::fs::write(pipe, [1]).unwrap();
    // Each turn of these goes through the helper, twice.
    let [(mut to, mut from), (mut back, mut answers)] = channels(1);
    let polls = thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(value) = block_on(from.pop_async()) {
                block_on(back.push_async(value)).unwrap();
            }
        });
        block_on(polls_until(rx.pop_async(), async move {
            for value in 0..2_000 {
                to.push_async(value).await.unwrap();
                assert_eq!(answers.pop_async().await.unwrap(), value);
            }
        }))
    });
    assert!(polls <= 5, "polled {polls} times");
    second.push(1).unwrap();
    assert_eq!(block_on(rx.pop_async()).unwrap(), 1);
}

/// A waker that counts its wakes.
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The waker that the last poll gave is the one that is woken.
#[test]
fn the_last_waker_is_woken() {
    for (mut tx, mut rx) in channels(2) {
        let stale = Arc::new(Count(AtomicU64::new(0)));
        let waker = Waker::from(stale.clone());
        let mut future = pin!(rx.pop_async());
        for _ in 0..10 {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        thread::scope(|scope| {
            let push = scope.spawn(|| tx.push(7).unwrap());
            assert_eq!(block_on(&mut future).unwrap(), 7);
            push.join().unwrap();
        });
        // Nobody polls with the old waker any more; it may be woken if the push came first.
        assert!(stale.0.load(Ordering::SeqCst) <= 1);
    }
}

#[test]
fn an_end_wakes_whoever_waits() {
    for (how, expected) in [(true, End::Finished), (false, End::Aborted)] {
        for (tx, mut rx) in channels(1) {
            let mut future = pin!(rx.pop_async());
            let polled = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            thread::scope(|scope| {
                scope.spawn(move || if how { drop(tx) } else { tx.abort() });
                let end = block_on(&mut future);
                assert!(matches!(end, Err(Error::Disconnected(end)) if end == expected));
            });
        }
        for (mut tx, rx) in channels(1) {
            tx.push(1).unwrap();
            let mut future = pin!(tx.push_async(2));
            let polled = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            thread::scope(|scope| {
                scope.spawn(move || if how { drop(rx) } else { rx.abort() });
                let failed = block_on(&mut future);
                assert_eq!(failed, Err(PushError::Disconnected(2, expected)));
            });
        }
    }
}

/// An end was reported before by another call, by a future, or by a set: a future reports it again,
/// at once.
#[test]
fn futures_tell_ends_again() {
    fn finished<T>(told: Poll<Result<T, Error>>) -> bool {
        matches!(told, Poll::Ready(Err(Error::Disconnected(End::Finished))))
    }
    let mut set = WaitSet::new().unwrap();
    for (tx, mut rx) in channels(1) {
        drop(tx);
        assert!(finished(poll_once(rx.pop_async())) && finished(poll_once(rx.pop_async())));
        assert!(rx.pop().is_err() && finished(poll_once(rx.pop_async())));
        let key = set.watch(&rx).unwrap();
        assert!(finished(poll_once(rx.pop_async())));
        assert!(set.wait_timeout(Duration::ZERO).unwrap()[0].ready);
        assert!(set.unwatch(key));
        assert!(finished(poll_once(rx.pop_async())) && finished(poll_once(rx.pop_async())));
    }
    for (mut tx, rx) in channels(1) {
        tx.push(1).unwrap();
        drop(rx);
        assert!(tx.try_push(2).is_err() && finished(poll_once(tx.reserve_async(1))));
        assert!(finished(poll_once(tx.reserve_async(1))));
        let key = set.watch_room(&tx, 1).unwrap();
        assert!(set.wait_timeout(Duration::ZERO).unwrap()[0].ready);
        assert!(set.unwatch(key));
        assert!(finished(poll_once(tx.reserve_async(1))));
    }
}

/// A future that acknowledges the end makes the set wait for the next producer.
#[test]
fn futures_take_note_for_sets() {
    let (tx, mut rx) = spsc::channel::<u64>(1).unwrap();
    let mut set = WaitSet::new().unwrap();
    set.watch(&rx).unwrap();
    drop(tx);
    assert!(poll_once(rx.pop_async()).is_ready());
    assert!(set.wait_timeout(Duration::ZERO).unwrap()[0].ready);
    // It cannot wait in a set, but acknowledges the end.
    let refused = poll_once(rx.wait_for_producer_async());
    assert!(matches!(refused, Poll::Ready(Err(Error::InSet))));
    let told = set.wait_timeout(Duration::ZERO);
    assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
}

/// Only the set asks the kernel; a future reports the deaths that it found.
#[test]
fn futures_tell_deaths_found_by_sets() {
    let builder = spsc::Builder::<u64>::new(4).check_every(Duration::from_secs(3600));
    let channel = builder.memfd().unwrap();
    let mut rx = channel.consumer().unwrap();
    let child = fork(|| {
        let _tx = channel.producer().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    });
    assert!(!succeeded(child));
    let mut set = WaitSet::new().unwrap();
    set.watch(&rx).unwrap();
    let found = set.wait_timeout(Duration::ZERO).unwrap();
    assert!(found[0].ready && found[0].ended == Some(End::Died));
    for _ in 0..2 {
        let told = poll_once(rx.pop_async());
        let died = matches!(told, Poll::Ready(Err(Error::Disconnected(End::Died))));
        assert!(died, "{told:?}");
        assert!(set.wait_timeout(Duration::ZERO).unwrap()[0].ready);
    }
}

/// Either end learns by a future that nobody is opposite any more, and at once if nobody was.
#[test]
fn absences_are_awaited() {
    for (tx, mut rx) in channels(1) {
        thread::scope(|scope| {
            let gone = scope.spawn(move || block_on(rx.closed_async()));
            tx.abort();
            assert_eq!(gone.join().unwrap(), Ok(()));
        });
    }
    for (mut tx, rx) in channels(1) {
        drop(rx);
        assert_eq!(block_on(tx.closed_async()), Ok(()));
    }
}

/// A consumer waits for the first producer, and after its end for the next one.
#[test]
fn a_consumer_waits_for_each_producer() {
    let channel = spsc::Builder::<u64>::new(2).memfd().unwrap();
    let mut rx = channel.consumer().unwrap();
    for round in 0..300 {
        // The producer may come before or after the consumer waits.
        let producer = thread::scope(|scope| {
            let producer = scope.spawn(|| {
                let mut tx = channel.producer().unwrap();
                block_on(tx.push_async(round)).unwrap();
                tx
            });
            let value = block_on(async {
                rx.wait_for_producer_async().await?;
                rx.pop_async().await
            });
            assert_eq!(value.unwrap(), round);
            producer.join().unwrap()
        });
        drop(producer);
        let end = block_on(rx.pop_async());
        assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
    }
}

#[test]
fn a_producer_waits_for_its_consumer() {
    let channel = bytes::Builder::new(64).memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    for _ in 0..100 {
        assert!(poll_once(tx.wait_for_consumer_async()).is_pending());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut rx = channel.consumer().unwrap();
                assert_eq!(block_on(rx.pop_async(&mut [0; 8])).unwrap(), 5);
            });
            block_on(async {
                tx.wait_for_consumer_async().await.unwrap();
                tx.push_async(b"hello").await.unwrap();
            });
        });
        // A consumer was there, took it, and left; only a full channel reports that.
        while tx.try_push(b"").is_ok() {}
        let end = block_on(tx.push_async(b""));
        assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
        let mut rx = channel.consumer().unwrap();
        while rx.try_pop(&mut []).is_ok() {}
        assert!(poll_once(tx.wait_for_consumer_async()).is_ready());
        drop(rx);
    }
}

/// The end of a producer is reported before the messages of a successor that has already come.
#[test]
fn an_earlier_end_is_reported_first() {
    let channel = spsc::Builder::<u64>::new(4).memfd().unwrap();
    let mut rx = channel.consumer().unwrap();
    drop(channel.producer().unwrap());
    let mut tx = channel.producer().unwrap();
    let end = block_on(rx.pop_async());
    assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
    thread::scope(|scope| {
        scope.spawn(|| tx.push(1).unwrap());
        assert_eq!(block_on(rx.pop_async()).unwrap(), 1);
    });
}

/// A producer whose process is killed wakes its waiting consumer, which learns that it died.
#[test]
fn a_killed_producer_wakes_its_consumer() {
    let channel = spsc::Builder::<u64>::new(4).memfd().unwrap();
    let mut rx = channel.consumer().unwrap();
    for round in 0..50 {
        let child = fork(|| {
            let mut tx = channel.producer().unwrap();
            (0..10).for_each(|n| tx.push(round * 10 + n).unwrap());
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        });
        let mut seen = Vec::new();
        let end = block_on(async {
            rx.wait_for_producer_async().await.unwrap();
            loop {
                match rx.pop_async().await {
                    Ok(value) => seen.push(value),
                    Err(error) => break error,
                }
            }
        });
        assert!(matches!(end, Error::Disconnected(End::Died)), "{end:?}");
        assert_eq!(seen, Vec::from_iter(round * 10..round * 10 + 10));
        assert!(!succeeded(child));
    }
}

/// In borrowed memory a future that would have to wait is refused; one that need not wait works.
#[test]
fn borrowed_memory_has_no_waiting_futures() {
    let builder = spsc::Builder::<u64>::new(1);
    let memory = memory::Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    assert!(matches!(block_on(rx.pop_async()), Err(Error::NoPipes)));
    // A call that need not wait works.
    block_on(tx.push_async(5)).unwrap();
    let failed = block_on(tx.push_async(6));
    assert_eq!(failed, Err(PushError::Failed(6, Error::NoPipes)));
    assert_eq!(block_on(rx.pop_async()).unwrap(), 5);
}

#[test]
fn one_helper_serves_many_channels() {
    const CHANNELS: usize = 200;
    const EACH: u64 = 100;
    let pairs = (0..CHANNELS / 2).flat_map(|_| channels(2));
    let (mut producers, consumers): (Vec<_>, Vec<_>) = pairs.unzip();
    thread::scope(|scope| {
        scope.spawn(move || {
            for value in 0..EACH {
                let pushes = producers.iter_mut().enumerate();
                block_on(join_all(pushes.map(|(n, tx)| {
                    tx.push_async(value * CHANNELS as u64 + n as u64)
                })))
                .into_iter()
                .for_each(Result::unwrap);
            }
        });
        let all = block_on(join_all(consumers.into_iter().map(|mut rx| async move {
            let mut seen = Vec::new();
            while let Ok(value) = rx.pop_async().await {
                seen.push(value);
            }
            seen
        })));
        for (n, seen) in all.into_iter().enumerate() {
            let expected = (0..EACH).map(|value| value * CHANNELS as u64 + n as u64);
            assert_eq!(seen, Vec::from_iter(expected));
        }
    });
    let helpers = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name == "slipring\n")
        .count();
    assert_eq!(helpers, 1);
}

/// One waker panics, and the drop of another frees another handle.
#[test]
fn wakers_may_do_what_they_like() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("(part of the test)");
        }
    }
    struct Owns(#[expect(dead_code)] Mutex<Option<spsc::Consumer<u64>>>);
    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }
    let [(mut tx, mut rx), (owned_tx, mut owned)] = channels(1);
    let panics = Waker::from(Arc::new(Panics));
    let mut future = Box::pin(rx.pop_async());
    let mut polled = |waker: &Waker| {
        let polled = future.as_mut().poll(&mut Context::from_waker(waker));
        assert!(polled.is_pending());
    };
    polled(&panics);
    // `owned` is registered. Then it belongs to the waker of `rx`, and is dropped when that waker
    // is replaced.
    assert!(poll_once(owned.pop_async()).is_pending());
    let owns = Waker::from(Arc::new(Owns(Mutex::new(Some(owned)))));
    polled(&owns);
    drop(owns);
    polled(&panics);
    assert!(owned_tx.is_empty().unwrap());
    drop(future);
    assert!(matches!({ owned_tx }.is_disconnected(), Ok(true)));
    // The helper lives on.
    tx.push(0).unwrap();
    assert_eq!(rx.try_pop().unwrap(), 0);
    thread::scope(|scope| {
        scope.spawn(|| (0..MESSAGES).for_each(|n| block_on(tx.push_async(n)).unwrap()));
        for value in 0..MESSAGES {
            assert_eq!(block_on(rx.pop_async()).unwrap(), value);
        }
    });
}

/// A forked child cannot use its parent's handles, and gets a helper of its own for new ones.
#[test]
fn forked_children_get_their_own_helper() {
    for (mut tx, mut rx) in channels(1) {
        // The parent's helper is there, and watches `rx`.
        assert!(poll_once(rx.pop_async()).is_pending());
        let (mut forked_tx, mut forked_rx) = (Some(tx), Some(rx));
        let child = fork(|| {
            let (mut tx, mut rx) = (forked_tx.take().unwrap(), forked_rx.take().unwrap());
            let refused = block_on(tx.push_async(9));
            assert_eq!(refused, Err(PushError::Failed(9, Error::Forked)));
            assert!(matches!(block_on(rx.pop_async()), Err(Error::Forked)));
            drop((tx, rx));
            for (mut tx, mut rx) in channels(1) {
                thread::scope(|scope| {
                    scope.spawn(|| {
                        for value in 0..1_000 {
                            block_on(tx.push_async(value)).unwrap();
                        }
                    });
                    for value in 0..1_000 {
                        assert_eq!(block_on(rx.pop_async()).unwrap(), value);
                    }
                });
            }
        });
        assert!(succeeded(child));
        // The parent still watches the handles that the child dropped.
        (tx, rx) = (forked_tx.unwrap(), forked_rx.unwrap());
        thread::scope(|scope| {
            scope.spawn(|| (0..1_000).for_each(|n| block_on(tx.push_async(n)).unwrap()));
            for value in 0..1_000 {
                assert_eq!(block_on(rx.pop_async()).unwrap(), value);
            }
        });
    }
}

/// A fork at any moment leaves no lock locked in the child. Forks while other threads start the
/// helper, and register and drop handles: no child hangs.
#[test]
fn a_fork_leaves_no_lock_held() {
    thread::scope(|scope| {
        let going = Arc::new(());
        for _ in 0..2 {
            let going = Arc::downgrade(&going);
            scope.spawn(move || {
                while going.strong_count() > 0 {
                    let (_tx, mut rx) = spsc::channel::<u64>(1).unwrap();
                    assert!(poll_once(rx.pop_async()).is_pending());
                }
            });
        }
        let (_tx, mut watched) = spsc::channel::<u64>(1).unwrap();
        assert!(poll_once(watched.pop_async()).is_pending());
        let mut watched = Some(watched);
        for _ in 0..100 {
            let child = fork(|| {
                drop(watched.take());
                let (mut tx, mut rx) = spsc::channel::<u64>(1).unwrap();
                assert!(poll_once(rx.pop_async()).is_pending());
                tx.push(1).unwrap();
                assert_eq!(block_on(rx.pop_async()).unwrap(), 1);
            });
            assert!(succeeded(child));
        }
        drop(going);
    });
}

#[test]
fn futures_may_be_sent() {
    fn sent<F: Future + Send>(_: F) {}
    let (mut tx, mut rx) = spsc::channel::<u64>(1).unwrap();
    sent(tx.push_async(1));
    sent(rx.pop_async());
    let (mut tx, mut rx) = bytes::channel(64).unwrap();
    sent(tx.push_async(b"x"));
    sent(rx.pop_async(&mut [0; 8]));
}

/// The helper thread drives the futures, each on a thread of its own.
struct Threads;

impl feed::Drives for Threads {
    fn run(&self, tasks: Vec<feed::Task>) {
        thread::scope(|scope| {
            for task in tasks {
                scope.spawn(|| block_on(task));
            }
        });
    }
}

/// Broadcast futures that are dropped lose no message and repeat none.
#[test]
fn dropped_broadcast_futures_lose_nothing() {
    feed::dropped_futures_lose_and_repeat_nothing(&Threads);
}

#[test]
fn one_publish_wakes_all_that_wait() {
    feed::one_publish_wakes_all_that_wait(&Threads);
}

#[test]
fn readers_outlive_many_producers() {
    feed::readers_outlive_many_producers(&Threads);
}

/// A reader that lags learns how many messages it lost, and then gets the rest.
#[test]
fn a_lagging_reader_gets_the_rest() {
    feed::a_lagging_reader_gets_the_rest(&Threads);
}

#[cfg(feature = "stream")]
mod streams {
    use super::*;
    use feed::streams::{self, next};
    use futures_core::FusedStream;

    /// A stream ends once its producer has finished and all messages are taken.
    #[test]
    fn a_finished_producer_ends_a_stream() {
        for (mut tx, mut rx) in channels(2) {
            thread::scope(|scope| {
                scope.spawn(move || (0..MESSAGES).for_each(|n| tx.push(n).unwrap()));
                let mut expected = 0;
                while expected < MESSAGES / 2 {
                    // A dropped stream has taken the messages that it yielded.
                    let mut stream = rx.stream();
                    for _ in 0..3 {
                        assert_eq!(block_on(next(&mut stream)).unwrap().unwrap(), expected);
                        expected += 1;
                    }
                }
                let mut stream = rx.stream();
                while let Some(value) = block_on(next(&mut stream)) {
                    assert_eq!(value.unwrap(), expected);
                    expected += 1;
                }
                assert_eq!(expected, MESSAGES);
                assert!(stream.is_terminated() && block_on(next(&mut stream)).is_none());
            });
        }
    }

    /// A stream reports an end other than `Finished` once, as an error, and then ends.
    #[test]
    fn a_stream_reports_other_ends_once() {
        for (mut tx, mut rx) in records(4) {
            tx.push(b"one").unwrap();
            tx.abort();
            let mut stream = rx.stream();
            assert_eq!(block_on(next(&mut stream)).unwrap().unwrap(), b"one");
            let end = block_on(next(&mut stream)).unwrap();
            assert!(matches!(end, Err(Error::Disconnected(End::Aborted))));
            assert!(block_on(next(&mut stream)).is_none());
        }
    }

    /// A broadcast stream that lags yields how many messages it lost, and then the rest.
    #[test]
    fn a_lagging_stream_gets_the_rest() {
        streams::a_lagging_reader_gets_the_rest(&Threads);
    }

    /// A stream of a broadcast reader ends when its producer does.
    #[test]
    fn a_broadcast_stream_ends_too() {
        streams::a_stream_ends_with_its_producer(&Threads);
    }
}

/// One task always finds a message, and another runs beside it on the same thread.
#[test]
fn a_hot_channel_lets_others_run() {
    let (mut tx, mut rx) = spsc::channel::<u64>(1024).unwrap();
    tx.push_iter(0..1024).unwrap();
    let popped = std::cell::Cell::new(0);
    let hot = async {
        for number in 0..1024 {
            assert_eq!(rx.pop_async().await.unwrap(), number);
            popped.set(number + 1);
        }
    };
    let mut hot = std::pin::pin!(hot);
    let mut turns = Vec::new();
    executor::block_on(std::future::poll_fn(|cx| {
        let polled = std::future::Future::poll(hot.as_mut(), cx);
        // This is the other task.
        turns.push(popped.get());
        polled
    }));
    assert_eq!(turns, (1..=8).map(|turn| turn * 128).collect::<Vec<_>>());
}

#[test]
fn a_hot_reader_lets_others_run() {
    let (mut tx, mut rx) = spsc::channel::<u64>(1024).unwrap();
    tx.push_iter(0..1024).unwrap();
    let read = std::cell::Cell::new(0);
    let hot = async {
        for number in 0..1024 {
            assert_eq!(*rx.read_async().await.unwrap(), number);
            read.set(number + 1);
        }
    };
    let mut hot = std::pin::pin!(hot);
    let mut turns = 0;
    executor::block_on(std::future::poll_fn(|cx| {
        turns += 1;
        std::future::Future::poll(hot.as_mut(), cx)
    }));
    assert_eq!(read.get(), 1024);
    assert!(turns > 1, "one turn for all");
}

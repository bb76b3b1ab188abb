//! Futures driven by tokio's own event loop, on both kinds of runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod executor;
mod feed;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use executor::{channels, fork, poll_once, polls_until, succeeded};
use feed::{Drives, Task, streams};
use futures_core::Stream;
use slipring::{End, Error, broadcast, bytes, spsc};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

const MESSAGES: u64 = 20_000;

fn runtimes() -> [Runtime; 2] {
    let current = Builder::new_current_thread().enable_all().build().unwrap();
    let several = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    [current, several]
}

/// Runs the future as a task of its own: on a runtime of several threads, it runs on one of them.
fn run<F>(runtime: &Runtime, future: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    runtime.block_on(async { tokio::spawn(future).await.unwrap() })
}

/// A single message in flight wakes the task that waits for it.
#[test]
fn one_message_wakes_its_waiting_task() {
    for runtime in runtimes() {
        for capacity in [1, 2] {
            for ((mut to, mut from), (mut back, mut answers)) in
                channels(capacity).into_iter().zip(channels(capacity))
            {
                run(&runtime, async move {
                    let echo = tokio::spawn(async move {
                        from.on_tokio().unwrap();
                        back.on_tokio().unwrap();
                        while let Ok(value) = from.pop_async().await {
                            back.push_async(value + 1).await.unwrap();
                        }
                    });
                    to.on_tokio().unwrap();
                    answers.on_tokio().unwrap();
                    for value in 0..MESSAGES {
                        to.push_async(value).await.unwrap();
                        assert_eq!(answers.pop_async().await.unwrap(), value + 1);
                    }
                    drop(to);
                    echo.await.unwrap();
                });
            }
        }
    }
}

/// Tasks on Tokio and plain threads send each other messages.
#[test]
fn tasks_and_threads_feed_each_other() {
    for runtime in runtimes() {
        for capacity in [1, 2] {
            for (mut tx, mut rx) in channels(capacity) {
                let thread = thread::spawn(move || (0..MESSAGES).for_each(|n| tx.push(n).unwrap()));
                run(&runtime, async move {
                    rx.on_tokio().unwrap();
                    for value in 0..MESSAGES {
                        assert_eq!(rx.pop_async().await.unwrap(), value);
                    }
                    let end = rx.pop_async().await;
                    assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
                });
                thread.join().unwrap();
            }
            for (mut tx, mut rx) in channels(capacity) {
                let thread = thread::spawn(move || {
                    (0..MESSAGES).for_each(|n| assert_eq!(rx.pop().unwrap(), n))
                });
                run(&runtime, async move {
                    tx.on_tokio().unwrap();
                    for value in 0..MESSAGES {
                        tx.push_async(value).await.unwrap();
                    }
                });
                thread.join().unwrap();
            }
        }
    }
}

#[test]
fn records_and_streams_do_likewise() {
    for runtime in runtimes() {
        let memfd = bytes::Builder::new(64).memfd().unwrap();
        let (mut tx, mut rx) = (memfd.producer().unwrap(), memfd.consumer().unwrap());
        run(&runtime, async move {
            let pushes = tokio::spawn(async move {
                tx.on_tokio().unwrap();
                for value in 0..MESSAGES {
                    let mut record = tx.reserve_async(12).await.unwrap();
                    record[..8].copy_from_slice(&value.to_le_bytes());
                    record.commit(8);
                }
            });
            rx.on_tokio().unwrap();
            let mut stream = rx.stream();
            let mut next = async || poll_fn(|cx| pin!(&mut stream).poll_next(cx)).await;
            for value in 0..MESSAGES {
                assert_eq!(next().await.unwrap().unwrap(), value.to_le_bytes());
            }
            assert!(next().await.is_none());
            pushes.await.unwrap();
        });
    }
}

/// Futures that are dropped lose no message and repeat none.
#[test]
fn dropped_futures_lose_and_repeat_nothing() {
    const AT_ONCE: Duration = Duration::ZERO;
    for runtime in runtimes() {
        for (mut tx, mut rx) in channels(2) {
            run(&runtime, async move {
                let pushes = tokio::spawn(async move {
                    tx.on_tokio().unwrap();
                    for value in 0..MESSAGES {
                        // The future is polled once, and dropped.
                        let once = tokio::time::timeout(AT_ONCE, tx.push_async(value)).await;
                        match once {
                            Ok(pushed) => pushed.unwrap(),
                            Err(_) => tx.push_async(value).await.unwrap(),
                        }
                    }
                });
                rx.on_tokio().unwrap();
                for value in 0..MESSAGES {
                    let once = tokio::time::timeout(AT_ONCE, rx.pop_async()).await;
                    let popped = match once {
                        Ok(popped) => popped,
                        Err(_) => rx.pop_async().await,
                    };
                    assert_eq!(popped.unwrap(), value);
                }
                pushes.await.unwrap();
            });
        }
    }
}

/// tokio never forgets a hang-up: the consumer has to leave each producer's end behind before the
/// next one's messages.
#[test]
fn one_consumer_outlives_many_producers() {
    const ROUNDS: u64 = 500;
    for runtime in runtimes() {
        let channel = spsc::Builder::<u64>::new(2).memfd().unwrap();
        let mut rx = channel.consumer().unwrap();
        let (next, called) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            for round in called {
                let mut tx = channel.producer().unwrap();
                (0..5).for_each(|n| tx.push(round * 5 + n).unwrap());
            }
        });
        run(&runtime, async move {
            rx.on_tokio().unwrap();
            for round in 0..ROUNDS {
                next.send(round).unwrap();
                rx.wait_for_producer_async().await.unwrap();
                for value in round * 5..round * 5 + 5 {
                    assert_eq!(rx.pop_async().await.unwrap(), value);
                }
                let end = rx.pop_async().await;
                assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
            }
        });
        thread.join().unwrap();
    }
}

/// After a hang-up, a task that waits for the next producer is not polled over and over.
#[test]
fn a_hangup_leaves_idle_tasks_alone() {
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let channel = spsc::Builder::<u64>::new(2).memfd().unwrap();
        let (mut rx, first) = (channel.consumer().unwrap(), channel.producer().unwrap());
        rx.on_tokio().unwrap();
        assert!(poll_once(rx.pop_async()).is_pending());
        drop(first);
        // Each turn looks at the event loop.
        let turns = async || {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
        };
        turns().await;
        let end = rx.pop_async().await;
        assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
        let mut second = channel.producer().unwrap();
        let polls = polls_until(rx.pop_async(), turns()).await;
        assert!(polls <= 5, "polled {polls} times");
        second.push(1).unwrap();
        assert_eq!(rx.pop_async().await.unwrap(), 1);
    });
}

/// A producer whose process is killed wakes its waiting consumer.
#[test]
fn a_killed_producer_wakes_its_consumer() {
    let channel = spsc::Builder::<u64>::new(4).memfd().unwrap();
    let mut rx = channel.consumer().unwrap();
    for runtime in runtimes() {
        let _within = runtime.enter();
        rx.on_tokio().unwrap();
        for round in 0..25 {
            let child = fork(|| {
                let mut tx = channel.producer().unwrap();
                (0..10).for_each(|n| tx.push(round * 10 + n).unwrap());
                let us = rustix::process::getpid();
                rustix::process::kill_process(us, rustix::process::Signal::KILL).unwrap();
            });
            let (seen, end) = runtime.block_on(async {
                let mut seen = Vec::new();
                rx.wait_for_producer_async().await.unwrap();
                loop {
                    match rx.pop_async().await {
                        Ok(value) => seen.push(value),
                        Err(error) => return (seen, error),
                    }
                }
            });
            assert!(matches!(end, Error::Disconnected(End::Died)), "{end:?}");
            assert_eq!(seen, Vec::from_iter(round * 10..round * 10 + 10));
            assert!(!succeeded(child));
        }
    }
}

/// A task that always finds something, and so never waits, still leaves other tasks a turn.
#[test]
fn a_busy_task_lets_others_run() {
    let [runtime, _] = runtimes();
    let (mut tx, mut rx) = spsc::channel::<u64>(1).unwrap();
    runtime.block_on(async {
        tx.on_tokio().unwrap();
        rx.on_tokio().unwrap();
        let other = tokio::spawn(async {});
        // Both ends are in one task: neither ever has to wait.
        while !other.is_finished() {
            tx.push_async(1).await.unwrap();
            assert_eq!(rx.pop_async().await.unwrap(), 1);
        }
    });
}

/// A handle that a forked child drops is still watched in its parent.
#[test]
fn drops_in_a_fork_unwatch_nothing() {
    let [runtime, _] = runtimes();
    for (mut tx, rx) in channels(1) {
        let mut rx = Some(rx);
        {
            let _within = runtime.enter();
            let rx = rx.as_mut().unwrap();
            rx.on_tokio().unwrap();
            assert!(poll_once(rx.pop_async()).is_pending());
        }
        let child = fork(|| {
            let mut rx = rx.take().unwrap();
            assert!(matches!(rx.on_tokio(), Err(Error::Forked)));
            drop(rx);
        });
        assert!(succeeded(child));
        let thread = thread::spawn(move || (0..100).for_each(|n| tx.push(n).unwrap()));
        let mut rx = rx.unwrap();
        for value in 0..100 {
            assert_eq!(runtime.block_on(rx.pop_async()).unwrap(), value);
        }
        thread.join().unwrap();
    }
}

/// Without a runtime `on_tokio` is refused, and the handle works as before.
#[test]
fn on_tokio_needs_a_runtime() {
    let (mut tx, mut rx) = spsc::channel::<u64>(1).unwrap();
    assert!(matches!(rx.on_tokio(), Err(Error::NoRuntime)));
    assert!(matches!(tx.on_tokio(), Err(Error::NoRuntime)));
    let thread = thread::spawn(move || (0..100).for_each(|n| tx.push(n).unwrap()));
    for value in 0..100 {
        assert_eq!(executor::block_on(rx.pop_async()).unwrap(), value);
    }
    thread.join().unwrap();
}

/// A runtime that has gone is an error for a waiting future, and the handle may enter another one.
#[test]
fn a_lost_runtime_can_be_replaced() {
    let [first, second] = runtimes();
    for (mut tx, mut rx) in channels(1) {
        let doomed = Builder::new_current_thread().enable_all().build().unwrap();
        doomed.block_on(async { rx.on_tokio() }).unwrap();
        let mut future = Box::pin(rx.pop_async());
        let waker = Waker::noop();
        assert!(
            future
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
        drop(doomed);
        let polled = future.as_mut().poll(&mut Context::from_waker(waker));
        assert!(
            matches!(polled, Poll::Ready(Err(Error::Os { .. }))),
            "{polled:?}"
        );
        drop(future);
        // The handle enters the same runtime twice, and moves to another.
        for runtime in [&first, &first, &second] {
            let _within = runtime.enter();
            rx.on_tokio().unwrap();
            tx.push(3).unwrap();
            assert_eq!(runtime.block_on(rx.pop_async()).unwrap(), 3);
        }
    }
}

impl Drives for Runtime {
    fn producer<M: broadcast::Mode>(&self, tx: &mut broadcast::Producer<u64, M>) {
        let _within = self.enter();
        tx.on_tokio().unwrap();
    }

    fn consumer<M: broadcast::Mode>(&self, rx: &mut broadcast::Consumer<u64, M>) {
        let _within = self.enter();
        rx.on_tokio().unwrap();
    }

    fn run(&self, tasks: Vec<Task>) {
        self.block_on(async {
            let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

/// Broadcast futures that are dropped lose no message and repeat none.
#[test]
fn dropped_broadcast_futures_lose_nothing() {
    let each = feed::dropped_futures_lose_and_repeat_nothing;
    runtimes().iter().for_each(each);
}

#[test]
fn one_publish_wakes_all_that_wait() {
    runtimes()
        .iter()
        .for_each(feed::one_publish_wakes_all_that_wait);
}

#[test]
fn readers_outlive_many_producers() {
    runtimes()
        .iter()
        .for_each(feed::readers_outlive_many_producers);
}

/// A broadcast reader or stream that lags learns how many messages it lost, and then gets the rest.
#[test]
fn a_lagging_reader_gets_the_rest() {
    runtimes()
        .iter()
        .for_each(feed::a_lagging_reader_gets_the_rest);
    runtimes()
        .iter()
        .for_each(streams::a_lagging_reader_gets_the_rest);
}

#[test]
fn a_stream_ends_with_its_producer() {
    runtimes()
        .iter()
        .for_each(streams::a_stream_ends_with_its_producer);
}

/// Writes all of `sent` by tokio's trait.
async fn write_all(tx: &mut bytes::Producer, mut sent: &[u8]) {
    let mut writer = tx.writer();
    while !sent.is_empty() {
        let count = poll_fn(|cx| pin!(&mut writer).poll_write(cx, sent)).await;
        sent = &sent[count.unwrap()..];
    }
}

/// Reads to the end of the stream by tokio's trait.
async fn read_to_end(rx: &mut bytes::Consumer) -> Vec<u8> {
    let (mut reader, mut seen) = (rx.reader(), Vec::new());
    loop {
        let mut some = [0; 17];
        let mut out = ReadBuf::new(&mut some);
        let read = poll_fn(|cx| pin!(&mut reader).poll_read(cx, &mut out)).await;
        read.unwrap();
        if out.filled().is_empty() {
            return seen;
        }
        seen.extend_from_slice(out.filled());
    }
}

/// Bytes that tokio's `AsyncWrite` takes come out of its `AsyncRead`, through a ring that is much
/// smaller, and end with the producer.
#[test]
fn bytes_pass_as_tokio_streams() {
    for runtime in runtimes() {
        let (mut tx, mut rx) = bytes::channel(256).unwrap();
        let sent: Vec<u8> = (0..50_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let copy = sent.clone();
        let seen = run(&runtime, async move {
            let writer = tokio::spawn(async move {
                for part in copy.chunks(333) {
                    write_all(&mut tx, part).await;
                }
            });
            let seen = read_to_end(&mut rx).await;
            writer.await.unwrap();
            seen
        });
        assert_eq!(seen, sent);
    }
}

/// The look behind an empty record finds the end, which has a successor by then: it is reported,
/// and does not get lost.
#[test]
fn an_end_behind_emptiness_is_reported() {
    for runtime in runtimes() {
        let (mut tx, mut rx) = bytes::channel(256).unwrap();
        let channel = tx.channel();
        tx.push(b"first").unwrap();
        tx.push(b"").unwrap();
        drop(tx);
        let mut next = channel.producer().unwrap();
        run(&runtime, async move {
            assert_eq!(read_to_end(&mut rx).await, b"first");
            next.push(b"second").unwrap();
            drop(next);
            assert_eq!(read_to_end(&mut rx).await, b"second");
        });
    }
}

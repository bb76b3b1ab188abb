//! Checks the futures of `broadcast`, in both modes, under any executor.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use slipring::broadcast::{Builder, Channel, Consumer, Mode, Producer};
use slipring::inspect::WhenFull;
use slipring::{End, Error};

const MESSAGES: u64 = 5_000;
const READERS: usize = 3;
/// However slow the machine, a woken task has reported by then.
const LATE: Duration = Duration::from_secs(60);

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An executor that drives futures.
pub(crate) trait Drives {
    /// Drives the futures of this handle, from now on.
    fn producer<M: Mode>(&self, _: &mut Producer<u64, M>) {}
    fn consumer<M: Mode>(&self, _: &mut Consumer<u64, M>) {}
    /// Runs each task by itself, until all are done.
    fn run(&self, tasks: Vec<Task>);
}

/// Returns a channel on the heap, and one in memfds.
fn channels<M: Mode>(builder: Builder<u64, M>) -> [Channel<u64, M>; 2] {
    let builder = builder.consumers(READERS);
    [builder.heap().unwrap(), builder.memfd().unwrap()]
}

/// Returns the ends of such channels.
fn feeds<M: Mode>(
    driver: &impl Drives,
    builder: Builder<u64, M>,
) -> impl Iterator<Item = (Producer<u64, M>, Vec<Consumer<u64, M>>)> {
    channels(builder).into_iter().map(|channel| {
        let mut tx = channel.producer().unwrap();
        driver.producer(&mut tx);
        (tx, readers(driver, &channel))
    })
}

fn readers<M: Mode>(driver: &impl Drives, channel: &Channel<u64, M>) -> Vec<Consumer<u64, M>> {
    let reader = |_| {
        let mut rx = channel.consumer().unwrap();
        driver.consumer(&mut rx);
        rx
    };
    (0..READERS).map(reader).collect()
}

fn tasks<M, F>(readers: Vec<Consumer<u64, M>>, read: impl FnMut(Consumer<u64, M>) -> F) -> Vec<Task>
where
    M: Mode,
    F: Future<Output = ()> + Send + 'static,
{
    let reads = readers.into_iter().map(read);
    reads.map(|read| Box::pin(read) as Task).collect()
}

/// Polls once, and drops the future if it is not ready.
async fn once<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Each call is dropped after a poll, and made again; a reader learns of its losses to the exact
/// message.
pub(crate) fn dropped_futures_lose_and_repeat_nothing(driver: &impl Drives) {
    dropped_futures(driver, Builder::new(2));
    dropped_futures(driver, Builder::new(2).overwriting());
}

fn dropped_futures<M: Mode>(driver: &impl Drives, builder: Builder<u64, M>) {
    for (mut tx, readers) in feeds(driver, builder) {
        let read = |mut rx: Consumer<u64, M>| async move {
            let mut next = 0;
            loop {
                let popped = match once(rx.pop_async()).await {
                    Poll::Ready(popped) => popped,
                    Poll::Pending => rx.pop_async().await,
                };
                match popped {
                    Ok(value) => {
                        assert_eq!(value, next);
                        next += 1;
                    }
                    Err(Error::Lagged(lost)) if M::WHEN_FULL == WhenFull::Overwrite => next += lost,
                    end => {
                        assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
                        return assert_eq!(next, MESSAGES);
                    }
                }
            }
        };
        let mut tasks = tasks(readers, read);
        tasks.push(Box::pin(async move {
            for value in 0..MESSAGES {
                if value % 2 == 0 {
                    drop(once(tx.reserve_async(1)).await);
                }
                match once(tx.push_async(value)).await {
                    Poll::Ready(pushed) => pushed.unwrap(),
                    Poll::Pending => tx.push_async(value).await.unwrap(),
                }
            }
        }));
        driver.run(tasks);
    }
}

/// No task is polled again before it is woken.
pub(crate) fn one_publish_wakes_all_that_wait(driver: &impl Drives) {
    one_publish_wakes_all(driver, Builder::new(8));
    one_publish_wakes_all(driver, Builder::new(8).overwriting());
}

fn one_publish_wakes_all<M: Mode>(driver: &impl Drives, builder: Builder<u64, M>) {
    for (mut tx, readers) in feeds(driver, builder) {
        let (waits, all_wait) = mpsc::channel::<()>();
        let (woken, all_woken) = mpsc::channel();
        let read = |mut rx: Consumer<u64, M>| {
            let (mut not_yet, woken) = (Some(waits.clone()), woken.clone());
            async move {
                let mut popped = pin!(rx.pop_async());
                let popped = poll_fn(|cx| {
                    let polled = popped.as_mut().poll(cx);
                    match polled {
                        Poll::Pending => not_yet = None,
                        Poll::Ready(_) => assert!(not_yet.is_none(), "it never waited"),
                    }
                    polled
                });
                assert_eq!(popped.await.unwrap(), 7);
                woken.send(()).unwrap();
            }
        };
        let tasks = tasks(readers, read);
        drop(waits);
        thread::scope(|scope| {
            scope.spawn(move || {
                // This fails as soon as every reader waits.
                all_wait.recv().unwrap_err();
                tx.push(7).unwrap();
                // Until then the task stays: its end would wake the others as well.
                (0..READERS).for_each(|_| all_woken.recv_timeout(LATE).unwrap());
            });
            driver.run(tasks);
        });
    }
}

pub(crate) fn readers_outlive_many_producers(driver: &impl Drives) {
    readers_outlive_producers(driver, Builder::new(16));
    readers_outlive_producers(driver, Builder::new(16).overwriting());
}

fn readers_outlive_producers<M: Mode>(driver: &impl Drives, builder: Builder<u64, M>) {
    const ROUNDS: u64 = 100;
    for channel in channels(builder) {
        let (says, told) = mpsc::channel();
        let read = |mut rx: Consumer<u64, M>| {
            let says = says.clone();
            async move {
                for round in 0..ROUNDS {
                    rx.wait_for_producer_async().await.unwrap();
                    for value in round * 5..round * 5 + 5 {
                        assert_eq!(rx.pop_async().await.unwrap(), value);
                    }
                    says.send(()).unwrap();
                    let end = rx.pop_async().await;
                    assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
                    says.send(()).unwrap();
                }
            }
        };
        let tasks = tasks(readers(driver, &channel), read);
        thread::scope(|scope| {
            scope.spawn(move || {
                let all_said = || (0..READERS).for_each(|_| told.recv_timeout(LATE).unwrap());
                for round in 0..ROUNDS {
                    let mut tx = channel.producer().unwrap();
                    (0..5).for_each(|n| tx.push(round * 5 + n).unwrap());
                    // The producer stays until all have found the message, and the next one
                    // comes when all know of its end.
                    all_said();
                    drop(tx);
                    all_said();
                }
            });
            driver.run(tasks);
        });
    }
}

/// A small ring keeps half of eight messages, when it gives up the oldest.
pub(crate) fn a_lagging_reader_gets_the_rest(driver: &impl Drives) {
    for (mut tx, mut readers) in feeds(driver, Builder::new(8).overwriting()) {
        driver.run(vec![Box::pin(async move {
            let mut rx = readers.pop().unwrap();
            let mut popped = Box::pin(rx.pop_async());
            assert!(once(&mut popped).await.is_pending());
            for value in 0..10 {
                tx.push_async(value).await.unwrap();
            }
            assert!(matches!(popped.await, Err(Error::Lagged(5))));
            for value in 5..10 {
                assert_eq!(rx.pop_async().await.unwrap(), value);
            }
            assert!(once(rx.pop_async()).await.is_pending());
        })]);
    }
}

#[cfg(feature = "stream")]
pub(crate) mod streams {
    use super::*;
    use futures_core::{FusedStream, Stream};

    pub(crate) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
        poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
    }

    pub(crate) fn a_lagging_reader_gets_the_rest(driver: &impl Drives) {
        for (mut tx, mut readers) in feeds(driver, Builder::new(8).overwriting()) {
            driver.run(vec![Box::pin(async move {
                let mut rx = readers.pop().unwrap();
                let mut stream = rx.stream();
                assert!(once(next(&mut stream)).await.is_pending());
                for value in 0..10 {
                    tx.push_async(value).await.unwrap();
                }
                let lost = next(&mut stream).await.unwrap();
                assert!(matches!(lost, Err(Error::Lagged(5))));
                assert!(!stream.is_terminated());
                for value in 5..10 {
                    assert_eq!(next(&mut stream).await.unwrap().unwrap(), value);
                }
                assert!(once(next(&mut stream)).await.is_pending());
            })]);
        }
    }

    /// Each stream has all messages, or reports its losses; it ends without an item when the
    /// producer has finished.
    pub(crate) fn a_stream_ends_with_its_producer(driver: &impl Drives) {
        a_stream_ends(driver, &Builder::new(2));
        a_stream_ends(driver, &Builder::new(2).overwriting());
    }

    fn a_stream_ends<M: Mode>(driver: &impl Drives, builder: &Builder<u64, M>) {
        for aborts in [false, true] {
            for (mut tx, readers) in feeds(driver, builder.clone()) {
                let read = |mut rx: Consumer<u64, M>| async move {
                    let mut expected = 0;
                    let mut stream = rx.stream();
                    let end = loop {
                        match next(&mut stream).await {
                            Some(Ok(value)) => {
                                assert_eq!(value, expected);
                                expected += 1;
                            }
                            Some(Err(Error::Lagged(lost)))
                                if M::WHEN_FULL == WhenFull::Overwrite =>
                            {
                                expected += lost;
                            }
                            end => break end,
                        }
                    };
                    assert_eq!(expected, MESSAGES);
                    assert!(match end {
                        Some(Err(Error::Disconnected(End::Aborted))) => aborts,
                        end => end.is_none() && !aborts,
                    });
                    assert!(stream.is_terminated() && next(&mut stream).await.is_none());
                };
                let mut tasks = tasks(readers, read);
                tasks.push(Box::pin(async move {
                    for value in 0..MESSAGES {
                        tx.push_async(value).await.unwrap();
                    }
                    if aborts {
                        tx.abort();
                    }
                }));
                driver.run(tasks);
            }
        }
    }
}

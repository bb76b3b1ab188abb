//! Dead letters of a queue beside its other messages, and guards that have left their handle's hands while it waits.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use slipring::mpmc::{self, Builder, Consumer, Producer};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls `future`, which is not ready, then calls `act`, and waits until that has woken the future and made it ready.
fn ready_after<F: Future>(future: F, act: impl FnOnce()) -> F::Output {
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    assert!(future.as_mut().poll(&mut cx).is_pending());
    act();
    let begun = Instant::now();
    loop {
        if woken.0.swap(false, Ordering::SeqCst)
            && let Poll::Ready(result) = future.as_mut().poll(&mut cx)
        {
            return result;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody woke the future");
        std::thread::yield_now();
    }
}

/// A handle that waits is woken by what happens to its own messages and reservations, which have left its hands.
#[test]
fn own_guards_wake_their_handle() {
    let (mut tx, mut rx) = mpmc::channel::<u64>(1).unwrap();
    let reserved = tx.reserve_owned(1).unwrap();
    ready_after(tx.push_async(7), || reserved.discard()).unwrap();
    let message = rx.read_owned().unwrap();
    let again = ready_after(rx.pop_async(), || message.keep());
    assert_eq!((again, rx.deliveries()), (Ok(7), 1));
}

/// Passes so many messages, so that the next one has another slot.
fn pass(tx: &mut Producer<u64>, rx: &mut Consumer<u64>, count: u64) {
    for number in 0..count {
        tx.try_push(number).unwrap();
        assert_eq!(rx.try_pop(), Ok(number));
    }
}

/// Pushes a message and gives it back until it is put aside.
fn bury(tx: &mut Producer<u64>, rx: &mut Consumer<u64>, number: u64) {
    tx.try_push(number).unwrap();
    rx.try_read().unwrap().keep();
    assert!(rx.try_pop().is_err(), "put aside");
}

/// A batch finds room behind a letter, wherever that lies.
#[test]
fn batches_fit_beside_a_letter() {
    for behind in 0..9 {
        let channel = Builder::<u64>::new(8).dead_letters(1, 4);
        let (mut tx, mut rx) = channel.channel_pair().unwrap();
        pass(&mut tx, &mut rx, 3);
        bury(&mut tx, &mut rx, 1000);
        pass(&mut tx, &mut rx, behind);
        tx.try_reserve(5).unwrap().commit(5);
        assert_eq!(rx.try_pop_slice(&mut [0; 8]), Ok(5), "{behind}");
        assert_eq!(*rx.try_dead_letter().unwrap(), 1000);
    }
}

/// Letters never fill the queue, however many are to be kept; a queue of one slot keeps none.
#[test]
fn letters_leave_room() {
    for capacity in [1, 2, 4, 8] {
        let channel = Builder::<u64>::new(capacity).dead_letters(1, 100);
        let (mut tx, mut rx) = channel.channel_pair().unwrap();
        for number in 0..20 {
            bury(&mut tx, &mut rx, number);
        }
        assert_eq!(rx.dead_letters(), capacity / 2);
        pass(&mut tx, &mut rx, 20);
    }
}

/// The letter that was put aside first is dropped first, also if producers have carried it since.
#[test]
fn oldest_letter_is_dropped() {
    for between in 0..20 {
        let channel = Builder::<u64>::new(8).dead_letters(1, 2);
        let (mut tx, mut rx) = channel.channel_pair().unwrap();
        for number in [100, 200, 300] {
            bury(&mut tx, &mut rx, number);
            pass(&mut tx, &mut rx, between);
        }
        let mut letters: Vec<u64> = Vec::new();
        while let Ok(letter) = rx.try_dead_letter() {
            letters.push(*letter);
        }
        letters.sort_unstable();
        assert_eq!(letters, [200, 300], "{between}");
    }
}

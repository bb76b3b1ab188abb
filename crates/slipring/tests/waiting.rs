//! Checks waiting calls between threads: deadlines, signals, spurious wakes, hostile words, and the
//! wake that a killed publisher left undone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use slipring::{End, Error, PushError, Wait, bytes, spsc};

use memory::Memory;

/// A timeout so long that a lost wake is a test that does not end.
const FOR_EVER: Duration = Duration::from_secs(3600);
const AT_ONCE: Wait = Wait::Sleep {
    spin_for: Duration::ZERO,
};

fn sleepy(capacity: usize) -> spsc::Builder<u64> {
    spsc::Builder::new(capacity)
        .wait(AT_ONCE)
        .check_every(FOR_EVER)
}

/// Returns the consumers' wait cell: its waiters word and its doorbell, as FORMAT.md says.
fn wait_cell(memory: &Memory) -> (&AtomicU64, &AtomicU32) {
    let doorbell = memory.control(640 + 16);
    // SAFETY: the first half of that word; everybody accesses it as 32 bits.
    let doorbell = unsafe { AtomicU32::from_ptr(doorbell.as_ptr().cast()) };
    (memory.control(640), doorbell)
}

/// Waits until the consumer has asked to be woken.
fn until_asleep(waiters: &AtomicU64) {
    while waiters.load(Ordering::Relaxed) & 1 == 0 {
        thread::yield_now();
    }
}

/// Every way of waiting delivers: messages to a reader that waits, and room to a writer that waits.
#[test]
fn every_wait_works_in_both_directions() {
    let default = Wait::default();
    for wait in [Wait::Spin, Wait::Yield, AT_ONCE, default] {
        let builder = spsc::Builder::<u64>::new(1)
            .wait(wait)
            .check_every(FOR_EVER);
        let channel = builder.memfd().unwrap();
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        // The ring has one slot: the end that is ahead waits, in turn for room and for messages.
        let sender = thread::spawn(move || (0..5_000).for_each(|n| tx.push(n).unwrap()));
        (0..5_000).for_each(|n| assert_eq!(rx.pop().unwrap(), n));
        sender.join().unwrap();
        assert!(matches!(rx.pop(), Err(Error::Disconnected(End::Finished))));
    }
    let builder = bytes::Builder::new(64).wait(AT_ONCE).check_every(FOR_EVER);
    let (mut tx, mut rx) = builder.channel_pair().unwrap();
    let sender =
        thread::spawn(move || (0..5_000_u32).for_each(|n| tx.push(&n.to_le_bytes()).unwrap()));
    (0..5_000_u32).for_each(|n| assert_eq!(&rx.read().unwrap()[..], n.to_le_bytes()));
    sender.join().unwrap();
}

/// A timeout may be zero, already past, short, or longer than the clock can count.
#[test]
fn timeouts_may_have_any_length() {
    let short = Duration::from_millis(20);
    for wait in [Wait::Spin, Wait::Yield, AT_ONCE, Wait::default()] {
        let (mut tx, mut rx) = sleepy(1).wait(wait).channel_pair().unwrap();
        for timeout in [Duration::ZERO, Duration::from_nanos(1), short] {
            let start = Instant::now();
            assert!(matches!(rx.pop_timeout(timeout), Err(Error::TimedOut)));
            assert!(start.elapsed() >= timeout);
        }
        tx.push(1).unwrap();
        let start = Instant::now();
        assert_eq!(tx.push_timeout(2, short), Err(PushError::TimedOut(2)));
        assert!(start.elapsed() >= short);
        // A message that is there is taken without a look at the clock.
        assert_eq!(rx.pop_timeout(Duration::ZERO).unwrap(), 1);
        let sender = thread::spawn(move || tx.push_timeout(3, Duration::MAX).map(|()| tx));
        assert_eq!(rx.pop_timeout(Duration::MAX).unwrap(), 3);
        drop(sender.join().unwrap());
    }
}

/// A sleeper goes on sleeping after a signal, or after a wake without a message.
#[test]
fn signals_and_empty_wakes_change_nothing() {
    extern "C" fn nothing(_: libc::c_int) {}
    let builder = sleepy(1);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    // SAFETY: a handler that does nothing, without SA_RESTART, so that the sleep is interrupted.
    let old = unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as libc::sighandler_t) };
    assert_ne!(old, libc::SIG_ERR);
    let (waiters, doorbell) = wait_cell(&memory);
    let done = AtomicBool::new(false);
    let thread_id = AtomicU64::new(0);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            // SAFETY: asks for this thread's own handle.
            thread_id.store(unsafe { libc::pthread_self() }, Ordering::Relaxed);
            let number = rx.pop().unwrap();
            done.store(true, Ordering::Relaxed);
            number
        });
        for turn in 0..300 {
            until_asleep(waiters);
            if turn % 2 == 0 {
                let thread = thread_id.load(Ordering::Relaxed);
                // SAFETY: the thread is not joined yet.
                let sent = unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                assert_eq!(sent, 0);
            } else {
                // This imitates a late notifier, or a hostile peer.
                doorbell.fetch_add(1, Ordering::Relaxed);
                let flags = rustix::thread::futex::Flags::empty();
                rustix::thread::futex::wake(doorbell, flags, 1).unwrap();
            }
        }
        assert!(!done.load(Ordering::Relaxed));
        tx.push(7).unwrap();
        assert_eq!(sleeper.join().unwrap(), 7);
    });
}

/// A sleeper finds a message whose publisher was killed before it could notify.
#[test]
fn a_killed_publishers_message_is_found() {
    let builder = sleepy(4).check_every(Duration::from_millis(4));
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let mut tx = channel.producer().unwrap();
    let mut rx = channel.consumer().unwrap();
    tx.push(0).unwrap();
    assert_eq!(rx.pop().unwrap(), 0);
    let (waiters, _) = wait_cell(&memory);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| rx.pop().unwrap());
        until_asleep(waiters);
        // The publisher's store is seen, but it does not notify: slot 1, then the tail.
        memory.set_data(8, 77);
        memory
            .position(&channel.geometry(), 0)
            .store(2, Ordering::Release);
        assert_eq!(sleeper.join().unwrap(), 77);
    });
}

/// A process that overwrites the words used for waiting costs others time, but no message.
#[test]
fn overwritten_wait_words_lose_no_message() {
    let builder = sleepy(2).check_every(Duration::from_millis(1));
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            let mut word = 1_u64;
            while !done.load(Ordering::Relaxed) {
                // Both wait cells: waiters, epoch, doorbell; and both sides' acknowledgements.
                for offset in [512, 520, 640, 648] {
                    word = word.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (word >> 29);
                    memory.control(offset).store(word, Ordering::Relaxed);
                }
                wait_cell(&memory).1.store(word as u32, Ordering::Relaxed);
                thread::yield_now();
            }
        });
        let sender = scope.spawn(|| (0..2_000).for_each(|n| tx.push(n).unwrap()));
        (0..2_000).for_each(|n| assert_eq!(rx.pop().unwrap(), n));
        sender.join().unwrap();
        done.store(true, Ordering::Relaxed);
        stranger.join().unwrap();
    });
}

/// The waiter sets a bit again that a process cleared without notifying: later messages notify it.
#[test]
fn a_sleeper_restores_a_cleared_bit() {
    let builder = sleepy(4).check_every(Duration::from_millis(1));
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (_tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let (waiters, _) = wait_cell(&memory);
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || rx.pop_timeout(Duration::from_millis(300)));
        for _ in 0..20 {
            until_asleep(waiters);
            waiters.store(0, Ordering::Relaxed);
        }
        assert!(matches!(sleeper.join().unwrap(), Err(Error::TimedOut)));
    });
}

/// A doorbell that never rests keeps nobody beyond a deadline.
#[test]
fn constant_notifications_delay_no_deadline() {
    let builder = sleepy(1).check_every(Duration::from_millis(4));
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).unwrap();
    let (_tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                wait_cell(&memory).1.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..20 {
            let timed_out = rx.pop_timeout(Duration::from_millis(1));
            assert!(matches!(timed_out, Err(Error::TimedOut)));
        }
        done.store(true, Ordering::Relaxed);
        stranger.join().unwrap();
    });
}

/// A sleeper finds out at once when the other side comes or leaves.
#[test]
fn sleepers_notice_arrivals_and_departures() {
    let channel = sleepy(1).memfd().unwrap();
    let mut rx = channel.consumer().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(move || rx.wait_for_producer(FOR_EVER).map(|()| rx));
        let mut tx = channel.producer().unwrap();
        let mut rx = waiter.join().unwrap().unwrap();
        tx.push(1).unwrap();
        let reader = scope.spawn(move || (rx.pop(), rx.pop()));
        tx.wait_for_consumer(FOR_EVER).unwrap();
        tx.abort();
        let (first, second) = reader.join().unwrap();
        assert_eq!(first.unwrap(), 1);
        assert!(matches!(second, Err(Error::Disconnected(End::Aborted))));
    });
}

/// A sleeper that gets no message uses next to no processor time.
#[test]
fn an_idle_sleeper_uses_little_cpu() {
    let (_tx, mut rx) = spsc::Builder::<u64>::new(1)
        .wait(AT_ONCE)
        .channel_pair()
        .unwrap();
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let before = cpu();
    assert!(matches!(
        rx.pop_timeout(Duration::from_secs(2)),
        Err(Error::TimedOut)
    ));
    let used = cpu() - before;
    // The aim is half a percent of a core; a loop that polls would use hundreds of times as much.
    assert!(used < Duration::from_millis(40), "{used:?} of 2 s");
}

/// A long sleep ends when the message that it waited for comes. After a second in vain a waiter
/// goes over to its pipe: it is woken there as well. The handle leaves no bit behind that would
/// cost the other side a call for each message.
#[test]
fn a_long_sleeper_gets_its_message() {
    let channel = spsc::Builder::<u64>::new(1).wait(AT_ONCE).memfd().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let seat = |role: usize| channel.stat().unwrap().seats[role].clone();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            assert_eq!(rx.pop().unwrap(), 7);
            rx
        });
        // It updates its heartbeat 250 times a second at first, then once.
        let (mut before, mut rests) = (0, 0);
        while rests < 2 {
            let now = seat(1).heartbeat_age.unwrap();
            rests += u32::from(now < before && before > 500_000_000);
            before = now;
            std::thread::yield_now();
        }
        tx.push(7).unwrap();
        let mut rx = receiver.join().unwrap();
        let wakes = seat(0).wakes;
        for number in 0..100 {
            tx.push(number).unwrap();
            assert_eq!(rx.pop().unwrap(), number);
        }
        assert_eq!(seat(0).wakes, wakes, "nobody waits any more");
    });
}

//! Checks a handle's descriptor in an event loop: it is readable exactly when there is something,
//! within one process. (For real processes see `tests/tests/descriptor.rs`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slipring::{End, Error, Readiness, WaitSet, bytes, spsc};

/// Returns the present result of a poll.
fn now(fd: BorrowedFd<'_>) -> PollFlags {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).unwrap();
    polled[0].revents()
}

/// Polls until the descriptor is readable.
fn readable(fd: BorrowedFd<'_>) {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut polled, None).unwrap();
}

fn channels() -> [(spsc::Producer<u64>, spsc::Consumer<u64>); 2] {
    let memfd = spsc::Builder::new(4).memfd().unwrap();
    let passed = (memfd.producer().unwrap(), memfd.consumer().unwrap());
    [spsc::channel(4).unwrap(), passed]
}

/// A descriptor is readable while a message is in flight, and quiet once armed with none.
#[test]
fn a_descriptor_shows_pending_messages() {
    for (mut tx, mut rx) in channels() {
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty(), "idle");
        tx.push(1).unwrap();
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
        // It stays readable until it is armed again, and arming fails while there is something.
        assert_eq!(rx.arm().unwrap(), Readiness::Ready);
        assert_eq!(rx.try_pop().unwrap(), 1);
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty(), "idle again");
        // There is one byte, however many messages follow.
        for value in 2..5 {
            tx.push(value).unwrap();
        }
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
        let seen: Vec<u64> = rx.read_batch(4).unwrap().iter().copied().collect();
        assert_eq!(seen, [2, 3, 4]);
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty());
    }
}

/// The producer of a full channel is notified through its descriptor once there is room.
#[test]
fn a_full_channel_reports_room() {
    for (mut tx, mut rx) in channels() {
        assert_eq!(tx.arm(4).unwrap(), Readiness::Ready);
        for value in 0..4 {
            tx.push(value).unwrap();
        }
        assert_eq!(tx.arm(1).unwrap(), Readiness::Armed);
        assert_eq!(now(tx.as_fd().unwrap()), PollFlags::empty());
        assert_eq!(rx.pop().unwrap(), 0);
        assert_eq!(now(tx.as_fd().unwrap()), PollFlags::IN);
        // Room for one message is not room for two: armed anew, the descriptor is quiet.
        assert_eq!(tx.arm(2).unwrap(), Readiness::Armed);
        assert_eq!(now(tx.as_fd().unwrap()), PollFlags::empty());
        assert_eq!(rx.pop().unwrap(), 1);
        assert_eq!(now(tx.as_fd().unwrap()), PollFlags::IN);
        assert_eq!(tx.arm(2).unwrap(), Readiness::Ready);
        assert!(matches!(
            tx.arm(5),
            Err(Error::TooLarge { asked: 5, max: 4 })
        ));
    }
}

#[test]
fn records_are_told_of_too() {
    let (mut tx, mut rx) = bytes::channel(64).unwrap();
    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
    tx.push(b"12345678901234567890123").unwrap();
    assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
    tx.push(b"12345678901234567890123").unwrap();
    assert_eq!(tx.arm(8).unwrap(), Readiness::Armed);
    drop(rx.read().unwrap());
    assert_eq!(now(tx.as_fd().unwrap()), PollFlags::IN);
    assert_eq!(tx.arm(8).unwrap(), Readiness::Ready);
}

/// An end is reported once, and then the descriptor rests until somebody joins.
#[test]
fn an_end_is_reported_once() {
    let memfd = spsc::Builder::<u64>::new(4).memfd().unwrap();
    let (tx, mut rx) = (memfd.producer().unwrap(), memfd.consumer().unwrap());
    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
    drop(tx);
    let said = now(rx.as_fd().unwrap());
    assert_eq!(said, PollFlags::IN | PollFlags::HUP, "it rang, and hung up");
    assert!(matches!(rx.arm(), Err(Error::Disconnected(End::Finished))));
    // A program that goes on polling all the same is not kept awake by the hang-up.
    assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty());
    let mut tx = memfd.producer().unwrap();
    assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN, "somebody came");
    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
    tx.push(7).unwrap();
    assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
    assert_eq!(rx.pop().unwrap(), 7);
}

/// An end was reported before by another call, by arming itself, or by a set: arming reports it
/// again.
#[test]
fn arming_tells_ends_again() {
    fn finished(told: Result<Readiness, Error>) -> bool {
        matches!(told, Err(Error::Disconnected(End::Finished)))
    }
    let mut set = WaitSet::new().unwrap();
    for (tx, mut rx) in channels() {
        drop(tx);
        assert!(finished(rx.arm()) && finished(rx.arm()));
        assert!(rx.pop().is_err() && finished(rx.arm()));
        let key = set.watch(&rx).unwrap();
        assert!(set.wait_timeout(Duration::ZERO).unwrap()[0].ready);
        assert!(set.unwatch(key));
        assert!(finished(rx.arm()) && finished(rx.arm()));
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty());
    }
    for (mut tx, rx) in channels() {
        (0..4).for_each(|value| tx.push(value).unwrap());
        drop(rx);
        assert!(tx.try_push(4).is_err() && finished(tx.arm(1)));
        assert!(finished(tx.arm(1)));
        let key = set.watch_room(&tx, 1).unwrap();
        assert!(set.wait_timeout(Duration::ZERO).unwrap()[0].ready);
        assert!(set.unwatch(key));
        assert!(finished(tx.arm(1)) && finished(tx.arm(4)));
    }
}

/// A slow notifier writes its byte late: the consumer found the message before, and the byte comes
/// after the next arming.
#[test]
fn a_late_byte_keeps_nobody_awake() {
    for (mut tx, mut rx) in channels() {
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        let pipe = format!("/proc/self/fd/{}", rx.as_fd().unwrap().as_raw_fd());
        std::fs::write(pipe, [1]).unwrap();
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty());
        tx.push(1).unwrap();
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
    }
}

/// Arming reports an end even if a successor has joined already.
#[test]
fn arming_reports_ends_despite_a_successor() {
    let heap = spsc::Builder::<u64>::new(4).heap().unwrap();
    let memfd = spsc::Builder::<u64>::new(4).memfd().unwrap();
    for channel in [heap, memfd] {
        let mut rx = channel.consumer().unwrap();
        drop(channel.producer().unwrap());
        let mut tx = channel.producer().unwrap();
        assert!(matches!(rx.arm(), Err(Error::Disconnected(End::Finished))));
        // The successor came before the end was reported.
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty());
        tx.push(1).unwrap();
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
        assert_eq!(rx.arm().unwrap(), Readiness::Ready);
        assert_eq!(rx.pop().unwrap(), 1);
    }
}

/// If the successor has gone as well, the descriptor stays readable until its end is reported too.
#[test]
fn arming_reports_both_ends_in_turn() {
    let heap = spsc::Builder::<u64>::new(4).heap().unwrap();
    let memfd = spsc::Builder::<u64>::new(4).memfd().unwrap();
    for channel in [heap, memfd] {
        let mut rx = channel.consumer().unwrap();
        drop(channel.producer().unwrap());
        channel.producer().unwrap().abort();
        assert!(matches!(rx.arm(), Err(Error::Disconnected(End::Finished))));
        // The successor came and went before the end was reported.
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::IN);
        assert!(matches!(rx.arm(), Err(Error::Disconnected(End::Aborted))));
        assert_eq!(now(rx.as_fd().unwrap()), PollFlags::empty());
    }
}

/// A handle that sleeps and polls in turn loses no wake to the other wake mode.
#[test]
fn sleeping_and_polling_take_turns() {
    const MESSAGES: u64 = 20_000;
    let (mut tx, mut rx) = spsc::channel::<u64>(2).unwrap();
    let wait = slipring::Wait::Sleep {
        spin_for: std::time::Duration::ZERO,
    };
    tx.set_wait(wait);
    rx.set_wait(wait);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for value in 0..MESSAGES {
                if value % 3 == 0 {
                    while tx.arm(1).unwrap() == Readiness::Armed {
                        readable(tx.as_fd().unwrap());
                    }
                }
                tx.push(value).unwrap();
            }
        });
        for value in 0..MESSAGES {
            if value % 2 == 0 {
                while rx.arm().unwrap() == Readiness::Armed {
                    readable(rx.as_fd().unwrap());
                }
            }
            assert_eq!(rx.pop().unwrap(), value);
        }
    });
}

#[test]
fn borrowed_memory_has_no_descriptor() {
    let builder = spsc::Builder::<u64>::new(4);
    #[repr(align(4096))]
    struct Pages([u8; 16384]);
    let mut memory = Box::new(Pages([0; 16384]));
    let (control, data) = memory.0.split_at_mut(builder.control_len());
    let borrowed = slipring::Borrowed {
        control: std::ptr::NonNull::from(control),
        data: std::ptr::NonNull::from(&mut data[..4096]),
    };
    // SAFETY: dropped after all that is made in it, and used for that alone.
    let channel = unsafe { builder.format_in(borrowed) }.unwrap();
    let (mut tx, rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    assert!(matches!(rx.as_fd(), Err(Error::NoPipes)));
    assert!(matches!(tx.arm(1), Err(Error::NoPipes)));
    drop((tx, rx, channel));
}

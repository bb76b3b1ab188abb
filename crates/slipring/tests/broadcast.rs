//! Checks the promises of the `broadcast` handles, within one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slipring::broadcast::{self, Builder, Consumer, Mode, Overwriting, Seek};
use slipring::inspect::WhenFull;
use slipring::{Error, Payload, PushError, Readiness, SetupError, Wait, WaitSet};

/// Returns the number of messages in a long run: `SLIPRING_LONG` sets more, for evidence.
fn long(usual: u64) -> u64 {
    let asked = std::env::var("SLIPRING_LONG").ok();
    asked.map_or(usual, |text| text.parse().expect("a number"))
}

/// A message of several lines, each word of which holds its number.
#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Wide {
    words: [u64; 24],
}

impl Wide {
    fn new(number: u64) -> Wide {
        Wide {
            words: std::array::from_fn(|i| number.wrapping_mul(1 + i as u64)),
        }
    }

    /// Returns its number, if it is whole.
    #[track_caller]
    fn number(&self) -> u64 {
        let number = self.words[0];
        assert_eq!(self.words, Wide::new(number).words, "a torn message");
        number
    }
}

fn lossy<T: Payload>(capacity: usize, consumers: usize) -> broadcast::Channel<T, Overwriting> {
    let builder = Builder::<T>::new(capacity)
        .join(Seek::Oldest)
        .consumers(consumers);
    builder.overwriting().heap().unwrap()
}

/// Takes all messages until the producer has left; returns the numbers of messages that came and
/// that were lost.
fn drain<M: Mode>(rx: &mut Consumer<Wide, M>) -> (u64, u64) {
    let (mut received, mut lost) = (0, 0);
    let mut next = rx.position();
    loop {
        match rx.pop() {
            Ok(message) => {
                assert_eq!(message.number(), next);
                (received, next) = (received + 1, next + 1);
            }
            Err(Error::Lagged(n)) => (lost, next) = (lost + n, next + n),
            Err(Error::Disconnected(_)) => return (received, lost),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A producer that laps its readers tears no message, and every message that is lost is reported.
#[test]
fn lapped_readers_account_for_everything() {
    let messages = long(2_000_000);
    let channel = lossy::<Wide>(64, 3);
    let mut tx = channel.producer().unwrap();
    let readers: Vec<_> = (0..3).map(|_| channel.consumer().unwrap()).collect();
    let overtaken = AtomicU64::new(0);
    thread::scope(|scope| {
        for mut rx in readers {
            let overtaken = &overtaken;
            scope.spawn(move || {
                let (received, lost) = drain(&mut rx);
                assert_eq!(received + lost, messages);
                overtaken.fetch_add(lost, Ordering::Relaxed);
            });
        }
        for number in 0..messages {
            tx.push(Wide::new(number)).unwrap();
        }
        drop(tx);
    });
    // Relaxed: all have been joined. (ThreadSanitizer, which does not see that, would take
    // `into_inner` for a race.)
    assert!(
        overtaken.load(Ordering::Relaxed) > 0,
        "nobody was overtaken"
    );
}

/// In a channel that waits, each reader gets every message.
#[test]
fn waiting_channels_give_readers_everything() {
    let messages = long(60_000);
    for wait in [
        Wait::Yield,
        Wait::Sleep {
            spin_for: Duration::ZERO,
        },
    ] {
        let builder = Builder::<Wide>::new(16)
            .join(Seek::Oldest)
            .consumers(3)
            .wait(wait);
        let channel = builder.heap().unwrap();
        let mut tx = channel.producer().unwrap();
        let readers: Vec<_> = (0..3).map(|_| channel.consumer().unwrap()).collect();
        thread::scope(|scope| {
            for mut rx in readers {
                scope.spawn(move || assert_eq!(drain(&mut rx), (messages, 0)));
            }
            for number in 0..messages {
                tx.push(Wide::new(number)).unwrap();
            }
            drop(tx);
        });
    }
}

/// Runs readers that join anywhere, read a little, and leave, while the producer runs.
fn come_and_go<M: Mode>(builder: Builder<Wide, M>) {
    let joins = long(20_000);
    let builder = builder.join(Seek::Oldest).consumers(63);
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                tx.push(Wide::new(number)).unwrap();
                number += 1;
            }
            number
        });
        // Some consumers hold most seats and read now and then, so that all seats are in use.
        let mut seated: Vec<Consumer<Wide, M>> = Vec::new();
        let mut newest = 0;
        for join in 0..joins {
            if seated.len() == 63 {
                assert!(matches!(
                    channel.consumer(),
                    Err(SetupError::RoleTaken {
                        role: "consumer",
                        seats: 63,
                        ..
                    })
                ));
                seated.drain(..60);
            }
            let mut rx = channel.consumer().unwrap();
            match join % 3 {
                0 => {}
                1 => _ = rx.seek(Seek::Newest).unwrap(),
                _ => _ = rx.seek(Seek::To(newest)).unwrap(),
            }
            let mut next = rx.position();
            let end = next + 3;
            while next < end {
                match rx.try_pop() {
                    Ok(message) => {
                        assert_eq!(message.number(), next);
                        next += 1;
                    }
                    Err(Error::Lagged(lost)) => {
                        assert_eq!(M::WHEN_FULL, WhenFull::Overwrite);
                        next += lost;
                    }
                    // The producer waits for every seated consumer.
                    Err(Error::Empty) => {
                        for rx in &mut seated {
                            while rx.try_pop_slice(&mut [Wide::new(0); 64]).is_ok() {}
                        }
                        thread::yield_now();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            newest = newest.max(next - 1);
            seated.push(rx);
        }
        seated.clear();
        done.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > newest);
    });
}

/// Readers come and go while the producer waits for the slowest one.
#[test]
fn readers_change_while_the_producer_waits() {
    come_and_go(Builder::new(64));
}

/// Readers come and go while the producer overwrites.
#[test]
fn readers_change_while_the_producer_overwrites() {
    come_and_go(Builder::new(64).overwriting());
}

/// Readers share out messages, every k-th to each, without talking to each other.
#[test]
fn strides_share_out_messages() {
    share_out(Builder::new(4096));
    share_out(Builder::new(4096).overwriting());
}

fn share_out<M: Mode>(builder: Builder<u64, M>) {
    let builder = builder.join(Seek::Oldest).consumers(3);
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| channel.consumer().unwrap()).collect();
    for (index, rx) in readers.iter_mut().enumerate() {
        rx.stride(index as u64, 3).unwrap();
    }
    assert_eq!(tx.push_iter(0..1000).unwrap(), 1000);
    for (index, rx) in readers.iter_mut().enumerate() {
        assert_eq!(rx.len().unwrap(), (1000 - index).div_ceil(3));
        for number in (index as u64..1000).step_by(3) {
            assert_eq!(rx.try_pop().unwrap(), number);
        }
        assert!(matches!(rx.try_pop(), Err(Error::Empty)));
    }
    assert!(matches!(
        readers[0].stride(3, 3),
        Err(Error::Stride { index: 3, of: 3 })
    ));
}

/// What a reservation gave up is lost, but not the messages that come in its place.
#[test]
fn a_discarded_reservation_loses_no_more() {
    let channel = lossy::<u64>(64, 1);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    assert_eq!(tx.push_iter(0..10).unwrap(), 10);
    // The producer gives up an eighth of the ring at a time.
    assert_eq!(rx.try_pop_slice(&mut [0; 9]).unwrap(), 8);
    assert_eq!(rx.try_pop_slice(&mut [0; 1]).unwrap(), 1);
    tx.reserve(64).unwrap().discard();
    assert!(matches!(rx.try_pop(), Err(Error::Lagged(1))));
    tx.push(10).unwrap();
    assert_eq!(rx.try_pop().unwrap(), 10);
}

/// What an iterator yielded before it panicked is not sent.
#[test]
fn a_panicking_iterator_sends_nothing() {
    let channel = lossy::<u64>(8, 2);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let yields = (1..).map(|n| if n < 3 { n } else { panic!("enough") });
    let pushed = std::panic::AssertUnwindSafe(|| tx.try_push_iter(yields));
    assert!(std::panic::catch_unwind(pushed).is_err());
    assert_eq!(tx.position(), 0);
    for number in 77..80 {
        tx.push(number).unwrap();
    }
    for number in 77..80 {
        assert_eq!(rx.try_pop().unwrap(), number);
    }
}

#[test]
fn asking_for_room_gives_up_nothing() {
    let channel = lossy::<u64>(16, 1);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    assert_eq!(tx.push_iter(0..8).unwrap(), 8);
    assert!(matches!(tx.arm(16), Ok(Readiness::Ready)));
    assert!(matches!(
        tx.arm(17),
        Err(Error::TooLarge { asked: 17, max: 16 })
    ));
    for number in 0..8 {
        assert_eq!(rx.try_pop().unwrap(), number);
    }
}

/// A batch is whole, or the reader is told first how much was lost.
#[test]
fn a_batch_reports_what_was_lost() {
    let channel = lossy::<u64>(64, 1);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    assert_eq!(tx.push_iter(0..64).unwrap(), 64);
    let mut out = [0; 100];
    let taken = rx.try_pop_slice(&mut out).unwrap();
    assert!(out[..taken].iter().copied().eq(0..taken as u64));
    assert_eq!(tx.push_iter(64..128).unwrap(), 64);
    let Err(Error::Lagged(lost)) = rx.try_pop_slice(&mut out) else {
        panic!("what was lost is told first");
    };
    let mut next = taken as u64 + lost;
    while let Ok(taken) = rx.try_pop_slice(&mut out) {
        assert!(out[..taken].iter().copied().eq(next..next + taken as u64));
        next += taken as u64;
    }
    assert_eq!(next, 128);
}

/// An iterator gives up no more messages than it writes, except that it rounds up to blocks.
#[test]
fn an_iterator_overwrites_only_its_share() {
    let channel = lossy::<u64>(64, 1);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    assert_eq!(tx.push_iter(0..64).unwrap(), 64);
    assert_eq!(tx.push_iter(64..66).unwrap(), 2);
    // Lost are two, and the block of sixteen that they belong to; and an eighth of the ring.
    assert!(matches!(rx.try_pop(), Err(Error::Lagged(24))));
    assert_eq!(rx.try_pop().unwrap(), 24);
}

/// A stride beyond all bounds is refused and changes nothing.
#[test]
fn an_excessive_stride_is_refused() {
    let channel = Builder::<u64>::new(8).join(Seek::Oldest).heap().unwrap();
    let mut rx = channel.consumer().unwrap();
    assert!(matches!(
        rx.stride(7, u64::MAX),
        Err(Error::Stride {
            index: 7,
            of: u64::MAX
        })
    ));
    rx.stride((1 << 32) - 1, 1 << 32).unwrap();
    assert_eq!(rx.position(), (1 << 32) - 1);
    rx.stride(0, 1 << 32).unwrap();
    assert_eq!(rx.position(), 1 << 32);
}

/// A set does not report an end that lies before the place where the reader joined.
#[test]
fn a_set_ignores_earlier_ends() {
    let channel = Builder::<u64>::new(2).join(Seek::Oldest).heap().unwrap();
    channel.producer().unwrap().push(1).unwrap();
    let mut tx = channel.producer().unwrap();
    (2..9).for_each(|number| tx.push(number).unwrap());
    let mut rx = channel.consumer().unwrap();
    while rx.try_pop().is_ok() {}
    let mut set = WaitSet::new().unwrap();
    set.watch(&rx).unwrap();
    let told = set.wait_timeout(Duration::ZERO);
    assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
}

/// A reader that skips ahead of the newest message holds nobody back. With one consumer that takes
/// its part and one that takes all, the producer waits for the right one.
#[test]
fn skipping_ahead_holds_nobody_back() {
    let channel = Builder::<u64>::new(4)
        .join(Seek::Oldest)
        .consumers(1)
        .heap()
        .unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    rx.stride(0, 100).unwrap();
    tx.push(0).unwrap();
    assert_eq!(rx.pop().unwrap(), 0);
    // The consumer's next message is the hundredth: until the producer is a ring ahead of it,
    // nobody need wait for it.
    for number in 1..=100 {
        tx.try_push(number).unwrap();
    }
    assert_eq!(rx.pop().unwrap(), 100);
}

/// An end is reported to every reader, and to those that join later at the oldest message.
#[test]
fn every_reader_finds_the_end() {
    let builder = Builder::<u64>::new(8).join(Seek::Oldest).consumers(3);
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let mut readers = [channel.consumer().unwrap(), channel.consumer().unwrap()];
    tx.push(1).unwrap();
    drop(tx);
    let mut late = channel.consumer().unwrap();
    for rx in readers.iter_mut().chain([&mut late]) {
        assert_eq!(rx.pop().unwrap(), 1);
        assert!(matches!(
            rx.pop(),
            Err(Error::Disconnected(slipring::End::Finished))
        ));
        assert!(rx.is_disconnected().unwrap());
    }
    drop(late);
    let mut tx = channel.producer().unwrap();
    assert_eq!(tx.position(), 1);
    tx.push(2).unwrap();
    for rx in &mut readers {
        assert_eq!(rx.pop().unwrap(), 2);
    }
}

/// A consumer that joins behind all sent messages finds none, and would wait for ever. Each time it
/// asks, it learns that the producer left. It may then wait for the next one.
#[test]
fn late_joiners_are_told_the_end() {
    let builder = Builder::<u64>::new(8).join(Seek::Newest);
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    tx.push(1).unwrap();
    drop(tx);
    let finished = |error| matches!(error, Error::Disconnected(slipring::End::Finished));
    let mut rx = channel.consumer().unwrap();
    assert!(finished(rx.try_pop().unwrap_err()));
    assert!(finished(rx.pop().unwrap_err()));
    assert!(finished(rx.arm().unwrap_err()));
    assert!(finished(rx.pop().unwrap_err()));
    let nobody = rx.wait_for_producer(Duration::ZERO).unwrap_err();
    assert!(matches!(nobody, Error::TimedOut));
    let mut set = slipring::WaitSet::new().unwrap();
    let mut late = channel.consumer().unwrap();
    set.watch(&late).unwrap();
    assert!(
        set.wait()
            .unwrap()
            .iter()
            .any(|event| event.ended.is_some())
    );
    assert!(finished(late.pop().unwrap_err()));
    channel.producer().unwrap().push(2).unwrap();
    assert_eq!(rx.pop().unwrap(), 2);
    assert!(matches!(
        rx.pop(),
        Err(Error::Disconnected(slipring::End::Finished))
    ));
}

/// A full ring is reported as full by an attempt, and waited for by a blocking call.
#[test]
fn a_full_ring_is_waited_for() {
    let channel = Builder::<u64>::new(2)
        .join(Seek::Oldest)
        .consumers(2)
        .heap()
        .unwrap();
    let mut tx = channel.producer().unwrap();
    // Without consumers the producer does not wait.
    for number in 0..100 {
        tx.try_push(number).unwrap();
    }
    let mut rx = channel.consumer().unwrap();
    rx.seek(Seek::Newest).unwrap();
    tx.try_push(100).unwrap();
    tx.try_push(101).unwrap();
    assert_eq!(tx.try_push(102), Err(PushError::Full(102)));
    let timed = tx.push_timeout(102, Duration::from_millis(5));
    assert_eq!(timed, Err(PushError::TimedOut(102)));
    let stat = channel.stat().unwrap();
    assert_eq!(
        (stat.len, stat.holds_back().map(|seat| seat.index)),
        (2, Some(0))
    );
    drop(rx);
    tx.try_push(102).unwrap();
    assert!(tx.is_disconnected().unwrap());
    assert!(channel.stat().unwrap().holds_back().is_none());
}

/// A producer that waits writes and reads its slots in place; they wrap at the ring's end. (The
/// docs of `InPlaceKind` and `Reservation` show that an overwriting channel has no such calls.)
#[test]
fn waiting_messages_are_used_in_place() {
    let channel = Builder::<u64>::new(8).heap().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.push_slice(&[0; 6]).unwrap();
    rx.read_batch(6).unwrap().release(6);
    let mut slots = tx.reserve(4).unwrap();
    let (front, back) = slots.as_mut_slices();
    front.copy_from_slice(&[6, 7]);
    back.copy_from_slice(&[8, 9]);
    slots.commit(4);
    let messages = rx.read_batch(8).unwrap();
    assert_eq!(messages.as_slices(), Some((&[6, 7][..], &[8, 9][..])));
}

#[test]
fn refusals_say_what_is_possible() {
    let refused = |builder: Builder<u64>| builder.heap().map(drop).unwrap_err();
    assert!(matches!(
        refused(Builder::new(3)),
        SetupError::Capacity {
            found: 3,
            min: 1,
            ..
        }
    ));
    for consumers in [0, 64, usize::MAX] {
        let error = refused(Builder::new(8).consumers(consumers));
        let asked = consumers as u64;
        assert!(matches!(error, SetupError::Consumers { found, max: 63 } if found == asked));
    }
    let channel = lossy::<u64>(8, 1);
    let ahead = channel.consumer().unwrap().seek(Seek::To(1));
    assert!(matches!(
        ahead,
        Err(Error::Ahead {
            asked: 1,
            newest: 0
        })
    ));
}

/// A set waits for both readers and writers of a channel.
#[test]
fn a_set_awaits_readers_and_writers() {
    let channel = Builder::<u64>::new(2)
        .join(Seek::Oldest)
        .consumers(2)
        .heap()
        .unwrap();
    let mut tx = channel.producer().unwrap();
    let (mut fast, mut slow) = (channel.consumer().unwrap(), channel.consumer().unwrap());
    let mut set = WaitSet::new().unwrap();
    let (reads, writes) = (set.watch(&fast).unwrap(), set.watch_room(&tx, 1).unwrap());
    let ready = |set: &mut WaitSet| -> Vec<_> {
        let events = match set.wait_timeout(Duration::ZERO) {
            Err(Error::TimedOut) => Vec::new(),
            events => events.unwrap(),
        };
        events
            .iter()
            .filter(|event| event.ready)
            .map(|event| event.key)
            .collect()
    };
    assert_eq!(ready(&mut set), [writes]);
    tx.push(1).unwrap();
    tx.push(2).unwrap();
    assert_eq!(ready(&mut set), [reads]);
    assert_eq!((fast.pop().unwrap(), fast.pop().unwrap()), (1, 2));
    assert!(ready(&mut set).is_empty(), "the slow one is behind");
    assert_eq!(slow.pop().unwrap(), 1);
    assert_eq!(ready(&mut set), [writes]);
}

/// Returns which descriptors are readable, once one of them is.
fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], at_most: Option<&Timespec>) -> [bool; N] {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    poll(&mut polled, at_most).unwrap();
    polled.map(|one| one.revents().contains(PollFlags::IN))
}

/// Each reader's descriptor tells that reader of news.
#[test]
fn a_descriptor_notifies_each_reader() {
    let channel = lossy::<u64>(8, 2);
    let mut tx = channel.producer().unwrap();
    let mut readers = [channel.consumer().unwrap(), channel.consumer().unwrap()];
    let readable = |rx: &Consumer<u64, Overwriting>| {
        readable([rx.as_fd().unwrap()], Some(&Timespec::default())) == [true]
    };
    for rx in &mut readers {
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        assert!(!readable(rx));
    }
    tx.push(7).unwrap();
    for rx in &mut readers {
        assert!(readable(rx));
        assert_eq!(rx.arm().unwrap(), Readiness::Ready);
        assert_eq!(rx.pop().unwrap(), 7);
        assert_eq!(rx.arm().unwrap(), Readiness::Armed);
        assert!(!readable(rx));
    }
}

/// One wake reaches all that wait for the channel, and nobody else.
#[test]
fn one_wake_reaches_all_waiters() {
    let at_once = Wait::Sleep {
        spin_for: Duration::ZERO,
    };
    let builder = Builder::<u64>::new(8)
        .join(Seek::Oldest)
        .consumers(4)
        .wait(at_once);
    let channel = builder.heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let sleepers = [(); 2].map(|()| channel.consumer().unwrap());
    let [mut polls, mut bystander] = [(); 2].map(|()| channel.consumer().unwrap());
    assert_eq!(polls.arm().unwrap(), Readiness::Armed);
    // This one has a descriptor, through which it could be woken, and waits for another channel.
    let (mut tx_elsewhere, mut elsewhere) = Builder::<u64>::new(8)
        .join(Seek::Oldest)
        .channel_pair()
        .unwrap();
    assert_eq!(elsewhere.arm().unwrap(), Readiness::Armed);
    let watched = [bystander.as_fd().unwrap(), elsewhere.as_fd().unwrap()];
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(readable(watched, None), [false, true]));
        let woken = sleepers.map(|mut rx| scope.spawn(move || assert_eq!(rx.pop().unwrap(), 1)));
        let asleep = || {
            let seats = channel.stat().unwrap().seats;
            seats[1..3].iter().all(|seat| seat.parks > 0)
        };
        while !asleep() {
            thread::yield_now();
        }
        tx.push(1).unwrap();
        for sleeper in woken {
            sleeper.join().unwrap();
        }
        assert_eq!(readable([polls.as_fd().unwrap()], None), [true]);
        assert_eq!(polls.try_pop().unwrap(), 1);
        tx_elsewhere.push(2).unwrap();
    });
    assert_eq!(channel.stat().unwrap().seats[0].wakes, 1);
    assert_eq!(bystander.try_pop().unwrap(), 1);
    assert_eq!(elsewhere.try_pop().unwrap(), 2);
}

/// A consumer sees, as in tokio, Aeron and disruptor, the messages that are committed after it
/// joined.
#[test]
fn late_consumers_begin_at_newest() {
    begins_at_newest(Builder::new(64));
    begins_at_newest(Builder::new(64).overwriting());
}

fn begins_at_newest<M: Mode>(builder: Builder<u64, M>) {
    let channel = builder.heap().unwrap();
    let (mut tx, mut early) = (channel.producer().unwrap(), channel.consumer().unwrap());
    (0..3).for_each(|number| tx.push(number).unwrap());
    let mut late = channel.consumer().unwrap();
    assert_eq!((late.position(), late.len().unwrap()), (3, 0));
    tx.push(3).unwrap();
    assert_eq!((early.pop().unwrap(), late.pop().unwrap()), (0, 3));
    assert_eq!(Seek::default(), Seek::Newest);
}

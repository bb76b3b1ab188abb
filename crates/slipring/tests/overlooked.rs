//! A publisher overlooks the bit of a waiter: its store is seen, but it does not notify. That
//! happens where the kernel's barrier did not reach the publisher's processor
//! (`slipring_core::wait`). Here the test takes the bit away while the publisher publishes. The
//! waiter finds out all the same, by every wake mode, in both directions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod executor;

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use executor::block_on;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Resource, getrlimit, setrlimit};
use slipring::{Builder, Consumer, Kind, Producer, Readiness, Wait, WaitSet};
use slipring::{broadcast, bytes, mpmc, spsc, topic};

/// A timeout so long that it never ends a sleep.
const FOR_EVER: Duration = Duration::from_secs(3600);
const AT_ONCE: Wait = Wait::Sleep {
    spin_for: Duration::ZERO,
};
/// The number of entries beyond which a set sleeps on pipes.
const DOORBELLS: usize = 127;

/// The number of times that each waiter must find out,
const TIMES: u32 = 10;
/// and the most tries for that, on a machine that keeps us from its processors for most of them.
const ROUNDS: u32 = 10_000;
/// The time since the waiter asked: a little less than the millisecond after which it checks again.
const IN_TIME: Duration = Duration::from_micros(950);
/// The longest time that a waiter may take to find out, on such a machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The waiters words of the two sides in the control part (FORMAT.md).
const PRODUCERS: usize = 512;
const CONSUMERS: usize = 640;

/// Returns that word, of a channel with this control part.
fn word(control: BorrowedFd<'_>, at: usize) -> &'static AtomicU64 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice, never unmapped.
    let page = unsafe { mmap(null_mut(), 4096, access, MapFlags::SHARED, control, 0) }.unwrap();
    // SAFETY: in that page.
    let word = unsafe { page.byte_add(at) };
    // SAFETY: mapped for ever, aligned, and everybody uses it as this atomic.
    unsafe { AtomicU64::from_ptr(word.cast()) }
}

/// Lets one side wait, again and again, each time for one message or for room for one; the other
/// side provides it.
fn is_told(
    face: &str,
    waiters: &AtomicU64,
    mut wait: impl FnMut() + Send,
    mut publish: impl FnMut(),
) {
    let (times, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let asked = Mutex::new(Instant::now());
    let told_within = |published, patience| {
        let since = Instant::now();
        while times.load(Ordering::SeqCst) < published && since.elapsed() < patience {
            thread::yield_now();
        }
        times.load(Ordering::SeqCst) == published
    };
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                *asked.lock().unwrap() = Instant::now();
                wait();
                times.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (mut told, mut untold, mut published) = (0, 0, 0);
        for _ in 0..ROUNDS {
            while waiters.load(Ordering::SeqCst) & 1 == 0 {
                thread::yield_now();
            }
            // By then the waiter has looked once more.
            let bit = Instant::now();
            while bit.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
            let before = waiters.swap(0, Ordering::SeqCst);
            publish();
            waiters.store(before, Ordering::SeqCst);
            published += 1;
            // The second look cannot find a late store: then one of us was kept from a processor.
            if asked.lock().unwrap().elapsed() < IN_TIME {
                match told_within(published, PATIENCE) {
                    true => told += 1,
                    false => untold += 1,
                }
            }
            // This publish notifies: the waiter wakes, finds this one as well, and asks anew. (Its
            // bit has been set since.)
            publish();
            published += 1;
            assert!(told_within(published, FOR_EVER));
            if told == TIMES || untold > 0 {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
        publish();
        waits.join().unwrap();
        assert_eq!(untold, 0, "{face}: not told, after {told} times");
        assert_eq!(
            told, TIMES,
            "{face}: late nearly each time: the machine is too busy"
        );
    });
}

/// Both ends of a channel of numbers, and the waiters word of each side.
type Numbers = (
    spsc::Producer<u64>,
    spsc::Consumer<u64>,
    [&'static AtomicU64; 2],
);

/// Returns a channel that has room for several.
fn numbers() -> (
    spsc::Producer<u64>,
    spsc::Consumer<u64>,
    [&'static AtomicU64; 2],
) {
    let builder = spsc::Builder::new(4).wait(AT_ONCE).check_every(FOR_EVER);
    let channel = builder.memfd().unwrap();
    let words = [PRODUCERS, CONSUMERS].map(|at| word(channel.descriptors()[0], at));
    (
        channel.producer().unwrap(),
        channel.consumer().unwrap(),
        words,
    )
}

/// Makes both sides of such a channel wait by this wake mode.
fn both_ways(
    face: &str,
    mut pop: impl FnMut(&mut spsc::Consumer<u64>) -> u64 + Send,
    mut push: impl FnMut(&mut spsc::Producer<u64>, u64) + Send,
) {
    let (mut tx, mut rx, [_, waiters]) = numbers();
    let (mut sent, mut seen) = (0, 0);
    let wait = || {
        assert_eq!(pop(&mut rx), seen);
        seen += 1;
    };
    is_told(face, waiters, wait, || {
        tx.try_push(sent).unwrap();
        sent += 1;
    });

    let (mut tx, mut rx, [waiters, _]) = numbers();
    let (mut sent, mut seen) = (4, 0);
    (0..4).for_each(|number| tx.try_push(number).unwrap());
    let wait = || {
        push(&mut tx, sent);
        sent += 1;
    };
    is_told(face, waiters, wait, || {
        assert_eq!(rx.try_pop().unwrap(), seen);
        seen += 1;
    });
}

/// Polls until the descriptor is readable.
fn readable(fd: BorrowedFd<'_>) {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut polled, None).unwrap();
}

#[test]
fn a_call_that_sleeps_is_told() {
    both_ways(
        "sleep",
        |rx| rx.pop().unwrap(),
        |tx, value| tx.push(value).unwrap(),
    );
}

#[test]
fn a_descriptor_becomes_readable() {
    both_ways(
        "descriptor",
        |rx| {
            while rx.arm().unwrap() == Readiness::Armed {
                readable(rx.as_fd().unwrap());
            }
            rx.try_pop().unwrap()
        },
        |tx, value| {
            while tx.arm(1).unwrap() == Readiness::Armed {
                readable(tx.as_fd().unwrap());
            }
            tx.try_push(value).unwrap();
        },
    );
}

/// Lets a consumer of a fresh channel wait by its descriptor, again and again, for one message.
fn descriptor_tells<K: Kind>(
    face: &str,
    builder: &Builder<K>,
    take: impl Fn(&mut Consumer<K>) + Send,
    publish: impl Fn(&mut Producer<K>),
) {
    let channel = builder.memfd().unwrap();
    let waiters = word(channel.descriptors()[0], CONSUMERS);
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let wait = move || {
        while rx.arm().unwrap() == Readiness::Armed {
            readable(rx.as_fd().unwrap());
        }
        take(&mut rx);
    };
    is_told(face, waiters, wait, || publish(&mut tx));
}

/// Messages of all other kinds make a descriptor readable too.
#[test]
fn other_channels_make_descriptors_readable() {
    descriptor_tells(
        "bytes",
        &bytes::Builder::new(128),
        |rx| assert_eq!(&*rx.try_read().unwrap(), b"news"),
        |tx| tx.try_push(b"news").unwrap(),
    );
    descriptor_tells(
        "broadcast",
        &broadcast::Builder::<u64>::new(8).join(broadcast::Seek::Oldest),
        |rx| assert_eq!(rx.try_pop(), Ok(7)),
        |tx| tx.try_push(7).unwrap(),
    );
    descriptor_tells(
        "broadcast records",
        &broadcast::records::Builder::new(128).join(broadcast::Seek::Oldest),
        |rx| assert_eq!(&*rx.try_read().unwrap(), b"news"),
        |tx| tx.try_push(b"news").unwrap(),
    );
    descriptor_tells(
        "mpmc",
        &mpmc::Builder::<u64>::new(8),
        |rx| assert_eq!(rx.try_pop(), Ok(7)),
        |tx| tx.try_push(7).unwrap(),
    );
    descriptor_tells(
        "topic",
        &topic::Builder::<u64>::new(8).join(topic::Seek::Oldest),
        |rx| assert_eq!(rx.try_pop(), Ok(7)),
        |tx| tx.try_push(7).unwrap(),
    );
    descriptor_tells(
        "topic of records",
        &topic::records::Builder::new(8, 64).join(topic::Seek::Oldest),
        |rx| assert_eq!(&*rx.try_read().unwrap(), b"news"),
        |tx| tx.try_push(b"news").unwrap(),
    );
}

/// A producer of many consumers is notified of room. Its descriptor has a timer of its own, and the
/// first seat is not that of the slowest consumer.
#[test]
fn a_broadcast_producer_learns_of_room() {
    let builder = broadcast::Builder::<u64>::new(4)
        .consumers(2)
        .join(broadcast::Seek::Oldest);
    let channel = builder.check_every(FOR_EVER).memfd().unwrap();
    let waiters = word(channel.descriptors()[0], PRODUCERS);
    let mut tx = channel.producer().unwrap();
    let (mut fast, mut slow) = (channel.consumer().unwrap(), channel.consumer().unwrap());
    for number in 0..4 {
        tx.try_push(number).unwrap();
        fast.try_pop().unwrap();
    }
    let wait = || {
        while tx.arm(1).unwrap() == Readiness::Armed {
            readable(tx.as_fd().unwrap());
        }
        tx.try_push(7).unwrap();
        fast.try_pop().unwrap();
    };
    is_told("many", waiters, wait, || {
        slow.try_pop().unwrap();
    });
}

#[test]
fn a_future_is_woken() {
    both_ways(
        "future",
        |rx| block_on(rx.pop_async()).unwrap(),
        |tx, value| block_on(tx.push_async(value)).unwrap(),
    );
}

#[cfg(feature = "tokio")]
#[test]
fn a_future_on_tokio_is_woken() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    both_ways(
        "tokio",
        |rx| {
            runtime.block_on(async {
                rx.on_tokio().unwrap();
                rx.pop_async().await.unwrap()
            })
        },
        |tx, value| {
            runtime.block_on(async {
                tx.on_tokio().unwrap();
                tx.push_async(value).await.unwrap();
            });
        },
    );
}

fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Makes both sides wait by a set, in which `idle` other channels have no news.
fn in_a_set_beside(idle: usize) {
    allow_many_descriptors();
    let set = || {
        let set = WaitSet::new().unwrap();
        let idle: Vec<_> = (0..idle).map(|_| numbers()).collect();
        for (_, rx, _) in &idle {
            set.watch(rx).unwrap();
        }
        (set, idle)
    };
    let ((mut pops, _idle), (mut pushes, _idle_too)) = (set(), set());
    both_ways(
        &format!("a set of {}", idle + 1),
        |rx| {
            if pops.len() == idle {
                pops.watch(&*rx).unwrap();
            }
            assert_eq!(pops.wait().unwrap().len(), 1);
            rx.try_pop().unwrap()
        },
        |tx, value| {
            if pushes.len() == idle {
                pushes.watch_room(&*tx, 1).unwrap();
            }
            assert_eq!(pushes.wait().unwrap().len(), 1);
            tx.try_push(value).unwrap();
        },
    );
}

#[test]
fn a_set_on_doorbells_wakes() {
    in_a_set_beside(3);
}

#[test]
fn a_set_on_pipes_wakes() {
    in_a_set_beside(DOORBELLS);
}

/// An entry that is armed a little before another one's second look is due has one of its own.
#[test]
fn each_entry_has_a_second_look() {
    allow_many_descriptors();
    let mut set = WaitSet::new().unwrap();
    let idle: Vec<_> = (0..DOORBELLS).map(|_| numbers()).collect();
    for (_, rx, _) in &idle {
        set.watch(rx).unwrap();
    }
    let (mut neighbour, mut other) = (numbers(), numbers());
    set.watch(&neighbour.1).unwrap();
    set.watch(&other.1).unwrap();
    // Notifies the entry, takes its message, and arms it anew. Returns the time of that.
    let renew = |set: &mut WaitSet, (tx, rx, _): &mut Numbers| {
        tx.try_push(1).unwrap();
        assert_eq!(set.wait_timeout(Duration::ZERO).unwrap().len(), 1);
        rx.try_pop().unwrap();
        let since = Instant::now();
        assert!(set.wait_timeout(Duration::ZERO).is_err());
        since
    };
    let until = |since: Instant, micros| {
        while since.elapsed() < Duration::from_micros(micros) {
            std::hint::spin_loop();
        }
    };
    let mut told = 0;
    for _ in 0..ROUNDS {
        // This takes all notifications that were owed before.
        for _ in 0..2 {
            until(Instant::now(), 1100);
            assert!(set.wait_timeout(Duration::ZERO).is_err());
        }
        let first = renew(&mut set, &mut neighbour);
        until(first, 900);
        let second = renew(&mut set, &mut other);
        until(first, 1100);
        assert!(set.wait_timeout(Duration::ZERO).is_err());
        let (tx, rx, [_, waiters]) = &mut other;
        let before = waiters.swap(0, Ordering::SeqCst);
        tx.try_push(2).unwrap();
        waiters.store(before, Ordering::SeqCst);
        // Otherwise we were kept from the processor.
        if second.elapsed() < IN_TIME {
            assert_eq!(set.wait_timeout(PATIENCE).unwrap().len(), 1);
            told += 1;
        }
        rx.try_pop().unwrap();
        if told == TIMES {
            return;
        }
    }
    panic!("late nearly each time: the machine is too busy");
}

/// A notification owed for a poll does not concern a sleep: it would leave a byte behind.
#[test]
fn nobody_rings_for_who_sleeps() {
    let (mut tx, mut rx, _) = numbers();
    rx.set_wait(AT_ONCE);
    for number in 0..20 {
        for _ in 0..2 {
            assert_eq!(rx.arm().unwrap(), Readiness::Armed);
            tx.try_push(number).unwrap();
            assert_eq!(rx.try_pop().unwrap(), number);
        }
        // This is the notification for the last message.
        let pipe = rx.as_fd().unwrap();
        rustix::io::read(pipe, &mut [0; 64]).unwrap();
        assert!(rx.pop_timeout(Duration::from_millis(3)).is_err());
        let mut polled = [PollFd::from_borrowed_fd(rx.as_fd().unwrap(), PollFlags::IN)];
        assert_eq!(
            poll(&mut polled, Some(&Timespec::default())),
            Ok(0),
            "{number}"
        );
    }
}

/// A program may wait for signals that it has blocked in the one thread that it knows of.
#[test]
fn the_helper_takes_no_signals() {
    let (_tx, mut rx, _) = numbers();
    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
    // The helper takes its name when it begins.
    let named = || {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let of = |file| move |thread: &PathBuf| fs::read_to_string(thread.join(file));
        let mut threads = threads.map(|thread| thread.unwrap().path());
        let helper =
            threads.find(|thread| of("comm")(thread).is_ok_and(|name| name == "slipring\n"));
        helper.map(|thread| of("status")(&thread).unwrap())
    };
    let status = loop {
        if let Some(status) = named() {
            break status;
        }
        thread::yield_now();
    };
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = u64::from_str_radix(blocked.unwrap().trim(), 16).unwrap();
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGUSR2,
        libc::SIGCHLD,
        libc::SIGALRM,
    ] {
        assert_ne!(blocked >> (signal - 1) & 1, 0, "{signal}");
    }
}

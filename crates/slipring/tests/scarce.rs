//! Checks two ends that share one processor: waiting must not take the time that the other end
//! needs. The tests compare processor time, which does not depend on the machine's other work.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use slipring::{broadcast, bytes, spsc};

const TRIPS: u64 = 3000;

/// Runs `far` and `near` in threads that may use one processor only, and returns the processor time of both.
fn share(far: impl FnOnce() + Send, near: impl FnOnce() + Send) -> Duration {
    let allowed = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set(
        (0..CpuSet::MAX_CPU)
            .find(|cpu| allowed.is_set(*cpu))
            .unwrap(),
    );
    let timed = |work: Box<dyn FnOnce() + Send + '_>| {
        sched_setaffinity(None, &one).unwrap();
        let used = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let before = used();
        work();
        used() - before
    };
    std::thread::scope(|scope| {
        let far = scope.spawn(|| timed(Box::new(far)));
        let near = scope.spawn(|| timed(Box::new(near)));
        far.join().unwrap() + near.join().unwrap()
    })
}

fn over_pipes() -> Duration {
    let ((mut far_rx, mut ping), (mut pong, mut far_tx)) =
        (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    share(
        move || {
            let mut message = [0; 8];
            for _ in 0..TRIPS {
                far_rx.read_exact(&mut message).unwrap();
                far_tx.write_all(&message).unwrap();
            }
        },
        move || {
            let mut message = [0; 8];
            for number in 0..TRIPS {
                ping.write_all(&number.to_le_bytes()).unwrap();
                pong.read_exact(&mut message).unwrap();
                assert_eq!(u64::from_le_bytes(message), number);
            }
        },
    )
}

/// Fails if the trips take too much time. A poll that cannot succeed takes 50 us or more; a pipe's
/// round trip some 5 us.
fn assert_cheap(what: &str, ours: Duration) {
    let pipes = over_pipes();
    assert!(
        ours < pipes * 5 + Duration::from_millis(20),
        "{what}: {ours:?}, pipes {pipes:?}"
    );
}

#[test]
fn spsc_shares_a_processor() {
    let ((mut ping, mut far_rx), (mut far_tx, mut pong)) =
        (spsc::channel(64).unwrap(), spsc::channel(64).unwrap());
    let ours = share(
        move || (0..TRIPS).for_each(|_| far_tx.push(far_rx.pop().unwrap()).unwrap()),
        move || {
            for number in 0..TRIPS {
                ping.push(number).unwrap();
                assert_eq!(pong.pop().unwrap(), number);
            }
        },
    );
    assert_cheap("spsc", ours);
}

#[test]
fn bytes_shares_a_processor() {
    let ((mut ping, mut far_rx), (mut far_tx, mut pong)) =
        (bytes::channel(4096).unwrap(), bytes::channel(4096).unwrap());
    let ours = share(
        move || {
            for _ in 0..TRIPS {
                let record = far_rx.read().unwrap().to_vec();
                far_tx.push(&record).unwrap();
            }
        },
        move || {
            for number in 0..TRIPS {
                ping.push(&number.to_le_bytes()).unwrap();
                assert_eq!(&pong.read().unwrap()[..], number.to_le_bytes());
            }
        },
    );
    assert_cheap("bytes", ours);
}

#[test]
fn broadcast_shares_a_processor() {
    let make = || {
        let channel = broadcast::Builder::<u64>::new(64)
            .consumers(1)
            .heap()
            .unwrap();
        (channel.producer().unwrap(), channel.consumer().unwrap())
    };
    let ((mut ping, mut far_rx), (mut far_tx, mut pong)) = (make(), make());
    let ours = share(
        move || (0..TRIPS).for_each(|_| far_tx.push(far_rx.pop().unwrap()).unwrap()),
        move || {
            for number in 0..TRIPS {
                ping.push(number).unwrap();
                assert_eq!(pong.pop().unwrap(), number);
            }
        },
    );
    assert_cheap("broadcast", ours);
}

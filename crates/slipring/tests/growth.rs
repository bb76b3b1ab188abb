//! Channels that grow and shrink while both ends are at work: no message is lost or out of order, and only the newest
//! ring keeps its memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use slipring::inspect::GrowthStat;
use slipring::{
    Builder, Channel, Error, Grow, GrowKind, Kind, Readiness, ResizeError, SetupError, Shrink,
    WaitSet, bytes, spsc,
};

/// The first and the largest capacity of most channels here.
const FIRST: usize = 2;
const LARGEST: usize = 64;

fn slots() -> Builder<spsc::Spsc<u64>> {
    spsc::Builder::new(FIRST).max_capacity(LARGEST)
}

fn growth<K: Kind>(channel: &Channel<K>) -> GrowthStat {
    channel.stat().unwrap().growth.unwrap()
}

#[test]
fn messages_cross_resizes_in_order() {
    let (mut tx, mut rx) = slots().channel_pair().unwrap();
    let mut sent = 0;
    for capacity in [2, 4, 64, 8, 32, 16] {
        tx.resize(capacity).unwrap();
        assert_eq!((tx.capacity(), rx.capacity()), (capacity, capacity));
        while tx.try_push(sent).is_ok() {
            sent += 1;
        }
        assert_eq!(tx.try_push(0).unwrap_err().error(), Error::Full);
    }
    // The largest of them was full once.
    assert_eq!(sent, 64);
    assert_eq!((tx.len(), rx.len()), (Ok(64), Ok(64)));
    for wanted in 0..sent {
        assert_eq!(rx.try_pop(), Ok(wanted));
    }
    assert_eq!(rx.try_pop(), Err(Error::Empty));
    assert_eq!(tx.try_push_slice(&[0; 20]), Ok(16));
}

/// After a shrink the channel is full until there are fewer messages than it now takes.
#[test]
fn shrunk_channels_are_full_until_read() {
    let (mut tx, mut rx) = slots().channel_pair().unwrap();
    tx.resize(16).unwrap();
    tx.push_slice(&[7; 16]).unwrap();
    tx.resize(4).unwrap();
    for left in (4..=16).rev() {
        assert_eq!(tx.len(), Ok(left));
        assert_eq!(tx.try_push(1).unwrap_err().error(), Error::Full);
        assert_eq!(rx.pop(), Ok(7));
    }
    assert_eq!(tx.try_push(8), Ok(()));
    assert_eq!((0..4).map(|_| rx.pop().unwrap()).sum::<u64>(), 3 * 7 + 8);
}

/// Refusals name the limits, and the channel goes on.
#[test]
fn impossible_resizes_are_refused() {
    let (mut tx, mut rx) = slots().channel_pair().unwrap();
    for asked in [0, 1, 3, 65, 128, usize::MAX] {
        let refused = ResizeError::Capacity {
            asked: asked as u64,
            min: 2,
            max: 64,
        };
        assert_eq!(tx.resize(asked), Err(refused));
    }
    tx.push(1).unwrap();
    // The consumer is still in the first ring.
    tx.resize(4).unwrap();
    assert_eq!(tx.resize(2), Err(ResizeError::Busy));
    for capacity in [8, 16, 32, 64] {
        tx.resize(capacity).unwrap();
    }
    assert_eq!(tx.resize(4), Err(ResizeError::Busy));
    tx.push(2).unwrap();
    assert_eq!((rx.pop(), rx.pop()), (Ok(1), Ok(2)));
    rx.settle();
    tx.resize(2).unwrap();
    assert_eq!(
        (tx.capacity(), tx.max_capacity(), rx.max_capacity()),
        (2, 64, 64)
    );

    let (mut fixed, _rx) = spsc::channel::<u64>(2).unwrap();
    assert_eq!(fixed.resize(4), Err(ResizeError::Fixed));
    assert_eq!(fixed.max_capacity(), 2);
}

/// Seven rings can be live; an eighth is refused, of whatever class.
#[test]
fn eight_rings_are_too_many() {
    let builder = spsc::Builder::<u64>::new(1).max_capacity(1 << 10);
    let (mut tx, mut rx) = builder.channel_pair().unwrap();
    for class in 0..7 {
        tx.resize(1 << class).unwrap();
        tx.push(class).unwrap();
    }
    assert_eq!(tx.resize(1 << 7), Err(ResizeError::Busy));
    assert_eq!((rx.pop(), rx.pop()), (Ok(0), Ok(1)));
    tx.resize(1 << 7).unwrap();
    (2..7).for_each(|class| assert_eq!(rx.pop(), Ok(class)));
    assert_eq!(rx.try_pop(), Err(Error::Empty));
}

#[test]
fn impossible_sizes_are_refused() {
    for max in [0, 1, 3, 96, 1 << 50] {
        let refused = slots().max_capacity(max).heap().err().unwrap();
        let SetupError::Setting {
            setting,
            found,
            min,
            ..
        } = refused
        else {
            panic!("{refused}");
        };
        assert_eq!((setting, found, min), ("max_capacity", max as u64, 2));
    }
    let sealed = slots().sealed().memfd().err().unwrap();
    assert!(matches!(sealed, SetupError::NotSealable), "{sealed}");
    // One capacity alone is possible, too.
    let (mut tx, _rx) = slots().max_capacity(FIRST).channel_pair().unwrap();
    assert_eq!(tx.resize(2), Ok(()));
}

/// Opening tells in which sizes a channel differs; a fixed one is opened by a builder of one that grows.
#[test]
fn other_sizes_are_told() {
    let channel = slots().memfd().unwrap();
    let own = |fd: &std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    let passed = || channel.descriptors().iter().map(own).collect::<Vec<_>>();
    let plain = spsc::Builder::<u64>::new(FIRST).from_fds(passed()).unwrap();
    let told: Vec<_> = plain
        .differences()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(told, ["largest capacity 64 instead of 2"]);
    let exact = spsc::Builder::<u64>::new(FIRST).exact().from_fds(passed());
    assert!(matches!(exact, Err(SetupError::Geometry { .. })));
    assert!(slots().exact().from_fds(passed()).is_ok());
}

/// Waits until only the newest ring has memory, and returns how much that is.
fn settled<K: Kind>(channel: &Channel<K>) -> u64 {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let now = growth(channel);
        if now.rings == Some(1) {
            // The first look may have counted the memory before it counted the rings.
            return growth(channel).backed.unwrap();
        }
        assert!(Instant::now() < until, "{now:?}");
        std::thread::yield_now();
    }
}

/// The consumer sleeps, and the producer does nothing more: exactly the newest ring has memory.
#[test]
fn sleeping_consumers_give_memory_back() {
    let builder = bytes::Builder::new(1 << 12).max_capacity(16 << 20);
    let channel = builder.memfd().unwrap();
    let area = |ring: usize| {
        channel
            .geometry()
            .area_of(ring.ilog2() as u64 - 12)
            .unwrap()
    };
    let backed = |ring: usize| area(ring).end - area(ring).start;
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    assert_eq!(growth(&channel).backed, Some(backed(1 << 12)));
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        while let Ok(record) = rx.read() {
            assert!(record.iter().all(|byte| *byte == seen as u8));
            seen += 1;
        }
        seen
    });
    let mut sent = 0;
    for ring in [16 << 20, 1 << 12, 8 << 20, 1 << 16] {
        tx.resize(ring).unwrap();
        for _ in 0..100 {
            tx.push(&[sent as u8; 1000]).unwrap();
            sent += 1;
        }
        assert_eq!(settled(&channel), backed(ring));
    }
    drop(tx);
    assert_eq!(reader.join().unwrap(), sent);
}

/// A consumer in a set is woken by a resize, and gives memory back in the call that follows.
#[test]
fn sets_report_rings_to_leave() {
    let channel = slots().memfd().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut set = WaitSet::new().unwrap();
    let key = set.watch(&rx).unwrap();
    let nothing = set.wait_timeout(Duration::from_millis(1));
    assert!(matches!(nothing, Err(Error::TimedOut)));
    tx.resize(64).unwrap();
    let events = set.wait_timeout(Duration::from_secs(20)).unwrap();
    assert!(events.iter().any(|event| event.key == key && event.ready));
    assert_eq!(rx.try_pop(), Err(Error::Empty));
    assert_eq!(growth(&channel).rings, Some(1));
}

/// What a consumer holds stays as it is, however often the ring is resized.
#[test]
fn held_messages_stay_untouched() {
    let channel = bytes::Builder::new(1 << 12)
        .max_capacity(1 << 20)
        .memfd()
        .unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.push(&[42; 1000]).unwrap();
    let held = rx.read().unwrap();
    for attempt in 0..100 {
        let ring = 1 << (12 + attempt % 9);
        let done = tx.resize(ring);
        assert!(matches!(done, Ok(()) | Err(ResizeError::Busy)), "{done:?}");
        let _ = tx.try_push(&[attempt as u8; 500]);
        assert!(held.iter().all(|byte| *byte == 42));
    }
}

/// The rules of a builder: as large as needed while it is full, and small again when it is not.
#[test]
fn channels_resize_by_themselves() {
    let idle = Duration::from_millis(20);
    let builder = slots().grow(Grow::WhenFull).shrink(Shrink::WhenIdle(idle));
    let (mut tx, mut rx) = builder.channel_pair().unwrap();
    for value in 0..64 {
        assert_eq!(tx.try_push(value), Ok(()));
    }
    assert_eq!(tx.capacity(), 64);
    assert_eq!(tx.try_push(0).unwrap_err().error(), Error::Full);
    for wanted in 0..64 {
        assert_eq!(rx.pop(), Ok(wanted));
    }
    let until = Instant::now() + Duration::from_secs(20);
    while tx.capacity() > FIRST {
        rx.settle();
        tx.settle();
        assert!(Instant::now() < until, "{}", tx.capacity());
    }
    rx.settle();
    // What is larger than the ring, and no larger than it can be, makes it larger as well.
    assert_eq!(tx.try_reserve(40).unwrap().len(), 40);
    assert_eq!(tx.capacity(), 64);
    let refused = Error::TooLarge { asked: 65, max: 64 };
    assert_eq!(tx.try_reserve(65).unwrap_err(), refused);

    let (mut tx, _rx) = slots().channel_pair().unwrap();
    tx.set_sizing(Grow::OnRequest, Shrink::OnRequest);
    let refused = Error::TooLarge { asked: 3, max: 2 };
    assert_eq!(tx.try_reserve(3).unwrap_err(), refused);
}

/// A producer whose consumer has left grows nothing: it says so, as ever.
#[test]
fn nobody_grows_for_a_gone_consumer() {
    let (mut tx, rx) = slots().grow(Grow::WhenFull).channel_pair().unwrap();
    tx.push_slice(&[1, 2]).unwrap();
    drop(rx);
    let refused = tx.try_push(3).unwrap_err().error();
    assert!(matches!(refused, Error::Disconnected(_)), "{refused}");
    assert_eq!(tx.capacity(), 2);
}

/// A batch that is being written is not torn away from under its writer.
#[test]
fn batches_of_records_stay_in_their_ring() {
    let builder = bytes::Builder::new(64).max_record(24).max_capacity(1 << 10);
    let (mut tx, mut rx) = builder.grow(Grow::WhenFull).channel_pair().unwrap();
    let records: Vec<[u8; 20]> = (0..20).map(|fill| [fill; 20]).collect();
    let mut left = records.iter().map(<[u8; 20]>::as_slice).peekable();
    let mut calls = 0;
    while left.peek().is_some() {
        assert!(tx.try_push_iter(&mut left).unwrap() > 0);
        calls += 1;
    }
    assert!(calls > 1 && tx.capacity() > 64);
    records
        .iter()
        .for_each(|wanted| assert_eq!(&*rx.read().unwrap(), wanted));
}

/// Ten thousand resizes beside a consumer that reads all the time.
#[test]
fn nothing_is_lost_under_resizes() {
    const RESIZES: u32 = 10_000;
    let channel = spsc::Builder::<u64>::new(1)
        .max_capacity(1 << 9)
        .memfd()
        .unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let reader = std::thread::spawn(move || {
        let mut next = 0;
        while let Ok(value) = rx.pop() {
            assert_eq!(value, next);
            next += 1;
        }
        next
    });
    let (mut sent, mut done, mut random) = (0, 0, 1u32);
    while done < RESIZES {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match tx.resize(1 << ((random >> 16) % 10)) {
            Ok(()) => done += 1,
            Err(ResizeError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
        for _ in 0..(random >> 8) % 8 {
            tx.push(sent).unwrap();
            sent += 1;
        }
    }
    drop(tx);
    assert_eq!(reader.join().unwrap(), sent);
    assert!(growth(&channel).resizes > u64::from(RESIZES) / 2);
    assert_eq!(growth(&channel).rings, Some(1));
}

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Pop(usize),
    Resize(u32),
    /// The producer, or the consumer, leaves and another one comes.
    Rejoin(bool),
    Settle,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1..9usize).prop_map(Op::Push),
        6 => (1..9usize).prop_map(Op::Pop),
        5 => (0..6u32).prop_map(Op::Resize),
        1 => any::<bool>().prop_map(Op::Rejoin),
        1 => Just(Op::Settle),
    ];
    proptest::collection::vec(op, 1..120)
}

/// A channel of either kind, whose messages are numbers.
struct Pair<K: GrowKind> {
    channel: Channel<K>,
    tx: Option<slipring::Producer<K>>,
    rx: Option<slipring::Consumer<K>>,
    push: fn(&mut slipring::Producer<K>, u64) -> Result<(), Error>,
    pop: fn(&mut slipring::Consumer<K>) -> Result<u64, Error>,
    /// The room that a message takes.
    room: fn(u64) -> usize,
}

impl<K: GrowKind> Pair<K> {
    /// Does all of `ops`, and compares each answer with that of a queue.
    fn runs(mut self, ops: Vec<Op>) {
        let first = self.channel.geometry().capacity as usize;
        let (mut queue, mut sent, mut used) = (VecDeque::new(), 0, 0);
        for op in ops {
            let (tx, rx) = (self.tx.as_mut().unwrap(), self.rx.as_mut().unwrap());
            match op {
                Op::Push(count) => {
                    for _ in 0..count {
                        let room = (self.room)(sent);
                        match (self.push)(tx, sent) {
                            Ok(()) => queue.push_back(sent),
                            Err(Error::Full) => {
                                assert!(used + room > tx.capacity());
                                break;
                            }
                            Err(error) => panic!("{error}"),
                        }
                        assert!(used + room <= tx.capacity());
                        (used, sent) = (used + room, sent + 1);
                    }
                }
                Op::Pop(count) => {
                    for _ in 0..count {
                        match ((self.pop)(rx), queue.pop_front()) {
                            (Ok(found), Some(wanted)) => {
                                assert_eq!(found, wanted);
                                used -= (self.room)(wanted);
                            }
                            (Err(Error::Empty | Error::Disconnected(_)), None) => break,
                            other => panic!("{other:?}"),
                        }
                    }
                }
                Op::Resize(class) => {
                    let (before, capacity) = (tx.capacity(), first << class);
                    match tx.resize(capacity) {
                        Ok(()) => assert_eq!(tx.capacity(), capacity),
                        Err(ResizeError::Busy) => assert_eq!(tx.capacity(), before),
                        Err(error) => panic!("{error}"),
                    }
                }
                Op::Rejoin(true) => {
                    self.tx = None;
                    self.tx = Some(self.channel.producer().unwrap());
                }
                Op::Rejoin(false) => {
                    self.rx = None;
                    self.rx = Some(self.channel.consumer().unwrap());
                }
                Op::Settle => {
                    rx.settle();
                    if queue.is_empty() {
                        assert_eq!(growth(&self.channel).rings, Some(1));
                    }
                }
            }
            let (tx, rx) = (self.tx.as_ref().unwrap(), self.rx.as_ref().unwrap());
            assert_eq!((tx.len(), rx.len()), (Ok(used), Ok(used)));
            assert_eq!(tx.capacity(), rx.capacity());
        }
    }
}

/// Returns the length of a record with this number.
fn length(number: u64) -> usize {
    8 + (number as usize * 7) % 41
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn slots_match_a_queue(ops in ops()) {
        let channel = spsc::Builder::<u64>::new(1).max_capacity(32).memfd().unwrap();
        Pair {
            tx: Some(channel.producer().unwrap()),
            rx: Some(channel.consumer().unwrap()),
            channel,
            push: |tx, number| Ok(tx.try_push(number)?),
            pop: |rx| rx.try_pop(),
            room: |_| 1,
        }
        .runs(ops);
    }

    #[test]
    fn records_match_a_queue(ops in ops()) {
        let builder = bytes::Builder::new(64).max_record(56).max_capacity(2048);
        let channel = builder.memfd().unwrap();
        Pair {
            tx: Some(channel.producer().unwrap()),
            rx: Some(channel.consumer().unwrap()),
            channel,
            push: |tx, number| {
                let mut record = vec![number as u8; length(number)];
                record[..8].copy_from_slice(&number.to_le_bytes());
                tx.try_push(&record)
            },
            pop: |rx| {
                let record = rx.try_read()?;
                let number = u64::from_le_bytes(record[..8].try_into().unwrap());
                assert_eq!(record.len(), length(number));
                assert!(record[8..].iter().all(|byte| *byte == number as u8));
                Ok(number)
            },
            room: |number| bytes::record_size(length(number) as u64) as usize,
        }
        .runs(ops);
    }
}

/// Twice the capacity each time would use up all seven rings: then it grows faster.
#[test]
fn bursts_reach_the_largest_ring() {
    let builder = spsc::Builder::<u64>::new(1).max_capacity(1 << 16);
    let builder = builder.grow(Grow::WhenFull);
    let (mut tx, mut rx) = builder.channel_pair().unwrap();
    for value in 0..1 << 16 {
        assert_eq!(tx.try_push(value), Ok(()));
    }
    assert_eq!(tx.try_push(0).unwrap_err().error(), Error::Full);
    for wanted in 0..1 << 16 {
        assert_eq!(rx.try_pop(), Ok(wanted));
    }
}

/// A batch that finds some room is content with it.
#[test]
fn batches_grow_only_full_rings() {
    let builder = spsc::Builder::<u64>::new(64).max_capacity(1 << 12);
    let (mut tx, mut rx) = builder.grow(Grow::WhenFull).channel_pair().unwrap();
    tx.push(0).unwrap();
    for value in 1..64 {
        assert_eq!(tx.try_push_iter([value]), Ok(1));
    }
    assert_eq!((tx.capacity(), tx.len()), (64, Ok(64)));
    let more: Vec<u64> = (64..100).collect();
    assert_eq!(tx.try_push_slice(&more), Ok(36));
    assert_eq!(tx.capacity(), 128);
    (0..100).for_each(|wanted| assert_eq!(rx.pop(), Ok(wanted)));
}

/// A producer that waits for more than its ring holds is woken once the consumer has given back the larger one's memory.
#[test]
fn waiting_producers_hear_of_free_areas() {
    let channel = slots().grow(Grow::WhenFull).memfd().unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    tx.resize(64).unwrap();
    tx.push_slice(&[5; 30]).unwrap();
    tx.resize(4).unwrap();
    // The area for so many is still read.
    assert_eq!(tx.arm(50), Ok(Readiness::Armed));
    for _ in 0..30 {
        assert_eq!(rx.pop(), Ok(5));
    }
    assert_eq!(tx.arm(50), Ok(Readiness::Armed));
    rx.settle();
    let fd = tx.as_fd().unwrap();
    let long = rustix::time::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let mut fds = [rustix::event::PollFd::new(
        &fd,
        rustix::event::PollFlags::IN,
    )];
    assert_eq!(rustix::event::poll(&mut fds, Some(&long)).unwrap(), 1);
    assert_eq!(tx.try_reserve(50).unwrap().len(), 50);
}

/// Memory that no wait will bring is an error at once.
#[test]
fn rings_without_memory_are_told() {
    // More than any machine has.
    let builder = spsc::Builder::<[u64; 512]>::new(1).max_capacity(1 << 32);
    let (mut tx, _rx) = builder.grow(Grow::WhenFull).channel_pair().unwrap();
    for _ in 0..2 {
        let refused = tx.try_reserve(1 << 31).unwrap_err();
        assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
    }
    assert_eq!(tx.capacity(), 1);
    tx.push([7; 512]).unwrap();
}

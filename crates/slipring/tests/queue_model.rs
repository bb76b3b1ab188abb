//! Compares work queues with a model. Several handles make calls in any order and hold guards meanwhile, at every edge of
//! the positions; and threads work at the same time, where each message and its order is checked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod memory;

use std::collections::{HashMap, VecDeque};
use std::mem::forget;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use slipring::mpmc::{Builder, Channel, Consumer, OwnedMessage, OwnedReservation, Producer};
use slipring::{End, Error, PushError};

use memory::Memory;

/// The builds of the sanitizers take so many times as long, and try as many times fewer.
const SLOWER: u32 = if cfg!(slipring_plain) { 16 } else { 1 };

/// Returns the start positions: zero, and just before each edge that a narrower counter would have.
fn starts() -> impl Strategy<Value = u64> {
    let edges = [1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 48, 1 << 54];
    prop_oneof![
        Just(0),
        (prop::sample::select(edges.to_vec()), 1..9_u64).prop_map(|(edge, before)| edge - before),
        0..1_u64 << 54,
    ]
}

fn capacities() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 2, 4, 64])
}

/// One step, by one of the handles of a side.
#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    /// Pushes as many of so many as there is room for.
    Slice(usize, usize),
    /// The same, of an iterator.
    Iter(usize, usize),
    /// Reserves so many or none, and commits so many of them.
    Reserve(usize, usize, usize),
    Pop(usize),
    PopSlice(usize, usize),
    /// Reads up to so many and releases so many of them. The others are given back.
    Read(usize, usize, usize),
    /// Reads up to so many, and forgets the guard.
    Forget(usize, usize),
    /// A producer, or a consumer, leaves, and another one comes before or after.
    Replace(usize, bool, bool),
    /// Takes a message out of a consumer's hands.
    Hold(usize),
    /// Finishes with a message in hand: releases it, or gives it back.
    Finish(usize, bool),
    /// Takes so many reserved slots out of a producer's hands.
    Claim(usize, usize),
    /// Commits so many of the slots of a reservation, and discards the others.
    Commit(usize, usize),
}

/// The handles of each side.
const HANDLES: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let handle = || 0..HANDLES;
    let few = || prop_oneof![8 => 0..6_usize, 1 => 0..70_usize];
    let step = prop_oneof![
        2 => handle().prop_map(Step::Push),
        1 => (handle(), few()).prop_map(|(handle, count)| Step::Slice(handle, count)),
        1 => (handle(), few()).prop_map(|(handle, count)| Step::Iter(handle, count)),
        1 => (handle(), few(), few()).prop_map(|(h, n, m)| Step::Reserve(h, n, m)),
        2 => handle().prop_map(Step::Pop),
        1 => (handle(), few()).prop_map(|(handle, count)| Step::PopSlice(handle, count)),
        2 => (handle(), few(), few()).prop_map(|(h, n, m)| Step::Read(h, n, m)),
        1 => (handle(), 0..4_usize).prop_map(|(handle, count)| Step::Forget(handle, count)),
        1 => (handle(), any::<bool>(), any::<bool>()).prop_map(|(h, s, b)| Step::Replace(h, s, b)),
        2 => handle().prop_map(Step::Hold),
        2 => (0..8_usize, any::<bool>()).prop_map(|(which, release)| Step::Finish(which, release)),
        1 => (handle(), 1..4_usize).prop_map(|(handle, count)| Step::Claim(handle, count)),
        2 => (0..8_usize, 0..4_usize).prop_map(|(which, count)| Step::Commit(which, count)),
    ];
    prop::collection::vec(step, 0..150)
}

/// A consumer, with the number by which the model knows it.
struct Reader {
    name: u64,
    rx: Consumer<u64>,
}

/// The contents that a queue should have.
#[derive(Default)]
struct Model {
    capacity: usize,
    next: u64,
    /// Committed or reserved, in order.
    waiting: VecDeque<u64>,
    /// Given back.
    back: Vec<u64>,
    /// The numbers of each reservation that is out of its producer's hands. They are in `waiting`, too.
    reserved: Vec<Range<u64>>,
    /// Out of its consumer's hands, and that consumer's name.
    held: Vec<(u64, u64)>,
    /// Forgotten, and the name of the consumer that had it.
    forgotten: Vec<(u64, u64)>,
    /// The number of times that each message was delivered.
    deliveries: HashMap<u64, u32>,
    gone: Vec<u64>,
    /// `true` if positions may have been given up, behind which others wait until the ring has come round: those of what
    /// was discarded, and those that a run left free before a held slot.
    gapped: bool,
}

impl Model {
    fn numbers(&mut self, count: usize) -> Range<u64> {
        let first = self.next;
        self.next += count as u64;
        first..self.next
    }

    /// Returns the number of slots in use.
    fn used(&self) -> usize {
        self.waiting.len() + self.back.len() + self.held.len() + self.forgotten.len()
    }

    fn room(&self) -> usize {
        self.capacity - self.used()
    }

    /// Returns `true` if one more message fits wherever there is room: all that is held is held one by one.
    fn is_loose(&self) -> bool {
        self.reserved.is_empty() && self.forgotten.is_empty() && !self.gapped
    }

    /// Returns `true` if all room is in one piece.
    fn is_plain(&self) -> bool {
        self.is_loose() && self.held.is_empty() && self.back.is_empty()
    }

    /// Returns `true` if no message can be taken: there is none, or a reserved slot comes first.
    fn nothing(&self) -> bool {
        let first = self.waiting.front();
        self.back.is_empty()
            && first.is_none_or(|first| self.reserved.iter().any(|run| run.contains(first)))
    }

    /// Notes that a call asked for so many slots in a row, and used so many of them.
    fn asked_for(&mut self, count: usize, used: usize) {
        let held = self.held.len() + self.back.len() + self.forgotten.len() > 0;
        self.gapped |= used < count || (held && count > 1);
    }

    /// Checks that best effort did all that could be done, and that the messages are there.
    fn appended(&mut self, numbers: Range<u64>, done: Result<usize, Error>) {
        let count = (numbers.end - numbers.start) as usize;
        let most = count.min(self.room());
        let done = done.unwrap_or_else(|error| {
            assert_eq!(error, Error::Full);
            0
        });
        assert!(done <= most);
        if self.is_loose() {
            assert!(done > 0 || most == 0, "there is room for {most}");
        }
        if self.is_plain() {
            assert_eq!(done, most);
        }
        self.asked_for(count, count);
        self.waiting.extend(numbers.take(done));
    }

    /// Checks messages that came together: what was given back comes alone, the others in order, and each tells how often
    /// it came before.
    fn came(&mut self, messages: &[u64], deliveries: u32) {
        for message in messages {
            let before = self.deliveries.entry(*message).or_default();
            assert_eq!(deliveries, *before, "of {message}");
            *before += 1;
        }
        // A consumer takes what its last look found before it looks for what was given back since.
        match deliveries {
            0 => assert!(
                messages
                    .iter()
                    .copied()
                    .eq(self.waiting.drain(..messages.len()))
            ),
            _ => {
                assert_eq!(messages.len(), 1, "{messages:?}");
                let at = self.back.iter().position(|there| *there == messages[0]);
                self.back.swap_remove(at.expect("it was given back"));
            }
        }
    }

    fn came_not(&self, error: Error) {
        let ended = error == Error::Disconnected(End::Finished);
        assert!(error == Error::Empty || ended, "{error}");
        assert!(self.nothing(), "{error}");
    }

    /// Messages that a consumer forgot come back when it has left, and all that it handed out is finished with.
    fn settle(&mut self) {
        self.gapped &= self.used() > 0;
        for name in &self.gone {
            if self.held.iter().all(|(_, holder)| holder != name) {
                let theirs = self.forgotten.extract_if(.., |(_, had)| had == name);
                self.back.extend(theirs.map(|(message, _)| message));
            }
        }
    }
}

/// Makes the calls on a queue, and compares what they return with the model.
fn compare(channel: &Channel<u64>, steps: Vec<Step>) {
    let capacity = channel.geometry().capacity as usize;
    let mut model = Model {
        capacity,
        ..Model::default()
    };
    let mut names = 0..;
    let mut reader = || Reader {
        name: names.next().unwrap(),
        rx: channel.consumer().unwrap(),
    };
    let mut tx: Vec<Producer<u64>> = (0..HANDLES).map(|_| channel.producer().unwrap()).collect();
    let mut rx: Vec<Reader> = (0..HANDLES).map(|_| reader()).collect();
    let mut held: Vec<OwnedMessage<u64>> = Vec::new();
    let mut reserved: Vec<OwnedReservation<u64>> = Vec::new();
    for step in steps {
        match step {
            Step::Push(handle) => {
                let number = model.numbers(1);
                let pushed = tx[handle].try_push(number.start).map(|()| 1);
                let pushed = pushed.map_err(|failed| {
                    assert_eq!(failed, PushError::Full(number.start));
                    Error::Full
                });
                model.appended(number, pushed);
            }
            Step::Slice(handle, count) => {
                let numbers = model.numbers(count);
                let values: Vec<u64> = numbers.clone().collect();
                model.appended(numbers, tx[handle].try_push_slice(&values));
            }
            Step::Iter(handle, count) => {
                let numbers = model.numbers(count);
                let mut left = numbers.clone();
                let done = tx[handle].try_push_iter(&mut left);
                assert_eq!(left.start - numbers.start, done.unwrap_or(0) as u64);
                model.appended(numbers, done);
            }
            Step::Reserve(handle, count, commit) => {
                let numbers = model.numbers(count);
                match tx[handle].try_reserve(count) {
                    Ok(mut run) => {
                        assert!(run.len() == count && count <= model.room());
                        for (index, number) in numbers.clone().enumerate() {
                            run.write(index, number);
                        }
                        let commit = commit.min(count);
                        run.commit(commit);
                        model.asked_for(count, commit);
                        model.waiting.extend(numbers.take(commit));
                    }
                    Err(Error::TooLarge { .. }) => assert!(count > capacity),
                    Err(error) => {
                        assert_eq!(error, Error::Full);
                        assert!(!model.is_plain() || count > model.room());
                    }
                }
            }
            Step::Pop(handle) => match rx[handle].rx.try_pop() {
                Ok(message) => model.came(&[message], rx[handle].rx.deliveries()),
                Err(error) => model.came_not(error),
            },
            Step::PopSlice(handle, count) => {
                let mut out = vec![0; count];
                match rx[handle].rx.try_pop_slice(&mut out) {
                    Ok(0) => assert_eq!(count, 0),
                    Ok(done) => model.came(&out[..done], rx[handle].rx.deliveries()),
                    Err(error) => model.came_not(error),
                }
            }
            Step::Read(handle, count, release) => match rx[handle].rx.try_read_batch(count) {
                Ok(batch) if batch.is_empty() => assert_eq!(count, 0),
                Ok(batch) => {
                    let messages: Vec<u64> = batch.iter().copied().collect();
                    assert!(messages.len() <= count);
                    model.came(&messages, batch.deliveries());
                    let release = release.min(messages.len());
                    batch.release(release);
                    model.back.extend(&messages[release..]);
                }
                Err(error) => model.came_not(error),
            },
            Step::Forget(handle, count) => {
                let reader = &mut rx[handle];
                match reader.rx.try_read_batch(count) {
                    Ok(batch) if batch.is_empty() => {}
                    Ok(batch) => {
                        let messages: Vec<u64> = batch.iter().copied().collect();
                        model.came(&messages, batch.deliveries());
                        forget(batch);
                        let theirs = messages.into_iter().map(|message| (message, reader.name));
                        model.forgotten.extend(theirs);
                    }
                    Err(error) => model.came_not(error),
                }
            }
            Step::Replace(handle, produces, before) => {
                // No seat may be free: guards keep the seats of handles that have left.
                if produces && before {
                    tx[handle] = channel.producer().unwrap();
                } else if produces {
                    tx.swap_remove(handle);
                    tx.push(channel.producer().unwrap());
                } else if before {
                    let left = std::mem::replace(&mut rx[handle], reader());
                    model.gone.push(left.name);
                } else {
                    model.gone.push(rx.swap_remove(handle).name);
                    rx.push(reader());
                }
            }
            Step::Hold(handle) => match rx[handle].rx.try_read_owned() {
                Ok(message) => {
                    model.came(&[*message], message.deliveries());
                    model.held.push((*message, rx[handle].name));
                    held.push(message);
                }
                Err(error) => model.came_not(error),
            },
            Step::Finish(which, release) if which < held.len() => {
                let (message, _) = model.held.remove(which);
                let guard = held.remove(which);
                assert_eq!(*guard, message);
                match release {
                    true => guard.release(),
                    false => {
                        guard.keep();
                        model.back.push(message);
                    }
                }
            }
            Step::Claim(handle, count) => {
                let numbers = model.numbers(count);
                if let Ok(mut run) = tx[handle].try_reserve_owned(count) {
                    assert!(count <= model.room());
                    for (index, number) in numbers.clone().enumerate() {
                        run.write(index, number);
                    }
                    reserved.push(run);
                    model.asked_for(count, count);
                    model.waiting.extend(numbers.clone());
                    model.reserved.push(numbers);
                }
            }
            Step::Commit(which, count) if which < reserved.len() => {
                let numbers = model.reserved.remove(which);
                let count = count.min((numbers.end - numbers.start) as usize);
                reserved.remove(which).commit(count);
                let discarded = numbers.start + count as u64..numbers.end;
                model.gapped |= !discarded.is_empty();
                model.waiting.retain(|number| !discarded.contains(number));
            }
            Step::Finish(..) | Step::Commit(..) => {}
        }
        model.settle();
        let reserved: u64 = model.reserved.iter().map(|run| run.end - run.start).sum();
        assert_eq!(rx[0].rx.len(), Ok(model.used() - reserved as usize));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000 / SLOWER, failure_persistence: None, ..ProptestConfig::default() })]

    /// A queue behaves as a queue, and what was given back comes again, whoever calls what and whatever is held.
    #[test]
    fn any_history_is_a_queue(capacity in capacities(), start in starts(), steps in steps()) {
        let builder = Builder::<u64>::new(capacity).producers(63).consumers(63);
        let memory = Memory::of(&builder);
        let channel = memory.format(&builder).unwrap();
        memory.start_queue_at(&channel.geometry(), start);
        compare(&channel, steps);
        drop(channel);
        memory.assert_fences_stand();
    }
}

/// The way in which the threads of a run work.
#[derive(Clone, Debug)]
struct Shape {
    capacity: usize,
    start: u64,
    seed: u64,
    /// The most messages that a call appends, or takes.
    most: usize,
    /// One of so many messages is given back.
    keeps: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let figures = (capacities(), starts(), any::<u64>(), 1..9_usize, 2..40_u64);
    figures.prop_map(|(capacity, start, seed, most, keeps)| Shape {
        capacity,
        start,
        seed,
        most,
        keeps,
    })
}

const PRODUCERS: u64 = 2;
const CONSUMERS: u64 = 2;
/// The messages of each producer.
const EACH: u64 = 1000;
/// No call takes so long, also on a busy machine.
const LATE: Duration = Duration::from_secs(60);

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

/// Appends messages of one producer by any verbs, now and then as another handle.
fn produce(channel: &Channel<u64>, shape: &Shape, index: u64) {
    let mut dice = Dice(shape.seed ^ index);
    let mut tx = channel.producer().unwrap();
    let mut left = index * EACH..(index + 1) * EACH;
    while !left.is_empty() {
        let most = shape.most.min((left.end - left.start) as usize);
        let count = 1 + dice.roll(most as u64) as usize;
        let values: Vec<u64> = left.clone().take(count).collect();
        let done = match dice.roll(6) {
            0 => tx.try_push_slice(&values).unwrap_or(0),
            1 => {
                tx.push_slice_timeout(&values, LATE).unwrap();
                count
            }
            2 => {
                let count = count.min(shape.capacity);
                let wanted = (count + dice.roll(2) as usize).min(shape.capacity);
                let mut run = tx.reserve_timeout(wanted, LATE).unwrap();
                for (index, value) in values[..count].iter().enumerate() {
                    run.write(index, *value);
                }
                run.commit(count);
                count
            }
            3 => {
                let mut runs = Vec::new();
                for value in &values {
                    let Ok(mut run) = tx.try_reserve_owned(1) else {
                        break;
                    };
                    run.write(0, *value);
                    runs.push(run);
                }
                let done = runs.len();
                runs.into_iter().rev().for_each(|run| run.commit(1));
                done
            }
            4 if dice.roll(8) == 0 => {
                let another = tx.another().unwrap();
                tx = another;
                0
            }
            _ => {
                tx.push_timeout(values[0], LATE).unwrap();
                1
            }
        };
        left.start += done as u64;
    }
}

/// Takes messages by any verbs, and notes each that it releases, in order, with the number of earlier deliveries. `firsts`
/// has the number after the last first delivery of each producer.
fn consume(
    channel: &Channel<u64>,
    shape: &Shape,
    index: u64,
    firsts: &[AtomicU64],
    mut rx: Consumer<u64>,
) -> Vec<u64> {
    let mut dice = Dice(!shape.seed ^ index);
    let mut got = Vec::new();
    loop {
        // SeqCst: whoever noted a first delivery before this has claimed it before.
        let mut floor = firsts
            .iter()
            .map(|first| first.load(Ordering::SeqCst))
            .collect::<Vec<_>>();
        let mut came = |message: u64, deliveries: u32| {
            let producer = (message / EACH) as usize;
            if deliveries == 0 {
                assert!(message >= floor[producer], "{message} after {floor:?}");
                floor[producer] = message + 1;
                firsts[producer].fetch_max(message + 1, Ordering::SeqCst);
            } else {
                assert!(deliveries == 1 && message.is_multiple_of(shape.keeps));
            }
            deliveries == 0 && message.is_multiple_of(shape.keeps)
        };
        let taken = match dice.roll(4) {
            0 => rx.read_batch_timeout(shape.most, LATE).map(|batch| {
                let messages: Vec<u64> = batch.iter().copied().collect();
                let deliveries = batch.deliveries();
                let kept = messages.iter().map(|message| came(*message, deliveries));
                let kept = kept.collect::<Vec<_>>();
                let release = kept.iter().position(|kept| *kept);
                let release = release.unwrap_or(messages.len());
                // Only the first of the rest is to come again: so the rest is just that.
                got.extend(&messages[..release]);
                match release < messages.len() && kept[release..].len() > 1 {
                    true => {
                        // The others are done with here, and not given back.
                        got.extend(&messages[release..]);
                        batch.release(messages.len());
                    }
                    false => batch.release(release),
                }
            }),
            1 => rx.read_owned_timeout(LATE).map(|first| {
                let mut held = vec![first];
                while held.len() < shape.most
                    && let Ok(message) = rx.try_read_owned()
                {
                    held.push(message);
                }
                let kept = held
                    .iter()
                    .map(|message| came(**message, message.deliveries()));
                let kept = kept.collect::<Vec<_>>();
                for (message, kept) in held.into_iter().zip(kept).rev() {
                    match kept {
                        true => message.keep(),
                        false => {
                            got.push(*message);
                            message.release();
                        }
                    }
                }
            }),
            2 if dice.roll(8) == 0 => {
                // Another end comes for one message, and leaves.
                let mut guest = channel.consumer().unwrap();
                if let Ok(message) = guest.try_pop() {
                    came(message, guest.deliveries());
                    got.push(message);
                }
                Ok(())
            }
            _ => rx.pop_timeout(LATE).map(|message| {
                came(message, rx.deliveries());
                got.push(message);
            }),
        };
        match taken {
            Ok(()) => {}
            Err(Error::Disconnected(End::Finished)) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64 / SLOWER, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two producers and two consumers at the same time: each message is released once, and first deliveries come in the
    /// order of reservation.
    #[test]
    fn threads_share_each_message_once(shape in shapes()) {
        let builder = Builder::<u64>::new(shape.capacity);
        let memory = Memory::of(&builder);
        let channel = memory.format(&builder).unwrap();
        memory.start_queue_at(&channel.geometry(), shape.start);
        let firsts: Vec<AtomicU64> = (0..PRODUCERS).map(|_| AtomicU64::new(0)).collect();
        // The ends are there before the first producer can have left.
        let guard = channel.producer().unwrap();
        let mut got = std::thread::scope(|scope| {
            let (channel, shape, firsts) = (&channel, &shape, &firsts);
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|index| scope.spawn(move || produce(channel, shape, index)))
                .collect();
            let consumers: Vec<_> = (0..CONSUMERS)
                .map(|index| {
                    let rx = channel.consumer().unwrap();
                    scope.spawn(move || consume(channel, shape, index, firsts, rx))
                })
                .collect();
            producers.into_iter().for_each(|thread| thread.join().unwrap());
            drop(guard);
            let got = consumers.into_iter().map(|thread| thread.join().unwrap());
            got.flatten().collect::<Vec<_>>()
        });
        got.sort_unstable();
        prop_assert!(got.into_iter().eq(0..PRODUCERS * EACH));
        prop_assert_eq!(channel.stat().unwrap().len, 0);
        memory.assert_fences_stand();
    }
}

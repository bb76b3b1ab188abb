//! Compares topics with a model: a list of all messages. Several handles make calls in any order, and hold messages
//! meanwhile, at every edge of the numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod memory;

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use slipring::topic::{Builder, Channel, OwnedSample, Publisher, Seek, Subscriber, Topic};
use slipring::{Error, Geometry};
use slipring_core::layout::HEAD;

use memory::Memory;

/// A message: its number, and words that follow from it.
type Text = [u64; 3];

/// The number of messages that a subscriber may hold.
const HELD: usize = 2;

/// Returns the start positions: zero, and just before each edge that a narrower counter would have.
fn starts() -> impl Strategy<Value = u64> {
    let edges = [1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 47];
    prop_oneof![
        Just(0),
        (prop::sample::select(edges.to_vec()), 1..9_u64).prop_map(|(edge, before)| edge - before),
    ]
}

fn capacities() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 2, 4, 64])
}

/// One step, by one of the handles of a side.
#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    /// Publishes so many messages, one after another.
    Slice(usize, usize),
    /// Reserves so many slots, writes and publishes so many of them.
    Reserve(usize, usize, usize),
    /// Gives memory back.
    Trim(usize),
    /// Publishes so many messages, one by one: more than a pool has slots.
    Flood(usize, usize),
    Pop(usize),
    PopSlice(usize, usize),
    /// Reads the next message in place, and releases it or not.
    Read(usize, bool),
    /// Reads the message so many before the newest.
    Nth(usize, usize),
    /// Holds the next message.
    Hold(usize),
    /// Holds the message so many before the newest.
    HoldNth(usize, usize),
    /// Lets go of a held message.
    LetGo(usize),
    Seek(usize, Where),
    /// A publisher leaves, and another one comes before or after.
    Replace(usize, bool),
    /// A subscriber leaves, whose held messages stay; another one comes.
    Follow(usize),
}

#[derive(Clone, Copy, Debug)]
enum Where {
    Oldest,
    Newest,
    /// So many before the newest.
    Back(u64),
    /// So many after the newest.
    Ahead(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (tx, rx) = (0..3_usize, 0..2_usize);
    let place = prop_oneof![
        Just(Where::Oldest),
        Just(Where::Newest),
        (0..80_u64).prop_map(Where::Back),
        (1..3_u64).prop_map(Where::Ahead),
    ];
    let back = prop_oneof![0..4_usize, 0..70_usize];
    let step = prop_oneof![
        6 => tx.clone().prop_map(Step::Push),
        2 => (tx.clone(), 0..6_usize).prop_map(|(tx, count)| Step::Slice(tx, count)),
        2 => (tx.clone(), 0..4_usize, 0..4_usize).prop_map(|(tx, room, count)| Step::Reserve(tx, room, count)),
        1 => tx.clone().prop_map(Step::Trim),
        1 => (tx.clone(), 60..300_usize).prop_map(|(tx, count)| Step::Flood(tx, count)),
        4 => rx.clone().prop_map(Step::Pop),
        1 => (rx.clone(), 0..6_usize).prop_map(|(rx, count)| Step::PopSlice(rx, count)),
        3 => (rx.clone(), any::<bool>()).prop_map(|(rx, release)| Step::Read(rx, release)),
        3 => (rx.clone(), back.clone()).prop_map(|(rx, back)| Step::Nth(rx, back)),
        2 => rx.clone().prop_map(Step::Hold),
        2 => (rx.clone(), back).prop_map(|(rx, back)| Step::HoldNth(rx, back)),
        3 => (0..4_usize).prop_map(Step::LetGo),
        2 => (rx.clone(), place).prop_map(|(rx, place)| Step::Seek(rx, place)),
        1 => (tx, any::<bool>()).prop_map(|(tx, before)| Step::Replace(tx, before)),
        1 => rx.prop_map(Step::Follow),
    ];
    prop::collection::vec(step, 0..120)
}

fn text(number: u64, publisher: usize) -> Text {
    [
        number,
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        publisher as u64,
    ]
}

/// The messages so far, and what each subscriber has read of them.
struct Model {
    capacity: u64,
    start: u64,
    /// The publishers of the messages since the start. A message's text follows from its number and its publisher.
    log: Vec<usize>,
    at: [u64; 2],
}

impl Model {
    fn newest(&self) -> u64 {
        self.start + self.log.len() as u64
    }

    fn oldest(&self) -> u64 {
        self.newest().saturating_sub(self.capacity)
    }

    /// Returns message `number`. Those before the start have no slot.
    fn message(&self, number: u64) -> Result<(u64, Text), &'static str> {
        match number.checked_sub(self.start) {
            Some(index) => Ok((number, text(number, self.log[index as usize]))),
            None => Err("corrupt"),
        }
    }

    /// Returns what a subscriber finds next, and goes on if it is lost or corrupt.
    fn next(&mut self, rx: usize) -> Result<(u64, Text), Found> {
        let at = self.at[rx];
        if at == self.newest() {
            return Err(Found::Empty);
        }
        if at < self.oldest() {
            let to = (self.oldest() + self.capacity / 8).min(self.newest() - 1);
            self.at[rx] = to;
            return Err(Found::Lagged(to - at));
        }
        self.message(at).map_err(|_| {
            self.at[rx] += 1;
            Found::Corrupt
        })
    }

    fn back(&self, back: usize) -> Result<(u64, Text), Found> {
        if back as u64 >= self.capacity {
            return Err(Found::TooLarge);
        }
        let number = (self.newest()).checked_sub(1 + back as u64);
        self.message(number.ok_or(Found::Empty)?)
            .map_err(|_| Found::Corrupt)
    }
}

/// The finding of a call that found no message.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Empty,
    Lagged(u64),
    Corrupt,
    TooLarge,
    TooMany,
}

fn found(error: Error) -> Found {
    match error {
        Error::Empty => Found::Empty,
        Error::Lagged(count) => Found::Lagged(count),
        Error::Corrupt(_) => Found::Corrupt,
        Error::TooLarge { .. } => Found::TooLarge,
        Error::TooManyHeld { max: 2 } => Found::TooMany,
        other => panic!("{other:?}"),
    }
}

/// Has the topic begin at this number: all before were published, and are gone.
fn start_at(memory: &Memory, geometry: &Geometry, start: u64) {
    memory.control(HEAD).store(start, Ordering::Relaxed);
    let capacity = geometry.capacity;
    for index in 0..capacity {
        // The last message before the start that stood in this entry, of which there is no slot.
        let laps = (start + capacity - 1 - index) / capacity;
        let entry = memory.control(geometry.claims_offset() + 8 * index as usize);
        entry.store(laps << 16, Ordering::Relaxed);
    }
}

fn compare(channel: &Channel<Text>, start: u64, steps: Vec<Step>) {
    let mut txs: Vec<Publisher<Text>> = (0..3).map(|_| channel.producer().unwrap()).collect();
    let mut rxs: Vec<Subscriber<Text>> = (0..2).map(|_| channel.consumer().unwrap()).collect();
    let mut held: Vec<(usize, u64, Text, OwnedSample<Topic<Text>>)> = Vec::new();
    let mut model = Model {
        capacity: channel.geometry().capacity,
        start,
        log: Vec::new(),
        at: [start; 2],
    };
    for step in steps {
        let about = format!("{step:?} at {}", model.newest());
        match step {
            Step::Push(tx) => push(&mut txs[tx], &mut model, tx, 1),
            Step::Flood(tx, count) => push(&mut txs[tx], &mut model, tx, count),
            Step::Slice(tx, count) => {
                let next = model.newest()..model.newest() + count as u64;
                let texts: Vec<Text> = next.map(|number| text(number, tx)).collect();
                assert_eq!(txs[tx].try_push_slice(&texts), Ok(count), "{about}");
                model.log.extend(vec![tx; count]);
            }
            Step::Reserve(tx, room, count) => {
                let count = count.min(room);
                let next = model.newest();
                match txs[tx].try_reserve(room) {
                    Ok(mut slots) => {
                        for slot in 0..count {
                            slots.write(slot, text(next + slot as u64, tx));
                        }
                        slots.commit(count);
                        model.log.extend(vec![tx; count]);
                    }
                    Err(Error::TooLarge { max, .. }) => {
                        assert!(room > max as usize && max == model.capacity, "{about}");
                    }
                    Err(other) => panic!("{about}: {other}"),
                }
            }
            Step::Trim(tx) => txs[tx].trim(0),
            Step::Pop(rx) => {
                let expected = model.next(rx).map(|(_, text)| text);
                let popped = rxs[rx].try_pop().map_err(found);
                assert_eq!(popped, expected, "{about}");
                model.at[rx] += u64::from(popped.is_ok());
            }
            Step::PopSlice(rx, count) => {
                let mut out = vec![[0; 3]; count];
                let popped = rxs[rx].try_pop_slice(&mut out).map_err(found);
                for (index, out) in out.iter().enumerate() {
                    match model.next(rx) {
                        Ok((_, text)) => assert_eq!(*out, text, "{about}"),
                        Err(other) if index == 0 => {
                            assert_eq!(popped, Err(other), "{about}");
                            break;
                        }
                        Err(_) => {
                            assert_eq!(popped, Ok(index), "{about}");
                            break;
                        }
                    }
                    model.at[rx] += 1;
                }
            }
            Step::Read(rx, release) => {
                let expected = model.next(rx);
                let read = rxs[rx].try_read().map_err(found);
                let read = read.map(|message| {
                    let found = (message.origin().sequence, *message);
                    match release {
                        true => message.release(),
                        false => message.keep(),
                    }
                    found
                });
                assert_eq!(read, expected, "{about}");
                model.at[rx] += u64::from(read.is_ok() && release);
            }
            Step::Nth(rx, back) => {
                let read = rxs[rx].nth_latest(back).map_err(found);
                let read = read.map(|sample| (sample.origin().sequence, *sample));
                assert_eq!(read, model.back(back), "{about}");
            }
            Step::Hold(rx) => {
                let mine = held.iter().filter(|held| held.0 == rx).count();
                let expected = model.next(rx);
                match (rxs[rx].try_read_owned().map_err(found), expected) {
                    (Ok(sample), Ok((number, text))) => {
                        assert!(mine < HELD, "{about}");
                        held.push((rx, number, text, sample));
                        model.at[rx] += 1;
                    }
                    (Err(Found::TooMany), Ok(_)) => assert_eq!(mine, HELD, "{about}"),
                    (Err(found), Err(expected)) => assert_eq!(found, expected, "{about}"),
                    (read, expected) => panic!("{about}: {read:?}, not {expected:?}"),
                }
            }
            Step::HoldNth(rx, back) => {
                let mine = held.iter().filter(|held| held.0 == rx).count();
                let expected = model.back(back);
                match (rxs[rx].nth_latest_owned(back).map_err(found), expected) {
                    (Ok(sample), Ok((number, text))) => {
                        assert!(mine < HELD, "{about}");
                        held.push((rx, number, text, sample));
                    }
                    (Err(Found::TooMany), Ok(_)) => assert_eq!(mine, HELD, "{about}"),
                    (Err(found), Err(expected)) => assert_eq!(found, expected, "{about}"),
                    (read, expected) => panic!("{about}: {read:?}, not {expected:?}"),
                }
            }
            Step::LetGo(index) if index < held.len() => drop(held.swap_remove(index)),
            Step::LetGo(_) => {}
            Step::Seek(rx, place) => {
                let newest = model.newest();
                let (to, expected) = match place {
                    Where::Oldest => (Seek::Oldest, Ok(model.oldest())),
                    Where::Newest => (Seek::Newest, Ok(newest)),
                    Where::Back(back) => {
                        let to = newest.saturating_sub(back);
                        (Seek::To(to), Ok(to))
                    }
                    Where::Ahead(more) => {
                        let asked = newest + more;
                        (Seek::To(asked), Err(Error::Ahead { asked, newest }))
                    }
                };
                assert_eq!(rxs[rx].seek(to), expected, "{about}");
                if let Ok(at) = expected {
                    model.at[rx] = at;
                }
            }
            Step::Replace(tx, before) => {
                let old = txs.remove(tx);
                let new = match before {
                    true => {
                        old.abort();
                        channel.producer()
                    }
                    // Its successor is not the one in its seat.
                    false => {
                        let new = channel.producer();
                        drop(old);
                        new
                    }
                };
                txs.insert(tx, new.unwrap());
            }
            Step::Follow(rx) => {
                // The seat stays held until its messages are gone.
                held.retain(|held| held.0 != rx);
                drop(rxs.remove(rx));
                rxs.insert(rx, channel.consumer().unwrap());
                model.at[rx] = model.newest();
            }
        }
        for (rx, at) in rxs.iter().zip(model.at) {
            assert_eq!(rx.position(), at, "{about}");
            assert_eq!(rx.len(), Ok((model.newest() - at) as usize), "{about}");
        }
        for (_, number, text, sample) in &held {
            let now = (sample.origin().sequence, **sample);
            assert_eq!(now, (*number, *text), "{about}: a held message changed");
        }
    }
}

/// Publishes so many messages. The pool is never empty.
fn push(tx: &mut Publisher<Text>, model: &mut Model, publisher: usize, count: usize) {
    for _ in 0..count {
        let number = model.newest();
        assert_eq!(tx.try_push(text(number, publisher)), Ok(()));
        assert_eq!(tx.position(), number + 1);
        model.log.push(publisher);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any calls of three publishers and two subscribers find what the model says. Held messages never change.
    #[test]
    fn topics_follow_the_model(capacity in capacities(), start in starts(), steps in steps()) {
        // A free seat for a publisher that comes before another one leaves.
        let builder = Builder::<Text>::new(capacity).producers(4).consumers(2).held(HELD);
        let memory = Memory::of(&builder);
        let channel = memory.format(&builder).unwrap();
        start_at(&memory, &channel.geometry(), start);
        compare(&channel, start, steps);
        memory.assert_fences_stand();
    }

    /// The same in memory of slipring's own, whose pages come and go.
    #[test]
    fn sparse_topics_follow_the_model(capacity in capacities(), steps in steps()) {
        let builder = Builder::<Text>::new(capacity).producers(4).consumers(2).held(HELD);
        compare(&builder.memfd().unwrap(), 0, steps);
    }
}

//! Runs a worker of a topic's scenario: several publishers and several subscribers hold seats.
//!
//! Each publishing worker numbers its messages along a line of its own, also after it was killed and replaced. It notes each
//! message once the call that published it has returned. A subscriber that lost nothing has read all of those, in their
//! order; of the others it has read some. Messages that subscribers hold are checked again and again.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slipring::{End, Error, Readiness, Role};
use slipring_testkit::{Came, Consumer, Held, Kind, Producer};
use slipring_tests::room::PATIENCE;

use crate::kinds::{self, Ends, HAND};
use crate::words::{Words, add, get, put};
use crate::worker::{Worker, look, own_seat, patiently};

/// The number of lines: one for each worker, and the auditor's. The number of messages of each that are noted.
const LINES: usize = 16;
const ENTRIES: u64 = 1 << 12;

/// The auditor's line.
const AUDITOR: usize = LINES - 1;

/// The bit at which the line begins in a message's number.
const LINE_SHIFT: u32 = 48;

/// The number of messages that a subscriber may hold.
const HELD: usize = 4;

/// A time that no call reaches: the referee loses its patience before.
const LONG: Duration = Duration::from_secs(10 * PATIENCE.as_secs());

/// The messages of one publishing worker.
#[repr(C, align(128))]
pub(crate) struct Line {
    /// The next number.
    drawn: AtomicU64,
    /// For each of the latest numbers: that number plus 1, once the message is published for certain.
    pushed: [AtomicU64; ENTRIES as usize],
}

/// All lines.
#[repr(C, align(128))]
pub(crate) struct Lines([Line; LINES]);

impl Lines {
    fn draw(&self, line: usize, count: u64) -> Range<u64> {
        let first = self.0[line].drawn.fetch_add(count, Ordering::AcqRel);
        let first = (line as u64) << LINE_SHIFT | first;
        first..first + count
    }

    fn note(&self, messages: Range<u64>) {
        for message in messages {
            let (line, number) = parts(message);
            put(
                &self.0[line].pushed[(number % ENTRIES) as usize],
                number + 1,
            );
        }
    }

    /// Returns `true` if that message is published for certain, as far as the notes go back.
    fn is_noted(&self, line: usize, number: u64) -> bool {
        get(&self.0[line].pushed[(number % ENTRIES) as usize]) == number + 1
    }
}

/// Returns the line of a message, and its number there.
fn parts(message: u64) -> (usize, u64) {
    let number = message & ((1 << LINE_SHIFT) - 1);
    ((message >> LINE_SHIFT) as usize % LINES, number)
}

/// The account of what a subscriber has read in order.
struct Account {
    lines: &'static Lines,
    /// The place of the next message in the order of all.
    next: u64,
    /// The last number of each line, and whether nothing was lost since.
    last: [Option<(u64, bool)>; LINES],
}

impl Account {
    fn take(&mut self, message: u64) {
        let (line, number) = parts(message);
        if let Some((last, sound)) = self.last[line] {
            assert!(last < number, "{number} of {line} came after {last}");
            let since = (last + 1).max(number.saturating_sub(ENTRIES / 2))..number;
            let missed = since
                .into_iter()
                .find(|number| sound && self.lines.is_noted(line, *number));
            assert_eq!(
                missed, None,
                "missing of {line}, between {last} and {number}"
            );
        }
        self.last[line] = Some((number, true));
        self.next += 1;
    }

    fn lose(&mut self, count: u64) {
        self.next += count;
        for last in self.last.iter_mut().flatten() {
            last.1 = false;
        }
    }
}

/// Works until it is killed, finds something wrong, or the last publisher has left.
pub(crate) fn work(worker: &mut Worker, kind: &Kind, ends: &Ends) -> Result<(), Error> {
    match worker.role {
        Role::Producer => publish(worker, ends),
        Role::Consumer => subscribe(worker, kind, ends),
    }
}

fn publish(worker: &mut Worker, ends: &Ends) -> Result<(), Error> {
    let mut tx = worker.sit_down(|| ends.producer());
    worker.seat = own_seat(|| ends.stat());
    worker.seated();
    let words = worker.words;
    for turn in 0_u64.. {
        let count = if turn.is_multiple_of(4) { HAND } else { 1 };
        let numbers = words.lines.draw(worker.index, count);
        let first = numbers.start;
        // Whatever the others do, there is room: `Full` ends the worker.
        match turn % 4 {
            0 => tx.batch(numbers.clone())?,
            1 => tx.place(first)?,
            2 => tx.try_push(first)?,
            _ => tx.push(first)?,
        }
        words.lines.note(numbers);
        add(&words.seat(0).done, count);
        worker.look_round();
        // A publisher never waits, so it yields now and then: subscribers sometimes keep up, and sometimes do not.
        if (turn / 256).is_multiple_of(2) {
            std::thread::yield_now();
        }
    }
    unreachable!("turns do not end")
}

fn subscribe(worker: &mut Worker, kind: &Kind, ends: &Ends) -> Result<(), Error> {
    let published = || get(&worker.words.seat(0).done);
    let (mut rx, before) = worker.sit_down(|| {
        let before = published();
        Ok((ends.consumer()?, before))
    });
    worker.seat = own_seat(|| ends.stat());
    let most = kinds::most(kind, worker.way);
    let joined = rx.next();
    assert!(joined + most >= before, "joined at {joined}, of {before}");
    let mut account = Account {
        lines: &worker.words.lines,
        next: joined,
        last: [None; LINES],
    };
    worker.seated();
    let (mut held, mut newest) = (Vec::new(), 0);
    for turn in 0_u64.. {
        match read(worker, &mut *rx, turn, &mut account, &mut held) {
            Ok(()) => worker.look_round(),
            Err(Error::Lagged(count)) => {
                account.lose(count);
                add(&worker.words.worker(worker.index).lost, count);
                worker.look_round();
            }
            Err(Error::Disconnected(End::Finished)) => {
                assert_eq!(account.next, published(), "messages are missing");
                return Ok(());
            }
            Err(error) => {
                worker.told(error)?;
                rx.wait_for_peer(PATIENCE)?;
            }
        }
        assert_eq!(account.next, rx.next(), "the place in the order");
        look_back(&mut *rx, turn, &mut newest)?;
        check(&held);
    }
    unreachable!("turns do not end")
}

/// A message in hand, and its number.
type InHand = (u64, Box<dyn Held>);

fn check(held: &[InHand]) {
    for (number, held) in held {
        assert_eq!(held.check().as_ref(), Ok(number), "a held message changed");
    }
}

fn whole(came: Came) -> u64 {
    came.unwrap_or_else(|what| panic!("torn: {what}"))
}

/// Reads the next message or two, by one verb or another. A message that is held stays in hand for some turns.
fn read(
    worker: &mut Worker,
    rx: &mut dyn Consumer,
    turn: u64,
    account: &mut Account,
    held: &mut Vec<InHand>,
) -> Result<(), Error> {
    let polls = worker.way.polls(turn);
    if polls {
        match rx.arm(0) {
            Ok(Readiness::Ready) => {}
            Ok(Readiness::Armed) => return look(rx.fd()?),
            Err(error) => {
                worker.told(error)?;
                return look(rx.fd()?);
            }
        }
    }
    let messages = &worker.words.messages;
    let mut take = |number: u64| {
        account.take(number);
        add(messages, 1);
    };
    match turn % 4 {
        0 if !polls => rx.read(1, &mut |numbers| numbers.iter().for_each(|one| take(*one))),
        1 => match rx.try_read_held() {
            Ok(sample) => {
                let number = whole(sample.check());
                take(number);
                held.push((number, sample));
                Ok(())
            }
            Err(Error::TooManyHeld { .. }) => {
                assert_eq!(held.len(), HELD, "fewer than it may hold");
                held.remove(turn as usize / 4 % HELD);
                Ok(())
            }
            Err(Error::Empty) => Ok(()),
            Err(error) => Err(error),
        },
        2 => match rx.try_copy(2, &mut |came| take(whole(came))) {
            Err(Error::Empty) => Ok(()),
            done => done,
        },
        _ if polls => match rx.try_read() {
            Ok(came) => {
                take(whole(came));
                Ok(())
            }
            Err(Error::Empty) => Ok(()),
            Err(error) => Err(error),
        },
        _ => rx.pop_any(LONG).map(|came| take(whole(came))),
    }
}

/// Reads the newest message, and one before it. The newest never goes back.
fn look_back(rx: &mut dyn Consumer, turn: u64, newest: &mut u64) -> Result<(), Error> {
    for back in [0, turn % 3] {
        match rx.try_nth_latest(back as usize) {
            Ok((place, came)) => {
                whole(came);
                assert!(place + back >= *newest, "{place}, {back} before {newest}");
                *newest = (place + back).max(*newest);
            }
            Err(Error::Empty | Error::Lagged(_) | Error::TooLarge { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Accounts for every message once all publishers are gone. Live subscribers learn of the end.
pub(crate) fn audit(kind: &Kind, ends: &Ends, words: &'static Words) {
    let txs = (0..kind.producers).map(|_| patiently(|| ends.producer(), || {}));
    let mut txs: Vec<Box<dyn Producer>> = txs.collect();
    let seating = add(&words.seatings, 1);
    for tx in &mut txs {
        let numbers = words.lines.draw(AUDITOR, 1);
        tx.push(numbers.start).unwrap();
        words.lines.note(numbers);
        add(&words.seat(0).done, 1);
    }
    let published = txs.iter().map(|tx| tx.next()).max().unwrap();
    assert!(published >= get(&words.seat(0).done), "messages are lost");
    put(&words.seat(0).done, published);
    let knows = |index| {
        let worker = words.worker(index);
        !worker.is_seated() || get(&worker.noticed) >= seating
    };
    while !(0..crate::words::MOST).all(knows) {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(txs);
    let mut rx = patiently(|| ends.consumer(), || {});
    let mut account = Account {
        lines: &words.lines,
        next: rx.next(),
        last: [None; LINES],
    };
    loop {
        match rx.try_pop_any() {
            Ok(came) => account.take(whole(came)),
            Err(Error::Lagged(count)) => account.lose(count),
            // One who comes after the last publisher has left is not told of that.
            Err(Error::Empty | Error::Disconnected(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(account.next, published, "messages are missing");
}

//! Lists the operations that are killed at every instruction, and does them.

use std::time::Duration;

use slipring::broadcast::Seek;
use slipring::set::Key;
use slipring::{Error, Role, WaitSet};
use slipring_testkit::kinds::Unit;
use slipring_testkit::{self as testkit, Came, Consumer, Delivery, Handle, Producer};

use crate::kinds::{Given, Kind, pop, push, words};

/// The state of the other end while the operation is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    Awake,
    /// The other end has asked for a wake, so the operation notifies it.
    Armed,
}

/// One operation, to be killed at every instruction.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// The end that does it. The other end is alive throughout, and so are other consumers.
    pub(crate) role: Role,
    pub(crate) other: Other,
    /// The number of messages passed before, so that positions and slots are not those of a fresh
    /// channel.
    pub(crate) passed: u64,
    /// The number of messages in the channel when the operation begins.
    pub(crate) before: u64,
    /// The most messages that it appends or takes; `0` if it moves none.
    pub(crate) moves: u64,
    /// `true` if it moves all of them at once, `false` if one by one.
    pub(crate) whole: bool,
    /// `true` if the producer still waits for a consumer that died a whole ring behind.
    pub(crate) dead: bool,
}

impl Operation {
    /// Returns the numbers of messages that it may have moved when it was killed.
    fn moved(&self) -> impl Iterator<Item = u64> {
        let (moves, whole) = (self.moves, self.whole);
        (0..=moves).filter(move |n| !whole || *n == 0 || *n == moves)
    }

    /// Returns `true` if the channel may hold `found` after a kill, where the one consumer takes
    /// each message. It may hold its old messages, less those taken from the front, and the
    /// appended ones.
    pub(crate) fn allows(&self, found: &[u64]) -> bool {
        let (first, next) = (self.passed, self.passed + self.before);
        let mut possible = self.moved().map(|n| match self.role {
            Role::Producer => (first, next + n),
            Role::Consumer => (first + n, next),
        });
        possible.any(|(from, to)| found.iter().copied().eq(from..to))
    }

    /// Like [`allows`](Self::allows), where a batch is released message by message: any of those that a consumer was
    /// releasing may be there, the first ones first or last.
    pub(crate) fn allows_some(&self, found: &[u64]) -> bool {
        if self.role == Role::Producer {
            return self.allows(found);
        }
        let next = self.passed + self.before;
        let kept = self.passed + self.moved().max().unwrap_or(0)..next;
        let mut numbers = found.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len() == found.len()
            && kept.clone().all(|number| numbers.contains(&number))
            && numbers
                .iter()
                .all(|number| (self.passed..next).contains(number))
            && self
                .moved()
                .any(|n| n > 0 || found.len() as u64 == self.before)
    }

    /// Returns `true` if the committed messages may end at `tail` after a kill, where every
    /// consumer receives each message.
    pub(crate) fn allows_tail(&self, tail: u64) -> bool {
        let next = self.passed + self.before;
        match self.role {
            Role::Producer => self.moved().any(|n| next + n == tail),
            Role::Consumer => next == tail,
        }
    }
}

/// The number of messages that most operations find passed.
pub(crate) const PASSED: u64 = 6;

const fn operation(name: &'static str, role: Role, before: u64, moves: u64) -> Operation {
    Operation {
        name,
        role,
        other: Other::Awake,
        passed: PASSED,
        before,
        moves,
        whole: true,
        dead: false,
    }
}

const fn produces(name: &'static str, before: u64, moves: u64) -> Operation {
    operation(name, Role::Producer, before, moves)
}

const fn consumes(name: &'static str, before: u64, moves: u64) -> Operation {
    operation(name, Role::Consumer, before, moves)
}

const fn armed(operation: Operation) -> Operation {
    Operation {
        other: Other::Armed,
        ..operation
    }
}

/// The producer has reached its write limit, and not passed it. So a consumer may safely go back to
/// the last messages.
const fn back(operation: Operation) -> Operation {
    Operation {
        passed: 8,
        ..operation
    }
}

const fn one_dead(operation: Operation) -> Operation {
    Operation {
        passed: 8,
        dead: true,
        ..operation
    }
}

/// The operations of every kind whose producer waits.
const WAITING: [Operation; 24] = [
    produces("take", 2, 0),
    consumes("take", 2, 0),
    produces("attach", 2, 0),
    produces("leave", 2, 0),
    consumes("leave", 2, 0),
    produces("abort", 2, 0),
    produces("push", 2, 1),
    armed(produces("push", 0, 1)),
    produces("push-iter", 1, 3),
    produces("reserve-discard", 1, 0),
    produces("reserve-full", 4, 0),
    produces("arm", 4, 0),
    produces("park", 4, 0),
    produces("watch", 4, 0),
    produces("watch-ready", 0, 0),
    consumes("pop", 2, 1),
    armed(consumes("pop", 4, 1)),
    consumes("read-one", 3, 1),
    consumes("read-keep", 3, 0),
    consumes("arm", 0, 0),
    consumes("park", 0, 0),
    consumes("watch", 0, 0),
    consumes("watch-ready", 2, 0),
    consumes("abort", 2, 0),
];

/// Besides, those of every such kind with slots.
const SLOTS: [Operation; 4] = [
    produces("push-slice", 1, 3),
    produces("reserve-commit", 1, 2),
    consumes("pop-slice", 3, 3),
    consumes("read-release", 3, 2),
];

/// Besides, those of every such kind with records.
const RECORDS: [Operation; 2] = [
    produces("reserve-commit", 1, 1),
    consumes("read-release", 3, 2),
];

/// The operations of a producer that waits for the slowest of its consumers.
const SLOWEST: [Operation; 2] = [
    one_dead(produces("push-waiting", 0, 1)),
    one_dead(produces("watch-ready", 0, 0)),
];

/// The operations where the producer does not wait but overwrites unread messages.
const OVERWRITING: [Operation; 14] = [
    produces("take", 2, 0),
    produces("leave", 2, 0),
    produces("push", 2, 1),
    produces("push", 4, 1),
    armed(produces("push", 0, 1)),
    produces("push-slice", 3, 3),
    produces("push-iter", 3, 3),
    produces("reserve-commit", 3, 2),
    produces("reserve-discard", 3, 0),
    consumes("take", 2, 0),
    consumes("leave", 2, 0),
    consumes("pop", 2, 1),
    consumes("pop-slice", 3, 3),
    consumes("park", 0, 0),
];

/// The operations of topics, besides those of kinds that overwrite.
const TOPIC: [Operation; 16] = [
    produces("attach", 2, 0),
    produces("abort", 2, 0),
    produces("watch-ready", 2, 0),
    consumes("read-one", 3, 1),
    consumes("read-release", 3, 1),
    consumes("read-keep", 3, 0),
    consumes("read-owned", 3, 1),
    consumes("latest", 3, 0),
    consumes("nth-latest", 3, 0),
    consumes("hold-latest", 3, 0),
    consumes("hold-many", 4, 2),
    consumes("arm", 0, 0),
    consumes("watch", 0, 0),
    consumes("watch-ready", 2, 0),
    consumes("abort", 2, 0),
    armed(produces("place", 0, 1)),
];

/// The operations of consumers that choose where they begin.
const SEEKING: [Operation; 6] = [
    consumes("read-nothing", 0, 0),
    consumes("join-newest", 3, 0),
    consumes("join-number", 3, 0),
    back(consumes("seek-oldest", 0, 0)),
    back(consumes("seek-number", 0, 0)),
    consumes("seek-newest", 3, 0),
];

/// Besides, those of consumers that take one message of several.
const STRIDING: [Operation; 1] = [consumes("stride", 3, 0)];

/// The operations of rings that grow. Those of other kinds grow it as well, where they find it full.
const GROWING: [Operation; 2] = [produces("resize", 1, 0), consumes("drain", 3, 3)];

/// Returns the operations of a kind.
pub(crate) fn of(kind: &testkit::Kind) -> Vec<Operation> {
    let has_slots = kind.runs;
    let lists: [(bool, &[Operation]); 9] = [
        (kind.growing, &GROWING),
        (kind.waits(), &WAITING),
        (kind.waits() && has_slots, &SLOTS),
        (kind.waits() && !has_slots, &RECORDS),
        (kind.delivery == Delivery::All, &SLOWEST),
        (!kind.waits(), &OVERWRITING),
        (kind.topic, &TOPIC),
        (kind.seeks, &SEEKING),
        (kind.seeks && kind.unit == Unit::Slots, &STRIDING),
    ];
    let own = lists.into_iter().filter(|(has, _)| *has);
    // A topic has no stride, and its records no batches.
    let has = |operation: &Operation| match operation.name {
        "stride" => !kind.topic,
        // A set does not grow a ring: it takes as much as the ring has.
        "watch" | "watch-ready" if operation.role == Role::Producer => !kind.growing,
        // No record is too large for what four others leave free, and not for the first ring.
        "reserve-full" | "arm" | "park" if operation.role == Role::Producer => {
            !(kind.growing && kind.unit == Unit::Bytes)
        }
        // So no producer waits for room either.
        "pop" if operation.other == Other::Armed => !(kind.growing && kind.unit == Unit::Bytes),
        _ => true,
    };
    let list = own.flat_map(|(_, list)| list).copied();
    list.filter(has)
        .map(|operation| Operation {
            // A batch ends where its ring does.
            whole: operation.whole && kind.batches && !kind.topic && !kind.growing,
            ..operation
        })
        .collect()
}

/// Does a producer's operation, whose first message is `next`; it waits for at most `patience`.
pub(crate) fn produce(
    kind: &Kind,
    tx: &mut dyn Producer,
    name: &str,
    next: u64,
    patience: Duration,
) -> Result<(), String> {
    let three = next..next + 3;
    match name {
        "push" => tx.try_push(next).map_err(words),
        "push-waiting" => push(tx, next, patience),
        "place" => tx.place(next).map_err(words),
        "resize" => resize(kind, tx),
        "push-slice" => tx.try_batch(three).map(drop).map_err(words),
        "push-iter" => tx.iterate(three, &mut || {}).map(drop).map_err(words),
        "reserve-commit" => tx.hold(three, &mut |_| Some(2)).map_err(words),
        "reserve-discard" => tx.hold(three, &mut |_| None).map_err(words),
        "reserve-full" => match tx.try_room(kind.much) {
            Err(Error::Full) => Ok(()),
            other => Err(format!("expected Full, found {other:?}")),
        },
        "arm" => kind.arm(tx),
        "park" => match tx.wait_for_room(kind.much, patience) {
            Ok(()) => in_vain(true),
            Err(Error::TimedOut) => in_vain(false),
            Err(error) => Err(words(error)),
        },
        "watch" => watch(&*tx, kind.much, patience).and_then(in_vain),
        "watch-ready" => watch(&*tx, kind.much, patience).and_then(not_in_vain),
        name => Err(no_operation(name)),
    }
}

/// Does a consumer's operation, whose first message is `first`; it waits for at most `patience`.
pub(crate) fn consume(
    kind: &Kind,
    rx: &mut dyn Consumer,
    name: &str,
    first: u64,
    patience: Duration,
) -> Result<(), String> {
    let mut found = Found::from(first);
    match name {
        "pop" => rx
            .try_pop_any()
            .map(|came| found.add(came))
            .map_err(words)?,
        "pop-slice" => rx.try_copy(3, &mut |came| found.add(came)).map_err(words)?,
        "read-one" => rx.try_read().map(|came| found.add(came)).map_err(words)?,
        "read-release" | "read-keep" => {
            let release = name == "read-release";
            rx.try_read_batch(2, release, &mut |came| found.add(came))
                .map_err(words)?;
        }
        "read-owned" => {
            let held = rx.try_read_held().map_err(words)?;
            found.add(held.check());
        }
        "latest" | "nth-latest" => {
            let back = usize::from(name == "nth-latest");
            let (sequence, came) = rx.try_nth_latest(back).map_err(words)?;
            Found::from(sequence).check(came)?;
        }
        "hold-latest" => {
            let held = rx.try_nth_latest_owned(1).map_err(words)?;
            Found::from(held.sequence()).check(held.check())?;
        }
        // One of them is let go before the next is there, and the others in the order in which they came.
        "hold-many" => {
            let first = rx.try_read_held().map_err(words)?;
            let newest = rx.try_nth_latest_owned(0).map_err(words)?;
            match rx.try_nth_latest_owned(0) {
                Err(Error::TooManyHeld { max: 2 }) => {}
                other => {
                    let held = other.map(|held| held.sequence());
                    return Err(format!("expected TooManyHeld, found {held:?}"));
                }
            }
            found.add(first.check());
            drop(first);
            let second = rx.try_read_held().map_err(words)?;
            found.add(second.check());
            Found::from(newest.sequence()).check(newest.check())?;
        }
        "drain" => {
            for _ in 0..3 {
                found.add(rx.try_pop_any().map_err(words)?);
            }
            // It crosses into the newest ring, and gives the others back.
            for _ in 0..6 {
                empty(rx)?;
            }
        }
        "read-nothing" => empty(rx)?,
        "seek-oldest" => seek(rx, Seek::Oldest)?,
        "seek-newest" => seek(rx, Seek::Newest)?,
        // Goes back, to a message that the others have had.
        "seek-number" => {
            let before = rx.next().saturating_sub(1);
            seek(rx, Seek::To(before))?;
        }
        "stride" => rx.stride(1, 2).map_err(words)?,
        "arm" => kind.arm(rx)?,
        "park" => in_vain(pop(rx, patience)? != Given::Nothing)?,
        "watch" => watch(&*rx, 0, patience).and_then(in_vain)?,
        "watch-ready" => watch(&*rx, 0, patience).and_then(not_in_vain)?,
        name => return Err(no_operation(name)),
    }
    found.wrong
}

/// Opens a larger ring, and then a smaller one.
fn resize(kind: &Kind, tx: &mut dyn Producer) -> Result<(), String> {
    let first = kind.first_capacity();
    tx.resize(4 * first).map_err(words)?;
    tx.resize(2 * first).map_err(words)
}

fn empty(rx: &mut dyn Consumer) -> Result<(), String> {
    match rx.try_pop_any() {
        Err(Error::Empty) => Ok(()),
        other => Err(format!("expected Empty, found {other:?}")),
    }
}

/// The messages that an operation takes: each must be whole, and the next.
struct Found {
    next: u64,
    wrong: Result<(), String>,
}

impl Found {
    fn from(first: u64) -> Found {
        Found {
            next: first,
            wrong: Ok(()),
        }
    }

    /// Checks one message.
    fn check(mut self, came: Came) -> Result<(), String> {
        self.add(came);
        self.wrong
    }

    fn add(&mut self, came: Came) {
        match came {
            Ok(number) if number == self.next => {}
            Ok(number) => self.wrong = Err(format!("message {number}, not {}", self.next)),
            Err(torn) => self.wrong = Err(torn),
        }
        self.next += 1;
    }
}

fn seek(rx: &mut dyn Consumer, to: Seek) -> Result<(), String> {
    rx.seek(to).map(drop).map_err(words)
}

fn in_vain(ready: bool) -> Result<(), String> {
    if ready {
        return Err("expected TimedOut".into());
    }
    Ok(())
}

fn not_in_vain(ready: bool) -> Result<(), String> {
    if ready {
        return Ok(());
    }
    Err("expected an event".into())
}

/// Returns the error for a name that no operation has.
fn no_operation(name: &str) -> String {
    format!("no operation {name}")
}

/// Puts the handle into a set, waits once, and takes it out. Returns `true` if it was ready.
fn watch<H: Handle + ?Sized>(end: &H, room: usize, patience: Duration) -> Result<bool, String> {
    let mut set = WaitSet::new().map_err(words)?;
    let key: Key = end.watch(&set, room).map_err(words)?;
    let ready = match set.wait_timeout(patience) {
        Ok(events) => events.iter().any(|event| event.key == key && event.ready),
        Err(Error::TimedOut) => false,
        Err(error) => return Err(words(error)),
    };
    if !set.unwatch(key) {
        return Err("the entry is gone".into());
    }
    Ok(ready)
}

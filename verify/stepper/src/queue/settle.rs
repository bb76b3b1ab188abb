//! Settles the account of an image: where each message is, once the dead end is repaired. It is taken four times, each time
//! by others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use slipring::inspect::SeatState;
use slipring::{Error, Role};
use slipring_core::layout::{LINE, WAIT_CELLS};
use slipring_core::wait::FENCED;
use slipring_testkit::{Consumer, Fate, Memory, Producer};

use super::operations::{Dead, First, Operation, PASSED};
use super::stage::{Stage, VICTIM};
use crate::check::{FRESH, LONG};
use crate::fellows::{ORDERS, Order};
use crate::image::{Image, Window};
use crate::kinds::{CAPACITY, Given, Kind, consumer, pop, producer, push, words};

/// A wait this long is long enough for a few looks at the others, on an idle machine.
const SHORT: Duration = Duration::from_millis(6);

/// The place where a message was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// `true` for a dead letter.
    pub(super) letter: bool,
    /// `true` if it was delivered before.
    pub(super) marked: bool,
}

/// The messages that an image held.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) messages: BTreeMap<u64, Found>,
    /// The number of committed messages that the victim had in its hands, or had taken from there.
    claimed: u64,
}

impl Account {
    /// Returns `true` if both hold the same messages, at the same places and with the same marks.
    pub(super) fn is_same(&self, other: &Account) -> bool {
        self.messages == other.messages
    }

    pub(super) fn add(&mut self, number: u64, found: Found) -> Result<(), String> {
        match self.messages.insert(number, found) {
            None => Ok(()),
            Some(_) => Err(format!("message {number} came twice")),
        }
    }
}

/// Settles the account of an image.
pub(super) fn image(
    kind: &Kind,
    operation: &Operation,
    skew: u64,
    image: &Image,
) -> Result<Account, String> {
    let mut first: Option<Account> = None;
    for order in ORDERS {
        let about = |error: String| format!("{order:?} first: {error}");
        let account = settle(kind, operation, skew, image, order).map_err(about)?;
        match &first {
            None => first = Some(account),
            Some(first) if first.is_same(&account) => {}
            Some(first) => {
                return Err(about(format!("found {account:?}, a consumer {first:?}")));
            }
        }
    }
    first.ok_or_else(|| "nobody goes on".into())
}

fn settle(
    kind: &Kind,
    operation: &Operation,
    skew: u64,
    image: &Image,
    order: Order,
) -> Result<Account, String> {
    let mut stage = Stage::at(kind, operation, skew, image)?;
    let mut account = Account {
        claimed: claimed(operation, &*stage.memory)?,
        ..Account::default()
    };
    let (mut txs, mut rxs) = (Vec::new(), Vec::new());
    let mut fresh = 0;
    let mut dead = vec![(operation.role, VICTIM)];
    dead.extend(operation.dead_seat());
    match order {
        Order::Consumer => {}
        Order::Producer => {
            // It fills the queue, and more than that if need be: until it has found the dead.
            while fresh < 1000 {
                match stage.tx.push_timeout(FRESH + fresh, SHORT) {
                    Ok(()) => fresh += 1,
                    Err(Error::TimedOut) if are_repaired(&*stage.memory, &dead)? => break,
                    Err(Error::TimedOut) => {}
                    Err(error) => return Err(words(error)),
                }
            }
        }
        Order::Successor => {
            match operation.role {
                Role::Producer => txs.push(producer(&*stage.memory)?),
                Role::Consumer => rxs.push(consumer(&*stage.memory)?),
            }
            dead.remove(0);
        }
        Order::New => {
            stage.held.clear();
            stage.tx.abort();
            stage.rx.abort();
            stage.window.put(image);
            (stage.tx, stage.rx) = (producer(&*stage.memory)?, consumer(&*stage.memory)?);
        }
    }
    txs.push(stage.tx);
    rxs.push(stage.rx);
    let rx = &mut *rxs[0];
    let repaired = || are_repaired(&*stage.memory, &dead);
    let mut came = Vec::new();
    drain(rx, repaired, &mut account, &mut came)?;
    if !came.iter().copied().eq(FRESH..FRESH + fresh) {
        return Err(format!("{fresh} fresh messages, found {came:?}"));
    }
    take_letters(rx, &mut account)?;
    if matches!(order, Order::New) && operation.first == First::Held {
        // The fellow died with these.
        for number in operation.firsts() {
            match account.messages.remove(&number) {
                Some(found) if found.marked => {}
                other => return Err(format!("{number} was held, and found: {other:?}")),
            }
        }
    }
    stage.held.into_iter().for_each(|finish| finish(true));
    traffic(&stage.window, &mut txs, &mut rxs)?;
    Ok(account)
}

/// Returns the number of committed messages that the victim has claimed.
fn claimed(operation: &Operation, memory: &dyn Memory) -> Result<u64, String> {
    let stat = memory.stat().map_err(words)?;
    let victims = stat.claims().iter().filter(|claim| {
        let place = (claim.role, claim.index);
        place == (Role::Consumer, VICTIM) && claim.position >= operation.committed().start
    });
    Ok(victims.map(|claim| claim.count).sum())
}

/// Returns `true` if somebody has found all these deaths.
pub(super) fn are_repaired(memory: &dyn Memory, dead: &[(Role, usize)]) -> Result<bool, String> {
    let stat = memory.stat().map_err(words)?;
    let mut seats = stat.seats.iter();
    Ok(!seats.any(|seat| seat.state == SeatState::Held && dead.contains(&(seat.role, seat.index))))
}

/// Takes all messages, once those that the dead had in their hands are there. Fresh ones are listed apart.
pub(super) fn drain(
    rx: &mut dyn Consumer,
    repaired: impl Fn() -> Result<bool, String>,
    account: &mut Account,
    fresh: &mut Vec<u64>,
) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let done = repaired()?;
        let wait = if done { Duration::ZERO } else { SHORT };
        match pop(rx, wait)? {
            Given::Message(number) if number >= FRESH => fresh.push(number),
            Given::Message(number) => {
                let marked = rx.deliveries() > 0;
                let letter = false;
                account.add(number, Found { letter, marked })?;
            }
            Given::Nothing if done => return Ok(()),
            Given::Nothing => {}
            other => return Err(format!("found {other:?}, with a producer there")),
        }
        if begun.elapsed() > LONG {
            return Err("the queue never becomes empty, or its dead are never found".into());
        }
    }
}

/// Takes all dead letters.
pub(super) fn take_letters(rx: &mut dyn Consumer, account: &mut Account) -> Result<(), String> {
    let count = rx.dead_letters();
    for _ in 0..count {
        let number = rx.try_dead_letter(Fate::Released).map_err(words)??;
        let found = Found {
            letter: true,
            marked: false,
        };
        account.add(number, found)?;
    }
    match rx.try_dead_letter(Fate::Released) {
        Err(Error::Empty) => Ok(()),
        other => Err(format!("{count} letters, and then {other:?}")),
    }
}

/// Checks that the queue works as ever, three times around, through all these ends: no slot is lost, and nobody is taken
/// for asleep.
pub(super) fn traffic(
    window: &Window,
    txs: &mut [Box<dyn Producer>],
    rxs: &mut [Box<dyn Consumer>],
) -> Result<(), String> {
    let mut next = 2 * FRESH;
    for burst in [1, CAPACITY, 2, CAPACITY, 3, CAPACITY] {
        let burst = next..next + burst;
        next = burst.end;
        for (number, index) in burst.clone().zip(0..) {
            let tx = index % txs.len();
            push(&mut *txs[tx], number, LONG)?;
        }
        for (number, index) in burst.zip(0..) {
            let rx = index % rxs.len();
            match pop(&mut *rxs[rx], LONG)? {
                Given::Message(found) if found == number => {}
                other => return Err(format!("expected {number}, found {other:?}")),
            }
        }
    }
    for tx in txs {
        let room = tx.try_room(CAPACITY as usize).map_err(words)?;
        if room as u64 != CAPACITY {
            return Err(format!("room for {room} of {CAPACITY}"));
        }
    }
    let image = window.look();
    // Nobody knows which of several ends has no barrier: that flag stays.
    let waiters = [0, 1].map(|side| image.word(WAIT_CELLS + side * LINE) & !FENCED);
    match waiters {
        [0, 0] => Ok(()),
        _ => Err(format!(
            "nobody waits, and the waiters words are {waiters:x?}"
        )),
    }
}

/// The limits within which the accounts of an operation's images stay, image after image.
pub(super) struct Bounds<'o> {
    operation: &'o Operation,
    /// The messages that were there at the beginning.
    initial: BTreeSet<u64>,
    /// The messages that have left the queue.
    gone: BTreeSet<u64>,
    /// The messages that were added.
    added: BTreeSet<u64>,
    claimed: u64,
}

impl<'o> Bounds<'o> {
    pub(super) fn of(operation: &'o Operation) -> Bounds<'o> {
        let firsts = operation
            .firsts()
            .filter(|_| operation.first != First::Held);
        Bounds {
            operation,
            initial: firsts.chain(operation.committed()).collect(),
            gone: BTreeSet::new(),
            added: BTreeSet::new(),
            claimed: 0,
        }
    }

    /// Fails if the next image may not hold this. `last` says that the operation is over.
    pub(super) fn check(&mut self, account: &Account, last: bool) -> Result<(), String> {
        let operation = self.operation;
        let is_in = |list: &[u64], number: u64| list.iter().any(|one| PASSED + one == number);
        for number in &self.initial {
            let there = account.messages.contains_key(number);
            let may_go = is_in(operation.gone, *number);
            if !there && !may_go {
                return Err(format!("{number} is lost: {account:?}"));
            }
            if there && (self.gone.contains(number) || last && may_go) {
                return Err(format!("{number} was released, and is back: {account:?}"));
            }
            if !there {
                self.gone.insert(*number);
            }
        }
        let taken = self.gone.range(operation.committed()).count() as u64;
        // Where what was claimed is dropped, it is gone already.
        let taken = if operation.at_most_once { 0 } else { taken };
        self.claimed = self.claimed.max(taken + account.claimed);
        let next = operation.next();
        for number in operation.added.iter().map(|number| next + number) {
            let there = account.messages.contains_key(&number);
            if !there && (self.added.contains(&number) || last) {
                return Err(format!("{number} was committed, and is lost: {account:?}"));
            }
            if there {
                self.added.insert(number);
            }
        }
        for (number, found) in &account.messages {
            let added = is_in(operation.added, PASSED + number.wrapping_sub(next));
            if !self.initial.contains(number) && !added {
                return Err(format!("{number} was never committed: {account:?}"));
            }
            self.check_place(*number, *found, last)
                .map_err(|wrong| format!("{number} {wrong}: {account:?}"))?;
        }
        Ok(())
    }

    fn check_place(&self, number: u64, found: Found, last: bool) -> Result<(), &'static str> {
        let operation = self.operation;
        let is_in = |list: &[u64]| list.iter().any(|one| PASSED + one == number);
        let (first, committed) = (operation.firsts().contains(&number), operation.committed());
        let was_letter = first && operation.first == First::Letters;
        let (aside, back) = (is_in(operation.aside), is_in(operation.back));
        // A letter that was in the victim's hands comes back as a message.
        let handled = operation.name.starts_with("letter") && number == PASSED;
        let dropped = is_in(operation.gone);
        match found.letter {
            true if last && back => return Err("is still a letter"),
            true if !was_letter && !aside => return Err("was put aside"),
            true => return Ok(()),
            false if last && aside => return Err("is no letter"),
            false if was_letter && !(handled && (!last || back) || dropped) => {
                return Err("is no letter any more");
            }
            false if was_letter => return Ok(()),
            false => {}
        }
        let by_dead = operation.dead == Dead::Consumer && number < committed.start + 2;
        let by_victim = number < committed.start + self.claimed.min(operation.takes);
        let again = first || committed.contains(&number) && (by_dead || by_victim);
        match (again, found.marked) {
            (true, _) if operation.at_most_once => Err("came again"),
            (true, false) => Err("came again, unmarked"),
            (false, true) => Err("was marked, and came for the first time"),
            _ => Ok(()),
        }
    }
}

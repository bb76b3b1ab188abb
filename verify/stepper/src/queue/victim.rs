//! Runs in the other process: does an operation, and reports what became of each message.

use std::time::Duration;

use slipring::{Error, Role};
use slipring_testkit::{Came, Commit, Consumer, Fate, Finish, Producer, inherited};

use super::operations::{OPERATIONS, Operation};
use super::stage::{SEATS, guards};
use crate::kinds::{self, consumer, producer, words};
use crate::trace;

/// The operation of the successor: it takes the victim's seat.
pub(super) const TAKE: &str = "take";

/// An operation that waits does so for this long: for a few looks at the others.
const PATIENCE: Duration = Duration::from_millis(30);

/// The deeds of a victim: the numbers of the messages that it moved.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) pushed: Vec<u64>,
    pub(super) released: Vec<u64>,
    pub(super) given_back: Vec<u64>,
    pub(super) put_aside: Vec<u64>,
}

impl Deeds {
    fn with_room() -> Deeds {
        let room = || Vec::with_capacity(8);
        Deeds {
            pushed: room(),
            released: room(),
            given_back: room(),
            put_aside: room(),
        }
    }

    fn lists(&mut self) -> [&mut Vec<u64>; 4] {
        [
            &mut self.pushed,
            &mut self.released,
            &mut self.given_back,
            &mut self.put_aside,
        ]
    }

    fn say(mut self) {
        let list = |list: &mut Vec<u64>| {
            let words: Vec<String> = list.iter().map(u64::to_string).collect();
            words.join(",")
        };
        println!("ok:{}", self.lists().map(list).join(";"));
    }

    /// Reads what a victim said. Anything but a report is an error.
    pub(super) fn read(said: &str) -> Result<Deeds, String> {
        let lists = said.strip_prefix("ok:").ok_or_else(|| said.to_string())?;
        let mut deeds = Deeds::default();
        for (list, words) in deeds.lists().into_iter().zip(lists.split(';')) {
            let numbers = words.split(',').filter(|word| !word.is_empty());
            let numbers: Result<Vec<u64>, _> = numbers.map(str::parse).collect();
            *list = numbers.map_err(|_| said.to_string())?;
        }
        Ok(deeds)
    }

    fn add(&mut self, came: Came, fate: Fate) -> Result<(), String> {
        let list = match fate {
            Fate::Released => &mut self.released,
            Fate::GivenBack => &mut self.given_back,
            Fate::PutAside => &mut self.put_aside,
        };
        list.push(came?);
        Ok(())
    }
}

/// Does the operation between two signals, and prints its result.
pub(crate) fn victim(kind: &str, index: &str, name: &str, passed: &str) -> Result<(), String> {
    let kind = kinds::named(kind)?;
    let operation = index
        .parse()
        .ok()
        .and_then(|index: usize| OPERATIONS.get(index));
    let operation = operation.ok_or("no such operation")?;
    let maker = kind.with_fellows(SEATS, operation.rule, operation.at_most_once);
    let memory = maker.passed(inherited(passed)).map_err(words)?;
    let mut deeds = Deeds::with_room();
    match operation.role {
        Role::Producer if name == TAKE => {
            trace::begin();
            let taken = memory.producer();
            trace::end();
            taken.map_err(words)?.abort();
        }
        Role::Consumer if name == TAKE => {
            trace::begin();
            let taken = memory.consumer();
            trace::end();
            taken.map_err(words)?.abort();
        }
        Role::Producer => {
            let mut tx = producer(&*memory)?;
            trace::begin();
            let done = produce(operation, &mut *tx, &mut deeds);
            trace::end();
            tx.abort();
            well(done)?;
        }
        Role::Consumer => {
            let mut rx = consumer(&*memory)?;
            let guards = guards(operation, &mut *rx)?;
            trace::begin();
            let done = consume(operation, &mut *rx, guards, &mut deeds);
            trace::end();
            rx.abort();
            well(done)?;
        }
    }
    deeds.say();
    Ok(())
}

/// The reasons for which an operation ends early.
enum Early {
    /// The library said so.
    Refused(Error),
    /// A message was torn, or there is no such operation.
    Wrong(String),
}

impl From<Error> for Early {
    fn from(error: Error) -> Early {
        Early::Refused(error)
    }
}

impl From<String> for Early {
    fn from(wrong: String) -> Early {
        Early::Wrong(wrong)
    }
}

/// Where others were faster there may be no message, or no room. If there had to be, the account shows it.
fn well(done: Result<(), Early>) -> Result<(), String> {
    match done {
        Ok(()) | Err(Early::Refused(Error::Full | Error::Empty | Error::TimedOut)) => Ok(()),
        Err(Early::Refused(error)) => Err(words(error)),
        Err(Early::Wrong(wrong)) => Err(wrong),
    }
}

fn produce(operation: &Operation, tx: &mut dyn Producer, deeds: &mut Deeds) -> Result<(), Early> {
    let next = operation.next();
    let pushed = &mut deeds.pushed;
    let one = |number: u64| number..number + 1;
    let mut commit = |commit: Commit, number: u64| {
        commit(1);
        pushed.push(number);
    };
    match operation.name {
        "push" => {
            tx.try_push(next)?;
            pushed.push(next);
        }
        "push-slice" => {
            let count = tx.try_batch(next..next + operation.added.len() as u64)?;
            pushed.extend(next..next + count as u64);
        }
        "reserve-two" => {
            tx.hold(next..next + 2, &mut |_| Some(2))?;
            pushed.extend(next..next + 2);
        }
        "owned-part" => {
            tx.try_reserve_owned(next..next + 3)?(2);
            pushed.extend(next..next + 2);
        }
        "owned-commit" => {
            let first = tx.try_reserve_owned(one(next))?;
            let second = tx.try_reserve_owned(one(next + 1))?;
            commit(first, next);
            commit(second, next + 1);
        }
        "owned-reversed" => {
            let first = tx.try_reserve_owned(one(next))?;
            let second = tx.try_reserve_owned(one(next + 1))?;
            commit(second, next + 1);
            commit(first, next);
        }
        "owned-drop" => {
            let first = tx.try_reserve_owned(one(next))?;
            let second = tx.try_reserve_owned(one(next + 1))?;
            drop(first);
            commit(second, next + 1);
        }
        "rescue" => {
            tx.push_timeout(next, PATIENCE)?;
            pushed.push(next);
        }
        name => return Err(format!("no operation {name}").into()),
    }
    Ok(())
}

fn consume(
    operation: &Operation,
    rx: &mut dyn Consumer,
    guards: Vec<Finish>,
    deeds: &mut Deeds,
) -> Result<(), Early> {
    let fate = match operation.name.rsplit('-').next() {
        Some("keep") => Fate::GivenBack,
        Some("aside") => Fate::PutAside,
        _ => Fate::Released,
    };
    match operation.name {
        "pop" => deeds.add(rx.try_pop_any()?, fate)?,
        "pop-slice" => {
            let mut came = Vec::with_capacity(8);
            rx.try_copy(3, &mut |message| came.push(message))?;
            came.into_iter()
                .try_for_each(|came| deeds.add(came, fate))?;
        }
        "read-keep" if operation.takes > 1 => {
            let mut came = Vec::with_capacity(8);
            rx.try_read_batch(3, false, &mut |message| came.push(message))?;
            came.into_iter()
                .try_for_each(|came| deeds.add(came, fate))?;
        }
        "read-keep" | "put-aside" => deeds.add(rx.try_handle(fate)?, fate)?,
        "letter-release" | "letter-keep" | "letter-aside" => {
            deeds.add(rx.try_dead_letter(fate)?, fate)?;
        }
        "guards-release" | "guards-keep" => {
            let numbers = operation.committed().collect::<Vec<_>>().into_iter();
            for (number, finish) in numbers.take(guards.len()).zip(guards).rev() {
                finish(fate == Fate::Released);
                deeds.add(Ok(number), fate)?;
            }
        }
        "owned-release" | "owned-drop" | "owned-keep" | "owned-mixed" => {
            let mut read = Vec::with_capacity(4);
            while (read.len() as u64) < operation.takes {
                match rx.try_read_owned() {
                    Ok(message) => read.push(Some(message)),
                    Err(Error::Empty) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            // The last first, then from the front.
            for place in [2, 0, 1] {
                let Some((came, finish)) = read.get_mut(place).and_then(Option::take) else {
                    continue;
                };
                let fate = match (operation.name, place) {
                    ("owned-keep", _) | ("owned-mixed", 1) => Fate::GivenBack,
                    _ => Fate::Released,
                };
                match (operation.name, place) {
                    ("owned-drop", _) | ("owned-mixed", 0) => drop(finish),
                    _ => finish(fate == Fate::Released),
                }
                deeds.add(came, fate)?;
            }
        }
        "rescue" => {
            for _ in operation.gone {
                let came = rx.pop_any(PATIENCE)?;
                deeds.add(came, fate)?;
            }
        }
        name => return Err(format!("no operation {name}").into()),
    }
    Ok(())
}

//! Sets the stage: a queue with a living producer and consumer, and a seat for the victim.

use std::time::Duration;

use slipring::Role;
use slipring_testkit::{Commit, Consumer, Fate, Finish, Memory, Producer};

use super::operations::{Dead, First, OPERATIONS, Operation, PASSED};
use crate::check;
use crate::fellows;
use crate::image::{Image, Window};
use crate::kinds::{Given, Kind, consumer, pop, producer, push, words};
use crate::trace::Victim;

/// The number of seats of each side: a fellow's, the victim's, that of one that died before.
pub(super) const SEATS: usize = 3;

/// The seat of the victim, counted within its side.
pub(super) const VICTIM: usize = 1;

/// A queue as it is when the operation begins, except for the victim, whose seat is free.
pub(super) struct Stage<'o> {
    kind: &'o Kind,
    operation: &'o Operation,
    pub(super) memory: Box<dyn Memory>,
    pub(super) window: Window,
    pub(super) tx: Box<dyn Producer>,
    pub(super) rx: Box<dyn Consumer>,
    /// The first messages, if the fellow consumer holds them.
    pub(super) held: Vec<Finish>,
}

/// The guards of an end.
enum Hands {
    Reserved(Vec<Commit>),
    Read(Vec<Finish>),
}

impl<'o> Stage<'o> {
    /// Sets the stage, with this skew if one is given: role words must lie where the image has them.
    pub(super) fn set(
        kind: &'o Kind,
        operation: &'o Operation,
        skew: Option<u64>,
    ) -> Result<Stage<'o>, String> {
        let memory = check::channel(&*kind.with_fellows(SEATS, None, false), skew)?;
        let window = Window::open(&memory.descriptors())?;
        let (mut tx, mut rx) = (producer(&*memory)?, consumer(&*memory)?);
        for number in 0..PASSED {
            pass(&mut *tx, &mut *rx, number)?;
        }
        let mut held = Vec::new();
        for number in operation.firsts() {
            push(&mut *tx, number, Duration::ZERO)?;
            match operation.first {
                First::Letters => {
                    rx.try_handle(Fate::PutAside).map_err(words)??;
                }
                First::Held | First::Returned => held.push(read(&mut *rx, number)?),
            }
        }
        let committed = operation.committed();
        for number in operation.firsts().end..committed.start {
            pass(&mut *tx, &mut *rx, number)?;
        }
        if operation.first == First::Returned {
            held.drain(..).for_each(|finish| finish(false));
        }
        if operation.dead == Dead::Nobody {
            for number in committed {
                push(&mut *tx, number, Duration::ZERO)?;
            }
        }
        Ok(Stage {
            kind,
            operation,
            memory,
            window,
            tx,
            rx,
            held,
        })
    }

    /// Returns the stage at the instant of an image.
    pub(super) fn at(
        kind: &'o Kind,
        operation: &'o Operation,
        skew: u64,
        image: &Image,
    ) -> Result<Stage<'o>, String> {
        let mut stage = Stage::set(kind, operation, Some(skew))?;
        match operation.role {
            Role::Producer => {
                let victim = producer(&*stage.memory)?;
                stage.meanwhile()?;
                victim.abort();
            }
            Role::Consumer => {
                let mut victim = consumer(&*stage.memory)?;
                let hands = guards(operation, &mut *victim)?;
                stage.meanwhile()?;
                drop(hands);
                victim.abort();
            }
        }
        stage.window.put(image);
        Ok(stage)
    }

    /// Starts the process that does the operation, or takes the victim's seat as its successor. The process is stopped where
    /// it begins.
    pub(super) fn victim(&mut self, name: &str) -> Result<Victim, String> {
        let (kind, memory) = (self.kind.name, &*self.memory);
        let victim = fellows::start("queue", kind, OPERATIONS, self.operation, name, memory)?;
        if name == self.operation.name {
            self.meanwhile()?;
        }
        Ok(victim)
    }

    /// Has the fellows pass messages, or another end die, once the victim has its seat and its guards. (Whoever takes a
    /// seat looks for the dead.)
    fn meanwhile(&mut self) -> Result<(), String> {
        if self.operation.dead != Dead::Nobody {
            self.die()?;
        }
        let from = self.operation.committed().end;
        (from..self.operation.next())
            .try_for_each(|number| pass(&mut *self.tx, &mut *self.rx, number))
    }

    /// Has an end die with two slots in its hands, which lie before the committed messages, or are the first of these.
    fn die(&mut self) -> Result<(), String> {
        let Stage {
            operation,
            memory,
            window,
            tx,
            ..
        } = self;
        let committed = operation.committed();
        let mut fill = || {
            committed
                .clone()
                .try_for_each(|number| push(&mut **tx, number, Duration::ZERO))
        };
        let (hands, end): (Hands, Box<dyn FnOnce()>) = if operation.dead == Dead::Producer {
            let mut tx = producer(&**memory)?;
            let reserved = (0..2).map(|_| tx.try_reserve_owned(0..1).map_err(words));
            let hands = Hands::Reserved(reserved.collect::<Result<_, _>>()?);
            fill()?;
            (hands, Box::new(move || tx.abort()))
        } else {
            fill()?;
            let mut rx = consumer(&**memory)?;
            let read = committed.take(2).map(|number| read(&mut *rx, number));
            let hands = Hands::Read(read.collect::<Result<_, _>>()?);
            (hands, Box::new(move || rx.abort()))
        };
        // The memory stays as a kill would leave it now.
        let image = window.look();
        match hands {
            Hands::Reserved(hands) => drop(hands),
            Hands::Read(hands) => drop(hands),
        }
        end();
        window.put(&image);
        Ok(())
    }
}

/// Takes the messages that the victim has in guards when the operation begins.
pub(super) fn guards(operation: &Operation, rx: &mut dyn Consumer) -> Result<Vec<Finish>, String> {
    let numbers = operation.committed().take(operation.guards as usize);
    numbers.map(|number| read(rx, number)).collect()
}

fn read(rx: &mut dyn Consumer, number: u64) -> Result<Finish, String> {
    let (came, finish) = rx.try_read_owned().map_err(words)?;
    match came? {
        found if found == number => Ok(finish),
        found => Err(format!("read {found}, not {number}")),
    }
}

fn pass(tx: &mut dyn Producer, rx: &mut dyn Consumer, number: u64) -> Result<(), String> {
    push(tx, number, Duration::ZERO)?;
    match pop(rx, Duration::ZERO)? {
        Given::Message(found) if found == number => Ok(()),
        other => Err(format!("expected {number}, found {other:?}")),
    }
}

//! Sets the stage: a topic with a living producer and consumer, and a seat for the victim.

use std::time::Duration;

use slipring::Role;
use slipring_core::layout::HEAD;
use slipring_testkit::{Consumer, Held, Memory, Producer};

use super::{BEFORE, OPERATIONS, Operation, PASSED, SEATS};
use crate::check;
use crate::fellows;
use crate::image::{Image, Window};
use crate::kinds::{Given, Kind, consumer, pop, producer, push, words};
use crate::trace::Victim;

/// A topic as it is when the operation begins, except for the victim, whose seat is free.
pub(super) struct Stage<'o> {
    kind: &'o Kind,
    operation: &'o Operation,
    pub(super) memory: Box<dyn Memory>,
    pub(super) window: Window,
    pub(super) tx: Box<dyn Producer>,
    /// It has read all passed messages.
    pub(super) rx: Box<dyn Consumer>,
    /// The first message behind these, which the fellow consumer holds.
    pub(super) held: Option<Box<dyn Held>>,
}

impl<'o> Stage<'o> {
    /// Sets the stage, with this skew if one is given: role words must lie where the image has them.
    pub(super) fn set(
        kind: &'o Kind,
        operation: &'o Operation,
        skew: Option<u64>,
    ) -> Result<Stage<'o>, String> {
        let memory = check::channel(&*kind.with_seats(SEATS), skew)?;
        let mut window = Window::open(&memory.descriptors())?;
        let (mut tx, mut rx) = (producer(&*memory)?, consumer(&*memory)?);
        for number in 0..PASSED {
            push(&mut *tx, number, Duration::ZERO)?;
            match pop(&mut *rx, Duration::ZERO)? {
                Given::Message(found) if found == number => {}
                other => return Err(format!("expected {number}, found {other:?}")),
            }
        }
        let mut before = producer(&*memory)?;
        for number in PASSED..PASSED + BEFORE {
            push(&mut *before, number, Duration::ZERO)?;
        }
        before.abort();
        let held = rx.try_nth_latest_owned(BEFORE as usize - 1);
        let held = Some(held.map_err(words)?);
        if operation.behind {
            window.set(0, HEAD, PASSED + BEFORE - 1);
        }
        if operation.role == Role::Consumer {
            // As the victim's predecessor: its seat has been used before, too.
            consumer(&*memory)?.abort();
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
        stage.window.put(image);
        Ok(stage)
    }

    /// Starts the process that does the operation, or takes the victim's seat as its successor. The process is stopped where
    /// it begins.
    pub(super) fn victim(&mut self, name: &str) -> Result<Victim, String> {
        let (kind, memory) = (self.kind.name, &*self.memory);
        fellows::start("topic", kind, &OPERATIONS, self.operation, name, memory)
    }
}

//! What must be true of a channel whose holder was killed: who is left goes on at once, nothing that was
//! committed is lost, torn or out of order, and every slot is still there.
//!
//! Each image is put into a fresh channel, beside a peer that has done all that the live one had done.
//! The locks of the dead are free there, as the kernel leaves them.

use std::os::fd::AsRawFd;
use std::time::Duration;

use slipring::End as Ending;
use slipring_core::layout::{BELLS, LINE, SEATS};

use crate::image::{Image, Window};
use crate::kinds::{Consumer, Given, Kind, Memory, Operation, Other, Producer, Side};
use crate::trace::Victim;

/// Nobody waits so long who is not blocked: at least a hundred times what a death takes to be noticed.
const LONG: Duration = Duration::from_secs(20);

/// A channel as it was when the operation began, but for the victim, whose seat is free.
pub(crate) struct Stage {
    pub(crate) memory: Box<dyn Memory>,
    pub(crate) window: Window,
    pub(crate) other: End,
}

/// One end.
pub(crate) enum End {
    Producer(Box<dyn Producer>),
    Consumer(Box<dyn Consumer>),
}

impl End {
    pub(crate) fn arm(&mut self) -> Result<(), String> {
        match self {
            End::Producer(tx) => tx.arm(),
            End::Consumer(rx) => rx.arm(),
        }
    }
}

impl Stage {
    /// Sets it, with this skew if one is given: role words must lie where the image has them. `armed`: the
    /// end that stays has asked for a wake by the one that goes.
    pub(crate) fn set(
        kind: &Kind,
        operation: &Operation,
        skew: Option<u64>,
        armed: bool,
    ) -> Result<Stage, String> {
        let mut memory = kind.maker.memfd()?;
        // Each channel has another one than the last, of a few.
        for _ in 0..16 {
            if skew.is_none_or(|skew| memory.skew() == skew) {
                break;
            }
            memory = kind.maker.memfd()?;
        }
        let (mut tx, mut rx) = (memory.producer()?, memory.consumer()?);
        for number in 0..operation.passed + operation.before {
            tx.push(number, Duration::ZERO)?;
            if number < operation.passed && rx.pop(Duration::ZERO)? != Given::Message(number) {
                return Err("the stage cannot be set".into());
            }
        }
        let other = match operation.side {
            Side::Producer => {
                if armed {
                    rx.arm()?;
                }
                tx.abort();
                End::Consumer(rx)
            }
            Side::Consumer => {
                if armed {
                    tx.arm()?;
                }
                rx.abort();
                End::Producer(tx)
            }
        };
        let window = Window::open(&memory.descriptors())?;
        Ok(Stage {
            memory,
            window,
            other,
        })
    }

    /// Starts the process that does `what`, on a stage that was set for `operation`: stopped where it
    /// begins. If it is to wait, for so long.
    pub(crate) fn victim(
        &mut self,
        kind: &Kind,
        operation: &Operation,
        what: &Operation,
        patience: Duration,
    ) -> Result<Victim, String> {
        let index = kind
            .operations
            .iter()
            .position(|candidate| std::ptr::eq(candidate, what))
            .ok_or("an operation of another kind")?;
        let passed = self.memory.descriptors();
        let numbers: Vec<String> = passed.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let next = operation.passed + operation.before;
        let words = [
            kind.name.to_string(),
            index.to_string(),
            next.to_string(),
            patience.as_millis().to_string(),
            numbers.join(","),
        ];
        let victim = Victim::start(&words, &passed)?;
        drop(passed);
        if what.other == Other::Armed {
            self.other.arm()?;
        }
        Ok(victim)
    }

    /// The stage at the instant of an image.
    pub(crate) fn at(
        kind: &Kind,
        operation: &Operation,
        skew: u64,
        image: &Image,
    ) -> Result<Stage, String> {
        let mut stage = Stage::set(kind, operation, Some(skew), operation.other == Other::Armed)?;
        stage.window.put(image);
        Ok(stage)
    }
}

/// Whether an image tells of a producer that finished, and not of its successor: its end must be told,
/// once, whatever becomes of successors.
pub(crate) fn finished(image: &Image) -> bool {
    image.word(SEATS) & 0xff == 2
}

/// Everything that is checked of one image. `finished`: whether the producer had, before it, or a
/// successor, was killed.
pub(crate) fn image(
    kind: &Kind,
    operation: &Operation,
    skew: u64,
    finished: bool,
    image: &Image,
) -> Result<(), String> {
    let stage = || Stage::at(kind, operation, skew, image);
    let about = |what: &'static str| move |error: String| format!("{what}: {error}");
    survivor_first(kind, operation, finished, stage()?)
        .map_err(about("the survivor acts first"))?;
    successor_first(kind, operation, finished, stage()?)
        .map_err(about("the successor acts first"))?;
    nobody_left(kind, operation, finished, stage()?).map_err(about("nobody is left"))
}

fn survivor_first(
    kind: &Kind,
    operation: &Operation,
    finished: bool,
    stage: Stage,
) -> Result<(), String> {
    match stage.other {
        End::Consumer(mut rx) => {
            let (found, end) = drain(&mut *rx)?;
            allowed(operation, &found)?;
            if (end == Ending::Finished) != finished {
                return Err(format!("told of {end:?}, while finished is {}", finished));
            }
            let mut tx = stage.memory.producer()?;
            traffic(kind, &stage.window, &mut *tx, &mut *rx)
        }
        End::Producer(mut tx) => {
            // It is told when the channel is full, and not before.
            let mut pushed = 0;
            while tx.push(FRESH + pushed, LONG).is_ok() {
                pushed += 1;
                if pushed > 1000 {
                    return Err("a channel without a reader never fills".into());
                }
            }
            let mut rx = stage.memory.consumer()?;
            let mut found = take(&mut *rx, operation.before + pushed + 1)?;
            let at = found
                .iter()
                .position(|number| *number >= FRESH)
                .unwrap_or(found.len());
            let fresh = found.split_off(at);
            allowed(operation, &found)?;
            if !fresh.iter().copied().eq(FRESH..FRESH + pushed) {
                return Err(format!("pushed {pushed} and found {fresh:?}"));
            }
            traffic(kind, &stage.window, &mut *tx, &mut *rx)
        }
    }
}

fn successor_first(
    kind: &Kind,
    operation: &Operation,
    finished: bool,
    stage: Stage,
) -> Result<(), String> {
    let (mut tx, mut rx) = match stage.other {
        End::Consumer(rx) => (stage.memory.producer()?, rx),
        End::Producer(tx) => (tx, stage.memory.consumer()?),
    };
    follow(operation, finished, &mut *tx, &mut *rx)?;
    traffic(kind, &stage.window, &mut *tx, &mut *rx)
}

fn nobody_left(
    kind: &Kind,
    operation: &Operation,
    finished: bool,
    mut stage: Stage,
) -> Result<(), String> {
    // The survivor dies too: its words are the image's, and its lock is free.
    let image = stage.window.look();
    match stage.other {
        End::Consumer(rx) => rx.abort(),
        End::Producer(tx) => tx.abort(),
    }
    stage.window.put(&image);
    let (mut rx, mut tx) = (stage.memory.consumer()?, stage.memory.producer()?);
    follow(operation, finished, &mut *tx, &mut *rx)?;
    traffic(kind, &stage.window, &mut *tx, &mut *rx)
}

/// The first number that no operation passes.
const FRESH: u64 = 1000;

fn allowed(operation: &Operation, found: &[u64]) -> Result<(), String> {
    if operation.allows(found) {
        Ok(())
    } else {
        Err(format!("the channel held {found:?}"))
    }
}

/// What was there comes first, in order, and the end of its producer if that finished; then what comes
/// now.
fn follow(
    operation: &Operation,
    finished: bool,
    tx: &mut dyn Producer,
    rx: &mut dyn Consumer,
) -> Result<(), String> {
    let (mut found, mut ends) = (Vec::new(), 0);
    loop {
        match rx.pop(Duration::ZERO)? {
            Given::Message(number) => found.push(number),
            Given::Ended(Ending::Finished) => ends += 1,
            Given::Ended(other) => return Err(format!("told of {other:?}, with a producer there")),
            Given::Nothing => break,
        }
        if found.len() + ends > 1000 {
            return Err("the channel never becomes empty".into());
        }
    }
    tx.push(FRESH, LONG)?;
    match rx.pop(LONG)? {
        Given::Message(FRESH) => {}
        other => return Err(format!("expected {FRESH}, found {other:?}")),
    }
    if ends != usize::from(finished) {
        return Err(format!("told of {ends} ends, while finished is {finished}"));
    }
    allowed(operation, &found)
}

/// All that is there, to the end of its producer, which must come.
fn drain(rx: &mut dyn Consumer) -> Result<(Vec<u64>, Ending), String> {
    let mut found = Vec::new();
    loop {
        match rx.pop(LONG)? {
            Given::Message(number) => found.push(number),
            Given::Ended(end) => return Ok((found, end)),
            Given::Nothing => return Err(format!("no end was told after {found:?}")),
        }
        if found.len() > 1000 {
            return Err("the channel never becomes empty".into());
        }
    }
}

/// At most so many.
fn take(rx: &mut dyn Consumer, most: u64) -> Result<Vec<u64>, String> {
    let mut found = Vec::new();
    while (found.len() as u64) < most
        && let Given::Message(number) = rx.pop(Duration::ZERO)?
    {
        found.push(number);
    }
    Ok(found)
}

/// The channel works as ever, three times around: slots are conserved, and once all is done nobody is
/// taken for asleep, who would cost the others a system call a message for ever.
pub(crate) fn traffic(
    kind: &Kind,
    window: &Window,
    tx: &mut dyn Producer,
    rx: &mut dyn Consumer,
) -> Result<(), String> {
    let room = tx.room()?;
    if room != kind.capacity {
        return Err(format!("room for {room} of {}", kind.capacity));
    }
    let (mut pushed, mut popped) = (FRESH + 100, FRESH + 100);
    for burst in [1, kind.capacity, 2, kind.capacity, 3, kind.capacity] {
        for _ in 0..burst {
            tx.push(pushed, LONG)?;
            pushed += 1;
        }
        for _ in 0..burst {
            match rx.pop(LONG)? {
                Given::Message(number) if number == popped => popped += 1,
                other => return Err(format!("expected {popped}, found {other:?}")),
            }
        }
    }
    let image = window.look();
    match [0, 1].map(|side| image.word(BELLS + side * LINE)) {
        [0, 0] => Ok(()),
        waiters => Err(format!(
            "nobody waits, and the waiters words are {waiters:x?}"
        )),
    }
}

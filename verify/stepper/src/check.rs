//! Checks a channel whose holder was killed. The ends that are left go on at once. No committed
//! message is lost, torn or out of order, and every slot is still there.
//!
//! Where every consumer receives each message, all of them find the same. A consumer that comes
//! anew finds the messages unbroken up to the end, and the producer does not wait for a dead
//! consumer.
//!
//! Each image is put into a fresh channel, beside peers that have done all that the live ones had
//! done. The locks of the dead are free there, as the kernel leaves them.

use std::os::fd::AsRawFd;
use std::time::Duration;

use slipring::{End as Ending, Error, Role};
use slipring_core::layout::{GATING_SET, LINE, MOST_RINGS, RINGS, SEATS, WAIT_CELLS};
use slipring_core::wait::FENCED;
use slipring_testkit::{Consumer, Delivery, Handle, Maker, Memory, Producer};

use crate::image::{Image, Window};
use crate::kinds::{CAPACITY, Given, Kind, Made, Readers, consumer, pop, producer, push, words};
use crate::operations::{Operation, Other};
use crate::trace::Victim;

/// An end that is not blocked never waits this long: at least a hundred times as long as a death
/// takes to be noticed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A channel as it was when the operation began, except for the victim, whose seat is free.
pub(crate) struct Stage {
    pub(crate) memory: Box<dyn Memory>,
    pub(crate) window: Window,
    /// The producer, or `None` if it is the victim.
    pub(crate) tx: Option<Box<dyn Producer>>,
    /// The consumers, except for the victim.
    pub(crate) readers: Readers,
}

/// Makes a channel, with this skew if one is given.
pub(crate) fn channel(maker: &dyn Maker, skew: Option<u64>) -> Made {
    let mut memory = maker.memfd().map_err(words)?;
    // Successive channels differ in their skew, and there are only a few of them.
    for _ in 0..16 {
        if skew.is_none_or(|skew| memory.geometry().skew == skew) {
            break;
        }
        memory = maker.memfd().map_err(words)?;
    }
    Ok(memory)
}

enum End {
    Producer(Box<dyn Producer>),
    Consumer(Box<dyn Consumer>),
}

impl Stage {
    /// Sets the stage, with this skew if one is given: role words must lie where the image has
    /// them. If `armed`, the end that stays has asked the leaving end to wake it.
    pub(crate) fn set(
        kind: &Kind,
        operation: &Operation,
        skew: Option<u64>,
        armed: bool,
    ) -> Result<Stage, String> {
        let memory = channel(&*kind.maker, skew)?;
        let mut window = Window::open(&memory.descriptors())?;
        let (mut tx, mut readers) = (producer(&*memory)?, kind.readers(&*memory)?);
        let (passed, next) = (operation.passed, operation.passed + operation.before);
        let mut dead = None;
        for number in 0..next {
            if operation.dead && number + CAPACITY == passed {
                let mut rx = consumer(&*memory)?;
                kind.begin_at(&mut *rx, number)?;
                dead = Some(rx);
            }
            push(&mut *tx, number, Duration::ZERO)?;
            for rx in readers.iter_mut().filter(|_| number < passed) {
                if pop(&mut **rx, Duration::ZERO)? != Given::Message(number) {
                    return Err("the stage cannot be set".into());
                }
            }
        }
        if let Some(dead) = dead {
            // The dead consumer is in the seat behind the others: nobody holds the seat, and the
            // producer still waits for it.
            let line = SEATS + (1 + readers.len()) * LINE;
            let alive = window.look();
            dead.abort();
            for word in [GATING_SET, line] {
                window.set(0, word, alive.word(word));
            }
        }
        let mut stage = Stage {
            memory,
            window,
            tx: Some(tx),
            readers,
        };
        let gone = match operation.role {
            Role::Producer => stage.tx.take().map(End::Producer),
            Role::Consumer => Some(End::Consumer(stage.readers.remove(0))),
        };
        if armed {
            stage.arm(kind)?;
        }
        match gone {
            Some(End::Producer(tx)) => tx.abort(),
            Some(End::Consumer(rx)) => rx.abort(),
            None => {}
        }
        Ok(stage)
    }

    /// Arms the end that the victim would wake.
    fn arm(&mut self, kind: &Kind) -> Result<(), String> {
        match &mut self.tx {
            Some(tx) => kind.arm(&mut **tx),
            None => self
                .readers
                .iter_mut()
                .try_for_each(|rx| kind.arm(&mut **rx)),
        }
    }

    /// Starts the process that does `what`, on a stage that was set for `operation`. The process is
    /// stopped where it begins. If it has to wait, it waits for `patience`.
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
            "alone".to_string(),
            kind.name.to_string(),
            index.to_string(),
            next.to_string(),
            patience.as_millis().to_string(),
            numbers.join(","),
        ];
        let victim = Victim::start(&words, &passed)?;
        drop(passed);
        if what.other == Other::Armed {
            self.arm(kind)?;
        }
        Ok(victim)
    }

    /// Returns the stage at the instant of an image.
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

/// Returns `true` if the image holds a producer that finished, and not its successor. Consumers
/// must learn of that end once, whatever becomes of successors.
pub(crate) fn finished(image: &Image) -> bool {
    image.word(SEATS) & 0xff == 2
}

/// Checks everything about one image. `finished` says that the producer had finished before it, or
/// before a successor was killed.
pub(crate) fn image(
    kind: &Kind,
    operation: &Operation,
    skew: u64,
    finished: bool,
    image: &Image,
) -> Result<(), String> {
    let stage = || Stage::at(kind, operation, skew, image);
    let about = |what: &'static str| move |error: String| format!("{what}: {error}");
    survivors_first(kind, operation, finished, stage()?)
        .map_err(about("the survivors act first"))?;
    successor_first(kind, operation, finished, stage()?)
        .map_err(about("the successor acts first"))?;
    nobody_left(kind, operation, finished, stage()?).map_err(about("nobody is left"))?;
    if kind.delivery != Delivery::One {
        nobody_reads(operation, stage()?).map_err(about("nobody reads"))?;
    }
    Ok(())
}

fn survivors_first(
    kind: &Kind,
    operation: &Operation,
    finished: bool,
    stage: Stage,
) -> Result<(), String> {
    let Stage {
        memory,
        window,
        tx,
        mut readers,
    } = stage;
    let Some(mut tx) = tx else {
        let mut all = readers
            .iter_mut()
            .map(|rx| (Place::Stood, rx))
            .collect::<Vec<_>>();
        let mut late = comes(kind, &*memory)?;
        all.extend(late.iter_mut().map(|rx| (Place::Came, rx)));
        let mut tail = None;
        for (place, rx) in all {
            let (run, end) = drain(&mut **rx)?;
            allowed(kind, operation, place, &run, &mut tail)?;
            // Where ends do not survive, a successor that died hides the end of the one before it.
            let hidden = !kind.ends_survive && end == Ending::Died;
            if (end == Ending::Finished) != finished && !hidden {
                return Err(format!("told of {end:?}, while finished is {finished}"));
            }
        }
        readers.extend(late);
        let mut tx = producer(&*memory)?;
        return traffic(kind, &window, &mut *tx, &mut readers);
    };
    if kind.delivery == Delivery::One {
        // The producer learns of the death when the channel is full, and not before.
        let mut pushed = 0;
        while push(&mut *tx, FRESH + pushed, LONG).is_ok() {
            pushed += 1;
            if pushed > 1000 {
                return Err("a channel without a reader never fills".into());
            }
        }
        let mut rx = consumer(&*memory)?;
        let mut found = take(&mut *rx, operation.before + pushed + 1)?;
        let at = found.numbers.iter().position(|number| *number >= FRESH);
        let fresh = found.numbers.split_off(at.unwrap_or(found.numbers.len()));
        allowed(kind, operation, Place::Came, &found, &mut None)?;
        if !fresh.iter().copied().eq(FRESH..FRESH + pushed) {
            return Err(format!("pushed {pushed} and found {fresh:?}"));
        }
        return traffic(kind, &window, &mut *tx, &mut vec![rx]);
    }
    // Live consumers lose nothing, and the producer waits for a dead one only until it notices the
    // death.
    let mut tail = None;
    for rx in &mut readers {
        let run = take(&mut **rx, 1000)?;
        allowed(kind, operation, Place::Stood, &run, &mut tail)?;
    }
    let last = FRESH + 3 * CAPACITY;
    for number in FRESH..last {
        pass(number, &mut *tx, &mut readers)?;
    }
    let mut rx = consumer(&*memory)?;
    let run = take(&mut *rx, 1000)?;
    if !run
        .numbers
        .iter()
        .copied()
        .eq(last - run.numbers.len() as u64..last)
    {
        return Err(format!("who comes finds {run:?}, and not all up to {last}"));
    }
    readers.push(rx);
    traffic(kind, &window, &mut *tx, &mut readers)
}

fn successor_first(
    kind: &Kind,
    operation: &Operation,
    finished: bool,
    stage: Stage,
) -> Result<(), String> {
    let Stage {
        memory,
        window,
        tx,
        mut readers,
    } = stage;
    let mut places = vec![Place::Stood; readers.len()];
    let mut tx = match tx {
        None => producer(&*memory)?,
        Some(tx) => {
            readers.push(consumer(&*memory)?);
            places.push(Place::Came);
            tx
        }
    };
    follow(kind, operation, finished, &mut *tx, &mut readers, &places)?;
    traffic(kind, &window, &mut *tx, &mut readers)
}

fn nobody_left(
    kind: &Kind,
    operation: &Operation,
    finished: bool,
    stage: Stage,
) -> Result<(), String> {
    let Stage {
        memory,
        mut window,
        tx,
        readers,
    } = stage;
    // The survivors die too: their words are the image's, and their locks are free.
    let image = window.look();
    readers.into_iter().for_each(Handle::abort);
    tx.into_iter().for_each(Handle::abort);
    window.put(&image);
    // One of many consumers' seats is taken anew: the other places are left to the producer.
    let (mut readers, mut tx) = (vec![consumer(&*memory)?], producer(&*memory)?);
    follow(
        kind,
        operation,
        finished,
        &mut *tx,
        &mut readers,
        &[Place::Came],
    )?;
    traffic(kind, &window, &mut *tx, &mut readers)
}

/// Checks that a new consumer finds only whole messages up to the successor's, after all consumers
/// left and a successor went on. The message that the dead producer had begun to write does no
/// harm.
fn nobody_reads(operation: &Operation, stage: Stage) -> Result<(), String> {
    let Stage {
        memory,
        tx,
        readers,
        window: _window,
    } = stage;
    readers.into_iter().for_each(Handle::abort);
    let mut tx = match tx {
        Some(tx) => tx,
        None => producer(&*memory)?,
    };
    push(&mut *tx, FRESH, LONG)?;
    let run = take(&mut *consumer(&*memory)?, 1000)?;
    let Some((FRESH, before)) = run.numbers.split_last().map(|(last, rest)| (*last, rest)) else {
        return Err(format!("who comes finds {run:?}, and not {FRESH}"));
    };
    let tail = before.last().map_or(operation.passed, |last| last + 1);
    let whole = before.iter().copied().eq(tail - before.len() as u64..tail);
    match whole && (before.is_empty() || operation.allows_tail(tail)) {
        true => Ok(()),
        false => Err(format!("who comes finds {run:?}")),
    }
}

/// Adds one more consumer, where the kind allows it.
fn comes(kind: &Kind, memory: &dyn Memory) -> Result<Option<Box<dyn Consumer>>, String> {
    match kind.delivery {
        Delivery::One => Ok(None),
        Delivery::All | Delivery::Overwriting => consumer(memory).map(Some),
    }
}

/// The first number that no operation passes.
pub(crate) const FRESH: u64 = 1000;

/// The most that an operation reserves.
const RESERVED: u64 = 3;

/// The way in which a consumer got its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It was there when the victim was killed, behind all passed messages.
    Stood,
    /// It has come since, and begins at the oldest message.
    Came,
}

/// The messages that a consumer read, and the number of losses reported to it.
#[derive(Debug, Default)]
struct Run {
    lost: u64,
    numbers: Vec<u64>,
}

/// Fails if the consumer may not find this run. `tail` is the end that the others found, and this
/// one must find the same.
fn allowed(
    kind: &Kind,
    operation: &Operation,
    place: Place,
    run: &Run,
    tail: &mut Option<u64>,
) -> Result<(), String> {
    let numbers = &run.numbers;
    let may = match kind.delivery {
        Delivery::One if kind.released_apart => operation.allows_some(numbers) && run.lost == 0,
        Delivery::One => operation.allows(numbers) && run.lost == 0,
        Delivery::All | Delivery::Overwriting => {
            let gives_up = |held: u64| match kind.delivery {
                Delivery::Overwriting => (held + RESERVED).saturating_sub(kind.kept),
                _ => 0,
            };
            let stood = operation.passed + run.lost;
            let first = match (numbers.first(), place) {
                (Some(first), Place::Came) => *first,
                // The producer gave up all messages: the consumer came behind the last.
                (None, Place::Came) => tail.unwrap_or(operation.passed + operation.before),
                _ => stood,
            };
            let end = first + numbers.len() as u64;
            let whole = numbers.iter().copied().eq(first..end);
            let oldest = match place {
                Place::Stood => run.lost <= gives_up(operation.before),
                Place::Came => {
                    first <= operation.passed || first + kind.kept <= end + gives_up(kind.kept)
                }
            };
            let same = *tail.get_or_insert(end) == end;
            whole && oldest && same && operation.allows_tail(end)
        }
    };
    match may {
        true => Ok(()),
        false => Err(format!("the channel held {run:?}, others found {tail:?}")),
    }
}

/// Checks that the old messages come first, in order, then the end of their producer if it
/// finished, then the new messages.
fn follow(
    kind: &Kind,
    operation: &Operation,
    finished: bool,
    tx: &mut dyn Producer,
    readers: &mut Readers,
    places: &[Place],
) -> Result<(), String> {
    let mut runs = Vec::new();
    for rx in readers.iter_mut() {
        let (mut run, mut ends) = (Run::default(), 0);
        loop {
            match pop(&mut **rx, Duration::ZERO)? {
                Given::Message(number) => run.numbers.push(number),
                Given::Lost(lost) => run.lost += lost,
                Given::Ended(Ending::Finished) => ends += 1,
                Given::Ended(other) => {
                    return Err(format!("told of {other:?}, with a producer there"));
                }
                Given::Nothing => break,
            }
            if run.numbers.len() + ends > 1000 {
                return Err("the channel never becomes empty".into());
            }
        }
        runs.push((run, ends));
    }
    pass(FRESH, tx, readers)?;
    let mut tail = None;
    for ((run, ends), place) in runs.iter().zip(places) {
        if *ends != usize::from(finished && kind.ends_survive) {
            return Err(format!("told of {ends} ends, while finished is {finished}"));
        }
        allowed(kind, operation, *place, run, &mut tail)?;
    }
    Ok(())
}

/// Takes all messages, to the end of their producer, which must come.
fn drain(rx: &mut dyn Consumer) -> Result<(Run, Ending), String> {
    let mut run = Run::default();
    loop {
        match pop(rx, LONG)? {
            Given::Message(number) => run.numbers.push(number),
            Given::Lost(lost) => run.lost += lost,
            Given::Ended(end) => return Ok((run, end)),
            Given::Nothing => return Err(format!("no end was told after {run:?}")),
        }
        if run.numbers.len() > 1000 {
            return Err("the channel never becomes empty".into());
        }
    }
}

/// Takes at most `most` messages.
fn take(rx: &mut dyn Consumer, most: u64) -> Result<Run, String> {
    let mut run = Run::default();
    while (run.numbers.len() as u64) < most {
        match pop(rx, Duration::ZERO)? {
            Given::Message(number) => run.numbers.push(number),
            Given::Lost(lost) => run.lost += lost,
            Given::Nothing | Given::Ended(_) => break,
        }
    }
    Ok(run)
}

/// Passes a message that all consumers read.
fn pass(number: u64, tx: &mut dyn Producer, readers: &mut Readers) -> Result<(), String> {
    push(tx, number, LONG)?;
    readers
        .iter_mut()
        .try_for_each(|rx| read(number, &mut **rx))
}

fn read(number: u64, rx: &mut dyn Consumer) -> Result<(), String> {
    match pop(rx, LONG)? {
        Given::Message(found) if found == number => Ok(()),
        other => Err(format!("expected {number}, found {other:?}")),
    }
}

/// Checks that the channel works as ever, three times around. Slots are conserved. Once all is
/// done, no waiter is taken for asleep (it would cost the others a system call a message for ever).
/// The producer waits for no dead consumer.
pub(crate) fn traffic(
    kind: &Kind,
    window: &Window,
    tx: &mut dyn Producer,
    readers: &mut Readers,
) -> Result<(), String> {
    let mut next = FRESH + 100;
    for burst in [1, kind.kept, 2, kind.kept, 3, kind.kept] {
        let burst = next..next + burst;
        next = burst.end;
        burst
            .clone()
            .try_for_each(|number| push(tx, number, LONG))?;
        for rx in readers.iter_mut() {
            burst
                .clone()
                .try_for_each(|number| read(number, &mut **rx))?;
        }
    }
    let room = tx.try_room(kind.all).map_err(words)?;
    if room != kind.all {
        return Err(format!("room for {room} of {}", kind.all));
    }
    if kind.gives_back {
        given_back(kind, window, &mut *readers[0])?;
    }
    let image = window.look();
    // Producers of a topic wait for nobody: a dead consumer's bit stays until its seat is taken, and does no harm.
    let gating_set = match kind.delivery {
        Delivery::All => readers.len() as u32,
        _ if kind.topic => image
            .word(GATING_SET)
            .count_ones()
            .max(readers.len() as u32),
        Delivery::One | Delivery::Overwriting => 0,
    };
    if image.word(GATING_SET).count_ones() != gating_set {
        return Err(format!(
            "gating_set {:x}, of {gating_set}",
            image.word(GATING_SET)
        ));
    }
    // With several consumers, nobody knows which of them has no barrier: that flag stays.
    let stays = if kind.readers > 1 { FENCED } else { 0 };
    match [0, 1].map(|side| image.word(WAIT_CELLS + side * LINE)) {
        [0, consumers] if consumers & !stays == 0 => Ok(()),
        waiters => Err(format!(
            "nobody waits, and the waiters words are {waiters:x?}"
        )),
    }
}

/// Checks that an idle consumer of a channel that grows gives back all memory but the newest ring's.
fn given_back(kind: &Kind, window: &Window, rx: &mut dyn Consumer) -> Result<(), String> {
    // Each look gives back a part.
    for _ in 0..2 * MOST_RINGS {
        match rx.try_pop_any() {
            Err(Error::Empty) => {}
            other => return Err(format!("expected Empty, found {other:?}")),
        }
    }
    let (geometry, image) = (kind.maker.heap().map_err(words)?.geometry(), window.look());
    let newest = image.word(RINGS);
    let class = image.word(RINGS + 16 + newest as usize % MOST_RINGS * 16 + 8);
    for other in (0..geometry.classes()).filter(|other| *other != class) {
        let area = geometry.area_of(other).ok_or("a class without an area")?;
        // What was given back reads as zeros.
        let mut words = (area.start as usize..area.end as usize).step_by(8);
        if words.any(|at| image.word_of(1, at) != 0) {
            return Err(format!(
                "the memory of class {other} stays, and the ring is of class {class}"
            ));
        }
    }
    Ok(())
}

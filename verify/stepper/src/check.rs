//! What must be true of a channel whose holder was killed: who is left goes on at once, nothing that was
//! committed is lost, torn or out of order, and every slot is still there.
//!
//! Where every consumer sees each message: all of them find the same, who comes anew finds it unbroken up to
//! the end, and nobody is waited for who died.
//!
//! Each image is put into a fresh channel, beside peers that have done all that the live ones had done.
//! The locks of the dead are free there, as the kernel leaves them.

use std::os::fd::AsRawFd;
use std::time::Duration;

use slipring::End as Ending;
use slipring_core::layout::{BELLS, LINE, MEMBERS, SEATS};
use slipring_core::wait::FENCED;

use crate::image::{Image, Window};
use crate::kinds::{
    Consumer, Flow, Given, Kind, Memory, Operation, Other, Producer, Readers, Side,
};
use crate::trace::Victim;

/// Nobody waits so long who is not blocked: at least a hundred times what a death takes to be noticed.
const LONG: Duration = Duration::from_secs(20);

/// A channel as it was when the operation began, but for the victim, whose seat is free.
pub(crate) struct Stage {
    pub(crate) memory: Box<dyn Memory>,
    pub(crate) window: Window,
    /// Nobody if the victim is one.
    pub(crate) tx: Option<Box<dyn Producer>>,
    /// But for the victim, if it is one.
    pub(crate) readers: Readers,
}

enum End {
    Producer(Box<dyn Producer>),
    Consumer(Box<dyn Consumer>),
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
            if skew.is_none_or(|skew| memory.geometry().skew == skew) {
                break;
            }
            memory = kind.maker.memfd()?;
        }
        let mut window = Window::open(&memory.descriptors())?;
        let (mut tx, mut readers) = (memory.producer()?, kind.readers(&*memory)?);
        let (passed, next) = (operation.passed, operation.passed + operation.before);
        let mut dead = None;
        for number in 0..next {
            if operation.dead && number + kind.capacity == passed {
                let mut rx = memory.consumer()?;
                rx.begin_at(number)?;
                dead = Some(rx);
            }
            tx.push(number, Duration::ZERO)?;
            for rx in readers.iter_mut().filter(|_| number < passed) {
                if rx.pop(Duration::ZERO)? != Given::Message(number) {
                    return Err("the stage cannot be set".into());
                }
            }
        }
        if let Some(dead) = dead {
            // In the seat behind the others: held by nobody, and still waited for.
            let line = SEATS + (1 + readers.len()) * LINE;
            let alive = window.look();
            dead.abort();
            for word in [MEMBERS, line] {
                window.set(0, word, alive.word(word));
            }
        }
        let mut stage = Stage {
            memory,
            window,
            tx: Some(tx),
            readers,
        };
        let gone = match operation.side {
            Side::Producer => stage.tx.take().map(End::Producer),
            Side::Consumer => Some(End::Consumer(stage.readers.remove(0))),
        };
        if armed {
            stage.arm()?;
        }
        match gone {
            Some(End::Producer(tx)) => tx.abort(),
            Some(End::Consumer(rx)) => rx.abort(),
            None => {}
        }
        Ok(stage)
    }

    /// Whoever the victim would wake asks for it.
    fn arm(&mut self) -> Result<(), String> {
        match &mut self.tx {
            Some(tx) => tx.arm(),
            None => self.readers.iter_mut().try_for_each(|rx| rx.arm()),
        }
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
            self.arm()?;
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
    survivors_first(kind, operation, finished, stage()?)
        .map_err(about("the survivors act first"))?;
    successor_first(kind, operation, finished, stage()?)
        .map_err(about("the successor acts first"))?;
    nobody_left(kind, operation, finished, stage()?).map_err(about("nobody is left"))?;
    if kind.flow != Flow::Taken {
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
            if (end == Ending::Finished) != finished {
                return Err(format!("told of {end:?}, while finished is {finished}"));
            }
        }
        readers.extend(late);
        let mut tx = memory.producer()?;
        return traffic(kind, &window, &mut *tx, &mut readers);
    };
    if kind.flow == Flow::Taken {
        // It is told when the channel is full, and not before.
        let mut pushed = 0;
        while tx.push(FRESH + pushed, LONG).is_ok() {
            pushed += 1;
            if pushed > 1000 {
                return Err("a channel without a reader never fills".into());
            }
        }
        let mut rx = memory.consumer()?;
        let mut found = take(&mut *rx, operation.before + pushed + 1)?;
        let at = found.numbers.iter().position(|number| *number >= FRESH);
        let fresh = found.numbers.split_off(at.unwrap_or(found.numbers.len()));
        allowed(kind, operation, Place::Came, &found, &mut None)?;
        if !fresh.iter().copied().eq(FRESH..FRESH + pushed) {
            return Err(format!("pushed {pushed} and found {fresh:?}"));
        }
        return traffic(kind, &window, &mut *tx, &mut vec![rx]);
    }
    // Nothing is lost to those who live, and who died is waited for no longer than it takes to notice.
    let mut tail = None;
    for rx in &mut readers {
        let run = take(&mut **rx, 1000)?;
        allowed(kind, operation, Place::Stood, &run, &mut tail)?;
    }
    let last = FRESH + 3 * kind.capacity;
    for number in FRESH..last {
        pass(number, &mut *tx, &mut readers)?;
    }
    let mut rx = memory.consumer()?;
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
        None => memory.producer()?,
        Some(tx) => {
            readers.push(memory.consumer()?);
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
    readers.into_iter().for_each(Consumer::abort);
    tx.into_iter().for_each(Producer::abort);
    window.put(&image);
    // Of many consumers' seats one is taken anew: the others' places are left to the producer.
    let (mut readers, mut tx) = (vec![memory.consumer()?], memory.producer()?);
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

/// The consumers leave, a successor goes on, and who comes then finds nothing but whole messages up to its: what
/// the dead one had begun to write is in nobody's way.
fn nobody_reads(operation: &Operation, stage: Stage) -> Result<(), String> {
    let Stage {
        memory,
        tx,
        readers,
        window: _window,
    } = stage;
    readers.into_iter().for_each(Consumer::abort);
    let mut tx = match tx {
        Some(tx) => tx,
        None => memory.producer()?,
    };
    tx.push(FRESH, LONG)?;
    let run = take(&mut *memory.consumer()?, 1000)?;
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

/// One more consumer, where there may be one.
fn comes(kind: &Kind, memory: &dyn Memory) -> Result<Option<Box<dyn Consumer>>, String> {
    match kind.flow {
        Flow::Taken => Ok(None),
        Flow::Seen | Flow::Overtaken => memory.consumer().map(Some),
    }
}

/// The first number that no operation passes.
const FRESH: u64 = 1000;

/// The most that an operation reserves.
const RESERVED: u64 = 3;

/// How a consumer came to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It was there when the victim was killed, behind all that was passed.
    Stood,
    /// It has come since, and begins at the oldest.
    Came,
}

/// What a consumer read, and how much it was told that it had lost.
#[derive(Debug, Default)]
struct Run {
    lost: u64,
    numbers: Vec<u64>,
}

/// Whether it may find that. `tail` is where the others found the end, who find the same.
fn allowed(
    kind: &Kind,
    operation: &Operation,
    place: Place,
    run: &Run,
    tail: &mut Option<u64>,
) -> Result<(), String> {
    let numbers = &run.numbers;
    let may = match kind.flow {
        Flow::Taken => operation.allows(numbers) && run.lost == 0,
        Flow::Seen | Flow::Overtaken => {
            let gives_up = |held: u64| match kind.flow {
                Flow::Overtaken => (held + RESERVED).saturating_sub(kind.kept),
                _ => 0,
            };
            let stood = operation.passed + run.lost;
            let first = match (numbers.first(), place) {
                (Some(first), Place::Came) => *first,
                // All was given up: it came behind the last.
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

/// What was there comes first, in order, and the end of its producer if that finished; then what comes
/// now.
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
            match rx.pop(Duration::ZERO)? {
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
        if *ends != usize::from(finished) {
            return Err(format!("told of {ends} ends, while finished is {finished}"));
        }
        allowed(kind, operation, *place, run, &mut tail)?;
    }
    Ok(())
}

/// All that is there, to the end of its producer, which must come.
fn drain(rx: &mut dyn Consumer) -> Result<(Run, Ending), String> {
    let mut run = Run::default();
    loop {
        match rx.pop(LONG)? {
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

/// At most so many.
fn take(rx: &mut dyn Consumer, most: u64) -> Result<Run, String> {
    let mut run = Run::default();
    while (run.numbers.len() as u64) < most {
        match rx.pop(Duration::ZERO)? {
            Given::Message(number) => run.numbers.push(number),
            Given::Lost(lost) => run.lost += lost,
            Given::Nothing | Given::Ended(_) => break,
        }
    }
    Ok(run)
}

/// A message that all of them read.
fn pass(number: u64, tx: &mut dyn Producer, readers: &mut Readers) -> Result<(), String> {
    tx.push(number, LONG)?;
    readers
        .iter_mut()
        .try_for_each(|rx| read(number, &mut **rx))
}

fn read(number: u64, rx: &mut dyn Consumer) -> Result<(), String> {
    match rx.pop(LONG)? {
        Given::Message(found) if found == number => Ok(()),
        other => Err(format!("expected {number}, found {other:?}")),
    }
}

/// The channel works as ever, three times around: slots are conserved, and once all is done nobody is
/// taken for asleep, who would cost the others a system call a message for ever, nor waited for who is gone.
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
        burst.clone().try_for_each(|number| tx.push(number, LONG))?;
        for rx in readers.iter_mut() {
            burst
                .clone()
                .try_for_each(|number| read(number, &mut **rx))?;
        }
    }
    let room = tx.room()?;
    if room != kind.capacity {
        return Err(format!("room for {room} of {}", kind.capacity));
    }
    let image = window.look();
    let members = match kind.flow {
        Flow::Seen => readers.len() as u32,
        Flow::Taken | Flow::Overtaken => 0,
    };
    if image.word(MEMBERS).count_ones() != members {
        return Err(format!("members {:x}, of {members}", image.word(MEMBERS)));
    }
    // Where there are several consumers, nobody knows which of them has no barrier: that stays.
    let stays = if kind.readers > 1 { FENCED } else { 0 };
    match [0, 1].map(|side| image.word(BELLS + side * LINE)) {
        [0, consumers] if consumers & !stays == 0 => Ok(()),
        waiters => Err(format!(
            "nobody waits, and the waiters words are {waiters:x?}"
        )),
    }
}

//! Imitates a peer that lies: sets any word of a channel's memory, control and data, to anything.
//!
//! *At rest*: a word is changed, then the present ends and the new ones do all that they can.
//! *Live*: words are changed while two honest processes pass messages. At intervals the memory is
//! made whole, and messages must pass again.
//!
//! Honest workers answer with messages or typed errors. A panic, a signal, or a timed call that
//! does not end, ends this program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use slipring::{Geometry, Role};
use slipring_core::layout::{GATING_SET, LINE, WAIT_CELLS};
use slipring_testkit::{Handle, Memory, TakenConsumer, TakenProducer};

use crate::Args;
use crate::honest::{Honest, SHORT};
use crate::image::{Image, Window};
use crate::kinds::{self, Kind, Readers, pop, producer, push, words};
use crate::operations::{consume, produce};
use crate::walls::{Flush, Walled};

/// A timed call has ended by then, whatever else this machine does.
pub(crate) const LATE: Duration = Duration::from_secs(20);

/// A small generator (xorshift64*, Vigna 2014): it gives the same lies for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }
}

/// One word, and its new value.
pub(crate) struct Lie {
    pub(crate) part: usize,
    pub(crate) offset: usize,
    pub(crate) value: u64,
}

impl Lie {
    /// Chooses another value for some word. Nearly all control words are zero and mean nothing, so
    /// words with a meaning are chosen more often.
    fn tell(random: &mut Random, image: &Image) -> Lie {
        let part = usize::from(random.below(4) == 0);
        let len = image.len(part);
        let mut offset = random.below(len / 8) * 8;
        if part == 0 && random.below(4) != 0 {
            let bells = [0, 8, 16, LINE, LINE + 8, LINE + 16].map(|word| WAIT_CELLS + word);
            let meant = |at: &usize| bells.contains(at) || *at == GATING_SET;
            let used: Vec<usize> = (WAIT_CELLS..len)
                .step_by(8)
                .filter(|at| image.word_of(part, *at) != 0 || meant(at))
                .collect();
            offset = used[random.below(used.len())];
        }
        let old = image.word_of(part, offset);
        let value = match random.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => old.wrapping_add(1),
            3 => old.wrapping_sub(1),
            4 => 1 << 63,
            5 => random.next(),
            6 => old.wrapping_add(random.next() % 4096),
            _ => old ^ 1 << random.below(64),
        };
        Lie {
            part,
            offset,
            value,
        }
    }
}

impl std::fmt::Display for Lie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = ["control", "data"][self.part];
        write!(f, "{part} at {} = {:#x}", self.offset, self.value)
    }
}

/// The place of a channel's memory: in sealed memfds of slipring's own making, or between walls.
pub(crate) type Place = Option<Flush>;

/// Tells `lies` lies at rest, and a hundredth of that live, for each kind in each place.
pub(crate) fn main(args: &Args, lies: u64) -> ExitCode {
    println!(
        "| kind | memory | lies at rest | found corrupt | lies told live | messages meanwhile |"
    );
    println!("|---|---|---|---|---|---|");
    each(args, |kind, place| {
        let errors = at_rest(kind, place, lies, args.seed)?;
        let told = args.live.unwrap_or(lies / 100);
        let messages = live(kind, place, told, args.seed)?;
        Ok(format!("{lies} | {errors} | {told} | {messages}"))
    })
}

/// Prints a row for each wanted kind in each place.
pub(crate) fn each(
    args: &Args,
    figures: impl Fn(&Kind, Place) -> Result<String, String>,
) -> ExitCode {
    let places: &[Place] = match args.walls {
        true => &[Some(Flush::Front), Some(Flush::Back)],
        false => &[None],
    };
    let mut failed = false;
    for kind in kinds::all().iter().filter(|kind| args.wants(kind.name)) {
        for place in places {
            let name = format!("`{}` | {}", kind.name, shown(*place));
            match figures(kind, *place) {
                Ok(figures) => println!("| {name} | {figures} |"),
                Err(error) => {
                    println!("| {name} | **failed** | {error} | | |");
                    eprintln!("{name}: {error}");
                    failed = true;
                }
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

fn shown(place: Place) -> &'static str {
    match place {
        None => "memfds",
        Some(Flush::Front) => "flush with a wall in front",
        Some(Flush::Back) => "flush with a wall behind",
    }
}

/// A channel, those of its descriptors that others need, and a view of its memory.
struct Scenario {
    memory: Box<dyn Memory>,
    passed: Vec<OwnedFd>,
    walled: Option<Walled>,
    window: Window,
}

impl Scenario {
    fn set(kind: &Kind, place: Place) -> Result<Scenario, String> {
        let Some(flush) = place else {
            let memory = kind.maker.memfd().map_err(words)?;
            let passed = memory.descriptors();
            let window = Window::open(&passed)?;
            return Ok(Scenario {
                passed: copies(&passed)?,
                walled: None,
                memory,
                window,
            });
        };
        let walled = Walled::new(kind.maker.lens(), flush)?;
        let files = walled.files.each_ref().map(AsFd::as_fd);
        Ok(Scenario {
            memory: kind.within(&walled, true)?,
            window: Window::within(&walled),
            passed: copies(&files)?,
            walled: Some(walled),
        })
    }

    /// Attaches to the channel as a new process would now.
    fn attach(&self, kind: &Kind) -> kinds::Made {
        match &self.walled {
            Some(walled) => kind.within(walled, false),
            None => {
                let passed: Vec<_> = self.passed.iter().map(AsFd::as_fd).collect();
                kind.maker.passed(copies(&passed)?).map_err(words)
            }
        }
    }
}

/// Returns the number of lies that were found corrupt. The others changed a message, or nothing
/// that counts.
fn at_rest(kind: &Kind, place: Place, lies: u64, seed: u64) -> Result<u64, String> {
    let mut random = Random(seed | 1);
    let mut rest = Rest::set(kind, place)?;
    let mut errors = 0;
    for number in 0..lies {
        let lie = Lie::tell(&mut random, &rest.pristine);
        let also = [random.next() as usize, random.next() as usize];
        let whom = match number % 2 {
            0 => Whom::There,
            _ => Whom::Sitting,
        };
        let answer = rest.tell(&lie, whom, also);
        let answer = answer.map_err(|error| format!("lie {number} {error}"))?;
        errors += u64::from(answer != Answer::Well);
    }
    Ok(errors)
}

/// The ends to which a lie is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The ends that already hold their seats.
    There,
    /// The ends that have attached, and take their seats after the lie.
    Sitting,
    /// The ends that attach after the lie.
    Attaching,
}

/// The effect of a lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It changed a message, or nothing that counts.
    Well,
    /// An end found the channel corrupt.
    Corrupt,
    /// A new end did not attach.
    Refused,
}

/// A channel at rest, with a few messages on the way. It is made whole again before each lie.
pub(crate) struct Rest<'k> {
    kind: &'k Kind,
    scenario: Scenario,
    pub(crate) pristine: Image,
    /// The operations of each side.
    acts: [Vec<&'static str>; 2],
}

impl Rest<'_> {
    pub(crate) fn set(kind: &Kind, place: Place) -> Result<Rest<'_>, String> {
        let scenario = Scenario::set(kind, place)?;
        // This moves the positions away from zero.
        let (mut tx, mut readers) = (
            producer(&*scenario.memory)?,
            kind.readers(&*scenario.memory)?,
        );
        for number in 0..6 {
            push(&mut *tx, number, Duration::ZERO)?;
            for rx in readers.iter_mut().filter(|_| number < 4) {
                pop(&mut **rx, Duration::ZERO)?;
            }
        }
        tx.abort();
        readers.into_iter().for_each(Handle::abort);
        Ok(Rest {
            kind,
            pristine: scenario.window.look(),
            scenario,
            acts: [Role::Producer, Role::Consumer].map(|role| acts(kind, role)),
        })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.scenario.memory.geometry()
    }

    /// Tells a lie. Then each side does all its permanent operations, and one more, chosen by
    /// number.
    pub(crate) fn tell(
        &mut self,
        lie: &Lie,
        whom: Whom,
        also: [usize; 2],
    ) -> Result<Answer, String> {
        let also = [0, 1].map(|side| self.acts[side][also[side] % self.acts[side].len()]);
        let sit = |memory: &dyn Memory| {
            let readers = (0..self.kind.readers).map(|_| memory.consumer());
            (memory.producer(), readers.collect())
        };
        let Scenario { window, memory, .. } = &mut self.scenario;
        window.put(&self.pristine);
        let begun = Instant::now();
        let there = (whom == Whom::There).then(|| sit(&**memory));
        window.set(lie.part, lie.offset, lie.value);
        let (tx, readers) = match (there, whom) {
            (Some(there), _) => there,
            (None, Whom::Attaching) => match self.scenario.attach(self.kind) {
                Ok(memory) => sit(&*memory),
                Err(_) => return Ok(Answer::Refused),
            },
            (None, _) => sit(&**memory),
        };
        let answer = match use_all(self.kind, tx, readers, also) {
            true => Answer::Corrupt,
            false => Answer::Well,
        };
        if begun.elapsed() > LATE {
            return Err(format!("({lie}) made a timed call late"));
        }
        Ok(answer)
    }
}

/// Duplicates the descriptors.
pub(crate) fn copies(descriptors: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>, String> {
    let copied: std::io::Result<Vec<_>> = descriptors
        .iter()
        .map(BorrowedFd::try_clone_to_owned)
        .collect();
    copied.map_err(|error| error.to_string())
}

/// Returns the operations of handles of a kind.
fn acts(kind: &Kind, role: Role) -> Vec<&'static str> {
    let others = ["take", "attach", "leave", "abort"];
    let of_side = kind.operations.iter().filter(|act| act.role == role);
    let names = of_side.map(|act| act.name);
    names
        .filter(|name| !others.contains(name) && !name.starts_with("join"))
        .collect()
}

/// Does the permanent operations of all ends, and one more of each, a few times. Returns `true` if
/// any of them found the channel corrupt.
fn use_all(kind: &Kind, tx: TakenProducer, readers: Vec<TakenConsumer>, also: [&str; 2]) -> bool {
    let mut corrupt = false;
    let mut says = |answer: Result<(), String>| {
        corrupt |= answer.is_err_and(|error| error.contains("corrupt"));
    };
    let mut tx = tx.map_err(|error| says(Err(words(error)))).ok();
    let come = readers.into_iter();
    let mut readers: Readers = come
        .filter_map(|rx| rx.map_err(|error| says(Err(words(error)))).ok())
        .collect();
    for round in 0..2 {
        if let Some(tx) = &mut tx {
            says(push(&mut **tx, 100 + round, Duration::ZERO));
            says(tx.try_room(kind.all).map(drop).map_err(words));
            says(kind.arm(&mut **tx));
            says(produce(kind, &mut **tx, also[0], 200, Duration::ZERO));
        }
        for rx in &mut readers {
            says(pop(&mut **rx, Duration::ZERO).map(drop));
            says(kind.arm(&mut **rx));
            says(consume(kind, &mut **rx, also[1], 0, Duration::ZERO));
        }
    }
    if let Some(tx) = tx {
        tx.abort();
    }
    readers.into_iter().for_each(Handle::abort);
    corrupt
}

/// Returns the number of messages that passed between two honest processes while `lies` lies were
/// told.
fn live(kind: &Kind, place: Place, lies: u64, seed: u64) -> Result<u64, String> {
    let mut random = Random(seed.rotate_left(32) | 1);
    let Scenario {
        memory: _memory,
        passed,
        mut window,
        ..
    } = Scenario::set(kind, place)?;
    let pristine = window.look();
    let mut peers = vec![Honest::start(kind, place, &passed, "producer")?];
    for _ in 0..kind.readers {
        peers.push(Honest::start(kind, place, &passed, "consumer")?);
    }
    // The workers answer once they have attached: a header that lies is refused, and rightly.
    for peer in &mut peers {
        peer.passed()?;
    }
    for number in 0..lies {
        let now = window.look();
        let lie = Lie::tell(&mut random, &now);
        window.set(lie.part, lie.offset, lie.value);
        // The wait lets some tens of messages pass: mostly long enough for a worker to meet the
        // lie.
        for _ in 0..random.below(2000) {
            std::hint::spin_loop();
        }
        let about = |error: String| format!("lie {number} ({lie}): {error}");
        for peer in &mut peers {
            peer.is_alive().map_err(about)?;
        }
        if number % 16 == 15 {
            heal(&mut window, &pristine, &mut peers).map_err(about)?;
        }
    }
    heal(&mut window, &pristine, &mut peers)?;
    peers[1..].iter_mut().map(Honest::passed).sum()
}

/// Makes the memory whole, and waits until messages pass.
fn heal(window: &mut Window, pristine: &Image, peers: &mut [Honest]) -> Result<(), String> {
    let begun = Instant::now();
    let passed = |peers: &mut [Honest]| -> Result<Vec<u64>, String> {
        peers[1..].iter_mut().map(Honest::passed).collect()
    };
    let before = passed(peers)?;
    loop {
        // The seats' lines are restored as well: their holders find them strange, report that, and
        // take their seats anew. The loop repeats this, because a holder that is in the middle of
        // an operation stores its position after it.
        window.put_live(pristine);
        let put = Instant::now();
        while put.elapsed() < 100 * SHORT {
            for peer in peers.iter_mut() {
                peer.is_alive()?;
            }
            let now = passed(peers)?;
            if now.iter().zip(&before).all(|(now, then)| *now > then + 100) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        if begun.elapsed() > LATE {
            let said: Result<Vec<_>, _> = peers.iter_mut().map(Honest::says).collect();
            return Err(format!(
                "no message passes, though the memory is whole again: {:?}",
                said?
            ));
        }
    }
}

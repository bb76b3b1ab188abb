//! A peer that lies: any word of a channel's memory, control and data, set to anything.
//!
//! *At rest*: a word is changed, then whoever is there, and whoever comes, does all that it can. *Live*: words
//! are changed while two honest processes pass messages; after every so many the memory is made whole, and
//! messages must pass again.
//!
//! Honest parties answer with messages or typed errors: a panic, a signal, or a timed call that does not
//! end ends this program.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use slipring_core::layout::{BELLS, LINE, MEMBERS};

use crate::Args;
use crate::honest::{Honest, SHORT};
use crate::image::{Image, Window};
use crate::kinds::{self, Kind, Memory, Side};
use crate::walls::{Flush, Walled};

/// A timed call has ended by then, whatever else this machine does.
pub(crate) const LATE: Duration = Duration::from_secs(20);

/// A small generator (xorshift64*, Vigna 2014): the same lies for the same seed.
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

/// One word, and what it is made.
struct Lie {
    part: usize,
    offset: usize,
    value: u64,
}

impl Lie {
    /// Another value for some word. Of control nearly all words are zero and mean nothing: those that do
    /// are taken more often.
    fn tell(random: &mut Random, image: &Image) -> Lie {
        let part = usize::from(random.below(4) == 0);
        let len = image.len(part);
        let mut offset = random.below(len / 8) * 8;
        if part == 0 && random.below(4) != 0 {
            let bells = [0, 8, 16, LINE, LINE + 8, LINE + 16].map(|word| BELLS + word);
            let meant = |at: &usize| bells.contains(at) || *at == MEMBERS;
            let used: Vec<usize> = (BELLS..len)
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

/// Where a channel's memory lies: in sealed memfds of slipring's own making, or between walls.
pub(crate) type Place = Option<Flush>;

/// So many lies at rest, and a hundredth of that live, for each kind in each place.
pub(crate) fn main(args: &Args, lies: u64) -> ExitCode {
    println!(
        "| kind | memory | lies at rest | found corrupt | lies told live | messages meanwhile |"
    );
    println!("|---|---|---|---|---|---|");
    let places: &[Place] = match args.walls {
        true => &[Some(Flush::Front), Some(Flush::Back)],
        false => &[None],
    };
    let mut failed = false;
    for kind in kinds::all().iter().filter(|kind| args.wants(kind.name)) {
        for place in places {
            let name = format!("`{}` | {}", kind.name, shown(*place));
            let found = at_rest(kind, *place, lies, args.seed).and_then(|errors| {
                let told = args.live.unwrap_or(lies / 100);
                let messages = live(kind, *place, told, args.seed)?;
                Ok(format!("{lies} | {errors} | {told} | {messages}"))
            });
            match found {
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
struct Scene {
    memory: Box<dyn Memory>,
    passed: Vec<OwnedFd>,
    window: Window,
}

impl Scene {
    fn set(kind: &Kind, place: Place) -> Result<Scene, String> {
        let Some(flush) = place else {
            let memory = kind.maker.memfd()?;
            let passed = memory.descriptors();
            let window = Window::open(&passed)?;
            let own = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned();
            let passed: std::io::Result<_> = passed.iter().map(own).collect();
            return Ok(Scene {
                passed: passed.map_err(|error| error.to_string())?,
                memory,
                window,
            });
        };
        let walled = Walled::new(kind.maker.lens(), flush)?;
        Ok(Scene {
            memory: kind.maker.within(&walled, true)?,
            window: Window::within(&walled),
            passed: walled.files.into(),
        })
    }
}

/// How many of the lies were found corrupt; the others changed nothing that counts, or a message.
fn at_rest(kind: &Kind, place: Place, lies: u64, seed: u64) -> Result<u64, String> {
    let mut random = Random(seed | 1);
    let Scene {
        memory, mut window, ..
    } = Scene::set(kind, place)?;
    // A few messages on the way, so that positions are not zero.
    let (mut tx, mut readers) = (memory.producer()?, kind.readers(&*memory)?);
    for number in 0..6 {
        tx.push(number, Duration::ZERO)?;
        for rx in readers.iter_mut().filter(|_| number < 4) {
            rx.pop(Duration::ZERO)?;
        }
    }
    tx.abort();
    readers.into_iter().for_each(kinds::Consumer::abort);
    let pristine = window.look();
    let come = || (0..kind.readers).map(|_| memory.consumer()).collect();
    let acts = [Side::Producer, Side::Consumer].map(|side| acts(kind, side));
    let mut errors = 0;
    for number in 0..lies {
        window.put(&pristine);
        let lie = Lie::tell(&mut random, &pristine);
        let also = [&acts[0], &acts[1]].map(|acts| acts[random.below(acts.len())]);
        let begun = Instant::now();
        // Half of them come before the lie, half after.
        let answers = if number % 2 == 0 {
            let (tx, readers) = (memory.producer(), come());
            window.set(lie.part, lie.offset, lie.value);
            use_all(tx, readers, also)
        } else {
            window.set(lie.part, lie.offset, lie.value);
            use_all(memory.producer(), come(), also)
        };
        errors += u64::from(answers);
        if begun.elapsed() > LATE {
            return Err(format!("lie {number} ({lie}) made a timed call late"));
        }
    }
    Ok(errors)
}

type Taken<H> = Result<Box<H>, String>;

/// The operations of handles of a kind.
fn acts(kind: &Kind, side: Side) -> Vec<&'static str> {
    let others = ["take", "attach", "leave", "abort"];
    let of_side = kind.operations.iter().filter(|act| act.side == side);
    let names = of_side.map(|act| act.name);
    names
        .filter(|name| !others.contains(name) && !name.starts_with("join"))
        .collect()
}

/// What all ends can always be asked, and one operation more of each, a few times. Whether any of them found
/// the channel corrupt.
fn use_all(
    tx: Taken<dyn kinds::Producer>,
    readers: Vec<Taken<dyn kinds::Consumer>>,
    also: [&str; 2],
) -> bool {
    let mut corrupt = false;
    let mut says = |answer: Result<(), String>| {
        corrupt |= answer.is_err_and(|error| error.contains("corrupt"));
    };
    let mut tx = tx.map_err(|error| says(Err(error))).ok();
    let come = readers.into_iter();
    let mut readers: kinds::Readers = come
        .filter_map(|rx| rx.map_err(|error| says(Err(error))).ok())
        .collect();
    for round in 0..2 {
        if let Some(tx) = &mut tx {
            says(tx.push(100 + round, Duration::ZERO));
            says(tx.room().map(drop));
            says(tx.arm());
            says(kinds::produce(&mut **tx, also[0], 200, Duration::ZERO));
        }
        for rx in &mut readers {
            says(rx.pop(Duration::ZERO).map(drop));
            says(rx.arm());
            says(kinds::consume(&mut **rx, also[1], Duration::ZERO));
        }
    }
    if let Some(tx) = tx {
        tx.abort();
    }
    readers.into_iter().for_each(kinds::Consumer::abort);
    corrupt
}

/// The messages that passed between two honest processes while so many lies were told.
fn live(kind: &Kind, place: Place, lies: u64, seed: u64) -> Result<u64, String> {
    let mut random = Random(seed.rotate_left(32) | 1);
    let Scene {
        memory: _memory,
        passed,
        mut window,
    } = Scene::set(kind, place)?;
    let pristine = window.look();
    let mut peers = vec![Honest::start(kind, place, &passed, "producer")?];
    for _ in 0..kind.readers {
        peers.push(Honest::start(kind, place, &passed, "consumer")?);
    }
    // They answer once they have attached: a header that lies is refused, and rightly.
    for peer in &mut peers {
        peer.passed()?;
    }
    for number in 0..lies {
        let now = window.look();
        let lie = Lie::tell(&mut random, &now);
        window.set(lie.part, lie.offset, lie.value);
        // Long enough for somebody to meet it, most of the time: some tens of messages.
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
        // The seats' lines as well: their holders find them strange, say so, and sit down anew. Again and
        // again: a holder that is in the middle of something stores its position after it.
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

//! Workers are killed at random while they run a command for each item: every item is run, and what is
//! run again says how often it was delivered before.
//!
//! `SLIPRING_WORK_ITEMS` is the number of items, by default 1000.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;

use common::{Place, Running, noise, until};
use rustix::process::Signal;
use serde_json::Value;

/// The number of workers at the same time, and of the commands that each may run.
const WORKERS: usize = 4;
const JOBS: usize = 2;

/// The items between two kills from outside.
const KILL_EVERY: usize = 25;

/// The command writes its begin, with its worker's number, and its end. At the first delivery of an
/// item that ends with 77, it kills its worker in between.
const SCRIPT: &str = r#"
echo "begin $1 $SLIPRING_DELIVERIES $3" >> "$2"
case $SLIPRING_DELIVERIES,$1 in 0,*77) kill -9 $PPID;; esac
echo "end $1" >> "$2"
"#;

/// The workers, and the log of their commands.
struct Crew {
    place: Place,
    log: Log,
    /// Each with its number: they are counted as they come.
    workers: Vec<(usize, Running)>,
    started: usize,
}

impl Crew {
    fn start_worker(&mut self) -> (usize, Running) {
        let (number, jobs) = (self.started, format!("-j{JOBS}"));
        self.started += 1;
        let log = self.log.path.to_str().unwrap();
        let args = ["work", "jobs", &jobs, "--json", "--"];
        let command = ["sh", "-c", SCRIPT, "sh", "{}", log, &number.to_string()];
        let mut work = self.place.command(&[&args[..], &command].concat());
        (number, Running::start(work.stdout(Stdio::piped())))
    }

    /// Puts another worker in the place of each that was killed.
    fn replace_killed(&mut self) {
        for index in 0..self.workers.len() {
            let worker = &mut self.workers[index].1;
            if !worker.is_running() {
                assert_eq!(worker.code(), None, "{}", worker.stderr());
                self.workers[index] = self.start_worker();
            }
        }
    }

    /// Waits until every worker holds its seats.
    fn until_seated(&mut self) {
        until("all workers are there", || {
            self.replace_killed();
            let stat = self.place.stat("jobs").unwrap();
            let seats = stat["consumers"].as_array().unwrap().iter();
            seats.filter(|seat| seat["state"] == "held").count() == WORKERS * JOBS
        });
    }
}

/// The lines that the commands wrote.
struct Log {
    path: PathBuf,
    lines: Vec<String>,
    /// The bytes of the file that were read.
    read: u64,
    /// The items whose command came to its end.
    ended: BTreeSet<usize>,
}

impl Log {
    fn new(path: PathBuf) -> Log {
        File::create(&path).unwrap();
        Log {
            path,
            lines: Vec::new(),
            read: 0,
            ended: BTreeSet::new(),
        }
    }

    /// Reads the lines that are new, and returns the number of items whose command came to its end.
    fn look(&mut self) -> usize {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let new = std::io::read_to_string(file).unwrap();
        for line in new
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            self.read += line.len() as u64;
            let line = line.trim_end();
            let end = line.strip_prefix("end ");
            self.ended
                .extend(end.map(|item| item.parse::<usize>().unwrap()));
            self.lines.push(line.to_string());
        }
        self.ended.len()
    }
}

/// Each run of an item after its first is marked, and the survivors report as many redelivered items as
/// they ran marked ones.
#[test]
fn killed_workers_lose_no_item() {
    let items = std::env::var("SLIPRING_WORK_ITEMS");
    let items: usize = items.map_or(1000, |items| items.parse().unwrap());
    let place = Place::new();
    let input = place.file("input");
    let lines: String = (0..items).map(|number| format!("{number}\n")).collect();
    fs::write(&input, lines).unwrap();
    // This feeder keeps the stream open until the last worker has come.
    let mut open = place.send_open(&["jobs", "--queue", "--lines", "--items", "64"]);
    let mut feeder = place.send(&["jobs", "--queue", "--lines"], &input);
    let mut crew = Crew {
        log: Log::new(place.file("log")),
        place,
        workers: Vec::new(),
        started: 0,
    };
    for _ in 0..WORKERS {
        let worker = crew.start_worker();
        crew.workers.push(worker);
    }
    let mut random = noise(items, 7).into_iter();
    for goal in (KILL_EVERY..=items).step_by(KILL_EVERY).chain([items]) {
        until("more items are done", || {
            crew.replace_killed();
            crew.log.look() >= goal
        });
        let victim = usize::from(random.next().unwrap()) % WORKERS;
        crew.workers[victim].1.signal(Signal::KILL);
        assert_eq!(crew.workers[victim].1.code(), None);
        crew.replace_killed();
    }
    crew.until_seated();
    assert_eq!(feeder.code(), Some(0), "{}", feeder.stderr());
    drop(open.0.stdin.take());
    assert_eq!(open.code(), Some(0), "{}", open.stderr());
    let mut reported = BTreeMap::new();
    for (number, worker) in &mut crew.workers {
        assert_eq!(worker.code(), Some(0), "{}", worker.stderr());
        let figures: Value = serde_json::from_reader(worker.0.stdout.take().unwrap()).unwrap();
        let count = |what: &str| figures[what].as_u64().unwrap() as usize;
        assert_eq!((count("failed"), count("given_back")), (0, 0));
        reported.insert(*number, (count("done"), count("redelivered")));
    }
    crew.log.look();
    check(&crew, items, &reported);
}

/// Compares the log with the figures that the surviving workers reported.
fn check(crew: &Crew, items: usize, reported: &BTreeMap<usize, (usize, usize)>) {
    // For each item, `true` for each run that was marked.
    let mut runs: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    let mut by_worker: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for line in &crew.log.lines {
        if let Some((item, marked, worker)) = begin(line) {
            runs.entry(item).or_default().push(marked);
            let (all, redelivered) = by_worker.entry(worker).or_default();
            *all += 1;
            *redelivered += usize::from(marked);
        }
    }
    assert_eq!(
        runs.keys().copied().collect::<Vec<_>>(),
        (0..items).collect::<Vec<_>>()
    );
    let run_again = |runs: &Vec<bool>| runs[1..].iter().all(|marked| *marked);
    assert!(
        runs.values().all(run_again),
        "an item came twice, and was not marked"
    );
    for (worker, figures) in reported {
        assert_eq!(by_worker.get(worker).copied().unwrap_or_default(), *figures);
    }
    let killers = (0..items).filter(|item| item % 100 == 77).count();
    let twice = runs.values().filter(|runs| runs.len() > 1).count();
    let marked = runs.values().flatten().filter(|marked| **marked).count();
    // A worker that is killed between taking an item and starting its command leaves an item that
    // begins once, and marked.
    let begun_marked = runs.values().filter(|runs| runs[0]).count();
    let again: usize = runs.values().map(|runs| runs.len() - 1).sum();
    assert_eq!(again + begun_marked, marked);
    println!(
        "{items} items, {} workers killed ({killers} by commands), {twice} items begun again, {marked} marked, \
         {begun_marked} of them begun once",
        crew.started - WORKERS,
    );
    assert!(twice > 0);
}

/// Returns the item, the mark and the worker of a line that a command wrote at its begin.
fn begin(line: &str) -> Option<(usize, bool, usize)> {
    let mut words = line.strip_prefix("begin ")?.split(' ');
    let mut number = || words.next()?.parse().ok();
    Some((number()?, number()? > 0, number()?))
}

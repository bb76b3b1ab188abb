//! Decides the order of runs: rounds that alternate between contenders, calibration, timeouts,
//! repeats.
//!
//! ```text
//! round 1:  case 1: A B C D   case 2: A B C   ...
//! round 2:  case 1: B C D A   case 2: B C A   ...
//! ```
//!
//! The machine drifts (frequency, neighbours). The contenders of a case run right after one another
//! in every round, and none always goes first. So drift reaches all of them alike.

use crate::Settings;
use crate::duel::Sample;
use crate::message::BATCH;
use crate::peers::About;
use crate::plan::Case;
use crate::steady::PROBE;
use crate::worker::{Order, read_sample};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// All measurements of one contender in one case.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// The number of messages in the next run: it follows the last one's speed.
    messages: u64,
    /// The samples in order, one for each round that gave one.
    pub samples: Vec<Timing>,
    /// The failures: a sentence for each run that gave no figure.
    pub failures: Vec<String>,
}

/// One sample, in the unit of its case.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Timing {
    /// Million messages a second, or nanoseconds a round trip.
    pub value: f64,
    /// `true` if, in every repeat, a thread lost its core for more than 3 % of the time, or the
    /// cores moved.
    pub disturbed: bool,
    /// The nanoseconds of a cache line to the other core and back, or `None` for one thread alone.
    pub line: Option<f64>,
    /// The number of messages on the clock.
    pub messages: u64,
    /// The number of messages that a reader missed, on average.
    pub lost: u64,
}

impl Figure {
    /// Returns the values that count: the undisturbed ones if they are at least half of all, else
    /// all.
    pub fn values(&self) -> Vec<f64> {
        let quiet = self.samples.len() - self.disturbed();
        let all = 2 * quiet < self.samples.len();
        self.samples
            .iter()
            .filter(|s| all || !s.disturbed)
            .map(|s| s.value)
            .collect()
    }

    /// Returns the number of disturbed samples.
    pub fn disturbed(&self) -> usize {
        self.samples.iter().filter(|s| s.disturbed).count()
    }
}

/// Every figure, by case and by contender's name.
pub type Figures = BTreeMap<Case, BTreeMap<&'static str, Figure>>;

/// The number of failures in one case after which a contender is not asked again.
const PATIENCE: usize = 2;
/// Below this share of processor time, a run of spinning threads counts as disturbed.
const ON_CORE: f64 = 0.97;
/// The factor of change in the cores' distance above which they have moved.
const MOVED: f64 = 1.4;

/// Measures all of `cases`, calling `progress` before each run.
pub fn measure(
    cases: &[Case],
    settings: &Settings,
    mut progress: impl FnMut(usize, Case, &About),
) -> std::io::Result<Figures> {
    let arena = Arena::new()?;
    let mut figures = Figures::new();
    for round in 0..settings.rounds {
        for &case in cases {
            let mut line_up: Vec<_> = case
                .contenders()
                .filter(|about| settings.invites(about))
                .collect();
            let first = round % line_up.len().max(1);
            line_up.rotate_left(first);
            for about in line_up {
                let figure = figures
                    .entry(case)
                    .or_default()
                    .entry(about.name)
                    .or_default();
                if figure.failures.len() < PATIENCE {
                    progress(round, case, about);
                    arena.one_run(case, about, settings, figure);
                }
            }
        }
    }
    Ok(figures)
}

/// The place where workers run: a directory on shared memory, swept after each.
struct Arena {
    dir: PathBuf,
    program: PathBuf,
    /// A lock, held for each run. Of two measurements at once, neither would be worth anything. In
    /// the real-time class each would wait for a thread that the other keeps from its core.
    turn: File,
}

impl Arena {
    fn new() -> std::io::Result<Self> {
        let name = format!("slipring-bench-{}", std::process::id());
        let arena = Self {
            dir: Path::new("/dev/shm").join(name),
            program: std::env::current_exe()?,
            turn: turn()?,
        };
        arena.sweep();
        arena.sweep_after_the_killed();
        Ok(arena)
    }

    /// Removes the directories of measurements that were killed.
    fn sweep_after_the_killed(&self) {
        for entry in Path::new("/dev/shm")
            .read_dir()
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name
                .strip_prefix("slipring-bench-")
                .and_then(|pid| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Adds one sample, or one failure, to `figure`.
    fn one_run(&self, case: Case, about: &About, settings: &Settings, figure: &mut Figure) {
        match self.try_run(case, about, settings, figure) {
            Ok(sample) => {
                let messages = figure.messages;
                let counted = sample.own.unwrap_or(sample.time).as_secs_f64();
                let value = if case.is_time() {
                    counted * 1e9 / messages as f64
                } else {
                    1e-6 * messages.saturating_sub(sample.lost) as f64 / counted
                };
                let disturbed = is_disturbed(about, &sample);
                let line = sample.line.map(|(before, after)| before.midpoint(after));
                figure.samples.push(Timing {
                    value,
                    disturbed,
                    line,
                    messages,
                    lost: sample.lost,
                });
                let seconds = sample.time.as_secs_f64() / messages as f64;
                figure.messages = whole_batches(settings.seconds / seconds);
            }
            Err(reason) => figure.failures.push(reason),
        }
    }

    fn try_run(
        &self,
        case: Case,
        about: &About,
        settings: &Settings,
        figure: &mut Figure,
    ) -> Result<Sample, String> {
        if figure.messages == 0 {
            figure.messages = self.calibrate(case, about, settings)?;
        }
        let (messages, probe) = (figure.messages, PROBE / settings.seconds);
        let probe = whole_batches(messages as f64 * probe);
        let mut best = self.once(case, about, settings, messages, probe)?;
        for _ in 0..settings.repeats {
            if !is_disturbed(about, &best) {
                break;
            }
            let again = self.once(case, about, settings, messages, probe)?;
            if !is_disturbed(about, &again) || again.on_core > best.on_core {
                best = again;
            }
        }
        Ok(best)
    }

    /// Returns the number of messages that this contender passes in the time that a run should
    /// last.
    fn calibrate(&self, case: Case, about: &About, settings: &Settings) -> Result<u64, String> {
        let mut messages = 4 * BATCH;
        loop {
            let sample = self.once(case, about, settings, messages, 0)?;
            let scale = settings.seconds / sample.time.as_secs_f64();
            // A tenth of the final length is long enough to trust; short runs mislead.
            let target = messages as f64
                * if scale <= 10.0 {
                    scale
                } else {
                    scale.min(50.0) / 2.0
                };
            messages = whole_batches(target);
            if scale <= 10.0 {
                return Ok(messages);
            }
        }
    }

    /// Starts one worker and waits for its sample.
    fn once(
        &self,
        case: Case,
        about: &About,
        settings: &Settings,
        messages: u64,
        probe: u64,
    ) -> Result<Sample, String> {
        let order = Order {
            case,
            contender: about.name.to_owned(),
            messages,
            probe,
            capacity: settings.capacity,
            ring_bytes: settings.ring_bytes,
            producer_core: settings.cores.0,
            consumer_core: settings.cores.1,
            dir: self.dir.clone(),
            urgent: settings.urgent,
        };
        self.sweep();
        self.turn
            .lock()
            .map_err(|e| format!("cannot wait for my turn: {e}"))?;
        let sample = self.run_worker(&order, settings.timeout);
        // If this fails, the lock goes with the process.
        let _ = self.turn.unlock();
        let sample = sample?;
        if sample.bad != 0 {
            Err("delivered wrong data".to_owned())
        } else if sample.lost > 0 && !case.may_lose() {
            Err(format!("lost {} messages", sample.lost))
        } else {
            Ok(sample)
        }
    }

    fn run_worker(&self, order: &Order, timeout: Duration) -> Result<Sample, String> {
        // The directory is for its owner alone, as slipring requires of a directory of channels.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&self.dir);
        made.map_err(|e| format!("{}: {e}", self.dir.display()))?;
        let child = Command::new(&self.program)
            .arg("worker")
            .args(order.to_args())
            .env("SLIPRING_DIR", &self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start a worker: {e}"))?;
        let line = answer(child, timeout)?;
        read_sample(&line).ok_or_else(|| format!("unreadable answer {line:?}"))
    }

    /// Removes the files that a run left, even a run that was killed.
    fn sweep(&self) {
        // Usually there is nothing to sweep, and a file that cannot be removed cannot be helped.
        let _ = std::fs::remove_dir_all(&self.dir);
        let (Some(shm), Some(name)) = (self.dir.parent(), self.dir.file_name()) else {
            return;
        };
        let name = name.to_string_lossy();
        for entry in shm.read_dir().into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{name}-"))
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.sweep();
    }
}

fn is_disturbed(about: &About, sample: &Sample) -> bool {
    let moved = sample
        .line
        .is_some_and(|(a, b)| a.max(b) > MOVED * a.min(b));
    moved || (about.spins && sample.on_core < ON_CORE)
}

/// Returns a number of messages, rounded up to whole batches.
fn whole_batches(messages: f64) -> u64 {
    (messages as u64).next_multiple_of(BATCH).max(BATCH)
}

/// Returns the figures once for each distance at which the cores were seen, the most frequent
/// first, with that distance in nanoseconds. Samples of one thread alone count at each.
///
/// The sorted distances are separated where they leave a gap of more than [`MOVED`]. A distance at
/// which less than a tenth of the samples was taken is left out.
pub fn by_distance(figures: &Figures) -> Vec<(f64, Figures)> {
    let samples = figures
        .values()
        .flat_map(|l| l.values())
        .flat_map(|f| &f.samples);
    let mut lines: Vec<f64> = samples
        .filter(|s| !s.disturbed)
        .filter_map(|s| s.line)
        .collect();
    lines.sort_by(f64::total_cmp);
    let mut groups: Vec<&[f64]> = lines.chunk_by(|a, b| *b <= MOVED * a).collect();
    groups.retain(|group| 10 * group.len() >= lines.len());
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    if groups.is_empty() {
        return vec![(f64::NAN, figures.clone())];
    }
    let taken_in = |group: &[f64]| {
        let (least, most) = (group[0], group[group.len() - 1]);
        let mut figures = figures.clone();
        for figure in figures.values_mut().flat_map(|l| l.values_mut()) {
            figure
                .samples
                .retain(|s| s.line.is_none_or(|line| (least..=most).contains(&line)));
        }
        for line_up in figures.values_mut() {
            line_up.retain(|_, figure| !figure.samples.is_empty() || !figure.failures.is_empty());
        }
        figures.retain(|_, line_up| line_up.values().any(|f| !f.samples.is_empty()));
        (group[group.len() / 2], figures)
    };
    groups.into_iter().map(taken_in).collect()
}

/// Opens the file that a measurement locks for each run.
pub fn turn() -> std::io::Result<File> {
    File::create(std::env::temp_dir().join("slipring-bench.lock"))
}

/// Returns the worker's output, or in one sentence the reason why it printed none.
pub fn answer(mut child: Child, timeout: Duration) -> Result<String, String> {
    let (tell, told) = channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || {
        // A pipe that cannot be read counts as empty; the exit status says the rest.
        let said = read_to_string(stdout).unwrap_or_default();
        let complained = read_to_string(stderr).unwrap_or_default();
        tell.send((said, complained))
    });
    let heard = told.recv_timeout(timeout);
    if heard.is_err() {
        // The child may have ended by itself at this moment; then there is nothing to kill.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| format!("lost the worker: {e}"))?;
    match heard {
        Err(_) => Err(format!("stalled, killed after {timeout:?}")),
        Ok((said, _)) if status.success() => Ok(said),
        Ok((_, complained)) => {
            let mut lines = complained.lines().rev();
            let last = lines.find(|l| !l.trim().is_empty() && !l.starts_with("note:"));
            Err(format!(
                "crashed ({status}): {}",
                last.unwrap_or("it said nothing")
            ))
        }
    }
}

fn read_to_string(pipe: Option<impl Read>) -> std::io::Result<String> {
    pipe.map_or(Ok(String::new()), std::io::read_to_string)
}

/// Writes a progress line on standard error, rewritten in place on a terminal.
pub fn show_progress(round: usize, rounds: usize, case: Case, about: &About) {
    let mut err = std::io::stderr().lock();
    // A progress line that cannot be written is no reason to stop.
    let _ = write!(
        err,
        "\r\x1b[Kround {}/{rounds}  {case}  {}",
        round + 1,
        about.name
    );
    let _ = err.flush();
}

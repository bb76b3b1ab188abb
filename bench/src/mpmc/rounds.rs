//! Decides the order of runs: in each round the contenders of a case run one after another, and each
//! round begins with another one. So a drift of the machine reaches all of them alike.

use super::Settings;
use super::peers;
use super::plan::Case;
use super::worker::{Order, Sample, read_sample};
use crate::redis;
use crate::referee::{answer, turn};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// All measurements of one contender in one case.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// The samples in order, one for each run that gave one.
    pub samples: Vec<Sample>,
    /// The failures: a sentence for each run that gave no figure.
    pub failures: Vec<String>,
}

impl Figure {
    /// Returns the median, the least and the greatest value, if there is any.
    pub fn spread(&self) -> Option<(f64, f64, f64)> {
        Self::of(self.samples.iter().map(|sample| sample.value))
    }

    /// Returns the same of the number of workers that woke for an item.
    pub fn woken(&self) -> Option<(f64, f64, f64)> {
        Self::of(self.samples.iter().filter_map(|sample| sample.woken))
    }

    /// Returns the same of the cores' distance.
    pub fn line(figures: &Figures) -> Option<(f64, f64, f64)> {
        let figures = figures.values().flat_map(|line_up| line_up.values());
        let samples = figures.flat_map(|figure| &figure.samples);
        Self::of(samples.filter_map(|sample| sample.line.map(|(a, b)| a.midpoint(b))))
    }

    fn of(values: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            values[middle - 1].midpoint(values[middle])
        };
        Some((median, least, most))
    }
}

/// Every figure, by case and by contender's name.
pub type Figures = BTreeMap<Case, BTreeMap<&'static str, Figure>>;

/// Returns the median of one contender in one case.
pub fn median(figures: &Figures, case: Case, name: &str) -> Option<f64> {
    let figure = figures.get(&case)?.get(name)?;
    figure.spread().map(|(median, ..)| median)
}

/// The number of failures in one case after which a contender is not asked again.
const PATIENCE: usize = 2;

/// Measures all of `cases`, calling `progress` before each run.
pub fn measure(
    cases: &[Case],
    settings: &Settings,
    mut progress: impl FnMut(usize, Case, &str),
) -> std::io::Result<Figures> {
    let track = Track {
        program: std::env::current_exe()?,
        turn: turn()?,
    };
    let mut figures = Figures::new();
    for run in 0..settings.runs {
        for &case in cases {
            let mut line_up: Vec<&'static str> = peers::contenders(case)
                .filter(|name| settings.invites(name))
                .collect();
            let first = run % line_up.len().max(1);
            line_up.rotate_left(first);
            for name in line_up {
                let figure = figures.entry(case).or_default().entry(name).or_default();
                if figure.failures.len() < PATIENCE {
                    progress(run, case, name);
                    match track.once(case, name, settings) {
                        Ok(sample) => figure.samples.push(sample),
                        Err(reason) => figure.failures.push(reason),
                    }
                }
            }
        }
    }
    Ok(figures)
}

/// The place where workers run.
struct Track {
    program: PathBuf,
    /// A lock, held for each run: two measurements at once take turns.
    turn: File,
}

impl Track {
    /// Starts one worker and waits for its sample.
    fn once(&self, case: Case, name: &str, settings: &Settings) -> Result<Sample, String> {
        if name == peers::redis::ABOUT.name {
            redis::installed()?;
        }
        let order = Order {
            case,
            contender: name.to_owned(),
            seconds: settings.seconds,
        };
        self.turn
            .lock()
            .map_err(|e| format!("cannot wait for my turn: {e}"))?;
        let child = Command::new(&self.program)
            .arg("mpmc-worker")
            .args(order.to_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start a worker: {e}"));
        let line = child.and_then(|child| {
            let pid = child.id();
            let line = answer(child, settings.timeout);
            // A worker that was killed leaves its server's directory; mostly there is none.
            let _ = std::fs::remove_dir_all(redis::directory(pid));
            line
        });
        // If this fails, the lock goes with the process.
        let _ = self.turn.unlock();
        let line = line?;
        read_sample(&line).ok_or_else(|| format!("unreadable answer {line:?}"))
    }
}

/// Writes a progress line on standard error, rewritten in place on a terminal.
pub fn show_progress(run: usize, runs: usize, case: Case, name: &str) {
    let mut err = std::io::stderr().lock();
    // A progress line that cannot be written is no reason to stop.
    let _ = write!(err, "\r\x1b[Krun {}/{runs}  {case}  {name}", run + 1);
    let _ = err.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let figure = |values: &[f64]| Figure {
            samples: values.iter().map(|&value| Sample::of(value)).collect(),
            failures: Vec::new(),
        };
        assert_eq!(figure(&[]).spread(), None);
        assert_eq!(figure(&[3.0, 1.0, 2.0]).spread(), Some((2.0, 1.0, 3.0)));
        assert_eq!(figure(&[4.0, 1.0, 2.0]).spread(), Some((2.0, 1.0, 4.0)));
    }
}

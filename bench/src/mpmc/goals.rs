//! Judges one run's figures by the Speed table of slipring's issue on work queues.
//!
//! Each row of the table becomes one verdict for each case that it mentions. A row whose figures were
//! not measured gives no verdict.

use super::peers::OURS;
use super::plan::{BATCH, CREWS, Case, Crew, JOB_CREWS, Part, Timed, WORKERS, cases};
use super::rounds::{Figure, Figures, median};
use serde::Serialize;

/// One requirement, and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The requirement in words.
    pub what: String,
    /// slipring's figure.
    pub ours: f64,
    /// The unit of both figures.
    pub unit: &'static str,
    /// The contender or case that slipring is measured against.
    pub against: String,
    /// The other's figure.
    pub theirs: f64,
    /// slipring's figure over the other's.
    pub ratio: f64,
    /// The bound on the ratio.
    pub bound: f64,
    /// `true` if the ratio must not be above the bound, instead of not below.
    pub at_most: bool,
    /// `true` if the ratio keeps the bound.
    pub pass: bool,
}

/// Returns all verdicts that the figures allow.
pub fn judge(figures: &Figures) -> Vec<Verdict> {
    let mut judge = Judge {
        figures,
        verdicts: Vec::new(),
    };
    judge.array_queue();
    judge.many_threads();
    judge.batches();
    judge.five_times("yep-coc", Part::Grid);
    judge.five_times("shaq", Part::Streams);
    judge.alone();
    judge.wakes();
    judge.redis();
    judge.verdicts
}

/// The most workers that may wake for an item, on average: one, and now and then one whose wait ended
/// by itself.
const WOKEN: f64 = 1.05;

struct Judge<'a> {
    figures: &'a Figures,
    verdicts: Vec<Verdict>,
}

/// Returns the case of a stream, one message at a time.
fn one(each: usize, size: usize, capacity: usize) -> Case {
    stream(each, size, 1, capacity)
}

fn stream(each: usize, size: usize, batch: usize, capacity: usize) -> Case {
    Case::Stream {
        crew: Crew::of(each),
        size,
        batch,
        capacity,
    }
}

impl Judge<'_> {
    fn array_queue(&mut self) {
        for (each, size, bound) in [(1, 8, 1.3), (1, 64, 1.5), (2, 8, 1.1), (2, 64, 1.5)] {
            for capacity in [1024, 4096] {
                self.beside(one(each, size, capacity), "ArrayQueue", bound);
            }
        }
        for capacity in [256, 32] {
            for each in [1, 2] {
                self.beside(one(each, 8, capacity), "ArrayQueue", 1.0);
            }
        }
    }

    /// Judges slipring against itself with fewer threads: no collapse.
    fn many_threads(&mut self) {
        for (each, bound) in [(4, 0.8), (8, 0.6)] {
            for size in [8, 64] {
                for capacity in [1024, 4096] {
                    let ours = self.median(one(each, size, capacity), OURS[0]);
                    let theirs = self.median(one(2, size, capacity), OURS[0]);
                    let what = format!("{}", one(each, size, capacity));
                    self.at_least(what, ours, ("its own 2+2", theirs), bound);
                }
            }
        }
    }

    fn batches(&mut self) {
        for (each, size, bound) in [(1, 8, 2.0), (1, 64, 1.8), (2, 8, 1.7), (2, 64, 1.5)] {
            for capacity in [1024, 4096] {
                let case = stream(each, size, BATCH, capacity);
                let theirs = self.best(one(each, size, capacity));
                self.at_least(
                    case.to_string(),
                    self.best(case),
                    ("its own one at a time", theirs),
                    bound,
                );
            }
        }
    }

    /// Judges slipring's better way against one peer in a part of the cases.
    fn five_times(&mut self, peer: &str, part: Part) {
        let few =
            |case: &Case| matches!(case, Case::Stream { crew, .. } if CREWS[..2].contains(crew));
        for case in cases(part).into_iter().filter(few) {
            let theirs = self.median(case, peer);
            self.at_least(case.to_string(), self.best(case), (peer, theirs), 5.0);
        }
    }

    fn alone(&mut self) {
        for (timed, bound) in [(Timed::Push, 0.8), (Timed::Pop, 0.95)] {
            let case = Case::Alone(timed);
            let ours = self.median(case, OURS[0]);
            let theirs = self.median(case, "ArrayQueue");
            self.at_most(case.to_string(), ours, ("ArrayQueue", theirs), bound);
        }
    }

    fn wakes(&mut self) {
        let ours = self.median(Case::Wake, OURS[0]);
        let futex = self.median(Case::Wake, "futex");
        self.at_most(Case::Wake.to_string(), ours, ("futex", futex), 1.15);

        let [few, many] = WORKERS;
        let case = Case::WakingPush(many);
        let ours = self.median(case, OURS[0]);
        let one = self.median(Case::WakingPush(few), OURS[0]);
        self.at_most(case.to_string(), ours, ("its own with 1", one), 1.3);

        let figure = self.figures.get(&case).and_then(|l| l.get(OURS[0]));
        let woken = figure.and_then(Figure::woken).map(|(median, ..)| median);
        let what = format!("{case}, workers that wake");
        self.at_most(what, woken, ("one", Some(1.0)), WOKEN);
        if let Some(last) = self.verdicts.last_mut().filter(|_| woken.is_some()) {
            last.unit = "workers";
        }
    }

    fn redis(&mut self) {
        for crew in JOB_CREWS {
            self.beside(Case::Jobs(crew), "Redis", 10.0);
        }
    }

    fn beside(&mut self, case: Case, peer: &str, bound: f64) {
        let ours = self.median(case, OURS[0]);
        let theirs = self.median(case, peer);
        self.at_least(case.to_string(), ours, (peer, theirs), bound);
    }

    fn median(&self, case: Case, name: &str) -> Option<f64> {
        median(self.figures, case, name)
    }

    /// Returns the rate of slipring's better way.
    fn best(&self, case: Case) -> Option<f64> {
        let rates = OURS.iter().filter_map(|name| self.median(case, name));
        rates.max_by(f64::total_cmp)
    }

    fn at_least(
        &mut self,
        what: String,
        ours: Option<f64>,
        other: (&str, Option<f64>),
        bound: f64,
    ) {
        self.verdict(what, ours, other, bound, false);
    }

    fn at_most(&mut self, what: String, ours: Option<f64>, other: (&str, Option<f64>), bound: f64) {
        self.verdict(what, ours, other, bound, true);
    }

    fn verdict(
        &mut self,
        what: String,
        ours: Option<f64>,
        (against, theirs): (&str, Option<f64>),
        bound: f64,
        at_most: bool,
    ) {
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return;
        };
        let ratio = ours / theirs;
        self.verdicts.push(Verdict {
            what,
            ours,
            unit: if at_most { "ns" } else { "M/s" },
            against: against.to_owned(),
            theirs,
            ratio,
            bound,
            at_most,
            pass: if at_most {
                ratio <= bound
            } else {
                ratio >= bound
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mpmc::worker::Sample;

    fn figure(value: f64) -> Figure {
        Figure {
            samples: vec![Sample::of(value)],
            failures: Vec::new(),
        }
    }

    /// A rate must not be below its bound, and a time must not be above it.
    #[test]
    fn rates_and_times_are_judged() {
        let mut figures = Figures::new();
        for (case, ours, theirs) in [
            (one(1, 8, 1024), 12.0, 10.0),
            (Case::Alone(Timed::Push), 7.0, 10.0),
        ] {
            let line_up = figures.entry(case).or_default();
            line_up.insert(OURS[0], figure(ours));
            line_up.insert("ArrayQueue", figure(theirs));
        }
        let verdicts = judge(&figures);
        let passes: Vec<_> = verdicts.iter().map(|v| (v.ratio, v.pass)).collect();
        assert_eq!(passes, [(1.2, false), (0.7, true)]);
    }
}

//! `slipring bench scarce`: measures waiting where processors are scarce. The cases are both ends
//! on one processor, busy strangers on all of them, and a consumer whose messages come slowly. Each
//! figure stands beside its peer's figure from the same run.

mod processes;
mod steady;
mod trips;

use rustix::thread::CpuSet;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::progress::Progress;
use crate::text;

/// One figure beside its peer's.
struct Row {
    /// The row's name for programs, in snake_case.
    key: String,
    /// The row's name for people.
    name: String,
    unit: Unit,
    ours: f64,
    /// The peer's name and figure.
    peer: (&'static str, f64),
    wanted: Wanted,
}

#[derive(Clone, Copy)]
enum Unit {
    Nanoseconds,
    MessagesPerSecond,
    Seconds,
    /// A share of one processor.
    Percent,
}

/// The goal of the figure, mostly as a ratio to the peer's.
#[derive(Clone, Copy)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    /// The figure itself, whatever the peer's is.
    Itself(f64),
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours / self.peer.1.max(1e-12)
    }

    /// Returns `true` if the figure reaches its goal.
    fn reached(&self) -> bool {
        match self.wanted {
            Wanted::AtMost(most) => self.ratio() <= most,
            Wanted::AtLeast(least) => self.ratio() >= least,
            Wanted::Itself(most) => self.ours <= most,
        }
    }

    fn as_json(&self) -> Value {
        let (peer, figure) = self.peer;
        let (what, wanted) = match self.wanted {
            Wanted::AtMost(most) => ("ratio_at_most", most),
            Wanted::AtLeast(least) => ("ratio_at_least", least),
            Wanted::Itself(most) => ("figure_at_most", most),
        };
        json!({
            "name": self.key,
            "slipring": self.ours,
            "peer": peer,
            "peer_figure": figure,
            "ratio": self.ratio(),
            what: wanted,
            "reached": self.reached(),
        })
    }

    fn as_text(&self) -> Vec<String> {
        let (peer, figure) = self.peer;
        let wanted = match self.wanted {
            Wanted::AtMost(most) => format!("<= {most:.1}"),
            Wanted::AtLeast(least) => format!(">= {least:.1}"),
            Wanted::Itself(most) => self.unit.text(most),
        };
        let mark = if self.reached() { "" } else { " MISSED" };
        vec![
            self.name.clone(),
            self.unit.text(self.ours),
            format!("{peer} {}", self.unit.text(figure)),
            format!("{:.2}", self.ratio()),
            format!("{wanted}{mark}"),
        ]
    }
}

impl Unit {
    fn text(self, figure: f64) -> String {
        match self {
            Unit::Nanoseconds => text::nanoseconds(figure as u64),
            Unit::MessagesPerSecond => format!("{}/s", text::count(figure as u64)),
            Unit::Seconds => format!("{figure:.2} s"),
            Unit::Percent => format!("{figure:.1} %"),
        }
    }
}

/// Runs everything `runs` times, in turn with its peer.
pub(super) fn run(runs: usize, as_json: bool) -> Result<(), Failure> {
    let bar = Progress::messages("bench scarce", 8);
    let mut rows = Vec::new();
    let mut take = |more: Vec<Row>| {
        rows.extend(more);
        bar.add(1);
    };
    take(vec![trips::run::<1>(runs)?, trips::run::<158>(runs)?]);
    for wait in ["sleep", "fd", "async"] {
        take(vec![processes::demo_on_one_processor(wait, runs)?]);
    }
    take(vec![processes::file_on_one_processor(runs)?]);
    take(vec![processes::demo_beside_strangers(runs)?]);
    take(vec![processes::demo_beside_a_stranger(runs)?]);
    take(steady::run()?);
    drop(bar);
    if as_json {
        return text::answer_json(&json!({
            "rows": rows.iter().map(Row::as_json).collect::<Vec<_>>(),
        }));
    }
    let head = ["", "slipring", "peer", "ratio", "wanted"];
    let mut table = vec![head.map(String::from).to_vec()];
    table.extend(rows.iter().map(Row::as_text));
    text::answer(text::table(&table, &[1, 3]))
}

/// Runs `work` while this thread may use only its first allowed processor. Threads and processes
/// that `work` starts inherit that limit.
fn on_one_processor<R>(work: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    let fail = |errno| Failure::io("choose a processor", errno);
    let all = rustix::thread::sched_getaffinity(None).map_err(fail)?;
    let mut one = CpuSet::new();
    if let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)) {
        one.set(first);
    }
    rustix::thread::sched_setaffinity(None, &one).map_err(fail)?;
    let result = work();
    rustix::thread::sched_setaffinity(None, &all).map_err(fail)?;
    result
}

//! `slipring bench scarce`: waiting where processors are scarce. Both ends on one processor, busy strangers on all of
//! them, and a consumer whose messages come slowly. Each figure stands beside its peer's of the same run.

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
    /// For programs, in snake_case.
    key: String,
    /// For people.
    name: String,
    unit: Unit,
    ours: f64,
    /// The peer's name and figure; none where the figure is compared with a constant.
    peer: Option<(&'static str, f64)>,
    wanted: Wanted,
}

#[derive(Clone, Copy)]
enum Unit {
    Nanoseconds,
    MessagesPerSecond,
    Seconds,
    /// Of one processor.
    Percent,
}

/// What the figure is to reach: as a ratio to the peer's, or without a peer as it is.
#[derive(Clone, Copy)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    /// Printed for comparison.
    Nothing,
}

impl Row {
    fn ratio(&self) -> f64 {
        match self.peer {
            Some((_, peer)) => self.ours / peer.max(1e-12),
            None => self.ours,
        }
    }

    /// Returns `true` if the figure reaches what is wanted of it.
    fn reached(&self) -> bool {
        match self.wanted {
            Wanted::AtMost(most) => self.ratio() <= most,
            Wanted::AtLeast(least) => self.ratio() >= least,
            Wanted::Nothing => true,
        }
    }

    fn as_json(&self) -> Value {
        let (peer, figure) = self.peer.unzip();
        let (most, least) = match self.wanted {
            Wanted::AtMost(most) => (Some(most), None),
            Wanted::AtLeast(least) => (None, Some(least)),
            Wanted::Nothing => (None, None),
        };
        json!({
            "name": self.key,
            "slipring": self.ours,
            "peer": peer,
            "peer_figure": figure,
            "ratio": self.ratio(),
            "at_most": most,
            "at_least": least,
            "reached": self.reached(),
        })
    }

    fn as_text(&self) -> Vec<String> {
        let peer = match self.peer {
            Some((name, figure)) => format!("{name} {}", self.unit.text(figure)),
            None => String::new(),
        };
        let ratio = match self.peer {
            Some(_) => format!("{:.2}", self.ratio()),
            None => String::new(),
        };
        let mark = match self.reached() {
            true => "",
            false => " MISSED",
        };
        let wanted = match (self.wanted, self.unit) {
            (Wanted::AtMost(most), Unit::Percent) => format!("<= {most:.0} %{mark}"),
            (Wanted::AtMost(most), _) => format!("<= {most:.1}{mark}"),
            (Wanted::AtLeast(least), _) => format!(">= {least:.1}{mark}"),
            (Wanted::Nothing, _) => String::new(),
        };
        let ours = self.unit.text(self.ours);
        vec![self.name.clone(), ours, peer, ratio, wanted]
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

pub(super) fn run(as_json: bool) -> Result<(), Failure> {
    let bar = Progress::messages("bench scarce", 9);
    let mut rows = Vec::new();
    let mut take = |more: Vec<Row>| {
        rows.extend(more);
        bar.add(1);
    };
    take(vec![trips::run::<1>()?]);
    take(vec![trips::run::<158>()?]);
    for wait in ["sleep", "fd", "async"] {
        take(vec![processes::demo_on_one_processor(wait)?]);
    }
    take(vec![processes::file_on_one_processor()?]);
    take(vec![processes::demo_beside_strangers()?]);
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

/// Runs `work` while this thread may use only its first allowed processor. What it starts inherits that.
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

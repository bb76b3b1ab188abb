//! Writes the results, as JSON for programs and as Markdown for people.

use super::Settings;
use super::goals::{Verdict, judge};
use super::peers::{ALL, OURS, is_ours};
use super::plan::{Case, Timed};
use super::rounds::{Figure, Figures, median};
use crate::machine::Machine;
use crate::report::number;
use serde_json::{Value, json};
use std::fmt::{Result, Write};

/// All data from which a report is made.
#[derive(Debug)]
pub struct Report<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The settings of the measurement.
    pub settings: &'a Settings,
    /// The figures.
    pub figures: &'a Figures,
    /// The length of the measurement in seconds.
    pub seconds: f64,
}

impl Report<'_> {
    /// Returns everything as JSON, every sample included.
    pub fn json(&self) -> Value {
        let mut figures = Vec::new();
        for (case, line_up) in self.figures {
            for (name, figure) in line_up {
                let spread = figure.spread();
                figures.push(json!({
                    "case": case.to_string(),
                    "contender": name,
                    "unit": if case.is_time() { "ns" } else { "M/s" },
                    "woken": figure.woken().map(|(median, ..)| median),
                    "median": spread.map(|(median, ..)| median),
                    "min": spread.map(|(_, min, _)| min),
                    "max": spread.map(|(.., max)| max),
                    "ours_over_it": ratio(self.figures, *case, name),
                    "samples": figure.samples,
                    "failures": figure.failures,
                }));
            }
        }
        json!({
            "format": 1,
            "machine": self.machine,
            "settings": self.settings,
            "seconds": self.seconds,
            "figures": figures,
            "goals": judge(self.figures),
        })
    }

    /// Returns the tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> Result {
        self.write_head(out)?;
        write_goals(out, &judge(self.figures))?;
        writeln!(out, "## Figures\n")?;
        writeln!(
            out,
            "Medians, with (least–most), then *slipring's median over this one*. README.md says more.\n"
        )?;
        let mut tables: Vec<(String, Vec<Case>)> = Vec::new();
        for &case in self.figures.keys() {
            let title = title(case);
            match tables.iter_mut().find(|(other, _)| *other == title) {
                Some((_, columns)) => columns.push(case),
                None => tables.push((title, vec![case])),
            }
        }
        for (title, columns) in &tables {
            self.write_table(out, title, columns)?;
        }
        self.write_missing(out)?;
        self.write_contenders(out)
    }

    fn write_head(&self, out: &mut String) -> Result {
        let (m, s) = (self.machine, self.settings);
        let guest = if m.virtual_machine {
            " (virtual machine)"
        } else {
            ""
        };
        writeln!(out, "# slipring's work queue beside its peers\n")?;
        writeln!(out, "| | |\n|---|---|")?;
        writeln!(
            out,
            "| processor | {}{guest}, {} cores, {} |",
            m.cpu, m.cores, m.caches
        )?;
        writeln!(out, "| kernel | Linux {} |", m.kernel)?;
        writeln!(
            out,
            "| placement | thread k, producers first, on core k modulo {} |",
            m.cores
        )?;
        writeln!(
            out,
            "| runs | {} of each, contenders alternating, {} s a run, {:.0} s in all |",
            s.runs, s.seconds, self.seconds
        )?;
        if let Some((median, least, most)) = Figure::line(self.figures) {
            writeln!(
                out,
                "| a cache line from core to core and back | {median:.0} ns ({least:.0}–{most:.0}) |"
            )?;
        }
        writeln!(out, "| load before | {} |\n", m.load_before)
    }

    fn write_table(&self, out: &mut String, title: &str, columns: &[Case]) -> Result {
        writeln!(out, "### {title}\n")?;
        write!(out, "| |")?;
        for column in columns {
            write!(out, " {} |", heading(*column))?;
        }
        writeln!(out, "\n|---|{}", "---:|".repeat(columns.len()))?;
        let measured = |name: &str| {
            let has = |case| self.figures.get(case).is_some_and(|l| l.contains_key(name));
            columns.iter().any(has)
        };
        for about in ALL.iter().filter(|about| measured(about.name)) {
            write!(out, "| {} |", about.name)?;
            for &case in columns {
                write!(out, " {} |", self.cell(case, about.name))?;
            }
            writeln!(out)?;
        }
        writeln!(out)
    }

    fn cell(&self, case: Case, name: &str) -> String {
        let figure = self.figures.get(&case).and_then(|l| l.get(name));
        let Some(figure) = figure else {
            return "–".to_owned();
        };
        let Some((median, least, most)) = figure.spread() else {
            return "missing".to_owned();
        };
        let mut cell = format!("{} ({}–{})", number(median), number(least), number(most));
        if let Some(ratio) = ratio(self.figures, case, name).filter(|_| !is_ours(name)) {
            cell += &format!(" *{}*", number(ratio));
        }
        if let Some((woken, ..)) = figure.woken() {
            cell += &format!(", {} woke", number(woken));
        }
        if figure.samples.len() < self.settings.runs {
            cell += &format!(" ×{}", figure.samples.len());
        }
        cell
    }

    /// Writes every run that gave no figure, with the reason.
    fn write_missing(&self, out: &mut String) -> Result {
        let failed: Vec<_> = self
            .all_figures()
            .filter(|(.., figure)| !figure.failures.is_empty())
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        writeln!(out, "## Missing\n")?;
        for (case, name, figure) in failed {
            let got = figure.samples.len();
            let mut failures = figure.failures.clone();
            failures.dedup();
            for failure in &failures {
                writeln!(
                    out,
                    "- {case}, {name}: {failure} ({got} runs gave a figure)"
                )?;
            }
        }
        writeln!(out)
    }

    fn write_contenders(&self, out: &mut String) -> Result {
        writeln!(out, "## Contenders\n")?;
        writeln!(out, "| | version | calls |\n|---|---|---|")?;
        for about in ALL {
            if self.all_figures().any(|(_, name, _)| name == about.name) {
                let version = self.machine.versions.get(about.name);
                let version = version.map_or("–", String::as_str);
                writeln!(out, "| {} | {version} | {} |", about.name, about.how)?;
            }
        }
        writeln!(
            out,
            "\nflume, kanal and crossbeam have no batches. iceoryx2 is not here: its publishers hand each \
             sample to every subscriber, and none of its patterns has any one of several workers take it."
        )
    }

    fn all_figures(&self) -> impl Iterator<Item = (Case, &'static str, &Figure)> {
        self.figures
            .iter()
            .flat_map(|(case, line_up)| line_up.iter().map(|(name, figure)| (*case, *name, figure)))
    }
}

/// Returns slipring's median over that of a contender.
fn ratio(figures: &Figures, case: Case, name: &str) -> Option<f64> {
    Some(median(figures, case, OURS[0])? / median(figures, case, name)?)
}

fn write_goals(out: &mut String, verdicts: &[Verdict]) -> Result {
    if verdicts.is_empty() {
        return Ok(());
    }
    let kept = verdicts.iter().filter(|v| v.pass).count();
    writeln!(out, "## Goals: {kept} of {} kept\n", verdicts.len())?;
    writeln!(out, "| case | slipring | against | ratio | needed | |")?;
    writeln!(out, "|---|---:|---:|---:|---:|---|")?;
    for v in verdicts {
        let sign = if v.at_most { "≤" } else { "≥" };
        writeln!(
            out,
            "| {} | {} {} | {} ({}) | {:.2} | {sign} {:.2} | {} |",
            v.what,
            number(v.ours),
            v.unit,
            number(v.theirs),
            v.against,
            v.ratio,
            v.bound,
            if v.pass { "pass" } else { "**fail**" }
        )?;
    }
    writeln!(out)
}

/// Returns the title of the table in which a case is a column.
fn title(case: Case) -> String {
    match case {
        Case::Stream { crew, batch, .. } => {
            let how = match batch {
                1 => "one at a time".to_owned(),
                n => format!("batches of {n}"),
            };
            let part = if case.is_grid() {
                ", yep-coc's grid"
            } else {
                ""
            };
            format!("{crew}, {how}{part}: million messages a second")
        }
        Case::Alone(_) => "One thread, 8 B: nanoseconds".to_owned(),
        Case::Wake | Case::WakingPush(_) => "Sleeping workers, 64 B: nanoseconds".to_owned(),
        Case::Jobs(_) => "Jobs for sleeping workers, 64 B: million jobs a second".to_owned(),
    }
}

fn heading(case: Case) -> String {
    match case {
        Case::Stream { size, capacity, .. } => format!("{size} B, {capacity} slots"),
        Case::Alone(Timed::Both) => "push and pop".to_owned(),
        Case::Alone(Timed::Push) => "push".to_owned(),
        Case::Alone(Timed::Pop) => "pop".to_owned(),
        Case::Wake => "push until taken".to_owned(),
        Case::WakingPush(workers) => format!("push, {workers} asleep"),
        Case::Jobs(crew) => crew.to_string(),
    }
}

//! Writes the results, as JSON for programs and as Markdown for people.

use crate::Settings;
use crate::broadcast::{Fan, Flow, Way};
use crate::machine::Machine;
use crate::peers::{ALL, About, Kind, Mode};
use crate::plan::{Case, Slow};
use crate::referee::{Figure, Figures, by_distance};
use crate::targets::{REGIONS, Verdict, best_peer, columns, judge, median, spread};
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
                let spread = spread(figure);
                figures.push(json!({
                    "case": case.to_string(),
                    "contender": name,
                    "unit": if case.is_time() { "ns" } else { "M/s" },
                    "median": spread.map(|(median, ..)| median),
                    "min": spread.map(|(_, min, _)| min),
                    "max": spread.map(|(.., max)| max),
                    "samples": figure.samples,
                    "disturbed": figure.disturbed(),
                    "failures": figure.failures,
                }));
            }
        }
        let distances: Vec<_> = by_distance(self.figures)
            .into_iter()
            .map(|(line, figures)| json!({ "line": line, "targets": judge(&figures) }))
            .collect();
        json!({
            "format": 1,
            "machine": self.machine,
            "settings": self.settings,
            "seconds": self.seconds,
            "figures": figures,
            "distances": distances,
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
        let distances = by_distance(self.figures);
        self.write_head(out, &distances)?;
        for (line, figures) in &distances {
            if distances.len() > 1 {
                writeln!(out, "# Cores {line:.0} ns apart\n")?;
            }
            write_targets(out, &judge(figures))?;
            writeln!(out, "## Figures\n")?;
            writeln!(
                out,
                "Medians, with (least–most), and ×n where less than half of the rounds count. Bold: \
                 the best peer. README.md says more.\n"
            )?;
            let mut done: Vec<Vec<Case>> = Vec::new();
            for &case in figures.keys() {
                let columns = columns(case);
                if !done.contains(&columns) {
                    write_table(out, figures, &columns, self.settings.rounds)?;
                    done.push(columns);
                }
            }
        }
        self.write_missing(out)?;
        self.write_contenders(out)
    }

    fn write_head(&self, out: &mut String, distances: &[(f64, Figures)]) -> Result {
        let (m, s) = (self.machine, self.settings);
        let disturbed: usize = self.all_figures().map(|(.., f)| f.disturbed()).sum();
        let samples: usize = self.all_figures().map(|(.., f)| f.samples.len()).sum();
        let guest = if m.virtual_machine {
            " (virtual machine)"
        } else {
            ""
        };
        writeln!(out, "# slipring beside its peers\n")?;
        writeln!(out, "| | |\n|---|---|")?;
        writeln!(
            out,
            "| processor | {}{guest}, {} cores, {} |",
            m.cpu, m.cores, m.caches
        )?;
        writeln!(
            out,
            "| kernel | Linux {}, huge pages: {} |",
            m.kernel, m.huge_pages
        )?;
        writeln!(
            out,
            "| placement | producer (or answering side) on core {}, consumer (or asking side) on core {} |",
            s.cores.0, s.cores.1
        )?;
        writeln!(
            out,
            "| rings | {} slots; {} KiB for records; {} slots in round trips |",
            s.capacity,
            s.ring_bytes / 1024,
            crate::plan::TRIP_CAPACITY
        )?;
        writeln!(
            out,
            "| runs | {} rounds, contenders alternating, {} s a run, {:.0} s in all |",
            s.rounds, s.seconds, self.seconds
        )?;
        writeln!(
            out,
            "| disturbed | {disturbed} of {samples} samples, by others or by moved cores; load before: {}{} |",
            m.load_before,
            if s.urgent {
                "; measured in the real-time class"
            } else {
                ""
            }
        )?;
        write!(out, "| a cache line to the other core and back |")?;
        for (i, (line, figures)) in distances.iter().enumerate() {
            let samples: usize = figures
                .values()
                .flat_map(|l| l.values())
                .map(|f| f.samples.len())
                .sum();
            let comma = if i > 0 { ";" } else { "" };
            write!(out, "{comma} {line:.0} ns in {samples} samples")?;
        }
        writeln!(out, " |\n")
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
            for failure in &figure.failures {
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
                let version = self
                    .machine
                    .versions
                    .get(about.name)
                    .map_or("–", String::as_str);
                writeln!(out, "| {} | {version} | {} |", about.name, about.how)?;
            }
        }
        Ok(())
    }

    fn all_figures(&self) -> impl Iterator<Item = (Case, &'static str, &Figure)> {
        self.figures
            .iter()
            .flat_map(|(case, line_up)| line_up.iter().map(|(name, figure)| (*case, *name, figure)))
    }
}

fn write_targets(out: &mut String, verdicts: &[Verdict]) -> Result {
    if verdicts.is_empty() {
        return Ok(());
    }
    let kept = verdicts.iter().filter(|v| v.pass).count();
    writeln!(out, "## Targets: {kept} of {} kept\n", verdicts.len())?;
    writeln!(
        out,
        "| what | region | slipring | against | ratio | needed | |"
    )?;
    writeln!(out, "|---|---|---:|---:|---:|---:|---|")?;
    for v in verdicts {
        let sign = if v.at_most { "≤" } else { "≥" };
        let mark = match (v.pass, v.aim) {
            (false, _) => "**fail**",
            (true, Some(aim)) if v.ratio >= aim => "pass, aim reached",
            (true, _) => "pass",
        };
        writeln!(
            out,
            "| {} | {} | {} {} | {} ({}) | {:.2} | {sign} {:.2} | {mark} |",
            v.what,
            v.region.trim_start_matches("slipring "),
            number(v.ours),
            v.unit,
            number(v.theirs),
            v.against,
            v.ratio,
            v.bound
        )?;
    }
    writeln!(out)
}

fn write_table(out: &mut String, figures: &Figures, columns: &[Case], rounds: usize) -> Result {
    let measured = |about: &About| {
        columns
            .iter()
            .any(|c| figures.get(c).is_some_and(|l| l.contains_key(about.name)))
    };
    let rows: Vec<_> = ALL.iter().filter(|about| measured(about)).collect();
    let Some(&first) = columns.first() else {
        return Ok(());
    };
    writeln!(out, "### {}\n", title(first))?;
    write!(out, "| |")?;
    for column in columns {
        write!(out, " {} |", heading(*column))?;
    }
    writeln!(out, "\n|---|{}", "---:|".repeat(columns.len()))?;
    for about in rows {
        write!(out, "| {} |", about.name)?;
        for &case in columns {
            let best = best_peer(figures, &[case]);
            let champion = best.is_some_and(|(name, _)| name.split(',').next() == Some(about.name));
            let figure = figures.get(&case).and_then(|l| l.get(about.name));
            write!(
                out,
                " {} |",
                cell(figure, champion && about.kind == Kind::Peer, rounds)
            )?;
        }
        writeln!(out)?;
    }
    for region in REGIONS {
        write_ratios(out, figures, region, columns)?;
    }
    writeln!(out)
}

/// Writes slipring's figure over that of the best peer of each column; in the `slip` tables, over
/// its plain figure.
fn write_ratios(out: &mut String, figures: &Figures, region: &str, columns: &[Case]) -> Result {
    let ratio = |case: Case| {
        let ours = median(figures, case, region)?;
        let other = best_peer(figures, &[case])?.1;
        Some(format!("{:.2}", ours / other))
    };
    let ratios: Vec<_> = columns.iter().map(|case| ratio(*case)).collect();
    if ratios.iter().all(Option::is_none) {
        return Ok(());
    }
    write!(out, "| *{region} ÷ best peer* |")?;
    for ratio in ratios {
        write!(out, " *{}* |", ratio.as_deref().unwrap_or("–"))?;
    }
    writeln!(out)
}

fn title(case: Case) -> String {
    let how = |mode| match mode {
        Mode::One => "one at a time",
        Mode::Drain => "each published at once, the consumer takes what has arrived",
        Mode::Place => "one at a time, in place",
        Mode::Batch => "batches of 256",
    };
    match case {
        Case::Fixed { mode, slow, .. } => {
            let who = match slow {
                Slow::Nobody => "",
                Slow::Producer => ", a little work for the producer",
                Slow::Consumer => ", a little work for the consumer",
            };
            format!("{}{who}: million messages a second", capital(how(mode)))
        }
        Case::Records { mode, .. } => {
            format!(
                "Variable-size records, {}: million records a second",
                how(mode)
            )
        }
        Case::Trip { .. } => "Round trips: nanoseconds".to_owned(),
        Case::Broadcast(fan) => to_all(fan),
    }
}

fn to_all(fan: Fan) -> String {
    let what = match (fan.way, fan.flow) {
        (Way::One, Flow::Wait) => "one at a time, the writer waits: million messages a second",
        (Way::Batch, _) => "batches of 256, the writer waits: million messages a second",
        (Way::One, Flow::Paced) => {
            "one at a time, overwriting, readers that keep up: million messages a second"
        }
        (Way::One, Flow::Free) => {
            "one at a time, overwriting as fast as it can: million messages received a second"
        }
        (Way::Idle, _) => "publishing beside readers that never read: nanoseconds",
        (Way::Drained, _) => "publishing with readers that keep up, the writer's part: nanoseconds",
        (Way::Alone, _) => "one thread, push, publish and pop: million messages a second",
        (Way::Bare, _) => {
            "one thread, push, publish and pop, unchecked as in que's benchmark: million messages a second"
        }
        (Way::Trip, _) => "round trips, overwriting both ways: nanoseconds",
    };
    format!("To all, {} B, {what}", fan.size)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        format!("{}{}", first.to_uppercase(), chars.as_str())
    })
}

fn heading(case: Case) -> String {
    match case {
        Case::Fixed { size, .. } | Case::Trip { size } => format!("{size} B"),
        Case::Records { spread, .. } => format!("{spread} B"),
        Case::Broadcast(Fan { readers: 1, .. }) => "1 reader".to_owned(),
        Case::Broadcast(Fan { readers, .. }) => format!("{readers} readers, one core"),
    }
}

fn cell(figure: Option<&Figure>, champion: bool, rounds: usize) -> String {
    let Some(figure) = figure else {
        return "–".to_owned();
    };
    let Some((median, least, most)) = spread(figure) else {
        let gone = !figure.failures.is_empty();
        return if gone { "missing" } else { "–" }.to_owned();
    };
    let bold = if champion { "**" } else { "" };
    let few = match figure.values().len() {
        n if 2 * n < rounds => format!(" ×{n}"),
        _ => String::new(),
    };
    format!(
        "{bold}{}{bold} ({}–{}){few}",
        number(median),
        number(least),
        number(most)
    )
}

/// Returns the number with three digits, or with all of those before the point.
pub fn number(value: f64) -> String {
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

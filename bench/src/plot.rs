//! `slipring-bench plot`: draws the rates and round trips of a run, from its JSON, as SVG.
//!
//! One panel shows one comparison: slipring's bar in colour, those of the best peers in grey. The picture brings its own
//! ground, and its colours follow the reader's choice of a light or a dark page. It needs no fonts but the reader's.
//!
//! Where a run saw its cores at several distances, the picture is of the most frequent one.

use crate::broadcast::{Fan, Flow, Way};
use crate::peers::{self, Kind, Mode};
use crate::plan::{Case, Slow, Spread};
use crate::referee::{Figure, Figures, Timing, by_distance};
use crate::report::number;
use crate::targets::{REGIONS, best};
use serde::Deserialize;
use std::fmt::Write;
use std::path::PathBuf;

/// The command line of `slipring-bench plot`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The JSON of a run: `slipring-bench all --json FILE`.
    #[arg(value_name = "FILE")]
    json: PathBuf,
    /// Write the picture to this file instead of standard output.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// The part of a run's JSON that is drawn.
#[derive(Deserialize)]
struct Run {
    machine: Machine,
    settings: Settings,
    figures: Vec<Entry>,
}

#[derive(Deserialize)]
struct Machine {
    cpu: String,
    kernel: String,
    virtual_machine: bool,
}

#[derive(Deserialize)]
struct Settings {
    rounds: usize,
    seconds: f64,
}

#[derive(Deserialize)]
struct Entry {
    case: String,
    contender: String,
    samples: Vec<Timing>,
}

/// One comparison.
struct Panel {
    title: String,
    bars: Vec<Bar>,
    /// The bar of the bare cache line, if it was measured.
    floor: Option<f64>,
    is_time: bool,
}

struct Bar {
    name: String,
    value: f64,
}

/// Reads the JSON and writes the picture.
pub fn plot(options: &Options) -> Result<(), String> {
    let told = |reason: String| format!("{}: {reason}", options.json.display());
    let text = std::fs::read_to_string(&options.json).map_err(|e| told(e.to_string()))?;
    let run: Run = serde_json::from_str(&text).map_err(|e| told(e.to_string()))?;
    let svg = draw(&run).map_err(told)?;
    match &options.svg {
        Some(path) => crate::write(path, &svg),
        None => {
            print!("{svg}");
            Ok(())
        }
    }
}

fn draw(run: &Run) -> Result<String, String> {
    let (line, figures) = by_distance(&figures(run)?).swap_remove(0);
    let panels = |cases: Vec<(&str, Vec<Case>)>| -> Vec<Panel> {
        let panel = |(title, cases): (&str, Vec<Case>)| panel(&figures, title, &cases);
        cases.into_iter().filter_map(panel).collect()
    };
    let (rates, trips) = (panels(rates()), panels(trips()));
    if rates.is_empty() && trips.is_empty() {
        return Err("no figures of slipring beside a peer".to_owned());
    }
    let guest = if run.machine.virtual_machine {
        ", virtual machine"
    } else {
        ""
    };
    let apart = if line.is_nan() {
        String::new()
    } else {
        format!(", {line:.0} ns apart")
    };
    let heads = [
        format!("{}{guest}, Linux {}", run.machine.cpu, run.machine.kernel),
        format!(
            "Two cores{apart}. Medians of {} runs of {} s, all contenders in turn. Every word of every \
             message is checked.",
            run.settings.rounds, run.settings.seconds
        ),
    ];
    Ok(picture(&heads, &rates, &trips))
}

/// Returns the run's figures as they were when it was measured. Cases and contenders of another version are left out.
fn figures(run: &Run) -> Result<Figures, String> {
    let mut figures = Figures::new();
    for entry in &run.figures {
        let (Ok(case), Some(about)) = (entry.case.parse(), peers::named(&entry.contender)) else {
            continue;
        };
        let mut figure = Figure::default();
        figure.samples.clone_from(&entry.samples);
        let line_up = figures.entry(case).or_default();
        line_up.insert(about.name, figure);
    }
    if figures.is_empty() {
        return Err("no case of this bench".to_owned());
    }
    Ok(figures)
}

fn rates() -> Vec<(&'static str, Vec<Case>)> {
    let fixed = |size, mode| Case::Fixed {
        size,
        mode,
        slow: Slow::Nobody,
    };
    let spread = Spread::Fixed(64);
    let records = [Mode::One, Mode::Drain, Mode::Place];
    vec![
        ("8 B, one at a time", vec![fixed(8, Mode::One)]),
        ("8 B, batches of 256", vec![fixed(8, Mode::Batch)]),
        ("64 B, one at a time", vec![fixed(64, Mode::One)]),
        (
            "1264 B, each by its best way",
            Mode::ALL.map(|mode| fixed(1264, mode)).to_vec(),
        ),
        (
            "records of 64 B",
            records.map(|mode| Case::Records { spread, mode }).to_vec(),
        ),
        (
            "64 B to all, overwriting",
            vec![to_all(Way::One, Flow::Paced, 64)],
        ),
    ]
}

fn trips() -> Vec<(&'static str, Vec<Case>)> {
    let trip = |size| vec![Case::Trip { size }];
    vec![
        ("8 B", trip(8)),
        ("64 B", trip(64)),
        ("1264 B", trip(1264)),
        (
            "8 B to all, overwriting",
            vec![to_all(Way::Trip, Flow::Free, 8)],
        ),
    ]
}

fn to_all(way: Way, flow: Flow, size: usize) -> Case {
    Case::Broadcast(Fan {
        way,
        flow,
        size,
        readers: 1,
    })
}

/// The number of peers in a panel.
const PEERS: usize = 4;

/// Returns the comparison of slipring with the best peers of some cases, if both were measured.
fn panel(figures: &Figures, title: &str, cases: &[Case]) -> Option<Panel> {
    let figure = |name: &str| best(figures, cases, |_, other| other == name);
    let is_time = cases[0].is_time();
    let mut bars: Vec<Bar> = peers::ALL
        .iter()
        .filter(|about| about.kind == Kind::Peer)
        .filter_map(|about| {
            let name = about.name.to_owned();
            figure(about.name).map(|(_, value)| Bar { name, value })
        })
        .collect();
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    if !is_time {
        bars.reverse();
    }
    bars.truncate(PEERS);
    if bars.is_empty() {
        return None;
    }
    let (_, value) = figure(REGIONS[0])?;
    let name = "slipring".to_owned();
    bars.insert(0, Bar { name, value });
    let floor = best(figures, cases, |kind, _| kind == Kind::Bound && is_time);
    Some(Panel {
        title: title.to_owned(),
        bars,
        floor: floor.map(|(_, value)| value),
        is_time,
    })
}

// Lengths in the picture.
const WIDTH: usize = 900;
const MARGIN: usize = 28;
const COLUMN: usize = (WIDTH - 2 * MARGIN) / 2;
/// Where bars begin, beside the names.
const NAMES: usize = 122;
/// The longest bar.
const LONGEST: f64 = 150.0;
const BAR: usize = 15;
const STEP: usize = 21;
const PANEL: usize = 26 + (PEERS + 1) * STEP + 18;
const SECTION: usize = 44;

const STYLE: &str = "\
.ground{fill:#ffffff;stroke:#d0d7de}.ink{fill:#1f2328}.soft{fill:#59636e}.ours{fill:#c2410c}.peer{fill:#afb8c1}\
.floor{stroke:#59636e}.rule{stroke:#d0d7de}\
text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:13px}\
.title{font-size:21px;font-weight:600}.section{font-size:15px;font-weight:600}.bold{font-weight:600}.small{font-size:12px}\
@media(prefers-color-scheme:dark){.ground{fill:#0d1117;stroke:#30363d}.ink{fill:#f0f6fc}.soft{fill:#9198a1}\
.ours{fill:#f78c4a}.peer{fill:#4d555e}.floor{stroke:#9198a1}.rule{stroke:#30363d}}";

fn picture(heads: &[String], rates: &[Panel], trips: &[Panel]) -> String {
    let sections = [
        (
            "Rates",
            "million messages a second, longer is better",
            rates,
        ),
        (
            "Round trips",
            "nanoseconds there and back, shorter is better; dashed: a bare cache line",
            trips,
        ),
    ];
    let mut body = String::new();
    let mut y = 44;
    put_text(
        &mut body,
        MARGIN,
        y,
        "title ink",
        "slipring beside its peers",
    );
    for head in heads {
        y += 20;
        put_text(&mut body, MARGIN, y, "small soft", head);
    }
    for (name, unit, panels) in sections {
        if panels.is_empty() {
            continue;
        }
        y += SECTION;
        let right = WIDTH - MARGIN;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            body,
            "<line x1='{MARGIN}' x2='{right}' y1='{0}' y2='{0}' class='rule'/>",
            y - 24
        );
        let _ = writeln!(
            body,
            "<text x='{MARGIN}' y='{y}' class='section ink'>{name} <tspan class='small soft'>{unit}</tspan></text>"
        );
        for (i, panel) in panels.iter().enumerate() {
            let x = MARGIN + (i % 2) * COLUMN;
            put_panel(&mut body, x, y + 30 + (i / 2) * PANEL, panel);
        }
        y += 10 + panels.len().div_ceil(2) * PANEL;
    }
    let height = y + 12;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' role='img' \
         aria-label='slipring beside its peers'>\n<style>{STYLE}</style>\n\
         <rect x='.5' y='.5' width='{}' height='{}' rx='8' class='ground'/>\n{body}</svg>\n",
        WIDTH - 1,
        height - 1
    )
}

fn put_panel(body: &mut String, x: usize, y: usize, panel: &Panel) {
    put_text(body, x, y, "bold ink", &panel.title);
    let most = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let length = |value: f64| LONGEST * value / most;
    let left = x + NAMES;
    for (i, bar) in panel.bars.iter().enumerate() {
        let top = y + 10 + i * STEP;
        let ours = i == 0;
        let (name, fill) = if ours {
            ("bold ours", "ours")
        } else {
            ("soft", "peer")
        };
        let long = length(bar.value);
        let base = top + 12;
        let _ = writeln!(
            body,
            "<text x='{}' y='{base}' text-anchor='end' class='{name}'>{}</text>\
             <rect x='{left}' y='{top}' width='{long:.1}' height='{BAR}' rx='2' class='{fill}'/>",
            left - 8,
            escape(&bar.name)
        );
        let after = left as f64 + long + 7.0;
        let value = number(bar.value);
        let ratio = if ours { against(panel) } else { String::new() };
        let _ = writeln!(
            body,
            "<text x='{after:.1}' y='{base}' class='small ink'>{value}{ratio}</text>"
        );
    }
    if let Some(floor) = panel.floor {
        let at = left as f64 + length(floor);
        let _ = writeln!(
            body,
            "<line x1='{at:.1}' x2='{at:.1}' y1='{}' y2='{}' class='floor' stroke-dasharray='3 3'/>",
            y + 6,
            y + 10 + panel.bars.len() * STEP
        );
    }
}

/// Returns how fast slipring is beside the best peer.
fn against(panel: &Panel) -> String {
    let [ours, peer, ..] = &panel.bars[..] else {
        return String::new();
    };
    let faster = if panel.is_time {
        peer.value / ours.value
    } else {
        ours.value / peer.value
    };
    format!(
        " <tspan class='bold ours'>{faster:.2} × {}</tspan>",
        escape(&peer.name)
    )
}

fn put_text(body: &mut String, x: usize, y: usize, class: &str, text: &str) {
    let text = escape(text);
    let _ = writeln!(body, "<text x='{x}' y='{y}' class='{class}'>{text}</text>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[(&str, &str, f64)]) -> Run {
        let entry = |&(case, contender, value): &(&str, &str, f64)| Entry {
            case: case.to_owned(),
            contender: contender.to_owned(),
            samples: vec![Timing {
                value,
                disturbed: false,
                line: Some(100.0),
                messages: 1,
                lost: 0,
            }],
        };
        Run {
            machine: Machine {
                cpu: "A & B".to_owned(),
                kernel: "6".to_owned(),
                virtual_machine: false,
            },
            settings: Settings {
                rounds: 1,
                seconds: 0.1,
            },
            figures: values.iter().map(entry).collect(),
        }
    }

    /// A rate twice as high and a time half as long are both two times as fast.
    #[test]
    #[cfg(feature = "slipring")]
    fn ratios_are_of_speed() {
        let run = run(&[
            ("spsc/8/one", "slipring heap", 300.0),
            ("spsc/8/one", "rtrb", 200.0),
            ("roundtrip/8", "slipring heap", 100.0),
            ("roundtrip/8", "rtrb", 80.0),
            ("roundtrip/8", "ringfire", 90.0),
        ]);
        let svg = draw(&run).expect("a picture");
        assert!(svg.contains(">1.50 × rtrb<"), "{svg}");
        assert!(svg.contains(">0.80 × rtrb<"), "{svg}");
        assert!(svg.contains("A &amp; B, Linux 6"), "{svg}");
    }

    #[test]
    fn a_run_without_slipring_is_refused() {
        let alone = run(&[("spsc/8/one", "rtrb", 200.0)]);
        assert!(draw(&alone).is_err());
        assert!(draw(&run(&[("no/such", "rtrb", 1.0)])).is_err());
    }
}

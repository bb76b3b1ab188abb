//! `slipring ls`: lists every channel without disturbing its users. A channel that cannot be read
//! is listed with the reason.

use serde_json::json;
use slipring::Role;
use slipring::inspect::{self, SeatStat, SeatState, Stat};

use crate::exit::{Failure, complain};
use crate::{stat, text};

/// List the named channels
///
/// PRODUCER and CONSUMER say who holds the role, by the process id that the holder wrote, or how the
/// last holder left: see `slipring stat --help`. UNREAD is counted as there. ls takes no role, so it
/// disturbs nobody.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the channels as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut channels = Vec::new();
    for name in inspect::list()? {
        let name = name.to_string();
        let stat = inspect::stat(&name);
        // Somebody removed the channel after it was listed.
        if !matches!(stat, Err(slipring::SetupError::NotFound { .. })) {
            channels.push((name, stat));
        }
    }
    if args.json {
        let listed = channels.iter().map(|(name, stat)| match stat {
            Ok(stat) => stat::as_json(name, stat),
            Err(error) => json!({ "name": name, "error": error.to_string() }),
        });
        return text::answer_json(&listed.collect());
    }
    let head = ["NAME", "KIND", "CAPACITY", "UNREAD", "PRODUCER", "CONSUMER"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (name, stat) in &channels {
        rows.push(match stat {
            Ok(stat) => row(name, stat),
            Err(error) => vec![name.clone(), format!("({error})")],
        });
    }
    // A broken channel's message must not widen the column of the kinds.
    let good: Vec<_> = rows
        .iter()
        .filter(|row| row.len() == head.len())
        .cloned()
        .collect();
    let mut out = text::table(&good, &[2, 3]);
    for row in rows.iter().filter(|row| row.len() != head.len()) {
        out.push_str(&row.join("  "));
        out.push('\n');
    }
    if channels.is_empty() {
        let dir = slipring::directory().0;
        complain(format_args!("no named channels in {}", dir.display()));
        return Ok(());
    }
    text::answer(out)
}

fn row(name: &str, stat: &Stat) -> Vec<String> {
    let (unit, figure) = stat::units(stat);
    let mut row = vec![
        name.to_string(),
        stat.geometry.kind.name().to_string(),
        figure(stat.capacity()) + unit,
        stat::unread(stat).map_or("-".into(), |unread| figure(unread) + unit),
    ];
    row.extend([Role::Producer, Role::Consumer].map(|role| side(stat, role)));
    row
}

/// Returns who holds the only seat of a role, or how many of its seats are held.
fn side(stat: &Stat, role: Role) -> String {
    let mut seats = stat.seats.iter().filter(|seat| seat.role == role);
    match seats.clone().count() {
        1 => seats.next().map(seat).unwrap_or_default(),
        all => {
            let held = seats.filter(|seat| seat.state == SeatState::Held);
            format!("{} of {all} held", held.count())
        }
    }
}

/// Returns `held by 1234`, or the way in which the last holder left.
fn seat(seat: &SeatStat) -> String {
    match seat.state {
        SeatState::Held => format!("held by {}", seat.pid),
        state => state.name().to_string(),
    }
}

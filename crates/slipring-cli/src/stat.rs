//! `slipring stat`: all that can be known of one channel, read-only: no seat is taken, no word is
//! written, nobody waits.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use slipring::inspect::{self, SeatStat, SeatState, Stat};
use slipring::{Name, bytes};

use crate::exit::Failure;
use crate::text;

/// Show a channel: shape, seats, figures
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`
    name: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stat = inspect::stat(&args.name)?;
    if args.json {
        text::answer_json(&as_json(&args.name, &stat))
    } else {
        text::answer(as_text(&args.name, &stat))
    }
}

/// How figures of this channel are to be read: bytes for `bytes`, slots for the others.
pub(crate) fn units(stat: &Stat) -> (&'static str, fn(u64) -> String) {
    if is_bytes(stat) {
        ("", text::bytes)
    } else {
        (" slots", text::count)
    }
}

fn is_bytes(stat: &Stat) -> bool {
    stat.geometry.kind.name() == "bytes"
}

/// A channel for programs, as `stat` and `ls` print it.
pub(crate) fn as_json(name: &str, stat: &Stat) -> Value {
    let header = &stat.header;
    let mut out = json!({
        "name": name,
        "kind": stat.geometry.kind.name(),
        "capacity": stat.geometry.capacity,
        "len": stat.len,
        "slot_size": stat.geometry.slot_size,
        "schema": {
            "name": stat.schema_name,
            "version": header.schema_version,
            "fingerprint": format!("{:032x}", header.fingerprint),
        },
        "metadata": metadata(&header.metadata),
        "identity": {
            "boot": format!("{:032x}", header.identity.boot),
            "unique": format!("{:032x}", header.identity.unique),
            "created_ns": header.identity.created,
        },
        "page_size": page_size(name),
        "producer": Value::Null,
        "consumer": Value::Null,
    });
    if is_bytes(stat) {
        out["max_record"] = (stat.geometry.slot_size - bytes::PREFIX).into();
    }
    for seat in &stat.seats {
        out[seat.role.name()] = json!({
            "state": seat.state.name(),
            "generation": seat.generation,
            "pid": seat.pid,
            "heartbeat_age_ns": seat.heartbeat_age,
            "position": seat.position,
            "messages": seat.messages,
            "waits": seat.waits,
            "parks": seat.parks,
            "wakes": seat.wakes,
        });
    }
    out
}

fn as_text(name: &str, stat: &Stat) -> String {
    let header = &stat.header;
    let (unit, figure) = units(stat);
    let largest = if is_bytes(stat) {
        let max = stat.geometry.slot_size - bytes::PREFIX;
        ("records", format!("up to {}", text::exact(max)))
    } else {
        ("slot", text::exact(stat.geometry.slot_size))
    };
    let mut facts = vec![
        ("channel", name.to_string()),
        ("kind", stat.geometry.kind.name().to_string()),
        ("capacity", figure(stat.geometry.capacity) + unit),
        largest,
        ("unread", figure(stat.len) + unit),
    ];
    if !is_bytes(stat) {
        let schema = format!("{} version {}", stat.schema_name, header.schema_version);
        facts.push(("payload", schema));
        facts.push(("fingerprint", format!("{:032x}", header.fingerprint)));
    }
    let about = metadata(&header.metadata);
    if let Some(about) = about.as_str().filter(|about| !about.is_empty()) {
        facts.push(("metadata", about.to_string()));
    }
    facts.push(("identity", format!("{:032x}", header.identity.unique)));
    facts.push(("created", created(header.identity.created)));
    if let Some(page_size) = page_size(name) {
        facts.push(("pages", text::bytes(page_size)));
    }
    let facts: Vec<_> = facts
        .into_iter()
        .map(|(what, fact)| vec![what.to_string(), fact])
        .collect();
    let head = [
        "SEAT",
        "STATE",
        "PID",
        "GENERATION",
        "SEEN",
        "POSITION",
        "MESSAGES",
        "PARKS",
        "WAKES",
    ];
    let mut seats = vec![head.map(String::from).to_vec()];
    seats.extend(stat.seats.iter().map(seat_row));
    let right = [2, 3, 4, 5, 6, 7, 8];
    format!(
        "{}\n{}",
        text::table(&facts, &[]),
        text::table(&seats, &right)
    )
}

fn seat_row(seat: &SeatStat) -> Vec<String> {
    let seen = match seat.state {
        SeatState::Never => "-".to_string(),
        _ => format!("{} ago", text::nanoseconds(seat.heartbeat_age)),
    };
    vec![
        seat.role.name().to_string(),
        seat.state.name().to_string(),
        seat.pid.to_string(),
        seat.generation.to_string(),
        seen,
        seat.position.to_string(),
        seat.messages.to_string(),
        seat.parks.to_string(),
        seat.wakes.to_string(),
    ]
}

/// The creator's bytes: as text if they are, else in hexadecimal; without the zeros at their end.
fn metadata(bytes: &[u8]) -> Value {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.into(),
        _ => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("0x{hex}").into()
        }
    }
}

fn created(ns: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    match now.map(|now| (now.as_nanos() as u64).checked_sub(ns)) {
        Ok(Some(age)) if ns != 0 => format!("{} ago", text::nanoseconds(age)),
        _ => "unknown".to_string(),
    }
}

/// The page size of the channel's data, as its file system says. (A hugetlbfs says its pages'.)
fn page_size(name: &str) -> Option<u64> {
    const HUGETLBFS: u64 = 0x9584_58f6;
    let name = Name::new(name).ok()?;
    let mut path = slipring::directory().0;
    if let Some(domain) = name.domain() {
        path.push(format!("@{domain}"));
    }
    path.extend([name.topic(), "data"]);
    let stat = rustix::fs::statfs(&path).ok()?;
    Some(if stat.f_type as u64 == HUGETLBFS {
        stat.f_bsize as u64
    } else {
        rustix::param::page_size() as u64
    })
}

//! `slipring stat`: shows all that can be known of one channel. It only reads: it takes no seat,
//! writes no word, and makes nobody wait.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use slipring::inspect::{self, GrowthStat, SeatStat, SeatState, Stat, TopicStat, WhenFull};
use slipring::spec::Unit;
use slipring::{Name, Role, bytes};

use crate::exit::Failure;
use crate::{claims, text};

/// Show a channel: shape, seats, figures
///
/// `unread` and POSITION count slots; for `bytes` they count bytes of the ring, where each record
/// takes 8 more than its length, rounded up to 8.
///
/// STATE is `held`, `never` (held so far), or how the last holder left: it `finished`, `aborted` (by
/// a signal or an error) or `died`. The holder wrote PID and SEEN, its last sign of life: PID counts
/// in its own PID namespace. GENERATION counts the holders. PARKS are sleeps, WAKES are wake-ups of
/// the other side. LAG is how far a consumer is behind, LAGGED what it lost.
///
/// For a work queue, the last table says who has which slots in hand: `reserved` by a producer, or `taken`
/// or `held` (read in place) by a consumer. SINCE tells when held messages were taken, DELIVERIES how
/// often they had been delivered before. `returned` messages wait to be delivered again; `dead letters`
/// were delivered too often, and lie aside.
///
/// For a channel that can grow, `range` is how small and large it can be, and `rings` counts those that have memory: the one
/// that is written, and older ones that are not read to their end. `memory` is what they take now.
///
/// For a topic, PINS are the messages that a subscriber keeps from being overwritten, of those that it may keep:
/// publishers use other slots meanwhile. `memory` is what its slots take now, and could take.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`
    name: String,
    /// Print the channel as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stat = inspect::stat(&args.name)?;
    if args.json {
        let mut about = as_json(&args.name, &stat);
        claims::add_json(&mut about, &stat);
        text::answer_json(&about)
    } else {
        text::answer(as_text(&args.name, &stat))
    }
}

/// Returns the unit of this channel's figures and their format: bytes for `bytes`, slots for the
/// others.
pub(crate) fn units(stat: &Stat) -> (&'static str, fn(u64) -> String) {
    if is_bytes(stat) {
        ("", text::bytes)
    } else if stat.topic.is_some() {
        (" messages", text::count)
    } else {
        (" slots", text::count)
    }
}

fn is_bytes(stat: &Stat) -> bool {
    stat.geometry.kind.spec().unit == Unit::Bytes
}

/// Returns a channel as JSON for programs, as `stat` and `ls` print it. (`stat` adds the claims of a queue.)
pub(crate) fn as_json(name: &str, stat: &Stat) -> Value {
    let header = &stat.header;
    let mut out = json!({
        "name": name,
        "kind": stat.geometry.kind.name(),
        "capacity": stat.capacity(),
        "len": stat.len,
        "unread": unread(stat),
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
    if let Some(growth) = &stat.growth {
        out["min_capacity"] = stat.geometry.capacity.into();
        out["max_capacity"] = growth.max_capacity.into();
        out["resizes"] = growth.resizes.into();
        out["rings"] = growth.rings.into();
        out["memory"] = growth.backed.into();
    }
    if let Some(topic) = &stat.topic {
        add_topic(&mut out, stat, topic);
        return out;
    }
    if !is_broadcast(stat) {
        for role in [Role::Producer, Role::Consumer] {
            add_side(&mut out, stat, role);
        }
        return out;
    }
    out["when_full"] = stat.geometry.when_full.name().into();
    out["consumer_seats"] = stat.geometry.consumers.into();
    out["consumers"] = Value::Array(Vec::new());
    out["holds_back"] = Value::Null;
    for seat in ever_held(stat) {
        let mut about = seat_json(seat);
        if seat.role == Role::Producer {
            about["recovered"] = seat.recovered.into();
            out["producer"] = about;
            continue;
        }
        about["index"] = seat.index.into();
        about["waited_for"] = seat.waited_for.into();
        about["lag"] = lag(stat, seat).into();
        about["lagged"] = seat.lagged.into();
        if let Some(consumers) = out["consumers"].as_array_mut() {
            consumers.push(about);
        }
    }
    if let Some(seat) = stat.holds_back() {
        out["holds_back"] = json!({
            "index": seat.index,
            "pid": seat.pid,
            "state": seat.state.name(),
            "lag": stat.lag(seat),
        });
    }
    out
}

/// Adds the figures of a topic, and its seats that were ever held.
fn add_topic(out: &mut Value, stat: &Stat, topic: &TopicStat) {
    out["published"] = topic.published.into();
    out["memory"] = topic.backed.into();
    out["most_memory"] = stat.geometry.data_len().into();
    out["producer_seats"] = stat.geometry.producers.into();
    out["consumer_seats"] = stat.geometry.consumers.into();
    out["most_pins"] = stat.geometry.pins.into();
    let list = |role| -> Value {
        let seats = stat.seats.iter().filter(|seat| seat.role == role);
        let held = seats.filter(|seat| seat.state != SeatState::Never);
        let about = held.map(|seat| {
            let mut about = seat_json(seat);
            about["index"] = seat.index.into();
            if role == Role::Consumer {
                about["pins"] = topic.pins_of(seat.index).into();
                about["lag"] = lag(stat, seat).into();
                about["lagged"] = seat.lagged.into();
            }
            about
        });
        about.collect()
    };
    out["producers"] = list(Role::Producer);
    out["consumers"] = list(Role::Consumer);
}

/// Adds the only seat of a role, or the list of those that were ever held (`producers`, `consumers`).
fn add_side(out: &mut Value, stat: &Stat, role: Role) {
    let mut seats = ever_held(stat).filter(|seat| seat.role == role);
    if !has_many(stat, role) {
        out[role.name()] = seats.next().map(seat_json).into();
        return;
    }
    let numbered = seats.map(|seat| {
        let mut about = seat_json(seat);
        about["index"] = seat.index.into();
        about
    });
    let list: Vec<_> = numbered.collect();
    out[format!("{}s", role.name())] = list.into();
}

fn seat_json(seat: &SeatStat) -> Value {
    json!({
        "state": seat.state.name(),
        "generation": seat.generation,
        "pid": seat.pid,
        "heartbeat_age_ns": seat.heartbeat_age,
        "position": seat.position,
        "messages": seat.messages,
        "waits": seat.waits,
        "parks": seat.parks,
        "wakes": seat.wakes,
    })
}

fn is_broadcast(stat: &Stat) -> bool {
    stat.geometry.kind.spec().each_sees_all
}

/// Returns the seats that are worth a line: the only one of a role, and those that were ever held.
fn ever_held(stat: &Stat) -> impl Iterator<Item = &SeatStat> {
    let worth = |seat: &&SeatStat| !has_many(stat, seat.role) || seat.state != SeatState::Never;
    stat.seats.iter().filter(worth)
}

/// Returns `true` if the channel has several seats of this role.
fn has_many(stat: &Stat, role: Role) -> bool {
    stat.geometry.seats_of(role).len() > 1
}

fn as_text(name: &str, stat: &Stat) -> String {
    let header = &stat.header;
    let (unit, figure) = units(stat);
    let largest = if is_bytes(stat) {
        let max = stat.geometry.slot_size - bytes::PREFIX;
        ("records", format!("up to {}", text::exact(max)))
    } else if stat.topic.is_some() && header.fingerprint == 0 {
        (
            "messages",
            format!("up to {}", text::exact(stat.geometry.slot_size)),
        )
    } else {
        ("slot", text::exact(stat.geometry.slot_size))
    };
    let mut facts = vec![
        ("channel", name.to_string()),
        ("kind", stat.geometry.kind.name().to_string()),
        ("capacity", figure(stat.capacity()) + unit),
        largest,
        (
            "unread",
            unread(stat).map_or("-".into(), |unread| figure(unread) + unit),
        ),
    ];
    if let Some(growth) = &stat.growth {
        facts.extend(growth_facts(stat, growth));
    }
    if let Some(topic) = &stat.topic {
        facts.extend(topic_facts(stat, topic));
    } else if is_broadcast(stat) {
        if stat.geometry.when_full == WhenFull::Overwrite {
            facts.push(("in the ring", figure(stat.len) + unit));
        }
        facts.push(("when full", when_full(stat).to_string()));
        facts.push(("consumers", held_seats(stat, Role::Consumer)));
    }
    if let Some(seat) = stat.holds_back().filter(|_| is_broadcast(stat)) {
        facts.push(("held back", held_back(stat, seat)));
    }
    facts.extend(stat.queue.iter().flat_map(claims::facts));
    if !is_bytes(stat) && header.fingerprint == 0 {
        facts.push(("payload", "byte strings".to_string()));
    } else if !is_bytes(stat) {
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
    let mut out = format!("{}\n{}", text::facts(&facts), seats(stat));
    let claims = claims::table(stat, |claim| {
        let seat = stat.holder(claim);
        seat.map_or_else(String::new, |seat| seat_name(stat, seat))
    });
    if !claims.is_empty() {
        out.push('\n');
        out.push_str(&claims);
    }
    out
}

/// Returns the seats' holders, then their figures: one table of both is wider than a terminal.
fn seats(stat: &Stat) -> String {
    let mut holders = vec![
        ["SEAT", "STATE", "PID", "GENERATION", "SEEN"]
            .map(String::from)
            .to_vec(),
    ];
    let behind = if stat.topic.is_some() {
        &["MESSAGES", "LAG", "LAGGED", "PINS"][..]
    } else if is_broadcast(stat) {
        &["LAG", "LAGGED"][..]
    } else {
        &["MESSAGES"]
    };
    let head = [&["SEAT", "POSITION"], behind, &["PARKS", "WAKES"]].concat();
    let mut figures: Vec<Vec<_>> = vec![head.into_iter().map(String::from).collect()];
    for seat in ever_held(stat) {
        holders.push(holder(stat, seat));
        figures.push(seat_figures(stat, seat));
    }
    format!(
        "{}\n{}",
        text::table(&holders, &[2, 3, 4]),
        text::table(&figures, &[1, 2, 3, 4, 5, 6, 7])
    )
}

/// Returns the unread amount, in slots or bytes. A ring that overwrites also holds messages that
/// every consumer has read. There only messages that the slowest held consumer can still read
/// count. `None` if no consumer's seat is held.
pub(crate) fn unread(stat: &Stat) -> Option<u64> {
    if stat.geometry.when_full == WhenFull::Wait {
        return Some(stat.len);
    }
    let held = |seat: &&SeatStat| seat.role == Role::Consumer && seat.state == SeatState::Held;
    let held = stat.seats.iter().filter(held);
    held.map(|seat| stat.lag(seat).min(stat.len)).max()
}

/// Returns how far a consumer is behind. `None` once it left, unless it died and the producer still
/// waits for it.
fn lag(stat: &Stat, seat: &SeatStat) -> Option<u64> {
    let waited_for = seat.waited_for && stat.geometry.when_full == WhenFull::Wait;
    let behind = match seat.state {
        SeatState::Held => true,
        SeatState::Died => waited_for,
        _ => false,
    };
    behind.then(|| stat.lag(seat))
}

fn when_full(stat: &Stat) -> &'static str {
    match stat.geometry.when_full {
        WhenFull::Wait => "wait for the slowest consumer",
        WhenFull::Overwrite => "overwrite the oldest messages",
    }
}

/// Returns how many seats of a role are held.
fn held_seats(stat: &Stat, role: Role) -> String {
    let held = |seat: &&SeatStat| seat.role == role && seat.state == SeatState::Held;
    let held = stat.seats.iter().filter(held).count();
    format!(
        "{held} of {} seats held",
        stat.geometry.seats_of(role).len()
    )
}

fn topic_facts(stat: &Stat, topic: &TopicStat) -> Vec<(&'static str, String)> {
    let published = topic.published;
    let published = published.map(|published| text::count(published) + " messages");
    let most = text::bytes(stat.geometry.data_len());
    let memory = topic
        .backed
        .map(|backed| format!("{} of {most}", text::bytes(backed)));
    vec![
        ("published", published.unwrap_or("impossible".into())),
        ("publishers", held_seats(stat, Role::Producer)),
        ("subscribers", held_seats(stat, Role::Consumer)),
        ("memory", memory.unwrap_or(most)),
    ]
}

fn growth_facts(stat: &Stat, growth: &GrowthStat) -> Vec<(&'static str, String)> {
    let (unit, figure) = units(stat);
    let (min, max) = (stat.geometry.capacity, growth.max_capacity);
    let rings = match growth.rings {
        Some(1) => "1".into(),
        Some(rings) => format!("{rings}: {} not yet read or given back", rings - 1),
        None => "impossible".into(),
    };
    let mut facts = vec![
        ("range", format!("{} to {}{unit}", figure(min), figure(max))),
        ("resizes", text::count(growth.resizes)),
        ("rings", rings),
    ];
    if let Some(backed) = growth.backed {
        facts.push(("memory", text::bytes(backed)));
    }
    facts
}

/// Returns the name of the consumer that keeps the producer from going on.
fn held_back(stat: &Stat, seat: &SeatStat) -> String {
    format!(
        "by consumer {} ({}), process {}, {} slots behind",
        seat.index,
        seat.state.name(),
        seat.pid,
        text::count(stat.lag(seat)),
    )
}

fn seat_name(stat: &Stat, seat: &SeatStat) -> String {
    match seat.role {
        Role::Consumer if is_broadcast(stat) => format!("consumer {}", seat.index),
        role if has_many(stat, role) => format!("{} {}", role.name(), seat.index),
        role => role.name().to_string(),
    }
}

fn holder(stat: &Stat, seat: &SeatStat) -> Vec<String> {
    let seen = match seat.heartbeat_age {
        Some(age) if seat.state != SeatState::Never => text::ago(age),
        _ => "-".to_string(),
    };
    // A seat that was never held has no figures.
    let figure = |figure: u64| match seat.state {
        SeatState::Never => "-".to_string(),
        _ => figure.to_string(),
    };
    vec![
        seat_name(stat, seat),
        seat.state.name().to_string(),
        figure(seat.pid),
        figure(seat.generation),
        seen,
    ]
}

fn seat_figures(stat: &Stat, seat: &SeatStat) -> Vec<String> {
    let mut row = vec![seat_name(stat, seat), seat.position.to_string()];
    let none = || "-".to_string();
    match (&stat.topic, seat.role) {
        (Some(_), Role::Producer) => {
            row.extend([seat.messages.to_string(), none(), none(), none()]);
        }
        (Some(topic), Role::Consumer) => row.extend([
            none(),
            lag(stat, seat).map_or_else(none, |lag| lag.to_string()),
            seat.lagged.to_string(),
            format!("{} of {}", topic.pins_of(seat.index), stat.geometry.pins),
        ]),
        (None, _) => row.extend(usual_figures(stat, seat)),
    }
    row.extend([seat.parks, seat.wakes].map(|figure| figure.to_string()));
    row
}

/// Returns the figures in the middle of a seat's row, for other kinds than topics.
fn usual_figures(stat: &Stat, seat: &SeatStat) -> Vec<String> {
    let mut row = Vec::new();
    match (is_broadcast(stat), seat.role) {
        (false, _) => row.push(seat.messages.to_string()),
        (true, Role::Producer) => row.extend(["-", "-"].map(String::from)),
        (true, Role::Consumer) => {
            row.push(lag(stat, seat).map_or("-".into(), |lag| lag.to_string()));
            row.push(seat.lagged.to_string());
        }
    }
    row
}

/// Returns the creator's metadata, without the zeros at its end: as text if it is text, else in
/// hexadecimal.
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
        Ok(Some(age)) if ns != 0 => text::ago(age),
        _ => "unknown".to_string(),
    }
}

/// Returns the page size of the channel's data, as its file system reports it. (A hugetlbfs reports
/// its pages' size.)
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

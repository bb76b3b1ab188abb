//! Shows what the ends of a work queue have in their hands, for `stat`.

use std::cmp::Reverse;

use serde_json::{Value, json};
use slipring::inspect::{Claim, ClaimState, QueueStat, Stat};

use crate::text;

/// The most claims that a table for people shows.
const SHOWN: usize = 20;

/// Adds a queue's claims, and what else is out of the ordinary, to the JSON of its channel.
pub(crate) fn add_json(out: &mut Value, stat: &Stat) {
    let Some(queue) = &stat.queue else {
        return;
    };
    let claims = queue.claims.iter().map(|claim| {
        json!({
            "role": claim.role.name(),
            "index": claim.index,
            "pid": pid(stat, claim),
            "state": claim.state.name(),
            "position": claim.position,
            "count": claim.count,
            "held_for_ns": claim.held_for.map(|age| age.as_nanos() as u64),
            "deliveries": claim.deliveries,
        })
    });
    out["claims"] = claims.collect();
    out["dead_letters"] = queue.dead_letters.into();
    out["returned"] = queue.returned.into();
    out["corrupt"] = queue.corrupt.into();
}

/// Returns the facts of a queue that is out of the ordinary.
pub(crate) fn facts(queue: &QueueStat) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("dead letters", text::count(queue.dead_letters)),
        ("returned", text::count(queue.returned)),
    ];
    if queue.corrupt > 0 {
        facts.push(("corrupt slots", text::count(queue.corrupt)));
    }
    facts
}

/// Returns the claims as a table; empty if there are none. `name` names a seat. What is held longest comes first.
pub(crate) fn table(stat: &Stat, name: impl Fn(&Claim) -> String) -> String {
    let mut claims: Vec<_> = stat.claims().iter().collect();
    if claims.is_empty() {
        return String::new();
    }
    claims.sort_by_key(|claim| (Reverse(claim.held_for), claim.position));
    let head = [
        "SEAT",
        "PID",
        "WHAT",
        "POSITION",
        "COUNT",
        "SINCE",
        "DELIVERIES",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    let shown = claims.iter().take(SHOWN);
    rows.extend(shown.map(|claim| row(stat, claim, name(claim))));
    let mut out = text::table(&rows, &[1, 3, 4, 5, 6]);
    if let Some(more) = claims.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        out.push_str(&format!(
            "and {} more: see --json\n",
            text::count(more as u64)
        ));
    }
    out
}

fn row(stat: &Stat, claim: &Claim, name: String) -> Vec<String> {
    let unknown = || "-".to_string();
    let since = |age: std::time::Duration| text::ago(age.as_nanos() as u64);
    vec![
        name,
        pid(stat, claim).map_or_else(unknown, |pid| pid.to_string()),
        claim.state.name().to_string(),
        claim.position.to_string(),
        claim.count.to_string(),
        claim.held_for.map_or_else(unknown, since),
        match claim.state {
            ClaimState::Reserved => unknown(),
            _ => claim.deliveries.to_string(),
        },
    ]
}

/// Returns the process id that the holder of the claim's seat wrote.
fn pid(stat: &Stat, claim: &Claim) -> Option<u64> {
    stat.holder(claim).map(|seat| seat.pid)
}

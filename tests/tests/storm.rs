//! Storms over sides that wait: killed in their sleep, in their polls, on the point of waking somebody,
//! or while whoever they should wake is stopped. Every message is accounted for, and nobody waits for
//! ever. (`verify/storm-wake.py` does the same for as long as one likes.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::storm::VARIANTS;

/// How often each kind of channel, named and passed, is hit.
const KILLS: u64 = 840;

fn rage(waits: &str) {
    let places = VARIANTS.iter().filter(|variant| variant.waits == waits);
    for (seed, variant) in places.enumerate() {
        let toll = variant.rage(env!("CARGO_BIN_EXE_peer"), KILLS, 7919 * (1 + seed as u64));
        eprintln!("{variant}: {toll}");
    }
}

#[test]
fn sleepers_survive_3360_kills() {
    rage("sleep");
}

#[test]
fn pollers_survive_3360_kills() {
    rage("poll");
}

#[test]
fn those_who_sleep_and_poll_in_turn_survive_3360_kills() {
    rage("turns");
}

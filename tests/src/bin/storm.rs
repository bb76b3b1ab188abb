//! `storm` lists the variants of `storm.rs`, a line each; `storm VARIANT KILLS SEED` lets one rage, and
//! says how many messages arrived, and the longest silence in milliseconds. For `verify/storm-wake.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring_tests::storm::VARIANTS;

fn main() {
    let args = std::env::args().skip(1).collect::<Vec<_>>();
    let [variant, kills, seed] = &args[..] else {
        VARIANTS.iter().for_each(|variant| println!("{variant}"));
        return;
    };
    let known = VARIANTS.iter().find(|known| known.to_string() == *variant);
    let peer = std::env::current_exe().unwrap().with_file_name("peer");
    let (kills, seed) = (kills.parse().unwrap(), seed.parse().unwrap());
    let toll = known
        .expect("no such variant")
        .rage(peer.to_str().unwrap(), kills, seed);
    println!("{} {}", toll.committed, toll.silence.as_millis());
}

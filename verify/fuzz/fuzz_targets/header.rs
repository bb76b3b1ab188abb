//! Attaches to a channel in which arbitrary words were changed: see `memory/header.rs`.
#![no_main]

#[path = "../../../crates/slipring/tests/memory/mod.rs"]
mod memory;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = memory::header::attach(input);
});
